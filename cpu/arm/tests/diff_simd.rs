//! FP and AdvSIMD instructions against `qemu-aarch64`: random encodings of every pattern on random states.

#[path = "simd_diff/cpu.rs"]
mod cpu;
#[path = "simd_diff/program.rs"]
mod program;
#[path = "simd_diff/values.rs"]
mod values;

use program::{Case, Result, SCRATCH, SCRATCH_BYTES};
use rhea_arm::helpers::{HELPERS, system};
use rhea_arm::translate::{self, Pattern, simd};
use rhea_arm::{ArmConfig, ArmCpu, ArmMode};
use rhea_ir::guest::Raised;
use rhea_ir::interp::{self, Memory};
use rhea_ir::{Builder, Function, MemOp, Op};
use std::sync::Arc;
use values::Random;

struct Scratch(Vec<u8>);

impl Scratch {
    fn range(&self, va: u64, op: MemOp) -> std::ops::Range<usize> {
        let at = va.wrapping_sub(SCRATCH) as usize;
        assert!(at + op.bytes() as usize <= self.0.len(), "access at {va:#x}");
        at..at + op.bytes() as usize
    }
}

impl Memory<ArmCpu> for Scratch {
    fn load(&mut self, _: &mut ArmCpu, va: u64, op: MemOp) -> std::result::Result<u128, Raised> {
        let mut b = [0; 16];
        let r = self.range(va, op);
        b[..r.len()].copy_from_slice(&self.0[r]);
        Ok(u128::from_le_bytes(b))
    }
    fn store(&mut self, _: &mut ArmCpu, va: u64, op: MemOp, value: u128) -> std::result::Result<(), Raised> {
        let r = self.range(va, op);
        let n = r.len();
        self.0[r].copy_from_slice(&value.to_le_bytes()[..n]);
        Ok(())
    }
    fn rmw(&mut self, _: &mut ArmCpu, _: u64, _: MemOp, _: u128) -> std::result::Result<u128, Raised> {
        Err(Raised)
    }
    fn cas(&mut self, _: &mut ArmCpu, _: u64, _: MemOp, _: u128, _: u128) -> std::result::Result<u128, Raised> {
        Err(Raised)
    }
    fn probe_write(&mut self, _: &mut ArmCpu, _: u64, _: MemOp) -> std::result::Result<(), Raised> {
        Ok(())
    }
}

fn mode(fpcr: u32) -> ArmMode {
    let bit = |n: u32| fpcr >> n & 1 != 0;
    ArmMode(0).with_rmode(fpcr >> 22 & 3).with_fz(bit(24)).with_dn(bit(25)).with_ahp(bit(26)).with_fz16(bit(19))
}

fn run_here(config: &ArmConfig, cpu: &mut ArmCpu, mem: &mut Scratch, c: &Case) -> Result {
    let mode = mode(c.fpcr);
    let mut f = Function::new(mode.fp_mode());
    let block = f.new_block(0x1000);
    let mut b = Builder::new(&mut f, &HELPERS, block);
    translate::translate(config, mode.0, 0, &c.insn.to_le_bytes(), 1, &mut b);
    let undefined = f.insts.iter().any(|i| i.op == Op::Call && i.imm == system::UNDEF.0 as u64);
    cpu.v = c.v;
    cpu.x[..16].copy_from_slice(&c.x);
    cpu.fpcr = c.fpcr;
    cpu.header.mode = mode.0;
    cpu.header.fp_flags = 0;
    cpu.fpsr = c.fpsr & 0x9f;
    cpu.qc = (c.fpsr >> 27 & 1) as u128;
    let n = c.nzcv;
    cpu.nzcv = (n >> 31 & 1) << 15 | (n >> 30 & 1) << 14 | (n >> 29 & 1) << 8 | (n >> 28 & 1);
    if !undefined {
        interp::run(&f, cpu, mem);
    }
    let f = cpu.nzcv;
    let flags = cpu.header.fp_flags;
    let qc = cpu.qc != 0 || flags >> 31 != 0;
    let mut x = [0; 16];
    x.copy_from_slice(&cpu.x[..16]);
    Result {
        v: cpu.v,
        x,
        fpsr: cpu.fpsr | rhea_float::Flags(flags).to_fpsr() | (qc as u32) << 27,
        nzcv: (f >> 15 & 1) << 31 | (f >> 14 & 1) << 30 | (f >> 8 & 1) << 29 | (f & 1) << 28,
        undefined,
        scratch: mem.0.clone(),
    }
}

/// A random encoding of the pattern that uses X0–X15 only.
fn encoding(p: &Pattern, r: &mut Random) -> u32 {
    let mut w = p.encoding(r.next() as u32);
    let memory = p.name.starts_with("ldst");
    // Small register numbers: bit 4 of Rd, Rn and, as post-index, Rm.
    for bit in if memory { &[9u32, 20][..] } else { &[4, 9] } {
        if p.mask >> bit & 1 == 0 {
            w &= !(1 << bit);
        }
    }
    if memory && p.name.ends_with("post") && r.below(2) == 0 {
        w |= 31 << 16;
    }
    w
}

