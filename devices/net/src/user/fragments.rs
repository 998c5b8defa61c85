//! IPv4 fragments (RFC 791): the guest's are put together, packets for the guest that exceed its MTU are cut.

use super::packet::{self, ETHERNET, IPV4, be16};
use std::time::{Duration, Instant};

/// Packets being put together at once; the oldest makes room.
const PACKETS: usize = 16;
const LIFETIME: Duration = Duration::from_secs(30);
const MORE: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
const MAX_PAYLOAD: usize = 65_535 - IPV4;

/// Source, destination, protocol, identification.
type Key = ([u8; 8], u8, u16);

struct Partial {
    key: Key,
    since: Instant,
    /// Ethernet and IPv4 header without options, then the payload as far as it is known.
    frame: Vec<u8>,
    /// Units of 8 bytes that are there.
    units: Vec<bool>,
    /// Bytes of payload, once the last fragment came.
    total: Option<usize>,
}

/// The packets being put together.
#[derive(Default)]
pub(super) struct Fragments {
    partial: Vec<Partial>,
}

impl Fragments {
    /// Takes a fragment, as a frame; gives the whole packet's frame if that was the last one missing.
    pub(super) fn add(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let header = frame.get(ETHERNET..)?.first_chunk::<IPV4>()?;
        let payload = packet::Ip::parse(&frame[ETHERNET..])?.payload;
        let word = be16(header, 6)?;
        let (start, last) = (usize::from(word & OFFSET) * 8, word & MORE == 0);
        let end = start + payload.len();
        if payload.is_empty() || end > MAX_PAYLOAD || (!last && payload.len() % 8 != 0) {
            return None;
        }
        let key = (*header[12..].first_chunk::<8>()?, header[9], be16(header, 4)?);
        let at = match self.partial.iter().position(|p| p.key == key) {
            Some(at) => at,
            None => {
                if self.partial.len() == PACKETS {
                    self.partial.remove(0);
                }
                let mut whole = frame[..ETHERNET + IPV4].to_vec();
                whole[ETHERNET] = 0x45;
                self.partial.push(Partial { key, since: Instant::now(), frame: whole, units: Vec::new(), total: None });
                self.partial.len() - 1
            }
        };
        let p = &mut self.partial[at];
        let units = end.div_ceil(8);
        if p.total.is_some_and(|t| end > t || (last && end != t)) || (last && p.units.len() > units) {
            // Fragments that contradict each other.
            self.partial.remove(at);
            return None;
        }
        if last {
            p.total = Some(end);
        }
        if p.units.len() < units {
            p.units.resize(units, false);
            p.frame.resize(ETHERNET + IPV4 + units * 8, 0);
        }
        p.frame[ETHERNET + IPV4 + start..ETHERNET + IPV4 + end].copy_from_slice(payload);
        p.units[start / 8..units].fill(true);
        let total = p.total.filter(|t| p.units.len() == t.div_ceil(8) && p.units.iter().all(|u| *u))?;
        let mut whole = self.partial.remove(at).frame;
        whole.truncate(ETHERNET + IPV4 + total);
        packet::set_fragment(&mut whole, 0, 0);
        Some(whole)
    }
    /// Forgets packets whose rest did not come in time.
    pub(super) fn expire(&mut self) {
        self.partial.retain(|p| p.since.elapsed() < LIFETIME);
    }
    pub(super) fn is_empty(&self) -> bool {
        self.partial.is_empty()
    }
}

/// Cuts a frame whose packet exceeds `mtu`; `id` is its identification.
pub(super) fn cut(frame: &[u8], mtu: usize, id: u16) -> impl Iterator<Item = Vec<u8>> {
    let (header, payload) = frame.split_at((ETHERNET + IPV4).min(frame.len()));
    let size = (mtu - IPV4) / 8 * 8;
    let count = payload.len().div_ceil(size);
    payload.chunks(size).enumerate().map(move |(i, piece)| {
        let mut f = [header, piece].concat();
        let more = if i + 1 < count { MORE } else { 0 };
        packet::set_fragment(&mut f, id, more | (i * size / 8) as u16);
        f
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn sample(len: usize) -> Vec<u8> {
        let mut f = packet::ip_frame([1; 6], [2; 6], Ipv4Addr::new(10, 0, 2, 15), Ipv4Addr::new(10, 0, 2, 2), 17, len);
        for (i, b) in f[ETHERNET + IPV4..].iter_mut().enumerate() {
            *b = (i * 7 + i / 251) as u8;
        }
        f
    }

    #[test]
    fn cut_and_put_together_in_any_order() {
        for len in [1481, 2960, 2961, 60_000, MAX_PAYLOAD] {
            let whole = sample(len);
            let mut pieces: Vec<_> = cut(&whole, 1500, 7).collect();
            assert!(
                pieces
                    .iter()
                    .all(|p| p.len() <= ETHERNET + 1500 && packet::checksum(&p[ETHERNET..ETHERNET + IPV4]) == 0)
            );
            for round in 0..3 {
                match round {
                    1 => pieces.reverse(),
                    2 => {
                        // A piece twice does no harm.
                        let again = pieces[0].clone();
                        pieces.insert(1, again);
                    }
                    _ => (),
                }
                let mut all = Fragments::default();
                let done: Vec<_> = pieces.iter().filter_map(|p| all.add(p)).collect();
                assert_eq!(done.len(), 1);
                assert!(done[0] == whole && all.is_empty());
            }
        }
    }

    #[test]
    fn malformed_fragments() {
        let piece = |word: u16, len: usize| {
            let mut f = sample(len);
            packet::set_fragment(&mut f, 1, word);
            f
        };
        let mut all = Fragments::default();
        // Past 64 KiB; not a multiple of 8; empty.
        for (word, len) in [(0x1fff, 100), (MORE, 7), (MORE, 0)] {
            assert!(all.add(&piece(word, len)).is_none() && all.is_empty());
        }
        // Two ends.
        assert!(all.add(&piece(4, 8)).is_none());
        assert!(all.add(&piece(2, 8)).is_none());
        assert!(all.is_empty());
        // Beyond the end.
        assert!(all.add(&piece(2, 8)).is_none());
        assert!(all.add(&piece(MORE | 8, 8)).is_none());
        assert!(all.is_empty());
        for n in 0..100u16 {
            let mut f = piece(MORE, 8);
            f[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&n.to_be_bytes());
            assert!(all.add(&f).is_none());
        }
        assert_eq!(all.partial.len(), PACKETS);
    }
}
