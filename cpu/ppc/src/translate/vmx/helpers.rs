//! Helpers of the vector facility (Book I, chapter 6), which VSX uses too.

use crate::state::PpcCpu;
use crate::vector::{Operands, from_register, run, to_register};
use rhea_ir::Effects;

rhea_ir::helper_table! {
    cpu PpcCpu, base crate::helpers::VMX_BASE;
    /// A vector operation: args (number | immediate << 8, three vectors).
    PURE = pure, (I32, V128, V128, V128) -> V128, Effects::PURE;
    /// The same; sets VSCR.SAT, and CR6 if bit 30 is set; bit 31: denormals are flushed.
    STATE = state, (I32, V128, V128, V128) -> V128, Effects::WRITES_STATE;
    /// mtvscr: args (VRB's low word).
    SET_VSCR = set_vscr, (I32) -> Void, Effects::WRITES_STATE;
    /// VSCR.
    READ_VSCR = read_vscr, () -> I64, Effects::READS_STATE;
}

fn operands(cpu: &PpcCpu, desc: u32) -> Operands {
    let s = &cpu.header.scratch;
    Operands {
        a: from_register(s[0]),
        b: from_register(s[1]),
        c: from_register(s[2]),
        imm: desc >> 8 & 0x3f_ffff,
        flush: desc >> 31 != 0,
        ..Operands::default()
    }
}

extern "C" fn pure(cpu: &mut PpcCpu, desc: u64, _: u64, _: u64, _: u64) -> u64 {
    let mut o = operands(cpu, desc as u32);
    cpu.header.scratch[7] = to_register(run(desc as u32 & 0xff, &mut o));
    0
}

extern "C" fn state(cpu: &mut PpcCpu, desc: u64, _: u64, _: u64, _: u64) -> u64 {
    let mut o = operands(cpu, desc as u32);
    cpu.header.scratch[7] = to_register(run(desc as u32 & 0xff, &mut o));
    if o.sat {
        cpu.sat |= 1;
    }
    if let (Some(f), true) = (o.cr6, desc >> 30 & 1 != 0) {
        cpu.set_cr_field(6, f);
    }
    0
}

/// VSCR.NJ and SAT.
const NJ: u32 = 1 << 16;

extern "C" fn set_vscr(cpu: &mut PpcCpu, v: u64, _: u64, _: u64, _: u64) -> u64 {
    cpu.vscr = v as u32 & NJ;
    cpu.sat = u128::from(v & 1);
    cpu.rebuild_mode();
    0
}

extern "C" fn read_vscr(cpu: &mut PpcCpu, _: u64, _: u64, _: u64, _: u64) -> u64 {
    u64::from(cpu.vscr & NJ) | u64::from(cpu.sat != 0)
}
