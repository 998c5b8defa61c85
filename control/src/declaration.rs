//! The language in which commands, events and types are declared.
//!
//! ```text
//! ## A chapter of the documentation
//!
//! # What the next item is for.
//! enum Colour { red green }
//! struct Point { x: int  y?: int  all: [Point] }
//! # The members of one case are there if the tag has its value.
//! union Shape on kind { kind: Colour  red { radius: int }  green Point }
//! alternate PointOrName { Point str }
//! command name [oob] { argument: str } -> Point
//! event NAME [throttled] { member: int }
//! ```
//!
//! Words in brackets after a name: `oob` (may be executed out of band), `throttled` (an event that is sent at most once a second),
//! `open` (further arguments are the command's own affair); others are features told to clients.

use std::collections::BTreeMap;

/// A type by its place in [`Schema::types`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeId(pub(crate) usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    Str,
    Int,
    /// An unsigned number of so many bits.
    Unsigned(u32),
    Number,
    Bool,
    Null,
    Any,
}

#[derive(Clone, Debug)]
pub struct Member {
    pub name: String,
    pub doc: String,
    pub kind: TypeId,
    pub optional: bool,
    pub features: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Object {
    pub members: Vec<Member>,
    /// The member whose value chooses the case.
    pub tag: Option<String>,
    /// A value of the tag, and the object with the members it adds.
    pub cases: Vec<(String, TypeId)>,
    /// Members that are not declared are let through.
    pub open: bool,
}

#[derive(Clone, Debug)]
pub enum Kind {
    Builtin(Builtin),
    Enum(Vec<String>),
    Object(Object),
    Array(TypeId),
    Alternate(Vec<TypeId>),
}

#[derive(Clone, Debug)]
pub struct Type {
    /// Empty if the type has no name of its own (arguments).
    pub name: String,
    pub doc: String,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub struct Command {
    pub name: String,
    pub doc: String,
    pub arguments: TypeId,
    pub returns: TypeId,
    pub oob: bool,
    pub features: Vec<String>,
    pub(crate) chapter: usize,
}

#[derive(Clone, Debug)]
pub struct Event {
    pub name: String,
    pub doc: String,
    pub data: TypeId,
    pub throttled: bool,
    pub(crate) chapter: usize,
}

/// Everything that is declared.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    pub(crate) types: Vec<Type>,
    pub(crate) commands: BTreeMap<String, Command>,
    pub(crate) events: BTreeMap<String, Event>,
    pub(crate) chapters: Vec<String>,
    pub(crate) empty: TypeId,
}

const BUILTINS: &[(&str, Builtin)] = &[
    ("str", Builtin::Str),
    ("int", Builtin::Int),
    ("uint8", Builtin::Unsigned(8)),
    ("uint16", Builtin::Unsigned(16)),
    ("uint32", Builtin::Unsigned(32)),
    ("uint64", Builtin::Unsigned(64)),
    ("size", Builtin::Unsigned(64)),
    ("number", Builtin::Number),
    ("bool", Builtin::Bool),
    ("null", Builtin::Null),
    ("any", Builtin::Any),
];

struct Parser<'a> {
    /// Words and punctuation with their lines.
    tokens: Vec<(usize, &'a str)>,
    at: usize,
    file: &'a str,
    doc: String,
    schema: &'a mut Schema,
    names: &'a mut BTreeMap<String, TypeId>,
}

/// Words, punctuation, and comments up to the end of their line.
fn tokens(text: &str) -> Vec<(usize, &str)> {
    let mut all = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let mut rest = line.trim_start();
        while !rest.is_empty() {
            let len = if rest.starts_with('#') {
                rest.len()
            } else if rest.starts_with("->") {
                2
            } else if rest.starts_with(['{', '}', '[', ']', ':', '?']) {
                1
            } else {
                rest.find([' ', '\t', '{', '}', '[', ']', ':', '?', '#']).unwrap_or(rest.len())
            };
            all.push((n + 1, &rest[..len]));
            rest = rest[len..].trim_start();
        }
    }
    all
}

