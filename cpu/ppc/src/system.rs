//! The state of Book III that is not a plain register, the machine state register, and the mode word made of them.

use crate::bits::{dsisr, fscr, lpcr, msr, pcr};
use crate::config::Isa;
use crate::debug::Debug;
use crate::exception::{Vector, program};
use crate::mmu::segments::Contexts;
use crate::mmu::slb::SlbEntry;
use crate::mode::{PpcMode, mmu};
use crate::spr;
use crate::state::PpcCpu;
use rhea_ir::env::MMU_INDEXES;
use rhea_ir::guest::{TlbFlush, request};

/// What translated accesses of an MMU index depend on besides the page tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Rights {
    pub problem: bool,
    /// AMR and IAMR as far as they take effect.
    pub amr: u64,
    pub iamr: u64,
}

/// MMU indexes of data accesses and of instruction fetch. They are not the same, so that code is found again after AMR, which
/// concerns data alone, was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Indexes {
    data: u32,
    fetch: u32,
}

/// Mode words kept.
const MODES: usize = 8;
/// The key of none.
const NO_MODE: u64 = u64::MAX;

/// Book III state beside `PpcCpu::spr`.
pub(crate) struct System {
    pub slb: [SlbEntry; 64],
    pub contexts: Contexts,
    /// What the MMU indexes stand for; [`mmu::REAL`] is not one of them.
    rights: [Option<Rights>; MMU_INDEXES],
    used: [u64; MMU_INDEXES],
    tick: u64,
    /// The indexes of translated accesses with MSR.PR clear and set.
    current: [Indexes; 2],
    /// Mode words made lately, by what of MSR they depend on and the MMU index; they hold until `rebuild_mode`.
    modes: [(u64, PpcMode); MODES],
    next_mode: usize,
    /// Waits in H_CEDE, H_JOIN.
    pub halted: bool,
    /// The hooks were told that it waits.
    pub waits: bool,
    /// H_PROD came before the H_CEDE.
    pub prodded: bool,
    pub powered_off: bool,
    /// A machine check waits: SRR1 bits, DSISR, DAR.
    pub machine_check: Option<(u64, u64, u64)>,
    /// Number of the thread in its core (TIR).
    pub thread: u32,
    pub debug: Debug,
    /// `PpcHooks::wants_exceptions`.
    pub tells_exceptions: bool,
    /// SPRs that do not exist and of which the log knows.
    told: [u64; 16],
    /// The range of the memory map that a walk found last.
    pub range_hint: usize,
    /// What TLBs hold of the operating system's radix tree.
    pub seen: crate::mmu::seen::Seen,
    /// The performance monitor's counters of these bits (1–6) count since this time base.
    pub counting_since: Option<u64>,
    pub counting: u32,
    /// Which of them count depends on MSR.
    pub counts_by_state: bool,
}

impl System {
    pub fn new(tells_exceptions: bool) -> System {
        System {
            slb: [SlbEntry::default(); 64],
            contexts: Contexts::default(),
            rights: [None; MMU_INDEXES],
            used: [0; MMU_INDEXES],
            tick: 0,
            current: [Indexes { data: 1, fetch: 1 }, Indexes { data: 2, fetch: 2 }],
            modes: [(NO_MODE, PpcMode(0)); MODES],
            next_mode: 0,
            halted: false,
            waits: false,
            prodded: false,
            powered_off: false,
            machine_check: None,
            thread: 0,
            debug: Debug::default(),
            tells_exceptions,
            told: [0; 16],
            range_hint: 0,
            seen: crate::mmu::seen::Seen::default(),
            counting_since: None,
            counting: 0,
            counts_by_state: false,
        }
    }
}

/// Bits of MSR that exist for a guest.
pub(crate) const MSR_BITS: u64 = msr::SF
    | msr::VEC
    | msr::VSX
    | msr::EE
    | msr::PR
    | msr::FP
    | msr::ME
    | msr::FE0
    | msr::SE
    | msr::BE
    | msr::FE1
    | msr::IR
    | msr::DR
    | msr::PMM
    | msr::RI
    | msr::LE;

/// How far `mtmsr[d]` and returns from interrupts reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MsrWrite {
    /// mtmsr: the low word but for ME and LE.
    Word,
    /// mtmsrd: all but HV, ME and LE.
    Doubleword,
    /// L = 1: EE and RI.
    Interrupts,
    /// rfid and rfscv: all but HV and ME.
    Return,
}

