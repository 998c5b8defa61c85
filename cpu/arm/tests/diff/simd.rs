//! FP and AdvSIMD classes, and mixtures of everything.

use super::check::{Against, Class, config, patterns};
use super::classes::{Memory, sp_fit, with};
use super::program::{DATA_SIZE, Test};
use super::random::Random;
use rhea_arm::helpers::system;
use rhea_arm::translate::{self, Pattern, decoder, simd};
use rhea_arm::{ArmConfig, ArmCpu};
use rhea_diff::Rng;
use rhea_ir::{Builder, FpMode, Function, Guest, Op};
use std::sync::{Arc, OnceLock};

/// A random encoding of the pattern that no more specific pattern hides.
fn encoding(rng: &mut Rng, p: &Pattern) -> u32 {
    loop {
        let w = p.encoding(rng.next() as u32);
        if decoder().find(w).is_some_and(|q| std::ptr::eq(q, p)) {
            return w;
        }
    }
}

/// Gives the operands of an instruction floating-point lanes of the size it probably uses.
fn float_operands(rng: &mut Rng, test: &mut Test, w: u32) {
    let bits = if w >> 24 & 0x1e == 0x1e { [32, 64, 64, 16][(w >> 22 & 3) as usize] } else { rng.pick(&[16, 32, 64]) };
    for n in [w, w >> 5, w >> 10, w >> 16] {
        test.state.v[(n & 31) as usize] = rng.floats(bits);
    }
}

fn table(n: usize) -> Vec<&'static Pattern> {
    let only = std::env::var("RHEA_DIFF_PATTERN").ok();
    let all: Vec<_> = simd::tables()[n].iter().collect();
    let some: Vec<_> =
        all.iter().copied().filter(|p| only.as_ref().is_some_and(|o| p.name.contains(o.as_str()))).collect();
    if some.is_empty() { all } else { some }
}

/// One to three instructions of a table; the first goes through its patterns in turn.
fn from_table(rng: &mut Rng, n: u64, table: &[&'static Pattern]) -> Test {
    let mut test = Test { code: vec![], state: rng.state(true), data: vec![] };
    let more = if rng.chance(2) { 0 } else { rng.below(3) };
    let first = encoding(rng, table[n as usize % table.len()]);
    if rng.chance(2) {
        float_operands(rng, &mut test, first);
    }
    test.code.push(first);
    for _ in 0..more {
        let p = rng.pick(table);
        let w = encoding(rng, p);
        test.code.push(w);
    }
    test
}

macro_rules! table_class {
    ($($name:ident $n:literal;)*) => { $(
        fn $name(rng: &mut Rng, n: u64, _: u64) -> Test {
            static TABLE: OnceLock<Vec<&'static Pattern>> = OnceLock::new();
            from_table(rng, n, TABLE.get_or_init(|| table($n)))
        }
    )* };
}

table_class! {
    fp_scalar 0;
    simd_vector 1;
    simd_scalar 2;
    crypto 3;
}

/// LD1–LD4, ST1–ST4 of all kinds.
fn structures(rng: &mut Rng, _: u64, area: u64) -> Test {
    static TABLE: OnceLock<Vec<&'static Pattern>> = OnceLock::new();
    let table = TABLE.get_or_init(|| table(4));
    let mut m = Memory::new(rng, area);
    for _ in 0..1 + rng.below(4) {
        let p = rng.pick(table);
        let base = m.base(rng);
        let mut w = with(encoding(rng, p), 5, 5, base);
        if p.name.ends_with("post") && rng.chance(2) {
            w |= 31 << 16;
        }
        // At most 64 bytes are accessed.
        let place = m.place(rng, 1);
        m.set(base, sp_fit(base, place));
        m.test.code.push(w);
    }
    m.test
}

/// Integer instructions that change nothing but data registers and flags.
fn integer_table() -> &'static [&'static Pattern] {
    static TABLE: OnceLock<Vec<&'static Pattern>> = OnceLock::new();
    TABLE.get_or_init(|| {
        patterns(&[
            "add_sub_imm",
            "logical_imm",
            "move_wide",
            "bitfield",
            "extr",
            "logical_reg",
            "add_sub_shifted",
            "add_sub_extended",
            "adc_sbc",
            "ccmp_reg",
            "ccmp_imm",
            "csel",
            "madd_msub",
            "mul_long",
            "mul_high",
            "div",
            "shift_var",
            "crc32",
            "rbit",
            "rev",
            "clz_cls",
            "adr",
        ])
    })
}

