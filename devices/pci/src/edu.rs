//! The educational device: a factorial unit, a DMA engine with a buffer, and interrupts raised at will.

use crate::config::{BarKind, ConfigBuilder, Identity};
use crate::{PciConfig, PciConfigState, PciFunction, PciSlot};
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_clock::{Timer, VirtualClock};
use rhea_device::dma::DmaHandle;
use rhea_device::{Device, LoadError, Log, Saved, log_guest_error, state};
use rhea_memory::{Access, AccessRules, BusError, Gpa, MmioDevice};
use std::sync::{Arc, OnceLock};

const BAR_SIZE: u64 = 1 << 20;
/// Major version 1, minor version 0.
const IDENTIFICATION: u32 = 0x0100_00ed;
/// The DMA engine's own buffer, as the engine addresses it.
const BUFFER: u64 = 0x4_0000;
const BUFFER_SIZE: usize = 4096;

mod register {
    pub const IDENTIFICATION: u64 = 0x00;
    pub const LIVENESS: u64 = 0x04;
    pub const FACTORIAL: u64 = 0x08;
    pub const STATUS: u64 = 0x20;
    pub const INTERRUPT_STATUS: u64 = 0x24;
    pub const RAISE: u64 = 0x60;
    pub const ACKNOWLEDGE: u64 = 0x64;
    pub const SOURCE: u64 = 0x80;
    pub const DESTINATION: u64 = 0x88;
    pub const COUNT: u64 = 0x90;
    pub const COMMAND: u64 = 0x98;
}
/// Status: computing; an interrupt at the end.
const COMPUTING: u32 = 1;
const STATUS_INTERRUPT: u32 = 0x80;
/// Command: running; from the buffer to memory; an interrupt at the end.
const RUN: u64 = 1;
const TO_MEMORY: u64 = 2;
const DMA_INTERRUPT: u64 = 4;
/// What is in the interrupt status.
const FACTORIAL_DONE: u32 = 1;
const DMA_DONE: u32 = 0x100;

/// How long the units take.
const FACTORIAL_NS: u64 = 1_000;
const DMA_NS: u64 = 100_000;

