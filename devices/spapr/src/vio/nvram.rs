//! Non-volatile memory by RTAS (LoPAPR 7.3.2), kept on a drive.

use super::{SlotState, VioDevice, VioKind, VioSlot};
use crate::Node;
use crate::guest::GuestRam;
use crate::papr::{RtasCalls, rtas, rtas_return};
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_block::{Drive, Operation};
use rhea_device::state::{decode, encode};
use rhea_device::{Device, LoadError, Saved};
use std::sync::Arc;
use thiserror::Error;

pub const KIND: VioKind = VioKind {
    name: "nvram",
    device_type: "nvram",
    compatible: "qemu,spapr-nvram",
    signals: 0,
    window: 0,
    interrupt: false,
};
/// Bytes without a drive.
pub const DEFAULT_SIZE: u64 = 64 << 10;
pub const MIN_SIZE: u64 = 8 << 10;
pub const MAX_SIZE: u64 = 1 << 20;

/// Why there is no such memory.
#[derive(Debug, Error)]
pub enum NvramError {
    #[error("NVRAM must be of {MIN_SIZE} to {MAX_SIZE} bytes, not {0}")]
    Size(u64),
    #[error("NVRAM cannot be read: {0}")]
    Read(std::io::Error),
}

#[derive(Encode, Decode)]
struct State {
    /// Bytes, of memory without a drive.
    #[n(0)]
    bytes: Option<Vec<u8>>,
    #[n(1)]
    slot: SlotState,
}

/// `spapr-nvram`.
pub struct Nvram {
    name: String,
    slot: VioSlot,
    ram: GuestRam,
    drive: Option<Arc<Drive>>,
    bytes: Mutex<Vec<u8>>,
}

impl Nvram {
    /// Of the drive's size and contents, or [`DEFAULT_SIZE`] zeroes. `ram`: where RTAS buffers are.
    ///
    /// # Errors
    /// [`NvramError`].
    pub fn new(slot: VioSlot, drive: Option<Arc<Drive>>, ram: GuestRam) -> Result<Arc<Self>, NvramError> {
        let size = drive.as_ref().map_or(DEFAULT_SIZE, |d| d.capacity());
        if !(MIN_SIZE..=MAX_SIZE).contains(&size) {
            return Err(NvramError::Size(size));
        }
        let mut bytes = vec![0; size as usize];
        if let Some(drive) = &drive {
            drive.read_bytes(0, &mut bytes).map_err(NvramError::Read)?;
        }
        Ok(Arc::new(Self { name: slot.name(), slot, ram, drive, bytes: Mutex::new(bytes) }))
    }
    /// The contents, for firmware that is built in.
    #[must_use]
    pub fn contents(&self) -> Vec<u8> {
        self.bytes.lock().clone()
    }
    /// Writes bytes; false: they do not fit, or the drive fails.
    pub fn write(&self, at: usize, data: &[u8]) -> bool {
        let mut bytes = self.bytes.lock();
        let Some(place) = at.checked_add(data.len()).and_then(|end| bytes.get_mut(at..end)) else { return false };
        if let Some(drive) = &self.drive
            && drive.write_bytes(at as u64, data).is_err()
        {
            return false;
        }
        place.copy_from_slice(data);
        true
    }
    fn fetch(&self, offset: u32, buffer: u32, len: u32) -> Option<u32> {
        let data = {
            let bytes = self.bytes.lock();
            bytes.get(offset as usize..(offset as usize).checked_add(len as usize)?)?.to_vec()
        };
        self.ram.write(buffer.into(), &data).then_some(len)
    }
    /// `Err`: a parameter is wrong; `Ok(false)`: the drive failed.
    fn store(&self, offset: u32, buffer: u32, len: u32) -> Result<bool, ()> {
        let size = self.bytes.lock().len() as u64;
        if u64::from(offset) + u64::from(len) > size {
            return Err(());
        }
        let mut data = vec![0; len as usize];
        if !self.ram.read(buffer.into(), &mut data) {
            return Err(());
        }
        Ok(self.write(offset as usize, &data))
    }
}

impl RtasCalls for Nvram {
    fn names(&self) -> &'static [&'static str] {
        &["nvram-fetch", "nvram-store"]
    }
    fn rtas(&self, name: &str, args: &[u32], results: &mut [u32]) -> bool {
        match (name, args) {
            ("nvram-fetch", &[offset, buffer, len]) => match self.fetch(offset, buffer, len) {
                Some(n) => rtas_return(results, rtas::SUCCESS, &[n]),
                None => rtas_return(results, rtas::PARAMETER_ERROR, &[0]),
            },
            ("nvram-store", &[offset, buffer, len]) => match self.store(offset, buffer, len) {
                Ok(true) => rtas_return(results, rtas::SUCCESS, &[len]),
                Ok(false) => rtas_return(results, rtas::HARDWARE_ERROR, &[0]),
                Err(()) => rtas_return(results, rtas::PARAMETER_ERROR, &[0]),
            },
            _ if self.names().contains(&name) => rtas_return(results, rtas::PARAMETER_ERROR, &[0]),
            _ => return false,
        }
        true
    }
}

impl VioDevice for Nvram {
    fn slot(&self) -> &VioSlot {
        &self.slot
    }
    fn describe(&self, node: Node) -> Node {
        node.cell("#bytes", self.bytes.lock().len() as u32)
    }
}

impl Device for Nvram {
    fn name(&self) -> &str {
        &self.name
    }
    /// The contents stay.
    fn reset(&self) {
        self.slot.reset();
    }
    fn save(&self) -> Saved {
        let bytes = self.drive.is_none().then(|| self.bytes.lock().clone());
        encode(1, &State { bytes, slot: self.slot.save() })
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        let State { bytes, slot } = decode(saved, 1)?;
        let mut mine = self.bytes.lock();
        match (bytes, &self.drive) {
            (Some(bytes), None) if bytes.len() == mine.len() => *mine = bytes,
            (None, Some(drive)) => {
                drive.read_bytes(0, &mut mine).map_err(|e| LoadError::Damaged(format!("NVRAM: {e}")))?;
            }
            _ => return Err(LoadError::Mismatch("NVRAM".to_owned())),
        }
        drop(mine);
        self.slot.load(&slot)
    }
    fn quiesce(&self) {
        if let Some(drive) = &self.drive {
            // A host that cannot flush says so when the drive is next written.
            let _ = drive.run(&mut Operation::Flush);
        }
    }
}
