//! The rings' host addresses, cached until the memory they lie in changes.

use super::{QueueError, QueueState};
use rhea_device::DmaHandle;
use rhea_memory::{ChangeListener, ChangeReason, Gpa, GpaRange, HostSlice, MemoryChange, Subscription};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

struct Watch {
    /// Read only by the device, and written by it.
    read: Vec<GpaRange>,
    written: Vec<GpaRange>,
    stale: AtomicBool,
}

impl ChangeListener for Watch {
    fn memory_changed(&self, change: &MemoryChange) {
        // Discarded content leaves the addresses true; write tracking sees our writes through the slices.
        if matches!(change.reason, ChangeReason::ClearOrMigrate | ChangeReason::SoftDirty) {
            return;
        }
        let hit = |ours: &[GpaRange]| ours.iter().any(|r| change.ranges.iter().any(|c| c.overlaps(r)));
        if hit(&self.written) || (!change.read_only_downgrade && hit(&self.read)) {
            self.stale.store(true, Ordering::Release);
        }
    }
}

/// The three areas of a queue.
pub(super) struct Rings {
    pub desc: HostSlice,
    pub driver: HostSlice,
    pub device: HostSlice,
    watch: Arc<Watch>,
    /// Behind an IOMMU: set when it may lead elsewhere.
    translation: Option<Arc<AtomicBool>>,
    _subscription: Subscription,
}

impl Rings {
    pub(super) fn take(dma: &DmaHandle, state: &QueueState, packed: bool) -> Result<Self, QueueError> {
        let n = u64::from(state.size);
        let (driver_len, device_len) = if packed { (4, 4) } else { (6 + 2 * n, 6 + 8 * n) };
        let range = |start, len| GpaRange { start: Gpa(start), len };
        let (desc, driver, device) =
            (range(state.desc, 16 * n), range(state.driver, driver_len), range(state.device, device_len));
        let aligned = if packed {
            state.driver.is_multiple_of(4) && state.device.is_multiple_of(4)
        } else {
            state.driver.is_multiple_of(2) && state.device.is_multiple_of(4)
        };
        if !state.desc.is_multiple_of(16) || !aligned {
            return Err(QueueError::Memory);
        }
        let (read, written) =
            if packed { (vec![driver], vec![desc, device]) } else { (vec![desc, driver], vec![device]) };
        // Watched before the addresses are taken, so that no change falls between.
        let translation = dma.watch(&[desc, driver, device]);
        let everything = || vec![range(0, u64::MAX)];
        let (read, written) = if translation.is_some() { (Vec::new(), everything()) } else { (read, written) };
        let watch = Arc::new(Watch { read, written, stale: AtomicBool::new(false) });
        let space = dma.space();
        let subscription = space.subscribe(watch.clone());
        let slice = |r: GpaRange, write: bool| dma.lasting_slice(r.start, r.len, write).ok_or(QueueError::Memory);
        Ok(Self {
            desc: slice(desc, packed)?,
            driver: slice(driver, false)?,
            device: slice(device, true)?,
            watch,
            translation,
            _subscription: subscription,
        })
    }
    #[inline]
    pub(super) fn stale(&self) -> bool {
        self.watch.stale.load(Ordering::Acquire)
            || self.translation.as_ref().is_some_and(|changed| changed.load(Ordering::Acquire))
    }
}
