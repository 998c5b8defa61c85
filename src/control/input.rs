//! Commands about displays, keyboards and pointers.

use super::Context;
use rhea_control::{Call, Commands, Error, Value, json};
use rhea_display::{Console, ImageFormat};
use rhea_pc::input::{ABSOLUTE_MAX, Button, InputEvent, InputKinds, KeyCode};
use std::sync::Arc;
use std::time::Duration;

pub fn register(commands: &mut Commands<Context>) {
    commands.add(&[
        ("screendump", screendump),
        ("send-key", send_key),
        ("input-send-event", send_event),
        ("query-mice", mice),
    ]);
}

type Result<T = Value> = std::result::Result<T, Error>;

/// How long `send-key` holds the keys if it is not told, in milliseconds.
const HOLD: i64 = 100;
const HOLD_LIMIT: i64 = 10_000;

/// The display of a device; the first one if none is named.
fn display<'a>(context: &'a Context, device: Option<&str>) -> Result<&'a Arc<Console>> {
    let displays = context.machine.displays();
    let Some(device) = device else {
        return displays.first().ok_or_else(|| Error::new("There is no console to take a screendump from"));
    };
    let kind =
        context.machine.inventory().devices().iter().find(|d| d.id() == Some(device)).map(|d| d.spec.driver.clone());
    let named = |name: &str| {
        [Some(device), kind.as_deref()].into_iter().flatten().any(|d| name == d || name.split('@').next() == Some(d))
    };
    displays.iter().find(|c| named(c.display().name())).ok_or_else(|| Error::no_device(device))
}

fn screendump(context: &Context, call: &mut Call<'_>) -> Result {
    if call.get("head").is_some() && call.get("device").is_none() {
        return Err(Error::new("'head' must be specified together with 'device'"));
    }
    let head = call.number("head").unwrap_or(0);
    let console = display(context, call.text("device"))?;
    if head != 0 {
        return Err(Error::new(format!("Device '{}' (head {head}) is not there", call.required("device"))));
    }
    let format = ImageFormat::from_name(call.text("format").unwrap_or("ppm")).unwrap_or_default();
    let file = call.required("filename");
    let written = console.screendump(format).and_then(|data| std::fs::write(file, data));
    written.map_err(|e| Error::new(format!("failed to write file '{file}': {}", Error::from(e))))?;
    Ok(json!({}))
}

/// The key of a checked value.
fn key(value: &Value) -> Result<KeyCode> {
    let data = &value["data"];
    let found = match (data.as_str(), data.as_u64()) {
        (Some(name), _) => KeyCode::from_name(name),
        (None, Some(n)) => u8::try_from(n).ok().and_then(KeyCode::from_number),
        _ => None,
    };
    found.ok_or_else(|| Error::new(format!("there is no key {data}")))
}

fn send_key(context: &Context, call: &mut Call<'_>) -> Result {
    let hold = call.number("hold-time").unwrap_or(HOLD);
    if !(0..=HOLD_LIMIT).contains(&hold) {
        return Err(Error::new(format!("Parameter 'hold-time' expects a time of 0 to {HOLD_LIMIT} ms")));
    }
    let keys: Vec<KeyCode> =
        call.get("keys").and_then(Value::as_array).into_iter().flatten().map(key).collect::<Result<_>>()?;
    let input = context.machine.input();
    keys.iter().for_each(|key| input.key(*key, true));
    std::thread::sleep(Duration::from_millis(hold as u64));
    keys.iter().rev().for_each(|key| input.key(*key, false));
    Ok(json!({}))
}

fn button(name: &str, down: bool) -> Option<InputEvent> {
    let button = match name {
        "left" => Button::Left,
        "middle" => Button::Middle,
        "right" => Button::Right,
        "side" => Button::Side,
        "extra" => Button::Extra,
        // Wheels turn when pressed.
        _ if !down => return None,
        "wheel-up" => return Some(InputEvent::Wheel { vertical: 1, horizontal: 0 }),
        "wheel-down" => return Some(InputEvent::Wheel { vertical: -1, horizontal: 0 }),
        "wheel-left" => return Some(InputEvent::Wheel { vertical: 0, horizontal: -1 }),
        _ => return Some(InputEvent::Wheel { vertical: 0, horizontal: 1 }),
    };
    Some(InputEvent::Button { button, down })
}

fn send_event(context: &Context, call: &mut Call<'_>) -> Result {
    if let Some(device) = call.text("device") {
        display(context, Some(device))?;
    }
    let mut events = Vec::new();
    let mut place = context.pointer.lock();
    let (mut moved, mut motion) = (false, (0, 0));
    for event in call.get("events").and_then(Value::as_array).into_iter().flatten() {
        let data = &event["data"];
        let value = data["value"].as_i64().unwrap_or(0);
        let across = data["axis"] == "x";
        match event["type"].as_str().unwrap_or_default() {
            "key" => {
                let down = data["down"].as_bool().unwrap_or(false);
                events.push(InputEvent::Key { code: key(&data["key"])?, down });
            }
            "btn" => {
                let down = data["down"].as_bool().unwrap_or(false);
                events.extend(button(data["button"].as_str().unwrap_or_default(), down));
            }
            "rel" => {
                let value = value.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
                *(if across { &mut motion.0 } else { &mut motion.1 }) = value;
            }
            _ => {
                let value = value.clamp(0, ABSOLUTE_MAX.into()) as u16;
                *(if across { &mut place.0 } else { &mut place.1 }) = value;
                moved = true;
            }
        }
    }
    let mut all = Vec::new();
    if moved {
        all.push(InputEvent::Absolute { x: place.0, y: place.1 });
    }
    if motion != (0, 0) {
        all.push(InputEvent::Relative { dx: motion.0, dy: motion.1 });
    }
    all.append(&mut events);
    drop(place);
    context.machine.input().send(&all);
    Ok(json!({}))
}

fn mice(context: &Context, _: &mut Call<'_>) -> Result {
    let pointers = context.machine.input().list();
    let pointers = pointers.iter().filter(|(_, _, kinds)| kinds.intersects(InputKinds::POINTER));
    let one = |(n, (id, name, kinds)): (usize, &(u64, String, InputKinds))| json!({"index": id, "name": name, "current": n == 0, "absolute": kinds.contains(InputKinds::ABSOLUTE)});
    Ok(pointers.enumerate().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The protocol knows the keys that there are.
    #[test]
    fn keys_are_declared() {
        let schema = rhea_control::schema();
        let declared = schema.values("QKeyCode");
        let names: Vec<_> = KeyCode::ALL.iter().map(|key| key.name()).collect();
        assert_eq!(declared, names);
    }
}
