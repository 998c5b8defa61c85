//! Events that the partition is told: the power button, and devices that come and go (LoPAPR chapter 10; error log format version 6).

use super::{After, Call, NO_EVENT, PARAMETER_ERROR, SUCCESS};
use crate::pseries::drc::DrcType;
use parking_lot::Mutex;
use rhea_accel::IrqLine;
use std::collections::VecDeque;

/// Classes in the mask of check-exception and event-scan.
pub const CLASS_EPOW: u32 = 0x4000_0000;
pub const CLASS_HOT_PLUG: u32 = 0x1000_0000;
/// More events than this waiting are dropped: the guest does not look.
const MOST_WAITING: usize = 256;

/// Events of one interrupt.
struct Source {
    waiting: Mutex<VecDeque<Vec<u8>>>,
    line: IrqLine,
}

impl Source {
    fn new(line: IrqLine) -> Self {
        Self { waiting: Mutex::default(), line }
    }
    fn tell(&self, log: Vec<u8>) {
        {
            let mut waiting = self.waiting.lock();
            if waiting.len() >= MOST_WAITING {
                return;
            }
            waiting.push_back(log);
        }
        self.line.pulse();
    }
    fn take(&self) -> Option<Vec<u8>> {
        let (event, more) = {
            let mut waiting = self.waiting.lock();
            (waiting.pop_front(), !waiting.is_empty())
        };
        if more {
            self.line.pulse();
        }
        event
    }
}

/// What waits to be told.
pub struct Events {
    epow: Source,
    hot_plug: Source,
}

/// What comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotPlugEvent {
    pub kind: DrcType,
    pub removal: bool,
    /// Index of the (first) connector.
    pub index: u32,
    /// That many connectors from that one on.
    pub count: Option<u32>,
}

impl Events {
    #[must_use]
    pub fn new(epow: IrqLine, hot_plug: IrqLine) -> Self {
        Self { epow: Source::new(epow), hot_plug: Source::new(hot_plug) }
    }
    /// Asks the guest to shut down. `date`: year, month, day, hour, minute, second.
    pub fn power_button(&self, date: [u32; 6]) {
        self.epow.tell(shutdown_log(date));
    }
    /// Asks the guest to take something in or to give it up; `own_source`: it knows the interrupt for that.
    pub fn hot_plug(&self, date: [u32; 6], event: HotPlugEvent, own_source: bool) {
        let source = if own_source { &self.hot_plug } else { &self.epow };
        source.tell(hot_plug_log(date, event));
    }
    pub fn reset(&self) {
        self.epow.waiting.lock().clear();
        self.hot_plug.waiting.lock().clear();
    }
    /// What waits, of both interrupts.
    #[must_use]
    pub fn save(&self) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let waiting = |source: &Source| source.waiting.lock().iter().cloned().collect();
        (waiting(&self.epow), waiting(&self.hot_plug))
    }
    /// Takes it over; that something waits is the interrupt controller's to know.
    pub fn load(&self, (epow, hot_plug): (Vec<Vec<u8>>, Vec<Vec<u8>>)) {
        for (source, events) in [(&self.epow, epow), (&self.hot_plug, hot_plug)] {
            *source.waiting.lock() = events.into_iter().take(MOST_WAITING).collect();
        }
    }
    /// The next event of the classes in `mask`.
    pub fn take(&self, mask: u32) -> Option<Vec<u8>> {
        let of = |class: u32, source: &Source| if mask & class != 0 { source.take() } else { None };
        of(CLASS_EPOW, &self.epow).or_else(|| of(CLASS_HOT_PLUG, &self.hot_plug))
    }
}

fn bcd(v: u32) -> u8 {
    ((v / 10 % 10) << 4 | v % 10) as u8
}

const VERSION: u32 = 6 << 24;
const SEVERITY_EVENT: u32 = 1 << 21;
const EXTENDED: u32 = 1 << 18;
/// Initiator in bits 12 to 15.
const INITIATOR_HOT_PLUG: u32 = 6 << 12;
const TYPE_EPOW: u32 = 64;
const TYPE_HOT_PLUG: u32 = 0xe5;

