//! A guest's TCP connection on a wire that loses nothing.
#![allow(dead_code, reason = "each test file uses a part")]

use super::guest::*;
use rhea_net::{NetBackend, Offload, Offloads};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;
pub const MSS: usize = 1460;

pub struct Segment {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub data: Vec<u8>,
    pub options: Vec<u8>,
    pub from: (Ipv4Addr, u16),
    pub to: u16,
}

pub fn parse(f: &[u8], offload: Offload, offloads: Offloads) -> Option<Segment> {
    let (src, dst, p) = ipv4_of(f, 6)?;
    let start = usize::from(p[12] >> 4) * 4;
    if offload.flags & Offload::NEEDS_CHECKSUM != 0 {
        assert!(offloads.checksum);
        assert_eq!((offload.checksum_start, offload.checksum_offset), (34, 16));
        assert_eq!(be16(p, 16), sum(&[], pseudo(src, dst, 6, p.len())), "sum of the pseudo header");
    } else {
        assert_eq!(sum(p, pseudo(src, dst, 6, p.len())), 0xffff, "TCP checksum");
    }
    match offload.gso_type {
        Offload::GSO_NONE => assert!(p.len() - start <= MSS, "{} bytes", p.len() - start),
        Offload::GSO_TCPV4 => {
            assert!(offloads.tso4);
            assert_eq!((usize::from(offload.gso_size), usize::from(offload.header_len)), (MSS, 34 + start));
        }
        other => panic!("segmentation {other}"),
    }
    Some(Segment {
        seq: be32(p, 4),
        ack: be32(p, 8),
        flags: p[13],
        window: be16(p, 14),
        data: p[start..].to_vec(),
        options: p[20..start].to_vec(),
        from: (src, be16(p, 0)),
        to: be16(p, 2),
    })
}

pub struct Tcp<'a> {
    pub guest: &'a Guest,
    pub offloads: Offloads,
    pub local: u16,
    pub remote: (Ipv4Addr, u16),
    pub seq: u32,
    pub ack: u32,
    /// What the host acknowledged, and its window.
    pub acked: u32,
    pub window: u32,
    pub scale: u8,
    /// FIN received, RST received.
    pub fin: bool,
    pub reset: bool,
    pub received: Vec<u8>,
}

