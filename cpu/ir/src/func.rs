//! The region under construction: arrays indexed by small ids, and the builder that front ends use.

use crate::guest::{Effects, FpMode, HelperDesc, HelperId};
use crate::op::{Class, Cond, Op};
use crate::simd::{Fmt, SimdOp};
use crate::types::{Lane, MemOp, RmwOp, Slot, Type};
use smallvec::SmallVec;

/// An SSA value: the index of the instruction that defines it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Value(pub u32);

impl Value {
    pub const NONE: Value = Value(u32::MAX);
    pub const fn index(self) -> usize {
        self.0 as usize
    }
    pub const fn is_none(self) -> bool {
        self.0 == u32::MAX
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct BlockId(pub u32);

impl BlockId {
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Index into [`Function::states`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StateId(pub u32);

impl StateId {
    pub const NONE: StateId = StateId(u32::MAX);
}

/// One operation. Unused arguments are [`Value::NONE`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Inst {
    pub op: Op,
    pub ty: Type,
    /// Small operand, as the operation says (condition, lane, MemOp, rounding).
    pub aux: u32,
    pub args: [Value; 4],
    pub state: StateId,
    pub imm: u64,
}

impl Inst {
    pub fn new(op: Op, ty: Type) -> Inst {
        Inst { op, ty, aux: 0, args: [Value::NONE; 4], state: StateId::NONE, imm: 0 }
    }
    /// The arguments in use.
    pub fn args(&self) -> &[Value] {
        let n = self.args.iter().position(|a| a.is_none()).unwrap_or(4);
        &self.args[..n]
    }
    pub fn mem_op(&self) -> MemOp {
        MemOp(self.aux)
    }
    pub fn cond(&self) -> Cond {
        Cond::from_u32(self.aux)
    }
    pub fn lane(&self) -> Lane {
        Lane::from_size(self.aux)
    }
}

/// Where every slot that differs from memory lives at a point that may leave the region.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct StateMap {
    /// Guest address of the instruction to restart at (or, on an exit edge, to continue at).
    pub pc: u64,
    /// Slots whose value in memory is stale, each with its current value; sorted by offset, no duplicates.
    pub dirty: SmallVec<[(Slot, Value); 4]>,
}

/// How a region is left.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum ExitKind {
    /// To the constant guest address in the state map's `pc`; may be chained.
    Goto,
    /// To the address in the value (I64); predicted by an inline cache or hash.
    Indirect(Value),
    /// A call: as `Goto`, and the return address is pushed on the shadow return stack.
    Call { ret: u64 },
    /// A call to a computed address.
    IndirectCall { target: Value, ret: u64 },
    /// A return to the address in the value, predicted by the shadow return stack.
    Return(Value),
    /// The guest's pc and mode in memory are already set (after an exception, ERET, mode change): look them up anew.
    Lookup,
    /// As `Goto`, but without looking for a translation in generated code first: the vCPU loop must run (WFI, reset,
    /// barrier that must let requests in).
    Leave,
    /// Not an exit: an edge to another block of this function before [`crate::promote`] has run, or in one that is
    /// [`Function::eager`].
    Inner(BlockId),
}

/// An edge out of a block.
#[derive(Clone, PartialEq, Debug)]
pub enum Target {
    Block(BlockId, Vec<Value>),
    Exit(ExitKind, StateId),
}

impl Target {
    /// The block of the function that the edge goes to.
    pub fn block(&self) -> Option<BlockId> {
        match self {
            Target::Block(to, _) | Target::Exit(ExitKind::Inner(to), _) => Some(*to),
            Target::Exit(..) => None,
        }
    }
}

/// The end of a block.
#[derive(Clone, PartialEq, Debug)]
pub enum Term {
    /// Still being built.
    Open,
    Jump(Target),
    /// `cond` is Bool; `hint` > 0: `then` likely, < 0: unlikely.
    Branch {
        cond: Value,
        then: Target,
        other: Target,
        hint: i8,
    },
    /// To the target beside the number that equals `value` (I64), else to `other`. No number is there twice. `note` is a word
    /// for the back end, of no meaning here.
    Switch {
        value: Value,
        cases: Vec<(u64, Target)>,
        other: Target,
        note: u64,
    },
}

impl Term {
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        let (cases, a, b) = match self {
            Term::Open => (&[][..], None, None),
            Term::Jump(t) => (&[][..], Some(t), None),
            Term::Branch { then, other, .. } => (&[][..], Some(then), Some(other)),
            Term::Switch { cases, other, .. } => (&cases[..], Some(other), None),
        };
        cases.iter().map(|c| &c.1).chain(a).chain(b)
    }
    pub fn targets_mut(&mut self) -> impl Iterator<Item = &mut Target> {
        let (cases, a, b) = match self {
            Term::Open => (&mut [][..], None, None),
            Term::Jump(t) => (&mut [][..], Some(t), None),
            Term::Branch { then, other, .. } => (&mut [][..], Some(then), Some(other)),
            Term::Switch { cases, other, .. } => (&mut cases[..], Some(other), None),
        };
        cases.iter_mut().map(|c| &mut c.1).chain(a).chain(b)
    }
    /// What decides between the targets.
    pub fn value(&self) -> Option<Value> {
        match self {
            Term::Branch { cond: v, .. } | Term::Switch { value: v, .. } => Some(*v),
            Term::Open | Term::Jump(_) => None,
        }
    }
    pub fn value_mut(&mut self) -> Option<&mut Value> {
        match self {
            Term::Branch { cond: v, .. } | Term::Switch { value: v, .. } => Some(v),
            Term::Open | Term::Jump(_) => None,
        }
    }
}

