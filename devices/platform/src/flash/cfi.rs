//! What a chip tells about itself: the query structure of the Common Flash Interface (JESD68.01) and the identifier codes.

/// Each chip is 16 bits wide; two of them make the 32-bit bank.
pub(super) const CHIPS: usize = 2;
/// Words a chip's write buffer holds (2 KiB).
pub(super) const BUFFER_WORDS: usize = 1024;
const BUFFER_LOG2: u8 = 11;

/// Manufacturer and device code: Intel, StrataFlash.
pub(super) const MANUFACTURER: u16 = 0x89;
pub(super) const DEVICE: u16 = 0x18;

/// The query data at word address `at`, for a chip of `blocks` blocks of `block_len` bytes.
pub(super) fn query(at: u32, blocks: u32, block_len: u32) -> u8 {
    let chip_log2 = (u64::from(blocks) * u64::from(block_len)).max(1).ilog2() as u8;
    let (count, size) = (blocks.wrapping_sub(1), block_len / 256);
    match at {
        0x10 => b'Q',
        0x11 => b'R',
        0x12 => b'Y',
        // Intel/Sharp extended command set; its table is at 0x31.
        0x13 => 0x01,
        0x15 => 0x31,
        // Supply voltage 4.5 V to 5.5 V; no programming voltage.
        0x1b => 0x45,
        0x1c => 0x55,
        // Typical times: word and buffer 2^7 us, block erase 2^10 ms; at most 2^4 times that.
        0x1f | 0x20 => 7,
        0x21 => 10,
        0x23..=0x25 => 4,
        0x27 => chip_log2,
        // A 16-bit interface.
        0x28 => 0x01,
        0x2a => BUFFER_LOG2,
        // One region of equal blocks.
        0x2c => 1,
        0x2d => count as u8,
        0x2e => (count >> 8) as u8,
        0x2f => size as u8,
        0x30 => (size >> 8) as u8,
        // The extended table, version 1.0: no optional features; one (absent) protection register field.
        0x31 => b'P',
        0x32 => b'R',
        0x33 => b'I',
        0x34 => b'1',
        0x35 => b'0',
        0x3d => 0x50,
        0x3f => 1,
        _ => 0,
    }
}
