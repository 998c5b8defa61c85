//! Fixed-point storage access (Book I, 3.3.2–3.3.7), hashes of return addresses (3.3.17). No register is written before the
//! last access of an instruction, so that a fault finds the state unchanged.

use super::{Flow, Insn, Pattern, Translator, pat, prefixed};
use crate::config::Isa;
use crate::exception::program;
use crate::helpers::{integer as calls, system};
use crate::spr;
use crate::state::slots;
use rhea_ir::{Cond, MemOp, Op, Type, Value};

pub static PATTERNS: &[Pattern] = &[
    pat("lwz", "10000 0 RT:5 RA:5 D:16", lwz),
    pat("lwzu", "10000 1 RT:5 RA:5 D:16", lwz),
    pat("lbz", "10001 0 RT:5 RA:5 D:16", lbz),
    pat("lbzu", "10001 1 RT:5 RA:5 D:16", lbz),
    pat("stw", "10010 0 RS:5 RA:5 D:16", stw),
    pat("stwu", "10010 1 RS:5 RA:5 D:16", stw),
    pat("stb", "10011 0 RS:5 RA:5 D:16", stb),
    pat("stbu", "10011 1 RS:5 RA:5 D:16", stb),
    pat("lhz", "10100 0 RT:5 RA:5 D:16", lhz),
    pat("lhzu", "10100 1 RT:5 RA:5 D:16", lhz),
    pat("lha", "10101 0 RT:5 RA:5 D:16", lha),
    pat("lhau", "10101 1 RT:5 RA:5 D:16", lha),
    pat("sth", "10110 0 RS:5 RA:5 D:16", sth),
    pat("sthu", "10110 1 RS:5 RA:5 D:16", sth),
    pat("lmw", "101110 RT:5 RA:5 D:16", lmw),
    pat("stmw", "101111 RS:5 RA:5 D:16", stmw),
    pat("ld", "111010 RT:5 RA:5 DS:14 00", ld),
    pat("ldu", "111010 RT:5 RA:5 DS:14 01", ld),
    pat("lwa", "111010 RT:5 RA:5 DS:14 10", lwa),
    pat("std", "111110 RS:5 RA:5 DS:14 00", std),
    pat("stdu", "111110 RS:5 RA:5 DS:14 01", std),
    pat("stq", "111110 RS:5 RA:5 DS:14 10", stq),
    pat("lq", "111000 RT:5 RA:5 DQ:12 xxxx", lq),
    pat("ldx", "011111 RT:5 RA:5 RB:5 0000010101 x", ldx),
    pat("ldux", "011111 RT:5 RA:5 RB:5 0000110101 x", ldx),
    pat("lwzx", "011111 RT:5 RA:5 RB:5 0000010111 x", lwzx),
    pat("lwzux", "011111 RT:5 RA:5 RB:5 0000110111 x", lwzx),
    pat("lbzx", "011111 RT:5 RA:5 RB:5 0001010111 x", lbzx),
    pat("lbzux", "011111 RT:5 RA:5 RB:5 0001110111 x", lbzx),
    pat("lhzx", "011111 RT:5 RA:5 RB:5 0100010111 x", lhzx),
    pat("lhzux", "011111 RT:5 RA:5 RB:5 0100110111 x", lhzx),
    pat("lhax", "011111 RT:5 RA:5 RB:5 0101010111 x", lhax),
    pat("lhaux", "011111 RT:5 RA:5 RB:5 0101110111 x", lhax),
    pat("lwax", "011111 RT:5 RA:5 RB:5 0101010101 x", lwax),
    pat("lwaux", "011111 RT:5 RA:5 RB:5 0101110101 x", lwax),
    pat("stdx", "011111 RS:5 RA:5 RB:5 0010010101 x", stdx),
    pat("stdux", "011111 RS:5 RA:5 RB:5 0010110101 x", stdx),
    pat("stwx", "011111 RS:5 RA:5 RB:5 0010010111 x", stwx),
    pat("stwux", "011111 RS:5 RA:5 RB:5 0010110111 x", stwx),
    pat("stbx", "011111 RS:5 RA:5 RB:5 0011010111 x", stbx),
    pat("stbux", "011111 RS:5 RA:5 RB:5 0011110111 x", stbx),
    pat("sthx", "011111 RS:5 RA:5 RB:5 0110010111 x", sthx),
    pat("sthux", "011111 RS:5 RA:5 RB:5 0110110111 x", sthx),
    pat("lhbrx", "011111 RT:5 RA:5 RB:5 1100010110 x", load_reversed),
    pat("lwbrx", "011111 RT:5 RA:5 RB:5 1000010110 x", load_reversed),
    pat("ldbrx", "011111 RT:5 RA:5 RB:5 1000010100 x", load_reversed),
    pat("sthbrx", "011111 RS:5 RA:5 RB:5 1110010110 x", store_reversed),
    pat("stwbrx", "011111 RS:5 RA:5 RB:5 1010010110 x", store_reversed),
    pat("stdbrx", "011111 RS:5 RA:5 RB:5 1010010100 x", store_reversed),
    pat("lswi", "011111 RT:5 RA:5 NB:5 1001010101 x", lswi),
    pat("lswx", "011111 RT:5 RA:5 RB:5 1000010101 x", lswx),
    pat("stswi", "011111 RS:5 RA:5 NB:5 1011010101 x", stswi),
    pat("stswx", "011111 RS:5 RA:5 RB:5 1010010101 x", stswx),
    pat("hashst", "011111 D:5 RA:5 RB:5 1011010010 DX", hashst).since(Isa::V3_1),
    pat("hashchk", "011111 D:5 RA:5 RB:5 1011110010 DX", hashchk).since(Isa::V3_1),
    pat("hashstp", "011111 D:5 RA:5 RB:5 1010010010 DX", hashst).since(Isa::V3_1).privileged(),
    pat("hashchkp", "011111 D:5 RA:5 RB:5 1010110010 DX", hashchk).since(Isa::V3_1).privileged(),
];

