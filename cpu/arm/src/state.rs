//! The architectural state of one processor.

use crate::bits;
use crate::config::{ArmConfig, Feature};
use crate::debug::Debug;
use crate::hooks::{ArmHooks, ArmPins, Conduit};
use crate::mmu::Walks;
use crate::mode::{ArmMode, mmu};
use crate::pmu::Pmu;
use crate::reg::{Reg, family};
use crate::timer::GenericTimers;
use crate::translate::pac::PacState;
use rhea_ir::EnvHeader;
use rhea_ir::guest::TlbFlush;
use rhea_ir::near::{Places, Registers, places};
use rhea_memory::AddressSpace;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

/// X0–X30.
pub type Gprs = Registers<GprPlaces, 31>;

/// Arguments, what compilers take first to be preserved, frame and link.
pub struct GprPlaces;

impl Places<31> for GprPlaces {
    const PLACES: [u8; 31] = places(&[0, 1, 2, 3, 4, 5, 19, 20, 21, 22, 23, 24, 29, 30]);
}

/// One AArch64 processor. Generated code reaches it through [`slots`].
#[repr(C)]
pub struct ArmCpu {
    pub header: EnvHeader,
    /// Packed flags: bit 15 N, 14 Z, 8 C, 0 V.
    pub nzcv: u32,
    /// PSTATE.BTYPE, 0–3.
    pub btype: u32,
    // With what is above, the first of these registers are within a displacement of one byte: the first 128 bytes.
    /// The current stack pointer; the banked ones are in `sp_el`.
    pub sp: u64,
    pub x: Gprs,
    pub v: [u128; 32],
    /// FPSR.QC: set if any bit is.
    pub qc: u128,
    /// PSTATE except NZCV and BTYPE, in SPSR layout (M, DAIF, SSBS, IL, SS, PAN, UAO, DIT).
    pub pstate: u32,
    /// Cumulative exception bits of FPSR that were folded in (not QC; see also `EnvHeader::fp_flags`).
    pub fpsr: u32,
    pub fpcr: u32,
    /// Size in bytes of the exclusive reservation, 0: the monitor is open.
    pub excl_size: u32,
    /// An interrupt was pending when `poll` last looked; every rise of a pin makes it look. Only a hint: it may be gone.
    pub(crate) interrupt_waits: u32,
    /// Mode words of each level for PSTATE.{PAN, UAO, IL, SP} clear and without software step, valid if their bit in
    /// `modes_valid` is set.
    modes: [ArmMode; 4],
    modes_valid: u8,
    pub excl_addr: u64,
    /// The value loaded by the exclusive load, zero-extended; `excl_hi` the second register of a pair.
    pub excl_lo: u64,
    pub excl_hi: u64,
    pub tpidr_el0: u64,
    pub tpidrro_el0: u64,
    pub tpidr_el1: u64,
    pub tpidr_el2: u64,
    pub tpidr_el3: u64,
    pub tpidr2_el0: u64,
    /// SP_EL0..SP_EL3; the entry of the stack pointer in use is stale.
    pub sp_el: [u64; 4],
    /// Pointer authentication keys: IA, IB, DA, DB, GA, each (lo, hi).
    pub keys: [[u64; 2]; 5],
    /// HCR_EL2 when the TLB entries of EL1&0 were made, as far as it matters to them.
    pub(crate) guest_hcr: u64,
    /// Counts the changes of the keys and of which are enabled.
    pub(crate) key_epoch: u64,
    /// [`ArmMode::CONTROLS`] of the current level, in their places.
    pub(crate) controls: u64,
    /// System registers kept as plain values.
    pub sys: [u64; Reg::COUNT],
    pub config: Arc<ArmConfig>,
    pub(crate) flushes: Vec<(TlbFlush, bool)>,
    pub(crate) hooks: Arc<dyn ArmHooks>,
    pub(crate) pins: Arc<ArmPins>,
    pub(crate) space: Arc<AddressSpace>,
    pub(crate) timers: Arc<GenericTimers>,
    /// Number of the vCPU in the machine.
    pub index: u32,
    /// Which instruction calls the machine's firmware (PSCI), if one does.
    pub(crate) conduit: Option<Conduit>,
    /// Waits in WFI.
    pub(crate) halted: bool,
    pub(crate) powered_off: bool,
    /// The event register of WFE.
    pub(crate) event: bool,
    pub(crate) debug: Debug,
    pub(crate) pmu: Pmu,
    /// Walks for tagged data addresses: see `ArmMode::strip_tags`.
    pub(crate) tagged_walks: u32,
    pub(crate) pac: PacState,
    pub(crate) walks: Walks,
    /// `ArmHooks::wants_exceptions`.
    pub(crate) tells_exceptions: bool,
    /// Counts resets, for accelerators that keep the state elsewhere.
    pub resets: u32,
}

