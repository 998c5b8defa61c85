//! The classes of storage access.

use super::asm::Order;
use super::board::Board;
use super::check::{Class, config, data, encoding, patterns, push, run_program, state};
use super::program::{DATA, DATA_SIZE, Program, Test};
use rhea_diff::{Engine, Rng};
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
    class("loads_stores", loads_stores),
    class("prefixed", prefixed),
    Class { big: true, ..class("multiple", multiple) },
    class("quadwords", quadwords),
    class("atomics", atomics),
];

/// A test with its data area, and registers as bases: 20–30, each used once.
pub struct Memory {
    pub test: Test,
    area: u64,
    used: u32,
}

impl Memory {
    pub fn new(rng: &mut Rng, area: u64, fp: bool) -> Memory {
        let state = state(rng, fp);
        Memory { test: Test { code: vec![], state, data: data(rng) }, area, used: 20 }
    }
    /// A register that holds an address in the middle of the area less `disp`.
    pub fn base(&mut self, rng: &mut Rng, align: u64, disp: i64) -> u32 {
        let n = self.used;
        self.used += 1;
        let at = (self.area + 160 + rng.below(DATA_SIZE - 320)) & !(align - 1);
        self.test.state.r[n as usize] = at.wrapping_sub(disp as u64);
        n
    }
    /// A register for an index.
    pub fn index(&mut self, rng: &mut Rng) -> (u32, i64) {
        let n = self.used;
        self.used += 1;
        let v = (rng.next() as i16).into();
        self.test.state.r[n as usize] = v as u64;
        (n, v)
    }
    pub fn full(&self) -> bool {
        self.used >= 30
    }
}

pub const fn with(w: u64, lo: u32, width: u32, v: u32) -> u64 {
    let mask = ((1u64 << width) - 1) << lo;
    w & !mask | (v as u64) << lo & mask
}

/// X form: the address in RA + RB, or in RB alone.
fn indexed(rng: &mut Rng, m: &mut Memory, w: u64, align: u64, needs_base: bool) -> u64 {
    if !needs_base && rng.chance(4) {
        let b = m.base(rng, align, 0);
        return with(with(w, 16, 5, 0), 11, 5, b);
    }
    let (x, disp) = m.index(rng);
    let b = m.base(rng, align, disp);
    with(with(w, 16, 5, b), 11, 5, x)
}

fn data_register(rng: &mut Rng, w: u64) -> u64 {
    with(w, 21, 5, rng.below(20) as u32)
}

fn loads_stores(rng: &mut Rng, _: u64, area: u64) -> Test {
    let table = table![
        "lwz", "lwzu", "lbz", "lbzu", "stw", "stwu", "stb", "stbu", "lhz", "lhzu", "lha", "lhau", "sth", "sthu", "ld",
        "ldu", "lwa", "std", "stdu", "ldx", "ldux", "lwzx", "lwzux", "lbzx", "lbzux", "lhzx", "lhzux", "lhax", "lhaux",
        "lwax", "lwaux", "stdx", "stdux", "stwx", "stwux", "stbx", "stbux", "sthx", "sthux", "lhbrx", "lwbrx", "ldbrx",
        "sthbrx", "stwbrx", "stdbrx", "dcbz", "dcbf", "dcbst", "icbi", "dcbt", "dcbtst", "dst", "dstst", "dss",
        "cpabort", "hashst", "hashchk"
    ];
    let mut m = Memory::new(rng, area, false);
    for _ in 0..1 + rng.below(5) {
        if m.full() {
            break;
        }
        let p = rng.pick(table);
        let w = encoding(rng, p);
        if matches!(p.name, "dss" | "cpabort") {
            push(&mut m.test.code, w);
            continue;
        }
        let (op, update) = (w >> 26, p.name.ends_with('u') || p.name.ends_with("ux") || p.name.starts_with("dst"));
        let hash = p.name.starts_with("hash");
        let block = ["dc", "ic", "ds"].iter().any(|n| p.name.starts_with(n));
        let w = if block || hash { w } else { data_register(rng, w) };
        let w = match p.name {
            "dcbf" => with(w, 21, 5, 0),
            _ => w,
        };
        let w = if hash {
            let disp = ((w as i64 & 1) << 5 | (w >> 21 & 31) as i64) * 8 - 512;
            let b = m.base(rng, 8, 0);
            // Within the area: at most 128 bytes before.
            let w = if disp < -128 { w & !(31 << 21) | 1 | 28 << 21 } else { w };
            with(with(w, 16, 5, b), 11, 5, rng.below(20) as u32)
        } else if op == 31 {
            indexed(rng, &mut m, w, 1, update)
        } else {
            let disp = i64::from(w as i16) & if op >= 58 { !3 } else { !0 };
            let b = m.base(rng, 1, disp);
            with(w, 16, 5, b)
        };
        push(&mut m.test.code, w);
    }
    m.test
}

