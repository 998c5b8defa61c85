//! The destination's end of the channels: a thread for each takes pages over, and all meet at the end of each round.

use super::super::ram;
use super::super::stream::{Kind, Reader, Result, Section, StateError};
use super::{GREETING, Plan, READY, round};
use parking_lot::{Condvar, Mutex};
use rhea_memory::RamBlock;
use std::io::{self, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long all channels together may take to be made, and how long none of them may bring anything while all are waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a connection may take to greet.
const GREETS: Duration = Duration::from_secs(5);
/// The number of the round behind all others: a channel's end.
const END: u64 = u64::MAX;

/// Where further connections come from.
pub struct Accepting {
    /// Waits for one until then; the type stands for stream sockets of any family.
    pub accept: Box<dyn FnMut(Instant) -> io::Result<UnixStream> + Send>,
    /// Ends the reading of the main stream, which can still be written to.
    pub stop: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct State {
    /// The round whose end each channel has come to.
    at: Vec<u64>,
    /// The round whose end all have come to.
    met: u64,
    error: Option<String>,
}

/// Where the channels meet.
struct Meeting {
    state: Mutex<State>,
    changed: Condvar,
    /// Bytes that came by any channel.
    received: AtomicU64,
    links: Vec<UnixStream>,
    stop: Box<dyn Fn() + Send + Sync>,
}

impl Meeting {
    fn fail(&self, what: String) {
        self.state.lock().error.get_or_insert(what);
        (self.stop)();
        for link in &self.links {
            // It is broken already then.
            let _ = link.shutdown(Shutdown::Both);
        }
        self.changed.notify_all();
    }
    /// Channel `number` has come to the end of a round; whether it goes on when all have.
    fn arrive(&self, number: usize, round: u64) -> bool {
        let mut state = self.state.lock();
        state.at[number] = round;
        self.changed.notify_all();
        while state.met < round && round != END && state.error.is_none() {
            self.changed.wait(&mut state);
        }
        state.error.is_none()
    }
    /// Waits for all channels at the end of a round.
    fn meet(&self, round: u64, patience: Duration) -> Result<()> {
        let mut state = self.state.lock();
        let (mut received, mut since) = (self.received.load(Ordering::Relaxed), Instant::now());
        loop {
            if let Some(error) = &state.error {
                return Err(StateError::Other(error.clone()));
            }
            if let Some(number) = state.at.iter().position(|at| *at > round) {
                return Err(StateError::Other(format!("multifd channel {number}: its stream has ended too early")));
            }
            let Some(late) = state.at.iter().position(|at| *at != round) else { break };
            let now = self.received.load(Ordering::Relaxed);
            if now != received {
                (received, since) = (now, Instant::now());
            }
            let Some(left) = patience.checked_sub(since.elapsed()).filter(|d| !d.is_zero()) else {
                return Err(StateError::Other(format!("multifd channel {late}: nothing comes")));
            };
            self.changed.wait_for(&mut state, left);
        }
        state.met = round;
        self.changed.notify_all();
        Ok(())
    }
    /// Takes over what channel `number` brings.
    fn take(&self, number: usize, from: impl Read, blocks: &[Arc<RamBlock>]) -> Result<()> {
        let counted = Counted { from, received: &self.received };
        let mut reader = Reader::new(BufReader::with_capacity(256 << 10, counted))?;
        reader.limit = ram::MOST;
        let mut at = 0;
        while let Some(section) = reader.next()? {
            match section.kind {
                Kind::Pages => {
                    ram::read(&section, blocks, true)?;
                }
                Kind::Round if round(&section)? == at + 1 => {
                    at += 1;
                    if !self.arrive(number, at) {
                        return Ok(());
                    }
                }
                Kind::Round => return Err(section.error(format!("the one after {at} is missing"))),
                _ => return Err(section.error("it belongs to the main stream")),
            }
        }
        self.arrive(number, END);
        Ok(())
    }
}

struct Counted<'a, R> {
    from: R,
    received: &'a AtomicU64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(data)?;
        self.received.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// The number of the channel that a connection greets as; `None`: a stranger's.
fn greeting(plan: &Plan, mut link: &UnixStream, until: Instant) -> Option<u8> {
    let mut bytes = [0; GREETING];
    let mut have = 0;
    while have < GREETING {
        let left = until.checked_duration_since(Instant::now()).filter(|d| !d.is_zero())?;
        link.set_read_timeout(Some(left)).ok()?;
        match link.read(&mut bytes[have..]) {
            Ok(0) => return None,
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    link.set_read_timeout(None).ok()?;
    plan.channel(&bytes)
}

/// All channels of a move that comes, if it has any.
#[derive(Default)]
pub struct Receivers<'a> {
    /// How many there are to be; `None`: the capability is off.
    wanted: Option<u8>,
    accepting: Option<Accepting>,
    answers: Option<&'a mut Box<dyn Write + Send>>,
    pub(super) patience: Duration,
    meeting: Option<Arc<Meeting>>,
    threads: Vec<JoinHandle<()>>,
}

impl<'a> Receivers<'a> {
    pub fn new(
        wanted: Option<u8>,
        accepting: Option<Accepting>,
        answers: Option<&'a mut Box<dyn Write + Send>>,
    ) -> Self {
        Self { wanted, accepting, answers, patience: PATIENCE, meeting: None, threads: Vec::new() }
    }
    /// Waits for the channels that the source speaks of, which must be those that are wanted here.
    pub fn begin(&mut self, plan: Option<&Plan>, blocks: &[Arc<RamBlock>]) -> Result<()> {
        let differs =
            |what: &str, was: &str, is: &str| Err(StateError::Differs(what.to_owned(), was.to_owned(), is.to_owned()));
        let word = |on: bool| if on { "on" } else { "off" };
        let (plan, wanted) = match (plan, self.wanted) {
            (None, None) => return Ok(()),
            (Some(plan), Some(wanted)) => (plan, wanted),
            (plan, wanted) => return differs("multifd", word(plan.is_some()), word(wanted.is_some())),
        };
        if plan.channels != wanted || wanted == 0 {
            return differs("multifd-channels", &plan.channels.to_string(), &wanted.to_string());
        }
        let Some(Accepting { mut accept, stop }) = self.accepting.take() else {
            return Err(StateError::Other("Migration requires multi-channel URIs (e.g. tcp)".to_owned()));
        };
        if let Some(to) = &mut self.answers {
            writeln!(to, "{READY}").and_then(|()| to.flush())?;
        }
        let until = Instant::now() + self.patience;
        let mut links: Vec<Option<UnixStream>> = (0..wanted).map(|_| None).collect();
        while let Some(missing) = links.iter().position(Option::is_none) {
            let fail = |e| StateError::Other(format!("multifd channel {missing}: {e}"));
            let link = accept(until).map_err(fail)?;
            // Who does not know the token has nothing to do with the move.
            let Some(number) = greeting(plan, &link, until.min(Instant::now() + GREETS)) else { continue };
            links[usize::from(number)].get_or_insert(link);
        }
        let links: Vec<UnixStream> = links.into_iter().flatten().collect();
        let state = State { at: vec![0; links.len()], ..State::default() };
        let ends: io::Result<Vec<_>> = links.iter().map(UnixStream::try_clone).collect();
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let meeting = Arc::new(Meeting { state, changed, received: AtomicU64::new(0), links, stop });
        self.meeting = Some(meeting.clone());
        for (number, from) in ends?.into_iter().enumerate() {
            let (meeting, blocks) = (meeting.clone(), blocks.to_vec());
            let thread = move || {
                if let Err(e) = meeting.take(number, from, &blocks) {
                    meeting.fail(format!("multifd channel {number}: {e}"));
                }
            };
            self.threads.push(std::thread::Builder::new().name(format!("rhea-multifd{number}")).spawn(thread)?);
        }
        Ok(())
    }
    /// Do pages come by channels?
    pub fn carry_pages(&self) -> bool {
        self.meeting.is_some()
    }
    /// The main stream has come to the end of a round: all channels are waited for.
    pub fn round(&self, section: &Section) -> Result<()> {
        let number = round(section)?;
        let Some(meeting) = &self.meeting else { return Err(section.error("there are no channels")) };
        let met = meeting.state.lock().met;
        if met.checked_add(1) != Some(number) || number == END {
            return Err(section.error(format!("the one after {met} is missing")));
        }
        meeting.meet(number, self.patience)
    }
    /// The main stream has come to its end.
    pub fn end(&self) -> Result<()> {
        self.meeting.as_ref().map_or(Ok(()), |m| m.meet(END, self.patience))
    }
    /// The error of a channel, because of which the main stream may have failed; `e` if there is none.
    pub fn error(&self, e: StateError) -> StateError {
        let own = self.meeting.as_ref().and_then(|m| m.state.lock().error.clone());
        own.map_or(e, StateError::Other)
    }
}

impl Drop for Receivers<'_> {
    fn drop(&mut self) {
        let Some(meeting) = &self.meeting else { return };
        // The main stream is still read when all channels have ended as they should.
        if meeting.state.lock().met != END {
            meeting.fail("the main stream has ended".to_owned());
        }
        for thread in self.threads.drain(..) {
            // What a thread that panicked has to say was said.
            let _ = thread.join();
        }
    }
}