pub static PREFIXED: &[Pattern] = &[
    prefixed("plwz", "000001 10 0 xx R xx d0:18 100000 RT:5 RA:5 d1:16", plwz),
    prefixed("plbz", "000001 10 0 xx R xx d0:18 100010 RT:5 RA:5 d1:16", plbz),
    prefixed("plhz", "000001 10 0 xx R xx d0:18 101000 RT:5 RA:5 d1:16", plhz),
    prefixed("plha", "000001 10 0 xx R xx d0:18 101010 RT:5 RA:5 d1:16", plha),
    prefixed("plwa", "000001 00 0 xx R xx d0:18 101001 RT:5 RA:5 d1:16", plwa),
    prefixed("pld", "000001 00 0 xx R xx d0:18 111001 RT:5 RA:5 d1:16", pld),
    prefixed("plq", "000001 00 0 xx R xx d0:18 111000 RT:5 RA:5 d1:16", plq),
    prefixed("pstw", "000001 10 0 xx R xx d0:18 100100 RS:5 RA:5 d1:16", pstw),
    prefixed("pstb", "000001 10 0 xx R xx d0:18 100110 RS:5 RA:5 d1:16", pstb),
    prefixed("psth", "000001 10 0 xx R xx d0:18 101100 RS:5 RA:5 d1:16", psth),
    prefixed("pstd", "000001 00 0 xx R xx d0:18 111101 RS:5 RA:5 d1:16", pstd),
    prefixed("pstq", "000001 00 0 xx R xx d0:18 111100 RS:5 RA:5 d1:16", pstq),
];

/// Size (log2) and extension of an access.
#[derive(Clone, Copy)]
struct Kind {
    size: u32,
    signed: bool,
    load: bool,
}

