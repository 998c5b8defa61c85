//! The machine is saved while its guest runs: the capability `background-snapshot`. Its memory goes as it was when that began, because
//! what the guest is about to write to is looked at before; clock, devices and processors, which were looked at then, go last.

use super::machine::Manner;
use super::migrate::{Migration, MigrationStatus};
use super::pace::Paced;
use super::postcopy::PageSet;
use super::ram;
use super::stream::{Kind, Reader, Result, StateError, Writer};
use crate::machine::Machine;
use parking_lot::{Condvar, Mutex};
use rhea_memory::{Faults, PAGE_SIZE, RamBlock, Wanted};
use std::io::{BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the thread that is told of faults looks whether it is needed.
const LOOKS: Duration = Duration::from_millis(200);
/// Pages that are kept because the guest has written to them since, until the stream has taken them: 64 MiB. The guest waits then.
const EARLY: usize = 16384;

struct State {
    unsaved: PageSet,
    /// As they were.
    early: Vec<(usize, Vec<u8>)>,
    failed: Option<String>,
}

struct Shared {
    faults: Faults,
    blocks: Vec<Arc<RamBlock>>,
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
}

impl Shared {
    /// Somebody waits to write to a page.
    fn fault(&self, at: Wanted) -> Result<()> {
        {
            let mut state = self.state.lock();
            while state.early.len() >= EARLY && !self.stop.load(Ordering::SeqCst) {
                self.changed.wait_for(&mut state, LOOKS);
            }
            if !state.unsaved.remove(at.block, at.page) {
                // It is being looked at, and set free then.
                return Ok(());
            }
            let content = ram::content(&self.blocks[at.block], at.page, 1)?;
            state.early.push((at.block, content));
        }
        self.changed.notify_all();
        Ok(self.faults.protect(at.block, at.page, 1, false)?)
    }
    fn watch(&self) {
        while !self.stop.load(Ordering::SeqCst) {
            let result = match self.faults.next(LOOKS) {
                Ok(Some(at)) => self.fault(at),
                Ok(None) => Ok(()),
                Err(e) => Err(e.into()),
            };
            if let Err(e) = result {
                self.state.lock().failed.get_or_insert(format!("userfaultfd: {e}"));
                self.changed.notify_all();
                return;
            }
        }
    }
}

/// Memory that is being saved.
pub(super) struct Saver {
    shared: Arc<Shared>,
    watcher: Option<JoinHandle<()>>,
}

/// Whether this host can do it.
///
/// # Errors
/// Why not, and what helps.
pub fn check_background_host() -> std::result::Result<(), String> {
    Faults::protecting().map(drop).map_err(|e| {
        format!(
            "Background-snapshot is not supported by host kernel: userfaultfd: {e}; allow access to /dev/userfaultfd, or set \
             vm.unprivileged_userfaultfd=1"
        )
    })
}

impl Saver {
    /// Makes ready what takes time, while the guest runs.
    pub fn new(blocks: Vec<Arc<RamBlock>>) -> Result<Self> {
        let mut faults = Faults::protecting()?;
        let mut unsaved = PageSet::new(&blocks);
        for (number, block) in blocks.iter().enumerate() {
            let fail = |why: &dyn std::fmt::Display| {
                StateError::Other(format!("background-snapshot: memory '{}': {why}", block.name()))
            };
            if !block.is_plain() {
                return Err(fail(&"memory in a file, shared memory and huge pages of the host are not supported"));
            }
            if block.any_pinned() {
                return Err(fail(&"a device of the host writes to it unseen"));
            }
            unsaved.insert_all(number);
            faults.add(block.clone()).map_err(|e| fail(&e))?;
        }
        let state = Mutex::new(State { unsaved, early: Vec::new(), failed: None });
        let shared = Shared { faults, blocks, state, changed: Condvar::new(), stop: AtomicBool::new(false) };
        Ok(Self { shared: Arc::new(shared), watcher: None })
    }
    /// What the memory holds now is what is saved.
    pub fn begin(&mut self) -> Result<()> {
        let shared = self.shared.clone();
        self.watcher = Some(std::thread::Builder::new().name("rhea-faults".to_owned()).spawn(move || shared.watch())?);
        for (number, block) in self.shared.blocks.iter().enumerate() {
            self.shared.faults.protect(number, 0, block.len() / PAGE_SIZE, true)?;
        }
        Ok(())
    }
    /// Writes all of it; `sent` is told of pages and how many are left, and may give up.
    pub fn write<W: Write>(&self, writer: &mut Writer<W>, mut sent: impl FnMut(u64, u64) -> Result<()>) -> Result<()> {
        let mut near = (0, 0);
        loop {
            let (early, run, left) = {
                let mut state = self.shared.state.lock();
                if let Some(why) = &state.failed {
                    return Err(StateError::Other(why.clone()));
                }
                let early = std::mem::take(&mut state.early);
                let run = if early.is_empty() { state.unsaved.take(near, ram::BATCH) } else { None };
                (early, run, state.unsaved.count())
            };
            self.shared.changed.notify_all();
            if let Some((number, first, count)) = run {
                let block = &self.shared.blocks[number];
                let content = ram::content(block, first, count)?;
                self.shared.faults.protect(number, first, count, false)?;
                writer.section(Kind::Pages, block.name(), 1, &content)?;
                near = (number, first + count);
                sent(count, left)?;
            } else if early.is_empty() {
                return Ok(());
            }
            for (number, content) in early {
                writer.section(Kind::Pages, self.shared.blocks[number].name(), 1, &content)?;
                sent(1, left)?;
            }
        }
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.changed.notify_all();
        if let Some(watcher) = self.watcher.take() {
            // What a thread that panicked has to say was said.
            let _ = watcher.join();
        }
    }
}

impl Migration {
    /// Saves the machine as it is now; its guest goes on.
    pub(super) fn background(
        self: &Arc<Self>,
        machine: &Arc<Machine>,
        mut writer: Writer<BufWriter<Paced>>,
        sent: &AtomicU64,
    ) -> Result<()> {
        machine.write_head(&mut writer, Manner::default())?;
        self.set(MigrationStatus::Active);
        let mut saver = Saver::new(machine.memory_blocks())?;
        let (before, since) = self.stop(machine)?;
        let kept = (|| {
            let mut kept = Writer::new(Vec::new())?;
            machine.write_rest(&mut kept, before.runs())?;
            saver.begin()?;
            kept.finish()
        })();
        let own = machine.clone();
        machine.control().run(move || {
            own.unrest();
            own.go_on(before);
        });
        let kept = kept?;
        self.progress.lock().downtime = since.elapsed().as_millis() as u64;
        saver.write(&mut writer, |pages, left| {
            let mut progress = self.progress.lock();
            progress.pages += pages;
            progress.remaining = left * PAGE_SIZE;
            progress.transferred = sent.load(Ordering::Relaxed);
            drop(progress);
            self.check()
        })?;
        drop(saver);
        let mut rest = Reader::new(&kept[..])?;
        while let Some(section) = rest.next()? {
            writer.section(section.kind, &section.name, section.version, &section.data)?;
        }
        writer.finish()?;
        self.progress.lock().transferred = sent.load(Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written to meanwhile is saved as it was, whoever comes first.
    #[test]
    fn memory_is_saved_as_it_was() {
        if let Err(why) = check_background_host() {
            return println!("skipped: {why}");
        }
        const PAGES: u64 = 2000;
        let blocks = || -> Vec<_> {
            [("low", 3), ("ram", PAGES)].map(|(name, n)| RamBlock::anonymous(name, n * PAGE_SIZE).unwrap()).into()
        };
        let (from, to) = (blocks(), blocks());
        for page in (0..PAGES).step_by(2) {
            from[1].store(page * PAGE_SIZE, 8, page).unwrap();
        }
        let mut saver = Saver::new(from.clone()).unwrap();
        saver.begin().unwrap();
        let mut writer = Writer::new(Vec::new()).unwrap();
        std::thread::scope(|s| {
            let ram = &from[1];
            // From the end, while the other one goes from the beginning.
            s.spawn(move || (0..PAGES).rev().for_each(|page| ram.store(page * PAGE_SIZE, 8, 1 << 32).unwrap()));
            saver.write(&mut writer, |_, _| Ok(())).unwrap();
        });
        drop(saver);
        let bytes = writer.finish().unwrap();
        let (mut reader, mut pages) = (Reader::new(&bytes[..]).unwrap(), 0);
        while let Some(section) = reader.next().unwrap() {
            pages += ram::read(&section, &to, true).unwrap();
        }
        assert_eq!(pages, PAGES + 3);
        for page in 0..PAGES {
            assert_eq!(to[1].load(page * PAGE_SIZE, 8), Ok(if page % 2 == 0 { page } else { 0 }), "page {page}");
            assert_eq!(from[1].load(page * PAGE_SIZE, 8), Ok(1 << 32));
        }
    }

    /// A stream that fails sets the guest free.
    #[test]
    fn a_stream_that_fails_leaves_nothing_protected() {
        if check_background_host().is_err() {
            return println!("skipped: no userfaultfd");
        }
        let blocks = vec![RamBlock::anonymous("ram", 600 * PAGE_SIZE).unwrap()];
        let mut saver = Saver::new(blocks.clone()).unwrap();
        saver.begin().unwrap();
        let mut writer = Writer::new(std::io::sink()).unwrap();
        let gives_up = |_, _| Err(StateError::Other("enough".to_owned()));
        assert!(saver.write(&mut writer, gives_up).is_err());
        drop(saver);
        blocks[0].fill(0, 600 * PAGE_SIZE, 1).unwrap();
        // What a device has pinned, it writes to unseen.
        blocks[0].pin(PAGE_SIZE, PAGE_SIZE);
        assert!(Saver::new(blocks).is_err_and(|e| e.to_string().contains("'ram': a device of the host")));
    }
}
