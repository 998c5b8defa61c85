//! Values made up from declarations, right ones and wrong ones: to try what commands make of them.

use crate::declaration::{Builtin, Kind, Object, Schema, TypeId};
use serde_json::{Map, Value, json};

/// Where a sample gets its choices from.
pub trait Chance {
    /// A number under `limit`, which is not 0.
    fn below(&mut self, limit: u64) -> u64;
    /// A number that finds mistakes.
    fn edge(&mut self) -> u64;
    /// A text: an id, a name.
    fn word(&mut self) -> String;
}

/// Values within values, at most.
const DEPTH: u32 = 6;

struct Sampler<'a, C> {
    schema: &'a Schema,
    chance: &'a mut C,
    /// One value in so many is of another type than declared; 0: none.
    wrong: u64,
}

impl Schema {
    /// Arguments of a command, as declared but for one value in `wrong` (0: all are).
    pub fn sample(&self, command: &str, chance: &mut impl Chance, wrong: u64) -> Value {
        let Some(command) = self.command(command) else { return Value::Null };
        Sampler { schema: self, chance, wrong }.value(command.arguments, DEPTH)
    }
}

impl<C: Chance> Sampler<'_, C> {
    fn any(&mut self, depth: u32) -> Value {
        match self.chance.below(if depth == 0 { 5 } else { 7 }) {
            0 => Value::Null,
            1 => json!(self.chance.below(2) == 0),
            2 => json!(self.chance.edge()),
            3 => json!(self.chance.edge() as i64),
            4 => json!(self.chance.word()),
            5 => (0..self.chance.below(3)).map(|_| self.any(depth - 1)).collect(),
            _ => {
                let count = self.chance.below(3);
                Value::Object((0..count).map(|_| (self.chance.word(), self.any(depth - 1))).collect())
            }
        }
    }
    fn value(&mut self, id: TypeId, depth: u32) -> Value {
        if self.wrong != 0 && depth < DEPTH && self.chance.below(self.wrong) == 0 {
            return self.any(depth.min(2));
        }
        match &self.schema.get(id).kind {
            Kind::Builtin(builtin) => match builtin {
                Builtin::Str => json!(self.chance.word()),
                Builtin::Int => json!(self.chance.edge() as i64),
                Builtin::Unsigned(bits) => json!(self.chance.edge() >> (64 - (*bits).clamp(1, 64))),
                Builtin::Number => json!(self.chance.edge() as f64 / 7.0),
                Builtin::Bool => json!(self.chance.below(2) == 0),
                Builtin::Null => Value::Null,
                Builtin::Any => self.any(depth.min(2)),
            },
            Kind::Enum(words) => match words.len() as u64 {
                0 => Value::Null,
                n => json!(words[self.chance.below(n) as usize]),
            },
            Kind::Array(of) => {
                let count = if depth == 0 { 0 } else { self.chance.below(4) };
                (0..count).map(|_| self.value(*of, depth - 1)).collect()
            }
            Kind::Alternate(of) => match of.len() as u64 {
                0 => Value::Null,
                n => {
                    let at = self.chance.below(n) as usize;
                    self.value(of[at], depth)
                }
            },
            Kind::Object(object) => Value::Object(self.object(object, depth)),
        }
    }
    fn object(&mut self, object: &Object, depth: u32) -> Map<String, Value> {
        let mut map = Map::new();
        for member in &object.members {
            if member.optional && (depth == 0 || self.chance.below(2) == 0) {
                continue;
            }
            map.insert(member.name.clone(), self.value(member.kind, depth.saturating_sub(1)));
        }
        let tag = object.tag.as_deref().and_then(|tag| map.get(tag)).and_then(Value::as_str).map(str::to_owned);
        let case = object.cases.iter().find(|(value, _)| Some(value) == tag.as_ref());
        if let Some((_, id)) = case
            && let Value::Object(more) = self.value(*id, depth.saturating_sub(1))
        {
            map.extend(more);
        }
        if object.open {
            for _ in 0..self.chance.below(3) {
                let (key, value) = (self.chance.word(), self.any(1));
                map.insert(key, value);
            }
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting(u64);
    impl Chance for Counting {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (self.0 >> 33) % limit
        }
        fn edge(&mut self) -> u64 {
            self.below(64)
        }
        fn word(&mut self) -> String {
            "w".to_owned()
        }
    }

    /// What is made up is what the checks let through.
    #[test]
    fn samples_are_as_declared() {
        let schema = crate::schema();
        let names: Vec<String> = schema.command_names().map(str::to_owned).collect();
        let mut chance = Counting(7);
        for name in names.iter().cycle().take(names.len() * 20) {
            let sample = schema.sample(name, &mut chance, 0);
            let arguments = schema.command(name).map(|c| c.arguments);
            let checked = arguments.map(|id| schema.check_members(id, sample.as_object().unwrap_or(&Map::new())));
            assert_eq!(checked, Some(Ok(())), "{name}: {sample}");
        }
    }
}
