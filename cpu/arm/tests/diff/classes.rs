//! The classes of the base instruction set. Encodings come from the translator's own pattern tables.

use super::check::{Against, Class, patterns};
use super::program::Test;
use super::random::Random;
use rhea_arm::translate::Pattern;
use rhea_diff::Rng;
use std::sync::OnceLock;

/// A test of up to `max` instructions, each a random encoding of one of the patterns, passed through `fix`.
pub fn random_test(
    rng: &mut Rng,
    table: &[&'static Pattern],
    max: u64,
    fp: bool,
    fix: impl Fn(&mut Rng, u32) -> u32,
) -> Test {
    let state = rng.state(fp);
    let n = if rng.chance(2) { 1 } else { 1 + rng.below(max) };
    let code = (0..n)
        .map(|_| {
            let p = rng.pick(table);
            let word = p.encoding(rng.next() as u32);
            fix(rng, word)
        })
        .collect();
    Test { code, state, data: vec![] }
}

macro_rules! table {
    ($($name:expr),* $(,)?) => {{
        static TABLE: OnceLock<Vec<&'static Pattern>> = OnceLock::new();
        TABLE.get_or_init(|| patterns(&[$($name),*]))
    }};
}

/// Fields that mostly would make an encoding unallocated or dull are made likelier to be useful.
fn immediate(rng: &mut Rng, table: &[&'static Pattern]) -> Test {
    random_test(rng, table, 8, false, |rng, w| {
        let bitfield = matches!(w >> 23 & 63, 0b100100 | 0b100110 | 0b100111);
        // N equal to sf for bitfields and extracts; 32-bit positions below 32.
        match (bitfield && !rng.chance(8), w >> 31) {
            (true, 1) if w >> 23 & 63 != 0b100100 => w | 1 << 22,
            (true, 0) if w >> 23 & 63 != 0b100100 => w & !(1 << 22 | 1 << 21 | 1 << 15),
            (true, 0) => w & !(1 << 22),
            _ => w,
        }
    })
}

fn dp_immediate(rng: &mut Rng, _: u64, _: u64) -> Test {
    immediate(rng, table!["adr", "adrp", "add_sub_imm", "logical_imm", "move_wide", "bitfield", "extr"])
}

fn dp_register(rng: &mut Rng, _: u64, _: u64) -> Test {
    let table = table![
        "logical_reg",
        "add_sub_shifted",
        "add_sub_extended",
        "adc_sbc",
        "rmif",
        "setf",
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
        "cfinv",
        "xaflag",
        "axflag"
    ];
    random_test(rng, table, 8, false, |rng, w| {
        let shifted = matches!(w >> 24 & 31, 0b01010 | 0b01011) && w >> 21 & 1 == 0;
        // Should-be-zero fields of flag manipulation.
        let w = if w >> 12 == 0xd5004 { w & !0xf00 } else { w };
        if shifted && w >> 31 == 0 && !rng.chance(8) { w & !(1 << 15) } else { w }
    })
}

/// The log2 of the size and displacement of a single-register form, and whether it writes back.
fn single_form(w: u32) -> (u32, i64, bool) {
    let fp = w >> 26 & 1 != 0;
    let size = if fp && w >> 23 & 1 != 0 { 4 } else { w >> 30 };
    let imm9 = ((w << 11) as i32 >> 23) as i64;
    if w >> 24 & 1 != 0 {
        return (size, ((w >> 10 & 0xfff) << size) as i64, false);
    }
    match w >> 10 & 3 {
        1 => (size, 0, true),
        3 => (size, imm9, true),
        _ => (size, imm9, false),
    }
}

/// Registers of memory tests: bases 20–23 (or SP), indexes 24–27, data others, all renamed by a rotation.
pub struct Memory {
    pub test: Test,
    area: u64,
    used: u32,
}

impl Memory {
    pub fn new(rng: &mut Rng, area: u64) -> Memory {
        Memory { test: Test { code: vec![], state: rng.state(false), data: rng.data() }, area, used: 0 }
    }
    pub fn base(&mut self, rng: &mut Rng) -> u32 {
        let n = self.used;
        self.used += 1;
        if n == 0 && rng.chance(4) { 31 } else { 20 + n }
    }
    /// A data register.
    fn reg(rng: &mut Rng) -> u32 {
        if rng.chance(8) { 31 } else { rng.below(20) as u32 }
    }
    /// An address in the middle of the area, aligned to `align`.
    pub fn place(&self, rng: &mut Rng, align: u64) -> u64 {
        // Now and then with a tag.
        let tag = if rng.chance(4) { rng.below(256) << 56 } else { 0 };
        (self.area + 128 + rng.below(192)) & !(align - 1) | tag
    }
    pub fn set(&mut self, n: u32, v: u64) {
        if n == 31 { self.test.state.sp = v } else { self.test.state.x[n as usize] = v }
    }
}

pub const fn with(w: u32, lo: u32, width: u32, v: u32) -> u32 {
    let mask = ((1u32 << width) - 1) << lo;
    (w & !mask) | (v << lo & mask)
}

/// An SP base must stay a multiple of 16.
pub fn sp_fit(base: u32, v: u64) -> u64 {
    if base == 31 { v & !15 } else { v }
}

fn load_store_single(rng: &mut Rng, _: u64, area: u64) -> Test {
    let table = table![
        "ldst_unscaled",
        "ldst_post",
        "ldst_pre",
        "ldst_unprivileged",
        "ldst_imm",
        "ldst_fp_unscaled",
        "ldst_fp_post",
        "ldst_fp_pre",
        "ldst_fp_imm"
    ];
    let mut m = Memory::new(rng, area);
    for _ in 0..1 + rng.below(4) {
        let w = rng.pick(table).encoding(rng.next() as u32);
        let base = m.base(rng);
        let w = with(with(w, 0, 5, Memory::reg(rng)), 5, 5, base);
        let (_, disp, _) = single_form(w);
        let place = m.place(rng, 1);
        m.set(base, sp_fit(base, place.wrapping_sub(disp as u64)));
        m.test.code.push(w);
    }
    m.test
}

fn load_store_register(rng: &mut Rng, _: u64, area: u64) -> Test {
    let table = table!["ldst_reg", "ldst_fp_reg"];
    let mut m = Memory::new(rng, area);
    for _ in 0..1 + rng.below(4) {
        let w = rng.pick(table).encoding(rng.next() as u32);
        let base = m.base(rng);
        let index = 24 + m.used;
        let mut w = with(with(with(w, 0, 5, Memory::reg(rng)), 5, 5, base), 16, 5, index);
        if !rng.chance(8) {
            w |= 1 << 14;
        }
        let (size, _, _) = single_form(w & !(3 << 10));
        let value = rng.int();
        let extended = match w >> 13 & 7 {
            2 => value as u32 as u64,
            6 => value as i32 as u64,
            _ => value,
        };
        let offset = if w >> 12 & 1 != 0 { extended << size } else { extended };
        let place = m.place(rng, 1);
        m.set(index, value);
        if base == 31 {
            // The index must keep SP aligned: a small multiple of 16 instead.
            m.set(index, 16);
            m.set(31, place & !15);
            w |= 1 << 14;
            w = with(w, 13, 2, 3) & !(1 << 12);
        } else {
            m.set(base, place.wrapping_sub(offset));
        }
        m.test.code.push(w);
    }
    m.test
}

fn load_store_pair(rng: &mut Rng, _: u64, area: u64) -> Test {
    let table = table!["ldst_pair", "ldst_fp_pair"];
    let mut m = Memory::new(rng, area);
    for _ in 0..1 + rng.below(4) {
        let w = rng.pick(table).encoding(rng.next() as u32);
        let base = m.base(rng);
        let fp = w >> 26 & 1 != 0;
        let rt = Memory::reg(rng);
        let mut rt2 = Memory::reg(rng);
        if rt == rt2 {
            rt2 = (rt + 1) % 20;
        }
        let w = with(with(with(w, 0, 5, rt), 5, 5, base), 10, 5, rt2);
        let size = if fp {
            (w >> 30) + 2
        } else if w >> 31 != 0 {
            3
        } else {
            2
        };
        let imm = ((w << 10) as i32 >> 25) as i64 * (1 << size.min(4));
        let disp = if w >> 23 & 3 == 1 { 0 } else { imm };
        let place = m.place(rng, 1);
        let fit = sp_fit(base, place.wrapping_sub(disp as u64));
        m.set(base, fit);
        // STGP shares an encoding with the pairs, and the reference has it.
        let opc1 = !fp && w >> 30 == 1;
        m.test.code.push(if opc1 { w | 1 << 22 | 1 << 23 } else { w });
    }
    // With two forms forced together the displacement may have changed: place again.
    let code = m.test.code.clone();
    for w in code {
        if w >> 26 & 1 == 0 && w >> 30 == 1 {
            let imm = ((w << 10) as i32 >> 25) as i64 * 4;
            let disp = if w >> 23 & 3 == 1 { 0 } else { imm };
            let place = m.place(rng, 1);
            let base = w >> 5 & 31;
            m.set(base, sp_fit(base, place.wrapping_sub(disp as u64)));
        }
    }
    m.test
}

fn literals(rng: &mut Rng, _: u64, _: u64) -> Test {
    let table = table!["ldr_literal", "ldr_literal_fp"];
    random_test(rng, table, 4, false, |rng, w| {
        let offset = rng.below(32) as i32 - 16;
        with(w, 5, 19, offset as u32 & 0x7_ffff)
    })
}

fn atomics(rng: &mut Rng, _: u64, area: u64) -> Test {
    let table = table!["ldop", "swp", "cas", "casp", "ldar", "stlr", "ldapr", "ldapur", "ldlar", "stllr"];
    let mut m = Memory::new(rng, area);
    for _ in 0..1 + rng.below(4) {
        let p = rng.pick(table);
        let w = p.encoding(rng.next() as u32);
        let base = m.base(rng);
        let mut w = with(with(w, 0, 5, Memory::reg(rng)), 5, 5, base);
        let size = match p.name {
            "casp" => 3 + (w >> 30 & 1),
            _ => w >> 30,
        };
        let disp = if p.name == "ldapur" { ((w << 11) as i32 >> 23) as i64 } else { 0 };
        if p.name != "ldapur" {
            w = with(w, 16, 5, Memory::reg(rng));
        }
        if p.name == "casp" && !rng.chance(8) {
            w &= !(1 << 16 | 1);
        }
        if p.name == "ldapur" && base == 31 {
            w = with(w, 12, 4, 0);
        }
        let disp = if base == 31 { ((w << 11) as i32 >> 23) as i64 * (p.name == "ldapur") as i64 } else { disp };
        // Unused register fields must be ones.
        match p.name {
            "ldar" | "stlr" | "ldlar" | "stllr" => w |= 31 << 16 | 31 << 10,
            "ldapr" => w |= 31 << 16,
            _ => {}
        }
        // Aligned, or anywhere inside 16 bytes (FEAT_LSE2).
        let place = if rng.chance(3) {
            let slack = 16 - (1 << size);
            m.place(rng, 16) + if slack == 0 { 0 } else { rng.below(slack + 1) }
        } else {
            m.place(rng, 1 << size)
        };
        m.set(base, sp_fit(base, place).wrapping_sub(disp as u64));
        // A compare that succeeds now and then.
        if p.name.starts_with("cas") && rng.chance(2) {
            let rs = w >> 16 & 31;
            let at = (m.test.state_base(base).wrapping_sub(area) & 0x00ff_ffff_ffff_ffff) as usize;
            let bytes = 1usize << size;
            if rs < 19 && at + bytes <= m.test.data.len() {
                let mut b = [0u8; 16];
                b[..bytes].copy_from_slice(&m.test.data[at..at + bytes]);
                let v = u128::from_le_bytes(b);
                if p.name == "cas" {
                    m.set(rs, v as u64 | if size < 3 { rng.next() << (8 * bytes) } else { 0 });
                } else if size == 3 {
                    m.set(rs, v as u32 as u64 | rng.next() << 32);
                    m.set(rs + 1, (v >> 32) as u32 as u64);
                } else {
                    m.set(rs, v as u64);
                    m.set(rs + 1, (v >> 64) as u64);
                }
            }
        }
        m.test.code.push(w);
    }
    m.test
}

impl Test {
    fn state_base(&self, n: u32) -> u64 {
        if n == 31 { self.state.sp } else { self.state.x[n as usize] }
    }
}

fn exclusives(rng: &mut Rng, _: u64, area: u64) -> Test {
    let mut m = Memory::new(rng, area);
    for _ in 0..1 + rng.below(2) {
        let base = m.base(rng);
        let pair = rng.chance(2);
        let size = if pair { 2 + rng.below(2) as u32 } else { rng.below(4) as u32 };
        let bytes = if pair { 2 << size } else { 1 << size };
        let place = m.place(rng, bytes.max(if base == 31 { 16 } else { 1 }));
        m.set(base, place);
        // Registers apart from each other: equal ones are unpredictable.
        let first = rng.below(3) as u32 * 6;
        let head = size << 30 | 0b001000 << 24 | (pair as u32) << 21 | base << 5;
        let t2 = |n: u32| if pair { n << 10 } else { 31 << 10 };
        let ordered = |rng: &mut Rng| (rng.below(2) as u32) << 15;
        m.test.code.push(head | 1 << 22 | 31 << 16 | ordered(rng) | t2(first + 1) | first);
        if rng.chance(3) {
            // CLREX
            m.test.code.push(0xd503_3f5f);
        }
        let s = head | (first + 2) << 16 | ordered(rng) | t2(first + 4) | (first + 3);
        m.test.code.push(s);
        if rng.chance(3) {
            // A second one without a monitor.
            m.test.code.push(with(s, 16, 5, first + 5));
        }
    }
    m.test
}

fn branches(rng: &mut Rng, _: u64, _: u64) -> Test {
    let mut test = Test { code: vec![], state: rng.state(false), data: vec![] };
    let marker = |rng: &mut Rng| 0x9100_0400 | (rng.below(200) as u32) << 10 | 7 << 5 | 7;
    for _ in 0..1 + rng.below(6) {
        // A loop counted by a register now and then.
        if rng.chance(4) {
            test.code.push(0xd280_0009 | (1 + rng.below(5) as u32) << 5); // mov x9, #n
            let m = marker(rng);
            test.code.push(m);
            test.code.push(0xf100_0529); // subs x9, x9, #1
            test.code.push(if rng.chance(2) { 0x54ff_ffc1 } else { 0xb5ff_ffc9 }); // b.ne / cbnz x9, back two
            continue;
        }
        if rng.chance(2) {
            // Flags from a compare.
            let (a, b) = (rng.below(31) as u32, rng.below(31) as u32);
            test.code.push(0x6b00_001f | (rng.below(2) as u32) << 31 | a << 5 | b << 16);
        }
        let skip = 1 + rng.below(2) as u32;
        let to = skip + 1;
        let r = rng.below(31) as u32;
        let form = rng.below(9);
        match form {
            0 => test.code.push(0x1400_0000 | to),
            1 => test.code.push(0x9400_0000 | to),
            2 | 3 => test.code.push(0x5400_0000 | to << 5 | rng.below(16) as u32),
            4 => test.code.push(0x3400_0000 | (rng.next() as u32 & (1 << 31 | 1 << 24)) | to << 5 | r),
            5 => test.code.push(0x3600_0000 | (rng.next() as u32 & (1 << 31 | 1 << 24 | 31 << 19)) | to << 5 | r),
            _ => {
                // ADR to after the skipped ones, then BR, BLR or RET.
                test.code.push(0x1000_0000 | (to + 1) << 5 | r);
                test.code.push(0xd61f_0000 | (form as u32 - 6) << 21 | r << 5);
            }
        }
        for _ in 0..skip {
            let m = marker(rng);
            test.code.push(m);
        }
    }
    let m = marker(rng);
    test.code.push(m);
    test
}

/// MRS and MSR of what user code reaches, hints, barriers, DC ZVA.
fn system(rng: &mut Rng, _: u64, area: u64) -> Test {
    let mut m = Memory::new(rng, area);
    for _ in 0..1 + rng.below(6) {
        let r = rng.below(20) as u32;
        let w = match rng.below(8) {
            0 => 0xd53b_4200 | r,                                                                // mrs nzcv
            1 => 0xd51b_4200 | r,                                                                // msr nzcv
            2 => 0xd53b_4400 | r,                                                                // mrs fpcr
            3 => 0xd503_201f | (rng.pick(&[0u32, 1, 4, 5, 6, 20, 32, 34, 36, 38, 16, 18])) << 5, // hints
            4 => 0xd503_3f9f | (rng.pick(&[0u32, 1, 2])) << 5,                                   // dsb, dmb, isb
            5 => 0xd53b_00e0 | r,                                                                // mrs dczid_el0
            6 => 0xd53b_d060 | r & !31 | 31, // mrs tpidrro_el0 into xzr
            _ => {
                let base = 20;
                m.set(base, area + 128 + rng.below(128));
                0xd50b_7420 | base // dc zva
            }
        };
        m.test.code.push(w);
    }
    m.test
}

/// Code that changes the instructions ahead of it, with the cache maintenance this takes, in a loop.
fn self_modifying(rng: &mut Rng, _: u64, _: u64) -> Test {
    let mut test = Test { code: vec![], state: rng.state(false), data: vec![] };
    // mov x28, #n
    test.code.push(0xd280_001c | (1 + rng.below(4) as u32) << 5);
    let head = test.code.len();
    let add =
        |rng: &mut Rng| 0x9100_0000 | (rng.below(4096) as u32) << 10 | (rng.below(8) as u32) << 5 | rng.below(8) as u32;
    for _ in 0..rng.below(3) {
        let w = add(rng);
        test.code.push(w);
    }
    // The new instruction depends on the round: the immediate is shifted by its number.
    let new = 0x9100_0000 | (1 + rng.below(100) as u32) << 10 | (rng.below(8) as u32) << 5 | rng.below(8) as u32;
    let gap = rng.below(3) as usize;
    let ahead = 10 + gap;
    test.code.extend([
        0x1000_0014 | (ahead as u32) << 5,                     // adr x20, ahead
        0xd280_0015 | (new & 0xffff) << 5,                     // mov x21, #low
        0xf2a0_0015 | (new >> 16) << 5,                        // movk x21, #high, lsl #16
        if rng.chance(2) { 0x0b1c_2ab5 } else { 0xd503_201f }, // add w21, w21, w28, lsl #10
    ]);
    // str w21, [x20]; dc cvau, x20; dsb ish; ic ivau, x20; dsb ish; isb
    test.code.extend([0xb900_0295, 0xd50b_7b34, 0xd503_3b9f, 0xd50b_7534, 0xd503_3b9f, 0xd503_3fdf]);
    for _ in 0..gap {
        let w = add(rng);
        test.code.push(w);
    }
    let old = add(rng);
    test.code.push(old);
    // subs x28, x28, #1; b.ne head
    test.code.push(0xf100_079c);
    let back = (head as i32 - test.code.len() as i32) as u32 & 0x7_ffff;
    test.code.push(0x5400_0001 | back << 5);
    test
}

/// Pointers signed and authenticated, sometimes wrongly.
fn pauth(rng: &mut Rng, n: u64, area: u64) -> Test {
    let table = table![
        "pac_reg", "aut_reg", "pacz_reg", "autz_reg", "xpac", "pacga", "xpaclri", "pac1716", "aut1716", "pac_lr",
        "aut_lr"
    ];
    let mut test = random_test(rng, table, 4, false, |_, w| w);
    let r = rng.below(20) as u32;
    let modifier = 20 + rng.below(4) as u32;
    let key = rng.below(2) as u32;
    if rng.chance(2) {
        test.state.x[r as usize] = rng.next() & 0x0000_ffff_ffff_fff8;
    }
    match rng.below(3) {
        0 => {
            // PAC* and AUT* of the same register.
            let key = rng.below(4) as u32;
            test.code
                .extend([0xdac1_0000 | key << 10 | modifier << 5 | r, 0xdac1_1000 | key << 10 | modifier << 5 | r]);
        }
        1 => {
            // ADR, PACI*, BRA* or BLRA* over an addition.
            let link = (rng.below(2) as u32) << 21;
            test.code.extend([
                0x1000_0080 | r,
                0xdac1_0000 | key << 10 | modifier << 5 | r,
                0xd71f_0800 | link | key << 10 | r << 5 | modifier,
                0x9100_0421,
            ]);
        }
        _ => {
            // PACDZ*, LDRA*.
            test.state.x[r as usize] = area + 128;
            test.data = rng.data();
            let imm = rng.below(16) as u32;
            let w = rng.below(2) as u32;
            test.code.extend([
                0xdac1_3be0 | key << 10 | r,
                0xf820_0400 | key << 23 | imm << 12 | w << 11 | r << 5 | ((r + 1) % 20),
            ]);
        }
    }
    let _ = n;
    test
}

pub const BASE: &[Class] = &[
    Class { name: "dp_immediate", make: dp_immediate, against: Against::Reference },
    Class { name: "dp_register", make: dp_register, against: Against::Reference },
    Class { name: "load_store_single", make: load_store_single, against: Against::ReferenceAndModes },
    Class { name: "load_store_register", make: load_store_register, against: Against::ReferenceAndModes },
    Class { name: "load_store_pair", make: load_store_pair, against: Against::ReferenceAndModes },
    Class { name: "literals", make: literals, against: Against::Reference },
    Class { name: "atomics", make: atomics, against: Against::ReferenceAndModes },
    Class { name: "exclusives", make: exclusives, against: Against::ReferenceAndModes },
    Class { name: "branches", make: branches, against: Against::Reference },
    Class { name: "system", make: system, against: Against::Reference },
    Class { name: "self_modifying", make: self_modifying, against: Against::Reference },
    Class { name: "pauth", make: pauth, against: Against::Engines },
];
