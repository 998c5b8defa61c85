//! Classes of instructions.

use iced_x86::{Code, CpuidFeature, Mnemonic, OpCodeOperandKind};

/// What is compared besides general registers and memory, and what the inputs are like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Integer,
    /// Vector and x87 state too; half of the control words are not the usual ones.
    Float,
}

pub struct Class {
    pub name: &'static str,
    pub kind: Kind,
    pub codes: fn(u32) -> Vec<Code>,
    /// EFLAGS that inputs may have besides the status flags.
    pub flags: u32,
}

/// Does the host have it? `None`: a feature not known here, taken as absent.
fn host_has(f: CpuidFeature) -> bool {
    use CpuidFeature::*;
    macro_rules! has {
        ($name:tt) => {
            std::arch::is_x86_feature_detected!($name)
        };
    }
    match f {
        INTEL8086 | INTEL186 | INTEL286 | INTEL386 | INTEL486 | FPU | FPU287 | FPU387 | MMX | SSE | SSE2 | CMOV
        | CX8 | X64 => true,
        SSE3 => has!("sse3"),
        SSSE3 => has!("ssse3"),
        SSE4_1 => has!("sse4.1"),
        SSE4_2 => has!("sse4.2"),
        AES => has!("aes"),
        PCLMULQDQ => has!("pclmulqdq"),
        SHA => has!("sha"),
        AVX => has!("avx"),
        AVX2 => has!("avx2"),
        FMA => has!("fma"),
        F16C => has!("f16c"),
        BMI1 => has!("bmi1"),
        BMI2 => has!("bmi2"),
        LZCNT => has!("lzcnt"),
        POPCNT => has!("popcnt"),
        ADX => has!("adx"),
        MOVBE => has!("movbe"),
        CMPXCHG16B => has!("cmpxchg16b"),
        VAES => has!("vaes"),
        VPCLMULQDQ => has!("vpclmulqdq"),
        GFNI => has!("gfni"),
        SSE4A => has!("sse4a"),
        _ => false,
    }
}

/// Encodings for `bits` that the host has and that a program may use freely.
fn usable(bits: u32) -> impl Iterator<Item = Code> {
    Code::values().filter(move |c| {
        let info = c.op_code();
        let mode = if bits == 64 { info.mode64() } else { info.mode32() };
        // 16-bit addresses have other registers.
        let sixteen = info.address_size() == 16 || bits == 64 && info.address_size() == 32;
        let excluded = info.is_privileged()
            || info.is_save_restore()
            || info.fwait()
            || sixteen
            || info.op_kinds().iter().any(|k| matches!(k, OpCodeOperandKind::seg_reg));
        info.is_instruction() && mode && !excluded && c.cpuid_features().iter().all(|&f| host_has(f))
    })
}

fn mnemonics(bits: u32, names: &[Mnemonic]) -> Vec<Code> {
    usable(bits).filter(|c| names.contains(&c.mnemonic())).collect()
}

/// Encodings whose features include one of these (and no other than those and the basic ones).
fn features(bits: u32, names: &[CpuidFeature]) -> Vec<Code> {
    use Mnemonic::*;
    let state = [
        // The host may have more control bits.
        Ldmxcsr,
        Vldmxcsr,
        Maskmovq,
        Clflush,
        Prefetchnta,
        Monitor,
        Mwait,
        Rcpps,
        Rcpss,
        Rsqrtps,
        Rsqrtss,
        Vrcpps,
        Vrcpss,
        Vrsqrtps,
        Vrsqrtss,
    ];
    usable(bits)
        .filter(|c| c.cpuid_features().iter().any(|f| names.contains(f)) && !state.contains(&c.mnemonic()))
        .filter(|c| !matches!(c.op_code().mandatory_prefix(), iced_x86::MandatoryPrefix::None) || !is_mmx(*c))
        .collect()
}

/// Has an MMX register operand.
fn is_mmx(c: Code) -> bool {
    use OpCodeOperandKind::*;
    c.op_code().op_kinds().iter().any(|k| matches!(k, mm_or_mem | mm_reg | mm_rm))
}

const AC: u32 = 1 << 18;
const DF: u32 = 1 << 10;

