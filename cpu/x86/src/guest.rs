//! `rhea_ir::Guest` for the processor: what an execution engine drives.

use crate::config::X86Config;
use crate::exception::{Exception, Vector};
use crate::helpers::HELPERS;
use crate::mode::X86Mode;
use crate::state::{Seg, X86Cpu};
use rhea_ir::guest::{Access, Guest, MemAccess, Poll, Raised, TlbFlush, Translated, Translation};
use rhea_ir::{Builder, EnvHeader, FpMode, HelperDesc};
use rhea_memory::Gpa;
use std::sync::Arc;

impl X86Cpu {
    /// Ends an exception raised outside a helper.
    pub(crate) fn raised(&mut self, e: Exception) -> Raised {
        self.raise_exception(e);
        self.header.raised = 0;
        Raised
    }
    /// Misaligned operands of this many bytes are #GP(0) rather than #AC.
    const VECTOR: u32 = 16;
}

impl Guest for X86Cpu {
    const HELPERS: &'static [HelperDesc] = &HELPERS;
    const ARCH: &'static str = "x86_64";
    const RMW_FAULTS_AS_WRITE: bool = true;
    const OPEN_BUS: bool = true;
    type Config = X86Config;

    fn config(&self) -> Arc<X86Config> {
        self.config.clone()
    }
    fn header(&self) -> &EnvHeader {
        &self.header
    }
    fn header_mut(&mut self) -> &mut EnvHeader {
        &mut self.header
    }
    fn context(&self) -> u64 {
        self.pcid()
    }
    fn fp_mode(mode: u64) -> FpMode {
        X86Mode(mode).fp_mode()
    }
    fn fetch_index(mode: u64) -> u32 {
        X86Mode(mode).mmu_idx()
    }
    fn translate(config: &X86Config, mode: u64, _: u8, code: &[u8], max_insns: u32, b: &mut Builder) -> Translated {
        crate::translate::translate(config, mode, code, max_insns, b)
    }

    fn walk(&mut self, va: u64, access: Access, mmu_idx: u32) -> Result<Translation, Raised> {
        let va = if va >> 32 != 0 && !self.is_long() { self.behind_4gib(va, access)? } else { va };
        match X86Cpu::translate(self, va, Some(access), mmu_idx) {
            Ok(m) => Ok(Translation {
                page: Gpa(m.pa & !0xfff),
                readable: m.read,
                writable: m.write,
                executable: m.execute,
                device: false,
                secure: self.smm,
                slow: self.page_is_watched(va),
                global: m.global,
                code_attrs: 0,
            }),
            Err(mut e) => {
                if e.vector == Vector::GeneralProtection {
                    if access == Access::Fetch {
                        self.undo_branch();
                    } else if self.operand_segment(va) == Some(Seg::Ss) {
                        e.vector = Vector::StackFault;
                    }
                } else if access != Access::Fetch && self.crosses_4gib(va) {
                    // The limit comes before paging.
                    self.behind_4gib(va, access)?;
                }
                Err(self.raised(e))
            }
        }
    }
    fn walk_debug(&mut self, va: u64) -> Option<Translation> {
        let idx = X86Mode(self.header.mode).mmu_idx();
        let m = X86Cpu::translate(self, va, None, idx).ok()?;
        Some(Translation {
            page: Gpa(m.pa & !0xfff),
            readable: true,
            writable: true,
            executable: true,
            device: false,
            secure: self.smm,
            slow: false,
            global: false,
            code_attrs: 0,
        })
    }
    fn alignment_fault(&mut self, access: MemAccess) -> Raised {
        let e = if access.size >= Self::VECTOR {
            Exception::gp(0)
        } else {
            // An address that is none comes first, and so does the end of a segment.
            let last = access.va.wrapping_add(u64::from(access.size) - 1);
            let bad = if self.is_long() { !self.canonical(access.va) } else { last >> 32 != 0 };
            let at = if self.is_long() { access.va } else { last };
            if bad && let Err(raised) = self.walk(at, access.kind, access.mmu_idx) {
                return raised;
            }
            Exception::new(Vector::AlignmentCheck, Some(0))
        };
        self.raised(e)
    }
    fn bus_fault(&mut self, access: MemAccess) -> Raised {
        // Reads of nothing give ones and writes are lost (`OPEN_BUS`). So do instruction fetches, and FF FF is no instruction.
        if access.kind == Access::Fetch {
            self.hooks.guest_error(self.index, &format!("instruction fetch outside of memory at {:#x}", access.va));
            return self.raised(Exception::ud());
        }
        self.raised(Exception::new(Vector::MachineCheck, None))
    }
    fn check_access(&mut self, access: MemAccess) -> Result<(), Raised> {
        let r = self.watch_check(access);
        self.header.raised = 0;
        r
    }

    fn poll(&mut self) -> Poll {
        self.header.raised = 0;
        if self.debug.event.is_some() {
            return Poll::Debug;
        }
        let poll = self.poll_events();
        self.header.raised = 0;
        if self.debug.event.is_some() { Poll::Debug } else { poll }
    }

    fn take_flushes(&mut self) -> Vec<(TlbFlush, bool)> {
        std::mem::take(&mut self.flushes)
    }
    fn reset(&mut self) {
        self.reset_state();
    }
}
