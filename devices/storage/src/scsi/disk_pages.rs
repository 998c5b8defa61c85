//! Data that a disk's commands return: inquiry, vital product data, mode pages.

use super::disk::ScsiDiskOptions;
use crate::atapi::sense::{self, Sense};

/// Mode pages.
pub const RECOVERY: u8 = 0x01;
pub const CACHING: u8 = 0x08;
pub const CONTROL: u8 = 0x0a;
pub const EXCEPTIONS: u8 = 0x1c;
const ALL_PAGES: u8 = 0x3f;

pub fn padded(text: &str, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = text.bytes().map(|b| if (0x20..0x7f).contains(&b) { b } else { b' ' }).take(len).collect();
    bytes.resize(len, b' ');
    bytes
}

/// INQUIRY, standard data: direct access, SPC-4.
pub fn inquiry(options: &ScsiDiskOptions) -> Vec<u8> {
    let mut b = vec![0, u8::from(options.removable) << 7, 6, 2, 31, 0, 0, u8::from(options.queues) << 1];
    b.extend(padded(&options.vendor, 8));
    b.extend(padded(&options.product, 16));
    b.extend(padded(&options.version, 4));
    b
}

/// Vital product data. `block`: bytes of a logical block.
pub fn vital(options: &ScsiDiskOptions, page: u8, block: u32, unmap: bool) -> Result<Vec<u8>, Sense> {
    let serial = padded(&options.serial, options.serial.len().min(36));
    let body = match page {
        0x00 => vec![0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2],
        0x80 => serial,
        0x83 => {
            let mut id = padded(&options.vendor, 8);
            id.extend(serial);
            let mut body = [vec![2, 1, 0, id.len() as u8], id].concat();
            if options.wwn != 0 {
                // Binary, NAA.
                body.extend([1, 3, 0, 8]);
                body.extend(options.wwn.to_be_bytes());
            }
            body
        }
        0xb0 => {
            // Block limits: no limit of transfers but that of the command; unmapping as much as one list says.
            let mut body = vec![0; 60];
            let most = (1u32 << 30) / block;
            body[4..8].copy_from_slice(&most.to_be_bytes());
            if unmap {
                body[16..20].copy_from_slice(&(u32::MAX / block).to_be_bytes());
                body[20..24].copy_from_slice(&255u32.to_be_bytes());
                body[24..28].copy_from_slice(&(options.physical_block.max(block) / block).to_be_bytes());
            }
            // WRITE SAME.
            body[32..40].copy_from_slice(&u64::from(u32::MAX / block).to_be_bytes());
            body
        }
        0xb1 => {
            let mut body = vec![0; 60];
            body[..2].copy_from_slice(&options.rotation_rate.to_be_bytes());
            body
        }
        // Logical block provisioning: UNMAP, WRITE SAME (16) and (10) with it.
        0xb2 => vec![0, if unmap { 0xe0 } else { 0 }, u8::from(unmap) << 1, 0],
        _ => return Err(sense::INVALID_FIELD),
    };
    Ok([vec![0, page, 0, body.len() as u8], body].concat())
}

/// MODE SENSE. `control`: 0 current values, 1 changeable, 2 defaults, 3 saved; `six`: of the 6-byte command; `blocks`: with a block
/// descriptor for so many blocks of such a size.
pub fn mode(
    page: u8,
    control: u8,
    cache: (bool, bool),
    readonly: bool,
    six: bool,
    blocks: Option<(u64, u32)>,
) -> Result<Vec<u8>, Sense> {
    if control == 3 {
        return Err(sense::SAVING_NOT_SUPPORTED);
    }
    // Current, default.
    let wce = if control == 2 { cache.1 } else { cache.0 };
    let write_cache = if control == 1 || wce { 4 } else { 0 };
    let zero = |n: usize, v: u8| if control == 1 { vec![0; n] } else { [vec![v], vec![0; n - 1]].concat() };
    let pages: [(u8, Vec<u8>); 4] = [
        // Automatic reallocation.
        (RECOVERY, zero(10, 0xc0)),
        (CACHING, [vec![write_cache], vec![0; 17]].concat()),
        (CONTROL, zero(10, 2)),
        (EXCEPTIONS, zero(10, 0)),
    ];
    let mut body = Vec::new();
    for (code, values) in &pages {
        if page == ALL_PAGES || page == *code {
            body.extend([*code, values.len() as u8]);
            body.extend(values);
        }
    }
    // Some hosts ask for page 0, which is the vendor's: only the header.
    if body.is_empty() && page != 0 {
        return Err(sense::INVALID_FIELD);
    }
    let descriptor = blocks.map_or(Vec::new(), |(n, size)| {
        let mut d = (n.min(u32::MAX.into()) as u32).to_be_bytes().to_vec();
        d.push(0);
        d.extend(&size.to_be_bytes()[1..]);
        d
    });
    // Device-specific: write protection, FUA.
    let specific = u8::from(readonly) << 7 | 0x10;
    let rest = [&descriptor[..], &body].concat();
    Ok(if six {
        [&[(rest.len() + 3).min(255) as u8, 0, specific, descriptor.len() as u8][..], &rest].concat()
    } else {
        let len = (rest.len() + 6) as u16;
        [&len.to_be_bytes()[..], &[0, specific, 0, 0, 0, descriptor.len() as u8], &rest].concat()
    })
}
