//! system
use super::{Flow, Translator};

impl Translator<'_, '_> {
    pub(super) fn system(&mut self) -> Option<Flow> {
        None
    }
}
