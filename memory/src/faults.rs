//! Pages of RAM that come when somebody wants them, or stay as they are until somebody has looked at them: whoever accesses one that is
//! absent, or writes to one that is protected, in this process or in the host's kernel on its behalf, waits until it was put there or set
//! free. `userfaultfd(2)` of the host's kernel.
#![expect(unsafe_code, reason = "the interface is made of ioctls that are told addresses of guest memory")]

use crate::{PAGE_SIZE, RamBlock};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::ioctl::{Opcode, Setter, Updater, ioctl, opcode};
use rustix::mm::{UserfaultfdFlags, userfaultfd};
use std::ffi::c_void;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Range {
    start: u64,
    len: u64,
}

#[repr(C)]
struct Register {
    range: Range,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Copy {
    to: u64,
    from: u64,
    len: u64,
    mode: u64,
    copied: i64,
}

#[repr(C)]
struct Zero {
    range: Range,
    mode: u64,
    zeroed: i64,
}

#[repr(C)]
struct Protect {
    range: Range,
    mode: u64,
}

/// `struct uffd_msg` of a page fault.
#[repr(C)]
#[derive(Default)]
struct Message {
    event: u8,
    reserved: [u8; 7],
    flags: u64,
    address: u64,
    thread: u64,
}

const GROUP: u8 = 0xaa;
const API_VERSION: u64 = 0xaa;
const NEW: Opcode = opcode::none(GROUP, 0);
const REGISTER: Opcode = opcode::read_write::<Register>(GROUP, 0);
const UNREGISTER: Opcode = opcode::read::<Range>(GROUP, 1);
const WAKE: Opcode = opcode::read::<Range>(GROUP, 2);
const COPY: Opcode = opcode::read_write::<Copy>(GROUP, 3);
const ZERO: Opcode = opcode::read_write::<Zero>(GROUP, 4);
const PROTECT: Opcode = opcode::read_write::<Protect>(GROUP, 6);
const API: Opcode = opcode::read_write::<Api>(GROUP, 0x3f);
const MODE_MISSING: u64 = 1;
const MODE_PROTECTED: u64 = 2;
/// `UFFD_FEATURE_PAGEFAULT_FLAG_WP`
const FEATURE_PROTECT: u64 = 1;
/// `UFFDIO_WRITEPROTECT_MODE_WP`
const PROTECTED: u64 = 1;
const EVENT_PAGEFAULT: u8 = 0x12;

/// A descriptor that is told of faults of the kernel too, which devices' reads and writes of guest memory are.
fn open() -> io::Result<OwnedFd> {
    if let Ok(device) = OpenOptions::new().read(true).write(true).open("/dev/userfaultfd") {
        // SAFETY: USERFAULTFD_IOC_NEW takes flags for its argument and gives a descriptor that is nobody's yet.
        let fd = unsafe {
            libc::ioctl(
                std::os::fd::AsRawFd::as_raw_fd(&device),
                libc::Ioctl::from(NEW),
                libc::O_CLOEXEC | libc::O_NONBLOCK,
            )
        };
        if fd >= 0 {
            // SAFETY: as above.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    // SAFETY: no memory is registered with it yet.
    Ok(unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK) }?)
}

/// A page that somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which block, in the order of [`Faults::add`].
    pub block: usize,
    /// The number of the page in it.
    pub page: u64,
}

/// Blocks whose absent pages are waited for, or that are protected. When it is dropped, what is absent reads as zero, nothing is protected
/// and nobody waits any longer.
pub struct Faults {
    fd: OwnedFd,
    blocks: Vec<Arc<RamBlock>>,
    mode: u64,
}

