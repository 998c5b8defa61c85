//! Every operation of the table, in many forms: generated code against the interpreter (whose values are `eval`'s and
//! `fpeval`'s), and simplified functions against what they were made from. `OPS_ROUNDS` sets how many rounds of random
//! operands and forms are run (1).

mod forms;
mod functions;
mod operands;
#[path = "../../../../cpu/ir/tests/support/mod.rs"]
mod support;

use forms::forms;
use functions::{ARGS, LIVE, RESULTS, Setting, make};
use operands::{Form, Rng, random_arg};

use rhea_accel::Vcpu;
use rhea_ir::func::Function;
use rhea_ir::guest::{FpMode, Guest, NanRule};
use rhea_ir::op::Class;
use rhea_ir::opt::{remove_dead, simplify_all};
use rhea_ir::verify::{Stage, verify};
use rhea_ir::{Lane, MemOp, Op, Slot, Type};
use rhea_jit::{JitOptions, JitVm};
use rhea_memory::{AddressSpace, Gpa, RamBlock};
use std::time::{Duration, Instant};
use support::*;

struct Test {
    form: Form,
    shape: Setting,
    f: Function,
    inputs: Vec<Job>,
    /// The last one's function is simplified from the test before it.
    derived: bool,
}

fn modes() -> Vec<FpMode> {
    let mut v = Vec::new();
    for rounding in 0..4 {
        for k in 0..8 {
            for nan_rule in [NanRule::Arm, NanRule::X86, NanRule::Ppc] {
                let (default_nan, flush, flush_f16) = (k & 1 != 0, k & 2 != 0, k & 4 != 0);
                // Denormal inputs are x86's own switch.
                let daz = nan_rule == NanRule::X86 && flush_f16;
                v.push(FpMode {
                    rounding,
                    default_nan,
                    flush,
                    flush_f16: flush_f16 && !daz,
                    alt_half: false,
                    daz,
                    nan_rule,
                });
            }
        }
    }
    v
}

fn inputs(form: &Form, n: usize, r: &mut Rng) -> Vec<Job> {
    (0..n)
        .map(|_| {
            let mut slots = Box::new([0u8; SLOT_BYTES]);
            for (k, &a) in form.args.iter().enumerate() {
                let v = random_arg(r, a);
                put_slot(&mut *slots, Slot::new((ARGS + 16 * k as u32) as usize, a.ty()), v);
            }
            for k in 0..64 {
                let v = r.next() as u128 | (r.next() as u128) << 64;
                put_slot(&mut *slots, Slot::new((LIVE + 16 * k) as usize, Type::V128), v);
            }
            let mut memory = Vec::new();
            if form.op.class() == Class::Mem {
                memory = (0..JOB_MEMORY.iter().map(|m| m.len()).sum()).map(|_| r.next() as u8).collect();
                // A compare-and-swap that finds what it expects.
                if form.op == Op::Cas && r.below(2) == 0 {
                    let va = get_slot(&*slots, Slot::new(ARGS as usize, Type::I64)) as usize;
                    let size = 1usize << (form.aux & 7);
                    if va >= JOB_MEMORY[0].start && va + size <= JOB_MEMORY[0].end {
                        let at = va - JOB_MEMORY[0].start;
                        let mut b = [0u8; 16];
                        b[..size].copy_from_slice(&memory[at..at + size]);
                        if MemOp(form.aux).is_big_endian() {
                            b[..size].reverse();
                        }
                        put_slot(&mut *slots, Slot::new((ARGS + 16) as usize, form.ty), u128::from_le_bytes(b));
                    }
                }
            }
            Job { function: 0, slots, memory }
        })
        .collect()
}

