//! Assigned devices: PCI functions of the host given to the guest through VFIO.
//!
//! [`sys`] is what the kernel offers (`linux/vfio.h`, `linux/iommufd.h`; Linux, Documentation/driver-api/vfio.rst and
//! Documentation/userspace-api/iommufd.rst), as traits. [`interrupts`] are a function's INTx, MSI and MSI-X, on whatever path they come.

pub mod events;
pub mod interrupts;
pub mod sys;
