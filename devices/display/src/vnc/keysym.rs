//! Keysyms of X11 and the keys that make them on a keyboard of the US layout.

use rhea_pc::input::KeyCode;

/// Printable characters in pairs: of a key alone, and with Shift.
const CHARACTERS: &[(KeyCode, u8, u8)] = &[
    (KeyCode::GraveAccent, b'`', b'~'),
    (KeyCode::Digit1, b'1', b'!'),
    (KeyCode::Digit2, b'2', b'@'),
    (KeyCode::Digit3, b'3', b'#'),
    (KeyCode::Digit4, b'4', b'$'),
    (KeyCode::Digit5, b'5', b'%'),
    (KeyCode::Digit6, b'6', b'^'),
    (KeyCode::Digit7, b'7', b'&'),
    (KeyCode::Digit8, b'8', b'*'),
    (KeyCode::Digit9, b'9', b'('),
    (KeyCode::Digit0, b'0', b')'),
    (KeyCode::Minus, b'-', b'_'),
    (KeyCode::Equal, b'=', b'+'),
    (KeyCode::BracketLeft, b'[', b'{'),
    (KeyCode::BracketRight, b']', b'}'),
    (KeyCode::Backslash, b'\\', b'|'),
    (KeyCode::Semicolon, b';', b':'),
    (KeyCode::Apostrophe, b'\'', b'"'),
    (KeyCode::Comma, b',', b'<'),
    (KeyCode::Dot, b'.', b'>'),
    (KeyCode::Slash, b'/', b'?'),
    (KeyCode::Spc, b' ', b' '),
];

/// The others, by number.
const OTHERS: &[(u32, KeyCode)] = &[
    (0xff08, KeyCode::Backspace),
    (0xff09, KeyCode::Tab),
    (0xfe20, KeyCode::Tab),
    (0xff0a, KeyCode::Lf),
    (0xff0d, KeyCode::Ret),
    (0xff13, KeyCode::Pause),
    (0xff6b, KeyCode::Pause),
    (0xff14, KeyCode::ScrollLock),
    (0xff15, KeyCode::Sysrq),
    (0xff1b, KeyCode::Esc),
    (0xff50, KeyCode::Home),
    (0xff51, KeyCode::Left),
    (0xff52, KeyCode::Up),
    (0xff53, KeyCode::Right),
    (0xff54, KeyCode::Down),
    (0xff55, KeyCode::Pgup),
    (0xff56, KeyCode::Pgdn),
    (0xff57, KeyCode::End),
    (0xff61, KeyCode::Print),
    (0xff63, KeyCode::Insert),
    (0xff67, KeyCode::Menu),
    (0xff6a, KeyCode::Help),
    (0xff7f, KeyCode::NumLock),
    (0xff8d, KeyCode::KpEnter),
    (0xff95, KeyCode::Kp7),
    (0xff96, KeyCode::Kp4),
    (0xff97, KeyCode::Kp8),
    (0xff98, KeyCode::Kp6),
    (0xff99, KeyCode::Kp2),
    (0xff9a, KeyCode::Kp9),
    (0xff9b, KeyCode::Kp3),
    (0xff9c, KeyCode::Kp1),
    (0xff9d, KeyCode::Kp5),
    (0xff9e, KeyCode::Kp0),
    (0xff9f, KeyCode::KpDecimal),
    (0xffaa, KeyCode::KpMultiply),
    (0xffab, KeyCode::KpAdd),
    (0xffac, KeyCode::KpComma),
    (0xffad, KeyCode::KpSubtract),
    (0xffae, KeyCode::KpDecimal),
    (0xffaf, KeyCode::KpDivide),
    (0xffb0, KeyCode::Kp0),
    (0xffb1, KeyCode::Kp1),
    (0xffb2, KeyCode::Kp2),
    (0xffb3, KeyCode::Kp3),
    (0xffb4, KeyCode::Kp4),
    (0xffb5, KeyCode::Kp5),
    (0xffb6, KeyCode::Kp6),
    (0xffb7, KeyCode::Kp7),
    (0xffb8, KeyCode::Kp8),
    (0xffb9, KeyCode::Kp9),
    (0xffbd, KeyCode::KpEquals),
    (0xffe1, KeyCode::Shift),
    (0xffe2, KeyCode::ShiftR),
    (0xffe3, KeyCode::Ctrl),
    (0xffe4, KeyCode::CtrlR),
    (0xffe5, KeyCode::CapsLock),
    (0xffe7, KeyCode::Alt),
    (0xffe8, KeyCode::AltR),
    (0xffe9, KeyCode::Alt),
    (0xffea, KeyCode::AltR),
    (0xffeb, KeyCode::MetaL),
    (0xffec, KeyCode::MetaR),
    (0xfe03, KeyCode::AltR),
    (0xff7e, KeyCode::AltR),
    (0xff22, KeyCode::Muhenkan),
    (0xff23, KeyCode::Henkan),
    (0xff27, KeyCode::KatakanaHiragana),
    (0xffff, KeyCode::Delete),
];

const LETTERS: [KeyCode; 26] = {
    use KeyCode::*;
    [A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z]
};
const FUNCTIONS: [KeyCode; 24] = {
    use KeyCode::*;
    [F1, F2, F3, F4, F5, F6, F7, F8, F9, F10, F11, F12, F13, F14, F15, F16, F17, F18, F19, F20, F21, F22, F23, F24]
};
const FUNCTION_1: u32 = 0xffbe;

/// The key of a keysym.
#[must_use]
pub fn key(keysym: u32) -> Option<KeyCode> {
    if let Some(key) = keysym.checked_sub(FUNCTION_1).and_then(|n| FUNCTIONS.get(n as usize)) {
        return Some(*key);
    }
    if let Ok(c) = u8::try_from(keysym) {
        if c.is_ascii_alphabetic() {
            return Some(LETTERS[usize::from(c.to_ascii_lowercase() - b'a')]);
        }
        return CHARACTERS.iter().find(|(_, a, b)| *a == c || *b == c).map(|(key, ..)| *key);
    }
    OTHERS.iter().find(|(number, _)| *number == keysym).map(|(_, key)| *key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keysyms() {
        for (keysym, name) in [
            (0x61, "a"),
            (0x5a, "z"),
            (0x21, "1"),
            (0x3e, "dot"),
            (0xffbe, "f1"),
            (0xffc9, "f12"),
            (0xff0d, "ret"),
            (0xffff, "delete"),
        ] {
            assert_eq!(key(keysym).map(KeyCode::name), Some(name));
        }
        assert_eq!(key(0x0100_20ac), None);
        // All of ASCII can be typed.
        assert!((0x20..0x7f).all(|c| key(c).is_some()));
    }
}
