//! Typed `key=value` options: one declaration drives parsing, errors and `NAME,help`.

use serde_json::{Map, Value};
use std::collections::BTreeMap;
use thiserror::Error;

/// The type of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionKind {
    /// `on`, `off` (also `yes`/`no`, `true`/`false`, `y`/`n`); the bare key means `on`.
    Bool,
    /// Decimal or 0x, within the bounds.
    Number { min: u64, max: u64 },
    /// A number with K, M, G, T suffix; without one it counts in `unit` bytes.
    Size { unit: u64 },
    /// Any text.
    Text,
    /// One of the words.
    Choice(&'static [&'static str]),
    /// Six bytes `aa:bb:cc:dd:ee:ff`.
    Mac,
}

/// One declared option.
#[derive(Clone, Copy, Debug)]
pub struct OptionDecl {
    pub key: &'static str,
    pub kind: OptionKind,
    /// Shown in help, parsed when the key is absent. `None`: absent stays absent.
    pub default: Option<&'static str>,
    pub help: &'static str,
}

impl OptionDecl {
    #[must_use]
    pub const fn new(key: &'static str, kind: OptionKind, default: Option<&'static str>, help: &'static str) -> Self {
        Self { key, kind, default, help }
    }
}

/// A parsed value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionValue {
    Bool(bool),
    Number(u64),
    Text(String),
    Mac([u8; 6]),
}

/// What is wrong with an option string; the text names option and key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{option}: {message}")]
pub struct OptionError {
    /// The command-line word with its dash, like `-device virtio-blk-pci`.
    pub option: String,
    pub message: String,
}

impl OptionError {
    /// The message without the numbers of the host's errors.
    #[must_use]
    pub fn new(option: &str, message: impl Into<String>) -> Self {
        Self { option: option.to_owned(), message: without_error_number(message.into()) }
    }
}

/// Errors of the host come with a number behind the sentence, which helps nobody.
fn without_error_number(mut text: String) -> String {
    const START: &str = " (os error ";
    while let Some(at) = text.find(START) {
        let digits = text[at + START.len()..].chars().take_while(char::is_ascii_digit).count();
        let end = at + START.len() + digits;
        if digits == 0 || !text[end..].starts_with(')') {
            break;
        }
        text.replace_range(at..=end, "");
    }
    text
}

/// The options given to one thing, parsed against its declarations.
#[derive(Clone, Debug, Default)]
pub struct OptionSet {
    option: String,
    values: BTreeMap<String, OptionValue>,
    given: Vec<String>,
}

/// Splits `a,b=c,,d` at single commas (`,,` is a comma in a value) into key and value.
#[must_use]
pub fn split(text: &str) -> Vec<(String, Option<String>)> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == ',' {
            if chars.peek() == Some(&',') {
                chars.next();
                if let Some(last) = parts.last_mut() {
                    last.push(',');
                }
            } else {
                parts.push(String::new());
            }
        } else if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts
        .into_iter()
        .filter(|p| !p.is_empty())
        .map(|p| match p.split_once('=') {
            Some((k, v)) => (k.to_owned(), Some(v.to_owned())),
            None => (p, None),
        })
        .collect()
}

/// The members of a JSON object but `without`, as [`split`] gives keys and values; a list is its key several times.
///
/// # Errors
/// A member that no option can be.
pub fn json_pairs(members: &Map<String, Value>, without: &str) -> Result<Vec<(String, Option<String>)>, String> {
    fn word(key: &str, value: &Value) -> Result<String, String> {
        match value {
            Value::Bool(on) => Ok(if *on { "on" } else { "off" }.to_owned()),
            Value::Number(n) => Ok(n.to_string()),
            Value::String(s) => Ok(s.clone()),
            // The protocol wraps the texts of a list.
            Value::Object(m) if m.len() == 1 && m.get("str").is_some_and(Value::is_string) => word(key, &m["str"]),
            _ => Err(format!("Invalid parameter type for '{key}', expected: string")),
        }
    }
    let mut pairs = Vec::new();
    for (key, value) in members.iter().filter(|(key, _)| *key != without) {
        match value {
            Value::Array(all) => {
                for one in all {
                    pairs.push((key.clone(), Some(word(key, one)?)));
                }
            }
            one => pairs.push((key.clone(), Some(word(key, one)?))),
        }
    }
    Ok(pairs)
}

/// Takes a value apart like [`split`], or, if it is a JSON object, by its members: that called `first` is the bare word in front.
///
/// # Errors
/// [`OptionError`]: no JSON object, or one with members that no option can be.
pub fn split_or_json(option: &str, text: &str, first: &str) -> Result<Vec<(String, Option<String>)>, OptionError> {
    if !text.trim_start().starts_with('{') {
        return Ok(split(text));
    }
    let members: Map<String, Value> =
        serde_json::from_str(text).map_err(|e| OptionError::new(option, format!("invalid JSON: {e}")))?;
    let word = members.get(first).and_then(Value::as_str);
    let word = word.ok_or_else(|| OptionError::new(option, format!("property '{first}' is missing")))?;
    let mut pairs = vec![(word.to_owned(), None)];
    pairs.extend(json_pairs(&members, first).map_err(|e| OptionError::new(option, e))?);
    Ok(pairs)
}