pub const CLASSES: &[Class] = &[
    Class {
        name: "alu",
        kind: Kind::Integer,
        codes: |b| {
            use Mnemonic::*;
            let m = [
                Add, Adc, Sub, Sbb, And, Or, Xor, Cmp, Test, Inc, Dec, Neg, Not, Mov, Movzx, Movsx, Movsxd, Xchg, Lea,
                Bswap, Cbw, Cwde, Cdqe, Cwd, Cdq, Cqo, Movbe, Xadd, Cmpxchg, Nop,
            ];
            mnemonics(b, &m)
        },
        flags: 0,
    },
    Class {
        name: "shifts",
        kind: Kind::Integer,
        codes: |b| {
            use Mnemonic::*;
            let m = [Rol, Ror, Rcl, Rcr, Shl, Shr, Sal, Sar, Shld, Shrd, Rorx, Sarx, Shlx, Shrx, Lahf, Sahf, Adc];
            mnemonics(b, &m)
        },
        flags: 0,
    },
    Class {
        name: "multiply_divide",
        kind: Kind::Integer,
        codes: |b| {
            use Mnemonic::*;
            mnemonics(b, &[Mul, Imul, Div, Idiv, Mulx])
        },
        flags: 0,
    },
    Class {
        name: "bits",
        kind: Kind::Integer,
        codes: |b| {
            use Mnemonic::*;
            let m = [
                Bt, Bts, Btr, Btc, Bsf, Bsr, Popcnt, Lzcnt, Tzcnt, Andn, Bextr, Blsi, Blsmsk, Blsr, Bzhi, Pdep, Pext,
                Adcx, Adox, Crc32,
            ];
            mnemonics(b, &m)
        },
        flags: 0,
    },
    Class {
        name: "conditions",
        kind: Kind::Integer,
        codes: |b| {
            use Mnemonic::*;
            usable(b)
                .filter(|c| {
                    let name = format!("{:?}", c.mnemonic());
                    let arithmetic =
                        matches!(c.mnemonic(), Cmp | Sub | Add | Sbb | Adc | Inc | Dec | Test | Neg | Shl | Sar | Imul);
                    name.starts_with("Set") && name != "Setssbsy" || name.starts_with("Cmov") || arithmetic
                })
                .collect()
        },
        flags: 0,
    },
    Class {
        name: "branches",
        kind: Kind::Integer,
        codes: |b| {
            use Mnemonic::*;
            mnemonics(
                b,
                &[
                    Add, Adc, Sub, Sbb, And, Or, Xor, Cmp, Test, Inc, Dec, Neg, Mov, Movzx, Movsx, Lea, Xadd, Cmovb,
                    Cmovle, Setbe,
                ],
            )
        },
        flags: 0,
    },
    Class {
        name: "atomics",
        kind: Kind::Integer,
        codes: |b| {
            use Mnemonic::*;
            mnemonics(b, &[Cmpxchg, Cmpxchg8b, Cmpxchg16b, Xadd, Xchg, Add, Inc, Neg, Bts, Or, Sub, And, Adc, Sbb])
        },
        flags: AC,
    },
    Class {
        name: "flags",
        kind: Kind::Integer,
        codes: |b| {
            use Mnemonic::*;
            let m = [Lahf, Sahf, Clc, Stc, Cmc, Cld, Std, Pushf, Pushfd, Pushfq, Popf, Popfd, Popfq, Add, Sbb];
            mnemonics(b, &m)
        },
        flags: DF | AC,
    },
    Class {
        name: "stack",
        kind: Kind::Integer,
        codes: |b| {
            use Mnemonic::*;
            usable(b)
                .filter(|c| {
                    let segment = c.op_code().op_kinds().iter().any(|k| {
                        use OpCodeOperandKind::*;
                        matches!(k, es | cs | ss | ds | fs | gs)
                    });
                    matches!(c.mnemonic(), Push | Pop | Enter | Leave | Pusha | Pushad | Popa | Popad) && !segment
                })
                .collect()
        },
        flags: AC,
    },
    Class {
        name: "strings",
        kind: Kind::Integer,
        codes: |b| {
            use Mnemonic::*;
            usable(b)
                .filter(|c| {
                    matches!(
                        c.mnemonic(),
                        Movsb
                            | Movsw
                            | Movsd
                            | Movsq
                            | Stosb
                            | Stosw
                            | Stosd
                            | Stosq
                            | Lodsb
                            | Lodsw
                            | Lodsd
                            | Lodsq
                            | Cmpsb
                            | Cmpsw
                            | Cmpsd
                            | Cmpsq
                            | Scasb
                            | Scasw
                            | Scasd
                            | Scasq
                            | Xlatb
                    ) && c.op_code().can_use_rep_prefix() | (c.mnemonic() == Xlatb)
                })
                .collect()
        },
        flags: DF,
    },
    Class {
        name: "decimal",
        kind: Kind::Integer,
        codes: |b| {
            use Mnemonic::*;
            mnemonics(b, &[Aaa, Aas, Aam, Aad, Daa, Das, Salc, Bound, Into, Arpl, Inc, Dec, Add])
        },
        flags: 0,
    },
    Class {
        name: "mmx",
        kind: Kind::Float,
        codes: |b| usable(b).filter(|c| is_mmx(*c) || c.mnemonic() == Mnemonic::Emms).collect(),
        flags: 0,
    },
    Class { name: "sse", kind: Kind::Float, codes: |b| features(b, &[CpuidFeature::SSE]), flags: 0 },
    Class { name: "sse2", kind: Kind::Float, codes: |b| features(b, &[CpuidFeature::SSE2]), flags: 0 },
    Class {
        name: "sse4",
        kind: Kind::Float,
        codes: |b| {
            use CpuidFeature::*;
            features(b, &[SSE3, SSSE3, SSE4_1, SSE4_2, SSE4A, AES, PCLMULQDQ, SHA, GFNI])
        },
        flags: 0,
    },
    Class { name: "avx", kind: Kind::Float, codes: |b| features(b, &[CpuidFeature::AVX]), flags: 0 },
    Class { name: "avx2", kind: Kind::Float, codes: |b| features(b, &[CpuidFeature::AVX2]), flags: 0 },
    Class {
        name: "fma",
        kind: Kind::Float,
        codes: |b| features(b, &[CpuidFeature::FMA, CpuidFeature::F16C]),
        flags: 0,
    },
    Class {
        name: "x87",
        kind: Kind::Float,
        codes: |b| {
            use Mnemonic::*;
            let slow = [
                F2xm1, Fyl2x, Fyl2xp1, Fsin, Fcos, Fsincos, Fptan, Fpatan, Fsave, Fnsave, Frstor, Fldenv, Fnstenv,
                Fstenv, Feni, Fneni, Fdisi, Fndisi, Fsetpm, Fnsetpm, Frstpm,
            ];
            x87(b, |m| !slow.contains(&m))
        },
        flags: 0,
    },
    Class {
        name: "x87_environment",
        kind: Kind::Float,
        codes: |b| {
            use Mnemonic::*;
            x87(b, |m| {
                matches!(
                    m,
                    Fnsave | Frstor | Fldenv | Fnstenv | Fld | Fadd | Fst | Fstp | Fdivr | Fxch | Fnclex | Fldcw
                )
            })
        },
        flags: 0,
    },
    Class { name: "save", kind: Kind::Float, codes: |_| vec![Code::Fxsave_m512byte], flags: 0 },
    Class {
        name: "transcendental",
        kind: Kind::Float,
        codes: |b| {
            use Mnemonic::*;
            x87(b, |m| matches!(m, F2xm1 | Fyl2x | Fyl2xp1 | Fsin | Fcos | Fsincos | Fptan | Fpatan))
        },
        flags: 0,
    },
];

fn x87(bits: u32, keep: impl Fn(Mnemonic) -> bool) -> Vec<Code> {
    usable(bits)
        .filter(|c| {
            let f = c.cpuid_features();
            f.iter().any(|f| matches!(f, CpuidFeature::FPU | CpuidFeature::FPU287 | CpuidFeature::FPU387))
                && keep(c.mnemonic())
        })
        .collect()
}
