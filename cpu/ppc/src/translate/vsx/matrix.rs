//! Matrix-multiply assist (Book I, 7.6.1.14).

use crate::state::PpcCpu;
use crate::translate::Pattern;

pub(super) static PATTERNS: &[Pattern] = &[];

impl PpcCpu {
    pub(super) fn matrix(&mut self, _packed: u64) {}
}
