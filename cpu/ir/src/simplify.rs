//! Algebraic simplification of one operation: constants folded, identities removed, flag tests turned into compares.

use crate::eval::eval_pure;
use crate::func::{Function, Inst, Value};
use crate::op::{Class, Cond, Op};
use crate::types::{Lane, Type};

/// What an operation turns out to be.
pub enum Simplified {
    Value(Value),
    Const(Type, u64),
    Inst(Inst),
}

fn inst1(op: Op, ty: Type, a: Value, aux: u32) -> Simplified {
    let mut i = Inst::new(op, ty);
    i.args[0] = a;
    i.aux = aux;
    Simplified::Inst(i)
}

fn inst2(op: Op, ty: Type, a: Value, b: Value, aux: u32) -> Simplified {
    let mut i = Inst::new(op, ty);
    i.args[0] = a;
    i.args[1] = b;
    i.aux = aux;
    Simplified::Inst(i)
}

/// A simpler equivalent of a pure operation, or `None`. An [`Simplified::Inst`] may need simplifying again. Only values
/// that dominate the operation (its arguments, transitively) appear in the result.
pub fn simplify(f: &Function, i: &Inst) -> Option<Simplified> {
    use Simplified as S;
    if i.op.class() != Class::Pure || i.op.arity() == 0 {
        return None;
    }
    let a = i.args[0];
    let b = i.args[1];
    let known = |v| f.as_const(v).filter(|&c| matches!(i.op, Op::Add | Op::Sub | Op::Copy) || !f.moves(c));
    let ca = known(a);
    let cb = if b.is_none() { None } else { known(b) };
    let arg_ty = f.ty(a);
    // Fold: all arguments constant and an integer-like result.
    if matches!(i.ty, Type::Bool | Type::I32 | Type::I64 | Type::F32 | Type::F64) {
        let mut x = [0u128; 3];
        let all = i.args().iter().enumerate().all(|(n, &v)| match known(v) {
            Some(c) => {
                x[n] = c as u128;
                true
            }
            None => false,
        });
        // What moves with the code gives what does too, or a distance.
        let moving = x.iter().filter(|&&c| f.moves(c as u64)).count();
        let follows = |r: u64| moving == 0 || f.moves(r) || i.op == Op::Sub && moving == 2 || i.op == Op::Copy;
        if all
            && let Some(r) = eval_pure(f, i, arg_ty, x)
            && follows(r as u64)
        {
            return Some(S::Const(i.ty, r as u64));
        }
    }
    let zero = |t: Type| Some(S::Const(t, 0));
    let ones = |t: Type, c: u64| {
        c == if t == Type::I32 {
            u32::MAX as u64
        } else if t == Type::Bool {
            1
        } else {
            u64::MAX
        }
    };
    // Constants go second.
    if i.op.commutes() && ca.is_some() && cb.is_none() {
        let mut n = *i;
        n.args.swap(0, 1);
        return Some(S::Inst(n));
    }
    match i.op {
        Op::Copy => Some(S::Value(a)),
        Op::Add | Op::Sub | Op::Or | Op::Xor | Op::Shl | Op::Shr | Op::Sar | Op::Rotr if cb == Some(0) => {
            Some(S::Value(a))
        }
        Op::Sub | Op::Xor if a == b => zero(i.ty),
        Op::AndNot if a == b => zero(i.ty),
        Op::AndNot if cb == Some(0) => Some(S::Value(a)),
        Op::And | Op::Or if a == b => Some(S::Value(a)),
        Op::And | Op::Mul if cb == Some(0) => zero(i.ty),
        Op::And if cb.is_some_and(|c| ones(i.ty, c)) => Some(S::Value(a)),
        Op::Mul if cb == Some(1) => Some(S::Value(a)),
        Op::UDiv | Op::SDiv if cb == Some(1) => Some(S::Value(a)),
        Op::Adc if known(i.args[2]) == Some(0) => Some(inst2(Op::Add, i.ty, a, b, 0)),
        Op::Sub if ca == Some(0) => Some(inst1(Op::Neg, i.ty, b, 0)),
        // (x + c1) + c2
        Op::Add if cb.is_some() => {
            let d = f.inst(a);
            if d.op == Op::Add
                && let Some(c1) = f.as_const(d.args[1])
            {
                // Needs a new constant: only when it folds to nothing.
                let sum = c1.wrapping_add(cb?);
                let sum = if i.ty == Type::I32 { sum & 0xffff_ffff } else { sum };
                return (sum == 0).then_some(S::Value(d.args[0]));
            }
            None
        }
        Op::Extr if i.imm == 0 => Some(S::Value(b)),
        Op::Extr if a == b => None,
        Op::Select => {
            let c = i.args[2];
            if let Some(v) = ca {
                return Some(S::Value(if v & 1 != 0 { b } else { c }));
            }
            if b == c {
                return Some(S::Value(b));
            }
            let d = f.inst(a);
            if d.op == Op::BoolNot {
                let mut n = *i;
                n.args = [d.args[0], c, b, Value::NONE];
                return Some(S::Inst(n));
            }
            None
        }
        Op::BoolNot => {
            let d = f.inst(a);
            match d.op {
                Op::BoolNot => Some(S::Value(d.args[0])),
                Op::ICmp | Op::CondFlags | Op::OrderIs => {
                    let mut n = *d;
                    n.aux = d.cond().invert() as u32;
                    Some(S::Inst(n))
                }
                _ => None,
            }
        }
        Op::ToBool => {
            let d = f.inst(a);
            (d.op == Op::FromBool).then(|| S::Value(d.args[0]))
        }
        Op::Not | Op::Neg | Op::Bswap | Op::Bitrev => {
            let d = f.inst(a);
            (d.op == i.op).then(|| S::Value(d.args[0]))
        }
        Op::Trunc => {
            let d = f.inst(a);
            match d.op {
                Op::Zext64 | Op::Sext64 => Some(S::Value(d.args[0])),
                Op::FromBool => Some(inst1(Op::FromBool, Type::I32, d.args[0], 0)),
                _ => None,
            }
        }
        Op::Sext | Op::Zext if i.imm as u32 >= arg_ty.bytes() * 8 => Some(S::Value(a)),
        Op::Zext => {
            // A load of that size is zero-extended already.
            let d = f.inst(a);
            let narrow = match d.op {
                Op::Load => !d.mem_op().is_signed() && d.mem_op().bytes() * 8 <= i.imm as u32,
                Op::Zext => d.imm <= i.imm,
                Op::Zext64 => i.imm >= 32,
                Op::FromBool => true,
                Op::VExtract => d.lane().bits() as u64 <= i.imm,
                _ => false,
            };
            narrow.then_some(S::Value(a))
        }
        Op::ICmp => simplify_icmp(f, i, ca, cb),
        Op::CondFlags => simplify_cond(f, i),
        Op::OrderIs => simplify_order(f, i),
        Op::FlagsToNzcv => {
            let d = f.inst(a);
            (d.op == Op::FlagsFromNzcv && is_clean_nzcv(f, d.args[0])).then(|| S::Value(d.args[0]))
        }
        Op::FlagsFromNzcv => {
            let d = f.inst(a);
            (d.op == Op::FlagsToNzcv).then(|| S::Value(d.args[0]))
        }
        Op::FlagsAdd | Op::FlagsCmp if cb == Some(0) => {
            let mut n = Inst::new(Op::FlagsLogic, i.ty);
            n.args[0] = a;
            (n.aux, n.imm) = (i.aux, i.imm);
            Some(S::Inst(n))
        }
        Op::Deposit if a == i.args[1] && i.imm & 0xff == 0 => Some(S::Value(a)),
        Op::Bitcast => {
            let d = f.inst(a);
            if arg_ty == i.ty {
                return Some(S::Value(a));
            }
            if d.op == Op::Bitcast {
                return Some(if f.ty(d.args[0]) == i.ty {
                    S::Value(d.args[0])
                } else {
                    inst1(Op::Bitcast, i.ty, d.args[0], 0)
                });
            }
            if d.op == Op::VExtract && d.imm == 0 && i.ty.bytes() == arg_ty.bytes() && d.lane().bytes() == i.ty.bytes()
            {
                return Some(inst1(Op::VExtract, i.ty, d.args[0], d.aux));
            }
            None
        }
        Op::Lo64 | Op::Hi64 => {
            let d = f.inst(a);
            (d.op == Op::Concat).then(|| S::Value(d.args[(i.op == Op::Hi64) as usize]))
        }
        Op::VExtract => simplify_extract(f, i),
        Op::VFromScalar => {
            let d = f.inst(a);
            // Re-inserting lane 0 of a vector known to have nothing above it.
            (d.op == Op::VExtract && d.imm == 0 && upper_zero(f, d.args[0], d.lane().bytes()))
                .then(|| S::Value(d.args[0]))
        }
        Op::VZeroHi if upper_zero(f, a, 8) => Some(S::Value(a)),
        Op::VAnd | Op::VOr if a == b => Some(S::Value(a)),
        Op::VShl | Op::VShr | Op::VSar if i.imm == 0 => Some(S::Value(a)),
        _ => None,
    }
}

