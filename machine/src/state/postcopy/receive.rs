//! The destination: pages are put where they are absent as they come, and asked for when somebody waits for them.

use super::super::ram;
use super::super::stream::{Kind, Reader, Result, Section, StateError};
use super::{PageSet, Token, broken};
use parking_lot::{Condvar, Mutex};
use rhea_memory::{Faults, PAGE_SIZE, RamBlock, Wanted};
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the thread that is told of faults looks whether it is needed.
const LOOKS: Duration = Duration::from_millis(200);

struct State {
    missing: PageSet,
    /// Asked for, and not here.
    wanted: BTreeSet<(usize, u64)>,
    go: bool,
    done: bool,
    broken: Option<String>,
}

struct Shared {
    faults: Faults,
    blocks: Vec<Arc<RamBlock>>,
    state: Mutex<State>,
    changed: Condvar,
    answers: Mutex<Option<Box<dyn Write + Send>>>,
    stop: AtomicBool,
}

impl Shared {
    fn fail(&self, why: String) {
        self.state.lock().broken.get_or_insert(why);
        self.changed.notify_all();
    }
    /// What is lost when the connection is broken is said again by the next one.
    fn say(&self, lines: &str) {
        if let Some(to) = &mut *self.answers.lock() {
            let _ = to.write_all(lines.as_bytes()).and_then(|()| to.flush());
        }
    }
    fn want(&self, (block, page): (usize, u64)) -> String {
        format!("want {page} {}\n", self.blocks[block].name())
    }
    /// Somebody waits for a page.
    fn fault(&self, at: Wanted) -> io::Result<()> {
        let place = (at.block, at.page);
        let new = {
            let mut state = self.state.lock();
            state.missing.contains(at.block, at.page).then(|| state.wanted.insert(place))
        };
        match new {
            Some(true) => self.say(&self.want(place)),
            Some(false) => {}
            // It never was anything but zeros, or was given back to the host.
            None => {
                self.faults.place(at, None)?;
            }
        }
        Ok(())
    }
    fn watch(&self) {
        while !self.stop.load(Ordering::SeqCst) {
            let result = match self.faults.next(LOOKS) {
                Ok(Some(at)) => self.fault(at),
                Ok(None) => Ok(()),
                Err(e) => Err(e),
            };
            if let Err(e) = result {
                self.fail(format!("userfaultfd: {e}"));
                std::thread::sleep(LOOKS);
            }
        }
    }
    fn pages(&self, section: &Section) -> Result<()> {
        ram::each(section, &self.blocks, |block, page, content| {
            // What was not missing is the guest's, whatever the source says.
            if !self.state.lock().missing.contains(block, page) {
                return Ok(());
            }
            let at = Wanted { block, page };
            self.faults.place(at, content).map_err(|e| section.error(format!("page {page}: {e}")))?;
            let mut state = self.state.lock();
            state.missing.remove(block, page);
            state.wanted.remove(&(block, page));
            Ok(())
        })
        .map(drop)
    }
    /// Takes over what comes, to its end.
    fn take<R: Read>(&self, mut reader: Reader<R>) -> Result<()> {
        reader.limit = ram::MOST;
        while let Some(section) = reader.next()? {
            match section.kind {
                Kind::Pages => self.pages(&section)?,
                Kind::Go => {
                    self.state.lock().go = true;
                    self.changed.notify_all();
                }
                _ => return Err(section.error("it does not belong behind the machine")),
            }
        }
        let mut state = self.state.lock();
        match (state.missing.count(), state.go) {
            (0, true) => state.done = true,
            (n, _) => return Err(broken(format!("the stream has ended, and {n} pages are missing"))),
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }
}

/// Whether this host can take over a machine in post-copy.
///
/// # Errors
/// Why not, and what helps.
pub fn check() -> std::result::Result<(), String> {
    Faults::new().map(drop).map_err(|e| {
        format!(
            "Postcopy is not supported: userfaultfd: {e}; allow access to /dev/userfaultfd, or set \
             vm.unprivileged_userfaultfd=1"
        )
    })
}

/// A machine whose memory is not all here.
pub struct Arrival {
    shared: Arc<Shared>,
    watcher: Option<JoinHandle<()>>,
    taker: Option<JoinHandle<()>>,
}

impl Arrival {
    /// Memory that cannot come later, and why.
    pub fn check_blocks(blocks: &[Arc<RamBlock>]) -> Result<()> {
        let why = "memory in a file, shared memory and huge pages of the host cannot come later";
        match blocks.iter().find(|b| !b.is_plain()) {
            Some(block) => Err(StateError::Other(format!("postcopy-ram: memory '{}': {why}", block.name()))),
            None => Ok(()),
        }
    }
    /// The pages that are `missing` come behind what was read of `from`, and are waited for from here on.
    pub fn begin(
        blocks: Vec<Arc<RamBlock>>,
        missing: PageSet,
        from: impl Read + Send + 'static,
        answers: &mut Option<Box<dyn Write + Send>>,
    ) -> Result<Self> {
        Self::check_blocks(&blocks)?;
        let mut faults = Faults::new().map_err(StateError::Io)?;
        for (number, block) in blocks.iter().enumerate() {
            let fail = |e: &dyn std::fmt::Display| StateError::Other(format!("memory '{}': {e}", block.name()));
            faults.add(block.clone()).map_err(|e| fail(&e))?;
            for (first, count) in missing.runs(number) {
                let held = "its pages cannot be given back: a device holds them, or they are locked";
                block.discard(first * PAGE_SIZE, count * PAGE_SIZE).map_err(|_| fail(&held))?;
            }
        }
        let state = State { missing, wanted: BTreeSet::new(), go: false, done: false, broken: None };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let answers = Mutex::new(answers.take());
        let shared = Arc::new(Shared { faults, blocks, state, changed, answers, stop: AtomicBool::new(false) });
        let mut this = Self { shared: shared.clone(), watcher: None, taker: None };
        let watch = move || shared.watch();
        this.watcher = Some(std::thread::Builder::new().name("rhea-faults".to_owned()).spawn(watch)?);
        this.listen(move || Reader::new(from))?;
        Ok(this)
    }
    fn listen<R: Read + Send + 'static>(
        &mut self,
        open: impl FnOnce() -> Result<Reader<R>> + Send + 'static,
    ) -> Result<()> {
        let shared = self.shared.clone();
        let take = move || {
            if let Err(e) = open().and_then(|reader| shared.take(reader)) {
                shared.fail(e.to_string());
            }
        };
        self.taker = Some(std::thread::Builder::new().name("rhea-postcopy".to_owned()).spawn(take)?);
        Ok(())
    }
    fn wait(&self, until: impl Fn(&State) -> bool) -> Result<()> {
        let mut state = self.shared.state.lock();
        loop {
            if until(&state) {
                return Ok(());
            }
            if let Some(why) = &state.broken {
                return Err(StateError::Other(why.clone()));
            }
            self.shared.changed.wait(&mut state);
        }
    }
    /// Says that the machine was taken over, and waits until it may be started.
    pub fn take_over(&self) -> Result<()> {
        self.shared.say("ok\n");
        self.wait(|s| s.go)
    }
    /// Tells the source why nothing comes of it.
    pub fn refuse(&self, e: &StateError) {
        self.shared.say(&format!("{e}\n"));
    }
    /// Waits until all is here.
    ///
    /// # Errors
    /// The connection is broken: [`Self::resume`].
    pub fn finish(&self) -> Result<()> {
        self.wait(|s| s.done)?;
        self.shared.say("done\n");
        Ok(())
    }
    /// Ends what is left of a connection that is broken.
    fn leave(&mut self) {
        *self.shared.answers.lock() = None;
        if let Some(taker) = self.taker.take() {
            // What a thread that panicked has to say was said.
            let _ = taker.join();
        }
    }
    /// Goes on by another connection, if it is of the same move.
    pub fn resume(
        &mut self,
        from: impl Read + Send + 'static,
        mut answers: Box<dyn Write + Send>,
        token: Token,
    ) -> Result<()> {
        self.leave();
        let mut reader = Reader::new(from)?;
        let first = reader.next()?.filter(|s| s.kind == Kind::Resume);
        let words = first.as_ref().map(|s| s.data.as_chunks::<8>().0);
        if words.and_then(|w| w.as_array::<2>()).map(|w| w.map(u64::from_le_bytes)) != Some(token) {
            let why = "this is not the move that is waited for";
            let _ = writeln!(answers, "{why}").and_then(|()| answers.flush());
            return Err(broken(why));
        }
        // What is wanted from here on is asked for behind this.
        let mut to = self.shared.answers.lock();
        let mut lines = String::new();
        {
            let mut state = self.shared.state.lock();
            for (number, block) in self.shared.blocks.iter().enumerate() {
                for (first, count) in state.missing.runs(number) {
                    lines += &format!("missing {first} {count} {}\n", block.name());
                }
            }
            lines += "ready\n";
            state.wanted.iter().for_each(|place| lines += &self.shared.want(*place));
            state.broken = None;
        }
        answers.write_all(lines.as_bytes()).and_then(|()| answers.flush())?;
        *to = Some(answers);
        drop(to);
        self.listen(move || Ok(reader))
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
        // The other thread has ended when all is here, and ends with the connection if not.
    }
}
