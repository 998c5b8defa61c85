//! The classes of floating-point, vector and VSX instructions: all rows of the tables whose names a class takes.

use super::check::{Class, push, state};
use super::memory::{Memory, with};
use super::program::Test;
use rhea_diff::Rng;
use rhea_ppc::translate::Pattern;
use rhea_ppc::translate::decode::{prefixes, words};
use std::sync::OnceLock;

const fn class(name: &'static str, make: fn(&mut Rng, u64, u64) -> Test) -> Class {
    Class { name, make, fp: true, narrow: false, big: false, alone: false }
}

pub static CLASSES: &[Class] = &[
    class("fp_arithmetic", |r, _, _| registers(r, fp_arithmetic())),
    class("fp_enabled", enabled),
    class("fp_status", |r, _, _| registers(r, fp_status())),
    class("vmx_integer", |r, _, _| registers(r, vmx_integer())),
    class("vmx_float", |r, _, _| registers(r, vmx_float())),
    class("vmx_decimal", |r, _, _| decimal(r)),
    class("vsx_scalar", |r, _, _| registers(r, vsx_scalar())),
    class("vsx_vector", |r, _, _| registers(r, vsx_vector())),
    class("vsx_moves", |r, _, _| registers(r, vsx_moves())),
    class("vsx_matrix", |r, _, _| registers(r, matrix())),
    class("decimal_float", |r, _, _| decimal_float(r)),
    class("vsx_quad", |r, _, _| quad(r)),
    class("fp_access", access),
    Class { alone: true, ..class("engines_only", |r, _, _| registers(r, engines_only())) },
    Class { alone: true, ..class("elements", elements_only) },
];

/// The rows whose names a function takes; `RHEA_DIFF_PATTERN` restricts them.
fn rows(take: impl Fn(&str) -> bool) -> Vec<&'static Pattern> {
    let only = std::env::var("RHEA_DIFF_PATTERN").unwrap_or_default();
    let all = words().rows().iter().chain(prefixes().rows()).copied();
    all.filter(|p| take(p.name) && p.name.contains(&only)).collect()
}

macro_rules! tables {
    ($($name:ident = |$n:ident| $take:expr;)*) => { $(
        fn $name() -> &'static [&'static Pattern] {
            static TABLE: OnceLock<Vec<&'static Pattern>> = OnceLock::new();
            TABLE.get_or_init(|| rows(|$n| $take))
        }
    )* };
}

/// Estimates have no exact result; DFP has classes of its own.
fn estimate(n: &str) -> bool {
    n.contains("rsqrte")
        || n.contains("sre")
        || n.contains("vre")
        || matches!(n, "fre" | "fres" | "vexptefp" | "vlogefp")
}

fn accesses(n: &str) -> bool {
    ["lf", "stf", "lxs", "lxv", "stxs", "stxv", "plf", "pstf", "plx", "pstx", "lv", "stv"].iter().any(|p| n.starts_with(p))
        && n != "lxvkq"
        // Their other elements are undefined.
        && !matches!(n, "lvebx" | "lvehx" | "lvewx")
}

const STATUS: [&str; 5] = ["mffs", "mtfs", "mcrfs", "mffsl", "mffsc"];

fn is_status(n: &str) -> bool {
    STATUS.iter().any(|s| n.starts_with(s))
}

fn float_of_vmx(n: &str) -> bool {
    n.starts_with('v')
        && (n.ends_with("fp")
            || n.starts_with("vrfi")
            || n.starts_with("vcf") && n != "vcfuged"
            || n == "vctuxs"
            || n == "vctsxs")
}

