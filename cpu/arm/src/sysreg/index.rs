//! Finding registers by encoding, and which accesses need no more than a move of the value.

use super::{F, Kind, REDIRECTED, RegDesc, T, computed, op0, op1, table};
use crate::config::{ArmConfig, Feature};
use crate::mode::{ArmMode, mmu};
use crate::reg::Reg;
use crate::state::slots;
use rhea_ir::Slot;

/// Registers and instructions of one processor model by encoding.
pub(crate) struct Index {
    /// For each encoding the place in `descs`, 0 for none.
    places: Box<[u16]>,
    /// What each of `descs` becomes at an EL2 with E2H.
    hosted: Vec<u16>,
    descs: Vec<RegDesc>,
}

impl Index {
    pub(crate) fn new(config: &ArmConfig) -> Index {
        let mut places = vec![0u16; 1 << 16].into_boxed_slice();
        // Place 0 is not used.
        let mut descs = vec![table::TABLE[0]];
        let mut add = |d: RegDesc| {
            if d.feature.is_none_or(|f| config.has(f)) {
                places[usize::from(d.enc)] = descs.len() as u16;
                descs.push(d);
            }
        };
        table::TABLE.iter().for_each(|d| add(*d));
        for e in 1 << 14..=u16::MAX {
            // A register of the table that is absent is not a computed one instead.
            if let Some(d) = computed(config, e).filter(|_| !table::contains(e)) {
                add(d);
            }
        }
        let hosted = (0..descs.len())
            .map(|n| {
                let to = REDIRECTED.iter().find(|r| n != 0 && r.0 == descs[n].enc).map(|r| places[usize::from(r.1)]);
                to.filter(|n| *n != 0).unwrap_or(n as u16)
            })
            .collect();
        Index { places, hosted, descs }
    }
    #[inline]
    pub(crate) fn find(&self, e: u16) -> Option<&RegDesc> {
        match self.places[usize::from(e)] {
            0 => None,
            n => self.descs.get(usize::from(n)),
        }
    }
    /// The same as an EL2 with E2H sees it.
    #[inline]
    pub(crate) fn find_hosted(&self, e: u16) -> Option<&RegDesc> {
        match self.places[usize::from(e)] {
            0 => None,
            n => self.descs.get(usize::from(self.hosted[usize::from(n)])),
        }
    }
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} system registers", self.descs.len() - 1)
    }
}

/// An access to a register that has no effect but the move and cannot trap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plain {
    /// Reads this value.
    Const(u64),
    /// Is the slot (I64); writes are masked.
    Slot(Slot, u64),
    /// Writes half of a key: 2 × key + 1 for the high half.
    Key(u32),
    /// The bits of PSTATE under the mask, in SPSR layout (reads only).
    Pstate(u32),
}

/// Is an access to `e` under `mode` a plain one?
pub fn plain(config: &ArmConfig, mode: ArmMode, e: u16, write: bool) -> Option<Plain> {
    let el = mode.el();
    let host = matches!(mode.mmu_idx(), mmu::E20_2 | mmu::E20_2_PAN);
    let index = config.sysregs();
    if op0(e) != 3 || op1(e) == 5 || (op1(e) == 4 && !config.has(Feature::El2)) {
        return None;
    }
    let d = if host && matches!(op1(e), 0 | 3) { index.find_hosted(e) } else { index.find(e) }?;
    if d.levels >> (el + if write { 4 } else { 0 }) & 1 == 0 {
        return None;
    }
    let trapped = config.has(Feature::El2) && el <= 1 && mode.control_traps();
    let untrapped = |t: &T| matches!(t, T::Tvm | T::IdGroup1 | T::IdGroup3) && !trapped;
    // DAIF may be trapped at EL0 only, keys have a trap of their own.
    let open = match d.kind {
        Kind::Fun(F::Daif) => el > 0,
        Kind::Fun(F::Key(..)) => !mode.key_traps(),
        _ => false,
    };
    if !open && !d.traps.iter().all(untrapped) {
        return None;
    }
    match d.kind {
        Kind::Const(v) if !write => Some(Plain::Const(v)),
        Kind::Id(f) if !write => Some(Plain::Const(f(config))),
        Kind::Store(r, mask) if !write || moves(r) => Some(Plain::Slot(slots::sys(r), mask)),
        Kind::Fun(f) => match f {
            F::SpEl(0) if mode.sp_sel() => Some(Plain::Slot(slots::sp_el(0), u64::MAX)),
            // Banked for a level below the current one.
            F::SpEl(n) if n > 0 && u32::from(n) < el => Some(Plain::Slot(slots::sp_el(n.into()), u64::MAX)),
            F::TpidrEl0 => Some(Plain::Slot(slots::TPIDR_EL0, u64::MAX)),
            F::TpidrroEl0 => Some(Plain::Slot(slots::TPIDRRO_EL0, u64::MAX)),
            F::Tpidr(1) => Some(Plain::Slot(slots::TPIDR_EL1, u64::MAX)),
            F::Tpidr(2) => Some(Plain::Slot(slots::TPIDR_EL2, u64::MAX)),
            F::Tpidr(3) => Some(Plain::Slot(slots::TPIDR_EL3, u64::MAX)),
            F::Key(k, half) => {
                let which = 2 * u32::from(k) + u32::from(half);
                Some(if write { Plain::Key(which) } else { Plain::Slot(slots::key(which), u64::MAX) })
            }
            F::Midr if !write && (el > 1 || !config.has(Feature::El2)) => Some(Plain::Const(config.midr)),
            F::CurrentEl if !write => Some(Plain::Const(u64::from(el) << 2)),
            F::SpSel if !write => Some(Plain::Const(mode.sp_sel().into())),
            F::Daif if !write => Some(Plain::Pstate(crate::bits::pstate::DAIF)),
            F::Pan if !write => Some(Plain::Pstate(crate::bits::pstate::PAN)),
            F::Uao if !write => Some(Plain::Pstate(crate::bits::pstate::UAO)),
            F::Dit if !write => Some(Plain::Pstate(crate::bits::pstate::DIT)),
            F::Ssbs if !write => Some(Plain::Pstate(crate::bits::pstate::SSBS)),
            _ => None,
        },
        _ => None,
    }
}

