//! The frame of code generation: operands, blocks and edges, exits and state maps.

use super::asm::Label;
use super::asm::{Alu, Asm, Cc};
use super::stubs::Stub;
use super::*;
use crate::regalloc::{Allocation, Interval, Loc, OutOfSpill, allocate, recycle};
use rhea_ir::env::EnvHeader;
use rhea_ir::func::{ExitKind, Function, Inst, StateId, Target, Term, Value};
use rhea_ir::guest::{FpMode, HelperDesc};
use rhea_ir::op::{Class, Op};
use rhea_ir::types::{Slot, Type};
use std::mem::offset_of;

/// Why generated code returned; in the low 4 bits of rax, the rest of it is the reason's own.
pub mod reason {
    /// pc (and mode) in memory: look up and go on.
    pub const LOOKUP: u64 = 0;
    /// An unlinked direct exit: bits 4..16 link site, 16.. region id. pc is in memory.
    pub const LINK: u64 = 1;
    /// A hot counter ran out, or an exit was requested: bits 16.. region id; pc is in memory.
    pub const HOT: u64 = 2;
    /// A helper or memory access raised an exception; state is its handler's.
    pub const RAISED: u64 = 3;
    /// An exit was requested.
    pub const REQUESTED: u64 = 4;
    /// The guest asked for the vCPU loop (WFI …).
    pub const LEAVE: u64 = 5;
    /// A further page of the region is not known to be valid: bits 16.. region id. pc is in memory.
    pub const PAGES: u64 = 6;
}

/// Frame: words of [`super::share`], the spill area, then the save area for caller-saved registers around calls.
pub(super) const SAVE_GPR: i32 = SPILL_BYTES as i32;
pub(super) const SAVE_XMM: i32 = SAVE_GPR + 16 * 8;
/// Bytes below the return address of the entry trampoline; keeps rsp 16-byte aligned at calls.
pub const FRAME_BYTES: i32 = SAVE_XMM + 16 * 16 + 8;

pub const JUMP_CACHE_BITS: u32 = 12;

/// What the pinned register points to: the end of the header, from the beginning of the guest's CPU structure.
pub(super) const ENV_AT: i32 = size_of::<EnvHeader>() as i32;

/// The displacement from the pinned register of an offset in the guest's CPU structure.
pub(super) const fn from_env(offset: usize) -> i32 {
    offset as i32 - ENV_AT
}

pub(super) const H_EXIT_REQUEST: i32 = from_env(offset_of!(EnvHeader, exit_request));
pub(super) const H_RAISED: i32 = from_env(offset_of!(EnvHeader, raised));
pub(super) const H_PC: i32 = from_env(offset_of!(EnvHeader, pc));
pub(super) const H_JUMP_CACHE: i32 = from_env(offset_of!(EnvHeader, jump_cache));
pub(super) const H_EXIT: i32 = from_env(offset_of!(EnvHeader, exit));
/// What is there if nothing is asked.
pub(super) const NO_REQUEST: i8 = rhea_ir::env::Requests::NONE as i8;
/// The host's own floating-point control word.
pub(super) const H_HOST_CONTROL: i32 = from_env(offset_of!(EnvHeader, accel) + 8);
/// The fourth argument of memory thunks, and their addresses.
pub(super) const H_THUNK_OP: i32 = from_env(offset_of!(EnvHeader, accel) + 16);
pub(super) const H_THUNKS: i32 = from_env(offset_of!(EnvHeader, accel) + 24);
pub(super) const H_TLB: i32 = from_env(offset_of!(EnvHeader, tlb));
pub(super) const H_RETURNS_TOP: i32 = from_env(offset_of!(EnvHeader, returns_top));
/// Host address of guest address 0 for flat reads, and their end.
pub(super) const H_FLAT: i32 = from_env(offset_of!(EnvHeader, flat));
pub(super) const H_SITES: i32 = from_env(offset_of!(EnvHeader, sites));
pub(super) const H_SCRATCH: i32 = from_env(offset_of!(EnvHeader, scratch));
pub(super) const H_FETCH: i32 = from_env(offset_of!(EnvHeader, fetch));
pub(super) const H_COUNTER: i32 = from_env(offset_of!(EnvHeader, counter));
pub(super) const H_BRANCH: i32 = from_env(offset_of!(EnvHeader, branch));
pub(super) const H_FP_FLAGS: i32 = from_env(offset_of!(EnvHeader, fp_flags));
pub(super) const H_HOST_FP: i32 = from_env(offset_of!(EnvHeader, host_fp));

