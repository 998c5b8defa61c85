//! A guest for tests: a block of slots, flat memory with a hole, a few helpers, and functions given in IR instead of
//! guest code. Shared with the JIT's tests.
#![allow(dead_code)]

use rhea_ir::env::EnvHeader;
use rhea_ir::func::{BlockId, Builder, ExitKind, Function, StateId, Target, Term, Value};
use rhea_ir::guest::*;
use rhea_ir::interp::{self, Outcome};
use rhea_ir::{MemOp, Op, RmwOp, Slot, Type};
use rhea_memory::Gpa;
use std::collections::VecDeque;
use std::sync::Arc;

/// Offset of the slots in the CPU structure, and their bytes.
pub const SLOTS: usize = 0x2000;
pub const SLOT_BYTES: usize = 0x1000;
/// Slots with a meaning: what a fault was (1 no translation, 2 alignment, 3 bus), its pc and address; calls of helpers;
/// "an exit was reached".
pub const FAULT_KIND: u32 = 0x2fe0;
pub const FAULT_PC_SLOT: u32 = 0x2fe8;
pub const FAULT_VA: u32 = 0x2ff0;
pub const CALLS: u32 = 0x2fd0;
pub const DONE: u32 = 0x2fc0;
/// Where faults go on.
pub const VECTOR: u64 = 0xf000;
/// Data accesses here have no translation.
pub const HOLE: std::ops::Range<u64> = 0x8000..0x10000;
pub const MEMORY: usize = 1 << 20;

pub type SwapMemory = Box<dyn FnMut(&[u8], &mut Vec<u8>) + Send>;

#[repr(C)]
pub struct Machine {
    pub header: EnvHeader,
    pad: [u8; SLOTS - size_of::<EnvHeader>()],
    pub slots: [u8; SLOT_BYTES],
    pub functions: Arc<Vec<Function>>,
    pub queue: VecDeque<Job>,
    pub results: Vec<Finished>,
    pub running: bool,
    pub finished: bool,
    /// Gives and takes the part of memory that jobs carry with them.
    pub swap_memory: Option<SwapMemory>,
}

/// One run of a function.
#[derive(Clone)]
pub struct Job {
    /// Index of the function.
    pub function: usize,
    pub slots: Box<[u8; SLOT_BYTES]>,
    /// Memory in [`JOB_MEMORY`], one range after the other, if the job uses any.
    pub memory: Vec<u8>,
}

/// Guest memory that jobs start from and leave: around a page boundary, and before the hole.
pub const JOB_MEMORY: [std::ops::Range<usize>; 2] = [0x4fc0..0x5040, 0x7fc0..0x8000];
/// MMU index whose pages always take the slow path.
pub const SLOW_INDEX: u32 = 1;

#[derive(Clone, PartialEq, Debug)]
pub struct Finished {
    pub pc: u64,
    pub slots: Box<[u8; SLOT_BYTES]>,
    pub fp_flags: u32,
    pub memory: Vec<u8>,
}

