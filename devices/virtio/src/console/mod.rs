//! Console device (virtio 1.2, 5.3): a bus of ports, each a console or a named channel.

mod port;

pub use port::{PortOptions, PortWatcher};

use crate::core::{VirtioDevice, config_bytes};
use crate::features;
use crate::queue::QueueError;
use crate::queues::{Gate, Queues};
use minicbor::{Decode, Encode};
use parking_lot::{Mutex, RwLock};
use port::{Front, Port, queue_of};
use rhea_device::{CharBackend, LoadError};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// The device type.
pub const ID: u16 = 3;
/// Most ports of a device.
pub const MAX_PORTS: u32 = 31;
const CONTROL_RX: u16 = 2;
const CONTROL_TX: u16 = 3;
/// Control messages held while the guest has no buffers; a guest that asks for more than it takes gets no more.
const HELD_MESSAGES: usize = 1024;

/// Events of control messages (5.3.6.2).
mod event {
    pub const DEVICE_READY: u16 = 0;
    pub const PORT_ADD: u16 = 1;
    pub const PORT_READY: u16 = 3;
    pub const CONSOLE_PORT: u16 = 4;
    pub const PORT_OPEN: u16 = 6;
    pub const PORT_NAME: u16 = 7;
}

/// Saved state of a port.
#[derive(Encode, Decode)]
struct PortState {
    #[n(0)]
    number: u32,
    #[n(1)]
    guest_open: bool,
    #[cbor(n(2), with = "minicbor::bytes")]
    held: Vec<u8>,
}

#[derive(Encode, Decode)]
struct State {
    #[n(0)]
    ports: Vec<PortState>,
    /// Control messages not yet taken.
    #[n(1)]
    messages: Vec<minicbor::bytes::ByteVec>,
}

/// A console bus.
pub struct Console {
    max_ports: u32,
    ports: RwLock<Vec<Arc<Port>>>,
    queues: OnceLock<Arc<Queues>>,
    features: AtomicU64,
    messages: Mutex<VecDeque<Vec<u8>>>,
    control_rx: Gate,
    control_tx: Gate,
}

impl Console {
    /// A bus for `max_ports` ports (1 to [`MAX_PORTS`]), with none yet.
    #[must_use]
    pub fn new(max_ports: u32) -> Arc<Self> {
        Arc::new(Self {
            max_ports: max_ports.clamp(1, MAX_PORTS),
            ports: RwLock::default(),
            queues: OnceLock::new(),
            features: AtomicU64::new(0),
            messages: Mutex::default(),
            control_rx: Gate::default(),
            control_tx: Gate::default(),
        })
    }
    /// Adds a port, before the guest runs.
    ///
    /// # Errors
    /// What is wrong with its number.
    pub fn add_port(self: &Arc<Self>, options: PortOptions) -> Result<(), String> {
        let first = u32::from(!options.console);
        let port = {
            let mut ports = self.ports.write();
            let taken = |n: u32| ports.iter().any(|p| p.number == n);
            let number = match options.number {
                Some(n) if n >= self.max_ports => {
                    return Err(format!("the bus has {} ports: give nr= below that", self.max_ports));
                }
                Some(0) if !options.console => return Err("port 0 is for a virtconsole: give another nr=".to_owned()),
                Some(n) if taken(n) => return Err(format!("port {n} of the bus is taken: give another nr=")),
                Some(n) => n,
                None => (first..self.max_ports).find(|n| !taken(*n)).ok_or_else(|| {
                    format!("all {} ports of the bus are taken: add another virtio-serial device", self.max_ports)
                })?,
            };
            let port = Arc::new(Port::new(number, options));
            ports.push(port.clone());
            port
        };
        let backend: Arc<dyn CharBackend> = port.backend.clone();
        backend.set_frontend(Arc::new(Front { console: Arc::downgrade(self), port: Arc::downgrade(&port) }));
        Ok(())
    }
    fn port(&self, number: u32) -> Option<Arc<Port>> {
        self.ports.read().iter().find(|p| p.number == number).cloned()
    }
    /// The port of a queue, and whether it is the port's transmit queue.
    fn port_of(&self, queue: u16) -> Option<(Arc<Port>, bool)> {
        let number = if queue < 2 { 0 } else { (u32::from(queue) / 2).checked_sub(1)? };
        Some((self.port(number)?, queue % 2 == 1))
    }
    fn queues(&self) -> Option<&Arc<Queues>> {
        self.queues.get()
    }
    fn multiport(&self) -> bool {
        self.features.load(Ordering::Acquire) & features::CONSOLE_MULTIPORT != 0
    }

