//! Functions around one operation.

use crate::operands::{Arg, Form, Rng, random_arg};
use rhea_ir::func::{ExitKind, Function, Inst, StateMap, Target, Term, Value};
use rhea_ir::guest::FpMode;
use rhea_ir::op::{Class, Cond, P_AND_A};
use rhea_ir::{Op, Slot, Type};

/// Slots of arguments, results, values kept alive around the operation, and what became of those.
pub const ARGS: u32 = 0x2000;
pub const RESULTS: u32 = 0x2100;
pub const LIVE: u32 = 0x2400;
pub const AFTER: u32 = 0x2800;

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Setting {
    Plain,
    /// Equal arguments.
    Same,
    /// The n-th argument is a constant.
    Const(usize),
    /// Many values live across the operation.
    Pressure,
    /// The result is an argument again, and used by whatever takes its type.
    Chain,
}

pub struct Maker {
    f: Function,
    out: Vec<(Slot, Value)>,
    next_out: u32,
}

impl Maker {
    fn new(fp: FpMode) -> Maker {
        let mut f = Function::new(fp);
        f.new_block(0x1000);
        f.blocks[0].guest_insns = 1;
        Maker { f, out: Vec::new(), next_out: RESULTS }
    }
    fn push(&mut self, i: Inst) -> Value {
        let v = self.f.push_inst(i);
        self.f.blocks[0].insts.push(v);
        v
    }
    fn inst(&mut self, op: Op, ty: Type, args: &[Value], aux: u32, imm: u64) -> Value {
        let mut i = Inst::new(op, ty);
        i.args[..args.len()].copy_from_slice(args);
        i.aux = aux;
        i.imm = imm;
        self.push(i)
    }
    fn get(&mut self, offset: u32, ty: Type) -> Value {
        self.inst(Op::GetSlot, ty, &[], 0, offset as u64)
    }
    fn constant(&mut self, ty: Type, bits: u128) -> Value {
        if matches!(ty, Type::V128 | Type::I128) {
            let k = self.f.const128(bits);
            return self.inst(Op::ConstV, ty, &[], 0, k);
        }
        self.inst(Op::Const, ty, &[], 0, bits as u64)
    }
    fn result(&mut self, v: Value) {
        let ty = self.f.ty(v);
        if ty != Type::Void {
            self.out.push((Slot::new(self.next_out as usize, ty), v));
            self.next_out += 16;
        }
    }
    fn state(&mut self, pc: u64, dirty: &[(Slot, Value)]) -> rhea_ir::StateId {
        let mut dirty = dirty.to_vec();
        dirty.sort_by_key(|d| d.0.offset);
        self.f.push_state(StateMap { pc, dirty: dirty.into() })
    }
    fn apply(&mut self, form: &Form, args: &[Value], dirty: &[(Slot, Value)]) -> Value {
        let mut i = Inst::new(form.op, form.ty);
        i.args[..args.len()].copy_from_slice(args);
        i.aux = form.aux;
        i.imm = form.imm;
        if form.op == Op::VShuffle {
            i.imm = self.f.const128(shuffle(form.imm));
        }
        if form.op.class() == Class::Mem {
            i.state = self.state(0x1000, dirty);
        }
        self.push(i)
    }
    fn finish(mut self) -> Function {
        let out = std::mem::take(&mut self.out);
        let s = self.state(0x1004, &out);
        self.f.blocks[0].term = Term::Jump(Target::Exit(ExitKind::Goto, s));
        self.f
    }
}

/// Byte selectors: the patterns the host has instructions for, and others.
pub fn shuffle(kind: u64) -> u128 {
    let mut m = [0u8; 16];
    for (k, m) in m.iter_mut().enumerate() {
        let k = k as u8;
        *m = match kind {
            0 => k + 5,
            1 => k / 2 + if k % 2 == 1 { 16 } else { 0 },
            2 => 8 + k / 4 / 2 * 4 + k % 4 + if k / 4 % 2 == 1 { 16 } else { 0 },
            3 => [3, 0, 2, 2][k as usize / 4] * 4 + k % 4,
            4 => 31 - k,
            5 => 15 - k,
            6 => k * 2 % 32,
            7 => {
                if k < 8 {
                    k
                } else {
                    255
                }
            }
            8 => k.wrapping_mul(37) % 48,
            9 => k / 8 * 16 + k % 8,
            10 => 8 + k / 8 * 16 + k % 8,
            _ => k + 16,
        };
    }
    u128::from_le_bytes(m)
}

