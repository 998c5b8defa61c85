//! What SSE and AVX instructions call.

use crate::exception::Vector;
use crate::mmu::As;
use crate::mode::X86Mode;
use crate::state::X86Cpu;
use rhea_ir::Effects;

const BOTH: Effects = Effects::RAISES.union(Effects::WRITES_STATE);

crate::helpers! {
    base crate::helpers::SSE_BASE;
    /// After an instruction with an unmasked exception: args (sticky flags before it, flags of its own). #XM or #UD.
    FP_CHECK = fp_check, (I32, I32) -> Void, BOTH;
    /// [`RANGED`] and flags above it if overflow or underflow is unmasked: args (operands, which for fewer repeat the first;
    /// `aux` | `imm` << 32 of the operation).
    RANGE_FLAGS = range_flags, (V128, V128, V128, I64) -> I32, Effects::READS_STATE;
    /// Adds sticky flags to MXCSR: args (flags).
    FOLD_FLAGS = fold_flags, (I32) -> Void, Effects::WRITES_STATE;
    /// LDMXCSR: args (value). #GP(0) for reserved bits. Changes the mode.
    LOAD_MXCSR = load_mxcsr, (I32) -> Void, BOTH;
    /// Before an MMX instruction: #MF if an x87 exception waits.
    MMX_CHECK = mmx_check, () -> Void, BOTH;
    /// MASKMOVDQU: args (data, mask, linear address).
    MASK_MOVE_BYTES = mask_move_bytes, (V128, V128, I64) -> Void, BOTH;
    /// Args (mask, linear address, bytes of an element).
    MASKED_LOAD = masked_load, (V128, I64, I64) -> V128, BOTH;
    /// Args (data, mask, linear address, bytes of an element).
    MASKED_STORE = masked_store, (V128, V128, I64, I64) -> Void, BOTH;
    /// Args ([`Gather`], base and displacement).
    GATHER = gather, (I64, I64) -> Void, BOTH;
    /// EXTRQ: args (value, length | index << 8).
    EXTRACT_FIELD = extract_field, (I64, I64) -> I64, Effects::PURE;
    /// INSERTQ: args (value, field, length | index << 8).
    INSERT_FIELD = insert_field, (I64, I64, I64) -> I64, Effects::PURE;
    /// The length of a text from a register: args (value, words).
    TEXT_LENGTH = text_length, (I64, I64) -> I64, Effects::PURE;
    /// PCMPxSTRx: args (first, second, immediate | explicit << 8 | lengths << 16): IntRes2, index << 16, packed flags << 32.
    COMPARE_TEXT = compare_text, (V128, V128, I64) -> I64, Effects::PURE;
    /// Bits to bytes or words of ones: args (bits, words).
    EXPAND_MASK = expand_mask, (I64, I64) -> V128, Effects::PURE;
}

/// Bits of MXCSR.
pub mod mxcsr {
    /// Exception flags IE, DE, ZE, OE, UE, PE.
    pub const FLAGS: u32 = 0x3f;
    /// IE, DE, ZE: found before the operation.
    pub const EARLY: u32 = 7;
    pub const OVERFLOW: u32 = 8;
    pub const UNDERFLOW: u32 = 16;
    /// The masks, above the flags by this.
    pub const MASK_SHIFT: u32 = 7;
    /// What can be set (MXCSR_MASK).
    pub const WRITABLE: u32 = 0xffff;
}

impl X86Cpu {
    /// MXCSR with the sticky flags that generated code left. Within a helper those of the host's unit are missing: have
    /// [`FOLD_FLAGS`] called first (`Translator::fold_mxcsr`).
    #[must_use]
    pub fn mxcsr(&self) -> u32 {
        self.mxcsr | self.header.fp_flags & mxcsr::FLAGS
    }
    /// Sets all of MXCSR; the host's flags must have been cleared (`Op::FpFlagsClear`). Changes the mode.
    pub fn set_mxcsr(&mut self, v: u32) {
        self.header.fp_flags = 0;
        self.mxcsr = v & mxcsr::WRITABLE;
        self.rebuild_mode();
    }
}

extern "C" fn fp_check(cpu: &mut X86Cpu, before: u64, after: u64, _: u64, _: u64) -> u64 {
    let after = after as u32;
    let mut fresh = mxcsr::FLAGS & if after & RANGED != 0 { after >> RANGED_SHIFT } else { after };
    let unmasked = !(cpu.mxcsr >> mxcsr::MASK_SHIFT) & mxcsr::FLAGS;
    if fresh & unmasked & mxcsr::EARLY != 0 {
        fresh &= mxcsr::EARLY;
    }
    cpu.mxcsr |= before as u32 & mxcsr::FLAGS | fresh;
    if fresh & unmasked != 0 {
        // Without the operating system's consent it is an invalid opcode (CR4.OSXMMEXCPT).
        let vector = if cpu.cr4 & 1 << 10 != 0 { Vector::SimdFloatingPoint } else { Vector::InvalidOpcode };
        cpu.raise(vector, None);
    }
    0
}

