//! Runs the tests of a class everywhere and compares.

use super::asm::{NOP, Order};
use super::board::{Board, Interrupt, Then};
use super::integer::XER;
use super::program::{self, DATA, OUTPUT, Program, Results, State, Test};
use parking_lot::Mutex;
use rhea_diff::{Engine, Rng, disassemble, number, reference};
use rhea_ppc::PpcConfig;
use rhea_ppc::translate::Pattern;
use rhea_ppc::translate::decode::{prefixes, words};
use std::collections::HashSet;
use std::sync::Arc;

/// A class of instructions: makes the `n`th test of a batch, whose data area starts at the address given.
pub struct Class {
    pub name: &'static str,
    pub make: fn(&mut Rng, u64, u64) -> Test,
    /// With VSRs, FPSCR and VSCR.
    pub fp: bool,
    /// Then also in 32-bit mode, among the engines.
    pub narrow: bool,
    /// Big-endian only: the reference cannot deliver the alignment interrupts of the other byte order.
    pub big: bool,
    /// Compared among the engines only: the reference has other results.
    pub alone: bool,
}

/// Tests per batch and class; `RHEA_DIFF_BATCHES` batches (1 unless set), from seed `RHEA_DIFF_SEED`.
const BATCH: u64 = 250;

/// All patterns with the names.
pub fn patterns(names: &[&str]) -> Vec<&'static Pattern> {
    let all = words().rows().iter().chain(prefixes().rows());
    let found: Vec<_> = all.copied().filter(|p| names.contains(&p.name)).collect();
    for n in names {
        assert!(found.iter().any(|p| p.name == *n), "no pattern is named {n}");
    }
    found
}

/// A random encoding with zeros where bits are reserved.
pub fn encoding(rng: &mut Rng, p: &Pattern) -> u64 {
    let mut reserved = 0u64;
    for part in p.bits.split(' ') {
        if part.starts_with(['0', '1', 'x']) {
            for c in part.chars() {
                reserved = reserved << 1 | u64::from(c == 'x');
            }
        } else {
            let width = part.split_once(':').map_or(1, |(_, n)| n.parse::<u32>().expect("a width"));
            reserved <<= width;
        }
    }
    let word = if p.mask >> 32 == 0 { 0xffff_ffff } else { u64::MAX };
    p.encoding(rng.next()) & word & !reserved
}

/// Appends an instruction; a prefixed one does not cross a multiple of 64 bytes.
pub fn push(code: &mut Vec<u32>, insn: u64) {
    if insn >> 32 != 0 {
        if code.len() % 16 == 15 {
            code.push(NOP);
        }
        code.push((insn >> 32) as u32);
    }
    code.push(insn as u32);
}

/// A random state. `fp` also varies FPSCR and VSCR.
pub fn state(rng: &mut Rng, fp: bool) -> State {
    State {
        r: std::array::from_fn(|_| if fp && rng.chance(4) { rng.float(11, 52) } else { rng.int() }),
        cr: rng.next() & 0xffff_ffff,
        xer: rng.next() & 0xe00c_0000,
        lr: rng.int(),
        ctr: rng.int(),
        fpscr: match rng.below(4) {
            0 if fp => rng.next() & 3,
            _ => 0,
        },
        vscr: if fp && rng.chance(4) { rng.next() & 0x1_0001 } else { 0 },
        vsr: std::array::from_fn(|_| {
            if !fp {
                return [0; 2];
            }
            let v = rng.vector();
            [v as u64, (v >> 64) as u64]
        }),
    }
}

pub fn data(rng: &mut Rng) -> Vec<u8> {
    (0..program::DATA_SIZE / 8).flat_map(|_| rng.int().to_le_bytes()).collect()
}

