//! The LPC bridge of the ICH9: device 31, function 0. Routes PCI interrupts, switches power, asks for system-management interrupts.

pub mod pirq;
pub mod pm;
mod root_complex;
mod tco;

use crate::{INTEL, SUBSYSTEM, SUBSYSTEM_VENDOR};
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use pirq::{Pirq, PirqState};
use pm::{Pm, PmState};
use rhea_accel::{InterruptRouting, IrqLine, VmControl};
use rhea_clock::VirtualClock;
use rhea_device::{Device, LoadError, Log, Saved, state};
use rhea_memory::{Access, AccessRules, AddressSpace, BusError, Gpa, Mapping, MmioDevice};
use rhea_pci::{ConfigBuilder, Devfn, Identity, PciBus, PciConfig, PciConfigState, PciFunction};
use root_complex::RootComplex;
use std::sync::Arc;

/// PM base address and ACPI control (13.1.13, 13.1.14).
const PMBASE: u16 = 0x40;
const ACPI_CNTL: u16 = 0x44;
const ACPI_ENABLE: u8 = 1 << 7;
/// PIRQA–D and E–H routing control (13.1.17, 13.1.19).
const PIRQA_ROUT: u16 = 0x60;
const PIRQE_ROUT: u16 = 0x68;
/// Not routed to an ISA interrupt.
const PIRQ_OFF: u8 = 0x80;
const GEN_PMCON_1: u16 = 0xa0;
const SMI_LOCK: u8 = 1 << 4;
/// BIOS control (13.1.33).
const BIOS_CNTL: u16 = 0xdc;
const BIOS_WRITE: u8 = 1;
const BIOS_LOCK: u8 = 1 << 1;
const SMM_BIOS_WRITE: u8 = 1 << 5;
/// Root complex base address (13.1.35).
const RCBA: u16 = 0xf0;

/// The place of the bridge.
pub const DEVFN: Devfn = Devfn::new(31, 0);
/// Where firmware puts PMBASE, and where it is when machines start without firmware.
pub const PM_BASE: u16 = 0x600;
/// Where firmware puts the root complex registers.
pub const ROOT_COMPLEX_BASE: u32 = 0xfed1_c000;
/// APM control and status (13.7.1, 13.7.2), for the FADT.
pub const APM_CONTROL_PORT: u16 = 0xb2;
/// What software writes to [`APM_CONTROL_PORT`] to switch ACPI mode on and off.
pub const APM_ACPI_ENABLE: u8 = 2;
pub const APM_ACPI_DISABLE: u8 = 3;

/// Asks for a system-management interrupt: of this processor, or of all.
pub type Smi = Arc<dyn Fn(Option<u32>) + Send + Sync>;

/// What the bridge is connected to.
pub struct LpcWiring {
    pub bus: Arc<PciBus>,
    pub system: Arc<AddressSpace>,
    pub io: Arc<AddressSpace>,
    pub clock: Arc<VirtualClock>,
    pub control: VmControl,
    /// Global system interrupts are its lines 0–23; PCI pins are [`pirq::PIN_LINES`] and up.
    pub routing: Arc<InterruptRouting>,
    /// Inputs of the 8259s that PIRQs are routed to, by ISA interrupt; apart from the lines of ISA devices.
    pub pic: Vec<IrqLine>,
    /// `None`: there is no system-management mode; firmware finds it already set up.
    pub smi: Option<Smi>,
    pub log: Log,
}

/// The LPC bridge.
pub struct Lpc {
    config: PciConfig,
    system: Arc<AddressSpace>,
    io: Arc<AddressSpace>,
    pirq: Arc<Pirq>,
    pm: Arc<Pm>,
    root: Arc<RootComplex>,
    apm: Mapping,
    windows: Mutex<Windows>,
}

#[derive(Default)]
struct Windows {
    pm: Option<(u64, Mapping)>,
    root: Option<(u64, Mapping)>,
}

#[derive(Encode, Decode)]
struct State {
    #[n(0)]
    config: PciConfigState,
    #[n(1)]
    pm: PmState,
    #[n(2)]
    root: Vec<u8>,
    #[n(3)]
    pirq: PirqState,
}