impl PpcCpu {
    /// Power-on state of what this module and its neighbours keep; the registers are zero.
    pub(crate) fn reset_system(&mut self) {
        let fresh = System::new(self.sys.tells_exceptions);
        let old = std::mem::replace(&mut self.sys, fresh);
        self.sys.debug = old.debug;
        self.sys.debug.reset();
        self.sys.thread = old.thread;
        self.sys.contexts.next_after(&old.contexts);
        self.pending = 0;
        self.spr[spr::PVR as usize] = u64::from(self.config.pvr);
        self.spr[spr::PPR as usize] = 4 << 50;
        self.spr[spr::CTRL as usize] = 1;
        self.spr[spr::PIR as usize] = u64::from(self.index);
        self.spr[spr::HFSCR as usize] = !fscr::IC;
        self.spr[spr::LPCR as usize] = if self.config.isa >= Isa::V3_0 { lpcr::UPRT } else { 0 };
        self.spr[spr::MMCR0 as usize] = 1 << 31;
        self.time.expires = self.time.now().wrapping_add(0x7fff_ffff);
        self.watch_decrementer();
        self.select_rights();
    }

    // ---- LPCR, PCR ----

    pub fn lpcr(&self) -> u64 {
        self.spr[spr::LPCR as usize]
    }
    /// Sets LPCR: AIL and ILE as H_SET_MODE has them, radix or hash, the large decrementer, GTSE.
    pub fn set_lpcr(&mut self, v: u64) {
        let old = self.lpcr();
        if old == v {
            return;
        }
        let dec = self.decrementer();
        self.spr[spr::LPCR as usize] = v;
        if (old ^ v) & (lpcr::HR | lpcr::UPRT) != 0 {
            self.flush(TlbFlush::All, false);
            self.select_rights();
        }
        if (old ^ v) & lpcr::LD != 0 {
            self.set_decrementer(dec);
        }
        self.rebuild_mode();
        self.request(request::ACCEL);
    }
    /// Does the partition translate by radix trees?
    pub fn is_radix(&self) -> bool {
        self.config.radix && self.lpcr() & lpcr::HR != 0
    }
    /// Limits problem state to an earlier version: PCR as [`crate::models::Compat::pcr`] has it, 0 for all there is.
    pub fn set_pcr(&mut self, v: u64) {
        self.spr[spr::PCR as usize] = v;
        self.rebuild_mode();
    }
    /// The version whose instructions problem state has.
    pub fn problem_state_isa(&self) -> Isa {
        let p = self.spr[spr::PCR as usize];
        let limit = if p & (pcr::V2_07 | pcr::V2_06 | pcr::V2_05) != 0 {
            Isa::V2_07
        } else if p & pcr::V3_00 != 0 {
            Isa::V3_0
        } else {
            Isa::V3_1
        };
        limit.min(self.config.isa)
    }
    /// The version that the processor now shows to the running program.
    pub(crate) fn isa(&self) -> Isa {
        if self.msr & msr::PR != 0 { self.problem_state_isa() } else { self.config.isa }
    }
    /// Number of the thread in its core (TIR), for directed doorbells.
    pub fn set_thread(&mut self, thread: u32) {
        self.sys.thread = thread;
    }

    // ---- power states ----

    /// Not started, or stopped by RTAS.
    pub fn powered_off(&self) -> bool {
        self.sys.powered_off
    }
    pub fn power_off(&mut self) {
        self.sys.powered_off = true;
        self.leave();
    }
    /// Reset state and off, as all but the first processor of a machine begin.
    pub fn reset_off(&mut self) {
        self.reset_state();
        self.power_off();
    }
    /// RTAS start-cpu, and the start of the first processor: 64-bit big-endian (unless LPCR.ILE and `little`) real mode at
    /// `entry` with GPR 3 = `arg`.
    pub fn start_at(&mut self, entry: u64, arg: u64, little: bool) {
        let (lpcr, pcr) = (self.lpcr(), self.spr[spr::PCR as usize]);
        self.reset_state();
        self.spr[spr::LPCR as usize] = lpcr;
        self.spr[spr::PCR as usize] = pcr;
        self.gpr[3] = arg;
        self.header.pc = entry & !3;
        self.msr = msr::SF | msr::ME | if little { msr::LE } else { 0 };
        self.sys.powered_off = false;
        self.sys.halted = false;
        self.select_rights();
        self.rebuild_mode();
        self.leave();
    }
    /// H_CEDE: enables external interrupts and waits for one, or for [`PpcCpu::prod`].
    pub fn cede(&mut self) {
        self.msr |= msr::EE;
        self.wait_for_prod();
    }
    /// H_JOIN: waits for [`PpcCpu::prod`] or a system reset; interrupts too if MSR.EE is set.
    pub fn wait_for_prod(&mut self) {
        if !std::mem::take(&mut self.sys.prodded) {
            self.sys.halted = true;
        }
        self.rebuild_mode();
        self.leave();
    }
    /// H_PROD, H_CONFER to this processor; on its thread.
    pub fn prod(&mut self) {
        if !std::mem::take(&mut self.sys.halted) {
            self.sys.prodded = true;
        }
        self.request(request::INTERRUPT);
    }
    pub fn halted(&self) -> bool {
        self.sys.halted
    }
    /// Leaves generated code right after the current helper, and has `poll` run.
    pub(crate) fn leave(&mut self) {
        self.header.raised = 1;
        self.request(request::INTERRUPT);
    }