impl Faults {
    fn open(mode: u64, features: u64) -> io::Result<Self> {
        let fd = open()?;
        let mut api = Api { api: API_VERSION, features, ioctls: 0 };
        // SAFETY: UFFDIO_API reads and writes the structure that it is given.
        unsafe { ioctl(&fd, Updater::<API, Api>::new(&mut api)) }?;
        Ok(Self { fd, blocks: Vec::new(), mode })
    }
    /// For pages that are absent.
    ///
    /// # Errors
    /// The host's kernel has no such thing, or not for this process.
    pub fn new() -> io::Result<Self> {
        Self::open(MODE_MISSING, 0)
    }
    /// For pages that must not be written to.
    ///
    /// # Errors
    /// As of [`Self::new`].
    pub fn protecting() -> io::Result<Self> {
        Self::open(MODE_PROTECTED, FEATURE_PROTECT)
    }
    /// Accesses to absent pages of `block`, which must be plain ([`RamBlock::is_plain`]), wait from now on; or it can be protected.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add(&mut self, block: Arc<RamBlock>) -> io::Result<()> {
        match self.mode {
            // What is absent cannot be protected.
            MODE_PROTECTED => block.look_at_all()?,
            _ => block.use_huge_pages(false),
        }
        let range = Range { start: block.host_ptr().addr() as u64, len: block.len() };
        let mut register = Register { range, mode: self.mode, ioctls: 0 };
        // SAFETY: the range is the block's, which is kept beside the descriptor; who accesses it waits, and sees what [`Self::place`]
        // puts there.
        unsafe { ioctl(&self.fd, Updater::<REGISTER, Register>::new(&mut register)) }?;
        self.blocks.push(block);
        Ok(())
    }
    /// Protects `count` pages from `first` on of a block, or sets them free again with those who wait to write to them.
    ///
    /// # Errors
    /// There are no such pages, or the kernel's.
    pub fn protect(&self, block: usize, first: u64, count: u64, on: bool) -> io::Result<()> {
        let pages = self.blocks.get(block).map_or(0, |b| b.len() / PAGE_SIZE);
        if first.checked_add(count).is_none_or(|end| end > pages) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let start = self.blocks[block].host_ptr().addr() as u64 + first * PAGE_SIZE;
        let range = Range { start, len: count * PAGE_SIZE };
        loop {
            let mut protect = Protect { range, mode: if on { PROTECTED } else { 0 } };
            // SAFETY: the pages are inside of the block (checked); what they hold stays.
            match unsafe { ioctl(&self.fd, Updater::<PROTECT, Protect>::new(&mut protect)) } {
                // The address space changes at the moment.
                Err(rustix::io::Errno::AGAIN) => std::thread::yield_now(),
                result => return Ok(result?),
            }
        }
    }
    /// The next page that somebody waits for; `None`: nobody did for that time.
    ///
    /// # Errors
    /// The kernel's.
    pub fn next(&self, time: Duration) -> io::Result<Option<Wanted>> {
        loop {
            let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
            let time = rustix::event::Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
            match poll(&mut fds, Some(&time)) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            }
            let mut bytes = [0; size_of::<Message>()];
            match rustix::io::read(&self.fd, &mut bytes) {
                Ok(n) if n == bytes.len() => {}
                Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
                // Who waited has gone away.
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            }
            let address =
                u64::from_ne_bytes(std::array::from_fn(|n| bytes[std::mem::offset_of!(Message, address) + n]));
            if bytes[0] != EVENT_PAGEFAULT {
                continue;
            }
            let place = self.blocks.iter().enumerate().find_map(|(block, b)| {
                let at = address.checked_sub(b.host_ptr().addr() as u64).filter(|at| *at < b.len())?;
                Some(Wanted { block, page: at / PAGE_SIZE })
            });
            if let Some(place) = place {
                return Ok(Some(place));
            }
        }
    }
    /// Puts a page where it is absent, `None` for zeros, and lets those go on who wait for it. False: there was one.
    ///
    /// # Errors
    /// There is no such page, or the kernel's.
    pub fn place(&self, at: Wanted, content: Option<&[u8; PAGE_SIZE as usize]>) -> io::Result<bool> {
        let block = self.blocks.get(at.block).filter(|b| at.page < b.len() / PAGE_SIZE);
        let Some(block) = block else { return Err(io::ErrorKind::InvalidInput.into()) };
        let range = Range { start: block.host_ptr().addr() as u64 + at.page * PAGE_SIZE, len: PAGE_SIZE };
        loop {
            let result = match content {
                Some(page) => {
                    let from = page.as_ptr().cast::<c_void>().addr() as u64;
                    let mut copy = Copy { to: range.start, from, len: PAGE_SIZE, mode: 0, copied: 0 };
                    // SAFETY: the page is inside of the block (checked) and absent, or the call changes nothing; `page` is readable.
                    unsafe { ioctl(&self.fd, Updater::<COPY, Copy>::new(&mut copy)) }
                }
                None => {
                    let mut zero = Zero { range, mode: 0, zeroed: 0 };
                    // SAFETY: as above.
                    unsafe { ioctl(&self.fd, Updater::<ZERO, Zero>::new(&mut zero)) }
                }
            };
            match result {
                Ok(()) => return Ok(true),
                // The address space changes at the moment.
                Err(rustix::io::Errno::AGAIN) => std::thread::yield_now(),
                Err(rustix::io::Errno::EXIST) => {
                    // SAFETY: UFFDIO_WAKE reads the structure that it is given.
                    unsafe { ioctl(&self.fd, Setter::<WAKE, Range>::new(range)) }?;
                    return Ok(false);
                }
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        for block in &self.blocks {
            let range = Range { start: block.host_ptr().addr() as u64, len: block.len() };
            // SAFETY: UFFDIO_UNREGISTER reads the structure that it is given. It fails for what is not registered, which is as well.
            let _ = unsafe { ioctl(&self.fd, Setter::<UNREGISTER, Range>::new(range)) };
            if self.mode == MODE_MISSING {
                block.use_huge_pages(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_a_page_waits_for_it() {
        let mut faults = match Faults::new() {
            Ok(faults) => faults,
            Err(e) => return println!("skipped: userfaultfd: {e}"),
        };
        let other = RamBlock::anonymous("other", 4 * PAGE_SIZE).unwrap();
        let block = RamBlock::anonymous("ram", 4 << 20).unwrap();
        block.fill(0, 4 << 20, 7).unwrap();
        faults.add(other).unwrap();
        faults.add(block.clone()).unwrap();
        block.discard(5 * PAGE_SIZE, 2 * PAGE_SIZE).unwrap();
        let wait = Duration::from_secs(60);
        std::thread::scope(|s| {
            let reader = s.spawn(|| [block.load(6 * PAGE_SIZE + 8, 8).unwrap(), block.load(5 * PAGE_SIZE, 8).unwrap()]);
            assert_eq!(faults.next(wait).unwrap(), Some(Wanted { block: 1, page: 6 }));
            assert!(faults.place(Wanted { block: 1, page: 6 }, Some(&[3; 4096])).unwrap());
            assert_eq!(faults.next(wait).unwrap(), Some(Wanted { block: 1, page: 5 }));
            assert!(faults.place(Wanted { block: 1, page: 5 }, None).unwrap());
            assert_eq!(reader.join().unwrap(), [0x0303_0303_0303_0303, 0]);
        });
        assert_eq!(faults.next(Duration::ZERO).unwrap(), None);
        // What is there stays.
        assert!(!faults.place(Wanted { block: 1, page: 6 }, Some(&[4; 4096])).unwrap());
        assert_eq!(block.load(6 * PAGE_SIZE, 1), Ok(3));
        assert!(faults.place(Wanted { block: 1, page: 1 << 40 }, None).is_err());
        block.discard(5 * PAGE_SIZE, PAGE_SIZE).unwrap();
        drop(faults);
        assert_eq!(block.load(5 * PAGE_SIZE, 8), Ok(0));
    }

    #[test]
    fn who_writes_to_a_protected_page_waits() {
        let mut faults = match Faults::protecting() {
            Ok(faults) => faults,
            Err(e) => return println!("skipped: userfaultfd: {e}"),
        };
        let block = RamBlock::anonymous("ram", 4 << 20).unwrap();
        block.store(6 * PAGE_SIZE, 8, 6).unwrap();
        faults.add(block.clone()).unwrap();
        let pages = (4 << 20) / PAGE_SIZE;
        faults.protect(0, 0, pages, true).unwrap();
        assert!(faults.protect(0, 1, pages, true).is_err() && faults.protect(1, 0, 1, true).is_err());
        let wait = Duration::from_secs(60);
        // One that was written to before, and one that never was.
        for page in [6, 100] {
            std::thread::scope(|s| {
                let writer = s.spawn(|| block.store(page * PAGE_SIZE, 8, 9));
                assert_eq!(faults.next(wait).unwrap(), Some(Wanted { block: 0, page }));
                assert_eq!(block.load(page * PAGE_SIZE, 8), Ok(if page == 6 { 6 } else { 0 }));
                faults.protect(0, page, 1, false).unwrap();
                writer.join().unwrap().unwrap();
                assert_eq!(block.load(page * PAGE_SIZE, 8), Ok(9));
            });
        }
        std::thread::scope(|s| {
            let writer = s.spawn(|| block.store(7 * PAGE_SIZE, 8, 7));
            assert_eq!(faults.next(wait).unwrap(), Some(Wanted { block: 0, page: 7 }));
            drop(faults);
            writer.join().unwrap().unwrap();
        });
    }
}
