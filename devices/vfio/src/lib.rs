//! Assigned devices: PCI functions of the host given to the guest through VFIO.
//!
//! [`sys`] is what the kernel offers (`linux/vfio.h`, `linux/iommufd.h`; Linux, Documentation/driver-api/vfio.rst and
//! Documentation/userspace-api/iommufd.rst), as traits. [`Vfio`] opens devices and has what they share; a [`DmaSpace`] keeps what they may
//! reach; [`VfioPci`] is the function on the guest's bus, and [`interrupts`] are a function's INTx, MSI and MSI-X, on whatever path they come.

mod assign;
mod backing;
mod bars;
pub mod catalog;
mod config;
mod device;
mod error;
mod events;
pub mod interrupts;
pub mod locate;
pub mod migration;
mod msix;
pub mod ranges;
mod space;
pub mod sys;

pub use assign::{Assigned, Iommufd, Vfio, Wanted};
pub use config::Overrides;
pub use device::{Choices, DeviceError, Environment, Groups, Opened, Status, VfioPci, Watcher};
pub use error::VfioError;
pub use space::{Counters, DmaSpace};

/// Takes warnings, a line each.
pub type Report = std::sync::Arc<dyn Fn(&str) + Send + Sync>;

#[cfg(test)]
mod tests;
