//! What a guest finds at power-on: device tree, ACPI and SMBIOS tables, kernel and initrd in memory, the boot stub, fw_cfg and PSCI.

#![cfg_attr(test, allow(clippy::single_range_in_vec_init, reason = "lists of one range are meant as such"))]

pub mod acpi;
pub mod boot;
pub mod fdt;
pub mod fw_cfg;
pub mod kernel;
pub mod power;
pub mod psci;
pub mod smbios;
pub mod x86;

pub use boot::{BootPlan, LayoutError, PlanInput};
pub use fdt::{FdtError, FdtNode};
pub use fw_cfg::FwCfg;
pub use kernel::{Kernel, KernelError, KernelKind, Segment};
pub use psci::{AffinityState, PsciPlatform, PsciResult};
