//! Virtio over MMIO (virtio 1.2, 4.2), version 2.

use crate::core::{CoreState, VirtioCore};
use crate::queue::QueueState;
use crate::queues::InterruptSink;
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_accel::IrqLine;
use rhea_device::{Device, LoadError, Log, Saved, log_guest_error, state};
use rhea_memory::{Access, AccessRules, BusError, MmioDevice};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

/// Bytes of a transport's window.
pub const SIZE: u64 = 0x200;
const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
/// "RHEA".
const VENDOR: u32 = 0x4145_4852;
const CONFIG: u64 = 0x100;

const ISR_QUEUE: u32 = 1;
const ISR_CONFIG: u32 = 2;

/// Registers by offset.
mod reg {
    pub const MAGIC: u64 = 0x000;
    pub const VERSION: u64 = 0x004;
    pub const DEVICE_ID: u64 = 0x008;
    pub const VENDOR_ID: u64 = 0x00c;
    pub const DEVICE_FEATURES: u64 = 0x010;
    pub const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub const DRIVER_FEATURES: u64 = 0x020;
    pub const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub const QUEUE_SEL: u64 = 0x030;
    pub const QUEUE_NUM_MAX: u64 = 0x034;
    pub const QUEUE_NUM: u64 = 0x038;
    pub const QUEUE_READY: u64 = 0x044;
    pub const QUEUE_NOTIFY: u64 = 0x050;
    pub const INTERRUPT_STATUS: u64 = 0x060;
    pub const INTERRUPT_ACK: u64 = 0x064;
    pub const STATUS: u64 = 0x070;
    pub const QUEUE_DESC_LOW: u64 = 0x080;
    pub const QUEUE_DESC_HIGH: u64 = 0x084;
    pub const QUEUE_DRIVER_LOW: u64 = 0x090;
    pub const QUEUE_DRIVER_HIGH: u64 = 0x094;
    pub const QUEUE_DEVICE_LOW: u64 = 0x0a0;
    pub const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
    pub const SHM_SEL: u64 = 0x0ac;
    pub const SHM_LEN_LOW: u64 = 0x0b0;
    pub const SHM_BASE_HIGH: u64 = 0x0bc;
    pub const CONFIG_GENERATION: u64 = 0x0fc;
}

struct Interrupt {
    isr: AtomicU32,
    line: IrqLine,
}

impl Interrupt {
    fn update(&self) {
        // Whoever comes last sees the final bits, so the line ends up right whatever the order of racing calls.
        loop {
            let level = self.isr.load(Ordering::SeqCst) != 0;
            self.line.set(level);
            if level == (self.isr.load(Ordering::SeqCst) != 0) {
                return;
            }
        }
    }
    fn raise(&self, bits: u32) {
        self.isr.fetch_or(bits, Ordering::SeqCst);
        self.update();
    }
    fn acknowledge(&self, bits: u32) {
        self.isr.fetch_and(!bits, Ordering::SeqCst);
        self.update();
    }
}

