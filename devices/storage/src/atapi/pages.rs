//! Data that packet commands return: inquiry, mode pages, table of contents, features.

use super::CdOptions;
use super::sense::{self, Sense};

/// Mode pages.
pub const RECOVERY: u8 = 0x01;
pub const AUDIO: u8 = 0x0e;
pub const POWER: u8 = 0x1a;
pub const TIMEOUT: u8 = 0x1d;
pub const CAPABILITIES: u8 = 0x2a;
const ALL_PAGES: u8 = 0x3f;

const LEAD_OUT: u8 = 0xaa;
/// A data track, digital copy prohibited; address in the Q subchannel.
const DATA_TRACK: u8 = 0x14;
/// What fits on a CD of 80 minutes, and a little.
const CD_BLOCKS: u64 = 80 * 60 * 75;

const PROFILE_CD: u16 = 0x0008;
const PROFILE_DVD: u16 = 0x0010;

/// Is a medium of so many blocks a DVD?
pub fn is_dvd(blocks: u64) -> bool {
    blocks > CD_BLOCKS
}

fn padded(text: &str, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = text.bytes().map(|b| if (0x20..0x7f).contains(&b) { b } else { b' ' }).take(len).collect();
    bytes.resize(len, b' ');
    bytes
}

/// INQUIRY, standard data: CD/DVD, removable, response format of MMC.
pub fn inquiry(options: &CdOptions) -> Vec<u8> {
    let mut b = vec![5, 0x80, 0x05, 0x32, 31, 0, 0, 0];
    b.extend(padded(&options.vendor, 8));
    b.extend(padded(&options.product, 16));
    b.extend(padded(&options.version, 4));
    b
}

/// Vital product data: the list, serial number, identification.
pub fn vital(options: &CdOptions, page: u8) -> Result<Vec<u8>, Sense> {
    let body = match page {
        0x00 => vec![0x00, 0x80, 0x83],
        0x80 => padded(&options.serial, 20),
        0x83 => {
            let mut id = padded(&options.vendor, 8);
            id.extend(padded(&options.serial, 20));
            // ASCII, T10 vendor identification.
            [vec![2, 1, 0, id.len() as u8], id].concat()
        }
        _ => return Err(sense::INVALID_FIELD),
    };
    Ok([vec![5, page, 0, body.len() as u8], body].concat())
}

/// A block address, or the time on a CD with the two seconds before it.
fn address(block: u32, msf: bool) -> [u8; 4] {
    if !msf {
        return block.to_be_bytes();
    }
    let frames = block.saturating_add(150);
    [0, (frames / 75 / 60).min(255) as u8, (frames / 75 % 60) as u8, (frames % 75) as u8]
}

/// READ TOC/PMA/ATIP: one data track.
pub fn toc(format: u8, msf: bool, start: u8, blocks: u32) -> Result<Vec<u8>, Sense> {
    let mut b = vec![0, 0, 1, 1];
    match format {
        0 => {
            if start > 1 && start != LEAD_OUT {
                return Err(sense::INVALID_FIELD);
            }
            if start <= 1 {
                b.extend([0, DATA_TRACK, 1, 0]);
                b.extend(address(0, msf));
            }
            b.extend([0, DATA_TRACK, LEAD_OUT, 0]);
            b.extend(address(blocks, msf));
        }
        1 => {
            // The last session starts at the first track.
            b.extend([0, DATA_TRACK, 1, 0]);
            b.extend(address(0, msf));
        }
        2 => {
            // First and last track, lead-out, and the track itself; times always.
            for (point, time) in
                [(0xa0, [0, 1, 0, 0]), (0xa1, [0, 1, 0, 0]), (0xa2, address(blocks, true)), (1, address(0, true))]
            {
                b.extend([1, DATA_TRACK, 0, point, 0, 0, 0]);
                b.extend(time);
            }
        }
        _ => return Err(sense::INVALID_FIELD),
    }
    let len = (b.len() - 2) as u16;
    b[..2].copy_from_slice(&len.to_be_bytes());
    Ok(b)
}

fn feature(b: &mut Vec<u8>, code: u16, flags: u8, body: &[u8]) {
    b.extend(code.to_be_bytes());
    b.extend([flags, body.len() as u8]);
    b.extend(body);
}

