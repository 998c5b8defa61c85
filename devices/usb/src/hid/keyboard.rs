//! The keyboard's reports, the same in both protocols (HID 1.11 B.1).

use minicbor::{Decode, Encode};
use rhea_pc::input::{InputEvent, Leds};
use std::collections::VecDeque;

/// Modifiers, a reserved byte, five lights, six keys.
pub const DESCRIPTOR: &[u8] = &[
    0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, // Generic desktop: keyboard
    0x05, 0x07, 0x19, 0xe0, 0x29, 0xe7, 0x15, 0x00, 0x25, 0x01, 0x75, 0x01, 0x95, 0x08, 0x81, 0x02, // modifiers
    0x95, 0x01, 0x75, 0x08, 0x81, 0x01, // reserved
    0x95, 0x05, 0x75, 0x01, 0x05, 0x08, 0x19, 0x01, 0x29, 0x05, 0x91, 0x02, // lights
    0x95, 0x01, 0x75, 0x03, 0x91, 0x01, // padding
    0x95, 0x06, 0x75, 0x08, 0x15, 0x00, 0x26, 0xff, 0x00, 0x05, 0x07, 0x19, 0x00, 0x2a, 0xff, 0x00, 0x81,
    0x00, // keys
    0xc0,
];
/// Events that wait for the host.
const QUEUE: usize = 64;
/// Keys that are down at once.
const MOST_KEYS: usize = 256;
const FIRST_MODIFIER: u8 = 0xe0;
const LAST_MODIFIER: u8 = 0xe7;
const ROLL_OVER: u8 = 1;

#[derive(Clone, Debug, Default, Encode, Decode)]
pub struct Keyboard {
    /// Usage and whether it is pressed.
    #[n(0)]
    events: VecDeque<(u8, bool)>,
    /// Keys that the host has been told are down, oldest first.
    #[n(1)]
    keys: Vec<u8>,
    #[n(2)]
    modifiers: u8,
    /// Bits: num lock, caps lock, scroll lock, compose, kana.
    #[n(3)]
    pub lights: u8,
}

impl Keyboard {
    pub fn input(&mut self, events: &[InputEvent]) {
        for event in events {
            let InputEvent::Key { code, down } = *event else { continue };
            let usage = code.hid_usage();
            if usage == 0 {
                continue;
            }
            if self.events.len() >= QUEUE {
                // Nobody has asked for long: the state stays right, the way to it is lost.
                self.step();
            }
            self.events.push_back((usage, down));
        }
    }
    /// Takes the oldest event over; false: there is none.
    fn step(&mut self) -> bool {
        let Some((usage, down)) = self.events.pop_front() else { return false };
        if let FIRST_MODIFIER..=LAST_MODIFIER = usage {
            let bit = 1 << (usage - FIRST_MODIFIER);
            self.modifiers = if down { self.modifiers | bit } else { self.modifiers & !bit };
            return true;
        }
        self.keys.retain(|k| *k != usage);
        if down && self.keys.len() < MOST_KEYS {
            self.keys.push(usage);
        }
        true
    }
    pub fn report(&self) -> [u8; 8] {
        let mut report = [self.modifiers, 0, 0, 0, 0, 0, 0, 0];
        match self.keys.len() {
            0..=6 => report[2..2 + self.keys.len()].copy_from_slice(&self.keys),
            _ => report[2..].fill(ROLL_OVER),
        }
        report
    }
    pub fn next(&mut self) -> Option<[u8; 8]> {
        self.step().then(|| self.report())
    }
    pub fn leds(&self) -> Leds {
        let mut leds = Leds::empty();
        leds.set(Leds::NUM_LOCK, self.lights & 1 != 0);
        leds.set(Leds::CAPS_LOCK, self.lights & 2 != 0);
        leds.set(Leds::SCROLL_LOCK, self.lights & 4 != 0);
        leds
    }
    pub fn sane(&self) -> bool {
        self.events.len() <= QUEUE && self.keys.len() <= MOST_KEYS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhea_pc::KeyCode;

    fn key(k: &mut Keyboard, code: KeyCode, down: bool) {
        k.input(&[InputEvent::Key { code, down }]);
    }

    #[test]
    fn reports() {
        let mut k = Keyboard::default();
        assert_eq!(k.next(), None);
        key(&mut k, KeyCode::ShiftR, true);
        key(&mut k, KeyCode::A, true);
        key(&mut k, KeyCode::A, false);
        assert_eq!(k.next(), Some([0x20, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(k.next(), Some([0x20, 0, 4, 0, 0, 0, 0, 0]));
        assert_eq!(k.next(), Some([0x20, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(k.next(), None);
    }

    /// More keys than a report has places, and more events than the queue.
    #[test]
    fn too_many() {
        let mut k = Keyboard::default();
        for code in &KeyCode::ALL[..7] {
            key(&mut k, *code, true);
        }
        let last = std::iter::from_fn(|| k.next()).last();
        assert_eq!(last, Some([0, 0, 1, 1, 1, 1, 1, 1]));
        for _ in 0..1000 {
            for code in KeyCode::ALL {
                key(&mut k, *code, true);
                key(&mut k, *code, false);
            }
        }
        assert!(k.sane());
        assert_eq!(std::iter::from_fn(|| k.next()).last(), Some([0; 8]));
    }
}
