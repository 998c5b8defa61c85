//! Buffers of hypercalls and RTAS calls: in RAM, at guest-real addresses.

use rhea_device::DmaHandle;
use rhea_memory::AddressSpace;
use std::sync::Arc;

/// The number by which the platform itself accesses memory.
const PLATFORM: u32 = 0x1_ffff;

/// The guest's RAM.
#[derive(Clone)]
pub struct GuestRam(DmaHandle);

impl GuestRam {
    #[must_use]
    pub fn new(space: &Arc<AddressSpace>) -> Self {
        Self(DmaHandle::new(space.clone(), PLATFORM))
    }
    /// False if some of it is no RAM.
    #[must_use]
    pub fn read(&self, address: u64, data: &mut [u8]) -> bool {
        self.0.read_ram(address, data).is_ok()
    }
    /// False if some of it is no writable RAM.
    #[must_use]
    pub fn write(&self, address: u64, data: &[u8]) -> bool {
        self.0.write_ram(address, data).is_ok()
    }
}