#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
struct Registers {
    #[n(0)]
    liveness: u32,
    #[n(1)]
    factorial: u32,
    #[n(2)]
    status: u32,
    #[n(3)]
    interrupts: u32,
    /// Source, destination, count, command.
    #[n(4)]
    dma: [u64; 4],
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct State {
    #[n(0)]
    config: PciConfigState,
    #[n(1)]
    registers: Registers,
    #[n(2)]
    buffer: Vec<u8>,
}

/// What the BAR shows.
struct Unit {
    registers: Mutex<Registers>,
    buffer: Mutex<Vec<u8>>,
    dma: DmaHandle,
    mask: u64,
    clock: Arc<VirtualClock>,
    timers: OnceLock<[Timer; 2]>,
    function: OnceLock<std::sync::Weak<Edu>>,
    log: Log,
}

/// The function.
pub struct Edu {
    name: String,
    config: PciConfig,
    unit: Arc<Unit>,
}

fn factorial(n: u32) -> u32 {
    // 34! has 32 factors of two.
    if n >= 34 { 0 } else { (1..=n).fold(1, u32::wrapping_mul) }
}

impl Edu {
    /// The device at `slot`; its DMA addresses keep the bits of `mask`.
    #[must_use]
    pub fn new(identity: Identity, slot: &PciSlot, mask: u64, clock: &Arc<VirtualClock>, log: &Log) -> Arc<Self> {
        let unit = Arc::new(Unit {
            registers: Mutex::default(),
            buffer: Mutex::new(vec![0; BUFFER_SIZE]),
            dma: slot.dma().clone(),
            mask,
            clock: clock.clone(),
            timers: OnceLock::new(),
            function: OnceLock::new(),
            log: log.clone(),
        });
        let timer = |f: fn(&Unit)| {
            let unit = Arc::downgrade(&unit);
            clock.timer(move || {
                if let Some(unit) = unit.upgrade() {
                    f(&unit);
                }
            })
        };
        let _ = unit.timers.set([timer(Unit::factorial_done), timer(Unit::transfer)]);
        let config = ConfigBuilder::new(identity, slot.clone())
            .bar(0, BarKind::Memory32, BAR_SIZE, unit.clone())
            .intx(1)
            .msi(0)
            .build();
        let edu = Arc::new(Self { name: format!("edu@{slot}"), config, unit });
        let _ = edu.unit.function.set(Arc::downgrade(&edu));
        edu
    }
}

impl Unit {
    fn start(&self, timer: usize, delay: u64) {
        if let Some(timers) = self.timers.get() {
            timers[timer].arm(self.clock.now_ns().saturating_add(delay));
        }
    }
    fn factorial_done(&self) {
        let raise = {
            let mut r = self.registers.lock();
            r.factorial = factorial(r.factorial);
            r.status &= !COMPUTING;
            r.status & STATUS_INTERRUPT != 0
        };
        if raise {
            self.raise(FACTORIAL_DONE);
        }
    }
    /// Does the transfer the registers describe.
    fn transfer(&self) {
        let [source, destination, count, command] = self.registers.lock().dma;
        if command & RUN == 0 {
            return;
        }
        let (memory, inside) = if command & TO_MEMORY != 0 { (destination, source) } else { (source, destination) };
        let address = memory & self.mask;
        if address != memory {
            log_guest_error!(self.log, "edu", "DMA beyond the address mask");
        }
        let range = inside
            .checked_sub(BUFFER)
            .and_then(|at| Some(at as usize..usize::try_from(at.checked_add(count)?).ok()?))
            .filter(|r| r.end <= BUFFER_SIZE);
        match range {
            None => log_guest_error!(self.log, "edu", "DMA outside of the buffer"),
            Some(range) => {
                let mut data = vec![0; range.len()];
                if command & TO_MEMORY != 0 {
                    data.copy_from_slice(&self.buffer.lock()[range]);
                    if self.dma.write(Gpa(address), &data).is_err() {
                        log_guest_error!(self.log, "edu", "DMA write failed");
                    }
                } else if self.dma.read(Gpa(address), &mut data).is_ok() {
                    self.buffer.lock()[range].copy_from_slice(&data);
                } else {
                    log_guest_error!(self.log, "edu", "DMA read failed");
                }
            }
        }
        self.registers.lock().dma[3] &= !RUN;
        if command & DMA_INTERRUPT != 0 {
            self.raise(DMA_DONE);
        }
    }
    fn raise(&self, bits: u32) {
        self.registers.lock().interrupts |= bits;
        let Some(edu) = self.function.get().and_then(std::sync::Weak::upgrade) else { return };
        match edu.config.msi() {
            Some(msi) if msi.enabled() => {
                if self.registers.lock().interrupts != 0 {
                    msi.notify(0);
                }
            }
            _ => self.update_pin(&edu),
        }
    }
    /// The pin as the status and MSI are now.
    fn update_pin(&self, edu: &Edu) {
        let Some(pin) = edu.config.intx() else { return };
        let level = || self.registers.lock().interrupts != 0 && !edu.config.msi().is_some_and(|m| m.enabled());
        loop {
            let up = level();
            pin.set(up);
            if level() == up {
                return;
            }
        }
    }
    /// The DMA register at `offset` and where in it.
    fn dma_register(offset: u64, size: u8) -> Option<(usize, u32)> {
        let n = match offset & !7 {
            register::SOURCE => 0,
            register::DESTINATION => 1,
            register::COUNT => 2,
            register::COMMAND => 3,
            _ => return None,
        };
        (size == 8 || offset & 3 == 0).then_some((n, (offset & 4) as u32 * 8))
    }
}

impl MmioDevice for Unit {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        let r = self.registers.lock();
        let word = match offset {
            _ if offset < register::SOURCE && access.size != 4 => return Ok(u64::MAX),
            register::IDENTIFICATION => IDENTIFICATION,
            register::LIVENESS => r.liveness,
            register::FACTORIAL => r.factorial,
            register::STATUS => r.status,
            register::INTERRUPT_STATUS => r.interrupts,
            _ => {
                let found = Self::dma_register(offset, access.size);
                return Ok(found.map_or(u64::MAX, |(n, shift)| r.dma[n] >> shift));
            }
        };
        Ok(word.into())
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        let word = value as u32;
        if offset < register::SOURCE && access.size != 4 {
            return Ok(());
        }
        match offset {
            register::LIVENESS => self.registers.lock().liveness = !word,
            register::FACTORIAL => {
                {
                    let mut r = self.registers.lock();
                    if r.status & COMPUTING != 0 {
                        return Ok(());
                    }
                    r.factorial = word;
                    r.status |= COMPUTING;
                }
                self.start(0, FACTORIAL_NS);
            }
            register::STATUS => {
                let mut r = self.registers.lock();
                r.status = r.status & !STATUS_INTERRUPT | word & STATUS_INTERRUPT;
            }
            register::RAISE => self.raise(word),
            register::ACKNOWLEDGE => {
                self.registers.lock().interrupts &= !word;
                if let Some(edu) = self.function.get().and_then(std::sync::Weak::upgrade) {
                    self.update_pin(&edu);
                }
            }
            _ => {
                let Some((n, shift)) = Self::dma_register(offset, access.size) else { return Ok(()) };
                let start = {
                    let mut r = self.registers.lock();
                    // The registers do not change under a transfer.
                    if r.dma[3] & RUN != 0 {
                        return Ok(());
                    }
                    let mask = if access.size == 8 { u64::MAX } else { 0xffff_ffff << shift };
                    r.dma[n] = r.dma[n] & !mask | value << shift & mask;
                    n == 3 && r.dma[3] & RUN != 0
                };
                if start {
                    self.start(1, DMA_NS);
                }
            }
        }
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules { valid_min: 4, ..AccessRules::ANY }
    }
    fn name(&self) -> &str {
        "edu"
    }
}

