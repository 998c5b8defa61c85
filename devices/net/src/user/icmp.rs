//! ICMP echo: the host answers for itself; echoes to others leave through the host's unprivileged echo sockets, if it has them.

use super::packet::{self, ETHERNET, IPV4, be16};
use super::watch::Watch;
use super::wire::{HOST_MAC, Wire};
use super::{Keys, Nat};
use polling::Poller;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO: u8 = 8;
/// Destination unreachable: communication administratively prohibited.
const PROHIBITED: u8 = 13;
const HEADER: usize = 8;
/// Pingers of the guest at once; the one idle longest makes room.
const FLOWS: usize = 64;
const IDLE: Duration = Duration::from_secs(30);
const BURST: usize = 64;

struct Flow {
    /// An echo socket of the host; datagrams are echo messages.
    socket: Watch<UdpSocket>,
    guest: (Ipv4Addr, u16),
    last: Instant,
}

/// The guest's pingers.
pub(super) struct Echo {
    flows: HashMap<usize, Flow>,
    by_guest: HashMap<(Ipv4Addr, u16), usize>,
    poller: Arc<Poller>,
}

fn echo_socket() -> io::Result<UdpSocket> {
    Ok(UdpSocket::from(rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        Some(ipproto::ICMP),
    )?))
}

/// An ICMP message to the guest in a frame; the checksum is filled in.
fn message(to: [u8; 6], from: Ipv4Addr, guest: Ipv4Addr, body: &[u8]) -> Vec<u8> {
    let mut frame = packet::ip_frame(to, HOST_MAC, from, guest, packet::ICMP_PROTOCOL, body.len());
    let icmp = &mut frame[ETHERNET + IPV4..];
    icmp.copy_from_slice(body);
    icmp[2..4].fill(0);
    let c = packet::checksum(icmp);
    icmp[2..4].copy_from_slice(&c.to_be_bytes());
    frame
}

impl Echo {
    pub(super) fn new(poller: Arc<Poller>) -> Self {
        Self { flows: HashMap::new(), by_guest: HashMap::new(), poller }
    }
    pub(super) fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }
    /// An ICMP message of the guest, as a frame.
    pub(super) fn packet(&mut self, keys: &mut Keys, nat: &mut Nat, wire: &mut Wire, mac: [u8; 6], frame: &[u8]) {
        let Some(ip) = frame.get(ETHERNET..).and_then(packet::Ip::parse) else { return };
        if ip.payload.first() != Some(&ECHO) || ip.payload.len() < HEADER {
            return;
        }
        let options = &nat.options;
        if ip.dst == options.host || ip.dst == options.dns {
            let mut echo = ip.payload.to_vec();
            echo[0] = ECHO_REPLY;
            wire.output.send_packet(message(mac, ip.dst, ip.src, &echo));
            return;
        }
        let Some(to) = nat.outward(ip.dst, 0) else { return };
        let sent = !nat.options.restrict
            && self.send(keys, (ip.src, be16(ip.payload, 4).unwrap_or(0)), *to.ip(), ip.payload).is_ok();
        if !sent {
            // With the packet's header and first bytes.
            let original = &frame[ETHERNET..];
            let header = usize::from(original[0] & 15) * 4;
            let mut unreachable = vec![UNREACHABLE, PROHIBITED, 0, 0, 0, 0, 0, 0];
            unreachable.extend(original.get(..header + 8).unwrap_or_default());
            wire.output.send_packet(message(mac, nat.options.host, ip.src, &unreachable));
        }
    }
    fn send(&mut self, keys: &mut Keys, guest: (Ipv4Addr, u16), to: Ipv4Addr, echo: &[u8]) -> io::Result<()> {
        let key = match self.by_guest.get(&guest) {
            Some(key) => *key,
            None => {
                if self.flows.len() >= FLOWS
                    && let Some(oldest) = self.flows.iter().min_by_key(|(_, f)| f.last).map(|(k, _)| *k)
                {
                    self.remove(oldest);
                }
                let key = keys.next();
                let mut socket = Watch::new(echo_socket()?, self.poller.clone(), key);
                socket.set(true, false)?;
                self.flows.insert(key, Flow { socket, guest, last: Instant::now() });
                self.by_guest.insert(guest, key);
                key
            }
        };
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.last = Instant::now();
            match flow.socket.socket.send_to(echo, SocketAddrV4::new(to, 0)) {
                // Lost, as on a wire.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => (),
                other => drop(other?),
            }
        }
        Ok(())
    }
    fn remove(&mut self, key: usize) {
        if let Some(flow) = self.flows.remove(&key) {
            self.by_guest.remove(&flow.guest);
        }
    }
    /// The host has answers; false if the key is none of ours.
    pub(super) fn ready(&mut self, key: usize, wire: &mut Wire, buffer: &mut [u8]) -> bool {
        let Some(flow) = self.flows.get_mut(&key) else { return false };
        for _ in 0..BURST {
            match flow.socket.socket.recv_from(buffer) {
                Ok((n, SocketAddr::V4(from))) if n >= HEADER && buffer[0] == ECHO_REPLY => {
                    let Some(mac) = wire.output.resolve(flow.guest.0) else { continue };
                    // The host's socket has an identifier of its own.
                    buffer[4..6].copy_from_slice(&flow.guest.1.to_be_bytes());
                    wire.output.send_packet(message(mac, *from.ip(), flow.guest.0, &buffer[..n]));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                _ => (),
            }
        }
        true
    }
    /// Forgets idle pingers.
    pub(super) fn expire(&mut self) {
        let idle: Vec<_> = self.flows.iter().filter(|(_, f)| f.last.elapsed() > IDLE).map(|(k, _)| *k).collect();
        for key in idle {
            self.remove(key);
        }
    }
}
