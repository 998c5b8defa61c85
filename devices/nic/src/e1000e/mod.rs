//! Intel 82574L gigabit Ethernet controller (datasheet 317694): registers, interrupts, the PCI function.
//!
//! Frames are taken from and written to guest memory under the state's lock, which memory of devices is refused for; messages,
//! interrupt lines and the back end are called without it. Interrupts are not delayed: the throttling registers are storage.
//! Receive side scaling is off and reads so, and the time stamp unit reads as zero.

mod nvm;
mod phy;
mod reg;
mod rx;
mod state;
mod tx;

use parking_lot::Mutex;
use phy::Phy;
use rhea_device::{Device, DmaHandle, LoadError, Log, Saved, log_unimp};
use rhea_memory::{Access, AccessRules, BusError, MmioDevice};
use rhea_net::{NetBackend, NetFrontend, Offload, Offloads};
use rhea_pci::{BarKind, ConfigBuilder, Identity, IntxPin, Msi, Msix, PciConfig, PciFunction, PciSlot, PcieType};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use tx::TxQueue;

const DEVICE: u16 = 0x10d3;
const REGISTER_BAR: usize = 0;
const FLASH_BAR: usize = 1;
const IO_BAR: usize = 2;
const MSIX_BAR: usize = 3;
const BAR_SIZE: u64 = 0x2_0000;
const FLASH_SIZE: u64 = 0x2_0000;
const VECTORS: u16 = 5;
const QUEUES: usize = 2;

/// Everything that is written down when the machine is saved.
pub(crate) struct State {
    registers: Vec<u32>,
    phy: Phy,
    nvm: Vec<u16>,
    tx: [TxQueue; QUEUES],
    /// The back end holds a frame for which there was no descriptor.
    starved: bool,
    paused: bool,
}

/// What is due after a register access, when the state's lock is free again.
#[derive(Clone, Copy, Default)]
struct Due {
    causes: u32,
    transmit: Option<usize>,
    receive: bool,
}

impl State {
    fn new(nvm: Vec<u16>) -> Self {
        let mut s = Self {
            registers: vec![0; (reg::SPACE / 4) as usize],
            phy: Phy::default(),
            nvm,
            tx: Default::default(),
            starved: false,
            paused: false,
        };
        s.reset();
        s
    }
    fn get(&self, offset: u64) -> u32 {
        self.registers.get((offset / 4) as usize).copied().unwrap_or(0)
    }
    fn set(&mut self, offset: u64, value: u32) {
        if let Some(r) = self.registers.get_mut((offset / 4) as usize) {
            *r = value;
        }
    }
    fn get64(&self, low: u64) -> u64 {
        u64::from(self.get(low + 4)) << 32 | u64::from(self.get(low))
    }
    /// Reset of the MAC (CTRL.RST): registers, and the address from the NVM.
    fn reset(&mut self) {
        self.registers.fill(0);
        self.tx = Default::default();
        self.set(reg::CTRL, reg::CTRL_INITIAL);
        self.set(reg::VET, 0x8100);
        self.set(reg::PBA, 0x0014_0014);
        self.set(reg::TIPG, 0x0060_2008);
        self.set(reg::TCTL, reg::TCTL_PAD);
        self.set(reg::RXCSUM, reg::RXCSUM_IP | reg::RXCSUM_L4);
        self.load_address();
    }
    fn load_address(&mut self) {
        let [a, b, c, d, e, f] = nvm::mac(&self.nvm);
        self.set(reg::RAL, u32::from_le_bytes([a, b, c, d]));
        self.set(reg::RAH, u32::from_le_bytes([e, f, 0, 0]) | reg::RAH_VALID);
    }
    /// Adds to a counter, which stays at its end.
    fn count(&mut self, counter: u64, n: u32) {
        self.set(counter, self.get(counter).saturating_add(n));
    }
    fn count64(&mut self, counter: u64, n: usize) {
        let sum = self.get64(counter).saturating_add(n as u64);
        self.set(counter, sum as u32);
        self.set(counter + 4, (sum >> 32) as u32);
    }
    /// The counter of a frame's size (with check sequence), of those that begin at `first`.
    fn count_size(&mut self, first: u64, len: usize) {
        let class = match len {
            0..=64 => 0,
            65..=127 => 1,
            128..=255 => 2,
            256..=511 => 3,
            512..=1023 => 4,
            _ => 5,
        };
        self.count(first + class * 4, 1);
    }

