//! A guest whose instructions are single IR operations, random programs of them, and their end states.
#![allow(dead_code)]

use super::isa::emit;
use rhea_ir::env::EnvHeader;
use rhea_ir::func::Builder;
use rhea_ir::guest::*;
use rhea_ir::{MemOp, RmwOp, Slot, Type};
use rhea_memory::Gpa;
use std::collections::HashSet;
use std::mem::offset_of;
use std::sync::Arc;
use std::time::Duration;

/// Data of each vCPU, at the same virtual addresses.
pub const DATA: u64 = 0x10000;
/// The page of data that has no translation.
pub const HOLE: u64 = 0x14000;
/// Data accesses from here on go to the vCPU's own memory.
pub const PRIVATE: u64 = 0x8000;
pub const PRIVATE_BYTES: usize = 0x20000;
pub const RAM: usize = 1 << 20;
/// Instructions a program may have; what follows ends it.
pub const WORDS: usize = 72;
pub const END_WORDS: usize = 24;

/// Physical address of a vCPU's own memory.
pub fn private(index: u32) -> u64 {
    0x40000 + (index as u64) * PRIVATE_BYTES as u64
}

#[repr(C)]
pub struct Toy {
    pub header: EnvHeader,
    pub x: [u64; 32],
    pub w: [u32; 16],
    pub v: [u128; 16],
    pub d: [u64; 8],
    pub s: [u32; 8],
    pub flags: u32,
    pub done: u32,
    pub wfi: u32,
    pub faults: u64,
    pub calls: u64,
    pub index: u32,
    pub flushes: Vec<(TlbFlush, bool)>,
    /// Digests of all states between two instructions; what polls see must be among them.
    pub trace: Option<Arc<HashSet<u64>>>,
    pub strange: Option<String>,
    pub polls: u64,
    /// Somebody kicks for as long as the vCPU runs.
    pub kicked: bool,
}

