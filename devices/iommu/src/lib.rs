//! I/O memory management units: translation of what bus masters address, and remapping of their interrupts.
//!
//! [`Vtd`] is Intel's, in legacy mode ("Virtualization Technology for Directed I/O", architecture specification 3.4; section numbers are
//! of that document).

mod cache;
mod faults;
mod follow;
mod interrupts;
mod invalidation;
mod options;
mod registers;
mod tables;
mod vtd;

pub use options::{DESCRIPTION, NAME, VtdOptions, declarations};
pub use vtd::{Vtd, VtdWiring};
