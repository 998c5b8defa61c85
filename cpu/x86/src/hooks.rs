//! What the machine gives to a processor: interrupt inputs, the local APIC, port I/O, SMM.

use crate::state::X86Cpu;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bits of [`X86Pins`].
pub mod pin {
    /// INTR: a level, while an interrupt can be acknowledged ([`super::X86Hooks::acknowledge`]).
    pub const INTR: u32 = 1;
    /// Latched edges, cleared by the processor when it takes them.
    pub const NMI: u32 = 2;
    pub const SMI: u32 = 4;
    pub const INIT: u32 = 8;
    /// A start-up message came; its vector is in [`super::X86Pins::startup_vector`].
    pub const SIPI: u32 = 16;
    /// A machine check was injected.
    pub const MCE: u32 = 32;
    /// Nothing to take: only ends a halt or makes the processor look (timers, paravirtual kick).
    pub const WAKE: u32 = 64;
}

/// The interrupt inputs; set from any thread.
#[derive(Default)]
pub struct X86Pins {
    bits: AtomicU32,
    vector: AtomicU32,
    /// NMIs that came and were not taken: one to take and one to wait behind it.
    nmis: AtomicU32,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl X86Pins {
    /// What to call when an input rises (the vCPU's kick with `request::INTERRUPT`); set once.
    pub fn set_wake(&self, wake: Box<dyn Fn() + Send + Sync>) {
        // A second accelerator on the same pins would be a construction error; the first stays.
        let _ = self.wake.set(wake);
    }
    /// Sets the level of INTR.
    pub fn set_intr(&self, level: bool) {
        if (self.bits() & pin::INTR != 0) == level {
            return;
        }
        if level {
            self.signal(pin::INTR);
        } else {
            self.clear(pin::INTR);
        }
    }
    /// Latches inputs (NMI, SMI, INIT, ...).
    pub fn signal(&self, bits: u32) {
        if bits & pin::NMI != 0 {
            let _ = self.nmis.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| Some((n + 1).min(2)));
        }
        if bits & pin::INIT != 0 {
            // Start-up messages that came before are void; one that comes before INIT is taken is not.
            self.clear(pin::SIPI);
        }
        let old = self.bits.fetch_or(bits, Ordering::SeqCst);
        if old & bits != bits {
            self.wake();
        }
    }
    /// A start-up message (SIPI) with its vector.
    pub fn startup(&self, vector: u8) {
        self.vector.store(vector.into(), Ordering::SeqCst);
        self.signal(pin::SIPI);
    }
    pub fn startup_vector(&self) -> u8 {
        self.vector.load(Ordering::SeqCst) as u8
    }
    /// Takes all NMIs that came, for an accelerator that queues them itself: how many.
    pub fn take_nmis(&self) -> u32 {
        self.bits.fetch_and(!pin::NMI, Ordering::SeqCst);
        self.nmis.swap(0, Ordering::SeqCst)
    }
    /// Takes an NMI; false if none is left: who signals counts first, so that it may be taken before its bit is set.
    pub(crate) fn take_nmi(&self) -> bool {
        let before = self.nmis.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).unwrap_or(0);
        if before <= 1 {
            self.bits.fetch_and(!pin::NMI, Ordering::SeqCst);
            // One may have come between the two.
            if self.nmis.load(Ordering::SeqCst) != 0 {
                self.bits.fetch_or(pin::NMI, Ordering::SeqCst);
            }
        }
        before != 0
    }
    /// While one is handled no more than one waits.
    pub(crate) fn merge_nmis(&self) {
        let _ = self.nmis.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| Some(n.min(1)));
    }
    /// Latched inputs, vector, waiting NMIs. The level of INTR is the local APIC's.
    pub(crate) fn save(&self) -> [u32; 3] {
        let latched = self.bits() & !(pin::INTR | pin::WAKE);
        [latched, self.vector.load(Ordering::SeqCst), self.nmis.load(Ordering::SeqCst)]
    }
    pub(crate) fn load(&self, [latched, vector, nmis]: [u32; 3]) {
        let nmis = nmis.min(2);
        let nmi = if nmis != 0 { pin::NMI } else { 0 };
        let latched = latched & (pin::SMI | pin::INIT | pin::SIPI | pin::MCE) | nmi;
        self.vector.store(vector & 0xff, Ordering::SeqCst);
        self.nmis.store(nmis, Ordering::SeqCst);
        let _ = self.bits.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |b| Some(b & pin::INTR | latched));
    }
    pub fn clear(&self, bits: u32) {
        if bits & pin::NMI != 0 {
            self.nmis.store(0, Ordering::SeqCst);
        }
        self.bits.fetch_and(!bits, Ordering::SeqCst);
    }
    #[inline]
    pub fn bits(&self) -> u32 {
        self.bits.load(Ordering::SeqCst)
    }
    /// Rings the vCPU without a change.
    pub fn wake(&self) {
        if let Some(wake) = self.wake.get() {
            wake();
        }
    }
}

/// A fault that a register of the local APIC raises: #GP(0).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApicFault;

