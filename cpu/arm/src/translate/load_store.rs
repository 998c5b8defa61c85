//! Loads and stores of single registers and pairs, general and FP/SIMD (C4.1.97). No register is written before the
//! last access of an instruction, so that a fault finds the state unchanged.

use super::int_reg::extended;
use super::pauth::{Key, auth};
use super::{Flow, Insn, Pattern, Translator, pat};
use crate::config::Feature;
use rhea_ir::{Lane, MemOp, Type, Value};

pub static PATTERNS: &[Pattern] = &[
    pat("ldr_literal", "opc:2 011 0 00 imm19:19 Rt:5", literal),
    pat("ldr_literal_fp", "opc:2 011 1 00 imm19:19 Rt:5", literal_fp).fp(),
    pat("ldst_unscaled", "size:2 111 0 00 opc:2 0 imm9:9 00 Rn:5 Rt:5", unscaled),
    pat("ldst_post", "size:2 111 0 00 opc:2 0 imm9:9 01 Rn:5 Rt:5", indexed),
    pat("ldst_unprivileged", "size:2 111 0 00 opc:2 0 imm9:9 10 Rn:5 Rt:5", unprivileged),
    pat("ldst_pre", "size:2 111 0 00 opc:2 0 imm9:9 11 Rn:5 Rt:5", indexed),
    pat("ldst_reg", "size:2 111 0 00 opc:2 1 Rm:5 option:3 S 10 Rn:5 Rt:5", register),
    pat("ldst_imm", "size:2 111 0 01 opc:2 imm12:12 Rn:5 Rt:5", unsigned),
    pat("ldst_fp_unscaled", "size:2 111 1 00 opc:2 0 imm9:9 00 Rn:5 Rt:5", fp_unscaled).fp(),
    pat("ldst_fp_post", "size:2 111 1 00 opc:2 0 imm9:9 01 Rn:5 Rt:5", fp_indexed).fp(),
    pat("ldst_fp_pre", "size:2 111 1 00 opc:2 0 imm9:9 11 Rn:5 Rt:5", fp_indexed).fp(),
    pat("ldst_fp_reg", "size:2 111 1 00 opc:2 1 Rm:5 option:3 S 10 Rn:5 Rt:5", fp_register).fp(),
    pat("ldst_fp_imm", "size:2 111 1 01 opc:2 imm12:12 Rn:5 Rt:5", fp_unsigned).fp(),
    pat("ldst_pair", "opc:2 101 0 0 mode:2 L imm7:7 Rt2:5 Rn:5 Rt:5", pair),
    pat("ldst_fp_pair", "opc:2 101 1 0 mode:2 L imm7:7 Rt2:5 Rn:5 Rt:5", fp_pair).fp(),
    pat("ldra", "11 111 0 00 M S 1 imm9:9 W 1 Rn:5 Rt:5", ldra).needs(Feature::Pauth),
];

/// What a general-register access of `size` and `opc` does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Store,
    Load,
    /// Sign-extending to 64 bits.
    Signed64,
    Signed32,
    Prefetch,
}

fn kind(i: Insn) -> Option<Kind> {
    Some(match (i.bits(22, 2), i.bits(30, 2)) {
        (0, _) => Kind::Store,
        (1, _) => Kind::Load,
        (2, 3) => Kind::Prefetch,
        (2, _) => Kind::Signed64,
        (_, 0 | 1) => Kind::Signed32,
        _ => return None,
    })
}

impl Translator<'_, '_> {
    /// The value of a store of `1 << size` bytes from Rt.
    fn stored(&mut self, size: u32, rt: u32) -> Value {
        if size == 3 { self.x(rt) } else { self.w(rt) }
    }

    /// Loads as the kind says, giving what is written to Xt.
    fn load_general(&mut self, kind: Kind, m: MemOp, addr: Value, disp: i64) -> Value {
        match kind {
            Kind::Signed32 => {
                let v = self.b.load(Type::I32, m.signed(), addr, disp);
                self.b.zext64(v)
            }
            Kind::Signed64 => self.b.load(Type::I64, m.signed(), addr, disp),
            _ => self.b.load(Type::I64, m, addr, disp),
        }
    }

    /// Loads `1 << size` bytes as the new value of a vector register, the rest being zero.
    fn load_vector(&mut self, size: u32, m: MemOp, addr: Value, disp: i64) -> Value {
        let ty = match size {
            4 => return self.b.load(Type::V128, m, addr, disp),
            3 => Type::F64,
            2 => Type::F32,
            _ => Type::I32,
        };
        let v = self.b.load(ty, m, addr, disp);
        self.b.vfromscalar(v)
    }

    fn store_vector(&mut self, size: u32, m: MemOp, addr: Value, disp: i64, n: u32) {
        let v = self.v(n);
        let v = match size {
            4 => v,
            3 => self.b.vextract(Type::F64, Lane::D, v, 0),
            2 => self.b.vextract(Type::F32, Lane::S, v, 0),
            s => self.b.vextract(Type::I32, Lane::from_size(s), v, 0),
        };
        self.b.store(m, addr, disp, v);
    }

