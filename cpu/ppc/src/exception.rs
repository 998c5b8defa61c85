//! Interrupts (Book III, chapter 7).

use crate::bits::msr;
use crate::spr;
use crate::state::PpcCpu;

/// Effective address of an interrupt vector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Vector {
    SystemReset = 0x100,
    MachineCheck = 0x200,
    DataStorage = 0x300,
    DataSegment = 0x380,
    InstructionStorage = 0x400,
    InstructionSegment = 0x480,
    External = 0x500,
    Alignment = 0x600,
    Program = 0x700,
    FpUnavailable = 0x800,
    Decrementer = 0x900,
    Doorbell = 0xa00,
    SystemCall = 0xc00,
    Trace = 0xd00,
    PerformanceMonitor = 0xf00,
    VectorUnavailable = 0xf20,
    VsxUnavailable = 0xf40,
    FacilityUnavailable = 0xf60,
}

/// Causes of a program interrupt, as SRR1 has them.
pub mod program {
    pub const FP: u64 = 1 << 20;
    pub const ILLEGAL: u64 = 1 << 19;
    pub const PRIVILEGED: u64 = 1 << 18;
    pub const TRAP: u64 = 1 << 17;
}

impl PpcCpu {
    /// Takes an interrupt whose SRR0 is `return_to`, with `cause` in SRR1. Inside a helper it leaves the region.
    pub fn take_interrupt(&mut self, vector: Vector, return_to: u64, cause: u64) {
        self.spr[spr::SRR0 as usize] = return_to;
        self.spr[spr::SRR1 as usize] = self.msr & !0x783f_0000 | cause;
        self.msr = self.msr & (msr::ME | msr::LE | msr::HV) | msr::SF;
        self.header.pc = vector as u64;
        self.header.raised = 1;
        self.rebuild_mode();
    }
    /// The same for an interrupt caused by the current instruction.
    pub fn raise(&mut self, vector: Vector, cause: u64) {
        self.take_interrupt(vector, self.header.pc, cause);
    }
}
