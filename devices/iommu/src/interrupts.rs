//! Interrupt remapping (5.1, 9.9): from a request's handle through a table to a message.

use crate::tables::{Fault, Memory, reason};
use rhea_irqchip::apic::{Delivery, Message};

/// The table as software last set it, and what is allowed, in one word: address, [`EXTENDED`], size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table(pub u64);

impl Table {
    /// Destinations have 32 bits.
    pub const EXTENDED: u64 = 1 << 11;
    /// Remapping is on.
    pub const ON: u64 = 1 << 4;
    /// Requests in compatibility format pass.
    pub const COMPATIBILITY: u64 = 1 << 5;

    fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }
}

/// What a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passes as it is.
    Unchanged,
    Message(Message),
    /// Refused; with the index, for the record.
    Fault(Fault, u16),
}

/// Looks a request up. `source` is checked where the entry asks for it; the I/O APIC of the chipset has none and is trusted.
pub fn remap(memory: &Memory, table: Table, source: Option<u16>, address: u64, data: u32) -> Outcome {
    if !table.has(Table::ON) {
        return Outcome::Unchanged;
    }
    let fault = |reason| Outcome::Fault(Fault::loud(reason), 0);
    if address >> 20 != 0xfee {
        return fault(reason::INTERRUPT_RESERVED);
    }
    const REMAPPABLE: u64 = 1 << 4;
    const SUBHANDLE: u64 = 1 << 3;
    if address & REMAPPABLE == 0 {
        let passes = table.has(Table::COMPATIBILITY) && !table.has(Table::EXTENDED);
        return if passes { Outcome::Unchanged } else { fault(reason::INTERRUPT_BLOCKED) };
    }
    let mut index = (address >> 5 & 0x7fff) as u32 | (address >> 2 & 1) as u32 * 0x8000;
    if address & SUBHANDLE != 0 {
        if data >> 16 != 0 {
            return Outcome::Fault(Fault::loud(reason::INTERRUPT_RESERVED), index as u16);
        }
        index += data;
    }
    if index >= 2 << (table.0 & 0xf) {
        return Outcome::Fault(Fault::loud(reason::INTERRUPT_INDEX), index as u16);
    }
    match entry(memory, table, source, index) {
        Ok(message) => Outcome::Message(message),
        Err(fault) => Outcome::Fault(fault, index as u16),
    }
}

fn entry(memory: &Memory, table: Table, source: Option<u16>, index: u32) -> Result<Message, Fault> {
    const PRESENT: u64 = 1;
    const FAULTS_OFF: u64 = 2;
    /// Reserved bits, and posting, which is not offered.
    const RESERVED: u64 = 0xff00_f000;
    let at = (table.0 & !0xfff).wrapping_add(u64::from(index) * 16);
    let [low, high] = memory.pair(at).ok_or(Fault::loud(reason::INTERRUPT_UNREACHABLE))?;
    let fault = |reason| Fault { reason, silent: low & FAULTS_OFF != 0 };
    if low & PRESENT == 0 {
        return Err(fault(reason::INTERRUPT_NOT_PRESENT));
    }
    let destination = (low >> 32) as u32;
    let extended = table.has(Table::EXTENDED);
    let check = high >> 18 & 3;
    if low & RESERVED != 0 || high >> 20 != 0 || check == 3 || !extended && destination & !0xff00 != 0 {
        return Err(fault(reason::INTERRUPT_ENTRY_RESERVED));
    }
    if let Some(source) = source {
        let allowed = high as u16;
        // The low bits of the function that do not count.
        let mask = [0, 0b100, 0b110, 0b111][(high >> 16 & 3) as usize];
        let good = match check {
            0 => true,
            1 => (source ^ allowed) & !mask == 0,
            // The bus lies in a range.
            _ => (allowed >> 8..=allowed & 0xff).contains(&(source >> 8)),
        };
        if !good {
            return Err(fault(reason::INTERRUPT_SOURCE));
        }
    }
    let delivery = match Delivery::of((low >> 5) as u32) {
        Some(Delivery::StartUp) | None => return Err(fault(reason::INTERRUPT_ENTRY_RESERVED)),
        // The redirection hint asks for the lowest priority among several.
        Some(Delivery::Fixed) if low & 0xc == 0xc => Delivery::LowestPriority,
        Some(other) => other,
    };
    Ok(Message {
        destination: if extended { destination } else { destination >> 8 },
        logical: low & 4 != 0,
        wide: extended,
        delivery,
        vector: (low >> 16) as u8,
        level: low & 0x10 != 0,
    })
}
