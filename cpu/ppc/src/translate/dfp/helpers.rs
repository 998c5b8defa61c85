//! Helpers of decimal floating-point instructions (Book I, chapter 5).

use crate::state::PpcCpu;

rhea_ir::helper_table! {
    cpu PpcCpu, base crate::helpers::DFP_BASE;
}
