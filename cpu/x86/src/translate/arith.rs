use super::{Flow, Translator};

impl Translator<'_, '_> {
    pub(super) fn arith(&mut self) -> Option<Flow> {
        None
    }
}
