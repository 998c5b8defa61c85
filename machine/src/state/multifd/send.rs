//! The source's end of the channels: a thread for each takes pages from one queue.

use super::super::ram;
use super::super::stream::{Kind, Result, StateError, Writer};
use super::{Plan, ended};
use parking_lot::{Condvar, Mutex};
use rhea_memory::RamBlock;
use std::collections::VecDeque;
use std::io::{BufWriter, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Opens one more connection to the other end; the type stands for stream sockets of any family.
pub type Dial = Box<dyn Fn() -> std::io::Result<UnixStream> + Send>;

/// Pages on their way: where, the first one, how many.
type Pages = (Arc<RamBlock>, u64, u64);

/// What is done beside the pages: told of pages and bytes that were written.
type Tell = Arc<dyn Fn(u64, u64) + Send + Sync>;

#[derive(Default)]
struct State {
    queue: VecDeque<Pages>,
    /// The round whose end is to be written when the queue is empty.
    round: u64,
    /// Nothing follows.
    end: bool,
    /// Channels that have written the end of the round, or of all.
    reached: usize,
    error: Option<String>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    links: Vec<UnixStream>,
    /// Called when a channel fails.
    halt: Box<dyn Fn() + Send + Sync>,
}

enum Next {
    Pages(Pages),
    Round(u64),
    End,
    /// Another channel has failed.
    Nothing,
}

impl Shared {
    fn fail(&self, what: String) {
        self.state.lock().error.get_or_insert(what);
        (self.halt)();
        self.shut();
        self.changed.notify_all();
    }
    fn shut(&self) {
        for link in &self.links {
            // It is broken already then.
            let _ = link.shutdown(Shutdown::Both);
        }
    }
    fn next(&self, round: u64) -> Next {
        let mut state = self.state.lock();
        loop {
            if state.error.is_some() {
                return Next::Nothing;
            }
            if let Some(pages) = state.queue.pop_front() {
                self.changed.notify_all();
                return Next::Pages(pages);
            }
            if state.round > round {
                return Next::Round(state.round);
            }
            if state.end {
                return Next::End;
            }
            self.changed.wait(&mut state);
        }
    }
    fn reached(&self) {
        self.state.lock().reached += 1;
        self.changed.notify_all();
    }
    /// Writes what comes until the end.
    fn work<W: Write>(&self, mut writer: Writer<W>, tell: &Tell) -> Result<()> {
        let (mut at, mut told) = (0, 0);
        loop {
            match self.next(at) {
                Next::Pages((block, first, count)) => {
                    ram::write(&mut writer, &block, first, count)?;
                    tell(count, writer.written - told);
                    told = writer.written;
                }
                Next::Round(round) => {
                    at = round;
                    writer.section(Kind::Round, "", 1, &round.to_le_bytes())?;
                    writer.flush()?;
                    self.reached();
                }
                Next::End => {
                    writer.finish()?;
                    self.reached();
                    return Ok(());
                }
                Next::Nothing => return Ok(()),
            }
        }
    }
}

/// All channels of a move.
pub struct Senders {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Senders {
    /// Makes the connections of `plan`. What is written to them goes through `wrap`; `halt` makes all that `wrap` has made end soon.
    pub fn new<W: Write + Send + 'static>(
        plan: &Plan,
        dial: &Dial,
        zstd: Option<i32>,
        wrap: impl Fn(UnixStream) -> W,
        halt: Box<dyn Fn() + Send + Sync>,
        tell: Tell,
    ) -> Result<Self> {
        let fail = |number: u8, e: &dyn std::fmt::Display| StateError::Other(format!("multifd channel {number}: {e}"));
        let mut links = Vec::new();
        for number in 0..plan.channels {
            let greet = |mut link: UnixStream| link.write_all(&plan.greeting(number)).map(|()| link);
            links.push(dial().and_then(greet).map_err(|e| fail(number, &e))?);
        }
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), links, halt });
        let mut this = Self { shared, threads: Vec::new() };
        for number in 0..plan.channels {
            let to = wrap(this.shared.links[usize::from(number)].try_clone()?);
            let (shared, tell) = (this.shared.clone(), tell.clone());
            let thread = move || {
                let result = Writer::new(BufWriter::with_capacity(256 << 10, to)).and_then(|mut writer| {
                    writer.zstd = zstd;
                    shared.work(writer, &tell)
                });
                if let Err(e) = result {
                    shared.fail(fail(number, &e).to_string());
                }
            };
            this.threads.push(std::thread::Builder::new().name(format!("rhea-multifd{number}")).spawn(thread)?);
        }
        Ok(this)
    }
    /// Makes what is written fail, from any thread.
    pub fn stopper(&self) -> impl Fn() + Send + Sync + use<> {
        let shared = self.shared.clone();
        move || shared.fail(ended().to_string())
    }
    /// Waits until `done`.
    fn wait(&self, done: impl Fn(&State) -> bool) -> Result<parking_lot::MutexGuard<'_, State>> {
        let mut state = self.shared.state.lock();
        loop {
            if let Some(error) = &state.error {
                return Err(StateError::Other(error.clone()));
            }
            if done(&state) {
                return Ok(state);
            }
            self.shared.changed.wait(&mut state);
        }
    }
    /// Sends pages by some channel; waits while all have enough to do.
    pub fn pages(&self, block: &Arc<RamBlock>, first: u64, count: u64) -> Result<()> {
        let most = 2 * self.threads.len();
        self.wait(|s| s.queue.len() < most)?.queue.push_back((block.clone(), first, count));
        self.shared.changed.notify_all();
        Ok(())
    }
    /// All pages are out, and the end of the round behind them: its number.
    pub fn round(&self) -> Result<u64> {
        let round = {
            let mut state = self.shared.state.lock();
            state.round += 1;
            state.reached = 0;
            state.round
        };
        self.shared.changed.notify_all();
        let all = self.threads.len();
        self.wait(|s| s.reached == all).map(|_| round)
    }
    /// Ends all channels' streams.
    pub fn finish(&self) -> Result<()> {
        {
            let mut state = self.shared.state.lock();
            state.end = true;
            state.reached = 0;
        }
        self.shared.changed.notify_all();
        let all = self.threads.len();
        self.wait(|s| s.reached == all).map(|_| ())
    }
}

impl Drop for Senders {
    fn drop(&mut self) {
        let ended = {
            let state = self.shared.state.lock();
            state.end && state.reached == self.threads.len()
        };
        if !ended {
            self.shared.fail(super::ended().to_string());
        }
        for thread in self.threads.drain(..) {
            // What a thread that panicked has to say was said.
            let _ = thread.join();
        }
    }
}
