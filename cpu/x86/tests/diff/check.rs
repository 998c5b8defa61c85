//! Runs the tests of a class everywhere and compares.

use super::board::{Board, Engine};
use super::classes::{Class, Kind};
use super::random::{Rng, X86Operands};
use super::state::{Outcome, State, Test};
use super::{generate, native};
use iced_x86::{Formatter, Mnemonic};

/// Tests per batch and class; `RHEA_DIFF_BATCHES` batches (1 unless set), from seed `RHEA_DIFF_SEED`.
const BATCH: usize = 150;

pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn describe(t: &Test, n: usize) -> String {
    let mut s = String::new();
    let mut f = iced_x86::IntelFormatter::new();
    let mut at = 0;
    while at < t.code.len() {
        let i = generate::decode(&t.code[at..], t.bits, Test::address(n) + at as u64);
        let mut text = String::new();
        f.format(&i, &mut text);
        let end = (at + i.len().max(1)).min(t.code.len());
        s += &format!("  {:#x}: {text}   [{:02x?}]\n", Test::address(n) + at as u64, &t.code[at..end]);
        at = end;
    }
    s
}

/// Every feature, of the host's vendor.
pub fn config() -> rhea_x86::X86Config {
    let amd = std::arch::x86_64::__cpuid(0).ecx == u32::from_le_bytes(*b"cAMD");
    let model = if amd { "max,vendor=AuthenticAMD" } else { "max,vendor=GenuineIntel" };
    rhea_x86::models::parse(model).expect("a model").config
}

/// Status flags, TF, DF, NT, AC, ID.
const FLAGS: u64 = 0x8d5 | 0x100 | 0x400 | 0x4000 | 1 << 18 | 1 << 21;

/// The number of a value in the order of magnitudes of its sign.
fn place(v: [u64; 2]) -> u128 {
    u128::from(v[1]) << 63 | u128::from(v[0] & u64::MAX >> 1)
}

/// An instruction whose result is a unit in the last place off at worst.
fn is_elementary(t: &Test) -> bool {
    use Mnemonic::{F2xm1, Fcos, Fpatan, Fptan, Fsin, Fsincos, Fyl2x, Fyl2xp1};
    let m = generate::decode(&t.code, t.bits, 0).mnemonic();
    matches!(m, F2xm1 | Fyl2x | Fyl2xp1 | Fsin | Fcos | Fsincos | Fptan | Fpatan)
}

fn differences(t: &Test, n: usize, kind: Kind, ours: &Outcome, expected: &Outcome) -> Option<String> {
    let (a, b, i) = (&ours.state, &expected.state, &t.state);
    let mut s = String::new();
    let mut cmp = |name: &str, input: u128, x: u128, y: u128| {
        if x != y {
            s += &format!("  {name}: {input:#x} -> {x:#x}, expected {y:#x}\n");
        }
    };
    cmp("vector", 0, ours.vector.into(), expected.vector.into());
    cmp("rip", i.rip.into(), a.rip.into(), b.rip.into());
    // General protection by way of non-canonical addresses has no address.
    if ours.vector == 14 && expected.vector == 14 {
        // Of masked stores, processors tell the first byte stored or the first there is.
        let masked = t.code.windows(2).any(|w| w[1] == 0xf7) && ours.cr2.wrapping_sub(expected.cr2) < 16;
        if !masked {
            cmp("cr2", 0, ours.cr2.into(), expected.cr2.into());
        }
        // The guest's tables are present, for the supervisor.
        cmp("error", 0, (ours.error & !1).into(), (expected.error & !1).into());
    }
    const NAMES: [&str; 16] =
        ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
    for (k, name) in NAMES.iter().enumerate().take(if t.bits == 64 { 16 } else { 8 }) {
        cmp(name, i.r[k].into(), a.r[k].into(), b.r[k].into());
    }
    let undefined = if expected.vector == 3 { t.undefined } else { t.ever_undefined };
    let mask = FLAGS & !u64::from(undefined);
    cmp("rflags", (i.rflags & FLAGS).into(), (a.rflags & mask).into(), (b.rflags & mask).into());
    if kind == Kind::Float {
        for k in 0..16 {
            cmp(&format!("xmm{k}"), i.xmm[k], a.xmm[k], b.xmm[k]);
            cmp(&format!("ymm{k} high"), i.ymm_hi[k], a.ymm_hi[k], b.ymm_hi[k]);
        }
        cmp("mxcsr", i.mxcsr.into(), a.mxcsr.into(), b.mxcsr.into());
        cmp("fcw", i.fcw.into(), a.fcw.into(), b.fcw.into());
        let elementary = is_elementary(t);
        // Whether a result is inexact or was rounded up is as uncertain as its last place.
        let fsw = if elementary { !0x230 } else { !0 };
        cmp("fsw", i.fsw.into(), (a.fsw & fsw).into(), (b.fsw & fsw).into());
        cmp("tags", i.tags.into(), a.tags.into(), b.tags.into());
        for k in 0..8 {
            let wide = |v: [u64; 2]| u128::from(v[0]) | u128::from(v[1]) << 64;
            if elementary && place(a.st[k]).abs_diff(place(b.st[k])) <= 1 {
                continue;
            }
            cmp(&format!("st{k}"), wide(i.st[k]), wide(a.st[k]), wide(b.st[k]));
        }
    }
    let mut bytes = 0;
    for (name, x, y, z) in
        [("data", &i.data[..], &a.data[..], &b.data[..]), ("stack", &i.stack[..], &a.stack[..], &b.stack[..])]
    {
        for k in 0..x.len() {
            if y[k] != z[k] && bytes < 24 {
                bytes += 1;
                s += &format!("  {name}+{k:#x}: {:#x} -> {:#x}, expected {:#x}\n", x[k], y[k], z[k]);
            }
        }
    }
    if s.is_empty() {
        return None;
    }
    let mut inputs = String::new();
    if std::env::var_os("RHEA_DIFF_INPUTS").is_some() {
        inputs = format!(
            "  inputs: r {:x?} fcw {:x} fsw {:x} tags {:x} st {:x?} mxcsr {:x} xmm {:x?}\n",
            i.r, i.fcw, i.fsw, i.tags, i.st, i.mxcsr, i.xmm
        );
    } else {
        for (k, r) in i.r.iter().enumerate() {
            inputs += &format!(" {k}={r:#x}");
        }
        inputs = format!("  registers:{inputs}\n");
    }
    Some(format!("test {n} ({} bits):\n{}{s}{inputs}", t.bits, describe(t, n)))
}

