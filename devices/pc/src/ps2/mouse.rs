//! The mouse: standard, with a wheel, and with five buttons (IBM PS/2 mouse; Microsoft IntelliMouse and Explorer extensions).

use super::answer::{ACK, BAT, RESEND};
use crate::input::{Button, InputEvent};
use std::collections::VecDeque;

/// Reports that wait for the host, in bytes: more motion is added up, but button changes are kept apart as long as they fit.
const BUFFER: usize = 64;

/// The state. Its output is what [`Self::pop`] gives.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub(crate) struct Mouse {
    /// Answers to commands, which go before reports.
    #[n(0)]
    answers: VecDeque<u8>,
    #[n(1)]
    reports: VecDeque<u8>,
    /// The command whose parameter comes next.
    #[n(2)]
    command: Option<u8>,
    /// What the host's Identify gets: 0, 3 (wheel) or 4 (wheel and five buttons).
    #[n(3)]
    id: u8,
    #[n(4)]
    reporting: bool,
    /// Reports only when asked.
    #[n(5)]
    remote: bool,
    /// Sends back what it gets.
    #[n(6)]
    wrap: bool,
    /// Scaling 2:1.
    #[n(7)]
    doubled: bool,
    #[n(8)]
    resolution: u8,
    #[n(9)]
    rate: u8,
    /// The two sample rates set before the present one.
    #[n(10)]
    rates: [u8; 2],
    #[n(11)]
    last: u8,
    /// Bits as in a report: left, right, middle, fourth, fifth.
    #[n(12)]
    buttons: u8,
    #[n(13)]
    dx: i32,
    #[n(14)]
    dy: i32,
    #[n(15)]
    dz: i32,
}

impl Default for Mouse {
    fn default() -> Self {
        Self {
            answers: VecDeque::new(),
            reports: VecDeque::new(),
            command: None,
            id: 0,
            reporting: false,
            remote: false,
            wrap: false,
            doubled: false,
            resolution: 2,
            rate: 100,
            rates: [0; 2],
            last: 0,
            buttons: 0,
            dx: 0,
            dy: 0,
            dz: 0,
        }
    }
}

/// Scaling 2:1.
fn double(n: i32) -> i32 {
    let size = match n.abs() {
        0 => 0,
        1 | 2 => 1,
        3 => 3,
        4 => 6,
        5 => 9,
        more => more * 2,
    };
    size * n.signum()
}

impl Mouse {
    /// The next byte for the host.
    pub fn pop(&mut self) -> Option<u8> {
        if self.answers.is_empty() && self.reports.is_empty() && self.moved() && self.streaming() {
            self.report(false);
        }
        let byte = self.answers.pop_front().or_else(|| self.reports.pop_front())?;
        self.last = byte;
        Some(byte)
    }
    fn streaming(&self) -> bool {
        self.reporting && !self.remote && !self.wrap
    }
    fn moved(&self) -> bool {
        self.dx != 0 || self.dy != 0 || self.dz != 0 && self.id != 0
    }
    fn packet(&self) -> usize {
        if self.id == 0 { 3 } else { 4 }
    }
    /// Makes a report of what has come together; what does not fit in one stays for the next.
    fn report(&mut self, asked: bool) {
        let dx = self.dx.clamp(-255, 255);
        let dy = self.dy.clamp(-255, 255);
        let dz = self.dz.clamp(-8, 7);
        self.dx -= dx;
        self.dy -= dy;
        self.dz = if self.id == 0 { 0 } else { self.dz - dz };
        // Only reports of stream mode are scaled.
        let scale = |n| if self.doubled && !asked { double(n) } else { n };
        let (x, y) = (scale(dx), scale(dy));
        let overflow = |n: i32| u8::from(!(-256..=255).contains(&n));
        let first =
            8 | self.buttons & 7 | u8::from(x < 0) << 4 | u8::from(y < 0) << 5 | overflow(x) << 6 | overflow(y) << 7;
        let out = if asked { &mut self.answers } else { &mut self.reports };
        out.extend([first, x as u8, y as u8]);
        match self.id {
            3 => out.push_back(dz as u8),
            4 => out.push_back(dz as u8 & 0x0f | (self.buttons & 0x18) << 1),
            _ => {}
        }
    }
    /// What the user did together.
    pub fn input(&mut self, events: &[InputEvent]) {
        const FAR: i32 = 1 << 16;
        let before = self.buttons;
        for event in events {
            match *event {
                // The mouse counts up and towards the user as positive.
                InputEvent::Relative { dx, dy } => {
                    self.dx = self.dx.saturating_add(dx).clamp(-FAR, FAR);
                    self.dy = self.dy.saturating_sub(dy).clamp(-FAR, FAR);
                }
                InputEvent::Wheel { vertical, .. } => {
                    self.dz = self.dz.saturating_sub(vertical).clamp(-FAR, FAR);
                }
                InputEvent::Button { button, down } => {
                    let bit = match button {
                        Button::Left => 1,
                        Button::Right => 2,
                        Button::Middle => 4,
                        Button::Side => 8,
                        Button::Extra => 16,
                    };
                    if down { self.buttons |= bit } else { self.buttons &= !bit }
                }
                InputEvent::Absolute { .. } | InputEvent::Key { .. } => {}
            }
        }
        if !self.streaming() {
            // Nobody wants to know where it has been.
            if !self.reporting && !self.remote {
                (self.dx, self.dy, self.dz) = (0, 0, 0);
            }
            return;
        }
        let seen = if self.id == 4 { 0x1f } else { 7 };
        if (before ^ self.buttons) & seen != 0 && self.reports.len() + self.packet() <= BUFFER {
            self.report(false);
        }
    }

