//! Translation of FP and AdvSIMD instructions (Arm ARM, C4.1 "Data processing — scalar floating-point and Advanced
//! SIMD", and the Advanced SIMD loads and stores).
//!
//! Each family function returns `None` for an unallocated encoding. Writes of anything narrower than 128 bits zero the
//! rest of the register. Operands of FP vector operations have their unused lanes zeroed, so that these raise no flag.

mod access;
mod bf16;
mod complex;
mod crypto;
mod fp_vector;
pub mod helpers;
mod int_ops;
mod misc;
mod permute;
mod scalar;
mod structures;

use super::{Flow, Insn, Pattern, Translator, pat};
use crate::config::Feature;

/// Whether an encoding is allocated.
type Done = Option<()>;

fn flow(done: Done) -> Flow {
    if done.is_some() { Flow::Next } else { Flow::Undef }
}

macro_rules! rows {
    ($($name:literal $bits:literal $f:expr $(, $feature:ident)?;)*) => {
        &[$(pat($name, $bits, |t: &mut Translator, i: Insn| flow($f(t, i))).fp()$(.needs(Feature::$feature))?,)*]
    };
}

static SCALAR: &[Pattern] = rows! {
    "fp_fixed" "sf 0 0 11110 ptype:2 0 rmode:2 opcode:3 scale:6 Rn:5 Rd:5" scalar::fixed;
    "fp_integer" "sf 0 0 11110 ptype:2 1 rmode:2 opcode:3 000000 Rn:5 Rd:5" scalar::integer;
    "fp_one_source" "0 0 0 11110 ptype:2 1 opcode:6 10000 Rn:5 Rd:5" scalar::one_source;
    "fp_compare" "0 0 0 11110 ptype:2 1 Rm:5 00 1000 Rn:5 E zero 000" scalar::compare;
    "fp_immediate" "0 0 0 11110 ptype:2 1 imm8:8 100 00000 Rd:5" scalar::immediate;
    "fp_ccmp" "0 0 0 11110 ptype:2 1 Rm:5 cond:4 01 Rn:5 E nzcv:4" scalar::conditional_compare;
    "fp_two_source" "0 0 0 11110 ptype:2 1 Rm:5 opcode:4 10 Rn:5 Rd:5" scalar::two_source;
    "fp_csel" "0 0 0 11110 ptype:2 1 Rm:5 cond:4 11 Rn:5 Rd:5" scalar::conditional_select;
    "fp_three_source" "0 0 0 11111 ptype:2 o1 Rm:5 o0 Ra:5 Rn:5 Rd:5" scalar::three_source;
};

static VECTOR: &[Pattern] = rows! {
    "simd_table" "0 Q 001110 op2:2 0 Rm:5 0 len:2 op 00 Rn:5 Rd:5" permute::table;
    "simd_permute" "0 Q 001110 size:2 0 Rm:5 0 opcode:3 10 Rn:5 Rd:5" permute::permute;
    "simd_extract" "0 Q 101110 op2:2 0 Rm:5 0 imm4:4 0 Rn:5 Rd:5" permute::extract;
    "simd_copy" "0 Q op 01110000 imm5:5 0 imm4:4 1 Rn:5 Rd:5" permute::copy;
    "simd_three_same_fp16" "0 Q U 01110 a 10 Rm:5 00 opcode:3 1 Rn:5 Rd:5" fp_vector::three_same_fp16, Fp16;
    "simd_two_reg_fp16" "0 Q U 01110 a 111100 opcode:5 10 Rn:5 Rd:5" fp_vector::two_reg_fp16, Fp16;
    "simd_three_same_extra" "0 Q U 01110 size:2 0 Rm:5 1 opcode:4 1 Rn:5 Rd:5" int_ops::three_same_extra;
    "simd_two_reg" "0 Q U 01110 size:2 10000 opcode:5 10 Rn:5 Rd:5" misc::two_reg;
    "simd_across" "0 Q U 01110 size:2 11000 opcode:5 10 Rn:5 Rd:5" int_ops::across;
    "simd_three_different" "0 Q U 01110 size:2 1 Rm:5 opcode:4 00 Rn:5 Rd:5" int_ops::three_different;
    "simd_three_same" "0 Q U 01110 size:2 1 Rm:5 opcode:5 1 Rn:5 Rd:5" int_ops::three_same;
    "simd_immediate" "0 Q op 0111100000 abc:3 cmode:4 o2 1 defgh:5 Rd:5" misc::modified_immediate;
    "simd_shift_imm" "0 Q U 011110 immh:4 immb:3 opcode:5 1 Rn:5 Rd:5" |t: &mut Translator, i| misc::shift_imm(t, i, false);
    "simd_element" "0 Q U 01111 size:2 L M Rm:4 opcode:4 H 0 Rn:5 Rd:5" |t: &mut Translator, i| int_ops::by_element(t, i, false);
};