    // ---- MSR ----

    /// Writes MSR as an instruction does; the pc is already that of the next one. Takes an interrupt that this permits.
    pub(crate) fn write_msr(&mut self, v: u64, how: MsrWrite) {
        let mask = match how {
            MsrWrite::Word => MSR_BITS & 0xffff_ffff & !(msr::ME | msr::LE),
            MsrWrite::Doubleword => MSR_BITS & !(msr::ME | msr::LE),
            MsrWrite::Interrupts => msr::EE | msr::RI,
            MsrWrite::Return => MSR_BITS & !msr::ME,
        };
        let mut new = self.msr & !mask | v & mask;
        if how != MsrWrite::Interrupts && new & msr::PR != 0 {
            new |= msr::EE | msr::IR | msr::DR;
        }
        self.set_msr(new);
    }
    /// Sets MSR; counters that depend on it go on as the new state has them.
    pub(crate) fn replace_msr(&mut self, new: u64) {
        if !self.sys.counts_by_state || (self.msr ^ new) & (msr::PR | msr::PMM) == 0 {
            self.msr = new;
            return;
        }
        self.sync_counters();
        self.msr = new;
        self.sync_counters();
        self.watch_counters();
    }
    /// Sets MSR and what follows from it; takes an interrupt that waits and is now enabled.
    pub(crate) fn set_msr(&mut self, new: u64) {
        let old = self.msr;
        self.replace_msr(new);
        if (old ^ new) & !(msr::EE | msr::RI) != 0 {
            self.refresh_mode();
        }
        // An enabled floating-point exception whose interrupt was off is due when it comes on.
        let fp = msr::FE0 | msr::FE1;
        if new & fp != 0 && old & fp == 0 && self.fpscr & 0xf8 != 0 && self.read_fpscr() & 1 << 30 != 0 {
            self.take_interrupt(Vector::Program, self.header.pc, program::FP | program::IMPRECISE);
        } else if new & msr::EE != 0 && old & msr::EE == 0 {
            self.take_pending();
        }
    }

    // ---- the mode word ----

    /// The rights behind an MMU index.
    pub(crate) fn rights(&self, index: u32) -> Rights {
        self.sys.rights[index as usize % MMU_INDEXES].unwrap_or_default()
    }
    /// Chooses MMU indexes after a change of AMR, IAMR or of the kind of translation. Values that come again find their
    /// translations again.
    pub(crate) fn select_rights(&mut self) {
        let (amr, iamr) = (self.spr[spr::AMR as usize], self.spr[spr::IAMR as usize]);
        for problem in [false, true] {
            let (amr, iamr) = match (self.is_radix(), problem) {
                (false, _) => (amr, iamr),
                (true, true) => (0, 0),
                // Key 0 concerns what privileged code does to pages of problem state.
                (true, false) => (amr & 3 << 62, iamr & 1 << 62),
            };
            let now = self.sys.current[usize::from(problem)];
            let data = self.index_of(Rights { problem, amr, iamr: 0 }, now.data);
            let fetch = self.index_of(Rights { problem, amr: 0, iamr }, now.fetch);
            self.sys.current[usize::from(problem)] = Indexes { data, fetch };
        }
    }
    /// The MMU index that stands for rights, perhaps `now`; the one not used for longest is given to those that have none.
    fn index_of(&mut self, rights: Rights, now: u32) -> u32 {
        let holds = |s: &System, n: usize| s.rights[n] == Some(rights);
        let found = Some(now as usize).filter(|&n| holds(&self.sys, n));
        let found = found.or_else(|| (1..MMU_INDEXES).find(|&n| holds(&self.sys, n)));
        let index = found.unwrap_or_else(|| {
            let n = (1..MMU_INDEXES).min_by_key(|&n| self.sys.used[n]).unwrap_or(1);
            if self.sys.rights[n].replace(rights).is_some() {
                self.flush(TlbFlush::Indexes(1 << n), false);
            }
            n
        });
        self.sys.tick += 1;
        self.sys.used[index] = self.sys.tick;
        index as u32
    }

