//! The DHCP server (RFC 2131): one small pool, leases for a day.

use super::packet;
use crate::UserOptions;
use std::net::Ipv4Addr;

pub(super) const SERVER_PORT: u16 = 67;
pub(super) const CLIENT_PORT: u16 = 68;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
const FIXED: usize = 240;
/// Addresses in the pool.
const LEASES: usize = 16;
const LEASE_SECONDS: u32 = 86_400;

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;
const INFORM: u8 = 8;

/// The server's leases.
pub(super) struct Server {
    leases: Vec<[u8; 6]>,
}

/// An answer: the payload of the datagram and the address it leases.
pub(super) struct Answer {
    pub payload: Vec<u8>,
    pub client: Ipv4Addr,
    pub mac: [u8; 6],
}

fn option(options: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut rest = options;
    loop {
        let (&code, after) = rest.split_first()?;
        match code {
            0 => rest = after,
            255 => return None,
            _ => {
                let (&len, after) = after.split_first()?;
                let value = after.get(..usize::from(len))?;
                if code == wanted {
                    return Some(value);
                }
                rest = &after[usize::from(len)..];
            }
        }
    }
}

/// The addresses handed out, in turn: from the first on, within the network, none that is taken.
fn pool(options: &UserOptions) -> impl Iterator<Item = Ipv4Addr> {
    let mask = u32::MAX << (32 - u32::from(options.prefix));
    let last = u32::from(options.network) | !mask;
    let (host, dns) = (options.host, options.dns);
    (u32::from(options.dhcp_start)..last).map(Ipv4Addr::from).filter(move |a| *a != host && *a != dns).take(LEASES)
}

/// Search domains as option 119 has them (RFC 3397), without compression.
fn search_list(domains: &[String]) -> Vec<u8> {
    let mut list = Vec::new();
    for domain in domains {
        for label in domain.split('.') {
            list.push(label.len() as u8);
            list.extend(label.as_bytes());
        }
        list.push(0);
    }
    list
}

impl Server {
    pub(super) fn new() -> Self {
        Self { leases: Vec::new() }
    }
    /// The address of a client: always the same one, the first free for a new client.
    fn lease(&mut self, options: &UserOptions, mac: [u8; 6]) -> Option<Ipv4Addr> {
        let index = match self.leases.iter().position(|m| *m == mac) {
            Some(i) => i,
            None if self.leases.len() < LEASES => {
                self.leases.push(mac);
                self.leases.len() - 1
            }
            None => return None,
        };
        pool(options).nth(index)
    }
    /// Answers a client's message; `None`: no answer.
    pub(super) fn answer(&mut self, options: &UserOptions, message: &[u8]) -> Option<Answer> {
        if message.len() < FIXED
            || message[0] != 1
            || message[1] != 1
            || message[2] != 6
            || message[236..FIXED] != MAGIC
        {
            return None;
        }
        let given = &message[FIXED..];
        let mac = *message[28..34].first_chunk::<6>()?;
        let kind = *option(given, 53)?.first()?;
        let server = option(given, 54).and_then(|v| <[u8; 4]>::try_from(v).ok());
        if server.is_some_and(|s| s != options.host.octets()) {
            // The client chose another server.
            return None;
        }
        let reply = match kind {
            DISCOVER => OFFER,
            REQUEST | INFORM => ACK,
            _ => return None,
        };
        let mut address = self.lease(options, mac)?;
        let mut reply = reply;
        if kind == REQUEST {
            let current = <[u8; 4]>::try_from(&message[12..16]).ok()?;
            let wanted = option(given, 50).and_then(|v| <[u8; 4]>::try_from(v).ok()).unwrap_or(current);
            if wanted != address.octets() {
                reply = NAK;
            }
        }
        let mut p = vec![0; FIXED];
        p[0] = 2;
        p[1] = 1;
        p[2] = 6;
        // Transaction id, flags, hardware address.
        p[4..8].copy_from_slice(&message[4..8]);
        p[10..12].copy_from_slice(&message[10..12]);
        p[28..44].copy_from_slice(&message[28..44]);
        p[236..].copy_from_slice(&MAGIC);
        let mut add = |code: u8, value: &[u8]| {
            p.extend([code, value.len().min(255) as u8]);
            p.extend(&value[..value.len().min(255)]);
        };
        add(53, &[reply]);
        add(54, &options.host.octets());
        if reply == NAK {
            address = Ipv4Addr::BROADCAST;
        } else {
            let mask = u32::MAX << (32 - u32::from(options.prefix));
            add(1, &mask.to_be_bytes());
            if !options.restrict {
                add(3, &options.host.octets());
                add(6, &options.dns.octets());
            }
            if kind != INFORM {
                add(51, &LEASE_SECONDS.to_be_bytes());
            }
            if let Some(name) = &options.tftp_server {
                add(66, name.as_bytes());
            }
            if let Some(file) = &options.bootfile {
                add(67, file.as_bytes());
            }
            if let Some(name) = &options.hostname {
                add(12, name.as_bytes());
            }
            if let Some(domain) = &options.domain {
                add(15, domain.as_bytes());
            }
            // An option longer than 255 bytes comes in parts (RFC 3396).
            for part in search_list(&options.search).chunks(255) {
                add(119, part);
            }
            if kind == INFORM {
                address = Ipv4Addr::from(*message[12..16].first_chunk::<4>()?);
            } else {
                p[16..20].copy_from_slice(&address.octets());
            }
            p[20..24].copy_from_slice(&options.host.octets());
            // The boot file where BOOTP has it, for firmware (RFC 2131, section 2).
            if let Some(file) = &options.bootfile {
                p[108..108 + file.len()].copy_from_slice(file.as_bytes());
            }
        }
        p.push(255);
        // Some clients drop what is shorter than a BOOTP message.
        let len = p.len().max(300);
        p.resize(len, 0);
        Some(Answer { payload: p, client: address, mac })
    }
}

impl Answer {
    /// The answer in a frame. It is broadcast: the client may have no address yet.
    pub(super) fn frame(&self, options: &UserOptions, from: [u8; 6]) -> Vec<u8> {
        packet::udp_frame(
            self.mac,
            from,
            (options.host, SERVER_PORT),
            (Ipv4Addr::BROADCAST, CLIENT_PORT),
            &self.payload,
        )
    }
}
