//! Options of block nodes: nested, from dotted keys (`file.filename=x`) or from JSON.

use rhea_device::options::{parse_size, split};
use serde_json::{Map, Value};

/// Options of one node and of those below it. Taking a key removes it; what is left in the end is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeOptions {
    map: Map<String, Value>,
    /// Where the node is in the tree (`file.`, `backing.file.`), for messages.
    path: String,
}

/// A child of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeRef {
    /// An existing node.
    Name(String),
    Options(NodeOptions),
    /// Said to be none (`backing=null`, or empty).
    None,
}

/// Nesting that is accepted.
const MAX_DEPTH: usize = 64;

impl NodeOptions {
    /// `driver=qcow2,file.driver=file,file.filename=x`, or a JSON object.
    ///
    /// # Errors
    /// One line.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim_start().starts_with('{') {
            return Self::parse_json(text);
        }
        Self::from_pairs(split(text))
    }
    /// A JSON object.
    ///
    /// # Errors
    /// One line.
    pub fn parse_json(text: &str) -> Result<Self, String> {
        match serde_json::from_str(text) {
            Ok(value) => Self::from_json(value),
            Err(e) => Err(format!("invalid JSON: {e}")),
        }
    }
    /// An object, in which dotted keys are as good as nested ones.
    ///
    /// # Errors
    /// One line.
    pub fn from_json(value: Value) -> Result<Self, String> {
        let Value::Object(map) = value else { return Err("expected a JSON object".to_owned()) };
        let mut options = Self::default();
        for (key, value) in map {
            options.insert(&key, value)?;
        }
        Ok(options)
    }
    /// Keys and values of the command line; a bare key is `on`.
    ///
    /// # Errors
    /// One line.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, Option<String>)>) -> Result<Self, String> {
        let mut options = Self::default();
        for (key, value) in pairs {
            options.insert(&key, Value::String(value.unwrap_or_else(|| "on".to_owned())))?;
        }
        Ok(options)
    }
    /// Adds a key, which may be dotted.
    ///
    /// # Errors
    /// The key is there already, or a value is where a node would be.
    pub fn insert(&mut self, key: &str, value: Value) -> Result<(), String> {
        let mut map = &mut self.map;
        let mut parts = key.split('.').peekable();
        let mut depth = 0;
        while let Some(part) = parts.next() {
            depth += 1;
            if depth > MAX_DEPTH {
                return Err(format!("'{}...' is nested too deeply", key.chars().take(32).collect::<String>()));
            }
            if parts.peek().is_some() {
                let inner = map.entry(part).or_insert_with(|| Value::Object(Map::new()));
                // `backing=name` cannot also have `backing.driver`.
                let Value::Object(inner) = inner else {
                    return Err(format!("'{key}': '{part}' has a value already"));
                };
                map = inner;
                continue;
            }
            if let Value::Object(object) = value {
                let mut inner = match map.remove(part) {
                    None => Self::default(),
                    Some(Value::Object(map)) => Self { map, path: String::new() },
                    Some(_) => return Err(format!("'{key}' is given twice: give it once")),
                };
                for (k, v) in object {
                    inner.insert(&k, v)?;
                }
                map.insert(part.to_owned(), Value::Object(inner.map));
            } else if map.insert(part.to_owned(), value).is_some() {
                return Err(format!("'{key}' is given twice: give it once"));
            }
            return Ok(());
        }
        Ok(())
    }
    /// Sets a text unless the key is there.
    pub fn default_text(&mut self, key: &str, value: &str) {
        self.map.entry(key).or_insert_with(|| Value::String(value.to_owned()));
    }
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
    /// A text, left where it is.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.map.get(key).and_then(Value::as_str)
    }
    /// Removes a key.
    pub fn remove(&mut self, key: &str) {
        self.map.remove(key);
    }
    /// The options as an object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        Value::Object(self.map.clone())
    }
    fn wrong(&self, key: &str, value: &Value, right: &str) -> String {
        let text = match value {
            Value::String(s) => s.clone(),
            other => other.to_string(),
        };
        format!("'{}{key}={text}': {right}", self.path)
    }
    /// Takes a text.
    ///
    /// # Errors
    /// Something else is there.
    pub fn take_text(&mut self, key: &str) -> Result<Option<String>, String> {
        match self.map.remove(key) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            // A number where a word is expected, like a port.
            Some(Value::Number(n)) => Ok(Some(n.to_string())),
            Some(other) => Err(self.wrong(key, &other, "expected a text")),
        }
    }
    /// Takes a text that must be there.
    ///
    /// # Errors
    /// It is not, or something else is.
    pub fn need_text(&mut self, key: &str) -> Result<String, String> {
        self.take_text(key)?.ok_or_else(|| format!("'{}{key}' is missing", self.path))
    }
    /// Takes one of the words.
    ///
    /// # Errors
    /// Something else is there.
    pub fn take_choice(&mut self, key: &str, words: &[&'static str]) -> Result<Option<&'static str>, String> {
        let Some(text) = self.take_text(key)? else { return Ok(None) };
        match words.iter().find(|w| **w == text) {
            Some(word) => Ok(Some(word)),
            None => Err(self.wrong(key, &Value::String(text), &format!("expected one of {}", words.join(", ")))),
        }
    }
    /// Takes a switch.
    ///
    /// # Errors
    /// Something else is there.
    pub fn take_bool(&mut self, key: &str) -> Result<Option<bool>, String> {
        Ok(Some(match self.map.remove(key) {
            None => return Ok(None),
            Some(Value::Bool(b)) => b,
            Some(Value::String(s)) if matches!(s.as_str(), "on" | "yes" | "true" | "y") => true,
            Some(Value::String(s)) if matches!(s.as_str(), "off" | "no" | "false" | "n") => false,
            Some(other) => return Err(self.wrong(key, &other, "expected 'on' or 'off'")),
        }))
    }
    /// Takes a number of bytes, with suffix or without.
    ///
    /// # Errors
    /// Something else is there.
    pub fn take_size(&mut self, key: &str) -> Result<Option<u64>, String> {
        let value = self.map.remove(key);
        let size = match &value {
            None => return Ok(None),
            Some(Value::Number(n)) => n.as_u64(),
            Some(Value::String(s)) => parse_size(s, 1),
            Some(_) => None,
        };
        match (size, value) {
            (Some(size), _) => Ok(Some(size)),
            (None, Some(value)) => Err(self.wrong(key, &value, "expected a size like 512M or 2G")),
            (None, None) => Ok(None),
        }
    }
    /// Takes a child.
    ///
    /// # Errors
    /// Neither a name nor options.
    pub fn take_node(&mut self, key: &str) -> Result<Option<NodeRef>, String> {
        Ok(Some(match self.map.remove(key) {
            None => return Ok(None),
            Some(Value::Null) => NodeRef::None,
            Some(Value::String(s)) if s.is_empty() => NodeRef::None,
            Some(Value::String(s)) => NodeRef::Name(s),
            Some(Value::Object(map)) => NodeRef::Options(Self { map, path: format!("{}{key}.", self.path) }),
            Some(other) => return Err(self.wrong(key, &other, "expected the name of a node, or its options")),
        }))
    }
    /// Ends taking.
    ///
    /// # Errors
    /// A key is left.
    pub fn finish(self, driver: &str) -> Result<(), String> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(key) => Err(format!("unknown property '{}{key}' of block driver '{driver}'", self.path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dotted_and_nested_are_the_same() {
        let a = NodeOptions::parse("driver=qcow2,file.driver=file,file.filename=a,,b,read-only").unwrap();
        let b =
            NodeOptions::parse(r#"{"driver":"qcow2","file":{"driver":"file"},"file.filename":"a,b","read-only":"on"}"#);
        assert_eq!(a, b.unwrap());
        let mut a = a;
        assert_eq!(a.take_bool("read-only"), Ok(Some(true)));
        assert_eq!(a.take_text("driver"), Ok(Some("qcow2".to_owned())));
        let Ok(Some(NodeRef::Options(mut file))) = a.take_node("file") else { panic!() };
        assert_eq!(file.take_size("filename").unwrap_err(), "'file.filename=a,b': expected a size like 512M or 2G");
        assert!(file.finish("file").unwrap_err().contains("'file.driver'"));
    }

    #[test]
    fn errors() {
        for (text, word) in [
            ("a=1,a=2", "twice"),
            ("a=1,a.b=2", "has a value"),
            ("{", "JSON"),
            ("[]", ""),
            (r#"{"a":{"b":1},"a":2}"#, ""),
        ] {
            let result = NodeOptions::parse(text);
            assert!(word.is_empty() || result.unwrap_err().contains(word), "{text}");
        }
        let deep = format!("{}=1", "a.".repeat(100) + "b");
        assert!(NodeOptions::parse(&deep).unwrap_err().contains("deep"));
    }
}
