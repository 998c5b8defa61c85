//! A terminal of the hvterm protocol (LoPAPR 17.6): up to 16 characters for a hypercall.

use super::{SlotState, VioDevice, VioKind, VioSlot};
use crate::papr::{Answer, Args, Status};
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_device::state::{decode, encode};
use rhea_device::{CharBackend, CharFrontend, Device, LoadError, Saved};
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

/// Characters of input that are held.
const HELD: usize = 64;
const MOST: u64 = 16;

pub const KIND: VioKind =
    VioKind { name: "vty", device_type: "serial", compatible: "hvterm1", signals: 0, window: 0, interrupt: true };

#[derive(Encode, Decode)]
struct State {
    #[n(0)]
    input: Vec<u8>,
    #[n(1)]
    slot: SlotState,
}

/// `spapr-vty`.
pub struct Vty {
    name: String,
    slot: VioSlot,
    backend: Arc<dyn CharBackend>,
    input: Mutex<VecDeque<u8>>,
}

impl Vty {
    #[must_use]
    pub fn new(slot: VioSlot, backend: Arc<dyn CharBackend>) -> Arc<Self> {
        let vty = Arc::new(Self { name: slot.name(), slot, backend, input: Mutex::default() });
        vty.backend.set_frontend(Arc::new(Receiver(Arc::downgrade(&vty))));
        vty
    }
    /// H_GET_TERM_CHAR: length, and the characters in two registers.
    pub fn get(&self, out: &mut Args) {
        let mut bytes = [0; MOST as usize];
        let n = {
            let mut input = self.input.lock();
            let n = input.len().min(bytes.len());
            for (place, byte) in bytes.iter_mut().zip(input.drain(..n)) {
                *place = byte;
            }
            n
        };
        let word = |at: usize| bytes[at..at + 8].iter().fold(0u64, |v, b| v << 8 | u64::from(*b));
        (out[0], out[1], out[2]) = (n as u64, word(0), word(8));
        if n > 0 {
            self.backend.accept_input();
        }
    }
    /// H_PUT_TERM_CHAR.
    ///
    /// # Errors
    /// PARAMETER: more than 16 characters.
    pub fn put(&self, len: u64, first: u64, second: u64) -> Answer {
        if len > MOST {
            return Err(Status::PARAMETER);
        }
        let mut bytes = [0; MOST as usize];
        bytes[..8].copy_from_slice(&first.to_be_bytes());
        bytes[8..].copy_from_slice(&second.to_be_bytes());
        self.backend.write(&bytes[..len as usize]);
        Ok(())
    }
}

/// What the back end holds of the terminal.
struct Receiver(Weak<Vty>);

impl CharFrontend for Receiver {
    fn can_receive(&self) -> usize {
        self.0.upgrade().map_or(0, |v| HELD - v.input.lock().len().min(HELD))
    }
    fn receive(&self, data: &[u8]) {
        let Some(vty) = self.0.upgrade() else { return };
        vty.input.lock().extend(data);
        vty.slot.interrupt_now();
    }
}

impl VioDevice for Vty {
    fn slot(&self) -> &VioSlot {
        &self.slot
    }
}

impl Device for Vty {
    fn name(&self) -> &str {
        &self.name
    }
    fn reset(&self) {
        self.input.lock().clear();
        self.slot.reset();
        self.backend.accept_input();
    }
    fn save(&self) -> Saved {
        encode(1, &State { input: self.input.lock().iter().copied().collect(), slot: self.slot.save() })
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        let State { mut input, slot } = decode(saved, 1)?;
        input.truncate(HELD);
        *self.input.lock() = input.into();
        self.slot.load(&slot)
    }
}
