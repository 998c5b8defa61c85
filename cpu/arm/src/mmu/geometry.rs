//! Shapes of tables: granules, levels and the address formats of descriptors.

/// The format of the tables of one walk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    /// log2 of the granule: 12, 14 or 16.
    pub granule: u32,
    /// 52-bit format for 4K and 16K (LPA2).
    pub ds: bool,
    /// 64K descriptors hold bits 51:48 of addresses in bits 15:12 (LPA).
    pub wide64: bool,
    /// Bits of an output address.
    pub output_bits: u32,
}

impl Geometry {
    /// Address bits resolved per level.
    pub const fn stride(&self) -> u32 {
        self.granule - 3
    }
    /// log2 of what an entry of `level` maps.
    pub const fn entry_bits(&self, level: i32) -> u32 {
        self.granule + self.stride() * (3 - level) as u32
    }
    /// The first level of a walk over `input` bits without concatenation.
    pub const fn start_level(&self, input: u32) -> i32 {
        4 - (input - self.granule).div_ceil(self.stride()) as i32
    }
    /// May a block descriptor stand at `level` (0–2)?
    pub const fn block_allowed(&self, level: i32) -> bool {
        match self.granule {
            12 => level == 2 || level == 1 || (level == 0 && self.ds),
            14 => level == 2 || (level == 1 && self.ds),
            _ => level == 2 || (level == 1 && self.wide64),
        }
    }
    /// The address in a descriptor, whose low `low` bits do not count.
    pub const fn address(&self, descriptor: u64, low: u32) -> u64 {
        let clear = !((1u64 << low) - 1);
        if self.ds {
            ((descriptor & 0x0003_ffff_ffff_ffff) & clear) | ((descriptor >> 8) & 3) << 50
        } else if self.wide64 {
            ((descriptor & 0x0000_ffff_ffff_ffff) & clear) | ((descriptor >> 12) & 15) << 48
        } else {
            (descriptor & 0x0000_ffff_ffff_ffff) & clear
        }
    }
    /// The table address in a TTBR for a first table of `1 << bits` bytes.
    pub const fn base(&self, ttbr: u64, bits: u32) -> u64 {
        let wide = self.ds || (self.wide64 && self.output_bits == 52);
        let low = if wide && bits < 6 { 6 } else { bits };
        let base = (ttbr & 0x0000_ffff_ffff_ffff) & !((1u64 << low) - 1);
        if wide { base | ((ttbr >> 2) & 15) << 48 } else { base }
    }
    pub const fn too_large(&self, address: u64) -> bool {
        self.output_bits < 64 && address >> self.output_bits != 0
    }
    /// Index of `va` at `level`, as a byte offset in a table of which `input` bits are indexed.
    pub const fn offset(&self, va: u64, level: i32, input: u32) -> u64 {
        let shift = self.entry_bits(level);
        let top = shift + self.stride();
        // The first table may be smaller (fewer input bits) or larger (concatenated).
        let bits = if top > input { input.saturating_sub(shift) } else { self.stride() };
        ((va >> shift) & ((1u64 << bits) - 1)) << 3
    }
    pub const fn first_offset(&self, va: u64, level: i32, input: u32) -> u64 {
        let shift = self.entry_bits(level);
        ((va >> shift) & ((1u64 << input.saturating_sub(shift)) - 1)) << 3
    }
}

/// Bits of the output address for a PS/IPS field.
pub(super) const fn ps_bits(ps: u64) -> u32 {
    match ps & 7 {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        5 => 48,
        _ => 52,
    }
}
