//! Reception: filters (82574 datasheet, 7.1.1), descriptors, checksums.

use super::{Controller, State, reg};
use crate::checksum::{self, Packet};
use rhea_device::log_guest_error;
use std::sync::atomic::{Ordering, fence};

/// The longest frame without LPE: a VLAN tag, and no check sequence here.
const MAX_STANDARD: usize = 1518;
const MAX_LONG: usize = 16384 - 4;
const MIN_FRAME: usize = 60;

const DD: u32 = 1;
const EOP: u32 = 1 << 1;
const IXSM: u32 = 1 << 2;
const VP: u32 = 1 << 3;
const UDPCS: u32 = 1 << 4;
const L4CS: u32 = 1 << 5;
const IPCS: u32 = 1 << 6;
const PIF: u32 = 1 << 7;
const L4E: u32 = 1 << 29;
const IPE: u32 = 1 << 30;
const HEADER_SPLIT: u16 = 1 << 15;

enum Delivery {
    Lost,
    NoRoom,
    Done(u32),
}

/// How the address filters take a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Match {
    Exact,
    Inexact,
}

/// The form of descriptors.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Legacy,
    Extended,
    Split,
}

impl State {
    fn address_match(&self, frame: &[u8]) -> Option<Match> {
        let rctl = self.get(reg::RCTL);
        let to = frame.first_chunk::<6>()?;
        for n in 0..16 {
            let high = self.get(reg::RAH + 8 * n);
            let [a, b, c, d] = self.get(reg::RAL + 8 * n).to_le_bytes();
            let [e, f, select, _] = high.to_le_bytes();
            // Only those that select the destination address.
            if high & reg::RAH_VALID != 0 && select & 3 == 0 && *to == [a, b, c, d, e, f] {
                return Some(Match::Exact);
            }
        }
        if *to == [0xff; 6] && rctl & reg::RCTL_BROADCAST != 0 {
            return Some(Match::Exact);
        }
        let all = if to[0] & 1 != 0 { reg::RCTL_MULTICAST } else { reg::RCTL_UNICAST };
        if rctl & all != 0 {
            return Some(Match::Inexact);
        }
        if to[0] & 1 == 0 {
            return None;
        }
        let shift = [4, 3, 2, 0][(rctl >> 12 & 3) as usize];
        let hash = (u16::from_le_bytes([to[4], to[5]]) >> shift & 0xfff) as u64;
        let bits = self.get(reg::MTA + (hash >> 5) * 4);
        (bits >> (hash & 31) & 1 != 0).then_some(Match::Inexact)
    }
    /// Bytes of the buffers of a descriptor.
    fn buffers(&self, form: Form) -> [usize; 4] {
        let rctl = self.get(reg::RCTL);
        if form == Form::Split {
            let v = self.get(reg::PSRCTL);
            let kib = |shift: u32| (v >> shift & 0x3f) as usize * 1024;
            return [(v & 0x7f) as usize * 128, kib(8), kib(16), kib(24)];
        }
        let flexible = (rctl >> 27 & 15) as usize * 1024;
        let size = match (rctl >> 16 & 3, rctl & reg::RCTL_BSEX != 0) {
            _ if flexible != 0 => flexible,
            (0, _) => 2048,
            (n, false) => 2048 >> n,
            (n, true) => 32768 >> n,
        };
        [size, 0, 0, 0]
    }
    /// The status of a frame's checksums.
    fn checksum_status(&self, p: &Packet) -> u32 {
        let rxcsum = self.get(reg::RXCSUM);
        let mut status = 0;
        if rxcsum & reg::RXCSUM_IP != 0 && p.ipv4 {
            status |= IPCS | if p.ip_good { 0 } else { IPE };
        }
        if rxcsum & reg::RXCSUM_L4 != 0 && p.l4_checked {
            status |= L4CS | if p.udp { UDPCS } else { 0 } | if p.l4_good { 0 } else { L4E };
        }
        if status == 0 { IXSM } else { status }
    }
}

/// What is told of a frame in its descriptors.
struct Told {
    status: u32,
    packet_checksum: u16,
    ip_id: u16,
    /// The place of identification and checksum is of the hash, which there is none.
    hash: bool,
    tag: u16,
}

