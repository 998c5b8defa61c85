//! Printing.

use super::{Aux, LANES, RMWS, STRICT, aux_of, cond_name, imm_is_rounding, mem_bits};
use crate::func::{Block, BlockId, ExitKind, Function, StateId, Target, Term, Value};
use crate::guest::NanRule;
use crate::op::{Class, Op};
use crate::types::Type;
use std::fmt::{Display, Formatter, Result};

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        if self.is_none() { f.write_str("none") } else { write!(f, "v{}", self.0) }
    }
}

impl Display for BlockId {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "block{}", self.0)
    }
}

impl Display for Type {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(self.name())
    }
}

/// One operation in text form.
pub struct InstText<'a> {
    func: &'a Function,
    value: Value,
}

impl Function {
    /// The operation that defines a value, in text form.
    pub fn show(&self, value: Value) -> InstText<'_> {
        InstText { func: self, value }
    }
}

fn round(f: &mut Formatter<'_>, v: u64) -> Result {
    match v & 0xff {
        0xff => f.write_str(" round=cur")?,
        n => write!(f, " round={n}")?,
    }
    if v & 0x100 != 0 {
        f.write_str(" exact")?;
    }
    Ok(())
}

fn state(func: &Function, f: &mut Formatter<'_>, id: StateId) -> Result {
    let Some(s) = func.states.get(id.0 as usize) else { return Ok(()) };
    write!(f, " {{{:#x}:", s.pc)?;
    for (n, (slot, v)) in s.dirty.iter().enumerate() {
        write!(f, "{} {}[{:#x}]={v}", if n > 0 { "," } else { "" }, slot.ty, slot.offset)?;
    }
    f.write_str("}")
}

impl Display for InstText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Some(i) = self.func.insts.get(self.value.index()) else { return f.write_str("missing") };
        if i.ty != Type::Void {
            write!(f, "{} = ", self.value)?;
        }
        f.write_str(i.op.name())?;
        let kind = aux_of(i.op);
        let named = match kind {
            Aux::Cond => cond_name(i.aux),
            Aux::Lane => LANES.get(i.aux as usize).copied(),
            _ => None,
        };
        if let Some(n) = named {
            write!(f, ".{n}")?;
        }
        if i.ty != Type::Void {
            write!(f, ".{}", i.ty)?;
        }
        let mut imm_done = true;
        let mut comma = " ";
        match i.op {
            Op::Const => write!(f, " {:#x}", i.imm)?,
            Op::ConstV => match self.func.consts.get(i.imm as usize) {
                Some(c) => write!(f, " {c:#x}")?,
                None => imm_done = false,
            },
            Op::GetSlot => write!(f, " [{:#x}]", i.imm)?,
            Op::Call => {
                write!(f, " h{}(", i.imm)?;
                for (n, a) in i.args().iter().enumerate() {
                    write!(f, "{}{a}", if n > 0 { ", " } else { "" })?;
                }
                f.write_str(")")?;
            }
            _ => {
                for (n, a) in i.args().iter().enumerate() {
                    f.write_str(comma)?;
                    if n == 0 && kind == Aux::Mem {
                        match i.imm as i64 {
                            0 => write!(f, "[{a}]")?,
                            d if d < 0 => write!(f, "[{a} - {:#x}]", d.unsigned_abs())?,
                            d => write!(f, "[{a} + {d:#x}]")?,
                        }
                    } else {
                        write!(f, "{a}")?;
                    }
                    comma = ", ";
                }
                imm_done = i.imm == 0 || kind == Aux::Mem && !i.args().is_empty();
            }
        }
        if i.op == Op::VShuffle
            && let Some(c) = self.func.consts.get(i.imm as usize)
        {
            write!(f, "{comma}{c:#x}")?;
            imm_done = true;
        }
        if imm_is_rounding(i.op) && i.imm >> 9 == 0 {
            round(f, i.imm)?;
            imm_done = true;
        }
        if !imm_done {
            write!(f, "{comma}#{}", i.imm)?;
        }
        let mut aux_done = i.aux == 0 || named.is_some();
        match kind {
            Aux::Mem if mem_bits(i.mem_op(), i.op) == i.aux && (i.op != Op::Rmw || i.aux >> 16 < 10) => {
                let m = i.mem_op();
                aux_done = true;
                write!(f, " size={}", m.bytes())?;
                if i.op == Op::Rmw {
                    write!(f, " op={}", RMWS[m.rmw_op() as usize])?;
                }
                let flags = [
                    (m.is_signed(), "signed"),
                    (m.is_big_endian(), "be"),
                    (m.is_atomic(), "atomic"),
                    (m.is_acquire(), "acquire"),
                    (m.is_release(), "release"),
                    (m.is_for_update(), "update"),
                    (m.0 & STRICT != 0, "strict"),
                ];
                for (_, name) in flags.iter().filter(|x| x.0) {
                    write!(f, " {name}")?;
                }
                if m.align_log2() != 0 {
                    write!(f, " align={}", 1 << m.align_log2())?;
                }
                if m.mmu_idx() != 0 {
                    write!(f, " mmu={}", m.mmu_idx())?;
                }
            }
            Aux::Round if i.aux >> 9 == 0 => {
                aux_done = true;
                round(f, i.aux as u64)?;
            }
            _ => {}
        }
        match (i.op, i.aux) {
            (Op::FlagsFCmp, 1) => {
                f.write_str(" signal")?;
                aux_done = true;
            }
            (Op::Fence, 0) => f.write_str(" full")?,
            (Op::Fence, 1) => {
                f.write_str(" acqrel")?;
                aux_done = true;
            }
            _ => {}
        }
        if !aux_done {
            write!(f, " aux={:#x}", i.aux)?;
        }
        if matches!(i.op.class(), Class::Mem | Class::Call) {
            state(self.func, f, i.state)?;
        }
        Ok(())
    }
}

