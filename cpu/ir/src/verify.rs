//! The verifier: checks a function against the operation table and the rules of SSA form, state maps and edges.

mod sig;

use crate::func::{BlockId, ExitKind, Function, Inst, StateId, Target, Term, Value};
use crate::guest::{Effects, HelperDesc};
use crate::op::{Class, Op};
use crate::opt::dominators;
use crate::types::{Slot, Type};
use std::fmt;

/// More errors than this are counted, not kept.
const MAX_ERRORS: usize = 20;

/// How far a function has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// As a front end built it: blocks are joined by [`ExitKind::Inner`].
    Built,
    /// After [`crate::promote`] and any pass: blocks are joined by SSA edges only.
    Promoted,
}

/// One violated rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifyError {
    pub block: Option<BlockId>,
    /// The operation, if the error is one's.
    pub inst: Option<Value>,
    pub what: String,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(b) = self.block {
            write!(f, "block{}: ", b.0)?;
        }
        if let Some(v) = self.inst {
            write!(f, "v{}: ", v.0)?;
        }
        f.write_str(&self.what)
    }
}

/// All violated rules of a function.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct VerifyErrors {
    pub errors: Vec<VerifyError>,
    /// Errors beyond those kept.
    pub more: usize,
}

impl fmt::Display for VerifyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, e) in self.errors.iter().enumerate() {
            write!(f, "{}{e}", if n > 0 { "\n" } else { "" })?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more errors", self.more)?;
        }
        Ok(())
    }
}

/// Where a value is defined: block, position (0 for parameters, from 1 for operations).
type Def = Option<(usize, usize)>;

struct Verifier<'a> {
    f: &'a Function,
    helpers: &'a [HelperDesc],
    stage: Stage,
    defs: Vec<Def>,
    idom: Vec<usize>,
    /// Slots seen, by offset.
    slots: Vec<Slot>,
    out: VerifyErrors,
}

/// Checks a function.
///
/// # Errors
/// Every rule that it breaks.
pub fn verify(f: &Function, helpers: &[HelperDesc], stage: Stage) -> Result<(), VerifyErrors> {
    let mut v = Verifier {
        f,
        helpers,
        stage,
        defs: vec![None; f.insts.len()],
        idom: Vec::new(),
        slots: Vec::new(),
        out: VerifyErrors { errors: Vec::new(), more: 0 },
    };
    v.run();
    if v.out.errors.is_empty() { Ok(()) } else { Err(v.out) }
}

