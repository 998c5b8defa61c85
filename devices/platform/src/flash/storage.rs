//! The array of a bank: its bytes in guest memory, and on the drive that keeps them.

use super::chip::Failure;
use super::{FlashError, FlashOptions};
use parking_lot::Mutex;
use rhea_block::{Drive, Operation, Segment};
use rhea_memory::RamBlock;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes read from a drive at once.
const CHUNK: u64 = 1 << 20;

pub(super) struct Storage {
    pub memory: Arc<RamBlock>,
    drive: Option<Arc<Drive>>,
    /// Bytes from the start that may be changed; the rest has no place on the drive.
    writable: u64,
    /// Something was written since the last flush.
    dirty: AtomicBool,
    flushing: Arc<AtomicBool>,
    block_len: u64,
    /// Where blocks begin that may be other than zero, if there is no drive: looking at all would take long while a machine moves.
    filled: Mutex<BTreeSet<u64>>,
}

/// Copies into the block, but leaves pages alone that are so already, as zero ones of fresh memory are.
fn place(memory: &RamBlock, at: u64, data: &[u8]) {
    let mut old = vec![0; data.len()];
    // The caller checked the size.
    let _ = memory.read(at, &mut old);
    let page = rhea_memory::PAGE_SIZE as usize;
    for (n, (new, old)) in data.chunks(page).zip(old.chunks(page)).enumerate() {
        if new != old {
            let _ = memory.write(at + (n * page) as u64, new);
        }
    }
}

impl Storage {
    pub fn new(name: &str, len: u64, block_len: u64, options: FlashOptions) -> Result<Self, FlashError> {
        let memory = RamBlock::anonymous(name, len).map_err(FlashError::Memory)?;
        let (mut writable, mut filled) = (len, BTreeSet::new());
        if let Some(image) = &options.image {
            if image.len() as u64 > len {
                return Err(FlashError::Size { is: image.len() as u64, bank: len });
            }
            place(&memory, 0, image);
            filled.extend((0..image.len() as u64).step_by(block_len.max(1) as usize));
        }
        if let Some(drive) = &options.drive {
            if drive.capacity() > len {
                return Err(FlashError::Size { is: drive.capacity(), bank: len });
            }
            writable = if drive.readonly() { 0 } else { drive.capacity() / block_len * block_len };
        }
        let storage = Self {
            memory,
            drive: options.drive,
            writable,
            dirty: AtomicBool::new(false),
            flushing: Arc::default(),
            block_len,
            filled: Mutex::new(filled),
        };
        storage.read_drive().map_err(FlashError::Read)?;
        Ok(storage)
    }

    fn read_drive(&self) -> io::Result<()> {
        let Some(drive) = &self.drive else { return Ok(()) };
        let mut buffer = Vec::new();
        let mut at = 0;
        while at < drive.capacity() {
            buffer.resize((drive.capacity() - at).min(CHUNK) as usize, 0);
            let mut read = Operation::Read { offset: at, segments: vec![Segment::Host(std::mem::take(&mut buffer))] };
            drive.run(&mut read)?;
            if let Operation::Read { segments, .. } = read
                && let Some(Segment::Host(data)) = segments.into_iter().next()
            {
                place(&self.memory, at, &data);
                buffer = data;
            }
            at += CHUNK;
        }
        Ok(())
    }

    /// Changes `len` bytes at `at` by `change`: on the drive first, so that the guest is never told of what was not stored.
    pub fn change(&self, at: u64, len: u64, change: impl FnOnce(&mut [u8])) -> Result<(), Failure> {
        let Some(end) = at.checked_add(len).filter(|end| *end <= self.writable) else { return Err(Failure::Protected) };
        let mut data = vec![0; (end - at) as usize];
        self.memory.read(at, &mut data).map_err(|_| Failure::Protected)?;
        change(&mut data);
        if let Some(drive) = &self.drive {
            let mut write = Operation::Write {
                offset: at,
                segments: vec![Segment::Host(data)],
                flush: !drive.cache().write_cache(),
            };
            drive.run(&mut write).map_err(|_| Failure::Storage)?;
            self.dirty.store(true, Ordering::SeqCst);
            let Operation::Write { segments, .. } = write else { return Err(Failure::Storage) };
            let Some(Segment::Host(written)) = segments.into_iter().next() else { return Err(Failure::Storage) };
            data = written;
        } else {
            let blocks = at / self.block_len..end.div_ceil(self.block_len);
            self.filled.lock().extend(blocks.map(|n| n * self.block_len));
        }
        self.memory.write(at, &data).map_err(|_| Failure::Protected)
    }

    /// Begins to flush what was written, if nothing is being flushed; does not wait.
    pub fn begin_flush(&self) {
        let Some(drive) = &self.drive else { return };
        if !self.dirty.load(Ordering::SeqCst) || self.flushing.swap(true, Ordering::SeqCst) {
            return;
        }
        self.dirty.store(false, Ordering::SeqCst);
        let flushing = self.flushing.clone();
        // A host that cannot flush says so when the bank is next written, or not at all.
        drive.submit(Operation::Flush, Box::new(move |_, _| flushing.store(false, Ordering::SeqCst)));
    }
    /// Flushes and waits.
    pub fn flush(&self) -> io::Result<()> {
        let Some(drive) = &self.drive else { return Ok(()) };
        drive.drain();
        if self.dirty.swap(false, Ordering::SeqCst) { drive.run(&mut Operation::Flush) } else { Ok(()) }
    }

    /// The content that is not on a drive, for saved state: blocks that are not zero.
    pub fn volatile(&self) -> Vec<(u64, Vec<u8>)> {
        if self.drive.is_some() {
            return Vec::new();
        }
        let mut blocks = Vec::new();
        for at in self.filled.lock().iter().copied() {
            let mut data = vec![0; self.block_len.min(self.memory.len() - at) as usize];
            if self.memory.read(at, &mut data).is_ok() && data.iter().any(|b| *b != 0) {
                blocks.push((at, data));
            }
        }
        blocks
    }
    /// Takes over saved content: of the drive, or `blocks`. False if it does not fit.
    pub fn restore(&self, blocks: &[(u64, Vec<u8>)]) -> bool {
        if let Some(drive) = &self.drive {
            // What is only read is as it was.
            return drive.readonly() || self.read_drive().is_ok();
        }
        let fits = |at: u64, len: u64| {
            at.is_multiple_of(self.block_len)
                && len <= self.block_len
                && at.checked_add(len).is_some_and(|end| end <= self.memory.len())
        };
        if !blocks.iter().all(|(at, data)| fits(*at, data.len() as u64)) {
            return false;
        }
        let mut filled = self.filled.lock();
        let zeroed =
            filled.iter().all(|at| self.memory.fill(*at, self.block_len.min(self.memory.len() - at), 0).is_ok());
        filled.extend(blocks.iter().map(|(at, _)| *at));
        zeroed && blocks.iter().all(|(at, data)| self.memory.write(*at, data).is_ok())
    }
}
