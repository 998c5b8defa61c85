//! The registers and FIFOs, without the world around them: what is to be done outside comes back as an [`Effect`].

use super::spec::{Cr, DEPTH, Fr, ITOP_INTERRUPTS, Int, LcrH, Reg, Tcr, dr};
use crate::primecell;
use std::collections::VecDeque;

/// What a change of state asks of the surroundings.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Effect {
    /// Characters that left on the line.
    pub sent: Vec<u8>,
    /// A break condition began on the line.
    pub send_break: bool,
    /// The receiver may have room for input that is held outside.
    pub room: bool,
    /// The receive timeout counts anew.
    pub timeout: bool,
    /// The guest enabled a DMA request.
    pub dma: bool,
}

/// The state; registers hold only implemented bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub rx: VecDeque<u16>,
    /// Characters that wait for the transmitter to be enabled.
    pub tx: VecDeque<u8>,
    /// UARTRSR, in the low bits.
    pub rsr: u8,
    pub ilpr: u8,
    pub ibrd: u16,
    pub fbrd: u8,
    /// UARTIBRD and UARTFBRD as of the last write of UARTLCR_H, in 1/64.
    pub divisor: u32,
    pub lcr_h: LcrH,
    pub cr: Cr,
    /// The guest wrote UARTCR since the reset.
    pub programmed: bool,
    /// The guest wrote UARTLCR_H since the reset.
    pub framed: bool,
    pub ifls: u8,
    pub imsc: Int,
    pub ris: Int,
    pub dmacr: u8,
    pub tcr: Tcr,
    pub itip: u8,
    pub itop: u16,
    /// A character was lost since the last one that entered the receive FIFO.
    pub overrun: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            rx: VecDeque::with_capacity(DEPTH),
            tx: VecDeque::with_capacity(DEPTH),
            rsr: 0,
            ilpr: 0,
            ibrd: 0,
            fbrd: 0,
            divisor: 0,
            lcr_h: LcrH::empty(),
            cr: Cr::TXE | Cr::RXE,
            programmed: false,
            framed: false,
            ifls: 0x12,
            imsc: Int::empty(),
            ris: Int::empty(),
            dmacr: 0,
            tcr: Tcr::empty(),
            itip: 0,
            itop: 0,
            overrun: false,
        }
    }
}

impl State {
    pub fn fifo_enabled(&self) -> bool {
        self.lcr_h.contains(LcrH::FEN)
    }
    fn depth(&self) -> usize {
        if self.fifo_enabled() { DEPTH } else { 1 }
    }
    /// The fill at which UARTIFLS (a field of it) puts a trigger: 1/8, 1/4, 1/2, 3/4, 7/8; reserved values act as the last.
    fn level(field: u8) -> usize {
        [2, 4, 8, 12, 14, 14, 14, 14][usize::from(field & 7)]
    }
    fn rx_level(&self) -> usize {
        if self.fifo_enabled() { Self::level(self.ifls >> 3) } else { 1 }
    }
    fn tx_level(&self) -> usize {
        if self.fifo_enabled() { Self::level(self.ifls) } else { 0 }
    }
    /// Is `part` enabled? A kernel that is started directly, and early consoles, find the UART as firmware would have left it:
    /// until UARTCR is first written it works.
    fn enabled(&self, part: Cr) -> bool {
        !self.programmed || self.cr.contains(Cr::UARTEN | part)
    }
    fn loopback(&self) -> bool {
        self.cr.contains(Cr::LBE)
    }
    /// How many characters from outside fit now.
    pub fn room(&self) -> usize {
        if self.loopback() || !self.enabled(Cr::RXE) || self.tcr.contains(Tcr::TESTFIFO) {
            return 0;
        }
        self.depth().saturating_sub(self.rx.len())
    }
    /// Nanoseconds of 32 bit periods with UARTCLK at 24 MHz.
    pub fn timeout_ns(&self) -> u64 {
        // A bit lasts 16 * divisor / 64 clocks.
        u64::from(self.divisor) * 16 * 32 * 1000 / (64 * 24)
    }
    pub fn interrupt(&self) -> bool {
        if self.tcr.contains(Tcr::ITEN) { self.itop & ITOP_INTERRUPTS != 0 } else { self.ris.intersects(self.imsc) }
    }

