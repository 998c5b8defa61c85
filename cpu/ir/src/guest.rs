//! What a guest architecture offers to whatever executes it.

use crate::env::EnvHeader;
use crate::func::Builder;
use crate::types::Type;
use rhea_memory::Gpa;
use std::sync::Arc;
use std::time::Duration;

/// Index into [`Guest::HELPERS`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HelperId(pub u16);

/// What a helper may do; a set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effects(pub u8);

impl Effects {
    /// A function of its arguments only (may be shared and removed). It may use `EnvHeader::scratch` and raise sticky
    /// FP flags (then add [`Effects::KEEP`]).
    pub const PURE: Effects = Effects(1);
    /// Reads guest state in memory: everything is flushed before it.
    pub const READS_STATE: Effects = Effects(2);
    /// Writes guest state in memory: also flushed before, and read again after.
    pub const WRITES_STATE: Effects = Effects(4 | 2);
    /// May set `EnvHeader::raised`, which leaves the region right after the call (pc and mode are taken from memory).
    pub const RAISES: Effects = Effects(8 | 2);
    /// With PURE: must not be removed or shared (it raises sticky flags).
    pub const KEEP: Effects = Effects(16);

    pub const fn union(self, o: Effects) -> Effects {
        Effects(self.0 | o.0)
    }
    pub const fn contains(self, o: Effects) -> bool {
        self.0 & o.0 == o.0
    }
}

/// The entry of a helper: `extern "C" fn(cpu: &mut G, a: u64, b: u64, c: u64, d: u64) -> u64` with `G` the guest's CPU
/// structure, erased. Integer arguments are passed zero-extended, F32/F64 as bits, 128-bit ones in
/// `EnvHeader::scratch[0..]` in order of appearance (their integer argument is then unspecified). A 128-bit result is
/// returned in `scratch[7]`; Bool, I32, F32 in the low bits of the return value.
#[derive(Clone, Copy, Debug)]
pub struct HelperFn(pub *const ());

// SAFETY: the pointer is the address of a function, which is immutable and valid for the program's life.
#[expect(unsafe_code, reason = "function addresses are plain data")]
unsafe impl Sync for HelperFn {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "function addresses are plain data")]
unsafe impl Send for HelperFn {}

#[derive(Clone, Copy, Debug)]
pub struct HelperDesc {
    pub name: &'static str,
    pub func: HelperFn,
    pub args: &'static [Type],
    pub ret: Type,
    pub effects: Effects,
}

/// How FP operations behave in a region: everything of the guest's FP control register that matters. Rounding modes
/// as `rhea_float::Rounding`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FpMode {
    /// 0 nearest-even, 1 toward +inf, 2 toward −inf, 3 toward zero.
    pub rounding: u8,
    pub default_nan: bool,
    /// Flush denormal outputs of single and double; with NanRule::Arm inputs too.
    pub flush: bool,
    /// Flush denormal inputs of single and double (x86; elsewhere `flush` says it).
    pub daz: bool,
    /// The same for half precision.
    pub flush_f16: bool,
    /// Arm alternative half-precision format.
    pub alt_half: bool,
    /// Which NaN operand propagates, and the default NaN.
    pub nan_rule: NanRule,
}

impl FpMode {
    /// An x86 host's unit compares as guests other than x86 do.
    pub fn host_compares(&self) -> bool {
        !self.flush && !self.daz && self.nan_rule != NanRule::X86
    }
    /// An x86 host's unit does all that this mode says by itself.
    pub fn is_host_x86(&self) -> bool {
        self.nan_rule == NanRule::X86 && !self.default_nan
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum NanRule {
    #[default]
    Arm,
    X86,
    Ppc,
}

/// Kind of memory access.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    Read,
    Write,
    Fetch,
}

/// The result of a page walk for one softmmu page.
#[derive(Clone, Copy, Debug)]
pub struct Translation {
    /// Guest-physical address of the 4 KiB page that holds the address.
    pub page: Gpa,
    pub readable: bool,
    pub writable: bool,
    pub executable: bool,
    /// Device memory or another type on which unaligned accesses fault.
    pub device: bool,
    /// Physical address space: true for the secure one.
    pub secure: bool,
    /// Accesses to this page must always take the slow path (watchpoints).
    pub slow: bool,
    /// The same in every context ([`Guest::context`]).
    pub global: bool,
    /// Page attributes that change how code in it is translated (Arm: bit 0 = guarded page).
    pub code_attrs: u8,
}

/// An exception was raised: the guest's pc, mode and registers in memory are those of its handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Raised;

/// What the vCPU loop is to do after [`Guest::poll`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Poll {
    /// Run guest code from the pc and mode in memory (an interrupt may just have been taken).
    Run,
    /// Nothing to run until an interrupt pin changes (WFI) or, if given, this time has passed.
    Halt(Option<Duration>),
    /// The vCPU is powered off; waits for a request.
    Off,
    /// A debugger's event (breakpoint, watchpoint, step) waits in the guest; the vCPU stops.
    Debug,
}

/// Bits of [`EnvHeader::exit_request`], from 27 on ([`crate::env::Requests`]).
pub mod request {
    /// Interrupt pins changed: [`super::Guest::poll`] must run.
    pub const INTERRUPT: u32 = 1 << 27;
    /// The vCPU thread has work of its own (pause, TLB flush request, invalidation).
    pub const ACCEL: u32 = 1 << 28;
    /// Debug event.
    pub const DEBUG: u32 = 1 << 29;
}

