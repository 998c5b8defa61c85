//! Packed flags and widened scalars across block edges. A compare at the end of a loop leaves flags that are mostly needed
//! only if the loop is left by a fault or an exit; a parameter for them would have them computed in every round. Here the
//! parameter becomes the compare's operands, which usually are parameters already, and the flags are computed where they
//! are used. In the same way a vector register that holds a scalar goes round the loop as that scalar, and where ways meet that
//! all end in the same compare, its outcomes are compared where they are used.

use crate::func::{Function, Inst, Target, Value};
use crate::op::Op;
use crate::opt::{dominators, retain_params, reverse_post_order};
use crate::promote::{remove_trivial_params, rewrite};
use crate::types::{Lane, Type};

/// An edge: the block it leaves and which of its targets it is.
type Edge = (usize, usize);

struct Shape {
    rpo: Vec<usize>,
    idom: Vec<usize>,
    /// Block of each operation or parameter.
    home: Vec<usize>,
    preds: Vec<Vec<Edge>>,
}

impl Shape {
    fn new(f: &Function) -> Shape {
        let rpo = reverse_post_order(f);
        let mut home = vec![usize::MAX; f.insts.len()];
        let mut preds = vec![Vec::new(); f.blocks.len()];
        for &b in &rpo {
            let block = &f.blocks[b];
            for v in block.params.iter().chain(&block.insts) {
                home[v.index()] = b;
            }
        }
        for (b, block) in f.blocks.iter().enumerate() {
            for (k, t) in block.term.targets().enumerate() {
                if let Target::Block(to, _) = t {
                    preds[to.index()].push((b, k));
                }
            }
        }
        let idom = dominators(f, &rpo);
        Shape { rpo, idom, home, preds }
    }
    /// Does every way to block `x` lead through `b`?
    fn dominates(&self, b: usize, x: usize) -> bool {
        let mut x = x;
        while x != b && x != 0 && x != usize::MAX {
            x = self.idom[x];
        }
        x == b
    }
    /// Is the value defined in a block that strictly dominates `b`?
    fn is_above(&self, v: Value, b: usize) -> bool {
        let home = self.home[v.index()];
        let mut x = b;
        while x != 0 && x != usize::MAX {
            x = self.idom[x];
            if x == home {
                return true;
            }
        }
        false
    }
}

fn edge_args(f: &Function, (from, which): Edge) -> &[Value] {
    match f.blocks[from].term.targets().nth(which) {
        Some(Target::Block(_, args)) => args,
        _ => &[],
    }
}

fn push_arg(f: &mut Function, (from, which): Edge, v: Value) {
    if let Some(Target::Block(_, args)) = f.blocks[from].term.targets_mut().nth(which) {
        args.push(v);
    }
}

/// What a parameter comes from: an operation, the type of its operands, its condition.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Origin {
    op: Op,
    ty: Type,
    aux: u32,
}

impl Origin {
    fn of(f: &Function, v: Value) -> Option<Origin> {
        let i = f.inst(v);
        let operand = i.args.first().filter(|a| !a.is_none())?;
        Some(Origin { op: i.op, ty: f.ty(*operand), aux: i.aux }).filter(|_| i.imm == 0)
    }
    /// Is it as cheap as its outcome is?
    fn is_compare(&self) -> bool {
        matches!(self.op, Op::ICmp | Op::Order)
    }
    /// Operations that are worth it.
    fn is_lazy(&self) -> bool {
        match self.op {
            Op::FlagsSub | Op::FlagsLogic | Op::FlagsCmp | Op::ICmp | Op::Order => true,
            Op::VFromScalar => matches!(self.ty, Type::F32 | Type::F64),
            _ => false,
        }
    }
}

/// Uses of values as operands of operations and branches, not in state maps or as arguments of edges.
struct Uses {
    /// Other than the scalar in the lowest lane.
    whole: Vec<bool>,
    /// Operations that take the scalar in the lowest lane of a vector: (vector, operation).
    low: Vec<(Value, Value)>,
}