extern "C" fn mix(_: &mut Toy, a: u64, b: u64, _: u64, _: u64) -> u64 {
    (a ^ b.rotate_left(13)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
extern "C" fn vmix(t: &mut Toy, _: u64, _: u64, c: u64, _: u64) -> u64 {
    t.header.scratch[7] = t.header.scratch[0].wrapping_add(t.header.scratch[1].rotate_left(7)) ^ c as u128;
    0
}
extern "C" fn touch(t: &mut Toy, a: u64, _: u64, _: u64, _: u64) -> u64 {
    t.calls = t.calls.wrapping_mul(31).wrapping_add(a ^ t.digest());
    t.x[5] = t.x[5].wrapping_add(1);
    t.x[5]
}
extern "C" fn maybe_raise(t: &mut Toy, a: u64, _: u64, _: u64, _: u64) -> u64 {
    if a & 7 == 0 {
        t.faults = t.faults.wrapping_mul(33) ^ t.digest();
        t.header.pc += 4;
        t.header.raised = 1;
    }
    a.wrapping_add(1)
}

/// Sets the mode's FP bits and goes on at the next instruction.
extern "C" fn set_mode(t: &mut Toy, a: u64, _: u64, _: u64, _: u64) -> u64 {
    t.calls = t.calls.wrapping_mul(29) ^ t.digest();
    t.header.mode = t.header.mode & !7 | a & 7;
    t.header.pc += 4;
    0
}
/// Asks for TLB flushes, some of them of all vCPUs.
extern "C" fn flush(t: &mut Toy, a: u64, _: u64, _: u64, _: u64) -> u64 {
    let f = match a >> 1 & 3 {
        0 => TlbFlush::All,
        1 => TlbFlush::Indexes(1),
        2 => TlbFlush::Range { va: DATA + (a & 0x3000), pages: 1 + (a >> 8 & 3), indexes: 0xffff, of: Contexts::ALL },
        _ => TlbFlush::Range { va: 0x1000, pages: 4, indexes: 1, of: Contexts::ALL },
    };
    t.flushes.push((f, a & 1 != 0));
    0
}

impl Toy {
    pub fn digest(&self) -> u64 {
        let mut h = 0xcbf2_9ce4_8422_2325u64;
        let mut add = |v: u64| h = (h ^ v).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        add(self.header.pc);
        self.x.iter().for_each(|&v| add(v));
        self.w.iter().for_each(|&v| add(v as u64));
        self.v.iter().for_each(|&v| {
            add(v as u64);
            add((v >> 64) as u64);
        });
        self.d.iter().for_each(|&v| add(v));
        self.s.iter().for_each(|&v| add(v as u64));
        add(self.flags as u64);
        add(self.header.mode);
        h
    }
    pub const X: fn(u32) -> Slot = |n| Slot::new(offset_of!(Toy, x) + 8 * n as usize, Type::I64);
    pub const W: fn(u32) -> Slot = |n| Slot::new(offset_of!(Toy, w) + 4 * (n & 15) as usize, Type::I32);
    pub const V: fn(u32) -> Slot = |n| Slot::new(offset_of!(Toy, v) + 16 * (n & 15) as usize, Type::V128);
    pub const D: fn(u32) -> Slot = |n| Slot::new(offset_of!(Toy, d) + 8 * (n & 7) as usize, Type::F64);
    pub const S: fn(u32) -> Slot = |n| Slot::new(offset_of!(Toy, s) + 4 * (n & 7) as usize, Type::F32);
    pub const FLAGS: Slot = Slot::new(offset_of!(Toy, flags), Type::I32);
    pub const WFI: Slot = Slot::new(offset_of!(Toy, wfi), Type::I32);
    pub const DONE: Slot = Slot::new(offset_of!(Toy, done), Type::I32);
}

/// A word that does not write the loop counter x15 but as loops do, nor ends the program.
pub fn sane(mut w: u32) -> u32 {
    if w >> 8 & 15 == 15 && w & 32 == 0 && !matches!(w & 31, 28..=30) {
        w ^= 0x400;
    }
    if w == u32::MAX { 0 } else { w }
}

impl Guest for Toy {
    const HELPERS: &'static [HelperDesc] = &[
        HelperDesc {
            name: "mix",
            func: HelperFn(mix as *const ()),
            args: &[Type::I64, Type::I64],
            ret: Type::I64,
            effects: Effects::PURE,
        },
        HelperDesc {
            name: "vmix",
            func: HelperFn(vmix as *const ()),
            args: &[Type::V128, Type::V128, Type::I64],
            ret: Type::V128,
            effects: Effects::PURE,
        },
        HelperDesc {
            name: "touch",
            func: HelperFn(touch as *const ()),
            args: &[Type::I64],
            ret: Type::I64,
            effects: Effects::WRITES_STATE,
        },
        HelperDesc {
            name: "maybe_raise",
            func: HelperFn(maybe_raise as *const ()),
            args: &[Type::I64],
            ret: Type::I64,
            effects: Effects::RAISES.union(Effects::WRITES_STATE),
        },
        HelperDesc {
            name: "set_mode",
            func: HelperFn(set_mode as *const ()),
            args: &[Type::I64],
            ret: Type::I64,
            effects: Effects::WRITES_STATE,
        },
        HelperDesc {
            name: "flush",
            func: HelperFn(flush as *const ()),
            args: &[Type::I64],
            ret: Type::I64,
            effects: Effects::READS_STATE,
        },
    ];
    const ARCH: &'static str = "toy";
    type Config = ();

    fn config(&self) -> Arc<()> {
        Arc::new(())
    }
    fn header(&self) -> &EnvHeader {
        &self.header
    }
    fn header_mut(&mut self) -> &mut EnvHeader {
        &mut self.header
    }
    fn fp_mode(mode: u64) -> FpMode {
        FpMode { rounding: (mode & 3) as u8, default_nan: mode & 4 != 0, ..FpMode::default() }
    }
    fn fetch_index(_: u64) -> u32 {
        0
    }
    fn translate(_: &(), _: u64, _: u8, code: &[u8], max: u32, b: &mut Builder) -> Translated {
        let mut pc = b.pc();
        let mut n = 0;
        for word in code.chunks_exact(4).take(max as usize) {
            let w = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            b.start_insn(pc);
            n += 4;
            if w == u32::MAX {
                let one = b.iconst(Type::I32, 1);
                b.set(Toy::DONE, one);
                b.end_leave(pc);
                return Translated::Done { bytes: n };
            }
            if emit(b, w, pc) {
                return Translated::Done { bytes: n };
            }
            pc += 4;
        }
        b.end_goto(pc);
        Translated::Done { bytes: n }
    }
    fn walk(&mut self, va: u64, access: Access, _: u32) -> Result<Translation, Raised> {
        if va & !0xfff == HOLE && access != Access::Fetch {
            self.faults = self.faults.wrapping_mul(31) ^ va ^ self.digest();
            self.header.pc += 4;
            return Err(Raised);
        }
        let page = va & !0xfff & 0x1_ffff;
        let page = if page >= PRIVATE { private(self.index) + page } else { page };
        Ok(Translation {
            page: Gpa(page),
            readable: true,
            writable: true,
            executable: true,
            device: false,
            secure: false,
            slow: false,
            global: true,
            code_attrs: 0,
        })
    }
    fn walk_debug(&mut self, va: u64) -> Option<Translation> {
        self.walk(va, Access::Fetch, 0).ok()
    }
    fn alignment_fault(&mut self, a: MemAccess) -> Raised {
        self.faults = self.faults.wrapping_mul(37) ^ a.va ^ self.digest();
        self.header.pc += 4;
        Raised
    }
    fn bus_fault(&mut self, a: MemAccess) -> Raised {
        self.faults = self.faults.wrapping_mul(41) ^ a.va;
        self.header.pc += 4;
        Raised
    }
    fn check_access(&mut self, _: MemAccess) -> Result<(), Raised> {
        Ok(())
    }
    fn poll(&mut self) -> Poll {
        self.polls += 1;
        if self.done == 0
            && self.strange.is_none()
            && let Some(t) = &self.trace
            && !t.contains(&self.digest())
        {
            self.strange = Some(format!("a state at {:#x} that never was", self.header.pc));
        }
        if self.done != 0 {
            return Poll::Off;
        }
        if std::mem::take(&mut self.wfi) != 0 {
            return Poll::Halt(if self.kicked { None } else { Some(Duration::from_micros(20)) });
        }
        Poll::Run
    }
    fn take_flushes(&mut self) -> Vec<(TlbFlush, bool)> {
        std::mem::take(&mut self.flushes)
    }
    fn reset(&mut self) {}
}

pub struct Rng(pub u64);
impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

pub const SPECIAL: [u64; 12] = [
    0,
    0x8000_0000_0000_0000,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x7ff8_0000_0000_0001,
    0x7ff0_0000_0000_0001,
    0x3ff0_0000_0000_0000,
    0x0000_0000_0000_0001,
    0x43e0_0000_0000_0000,
    0xc3e0_0000_0000_0000,
    0x41ef_ffff_ffe0_0000,
    0x7f80_0001_ff80_0000,
];

impl Toy {
    pub fn new(seed: u64, mode: u64, base: u64, index: u32) -> Box<Toy> {
        let mut rng = Rng(seed);
        let pick = |rng: &mut Rng| {
            let r = rng.next();
            if r & 3 == 0 { SPECIAL[(r >> 8) as usize % 12] } else { rng.next() >> (r >> 20 & 31) }
        };
        let mut t = Box::new(Toy {
            header: EnvHeader::default(),
            x: std::array::from_fn(|_| pick(&mut rng)),
            w: std::array::from_fn(|_| pick(&mut rng) as u32),
            v: std::array::from_fn(|_| (pick(&mut rng) as u128) << 64 | pick(&mut rng) as u128),
            d: std::array::from_fn(|_| pick(&mut rng)),
            s: std::array::from_fn(|_| {
                if rng.next() & 1 == 0 { (pick(&mut rng) >> 32) as u32 } else { (rng.next() as f32).to_bits() }
            }),
            flags: 0,
            done: 0,
            wfi: 0,
            faults: 0,
            calls: 0,
            index,
            flushes: Vec::new(),
            trace: None,
            strange: None,
            polls: 0,
            kicked: false,
        });
        t.x[15] = 60;
        t.header.pc = base;
        t.header.mode = mode;
        t
    }

    /// What a vCPU's own memory starts as.
    pub fn memory(seed: u64) -> Vec<u8> {
        let mut rng = Rng(!seed);
        (0..PRIVATE_BYTES / 8).flat_map(|_| rng.next().to_le_bytes()).collect()
    }

    pub fn end(&self, memory: &[u8]) -> End {
        let hash = memory.iter().fold(0u64, |h, &b| h.wrapping_mul(0x100_0000_01b3) ^ b as u64);
        End {
            x: self.x,
            w: self.w,
            v: self.v,
            d: self.d,
            s: self.s,
            flags: self.flags,
            faults: self.faults,
            calls: self.calls,
            fp_flags: self.header.fp_flags,
            memory: hash,
        }
    }
}

#[derive(PartialEq, Debug, Clone)]
pub struct End {
    pub x: [u64; 32],
    pub w: [u32; 16],
    pub v: [u128; 16],
    pub d: [u64; 8],
    pub s: [u32; 8],
    pub flags: u32,
    pub faults: u64,
    pub calls: u64,
    pub fp_flags: u32,
    pub memory: u64,
}

/// What a program may contain.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Style {
    /// Mostly instructions of this class.
    pub only: Option<u32>,
    /// Stores into its own code.
    pub modifies: bool,
    /// Goes round through branches to many places, as interpreters do.
    pub dispatches: bool,
}

