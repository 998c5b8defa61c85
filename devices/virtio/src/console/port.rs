//! One port of a console bus: data between a pair of queues and a character back end.

use super::Console;
use crate::queue::QueueError;
use crate::queues::{Gate, Queues};
use parking_lot::Mutex;
use rhea_device::{CharBackend, CharEvent, CharFrontend};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};

/// Input held while the guest has no buffers.
const HELD: usize = 4096;

/// A port to add to a console bus.
#[derive(Clone)]
pub struct PortOptions {
    /// `None`: the first free number, from 0 for a console, from 1 for others.
    pub number: Option<u32>,
    /// The guest makes it a console (`virtconsole`); otherwise a plain channel (`virtserialport`).
    pub console: bool,
    /// Told to the guest; empty: none.
    pub name: String,
    pub backend: Arc<dyn CharBackend>,
    /// Told when somebody in the guest opens the port (true), and when nobody has it open any more.
    pub watcher: Option<PortWatcher>,
}

/// Who is told whether the guest has a port open.
pub type PortWatcher = Arc<dyn Fn(bool) + Send + Sync>;

pub(super) struct Port {
    pub number: u32,
    pub console: bool,
    pub name: String,
    pub backend: Arc<dyn CharBackend>,
    input: Mutex<VecDeque<u8>>,
    rx: Gate,
    tx: Gate,
    /// Somebody is at the back end's other side.
    pub host_open: AtomicBool,
    /// Somebody in the guest has the port open.
    guest_open: AtomicBool,
    watcher: Option<PortWatcher>,
}

/// The receive queue of a port; the transmit queue is the next.
pub(super) fn queue_of(number: u32) -> u16 {
    // Queues 2 and 3 carry control messages.
    if number == 0 { 0 } else { (2 * number + 2) as u16 }
}

/// The back end's way to a port.
pub(super) struct Front {
    pub console: Weak<Console>,
    pub port: Weak<Port>,
}

impl CharFrontend for Front {
    fn can_receive(&self) -> usize {
        let (Some(console), Some(port)) = (self.console.upgrade(), self.port.upgrade()) else { return 0 };
        // What comes before anybody listens waits in the back end.
        if console.multiport() && !port.guest_open() {
            return 0;
        }
        HELD.saturating_sub(port.input.lock().len())
    }
    fn receive(&self, data: &[u8]) {
        let (Some(console), Some(port)) = (self.console.upgrade(), self.port.upgrade()) else { return };
        {
            let mut input = port.input.lock();
            let room = HELD.saturating_sub(input.len());
            input.extend(&data[..data.len().min(room)]);
        }
        if let Some(queues) = console.queues() {
            port.deliver(queues);
        }
    }
    fn event(&self, event: CharEvent) {
        let (Some(console), Some(port)) = (self.console.upgrade(), self.port.upgrade()) else { return };
        let open = match event {
            CharEvent::Opened => true,
            CharEvent::Closed => false,
            CharEvent::Break => return,
        };
        if port.host_open.swap(open, Ordering::AcqRel) != open {
            console.tell_open(&port);
        }
    }
}

impl Port {
    pub(super) fn new(number: u32, options: PortOptions) -> Self {
        let PortOptions { console, name, backend, watcher, .. } = options;
        let host_open = AtomicBool::new(backend.connected());
        Self {
            number,
            console,
            name,
            backend,
            input: Mutex::default(),
            rx: Gate::default(),
            tx: Gate::default(),
            host_open,
            guest_open: AtomicBool::new(false),
            watcher,
        }
    }
    pub(super) fn guest_open(&self) -> bool {
        self.guest_open.load(Ordering::Acquire)
    }
    pub(super) fn set_guest_open(&self, open: bool) {
        if self.guest_open.swap(open, Ordering::AcqRel) != open
            && let Some(watcher) = &self.watcher
        {
            watcher(open);
        }
    }
    /// Moves held input into the guest's buffers.
    pub(super) fn deliver(&self, queues: &Arc<Queues>) {
        let rx = queue_of(self.number);
        self.rx.run(|| {
            while !self.input.lock().is_empty() {
                let Some(chain) = queues.pop(rx) else {
                    if queues.with(rx, crate::Queue::enable_notifications) == Some(true) && !queues.paused() {
                        continue;
                    }
                    return;
                };
                let data: Vec<u8> = {
                    let mut input = self.input.lock();
                    let n = input.len().min(usize::try_from(chain.writable_len()).unwrap_or(usize::MAX));
                    input.drain(..n).collect()
                };
                match chain.write(queues.dma(), 0, &data) {
                    Ok(n) => queues.complete(rx, chain, n as u32),
                    Err(_) => {
                        queues.fail(QueueError::Memory);
                        return;
                    }
                }
            }
        });
    }
    /// Buffers for input: takes more from the back end.
    pub(super) fn more_input(&self, queues: &Arc<Queues>) {
        self.deliver(queues);
        self.backend.accept_input();
    }
    /// Sends what the guest wrote.
    pub(super) fn output(&self, queues: &Arc<Queues>) {
        let tx = queue_of(self.number) + 1;
        self.tx.run(|| {
            let mut data = Vec::new();
            queues.drain(tx, |chain| {
                let mut at = 0;
                let total = chain.readable_len();
                while at < total {
                    data.resize((total - at).min(4096) as usize, 0);
                    match chain.read(queues.dma(), at, &mut data) {
                        Ok(n) if n > 0 => at += n as u64,
                        _ => {
                            queues.fail(QueueError::Memory);
                            return false;
                        }
                    }
                    self.backend.write(&data);
                }
                queues.push(tx, chain, 0);
                true
            });
            queues.signal(tx);
        });
    }
    /// Returns when nobody works on the queues.
    pub(super) fn wait(&self) {
        self.rx.wait();
        self.tx.wait();
    }
    pub(super) fn reset(&self) {
        self.wait();
        self.set_guest_open(false);
        self.input.lock().clear();
    }
    /// Input that the guest has not taken.
    pub(super) fn held(&self) -> Vec<u8> {
        self.input.lock().iter().copied().collect()
    }
    pub(super) fn restore(&self, guest_open: bool, held: &[u8]) {
        self.set_guest_open(guest_open);
        *self.input.lock() = held.iter().copied().take(HELD).collect();
    }
}