fn memory_table() -> &'static [&'static Pattern] {
    static TABLE: OnceLock<Vec<&'static Pattern>> = OnceLock::new();
    TABLE.get_or_init(|| {
        patterns(&[
            "ldst_unscaled",
            "ldst_imm",
            "ldst_fp_unscaled",
            "ldst_fp_imm",
            "ldst_pair",
            "ldst_fp_pair",
            "ldst_multiple",
            "ldst_single",
            "ldop",
            "swp",
            "ldar",
            "stlr",
            "ldapur",
            "cas",
        ])
    })
}

/// Registers that instructions of [`mixed`] and [`super::faults`] do not write unless that is their purpose.
pub const KEPT: std::ops::Range<u32> = 19..29;

/// Is the encoding allocated (as far as translation can tell)?
pub fn allocated(w: u32) -> bool {
    static CONFIG: OnceLock<Arc<ArmConfig>> = OnceLock::new();
    let mut f = Function::new(FpMode::default());
    let block = f.new_block(0);
    let mut b = Builder::new(&mut f, ArmCpu::HELPERS, block);
    translate::translate(CONFIG.get_or_init(config), 0, 0, &w.to_le_bytes(), 1, &mut b);
    !f.insts.iter().any(|i| i.op == Op::Call && i.imm == system::UNDEF.0 as u64)
}

/// FP and AdvSIMD patterns for [`computation`].
pub fn computation_tables() -> &'static [Vec<&'static Pattern>] {
    static TABLES: OnceLock<Vec<Vec<&'static Pattern>>> = OnceLock::new();
    TABLES.get_or_init(|| (0..4).map(table).collect())
}

/// An instruction of the mixture that does not access memory.
pub fn computation(rng: &mut Rng, tables: &[Vec<&'static Pattern>]) -> u32 {
    let p = if rng.chance(2) {
        rng.pick(integer_table())
    } else {
        let t = rng.below(tables.len() as u64) as usize;
        rng.pick(&tables[t])
    };
    loop {
        let mut w = encoding(rng, p);
        if KEPT.contains(&(w & 31)) {
            w &= !16;
            w = with(w, 0, 5, (w & 31) % 19);
        }
        if !allocated(w) {
            continue;
        }
        // SP is data nowhere: a write to it would have to be undone.
        let sp = w & 31 == 31 && matches!(p.name, "add_sub_imm" | "logical_imm" | "add_sub_extended");
        if !sp && decoder().find(w).is_some_and(|q| std::ptr::eq(q, p)) {
            return w;
        }
    }
}

fn writeback_table() -> &'static [&'static Pattern] {
    static TABLE: OnceLock<Vec<&'static Pattern>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut all = memory_table().to_vec();
        all.extend(patterns(&[
            "ldst_post",
            "ldst_pre",
            "ldst_fp_post",
            "ldst_fp_pre",
            "ldst_multiple_post",
            "ldst_single_post",
            "ldst_unprivileged",
            "ldxr",
            "ldxp",
            "casp",
        ]));
        all
    })
}

