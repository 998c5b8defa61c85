//! Where input goes: of the consumers of each kind the one that was activated last gets it.

use super::{Button, InputEvent, KeyCode};
use bitflags::bitflags;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

bitflags! {
    /// What a consumer takes.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct InputKinds: u8 {
        const KEYS = 1;
        /// Relative motion, with buttons and wheel.
        const RELATIVE = 2;
        /// Absolute positions, with buttons and wheel.
        const ABSOLUTE = 4;
        const POINTER = Self::RELATIVE.bits() | Self::ABSOLUTE.bits();
    }

    /// The lights of a keyboard, as the PS/2 keyboard numbers them.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Leds: u8 {
        const SCROLL_LOCK = 1;
        const NUM_LOCK = 2;
        const CAPS_LOCK = 4;
    }
}

/// A device that takes input. Called from the threads of displays and monitors, with no lock of the hub held.
pub trait InputConsumer: Send + Sync {
    /// Events that happened together: one report. Only of the kinds the consumer attached for.
    fn input(&self, events: &[InputEvent]);
}

struct Entry {
    id: u64,
    name: String,
    kinds: InputKinds,
    consumer: Weak<dyn InputConsumer>,
    leds: Leds,
}

#[derive(Default)]
struct State {
    /// The most recently activated first.
    consumers: Vec<Entry>,
    next_id: u64,
    keys: BTreeSet<KeyCode>,
    buttons: BTreeSet<Button>,
}

impl State {
    fn first(&self, kinds: InputKinds) -> Option<&Entry> {
        self.consumers.iter().find(|entry| entry.kinds.intersects(kinds))
    }
}

type LedListener = Arc<dyn Fn(Leds) + Send + Sync>;
type InputListener = Arc<dyn Fn() + Send + Sync>;

/// The registry of consumers of one machine.
#[derive(Default)]
pub struct InputHub {
    state: Mutex<State>,
    led_listeners: Mutex<Vec<LedListener>>,
    input_listeners: Mutex<Vec<InputListener>>,
}

