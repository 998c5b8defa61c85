//! Helpers that raise interrupts, and those of system instructions.

use crate::bits::{fscr, msr};
use crate::exception::{Vector, program};
use crate::hooks::pin;
use crate::mode::PpcMode;
use crate::spr;
use crate::state::PpcCpu;
use crate::system::MsrWrite;
use rhea_ir::Effects;
use rhea_ir::guest::request;

const RAISES: Effects = Effects::RAISES.union(Effects::WRITES_STATE);

rhea_ir::helper_table! {
    cpu PpcCpu, base super::SYSTEM_BASE;
    /// Program interrupt: args (cause bits of SRR1, see `exception::program`). Always raises.
    PROGRAM = program_interrupt, (I64) -> Void, RAISES;
    /// Floating-point, vector, VSX unavailable: args (vector). Always raises.
    UNAVAILABLE = unavailable, (I32) -> Void, RAISES;
    /// Facility unavailable: args (number of the facility in FSCR). Always raises.
    FACILITY = facility, (I32) -> Void, RAISES;
    /// Alignment interrupt: args (address). Always raises.
    ALIGNMENT = alignment, (I64) -> Void, RAISES;
    /// The same of a prefixed instruction that crosses a multiple of 64 bytes.
    BOUNDARY = boundary, () -> Void, RAISES;
    /// Data storage interrupt of a store: args (address, DSISR). Always raises.
    STORAGE = storage, (I64, I64) -> Void, RAISES;
    /// sc: args (LEV). Sets the pc itself.
    SC = sc, (I32) -> Void, RAISES;
    /// Sets the guest's pc: end the block with `end_lookup`.
    SET_PC = set_pc, (I64) -> Void, Effects::WRITES_STATE;
    /// After an instruction under `PpcMode::single_step` (or a taken branch under `branch_trace`): args (address of the next
    /// instruction). Sets the pc, raises the trace interrupt or stops for the debugger.
    TRACE = trace, (I64) -> Void, RAISES;
    /// Before an instruction under `PpcMode::breakpoints`.
    BREAKPOINT = breakpoint, () -> Void, RAISES;
    /// scv: args (LEV). Sets the pc itself.
    SCV = scv, (I32) -> Void, RAISES;
    /// rfid. Sets the pc itself.
    RFID = rfid, () -> Void, RAISES;
    /// rfscv. Sets the pc itself.
    RFSCV = rfscv, () -> Void, RAISES;
    /// rfebb: args (S). Sets the pc itself.
    RFEBB = rfebb, (I32) -> Void, RAISES;
    /// clrbhrb, mfbhrbe: raises if problem state may not.
    BRANCH_HISTORY = branch_history, () -> Void, RAISES;
    /// mtmsr (0), mtmsrd (1), either with L = 1 (2): args (which, value). End the block with `end_after`.
    MTMSR = mtmsr, (I32, I64) -> Void, RAISES;
    /// After MSR.EE was set in place while `slots::PENDING` is: args (address of the next instruction). Always leaves.
    UNMASKED = unmasked, (I64) -> Void, RAISES;
    /// Under `slots::UNSYNCHRONIZED`, at a context synchronizing instruction: args (address of the next one). Always leaves.
    SYNC_SEGMENTS = sync_segments, (I64) -> Void, RAISES;
    /// Reads a special-purpose register that is not a plain value: args (number, what RT holds).
    READ_SPR = read_spr, (I32, I64) -> I64, RAISES;
    /// Writes one: args (number, value).
    WRITE_SPR = write_spr, (I32, I64) -> Void, RAISES;
    /// A register that does not exist: args (number, 1 if written).
    ABSENT_SPR = absent_spr, (I32, I32) -> Void, Effects::WRITES_STATE;
    /// The time base.
    TIME_BASE = time_base, () -> I64, Effects::READS_STATE;
    /// slbmte: args (RS, RB). End the block with `end_after`, as with all that change translation.
    SLBMTE = slbmte, (I64, I64) -> Void, RAISES;
    /// slbmfee: args (RB).
    SLBMFEE = slbmfee, (I64) -> I64, Effects::WRITES_STATE;
    SLBMFEV = slbmfev, (I64) -> I64, Effects::WRITES_STATE;
    /// slbfee.: args (RT, RB); sets CR0 and RT.
    SLBFEE = slbfee, (I32, I64) -> Void, Effects::WRITES_STATE;
    /// slbie: args (RB).
    SLBIE = slbie, (I64) -> Void, RAISES;
    /// slbia: args (IH).
    SLBIA = slbia, (I32) -> Void, RAISES;
    /// tlbie, tlbiel: args (form, RS, RB).
    TLBIE = tlbie, (I64, I64, I64) -> Void, RAISES;
    /// tlbsync, slbsync, slbieg, slbiag.
    TLBSYNC = tlbsync, () -> Void, RAISES;
    /// msgsndp, msgclrp: args (RB, 1 if it clears).
    MSGP = msgp, (I64, I32) -> Void, RAISES;
}

