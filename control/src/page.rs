//! The page that documents the protocol.

use crate::declaration::{Builtin, Kind, Object, Schema, TypeId};
use std::fmt::Write;

impl Schema {
    /// A type in words.
    fn word(&self, id: TypeId) -> String {
        let t = self.get(id);
        match &t.kind {
            Kind::Builtin(Builtin::Unsigned(bits)) => format!("uint{bits}"),
            Kind::Array(of) => format!("[{}]", self.word(*of)),
            _ if t.name.is_empty() => "object".to_owned(),
            Kind::Builtin(_) => t.name.clone(),
            _ => format!("[{0}](#{1})", t.name, t.name.to_lowercase()),
        }
    }
    fn members(&self, text: &mut String, object: &Object, indent: usize) {
        for m in &object.members {
            let optional = if m.optional { ", optional" } else { "" };
            let doc = if m.doc.is_empty() { String::new() } else { format!(": {}", m.doc) };
            put(text, format_args!("{:indent$}- `{}` ({}{optional}){doc}\n", "", m.name, self.word(m.kind)));
        }
        if object.open {
            put(text, format_args!("{:indent$}- further members, as the thing itself declares them\n", ""));
        }
        for (case, id) in &object.cases {
            let tag = object.tag.as_deref().unwrap_or_default();
            match &self.get(*id).kind {
                Kind::Object(inner) if self.get(*id).name.is_empty() => {
                    put(text, format_args!("{:indent$}- if `{tag}` is `{case}`:\n", ""));
                    self.members(text, inner, indent + 2);
                }
                _ => put(text, format_args!("{:indent$}- if `{tag}` is `{case}`: {}\n", "", self.word(*id))),
            }
        }
    }
    fn body(&self, text: &mut String, id: TypeId) {
        match &self.get(id).kind {
            Kind::Object(object) if self.get(id).name.is_empty() => self.members(text, object, 0),
            _ => put(text, format_args!("- members of {}\n", self.word(id))),
        }
    }
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = text.write_fmt(what);
}

pub(crate) fn write(schema: &Schema) -> String {
    let mut text = "# The control protocol\n\n\
        Commands, events and types of QMP as Rhea speaks it (`-qmp`, `-mon mode=control`). This page is made from the declarations in\n\
        `control/schema`; a test says when it is out of date and how to make it anew. A command that a machine cannot\n\
        carry out is not in the answer of `query-commands` there.\n"
        .to_owned();
    for (n, chapter) in schema.chapters.iter().enumerate() {
        put(&mut text, format_args!("\n## {chapter}\n"));
        for c in schema.commands.values().filter(|c| c.chapter == n) {
            let oob = if c.oob { " (also out of band)" } else { "" };
            put(&mut text, format_args!("\n### {}{oob}\n\n{}\n", c.name, c.doc));
            if c.arguments != schema.empty {
                text.push_str("\nArguments:\n\n");
                schema.body(&mut text, c.arguments);
            }
            if c.returns != schema.empty {
                put(&mut text, format_args!("\nReturns: {}\n", schema.word(c.returns)));
            }
        }
        for e in schema.events.values().filter(|e| e.chapter == n) {
            let rate = if e.throttled { " (event, at most once a second)" } else { " (event)" };
            put(&mut text, format_args!("\n### {}{rate}\n\n{}\n", e.name, e.doc));
            if e.data != schema.empty {
                text.push('\n');
                schema.body(&mut text, e.data);
            }
        }
    }
    text.push_str("\n## Types\n");
    let mut types: Vec<_> =
        schema.types.iter().filter(|t| !t.name.is_empty() && !matches!(t.kind, Kind::Builtin(_))).collect();
    types.sort_by_key(|t| &t.name);
    for t in types {
        put(&mut text, format_args!("\n### {}\n\n", t.name));
        if !t.doc.is_empty() {
            put(&mut text, format_args!("{}\n\n", t.doc));
        }
        match &t.kind {
            Kind::Enum(values) => {
                let values: Vec<_> = values.iter().map(|v| format!("`{v}`")).collect();
                put(&mut text, format_args!("One of {}\n", values.join(", ")));
            }
            Kind::Object(object) => schema.members(&mut text, object, 0),
            Kind::Alternate(of) => {
                let of: Vec<_> = of.iter().map(|t| schema.word(*t)).collect();
                put(&mut text, format_args!("Either of {}\n", of.join(", ")));
            }
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    /// `RHEA_WRITE_DOCS=1 cargo test -p rhea-control` makes the page anew.
    #[test]
    fn page_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/qmp.md");
        let text = crate::documentation();
        if std::env::var_os("RHEA_WRITE_DOCS").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let there = std::fs::read_to_string(path).unwrap_or_default();
        assert!(there == text, "docs/qmp.md is out of date: RHEA_WRITE_DOCS=1 cargo test -p rhea-control");
    }

    /// What is declared is documented.
    #[test]
    fn everything_is_documented() {
        let schema = crate::schema();
        let silent: Vec<_> = schema
            .commands
            .values()
            .map(|c| (&c.name, &c.doc))
            .chain(schema.events.values().map(|e| (&e.name, &e.doc)))
            .filter(|(_, doc)| doc.is_empty())
            .collect();
        assert!(silent.is_empty(), "without a comment: {silent:?}");
    }
}