fn operand_uses(f: &Function) -> Uses {
    let mut uses = Uses { whole: vec![false; f.insts.len()], low: Vec::new() };
    for b in &f.blocks {
        for &v in &b.insts {
            let i = f.inst(v);
            if i.op == Op::VExtract
                && i.imm == 0
                && matches!((i.ty, i.lane()), (Type::F64, Lane::D) | (Type::F32, Lane::S))
            {
                uses.low.push((i.args[0], v));
                continue;
            }
            i.args().iter().for_each(|a| uses.whole[a.index()] = true);
        }
        if let Some(v) = b.term.value() {
            uses.whole[v.index()] = true;
        }
    }
    uses
}

/// Makes flags lazy, and removes parameters that always hold one value or the same as another.
pub fn lazy_flags(f: &mut Function) {
    tidy_params(f);
    let shape = Shape::new(f);
    let uses = operand_uses(f);
    let mut repl: Vec<Value> = (0..f.insts.len() as u32).map(Value).collect();
    let mut changed = false;
    for &b in &shape.rpo {
        let mut k = 0;
        while k < f.blocks[b].params.len() {
            let p = f.blocks[b].params[k];
            if matches!(f.ty(p), Type::Bool | Type::I32 | Type::I64 | Type::V128)
                && let Some(op) = candidate(f, &shape, &uses, b, k)
            {
                let (whole, first) = split(f, &shape, b, k, op);
                repl.extend((repl.len()..f.insts.len()).map(|n| Value(n as u32)));
                repl[p.index()] = whole;
                uses.low.iter().filter(|l| l.0 == p).for_each(|l| repl[l.1.index()] = first);
                changed = true;
            }
            k += 1;
        }
    }
    if changed {
        drop_replaced(f, &repl, &shape);
        rewrite(f, &repl);
        tidy_params(f);
        crate::opt::simplify_all(f);
    }
}

/// The operation that parameter `k` comes from in the loop that `b` heads, if laziness pays.
fn candidate(f: &Function, shape: &Shape, uses: &Uses, b: usize, k: usize) -> Option<Origin> {
    let p = f.blocks[b].params[k];
    let mut op = None;
    let mut outside = false;
    for &e in &shape.preds[b] {
        let a = *edge_args(f, e).get(k)?;
        let this = Origin::of(f, a).filter(Origin::is_lazy);
        let back = shape.dominates(b, e.0);
        // A compare costs no more than its outcome, wherever ways meet.
        let counts = back || this.is_some_and(|o| o.is_compare());
        if counts && this.is_some() && (op.is_none() || op == this) {
            op = this;
            continue;
        }
        if back {
            return None;
        }
        outside = true;
    }
    let op = op?;
    let same_outside = shape.preds[b].iter().all(|&e| Origin::of(f, edge_args(f, e)[k]) == Some(op));
    if op.is_compare() && !same_outside && !shape.preds[b].iter().any(|e| shape.dominates(b, e.0)) {
        return None;
    }
    let mut low = uses.low.iter().filter(|l| l.0 == p).map(|l| f.ty(l.1)).peekable();
    let scalar = op.op == Op::VFromScalar;
    if scalar && (low.peek().is_none() || low.any(|ty| ty != op.ty)) {
        return None;
    }
    // With other values from outside, those in use would have to be chosen between in every round.
    (!outside || same_outside || !uses.whole[p.index()]).then_some(op)
}

