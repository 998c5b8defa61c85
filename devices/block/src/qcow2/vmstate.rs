//! The state of a machine, which is kept with a snapshot behind the end of the disk.

use super::header::MAX_L1;
use super::{OFFSET, Qcow2};
use crate::BlockBackend;
use std::io::{self, Read, Write};
use std::sync::Arc;

/// Bytes that are written at once.
const PIECE: usize = 1 << 20;

impl Qcow2 {
    /// Where the state begins, behind a disk of `size` bytes: at the next entry of the L1 table.
    pub(super) fn vm_state_start(&self, size: u64) -> u64 {
        let span = self.l2_entries() << self.cluster_bits;
        size.div_ceil(span) * span
    }
    fn write_vm_state(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_snapshots()?;
        let start = self.vm_state_start(self.capacity()) + offset;
        let needed = (start + data.len() as u64).div_ceil(self.l2_entries() << self.cluster_bits);
        if needed > self.meta.lock().l1.len() as u64 {
            if needed > MAX_L1 {
                return Err(io::Error::other("the state of the machine is too large for the clusters of the image"));
            }
            let _all = self.ranges.all();
            self.settle()?;
            let mut m = self.meta.lock();
            self.start(&mut m)?;
            self.grow_l1(&mut m, needed)?;
            drop(m);
            self.settle()?;
        }
        self.write_bytes_at(start, data)
    }
    /// Forgets the state that is written but belongs to no snapshot, or to one that has it too.
    ///
    /// # Errors
    /// The host's, or damage.
    pub fn drop_vm_state(&self) -> io::Result<()> {
        self.check_snapshots()?;
        let _all = self.ranges.all();
        self.settle()?;
        let mut guard = self.meta.lock();
        let m = &mut *guard;
        let first = m.header.l1_needed(self.capacity()) as usize;
        let gone: Vec<u64> = m.l1.iter().skip(first).copied().collect();
        if gone.iter().all(|e| e & OFFSET == 0) {
            return Ok(());
        }
        self.start(m)?;
        for index in first..m.l1.len() {
            self.mark_l1(m, index, 0);
        }
        m.l2.clear();
        self.count_tree(m, &gone, false)?;
        drop(guard);
        self.settle_counts()
    }
}

/// Writes the state for the snapshot that is taken next.
pub struct VmStateWriter {
    image: Arc<Qcow2>,
    at: u64,
    waiting: Vec<u8>,
}

impl VmStateWriter {
    /// In place of what such a writer has left.
    ///
    /// # Errors
    /// The host's, or damage.
    pub fn new(image: &Arc<Qcow2>) -> io::Result<Self> {
        image.drop_vm_state()?;
        Ok(Self { image: image.clone(), at: 0, waiting: Vec::with_capacity(PIECE) })
    }
    /// Bytes in the image.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.at
    }
}

impl Write for VmStateWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = data.len().min(PIECE - self.waiting.len());
        self.waiting.extend_from_slice(&data[..n]);
        if self.waiting.len() == PIECE {
            self.flush()?;
        }
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        if !self.waiting.is_empty() {
            self.image.write_vm_state(self.at, &self.waiting)?;
            self.at += self.waiting.len() as u64;
            self.waiting.clear();
        }
        Ok(())
    }
}

/// Reads the state that is with a snapshot.
pub struct VmStateReader {
    image: Arc<Qcow2>,
    snapshot: String,
    at: u64,
    end: u64,
    piece: Vec<u8>,
    taken: usize,
}

impl VmStateReader {
    /// # Errors
    /// There is no such snapshot.
    pub fn new(image: &Arc<Qcow2>, snapshot: &str) -> io::Result<Self> {
        let end = image.snapshot(snapshot)?.vm_state_size;
        Ok(Self { image: image.clone(), snapshot: snapshot.to_owned(), at: 0, end, piece: Vec::new(), taken: 0 })
    }
}

impl Read for VmStateReader {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.piece.len() {
            let n = (self.end - self.at).min(PIECE as u64);
            self.piece.resize(n as usize, 0);
            self.image.read_vm_state(&self.snapshot, self.at, &mut self.piece)?;
            (self.at, self.taken) = (self.at + n, 0);
        }
        let n = data.len().min(self.piece.len() - self.taken);
        data[..n].copy_from_slice(&self.piece[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }
}
