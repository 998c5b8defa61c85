//! Ethernet and IPv4 packets by hand: headers, checksums, segmentation.

use crate::Offload;
use std::net::Ipv4Addr;

pub(super) const ETHERNET: usize = 14;
pub(super) const IPV4: usize = 20;
pub(super) const UDP: usize = 8;
pub(super) const TYPE_IPV4: u16 = 0x0800;
pub(super) const TYPE_ARP: u16 = 0x0806;
pub(super) const TYPE_IPV6: u16 = 0x86dd;
pub(super) const ICMP_PROTOCOL: u8 = 1;
pub(super) const TCP_PROTOCOL: u8 = 6;
pub(super) const UDP_PROTOCOL: u8 = 17;
pub(super) const BROADCAST: [u8; 6] = [0xff; 6];

pub(super) fn be16(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*data.get(at..)?.first_chunk()?))
}
fn be32(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*data.get(at..)?.first_chunk()?))
}
fn put16(data: &mut [u8], at: usize, value: u16) {
    if let Some(place) = data.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// Unfolded one's complement sum of big-endian words; an odd byte counts as the high one.
fn sum(data: &[u8]) -> u64 {
    let mut chunks = data.chunks_exact(4);
    let mut total: u64 = chunks.by_ref().map(|c| u64::from(u32::from_be_bytes([c[0], c[1], c[2], c[3]]))).sum();
    let mut last = [0; 4];
    last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    total += u64::from(u32::from_be_bytes(last));
    total
}
fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}
fn pseudo_header(src: [u8; 4], dst: [u8; 4], protocol: u8, len: usize) -> u64 {
    sum(&src) + sum(&dst) + u64::from(protocol) + len as u64
}
pub(super) fn checksum(data: &[u8]) -> u16 {
    !fold(sum(data))
}
/// The checksum of `payload` in an IPv6 packet between `addresses` (RFC 8200, section 8.1); 0 if it contains the right one.
pub(super) fn checksum6(addresses: &[u8], protocol: u8, payload: &[u8]) -> u16 {
    !fold(sum(addresses) + u64::from(protocol) + payload.len() as u64 + sum(payload))
}

/// The parts of an IPv4 packet that matter; the payload is cut to the packet's length.
pub(super) struct Ip<'a> {
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    pub fragment: bool,
    pub payload: &'a [u8],
}

impl<'a> Ip<'a> {
    /// Parses a packet without its Ethernet header; `None` if it is malformed.
    pub(super) fn parse(packet: &'a [u8]) -> Option<Self> {
        let header = packet.first_chunk::<IPV4>()?;
        let header_len = usize::from(header[0] & 15) * 4;
        let total = usize::from(be16(packet, 2)?);
        if header[0] >> 4 != 4 || header_len < IPV4 || total < header_len {
            return None;
        }
        let address = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
        let fragment = be16(packet, 6)? & 0x3fff != 0;
        Some(Self { src: address(12), dst: address(16), fragment, payload: packet.get(header_len..total)? })
    }
}

/// A frame with room for `payload` bytes after Ethernet and IPv4 headers, which are filled in.
pub(super) fn ip_frame(
    to: [u8; 6],
    from: [u8; 6],
    src: Ipv4Addr,
    dst: Ipv4Addr,
    protocol: u8,
    payload: usize,
) -> Vec<u8> {
    let mut f = vec![0; ETHERNET + IPV4 + payload];
    ethernet(&mut f, to, from, TYPE_IPV4);
    let ip = &mut f[ETHERNET..ETHERNET + IPV4];
    ip[0] = 0x45;
    put16(ip, 2, (IPV4 + payload) as u16);
    ip[8] = 64;
    ip[9] = protocol;
    ip[12..16].copy_from_slice(&src.octets());
    ip[16..20].copy_from_slice(&dst.octets());
    let c = checksum(ip);
    put16(ip, 10, c);
    f
}

pub(super) fn ethernet(frame: &mut [u8], to: [u8; 6], from: [u8; 6], kind: u16) {
    if let Some(h) = frame.first_chunk_mut::<ETHERNET>() {
        h[..6].copy_from_slice(&to);
        h[6..12].copy_from_slice(&from);
        h[12..].copy_from_slice(&kind.to_be_bytes());
    }
}

/// Fills in identification, fragment word, length and header checksum of an IPv4 frame without options.
pub(super) fn set_fragment(frame: &mut [u8], id: u16, word: u16) {
    let total = frame.len().saturating_sub(ETHERNET) as u16;
    if let Some(ip) = frame.get_mut(ETHERNET..ETHERNET + IPV4) {
        put16(ip, 2, total);
        put16(ip, 4, id);
        put16(ip, 6, word);
        put16(ip, 10, 0);
        let c = checksum(ip);
        put16(ip, 10, c);
    }
}

