//! MMU faults and the exceptions they become.

use super::Regime;
use crate::bits::{hcr, scr};
use crate::config::Feature;
use crate::exception::Vector;
use crate::mode::ArmMode;
use crate::reg::Reg;
use crate::state::ArmCpu;
use crate::syndrome::{self, ec, iss};
use rhea_ir::guest::{Access, MemAccess};
use rhea_memory::Gpa;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FaultKind {
    Translation,
    AccessFlag,
    Permission,
    AddressSize,
    /// Synchronous external abort on a table walk.
    ExternalWalk,
    /// Hardware update of a descriptor failed.
    UnsupportedAtomic,
}

/// Why a walk failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    pub kind: FaultKind,
    /// -1 to 3.
    pub level: i32,
    pub stage2: bool,
    /// A stage 2 fault on the access to a stage 1 descriptor.
    pub s1ptw: bool,
    /// For stage 2: the faulting intermediate physical address.
    pub ipa: u64,
}

impl Fault {
    pub const fn stage1(kind: FaultKind, level: i32) -> Fault {
        Fault { kind, level, stage2: false, s1ptw: false, ipa: 0 }
    }
    pub const fn stage2(kind: FaultKind, level: i32, ipa: u64, s1ptw: bool) -> Fault {
        Fault { kind, level, stage2: true, s1ptw, ipa }
    }
    /// The fault status code.
    pub const fn status(&self) -> u64 {
        let level = if self.level < 0 { 0 } else { self.level as u64 & 3 };
        match (self.kind, self.level < 0) {
            (FaultKind::Translation, true) => 0x2b,
            (FaultKind::Translation, false) => 0x04 | level,
            (FaultKind::AccessFlag, _) => 0x08 | level,
            (FaultKind::Permission, _) => 0x0c | level,
            (FaultKind::AddressSize, true) => 0x29,
            (FaultKind::AddressSize, false) => level,
            (FaultKind::ExternalWalk, true) => 0x13,
            (FaultKind::ExternalWalk, false) => 0x14 | level,
            (FaultKind::UnsupportedAtomic, _) => 0x31,
        }
    }
}

const ALIGNMENT: u64 = 0x21;
const EXTERNAL: u64 = 0x10;

impl ArmCpu {
    /// Raises the abort for a failed access.
    pub(crate) fn raise_fault(&mut self, va: u64, access: Access, fault: Fault) {
        let external = matches!(fault.kind, FaultKind::ExternalWalk);
        let mut target = self.default_target();
        if fault.stage2 {
            target = 2;
        } else if external {
            target = self.external_target();
        }
        let mut extra = fault.status();
        if fault.s1ptw {
            extra |= iss::S1PTW;
        }
        if fault.stage2 {
            // FIPA, bits 51:12 at 43:4.
            self[Reg::HpfarEl2] = (fault.ipa >> 12 << 4) & 0x0000_0fff_ffff_fff0;
            if access != Access::Fetch && !fault.s1ptw {
                extra |= self.instruction_syndrome();
            }
        }
        self.raise_abort(target, va, access, extra);
    }
    /// The same for cache maintenance by address: reported as a write with CM.
    pub(crate) fn raise_maintenance_fault(&mut self, va: u64, fault: Fault) {
        self.raise_fault(va, Access::Write, fault);
        let el = self.el();
        self.sys[crate::reg::family::ESR.of_el(el)] |= iss::CM;
        // A cache operation has no instruction syndrome.
        self.sys[crate::reg::family::ESR.of_el(el)] &= !iss::ISV;
    }
    pub(crate) fn raise_alignment(&mut self, access: MemAccess) {
        let target = self.default_target();
        self.raise_abort(target, access.va, access.kind, ALIGNMENT);
    }
    /// Synchronous external abort on the access itself.
    pub(crate) fn raise_external(&mut self, access: MemAccess) {
        let target = self.external_target();
        self.raise_abort(target, access.va, access.kind, EXTERNAL);
    }
    fn external_target(&self) -> u32 {
        if self.has(Feature::El3) && self[Reg::ScrEl3] & scr::EA != 0 {
            3
        } else if self.el() <= 1 && self.hcr() & hcr::TEA != 0 {
            2
        } else {
            self.default_target()
        }
    }
    fn raise_abort(&mut self, target: u32, va: u64, access: Access, mut extra: u64) {
        let target = target.max(self.el()).max(1);
        let lower = self.el() < target;
        let class = match (access == Access::Fetch, lower) {
            (true, true) => ec::INSN_ABORT_LOWER,
            (true, false) => ec::INSN_ABORT,
            (false, true) => ec::DATA_ABORT_LOWER,
            (false, false) => ec::DATA_ABORT,
        };
        if access == Access::Write {
            extra |= iss::WNR;
        }
        self.take_exception(target, Vector::Sync, Some(syndrome::syndrome(class, extra)), Some(va), self.header.pc);
    }
    /// ISS[24:14] from the instruction at the pc.
    fn instruction_syndrome(&self) -> u64 {
        let pc = self.header.pc;
        let regime = Regime::of_index(ArmMode(self.header.mode).mmu_idx());
        let request = super::Request { regime, access: None, stage2: true, update: false };
        let Ok(m) = self.translate_address(pc, &request) else { return 0 };
        let mut bytes = [0; 4];
        match self.space.read(Gpa(m.pa), &mut bytes, rhea_memory::Requester::Debugger) {
            Ok(()) => syndrome::isv(u32::from_le_bytes(bytes)),
            Err(_) => 0,
        }
    }
}