impl InputHub {
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }
    /// Attaches a consumer behind those that are there; it is detached when the handle is dropped. `name` is for lists.
    pub fn attach(self: &Arc<Self>, name: &str, kinds: InputKinds, consumer: Weak<dyn InputConsumer>) -> InputHandle {
        let mut state = self.state.lock();
        state.next_id += 1;
        let id = state.next_id;
        state.consumers.push(Entry { id, name: name.to_owned(), kinds, consumer, leds: Leds::empty() });
        InputHandle { id, hub: Arc::downgrade(self) }
    }
    /// `listener` is told of all input, before a consumer gets it (a suspended machine wakes by it).
    pub fn on_input(&self, listener: impl Fn() + Send + Sync + 'static) {
        self.input_listeners.lock().push(Arc::new(listener));
    }
    /// Sends events that happened together: keys to the active keyboard; motion to the active pointer of its kind, with it buttons
    /// and wheel, which go to the active pointer otherwise. What nobody takes is lost.
    pub fn send(&self, events: &[InputEvent]) {
        let listeners = self.input_listeners.lock().clone();
        for listener in listeners {
            listener();
        }
        let (mut keys, mut pointer) = (vec![], vec![]);
        let (keyboard, mouse) = {
            let mut state = self.state.lock();
            let mut kinds = InputKinds::POINTER;
            for event in events {
                match *event {
                    InputEvent::Key { code, down } => {
                        if down {
                            state.keys.insert(code)
                        } else {
                            state.keys.remove(&code)
                        };
                        keys.push(*event);
                        continue;
                    }
                    InputEvent::Button { button, down } => {
                        if down {
                            state.buttons.insert(button)
                        } else {
                            state.buttons.remove(&button)
                        };
                    }
                    InputEvent::Relative { .. } => kinds = InputKinds::RELATIVE,
                    InputEvent::Absolute { .. } => kinds = InputKinds::ABSOLUTE,
                    InputEvent::Wheel { .. } => {}
                }
                pointer.push(*event);
            }
            let keyboard = state.first(InputKinds::KEYS).map(|entry| entry.consumer.clone());
            let mut mouse = state.first(kinds);
            if mouse.is_none() {
                // Nobody follows the motion; buttons and wheel still count.
                pointer.retain(|e| !matches!(e, InputEvent::Relative { .. } | InputEvent::Absolute { .. }));
                mouse = state.first(InputKinds::POINTER);
            }
            (keyboard, mouse.map(|entry| entry.consumer.clone()))
        };
        for (consumer, events) in [(keyboard, keys), (mouse, pointer)] {
            if let (Some(consumer), false) = (consumer.and_then(|weak| weak.upgrade()), events.is_empty()) {
                consumer.input(&events);
            }
        }
    }
    /// Presses or releases a key.
    pub fn key(&self, code: KeyCode, down: bool) {
        self.send(&[InputEvent::Key { code, down }]);
    }
    /// Releases what is down (a display lost its focus or connection).
    pub fn release_all(&self) {
        let (keys, buttons) = {
            let state = self.state.lock();
            (state.keys.clone(), state.buttons.clone())
        };
        let keys = keys.into_iter().map(|code| InputEvent::Key { code, down: false });
        let buttons = buttons.into_iter().map(|button| InputEvent::Button { button, down: false });
        let events: Vec<_> = keys.chain(buttons).collect();
        self.send(&events);
    }
    /// Does the active pointer take absolute positions? Displays ask before they send motion.
    #[must_use]
    pub fn pointer_is_absolute(&self) -> bool {
        let state = self.state.lock();
        state.first(InputKinds::POINTER).is_some_and(|entry| entry.kinds.contains(InputKinds::ABSOLUTE))
    }
    /// Names and kinds of the consumers, the active ones first.
    #[must_use]
    pub fn list(&self) -> Vec<(u64, String, InputKinds)> {
        self.state.lock().consumers.iter().map(|entry| (entry.id, entry.name.clone(), entry.kinds)).collect()
    }
    /// Makes the consumer `id` of [`Self::list`] the active one of its kinds; false if there is none.
    pub fn activate(&self, id: u64) -> bool {
        let leds = {
            let mut state = self.state.lock();
            let Some(at) = state.consumers.iter().position(|entry| entry.id == id) else { return false };
            let entry = state.consumers.remove(at);
            state.consumers.insert(0, entry);
            state.first(InputKinds::KEYS).map(|entry| entry.leds)
        };
        self.tell_leds(leds);
        true
    }
    /// The lights of the active keyboard.
    #[must_use]
    pub fn leds(&self) -> Leds {
        self.state.lock().first(InputKinds::KEYS).map(|entry| entry.leds).unwrap_or_default()
    }
    /// `listener` is told when the lights may have changed.
    pub fn on_leds(&self, listener: impl Fn(Leds) + Send + Sync + 'static) {
        self.led_listeners.lock().push(Arc::new(listener));
    }
    fn tell_leds(&self, leds: Option<Leds>) {
        if let Some(leds) = leds {
            let listeners = self.led_listeners.lock().clone();
            listeners.iter().for_each(|listener| listener(leds));
        }
    }
}

/// A consumer's place in the hub.
#[must_use]
pub struct InputHandle {
    id: u64,
    hub: Weak<InputHub>,
}

impl InputHandle {
    /// The guest set the device up: it becomes the active one of its kinds.
    pub fn activate(&self) {
        if let Some(hub) = self.hub.upgrade() {
            hub.activate(self.id);
        }
    }
    /// The guest no longer uses the device: the others of its kinds come first.
    pub fn deactivate(&self) {
        let Some(hub) = self.hub.upgrade() else { return };
        let leds = {
            let mut state = hub.state.lock();
            let Some(at) = state.consumers.iter().position(|entry| entry.id == self.id) else { return };
            let entry = state.consumers.remove(at);
            state.consumers.push(entry);
            state.first(InputKinds::KEYS).map(|entry| entry.leds)
        };
        hub.tell_leds(leds);
    }
    /// The guest switched the keyboard's lights.
    pub fn set_leds(&self, leds: Leds) {
        let Some(hub) = self.hub.upgrade() else { return };
        let changed = {
            let mut state = hub.state.lock();
            let active = state.first(InputKinds::KEYS).is_some_and(|entry| entry.id == self.id);
            let Some(entry) = state.consumers.iter_mut().find(|entry| entry.id == self.id) else { return };
            let changed = std::mem::replace(&mut entry.leds, leds) != leds;
            changed && active
        };
        hub.tell_leds(changed.then_some(leds));
    }
}

