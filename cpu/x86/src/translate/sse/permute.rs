//! AVX and AVX2: what crosses the halves, broadcasts, masked moves and gathers (vol. 1, 14.6, 14.9).

use super::super::{Flow, Translator};
use super::{Halves, helpers};
use iced_x86::{Mnemonic, OpKind};
use rhea_ir::simd::{Fmt, SimdOp};
use rhea_ir::{Lane, Op, Value};

impl Translator<'_, '_> {
    pub(super) fn sse_permute(&mut self, m: Mnemonic) -> Option<Flow> {
        use Mnemonic::*;
        use SimdOp as O;
        match m {
            Vinsertf128 | Vinserti128 => {
                let (a, b) = (self.vsrc(1), self.vsrc(2));
                let r = if self.imm8() & 1 == 0 { Halves(b.0, Some(a.get(1))) } else { Halves(a.0, Some(b.0)) };
                self.set_dst(r);
            }
            Vextractf128 | Vextracti128 => {
                let v = self.vsrc(1);
                let half = v.get(self.imm8() as u32 & 1);
                if self.is_mem(0) {
                    let at = self.ea(16, true);
                    self.store_v(at, half, false);
                } else {
                    self.set_dst_low(half);
                }
            }
            Vperm2f128 | Vperm2i128 => {
                let (a, b) = (self.vsrc(1), self.vsrc(2));
                let imm = self.imm8();
                let r = self.each(2, |t, h| {
                    let n = (imm >> (4 * h)) as u32;
                    if n & 8 != 0 {
                        t.b.vconst(0)
                    } else if n & 2 == 0 {
                        a.get(n & 1)
                    } else {
                        b.get(n & 1)
                    }
                });
                self.set_dst(r);
            }
            Vpermq | Vpermpd => {
                let v = self.vsrc(1);
                let imm = self.imm8() as u32;
                let r = self.each(2, |t, h| {
                    let (p, q) = (imm >> (4 * h) & 3, imm >> (4 * h + 2) & 3);
                    let which = (p & 1 | (q & 1) << 1) as u64;
                    t.b.simd(O::ShufPd, Fmt::Ps, &[v.get(p >> 1), v.get(q >> 1)], which)
                });
                self.set_dst(r);
            }
            Vpermd | Vpermps => {
                let (index, v) = (self.vsrc(1), self.vsrc(2));
                let r = self.each(2, |t, h| {
                    let n = index.get(h);
                    let lo = t.b.simd(O::PermilPs, Fmt::Ps, &[v.get(0), n], 0);
                    let hi = t.b.simd(O::PermilPs, Fmt::Ps, &[v.get(1), n], 0);
                    let upper = t.b.v1_imm(Op::VShl, Lane::S, n, 29);
                    t.b.simd(O::BlendVPs, Fmt::Ps, &[lo, hi, upper], 0)
                });
                self.set_dst(r);
            }
            Vpermilps => self.permute_lanes(O::PermilPs),
            Vpermilpd => self.permute_lanes(O::PermilPd),
            Vbroadcastss | Vpbroadcastd => self.broadcast(O::BroadcastD),
            Vbroadcastsd | Vpbroadcastq => self.broadcast(O::BroadcastQ),
            Vpbroadcastb => self.broadcast(O::BroadcastB),
            Vpbroadcastw => self.broadcast(O::BroadcastW),
            Vbroadcastf128 | Vbroadcasti128 => {
                let v = self.vsrc(1);
                self.set_dst(Halves(v.0, Some(v.0)));
            }
            Vmaskmovps | Vpmaskmovd => self.masked_move(4),
            Vmaskmovpd | Vpmaskmovq => self.masked_move(8),
            Vgatherdps | Vpgatherdd => return Some(self.gather(4, 4)),
            Vgatherqps | Vpgatherqd => return Some(self.gather(4, 8)),
            Vgatherdpd | Vpgatherdq => return Some(self.gather(8, 4)),
            Vgatherqpd | Vpgatherqq => return Some(self.gather(8, 8)),
            _ => return None,
        }
        Some(Flow::Next)
    }

    fn permute_lanes(&mut self, op: SimdOp) {
        let n = self.halves();
        let v = self.vsrc(1);
        let r = if self.i.op_kind(2) == OpKind::Immediate8 {
            let imm = self.imm8();
            self.each(n, |t, h| {
                if op == SimdOp::PermilPs {
                    t.b.simd(SimdOp::PShufD, Fmt::Ps, &[v.get(h)], imm)
                } else {
                    t.b.simd(SimdOp::ShufPd, Fmt::Ps, &[v.get(h), v.get(h)], imm >> (2 * h) & 3)
                }
            })
        } else {
            let control = self.vsrc(2);
            self.each(n, |t, h| t.b.simd(op, Fmt::Ps, &[v.get(h), control.get(h)], 0))
        };
        self.set_dst(r);
    }

    fn broadcast(&mut self, op: SimdOp) {
        let v = self.vsrc(1);
        let r = self.b.simd(op, Fmt::Ps, &[v.0], 0);
        self.set_dst(Halves(r, Some(r)));
    }

    /// VMASKMOV and VPMASKMOV: elements without the mask's top bit are neither read nor written, and cannot fault.
    fn masked_move(&mut self, bytes: u64) {
        let size = self.c64(bytes);
        let wide = self.halves() == 2;
        let store = self.is_mem(0);
        let mask = self.vsrc(1);
        let n = 1 + wide as u32;
        let at = self.ea(16 * n, store);
        let lo = self.address(at);
        let mut addresses: Vec<Value> = vec![lo];
        if n == 2 {
            addresses.push(self.add_imm(lo, 16));
        }
        if store {
            let r = self.i.op_register(2);
            let v = self.vreg(r);
            for (h, at) in addresses.into_iter().enumerate() {
                self.b.call(helpers::MASKED_STORE, &[v.get(h as u32), mask.get(h as u32), at, size]);
            }
        } else {
            let r = self.each(n, |t, h| {
                let at = addresses[h as usize];
                t.b.call(helpers::MASKED_LOAD, &[mask.get(h), at, size])
            });
            self.set_dst(r);
        }
    }

    /// Gathers `element` bytes by indices of `index` bytes. Elements done are in the register, and gone from the mask, if a
    /// later one faults.
    fn gather(&mut self, element: u32, index: u32) -> Flow {
        let (dst, mask) = (self.i.op_register(0), self.i.op_register(2));
        let vector = self.i.memory_index();
        if dst.number() == mask.number() || dst.number() == vector.number() || mask.number() == vector.number() {
            return self.undefined();
        }
        let bits = self.address_bits();
        let base = self.effective_address();
        // The number of elements is limited by the larger of the two registers' kinds.
        let by_dst = if dst.is_ymm() { 32 } else { 16 } / element;
        let by_index = if vector.is_ymm() { 32 } else { 16 } / index;
        let seg = super::super::address::seg_of(self.i.memory_segment());
        let plan = helpers::Gather {
            dst: dst.number() as u8,
            mask: mask.number() as u8,
            index: vector.number() as u8,
            element: element as u8,
            index_bytes: index as u8,
            count: by_dst.min(by_index) as u8,
            scale: self.i.memory_index_scale() as u8,
            flags: seg as u8 | if bits == 32 { 8 } else { 0 } | if dst.is_ymm() { 16 } else { 0 },
        };
        let plan = self.c64(plan.pack());
        self.b.call(helpers::GATHER, &[plan, base]);
        Flow::Next
    }
}