/// Parses a size with an optional suffix K, M, G, T (or KiB style), in bytes; a bare number counts in `unit` bytes.
#[must_use]
pub fn parse_size(text: &str, unit: u64) -> Option<u64> {
    let lower = text.trim();
    let digits = lower.len() - lower.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
    if let Some(hex) = lower.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok()?.checked_mul(unit);
    }
    let (number, suffix) = lower.split_at(digits);
    let factor = match suffix.to_ascii_uppercase().as_str() {
        "" => unit,
        "B" => 1,
        "K" | "KB" | "KIB" => 1 << 10,
        "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        "T" | "TB" | "TIB" => 1 << 40,
        _ => return None,
    };
    if let Some((whole, fraction)) = number.split_once('.') {
        let whole: u64 = whole.parse().ok()?;
        let scale = 10u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let part = u128::from(fraction.parse::<u64>().ok()?) * u128::from(factor) / u128::from(scale);
        return whole.checked_mul(factor)?.checked_add(u64::try_from(part).ok()?);
    }
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// Parses decimal, 0x hexadecimal or 0-octal-free numbers.
#[must_use]
pub fn parse_number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Parses `aa:bb:cc:dd:ee:ff`.
#[must_use]
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts.next().filter(|p| !p.is_empty() && p.len() <= 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

impl OptionDecl {
    fn parse(&self, value: &str) -> Result<OptionValue, String> {
        let bad = |right: &str| format!("'{}={value}': {right}", self.key);
        Ok(match self.kind {
            OptionKind::Bool => match value {
                "on" | "yes" | "true" | "y" => OptionValue::Bool(true),
                "off" | "no" | "false" | "n" => OptionValue::Bool(false),
                _ => return Err(bad("expected 'on' or 'off'")),
            },
            OptionKind::Number { min, max } => match parse_number(value) {
                Some(n) if (min..=max).contains(&n) => OptionValue::Number(n),
                _ => return Err(bad(&format!("expected a number from {min} to {max}"))),
            },
            OptionKind::Size { unit } => match parse_size(value, unit) {
                Some(n) => OptionValue::Number(n),
                None => return Err(bad("expected a size like 512M or 2G")),
            },
            OptionKind::Text => OptionValue::Text(value.to_owned()),
            OptionKind::Choice(words) => match words.contains(&value) {
                true => OptionValue::Text(value.to_owned()),
                false => return Err(bad(&format!("expected one of {}", words.join(", ")))),
            },
            OptionKind::Mac => match parse_mac(value) {
                Some(mac) => OptionValue::Mac(mac),
                None => return Err(bad("expected an address like 52:54:00:12:34:56")),
            },
        })
    }
    fn kind_word(&self) -> String {
        match self.kind {
            OptionKind::Bool => "<bool>".to_owned(),
            OptionKind::Number { .. } => "<number>".to_owned(),
            OptionKind::Size { .. } => "<size>".to_owned(),
            OptionKind::Text => "<str>".to_owned(),
            OptionKind::Choice(words) => words.join("|"),
            OptionKind::Mac => "<mac>".to_owned(),
        }
    }
}

/// The lines of `NAME,help`.
#[must_use]
pub fn help(name: &str, decls: &[OptionDecl]) -> String {
    let mut text = format!("{name} options:\n");
    for d in decls {
        let left = format!("  {}={}", d.key, d.kind_word());
        let default = d.default.map(|v| format!(" (default: {v})")).unwrap_or_default();
        text.push_str(&format!("{left:<32} - {}{default}\n", d.help));
    }
    text
}

impl OptionSet {
    /// Parses `pairs` (from [`split`]) against `decls`. `option` names the command-line place in errors.
    ///
    /// # Errors
    /// [`OptionError`] for an unknown key, a bad value, a key given twice.
    pub fn parse(option: &str, decls: &[OptionDecl], pairs: &[(String, Option<String>)]) -> Result<Self, OptionError> {
        let mut set = Self { option: option.to_owned(), ..Self::default() };
        for (key, value) in pairs {
            let Some(decl) = decls.iter().find(|d| d.key == key) else {
                let known: Vec<_> = decls.iter().map(|d| d.key).collect();
                let right = if known.is_empty() {
                    "it takes no properties".to_owned()
                } else {
                    format!("properties are {}", known.join(", "))
                };
                return Err(OptionError::new(option, format!("unknown property '{key}': {right}")));
            };
            let text = match (value, decl.kind) {
                (Some(v), _) => v.as_str(),
                (None, OptionKind::Bool) => "on",
                (None, _) => {
                    return Err(OptionError::new(
                        option,
                        format!("property '{key}' needs a value: {key}={}", decl.kind_word()),
                    ));
                }
            };
            let value = decl.parse(text).map_err(|m| OptionError::new(option, m))?;
            if set.given.contains(key) {
                return Err(OptionError::new(option, format!("property '{key}' is given twice: give it once")));
            }
            set.given.push(key.clone());
            set.values.insert(key.clone(), value);
        }
        for decl in decls {
            if let (Some(default), false) = (decl.default, set.values.contains_key(decl.key)) {
                let value = decl.parse(default).map_err(|m| OptionError::new(option, m))?;
                set.values.insert(decl.key.to_owned(), value);
            }
        }
        Ok(set)
    }
    /// The command-line place, for errors.
    #[must_use]
    pub fn option(&self) -> &str {
        &self.option
    }
    /// Was the key written by the user (not defaulted)?
    #[must_use]
    pub fn given(&self, key: &str) -> bool {
        self.given.iter().any(|k| k == key)
    }
    /// The value of a bool option; false if absent.
    #[must_use]
    pub fn bool(&self, key: &str) -> bool {
        matches!(self.values.get(key), Some(OptionValue::Bool(true)))
    }
    #[must_use]
    pub fn number(&self, key: &str) -> Option<u64> {
        match self.values.get(key) {
            Some(OptionValue::Number(n)) => Some(*n),
            _ => None,
        }
    }
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.values.get(key) {
            Some(OptionValue::Text(t)) => Some(t),
            _ => None,
        }
    }
    #[must_use]
    pub fn mac(&self, key: &str) -> Option<[u8; 6]> {
        match self.values.get(key) {
            Some(OptionValue::Mac(m)) => Some(*m),
            _ => None,
        }
    }
    /// An error about `key` of this option.
    #[must_use]
    pub fn error(&self, key: &str, message: &str) -> OptionError {
        OptionError::new(&self.option, format!("'{key}': {message}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECLS: &[OptionDecl] = &[
        OptionDecl::new("on", OptionKind::Bool, Some("off"), "switch"),
        OptionDecl::new("n", OptionKind::Number { min: 1, max: 8 }, None, "count"),
        OptionDecl::new("size", OptionKind::Size { unit: 1 << 20 }, Some("64"), "size"),
        OptionDecl::new("mac", OptionKind::Mac, None, "address"),
        OptionDecl::new("file", OptionKind::Text, None, "path"),
    ];

    #[test]
    fn host_errors_without_number() {
        let missing = std::fs::read("/no/such/file").unwrap_err();
        assert!(missing.to_string().contains("os error"));
        let error = OptionError::new("-smbios", format!("'a': {missing}; 'b': {missing}"));
        assert_eq!(error.to_string(), "-smbios: 'a': No such file or directory; 'b': No such file or directory");
        assert_eq!(OptionError::new("-x", "a (os error b)").message, "a (os error b)");
    }

    #[test]
    fn values() {
        let set = OptionSet::parse("-x", DECLS, &split("on,n=0x8,size=1.5G,mac=52:54:00:12:34:56,file=a,,b")).unwrap();
        assert!(set.bool("on"));
        assert_eq!(set.number("n"), Some(8));
        assert_eq!(set.number("size"), Some(3 << 29));
        assert_eq!(set.mac("mac"), Some([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
        assert_eq!(set.text("file"), Some("a,b"));
        assert_eq!(OptionSet::parse("-x", DECLS, &[]).unwrap().number("size"), Some(64 << 20));
    }

    #[test]
    fn json() {
        let text = r#"{"driver":"x","on":true,"n":8,"file":"a,b","list":[{"str":"1"},"2"]}"#;
        let pairs = split_or_json("-x", text, "driver").unwrap();
        let some = |k: &str, v: &str| (k.to_owned(), Some(v.to_owned()));
        let rest = [some("on", "on"), some("n", "8"), some("file", "a,b"), some("list", "1"), some("list", "2")];
        assert_eq!((pairs[0].clone(), &pairs[1..]), (("x".to_owned(), None), &rest[..]));
        assert_eq!(split_or_json("-x", "a,b=c", "driver").unwrap(), split("a,b=c"));
        for bad in ["{", r#"{"n":1}"#, r#"{"driver":"x","n":null}"#, r#"{"driver":"x","n":{"a":1}}"#, "{}x"] {
            let e = split_or_json("-x", bad, "driver").unwrap_err().to_string();
            assert!(e.starts_with("-x: ") && e.lines().count() == 1, "{e}");
        }
    }

    #[test]
    fn errors_name_the_key() {
        for (text, word) in [
            ("q=1", "'q'"),
            ("n=9", "n=9"),
            ("n", "'n'"),
            ("on=maybe", "on=maybe"),
            ("size=3X", "size=3X"),
            ("mac=1:2", "mac=1:2"),
            ("n=1,n=2", "twice"),
        ] {
            let e = OptionSet::parse("-x", DECLS, &split(text)).unwrap_err().to_string();
            assert!(e.starts_with("-x: ") && e.contains(word), "{e}");
        }
    }
}
