//! A device behind its transport: status, features, configuration.

use crate::features;
use crate::queue::Queue;
use crate::queues::{InterruptSink, Queues, QueuesState};
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_device::{DmaHandle, LoadError, Log};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bits of the device status field (virtio 1.2, 2.1).
pub mod status {
    pub const ACKNOWLEDGE: u8 = 1;
    pub const DRIVER: u8 = 2;
    pub const DRIVER_OK: u8 = 4;
    pub const FEATURES_OK: u8 = 8;
    pub const NEEDS_RESET: u8 = 64;
    pub const FAILED: u8 = 128;
}

/// A device, whatever its transport. Methods may be called from several threads at once, with no lock held.
pub trait VirtioDevice: Send + Sync {
    /// The device type (virtio 1.2, 5).
    fn id(&self) -> u16;
    /// Like `virtio-blk`.
    fn name(&self) -> &'static str;
    /// PCI class code of the function: 24 bits.
    fn pci_class(&self) -> u32;
    /// Device feature bits offered; the transport adds the rings' bits.
    fn features(&self) -> u64;
    /// Largest size of each queue.
    fn queue_sizes(&self) -> Vec<u16>;
    /// MSI-X vectors unless the user says otherwise: one for each queue and one for configuration changes.
    fn vectors(&self) -> u16 {
        self.queue_sizes().len() as u16 + 1
    }
    /// Hands over the queues, once, before anything else.
    fn attach(&self, queues: Arc<Queues>);
    /// Reads device-specific configuration; what lies outside reads as zero.
    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}
    /// Writes device-specific configuration.
    fn write_config(&self, _offset: u64, _data: &[u8]) {}
    /// DRIVER_OK with these features.
    fn start(&self, _features: u64) {}
    /// The driver made buffers available. Must not wait for the host.
    fn notify(&self, queue: u16);
    /// The same on a thread beside the driver's, which runs on and may soon have more; true: it is to be called again, when other queues
    /// had their turn.
    fn notify_apart(&self, queue: u16) -> bool {
        self.notify(queue);
        false
    }
    /// Stops all activity and returns when nothing touches the guest's memory any more. The queues are reset afterwards.
    fn reset(&self) {}
    /// Returns when no request is in flight.
    fn quiesce(&self) {}
    /// State beyond queues, status and features.
    fn save(&self) -> Vec<u8> {
        Vec::new()
    }
    /// # Errors
    /// The state is not of this device.
    fn load(&self, _state: &[u8]) -> Result<(), LoadError> {
        Ok(())
    }
}

#[derive(Default)]
struct Common {
    driver_features: u64,
}

/// Saved state of a device and its queues.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CoreState {
    #[n(0)]
    status: u8,
    #[n(1)]
    generation: u8,
    #[n(2)]
    driver_features: u64,
    #[n(3)]
    queues: QueuesState,
    #[cbor(n(4), with = "minicbor::bytes")]
    device: Vec<u8>,
    /// Whether the driver has accepted them yet or not.
    #[n(5)]
    offered: Option<u64>,
}

/// Joins a device, its queues and the driver-visible status.
pub struct VirtioCore {
    device: Arc<dyn VirtioDevice>,
    queues: Arc<Queues>,
    offered: u64,
    common: Mutex<Common>,
}

