//! The operations of [`rhea_ir::simd`]: one host instruction each, from a table of encodings (Intel SDM vol. 2, 2.3). What
//! the host lacks is done by the run time. The host's results, NaNs and flags are the guest's: nothing is fixed up.

use super::asm::{Alu, Asm};
use super::cond::Test;
use super::emit::Emit;
use super::*;
use rhea_ir::func::{Inst, Value};
use rhea_ir::op::{Cond, Op};
use rhea_ir::simd::{Fmt, SimdOp};
use rhea_ir::types::{Lane, Type};

/// Where an instruction has its operands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// result, first
    Rm,
    /// result, first, second
    Rvm,
    /// result, (unused), second: the first gives a scalar's other lanes, or nothing to packed forms.
    RmSecond,
    /// The result in rm, the argument in reg.
    Mr,
    /// The result in vvvv, the argument in rm, this in reg.
    Group(u8),
    /// Three arguments; the third in the immediate's upper half.
    Is4,
    /// Result and first argument in one register.
    Destructive,
    /// The same, of the legacy encoding; a third argument is XMM0.
    Legacy,
}

/// Features of the host beyond [`host_is_supported`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    Aes,
    PClMul,
    Sha,
    Gfni,
    F16c,
}

#[derive(Clone, Copy)]
struct Code {
    form: Form,
    /// 0 none, 1 66, 2 F3, 3 F2.
    pp: u8,
    map: u8,
    opcode: u8,
    w: bool,
    needs: Needs,
}

const fn code(form: Form, pp: u8, map: u8, opcode: u8) -> Code {
    Code { form, pp, map, opcode, w: false, needs: Needs::Nothing }
}
/// `66 0F opcode`, three operands.
const fn p(opcode: u8) -> Code {
    code(Form::Rvm, 1, 1, opcode)
}
/// `66 0F38 opcode`, three operands.
const fn q(opcode: u8) -> Code {
    code(Form::Rvm, 1, 2, opcode)
}
/// `66 0F38 opcode`, two operands.
const fn u(opcode: u8) -> Code {
    code(Form::Rm, 1, 2, opcode)
}
/// `66 0F3A opcode`, three operands and an immediate.
const fn r(opcode: u8) -> Code {
    code(Form::Rvm, 1, 3, opcode)
}
impl Code {
    const fn w(mut self) -> Code {
        self.w = true;
        self
    }
    const fn needs(mut self, n: Needs) -> Code {
        self.needs = n;
        self
    }
}

