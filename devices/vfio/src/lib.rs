//! Assigned devices: PCI functions of the host given to the guest through VFIO.
//!
//! [`sys`] is what the kernel offers (`linux/vfio.h`, `linux/iommufd.h`; Linux, Documentation/driver-api/vfio.rst and
//! Documentation/userspace-api/iommufd.rst), as traits. [`Vfio`] opens devices and has what they share; a [`DmaSpace`] keeps what they may
//! reach; [`interrupts`] are a function's INTx, MSI and MSI-X, on whatever path they come.

mod assign;
mod backing;
mod error;
pub mod events;
pub mod interrupts;
pub mod locate;
pub mod ranges;
mod space;
pub mod sys;

pub use assign::{Assigned, FileWatcher, Iommufd, Vfio, Wanted};
pub use error::VfioError;
pub use space::{Counters, DmaSpace};

/// Takes warnings, a line each.
pub type Report = std::sync::Arc<dyn Fn(&str) + Send + Sync>;

#[cfg(test)]
mod tests;
