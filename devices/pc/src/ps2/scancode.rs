//! Scan codes: what keys send in each set, and what the keyboard controller makes of set 2.

use crate::KeyCode;

/// The prefix of a key's release in sets 2 and 3.
pub(crate) const BREAK: u8 = 0xf0;

/// Set 2 to set 1, as the 8042 translates each byte; above 0x7f only two differ.
#[rustfmt::skip]
const TRANSLATION: [u8; 128] = [
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59,
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b,
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d,
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f,
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61,
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76,
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f,
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
];

/// A byte of set 2 (not the break prefix) in set 1.
pub(crate) fn translate(byte: u8) -> u8 {
    match byte {
        0..=0x7f => TRANSLATION[usize::from(byte)],
        0x83 => 0x41,
        0x84 => 0x54,
        _ => byte,
    }
}

/// Turns a stream of set 2 into set 1, byte by byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub(crate) struct Translator {
    #[n(0)]
    released: bool,
}

impl Translator {
    /// The byte that `byte` becomes; `None` for the break prefix.
    pub fn next(&mut self, byte: u8) -> Option<u8> {
        if byte == BREAK {
            self.released = true;
            return None;
        }
        let released = std::mem::take(&mut self.released);
        Some(translate(byte) | if released { 0x80 } else { 0 })
    }
}

/// Which modifiers are down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Modifiers {
    pub shift: bool,
    pub ctrl: bool,
    pub alt: bool,
}

/// The bytes of a key in set 2. `repeat`: only what a held key repeats.
pub(super) fn set2(key: KeyCode, down: bool, repeat: bool, modifiers: Modifiers) -> Vec<u8> {
    match (key, down) {
        // It makes and breaks at once; with Ctrl it is Break.
        (KeyCode::Pause, true) if modifiers.ctrl => return vec![0xe0, 0x7e, 0xe0, BREAK, 0x7e],
        (KeyCode::Pause, true) => return vec![0xe1, 0x14, 0x77, 0xe1, BREAK, 0x14, BREAK, 0x77],
        (KeyCode::Pause, false) => return vec![],
        (KeyCode::Print, true) if modifiers.alt => return vec![0x84],
        (KeyCode::Print, false) if modifiers.alt => return vec![BREAK, 0x84],
        // A shift that is not there goes around it.
        (KeyCode::Print, true) if !(modifiers.ctrl || modifiers.shift || repeat) => {
            return vec![0xe0, 0x12, 0xe0, 0x7c];
        }
        (KeyCode::Print, false) if !(modifiers.ctrl || modifiers.shift) => {
            return vec![0xe0, BREAK, 0x7c, 0xe0, BREAK, 0x12];
        }
        _ => {}
    }
    let [prefix, code] = key.set2().to_be_bytes();
    if code == 0 {
        return vec![];
    }
    let mut bytes = vec![];
    bytes.extend((prefix != 0).then_some(prefix));
    bytes.extend((!down).then_some(BREAK));
    bytes.push(code);
    bytes
}

/// The bytes of set 2 in set 1.
pub(super) fn set1(set2: &[u8]) -> Vec<u8> {
    let mut translator = Translator::default();
    set2.iter().filter_map(|byte| translator.next(*byte)).collect()
}

/// What a key does in set 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyType {
    pub repeats: bool,
    pub breaks: bool,
}

impl KeyType {
    /// As the keyboard powers up, by the key's code of set 3.
    pub fn default_of(code: u8) -> Self {
        let breaks = matches!(code, 0x11 | 0x12 | 0x14 | 0x19 | 0x59);
        // Right Alt and Ctrl, Esc and function keys, the middle block but for arrows and Delete, the keypad but for + and / (which
        // has the code of the main block's), the menu keys.
        #[rustfmt::skip]
        let make_only = matches!(code,
            0x39 | 0x58 | 0x07 | 0x08 | 0x0f | 0x17 | 0x1f | 0x27 | 0x2f | 0x37 | 0x3f | 0x47 | 0x4f | 0x56 | 0x57 | 0x5e
            | 0x5f | 0x62 | 0x65 | 0x67 | 0x69 | 0x6b..=0x76 | 0x79 | 0x7a | 0x7d | 0x7e | 0x84 | 0x8b..=0x8d);
        Self { repeats: !breaks && !make_only, breaks }
    }
    /// Bit 0: repeats; bit 1: breaks.
    pub fn from_bits(bits: u8) -> Self {
        Self { repeats: bits & 1 != 0, breaks: bits & 2 != 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences() {
        let plain = Modifiers::default();
        let both = |key, down, modifiers| (set2(key, down, false, modifiers), set1(&set2(key, down, false, modifiers)));
        assert_eq!(both(KeyCode::A, true, plain), (vec![0x1c], vec![0x1e]));
        assert_eq!(both(KeyCode::A, false, plain), (vec![0xf0, 0x1c], vec![0x9e]));
        assert_eq!(both(KeyCode::Up, false, plain), (vec![0xe0, 0xf0, 0x75], vec![0xe0, 0xc8]));
        assert_eq!(both(KeyCode::F7, true, plain).1, [0x41]);
        assert_eq!(both(KeyCode::Pause, true, plain).1, [0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5]);
        assert_eq!(both(KeyCode::Print, true, plain).1, [0xe0, 0x2a, 0xe0, 0x37]);
        assert_eq!(both(KeyCode::Print, false, plain).1, [0xe0, 0xb7, 0xe0, 0xaa]);
        assert_eq!(both(KeyCode::Print, true, Modifiers { alt: true, ..plain }).1, [0x54]);
        assert_eq!(both(KeyCode::Pause, true, Modifiers { ctrl: true, ..plain }).1, [0xe0, 0x46, 0xe0, 0xc6]);
        assert!(both(KeyCode::Undo, true, plain).0.is_empty());
    }
}
