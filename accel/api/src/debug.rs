//! What a debugger (the GDB stub) does to a paused vCPU.

use rhea_memory::{BusError, Gva};

/// Which accesses a watchpoint stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchKind {
    Write,
    Read,
    Access,
}

/// Why a vCPU stopped for the debugger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugStop {
    Breakpoint,
    Watchpoint {
        address: Gva,
        kind: WatchKind,
    },
    Step,
    /// Stopped by request (Ctrl-C).
    Pause,
}

/// Implemented by a vCPU; called only while it is paused (the breakpoint setters while all are paused).
pub trait VcpuDebug: Send + Sync {
    /// All registers as bytes in GDB's order for the architecture (aarch64: x0-x30, sp, pc as u64, cpsr u32, v0-v31 u128, fpsr, fpcr u32).
    fn read_registers(&self) -> Vec<u8>;
    /// Writes them back; ignores a short buffer's missing tail.
    fn write_registers(&self, data: &[u8]);
    fn pc(&self) -> Gva;
    fn set_pc(&self, pc: Gva);
    /// Reads memory through the current translation regime.
    ///
    /// # Errors
    /// [`BusError::Unassigned`] where no translation or memory is.
    fn read_memory(&self, address: Gva, data: &mut [u8]) -> Result<(), BusError>;
    /// Writes memory, also read-only one.
    ///
    /// # Errors
    /// As [`Self::read_memory`].
    fn write_memory(&self, address: Gva, data: &[u8]) -> Result<(), BusError>;
    /// Do break- and watchpoints and steps stop the guest? They do not under every accelerator.
    fn debugs(&self) -> bool;
    fn add_breakpoint(&self, address: Gva);
    fn remove_breakpoint(&self, address: Gva);
    fn add_watchpoint(&self, address: Gva, len: u64, kind: WatchKind);
    fn remove_watchpoint(&self, address: Gva, len: u64, kind: WatchKind);
    /// The next resume executes one instruction and reports [`DebugStop::Step`] through `VmControl::debug_stop`.
    fn set_single_step(&self, on: bool);
    /// Is the vCPU powered on and not halted? (thread listing)
    fn halted(&self) -> bool;
}
