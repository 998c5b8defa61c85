//! What the machine gives to a processor: the interrupt pin, hypervisor calls, the hashed page table, time.

use crate::exception::Vector;
use crate::state::PpcCpu;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bits of [`PpcPins`].
pub mod pin {
    /// External interrupt: a level.
    pub const EXTERNAL: u32 = 1;
    /// System reset (NMI): latched, cleared by the processor when it takes it.
    pub const SYSTEM_RESET: u32 = 2;
    /// Privileged doorbell (msgsndp): latched.
    pub const DOORBELL: u32 = 4;
}

/// The interrupt inputs; set from any thread.
#[derive(Default)]
pub struct PpcPins {
    bits: AtomicU32,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl PpcPins {
    /// What to call when an input rises (the vCPU's kick with `request::INTERRUPT`); set once.
    pub fn set_wake(&self, wake: Box<dyn Fn() + Send + Sync>) {
        // A second accelerator on the same pins would be a construction error; the first stays.
        let _ = self.wake.set(wake);
    }
    /// Sets the level of the external interrupt.
    pub fn set_external(&self, level: bool) {
        if (self.bits() & pin::EXTERNAL != 0) == level {
            return;
        }
        if level {
            self.signal(pin::EXTERNAL);
        } else {
            self.clear(pin::EXTERNAL);
        }
    }
    pub fn signal(&self, bits: u32) {
        let old = self.bits.fetch_or(bits, Ordering::SeqCst);
        if old & bits != bits {
            self.wake();
        }
    }
    pub fn clear(&self, bits: u32) {
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

/// A doubleword pair of the hashed page table.
pub type Pte = [u64; 2];

/// Services of the machine. Called on the vCPU's thread with no lock of this crate held.
pub trait PpcHooks: Send + Sync {
    /// `sc 1`: a hypervisor call; token in GPR 3, arguments from GPR 4, the result goes to GPR 3. False if the machine has no
    /// hypervisor interface (the instruction is then a privileged-instruction error).
    fn hcall(&self, cpu: &mut PpcCpu) -> bool {
        let _ = cpu;
        false
    }
    /// Of a hypervisor call that sees and changes no more of the processor than GPR 3 to 12 and MSR: how many arguments it has (from GPR 4
    /// on, at most 9). The rest of the state need not be brought here then where it is elsewhere (under KVM), nor MSR, if whether its
    /// caller is in 32-bit mode makes no difference to these arguments. `None`: it sees more, or is not known.
    fn hcall_arguments(&self, number: u64) -> Option<usize> {
        let _ = number;
        None
    }
    /// log2 of the size in bytes of the hashed page table, 0: there is none.
    fn hpt_order(&self) -> u32 {
        0
    }
    /// Reads 8 entries of the hashed page table: group `group` (already masked by the caller).
    fn hpt_group(&self, group: u64) -> [Pte; 8] {
        let _ = group;
        [[0; 2]; 8]
    }
    /// Sets bits (R, C) in the second doubleword of entry `index` if it still holds `old`; true if done.
    fn hpt_update(&self, index: u64, old: Pte, set: u64) -> bool {
        let _ = (index, old, set);
        false
    }
    /// The process table of the partition: the doubleword of a partition table entry that says where it is (bits 4–51 its
    /// address, 59–63 log2 of its size minus 12), 0: there is none.
    fn process_table(&self) -> u64 {
        0
    }
    /// darn: 64 random bits.
    fn random(&self) -> u64 {
        0
    }
    /// msgsndp: a doorbell for the thread `thread` of this core.
    fn doorbell(&self, cpu: u32, thread: u32) {
        let _ = (cpu, thread);
    }
    /// The processor stops for good: a machine check while MSR.ME is clear.
    fn checkstop(&self, cpu: &mut PpcCpu) {
        let _ = cpu;
    }
    /// A system reset or machine check interrupt was taken: SRR0, SRR1, DAR, DSISR are set, the pc is the vector. Firmware-assisted
    /// non-maskable interrupts go elsewhere from here.
    fn nonmaskable(&self, cpu: &mut PpcCpu, vector: Vector) {
        let _ = (cpu, vector);
    }
    /// The processor begins to wait (H_CEDE, H_JOIN), or runs again: the dispatch count of its virtual processor area.
    fn dispatched(&self, cpu: u32, running: bool) {
        let _ = (cpu, running);
    }
    /// The guest did something the architecture leaves undefined or this crate lacks; for the log.
    fn guest_error(&self, cpu: u32, message: &str) {
        let _ = (cpu, message);
    }
    /// Is [`PpcHooks::exception`] to be called? Asked once.
    fn wants_exceptions(&self) -> bool {
        false
    }
    /// An interrupt was taken; for the log.
    fn exception(&self, cpu: u32, message: &str) {
        let _ = (cpu, message);
    }
}

/// A machine with none of the services.
pub struct NoHooks;
impl PpcHooks for NoHooks {}