/// Branches to one of eight places behind them, chosen by a register, between other instructions and branches back to the first.
fn dispatches(rng: &mut Rng) -> Vec<u32> {
    let branch = |register: u32| 31 | register << 16 | 3 << 20;
    let back = |at: u32| 28 | at << 20;
    let mut p = vec![branch(15)];
    p.extend((1..15).map(|at| match rng.next() % 4 {
        0 => branch([15, rng.next() as u32 % 16][rng.next() as usize % 2]),
        1 => back(at),
        _ => loop {
            let w = sane(rng.next() as u32);
            if w & 31 < 27 {
                break w;
            }
        },
    }));
    p.extend((15..24).map(back));
    p
}

pub fn program(seed: u64, style: Style) -> Vec<u32> {
    let mut rng = Rng(seed ^ 0x5555);
    if style.dispatches {
        let mut p = dispatches(&mut rng);
        p.resize(WORDS + END_WORDS, u32::MAX);
        return p;
    }
    let len = 10 + rng.next() % (WORDS as u64 - 12);
    let mut p: Vec<u32> = (0..len)
        .map(|_| {
            let mut w = rng.next() as u32;
            if let Some(k) = style.only
                && !rng.next().is_multiple_of(4)
            {
                w = w & !31 | k;
            }
            if style.modifies && rng.next().is_multiple_of(12) {
                w = w & !31 & !(7 << 20) | 27 | (5 + rng.next() as u32 % 3) << 20;
            }
            if !style.modifies && w & 31 == 27 && w >> 20 & 7 >= 5 {
                w &= !(4 << 20);
            }
            sane(w)
        })
        .collect();
    p.resize(WORDS + END_WORDS, u32::MAX);
    p
}