/// Tests of a class in 64-bit or compatibility mode.
pub fn make(class: &Class, bits: u32, seed: u64) -> Vec<Test> {
    let codes = (class.codes)(bits);
    let only = std::env::var("RHEA_DIFF_ONLY").ok();
    let codes: Vec<_> = match &only {
        Some(name) => codes.into_iter().filter(|c| format!("{:?}", c.mnemonic()).eq_ignore_ascii_case(name)).collect(),
        None => codes,
    };
    let mut rng = Rng::new(seed);
    let mut tests = Vec::new();
    while tests.len() < BATCH && !codes.is_empty() {
        let n = tests.len();
        let length = if n % 2 == 0 || class.name == "transcendental" { 1 } else { 2 + rng.below(4) as usize };
        let mut t = if class.name == "branches" {
            generate::branches(&mut rng, &codes, bits, n)
        } else if class.name == "save" {
            generate::save(&mut rng, bits)
        } else {
            generate::test(&mut rng, &codes, bits, length, n, class.kind == Kind::Float)
        };
        if t.code.is_empty() {
            continue;
        }
        adjust(&mut rng, class, &mut t);
        tests.push(t);
    }
    tests
}

/// Makes inputs that the class wants.
fn adjust(rng: &mut Rng, class: &Class, t: &mut Test) {
    let s = &mut t.state;
    if rng.chance(4) {
        s.rflags |= rng.next() & u64::from(class.flags);
    }
    let i = generate::decode(&t.code, t.bits, 0);
    match class.name {
        "strings" => {
            s.r[1] = if rng.chance(8) { rng.int() } else { rng.below(12) };
            s.r[6] = generate::MIDDLE - 64 + rng.below(128);
            s.r[7] = generate::MIDDLE - 64 + rng.below(128);
            s.r[3] = generate::MIDDLE - 128;
            if rng.chance(4) {
                // Equal elements.
                s.data.fill(rng.next() as u8);
                s.r[0] = u64::from(s.data[0]) * 0x0101_0101_0101_0101;
            }
            if rng.chance(4) {
                // At the end of the mapping.
                s.r[7] = super::state::place::DATA + 4096 - rng.below(24);
            }
        }
        "multiply_divide" if matches!(i.mnemonic(), Mnemonic::Div | Mnemonic::Idiv) && rng.chance(2) => {
            s.r[2] = if rng.chance(2) { 0 } else { ((s.r[0] as i64) >> 63) as u64 };
        }
        "atomics" if rng.chance(2) => {
            // The comparand is what memory has: all of it the same.
            let v = rng.int();
            for at in (0..s.data.len()).step_by(8) {
                s.data[at..at + 8].copy_from_slice(&v.to_le_bytes());
            }
            s.r[0] = v;
            s.r[2] = if t.bits == 64 && i.mnemonic() == Mnemonic::Cmpxchg16b { v } else { v >> 32 };
        }
        "sse4" | "avx"
            if matches!(i.mnemonic(), Mnemonic::Dpps | Mnemonic::Dppd | Mnemonic::Vdpps | Mnemonic::Vdppd) =>
        {
            // With unmasked exceptions processors stop half-way, at a step of their own choice.
            s.mxcsr |= 0x1f80;
        }
        "sse2" | "avx" if matches!(i.mnemonic(), Mnemonic::Maskmovdqu | Mnemonic::Vmaskmovdqu) => {
            s.r[7] = generate::MIDDLE - 64 + rng.below(128);
        }
        "avx2" => {
            // Gathers within the window, mostly.
            let mut at = 0;
            while at < t.code.len() {
                let i = generate::decode(&t.code[at..], t.bits, 0);
                let index = i.memory_index();
                if index.is_vector_register() && at > 0 {
                    // Its indexes are anything: it might find memory of the harness.
                    t.code.truncate(at);
                    break;
                }
                if index.is_vector_register() {
                    let mask = if format!("{:?}", i.mnemonic()).contains("gatherq") {
                        0x3f_0000_0000_0000_003f_u128
                    } else {
                        0x3f_0000_003f_0000_003f_0000_003f
                    };
                    s.xmm[index.number()] &= mask;
                    s.ymm_hi[index.number()] &= mask;
                }
                at += i.len().max(1);
            }
        }
        "mmx" | "x87" | "x87_environment" | "transcendental" | "save" => {
            if t.code.windows(2).any(|w| w == [0x0f, 0xf7]) {
                // MASKMOVQ.
                s.r[7] = rng.pointer();
            }
            s.fsw = (rng.below(8) as u16) << 11;
            s.tags = match rng.below(6) {
                0 => rng.next() as u32 & 0xff,
                1 => 0,
                _ => 0xff,
            };
            if class.name == "x87" && rng.chance(2) {
                // Room for loads.
                s.tags &= !(1 << ((s.fsw >> 11).wrapping_sub(1) & 7));
            }
            s.fsw |= rng.next() as u16 & 0x4700;
            let near = |rng: &mut Rng, range: u64, top: u64| {
                [rng.next() | 1 << 63, top - rng.below(range) | rng.below(2) << 15]
            };
            if class.name == "transcendental" {
                s.fcw |= 0x30;
            }
            match i.mnemonic() {
                // Outside they are undefined.
                Mnemonic::F2xm1 => s.st[0] = near(rng, 70, 0x3ffe),
                Mnemonic::Fyl2xp1 => s.st[0] = near(rng, 70, 0x3ffc),
                _ => {}
            }
        }
        _ => {}
    }
    if t.bits == 32 {
        for r in &mut t.state.r[..8] {
            *r &= 0xffff_ffff;
        }
    }
}

