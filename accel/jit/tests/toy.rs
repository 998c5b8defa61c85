//! Random programs of a toy instruction set, whose instructions are single IR operations, run by generated code, by
//! optimised regions and by the interpreter: all must end as the reference does, through states it knows.
//!
//! `TOY_SEEDS` sets how many seeds each test runs, `TOY_FROM` the first.

#[path = "toy/guest.rs"]
mod guest;
#[path = "toy/isa.rs"]
mod isa;

use guest::*;
use rhea_accel::Vcpu;
use rhea_ir::func::Builder;
use rhea_ir::guest::Guest;
use rhea_jit::{JitOptions, JitVcpu, JitVm};
use rhea_memory::{AddressSpace, Gpa, RamBlock};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What a machine of toys is put through.
#[derive(Clone, Debug)]
struct Plan {
    options: JitOptions,
    /// Kicks, requests and pauses at random.
    kicks: bool,
    /// The program is written over itself from outside, unchanged.
    rewrites: bool,
    flushes: bool,
}

struct Program {
    seed: u64,
    mode: u64,
    base: u64,
    words: Vec<u32>,
    trace: Option<Arc<HashSet<u64>>>,
}

/// Runs one vCPU per program to the end; its end and the code it left, or what was wrong.
fn run(programs: &[Program], plan: &Plan) -> Result<Vec<(End, Vec<u8>)>, String> {
    let space = AddressSpace::new("toy");
    let ram = RamBlock::anonymous("ram", RAM as u64).expect("memory");
    let _map = space.map_ram(Gpa(0), &ram, 0, RAM as u64, 0).expect("a mapping");
    let vm = JitVm::new(&space, plan.options.clone()).expect("a JIT");
    let mut vcpus: Vec<Arc<JitVcpu<Toy>>> = Vec::new();
    let code = |p: &Program| -> Vec<u8> { p.words.iter().flat_map(|w| w.to_le_bytes()).collect() };
    for (n, p) in programs.iter().enumerate() {
        ram.write(private(n as u32), &Toy::memory(p.seed)).expect("memory");
        ram.write(p.base, &code(p)).expect("memory");
        let mut t = Toy::new(p.seed, p.mode, p.base, n as u32);
        t.trace = p.trace.clone();
        t.kicked = plan.kicks;
        vcpus.push(vm.add_vcpu(n as u32, t));
    }
    for v in &vcpus {
        v.start().expect("a thread");
    }
    vcpus.iter().for_each(|v| v.resume());
    let done = AtomicBool::new(false);
    let ended = std::thread::scope(|s| {
        let mut rng = Rng(programs[0].seed ^ 77);
        let (vcpus, done, vm, ram) = (&vcpus, &done, &vm, &ram);
        if plan.kicks || plan.rewrites || plan.flushes {
            s.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let r = rng.next();
                    let n = (r >> 32) as usize % vcpus.len();
                    let v = &vcpus[n];
                    match r % 16 {
                        0..8 if plan.kicks => v.kick(),
                        8 if plan.kicks => v.request(Box::new(|| ())),
                        9 if plan.kicks => {
                            v.request_pause();
                            v.wait_paused(None);
                            v.resume();
                        }
                        10 | 11 if plan.rewrites => {
                            let at = r as usize >> 8 & 0xff;
                            let b = code(&programs[n]);
                            let at = (at * 4).min(b.len() - 8);
                            ram.write(programs[n].base + at as u64, &b[at..at + 8]).expect("memory");
                        }
                        12 if plan.flushes => rhea_accel::Accelerator::flush(&**vm),
                        _ => {}
                    }
                    for _ in 0..r >> 40 & 0x3ff {
                        std::hint::spin_loop();
                    }
                    if r >> 50 & 7 == 0 {
                        std::thread::yield_now();
                    }
                }
            });
        }
        let start = Instant::now();
        let ended = loop {
            if vcpus.iter().all(|v| v.with_guest(|g| g.done != 0)) {
                break true;
            }
            if start.elapsed() > Duration::from_secs(30) {
                break false;
            }
            std::thread::sleep(Duration::from_micros(100));
        };
        done.store(true, Ordering::Relaxed);
        ended
    });
    if !ended {
        // The threads cannot be joined.
        return Err(format!(
            "no end; pcs {:x?}",
            vcpus.iter().map(|v| v.with_guest(|g| g.header.pc)).collect::<Vec<_>>()
        ));
    }
    vcpus.iter().for_each(|v| v.stop());
    let mut out = Vec::new();
    for (n, (v, p)) in vcpus.iter().zip(programs).enumerate() {
        let mut own = vec![0; PRIVATE_BYTES];
        ram.read(private(n as u32), &mut own).expect("memory");
        let mut left = vec![0; p.words.len() * 4];
        ram.read(p.base, &mut left).expect("memory");
        if let Some(s) = v.with_guest(|g| g.strange.take()) {
            return Err(format!("vCPU {n}: {s}"));
        }
        out.push((v.with_guest(|g| g.end(&own)), left));
    }
    Ok(out)
}

fn options(interpret: bool, hot_threshold: Option<i32>, code_bytes: usize) -> JitOptions {
    JitOptions { interpret, hot_threshold, code_bytes, background: false, counting: None }
}

