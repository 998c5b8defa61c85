//! Interrupters: event rings (xHCI 4.9.4), interrupts and their moderation (4.17).

use super::trb::{self, Trb, code, kind};
use minicbor::{Decode, Encode};
use rhea_device::DmaHandle;
use rhea_memory::BusError;
use std::collections::VecDeque;

/// Default interval: 1 ms in units of 250 ns.
const DEFAULT_INTERVAL: u32 = 4000;
/// log2 of the segments of an event ring.
pub const MOST_SEGMENTS_LOG2: u32 = 8;
/// With as many events waiting for room, the rings of the guest are not looked at.
const CROWDED: usize = 64;

/// Event handler busy, in the dequeue pointer.
const BUSY: u64 = 8;
/// Interrupt pending, enable, in the management register.
const PENDING: u32 = 1;
const ENABLE: u32 = 2;

/// The part of an event ring that is being filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
struct Segment {
    #[n(0)]
    number: u32,
    #[n(1)]
    base: u64,
    #[n(2)]
    size: u32,
    /// The next entry.
    #[n(3)]
    entry: u32,
}

impl Segment {
    fn at(&self) -> u64 {
        self.base.wrapping_add(trb::SIZE * u64::from(self.entry))
    }
}

#[derive(Clone, Debug, Encode, Decode)]
pub struct Interrupter {
    #[n(0)]
    management: u32,
    #[n(1)]
    moderation: u32,
    #[n(2)]
    segments: u32,
    #[n(3)]
    table: u64,
    #[n(4)]
    dequeue: u64,
    /// `None`: the table has not been looked at since it was set.
    #[n(5)]
    segment: Option<Segment>,
    #[n(6)]
    cycle: bool,
    /// Events without room.
    #[n(7)]
    waiting: VecDeque<Trb>,
    /// The last place holds the event that says so.
    #[n(8)]
    full: bool,
    /// There are events to interrupt for.
    #[n(9)]
    due: bool,
    /// Not before this time, in ns.
    #[n(10)]
    next_ns: u64,
}

impl Default for Interrupter {
    fn default() -> Self {
        Self {
            management: 0,
            moderation: DEFAULT_INTERVAL,
            segments: 0,
            table: 0,
            dequeue: 0,
            segment: None,
            cycle: true,
            waiting: VecDeque::new(),
            full: false,
            due: false,
            next_ns: 0,
        }
    }
}

fn low(old: u64, value: u32) -> u64 {
    old & !0xffff_ffff | u64::from(value)
}
fn high(old: u64, value: u32) -> u64 {
    old & 0xffff_ffff | u64::from(value) << 32
}