macro_rules! helper {
    ($($name:ident($cpu:ident, $a:ident, $b:ident, $c:ident) $body:block)*) => {
        $(extern "C" fn $name($cpu: &mut PpcCpu, $a: u64, $b: u64, $c: u64, _: u64) -> u64 { $body })*
    };
}

/// Leaves generated code right after this instruction, which would go on in its block: what translation depends on has changed.
/// (Under tracing the block ends anyway.)
fn leave_after(cpu: &mut PpcCpu) {
    if cpu.header.raised == 0 && !PpcMode(cpu.header.mode).single_step() {
        cpu.header.pc = cpu.header.pc.wrapping_add(4);
        cpu.header.raised = 1;
        cpu.request(request::ACCEL);
    }
}
/// Has invalidations done before the guest goes on.
fn leave_for_flushes(cpu: &mut PpcCpu) {
    if !cpu.flushes.is_empty() {
        leave_after(cpu);
    }
}

helper! {
    program_interrupt(cpu, cause, _b, _c) {
        cpu.raise(Vector::Program, cause);
        0
    }
    unavailable(cpu, vector, _b, _c) {
        let vector = match vector {
            0x800 => Vector::FpUnavailable,
            0xf20 => Vector::VectorUnavailable,
            _ => Vector::VsxUnavailable,
        };
        cpu.raise(vector, 0);
        0
    }
    facility(cpu, number, _b, _c) {
        cpu.raise_facility(number as u32);
        0
    }
    alignment(cpu, va, _b, _c) {
        cpu.raise_alignment(va);
        0
    }
    boundary(cpu, _a, _b, _c) {
        cpu.raise_boundary();
        0
    }
    storage(cpu, va, cause, _c) {
        cpu.raise_data_storage(va, cause, true);
        0
    }
    sc(cpu, level, _b, _c) {
        let next = cpu.header.pc.wrapping_add(4);
        if level != 1 {
            cpu.take_interrupt(Vector::SystemCall, next, 0);
            return 0;
        }
        // The pc is that of the next instruction, so that a call which takes an interrupt, or restarts, finds it.
        cpu.header.pc = next;
        if cpu.msr & msr::PR != 0 {
            // H_PRIVILEGE.
            cpu.gpr[3] = -3i64 as u64;
            return 0;
        }
        let hooks = cpu.hooks.clone();
        if !hooks.hcall(cpu) {
            cpu.header.pc = next.wrapping_sub(4);
            cpu.raise(Vector::Program, program::PRIVILEGED);
        } else if cpu.header.raised == 0 {
            cpu.step_into_handler();
            // Invalidations are done before the guest goes on.
            cpu.header.raised |= u32::from(!cpu.flushes.is_empty());
        }
        0
    }
    set_pc(cpu, pc, _b, _c) {
        cpu.header.pc = pc;
        0
    }
    trace(cpu, next, _b, _c) {
        cpu.traced(next);
        0
    }
    breakpoint(cpu, _a, _b, _c) {
        cpu.breakpoint_check();
        0
    }
    scv(cpu, level, _b, _c) {
        cpu.system_call_vectored(level as u32);
        0
    }
    rfid(cpu, _a, _b, _c) {
        let (pc, to) = (cpu.spr[spr::SRR0 as usize], cpu.spr[spr::SRR1 as usize]);
        cpu.return_to(pc, to);
        0
    }
    rfscv(cpu, _a, _b, _c) {
        let (pc, to) = (cpu.lr, cpu.ctr);
        cpu.return_to(pc, to);
        0
    }
    rfebb(cpu, s, _b, _c) {
        cpu.return_from_event(s != 0);
        0
    }
    branch_history(cpu, _a, _b, _c) {
        cpu.branch_history_access();
        0
    }
    mtmsr(cpu, which, v, _c) {
        let how = match which {
            0 => MsrWrite::Word,
            1 => MsrWrite::Doubleword,
            _ => MsrWrite::Interrupts,
        };
        let pc = cpu.header.pc;
        cpu.header.pc = pc.wrapping_add(4);
        cpu.sync_segments();
        cpu.write_msr(v, how);
        if cpu.header.raised == 0 {
            cpu.header.pc = pc;
        }
        0
    }
    unmasked(cpu, next, _b, _c) {
        cpu.header.pc = next;
        cpu.header.raised = 1;
        cpu.take_pending();
        0
    }
    sync_segments(cpu, next, _b, _c) {
        cpu.header.pc = next;
        cpu.header.raised = 1;
        cpu.sync_segments();
        cpu.request(request::ACCEL);
        0
    }
    read_spr(cpu, number, old, _c) {
        cpu.read_special(number as u32, old)
    }
    write_spr(cpu, number, v, _c) {
        cpu.write_special(number as u32, v);
        0
    }
    absent_spr(cpu, number, write, _c) {
        cpu.tell_absent_spr(number as u32, write != 0);
        0
    }
    time_base(cpu, _a, _b, _c) {
        cpu.time_base()
    }
    slbmte(cpu, rs, rb, _c) {
        let context = cpu.sys.contexts.current();
        cpu.slb_move_to(rs, rb);
        if cpu.sys.contexts.current() != context || !cpu.flushes.is_empty() {
            leave_after(cpu);
        }
        0
    }
    slbmfee(cpu, rb, _b, _c) {
        cpu.slb_move_from_esid(rb)
    }
    slbmfev(cpu, rb, _b, _c) {
        cpu.slb_move_from_vsid(rb)
    }
    slbfee(cpu, rt, rb, _c) {
        let found = cpu.slb_find_entry(rb);
        cpu.gpr[rt as usize & 31] = found.unwrap_or(0);
        cpu.set_cr_field(0, u32::from(found.is_some()) << 1 | u32::from(cpu.so));
        0
    }
    slbie(cpu, rb, _b, _c) {
        cpu.slb_invalidate(rb);
        leave_for_flushes(cpu);
        0
    }
    slbia(cpu, hint, _b, _c) {
        cpu.slb_invalidate_all(hint as u32);
        leave_for_flushes(cpu);
        0
    }
    tlbie(cpu, form, rs, rb) {
        cpu.tlb_invalidate(form, rs, rb);
        leave_for_flushes(cpu);
        0
    }
    tlbsync(cpu, _a, _b, _c) {
        cpu.tlb_sync();
        0
    }
    msgp(cpu, rb, clear, _c) {
        // Type 5: directed privileged doorbell.
        if rb >> 27 & 0x1f == 5 {
            if clear != 0 {
                cpu.pins.clear(pin::DOORBELL);
            } else {
                let hooks = cpu.hooks.clone();
                hooks.doorbell(cpu.index, rb as u32 & 0x7f);
                // To itself: at once.
                if cpu.msr & msr::EE != 0 && cpu.pins.bits() & pin::DOORBELL != 0 {
                    leave_after(cpu);
                    cpu.request(request::INTERRUPT);
                }
            }
        }
        0
    }
}

