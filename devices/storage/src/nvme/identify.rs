//! Identify data (NVMe 1.4, 5.15.2).

use super::{MAX_TRANSFER_PAGES_LOG2, NvmeOptions, VERSION};

pub const SIZE: usize = 4096;

fn put(b: &mut [u8], at: usize, data: &[u8]) {
    if let Some(place) = b.get_mut(at..at + data.len()) {
        place.copy_from_slice(data);
    }
}

fn text(b: &mut [u8], at: usize, len: usize, text: &str) {
    let bytes = text.bytes().map(|c| if (0x20..0x7f).contains(&c) { c } else { b' ' }).chain(std::iter::repeat(b' '));
    for (place, c) in b.iter_mut().skip(at).take(len).zip(bytes) {
        *place = c;
    }
}

/// The controller.
pub fn controller(options: &NvmeOptions, write_cache: bool) -> Vec<u8> {
    let mut b = vec![0; SIZE];
    put(&mut b, 0, &0x1b36u16.to_le_bytes());
    put(&mut b, 2, &0x1af4u16.to_le_bytes());
    text(&mut b, 4, 20, &options.serial);
    text(&mut b, 24, 40, &options.model);
    text(&mut b, 64, 8, &options.version);
    // Recommended arbitration burst: 64 commands.
    b[72] = 6;
    b[77] = MAX_TRANSFER_PAGES_LOG2;
    put(&mut b, 80, &VERSION.to_le_bytes());
    // One I/O controller.
    b[111] = 1;
    // Abort limit, asynchronous event limit, one read-only firmware slot, extended log page reads, one error entry.
    b[258] = 3;
    b[259] = super::admin::MAX_EVENTS as u8 - 1;
    b[260] = 3;
    b[261] = 1 << 2;
    put(&mut b, 266, &0x157u16.to_le_bytes());
    put(&mut b, 268, &0x175u16.to_le_bytes());
    b[512] = 0x66;
    b[513] = 0x44;
    put(&mut b, 516, &1u32.to_le_bytes());
    // Compare, dataset management, write zeroes.
    put(&mut b, 520, &0x000du16.to_le_bytes());
    // Flush of all namespaces is understood.
    b[525] = 6 | u8::from(write_cache);
    let serial = format!("{:<20}", options.serial);
    let name = format!("nqn.2014.08.org.nvmexpress:1b361af4{serial}{:<40}", options.model);
    put(&mut b, 768, name.as_bytes().get(..name.len().min(223)).unwrap_or_default());
    // Power state 0: 25 W.
    put(&mut b, 2048, &2500u16.to_le_bytes());
    put(&mut b, 2052, &16u32.to_le_bytes());
    put(&mut b, 2056, &4u32.to_le_bytes());
    b
}

/// The namespace, `blocks` of `1 << shift` bytes.
pub fn namespace(blocks: u64, shift: u32, physical: u32, optimal: u32) -> Vec<u8> {
    let mut b = vec![0; SIZE];
    for at in [0, 8, 16] {
        put(&mut b, at, &blocks.to_le_bytes());
    }
    let block = 1u32 << shift;
    // Preferred write granularity and alignment, deallocation granularity, optimal write size are told.
    let physical = (physical.max(block) / block).clamp(1, 0x1_0000);
    let optimal = (optimal.max(block) / block).clamp(physical, 0x1_0000);
    b[24] = 1 << 4;
    for (at, n) in [(64, physical), (66, physical), (68, physical), (70, physical), (72, optimal)] {
        put(&mut b, at, &((n - 1) as u16).to_le_bytes());
    }
    // The only format.
    put(&mut b, 128, &(shift << 16).to_le_bytes());
    b
}

/// Namespace identification descriptors: a UUID made of the serial number.
pub fn descriptors(serial: &str) -> Vec<u8> {
    let mut b = vec![0; SIZE];
    put(&mut b, 0, &[3, 16, 0, 0]);
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for (n, place) in (0..16).zip(&mut b[4..20]) {
        for c in serial.bytes().chain([n]) {
            hash = (hash ^ u64::from(c)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        *place = (hash >> 32) as u8;
    }
    // Version 4, variant 1.
    b[10] = b[10] & 0x0f | 0x40;
    b[12] = b[12] & 0x3f | 0x80;
    b
}
