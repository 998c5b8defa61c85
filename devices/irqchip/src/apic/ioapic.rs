//! The I/O APIC: 82093AA with 24 pins, as version 0x20 with its EOI register.

use super::spec::{DEFAULT_BASE, Delivery, Message};
use super::{ApicError, EoiTarget, MessageBus, Remapped};
use crate::EoiListener;
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_accel::IrqSink;
use rhea_device::state::{decode, encode};
use rhea_device::{Device, LoadError, Log, Saved, log_guest_error};
use rhea_memory::{Access, AccessRules, BusError, MmioDevice};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU8, AtomicU32};

/// Pins of an I/O APIC.
pub const IOAPIC_PINS: usize = 24;

/// Version 0x20, the last entry in bits 23:16.
const VERSION_REGISTER: u32 = 0x20 | (IOAPIC_PINS as u32 - 1) << 16;

/// Fields of a redirection entry.
mod entry {
    pub const LOGICAL: u64 = 1 << 11;
    pub const STATUS: u64 = 1 << 12;
    pub const ACTIVE_LOW: u64 = 1 << 13;
    pub const REMOTE_IRR: u64 = 1 << 14;
    pub const LEVEL: u64 = 1 << 15;
    pub const MASK: u64 = 1 << 16;
    pub const READ_ONLY: u64 = STATUS | REMOTE_IRR;
    /// Vector to mask, and the destination with its extension and the format bit of interrupt remapping.
    pub const WRITABLE: u64 = 0xffff_0000_0001_afff;
}

/// How to make an [`IoApic`].
#[derive(Clone)]
pub struct IoApicConfig {
    pub name: String,
    /// Told the pin of each level-triggered interrupt that the guest ended, with no lock held.
    pub eoi: Option<EoiListener>,
    pub log: Log,
}

#[derive(Clone, Copy)]
struct Pin {
    entry: u64,
    /// The line's level; asserted is true, whatever the polarity says.
    level: bool,
}

impl Pin {
    const RESET: u64 = entry::MASK;

    fn delivery(&self) -> Option<Delivery> {
        Delivery::of((self.entry >> 8) as u32).filter(|d| *d != Delivery::StartUp)
    }
    /// Level-triggered with remote IRR: only fixed and lowest-priority interrupts are.
    fn is_level(&self) -> bool {
        let mode = matches!(self.delivery(), Some(Delivery::Fixed | Delivery::LowestPriority));
        mode && self.entry & entry::LEVEL != 0
    }
    /// The level interrupt is to be sent now.
    fn pending(&self) -> bool {
        self.level && self.is_level() && self.entry & (entry::MASK | entry::REMOTE_IRR) == 0
    }
}

/// The controller; an [`IrqSink`] for its pins, and the [`MmioDevice`] of its registers (4 KiB).
pub struct IoApic {
    config: IoApicConfig,
    bus: Arc<dyn MessageBus>,
    pins: [Mutex<Pin>; IOAPIC_PINS],
    /// Pins whose remote IRR is set.
    in_service: AtomicU32,
    select: AtomicU8,
    id: AtomicU8,
}

impl IoApic {
    /// An I/O APIC that sends to `bus` and hears of its EOIs.
    ///
    /// # Errors
    /// [`ApicError::IoApics`].
    pub fn new(config: IoApicConfig, bus: Arc<dyn MessageBus>) -> Result<Arc<Self>, ApicError> {
        let this = Arc::new(Self {
            config,
            bus,
            pins: std::array::from_fn(|_| Mutex::new(Pin { entry: Pin::RESET, level: false })),
            in_service: AtomicU32::new(0),
            select: AtomicU8::new(0),
            id: AtomicU8::new(0),
        });
        this.bus.connect_eoi(&(this.clone() as Arc<dyn EoiTarget>))?;
        Ok(this)
    }