impl PpcCpu {
    /// rfid, rfscv.
    fn return_to(&mut self, pc: u64, to: u64) {
        self.sync_segments();
        let narrow = to & msr::SF == 0;
        self.header.pc = if narrow { pc & 0xffff_fffc } else { pc & !3 };
        self.write_msr(to, MsrWrite::Return);
        if self.header.raised == 0 && !self.event_branch() {
            self.step_into_handler();
        }
    }

    /// mfspr of what is not a plain value.
    fn read_special(&mut self, number: u32, old: u64) -> u64 {
        match number {
            spr::DEC => self.decrementer(),
            spr::TB | spr::VTB | spr::PURR | spr::SPURR => self.time_base(),
            spr::TBU => self.time_base() >> 32,
            spr::IC => self.time_base().wrapping_mul(4),
            spr::TIR => u64::from(self.sys.thread),
            spr::DPDES => u64::from(self.pins.bits() & pin::DOORBELL != 0) << (self.sys.thread & 7),
            spr::PPR32 => self.spr[spr::PPR as usize] >> 32,
            spr::DEXCR_READ => self.spr[spr::DEXCR as usize] >> 32,
            spr::BESCR | spr::BESCRS | spr::BESCRR => self.spr[spr::BESCR as usize],
            spr::BESCRSU | spr::BESCRRU => self.spr[spr::BESCR as usize] >> 32,
            736..=798 => self.read_monitor(number).unwrap_or(old),
            _ => self.spr[number as usize & 1023],
        }
    }

