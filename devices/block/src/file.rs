//! Files and block devices of the host.

use crate::lock::{self, Locked};
use crate::segment::total;
use crate::{BlockBackend, Extent, ExtentKind, Geometry, Segment, error_text, vectored};
use parking_lot::RwLock;
use rhea_device::fdset;
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How to open a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileOptions {
    pub readonly: bool,
    /// Bypass the host's page cache where alignment allows (O_DIRECT).
    pub direct: bool,
    /// Flushes do nothing (`cache=unsafe`).
    pub no_flush: bool,
    /// Discards release storage.
    pub discard: bool,
    /// Do not take the image lock.
    pub no_lock: bool,
    /// Let others write to the image (`-U`).
    pub force_share: bool,
    /// Another process has the image: it is neither locked nor written until [`crate::handover::take`].
    pub away: bool,
}

/// A file or block device. It grows when written behind its end, where it reads as zero.
pub struct FileNode {
    path: PathBuf,
    opened: RwLock<Arc<Opened>>,
    len: AtomicU64,
    block_device: bool,
    options: FileOptions,
    away: AtomicBool,
}

/// The descriptors of a file, as long as it is open for reading only, or for writing too.
struct Opened {
    file: File,
    /// The same image opened with O_DIRECT, for requests that are aligned to [`DIRECT_ALIGN`].
    direct: Option<File>,
    readonly: bool,
}

impl Opened {
    fn new(path: &Path, file: File, options: &FileOptions) -> Result<Self, String> {
        let fail = |e: &io::Error| format!("cannot open '{}': {}", path.display(), error_text(e));
        if !options.away {
            acquire(path, &file, options)?;
        }
        let direct = match options.direct {
            true => Some(again(&file, !options.readonly, libc::O_DIRECT).map_err(|e| match e.raw_os_error() {
                Some(libc::EINVAL) => {
                    format!("file system of '{}' does not support O_DIRECT: use another cache= mode", path.display())
                }
                _ => fail(&e),
            })?),
            false => None,
        };
        Ok(Self { file, direct, readonly: options.readonly })
    }
    fn for_request(&self, offset: u64, segments: &[Segment], skip: u64, len: u64) -> &File {
        match &self.direct {
            Some(direct)
                if offset.is_multiple_of(DIRECT_ALIGN)
                    && len.is_multiple_of(DIRECT_ALIGN)
                    && vectored::aligned(segments, skip, len, DIRECT_ALIGN) =>
            {
                direct
            }
            // The host keeps buffered and direct accesses of one file coherent.
            _ => &self.file,
        }
    }
}

/// Locks an image as it is opened.
fn acquire(path: &Path, file: &File, options: &FileOptions) -> Result<(), String> {
    if options.no_lock {
        return Ok(());
    }
    match lock::acquire(file, !options.readonly, options.force_share) {
        Ok(Locked::No(lock)) => {
            Err(format!("failed to get {lock} lock on '{}': another process is using this image", path.display()))
        }
        Ok(_) => Ok(()),
        Err(e) => Err(format!("cannot open '{}': {}", path.display(), error_text(&e))),
    }
}

/// Opens a file by its descriptor, whatever its name stands for now.
fn again(file: &File, write: bool, flags: libc::c_int) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(write).custom_flags(libc::O_CLOEXEC | flags);
    options.open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Alignment that O_DIRECT accepts on every common file system.
const DIRECT_ALIGN: u64 = 4096;

const AWAY: &str = "the image is in another process's hands";

impl FileNode {
    /// Opens a file.
    ///
    /// # Errors
    /// One line that names the file and what is wrong.
    pub fn open(path: &Path, options: FileOptions) -> Result<Self, String> {
        let opened = match fdset::open(path, !options.readonly) {
            Some(file) => file,
            None => OpenOptions::new().read(true).write(!options.readonly).custom_flags(libc::O_CLOEXEC).open(path),
        };
        let file = opened.map_err(|e| format!("cannot open '{}': {}", path.display(), error_text(&e)))?;
        Self::with_file(path, file, options)
    }
    /// Creates a file of `len` bytes, or empties one that nobody else uses.
    ///
    /// # Errors
    /// One line.
    pub fn create(path: &Path, len: u64) -> Result<Self, String> {
        let fail = |e: io::Error| format!("cannot create '{}': {}", path.display(), error_text(&e));
        let mut flags = OpenOptions::new();
        let file = flags.read(true).write(true).create(true).truncate(false).open(path).map_err(fail)?;
        let node = Self::with_file(path, file, FileOptions::default())?;
        if !node.block_device {
            let opened = node.opened();
            opened.file.set_len(0).and_then(|()| opened.file.set_len(len)).map_err(fail)?;
            node.len.store(len, Ordering::Release);
        } else if node.capacity() < len {
            return Err(format!("'{}' is too small: it has {} bytes", path.display(), node.capacity()));
        }
        Ok(node)
    }
    fn with_file(path: &Path, mut file: File, options: FileOptions) -> Result<Self, String> {
        let fail = |e: &io::Error| format!("cannot open '{}': {}", path.display(), error_text(e));
        let kind = file.metadata().map_err(|e| fail(&e))?.file_type();
        let block_device = kind.is_block_device();
        if !block_device && !kind.is_file() {
            return Err(format!("'{}' is neither a regular file nor a block device", path.display()));
        }
        let len = file.seek(SeekFrom::End(0)).map_err(|e| fail(&e))?;
        let opened = RwLock::new(Arc::new(Opened::new(path, file, &options)?));
        let away = AtomicBool::new(options.away);
        let options = FileOptions { away: false, ..options };
        Ok(Self { path: path.to_owned(), opened, len: AtomicU64::new(len), block_device, options, away })
    }
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
    #[must_use]
    pub fn is_block_device(&self) -> bool {
        self.block_device
    }
    /// Takes storage for the first `len` bytes; `write`: by writing zeroes.
    ///
    /// # Errors
    /// The host's.
    pub fn preallocate(&self, from: u64, len: u64, write: bool) -> io::Result<()> {
        if len == 0 || self.block_device {
            return Ok(());
        }
        if write {
            self.zero_by_writing(from, len)?;
        } else {
            fallocate(&self.opened().file, FallocateFlags::empty(), from, len)?;
        }
        self.grown(from + len);
        Ok(())
    }