impl Drop for InputHandle {
    fn drop(&mut self) {
        if let Some(hub) = self.hub.upgrade() {
            hub.state.lock().consumers.retain(|entry| entry.id != self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Sink(Mutex<Vec<InputEvent>>);
    impl InputConsumer for Sink {
        fn input(&self, events: &[InputEvent]) {
            self.0.lock().extend_from_slice(events);
        }
    }
    impl Sink {
        fn take(&self) -> Vec<InputEvent> {
            std::mem::take(&mut self.0.lock())
        }
    }
    fn weak(sink: &Arc<Sink>) -> Weak<dyn InputConsumer> {
        let weak: Weak<Sink> = Arc::downgrade(sink);
        weak
    }

    const KEY: InputEvent = InputEvent::Key { code: KeyCode::A, down: true };
    const MOVE: InputEvent = InputEvent::Relative { dx: 1, dy: -1 };
    const PLACE: InputEvent = InputEvent::Absolute { x: 5, y: 6 };
    const PRESS: InputEvent = InputEvent::Button { button: Button::Left, down: true };

    #[test]
    fn routing() {
        let hub = InputHub::new();
        let (keyboard, mouse, tablet) =
            (Arc::new(Sink::default()), Arc::new(Sink::default()), Arc::new(Sink::default()));
        let _k = hub.attach("keyboard", InputKinds::KEYS, weak(&keyboard));
        let _m = hub.attach("mouse", InputKinds::RELATIVE, weak(&mouse));
        hub.send(&[KEY, PLACE, PRESS]);
        assert_eq!((keyboard.take(), mouse.take()), (vec![KEY], vec![PRESS]), "nobody takes positions");
        let t = hub.attach("tablet", InputKinds::ABSOLUTE, weak(&tablet));
        assert!(!hub.pointer_is_absolute());
        hub.send(&[PLACE, PRESS]);
        hub.send(&[PRESS]);
        assert_eq!((tablet.take(), mouse.take()), (vec![PLACE, PRESS], vec![PRESS]));
        t.activate();
        assert!(hub.pointer_is_absolute());
        hub.send(&[PRESS]);
        hub.send(&[MOVE]);
        assert_eq!((tablet.take(), mouse.take()), (vec![PRESS], vec![MOVE]));
        drop(t);
        hub.release_all();
        hub.release_all();
        let up = InputEvent::Key { code: KeyCode::A, down: false };
        assert_eq!((keyboard.take(), mouse.take().len()), (vec![up], 1));
        assert_eq!(hub.list().len(), 2);
    }

    #[test]
    fn lights() {
        let hub = InputHub::new();
        let (a, b) = (Arc::new(Sink::default()), Arc::new(Sink::default()));
        let first = hub.attach("a", InputKinds::KEYS, weak(&a));
        let second = hub.attach("b", InputKinds::KEYS, weak(&b));
        let seen = Arc::new(Mutex::new(vec![]));
        let log = seen.clone();
        hub.on_leds(move |leds| log.lock().push(leds));
        first.set_leds(Leds::CAPS_LOCK);
        second.set_leds(Leds::NUM_LOCK);
        assert_eq!(hub.leds(), Leds::CAPS_LOCK);
        second.activate();
        second.deactivate();
        assert_eq!(*seen.lock(), [Leds::CAPS_LOCK, Leds::NUM_LOCK, Leds::CAPS_LOCK]);
    }
}
