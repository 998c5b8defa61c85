//! What devices and machines see of an accelerator: interrupt lines and their routing, vCPUs and their threads, requests to
//! the machine, and optional fast services.

pub mod control;
pub mod debug;
pub mod irq;
pub mod run;
pub mod spapr;
pub mod vcpu;

pub use control::{Fence, ShutdownCause, VmControl, VmRequest, WakeReason};
pub use debug::{DebugStop, VcpuDebug, WatchKind};
pub use irq::{
    InterruptRouting, IrqLine, IrqSink, MsiMessage, MsiTarget, ResampleListener, Route, RoutingEvent, RoutingListener,
    RoutingSubscription,
};
pub use run::{RunControl, Step};
pub use vcpu::{
    Accelerator, AssignedFiles, GuestAccelerator, GuestVcpu, IoEventFd, IrqFd, LocalApics, Services, Vcpu, VcpuError,
    VcpuEvent,
};
