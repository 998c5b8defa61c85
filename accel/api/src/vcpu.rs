//! vCPUs, their threads, and the optional services of an accelerator.

use crate::irq::{IrqLine, MsiMessage};
use rhea_memory::Gpa;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// Why a vCPU cannot be made or run.
#[derive(Debug, Error)]
pub enum VcpuError {
    #[error("cannot start the thread of vCPU {index}: {source}")]
    Thread { index: u32, source: std::io::Error },
    #[error("vCPU {index}: {message}")]
    Model { index: u32, message: String },
}

/// What a vCPU thread reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VcpuEvent {
    /// A pause was requested; the vCPU may still be running.
    PauseRequested,
    /// The vCPU runs no guest code until resumed.
    Paused,
    Resumed,
    /// Waiting for an interrupt (WFI); uses no host CPU.
    Halted,
    /// Powered off (PSCI CPU_OFF) or not yet on.
    PoweredOff,
    Stopped,
}

/// One virtual processor on its own host thread. All methods may be called from any thread.
pub trait Vcpu: Send + Sync {
    fn index(&self) -> u32;
    /// Starts the thread, paused.
    ///
    /// # Errors
    /// [`VcpuError::Thread`].
    fn start(&self) -> Result<(), VcpuError>;
    /// Asks the vCPU to pause; returns at once.
    fn request_pause(&self);
    /// Waits until it is paused; false on timeout.
    fn wait_paused(&self, timeout: Option<Duration>) -> bool;
    fn resume(&self);
    /// Ends the thread and joins it.
    fn stop(&self);
    /// Makes the vCPU leave guest code (or WFI) soon and look at its pending requests.
    fn kick(&self);
    /// Runs `f` on the vCPU's thread between two guest instructions, and kicks it; does not wait.
    fn request(&self, f: Box<dyn FnOnce() + Send>);
}

/// A vCPU whose guest state (of type `G`) the machine may reach: what an accelerator's vCPU type implements beside [`Vcpu`].
pub trait GuestVcpu<G>: Vcpu {
    /// Runs `f` on the vCPU's thread between two guest instructions, with the state in memory precise. Also while the vCPU is paused,
    /// halted or powered off (then at once). Kicks the vCPU; does not wait. In the order of posting.
    fn post(&self, f: Box<dyn FnOnce(&mut G) + Send>);
    /// A handle that makes the vCPU look at its guest's interrupt inputs, from any thread.
    fn waker(&self) -> Box<dyn Fn() + Send + Sync>;
    /// Sets what is called on the vCPU's thread when the guest stopped for a debugger; the vCPU is then paused.
    fn on_debug_stop(&self, f: Box<dyn Fn() + Send>);
    /// Do a debugger's break- and watchpoints and steps stop the guest?
    fn debugs(&self) -> bool {
        true
    }
}

/// An accelerator that runs processors of type `G`.
pub trait GuestAccelerator<G>: Accelerator {
    /// Adds a vCPU with its guest; its thread starts with [`Vcpu::start`].
    ///
    /// # Errors
    /// [`VcpuError`]: the accelerator cannot run it.
    fn add_vcpu(self: Arc<Self>, index: u32, guest: Box<G>) -> Result<Arc<dyn GuestVcpu<G>>, VcpuError>;
}

/// An in-kernel or in-accelerator shortcut from an eventfd to a line, or to a message.
pub trait IrqFd: Send + Sync {
    /// # Errors
    /// The host's error.
    fn attach(&self, line: &IrqLine, trigger: BorrowedFd<'_>, resample: Option<BorrowedFd<'_>>) -> std::io::Result<()>;
    /// # Errors
    /// The host's error.
    fn detach(&self, line: &IrqLine, trigger: BorrowedFd<'_>) -> std::io::Result<()>;
    /// # Errors
    /// The host's error.
    fn attach_msi(&self, message: MsiMessage, trigger: BorrowedFd<'_>) -> std::io::Result<()>;
    /// # Errors
    /// The host's error; `NotFound` for a message that nothing is attached to.
    fn detach_msi(&self, message: MsiMessage, trigger: BorrowedFd<'_>) -> std::io::Result<()>;
}

/// Local APICs of an accelerator, where the I/O APIC is not its own.
pub trait LocalApics: Send + Sync {
    /// Sends a message; false if no local APIC took it. Bits 63:40 of its address are bits 31:8 of the destination.
    fn signal(&self, message: MsiMessage) -> bool;
    /// What pin `pin` of the I/O APIC sends from now on, a level-triggered interrupt: the accelerator tells of its end.
    fn set_pin(&self, pin: u32, message: MsiMessage);
}

/// A shortcut from a guest write to an eventfd.
pub trait IoEventFd: Send + Sync {
    /// `data`: only writes of this value.
    ///
    /// # Errors
    /// The host's error.
    fn attach(&self, gpa: Gpa, size: u8, data: Option<u64>, fd: BorrowedFd<'_>) -> std::io::Result<()>;
    /// # Errors
    /// The host's error.
    fn detach(&self, gpa: Gpa, size: u8, data: Option<u64>, fd: BorrowedFd<'_>) -> std::io::Result<()>;
}

/// Wants to know which files devices of the host are assigned by: groups of VFIO, or a device's own. What fails there costs speed, or what
/// a driver in the host's kernel does for its guest, but is no error.
pub trait AssignedFiles: Send + Sync {
    fn added(&self, file: RawFd);
    /// Still open.
    fn removed(&self, file: RawFd);
}

/// What an accelerator offers beyond running; devices must do without what is `None`.
#[derive(Clone, Default)]
pub struct Services {
    pub irqfd: Option<Arc<dyn IrqFd>>,
    pub ioeventfd: Option<Arc<dyn IoEventFd>>,
    pub assigned: Option<Arc<dyn AssignedFiles>>,
}

/// A running accelerator over one machine's address space. It makes vCPUs of one processor type: see [`GuestAccelerator`].
pub trait Accelerator: Send + Sync {
    /// `jit`, `kvm`, ...: as in `-accel`.
    fn name(&self) -> &'static str;
    fn services(&self) -> Services;
    /// All vCPUs made so far, by index.
    fn vcpus(&self) -> Vec<Arc<dyn Vcpu>>;
    /// Forgets all translated code (machine reset, debugger).
    fn flush(&self);
}
