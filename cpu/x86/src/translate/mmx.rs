//! MMX instructions, and SSE instructions on MMX registers.

use super::{Flow, Translator};

impl Translator<'_, '_> {
    pub(super) fn mmx(&mut self) -> Option<Flow> {
        None
    }
}