fn target(func: &Function, f: &mut Formatter<'_>, t: &Target) -> Result {
    match t {
        Target::Block(b, args) => {
            write!(f, " {b}")?;
            for (n, a) in args.iter().enumerate() {
                write!(f, "{}{a}", if n > 0 { ", " } else { "(" })?;
            }
            f.write_str(if args.is_empty() { "" } else { ")" })
        }
        Target::Exit(kind, s) => {
            match kind {
                ExitKind::Goto => f.write_str(" goto")?,
                ExitKind::Indirect(v) => write!(f, " indirect {v}")?,
                ExitKind::Call { ret } => write!(f, " call ret={ret:#x}")?,
                ExitKind::IndirectCall { target, ret } => write!(f, " icall {target} ret={ret:#x}")?,
                ExitKind::Return(v) => write!(f, " return {v}")?,
                ExitKind::Lookup => f.write_str(" lookup")?,
                ExitKind::Leave => f.write_str(" leave")?,
                ExitKind::Inner(b) => write!(f, " inner {b}")?,
            }
            state(func, f, *s)
        }
    }
}

fn block(func: &Function, f: &mut Formatter<'_>, n: usize, b: &Block) -> Result {
    write!(f, "block{n}")?;
    for (k, &p) in b.params.iter().enumerate() {
        write!(f, "{}{p}: {}", if k > 0 { ", " } else { "(" }, func.insts.get(p.index()).map_or(Type::Void, |i| i.ty))?;
    }
    writeln!(f, "{} @{:#x} insns={}:", if b.params.is_empty() { "" } else { ")" }, b.pc, b.guest_insns)?;
    for &v in &b.insts {
        writeln!(f, "  {}", func.show(v))?;
    }
    match &b.term {
        Term::Open => f.write_str("  open")?,
        Term::Jump(t) => {
            f.write_str("  jump")?;
            target(func, f, t)?;
        }
        Term::Branch { cond, then, other, hint } => {
            write!(f, "  branch {cond}")?;
            if *hint != 0 {
                write!(f, " hint={hint}")?;
            }
            f.write_str(",")?;
            target(func, f, then)?;
            f.write_str(",")?;
            target(func, f, other)?;
        }
        Term::Switch { value, cases, other, .. } => {
            write!(f, "  switch {value},")?;
            target(func, f, other)?;
            for (n, t) in cases {
                write!(f, ", {n:#x}")?;
                target(func, f, t)?;
            }
        }
    }
    writeln!(f)
}

impl Display for Function {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let m = &self.fp;
        let nan = match m.nan_rule {
            NanRule::Arm => "arm",
            NanRule::X86 => "x86",
            NanRule::Ppc => "ppc",
        };
        write!(f, "function round={} nan={nan}", m.rounding)?;
        let flags = [
            (m.default_nan, "default_nan"),
            (m.flush, "flush"),
            (m.flush_f16, "flush_f16"),
            (m.alt_half, "alt_half"),
            (m.daz, "daz"),
        ];
        for (_, name) in flags.iter().filter(|x| x.0) {
            write!(f, " {name}")?;
        }
        writeln!(f)?;
        for (n, b) in self.blocks.iter().enumerate() {
            block(self, f, n, b)?;
        }
        Ok(())
    }
}