    /// Sets causes; returns those that interrupt.
    fn raise(&mut self, causes: u32) -> u32 {
        let other = if causes & reg::INT_OTHERS != 0 { reg::INT_OTHER } else { 0 };
        let causes = (causes | other) & reg::INT_ALL;
        self.set(reg::ICR, self.get(reg::ICR) | causes);
        causes & self.get(reg::IMS)
    }
    fn asserted(&self) -> bool {
        self.get(reg::ICR) & self.get(reg::IMS) != 0
    }
    /// The automatic masking of accesses to ICR.
    fn mask_automatically(&mut self) {
        if self.get(reg::CTRL_EXT) & reg::CTRL_EXT_IAME != 0 {
            self.set(reg::IMS, self.get(reg::IMS) & !self.get(reg::IAM));
        }
    }

    fn read(&mut self, offset: u64) -> u32 {
        match offset {
            reg::CTRL_COPY => self.get(reg::CTRL),
            reg::STATUS => {
                let master = self.get(reg::CTRL) & reg::CTRL_GIO_MASTER_DISABLE == 0;
                let link = if self.phy.up { reg::STATUS_LINK } else { reg::STATUS_LINK & !reg::STATUS_LU };
                self.get(reg::STATUS) | link | if master { reg::STATUS_GIO_MASTER } else { 0 }
            }
            reg::EECD => {
                let v = self.get(reg::EECD);
                v | reg::EECD_FIXED | if v & reg::EECD_REQUEST != 0 { reg::EECD_GRANT } else { 0 }
            }
            reg::EEMNGCTL => reg::EEMNGCTL_DONE,
            reg::ICR => {
                let asserted = self.asserted();
                let value = self.get(reg::ICR) | if asserted { reg::INT_ASSERTED } else { 0 };
                if asserted {
                    self.mask_automatically();
                }
                if asserted || self.get(reg::IMS) == 0 {
                    self.set(reg::ICR, 0);
                }
                value
            }
            reg::SWSM => {
                let v = self.get(reg::SWSM);
                self.set(reg::SWSM, v | reg::SWSM_SMBI);
                v
            }
            o if reg::STATISTICS.contains(&o) => {
                let v = self.get(o);
                // The pairs of octet counters are cleared by their high halves.
                match o & !7 {
                    reg::GORC | reg::GOTC | reg::TOR | reg::TOT if o & 4 == 0 => (),
                    reg::GORC | reg::GOTC | reg::TOR | reg::TOT => {
                        self.set(o, 0);
                        self.set(o & !7, 0);
                    }
                    _ => self.set(o, 0),
                }
                v
            }
            reg::ICS | reg::IMC => 0,
            o => self.get(o),
        }
    }