const fn load(size: u32) -> Kind {
    Kind { size, signed: false, load: true }
}
const fn load_signed(size: u32) -> Kind {
    Kind { size, signed: true, load: true }
}
const fn store(size: u32) -> Kind {
    Kind { size, signed: false, load: false }
}

impl Translator<'_, '_> {
    fn access(&mut self, kind: Kind, m: MemOp, rt: u32, addr: Value, disp: i64) {
        if kind.load {
            let v = self.b.load(Type::I64, if kind.signed { m.signed() } else { m }, addr, disp);
            self.set_r(rt, v);
        } else {
            let v = self.r(rt);
            let v = if kind.size == 3 { v } else { self.b.trunc(v) };
            self.b.store(m, addr, disp, v);
        }
    }
    /// Update forms with RA = 0, and loads with RA = RT, are invalid.
    fn update_ok(&self, kind: Kind, i: Insn) -> bool {
        i.ra() != 0 && !(kind.load && i.ra() == i.rt())
    }
    /// D and DS forms.
    fn d_form(&mut self, i: Insn, kind: Kind, disp: i64, update: bool) -> Flow {
        if update && !self.update_ok(kind, i) {
            return Flow::Illegal;
        }
        let base = self.r0(i.ra());
        let m = self.mem_op(kind.size);
        if self.mode.sf() {
            self.access(kind, m, i.rt(), base, disp);
        } else {
            let (a, d) = self.ea_disp(i.ra(), disp);
            self.access(kind, m, i.rt(), a, d);
        }
        if update {
            let v = self.add_imm(base, disp as u64);
            self.set_r(i.ra(), v);
        }
        Flow::Next
    }
    fn x_form(&mut self, i: Insn, kind: Kind, update: bool) -> Flow {
        if update && !self.update_ok(kind, i) {
            return Flow::Illegal;
        }
        let a = self.ea_indexed(i.ra(), i.rb());
        // The sum as the register gets it: the high word of an address that is not used for the access included.
        let sum = if self.mode.sf() || !update {
            a
        } else {
            let (x, y) = (self.r(i.ra()), self.r(i.rb()));
            self.b.add(x, y)
        };
        let m = self.mem_op(kind.size);
        self.access(kind, m, i.rt(), a, 0);
        if update {
            self.set_r(i.ra(), sum);
        }
        Flow::Next
    }
    fn prefixed_form(&mut self, i: Insn, kind: Kind) -> Flow {
        if !self.prefixed_form_ok(i) {
            return Flow::Illegal;
        }
        let (a, d) = self.ea_prefixed(i);
        let m = self.mem_op(kind.size);
        self.access(kind, m, i.rt(), a, d);
        Flow::Next
    }
    /// Alignment interrupt of an instruction at an address; ends the block.
    fn alignment(&mut self, a: Value) -> Flow {
        self.end_with(system::ALIGNMENT, &[a])
    }
}

/// The displacement of DS forms.
fn ds(i: Insn) -> i64 {
    i.si() & !3
}

macro_rules! forms {
    ($($d:ident $x:ident $p:ident $kind:expr;)*) => { $(
        fn $d(t: &mut Translator, i: Insn) -> Flow {
            t.d_form(i, $kind, i.si(), i.bit(5))
        }
        fn $x(t: &mut Translator, i: Insn) -> Flow {
            t.x_form(i, $kind, i.bit(25))
        }
        fn $p(t: &mut Translator, i: Insn) -> Flow {
            t.prefixed_form(i, $kind)
        }
    )* };
}

forms! {
    lwz lwzx plwz load(2);
    lbz lbzx plbz load(0);
    lhz lhzx plhz load(1);
    lha lhax plha load_signed(1);
    stw stwx pstw store(2);
    stb stbx pstb store(0);
    sth sthx psth store(1);
}

