//! Enhanced error handling (LoPAPR 7.3.11): emulated functions have no errors, and are not isolated by one.

use super::{Phb, Reply};
use crate::papr::rtas;

/// Functions of ibm,get-config-addr-info2: the address of a function's partitionable endpoint, and how that is shared.
const SHARING: u32 = 1;
/// The function is in no partitionable endpoint.
const NO_ENDPOINT: u32 = 0;

impl Phb {
    pub(super) fn eeh(&self, name: &str, args: &[u32]) -> Reply {
        // All of these calls name a function first, or an endpoint: there is none.
        self.function(*args.first()?)?;
        match (name, args) {
            // Not stopped; not supported, and so never unavailable.
            ("ibm,read-slot-reset-state2", &[_]) => Some((rtas::SUCCESS, vec![0, 0, 0])),
            ("ibm,get-config-addr-info2", &[_, SHARING]) => Some((rtas::SUCCESS, vec![NO_ENDPOINT])),
            // There is no partitionable endpoint whose handling could be switched, reset, configured or asked for details.
            _ => None,
        }
    }
}
