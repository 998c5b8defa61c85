//! Events that the partition is told: the power button (LoPAPR chapter 10; error log format version 6).

use super::{After, Call, NO_EVENT, PARAMETER_ERROR, SUCCESS};
use parking_lot::Mutex;
use rhea_accel::IrqLine;
use std::collections::VecDeque;

/// Classes in the mask of check-exception and event-scan.
pub const CLASS_EPOW: u32 = 0x4000_0000;
/// More events than this waiting are dropped: the guest does not look.
const MOST_WAITING: usize = 32;

/// What waits to be told.
pub struct Events {
    waiting: Mutex<VecDeque<Vec<u8>>>,
    epow: IrqLine,
}

impl Events {
    #[must_use]
    pub fn new(epow: IrqLine) -> Self {
        Self { waiting: Mutex::default(), epow }
    }
    /// Asks the guest to shut down. `date`: year, month, day, hour, minute, second.
    pub fn power_button(&self, date: [u32; 6]) {
        {
            let mut waiting = self.waiting.lock();
            if waiting.len() >= MOST_WAITING {
                return;
            }
            waiting.push_back(shutdown_log(date));
        }
        self.epow.pulse();
    }
    pub fn reset(&self) {
        self.waiting.lock().clear();
    }
    pub fn take(&self) -> Option<Vec<u8>> {
        let (event, more) = {
            let mut waiting = self.waiting.lock();
            (waiting.pop_front(), !waiting.is_empty())
        };
        if more {
            self.epow.pulse();
        }
        event
    }
}

fn bcd(v: u32) -> u8 {
    ((v / 10 % 10) << 4 | v % 10) as u8
}

/// An event of the class EPOW that asks for an orderly shutdown.
fn shutdown_log(date: [u32; 6]) -> Vec<u8> {
    const VERSION: u32 = 6 << 24;
    const SEVERITY_EVENT: u32 = 1 << 21;
    const EXTENDED: u32 = 1 << 18;
    const TYPE_EPOW: u32 = 64;
    let mut body = Vec::new();
    // Main header: valid; a new log in big-endian PowerPC format; company.
    body.extend([0x80, 0, 0x80 | 0x0e, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    body.extend(b"IBM\0");
    let section = |id: &[u8; 2], content: &[u8]| {
        let mut s = id.to_vec();
        s.extend((content.len() as u16 + 8).to_be_bytes());
        s.extend([1, 0, 0, 0]);
        s.extend(content);
        s
    };
    // Private header: date and time, creator, sections, log identifier.
    let mut private = vec![bcd(date[0] / 100), bcd(date[0] % 100), bcd(date[1]), bcd(date[2])];
    private.extend([bcd(date[3]), bcd(date[4]), bcd(date[5]), 0]);
    private.extend([0; 8]);
    private.extend([b'H', 0, 0, 3]);
    private.extend([0; 20]);
    body.extend(section(b"PH", &private));
    // User header: subsystem "external environment", severity, what is reported: nothing to be done by service.
    body.extend(section(b"UH", &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0]));
    // Sensor value: action "system shutdown"; modifier "normal"; for this partition; reason code.
    body.extend(section(b"EP", &[3, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    let mut log = (VERSION | SEVERITY_EVENT | EXTENDED | TYPE_EPOW).to_be_bytes().to_vec();
    log.extend((body.len() as u32).to_be_bytes());
    log.extend(body);
    log
}

/// check-exception: vector, information, mask, critical, buffer, length.
pub fn check_exception(call: &mut Call<'_>) -> After {
    report(call, 2, 4)
}

/// event-scan: mask, critical, buffer, length. Events that interrupt are told by check-exception.
pub fn event_scan(call: &mut Call<'_>) -> After {
    call.finish(NO_EVENT, &[])
}

fn report(call: &mut Call<'_>, mask: usize, buffer: usize) -> After {
    if call.arg(mask) & CLASS_EPOW == 0 {
        return call.finish(NO_EVENT, &[]);
    }
    let (address, len) = (u64::from(call.arg(buffer)), call.arg(buffer + 1) as usize);
    if !call.ram().has(address, len as u64) {
        return call.finish(PARAMETER_ERROR, &[]);
    }
    let Some(mut log) = call.partition.take_event() else { return call.finish(NO_EVENT, &[]) };
    log.truncate(len);
    let status = if call.ram().write(address, &log).is_ok() { SUCCESS } else { PARAMETER_ERROR };
    call.finish(status, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_well_formed() {
        let log = shutdown_log([2026, 11, 21, 14, 5, 9]);
        assert_eq!(u32::from_be_bytes(log[4..8].try_into().unwrap()) as usize, log.len() - 8);
        assert_eq!(&log[20..24], b"IBM\0");
        // Sections follow each other by their lengths.
        let (mut at, mut ids) = (24, Vec::new());
        while at < log.len() {
            ids.push(log[at..at + 2].to_vec());
            at += usize::from(u16::from_be_bytes([log[at + 2], log[at + 3]]));
        }
        assert_eq!((at, ids), (log.len(), vec![b"PH".to_vec(), b"UH".to_vec(), b"EP".to_vec()]));
        assert_eq!(&log[32..40], &[0x20, 0x26, 0x11, 0x21, 0x14, 0x05, 0x09, 0]);
    }

    #[test]
    fn a_guest_that_does_not_look_fills_nothing() {
        let events = Events::new(IrqLine::unconnected());
        for _ in 0..100 {
            events.power_button([2026, 1, 1, 0, 0, 0]);
        }
        assert_eq!((0..).take_while(|_| events.take().is_some()).count(), MOST_WAITING);
    }
}