/// Does a write of the register do nothing but store it (under its mask)?
fn moves(r: Reg) -> bool {
    use Reg::*;
    matches!(
        r,
        ElrEl1
            | ElrEl2
            | ElrEl3
            | SpsrEl1
            | SpsrEl2
            | SpsrEl3
            | EsrEl1
            | EsrEl2
            | EsrEl3
            | FarEl1
            | FarEl2
            | FarEl3
            | HpfarEl2
            | VbarEl1
            | VbarEl2
            | VbarEl3
            | ParEl1
            | CsselrEl1
            | ContextidrEl1
            | ContextidrEl2
            | VpidrEl2
            | VmpidrEl2
    )
}

#[cfg(test)]
mod tests {
    use super::super::{enc, find};
    use super::*;

    /// The index names what the tables do.
    #[test]
    fn index_is_complete() {
        for model in ["max", "cortex-a53", "neoverse-n1"] {
            let mut c = ArmConfig::from_option(model).unwrap();
            c.gic_sysregs = true;
            for d in &table::TABLE {
                assert_eq!(find(&c, d.enc).is_some(), d.feature.is_none_or(|f| c.has(f)), "{}", d.name);
            }
            for e in 0..=u16::MAX {
                if !table::contains(e) {
                    let there = computed(&c, e).filter(|d| op0(d.enc) != 0 && d.feature.is_none_or(|f| c.has(f)));
                    assert_eq!(find(&c, e).map(|d| d.name), there.map(|d| d.name), "{e:#x}");
                }
            }
        }
    }

    #[test]
    fn plain_accesses() {
        let mut c = ArmConfig::all_features();
        let (esr, sp_el0, daif) = (enc(3, 0, 5, 2, 0), enc(3, 0, 4, 1, 0), enc(3, 3, 4, 2, 1));
        let el1 = ArmMode(0).with_el(1).with_mmu_idx(mmu::E10_1).with_sp_sel(true);
        let slot = |r| Some(Plain::Slot(slots::sys(r), 0xffff_ffff));
        assert_eq!(plain(&c, el1, esr, true), slot(Reg::EsrEl1));
        assert_eq!(plain(&c, el1.with_control_traps(true), esr, true), None);
        assert_eq!(plain(&c, el1.with_el(0), esr, false), None);
        let el2 = el1.with_el(2).with_control_traps(true);
        assert_eq!(plain(&c, el2.with_mmu_idx(mmu::E2), esr, false), slot(Reg::EsrEl1));
        assert_eq!(plain(&c, el2.with_mmu_idx(mmu::E20_2), esr, false), slot(Reg::EsrEl2));
        assert_eq!(plain(&c, el2.with_mmu_idx(mmu::E20_2), enc(3, 5, 5, 2, 0), false), None);
        assert_eq!(plain(&c, el1, sp_el0, false), Some(Plain::Slot(slots::sp_el(0), u64::MAX)));
        assert_eq!(plain(&c, el1.with_sp_sel(false), sp_el0, false), None);
        assert_eq!(plain(&c, el1, daif, false), Some(Plain::Pstate(0x3c0)));
        assert_eq!(plain(&c, el1.with_el(0), daif, false), None);
        // Writes with consequences, registers of absent levels, values of another register.
        assert_eq!(plain(&c, el1, enc(3, 0, 2, 0, 2), true), None);
        assert!(plain(&c, el1, enc(3, 0, 2, 0, 2), false).is_some());
        assert_eq!(plain(&c, el1, enc(3, 0, 0, 0, 0), false), None);
        c.set(Feature::El2, false);
        assert_eq!(plain(&c, el1, enc(3, 0, 0, 0, 0), false), Some(Plain::Const(c.midr)));
        assert_eq!(plain(&c, el1.with_el(3).with_mmu_idx(mmu::E3), enc(3, 4, 5, 2, 0), false), None);
    }
}