fn case(p: &Pattern, r: &mut Random) -> Case {
    let insn = encoding(p, r);
    let mut c = Case { insn, v: [0; 32], x: [0; 16], fpcr: 0, fpsr: 0, nzcv: (r.next() as u32) & 0xf000_0000 };
    c.v.fill_with(|| r.vector());
    c.x.fill_with(|| r.general());
    // Operands of floating-point lanes of one size half of the time.
    if r.below(2) == 0 {
        let size = if insn >> 24 & 0x1e == 0x1e {
            [32, 64, 64, 16][(insn >> 22 & 3) as usize]
        } else {
            [16, 32, 64][r.below(3) as usize]
        };
        for n in [insn, insn >> 5, insn >> 10, insn >> 16] {
            c.v[(n & 31) as usize] = r.floats(size);
        }
    }
    if r.below(2) == 0 {
        let bits = r.next() as u32;
        c.fpcr = bits & 0x07c8_0000;
        if r.below(2) == 0 {
            c.fpcr &= 0x00c0_0000;
        }
    }
    if r.below(4) == 0 {
        c.fpsr = r.next() as u32 & 0x0800_009f;
    }
    if p.name.starts_with("ldst") {
        // At most 64 bytes are accessed.
        c.x[(insn >> 5 & 15) as usize] = SCRATCH + r.below((SCRATCH_BYTES - 64) as u64);
    }
    c
}

fn describe(name: &str, c: &Case, here: &Result, there: &Result) -> String {
    let reg = |n: u32| (n, c.v[(n & 31) as usize]);
    let i = c.insn;
    let mut s = format!("{name}: {i:#010x} fpcr {:#x} fpsr {:#x} nzcv {:#x}\n", c.fpcr, c.fpsr, c.nzcv >> 28);
    for (what, (n, v)) in [("d", reg(i & 31)), ("n", reg(i >> 5 & 31)), ("m", reg(i >> 16 & 31)), ("a", reg(i >> 10 & 31))] {
        s += &format!("  {what} v{n} = {v:#034x}\n");
    }
    s += &format!("  x[n] = {:#x}\n", c.x[(i >> 5 & 15) as usize]);
    if here.undefined != there.undefined {
        s += &format!("  undefined: {} here, {} there\n", here.undefined, there.undefined);
    }
    if here.fpsr != there.fpsr || here.nzcv != there.nzcv {
        s += &format!("  fpsr {:#x} nzcv {:#x} here, {:#x} {:#x} there\n", here.fpsr, here.nzcv >> 28, there.fpsr, there.nzcv >> 28);
    }
    for n in 0..32 {
        if here.v[n] != there.v[n] {
            s += &format!("  v{n}: {:#034x} here\n  v{n}: {:#034x} there\n", here.v[n], there.v[n]);
        }
    }
    for n in 0..16 {
        if here.x[n] != there.x[n] {
            s += &format!("  x{n}: {:#x} here, {:#x} there\n", here.x[n], there.x[n]);
        }
    }
    if here.scratch != there.scratch {
        s += "  memory differs\n";
    }
    s
}

fn compare(per_pattern: usize, seed: u64) {
    let config = Arc::new(ArmConfig::all_features());
    let mut cpu = cpu::new(&config);
    let mut failures = Vec::new();
    let only = std::env::var("RHEA_PATTERN").ok();
    for table in simd::tables() {
        for p in table {
            if only.as_ref().is_some_and(|o| !p.name.contains(o.as_str())) {
                continue;
            }
            let mut r = Random(seed ^ p.value as u64);
            let mut cases = Vec::new();
            let mut allocated = 0;
            while cases.len() < per_pattern {
                let c = case(p, &mut r);
                // The pattern may be hidden by a more specific one; that one has its own turn.
                if !translate::decoder().find(c.insn).is_some_and(|q| std::ptr::eq(q, p)) {
                    continue;
                }
                cases.push(c);
            }
            let scratch: Vec<u8> = (0..SCRATCH_BYTES).map(|_| r.next() as u8).collect();
            let Some(there) = program::run(&cases, &scratch, p.name) else {
                eprintln!("qemu-aarch64 is not installed: not compared");
                return;
            };
            let mut mem = Scratch(scratch);
            let (mut shown, mut changed, mut fpsr) = (0, 0, 0);
            for (c, there) in cases.iter().zip(&there) {
                let here = run_here(&config, &mut cpu, &mut mem, c);
                allocated += !here.undefined as usize;
                changed += (there.v != c.v || there.x != c.x || there.nzcv != c.nzcv) as usize;
                fpsr |= there.fpsr & !c.fpsr;
                if here != *there {
                    if shown < 3 {
                        failures.push(describe(p.name, c, &here, there));
                    }
                    shown += 1;
                    mem.0.clone_from(&there.scratch);
                }
            }
            eprintln!("{}: {} cases, {allocated} allocated, {changed} effective, fpsr {fpsr:#x}, {shown} differ", p.name, cases.len());
        }
    }
    assert!(failures.is_empty(), "{} kinds of difference:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn simd_agrees_with_qemu() {
    let n = std::env::var("RHEA_CASES").ok().and_then(|v| v.parse().ok()).unwrap_or(300);
    let seed = std::env::var("RHEA_SEED").ok().and_then(|v| v.parse().ok()).unwrap_or(1);
    compare(n, seed);
}
