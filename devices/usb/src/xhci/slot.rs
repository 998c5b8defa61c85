//! Device slots and endpoints: what the controller keeps of them, and their contexts in the guest's memory (xHCI 6.2).

use super::transfer::Flight;
use super::trb::Ring;
use crate::Setup;
use minicbor::{Decode, Encode};
use rhea_device::DmaHandle;
use rhea_memory::BusError;

/// Bytes of a context.
pub const CONTEXT: u64 = 32;
/// Device context indices: 0 is the slot, 1 the default endpoint.
pub const ENDPOINTS: usize = 32;
pub const DEFAULT_ENDPOINT: usize = 1;

/// Slot states (table 6-7); a slot that is enabled but has no address yet is as one that is disabled.
pub mod state {
    pub const ENABLED: u8 = 0;
    pub const DEFAULT: u8 = 1;
    pub const ADDRESSED: u8 = 2;
    pub const CONFIGURED: u8 = 3;
}
/// Endpoint states (table 6-8).
pub mod endpoint {
    pub const DISABLED: u8 = 0;
    pub const RUNNING: u8 = 1;
    pub const HALTED: u8 = 2;
    pub const STOPPED: u8 = 3;
    pub const ERROR: u8 = 4;
}
/// Endpoint types (table 6-9).
pub mod kind {
    pub const ISOCH_OUT: u8 = 1;
    pub const CONTROL: u8 = 4;
    pub const ISOCH_IN: u8 = 5;
}

/// A control transfer between its stages.
#[derive(Clone, Debug, Encode, Decode)]
pub struct Stages {
    #[n(0)]
    pub setup: Setup,
    /// Data for the device.
    #[n(1)]
    pub data: Vec<u8>,
    /// The device has answered.
    #[n(2)]
    pub answered: bool,
}

#[derive(Default, Encode, Decode)]
pub struct Endpoint {
    #[n(0)]
    pub state: u8,
    #[n(1)]
    pub kind: u8,
    #[n(2)]
    pub ring: Ring,
    #[n(3)]
    pub control: Option<Stages>,
    /// The device had nothing to say to what is at the ring's head.
    #[n(4)]
    pub waiting: bool,
    /// It was woken while it was asked.
    #[cbor(skip)]
    pub again: bool,
    #[cbor(skip)]
    pub flight: Option<Flight>,
}

impl Endpoint {
    pub fn is_isoch(&self) -> bool {
        matches!(self.kind, kind::ISOCH_IN | kind::ISOCH_OUT)
    }
}

#[derive(Encode, Decode)]
pub struct Slot {
    #[n(0)]
    pub enabled: bool,
    #[n(1)]
    pub state: u8,
    /// The device context.
    #[n(2)]
    pub context: u64,
    /// Root hub port, from 1.
    #[n(3)]
    pub port: u8,
    /// Ports of the hubs on the way, four bits each.
    #[n(4)]
    pub route: u32,
    /// Which of the controller's devices it is.
    #[n(5)]
    pub device: Option<usize>,
    #[n(6)]
    pub endpoints: Vec<Endpoint>,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            enabled: false,
            state: state::ENABLED,
            context: 0,
            port: 0,
            route: 0,
            device: None,
            endpoints: (0..ENDPOINTS).map(|_| Endpoint::default()).collect(),
        }
    }
}

/// A context as it is in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context(pub [u32; 8]);

impl Context {
    pub fn read(dma: &DmaHandle, at: u64) -> Result<Self, BusError> {
        let mut b = [0; CONTEXT as usize];
        dma.read_ram(at, &mut b)?;
        Ok(Self(std::array::from_fn(|n| u32::from_le_bytes([b[4 * n], b[4 * n + 1], b[4 * n + 2], b[4 * n + 3]]))))
    }
    pub fn write(&self, dma: &DmaHandle, at: u64) -> Result<(), BusError> {
        let mut b = [0; CONTEXT as usize];
        for (place, word) in b.chunks_exact_mut(4).zip(self.0) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        dma.write_ram(at, &b)
    }
    fn set(&mut self, word: usize, mask: u32, value: u32) {
        self.0[word] = self.0[word] & !mask | value & mask;
    }
    // Of slots (6.2.2).
    pub fn route(&self) -> u32 {
        self.0[0] & 0xf_ffff
    }
    pub fn root_port(&self) -> u8 {
        (self.0[1] >> 16) as u8
    }
    pub fn entries(&self) -> u32 {
        self.0[0] >> 27
    }
    pub fn set_entries(&mut self, entries: u32) {
        self.set(0, 31 << 27, entries << 27);
    }
    pub fn set_slot_state(&mut self, state: u8, address: u8) {
        self.set(3, 31 << 27 | 0xff, u32::from(state) << 27 | u32::from(address));
    }
    /// Maximum exit latency and interrupter target.
    pub fn take_evaluated(&mut self, new: &Self) {
        self.set(1, 0xffff, new.0[1]);
        self.set(2, 0x3ff << 22, new.0[2]);
    }
    /// Whether it is a hub, with how many ports, and its think time.
    pub fn take_hub(&mut self, new: &Self) {
        self.set(0, 3 << 25, new.0[0]);
        self.set(1, 0xff << 24, new.0[1]);
        self.set(2, 3 << 16, new.0[2]);
    }
    // Of endpoints (6.2.3).
    pub fn endpoint_kind(&self) -> u8 {
        (self.0[1] >> 3 & 7) as u8
    }
    pub fn streams(&self) -> u32 {
        self.0[0] >> 10 & 31
    }
    pub fn max_packet(&self) -> u32 {
        self.0[1] >> 16
    }
    pub fn take_max_packet(&mut self, new: &Self) {
        self.set(1, 0xffff << 16, new.0[1]);
    }
    pub fn dequeue(&self) -> u64 {
        u64::from(self.0[2]) | u64::from(self.0[3]) << 32
    }
    pub fn set_endpoint(&mut self, state: u8, ring: Ring) {
        self.set(0, 7, u32::from(state));
        self.0[2] = ring.pointer() as u32;
        self.0[3] = (ring.pointer() >> 32) as u32;
    }
}
