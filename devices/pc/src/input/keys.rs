//! The keys, by the names that monitors use, with their codes on every kind of keyboard.

use crate::ps2::translate;

/// The codes of a key; 0: it has none.
struct Codes {
    name: &'static str,
    /// Scan code set 2, a prefix in the high byte.
    set2: u16,
    set3: u8,
    /// Usage of the HID keyboard page.
    hid: u8,
    /// Linux input code.
    evdev: u16,
}

macro_rules! keys {
    ($($variant:ident $name:literal $set2:literal $set3:literal $hid:literal $evdev:literal,)*) => {
        /// A key of the keyboard, by its place: `A` is the key right of Caps Lock on any layout.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum KeyCode {
            $($variant,)*
        }

        impl KeyCode {
            /// All keys.
            pub const ALL: &[KeyCode] = &[$(KeyCode::$variant,)*];
        }

        const CODES: &[Codes] =
            &[$(Codes { name: $name, set2: $set2, set3: $set3, hid: $hid, evdev: $evdev },)*];
    };
}

#[rustfmt::skip]
keys! {
    A "a" 0x001c 0x1c 0x04 30,
    B "b" 0x0032 0x32 0x05 48,
    C "c" 0x0021 0x21 0x06 46,
    D "d" 0x0023 0x23 0x07 32,
    E "e" 0x0024 0x24 0x08 18,
    F "f" 0x002b 0x2b 0x09 33,
    G "g" 0x0034 0x34 0x0a 34,
    H "h" 0x0033 0x33 0x0b 35,
    I "i" 0x0043 0x43 0x0c 23,
    J "j" 0x003b 0x3b 0x0d 36,
    K "k" 0x0042 0x42 0x0e 37,
    L "l" 0x004b 0x4b 0x0f 38,
    M "m" 0x003a 0x3a 0x10 50,
    N "n" 0x0031 0x31 0x11 49,
    O "o" 0x0044 0x44 0x12 24,
    P "p" 0x004d 0x4d 0x13 25,
    Q "q" 0x0015 0x15 0x14 16,
    R "r" 0x002d 0x2d 0x15 19,
    S "s" 0x001b 0x1b 0x16 31,
    T "t" 0x002c 0x2c 0x17 20,
    U "u" 0x003c 0x3c 0x18 22,
    V "v" 0x002a 0x2a 0x19 47,
    W "w" 0x001d 0x1d 0x1a 17,
    X "x" 0x0022 0x22 0x1b 45,
    Y "y" 0x0035 0x35 0x1c 21,
    Z "z" 0x001a 0x1a 0x1d 44,
    Digit0 "0" 0x0045 0x45 0x27 11,
    Digit1 "1" 0x0016 0x16 0x1e 2,
    Digit2 "2" 0x001e 0x1e 0x1f 3,
    Digit3 "3" 0x0026 0x26 0x20 4,
    Digit4 "4" 0x0025 0x25 0x21 5,
    Digit5 "5" 0x002e 0x2e 0x22 6,
    Digit6 "6" 0x0036 0x36 0x23 7,
    Digit7 "7" 0x003d 0x3d 0x24 8,
    Digit8 "8" 0x003e 0x3e 0x25 9,
    Digit9 "9" 0x0046 0x46 0x26 10,
    F1 "f1" 0x0005 0x07 0x3a 59,
    F2 "f2" 0x0006 0x0f 0x3b 60,
    F3 "f3" 0x0004 0x17 0x3c 61,
    F4 "f4" 0x000c 0x1f 0x3d 62,
    F5 "f5" 0x0003 0x27 0x3e 63,
    F6 "f6" 0x000b 0x2f 0x3f 64,
    F7 "f7" 0x0083 0x37 0x40 65,
    F8 "f8" 0x000a 0x3f 0x41 66,
    F9 "f9" 0x0001 0x47 0x42 67,
    F10 "f10" 0x0009 0x4f 0x43 68,
    F11 "f11" 0x0078 0x56 0x44 87,
    F12 "f12" 0x0007 0x5e 0x45 88,
    F13 "f13" 0x0008 0x00 0x68 183,
    F14 "f14" 0x0010 0x00 0x69 184,
    F15 "f15" 0x0018 0x00 0x6a 185,
    F16 "f16" 0x0020 0x00 0x6b 186,
    F17 "f17" 0x0028 0x00 0x6c 187,
    F18 "f18" 0x0030 0x00 0x6d 188,
    F19 "f19" 0x0038 0x00 0x6e 189,
    F20 "f20" 0x0040 0x00 0x6f 190,
    F21 "f21" 0x0048 0x00 0x70 191,
    F22 "f22" 0x0050 0x00 0x71 192,
    F23 "f23" 0x0057 0x00 0x72 193,
    F24 "f24" 0x005f 0x00 0x73 194,
    Kp0 "kp_0" 0x0070 0x70 0x62 82,
    Kp1 "kp_1" 0x0069 0x69 0x59 79,
    Kp2 "kp_2" 0x0072 0x72 0x5a 80,
    Kp3 "kp_3" 0x007a 0x7a 0x5b 81,
    Kp4 "kp_4" 0x006b 0x6b 0x5c 75,
    Kp5 "kp_5" 0x0073 0x73 0x5d 76,
    Kp6 "kp_6" 0x0074 0x74 0x5e 77,
    Kp7 "kp_7" 0x006c 0x6c 0x5f 71,
    Kp8 "kp_8" 0x0075 0x75 0x60 72,
    Kp9 "kp_9" 0x007d 0x7d 0x61 73,
    Shift "shift" 0x0012 0x12 0xe1 42,
    ShiftR "shift_r" 0x0059 0x59 0xe5 54,
    Alt "alt" 0x0011 0x19 0xe2 56,
    AltR "alt_r" 0xe011 0x39 0xe6 100,
    Ctrl "ctrl" 0x0014 0x11 0xe0 29,
    CtrlR "ctrl_r" 0xe014 0x58 0xe4 97,
    Menu "menu" 0xe02f 0x8d 0x65 139,
    Esc "esc" 0x0076 0x08 0x29 1,
    Minus "minus" 0x004e 0x4e 0x2d 12,
    Equal "equal" 0x0055 0x55 0x2e 13,
    Backspace "backspace" 0x0066 0x66 0x2a 14,
    Tab "tab" 0x000d 0x0d 0x2b 15,
    BracketLeft "bracket_left" 0x0054 0x54 0x2f 26,
    BracketRight "bracket_right" 0x005b 0x5b 0x30 27,
    Ret "ret" 0x005a 0x5a 0x28 28,
    Semicolon "semicolon" 0x004c 0x4c 0x33 39,
    Apostrophe "apostrophe" 0x0052 0x52 0x34 40,
    GraveAccent "grave_accent" 0x000e 0x0e 0x35 41,
    Backslash "backslash" 0x005d 0x5c 0x31 43,
    Comma "comma" 0x0041 0x41 0x36 51,
    Dot "dot" 0x0049 0x49 0x37 52,
    Slash "slash" 0x004a 0x4a 0x38 53,
    Spc "spc" 0x0029 0x29 0x2c 57,
    CapsLock "caps_lock" 0x0058 0x14 0x39 58,
    NumLock "num_lock" 0x0077 0x76 0x53 69,
    ScrollLock "scroll_lock" 0x007e 0x5f 0x47 70,
    Asterisk "asterisk" 0x007c 0x7e 0x55 55,
    KpMultiply "kp_multiply" 0x007c 0x7e 0x55 55,
    KpDivide "kp_divide" 0xe04a 0x4a 0x54 98,
    KpSubtract "kp_subtract" 0x007b 0x84 0x56 74,
    KpAdd "kp_add" 0x0079 0x7c 0x57 78,
    KpEnter "kp_enter" 0xe05a 0x79 0x58 96,
    KpDecimal "kp_decimal" 0x0071 0x71 0x63 83,
    KpComma "kp_comma" 0x006d 0x7b 0x85 121,
    KpEquals "kp_equals" 0x000f 0x00 0x67 117,
    Sysrq "sysrq" 0x0084 0x57 0x9a 99,
    Print "print" 0xe07c 0x57 0x46 99,
    Pause "pause" 0xe177 0x62 0x48 119,
    Less "less" 0x0061 0x13 0x64 86,
    Home "home" 0xe06c 0x6e 0x4a 102,
    Pgup "pgup" 0xe07d 0x6f 0x4b 104,
    Pgdn "pgdn" 0xe07a 0x6d 0x4e 109,
    End "end" 0xe069 0x65 0x4d 107,
    Left "left" 0xe06b 0x61 0x50 105,
    Up "up" 0xe075 0x63 0x52 103,
    Down "down" 0xe072 0x60 0x51 108,
    Right "right" 0xe074 0x6a 0x4f 106,
    Insert "insert" 0xe070 0x67 0x49 110,
    Delete "delete" 0xe071 0x64 0x4c 111,
    Stop "stop" 0x0000 0x00 0x78 128,
    Again "again" 0x0000 0x00 0x79 129,
    Props "props" 0x0000 0x00 0xa3 130,
    Undo "undo" 0x0000 0x00 0x7a 131,
    Front "front" 0x0000 0x00 0x77 132,
    Copy "copy" 0x0000 0x00 0x7c 133,
    Open "open" 0x0000 0x00 0x74 134,
    Paste "paste" 0x0000 0x00 0x7d 135,
    Find "find" 0x0000 0x00 0x7e 136,
    Cut "cut" 0x0000 0x00 0x7b 137,
    Lf "lf" 0x0000 0x00 0x00 101,
    Help "help" 0x0000 0x00 0x75 138,
    MetaL "meta_l" 0xe01f 0x8b 0xe3 125,
    MetaR "meta_r" 0xe027 0x8c 0xe7 126,
    Compose "compose" 0xe02f 0x8d 0x65 127,
    Ro "ro" 0x0051 0x51 0x87 89,
    Hiragana "hiragana" 0x0062 0x00 0x93 91,
    Katakana "katakana" 0x0063 0x00 0x92 90,
    Henkan "henkan" 0x0064 0x86 0x8a 92,
    Yen "yen" 0x006a 0x5d 0x89 124,
    Muhenkan "muhenkan" 0x0067 0x85 0x8b 94,
    KatakanaHiragana "katakanahiragana" 0x0013 0x87 0x88 93,
    Power "power" 0xe037 0x00 0x66 116,
    Sleep "sleep" 0xe03f 0x00 0x00 142,
    Wake "wake" 0xe05e 0x00 0x00 143,
    AudioNext "audionext" 0xe04d 0x00 0x00 163,
    AudioPrev "audioprev" 0xe015 0x00 0x00 165,
    AudioStop "audiostop" 0xe03b 0x00 0x00 166,
    AudioPlay "audioplay" 0xe034 0x00 0x00 164,
    AudioMute "audiomute" 0xe023 0x00 0x7f 113,
    VolumeUp "volumeup" 0xe032 0x00 0x80 115,
    VolumeDown "volumedown" 0xe021 0x00 0x81 114,
    MediaSelect "mediaselect" 0xe050 0x00 0x00 226,
    Mail "mail" 0xe048 0x00 0x00 155,
    Calculator "calculator" 0xe02b 0x00 0x00 140,
    Computer "computer" 0xe040 0x00 0x00 157,
    AcHome "ac_home" 0xe03a 0x00 0x00 172,
    AcBack "ac_back" 0xe038 0x00 0x00 158,
    AcForward "ac_forward" 0xe030 0x00 0x00 159,
    AcRefresh "ac_refresh" 0xe020 0x00 0x00 173,
    AcBookmarks "ac_bookmarks" 0xe018 0x00 0x00 156,
    Lang1 "lang1" 0x00f2 0x00 0x90 122,
    Lang2 "lang2" 0x00f1 0x00 0x91 123,
}

