//! Runs the tests of a class everywhere and compares.

use super::board::{Board, Exception, SVC, Then};
use super::program::{self, DATA, LOG, OUTPUT, Program, Results, Test};
use parking_lot::Mutex;
use rhea_arm::ArmConfig;
use rhea_arm::Feature;
use rhea_arm::reg::Reg;
use rhea_arm::translate::{Pattern, decoder};
use rhea_diff::{Engine, Rng, disassemble, number, reference};
use std::sync::Arc;

pub const EMULATOR: &str = "qemu-aarch64";
/// The CPU that the reference runs: what this crate has, without SVE and SME.
pub const REFERENCE_CPU: &str = "max,sve=off,sme=off";

/// A class of instructions: makes the `n`th test of a batch, whose data area starts at the address given.
pub struct Class {
    pub name: &'static str,
    pub make: fn(&mut Rng, u64, u64) -> Test,
    /// What it is compared with, and under which bits of SCTLR_EL1 besides the usual ones.
    pub against: Against,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Against {
    Reference,
    /// The reference; then among the engines also with big-endian data, with alignment checks of all accesses and of SP.
    ReferenceAndModes,
    /// Among the engines only: the reference has random keys.
    Engines,
}

/// Tests per batch and class; `RHEA_DIFF_BATCHES` batches (1 unless set), from seed `RHEA_DIFF_SEED`.
const BATCH: u64 = 250;

/// All patterns with the names.
pub fn patterns(names: &[&str]) -> Vec<&'static Pattern> {
    let all = decoder().patterns();
    let found: Vec<_> = all.iter().copied().filter(|p| names.contains(&p.name)).collect();
    for n in names {
        assert!(found.iter().any(|p| p.name == *n), "no pattern is named {n}");
    }
    found
}

/// Every feature, without the levels above EL1; DC ZVA clears 512 bytes as in the reference.
pub fn config() -> Arc<ArmConfig> {
    let mut config = ArmConfig::all_features();
    config.set(Feature::El2, false);
    config.set(Feature::El3, false);
    config.zva_log2 = 9;
    Arc::new(config)
}

fn run_reference(p: &Program, class: &str) -> Option<Results> {
    let out = reference(EMULATOR, REFERENCE_CPU, &p.elf(), class)?;
    let (states, rest) = out.split_at(p.output_size as usize);
    let (data, log) = rest.split_at(p.data_size as usize);
    Some(Results::new(states, data, log))
}

/// Runs the tests of a program on an engine. The last run's results count.
fn run_program(p: &Program, board: &Board, engine: Engine, sctlr: u64) -> Results {
    let mut result = None;
    for _ in 0..engine.runs() {
        for s in &p.segments {
            let mut b = s.bytes.clone();
            b.resize(b.len().max(s.size as usize), 0);
            // Unmodified code stays: writing it again would throw the translations away.
            if !s.executable || board.read(s.addr, b.len() as u64) != b {
                board.write(s.addr, &b);
            }
        }
        let undefined = Arc::new(Mutex::new(Vec::new()));
        let (log, end) = (undefined.clone(), p.end);
        board.run(
            p.start,
            |s| s.sys[Reg::SctlrEl1 as usize] |= sctlr,
            move |e: &mut Exception| {
                let pc = e.cpu[Reg::ElrEl1];
                match (e.class(), e.from_el0()) {
                    (SVC, true) => {
                        assert!(pc > end, "a supervisor call at {pc:#x}");
                        Then::Stop
                    }
                    (_, true) => {
                        // Undefined instructions, misaligned accesses, failed authentication...
                        log.lock().push(pc);
                        if log.lock().len() > 100_000 { Then::Stop } else { e.skip() }
                    }
                    (class, false) => {
                        let (esr, far) = (e.cpu[Reg::EsrEl1], e.cpu[Reg::FarEl1]);
                        eprintln!("exception of class {class:#x} at {pc:#x}: syndrome {esr:#x}, address {far:#x}");
                        Then::Stop
                    }
                }
            },
        );
        let output = board.read(OUTPUT, p.output_size);
        let data = board.read(DATA, p.data_size);
        let mut r = Results::new(&output, &data, &board.read(LOG, 8));
        r.undefined = std::mem::take(&mut *undefined.lock());
        result = Some(r);
    }
    result.expect("a run")
}

fn describe(t: &Test, pc: u64) -> String {
    let mut s = String::new();
    for (n, w) in t.code.iter().enumerate() {
        let name = decoder().find(*w).map_or("unallocated", |p| p.name);
        s += &format!("  {:#x}: {w:08x} {name}\n", pc + 4 * n as u64);
    }
    let bytes: Vec<u8> = t.code.iter().flat_map(|w| w.to_le_bytes()).collect();
    s + &disassemble("aarch64-linux-gnu-objdump", &["-maarch64"], &bytes)
}