impl Controller {
    /// A frame of the back end; false: it shall wait.
    pub(super) fn receive(&self, frame: &[u8]) -> bool {
        let delivery = {
            let s = &mut *self.state.lock();
            if s.paused {
                return false;
            }
            match self.deliver(s, frame) {
                Delivery::Done(causes) => Delivery::Done(self.vectors(s, causes)),
                other => other,
            }
        };
        match delivery {
            Delivery::Lost => true,
            Delivery::NoRoom => false,
            Delivery::Done(vectors) => {
                self.interrupt(vectors);
                true
            }
        }
    }

    fn deliver(&self, s: &mut State, frame: &[u8]) -> Delivery {
        let rctl = s.get(reg::RCTL);
        if rctl & reg::RCTL_ENABLE == 0 || !self.dma.enabled() || frame.len() < 14 {
            return Delivery::Lost;
        }
        if frame.len() > if rctl & reg::RCTL_LONG != 0 { MAX_LONG } else { MAX_STANDARD } {
            s.count(reg::ROC, 1);
            return Delivery::Lost;
        }
        let Some(by) = s.address_match(frame) else { return Delivery::Lost };
        let tagged = u32::from(u16::from_be_bytes([frame[12], frame[13]])) == s.get(reg::VET) && frame.len() >= 18;
        let tag = if tagged { u16::from_be_bytes([frame[14], frame[15]]) } else { 0 };
        if tagged && rctl & reg::RCTL_VLAN_FILTER != 0 {
            let id = u64::from(tag & 0xfff);
            if s.get(reg::VFTA + (id >> 5) * 4) >> (id & 31) & 1 == 0 {
                return Delivery::Lost;
            }
        }
        let mut status = if by == Match::Inexact { PIF } else { 0 };
        let mut data = Vec::with_capacity(frame.len().max(MIN_FRAME) + 4);
        if tagged && s.get(reg::CTRL) & reg::CTRL_VME != 0 {
            data.extend_from_slice(&frame[..12]);
            data.extend_from_slice(&frame[16..]);
            status |= VP;
        } else {
            data.extend_from_slice(frame);
        }
        data.resize(data.len().max(MIN_FRAME), 0);
        let packet = Packet::parse(&data);
        status |= s.checksum_status(&packet);
        if rctl & reg::RCTL_STRIP_CRC == 0 {
            let check = checksum::frame_check(&data);
            data.extend(check);
        }
        let rxcsum = s.get(reg::RXCSUM);
        let hash = rxcsum & reg::RXCSUM_PCSD != 0;
        let skipped = data.get((rxcsum & 0xff) as usize..).unwrap_or(&[]);
        let told = Told {
            status,
            packet_checksum: if hash { 0 } else { checksum::fold(checksum::sum(skipped)) },
            ip_id: packet.ip_id,
            hash,
            tag: if status & VP != 0 { tag } else { 0 },
        };
        let delivery = self.place(s, &data, packet.headers, &told);
        if matches!(delivery, Delivery::Done(_)) {
            let len = frame.len().max(MIN_FRAME) + 4;
            s.count(reg::GPRC, 1);
            s.count(reg::TPR, 1);
            s.count64(reg::GORC, len);
            s.count64(reg::TOR, len);
            s.count_size(reg::PRC64, len);
            if frame[..6] == [0xff; 6] {
                s.count(reg::BPRC, 1);
            } else if frame[0] & 1 != 0 {
                s.count(reg::MPRC, 1);
            }
        }
        delivery
    }