static VECTOR_SCALAR: &[Pattern] = rows! {
    "scalar_copy" "01 0 11110000 imm5:5 0 0000 1 Rn:5 Rd:5" permute::scalar_copy;
    "scalar_three_same_fp16" "01 U 11110 a 10 Rm:5 00 opcode:3 1 Rn:5 Rd:5" fp_vector::scalar_three_same_fp16, Fp16;
    "scalar_two_reg_fp16" "01 U 11110 a 111100 opcode:5 10 Rn:5 Rd:5" fp_vector::scalar_two_reg_fp16, Fp16;
    "scalar_three_same_extra" "01 U 11110 size:2 0 Rm:5 1 opcode:4 1 Rn:5 Rd:5" int_ops::scalar_three_same_extra;
    "scalar_two_reg" "01 U 11110 size:2 10000 opcode:5 10 Rn:5 Rd:5" misc::scalar_two_reg;
    "scalar_pairwise" "01 U 11110 size:2 11000 opcode:5 10 Rn:5 Rd:5" fp_vector::scalar_pairwise;
    "scalar_three_different" "01 U 11110 size:2 1 Rm:5 opcode:4 00 Rn:5 Rd:5" int_ops::scalar_three_different;
    "scalar_three_same" "01 U 11110 size:2 1 Rm:5 opcode:5 1 Rn:5 Rd:5" int_ops::scalar_three_same;
    "scalar_shift_imm" "01 U 111110 immh:4 immb:3 opcode:5 1 Rn:5 Rd:5" |t: &mut Translator, i| misc::shift_imm(t, i, true);
    "scalar_element" "01 U 11111 size:2 L M Rm:4 opcode:4 H 0 Rn:5 Rd:5" |t: &mut Translator, i| int_ops::by_element(t, i, true);
};

static CRYPTO: &[Pattern] = rows! {
    "aes" "01001110 size:2 10100 opcode:5 10 Rn:5 Rd:5" crypto::aes;
    "sha_three" "01011110 size:2 0 Rm:5 0 opcode:3 00 Rn:5 Rd:5" crypto::sha_three;
    "sha_two" "01011110 size:2 10100 opcode:5 10 Rn:5 Rd:5" crypto::sha_two;
    "sha512_three" "11001110011 Rm:5 1 O 00 opcode:2 Rn:5 Rd:5" crypto::sha512_three;
    "sha512_two" "11001110110000001000 opcode:2 Rn:5 Rd:5" crypto::sha512_two;
    "crypto_four" "110011100 Op0:2 Rm:5 0 Ra:5 Rn:5 Rd:5" crypto::four_registers;
    "xar" "11001110100 Rm:5 imm6:6 Rn:5 Rd:5" crypto::xor_rotate, Sha3;
    "sm3tt" "11001110010 Rm:5 10 imm2:2 opcode:2 Rn:5 Rd:5" crypto::sm3tt, Sm3;
};

static STRUCTURES: &[Pattern] = rows! {
    "ldst_multiple" "0 Q 0011000 L 000000 opcode:4 size:2 Rn:5 Rt:5" structures::multiple;
    "ldst_multiple_post" "0 Q 0011001 L 0 Rm:5 opcode:4 size:2 Rn:5 Rt:5" structures::multiple;
    "ldst_single" "0 Q 0011010 L R 00000 opcode:3 S size:2 Rn:5 Rt:5" structures::single;
    "ldst_single_post" "0 Q 0011011 L R Rm:5 opcode:3 S size:2 Rn:5 Rt:5" structures::single;
};

/// The tables of FP and AdvSIMD families.
pub fn tables() -> Vec<&'static [Pattern]> {
    vec![SCALAR, VECTOR, VECTOR_SCALAR, CRYPTO, STRUCTURES]
}