/// Some of the contexts ([`Guest::context`]): those that agree with `value` in the bits of `mask`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Contexts {
    pub mask: u64,
    pub value: u64,
}

impl Contexts {
    pub const ALL: Contexts = Contexts { mask: 0, value: 0 };
    pub fn contains(&self, context: u64) -> bool {
        (context ^ self.value) & self.mask == 0
    }
}

/// What a page-level invalidation concerns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlbFlush {
    All,
    /// The MMU indexes set in the mask.
    Indexes(u16),
    /// Entries of the indexes that are not global, in some contexts.
    Context {
        indexes: u16,
        of: Contexts,
    },
    /// `pages` softmmu pages from the virtual address (of the MMU indexes in the mask): in the contexts given, and global
    /// ones in all.
    Range {
        va: u64,
        pages: u64,
        indexes: u16,
        of: Contexts,
    },
    /// What [`Guest::outdated`] says when the vCPU that is to forget comes to it.
    Outdated,
}

/// A memory access seen by the guest's slow-path hooks (watchpoints, external aborts).
#[derive(Clone, Copy, Debug)]
pub struct MemAccess {
    pub va: u64,
    pub size: u32,
    pub kind: Access,
    pub mmu_idx: u32,
}

/// A guest CPU: `#[repr(C)]`, [`EnvHeader`] first. All methods run on the vCPU's own thread; state in memory is
/// precise when they are called.
pub trait Guest: Send + 'static {
    const HELPERS: &'static [HelperDesc];
    /// Name for logs.
    const ARCH: &'static str;
    /// Nobody answers for accesses that the bus refuses: reads give ones, writes are lost ([`Guest::bus_fault`] concerns
    /// instruction fetches only), and atomics on devices are a read and a write.
    const OPEN_BUS: bool = false;
    /// A read-modify-write that faults does so as a write even where a read would fault.
    const RMW_FAULTS_AS_WRITE: bool = false;

    /// An MMU index whose addresses are those of real storage (above it they may be anything), and all of it may be read.
    const FLAT_INDEX: Option<u32> = None;

    /// What translation depends on besides mode and code (model, features); the same for all vCPUs of a machine.
    type Config: Send + Sync + 'static;

    fn config(&self) -> Arc<Self::Config>;
    fn header(&self) -> &EnvHeader;
    fn header_mut(&mut self) -> &mut EnvHeader;

    /// What tells the address spaces of the guest apart (ASID, VMID): TLB entries that are not global hold for the value
    /// at the time they were made. Looked at whenever [`request::ACCEL`] is set.
    fn context(&self) -> u64 {
        0
    }

    /// May reads by [`Guest::FLAT_INDEX`] go unseen? Looked at after [`TlbFlush::All`].
    fn flat_reads(&self) -> bool {
        false
    }

    /// FP behaviour under a mode.
    fn fp_mode(mode: u64) -> FpMode;
    /// MMU index that instruction fetch (and ordinary data access) uses under a mode.
    fn fetch_index(mode: u64) -> u32;

    /// Translates one guest basic block at `b.pc()` (the block's pc) into `b` and ends it. `code` holds the bytes from
    /// there to the end of the page (at most `max_insns` instructions are taken). An instruction that would cross the
    /// end of `code` (x86) is handled by ending the block before it; if it is the first, returns
    /// `NeedsNextPage`, and is called again with the next page's bytes appended. A function of its arguments only:
    /// it may run on another thread.
    fn translate(
        config: &Self::Config,
        mode: u64,
        code_attrs: u8,
        code: &[u8],
        max_insns: u32,
        b: &mut Builder,
    ) -> Translated;

    /// Walks the guest's tables for `va`. On failure the guest's exception has been raised.
    fn walk(&mut self, va: u64, access: Access, mmu_idx: u32) -> Result<Translation, Raised>;
    /// The same for a debugger: no side effect, no exception, ignoring permissions.
    fn walk_debug(&mut self, va: u64) -> Option<Translation>;
    /// Raises the exception for a misaligned access.
    fn alignment_fault(&mut self, access: MemAccess) -> Raised;
    /// Raises the exception for an access the bus refused (external abort, machine check).
    fn bus_fault(&mut self, access: MemAccess) -> Raised;
    /// Called before a slow-path access to a page marked `slow`: watchpoints.
    fn check_access(&mut self, access: MemAccess) -> Result<(), Raised>;

    /// Called when `request::INTERRUPT` or `DEBUG` was seen or after a halt: takes a pending exception if one is
    /// unmasked, or says how to wait.
    fn poll(&mut self) -> Poll;

    /// TLB work that helpers of this vCPU asked for (own and, with `true`, for all vCPUs); drained by the accelerator
    /// right after the region or helper that asked. Empty most of the time.
    fn take_flushes(&mut self) -> Vec<(TlbFlush, bool)>;
    /// For [`TlbFlush::Outdated`]: what of earlier walks no longer holds, or all that would have to be looked at.
    fn outdated(&mut self) -> Vec<TlbFlush> {
        vec![TlbFlush::All]
    }
    /// Architectural reset state (power-on).
    fn reset(&mut self);
}

/// How [`Guest::translate`] ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Translated {
    /// The block is complete; this many bytes of `code` were read.
    Done {
        bytes: u32,
    },
    NeedsNextPage,
}