impl<'a> Tcp<'a> {
    pub fn frame(&self, flags: u8, seq: u32, options: &[u8], data: &[u8]) -> Vec<u8> {
        let mut p = [self.local.to_be_bytes(), self.remote.1.to_be_bytes()].concat();
        p.extend(seq.to_be_bytes());
        p.extend(if flags & ACK != 0 { self.ack } else { 0 }.to_be_bytes());
        p.extend([((20 + options.len()) * 4) as u8, flags, 0xff, 0xff, 0, 0, 0, 0]);
        p.extend(options);
        p.extend(data);
        let c = !sum(&p, pseudo(IP, self.remote.0, 6, p.len()));
        p[16..18].copy_from_slice(&c.to_be_bytes());
        ipv4(self.guest.gateway_mac, IP, self.remote.0, 6, &p)
    }
    pub fn send(&self, flags: u8, data: &[u8]) {
        self.guest.send(&self.frame(flags, self.seq, &[], data));
    }
    fn blank(guest: &'a Guest, offloads: Offloads, local: u16, remote: (Ipv4Addr, u16)) -> Self {
        let seq = 0xffff_f000;
        Self {
            guest,
            offloads,
            local,
            remote,
            seq,
            ack: 0,
            acked: seq,
            window: 0,
            scale: 0,
            fin: false,
            reset: false,
            received: Vec::new(),
        }
    }
    /// Opens a connection; `None` if it is refused or not answered.
    pub fn connect(guest: &'a Guest, offloads: Offloads, local: u16, remote: (Ipv4Addr, u16)) -> Option<Self> {
        let mut t = Self::blank(guest, offloads, local, remote);
        guest.send(&t.frame(SYN, t.seq, &[2, 4, 5, 0xb4, 1, 3, 3, 7], &[]));
        let s = guest.expect(WAIT, |f, o| parse(f, o, offloads).filter(|s| s.to == local))?;
        assert_eq!(s.from, remote);
        if s.flags & RST != 0 {
            assert_eq!(s.ack, t.seq.wrapping_add(1));
            return None;
        }
        assert_eq!((s.flags, s.ack), (SYN | ACK, t.seq.wrapping_add(1)));
        t.opened(&s);
        t.send(ACK, &[]);
        Some(t)
    }
    /// Answers the next connection from the host.
    pub fn accept(guest: &'a Guest, offloads: Offloads, local: u16) -> Option<Self> {
        let s = guest.expect(WAIT, |f, o| parse(f, o, offloads).filter(|s| s.to == local && s.flags == SYN))?;
        let mut t = Self::blank(guest, offloads, local, s.from);
        t.ack = s.seq.wrapping_add(1);
        guest.send(&t.frame(SYN | ACK, t.seq, &[2, 4, 5, 0xb4, 1, 3, 3, 7], &[]));
        t.opened(&s);
        let s = guest.expect(WAIT, |f, o| parse(f, o, offloads).filter(|s| s.to == local))?;
        t.take(&s);
        Some(t)
    }
    fn opened(&mut self, syn: &Segment) {
        self.seq = self.seq.wrapping_add(1);
        self.acked = self.seq;
        self.ack = syn.seq.wrapping_add(1);
        self.window = u32::from(syn.window);
        if let Some(at) = syn.options.windows(2).position(|w| w == [3, 3]) {
            self.scale = syn.options[at + 2];
        }
    }
    pub fn take(&mut self, s: &Segment) {
        if s.flags & RST != 0 {
            self.reset = true;
            return;
        }
        if s.flags & ACK != 0 {
            self.acked = s.ack;
            self.window = u32::from(s.window) << if s.flags & SYN != 0 { 0 } else { self.scale };
        }
        if s.seq != self.ack {
            // Sent again: nothing is lost on this wire, so it must be old.
            assert!((self.ack.wrapping_sub(s.seq) as i32) > 0, "a gap");
            return;
        }
        self.received.extend(&s.data);
        self.ack = self.ack.wrapping_add(s.data.len() as u32);
        if s.flags & FIN != 0 {
            self.ack = self.ack.wrapping_add(1);
            self.fin = true;
        }
        if !s.data.is_empty() || s.flags & FIN != 0 {
            self.send(ACK, &[]);
        }
    }
    /// Waits for a segment; false if none came.
    pub fn step(&mut self, wait: Duration) -> bool {
        let (offloads, local) = (self.offloads, self.local);
        match self.guest.expect(wait, |f, o| parse(f, o, offloads).filter(|s| s.to == local)) {
            Some(s) => {
                self.take(&s);
                true
            }
            None => false,
        }
    }
    pub fn until(&mut self, done: impl Fn(&Self) -> bool) {
        let end = Instant::now() + WAIT;
        while !done(self) {
            assert!(self.step(end.saturating_duration_since(Instant::now())), "timed out");
        }
    }
    /// Sends all of `data` within the host's window, in segments of `size` bytes.
    pub fn write(&mut self, data: &[u8], size: usize) {
        let mut rest = data;
        while !rest.is_empty() {
            let room = self.acked.wrapping_add(self.window).wrapping_sub(self.seq) as i32;
            let n = rest.len().min(size).min(room.max(0) as usize);
            if n == 0 {
                assert!(self.step(WAIT), "the window stays shut");
                continue;
            }
            let gso = n > MSS;
            let frame = self.frame(ACK | PSH, self.seq, &[], &rest[..n]);
            let offload = Offload {
                flags: Offload::NEEDS_CHECKSUM,
                gso_type: if gso { Offload::GSO_TCPV4 } else { Offload::GSO_NONE },
                header_len: 54,
                gso_size: if gso { MSS as u16 } else { 0 },
                checksum_start: 34,
                checksum_offset: 16,
            };
            self.guest.net.send(&frame, offload);
            self.guest.net.flush();
            self.seq = self.seq.wrapping_add(n as u32);
            rest = &rest[n..];
            while self.step(Duration::ZERO) {}
        }
    }
    /// Sends FIN and waits until it is acknowledged.
    pub fn close(&mut self) {
        self.send(FIN | ACK, &[]);
        self.seq = self.seq.wrapping_add(1);
        self.until(|t| t.acked == t.seq || t.reset);
    }
}
