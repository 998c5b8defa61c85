//! The logical unit behind the transport: a disk, or a CD drive, which takes the packets it takes behind AHCI too.

use super::disk::Disk;
use rhea_block::Operation;
use rhea_device::LoadError;
use rhea_storage::CdDrive;
use rhea_storage::ata::{Action, AtaDevice, Taskfile, command};
use std::io;
use std::sync::Arc;

/// What a command leads to.
pub enum Work {
    /// It has ended well.
    Good,
    /// It has failed; the sense data says why.
    Failed,
    /// Data for the host.
    Data(Vec<u8>),
    /// Parameters from the host, which [`Unit::take`] gets.
    Take(usize),
    /// Blocks between the host and the drive; bytes.
    Read {
        offset: u64,
        len: u64,
    },
    Write {
        offset: u64,
        len: u64,
        flush: bool,
    },
    /// A request without data of the host; [`Unit::finished`] is told of its end.
    Run(Operation),
}

/// A logical unit.
pub enum Unit {
    Disk(Disk),
    Cd(Arc<CdDrive>),
}

/// PACKET with DMA.
const PACKET: Taskfile = Taskfile { command: command::PACKET, features: 1, lba: 0, count: 0, device: 0, control: 0 };

fn of_packet(action: Action) -> Work {
    match action {
        Action::End(end) if end.is_error() => Work::Failed,
        Action::End(_) => Work::Good,
        Action::In { data, .. } => Work::Data(data),
        Action::Out { len, .. } => Work::Take(len),
        Action::Transfer { offset, len, write: false, .. } => Work::Read { offset, len },
        Action::Transfer { offset, len, write: true, flush, .. } => Work::Write { offset, len, flush },
        // A CD drive does neither.
        Action::Run { .. } | Action::Nothing => Work::Failed,
    }
}

impl Unit {
    /// Starts a command.
    pub fn command(&self, block: &[u8; 16]) -> Work {
        match self {
            Self::Disk(disk) => disk.command(block),
            Self::Cd(cd) => of_packet(cd.command(&PACKET, block)),
        }
    }
    /// Takes the parameters that a command asked for.
    pub fn take(&self, block: &[u8; 16], data: &[u8]) -> Work {
        match self {
            Self::Disk(disk) => disk.take(block, data),
            Self::Cd(cd) => of_packet(cd.data_out(&PACKET, block, data)),
        }
    }
    /// The drive has finished a request; false: the command has failed.
    pub fn finished(&self, write: bool, result: &io::Result<()>) -> bool {
        match self {
            Self::Disk(disk) => disk.finished(write, result),
            Self::Cd(cd) => !cd.finished(&PACKET, result).is_error(),
        }
    }
    /// A reset of the port.
    pub fn reset(&self) {
        match self {
            Self::Disk(disk) => disk.reset(),
            Self::Cd(cd) => cd.reset(true),
        }
    }
    pub fn save(&self) -> Vec<u8> {
        match self {
            Self::Disk(disk) => disk.save(),
            Self::Cd(cd) => cd.save(),
        }
    }
    pub fn load(&self, state: &[u8]) -> Result<(), LoadError> {
        match self {
            Self::Disk(disk) => disk.load(state),
            Self::Cd(cd) => cd.load(state),
        }
    }
}
