//! Helpers of this part.

rhea_ir::helper_table! {
    cpu crate::state::ArmCpu, base crate::helpers::CRYPTO_BASE;
}