extern "C" fn mix(_: &mut Machine, a: u64, b: u64, _: u64, _: u64) -> u64 {
    (a ^ b.rotate_left(13)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
extern "C" fn vmix(m: &mut Machine, _: u64, _: u64, c: u64, _: u64) -> u64 {
    m.header.scratch[7] = m.header.scratch[0].wrapping_add(m.header.scratch[1].rotate_left(7)) ^ c as u128;
    0
}
/// Adds its argument to the i64 slot 0x2000 and to the trace of calls.
extern "C" fn touch(m: &mut Machine, a: u64, _: u64, _: u64, _: u64) -> u64 {
    let v = m.get64(0x2000).wrapping_add(a);
    m.put64(0x2000, v);
    let t = m.get64(CALLS).wrapping_mul(31) ^ m.header.pc ^ a;
    m.put64(CALLS, t);
    v
}
/// Raises if its argument is odd.
extern "C" fn odd_raises(m: &mut Machine, a: u64, _: u64, _: u64, _: u64) -> u64 {
    if a & 1 != 0 {
        m.fault(a, 4);
        m.header.raised = 1;
    }
    a >> 1
}
/// The i64 slot 0x2000 as it is in memory, plus the argument.
extern "C" fn peek(m: &mut Machine, a: u64, _: u64, _: u64, _: u64) -> u64 {
    m.get64(0x2000).wrapping_add(a)
}
/// Four arguments of all kinds.
extern "C" fn four(_: &mut Machine, a: u64, b: u64, c: u64, d: u64) -> u64 {
    (a ^ b.rotate_left(8) ^ c.rotate_left(16) ^ d.rotate_left(24)) & 1
}

impl Machine {
    pub fn new(functions: Vec<Function>) -> Box<Machine> {
        Box::new(Machine {
            header: EnvHeader::default(),
            pad: [0; SLOTS - size_of::<EnvHeader>()],
            slots: [0; SLOT_BYTES],
            functions: Arc::new(functions),
            queue: VecDeque::new(),
            results: Vec::new(),
            running: false,
            finished: false,
            swap_memory: None,
        })
    }
    pub fn get(&self, slot: Slot) -> u128 {
        get_slot(&self.slots, slot)
    }
    pub fn put(&mut self, slot: Slot, v: u128) {
        put_slot(&mut self.slots, slot, v);
    }
    fn get64(&self, offset: u32) -> u64 {
        self.get(Slot::new(offset as usize, Type::I64)) as u64
    }
    fn put64(&mut self, offset: u32, v: u64) {
        self.put(Slot::new(offset as usize, Type::I64), v as u128);
    }
    fn fault(&mut self, va: u64, kind: u64) -> Raised {
        self.put64(FAULT_KIND, kind);
        self.put64(FAULT_PC_SLOT, self.header.pc);
        self.put64(FAULT_VA, va);
        self.header.pc = VECTOR;
        Raised
    }
}

pub fn get_slot(slots: &[u8], slot: Slot) -> u128 {
    let at = slot.offset as usize - SLOTS;
    let n = slot.ty.bytes() as usize;
    let mut b = [0; 16];
    b[..n].copy_from_slice(&slots[at..at + n]);
    u128::from_le_bytes(b)
}

pub fn put_slot(slots: &mut [u8], slot: Slot, v: u128) {
    let at = slot.offset as usize - SLOTS;
    let n = slot.ty.bytes() as usize;
    slots[at..at + n].copy_from_slice(&v.to_le_bytes()[..n]);
}

/// An FP mode packed into the low bits of a guest mode; the function's index is above.
pub fn mode_of(index: usize, fp: FpMode) -> u64 {
    let nan = match fp.nan_rule {
        NanRule::Arm => 0,
        NanRule::X86 => 1,
        NanRule::Ppc => 2,
    };
    (index as u64) << 16
        | fp.rounding as u64
        | (fp.default_nan as u64) << 2
        | (fp.flush as u64) << 3
        | (fp.flush_f16 as u64) << 4
        | (fp.alt_half as u64) << 5
        | (fp.daz as u64) << 8
        | nan << 6
}

/// Copies a function into the block of a builder.
pub fn splice(f: &Function, b: &mut Builder) {
    let at = b.block();
    let to = &mut *b.func;
    let base = to.insts.len() as u32;
    let states = to.states.len() as u32;
    let value = |v: Value| if v.is_none() { v } else { Value(v.0 + base) };
    let state = |s: StateId| if s == StateId::NONE { s } else { StateId(s.0 + states) };
    for i in &f.insts {
        let mut i = *i;
        i.args = i.args.map(value);
        i.state = state(i.state);
        if matches!(i.op, Op::ConstV | Op::VShuffle) {
            i.imm = to.const128(f.consts[i.imm as usize]);
        }
        to.push_inst(i);
    }
    for s in &f.states {
        let mut s = s.clone();
        s.dirty.iter_mut().for_each(|d| d.1 = value(d.1));
        to.push_state(s);
    }
    let mut ids = vec![at];
    for blk in &f.blocks[1..] {
        ids.push(to.new_block(blk.pc));
    }
    let target = |t: &Target| match t {
        Target::Block(b, args) => Target::Block(ids[b.index()], args.iter().map(|&a| value(a)).collect()),
        Target::Exit(k, s) => {
            let k = match *k {
                ExitKind::Indirect(v) => ExitKind::Indirect(value(v)),
                ExitKind::Return(v) => ExitKind::Return(value(v)),
                ExitKind::IndirectCall { target, ret } => ExitKind::IndirectCall { target: value(target), ret },
                ExitKind::Inner(BlockId(b)) => ExitKind::Inner(ids[b as usize]),
                k => k,
            };
            Target::Exit(k, state(*s))
        }
    };
    for (blk, id) in f.blocks.iter().zip(&ids) {
        let t = &mut to.blocks[id.index()];
        t.params = blk.params.iter().map(|&v| value(v)).collect();
        t.insts.extend(blk.insts.iter().map(|&v| value(v)));
        t.guest_insns = blk.guest_insns;
        t.term = match &blk.term {
            Term::Open => Term::Open,
            Term::Jump(x) => Term::Jump(target(x)),
            Term::Branch { cond, then, other, hint } => {
                Term::Branch { cond: value(*cond), then: target(then), other: target(other), hint: *hint }
            }
            Term::Switch { value: v, cases, other, note } => Term::Switch {
                value: value(*v),
                cases: cases.iter().map(|(n, t)| (*n, target(t))).collect(),
                other: target(other),
                note: *note,
            },
        };
    }
}

impl Guest for Machine {
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
            name: "odd_raises",
            func: HelperFn(odd_raises as *const ()),
            args: &[Type::I64],
            ret: Type::I64,
            effects: Effects::RAISES.union(Effects::WRITES_STATE),
        },
        HelperDesc {
            name: "peek",
            func: HelperFn(peek as *const ()),
            args: &[Type::I64],
            ret: Type::I64,
            effects: Effects::READS_STATE,
        },
        HelperDesc {
            name: "four",
            func: HelperFn(four as *const ()),
            args: &[Type::I32, Type::F64, Type::Bool, Type::F32],
            ret: Type::Bool,
            effects: Effects::PURE,
        },
    ];
    const ARCH: &'static str = "ir";
    type Config = Vec<Function>;

    fn config(&self) -> Arc<Vec<Function>> {
        self.functions.clone()
    }
    fn header(&self) -> &EnvHeader {
        &self.header
    }
    fn header_mut(&mut self) -> &mut EnvHeader {
        &mut self.header
    }
    fn fp_mode(mode: u64) -> FpMode {
        let bit = |n: u32| mode >> n & 1 != 0;
        FpMode {
            rounding: (mode & 3) as u8,
            default_nan: bit(2),
            flush: bit(3),
            flush_f16: bit(4),
            alt_half: bit(5),
            daz: bit(8),
            nan_rule: [NanRule::Arm, NanRule::X86, NanRule::Ppc, NanRule::Arm][(mode >> 6 & 3) as usize],
        }
    }
    fn fetch_index(_: u64) -> u32 {
        0
    }
    fn translate(functions: &Vec<Function>, mode: u64, _: u8, _: &[u8], _: u32, b: &mut Builder) -> Translated {
        let pc = b.pc();
        match functions.get((mode >> 16) as usize) {
            Some(f) if f.blocks[0].pc == pc => splice(f, b),
            _ => {
                b.start_insn(pc);
                let one = b.iconst(Type::I32, 1);
                b.set(Slot::new(DONE as usize, Type::I32), one);
                b.end_leave(pc);
            }
        }
        Translated::Done { bytes: 4 }
    }
    fn walk(&mut self, va: u64, access: Access, mmu_idx: u32) -> Result<Translation, Raised> {
        if HOLE.contains(&va) && access != Access::Fetch {
            return Err(self.fault(va, 1));
        }
        Ok(Translation {
            page: Gpa(va & !0xfff & (MEMORY as u64 - 1)),
            readable: true,
            writable: true,
            executable: true,
            device: false,
            secure: false,
            slow: mmu_idx == SLOW_INDEX,
            global: true,
            code_attrs: 0,
        })
    }
    fn walk_debug(&mut self, va: u64) -> Option<Translation> {
        self.walk(va, Access::Fetch, 0).ok()
    }
    fn alignment_fault(&mut self, a: MemAccess) -> Raised {
        self.fault(a.va, 2)
    }
    fn bus_fault(&mut self, a: MemAccess) -> Raised {
        self.fault(a.va, 3)
    }
    fn check_access(&mut self, _: MemAccess) -> Result<(), Raised> {
        Ok(())
    }
    fn poll(&mut self) -> Poll {
        let done = Slot::new(DONE as usize, Type::I32);
        if self.running {
            if self.get(done) == 0 {
                return Poll::Run;
            }
            self.running = false;
            self.put(done, 0);
            // Only x86's rules have a flag for denormal operands.
            let x86 = Self::fp_mode(self.header.mode).nan_rule == NanRule::X86;
            let fp_flags = self.header.fp_flags | self.header.host_fp & if x86 { 0x3f } else { 0x3d };
            let mut memory = Vec::new();
            if let Some(s) = &mut self.swap_memory {
                s(&[], &mut memory);
            }
            self.results.push(Finished { pc: self.header.pc, slots: Box::new(self.slots), fp_flags, memory });
        }
        let Some(job) = self.queue.pop_front() else {
            self.finished = true;
            return Poll::Off;
        };
        let f = &self.functions[job.function];
        self.header.mode = mode_of(job.function, f.fp);
        self.header.pc = f.blocks[0].pc;
        self.header.fp_flags = 0;
        self.header.host_fp &= !0x3f;
        self.slots = *job.slots;
        if let Some(s) = &mut self.swap_memory {
            s(&job.memory, &mut Vec::new());
        }
        self.running = true;
        Poll::Run
    }
    fn take_flushes(&mut self) -> Vec<(TlbFlush, bool)> {
        Vec::new()
    }
    fn reset(&mut self) {}
}