impl PciFunction for Edu {
    fn config(&self) -> &PciConfig {
        &self.config
    }
    fn config_write(&self, offset: u16, size: u8, value: u32) {
        self.config.write(offset, size, value);
        // MSI may have been switched.
        self.unit.update_pin(self);
    }
}

impl Device for Edu {
    fn name(&self) -> &str {
        &self.name
    }
    fn reset(&self) {
        for timer in self.unit.timers.get().into_iter().flatten() {
            timer.cancel();
        }
        *self.unit.registers.lock() = Registers::default();
        self.unit.buffer.lock().fill(0);
        self.config.reset();
    }
    fn save(&self) -> Saved {
        let registers = self.unit.registers.lock().clone();
        let buffer = self.unit.buffer.lock().clone();
        state::encode(1, &State { config: self.config.save(), registers, buffer })
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        let State { config, registers, buffer } = state::decode(saved, 1)?;
        if buffer.len() != BUFFER_SIZE {
            return Err(LoadError::Mismatch("size of the buffer".to_owned()));
        }
        let (computing, running) = (registers.status & COMPUTING != 0, registers.dma[3] & RUN != 0);
        *self.unit.registers.lock() = registers;
        *self.unit.buffer.lock() = buffer;
        self.config.load(config)?;
        if computing {
            self.unit.start(0, FACTORIAL_NS);
        }
        if running {
            self.unit.start(1, DMA_NS);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Devfn, PciBus};
    use rhea_accel::IrqLine;
    use rhea_memory::{AddressSpace, RamBlock, Requester};
    use std::time::{Duration, Instant};

    fn wait(what: &str, done: impl Fn() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < Duration::from_secs(20), "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn computes_transfers_and_interrupts() {
        let memory = AddressSpace::new("memory");
        let ram = RamBlock::anonymous("ram", 0x1000).unwrap();
        let _map = memory.map_ram(Gpa(0), &ram, 0, 0x1000, 0).unwrap();
        let line = IrqLine::unconnected();
        let bus = PciBus::new("b", memory.clone(), [0; 4].map(|_| line.clone()), None);
        let clock = VirtualClock::new();
        clock.start();
        let identity = Identity { vendor: 1, device: 2, revision: 0, class: 0, subsystem_vendor: 0, subsystem: 0 };
        let edu = Edu::new(identity, &bus.slot(Devfn(8)), 0xfff_ffff, &clock, &Log::off());
        bus.attach(edu.clone()).unwrap();
        edu.config_write(0x10, 4, 0x1000_0000);
        edu.config_write(4, 2, 6);
        let read = |at: u64, size| bus.memory().load(Gpa(0x1000_0000 + at), Access::cpu(0, size)).unwrap();
        let write = |at: u64, size, v| bus.memory().store(Gpa(0x1000_0000 + at), v, Access::cpu(0, size)).unwrap();
        assert_eq!(read(0, 4), 0x0100_00ed);
        write(4, 4, 0x1234_5678);
        assert_eq!(read(4, 4), 0xedcb_a987);
        write(0x20, 4, 0x80);
        write(8, 4, 5);
        wait("factorial", || read(0x20, 4) & 1 == 0 && line.level());
        assert_eq!((read(8, 4), read(0x24, 4)), (120, 1));
        write(0x64, 4, 1);
        assert!(!line.level());
        assert_eq!(factorial(u32::MAX), 0);
        // Memory to the buffer and back to another place.
        memory.write(Gpa(0x10), b"edu!", Requester::Host).unwrap();
        for (from, to, command) in [(0x10u64, 0x4_0ffc, 1), (0x4_0ffc, 0x20, 7)] {
            write(0x80, 8, from);
            write(0x88, 8, to);
            write(0x90, 4, 4);
            write(0x98, 4, command);
            wait("transfer", || read(0x98, 4) & 1 == 0);
        }
        let mut data = [0; 4];
        memory.read(Gpa(0x20), &mut data, Requester::Host).unwrap();
        assert_eq!(&data, b"edu!");
        wait("interrupt", || read(0x24, 4) == 0x100 && line.level());
        write(0x64, 4, 0x100);
        // Beyond the buffer, whatever the numbers.
        for (to, count) in [(0x4_0ffd, 4), (0x3_ffff, 1), (u64::MAX, u64::MAX), (0x4_0000, u64::MAX)] {
            write(0x80, 8, 0);
            write(0x88, 8, to);
            write(0x90, 8, count);
            write(0x98, 4, 1);
            wait("refusal", || read(0x98, 4) & 1 == 0);
        }
        write(0x60, 4, 0xf0);
        assert!(line.level());
        edu.reset();
        assert!(!line.level());
    }
}
