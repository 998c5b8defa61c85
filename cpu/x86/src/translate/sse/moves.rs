//! Data movement (vol. 1, 10.4.1.1, 10.4.6, 11.4.1.1, 12.3, 14.6).

use super::super::{Flow, Translator};
use super::{Halves, helpers};
use crate::state::Seg;
use iced_x86::{Mnemonic, Register};
use rhea_ir::simd::{Fmt, SimdOp};
use rhea_ir::{Lane, Type, Value};

impl Translator<'_, '_> {
    pub(super) fn sse_moves(&mut self, m: Mnemonic) -> Option<Flow> {
        use Mnemonic::*;
        match m {
            Movaps | Movapd | Movdqa | Vmovaps | Vmovapd | Vmovdqa | Movntps | Movntpd | Movntdq | Vmovntps
            | Vmovntpd | Vmovntdq | Movntdqa | Vmovntdqa => self.move_whole(true),
            Movups | Movupd | Movdqu | Vmovups | Vmovupd | Vmovdqu | Lddqu | Vlddqu => self.move_whole(false),
            Movss | Vmovss => self.move_scalar(4, SimdOp::MovSs),
            Movsd | Vmovsd => self.move_scalar(8, SimdOp::MovSd),
            Movntss => {
                let v = self.vsrc(1);
                let at = self.ea(4, true);
                self.store_low(4, at, v.0, false);
            }
            Movntsd => {
                let v = self.vsrc(1);
                let at = self.ea(8, true);
                self.store_low(8, at, v.0, false);
            }
            Movd | Vmovd => return self.move_general(32),
            Movq | Vmovq => return self.move_general(64),
            Movlps | Movlpd | Vmovlps | Vmovlpd => {
                if self.is_mem(0) {
                    let v = self.vsrc(1);
                    let at = self.ea(8, true);
                    self.store_low(8, at, v.0, false);
                } else {
                    let (a, b) = self.sources();
                    let (a, b) = (self.vsrc(a), self.vsrc(b));
                    let r = self.b.simd(SimdOp::MovSd, Fmt::Ps, &[a.0, b.0], 0);
                    self.set_dst_low(r);
                }
            }
            Movhps | Movhpd | Vmovhps | Vmovhpd => {
                if self.is_mem(0) {
                    let v = self.vsrc(1);
                    let at = self.ea(8, true);
                    let v = self.b.simd(SimdOp::UnpckHQdq, Fmt::Ps, &[v.0, v.0], 0);
                    self.store_low(8, at, v, false);
                } else {
                    self.pair(SimdOp::UnpckLQdq, false);
                }
            }
            Movlhps | Vmovlhps => self.pair(SimdOp::UnpckLQdq, false),
            // The high half of the second below the high half of the first.
            Movhlps | Vmovhlps => self.pair(SimdOp::UnpckHQdq, true),
            Movddup | Vmovddup => {
                let n = self.halves();
                let v = self.vsrc(1);
                let r = self.each(n, |t, h| t.b.simd(SimdOp::MovDDup, Fmt::Ps, &[v.get(h)], 0));
                self.set_dst(r);
            }
            Movmskps | Vmovmskps => self.move_mask(Lane::S),
            Movmskpd | Vmovmskpd => self.move_mask(Lane::D),
            Pmovmskb | Vpmovmskb => {
                if self.i.op_register(1).is_mm() {
                    return None;
                }
                self.move_mask(Lane::B);
            }
            Maskmovdqu | Vmaskmovdqu => {
                let (first, mask) = (self.i.op_count() - 2, self.i.op_count() - 1);
                let (v, mask) = (self.vsrc(first), self.vsrc(mask));
                // The implicit operand is DS:rDI.
                let bits = self.address_bits();
                let di = self.r64(crate::state::gpr::RDI);
                let di = if bits == 64 { di } else { self.b.zext(di, bits) };
                let seg = super::super::address::seg_of(self.i.memory_segment());
                let at = self.masked_bytes(seg, di, 16);
                self.b.call(helpers::MASK_MOVE_BYTES, &[v.0, mask.0, at]);
            }
            Vzeroupper | Vzeroall => {
                let zero = self.b.vconst(0);
                let count = if self.mode.long() { 16 } else { 8 };
                for n in 0..count {
                    self.set_ymm_hi(n, zero);
                    if m == Vzeroall {
                        self.set_xmm(n, zero);
                    }
                }
            }
            _ => return None,
        }
        Some(Flow::Next)
    }