/// The reference: one instruction at a time in the interpreter. The end, the code, and the digests of all states.
pub fn oracle(seed: u64, mode: u64, base: u64, program: &[u32]) -> (End, Vec<u8>, HashSet<u64>) {
    let mut t = Toy::new(seed, mode, base, 0);
    let code: Vec<u8> = program.iter().flat_map(|w| w.to_le_bytes()).collect();
    let mut m = Reference { code, base, own: Toy::memory(seed) };
    let mut trace = HashSet::new();
    let mut steps = 0;
    while t.done == 0 {
        trace.insert(t.digest());
        steps += 1;
        assert!(steps < 100_000, "seed {seed} does not end");
        let pc = t.header.pc;
        let at = (pc - base) as usize;
        let mut f = rhea_ir::Function::new(Toy::fp_mode(t.header.mode));
        let id = f.new_block(pc);
        let mut b = Builder::new(&mut f, Toy::HELPERS, id);
        Toy::translate(&(), t.header.mode, 0, &m.code[at..at + 4], 1, &mut b);
        rhea_ir::promote::promote(&mut f, Toy::HELPERS).expect("few slots");
        rhea_ir::interp::run(&f, &mut *t, &mut m);
        t.header.raised = 0;
    }
    (t.end(&m.own), m.code, trace)
}