/// Flat memory for the interpreter, with [`HOLE`].
pub struct Flat(pub Vec<u8>);

impl Flat {
    fn check(&self, cpu: &mut Machine, va: u64, m: MemOp) -> Result<usize, Raised> {
        if va & ((1 << m.align_log2()) - 1) != 0 {
            return Err(cpu.fault(va, 2));
        }
        let n = m.bytes() as u64;
        // In order: the first page, then the next.
        if HOLE.contains(&va) {
            return Err(cpu.fault(va, 1));
        }
        let next = (va | 0xfff).wrapping_add(1);
        if va.wrapping_add(n - 1) & !0xfff != va & !0xfff && HOLE.contains(&next) {
            return Err(cpu.fault(next, 1));
        }
        Ok((va & (MEMORY as u64 - 1)) as usize)
    }
    fn order(v: u128, m: MemOp) -> u128 {
        let n = m.bytes() as usize;
        if !m.is_big_endian() || n > 16 {
            return v;
        }
        v.swap_bytes() >> (128 - 8 * n)
    }
    fn low(v: u128, m: MemOp) -> u128 {
        if m.bytes() >= 16 { v } else { v & ((1 << (m.bytes() * 8)) - 1) }
    }
    fn read(&self, at: usize, m: MemOp) -> u128 {
        let mut b = [0; 16];
        for (k, x) in b.iter_mut().enumerate().take(m.bytes() as usize) {
            *x = self.0[(at + k) % MEMORY];
        }
        Self::order(u128::from_le_bytes(b), m)
    }
    fn write(&mut self, at: usize, m: MemOp, v: u128) {
        let b = Self::order(Self::low(v, m), m).to_le_bytes();
        for (k, x) in b.iter().enumerate().take(m.bytes() as usize) {
            self.0[(at + k) % MEMORY] = *x;
        }
    }
}