/// Walks for tagged addresses after which generated code removes tags itself.
pub(crate) const MANY_TAGGED_WALKS: u32 = 10_000;

impl ArmCpu {
    /// A processor in its reset state, powered on.
    pub fn new(
        index: u32,
        config: &Arc<ArmConfig>,
        space: &Arc<AddressSpace>,
        timers: &Arc<GenericTimers>,
        hooks: Arc<dyn ArmHooks>,
    ) -> Box<ArmCpu> {
        let pins = Arc::new(ArmPins::default());
        let waker = pins.clone();
        let overflow = timers.clock().timer(move || waker.wake());
        let tells_exceptions = hooks.wants_exceptions();
        let mut cpu = Box::new(ArmCpu {
            header: EnvHeader::default(),
            x: [0; 31].into(),
            sp: 0,
            v: [0; 32],
            qc: 0,
            nzcv: 0,
            btype: 0,
            pstate: 0,
            fpsr: 0,
            fpcr: 0,
            excl_size: 0,
            interrupt_waits: 0,
            modes: [ArmMode(0); 4],
            modes_valid: 0,
            excl_addr: 0,
            excl_lo: 0,
            excl_hi: 0,
            tpidr_el0: 0,
            tpidrro_el0: 0,
            tpidr_el1: 0,
            tpidr_el2: 0,
            tpidr_el3: 0,
            tpidr2_el0: 0,
            sp_el: [0; 4],
            keys: [[0; 2]; 5],
            guest_hcr: 0,
            key_epoch: 0,
            controls: 0,
            sys: [0; Reg::COUNT],
            config: config.clone(),
            flushes: Vec::new(),
            hooks,
            pins,
            space: space.clone(),
            timers: timers.clone(),
            index,
            conduit: None,
            halted: false,
            powered_off: false,
            event: false,
            debug: Debug::default(),
            pmu: Pmu::new(overflow),
            tagged_walks: 0,
            pac: PacState::new(config),
            walks: Walks::default(),
            tells_exceptions,
            resets: 0,
        });
        cpu.reset_state();
        cpu
    }

    /// The interrupt inputs, to be driven from any thread.
    pub fn pins(&self) -> Arc<ArmPins> {
        self.pins.clone()
    }
    pub fn timers(&self) -> &Arc<GenericTimers> {
        &self.timers
    }
    /// Offers firmware calls (PSCI) to the guest by this instruction.
    pub fn set_conduit(&mut self, conduit: Option<Conduit>) {
        self.conduit = conduit;
    }

    /// Architectural reset (DDI 0487, AArch64.TakeReset); does not change the power state.
    pub(crate) fn reset_state(&mut self) {
        let c = self.config.clone();
        self.resets = self.resets.wrapping_add(1);
        self.x = [0; 31].into();
        self.v = [0; 32];
        self.sp = 0;
        self.sp_el = [0; 4];
        self.qc = 0;
        self.nzcv = 0;
        self.btype = 0;
        self.fpsr = 0;
        self.fpcr = 0;
        self.header.fp_flags = 0;
        self.excl_size = 0;
        self.keys = [[0; 2]; 5];
        (self.tpidr_el0, self.tpidrro_el0, self.tpidr_el1, self.tpidr_el2, self.tpidr_el3, self.tpidr2_el0) =
            (0, 0, 0, 0, 0, 0);
        self.sys = [0; Reg::COUNT];
        // RES1 bits of SCTLR_ELx, MMU and caches off.
        self[Reg::SctlrEl1] = 0x30d0_0980 | bits::sctlr::NTWE | bits::sctlr::NTWI;
        self[Reg::SctlrEl2] = 0x30c5_0830;
        self[Reg::SctlrEl3] = 0x30c5_0830;
        self[Reg::CntfrqEl0] = crate::timer::FREQUENCY_HZ;
        self[Reg::VpidrEl2] = c.midr;
        self[Reg::VmpidrEl2] = c.mpidr(self.index);
        self[Reg::ScrEl3] = bits::scr::RW;
        self[Reg::HcrEl2] = bits::hcr::RW;
        self[Reg::CptrEl2] = 0x33ff & !bits::cptr::TFP;
        self[Reg::MdcrEl2] = if c.has(Feature::Pmu) { crate::pmu::COUNTERS as u64 } else { 0 };
        self[Reg::OslarEl1] = 1;
        self[Reg::CnthctlEl2] = 3;
        self.debug.reset();
        self.pmu.reset();
        self.timers.reset();
        self.halted = false;
        self.event = false;
        self.header.raised = 0;
        self.header.pc = c.reset_vector;
        self.pstate = bits::pstate::DAIF | (c.highest_el() << bits::pstate::EL_SHIFT) | bits::pstate::SP;
        self.flushes.push((TlbFlush::All, false));
        self.rebuild_mode();
    }