    /// What a pin sends. `now`: it does; else it is looked up for later, and faults of remapping are not reported.
    fn message(&self, pin: Pin, now: bool) -> Option<Message> {
        // The request as the message that remapping sees: the entry's upper half is the address, the lower one the data.
        let (address, data) = (
            DEFAULT_BASE | (pin.entry >> 56) << 12 | (pin.entry >> 48 & 0xff) << 4 | (pin.entry >> 11 & 1) << 2,
            pin.entry as u32 & 0xa7ff | 1 << 14,
        );
        let remapped = match self.bus.remapping() {
            Some(remapping) if !now => remapping.foresee(None, address, data),
            _ => self.bus.remap(None, address, data),
        };
        match remapped {
            Remapped::Unchanged => {}
            Remapped::Message(message) => return Some(Message { level: pin.is_level(), ..message }),
            Remapped::Blocked => return None,
        }
        let Some(delivery) = pin.delivery() else {
            log_guest_error!(self.config.log, "ioapic", "redirection entry with a reserved delivery mode");
            return None;
        };
        let e = pin.entry;
        let destination = self.bus.device_destination((e >> 56) as u32, (e >> 49) as u32 & 0x7f);
        let logical = e & entry::LOGICAL != 0;
        Some(Message { destination, logical, wide: false, delivery, vector: e as u8, level: pin.is_level() })
    }
    /// Sends what an edge makes.
    fn send_edge(&self, pin: Pin) {
        if let Some(message) = self.message(pin, true) {
            self.bus.deliver(&message);
        }
    }
    /// Tells the bus what pin `n` sends, if that is a level-triggered interrupt.
    fn announce(&self, n: usize) {
        let Some(slot) = self.pins.get(n).filter(|_| self.bus.wants_pins()) else { return };
        loop {
            let pin = *slot.lock();
            if !pin.is_level() || pin.entry & entry::MASK != 0 {
                return;
            }
            if let Some(message) = self.message(pin, false) {
                self.bus.set_pin(n as u32, &message);
            }
            // Who changed it meanwhile may have told the bus before.
            if (slot.lock().entry ^ pin.entry) & entry::WRITABLE == 0 {
                return;
            }
        }
    }
    /// Sends the level interrupt of pin `n` if it waits.
    fn service(&self, n: usize) {
        let Some(slot) = self.pins.get(n) else { return };
        let sent = {
            let mut pin = slot.lock();
            if !pin.pending() {
                return;
            }
            pin.entry |= entry::REMOTE_IRR;
            self.in_service.fetch_or(1 << n, SeqCst);
            *pin
        };
        let taken = self.message(sent, true).is_some_and(|message| self.bus.deliver(&message));
        if !taken {
            // No local APIC accepted it, so none will end it.
            let mut pin = slot.lock();
            pin.entry &= !entry::REMOTE_IRR;
            self.in_service.fetch_and(!(1 << n), SeqCst);
        }
    }
    /// The end of the interrupts with `vector`: from local APICs, or the EOI register.
    fn end(&self, vector: u8) {
        let mut left = self.in_service.load(SeqCst);
        while left != 0 {
            let n = left.trailing_zeros() as usize;
            left &= left - 1;
            let ended = self.pins.get(n).is_some_and(|slot| {
                let mut pin = slot.lock();
                let ended = pin.entry as u8 == vector && pin.entry & entry::REMOTE_IRR != 0;
                if ended {
                    pin.entry &= !entry::REMOTE_IRR;
                    self.in_service.fetch_and(!(1 << n), SeqCst);
                }
                ended
            });
            if ended {
                if let Some(eoi) = &self.config.eoi {
                    eoi(n as u32);
                }
                self.service(n);
            }
        }
    }
    fn write_entry(&self, n: usize, high: bool, value: u32) {
        let Some(slot) = self.pins.get(n) else {
            return log_guest_error!(self.config.log, "ioapic", "write of a register that does not exist");
        };
        {
            let mut pin = slot.lock();
            let (place, keep) = if high { (32, 0xffff_ffff) } else { (0, 0xffff_ffff_0000_0000) };
            let writable = entry::WRITABLE & !keep;
            let kept = pin.entry & (keep | entry::READ_ONLY);
            pin.entry = kept | u64::from(value) << place & writable;
            if !pin.is_level() {
                // An edge-triggered interrupt has none; older software ends a level interrupt so.
                pin.entry &= !entry::REMOTE_IRR;
                self.in_service.fetch_and(!(1 << n), SeqCst);
            }
        }
        self.announce(n);
        self.service(n);
    }
    fn read_register(&self) -> u32 {
        match self.select.load(SeqCst) {
            // The arbitration id follows the id.
            0 | 2 => u32::from(self.id.load(SeqCst)) << 24,
            1 => VERSION_REGISTER,
            n @ 0x10..=0x3f => {
                let entry = self.pins[usize::from((n - 0x10) / 2)].lock().entry;
                (entry >> (32 * (n & 1))) as u32
            }
            n => {
                log_guest_error!(self.config.log, "ioapic", "read of register {n:#x}");
                0
            }
        }
    }
    fn write_register(&self, value: u32) {
        match self.select.load(SeqCst) {
            0 => self.id.store((value >> 24) as u8 & 0xf, SeqCst),
            1 | 2 => {}
            n @ 0x10..=0x3f => self.write_entry(usize::from((n - 0x10) / 2), n & 1 != 0, value),
            n => log_guest_error!(self.config.log, "ioapic", "write of register {n:#x}"),
        }
    }

