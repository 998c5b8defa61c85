//! Helpers of this part.

crate::helpers! {
    base crate::helpers::INTEGER_BASE;
}