    /// Opens the file again, for reading only or for writing too.
    ///
    /// # Errors
    /// One line: it must not be written, or somebody else uses it; it stays as it was.
    pub fn set_readonly(&self, readonly: bool) -> Result<(), String> {
        let mut opened = self.opened.write();
        if opened.readonly == readonly {
            return Ok(());
        }
        if self.is_away() {
            return Err(format!("'{}': {AWAY}", self.path.display()));
        }
        let file = match fdset::open(&self.path, !readonly) {
            Some(file) => file,
            None => again(&opened.file, !readonly, 0),
        };
        let file = file.map_err(|e| format!("cannot open '{}' again: {}", self.path.display(), error_text(&e)))?;
        // The locks of the two would be in each other's way.
        lock::release(&opened.file);
        match Opened::new(&self.path, file, &FileOptions { readonly, ..self.options }) {
            Ok(new) => *opened = Arc::new(new),
            Err(e) => {
                if !self.options.no_lock {
                    // They were free a moment ago.
                    let _ = lock::acquire(&opened.file, !opened.readonly, self.options.force_share);
                }
                return Err(e);
            }
        }
        Ok(())
    }
    fn is_away(&self) -> bool {
        self.away.load(Ordering::Acquire)
    }
    /// The image is written no more: what was written is on stable storage, locks are given up.
    ///
    /// # Errors
    /// One line; it stays as it was.
    pub(crate) fn give(&self) -> Result<(), String> {
        let opened = self.opened.write();
        if !self.is_away() {
            let fail = |e: io::Error| format!("'{}': {}", self.path.display(), error_text(&e));
            if !opened.readonly && !self.options.no_flush {
                opened.file.sync_data().map_err(fail)?;
            }
            lock::release(&opened.file);
            self.away.store(true, Ordering::Release);
        }
        Ok(())
    }
    /// The image is ours, with the length that it has now.
    ///
    /// # Errors
    /// One line: another process has it.
    pub(crate) fn take(&self) -> Result<(), String> {
        let opened = self.opened.write();
        if !self.is_away() {
            return Ok(());
        }
        let taken = acquire(&self.path, &opened.file, &FileOptions { readonly: opened.readonly, ..self.options });
        let end = taken.and_then(|()| {
            // What this host has in memory of a file that another has written is old. A hint.
            let _ = rustix::fs::fadvise(&opened.file, 0, None, rustix::fs::Advice::DontNeed);
            let end = rustix::fs::seek(&opened.file, rustix::fs::SeekFrom::End(0));
            end.map_err(|e| format!("'{}': {}", self.path.display(), error_text(&e.into())))
        });
        match end {
            Ok(end) => self.len.store(end, Ordering::Release),
            Err(e) => {
                lock::release(&opened.file);
                return Err(e);
            }
        }
        self.away.store(false, Ordering::Release);
        Ok(())
    }
    fn check_here(&self) -> io::Result<()> {
        if self.is_away() { Err(io::Error::new(io::ErrorKind::PermissionDenied, AWAY)) } else { Ok(()) }
    }
    fn opened(&self) -> Arc<Opened> {
        self.opened.read().clone()
    }
    fn grown(&self, end: u64) {
        self.len.fetch_max(end, Ordering::AcqRel);
    }
    fn zero_by_writing(&self, mut offset: u64, mut len: u64) -> io::Result<()> {
        self.check_here()?;
        let (piece, opened) = (vec![0; len.min(1 << 20) as usize], self.opened());
        while len > 0 {
            let n = len.min(1 << 20);
            opened.file.write_all_at(&piece[..n as usize], offset)?;
            offset += n;
            len -= n;
        }
        Ok(())
    }
}