    /// Text for `info pic`.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text =
            format!("{}: id {}, register {:#x}\n", self.config.name, self.id.load(SeqCst), self.select.load(SeqCst));
        for (n, slot) in self.pins.iter().enumerate() {
            let pin = *slot.lock();
            let e = pin.entry;
            let flag = |bit: u64, name: &'static str| if e & bit != 0 { name } else { "" };
            text += &format!(
                "  pin {n:2}: {e:#018x} {:?} vector {} dest {:#x}{}{}{}{}{} line {}\n",
                pin.delivery(),
                e & 0xff,
                e >> 56,
                flag(entry::LOGICAL, " logical"),
                flag(entry::LEVEL, " level"),
                flag(entry::ACTIVE_LOW, " low"),
                flag(entry::REMOTE_IRR, " remote-irr"),
                flag(entry::MASK, " masked"),
                u8::from(pin.level),
            );
        }
        text
    }
}

impl EoiTarget for IoApic {
    fn end_of_interrupt(&self, vector: u8) {
        self.end(vector);
    }
    fn remapping_changed(&self) {
        for n in 0..IOAPIC_PINS {
            self.announce(n);
        }
    }
}

impl IrqSink for IoApic {
    fn set_level(&self, pin: u32, level: bool) {
        let Some(slot) = self.pins.get(pin as usize) else { return };
        let edge = {
            let mut state = slot.lock();
            let rising = level && !state.level;
            state.level = level;
            (rising && !state.is_level() && state.entry & entry::MASK == 0).then_some(*state)
        };
        match edge {
            Some(state) => self.send_edge(state),
            None if level => self.service(pin as usize),
            None => {}
        }
    }
    fn import_level(&self, pin: u32, level: bool) {
        if let Some(slot) = self.pins.get(pin as usize) {
            slot.lock().level = level;
            self.service(pin as usize);
        }
    }
}

impl MmioDevice for IoApic {
    fn read(&self, offset: u64, _access: Access) -> Result<u64, BusError> {
        Ok(match offset & 0xff {
            0 => self.select.load(SeqCst).into(),
            0x10 => self.read_register().into(),
            at => {
                log_guest_error!(self.config.log, "ioapic", "read of offset {at:#x}");
                0
            }
        })
    }
    fn write(&self, offset: u64, value: u64, _access: Access) -> Result<(), BusError> {
        match offset & 0xff {
            0 => self.select.store(value as u8, SeqCst),
            0x10 => self.write_register(value as u32),
            0x40 => self.end(value as u8),
            at => log_guest_error!(self.config.log, "ioapic", "write of offset {at:#x}"),
        }
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::WORD
    }
    fn name(&self) -> &str {
        &self.config.name
    }
}

const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct State {
    #[n(0)]
    select: u8,
    #[n(1)]
    id: u8,
    #[n(2)]
    entries: [u64; IOAPIC_PINS],
    /// A bit for each pin.
    #[n(3)]
    levels: u32,
}

impl Device for IoApic {
    fn name(&self) -> &str {
        &self.config.name
    }
    fn reset(&self) {
        for slot in &self.pins {
            slot.lock().entry = Pin::RESET;
        }
        self.in_service.store(0, SeqCst);
        self.select.store(0, SeqCst);
        self.id.store(0, SeqCst);
    }
    fn collects(&self) -> bool {
        true
    }
    fn save(&self) -> Saved {
        let pins: [Pin; IOAPIC_PINS] = std::array::from_fn(|n| *self.pins[n].lock());
        let levels = pins.iter().enumerate().fold(0, |all, (n, pin)| all | u32::from(pin.level) << n);
        let (select, id) = (self.select.load(SeqCst), self.id.load(SeqCst));
        encode(VERSION, &State { select, id, entries: pins.map(|p| p.entry), levels })
    }
    fn load(&self, state: &Saved) -> Result<(), LoadError> {
        let State { select, id, entries, levels } = decode(state, VERSION)?;
        self.select.store(select, SeqCst);
        self.id.store(id & 0xf, SeqCst);
        let mut in_service = 0;
        for (n, (slot, e)) in self.pins.iter().zip(entries).enumerate() {
            let e = e & (entry::WRITABLE | entry::REMOTE_IRR);
            *slot.lock() = Pin { entry: e, level: levels >> n & 1 != 0 };
            in_service |= u32::from(e & entry::REMOTE_IRR != 0) << n;
        }
        self.in_service.store(in_service, SeqCst);
        self.remapping_changed();
        Ok(())
    }
}