tables! {
    fp_arithmetic = |n| n.starts_with('f') && !estimate(n) && !is_status(n);
    fp_status = |n| is_status(n) || matches!(n, "fadd" | "fmuls" | "fdiv" | "fsqrt" | "fmadd" | "fcmpu" | "fcmpo" | "fctid" | "frsp" | "xvadddp");
    // vrldmi does not insert in the reference; overflow of extended divisions is undefined.
    vmx_integer = |n| n.starts_with('v') && n != "vrldmi" && !n.starts_with("vdive") && !float_of_vmx(n) && !estimate(n) || n.starts_with("mtvsrb") || n == "mtvsrhm"
        || matches!(n, "mfvscr" | "mtvscr" | "mtvsrwm" | "mtvsrdm" | "mtvsrqm");
    vmx_float = |n| float_of_vmx(n) && !estimate(n);
    // bcdus takes the sign of a number without one in the reference.
    vmx_decimal = |n| n.starts_with("bcd") && n != "bcdus";
    // The reference has drdpq's result in the other register.
    dfp = |n| n.starts_with('d') && ["dadd", "dsub", "dmul", "ddiv", "dcmp", "dtst", "dqua", "drrnd", "drint", "dctdp", "dctqpq", "drsp", "dcffix", "dctfix", "ddedpd", "denbcd", "dxex", "diex", "dscli", "dscri"].iter().any(|p| n.starts_with(p));
    matrix = |n| n.contains("ger") || n.starts_with("xxm") && n.ends_with("acc") || n == "xxsetaccz";
    // What the other classes leave out because the reference has something else, or results are undefined.
    engines_only = |n| estimate(n) || n.starts_with("vdive") || matches!(n, "vrldmi" | "bcdus" | "drdpq" | "xststdcsp");
    elements = |n| matches!(n, "lvebx" | "lvehx" | "lvewx");
    // The reference finds infinities in xststdcsp that are none.
    vsx_scalar = |n| n != "xststdcsp" && n.starts_with("xs") && !n.ends_with("qp") && !n.contains("qp") && !estimate(n);
    // Single precision with enabled exceptions, compares and maxima of NaNs with them, and conversions of integers are not as the
    // architecture has them in the reference.
    fp_double = |n| n.starts_with('f') && !n.ends_with('s') && n != "frsp" && !n.starts_with("fcfi") && !estimate(n) && !is_status(n);
    vsx_double = |n| n.starts_with("xs") && n.ends_with("dp") && !n.contains("cmp") && !n.contains("cv") && !n.contains("max")
        && !n.contains("min") && !estimate(n);
    vsx_vector = |n| n.starts_with("xv") && !estimate(n) && !n.contains("ger");
    vsx_moves = |n| n.starts_with("xx") && !n.contains("acc") || n == "lxvkq" || n.starts_with("mfvsr")
        || matches!(n, "mtvsrd" | "mtvsrwa" | "mtvsrwz" | "mtvsrws" | "mtvsrdd");
    vsx_quad = |n| n.starts_with("xs") && n.contains("qp") || n.starts_with("xsrq");
    memory = |n| accesses(n);
}

/// An encoding; what is undefined is rare or avoided.
fn encode(rng: &mut Rng, p: &Pattern) -> u64 {
    let random = if p.mask >> 32 != 0 { rng.next() } else { rng.next() & 0xffff_ffff };
    let w = p.encoding(random) & !reserved(p);
    match p.name {
        // Enabled exceptions would raise signals: their bits are left alone.
        "mtfsfi" => with(w, 23, 3, [2, 2, 4, 7, 7][rng.below(5) as usize]) & !0x8000 & !0x1_0000,
        // Exceptions set so do not set FX in the reference.
        "mtfsb1" => with(w, 21, 5, [0, 13, 15, 16, 19, 30, 31, 31][rng.below(8) as usize]),
        "mtfsb0" => with(w, 21, 5, [31, 3, 4, 5, 6, 7, 12, 15, 16, 21, 30, 31][rng.below(12) as usize]),
        // L and W clear; the fields of the enables (6, and 7 with XE) are left.
        "mtfsf" => w & !(0x0301_0000 | 3 << 17),
        // With FX cleared and the exceptions left the reference sets it where the architecture does not.
        "mcrfs" => with(w, 18, 3, [1, 2, 4, 5, 6, 7][rng.below(6) as usize]),
        // Immediates that select bytes beyond the end.
        "vinsw" | "vinsertw" => with(w, 16, 5, rng.below(13) as u32),
        "vinsd" | "vinsertd" => with(w, 16, 5, rng.below(9) as u32),
        "vinserth" => with(w, 16, 5, rng.below(15) as u32),
        "vextractuh" => with(w, 16, 5, rng.below(15) as u32),
        "vextractuw" | "xxextractuw" | "xxinsertw" => with(w, 16, 5, rng.below(13) as u32),
        "vextractd" => with(w, 16, 5, rng.below(9) as u32),
        "vextractub" | "vinsertb" => with(w, 16, 5, rng.below(16) as u32),
        "vspltb" => with(w, 16, 5, rng.below(16) as u32),
        "vsplth" => with(w, 16, 5, rng.below(8) as u32),
        "vspltw" => with(w, 16, 5, rng.below(4) as u32),
        "vgnb" => with(w, 16, 5, 2 + rng.below(6) as u32),
        "xxgenpcvbm" | "xxgenpcvhm" | "xxgenpcvwm" | "xxgenpcvdm" => with(w, 16, 5, rng.below(4) as u32),
        "lxvkq" => {
            with(w, 11, 5, [1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 18, 19, 20, 21, 22, 23, 24][rng.below(18) as usize])
        }
        n if n.contains("ger") => {
            // Sources that are not the accumulator's registers, and an even one.
            let w = with(with(w, 23, 3, 1), 2, 1, 0);
            let w = with(w, 16, 5, 8 + 2 * rng.below(12) as u32);
            with(with(w, 11, 5, 8 + rng.below(24) as u32), 1, 1, rng.below(2) as u32)
        }
        _ => w,
    }
}