impl Lpc {
    /// The bridge; attach it to the bus.
    ///
    /// # Errors
    /// The APM ports cannot be mapped.
    pub fn new(wiring: LpcWiring) -> Result<Arc<Self>, rhea_memory::MapError> {
        let LpcWiring { bus, system, io, clock, control, routing, pic, smi, log } = wiring;
        let identity = Identity {
            vendor: INTEL,
            device: 0x2918,
            revision: 2,
            class: 0x06_0100,
            subsystem_vendor: SUBSYSTEM_VENDOR,
            subsystem: SUBSYSTEM,
        };
        let routes = [PIRQ_OFF; 4];
        let config = ConfigBuilder::new(identity, bus.slot(DEVFN))
            .register(PMBASE.into(), &[1, 0, 0, 0], &[0x80, 0xff, 0, 0])
            .register(ACPI_CNTL.into(), &[0], &[ACPI_ENABLE | 7])
            // GPIO base and control: there are no pins behind it.
            .register(0x48, &[1, 0, 0, 0, 0], &[0x80, 0xff, 0, 0, 0x10])
            .register(PIRQA_ROUT.into(), &routes, &[0x8f; 4])
            .register(0x64, &[0x10], &[0xff])
            .register(PIRQE_ROUT.into(), &routes, &[0x8f; 4])
            // I/O decode ranges and enables: all of the ISA space is decoded anyway.
            .register(0x80, &[0; 0x14], &[0xff; 0x14])
            .register(GEN_PMCON_1.into(), &[0; 6], &[0x9f, 0x0f, 0x07, 0, 0xff, 0])
            .register(0xac, &[0; 4], &[0xff; 4])
            .register(0xb8, &[0; 4], &[0xff; 4])
            // Firmware hub select and decode enable.
            .register(0xd0, &[0x33, 0x22, 0x11, 0, 0x67, 0x45, 0, 0, 0xcf, 0xff], &[0xff; 10])
            .register(BIOS_CNTL.into(), &[0], &[BIOS_WRITE | BIOS_LOCK | 0xc | SMM_BIOS_WRITE])
            .register(RCBA.into(), &[0; 4], &[1, 0xc0, 0xff, 0xff])
            .build();
        let pm = Pm::new(&clock, &routing, control, smi, log.clone());
        let pirq = Pirq::new(routing, pic);
        let apm = io.map_mmio(Gpa(APM_CONTROL_PORT.into()), 2, Arc::new(Apm(pm.clone())), 0)?;
        let root = RootComplex::new(log);
        let lpc = Arc::new(Self { config, system, io, pirq, pm, root, apm, windows: Mutex::default() });
        lpc.apply();
        Ok(lpc)
    }
    /// Presses the power button.
    pub fn power_button(&self) {
        self.pm.power_button();
    }
    /// The power-management block, for the GPE inputs of devices and for `info`.
    #[must_use]
    pub fn pm(&self) -> &Arc<Pm> {
        &self.pm
    }
    #[must_use]
    pub fn pirq(&self) -> &Arc<Pirq> {
        &self.pirq
    }
    /// Base port of the power-management block as programmed, or where firmware puts it.
    #[must_use]
    pub fn pm_base(&self) -> u16 {
        match self.config.read(PMBASE, 4) as u16 & 0xff80 {
            0 => PM_BASE,
            base => base,
        }
    }
    /// What firmware would set up: power management, root complex registers, PIRQs to ISA interrupts 10 and 11.
    pub fn set_up(&self) {
        self.config_write(PMBASE, 4, u32::from(PM_BASE) | 1);
        self.config_write(ACPI_CNTL, 1, ACPI_ENABLE.into());
        for register in [PIRQA_ROUT, PIRQE_ROUT] {
            self.config_write(register, 4, 0x0b0b_0a0a);
        }
        self.config_write(RCBA, 4, ROOT_COMPLEX_BASE | 1);
        self.pm.enable_acpi(true);
    }

