//! Invalidations of translations: tlbie, tlbiel and H_RPT_INVALIDATE (Book III, 6.9.3.2; LoPAPR).

use crate::bits::lpcr;
use crate::exception::{Vector, program};
use crate::state::PpcCpu;
use rhea_ir::guest::{Contexts, TlbFlush};

/// Page sizes of radix trees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageSize {
    K4,
    K64,
    M2,
    G1,
}

impl PageSize {
    /// By AP of tlbie.
    fn of_ap(ap: u64) -> Option<PageSize> {
        match ap {
            0 => Some(PageSize::K4),
            5 => Some(PageSize::K64),
            1 => Some(PageSize::M2),
            2 => Some(PageSize::G1),
            _ => None,
        }
    }
    pub fn shift(self) -> u32 {
        match self {
            PageSize::K4 => 12,
            PageSize::K64 => 16,
            PageSize::M2 => 21,
            PageSize::G1 => 30,
        }
    }
}

/// Constants of H_RPT_INVALIDATE.
pub mod rpt_invalidate {
    pub const TARGET_ALL: u64 = 1;
    pub const TARGET_LOCAL: u64 = 2;
    pub const TARGET_NEST: u64 = 4;
    pub const TYPE_NESTED: u64 = 1;
    pub const TYPE_TLB: u64 = 2;
    pub const TYPE_PWC: u64 = 4;
    pub const TYPE_PRT: u64 = 8;
    pub const SUCCESS: i64 = 0;
    pub const FUNCTION: i64 = -2;
    pub const P2: i64 = -55;
    pub const P3: i64 = -56;
    pub const P5: i64 = -58;
}

/// Fields of tlbie and tlbiel beside RS and RB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Form {
    pub local: bool,
    pub ric: u32,
    pub process: bool,
    pub radix: bool,
}

impl Form {
    pub fn pack(self) -> u64 {
        u64::from(self.local) | u64::from(self.process) << 1 | u64::from(self.radix) << 2 | u64::from(self.ric) << 3
    }
    fn unpack(v: u64) -> Form {
        Form { local: v & 1 != 0, process: v & 2 != 0, radix: v & 4 != 0, ric: (v >> 3) as u32 & 3 }
    }
}

impl PpcCpu {
    /// Forgets the translations of a process. Those of process 0 are the operating system's in all contexts: Linux invalidates
    /// them whenever one of its pages goes, for each instruction that it patches, so only what has changed is forgotten.
    fn flush_process(&mut self, pid: u64, everywhere: bool) {
        if pid == 0 {
            self.flush(TlbFlush::Outdated, everywhere);
        }
        let of = Contexts { mask: u64::MAX, value: pid };
        self.flush(TlbFlush::Context { indexes: Self::TRANSLATED, of }, everywhere);
    }
    fn flush_process_pages(&mut self, pid: u64, va: u64, bytes: u64, everywhere: bool) {
        let start = va & !0xfff;
        let pages = (bytes.saturating_add(va - start).saturating_add(0xfff) >> 12).max(1);
        let of = if pid == 0 { Contexts::ALL } else { Contexts { mask: u64::MAX, value: pid } };
        self.flush(TlbFlush::Range { va: start, pages, indexes: Self::TRANSLATED, of }, everywhere);
    }

    /// tlbie, tlbiel; `form` as [`Form::pack`] has it.
    pub(crate) fn tlb_invalidate(&mut self, form: u64, rs: u64, rb: u64) {
        let form = Form::unpack(form);
        // tlbie is the hypervisor's unless LPCR.GTSE gives it to the guest; partition-scoped entries always are.
        let permitted = if form.local {
            form.process || !self.is_radix()
        } else {
            self.lpcr() & lpcr::GTSE != 0 && (form.process || !self.is_radix())
        };
        if !permitted {
            return self.raise(Vector::Program, program::PRIVILEGED);
        }
        let everywhere = !form.local;
        if !form.radix {
            // Entries of hashed tables, which a guest invalidates by hypervisor calls.
            return self.flush(TlbFlush::Indexes(Self::TRANSLATED), everywhere);
        }
        if form.ric == 1 {
            // No page walks are cached apart from translations.
            return;
        }
        let pid = rs >> 32;
        match (rb >> 10 & 3, PageSize::of_ap(rb >> 5 & 7)) {
            (0, Some(size)) => {
                let va = rb >> size.shift() << size.shift();
                self.flush_process_pages(pid, va, 1 << size.shift(), everywhere);
            }
            (1, _) => self.flush_process(pid, everywhere),
            _ => self.flush(TlbFlush::Indexes(Self::TRANSLATED), everywhere),
        }
    }
    /// tlbsync, slbsync and the like: nothing waits. Raises what a guest without GTSE gets.
    pub(crate) fn tlb_sync(&mut self) {
        if self.lpcr() & lpcr::GTSE == 0 {
            self.raise(Vector::Program, program::PRIVILEGED);
        }
    }

    /// H_RPT_INVALIDATE (LoPAPR): processors, what, page sizes, addresses from `start` to before `end`. The result is the call's.
    pub fn rpt_invalidate(&mut self, pid: u64, target: u64, what: u64, sizes: u64, start: u64, end: u64) -> i64 {
        use rpt_invalidate as c;
        if !self.is_radix() || what & c::TYPE_NESTED != 0 {
            return c::FUNCTION;
        }
        if target == 0 || target & !(c::TARGET_ALL | c::TARGET_LOCAL | c::TARGET_NEST) != 0 {
            return c::P2;
        }
        if what & !(c::TYPE_TLB | c::TYPE_PWC | c::TYPE_PRT) != 0 || what == 0 {
            return c::P3;
        }
        if start > end {
            return c::P5;
        }
        let everywhere = target & c::TARGET_ALL != 0;
        if what & c::TYPE_PRT != 0 || what & (c::TYPE_TLB | c::TYPE_PWC) == c::TYPE_TLB | c::TYPE_PWC {
            self.flush_process(pid & 0xffff_ffff, everywhere);
        } else if what & c::TYPE_TLB != 0 {
            if (start == 0 && end == u64::MAX) || sizes == 0 {
                self.flush_process(pid & 0xffff_ffff, everywhere);
            } else {
                self.flush_process_pages(pid & 0xffff_ffff, start, end - start, everywhere);
            }
        }
        c::SUCCESS
    }
    /// The process table of the partition is another one, or the kind of translation is: forgets all, on all processors.
    pub fn invalidate_all_translations(&mut self) {
        self.flush(TlbFlush::All, true);
    }
}