    /// Two registers' quadwords put together; `swapped`: the second below the first.
    fn pair(&mut self, op: SimdOp, swapped: bool) {
        let (a, b) = self.sources();
        let (a, b) = (self.vsrc(a), self.vsrc(b));
        let args = if swapped { [b.0, a.0] } else { [a.0, b.0] };
        let r = self.b.simd(op, Fmt::Ps, &args, 0);
        self.set_dst_low(r);
    }

    fn move_whole(&mut self, aligned: bool) {
        if !self.is_mem(0) {
            let v = self.vsrc_aligned(1, aligned);
            self.set_dst(v);
            return;
        }
        let r = self.i.op_register(1);
        let v = self.vreg(r);
        if r.is_ymm() {
            let at = self.ea(32, true);
            self.store_256(at, v, aligned);
        } else {
            let at = self.ea(16, true);
            self.store_v(at, v.0, aligned);
        }
    }

    /// MOVSS and MOVSD: loads clear the rest, moves between registers merge.
    fn move_scalar(&mut self, bytes: u32, merge: SimdOp) {
        if self.is_mem(0) {
            let v = self.vsrc(1);
            let at = self.ea(bytes, true);
            self.store_low(bytes, at, v.0, false);
        } else if self.is_mem(1) {
            let v = self.vsrc(1);
            self.set_dst_low(v.0);
        } else {
            let (a, b) = self.sources();
            let (a, b) = (self.vsrc(a), self.vsrc(b));
            let r = self.b.simd(merge, Fmt::Ps, &[a.0, b.0], 0);
            self.set_dst_low(r);
        }
    }

    /// MOVD and MOVQ: from and to general registers and memory, and MOVQ between vector registers.
    fn move_general(&mut self, bits: u32) -> Option<Flow> {
        let is = |t: &Self, n: u32, f: fn(Register) -> bool| !t.is_mem(n) && f(t.i.op_register(n));
        if is(self, 0, Register::is_mm) || is(self, 1, Register::is_mm) {
            return None;
        }
        if is(self, 0, Register::is_xmm) {
            let v = if is(self, 1, Register::is_xmm) {
                let r = self.i.op_register(1);
                let v = self.vreg(r).0;
                self.b.op1(rhea_ir::Op::VZeroHi, Type::V128, v, 0, 0)
            } else if self.is_mem(1) {
                let at = self.ea(bits / 8, false);
                self.load_low(bits / 8, at, false)
            } else {
                let v = self.read(1, bits);
                self.b.vfromscalar(v)
            };
            self.set_dst_low(v);
        } else {
            let r = self.i.op_register(1);
            let v: Halves = self.vreg(r);
            if self.is_mem(0) {
                let at = self.ea(bits / 8, true);
                self.store_low(bits / 8, at, v.0, false);
            } else {
                let x: Value = self.low_int(v.0, bits);
                self.write(0, bits, x);
            }
        }
        Some(Flow::Next)
    }

    /// Where MASKMOVQ and MASKMOVDQU write: all bytes must be within the segment, whatever the mask says.
    pub(in super::super) fn masked_bytes(&mut self, seg: Seg, offset: Value, bytes: u32) -> Value {
        let at = if self.mode.long() {
            self.linear(seg, offset, 0, bytes, true)
        } else {
            self.linear_in_limit(seg, offset, bytes, true)
        };
        self.address(at)
    }
    /// The lowest lane of 32 or 64 bits as an integer.
    pub(super) fn low_int(&mut self, v: Value, bits: u32) -> Value {
        let (ty, lane) = if bits == 64 { (Type::I64, Lane::D) } else { (Type::I32, Lane::S) };
        self.b.vextract(ty, lane, v, 0)
    }
}