    /// Writes a register; `None`: there is no such register.
    fn write(&mut self, offset: u64, value: u32) -> Option<Due> {
        let mut due = Due::default();
        match offset {
            reg::CTRL | reg::CTRL_COPY => {
                if value & reg::CTRL_PHY_RESET != 0 {
                    self.phy.reset();
                    self.set(reg::STATUS, reg::STATUS_PHY_RESET);
                    due.causes |= reg::INT_LSC;
                }
                if value & reg::CTRL_RESET != 0 {
                    self.reset();
                    due = Due { receive: std::mem::take(&mut self.starved), ..Due::default() };
                } else {
                    self.set(reg::CTRL, value & !(reg::CTRL_RESET | reg::CTRL_PHY_RESET));
                }
            }
            // The PHY reset's flag is cleared by a zero.
            reg::STATUS => self.set(offset, self.get(offset) & value & reg::STATUS_PHY_RESET),
            reg::EECD => self.set(offset, value & reg::EECD_WRITABLE),
            reg::EERD if value & reg::EERD_START != 0 => {
                let word = self.nvm.get((value >> 2 & 0x3fff) as usize).copied().unwrap_or(0xffff);
                self.set(offset, u32::from(word) << 16 | value & 0xfffc | reg::EERD_DONE);
            }
            reg::EEWR if value & reg::EERD_START != 0 => {
                if let Some(word) = self.nvm.get_mut((value >> 2 & 0x3fff) as usize) {
                    *word = (value >> 16) as u16;
                }
                self.set(offset, value & !3 | reg::EERD_DONE);
            }
            reg::EERD | reg::EEWR => self.set(offset, value & !3 | self.get(offset) & reg::EERD_DONE),
            reg::CTRL_EXT => {
                if value & reg::CTRL_EXT_EE_RESET != 0 {
                    self.load_address();
                }
                self.set(offset, value & !(reg::CTRL_EXT_EE_RESET | reg::CTRL_EXT_PBA_CLEAR));
            }
            reg::MDIC => due.causes |= self.mdio(value),
            reg::ICR => {
                self.set(offset, self.get(offset) & !value);
                self.mask_automatically();
            }
            reg::ICS => due.causes |= value,
            reg::IMS => {
                self.set(offset, self.get(offset) | value & reg::INT_ALL);
                // What waited for its mask interrupts now.
                due.causes |= self.get(reg::ICR) & value;
            }
            reg::IMC => self.set(reg::IMS, self.get(reg::IMS) & !value),
            reg::RCTL => {
                self.set(offset, value & 0x7fff_ffff);
                due.receive = std::mem::take(&mut self.starved);
            }
            reg::TCTL => {
                self.set(offset, value);
                due.transmit = (value & reg::TCTL_ENABLE != 0).then_some(QUEUES);
            }
            reg::SWSM => self.set(offset, value & 0xf),
            o if o < reg::TDBAL + 2 * reg::QUEUE && reg::ring_writable(o & !reg::QUEUE).is_some() => {
                let first = o & !reg::QUEUE;
                self.set(o, value & reg::ring_writable(first).unwrap_or(0));
                let queue = usize::from(o != first);
                match first {
                    reg::RDT => due.receive = std::mem::take(&mut self.starved),
                    reg::TDT => due.transmit = Some(queue),
                    _ => (),
                }
            }
            o => self.set(o, value & reg::writable(o)?),
        }
        Some(due)
    }

    /// MDI control; returns causes.
    fn mdio(&mut self, value: u32) -> u32 {
        const READY: u32 = 1 << 28;
        const INTERRUPT: u32 = 1 << 29;
        const ERROR: u32 = 1 << 30;
        let (n, address, op) = (value >> 16 & 31, value >> 21 & 31, value >> 26 & 3);
        let mut result = value & !(READY | ERROR) | READY;
        let mut causes = if value & INTERRUPT != 0 { reg::INT_MDAC } else { 0 };
        match op {
            1 if address == 1 => {
                if self.phy.write(n, value as u16) {
                    causes |= reg::INT_LSC;
                }
            }
            2 if address == 1 => result = result & !0xffff | u32::from(self.phy.read(n)),
            _ => result |= ERROR,
        }
        self.set(reg::MDIC, result);
        causes
    }
}

/// Everything behind the registers.
pub(crate) struct Controller {
    name: String,
    dma: DmaHandle,
    log: Log,
    backend: Arc<dyn NetBackend>,
    state: Mutex<State>,
    /// Held while frames are collected and sent, so that they stay in order.
    sending: Mutex<()>,
    /// The register that the I/O window's data is of.
    io_address: AtomicU64,
    msix: OnceLock<Arc<Msix>>,
    msi: OnceLock<Arc<Msi>>,
    intx: OnceLock<Arc<IntxPin>>,
}

