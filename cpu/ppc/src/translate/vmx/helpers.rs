//! Helpers of vector instructions (Book I, chapter 6).

use crate::state::PpcCpu;

rhea_ir::helper_table! {
    cpu PpcCpu, base crate::helpers::VMX_BASE;
}
