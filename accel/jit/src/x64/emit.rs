//! The frame of code generation: operands, blocks and edges, exits, state maps and out-of-line stubs.

use super::asm::{Asm, Cc};
use super::*;
use crate::regalloc::{Allocation, Interval, Loc, OutOfSpill, allocate};
use dynasmrt::DynamicLabel;
use rhea_ir::env::EnvHeader;
use rhea_ir::func::{ExitKind, Function, Inst, StateId, Target, Term, Value};
use rhea_ir::guest::{Effects, FpMode, HelperDesc};
use rhea_ir::op::{Class, Op};
use rhea_ir::types::Type;
use std::mem::offset_of;

/// Why generated code returned; in the low 4 bits of rax, the rest of it is the reason's own.
pub mod reason {
    /// pc (and mode) in memory: look up and go on.
    pub const LOOKUP: u64 = 0;
    /// An unlinked direct exit: bits 4..16 link site, 16.. region id. pc is in memory.
    pub const LINK: u64 = 1;
    /// A hot counter ran out: bits 16.. region id; pc is in memory.
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

/// Frame: spill area, then the save area for caller-saved registers around calls.
const SAVE_GPR: i32 = SPILL_BYTES as i32;
const SAVE_XMM: i32 = SAVE_GPR + 16 * 8;
/// Bytes below the return address of the entry trampoline; keeps rsp 16-byte aligned at calls.
pub const FRAME_BYTES: i32 = SAVE_XMM + 16 * 16 + 8;

pub const JUMP_CACHE_BITS: u32 = 12;

pub(super) const H_EXIT_REQUEST: i32 = offset_of!(EnvHeader, exit_request) as i32;
pub(super) const H_RAISED: i32 = offset_of!(EnvHeader, raised) as i32;
pub(super) const H_PC: i32 = offset_of!(EnvHeader, pc) as i32;
pub(super) const H_JUMP_CACHE: i32 = offset_of!(EnvHeader, jump_cache) as i32;
pub(super) const H_EXIT: i32 = (offset_of!(EnvHeader, accel) + 8) as i32;
pub(super) const H_TLB: i32 = offset_of!(EnvHeader, tlb) as i32;
pub(super) const H_SCRATCH: i32 = offset_of!(EnvHeader, scratch) as i32;
const H_FETCH: i32 = offset_of!(EnvHeader, fetch) as i32;
pub(super) const H_FP_FLAGS: i32 = offset_of!(EnvHeader, fp_flags) as i32;

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
}

/// What the region is entered with.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Identifies the region in exit reasons.
    pub id: u32,
    /// Address of an i32 counted down at each entry; 0: none.
    pub counter: usize,
}

/// Further pages whose mapping is checked at entry.
pub type Pages<'a> = &'a [crate::cache::OtherPage];

/// A direct exit that may be patched to jump to the target region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkSite {
    /// Offset of the 4-byte displacement in the code (4-byte aligned).
    pub at: u32,
    /// Offset of the stub it points to while unlinked.
    pub stub: u32,
    /// Guest address it goes to.
    pub pc: u64,
}

/// Finished host code, position-independent.
#[derive(Debug)]
pub struct CodeBlob {
    pub bytes: Vec<u8>,
    pub links: Vec<LinkSite>,
    /// Offset of code that stores the entry's pc and leaves with [`reason::REQUESTED`].
    pub leave: u32,
}

/// What to compile.
pub struct Region<'a> {
    pub func: &'a Function,
    pub helpers: &'static [HelperDesc],
    pub fns: &'a RuntimeFns,
    pub entry: Entry,
    pub others: Pages<'a>,
}

