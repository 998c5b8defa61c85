//! x87
use super::{Flow, Translator};

impl Translator<'_, '_> {
    pub(super) fn x87(&mut self) -> Option<Flow> {
        None
    }
}
