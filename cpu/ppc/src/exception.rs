//! Interrupts (Book III, chapter 7).

use crate::bits::{dsisr, lpcr, msr};
use crate::hooks::pin;
use crate::mode::PpcMode;
use crate::spr;
use crate::state::PpcCpu;
use rhea_ir::guest::Access;

/// Effective address of an interrupt vector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Vector {
    SystemReset = 0x100,
    MachineCheck = 0x200,
    DataStorage = 0x300,
    DataSegment = 0x380,
    InstructionStorage = 0x400,
    InstructionSegment = 0x480,
    External = 0x500,
    Alignment = 0x600,
    Program = 0x700,
    FpUnavailable = 0x800,
    Decrementer = 0x900,
    Doorbell = 0xa00,
    SystemCall = 0xc00,
    Trace = 0xd00,
    PerformanceMonitor = 0xf00,
    VectorUnavailable = 0xf20,
    VsxUnavailable = 0xf40,
    FacilityUnavailable = 0xf60,
}

/// Causes of a program interrupt, as SRR1 has them.
pub mod program {
    pub const FP: u64 = 1 << 20;
    pub const ILLEGAL: u64 = 1 << 19;
    pub const PRIVILEGED: u64 = 1 << 18;
    pub const TRAP: u64 = 1 << 17;
    /// SRR0 is not the address of the instruction that caused it.
    pub const IMPRECISE: u64 = 1 << 16;
}

/// Causes of a trace interrupt, as SRR1 has them.
pub mod trace {
    /// Always set.
    pub const TRACE: u64 = 1 << 30;
    /// CIABR matched.
    pub const CIABR: u64 = 1 << 20;
}

/// Bits 33–36 and 42–47 of SRR1, which say the cause.
const CAUSE: u64 = 0x783f_0000;
/// The interrupt was caused by a prefixed instruction (3.1), which crosses a multiple of 64 bytes.
const PREFIXED: u64 = 1 << 29;
const BOUNDARY: u64 = 1 << 28;
/// Where interrupts are with LPCR.AIL = 2 and 3, minus the vector.
const AIL_2: u64 = 0x1_8000;
const AIL_3: u64 = 0xc000_0000_0000_4000;
/// The same for System Call Vectored.
const SCV: u64 = 0x1_7000;
const SCV_AIL_3: u64 = 0xc000_0000_0000_3000;

