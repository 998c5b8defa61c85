//! `rhea_ir::Guest` for the processor: what an execution engine drives.

use crate::config::ArmConfig;
use crate::helpers::HELPERS;
use crate::mmu::{Regime, Request};
use crate::mode::ArmMode;
use crate::state::{ArmCpu, MANY_TAGGED_WALKS};
use rhea_ir::env::{PAGE_BITS, PAGE_SIZE};
use rhea_ir::guest::{Access, Guest, MemAccess, Poll, Raised, TlbFlush, Translated, Translation};
use rhea_ir::{Builder, EnvHeader, FpMode, HelperDesc};
use rhea_memory::Gpa;
use std::sync::Arc;

impl ArmCpu {
    fn lookup(&self, va: u64, request: &Request) -> Result<Translation, crate::mmu::Fault> {
        let m = self.translate_address(va, request)?;
        if m.size_log2 > 16 && m.size_log2 < 64 && request.access.is_some() {
            self.config.large_mappings.note(va, m.size_log2);
        }
        Ok(Translation {
            page: Gpa(m.pa & !(PAGE_SIZE - 1)),
            readable: m.read,
            writable: m.write,
            executable: m.execute,
            device: m.device(),
            secure: m.secure,
            global: m.global,
            slow: self.page_is_watched(va & !(PAGE_SIZE - 1)),
            code_attrs: m.guarded.into(),
        })
    }
    /// Ends an exception raised outside a helper.
    fn raised(&mut self) -> Raised {
        self.header.raised = 0;
        Raised
    }
}

const _: () = assert!(PAGE_BITS == 12);

impl Guest for ArmCpu {
    const HELPERS: &'static [HelperDesc] = &HELPERS;
    const ARCH: &'static str = "aarch64";
    type Config = ArmConfig;

    fn config(&self) -> Arc<ArmConfig> {
        self.config.clone()
    }
    fn header(&self) -> &EnvHeader {
        &self.header
    }
    fn header_mut(&mut self) -> &mut EnvHeader {
        &mut self.header
    }
    fn context(&self) -> u64 {
        self.tlb_context()
    }
    fn fp_mode(mode: u64) -> FpMode {
        ArmMode(mode).fp_mode()
    }
    fn fetch_index(mode: u64) -> u32 {
        ArmMode(mode).mmu_idx()
    }
    fn translate(
        config: &ArmConfig,
        mode: u64,
        code_attrs: u8,
        code: &[u8],
        max_insns: u32,
        b: &mut Builder,
    ) -> Translated {
        crate::translate::translate(config, mode, code_attrs, code, max_insns, b)
    }

    fn walk(&mut self, va: u64, access: Access, mmu_idx: u32) -> Result<Translation, Raised> {
        // Of the faults of a fetch, PC alignment has the highest priority (DDI 0487, D1.3.5).
        if access == Access::Fetch && va & 3 != 0 {
            self.raise_pc_alignment();
            return Err(self.raised());
        }
        // The sign of bit 55 in the top byte, or a tag (if tags are ignored; else the walk fails).
        if access != Access::Fetch && ((va << 8) as i64 >> 8) as u64 != va && self.tagged_walks < MANY_TAGGED_WALKS {
            self.tagged_walks += 1;
            if self.tagged_walks == MANY_TAGGED_WALKS {
                self.rebuild_mode();
            }
        }
        let request = Request { regime: Regime::of_index(mmu_idx), access: Some(access), stage2: true, update: true };
        match self.lookup(va, &request) {
            Ok(t) => Ok(t),
            Err(fault) => {
                self.raise_fault(va, access, fault);
                Err(self.raised())
            }
        }
    }
    fn walk_debug(&mut self, va: u64) -> Option<Translation> {
        let regime = Regime::of_index(ArmMode(self.header.mode).mmu_idx());
        self.lookup(va, &Request { regime, access: None, stage2: true, update: false }).ok()
    }
    fn alignment_fault(&mut self, access: MemAccess) -> Raised {
        if access.kind == Access::Fetch {
            self.raise_pc_alignment();
        } else {
            self.raise_alignment(access);
        }
        self.raised()
    }
    fn bus_fault(&mut self, access: MemAccess) -> Raised {
        self.raise_external(access);
        self.raised()
    }
    fn check_access(&mut self, access: MemAccess) -> Result<(), Raised> {
        self.watch_check(access).map_err(|_| self.raised())
    }

    fn poll(&mut self) -> Poll {
        self.header.raised = 0;
        self.note_pending();
        if self.debug.event.is_some() {
            return Poll::Debug;
        }
        if self.powered_off {
            return Poll::Off;
        }
        if self.pmu.regs.interrupts != 0 {
            self.pmu_sync();
        }
        if self.take_interrupt() {
            self.header.raised = 0;
            return Poll::Run;
        }
        if self.halted {
            if !self.wake_pending() {
                return Poll::Halt(None);
            }
            self.halted = false;
        }
        Poll::Run
    }

    fn take_flushes(&mut self) -> Vec<(TlbFlush, bool)> {
        std::mem::take(&mut self.flushes)
    }
    fn reset(&mut self) {
        self.reset_state();
    }
}