fn ld(t: &mut Translator, i: Insn) -> Flow {
    t.d_form(i, load(3), ds(i), i.bit(31))
}
fn ldx(t: &mut Translator, i: Insn) -> Flow {
    t.x_form(i, load(3), i.bit(25))
}
fn pld(t: &mut Translator, i: Insn) -> Flow {
    t.prefixed_form(i, load(3))
}
fn lwa(t: &mut Translator, i: Insn) -> Flow {
    t.d_form(i, load_signed(2), ds(i), false)
}
fn lwax(t: &mut Translator, i: Insn) -> Flow {
    t.x_form(i, load_signed(2), i.bit(25))
}
fn plwa(t: &mut Translator, i: Insn) -> Flow {
    t.prefixed_form(i, load_signed(2))
}
fn std(t: &mut Translator, i: Insn) -> Flow {
    t.d_form(i, store(3), ds(i), i.bit(31))
}
fn stdx(t: &mut Translator, i: Insn) -> Flow {
    t.x_form(i, store(3), i.bit(25))
}
fn pstd(t: &mut Translator, i: Insn) -> Flow {
    t.prefixed_form(i, store(3))
}

/// A quadword: the even register is its more significant half; in prefixed instructions, the half at the lower address. The
/// address must be a multiple of 16.
fn quadword(t: &mut Translator, i: Insn, load: bool, addr: Value, disp: i64) -> Flow {
    let m = t.mem_op(4).align(4).atomic();
    let swap = u32::from(t.len == 8 && t.mode.le());
    let (first, second) = (i.rt() + swap, i.rt() + 1 - swap);
    if load {
        let v = t.b.load(Type::I128, m, addr, disp);
        let high = t.b.op1(Op::Hi64, Type::I64, v, 0, 0);
        let low = t.b.op1(Op::Lo64, Type::I64, v, 0, 0);
        t.set_r(first, high);
        t.set_r(second, low);
    } else {
        let (high, low) = (t.r(first), t.r(second));
        let v = t.b.op2(Op::Concat, Type::I128, low, high, 0, 0);
        t.b.store(m, addr, disp, v);
    }
    Flow::Next
}

fn lq(t: &mut Translator, i: Insn) -> Flow {
    if i.rt() & 1 != 0 || i.rt() == i.ra() {
        return Flow::Illegal;
    }
    let (a, d) = t.ea_disp(i.ra(), i.si() & !15);
    quadword(t, i, true, a, d)
}
fn stq(t: &mut Translator, i: Insn) -> Flow {
    if i.rt() & 1 != 0 {
        return Flow::Illegal;
    }
    let (a, d) = t.ea_disp(i.ra(), ds(i));
    quadword(t, i, false, a, d)
}
fn plq(t: &mut Translator, i: Insn) -> Flow {
    if !t.prefixed_form_ok(i) || i.rt() & 1 != 0 || !i.pc_relative() && i.rt() == i.ra() {
        return Flow::Illegal;
    }
    let (a, d) = t.ea_prefixed(i);
    quadword(t, i, true, a, d)
}
fn pstq(t: &mut Translator, i: Insn) -> Flow {
    if !t.prefixed_form_ok(i) || i.rt() & 1 != 0 {
        return Flow::Illegal;
    }
    let (a, d) = t.ea_prefixed(i);
    quadword(t, i, false, a, d)
}

fn reversed(i: Insn) -> u32 {
    match i.field(21, 30) {
        790 | 918 => 1,
        534 | 662 => 2,
        _ => 3,
    }
}

fn load_reversed(t: &mut Translator, i: Insn) -> Flow {
    let a = t.ea_indexed(i.ra(), i.rb());
    let m = t.mem_op_reversed(reversed(i));
    t.access(load(reversed(i)), m, i.rt(), a, 0);
    Flow::Next
}
fn store_reversed(t: &mut Translator, i: Insn) -> Flow {
    let a = t.ea_indexed(i.ra(), i.rb());
    let m = t.mem_op_reversed(reversed(i));
    t.access(store(reversed(i)), m, i.rt(), a, 0);
    Flow::Next
}

