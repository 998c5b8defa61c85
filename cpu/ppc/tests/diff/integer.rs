//! The classes of fixed-point and branch instructions. Encodings come from the translator's own pattern tables.

use super::asm::{LR, TAR, addi, mfspr, mtspr};
use super::check::{Class, encoding, patterns, push, random_test, state};
use super::program::Test;
use rhea_diff::Rng;
use rhea_ppc::translate::Pattern;
use std::sync::OnceLock;

macro_rules! table {
    ($($name:expr),* $(,)?) => {{
        static TABLE: OnceLock<Vec<&'static Pattern>> = OnceLock::new();
        TABLE.get_or_init(|| patterns(&[$($name),*])).as_slice()
    }};
}

const fn class(name: &'static str, make: fn(&mut Rng, u64, u64) -> Test) -> Class {
    Class { name, make, fp: false, narrow: true, big: false, alone: false }
}

pub static CLASSES: &[Class] = &[
    class("arithmetic", arithmetic),
    class("division", division),
    class("logical", logical),
    class("conditions", conditions),
    class("traps", traps),
    class("branches", branches),
];

fn arithmetic_table() -> &'static [&'static Pattern] {
    table![
        "addi", "addis", "addpcis", "addic", "subfic", "mulli", "add", "subf", "addc", "subfc", "adde", "subfe",
        "addme", "subfme", "addze", "subfze", "addex", "neg", "mullw", "mulld", "mulhw", "mulhwu", "mulhd", "mulhdu",
        "maddhd", "maddhdu", "maddld", "addg6s", "paddi"
    ]
}

fn arithmetic(rng: &mut Rng, _: u64, _: u64) -> Test {
    random_test(rng, arithmetic_table(), 8, false, fix)
}

/// Reserved values of fields are rare.
fn fix(rng: &mut Rng, p: &Pattern, w: u64) -> u64 {
    match p.name {
        // CY
        "addex" if !rng.chance(8) => w & !0x600,
        // RA beside R
        "paddi" if w >> 52 & 1 != 0 && !rng.chance(8) => w & !0x1f_0000,
        _ => w,
    }
}

/// Without overflow, after which results are undefined.
fn division(rng: &mut Rng, _: u64, _: u64) -> Test {
    let table = table![
        "divw", "divwu", "divd", "divdu", "divwe", "divweu", "divde", "divdeu", "modsw", "moduw", "modsd", "modud"
    ];
    let mut state = state(rng, false);
    let p = rng.pick(table);
    let w = encoding(rng, p) as u32;
    let (ra, rb) = ((w >> 16 & 31) as usize, (w >> 11 & 31) as usize);
    let word = p.name.ends_with('w') || p.name.ends_with("wu") || p.name.contains("we");
    let extended = p.name.starts_with("divwe") || p.name.starts_with("divde");
    loop {
        let (a, b) = (state.r[ra], state.r[rb]);
        let (a, b) = if word { (a as i32 as u64, b as i32 as u64) } else { (a, b) };
        let bits = if word { 32 } else { 64 };
        let unsigned = p.name.ends_with('u') || p.name.starts_with("modu");
        let mask = u128::MAX >> (128 - bits);
        let fine = if b as u128 & mask == 0 {
            false
        } else if unsigned {
            !extended || (a as u128 & mask) < (b as u128 & mask)
        } else {
            let (a, b) = (i128::from(a as i64), i128::from(b as i64));
            let a = if extended { a << bits } else { a };
            a.checked_div(b).is_some_and(|q| q >= -(1 << (bits - 1)) && q < 1 << (bits - 1))
        };
        if fine {
            break;
        }
        state.r[rb] = rng.int();
        state.r[ra] = if extended && ra != rb { rng.int() >> (1 + rng.below(63)) } else { state.r[ra] };
        if ra == rb {
            // Only one of them: an extended quotient of equal operands overflows.
            return Test { code: vec![addi(rb as u32, 0, 7)], state, data: vec![] };
        }
    }
    Test { code: vec![w], state, data: vec![] }
}

fn logical_table() -> &'static [&'static Pattern] {
    table![
        "andi_rec", "ori", "xori", "and", "andc", "nor", "eqv", "xor", "orc", "or", "nand", "extsb", "extsh", "extsw",
        "cntlzw", "cnttzw", "cntlzd", "cnttzd", "popcntb", "popcntw", "popcntd", "prtyw", "prtyd", "cmpb", "bpermd",
        "cfuged", "cntlzdm", "cnttzdm", "pdepd", "pextd", "brh", "brw", "brd", "slw", "srw", "sld", "srd", "sraw",
        "srawi", "srad", "sradi", "extswsli", "rlwimi", "rlwinm", "rlwnm", "rldicl", "rldicr", "rldic", "rldimi",
        "rldcl", "rldcr", "cdtbcd", "cbcdtd"
    ]
}

fn logical(rng: &mut Rng, _: u64, _: u64) -> Test {
    let mut t = random_test(rng, logical_table(), 8, false, |_, _, w| w);
    // Digits, of which others than 0–9 convert to anything.
    if t.code.iter().any(|w| w & 0xfc00_07fe == 0x7c00_0274) {
        for r in &mut t.state.r {
            *r = (0..16).fold(0, |v, _| v << 4 | rng.below(10));
        }
        t.code.truncate(1);
        t.code[0] = 0x7c00_0274 | t.code[0] & 0x03ff_0000;
    }
    t
}

