//! AHCI host bus adapter (Serial ATA AHCI 1.3.1) as the ICH9 has it: six ports, 32 command slots each, native command queuing.

mod fis;
mod port;
mod run;

use crate::ata::AtaDevice;
use crate::ata::disk::{Disk, DiskOptions};
use crate::atapi::{CdDrive, CdOptions};
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use port::{Port, PortRegisters};
use rhea_block::Drive;
use rhea_device::{Device, DmaHandle, LoadError, Log, Saved, log_guest_error, log_unimp, state};
use rhea_memory::{Access, AccessRules, BusError, MmioDevice};
use rhea_pci::{
    BarKind, ConfigBuilder, Devfn, Identity, IntxPin, Msi, PciConfig, PciConfigState, PciFunction, PciSlot,
};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use thiserror::Error;

/// The place of the ICH9's controller.
pub const DEVFN: Devfn = Devfn::new(31, 2);
/// Ports of the controller.
pub const PORTS: u8 = 6;
pub(crate) const SLOTS: u32 = 32;

const ABAR: usize = 5;
const ABAR_SIZE: u64 = 0x1000;
/// I/O space: the index-data pair is at 10h.
const IO_BAR: usize = 4;
const IO_SIZE: u64 = 32;
const PORT_BASE: u64 = 0x100;
const PORT_SIZE: u64 = 0x80;

/// Generic host control (3.1).
const CAP: u64 = 0x00;
const GHC: u64 = 0x04;
const IS: u64 = 0x08;
const PI: u64 = 0x0c;
const VS: u64 = 0x10;
const CAP2: u64 = 0x24;
const BOHC: u64 = 0x28;

/// 64-bit addresses, native command queuing, command list override, 3 Gb/s, AHCI only, PIO multiple DRQ blocks, 32 slots.
const CAPABILITIES: u32 = 1 << 31 | 1 << 30 | 1 << 24 | 2 << 20 | 1 << 18 | 1 << 15 | (SLOTS - 1) << 8;
const VERSION: u32 = 0x0001_0301;
/// BIOS handoff.
const CAPABILITIES2: u32 = 1;
const GHC_RESET: u32 = 1;
const GHC_INTERRUPTS: u32 = 1 << 1;
const GHC_AHCI: u32 = 1 << 31;

/// BIOS/OS handoff (3.1.11).
const BOHC_BIOS: u32 = 1;
const BOHC_OS: u32 = 1 << 1;
const BOHC_SMI: u32 = 1 << 2;
const BOHC_CHANGE: u32 = 1 << 3;
const BOHC_BUSY: u32 = 1 << 4;

/// Why a device cannot be attached.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AttachError {
    #[error("there is no port {0}: ports are 0 to {last}", last = PORTS - 1)]
    NoPort(u8),
    #[error("port {0} (ide.{0}) is in use")]
    InUse(u8),
}

#[derive(Default)]
struct Wires {
    intx: Option<Arc<IntxPin>>,
    msi: Option<Arc<Msi>>,
}

/// The registers in memory, and everything behind them.
pub(crate) struct Hba {
    pub(crate) name: String,
    pub(crate) dma: DmaHandle,
    pub(crate) log: Log,
    pub(crate) ports: Vec<Port>,
    /// GHC.IE.
    interrupts: AtomicBool,
    is: AtomicU32,
    /// A bit of IS rose: a message is due.
    news: AtomicBool,
    bohc: AtomicU32,
    /// An HBA reset waits for requests that the drives still work on.
    resetting: AtomicBool,
    /// The machine is stopped: no command is begun.
    pub(crate) paused: AtomicBool,
    wires: OnceLock<Wires>,
}

impl Hba {
    /// Tells of port `n`; the caller holds the port's lock and afterwards calls [`Self::signal`].
    pub(crate) fn latch(&self, n: u8) {
        if self.is.fetch_or(1 << n, Ordering::SeqCst) & 1 << n == 0 {
            self.news.store(true, Ordering::SeqCst);
        }
    }
    fn level(&self) -> bool {
        self.interrupts.load(Ordering::SeqCst) && self.is.load(Ordering::SeqCst) != 0
    }
    /// Drives the interrupt as the registers say, and sends a message if there is news. No lock is held.
    pub(crate) fn signal(&self) {
        let news = self.news.swap(false, Ordering::SeqCst);
        let Some(wires) = self.wires.get() else { return };
        if let Some(msi) = wires.msi.as_ref().filter(|m| m.enabled()) {
            if news && self.level() {
                msi.notify(0);
            }
            if let Some(pin) = &wires.intx {
                pin.set(false);
            }
            return;
        }
        if let Some(pin) = &wires.intx {
            loop {
                let level = self.level();
                pin.set(level);
                if level == self.level() {
                    return;
                }
            }
        }
    }

