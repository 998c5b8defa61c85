//! The operations: one table that the verifier, printer, parser, interpreter and back ends share.

/// Condition codes for [`Op::ICmp`] (integer compare) and [`Op::CondFlags`] (test of packed flags).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Cond {
    Eq,
    Ne,
    Ult,
    Ule,
    Ugt,
    Uge,
    Slt,
    Sle,
    Sgt,
    Sge,
    /// Sign set (flags: N).
    Mi,
    /// Sign clear.
    Pl,
    /// Overflow set.
    Vs,
    /// Overflow clear.
    Vc,
    /// Flags only: C or Z set, where C is a carry or borrow. An integer compare has Ule for it.
    CsOrZ,
    /// Flags: neither C nor Z set.
    CcAndNz,
    /// Flags: P set.
    Ps,
    /// Flags: P clear.
    Pc,
}

impl Cond {
    pub const ALL: [Cond; 18] = [
        Cond::Eq,
        Cond::Ne,
        Cond::Ult,
        Cond::Ule,
        Cond::Ugt,
        Cond::Uge,
        Cond::Slt,
        Cond::Sle,
        Cond::Sgt,
        Cond::Sge,
        Cond::Mi,
        Cond::Pl,
        Cond::Vs,
        Cond::Vc,
        Cond::CsOrZ,
        Cond::CcAndNz,
        Cond::Ps,
        Cond::Pc,
    ];
    pub fn from_u32(v: u32) -> Cond {
        Cond::ALL[(v as usize).min(17)]
    }
    pub const fn invert(self) -> Cond {
        match self {
            Cond::Eq => Cond::Ne,
            Cond::Ne => Cond::Eq,
            Cond::Ult => Cond::Uge,
            Cond::Ule => Cond::Ugt,
            Cond::Ugt => Cond::Ule,
            Cond::Uge => Cond::Ult,
            Cond::Slt => Cond::Sge,
            Cond::Sle => Cond::Sgt,
            Cond::Sgt => Cond::Sle,
            Cond::Sge => Cond::Slt,
            Cond::Mi => Cond::Pl,
            Cond::Pl => Cond::Mi,
            Cond::Vs => Cond::Vc,
            Cond::Vc => Cond::Vs,
            Cond::CsOrZ => Cond::CcAndNz,
            Cond::CcAndNz => Cond::CsOrZ,
            Cond::Ps => Cond::Pc,
            Cond::Pc => Cond::Ps,
        }
    }
    /// The condition with its operands swapped (integer compares only).
    pub const fn swap(self) -> Cond {
        match self {
            Cond::Ult => Cond::Ugt,
            Cond::Ule => Cond::Uge,
            Cond::Ugt => Cond::Ult,
            Cond::Uge => Cond::Ule,
            Cond::Slt => Cond::Sgt,
            Cond::Sle => Cond::Sge,
            Cond::Sgt => Cond::Slt,
            Cond::Sge => Cond::Sle,
            c => c,
        }
    }
}

/// `aux` of flags of integers: P and A too.
pub const P_AND_A: u32 = 1;

/// Variants of floating-point arithmetic, for guests with [`crate::guest::NanRule::Ppc`].
pub mod fp_imm {
    /// F64 only: rounded once, to single precision ([`rhea_float::round_to_single`]).
    pub const SINGLE: u64 = 1;
    /// FMulAdd: the addend is subtracted. A NaN keeps its sign.
    pub const NEGATE_ADDEND: u64 = 2;
    /// FMulAdd: the rounded result is negated, unless it is NaN.
    pub const NEGATE_RESULT: u64 = 4;
}

/// What an operation may do besides computing its result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// A function of its arguments only: may be removed, shared, moved.
    Pure,
    /// Floating point: a function of its arguments and the FP mode that also raises sticky flags.
    Fp,
    /// Reads a slot.
    Slot,
    /// Reads or writes guest memory, may fault; carries a state map.
    Mem,
    /// Has an effect, cannot fault.
    Effect,
    /// Calls a helper: effects as its descriptor says.
    Call,
}

