//! One 8259A.

use minicbor::{Decode, Encode};

/// Which word of the initialization sequence the data port takes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Encode, Decode)]
enum Sequence {
    #[default]
    #[n(0)]
    Done,
    #[n(1)]
    Icw2,
    #[n(2)]
    Icw3,
    #[n(3)]
    Icw4,
}

/// Bits of ICW1.
mod icw1 {
    pub const ICW4: u8 = 1;
    pub const SINGLE: u8 = 2;
    pub const LEVEL: u8 = 8;
    pub const ICW1: u8 = 0x10;
}

/// Bits of ICW4.
mod icw4 {
    pub const X86: u8 = 1;
    pub const AUTO_EOI: u8 = 2;
    pub const FULLY_NESTED: u8 = 0x10;
}

/// The registers. Bit n of a byte is input n.
#[derive(Clone, Debug, PartialEq, Eq, Default, Encode, Decode)]
pub struct Chip {
    #[n(0)]
    master: bool,
    /// Levels of the inputs.
    #[n(1)]
    lines: u8,
    /// Interrupt request register; of level-triggered inputs, those that are up.
    #[n(2)]
    irr: u8,
    #[n(3)]
    imr: u8,
    #[n(4)]
    isr: u8,
    /// The edge/level control register.
    #[n(5)]
    elcr: u8,
    /// The input with the lowest priority.
    #[n(6)]
    lowest: u8,
    #[n(7)]
    icw1: u8,
    /// Bits 7:3 of the vectors.
    #[n(8)]
    vector: u8,
    #[n(9)]
    icw3: u8,
    #[n(10)]
    icw4: u8,
    #[n(11)]
    sequence: Sequence,
    #[n(12)]
    read_isr: bool,
    #[n(13)]
    poll: bool,
    #[n(14)]
    special_mask: bool,
    /// Rotate in automatic EOI mode.
    #[n(15)]
    rotate: bool,
}

impl Chip {
    pub fn new(master: bool) -> Self {
        Self { master, lowest: 7, icw4: icw4::X86, ..Self::default() }
    }
    /// Power-up; the levels of the inputs stay.
    pub fn reset(&mut self) {
        *self = Self { lines: self.lines, ..Self::new(self.master) };
    }
    /// After loading: what the guest could not have made.
    pub fn sanitize(&mut self, master: bool) {
        self.master = master;
        self.lowest &= 7;
        self.vector &= 0xf8;
        self.elcr &= self.elcr_mask();
    }

    /// The inputs that can be made level-triggered one by one: not the timer, the keyboard, the cascade, the clock and the FPU.
    fn elcr_mask(&self) -> u8 {
        if self.master { 0xf8 } else { 0xde }
    }
    pub fn elcr(&self) -> u8 {
        self.elcr
    }
    pub fn set_elcr(&mut self, value: u8) {
        self.elcr = value & self.elcr_mask();
        self.follow_levels();
    }
    /// The level-triggered inputs.
    pub fn level_inputs(&self) -> u8 {
        if self.icw1 & icw1::LEVEL != 0 { 0xff } else { self.elcr }
    }
    fn follow_levels(&mut self) {
        let level = self.level_inputs();
        self.irr = self.irr & !level | self.lines & level;
    }
    pub fn has_slave(&self) -> bool {
        self.icw1 & icw1::SINGLE == 0
    }
    pub fn mcs80(&self) -> bool {
        self.sequence == Sequence::Done && self.icw4 & icw4::X86 == 0
    }
    /// ICW3 does not say how the chips are connected.
    pub fn wrongly_chained(&self) -> bool {
        let here = if self.master { 1 << super::CASCADE } else { super::CASCADE };
        self.sequence == Sequence::Done && self.icw1 & icw1::ICW1 != 0 && self.has_slave() && self.icw3 != here
    }

    /// Input `n` (0 to 7) changes.
    pub fn set_input(&mut self, n: u8, level: bool) {
        let bit = 1 << (n & 7);
        if level && self.lines & bit == 0 {
            self.irr |= bit;
        }
        self.import_input(n, level);
    }
    /// The same without an edge.
    pub fn import_input(&mut self, n: u8, level: bool) {
        let bit = 1 << (n & 7);
        self.lines = if level { self.lines | bit } else { self.lines & !bit };
        self.follow_levels();
    }

    /// The output of the other chip, on input `n`: its request is there as long as the other chip has one. (The other chip takes its
    /// output down at each INTA, so that what it still has to request is a new edge.)
    pub fn set_cascade(&mut self, n: u8, level: bool) {
        let bit = 1 << (n & 7);
        for register in [&mut self.lines, &mut self.irr] {
            *register = if level { *register | bit } else { *register & !bit };
        }
    }