    /// mtspr of what is not a plain value; the block ends after it.
    fn write_special(&mut self, number: u32, v: u64) {
        match number {
            spr::DEC => {
                self.set_decrementer(v);
                if self.msr & msr::EE != 0 && self.decrementer_pending() {
                    leave_after(self);
                    self.request(request::INTERRUPT);
                }
            }
            spr::AMR | spr::UAMR | spr::IAMR => {
                let n = if number == spr::UAMR { spr::AMR } else { number } as usize;
                let mask = if self.msr & msr::PR != 0 { self.spr[spr::UAMOR as usize] } else { u64::MAX };
                self.spr[n] = self.spr[n] & !mask | v & mask;
                self.select_rights();
                self.refresh_mode();
            }
            spr::PIDR => {
                let v = v & 0xffff_ffff;
                if std::mem::replace(&mut self.spr[spr::PIDR as usize], v) != v {
                    leave_after(self);
                }
            }
            spr::FSCR => {
                use crate::config::Isa;
                let mut mask = fscr::IC | 1 << fscr::DSCR | 1 << fscr::EBB | 1 << fscr::TAR;
                if self.config.isa >= Isa::V3_0 {
                    mask |= 1 << fscr::SCV;
                }
                if self.config.isa >= Isa::V3_1 {
                    mask |= 1 << fscr::PREFIX;
                }
                self.spr[spr::FSCR as usize] = v & mask;
                self.rebuild_mode();
            }
            spr::PPR32 => self.spr[spr::PPR as usize] = v << 32 & 7 << 50,
            spr::BESCR => self.write_event_control(v),
            spr::BESCRS | spr::BESCRSU => {
                let v = if number == spr::BESCRSU { v << 32 } else { v };
                self.write_event_control(self.spr[spr::BESCR as usize] | v);
            }
            spr::BESCRR | spr::BESCRRU => {
                let v = if number == spr::BESCRRU { v << 32 } else { v };
                self.write_event_control(self.spr[spr::BESCR as usize] & !v);
            }
            736..=798 => self.write_monitor(number, v),
            _ => {}
        }
    }
}