fn unsupported(e: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    matches!(e, Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV | Errno::INVAL | Errno::NOTTY)
}

impl BlockBackend for FileNode {
    fn capacity(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }
    fn read(&self, offset: u64, segments: &mut [Segment]) -> io::Result<()> {
        self.read_part(offset, segments, 0, total(segments))
    }
    fn read_now(&self, offset: u64, segments: &mut [Segment]) -> Option<io::Result<()>> {
        self.read_part_now(offset, segments, 0, total(segments))
    }
    fn read_part_now(&self, offset: u64, segments: &mut [Segment], skip: u64, len: u64) -> Option<io::Result<()>> {
        let opened = self.opened.read();
        if opened.direct.is_some() {
            return None;
        }
        match vectored::read(&opened.file, offset, segments, skip, len, true) {
            Err(e)
                if e.kind() == io::ErrorKind::WouldBlock
                    || matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOSYS)) =>
            {
                None
            }
            other => Some(other),
        }
    }
    fn write(&self, offset: u64, segments: &[Segment]) -> io::Result<()> {
        self.write_part(offset, segments, 0, total(segments))
    }
    fn read_part(&self, offset: u64, segments: &mut [Segment], skip: u64, len: u64) -> io::Result<()> {
        vectored::read(self.opened().for_request(offset, segments, skip, len), offset, segments, skip, len, false)
    }
    fn write_part(&self, offset: u64, segments: &[Segment], skip: u64, len: u64) -> io::Result<()> {
        self.check_here()?;
        vectored::write(self.opened().for_request(offset, segments, skip, len), offset, segments, skip, len)?;
        self.grown(offset + len);
        Ok(())
    }
    fn read_bytes(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let (mut done, opened) = (0, self.opened());
        while done < data.len() {
            match opened.file.read_at(&mut data[done..], offset + done as u64) {
                Ok(0) => {
                    data[done..].fill(0);
                    break;
                }
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
    fn write_bytes(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_here()?;
        self.opened().file.write_all_at(data, offset)?;
        self.grown(offset + data.len() as u64);
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        let opened = self.opened();
        if self.options.no_flush || opened.readonly || self.is_away() { Ok(()) } else { opened.file.sync_data() }
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_here()?;
        // Nothing is behind the end.
        let len = len.min(self.capacity().saturating_sub(offset));
        if !self.options.discard || len == 0 {
            return Ok(());
        }
        match fallocate(&self.opened().file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len) {
            // A discard is a hint.
            Err(e) if !unsupported(e) => Err(e.into()),
            _ => Ok(()),
        }
    }
    fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        self.check_here()?;
        let punch = may_unmap && self.options.discard && offset + len <= self.capacity();
        let how =
            if punch { FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE } else { FallocateFlags::ZERO_RANGE };
        match fallocate(&self.opened().file, how, offset, len) {
            Ok(()) => (),
            Err(e) if unsupported(e) => self.zero_by_writing(offset, len)?,
            Err(e) => return Err(e.into()),
        }
        self.grown(offset + len);
        Ok(())
    }
    fn readonly(&self) -> bool {
        self.opened.read().readonly
    }
    fn geometry(&self) -> Geometry {
        let physical_block = if self.block_device || self.options.direct { 4096 } else { 512 };
        Geometry { physical_block, ..Geometry::default() }
    }
    fn description(&self) -> String {
        self.path.display().to_string()
    }
    fn status(&self, offset: u64, len: u64) -> io::Result<Extent> {
        let at = |len, kind| Ok(Extent { len, kind, host: Some(offset), compressed: false });
        let end = self.capacity();
        if offset >= end {
            return at(len, ExtentKind::Zero);
        }
        let len = len.min(end - offset);
        let opened = self.opened();
        // The position of the descriptor is used for nothing else, and shared by nobody who minds.
        let data = match rustix::fs::seek(opened.file.as_fd(), rustix::fs::SeekFrom::Data(offset)) {
            Ok(at) => at,
            Err(rustix::io::Errno::NXIO) => return at(len, ExtentKind::Zero),
            Err(_) => return at(len, ExtentKind::Data),
        };
        if data > offset {
            return at(len.min(data - offset), ExtentKind::Zero);
        }
        let hole = rustix::fs::seek(opened.file.as_fd(), rustix::fs::SeekFrom::Hole(offset)).unwrap_or(end);
        at(if hole > offset { len.min(hole - offset) } else { len }, ExtentKind::Data)
    }
    fn resize(&self, capacity: u64) -> io::Result<()> {
        if self.block_device {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "a block device cannot be resized"));
        }
        self.check_here()?;
        self.opened().file.set_len(capacity)?;
        self.len.store(capacity, Ordering::Release);
        Ok(())
    }
    fn allocated_size(&self) -> Option<u64> {
        self.opened().file.metadata().ok().map(|m| m.blocks() * 512)
    }
}
