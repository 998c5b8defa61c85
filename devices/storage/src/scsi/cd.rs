//! A CD/DVD drive: the packet commands of [`CdDrive`] carried by SCSI.

use super::operation as op;
use super::{Action, Cdb, LogicalUnit, Sense};
use crate::CdDrive;
use crate::ata::{self, AtaDevice, Taskfile, command};
use rhea_block::Drive;
use rhea_device::LoadError;
use std::io;
use std::sync::Arc;

/// A drive as a logical unit.
pub struct ScsiCd(Arc<CdDrive>);

/// A PACKET command whose data goes by DMA.
fn packet() -> Taskfile {
    Taskfile { command: command::PACKET, features: 1, ..Taskfile::default() }
}

impl ScsiCd {
    #[must_use]
    pub fn new(drive: &Arc<CdDrive>) -> Arc<Self> {
        Arc::new(Self(drive.clone()))
    }
    fn action(&self, action: ata::Action) -> Action {
        match action {
            ata::Action::End(end) if end.is_error() => Action::Fail(self.0.last_sense()),
            ata::Action::End(_) | ata::Action::Nothing => Action::Good,
            ata::Action::In { data, .. } => Action::In(data),
            ata::Action::Out { len, .. } => Action::Out(len),
            ata::Action::Transfer { drive, offset, len, write, flush, .. } => {
                Action::Transfer { drive, offset, len, write, flush }
            }
            ata::Action::Run { drive, work } => Action::Run { drive, work },
        }
    }
}

impl LogicalUnit for ScsiCd {
    fn execute(&self, cdb: &Cdb) -> Action {
        if cdb[0] == op::REPORT_LUNS {
            let mut data = super::report_luns(&[0]);
            data.truncate(u32::from_be_bytes([cdb[6], cdb[7], cdb[8], cdb[9]]) as usize);
            return Action::In(data);
        }
        self.action(self.0.command(&packet(), cdb))
    }
    fn data_out(&self, cdb: &Cdb, data: &[u8]) -> Action {
        self.action(self.0.data_out(&packet(), cdb, data))
    }
    fn finished(&self, _cdb: &Cdb, result: &io::Result<()>) -> Option<Sense> {
        self.0.finished(&packet(), result).is_error().then(|| self.0.last_sense())
    }
    fn reset(&self) {
        AtaDevice::reset(&*self.0, true);
    }
    fn power_on(&self) {
        self.0.power_on();
    }
    fn save(&self) -> Vec<u8> {
        AtaDevice::save(&*self.0)
    }
    fn load(&self, state: &[u8]) -> Result<(), LoadError> {
        AtaDevice::load(&*self.0, state)
    }
    fn drive(&self) -> Option<Arc<Drive>> {
        self.0.medium()
    }
}