    /// One access of a general register.
    fn access(&mut self, kind: Kind, m: MemOp, rt: u32, addr: Value, disp: i64) {
        if kind == Kind::Store {
            let v = self.stored(m.size_log2(), rt);
            self.b.store(m, addr, disp, v);
        } else {
            let v = self.load_general(kind, m, addr, disp);
            self.set_x(rt, v);
        }
    }
    /// One access of a vector register.
    fn fp_access(&mut self, load: bool, size: u32, rt: u32, addr: Value, disp: i64) {
        let m = self.mem_op(size);
        if load {
            let v = self.load_vector(size, m, addr, disp);
            self.set_v(rt, v);
        } else {
            self.store_vector(size, m, addr, disp, rt);
        }
    }

    /// Adds to the base register after the access. SP moved by a multiple of 16 stays aligned.
    fn write_back(&mut self, n: u32, base: Value, imm: i64) {
        let v = self.add_imm(base, imm as u64);
        let aligned = self.sp_aligned && (n != 31 || imm & 15 == 0);
        self.set_xsp(n, v);
        self.sp_aligned = aligned;
    }

    /// Address and displacement of an access at the base plus `imm`.
    fn at(&mut self, n: u32) -> (Value, Value) {
        let base = self.base_register(n);
        (base, self.data_address(base))
    }
}

fn literal(t: &mut Translator, i: Insn) -> Flow {
    let addr = t.pc.wrapping_add((i.sbits(5, 19) << 2) as u64);
    let (kind, size) = match i.bits(30, 2) {
        0 => (Kind::Load, 2),
        1 => (Kind::Load, 3),
        2 => (Kind::Signed64, 2),
        // PRFM
        _ => return Flow::Next,
    };
    let a = t.c64(addr);
    let m = t.mem_op(size);
    t.access(kind, m, i.rt(), a, 0);
    Flow::Next
}

fn literal_fp(t: &mut Translator, i: Insn) -> Flow {
    let opc = i.bits(30, 2);
    if opc == 3 {
        return Flow::Undef;
    }
    let a = t.c64(t.pc.wrapping_add((i.sbits(5, 19) << 2) as u64));
    t.fp_access(true, opc + 2, i.rt(), a, 0);
    Flow::Next
}

fn simple(t: &mut Translator, i: Insn, disp: i64, mmu_idx: u32, prefetch: bool) -> Flow {
    let Some(kind) = kind(i) else { return Flow::Undef };
    if kind == Kind::Prefetch {
        return if prefetch { Flow::Next } else { Flow::Undef };
    }
    let (_, a) = t.at(i.rn());
    let m = t.mem_op_at(i.bits(30, 2), mmu_idx);
    t.access(kind, m, i.rt(), a, disp);
    Flow::Next
}

fn unscaled(t: &mut Translator, i: Insn) -> Flow {
    simple(t, i, i.sbits(12, 9), t.mode.mmu_idx(), true)
}

fn unprivileged(t: &mut Translator, i: Insn) -> Flow {
    simple(t, i, i.sbits(12, 9), t.mode.unpriv_idx(), false)
}

fn unsigned(t: &mut Translator, i: Insn) -> Flow {
    simple(t, i, (i.bits(10, 12) << i.bits(30, 2)) as i64, t.mode.mmu_idx(), true)
}

/// Pre- and post-indexed. With Rt = Rn (CONSTRAINED UNPREDICTABLE) a load's base is written last, a store stores the
/// old value.
fn indexed(t: &mut Translator, i: Insn) -> Flow {
    let Some(kind) = kind(i) else { return Flow::Undef };
    if kind == Kind::Prefetch {
        return Flow::Undef;
    }
    let imm = i.sbits(12, 9);
    let (base, a) = t.at(i.rn());
    let m = t.mem_op(i.bits(30, 2));
    t.access(kind, m, i.rt(), a, if i.bit(11) { imm } else { 0 });
    t.write_back(i.rn(), base, imm);
    Flow::Next
}

/// The address of a register-offset form; `size` scales if S is set.
fn register_address(t: &mut Translator, i: Insn, size: u32) -> Value {
    let base = t.base_register(i.rn());
    let offset = extended(t, true, i.rm(), i.bits(13, 3), if i.bit(12) { size } else { 0 });
    let a = t.b.add(base, offset);
    t.data_address(a)
}

fn register(t: &mut Translator, i: Insn) -> Flow {
    let Some(kind) = kind(i) else { return Flow::Undef };
    if !i.bit(14) {
        return Flow::Undef;
    }
    if kind == Kind::Prefetch {
        return Flow::Next;
    }
    let size = i.bits(30, 2);
    let a = register_address(t, i, size);
    let m = t.mem_op(size);
    t.access(kind, m, i.rt(), a, 0);
    Flow::Next
}

