//! Information units of the SCSI RDMA protocol (SRP, T10 1415-D, chapter 6). All fields are big-endian.

use super::{Address, MAX_IU};
use rhea_device::DmaHandle;
use rhea_storage::scsi::{Cdb, Outcome, Piece};

pub const LOGIN: u8 = 0x00;
pub const TASK_MANAGEMENT: u8 = 0x01;
pub const COMMAND: u8 = 0x02;
const LOGIN_RESPONSE: u8 = 0xc0;
const RESPONSE: u8 = 0xc1;

/// Task management functions, and response codes.
pub const ABORT_TASK: u8 = 0x01;
pub const ABORT_TASK_SET: u8 = 0x02;
pub const CLEAR_TASK_SET: u8 = 0x04;
pub const LOGICAL_UNIT_RESET: u8 = 0x08;
pub const COMPLETE: u8 = 0;
pub const FIELDS_INVALID: u8 = 2;
pub const NOT_SUPPORTED: u8 = 4;

/// Flags of a response.
const RESPONSE_VALID: u8 = 1;
const SENSE_VALID: u8 = 2;
const OUT_OVER: u8 = 4;
const OUT_UNDER: u8 = 8;
const IN_OVER: u8 = 0x10;
const IN_UNDER: u8 = 0x20;

/// Formats of data buffers: none, one descriptor, a table.
const DIRECT: u8 = 1;
const INDIRECT: u8 = 2;
const DESCRIPTOR: usize = 16;
/// Descriptors of one table at most.
const MOST_DESCRIPTORS: usize = 4096;

fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    Some(bytes.get(at..at.checked_add(len)?)?.iter().fold(0, |v, b| v << 8 | u64::from(*b)))
}

/// The requester's number for a request.
pub fn tag(iu: &[u8; MAX_IU]) -> u64 {
    number(iu, 8, 8).unwrap_or(0)
}

/// Target and unit of a logical unit number of one level (SAM-3 4.9.4, 4.9.7): by its first two bytes.
fn address(high: u8, low: u8) -> Option<Address> {
    match high >> 6 {
        // Peripheral device addressing, bus 0; flat space.
        0 if high & 0x3f == 0 => Some((0, low)),
        1 => Some((0, low)),
        // Logical unit addressing, bus 0.
        2 if low >> 5 == 0 => Some((high & 0x3f, low & 0x1f)),
        _ => None,
    }
}

pub fn login_response(iu: &[u8; MAX_IU], requests: u32, max: u32) -> Vec<u8> {
    let mut b = vec![0; 52];
    b[0] = LOGIN_RESPONSE;
    b[4..8].copy_from_slice(&requests.to_be_bytes());
    b[8..16].copy_from_slice(&iu[8..16]);
    b[16..20].copy_from_slice(&max.to_be_bytes());
    b[20..24].copy_from_slice(&max.to_be_bytes());
    // Direct and indirect buffers.
    b[25] = 1 << DIRECT | 1 << INDIRECT;
    b
}

/// A command taken apart.
pub struct Command {
    /// `None`: such a number cannot be there.
    pub address: Option<Address>,
    pub cdb: Cdb,
    pub data_in: Vec<Piece>,
    pub data_out: Vec<Piece>,
}

pub fn size(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|p| p.1).fold(0, u64::saturating_add)
}

/// The memory descriptors at `at`, and where they end.
fn pieces(iu: &[u8], at: usize, format: u8, inline: u8, dma: &DmaHandle) -> Option<(Vec<Piece>, usize)> {
    let piece = |bytes: &[u8], at: usize| Some((number(bytes, at, 8)?, number(bytes, at + 12, 4)?));
    match format {
        0 => Some((Vec::new(), at)),
        DIRECT => Some((vec![piece(iu, at)?], at + DESCRIPTOR)),
        INDIRECT => {
            let (table, len) = piece(iu, at)?;
            let count = len as usize / DESCRIPTOR;
            let list = at + DESCRIPTOR + 4;
            let end = list + usize::from(inline) * DESCRIPTOR;
            if count > MOST_DESCRIPTORS {
                return None;
            }
            let external;
            let (bytes, from) = if count <= usize::from(inline) {
                (iu, list)
            } else {
                let mut data = vec![0; count * DESCRIPTOR];
                dma.read_ram(table, &mut data).ok()?;
                external = data;
                (&external[..], 0)
            };
            let found: Option<Vec<Piece>> = (0..count).map(|n| piece(bytes, from + n * DESCRIPTOR)).collect();
            Some((found?, end))
        }
        _ => None,
    }
}

/// Takes a command apart; `None`: it is not sound.
pub fn parse(iu: &[u8; MAX_IU], dma: &DmaHandle) -> Option<Command> {
    let format = iu[5];
    let (out_count, in_count) = (iu[6], iu[7]);
    let mut cdb = Cdb::default();
    cdb.copy_from_slice(&iu[32..48]);
    // Command descriptor blocks longer than 16 bytes are not understood by any unit; their rest is skipped.
    let at = 48 + usize::from(iu[31] & 0xfc);
    let (data_out, at) = pieces(iu, at, format >> 4, out_count, dma)?;
    let (data_in, _) = pieces(iu, at, format & 15, in_count, dma)?;
    Some(Command { address: address(iu[20], iu[21]), cdb, data_in, data_out })
}

/// The response to a command for which the requester had room for so many bytes in and out.
pub fn response(tag: u64, outcome: &Outcome, (room_in, room_out): (u64, u64)) -> Vec<u8> {
    let mut b = vec![0; 36];
    b[0] = RESPONSE;
    // One more request may come.
    b[7] = 1;
    b[8..16].copy_from_slice(&tag.to_be_bytes());
    b[19] = outcome.status;
    let residual = |room: u64, under: u8, over: u8| {
        if outcome.wanted > room {
            (over, outcome.wanted - room)
        } else if outcome.moved < room {
            (under, room - outcome.moved)
        } else {
            (0, 0)
        }
    };
    let (out_flag, out_rest) = if room_out == 0 { (0, 0) } else { residual(room_out, OUT_UNDER, OUT_OVER) };
    let (in_flag, in_rest) = if room_in == 0 { (0, 0) } else { residual(room_in, IN_UNDER, IN_OVER) };
    b[18] = out_flag | in_flag;
    b[20..24].copy_from_slice(&(out_rest.min(u32::MAX.into()) as u32).to_be_bytes());
    b[24..28].copy_from_slice(&(in_rest.min(u32::MAX.into()) as u32).to_be_bytes());
    if let Some(sense) = outcome.sense {
        let data = sense.fixed();
        b[18] |= SENSE_VALID;
        b[28..32].copy_from_slice(&(data.len() as u32).to_be_bytes());
        b.extend(data);
    }
    b
}

/// Unit, tag of the task and function.
pub fn task(iu: &[u8; MAX_IU]) -> (Option<Address>, u64, u8) {
    (address(iu[20], iu[21]), number(iu, 32, 8).unwrap_or(0), iu[30])
}

pub fn task_response(iu: &[u8; MAX_IU], code: u8) -> Vec<u8> {
    let mut b = vec![0; 40];
    b[0] = RESPONSE;
    b[7] = 1;
    b[8..16].copy_from_slice(&iu[8..16]);
    b[18] = RESPONSE_VALID;
    // Length of response data, whose last byte is the code.
    b[35] = 4;
    b[39] = code;
    b
}
