//! The registers and FIFOs, without the world around them: what is to be done outside comes back as an [`Effect`].

use super::spec::{DEPTH, FCR_CLEAR_RX, Fcr, Ier, Lcr, Lsr, Mcr, Msr, reg};
use std::collections::VecDeque;

/// What a change of state asks of the surroundings.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Effect {
    /// The character that left on the line.
    pub sent: Option<u8>,
    /// A break condition began on the line.
    pub send_break: bool,
    /// The receiver may have room for input that is held outside.
    pub room: bool,
    /// The receive time-out counts anew.
    pub timeout: bool,
}

/// A received character: its byte, and its errors as in LSR.
type Character = (u8, Lsr);

/// The state. The transmitter is always empty: a character leaves when it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub rx: VecDeque<Character>,
    /// What a read of an empty receiver answers: the last character.
    pub rbr: u8,
    pub ier: Ier,
    pub fcr: Fcr,
    pub lcr: Lcr,
    /// The guest wrote LCR since the reset: until then characters have 8 bits, for consoles that set nothing up.
    pub framed: bool,
    pub mcr: Mcr,
    /// The error bits of LSR; the others are computed.
    pub errors: Lsr,
    pub msr: Msr,
    pub scr: u8,
    pub divisor: u16,
    /// The THRE interrupt is pending.
    pub thre: bool,
    /// The character time-out is pending.
    pub timed_out: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            rx: VecDeque::with_capacity(DEPTH),
            rbr: 0,
            ier: Ier::empty(),
            fcr: Fcr::empty(),
            lcr: Lcr::empty(),
            framed: false,
            mcr: Mcr::empty(),
            errors: Lsr::empty(),
            msr: Msr::CTS | Msr::DSR | Msr::DCD,
            scr: 0,
            // 9600 baud; the data sheet leaves it undefined.
            divisor: 12,
            thre: false,
            timed_out: false,
        }
    }
}

impl State {
    pub fn fifo_enabled(&self) -> bool {
        self.fcr.contains(Fcr::ENABLE)
    }
    pub fn loopback(&self) -> bool {
        self.mcr.contains(Mcr::LOOP)
    }
    fn depth(&self) -> usize {
        if self.fifo_enabled() { DEPTH } else { 1 }
    }
    fn trigger(&self) -> usize {
        if self.fifo_enabled() { [1, 4, 8, 14][usize::from(self.fcr.bits() >> 6)] } else { 1 }
    }
    /// How many characters of the line fit now.
    pub fn room(&self) -> usize {
        // In loopback mode the receiver is cut off from the line.
        if self.loopback() { 0 } else { self.depth().saturating_sub(self.rx.len()) }
    }
    fn word_mask(&self) -> u8 {
        if self.framed { 0xff >> (3 - (self.lcr & Lcr::WLS).bits()) } else { 0xff }
    }
    /// Four characters, in ns; `clock` is the input clock in Hz.
    pub fn timeout_ns(&self, clock: u32) -> u64 {
        let wls = u64::from((self.lcr & Lcr::WLS).bits());
        let stops = 1 + u64::from(self.lcr.contains(Lcr::STB));
        let bits = 1 + 5 + wls + u64::from(self.lcr.contains(Lcr::PEN)) + stops;
        // A divisor of 0 makes no baud rate; the largest one stands for it.
        let divisor = if self.divisor == 0 { 1 << 16 } else { u64::from(self.divisor) };
        4 * bits * divisor * 16 * 1_000_000_000 / u64::from(clock.max(1))
    }
    fn lsr(&self) -> Lsr {
        let mut lsr = self.errors | Lsr::THRE | Lsr::TEMT;
        lsr.set(Lsr::DR, !self.rx.is_empty());
        lsr.set(Lsr::FIFO_ERROR, self.fifo_enabled() && self.rx.iter().any(|(_, errors)| !errors.is_empty()));
        lsr
    }
    /// The identification of the pending interrupt of highest priority (IIR bits 3 to 0).
    fn identification(&self) -> Option<u8> {
        if self.ier.contains(Ier::ELSI) && !self.errors.is_empty() {
            Some(0x06)
        } else if self.ier.contains(Ier::ERBFI) && self.rx.len() >= self.trigger() {
            Some(0x04)
        } else if self.ier.contains(Ier::ERBFI) && self.timed_out {
            Some(0x0c)
        } else if self.ier.contains(Ier::ETBEI) && self.thre {
            Some(0x02)
        } else if self.ier.contains(Ier::EDSSI) && self.msr.intersects(Msr::DELTAS) {
            Some(0x00)
        } else {
            None
        }
    }
    /// The interrupt output.
    pub fn interrupt(&self) -> bool {
        self.identification().is_some()
    }

    /// A character from the line or, in loopback mode, from the transmitter.
    pub fn receive(&mut self, byte: u8, errors: Lsr, effect: &mut Effect) {
        let character = (byte & self.word_mask(), errors);
        if self.rx.len() >= self.depth() {
            self.errors |= Lsr::OE;
            if !self.fifo_enabled() {
                // The new character replaces the one in the register.
                self.rx.clear();
                self.rx.push_back(character);
                self.show_errors();
            }
        } else {
            self.rx.push_back(character);
            if self.rx.len() == 1 {
                self.show_errors();
            }
        }
        effect.timeout = self.fifo_enabled();
    }
    /// The errors of the character at the top appear in LSR.
    fn show_errors(&mut self) {
        if let Some((_, errors)) = self.rx.front_mut() {
            self.errors |= *errors & Lsr::CHARACTER;
            if !self.fcr.contains(Fcr::ENABLE) {
                *errors = Lsr::empty();
            }
        }
    }
    /// The line has been quiet for four characters.
    pub fn quiet(&mut self) {
        self.timed_out = self.fifo_enabled() && !self.rx.is_empty();
    }
    fn clear_rx(&mut self, effect: &mut Effect) {
        self.rx.clear();
        self.timed_out = false;
        effect.room = true;
    }