/// Size (log2 of bytes) of an FP/SIMD access and whether it loads.
fn fp_size(i: Insn) -> Option<(u32, bool)> {
    let (size, opc) = (i.bits(30, 2), i.bits(22, 2));
    match (opc & 2, size) {
        (0, s) => Some((s, opc & 1 != 0)),
        (_, 0) => Some((4, opc & 1 != 0)),
        _ => None,
    }
}

fn fp_unscaled(t: &mut Translator, i: Insn) -> Flow {
    let Some((size, load)) = fp_size(i) else { return Flow::Undef };
    let (_, a) = t.at(i.rn());
    t.fp_access(load, size, i.rt(), a, i.sbits(12, 9));
    Flow::Next
}

fn fp_unsigned(t: &mut Translator, i: Insn) -> Flow {
    let Some((size, load)) = fp_size(i) else { return Flow::Undef };
    let (_, a) = t.at(i.rn());
    t.fp_access(load, size, i.rt(), a, (i.bits(10, 12) << size) as i64);
    Flow::Next
}

fn fp_indexed(t: &mut Translator, i: Insn) -> Flow {
    let Some((size, load)) = fp_size(i) else { return Flow::Undef };
    let imm = i.sbits(12, 9);
    let (base, a) = t.at(i.rn());
    t.fp_access(load, size, i.rt(), a, if i.bit(11) { imm } else { 0 });
    t.write_back(i.rn(), base, imm);
    Flow::Next
}

fn fp_register(t: &mut Translator, i: Insn) -> Flow {
    let Some((size, load)) = fp_size(i) else { return Flow::Undef };
    if !i.bit(14) {
        return Flow::Undef;
    }
    let a = register_address(t, i, size);
    t.fp_access(load, size, i.rt(), a, 0);
    Flow::Next
}

/// (displacement of the access, writeback) of a pair form.
fn pair_offsets(i: Insn, size: u32) -> (i64, Option<i64>) {
    let imm = i.sbits(15, 7) << size;
    match i.bits(23, 2) {
        1 => (0, Some(imm)),
        3 => (imm, Some(imm)),
        _ => (imm, None),
    }
}

/// LDP, STP, LDPSW, LDNP, STNP. With equal or overlapping registers (CONSTRAINED UNPREDICTABLE) the second wins over
/// the first and the base over both.
fn pair(t: &mut Translator, i: Insn) -> Flow {
    let (opc, load) = (i.bits(30, 2), i.bit(22));
    let (size, kind) = match opc {
        0 => (2, Kind::Load),
        // LDPSW has no non-temporal form; STGP is not implemented.
        1 if load && i.bits(23, 2) != 0 => (2, Kind::Signed64),
        2 => (3, Kind::Load),
        _ => return Flow::Undef,
    };
    let (disp, writeback) = pair_offsets(i, size);
    let (base, a) = t.at(i.rn());
    let m = t.mem_op(size);
    let second = disp + (1 << size);
    if load {
        let v1 = t.load_general(kind, m, a, disp);
        let v2 = t.load_general(kind, m, a, second);
        t.set_x(i.rt(), v1);
        t.set_x(i.ra(), v2);
    } else {
        let v1 = t.stored(size, i.rt());
        let v2 = t.stored(size, i.ra());
        t.b.store(m, a, disp, v1);
        t.b.store(m, a, second, v2);
    }
    if let Some(imm) = writeback {
        t.write_back(i.rn(), base, imm);
    }
    Flow::Next
}

fn fp_pair(t: &mut Translator, i: Insn) -> Flow {
    let opc = i.bits(30, 2);
    if opc == 3 {
        return Flow::Undef;
    }
    let size = opc + 2;
    let (disp, writeback) = pair_offsets(i, size);
    let (base, a) = t.at(i.rn());
    let m = t.mem_op(size);
    let second = disp + (1 << size);
    if i.bit(22) {
        let v1 = t.load_vector(size, m, a, disp);
        let v2 = t.load_vector(size, m, a, second);
        t.set_v(i.rt(), v1);
        t.set_v(i.ra(), v2);
    } else {
        t.store_vector(size, m, a, disp, i.rt());
        t.store_vector(size, m, a, second, i.ra());
    }
    if let Some(imm) = writeback {
        t.write_back(i.rn(), base, imm);
    }
    Flow::Next
}

/// LDRAA, LDRAB: the authenticated base is what is written back.
fn ldra(t: &mut Translator, i: Insn) -> Flow {
    let imm = (i.sbits(22, 1) << 9 | i.bits(12, 9) as i64) << 3;
    let base = t.base_register(i.rn());
    let zero = t.c64(0);
    let base = auth(t, base, zero, if i.bit(23) { Key::Db } else { Key::Da }, true);
    let a = t.data_address(base);
    let m = t.mem_op(3);
    t.access(Kind::Load, m, i.rt(), a, imm);
    if i.bit(11) {
        t.write_back(i.rn(), base, imm);
    }
    Flow::Next
}