fn is_clean_nzcv(f: &Function, v: Value) -> bool {
    f.inst(v).op == Op::FlagsToNzcv
}

/// True if all bytes of the vector from `bytes` on are known to be zero.
pub fn upper_zero(f: &Function, v: Value, bytes: u32) -> bool {
    let d = f.inst(v);
    match d.op {
        Op::VFromScalar => f.ty(d.args[0]).bytes() <= bytes,
        Op::VZeroHi | Op::VNarrow => bytes >= 8,
        Op::ConstV => {
            let c = f.consts.get(d.imm as usize).copied().unwrap_or(u128::MAX);
            c >> (bytes * 8) == 0
        }
        _ => false,
    }
}

fn simplify_extract(f: &Function, i: &Inst) -> Option<Simplified> {
    let d = f.inst(i.args[0]);
    let lane = i.lane();
    match d.op {
        Op::VFromScalar if i.imm == 0 => {
            let s = d.args[0];
            let st = f.ty(s);
            if st.bytes() == lane.bytes() {
                if st == i.ty {
                    return Some(Simplified::Value(s));
                }
                if i.ty.bytes() == st.bytes() {
                    return Some(inst1(Op::Bitcast, i.ty, s, 0));
                }
            }
            None
        }
        Op::VZeroHi if i.imm == 0 && lane.bytes() <= 8 => {
            let mut n = *i;
            n.args[0] = d.args[0];
            Some(Simplified::Inst(n))
        }
        Op::VDup if d.lane() == lane && f.ty(d.args[0]) == i.ty && i.ty.bytes() == lane.bytes() => {
            Some(Simplified::Value(d.args[0]))
        }
        Op::VInsert if d.lane() == lane => {
            if d.imm == i.imm {
                let s = d.args[1];
                (f.ty(s) == i.ty && i.ty.bytes() == lane.bytes()).then_some(Simplified::Value(s))
            } else {
                let mut n = *i;
                n.args[0] = d.args[0];
                Some(Simplified::Inst(n))
            }
        }
        Op::ConstV => {
            let c = f.consts.get(d.imm as usize).copied().unwrap_or(0);
            let bits = (c >> ((i.imm as u32 % lane.count()) * lane.bits())) as u64;
            let bits = if lane == Lane::D { bits } else { bits & ((1 << lane.bits()) - 1) };
            Some(Simplified::Const(i.ty, bits))
        }
        _ => None,
    }
}

