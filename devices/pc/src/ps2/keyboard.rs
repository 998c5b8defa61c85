//! The keyboard (IBM Personal System/2 Hardware Interface Technical Reference, keyboards: 101 and 102 keys).

use super::answer::{ACK, BAT, RESEND};
use super::scancode::{BREAK, KeyType, Modifiers, set1, set2};
use crate::KeyCode;
use crate::input::Leds;
use std::collections::VecDeque;

/// Scan codes that wait for the host, at most.
const BUFFER: usize = 16;
/// 500 ms, 10.9 characters a second.
const DEFAULT_RATE: u8 = 0x2b;

/// The state. Its output is what [`Self::pop`] gives.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub(crate) struct Keyboard {
    /// Answers to commands, which go before scan codes.
    #[n(0)]
    answers: VecDeque<u8>,
    #[n(1)]
    codes: VecDeque<u8>,
    /// The command whose parameter comes next.
    #[n(2)]
    command: Option<u8>,
    #[n(3)]
    scanning: bool,
    /// Scan code set: 1 to 3.
    #[n(4)]
    set: u8,
    #[n(5)]
    leds: u8,
    #[n(6)]
    rate: u8,
    /// What went to the host last.
    #[n(7)]
    last: u8,
    /// Keys that are down, by their place in [`KeyCode::ALL`].
    #[n(8)]
    down: Vec<u16>,
    /// The key that repeats.
    #[n(9)]
    held: Option<u16>,
    /// [`KeyType`]s of set 3 that differ from the default: code and bits.
    #[n(10)]
    types: Vec<(u8, u8)>,
    /// The type of all keys of set 3, if it was set for all.
    #[n(11)]
    all_types: Option<u8>,
}

impl Default for Keyboard {
    fn default() -> Self {
        Self {
            answers: VecDeque::new(),
            codes: VecDeque::new(),
            command: None,
            scanning: true,
            set: 2,
            leds: 0,
            rate: DEFAULT_RATE,
            last: 0,
            down: vec![],
            held: None,
            types: vec![],
            all_types: None,
        }
    }
}

impl Keyboard {
    /// The next byte for the host.
    pub fn pop(&mut self) -> Option<u8> {
        let byte = self.answers.pop_front().or_else(|| self.codes.pop_front())?;
        self.last = byte;
        Some(byte)
    }
    pub fn leds(&self) -> Leds {
        Leds::from_bits_truncate(self.leds)
    }
    /// How long a key is held before it repeats, in ns.
    pub fn delay_ns(&self) -> u64 {
        u64::from((self.rate >> 5 & 3) + 1) * 250_000_000
    }
    /// The time between two repetitions, in ns.
    pub fn period_ns(&self) -> u64 {
        (u64::from(8 + (self.rate & 7)) << (self.rate >> 3 & 3)) * 4_170_000
    }
    /// Does a key that is held repeat?
    pub fn repeats(&self) -> bool {
        self.held.is_some()
    }