/// Addresses of the run-time functions generated code calls.
#[derive(Clone, Copy, Debug)]
pub struct RuntimeFns {
    /// `fn(env, va, memop) -> value`; 128-bit results in scratch\[7\]. All may raise.
    pub load: usize,
    /// `fn(env, va, value, memop)`; 128-bit values in scratch\[0\].
    pub store: usize,
    /// `fn(env, va, value, memop) -> old`.
    pub rmw: usize,
    /// `fn(env, va, expected, new, memop) -> old`; 128-bit ones in scratch\[0\], scratch\[1\].
    pub cas: usize,
    /// `fn(env, va, memop)`.
    pub probe_write: usize,
    /// `fn(env, packed instruction, imm)`: args in scratch\[0..3\], result in scratch\[7\].
    pub fp: usize,
    /// `fn(env) -> flags`.
    pub fp_flags_get: usize,
    pub fp_flags_clear: usize,
    /// [`rhea_ir::guest::Guest::FLAT_INDEX`].
    pub flat_index: Option<u32>,
}

/// What the region is entered with.
#[derive(Clone, Copy, Default, Debug)]
pub struct Entry {
    /// Identifies the region in exit reasons.
    pub id: u32,
    /// Is a cell of code memory counted down at each entry?
    pub counted: bool,
    /// Address of the cache's list ([`crate::cache::Cache::targets`]) in which indirect branches say where they go; 0: none.
    pub targets: usize,
}

/// Further pages whose mapping is checked at entry.
pub type Pages<'a> = &'a [crate::cache::OtherPage];

/// A direct exit that may be patched to jump to the target region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkSite {
    /// Offset of the 4-byte displacement in the code (4-byte aligned).
    pub at: u32,
    /// Guest address it goes to.
    pub pc: u64,
    /// Of a jump to a page that was not checked at entry: offset of the four bytes (aligned) that the page's identity is
    /// compared with, 0 while unlinked.
    pub identity_at: Option<u32>,
}

/// Finished host code, position-independent.
#[derive(Debug)]
pub struct CodeBlob {
    pub bytes: Box<[u8]>,
    /// From this offset on is what is rarely run, which may be put elsewhere (at an address that is the same modulo 16).
    pub cold: u32,
    /// Offsets of the displacements of four bytes that lead from one part to the other.
    pub crossings: Box<[u32]>,
    pub links: Vec<LinkSite>,
    /// Offset of code that stores the entry's pc and leaves with [`reason::REQUESTED`].
    pub leave: u32,
    /// Offsets, one in each part, of displacements of the cell that is counted down ([`crate::code::CodeMemory::place`]).
    pub counts: Option<[u32; 2]>,
}

/// What to compile.
pub struct Region<'a> {
    pub func: &'a Function,
    pub helpers: &'static [HelperDesc],
    pub fns: &'a RuntimeFns,
    pub entry: Entry,
    pub others: Pages<'a>,
    /// The number of the first memory instruction, if they are to use [`EnvHeader::sites`].
    pub sites: Option<u32>,
}

pub(super) struct Emit<'a> {
    pub r: &'a Region<'a>,
    pub f: &'a Function,
    pub a: &'a Allocation,
    pub asm: Asm,
    pub stubs: Vec<Stub>,
    pub links: Vec<LinkSite>,
    blocks: Vec<Label>,
    pub fp: FpMode,
    /// Number of the next memory instruction that uses [`EnvHeader::sites`].
    pub site: u32,
    /// The block that is being emitted.
    pub at_block: usize,
    /// If memory instructions use sites.
    pub steps: Option<super::share::Steps>,
    pub shares: Vec<super::share::Share>,
    pub active: Vec<Interval>,
    next_interval: usize,
    raised: Option<Label>,
    data: Vec<(u128, Label)>,
    /// Out-of-line code is being emitted: `active` no longer follows the position.
    pub in_stubs: bool,
    leave: Option<Label>,
    /// Offsets of displacements of the cell.
    counts: [u32; 2],
    /// A carry that was computed with the sum before it.
    pub carry: Option<Value>,
    /// Something did not fit.
    pub failed: bool,
}

