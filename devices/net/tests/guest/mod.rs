//! A guest made of hand-made frames.
#![allow(dead_code, reason = "each test file uses a part")]

use rhea_net::user::UserNet;
use rhea_net::{NetBackend, NetFrontend, Offload, Offloads, UserOptions};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
pub const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
pub const WAIT: Duration = Duration::from_secs(10);

pub fn be16(b: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([b[at], b[at + 1]])
}
pub fn be32(b: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}
pub fn ip_at(b: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(b[at], b[at + 1], b[at + 2], b[at + 3])
}

/// One's complement sum, word by word as the RFC has it.
pub fn sum(data: &[u8], start: u32) -> u16 {
    let mut s = start;
    for w in data.chunks(2) {
        s += u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0));
        s = (s & 0xffff) + (s >> 16);
    }
    s as u16
}
pub fn pseudo(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, len: usize) -> u32 {
    let head = [&src.octets()[..], &dst.octets()[..], &[0, protocol], &(len as u16).to_be_bytes()[..]].concat();
    u32::from(sum(&head, 0))
}

struct Card {
    frames: Mutex<Sender<(Vec<u8>, Offload)>>,
    full: AtomicBool,
}

impl NetFrontend for Card {
    fn receive(&self, frame: &[u8], offload: Offload) -> bool {
        if self.full.load(Ordering::SeqCst) {
            return false;
        }
        let _ = self.frames.lock().unwrap().send((frame.to_vec(), offload));
        true
    }
}

pub struct Guest {
    pub net: Arc<UserNet>,
    card: Arc<Card>,
    frames: Receiver<(Vec<u8>, Offload)>,
    /// Where frames for the host go.
    pub gateway_mac: [u8; 6],
}

impl Guest {
    pub fn new(options: &UserOptions) -> Self {
        Self::with_offloads(options, Offloads::default())
    }
    pub fn with_offloads(options: &UserOptions, offloads: Offloads) -> Self {
        let net = UserNet::new(options).unwrap();
        let (tx, frames) = channel();
        let card = Arc::new(Card { frames: Mutex::new(tx), full: AtomicBool::new(false) });
        net.set_frontend(card.clone());
        net.set_frontend_offloads(offloads);
        let mut guest = Self { net, card, frames, gateway_mac: [0xff; 6] };
        guest.gateway_mac = guest.resolve(GATEWAY).unwrap();
        guest
    }
    /// Takes nothing from now on, or takes frames again.
    pub fn set_full(&self, full: bool) {
        self.card.full.store(full, Ordering::SeqCst);
        if !full {
            self.net.receive_ready();
        }
    }
    pub fn send(&self, frame: &[u8]) {
        self.net.send(frame, Offload::default());
        self.net.flush();
    }
    pub fn next(&self, wait: Duration) -> Option<(Vec<u8>, Offload)> {
        self.frames.recv_timeout(wait).ok()
    }
    /// The first frame that `pick` likes; answers ARP requests meanwhile.
    pub fn expect<T>(&self, wait: Duration, mut pick: impl FnMut(&[u8], Offload) -> Option<T>) -> Option<T> {
        let end = Instant::now() + wait;
        while let Some((frame, offload)) = self.next(end.saturating_duration_since(Instant::now())) {
            if be16(&frame, 12) == 0x806 && frame[21] == 1 && ip_at(&frame, 38) == IP {
                self.send(&arp(2, IP, ip_at(&frame, 28)));
            } else if let Some(t) = pick(&frame, offload) {
                return Some(t);
            }
        }
        None
    }
    pub fn resolve(&self, ip: Ipv4Addr) -> Option<[u8; 6]> {
        self.send(&arp(1, IP, ip));
        self.expect(Duration::from_millis(if ip == GATEWAY || ip == DNS { 1000 } else { 200 }), |f, _| {
            (be16(f, 12) == 0x806 && f[21] == 2 && ip_at(f, 28) == ip && f[32..38] == MAC)
                .then(|| f[22..28].try_into().unwrap())
        })
    }
    pub fn udp(&self, sport: u16, dst: (Ipv4Addr, u16), data: &[u8]) {
        self.send(&udp(self.gateway_mac, (IP, sport), dst, data));
    }
    /// The next datagram for a port: source and data.
    pub fn expect_udp(&self, port: u16, wait: Duration) -> Option<((Ipv4Addr, u16), Vec<u8>)> {
        self.expect(wait, |f, _| {
            let (src, dst, payload) = ipv4_of(f, 17)?;
            assert_eq!(sum(payload, pseudo(src, dst, 17, payload.len())), 0xffff, "UDP checksum");
            (be16(payload, 2) == port)
                .then(|| ((src, be16(payload, 0)), payload[8..usize::from(be16(payload, 4))].to_vec()))
        })
    }
}

pub fn arp(operation: u8, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut f = [
        &[0xff; 6][..],
        &MAC,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation],
        &MAC,
        &sender.octets(),
        &[0; 6],
        &target.octets(),
    ]
    .concat();
    f.resize(60, 0);
    f
}

pub fn ipv4(to: [u8; 6], src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    fragment(to, src, dst, protocol, payload, 1, 0x4000)
}

pub fn fragment(
    to: [u8; 6],
    src: Ipv4Addr,
    dst: Ipv4Addr,
    protocol: u8,
    payload: &[u8],
    id: u16,
    word: u16,
) -> Vec<u8> {
    let mut h = vec![0x45, 0];
    h.extend((20 + payload.len() as u16).to_be_bytes());
    h.extend(id.to_be_bytes());
    h.extend(word.to_be_bytes());
    h.extend([64, protocol, 0, 0]);
    h.extend(src.octets());
    h.extend(dst.octets());
    let c = !sum(&h, 0);
    h[10..12].copy_from_slice(&c.to_be_bytes());
    [&to[..], &MAC, &[8, 0], &h, payload].concat()
}

pub fn udp_packet(src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16), data: &[u8]) -> Vec<u8> {
    let mut u = [src.1.to_be_bytes(), dst.1.to_be_bytes(), (8 + data.len() as u16).to_be_bytes(), [0, 0]].concat();
    u.extend(data);
    let c = !sum(&u, pseudo(src.0, dst.0, 17, u.len()));
    u[6..8].copy_from_slice(&c.to_be_bytes());
    u
}

pub fn udp(to: [u8; 6], src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16), data: &[u8]) -> Vec<u8> {
    ipv4(to, src.0, dst.0, 17, &udp_packet(src, dst, data))
}

/// Source, destination and payload of an IPv4 frame of a protocol, whose header must be right.
pub fn ipv4_of(f: &[u8], protocol: u8) -> Option<(Ipv4Addr, Ipv4Addr, &[u8])> {
    if be16(f, 12) != 0x800 || f[23] != protocol {
        return None;
    }
    assert_eq!(f[14], 0x45);
    assert_eq!(sum(&f[14..34], 0), 0xffff, "IPv4 header checksum");
    let total = usize::from(be16(f, 16));
    Some((ip_at(f, 26), ip_at(f, 30), &f[34..14 + total]))
}