/// A test of up to `max` instructions, each a random encoding of one of the patterns, passed through `fix`.
pub fn random_test(
    rng: &mut Rng,
    table: &[&'static Pattern],
    max: u64,
    fp: bool,
    fix: impl Fn(&mut Rng, &Pattern, u64) -> u64,
) -> Test {
    let state = state(rng, fp);
    let n = if rng.chance(2) { 1 } else { 1 + rng.below(max) };
    let mut code = Vec::new();
    for _ in 0..n {
        let p = rng.pick(table);
        let insn = encoding(rng, p);
        let insn = fix(rng, p, insn);
        push(&mut code, insn);
    }
    Test { code, state, data: vec![] }
}

pub fn config() -> Arc<PpcConfig> {
    Arc::new(PpcConfig::default())
}

fn run_reference(p: &Program, class: &str) -> Option<Results> {
    let emulator = if p.order == Order::Big { "qemu-ppc64" } else { "qemu-ppc64le" };
    let out = reference(emulator, "power10", &p.elf(), &format!("{class}-{:?}", p.order))?;
    let (states, rest) = out.split_at(p.output_size as usize);
    let (data, log) = rest.split_at(p.data_size as usize);
    Some(Results::new(p.order, states, data, log))
}

/// Runs the tests of a program on an engine. The last run's results count.
pub fn run_program(p: &Program, board: &Board, engine: Engine, wide: bool) -> Results {
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
        let met = Arc::new(Mutex::new(Vec::new()));
        let (log, end, order, ram) = (met.clone(), p.end, p.order, board.ram.clone());
        board.run(p.start, wide, move |e: &mut Interrupt| {
            let pc = e.address();
            if e.vector == 0xc00 {
                assert!(pc > end, "a system call at {pc:#x}");
                return Then::Stop;
            }
            log.lock().push(pc);
            if log.lock().len() > 100_000 || !matches!(e.vector, 0x600 | 0x700) {
                eprintln!("interrupt {:#x} at {pc:#x}", e.vector);
                return Then::Stop;
            }
            let mut word = [0; 4];
            let _ = ram.read(pc, &mut word);
            let first = if order == Order::Big { word[0] } else { word[3] };
            Then::Skip(if first >> 2 == 1 { 8 } else { 4 })
        });
        let output = board.read(OUTPUT, p.output_size);
        let data = board.read(DATA, p.data_size);
        let mut r = Results::new(p.order, &output, &data, &[0; 8]);
        r.interrupts = std::mem::take(&mut *met.lock());
        result = Some(r);
    }
    result.expect("a run")
}

fn describe(t: &Test, pc: u64) -> String {
    let mut s = String::new();
    let mut n = 0;
    while n < t.code.len() {
        let w = t.code[n];
        let (name, text) = if w >> 26 == 1 && n + 1 < t.code.len() {
            let both = u64::from(w) << 32 | u64::from(t.code[n + 1]);
            (prefixes().find(both), format!("{w:08x} {:08x}", t.code[n + 1]))
        } else {
            (words().find(w.into()), format!("{w:08x}"))
        };
        s += &format!("  {:#x}: {text} {}\n", pc + 4 * n as u64, name.map_or("illegal", |p| p.name));
        n += text.len() / 8;
    }
    s + &disassemble("powerpc64-linux-gnu-objdump", &["-mpowerpc", "-Mpower10", "-EB"], &Order::Big.words(&t.code))
}

/// Differences of one test between `ours` and what was expected.
fn differences(t: &Test, n: usize, p: &Program, ours: &Results, expected: &Results) -> Option<String> {
    let clean = |r: &Results| State { xer: r.states[n].xer & XER, ..r.states[n].clone() };
    let (a, b) = (clean(ours), clean(expected));
    let pc = p.tests[n];
    let range = pc..pc + 4 * t.code.len() as u64;
    let interrupts = |r: &Results| r.interrupts.iter().copied().filter(|a| range.contains(a)).collect::<Vec<_>>();
    let data = |r: &Results| r.data[n * 512..n * 512 + 512].to_vec();
    let (ia, ib) = (interrupts(ours), interrupts(expected));
    if a == b && ia == ib && data(ours) == data(expected) {
        return None;
    }
    let mut s = format!("test {n}:\n{}\n", describe(t, pc));
    if ia != ib {
        s += &format!("  interrupts: {ia:x?}, expected {ib:x?}\n");
    }
    for k in 0..32 {
        if a.r[k] != b.r[k] {
            s += &format!("  r{k}: {:#x} -> {:#x}, expected {:#x}\n", t.state.r[k], a.r[k], b.r[k]);
        }
    }
    for k in 0..64 {
        if a.vsr[k] != b.vsr[k] {
            s += &format!("  vs{k}: {:016x?} -> {:016x?}, expected {:016x?}\n", t.state.vsr[k], a.vsr[k], b.vsr[k]);
        }
    }
    for (name, i, x, y) in [
        ("cr", t.state.cr, a.cr, b.cr),
        ("xer", t.state.xer, a.xer, b.xer),
        ("lr", t.state.lr, a.lr, b.lr),
        ("ctr", t.state.ctr, a.ctr, b.ctr),
        ("fpscr", t.state.fpscr, a.fpscr, b.fpscr),
        ("vscr", t.state.vscr, a.vscr, b.vscr),
    ] {
        if x != y {
            s += &format!("  {name}: {i:#x} -> {x:#x}, expected {y:#x}\n");
        }
    }
    let (da, db) = (data(ours), data(expected));
    for k in (0..da.len()).filter(|&k| da[k] != db[k]).take(16) {
        s += &format!("  data+{k:#x}: {:#x}, expected {:#x}\n", da[k], db[k]);
    }
    s += &format!("  inputs: cr {:#x} xer {:#x} fpscr {:#x}", t.state.cr, t.state.xer, t.state.fpscr);
    let mut fields: Vec<u32> =
        t.code.iter().flat_map(|w| [w >> 21 & 31, w >> 16 & 31, w >> 11 & 31, w >> 6 & 31]).collect();
    fields.sort_unstable();
    fields.dedup();
    for r in fields {
        s += &format!(" r{r}={:#x}", t.state.r[r as usize]);
        if t.state.vsr.iter().any(|v| *v != [0; 2]) {
            s += &format!(
                " vs{r}={:016x?} vs{}={:016x?}",
                t.state.vsr[r as usize],
                r + 32,
                t.state.vsr[r as usize + 32]
            );
        }
    }
    Some(s + "\n")
}