    /// Prepares the start of a Linux-like payload: the highest EL below EL3 that exists, at `entry` with X0 = `arg`, and what
    /// firmware would have set up (SCR_EL3, access of lower levels to FP, timers and debug) done.
    pub fn boot_at(&mut self, entry: u64, arg: u64) {
        let c = self.config.clone();
        if c.has(Feature::El3) {
            let mut scr = bits::scr::NS | bits::scr::RW | bits::scr::HCE;
            if c.has(Feature::Pauth) {
                scr |= bits::scr::API | bits::scr::APK;
            }
            self[Reg::ScrEl3] = scr;
            self[Reg::CptrEl3] = 0;
        }
        let el = if c.has(Feature::El2) { 2 } else { 1 };
        self.set_pstate(bits::pstate::DAIF | (el << bits::pstate::EL_SHIFT) | bits::pstate::SP);
        self.x[0] = arg;
        self.header.pc = entry;
        self.rebuild_mode();
    }

    pub fn powered_off(&self) -> bool {
        self.powered_off
    }
    /// PSCI CPU_OFF and the start of secondary processors.
    pub fn power_off(&mut self) {
        self.powered_off = true;
        self.request(rhea_ir::guest::request::INTERRUPT);
    }
    /// Tells the board whether the processor is on, after it has taken over a state.
    pub fn tell_power(&self) {
        self.hooks.power_state(self.index, !self.powered_off);
    }
    /// PSCI CPU_ON: reset state, then `boot_at`. Runs on this vCPU's thread.
    pub fn power_on(&mut self, entry: u64, context: u64) {
        self.reset_state();
        self.boot_at(entry, context);
        self.powered_off = false;
    }
    /// Waits for an interrupt, as WFI does where it is not trapped (PSCI CPU_SUSPEND).
    pub fn wait_for_interrupt(&mut self) {
        self.halted = !self.wake_pending();
        self.request(rhea_ir::guest::request::INTERRUPT);
    }
    /// Is the processor waiting in WFI?
    pub fn halted(&self) -> bool {
        self.halted
    }
    /// SEV from another processor.
    pub fn set_event(&mut self) {
        self.event = true;
    }

    /// Current exception level.
    #[inline]
    pub fn el(&self) -> u32 {
        (self.pstate >> bits::pstate::EL_SHIFT) & 3
    }
    #[inline]
    pub(crate) fn has(&self, f: Feature) -> bool {
        self.config.has(f)
    }
    pub(crate) fn sys_of(&self, family: Reg, el: u32) -> u64 {
        self.sys[family.of_el(el)]
    }
    pub(crate) fn set_sys_of(&mut self, family: Reg, el: u32, v: u64) {
        self.sys[family.of_el(el)] = v;
    }
    /// Asks the run loop to call `poll` (`request` bits).
    pub(crate) fn request(&self, bits: u32) {
        self.header.exit_request.set(bits);
    }
    pub(crate) fn flush(&mut self, what: TlbFlush, everywhere: bool) {
        self.flushes.push((what, everywhere));
        self.request(rhea_ir::guest::request::ACCEL);
    }

