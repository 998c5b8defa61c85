//! The architectural state of one processor.

use crate::config::ArmConfig;
use crate::reg::Reg;
use rhea_ir::EnvHeader;
use rhea_ir::guest::TlbFlush;
use std::sync::Arc;

/// One AArch64 processor. Generated code reaches it through [`slots`].
#[repr(C)]
pub struct ArmCpu {
    pub header: EnvHeader,
    pub x: [u64; 31],
    /// The current stack pointer; the banked ones are in `sp_el`.
    pub sp: u64,
    pub v: [u128; 32],
    /// FPSR.QC: set if any bit is.
    pub qc: u128,
    /// Packed flags: bit 15 N, 14 Z, 8 C, 0 V.
    pub nzcv: u32,
    /// PSTATE.BTYPE, 0–3.
    pub btype: u32,
    /// PSTATE except NZCV and BTYPE, in SPSR layout (M, DAIF, SSBS, IL, SS, PAN, UAO, DIT).
    pub pstate: u32,
    /// Cumulative exception bits of FPSR that were folded in (not QC; see also `EnvHeader::fp_flags`).
    pub fpsr: u32,
    pub fpcr: u32,
    /// Size in bytes of the exclusive reservation, 0: the monitor is open.
    pub excl_size: u32,
    pub excl_addr: u64,
    /// The value loaded by the exclusive load, zero-extended; `excl_hi` the second register of a pair.
    pub excl_lo: u64,
    pub excl_hi: u64,
    pub tpidr_el0: u64,
    pub tpidrro_el0: u64,
    pub tpidr_el1: u64,
    pub tpidr_el2: u64,
    pub tpidr_el3: u64,
    pub tpidr2_el0: u64,
    /// SP_EL0..SP_EL3; the entry of the stack pointer in use is stale.
    pub sp_el: [u64; 4],
    /// Pointer authentication keys: IA, IB, DA, DB, GA, each (lo, hi).
    pub keys: [[u64; 2]; 5],
    /// System registers kept as plain values.
    pub sys: [u64; Reg::COUNT],
    pub config: Arc<ArmConfig>,
    pub(crate) flushes: Vec<(TlbFlush, bool)>,
}

/// Guest state that generated code reads and writes.
pub mod slots {
    use super::ArmCpu;
    use rhea_ir::{Slot, Type};
    use std::mem::offset_of;

    /// X0–X30.
    pub const fn x(n: u32) -> Slot {
        assert!(n < 31);
        Slot::new(offset_of!(ArmCpu, x) + 8 * n as usize, Type::I64)
    }
    /// V0–V31.
    pub const fn v(n: u32) -> Slot {
        assert!(n < 32);
        Slot::new(offset_of!(ArmCpu, v) + 16 * n as usize, Type::V128)
    }
    /// The current stack pointer.
    pub const SP: Slot = Slot::new(offset_of!(ArmCpu, sp), Type::I64);
    /// Packed flags.
    pub const NZCV: Slot = Slot::new(offset_of!(ArmCpu, nzcv), Type::I32);
    pub const BTYPE: Slot = Slot::new(offset_of!(ArmCpu, btype), Type::I32);
    /// FPSR.QC: saturation ORs any non-zero pattern into it.
    pub const QC: Slot = Slot::new(offset_of!(ArmCpu, qc), Type::V128);
    /// Read-only to generated code.
    pub const FPCR: Slot = Slot::new(offset_of!(ArmCpu, fpcr), Type::I32);
    pub const EXCL_SIZE: Slot = Slot::new(offset_of!(ArmCpu, excl_size), Type::I32);
    pub const EXCL_ADDR: Slot = Slot::new(offset_of!(ArmCpu, excl_addr), Type::I64);
    pub const EXCL_LO: Slot = Slot::new(offset_of!(ArmCpu, excl_lo), Type::I64);
    pub const EXCL_HI: Slot = Slot::new(offset_of!(ArmCpu, excl_hi), Type::I64);
    pub const TPIDR_EL0: Slot = Slot::new(offset_of!(ArmCpu, tpidr_el0), Type::I64);
    pub const TPIDRRO_EL0: Slot = Slot::new(offset_of!(ArmCpu, tpidrro_el0), Type::I64);
    pub const TPIDR_EL1: Slot = Slot::new(offset_of!(ArmCpu, tpidr_el1), Type::I64);
    pub const TPIDR_EL2: Slot = Slot::new(offset_of!(ArmCpu, tpidr_el2), Type::I64);
    pub const TPIDR_EL3: Slot = Slot::new(offset_of!(ArmCpu, tpidr_el3), Type::I64);
}