    /// A character (with error bits) arrives at the receiver.
    pub fn receive(&mut self, character: u16, effect: &mut Effect) {
        if self.rx.len() >= self.depth() {
            self.overrun = true;
            self.rsr |= (dr::OE >> 8) as u8;
            self.ris |= Int::OE;
            return;
        }
        let lost = if std::mem::take(&mut self.overrun) { dr::OE } else { 0 };
        self.rx.push_back(character | lost);
        for (bit, int) in [(dr::FE, Int::FE), (dr::PE, Int::PE), (dr::BE, Int::BE)] {
            if character & bit != 0 {
                self.ris |= int;
            }
        }
        if self.rx.len() >= self.rx_level() {
            self.ris |= Int::RX;
        }
        effect.timeout = self.fifo_enabled();
    }
    /// No character came for 32 bit periods.
    pub fn timed_out(&mut self) {
        if !self.rx.is_empty() && self.fifo_enabled() {
            self.ris |= Int::RT;
        }
    }
    fn take_received(&mut self, effect: &mut Effect) -> u16 {
        let character = self.rx.pop_front().unwrap_or(0);
        // The overrun bit is about now, the others are about the character.
        self.rsr = (character >> 8) as u8 & 0xf | self.rsr & (dr::OE >> 8) as u8;
        self.received_less(effect);
        character
    }
    fn received_less(&mut self, effect: &mut Effect) {
        if self.rx.len() < self.rx_level() {
            self.ris -= Int::RX;
        }
        if self.rx.is_empty() {
            self.ris -= Int::RT;
        }
        effect.room = true;
    }

    /// Sends what waits. The line takes characters at once, so that the FIFO drains here. A disabled transmitter sends too:
    /// early consoles write without enabling it, also after Linux' driver restored the reset value of UARTCR, and would wait
    /// for ever.
    fn transmit(&mut self, effect: &mut Effect) {
        if self.tcr.contains(Tcr::TESTFIFO) || self.tx.is_empty() || self.lcr_h.contains(LcrH::BRK) {
            return;
        }
        // As with UARTCR: firmware would have chosen 8 bits.
        let word = if self.framed { 0xffu8 >> (3 - (self.lcr_h.bits() >> 5 & 3)) } else { 0xff };
        while let Some(character) = self.tx.pop_front() {
            if self.loopback() {
                self.receive(u16::from(character & word), effect);
            } else {
                effect.sent.push(character & word);
            }
        }
        self.ris |= Int::TX;
    }

    /// CTS, DSR, DCD and RI as in UARTFR: the peer is always ready, or the own outputs in loopback.
    fn modem(&self) -> Fr {
        if !self.loopback() {
            return Fr::CTS | Fr::DSR | Fr::DCD;
        }
        let pairs = [(Cr::RTS, Fr::CTS), (Cr::DTR, Fr::DSR), (Cr::OUT1, Fr::DCD), (Cr::OUT2, Fr::RI)];
        pairs.into_iter().filter(|(out, _)| self.cr.contains(*out)).map(|(_, input)| input).collect()
    }
    fn flags(&self) -> Fr {
        let mut fr = self.modem();
        fr.set(Fr::RXFE, self.rx.is_empty());
        fr.set(Fr::RXFF, self.rx.len() >= self.depth());
        fr.set(Fr::TXFE, self.tx.is_empty());
        fr.set(Fr::TXFF, self.tx.len() >= self.depth());
        fr.set(Fr::BUSY, !self.tx.is_empty());
        fr
    }

    pub fn read(&mut self, reg: Reg, index: u32, effect: &mut Effect) -> u64 {
        match reg {
            Reg::Dr => self.take_received(effect).into(),
            Reg::Rsr => self.rsr.into(),
            Reg::Fr => self.flags().bits().into(),
            Reg::Ilpr => self.ilpr.into(),
            Reg::Ibrd => self.ibrd.into(),
            Reg::Fbrd => self.fbrd.into(),
            Reg::LcrH => self.lcr_h.bits().into(),
            Reg::Cr => self.cr.bits().into(),
            Reg::Ifls => self.ifls.into(),
            Reg::Imsc => self.imsc.bits().into(),
            Reg::Ris => self.ris.bits().into(),
            Reg::Mis => (self.ris & self.imsc).bits().into(),
            Reg::Icr => 0,
            Reg::Dmacr => self.dmacr.into(),
            Reg::Tcr => self.tcr.bits().into(),
            Reg::Itip => self.test_inputs().into(),
            Reg::Itop => self.test_outputs().into(),
            Reg::Tdr if self.tcr.contains(Tcr::TESTFIFO) => self.tx.pop_front().unwrap_or(0).into(),
            Reg::Tdr => 0,
            // r1p4: the last revision with FIFOs of 16.
            Reg::Id => primecell::id(index, 0x011, 2, 0).into(),
        }
    }