impl interp::Memory<Machine> for Flat {
    fn load(&mut self, cpu: &mut Machine, va: u64, m: MemOp) -> Result<u128, Raised> {
        let at = self.check(cpu, va, m)?;
        Ok(self.read(at, m))
    }
    fn store(&mut self, cpu: &mut Machine, va: u64, m: MemOp, v: u128) -> Result<(), Raised> {
        let at = self.check(cpu, va, m)?;
        self.write(at, m, v);
        Ok(())
    }
    fn rmw(&mut self, cpu: &mut Machine, va: u64, m: MemOp, v: u128) -> Result<u128, Raised> {
        let at = self.check(cpu, va, m)?;
        let old = self.read(at, m);
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
        self.write(at, m, new as u128);
        Ok(old)
    }
    fn cas(&mut self, cpu: &mut Machine, va: u64, m: MemOp, expected: u128, new: u128) -> Result<u128, Raised> {
        let at = self.check(cpu, va, m)?;
        let old = self.read(at, m);
        if old == Self::low(expected, m) {
            self.write(at, m, new);
        }
        Ok(old)
    }
    fn probe_write(&mut self, cpu: &mut Machine, va: u64, m: MemOp) -> Result<(), Raised> {
        self.check(cpu, va, m).map(|_| ())
    }
}

/// Runs one function in the interpreter; the cheap way to the same result as the JIT's.
pub fn interpret(f: &Function, m: &mut Machine, memory: &mut Flat) -> (Outcome, Finished) {
    m.header.pc = f.blocks[0].pc;
    m.header.mode = mode_of(0, f.fp);
    m.header.fp_flags = 0;
    let out = interp::run(f, m, memory);
    m.header.raised = 0;
    let end = Finished { pc: m.header.pc, slots: Box::new(m.slots), fp_flags: m.header.fp_flags, memory: Vec::new() };
    (out, end)
}

// ---- file tests ----

/// A `;!` line of a file, with the checks below it.
#[derive(Debug)]
pub struct Command {
    pub line: usize,
    pub name: String,
    pub rest: String,
    /// Texts that must appear in this order.
    pub wanted: Vec<String>,
    pub unwanted: Vec<String>,
}