fn prefixed(rng: &mut Rng, _: u64, area: u64) -> Test {
    let table =
        table!["plwz", "plbz", "plhz", "plha", "plwa", "pld", "plq", "pstw", "pstb", "psth", "pstd", "pstq", "pnop"];
    let mut m = Memory::new(rng, area, false);
    for _ in 0..1 + rng.below(5) {
        if m.full() {
            break;
        }
        let p = rng.pick(table);
        let w = encoding(rng, p);
        if p.name == "pnop" {
            push(&mut m.test.code, w >> 32 << 32 | 0x6000_0000);
            continue;
        }
        // Not relative to the instruction, whose address is not known.
        let w = data_register(rng, w) & !(1 << 52);
        let quad = p.name.ends_with('q');
        let disp = ((((w >> 32 & 0x3_ffff) << 16 | w & 0xffff) << 30) as i64) >> 30;
        let b = m.base(rng, if quad { 16 } else { 1 }, disp);
        let w = with(w, 16, 5, b);
        push(&mut m.test.code, if quad { w & !(1 << 21) } else { w });
    }
    m.test
}

/// Multiples and strings.
fn multiple(rng: &mut Rng, _: u64, area: u64) -> Test {
    moves(rng, area, table!["lmw", "stmw", "lswi", "lswx", "stswi", "stswx"])
}

fn quadwords(rng: &mut Rng, _: u64, area: u64) -> Test {
    moves(rng, area, table!["lq", "stq"])
}