    fn read_generic(&self, offset: u64) -> u32 {
        match offset {
            CAP => CAPABILITIES | u32::from(PORTS - 1),
            GHC => {
                let busy = self.resetting.load(Ordering::SeqCst) && self.ports.iter().any(Port::has_inflight);
                if !busy {
                    self.resetting.store(false, Ordering::SeqCst);
                }
                GHC_AHCI
                    | if self.interrupts.load(Ordering::SeqCst) { GHC_INTERRUPTS } else { 0 }
                    | if busy { GHC_RESET } else { 0 }
            }
            IS => self.is.load(Ordering::SeqCst),
            PI => (1 << PORTS) - 1,
            VS => VERSION,
            CAP2 => CAPABILITIES2,
            BOHC => self.bohc.load(Ordering::SeqCst),
            // No command coalescing, no enclosure management.
            _ => 0,
        }
    }
    fn write_generic(&self, offset: u64, value: u32) {
        match offset {
            GHC => {
                if value & GHC_RESET != 0 {
                    self.reset(false);
                    return;
                }
                let on = value & GHC_INTERRUPTS != 0;
                if !self.interrupts.swap(on, Ordering::SeqCst) && on {
                    self.news.store(true, Ordering::SeqCst);
                }
                self.signal();
            }
            IS => {
                self.is.fetch_and(!value, Ordering::SeqCst);
                // What a port still has to tell is told again.
                for (n, p) in (0..PORTS).zip(&self.ports) {
                    p.relatch(self, n);
                }
                self.signal();
            }
            BOHC => {
                let old = self.bohc.load(Ordering::SeqCst);
                let mut new = value & (BOHC_BIOS | BOHC_OS | BOHC_SMI | BOHC_BUSY) | old & !value & BOHC_CHANGE;
                if value & BOHC_OS != 0 && old & BOHC_OS == 0 && new & BOHC_BIOS != 0 {
                    new |= BOHC_CHANGE;
                    if new & BOHC_SMI != 0 {
                        log_unimp!(self.log, &self.name, "system-management interrupt of the BIOS/OS handoff");
                    }
                }
                self.bohc.store(new, Ordering::SeqCst);
            }
            _ => log_guest_error!(self.log, &self.name, "write to register {offset:#x}"),
        }
    }
    /// HBA reset (10.4.3), or power-on.
    fn reset(&self, power_on: bool) {
        self.interrupts.store(false, Ordering::SeqCst);
        for p in &self.ports {
            p.hba_reset(power_on);
        }
        self.is.store(0, Ordering::SeqCst);
        if power_on {
            self.bohc.store(0, Ordering::SeqCst);
        }
        self.resetting.store(!power_on, Ordering::SeqCst);
        self.signal();
    }
    fn locate(&self, offset: u64) -> Option<(u8, &Port, u64)> {
        let at = offset.checked_sub(PORT_BASE)?;
        let n = at / PORT_SIZE;
        Some((n as u8, self.ports.get(usize::try_from(n).ok()?)?, at % PORT_SIZE))
    }
    fn drain(&self) {
        for p in &self.ports {
            p.drain();
        }
    }
}

/// The ABAR.
struct Abar(Arc<Hba>);

impl MmioDevice for Abar {
    fn read(&self, offset: u64, _access: Access) -> Result<u64, BusError> {
        let hba = &self.0;
        Ok(u64::from(match hba.locate(offset) {
            Some((_, port, at)) => port.read(at),
            None => hba.read_generic(offset),
        }))
    }
    fn write(&self, offset: u64, value: u64, _access: Access) -> Result<(), BusError> {
        let hba = &self.0;
        if let Some((n, port, at)) = hba.locate(offset) {
            if port.write(hba, n, at, value as u32) {
                Hba::run(hba, n);
            }
        } else if offset < PORT_BASE {
            hba.write_generic(offset, value as u32);
        }
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::WORD
    }
    fn name(&self) -> &str {
        "ahci"
    }
}

/// BAR 4: the index-data pair (2.4.2) at 10h.
struct IndexData {
    abar: Abar,
    index: AtomicU32,
}

