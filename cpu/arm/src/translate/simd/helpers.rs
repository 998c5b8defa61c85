//! Helpers of this part.

use crate::simd_helpers::{crypto, fp, int};
use rhea_ir::Effects;

/// May be shared, never removed: sticky flags or QC.
const STICKY: Effects = Effects::PURE.union(Effects::KEEP);

rhea_ir::helper_table! {
    cpu crate::state::ArmCpu, base crate::helpers::SIMD_BASE;
    /// Integer lanes: (descriptor, operands).
    INT1 = int::int_lanes, (I32, V128) -> V128, Effects::PURE;
    INT2 = int::int_lanes, (I32, V128, V128) -> V128, Effects::PURE;
    INT3 = int::int_lanes, (I32, V128, V128, V128) -> V128, Effects::PURE;
    /// The same with saturation.
    SAT1 = int::int_lanes, (I32, V128) -> V128, STICKY;
    SAT2 = int::int_lanes, (I32, V128, V128) -> V128, STICKY;
    SAT3 = int::int_lanes, (I32, V128, V128, V128) -> V128, STICKY;
    PMULL8 = crypto::pmull8, (V128, V128) -> V128, Effects::PURE;
    /// (signs, accumulator, a, b)
    MATRIX = int::matrix_entry, (I32, V128, V128, V128) -> V128, Effects::PURE;
    /// FP lanes: (descriptor, operands).
    FP1 = fp::fp_lanes, (I32, V128) -> V128, STICKY;
    FP2 = fp::fp_lanes, (I32, V128, V128) -> V128, STICKY;
    FP3 = fp::fp_lanes, (I32, V128, V128, V128) -> V128, STICKY;
    /// Lanes of another format: (descriptor, operands).
    CVT1 = fp::cvt_lanes, (I32, V128) -> V128, STICKY;
    CVT3 = fp::cvt_lanes, (I32, V128, V128, V128) -> V128, STICKY;
    HALF_CMP = fp::half_cmp, (I32, I32, I32) -> I32, STICKY;
    FP_TO_INT = fp::fp_to_int, (I32, I64, I32) -> I64, STICKY;
    INT_TO_FP = fp::int_to_half, (I32, I64) -> I32, STICKY;
    HALF_TO_S = fp::half_to_s, (I32) -> F32, STICKY;
    HALF_TO_D = fp::half_to_d, (I32) -> F64, STICKY;
    S_TO_HALF = fp::s_to_half, (F32) -> I32, STICKY;
    D_TO_HALF = fp::d_to_half, (F64) -> I32, STICKY;
    S_TO_BF16 = fp::s_to_bf16, (F32) -> I32, STICKY;
    D_TO_S_ODD = fp::d_to_s_odd, (F64) -> F32, STICKY;
    JAVASCRIPT_INT = fp::javascript_int, (F64) -> I64, STICKY;
    SHA1C = crypto::sha1c, (V128, I32, V128) -> V128, Effects::PURE;
    SHA1P = crypto::sha1p, (V128, I32, V128) -> V128, Effects::PURE;
    SHA1M = crypto::sha1m, (V128, I32, V128) -> V128, Effects::PURE;
    SHA1SU0 = crypto::sha1su0, (V128, V128, V128) -> V128, Effects::PURE;
    SHA1SU1 = crypto::sha1su1, (V128, V128) -> V128, Effects::PURE;
    SHA512H = crypto::sha512h, (V128, V128, V128) -> V128, Effects::PURE;
    SHA512H2 = crypto::sha512h2, (V128, V128, V128) -> V128, Effects::PURE;
    SHA512SU0 = crypto::sha512su0, (V128, V128) -> V128, Effects::PURE;
    SHA512SU1 = crypto::sha512su1, (V128, V128, V128) -> V128, Effects::PURE;
    SM3SS1 = crypto::sm3ss1, (V128, V128, V128) -> V128, Effects::PURE;
    SM3TT1A = crypto::sm3tt1a, (V128, V128, V128, I32) -> V128, Effects::PURE;
    SM3TT1B = crypto::sm3tt1b, (V128, V128, V128, I32) -> V128, Effects::PURE;
    SM3TT2A = crypto::sm3tt2a, (V128, V128, V128, I32) -> V128, Effects::PURE;
    SM3TT2B = crypto::sm3tt2b, (V128, V128, V128, I32) -> V128, Effects::PURE;
    SM3PARTW1 = crypto::sm3partw1, (V128, V128, V128) -> V128, Effects::PURE;
    SM3PARTW2 = crypto::sm3partw2, (V128, V128, V128) -> V128, Effects::PURE;
    SM4E = crypto::sm4e, (V128, V128) -> V128, Effects::PURE;
    SM4EKEY = crypto::sm4ekey, (V128, V128) -> V128, Effects::PURE;
    PMUL = crypto::pmul, (V128, V128) -> V128, Effects::PURE;
}