/// Not in little-endian mode.
fn lmw(t: &mut Translator, i: Insn) -> Flow {
    let (a, d) = t.ea_disp(i.ra(), i.si());
    if t.mode.le() {
        let a = t.add_imm(a, d as u64);
        return t.alignment(a);
    }
    let m = t.mem_op(2);
    let values: Vec<Value> = (0..32 - i.rt()).map(|n| t.b.load(Type::I64, m, a, d + 4 * i64::from(n))).collect();
    for (n, v) in values.into_iter().enumerate() {
        t.set_r(i.rt() + n as u32, v);
    }
    Flow::Next
}
fn stmw(t: &mut Translator, i: Insn) -> Flow {
    let (a, d) = t.ea_disp(i.ra(), i.si());
    if t.mode.le() {
        let a = t.add_imm(a, d as u64);
        return t.alignment(a);
    }
    let m = t.mem_op(2);
    for n in 0..32 - i.rt() {
        let v = t.w(i.rt() + n);
        t.b.store(m, a, d + 4 * i64::from(n), v);
    }
    Flow::Next
}

/// Bytes that lswi and stswi move.
fn string_length(i: Insn) -> u32 {
    if i.rb() == 0 { 32 } else { i.rb() }
}

/// lswi with RA in the range of target registers is an invalid form: RA stays as it is.
fn lswi(t: &mut Translator, i: Insn) -> Flow {
    let n = string_length(i);
    let a = t.r0(i.ra());
    let a = t.ea(a);
    if t.mode.le() {
        return t.alignment(a);
    }
    let mut words = Vec::new();
    for first in (0..n).step_by(4) {
        let left = (n - first).min(4);
        let v = if left == 4 {
            t.b.load(Type::I64, t.mem_op(2), a, first.into())
        } else {
            let mut v = t.c64(0);
            for k in 0..left {
                let byte = t.b.load(Type::I64, t.mem_op(0), a, (first + k).into());
                let byte = t.shl(byte, 24 - 8 * k);
                v = t.b.or(v, byte);
            }
            v
        };
        words.push(v);
    }
    for (k, v) in words.into_iter().enumerate() {
        let to = (i.rt() + k as u32) & 31;
        if to != i.ra() || to == 0 {
            t.set_r(to, v);
        }
    }
    Flow::Next
}
fn stswi(t: &mut Translator, i: Insn) -> Flow {
    let n = string_length(i);
    let a = t.r0(i.ra());
    let a = t.ea(a);
    if t.mode.le() {
        return t.alignment(a);
    }
    for first in (0..n).step_by(4) {
        let v = t.w((i.rt() + first / 4) & 31);
        if n - first >= 4 {
            t.b.store(t.mem_op(2), a, first.into(), v);
            continue;
        }
        for k in 0..n - first {
            let byte = t.shr(v, 24 - 8 * k);
            t.b.store(t.mem_op(0), a, (first + k).into(), byte);
        }
    }
    Flow::Next
}

