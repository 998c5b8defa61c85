//! Is a value of a declared type?

use crate::Error;
use crate::declaration::{Builtin, Kind, Object, Schema, TypeId};
use serde_json::{Map, Value};

/// Where a value is within the arguments, for messages: `keys[0].data`.
struct Path<'a> {
    before: Option<&'a Path<'a>>,
    step: Step<'a>,
}

enum Step<'a> {
    Member(&'a str),
    Index(usize),
}

impl std::fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(before) = self.before {
            before.fmt(f)?;
        }
        match (&self.step, self.before.is_some()) {
            (Step::Member(name), false) => f.write_str(name),
            (Step::Member(name), true) => write!(f, ".{name}"),
            (Step::Index(n), _) => write!(f, "[{n}]"),
        }
    }
}

fn wrong(path: Option<&Path<'_>>, expected: &str) -> Error {
    match path {
        Some(path) => Error::new(format!("Invalid parameter type for '{path}', expected: {expected}")),
        None => Error::new(format!("Invalid parameter type, expected: {expected}")),
    }
}

impl Schema {
    /// Checks the arguments of a command or the data of an event.
    pub(crate) fn check_members(&self, id: TypeId, members: &Map<String, Value>) -> Result<(), Error> {
        match &self.get(id).kind {
            Kind::Object(object) => self.object(object, members, None),
            _ => Ok(()),
        }
    }
    /// Is it what a command returns, as declared?
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_return(&self, command: &str, value: &Value) -> Result<(), Error> {
        self.command(command).map_or(Ok(()), |c| self.check(c.returns, value))
    }
    /// Checks any value.
    pub(crate) fn check(&self, id: TypeId, value: &Value) -> Result<(), Error> {
        self.value(id, value, None)
    }

    fn value(&self, id: TypeId, value: &Value, path: Option<&Path<'_>>) -> Result<(), Error> {
        match &self.get(id).kind {
            Kind::Builtin(builtin) => builtin_value(*builtin, value, path),
            Kind::Enum(values) => match value {
                Value::String(s) if values.contains(s) => Ok(()),
                Value::String(s) => {
                    let path = path.map_or_else(|| "null".to_owned(), ToString::to_string);
                    Err(Error::new(format!("Parameter '{path}' does not accept value '{s}'")))
                }
                _ => Err(wrong(path, "string")),
            },
            Kind::Object(object) => match value {
                Value::Object(members) => self.object(object, members, path),
                _ => Err(wrong(path, "object")),
            },
            Kind::Array(of) => match value {
                Value::Array(items) => items
                    .iter()
                    .enumerate()
                    .try_for_each(|(n, v)| self.value(*of, v, Some(&Path { before: path, step: Step::Index(n) }))),
                _ => Err(wrong(path, "array")),
            },
            Kind::Alternate(of) => {
                // The first that fits the kind of value decides.
                match of.iter().find(|t| self.same_kind(**t, value)) {
                    Some(fits) => self.value(*fits, value, path),
                    None => Err(wrong(path, "another type")),
                }
            }
        }
    }

    fn same_kind(&self, id: TypeId, value: &Value) -> bool {
        match &self.get(id).kind {
            Kind::Builtin(Builtin::Str) | Kind::Enum(_) => value.is_string(),
            Kind::Builtin(Builtin::Int | Builtin::Unsigned(_)) => value.is_i64() || value.is_u64(),
            Kind::Builtin(Builtin::Number) => value.is_number(),
            Kind::Builtin(Builtin::Bool) => value.is_boolean(),
            Kind::Builtin(Builtin::Null) => value.is_null(),
            Kind::Builtin(Builtin::Any) => true,
            Kind::Object(_) => value.is_object(),
            Kind::Array(_) => value.is_array(),
            Kind::Alternate(of) => of.iter().any(|t| self.same_kind(*t, value)),
        }
    }

    fn object(&self, object: &Object, members: &Map<String, Value>, path: Option<&Path<'_>>) -> Result<(), Error> {
        self.declared(object, members, path)?;
        let case = self.case(object, members);
        if let Some(case) = case {
            self.declared(case, members, path)?;
        }
        let open = object.open || case.is_some_and(|c| c.open);
        let known = |name: &String| {
            [Some(object), case].into_iter().flatten().any(|o| o.members.iter().any(|m| m.name == *name))
        };
        match members.keys().find(|name| !open && !known(name)) {
            Some(name) => {
                let path = Path { before: path, step: Step::Member(name) };
                Err(Error::new(format!("Parameter '{path}' is unexpected")))
            }
            None => Ok(()),
        }
    }

