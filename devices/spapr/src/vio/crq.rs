//! Command/response queues (LoPAPR 17.2.2.1): a ring of 16-byte messages from the device to the guest, in a page or more of what the
//! device addresses.

use super::VioSlot;
use crate::papr::{Answer, Status};
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_memory::Gpa;

const ENTRY: u64 = 16;
const PAGE: u64 = 4096;
/// The longest ring.
const MAX: u64 = 1 << 20;

/// Place and fill of the ring; `len` 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct CrqState {
    #[n(0)]
    address: u64,
    #[n(1)]
    len: u64,
    #[n(2)]
    next: u64,
}

/// The device's end of a queue.
pub struct Crq {
    slot: VioSlot,
    state: Mutex<CrqState>,
}

impl Crq {
    #[must_use]
    pub fn new(slot: &VioSlot) -> Self {
        Self { slot: slot.clone(), state: Mutex::default() }
    }
    /// H_REG_CRQ.
    ///
    /// # Errors
    /// RESOURCE: there is one; PARAMETER: it is not whole pages.
    pub fn register(&self, address: u64, len: u64) -> Answer {
        let mut state = self.state.lock();
        if state.len != 0 {
            return Err(Status::RESOURCE);
        }
        if len == 0
            || len > MAX
            || !len.is_multiple_of(PAGE)
            || !address.is_multiple_of(PAGE)
            || address.checked_add(len).is_none()
        {
            return Err(Status::PARAMETER);
        }
        *state = CrqState { address, len, next: 0 };
        Ok(())
    }
    /// H_FREE_CRQ.
    pub fn free(&self) {
        *self.state.lock() = CrqState::default();
    }
    #[must_use]
    pub fn registered(&self) -> bool {
        self.state.lock().len != 0
    }
    /// Sends a message to the guest; false: there is no room, or no queue, or it is in no memory.
    pub fn send(&self, message: &[u8; 16]) -> bool {
        {
            let mut s = self.state.lock();
            if s.len == 0 {
                return false;
            }
            let dma = self.slot.dma();
            let at = Gpa(s.address.wrapping_add(s.next));
            let mut valid = [0];
            // The first byte says that the entry is in use; it is written last.
            if dma.read_ram(at.0, &mut valid).is_err() || valid[0] != 0 {
                return false;
            }
            let rest = dma.write_ram(at.0.wrapping_add(1), &message[1..]);
            std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
            if rest.is_err() || dma.write_ram(at.0, &message[..1]).is_err() {
                return false;
            }
            s.next = (s.next + ENTRY) % s.len;
        }
        self.slot.signal();
        true
    }
    #[must_use]
    pub fn save(&self) -> CrqState {
        *self.state.lock()
    }
    pub fn load(&self, state: CrqState) {
        let sound = state.len <= MAX && state.len.is_multiple_of(PAGE) && (state.len == 0 || state.next < state.len);
        *self.state.lock() = if sound { state } else { CrqState::default() };
    }
}
