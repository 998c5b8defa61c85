use super::{Flow, Translator};

impl Translator<'_, '_> {
    pub(super) fn bits(&mut self) -> Option<Flow> {
        None
    }
}
