//! `rhea_ir::Guest` for the processor: what an execution engine drives.

use crate::config::PpcConfig;
use crate::helpers::HELPERS;
use crate::mmu::Fault;
use crate::mode::PpcMode;
use crate::spr;
use crate::state::PpcCpu;
use rhea_ir::guest::{Access, Guest, MemAccess, Poll, Raised, TlbFlush, Translated, Translation};
use rhea_ir::{Builder, EnvHeader, FpMode, HelperDesc};
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
    const FLAT_INDEX: Option<u32> = Some(crate::mode::mmu::REAL);
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
    fn context(&self) -> u64 {
        if self.is_radix() { self.spr[spr::PIDR as usize] } else { self.sys.contexts.current() }
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

    fn walk(&mut self, va: u64, access: Access, mmu_idx: u32) -> Result<Translation, Raised> {
        match self.lookup(va, Some(access), mmu_idx) {
            Ok(t) => Ok(t),
            Err(fault) => {
                match fault {
                    Fault::Segment => self.raise_segment(va, access),
                    Fault::Storage(cause) => self.raise_storage(va, cause, access),
                }
                Err(self.raised())
            }
        }
    }
    fn walk_debug(&mut self, va: u64) -> Option<Translation> {
        let index = PpcMode(self.header.mode).data_idx();
        // Code that runs translated with data untranslated is rare; the debugger then sees real storage.
        self.lookup(va, None, index).ok()
    }
    fn alignment_fault(&mut self, access: MemAccess) -> Raised {
        self.raise_alignment(access.va);
        self.raised()
    }
    fn bus_fault(&mut self, access: MemAccess) -> Raised {
        self.raise_machine_check(access.va, access.kind == Access::Fetch);
        self.raised()
    }
    fn check_access(&mut self, access: MemAccess) -> Result<(), Raised> {
        self.watch_check(access).map_err(|_| self.raised())
    }

    fn poll(&mut self) -> Poll {
        self.header.raised = 0;
        if self.sys.debug.event.is_some() {
            return Poll::Debug;
        }
        if self.sys.powered_off {
            return Poll::Off;
        }
        // Before interrupts are looked at: a decrementer that passes zero after that must be found, whatever was taken.
        let waits = self.decrementer_pending();
        if !self.take_pending() {
            self.event_branch();
        }
        self.header.raised = 0;
        if self.sys.debug.event.is_some() {
            return Poll::Debug;
        }
        if self.sys.powered_off {
            return Poll::Off;
        }
        // The clock's timer may have come early, or for an earlier value.
        if !waits {
            self.watch_decrementer();
        }
        if self.sys.counting != 0 {
            self.watch_counters();
        }
        if self.sys.halted != self.sys.waits {
            self.sys.waits = self.sys.halted;
            let hooks = self.hooks.clone();
            hooks.dispatched(self.index, !self.sys.halted);
        }
        if self.sys.halted { Poll::Halt(None) } else { Poll::Run }
    }

    fn take_flushes(&mut self) -> Vec<(TlbFlush, bool)> {
        std::mem::take(&mut self.flushes)
    }
    fn flat_reads(&self) -> bool {
        !self.any_page_is_watched()
    }
    fn outdated(&mut self) -> Vec<TlbFlush> {
        self.outdated_translations()
    }
    fn reset(&mut self) {
        self.reset_state();
    }
}
