//! One terminal for several front ends (serial port and monitor), switched with Ctrl-A keys.

use super::feed::Feed;
use super::{CharBackend, CharEvent, CharFrontend};
use parking_lot::Mutex;
use std::sync::{Arc, Weak};

/// What the user asked for with the escape character that is not handled by the mux itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MuxKey {
    /// Ctrl-A X: end the emulator.
    Quit,
    /// Ctrl-A S: write back what `-snapshot` holds.
    Save,
}

/// Ctrl-A.
const ESCAPE: u8 = 1;

const HELP: &str = "\n\r\
C-a h    print this help\n\r\
C-a x    exit emulator\n\r\
C-a s    save disk data back to file (if -snapshot)\n\r\
C-a b    send break (magic sysrq)\n\r\
C-a c    switch between console and monitor\n\r\
C-a C-a  sends C-a\n\r";

struct Keys {
    escaped: bool,
    focus: usize,
}

/// The switch. Made over a back end; each [`Self::port`] is a back end of its own.
pub struct Mux {
    terminal: Arc<dyn CharBackend>,
    ports: Mutex<Vec<Arc<Port>>>,
    keys: Mutex<Keys>,
    on_key: Box<dyn Fn(MuxKey) + Send + Sync>,
}

#[derive(Default)]
struct Port {
    feed: Feed,
}

/// One side of a [`Mux`].
pub struct MuxPort {
    mux: Arc<Mux>,
    port: Arc<Port>,
    index: usize,
}

/// What the terminal feeds; holds the mux weakly, since the mux holds the terminal.
struct Input(Weak<Mux>);

impl CharFrontend for Input {
    fn can_receive(&self) -> usize {
        // Keys must reach us whatever the focused port does.
        1024
    }
    fn receive(&self, data: &[u8]) {
        if let Some(mux) = self.0.upgrade() {
            mux.input(data);
        }
    }
    fn event(&self, event: CharEvent) {
        if let Some(port) = self.0.upgrade().and_then(|m| m.focused()) {
            port.feed.event(event);
        }
    }
}

impl Mux {
    /// A switch over `terminal`; `on_key` gets the keys that concern the whole emulator.
    #[must_use]
    pub fn new(terminal: Arc<dyn CharBackend>, on_key: impl Fn(MuxKey) + Send + Sync + 'static) -> Arc<Self> {
        let mux = Arc::new(Self {
            terminal,
            ports: Mutex::default(),
            keys: Mutex::new(Keys { escaped: false, focus: 0 }),
            on_key: Box::new(on_key),
        });
        mux.terminal.set_frontend(Arc::new(Input(Arc::downgrade(&mux))));
        mux
    }
    /// A further port; the first one has the focus.
    #[must_use]
    pub fn port(self: &Arc<Self>) -> Arc<MuxPort> {
        let port = Arc::new(Port::default());
        let mut ports = self.ports.lock();
        ports.push(port.clone());
        Arc::new(MuxPort { mux: self.clone(), port, index: ports.len() - 1 })
    }
    fn focused(&self) -> Option<Arc<Port>> {
        let focus = self.keys.lock().focus;
        self.ports.lock().get(focus).cloned()
    }
    fn input(&self, data: &[u8]) {
        let mut plain = Vec::with_capacity(data.len());
        for &byte in data {
            let escaped = std::mem::replace(&mut self.keys.lock().escaped, false);
            if !escaped {
                if byte == ESCAPE {
                    self.keys.lock().escaped = true;
                } else {
                    plain.push(byte);
                }
                continue;
            }
            self.flush(&mut plain);
            match byte {
                ESCAPE => plain.push(ESCAPE),
                b'x' | b'X' => (self.on_key)(MuxKey::Quit),
                b's' | b'S' => (self.on_key)(MuxKey::Save),
                b'h' | b'H' | b'?' => self.terminal.write(HELP.as_bytes()),
                b'b' | b'B' => {
                    if let Some(port) = self.focused() {
                        port.feed.event(CharEvent::Break);
                    }
                }
                b'c' | b'C' => {
                    let old = self.focused();
                    let count = self.ports.lock().len().max(1);
                    {
                        let mut keys = self.keys.lock();
                        keys.focus = (keys.focus + 1) % count;
                    }
                    if let Some(port) = old {
                        port.feed.event(CharEvent::Closed);
                    }
                    if let Some(port) = self.focused() {
                        port.feed.event(CharEvent::Opened);
                    }
                }
                _ => {}
            }
        }
        self.flush(&mut plain);
    }
    fn flush(&self, plain: &mut Vec<u8>) {
        if let (Some(port), false) = (self.focused(), plain.is_empty()) {
            port.feed.offer(plain);
        }
        plain.clear();
    }
}

impl CharBackend for MuxPort {
    fn write(&self, data: &[u8]) {
        self.mux.terminal.write(data);
    }
    fn set_frontend(&self, frontend: Arc<dyn CharFrontend>) {
        self.port.feed.set_frontend(frontend);
    }
    fn accept_input(&self) {
        self.port.feed.drain();
    }
    fn description(&self) -> String {
        format!("mux {} of {}", self.index, self.mux.terminal.description())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chardev::MemoryChar;

    struct Front(Mutex<Vec<u8>>, Mutex<Vec<CharEvent>>, Mutex<usize>);
    impl Front {
        fn new(room: usize) -> Arc<Self> {
            Arc::new(Self(Mutex::default(), Mutex::default(), Mutex::new(room)))
        }
    }
    impl CharFrontend for Front {
        fn can_receive(&self) -> usize {
            *self.2.lock()
        }
        fn receive(&self, data: &[u8]) {
            *self.2.lock() -= data.len();
            self.0.lock().extend_from_slice(data);
        }
        fn event(&self, event: CharEvent) {
            self.1.lock().push(event);
        }
    }

    #[test]
    fn keys_and_flow_control() {
        let terminal = MemoryChar::new();
        let keys = Arc::new(Mutex::new(vec![]));
        let seen = keys.clone();
        let mux = Mux::new(terminal.clone(), move |k| seen.lock().push(k));
        let (serial, monitor) = (mux.port(), mux.port());
        let (a, b) = (Front::new(3), Front::new(100));
        serial.set_frontend(a.clone());
        monitor.set_frontend(b.clone());
        terminal.input(b"ab\x01\x01cd");
        assert_eq!(*a.0.lock(), b"ab\x01");
        terminal.input(b"\x01");
        terminal.input(b"cinfo\x01b\x01c\x01x");
        *a.2.lock() = 9;
        serial.accept_input();
        assert_eq!(*a.0.lock(), b"ab\x01cd");
        assert_eq!(*b.0.lock(), b"info");
        assert_eq!(*b.1.lock(), [CharEvent::Opened, CharEvent::Break, CharEvent::Closed]);
        assert_eq!(*keys.lock(), [MuxKey::Quit]);
        serial.write(b"x");
        monitor.write(b"y");
        assert_eq!(terminal.take_output(), b"xy");
        // Who comes when the keys are its own already is told.
        let late = mux.port();
        terminal.input(b"\x01c\x01chi");
        let c = Front::new(100);
        late.set_frontend(c.clone());
        assert_eq!((c.0.lock().as_slice(), c.1.lock().as_slice()), (&b"hi"[..], &[CharEvent::Opened][..]));
    }
}