    /// Secure state.
    pub fn is_secure(&self) -> bool {
        self.has(Feature::El3) && (self.el() == 3 || self[Reg::ScrEl3] & bits::scr::NS == 0)
    }
    /// Are EL0–EL2 in Secure state (whatever the current EL)?
    pub(crate) fn lower_secure(&self) -> bool {
        self.has(Feature::El3) && self[Reg::ScrEl3] & bits::scr::NS == 0
    }
    /// EL2 exists and is enabled in the Security state of the lower levels (no Secure EL2).
    pub(crate) fn el2_enabled(&self) -> bool {
        self.has(Feature::El2) && !self.lower_secure()
    }
    /// SCR_EL3, or what its absence means.
    pub(crate) fn scr(&self) -> u64 {
        use bits::scr::*;
        if self.has(Feature::El3) { self[Reg::ScrEl3] } else { NS | RW | HCE | API | APK }
    }
    /// HCR_EL2 as it takes effect: 0 without EL2, fields that TGE and E2H override replaced.
    pub(crate) fn hcr(&self) -> u64 {
        use bits::hcr::*;
        if !self.el2_enabled() {
            return 0;
        }
        let v = self[Reg::HcrEl2];
        if v & TGE == 0 {
            return v;
        }
        if v & E2H != 0 {
            v & !(VM
                | SWIO
                | PTW
                | FMO
                | IMO
                | AMO
                | VF
                | VI
                | VSE
                | FB
                | DC
                | TWI
                | TWE
                | TID0
                | TID1
                | TID2
                | TID3
                | TSC
                | TIDCP
                | TACR
                | TSW
                | TPCP
                | TPU
                | TTLB
                | TVM
                | TDZ
                | HCD
                | TRVM
                | CD
                | ID
                | TLOR
                | TERR
                | TID4
                | TICAB
                | TOCU
                | TTLBIS
                | TTLBOS)
        } else {
            (v | FMO | IMO | AMO) & !(VM | VF | VI | VSE | DC)
        }
    }
    /// HCR_EL2.E2H and TGE: EL0 belongs to a host at EL2.
    pub(crate) fn in_host(&self) -> bool {
        let v = self.hcr();
        v & (bits::hcr::E2H | bits::hcr::TGE) == bits::hcr::E2H | bits::hcr::TGE
    }
    pub(crate) fn e2h(&self) -> bool {
        self.hcr() & bits::hcr::E2H != 0
    }
    /// The SCTLR that governs `el`: 1–3.
    pub(crate) fn regime_el(&self, el: u32) -> u32 {
        if el == 0 { if self.in_host() { 2 } else { 1 } } else { el }
    }

    // ---- PSTATE ----

    /// Replaces PSTATE (all but NZCV and BTYPE) with bits in SPSR layout, switching stack pointers.
    pub(crate) fn set_pstate(&mut self, v: u32) {
        let bank = |p: u32| if p & bits::pstate::SP != 0 { ((p >> bits::pstate::EL_SHIFT) & 3) as usize } else { 0 };
        let (old, new) = (bank(self.pstate), bank(v));
        if old != new {
            self.sp_el[old] = self.sp;
            self.sp = self.sp_el[new];
        }
        if self.pmu.filtered && (self.pstate ^ v) & (3 << bits::pstate::EL_SHIFT) != 0 {
            self.pmu_sync();
        }
        self.pstate = v;
    }
    /// SP_ELn by number.
    pub(crate) fn read_sp_el(&self, n: usize) -> u64 {
        let current = if self.pstate & bits::pstate::SP != 0 { self.el() as usize } else { 0 };
        if current == n { self.sp } else { self.sp_el[n & 3] }
    }
    pub(crate) fn write_sp_el(&mut self, n: usize, v: u64) {
        let current = if self.pstate & bits::pstate::SP != 0 { self.el() as usize } else { 0 };
        if current == n {
            self.sp = v;
        } else {
            self.sp_el[n & 3] = v;
        }
    }
    /// NZCV in bits 31:28.
    pub fn nzcv_bits(&self) -> u32 {
        let f = self.nzcv;
        ((f >> 15) & 1) << 31 | ((f >> 14) & 1) << 30 | ((f >> 8) & 1) << 29 | (f & 1) << 28
    }
    pub fn set_nzcv_bits(&mut self, v: u32) {
        self.nzcv = (v >> 31) << 15 | ((v >> 30) & 1) << 14 | ((v >> 29) & 1) << 8 | ((v >> 28) & 1);
    }
    /// PSTATE as an SPSR holds it.
    pub fn spsr(&self) -> u32 {
        self.nzcv_bits() | self.pstate | ((self.btype & 3) << bits::pstate::BTYPE_SHIFT)
    }

