use super::{Flow, Translator};

impl Translator<'_, '_> {
    pub(super) fn moves(&mut self) -> Option<Flow> {
        None
    }
}