impl Interrupter {
    pub fn crowded(&self) -> bool {
        self.waiting.len() >= CROWDED
    }
    /// Queues an event; `interrupt`: it is one to interrupt for.
    pub fn post(&mut self, event: Trb, interrupt: bool) {
        // Bounded by what is looked at before somebody sees that it is crowded.
        self.waiting.push_back(event);
        self.due |= interrupt;
    }
    /// A segment of the table (6.5).
    fn segment(&self, dma: &DmaHandle, number: u32) -> Result<Segment, BusError> {
        let entry = Trb::read(dma, self.table.wrapping_add(trb::SIZE * u64::from(number)))?;
        let size = entry.status & 0xffff;
        if !(16..=4096).contains(&size) {
            return Err(BusError::Refused);
        }
        Ok(Segment { number, base: entry.parameter & !63, size, entry: 0 })
    }
    /// The place after one, and the cycle state there.
    fn after(&self, dma: &DmaHandle, s: Segment, cycle: bool) -> Result<(Segment, bool), BusError> {
        if s.entry + 1 < s.size {
            return Ok((Segment { entry: s.entry + 1, ..s }, cycle));
        }
        let last = s.number + 1 >= self.segments;
        let next = if last { 0 } else { s.number + 1 };
        Ok((self.segment(dma, next)?, cycle ^ last))
    }
    /// Puts events where there is room.
    ///
    /// # Errors
    /// The table or ring is not in memory.
    pub fn flush(&mut self, dma: &DmaHandle) -> Result<(), BusError> {
        if self.segments == 0 {
            // There is no ring: events are lost.
            self.waiting.clear();
            self.due = false;
            return Ok(());
        }
        while !self.waiting.is_empty() {
            let here = match self.segment {
                Some(s) => s,
                None => self.segment(dma, 0)?,
            };
            self.segment = Some(here);
            let (next, cycle) = self.after(dma, here, self.cycle)?;
            let dequeue = self.dequeue & !15;
            if next.at() == dequeue {
                break;
            }
            let event = if self.after(dma, next, cycle)?.0.at() == dequeue {
                if self.full {
                    break;
                }
                self.full = true;
                let control = u32::from(kind::HOST_CONTROLLER) << 10;
                Trb { parameter: 0, status: u32::from(code::EVENT_RING_FULL) << 24, control }
            } else {
                self.full = false;
                self.waiting.pop_front().unwrap_or_default()
            };
            let control = event.control & !trb::CYCLE | u32::from(self.cycle) * trb::CYCLE;
            Trb { control, ..event }.write(dma, here.at())?;
            (self.segment, self.cycle) = (Some(next), cycle);
        }
        Ok(())
    }
    fn is_empty(&self) -> bool {
        self.segment.is_none_or(|s| s.at() == self.dequeue & !15)
    }
    /// Makes an interrupt pending if it is time; true if it was not before. Otherwise `timer` is told when to come again.
    pub fn settle(&mut self, now: u64, timer: &mut u64) -> bool {
        if !self.due || self.dequeue & BUSY != 0 {
            return false;
        }
        if now < self.next_ns {
            *timer = (*timer).min(self.next_ns);
            return false;
        }
        self.due = false;
        self.dequeue |= BUSY;
        self.management |= PENDING;
        self.next_ns = now.saturating_add(u64::from(self.moderation & 0xffff) * 250);
        true
    }
    /// An interrupt is pending and enabled.
    pub fn wants(&self) -> bool {
        self.management & (PENDING | ENABLE) == PENDING | ENABLE
    }
    /// A message was sent, which clears what is pending (4.17.5).
    pub fn sent(&mut self) {
        self.management &= !PENDING;
    }
    pub fn read(&self, offset: u64) -> u32 {
        match offset {
            0x00 => self.management,
            0x04 => self.moderation,
            0x08 => self.segments,
            0x10 => self.table as u32,
            0x14 => (self.table >> 32) as u32,
            0x18 => self.dequeue as u32,
            0x1c => (self.dequeue >> 32) as u32,
            _ => 0,
        }
    }
    pub fn write(&mut self, offset: u64, value: u32) {
        match offset {
            0x00 => self.management = value & ENABLE | self.management & PENDING & !value,
            0x04 => {
                self.moderation = value;
                // The counter may be written: at most so long until the next.
                self.next_ns = if value >> 16 == 0 { 0 } else { self.next_ns };
            }
            0x08 => {
                self.segments = (value & 0xffff).min(1 << MOST_SEGMENTS_LOG2);
                self.segment = None;
            }
            0x10 | 0x14 => {
                self.table = if offset == 0x10 { low(self.table, value & !63) } else { high(self.table, value) };
                (self.segment, self.cycle, self.full) = (None, true, false);
            }
            0x18 => {
                let busy = self.dequeue & BUSY & !u64::from(value);
                self.dequeue = low(self.dequeue, value & !(BUSY as u32)) | busy;
                self.moved();
            }
            0x1c => {
                self.dequeue = high(self.dequeue, value);
                self.moved();
            }
            _ => {}
        }
    }
    /// Software has looked at events; if there are more, it is told again.
    fn moved(&mut self) {
        if self.dequeue & BUSY == 0 && !self.is_empty() {
            self.due = true;
        }
    }
    pub fn sane(&self) -> bool {
        let segment = self.segment.is_none_or(|s| (16..=4096).contains(&s.size) && s.entry < s.size);
        segment && self.segments <= 1 << MOST_SEGMENTS_LOG2 && self.waiting.len() <= 1 << 16
    }
}
