//! A tap interface of the host.
#![expect(unsafe_code, reason = "TUNSETIFF and its relatives are raw ioctls")]

use crate::{MAX_FRAME, NetBackend, NetFrontend, Offload, Offloads, TapOptions, error_text};
use parking_lot::Mutex;
use polling::{Event, Events, Poller};
use rhea_device::OptionError;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const TUNGETIFF: libc::Ioctl = 0x8004_54d2;
const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::Ioctl = 0x4004_54d8;
const TUN_F_CSUM: libc::c_ulong = 1;
const TUN_F_TSO4: libc::c_ulong = 2;
const TUN_F_TSO6: libc::c_ulong = 4;

struct Shared {
    file: File,
    poller: Poller,
    frontend: Mutex<Option<Arc<dyn NetFrontend>>>,
    ended: AtomicBool,
}

/// A tap back end. No script is run: the interface is set up by the user.
pub struct Tap {
    shared: Arc<Shared>,
    name: String,
    offloads: bool,
}

fn set_int(file: &File, request: libc::Ioctl, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the request takes a pointer to an int, which it reads.
    let r = unsafe { libc::ioctl(file.as_raw_fd(), request, &raw const value) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn set_offload(file: &File, flags: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the request takes its argument by value.
    let r = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETOFFLOAD, flags) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Attaches to the interface; returns its name.
fn attach(file: &File, name: &str) -> io::Result<String> {
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: the request takes a pointer to a valid ifreq, which it reads and fills in.
    let r = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(name_of(&request))
}

/// Takes over an inherited descriptor of a tap interface; returns it and the interface's name.
fn inherit(fd: RawFd) -> io::Result<(File, String)> {
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: the request takes a pointer to a valid ifreq, which it fills in; on what is no tap interface it fails.
    if unsafe { libc::ioctl(fd, TUNGETIFF, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the request filled in the flags.
    let flags = libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags });
    if flags & libc::IFF_TAP == 0 || flags & libc::IFF_NO_PI == 0 || flags & libc::IFF_VNET_HDR == 0 {
        return Err(io::Error::other("the interface must be made with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR"));
    }
    // SAFETY: the user gave the descriptor away, and it is an open one: the request worked.
    let file = unsafe { File::from_raw_fd(fd) };
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::CLOEXEC)?;
    rustix::fs::fcntl_setfl(&file, rustix::fs::fcntl_getfl(&file)? | rustix::fs::OFlags::NONBLOCK)?;
    Ok((file, name_of(&request)))
}

fn name_of(request: &libc::ifreq) -> String {
    request.ifr_name.iter().take_while(|c| **c != 0).map(|c| *c as u8 as char).collect()
}

impl Tap {
    /// Opens the interface.
    ///
    /// # Errors
    /// One line that names it.
    pub fn open(options: &TapOptions) -> Result<Arc<Self>, OptionError> {
        let wanted = options.interface.as_deref().unwrap_or("");
        let fail = |what: &str, e: &io::Error| OptionError::new(&options.option, format!("{what}: {}", error_text(e)));
        if wanted.len() >= libc::IFNAMSIZ {
            return Err(OptionError::new(
                &options.option,
                format!("'ifname={wanted}': at most {} characters", libc::IFNAMSIZ - 1),
            ));
        }
        let (file, name) = match options.fd {
            Some(fd) => inherit(fd).map_err(|e| fail(&format!("'fd={fd}': not a usable tap interface"), &e))?,
            None => {
                let open = File::options()
                    .read(true)
                    .write(true)
                    .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
                    .open("/dev/net/tun");
                let file = open.map_err(|e| fail("cannot open '/dev/net/tun'", &e))?;
                let name =
                    attach(&file, wanted).map_err(|e| fail(&format!("cannot attach to interface '{wanted}'"), &e))?;
                (file, name)
            }
        };
        set_int(&file, TUNSETVNETHDRSZ, Offload::LEN as libc::c_int)
            .map_err(|e| fail("cannot set the header size", &e))?;
        let offloads = options.offloads && set_offload(&file, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6).is_ok();
        // Until the guest agrees.
        let _ = set_offload(&file, 0);
        let poller = Poller::new().map_err(|e| fail("cannot poll", &e))?;
        let shared = Arc::new(Shared { file, poller, frontend: Mutex::default(), ended: AtomicBool::new(false) });
        let receiver = shared.clone();
        let thread = std::thread::Builder::new().name(format!("tap-{name}")).spawn(move || receive(&receiver));
        thread.map_err(|e| fail("cannot start a thread", &e))?;
        Ok(Arc::new(Self { shared, name, offloads }))
    }
}

/// Carries frames to the guest until the back end is dropped.
fn receive(shared: &Shared) {
    let mut buffer = vec![0; Offload::LEN + MAX_FRAME];
    let mut events = Events::new();
    // SAFETY: the file lives as long as the poller, in the same structure, and leaves it below.
    if unsafe { shared.poller.add(&shared.file, Event::none(0)) }.is_err() {
        return;
    }
    let mut held: Option<usize> = None;
    while !shared.ended.load(Ordering::Acquire) {
        let frontend = shared.frontend.lock().clone();
        let mut wait_for_guest = false;
        loop {
            let len = match held.take() {
                Some(len) => len,
                None => match (&shared.file).read(&mut buffer) {
                    Ok(n) => n,
                    Err(_) => break,
                },
            };
            if let (Some(frontend), Some((header, frame))) =
                (&frontend, buffer[..len].split_first_chunk::<{ Offload::LEN }>())
                && !frontend.receive(frame, Offload::from_bytes(header))
            {
                held = Some(len);
                wait_for_guest = true;
                break;
            }
        }
        let interest = if wait_for_guest { Event::none(0) } else { Event::readable(0) };
        events.clear();
        if shared.poller.modify(&shared.file, interest).is_err() || shared.poller.wait(&mut events, None).is_err() {
            break;
        }
    }
    let _ = shared.poller.delete(&shared.file);
}

impl NetBackend for Tap {
    fn send(&self, frame: &[u8], offload: Offload) {
        let header = offload.to_bytes(0);
        // A full queue drops, as a wire does.
        let _ = (&self.shared.file).write_vectored(&[io::IoSlice::new(&header), io::IoSlice::new(frame)]);
    }
    fn set_frontend(&self, frontend: Arc<dyn NetFrontend>) {
        *self.shared.frontend.lock() = Some(frontend);
        self.receive_ready();
    }
    fn receive_ready(&self) {
        let _ = self.shared.poller.notify();
    }
    fn offloads(&self) -> Offloads {
        Offloads { checksum: self.offloads, tso4: self.offloads, tso6: self.offloads }
    }
    fn set_frontend_offloads(&self, o: Offloads) {
        let bit = |on, bit| if on { bit } else { 0 };
        let _ = set_offload(
            &self.shared.file,
            bit(o.checksum, TUN_F_CSUM) | bit(o.tso4, TUN_F_TSO4) | bit(o.tso6, TUN_F_TSO6),
        );
    }
    fn description(&self) -> String {
        format!("tap,ifname={}", self.name)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        let _ = self.shared.poller.notify();
    }
}
