//! Reports of mouse and tablet.

use minicbor::{Decode, Encode};
use rhea_pc::input::{ABSOLUTE_MAX, Button, InputEvent};
use std::collections::VecDeque;

/// Five buttons, motion, wheel, and wheel to the sides.
pub const MOUSE: &[u8] = &[
    0x05, 0x01, 0x09, 0x02, 0xa1, 0x01, 0x09, 0x01, 0xa1, 0x00, // Generic desktop: mouse, pointer
    0x05, 0x09, 0x19, 0x01, 0x29, 0x05, 0x15, 0x00, 0x25, 0x01, 0x95, 0x05, 0x75, 0x01, 0x81, 0x02, // buttons
    0x95, 0x01, 0x75, 0x03, 0x81, 0x01, // padding
    0x05, 0x01, 0x09, 0x30, 0x09, 0x31, 0x09, 0x38, 0x15, 0x81, 0x25, 0x7f, 0x75, 0x08, 0x95, 0x03, 0x81,
    0x06, // x, y, wheel
    0x05, 0x0c, 0x0a, 0x38, 0x02, 0x95, 0x01, 0x81, 0x06, // consumer: AC pan
    0xc0, 0xc0,
];
/// The same with positions of 16 bits.
pub const TABLET: &[u8] = &[
    0x05, 0x01, 0x09, 0x02, 0xa1, 0x01, 0x09, 0x01, 0xa1, 0x00, // Generic desktop: mouse, pointer
    0x05, 0x09, 0x19, 0x01, 0x29, 0x05, 0x15, 0x00, 0x25, 0x01, 0x95, 0x05, 0x75, 0x01, 0x81, 0x02, // buttons
    0x95, 0x01, 0x75, 0x03, 0x81, 0x01, // padding
    0x05, 0x01, 0x09, 0x30, 0x09, 0x31, 0x15, 0x00, 0x26, 0xff, 0x7f, 0x35, 0x00, 0x46, 0xff, 0x7f, // x, y
    0x75, 0x10, 0x95, 0x02, 0x81, 0x02, // absolute
    0x09, 0x38, 0x15, 0x81, 0x25, 0x7f, 0x35, 0x00, 0x45, 0x00, 0x75, 0x08, 0x95, 0x01, 0x81, 0x06, // wheel
    0x05, 0x0c, 0x0a, 0x38, 0x02, 0x81, 0x06, // consumer: AC pan
    0xc0, 0xc0,
];
/// States that wait for the host.
const QUEUE: usize = 64;
/// Motion that waits, at most.
const FAR: i32 = 1 << 16;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
struct Place {
    /// Bits: left, right, middle, fourth, fifth.
    #[n(0)]
    buttons: u8,
    /// Motion, or the position.
    #[n(1)]
    x: i32,
    #[n(2)]
    y: i32,
    #[n(3)]
    wheel: i32,
    #[n(4)]
    pan: i32,
}

#[derive(Clone, Debug, Encode, Decode)]
pub struct Pointer {
    #[n(0)]
    absolute: bool,
    #[n(1)]
    queue: VecDeque<Place>,
    /// What the host knows.
    #[n(2)]
    told: Place,
}

fn add(a: i32, b: i32) -> i32 {
    a.saturating_add(b).clamp(-FAR, FAR)
}

