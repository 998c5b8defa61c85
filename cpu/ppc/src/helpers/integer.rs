//! Helpers of fixed-point, branch and storage instructions.

use crate::state::PpcCpu;

rhea_ir::helper_table! {
    cpu PpcCpu, base super::INTEGER_BASE;
}