    /// FPSR with sticky flags and QC folded in.
    pub fn read_fpsr(&mut self) -> u32 {
        self.fpsr |= crate::fpflags::to_fpsr(self.header.fp_flags);
        self.qc |= u128::from(self.header.fp_flags & crate::fpflags::SATURATED);
        self.header.fp_flags = 0;
        self.fpsr | (u32::from(self.qc != 0) << 27)
    }
    pub fn write_fpsr(&mut self, v: u32) {
        self.header.fp_flags = 0;
        self.fpsr = v & 0x9f;
        self.qc = u128::from(v >> 27 & 1);
    }
    pub fn write_fpcr(&mut self, v: u32) {
        use bits::fpcr::*;
        let mut mask = FZ | DN | AHP | 3 << RMODE_SHIFT;
        if self.has(Feature::Fp16) {
            mask |= FZ16;
        }
        self.fpcr = v & mask;
        self.modes_valid = 0;
        self.refresh_mode();
    }

    // ---- mode ----

    /// MMU index of `el` in the current state but for PSTATE.PAN, taken as clear.
    fn mmu_index_without_pan(&self, el: u32) -> u32 {
        let secure = if self.lower_secure() { mmu::SE10_0 } else { 0 };
        match el {
            0 if self.in_host() => mmu::E20_0,
            0 => mmu::E10_0 | secure,
            1 => mmu::E10_1 | secure,
            2 if self.e2h() => mmu::E20_2,
            2 => mmu::E2,
            _ => mmu::E3,
        }
    }

    /// Do accesses of `el` (0–2) to the keys of pointer authentication trap?
    fn keys_trapped(&self, el: u32) -> bool {
        (el <= 1 && self.el2_enabled() && self.hcr() & bits::hcr::APK == 0) || self.scr() & bits::scr::APK == 0
    }

    /// Exception level that FP instructions trap to at `el`, 0 for none.
    pub(crate) fn fp_trap_el(&self, el: u32) -> u32 {
        let in_host = self.in_host();
        let traps = |fpen: u64| match fpen & 3 {
            3 => false,
            1 => el == 0,
            _ => true,
        };
        if el <= 1 && !in_host && traps(self[Reg::CpacrEl1] >> 20) {
            return 1;
        }
        if el <= 2 && self.el2_enabled() {
            let v = self[Reg::CptrEl2];
            let hit = if self.e2h() {
                match (v >> 20) & 3 {
                    3 => false,
                    1 => el == 0 && in_host,
                    _ => true,
                }
            } else {
                v & bits::cptr::TFP != 0
            };
            if hit {
                return 2;
            }
        }
        if self.has(Feature::El3) && self[Reg::CptrEl3] & bits::cptr::TFP != 0 {
            return 3;
        }
        0
    }

    /// Recomputes `EnvHeader::mode`; call after any change of what it depends on.
    pub(crate) fn rebuild_mode(&mut self) {
        self.modes_valid = 0;
        self.refresh_mode();
    }

    /// The same after a change of PSTATE only.
    #[inline]
    pub(crate) fn refresh_mode(&mut self) {
        use bits::pstate;
        let el = self.el();
        let p = self.pstate;
        if self.modes_valid >> el & 1 == 0 {
            self.modes[el as usize & 3] = self.mode_of_level(el);
            self.modes_valid |= 1 << el;
        }
        let level = self.modes[el as usize & 3];
        let controls = level.0 & ArmMode::CONTROLS;
        if self.controls != controls {
            self.controls = controls;
            self.key_epoch = self.key_epoch.wrapping_add(1);
        }
        let mut mode = level.without_controls().with_sp_sel(p & pstate::SP != 0);
        if p & (pstate::PAN | pstate::UAO | pstate::IL) != 0 {
            let idx = mode.mmu_idx();
            if p & pstate::PAN != 0 && matches!(idx, mmu::E10_1 | mmu::E20_2 | mmu::SE10_1) {
                // The index with PAN is the next one.
                mode = mode.with_mmu_idx(idx + 1);
            }
            if p & pstate::UAO != 0 {
                mode = mode.with_unpriv_idx(mode.mmu_idx());
            }
            mode = mode.with_il(p & pstate::IL != 0);
        }
        if mode.step_control() || self.debug.host_step {
            mode = mode.with_single_step(self.debug.host_step || self.debug_enabled(el));
        }
        self.header.mode = mode.0;
        self.refresh_pac_layout();
    }

