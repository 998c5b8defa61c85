//! Router solicitations (RFC 4861): there is no IPv6 here, which is said at once, since firmware waits for an answer.

use super::packet::{self, ETHERNET, be16};
use super::wire::HOST_MAC;
use std::net::Ipv6Addr;

const IPV6: usize = 40;
const ICMP: u8 = 58;
const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The modified EUI-64 address of [`HOST_MAC`] (RFC 4291, appendix A).
const ROUTER: Ipv6Addr = {
    let m = HOST_MAC;
    Ipv6Addr::new(0xfe80, 0, 0, 0, word(m[0] ^ 2, m[1]), word(m[2], 0xff), word(0xfe, m[3]), word(m[4], m[5]))
};

const fn word(a: u8, b: u8) -> u16 {
    (a as u16) << 8 | b as u16
}

/// The answer to an IPv6 frame if it solicits routers: an advertisement of lifetime 0 (no default router), without prefixes.
pub(super) fn answer(frame: &[u8]) -> Option<Vec<u8>> {
    let (sender, packet) = (*frame.get(6..)?.first_chunk::<6>()?, frame.get(ETHERNET..)?);
    let header = packet.first_chunk::<IPV6>()?;
    let length = usize::from(be16(packet, 4)?);
    let body = packet.get(IPV6..IPV6 + length)?;
    // From a neighbour, and sound.
    if header[0] >> 4 != 6
        || header[6] != ICMP
        || header[7] != 255
        || body.len() < 8
        || body[..2] != [SOLICITATION, 0]
        || packet::checksum6(&header[8..40], ICMP, body) != 0
        || sender[0] & 1 != 0
    {
        return None;
    }
    let source = Ipv6Addr::from(*header[8..].first_chunk::<16>()?);
    let (to, mac) = if source.is_unspecified() { (ALL_NODES, [0x33, 0x33, 0, 0, 0, 1]) } else { (source, sender) };
    // Hop limit of hosts 64; flags, lifetime and timers 0; the link-layer address of the sender.
    let mut body = vec![ADVERTISEMENT, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
    body.extend(HOST_MAC);
    let mut f = vec![0; ETHERNET + IPV6];
    packet::ethernet(&mut f, mac, HOST_MAC, packet::TYPE_IPV6);
    f[ETHERNET] = 0x60;
    f[ETHERNET + 5] = body.len() as u8;
    f[ETHERNET + 6] = ICMP;
    f[ETHERNET + 7] = 255;
    f[ETHERNET + 8..ETHERNET + 24].copy_from_slice(&ROUTER.octets());
    f[ETHERNET + 24..].copy_from_slice(&to.octets());
    let sum = packet::checksum6(&f[ETHERNET + 8..], ICMP, &body);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    f.extend(body);
    Some(f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn solicitation(source: Ipv6Addr) -> Vec<u8> {
        let mut f = vec![0x33, 0x33, 0, 0, 0, 2, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 0x86, 0xdd];
        f.extend([0x60, 0, 0, 0, 0, 8, ICMP, 255]);
        f.extend(source.octets());
        f.extend(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2).octets());
        let mut body = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        let sum = packet::checksum6(&f[ETHERNET + 8..], ICMP, &body);
        body[2..4].copy_from_slice(&sum.to_be_bytes());
        f.extend(body);
        f
    }

    #[test]
    fn solicitations_are_answered() {
        let host: Ipv6Addr = "fe80::5054:ff:fe12:3456".parse().unwrap();
        let a = answer(&solicitation(host)).unwrap();
        assert_eq!(a[..14], [0x52, 0x54, 0, 0x12, 0x34, 0x56, 0x52, 0x55, 10, 0, 2, 2, 0x86, 0xdd]);
        assert_eq!(a[22..38], "fe80::5055:aff:fe00:202".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(a[38..54], host.octets());
        assert_eq!(packet::checksum6(&a[22..54], ICMP, &a[54..]), 0);
        // Lifetime.
        assert_eq!(a[60..62], [0, 0]);
        let a = answer(&solicitation(Ipv6Addr::UNSPECIFIED)).unwrap();
        assert_eq!((&a[..6], &a[38..54]), (&[0x33, 0x33, 0, 0, 0, 1][..], &ALL_NODES.octets()[..]));
    }

    #[test]
    fn nothing_else_is() {
        let good = solicitation(Ipv6Addr::UNSPECIFIED);
        // Version, next header, hop limit, type, code, checksum, length, sender.
        for (at, value) in [(14, 0x40), (20, 17), (21, 64), (54, 135), (55, 1), (57, 9), (19, 9), (6, 1)] {
            let mut f = good.clone();
            f[at] = value;
            assert!(answer(&f).is_none(), "{at}");
        }
        for n in 0..good.len() {
            assert!(answer(&good[..n]).is_none());
        }
    }
}
