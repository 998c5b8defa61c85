//! Devices of the pseries machine (LoPAPR): virtual I/O and its bus, PCI host bridges, translation tables for their DMA, the wall
//! clock and the random number generator. They are reached by hypercalls ([`Hypercalls`]) and RTAS calls ([`RtasCalls`]); each makes
//! its own node of the device tree ([`Node`]).

pub mod phb;
pub mod rng;
pub mod rtc;
pub mod tce;
pub mod vio;

pub use phb::{Phb, PhbConfig, PhbError, Phbs, function_node};
pub use rhea_irqchip::spapr::papr::{self, Answer, Args, Hypercalls, RtasCalls, Status};
pub use rhea_irqchip::spapr::{Node, SpaprIrq};
pub use tce::{TceTable, TceTables};
pub use vio::{VioBus, VioDevice, VioError, VioSlot};

/// Guest memory as an RTAS call or hypercall sees it: RAM only, big-endian.
pub mod guest;