/// Runs all jobs in generated code.
fn execute(tests: &[Test]) -> Vec<Finished> {
    let space = AddressSpace::new("test");
    let ram = RamBlock::anonymous("ram", MEMORY as u64).expect("memory");
    let _map = space.map_ram(Gpa(0), &ram, 0, MEMORY as u64, 0).expect("a mapping");
    let mut m = Machine::new(tests.iter().map(|t| t.f.clone()).collect());
    for (n, t) in tests.iter().enumerate() {
        m.queue.extend(t.inputs.iter().cloned().map(|mut j| {
            j.function = n;
            j
        }));
    }
    let jobs = m.queue.len();
    let mem = ram.clone();
    m.swap_memory = Some(Box::new(move |give, take| {
        if !give.is_empty() {
            let mut at = 0;
            for r in JOB_MEMORY {
                mem.write(r.start as u64, &give[at..at + r.len()]).expect("memory");
                at += r.len();
            }
        } else {
            for r in JOB_MEMORY {
                let mut b = vec![0; r.len()];
                mem.read(r.start as u64, &mut b).expect("memory");
                take.extend(b);
            }
        }
    }));
    let options =
        JitOptions { code_bytes: 32 << 20, hot_threshold: None, interpret: false, background: false, counting: None };
    let vm = JitVm::new(&space, options).expect("a JIT");
    let v = vm.add_vcpu(0, m);
    v.start().expect("a thread");
    v.resume();
    let start = Instant::now();
    while !v.with_guest(|m| m.finished) {
        assert!(start.elapsed() < Duration::from_secs(300), "no end");
        std::thread::sleep(Duration::from_millis(1));
    }
    v.stop();
    let results = v.with_guest(|m| std::mem::take(&mut m.results));
    assert_eq!(results.len(), jobs);
    results
}

/// What the interpreter makes of the jobs.
fn oracle(t: &Test, machine: &mut Machine, flat: &mut Flat) -> Vec<Finished> {
    t.inputs
        .iter()
        .map(|j| {
            machine.slots = *j.slots;
            if !j.memory.is_empty() {
                let mut at = 0;
                for r in JOB_MEMORY {
                    flat.0[r.clone()].copy_from_slice(&j.memory[at..at + r.len()]);
                    at += r.len();
                }
            }
            let (_, mut end) = interpret(&t.f, machine, flat);
            for r in JOB_MEMORY {
                end.memory.extend_from_slice(&flat.0[r]);
            }
            end
        })
        .collect()
}

fn show(t: &Test, job: &Job, got: &Finished, want: &Finished) -> String {
    let mut s = format!("{:?} {:?} simplified: {}\n{}", t.form, t.shape, t.derived, t.f);
    for (k, a) in t.form.args.iter().enumerate() {
        let v = get_slot(&*job.slots, Slot::new((ARGS + 16 * k as u32) as usize, a.ty()));
        s += &format!("argument {k}: {v:#x}\n");
    }
    for at in (SLOTS as u32..(SLOTS + SLOT_BYTES) as u32).step_by(16) {
        let slot = Slot::new(at as usize, Type::V128);
        let (g, w) = (get_slot(&*got.slots, slot), get_slot(&*want.slots, slot));
        if g != w {
            s += &format!("slot {at:#x}: {g:#x}, not {w:#x}\n");
        }
    }
    s += &format!("pc {:#x} {:#x}, FP flags {:#x} {:#x}", got.pc, want.pc, got.fp_flags, want.fp_flags);
    if got.memory != want.memory {
        s += &format!("\nmemory {:02x?}\n       {:02x?}", got.memory, want.memory);
    }
    s
}

const UNDERFLOW: u32 = 0x10;

/// The one known difference: a result that rounds up to the least normal number is tiny before rounding (underflow for the
/// guest) but not after it, as the host sees it.
fn least_normal(t: &Test, end: &Finished) -> bool {
    if t.f.fp.nan_rule == NanRule::X86 {
        return false;
    }
    let has = |v: u128, lane: Lane, least: u64| {
        (0..lane.count()).any(|k| (v >> (k * lane.bits())) as u64 & (u64::MAX >> (65 - lane.bits())) == least)
    };
    (RESULTS..RESULTS + 0x80).step_by(16).any(|offset| {
        let v = get_slot(&*end.slots, Slot::new(offset as usize, Type::V128));
        has(v, Lane::D, 1 << 52) || has(v, Lane::S, 1 << 23)
    })
}

