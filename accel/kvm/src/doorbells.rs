//! Doorbells: registers whose writes only say that there is work ([`MmioDevice::doorbells`]). The kernel signals an eventfd for each,
//! and a thread of the device does what the write would have done, while guest code runs on.

use crate::sys::{AnyVm, IoEvent, cap};
use parking_lot::Mutex;
use rhea_memory::{
    AddressSpace, ChangeListener, ChangeReason, FlatTarget, FlatView, MemoryChange, MmioDevice, Subscription,
};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// What a thread is told to end by; doorbells count from 1.
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
    /// There is more to do?
    fn ring(&self) -> bool {
        self.device.ring(self.offset)
    }
    fn ring_out(&self) {
        while self.ring() {}
    }
}

struct Bell {
    id: u64,
    place: Place,
    event: EventFd,
}

/// What a device's thread listens to.
struct Ear {
    epoll: Epoll,
    stop: EventFd,
    bells: Mutex<Vec<Bell>>,
    /// The thread is about to look whether one was rung, or does its work.
    busy: AtomicBool,
}

/// A device that has, or had, doorbells.
struct Listener {
    device: Weak<dyn MmioDevice>,
    ear: Arc<Ear>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    last: u64,
    listeners: Vec<Listener>,
}

struct Shared {
    vm: Arc<dyn AnyVm>,
    space: Weak<AddressSpace>,
    /// The kernel takes writes of any size.
    any_size: bool,
    state: Mutex<State>,
}

/// The doorbells of a VM.
pub struct Doorbells {
    shared: Arc<Shared>,
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
    #[must_use]
    pub fn new(vm: &Arc<dyn AnyVm>, space: &Arc<AddressSpace>) -> Self {
        let shared = Arc::new(Shared {
            vm: vm.clone(),
            space: Arc::downgrade(space),
            any_size: vm.check(cap::IOEVENTFD_ANY_LENGTH) > 0,
            state: Mutex::default(),
        });
        let follow = space.subscribe(shared.clone());
        shared.update();
        Self { shared, _follow: follow }
    }
    /// Does the work of all that were rung, and returns when none is being done any more. No vCPU is in guest code.
    pub fn settle(&self) {
        loop {
            let ears: Vec<Arc<Ear>> = self.shared.state.lock().listeners.iter().map(|l| l.ear.clone()).collect();
            let rung: Vec<Place> = ears.iter().flat_map(|ear| ear.rung()).collect();
            rung.iter().for_each(Place::ring_out);
            if rung.is_empty() && !ears.iter().any(|ear| ear.busy.load(SeqCst)) {
                return;
            }
            std::thread::yield_now();
        }
    }
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared.state.lock().listeners.iter().map(|l| l.ear.bells.lock().len()).sum()
    }
}

impl Drop for Doorbells {
    fn drop(&mut self) {
        let listeners = std::mem::take(&mut self.shared.state.lock().listeners);
        for listener in &listeners {
            let _ = listener.ear.stop.write(1);
        }
        for listener in listeners {
            let _ = listener.thread.join();
        }
    }
}

impl Listener {
    fn new(device: &Arc<dyn MmioDevice>) -> io::Result<Self> {
        let stop = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
        let epoll = Epoll::new()?;
        watch(&epoll, &stop, STOP)?;
        let ear = Arc::new(Ear { epoll, stop, bells: Mutex::default(), busy: AtomicBool::new(false) });
        let listening = ear.clone();
        let thread = std::thread::Builder::new().name("doorbells".to_owned()).spawn(move || listening.listen())?;
        Ok(Self { device: Arc::downgrade(device), ear, thread })
    }
    fn is_of(&self, device: &Arc<dyn MmioDevice>) -> bool {
        std::ptr::addr_eq(self.device.as_ptr(), Arc::as_ptr(device))
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
        let State { last, listeners } = &mut *state;
        // The newest view, whoever comes last.
        let mut wanted = places(&space.view());
        for listener in &mut *listeners {
            let mut bells = listener.ear.bells.lock();
            let gone: Vec<Bell> =
                bells.extract_if(.., |bell| !wanted.iter().any(|place| place.same(&bell.place))).collect();
            wanted.retain(|place| !bells.iter().any(|bell| bell.place.same(place)));
            drop(bells);
            for bell in gone {
                let _ = self.set(&bell, false);
                let _ = listener.ear.epoll.ctl(ControlOperation::Delete, bell.event.as_raw_fd(), EpollEvent::default());
                if bell.event.read().is_ok() {
                    late.push(bell.place);
                }
            }
        }
        for place in wanted {
            // Without a thread, and where the kernel has no room for more, writes end guest code as before.
            let listener = match listeners.iter().position(|l| l.is_of(&place.device)) {
                Some(n) => &listeners[n],
                None => match Listener::new(&place.device) {
                    Ok(new) => listeners.push_mut(new),
                    Err(_) => continue,
                },
            };
            let Ok(event) = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK) else { continue };
            *last += 1;
            let bell = Bell { id: *last, place, event };
            if watch(&listener.ear.epoll, &bell.event, bell.id).is_ok() && self.set(&bell, true).is_ok() {
                listener.ear.bells.lock().push(bell);
            }
        }
        drop(state);
        late.iter().for_each(Place::ring_out);
        // A thread that still does something for a device that is gone ends by itself.
        let gone: Vec<_> =
            self.state.lock().listeners.extract_if(.., |listener| listener.device.strong_count() == 0).collect();
        for listener in gone {
            let _ = listener.ear.stop.write(1);
        }
    }
}

impl Ear {
    /// Takes what was rung.
    fn rung(&self) -> Vec<Place> {
        let bells = self.bells.lock();
        bells.iter().filter(|bell| bell.event.read().is_ok()).map(|bell| bell.place.clone()).collect()
    }
    /// The thread.
    fn listen(&self) {
        let mut events = [EpollEvent::default(); 1];
        loop {
            match self.epoll.wait(-1, &mut events) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return,
            }
            if self.stop.read().is_ok() {
                return;
            }
            self.busy.store(true, SeqCst);
            let mut turns: VecDeque<Place> = self.rung().into();
            while let Some(place) = turns.pop_front() {
                if place.ring() {
                    // The others that were rung meanwhile go first.
                    turns.extend(self.rung().into_iter().filter(|other| !other.same(&place)));
                    turns.push_back(place);
                }
            }
            self.busy.store(false, SeqCst);
        }
    }
}
