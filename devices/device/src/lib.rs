//! What every device is made of: lifecycle and saved state, register maps, logging, options, DMA, character back ends.

pub mod chardev;
pub mod dma;
pub mod fdset;
pub mod log;
pub mod options;
pub mod regs;
pub mod state;

pub use chardev::{CharBackend, CharEvent, CharFrontend};
pub use dma::{DmaHandle, Iommu, IommuPlace, Translation};
pub use log::{Log, LogMask};
pub use options::{OptionDecl, OptionError, OptionKind, OptionSet, OptionValue};
pub use regs::{RegisterDecl, RegisterHit, RegisterMap, RegisterRules};
pub use state::{Device, LoadError, Saved};