/// Bits that are reserved.
fn reserved(p: &Pattern) -> u64 {
    const A: u64 = 0x1f_0000;
    const B: u64 = 0xf800;
    const C: u64 = 0x7c0;
    let n = p.name;
    if n.starts_with("fcti") || n.starts_with("fcfi") || n.starts_with("fri") {
        return A;
    }
    match n {
        "frsp" | "fmr" | "fneg" | "fabs" | "fnabs" | "ftsqrt" => A,
        "fadd" | "fsub" | "fdiv" | "fadds" | "fsubs" | "fdivs" => C,
        "fmul" | "fmuls" => B,
        "fsqrt" | "fsqrts" => A | C,
        "mtfsb0" | "mtfsb1" => A | B,
        "mtfsfi" => 0x7e_0800,
        "mcrfs" => 0xf800,
        "mffs" | "mffsce" | "mffsl" => B,
        "mffscrni" => 0xe000,
        "mffscdrni" => 0xc000,
        "xststdcdp" | "xststdcsp" | "xststdcqp" | "xscmpudp" | "xscmpodp" | "xscmpexpdp" | "xstdivdp" | "xvtdivdp"
        | "xvtdivsp" | "xvtlsbb" => 1,
        "xstsqrtdp" | "xvtsqrtdp" | "xvtsqrtsp" => 1 | A,
        _ if n.starts_with("vupk") || n.starts_with("vclz") || n.starts_with("vpopcnt") || n.starts_with("vrf") => {
            A & !p.mask
        }
        _ if n.contains("ger") => match n {
            _ if p.mask >> 32 == 0 => 0,
            _ if n.contains("f64") => 0xf_ff03 << 32,
            _ if n.contains("f32") => 0xf_ff00 << 32,
            _ if n.contains("i4") => 0xf_0000 << 32,
            _ if n.contains("i8") => 0xf_0f00 << 32,
            _ => 0xf_3f00 << 32,
        },
        "xssqrtqp" | "xscvqpdp" => 0,
        // The reference does not round it to odd.
        "xsnmsubqp" => 1,
        _ if n.starts_with("xs") && n.contains("qp") && p.mask & A == A => 1,
        "xscpsgnqp" | "xsiexpqp" | "xscmpeqqp" | "xscmpgtqp" | "xscmpgeqp" | "xsmaxcqp" | "xsmincqp" => 1,
        "xsrqpi" => 0x1e_0000,
        "xsrqpxp" => 0x1e_0001,
        _ if p.value >> 26 == 31 && ["lf", "stf", "lv", "stv", "lxvp", "stxvp"].iter().any(|s| n.starts_with(s)) => 1,
        "vgbbd" => A,
        "mtvscr" => 0x3e0_0000 | A,
        "mfvscr" => A | B,
        "vsbox" | "vmul10uq" | "vmul10cuq" => B,
        "mfvsrd" | "mfvsrwz" | "mfvsrld" | "mtvsrd" | "mtvsrwa" | "mtvsrwz" | "mtvsrws" => B,
        _ if p.mask & 0xfc00_07fc == 0xfc00_07fc && p.value >> 26 == 60 && p.mask & A == 0 => A,
        _ => 0,
    }
}

