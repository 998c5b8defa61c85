//! Devices whose writes are held back ([`MmioDevice::held_writes`]): the kernel keeps them in a ring while guest code runs on, and they are
//! done before the next access to a device that ends guest code, when the device asks, and when the machine stands.

use crate::mmio;
use crate::sys::{AnyVm, WriteRing};
use parking_lot::Mutex;
use rhea_memory::{
    Access, AddressSpace, ChangeListener, ChangeReason, FlatTarget, FlatView, MemoryChange, MmioDevice, Subscription,
    WriteHolder,
};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// More than a ring has room for: what vCPUs add meanwhile is not waited for.
const MOST: usize = 256;

/// A range whose writes are held back.
#[derive(Clone)]
struct Zone {
    address: u64,
    len: u32,
    device: Arc<dyn MmioDevice>,
}

impl Zone {
    fn same(&self, other: &Zone) -> bool {
        self.address == other.address && self.len == other.len && Arc::ptr_eq(&self.device, &other.device)
    }
}

/// The held writes of a VM.
pub struct Held {
    vm: Arc<dyn AnyVm>,
    space: Weak<AddressSpace>,
    /// Held while writes are done, so that they are in order; until there is a vCPU there is none.
    ring: Mutex<Option<Box<dyn WriteRing>>>,
    zones: Mutex<Vec<Zone>>,
    /// How many there are.
    count: AtomicUsize,
    me: Weak<Held>,
}

fn zones(view: &FlatView) -> Vec<Zone> {
    let mut all = Vec::new();
    for flat in view.ranges() {
        let FlatTarget::Mmio(target) = &flat.target else { continue };
        if let (Some(_), Ok(len)) = (target.device.held_writes(), u32::try_from(flat.range.len)) {
            all.push(Zone { address: flat.range.start.0, len, device: target.device.clone() });
        }
    }
    all
}

impl Held {
    /// Those of what vCPUs see, followed as it changes.
    pub fn new(vm: &Arc<dyn AnyVm>, space: &Arc<AddressSpace>) -> (Arc<Self>, Subscription) {
        let held = Arc::new_cyclic(|me| Self {
            vm: vm.clone(),
            space: Arc::downgrade(space),
            ring: Mutex::default(),
            zones: Mutex::default(),
            count: AtomicUsize::new(0),
            me: me.clone(),
        });
        let follow = space.subscribe(held.clone());
        (held, follow)
    }
    /// Has found the ring, of the first vCPU, or not: then nothing is held back.
    pub fn begin(&self, ring: io::Result<Box<dyn WriteRing>>) {
        let Ok(ring) = ring else { return };
        self.ring.lock().get_or_insert(ring);
        self.update();
    }
    /// Ranges whose writes are held back.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn update(&self) {
        let Some(space) = self.space.upgrade() else { return };
        if self.ring.lock().is_none() {
            return;
        }
        let mut known = self.zones.lock();
        // The newest view, whoever comes last.
        let wanted = zones(&space.view());
        known.retain(|zone| {
            // What the kernel cannot let go is held on, and done where it belongs by then.
            wanted.iter().any(|w| w.same(zone)) || self.vm.hold_writes(zone.address, zone.len, false).is_err()
        });
        for zone in wanted {
            // Where the kernel has no room for more, writes end guest code as before.
            if !known.iter().any(|k| k.same(&zone)) && self.vm.hold_writes(zone.address, zone.len, true).is_ok() {
                if let Some(device) = zone.device.held_writes() {
                    device.hold(self.me.clone());
                }
                known.push(zone);
            }
        }
        self.count.store(known.len(), Ordering::Relaxed);
    }
}

impl WriteHolder for Held {
    fn settle(&self) {
        if self.count() == 0 {
            return;
        }
        let Some(space) = self.space.upgrade() else { return };
        if let Some(ring) = &mut *self.ring.lock() {
            for write in std::iter::from_fn(|| ring.pop()).take(MOST) {
                // Which vCPU it was is not known.
                mmio::access(&space, write.address, Access::cpu(0, write.len), true, write.data, 0);
            }
        }
    }
}

impl ChangeListener for Held {
    fn memory_changed(&self, change: &MemoryChange) {
        if change.reason == ChangeReason::Unmap {
            self.settle();
            self.update();
        }
    }
}