/// Beside exception flags: those that count are [`RANGED_SHIFT`] bits higher.
const RANGED: u32 = 1 << 16;
const RANGED_SHIFT: u32 = 8;

/// With an unmasked underflow exact tiny results raise it too; with it or an unmasked overflow, "inexact" is said of the result
/// with an unbounded exponent (vol. 1, 4.9.1.4, 4.9.1.5).
extern "C" fn range_flags(cpu: &mut X86Cpu, _: u64, _: u64, _: u64, what: u64) -> u64 {
    let masked = cpu.mxcsr >> mxcsr::MASK_SHIFT;
    let traps = [masked & mxcsr::OVERFLOW == 0, masked & mxcsr::UNDERFLOW == 0];
    if traps == [false; 2] {
        return 0;
    }
    let x = [0, 1, 2].map(|n: usize| cpu.header.scratch[n]);
    let mode = X86Mode(cpu.header.mode).fp_mode();
    let flags = rhea_ir::fpeval::trapping_flags(what as u32, what >> 32, mode, traps, x);
    u64::from(RANGED | (flags & mxcsr::FLAGS) << RANGED_SHIFT)
}

extern "C" fn fold_flags(cpu: &mut X86Cpu, flags: u64, _: u64, _: u64, _: u64) -> u64 {
    cpu.mxcsr |= flags as u32 & mxcsr::FLAGS;
    0
}

extern "C" fn load_mxcsr(cpu: &mut X86Cpu, value: u64, _: u64, _: u64, _: u64) -> u64 {
    let v = value as u32;
    if v & !mxcsr::WRITABLE != 0 {
        cpu.raise(Vector::GeneralProtection, Some(0));
    } else {
        cpu.set_mxcsr(v);
    }
    0
}

extern "C" fn mmx_check(cpu: &mut X86Cpu, _: u64, _: u64, _: u64, _: u64) -> u64 {
    cpu.x87_wait();
    0
}

extern "C" fn mask_move_bytes(cpu: &mut X86Cpu, _: u64, _: u64, at: u64, _: u64) -> u64 {
    let (data, mask) = (cpu.header.scratch[0].to_le_bytes(), cpu.header.scratch[1].to_le_bytes());
    // The first page must be writable even if nothing is written to it, as processors have it.
    if cpu.probe_write(at, 1, As::Cpl).is_err() {
        return 0;
    }
    for n in 0..16u64 {
        if mask[n as usize] & 0x80 != 0
            && cpu.write_linear(at.wrapping_add(n), 1, u64::from(data[n as usize]), As::Cpl).is_err()
        {
            return 0;
        }
    }
    0
}

/// Bytes of an element: 4 or 8.
fn element(bytes: u64) -> (u32, u32) {
    if bytes == 8 { (8, 2) } else { (4, 4) }
}

extern "C" fn masked_load(cpu: &mut X86Cpu, _: u64, at: u64, bytes: u64, _: u64) -> u64 {
    let mask = cpu.header.scratch[0];
    let (size, count) = element(bytes);
    let mut r = 0u128;
    for n in 0..count {
        let bit = size * 8 * n;
        if mask >> (bit + size * 8 - 1) & 1 != 0 {
            let Ok(v) = cpu.read_linear(at.wrapping_add(u64::from(size * n)), size, As::Cpl) else { return 0 };
            r |= u128::from(v) << bit;
        }
    }
    cpu.header.scratch[7] = r;
    0
}

extern "C" fn masked_store(cpu: &mut X86Cpu, _: u64, _: u64, at: u64, bytes: u64) -> u64 {
    let (data, mask) = (cpu.header.scratch[0], cpu.header.scratch[1]);
    let (size, count) = element(bytes);
    for n in 0..count {
        let bit = size * 8 * n;
        if mask >> (bit + size * 8 - 1) & 1 != 0 {
            let v = (data >> bit) as u64 & (u64::MAX >> (64 - size * 8));
            if cpu.write_linear(at.wrapping_add(u64::from(size * n)), size, v, As::Cpl).is_err() {
                return 0;
            }
        }
    }
    0
}

/// What a gather does, packed into its helper's argument.
#[derive(Clone, Copy, Debug)]
pub struct Gather {
    pub dst: u8,
    pub mask: u8,
    pub index: u8,
    /// Bytes of an element and of an index.
    pub element: u8,
    pub index_bytes: u8,
    pub count: u8,
    pub scale: u8,
    /// Bits 0–2 segment register, 3: addresses of 32 bits, 4: the destination is a YMM register.
    pub flags: u8,
}

