use super::{Flow, Translator};

impl Translator<'_, '_> {
    pub(super) fn branch(&mut self) -> Option<Flow> {
        None
    }
}