struct Reference {
    code: Vec<u8>,
    base: u64,
    own: Vec<u8>,
}

impl Reference {
    fn byte(&mut self, va: u64) -> &mut u8 {
        if va & 0x1_ffff >= PRIVATE {
            return &mut self.own[(va & 0x1_ffff) as usize];
        }
        let at = (va - self.base) as usize;
        &mut self.code[at]
    }
    fn check(&mut self, t: &mut Toy, va: u64, m: MemOp, kind: Access) -> Result<(), Raised> {
        if va & ((1 << m.align_log2()) - 1) != 0 {
            return Err(t.alignment_fault(MemAccess { va, size: m.bytes(), kind, mmu_idx: 0 }));
        }
        t.walk(va, kind, 0)?;
        let last = va + m.bytes() as u64 - 1;
        if last & !0xfff != va & !0xfff {
            t.walk(last & !0xfff, kind, 0)?;
        }
        Ok(())
    }
    fn read(&mut self, va: u64, m: MemOp) -> u128 {
        let mut b = [0; 16];
        for (k, x) in b.iter_mut().enumerate().take(m.bytes() as usize) {
            *x = *self.byte(va + k as u64);
        }
        let v = u128::from_le_bytes(b);
        if m.is_big_endian() { v.swap_bytes() >> (128 - 8 * m.bytes()) } else { v }
    }
    fn write(&mut self, va: u64, m: MemOp, v: u128) {
        let n = m.bytes();
        let v = if m.is_big_endian() { v.swap_bytes() >> (128 - 8 * n) } else { v };
        for k in 0..n {
            *self.byte(va + k as u64) = (v >> (8 * k)) as u8;
        }
    }
    fn low(v: u128, m: MemOp) -> u128 {
        v & (u128::MAX >> (128 - 8 * m.bytes()))
    }
}

impl rhea_ir::interp::Memory<Toy> for Reference {
    fn load(&mut self, t: &mut Toy, va: u64, m: MemOp) -> Result<u128, Raised> {
        self.check(t, va, m, Access::Read)?;
        Ok(self.read(va, m))
    }
    fn store(&mut self, t: &mut Toy, va: u64, m: MemOp, v: u128) -> Result<(), Raised> {
        self.check(t, va, m, Access::Write)?;
        self.write(va, m, Self::low(v, m));
        Ok(())
    }
    fn rmw(&mut self, t: &mut Toy, va: u64, m: MemOp, v: u128) -> Result<u128, Raised> {
        self.check(t, va, m, Access::Write)?;
        let old = self.read(va, m);
        let bits = m.bytes() * 8;
        let (uo, uv) = (old as u64, Self::low(v, m) as u64);
        let (so, sv) = (rhea_ir::eval::sext(uo, bits), rhea_ir::eval::sext(uv, bits));
        let new = match m.rmw_op() {
            RmwOp::Add => uo.wrapping_add(uv),
            RmwOp::And => uo & uv,
            RmwOp::Clr => uo & !uv,
            RmwOp::Xor => uo ^ uv,
            RmwOp::Or => uo | uv,
            RmwOp::Xchg => uv,
            RmwOp::SMax => so.max(sv) as u64,
            RmwOp::SMin => so.min(sv) as u64,
            RmwOp::UMax => uo.max(uv),
            RmwOp::UMin => uo.min(uv),
        };
        self.write(va, m, Self::low(new as u128, m));
        Ok(old)
    }
    fn cas(&mut self, t: &mut Toy, va: u64, m: MemOp, expected: u128, new: u128) -> Result<u128, Raised> {
        self.check(t, va, m, Access::Write)?;
        let old = self.read(va, m);
        if old == Self::low(expected, m) {
            self.write(va, m, Self::low(new, m));
        }
        Ok(old)
    }
    fn probe_write(&mut self, t: &mut Toy, va: u64, m: MemOp) -> Result<(), Raised> {
        self.check(t, va, m, Access::Write)
    }
}
