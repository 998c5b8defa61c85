//! The state of a processor, between the kernel and an [`ArmCpu`].

use super::abi as kb;
use super::abi::{kvm_guest_debug, kvm_regs, user_fpsimd_state, user_pt_regs};
use super::sys::VcpuFile;
use crate::error::{Context, KvmError};
use rhea_arm::reg::Reg;
use rhea_arm::{ArmCpu, ArmSaved, DebugEvent, HostWatch};
use std::mem::offset_of;

/// A core register: at that offset of `struct kvm_regs`, of that size (`KVM_REG_SIZE_`).
const fn core(offset: usize, size: u64) -> u64 {
    kb::KVM_REG_ARM64 | size | kb::KVM_REG_ARM_CORE as u64 | offset as u64 / 4
}
const fn core64(offset: usize) -> u64 {
    core(offset, kb::KVM_REG_SIZE_U64)
}
/// A system register, by the fields of MRS: op0, op1, CRn, CRm, op2.
pub const fn system(op0: u64, op1: u64, crn: u64, crm: u64, op2: u64) -> u64 {
    let encoding = op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2;
    kb::KVM_REG_ARM64 | kb::KVM_REG_SIZE_U64 | kb::KVM_REG_ARM64_SYSREG as u64 | encoding
}
/// The first 2048 bits of a vector register of SVE.
const fn sve(n: u64) -> u64 {
    kb::KVM_REG_ARM64 | kb::KVM_REG_SIZE_U2048 | kb::KVM_REG_ARM64_SVE as u64 | n << 5
}

const REGS: usize = offset_of!(kvm_regs, regs);
const FP: usize = offset_of!(kvm_regs, fp_regs);

/// The guest's virtual counter (the two halves of the kernel's name for it are exchanged with the compare register's).
pub const COUNTER: u64 = system(3, 3, 14, 3, 2);

pub const PC: u64 = core64(REGS + offset_of!(user_pt_regs, pc));

/// System registers that a debugger and translations of addresses need, with where an [`ArmSaved`] has them.
const SYSTEM: &[(u64, Reg)] = &[
    (system(3, 0, 1, 0, 0), Reg::SctlrEl1),
    (system(3, 0, 1, 0, 2), Reg::CpacrEl1),
    (system(3, 0, 2, 0, 0), Reg::Ttbr0El1),
    (system(3, 0, 2, 0, 1), Reg::Ttbr1El1),
    (system(3, 0, 2, 0, 2), Reg::TcrEl1),
    (system(3, 0, 5, 2, 0), Reg::EsrEl1),
    (system(3, 0, 6, 0, 0), Reg::FarEl1),
    (system(3, 0, 7, 4, 0), Reg::ParEl1),
    (system(3, 0, 10, 2, 0), Reg::MairEl1),
    (system(3, 0, 12, 0, 0), Reg::VbarEl1),
    (system(3, 0, 13, 0, 1), Reg::ContextidrEl1),
    (system(3, 0, 14, 1, 0), Reg::CntkctlEl1),
    (system(3, 2, 0, 0, 0), Reg::CsselrEl1),
    (system(2, 0, 0, 2, 2), Reg::MdscrEl1),
    (core64(offset_of!(kvm_regs, elr_el1)), Reg::ElrEl1),
    (core64(offset_of!(kvm_regs, spsr)), Reg::SpsrEl1),
];
const THREAD: [u64; 3] = [system(3, 3, 13, 0, 2), system(3, 3, 13, 0, 3), system(3, 0, 13, 0, 4)];

/// Numbers of all registers that are kept in step, in the order of [`values`].
fn numbers(with_sve: bool) -> Vec<u64> {
    let pt = |offset: usize| core64(REGS + offset);
    let vregs = FP + offset_of!(user_fpsimd_state, vregs);
    let mut all: Vec<u64> = (0..31).map(|n| pt(offset_of!(user_pt_regs, regs) + 8 * n)).collect();
    all.extend([pt(offset_of!(user_pt_regs, sp)), core64(offset_of!(kvm_regs, sp_el1))]);
    all.extend([pt(offset_of!(user_pt_regs, pc)), pt(offset_of!(user_pt_regs, pstate))]);
    // A vCPU with SVE has the vector registers under its names only.
    all.extend((0..32).map(|n| if with_sve { sve(n) } else { core(vregs + 16 * n as usize, kb::KVM_REG_SIZE_U128) }));
    all.push(core(FP + offset_of!(user_fpsimd_state, fpsr), kb::KVM_REG_SIZE_U32));
    all.push(core(FP + offset_of!(user_fpsimd_state, fpcr), kb::KVM_REG_SIZE_U32));
    all.extend(THREAD);
    all.extend(SYSTEM.iter().map(|(id, _)| *id));
    all
}