impl Verifier<'_> {
    fn error(&mut self, block: Option<usize>, inst: Option<Value>, what: String) {
        if self.out.errors.len() >= MAX_ERRORS {
            self.out.more += 1;
            return;
        }
        self.out.errors.push(VerifyError { block: block.map(|b| BlockId(b as u32)), inst, what });
    }

    fn run(&mut self) {
        let f = self.f;
        if f.blocks.is_empty() {
            return self.error(None, None, "the function has no entry block".into());
        }
        if !f.blocks[0].params.is_empty() {
            self.error(Some(0), None, "the entry block has parameters".into());
        }
        self.definitions();
        self.edges();
        if !self.out.errors.is_empty() {
            // What follows relies on indices being in range.
            return;
        }
        let order = crate::opt::reverse_post_order(f);
        self.idom = dominators(self.f, &order);
        for &b in &order {
            self.block(b);
        }
        self.overlaps();
    }

    /// Every listed operation exists, once.
    fn definitions(&mut self) {
        let f = self.f;
        for (b, block) in f.blocks.iter().enumerate() {
            let params = block.params.iter().map(|&v| (v, true));
            let insts = block.insts.iter().map(|&v| (v, false));
            for (n, (v, param)) in params.chain(insts).enumerate() {
                let Some(i) = f.insts.get(v.index()) else {
                    self.error(Some(b), Some(v), "no such operation".into());
                    continue;
                };
                if (i.op == Op::Param) != param {
                    let what =
                        if param { "a parameter must be a param operation" } else { "param in the body of a block" };
                    self.error(Some(b), Some(v), what.into());
                }
                if self.defs[v.index()].is_some() {
                    self.error(Some(b), Some(v), "defined twice".into());
                }
                let at = if param { 0 } else { n + 1 - block.params.len() };
                self.defs[v.index()] = Some((b, at));
            }
        }
        // Arguments in range everywhere.
        for (b, block) in f.blocks.iter().enumerate() {
            for &v in &block.insts {
                let Some(i) = f.insts.get(v.index()) else { continue };
                for &a in i.args.iter().filter(|a| !a.is_none()) {
                    self.exists(b, Some(v), a);
                }
                if i.state != StateId::NONE {
                    self.state_exists(b, Some(v), i.state);
                }
            }
        }
    }

    fn exists(&mut self, b: usize, inst: Option<Value>, v: Value) -> bool {
        let ok = !v.is_none() && v.index() < self.f.insts.len();
        if !ok {
            let what = if v.is_none() { "a value is missing".into() } else { format!("v{} does not exist", v.0) };
            self.error(Some(b), inst, what);
        }
        ok
    }

    fn state_exists(&mut self, b: usize, inst: Option<Value>, s: StateId) {
        let f = self.f;
        let Some(state) = f.states.get(s.0 as usize) else {
            return self.error(Some(b), inst, format!("state map {} does not exist", s.0));
        };
        for &(_, v) in &state.dirty {
            self.exists(b, inst, v);
        }
    }

    /// Terminators and the indices in them.
    fn edges(&mut self) {
        let f = self.f;
        for (b, block) in f.blocks.iter().enumerate() {
            if block.term == Term::Open {
                self.error(Some(b), None, "has no terminator".into());
            }
            if let Some(v) = block.term.value() {
                self.exists(b, None, v);
            }
            for t in block.term.targets() {
                match t {
                    Target::Block(to, args) => {
                        if to.index() >= f.blocks.len() {
                            self.error(Some(b), None, format!("jumps to block{}, which does not exist", to.0));
                        }
                        if to.0 == 0 {
                            self.error(Some(b), None, "jumps to the entry block".into());
                        }
                        for &a in args {
                            self.exists(b, None, a);
                        }
                    }
                    Target::Exit(kind, s) => {
                        if *s == StateId::NONE {
                            self.error(Some(b), None, "an exit needs a state map".into());
                        } else {
                            self.state_exists(b, None, *s);
                        }
                        match kind {
                            ExitKind::Inner(to) if to.index() >= f.blocks.len() => {
                                self.error(Some(b), None, format!("inner edge to block{}, which does not exist", to.0));
                            }
                            ExitKind::Inner(_) if self.stage == Stage::Promoted => {
                                self.error(Some(b), None, "inner edge after promotion".into());
                            }
                            ExitKind::Indirect(v) | ExitKind::Return(v) | ExitKind::IndirectCall { target: v, .. } => {
                                self.exists(b, None, *v);
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
    }

    /// True if the value is available at the position (operations of the same block: strictly before).
    fn available(&self, v: Value, b: usize, at: usize) -> bool {
        let Some((db, dat)) = self.defs[v.index()] else { return false };
        if db == b {
            return dat < at;
        }
        let mut x = b;
        while x != 0 && x != usize::MAX {
            x = self.idom[x];
            if x == db {
                return true;
            }
        }
        false
    }

    /// A use of `v` with the type it must have.
    fn uses(&mut self, b: usize, at: usize, inst: Option<Value>, what: &str, v: Value, ty: Option<Type>) {
        let have = self.f.ty(v);
        if let Some(ty) = ty
            && have != ty
        {
            self.error(Some(b), inst, format!("{what} v{} is {}, not {}", v.0, have.name(), ty.name()));
        }
        if !self.available(v, b, at) {
            let why = if self.defs[v.index()].is_none() { "is in no block" } else { "does not dominate its use" };
            self.error(Some(b), inst, format!("{what} v{} {why}", v.0));
        }
    }

    fn block(&mut self, b: usize) {
        let f = self.f;
        let block = &f.blocks[b];
        for &v in &block.params {
            if matches!(f.ty(v), Type::Void | Type::V256) {
                self.error(Some(b), Some(v), format!("a parameter of type {}", f.ty(v).name()));
            }
        }
        for (k, &v) in block.insts.iter().enumerate() {
            self.inst(b, k + 1, v);
        }
        let end = block.insts.len() + 1;
        if let Term::Branch { cond, then, other, .. } = &block.term {
            self.uses(b, end, None, "the condition", *cond, Some(Type::Bool));
            // Promotion takes what a block leaves dirty from either edge.
            if let (Stage::Built, Target::Exit(_, s), Target::Exit(_, t)) = (self.stage, then, other)
                && f.state(*s).dirty != f.state(*t).dirty
            {
                self.error(Some(b), None, "the two edges of the branch leave different slots dirty".into());
            }
        }
        if let Term::Switch { value, cases, .. } = &block.term {
            self.uses(b, end, None, "the value", *value, Some(Type::I64));
            if cases.iter().enumerate().any(|(n, c)| cases[..n].iter().any(|d| d.0 == c.0)) {
                self.error(Some(b), None, "a number is in the switch twice".into());
            }
        }
        for t in block.term.targets() {
            match t {
                Target::Block(to, args) => self.arguments(b, end, *to, args),
                Target::Exit(kind, s) => {
                    if let ExitKind::Indirect(v) | ExitKind::Return(v) | ExitKind::IndirectCall { target: v, .. } =
                        *kind
                    {
                        self.uses(b, end, None, "the exit's target", v, Some(Type::I64));
                    }
                    self.state(b, end, None, *s);
                }
            }
        }
    }

    fn arguments(&mut self, b: usize, end: usize, to: BlockId, args: &[Value]) {
        let params = &self.f.blocks[to.index()].params;
        if params.len() != args.len() {
            let what = format!("{} arguments for block{}, which has {} parameters", args.len(), to.0, params.len());
            return self.error(Some(b), None, what);
        }
        for (&p, &a) in params.iter().zip(args) {
            let ty = self.f.ty(p);
            self.uses(b, end, None, &format!("the argument for v{} of block{}:", p.0, to.0), a, Some(ty));
        }
    }

    fn inst(&mut self, b: usize, at: usize, v: Value) {
        let f = self.f;
        let i = f.inst(v);
        for &a in i.args() {
            self.uses(b, at, Some(v), "argument", a, None);
        }
        let n = i.args().len();
        if i.args[n..].iter().any(|a| !a.is_none()) {
            return self.error(Some(b), Some(v), "arguments after a missing one".into());
        }
        let checked = if i.op == Op::Call { self.call(i) } else { sig::check(f, i) };
        if let Err(what) = checked {
            self.error(Some(b), Some(v), format!("{}.{}: {what}", i.op.name(), i.ty.name()));
        }
        if i.op.class() == Class::Slot {
            self.slot(b, Some(v), Slot::new(i.imm as usize, i.ty));
        }
        let wants = match i.op.class() {
            Class::Mem => true,
            Class::Call => self.helpers.get(i.imm as usize).is_some_and(|d| !d.effects.contains(Effects::PURE)),
            _ => false,
        };
        match (wants, i.state == StateId::NONE) {
            (true, true) => self.error(Some(b), Some(v), format!("{} needs a state map", i.op.name())),
            (false, false) => self.error(Some(b), Some(v), format!("{} has a state map", i.op.name())),
            (true, false) => self.state(b, at, Some(v), i.state),
            _ => {}
        }
    }

    fn call(&self, i: &Inst) -> Result<(), String> {
        let Some(d) = usize::try_from(i.imm).ok().and_then(|n| self.helpers.get(n)) else {
            return Err(format!("there is no helper {}", i.imm));
        };
        if i.ty != d.ret {
            return Err(format!("helper {} returns {}", d.name, d.ret.name()));
        }
        if i.args().len() != d.args.len() {
            return Err(format!("helper {} takes {} arguments, not {}", d.name, d.args.len(), i.args().len()));
        }
        for (n, (&a, &ty)) in i.args().iter().zip(d.args).enumerate() {
            if self.f.ty(a) != ty {
                return Err(format!("argument {n} of helper {} is {}, not {}", d.name, self.f.ty(a).name(), ty.name()));
            }
        }
        Ok(())
    }

    fn state(&mut self, b: usize, at: usize, inst: Option<Value>, s: StateId) {
        let f = self.f;
        let mut last: Option<Slot> = None;
        for &(slot, v) in &f.state(s).dirty {
            if last.is_some_and(|l| l.offset >= slot.offset) {
                self.error(Some(b), inst, format!("the state map is not sorted at slot {:#x}", slot.offset));
            }
            last = Some(slot);
            self.slot(b, inst, slot);
            self.uses(b, at, inst, &format!("the value of slot {:#x}:", slot.offset), v, Some(slot.ty));
        }
    }

    /// A slot keeps its type throughout.
    fn slot(&mut self, b: usize, inst: Option<Value>, s: Slot) {
        if s.ty.bytes() == 0 || s.ty.bytes() > 16 {
            return self.error(Some(b), inst, format!("slot {:#x} of type {}", s.offset, s.ty.name()));
        }
        match self.slots.iter().find(|t| t.offset == s.offset) {
            Some(t) if t.ty != s.ty => {
                let what = format!("slot {:#x} is used as {} and as {}", s.offset, t.ty.name(), s.ty.name());
                self.error(Some(b), inst, what);
            }
            Some(_) => {}
            None => self.slots.push(s),
        }
    }

    fn overlaps(&mut self) {
        let mut list = std::mem::take(&mut self.slots);
        list.sort_unstable();
        for w in list.windows(2) {
            if w[0].offset as u64 + w[0].ty.bytes() as u64 > w[1].offset as u64 {
                let what = format!("slots {:#x} ({}) and {:#x} overlap", w[0].offset, w[0].ty.name(), w[1].offset);
                self.error(None, None, what);
            }
        }
    }
}
