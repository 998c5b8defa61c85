//! Differential tests of instruction classes against `qemu-aarch64`.

pub mod asm;
pub mod classes;
pub mod machine;
pub mod program;
pub mod random;

use machine::{Passes, run_program};
use program::{Program, Results, Test};
use random::Rng;
use rhea_arm::translate::{Pattern, decoder};
use rhea_arm::{ArmConfig, ArmMode};
use std::process::{Command, Stdio};

pub use super::setup::{new_cpu, undefined_at};

/// The CPU that the reference runs: what this crate has, without SVE and SME.
const REFERENCE_CPU: &str = "max,sve=off,sme=off";

/// A class of instructions: makes the `n`th test of a batch (whose data area starts at the address given).
pub struct Class {
    pub name: &'static str,
    pub make: fn(&mut Rng, u64) -> Test,
}

/// Tests per batch and class; `RHEA_DIFF_BATCHES` batches (1 unless set), from seed `RHEA_DIFF_SEED`.
const BATCH: u64 = 400;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// All patterns with the names, or of the tables of which the first has a name (`prefix*`).
pub fn patterns(names: &[&str]) -> Vec<&'static Pattern> {
    let all = decoder().patterns();
    let found: Vec<_> = all.iter().copied().filter(|p| names.contains(&p.name)).collect();
    for n in names {
        assert!(found.iter().any(|p| p.name == *n), "no pattern is named {n}");
    }
    found
}

fn reference(p: &Program, class: &str) -> Option<Results> {
    let path = std::env::temp_dir().join(format!("rhea-diff-{}-{class}", std::process::id()));
    std::fs::write(&path, p.elf()).expect("temporary file");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("permissions");
    }
    let out = Command::new("qemu-aarch64").args(["-cpu", REFERENCE_CPU]).arg(&path).stderr(Stdio::inherit()).output();
    let keep = std::env::var_os("RHEA_DIFF_KEEP").is_some();
    if !keep {
        let _ = std::fs::remove_file(&path);
    }
    let out = match out {
        Ok(o) => o,
        Err(e) => {
            println!("skipped: qemu-aarch64 cannot be run ({e}); it is in the package qemu-user");
            return None;
        }
    };
    assert!(out.status.success(), "the reference failed: {}", out.status);
    let (states, rest) = out.stdout.split_at(p.output_size as usize);
    let (data, log) = rest.split_at(p.data_size as usize);
    Some(Results::new(states, data, log))
}

fn describe(t: &Test, pc: u64) -> String {
    let mut s = String::new();
    for (n, w) in t.code.iter().enumerate() {
        let name = decoder().find(*w).map_or("unallocated", |p| p.name);
        s += &format!("  {:#x}: {w:08x} {name}\n", pc + 4 * n as u64);
    }
    // A disassembly if the tool is there.
    let path = std::env::temp_dir().join(format!("rhea-diff-{}-dis", std::process::id()));
    let bytes: Vec<u8> = t.code.iter().flat_map(|w| w.to_le_bytes()).collect();
    if std::fs::write(&path, bytes).is_ok() {
        let out = Command::new("aarch64-linux-gnu-objdump").args(["-D", "-bbinary", "-maarch64"]).arg(&path).output();
        if let Ok(out) = out {
            let text = String::from_utf8_lossy(&out.stdout);
            s += &text.lines().skip(7).collect::<Vec<_>>().join("\n");
        }
        let _ = std::fs::remove_file(&path);
    }
    s
}

/// Differences of one test between ours and the reference's results.
fn differences(t: &Test, n: usize, p: &Program, ours: &Results, reference: &Results) -> Option<String> {
    let (a, b) = (&ours.states[n], &reference.states[n]);
    let pc = p.tests[n];
    let range = pc..pc + 4 * t.code.len() as u64;
    let undefined = |r: &Results| r.undefined.iter().copied().filter(|a| range.contains(a)).collect::<Vec<_>>();
    let data = |r: &Results| r.data[n * 512..n * 512 + 512].to_vec();
    let (ua, ub) = (undefined(ours), undefined(reference));
    if a == b && ua == ub && data(ours) == data(reference) {
        return None;
    }
    let mut s = format!("test {n}:\n{}\n", describe(t, pc));
    if ua != ub {
        s += &format!("  undefined: ours {ua:x?}, reference {ub:x?}\n");
    }
    for k in 0..31 {
        if a.x[k] != b.x[k] {
            s += &format!("  x{k}: {:#x} -> ours {:#x}, reference {:#x}\n", t.state.x[k], a.x[k], b.x[k]);
        }
    }
    for k in 0..32 {
        if a.v[k] != b.v[k] {
            s += &format!("  v{k}: {:#034x} -> ours {:#034x}, reference {:#034x}\n", t.state.v[k], a.v[k], b.v[k]);
        }
    }
    for (name, i, x, y) in [
        ("sp", t.state.sp, a.sp, b.sp),
        ("nzcv", t.state.nzcv, a.nzcv, b.nzcv),
        ("fpcr", t.state.fpcr, a.fpcr, b.fpcr),
        ("fpsr", t.state.fpsr, a.fpsr, b.fpsr),
    ] {
        if x != y {
            s += &format!("  {name}: {i:#x} -> ours {x:#x}, reference {y:#x}\n");
        }
    }
    let (da, db) = (data(ours), data(reference));
    for k in (0..da.len()).filter(|&k| da[k] != db[k]).take(16) {
        s += &format!("  data+{k:#x}: ours {:#x}, reference {:#x}\n", da[k], db[k]);
    }
    s += "  inputs:";
    for w in &t.code {
        for r in [w & 31, w >> 5 & 31, w >> 16 & 31, w >> 10 & 31] {
            let x = if r < 31 { t.state.x[r as usize] } else { t.state.sp };
            s += &format!(" x{r}={x:#x} v{r}={:#x}", t.state.v[r as usize]);
        }
    }
    Some(s + "\n")
}

/// Runs a class; panics with the differences (up to a few) if there are any.
pub fn check(class: &Class) {
    let mut config = ArmConfig::all_features();
    // The reference clears 512 bytes.
    config.zva_log2 = 9;
    let mode = ArmMode(0).with_two_ranges(true).with_zva_ok(true).with_ctr_ok(true);
    for batch in 0..number("RHEA_DIFF_BATCHES", 1) {
        let mut rng = Rng::new(number("RHEA_DIFF_SEED", 1).wrapping_add(batch * 0x1_0001));
        let tests: Vec<Test> = (0..BATCH).map(|n| (class.make)(&mut rng, program::DATA + n * program::DATA_SIZE)).collect();
        let p = Program::new(&tests);
        let Some(expected) = reference(&p, class.name) else { return };
        for passes in [Passes::None, Passes::All] {
            let mut cpu = new_cpu(&config);
            let ours = run_program(&p, &config, &mut cpu, mode, passes);
            let bad: Vec<String> =
                (0..tests.len()).filter_map(|n| differences(&tests[n], n, &p, &ours, &expected)).collect();
            let show = number("RHEA_DIFF_SHOW", 5) as usize;
            let shown = bad.iter().take(show).cloned().collect::<Vec<_>>().join("\n");
            assert!(bad.is_empty(), "{} ({passes:?}): {} tests differ\n{shown}", class.name, bad.len());
        }
    }
}

