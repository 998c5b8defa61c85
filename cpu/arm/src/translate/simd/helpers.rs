//! Helpers of this part.

crate::helpers! {
    base crate::helpers::SIMD_BASE;
}