impl Controller {
    fn msix(&self) -> Option<&Arc<Msix>> {
        self.msix.get().filter(|m| m.enabled())
    }
    fn msi(&self) -> Option<&Arc<Msi>> {
        self.msi.get().filter(|m| m.enabled())
    }
    /// The vectors that causes interrupt by, a bit each; clears and masks what messages clear and mask.
    fn vectors(&self, s: &mut State, causes: u32) -> u32 {
        let causes = s.raise(causes);
        if self.msix().is_none() {
            return u32::from(causes != 0);
        }
        let mut vectors = 0;
        for i in 0..u32::from(VECTORS) {
            let (bit, entry) = (reg::INT_RXQ0 << i, s.get(reg::IVAR) >> (4 * i) & 15);
            if causes & bit != 0 && entry & 8 != 0 {
                vectors |= 1 << (entry & 7);
                s.set(reg::ICR, s.get(reg::ICR) & !(s.get(reg::EIAC) & bit));
                if s.get(reg::CTRL_EXT) & reg::CTRL_EXT_EIAME != 0 {
                    s.set(reg::IMS, s.get(reg::IMS) & !(s.get(reg::IAM) & bit));
                }
            }
        }
        vectors
    }
    /// Sends what [`Self::vectors`] found, and moves the line.
    fn interrupt(&self, vectors: u32) {
        if let Some(msix) = self.msix() {
            for v in (0..VECTORS).filter(|v| vectors & 1 << v != 0) {
                msix.notify(v);
            }
        } else if let Some(msi) = self.msi()
            && vectors != 0
        {
            msi.notify(0);
        }
        self.update_line();
    }
    fn cause(&self, causes: u32) {
        let vectors = {
            let s = &mut *self.state.lock();
            self.vectors(s, causes)
        };
        self.interrupt(vectors);
    }
    fn update_line(&self) {
        let Some(pin) = self.intx.get() else { return };
        let level = || self.msix().is_none() && self.msi().is_none() && self.state.lock().asserted();
        loop {
            let now = level();
            pin.set(now);
            if now == level() {
                return;
            }
        }
    }

    fn read(&self, offset: u64) -> u32 {
        let value = self.state.lock().read(offset);
        if offset == reg::ICR {
            self.update_line();
        }
        value
    }
    fn write(&self, offset: u64, value: u32) {
        let (due, vectors) = {
            let s = &mut *self.state.lock();
            let Some(due) = s.write(offset, value) else {
                log_unimp!(self.log, &self.name, "write to register {offset:#x}");
                return;
            };
            (due, self.vectors(s, due.causes))
        };
        match offset {
            reg::RDT | reg::TDT => (),
            _ => self.interrupt(vectors),
        }
        match due.transmit {
            Some(queue) if queue < QUEUES => self.transmit(queue),
            Some(_) => (0..QUEUES).for_each(|q| self.transmit(q)),
            None => (),
        }
        if due.receive {
            self.backend.receive_ready();
        }
    }
    fn pause(&self) {
        self.state.lock().paused = true;
        drop(self.sending.lock());
    }
    fn go_on(&self) {
        {
            let s = &mut *self.state.lock();
            s.paused = false;
            s.starved = false;
        }
        (0..QUEUES).for_each(|q| self.transmit(q));
        self.backend.receive_ready();
    }
}

/// BAR 0.
struct Bar(Arc<Controller>);

impl MmioDevice for Bar {
    fn read(&self, offset: u64, _access: Access) -> Result<u64, BusError> {
        Ok(self.0.read(offset).into())
    }
    fn write(&self, offset: u64, value: u64, _access: Access) -> Result<(), BusError> {
        self.0.write(offset, value as u32);
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::WORD
    }
    fn name(&self) -> &str {
        "e1000e"
    }
}

/// BAR 1: no flash is fitted, so it reads erased.
struct Flash;

impl MmioDevice for Flash {
    fn read(&self, _offset: u64, _access: Access) -> Result<u64, BusError> {
        Ok(0xffff_ffff)
    }
    fn write(&self, _offset: u64, _value: u64, _access: Access) -> Result<(), BusError> {
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::WORD
    }
    fn name(&self) -> &str {
        "e1000e-flash"
    }
}

/// BAR 2: address and data of a register (IOADDR, IODATA).
struct IoWindow(Arc<Controller>);

impl MmioDevice for IoWindow {
    fn read(&self, offset: u64, _access: Access) -> Result<u64, BusError> {
        let address = self.0.io_address.load(Ordering::SeqCst);
        Ok(match offset {
            0 => address,
            4 if address < BAR_SIZE => self.0.read(address & !3).into(),
            _ => 0,
        })
    }
    fn write(&self, offset: u64, value: u64, _access: Access) -> Result<(), BusError> {
        match offset {
            0 => self.0.io_address.store(value & 0xf_ffff, Ordering::SeqCst),
            4 => {
                let address = self.0.io_address.load(Ordering::SeqCst);
                if address < BAR_SIZE {
                    self.0.write(address & !3, value as u32);
                }
            }
            _ => (),
        }
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::WORD
    }
    fn name(&self) -> &str {
        "e1000e-io"
    }
}

