//! The declaration as clients ask for it: the answer of `query-qmp-schema`.

use crate::declaration::{Builtin, Kind, Member, Schema, TypeId};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, VecDeque};

struct Writer<'a> {
    schema: &'a Schema,
    /// Names given so far: numbers, so that nobody relies on them.
    names: BTreeMap<TypeId, String>,
    /// Types that were named but not written yet.
    waiting: VecDeque<TypeId>,
}

impl Writer<'_> {
    fn name(&mut self, id: TypeId) -> String {
        if let Some(name) = self.names.get(&id) {
            return name.clone();
        }
        let name = match &self.schema.get(id).kind {
            Kind::Builtin(b) => builtin(*b).0.to_owned(),
            Kind::Array(of) => format!("[{}]", self.name(*of)),
            _ => self.names.len().to_string(),
        };
        // Unsigned numbers are integers like others.
        if !self.names.values().any(|n| *n == name) {
            self.waiting.push_back(id);
        }
        self.names.insert(id, name.clone());
        name
    }
    fn members(&mut self, members: &[Member]) -> Value {
        let one = |m: &Member| {
            let mut entry = json!({"name": m.name, "type": self.name(m.kind)});
            if m.optional {
                entry["default"] = Value::Null;
            }
            features(&mut entry, &m.features);
            entry
        };
        members.iter().map(one).collect()
    }
    fn entity(&mut self, id: TypeId) -> Value {
        let name = self.name(id);
        match &self.schema.get(id).kind {
            Kind::Builtin(b) => json!({"name": name, "meta-type": "builtin", "json-type": builtin(*b).1}),
            Kind::Enum(values) => {
                let members: Vec<_> = values.iter().map(|v| json!({"name": v})).collect();
                json!({"name": name, "meta-type": "enum", "members": members, "values": values})
            }
            Kind::Array(of) => json!({"name": name, "meta-type": "array", "element-type": self.name(*of)}),
            Kind::Alternate(of) => {
                let members: Vec<_> = of.iter().map(|t| json!({"type": self.name(*t)})).collect();
                json!({"name": name, "meta-type": "alternate", "members": members})
            }
            Kind::Object(object) => {
                let mut entry = json!({"name": name, "meta-type": "object", "members": self.members(&object.members)});
                if let Some(tag) = &object.tag {
                    let cases = object.cases.iter().map(|(case, t)| json!({"case": case, "type": self.name(*t)}));
                    let mut cases: Vec<_> = cases.collect();
                    // Values without members of their own are cases too.
                    let tag_type = object.members.iter().find(|m| m.name == *tag).map(|m| m.kind);
                    if let Some(Kind::Enum(values)) = tag_type.map(|t| &self.schema.get(t).kind) {
                        let empty = self.name(self.schema.empty);
                        for value in values.iter().filter(|v| !object.cases.iter().any(|(c, _)| c == *v)) {
                            cases.push(json!({"case": value, "type": empty}));
                        }
                    }
                    entry["tag"] = json!(tag);
                    entry["variants"] = json!(cases);
                }
                entry
            }
        }
    }
}

fn features(entry: &mut Value, features: &[String]) {
    if !features.is_empty() {
        entry["features"] = json!(features);
    }
}

/// The name of a builtin type, and what it is in JSON.
fn builtin(b: Builtin) -> (&'static str, &'static str) {
    match b {
        Builtin::Str => ("str", "string"),
        Builtin::Int | Builtin::Unsigned(_) => ("int", "int"),
        Builtin::Number => ("number", "number"),
        Builtin::Bool => ("bool", "boolean"),
        Builtin::Null => ("null", "null"),
        Builtin::Any => ("any", "value"),
    }
}

impl Schema {
    /// The commands that `has` knows, all events, and the types they need.
    pub(crate) fn introspect(&self, has: impl Fn(&str) -> bool) -> Value {
        let mut writer = Writer { schema: self, names: BTreeMap::new(), waiting: VecDeque::new() };
        let mut all = Vec::new();
        for c in self.commands.values().filter(|c| has(&c.name)) {
            let mut entry = Map::new();
            entry.insert("name".to_owned(), json!(c.name));
            entry.insert("meta-type".to_owned(), json!("command"));
            entry.insert("arg-type".to_owned(), json!(writer.name(c.arguments)));
            entry.insert("ret-type".to_owned(), json!(writer.name(c.returns)));
            if c.oob {
                entry.insert("allow-oob".to_owned(), json!(true));
            }
            let mut entry = Value::Object(entry);
            features(&mut entry, &c.features);
            all.push(entry);
        }
        for e in self.events.values() {
            all.push(json!({"name": e.name, "meta-type": "event", "arg-type": writer.name(e.data)}));
        }
        while let Some(id) = writer.waiting.pop_front() {
            all.push(writer.entity(id));
        }
        Value::Array(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Every name that is used is there once, and numbers of all widths are one type.
    #[test]
    fn closed() {
        let schema = crate::schema();
        let all = schema.introspect(|_| true);
        let all = all.as_array().unwrap();
        let text = |v: &Value, key: &str| v.get(key).and_then(Value::as_str).map(str::to_owned);
        let types: Vec<_> = all
            .iter()
            .filter(|e| !matches!(text(e, "meta-type").as_deref(), Some("command" | "event")))
            .filter_map(|e| text(e, "name"))
            .collect();
        let set: BTreeSet<_> = types.iter().cloned().collect();
        assert_eq!(set.len(), types.len(), "a name is there twice");
        let mut used = BTreeSet::new();
        for e in all {
            used.extend(["arg-type", "ret-type", "element-type"].iter().filter_map(|k| text(e, k)));
            for list in ["members", "variants"] {
                used.extend(
                    e.get(list).and_then(Value::as_array).into_iter().flatten().filter_map(|m| text(m, "type")),
                );
            }
        }
        assert_eq!(used.difference(&set).collect::<Vec<_>>(), Vec::<&String>::new());
        assert_eq!(set.difference(&used).collect::<Vec<_>>(), Vec::<&String>::new());
        let few = schema.introspect(|name| name == "query-status");
        assert!(few.as_array().unwrap().iter().any(|e| text(e, "name").as_deref() == Some("query-status")));
        assert!(!few.as_array().unwrap().iter().any(|e| text(e, "name").as_deref() == Some("stop")));
    }
}
