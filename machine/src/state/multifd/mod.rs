//! Pages go by several connections at once: the capability `multifd`.
//!
//! The first section of the main stream says how many channels there are, and the move's token. The other end answers "channels" when
//! it waits for them. Each begins with a greeting, and goes on as a stream of sections in which there are only pages and rounds:
//!
//! ```text
//! greeting: "RHEA-CH\n", number of the channel (u8), token (16 bytes), CRC-32 of these
//! ```
//!
//! Pages of a round go by any channel, in any order. When all are on their way, a section with the number of the round (u64, from 1 on)
//! follows on each channel and on the main stream: nothing of the next round is taken over before all have brought it. Without that, an
//! older page could arrive last.

mod receive;
mod send;

pub use receive::Accepting;
pub(super) use receive::Receivers;
pub use send::Dial;
pub(super) use send::Senders;

use super::stream::{Result, Section};
use minicbor::{Decode, Encode};
use std::io::{self, Read};

/// What the word of a destination that waits for channels is.
pub(super) const READY: &str = "channels";

/// The channels of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Plan {
    #[n(0)]
    token: [u64; 2],
    /// 1 to 255.
    #[n(1)]
    channels: u8,
}

const MAGIC: [u8; 8] = *b"RHEA-CH\n";
const GREETING: usize = 29;

impl Plan {
    /// With a token that nobody can know.
    pub(super) fn new(channels: u8) -> Result<Self> {
        let mut token = [0; 16];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut token)?;
        let words = token.as_chunks::<8>().0;
        Ok(Self { token: [u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])], channels })
    }
    fn greeting(&self, number: u8) -> [u8; GREETING] {
        let mut all = [0; GREETING];
        all[..8].copy_from_slice(&MAGIC);
        all[8] = number;
        all[9..17].copy_from_slice(&self.token[0].to_le_bytes());
        all[17..25].copy_from_slice(&self.token[1].to_le_bytes());
        let sum = crc32fast::hash(&all[..25]);
        all[25..].copy_from_slice(&sum.to_le_bytes());
        all
    }
    /// The number of the channel that greets so; `None`: it is none of this move.
    fn channel(&self, greeting: &[u8; GREETING]) -> Option<u8> {
        let number = greeting[8];
        (number < self.channels && *greeting == self.greeting(number)).then_some(number)
    }
}

/// The number in a section that ends a round.
pub(super) fn round(section: &Section) -> Result<u64> {
    let number = section.data.as_slice().try_into().map(u64::from_le_bytes).ok();
    number.filter(|_| section.version == 1).ok_or_else(|| section.error("it is no number of a round"))
}

fn ended() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

#[cfg(test)]
mod tests;