    /// 0 is the highest priority.
    fn rank(&self, n: u8) -> u8 {
        n.wrapping_sub(self.lowest).wrapping_sub(1) & 7
    }
    fn best(&self, bits: u8) -> Option<u8> {
        (0..8).filter(|n| bits >> n & 1 != 0).min_by_key(|n| self.rank(*n))
    }
    /// The input that the chip requests an interrupt for.
    pub fn pending(&self) -> Option<u8> {
        let best = self.best(self.irr & !self.imr)?;
        // In special mask mode a masked input in service holds nothing back.
        let in_service = if self.special_mask { self.isr & !self.imr } else { self.isr };
        let Some(served) = self.best(in_service) else { return Some(best) };
        // In special fully nested mode further interrupts of the slave pass while one of it is in service.
        let nested = self.master && self.icw4 & icw4::FULLY_NESTED != 0 && best == super::CASCADE;
        let passes = self.rank(best) < self.rank(served) || nested && served == best;
        passes.then_some(best)
    }
    pub fn vector(&self, n: u8) -> u8 {
        self.vector | n & 7
    }
    /// INTA for input `n`; returns the inputs that are ended at once (automatic EOI).
    pub fn acknowledge(&mut self, n: u8) -> u8 {
        let bit = 1 << (n & 7);
        if self.level_inputs() & bit == 0 {
            self.irr &= !bit;
        }
        if self.icw4 & icw4::AUTO_EOI == 0 {
            self.isr |= bit;
            return 0;
        }
        if self.rotate {
            self.lowest = n & 7;
        }
        bit
    }

    /// Reads the command or data port; and the inputs that this ended.
    pub fn read(&mut self, data: bool) -> (u8, u8) {
        if !self.poll {
            return (self.peek(data), 0);
        }
        self.poll = false;
        match self.pending() {
            Some(n) => {
                let ended = self.acknowledge(n);
                (0x80 | n, ended)
            }
            None => (0, 0),
        }
    }
    pub fn peek(&self, data: bool) -> u8 {
        match (data, self.read_isr) {
            (true, _) => self.imr,
            (false, true) => self.isr,
            (false, false) => self.irr,
        }
    }
    /// Writes the command or data port; returns the inputs that this ended.
    pub fn write(&mut self, data: bool, value: u8) -> u8 {
        match (data, value & 0x18) {
            (true, _) => self.write_data(value),
            (false, 0) => return self.ocw2(value),
            (false, 8) => self.ocw3(value),
            _ => self.icw1(value),
        }
        0
    }
    fn icw1(&mut self, value: u8) {
        // The edge detectors are reset: inputs that are up need a new edge.
        self.icw1 = value;
        self.irr = 0;
        self.imr = 0;
        self.isr = 0;
        self.lowest = 7;
        self.special_mask = false;
        self.read_isr = false;
        self.poll = false;
        self.rotate = false;
        self.icw3 = 0;
        if value & icw1::ICW4 == 0 {
            self.icw4 = 0;
        }
        self.sequence = Sequence::Icw2;
        self.follow_levels();
    }
    fn write_data(&mut self, value: u8) {
        let after = |this: &Self, word| match word {
            Sequence::Icw2 if this.icw1 & icw1::SINGLE == 0 => Sequence::Icw3,
            Sequence::Icw2 | Sequence::Icw3 if this.icw1 & icw1::ICW4 != 0 => Sequence::Icw4,
            _ => Sequence::Done,
        };
        match self.sequence {
            Sequence::Done => self.imr = value,
            Sequence::Icw2 => self.vector = value & 0xf8,
            Sequence::Icw3 => self.icw3 = value,
            Sequence::Icw4 => self.icw4 = value,
        }
        self.sequence = after(self, self.sequence);
    }
    fn ocw2(&mut self, value: u8) -> u8 {
        let (rotate, specific, end) = (value & 0x80 != 0, value & 0x40 != 0, value & 0x20 != 0);
        let level = value & 7;
        match (end, specific, rotate) {
            (true, ..) => {
                let n = if specific {
                    Some(level)
                } else {
                    // Inputs masked in special mask mode are not ended so.
                    self.best(if self.special_mask { self.isr & !self.imr } else { self.isr })
                };
                let Some(n) = n else { return 0 };
                let ended = self.isr & 1 << n;
                self.isr &= !(1 << n);
                if rotate {
                    self.lowest = n;
                }
                return ended;
            }
            (false, false, _) => self.rotate = rotate,
            (false, true, true) => self.lowest = level,
            (false, true, false) => {}
        }
        0
    }
    fn ocw3(&mut self, value: u8) {
        if value & 4 != 0 {
            self.poll = true;
        }
        if value & 2 != 0 {
            self.read_isr = value & 1 != 0;
        }
        if value & 0x40 != 0 {
            self.special_mask = value & 0x20 != 0;
        }
    }

    pub fn describe(&self) -> String {
        let Self { irr, imr, isr, elcr, vector, lowest, .. } = self;
        format!(
            "irr={irr:02x} imr={imr:02x} isr={isr:02x} elcr={elcr:02x} vectors={vector:#04x} lowest={lowest} smm={} aeoi={} sfnm={} lines={:02x}",
            u8::from(self.special_mask),
            u8::from(self.icw4 & icw4::AUTO_EOI != 0),
            u8::from(self.icw4 & icw4::FULLY_NESTED != 0),
            self.lines,
        )
    }
}