/// Runs a class; panics with the differences (up to a few) if there are any.
pub fn check(class: &Class) {
    if !std::arch::is_x86_feature_detected!("avx") {
        println!("not compared with the host, which has no AVX");
        return;
    }
    let mut failed = String::new();
    for batch in 0..number("RHEA_DIFF_BATCHES", 1) {
        for bits in [64, 32] {
            let seed = number("RHEA_DIFF_SEED", 1).wrapping_add(batch * 0x1_0001).wrapping_add(u64::from(bits) << 40);
            let tests = make(class, bits, seed);
            if tests.is_empty() {
                continue;
            }
            let Some(mut expected) = native::run(&tests) else { return };
            if class.name == "save" {
                // MXCSR_MASK: some processors have a bit of their own.
                for (t, e) in tests.iter().zip(&mut expected) {
                    let at = t.state.r[3].wrapping_sub(super::state::place::DATA) as usize + 30;
                    if let Some(b) = e.state.data.get_mut(at) {
                        *b &= !2;
                    }
                }
            }
            failed += &compare(&format!("{}, batch {batch}", class.name), class.kind, &tests, &expected);
        }
        assert!(failed.is_empty(), "{failed}");
    }
}

/// Runs tests on all engines: how they differ from what is expected.
pub fn compare(name: &str, kind: Kind, tests: &[Test], expected: &[Outcome]) -> String {
    let mut failed = String::new();
    for engine in Engine::ALL {
        let mut board = Board::new(engine);
        let ours = board.run_all(tests);
        let bad: Vec<String> =
            (0..tests.len()).filter_map(|n| differences(&tests[n], n, kind, &ours[n], &expected[n])).collect();
        if bad.is_empty() {
            continue;
        }
        let show = number("RHEA_DIFF_SHOW", 5) as usize;
        let shown = bad.iter().take(show).map(String::as_str).collect::<Vec<_>>().join("\n");
        failed += &format!("{name} on {engine:?}: {} tests of {} differ\n{shown}\n", bad.len(), tests.len());
        if engine == Engine::Interpreter {
            // The others would only repeat it.
            break;
        }
    }
    failed
}

/// The state in which a test begins, with what its place adds.
pub fn start(t: &Test, n: usize) -> State {
    State { rip: Test::address(n), ..t.state }
}