    /// The mode word of a level without what PSTATE contributes.
    fn mode_of_level(&self, el: u32) -> ArmMode {
        use bits::sctlr::*;
        let regime = self.regime_el(el);
        let sctlr = self.sys_of(family::SCTLR, regime);
        let hcr = self.hcr();
        let idx = self.mmu_index_without_pan(el);
        let two_ranges = regime == 1 || (regime == 2 && hcr & bits::hcr::E2H != 0);
        let tcr = match regime {
            1 => self[Reg::TcrEl1],
            2 => self[Reg::TcrEl2],
            _ => self[Reg::TcrEl3],
        };
        let (tbi, tbid) = if two_ranges {
            ((tcr >> 37) as u32 & 3, (tcr >> 51) as u32 & 3)
        } else {
            (if tcr & (1 << 20) != 0 { 3 } else { 0 }, if tcr & (1 << 29) != 0 { 3 } else { 0 })
        };
        let tbii = if self.has(Feature::Pauth) { tbi & !tbid } else { tbi };
        let unpriv = if el == 1 {
            self.mmu_index_without_pan(0)
        } else if el == 2 && self.in_host() {
            mmu::E20_0
        } else {
            idx
        };
        let pauth = self.has(Feature::Pauth);
        let pac_trap = if !pauth {
            0
        } else if el <= 1 && self.el2_enabled() && !(el == 0 && self.in_host()) && hcr & bits::hcr::API == 0 {
            2
        } else if el < 3 && self.scr() & bits::scr::API == 0 {
            3
        } else {
            0
        };
        let zva_ok = !(el == 0 && sctlr & DZE == 0) && !(el <= 1 && hcr & bits::hcr::TDZ != 0);
        let ctr_ok = !(el == 0 && sctlr & UCT == 0) && !(el <= 1 && hcr & bits::hcr::TID2 != 0);
        let controls = {
            use bits::hcr::*;
            TVM | TRVM | TID1 | TID2 | TID3 | TID4
        };
        let breaks = self.debug.has_host_breakpoints()
            || (self[Reg::MdscrEl1] & bits::mdscr::MDE != 0 && self.debug.has_breakpoints());
        let f = self.fpcr;
        ArmMode(0)
            .with_el(el)
            .with_mmu_idx(idx)
            .with_unpriv_idx(unpriv)
            .with_align_check(sctlr & A != 0)
            .with_sp_align_check(sctlr & if el == 0 { SA0 } else { SA } != 0)
            .with_big_endian(sctlr & if el == 0 { E0E } else { EE } != 0)
            .with_tbi0(tbi & 1 != 0)
            .with_tbi1(tbi & 2 != 0)
            .with_tbii0(tbii & 1 != 0)
            .with_tbii1(tbii & 2 != 0)
            .with_fp_trap_el(self.fp_trap_el(el))
            .with_pauth_ia(pauth && sctlr & ENIA != 0)
            .with_pauth_ib(pauth && sctlr & ENIB != 0)
            .with_pauth_da(pauth && sctlr & ENDA != 0)
            .with_pauth_db(pauth && sctlr & ENDB != 0)
            .with_pac_trap_el(pac_trap)
            .with_bt(self.has(Feature::Bti) && sctlr & if el == 0 { BT0 } else { BT } != 0)
            .with_strip_tags(self.tagged_walks >= MANY_TAGGED_WALKS)
            .with_rmode(f >> bits::fpcr::RMODE_SHIFT & 3)
            .with_fz(f & bits::fpcr::FZ != 0)
            .with_dn(f & bits::fpcr::DN != 0)
            .with_fz16(f & bits::fpcr::FZ16 != 0)
            .with_ahp(f & bits::fpcr::AHP != 0)
            .with_two_ranges(two_ranges)
            .with_naa(sctlr & NAA != 0)
            .with_zva_ok(zva_ok)
            .with_ctr_ok(ctr_ok)
            .with_breakpoints(breaks)
            .with_secure(self.has(Feature::El3) && (el == 3 || self.lower_secure()))
            .with_control_traps(el <= 1 && hcr & controls != 0)
            .with_key_traps(el <= 2 && pauth && self.keys_trapped(el))
            .with_step_control(self[Reg::MdscrEl1] & bits::mdscr::SS != 0)
    }
}

