//! Loads and stores (Book I, 7.6.1).

use crate::exception::Vector;
use crate::translate::fp::access::{Mode, address, load_single, store_single};
use crate::translate::{Flow, Insn, Translator};
use rhea_ir::{Lane, Type};

/// Address for DQ-form: the displacement without its low four bits.
fn quad_address(t: &mut Translator, i: Insn, mode: Mode) -> Option<(rhea_ir::Value, i64)> {
    match mode {
        Mode::D => Some(t.ea_disp(i.ra(), i.si() & !15)),
        _ => address(t, i, mode).map(|(a, d, _)| (a, d)),
    }
}

/// lxv, lxvx, plxv and the stores.
pub(super) fn quad(t: &mut Translator, i: Insn, mode: Mode, reg: u32, store: bool) -> Flow {
    if mode == Mode::Prefixed && !t.prefixed_form_ok(i) {
        return Flow::Illegal;
    }
    if let Some(f) = t.unavailable_for(reg, Vector::VsxUnavailable) {
        return f;
    }
    let Some((a, d)) = quad_address(t, i, mode) else { return Flow::Illegal };
    if store {
        let v = t.vsr(reg);
        t.store_quad(a, d, v);
    } else {
        let v = t.load_quad(a, d);
        t.set_vsr(reg, v);
    }
    Flow::Next
}

/// lxvp, lxvpx, plxvp and the stores: an even-odd pair.
pub(super) fn pair(t: &mut Translator, i: Insn, mode: Mode, store: bool) -> Flow {
    if mode == Mode::Prefixed && !t.prefixed_form_ok(i) {
        return Flow::Illegal;
    }
    let reg = i.field(10, 10) << 5 | i.field(6, 9) << 1;
    let Some((a, d)) = quad_address(t, i, mode) else { return Flow::Illegal };
    // In little-endian order the second register comes first.
    let (first, second) = if t.mode.le() { (reg + 1, reg) } else { (reg, reg + 1) };
    let next = d.wrapping_add(16);
    if store {
        let (v, w) = (t.vsr(first), t.vsr(second));
        let m = t.mem_op(4);
        t.b.probe_write(m, a, next);
        t.store_quad(a, d, v);
        t.store_quad(a, next, w);
    } else {
        let v = t.load_quad(a, d);
        let w = t.load_quad(a, next);
        t.set_vsr(first, v);
        t.set_vsr(second, w);
    }
    Flow::Next
}

/// lxvd2x, lxvw4x, lxvh8x, lxvb16x and the stores: elements of `size` bytes, each in the current byte order.
pub(super) fn elements(t: &mut Translator, i: Insn, size: u8, store: bool) -> Flow {
    if size < 4
        && let Some(f) = t.unavailable_for(i.xt(), Vector::VsxUnavailable)
    {
        return f;
    }
    let a = t.ea_indexed(i.ra(), i.rb());
    if !t.mode.le() {
        if store {
            let v = t.vsr(i.xt());
            t.store_quad(a, 0, v);
        } else {
            let v = t.load_quad(a, 0);
            t.set_vsr(i.xt(), v);
        }
        return Flow::Next;
    }
    // Which byte of memory the host's byte of the register is; the map is its own inverse.
    let host: [u8; 16] = std::array::from_fn(|n| {
        let k = n as u8 ^ 7;
        k / size * size + size - 1 - k % size
    });
    let m = t.mem_op(4);
    if store {
        let v = t.vsr(i.xt());
        let mut inverse = [0; 16];
        for (n, &m) in host.iter().enumerate() {
            inverse[m as usize & 15] = n as u8;
        }
        let v = t.b.shuffle(v, v, inverse);
        t.b.store(m, a, 0, v);
    } else {
        let v = t.b.load(Type::V128, m, a, 0);
        let v = t.b.shuffle(v, v, host);
        t.set_vsr(i.xt(), v);
    }
    Flow::Next
}