    /// Recomputes `EnvHeader::mode`; call after any change of what it depends on.
    pub fn rebuild_mode(&mut self) {
        self.sys.modes = [(NO_MODE, PpcMode(0)); MODES];
        self.refresh_mode();
    }
    /// The same where MSR and the choice of MMU indexes alone may have changed.
    pub(crate) fn refresh_mode(&mut self) {
        // Bits 55:48 of MSR do not exist.
        let indexes = self.sys.current[usize::from(self.msr & msr::PR != 0)];
        let key =
            self.msr & !(msr::EE | msr::RI | msr::ME) | u64::from(indexes.data) << 48 | u64::from(indexes.fetch) << 52;
        if let Some((_, mode)) = self.sys.modes.iter().find(|m| m.0 == key) {
            self.header.mode = mode.0;
            return;
        }
        let mode = self.make_mode(indexes);
        self.sys.modes[self.sys.next_mode % MODES] = (key, mode);
        self.sys.next_mode = self.sys.next_mode.wrapping_add(1);
        self.header.mode = mode.0;
    }
    fn make_mode(&self, indexes: Indexes) -> PpcMode {
        use msr::{BE, DR, FE0, FE1, FP, IR, LE, PR, SE, SF, VEC, VSX};
        let m = self.msr;
        let problem = m & PR != 0;
        let enables = self.fpscr & 0xf8 != 0;
        let disabled = if problem { self.spr[spr::PCR as usize] } else { 0 };
        let fscr = if problem { self.spr[spr::FSCR as usize] } else { u64::MAX };
        let facility = |n: u32| fscr >> n & 1 != 0;
        PpcMode(0)
            .with_fetch_idx(if m & IR != 0 { indexes.fetch } else { mmu::REAL })
            .with_data_idx(if m & DR != 0 { indexes.data } else { mmu::REAL })
            .with_sf(m & SF != 0)
            .with_pr(problem)
            .with_le(m & LE != 0)
            .with_fp(problem && m & FP != 0)
            .with_vec(problem && m & VEC != 0 && disabled & pcr::VEC_DISABLE == 0)
            .with_vsx(problem && m & VSX != 0 && disabled & pcr::VSX_DISABLE == 0)
            .with_single_step(m & SE != 0 || self.sys.debug.steps())
            .with_branch_trace(m & BE != 0)
            .with_breakpoints(self.sys.debug.has_breakpoints() || self.ciabr_enabled())
            .with_rn(self.fpscr as u32 & 3)
            .with_drn((self.fpscr >> 32) as u32 & 7)
            .with_fp_enables(enables)
            .with_fp_traps(enables && m & (FE0 | FE1) != 0)
            .with_vscr_nj(self.vscr & 0x1_0000 != 0)
            .with_isa_level(self.isa() as u32)
            .with_tar(facility(fscr::TAR))
            .with_dscr(facility(fscr::DSCR))
            .with_scv(facility(fscr::SCV))
            .with_prefixed(facility(fscr::PREFIX))
            .with_ebb(facility(fscr::EBB))
    }

    // ---- machine check and system reset ----

    /// A machine check, to be taken at once: SRR1 bits 33–36 and 42–47, DSISR and DAR. On the processor's thread.
    pub fn machine_check(&mut self, cause: u64, dsisr: u64, dar: u64) {
        self.sys.machine_check = Some((cause, dsisr, dar));
        self.request(request::INTERRUPT);
    }
    /// A data access that the bus refused: synchronous machine check, load or store error.
    pub(crate) fn raise_machine_check(&mut self, va: u64, fetch: bool) {
        if !fetch {
            self.spr[spr::DAR as usize] = va;
            // "Load or store, other" of POWER9: no cause that software could repair.
            self.spr[spr::DSISR as usize] = 0x8000;
        }
        // SRR1 bit 42: by a load or store; else bits 43:45 = 100, fetch of an address without memory.
        self.raise(Vector::MachineCheck, if fetch { 0x0008_0000 } else { 0x0020_0000 });
    }

    /// One line for an SPR that does not exist, the first time.
    pub(crate) fn tell_absent_spr(&mut self, number: u32, write: bool) {
        let (word, bit) = ((number / 64) as usize % 16, 1u64 << (number % 64));
        if self.sys.told[word] & bit == 0 {
            self.sys.told[word] |= bit;
            let what = if write { "write to" } else { "read of" };
            let hooks = self.hooks.clone();
            hooks
                .guest_error(self.index, &format!("{what} SPR {number}, which there is not, at {:#x}", self.header.pc));
        }
    }
}

const _: () = assert!(dsisr::STORE == 1 << 25);