impl MmioDevice for IndexData {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        let index = self.index.load(Ordering::SeqCst);
        match offset {
            0x10 => Ok(index.into()),
            0x14 => self.abar.read(index.into(), access),
            _ => Ok(0),
        }
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        match offset {
            0x10 => self.index.store(value as u32 & (ABAR_SIZE as u32 - 4), Ordering::SeqCst),
            0x14 => return self.abar.write(self.index.load(Ordering::SeqCst).into(), value, access),
            _ => (),
        }
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::WORD
    }
    fn name(&self) -> &str {
        "ahci index-data"
    }
}

#[derive(Encode, Decode)]
struct State {
    #[n(0)]
    config: PciConfigState,
    #[n(1)]
    interrupts: bool,
    #[n(2)]
    is: u32,
    #[n(3)]
    bohc: u32,
    #[n(4)]
    index: u32,
    #[n(5)]
    ports: Vec<PortRegisters>,
    #[n(6)]
    devices: Vec<Option<Vec<u8>>>,
}

/// What sits in a port, for the monitor.
#[derive(Clone)]
pub enum Attached {
    Disk(Arc<Disk>),
    Cd(Arc<CdDrive>),
}

/// The serial number of a device at a port that was given none.
fn serial(given: String, port: u8) -> String {
    if given.is_empty() { format!("RH{:05}", u32::from(port) + 1) } else { given }
}

/// The controller as a PCI function.
pub struct Ahci {
    config: PciConfig,
    hba: Arc<Hba>,
    pair: Arc<IndexData>,
    attached: Mutex<Vec<Option<Attached>>>,
}

impl Ahci {
    /// A controller for `slot`; [`rhea_pci::PciBus::attach`] puts it on the bus. Devices are attached before the machine runs.
    #[must_use]
    pub fn new(slot: &PciSlot, log: &Log) -> Arc<Self> {
        let hba = Arc::new(Hba {
            name: format!("ich9-ahci@{slot}"),
            dma: slot.dma().clone(),
            log: log.clone(),
            ports: (0..PORTS).map(|_| Port::new()).collect(),
            interrupts: AtomicBool::new(false),
            is: AtomicU32::new(0),
            news: AtomicBool::new(false),
            bohc: AtomicU32::new(0),
            resetting: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            wires: OnceLock::new(),
        });
        let pair = Arc::new(IndexData { abar: Abar(hba.clone()), index: AtomicU32::new(0) });
        let identity = Identity {
            vendor: 0x8086,
            device: 0x2922,
            revision: 2,
            class: 0x01_0601,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
        };
        // The board's own controller is wired to INTB (ICH9 10.1.45).
        let pin = if slot.devfn() == DEVFN { 2 } else { 1 };
        // SATA capability, revision 1.0: the index-data pair is in BAR 4 at 10h (dword 4).
        let sata = [0x10, 0, 0x48, 0, 0, 0];
        let config = ConfigBuilder::new(identity, slot.clone())
            .bar(IO_BAR, BarKind::Io, IO_SIZE, pair.clone())
            .bar(ABAR, BarKind::Memory32, ABAR_SIZE, Arc::new(Abar(hba.clone())))
            .msi(0)
            .capability(0x12, &sata, &[], &mut 0)
            // Address map: AHCI mode. Port control and status: all enabled.
            .register(0x90, &[0x40, 0, 0x3f, 0], &[0xc0, 0, 0x3f, 0x80])
            .intx(pin)
            .build();
        let wires = Wires { intx: config.intx().cloned(), msi: config.msi().cloned() };
        let _ = hba.wires.set(wires);
        Arc::new(Self { config, hba, pair, attached: Mutex::new(vec![None; usize::from(PORTS)]) })
    }