impl InterruptSink for Interrupt {
    fn queue(&self, _index: u16) {
        self.raise(ISR_QUEUE);
    }
    fn config(&self) {
        self.raise(ISR_CONFIG);
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
struct Selectors {
    #[n(0)]
    device_features: u32,
    #[n(1)]
    driver_features: u32,
    #[n(2)]
    queue: u32,
}

#[derive(Encode, Decode)]
struct State {
    #[n(0)]
    selectors: Selectors,
    #[n(1)]
    isr: u32,
    #[n(2)]
    core: Option<CoreState>,
}

/// One transport window: [`SIZE`] bytes and a level interrupt. Without a device it says so (DeviceID 0).
pub struct VirtioMmio {
    name: String,
    core: OnceLock<VirtioCore>,
    interrupt: Arc<Interrupt>,
    selectors: Mutex<Selectors>,
    log: Log,
}

impl VirtioMmio {
    /// Bytes of the window.
    pub const SIZE: u64 = SIZE;

    /// An empty transport, called `name` in messages and saved state (`virtio-mmio@a000000`).
    #[must_use]
    pub fn new(name: &str, line: IrqLine, log: Log) -> Arc<Self> {
        let interrupt = Arc::new(Interrupt { isr: AtomicU32::new(0), line });
        Arc::new(Self { name: name.to_owned(), core: OnceLock::new(), interrupt, selectors: Mutex::default(), log })
    }
    /// Puts a device behind the transport; false if there is one.
    pub fn plug(&self, core: VirtioCore) -> bool {
        core.set_sink(self.interrupt.clone());
        self.core.set(core).is_ok()
    }
    #[must_use]
    pub fn core(&self) -> Option<&VirtioCore> {
        self.core.get()
    }

    fn read_register(&self, core: &VirtioCore, offset: u64) -> u32 {
        let s = *self.selectors.lock();
        let queue = |f: fn(&QueueState) -> u32| core.queue(s.queue, |q| f(q.state())).unwrap_or(0);
        match offset {
            reg::DEVICE_ID => u32::from(core.device().id()),
            reg::DEVICE_FEATURES => core.device_features(s.device_features),
            reg::QUEUE_NUM_MAX => core.queue(s.queue, |q| u32::from(q.max_size())).unwrap_or(0),
            reg::QUEUE_READY => queue(|q| u32::from(q.ready)),
            reg::INTERRUPT_STATUS => self.interrupt.isr.load(Ordering::SeqCst),
            reg::STATUS => u32::from(core.status()),
            // No shared memory regions.
            reg::SHM_LEN_LOW..=reg::SHM_BASE_HIGH => u32::MAX,
            reg::CONFIG_GENERATION => u32::from(core.config_generation()),
            _ => {
                log_guest_error!(self.log, &self.name, "read of register {offset:#x}");
                0
            }
        }
    }

    fn write_register(&self, core: &VirtioCore, offset: u64, value: u32) {
        let s = *self.selectors.lock();
        let program = |f: &dyn Fn(&mut QueueState)| {
            core.queue(s.queue, |q| q.program(f));
        };
        let low = |field: &mut u64| *field = *field & !0xffff_ffff | u64::from(value);
        let high = |field: &mut u64| *field = *field & 0xffff_ffff | u64::from(value) << 32;
        match offset {
            reg::QUEUE_NOTIFY => core.notify(value as u16),
            reg::INTERRUPT_ACK => self.interrupt.acknowledge(value),
            reg::DEVICE_FEATURES_SEL => self.selectors.lock().device_features = value,
            reg::DRIVER_FEATURES_SEL => self.selectors.lock().driver_features = value,
            reg::DRIVER_FEATURES => core.set_driver_features(s.driver_features, value),
            reg::QUEUE_SEL => self.selectors.lock().queue = value,
            reg::QUEUE_NUM => program(&|q| q.size = u16::try_from(value).unwrap_or(0)),
            reg::QUEUE_READY => {
                core.queue(s.queue, |q| if value & 1 != 0 { q.enable() } else { q.disable() });
            }
            reg::STATUS => {
                if core.set_status(value as u8) {
                    *self.selectors.lock() = Selectors::default();
                    self.interrupt.acknowledge(u32::MAX);
                }
            }
            reg::QUEUE_DESC_LOW => program(&|q| low(&mut q.desc)),
            reg::QUEUE_DESC_HIGH => program(&|q| high(&mut q.desc)),
            reg::QUEUE_DRIVER_LOW => program(&|q| low(&mut q.driver)),
            reg::QUEUE_DRIVER_HIGH => program(&|q| high(&mut q.driver)),
            reg::QUEUE_DEVICE_LOW => program(&|q| low(&mut q.device)),
            reg::QUEUE_DEVICE_HIGH => program(&|q| high(&mut q.device)),
            reg::SHM_SEL => (),
            _ => log_guest_error!(self.log, &self.name, "write to register {offset:#x}"),
        }
    }
}

impl MmioDevice for VirtioMmio {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        // These answer without a device, too.
        match (offset, access.size) {
            (reg::MAGIC, 4) => return Ok(u64::from(MAGIC)),
            (reg::VERSION, 4) => return Ok(u64::from(VERSION)),
            (reg::VENDOR_ID, 4) => return Ok(u64::from(VENDOR)),
            _ => (),
        }
        let Some(core) = self.core.get() else { return Ok(0) };
        if offset >= CONFIG {
            return Ok(core.read_config(offset - CONFIG, access.size));
        }
        if access.size != 4 {
            log_guest_error!(self.log, &self.name, "{}-byte read of a register", access.size);
            return Ok(0);
        }
        Ok(u64::from(self.read_register(core, offset)))
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        let Some(core) = self.core.get() else { return Ok(()) };
        if offset >= CONFIG {
            core.write_config(offset - CONFIG, access.size, value);
        } else if access.size != 4 {
            log_guest_error!(self.log, &self.name, "{}-byte write to a register", access.size);
        } else {
            self.write_register(core, offset, value as u32);
        }
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::ANY
    }
    fn name(&self) -> &str {
        &self.name
    }
}

impl Device for VirtioMmio {
    fn name(&self) -> &str {
        &self.name
    }
    fn reset(&self) {
        if let Some(core) = self.core.get() {
            core.reset();
        }
        *self.selectors.lock() = Selectors::default();
        self.interrupt.acknowledge(u32::MAX);
    }
    fn save(&self) -> Saved {
        let selectors = *self.selectors.lock();
        state::encode(
            1,
            &State {
                selectors,
                isr: self.interrupt.isr.load(Ordering::SeqCst),
                core: self.core.get().map(VirtioCore::save),
            },
        )
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        let State { selectors, isr, core } = state::decode(saved, 1)?;
        match (self.core.get(), core) {
            (Some(c), Some(s)) => c.load(s)?,
            (None, None) => (),
            _ => return Err(LoadError::Mismatch(format!("device behind {}", self.name))),
        }
        *self.selectors.lock() = selectors;
        self.interrupt.isr.store(isr, Ordering::SeqCst);
        self.interrupt.line.import(isr != 0);
        Ok(())
    }
    fn quiesce(&self) {
        if let Some(core) = self.core.get() {
            core.quiesce();
        }
    }
    fn resume(&self) {
        if let Some(core) = self.core.get() {
            core.resume();
        }
    }
}
