//! The Internet checksum, the frame check sequence, and what they are computed over.

/// One's complement sum of big-endian words, not folded; an odd last byte counts as the high half.
#[must_use]
pub fn sum(data: &[u8]) -> u64 {
    let (words, rest) = data.as_chunks::<2>();
    let last = rest.first().map_or(0, |b| u64::from(*b) << 8);
    words.iter().fold(last, |s, w| s + u64::from(u16::from_be_bytes(*w)))
}

/// Folds a sum to 16 bits.
#[must_use]
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Puts the checksum of `frame[start..end]` at `at`; the field's content counts, so that it may hold a pseudo header's sum.
/// Nothing if any of it lies outside.
pub fn insert(frame: &mut [u8], start: usize, at: usize, end: usize) {
    let Some(data) = frame.get(start..end) else { return };
    let value = !fold(sum(data));
    if let Some(field) = frame.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// The frame check sequence (IEEE 802.3, 3.2.9), as it follows the frame.
#[must_use]
pub fn frame_check(frame: &[u8]) -> [u8; 4] {
    let crc = frame.iter().fold(!0u32, |crc, b| {
        (0..8).fold(crc ^ u32::from(*b), |c, _| if c & 1 != 0 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
    });
    (!crc).to_le_bytes()
}

/// The protocols of a frame, and whether their checksums are right. Offsets count from the frame's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    pub ipv4: bool,
    pub ipv6: bool,
    pub tcp: bool,
    pub udp: bool,
    /// The headers' end; 0: not IP.
    pub headers: usize,
    pub ip_good: bool,
    /// There is a checksum of TCP or UDP that can be verified: not in fragments, not where UDP leaves it out.
    pub l4_checked: bool,
    pub l4_good: bool,
    pub ip_id: u16,
}

fn be16(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*data.get(at)?, *data.get(at + 1)?]))
}

impl Packet {
    /// Looks at an Ethernet frame.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Self {
        let mut p = Self::default();
        let _ = p.ethernet(frame);
        p
    }
    fn ethernet(&mut self, frame: &[u8]) -> Option<()> {
        let mut at = 12;
        let mut kind = be16(frame, at)?;
        if kind == 0x8100 {
            at += 4;
            kind = be16(frame, at)?;
        }
        let ip = at + 2;
        match kind {
            0x0800 => self.ip4(frame, ip),
            0x86dd => self.ip6(frame, ip),
            _ => None,
        }
    }
    fn ip4(&mut self, frame: &[u8], ip: usize) -> Option<()> {
        let first = *frame.get(ip)?;
        let len = usize::from(first & 15) * 4;
        let header = frame.get(ip..ip + len)?;
        if first >> 4 != 4 || len < 20 {
            return None;
        }
        let total = usize::from(be16(header, 2)?);
        self.ipv4 = true;
        self.headers = ip + len;
        self.ip_good = fold(sum(header)) == 0xffff;
        self.ip_id = be16(header, 4)?;
        if be16(header, 6)? & 0x3fff != 0 || total < len {
            return None;
        }
        let data = frame.get(ip + len..ip + total)?;
        self.l4(ip + len, header[9], sum(&header[12..20]), data)
    }
    fn ip6(&mut self, frame: &[u8], ip: usize) -> Option<()> {
        let header = frame.get(ip..ip + 40)?;
        if header[0] >> 4 != 6 {
            return None;
        }
        self.ipv6 = true;
        self.headers = ip + 40;
        let len = usize::from(be16(header, 4)?);
        let data = frame.get(ip + 40..ip + 40 + len)?;
        self.l4(ip + 40, header[6], sum(&header[8..40]), data)
    }
    /// `addresses`: their sum.
    fn l4(&mut self, start: usize, protocol: u8, addresses: u64, data: &[u8]) -> Option<()> {
        let header = match protocol {
            6 => usize::from(*data.get(12)? >> 4) * 4,
            17 => 8,
            _ => return None,
        };
        if header > data.len() || header < 8 {
            return None;
        }
        (self.tcp, self.udp) = (protocol == 6, protocol == 17);
        self.headers = start + header;
        if self.udp && be16(data, 6)? == 0 {
            return None;
        }
        self.l4_checked = true;
        self.l4_good = fold(addresses + u64::from(protocol) + data.len() as u64 + sum(data)) == 0xffff;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums() {
        assert_eq!(fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
        assert_eq!(sum(&[1, 2, 3]), 0x102 + 0x300);
        assert_eq!(frame_check(b"123456789"), 0xcbf4_3926u32.to_le_bytes());
        let mut f = vec![0, 0, 0x12, 0x34];
        insert(&mut f, 2, 0, 4);
        assert_eq!(f, [0xed, 0xcb, 0x12, 0x34]);
        insert(&mut f, 3, 9, 2);
        insert(&mut f, 0, 3, 4);
    }

    #[test]
    fn packets() {
        let mut f = vec![0; 12];
        f.extend([8, 0, 0x45, 0, 0, 32, 0xab, 0xcd, 0, 0, 64, 17, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]);
        f.extend([0, 1, 0, 2, 0, 12, 0, 0, 1, 2, 3, 4]);
        insert(&mut f, 14, 24, 34);
        let p = Packet::parse(&f);
        assert!(p.ipv4 && p.udp && p.ip_good && !p.l4_checked && p.headers == 42 && p.ip_id == 0xabcd);
        // The pseudo header's sum first.
        let pseudo = fold(sum(&f[26..34]) + 17 + 12);
        f[40..42].copy_from_slice(&pseudo.to_be_bytes());
        insert(&mut f, 34, 40, 46);
        let p = Packet::parse(&f);
        assert!(p.l4_checked && p.l4_good);
        f[45] ^= 1;
        f[18] ^= 1;
        let p = Packet::parse(&f);
        assert!(p.l4_checked && !p.l4_good && !p.ip_good);
        for n in 0..f.len() {
            let _ = Packet::parse(&f[..n]);
        }
    }
}
