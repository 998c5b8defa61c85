//! Commands about displays, keyboards and pointers.

use super::Shell;
use rhea_control::{Value, json};
use rhea_display::VncServer;
use rhea_machine::Machine;
use rhea_pc::input::{Button, InputEvent, KeyCode};
use std::sync::Arc;

impl Shell {
    pub(super) fn screendump(&self, rest: &[&str]) -> String {
        let (mut words, mut format) = (Vec::new(), "ppm");
        let mut rest = rest.iter();
        while let Some(word) = rest.next() {
            if *word != "-f" {
                words.push(*word);
                continue;
            }
            match rest.next() {
                Some(name) => format = name,
                None => return "screendump: the formats are ppm and png\n".to_owned(),
            }
        }
        let mut arguments = json!({"format": format});
        match words[..] {
            [file] => arguments["filename"] = json!(file),
            [file, device] => {
                arguments["filename"] = json!(file);
                arguments["device"] = json!(device);
            }
            _ => return "screendump: expected a file name\n".to_owned(),
        }
        self.act("screendump", arguments)
    }

    pub(super) fn send_keys(&self, rest: &[&str]) -> String {
        let (keys, hold) = match rest {
            [keys] => (keys, None),
            [keys, hold] => (keys, Some(hold)),
            _ => return "sendkey: expected keys like ctrl-alt-f1\n".to_owned(),
        };
        let keys = match KeyCode::parse_combo(keys) {
            Ok(keys) => keys,
            Err(e) => return format!("sendkey: {e}\n"),
        };
        let keys: Vec<_> = keys.iter().map(|key| json!({"type": "qcode", "data": key.name()})).collect();
        let mut arguments = json!({"keys": keys});
        if let Some(hold) = hold {
            let Ok(ms) = hold.parse::<i64>() else { return "sendkey: expected a time in ms\n".to_owned() };
            arguments["hold-time"] = json!(ms);
        }
        self.act("send-key", arguments)
    }

    pub(super) fn mice(&self) -> String {
        let line = |mouse: &Value| {
            let mark = if mouse["current"] == true { '*' } else { ' ' };
            let absolute = if mouse["absolute"] == true { " (absolute)" } else { "" };
            format!("{mark} Mouse #{}: {}{absolute}\n", mouse["index"], mouse["name"].as_str().unwrap_or_default())
        };
        let text: String = self.list("query-mice").iter().map(line).collect();
        if text.is_empty() { "No mouse devices connected\n".to_owned() } else { text }
    }
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

pub fn vnc(servers: &[Arc<VncServer>]) -> String {
    match servers {
        [] => "None\n".to_owned(),
        servers => servers.iter().map(|s| s.describe()).collect(),
    }
}