/// A log: what its first word says, when, the user header's subsystem, and one section more.
fn log_of(summary: u32, date: [u32; 6], subsystem: u8, id: &[u8; 2], content: &[u8]) -> Vec<u8> {
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
    // User header: subsystem, severity, what is reported: nothing to be done by service.
    body.extend(section(b"UH", &[subsystem, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0]));
    body.extend(section(id, content));
    let mut log = (VERSION | SEVERITY_EVENT | EXTENDED | summary).to_be_bytes().to_vec();
    log.extend((body.len() as u32).to_be_bytes());
    log.extend(body);
    log
}

/// An event of the class EPOW that asks for an orderly shutdown.
fn shutdown_log(date: [u32; 6]) -> Vec<u8> {
    const EXTERNAL_ENVIRONMENT: u8 = 0xa0;
    // Sensor value: action "system shutdown"; modifier "normal"; for this partition; reason code.
    log_of(TYPE_EPOW, date, EXTERNAL_ENVIRONMENT, b"EP", &[3, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

/// A hot-plug event (LoPAPR 10.3.2.2, the hot-plug event section).
fn hot_plug_log(date: [u32; 6], event: HotPlugEvent) -> Vec<u8> {
    const PLATFORM_FIRMWARE: u8 = 0x70;
    const BY_INDEX: u8 = 2;
    const BY_COUNT_AND_INDEX: u8 = 4;
    let resource = match event.kind {
        DrcType::Cpu => 1,
        DrcType::Lmb => 2,
        DrcType::Pci => 5,
    };
    let id = if event.count.is_some() { BY_COUNT_AND_INDEX } else { BY_INDEX };
    let mut content = vec![resource, 1 + u8::from(event.removal), id, 0];
    content.extend(event.count.unwrap_or(event.index).to_be_bytes());
    content.extend(if event.count.is_some() { event.index } else { 0 }.to_be_bytes());
    log_of(INITIATOR_HOT_PLUG | TYPE_HOT_PLUG, date, PLATFORM_FIRMWARE, b"HP", &content)
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
    let mask = call.arg(mask);
    let (address, len) = (u64::from(call.arg(buffer)), call.arg(buffer + 1) as usize);
    if !call.ram().has(address, len as u64) {
        return call.finish(PARAMETER_ERROR, &[]);
    }
    let Some(mut log) = call.partition.take_event(mask) else { return call.finish(NO_EVENT, &[]) };
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
    fn hot_plug_is_told_of() {
        let date = [2026, 11, 21, 14, 5, 9];
        let event = HotPlugEvent { kind: DrcType::Lmb, removal: true, index: 0x8000_0004, count: Some(4) };
        let log = hot_plug_log(date, event);
        assert_eq!(log[2..4], [0x60, 0xe5]);
        let section = &log[log.len() - 20..];
        assert_eq!(section, [b'H', b'P', 0, 20, 1, 0, 0, 0, 2, 2, 4, 0, 0, 0, 0, 4, 0x80, 0, 0, 4]);
        let events = Events::new(IrqLine::unconnected(), IrqLine::unconnected());
        events.hot_plug(date, event, true);
        events.power_button(date);
        assert_eq!(events.take(CLASS_EPOW).map(|l| l[3]), Some(TYPE_EPOW as u8));
        assert_eq!(events.take(CLASS_EPOW), None);
        assert_eq!(events.take(CLASS_HOT_PLUG), Some(log.clone()));
        // Guests that do not know the source are told by the other one.
        events.hot_plug(date, event, false);
        assert_eq!((events.take(CLASS_HOT_PLUG), events.take(u32::MAX)), (None, Some(log)));
    }

    #[test]
    fn a_guest_that_does_not_look_fills_nothing() {
        let events = Events::new(IrqLine::unconnected(), IrqLine::unconnected());
        for _ in 0..1000 {
            events.power_button([2026, 1, 1, 0, 0, 0]);
        }
        assert_eq!((0..).take_while(|_| events.take(CLASS_EPOW).is_some()).count(), MOST_WAITING);
    }
}
