//! Copying an image into another format.

use super::{Progress, status, stopped};
use crate::qcow2::Qcow2;
use crate::segment::is_zero;
use crate::{BlockBackend, ExtentKind};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How to copy.
#[derive(Clone, Copy, Debug)]
pub struct ConvertOptions {
    /// Compress clusters.
    pub compress: bool,
    /// Zeroes of at least so many bytes become holes; 0: none.
    pub sparse: u64,
    /// The target reads as zero.
    pub target_is_zero: bool,
    /// Offset in the target up to which the target has the same below it: only what is not there is copied.
    pub skip_absent: bool,
    /// Threads.
    pub jobs: usize,
}

impl Default for ConvertOptions {
    fn default() -> Self {
        Self { compress: false, sparse: 4096, target_is_zero: true, skip_absent: false, jobs: 2 }
    }
}

const STEP: u64 = 2 << 20;

struct Copy<'a> {
    source: &'a dyn BlockBackend,
    target: &'a dyn BlockBackend,
    options: ConvertOptions,
    packer: Option<&'a Qcow2>,
    next: Mutex<u64>,
    done: AtomicU64,
    stop: AtomicBool,
    len: u64,
    /// Packed clusters that wait for those before them: order makes images the same each time.
    waiting: Mutex<(u64, BTreeMap<u64, Vec<Packed>>)>,
}

struct Packed {
    at: u64,
    data: Vec<u8>,
    packed: bool,
}

/// Copies all of `source` to `target`, which is at least as large.
///
/// # Errors
/// The host's, or damage, or stopped.
pub fn convert(
    source: &dyn BlockBackend,
    target: &dyn BlockBackend,
    packer: Option<&Qcow2>,
    options: ConvertOptions,
    progress: Progress<'_>,
) -> io::Result<()> {
    let copy = Copy {
        source,
        target,
        options,
        packer: packer.filter(|_| options.compress),
        next: Mutex::new(0),
        done: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        len: source.capacity().min(target.capacity()),
        waiting: Mutex::default(),
    };
    if options.compress && packer.is_none() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "only qcow2 images can be compressed"));
    }
    let mut result = Ok(());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.jobs.clamp(1, 16)).map(|_| scope.spawn(|| copy.work())).collect();
        while !threads.iter().all(|t| t.is_finished()) {
            std::thread::sleep(std::time::Duration::from_millis(if copy.len > 64 << 20 { 50 } else { 1 }));
            if !progress(copy.done.load(Ordering::Relaxed), copy.len) {
                copy.stop.store(true, Ordering::Relaxed);
                result = Err(stopped());
            }
        }
        for thread in threads {
            match thread.join() {
                Ok(Err(e)) if result.is_ok() => result = Err(e),
                Ok(_) => {}
                Err(_) => result = Err(io::Error::other("a thread ended")),
            }
        }
    });
    result?;
    progress(copy.len, copy.len);
    target.flush()
}

impl Copy<'_> {
    fn work(&self) -> io::Result<()> {
        let result = self.steps();
        if result.is_err() {
            self.stop.store(true, Ordering::Relaxed);
        }
        result
    }
    fn steps(&self) -> io::Result<()> {
        let mut buffer = Vec::new();
        loop {
            let (at, n) = {
                let mut next = self.next.lock();
                let at = *next;
                let n = STEP.min(self.len - at);
                *next += n;
                (at, n)
            };
            if n == 0 || self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            match self.packer {
                Some(image) => self.pack(image, at, n)?,
                None => self.copy(at, n, &mut buffer)?,
            }
            self.done.fetch_add(n, Ordering::Relaxed);
        }
    }
    fn kind(&self, at: u64, n: u64) -> io::Result<(ExtentKind, u64)> {
        if self.options.skip_absent {
            let e = self.source.status(at, n)?;
            if e.kind == ExtentKind::Absent {
                return Ok((e.kind, e.len));
            }
        }
        let e = status(self.source, at, n)?;
        Ok((e.kind, e.len))
    }
    fn copy(&self, start: u64, n: u64, buffer: &mut Vec<u8>) -> io::Result<()> {
        let mut at = start;
        while at < start + n {
            let (kind, len) = self.kind(at, start + n - at)?;
            match kind {
                ExtentKind::Absent => {}
                ExtentKind::Zero => self.zero(at, len)?,
                ExtentKind::Data => {
                    buffer.clear();
                    buffer.resize(len as usize, 0);
                    self.source.read_bytes(at, buffer)?;
                    self.write_sparse(at, buffer)?;
                }
            }
            at += len;
        }
        Ok(())
    }
    fn zero(&self, at: u64, len: u64) -> io::Result<()> {
        if self.options.target_is_zero { Ok(()) } else { self.target.write_zeroes(at, len, self.options.sparse > 0) }
    }
    /// Writes what is not zero, in runs.
    fn write_sparse(&self, at: u64, data: &[u8]) -> io::Result<()> {
        let piece = match self.options.sparse {
            0 => return self.target.write_bytes(at, data),
            n => n.next_power_of_two().clamp(512, STEP) as usize,
        };
        let mut from = 0;
        while from < data.len() {
            // Pieces lie as those of the image do.
            let first = (from + piece - (at as usize + from) % piece).min(data.len());
            let zero = is_zero(&data[from..first]);
            let mut to = first;
            while to < data.len() {
                let next = (to + piece).min(data.len());
                if is_zero(&data[to..next]) != zero {
                    break;
                }
                to = next;
            }
            if zero {
                self.zero(at + from as u64, (to - from) as u64)?;
            } else {
                self.target.write_bytes(at + from as u64, &data[from..to])?;
            }
            from = to;
        }
        Ok(())
    }
    fn pack(&self, image: &Qcow2, start: u64, n: u64) -> io::Result<()> {
        let (cluster, compressor) = (image.cluster(), image.compressor());
        let mut list = Vec::new();
        let mut at = start;
        while at < start + n {
            let len = cluster.min(start + n - at);
            let (mut kind, mut covered) = self.kind(at, len)?;
            while covered < len {
                let (k, l) = self.kind(at + covered, len - covered)?;
                kind = if k == kind { k } else { ExtentKind::Data };
                covered += l;
            }
            if kind == ExtentKind::Data {
                let mut data = vec![0; len as usize];
                self.source.read_bytes(at, &mut data)?;
                if !is_zero(&data) || !self.options.target_is_zero {
                    data.resize(cluster as usize, 0);
                    match compressor.pack(&data) {
                        Some(data) => list.push(Packed { at, data, packed: true }),
                        None => {
                            data.truncate(len as usize);
                            list.push(Packed { at, data, packed: false });
                        }
                    }
                }
            } else if kind == ExtentKind::Zero {
                self.zero(at, len)?;
            }
            at += len;
        }
        let mut waiting = self.waiting.lock();
        waiting.1.insert(start, list);
        while let Some(list) = {
            let next = waiting.0;
            waiting.1.remove(&next)
        } {
            for p in list {
                if p.packed { image.write_packed(p.at, &p.data)? } else { image.write_bytes(p.at, &p.data)? }
            }
            waiting.0 += STEP;
        }
        Ok(())
    }
}
