//! Values out of a stream of bytes, with limits.

use crate::Error;
use serde_json::Value;

/// Bytes of one value.
const MAX_SIZE: usize = 4 << 20;
/// Objects and arrays within each other.
const MAX_DEPTH: usize = 100;

/// Cuts a stream into JSON values. Strings may be in single quotes too. After an error reading goes on with the next line, or
/// behind the value that was wrong.
#[derive(Default)]
pub struct Splitter {
    /// The value so far, with double quotes only.
    value: Vec<u8>,
    /// The brackets that are open.
    open: Vec<u8>,
    /// Within a string: its quote, and whether a backslash came before.
    string: Option<(u8, bool)>,
    /// Within a word that is no object, array or string.
    word: bool,
    /// The rest of the line belongs to what was refused.
    skip: bool,
}

fn bad(what: &str) -> Error {
    Error::new(format!("JSON parse error, {what}"))
}

impl Splitter {
    /// Takes input; each value that is complete, or each error, is handed to `each`.
    pub fn push(&mut self, data: &[u8], each: &mut dyn FnMut(Result<Value, Error>)) {
        for &byte in data {
            if let Some(result) = self.byte(byte) {
                each(result);
            }
            // The byte that ended a word may begin something else.
            if self.word && !word_byte(byte) {
                self.word = false;
                if let Some(result) = self.byte(byte) {
                    each(result);
                }
            }
        }
    }

    fn refuse(&mut self, what: &str, skip: bool) -> Option<Result<Value, Error>> {
        *self = Self { skip, ..Self::default() };
        Some(Err(bad(what)))
    }

    fn byte(&mut self, byte: u8) -> Option<Result<Value, Error>> {
        if self.skip {
            self.skip = byte != b'\n';
            return None;
        }
        if self.value.len() >= MAX_SIZE {
            return self.refuse("the value is too long", byte != b'\n');
        }
        if let Some((quote, escaped)) = self.string {
            return self.in_string(byte, quote, escaped);
        }
        if self.word {
            if word_byte(byte) {
                self.value.push(byte);
                return None;
            }
            return self.finish();
        }
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {
                if !self.open.is_empty() {
                    self.value.push(b' ');
                }
                None
            }
            b'{' | b'[' => {
                if self.open.len() == MAX_DEPTH {
                    return self.refuse("objects and arrays are nested too deeply", true);
                }
                self.open.push(byte);
                self.value.push(byte);
                None
            }
            b'}' | b']' => {
                let opening = if byte == b'}' { b'{' } else { b'[' };
                if self.open.pop() != Some(opening) {
                    return self.refuse("brackets do not match", true);
                }
                self.value.push(byte);
                if self.open.is_empty() { self.finish() } else { None }
            }
            b'"' | b'\'' => {
                self.string = Some((byte, false));
                self.value.push(b'"');
                None
            }
            _ => {
                self.value.push(byte);
                self.word = self.open.is_empty();
                None
            }
        }
    }

    fn in_string(&mut self, byte: u8, quote: u8, escaped: bool) -> Option<Result<Value, Error>> {
        if byte == b'\n' {
            return self.refuse("a string is not closed at the end of the line", false);
        }
        if escaped {
            // JSON has no escape of the single quote.
            if byte != b'\'' {
                self.value.push(b'\\');
            }
            self.value.push(byte);
            self.string = Some((quote, false));
        } else if byte == b'\\' {
            self.string = Some((quote, true));
        } else if byte == quote {
            self.value.push(b'"');
            self.string = None;
            if self.open.is_empty() {
                return self.finish();
            }
        } else {
            if byte == b'"' {
                self.value.push(b'\\');
            }
            self.value.push(byte);
        }
        None
    }

    fn finish(&mut self) -> Option<Result<Value, Error>> {
        let text = std::mem::take(&mut self.value);
        Some(serde_json::from_slice(&text).map_err(|e| bad(&e.to_string())))
    }
}

fn word_byte(byte: u8) -> bool {
    !matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'{' | b'}' | b'[' | b']' | b'"' | b'\'')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<Result<String, String>> {
        let (mut splitter, mut all) = (Splitter::default(), Vec::new());
        splitter.push(text.as_bytes(), &mut |v| all.push(v.map(|v| v.to_string()).map_err(|e| e.text)));
        all
    }

    #[test]
    fn values() {
        let ok = |s: &str| Ok(s.to_owned());
        assert_eq!(split(r#"{"a":1}{"b":[2, 3]}"#), [ok(r#"{"a":1}"#), ok(r#"{"b":[2,3]}"#)]);
        assert_eq!(split("{'a': 'x\"y\\'z'}\n"), [ok(r#"{"a":"x\"y'z"}"#)]);
        assert_eq!(split("12 true {}"), [ok("12"), ok("true"), ok("{}")]);
        assert_eq!(split("12{}"), [ok("12"), ok("{}")]);
        assert_eq!(split(r#""a}{" "#), [ok(r#""a}{""#)]);
        assert_eq!(split(r#"{"a": "\u00e4\n"}"#), [ok("{\"a\":\"ä\\n\"}")]);
        assert!(split("{\"a\"").is_empty());
    }

    #[test]
    fn errors_end() {
        for (bad, good) in
            [("{\"a\":}", 0), ("}", 1), ("{]", 1), ("{\"a\": \"x\n", 0), ("nothing ", 0), ("{'a':1,}", 0)]
        {
            let all = split(&format!("{bad}{}{{\"b\":1}}", ["", "\n"][good]));
            assert_eq!(all.len(), 2, "{bad}: {all:?}");
            assert!(all[0].as_ref().is_err_and(|e| e.starts_with("JSON parse error, ")), "{bad}: {all:?}");
            assert_eq!(all[1], Ok("{\"b\":1}".to_owned()), "{bad}");
        }
        let deep = "[".repeat(1_000_000);
        assert_eq!(split(&format!("{deep}\n{{}}")).len(), 2);
        let deep = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert!(split(&deep)[0].is_ok());
        let long = format!("\"{}\n{{}}", "x".repeat(MAX_SIZE));
        let all = split(&long);
        assert!(all.len() == 2 && all[0].is_err() && all[1].is_ok());
    }

    /// Whatever comes, input ends in values or errors, and a good line after it is understood.
    #[test]
    fn noise() {
        let mut state = 0x1234_5678_9abc_def0_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        const PIECES: &[&str] = &[
            "{",
            "}",
            "[",
            "]",
            "\"",
            "'",
            "\\",
            ":",
            ",",
            "\n",
            " ",
            "1",
            "-",
            "e",
            "true",
            "null",
            "\\u",
            "d800",
            "\u{7f}",
            "\"execute\"",
            "\"a\":1",
            "é",
            "\0",
            "0.5",
            "1e999",
        ];
        for _ in 0..20_000 {
            let mut splitter = Splitter::default();
            let mut text = String::new();
            for _ in 0..next() % 24 {
                text.push_str(PIECES[(next() % PIECES.len() as u64) as usize]);
            }
            splitter.push(text.as_bytes(), &mut |_| ());
            // Close whatever is open: a line that ends a string, one that ends a skipped line, brackets that do not match.
            splitter.push(b"\n]}]}\n", &mut |_| ());
            splitter.push(b"\n]}]}\n", &mut |_| ());
            let mut last = None;
            splitter.push(b"\n{\"x\":1}\n", &mut |v| last = v.ok());
            assert_eq!(last, Some(serde_json::json!({"x": 1})), "{text:?}");
        }
    }
}