/// The values of an [`ArmSaved`], in that order.
fn values(saved: &ArmSaved) -> Vec<u128> {
    let mut all: Vec<u128> = saved.x.iter().map(|x| u128::from(*x)).collect();
    all.extend([saved.sp[0], saved.sp[1], saved.pc, saved.pstate.into()].map(u128::from));
    all.extend(saved.v);
    all.extend([saved.fpsr, saved.fpcr].map(u128::from));
    all.extend(saved.tpidr[..3].iter().map(|v| u128::from(*v)));
    all.extend(SYSTEM.iter().map(|(_, reg)| u128::from(saved.sys.get(*reg as usize).copied().unwrap_or(0))));
    all
}

/// Puts values in that order into an [`ArmSaved`].
fn unpack(values: &[u128], saved: &mut ArmSaved) {
    let mut next = values.iter().copied();
    let mut take = || next.next().unwrap_or(0);
    for x in &mut saved.x {
        *x = take() as u64;
    }
    (saved.sp[0], saved.sp[1]) = (take() as u64, take() as u64);
    (saved.pc, saved.pstate) = (take() as u64, take() as u32);
    for v in &mut saved.v {
        *v = take();
    }
    (saved.fpsr, saved.fpcr) = (take() as u32, take() as u32);
    for v in &mut saved.tpidr[..3] {
        *v = take() as u64;
    }
    for (_, reg) in SYSTEM {
        if let Some(to) = saved.sys.get_mut(*reg as usize) {
            *to = take() as u64;
        }
    }
}

/// Bytes of a register.
fn size(id: u64) -> usize {
    1 << ((id & kb::KVM_REG_SIZE_MASK) >> kb::KVM_REG_SIZE_SHIFT)
}

/// Reads a register: what of it fits.
///
/// # Errors
/// [`KvmError::Call`].
pub fn read(file: &dyn VcpuFile, id: u64) -> Result<u128, KvmError> {
    let mut bytes = [0; 256];
    file.register(id, &mut bytes[..size(id)]).during("KVM_GET_ONE_REG")?;
    let mut low = [0; 16];
    low.copy_from_slice(&bytes[..16]);
    Ok(u128::from_le_bytes(low))
}

/// Writes a register; what is beyond 128 bits stays.
///
/// # Errors
/// [`KvmError::Call`].
pub fn write(file: &dyn VcpuFile, id: u64, value: u128) -> Result<(), KvmError> {
    let (mut bytes, len) = ([0; 256], size(id));
    if len > 16 {
        file.register(id, &mut bytes[..len]).during("KVM_GET_ONE_REG")?;
    }
    bytes[..16].copy_from_slice(&value.to_le_bytes());
    file.set_register(id, &bytes[..len]).during("KVM_SET_ONE_REG")
}

/// What is kept between two looks at a processor's state.
pub struct Registers {
    numbers: Vec<u64>,
    /// Those of the guest when it was the same as the kernel's.
    known: Vec<u128>,
    /// `ArmCpu::resets` then.
    resets: u32,
    /// Breakpoints and watchpoints of the processor.
    stops: (usize, usize),
    /// What the debugger wants, as the kernel was told.
    debug: kvm_guest_debug,
}

impl Registers {
    /// Of a processor with so many breakpoints and watchpoints for debuggers; the kernel's state is not known yet.
    #[must_use]
    pub fn new(with_sve: bool, stops: (usize, usize)) -> Self {
        let debug = kvm_guest_debug::default();
        Self { numbers: numbers(with_sve), known: Vec::new(), resets: 0, stops, debug }
    }
    /// Was the processor reset since the kernel's state was last the same?
    #[must_use]
    pub fn was_reset(&self, cpu: &ArmCpu) -> bool {
        cpu.resets != self.resets
    }

    fn read_all(&self, file: &dyn VcpuFile) -> Result<Vec<u128>, KvmError> {
        self.numbers.iter().map(|id| read(file, *id)).collect()
    }

    /// Brings the kernel's state into `cpu`.
    ///
    /// # Errors
    /// [`KvmError::Call`].
    pub fn pull(&mut self, file: &dyn VcpuFile, cpu: &mut ArmCpu) -> Result<(), KvmError> {
        let values = self.read_all(file)?;
        let stopped = file.stopped().during("KVM_GET_MP_STATE")?;
        let mut saved = cpu.save();
        unpack(&values, &mut saved);
        saved.powered_off = stopped;
        self.load(cpu, &saved);
        Ok(())
    }
    fn load(&mut self, cpu: &mut ArmCpu, saved: &ArmSaved) {
        cpu.load(saved);
        // What the guest cannot hold is no difference.
        self.known = self::values(&cpu.save());
        self.resets = cpu.resets;
    }

