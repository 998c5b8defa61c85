//! Entropy device (virtio 1.2, 5.4).

use crate::core::VirtioDevice;
use crate::queue::QueueError;
use crate::queues::{Gate, Queues};
use parking_lot::Mutex;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// The device type.
pub const ID: u16 = 4;
/// Bytes given for one buffer at most; a driver takes what it gets.
const MOST: u64 = 64 << 10;

/// An entropy device over a file of random bytes.
pub struct Rng {
    source: Mutex<File>,
    queues: OnceLock<Arc<Queues>>,
    gate: Gate,
}

impl Rng {
    /// Entropy from `path`, or from /dev/urandom, which never makes a vCPU wait.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn new(path: Option<&Path>) -> io::Result<Arc<Self>> {
        let source = Mutex::new(File::open(path.unwrap_or(Path::new("/dev/urandom")))?);
        Ok(Arc::new(Self { source, queues: OnceLock::new(), gate: Gate::default() }))
    }
}

impl VirtioDevice for Rng {
    fn id(&self) -> u16 {
        ID
    }
    fn name(&self) -> &'static str {
        "virtio-rng"
    }
    fn pci_class(&self) -> u32 {
        0x00_ff00
    }
    fn features(&self) -> u64 {
        0
    }
    fn queue_sizes(&self) -> Vec<u16> {
        vec![8]
    }
    fn attach(&self, queues: Arc<Queues>) {
        let _ = self.queues.set(queues);
    }
    fn notify(&self, queue: u16) {
        let Some(queues) = self.queues.get() else { return };
        self.gate.run(|| {
            queues.drain(queue, |chain| {
                let mut data = vec![0; chain.writable_len().min(MOST) as usize];
                // A source at its end gives less.
                let n = self.source.lock().read(&mut data).unwrap_or(0);
                match chain.write(queues.dma(), 0, &data[..n]) {
                    Ok(n) => queues.complete(queue, chain, n as u32),
                    Err(_) => {
                        queues.fail(QueueError::Memory);
                        return false;
                    }
                }
                true
            });
        });
    }
    fn reset(&self) {
        self.gate.wait();
    }
    fn quiesce(&self) {
        self.gate.wait();
    }
}