macro_rules! ops {
    ($($(#[$doc:meta])* $name:ident $text:literal $arity:literal $class:ident;)*) => {
        /// An operation. Arguments are `args[0..arity]`; `aux` and `imm` are described per operation.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Op { $($(#[$doc])* $name,)* }
        impl Op {
            pub const ALL: &'static [Op] = &[$(Op::$name,)*];
            pub const fn name(self) -> &'static str { match self { $(Op::$name => $text,)* } }
            /// Number of value arguments ([`Op::Call`] takes as many as its helper says, up to 4).
            pub const fn arity(self) -> usize { match self { $(Op::$name => $arity,)* } }
            pub const fn class(self) -> Class { match self { $(Op::$name => Class::$class,)* } }
            pub fn from_name(s: &str) -> Option<Op> { match s { $($text => Some(Op::$name),)* _ => None } }
        }
    };
}

ops! {
    /// Block parameter.
    Param "param" 0 Effect;
    /// Constant of type Bool, I32, I64, F32 or F64: bits in `imm`.
    Const "const" 0 Pure;
    /// 128-bit constant: `imm` is an index into [`crate::Function::consts`].
    ConstV "constv" 0 Pure;
    /// Reads guest state at offset `imm`.
    GetSlot "get" 0 Slot;
    /// Copy of the argument (left by passes; removed by [`crate::promote`]).
    Copy "copy" 1 Pure;

    // Integer, on I32 and I64; result type = argument type.
    Add "add" 2 Pure;
    /// `a + b + carry`: args (a, b, Bool).
    Adc "adc" 3 Pure;
    Sub "sub" 2 Pure;
    Mul "mul" 2 Pure;
    /// High half of the signed 64×64 product (I64).
    SMulHi "smulhi" 2 Pure;
    UMulHi "umulhi" 2 Pure;
    /// Signed division; division by zero gives 0, MIN/-1 gives MIN.
    SDiv "sdiv" 2 Pure;
    UDiv "udiv" 2 Pure;
    And "and" 2 Pure;
    Or "or" 2 Pure;
    Xor "xor" 2 Pure;
    /// `a & !b`.
    AndNot "andnot" 2 Pure;
    /// Shifts and rotate: the amount (same type) is taken modulo the width.
    Shl "shl" 2 Pure;
    Shr "shr" 2 Pure;
    Sar "sar" 2 Pure;
    Rotr "rotr" 2 Pure;
    Not "not" 1 Pure;
    Neg "neg" 1 Pure;
    /// Leading zeros (width for 0).
    Clz "clz" 1 Pure;
    /// Trailing zeros (width for 0).
    Ctz "ctz" 1 Pure;
    Popcnt "popcnt" 1 Pure;
    Bswap "bswap" 1 Pure;
    /// Byte swap inside each 16-bit half.
    Bswap16 "bswap16" 1 Pure;
    Bitrev "bitrev" 1 Pure;
    /// `(hi:lo) >> imm` truncated to the type: args (hi, lo), `imm` < width.
    Extr "extr" 2 Pure;
    /// args[0] with a field replaced by the low bits of args[1]: `imm` = lowest bit | width << 8 (width + lowest bit <= 64).
    Deposit "deposit" 2 Pure;
    /// Sign-extend the low `imm` bits (8, 16 or 32) within the type.
    Sext "sext" 1 Pure;
    /// Zero-extend the low `imm` bits (8, 16 or 32) within the type.
    Zext "zext" 1 Pure;
    /// I32 → I64.
    Zext64 "zext64" 1 Pure;
    Sext64 "sext64" 1 Pure;
    /// I64 → I32.
    Trunc "trunc" 1 Pure;
    /// Bool → I32 or I64.
    FromBool "frombool" 1 Pure;
    /// I32/I64 → Bool: value != 0.
    ToBool "tobool" 1 Pure;
    /// Compare; `aux` is a [`Cond`] (Eq..Sge); result Bool.
    ICmp "icmp" 2 Pure;
    /// Bool logic: And/Or/Xor on Bool are allowed too; this is `!a`.
    BoolNot "boolnot" 1 Pure;
    /// `cond ? a : b`, any type: args (Bool, a, b).
    Select "select" 3 Pure;
    /// (I64 lo, I64 hi) → I128.
    Concat "concat" 2 Pure;
    /// I128 → I64.
    Lo64 "lo64" 1 Pure;
    Hi64 "hi64" 1 Pure;

    // Packed flags (I32): bit 15 N, 14 Z, 8 C, 0 V; all other bits zero. For integer operands `imm` is their width: 0 that of
    // the type, or 8 or 16, then the bits above are not looked at. With `aux` [`P_AND_A`], not for FlagsSub: bit 10 P, the low byte of
    // the result has an even number of ones, and 12 A, there is a carry or borrow from bit 3 (none of FlagsLogic).
    /// Flags of `a + b + carry`: args (a, b, Bool).
    FlagsAdc "flags_adc" 3 Pure;
    /// Flags of `a - b` with C = no borrow.
    FlagsSub "flags_sub" 2 Pure;
    /// Flags of `a - b` with C = borrow.
    FlagsCmp "flags_cmp" 2 Pure;
    /// Flags of `a - b - borrow` with C = borrow: args (a, b, Bool).
    FlagsSbb "flags_sbb" 3 Pure;
    /// Flags of `a + b`.
    FlagsAdd "flags_add" 2 Pure;
    /// N and Z of the value, C = V = 0.
    FlagsLogic "flags_logic" 1 Pure;
    /// FP compare: less N, equal Z and C, greater C, unordered C and V. `aux` 1: signalling (quiet NaN raises invalid).
    FlagsFCmp "flags_fcmp" 2 Fp;
    /// FP compare of the lowest lanes of two vectors as x86 has it: less C, equal Z, greater none, unordered Z, C and P (bit 10). `aux`
    /// bit 0: doubles, bit 1: signalling.
    FlagsFCom "flags_fcom" 2 Fp;
    /// Z if `a & b` is zero, C if `b & !a` is. `aux` 0: of all bits, 1: of the top bits of singles, 2: of doubles.
    FlagsVTest "flags_vtest" 2 Pure;
    /// Tests packed flags: `aux` is a [`Cond`] with unsigned conditions reading C as "no borrow".
    CondFlags "cond" 1 Pure;

    // Orders (I64): what a compare found, for architectures that keep less, greater and equal and not how the compare was made.
    // Less: bit 63 is set; equal: the low 32 bits are zero; greater: bit 62 is clear, and any bit below bit 63 is set.
    /// Of two integers, `aux` 0: signed, 1: unsigned. For I32 their difference, for I64 1, 0 or -1.
    Order "order" 2 Pure;
    /// Of three Bools (less, greater, equal), in any combination.
    OrderOf "order_of" 3 Pure;
    /// Tests an order: `aux` is a [`Cond`], Eq, Ne, Slt (less), Sge (not less), Sgt (greater), Sle (not greater).
    OrderIs "order_is" 1 Pure;

    /// Packed flags from bits 31..28 (N Z C V) of an I32.
    FlagsFromNzcv "flags_from_nzcv" 1 Pure;
    /// Bits 31..28 (N Z C V) from packed flags.
    FlagsToNzcv "flags_to_nzcv" 1 Pure;

    // Guest memory. `aux` = MemOp; address = args[0] + imm (I64, wrapping). Carry a state map.
    /// Result I32/I64 (extended), F32, F64, I128 or V128.
    Load "load" 1 Mem;
    /// args (address, value).
    Store "store" 2 Mem;
    /// Atomic read-modify-write: args (address, value); returns the old value, zero-extended.
    Rmw "rmw" 2 Mem;
    /// Compare and swap: args (address, expected, new); returns the old value, zero-extended.
    Cas "cas" 3 Mem;
    /// Fails like a store to args[0]+imm of the MemOp's size would, stores nothing.
    ProbeWrite "probe_write" 1 Mem;
    /// Memory barrier: `aux` 0 full (store-load included), 1 acquire/release only.
    Fence "fence" 0 Effect;
    /// Leaves the region if an exit was requested of this vCPU; carries a state map whose pc is where to go on.
    CheckExit "check_exit" 0 Mem;
    /// `imm` instructions are executed from here on: counts them in [`crate::EnvHeader::counter`].
    Count "count" 0 Effect;
    /// The same as `CheckExit` if `imm` more instructions are not allowed.
    CheckCount "check_count" 0 Mem;

    /// Calls helper number `imm` of the guest. Result type as declared.
    Call "call" 4 Call;

    // Moves between register classes.
    /// I32→F32, I64→F64, F32→I32, F64→I64, I128↔V128.
    Bitcast "bitcast" 1 Pure;
    /// F32, F64, I32 or I64 into lane 0 of an otherwise zero V128.
    VFromScalar "vfromscalar" 1 Pure;
    /// Lane `imm` of `aux` ([`Lane`] as u32) of a V128, zero-extended into I32/I64, or bits into F32/F64.
    VExtract "vextract" 1 Pure;
    /// V128 with lane `imm` of shape `aux` replaced by the low bits of args[1] (I32/I64/F32/F64).
    VInsert "vinsert" 2 Pure;
    /// All lanes of shape `aux` = low bits of the scalar (I32/I64/F32/F64).
    VDup "vdup" 1 Pure;
    /// Upper 64 bits cleared.
    VZeroHi "vzerohi" 1 Pure;

    // Scalar FP on F32/F64; semantics by the region's FpMode. `imm` of FAdd to FMulAdd: a set of [`fp_imm`].
    FAdd "fadd" 2 Fp;
    FSub "fsub" 2 Fp;
    FMul "fmul" 2 Fp;
    FDiv "fdiv" 2 Fp;
    FSqrt "fsqrt" 1 Fp;
    /// `a * b + c`, fused: args (a, b, c).
    FMulAdd "fmuladd" 3 Fp;
    /// IEEE minimum/maximum propagating NaN.
    FMin "fmin" 2 Fp;
    FMax "fmax" 2 Fp;
    /// minNum/maxNum.
    FMinNum "fminnum" 2 Fp;
    FMaxNum "fmaxnum" 2 Fp;
    /// Sign manipulation only, no flags.
    FNeg "fneg" 1 Pure;
    FAbs "fabs" 1 Pure;
    /// Round to integral: `aux` = rounding mode (rhea_float::Rounding as u32, 255: current) | 256 if inexact is signalled.
    FRound "fround" 1 Fp;
    /// F32 → F64. `aux` 1: of bits as a load has it, no exceptions.
    FExtend "fextend" 1 Fp;
    /// F64 → F32. `aux` 1: as a store has it, dropping bits, no exceptions.
    FNarrow "fnarrow" 1 Fp;
    /// To signed integer I32/I64, saturating, NaN gives 0: `aux` as for FRound (no 256 bit).
    FToS "ftos" 1 Fp;
    FToU "ftou" 1 Fp;
    /// From signed I32/I64.
    SToF "stof" 1 Fp;
    UToF "utof" 1 Fp;

    // Vectors. `aux` = Lane as u32 unless said otherwise.
    VAnd "vand" 2 Pure;
    VOr "vor" 2 Pure;
    VXor "vxor" 2 Pure;
    /// `a & !b`.
    VAndNot "vandnot" 2 Pure;
    VNot "vnot" 1 Pure;
    /// `(mask & a) | (!mask & b)`: args (mask, a, b).
    VBsl "vbsl" 3 Pure;
    VAdd "vadd" 2 Pure;
    VSub "vsub" 2 Pure;
    VMul "vmul" 2 Pure;
    VNeg "vneg" 1 Pure;
    VAbs "vabs" 1 Pure;
    VMinS "vmins" 2 Pure;
    VMinU "vminu" 2 Pure;
    VMaxS "vmaxs" 2 Pure;
    VMaxU "vmaxu" 2 Pure;
    /// Lane compares giving all-ones or zero.
    VCmpEq "vcmpeq" 2 Pure;
    VCmpGtS "vcmpgts" 2 Pure;
    VCmpGtU "vcmpgtu" 2 Pure;
    VCmpGeS "vcmpges" 2 Pure;
    VCmpGeU "vcmpgeu" 2 Pure;
    /// Shifts by the immediate `imm` (0..=lane bits; lane bits gives 0 or the sign).
    VShl "vshl" 1 Pure;
    VShr "vshr" 1 Pure;
    VSar "vsar" 1 Pure;
    /// Saturating adds and subtracts (no sticky flag).
    VSatAddS "vsatadds" 2 Pure;
    VSatAddU "vsataddu" 2 Pure;
    VSatSubS "vsatsubs" 2 Pure;
    VSatSubU "vsatsubu" 2 Pure;
    /// Rounding average `(a + b + 1) >> 1`, unsigned.
    VAvgU "vavgu" 2 Pure;
    /// Byte population count.
    VPopcnt "vpopcnt" 1 Pure;
    /// Bytes chosen from args[0] (indices 0–15) and args[1] (16–31) by the constant `consts[imm]`; index ≥ 32 gives 0.
    VShuffle "vshuffle" 2 Pure;
    /// Bytes of args[0] chosen by the run-time indices in args[1]; index ≥ 16 gives 0.
    VTable "vtable" 2 Pure;
    /// Widens the low half's lanes of shape `aux` to twice the size.
    VWidenS "vwidens" 1 Pure;
    VWidenU "vwidenu" 1 Pure;
    /// Truncates lanes of shape `aux` (H, S or D) to half the size into the low half; the high half is zero.
    VNarrow "vnarrow" 1 Pure;
    /// Widening multiply of the low halves: lanes of shape `aux` to twice the size.
    VMulWideS "vmulwides" 2 Pure;
    VMulWideU "vmulwideu" 2 Pure;
    /// Top bits of the lanes of shape `aux` (B, S or D) as the low bits of an I32.
    VMoveMask "vmovemask" 1 Pure;
    /// Operation `aux & 0xff` of [`crate::simd::SimdOp`] in format `aux >> 8` of [`crate::simd::Fmt`], with `imm` as its immediate.
    Simd1 "simd1" 1 Pure;
    Simd2 "simd2" 2 Pure;
    Simd3 "simd3" 3 Pure;
    /// CRC-32C of args\[0\] (I32) continued with the low `imm` bits (8, 16, 32 or 64) of args\[1\], reflected, without inversions.
    Crc32c "crc32c" 2 Pure;
    /// 1 if any bit is set (Bool).
    VAnyTrue "vanytrue" 1 Pure;
    // FP lanes (`aux` S or D; H through helpers).
    VFAdd "vfadd" 2 Fp;
    VFSub "vfsub" 2 Fp;
    VFMul "vfmul" 2 Fp;
    VFDiv "vfdiv" 2 Fp;
    VFSqrt "vfsqrt" 1 Fp;
    /// args (a, b, c): `a * b + c` fused; `imm` as for FMulAdd without SINGLE.
    VFMulAdd "vfmuladd" 3 Fp;
    VFMin "vfmin" 2 Fp;
    VFMax "vfmax" 2 Fp;
    VFMinNum "vfminnum" 2 Fp;
    VFMaxNum "vfmaxnum" 2 Fp;
    VFNeg "vfneg" 1 Pure;
    VFAbs "vfabs" 1 Pure;
    /// Quiet equal, signalling greater / greater-or-equal; all-ones or zero.
    VFCmpEq "vfcmpeq" 2 Fp;
    VFCmpGt "vfcmpgt" 2 Fp;
    VFCmpGe "vfcmpge" 2 Fp;
    /// `imm` = rounding as FRound's aux.
    VFRound "vfround" 1 Fp;
    /// Lane-wise to integers of the same size, saturating; `imm` = rounding as FRound's aux.
    VFToS "vftos" 1 Fp;
    VFToU "vftou" 1 Fp;
    VSToF "vstof" 1 Fp;
    VUToF "vutof" 1 Fp;
    /// Low two F32 lanes → two F64.
    VFExtend "vfextend" 1 Fp;
    /// Two F64 → low two F32 lanes, high half zero.
    VFNarrow "vfnarrow" 1 Fp;

    /// As [`Op::Simd1`] and its like, for operations that depend on the FP mode and raise flags.
    FSimd1 "fsimd1" 1 Fp;
    FSimd2 "fsimd2" 2 Fp;
    FSimd3 "fsimd3" 3 Fp;

    /// Sticky FP flags raised so far and not yet in the guest's own register: I32 of rhea_float flag bits.
    FpFlagsGet "fpflags_get" 0 Effect;
    /// Clears them.
    FpFlagsClear "fpflags_clear" 0 Effect;
}

impl Op {
    /// True if the operation must stay where it is even when its result is unused.
    pub const fn has_effect(self) -> bool {
        !matches!(self.class(), Class::Pure | Class::Slot)
    }
    /// True if the operation carries a state map.
    pub const fn has_state(self) -> bool {
        matches!(self.class(), Class::Mem | Class::Call)
    }
    pub const fn commutes(self) -> bool {
        matches!(
            self,
            Op::Add
                | Op::Mul
                | Op::And
                | Op::Or
                | Op::Xor
                | Op::VAnd
                | Op::VOr
                | Op::VXor
                | Op::VAdd
                | Op::VMul
                | Op::VCmpEq
        )
    }
}