    fn read_rbr(&mut self, effect: &mut Effect) -> u8 {
        if let Some((byte, _)) = self.rx.pop_front() {
            self.rbr = byte;
            self.timed_out = false;
            self.show_errors();
            effect.room = true;
            effect.timeout = self.fifo_enabled() && !self.rx.is_empty();
        }
        self.rbr
    }
    fn read_iir(&mut self) -> u8 {
        let fifos = if self.fifo_enabled() { 0xc0 } else { 0 };
        let id = self.identification();
        if id == Some(0x02) {
            self.thre = false;
        }
        fifos | id.unwrap_or(1)
    }
    fn read_lsr(&mut self) -> u8 {
        let lsr = self.lsr();
        self.errors = Lsr::empty();
        // Errors of the character at the top have been seen.
        if let Some((_, errors)) = self.rx.front_mut() {
            *errors = Lsr::empty();
        }
        lsr.bits()
    }
    fn read_msr(&mut self) -> u8 {
        let msr = self.msr.bits();
        self.msr -= Msr::DELTAS;
        msr
    }
    /// Does reading `register` leave the state as it is?
    pub fn pure(&self, register: u8) -> bool {
        match register {
            reg::DATA => self.lcr.contains(Lcr::DLAB),
            reg::IIR => !self.thre,
            reg::LSR => self.errors.is_empty(),
            reg::MSR => !self.msr.intersects(Msr::DELTAS),
            _ => true,
        }
    }
    pub fn read(&mut self, register: u8, effect: &mut Effect) -> u8 {
        let dlab = self.lcr.contains(Lcr::DLAB);
        match register {
            reg::DATA if dlab => self.divisor as u8,
            reg::DATA => self.read_rbr(effect),
            reg::IER if dlab => (self.divisor >> 8) as u8,
            reg::IER => self.ier.bits(),
            reg::IIR => self.read_iir(),
            reg::LCR => self.lcr.bits(),
            reg::MCR => self.mcr.bits(),
            reg::LSR => self.read_lsr(),
            reg::MSR => self.read_msr(),
            _ => self.scr,
        }
    }
    pub fn write(&mut self, register: u8, value: u8, effect: &mut Effect) {
        let dlab = self.lcr.contains(Lcr::DLAB);
        match register {
            reg::DATA if dlab => self.divisor = self.divisor & 0xff00 | u16::from(value),
            reg::DATA => self.transmit(value, effect),
            reg::IER if dlab => self.divisor = self.divisor & 0x00ff | u16::from(value) << 8,
            reg::IER => {
                let new = Ier::from_bits_truncate(value);
                // Enabling it while the register is empty makes the interrupt anew.
                if (new - self.ier).contains(Ier::ETBEI) {
                    self.thre = true;
                }
                self.ier = new;
            }
            reg::IIR => self.write_fcr(value, effect),
            reg::LCR => {
                let new = Lcr::from_bits_retain(value);
                let begins = (new - self.lcr).contains(Lcr::BREAK);
                self.lcr = new;
                self.framed = true;
                if begins && self.loopback() {
                    self.receive(0, Lsr::BI | Lsr::FE, effect);
                } else if begins {
                    effect.send_break = true;
                }
            }
            reg::MCR => self.write_mcr(Mcr::from_bits_truncate(value), effect),
            // Writing them is for factory testing.
            reg::LSR | reg::MSR => {}
            _ => self.scr = value,
        }
    }
    fn transmit(&mut self, value: u8, effect: &mut Effect) {
        let value = value & self.word_mask();
        if self.loopback() {
            self.receive(value, Lsr::empty(), effect);
        } else {
            effect.sent = Some(value);
        }
        // It left at once: the register is empty again.
        self.thre = true;
    }
    fn write_fcr(&mut self, value: u8, effect: &mut Effect) {
        let new = if value & 1 != 0 { Fcr::from_bits_truncate(value) } else { Fcr::empty() };
        if (new ^ self.fcr).contains(Fcr::ENABLE) || new.contains(Fcr::ENABLE) && value & FCR_CLEAR_RX != 0 {
            self.clear_rx(effect);
        }
        self.fcr = new;
    }
    fn write_mcr(&mut self, new: Mcr, effect: &mut Effect) {
        self.mcr = new;
        let mut inputs = Msr::CTS | Msr::DSR | Msr::DCD;
        if self.loopback() {
            inputs = Msr::empty();
            for (output, input) in
                [(Mcr::RTS, Msr::CTS), (Mcr::DTR, Msr::DSR), (Mcr::OUT1, Msr::RI), (Mcr::OUT2, Msr::DCD)]
            {
                inputs.set(input, new.contains(output));
            }
        }
        self.set_modem(inputs);
        effect.room = true;
    }
    /// The modem inputs are `inputs` now.
    fn set_modem(&mut self, inputs: Msr) {
        let old = self.msr - Msr::DELTAS;
        let changed = old ^ inputs;
        let mut deltas = self.msr & Msr::DELTAS;
        deltas |= if changed.contains(Msr::CTS) { Msr::DCTS } else { Msr::empty() };
        deltas |= if changed.contains(Msr::DSR) { Msr::DDSR } else { Msr::empty() };
        deltas |= if changed.contains(Msr::DCD) { Msr::DDCD } else { Msr::empty() };
        // Only the end of a ring counts.
        deltas |= if changed.contains(Msr::RI) && old.contains(Msr::RI) { Msr::TERI } else { Msr::empty() };
        self.msr = inputs | deltas;
    }
}
