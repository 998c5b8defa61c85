//! Guest memory accesses: the inline TLB and the slow path behind it.

use super::asm::{Alu, Cc, Label, Shift};
use super::emit::{Emit, H_FLAT, H_SITES, H_TLB};
use super::encode::Place;
use super::share::Role;
use super::stubs::Stub;
use super::*;
use rhea_ir::env::{PAGE_BITS, SITES, TlbEntry, tlb_slot};
use rhea_ir::func::{Inst, Value};
use rhea_ir::op::Op;
use rhea_ir::types::{MemOp, RmwOp, Type};
use std::mem::offset_of;

pub(super) const TAG_READ: i32 = offset_of!(TlbEntry, read) as i32;
pub(super) const TAG_WRITE: i32 = offset_of!(TlbEntry, write) as i32;
/// More than the bytes of any access.
pub const MAX_ACCESS: i32 = 64;
pub(super) const ADDEND: i32 = offset_of!(TlbEntry, addend) as i32;

impl Emit<'_> {
    pub(super) fn mem(&mut self, v: Value, i: &Inst) {
        self.write_early(i.state);
        match i.op {
            Op::CheckExit => self.check_exit(i),
            Op::CheckCount => self.check_count(i),
            Op::ProbeWrite => {
                let (back, _) = self.address(v, i, TAG_WRITE);
                self.asm.bind(back);
            }
            Op::Load => self.load(v, i),
            Op::Store => self.store(v, i),
            Op::Rmw => self.rmw(v, i),
            _ if i.ty == Type::I128 => self.mem_call(v),
            _ => self.cas(v, i),
        }
    }

    /// The address of the TLB entry for the address at, into rcx.
    pub(super) fn tlb_entry(&mut self, m: MemOp, at: Place) {
        let desc = H_TLB + tlb_slot(m.mmu_idx()) as i32 * 16;
        if at.disp == 0 {
            self.asm.mov_rr(false, RCX, at.base);
        } else {
            self.asm.lea32(RCX, at.base, at.disp);
        }
        self.asm.shift_i(Shift::Shr, false, RCX, (PAGE_BITS - 5) as u8);
        self.asm.alu_rm(Alu::And, false, RCX, ENV, desc);
        self.asm.alu_rm(Alu::Add, true, RCX, ENV, desc + 8);
    }

    /// An address into rdx.
    pub(super) fn address_of(&mut self, at: Place) {
        if at.disp == 0 {
            self.asm.mov_rr(true, RDX, at.base);
        } else {
            self.asm.lea_at(RDX, at);
        }
    }

    /// What to compare with the tag of a TLB entry, into rdx: the page of the last byte (of the last aligned unit) of the
    /// access, with the bits that must be zero for alignment.
    fn tag(&mut self, m: MemOp, at: Place) {
        let align = m.align_log2().min(m.size_log2());
        let extra = (m.bytes() - (1 << align)) as i32;
        let mask = -(1i32 << PAGE_BITS) | ((1 << m.align_log2()) - 1);
        self.address_of(Place { disp: at.disp + extra, ..at });
        self.asm.alu_ri(Alu::And, true, RDX, mask);
    }

    /// The TLB entry that allows the access into rcx; what its tag was compared with is in rdx.
    fn look_up(&mut self, m: MemOp, at: Place, tag: i32, slow: Label) {
        self.tlb_entry(m, at);
        self.tag(m, at);
        self.asm.alu_rm(Alu::Cmp, true, RDX, RCX, tag);
        self.asm.jcc(Cc::Ne, slow);
    }

    /// Looks in the TLB, and lets a site know that did not know the page.
    pub(super) fn probe(&mut self, op: MemOp, site: Option<i32>, tag: i32, at: Place, slow: Label, hit: Label) {
        self.look_up(op, at, tag, slow);
        self.asm.load(true, RCX, RCX, ADDEND);
        if let Some(site) = site {
            let class = site_class(op, tag);
            if class != 0 {
                self.asm.alu_ri(Alu::Or, true, RDX, class);
            }
            self.asm.store(true, ENV, site, RDX);
            self.asm.store(true, ENV, site + 8, RCX);
        }
        self.asm.jmp(hit);
    }

    /// Where in the host's memory the access goes: rcx and perhaps rax are part of it, rdx is not. Jumps to the slow path
    /// on a miss.
    fn address(&mut self, v: Value, i: &Inst, tag: i32) -> (Label, Place) {
        let m = i.mem_op();
        let label = self.asm.label();
        let back = self.asm.label();
        self.stubs.push(Stub::Mem { v, label, back });
        let a = self.gpr(i.args[0], RAX);
        let at = match i32::try_from(i.imm as i64) {
            // The last byte's address is computed in one instruction too.
            Ok(d) if d.checked_add(MAX_ACCESS).is_some() => Place::at(a, d),
            _ => {
                self.asm.mov_ri(RCX, i.imm);
                self.asm.lea_idx(true, RAX, a, RCX);
                Place::at(RAX, 0)
            }
        };
        if tag == TAG_READ && self.r.fns.flat_index == Some(m.mmu_idx()) && m.align_log2() == 0 {
            // Nothing is looked up, so that what hangs on the value waits for the access alone.
            let (probe, hit) = (self.asm.label(), self.asm.label());
            self.stubs.push(Stub::Probe { op: m, site: None, clear: None, tag, at, label: probe, slow: label, hit });
            let address = if at.disp == 0 { at.base } else { RDX };
            if at.disp != 0 {
                self.asm.lea_at(RDX, at);
            }
            self.asm.alu_rm(Alu::Cmp, true, address, ENV, H_FLAT + 8);
            self.asm.jcc(Cc::Ae, probe);
            self.asm.load(true, RCX, ENV, H_FLAT);
            self.asm.bind(hit);
            return (back, Place { base: RCX, index: Some(at.base), disp: at.disp });
        }
        if tag == TAG_WRITE && self.r.fns.flat_index == Some(m.mmu_idx()) {
            // The TLB says whether the store may be made here, but where it goes does not wait for it.
            let (far, hit) = (self.asm.label(), self.asm.label());
            self.stubs.push(Stub::Addend { label: far, hit });
            self.look_up(m, at, tag, label);
            self.asm.alu_rm(Alu::Cmp, true, RDX, ENV, H_FLAT + 8);
            self.asm.jcc(Cc::Ae, far);
            self.asm.load(true, RCX, ENV, H_FLAT);
            self.asm.bind(hit);
            return (back, Place { base: RCX, index: Some(at.base), disp: at.disp });
        }
        let role = self.share(v).role;
        if role != Role::Alone {
            self.shared(role, m, tag, at, label);
            return (back, Place { base: RCX, index: Some(at.base), disp: at.disp });
        }
        let by_site = self.steps.as_ref().is_some_and(|s| !s.is_far(self.f, i.args[0], self.at_block));
        let site = self.r.sites.filter(|_| by_site && m.bytes() <= 16).map(|first| {
            let n = first.wrapping_add(self.site) as usize % SITES;
            self.site += 1;
            H_SITES + n as i32 * 16
        });
        match site {
            None => {
                self.look_up(m, at, tag, label);
                self.asm.load(true, RCX, RCX, ADDEND);
            }
            Some(site) => {
                let (probe, hit) = (self.asm.label(), self.asm.label());
                self.stubs.push(Stub::Probe {
                    op: m,
                    site: Some(site),
                    clear: None,
                    tag,
                    at,
                    label: probe,
                    slow: label,
                    hit,
                });
                // Any misalignment is left to the probe: such an access might begin in the page before.
                let mask = -(1i32 << PAGE_BITS) | (m.bytes() as i32 - 1) | ((1 << m.align_log2()) - 1);
                self.address_of(at);
                self.asm.alu_ri(Alu::And, true, RDX, mask);
                let class = site_class(m, tag);
                if class != 0 {
                    self.asm.alu_ri(Alu::Or, true, RDX, class);
                }
                self.asm.alu_rm(Alu::Cmp, true, RDX, ENV, site);
                self.asm.jcc(Cc::Ne, probe);
                self.asm.load(true, RCX, ENV, site + 8);
                self.asm.bind(hit);
            }
        }
        (back, Place { base: RCX, index: Some(at.base), disp: at.disp })
    }

    fn load(&mut self, v: Value, i: &Inst) {
        let m = i.mem_op();
        let (back, at) = self.address(v, i, TAG_READ);
        if i.ty.is_int() {
            let d = self.dst_gpr(v, RAX);
            self.load_int(i.ty, m, d, at);
            self.put_gpr(v, d);
        } else {
            let d = self.dst_xmm(v, X15);
            let n = m.bytes();
            if m.is_big_endian() {
                self.load_vec_swapped(n, d, at);
            } else {
                self.asm.vload_at(n.max(4), d, at);
            }
            self.put_xmm(v, d);
        }
        self.asm.bind(back);
    }

    fn load_int(&mut self, ty: Type, m: MemOp, d: u8, at: Place) {
        let w = ty == Type::I64;
        let big = m.is_big_endian();
        match (m.size_log2(), m.is_signed()) {
            (0, false) => self.asm.load_u8_at(d, at),
            (0, true) => self.asm.load_s8_at(w, d, at),
            (1, s) => {
                if s && !big {
                    self.asm.load_s16_at(w, d, at);
                    return;
                }
                self.asm.load_u16_at(d, at);
                if big {
                    self.asm.bswap(false, d);
                    self.asm.shift_i(if s { Shift::Sar } else { Shift::Shr }, false, d, 16);
                    if s && w {
                        self.asm.movsxd(d, d);
                    }
                }
            }
            (2, s) => {
                if s && w && !big {
                    self.asm.load_s32_at(d, at);
                    return;
                }
                self.asm.load_at(false, d, at);
                if big {
                    self.asm.bswap(false, d);
                    if s && w {
                        self.asm.movsxd(d, d);
                    }
                }
            }
            _ => {
                self.asm.load_at(true, d, at);
                if big {
                    self.asm.bswap(true, d);
                }
            }
        }
    }

    fn load_vec_swapped(&mut self, n: u32, d: u8, at: Place) {
        match n {
            4 | 8 => {
                self.asm.load_at(n == 8, RAX, at);
                self.asm.bswap(n == 8, RAX);
                self.asm.vmov_from_gpr(n == 8, d, RAX);
            }
            _ => {
                self.asm.vload_at(16, d, at);
                let l = self.data(REVERSE);
                self.asm.vload_label(X14, l);
                self.asm.vpshufb(d, d, X14);
            }
        }
    }

    fn store(&mut self, v: Value, i: &Inst) {
        let m = i.mem_op();
        let (back, at) = self.address(v, i, TAG_WRITE);
        let val = i.args[1];
        let n = m.bytes();
        if self.ty(val).is_int() {
            if let Some(c) = self.imm32(val)
                && !m.is_big_endian()
                && n >= 4
                && !m.is_release()
            {
                self.asm.mov_at_imm(n == 8, at, c);
            } else {
                let mut r = self.gpr(val, RDX);
                if m.is_big_endian() && n > 1 {
                    self.asm.mov_rr(true, RDX, r);
                    self.asm.bswap(n == 8, RDX);
                    if n == 2 {
                        self.asm.shift_i(Shift::Shr, false, RDX, 16);
                    }
                    r = RDX;
                }
                if m.is_release() {
                    // Release stores are ordered before later acquire loads: a locked exchange is store and fence.
                    if r != RDX {
                        self.asm.mov_rr(true, RDX, r);
                    }
                    self.asm.lea_at(RAX, at);
                    self.asm.xchg_mem(n, RAX, RDX);
                } else {
                    match n {
                        1 => self.asm.store8_at(at, r),
                        2 => self.asm.store16_at(at, r),
                        _ => self.asm.store_at(n == 8, at, r),
                    }
                }
            }
        } else {
            let x = self.xmm_by_rdx(val);
            if m.is_big_endian() {
                if n == 16 {
                    let l = self.data(REVERSE);
                    self.asm.vload_label(X14, l);
                    self.asm.vpshufb(X14, x, X14);
                    self.asm.vstore_at(16, at, X14);
                } else {
                    self.asm.vmov_to_gpr(n == 8, RDX, x);
                    self.asm.bswap(n == 8, RDX);
                    self.asm.store_at(n == 8, at, RDX);
                }
            } else {
                self.asm.vstore_at(n.max(4), at, x);
            }
        }
        if m.is_release() && !self.ty(val).is_int() {
            self.asm.mfence();
        }
        self.asm.bind(back);
    }

    /// A vector operand while rax and rcx hold the host address.
    fn xmm_by_rdx(&mut self, v: Value) -> u8 {
        if let Some(c) = self.f.as_const(v)
            && self.deferred(v)
        {
            self.asm.mov_ri(RDX, c);
            self.asm.vmov_from_gpr(true, X15, RDX);
            return X15;
        }
        self.xmm(v, X15)
    }

    /// Atomics on a RAM page that is both readable and writable: the write tag decides.
    fn rmw(&mut self, v: Value, i: &Inst) {
        let m = i.mem_op();
        let n = m.bytes();
        if m.is_big_endian() && n > 1 {
            return self.mem_call(v);
        }
        let (back, at) = self.address(v, i, TAG_WRITE);
        let val = i.args[1];
        // rdx: host address; rcx: operand; rax: result.
        self.asm.lea_at(RDX, at);
        match m.rmw_op() {
            RmwOp::Add => {
                self.gpr_to(val, RAX);
                self.asm.lock_xadd(n, RDX, RAX);
            }
            RmwOp::Xchg => {
                self.gpr_to(val, RAX);
                self.asm.xchg_mem(n, RDX, RAX);
            }
            op => self.rmw_loop(op, n, val),
        }
        match n {
            1 => self.asm.movzx8(RAX, RAX),
            2 => self.asm.movzx16(RAX, RAX),
            4 => self.asm.mov_rr(false, RAX, RAX),
            _ => {}
        }
        self.put_gpr(v, RAX);
        self.asm.bind(back);
    }

    /// Compare-exchange loop: address in rdx, old value ends in rax, new value in rcx.
    fn rmw_loop(&mut self, op: RmwOp, n: u32, val: Value) {
        let w = n == 8;
        match n {
            1 => self.asm.load_u8(RAX, RDX, 0),
            2 => self.asm.load_u16(RAX, RDX, 0),
            _ => self.asm.load(w, RAX, RDX, 0),
        }
        let again = self.asm.label();
        self.asm.bind(again);
        self.gpr_to(val, RCX);
        let signed = matches!(op, RmwOp::SMax | RmwOp::SMin);
        match op {
            RmwOp::And => self.asm.alu_rr(Alu::And, w, RCX, RAX),
            RmwOp::Or => self.asm.alu_rr(Alu::Or, w, RCX, RAX),
            RmwOp::Xor => self.asm.alu_rr(Alu::Xor, w, RCX, RAX),
            RmwOp::Clr => self.asm.andn(w, RCX, RCX, RAX),
            _ => {
                // Bring both to comparable form for narrow sizes: the old value is zero-extended, so is made anew.
                match (n, signed) {
                    (1, true) => {
                        self.asm.movsx8(false, RCX, RCX);
                        self.asm.movsx8(false, RAX, RAX);
                    }
                    (2, true) => {
                        self.asm.movsx16(false, RCX, RCX);
                        self.asm.movsx16(false, RAX, RAX);
                    }
                    (1, false) => {
                        self.asm.movzx8(RCX, RCX);
                        self.asm.movzx8(RAX, RAX);
                    }
                    (2, false) => {
                        self.asm.movzx16(RCX, RCX);
                        self.asm.movzx16(RAX, RAX);
                    }
                    _ => {}
                }
                self.asm.alu_rr(Alu::Cmp, w, RAX, RCX);
                let cc = match op {
                    RmwOp::SMax => Cc::G,
                    RmwOp::SMin => Cc::L,
                    RmwOp::UMax => Cc::A,
                    _ => Cc::B,
                };
                self.asm.cmov(cc, RCX, RAX);
            }
        }
        self.asm.lock_cmpxchg(n, RDX, RCX);
        self.asm.jcc(Cc::Ne, again);
    }

    fn cas(&mut self, v: Value, i: &Inst) {
        let m = i.mem_op();
        let n = m.bytes();
        if m.is_big_endian() && n > 1 {
            return self.mem_call(v);
        }
        let (back, at) = self.address(v, i, TAG_WRITE);
        self.asm.lea_at(RDX, at);
        self.gpr_to(i.args[1], RAX);
        let new = self.gpr(i.args[2], RCX);
        self.asm.lock_cmpxchg(n, RDX, new);
        match n {
            1 => self.asm.movzx8(RAX, RAX),
            2 => self.asm.movzx16(RAX, RAX),
            4 => self.asm.mov_rr(false, RAX, RAX),
            _ => {}
        }
        self.put_gpr(v, RAX);
        self.asm.bind(back);
    }
}

/// What tells apart, in the tags of sites that share a number, reads from writes and the MMU indexes. Bits above those
/// that check alignment.
fn site_class(m: MemOp, tag: i32) -> i32 {
    ((m.mmu_idx() as i32) << 1 | (tag == TAG_WRITE) as i32) << 4
}

/// Shuffle mask that reverses sixteen bytes.
const REVERSE: u128 = 0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f;
