//! Virtio over PCI (virtio 1.2, 4.1), modern interface only.

use crate::core::{CoreState, VirtioCore, VirtioDevice};
use crate::features;
use crate::queue::QueueState;
use crate::queues::InterruptSink;
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_device::{
    Device, LoadError, Log, RegisterDecl, RegisterHit, RegisterMap, RegisterRules, Saved, log_guest_error, state,
};
use rhea_memory::{Access, AccessRules, BusError, MmioDevice};
use rhea_pci::{
    BarKind, ConfigBuilder, Identity, IntxPin, Msix, PciConfig, PciConfigState, PciFunction, PciSlot, PcieType,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

const VENDOR: u16 = 0x1af4;
const DEVICE_BASE: u16 = 0x1040;
const MSIX_BAR: usize = 1;
const MODERN_BAR: usize = 4;
const MODERN_SIZE: u64 = 0x4000;
/// Structures in the modern BAR.
const COMMON: u64 = 0;
const ISR: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
const STRUCT_SIZE: u64 = 0x1000;
const NOTIFY_MULTIPLIER: u32 = 4;
const NO_VECTOR: u16 = 0xffff;

const CAP_VENDOR: u8 = 9;
/// Configuration access capability: offsets from its start.
const WINDOW_BAR: usize = 4;
const WINDOW_DATA: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reg {
    DeviceFeatureSelect,
    DeviceFeature,
    DriverFeatureSelect,
    DriverFeature,
    ConfigVector,
    NumQueues,
    Status,
    Generation,
    QueueSelect,
    QueueSize,
    QueueVector,
    QueueEnable,
    QueueNotifyOff,
    Desc,
    Driver,
    Device,
}

const fn decl(offset: u64, width: u8, rules: RegisterRules, id: Reg) -> RegisterDecl<Reg> {
    RegisterDecl::new(offset, width, rules, id)
}

use RegisterRules::{ReadOnly, ReadWrite};
/// The common configuration structure (4.1.4.3).
const COMMON_MAP: RegisterMap<Reg> = RegisterMap::new(&[
    decl(0x00, 4, ReadWrite, Reg::DeviceFeatureSelect),
    decl(0x04, 4, ReadOnly, Reg::DeviceFeature),
    decl(0x08, 4, ReadWrite, Reg::DriverFeatureSelect),
    decl(0x0c, 4, ReadWrite, Reg::DriverFeature),
    decl(0x10, 2, ReadWrite, Reg::ConfigVector),
    decl(0x12, 2, ReadOnly, Reg::NumQueues),
    decl(0x14, 1, ReadWrite, Reg::Status),
    decl(0x15, 1, ReadOnly, Reg::Generation),
    decl(0x16, 2, ReadWrite, Reg::QueueSelect),
    decl(0x18, 2, ReadWrite, Reg::QueueSize),
    decl(0x1a, 2, ReadWrite, Reg::QueueVector),
    decl(0x1c, 2, ReadWrite, Reg::QueueEnable),
    decl(0x1e, 2, ReadOnly, Reg::QueueNotifyOff),
    RegisterDecl::array(0x20, 4, ReadWrite, Reg::Desc, 2),
    RegisterDecl::array(0x28, 4, ReadWrite, Reg::Driver, 2),
    RegisterDecl::array(0x30, 4, ReadWrite, Reg::Device, 2),
]);

/// The queue whose doorbell is at `offset`, from [`NOTIFY`] on.
fn queue_of(offset: u64) -> u16 {
    ((offset - NOTIFY) / u64::from(NOTIFY_MULTIPLIER)) as u16
}

/// Interrupts by MSI-X vector, or by INTx and the ISR status.
struct Interrupt {
    msix: Arc<Msix>,
    intx: Arc<IntxPin>,
    isr: AtomicU8,
    config_vector: AtomicU16,
    queue_vectors: Vec<AtomicU16>,
}

impl Interrupt {
    fn signal(&self, vector: u16, isr: u8) {
        if self.msix.enabled() {
            if vector != NO_VECTOR {
                self.msix.notify(vector);
            }
        } else {
            self.isr.fetch_or(isr, Ordering::SeqCst);
            self.update();
        }
    }
    fn update(&self) {
        loop {
            let level = self.isr.load(Ordering::SeqCst) != 0;
            self.intx.set(level);
            if level == (self.isr.load(Ordering::SeqCst) != 0) {
                return;
            }
        }
    }
    fn read_isr(&self) -> u8 {
        let isr = self.isr.swap(0, Ordering::SeqCst);
        self.update();
        isr
    }
    fn reset(&self) {
        self.config_vector.store(NO_VECTOR, Ordering::Release);
        for v in &self.queue_vectors {
            v.store(NO_VECTOR, Ordering::Release);
        }
        self.read_isr();
    }
    /// A vector as the driver may set it: one there is, or none.
    fn valid(&self, vector: u16) -> u16 {
        if vector < self.msix.vectors() { vector } else { NO_VECTOR }
    }
}

impl InterruptSink for Interrupt {
    fn queue(&self, index: u16) {
        let vector = self.queue_vectors.get(usize::from(index)).map_or(NO_VECTOR, |v| v.load(Ordering::Acquire));
        self.signal(vector, 1);
    }
    fn config(&self) {
        self.signal(self.config_vector.load(Ordering::Acquire), 2);
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
struct Selectors {
    #[n(0)]
    device_features: u32,
    #[n(1)]
    driver_features: u32,
    #[n(2)]
    queue: u16,
}

/// The modern BAR.
struct Registers {
    core: VirtioCore,
    interrupt: OnceInterrupt,
    selectors: Mutex<Selectors>,
    name: String,
    log: Log,
}

/// Set once MSI-X and INTx exist, before the guest runs.
type OnceInterrupt = std::sync::OnceLock<Arc<Interrupt>>;

impl Registers {
    fn read_common(&self, hit: RegisterHit<Reg>) -> u64 {
        let s = *self.selectors.lock();
        let core = &self.core;
        let queue = |f: &dyn Fn(&QueueState) -> u64| core.queue(u32::from(s.queue), |q| f(q.state())).unwrap_or(0);
        let half = |v: u64| v >> (32 * hit.index) & 0xffff_ffff;
        match hit.id {
            Reg::DeviceFeatureSelect => u64::from(s.device_features),
            Reg::DeviceFeature => u64::from(core.device_features(s.device_features)),
            Reg::DriverFeatureSelect => u64::from(s.driver_features),
            Reg::DriverFeature => u64::from(core.driver_features(s.driver_features)),
            Reg::ConfigVector => self.interrupt.get().map_or(0, |i| u64::from(i.config_vector.load(Ordering::Acquire))),
            Reg::NumQueues => u64::from(core.queues().count()),
            Reg::Status => u64::from(core.status()),
            Reg::Generation => u64::from(core.config_generation()),
            Reg::QueueSelect => u64::from(s.queue),
            Reg::QueueSize => queue(&|q| u64::from(q.size)),
            Reg::QueueVector => u64::from(self.queue_vector(s.queue).map_or(NO_VECTOR, |v| v.load(Ordering::Acquire))),
            Reg::QueueEnable => queue(&|q| u64::from(q.ready)),
            Reg::QueueNotifyOff => u64::from(s.queue),
            Reg::Desc => queue(&|q| half(q.desc)),
            Reg::Driver => queue(&|q| half(q.driver)),
            Reg::Device => queue(&|q| half(q.device)),
        }
    }
    fn queue_vector(&self, index: u16) -> Option<&AtomicU16> {
        self.interrupt.get()?.queue_vectors.get(usize::from(index))
    }
    fn write_common(&self, hit: RegisterHit<Reg>, value: u64, mask: u64) {
        let s = *self.selectors.lock();
        let core = &self.core;
        let program = |f: &dyn Fn(&mut QueueState)| {
            core.queue(u32::from(s.queue), |q| q.program(f));
        };
        let half = |field: &mut u64| *field = *field & !(mask << (32 * hit.index)) | value << (32 * hit.index);
        match hit.id {
            Reg::DeviceFeatureSelect => self.selectors.lock().device_features = value as u32,
            Reg::DriverFeatureSelect => self.selectors.lock().driver_features = value as u32,
            Reg::DriverFeature => core.set_driver_features(s.driver_features, value as u32),
            Reg::ConfigVector => {
                if let Some(i) = self.interrupt.get() {
                    i.config_vector.store(i.valid(value as u16), Ordering::Release);
                }
            }
            Reg::Status => {
                if core.set_status(value as u8) {
                    self.reset_registers();
                }
            }
            Reg::QueueSelect => self.selectors.lock().queue = value as u16,
            Reg::QueueSize => program(&|q| q.size = value as u16),
            Reg::QueueVector => {
                if let (Some(i), Some(v)) = (self.interrupt.get(), self.queue_vector(s.queue)) {
                    v.store(i.valid(value as u16), Ordering::Release);
                }
            }
            Reg::QueueEnable => {
                if value & 1 != 0 {
                    core.queue(u32::from(s.queue), crate::Queue::enable);
                } else {
                    log_guest_error!(self.log, &self.name, "write of 0 to queue_enable");
                }
            }
            Reg::Desc => program(&|q| half(&mut q.desc)),
            Reg::Driver => program(&|q| half(&mut q.driver)),
            Reg::Device => program(&|q| half(&mut q.device)),
            Reg::DeviceFeature | Reg::NumQueues | Reg::Generation | Reg::QueueNotifyOff => (),
        }
    }
    fn reset_registers(&self) {
        *self.selectors.lock() = Selectors::default();
        if let Some(i) = self.interrupt.get() {
            i.reset();
        }
    }
    fn missed(&self, what: &str, offset: u64) {
        log_guest_error!(self.log, &self.name, "{what} of common configuration offset {offset:#x}");
    }
}

impl MmioDevice for Registers {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        match offset & !(STRUCT_SIZE - 1) {
            COMMON => {
                COMMON_MAP.read(offset, access.size, |hit| Ok(self.read_common(hit)), |at| self.missed("read", at))
            }
            ISR if offset == ISR => Ok(self.interrupt.get().map_or(0, |i| u64::from(i.read_isr()))),
            DEVICE => Ok(self.core.read_config(offset - DEVICE, access.size)),
            _ => Ok(0),
        }
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        match offset & !(STRUCT_SIZE - 1) {
            NOTIFY => self.core.notify(queue_of(offset)),
            COMMON => {
                return COMMON_MAP.write(
                    offset,
                    access.size,
                    value,
                    |hit, value, mask| {
                        self.write_common(hit, value, mask);
                        Ok(())
                    },
                    |at| self.missed("write", at),
                );
            }
            DEVICE => self.core.write_config(offset - DEVICE, access.size, value),
            _ => (),
        }
        Ok(())
    }
    fn doorbells(&self) -> Vec<u64> {
        let step = u64::from(NOTIFY_MULTIPLIER);
        (0..self.core.queues().count()).map(|queue| NOTIFY + u64::from(queue) * step).collect()
    }
    fn ring(&self, offset: u64) -> bool {
        offset >= NOTIFY && self.core.notify_apart(queue_of(offset))
    }
    fn rules(&self) -> AccessRules {
        AccessRules::ANY
    }
    fn name(&self) -> &str {
        &self.name
    }
}

#[derive(Encode, Decode)]
struct State {
    #[n(0)]
    config: PciConfigState,
    #[n(1)]
    core: CoreState,
    #[n(2)]
    selectors: Selectors,
    #[n(3)]
    isr: u8,
    #[n(4)]
    config_vector: u16,
    #[n(5)]
    queue_vectors: Vec<u16>,
}

/// A virtio device as a PCI function.
pub struct VirtioPci {
    name: String,
    config: PciConfig,
    registers: Arc<Registers>,
    interrupt: Arc<Interrupt>,
    /// Offset of the configuration access capability.
    window: usize,
    access: Mutex<()>,
}

/// A capability's body from `cap_len` on (4.1.4).
fn structure(kind: u8, offset: u64, size: u64, extra: &[u8]) -> Vec<u8> {
    let mut body = vec![(16 + extra.len()) as u8, kind, MODERN_BAR as u8, 0, 0, 0];
    body.extend((offset as u32).to_le_bytes());
    body.extend((size as u32).to_le_bytes());
    body.extend(extra);
    body
}

impl VirtioPci {
    /// A function for `slot`, called like `virtio-blk-pci@02.0` in messages; `vectors`: MSI-X vectors, or one for each queue
    /// and one for configuration changes. [`rhea_pci::PciBus::attach`] puts it on the bus.
    #[must_use]
    pub fn new(
        device: Arc<dyn VirtioDevice>,
        slot: &PciSlot,
        ring_features: u64,
        vectors: Option<u16>,
        log: &Log,
    ) -> Arc<Self> {
        let name = format!("{}-pci@{slot}", device.name());
        let (id, class) = (device.id(), device.pci_class());
        let vectors = vectors.unwrap_or_else(|| device.vectors());
        // Without the feature the driver gives guest-physical addresses, whatever stands between (virtio 1.2, 6).
        let dma = match ring_features & features::ACCESS_PLATFORM {
            0 => slot.dma().untranslated(),
            _ => slot.dma().clone(),
        };
        let core = VirtioCore::new(device, dma, ring_features, log.clone());
        let queues = core.queues().count();
        let registers = Arc::new(Registers {
            core,
            interrupt: OnceInterrupt::new(),
            selectors: Mutex::default(),
            name: name.clone(),
            log: log.clone(),
        });
        let identity = Identity {
            vendor: VENDOR,
            device: DEVICE_BASE + id,
            revision: 1,
            class,
            subsystem_vendor: VENDOR,
            subsystem: 0x1100,
        };
        let mut window = 0;
        let window_mask = [0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        let config = ConfigBuilder::new(identity, slot.clone())
            .bar(MODERN_BAR, BarKind::Memory64, MODERN_SIZE, registers.clone())
            .msix(MSIX_BAR, vectors)
            .capability(CAP_VENDOR, &structure(5, 0, 0, &[0; 4]), &window_mask, &mut window)
            .capability(CAP_VENDOR, &structure(2, NOTIFY, STRUCT_SIZE, &NOTIFY_MULTIPLIER.to_le_bytes()), &[], &mut 0)
            .capability(CAP_VENDOR, &structure(4, DEVICE, STRUCT_SIZE, &[]), &[], &mut 0)
            .capability(CAP_VENDOR, &structure(3, ISR, STRUCT_SIZE, &[]), &[], &mut 0)
            .capability(CAP_VENDOR, &structure(1, COMMON, STRUCT_SIZE, &[]), &[], &mut 0)
            .pcie(PcieType::RootComplexIntegratedEndpoint)
            .intx(1)
            .build();
        // The builder was told to make both.
        let intx = config.intx().cloned();
        let msix = config.msix().cloned();
        let (intx, msix) = match (intx, msix) {
            (Some(i), Some(m)) => (i, m),
            _ => unreachable!("built with INTx and MSI-X"),
        };
        let interrupt = Arc::new(Interrupt {
            msix,
            intx,
            isr: AtomicU8::new(0),
            config_vector: AtomicU16::new(NO_VECTOR),
            queue_vectors: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
        });
        let _ = registers.interrupt.set(interrupt.clone());
        registers.core.set_sink(interrupt.clone());
        Arc::new(Self { name, config, registers, interrupt, window, access: Mutex::new(()) })
    }
    #[must_use]
    pub fn core(&self) -> &VirtioCore {
        &self.registers.core
    }
    /// Ring features by property, the usual default.
    pub const RING_FEATURES: u64 = features::INDIRECT_DESC | features::EVENT_IDX;

    /// The access the configuration window describes, if it is one.
    fn window_access(&self) -> Option<(Arc<dyn MmioDevice>, u64, u8)> {
        let read = |at: usize, size| self.config.read((self.window + at) as u16, size);
        let (bar, offset, length) = (read(WINDOW_BAR, 1) as usize, u64::from(read(8, 4)), read(12, 4));
        if !matches!(length, 1 | 2 | 4) || !offset.is_multiple_of(u64::from(length)) {
            return None;
        }
        Some((self.config.bar_handler(bar, offset, u64::from(length))?, offset, length as u8))
    }
    fn touches_window(&self, offset: u16, size: u8) -> bool {
        let (at, data) = (usize::from(offset), self.window + WINDOW_DATA);
        at < data + 4 && data < at + usize::from(size)
    }
}

impl PciFunction for VirtioPci {
    fn config(&self) -> &PciConfig {
        &self.config
    }
    fn config_read(&self, offset: u16, size: u8) -> u32 {
        if self.touches_window(offset, size) {
            let _one = self.access.lock();
            if let Some((handler, at, length)) = self.window_access()
                && let Ok(value) = handler.read(at, Access::host(length))
            {
                self.config.set_bytes(self.window + WINDOW_DATA, &(value as u32).to_le_bytes());
            }
        }
        self.config.read(offset, size)
    }
    fn config_write(&self, offset: u16, size: u8, value: u32) {
        self.config.write(offset, size, value);
        if self.touches_window(offset, size)
            && let Some((handler, at, length)) = self.window_access()
        {
            let data = self.config.read((self.window + WINDOW_DATA) as u16, 4);
            // A refused access has no other effect.
            let _ = handler.write(at, u64::from(data), Access::host(length));
        }
    }
}

impl Device for VirtioPci {
    fn name(&self) -> &str {
        &self.name
    }
    fn reset(&self) {
        self.registers.core.reset();
        self.registers.reset_registers();
        self.config.reset();
    }
    fn save(&self) -> Saved {
        let i = &self.interrupt;
        state::encode(
            1,
            &State {
                config: self.config.save(),
                core: self.registers.core.save(),
                selectors: *self.registers.selectors.lock(),
                isr: i.isr.load(Ordering::SeqCst),
                config_vector: i.config_vector.load(Ordering::Acquire),
                queue_vectors: i.queue_vectors.iter().map(|v| v.load(Ordering::Acquire)).collect(),
            },
        )
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        let State { config, core, selectors, isr, config_vector, queue_vectors } = state::decode(saved, 1)?;
        let i = &self.interrupt;
        if queue_vectors.len() != i.queue_vectors.len() {
            return Err(LoadError::Mismatch(format!("{}: number of queues", self.name)));
        }
        self.config.load(config)?;
        i.isr.store(isr, Ordering::SeqCst);
        i.config_vector.store(config_vector, Ordering::Release);
        for (v, saved) in i.queue_vectors.iter().zip(queue_vectors) {
            v.store(saved, Ordering::Release);
        }
        *self.registers.selectors.lock() = selectors;
        self.registers.core.load(core)
    }
    fn quiesce(&self) {
        self.registers.core.quiesce();
    }
    fn resume(&self) {
        self.registers.core.resume();
    }
}
