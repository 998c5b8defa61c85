//! Helpers of binary floating-point instructions (Book I, chapter 4).

use crate::state::PpcCpu;

rhea_ir::helper_table! {
    cpu PpcCpu, base crate::helpers::FP_BASE;
}