/// The value in terms of operands, for the parameter to be replaced by, and the first operand.
fn split(f: &mut Function, shape: &Shape, b: usize, k: usize, origin: Origin) -> (Value, Value) {
    let Origin { op, ty, aux } = origin;
    let result = f.ty(f.blocks[b].params[k]);
    let preds = &shape.preds[b];
    let is_lazy = |f: &Function, e: Edge| Origin::of(f, edge_args(f, e)[k]) == Some(origin);
    let lazy: Vec<Edge> = preds.iter().copied().filter(|&e| is_lazy(f, e)).collect();
    let eager: Vec<Edge> = preds.iter().copied().filter(|&e| !is_lazy(f, e)).collect();
    let operands = if matches!(op, Op::FlagsSub | Op::FlagsCmp | Op::ICmp | Op::Order) { 2 } else { 1 };
    let mut args = [Value::NONE; 2];
    let mut head = Vec::new();
    if op == Op::VFromScalar {
        args[0] = scalar(f, b, k, ty, &lazy, &eager);
    } else {
        for (n, arg) in args.iter_mut().enumerate().take(operands) {
            *arg = operand(f, shape, b, k, n, ty, &lazy, &eager, &mut head);
        }
    }
    let mut i = Inst::new(op, result);
    i.aux = aux;
    i.args[..2].copy_from_slice(&args);
    let mut flags = f.push_inst(i);
    head.push(flags);
    if !eager.is_empty() {
        // Which of the two it is, and the value from outside.
        let which = f.push_inst(Inst::new(Op::Param, Type::Bool));
        let old = f.push_inst(Inst::new(Op::Param, result));
        f.blocks[b].params.extend([which, old]);
        for &e in preds {
            let is = lazy.contains(&e);
            let c = edge_bool(f, e, is);
            push_arg(f, e, c);
            // Around the loop the value from outside stays; on a way in it has no meaning if the compare's operands come.
            let v = if is && shape.dominates(b, e.0) { old } else { edge_args(f, e)[k] };
            push_arg(f, e, v);
        }
        let mut i = Inst::new(Op::Select, result);
        i.args[..3].copy_from_slice(&[which, flags, old]);
        flags = f.push_inst(i);
        head.push(flags);
    }
    f.blocks[b].insts.splice(0..0, head);
    (flags, args[0])
}

/// A constant at the end of the edge's block, made once: parameters that tell the same can be found equal.
fn edge_bool(f: &mut Function, e: Edge, v: bool) -> Value {
    let mut c = Inst::new(Op::Const, Type::Bool);
    c.imm = v as u64;
    if let Some(&found) = f.blocks[e.0].insts.iter().find(|&&x| *f.inst(x) == c) {
        return found;
    }
    let c = f.push_inst(c);
    f.blocks[e.0].insts.push(c);
    c
}

/// A parameter for the scalar in the lowest lane.
fn scalar(f: &mut Function, b: usize, k: usize, ty: Type, lazy: &[Edge], eager: &[Edge]) -> Value {
    let p = f.push_inst(Inst::new(Op::Param, ty));
    f.blocks[b].params.push(p);
    for &e in lazy {
        let v = f.inst(edge_args(f, e)[k]).args[0];
        push_arg(f, e, v);
    }
    for &e in eager {
        let mut i = Inst::new(Op::VExtract, ty);
        i.args[0] = edge_args(f, e)[k];
        i.aux = if ty == Type::F64 { Lane::D } else { Lane::S } as u32;
        let v = f.push_inst(i);
        f.blocks[e.0].insts.push(v);
        push_arg(f, e, v);
    }
    p
}

