//! Transmission: descriptors (82574 datasheet, 7.2), checksums, segmentation.

use super::{Controller, QUEUES, State, reg};
use crate::checksum;
use rhea_device::{log_guest_error, log_unimp};
use rhea_net::Offload;

/// Headers and 64 KiB of payload.
const MAX_PACKET: usize = 0x1_0000 + 0x200;
/// Frames and bytes that are collected before they are sent.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 0x4_0000;

const CMD_EOP: u32 = 1;
const CMD_IC: u32 = 1 << 2;
const CMD_TSE: u32 = 1 << 2;
const CMD_RS: u32 = 1 << 3;
const CMD_DEXT: u32 = 1 << 5;
const CMD_VLE: u32 = 1 << 6;
const POPTS_IP: u8 = 1;
const POPTS_L4: u8 = 2;
const TUCMD_TCP: u32 = 1;
const TUCMD_IPV4: u32 = 1 << 1;
const STATUS_DONE: u32 = 1;

/// The context descriptor as it was written.
#[derive(Clone, Copy, Default)]
pub struct Context(pub [u32; 4]);

/// Start, place and end (0: the packet's) of a checksum.
type Checksum = (usize, usize, usize);

impl Context {
    fn checksum(word: u32) -> Checksum {
        ((word & 0xff) as usize, (word >> 8 & 0xff) as usize, (word >> 16) as usize)
    }
    fn ip(self) -> Checksum {
        Self::checksum(self.0[0])
    }
    fn l4(self) -> Checksum {
        Self::checksum(self.0[1])
    }
    fn command(self) -> u32 {
        self.0[2] >> 24
    }
    fn header_len(self) -> usize {
        (self.0[3] >> 8 & 0xff) as usize
    }
    fn mss(self) -> usize {
        (self.0[3] >> 16) as usize
    }
}

/// A queue's context and the packet that its descriptors have told so far.
#[derive(Default)]
pub struct TxQueue {
    pub context: Context,
    pub packet: Vec<u8>,
    /// Descriptors of the packet were seen; options are of the first.
    pub open: bool,
    pub options: u8,
    pub segment: bool,
    /// It cannot be sent: too long, or not in memory.
    pub broken: bool,
}

/// A packet and what is to be done to it.
struct Packet {
    data: Vec<u8>,
    context: Context,
    options: u8,
    segment: bool,
    /// Of a legacy descriptor.
    checksum: Option<Checksum>,
    tag: Option<[u8; 4]>,
    pad: bool,
}

fn insert((start, at, end): Checksum, frame: &mut [u8]) {
    let end = if end == 0 { frame.len() } else { (end + 1).min(frame.len()) };
    checksum::insert(frame, start, at, end);
}

fn get<const N: usize>(data: &[u8], at: usize) -> [u8; N] {
    data.get(at..).and_then(|d| d.first_chunk()).copied().unwrap_or([0; N])
}

