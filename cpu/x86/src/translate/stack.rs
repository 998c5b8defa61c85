use super::{Flow, Translator};

impl Translator<'_, '_> {
    pub(super) fn stack(&mut self) -> Option<Flow> {
        None
    }
}
