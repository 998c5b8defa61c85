//! SMART data and logs (ATA8-ACS 7.52), and general purpose logs (ACS-3 9).

use super::identify::checksum;
use super::{Registers, Taskfile};

pub const PAGE: usize = 512;
/// Addresses of logs.
pub const DIRECTORY: u8 = 0x00;
const SUMMARY_ERRORS: u8 = 0x01;
const SELF_TEST: u8 = 0x06;
pub const NCQ_ERROR: u8 = 0x10;

/// An attribute: number, flags, current value, raw value, threshold.
const ATTRIBUTES: [(u8, u16, u8, u64, u8); 6] = [
    // Read error rate, spin-up time, reallocated sectors, power-on hours, power cycles, temperature.
    (1, 0x0003, 100, 0, 6),
    (3, 0x0003, 100, 16, 0),
    (5, 0x0003, 100, 0, 36),
    (9, 0x0003, 100, 1, 0),
    (12, 0x0003, 100, 1, 20),
    (190, 0x0003, 69, 31, 50),
];

fn page(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(PAGE - 1);
    bytes.resize(PAGE - 1, 0);
    bytes.push(checksum(&bytes));
    bytes
}

/// SMART READ DATA. `self_test`: execution status of the last.
pub fn smart_data(self_test: u8) -> Vec<u8> {
    let mut b = vec![0; PAGE];
    b[0] = 1;
    for (n, (id, flags, value, raw, _)) in ATTRIBUTES.into_iter().enumerate() {
        let at = 2 + n * 12;
        b[at] = id;
        b[at + 1..at + 3].copy_from_slice(&flags.to_le_bytes());
        b[at + 3..at + 5].fill(value);
        b[at + 5..at + 11].copy_from_slice(&raw.to_le_bytes()[..6]);
    }
    // Off-line collection never started; its capability: execute immediate, self-tests.
    b[363] = self_test;
    b[367] = 0x11;
    b[368] = 3;
    b[370] = 1;
    b[372] = 2;
    b[373] = 2;
    page(b)
}

/// SMART READ THRESHOLDS, of older standards.
pub fn smart_thresholds() -> Vec<u8> {
    let mut b = vec![0; PAGE];
    b[0] = 1;
    for (n, (id, .., threshold)) in ATTRIBUTES.into_iter().enumerate() {
        b[2 + n * 12] = id;
        b[3 + n * 12] = threshold;
    }
    page(b)
}

/// SMART READ LOG; `None`: there is no such log.
pub fn smart_log(address: u8, self_test: Option<u8>) -> Option<Vec<u8>> {
    let mut b = vec![0; PAGE];
    match address {
        DIRECTORY => {
            b[0] = 1;
            b[usize::from(SUMMARY_ERRORS) * 2] = 1;
            b[usize::from(SELF_TEST) * 2] = 1;
            // The directory has no checksum.
            return Some(b);
        }
        SUMMARY_ERRORS => b[0] = 1,
        SELF_TEST => {
            b[0] = 1;
            if let Some(kind) = self_test {
                b[2] = kind;
                b[508] = 1;
            }
        }
        _ => return None,
    }
    Some(page(b))
}

/// READ LOG EXT: one page of a log; `None`: there is no such page.
pub fn general(address: u8, number: u16, error: Option<&NcqError>) -> Option<Vec<u8>> {
    if number != 0 {
        return None;
    }
    match address {
        DIRECTORY => {
            let mut b = vec![0; PAGE];
            b[0] = 1;
            b[usize::from(NCQ_ERROR) * 2] = 1;
            Some(b)
        }
        NCQ_ERROR => Some(error.map_or_else(|| page(vec![0x80]), NcqError::page)),
        _ => None,
    }
}

/// What stopped the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NcqError {
    pub tf: Taskfile,
    pub end: Registers,
    /// The command had a tag.
    pub queued: bool,
}

impl NcqError {
    fn page(&self) -> Vec<u8> {
        let (lba, mut b) = (self.end.lba.to_le_bytes(), vec![0; PAGE]);
        b[0] = if self.queued { self.tf.tag() } else { 0x80 };
        b[2] = self.end.status;
        b[3] = self.end.error;
        b[4..7].copy_from_slice(&lba[..3]);
        b[7] = self.end.device;
        b[8..11].copy_from_slice(&lba[3..6]);
        b[12..14].copy_from_slice(&self.end.count.to_le_bytes());
        page(b)
    }
}