/// A memory instruction at `[Xbase]`, with `writeback` or without, and the displacement of its access.
pub fn access(rng: &mut Rng, base: u32, writeback: bool) -> (u32, i64) {
    loop {
        let p = rng.pick(if writeback { writeback_table() } else { memory_table() });
        let mut w = with(encoding(rng, p), 5, 5, base);
        let reg = |n: u32| if KEPT.contains(&n) { n - 19 } else { n };
        w = with(w, 0, 5, reg(w & 31));
        if p.name.contains("pair") || p.name == "ldxp" {
            w = with(w, 10, 5, reg(w >> 10 & 31));
        }
        match p.name {
            "ldop" | "swp" | "cas" => w = with(w, 16, 5, reg(w >> 16 & 31)),
            "casp" => w = with(with(w, 0, 5, w & 14), 16, 5, w >> 16 & 14),
            "ldar" | "stlr" | "ldxr" => w |= 31 << 16 | 31 << 10,
            "ldxp" if w & 31 == w >> 10 & 31 => continue,
            "ldxp" => w |= 31 << 16,
            _ => {}
        }
        let imm9 = ((w << 11) as i32 >> 23) as i64;
        let fp = w >> 26 & 1 != 0;
        let disp = match p.name {
            "ldst_unscaled" | "ldst_fp_unscaled" | "ldapur" | "ldst_pre" | "ldst_fp_pre" | "ldst_unprivileged" => imm9,
            "ldst_imm" | "ldst_fp_imm" => {
                let size = if fp && w >> 23 & 1 != 0 { 4 } else { w >> 30 };
                ((w >> 10 & 0xfff) << size) as i64
            }
            "ldst_pair" | "ldst_fp_pair" => {
                // No equal registers, no STGP.
                if (!writeback && w >> 23 & 1 != 0)
                    || w & 31 == w >> 10 & 31
                    || (!fp && w >> 30 == 1 && w >> 22 & 1 == 0)
                {
                    continue;
                }
                let size = if fp { (w >> 30) + 2 } else { 2 + (w >> 31) };
                if w >> 23 & 3 == 1 { 0 } else { ((w << 10) as i32 >> 25) as i64 * (1 << size.min(4)) }
            }
            _ => 0,
        };
        if decoder().find(w).is_some_and(|q| std::ptr::eq(q, p)) && allocated(w) {
            return (w, disp);
        }
    }
}

/// Long sequences of everything, in loops.
fn mixed(rng: &mut Rng, _: u64, area: u64) -> Test {
    let tables = computation_tables();
    let mut test = Test { code: vec![], state: rng.state(true), data: rng.data() };
    let mut bases = KEPT.start..KEPT.end - 1;
    let counted = rng.chance(2);
    if counted {
        // mov x28, #n
        test.code.push(0xd280_001c | (1 + rng.below(4) as u32) << 5);
    }
    let head = test.code.len();
    for _ in 0..rng.below(40) {
        match rng.below(8) {
            0 | 1 => {
                let Some(base) = bases.next() else { continue };
                let (w, disp) = access(rng, base, false);
                // Aligned as atomics want it, most of the time.
                let place = area + 128 + if rng.chance(8) { rng.below(192) } else { rng.below(12) * 16 };
                test.state.x[base as usize] = place.wrapping_sub(disp as u64);
                // Misaligned atomics would fault.
                let atomic =
                    w >> 24 & 0x3f == 0x08 || (w >> 24 & 0x3f == 0x38 && w >> 21 & 1 != 0) || w >> 24 & 0x3f == 0x19;
                if atomic {
                    test.state.x[base as usize] = ((place + 8) & !15).wrapping_sub(disp as u64);
                }
                test.code.push(w);
            }
            2 => {
                // Over the next one or two.
                let w = match rng.below(3) {
                    0 => 0x5400_0040 | rng.below(16) as u32,
                    1 => 0x3400_0040 | (rng.next() as u32 & (1 << 31 | 1 << 24)) | rng.below(28) as u32,
                    _ => 0x3600_0040 | (rng.next() as u32 & (1 << 31 | 1 << 24 | 31 << 19)) | rng.below(28) as u32,
                };
                let first = computation(rng, tables);
                test.code.extend([w, first]);
            }
            _ => {
                let w = computation(rng, tables);
                test.code.push(w);
            }
        }
    }
    if counted {
        // subs x28, x28, #1; b.ne head
        test.code.push(0xf100_079c);
        let back = (head as i32 - test.code.len() as i32) as u32 & 0x7_ffff;
        test.code.push(0x5400_0001 | back << 5);
    }
    // A branch over the last one goes no further than the code.
    test.code.push(0xd503_201f);
    debug_assert!(test.data.len() as u64 == DATA_SIZE);
    test
}

pub const CLASSES: &[Class] = &[
    Class { name: "fp_scalar", make: fp_scalar, against: Against::Reference },
    Class { name: "simd_vector", make: simd_vector, against: Against::Reference },
    Class { name: "simd_scalar", make: simd_scalar, against: Against::Reference },
    Class { name: "crypto", make: crypto, against: Against::Reference },
    Class { name: "structures", make: structures, against: Against::ReferenceAndModes },
    Class { name: "mixed", make: mixed, against: Against::ReferenceAndModes },
];