impl Gather {
    #[must_use]
    pub const fn pack(self) -> u64 {
        u64::from_le_bytes([
            self.dst,
            self.mask,
            self.index,
            self.element,
            self.index_bytes,
            self.count,
            self.scale,
            self.flags,
        ])
    }
    const fn unpack(v: u64) -> Gather {
        let [dst, mask, index, element, index_bytes, count, scale, flags] = v.to_le_bytes();
        Gather { dst: dst & 15, mask: mask & 15, index: index & 15, element, index_bytes, count, scale, flags }
    }
}

extern "C" fn gather(cpu: &mut X86Cpu, plan: u64, base: u64, _: u64, _: u64) -> u64 {
    let p = Gather::unpack(plan);
    let (size, _) = element(u64::from(p.element));
    let (index_size, _) = element(u64::from(p.index_bytes));
    let per_half = |bytes: u32| 16 / bytes;
    let long = cpu.header.mode & X86Mode(0).with_long(true).0 != 0;
    let seg = (p.flags & 7) as usize;
    let seg_base = if !long || seg >= 4 { cpu.seg.get(seg).map_or(0, |s| s.base) } else { 0 };
    let half = |cpu: &mut X86Cpu, reg: u8, n: u32, bytes: u32| -> u128 {
        if n < per_half(bytes) { cpu.xmm[reg as usize] } else { cpu.ymm_hi[reg as usize] }
    };
    for n in 0..u32::from(p.count.min(8)) {
        let bit = n % per_half(size) * size * 8;
        if half(cpu, p.mask, n, size) >> (bit + size * 8 - 1) & 1 != 0 {
            let raw = half(cpu, p.index, n, index_size) >> (n % per_half(index_size) * index_size * 8);
            let index = if index_size == 8 { raw as u64 } else { raw as u32 as i32 as i64 as u64 };
            let mut at = base.wrapping_add(index.wrapping_mul(u64::from(p.scale)));
            if p.flags & 8 != 0 {
                at &= 0xffff_ffff;
            }
            at = at.wrapping_add(seg_base);
            if !long {
                at &= 0xffff_ffff;
            }
            if long && seg == 2 && !cpu.canonical(at) {
                cpu.raise(Vector::StackFault, Some(0));
                return 0;
            }
            let Ok(v) = cpu.read_linear(at, size, As::Cpl) else { return 0 };
            let field = (u128::from(u64::MAX >> (64 - size * 8))) << bit;
            let low = n < per_half(size);
            let dst = if low { &mut cpu.xmm[p.dst as usize] } else { &mut cpu.ymm_hi[p.dst as usize] };
            *dst = *dst & !field | u128::from(v) << bit;
        }
        let field = u128::from(u64::MAX >> (64 - size * 8)) << bit;
        let low = n < per_half(size);
        let mask = if low { &mut cpu.xmm[p.mask as usize] } else { &mut cpu.ymm_hi[p.mask as usize] };
        *mask &= !field;
    }
    // What the elements do not fill is cleared, as is the mask.
    let used = u32::from(p.count) * size;
    if used < 16 {
        cpu.xmm[p.dst as usize] &= (1u128 << (used * 8)) - 1;
    }
    if p.flags & 16 == 0 {
        cpu.ymm_hi[p.dst as usize] = 0;
    }
    cpu.xmm[p.mask as usize] = 0;
    cpu.ymm_hi[p.mask as usize] = 0;
    0
}

fn field(control: u64) -> (u32, u64) {
    let len = control as u32 & 63;
    let index = (control >> 8) as u32 & 63;
    (index, if len == 0 { u64::MAX } else { (1 << len) - 1 })
}

extern "C" fn extract_field(_: &mut X86Cpu, v: u64, control: u64, _: u64, _: u64) -> u64 {
    let (index, mask) = field(control);
    v >> index & mask
}

extern "C" fn insert_field(_: &mut X86Cpu, v: u64, from: u64, control: u64, _: u64) -> u64 {
    let (index, mask) = field(control);
    v & !(mask << index) | (from & mask) << index
}

extern "C" fn text_length(_: &mut X86Cpu, v: u64, words: u64, _: u64, _: u64) -> u64 {
    (v as i64).unsigned_abs().min(if words != 0 { 8 } else { 16 })
}

extern "C" fn compare_text(cpu: &mut X86Cpu, _: u64, _: u64, control: u64, _: u64) -> u64 {
    let (a, b) = (cpu.header.scratch[0], cpu.header.scratch[1]);
    let imm = control as u8;
    let lengths = (control >> 8 & 1 != 0).then_some(((control >> 16) as usize & 0xff, (control >> 24) as usize & 0xff));
    super::compare::text(a, b, imm, lengths)
}

extern "C" fn expand_mask(cpu: &mut X86Cpu, bits: u64, words: u64, _: u64, _: u64) -> u64 {
    let width = if words != 0 { 16 } else { 8 };
    let mut r = 0u128;
    for n in 0..128 / width {
        if bits >> n & 1 != 0 {
            r |= ((1u128 << width) - 1) << (n * width);
        }
    }
    cpu.header.scratch[7] = r;
    0
}