fn put(data: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = data.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

impl TxQueue {
    fn append(&mut self, dma: &rhea_device::DmaHandle, address: u64, len: usize) {
        let old = self.packet.len();
        if old + len > MAX_PACKET {
            self.broken = true;
        }
        if self.broken {
            return;
        }
        self.packet.resize(old + len, 0);
        self.broken = dma.read_ram(address, &mut self.packet[old..]).is_err();
    }
    /// Executes a descriptor; a packet if it was the last of one.
    fn descriptor(&mut self, dma: &rhea_device::DmaHandle, d: &[u32; 4]) -> Option<Packet> {
        let (address, command) = (u64::from(d[1]) << 32 | u64::from(d[0]), d[2] >> 24);
        let mut checksum = None;
        if command & CMD_DEXT == 0 {
            self.append(dma, address, (d[2] & 0xffff) as usize);
            let (start, at) = (d[3] >> 8 & 0xff, d[2] >> 16 & 0xff);
            checksum = (command & CMD_IC != 0).then_some((start as usize, at as usize, 0));
        } else if d[2] >> 20 & 15 == 0 {
            self.context = Context(*d);
            return None;
        } else {
            if !self.open {
                self.options = (d[3] >> 8) as u8;
                self.segment = command & CMD_TSE != 0;
            }
            self.append(dma, address, (d[2] & 0xf_ffff) as usize);
        }
        self.open = true;
        if command & CMD_EOP == 0 {
            return None;
        }
        let done = std::mem::replace(self, Self { context: self.context, ..Self::default() });
        if done.broken {
            return None;
        }
        let tag = (command & CMD_VLE != 0).then(|| {
            let [high, low] = ((d[3] >> 16) as u16).to_be_bytes();
            [0, 0, high, low]
        });
        Some(Packet {
            data: done.packet,
            context: done.context,
            options: done.options,
            segment: done.segment,
            checksum,
            tag,
            pad: false,
        })
    }
}

impl Packet {
    /// The frames of the packet, one after the other.
    fn frames(mut self, mut send: impl FnMut(&mut Vec<u8>)) -> bool {
        let c = self.context;
        if !self.segment {
            if let Some(sum) = self.checksum {
                insert(sum, &mut self.data);
            }
            if self.options & POPTS_IP != 0 {
                insert(c.ip(), &mut self.data);
            }
            if self.options & POPTS_L4 != 0 {
                insert(c.l4(), &mut self.data);
            }
            send(&mut self.data);
            return true;
        }
        let (header, mss) = (c.header_len(), c.mss());
        let Some((head, payload)) = self.data.split_at_checked(header) else { return false };
        if header < 14 || mss == 0 || payload.is_empty() {
            return false;
        }
        let (ip, l4) = (c.ip().0, c.l4().0);
        let (tcp, ipv4) = (c.command() & TUCMD_TCP != 0, c.command() & TUCMD_IPV4 != 0);
        let id = u16::from_be_bytes(get(head, ip + 4));
        let sequence = u32::from_be_bytes(get(head, l4 + 4));
        let pieces = payload.len().div_ceil(mss);
        let mut frame = Vec::with_capacity(header + mss.min(payload.len()) + 4);
        for (n, piece) in payload.chunks(mss).enumerate() {
            frame.clear();
            frame.extend_from_slice(head);
            frame.extend_from_slice(piece);
            let len = frame.len();
            let ip_len = len.saturating_sub(ip) as u16;
            if ipv4 {
                put(&mut frame, ip + 2, &ip_len.to_be_bytes());
                put(&mut frame, ip + 4, &id.wrapping_add(n as u16).to_be_bytes());
            } else {
                put(&mut frame, ip + 4, &ip_len.saturating_sub(40).to_be_bytes());
            }
            let l4_len = len.saturating_sub(l4) as u16;
            if tcp {
                put(&mut frame, l4 + 4, &sequence.wrapping_add((n * mss) as u32).to_be_bytes());
                if n + 1 < pieces {
                    // FIN and PSH are of the last segment.
                    let [flags] = get(&frame, l4 + 13);
                    put(&mut frame, l4 + 13, &[flags & !9]);
                }
            } else {
                put(&mut frame, l4 + 4, &l4_len.to_be_bytes());
            }
            if self.options & POPTS_IP != 0 {
                insert(c.ip(), &mut frame);
            }
            if self.options & POPTS_L4 != 0 {
                // The driver's pseudo header is without the length.
                let at = c.l4().1;
                let pseudo = u64::from(u16::from_be_bytes(get(&frame, at))) + u64::from(l4_len);
                put(&mut frame, at, &checksum::fold(pseudo).to_be_bytes());
                insert(c.l4(), &mut frame);
            }
            send(&mut frame);
        }
        true
    }
}

impl Controller {
    /// Sends what the ring of `queue` holds. Whoever moves the tail comes here, so going once around is enough.
    pub(super) fn transmit(&self, queue: usize) {
        let (mut causes, mut left, mut sent) = (0, 0x1_0000, false);
        {
            let _order = self.sending.lock();
            loop {
                let mut packets = Vec::new();
                let (more, loopback) = {
                    let s = &mut *self.state.lock();
                    let more = self.collect(s, queue, &mut left, &mut packets, &mut causes);
                    (more, s.get(reg::RCTL) >> 6 & 3 != 0)
                };
                if loopback && !packets.is_empty() {
                    log_unimp!(self.log, &self.name, "loopback: frames are lost");
                } else {
                    for p in packets {
                        self.send(p);
                        sent = true;
                    }
                }
                if !more {
                    break;
                }
            }
        }
        if sent {
            self.backend.flush();
        }
        if causes != 0 {
            self.cause(causes);
        }
    }

    /// Executes descriptors until there is a batch of packets; true: there may be more.
    fn collect(
        &self,
        s: &mut State,
        queue: usize,
        left: &mut u32,
        packets: &mut Vec<Packet>,
        causes: &mut u32,
    ) -> bool {
        let at = queue as u64 * reg::QUEUE;
        let (base, count) = (s.get64(reg::TDBAL + at), s.get(reg::TDLEN + at) / 16);
        let (mut head, tail) = (s.get(reg::TDH + at), s.get(reg::TDT + at));
        if s.paused || s.get(reg::TCTL) & reg::TCTL_ENABLE == 0 || head == tail || !self.dma.enabled() {
            return false;
        }
        if head >= count || tail >= count || queue >= QUEUES {
            log_guest_error!(self.log, &self.name, "head or tail outside of transmit ring {queue}");
            return false;
        }
        let (vlan, pad) = (s.get(reg::CTRL) & reg::CTRL_VME != 0, s.get(reg::TCTL) & reg::TCTL_PAD != 0);
        let [_, _, high, low] = s.get(reg::VET).to_be_bytes();
        let mut bytes = 0;
        while head != tail && *left > 0 && packets.len() < BATCH && bytes < BATCH_BYTES {
            let place = base.wrapping_add(u64::from(head) * 16);
            let mut raw = [0; 16];
            if self.dma.read_ram(place, &mut raw).is_err() {
                log_guest_error!(self.log, &self.name, "transmit ring {queue} is not in memory");
                s.set(reg::TDH + at, head);
                return false;
            }
            let mut d = [0; 4];
            for (word, b) in d.iter_mut().zip(raw.as_chunks::<4>().0) {
                *word = u32::from_le_bytes(*b);
            }
            let Some(q) = s.tx.get_mut(queue) else { return false };
            if let Some(mut p) = q.descriptor(&self.dma, &d) {
                bytes += p.data.len();
                p.tag = p.tag.filter(|_| vlan).map(|[_, _, a, b]| [high, low, a, b]);
                p.pad = pad;
                packets.push(p);
            }
            if d[2] >> 24 & CMD_RS != 0 {
                let _ = self.dma.write_ram(place + 12, &(d[3] | STATUS_DONE).to_le_bytes());
                *causes |= reg::INT_TXDW | reg::INT_TXQ0 << queue;
            }
            head = if head + 1 == count { 0 } else { head + 1 };
            *left -= 1;
        }
        s.set(reg::TDH + at, head);
        if head == tail {
            *causes |= reg::INT_TXQE;
        }
        head != tail && *left > 0
    }

    fn send(&self, packet: Packet) {
        let (tag, pad, segmented) = (packet.tag, packet.pad, packet.segment);
        let good = packet.frames(|frame| {
            if frame.len() < 14 {
                return;
            }
            if let Some(tag) = tag {
                frame.splice(12..12, tag);
            }
            if pad && frame.len() < 60 {
                frame.resize(60, 0);
            }
            {
                let s = &mut *self.state.lock();
                let len = frame.len() + 4;
                s.count(reg::GPTC, 1);
                s.count(reg::TPT, 1);
                s.count64(reg::GOTC, len);
                s.count64(reg::TOT, len);
                s.count_size(reg::PTC64, len);
                if frame[..6] == [0xff; 6] {
                    s.count(reg::BPTC, 1);
                } else if frame[0] & 1 != 0 {
                    s.count(reg::MPTC, 1);
                }
            }
            self.backend.send(frame, Offload::default());
        });
        if !good {
            log_guest_error!(self.log, &self.name, "impossible segmentation");
        } else if segmented {
            self.state.lock().count(reg::TSCTC, 1);
        }
    }
}