    /// Gives the state of `cpu` to the kernel: what was changed. After a reset, which the kernel's processor has gone through, what is
    /// not the guest's to say is taken from there.
    ///
    /// # Errors
    /// [`KvmError::Call`].
    pub fn push(&mut self, file: &dyn VcpuFile, cpu: &mut ArmCpu) -> Result<(), KvmError> {
        let wanted = cpu.save();
        if self.was_reset(cpu) || self.known.is_empty() {
            let mut fresh = wanted.clone();
            unpack(&self.read_all(file)?, &mut fresh);
            self.load(cpu, &fresh);
            let ArmSaved { pc, x, sp, v, pstate, fpcr, fpsr, .. } = wanted;
            cpu.load(&ArmSaved { pc, x, sp, v, pstate, fpcr, fpsr, ..fresh });
        }
        let values = values(&cpu.save());
        for (n, id) in self.numbers.iter().enumerate() {
            if self.known.get(n) != values.get(n) {
                write(file, *id, values.get(n).copied().unwrap_or(0))?;
            }
        }
        self.known = values;
        self.push_stops(file, cpu)
    }

    /// Breakpoints, watchpoints and single step of the debugger, if they changed.
    fn push_stops(&mut self, file: &dyn VcpuFile, cpu: &ArmCpu) -> Result<(), KvmError> {
        /// Enabled, at EL1 and EL0; all four bytes of the instruction (DDI 0487, DBGBCR_EL1).
        const BREAKPOINT: u64 = 0xf << 5 | 3 << 1 | 1;
        let (breakpoints, watches, step) = cpu.host_stops();
        let mut debug = kvm_guest_debug::default();
        if step {
            debug.control |= kb::KVM_GUESTDBG_ENABLE | kb::KVM_GUESTDBG_SINGLESTEP;
        }
        if !(breakpoints.is_empty() && watches.is_empty()) {
            debug.control |= kb::KVM_GUESTDBG_ENABLE | kb::KVM_GUESTDBG_USE_HW;
        }
        for (n, va) in breakpoints.iter().take(self.stops.0.min(16)).enumerate() {
            (debug.arch.dbg_bvr[n], debug.arch.dbg_bcr[n]) = (*va, BREAKPOINT);
        }
        for (n, w) in watches.iter().take(self.stops.1.min(16)).enumerate() {
            (debug.arch.dbg_wvr[n], debug.arch.dbg_wcr[n]) = watch_fields(w);
        }
        if breakpoints.len() > self.stops.0 || watches.len() > self.stops.1 {
            let (b, w) = self.stops;
            eprintln!(
                "rhea: -accel kvm: the processor has {b} breakpoints and {w} watchpoints: the others do not stop it"
            );
        }
        if debug != self.debug {
            file.set_guest_debug(&debug).during("KVM_SET_GUEST_DEBUG")?;
            self.debug = debug;
        }
        Ok(())
    }

    /// What a debug exception means to the debugger: its syndrome and address (DDI 0487, ESR_ELx).
    #[must_use]
    pub fn stop_of(esr: u32, far: u64) -> Option<DebugEvent> {
        const WNR: u32 = 1 << 6;
        match esr >> 26 {
            0x30 | 0x31 => Some(DebugEvent::Breakpoint),
            0x32 | 0x33 => Some(DebugEvent::Step),
            0x34 | 0x35 => Some(DebugEvent::Watchpoint { va: far, write: esr & WNR != 0 }),
            // BKPT, BRK.
            0x38 | 0x3c => Some(DebugEvent::Breakpoint),
            _ => None,
        }
    }
}

/// DBGWVR and DBGWCR for a range: within eight bytes a byte each, beyond that a power of two.
fn watch_fields(w: &HostWatch) -> (u64, u64) {
    let kind = u64::from(w.read) | u64::from(w.write) << 1;
    let base = 3 << 1 | 1 | kind << 3;
    let (offset, len) = (w.va & 7, w.len.max(1));
    if offset + len <= 8 {
        let bytes = ((1u64 << len) - 1) << offset;
        return (w.va & !7, base | bytes << 5);
    }
    // The smallest aligned power of two around all of it.
    let mut mask = 3;
    while mask < 31 && (w.va >> mask) != (w.va.wrapping_add(len - 1) >> mask) {
        mask += 1;
    }
    (w.va >> mask << mask, base | 0xff << 5 | mask << 24)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watchpoints() {
        let watch = |va, len| watch_fields(&HostWatch { va, len, read: false, write: true });
        assert_eq!(watch(0x1004, 4), (0x1000, 0xf0 << 5 | 0b10111));
        assert_eq!(watch(0x1006, 4), (0x1000, 4 << 24 | 0xff << 5 | 0b10111));
        assert_eq!(watch(0x2000, 0x1000), (0x2000, 12 << 24 | 0xff << 5 | 0b10111));
    }

    #[test]
    fn each_register_has_a_number() {
        for with_sve in [false, true] {
            let all = numbers(with_sve);
            let mut once = all.clone();
            once.sort_unstable();
            once.dedup();
            assert_eq!(once.len(), all.len());
            assert!(all.iter().all(|id| size(*id) <= 256));
        }
        assert_eq!(numbers(false)[0], 0x6030_0000_0010_0000);
        assert_eq!(COUNTER, 0x6030_0000_0013_df1a);
    }
}
