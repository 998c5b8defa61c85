//! Packet commands (MMC-5 chapter 6, SPC-3).

use super::sense::{self, Sense};
use super::{BLOCK, CdDrive, Event, State, blocks, packet_end, packet_protocol, pages};
use crate::ata::{Action, Taskfile};

const TEST_UNIT_READY: u8 = 0x00;
const REQUEST_SENSE: u8 = 0x03;
const INQUIRY: u8 = 0x12;
const START_STOP_UNIT: u8 = 0x1b;
const PREVENT_ALLOW: u8 = 0x1e;
const READ_CAPACITY: u8 = 0x25;
const READ_10: u8 = 0x28;
const SEEK_10: u8 = 0x2b;
const VERIFY_10: u8 = 0x2f;
const READ_SUBCHANNEL: u8 = 0x42;
const READ_TOC: u8 = 0x43;
const GET_CONFIGURATION: u8 = 0x46;
const GET_EVENT_STATUS: u8 = 0x4a;
const READ_DISC_INFORMATION: u8 = 0x51;
const READ_TRACK_INFORMATION: u8 = 0x52;
const MODE_SELECT_10: u8 = 0x55;
const MODE_SENSE_10: u8 = 0x5a;
const READ_12: u8 = 0xa8;
const READ_DVD_STRUCTURE: u8 = 0xad;
const SET_CD_SPEED: u8 = 0xbb;
const MECHANISM_STATUS: u8 = 0xbd;
const READ_CD: u8 = 0xbe;

/// Blocks of one read, so that its memory stays bounded.
const MAX_BLOCKS: u64 = 0xffff;

fn half(p: &[u8; 16], at: usize) -> usize {
    usize::from(u16::from_be_bytes([p[at], p[at + 1]]))
}
fn word(p: &[u8; 16], at: usize) -> u32 {
    u32::from_be_bytes([p[at], p[at + 1], p[at + 2], p[at + 3]])
}

/// What a command leads to.
enum Reply {
    Good,
    /// Data, of which the host wants so many bytes at most.
    Data(Vec<u8>, usize),
    /// Blocks of the medium: first, count.
    Blocks(u64, u64),
    /// Parameters of so many bytes from the host.
    Take(usize),
}

impl CdDrive {
    pub(super) fn packet(&self, s: &mut State, tf: &Taskfile, p: &[u8; 16]) -> Action {
        // Unit attention is told before everything but these (MMC-5 4.1.6.1).
        let exempt = matches!(p[0], INQUIRY | REQUEST_SENSE | GET_CONFIGURATION | GET_EVENT_STATUS);
        let reply =
            if !exempt && !s.tray.attention.is_empty() { Err(s.tray.attention.remove(0)) } else { self.execute(s, p) };
        let protocol = packet_protocol(tf);
        let fail = |s: &mut State, what: Sense| {
            s.tray.sense = what;
            Action::End(packet_end(tf, Some(what)))
        };
        if p[0] != REQUEST_SENSE {
            s.tray.sense = sense::NONE;
        }
        match reply {
            Err(what) => fail(s, what),
            Ok(Reply::Good) => Action::End(packet_end(tf, None)),
            Ok(Reply::Data(mut data, limit)) => {
                data.truncate(limit);
                if data.is_empty() {
                    return Action::End(packet_end(tf, None));
                }
                Action::In { data, protocol, end: packet_end(tf, None) }
            }
            Ok(Reply::Take(0)) => Action::End(packet_end(tf, None)),
            Ok(Reply::Take(len)) => Action::Out { len, protocol },
            Ok(Reply::Blocks(_, 0)) => Action::End(packet_end(tf, None)),
            Ok(Reply::Blocks(first, count)) => match s.ready() {
                Err(what) => fail(s, what),
                Ok(drive) => Action::Transfer {
                    drive: drive.clone(),
                    offset: first * BLOCK,
                    len: count * BLOCK,
                    write: false,
                    flush: false,
                    protocol,
                },
            },
        }
    }