#[derive(Clone, PartialEq, Debug)]
pub struct Block {
    pub params: Vec<Value>,
    pub insts: Vec<Value>,
    pub term: Term,
    /// Guest address of the first instruction.
    pub pc: u64,
    /// Guest instructions translated into this block.
    pub guest_insns: u32,
}

/// A region. Block 0 is the entry and has no parameters.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Function {
    pub insts: Vec<Inst>,
    pub blocks: Vec<Block>,
    pub states: Vec<StateMap>,
    /// 128-bit constants and shuffle masks (byte 0 is the lowest).
    pub consts: Vec<u128>,
    /// How floating-point operations behave in this region.
    pub fp: FpMode,
    /// Guest instructions are counted ([`Op::Count`]).
    pub counts: bool,
    /// Slots are written to memory before each operation that may leave (but for [`Slot::late`] ones, which wait for one that does)
    /// and on [`ExitKind::Inner`] edges, which need no [`crate::promote`] then. State maps tell what was not written before. Code
    /// made so is made fast, and is small, as each slow path need not write all that changed since the beginning.
    pub eager: bool,
    /// The page of the code, if what is made is to serve at other addresses as well: see [`Function::moves`].
    pub movable: Option<u64>,
}

impl Function {
    pub fn new(fp: FpMode) -> Function {
        // Room for most single blocks.
        let (insts, blocks, states) = (Vec::with_capacity(64), Vec::with_capacity(2), Vec::with_capacity(16));
        Function { insts, blocks, states, consts: Vec::new(), fp, counts: false, eager: false, movable: None }
    }
    pub fn inst(&self, v: Value) -> &Inst {
        &self.insts[v.index()]
    }
    pub fn ty(&self, v: Value) -> Type {
        self.insts[v.index()].ty
    }
    pub fn push_inst(&mut self, inst: Inst) -> Value {
        let v = Value(self.insts.len() as u32);
        self.insts.push(inst);
        v
    }
    pub fn push_state(&mut self, state: StateMap) -> StateId {
        let id = StateId(self.states.len() as u32);
        self.states.push(state);
        id
    }
    pub fn state(&self, id: StateId) -> &StateMap {
        &self.states[id.0 as usize]
    }
    pub fn new_block(&mut self, pc: u64) -> BlockId {
        let id = BlockId(self.blocks.len() as u32);
        self.blocks.push(Block {
            params: Vec::new(),
            insts: Vec::with_capacity(32),
            term: Term::Open,
            pc,
            guest_insns: 0,
        });
        id
    }
    pub fn const128(&mut self, c: u128) -> u64 {
        let i = self.consts.iter().position(|&x| x == c).unwrap_or_else(|| {
            self.consts.push(c);
            self.consts.len() - 1
        });
        i as u64
    }
    /// Does this constant look like an address that moves with code that is movable, within 2 GiB? Nothing but sums may be
    /// computed from it ahead.
    pub fn moves(&self, c: u64) -> bool {
        self.movable.is_some_and(|page| c.wrapping_sub(page).wrapping_add(1 << 31) < 1 << 32)
    }
    /// If the value is an integer, Bool or FP constant, its bits.
    pub fn as_const(&self, v: Value) -> Option<u64> {
        let i = self.inst(v);
        (i.op == Op::Const).then_some(i.imm)
    }
}