    fn byte(&self, at: u16) -> u8 {
        self.config.read(at, 1) as u8
    }
    /// Makes everything as the registers say.
    fn apply(&self) {
        let mut windows = self.windows.lock();
        let (base, control) = (u64::from(self.config.read(PMBASE, 4) & 0xff80), self.byte(ACPI_CNTL));
        let wanted = (control & ACPI_ENABLE != 0).then_some(base);
        if windows.pm.as_ref().map(|w| w.0) != wanted {
            windows.pm = wanted.and_then(|at| {
                let mapping = self.io.map_mmio(Gpa(at), pm::LENGTH, self.pm.clone(), 1).ok()?;
                Some((at, mapping))
            });
        }
        let base = self.config.read(RCBA, 4);
        let wanted = (base & 1 != 0).then_some(u64::from(base & 0xffff_c000));
        if windows.root.as_ref().map(|w| w.0) != wanted {
            windows.root = wanted.and_then(|at| {
                let device = Arc::new(root_complex::Window {
                    root: self.root.clone(),
                    pirq: self.pirq.clone(),
                    pm: self.pm.clone(),
                });
                Some((at, self.system.map_mmio(Gpa(at), root_complex::LENGTH, device, 1).ok()?))
            });
        }
        drop(windows);
        self.pm.select_sci(match control & 7 {
            1 => 10,
            2 => 11,
            // 20 and 21 are PIRQs' only.
            _ => 9,
        });
        self.pm.lock_smi(self.byte(GEN_PMCON_1) & SMI_LOCK != 0);
        let mut routes = [None; 8];
        for (n, route) in routes.iter_mut().enumerate() {
            let register = if n < 4 { PIRQA_ROUT + n as u16 } else { PIRQE_ROUT + n as u16 - 4 };
            let value = self.byte(register);
            *route = (value & PIRQ_OFF == 0).then_some(value & 15);
        }
        self.pirq.set_pic_routes(routes);
        self.root.apply(&self.pirq, &self.pm);
    }
    fn filtered(&self, at: u16, value: u8) -> u8 {
        match at {
            GEN_PMCON_1 => value | self.byte(at) & SMI_LOCK,
            BIOS_CNTL => value | self.byte(at) & (BIOS_LOCK | SMM_BIOS_WRITE),
            _ => value,
        }
    }
}

impl Device for Lpc {
    fn name(&self) -> &str {
        "lpc"
    }
    fn reset(&self) {
        self.config.reset();
        self.root.reset();
        self.pm.reset();
        self.apm.set_enabled(true);
        self.apply();
    }
    /// What is decoded where and how interrupts are routed stays; firmware does not set it up again.
    fn wake(&self) {
        let routes = PIRQA_ROUT..PIRQE_ROUT + 4;
        self.config.reset_but(&[PMBASE..ACPI_CNTL + 1, routes, 0x80..0x94, RCBA..RCBA + 4]);
        self.pm.wake();
        self.apm.set_enabled(true);
        self.apply();
    }
    fn save(&self) -> Saved {
        let Self { config, pirq, pm, root, system: _, io: _, apm: _, windows: _ } = self;
        state::encode(1, &State { config: config.save(), pm: pm.save(), root: root.save(), pirq: pirq.save() })
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        let State { config, pm, root, pirq } = state::decode(saved, 1)?;
        self.config.load(config)?;
        self.root.load(&root)?;
        self.apply();
        self.pirq.load(pirq);
        self.pm.load(pm);
        Ok(())
    }
}

impl PciFunction for Lpc {
    fn config(&self) -> &PciConfig {
        &self.config
    }
    fn config_write(&self, offset: u16, size: u8, value: u32) {
        let mut bytes = value.to_le_bytes();
        let mut bios_write = false;
        for (n, byte) in bytes.iter_mut().enumerate().take(size.into()) {
            let at = offset.saturating_add(n as u16);
            *byte = self.filtered(at, *byte);
            bios_write |= at == BIOS_CNTL && *byte & !self.byte(at) & BIOS_WRITE != 0 && *byte & BIOS_LOCK != 0;
        }
        self.config.write(offset, size, u32::from_le_bytes(bytes));
        self.apply();
        if bios_write {
            // Flash made writable while locked: system management is to decide.
            self.pm.smi(pm::smi_status::BIOS_WRITE, None);
        }
    }
}

/// The APM ports.
struct Apm(Arc<Pm>);

impl MmioDevice for Apm {
    fn read(&self, offset: u64, _access: Access) -> Result<u64, BusError> {
        Ok(self.0.apm(offset & 1 != 0).into())
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        self.0.set_apm(offset & 1 != 0, value as u8, access.cpu_index());
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::implemented(1, 1)
    }
    fn name(&self) -> &str {
        "apm"
    }
}

#[cfg(test)]
mod tests;
