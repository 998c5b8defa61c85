//! Commands about displays, keyboards and pointers.

use rhea_display::{ImageFormat, VncServer};
use rhea_machine::Machine;

use rhea_pc::input::{Button, InputEvent, InputKinds, KeyCode};
use std::sync::Arc;
use std::time::Duration;

/// How long `sendkey` holds the keys, in milliseconds.
const HOLD: u64 = 100;
const HOLD_LIMIT: u64 = 10_000;

pub fn screendump(machine: &Machine, rest: &[&str]) -> String {
    let (mut words, mut format) = (Vec::new(), ImageFormat::default());
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        if *word != "-f" {
            words.push(*word);
            continue;
        }
        match rest.next().and_then(|name| ImageFormat::from_name(name)) {
            Some(known) => format = known,
            None => return "screendump: the formats are ppm and png\n".to_owned(),
        }
    }
    let (file, device) = match words[..] {
        [file] => (file, None),
        [file, device] => (file, Some(device)),
        _ => return "screendump: expected a file name\n".to_owned(),
    };
    let named = |name: &str, device: &str| name == device || name.split('@').next() == Some(device);
    let console = machine.displays().iter().find(|c| device.is_none_or(|d| named(c.display().name(), d)));
    let Some(console) = console else {
        return match device {
            Some(device) => format!("screendump: there is no display '{device}'\n"),
            None => "screendump: the machine has no display\n".to_owned(),
        };
    };
    match console.screendump(format).and_then(|data| std::fs::write(file, data)) {
        Ok(()) => String::new(),
        Err(e) => format!("screendump: '{file}': {e}\n"),
    }
}

pub fn send_keys(machine: &Machine, rest: &[&str]) -> String {
    let (keys, hold) = match rest {
        [keys] => (keys, Some(HOLD)),
        [keys, hold] => (keys, hold.parse().ok().filter(|ms| *ms <= HOLD_LIMIT)),
        _ => return "sendkey: expected keys like ctrl-alt-f1\n".to_owned(),
    };
    let Some(hold) = hold else {
        return format!("sendkey: expected a time of 0 to {HOLD_LIMIT} ms\n");
    };
    let keys = match KeyCode::parse_combo(keys) {
        Ok(keys) => keys,
        Err(e) => return format!("sendkey: {e}\n"),
    };
    let input = machine.input();
    keys.iter().for_each(|key| input.key(*key, true));
    std::thread::sleep(Duration::from_millis(hold));
    keys.iter().rev().for_each(|key| input.key(*key, false));
    String::new()
}

pub fn mouse_move(machine: &Machine, rest: &[&str]) -> String {
    let numbers: Option<Vec<i32>> = rest.iter().map(|n| n.parse().ok()).collect();
    let (dx, dy, dz) = match numbers.as_deref() {
        Some([dx, dy]) => (*dx, *dy, 0),
        Some([dx, dy, dz]) => (*dx, *dy, *dz),
        _ => return "mouse_move: expected dx dy [dz]\n".to_owned(),
    };
    let mut events = vec![InputEvent::Relative { dx, dy }];
    if dz != 0 {
        events.push(InputEvent::Wheel { vertical: dz.saturating_neg(), horizontal: 0 });
    }
    machine.input().send(&events);
    String::new()
}

pub fn mouse_button(machine: &Machine, rest: &[&str]) -> String {
    let Some(state) = rest.first().and_then(|n| rhea_device::options::parse_number(n)).filter(|_| rest.len() == 1)
    else {
        return "mouse_button: expected the sum of 1 (left), 2 (middle), 4 (right)\n".to_owned();
    };
    let events = [(1, Button::Left), (2, Button::Middle), (4, Button::Right)]
        .map(|(bit, button)| InputEvent::Button { button, down: state & bit != 0 });
    machine.input().send(&events);
    String::new()
}

pub fn mouse_set(machine: &Machine, rest: &[&str]) -> String {
    match rest {
        [n] if n.parse().is_ok_and(|n| machine.input().activate(n)) => String::new(),
        _ => "mouse_set: expected the number of a pointer ('info mice' lists them)\n".to_owned(),
    }
}

pub fn mice(machine: &Machine) -> String {
    let mut text = String::new();
    let mut mark = '*';
    for (id, name, kinds) in machine.input().list() {
        if kinds.intersects(InputKinds::POINTER) {
            let absolute = if kinds.contains(InputKinds::ABSOLUTE) { " (absolute)" } else { "" };
            text.push_str(&format!("{mark} Mouse #{id}: {name}{absolute}\n"));
            mark = ' ';
        }
    }
    if text.is_empty() { "No mouse devices connected\n".to_owned() } else { text }
}

pub fn vnc(servers: &[Arc<VncServer>]) -> String {
    match servers {
        [] => "None\n".to_owned(),
        servers => servers.iter().map(|s| s.describe()).collect(),
    }
}