/// Services of the machine. Called on the vCPU's thread with no lock of this crate held.
pub trait X86Hooks: Send + Sync {
    /// INTA: the vector of the interrupt that INTR announces, now in service; `None` if there is none any more.
    fn acknowledge(&self, cpu: u32) -> Option<u8> {
        let _ = cpu;
        None
    }
    /// IA32_APIC_BASE.
    fn apic_base(&self, cpu: u32) -> u64 {
        let _ = cpu;
        0
    }
    /// # Errors
    /// [`ApicFault`]: reserved bits or a forbidden change of mode.
    fn set_apic_base(&self, cpu: u32, value: u64) -> Result<(), ApicFault> {
        let _ = (cpu, value);
        Err(ApicFault)
    }
    /// x2APIC register: MSR 0x800–0x8FF.
    ///
    /// # Errors
    /// [`ApicFault`].
    fn x2apic_read(&self, cpu: u32, msr: u32) -> Result<u64, ApicFault> {
        let _ = (cpu, msr);
        Err(ApicFault)
    }
    /// # Errors
    /// [`ApicFault`].
    fn x2apic_write(&self, cpu: u32, msr: u32, value: u64) -> Result<(), ApicFault> {
        let _ = (cpu, msr, value);
        Err(ApicFault)
    }
    /// CR8: the task-priority class, 0–15.
    fn tpr(&self, cpu: u32) -> u8 {
        let _ = cpu;
        0
    }
    fn set_tpr(&self, cpu: u32, class: u8) {
        let _ = (cpu, class);
    }
    /// IA32_TSC_DEADLINE; the TSC value in force is converted by [`X86Cpu::tsc_to_ns`]: the deadline comes as nanoseconds of
    /// virtual time, `None` disarms.
    fn set_tsc_deadline(&self, cpu: u32, deadline_ns: Option<u64>) {
        let _ = (cpu, deadline_ns);
    }
    /// The deadline while it is armed; `None` after it has come: IA32_TSC_DEADLINE then reads as 0.
    fn tsc_deadline(&self, cpu: u32) -> Option<u64> {
        let _ = cpu;
        None
    }
    /// Sends an interrupt by the paravirtual IPI hypercall: ICR's low word, to this physical APIC id; false if there is none.
    fn pv_ipi(&self, cpu: u32, apic_id: u32, icr: u32) -> bool {
        let _ = (cpu, apic_id, icr);
        false
    }
    /// Ends the HLT of the processor with this APIC id (paravirtual unhalt).
    fn pv_kick(&self, apic_id: u32) {
        let _ = apic_id;
    }
    /// The address of the PV EOI word of this processor (KVM_MSR PV_EOI_EN), `None` if off.
    fn set_pv_eoi(&self, cpu: u32, gpa: Option<u64>) {
        let _ = (cpu, gpa);
    }
    /// A local APIC of the accelerator broadcasts the end of a level-triggered interrupt.
    fn end_of_interrupt(&self, vector: u8) {
        let _ = vector;
    }
    /// IN. `size` is 1, 2 or 4 bytes.
    fn port_in(&self, cpu: u32, port: u16, size: u8) -> u32 {
        let _ = (cpu, port);
        u32::MAX >> (32 - 8 * u32::from(size.clamp(1, 4)))
    }
    /// OUT.
    fn port_out(&self, cpu: u32, port: u16, size: u8, value: u32) {
        let _ = (cpu, port, size, value);
    }
    /// The A20 gate: false masks bit 20 of physical addresses.
    fn a20(&self) -> bool {
        true
    }
    /// FERR#: an unmasked x87 error waits with CR0.NE clear (IRQ 13 on a PC).
    fn ferr(&self, cpu: u32, level: bool) {
        let _ = (cpu, level);
    }
    /// IGNNE#: unmasked x87 errors with CR0.NE clear are ignored. Without it the processor stands before the next instruction
    /// that waits, until an interrupt comes.
    fn ignne(&self, cpu: u32) -> bool {
        let _ = cpu;
        false
    }
    /// A triple fault: the processor is in shutdown; the machine resets.
    fn shutdown(&self, cpu: u32) {
        let _ = cpu;
    }
    /// The processor entered (true) or left SMM; it is told before the first access to SMRAM.
    fn smm(&self, cpu: u32, inside: bool) {
        let _ = (cpu, inside);
    }
    /// INIT was taken: the local APIC is reset except for its id.
    fn init(&self, cpu: u32) {
        let _ = cpu;
    }
    /// Runs `f` on every other processor's thread between two instructions (paravirtual TLB flush and similar).
    fn for_others(&self, cpu: u32, f: std::sync::Arc<dyn Fn(&mut X86Cpu) + Send + Sync>) {
        let _ = (cpu, f);
    }
    /// Is [`X86Hooks::exception`] to be called? Asked once.
    fn wants_exceptions(&self) -> bool {
        false
    }
    /// An interrupt or exception was delivered; for the log.
    fn exception(&self, cpu: u32, message: &str) {
        let _ = (cpu, message);
    }
    /// The guest did something the architecture leaves undefined; for the log.
    fn guest_error(&self, cpu: u32, message: &str) {
        let _ = (cpu, message);
    }
    /// The guest used something this crate lacks; for the log.
    fn unimplemented(&self, cpu: u32, message: &str) {
        let _ = (cpu, message);
    }
}

/// A machine with none of the services.
pub struct NoHooks;
impl X86Hooks for NoHooks {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_nmi_whose_bit_comes_late_is_taken_once() {
        let pins = X86Pins::default();
        pins.signal(pin::NMI);
        // Another processor has counted its own, and is slow to set the bit.
        pins.nmis.fetch_add(1, Ordering::SeqCst);
        assert!(pins.take_nmi() && pins.bits() & pin::NMI != 0);
        assert!(pins.take_nmi() && pins.bits() & pin::NMI == 0);
        pins.bits.fetch_or(pin::NMI, Ordering::SeqCst);
        assert!(!pins.take_nmi() && pins.bits() & pin::NMI == 0);
    }
}