    fn attach(&self, port: u8, device: Arc<dyn AtaDevice>, what: Attached) -> Result<(), AttachError> {
        let mut attached = self.attached.lock();
        let (Some(place), Some(p)) = (attached.get_mut(usize::from(port)), self.hba.ports.get(usize::from(port)))
        else {
            return Err(AttachError::NoPort(port));
        };
        if place.is_some() {
            return Err(AttachError::InUse(port));
        }
        *place = Some(what);
        p.attach(device);
        // Presence detected.
        let present = 1u8 << port;
        let old = self.config.read(0x93, 1) as u8;
        self.config.set_bytes(0x93, &[old | present]);
        Ok(())
    }
    /// Puts an ATA disk into a port (bus `ide.PORT`).
    ///
    /// # Errors
    /// There is no such port, or it is in use.
    pub fn attach_disk(&self, port: u8, drive: Arc<Drive>, options: DiskOptions) -> Result<Arc<Disk>, AttachError> {
        let options = DiskOptions { serial: serial(options.serial, port), ..options };
        let disk = Disk::new(drive, options);
        self.attach(port, disk.clone(), Attached::Disk(disk.clone()))?;
        Ok(disk)
    }
    /// Puts a CD drive into a port, empty or with a medium.
    ///
    /// # Errors
    /// There is no such port, or it is in use.
    pub fn attach_cd(
        &self,
        port: u8,
        medium: Option<Arc<Drive>>,
        options: CdOptions,
    ) -> Result<Arc<CdDrive>, AttachError> {
        let options = CdOptions { serial: serial(options.serial, port), ..options };
        let cd = CdDrive::new(medium, options);
        self.attach(port, cd.clone(), Attached::Cd(cd.clone()))?;
        Ok(cd)
    }
    /// The first port without a device.
    #[must_use]
    pub fn free_port(&self) -> Option<u8> {
        self.attached.lock().iter().position(Option::is_none).map(|n| n as u8)
    }
    /// What sits in the ports, by number.
    #[must_use]
    pub fn attached(&self) -> Vec<Option<Attached>> {
        self.attached.lock().clone()
    }
}

impl PciFunction for Ahci {
    fn config(&self) -> &PciConfig {
        &self.config
    }
    fn config_write(&self, offset: u16, size: u8, value: u32) {
        self.config.write(offset, size, value);
        self.hba.signal();
        if (4..8).contains(&offset) {
            // Commands may have waited for bus mastering.
            for n in 0..PORTS {
                Hba::run(&self.hba, n);
            }
        }
    }
}

impl Device for Ahci {
    fn name(&self) -> &str {
        &self.hba.name
    }
    fn reset(&self) {
        self.hba.paused.store(true, Ordering::SeqCst);
        self.hba.drain();
        self.hba.reset(true);
        self.pair.index.store(0, Ordering::SeqCst);
        let present = self.config.read(0x93, 1) as u8;
        self.config.reset();
        self.config.set_bytes(0x93, &[present]);
        self.hba.paused.store(false, Ordering::SeqCst);
    }
    fn save(&self) -> Saved {
        let hba = &self.hba;
        let was = hba.paused.swap(true, Ordering::SeqCst);
        hba.drain();
        let saved = State {
            config: self.config.save(),
            interrupts: hba.interrupts.load(Ordering::SeqCst),
            is: hba.is.load(Ordering::SeqCst),
            bohc: hba.bohc.load(Ordering::SeqCst),
            index: self.pair.index.load(Ordering::SeqCst),
            ports: hba.ports.iter().map(Port::save).collect(),
            devices: hba.ports.iter().map(|p| p.device().map(|d| d.save())).collect(),
        };
        if !was {
            self.resume();
        }
        state::encode(1, &saved)
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        let State { config, interrupts, is, bohc, index, ports, devices } = state::decode(saved, 1)?;
        let hba = &self.hba;
        if ports.len() != hba.ports.len() || devices.len() != hba.ports.len() {
            return Err(LoadError::Mismatch(format!("{}: number of ports", hba.name)));
        }
        self.config.load(config)?;
        hba.interrupts.store(interrupts, Ordering::SeqCst);
        hba.is.store(is & ((1 << PORTS) - 1), Ordering::SeqCst);
        hba.bohc.store(bohc, Ordering::SeqCst);
        self.pair.index.store(index & (ABAR_SIZE as u32 - 4), Ordering::SeqCst);
        for ((port, registers), device) in hba.ports.iter().zip(ports).zip(devices) {
            port.load(registers);
            match (port.device(), device) {
                (Some(d), Some(state)) => d.load(&state)?,
                (None, None) => (),
                _ => return Err(LoadError::Mismatch(format!("{}: devices at the ports", hba.name))),
            }
        }
        for n in 0..PORTS {
            Hba::run(hba, n);
        }
        Ok(())
    }
    fn quiesce(&self) {
        self.hba.paused.store(true, Ordering::SeqCst);
        self.hba.drain();
    }
    fn resume(&self) {
        self.hba.paused.store(false, Ordering::SeqCst);
        for n in 0..PORTS {
            Hba::run(&self.hba, n);
        }
    }
}
