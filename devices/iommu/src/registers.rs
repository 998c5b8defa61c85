//! The registers' places and fields (chapter 11).

use crate::VtdOptions;

/// Bytes of the register file.
pub const LENGTH: u64 = 0x1000;

pub const VERSION: u16 = 0x00;
pub const CAPABILITY: u16 = 0x08;
pub const EXTENDED_CAPABILITY: u16 = 0x10;
pub const GLOBAL_COMMAND: u16 = 0x18;
pub const GLOBAL_STATUS: u16 = 0x1c;
pub const ROOT_TABLE: u16 = 0x20;
pub const CONTEXT_COMMAND: u16 = 0x28;
pub const FAULT_STATUS: u16 = 0x34;
pub const FAULT_CONTROL: u16 = 0x38;
pub const QUEUE_HEAD: u16 = 0x80;
pub const QUEUE_TAIL: u16 = 0x88;
pub const QUEUE_ADDRESS: u16 = 0x90;
pub const COMPLETION_STATUS: u16 = 0x9c;
pub const COMPLETION_CONTROL: u16 = 0xa0;
pub const INTERRUPT_TABLE: u16 = 0xb8;
pub const INVALIDATE_ADDRESS: u16 = 0xf0;
pub const IOTLB: u16 = 0xf8;
/// Fault recording registers, 16 bytes each.
pub const FAULTS: u16 = 0x220;
pub const FAULT_COUNT: u16 = 8;
/// All that is stored lies below.
pub const END: u16 = FAULTS + FAULT_COUNT * 16;

/// Global command and status.
pub mod global {
    pub const TRANSLATION: u32 = 1 << 31;
    pub const SET_ROOT: u32 = 1 << 30;
    pub const QUEUE: u32 = 1 << 26;
    pub const REMAPPING: u32 = 1 << 25;
    pub const SET_INTERRUPTS: u32 = 1 << 24;
    pub const COMPATIBILITY: u32 = 1 << 23;
}

/// Fault status.
pub mod fault {
    pub const OVERFLOW: u32 = 1;
    pub const PENDING: u32 = 1 << 1;
    pub const QUEUE_ERROR: u32 = 1 << 4;
    /// Bits that software clears by ones.
    pub const CLEARABLE: u32 = 0x71;
    pub const INDEX: u32 = 0xff << 8;
    /// In the last word of a fault recording register.
    pub const RECORDED: u32 = 1 << 31;
    /// The request was a read.
    pub const READ: u32 = 1 << 30;
}
/// Fault and completion event control: mask, pending.
pub mod event {
    pub const MASKED: u32 = 1 << 31;
    pub const PENDING: u32 = 1 << 30;
}

pub const VERSION_VALUE: u32 = 0x10;

/// Pages that one invalidation may name, as a power of two.
pub const MAX_MASK: u8 = 18;

/// The capability register (11.4.2).
pub fn capability(o: &VtdOptions) -> u64 {
    // Widths of 39 bits, and 48.
    let widths = if o.address_bits == 48 { 0b110 } else { 0b010 };
    // 16-bit domain ids.
    6 | u64::from(o.caching_mode) << 7
        | widths << 8
        | u64::from(o.address_bits - 1) << 16
        | u64::from(FAULTS / 16) << 24
        // Pages of 2 MiB and 1 GiB, invalidation by page.
        | 0b11 << 34
        | 1 << 39
        | u64::from(FAULT_COUNT - 1) << 40
        | u64::from(MAX_MASK) << 48
        // Draining of writes and reads.
        | if o.drain { 0b11 << 54 } else { 0 }
}
/// The extended capability register (11.4.3).
pub fn extended_capability(o: &VtdOptions) -> u64 {
    // Walks of tables see caches; queued invalidation.
    0b11 | u64::from(o.device_iotlb) << 2
        | u64::from(o.interrupt_remapping) << 3
        | u64::from(o.extended_interrupts) << 4
        | u64::from(o.pass_through) << 6
        | u64::from(INVALIDATE_ADDRESS / 16) << 8
        // The largest handle mask.
        | if o.interrupt_remapping { 0xf << 20 } else { 0 }
}

/// The register file: words as software reads them.
pub struct Registers {
    words: [u32; END as usize / 4],
}

impl Registers {
    pub fn new(o: &VtdOptions) -> Self {
        let mut this = Self { words: [0; END as usize / 4] };
        this.set(VERSION, VERSION_VALUE);
        this.set64(CAPABILITY, capability(o));
        this.set64(EXTENDED_CAPABILITY, extended_capability(o));
        this.set(FAULT_CONTROL, event::MASKED);
        this.set(COMPLETION_CONTROL, event::MASKED);
        this
    }
    pub fn words(&self) -> &[u32] {
        &self.words
    }
    /// Takes over saved words; false: their number is wrong.
    pub fn load(&mut self, words: &[u32]) -> bool {
        let fits = words.len() == self.words.len();
        if fits {
            self.words.copy_from_slice(words);
        }
        fits
    }
    pub fn get(&self, at: u16) -> u32 {
        self.words.get(usize::from(at / 4)).copied().unwrap_or(0)
    }
    pub fn get64(&self, at: u16) -> u64 {
        u64::from(self.get(at)) | u64::from(self.get(at + 4)) << 32
    }
    pub fn set(&mut self, at: u16, value: u32) {
        if let Some(word) = self.words.get_mut(usize::from(at / 4)) {
            *word = value;
        }
    }
    pub fn set64(&mut self, at: u16, value: u64) {
        self.set(at, value as u32);
        self.set(at + 4, (value >> 32) as u32);
    }
    pub fn change(&mut self, at: u16, clear: u32, set: u32) {
        self.set(at, self.get(at) & !clear | set);
    }
}

/// The bits of the word at `at` that are plain storage.
pub fn storage(at: u16) -> u32 {
    match at {
        // Table address and mode, the second half of 64-bit addresses.
        ROOT_TABLE => 0xffff_fc00,
        0x24 | 0x94 | 0xbc | 0xf4 => u32::MAX,
        CONTEXT_COMMAND => u32::MAX,
        // Data and address of the fault and completion events.
        0x3c | 0xa4 => 0xffff,
        0x40 | 0xa8 => !3,
        0x44 | 0xac => u32::MAX,
        QUEUE_TAIL => 0x7_fff0,
        // Without 256-bit descriptors.
        QUEUE_ADDRESS => 0xffff_f007,
        INTERRUPT_TABLE => 0xffff_f80f,
        INVALIDATE_ADDRESS => 0xffff_f07f,
        IOTLB => u32::MAX,
        _ => 0,
    }
}