/// lxvdsx, lxvwsx.
pub(super) fn splat(t: &mut Translator, i: Insn, lane: Lane) -> Flow {
    if lane == Lane::S
        && let Some(f) = t.unavailable_for(i.xt(), Vector::VsxUnavailable)
    {
        return f;
    }
    let a = t.ea_indexed(i.ra(), i.rb());
    let m = t.mem_op(lane as u32);
    let v = t.b.load(if lane == Lane::D { Type::I64 } else { Type::I32 }, m, a, 0);
    let v = t.b.vdup(lane, v);
    t.set_vsr(i.xt(), v);
    Flow::Next
}

/// What a scalar load or store moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scalar {
    Double,
    Single,
    /// log2 of the bytes; loads extend with zeros.
    Int(u32),
    WordSigned,
}

pub(super) fn scalar(t: &mut Translator, i: Insn, what: Scalar, store: bool) -> Flow {
    if matches!(what, Scalar::Int(0 | 1))
        && let Some(f) = t.unavailable_for(i.xt(), Vector::VsxUnavailable)
    {
        return f;
    }
    let a = t.ea_indexed(i.ra(), i.rb());
    let reg = i.xt();
    if store {
        match what {
            Scalar::Single => store_single(t, reg, a, 0),
            Scalar::Double => {
                let v = t.f64(reg);
                let m = t.mem_op(3);
                t.b.store(m, a, 0, v);
            }
            _ => {
                let size = if let Scalar::Int(n) = what { n } else { 2 };
                let v = t.fbits(reg);
                let m = t.mem_op(size);
                t.b.store(m, a, 0, v);
            }
        }
        return Flow::Next;
    }
    let v = match what {
        Scalar::Single => load_single(t, a, 0),
        Scalar::Double => {
            let m = t.mem_op(3);
            t.b.load(Type::F64, m, a, 0)
        }
        Scalar::Int(n) => {
            let m = t.mem_op(n);
            t.b.load(Type::I64, m, a, 0)
        }
        Scalar::WordSigned => {
            let m = t.mem_op(2).signed();
            t.b.load(Type::I64, m, a, 0)
        }
    };
    t.set_f(reg, v);
    Flow::Next
}

/// lxsd, lxssp, stxsd, stxssp and prefixed forms: VSRs 32–63.
pub(super) fn high(t: &mut Translator, i: Insn, mode: Mode, single: bool, store: bool) -> Flow {
    if mode == Mode::Prefixed && !t.prefixed_form_ok(i) {
        return Flow::Illegal;
    }
    let Some((a, d, _)) = address(t, i, mode) else { return Flow::Illegal };
    let reg = 32 + i.rt();
    match (single, store) {
        (true, true) => store_single(t, reg, a, d),
        (true, false) => {
            let v = load_single(t, a, d);
            t.set_f(reg, v);
        }
        (false, true) => {
            let v = t.f64(reg);
            let m = t.mem_op(3);
            t.b.store(m, a, d, v);
        }
        (false, false) => {
            let m = t.mem_op(3);
            let v = t.b.load(Type::F64, m, a, d);
            t.set_f(reg, v);
        }
    }
    Flow::Next
}

/// lxvrbx and its like: the right end of the register.
pub(super) fn rightmost(t: &mut Translator, i: Insn, size: u32, store: bool) -> Flow {
    if let Some(f) = t.unavailable_for(i.xt(), Vector::VsxUnavailable) {
        return f;
    }
    let a = t.ea_indexed(i.ra(), i.rb());
    let m = t.mem_op(size);
    if store {
        let v = t.vsr(i.xt());
        let v = t.doubleword(v, 1);
        t.b.store(m, a, 0, v);
    } else {
        let v = t.b.load(Type::I64, m, a, 0);
        let v = t.b.vfromscalar(v);
        let v = t.swap(v);
        t.set_vsr(i.xt(), v);
    }
    Flow::Next
}