fn tiers() -> [(&'static str, JitOptions); 5] {
    [
        ("interpreter", options(true, None, 1 << 20)),
        ("blocks", options(false, None, 4 << 20)),
        ("regions", options(false, Some(1), 4 << 20)),
        ("regions made when branches have gone to many places", options(false, Some(20), 4 << 20)),
        ("regions made in the background", JitOptions { background: true, ..options(false, Some(1), 4 << 20) }),
    ]
}

/// What differs from the reference, for the first tier that does.
fn differs(seed: u64, p: &[u32], modifies: bool) -> Option<String> {
    let (mode, base) = (seed & 7, 0x1000);
    let (end, code, trace) = oracle(seed, mode, base, p);
    let program = Program { seed, mode, base, words: p.to_vec(), trace: Some(Arc::new(trace)) };
    for (name, options) in tiers() {
        // The interpreter finishes a block that it has begun.
        if modifies && options.interpret {
            continue;
        }
        let plan = Plan { options, kicks: false, rewrites: false, flushes: false };
        match run(std::slice::from_ref(&program), &plan) {
            Err(e) => return Some(format!("{name}: {e}")),
            Ok(r) if r[0] != (end.clone(), code.clone()) => {
                let changed = if r[0].1 != code { "code differs too" } else { "" };
                return Some(format!("{name} {changed}\n got {:x?}\nwant {end:x?}", r[0].0));
            }
            Ok(_) => {}
        }
    }
    None
}

fn listing(seed: u64, p: &[u32]) -> String {
    let words: Vec<String> =
        p.iter().take_while(|w| **w != u32::MAX).map(|w| format!("{:2}:{w:08x}", w & 31)).collect();
    let mut f = rhea_ir::Function::new(Toy::fp_mode(seed & 7));
    let id = f.new_block(0x1000);
    let bytes: Vec<u8> = p.iter().flat_map(|w| w.to_le_bytes()).collect();
    Toy::translate(&(), 0, 0, &bytes, 64, &mut Builder::new(&mut f, Toy::HELPERS, id));
    format!("{}\n{f}", words.join(" "))
}

fn compare(seed: u64, style: Style) {
    let mut p = program(seed, style);
    if differs(seed, &p, style.modifies).is_none() {
        return;
    }
    // Drop instructions while it still differs.
    let mut k = 0;
    while p[k] != u32::MAX {
        let mut q = p.clone();
        q.remove(k);
        q.push(u32::MAX);
        if differs(seed, &q, style.modifies).is_some() {
            p = q;
        } else {
            k += 1;
        }
    }
    let what = differs(seed, &p, style.modifies).unwrap_or_else(|| "not any more".into());
    panic!("seed {seed} {style:?} {what}\n{}", listing(seed, &p));
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|s| s.parse().ok()).unwrap_or(default)
}

fn seeds(default: u64) -> std::ops::Range<u64> {
    let from = number("TOY_FROM", 0);
    from..from + number("TOY_SEEDS", default)
}

#[test]
fn random_programs() {
    for seed in seeds(120) {
        compare(seed, Style { only: None, modifies: false, dispatches: false });
    }
}

#[test]
fn dispatching_programs() {
    for seed in seeds(300) {
        compare(seed, Style { only: None, modifies: false, dispatches: true });
    }
}

#[test]
fn one_class_at_a_time() {
    for seed in seeds(4) {
        for k in 0..32 {
            compare(1000 + seed * 100 + k as u64, Style { only: Some(k), modifies: false, dispatches: false });
        }
    }
}

#[test]
fn self_modifying_programs() {
    for seed in seeds(100) {
        compare(seed, Style { only: None, modifies: true, dispatches: false });
    }
}

/// Several vCPUs, tiny code memory, kicks and pauses at random, code rewritten and caches flushed from outside.
#[test]
fn machines() {
    for seed in seeds(60) {
        let mut rng = Rng(seed.wrapping_mul(0x1234_5677));
        let n = 1 + rng.next() as usize % 4;
        let shared = rng.next() & 1 == 0;
        let modifies = !shared && rng.next() & 1 == 0;
        let hot = [None, Some(1), Some(1), Some(6)][rng.next() as usize % 4];
        let bytes = [96 << 10, 160 << 10, 1 << 20][rng.next() as usize % 3];
        let background = rng.next() & 1 == 0;
        let plan = Plan {
            options: JitOptions { background, ..options(false, hot, bytes) },
            kicks: !rng.next().is_multiple_of(4),
            rewrites: !modifies && rng.next() & 1 == 0,
            flushes: rng.next() & 1 == 0,
        };
        let style = Style { only: None, modifies, dispatches: seed % 4 == 3 && !modifies };
        let mut want = Vec::new();
        let programs: Vec<Program> = (0..n as u64)
            .map(|k| {
                let words = program(if shared { seed } else { seed * 16 + k }, style);
                let mode = if shared { seed & 7 } else { (seed + k) & 7 };
                let base = if shared { 0x1000 } else { 0x1000 * (k + 1) };
                let own = seed * 16 + k;
                let (end, code, trace) = oracle(own, mode, base, &words);
                want.push((end, code));
                Program { seed: own, mode, base, words, trace: Some(Arc::new(trace)) }
            })
            .collect();
        match run(&programs, &plan) {
            Err(e) => panic!("seed {seed}, {n} vCPUs, shared {shared}, modifies {modifies}, {plan:?}: {e}"),
            Ok(r) => {
                for (k, (g, w)) in r.iter().zip(&want).enumerate() {
                    assert!(
                        g == w,
                        "seed {seed}, vCPU {k} of {n}, shared {shared}, modifies {modifies}, {plan:?}\n got {:x?}\nwant {:x?}\n{}",
                        g.0,
                        w.0,
                        listing(seed, &programs[k].words)
                    );
                }
            }
        }
    }
}
