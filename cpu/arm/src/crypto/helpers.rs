//! Helpers of this part.

crate::helpers! {
    base crate::helpers::CRYPTO_BASE;
}