pub fn make(form: &Form, shape: Setting, fp: FpMode, r: &mut Rng) -> Function {
    let mut m = Maker::new(fp);
    let address = form.op.class() == Class::Mem;
    let mut live = Vec::new();
    let pressure = shape == Setting::Pressure;
    let before = r.below(2) == 0;
    let mut load_live = |m: &mut Maker, r: &mut Rng| {
        for k in 0..14 + r.below(28) as u32 {
            let ty = r.pick(&[Type::I64, Type::I64, Type::I32, Type::F64, Type::V128, Type::F32]);
            let v = m.get(LIVE + 16 * k, ty);
            let v = match ty {
                Type::I64 | Type::I32 => {
                    let c = m.constant(ty, (k as u128) << 3 | 1);
                    m.inst(Op::Add, ty, &[v, c], 0, 0)
                }
                Type::V128 => m.inst(Op::VNot, ty, &[v], 0, 0),
                t => m.inst(Op::FNeg, t, &[v], 0, 0),
            };
            live.push((k, v));
        }
    };
    if pressure && before {
        load_live(&mut m, r);
    }
    let mut args = Vec::new();
    for (n, &a) in form.args.iter().enumerate() {
        let ty = a.ty();
        let v = match shape {
            Setting::Const(k) if k == n && !(address && n == 0) => {
                let c = random_arg(r, a);
                m.constant(ty, c)
            }
            Setting::Same if n > 0 && form.args[..n].iter().any(|b| b.ty() == ty) => {
                let k = form.args[..n].iter().position(|b| b.ty() == ty).unwrap_or(0);
                args[k]
            }
            _ => m.get(ARGS + 16 * n as u32, ty),
        };
        // The displacement leads to where the slot says.
        let v = if n == 0 && address && form.imm != 0 {
            let c = m.constant(Type::I64, form.imm as u128);
            m.inst(Op::Sub, Type::I64, &[v, c], 0, 0)
        } else {
            v
        };
        args.push(v);
    }
    if pressure && !before {
        load_live(&mut m, r);
    }
    let dirty: Vec<(Slot, Value)> = live
        .iter()
        .filter(|(k, _)| k % 3 == 0)
        .map(|&(k, v)| (Slot::new((AFTER + 0x300 + 16 * k) as usize, m.f.ty(v)), v))
        .collect();
    let v = m.apply(form, &args, &dirty);
    m.result(v);
    m.out.extend(dirty);
    for w in live.windows(2) {
        let ((k, a), (_, b)) = (w[0], w[1]);
        let (ta, tb) = (m.f.ty(a), m.f.ty(b));
        let v = match ta {
            Type::V128 if ta == tb => m.inst(Op::VXor, ta, &[a, b], 0, 0),
            t if t.is_int() && ta == tb => m.inst(Op::Sub, ta, &[a, b], 0, 0),
            _ => a,
        };
        m.out.push((Slot::new((AFTER + 16 * k) as usize, ta), v));
    }
    if shape == Setting::Chain && form.ty != Type::Void {
        let flags = matches!(
            form.op,
            Op::FlagsAdc
                | Op::FlagsSbb
                | Op::FlagsSub
                | Op::FlagsCmp
                | Op::FlagsAdd
                | Op::FlagsLogic
                | Op::FlagsFCmp
                | Op::FlagsFCom
                | Op::FlagsVTest
                | Op::FlagsFromNzcv
        );
        for (n, &a) in form.args.iter().enumerate() {
            if a.ty() == form.ty && !(address && n == 0) && (!matches!(a, Arg::Flags | Arg::AllFlags) || flags) {
                let mut args = args.clone();
                args[n] = v;
                let again = m.apply(form, &args, &[]);
                m.result(again);
            }
        }
        let cond = match form.ty {
            Type::Bool => Some(v),
            Type::I32 if flags => {
                // P only of what has it.
                let p = form.op == Op::FlagsFCom || form.op.class() == Class::Pure && form.aux == P_AND_A;
                let conds = if p { Cond::ALL.len() } else { Cond::Ps as usize };
                let (c, second) = (r.below(conds) as u32, r.below(conds) as u32);
                let other = m.inst(Op::CondFlags, Type::Bool, &[v], second, 0);
                let f = m.inst(Op::FromBool, Type::I64, &[other], 0, 0);
                m.result(f);
                Some(m.inst(Op::CondFlags, Type::Bool, &[v], c, 0))
            }
            Type::I32 | Type::I64 => Some(m.inst(Op::ToBool, Type::Bool, &[v], 0, 0)),
            Type::V128 => Some(m.inst(Op::VAnyTrue, Type::Bool, &[v], 0, 0)),
            _ => None,
        };
        if let Some(c) = cond {
            if flags && r.below(2) == 0 {
                // Flags that only conditions use need not exist.
                m.out.retain(|o| o.1 != v);
            }
            let (x, y) = (m.get(LIVE, Type::I64), m.get(LIVE + 16, Type::I64));
            let s = m.inst(Op::Select, Type::I64, &[c, x, y], 0, 0);
            m.result(s);
            let n = m.inst(Op::BoolNot, Type::Bool, &[c], 0, 0);
            let (p, q) = (m.get(LIVE + 32, Type::F64), m.get(LIVE + 48, Type::F64));
            let s = m.inst(Op::Select, Type::F64, &[n, p, q], 0, 0);
            m.result(s);
            // And a branch.
            let out = m.out.clone();
            let then = m.state(0x1004, &out);
            let other = m.state(0x1008, &out);
            let mut f = m.f;
            let (then, other) = (Target::Exit(ExitKind::Goto, then), Target::Exit(ExitKind::Goto, other));
            f.blocks[0].term = Term::Branch { cond: c, then, other, hint: r.below(3) as i8 - 1 };
            return f;
        }
    }
    m.finish()
}
