//! UDP: one host socket for each of the guest's ports, answers from anyone.

use super::packet;
use super::watch::Watch;
use super::wire::{HOST_MAC, Wire};
use super::{Keys, Nat};
use polling::Poller;
use std::collections::HashMap as Map;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Flows at once; the one idle longest makes room.
const FLOWS: usize = 1024;
const IDLE: Duration = Duration::from_secs(60);
/// Datagrams taken from one socket in a row.
const BURST: usize = 64;

struct Flow {
    socket: Watch<UdpSocket>,
    guest: (Ipv4Addr, u16),
    last: Instant,
    /// A forwarded port: stays.
    forward: bool,
    /// Where the last datagram went, and what the guest calls that.
    last_to: Option<(SocketAddrV4, (Ipv4Addr, u16))>,
}

/// All flows.
pub(super) struct Udp {
    flows: Map<usize, Flow>,
    by_guest: Map<(Ipv4Addr, u16), usize>,
    poller: Arc<Poller>,
}

impl Udp {
    pub(super) fn new(poller: Arc<Poller>) -> Self {
        Self { flows: Map::new(), by_guest: Map::new(), poller }
    }
    /// Is there nothing that may become idle?
    pub(super) fn is_empty(&self) -> bool {
        self.flows.values().all(|f| f.forward)
    }
    fn add(&mut self, key: usize, socket: UdpSocket, guest: (Ipv4Addr, u16), forward: bool) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let mut socket = Watch::new(socket, self.poller.clone(), key);
        socket.set(true, false)?;
        self.flows.insert(key, Flow { socket, guest, last: Instant::now(), forward, last_to: None });
        self.by_guest.insert(guest, key);
        Ok(())
    }
    /// Connects a bound socket of the host with a port of the guest.
    pub(super) fn forward(&mut self, key: usize, socket: UdpSocket, guest: (Ipv4Addr, u16)) -> io::Result<()> {
        self.add(key, socket, guest, true)
    }
    fn make_room(&mut self) {
        if self.flows.len() < FLOWS {
            return;
        }
        let oldest = self.flows.iter().filter(|(_, f)| !f.forward).min_by_key(|(_, f)| f.last).map(|(k, _)| *k);
        if let Some(key) = oldest {
            self.remove(key);
        }
    }
    fn remove(&mut self, key: usize) {
        if let Some(flow) = self.flows.remove(&key) {
            // Two forwarded ports may lead to one port of the guest.
            if self.by_guest.get(&flow.guest) == Some(&key) {
                self.by_guest.remove(&flow.guest);
            }
        }
    }
    /// A datagram of the guest.
    pub(super) fn send(
        &mut self,
        keys: &mut Keys,
        nat: &mut Nat,
        guest: (Ipv4Addr, u16),
        to: (Ipv4Addr, u16),
        data: &[u8],
    ) {
        let forwarded = self.by_guest.get(&guest).and_then(|k| self.flows.get(k)).is_some_and(|f| f.forward);
        if nat.options.restrict && !forwarded {
            return;
        }
        let Some(address) = nat.outward(to.0, to.1) else { return };
        let key = match self.by_guest.get(&guest) {
            Some(key) => *key,
            None => {
                self.make_room();
                let key = keys.next();
                let made = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|s| self.add(key, s, guest, false));
                if made.is_err() {
                    return;
                }
                key
            }
        };
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.last = Instant::now();
            // Lost like on a wire if the host refuses it.
            let _ = flow.socket.socket.send_to(data, address);
            flow.last_to = Some((address, to));
        }
    }
    /// The host has datagrams for a flow; false if the key is none of ours.
    pub(super) fn ready(&mut self, key: usize, nat: &Nat, wire: &mut Wire, buffer: &mut [u8]) -> bool {
        let Some(flow) = self.flows.get_mut(&key) else { return false };
        for _ in 0..BURST {
            match flow.socket.socket.recv_from(buffer) {
                Ok((n, SocketAddr::V4(from))) => {
                    flow.last = Instant::now();
                    if flow.forward {
                        // Answers leave through the port the question came through.
                        self.by_guest.insert(flow.guest, key);
                    }
                    let Some(mac) = wire.output.resolve(flow.guest.0) else { continue };
                    let source = match flow.last_to {
                        // An answer comes from where the guest sent the question to.
                        Some((to, seen)) if to == from => seen,
                        _ => (nat.inward(*from.ip()), from.port()),
                    };
                    wire.output.send_packet(packet::udp_frame(mac, HOST_MAC, source, flow.guest, &buffer[..n]));
                }
                Ok(_) => (),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                // An ICMP error of an earlier datagram.
                Err(_) => (),
            }
        }
        true
    }
    /// Forgets idle flows.
    pub(super) fn expire(&mut self) {
        let now = Instant::now();
        let idle: Vec<_> = self
            .flows
            .iter()
            .filter(|(_, f)| !f.forward && now.duration_since(f.last) > IDLE)
            .map(|(k, _)| *k)
            .collect();
        for key in idle {
            self.remove(key);
        }
    }
}