/// A UDP datagram in a frame.
pub(super) fn udp_frame(
    to: [u8; 6],
    from: [u8; 6],
    src: (Ipv4Addr, u16),
    dst: (Ipv4Addr, u16),
    data: &[u8],
) -> Vec<u8> {
    let len = UDP + data.len();
    let mut f = ip_frame(to, from, src.0, dst.0, UDP_PROTOCOL, len);
    let udp = &mut f[ETHERNET + IPV4..];
    put16(udp, 0, src.1);
    put16(udp, 2, dst.1);
    put16(udp, 4, len as u16);
    udp[UDP..].copy_from_slice(data);
    let c = !fold(pseudo_header(src.0.octets(), dst.0.octets(), UDP_PROTOCOL, len) + sum(udp));
    put16(udp, 6, if c == 0 { 0xffff } else { c });
    f
}

/// An RST that answers a SYN, given the SYN's IPv4 packet.
pub(super) fn reset_for_syn(to: [u8; 6], from: [u8; 6], syn: &[u8]) -> Option<Vec<u8>> {
    let ip = Ip::parse(syn)?;
    let (sport, dport, seq) = (be16(ip.payload, 0)?, be16(ip.payload, 2)?, be32(ip.payload, 4)?);
    let mut f = ip_frame(to, from, ip.dst, ip.src, TCP_PROTOCOL, 20);
    let tcp = &mut f[ETHERNET + IPV4..];
    put16(tcp, 0, dport);
    put16(tcp, 2, sport);
    tcp[8..12].copy_from_slice(&seq.wrapping_add(1).to_be_bytes());
    tcp[12] = 5 << 4;
    // RST, ACK.
    tcp[13] = 0x14;
    let c = !fold(pseudo_header(ip.dst.octets(), ip.src.octets(), TCP_PROTOCOL, 20) + sum(tcp));
    put16(tcp, 16, c);
    Some(f)
}

/// Where the TCP header and the payload of a TCP/IPv4 frame start.
fn tcp_layout(frame: &[u8]) -> Option<(usize, usize)> {
    let tcp = ETHERNET + usize::from(frame.get(ETHERNET)? & 15) * 4;
    let data = tcp + usize::from(frame.get(tcp + 12)? >> 4) * 4;
    (data <= frame.len()).then_some((tcp, data))
}
fn tcp_pseudo(frame: &[u8], len: usize) -> Option<u64> {
    let src = *frame.get(ETHERNET + 12..)?.first_chunk::<4>()?;
    let dst = *frame.get(ETHERNET + 16..)?.first_chunk::<4>()?;
    Some(pseudo_header(src, dst, TCP_PROTOCOL, len))
}

/// Fills in the checksum of a TCP/IPv4 frame.
pub(super) fn finish_tcp(frame: &mut [u8]) -> Option<()> {
    let (tcp, _) = tcp_layout(frame)?;
    put16(frame, tcp + 16, 0);
    let c = !fold(tcp_pseudo(frame, frame.len() - tcp)? + sum(&frame[tcp..]));
    put16(frame, tcp + 16, c);
    Some(())
}

/// Leaves the checksum to the receiver, and the cutting into packets of `size` bytes of payload, if given.
pub(super) fn leave_to_receiver(frame: &mut [u8], size: Option<u16>) -> Option<Offload> {
    let (tcp, data) = tcp_layout(frame)?;
    let partial = fold(tcp_pseudo(frame, frame.len() - tcp)?);
    put16(frame, tcp + 16, partial);
    Some(Offload {
        flags: Offload::NEEDS_CHECKSUM,
        gso_type: if size.is_some() { Offload::GSO_TCPV4 } else { Offload::GSO_NONE },
        header_len: if size.is_some() { data as u16 } else { 0 },
        gso_size: size.unwrap_or(0),
        checksum_start: tcp as u16,
        checksum_offset: 16,
    })
}

/// Cuts a large TCP/IPv4 frame into frames with `size` bytes of payload; checksums of TCP are left open.
pub(super) fn segment(frame: &[u8], size: usize) -> Option<Vec<Vec<u8>>> {
    let (tcp, data) = tcp_layout(frame)?;
    let (header, payload) = frame.split_at(data);
    let seq = be32(frame, tcp + 4)?;
    let count = payload.len().div_ceil(size.max(1));
    let cut = payload.chunks(size.max(1)).enumerate().map(|(i, piece)| {
        let mut f = [header, piece].concat();
        let offset = (i * size) as u32;
        f[tcp + 4..tcp + 8].copy_from_slice(&seq.wrapping_add(offset).to_be_bytes());
        if i + 1 != count {
            // FIN and PSH belong to the last one.
            f[tcp + 13] &= !0x09;
        }
        let total = (f.len() - ETHERNET) as u16;
        put16(&mut f, ETHERNET + 2, total);
        put16(&mut f, ETHERNET + 10, 0);
        let c = checksum(&f[ETHERNET..tcp]);
        put16(&mut f, ETHERNET + 10, c);
        f
    });
    Some(cut.collect())
}