/// Work emitted out of line after the hot code.
pub(super) enum Stub {
    /// Slow path of a memory access.
    Mem { v: Value, label: DynamicLabel, back: DynamicLabel },
    /// Exact FP by the run time.
    Fp { v: Value, label: DynamicLabel, back: DynamicLabel },
    /// A state map, then an exit with the reason.
    Leave { state: StateId, label: DynamicLabel, reason: u64 },
    /// Exit with pc stored and a reason (state is already in memory).
    Exit { label: DynamicLabel, pc: u64, reason: u64 },
    /// rax → pc, then lookup.
    Miss { label: DynamicLabel },
    /// After a helper raised.
    Raised { label: DynamicLabel },
    /// An edge's moves and the jump to its block.
    Edge { label: DynamicLabel, target: Target, skip_state: bool },
    /// 16 bytes of data.
    Data { label: DynamicLabel, bytes: u128 },
}

/// A move of an edge: the value, or the temporary it was put into, to its parameter's place.
struct Move {
    to: Loc,
    value: Value,
    tmp: Option<u32>,
}

/// Temporaries of 16 bytes for moves, in the save area.
const TEMPORARIES: u32 = 24;

pub(super) struct Emit<'a> {
    pub r: &'a Region<'a>,
    pub f: &'a Function,
    pub a: &'a Allocation,
    pub asm: Asm,
    pub stubs: Vec<Stub>,
    pub links: Vec<LinkSite>,
    blocks: Vec<DynamicLabel>,
    pub fp: FpMode,
    active: Vec<Interval>,
    next_interval: usize,
    raised: Option<DynamicLabel>,
    data: Vec<(u128, DynamicLabel)>,
    link_labels: Vec<(usize, DynamicLabel)>,
    /// Out-of-line code is being emitted: `active` no longer follows the position.
    in_stubs: bool,
    leave: Option<DynamicLabel>,
    /// Something did not fit.
    failed: bool,
}

/// True if the instruction calls out on the hot path.
fn is_hot_call(f: &Function, v: Value) -> bool {
    let i = f.inst(v);
    match i.op.class() {
        Class::Call => true,
        Class::Fp => fp::always_calls(f, i),
        Class::Mem => i.op == Op::ProbeWrite || (i.op == Op::Cas && i.ty == Type::I128),
        Class::Effect => matches!(i.op, Op::FpFlagsGet | Op::FpFlagsClear),
        _ => false,
    }
}

/// Compiles a promoted region.
pub fn compile(r: &Region) -> Result<CodeBlob, OutOfSpill> {
    let a = allocate(r.func, &REGS, &|v| is_hot_call(r.func, v))?;
    let mut asm = Asm::new(0);
    let blocks = r.func.blocks.iter().map(|_| asm.label()).collect();
    let mut e = Emit {
        r,
        f: r.func,
        a: &a,
        asm,
        stubs: Vec::new(),
        links: Vec::new(),
        blocks,
        fp: r.func.fp,
        active: Vec::new(),
        next_interval: 0,
        raised: None,
        data: Vec::new(),
        link_labels: Vec::new(),
        in_stubs: false,
        leave: None,
        failed: false,
    };
    e.prologue();
    let order = &a.order;
    for (k, &b) in order.iter().enumerate() {
        e.block(b, order.get(k + 1).copied());
    }
    e.emit_stubs();
    if e.failed {
        return Err(OutOfSpill);
    }
    let mut links = std::mem::take(&mut e.links);
    for (n, label) in &e.link_labels {
        if let Ok(off) = e.asm.ops.labels().resolve_dynamic(*label) {
            links[*n].stub = off.0 as u32;
        }
    }
    let leave = e.leave.and_then(|l| e.asm.ops.labels().resolve_dynamic(l).ok()).map_or(0, |o| o.0 as u32);
    let bytes = e.asm.ops.finalize().unwrap_or_default();
    Ok(CodeBlob { bytes, links, leave })
}

