//! Between the guest's card and the TCP stack: outgoing frames, and smoltcp's device.

use super::fragments;
use super::packet::{self, BROADCAST, ETHERNET, TYPE_ARP, TYPE_IPV4};
use crate::{NetFrontend, Offload, Offloads};
use smoltcp::phy::{self, Checksum, DeviceCapabilities, Medium, PacketMeta};
use smoltcp::time::Instant;
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::num::NonZeroUsize;
use std::sync::Arc;

/// Frames kept while the guest takes none.
const BACKLOG: usize = 1024;
/// Guests' addresses remembered.
const NEIGHBOURS: usize = 64;
const MTU: usize = 1500;

/// The address of the host (and of all it stands for) on the guest's wire.
pub(super) const HOST_MAC: [u8; 6] = [0x52, 0x55, 0x0a, 0x00, 0x02, 0x02];

/// The way to the guest.
pub(super) struct Output {
    pub frontend: Option<Arc<dyn NetFrontend>>,
    pub offloads: Offloads,
    backlog: VecDeque<(Vec<u8>, Offload)>,
    neighbours: Vec<(Ipv4Addr, [u8; 6])>,
    pub host: Ipv4Addr,
    /// Identification of the last packet that was cut.
    id: u16,
}

impl Output {
    pub(super) fn new(host: Ipv4Addr) -> Self {
        Self {
            frontend: None,
            offloads: Offloads::default(),
            backlog: VecDeque::new(),
            neighbours: Vec::new(),
            host,
            id: 0,
        }
    }
    /// Does the guest hold frames up?
    pub(super) fn blocked(&self) -> bool {
        !self.backlog.is_empty()
    }
    /// Sends held frames, as many as the guest takes.
    pub(super) fn resume(&mut self) {
        let Some(frontend) = &self.frontend else { return };
        while let Some((frame, offload)) = self.backlog.front() {
            if !frontend.receive(frame, *offload) {
                break;
            }
            self.backlog.pop_front();
        }
    }
    pub(super) fn send(&mut self, frame: Vec<u8>, offload: Offload) {
        let taken = match &self.frontend {
            Some(frontend) if self.backlog.is_empty() => frontend.receive(&frame, offload),
            Some(_) => false,
            // No card yet.
            None => true,
        };
        if !taken && self.backlog.len() < BACKLOG {
            self.backlog.push_back((frame, offload));
        }
    }
    /// A frame whose checksums are right.
    pub(super) fn send_checked(&mut self, frame: Vec<u8>) {
        self.send(frame, Offload::default());
    }
    /// A packet whose checksums are right, cut into fragments if it is too long.
    pub(super) fn send_packet(&mut self, frame: Vec<u8>) {
        if frame.len() <= ETHERNET + MTU {
            return self.send_checked(frame);
        }
        self.id = self.id.wrapping_add(1);
        for piece in fragments::cut(&frame, MTU, self.id) {
            self.send_checked(piece);
        }
    }
    pub(super) fn learn(&mut self, ip: Ipv4Addr, mac: [u8; 6]) {
        if ip.is_unspecified() || mac[0] & 1 != 0 {
            return;
        }
        if let Some(known) = self.neighbours.iter_mut().find(|(i, _)| *i == ip) {
            known.1 = mac;
            return;
        }
        if self.neighbours.len() == NEIGHBOURS {
            self.neighbours.remove(0);
        }
        self.neighbours.push((ip, mac));
    }
    /// The guest's address on the wire; asks for it if it is unknown.
    pub(super) fn resolve(&mut self, ip: Ipv4Addr) -> Option<[u8; 6]> {
        let known = self.neighbours.iter().find(|(i, _)| *i == ip).map(|(_, mac)| *mac);
        if known.is_none() {
            let request = arp(1, self.host, HOST_MAC, ip, [0; 6], BROADCAST);
            self.send_checked(request);
        }
        known
    }
    /// Finishes a TCP/IPv4 frame of the stack, cut into packets of `size` bytes of payload if given.
    fn send_tcp(&mut self, mut frame: Vec<u8>, size: Option<u16>) {
        if let Some(size) = size {
            if self.offloads.tso4 {
                if let Some(offload) = packet::leave_to_receiver(&mut frame, Some(size)) {
                    self.send(frame, offload);
                }
                return;
            }
            for piece in packet::segment(&frame, usize::from(size)).unwrap_or_default() {
                self.send_tcp(piece, None);
            }
            return;
        }
        if self.offloads.checksum {
            // It never was on a wire: there is nothing to check, unless the guest sends it on.
            if let Some(offload) = packet::leave_to_receiver(&mut frame, None) {
                self.send(frame, offload);
            }
        } else if packet::finish_tcp(&mut frame).is_some() {
            self.send_checked(frame);
        }
    }
}

