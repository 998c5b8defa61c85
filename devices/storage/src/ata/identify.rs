//! Identification data (ACS-3 7.12, 7.13).

use super::disk::{DiskOptions, Settings};

/// 256 words on the link.
pub struct Words([u16; 256]);

impl Words {
    #[must_use]
    pub fn new() -> Self {
        Self([0; 256])
    }
    pub fn set(&mut self, word: usize, value: u16) {
        self.0[word & 255] = value;
    }
    fn double(&mut self, word: usize, value: u32) {
        self.set(word, value as u16);
        self.set(word + 1, (value >> 16) as u16);
    }
    /// A string, two characters in a word with the first in the high byte, padded with spaces.
    pub fn text(&mut self, word: usize, words: usize, text: &str) {
        let mut bytes = text.bytes().map(|b| if (0x20..0x7f).contains(&b) { b } else { b' ' });
        for n in 0..words {
            let mut next = || bytes.next().unwrap_or(b' ');
            let high = next();
            self.set(word + n, u16::from_be_bytes([high, next()]));
        }
    }
    /// The bytes, with the checksum of word 255.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.0[255] = 0xa5;
        let mut bytes: Vec<u8> = self.0.iter().flat_map(|w| w.to_le_bytes()).collect();
        bytes[511] = checksum(&bytes[..511]);
        bytes
    }
}

impl Default for Words {
    fn default() -> Self {
        Self::new()
    }
}

/// What makes the sum of all bytes zero.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)).wrapping_neg()
}

/// Sectors that 28-bit commands reach.
pub const MAX_LBA28: u64 = 0x0fff_ffff;

/// IDENTIFY DEVICE.
#[must_use]
pub fn disk(options: &DiskOptions, settings: &Settings, sectors: u64, default_chs: (u16, u8, u8)) -> Vec<u8> {
    let mut w = Words::new();
    let (cylinders, heads, spt) = default_chs;
    w.set(0, 0x0040);
    w.set(1, cylinders);
    w.set(2, 0xc837);
    w.set(3, heads.into());
    w.set(6, spt.into());
    w.text(10, 10, &options.serial);
    w.text(23, 4, &options.version);
    w.text(27, 20, &options.model);
    w.set(47, 0x8000 | u16::from(super::disk::MAX_MULTIPLE));
    // Standard standby timers, IORDY may be disabled, IORDY, LBA, DMA.
    w.set(49, 0x2f00);
    w.set(50, 0x4000);
    w.set(51, 0x0200);
    w.set(53, 0x0007);
    let (heads, spt) = settings.geometry;
    let cylinders = (sectors / (u64::from(heads) * u64::from(spt)).max(1)).min(16383) as u16;
    w.set(54, cylinders);
    w.set(55, heads.into());
    w.set(56, spt.into());
    w.double(57, u32::from(cylinders) * u32::from(heads) * u32::from(spt));
    w.set(59, if settings.multiple != 0 { 0x0100 | u16::from(settings.multiple) } else { 0 });
    w.double(60, sectors.min(MAX_LBA28) as u32);
    transfer_modes(&mut w, settings.transfer_mode);
    // Queue depth 32; NCQ, 3.0 and 1.5 Gb/s.
    w.set(75, 31);
    w.set(76, 0x0106);
    // ATA8-ACS to ACS-3, and older.
    w.set(80, 0x07f0);
    // NOP, READ/WRITE BUFFER, look-ahead, write cache, power management, SMART.
    w.set(82, 0x7069);
    // FLUSH CACHE EXT, FLUSH CACHE, 48-bit addresses.
    w.set(83, 0x7400);
    // World wide name, FUA, general purpose logging, SMART self-test and error log.
    let extended = 0x4063 | if options.wwn != 0 { 1 << 8 } else { 0 };
    w.set(84, extended);
    let enabled = 0x7008
        | if settings.look_ahead { 1 << 6 } else { 0 }
        | if settings.write_cache { 1 << 5 } else { 0 }
        | u16::from(settings.smart);
    w.set(85, enabled);
    w.set(86, 0xb400);
    w.set(87, extended);
    let wide = sectors.min(0xffff_ffff_ffff);
    w.double(100, wide as u32);
    w.double(102, (wide >> 32) as u32);
    w.set(105, super::disk::MAX_TRIM_BLOCKS);
    let exponent = options.physical_block.max(512).trailing_zeros().saturating_sub(9) as u16;
    w.set(106, 0x4000 | if exponent > 0 { 0x2000 | exponent & 15 } else { 0 });
    for n in 0..4 {
        w.set(108 + n, (options.wwn >> (48 - 16 * n)) as u16);
    }
    w.set(119, 0x4000);
    w.set(120, 0x4000);
    w.set(169, 1);
    w.set(209, 0x4000);
    w.set(217, options.rotation_rate);
    w.set(222, 0x107f);
    w.finish()
}

/// Words 63 to 68 and 88: multiword DMA 0–2, PIO 3–4, Ultra DMA 0–6; `selected` as SET FEATURES gave it.
pub fn transfer_modes(w: &mut Words, selected: u8) {
    let chosen = 1u16 << (8 + (selected & 7));
    w.set(63, 0x0007 | if selected & 0xf8 == 0x20 { chosen } else { 0 });
    w.set(64, 3);
    for n in 65..69 {
        w.set(n, 120);
    }
    w.set(88, 0x007f | if selected & 0xf8 == 0x40 { chosen } else { 0 });
}