impl Index<Reg> for ArmCpu {
    type Output = u64;
    #[inline]
    fn index(&self, r: Reg) -> &u64 {
        &self.sys[r as usize]
    }
}
impl IndexMut<Reg> for ArmCpu {
    #[inline]
    fn index_mut(&mut self, r: Reg) -> &mut u64 {
        &mut self.sys[r as usize]
    }
}

/// Guest state that generated code reads and writes.
pub mod slots {
    use super::{ArmCpu, Gprs, Reg};
    use rhea_ir::{Slot, Type};
    use std::mem::offset_of;

    /// X0–X30.
    pub const fn x(n: u32) -> Slot {
        assert!(n < 31);
        Slot::new(offset_of!(ArmCpu, x) + Gprs::offset(n), Type::I64)
    }
    /// V0–V31.
    pub const fn v(n: u32) -> Slot {
        assert!(n < 32);
        Slot::new(offset_of!(ArmCpu, v) + 16 * n as usize, Type::V128)
    }
    /// The current stack pointer.
    pub const SP: Slot = Slot::new(offset_of!(ArmCpu, sp), Type::I64);
    /// Packed flags.
    pub const NZCV: Slot = Slot::new(offset_of!(ArmCpu, nzcv), Type::I32).late();
    pub const BTYPE: Slot = Slot::new(offset_of!(ArmCpu, btype), Type::I32);
    /// FPSR.QC: saturation ORs any non-zero pattern into it.
    pub const QC: Slot = Slot::new(offset_of!(ArmCpu, qc), Type::V128);
    /// Read-only to generated code.
    pub const FPCR: Slot = Slot::new(offset_of!(ArmCpu, fpcr), Type::I32);
    pub const EXCL_SIZE: Slot = Slot::new(offset_of!(ArmCpu, excl_size), Type::I32);
    pub const EXCL_ADDR: Slot = Slot::new(offset_of!(ArmCpu, excl_addr), Type::I64);
    pub const EXCL_LO: Slot = Slot::new(offset_of!(ArmCpu, excl_lo), Type::I64);
    pub const EXCL_HI: Slot = Slot::new(offset_of!(ArmCpu, excl_hi), Type::I64);
    /// SP_EL0 to SP_EL2 while they are not the current one.
    pub const fn sp_el(n: usize) -> Slot {
        assert!(n < 3);
        Slot::new(offset_of!(ArmCpu, sp_el) + 8 * n, Type::I64)
    }
    /// Half of a key, 2 × key + 1 for the high half: to be read only (see `helpers::SET_KEY`).
    pub const fn key(which: u32) -> Slot {
        assert!(which < 10);
        Slot::new(offset_of!(ArmCpu, keys) + 8 * which as usize, Type::I64)
    }
    pub const KEY_EPOCH: Slot = Slot::new(offset_of!(ArmCpu, key_epoch), Type::I64);
    /// [`crate::mode::ArmMode::CONTROLS`] of the current level: to be read only.
    pub const CONTROLS: Slot = Slot::new(offset_of!(ArmCpu, controls), Type::I64);
    /// A stored system register.
    pub const fn sys(r: Reg) -> Slot {
        Slot::new(offset_of!(ArmCpu, sys) + 8 * r as usize, Type::I64)
    }
    /// PSTATE but for NZCV and BTYPE. Generated code changes DAIF only.
    pub const PSTATE: Slot = Slot::new(offset_of!(ArmCpu, pstate), Type::I32);
    /// Not zero: an interrupt waits that PSTATE may mask. See `ArmCpu::interrupt_waits`.
    pub const INTERRUPT_WAITS: Slot = Slot::new(offset_of!(ArmCpu, interrupt_waits), Type::I32);
    pub const TPIDR_EL0: Slot = Slot::new(offset_of!(ArmCpu, tpidr_el0), Type::I64);
    pub const TPIDRRO_EL0: Slot = Slot::new(offset_of!(ArmCpu, tpidrro_el0), Type::I64);
    pub const TPIDR_EL1: Slot = Slot::new(offset_of!(ArmCpu, tpidr_el1), Type::I64);
    pub const TPIDR_EL2: Slot = Slot::new(offset_of!(ArmCpu, tpidr_el2), Type::I64);
    pub const TPIDR_EL3: Slot = Slot::new(offset_of!(ArmCpu, tpidr_el3), Type::I64);
}
