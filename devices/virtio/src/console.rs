//! Console device (virtio 1.2, 5.3), one port.

use crate::core::{VirtioDevice, config_bytes};
use crate::queue::QueueError;
use crate::queues::{Gate, Queues};
use parking_lot::Mutex;
use rhea_device::{CharBackend, CharFrontend, LoadError};
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, Weak};

/// The device type.
pub const ID: u16 = 3;
const RX: u16 = 0;
const TX: u16 = 1;
/// Input held while the guest has no buffers.
const HELD: usize = 4096;

/// A console; port 0 is connected to a character back end.
pub struct Console {
    backend: OnceLock<Arc<dyn CharBackend>>,
    queues: OnceLock<Arc<Queues>>,
    input: Mutex<VecDeque<u8>>,
    rx: Gate,
    tx: Gate,
}

struct Front(Weak<Console>);

impl CharFrontend for Front {
    fn can_receive(&self) -> usize {
        self.0.upgrade().map_or(0, |c| HELD.saturating_sub(c.input.lock().len()))
    }
    fn receive(&self, data: &[u8]) {
        if let Some(console) = self.0.upgrade() {
            {
                let mut input = console.input.lock();
                let room = HELD.saturating_sub(input.len());
                input.extend(&data[..data.len().min(room)]);
            }
            console.deliver();
        }
    }
}

impl Console {
    /// A console without a port; output vanishes until [`Self::connect`].
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            backend: OnceLock::new(),
            queues: OnceLock::new(),
            input: Mutex::default(),
            rx: Gate::default(),
            tx: Gate::default(),
        })
    }
    /// Connects port 0 (`-device virtconsole,chardev=`); false if it is connected already.
    pub fn connect(self: &Arc<Self>, backend: Arc<dyn CharBackend>) -> bool {
        let first = self.backend.set(backend.clone()).is_ok();
        if first {
            backend.set_frontend(Arc::new(Front(Arc::downgrade(self))));
        }
        first
    }
    /// Moves held input into the guest's buffers.
    fn deliver(&self) {
        let Some(queues) = self.queues.get() else { return };
        self.rx.run(|| {
            while !self.input.lock().is_empty() {
                let Some(chain) = queues.pop(RX) else {
                    if queues.with(RX, crate::Queue::enable_notifications) == Some(true) && !queues.paused() {
                        continue;
                    }
                    return;
                };
                let data: Vec<u8> = {
                    let mut input = self.input.lock();
                    let n = input.len().min(chain.writable_len() as usize);
                    input.drain(..n).collect()
                };
                match chain.write(queues.dma(), 0, &data) {
                    Ok(n) => queues.complete(RX, chain, n as u32),
                    Err(_) => {
                        queues.fail(QueueError::Memory);
                        return;
                    }
                }
            }
        });
    }
    fn output(&self, queues: &Arc<Queues>) {
        let mut data = Vec::new();
        queues.drain(TX, |chain| {
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
                if let Some(backend) = self.backend.get() {
                    backend.write(&data);
                }
            }
            queues.push(TX, chain, 0);
            true
        });
        queues.signal(TX);
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
        0
    }
    fn queue_sizes(&self) -> Vec<u16> {
        vec![128, 128]
    }
    fn attach(&self, queues: Arc<Queues>) {
        let _ = self.queues.set(queues);
    }
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // Columns and rows are not offered; one port.
        config_bytes(&[0, 0, 0, 0, 1, 0, 0, 0], offset, data);
    }
    fn notify(&self, queue: u16) {
        let Some(queues) = self.queues.get() else { return };
        match queue {
            RX => {
                self.deliver();
                if let Some(backend) = self.backend.get() {
                    backend.accept_input();
                }
            }
            TX => self.tx.run(|| self.output(queues)),
            _ => (),
        }
    }
    fn quiesce(&self) {
        self.rx.wait();
        self.tx.wait();
    }
    fn reset(&self) {
        self.rx.wait();
        self.tx.wait();
        self.input.lock().clear();
    }
    fn save(&self) -> Vec<u8> {
        self.input.lock().iter().copied().collect()
    }
    fn load(&self, state: &[u8]) -> Result<(), LoadError> {
        *self.input.lock() = state.iter().copied().take(HELD).collect();
        Ok(())
    }
}