impl Emit<'_> {
    /// The head: eight patchable bytes, the request check, the hotness counter.
    fn prologue(&mut self) {
        // nop dword [rax + rax + 0], eight bytes in one instruction.
        self.asm.bytes(&[0x0f, 0x1f, 0x84, 0x00, 0, 0, 0, 0]);
        let pc = self.f.blocks[0].pc;
        let req = self.asm.label();
        self.asm.cmp_mem32_imm(ENV, H_EXIT_REQUEST, 0);
        self.asm.jcc(Cc::Ne, req);
        self.leave = Some(req);
        self.stubs.push(Stub::Exit { label: req, pc, reason: reason::REQUESTED });
        if !self.r.others.is_empty() {
            let miss = self.asm.label();
            for p in self.r.others {
                let at = H_FETCH + (p.tag >> 12 & 255) as i32 * 16;
                self.asm.mov_ri(RAX, p.tag);
                self.asm.alu_rm(super::asm::Alu::Cmp, true, RAX, ENV, at);
                self.asm.jcc(Cc::Ne, miss);
                self.asm.mov_ri(RAX, p.host);
                self.asm.alu_rm(super::asm::Alu::Cmp, true, RAX, ENV, at + 8);
                self.asm.jcc(Cc::Ne, miss);
            }
            self.stubs.push(Stub::Exit { label: miss, pc, reason: reason::PAGES | (self.r.entry.id as u64) << 16 });
        }
        if self.r.entry.counter != 0 {
            let hot = self.asm.label();
            self.asm.mov_ri(RAX, self.r.entry.counter as u64);
            self.asm.dec_mem32(RAX, 0);
            self.asm.jcc(Cc::S, hot);
            self.stubs.push(Stub::Exit { label: hot, pc, reason: reason::HOT | (self.r.entry.id as u64) << 16 });
        }
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
    pub fn data(&mut self, bytes: u128) -> DynamicLabel {
        if let Some(d) = self.data.iter().find(|d| d.0 == bytes) {
            return d.1;
        }
        let label = self.asm.label();
        self.data.push((bytes, label));
        self.stubs.push(Stub::Data { label, bytes });
        label
    }

    // ---- registers around calls ----

    /// Caller-saved registers whose values are needed after the instruction at `pos`, but for `except`.
    fn live_caller_saved(&self, pos: u32, except: Value) -> Vec<Loc> {
        self.active
            .iter()
            .filter(|i| i.start <= pos && i.end > pos && i.value != except)
            .map(|i| self.loc(i.value))
            .filter(|l| match l {
                Loc::Gpr(r) => REGS.preserved >> r & 1 == 0,
                Loc::Xmm(_) => true,
                _ => false,
            })
            .collect()
    }
    fn save(&mut self, regs: &[Loc]) {
        for l in regs {
            match *l {
                Loc::Gpr(r) => self.asm.store(true, RSP, SAVE_GPR + r as i32 * 8, r),
                Loc::Xmm(r) => self.asm.vstore(16, RSP, SAVE_XMM + r as i32 * 16, r),
                _ => {}
            }
        }
    }
    fn restore(&mut self, regs: &[Loc]) {
        for l in regs {
            match *l {
                Loc::Gpr(r) => self.asm.load(true, r, RSP, SAVE_GPR + r as i32 * 8),
                Loc::Xmm(r) => self.asm.vload(16, r, RSP, SAVE_XMM + r as i32 * 16),
                _ => {}
            }
        }
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
        let f = self.f;
        for &(slot, v) in &f.state(id).dirty {
            self.write_slot(slot.offset as i32, v);
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
                _ => {
                    let r = self.gpr(v, RAX);
                    self.store_gpr(ty, off, r);
                    return;
                }
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

    fn exit_with(&mut self, reason: u64) {
        self.asm.mov_ri(RAX, reason);
        self.asm.jmp_mem(ENV, H_EXIT);
    }

    fn raised_label(&mut self) -> DynamicLabel {
        if let Some(l) = self.raised {
            return l;
        }
        let l = self.asm.label();
        self.raised = Some(l);
        self.stubs.push(Stub::Raised { label: l });
        l
    }
    fn check_raised(&mut self) {
        let l = self.raised_label();
        self.asm.cmp_mem32_imm(ENV, H_RAISED, 0);
        self.asm.jcc(Cc::Ne, l);
    }

    // ---- blocks ----

    fn block(&mut self, b: usize, next: Option<usize>) {
        let label = self.blocks[b];
        self.asm.bind(label);
        let f = self.f;
        let blk = &f.blocks[b];
        for &v in &blk.insts {
            let pos = self.a.pos[v.index()];
            self.advance(pos);
            if self.deferred(v) {
                if f.inst(v).op == Op::FlagsFCmp {
                    // The compare's sticky flags are an effect of their own.
                    self.fcmp(f.inst(v));
                }
                continue;
            }
            self.inst(v);
        }
        match &blk.term {
            Term::Open => self.asm.ud2(),
            Term::Jump(t) => self.edge(t, next, false),
            Term::Branch { cond, then, other, hint } => self.branch(*cond, then, other, *hint, next),
        }
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
        let is_next = |t: &Target| matches!(t, Target::Block(b, _) if Some(b.index()) == next);
        let swap = !is_next(other) && (is_next(then) || hint > 0);
        let (near, far) = if swap { (then, other) } else { (other, then) };
        let label = match far {
            Target::Block(b, args) if args.is_empty() => self.blocks[b.index()],
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
    fn edge(&mut self, t: &Target, next: Option<usize>, skip_state: bool) {
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
            Target::Exit(kind, s) => self.exit(*kind, *s, skip_state),
        }
    }

    fn exit(&mut self, kind: ExitKind, s: StateId, skip_state: bool) {
        let pc = self.f.state(s).pc;
        let to = crate::regalloc::exit_value(kind);
        if !skip_state {
            self.write_state(s);
        }
        if let Some(v) = to {
            // Hash the target and probe the jump cache.
            let miss = self.asm.label();
            self.gpr_to(v, RAX);
            self.asm.mov_rr(false, RDX, RAX);
            self.asm.alu_ri(super::asm::Alu::And, false, RDX, ((1 << JUMP_CACHE_BITS) - 1) << 2);
            self.asm.shift_i(super::asm::Shift::Shl, false, RDX, 2);
            self.asm.alu_rm(super::asm::Alu::Add, true, RDX, ENV, H_JUMP_CACHE);
            self.asm.alu_rm(super::asm::Alu::Cmp, true, RAX, RDX, 0);
            self.asm.jcc(Cc::Ne, miss);
            self.asm.jmp_mem(RDX, 8);
            self.stubs.push(Stub::Miss { label: miss });
            return;
        }
        match kind {
            ExitKind::Lookup => self.exit_with(reason::LOOKUP),
            ExitKind::Leave | ExitKind::Inner(_) => {
                self.store_pc(pc);
                self.exit_with(reason::LEAVE);
            }
            _ if self.in_region_pages(pc) => {
                // A page known to be valid here: a jump that can be patched. Its displacement must not straddle an aligned word.
                while self.asm.offset() % 4 != 3 {
                    self.asm.bytes(&[0x90]);
                }
                let label = self.asm.label();
                let n = self.links.len();
                self.links.push(LinkSite { at: self.asm.offset() as u32 + 1, stub: 0, pc });
                self.link_labels.push((n, label));
                self.asm.jmp(label);
                let reason = reason::LINK | (n as u64) << 4 | (self.r.entry.id as u64) << 16;
                self.stubs.push(Stub::Exit { label, pc, reason });
            }
            _ => {
                // Another page: its translation may change, so go by the jump cache.
                let miss = self.asm.label();
                let slot = ((pc >> 2) & ((1 << JUMP_CACHE_BITS) - 1)) as i32 * 16;
                self.asm.load(true, RDX, ENV, H_JUMP_CACHE);
                self.asm.mov_ri(RAX, pc);
                self.asm.alu_rm(super::asm::Alu::Cmp, true, RAX, RDX, slot);
                self.asm.jcc(Cc::Ne, miss);
                self.asm.jmp_mem(RDX, slot + 8);
                self.stubs.push(Stub::Miss { label: miss });
            }
        }
    }

    /// True if `pc` is in a page that was checked at entry.
    fn in_region_pages(&self, pc: u64) -> bool {
        let page = pc & !0xfff;
        page == self.f.blocks[0].pc & !0xfff || self.r.others.iter().any(|p| p.tag & !0xfff == page)
    }

    /// Moves values into parameters' places, all at once.
    fn parallel_moves(&mut self, moves: &[(Value, Value)]) {
        let mut todo: Vec<Move> = moves
            .iter()
            .map(|&(p, a)| Move { to: self.loc(p), value: a, tmp: None })
            .filter(|m| m.to != Loc::None && m.to != self.loc(m.value))
            .collect();
        let mut free: u32 = (1 << TEMPORARIES) - 1;
        while !todo.is_empty() {
            // One whose destination nobody else still reads.
            let ready = todo.iter().enumerate().position(|(k, m)| {
                let bytes = self.ty(m.value).bytes();
                !todo.iter().enumerate().any(|(n, o)| n != k && o.tmp.is_none() && self.reads(o.value, m.to, bytes))
            });
            if let Some(k) = ready {
                let m = todo.swap_remove(k);
                match m.tmp {
                    None => self.move_to(m.to, m.value),
                    Some(t) => {
                        self.from_temporary(m.to, m.value, t);
                        free |= 1 << t;
                    }
                }
                continue;
            }
            // Only cycles are left: whatever reads the first one's destination reads a temporary from now on.
            let (to, bytes) = (todo[0].to, self.ty(todo[0].value).bytes());
            for m in todo.iter_mut().skip(1) {
                if m.tmp.is_some() || !self.reads(m.value, to, bytes) {
                    continue;
                }
                let t = free.trailing_zeros();
                if t >= TEMPORARIES {
                    self.failed = true;
                    return;
                }
                free &= !(1 << t);
                self.to_temporary(m.value, t);
                m.tmp = Some(t);
            }
        }
    }

    fn to_temporary(&mut self, a: Value, t: u32) {
        let at = SAVE_GPR + t as i32 * 16;
        if self.ty(a).is_int() {
            let r = self.gpr(a, RAX);
            self.asm.store(true, RSP, at, r);
        } else {
            let x = self.xmm(a, X15);
            self.asm.vstore(self.f.ty(a).bytes(), RSP, at, x);
        }
    }

    fn from_temporary(&mut self, to: Loc, a: Value, t: u32) {
        let (at, n) = (SAVE_GPR + t as i32 * 16, self.ty(a).bytes());
        match to {
            Loc::Gpr(r) => self.asm.load(true, r, RSP, at),
            Loc::Xmm(r) => self.asm.vload(n, r, RSP, at),
            Loc::Spill(off) if self.ty(a).is_int() => {
                self.asm.load(true, RAX, RSP, at);
                self.asm.store(true, RSP, off as i32, RAX);
            }
            Loc::Spill(off) => {
                self.asm.vload(n, X15, RSP, at);
                self.asm.vstore(n, RSP, off as i32, X15);
            }
            Loc::None => {}
        }
    }

    /// True if computing `a` reads any of the `bytes` at `d`.
    fn reads(&self, a: Value, d: Loc, bytes: u32) -> bool {
        if self.deferred(a) {
            return self.f.inst(a).args().iter().any(|&x| self.reads(x, d, bytes));
        }
        match (self.loc(a), d) {
            // Slots of different sizes may overlap.
            (Loc::Spill(x), Loc::Spill(y)) => x < y + bytes.max(8) && y < x + self.ty(a).bytes().max(8),
            (x, y) => x == y && x != Loc::None,
        }
    }

    fn move_to(&mut self, d: Loc, a: Value) {
        match d {
            Loc::Gpr(r) => self.gpr_to(a, r),
            Loc::Xmm(r) => {
                let x = self.xmm(a, r);
                if x != r {
                    self.asm.vmovaps(r, x);
                }
            }
            Loc::Spill(off) => {
                if self.ty(a).is_int() {
                    if let Some(c) = self.f.as_const(a).and_then(|c| i32::try_from(c as i64).ok()) {
                        self.asm.store_imm(true, RSP, off as i32, c);
                    } else {
                        let r = self.gpr(a, RAX);
                        self.asm.store(true, RSP, off as i32, r);
                    }
                } else {
                    let x = self.xmm(a, X15);
                    let n = self.ty(a).bytes();
                    self.asm.vstore(n, RSP, off as i32, x);
                }
            }
            Loc::None => {}
        }
    }

    // ---- stubs ----

    fn emit_stubs(&mut self) {
        // Stubs may add stubs (edges with exits); the order keeps data last.
        self.in_stubs = true;
        let mut k = 0;
        let mut datas = Vec::new();
        while k < self.stubs.len() {
            let s = std::mem::replace(&mut self.stubs[k], Stub::Exit { label: self.blocks[0], pc: 0, reason: 0 });
            k += 1;
            match s {
                Stub::Mem { v, label, back } => {
                    self.asm.bind(label);
                    self.mem_slow(v, back);
                }
                Stub::Fp { v, label, back } => {
                    self.asm.bind(label);
                    self.fp_slow(v);
                    self.asm.jmp(back);
                }
                Stub::Leave { state, label, reason } => {
                    self.asm.bind(label);
                    self.write_state(state);
                    let pc = self.f.state(state).pc;
                    self.store_pc(pc);
                    self.exit_with(reason);
                }
                Stub::Exit { label, pc, reason } => {
                    self.asm.bind(label);
                    self.store_pc(pc);
                    self.exit_with(reason);
                }
                Stub::Miss { label } => {
                    self.asm.bind(label);
                    self.asm.store(true, ENV, H_PC, RAX);
                    self.exit_with(reason::LOOKUP);
                }
                Stub::Raised { label } => {
                    self.asm.bind(label);
                    self.exit_with(reason::RAISED);
                }
                Stub::Edge { label, target, skip_state } => {
                    self.asm.bind(label);
                    self.edge(&target, None, skip_state);
                }
                Stub::Data { label, bytes } => datas.push((label, bytes)),
            }
        }
        self.asm.align(16);
        for (label, bytes) in datas {
            self.asm.bind(label);
            self.asm.bytes(&bytes.to_le_bytes());
        }
    }

    /// Runs `call` with live caller-saved registers preserved around it.
    pub fn around_call(&mut self, v: Value, call: impl FnOnce(&mut Self)) {
        let regs = self.saved_for(v);
        self.save(&regs);
        call(self);
        self.restore(&regs);
    }

    /// In stubs the running set of intervals is gone; find the ones around the instruction.
    fn saved_for(&self, v: Value) -> Vec<Loc> {
        let pos = self.a.pos[v.index()];
        if !self.in_stubs {
            return self.live_caller_saved(pos, v);
        }
        self.a
            .intervals
            .iter()
            .take_while(|i| i.start <= pos)
            .filter(|i| i.end > pos && i.value != v)
            .map(|i| self.loc(i.value))
            .filter(|l| match l {
                Loc::Gpr(r) => REGS.preserved >> r & 1 == 0,
                Loc::Xmm(_) => true,
                _ => false,
            })
            .collect()
    }

    /// Slow path of a memory access: precise state, the run time, back.
    fn mem_slow(&mut self, v: Value, back: DynamicLabel) {
        self.mem_call(v);
        self.asm.jmp(back);
    }

    /// Calls the run time for a memory access, with precise state in memory.
    pub fn mem_call(&mut self, v: Value) {
        let i = *self.f.inst(v);
        self.write_state(i.state);
        self.store_pc(self.f.state(i.state).pc);
        let regs = self.saved_for(v);
        self.save(&regs);
        let wide = |t: Type| matches!(t, Type::I128 | Type::V128);
        // All sources into scratch registers first: they may live in argument registers.
        let fns = *self.r.fns;
        let mut args = [Value::NONE; 2];
        args[..i.args().len() - 1].copy_from_slice(&i.args()[1..]);
        let mut wides = 0;
        for (n, &a) in args.iter().enumerate() {
            if a.is_none() {
                continue;
            }
            let reg = [RDX, RCX][n];
            let t = self.ty(a);
            if wide(t) {
                let x = self.xmm(a, X15);
                self.asm.vstore(16, ENV, H_SCRATCH + wides * 16, x);
                wides += 1;
            } else if t.is_int() {
                self.gpr_to(a, reg);
            } else {
                let x = self.xmm(a, X15);
                self.asm.vmov_to_gpr(t == Type::F64, reg, x);
            }
        }
        self.gpr_to(i.args[0], RAX);
        if i.imm != 0 {
            match i32::try_from(i.imm as i64) {
                Ok(d) => self.asm.lea(RAX, RAX, d),
                Err(_) => {
                    self.asm.mov_ri(RSI, i.imm);
                    self.asm.alu_rr(super::asm::Alu::Add, true, RAX, RSI);
                }
            }
        }
        self.asm.mov_rr(true, RSI, RAX);
        self.asm.mov_rr(true, RDI, ENV);
        let op = i.aux as u64;
        let target = match i.op {
            Op::Load => {
                self.asm.mov_ri(RDX, op);
                fns.load
            }
            Op::ProbeWrite => {
                self.asm.mov_ri(RDX, op);
                fns.probe_write
            }
            Op::Store => {
                self.asm.mov_ri(RCX, op);
                fns.store
            }
            Op::Rmw => {
                self.asm.mov_ri(RCX, op);
                fns.rmw
            }
            _ => {
                self.asm.mov_ri(R8, op);
                fns.cas
            }
        };
        self.asm.call_abs(target);
        self.check_raised();
        self.restore(&regs);
        match i.ty {
            Type::Void => {}
            t if wide(t) => {
                let d = self.dst_xmm(v, X15);
                self.asm.vload(16, d, ENV, H_SCRATCH + 7 * 16);
                self.put_xmm(v, d);
            }
            t if t.is_int() => {
                let m = i.mem_op();
                if i.op == Op::Load && m.is_signed() && m.bytes() < 8 {
                    let w = t == Type::I64;
                    match m.bytes() {
                        1 => self.asm.movsx8(w, RAX, RAX),
                        2 => self.asm.movsx16(w, RAX, RAX),
                        _ if w => self.asm.movsxd(RAX, RAX),
                        _ => self.asm.mov_rr(false, RAX, RAX),
                    }
                } else if t == Type::I32 {
                    self.asm.mov_rr(false, RAX, RAX);
                }
                self.put_gpr(v, RAX);
            }
            t => {
                let d = self.dst_xmm(v, X15);
                self.asm.vmov_from_gpr(t == Type::F64, d, RAX);
                self.put_xmm(v, d);
            }
        }
    }

    /// Calls a helper.
    pub fn helper_call(&mut self, v: Value) {
        let i = *self.f.inst(v);
        let desc = &self.r.helpers[i.imm as usize];
        let pure = desc.effects.contains(Effects::PURE);
        if !pure {
            self.write_state(i.state);
            self.store_pc(self.f.state(i.state).pc);
        }
        let regs = self.saved_for(v);
        self.save(&regs);
        let wide = |t: Type| matches!(t, Type::I128 | Type::V128);
        let arg_regs = [RSI, RDX, RCX, R8];
        let mut wides = 0;
        for &a in i.args() {
            if wide(self.ty(a)) {
                let x = self.xmm(a, X15);
                self.asm.vstore(16, ENV, H_SCRATCH + wides * 16, x);
                wides += 1;
            }
        }
        // rdx and rcx hold nothing; rsi and r8 may hold later arguments: those go last, through rax and the save area.
        let ints: Vec<(usize, Value)> = i.args().iter().copied().enumerate().filter(|(_, a)| !wide(self.ty(*a))).collect();
        let put = |e: &mut Self, a: Value, reg: u8| {
            let t = e.ty(a);
            if t.is_int() {
                e.gpr_to(a, reg);
            } else {
                let x = e.xmm(a, X15);
                e.asm.vmov_to_gpr(t == Type::F64, reg, x);
            }
        };
        for &(n, a) in ints.iter().filter(|(n, _)| *n == 1 || *n == 2) {
            put(self, a, arg_regs[n]);
        }
        let first = ints.iter().find(|(n, _)| *n == 0).map(|x| x.1);
        let last = ints.iter().find(|(n, _)| *n == 3).map(|x| x.1);
        if let Some(a) = first {
            put(self, a, RAX);
        }
        if let Some(a) = last {
            put(self, a, R8);
        }
        if first.is_some() {
            self.asm.mov_rr(true, RSI, RAX);
        }
        self.asm.mov_rr(true, RDI, ENV);
        self.asm.call_abs(desc.func.0 as usize);
        if desc.effects.contains(Effects::RAISES) {
            self.check_raised();
        }
        self.restore(&regs);
        if self.loc(v) == Loc::None {
            return;
        }
        match desc.ret {
            Type::Void => {}
            t if wide(t) => {
                let d = self.dst_xmm(v, X15);
                self.asm.vload(16, d, ENV, H_SCRATCH + 7 * 16);
                self.put_xmm(v, d);
            }
            Type::Bool => {
                self.asm.alu_ri(super::asm::Alu::And, false, RAX, 1);
                self.put_gpr(v, RAX);
            }
            Type::I32 => {
                self.asm.mov_rr(false, RAX, RAX);
                self.put_gpr(v, RAX);
            }
            Type::I64 => self.put_gpr(v, RAX),
            t => {
                let d = self.dst_xmm(v, X15);
                self.asm.vmov_from_gpr(t == Type::F64, d, RAX);
                self.put_xmm(v, d);
            }
        }
    }

    /// Exact FP by the run time; result to the value's place. Sources must still be intact.
    pub fn fp_slow(&mut self, v: Value) {
        let i = *self.f.inst(v);
        let regs = self.saved_for(v);
        self.save(&regs);
        for (n, &a) in i.args().iter().enumerate() {
            let at = H_SCRATCH + n as i32 * 16;
            if self.ty(a).is_int() {
                let r = self.gpr(a, RAX);
                self.asm.store(true, ENV, at, r);
            } else {
                let x = self.xmm(a, X15);
                self.asm.vstore(self.f.ty(a).bytes(), ENV, at, x);
            }
        }
        let arg_ty = self.ty(i.args[0]);
        let packed = i.op as u64 | (i.ty as u64) << 8 | (arg_ty as u64) << 16 | (i.aux as u64) << 32;
        self.asm.mov_rr(true, RDI, ENV);
        self.asm.mov_ri(RSI, packed);
        self.asm.mov_ri(RDX, i.imm);
        let f = self.r.fns.fp;
        self.asm.call_abs(f);
        self.restore(&regs);
        if i.ty.is_int() {
            self.asm.load(true, RAX, ENV, H_SCRATCH + 7 * 16);
            self.put_gpr(v, RAX);
        } else {
            let d = self.dst_xmm(v, X15);
            self.asm.vload(i.ty.bytes(), d, ENV, H_SCRATCH + 7 * 16);
            self.put_xmm(v, d);
        }
    }
}
