//! Copy on write: changes go to a temporary file that is gone when the emulator exits (`-snapshot`).

use crate::segment::{gather, scatter, total};
use crate::{BlockBackend, Geometry, Segment};
use parking_lot::RwLock;
use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Bytes that are copied up together.
const CLUSTER: u64 = 64 << 10;

/// A back end whose writes never reach the image below.
pub struct Overlay {
    base: Arc<dyn BlockBackend>,
    file: File,
    /// One bit per cluster: it is in `file`.
    present: RwLock<Vec<u64>>,
}

fn has(bits: &[u64], cluster: u64) -> bool {
    bits.get((cluster / 64) as usize).is_some_and(|w| w & (1 << (cluster % 64)) != 0)
}

fn temporary(directory: &Path) -> io::Result<File> {
    let unnamed =
        rustix::fs::open(directory, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
    if let Ok(fd) = unnamed {
        return Ok(File::from(fd));
    }
    for n in 0..1000 {
        let path = directory.join(format!("rhea-snapshot-{}-{n}", std::process::id()));
        match File::options().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => (),
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

impl Overlay {
    /// An overlay over `base`, with its data in `$TMPDIR` or `/var/tmp`.
    ///
    /// # Errors
    /// The temporary file cannot be made.
    pub fn new(base: Arc<dyn BlockBackend>) -> io::Result<Self> {
        let directory = std::env::var_os("TMPDIR").map_or_else(|| "/var/tmp".into(), std::path::PathBuf::from);
        let file = temporary(&directory).or_else(|_| temporary(Path::new("/tmp")))?;
        let clusters = base.capacity().div_ceil(CLUSTER);
        let present = RwLock::new(vec![0; usize::try_from(clusters.div_ceil(64)).map_err(|_| crate::out_of_range())?]);
        Ok(Self { base, file, present })
    }

    /// The parts of a range by cluster: cluster, offset, length.
    fn parts(offset: u64, len: u64) -> impl Iterator<Item = (u64, u64, u64)> {
        let end = offset + len;
        let mut at = offset;
        std::iter::from_fn(move || {
            (at < end).then(|| {
                let cluster = at / CLUSTER;
                let stop = end.min((cluster + 1) * CLUSTER);
                let part = (cluster, at, stop - at);
                at = stop;
                part
            })
        })
    }

    /// Changes a range: `write` gets the offset and length of each part, in clusters that are then in the file.
    fn change(&self, offset: u64, len: u64, mut write: impl FnMut(u64, u64) -> io::Result<()>) -> io::Result<()> {
        for (cluster, at, n) in Self::parts(offset, len) {
            {
                let present = self.present.read();
                if has(&present, cluster) {
                    write(at, n)?;
                    continue;
                }
            }
            let mut present = self.present.write();
            let start = cluster * CLUSTER;
            let size = CLUSTER.min(self.base.capacity() - start);
            if !has(&present, cluster) && n < size {
                let mut below = [Segment::Host(vec![0; size as usize])];
                self.base.read(start, &mut below)?;
                self.file.write_all_at(&gather(&below)?, start)?;
            }
            write(at, n)?;
            if let Some(word) = present.get_mut((cluster / 64) as usize) {
                *word |= 1 << (cluster % 64);
            }
        }
        Ok(())
    }
}

impl BlockBackend for Overlay {
    fn capacity(&self) -> u64 {
        self.base.capacity()
    }
    fn read(&self, offset: u64, segments: &mut [Segment]) -> io::Result<()> {
        let len = total(segments);
        let mut data = vec![0; len as usize];
        {
            let present = self.present.read();
            for (cluster, at, n) in Self::parts(offset, len) {
                let piece = &mut data[(at - offset) as usize..][..n as usize];
                if has(&present, cluster) {
                    let mut done = 0;
                    while done < piece.len() {
                        match self.file.read_at(&mut piece[done..], at + done as u64)? {
                            // A hole at the end: zero.
                            0 => break,
                            n => done += n,
                        }
                    }
                } else {
                    let mut below = [Segment::Host(vec![0; n as usize])];
                    self.base.read(at, &mut below)?;
                    below[0].load(0, piece)?;
                }
            }
        }
        scatter(&data, segments)
    }
    fn write(&self, offset: u64, segments: &[Segment]) -> io::Result<()> {
        let data = gather(segments)?;
        self.change(offset, data.len() as u64, |at, n| {
            self.file.write_all_at(&data[(at - offset) as usize..][..n as usize], at)
        })
    }
    fn flush(&self) -> io::Result<()> {
        // Nothing survives the emulator anyway.
        Ok(())
    }
    fn discard(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
    fn write_zeroes(&self, offset: u64, len: u64, _may_unmap: bool) -> io::Result<()> {
        self.change(offset, len, |at, n| {
            // Past the end of the file is a hole already, but the file must not be shorter than other clusters' data.
            match fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, n) {
                Ok(()) => Ok(()),
                Err(_) => self.file.write_all_at(&vec![0; n as usize], at),
            }
        })
    }
    fn readonly(&self) -> bool {
        false
    }
    fn geometry(&self) -> Geometry {
        self.base.geometry()
    }
    fn description(&self) -> String {
        format!("{} (snapshot)", self.base.description())
    }
}
