//! Configuration space by RTAS (LoPAPR 7.3.4).

use super::{Phb, Reply};
use crate::papr::rtas;
use std::sync::Arc;

impl Phb {
    /// The function and the register of a configuration address; bits 31:28 are bits 11:8 of the register.
    fn target(&self, address: u32, size: u32) -> Option<(Arc<dyn rhea_pci::PciFunction>, u16, u8)> {
        let register = (address >> 20 & 0xf00 | address & 0xff) as u16;
        let size = u8::try_from(size).ok().filter(|s| matches!(s, 1 | 2 | 4))?;
        if !register.is_multiple_of(u16::from(size)) {
            return None;
        }
        Some((self.function(address)?, register, size))
    }
    pub(super) fn read_config(&self, address: u32, size: u32) -> Reply {
        let (function, register, size) = self.target(address, size)?;
        let ones = u32::MAX >> (32 - 8 * u32::from(size));
        Some((rtas::SUCCESS, vec![function.config_read(register, size) & ones]))
    }
    pub(super) fn write_config(&self, address: u32, size: u32, value: u32) -> Reply {
        let (function, register, size) = self.target(address, size)?;
        function.config_write(register, size, value);
        Some((rtas::SUCCESS, Vec::new()))
    }
}
