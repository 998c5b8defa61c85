//! MSI (PCI Express base specification 7.7.1), 64-bit with per-vector masking.

use crate::PciSlot;
use parking_lot::Mutex;
use std::sync::Arc;

pub(crate) const LENGTH: usize = 0x18 - 2;
const ENABLE: u16 = 1;

#[derive(Default)]
struct State {
    control: u16,
    address: u64,
    data: u32,
    mask: u32,
    pending: u32,
}

/// The MSI part of a function. Its registers live in configuration space; this is their meaning.
pub struct Msi {
    slot: PciSlot,
    log2_vectors: u8,
    state: Mutex<State>,
}

impl Msi {
    /// `log2_vectors` from 0 to 5.
    #[must_use]
    pub fn new(slot: PciSlot, log2_vectors: u8) -> Arc<Self> {
        Arc::new(Self { slot, log2_vectors: log2_vectors.min(5), state: Mutex::default() })
    }
    /// The capability's body after id and next pointer, and its write mask.
    pub(crate) fn body(&self) -> ([u8; LENGTH], [u8; LENGTH]) {
        let (mut body, mut mask) = ([0; LENGTH], [0; LENGTH]);
        // 64-bit address capable, per-vector masking capable.
        body[0] = 0x80 | self.log2_vectors << 1;
        body[1] = 1;
        mask[0] = 0x71;
        mask[2] = 0xfc;
        mask[3..12].fill(0xff);
        mask[12..14].fill(0);
        let vectors = 1u64 << self.log2_vectors;
        mask[14..18].copy_from_slice(&(((1u64 << vectors) - 1) as u32).to_le_bytes());
        mask[10] = 0xff;
        mask[11] = 0xff;
        (body, mask)
    }
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.state.lock().control & ENABLE != 0
    }
    /// Bits pending while masked.
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.state.lock().pending
    }
    /// Takes over the registers after a configuration write: the whole capability's body after the next pointer.
    pub(crate) fn update(&self, body: &[u8]) {
        let word = |at: usize| body.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        {
            let mut s = self.state.lock();
            s.control = word(0) as u16;
            s.address = u64::from(word(6)) << 32 | u64::from(word(2));
            s.data = word(10) & 0xffff;
            s.mask = word(14);
        }
        let due = {
            let mut s = self.state.lock();
            let due = if s.control & ENABLE != 0 { s.pending & !s.mask } else { 0 };
            s.pending &= !due;
            due
        };
        for vector in (0..32).filter(|v| due & (1 << v) != 0) {
            self.notify(vector);
        }
    }
    pub(crate) fn reset(&self) {
        *self.state.lock() = State::default();
    }
    pub(crate) fn set_pending(&self, pending: u32) {
        self.state.lock().pending = pending;
    }
    /// Signals a vector. With fewer vectors allocated than asked for, they share.
    pub fn notify(&self, vector: u16) {
        let (address, data) = {
            let mut s = self.state.lock();
            if s.control & ENABLE == 0 {
                return;
            }
            let allocated = ((s.control >> 4) & 7).min(u16::from(self.log2_vectors));
            let low = (1u32 << allocated) - 1;
            let vector = u32::from(vector) & low;
            if s.mask & (1 << vector) != 0 {
                s.pending |= 1 << vector;
                return;
            }
            (s.address, s.data & !low | vector)
        };
        self.slot.send(address, data);
    }
}