fn moves(rng: &mut Rng, area: u64, table: &[&'static Pattern]) -> Test {
    let mut m = Memory::new(rng, area, false);
    let p = rng.pick(table);
    let w = encoding(rng, p);
    m.test.state.xer |= rng.below(80);
    // The base and index are below the registers loaded.
    let rt = match p.name {
        "lq" | "stq" => 2 * rng.below(8) as u32,
        "lmw" | "stmw" => 24 + rng.below(8) as u32,
        _ => rng.below(12) as u32,
    };
    let w = with(w, 21, 5, rt);
    let w = match p.name {
        "lmw" | "stmw" => {
            let b = m.base(rng, 4, i64::from(w as i16));
            with(w, 16, 5, b)
        }
        "lq" => {
            let b = m.base(rng, 16, i64::from(w as i16) & !15);
            with(w & !15, 16, 5, b)
        }
        "stq" => {
            let b = m.base(rng, 16, i64::from(w as i16) & !3);
            with(w, 16, 5, b)
        }
        "lswi" | "stswi" => {
            let b = m.base(rng, 1, 0);
            with(w, 16, 5, b)
        }
        _ => {
            m.used = 30;
            let b = m.base(rng, 1, 0);
            m.used = 31;
            let (x, _) = m.index(rng);
            m.test.state.r[31] = 0;
            m.test.state.xer &= !64;
            with(with(w, 16, 5, b), 11, 5, x)
        }
    };
    m.test.code.push(w as u32);
    m.test
}

fn atomics(rng: &mut Rng, _: u64, area: u64) -> Test {
    let pairs = [("lbarx", "stbcx"), ("lharx", "sthcx"), ("lwarx", "stwcx"), ("ldarx", "stdcx"), ("lqarx", "stqcx")];
    let amo = table!["lwat", "ldat", "stwat", "stdat"];
    let all = table!["lbarx", "stbcx", "lharx", "sthcx", "lwarx", "stwcx", "ldarx", "stdcx", "lqarx", "stqcx"];
    let other = table!["sync", "eieio", "isync"];
    let mut m = Memory::new(rng, area, false);
    while !m.full() && m.test.code.len() < 8 {
        match rng.below(4) {
            0 => {
                let p = rng.pick(amo);
                let w = encoding(rng, p);
                let size = if p.name.contains('w') { 4 } else { 8 };
                let b = m.base(rng, 32, 0);
                m.test.state.r[b as usize] += size * rng.below(2);
                let load = p.name.starts_with('l');
                let fc: u32 = if load {
                    rng.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 24, 25, 28])
                } else {
                    rng.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 24])
                };
                // The reference compares signed words as unsigned ones, and extends the sign of failures.
                let fc = match fc {
                    5 | 7 if size == 4 => fc - 1,
                    24.. if size == 4 && load => 8,
                    25 => 24,
                    fc => fc,
                };
                if matches!(fc, 28) {
                    m.test.state.r[b as usize] = (m.test.state.r[b as usize] & !31) + size;
                }
                let w = with(with(with(w, 21, 5, rng.below(17) as u32), 16, 5, b), 11, 5, fc);
                m.test.code.push(w as u32);
            }
            1 => {
                let w = encoding(rng, rng.clone().pick(other));
                // sync with reserved operands: L 0, 1 and 2 only.
                let w = if w & 0x7fe == 0x4ac { w & !0x0060_0000 & !0x0080_0000 & !0x3_0000 } else { w };
                m.test.code.push(w as u32);
            }
            _ => {
                // Not the quadword, whose stores fail in the reference.
                let n = rng.below(4) as usize;
                let find = |name: &str| *all.iter().find(|p| p.name == name).expect("a pattern");
                let (load, store) = (encoding(rng, find(pairs[n].0)) & !1, encoding(rng, find(pairs[n].1)));
                let even = if n == 4 { !1u32 } else { !0 };
                let b = m.base(rng, 1 << n, 0);
                let at = |w: u64, rt: u32| with(with(with(w, 16, 5, 0), 11, 5, b), 21, 5, rt & even) as u32;
                let (x, y) = (rng.below(19) as u32, rng.below(19) as u32);
                let load = at(load, x);
                let store = at(store, y);
                if !rng.chance(6) {
                    m.test.code.push(load);
                }
                if rng.chance(3) {
                    // Something changes the location.
                    m.test.code.push(super::asm::d(38, rng.below(19) as u32, b, 0));
                }
                m.test.code.push(store);
            }
        }
    }
    m.test
}

/// A quadword with a reservation: one conditional store succeeds, the next does not.
#[test]
fn quadword_reservation() {
    let mut rng = Rng::new(1);
    let mut state = state(&mut rng, false);
    state.r[20] = DATA + 0x20;
    (state.r[6], state.r[7]) = (0x1122_3344_5566_7788, 0x99aa_bbcc_ddee_ff00);
    // lqarx r4,0,r20; stqcx. r6,0,r20; mfocrf r10,128; stqcx. r4,0,r20; mfocrf r11,128
    let code = vec![0x7c80_a228, 0x7cc0_a16d, 0x7d58_0026, 0x7c80_a16d, 0x7d78_0026];
    let bytes: Vec<u8> = (0..DATA_SIZE).map(|n| n as u8).collect();
    for order in [Order::Little, Order::Big] {
        let test = Test { code: code.clone(), state: state.clone(), data: bytes.clone() };
        let p = Program::new(&[test], order, false);
        for engine in Engine::ALL {
            let r = run_program(&p, &Board::new(&config(), engine, order), engine, true);
            let s = &r.states[0];
            assert_eq!((s.r[10] >> 28 & 14, s.r[11] >> 28 & 14), (2, 0), "{engine:?} {order:?}");
            let (first, second) = (order.get(&bytes[0x20..]), order.get(&bytes[0x28..]));
            let (high, low) = if order == Order::Big { (first, second) } else { (second, first) };
            assert_eq!((s.r[4], s.r[5]), (high, low), "{engine:?} {order:?}");
            let (a, b) = if order == Order::Big { (6, 7) } else { (7, 6) };
            let stored = [order.u64(state.r[a]), order.u64(state.r[b])].concat();
            assert_eq!(r.data[0x20..0x30], stored, "{engine:?} {order:?}");
        }
    }
}