/// True if the instruction calls out on the hot path.
fn is_hot_call(f: &Function, v: Value) -> bool {
    let i = f.inst(v);
    match i.op.class() {
        Class::Call => true,
        Class::Fp => fp::always_calls(f, i),
        Class::Pure => matches!(i.op, Op::Simd1 | Op::Simd2 | Op::Simd3) && simd::always_calls(i),
        Class::Mem => i.op == Op::ProbeWrite || (i.op == Op::Cas && i.ty == Type::I128),
        Class::Effect => matches!(i.op, Op::FpFlagsGet | Op::FpFlagsClear),
        _ => false,
    }
}

/// Does the region run many rounds once it is entered? Code around a loop that goes round only a few times is hot enough to
/// be part of the region ([`crate::vcpu`] chooses the blocks), so that memory accesses outside of loops tell.
fn mostly_loops(f: &Function) -> bool {
    let looping = rhea_ir::opt::in_loops(f);
    let accesses = |b: &rhea_ir::func::Block| b.insts.iter().any(|&v| matches!(f.inst(v).op, Op::Load | Op::Store));
    f.blocks.iter().zip(looping).all(|(b, l)| l || !accesses(b))
}

/// Compiles a promoted region.
pub fn compile(r: &Region) -> Result<CodeBlob, OutOfSpill> {
    let a = allocate(r.func, r.helpers, &REGS, r.sites.is_some(), &|v| is_hot_call(r.func, v))?;
    let mut asm = Asm::new();
    let blocks = r.func.blocks.iter().map(|_| asm.label()).collect();
    let mut e = Emit {
        r,
        f: r.func,
        a: &a,
        asm,
        stubs: Vec::with_capacity(16),
        links: Vec::new(),
        blocks,
        fp: r.func.fp,
        active: Vec::new(),
        site: 0,
        at_block: 0,
        steps: None,
        shares: Vec::new(),
        next_interval: 0,
        raised: None,
        data: Vec::new(),
        in_stubs: false,
        leave: None,
        counts: [0; 2],
        carry: None,
        failed: false,
    };
    e.prologue();
    let order = &a.order;
    let looping = r.sites.is_some() && mostly_loops(r.func);
    e.steps = looping.then(|| super::share::Steps::new(r.func));
    e.shares = super::share::shares(r, looping);
    for (k, &b) in order.iter().enumerate() {
        e.block(b, order.get(k + 1).copied());
    }
    let cold = e.emit_stubs();
    if e.failed {
        return Err(OutOfSpill);
    }
    let links = std::mem::take(&mut e.links);
    let counts = r.entry.counted.then_some(e.counts);
    let leave = e.leave.and_then(|l| e.asm.place_of(l)).unwrap_or(0);
    let (bytes, crossings) = e.asm.finish(cold);
    recycle(a);
    Ok(CodeBlob { bytes, cold, crossings, links, leave, counts })
}