fn simplify_icmp(f: &Function, i: &Inst, ca: Option<u64>, cb: Option<u64>) -> Option<Simplified> {
    let (a, b) = (i.args[0], i.args[1]);
    let cond = i.cond();
    if ca.is_some() && cb.is_none() && !matches!(cond, Cond::Mi | Cond::Pl | Cond::Vs | Cond::Vc) {
        return Some(inst2(Op::ICmp, Type::Bool, b, a, cond.swap() as u32));
    }
    if a == b {
        let r = matches!(cond, Cond::Eq | Cond::Ule | Cond::Uge | Cond::Sle | Cond::Sge | Cond::Pl | Cond::Vc);
        return Some(Simplified::Const(Type::Bool, r as u64));
    }
    if cb == Some(0) {
        match cond {
            Cond::Uge => return Some(Simplified::Const(Type::Bool, 1)),
            Cond::Ult => return Some(Simplified::Const(Type::Bool, 0)),
            Cond::Ugt => return Some(inst2(Op::ICmp, Type::Bool, a, b, Cond::Ne as u32)),
            Cond::Ule => return Some(inst2(Op::ICmp, Type::Bool, a, b, Cond::Eq as u32)),
            _ => {}
        }
        // Compare of a widened Bool with zero.
        let d = f.inst(a);
        if d.op == Op::FromBool {
            match cond {
                Cond::Ne => return Some(Simplified::Value(d.args[0])),
                Cond::Eq => return Some(inst1(Op::BoolNot, Type::Bool, d.args[0], 0)),
                _ => {}
            }
        }
    }
    None
}