    /// The members that the tag's value adds.
    fn case(&self, object: &Object, members: &Map<String, Value>) -> Option<&Object> {
        let value = members.get(object.tag.as_ref()?)?.as_str()?;
        let (_, id) = object.cases.iter().find(|(name, _)| name == value)?;
        match &self.get(*id).kind {
            Kind::Object(case) => Some(case),
            _ => None,
        }
    }

    fn declared(&self, object: &Object, members: &Map<String, Value>, path: Option<&Path<'_>>) -> Result<(), Error> {
        object.members.iter().try_for_each(|m| {
            let path = Path { before: path, step: Step::Member(&m.name) };
            match members.get(&m.name) {
                Some(value) => self.value(m.kind, value, Some(&path)),
                None if m.optional => Ok(()),
                None => Err(Error::new(format!("Parameter '{path}' is missing"))),
            }
        })
    }
}

fn builtin_value(builtin: Builtin, value: &Value, path: Option<&Path<'_>>) -> Result<(), Error> {
    let good = |fits: bool, word: &str| if fits { Ok(()) } else { Err(wrong(path, word)) };
    match builtin {
        Builtin::Str => good(value.is_string(), "string"),
        Builtin::Int => good(value.is_i64(), "integer"),
        Builtin::Unsigned(bits) => {
            let fits = value.as_u64().is_some_and(|n| bits == 64 || n >> bits == 0);
            let text = || match path {
                Some(path) => format!("Parameter '{path}' expects uint{bits}"),
                None => format!("expected uint{bits}"),
            };
            if fits { Ok(()) } else { Err(Error::new(text())) }
        }
        Builtin::Number => good(value.is_number(), "number"),
        Builtin::Bool => good(value.is_boolean(), "boolean"),
        Builtin::Null => good(value.is_null(), "null"),
        Builtin::Any => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn messages() {
        let text = "enum E { a b }\nunion U on type { type: E  a { data: int }  b { data: E } }\nalternate A { str U null }\n\
                    command c { n: uint8  list: [U]  s?: str  f?: number  alt?: A }\ncommand o [open] { id?: str }";
        let schema = Schema::parse(&[("t", text)]).unwrap();
        let check = |name: &str, value: Value| {
            let members = value.as_object().cloned().unwrap_or_default();
            let result = schema.check_members(schema.command(name).unwrap().arguments, &members);
            result.map_or_else(|e| e.text, |()| String::new())
        };
        let a = json!({"type": "a", "data": 5});
        for (value, text) in [
            (json!({}), "Parameter 'n' is missing"),
            (json!({"n": 1}), "Parameter 'list' is missing"),
            (json!({"n": 256, "list": []}), "Parameter 'n' expects uint8"),
            (json!({"n": -1, "list": []}), "Parameter 'n' expects uint8"),
            (json!({"n": 1, "list": 5}), "Invalid parameter type for 'list', expected: array"),
            (json!({"n": 1, "list": [5]}), "Invalid parameter type for 'list[0]', expected: object"),
            (json!({"n": 1, "list": [a, {"type": "a"}]}), "Parameter 'list[1].data' is missing"),
            (json!({"n": 1, "list": [{"data": 1}]}), "Parameter 'list[0].type' is missing"),
            (json!({"n": 1, "list": [{"type": "z"}]}), "Parameter 'list[0].type' does not accept value 'z'"),
            (
                json!({"n": 1, "list": [{"type": "b", "data": "q"}]}),
                "Parameter 'list[0].data' does not accept value 'q'",
            ),
            (json!({"n": 1, "list": [{"type": "a", "data": 1, "x": 2}]}), "Parameter 'list[0].x' is unexpected"),
            (json!({"n": 1, "list": [], "s": 1}), "Invalid parameter type for 's', expected: string"),
            (json!({"n": 1, "list": [], "z": 1}), "Parameter 'z' is unexpected"),
            (json!({"n": 1, "list": [], "alt": 1}), "Invalid parameter type for 'alt', expected: another type"),
            (json!({"n": 1, "list": [], "alt": {"type": "a"}}), "Parameter 'alt.data' is missing"),
            (json!({"n": 1, "list": [a], "s": "", "f": 1.5, "alt": null}), ""),
        ] {
            assert_eq!(check("c", value.clone()), text, "{value}");
        }
        assert_eq!(check("o", json!({"anything": {}})), "");
        assert_eq!(check("o", json!({"id": 1})), "Invalid parameter type for 'id', expected: string");
    }
}
