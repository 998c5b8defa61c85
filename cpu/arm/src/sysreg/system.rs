//! System instructions on memory: DC ZVA and cache maintenance by address.

use crate::mmu::{Regime, Request};
use crate::mode::ArmMode;
use crate::state::ArmCpu;
use rhea_ir::guest::{Access, MemAccess};
use rhea_memory::{Gpa, Requester};

impl ArmCpu {
    fn data_request(&self, access: Access) -> (u32, Request) {
        let idx = ArmMode(self.header.mode).mmu_idx();
        (idx, Request { regime: Regime::of_index(idx), access: Some(access), stage2: true, update: true })
    }

    /// Cache maintenance by address: nothing is cached, but the address must be one (faults have CM set).
    pub(super) fn data_cache(&mut self, va: u64, for_write: bool) {
        // Read permission is asked only of EL0, write permission by DC IVAC.
        let access = if for_write { Access::Write } else { Access::Read };
        let (_, mut request) = self.data_request(access);
        if self.el() != 0 && !for_write {
            request.regime.pan = false;
        }
        request.update = false;
        if let Err(fault) = self.translate_address(va, &request) {
            self.raise_maintenance_fault(va, fault);
        }
    }

    /// DC ZVA where it is not translated inline.
    pub(super) fn zero_block(&mut self, va: u64) {
        let size = 1u64 << self.config.zva_log2;
        let start = va & !(size - 1);
        let (idx, request) = self.data_request(Access::Write);
        let access = MemAccess { va: start, size: size as u32, kind: Access::Write, mmu_idx: idx };
        match self.translate_address(va, &request) {
            Err(fault) => self.raise_fault(va, Access::Write, fault),
            Ok(m) if m.device() => self.raise_alignment(MemAccess { va, ..access }),
            Ok(m) => {
                if self.page_is_watched(start) && self.watch_check(access).is_err() {
                    return;
                }
                let zeros = [0u8; 64];
                let n = (size as usize).min(zeros.len());
                if self.space.write(Gpa(m.pa & !(size - 1)), &zeros[..n], Requester::Cpu(self.index)).is_err() {
                    self.raise_external(MemAccess { va, ..access });
                }
            }
        }
    }
}
