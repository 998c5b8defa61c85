//! Enhanced error handling (LoPAPR 7.3.11): emulated functions have no errors, and are not isolated by one.

use super::{Phb, Reply};
use crate::papr::rtas;

impl Phb {
    pub(super) fn eeh(&self, name: &str, args: &[u32]) -> Reply {
        match (name, args) {
            // Not stopped; not supported, and so never unavailable.
            ("ibm,read-slot-reset-state2", &[_]) => Some((rtas::SUCCESS, vec![0, 0, 0])),
            // There is no partitionable endpoint whose handling could be switched, reset, configured or asked for details.
            _ => None,
        }
    }
}
