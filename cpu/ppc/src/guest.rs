//! `rhea_ir::Guest` for the processor: what an execution engine drives.

use crate::config::PpcConfig;
use crate::exception::Vector;
use crate::helpers::HELPERS;
use crate::mode::PpcMode;
use crate::spr;
use crate::state::PpcCpu;
use rhea_ir::env::PAGE_SIZE;
use rhea_ir::guest::{Access, Guest, MemAccess, Poll, Raised, TlbFlush, Translated, Translation};
use rhea_ir::{Builder, EnvHeader, FpMode, HelperDesc};
use rhea_memory::Gpa;
use std::sync::Arc;

impl PpcCpu {
    /// Ends an interrupt raised outside a helper.
    fn raised(&mut self) -> Raised {
        self.header.raised = 0;
        Raised
    }
}

impl Guest for PpcCpu {
    const HELPERS: &'static [HelperDesc] = &HELPERS;
    const ARCH: &'static str = "ppc64";
    type Config = PpcConfig;

    fn config(&self) -> Arc<PpcConfig> {
        self.config.clone()
    }
    fn header(&self) -> &EnvHeader {
        &self.header
    }
    fn header_mut(&mut self) -> &mut EnvHeader {
        &mut self.header
    }
    fn fp_mode(mode: u64) -> FpMode {
        PpcMode(mode).fp_mode()
    }
    fn fetch_index(mode: u64) -> u32 {
        PpcMode(mode).fetch_idx()
    }
    fn translate(
        config: &PpcConfig,
        mode: u64,
        code_attrs: u8,
        code: &[u8],
        max_insns: u32,
        b: &mut Builder,
    ) -> Translated {
        crate::translate::translate(config, mode, code_attrs, code, max_insns, b)
    }

    fn walk(&mut self, va: u64, _access: Access, _mmu_idx: u32) -> Result<Translation, Raised> {
        Ok(Translation {
            page: Gpa(va & !(PAGE_SIZE - 1) & 0x0fff_ffff_ffff_ffff),
            readable: true,
            writable: true,
            executable: true,
            device: false,
            secure: false,
            slow: false,
            global: false,
            code_attrs: 0,
        })
    }
    fn walk_debug(&mut self, va: u64) -> Option<Translation> {
        self.walk(va, Access::Read, 0).ok()
    }
    fn alignment_fault(&mut self, access: MemAccess) -> Raised {
        self.spr[spr::DAR as usize] = access.va;
        self.raise(Vector::Alignment, 0);
        self.raised()
    }
    fn bus_fault(&mut self, access: MemAccess) -> Raised {
        self.spr[spr::DAR as usize] = access.va;
        self.raise(Vector::MachineCheck, 0);
        self.raised()
    }
    fn check_access(&mut self, _access: MemAccess) -> Result<(), Raised> {
        Ok(())
    }

    fn poll(&mut self) -> Poll {
        self.header.raised = 0;
        Poll::Run
    }

    fn take_flushes(&mut self) -> Vec<(TlbFlush, bool)> {
        std::mem::take(&mut self.flushes)
    }
    fn reset(&mut self) {
        self.reset_state();
    }
}
