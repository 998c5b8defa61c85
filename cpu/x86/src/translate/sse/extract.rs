//! Single lanes in and out, widening moves, bit fields (vol. 2; SSE4A: AMD64 APM vol. 4).

use super::super::{Flow, Translator};
use super::{Halves, helpers};
use iced_x86::{Mnemonic, OpKind};
use rhea_ir::simd::{Fmt, SimdOp};
use rhea_ir::{Lane, Type, Value};

impl Translator<'_, '_> {
    pub(super) fn sse_extract(&mut self, m: Mnemonic) -> Option<Flow> {
        use Mnemonic::*;
        use SimdOp as O;
        match m {
            Pextrb | Vpextrb => self.extract(Lane::B),
            Pextrw | Vpextrw => self.extract(Lane::H),
            Pextrd | Vpextrd | Extractps | Vextractps => self.extract(Lane::S),
            Pextrq | Vpextrq => self.extract(Lane::D),
            Pinsrb | Vpinsrb => self.insert_lane(Lane::B),
            Pinsrw | Vpinsrw => self.insert_lane(Lane::H),
            Pinsrd | Vpinsrd => self.insert_lane(Lane::S),
            Pinsrq | Vpinsrq => self.insert_lane(Lane::D),
            Insertps | Vinsertps => {
                let (a, b) = self.sources();
                // A memory operand is one single.
                let imm = if self.is_mem(b) { self.imm8() & 0x3f } else { self.imm8() };
                let (a, b) = (self.vsrc(a), self.vsrc(b));
                let r = self.b.simd(O::InsertPs, Fmt::Ps, &[a.0, b.0], imm);
                self.set_dst_low(r);
            }
            Pmovsxbw | Vpmovsxbw => self.widen(O::PMovSxBw, 8),
            Pmovsxbd | Vpmovsxbd => self.widen(O::PMovSxBd, 4),
            Pmovsxbq | Vpmovsxbq => self.widen(O::PMovSxBq, 2),
            Pmovsxwd | Vpmovsxwd => self.widen(O::PMovSxWd, 8),
            Pmovsxwq | Vpmovsxwq => self.widen(O::PMovSxWq, 4),
            Pmovsxdq | Vpmovsxdq => self.widen(O::PMovSxDq, 8),
            Pmovzxbw | Vpmovzxbw => self.widen(O::PMovZxBw, 8),
            Pmovzxbd | Vpmovzxbd => self.widen(O::PMovZxBd, 4),
            Pmovzxbq | Vpmovzxbq => self.widen(O::PMovZxBq, 2),
            Pmovzxwd | Vpmovzxwd => self.widen(O::PMovZxWd, 8),
            Pmovzxwq | Vpmovzxwq => self.widen(O::PMovZxWq, 4),
            Pmovzxdq | Vpmovzxdq => self.widen(O::PMovZxDq, 8),
            Movq2dq => {
                self.mmx_check();
                let x = self.mmx_read(1);
                self.mmx_state();
                let v = self.b.vfromscalar(x);
                self.set_dst_low(v);
            }
            Movdq2q => {
                self.mmx_check();
                let v = self.vsrc(1);
                let x = self.low_int(v.0, 64);
                self.set_mm(x);
            }
            Extrq => {
                let v = self.vsrc(0);
                let x = self.low_int(v.0, 64);
                let control = self.field_control(1, 0);
                let r = self.b.call(helpers::EXTRACT_FIELD, &[x, control]);
                let r = self.b.vfromscalar(r);
                self.set_dst_low(r);
            }
            Insertq => {
                let (v, from) = (self.vsrc(0), self.vsrc(1));
                let control = self.field_control(2, 1);
                let (x, y) = (self.low_int(v.0, 64), self.low_int(from.0, 64));
                let r = self.b.call(helpers::INSERT_FIELD, &[x, y, control]);
                let r = self.b.vfromscalar(r);
                self.set_dst_low(r);
            }
            _ => return None,
        }
        Some(Flow::Next)
    }

    /// Length (bits 5:0) and index (bits 13:8) of EXTRQ and INSERTQ: immediates from operand `imm` on, or in a register:
    /// the low quadword's of EXTRQ, the high one's of INSERTQ (`lane`).
    fn field_control(&mut self, imm: u32, lane: u32) -> Value {
        if imm < self.i.op_count() && self.i.op_kind(imm) != OpKind::Register {
            let (len, index) = (self.i.immediate8() as u64, self.i.immediate8_2nd() as u64);
            return self.c64(len & 63 | (index & 63) << 8);
        }
        let v = self.vsrc(1);
        self.b.vextract(Type::I64, Lane::D, v.0, lane)
    }

    fn extract(&mut self, lane: Lane) {
        let index = self.imm8() as u32 & (lane.count() - 1);
        let bits = lane.bits();
        let v = self.vsrc(1);
        let ty = Self::ty(bits);
        let x = self.b.vextract(ty, lane, v.0, index);
        if self.is_mem(0) {
            let at = self.ea(bits / 8, true);
            self.store(bits, at, x);
        } else {
            let n = self.i.op_register(0).full_register().number() as u32;
            self.set_reg(bits.max(32), n, x);
        }
    }

    fn insert_lane(&mut self, lane: Lane) {
        let index = self.imm8() as u32 & (lane.count() - 1);
        let (a, b) = self.sources();
        let bits = lane.bits();
        let x = if self.is_mem(b) {
            let at = self.ea(bits / 8, false);
            self.load(bits, at)
        } else {
            let n = self.i.op_register(b).full_register().number() as u32;
            self.reg(bits.max(32), n)
        };
        let a = self.vsrc(a);
        let r = self.b.vinsert(lane, a.0, index, x);
        self.set_dst_low(r);
    }

    /// PMOVSX and PMOVZX: each half of the result takes `bytes` of the source.
    fn widen(&mut self, op: SimdOp, bytes: u64) {
        let n = self.halves();
        let v: Halves = self.vsrc_aligned(1, false);
        let r = self.each(n, |t, h| {
            let from = if h == 0 { v.0 } else { t.b.simd(SimdOp::PSrlDq, Fmt::Ps, &[v.0], bytes) };
            t.b.simd(op, Fmt::Ps, &[from], 0)
        });
        self.set_dst(r);
    }
}