    /// Puts a frame into the descriptors of queue 0; `headers` is the bytes of its headers, 0: none known.
    fn place(&self, s: &mut State, data: &[u8], headers: usize, told: &Told) -> Delivery {
        let rctl = s.get(reg::RCTL);
        let form = match (rctl >> 10 & 3, s.get(reg::RFCTL) & reg::RFCTL_EXTENDED != 0) {
            (1, _) => Form::Split,
            (_, true) => Form::Extended,
            _ => Form::Legacy,
        };
        let stride: u32 = if form == Form::Split { 32 } else { 16 };
        let sizes = s.buffers(form);
        let capacity: usize = sizes.iter().sum();
        let (base, count) = (s.get64(reg::RDBAL), s.get(reg::RDLEN) / stride);
        let (mut head, tail) = (s.get(reg::RDH), s.get(reg::RDT));
        if capacity == 0 || count == 0 || head >= count || tail >= count {
            log_guest_error!(self.log, &self.name, "reception is on without a ring and buffers");
            s.count(reg::MPC, 1);
            return Delivery::Lost;
        }
        let split = form == Form::Split && headers > 0 && headers <= sizes[0] && headers < data.len();
        let first = if split { headers + capacity - sizes[0] } else { capacity };
        if split && capacity == sizes[0] {
            s.count(reg::MPC, 1);
            return Delivery::Lost;
        }
        let need = 1 + data.len().saturating_sub(first).div_ceil(capacity);
        let free = (tail + count - head) % count;
        if need >= count as usize {
            s.count(reg::MPC, 1);
            return Delivery::Lost;
        }
        if need > free as usize {
            s.starved = true;
            return Delivery::NoRoom;
        }
        let mut rest = data;
        for n in 0..need {
            let place = base.wrapping_add(u64::from(head) * u64::from(stride));
            let mut addresses = [0u8; 32];
            if self.dma.read_ram(place, &mut addresses[..stride as usize]).is_err() {
                log_guest_error!(self.log, &self.name, "the receive ring is not in memory");
                return Delivery::Lost;
            }
            let mut lengths = [0u16; 4];
            for (i, address) in addresses.as_chunks::<8>().0.iter().enumerate() {
                let room = if split && n == 0 && i == 0 { headers } else { sizes[i] };
                let (now, later) = rest.split_at(room.min(rest.len()));
                if !now.is_empty() && self.dma.write_ram(u64::from_le_bytes(*address), now).is_err() {
                    log_guest_error!(self.log, &self.name, "a receive buffer is not in memory");
                }
                lengths[i] = now.len() as u16;
                rest = later;
            }
            let last = n + 1 == need;
            let header = if split && n == 0 { headers as u16 | HEADER_SPLIT } else { 0 };
            if !self.write_back(place, form, &lengths, header, told, last) {
                return Delivery::Lost;
            }
            head = if head + 1 == count { 0 } else { head + 1 };
        }
        s.set(reg::RDH, head);
        let left = free - need as u32;
        let low = left <= count >> ((rctl >> 8 & 3) + 1);
        Delivery::Done(reg::INT_RXT0 | reg::INT_RXQ0 | if low { reg::INT_RXDMT0 } else { 0 })
    }

    /// Writes a descriptor back, its status last.
    fn write_back(&self, place: u64, form: Form, lengths: &[u16; 4], header: u16, told: &Told, last: bool) -> bool {
        let mut d = [0; 32];
        let mut put = |at: usize, value: u16| d[at..at + 2].copy_from_slice(&value.to_le_bytes());
        let (status_at, len) = if form == Form::Legacy {
            put(8, lengths[0]);
            put(10, told.packet_checksum);
            put(14, told.tag);
            (12, 16)
        } else {
            if !told.hash {
                put(4, told.ip_id);
                put(6, told.packet_checksum);
            }
            put(12, lengths[0]);
            put(14, told.tag);
            if form == Form::Split {
                put(16, header);
                for (i, length) in lengths.iter().enumerate().skip(1) {
                    put(16 + 2 * i, *length);
                }
            }
            (8, if form == Form::Split { 32 } else { 16 })
        };
        let status = if last { told.status | DD | EOP } else { DD };
        let status = status.to_le_bytes();
        // Legacy descriptors have the address where others have nothing, and 8 bits of status and of errors.
        let from = if form == Form::Legacy { 8 } else { 0 };
        let written = self.dma.write_ram(place.wrapping_add(from), &d[from as usize..len]).is_ok();
        fence(Ordering::Release);
        let (status, errors) = if form == Form::Legacy { (&status[..1], Some(status[3])) } else { (&status[..], None) };
        if let Some(errors) = errors {
            let _ = self.dma.write_ram(place.wrapping_add(status_at + 1), &[errors]);
        }
        written && self.dma.write_ram(place.wrapping_add(status_at), status).is_ok()
    }
}