    /// Sends a control message.
    fn tell(&self, number: u32, event: u16, value: u16, more: &[u8]) {
        let message = [&number.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes(), more].concat();
        {
            let mut messages = self.messages.lock();
            if messages.len() < HELD_MESSAGES {
                messages.push_back(message);
            }
        }
        self.deliver_control();
    }
    fn tell_open(&self, port: &Port) {
        if self.multiport() {
            self.tell(port.number, event::PORT_OPEN, u16::from(port.host_open.load(Ordering::Acquire)), &[]);
        }
    }
    /// Moves control messages into the guest's buffers.
    fn deliver_control(&self) {
        let Some(queues) = self.queues.get() else { return };
        self.control_rx.run(|| {
            while !self.messages.lock().is_empty() {
                let Some(chain) = queues.pop(CONTROL_RX) else {
                    if queues.with(CONTROL_RX, crate::Queue::enable_notifications) == Some(true) && !queues.paused() {
                        continue;
                    }
                    return;
                };
                let message = self.messages.lock().pop_front().unwrap_or_default();
                match chain.write(queues.dma(), 0, &message) {
                    Ok(n) => queues.complete(CONTROL_RX, chain, n as u32),
                    Err(_) => {
                        queues.fail(QueueError::Memory);
                        return;
                    }
                }
            }
        });
    }
    fn control(&self, queues: &Arc<Queues>) {
        self.control_tx.run(|| {
            queues.drain(CONTROL_TX, |chain| {
                let mut m = [0; 8];
                match chain.read(queues.dma(), 0, &mut m) {
                    Ok(8) => {
                        let [a, b, c, d, e, f, g, h] = m;
                        self.command(
                            u32::from_le_bytes([a, b, c, d]),
                            u16::from_le_bytes([e, f]),
                            u16::from_le_bytes([g, h]),
                        );
                    }
                    Ok(_) => {
                        queues.log().guest_error("virtio-serial", format_args!("control message of fewer than 8 bytes"))
                    }
                    Err(_) => {
                        queues.fail(QueueError::Memory);
                        return false;
                    }
                }
                queues.complete(CONTROL_TX, chain, 0);
                true
            });
        });
    }
    fn command(&self, number: u32, event: u16, value: u16) {
        if event == event::DEVICE_READY {
            if value != 0 {
                let numbers: Vec<u32> = self.ports.read().iter().map(|p| p.number).collect();
                for number in numbers {
                    self.tell(number, event::PORT_ADD, 1, &[]);
                }
            }
            return;
        }
        let Some(port) = self.port(number) else { return };
        match event {
            event::PORT_READY if value != 0 => {
                if port.console {
                    self.tell(number, event::CONSOLE_PORT, 1, &[]);
                }
                if !port.name.is_empty() {
                    self.tell(number, event::PORT_NAME, 1, &[port.name.as_bytes(), &[0]].concat());
                }
                if port.host_open.load(Ordering::Acquire) {
                    self.tell_open(&port);
                }
            }
            event::PORT_OPEN => {
                port.set_guest_open(value != 0);
                if value != 0 {
                    port.backend.accept_input();
                }
            }
            _ => (),
        }
    }
}

impl VirtioDevice for Console {
    fn id(&self) -> u16 {
        ID
    }
    fn name(&self) -> &'static str {
        "virtio-serial"
    }
    fn pci_class(&self) -> u32 {
        0x07_8000
    }
    fn features(&self) -> u64 {
        features::CONSOLE_EMERG_WRITE | if self.max_ports > 1 { features::CONSOLE_MULTIPORT } else { 0 }
    }
    fn queue_sizes(&self) -> Vec<u16> {
        let queues = if self.max_ports > 1 { usize::from(queue_of(self.max_ports - 1)) + 2 } else { 2 };
        vec![128; queues]
    }
    /// Ports share a vector: one for each queue would take many.
    fn vectors(&self) -> u16 {
        2
    }
    fn attach(&self, queues: Arc<Queues>) {
        let _ = self.queues.set(queues);
    }
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // Columns and rows are not offered.
        let mut c = [0; 12];
        c[4..8].copy_from_slice(&self.max_ports.to_le_bytes());
        config_bytes(&c, offset, data);
    }
    fn write_config(&self, offset: u64, data: &[u8]) {
        // Emergency write: a character for port 0, whatever the state of the device.
        if let (8, Some(byte), Some(port)) = (offset, data.first(), self.port(0)) {
            port.backend.write(&[*byte]);
        }
    }
    fn start(&self, features: u64) {
        self.features.store(features, Ordering::Release);
        if features & features::CONSOLE_MULTIPORT == 0
            && let Some(port) = self.port(0)
        {
            port.backend.accept_input();
        }
    }
    fn notify(&self, queue: u16) {
        let Some(queues) = self.queues.get() else { return };
        match queue {
            CONTROL_RX => self.deliver_control(),
            CONTROL_TX => self.control(queues),
            _ => match self.port_of(queue) {
                Some((port, true)) => port.output(queues),
                Some((port, false)) => port.more_input(queues),
                None => (),
            },
        }
    }
    fn quiesce(&self) {
        self.control_rx.wait();
        self.control_tx.wait();
        self.ports.read().iter().for_each(|p| p.wait());
    }
    fn reset(&self) {
        self.features.store(0, Ordering::Release);
        self.control_rx.wait();
        self.control_tx.wait();
        self.messages.lock().clear();
        self.ports.read().iter().for_each(|p| p.reset());
    }
    fn save(&self) -> Vec<u8> {
        let port = |p: &Arc<Port>| PortState { number: p.number, guest_open: p.guest_open(), held: p.held() };
        let state = State {
            ports: self.ports.read().iter().map(port).collect(),
            messages: self.messages.lock().iter().cloned().map(Into::into).collect(),
        };
        // Encoding into a vector does not fail.
        minicbor::to_vec(&state).unwrap_or_default()
    }
    fn load(&self, state: &[u8]) -> Result<(), LoadError> {
        let State { ports, messages } =
            minicbor::decode(state).map_err(|e| LoadError::Damaged(format!("virtio-serial: {e}")))?;
        if ports.len() != self.ports.read().len() {
            return Err(LoadError::Mismatch("number of console ports".to_owned()));
        }
        for PortState { number, guest_open, held } in ports {
            let port = self.port(number).ok_or_else(|| LoadError::Mismatch(format!("console port {number}")))?;
            port.restore(guest_open, &held);
        }
        *self.messages.lock() = messages.into_iter().take(HELD_MESSAGES).map(Vec::from).collect();
        Ok(())
    }
}