impl PpcCpu {
    /// LPCR.AIL as it applies to an interrupt taken now: only where translation is on.
    fn ail(&self) -> u64 {
        if self.msr & (msr::IR | msr::DR) != msr::IR | msr::DR {
            return 0;
        }
        (self.lpcr() & lpcr::AIL) >> lpcr::AIL_SHIFT
    }
    /// MSR in a handler.
    fn handler_msr(&self, keep: u64, translated: bool) -> u64 {
        let little = if self.lpcr() & lpcr::ILE != 0 { msr::LE } else { 0 };
        let translate = if translated { msr::IR | msr::DR } else { 0 };
        self.msr & keep | msr::SF | little | translate
    }
    /// Takes an interrupt whose SRR0 is `return_to`, with `cause` in SRR1. Inside a helper it leaves the region.
    pub fn take_interrupt(&mut self, vector: Vector, return_to: u64, cause: u64) {
        self.sync_segments();
        self.spr[spr::SRR0 as usize] = return_to;
        self.spr[spr::SRR1 as usize] = self.msr & !CAUSE | cause & CAUSE;
        let (offset, translated, keep) = match vector {
            // ME is the hypervisor's, which machine checks go to: one that is given on to the partition leaves it as it is, since the
            // partition could not set it again.
            Vector::SystemReset | Vector::MachineCheck => (0, false, msr::ME),
            _ => match self.ail() {
                2 => (AIL_2, true, msr::ME),
                3 => (AIL_3, true, msr::ME),
                _ => (0, false, msr::ME),
            },
        };
        if vector == Vector::MachineCheck && self.msr & msr::ME == 0 {
            let hooks = self.hooks.clone();
            hooks.guest_error(self.index, &format!("machine check at {return_to:#x} while MSR.ME is clear: checkstop"));
            hooks.checkstop(self);
            self.power_off();
            return;
        }
        if self.sys.tells_exceptions {
            let m = self.msr;
            let hooks = self.hooks.clone();
            let (dar, dsisr) = (self.spr[spr::DAR as usize], self.spr[spr::DSISR as usize]);
            let message = format!(
                "interrupt {:#05x} ({vector:?}) at {return_to:#x}, MSR {m:#x}, cause {cause:#x}, DAR {dar:#x}, DSISR {dsisr:#x}",
                vector as u32
            );
            hooks.exception(self.index, &message);
        }
        self.enter(offset + vector as u64, self.handler_msr(keep, translated));
        if matches!(vector, Vector::SystemReset | Vector::MachineCheck) {
            let hooks = self.hooks.clone();
            hooks.nonmaskable(self, vector);
            self.rebuild_mode();
        }
    }
    /// Goes on at a handler.
    fn enter(&mut self, pc: u64, msr: u64) {
        self.replace_msr(msr);
        self.header.pc = pc;
        self.header.raised = 1;
        self.refresh_mode();
        self.step_into_handler();
    }
    /// The same for an interrupt caused by the current instruction.
    pub fn raise(&mut self, vector: Vector, cause: u64) {
        let pc = self.header.pc;
        let says = !matches!(vector, Vector::SystemCall | Vector::InstructionStorage | Vector::InstructionSegment);
        let prefixed = if says { self.prefixed_cause(pc) } else { 0 };
        self.take_interrupt(vector, pc, cause | prefixed);
    }
    /// What SRR1 says if the instruction at an address, which was just carried out, is prefixed.
    pub(crate) fn prefixed_cause(&mut self, pc: u64) -> u64 {
        // Another program may have something else there by now.
        let prefixed = self.prefixed_at == pc && self.code_word(pc).is_some_and(|w| w >> 26 == 1);
        if prefixed { PREFIXED } else { 0 }
    }
    /// The word at an address of code, if it can be read without effects.
    fn code_word(&mut self, pc: u64) -> Option<u32> {
        let index = PpcMode(self.header.mode).fetch_idx();
        let pa = self.translate_address(pc & !3, None, index).ok()?.pa;
        let bytes = self.read_table(pa)?.to_be_bytes();
        let at = (pa & 4) as usize;
        let word = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(if self.msr & msr::LE != 0 { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) })
    }

    /// scv: LR, CTR and MSR; the vector of the level, with external interrupts and RI as they were.
    pub(crate) fn system_call_vectored(&mut self, level: u32) {
        self.sync_segments();
        self.lr = self.header.pc.wrapping_add(4);
        self.ctr = self.msr & !CAUSE;
        let (address, translated) = if self.ail() == 3 { (SCV_AIL_3, true) } else { (SCV, false) };
        let msr = self.handler_msr(msr::ME | msr::EE | msr::RI, translated);
        self.enter(address + 0x20 * u64::from(level & 0x7f), msr);
    }

    /// Data storage interrupt: bits of DSISR but for the store.
    pub(crate) fn raise_data_storage(&mut self, va: u64, cause: u64, store: bool) {
        self.spr[spr::DAR as usize] = va;
        self.spr[spr::DSISR as usize] = cause | if store { dsisr::STORE } else { 0 };
        self.raise(Vector::DataStorage, 0);
    }
    /// Storage interrupt of an access of any kind.
    pub(crate) fn raise_storage(&mut self, va: u64, cause: u64, access: Access) {
        match access {
            Access::Fetch => self.take_interrupt(Vector::InstructionStorage, va, cause),
            _ => self.raise_data_storage(va, cause, access == Access::Write),
        }
    }
    /// Segment interrupt of an access of any kind.
    pub(crate) fn raise_segment(&mut self, va: u64, access: Access) {
        if access == Access::Fetch {
            self.take_interrupt(Vector::InstructionSegment, va, 0);
        } else {
            self.spr[spr::DAR as usize] = va;
            self.raise(Vector::DataSegment, 0);
        }
    }
    /// Alignment interrupt. DSISR is left to software, which decodes the instruction (since 2.07).
    pub(crate) fn raise_alignment(&mut self, va: u64) {
        self.spr[spr::DAR as usize] = va;
        self.raise(Vector::Alignment, 0);
    }
    /// Alignment interrupt of a prefixed instruction that crosses a multiple of 64 bytes.
    pub(crate) fn raise_boundary(&mut self) {
        self.spr[spr::DAR as usize] = self.header.pc;
        self.raise(Vector::Alignment, BOUNDARY);
    }
    /// Facility unavailable interrupt: the cause is in FSCR.
    pub(crate) fn raise_facility(&mut self, number: u32) {
        use crate::bits::fscr;
        let v = &mut self.spr[spr::FSCR as usize];
        *v = *v & !fscr::IC | u64::from(number) << fscr::IC_SHIFT;
        self.raise(Vector::FacilityUnavailable, 0);
    }

    /// Takes the interrupt of the highest priority that waits and is enabled; true if there was one. The pc is that of the next
    /// instruction.
    pub(crate) fn take_pending(&mut self) -> bool {
        let pins = self.pins.bits();
        if pins & pin::SYSTEM_RESET != 0 {
            self.pins.clear(pin::SYSTEM_RESET);
            self.wake_up();
            self.take_interrupt(Vector::SystemReset, self.header.pc, 0);
            return true;
        }
        if let Some((cause, status, address)) = self.sys.machine_check.take() {
            self.wake_up();
            self.spr[spr::DSISR as usize] = status;
            self.spr[spr::DAR as usize] = address;
            self.take_interrupt(Vector::MachineCheck, self.header.pc, cause);
            return true;
        }
        if self.sys.counting != 0 {
            self.sync_counters();
        }
        let decrementer = self.decrementer_pending();
        let monitor = self.performance_monitor_alert();
        let waits = pins & (pin::EXTERNAL | pin::DOORBELL) != 0 || decrementer || monitor;
        self.pending = waits.into();
        if !waits || self.msr & msr::EE == 0 {
            return false;
        }
        let vector = if pins & pin::EXTERNAL != 0 {
            Vector::External
        } else if decrementer {
            Vector::Decrementer
        } else if pins & pin::DOORBELL != 0 {
            self.pins.clear(pin::DOORBELL);
            Vector::Doorbell
        } else {
            Vector::PerformanceMonitor
        };
        self.wake_up();
        self.take_interrupt(vector, self.header.pc, 0);
        true
    }
    fn wake_up(&mut self) {
        self.sys.halted = false;
    }
}