    fn key_type(&self, code: u8) -> KeyType {
        let own = self.types.iter().find(|(c, _)| *c == code).map(|(_, bits)| *bits);
        own.or(self.all_types).map_or_else(|| KeyType::default_of(code), KeyType::from_bits)
    }
    fn modifiers(&self) -> Modifiers {
        let down = |keys: [KeyCode; 2]| keys.iter().any(|key| self.down.contains(&(*key as u16)));
        Modifiers {
            shift: down([KeyCode::Shift, KeyCode::ShiftR]),
            ctrl: down([KeyCode::Ctrl, KeyCode::CtrlR]),
            alt: down([KeyCode::Alt, KeyCode::AltR]),
        }
    }
    /// A sequence goes to the buffer whole; if it does not fit, an overrun is told once.
    fn put(&mut self, bytes: &[u8]) {
        let overrun = if self.set == 1 { 0xff } else { 0 };
        if self.codes.len() + bytes.len() <= BUFFER {
            self.codes.extend(bytes);
        } else if self.codes.back() != Some(&overrun) {
            self.codes.push_back(overrun);
        }
    }
    fn put_key(&mut self, key: KeyCode, down: bool, repeat: bool) {
        let bytes = match self.set {
            1 => set1(&set2(key, down, repeat, self.modifiers())),
            2 => set2(key, down, repeat, self.modifiers()),
            _ => match (key.set3(), down) {
                (0, _) => return,
                (code, true) => vec![code],
                (code, false) if self.key_type(code).breaks => vec![BREAK, code],
                _ => return,
            },
        };
        self.put(&bytes);
    }
    /// The user presses or releases a key. True if another key repeats now, after a delay.
    pub fn key(&mut self, key: KeyCode, down: bool) -> bool {
        let number = key as u16;
        let known = self.down.iter().position(|k| *k == number);
        match (down, known) {
            // Repetitions are this keyboard's own business.
            (true, Some(_)) | (false, None) => return false,
            _ if !self.scanning => return false,
            (true, None) => {
                self.put_key(key, true, false);
                self.down.push(number);
                let repeats = key != KeyCode::Pause && (self.set != 3 || self.key_type(key.set3()).repeats);
                self.held = repeats.then_some(number);
                return repeats;
            }
            (false, Some(at)) => {
                self.down.remove(at);
                if self.held == Some(number) {
                    self.held = None;
                }
                self.put_key(key, false, false);
            }
        }
        false
    }
    /// It is time for a repetition.
    pub fn repeat(&mut self) {
        let key = self.held.and_then(|number| KeyCode::ALL.get(usize::from(number)).copied());
        // A host that does not listen gets no more of it.
        if let (Some(key), true) = (key, self.codes.is_empty() && self.scanning) {
            self.put_key(key, true, true);
        }
    }

