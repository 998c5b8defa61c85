//! Interrupt controllers.

pub mod apic;
pub mod gic;
pub mod i8259;
pub mod spapr;
pub mod xics;
pub mod xive;

use std::sync::Arc;

/// Told the number of each level-sensitive input whose interrupt the guest ended (GIC: INTID - 32), with no lock held: the place to call
/// [`rhea_accel::InterruptRouting::resample`].
pub type EoiListener = Arc<dyn Fn(u32) + Send + Sync>;
