//! The controller itself; what is to be done outside comes back as an [`Effect`].

use crate::ps2::{Keyboard, Mouse, Translator};
use std::collections::VecDeque;

/// Status register.
pub(super) mod status {
    pub const OUTPUT_FULL: u8 = 1 << 0;
    pub const SYSTEM_FLAG: u8 = 1 << 2;
    /// The last write was a command.
    pub const COMMAND: u8 = 1 << 3;
    /// The keyboard's lock is open.
    pub const UNLOCKED: u8 = 1 << 4;
    pub const AUX_OUTPUT_FULL: u8 = 1 << 5;
}

/// The command byte, RAM cell 0.
mod control {
    pub const INT: u8 = 1 << 0;
    pub const INT2: u8 = 1 << 1;
    pub const SYS: u8 = 1 << 2;
    pub const DISABLE: u8 = 1 << 4;
    pub const DISABLE2: u8 = 1 << 5;
    pub const TRANSLATE: u8 = 1 << 6;
}

/// Output port.
const NO_RESET: u8 = 1 << 0;
const A20: u8 = 1 << 1;
const OUTPUT_IRQ1: u8 = 1 << 4;
const OUTPUT_IRQ12: u8 = 1 << 5;
/// What a guest sets in the output port stays: reset, A20 and the lines of the devices.
const OUTPUT_WRITABLE: u8 = 0xcf;

/// A byte for the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
struct Output {
    #[n(0)]
    byte: u8,
    #[n(1)]
    aux: bool,
}

/// What a change of state asks of the surroundings.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Effect {
    pub reset: bool,
    /// The output buffer was read: the interrupt ends before the next one.
    pub taken: bool,
    /// A key repeats after this time in ns.
    pub repeat_after: Option<u64>,
    /// A command that nothing comes of.
    pub unknown: Option<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub(super) struct State {
    /// Cell 0 is the command byte.
    #[n(0)]
    ram: [u8; 32],
    #[n(1)]
    output_port: u8,
    #[n(2)]
    output: Option<Output>,
    /// Answers of the controller that wait for the output buffer.
    #[n(3)]
    answers: VecDeque<Output>,
    /// The command whose parameter comes next.
    #[n(4)]
    command: Option<u8>,
    /// The last write was a command.
    #[n(5)]
    was_command: bool,
    #[n(6)]
    system_flag: bool,
    /// What port 0x60 answers while the output buffer is empty: the last byte.
    #[n(7)]
    last: u8,
    #[n(8)]
    translator: Translator,
    #[n(9)]
    pub keyboard: Keyboard,
    #[n(10)]
    pub mouse: Mouse,
}

impl Default for State {
    fn default() -> Self {
        let mut ram = [0; 32];
        ram[0] = control::INT | control::INT2;
        Self {
            ram,
            output_port: NO_RESET | A20,
            output: None,
            answers: VecDeque::new(),
            command: None,
            was_command: false,
            system_flag: false,
            last: 0,
            translator: Translator::default(),
            keyboard: Keyboard::default(),
            mouse: Mouse::default(),
        }
    }
}