/// The back end's way to the controller, which it does not keep alive.
struct Front(Weak<Controller>);

impl NetFrontend for Front {
    fn receive(&self, frame: &[u8], _offload: Offload) -> bool {
        self.0.upgrade().is_none_or(|c| c.receive(frame))
    }
    fn link_changed(&self, up: bool) {
        let Some(c) = self.0.upgrade() else { return };
        c.state.lock().phy.up = up;
        c.cause(reg::INT_LSC);
    }
}

/// The controller as a PCI function.
pub struct E1000e {
    config: PciConfig,
    controller: Arc<Controller>,
}

impl E1000e {
    /// A controller for `slot`; `subsystem` is vendor and device. [`rhea_pci::PciBus::attach`] puts it on the bus.
    #[must_use]
    pub fn new(
        slot: &PciSlot,
        backend: Arc<dyn NetBackend>,
        mac: [u8; 6],
        subsystem: (u16, u16),
        log: &Log,
    ) -> Arc<Self> {
        let mut state = State::new(nvm::words(mac, DEVICE, subsystem));
        state.phy.up = backend.link_up();
        let controller = Arc::new(Controller {
            name: format!("e1000e@{slot}"),
            dma: slot.dma().clone(),
            log: log.clone(),
            state: Mutex::new(state),
            sending: Mutex::new(()),
            io_address: AtomicU64::new(0),
            msix: OnceLock::new(),
            msi: OnceLock::new(),
            intx: OnceLock::new(),
            backend,
        });
        let identity = Identity {
            vendor: 0x8086,
            device: DEVICE,
            revision: 0,
            class: 0x02_0000,
            subsystem_vendor: subsystem.0,
            subsystem: subsystem.1,
        };
        let mut config = ConfigBuilder::new(identity, slot.clone())
            .bar(REGISTER_BAR, BarKind::Memory32, BAR_SIZE, Arc::new(Bar(controller.clone())))
            .bar(FLASH_BAR, BarKind::Memory32, FLASH_SIZE, Arc::new(Flash))
            .bar(IO_BAR, BarKind::Io, 32, Arc::new(IoWindow(controller.clone())))
            .intx(1);
        if slot.bus().has_msi() {
            config = config.msi(0);
        }
        config = config.pcie(PcieType::Endpoint);
        if slot.bus().has_msi() {
            config = config.msix(MSIX_BAR, VECTORS);
        }
        let config = config.build();
        if let Some(m) = config.msix() {
            let _ = controller.msix.set(m.clone());
        }
        if let Some(m) = config.msi() {
            let _ = controller.msi.set(m.clone());
        }
        if let Some(pin) = config.intx() {
            let _ = controller.intx.set(pin.clone());
        }
        controller.backend.set_frontend(Arc::new(Front(Arc::downgrade(&controller))));
        controller.backend.set_frontend_offloads(Offloads::default());
        Arc::new(Self { config, controller })
    }
}

impl PciFunction for E1000e {
    fn config(&self) -> &PciConfig {
        &self.config
    }
    fn config_write(&self, offset: u16, size: u8, value: u32) {
        self.config.write(offset, size, value);
        // The way of interrupts may have changed.
        self.controller.update_line();
    }
}

impl Device for E1000e {
    fn name(&self) -> &str {
        &self.controller.name
    }
    fn reset(&self) {
        let c = &self.controller;
        {
            let s = &mut *c.state.lock();
            s.reset();
            s.phy.reset();
            s.starved = false;
        }
        c.io_address.store(0, Ordering::SeqCst);
        self.config.reset();
        c.update_line();
        c.backend.receive_ready();
    }
    fn save(&self) -> Saved {
        state::save(&self.controller, self.config.save())
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        let config = state::load(&self.controller, saved)?;
        self.config.load(config)?;
        self.controller.update_line();
        Ok(())
    }
    fn quiesce(&self) {
        self.controller.pause();
    }
    fn resume(&self) {
        self.controller.go_on();
    }
}
