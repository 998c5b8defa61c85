//! Address translation instructions (AT).

use super::{FaultKind, Regime, Request};
use crate::bits::pstate;
use crate::mode::mmu as index;
use crate::reg::Reg;
use crate::state::ArmCpu;
use rhea_ir::guest::Access;

/// Which translation an AT instruction asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AtOp {
    /// The level whose regime: 0, 1, 2, 3.
    pub el: u32,
    pub write: bool,
    /// Both stages (S12E1R...).
    pub both: bool,
    /// Honours PSTATE.PAN (S1E1RP, S1E1WP).
    pub pan: bool,
}

impl ArmCpu {
    /// Performs it and sets PAR_EL1, or raises what the walk itself met: an external abort, or for EL1 a stage 2 fault on an access
    /// to a stage 1 table.
    pub(crate) fn address_translate(&mut self, va: u64, op: AtOp) {
        let secure = if self.lower_secure() { index::SE10_0 } else { 0 };
        let pan = op.pan && self.pstate & pstate::PAN != 0;
        // EL1 and EL0 operations in a host concern its own regime.
        let host = self.in_host() && !op.both;
        let idx = match op.el {
            0 if host => index::E20_0,
            0 => index::E10_0 | secure,
            1 if host => {
                if pan {
                    index::E20_2_PAN
                } else {
                    index::E20_2
                }
            }
            1 => secure | if pan { index::E10_1_PAN } else { index::E10_1 },
            2 if self.e2h() => index::E20_2,
            2 => index::E2,
            _ => index::E3,
        };
        let request = Request {
            regime: Regime::of_index(idx),
            access: Some(if op.write { Access::Write } else { Access::Read }),
            stage2: op.both,
            update: false,
        };
        let result = self.translate_address(va, &request);
        if let Err(f) = result
            && (f.kind == FaultKind::ExternalWalk || (f.s1ptw && self.el() == 1))
        {
            return self.raise_maintenance_fault(va, f);
        }
        self[Reg::ParEl1] = match result {
            Ok(m) => {
                let shareability = if m.device() || m.attributes == 0x44 { 2 } else { u64::from(m.shareability) };
                let ns = u64::from(!m.secure) << 9;
                (m.pa & 0x000f_ffff_ffff_f000) | (u64::from(m.attributes) << 56) | 1 << 11 | ns | shareability << 7
            }
            Err(f) => 1 | 1 << 11 | f.status() << 1 | u64::from(f.s1ptw) << 8 | u64::from(f.stage2) << 9,
        };
    }
}