fn encoding(op: SimdOp, fmt: Fmt, imm: u64) -> Code {
    use Form::{Destructive, Group, Is4, Legacy, Mr, Rm, RmSecond, Rvm};
    use SimdOp::*;
    // Prefix of the four formats.
    let pp = match fmt {
        Fmt::Ps => 0,
        Fmt::Pd => 1,
        Fmt::Ss => 2,
        Fmt::Sd => 3,
    };
    let all = |opcode| code(Rvm, pp, 1, opcode);
    let second = |opcode| code(if fmt.scalar() { Rvm } else { RmSecond }, pp, 1, opcode);
    let double = fmt.double();
    match op {
        PackSsWb => p(0x63),
        PackSsDw => p(0x6b),
        PackUsWb => p(0x67),
        PackUsDw => q(0x2b),
        UnpckLBw => p(0x60),
        UnpckLWd => p(0x61),
        UnpckLDq => p(0x62),
        UnpckLQdq => p(0x6c),
        UnpckHBw => p(0x68),
        UnpckHWd => p(0x69),
        UnpckHDq => p(0x6a),
        UnpckHQdq => p(0x6d),
        PMulHW => p(0xe5),
        PMulHUW => p(0xe4),
        PMulHRsW => q(0x0b),
        PMulUDq => p(0xf4),
        PMulDq => q(0x28),
        PMAddWd => p(0xf5),
        PMAddUbSw => q(0x04),
        PSadBw => p(0xf6),
        PShufB => q(0x00),
        PHAddW => q(0x01),
        PHAddD => q(0x02),
        PHAddSw => q(0x03),
        PHSubW => q(0x05),
        PHSubD => q(0x06),
        PHSubSw => q(0x07),
        PSignB => q(0x08),
        PSignW => q(0x09),
        PSignD => q(0x0a),
        PSllW => p(0xf1),
        PSllD => p(0xf2),
        PSllQ => p(0xf3),
        PSrlW => p(0xd1),
        PSrlD => p(0xd2),
        PSrlQ => p(0xd3),
        PSraW => p(0xe1),
        PSraD => p(0xe2),
        PSllVD => q(0x47),
        PSllVQ => q(0x47).w(),
        PSrlVD => q(0x45),
        PSrlVQ => q(0x45).w(),
        PSraVD => q(0x46),
        PSllDq => code(Group(7), 1, 1, 0x73),
        PSrlDq => code(Group(3), 1, 1, 0x73),
        PAlignR => r(0x0f),
        PBlendW => r(0x0e),
        BlendPs => r(0x0c),
        BlendPd => r(0x0d),
        MPSadBw => r(0x42),
        PClMulQdq => r(0x44).needs(Needs::PClMul),
        InsertPs => r(0x21),
        ShufPs => code(Rvm, 0, 1, 0xc6),
        ShufPd => p(0xc6),
        PShufD => code(Rm, 1, 1, 0x70),
        PShufLW => code(Rm, 3, 1, 0x70),
        PShufHW => code(Rm, 2, 1, 0x70),
        PermilPs => q(0x0c),
        PermilPd => q(0x0d),
        PMovSxBw => u(0x20),
        PMovSxBd => u(0x21),
        PMovSxBq => u(0x22),
        PMovSxWd => u(0x23),
        PMovSxWq => u(0x24),
        PMovSxDq => u(0x25),
        PMovZxBw => u(0x30),
        PMovZxBd => u(0x31),
        PMovZxBq => u(0x32),
        PMovZxWd => u(0x33),
        PMovZxWq => u(0x34),
        PMovZxDq => u(0x35),
        PHMinPosUw => u(0x41),
        BroadcastB => u(0x78),
        BroadcastW => u(0x79),
        BroadcastD => u(0x58),
        BroadcastQ => u(0x59),
        MovDDup => code(Rm, 3, 1, 0x12),
        MovSLDup => code(Rm, 2, 1, 0x12),
        MovSHDup => code(Rm, 2, 1, 0x16),
        MovSs => code(Rvm, 2, 1, 0x10),
        MovSd => code(Rvm, 3, 1, 0x10),
        BlendVPs => code(Is4, 1, 3, 0x4a),
        BlendVPd => code(Is4, 1, 3, 0x4b),
        BlendVB => code(Is4, 1, 3, 0x4c),
        AesEnc => q(0xdc).needs(Needs::Aes),
        AesEncLast => q(0xdd).needs(Needs::Aes),
        AesDec => q(0xde).needs(Needs::Aes),
        AesDecLast => q(0xdf).needs(Needs::Aes),
        AesImc => u(0xdb).needs(Needs::Aes),
        AesKeyGen => code(Rm, 1, 3, 0xdf).needs(Needs::Aes),
        Sha1NextE => code(Legacy, 0, 2, 0xc8).needs(Needs::Sha),
        Sha1Msg1 => code(Legacy, 0, 2, 0xc9).needs(Needs::Sha),
        Sha1Msg2 => code(Legacy, 0, 2, 0xca).needs(Needs::Sha),
        Sha256Rnds2 => code(Legacy, 0, 2, 0xcb).needs(Needs::Sha),
        Sha256Msg1 => code(Legacy, 0, 2, 0xcc).needs(Needs::Sha),
        Sha256Msg2 => code(Legacy, 0, 2, 0xcd).needs(Needs::Sha),
        Sha1Rnds4 => code(Legacy, 0, 3, 0xcc).needs(Needs::Sha),
        Gf2p8MulB => q(0xcf).needs(Needs::Gfni),
        Gf2p8AffineQb => r(0xce).w().needs(Needs::Gfni),
        Gf2p8AffineInvQb => r(0xcf).w().needs(Needs::Gfni),
        Rcp => second(0x53),
        Rsqrt => second(0x52),
        CvtDq2Pd => code(Rm, 2, 1, 0xe6),
        Add => all(0x58),
        Sub => all(0x5c),
        Mul => all(0x59),
        Div => all(0x5e),
        Min => all(0x5d),
        Max => all(0x5f),
        Sqrt => second(0x51),
        Cmp => all(0xc2),
        Round => code(if fmt.scalar() { Rvm } else { RmSecond }, 1, 3, 8 + fmt_round(fmt)),
        AddSub => code(Rvm, if double { 1 } else { 3 }, 1, 0xd0),
        HAdd => code(Rvm, if double { 1 } else { 3 }, 1, 0x7c),
        HSub => code(Rvm, if double { 1 } else { 3 }, 1, 0x7d),
        Dp => r(if double { 0x41 } else { 0x40 }),
        CvtDq2Ps => code(Rm, 0, 1, 0x5b),
        Cvt2Dq if double => code(Rm, 3, 1, 0xe6),
        Cvt2Dq => code(Rm, 1, 1, 0x5b),
        Cvtt2Dq if double => code(Rm, 1, 1, 0xe6),
        Cvtt2Dq => code(Rm, 2, 1, 0x5b),
        CvtPs2Pd => code(Rm, 0, 1, 0x5a),
        CvtPd2Ps => code(Rm, 1, 1, 0x5a),
        CvtSs2Sd => code(Rvm, 2, 1, 0x5a),
        CvtSd2Ss => code(Rvm, 3, 1, 0x5a),
        CvtPh2Ps => u(0x13).needs(Needs::F16c),
        CvtPs2Ph => code(Mr, 1, 3, 0x1d).needs(Needs::F16c),
        Fma => Code { w: double, ..code(Destructive, 1, 2, imm as u8) },
        Cvt2Si => code(Rm, pp, 1, 0x2d),
        Cvtt2Si => code(Rm, pp, 1, 0x2c),
        CvtSi2 => code(Rvm, pp, 1, 0x2a),
    }
}

