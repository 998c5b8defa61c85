//! Expansion ROMs (PCI Firmware Specification 3.3, chapter 5).

use crate::PciSlot;
use rhea_memory::{MemoryError, PAGE_SIZE, RamBlock};
use std::sync::Arc;

/// The largest expansion ROM that a function can have, in bytes.
pub const ROM_LIMIT: usize = 16 << 20;

/// An expansion ROM for a function yet to be made.
#[derive(Clone)]
pub(crate) struct Rom {
    block: Arc<RamBlock>,
    /// The image is of a whole family of devices and takes the ids of this one.
    adapts: bool,
}

fn word(image: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*image.get(at..)?.first_chunk()?))
}

/// Writes the function's vendor and device ids, as in its configuration space, into the first image, and makes its checksum right
/// again.
fn adapt(image: &mut [u8], ids: [u8; 4]) {
    let Some((0xaa55, data)) = word(image, 0).zip(word(image, 0x18)) else { return };
    let (data, length) = (usize::from(data), usize::from(image[2]) * 512);
    if image.get(data..data + 4) != Some(b"PCIR") || data + 8 > image.len().min(length) {
        return;
    }
    let old: u8 = image[data + 4..data + 8].iter().fold(0, |s, b| s.wrapping_add(*b));
    image[data + 4..data + 8].copy_from_slice(&ids);
    let new: u8 = image[data + 4..data + 8].iter().fold(0, |s, b| s.wrapping_add(*b));
    // Byte 6 is the customary place: after the length and the three-byte entry point.
    image[6] = image[6].wrapping_add(old).wrapping_sub(new);
}

impl PciSlot {
    /// The function made for this slot has the expansion ROM `image`, of at most [`ROM_LIMIT`] bytes. One that `adapts` is made
    /// for a family of devices and gets this one's ids.
    ///
    /// # Errors
    /// No memory for it.
    pub fn with_rom(mut self, image: &[u8], adapts: bool) -> Result<Self, MemoryError> {
        let len = (image.len() as u64).next_multiple_of(PAGE_SIZE);
        let block = RamBlock::anonymous(&format!("{self} ROM"), len)?;
        // The block is as long as the image.
        let _ = block.write(0, image);
        self.rom = Some(Rom { block, adapts });
        Ok(self)
    }
}

impl Rom {
    /// The ROM as the function has it.
    pub(crate) fn block(&self, ids: [u8; 4]) -> &Arc<RamBlock> {
        if self.adapts {
            let mut head = vec![0; (self.block.len() as usize).min(64 << 10)];
            if self.block.read(0, &mut head).is_ok() {
                adapt(&mut head, ids);
                let _ = self.block.write(0, &head);
            }
        }
        &self.block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_checksum() {
        let mut image = vec![0u8; 1024];
        image[..3].copy_from_slice(&[0x55, 0xaa, 2]);
        image[0x18] = 0x1c;
        image[0x1c..0x24].copy_from_slice(b"PCIR\xf4\x1a\x00\x10");
        image[6] = 0x77;
        let sum = |i: &[u8]| i.iter().fold(0u8, |s, b| s.wrapping_add(*b));
        let before = sum(&image);
        let ids = [0x86, 0x80, 0xd3, 0x10];
        adapt(&mut image, ids);
        assert_eq!(image[0x20..0x24], ids);
        assert_eq!(sum(&image), before);
        // What is no ROM, or has its data structure outside, stays.
        for (at, value) in [(0, 0), (0x19, 0xff), (2, 0), (0x1d, 0)] {
            let mut other = image.clone();
            other[at] = value;
            other[0x20] = 9;
            let same = other.clone();
            adapt(&mut other, ids);
            assert_eq!(other, same, "{at}");
        }
        adapt(&mut [0x55, 0xaa], ids);
    }
}