impl Emit<'_> {
    /// The request check, whose first instruction a jump may replace, with the hotness counter.
    fn prologue(&mut self) {
        const { assert!(-128 <= H_EXIT_REQUEST && H_EXIT_REQUEST < 128) };
        let pc = self.f.blocks[0].pc;
        let region = (self.r.entry.id as u64) << 16;
        let req = self.asm.label();
        self.leave = Some(req);
        if self.r.entry.counted {
            let hot = self.asm.label();
            // With a prefix that says nothing it has five bytes.
            self.asm.bytes(&[0x3e]);
            self.asm.load(false, RAX, ENV, H_EXIT_REQUEST);
            debug_assert_eq!(self.asm.offset(), crate::code::HEAD_BYTES);
            self.counts[0] = self.asm.alu_cell_eax(Alu::Sub) as u32;
            self.asm.jcc(Cc::S, hot);
            self.stubs.push(Stub::Hot { label: hot, pc, reason: reason::HOT | region });
        } else {
            self.asm.cmp_mem32_imm(ENV, H_EXIT_REQUEST, NO_REQUEST);
            debug_assert_eq!(self.asm.offset(), crate::code::HEAD_BYTES);
            self.asm.jcc(Cc::Ne, req);
        }
        self.stubs.push(Stub::Exit { label: req, pc, reason: reason::REQUESTED });
        if !self.r.others.is_empty() {
            let miss = self.asm.label();
            self.asm.load(true, RAX, ENV, H_FETCH);
            for p in self.r.others {
                let at = crate::fetch::fetch_slot(p.tag) as i32 * 4;
                self.asm.cmp_mem32_word(RAX, at, p.identity);
                self.asm.jcc(Cc::Ne, miss);
            }
            self.stubs.push(Stub::Exit { label: miss, pc, reason: reason::PAGES | region });
        }
    }

    /// Nothing was counted: either it was hot before, or something was asked.
    pub(super) fn count_back(&mut self) {
        self.counts[1] = self.asm.alu_cell_eax(Alu::Add) as u32;
    }

    pub fn loc(&self, v: Value) -> Loc {
        self.a.locs[v.index()]
    }
    pub fn deferred(&self, v: Value) -> bool {
        self.a.deferred[v.index()]
    }
    pub fn ty(&self, v: Value) -> Type {
        self.f.ty(v)
    }
    pub fn is64(&self, v: Value) -> bool {
        self.f.ty(v) == Type::I64
    }
    /// A constant that can be an imm32 operand of the value's width.
    pub fn imm32(&self, v: Value) -> Option<i32> {
        let c = self.f.as_const(v)?;
        match self.f.ty(v) {
            Type::I64 => i32::try_from(c as i64).ok(),
            Type::I32 | Type::Bool => Some(c as u32 as i32),
            _ => None,
        }
    }

    // ---- operands ----

    /// The general register that holds `v`, loading or computing it into `scratch` if it has none.
    pub fn gpr(&mut self, v: Value, scratch: u8) -> u8 {
        match self.loc(v) {
            Loc::Gpr(r) => r,
            Loc::Spill(off) => {
                self.asm.load(true, scratch, RSP, off as i32);
                scratch
            }
            _ => {
                if let Some(c) = self.f.as_const(v) {
                    self.asm.mov_ri(scratch, c);
                } else if self.deferred(v) {
                    self.compute_gpr(v, scratch);
                }
                scratch
            }
        }
    }
    /// Puts `v` into exactly this register.
    pub fn gpr_to(&mut self, v: Value, dst: u8) {
        let r = self.gpr(v, dst);
        if r != dst {
            self.asm.mov_rr(true, dst, r);
        }
    }
    pub fn xmm(&mut self, v: Value, scratch: u8) -> u8 {
        match self.loc(v) {
            Loc::Xmm(r) => r,
            Loc::Spill(off) => {
                let n = self.ty(v).bytes();
                self.asm.vload(n, scratch, RSP, off as i32);
                scratch
            }
            _ => {
                if self.deferred(v) {
                    self.compute_xmm(v, scratch);
                } else if let Some(c) = self.f.as_const(v) {
                    self.asm.mov_ri(RAX, c);
                    self.asm.vmov_from_gpr(true, scratch, RAX);
                }
                scratch
            }
        }
    }
    /// The register to compute `v` into: its own, or scratch if it lives in memory.
    pub fn dst_gpr(&self, v: Value, scratch: u8) -> u8 {
        match self.loc(v) {
            Loc::Gpr(r) => r,
            _ => scratch,
        }
    }
    pub fn dst_xmm(&self, v: Value, scratch: u8) -> u8 {
        match self.loc(v) {
            Loc::Xmm(r) => r,
            _ => scratch,
        }
    }
    /// Moves a result from `r` to where `v` lives.
    pub fn put_gpr(&mut self, v: Value, r: u8) {
        match self.loc(v) {
            Loc::Gpr(d) if d != r => self.asm.mov_rr(true, d, r),
            Loc::Spill(off) => self.asm.store(true, RSP, off as i32, r),
            _ => {}
        }
    }
    pub fn put_xmm(&mut self, v: Value, r: u8) {
        match self.loc(v) {
            Loc::Xmm(d) if d != r => self.asm.vmovaps(d, r),
            Loc::Spill(off) => {
                let n = self.ty(v).bytes();
                self.asm.vstore(n, RSP, off as i32, r);
            }
            _ => {}
        }
    }
    /// True if any argument other than the first lives in register `r` (general or vector as the type says).
    pub fn aliases_later_arg(&self, i: &Inst, r: u8, vector: bool) -> bool {
        i.args().iter().skip(1).any(|&a| match self.loc(a) {
            Loc::Gpr(x) => !vector && x == r,
            Loc::Xmm(x) => vector && x == r,
            _ => self.deferred(a) && self.deferred_reads(a, r, vector),
        })
    }
    fn deferred_reads(&self, v: Value, r: u8, vector: bool) -> bool {
        self.f.inst(v).args().iter().any(|&a| match self.loc(a) {
            Loc::Gpr(x) => !vector && x == r,
            Loc::Xmm(x) => vector && x == r,
            _ => self.deferred(a) && self.deferred_reads(a, r, vector),
        })
    }
    /// A label of 16 bytes of constant data.
    pub fn data(&mut self, bytes: u128) -> Label {
        if let Some(d) = self.data.iter().find(|d| d.0 == bytes) {
            return d.1;
        }
        let label = self.asm.label();
        self.data.push((bytes, label));
        self.stubs.push(Stub::Data { label, bytes });
        label
    }

    /// Advances the set of live intervals to instruction position `pos`.
    fn advance(&mut self, pos: u32) {
        self.active.retain(|i| i.end > pos);
        while let Some(i) = self.a.intervals.get(self.next_interval)
            && i.start <= pos
        {
            if i.end > pos {
                self.active.push(*i);
            }
            self.next_interval += 1;
        }
    }

    // ---- state ----

    /// Writes the dirty slots of a state map to guest state. Clobbers scratch registers.
    pub fn write_state(&mut self, id: StateId) {
        if id == StateId::NONE {
            return;
        }
        self.write_slots(id, |_| true);
    }

    /// What an operation that may leave has in memory before it, where the region is [`Function::eager`].
    pub fn write_early(&mut self, id: StateId) {
        if self.f.eager && id != StateId::NONE {
            self.write_slots(id, |s| !s.late);
        }
    }

    /// What is left to write where it does leave.
    pub fn write_late(&mut self, id: StateId) {
        let eager = self.f.eager;
        self.write_slots(id, |s| s.late || !eager);
    }

    fn write_slots(&mut self, id: StateId, which: impl Fn(Slot) -> bool) {
        let f = self.f;
        let mut last = None;
        for &(slot, v) in f.state(id).dirty.iter().filter(|d| which(d.0)) {
            let off = from_env(slot.offset as usize);
            if last == Some(v) {
                self.store_gpr(self.ty(v), off, RAX);
            } else {
                self.write_slot(off, v);
            }
            // Packed flags are computed where they are stored, and often stored twice.
            let flags = self.deferred(v) && crate::regalloc::is_flags(f.inst(v).op);
            last = flags.then_some(v);
        }
    }

    fn write_slot(&mut self, off: i32, v: Value) {
        let ty = self.ty(v);
        let i = *self.f.inst(v);
        if let Some(c) = self.f.as_const(v) {
            match ty {
                Type::Bool => self.asm.store8_imm(ENV, off, c as i8),
                Type::I32 | Type::F32 => self.asm.store_imm(false, ENV, off, c as u32 as i32),
                _ => match i32::try_from(c as i64) {
                    Ok(c) => self.asm.store_imm(true, ENV, off, c),
                    Err(_) => {
                        self.asm.mov_ri(RAX, c);
                        self.asm.store(true, ENV, off, RAX);
                    }
                },
            }
            return;
        }
        if self.deferred(v) {
            match i.op {
                Op::VFromScalar | Op::VZeroHi => {
                    let s = i.args[0];
                    if self.ty(s).is_int() {
                        let r = self.gpr(s, RAX);
                        self.asm.store(true, ENV, off, r);
                    } else {
                        let x = self.xmm(s, X15);
                        if self.ty(s) == Type::F32 {
                            self.asm.vstore(4, ENV, off, x);
                            self.asm.store_imm(false, ENV, off + 4, 0);
                        } else {
                            self.asm.vstore(8, ENV, off, x);
                        }
                    }
                    self.asm.store_imm(true, ENV, off + 8, 0);
                    return;
                }
                _ if ty.is_int() => {
                    let r = self.gpr(v, RAX);
                    self.store_gpr(ty, off, r);
                    return;
                }
                _ => {}
            }
        }
        if ty.is_int() {
            let r = self.gpr(v, RAX);
            self.store_gpr(ty, off, r);
        } else {
            let x = self.xmm(v, X15);
            self.asm.vstore(ty.bytes(), ENV, off, x);
        }
    }

    fn store_gpr(&mut self, ty: Type, off: i32, r: u8) {
        match ty {
            Type::Bool => self.asm.store8(ENV, off, r),
            Type::I32 => self.asm.store(false, ENV, off, r),
            _ => self.asm.store(true, ENV, off, r),
        }
    }

    pub fn store_pc(&mut self, pc: u64) {
        match i32::try_from(pc as i64) {
            Ok(c) => self.asm.store_imm(true, ENV, H_PC, c),
            Err(_) => {
                self.asm.mov_ri(RAX, pc);
                self.asm.store(true, ENV, H_PC, RAX);
            }
        }
    }

    pub(super) fn exit_with(&mut self, reason: u64) {
        // With a region's number, at the same length for all of them: see `crate::template`.
        if reason >> 16 != 0 {
            self.asm.mov_imm64(RAX, reason)
        } else {
            self.asm.mov_ri(RAX, reason)
        }
        self.asm.jmp_mem(ENV, H_EXIT);
    }

    fn raised_label(&mut self) -> Label {
        if let Some(l) = self.raised {
            return l;
        }
        let l = self.asm.label();
        self.raised = Some(l);
        self.stubs.push(Stub::Raised { label: l });
        l
    }
    pub fn check_raised(&mut self) {
        let l = self.raised_label();
        self.asm.cmp_mem32_imm(ENV, H_RAISED, 0);
        self.asm.jcc(Cc::Ne, l);
    }

    // ---- blocks ----

    fn block(&mut self, b: usize, next: Option<usize>) {
        let label = self.blocks[b];
        self.asm.bind(label);
        self.at_block = b;
        let f = self.f;
        let blk = &f.blocks[b];
        for (n, &v) in blk.insts.iter().enumerate() {
            let pos = self.a.pos[v.index()];
            self.advance(pos);
            if self.deferred(v) {
                if matches!(f.inst(v).op, Op::FlagsFCmp | Op::FlagsFCom) && !self.compares_later(blk, n, v) {
                    // The compare's sticky flags are an effect of their own.
                    self.fcmp(f.inst(v));
                }
                continue;
            }
            if self.carry == Some(v) {
                continue;
            }
            let next = || blk.insts[n + 1..].iter().copied().find(|&w| !self.deferred(w));
            if matches!(f.inst(v).op, Op::Add | Op::Adc)
                && let Some(w) = next()
                && rhea_ir::carry::is_carry_of(f, w, v)
            {
                self.sum_and_carry(v, w);
                self.carry = Some(w);
                continue;
            }
            self.inst(v);
        }
        match &blk.term {
            Term::Open => self.asm.ud2(),
            Term::Jump(t) => self.edge(t, next, false),
            Term::Branch { cond, then, other, hint } => self.branch(*cond, then, other, *hint, next),
            Term::Switch { value, cases, other, note } => self.switch(*value, cases, other, *note),
        }
    }
    pub fn block_label(&self, b: usize) -> Label {
        self.blocks[b]
    }

    /// True if what follows the compare `v` (number `n` of the block) makes the same compare before anything can leave.
    fn compares_later(&self, blk: &rhea_ir::func::Block, n: usize, v: Value) -> bool {
        let i = self.f.inst(v);
        let same = |flags: Value| {
            let j = self.f.inst(flags);
            flags == v || i.op == Op::FlagsFCom && j.op == i.op && j.args == i.args && (j.aux ^ i.aux) & 3 == 0
        };
        let tests = |cond: Value| {
            let c = self.f.inst(cond);
            self.deferred(cond) && c.op == Op::CondFlags && self.deferred(c.args[0]) && same(c.args[0])
        };
        for &w in &blk.insts[n + 1..] {
            let j = self.f.inst(w);
            match j.op {
                Op::Select | Op::FromBool if !self.deferred(w) && tests(j.args[0]) => return true,
                _ if matches!(j.op.class(), Class::Mem | Class::Call | Class::Effect) => return false,
                _ => {}
            }
        }
        matches!(&blk.term, Term::Branch { cond, .. } if tests(*cond))
    }

    fn same_dirty(&self, a: &Target, b: &Target) -> bool {
        match (a, b) {
            (Target::Exit(ka, sa), Target::Exit(kb, sb)) => {
                self.f.state(*sa).dirty == self.f.state(*sb).dirty
                    && crate::regalloc::exit_value(*ka).is_none()
                    && crate::regalloc::exit_value(*kb).is_none()
            }
            _ => false,
        }
    }

    fn branch(&mut self, cond: Value, then: &Target, other: &Target, hint: i8, next: Option<usize>) {
        let shared = self.same_dirty(then, other);
        if shared && let Target::Exit(_, s) = then {
            self.write_state(*s);
        }
        // The fall-through side: the next block if one of them is it, else the likelier.
        let is_next = |t: &Target| t.block().is_some_and(|b| Some(b.index()) == next);
        let swap = !is_next(other) && (is_next(then) || hint > 0);
        let (near, far) = if swap { (then, other) } else { (other, then) };
        if let Target::Exit(kind, s) = far
            && (shared || self.f.state(*s).dirty.is_empty())
            && matches!(kind, ExitKind::Goto)
            && self.in_region_pages(self.f.state(*s).pc)
        {
            let pc = self.f.state(*s).pc;
            self.linked_jump_if(cond, !swap, pc);
            self.edge(near, next, shared);
            return;
        }
        let label = match far {
            Target::Block(b, args) if args.is_empty() => self.blocks[b.index()],
            Target::Exit(ExitKind::Inner(b), s) if shared || self.f.state(*s).dirty.is_empty() => {
                self.blocks[b.index()]
            }
            _ => {
                let l = self.asm.label();
                self.stubs.push(Stub::Edge { label: l, target: far.clone(), skip_state: shared });
                l
            }
        };
        self.jump_if(cond, !swap, label);
        self.edge(near, next, shared);
    }

    /// Goes along an edge from the current point.
    pub(super) fn edge(&mut self, t: &Target, next: Option<usize>, skip_state: bool) {
        match t {
            Target::Block(b, args) => {
                let params = &self.f.blocks[b.index()].params;
                let moves: Vec<(Value, Value)> = params.iter().copied().zip(args.iter().copied()).collect();
                self.parallel_moves(&moves);
                if Some(b.index()) != next {
                    let l = self.blocks[b.index()];
                    self.asm.jmp(l);
                }
            }
            Target::Exit(ExitKind::Inner(b), s) => {
                if !skip_state {
                    self.write_state(*s);
                }
                if Some(b.index()) != next {
                    let l = self.blocks[b.index()];
                    self.asm.jmp(l);
                }
            }
            Target::Exit(kind, s) => self.exit(*kind, *s, skip_state),
        }
    }

    fn exit(&mut self, kind: ExitKind, s: StateId, skip_state: bool) {
        let pc = self.f.state(s).pc;
        let to = crate::regalloc::exit_value(kind);
        if !skip_state {
            self.write_state(s);
        }
        if let ExitKind::Call { ret } | ExitKind::IndirectCall { ret, .. } = kind
            && self.in_region_pages(ret)
        {
            self.push_return(ret);
        }
        if let Some(v) = to {
            self.gpr_to(v, RAX);
            if matches!(kind, ExitKind::Return(_)) {
                self.pop_return();
            } else if self.r.entry.targets != 0 {
                self.note_target(self.r.entry.targets as u64);
            }
            // Hash the target and probe the jump cache.
            let miss = self.asm.label();
            self.asm.mov_rr(false, RDX, RAX);
            self.asm.alu_ri(Alu::And, false, RDX, ((1 << JUMP_CACHE_BITS) - 1) << 2);
            self.asm.shift_i(super::asm::Shift::Shl, false, RDX, 2);
            self.asm.alu_rm(Alu::Add, true, RDX, ENV, H_JUMP_CACHE);
            self.asm.alu_rm(Alu::Cmp, true, RAX, RDX, 0);
            self.asm.jcc(Cc::Ne, miss);
            self.asm.jmp_mem(RDX, 8);
            let known = self.f.state(s).dirty.iter().any(|d| d.0.offset as usize == offset_of!(EnvHeader, branch));
            self.stubs.push(Stub::Miss { label: miss, from: (!known).then_some(pc) });
            return;
        }
        match kind {
            ExitKind::Lookup => self.exit_with(reason::LOOKUP),
            ExitKind::Leave | ExitKind::Inner(_) => {
                self.store_pc(pc);
                self.exit_with(reason::LEAVE);
            }
            _ if self.in_region_pages(pc) => self.linked_jump(pc),
            _ => self.checked_jump(pc),
        }
    }
}
