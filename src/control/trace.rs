//! Commands that switch what the log tells of.

use super::Context;
use rhea_control::{Call, Commands, Error, Value, json};
use rhea_device::LogMask;

pub fn register(commands: &mut Commands<Context>) {
    commands.add(&[("trace-event-get-state", get), ("trace-event-set-state", set)]);
}

type Result<T = Value> = std::result::Result<T, Error>;

/// Items that are looked at once, when the machine is made.
const FIXED: [LogMask; 4] = [LogMask::Op, LogMask::Jit, LogMask::Int, LogMask::Vfio];

/// Does `text` match a pattern of `*` (anything) and `?` (any character)? Takes at most the product of the lengths.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                // The last star takes one more.
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, t) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// The items of a name or pattern.
fn items(name: &str) -> Result<Vec<(LogMask, &'static str)>> {
    let all = LogMask::ALL.iter().map(|(item, word, _)| (*item, *word));
    let found: Vec<_> = all.filter(|(_, word)| matches(name.as_bytes(), word.as_bytes())).collect();
    if found.is_empty() && !name.contains(['*', '?']) {
        return Err(Error::new(format!("unknown event \"{name}\"")));
    }
    Ok(found)
}

fn get(context: &Context, call: &mut Call<'_>) -> Result {
    let log = context.machine.log();
    let state = |item| match (log.enabled(item), FIXED.contains(&item)) {
        (true, _) => "enabled",
        (false, true) => "unavailable",
        (false, false) => "disabled",
    };
    let found = items(call.required("name"))?;
    Ok(found.into_iter().map(|(item, word)| json!({"name": word, "state": state(item)})).collect())
}

fn set(context: &Context, call: &mut Call<'_>) -> Result {
    let (name, enable) = (call.required("name"), call.flag("enable"));
    let found = items(name)?;
    let fixed = |item: &LogMask| FIXED.contains(item);
    if let Some((_, word)) = found.iter().find(|(item, _)| fixed(item) && !call.flag("ignore-unavailable")) {
        return Err(Error::new(format!("event \"{word}\" is not dynamic: it is of the command line (-d {word})")));
    }
    found.iter().filter(|(item, _)| !fixed(item)).for_each(|(item, _)| context.machine.log().set(*item, enable));
    Ok(json!({}))
}

#[cfg(test)]
mod tests {
    use super::{items, matches};

    #[test]
    fn patterns() {
        let is = |pattern: &str, text: &str| matches(pattern.as_bytes(), text.as_bytes());
        assert!(is("*", "") && is("a*c?", "abbcd") && is("*a*b", "xxaxb") && is("unimp", "unimp"));
        assert!(!is("a*c?", "abbc") && !is("?", "") && !is("ab", "abc") && !is("", "a"));
        assert!(!is(&"*a".repeat(2000), &"a".repeat(1000)));
        assert_eq!(items("cpu_*").map(|all| all.len()), Ok(1));
        assert_eq!(items("no*").map(|all| all.len()), Ok(0));
        assert!(items("no").is_err());
    }
}