fn registers(rng: &mut Rng, table: &[&'static Pattern]) -> Test {
    let mut state = state(rng, true);
    // Numbers in more registers than random bits have them.
    for v in &mut state.vsr {
        let x = match rng.below(6) {
            0 | 1 => rng.floats(64),
            2 => rng.floats(32),
            3 => {
                let d = |w: u64| u128::from(f64::from(f32::from_bits(w as u32)).to_bits());
                d(rng.float(8, 23)) | d(rng.float(8, 23)) << 64
            }
            _ => continue,
        };
        *v = [x as u64, (x >> 64) as u64];
    }
    // Indices and lengths in registers.
    for n in 0..8 {
        state.r[n] = rng.below(16);
    }
    let n = if rng.chance(2) { 1 } else { 1 + rng.below(8) };
    let mut code = Vec::new();
    let mut odd = false;
    for _ in 0..n {
        let p = rng.pick(table);
        // These would show FR, which the reference does not keep.
        if matches!(p.name, "mffs" | "mffsl" | "mffsce") && !code.is_empty() {
            continue;
        }
        // What sets exceptions without FX comes last: the reference sets FX with the next exception though it is there already.
        let last = matches!(p.name, "mtfsf" | "mtfsfi");
        if last && odd {
            continue;
        }
        // Results are undefined with operands that others may make.
        let divides = p.name.starts_with("vdiv") || p.name.starts_with("vmod");
        let inserts = p.name.starts_with("vins") && p.name.ends_with('x');
        if (divides || inserts) && !code.is_empty() {
            continue;
        }
        let mut w = encode(rng, p);
        // The reference leaves FPRF where some of these set it, and clears FI where others leave it: another operation replaces
        // both.
        odd |= p.name.starts_with("fcfi")
            || p.name.starts_with("fcti")
            || p.name.contains("cmp")
            || p.name.starts_with("xs");
        // The reference negates before it rounds.
        if p.name.contains("nmadd") || p.name.contains("nmsub") || p.name.contains("gern") {
            state.fpscr &= !2;
        }
        if p.name.starts_with("vext") && p.name.ends_with("lx") || p.name.starts_with("vext") && p.name.ends_with("rx")
        {
            // An index that leaves room for the element.
            let index = rng.below(8) as u32;
            w = if p.name.contains('d') && p.name.contains('v') && p.name.starts_with("vextd") {
                with(w, 6, 5, index)
            } else {
                with(w, 16, 5, index)
            };
            state.r[index as usize] = rng.below(9);
        }
        // The reference takes two of FPSCR's rounding modes for others.
        if p.name.starts_with("xsrqp") && w >> 16 & 1 == 0 && w >> 9 & 3 == 3 {
            state.fpscr &= !1;
        }
        if divides {
            // Neither 0 nor -1.
            for half in &mut state.vsr[32 + (w >> 11 & 31) as usize] {
                *half = *half & !0x1_0000_0001 | 0x2_0000_0002;
            }
        }
        if inserts {
            let index = rng.below(8) as u32;
            w = with(w, 16, 5, index);
            state.r[index as usize] = rng.below(9);
        }
        push(&mut code, w);
        if p.name.starts_with("fctiw") {
            // Word 0 is undefined: fmrgow replaces it.
            let t = w as u32 >> 21 & 31;
            code.push(0xfc00_068c | t << 21 | t << 16 | t << 11);
        }
        if matches!(p.name, "mtvsrd" | "mtvsrwa" | "mtvsrwz") {
            // Doubleword 1 is undefined: xxpermdi replaces it.
            code.push(splat(w));
        }
        if last {
            break;
        }
    }
    if odd {
        // fadd f31,f31,f30
        code.push(0xffff_f02a);
    }
    Test { code, state, data: vec![] }
}

/// Arithmetic with exceptions enabled in FPSCR, which MSR ignores: results are suppressed or scaled.
fn enabled(rng: &mut Rng, _: u64, _: u64) -> Test {
    let table = if rng.chance(2) { fp_double() } else { vsx_double() };
    let mut t = registers(rng, table);
    // Without VE, with which the reference keeps FI.
    t.state.fpscr = rng.next() & 0x78 | t.state.fpscr & 3;
    t
}

/// xxpermdi: doubleword 0 of the target of an X-form instruction into both.
fn splat(w: u64) -> u32 {
    let (t, x) = (w as u32 >> 21 & 31, w as u32 & 1);
    0xf000_0050 | t << 21 | t << 16 | t << 11 | x * 7
}

/// One decimal instruction on operands that are valid: with others results are undefined.
fn decimal(rng: &mut Rng) -> Test {
    let mut state = state(rng, true);
    let p = rng.pick(vmx_decimal());
    let mut w = encode(rng, p);
    if matches!(p.name, "bcdctn" | "bcdctsq") {
        w &= !0x200;
    }
    let ps = w & 0x200 != 0;
    let digits = |rng: &mut Rng, n: u64| {
        let n = rng.below(n + 1);
        (0..n).fold(0u128, |r, _| r << 4 | u128::from(rng.below(10)))
    };
    let signed = |rng: &mut Rng| digits(rng, 31) << 4 | u128::from(10 + rng.below(6));
    let a = match p.name {
        "bcds" | "bcdus" | "bcdsr" => (u128::from(rng.below(80)).wrapping_sub(40) & 0xff) << 64,
        "bcdtrunc" | "bcdutrunc" => u128::from(rng.below(40)) << 64,
        _ => signed(rng),
    };
    let b = match p.name {
        "bcdus" | "bcdutrunc" => digits(rng, 32),
        "bcdcfsq" => {
            let v = (u128::from(rng.next()) << 37 | u128::from(rng.next())) >> rng.below(101);
            if rng.chance(2) { v.wrapping_neg() } else { v }
        }
        "bcdcfn" => {
            let v = (1..8).fold(0, |r, k| r | u128::from(0x30 + rng.below(10)) << (16 * k));
            v | if rng.chance(2) { 0x2b } else { 0x2d }
        }
        "bcdcfz" => {
            let zone = if ps { 0xf0 } else { 0x30 };
            let v = (0..16).fold(0, |r, k| r | u128::from(zone + rng.below(10)) << (8 * k));
            let sign = if ps { 0xa0 + 0x10 * rng.below(6) } else { 0x30 + 0x40 * rng.below(2) };
            v & !0xf0 | u128::from(sign)
        }
        _ => signed(rng),
    };
    // Distinct registers.
    w = with(with(with(w, 21, 5, 3), 11, 5, 2), 16, 5, if p.mask >> 16 & 31 == 31 { w as u32 >> 16 & 31 } else { 1 });
    for (n, v) in [(33, a), (34, b)] {
        state.vsr[n] = [(v >> 64) as u64, v as u64];
    }
    Test { code: vec![w as u32], state, data: vec![] }
}

/// One instruction on decimal numbers of every kind.
fn decimal_float(rng: &mut Rng) -> Test {
    use rhea_float::decimal::{D32, D64, D128, Decimal, Kind, POWERS};
    let mut state = state(rng, true);
    let p = rng.pick(dfp());
    let quad = p.value >> 26 & 63 == 63;
    let mut w = encode_even(encode(rng, p), if quad { !p.mask } else { 0 });
    // Registers 2 (target), 4 and 6.
    w = with(w, 11, 5, if matches!(p.mask & 0x7fe, 0x3fe) { w as u32 >> 11 & 31 } else { 6 });
    if !p.name.starts_with("dquai")
        && !p.name.starts_with("drint")
        && !p.name.starts_with("dtstsfi")
        && p.mask & 0x1f_0000 == 0
    {
        w = with(w, 16, 5, 4);
    }
    if !p.name.starts_with("dtst") && !p.name.starts_with("dcmp") {
        w = with(w, 21, 5, 2);
    }
    let reserved = match p.name {
        n if n.starts_with("dcmp") || n.starts_with("dtstex") || n == "dtstsf" || n == "dtstsfq" => 0x60_0001,
        n if n.starts_with("dtstsfi") => 0x40_0001,
        n if n.starts_with("dtst") => 0x60_0001,
        n if n.starts_with("drint") => 0x1e_0000,
        n if n.starts_with("ddedpd") => 0x07_0000,
        n if n.starts_with("denbcd") => 0x0f_0000,
        "dctdp" | "dctqpq" | "drsp" | "drdpq" | "dcffix" | "dcffixq" | "dctfix" | "dctfixq" | "dxex" | "dxexq" => {
            0x1f_0000
        }
        _ => 0,
    };
    w &= !reserved;
    state.fpscr = rng.next() & 7 << 32;
    let near = rng.below(40) as i32;
    for n in [4, 6] {
        let f = if quad { D128 } else { D64 };
        let digits = rng.below(f.digits as u64 + 1) as usize;
        let random = u128::from(rng.next()) << 60 ^ u128::from(rng.next());
        let mut coefficient = random % POWERS[digits.max(1)];
        if rng.chance(4) {
            coefficient = POWERS[digits] - 1;
        }
        let exp = match rng.below(8) {
            0 => -f.bias() + rng.below(4) as i32,
            1 => f.top() - f.bias() - rng.below(4) as i32,
            2 => near,
            _ => near - 20 - rng.below(40) as i32,
        };
        let kind = match rng.below(14) {
            0 => Kind::Inf,
            1 => Kind::Quiet,
            2 => Kind::Signalling,
            _ => Kind::Finite,
        };
        if kind != Kind::Finite {
            // The reference makes a NaN quiet if its payload is too long for the result.
            let digits = if p.name == "drsp" { 6 } else { f.digits as usize - 1 };
            coefficient = if kind == Kind::Inf { 0 } else { coefficient % POWERS[digits] };
        }
        let d = Decimal { sign: rng.chance(2), kind, coefficient, exp };
        let mut v = rhea_float::decimal::encode(f, d);
        match p.name {
            "dctdp" => {
                let mut d = d;
                d.coefficient %= POWERS[6];
                d.exp = d.exp.clamp(-101, 90);
                v = encode_short(D32, d);
            }
            "dctqpq" => {
                let mut d = d;
                d.coefficient %= POWERS[15];
                d.exp = d.exp.clamp(-398, 369);
                v = encode_short(D64, d) << 64;
            }
            _ if p.name.starts_with("denbcd") => {
                v = (0..if quad { 31 } else { 15 }).fold(0, |r, _| r << 4 | u128::from(rng.below(10)));
                v = if w >> 20 & 1 != 0 { v << 4 | u128::from(10 + rng.below(6)) } else { v };
            }
            "dcffix" | "dcffixq" => v = u128::from(rng.int()) << if quad { 64 } else { 0 },
            _ if n == 4 && (p.name.starts_with("drrnd") || p.name.starts_with("dtstsf")) => {
                v = u128::from(rng.below(40)) << if quad { 64 } else { 0 };
            }
            _ if n == 4 && p.name.starts_with("diex") => {
                let e = (rng.below(f.top() as u64 + 6) as i64 - 4) as u64;
                v = u128::from(e) << if quad { 64 } else { 0 };
            }
            _ => {}
        }
        if quad {
            state.vsr[n][0] = (v >> 64) as u64;
            state.vsr[n + 1][0] = v as u64;
        } else {
            state.vsr[n][0] = v as u64;
        }
    }
    // The reference leaves FPRF and FI where some set them.
    Test { code: vec![w as u32, 0xffff_f02a], state, data: vec![] }
}

fn encode_short(f: rhea_float::decimal::Format, d: rhea_float::decimal::Decimal) -> u128 {
    rhea_float::decimal::encode(f, d)
}

/// Even register numbers for pairs; `free`: bits that may be changed.
fn encode_even(w: u64, free: u64) -> u64 {
    w & !((1 << 21 | 1 << 16 | 1 << 11) & free)
}

/// Quads: of every kind, some of doubles.
fn quad(rng: &mut Rng) -> Test {
    let mut t = registers(rng, vsx_quad());
    for v in &mut t.state.vsr[32..] {
        let sign = rng.next() & 1 << 63;
        let (exponent, fraction): (u64, u128) = match rng.below(10) {
            0 => (0, 0),
            1 => (0x7fff, 0),
            2 => (0x7fff, u128::from(rng.next()) << 40),
            3 => (0, u128::from(rng.next())),
            4 => (0x3fff + rng.below(130) - 3, u128::from(rng.next()) << 48),
            5 => (0x3fff + rng.below(130) - 3, 0),
            6 => (0x7ffe, u128::MAX),
            7 => (rng.below(0x7fff), u128::from(rng.next()) << 50 | u128::from(rng.next())),
            8 => (0x3fff - 1030 + rng.below(2060), u128::from(rng.next()) << 48 | u128::from(rng.next())),
            _ => (0x3fff + rng.below(8), u128::from(rng.next()) << 48 | u128::from(rng.next())),
        };
        let fraction = fraction & ((1 << 112) - 1);
        *v = [sign | exponent << 48 | (fraction >> 64) as u64, fraction as u64];
    }
    t
}

/// Loads of single elements, whose other elements are undefined.
fn elements_only(rng: &mut Rng, _: u64, area: u64) -> Test {
    let mut m = Memory::new(rng, area, true);
    while !m.full() && m.test.code.len() < 4 {
        let p = rng.pick(elements());
        let (x, d) = m.index(rng);
        let b = m.base(rng, 1, d);
        let w = with(with(encode(rng, p), 16, 5, b), 11, 5, x);
        push(&mut m.test.code, w);
    }
    m.test
}

/// Loads and stores of every form.
fn access(rng: &mut Rng, _: u64, area: u64) -> Test {
    let mut m = Memory::new(rng, area, true);
    for _ in 0..1 + rng.below(4) {
        if m.full() {
            break;
        }
        let p = rng.pick(memory());
        let mut w = encode(rng, p);
        let prefixed = p.mask >> 32 != 0;
        let primary = w >> 26 & 63;
        if prefixed {
            // Not relative to the instruction; a small displacement.
            let d = rng.next() as i16 as i64;
            let b = m.base(rng, 1, d);
            w &= !(1 << 52 | 0x3_ffff << 32 | 0xffff);
            w |= (d as u64 >> 16 & 0x3_ffff) << 32 | d as u64 & 0xffff;
            w = with(w, 16, 5, b);
        } else if primary == 31 {
            if p.name.ends_with("vl") || p.name.ends_with("vll") {
                let b = m.base(rng, 1, 0);
                let n = 12 + rng.below(8) as u32;
                m.test.state.r[n as usize] = rng.below(20) << 56;
                w = with(with(w, 16, 5, b), 11, 5, n);
            } else {
                let (x, d) = m.index(rng);
                let b = m.base(rng, 1, d);
                w = with(with(w, 16, 5, b), 11, 5, x);
            }
        } else {
            let low = if primary == 6 || p.name == "lxv" || p.name == "stxv" {
                15
            } else if p.mask & 3 != 0 {
                3
            } else {
                0
            };
            let d = rng.next() as i16 as i64 & !low;
            let b = m.base(rng, 1, d);
            w = with(w & !(0xffff & !(low as u64)), 16, 5, b) | d as u64 & 0xffff & !(low as u64);
        }
        if p.name.starts_with("lfdp") || p.name.starts_with("stfdp") {
            w &= !(1 << 21);
        }
        push(&mut m.test.code, w);
        if matches!(p.name, "lxsdx" | "lxsspx" | "lxsiwax" | "lxsiwzx" | "lxsibzx" | "lxsihzx") {
            m.test.code.push(splat(w));
        }
    }
    m.test
}
