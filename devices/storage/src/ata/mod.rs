//! ATA devices (ACS-3): what goes over the link in both directions, and what a device is to its controller.

pub mod command;
pub mod disk;
pub mod identify;
mod logs;

use crate::work::Work;
use rhea_block::Drive;
use rhea_device::LoadError;
use std::io;
use std::sync::Arc;

/// Status register (ACS-3 6.2).
pub mod status {
    pub const ERR: u8 = 1;
    pub const DRQ: u8 = 1 << 3;
    /// Bit 4 of old: seek complete, or service.
    pub const DSC: u8 = 1 << 4;
    pub const DF: u8 = 1 << 5;
    pub const DRDY: u8 = 1 << 6;
    pub const BSY: u8 = 1 << 7;
    pub const GOOD: u8 = DRDY | DSC;
}
/// Error register (ACS-3 6.3).
pub mod error {
    pub const ABRT: u8 = 1 << 2;
    pub const IDNF: u8 = 1 << 4;
    pub const UNC: u8 = 1 << 6;
}

/// A Register – Host to Device FIS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taskfile {
    pub command: u8,
    pub features: u16,
    /// 48 bits.
    pub lba: u64,
    pub count: u16,
    pub device: u8,
    pub control: u8,
}

impl Taskfile {
    /// Takes a FIS apart (SATA 10.3.4).
    #[must_use]
    pub fn of_fis(f: &[u8; 64]) -> Self {
        Self {
            command: f[2],
            features: u16::from_le_bytes([f[3], f[11]]),
            lba: u64::from_le_bytes([f[4], f[5], f[6], f[8], f[9], f[10], 0, 0]),
            count: u16::from_le_bytes([f[12], f[13]]),
            device: f[7],
            control: f[15],
        }
    }
    /// The tag of a queued command.
    #[must_use]
    pub fn tag(&self) -> u8 {
        self.count as u8 >> 3
    }
}

/// The registers a device sends back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    pub status: u8,
    pub error: u8,
    pub lba: u64,
    pub count: u16,
    pub device: u8,
}

impl Registers {
    /// Success; the other registers as they were.
    #[must_use]
    pub fn good(tf: &Taskfile) -> Self {
        Self { status: status::GOOD, error: 0, lba: tf.lba, count: tf.count, device: tf.device }
    }
    #[must_use]
    pub fn failed(tf: &Taskfile, error: u8) -> Self {
        Self { status: status::GOOD | status::ERR, error, ..Self::good(tf) }
    }
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.status & (status::ERR | status::DF) != 0
    }
}

/// How data goes over the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Dma,
    /// PIO in blocks of so many bytes.
    Pio(u32),
    /// PIO of a PACKET command, with the host's byte count limit.
    PacketPio(u32),
}

/// What a command leads to.
pub enum Action {
    /// It has ended.
    End(Registers),
    /// Data for the host, then the end.
    In { data: Vec<u8>, protocol: Protocol, end: Registers },
    /// Data from the host, which [`AtaDevice::data_out`] gets.
    Out { len: usize, protocol: Protocol },
    /// A transfer between the host's memory and the drive.
    Transfer { drive: Arc<Drive>, offset: u64, len: u64, write: bool, flush: bool, protocol: Protocol },
    /// Requests without data of the host.
    Run { drive: Arc<Drive>, work: Work },
    /// The device is asleep: only a reset ends the command.
    Nothing,
}

/// A device at the other end of a port.
pub trait AtaDevice: Send + Sync {
    /// What it sends after a reset.
    fn signature(&self) -> Registers;
    /// PACKET commands are understood.
    fn is_packet(&self) -> bool;
    /// Starts a command; `packet` counts for PACKET only.
    fn command(&self, tf: &Taskfile, packet: &[u8; 16]) -> Action;
    /// Takes the data a command asked for with [`Action::Out`].
    fn data_out(&self, tf: &Taskfile, packet: &[u8; 16], data: &[u8]) -> Action;
    /// The drive has finished an [`Action::Transfer`] or [`Action::Run`].
    fn finished(&self, tf: &Taskfile, result: &io::Result<()>) -> Registers;
    /// The queue ends with an error, for the log: command `tf`, which had a tag if `queued`.
    fn queue_error(&self, tf: &Taskfile, end: &Registers, queued: bool);
    /// COMRESET (`hard`) or software reset.
    fn reset(&self, hard: bool);
    /// The machine's power-on.
    fn power_on(&self);
    fn save(&self) -> Vec<u8>;
    /// # Errors
    /// The state is not of such a device.
    fn load(&self, state: &[u8]) -> Result<(), LoadError>;
}