impl State {
    fn has(&self, bit: u8) -> bool {
        self.ram[0] & bit != 0
    }
    pub fn a20(&self) -> bool {
        self.output_port & A20 != 0
    }
    pub fn irq1(&self) -> bool {
        self.has(control::INT) && self.output.is_some_and(|output| !output.aux)
    }
    pub fn irq12(&self) -> bool {
        self.has(control::INT2) && self.output.is_some_and(|output| output.aux)
    }
    pub fn status(&self) -> u8 {
        let mut value = status::UNLOCKED;
        if let Some(output) = self.output {
            value |= status::OUTPUT_FULL | if output.aux { status::AUX_OUTPUT_FULL } else { 0 };
        }
        value |= if self.system_flag { status::SYSTEM_FLAG } else { 0 };
        value | if self.was_command { status::COMMAND } else { 0 }
    }
    /// Port 0x60, without taking the byte.
    pub fn peek(&self) -> u8 {
        self.output.map_or(self.last, |output| output.byte)
    }
    pub fn read_data(&mut self, effect: &mut Effect) -> u8 {
        if let Some(output) = self.output.take() {
            self.last = output.byte;
            effect.taken = true;
        }
        self.last
    }
    /// Fills the output buffer if it is empty: the controller's own answers first, then the keyboard, then the mouse.
    pub fn fill(&mut self) {
        if self.output.is_none() {
            self.output = self.answers.pop_front();
        }
        while self.output.is_none() && !self.has(control::DISABLE) {
            let Some(byte) = self.keyboard.pop() else { break };
            let byte = if self.has(control::TRANSLATE) { self.translator.next(byte) } else { Some(byte) };
            self.output = byte.map(|byte| Output { byte, aux: false });
        }
        if self.output.is_none() && !self.has(control::DISABLE2) {
            self.output = self.mouse.pop().map(|byte| Output { byte, aux: true });
        }
    }
    fn answer(&mut self, byte: u8) {
        // The controller has one answer; a guest that asks again without taking it loses it.
        self.answers.clear();
        self.answers.push_back(Output { byte, aux: false });
    }
    fn set_output_port(&mut self, value: u8, effect: &mut Effect) {
        self.output_port = value & OUTPUT_WRITABLE;
        effect.reset |= value & NO_RESET == 0;
    }
    fn set_control(&mut self, value: u8) {
        self.ram[0] = value;
        self.system_flag = value & control::SYS != 0;
    }
    fn to_keyboard(&mut self, byte: u8) {
        // Its clock must run for that.
        self.ram[0] &= !control::DISABLE;
        self.keyboard.write(byte);
    }
    /// Port 0x60.
    pub fn write_data(&mut self, byte: u8, effect: &mut Effect) {
        self.was_command = false;
        match self.command.take() {
            None => self.to_keyboard(byte),
            Some(0x60) => self.set_control(byte),
            Some(command @ 0x61..=0x7f) => self.ram[usize::from(command & 0x1f)] = byte,
            Some(0xd1) => self.set_output_port(byte, effect),
            Some(0xd2) => self.answer(byte),
            Some(0xd3) => {
                self.answers.clear();
                self.answers.push_back(Output { byte, aux: true });
            }
            Some(0xd4) => {
                self.ram[0] &= !control::DISABLE2;
                self.mouse.write(byte);
            }
            // A password: there is no use of it.
            Some(_) if byte != 0 => self.command = Some(0xa5),
            Some(_) => {}
        }
    }
    /// Port 0x64.
    pub fn write_command(&mut self, command: u8, effect: &mut Effect) {
        self.was_command = true;
        self.command = None;
        match command {
            0x00..=0x3f => self.answer(self.ram[usize::from(command & 0x1f)]),
            0x40..=0x7f | 0xd1..=0xd4 | 0xa5 => {
                self.command = Some(if command < 0x60 { command + 0x20 } else { command });
            }
            // No password is installed, so it cannot be enabled either.
            0xa4 => self.answer(0xf1),
            0xa6 => {}
            0xa7 => self.ram[0] |= control::DISABLE2,
            0xa8 => self.ram[0] &= !control::DISABLE2,
            // The clock and data lines of both devices are well.
            0xa9 | 0xab => self.answer(0),
            0xaa => {
                self.system_flag = true;
                self.ram[0] |= control::SYS;
                self.answer(0x55);
            }
            0xad => self.ram[0] |= control::DISABLE,
            0xae => self.ram[0] &= !control::DISABLE,
            // Input port: the lock is open.
            0xc0 => self.answer(0x80),
            0xd0 => {
                let lines = if self.irq1() { OUTPUT_IRQ1 } else { 0 } | if self.irq12() { OUTPUT_IRQ12 } else { 0 };
                self.answer(self.output_port | lines);
            }
            0xdd => self.output_port &= !A20,
            0xdf => self.output_port |= A20,
            // Test inputs: both clocks, which run unless disabled.
            0xe0 => {
                let clock = |disabled: u8, bit: u8| if self.has(disabled) { 0 } else { bit };
                self.answer(clock(control::DISABLE, 1) | clock(control::DISABLE2, 2));
            }
            // Pulses on the low bits of the output port, those that are 0.
            0xf0..=0xff => effect.reset |= command & NO_RESET == 0,
            _ => effect.unknown = Some(command),
        }
    }
    /// Are all values ones that the controller can have?
    pub fn sane(&self) -> bool {
        self.answers.len() <= 1 && self.keyboard.sane() && self.mouse.sane()
    }
}