/// Differences of one test between `ours` and what was expected.
fn differences(t: &Test, n: usize, p: &Program, ours: &Results, expected: &Results) -> Option<String> {
    let (a, b) = (&ours.states[n], &expected.states[n]);
    let pc = p.tests[n];
    let range = pc..pc + 4 * t.code.len() as u64;
    let undefined = |r: &Results| r.undefined.iter().copied().filter(|a| range.contains(a)).collect::<Vec<_>>();
    let data = |r: &Results| r.data[n * 512..n * 512 + 512].to_vec();
    let (ua, ub) = (undefined(ours), undefined(expected));
    if a == b && ua == ub && data(ours) == data(expected) {
        return None;
    }
    let mut s = format!("test {n}:\n{}\n", describe(t, pc));
    if ua != ub {
        s += &format!("  undefined: {ua:x?}, expected {ub:x?}\n");
    }
    for k in 0..31 {
        if a.x[k] != b.x[k] {
            s += &format!("  x{k}: {:#x} -> {:#x}, expected {:#x}\n", t.state.x[k], a.x[k], b.x[k]);
        }
    }
    for k in 0..32 {
        if a.v[k] != b.v[k] {
            s += &format!("  v{k}: {:#034x} -> {:#034x}, expected {:#034x}\n", t.state.v[k], a.v[k], b.v[k]);
        }
    }
    for (name, i, x, y) in [
        ("sp", t.state.sp, a.sp, b.sp),
        ("nzcv", t.state.nzcv, a.nzcv, b.nzcv),
        ("fpcr", t.state.fpcr, a.fpcr, b.fpcr),
        ("fpsr", t.state.fpsr, a.fpsr, b.fpsr),
    ] {
        if x != y {
            s += &format!("  {name}: {i:#x} -> {x:#x}, expected {y:#x}\n");
        }
    }
    let (da, db) = (data(ours), data(expected));
    for k in (0..da.len()).filter(|&k| da[k] != db[k]).take(16) {
        s += &format!("  data+{k:#x}: {:#x}, expected {:#x}\n", da[k], db[k]);
    }
    s += &format!("  inputs: fpcr {:#x} nzcv {:#x}", t.state.fpcr, t.state.nzcv);
    let mut fields: Vec<u32> = t.code.iter().flat_map(|w| [w & 31, w >> 5 & 31, w >> 16 & 31, w >> 10 & 31]).collect();
    fields.sort_unstable();
    fields.dedup();
    for r in fields {
        let x = if r < 31 { t.state.x[r as usize] } else { t.state.sp };
        s += &format!(" x{r}={x:#x} v{r}={:#x}", t.state.v[r as usize]);
    }
    Some(s + "\n")
}

/// A test that fails on an engine with as many instructions replaced by NOP as can be, and its differences.
fn shrink(t: &Test, config: &Arc<ArmConfig>, engine: Engine, sctlr: u64) -> Option<String> {
    let fails = |t: &Test| {
        let p = Program::new(std::slice::from_ref(t));
        let run = |e: Engine| run_program(&p, &Board::new(config, e), e, sctlr);
        differences(t, 0, &p, &run(engine), &run(Engine::Interpreter))
    };
    let mut best = t.clone();
    let mut text = fails(&best)?;
    let mut again = engine != Engine::Interpreter;
    while again {
        again = false;
        for n in 0..best.code.len() {
            let mut less = best.clone();
            less.code[n] = 0xd503_201f;
            // The count of a loop stays.
            if best.code[n] == less.code[n] || best.code[n] == 0xf100_079c || best.code[n] & 0xff80_001f == 0xd280_001c
            {
                continue;
            }
            if let Some(shorter) = fails(&less) {
                (best, text, again) = (less, shorter, true);
            }
        }
    }
    Some(text)
}

const E0E: u64 = 1 << 24;
const ALIGNMENT: u64 = 1 << 1 | 1 << 4;

/// Runs a class; panics with the differences (up to a few) if there are any.
pub fn check(class: &Class) {
    let config = config();
    let mut failed = String::new();
    for batch in 0..number("RHEA_DIFF_BATCHES", 1) {
        let mut rng = Rng::new(number("RHEA_DIFF_SEED", 1).wrapping_add(batch * 0x1_0001));
        let tests: Vec<Test> = (0..BATCH).map(|n| (class.make)(&mut rng, n, DATA + n * program::DATA_SIZE)).collect();
        let p = Program::new(&tests);
        let mut modes = vec![0];
        if class.against == Against::ReferenceAndModes {
            modes.extend([E0E, ALIGNMENT]);
        }
        for sctlr in modes {
            let with_reference = class.against != Against::Engines && sctlr == 0;
            let mut expected = if with_reference { run_reference(&p, class.name) } else { None };
            for engine in Engine::ALL {
                let board = Board::new(&config, engine);
                let ours = run_program(&p, &board, engine, sctlr);
                assert!(engine != Engine::Regions || board.regions() > 0, "no region was optimised");
                // Without the reference all must agree with the interpreter.
                let Some(expected) = &expected else {
                    expected = Some(ours);
                    continue;
                };
                let bad: Vec<(usize, String)> = (0..tests.len())
                    .filter_map(|n| Some((n, differences(&tests[n], n, &p, &ours, expected)?)))
                    .collect();
                let Some((first, _)) = bad.first() else { continue };
                let show = number("RHEA_DIFF_SHOW", 5) as usize;
                let shown = bad.iter().take(show).map(|b| b.1.as_str()).collect::<Vec<_>>().join("\n");
                failed += &format!(
                    "{} on {engine:?}, batch {batch}, mode {sctlr:#x}: {} tests differ\n{shown}\n",
                    class.name,
                    bad.len()
                );
                if std::env::var_os("RHEA_DIFF_SHRINK").is_some() {
                    let small = shrink(&tests[*first], &config, engine, sctlr);
                    failed += &format!("shrunk:\n{}\n", small.unwrap_or_default());
                }
            }
        }
        assert!(failed.is_empty(), "{failed}");
    }
}
