//! SSE and AVX.
use super::{Flow, Translator};
pub mod helpers;

impl Translator<'_, '_> {
    pub(super) fn sse(&mut self) -> Option<Flow> {
        None
    }
}