impl VirtioCore {
    /// `ring_features`: which of [`features::RING_PACKED`], [`features::INDIRECT_DESC`], [`features::EVENT_IDX`], [`features::ACCESS_PLATFORM`] to
    /// offer.
    #[must_use]
    pub fn new(device: Arc<dyn VirtioDevice>, dma: DmaHandle, ring_features: u64, log: Log) -> Self {
        let queues = Queues::new(device.name(), &device.queue_sizes(), dma, log);
        device.attach(queues.clone());
        let offered = device.features() | features::VERSION_1 | ring_features;
        Self { device, queues, offered, common: Mutex::default() }
    }
    #[must_use]
    pub fn device(&self) -> &Arc<dyn VirtioDevice> {
        &self.device
    }
    #[must_use]
    pub fn queues(&self) -> &Arc<Queues> {
        &self.queues
    }
    pub(crate) fn set_sink(&self, sink: Arc<dyn InterruptSink>) {
        self.queues.set_sink(sink);
    }
    /// Word `select` of the offered features.
    #[must_use]
    pub fn device_features(&self, select: u32) -> u32 {
        match select {
            0 => self.offered as u32,
            1 => (self.offered >> 32) as u32,
            _ => 0,
        }
    }
    #[must_use]
    pub fn driver_features(&self, select: u32) -> u32 {
        let f = self.common.lock().driver_features;
        match select {
            0 => f as u32,
            1 => (f >> 32) as u32,
            _ => 0,
        }
    }
    /// Word `select` of what the driver accepts; ignored once FEATURES_OK is set.
    pub fn set_driver_features(&self, select: u32, value: u32) {
        if self.status() & status::FEATURES_OK != 0 {
            return;
        }
        let mut c = self.common.lock();
        match select {
            0 => c.driver_features = c.driver_features & !0xffff_ffff | u64::from(value),
            1 => c.driver_features = c.driver_features & 0xffff_ffff | u64::from(value) << 32,
            // There are no further bits to accept.
            _ => (),
        }
    }
    #[must_use]
    pub fn status(&self) -> u8 {
        self.queues.status.load(Ordering::Acquire)
    }
    #[must_use]
    pub fn config_generation(&self) -> u8 {
        self.queues.generation.load(Ordering::Acquire)
    }
    /// A write to the device status; 0 resets. Returns true if it did.
    pub fn set_status(&self, value: u8) -> bool {
        if value == 0 {
            self.reset();
            return true;
        }
        let old = self.status();
        let mut new = value & !status::NEEDS_RESET | old & status::NEEDS_RESET;
        let accepted = self.common.lock().driver_features;
        if new & status::FEATURES_OK != 0 && old & status::FEATURES_OK == 0 {
            // Only offered bits, only the interface we have, and addresses as they are taken.
            let needed = features::VERSION_1 | self.offered & features::ACCESS_PLATFORM;
            if accepted & !self.offered != 0 || accepted & needed != needed {
                new &= !status::FEATURES_OK;
            } else {
                for i in 0..self.queues.count() {
                    if let Some(q) = self.queues.get(i) {
                        q.lock().set_features(accepted);
                    }
                }
            }
        }
        let starts = new & status::DRIVER_OK != 0 && old & status::DRIVER_OK == 0;
        if starts && new & status::FEATURES_OK == 0 {
            self.queues.log().guest_error(self.device.name(), format_args!("DRIVER_OK without FEATURES_OK"));
            new &= !status::DRIVER_OK;
        }
        self.queues.status.store(new, Ordering::Release);
        if starts && new & status::DRIVER_OK != 0 {
            self.device.start(accepted);
            // Buffers may have been made available before.
            for i in 0..self.queues.count() {
                self.device.notify(i);
            }
        }
        false
    }
    /// Device reset: when it returns nothing of the device is in flight.
    pub fn reset(&self) {
        self.queues.status.store(0, Ordering::Release);
        self.device.reset();
        self.queues.reset();
        // A request that was in flight may have found the driver's rings broken: they are forgotten.
        self.queues.status.store(0, Ordering::Release);
        self.common.lock().driver_features = 0;
        self.queues.generation.store(0, Ordering::Release);
    }
    /// Works on the registers of a queue; `None`: there is no such queue.
    pub(crate) fn queue<R>(&self, index: u32, f: impl FnOnce(&mut Queue) -> R) -> Option<R> {
        Some(f(&mut self.queues.get(u16::try_from(index).ok()?)?.lock()))
    }
    /// A notification of the driver.
    pub fn notify(&self, queue: u16) {
        if self.has_work(queue) {
            self.device.notify(queue);
        }
    }
    /// The same, by the thread of doorbells ([`VirtioDevice::notify_apart`]).
    pub fn notify_apart(&self, queue: u16) -> bool {
        self.has_work(queue) && self.device.notify_apart(queue)
    }
    fn has_work(&self, queue: u16) -> bool {
        queue < self.queues.count() && self.queues.running()
    }
    /// A read of device-specific configuration, 1 to 8 bytes, little-endian.
    #[must_use]
    pub fn read_config(&self, offset: u64, size: u8) -> u64 {
        let mut data = [0; 8];
        self.device.read_config(offset, &mut data[..usize::from(size.min(8))]);
        u64::from_le_bytes(data)
    }
    pub fn write_config(&self, offset: u64, size: u8, value: u64) {
        self.device.write_config(offset, &value.to_le_bytes()[..usize::from(size.min(8))]);
    }
    /// Stops: nothing is in flight when it returns, and nothing starts until [`Self::resume`].
    pub fn quiesce(&self) {
        self.queues.set_paused(true);
        self.device.quiesce();
    }
    pub fn resume(&self) {
        self.queues.set_paused(false);
        for i in 0..self.queues.count() {
            self.notify(i);
        }
    }
    #[must_use]
    pub fn save(&self) -> CoreState {
        CoreState {
            status: self.status(),
            generation: self.config_generation(),
            driver_features: self.common.lock().driver_features,
            queues: self.queues.save(),
            device: self.device.save(),
            offered: Some(self.offered),
        }
    }
    /// # Errors
    /// The state is not of this device.
    pub fn load(&self, state: CoreState) -> Result<(), LoadError> {
        let CoreState { status: s, generation, driver_features, queues, device, offered } = state;
        if let Some(was) = offered.filter(|was| *was != self.offered) {
            return Err(LoadError::Mismatch(format!(
                "{}: features {was:#x} were offered, here {:#x} are",
                self.device.name(),
                self.offered
            )));
        }
        // Before FEATURES_OK the driver may have written anything.
        if s & status::FEATURES_OK != 0 && driver_features & !self.offered != 0 {
            return Err(LoadError::Mismatch(format!(
                "{}: features {driver_features:#x} are not offered here",
                self.device.name()
            )));
        }
        if !self.queues.load(queues, driver_features) {
            return Err(LoadError::Mismatch(format!("{}: number or size of queues", self.device.name())));
        }
        self.common.lock().driver_features = driver_features;
        self.queues.generation.store(generation, Ordering::Release);
        self.device.load(&device)?;
        if s & status::DRIVER_OK != 0 {
            self.device.start(driver_features);
        }
        self.queues.status.store(s, Ordering::Release);
        Ok(())
    }
}

/// Copies the part of `config` that a read of `data.len()` bytes at `offset` sees.
pub(crate) fn config_bytes(config: &[u8], offset: u64, data: &mut [u8]) {
    for (i, byte) in data.iter_mut().enumerate() {
        let at = usize::try_from(offset).ok().and_then(|o| o.checked_add(i));
        *byte = at.and_then(|at| config.get(at)).copied().unwrap_or(0);
    }
}
