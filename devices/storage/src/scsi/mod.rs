//! SCSI logical units (SPC-3, SBC-3, MMC-5), whatever carries their commands: a disk, and the CD drive that ATAPI has too.

mod cd;
mod disk;
mod disk_pages;
mod run;

pub use crate::atapi::sense::Sense;
pub use cd::ScsiCd;
pub use disk::{ScsiDisk, ScsiDiskOptions};
pub use run::{Outcome, Piece, run};

use crate::work::Work;
use rhea_block::Drive;
use rhea_device::LoadError;
use std::io;
use std::sync::Arc;

/// Status codes (SAM-3 5.3).
pub mod status {
    pub const GOOD: u8 = 0;
    pub const CHECK_CONDITION: u8 = 2;
    pub const BUSY: u8 = 8;
}

/// Commands of every logical unit, and some that carriers look at.
pub mod operation {
    pub const TEST_UNIT_READY: u8 = 0x00;
    pub const REQUEST_SENSE: u8 = 0x03;
    pub const INQUIRY: u8 = 0x12;
    pub const REPORT_LUNS: u8 = 0xa0;
}

/// A command descriptor block, with zeroes behind.
pub type Cdb = [u8; 16];

/// What a command leads to.
pub enum Action {
    Good,
    Fail(Sense),
    /// Data for the initiator.
    In(Vec<u8>),
    /// So many bytes from the initiator, which [`LogicalUnit::data_out`] gets.
    Out(usize),
    /// A transfer between the initiator's memory and the drive.
    Transfer {
        drive: Arc<Drive>,
        offset: u64,
        len: u64,
        write: bool,
        flush: bool,
    },
    /// Requests without the initiator's data.
    Run {
        drive: Arc<Drive>,
        work: Work,
    },
}

/// A logical unit.
pub trait LogicalUnit: Send + Sync {
    /// Starts a command.
    fn execute(&self, cdb: &Cdb) -> Action;
    /// Takes the data a command asked for with [`Action::Out`].
    fn data_out(&self, cdb: &Cdb, data: &[u8]) -> Action;
    /// The drive has finished: what the initiator is told.
    fn finished(&self, cdb: &Cdb, result: &io::Result<()>) -> Option<Sense>;
    /// Logical unit reset.
    fn reset(&self);
    /// The machine's power-on.
    fn power_on(&self);
    fn save(&self) -> Vec<u8>;
    /// # Errors
    /// The state is not of such a unit.
    fn load(&self, state: &[u8]) -> Result<(), LoadError>;
    /// For the machine: what to drain.
    fn drive(&self) -> Option<Arc<Drive>>;
}

/// The answer of REPORT LUNS (SPC-3 6.21) for the given numbers.
#[must_use]
pub fn report_luns(luns: &[u64]) -> Vec<u8> {
    let len = (luns.len() * 8) as u32;
    let mut data = len.to_be_bytes().to_vec();
    data.extend([0; 4]);
    data.extend(luns.iter().flat_map(|l| l.to_be_bytes()));
    data
}

/// The answer of INQUIRY for a logical unit that is not there (SPC-3 6.4.2): no peripheral device can be at it.
#[must_use]
pub fn absent() -> Vec<u8> {
    let mut data = vec![0; 36];
    data[0] = 0x7f;
    data[2] = 5;
    data[3] = 2;
    data[4] = 31;
    data
}