    fn execute(&self, s: &mut State, p: &[u8; 16]) -> Result<Reply, Sense> {
        match p[0] {
            TEST_UNIT_READY => s.ready().map(|_| Reply::Good),
            REQUEST_SENSE => {
                // Descriptor format is not there.
                if p[1] & 1 != 0 {
                    return Err(sense::INVALID_FIELD);
                }
                let pending = match s.tray.sense {
                    sense::NONE if !s.tray.attention.is_empty() => s.tray.attention.remove(0),
                    other => other,
                };
                s.tray.sense = sense::NONE;
                Ok(Reply::Data(pending.fixed().to_vec(), p[4].into()))
            }
            INQUIRY => {
                if p[1] & 1 == 0 && p[2] != 0 {
                    return Err(sense::INVALID_FIELD);
                }
                let data =
                    if p[1] & 1 != 0 { pages::vital(&self.options, p[2])? } else { pages::inquiry(&self.options) };
                Ok(Reply::Data(data, half(p, 3)))
            }
            START_STOP_UNIT => start_stop(s, p),
            PREVENT_ALLOW => {
                s.tray.locked = p[4] & 1 != 0;
                Ok(Reply::Good)
            }
            READ_CAPACITY => {
                let last = blocks(s.ready()?).saturating_sub(1) as u32;
                let data = [last.to_be_bytes(), (BLOCK as u32).to_be_bytes()].concat();
                Ok(Reply::Data(data, 8))
            }
            READ_10 => read(s, word(p, 2), half(p, 7) as u64),
            READ_12 => read(s, word(p, 2), word(p, 6).into()),
            READ_CD => {
                // Data sectors (any type, or mode 1), user data only.
                let count = u64::from(p[6]) << 16 | half(p, 7) as u64;
                if !matches!(p[1] >> 2 & 7, 0 | 2) || p[10] & 7 != 0 {
                    return Err(sense::INVALID_FIELD);
                }
                match p[9] & 0xfe {
                    0 => read(s, word(p, 2), count).map(|_| Reply::Good),
                    0x10 => read(s, word(p, 2), count),
                    _ => Err(sense::INVALID_FIELD),
                }
            }
            SEEK_10 => read(s, word(p, 2), 1).map(|_| Reply::Good),
            VERIFY_10 => {
                if p[1] & 2 != 0 {
                    return Err(sense::INVALID_FIELD);
                }
                read(s, word(p, 2), half(p, 7) as u64).map(|_| Reply::Good)
            }
            READ_SUBCHANNEL => {
                s.ready()?;
                // No audio is played; only the header, or media catalog number and ISRC that are not there.
                let data = match (p[2] & 0x40 != 0, p[3]) {
                    (false, _) => vec![0, 0x15, 0, 0],
                    (true, 1) => vec![0, 0x15, 0, 12, 1, 0x14, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0],
                    (true, 2 | 3) => [&[0, 0x15, 0, 20, p[3]][..], &[0; 19]].concat(),
                    _ => return Err(sense::INVALID_FIELD),
                };
                Ok(Reply::Data(data, half(p, 7)))
            }
            READ_TOC => {
                let total = blocks(s.ready()?) as u32;
                // The format was in the control byte once.
                let format = if p[2] & 15 != 0 { p[2] & 15 } else { p[9] >> 6 };
                Ok(Reply::Data(pages::toc(format, p[1] & 2 != 0, p[6], total)?, half(p, 7)))
            }
            GET_CONFIGURATION => {
                let total = s.ready().ok().map(|m| blocks(m));
                let kind = p[1] & 3;
                if kind == 3 {
                    return Err(sense::INVALID_FIELD);
                }
                Ok(Reply::Data(pages::configuration(kind, half(p, 2) as u16, total), half(p, 7)))
            }
            GET_EVENT_STATUS => {
                // Only when polled.
                if p[1] & 1 == 0 {
                    return Err(sense::INVALID_FIELD);
                }
                Ok(Reply::Data(event_status(s, p[4]), half(p, 7)))
            }
            READ_DISC_INFORMATION => {
                s.ready()?;
                if p[1] & 7 != 0 {
                    return Err(sense::INVALID_FIELD);
                }
                Ok(Reply::Data(pages::disc_information(), half(p, 7)))
            }
            READ_TRACK_INFORMATION => {
                let total = blocks(s.ready()?) as u32;
                let number = word(p, 2);
                let found = match p[1] & 3 {
                    0 => number < total,
                    1 | 2 => number == 1,
                    _ => false,
                };
                if !found {
                    return Err(sense::INVALID_FIELD);
                }
                Ok(Reply::Data(pages::track_information(total), half(p, 7)))
            }
            MODE_SENSE_10 => {
                let data = pages::mode(p[2] & 0x3f, p[2] >> 6, s.tray.recovery, s.tray.locked, s.ready().is_ok())?;
                Ok(Reply::Data(data, half(p, 7)))
            }
            MODE_SELECT_10 => {
                // Page format; pages are not saved.
                if p[1] & 0x11 != 0x10 {
                    return Err(sense::INVALID_FIELD);
                }
                Ok(Reply::Take(half(p, 7)))
            }
            READ_DVD_STRUCTURE => {
                let total = blocks(s.ready()?);
                if !pages::is_dvd(total) {
                    return Err(sense::Sense { key: 5, code: 0x30, qualifier: 2 });
                }
                Ok(Reply::Data(pages::dvd_structure(p[7], p[6], total as u32)?, half(p, 8)))
            }
            SET_CD_SPEED => Ok(Reply::Good),
            MECHANISM_STATUS => {
                let door = if s.tray.open { 0x10 } else { 0 };
                Ok(Reply::Data(vec![0, door, 0, 0, 0, 0, 0, 0], half(p, 8)))
            }
            _ => Err(sense::INVALID_OPERATION),
        }
    }
}