/// Runs the tests, and gives one example of failure.
fn check(tests: Vec<Test>) -> Option<String> {
    for t in &tests {
        if let Err(e) = verify(&t.f, Machine::HELPERS, Stage::Promoted) {
            panic!("{:?} {:?}: {e}\n{}", t.form, t.shape, t.f);
        }
    }
    let results = execute(&tests);
    let mut machine = Machine::new(Vec::new());
    let mut flat = Flat(vec![0; MEMORY]);
    let mut k = 0;
    let mut bad: Vec<(Op, usize, String)> = Vec::new();
    let mut previous = Vec::new();
    let mut fail = |op: Op, what: String| match bad.iter_mut().find(|b| b.0 == op) {
        Some(b) => b.1 += 1,
        None => bad.push((op, 1, what)),
    };
    for t in &tests {
        let want = oracle(t, &mut machine, &mut flat);
        for (n, w) in want.iter().enumerate() {
            let got = &results[k];
            k += 1;
            let memory = t.inputs[n].memory.is_empty() || got.memory == w.memory;
            // The host's own invalid flag is not looked at by Power guests.
            let seen = if t.f.fp.nan_rule == NanRule::Ppc { !1 } else { !0 };
            let (got_flags, want_flags) = (got.fp_flags & seen, w.fp_flags & seen);
            let flags = got_flags == want_flags || (got_flags | UNDERFLOW == want_flags && least_normal(t, w));
            if got.pc != w.pc || got.slots != w.slots || !flags || !memory {
                fail(t.form.op, show(t, &t.inputs[n], got, w));
            }
            if t.derived {
                let p: &Finished = &previous[n];
                if p.pc != w.pc || p.slots != w.slots || p.fp_flags != w.fp_flags || p.memory != w.memory {
                    fail(t.form.op, format!("simplification: {}", show(t, &t.inputs[n], w, p)));
                }
            }
        }
        previous = want;
    }
    let text: Vec<String> = bad.iter().map(|(op, n, s)| format!("==== {} ({n} times)\n{s}", op.name())).collect();
    (!text.is_empty()).then(|| text.join("\n"))
}

/// Makes tests of each operation of a class and runs them, one operation at a time.
fn each(class: Class, seed: u64, make: impl Fn(&Form, &mut Vec<Test>, &mut Rng)) {
    let mut bad = Vec::new();
    for round in 0..rounds() {
        let mut r = Rng(round * 1000 + seed);
        for &op in Op::ALL.iter().filter(|o| o.class() == class) {
            let mut tests = Vec::new();
            for form in forms(op, &mut r) {
                make(&form, &mut tests, &mut r);
            }
            bad.extend(check(tests));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

fn rounds() -> u64 {
    std::env::var("OPS_ROUNDS").ok().and_then(|s| s.parse().ok()).unwrap_or(1)
}

fn push(tests: &mut Vec<Test>, form: &Form, shape: Setting, fp: FpMode, n: usize, r: &mut Rng) {
    let f = make(form, shape, fp, r);
    let inputs = inputs(form, n, r);
    let mut g = f.clone();
    simplify_all(&mut g);
    remove_dead(&mut g, Machine::HELPERS);
    let simple = g != f;
    tests.push(Test { form: form.clone(), shape, f, inputs: inputs.clone(), derived: false });
    if simple {
        tests.push(Test { form: form.clone(), shape, f: g, inputs, derived: true });
    }
}

fn shapes(form: &Form) -> Vec<Setting> {
    let mut v = vec![Setting::Plain, Setting::Pressure, Setting::Pressure, Setting::Chain, Setting::Chain];
    if form.args.len() > 1 {
        v.push(Setting::Same);
    }
    v.extend((0..form.args.len()).map(Setting::Const));
    v
}

#[test]
fn integers_and_vectors() {
    each(Class::Pure, 0, |form, tests, r| {
        for shape in shapes(form) {
            push(tests, form, shape, FpMode::default(), 10, r);
        }
    });
}

#[test]
fn memory() {
    each(Class::Mem, 1, |form, tests, r| {
        for shape in shapes(form) {
            push(tests, form, shape, FpMode::default(), 12, r);
        }
    });
}

#[test]
fn floats() {
    let modes = modes();
    each(Class::Fp, 2, |form, tests, r| {
        for fp in &modes {
            // Variants that only Power guests have.
            let variant = form.imm != 0
                && matches!(form.op, Op::FAdd | Op::FSub | Op::FMul | Op::FDiv | Op::FSqrt | Op::FMulAdd)
                || form.aux != 0 && matches!(form.op, Op::FExtend | Op::FNarrow);
            if variant && fp.nan_rule != NanRule::Ppc {
                continue;
            }
            // The modes that the host's unit serves get most of the work.
            let x86 = matches!(form.op, Op::FSimd1 | Op::FSimd2 | Op::FSimd3 | Op::FlagsFCom);
            let fast = if x86 { fp.is_host_x86() } else { !fp.flush && !fp.flush_f16 && fp.nan_rule != NanRule::X86 };
            push(tests, form, Setting::Plain, *fp, if fast { 20 } else { 2 }, r);
            if fast {
                for shape in [Setting::Pressure, Setting::Chain, Setting::Same, Setting::Const(0)] {
                    push(tests, form, shape, *fp, 5, r);
                }
            }
        }
    });
}
