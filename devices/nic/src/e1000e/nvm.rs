//! The NVM's words (82574 datasheet, 6): address, identifiers, checksum.

pub const WORDS: usize = 128;
const CHECKSUM_AT: usize = 0x3f;
const CHECKSUM: u16 = 0xbaba;

/// The words as they leave the factory.
#[must_use]
pub fn words(mac: [u8; 6], device: u16, (subsystem_vendor, subsystem): (u16, u16)) -> Vec<u16> {
    let mut w = vec![0xffff; WORDS];
    w[..0x40].fill(0);
    for (word, pair) in w.iter_mut().zip(mac.as_chunks::<2>().0) {
        *word = u16::from_le_bytes(*pair);
    }
    let fixed = [
        (0x03, 0x0420),
        // LEDs as their defaults say.
        (0x04, 0x8907),
        (0x05, 0x0100),
        // No printed assembly number.
        (0x08, 0xffff),
        (0x09, 0xffff),
        // The identifiers below are valid.
        (0x0a, 0x026b),
        (0x0b, subsystem),
        (0x0c, subsystem_vendor),
        (0x0d, device),
        (0x0e, 0x8086),
        (0x0f, 0x4040),
        (0x1b, 0x0001),
        (0x1f, 0x0602),
        (0x21, 0x0602),
    ];
    for (n, value) in fixed {
        w[n] = value;
    }
    seal(&mut w);
    w
}

/// Makes the sum of the first 64 words right.
fn seal(words: &mut [u16]) {
    let sum = words.iter().take(CHECKSUM_AT).fold(0u16, |s, w| s.wrapping_add(*w));
    if let Some(w) = words.get_mut(CHECKSUM_AT) {
        *w = CHECKSUM.wrapping_sub(sum);
    }
}

/// The address in the first words.
#[must_use]
pub fn mac(words: &[u16]) -> [u8; 6] {
    let mut mac = [0; 6];
    for (pair, word) in mac.as_chunks_mut::<2>().0.iter_mut().zip(words) {
        *pair = word.to_le_bytes();
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum() {
        let address = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
        let w = words(address, 0x10d3, (0x8086, 0));
        assert_eq!(w[..0x40].iter().fold(0u16, |s, x| s.wrapping_add(*x)), 0xbaba);
        assert_eq!((mac(&w), w[0]), (address, 0x5452));
    }
}