impl KeyCode {
    fn codes(self) -> &'static Codes {
        &CODES[self as usize]
    }
    /// The name, as in `sendkey`: `a`, `ret`, `kp_5`, ...
    #[must_use]
    pub fn name(self) -> &'static str {
        self.codes().name
    }
    /// The key called `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let name = if name == "<" { "less" } else { name };
        Self::ALL.iter().copied().find(|key| key.name() == name)
    }
    /// The key whose scan code of set 1 is `number`, bit 7 standing for the prefix 0xe0.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        let prefix = if number & 0x80 != 0 { 0xe0 } else { 0 };
        Self::ALL.iter().copied().find(|key| {
            let [high, low] = key.set2().to_be_bytes();
            low != 0 && high == prefix && translate(low) == number & 0x7f
        })
    }
    /// Scan code of set 2, a prefix in the high byte; 0: none.
    #[must_use]
    pub fn set2(self) -> u16 {
        self.codes().set2
    }
    /// Scan code of set 3; 0: none.
    #[must_use]
    pub fn set3(self) -> u8 {
        self.codes().set3
    }
    /// Usage ID of the HID keyboard page (0xe0 to 0xe7 are the modifiers); 0: none.
    #[must_use]
    pub fn hid_usage(self) -> u8 {
        self.codes().hid
    }
    /// Linux input event code (`KEY_*`), which virtio input devices use.
    #[must_use]
    pub fn evdev(self) -> u16 {
        self.codes().evdev
    }
    /// The keys of a combination like `ctrl-alt-delete` or `0x1d-c`.
    ///
    /// # Errors
    /// The name no key has.
    pub fn parse_combo(text: &str) -> Result<Vec<Self>, String> {
        text.split('-')
            .map(|word| {
                let number = word.strip_prefix("0x").and_then(|hex| u8::from_str_radix(hex, 16).ok());
                number
                    .map_or_else(|| Self::from_name(word), Self::from_number)
                    .ok_or_else(|| format!("unknown key '{word}'"))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (i, key) in KeyCode::ALL.iter().enumerate() {
            assert_eq!(KeyCode::from_name(key.name()), Some(*key));
            assert_eq!(*key as usize, i);
        }
        assert_eq!(KeyCode::parse_combo("ctrl-alt-delete"), Ok(vec![KeyCode::Ctrl, KeyCode::Alt, KeyCode::Delete]));
        assert_eq!(KeyCode::parse_combo("0x1e-0xc8"), Ok(vec![KeyCode::A, KeyCode::Up]));
        assert_eq!(KeyCode::parse_combo("ctrl-"), Err("unknown key ''".to_owned()));
        assert!(KeyCode::parse_combo("0x100").is_err());
    }

    #[test]
    fn codes_are_of_one_key() {
        // Two names of one key.
        let same = |a: KeyCode, b: KeyCode| {
            [(KeyCode::Asterisk, KeyCode::KpMultiply), (KeyCode::Menu, KeyCode::Compose)].contains(&(a, b))
        };
        for (i, a) in KeyCode::ALL.iter().enumerate() {
            for b in KeyCode::ALL.iter().skip(i + 1).filter(|b| !same(*a, **b)) {
                assert!(a.set2() == 0 || a.set2() != b.set2(), "{a:?} {b:?}");
                assert!(a.hid_usage() == 0 || a.hid_usage() != b.hid_usage(), "{a:?} {b:?}");
            }
        }
        // Linux codes of the main block follow set 1.
        for key in KeyCode::ALL.iter().filter(|key| key.set2() >> 8 == 0 && key.evdev() < 84 && key.set2() != 0) {
            assert_eq!(u16::from(translate(key.set2() as u8)), key.evdev(), "{key:?}");
        }
    }
}