/// An ARP message in a frame.
pub(super) fn arp(
    operation: u16,
    sender: Ipv4Addr,
    sender_mac: [u8; 6],
    target: Ipv4Addr,
    target_mac: [u8; 6],
    to: [u8; 6],
) -> Vec<u8> {
    let mut f = vec![0; ETHERNET + 28];
    packet::ethernet(&mut f, to, sender_mac, TYPE_ARP);
    let a = &mut f[ETHERNET..];
    a[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, (operation >> 8) as u8, operation as u8]);
    a[8..14].copy_from_slice(&sender_mac);
    a[14..18].copy_from_slice(&sender.octets());
    a[18..24].copy_from_slice(&target_mac);
    a[24..28].copy_from_slice(&target.octets());
    f
}

/// smoltcp's device: IPv4 packets with room for an Ethernet header before them.
pub(super) struct Wire {
    /// Frames of the guest that hold TCP packets.
    pub input: VecDeque<Vec<u8>>,
    pub spare: Vec<Vec<u8>>,
    pub output: Output,
}

pub(super) struct Rx<'a> {
    frame: Vec<u8>,
    spare: &'a mut Vec<Vec<u8>>,
}

pub(super) struct Tx<'a> {
    output: &'a mut Output,
    size: Option<u16>,
}

impl phy::RxToken for Rx<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let r = f(self.frame.get(ETHERNET..).unwrap_or_default());
        if self.spare.len() < 256 {
            self.spare.push(self.frame);
        }
        r
    }
}

impl phy::TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; ETHERNET + len];
        let r = f(&mut frame[ETHERNET..]);
        let to = frame.get(ETHERNET + 16..).and_then(|d| d.first_chunk::<4>()).map(|d| Ipv4Addr::from(*d));
        // An unknown guest is asked for, and the stack sends again.
        if let Some(mac) = to.and_then(|to| self.output.resolve(to)) {
            packet::ethernet(&mut frame, mac, HOST_MAC, TYPE_IPV4);
            if frame.get(ETHERNET + 9) == Some(&packet::TCP_PROTOCOL) {
                self.output.send_tcp(frame, self.size);
            } else {
                self.output.send_checked(frame);
            }
        }
        r
    }
    fn set_meta(&mut self, meta: PacketMeta) {
        self.size = meta.segmentation_offload_size.map(Into::into);
    }
}

impl phy::Device for Wire {
    type RxToken<'a> = Rx<'a>;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Rx<'_>, Tx<'_>)> {
        // Taken even while the guest accepts nothing: what it says frees buffers. Answers then wait in the backlog.
        let frame = self.input.pop_front()?;
        Some((Rx { frame, spare: &mut self.spare }, Tx { output: &mut self.output, size: None }))
    }
    fn transmit(&mut self, _now: Instant) -> Option<Tx<'_>> {
        (!self.output.blocked()).then_some(Tx { output: &mut self.output, size: None })
    }
    fn capabilities(&self) -> DeviceCapabilities {
        let mut c = DeviceCapabilities::default();
        c.medium = Medium::Ip;
        c.max_transmission_unit = MTU;
        // Large segments are cut, and checksums made, on the way out if the guest does not take them as they are; what comes in
        // never was on a wire.
        c.checksum.tcp = Checksum::None;
        c.segmentation.tcpv4 = NonZeroUsize::new(u16::MAX as usize);
        c
    }
}
