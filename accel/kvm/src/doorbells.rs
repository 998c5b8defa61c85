//! Doorbells: registers whose writes only say that there is work ([`MmioDevice::doorbells`]). The kernel signals an eventfd for each,
//! and one thread does what the write would have done, while guest code runs on.

use crate::sys::{AnyVm, IoEvent, cap};
use parking_lot::Mutex;
use rhea_memory::{
    Access, AddressSpace, ChangeListener, ChangeReason, FlatTarget, FlatView, MemoryChange, MmioDevice, Subscription,
};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// What the thread is told to end by; doorbells count from 1.
const STOP: u64 = 0;
/// The size of a doorbell's writes, for kernels that want it: a virtqueue's (virtio 1.2, 4.1.5.2).
const SIZE: u8 = 2;

/// Where a doorbell is.
#[derive(Clone)]
struct Place {
    address: u64,
    device: Arc<dyn MmioDevice>,
    offset: u64,
}

impl Place {
    fn same(&self, other: &Place) -> bool {
        self.address == other.address && self.offset == other.offset && Arc::ptr_eq(&self.device, &other.device)
    }
    fn ring(&self) {
        // A device that is gone meanwhile has nothing to do.
        let _ = self.device.write(self.offset, 0, Access::host(SIZE));
    }
}

struct Bell {
    id: u64,
    place: Place,
    event: EventFd,
}

#[derive(Default)]
struct State {
    last: u64,
    bells: Vec<Bell>,
}

struct Shared {
    vm: Arc<dyn AnyVm>,
    space: Weak<AddressSpace>,
    /// The kernel takes writes of any size.
    any_size: bool,
    epoll: Epoll,
    state: Mutex<State>,
    /// The thread is about to look whether one was rung, or does its work.
    busy: AtomicBool,
}

/// The doorbells of a VM.
pub struct Doorbells {
    shared: Arc<Shared>,
    stop: EventFd,
    thread: Option<JoinHandle<()>>,
    _follow: Subscription,
}

impl ChangeListener for Shared {
    fn memory_changed(&self, change: &MemoryChange) {
        if change.reason == ChangeReason::Unmap {
            self.update();
        }
    }
}

fn places(view: &FlatView) -> Vec<Place> {
    let mut all = Vec::new();
    for flat in view.ranges() {
        let FlatTarget::Mmio(target) = &flat.target else { continue };
        for offset in target.device.doorbells() {
            let Some(at) = offset.checked_sub(target.offset).filter(|at| *at < flat.range.len) else { continue };
            all.push(Place { address: flat.range.start.0 + at, device: target.device.clone(), offset });
        }
    }
    all
}

fn watch(epoll: &Epoll, event: &EventFd, id: u64) -> io::Result<()> {
    epoll.ctl(ControlOperation::Add, event.as_raw_fd(), EpollEvent::new(EventSet::IN, id))
}

impl Doorbells {
    /// Those of what vCPUs see, followed as it changes; the kernel has [`cap::IOEVENTFD`].
    ///
    /// # Errors
    /// The host's: without them writes end guest code for a while.
    pub fn new(vm: &Arc<dyn AnyVm>, space: &Arc<AddressSpace>) -> io::Result<Self> {
        let stop = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
        let epoll = Epoll::new()?;
        watch(&epoll, &stop, STOP)?;
        let shared = Arc::new(Shared {
            vm: vm.clone(),
            space: Arc::downgrade(space),
            any_size: vm.check(cap::IOEVENTFD_ANY_LENGTH) > 0,
            epoll,
            state: Mutex::default(),
            busy: AtomicBool::new(false),
        });
        let listening = shared.clone();
        let thread = std::thread::Builder::new().name("doorbells".to_owned()).spawn(move || listening.listen())?;
        let follow = space.subscribe(shared.clone());
        shared.update();
        Ok(Self { shared, stop, thread: Some(thread), _follow: follow })
    }
    /// Does the work of all that were rung, and returns when none is being done any more. No vCPU is in guest code.
    pub fn settle(&self) {
        loop {
            let rung: Vec<Place> = {
                let state = self.shared.state.lock();
                state.bells.iter().filter(|bell| bell.event.read().is_ok()).map(|bell| bell.place.clone()).collect()
            };
            rung.iter().for_each(Place::ring);
            if rung.is_empty() && !self.shared.busy.load(SeqCst) {
                return;
            }
            std::thread::yield_now();
        }
    }
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared.state.lock().bells.len()
    }
}

impl Drop for Doorbells {
    fn drop(&mut self) {
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn set(&self, bell: &Bell, attach: bool) -> io::Result<()> {
        let size = if self.any_size { 0 } else { SIZE };
        let fd = bell.event.as_raw_fd();
        self.vm.ioeventfd(&IoEvent { address: bell.place.address, size, data: None, port: false, fd }, attach)
    }

    fn update(&self) {
        let Some(space) = self.space.upgrade() else { return };
        let mut late = Vec::new();
        let mut state = self.state.lock();
        // The newest view, whoever comes last.
        let wanted = places(&space.view());
        let (kept, gone): (Vec<_>, Vec<_>) =
            state.bells.drain(..).partition(|bell| wanted.iter().any(|place| place.same(&bell.place)));
        state.bells = kept;
        for bell in gone {
            let _ = self.set(&bell, false);
            let _ = self.epoll.ctl(ControlOperation::Delete, bell.event.as_raw_fd(), EpollEvent::default());
            if bell.event.read().is_ok() {
                late.push(bell.place);
            }
        }
        for place in wanted {
            if state.bells.iter().any(|bell| bell.place.same(&place)) {
                continue;
            }
            let Ok(event) = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK) else { continue };
            state.last += 1;
            let bell = Bell { id: state.last, place, event };
            // Where the kernel has no room for more, writes end guest code as before.
            if watch(&self.epoll, &bell.event, bell.id).is_ok() && self.set(&bell, true).is_ok() {
                state.bells.push(bell);
            }
        }
        drop(state);
        late.iter().for_each(Place::ring);
    }

    fn listen(&self) {
        let mut events = [EpollEvent::default(); 16];
        loop {
            let count = match self.epoll.wait(-1, &mut events) {
                Ok(count) => count,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            for event in &events[..count] {
                if event.data() == STOP {
                    return;
                }
                self.busy.store(true, SeqCst);
                let rung = {
                    let state = self.state.lock();
                    let bell = state.bells.iter().find(|bell| bell.id == event.data());
                    bell.filter(|bell| bell.event.read().is_ok()).map(|bell| bell.place.clone())
                };
                if let Some(place) = rung {
                    place.ring();
                }
                self.busy.store(false, SeqCst);
            }
        }
    }
}
