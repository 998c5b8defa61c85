//! Assigned devices: PCI functions of the host given to the guest through VFIO.
//!
//! [`sys`] is what the kernel offers (`linux/vfio.h`, `linux/iommufd.h`; Linux, Documentation/driver-api/vfio.rst and
//! Documentation/userspace-api/iommufd.rst), as traits.

pub mod sys;