fn read(s: &State, first: u32, count: u64) -> Result<Reply, Sense> {
    let total = blocks(s.ready()?);
    let first = u64::from(first);
    if first + count > total || (count == 0 && first > total) {
        return Err(sense::ADDRESS_OUT_OF_RANGE);
    }
    if count > MAX_BLOCKS {
        return Err(sense::INVALID_FIELD);
    }
    Ok(Reply::Blocks(first, count))
}

fn start_stop(s: &mut State, p: &[u8; 16]) -> Result<Reply, Sense> {
    match p[4] >> 4 {
        0 => (),
        // Active, idle, standby, sleep: the drive is always ready to spin.
        1 | 2 | 3 | 5 => return Ok(Reply::Good),
        _ => return Err(sense::INVALID_FIELD),
    }
    if p[4] & 2 == 0 {
        return Ok(Reply::Good);
    }
    if p[4] & 1 != 0 {
        s.close();
        return Ok(Reply::Good);
    }
    if s.tray.locked {
        return Err(if s.medium.is_some() { sense::REMOVAL_PREVENTED } else { sense::ILLEGAL_EJECT });
    }
    if !s.tray.open && s.medium.is_some() {
        s.tray.event = Event::Removal;
    }
    s.tray.open = true;
    Ok(Reply::Good)
}

/// GET EVENT STATUS NOTIFICATION: of the classes only media events are there.
fn event_status(s: &mut State, classes: u8) -> Vec<u8> {
    const MEDIA: u8 = 4;
    if classes & 1 << MEDIA == 0 {
        // No event available.
        return vec![0, 2, 0x80, 1 << MEDIA];
    }
    let present = if s.medium.is_some() { 2 } else { 0 };
    let event = std::mem::replace(&mut s.tray.event, Event::None);
    vec![0, 6, MEDIA, 1 << MEDIA, event as u8, present | u8::from(s.tray.open), 0, 0]
}

/// The parameters of MODE SELECT (10).
pub(super) fn take(s: &mut State, p: &[u8; 16], data: &[u8]) -> Result<(), Sense> {
    if p[0] != MODE_SELECT_10 {
        return Err(sense::INVALID_OPERATION);
    }
    let descriptors = usize::from(u16::from_be_bytes([
        *data.get(6).ok_or(sense::PARAMETER_LENGTH)?,
        *data.get(7).ok_or(sense::PARAMETER_LENGTH)?,
    ]));
    let mut rest = data.get(8 + descriptors..).ok_or(sense::PARAMETER_LENGTH)?;
    while let [code, len, ..] = *rest {
        let body = rest.get(2..2 + usize::from(len)).ok_or(sense::PARAMETER_LENGTH)?;
        match (code & 0x3f, body) {
            (pages::RECOVERY, [recovery, retries, ..]) => s.tray.recovery = [recovery & 0x37, *retries],
            // The others have nothing that can change, and take their own values.
            (pages::POWER | pages::TIMEOUT | pages::AUDIO | pages::CAPABILITIES, _) => (),
            _ => return Err(sense::INVALID_PARAMETER),
        }
        rest = &rest[2 + usize::from(len)..];
    }
    if rest.is_empty() { Ok(()) } else { Err(sense::PARAMETER_LENGTH) }
}