    fn defaults(&mut self) {
        self.reports.clear();
        self.reporting = false;
        self.remote = false;
        self.doubled = false;
        self.resolution = 2;
        self.rate = 100;
        (self.dx, self.dy, self.dz) = (0, 0, 0);
    }
    /// A byte from the host.
    pub fn write(&mut self, byte: u8) {
        self.answers.clear();
        if self.wrap && !matches!(byte, 0xec | 0xff) {
            self.answers.push_back(byte);
            return;
        }
        match self.command.take() {
            Some(0xe8) => {
                self.resolution = byte & 3;
                self.answers.push_back(if byte < 4 { ACK } else { RESEND });
            }
            Some(_) => self.set_rate(byte),
            None => self.command(byte),
        }
    }
    fn set_rate(&mut self, rate: u8) {
        // Sequences of rates make a mouse tell that it can more.
        match [self.rates[0], self.rates[1], rate] {
            [200, 100, 80] => self.id = self.id.max(3),
            [200, 200, 80] => self.id = 4,
            _ => {}
        }
        self.rates = [self.rates[1], rate];
        self.rate = rate;
        self.answers.push_back(ACK);
    }
    fn command(&mut self, byte: u8) {
        if byte == 0xfe {
            self.answers.push_back(self.last);
            return;
        }
        if byte == 0xff {
            *self = Self { buttons: self.buttons, ..Self::default() };
            self.answers.extend([ACK, BAT, self.id]);
            return;
        }
        self.answers.push_back(ACK);
        match byte {
            0xe6 => self.doubled = false,
            0xe7 => self.doubled = true,
            0xe8 | 0xf3 => self.command = Some(byte),
            0xe9 => {
                let status = u8::from(self.remote) << 6
                    | u8::from(self.reporting) << 5
                    | u8::from(self.doubled) << 4
                    | (self.buttons & 1) << 2
                    | (self.buttons & 4) >> 1
                    | (self.buttons & 2) >> 1;
                self.answers.extend([status, self.resolution, self.rate]);
            }
            0xea => self.remote = false,
            0xeb => self.report(true),
            0xec => self.wrap = false,
            0xee => self.wrap = true,
            0xf0 => self.remote = true,
            0xf2 => self.answers.push_back(self.id),
            0xf4 => self.reporting = true,
            0xf5 => {
                self.reports.clear();
                self.reporting = false;
            }
            0xf6 => self.defaults(),
            _ => self.answers[0] = RESEND,
        }
    }
    /// Are all values ones that the mouse can have?
    pub fn sane(&self) -> bool {
        self.answers.len() <= 8 && self.reports.len() <= BUFFER && matches!(self.id, 0 | 3 | 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn take(mouse: &mut Mouse) -> Vec<u8> {
        std::iter::from_fn(|| mouse.pop()).collect()
    }
    fn send(mouse: &mut Mouse, bytes: &[u8]) -> Vec<u8> {
        let mut all = vec![];
        for byte in bytes {
            mouse.write(*byte);
            all.extend(std::iter::from_fn(|| mouse.answers.pop_front()));
        }
        all
    }
    fn press(button: Button) -> InputEvent {
        InputEvent::Button { button, down: true }
    }

    #[test]
    fn commands() {
        let mut m = Mouse::default();
        assert_eq!(send(&mut m, &[0xff]), [0xfa, 0xaa, 0]);
        assert_eq!(send(&mut m, &[0xf2]), [0xfa, 0]);
        assert_eq!(send(&mut m, &[0xe7, 0xe8, 3, 0xf3, 60, 0xf4]), [0xfa; 6]);
        assert_eq!(send(&mut m, &[0xe9]), [0xfa, 0x30, 3, 60]);
        assert_eq!(send(&mut m, &[0xee, 0xf2, 0xec]), [0xfa, 0xf2, 0xfa]);
        assert_eq!(send(&mut m, &[0x01]), [0xfe]);
        assert_eq!(send(&mut m, &[0xf6, 0xe9]), [0xfa, 0xfa, 0, 2, 100]);
    }

    #[test]
    fn knocking() {
        let mut m = Mouse::default();
        send(&mut m, &[0xf3, 200, 0xf3, 100, 0xf3, 80]);
        assert_eq!(send(&mut m, &[0xf2]), [0xfa, 3]);
        send(&mut m, &[0xf3, 200, 0xf3, 200, 0xf3, 80]);
        assert_eq!(send(&mut m, &[0xf2, 0xf4]), [0xfa, 4, 0xfa]);
        m.input(&[InputEvent::Relative { dx: 5, dy: 3 }, InputEvent::Wheel { vertical: 1, horizontal: 0 }]);
        assert_eq!(take(&mut m), [0x28, 5, 0xfd, 0x0f]);
        m.input(&[press(Button::Side)]);
        m.input(&[press(Button::Middle)]);
        assert_eq!(take(&mut m), [0x08, 0, 0, 0x10, 0x0c, 0, 0, 0x10]);
    }

    #[test]
    fn motion() {
        let mut m = Mouse::default();
        m.input(&[InputEvent::Relative { dx: 5, dy: 3 }]);
        send(&mut m, &[0xf4]);
        assert!(take(&mut m).is_empty(), "what happened before counts for nothing");
        m.input(&[InputEvent::Relative { dx: -1, dy: 0 }]);
        m.input(&[InputEvent::Relative { dx: 301, dy: 0 }]);
        assert_eq!(take(&mut m), [0x08, 255, 0, 0x08, 45, 0]);
        send(&mut m, &[0xf0]);
        m.input(&[InputEvent::Relative { dx: 2, dy: 0 }, press(Button::Left)]);
        assert!(take(&mut m).is_empty());
        assert_eq!(send(&mut m, &[0xeb]), [0xfa, 0x09, 2, 0]);
        send(&mut m, &[0xea, 0xe7]);
        m.input(&[InputEvent::Relative { dx: -4, dy: -20 }]);
        assert_eq!(take(&mut m), [0x19, 0xfa, 40]);
    }

    #[test]
    fn garbage() {
        let mut m = Mouse::default();
        let mut random = Random::new(8);
        for _ in 0..100_000 {
            let x = random.next();
            match x >> 60 & 3 {
                0 => drop(m.pop()),
                1 => m.write(x as u8),
                2 => m.input(&[InputEvent::Relative { dx: x as i32, dy: (x >> 20) as i32 }]),
                _ => m.input(&[
                    InputEvent::Wheel { vertical: x as i32, horizontal: 0 },
                    InputEvent::Button { button: Button::Right, down: x & 1 != 0 },
                ]),
            }
            assert!(m.sane());
        }
    }
}
