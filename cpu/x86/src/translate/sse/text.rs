//! String compares of SSE4.2 (vol. 1, 12.10; vol. 2, 4.1).

use super::super::{Flow, Translator};
use super::helpers;
use crate::state::gpr;
use iced_x86::Mnemonic;
use rhea_ir::{Type, Value};

impl Translator<'_, '_> {
    pub(super) fn sse_text(&mut self, m: Mnemonic) -> Option<Flow> {
        use Mnemonic::*;
        let (explicit, mask, wide) = match m {
            Pcmpistri | Vpcmpistri => (false, false, false),
            Pcmpistrm | Vpcmpistrm => (false, true, false),
            Pcmpestri | Vpcmpestri => (true, false, false),
            Pcmpestri64 | Vpcmpestri64 => (true, false, true),
            Pcmpestrm | Vpcmpestrm => (true, true, false),
            Pcmpestrm64 | Vpcmpestrm64 => (true, true, true),
            _ => return None,
        };
        let imm = self.imm8();
        // Operands need not be aligned.
        let (a, b) = (self.vsrc(0), self.vsrc_aligned(1, false));
        let mut control = self.c64(imm | (explicit as u64) << 8);
        if explicit {
            let words = self.c64(imm & 1);
            for (n, reg) in [(0, gpr::RAX), (1, gpr::RDX)] {
                let x = self.r64(reg);
                let x: Value = if wide { x } else { self.sx64_low(x) };
                let len = self.b.call(helpers::TEXT_LENGTH, &[x, words]);
                let len = self.shl(len, 16 + 8 * n);
                control = self.b.or(control, len);
            }
        }
        let r = self.b.call(helpers::COMPARE_TEXT, &[a.0, b.0, control]);
        let flags = self.shr(r, 32);
        let flags = self.b.trunc(flags);
        if mask {
            let bits = self.b.trunc(r);
            let bits = self.zx(bits, 16);
            let v = if imm & 0x40 == 0 {
                self.b.vfromscalar(bits)
            } else {
                let words = self.c64(imm & 1);
                let bits = self.b.zext64(bits);
                self.b.call(helpers::EXPAND_MASK, &[bits, words])
            };
            self.set_xmm(0, v);
            if self.vex() {
                let zero = self.b.vconst(0);
                self.set_ymm_hi(0, zero);
            }
        } else {
            let index = self.shr(r, 16);
            let index = self.b.trunc(index);
            let index = self.zx(index, 8);
            self.set_reg(32, gpr::RCX, index);
        }
        debug_assert_eq!(self.b.func.ty(flags), Type::I32);
        self.set_cc(flags);
        self.set_cf(flags);
        Some(Flow::Next)
    }

    fn sx64_low(&mut self, x: Value) -> Value {
        let x = self.b.trunc(x);
        self.b.sext64(x)
    }
}
