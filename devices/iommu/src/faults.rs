//! Recording of faults, and the events that tell software (7.2, 7.3).

use crate::registers::{self as reg, FAULT_CONTROL, FAULT_COUNT, FAULT_STATUS, FAULTS, Registers, event, fault};

/// A message to be sent when the registers are not locked any more.
pub type Event = (u64, u32);

/// Notes an event: its message, unless masked. The control register's data and address follow it.
pub fn event(registers: &mut Registers, control: u16) -> Option<Event> {
    if registers.get(control) & event::MASKED != 0 {
        registers.change(control, 0, event::PENDING);
        return None;
    }
    registers.change(control, event::PENDING, 0);
    Some((registers.get64(control + 8), registers.get(control + 4)))
}

/// A write of a control register: an event that waits is sent once it is not masked.
pub fn write_control(registers: &mut Registers, control: u16, value: u32) -> Option<Event> {
    registers.change(control, event::MASKED, value & event::MASKED);
    if registers.get(control) == event::PENDING { event(registers, control) } else { None }
}

/// Sets bits of the fault status; the event, if nothing was pending before.
pub fn status(registers: &mut Registers, bits: u32) -> Option<Event> {
    const ANY: u32 = fault::CLEARABLE | fault::PENDING;
    let before = registers.get(FAULT_STATUS);
    registers.change(FAULT_STATUS, 0, bits);
    if before & ANY == 0 && bits & ANY != 0 { event(registers, FAULT_CONTROL) } else { None }
}

/// Software clears bits of the fault status.
pub fn clear_status(registers: &mut Registers, bits: u32) {
    registers.change(FAULT_STATUS, bits & fault::CLEARABLE, 0);
    settle(registers);
}

/// Software clears a record.
pub fn clear_record(registers: &mut Registers, at: u16) {
    registers.change(at, fault::RECORDED, 0);
    let pending = (0..FAULT_COUNT).any(|n| registers.get(last_word(n)) & fault::RECORDED != 0);
    if !pending {
        registers.change(FAULT_STATUS, fault::PENDING, 0);
    }
    settle(registers);
}

fn settle(registers: &mut Registers) {
    if registers.get(FAULT_STATUS) & (fault::CLEARABLE | fault::PENDING) == 0 {
        registers.change(FAULT_CONTROL, event::PENDING, 0);
    }
}

/// The word of record `n` with its valid bit.
fn last_word(n: u16) -> u16 {
    FAULTS + n * 16 + 12
}

/// Is this the word of a record with its valid bit?
pub fn is_record(at: u16) -> bool {
    (FAULTS..reg::END).contains(&at) && at % 16 == 12
}

/// Where the next fault is recorded.
#[derive(Default)]
pub struct Recorder {
    pub next: u16,
}

impl Recorder {
    /// Records a fault: `information` is the page or the interrupt index as the register has it.
    pub fn record(
        &mut self,
        registers: &mut Registers,
        source: u16,
        reason: u8,
        information: u64,
        read: bool,
    ) -> Option<Event> {
        if registers.get(FAULT_STATUS) & fault::OVERFLOW != 0 {
            return None;
        }
        let at = FAULTS + self.next * 16;
        if registers.get(at + 12) & fault::RECORDED != 0 {
            return status(registers, fault::OVERFLOW);
        }
        registers.set64(at, information);
        registers.set(at + 8, source.into());
        registers.set(at + 12, u32::from(reason) | fault::RECORDED | if read { fault::READ } else { 0 });
        let index = self.next;
        self.next = (self.next + 1) % FAULT_COUNT;
        if registers.get(FAULT_STATUS) & fault::PENDING == 0 {
            registers.change(FAULT_STATUS, fault::INDEX, u32::from(index) << 8);
        }
        status(registers, fault::PENDING)
    }
}