/// GET CONFIGURATION. `kind`: 0 all features, 1 current ones, 2 one; `blocks` of the medium, if there is one.
pub fn configuration(kind: u8, start: u16, blocks: Option<u64>) -> Vec<u8> {
    const PERSISTENT: u8 = 2;
    const CURRENT: u8 = 1;
    let dvd = blocks.is_some_and(is_dvd);
    let cd = blocks.is_some() && !dvd;
    let profile = if dvd {
        PROFILE_DVD
    } else if cd {
        PROFILE_CD
    } else {
        0
    };
    let mut list = vec![];
    for p in [PROFILE_DVD, PROFILE_CD] {
        list.extend(p.to_be_bytes());
        list.extend([u8::from(p == profile), 0]);
    }
    let medium = u8::from(blocks.is_some());
    // Loading by tray, eject, lock.
    let removable = [0x29, 0, 0, 0];
    let features: [(u16, u8, &[u8]); 9] = [
        (0x0000, PERSISTENT | CURRENT, &list),
        // Core, version 2: ATAPI, device busy event not there.
        (0x0001, 2 << 2 | PERSISTENT | CURRENT, &[0, 0, 0, 2, 0, 0, 0, 0]),
        // Morphing.
        (0x0002, 1 << 2 | PERSISTENT | CURRENT, &[2, 0, 0, 0]),
        (0x0003, 1 << 2 | PERSISTENT | CURRENT, &removable),
        // Random readable: blocks of 2048 bytes, one at a time.
        (0x0010, medium, &[0, 0, 8, 0, 0, 1, 0, 0]),
        (0x001d, u8::from(cd), &[]),
        (0x001e, 2 << 2 | u8::from(cd), &[0, 0, 0, 0]),
        (0x001f, u8::from(dvd), &[]),
        (0x0105, PERSISTENT | CURRENT, &[]),
    ];
    let mut b = vec![0; 8];
    for (code, flags, body) in features {
        let wanted = match kind {
            2 => code == start,
            1 => code >= start && flags & CURRENT != 0,
            _ => code >= start,
        };
        if wanted {
            feature(&mut b, code, flags, body);
        }
    }
    let len = (b.len() - 4) as u32;
    b[..4].copy_from_slice(&len.to_be_bytes());
    b[6..8].copy_from_slice(&profile.to_be_bytes());
    b
}

/// READ DISC INFORMATION: complete, one session with one track.
pub fn disc_information() -> Vec<u8> {
    let mut b = vec![0; 34];
    b[1] = 32;
    b[2] = 0x0e;
    b[3..7].fill(1);
    // Unrestricted use.
    b[7] = 0x20;
    b
}

/// READ TRACK INFORMATION of the only track.
pub fn track_information(blocks: u32) -> Vec<u8> {
    let mut b = vec![0; 36];
    b[1] = 34;
    b[2] = 1;
    b[3] = 1;
    b[5] = 4;
    // Mode 1.
    b[6] = 1;
    b[24..28].copy_from_slice(&blocks.to_be_bytes());
    b
}

/// READ DVD STRUCTURE, formats 0 (physical), 1 (copyright), 4 (manufacturer), ff (list).
pub fn dvd_structure(format: u8, layer: u8, blocks: u32) -> Result<Vec<u8>, Sense> {
    if layer != 0 && format == 0 {
        return Err(sense::INVALID_FIELD);
    }
    let body = match format {
        0 => {
            let mut b = vec![0; 2048];
            // DVD-ROM, 120 mm, one layer; data from sector 30000h.
            b[0] = 1;
            b[1] = 0x0f;
            b[2] = 1;
            b[4..8].copy_from_slice(&0x0003_0000u32.to_be_bytes());
            b[8..12].copy_from_slice(&(0x0002_ffffu32.wrapping_add(blocks)).to_be_bytes());
            b
        }
        1 => vec![0; 4],
        4 => vec![0; 2048],
        0xff => vec![0x00, 0x40, 0x08, 0x04, 0x01, 0x40, 0x00, 0x08, 0x04, 0x40, 0x08, 0x04],
        _ => return Err(sense::INVALID_FIELD),
    };
    let len = (body.len() + 2) as u16;
    Ok([&len.to_be_bytes()[..], &[0, 0], &body].concat())
}

/// MODE SENSE (10). `control`: 0 current values, 1 changeable, 2 defaults, 3 saved.
pub fn mode(page: u8, control: u8, recovery: [u8; 2], locked: bool, medium: bool) -> Result<Vec<u8>, Sense> {
    if control == 3 {
        return Err(sense::SAVING_NOT_SUPPORTED);
    }
    let recovery = if control == 2 { [0, 5] } else { recovery };
    let lock = if locked { 2 } else { 0 };
    let pages: [(u8, Vec<u8>, Vec<u8>); 5] = [
        (RECOVERY, [&recovery[..], &[0; 8]].concat(), vec![0x37, 0xff]),
        (AUDIO, vec![4, 0, 0, 0, 0, 75, 1, 0xff, 2, 0xff, 0, 0, 0, 0], vec![]),
        (POWER, vec![0; 10], vec![]),
        (TIMEOUT, vec![0, 0, 0, 0, 0, 6, 0, 6, 0, 0], vec![]),
        // Reads CD-R, CD-RW, method 2, DVD-ROM; no audio; multi-session; tray that locks and ejects; 44 times, 2 MiB of cache.
        (
            CAPABILITIES,
            vec![0x0b, 0, 0x70, 0, 0x29 | lock, 0, 0x1e, 0x40, 0, 0, 0x08, 0, 0x1e, 0x40, 0, 0, 0, 0],
            vec![],
        ),
    ];
    let mut b = vec![0; 8];
    for (code, values, changeable) in &pages {
        if page != ALL_PAGES && page != *code {
            continue;
        }
        b.extend([*code, values.len() as u8]);
        match control {
            1 => b.extend((0..values.len()).map(|n| changeable.get(n).copied().unwrap_or(0))),
            _ => b.extend(values),
        }
    }
    if b.len() == 8 {
        return Err(sense::INVALID_FIELD);
    }
    let len = (b.len() - 2) as u16;
    b[..2].copy_from_slice(&len.to_be_bytes());
    // Medium type of older standards: data disc of 120 mm, or none.
    b[2] = if medium { 1 } else { 0x70 };
    Ok(b)
}