/// What is known of a slot in the block being built.
#[derive(Clone, Copy)]
struct Known {
    slot: Slot,
    value: Value,
    dirty: bool,
}

/// Builds blocks of a [`Function`] one guest basic block at a time. Inside a block, slot reads and writes become SSA
/// values at once; across blocks, [`crate::promote`] does it.
pub struct Builder<'a> {
    pub func: &'a mut Function,
    helpers: &'static [HelperDesc],
    block: BlockId,
    known: Vec<Known>,
    /// Guest address of the instruction being translated: state maps are made with it.
    pc: u64,
    /// Pure operations of this block for sharing: (hash, value).
    gvn: Vec<(u32, Value)>,
    /// The state made for the current instruction, reusable while no slot was written since.
    cached_state: Option<StateId>,
    /// The last [`Op::Count`], while nothing that came after it can tell when it was done.
    count: Option<Value>,
}

impl<'a> Builder<'a> {
    pub fn new(func: &'a mut Function, helpers: &'static [HelperDesc], block: BlockId) -> Builder<'a> {
        let pc = func.blocks[block.index()].pc;
        Builder {
            func,
            helpers,
            block,
            known: Vec::with_capacity(32),
            pc,
            gvn: Vec::with_capacity(64),
            cached_state: None,
            count: None,
        }
    }

    /// Starts the next guest instruction at `pc`: faults from here on restart there. Call before the first operation.
    pub fn start_insn(&mut self, pc: u64) {
        self.pc = pc;
        self.cached_state = None;
        self.func.blocks[self.block.index()].guest_insns += 1;
        if self.func.counts {
            match self.count {
                Some(count) => self.func.insts[count.index()].imm += 1,
                None => {
                    let mut count = Inst::new(Op::Count, Type::Void);
                    count.imm = 1;
                    self.count = Some(self.append(count));
                }
            }
        }
    }
    pub fn pc(&self) -> u64 {
        self.pc
    }
    pub fn block(&self) -> BlockId {
        self.block
    }

    /// Goes on in `block` (a new one from [`Builder::new_block`]) after the current one was ended, knowing nothing of
    /// slots there; values of other blocks must not be used unless their block dominates. For control flow inside one
    /// guest instruction; the target's slots are connected by `promote`.
    pub fn switch_to(&mut self, block: BlockId) {
        self.finish_known();
        self.block = block;
    }
    pub fn new_block(&mut self) -> BlockId {
        self.func.new_block(self.pc)
    }

    fn finish_known(&mut self) {
        self.known.clear();
        self.gvn.clear();
        self.cached_state = None;
        self.count = None;
    }

    fn emit(&mut self, inst: Inst) -> Value {
        if inst.op.class() == Class::Pure {
            if let Some(v) = crate::eval::simplify(self.func, &inst) {
                return match v {
                    crate::eval::Simplified::Value(v) => v,
                    crate::eval::Simplified::Const(ty, bits) => self.const_of(ty, bits),
                    crate::eval::Simplified::Inst(i) => self.emit(i),
                };
            }
            let h = hash_inst(&inst);
            for &(k, v) in self.gvn.iter().rev() {
                if k == h && *self.func.inst(v) == inst {
                    return v;
                }
            }
            let v = self.append(inst);
            self.gvn.push((h, v));
            return v;
        }
        self.append(inst)
    }

    fn append(&mut self, inst: Inst) -> Value {
        if self.count.is_some() && matches!(inst.op.class(), Class::Mem | Class::Call | Class::Effect) {
            self.count = None;
        }
        let v = self.func.push_inst(inst);
        self.func.blocks[self.block.index()].insts.push(v);
        v
    }

    /// The state map for a point in the current instruction that restarts it.
    pub fn state(&mut self) -> StateId {
        if let Some(id) = self.cached_state {
            return id;
        }
        let id = self.state_at(self.pc);
        self.cached_state = Some(id);
        id
    }

    /// The state map for an operation that may leave.
    fn leaving_state(&mut self) -> StateId {
        let id = self.state();
        if self.func.eager {
            for k in self.known.iter_mut().filter(|k| k.dirty && !k.slot.late) {
                k.dirty = false;
                self.cached_state = None;
            }
        }
        id
    }

    /// A state map that continues at `pc` with the slots as they are now.
    pub fn state_at(&mut self, pc: u64) -> StateId {
        let mut dirty: SmallVec<[(Slot, Value); 4]> =
            self.known.iter().filter(|k| k.dirty).map(|k| (k.slot, k.value)).collect();
        dirty.sort_unstable_by_key(|d| d.0.offset);
        self.func.push_state(StateMap { pc, dirty })
    }

    // ---- slots ----

    pub fn get(&mut self, slot: Slot) -> Value {
        if let Some(k) = self.known.iter().find(|k| k.slot.offset == slot.offset) {
            debug_assert_eq!(k.slot.ty, slot.ty, "slot {} used with two types", slot.offset);
            return k.value;
        }
        let mut i = Inst::new(Op::GetSlot, slot.ty);
        i.imm = slot.offset as u64;
        let value = self.append(i);
        self.known.push(Known { slot, value, dirty: false });
        value
    }

    pub fn set(&mut self, slot: Slot, value: Value) {
        debug_assert_eq!(
            self.func.ty(value),
            slot.ty,
            "slot {} written with another type at {:#x}",
            slot.offset,
            self.pc
        );
        self.cached_state = None;
        if let Some(k) = self.known.iter_mut().find(|k| k.slot.offset == slot.offset) {
            if k.value != value {
                k.value = value;
                k.dirty = true;
            }
            return;
        }
        self.known.push(Known { slot, value, dirty: true });
    }

    // ---- generic emitters ----

    pub fn op0(&mut self, op: Op, ty: Type) -> Value {
        self.emit(Inst::new(op, ty))
    }
    pub fn op1(&mut self, op: Op, ty: Type, a: Value, aux: u32, imm: u64) -> Value {
        let mut i = Inst::new(op, ty);
        i.args[0] = a;
        i.aux = aux;
        i.imm = imm;
        self.emit(i)
    }
    pub fn op2(&mut self, op: Op, ty: Type, a: Value, b: Value, aux: u32, imm: u64) -> Value {
        let mut i = Inst::new(op, ty);
        i.args[0] = a;
        i.args[1] = b;
        i.aux = aux;
        i.imm = imm;
        self.emit(i)
    }
    pub fn op3(&mut self, op: Op, ty: Type, a: Value, b: Value, c: Value, aux: u32) -> Value {
        let mut i = Inst::new(op, ty);
        i.args[0] = a;
        i.args[1] = b;
        i.args[2] = c;
        i.aux = aux;
        self.emit(i)
    }
    #[expect(clippy::too_many_arguments, reason = "the parts of one operation")]
    pub fn op3_imm(&mut self, op: Op, ty: Type, a: Value, b: Value, c: Value, aux: u32, imm: u64) -> Value {
        let mut i = Inst::new(op, ty);
        i.args[..3].copy_from_slice(&[a, b, c]);
        (i.aux, i.imm) = (aux, imm);
        self.emit(i)
    }

    // ---- constants ----

    fn const_of(&mut self, ty: Type, bits: u64) -> Value {
        let mut i = Inst::new(Op::Const, ty);
        i.imm = match ty {
            Type::Bool => bits & 1,
            Type::I32 | Type::F32 => bits as u32 as u64,
            _ => bits,
        };
        let h = hash_inst(&i);
        for &(k, v) in self.gvn.iter().rev() {
            if k == h && *self.func.inst(v) == i {
                return v;
            }
        }
        let v = self.append(i);
        self.gvn.push((h, v));
        v
    }
    /// A constant of type Bool, I32, I64, F32 or F64 from its bits.
    pub fn iconst(&mut self, ty: Type, bits: u64) -> Value {
        self.const_of(ty, bits)
    }
    pub fn vconst(&mut self, bits: u128) -> Value {
        let mut i = Inst::new(Op::ConstV, Type::V128);
        i.imm = self.func.const128(bits);
        self.emit(i)
    }

    // ---- integer shorthands: the result has the type of the first argument ----

    pub fn bin(&mut self, op: Op, a: Value, b: Value) -> Value {
        let ty = self.func.ty(a);
        self.op2(op, ty, a, b, 0, 0)
    }
    pub fn un(&mut self, op: Op, a: Value) -> Value {
        let ty = self.func.ty(a);
        self.op1(op, ty, a, 0, 0)
    }
    pub fn add(&mut self, a: Value, b: Value) -> Value {
        self.bin(Op::Add, a, b)
    }
    pub fn sub(&mut self, a: Value, b: Value) -> Value {
        self.bin(Op::Sub, a, b)
    }
    pub fn and(&mut self, a: Value, b: Value) -> Value {
        self.bin(Op::And, a, b)
    }
    pub fn or(&mut self, a: Value, b: Value) -> Value {
        self.bin(Op::Or, a, b)
    }
    pub fn xor(&mut self, a: Value, b: Value) -> Value {
        self.bin(Op::Xor, a, b)
    }
    /// `op` with a constant second argument of the first one's type.
    pub fn bin_imm(&mut self, op: Op, a: Value, imm: u64) -> Value {
        let c = self.const_of(self.func.ty(a), imm);
        self.bin(op, a, c)
    }
    pub fn icmp(&mut self, cond: Cond, a: Value, b: Value) -> Value {
        self.op2(Op::ICmp, Type::Bool, a, b, cond as u32, 0)
    }
    pub fn cond_flags(&mut self, cond: Cond, flags: Value) -> Value {
        self.op1(Op::CondFlags, Type::Bool, flags, cond as u32, 0)
    }
    /// The order of two integers.
    pub fn order(&mut self, signed: bool, a: Value, b: Value) -> Value {
        self.op2(Op::Order, Type::I64, a, b, u32::from(!signed), 0)
    }
    /// The order that is less, greater and equal as three Bools say.
    pub fn order_of(&mut self, [less, greater, equal]: [Value; 3]) -> Value {
        self.op3(Op::OrderOf, Type::I64, less, greater, equal, 0)
    }
    /// Is an order less (`Cond::Slt`), greater (`Cond::Sgt`), equal (`Cond::Eq`), or none of these (their inverses)?
    pub fn order_is(&mut self, cond: Cond, order: Value) -> Value {
        self.op1(Op::OrderIs, Type::Bool, order, cond as u32, 0)
    }
    pub fn select(&mut self, cond: Value, a: Value, b: Value) -> Value {
        let ty = self.func.ty(a);
        self.op3(Op::Select, ty, cond, a, b, 0)
    }
    /// `(hi:lo) >> lsb`.
    pub fn extr(&mut self, hi: Value, lo: Value, lsb: u32) -> Value {
        let ty = self.func.ty(hi);
        self.op2(Op::Extr, ty, hi, lo, 0, lsb as u64)
    }
    /// Sign-extends the low `bits` (8, 16, 32) within the value's type.
    pub fn sext(&mut self, a: Value, bits: u32) -> Value {
        let ty = self.func.ty(a);
        self.op1(Op::Sext, ty, a, 0, bits as u64)
    }
    pub fn zext(&mut self, a: Value, bits: u32) -> Value {
        let ty = self.func.ty(a);
        self.op1(Op::Zext, ty, a, 0, bits as u64)
    }
    pub fn zext64(&mut self, a: Value) -> Value {
        self.op1(Op::Zext64, Type::I64, a, 0, 0)
    }
    pub fn sext64(&mut self, a: Value) -> Value {
        self.op1(Op::Sext64, Type::I64, a, 0, 0)
    }
    pub fn trunc(&mut self, a: Value) -> Value {
        self.op1(Op::Trunc, Type::I32, a, 0, 0)
    }
    pub fn bitcast(&mut self, ty: Type, a: Value) -> Value {
        self.op1(Op::Bitcast, ty, a, 0, 0)
    }

    // ---- vectors ----

    /// Two-operand vector operation on lanes.
    pub fn v2(&mut self, op: Op, lane: Lane, a: Value, b: Value) -> Value {
        self.op2(op, Type::V128, a, b, lane as u32, 0)
    }
    pub fn v1(&mut self, op: Op, lane: Lane, a: Value) -> Value {
        self.op1(op, Type::V128, a, lane as u32, 0)
    }
    /// Vector operation with an immediate (shifts).
    pub fn v1_imm(&mut self, op: Op, lane: Lane, a: Value, imm: u64) -> Value {
        self.op1(op, Type::V128, a, lane as u32, imm)
    }
    pub fn v3(&mut self, op: Op, lane: Lane, a: Value, b: Value, c: Value) -> Value {
        self.op3(op, Type::V128, a, b, c, lane as u32)
    }
    /// The same with an immediate.
    pub fn v3_imm(&mut self, op: Op, lane: Lane, a: Value, b: Value, c: Value, imm: u64) -> Value {
        let mut i = Inst::new(op, Type::V128);
        i.args[..3].copy_from_slice(&[a, b, c]);
        i.aux = lane as u32;
        i.imm = imm;
        self.emit(i)
    }
    /// Bytes of `a` (indices 0–15) and `b` (16–31) in the order of `mask` (byte 0 first); index ≥ 32 gives zero.
    pub fn shuffle(&mut self, a: Value, b: Value, mask: [u8; 16]) -> Value {
        let c = self.func.const128(u128::from_le_bytes(mask));
        self.op2(Op::VShuffle, Type::V128, a, b, 0, c)
    }
    pub fn vextract(&mut self, ty: Type, lane: Lane, a: Value, index: u32) -> Value {
        self.op1(Op::VExtract, ty, a, lane as u32, index as u64)
    }
    pub fn vinsert(&mut self, lane: Lane, v: Value, index: u32, scalar: Value) -> Value {
        self.op2(Op::VInsert, Type::V128, v, scalar, lane as u32, index as u64)
    }
    pub fn vdup(&mut self, lane: Lane, scalar: Value) -> Value {
        self.op1(Op::VDup, Type::V128, scalar, lane as u32, 0)
    }
    pub fn vfromscalar(&mut self, scalar: Value) -> Value {
        self.op1(Op::VFromScalar, Type::V128, scalar, 0, 0)
    }

    /// An operation of [`SimdOp`] in a format, with an immediate (0 if it has none).
    pub fn simd(&mut self, op: SimdOp, fmt: Fmt, args: &[Value], imm: u64) -> Value {
        self.simd_to(Type::V128, op, fmt, args, imm)
    }
    /// The same with a result of another type.
    pub fn simd_to(&mut self, ty: Type, op: SimdOp, fmt: Fmt, args: &[Value], imm: u64) -> Value {
        debug_assert_eq!(args.len(), op.arity(), "{}", op.name());
        let mut i = Inst::new(
            match (op.fp(), args.len()) {
                (false, 1) => Op::Simd1,
                (false, 2) => Op::Simd2,
                (false, _) => Op::Simd3,
                (true, 1) => Op::FSimd1,
                (true, 2) => Op::FSimd2,
                (true, _) => Op::FSimd3,
            },
            ty,
        );
        i.args[..args.len()].copy_from_slice(args);
        i.aux = op as u32 | (fmt as u32) << 8;
        i.imm = imm;
        self.emit(i)
    }

    // ---- memory ----

    fn mem(&mut self, op: Op, ty: Type, memop: MemOp, args: &[Value], disp: i64) -> Value {
        let mut i = Inst::new(op, ty);
        i.aux = memop.0;
        i.imm = disp as u64;
        i.args[..args.len()].copy_from_slice(args);
        i.state = self.leaving_state();
        self.append(i)
    }
    pub fn load(&mut self, ty: Type, memop: MemOp, addr: Value, disp: i64) -> Value {
        self.mem(Op::Load, ty, memop, &[addr], disp)
    }
    pub fn store(&mut self, memop: MemOp, addr: Value, disp: i64, value: Value) {
        self.mem(Op::Store, Type::Void, memop, &[addr, value], disp);
    }
    pub fn rmw(&mut self, ty: Type, op: RmwOp, memop: MemOp, addr: Value, value: Value) -> Value {
        self.mem(Op::Rmw, ty, memop.rmw(op), &[addr, value], 0)
    }
    pub fn cas(&mut self, ty: Type, memop: MemOp, addr: Value, expected: Value, new: Value) -> Value {
        self.mem(Op::Cas, ty, memop, &[addr, expected, new], 0)
    }
    pub fn probe_write(&mut self, memop: MemOp, addr: Value, disp: i64) {
        self.mem(Op::ProbeWrite, Type::Void, memop, &[addr], disp);
    }
    pub fn fence(&mut self, full: bool) {
        let mut i = Inst::new(Op::Fence, Type::Void);
        i.aux = !full as u32;
        self.append(i);
    }

    // ---- helpers ----

    /// Calls a helper. Unless it is pure, all dirty slots are in memory when it runs and (if it writes state) are read
    /// again after it; the guest's pc in memory is the current instruction's address. A helper that may raise
    /// leaves the region when it did.
    pub fn call(&mut self, helper: HelperId, args: &[Value]) -> Value {
        let desc = &self.helpers[helper.0 as usize];
        debug_assert_eq!(desc.args.len(), args.len(), "{}", desc.name);
        let mut i = Inst::new(Op::Call, desc.ret);
        i.imm = helper.0 as u64;
        i.args[..args.len()].copy_from_slice(args);
        if desc.effects.contains(Effects::PURE) {
            let h = hash_inst(&i);
            for &(k, v) in self.gvn.iter().rev() {
                if k == h && *self.func.inst(v) == i {
                    return v;
                }
            }
            let v = self.append(i);
            self.gvn.push((h, v));
            return v;
        }
        i.state = self.state();
        if desc.effects.contains(Effects::WRITES_STATE) {
            // Everything is in memory now, and may have been changed there.
            self.known.clear();
        } else if self.func.eager || desc.effects.contains(Effects::READS_STATE) {
            for k in &mut self.known {
                k.dirty = false;
            }
        }
        self.cached_state = None;
        self.append(i)
    }

    /// True after an operation that flushed: see [`Builder::call`].
    pub fn helper(&self, h: HelperId) -> &'static HelperDesc {
        &self.helpers[h.0 as usize]
    }

    // ---- ends ----

    fn end(&mut self, term: Term) {
        self.func.blocks[self.block.index()].term = term;
    }
    fn exit(&mut self, kind: ExitKind, pc: u64) -> Target {
        let s = self.state_at(pc);
        Target::Exit(kind, s)
    }
    /// Ends the block: continue at the constant guest address.
    pub fn end_goto(&mut self, pc: u64) {
        let t = self.exit(ExitKind::Goto, pc);
        self.end(Term::Jump(t));
    }
    /// Ends the block with a conditional branch between two guest addresses.
    pub fn end_cond(&mut self, cond: Value, then_pc: u64, else_pc: u64) {
        if let Some(c) = self.func.as_const(cond) {
            return self.end_goto(if c != 0 { then_pc } else { else_pc });
        }
        let then = self.exit(ExitKind::Goto, then_pc);
        let other = self.exit(ExitKind::Goto, else_pc);
        self.end(Term::Branch { cond, then, other, hint: 0 });
    }
    pub fn end_call(&mut self, pc: u64, ret: u64) {
        let t = self.exit(ExitKind::Call { ret }, pc);
        self.end(Term::Jump(t));
    }
    pub fn end_indirect(&mut self, target: Value) {
        let t = self.exit(ExitKind::Indirect(target), self.pc);
        self.end(Term::Jump(t));
    }
    pub fn end_indirect_call(&mut self, target: Value, ret: u64) {
        let t = self.exit(ExitKind::IndirectCall { target, ret }, self.pc);
        self.end(Term::Jump(t));
    }
    pub fn end_return(&mut self, target: Value) {
        let t = self.exit(ExitKind::Return(target), self.pc);
        self.end(Term::Jump(t));
    }
    /// Ends the block after a helper set the guest's pc (and perhaps mode) itself.
    pub fn end_lookup(&mut self) {
        let t = self.exit(ExitKind::Lookup, self.pc);
        self.end(Term::Jump(t));
    }
    /// Ends the block; the vCPU loop runs before the guest goes on at `pc`.
    pub fn end_leave(&mut self, pc: u64) {
        let t = self.exit(ExitKind::Leave, pc);
        self.end(Term::Jump(t));
    }
    /// Ends the block with a jump to another block of this function.
    pub fn end_inner(&mut self, block: BlockId) {
        let t = self.exit(ExitKind::Inner(block), self.pc);
        self.end(Term::Jump(t));
    }
    /// Ends the block with a branch to two blocks of this function; `hint` > 0: `then` is likely.
    pub fn end_inner_branch(&mut self, cond: Value, then: BlockId, other: BlockId, hint: i8) {
        let then = self.exit(ExitKind::Inner(then), self.pc);
        let other = self.exit(ExitKind::Inner(other), self.pc);
        self.end(Term::Branch { cond, then, other, hint });
    }
    pub fn is_ended(&self) -> bool {
        self.func.blocks[self.block.index()].term != Term::Open
    }
}

fn hash_inst(i: &Inst) -> u32 {
    let mut h = (i.op as u32) ^ ((i.ty as u32) << 8) ^ (i.aux << 12);
    for a in i.args {
        h = h.wrapping_mul(0x9e37_79b1).rotate_left(5) ^ a.0;
    }
    h.wrapping_mul(0x9e37_79b1) ^ (i.imm as u32) ^ ((i.imm >> 32) as u32).wrapping_mul(31)
}