fn conditions_table() -> &'static [&'static Pattern] {
    table![
        "cmpi", "cmpli", "cmp", "cmpl", "cmprb", "cmpeqb", "setb", "setbc", "setbcr", "setnbc", "setnbcr", "isel",
        "mcrf", "crnor", "crandc", "crxor", "crnand", "crand", "creqv", "crorc", "cror", "mfcr", "mfocrf", "mtcrf",
        "mtocrf", "mcrxrx", "mfxer", "mtxer", "mflr", "mtlr", "mfctr", "mtctr", "mftar", "mttar"
    ]
}

fn conditions(rng: &mut Rng, _: u64, _: u64) -> Test {
    let mut t = random_conditions(rng);
    // The reference keeps bits of XER that do not exist.
    if t.code.iter().any(|w| w & 0xfc1f_ffff == 0x7c01_03a6) {
        t.state.r.iter_mut().for_each(|r| *r &= XER);
        t.code.retain(|w| w & 0xfc1f_ffff != 0x7c01_02a6);
    }
    t
}

fn random_conditions(rng: &mut Rng) -> Test {
    random_test(rng, conditions_table(), 12, false, |rng, p, w| match p.name {
        // One field.
        "mfocrf" | "mtocrf" => w & !0xf_f000 | 0x1000 << rng.below(8),
        _ => w,
    })
}

/// Bits of XER that exist.
pub const XER: u64 = 0xe00c_007f;

fn traps(rng: &mut Rng, _: u64, _: u64) -> Test {
    random_test(rng, table!["tw", "td", "twi", "tdi"], 6, false, |rng, _, w| {
        // Against itself, for equality.
        if rng.chance(4) { w & !0xf800 | (w >> 16 & 31) << 11 } else { w }
    })
}

/// A word of computation that changes the condition register or CTR now and then.
fn filler(rng: &mut Rng, code: &mut Vec<u32>) {
    loop {
        let table = rng.pick(&[arithmetic_table(), logical_table(), conditions_table()]);
        let p = rng.pick(table);
        // What knows its own address, or writes registers that loops count with.
        if matches!(p.name, "addpcis" | "paddi" | "mtctr" | "mtlr" | "mtxer" | "cbcdtd" | "addex" | "mtocrf" | "mfocrf")
        {
            continue;
        }
        let w = encoding(rng, p);
        // Registers 28 to 31 hold addresses; targets are in bits 6–10 or 11–15.
        if w >> 21 & 31 >= 28 || w >> 16 & 31 >= 28 {
            continue;
        }
        push(code, w);
        return;
    }
}

/// Forward branches of every kind over a few instructions, calls and returns, and counted loops.
fn branches(rng: &mut Rng, _: u64, _: u64) -> Test {
    let mut state = state(rng, false);
    let mut code = Vec::new();
    for _ in 0..1 + rng.below(4) {
        let mut body = Vec::new();
        for _ in 0..rng.below(4) {
            filler(rng, &mut body);
        }
        let bi = rng.below(32) as u32;
        let bo = rng.pick(&[4u32, 12, 20, 16, 18, 0, 2, 8, 10, 7, 15]);
        let lk = rng.below(2) as u32;
        let over = 4 * (body.len() as u32 + 1);
        match rng.below(8) {
            0 | 1 => {
                code.push(0x4000_0000 | bo << 21 | bi << 16 | over | lk);
                code.append(&mut body);
            }
            2 => {
                code.push(0x4800_0000 | over | lk);
                code.append(&mut body);
            }
            // A loop of two or three rounds; the body keeps CTR.
            3 | 4 => {
                code.push(addi(28, 0, 2 + rng.below(2) as i32));
                code.push(mtspr(9, 28));
                let back = (body.len() as u32 * 4).wrapping_neg() & 0xfffc;
                let bo = rng.pick(&[16u32, 0, 8]);
                code.append(&mut body);
                code.push(0x4000_0000 | bo << 21 | bi << 16 | back);
            }
            // bcl 20,31,.+4; mflr; a branch by register behind the body.
            _ => {
                code.extend([0x429f_0005, mfspr(29, LR)]);
                let (xo, spr) = rng.pick(&[(16u32, 8u32), (528, 9), (560, TAR)]);
                let distance = 4 * (4 + body.len() as u32);
                code.push(addi(29, 29, distance as i32 + rng.below(4) as i32));
                code.push(mtspr(spr, 29));
                let bo = if xo == 528 { rng.pick(&[4u32, 12, 20]) } else { bo };
                let bh = rng.pick(&[0u32, 0, 1]);
                code.push(0x4c00_0000 | bo << 21 | bi << 16 | bh << 11 | xo << 1 | lk);
                code.append(&mut body);
                code.push(addi(29, 0, 0));
                code.push(mtspr(8, 29));
                code.push(mtspr(9, 29));
            }
        }
        // LR is an address of the program's; not part of what is compared across programs, but the same everywhere.
        filler(rng, &mut code);
    }
    state.ctr = rng.pick(&[0, 1, 2, 1 << 32, state.ctr]);
    Test { code, state, data: vec![] }
}