impl Schema {
    /// Reads declarations: file names (for messages) and texts.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(texts: &[(&str, &str)]) -> Result<Self, String> {
        let (mut schema, mut names) = (Self::default(), BTreeMap::new());
        let empty = Object { members: Vec::new(), tag: None, cases: Vec::new(), open: false };
        schema.types.push(Type { name: String::new(), doc: String::new(), kind: Kind::Object(empty) });
        for (name, builtin) in BUILTINS {
            names.insert((*name).to_owned(), TypeId(schema.types.len()));
            schema.types.push(Type { name: (*name).to_owned(), doc: String::new(), kind: Kind::Builtin(*builtin) });
        }
        // Types may be used before they are declared.
        let all: Vec<_> = texts.iter().map(|(file, text)| (*file, tokens(text))).collect();
        for (file, tokens) in &all {
            for pair in tokens.windows(2).filter(|p| matches!(p[0].1, "enum" | "struct" | "union" | "alternate")) {
                let name = pair[1].1;
                if name.starts_with(|c: char| c.is_ascii_uppercase()) {
                    let kind = Kind::Enum(Vec::new());
                    if names.insert(name.to_owned(), TypeId(schema.types.len())).is_some() {
                        return Err(format!("{file}:{}: '{name}' is declared twice", pair[1].0));
                    }
                    schema.types.push(Type { name: name.to_owned(), doc: String::new(), kind });
                }
            }
        }
        for (file, tokens) in all {
            Parser { tokens, at: 0, file, doc: String::new(), schema: &mut schema, names: &mut names }.all()?;
        }
        Ok(schema)
    }
    pub(crate) fn get(&self, id: TypeId) -> &Type {
        &self.types[id.0]
    }
    #[must_use]
    pub fn command(&self, name: &str) -> Option<&Command> {
        self.commands.get(name)
    }
    #[must_use]
    pub fn event(&self, name: &str) -> Option<&Event> {
        self.events.get(name)
    }
    /// The names of all commands.
    pub fn command_names(&self) -> impl Iterator<Item = &str> {
        self.commands.keys().map(String::as_str)
    }
    /// The names of all events.
    pub fn event_names(&self) -> impl Iterator<Item = &str> {
        self.events.keys().map(String::as_str)
    }
    /// The values of an enumeration.
    #[must_use]
    pub fn values(&self, name: &str) -> &[String] {
        match self.types.iter().find(|t| t.name == name).map(|t| &t.kind) {
            Some(Kind::Enum(values)) => values,
            _ => &[],
        }
    }
}