/// Tests of an order whose making is seen.
fn simplify_order(f: &Function, i: &Inst) -> Option<Simplified> {
    let d = f.inst(i.args[0]);
    let cond = i.cond();
    match d.op {
        Op::Order => {
            let cond = match cond {
                c if d.aux == 0 => c,
                Cond::Slt => Cond::Ult,
                Cond::Sge => Cond::Uge,
                Cond::Sgt => Cond::Ugt,
                Cond::Sle => Cond::Ule,
                c => c,
            };
            Some(inst2(Op::ICmp, Type::Bool, d.args[0], d.args[1], cond as u32))
        }
        Op::OrderOf => Some(match cond {
            Cond::Slt => Simplified::Value(d.args[0]),
            Cond::Sgt => Simplified::Value(d.args[1]),
            Cond::Eq => Simplified::Value(d.args[2]),
            Cond::Sge => inst1(Op::BoolNot, Type::Bool, d.args[0], 0),
            Cond::Sle => inst1(Op::BoolNot, Type::Bool, d.args[1], 0),
            _ => inst1(Op::BoolNot, Type::Bool, d.args[2], 0),
        }),
        _ => None,
    }
}

fn simplify_cond(f: &Function, i: &Inst) -> Option<Simplified> {
    let d = f.inst(i.args[0]);
    let cond = i.cond();
    match d.op {
        // Mi/Pl/Vs/Vc are compares of the difference too.
        Op::FlagsSub if d.imm == 0 && !matches!(cond, Cond::CsOrZ | Cond::CcAndNz | Cond::Ps | Cond::Pc) => {
            Some(inst2(Op::ICmp, Type::Bool, d.args[0], d.args[1], cond as u32))
        }
        Op::FlagsCmp if d.imm == 0 => {
            // C is the borrow.
            let cond = match cond {
                Cond::Uge => Cond::Ult,
                Cond::Ult => Cond::Uge,
                Cond::CsOrZ => Cond::Ule,
                Cond::CcAndNz => Cond::Ugt,
                Cond::Ugt | Cond::Ule | Cond::Ps | Cond::Pc => return None,
                c => c,
            };
            Some(inst2(Op::ICmp, Type::Bool, d.args[0], d.args[1], cond as u32))
        }
        Op::Select if f.inst(d.args[1]).op == Op::Const && f.inst(d.args[2]).op == Op::Const => {
            // Conditional compare that fell to constants on both sides.
            let t = crate::eval::cond_flags(cond, f.inst(d.args[1]).imm as u32);
            let e = crate::eval::cond_flags(cond, f.inst(d.args[2]).imm as u32);
            match (t, e) {
                (true, true) => Some(Simplified::Const(Type::Bool, 1)),
                (false, false) => Some(Simplified::Const(Type::Bool, 0)),
                (true, false) => Some(Simplified::Value(d.args[0])),
                (false, true) => Some(inst1(Op::BoolNot, Type::Bool, d.args[0], 0)),
            }
        }
        Op::FlagsLogic => match cond {
            Cond::Ult | Cond::Ule if cond == Cond::Ult => Some(Simplified::Const(Type::Bool, 1)),
            // C = 0, so "lower or same" always holds and "higher", "carry set" never.
            Cond::Ule => Some(Simplified::Const(Type::Bool, 1)),
            Cond::Uge | Cond::Ugt | Cond::Vs => Some(Simplified::Const(Type::Bool, 0)),
            Cond::Vc => Some(Simplified::Const(Type::Bool, 1)),
            Cond::CsOrZ => Some(inst1(Op::CondFlags, Type::Bool, i.args[0], Cond::Eq as u32)),
            Cond::CcAndNz => Some(inst1(Op::CondFlags, Type::Bool, i.args[0], Cond::Ne as u32)),
            _ => None,
        },
        _ => None,
    }
}
