//! SMBIOS (placeholder until the structures are in).

/// The tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Smbios {}

impl Smbios {
    /// Address and bytes of anchor and tables from `at` on.
    #[must_use]
    pub fn place(&self, _at: u64) -> Vec<(u64, Vec<u8>)> {
        Vec::new()
    }
}