impl<'a> Parser<'a> {
    fn error<T>(&self, what: &str) -> Result<T, String> {
        let line = self.tokens.get(self.at.min(self.tokens.len().saturating_sub(1))).map_or(0, |t| t.0);
        Err(format!("{}:{line}: {what}", self.file))
    }
    /// The next token that is no comment; comments become the documentation of what follows.
    fn peek(&mut self) -> Option<&'a str> {
        while let Some((_, token)) = self.tokens.get(self.at) {
            if let Some(title) = token.strip_prefix("##") {
                self.schema.chapters.push(title.trim().to_owned());
                self.doc.clear();
            } else if let Some(text) = token.strip_prefix('#') {
                if !self.doc.is_empty() {
                    self.doc.push(' ');
                }
                self.doc.push_str(text.trim());
            } else {
                return Some(token);
            }
            self.at += 1;
        }
        None
    }
    fn next(&mut self) -> Result<&'a str, String> {
        match self.peek() {
            Some(token) => {
                self.at += 1;
                Ok(token)
            }
            None => self.error("the text ends too early"),
        }
    }
    fn take(&mut self, token: &str) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }
    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.take(token) { Ok(()) } else { self.error(&format!("expected '{token}'")) }
    }
    fn doc(&mut self) -> String {
        // Comments before the item have to be read first.
        self.peek();
        std::mem::take(&mut self.doc)
    }

    fn all(mut self) -> Result<(), String> {
        while self.peek().is_some() {
            let doc = self.doc();
            match self.next()? {
                "enum" => {
                    let id = self.declared()?;
                    self.expect("{")?;
                    let mut values = Vec::new();
                    while !self.take("}") {
                        values.push(self.next()?.to_owned());
                    }
                    self.set(id, doc, Kind::Enum(values));
                }
                "struct" => {
                    let id = self.declared()?;
                    let open = self.flags()?.iter().any(|f| f == "open");
                    let object = self.object(None, open)?;
                    self.set(id, doc, Kind::Object(object));
                }
                "union" => {
                    let id = self.declared()?;
                    self.expect("on")?;
                    let tag = self.next()?.to_owned();
                    let object = self.object(Some(tag), false)?;
                    self.set(id, doc, Kind::Object(object));
                }
                "alternate" => {
                    let id = self.declared()?;
                    self.expect("{")?;
                    let mut of = Vec::new();
                    while !self.take("}") {
                        of.push(self.reference()?);
                    }
                    self.set(id, doc, Kind::Alternate(of));
                }
                "command" => self.command(doc)?,
                "event" => self.event(doc)?,
                other => return self.error(&format!("'{other}' declares nothing")),
            }
        }
        Ok(())
    }

    fn declared(&mut self) -> Result<TypeId, String> {
        let name = self.next()?;
        match self.names.get(name) {
            Some(id) => Ok(*id),
            None => self.error(&format!("'{name}': names of types begin with a capital letter")),
        }
    }
    fn set(&mut self, id: TypeId, doc: String, kind: Kind) {
        let place = &mut self.schema.types[id.0];
        (place.doc, place.kind) = (doc, kind);
    }
    fn push(&mut self, kind: Kind) -> TypeId {
        let id = TypeId(self.schema.types.len());
        self.schema.types.push(Type { name: String::new(), doc: String::new(), kind });
        id
    }
    fn reference(&mut self) -> Result<TypeId, String> {
        if self.take("[") {
            let of = self.reference()?;
            self.expect("]")?;
            let known = self.schema.types.iter().position(|t| matches!(t.kind, Kind::Array(o) if o == of));
            return Ok(known.map_or_else(|| self.push(Kind::Array(of)), TypeId));
        }
        let name = self.next()?;
        match self.names.get(name) {
            Some(id) => Ok(*id),
            None => {
                self.at -= 1;
                self.error(&format!("there is no type '{name}'"))
            }
        }
    }
    fn flags(&mut self) -> Result<Vec<String>, String> {
        let mut flags = Vec::new();
        if self.take("[") {
            while !self.take("]") {
                flags.push(self.next()?.to_owned());
            }
        }
        Ok(flags)
    }
    /// The braces with members and, of a union, with cases.
    fn object(&mut self, tag: Option<String>, open: bool) -> Result<Object, String> {
        let mut object = Object { members: Vec::new(), tag, cases: Vec::new(), open };
        self.expect("{")?;
        while !self.take("}") {
            let doc = self.doc();
            let name = self.next()?.to_owned();
            if object.tag.is_some() && !matches!(self.peek(), Some(":" | "?" | "[")) {
                let kind = if self.peek() == Some("{") {
                    let inner = self.object(None, false)?;
                    self.push(Kind::Object(inner))
                } else {
                    self.reference()?
                };
                object.cases.push((name, kind));
                continue;
            }
            let features = self.flags()?;
            let optional = self.take("?");
            self.expect(":")?;
            let kind = self.reference()?;
            object.members.push(Member { name, doc, kind, optional, features });
        }
        if let Some(tag) = &object.tag
            && !object.members.iter().any(|m| m.name == *tag && !m.optional)
        {
            return self.error(&format!("the tag '{tag}' is no member"));
        }
        Ok(object)
    }
    /// Arguments or data: braces, a type, or nothing.
    fn body(&mut self, open: bool) -> Result<TypeId, String> {
        match self.peek() {
            Some("{") => {
                let object = self.object(None, open)?;
                Ok(self.push(Kind::Object(object)))
            }
            Some(word) if word.starts_with(|c: char| c.is_ascii_uppercase()) => self.reference(),
            _ => Ok(self.schema.empty),
        }
    }
    /// The chapter of the item whose first word was read.
    fn chapter(&self) -> usize {
        self.schema.chapters.len().saturating_sub(1)
    }
    fn command(&mut self, doc: String) -> Result<(), String> {
        let chapter = self.chapter();
        let name = self.next()?.to_owned();
        let mut features = self.flags()?;
        let mut flag = |word: &str| {
            let found = features.iter().any(|f| f == word);
            features.retain(|f| f != word);
            found
        };
        let (oob, open) = (flag("oob"), flag("open"));
        let arguments = self.body(open)?;
        let returns = if self.take("->") { self.reference()? } else { self.schema.empty };
        let command = Command { name: name.clone(), doc, arguments, returns, oob, features, chapter };
        if self.schema.commands.insert(name.clone(), command).is_some() {
            return self.error(&format!("the command '{name}' is declared twice"));
        }
        Ok(())
    }
    fn event(&mut self, doc: String) -> Result<(), String> {
        let chapter = self.chapter();
        let name = self.next()?.to_owned();
        let throttled = self.flags()?.iter().any(|f| f == "throttled");
        // An event without data may stand before the next declaration.
        let data = if self.peek() == Some("{") { self.body(false)? } else { self.schema.empty };
        let event = Event { name: name.clone(), doc, data, throttled, chapter };
        if self.schema.events.insert(name.clone(), event).is_some() {
            return self.error(&format!("the event '{name}' is declared twice"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads() {
        let text = "## One\n# A colour.\nenum Colour { red green }\nunion S on k { k: Colour red { r: int } green P }\n\
                    struct P { x?: [P] y [deprecated]: str }\n# Does\n# it.\ncommand go [oob quick] { s: S } -> [P]\nevent X\nevent Y [throttled] { a: any }";
        let schema = Schema::parse(&[("t", text)]).unwrap();
        let go = schema.command("go").unwrap();
        assert_eq!((go.doc.as_str(), go.oob, go.features.as_slice()), ("Does it.", true, &["quick".to_owned()][..]));
        assert_eq!(schema.values("Colour"), ["red", "green"]);
        assert!(schema.event("Y").unwrap().throttled);
        assert_eq!(schema.chapters, ["One"]);
        for (bad, line) in
            [("command x { a: Nothing }", 1), ("\nstruct X {", 2), ("what", 1), ("union U on t { a { } }", 1)]
        {
            let e = Schema::parse(&[("t", bad)]).unwrap_err();
            assert!(e.starts_with(&format!("t:{line}: ")), "{bad}: {e}");
        }
    }
}
