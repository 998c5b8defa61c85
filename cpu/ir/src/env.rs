//! The head of every guest CPU structure: what generated code and its run time share, at fixed offsets from the one
//! pinned host register.

use rhea_clock::Counter;
use std::sync::atomic::{AtomicU32, Ordering};

/// Number of translation regimes × privileges with a TLB of their own.
pub const MMU_INDEXES: usize = 16;
/// log2 of the softmmu page size. Guest granules are larger or equal.
pub const PAGE_BITS: u32 = 12;
pub const PAGE_SIZE: u64 = 1 << PAGE_BITS;
/// Entries of the array at [`EnvHeader::fetch`].
pub const FETCH_ENTRIES: usize = 2048;

/// Entries of [`EnvHeader::returns`].
pub const RETURNS: usize = 16;

/// Entries of [`EnvHeader::sites`].
pub const SITES: usize = 128;

/// Bits of a TLB tag below the page address: any of them set makes the inline compare fail. They are above the address
/// bits that take part in the compare for alignment (bits 0–6).
pub mod tag {
    /// The entry does not permit this kind of access.
    pub const INVALID: u64 = 1 << 11;
    /// The page is not RAM or needs the slow path (MMIO, code tracking, dirty tracking, watchpoints).
    pub const SLOW: u64 = 1 << 10;
}

/// One TLB entry: compare `(va & !0xfff)` with the tag of the access kind, then host address = `va + addend`.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub struct TlbEntry {
    pub read: u64,
    pub write: u64,
    /// Host address of the page minus its guest virtual address (wrapping).
    pub addend: u64,
    /// Bit 0: the translation is global ([`crate::guest::Translation::global`]).
    pub flags: u64,
}

impl TlbEntry {
    pub const EMPTY: TlbEntry = TlbEntry { read: u64::MAX, write: u64::MAX, addend: 0, flags: 0 };
}

/// Where the table of one MMU index is: entry address = table + ((va >> (PAGE_BITS - 5)) & mask).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TlbDesc {
    /// (entries − 1) × 32.
    pub mask: u64,
    /// Host address of the first entry.
    pub table: u64,
}

/// An unused element of [`EnvHeader::sites`].
pub const NO_SITE: [u64; 2] = [u64::MAX, 0];

/// Words that fill [`EnvHeader`] up.
const UNUSED: usize = 27;

/// First member of every guest CPU structure. The pinned register points behind it: what is used most stands at its end and at the
/// beginning of what follows, within reach of a one-byte displacement.
#[derive(Debug)]
#[repr(C, align(256))]
pub struct EnvHeader {
    /// The shadow return stack, a ring: guest return address, host code that goes there. At a multiple of its size.
    pub returns: [[u64; 2]; RETURNS],
    /// What memory instructions of optimised regions found last: tag and addend of a [`TlbEntry`], by a number given when
    /// the region is compiled. An instruction mostly stays in its page, and need not compute where the TLB has it.
    pub sites: [[u64; 2]; SITES],
    /// 128-bit arguments (in order of appearance among 128-bit ones) and the result (index 7) of helpers.
    pub scratch: [u128; 8],
    /// For reads by the index [`crate::guest::Guest::FLAT_INDEX`]: the host address of guest address 0, and where the addresses end
    /// from which an access of any size finds its bytes behind it (0: nowhere).
    pub flat: [u64; 2],
    /// Address of the accelerator's function behind [`crate::raw::touch`], 0 if it has none.
    pub touch: u64,
    /// Guest address of the indirect branch that last led to an address whose code was not at hand: for guests whose branches
    /// fault when their target cannot be fetched from at all.
    pub branch: u64,
    /// What the instructions are counted in, if they are: [`crate::Op::Count`].
    pub counter: Option<&'static Counter>,
    unused: [u64; UNUSED],
    /// The accelerator's own words.
    pub accel: [u64; 8],
    /// By [`tlb_slot`].
    pub tlb: [TlbDesc; MMU_INDEXES],
    /// Host address of the top of `returns`; the accelerator sets it.
    pub returns_top: u64,
    /// If there are any: leave generated code at the next check.
    pub exit_request: Requests,
    /// A helper raised an exception (state and pc are set): leave the region after the call.
    pub raised: u32,
    /// Sticky FP flags (rhea_float bits) not yet in the guest's own register.
    pub fp_flags: u32,
    /// Host FP control word while guest code runs (MXCSR on x86-64 hosts).
    pub host_fp: u32,
    /// Guest program counter; stale while a region runs, set at every exit and before every non-pure helper.
    pub pc: u64,
    /// Everything but pc that changes what an instruction at pc translates to. Kept by the guest.
    pub mode: u64,
    /// Host address of the accelerator's per-vCPU jump cache.
    pub jump_cache: u64,
    /// Host address that leaves generated code.
    pub exit: u64,
    /// Host address of the identities (`u32`, 0: none) of instruction pages seen valid lately, by (va >> 12) % [`FETCH_ENTRIES`].
    /// Regions of several pages check theirs when they are entered, jumps to another page when they are made.
    pub fetch: u64,
}

const _: () = assert!(std::mem::offset_of!(EnvHeader, fetch) + 8 == size_of::<EnvHeader>());

const _: () = assert!(std::mem::offset_of!(EnvHeader, returns) == 0 && RETURNS * 16 == align_of::<EnvHeader>());

/// What was asked of a vCPU: bits of [`crate::guest::request`], of the accelerator and the guest.
///
/// In memory bit 0 is always set: generated code that takes the word from a counter of 0 to [`Requests::MOST`] takes one from it, or
/// leaves it negative where there is a request.
#[derive(Debug)]
#[repr(transparent)]
pub struct Requests(AtomicU32);

impl Requests {
    pub const MOST: i32 = (1 << 27) - 1;
    /// In memory: there are none.
    pub const NONE: u32 = 1;
    pub fn load(&self, order: Ordering) -> u32 {
        self.0.load(order) & !Self::NONE
    }
    pub fn set(&self, bits: u32) {
        self.0.fetch_or(bits, Ordering::SeqCst);
    }
    pub fn clear(&self, bits: u32) {
        self.0.fetch_and(!bits | Self::NONE, Ordering::SeqCst);
    }
    pub fn clear_all(&self) {
        self.0.swap(Self::NONE, Ordering::SeqCst);
    }
}

impl Default for Requests {
    fn default() -> Requests {
        Requests(AtomicU32::new(Self::NONE))
    }
}

/// Where [`EnvHeader::tlb`] has an MMU index: the first ones at its end.
#[must_use]
pub const fn tlb_slot(index: u32) -> usize {
    MMU_INDEXES - 1 - index as usize % MMU_INDEXES
}

impl Default for EnvHeader {
    fn default() -> Self {
        EnvHeader {
            exit_request: Requests::default(),
            raised: 0,
            fp_flags: 0,
            host_fp: 0x1f80,
            pc: 0,
            mode: 0,
            jump_cache: 0,
            exit: 0,
            fetch: 0,
            tlb: [TlbDesc { mask: 0, table: 0 }; MMU_INDEXES],
            accel: [0; 8],
            returns: [[u64::MAX, 0]; RETURNS],
            returns_top: 0,
            flat: [0; 2],
            sites: [NO_SITE; SITES],
            scratch: [0; 8],
            touch: 0,
            branch: 0,
            counter: None,
            unused: [0; UNUSED],
        }
    }
}
