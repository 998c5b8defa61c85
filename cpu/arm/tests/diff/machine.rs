//! Runs a program's tests on this crate's translation, by the interpreter of the IR.

use super::program::{DATA, LOG, OUTPUT, Program, Results};
use rhea_arm::{ArmConfig, ArmCpu, ArmMode};
use rhea_ir::guest::Raised;
use rhea_ir::interp::{Memory, Outcome, run};
use rhea_ir::{Builder, ExitKind, Function, Guest, MemOp, RmwOp};

/// Flat segments.
#[derive(Debug)]
pub struct Flat {
    segments: Vec<(u64, Vec<u8>)>,
    /// Address of an access outside.
    pub fault: Option<u64>,
}

impl Flat {
    fn slice(&mut self, va: u64, len: usize) -> Option<&mut [u8]> {
        let hit = self.segments.iter_mut().find(|(a, b)| va >= *a && va - *a < b.len() as u64);
        let r = hit.and_then(|(a, b)| b.get_mut((va - *a) as usize..(va - *a) as usize + len));
        if r.is_none() {
            self.fault = Some(va);
        }
        r
    }
    fn bytes(&mut self, va: u64, len: u64) -> &[u8] {
        self.slice(va, len as usize).expect("segment")
    }
    fn read(&mut self, va: u64, op: MemOp) -> Result<u128, Raised> {
        let n = op.bytes() as usize;
        let s = self.slice(va, n).ok_or(Raised)?;
        let mut b = [0; 16];
        b[..n].copy_from_slice(s);
        Ok(u128::from_le_bytes(b))
    }
    fn write(&mut self, va: u64, op: MemOp, v: u128) -> Result<(), Raised> {
        let n = op.bytes() as usize;
        self.slice(va, n).ok_or(Raised)?.copy_from_slice(&v.to_le_bytes()[..n]);
        Ok(())
    }
}

impl<G> Memory<G> for Flat {
    fn load(&mut self, _: &mut G, va: u64, op: MemOp) -> Result<u128, Raised> {
        self.read(va, op)
    }
    fn store(&mut self, _: &mut G, va: u64, op: MemOp, value: u128) -> Result<(), Raised> {
        self.write(va, op, value)
    }
    fn rmw(&mut self, _: &mut G, va: u64, op: MemOp, value: u128) -> Result<u128, Raised> {
        let old = self.read(va, op)?;
        let bits = 8 * op.bytes();
        let signed = |v: u128| ((v << (128 - bits)) as i128) >> (128 - bits);
        let mask = !0u128 >> (128 - bits);
        let (a, b) = (old, value & mask);
        let new = match op.rmw_op() {
            RmwOp::Add => a.wrapping_add(b),
            RmwOp::And => a & b,
            RmwOp::Clr => a & !b,
            RmwOp::Xor => a ^ b,
            RmwOp::Or => a | b,
            RmwOp::Xchg => b,
            RmwOp::SMax => if signed(a) >= signed(b) { a } else { b },
            RmwOp::SMin => if signed(a) <= signed(b) { a } else { b },
            RmwOp::UMax => a.max(b),
            RmwOp::UMin => a.min(b),
        };
        self.write(va, op, new)?;
        Ok(old)
    }
    fn cas(&mut self, _: &mut G, va: u64, op: MemOp, expected: u128, new: u128) -> Result<u128, Raised> {
        let old = self.read(va, op)?;
        if old == expected {
            self.write(va, op, new)?;
        }
        Ok(old)
    }
    fn probe_write(&mut self, _: &mut G, va: u64, _: MemOp) -> Result<(), Raised> {
        self.slice(va, 1).map(|_| ()).ok_or(Raised)
    }
}

/// How regions are prepared before they run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Passes {
    /// As the translator left them.
    None,
    /// Slots promoted and the optimiser run.
    All,
}

/// Runs the tests of a program from `start` to `end`.
pub fn run_program(p: &Program, config: &ArmConfig, cpu: &mut ArmCpu, mode: ArmMode, passes: Passes) -> Results {
    let mut mem = Flat { segments: Vec::new(), fault: None };
    for s in &p.segments {
        let mut b = s.bytes.clone();
        b.resize(b.len().max(s.size as usize), 0);
        mem.segments.push((s.addr, b));
    }
    cpu.header.mode = mode.0;
    cpu.header.pc = p.start;
    let mut undefined = Vec::new();
    while cpu.header.pc != p.end {
        let pc = cpu.header.pc;
        let (base, code) = &mem.segments[0];
        let at = pc.wrapping_sub(*base) as usize;
        assert!(at < code.len(), "pc {pc:#x} left the code");
        let to_page_end = 0x1000 - (pc & 0xfff) as usize;
        let bytes = &code[at..(at + to_page_end).min(code.len())];
        // The end must start a block of its own.
        let before_end = if pc < p.end { ((p.end - pc) / 4) as u32 } else { u32::MAX };
        let mode = cpu.header.mode;
        let mut f = Function::new(ArmCpu::fp_mode(mode));
        let block = f.new_block(pc);
        let mut b = Builder::new(&mut f, ArmCpu::HELPERS, block);
        rhea_arm::translate::translate(config, mode, 0, bytes, before_end.min(32), &mut b);
        if passes == Passes::All {
            if rhea_ir::promote::promote(&mut f, ArmCpu::HELPERS).is_ok() {
                rhea_ir::opt::simplify_all(&mut f);
                rhea_ir::opt::remove_dead(&mut f, ArmCpu::HELPERS);
            }
        }
        let outcome = run(&f, cpu, &mut mem);
        if let Some(va) = mem.fault {
            panic!("access to {va:#x} at {:#x}, outside the test's memory", cpu.header.pc);
        }
        if matches!(outcome, Outcome::Raised | Outcome::Exit(ExitKind::Lookup)) {
            if let Some(at) = super::undefined_at(cpu, mode) {
                undefined.push(at);
                cpu.header.pc = at + 4;
            }
        }
    }
    let output = mem.bytes(OUTPUT, p.output_size).to_vec();
    let data = mem.bytes(DATA, p.data_size).to_vec();
    let log = mem.bytes(LOG, 8).to_vec();
    let mut r = Results::new(&output, &data, &log);
    r.undefined = undefined;
    r
}