pub fn commands(text: &str) -> Vec<Command> {
    let mut out: Vec<Command> = Vec::new();
    for (n, l) in text.lines().enumerate() {
        let l = l.trim();
        if let Some(c) = l.strip_prefix(";!") {
            let c = c.trim();
            let (name, rest) = c.split_once(' ').unwrap_or((c, ""));
            out.push(Command {
                line: n + 1,
                name: name.into(),
                rest: rest.trim().into(),
                wanted: vec![],
                unwanted: vec![],
            });
        } else if let Some(w) = l.strip_prefix(";>") {
            out.last_mut().expect("a check without a command").wanted.push(w.trim().into());
        } else if let Some(w) = l.strip_prefix(";<") {
            out.last_mut().expect("a check without a command").unwanted.push(w.trim().into());
        }
    }
    out
}

pub fn file_tests() -> Vec<(String, String)> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../cpu/ir/tests/filetests");
    let mut files: Vec<_> =
        std::fs::read_dir(dir).expect("the directory of file tests").map(|e| e.expect("an entry").path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "ir"));
    files.sort();
    files
        .into_iter()
        .map(|p| {
            let text = std::fs::read_to_string(&p).expect("readable file");
            (p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(), text)
        })
        .collect()
}

/// Where a value of a `run` command goes or is found.
#[derive(Clone, Debug)]
pub enum Item {
    Slot(Slot, u128),
    Memory { at: usize, bytes: usize, value: u128 },
    Pc(u64),
    Fp(u32),
    Exit(String),
}

pub fn parse_items(s: &str) -> Vec<Item> {
    let number = |s: &str| match s.strip_prefix("0x") {
        Some(h) => u128::from_str_radix(h, 16).unwrap_or_else(|_| panic!("number {s}")),
        None => s.parse::<i128>().unwrap_or_else(|_| panic!("number {s}")) as u128,
    };
    s.split_whitespace()
        .map(|w| {
            let (k, v) = w.split_once('=').unwrap_or_else(|| panic!("no '=' in {w}"));
            match k {
                "pc" => return Item::Pc(number(v) as u64),
                "fp" => return Item::Fp(number(v) as u32),
                "exit" => return Item::Exit(v.into()),
                _ => {}
            }
            let (name, at) = k.split_once('[').unwrap_or_else(|| panic!("no place {k}"));
            let at = number(at.trim_end_matches(']'));
            if let Some(n) = name.strip_prefix("mem") {
                let bytes: usize = n.parse().unwrap_or_else(|_| panic!("size {n}"));
                let value = number(v) & (u128::MAX >> (128 - 8 * bytes));
                return Item::Memory { at: at as usize, bytes, value };
            }
            let ty = Type::from_name(name).unwrap_or_else(|| panic!("type {name}"));
            let v = number(v);
            let v = if ty.bytes() >= 16 { v } else { v & ((1 << (ty.bytes() * 8)) - 1) };
            Item::Slot(Slot::new(at as usize, ty), v)
        })
        .collect()
}

pub fn set_up(items: &[Item], slots: &mut [u8], memory: &mut [u8]) {
    for i in items {
        match i {
            Item::Slot(s, v) => put_slot(slots, *s, *v),
            Item::Memory { at, bytes, value } => {
                memory[*at..at + bytes].copy_from_slice(&value.to_le_bytes()[..*bytes])
            }
            _ => panic!("not an input: {i:?}"),
        }
    }
}

/// Differences from what a `run` command expects.
pub fn compare(items: &[Item], end: &Finished, memory: &[u8], exit: Option<&str>) -> Vec<String> {
    let mut bad = Vec::new();
    for i in items {
        match i {
            Item::Slot(s, v) => {
                let have = get_slot(&*end.slots, *s);
                if have != *v {
                    bad.push(format!("slot {:#x} is {have:#x}, not {v:#x}", s.offset));
                }
            }
            Item::Memory { at, bytes, value } => {
                let mut b = [0; 16];
                b[..*bytes].copy_from_slice(&memory[*at..at + bytes]);
                let have = u128::from_le_bytes(b);
                if have != *value {
                    bad.push(format!("memory {at:#x} is {have:#x}, not {value:#x}"));
                }
            }
            Item::Pc(pc) if *pc != end.pc => bad.push(format!("pc is {:#x}, not {pc:#x}", end.pc)),
            Item::Fp(f) if *f != end.fp_flags => bad.push(format!("FP flags are {:#x}, not {f:#x}", end.fp_flags)),
            Item::Exit(e) => {
                if let Some(x) = exit
                    && x != e
                {
                    bad.push(format!("left by {x}, not {e}"));
                }
            }
            _ => {}
        }
    }
    bad
}