impl Pointer {
    pub fn new(absolute: bool) -> Self {
        Self { absolute, queue: VecDeque::new(), told: Place::default() }
    }
    pub fn input(&mut self, events: &[InputEvent]) {
        let last = self.queue.back().copied().unwrap_or(self.told);
        let mut next = Place { wheel: 0, pan: 0, ..last };
        if !self.absolute {
            (next.x, next.y) = (0, 0);
        }
        for event in events {
            match *event {
                InputEvent::Relative { dx, dy } if !self.absolute => {
                    (next.x, next.y) = (add(next.x, dx), add(next.y, dy));
                }
                InputEvent::Absolute { x, y } if self.absolute => {
                    (next.x, next.y) = (x.min(ABSOLUTE_MAX).into(), y.min(ABSOLUTE_MAX).into());
                }
                InputEvent::Wheel { vertical, horizontal } => {
                    (next.wheel, next.pan) = (add(next.wheel, vertical), add(next.pan, horizontal));
                }
                InputEvent::Button { button, down } => {
                    let bit = match button {
                        Button::Left => 1,
                        Button::Right => 2,
                        Button::Middle => 4,
                        Button::Side => 8,
                        Button::Extra => 16,
                    };
                    next.buttons = if down { next.buttons | bit } else { next.buttons & !bit };
                }
                _ => {}
            }
        }
        let full = self.queue.len() >= QUEUE;
        match self.queue.back_mut() {
            // Motion adds up as long as nobody asks; each state of the buttons is told.
            Some(back) if full || back.buttons == next.buttons => {
                if !self.absolute {
                    (next.x, next.y) = (add(back.x, next.x), add(back.y, next.y));
                }
                *back = Place { wheel: add(back.wheel, next.wheel), pan: add(back.pan, next.pan), ..next };
            }
            _ => self.queue.push_back(next),
        }
    }
    fn bytes(&self, p: Place, boot: bool) -> Vec<u8> {
        let byte = |n: i32| n.clamp(-127, 127) as i8 as u8;
        if self.absolute {
            let [x0, x1] = (p.x as u16).to_le_bytes();
            let [y0, y1] = (p.y as u16).to_le_bytes();
            return vec![p.buttons, x0, x1, y0, y1, byte(p.wheel), byte(p.pan)];
        }
        if boot {
            return vec![p.buttons & 7, byte(p.x), byte(p.y)];
        }
        vec![p.buttons, byte(p.x), byte(p.y), byte(p.wheel), byte(p.pan)]
    }
    /// Bytes of a report.
    pub fn size(&self, boot: bool) -> u64 {
        match (self.absolute, boot) {
            (true, _) => 7,
            (false, true) => 3,
            (false, false) => 5,
        }
    }
    /// Where it is and what is pressed, without motion.
    pub fn report(&self, boot: bool) -> Vec<u8> {
        self.bytes(self.told, boot)
    }
    pub fn next(&mut self, boot: bool) -> Option<Vec<u8>> {
        let front = self.queue.front_mut()?;
        let part = |n: &mut i32| {
            let now = (*n).clamp(-127, 127);
            *n -= now;
            now
        };
        let mut now = *front;
        (now.wheel, now.pan) = (part(&mut front.wheel), part(&mut front.pan));
        let mut left = front.wheel != 0 || front.pan != 0;
        if !self.absolute {
            (now.x, now.y) = (part(&mut front.x), part(&mut front.y));
            left |= front.x != 0 || front.y != 0;
        }
        if !left {
            self.queue.pop_front();
        }
        self.told = Place { wheel: 0, pan: 0, ..now };
        if !self.absolute {
            (self.told.x, self.told.y) = (0, 0);
        }
        Some(self.bytes(now, boot))
    }
    pub fn sane(&self, absolute: bool) -> bool {
        self.absolute == absolute && self.queue.len() <= QUEUE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(down: bool) -> InputEvent {
        InputEvent::Button { button: Button::Left, down }
    }

    #[test]
    fn mouse() {
        let mut p = Pointer::new(false);
        p.input(&[InputEvent::Relative { dx: 200, dy: -3 }]);
        p.input(&[InputEvent::Relative { dx: 1, dy: 0 }]);
        p.input(&[press(true)]);
        p.input(&[press(false), InputEvent::Wheel { vertical: 2, horizontal: -1 }]);
        assert_eq!(p.next(false), Some(vec![0, 127, 0xfd, 0, 0]));
        assert_eq!(p.next(false), Some(vec![0, 74, 0, 0, 0]));
        assert_eq!(p.next(true), Some(vec![1, 0, 0]));
        assert_eq!(p.next(false), Some(vec![0, 0, 0, 2, 0xff]));
        assert_eq!(p.next(false), None);
        for n in 0..10_000 {
            p.input(&[press(n % 2 == 0), InputEvent::Relative { dx: i32::MAX, dy: i32::MIN }]);
        }
        assert!(p.sane(false));
    }

    #[test]
    fn tablet() {
        let mut p = Pointer::new(true);
        p.input(&[InputEvent::Absolute { x: 1, y: 2 }]);
        p.input(&[InputEvent::Absolute { x: 0x1234, y: 0xffff }, press(true)]);
        p.input(&[InputEvent::Relative { dx: 5, dy: 5 }]);
        assert_eq!(p.next(false), Some(vec![0, 1, 0, 2, 0, 0, 0]));
        assert_eq!(p.next(false), Some(vec![1, 0x34, 0x12, 0xff, 0x7f, 0, 0]));
        assert_eq!(p.next(false), None);
        assert_eq!(p.report(false), [1, 0x34, 0x12, 0xff, 0x7f, 0, 0]);
    }
}
