//! Network back ends: user networking on the host's sockets, and tap interfaces.

mod link;
mod mac;
mod options;
pub mod tap;
pub mod user;

pub use link::{Card, FilterWatcher, Link};
pub use mac::MacAllocator;
pub use options::{NetdevKind, NetdevOptions, TapOptions, USER_OPTIONS, UserOptions};

use std::sync::Arc;

/// What the sender of a frame leaves to its receiver; the fields of the virtio network header (virtio 1.2, 5.1.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// [`Offload::NEEDS_CHECKSUM`], [`Offload::DATA_VALID`].
    pub flags: u8,
    /// [`Offload::GSO_NONE`], [`Offload::GSO_TCPV4`], ...
    pub gso_type: u8,
    /// Bytes of Ethernet, IP and TCP headers of a large segment.
    pub header_len: u16,
    /// Largest payload of one packet when a large segment is cut.
    pub gso_size: u16,
    /// Where the checksum starts to count, and where it goes from there.
    pub checksum_start: u16,
    pub checksum_offset: u16,
}

impl Offload {
    pub const NEEDS_CHECKSUM: u8 = 1;
    pub const DATA_VALID: u8 = 2;
    pub const GSO_NONE: u8 = 0;
    pub const GSO_TCPV4: u8 = 1;
    pub const GSO_TCPV6: u8 = 4;
    /// Bytes of the header with its number of buffers.
    pub const LEN: usize = 12;

    /// From the little-endian header.
    #[must_use]
    pub fn from_bytes(b: &[u8; Self::LEN]) -> Self {
        let word = |i: usize| u16::from_le_bytes([b[i], b[i + 1]]);
        Self {
            flags: b[0],
            gso_type: b[1],
            header_len: word(2),
            gso_size: word(4),
            checksum_start: word(6),
            checksum_offset: word(8),
        }
    }
    /// To the little-endian header, for a frame in `buffers` receive buffers.
    #[must_use]
    pub fn to_bytes(self, buffers: u16) -> [u8; Self::LEN] {
        let mut b = [0; Self::LEN];
        b[0] = self.flags;
        b[1] = self.gso_type;
        for (i, v) in
            [self.header_len, self.gso_size, self.checksum_start, self.checksum_offset, buffers].into_iter().enumerate()
        {
            b[2 + 2 * i..4 + 2 * i].copy_from_slice(&v.to_le_bytes());
        }
        b
    }
}

/// Which offloads a side takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Frames whose checksum is not computed, or already verified.
    pub checksum: bool,
    /// TCP segments over IPv4 and over IPv6 of up to 64 KiB.
    pub tso4: bool,
    pub tso6: bool,
}

/// The guest's side: takes frames to the guest. Called from the back end's thread with no lock held.
pub trait NetFrontend: Send + Sync {
    /// A frame from Ethernet header on, without checksum sequence. `false`: no room now; the back end keeps it and tries again
    /// after [`NetBackend::receive_ready`].
    fn receive(&self, frame: &[u8], offload: Offload) -> bool;
    /// The link came up or went down.
    fn link_changed(&self, _up: bool) {}
    /// Which frames the guest wants; `None`: the card does not tell.
    fn filter(&self) -> Option<ReceiveFilter> {
        None
    }
}

/// Which addresses of a kind pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    None,
    /// Those of the table.
    Normal,
    All,
}

/// Which frames a guest wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiveFilter {
    pub promiscuous: bool,
    pub multicast: Pass,
    pub unicast: Pass,
    pub broadcast: bool,
    pub mac: [u8; 6],
    /// Tables; an overflow means that the guest gave more than are kept, and that all of the kind pass.
    pub multicast_table: Vec<[u8; 6]>,
    pub multicast_overflow: bool,
    pub unicast_table: Vec<[u8; 6]>,
    pub unicast_overflow: bool,
}

/// The host's side.
pub trait NetBackend: Send + Sync {
    /// Sends a frame of the guest. Never blocks; what cannot be queued is dropped, as on a wire.
    fn send(&self, frame: &[u8], offload: Offload);
    /// More frames of the same burst may follow [`Self::send`]; this ends the burst.
    fn flush(&self) {}
    /// Connects the guest's side (one at a time).
    fn set_frontend(&self, frontend: Arc<dyn NetFrontend>);
    /// The guest's side has room again.
    fn receive_ready(&self);
    /// Offloads [`Self::send`] takes.
    fn offloads(&self) -> Offloads {
        Offloads::default()
    }
    /// Offloads the guest's side takes from now on (only those of [`Self::offloads`]).
    fn set_frontend_offloads(&self, _offloads: Offloads) {}
    /// Is the wire plugged in?
    fn link_up(&self) -> bool {
        true
    }
    /// The card was loaded from a saved state, in which the link was so.
    fn restore_link(&self, _up: bool) {}
    /// What [`NetFrontend::filter`] returns has changed.
    fn filter_changed(&self) {}
    /// For `info network`.
    fn description(&self) -> String;
}

/// The longest frame: a 64 KiB segment and its Ethernet header.
pub const MAX_FRAME: usize = 65_535 + 14;

/// The operating system's text of an error, without the number.
pub(crate) fn error_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
