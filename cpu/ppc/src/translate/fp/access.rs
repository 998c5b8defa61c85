//! Floating-point loads and stores (Book I, 4.6.2–4.6.4).

use crate::state::slots;
use crate::translate::{Flow, Insn, Translator};
use rhea_ir::{Lane, Op, Type, Value};

/// Addressing of an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::translate) enum Mode {
    D,
    /// With update.
    Du,
    Ds,
    X,
    Xu,
    Prefixed,
}

/// Address and displacement; `None`: an invalid form. The address to update RA with, if any, comes third.
pub(in crate::translate) fn address(t: &mut Translator, i: Insn, mode: Mode) -> Option<(Value, i64, Option<Value>)> {
    if matches!(mode, Mode::Du | Mode::Xu) && i.ra() == 0 || mode == Mode::Prefixed && !t.prefixed_form_ok(i) {
        return None;
    }
    Some(match mode {
        Mode::D => {
            let (a, d) = t.ea_disp(i.ra(), i.si());
            (a, d, None)
        }
        Mode::Ds => {
            let (a, d) = t.ea_disp(i.ra(), i.si() & !3);
            (a, d, None)
        }
        Mode::Prefixed => {
            let (a, d) = t.ea_prefixed(i);
            (a, d, None)
        }
        Mode::X => (t.ea_indexed(i.ra(), i.rb()), 0, None),
        Mode::Du => {
            let base = t.r(i.ra());
            let sum = t.add_imm(base, i.si() as u64);
            let (a, d) = t.ea_disp(i.ra(), i.si());
            (a, d, Some(sum))
        }
        Mode::Xu => {
            let (a, b) = (t.r(i.ra()), t.r(i.rb()));
            let sum = t.b.add(a, b);
            (t.ea(sum), 0, Some(sum))
        }
    })
}

fn update(t: &mut Translator, i: Insn, v: Option<Value>) {
    if let Some(v) = v {
        let v = t.ea(v);
        t.b.set(slots::gpr(i.ra()), v);
    }
}

/// A single from storage as a register has it.
pub(in crate::translate) fn load_single(t: &mut Translator, a: Value, d: i64) -> Value {
    let m = t.mem_op(2);
    let v = t.b.load(Type::F32, m, a, d);
    t.b.op1(Op::FExtend, Type::F64, v, 1, 0)
}

/// The register's value as it is stored as a single.
pub(in crate::translate) fn store_single(t: &mut Translator, reg: u32, a: Value, d: i64) {
    let v = t.f64(reg);
    let v = t.b.op1(Op::FNarrow, Type::F32, v, 1, 0);
    let m = t.mem_op(2);
    t.b.store(m, a, d, v);
}

pub(super) fn load(t: &mut Translator, i: Insn, mode: Mode, single: bool) -> Flow {
    let Some((a, d, new)) = address(t, i, mode) else { return Flow::Illegal };
    let v = if single {
        load_single(t, a, d)
    } else {
        let m = t.mem_op(3);
        t.b.load(Type::F64, m, a, d)
    };
    t.set_f(i.rt(), v);
    update(t, i, new);
    Flow::Next
}

pub(super) fn store(t: &mut Translator, i: Insn, mode: Mode, single: bool) -> Flow {
    let Some((a, d, new)) = address(t, i, mode) else { return Flow::Illegal };
    if single {
        store_single(t, i.rt(), a, d);
    } else {
        let v = t.f64(i.rt());
        let m = t.mem_op(3);
        t.b.store(m, a, d, v);
    }
    update(t, i, new);
    Flow::Next
}

/// lfiwax, lfiwzx.
pub(super) fn load_word(t: &mut Translator, i: Insn, signed: bool) -> Flow {
    let a = t.ea_indexed(i.ra(), i.rb());
    let m = if signed { t.mem_op(2).signed() } else { t.mem_op(2) };
    let v = t.b.load(Type::I64, m, a, 0);
    t.set_f(i.rt(), v);
    Flow::Next
}

/// stfiwx.
pub(super) fn store_word(t: &mut Translator, i: Insn) -> Flow {
    let a = t.ea_indexed(i.ra(), i.rb());
    let v = t.vsr(i.rt());
    let v = t.b.vextract(Type::I32, Lane::S, v, 0);
    let m = t.mem_op(2);
    t.b.store(m, a, 0, v);
    Flow::Next
}

/// lfdp, stfdp and the indexed forms: an even-odd pair of registers.
pub(super) fn pair(t: &mut Translator, i: Insn, mode: Mode, store: bool) -> Flow {
    let f = i.rt();
    if f & 1 != 0 {
        return Flow::Illegal;
    }
    let Some((a, d, _)) = address(t, i, mode) else { return Flow::Illegal };
    // In little-endian order the odd register comes first.
    let (first, second) = if t.mode.le() { (f + 1, f) } else { (f, f + 1) };
    let m = t.mem_op(3);
    if store {
        let (p, q) = (t.f64(first), t.f64(second));
        // Nothing is stored if the second part faults.
        t.b.probe_write(m, a, d.wrapping_add(8));
        t.b.store(m, a, d, p);
        t.b.store(m, a, d.wrapping_add(8), q);
    } else {
        let p = t.b.load(Type::F64, m, a, d);
        let q = t.b.load(Type::F64, m, a, d.wrapping_add(8));
        t.set_f(first, p);
        t.set_f(second, q);
    }
    Flow::Next
}