/// The tests of a batch.
fn batch(class: &Class, batch: u64) -> Vec<Test> {
    let mut rng = Rng::new(number("RHEA_DIFF_SEED", 1).wrapping_add(batch * 0x1_0001));
    (0..BATCH).map(|n| (class.make)(&mut rng, n, DATA + n * program::DATA_SIZE)).collect()
}

/// The rows of the decoder's tables that no class makes an instruction of in its first batches.
pub fn rows_without_class(classes: &[&Class]) -> Vec<&'static str> {
    let mut met: HashSet<*const Pattern> = HashSet::new();
    for class in classes {
        for test in (0..6).flat_map(|n| batch(class, n)) {
            let mut code = test.code.iter();
            while let Some(&w) = code.next() {
                let row = if w >> 26 == 1 {
                    let suffix = code.next().copied().unwrap_or(0);
                    prefixes().find(u64::from(w) << 32 | u64::from(suffix))
                } else {
                    words().find(w.into())
                };
                met.extend(row.map(std::ptr::from_ref));
            }
        }
    }
    let all = words().rows().iter().chain(prefixes().rows());
    all.filter(|p| !met.contains(&std::ptr::from_ref(**p))).map(|p| p.name).collect()
}

/// Runs a class; panics with the differences (up to a few) if there are any.
pub fn check(class: &Class) {
    let config = config();
    let mut failed = String::new();
    for nth in 0..number("RHEA_DIFF_BATCHES", 1) {
        let tests = batch(class, nth);
        for (order, wide) in [(Order::Little, true), (Order::Big, true), (Order::Big, false)] {
            if !wide && !class.narrow || order == Order::Little && class.big {
                continue;
            }
            let p = Program::new(&tests, order, class.fp);
            // 32-bit mode is compared among the engines: there is no reference for it.
            let mut expected = if wide && !class.alone { run_reference(&p, class.name) } else { None };
            for engine in Engine::ALL {
                let board = Board::new(&config, engine, order);
                let ours = run_program(&p, &board, engine, wide);
                assert!(engine != Engine::Regions || board.regions() > 0, "no region was optimised");
                // Without the reference all must agree with the interpreter.
                let Some(expected) = &expected else {
                    expected = Some(ours);
                    continue;
                };
                let bad: Vec<String> =
                    (0..tests.len()).filter_map(|n| differences(&tests[n], n, &p, &ours, expected)).collect();
                if bad.is_empty() {
                    continue;
                }
                let show = number("RHEA_DIFF_SHOW", 5) as usize;
                let shown = bad.iter().take(show).map(String::as_str).collect::<Vec<_>>().join("\n");
                let mode = if wide { 64 } else { 32 };
                failed += &format!(
                    "{} on {engine:?}, {order:?}-endian, {mode} bits, batch {nth}: {} tests differ\n{shown}\n",
                    class.name,
                    bad.len()
                );
                // The other engines mostly show the same.
                if engine == Engine::Interpreter {
                    break;
                }
            }
        }
        assert!(failed.is_empty(), "{failed}");
    }
}
