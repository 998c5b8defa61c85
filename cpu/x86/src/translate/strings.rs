use super::{Flow, Translator};

impl Translator<'_, '_> {
    pub(super) fn strings(&mut self) -> Option<Flow> {
        None
    }
}