/// ROUNDPS, ROUNDPD, ROUNDSS and ROUNDSD follow one another.
const fn fmt_round(f: Fmt) -> u8 {
    match f {
        Fmt::Ps => 0,
        Fmt::Pd => 1,
        Fmt::Ss => 2,
        Fmt::Sd => 3,
    }
}

fn host_has(n: Needs) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        match n {
            Needs::Nothing => true,
            Needs::Aes => std::is_x86_feature_detected!("aes"),
            Needs::PClMul => std::is_x86_feature_detected!("pclmulqdq"),
            Needs::Sha => std::is_x86_feature_detected!("sha"),
            Needs::Gfni => std::is_x86_feature_detected!("gfni"),
            Needs::F16c => std::is_x86_feature_detected!("f16c"),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        n == Needs::Nothing
    }
}

/// True if the run time does the operation.
pub(super) fn always_calls(i: &Inst) -> bool {
    SimdOp::of(i.aux).is_none_or(|op| !host_has(encoding(op, Fmt::of(i.aux), i.imm).needs))
}

impl Asm {
    /// A VEX-encoded instruction of 128 bits (or on scalars) between registers.
    fn vex(&mut self, c: Code, reg: u8, vvvv: u8, rm: u8) {
        let not = |bit: u8| (bit ^ 1) & 1;
        let last = |w: bool| (w as u8) << 7 | (!vvvv & 15) << 3 | c.pp;
        if c.map == 1 && !c.w && rm < 8 {
            self.bytes(&[0xc5, not(reg >> 3) << 7 | last(false)]);
        } else {
            self.bytes(&[0xc4, not(reg >> 3) << 7 | 0x40 | not(rm >> 3) << 5 | c.map, last(c.w)]);
        }
        self.bytes(&[c.opcode, 0xc0 | (reg & 7) << 3 | rm & 7]);
    }
    fn legacy(&mut self, c: Code, reg: u8, rm: u8) {
        let rex = (reg >> 3) << 2 | rm >> 3;
        if rex != 0 {
            self.bytes(&[0x40 | rex]);
        }
        self.bytes(&[0x0f, if c.map == 2 { 0x38 } else { 0x3a }, c.opcode, 0xc0 | (reg & 7) << 3 | rm & 7]);
    }
    /// `d` = CRC-32C of `d` and the low `bits` of `s`.
    fn crc32(&mut self, bits: u32, d: u8, s: u8) {
        if bits == 16 {
            self.bytes(&[0x66]);
        }
        self.bytes(&[0xf2]);
        let rex = ((bits == 64) as u8) << 3 | (d >> 3) << 2 | s >> 3;
        if rex != 0 || bits == 8 {
            self.bytes(&[0x40 | rex]);
        }
        self.bytes(&[0x0f, 0x38, 0xf0 | (bits != 8) as u8, 0xc0 | (d & 7) << 3 | s & 7]);
    }
}

