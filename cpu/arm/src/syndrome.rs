//! Exception syndromes (ESR_ELx), DDI 0487 D24.2 "ESR_EL1".

/// Instruction length bit.
pub const IL: u64 = 1 << 25;

/// Exception classes.
pub mod ec {
    pub const UNKNOWN: u64 = 0x00;
    pub const WFX: u64 = 0x01;
    pub const FP_ACCESS: u64 = 0x07;
    pub const PAC_TRAP: u64 = 0x09;
    pub const BTI: u64 = 0x0d;
    pub const ILLEGAL_STATE: u64 = 0x0e;
    pub const SVC: u64 = 0x15;
    pub const HVC: u64 = 0x16;
    pub const SMC: u64 = 0x17;
    pub const SYSREG: u64 = 0x18;
    pub const PAC_FAIL: u64 = 0x1c;
    pub const INSN_ABORT_LOWER: u64 = 0x20;
    pub const INSN_ABORT: u64 = 0x21;
    pub const PC_ALIGNMENT: u64 = 0x22;
    pub const DATA_ABORT_LOWER: u64 = 0x24;
    pub const DATA_ABORT: u64 = 0x25;
    pub const SP_ALIGNMENT: u64 = 0x26;
    pub const SERROR: u64 = 0x2f;
    pub const BREAKPOINT_LOWER: u64 = 0x30;
    pub const STEP_LOWER: u64 = 0x32;
    pub const WATCHPOINT_LOWER: u64 = 0x34;
    pub const BRK: u64 = 0x3c;
}

/// A syndrome of a 32-bit instruction.
pub const fn syndrome(class: u64, iss: u64) -> u64 {
    (class << 26) | IL | (iss & 0x1ff_ffff)
}

/// EC 0x18: trapped MSR, MRS or system instruction.
pub const fn sysreg(enc: u16, rt: u32, read: bool) -> u64 {
    let e = enc as u64;
    let (op0, op1, crn, crm, op2) = (e >> 14, (e >> 11) & 7, (e >> 7) & 15, (e >> 3) & 15, e & 7);
    syndrome(
        ec::SYSREG,
        (op0 << 20) | (op2 << 17) | (op1 << 14) | (crn << 10) | ((rt as u64 & 31) << 5) | (crm << 1) | read as u64,
    )
}

/// EC 0x01: WFI 0, WFE 1, WFIT 2, WFET 3; `rn` is the timeout's register.
pub const fn wfx(kind: u64, rn: Option<u32>) -> u64 {
    let cond = (1 << 24) | (0xe << 20);
    let rv = match rn {
        Some(n) => ((n as u64 & 31) << 5) | (1 << 2),
        None => 0,
    };
    syndrome(ec::WFX, cond | rv | kind)
}

/// EC 0x07 with no condition information beyond "always".
pub const FP_ACCESS: u64 = syndrome(ec::FP_ACCESS, (1 << 24) | (0xe << 20));

/// Fields of an abort's ISS.
pub mod iss {
    pub const WNR: u64 = 1 << 6;
    pub const S1PTW: u64 = 1 << 7;
    pub const CM: u64 = 1 << 8;
    pub const EA: u64 = 1 << 9;
    pub const FNV: u64 = 1 << 10;
    pub const ISV: u64 = 1 << 24;
}

/// The instruction syndrome (ISS[24:14]) of the load or store `insn` for a stage 2 data abort: valid for loads and stores of one
/// general-purpose register without write-back, 0 (ISV clear) otherwise.
pub const fn isv(insn: u32) -> u64 {
    let rt = (insn & 31) as u64;
    let size = (insn >> 30) as u64;
    let opc = (insn >> 22) & 3;
    let (sas, sse, sf, ar);
    if insn & 0x3b00_0000 == 0x3900_0000
        || insn & 0x3b20_0c00 == 0x3800_0000
        || insn & 0x3b20_0c00 == 0x3800_0800
        || insn & 0x3b20_0c00 == 0x3820_0800
    {
        // Unsigned offset, unscaled, unprivileged, register offset. Prefetches and SIMD give none.
        if insn & (1 << 26) != 0 || (size == 3 && opc >= 2) || (size == 2 && opc == 3) {
            return 0;
        }
        sas = size;
        sse = (opc >= 2) as u64;
        sf = if opc >= 2 { (opc == 2) as u64 } else { (size == 3) as u64 };
        ar = 0;
    } else if insn & 0x3f80_0000 == 0x0880_0000 && insn & (1 << 21) == 0 {
        // LDAR, STLR, LDLAR, STLLR.
        sas = size;
        sse = 0;
        sf = (size == 3) as u64;
        ar = (insn >> 15) as u64 & 1;
    } else if insn & 0x3b20_0c00 == 0x1900_0000 && insn & (1 << 26) == 0 {
        // LDAPUR, STLUR.
        if (size == 3 && opc >= 2) || (size == 2 && opc == 3) {
            return 0;
        }
        sas = size;
        sse = (opc >= 2) as u64;
        sf = if opc >= 2 { (opc == 2) as u64 } else { (size == 3) as u64 };
        ar = 1;
    } else if insn & 0x3fff_fc00 == 0x38bf_c000 {
        // LDAPR.
        sas = size;
        sse = 0;
        sf = (size == 3) as u64;
        ar = 1;
    } else {
        return 0;
    }
    iss::ISV | (sas << 22) | (sse << 21) | (rt << 16) | (sf << 15) | (ar << 14)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instruction_syndrome() {
        // ldr x3, [x1, #8]
        assert_eq!(isv(0xf940_0423), iss::ISV | (3 << 22) | (3 << 16) | (1 << 15));
        // ldrsb w5, [x2]
        assert_eq!(isv(0x39c0_0045), iss::ISV | (1 << 21) | (5 << 16));
        // str w7, [x0, x1]
        assert_eq!(isv(0xb821_6807), iss::ISV | (2 << 22) | (7 << 16));
        // ldr x0, [x1], #8 and ldp x0, x1, [x2] and ldr q0, [x1]
        assert_eq!(isv(0xf840_8420), 0);
        assert_eq!(isv(0xa940_0440), 0);
        assert_eq!(isv(0x3dc0_0020), 0);
        // ldar w0, [x1]
        assert_eq!(isv(0x88df_fc20), iss::ISV | (2 << 22) | (1 << 14));
    }
}
