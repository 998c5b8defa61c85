//! The Arm Generic Interrupt Controller: version 2 (IHI 0048) and version 3 (IHI 0069).
//!
//! [`engine`] holds what both have in common: interrupt state, the candidates of each CPU, the lock order and the outputs.
//! [`virt`] is the virtual CPU interface (GICH/GICV, ICH/ICV), [`priority`] the arithmetic of priorities.

mod banks;
pub mod engine;
pub mod irqs;
pub mod priority;
pub mod v2;
pub mod v3;
pub mod virt;

pub use crate::EoiListener;
pub use v2::{GicV2, GicV2Config, GicV2m};
pub use v3::{GicV3, GicV3Config, GicV3Cpu, IccContext, IccReg, IccTrap, Its};

use rhea_accel::IrqLine;
use thiserror::Error;

/// The four outputs to a processor.
#[derive(Clone)]
pub struct CpuOutputs {
    pub irq: IrqLine,
    pub fiq: IrqLine,
    pub virq: IrqLine,
    pub vfiq: IrqLine,
}

impl CpuOutputs {
    /// Four lines that end nowhere.
    #[must_use]
    pub fn unconnected() -> Self {
        Self {
            irq: IrqLine::unconnected(),
            fiq: IrqLine::unconnected(),
            virq: IrqLine::unconnected(),
            vfiq: IrqLine::unconnected(),
        }
    }
}

/// Why a controller cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GicError {
    #[error("{0}: 1 to {1} processors are possible, not {2}")]
    Cpus(&'static str, usize, usize),
    #[error("the number of SPIs must be a multiple of 32 from 32 to 960 (988 for the last), not {0}")]
    Spis(u32),
    #[error("the redistributor regions hold {0} processors, the machine has {1}")]
    Regions(usize, usize),
    #[error("two processors have the affinity {0:#010x}")]
    Affinity(u32),
    #[error("the MSI frame's SPIs {0}..{1} do not exist")]
    MsiSpis(u32, u32),
}