/// lswx, stswx: as many bytes as XER says, one after the other. What was moved before a fault is moved again.
fn string_indexed(t: &mut Translator, i: Insn, load: bool) -> Flow {
    let a = t.ea_indexed(i.ra(), i.rb());
    if t.mode.le() {
        return t.alignment(a);
    }
    let (step, done) = (t.b.new_block(), t.b.new_block());
    let zero = t.c64(0);
    t.b.set(slots::STRING_AT, zero);
    t.b.set(slots::STRING_EA, a);
    let count = string_count(t);
    let some = t.b.icmp(Cond::Ne, count, zero);
    t.b.end_inner_branch(some, step, done, 1);
    t.b.switch_to(step);
    let (k, a) = (t.b.get(slots::STRING_AT), t.b.get(slots::STRING_EA));
    let a = t.b.add(a, k);
    // What gives the address stays as it is in the invalid forms that load it.
    let kept = if load { (if i.ra() == 0 { i.rb() } else { i.ra() }) << 5 | i.rb() << 10 } else { 0 };
    let first = t.c32(i.rt() | kept);
    if load {
        let v = t.b.load(Type::I64, t.mem_op(0), a, 0);
        t.b.call(calls::PUT_BYTE, &[first, k, v]);
    } else {
        let v = t.b.call(calls::GET_BYTE, &[first, k]);
        let v = t.b.trunc(v);
        t.b.store(t.mem_op(0), a, 0, v);
    }
    let k = t.b.get(slots::STRING_AT);
    let k = t.add_imm(k, 1);
    t.b.set(slots::STRING_AT, k);
    let count = string_count(t);
    let more = t.b.icmp(Cond::Ult, k, count);
    t.b.end_inner_branch(more, step, done, 1);
    t.b.switch_to(done);
    Flow::Next
}
fn string_count(t: &mut Translator) -> Value {
    let x = t.b.get(slots::XER_REST);
    t.and_imm(x, crate::bits::xer::COUNT)
}
fn lswx(t: &mut Translator, i: Insn) -> Flow {
    string_indexed(t, i, true)
}
fn stswx(t: &mut Translator, i: Insn) -> Flow {
    string_indexed(t, i, false)
}

/// Aspects of DEXCR that enable hashes: problem state has its own half.
const NPHIE: u64 = 1 << 26;
const PRIVILEGED_NPHIE: u64 = 1 << 58;
const PRIVILEGED_PHIE: u64 = 1 << 57;

/// Runs `f` with address, displacement and digest of a hash instruction if those are enabled; else it does nothing.
fn hashed(t: &mut Translator, i: Insn, f: impl FnOnce(&mut Translator, Value, i64, Value)) {
    // One of the 64 doublewords before (RA).
    let disp = (i64::from(i.field(31, 31) << 5 | i.rt()) - 64) * 8;
    let privileged = !i.bit(24);
    let aspect = match (privileged, t.mode.pr()) {
        (true, _) => PRIVILEGED_PHIE,
        (_, true) => NPHIE,
        _ => PRIVILEGED_NPHIE,
    };
    let control = t.b.get(slots::spr(spr::DEXCR));
    let control = t.and_imm(control, aspect);
    let zero = t.c64(0);
    let enabled = t.b.icmp(Cond::Ne, control, zero);
    let (on, done) = (t.b.new_block(), t.b.new_block());
    t.b.end_inner_branch(enabled, on, done, 0);
    t.b.switch_to(on);
    let (a, b) = (t.r(i.ra()), t.r(i.rb()));
    let key = t.b.get(slots::spr(if privileged { spr::HASHPKEYR } else { spr::HASHKEYR }));
    let digest = t.b.call(calls::HASH, &[a, b, key]);
    let (a, disp) = if t.mode.sf() {
        (a, disp)
    } else {
        let a = t.add_imm(a, disp as u64);
        (t.ea(a), 0)
    };
    f(t, a, disp, digest);
    t.b.end_inner(done);
    t.b.switch_to(done);
}

/// The form with RA = 0 is invalid.
fn hashst(t: &mut Translator, i: Insn) -> Flow {
    if i.ra() == 0 {
        return Flow::Illegal;
    }
    hashed(t, i, |t, a, disp, digest| {
        let m = t.mem_op(3).align(3);
        t.b.store(m, a, disp, digest);
    });
    Flow::Next
}

fn hashchk(t: &mut Translator, i: Insn) -> Flow {
    if i.ra() == 0 {
        return Flow::Illegal;
    }
    hashed(t, i, |t, a, disp, digest| {
        let m = t.mem_op(3).align(3);
        let v = t.b.load(Type::I64, m, a, disp);
        let differs = t.b.icmp(Cond::Ne, v, digest);
        t.raise_if(differs, |t| {
            let cause = t.c64(program::TRAP);
            t.b.call(system::PROGRAM, &[cause]);
        });
    });
    Flow::Next
}