    /// UARTITIP: the DMA clears as written, the modem inputs (low-active), the idle serial inputs.
    fn test_inputs(&self) -> u8 {
        let fr = self.modem();
        let low = |input: Fr, bit: u8| if fr.contains(input) { 0 } else { 1 << bit };
        self.itip & 0xc0 | low(Fr::RI, 5) | low(Fr::DCD, 4) | low(Fr::CTS, 3) | low(Fr::DSR, 2) | 1
    }
    /// UARTITOP: what was written in test mode, the outputs otherwise.
    fn test_outputs(&self) -> u16 {
        if self.tcr.contains(Tcr::ITEN) {
            return self.itop;
        }
        let mis = self.ris & self.imsc;
        let mut value = 1u16;
        let groups = [
            (Int::RI | Int::CTS | Int::DCD | Int::DSR, 11),
            (Int::RX, 10),
            (Int::TX, 9),
            (Int::RT, 8),
            (Int::FE | Int::PE | Int::BE | Int::OE, 7),
            (Int::all(), 6),
        ];
        for (ints, bit) in groups {
            value |= u16::from(mis.intersects(ints)) << bit;
        }
        for (out, bit) in [(Cr::OUT2, 5), (Cr::OUT1, 4), (Cr::RTS, 3), (Cr::DTR, 2)] {
            value |= u16::from(!self.cr.contains(out)) << bit;
        }
        value
    }

    /// Writes the bits of `mask` (within the register) of `value`.
    pub fn write(&mut self, reg: Reg, value: u64, mask: u64, effect: &mut Effect) {
        let merge = |old: u64| (old & !mask | value & mask) as u16;
        match reg {
            Reg::Dr => {
                if mask & 0xff != 0 {
                    self.put(value as u8, effect);
                }
            }
            Reg::Rsr => {
                self.rsr = 0;
            }
            Reg::Ilpr => self.ilpr = merge(self.ilpr.into()) as u8,
            Reg::Ibrd => self.ibrd = merge(self.ibrd.into()),
            Reg::Fbrd => self.fbrd = merge(self.fbrd.into()) as u8 & 0x3f,
            Reg::LcrH => self.write_lcr_h(LcrH::from_bits_retain(merge(self.lcr_h.bits().into()) as u8), effect),
            Reg::Cr => self.write_cr(Cr::from_bits_truncate(merge(self.cr.bits().into())), effect),
            Reg::Ifls => {
                self.ifls = merge(self.ifls.into()) as u8 & 0x3f;
                if self.rx.len() >= self.rx_level() {
                    self.ris |= Int::RX;
                }
            }
            Reg::Imsc => self.imsc = Int::from_bits_truncate(merge(self.imsc.bits().into())),
            Reg::Icr => {
                self.ris -= Int::from_bits_truncate((value & mask) as u16);
                // Characters below the trigger level must not be forgotten.
                effect.timeout = !self.rx.is_empty() && self.fifo_enabled() && !self.ris.contains(Int::RT);
            }
            Reg::Dmacr => {
                self.dmacr = merge(self.dmacr.into()) as u8 & 7;
                effect.dma = self.dmacr & 3 != 0;
            }
            Reg::Tcr => {
                self.tcr = Tcr::from_bits_truncate(merge(self.tcr.bits().into()) as u8);
                self.transmit(effect);
                effect.room = true;
            }
            Reg::Itip => self.itip = merge(self.itip.into()) as u8 & 0xc0,
            Reg::Itop => self.itop = merge(self.itop.into()),
            Reg::Tdr if self.tcr.contains(Tcr::TESTFIFO) => self.receive((value & mask & 0x7ff) as u16, effect),
            Reg::Tdr | Reg::Fr | Reg::Ris | Reg::Mis | Reg::Id => {}
        }
    }

    fn put(&mut self, character: u8, effect: &mut Effect) {
        // A full FIFO loses what is written to it.
        if self.tx.len() < self.depth() {
            self.tx.push_back(character);
            if self.tx.len() > self.tx_level() {
                self.ris -= Int::TX;
            }
        }
        self.transmit(effect);
    }

    fn write_lcr_h(&mut self, new: LcrH, effect: &mut Effect) {
        let old = std::mem::replace(&mut self.lcr_h, new);
        self.framed = true;
        self.divisor = u32::from(self.ibrd) << 6 | u32::from(self.fbrd);
        if old.contains(LcrH::FEN) && !new.contains(LcrH::FEN) {
            self.tx.clear();
            self.rx.clear();
            self.ris -= Int::RX | Int::RT;
            effect.room = true;
        } else if !old.contains(LcrH::FEN) && new.contains(LcrH::FEN) {
            self.received_less(effect);
            effect.timeout = !self.rx.is_empty();
        }
        if new.contains(LcrH::BRK) && !old.contains(LcrH::BRK) && self.enabled(Cr::TXE) {
            if self.loopback() {
                self.receive(dr::BE, effect);
            } else {
                effect.send_break = true;
            }
        }
        self.transmit(effect);
    }

    fn write_cr(&mut self, new: Cr, effect: &mut Effect) {
        let before = self.modem();
        self.cr = new;
        self.programmed = true;
        let changed = before ^ self.modem();
        for (input, int) in [(Fr::CTS, Int::CTS), (Fr::DSR, Int::DSR), (Fr::DCD, Int::DCD), (Fr::RI, Int::RI)] {
            if changed.contains(input) {
                self.ris |= int;
            }
        }
        self.transmit(effect);
        effect.room = true;
    }
}
