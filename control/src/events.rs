//! Events on their way to all sessions.

use crate::Schema;
use crate::session::Outbox;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Throttled events of one kind are this far apart.
const APART: Duration = Duration::from_secs(1);
/// Members that tell throttled events of different things apart.
const KEYS: &[&str] = &["id", "node-name", "path", "device", "qom-path"];

/// A throttled event that was sent lately.
struct Lately {
    at: Instant,
    /// The newest that has to wait.
    next: Option<Value>,
}

#[derive(Default)]
struct State {
    outboxes: Vec<Weak<Outbox>>,
    throttled: BTreeMap<String, Lately>,
}

/// Where events are emitted, from any thread; nobody who emits waits for those who read.
pub struct Events {
    schema: Arc<Schema>,
    state: Mutex<State>,
}

impl Events {
    #[must_use]
    pub fn new(schema: &Arc<Schema>) -> Arc<Self> {
        Arc::new(Self { schema: schema.clone(), state: Mutex::default() })
    }
    pub(crate) fn subscribe(&self, outbox: &Arc<Outbox>) {
        self.state.lock().outboxes.push(Arc::downgrade(outbox));
    }

    /// Sends an event. `data` is an object, or null if the event has no data.
    pub fn emit(self: &Arc<Self>, name: &str, data: Value) {
        let Some(event) = self.schema.event(name) else {
            debug_assert!(false, "the event {name} is not declared");
            return;
        };
        let data = match data {
            Value::Object(members) => members,
            _ => Map::new(),
        };
        let wrong = self.schema.check_members(event.data, &data);
        debug_assert!(wrong.is_ok(), "{name}: {wrong:?}");
        let key = KEYS.iter().filter_map(|k| data.get(*k)).fold(name.to_owned(), |key, v| format!("{key} {v}"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let stamp = json!({"seconds": now.as_secs(), "microseconds": now.subsec_micros()});
        let mut message = json!({"timestamp": stamp, "event": name});
        if !data.is_empty() {
            message["data"] = Value::Object(data);
        }
        if !event.throttled {
            return self.send(&message);
        }
        let waits = {
            let mut state = self.state.lock();
            match state.throttled.get_mut(&key) {
                Some(lately) => {
                    lately.next = Some(message.clone());
                    true
                }
                None => {
                    state.throttled.insert(key.clone(), Lately { at: Instant::now(), next: None });
                    false
                }
            }
        };
        if !waits {
            self.send(&message);
            let me = Arc::downgrade(self);
            let later = std::thread::Builder::new().name("rhea-events".to_owned());
            if later.spawn(move || later_ones(&me, &key)).is_err() {
                // Nobody holds events back, then.
                self.state.lock().throttled.clear();
            }
        }
    }

    fn send(&self, message: &Value) {
        let line = format!("{message}\r\n");
        self.state.lock().outboxes.retain(|outbox| match outbox.upgrade() {
            Some(outbox) => {
                outbox.event(line.as_bytes());
                true
            }
            None => false,
        });
    }

    /// Waits until those who read have got everything, at most `limit`.
    pub fn flush(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let all: Vec<_> = self.state.lock().outboxes.iter().filter_map(Weak::upgrade).collect();
        all.iter().for_each(|outbox| outbox.wait_empty(end));
    }
}

/// Sends the newest of what came too soon, until there is none for as long as events are apart.
fn later_ones(events: &Weak<Events>, key: &str) {
    loop {
        let left = match events.upgrade() {
            Some(events) => {
                let mut state = events.state.lock();
                let Some(lately) = state.throttled.get_mut(key) else { return };
                APART.saturating_sub(lately.at.elapsed())
            }
            None => return,
        };
        if !left.is_zero() {
            std::thread::sleep(left);
            continue;
        }
        let Some(events) = events.upgrade() else { return };
        let message = {
            let mut state = events.state.lock();
            let Some(lately) = state.throttled.get_mut(key) else { return };
            lately.at = Instant::now();
            let message = lately.next.take();
            if message.is_none() {
                state.throttled.remove(key);
                return;
            }
            message
        };
        message.iter().for_each(|m| events.send(m));
    }
}