/// Operand `n` of the compare as seen in the head: a value from above, a parameter that has it already, or a new one.
#[expect(clippy::too_many_arguments, reason = "the parts of one split")]
fn operand(
    f: &mut Function,
    shape: &Shape,
    b: usize,
    k: usize,
    n: usize,
    ty: Type,
    lazy: &[Edge],
    eager: &[Edge],
    head: &mut Vec<Value>,
) -> Value {
    let of = |f: &Function, e: Edge| f.inst(edge_args(f, e)[k]).args[n];
    let first = of(f, lazy[0]);
    if lazy.iter().all(|&e| of(f, e) == first)
        && shape.home.get(first.index()).is_some_and(|_| shape.is_above(first, b))
    {
        return first;
    }
    if let Some(c) = f.as_const(first)
        && lazy.iter().all(|&e| f.as_const(of(f, e)) == Some(c))
    {
        let mut i = Inst::new(Op::Const, ty);
        i.imm = c;
        let v = f.push_inst(i);
        head.push(v);
        return v;
    }
    let params = f.blocks[b].params.clone();
    for (m, &q) in params.iter().enumerate() {
        if f.ty(q) == ty && lazy.iter().all(|&e| edge_args(f, e).get(m) == Some(&of(f, e))) {
            return q;
        }
    }
    if ty == Type::I32 {
        // The low half of a register that has it zero-extended.
        let widened = |f: &Function, e: Edge, m: usize| {
            let i = edge_args(f, e).get(m).map(|&a| *f.inst(a));
            i.is_some_and(|i| i.op == Op::Zext64 && i.args[0] == of(f, e))
        };
        let has = |f: &Function, (m, q): (usize, Value)| f.ty(q) == Type::I64 && lazy.iter().all(|&e| widened(f, e, m));
        // The low half of a register that passes as a whole.
        let narrowed = |f: &Function, e: Edge, m: usize| {
            let i = f.inst(of(f, e));
            i.op == Op::Trunc && edge_args(f, e).get(m) == Some(&i.args[0])
        };
        let is_low =
            |f: &Function, (m, q): (usize, Value)| f.ty(q) == Type::I64 && lazy.iter().all(|&e| narrowed(f, e, m));
        if let Some((_, q)) = params.iter().copied().enumerate().find(|&c| has(f, c) || is_low(f, c)) {
            let mut i = Inst::new(Op::Trunc, Type::I32);
            i.args[0] = q;
            let v = f.push_inst(i);
            head.push(v);
            return v;
        }
    }
    let p = f.push_inst(Inst::new(Op::Param, ty));
    f.blocks[b].params.push(p);
    for &e in lazy {
        let v = of(f, e);
        push_arg(f, e, v);
    }
    for &e in eager {
        let v = f.push_inst(Inst::new(Op::Const, ty));
        f.blocks[e.0].insts.push(v);
        push_arg(f, e, v);
    }
    p
}

/// Takes replaced parameters out of the lists.
fn drop_replaced(f: &mut Function, repl: &[Value], shape: &Shape) {
    for b in 0..f.blocks.len() {
        let keep: Vec<bool> = f.blocks[b].params.iter().map(|p| repl[p.index()] == *p).collect();
        retain_params(f, b, &keep, &shape.preds[b]);
    }
}

/// Removes parameters with one value and parameters equal to another of the block.
fn tidy_params(f: &mut Function) {
    let mut repl: Vec<Value> = (0..f.insts.len() as u32).map(Value).collect();
    remove_trivial_params(f, &mut repl);
    rewrite(f, &repl);
    let shape = Shape::new(f);
    let mut repl: Vec<Value> = (0..f.insts.len() as u32).map(Value).collect();
    let mut any = false;
    for b in 1..f.blocks.len() {
        let params = f.blocks[b].params.clone();
        let mut keep = vec![true; params.len()];
        for k in 1..params.len() {
            let same = |m: usize| {
                f.ty(params[m]) == f.ty(params[k])
                    && shape.preds[b].iter().all(|&e| {
                        let args = edge_args(f, e);
                        // Around the loop each may be passed on as itself.
                        args[m] == args[k] || (args[m] == params[m] && args[k] == params[k])
                    })
            };
            if let Some(m) = (0..k).find(|&m| keep[m] && same(m)) {
                repl[params[k].index()] = params[m];
                keep[k] = false;
                any = true;
            }
        }
        retain_params(f, b, &keep, &shape.preds[b]);
    }
    if any {
        rewrite(f, &repl);
    }
}