/// The third operand of three.
const THIRD: u8 = 12;

impl Emit<'_> {
    /// An operation whose result is a vector, into `d`, which may be an argument's register.
    pub(super) fn simd_to(&mut self, i: &Inst, d: u8) {
        let Some(op) = SimdOp::of(i.aux) else { return self.asm.ud2() };
        let c = encoding(op, Fmt::of(i.aux), i.imm);
        let args = i.args();
        match c.form {
            Form::Rm => {
                let a = self.xmm(args[0], X14);
                self.asm.vex(c, d, 0, a);
            }
            Form::RmSecond => {
                let b = self.xmm(args[1], X15);
                self.asm.vex(c, d, 0, b);
            }
            Form::Rvm if op == SimdOp::CvtSi2 => {
                let a = self.xmm(args[0], X14);
                let b = self.gpr(args[1], RAX);
                let c = Code { w: i.imm == 64, ..c };
                self.asm.vex(c, d, a, b);
            }
            Form::Rvm => {
                let a = self.xmm(args[0], X14);
                let b = self.xmm(args[1], X15);
                self.asm.vex(c, d, a, b);
            }
            Form::Mr => {
                let a = self.xmm(args[0], X14);
                self.asm.vex(c, a, 0, d);
            }
            Form::Group(n) => {
                let a = self.xmm(args[0], X14);
                self.asm.vex(c, n, d, a);
            }
            Form::Is4 => {
                let m = self.xmm(args[2], THIRD);
                let a = self.xmm(args[0], X14);
                let b = self.xmm(args[1], X15);
                self.asm.vex(c, d, a, b);
                self.asm.bytes(&[m << 4]);
            }
            Form::Destructive => {
                let b = self.xmm(args[1], X15);
                let e = self.xmm(args[2], THIRD);
                let t = if d == b || d == e { X13 } else { d };
                let a = self.xmm(args[0], t);
                if a != t {
                    self.asm.vmovaps(t, a);
                }
                self.asm.vex(c, t, b, e);
                if t != d {
                    self.asm.vmovaps(d, t);
                }
            }
            Form::Legacy => {
                let a = self.xmm(args[0], X13);
                if a != X13 {
                    self.asm.vmovaps(X13, a);
                }
                let b = self.xmm(args[1], X15);
                if args.len() == 3 {
                    // XMM0 is an operand of its own.
                    let m = self.xmm(args[2], X14);
                    self.asm.vmovaps(THIRD, 0);
                    if b == 0 {
                        self.asm.vmovaps(X15, b);
                    }
                    if m != 0 {
                        self.asm.vmovaps(0, m);
                    }
                    self.asm.legacy(c, X13, if b == 0 { X15 } else { b });
                    self.asm.vmovaps(0, THIRD);
                } else {
                    self.asm.legacy(c, X13, b);
                    if op.imm() {
                        self.asm.bytes(&[i.imm as u8]);
                    }
                }
                self.asm.vmovaps(d, X13);
            }
        }
        if op.imm() && c.form != Form::Legacy && !matches!(op, SimdOp::Fma | SimdOp::CvtSi2) {
            self.asm.bytes(&[i.imm as u8]);
        }
    }

    /// An operation of either class with a result of any type.
    pub(super) fn simd_op(&mut self, v: Value, i: &Inst) {
        if always_calls(i) {
            return self.fp_slow(v);
        }
        if i.ty.is_int() {
            let Some(op) = SimdOp::of(i.aux) else { return self.asm.ud2() };
            let c = Code { w: i.ty == Type::I64, ..encoding(op, Fmt::of(i.aux), i.imm) };
            let d = self.dst_gpr(v, RAX);
            let a = self.xmm(i.args[0], X14);
            self.asm.vex(c, d, 0, a);
            self.put_gpr(v, d);
        } else {
            let d = self.dst_xmm(v, X13);
            self.simd_to(i, d);
            self.put_xmm(v, d);
        }
    }

    pub(super) fn move_mask(&mut self, i: &Inst, d: u8) {
        let a = self.xmm(i.args[0], X14);
        let c = match i.lane() {
            Lane::S => code(Form::Rm, 0, 1, 0x50),
            Lane::D => code(Form::Rm, 1, 1, 0x50),
            _ => p(0xd7),
        };
        self.asm.vex(c, d, 0, a);
    }

    pub(super) fn crc32c(&mut self, i: &Inst, d: u8) {
        self.gpr_to(i.args[0], RDX);
        let s = self.gpr(i.args[1], RAX);
        self.asm.crc32(i.imm as u32, RDX, s);
        self.asm.mov_rr(false, d, RDX);
    }

    /// Host flags of [`Op::FlagsVTest`] or [`Op::FlagsFCom`].
    pub(super) fn vector_compare(&mut self, i: &Inst) {
        let a = self.xmm(i.args[0], X14);
        let b = self.xmm(i.args[1], X15);
        if i.op == Op::FlagsVTest {
            let opcode = match i.aux {
                0 => 0x17,
                1 => 0x0e,
                _ => 0x0f,
            };
            return self.asm.vex(u(opcode), a, 0, b);
        }
        match (i.aux & 1 != 0, i.aux & 2 != 0) {
            (true, true) => self.asm.vcomisd(a, b),
            (true, false) => self.asm.vucomisd(a, b),
            (false, true) => self.asm.vcomiss(a, b),
            (false, false) => self.asm.vucomiss(a, b),
        }
    }

    /// A test that always comes out like this.
    pub(super) fn constant_test(&mut self, holds: bool) -> Test {
        use super::asm::Cc;
        self.asm.alu_rr(Alu::Cmp, false, RAX, RAX);
        Test::Cc(if holds { Cc::E } else { Cc::Ne })
    }

    /// Packed flags of those.
    pub(super) fn vector_flags(&mut self, i: &Inst, d: u8) {
        self.vector_compare(i);
        self.asm.bytes(&[0x9f]);
        // The host clears P of FlagsVTest.
        self.asm.alu_ri(Alu::And, false, RAX, 0x4500);
        if d != RAX {
            self.asm.mov_rr(false, d, RAX);
        }
    }

    /// The test of a condition of those: N and V are clear.
    pub(super) fn test_vector(&mut self, i: &Inst, cond: Cond) -> Test {
        use super::asm::Cc;
        self.vector_compare(i);
        match cond {
            Cond::Eq => Test::Cc(Cc::E),
            Cond::Ne => Test::Cc(Cc::Ne),
            // Unsigned conditions read C as "no borrow".
            Cond::Ult => Test::Cc(Cc::Ae),
            Cond::Uge => Test::Cc(Cc::B),
            Cond::Ugt => Test::And(Cc::B, Cc::Ne),
            Cond::Ule => Test::Or(Cc::Ae, Cc::E),
            Cond::CsOrZ => Test::Cc(Cc::Be),
            Cond::CcAndNz => Test::Cc(Cc::A),
            Cond::Ps => Test::Cc(Cc::P),
            Cond::Pc => Test::Cc(Cc::Np),
            Cond::Sgt => Test::Cc(Cc::Ne),
            Cond::Sle => Test::Cc(Cc::E),
            Cond::Mi | Cond::Vs | Cond::Slt => self.constant_test(false),
            Cond::Pl | Cond::Vc | Cond::Sge => self.constant_test(true),
        }
    }
}
