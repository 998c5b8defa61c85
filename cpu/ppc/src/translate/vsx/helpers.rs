//! Helpers of vector-scalar instructions (Book I, chapter 7).

use crate::state::PpcCpu;

rhea_ir::helper_table! {
    cpu PpcCpu, base crate::helpers::VSX_BASE;
}
