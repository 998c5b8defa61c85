//! What the machine gives to a processor: interrupt pins, firmware calls, the GIC's CPU interface.

use crate::state::ArmCpu;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// An interrupt input of the processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Pin {
    Irq = 0,
    Fiq = 1,
    Virq = 2,
    Vfiq = 3,
}

/// The interrupt inputs; set from any thread.
#[derive(Default)]
pub struct ArmPins {
    levels: AtomicU32,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl ArmPins {
    /// What to call when a pin rises (the vCPU's kick with `request::INTERRUPT`); set once.
    pub fn set_wake(&self, wake: Box<dyn Fn() + Send + Sync>) {
        // A second accelerator on the same pins would be a construction error; the first stays.
        let _ = self.wake.set(wake);
    }
    /// Sets the level of a pin.
    pub fn set(&self, pin: Pin, level: bool) {
        let bit = 1 << pin as u32;
        // Controllers set all pins whenever one may have changed.
        if self.level(pin) == level {
            return;
        }
        let old = if level {
            self.levels.fetch_or(bit, Ordering::SeqCst)
        } else {
            self.levels.fetch_and(!bit, Ordering::SeqCst)
        };
        if level && old & bit == 0 {
            self.wake();
        }
    }
    /// Rings the vCPU without a change of level (power on, event).
    pub fn wake(&self) {
        if let Some(wake) = self.wake.get() {
            wake();
        }
    }
    pub fn level(&self, pin: Pin) -> bool {
        self.levels() & (1 << pin as u32) != 0
    }
    /// All levels, bit n = pin n.
    #[inline]
    pub fn levels(&self) -> u32 {
        self.levels.load(Ordering::SeqCst)
    }
}

/// The instruction that made a firmware call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduit {
    Hvc,
    Smc,
}

/// What the GIC CPU interface needs to know of the processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IccContext {
    pub el: u32,
    pub secure: bool,
    /// HCR_EL2 as it takes effect (0 without EL2).
    pub hcr_el2: u64,
    /// SCR_EL3 (NS set without EL3).
    pub scr_el3: u64,
}

/// How an access to a register of the GIC CPU interface ends instead of with a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trap {
    Undefined,
    /// Trapped (EC 0x18) to this exception level.
    To(u32),
}

/// Services of the machine. Called on the vCPU's thread with no lock of this crate held.
pub trait ArmHooks: Send + Sync {
    /// A firmware call by HVC or SMC; true if it was one (X0–X3 then hold the results). The processor asks only where the
    /// instruction is not taken by an EL2 or EL3 of the guest: see `ArmCpu::set_conduit`.
    fn firmware_call(&self, cpu: &mut ArmCpu, conduit: Conduit) -> bool {
        let _ = (cpu, conduit);
        false
    }
    /// Does the machine have a GIC with a system-register interface (ID_AA64PFR0_EL1.GIC)?
    fn has_icc(&self) -> bool {
        false
    }
    /// Reads ICC_*/ICV_*/ICH_* register `enc` (`sysreg::enc`).
    ///
    /// # Errors
    /// [`Trap`].
    fn icc_read(&self, cpu: u32, enc: u16, context: IccContext) -> Result<u64, Trap> {
        let _ = (cpu, enc, context);
        Err(Trap::Undefined)
    }
    /// Writes one.
    ///
    /// # Errors
    /// [`Trap`].
    fn icc_write(&self, cpu: u32, enc: u16, context: IccContext, value: u64) -> Result<(), Trap> {
        let _ = (cpu, enc, context, value);
        Err(Trap::Undefined)
    }
    /// SEV: set the event register of all vCPUs.
    fn send_event(&self) {}
    /// An accelerator that does firmware calls itself has seen this vCPU on or off.
    fn power_state(&self, cpu: u32, on: bool) {
        let _ = (cpu, on);
    }
    /// The level of this vCPU's PMU overflow interrupt.
    fn pmu_line(&self, cpu: u32, level: bool) {
        let _ = (cpu, level);
    }
    /// Is [`ArmHooks::exception`] to be called? Asked once.
    fn wants_exceptions(&self) -> bool {
        false
    }
    /// An exception was taken; for the log.
    fn exception(&self, cpu: u32, message: &str) {
        let _ = (cpu, message);
    }
    /// The guest did something the architecture leaves undefined or this crate lacks; for the log.
    fn guest_error(&self, cpu: u32, message: &str) {
        let _ = (cpu, message);
    }
}

/// A machine with none of the services.
pub struct NoHooks;
impl ArmHooks for NoHooks {}
