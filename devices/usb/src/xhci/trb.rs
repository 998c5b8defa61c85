//! Transfer request blocks (xHCI 6.4) and rings of them (4.9).

use minicbor::{Decode, Encode};
use rhea_device::DmaHandle;
use rhea_memory::BusError;

pub const SIZE: u64 = 16;

/// TRB types (table 6-91).
pub mod kind {
    pub const NORMAL: u8 = 1;
    pub const SETUP: u8 = 2;
    pub const DATA: u8 = 3;
    pub const STATUS: u8 = 4;
    pub const ISOCH: u8 = 5;
    pub const LINK: u8 = 6;
    pub const EVENT_DATA: u8 = 7;
    pub const NO_OP: u8 = 8;
    pub const ENABLE_SLOT: u8 = 9;
    pub const DISABLE_SLOT: u8 = 10;
    pub const ADDRESS_DEVICE: u8 = 11;
    pub const CONFIGURE_ENDPOINT: u8 = 12;
    pub const EVALUATE_CONTEXT: u8 = 13;
    pub const RESET_ENDPOINT: u8 = 14;
    pub const STOP_ENDPOINT: u8 = 15;
    pub const SET_DEQUEUE: u8 = 16;
    pub const RESET_DEVICE: u8 = 17;
    pub const GET_PORT_BANDWIDTH: u8 = 21;
    pub const NO_OP_COMMAND: u8 = 23;
    pub const TRANSFER_EVENT: u8 = 32;
    pub const COMMAND_COMPLETION: u8 = 33;
    pub const PORT_STATUS_CHANGE: u8 = 34;
    pub const HOST_CONTROLLER: u8 = 37;
    /// The vendor's, of NEC: completion of, and command Get Firmware.
    pub const NEC_COMPLETION: u8 = 48;
    pub const NEC_GET_FIRMWARE: u8 = 49;
}

/// Completion codes (table 6-90).
pub mod code {
    pub const SUCCESS: u8 = 1;
    pub const DATA_BUFFER: u8 = 2;
    pub const BABBLE: u8 = 3;
    pub const TRANSACTION: u8 = 4;
    pub const TRB: u8 = 5;
    pub const STALL: u8 = 6;
    pub const NO_SLOTS: u8 = 9;
    pub const SLOT_NOT_ENABLED: u8 = 11;
    pub const ENDPOINT_NOT_ENABLED: u8 = 12;
    pub const SHORT_PACKET: u8 = 13;
    pub const PARAMETER: u8 = 17;
    pub const CONTEXT_STATE: u8 = 19;
    pub const EVENT_RING_FULL: u8 = 21;
    pub const COMMAND_RING_STOPPED: u8 = 24;
    pub const STOPPED: u8 = 26;
}

/// Bits of the last word.
pub const CYCLE: u32 = 1;
/// Of links: the cycle state changes.
pub const TOGGLE: u32 = 1 << 1;
/// Of transfers: interrupt on a short packet.
pub const ON_SHORT: u32 = 1 << 2;
/// Of transfer events: the pointer is an Event Data TRB's own.
pub const EVENT_DATA: u32 = 1 << 2;
pub const CHAIN: u32 = 1 << 4;
pub const ON_COMPLETION: u32 = 1 << 5;
pub const IMMEDIATE: u32 = 1 << 6;
pub const BLOCK_INTERRUPT: u32 = 1 << 9;
/// Of Address Device: no request goes to the device; of Configure Endpoint: deconfigure; of Reset Endpoint: keep the state.
pub const VARIANT: u32 = 1 << 9;
/// Of data and status stages: to the host.
pub const TO_HOST: u32 = 1 << 16;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Trb {
    #[n(0)]
    pub parameter: u64,
    #[n(1)]
    pub status: u32,
    #[n(2)]
    pub control: u32,
}

impl Trb {
    pub fn kind(&self) -> u8 {
        (self.control >> 10 & 63) as u8
    }
    pub fn has(&self, bit: u32) -> bool {
        self.control & bit != 0
    }
    /// TRB transfer length.
    pub fn len(&self) -> u64 {
        u64::from(self.status & 0x1_ffff)
    }
    pub fn interrupter(&self) -> usize {
        (self.status >> 22) as usize
    }
    pub fn slot(&self) -> usize {
        (self.control >> 24) as usize
    }
    pub fn endpoint(&self) -> usize {
        (self.control >> 16 & 31) as usize
    }
    pub fn read(dma: &DmaHandle, at: u64) -> Result<Self, BusError> {
        let mut b = [0; SIZE as usize];
        dma.read_ram(at, &mut b)?;
        let word = |n: usize| u32::from_le_bytes([b[n], b[n + 1], b[n + 2], b[n + 3]]);
        Ok(Self { parameter: u64::from(word(0)) | u64::from(word(4)) << 32, status: word(8), control: word(12) })
    }
    /// The last word is stored last: the guest looks at its cycle bit.
    pub fn write(&self, dma: &DmaHandle, at: u64) -> Result<(), BusError> {
        let mut b = [0; 12];
        b[..8].copy_from_slice(&self.parameter.to_le_bytes());
        b[8..].copy_from_slice(&self.status.to_le_bytes());
        dma.write_ram(at, &b)?;
        dma.write_ram(at.wrapping_add(12), &self.control.to_le_bytes())
    }
}

/// A place in a ring of the guest's: the address of the next TRB and the cycle bit that makes it valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Ring {
    #[n(0)]
    pub at: u64,
    #[n(1)]
    pub cycle: bool,
}

/// Why there is no next TRB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// The guest has not put it there yet.
    Empty,
    /// The ring is not in memory.
    Memory,
    /// Links lead only to links.
    Loop,
}

/// Links that follow each other without anything between them.
const MOST_LINKS: usize = 8;

impl Ring {
    /// As dequeue pointers hold it: the cycle state in bit 0.
    pub fn of_pointer(pointer: u64) -> Self {
        Self { at: pointer & !15, cycle: pointer & 1 != 0 }
    }
    pub fn pointer(self) -> u64 {
        self.at & !15 | u64::from(self.cycle)
    }
    /// Goes to the next TRB that is no link; its address and itself.
    pub fn next(&mut self, dma: &DmaHandle) -> Result<(u64, Trb), Gap> {
        for _ in 0..=MOST_LINKS {
            let at = self.at;
            let trb = Trb::read(dma, at).map_err(|_| Gap::Memory)?;
            if trb.has(CYCLE) != self.cycle {
                return Err(Gap::Empty);
            }
            if trb.kind() != kind::LINK {
                self.at = at.wrapping_add(SIZE);
                return Ok((at, trb));
            }
            self.at = trb.parameter & !15;
            self.cycle ^= trb.has(TOGGLE);
        }
        Err(Gap::Loop)
    }
}