    fn forget(&mut self) {
        self.codes.clear();
        self.down.clear();
        self.held = None;
    }
    fn defaults(&mut self) {
        self.forget();
        self.set = 2;
        self.rate = DEFAULT_RATE;
        self.types.clear();
        self.all_types = None;
    }
    /// A byte from the host.
    pub fn write(&mut self, byte: u8) {
        // Parameters have bit 7 clear; a command ends the wait for one.
        match self.command.take() {
            Some(command) if byte < 0x80 => self.parameter(command, byte),
            _ => self.command(byte),
        }
    }
    fn command(&mut self, byte: u8) {
        // Whatever was not fetched of an earlier answer is gone.
        self.answers.clear();
        let answer = match byte {
            0xee => 0xee,
            0xed | 0xf0 | 0xf3 => {
                self.command = Some(byte);
                ACK
            }
            // Key types follow until another command comes; scanning waits for it.
            0xfb..=0xfd => {
                self.command = Some(byte);
                self.scanning = false;
                ACK
            }
            0xf2 => {
                self.answers.extend([ACK, 0xab]);
                0x83
            }
            0xf4 => {
                self.forget();
                self.scanning = true;
                ACK
            }
            0xf5 | 0xf6 => {
                self.defaults();
                self.scanning = byte == 0xf6;
                ACK
            }
            // All keys of set 3: typematic, make and break, make only, all three.
            0xf7..=0xfa => {
                self.types.clear();
                self.all_types = Some([1, 2, 0, 3][usize::from(byte - 0xf7)]);
                ACK
            }
            0xfe => self.last,
            0xff => {
                *self = Self::default();
                self.answers.push_back(ACK);
                BAT
            }
            _ => RESEND,
        };
        self.answers.push_back(answer);
    }
    fn parameter(&mut self, command: u8, byte: u8) {
        self.answers.clear();
        self.answers.push_back(ACK);
        match command {
            0xed => self.leds = byte & 7,
            0xf3 => self.rate = byte & 0x7f,
            0xf0 => match byte {
                0 => self.answers.push_back(self.set),
                1..=3 => {
                    self.forget();
                    self.set = byte;
                }
                _ => {
                    self.answers[0] = RESEND;
                    self.command = Some(command);
                }
            },
            _ => {
                let bits = [1, 2, 0][usize::from(command.saturating_sub(0xfb).min(2))];
                self.types.retain(|(code, _)| *code != byte);
                self.types.push((byte, bits));
                self.command = Some(command);
            }
        }
    }
    /// Are all values ones that the keyboard can have?
    pub fn sane(&self) -> bool {
        self.answers.len() <= 8
            && self.codes.len() <= BUFFER + 1
            && self.down.len() <= KeyCode::ALL.len()
            && (1..=3).contains(&self.set)
            && self.types.len() <= 128
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn take(keyboard: &mut Keyboard) -> Vec<u8> {
        std::iter::from_fn(|| keyboard.pop()).collect()
    }
    fn send(keyboard: &mut Keyboard, bytes: &[u8]) -> Vec<u8> {
        let mut all = vec![];
        for byte in bytes {
            keyboard.write(*byte);
            all.extend(take(keyboard));
        }
        all
    }

    #[test]
    fn commands() {
        let mut k = Keyboard::default();
        assert_eq!(send(&mut k, &[0xff]), [0xfa, 0xaa]);
        assert_eq!(send(&mut k, &[0xf2]), [0xfa, 0xab, 0x83]);
        assert_eq!(send(&mut k, &[0xee]), [0xee]);
        assert_eq!(send(&mut k, &[0xed, 0x05]), [0xfa, 0xfa]);
        assert_eq!(k.leds(), Leds::SCROLL_LOCK | Leds::CAPS_LOCK);
        assert_eq!(send(&mut k, &[0xf0, 0]), [0xfa, 0xfa, 2]);
        assert_eq!(send(&mut k, &[0xfe]), [2]);
        assert_eq!(send(&mut k, &[0xf3, 0x00]), [0xfa, 0xfa]);
        assert_eq!((k.delay_ns(), k.period_ns()), (250_000_000, 33_360_000));
        assert_eq!(send(&mut k, &[0x12]), [0xfe]);
        assert_eq!(send(&mut k, &[0xed, 0xf4]), [0xfa, 0xfa], "a command instead of a parameter");
        assert_eq!(send(&mut k, &[0xf0, 7, 1]), [0xfa, 0xfe, 0xfa]);
    }

    #[test]
    fn keys() {
        let mut k = Keyboard::default();
        assert!(k.key(KeyCode::A, true));
        assert!(!k.key(KeyCode::A, true));
        assert_eq!(take(&mut k), [0x1c]);
        k.repeat();
        k.repeat();
        assert_eq!(take(&mut k), [0x1c], "one at a time");
        k.key(KeyCode::A, false);
        k.key(KeyCode::A, false);
        k.repeat();
        assert_eq!(take(&mut k), [0xf0, 0x1c]);
        send(&mut k, &[0xf0, 1]);
        k.key(KeyCode::Delete, true);
        k.key(KeyCode::Delete, false);
        assert_eq!(take(&mut k), [0xe0, 0x53, 0xe0, 0xd3]);
        send(&mut k, &[0xf5]);
        k.key(KeyCode::B, true);
        send(&mut k, &[0xf4]);
        k.key(KeyCode::B, false);
        assert!(take(&mut k).is_empty());
        for key in KeyCode::ALL {
            k.key(*key, true);
        }
        let all = take(&mut k);
        assert!(all.len() <= BUFFER + 1 && all.last() == Some(&0));
    }

    #[test]
    fn set_3() {
        let mut k = Keyboard::default();
        send(&mut k, &[0xf0, 3]);
        k.key(KeyCode::A, true);
        k.key(KeyCode::A, false);
        k.key(KeyCode::Shift, true);
        k.key(KeyCode::Shift, false);
        assert_eq!(take(&mut k), [0x1c, 0x12, 0xf0, 0x12]);
        send(&mut k, &[0xfc, 0x1c, 0xf4]);
        assert!(!k.key(KeyCode::A, true));
        k.key(KeyCode::A, false);
        assert_eq!(take(&mut k), [0x1c, 0xf0, 0x1c]);
        send(&mut k, &[0xfa]);
        assert!(k.key(KeyCode::CtrlR, true));
        k.key(KeyCode::CtrlR, false);
        assert_eq!(take(&mut k), [0x58, 0xf0, 0x58]);
    }

    #[test]
    fn garbage() {
        let mut k = Keyboard::default();
        let mut random = Random::new(7);
        for _ in 0..100_000 {
            let x = random.next();
            match x >> 60 & 3 {
                0 => drop(k.pop()),
                1 => k.write(x as u8),
                2 => drop(k.key(KeyCode::ALL[x as usize % KeyCode::ALL.len()], x >> 59 & 1 != 0)),
                _ => k.repeat(),
            }
            assert!(k.sane());
        }
    }
}
