//! Raw images: files and block devices.

use crate::{BlockBackend, Geometry, SECTOR, Segment, error_text, lock, vectored};
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How to open a raw image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawOptions {
    pub readonly: bool,
    /// Bypass the host's page cache where alignment allows (O_DIRECT).
    pub direct: bool,
    /// Flushes do nothing (`cache=unsafe`).
    pub no_flush: bool,
    /// Discards release storage.
    pub discard: bool,
    /// Take the image lock.
    pub lock: bool,
    /// The user said `format=raw`: take the image as it is, whatever it looks like.
    pub format_given: bool,
}

/// A raw image.
pub struct RawFile {
    path: PathBuf,
    file: File,
    /// The same image opened with O_DIRECT, for requests that are aligned to `direct_align`.
    direct: Option<File>,
    capacity: u64,
    block_device: bool,
    options: RawOptions,
}

/// Alignment that O_DIRECT accepts on every common file system.
const DIRECT_ALIGN: u64 = 4096;

/// First bytes of formats that are not raw.
const FORMATS: &[(&[u8], &str)] = &[
    (b"QFI\xfb", "qcow2"),
    (b"KDMV", "vmdk"),
    (b"# Disk DescriptorFile", "vmdk"),
    (b"<<< ", "vdi"),
    (b"vhdxfile", "vhdx"),
    (b"conectix", "vpc"),
    (b"QED\0", "qed"),
    (b"LUKS\xba\xbe", "luks"),
];

impl RawFile {
    /// Opens an image.
    ///
    /// # Errors
    /// One line that names the file and what is wrong.
    pub fn open(path: &Path, options: RawOptions) -> Result<Self, String> {
        let fail = |e: &io::Error| format!("cannot open '{}': {}", path.display(), error_text(e));
        let open = |flags: i32| OpenOptions::new().read(true).write(!options.readonly).custom_flags(flags).open(path);
        let mut file = open(libc::O_CLOEXEC).map_err(|e| fail(&e))?;
        let kind = file.metadata().map_err(|e| fail(&e))?.file_type();
        let block_device = kind.is_block_device();
        if !block_device && !kind.is_file() {
            return Err(format!("'{}' is neither a regular file nor a block device", path.display()));
        }
        let len = file.seek(SeekFrom::End(0)).map_err(|e| fail(&e))?;
        if len == 0 {
            return Err(format!("image '{}' is empty (0 bytes)", path.display()));
        }
        if !options.format_given {
            let mut head = [0; 32];
            let n = file.rewind().and_then(|()| file.read(&mut head)).map_err(|e| fail(&e))?;
            if let Some((_, name)) = FORMATS.iter().find(|(magic, _)| head[..n].starts_with(magic)) {
                return Err(format!(
                    "image '{}' has format '{name}', which is not supported: convert it to raw, or say format=raw to use it as it is",
                    path.display()
                ));
            }
        }
        if options.lock && !lock::acquire(&file, !options.readonly).map_err(|e| fail(&e))? {
            let kind = if options.readonly { "shared \"read\"" } else { "\"write\"" };
            return Err(format!(
                "failed to get {kind} lock on '{}': another process is using this image",
                path.display()
            ));
        }
        let direct = match options.direct {
            true => Some(open(libc::O_CLOEXEC | libc::O_DIRECT).map_err(|e| match e.raw_os_error() {
                Some(libc::EINVAL) => {
                    format!("file system of '{}' does not support O_DIRECT: use another cache= mode", path.display())
                }
                _ => fail(&e),
            })?),
            false => None,
        };
        // The part of the last sector that the file lacks reads as zero.
        let capacity =
            len.checked_next_multiple_of(SECTOR).ok_or_else(|| format!("image '{}' is too large", path.display()))?;
        Ok(Self { path: path.to_owned(), file, direct, capacity, block_device, options })
    }

    fn for_request(&self, offset: u64, segments: &[Segment]) -> &File {
        match &self.direct {
            Some(direct) if offset.is_multiple_of(DIRECT_ALIGN) && vectored::aligned(segments, DIRECT_ALIGN) => direct,
            // The host keeps buffered and direct accesses of one file coherent.
            _ => &self.file,
        }
    }
    fn zero_by_writing(&self, mut offset: u64, mut len: u64) -> io::Result<()> {
        let mut piece = [Segment::Host(vec![0; len.min(1 << 20) as usize])];
        while len > 0 {
            let n = len.min(1 << 20);
            if let Segment::Host(v) = &mut piece[0] {
                v.truncate(n as usize);
            }
            vectored::write(&self.file, offset, &piece)?;
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

impl BlockBackend for RawFile {
    fn capacity(&self) -> u64 {
        self.capacity
    }
    fn read(&self, offset: u64, segments: &mut [Segment]) -> io::Result<()> {
        vectored::read(self.for_request(offset, segments), offset, segments, false)
    }
    fn read_now(&self, offset: u64, segments: &mut [Segment]) -> Option<io::Result<()>> {
        if self.direct.is_some() {
            return None;
        }
        match vectored::read(&self.file, offset, segments, true) {
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
        vectored::write(self.for_request(offset, segments), offset, segments)
    }
    fn flush(&self) -> io::Result<()> {
        if self.options.no_flush || self.options.readonly { Ok(()) } else { self.file.sync_data() }
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        if !self.options.discard {
            return Ok(());
        }
        match fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len) {
            // A discard is a hint.
            Err(e) if !unsupported(e) => Err(e.into()),
            _ => Ok(()),
        }
    }
    fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let punch = may_unmap && self.options.discard;
        let how =
            if punch { FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE } else { FallocateFlags::ZERO_RANGE };
        match fallocate(&self.file, how, offset, len) {
            Ok(()) => Ok(()),
            Err(e) if unsupported(e) => self.zero_by_writing(offset, len),
            Err(e) => Err(e.into()),
        }
    }
    fn readonly(&self) -> bool {
        self.options.readonly
    }
    fn geometry(&self) -> Geometry {
        let physical_block = if self.block_device || self.direct.is_some() { 4096 } else { 512 };
        Geometry { physical_block, ..Geometry::default() }
    }
    fn description(&self) -> String {
        format!("{} (raw{})", self.path.display(), if self.options.readonly { ", read-only" } else { "" })
    }
}
