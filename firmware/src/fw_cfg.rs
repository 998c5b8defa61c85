//! The firmware configuration device (`qemu,fw-cfg-mmio`): named blobs the firmware reads, with DMA.

use parking_lot::Mutex;
use rhea_device::{Device, DmaHandle, LoadError, Log, Saved};
use rhea_memory::{Access, AccessRules, BusError, Gpa, MmioDevice};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Fixed selectors.
pub mod key {
    pub const SIGNATURE: u16 = 0x00;
    pub const ID: u16 = 0x01;
    pub const NB_CPUS: u16 = 0x05;
    pub const KERNEL_SIZE: u16 = 0x08;
    pub const INITRD_SIZE: u16 = 0x0b;
    pub const BOOT_MENU: u16 = 0x0e;
    pub const MAX_CPUS: u16 = 0x0f;
    pub const KERNEL_DATA: u16 = 0x11;
    pub const INITRD_DATA: u16 = 0x12;
    pub const CMDLINE_SIZE: u16 = 0x14;
    pub const CMDLINE_DATA: u16 = 0x15;
    pub const FILE_DIR: u16 = 0x19;
    pub const FILE_FIRST: u16 = 0x20;
}

/// Length of the register window.
pub const LEN: u64 = 0x18;

const DMA_SIGNATURE: u64 = 0x5145_4d55_2043_4647; // "QEMU CFG"
const ERROR: u32 = 1;
const READ: u32 = 2;
const SKIP: u32 = 4;
const SELECT: u32 = 8;
const WRITE: u32 = 16;
/// File names are at most this long, with the terminating zero.
const NAME_LEN: usize = 56;

struct State {
    selector: u16,
    offset: usize,
    dma_high: u32,
}

/// The device. Blobs are added while the machine is built.
pub struct FwCfg {
    items: Mutex<BTreeMap<u16, Arc<[u8]>>>,
    files: Mutex<Vec<(String, u16)>>,
    state: Mutex<State>,
    dma: DmaHandle,
    log: Log,
}

impl FwCfg {
    #[must_use]
    pub fn new(dma: DmaHandle, log: Log) -> Arc<Self> {
        let fw = Self {
            items: Mutex::default(),
            files: Mutex::default(),
            state: Mutex::new(State { selector: 0, offset: 0, dma_high: 0 }),
            dma,
            log,
        };
        fw.add(key::SIGNATURE, b"QEMU".as_slice());
        // Traditional interface and DMA.
        fw.add(key::ID, 3u32.to_le_bytes().as_slice());
        fw.add(key::FILE_DIR, 0u32.to_be_bytes().as_slice());
        Arc::new(fw)
    }
    /// Sets the blob of a fixed selector.
    pub fn add(&self, key: u16, data: impl Into<Arc<[u8]>>) {
        self.items.lock().insert(key, data.into());
    }
    pub fn add_u16(&self, key: u16, value: u16) {
        self.add(key, value.to_le_bytes().as_slice());
    }
    pub fn add_u32(&self, key: u16, value: u32) {
        self.add(key, value.to_le_bytes().as_slice());
    }
    /// Adds or replaces a named file; false if the name is too long or there are too many.
    pub fn add_file(&self, name: &str, data: impl Into<Arc<[u8]>>) -> bool {
        let mut files = self.files.lock();
        if name.len() >= NAME_LEN || files.len() >= 0x3f00 {
            return false;
        }
        let key = match files.iter().find(|(n, _)| n == name) {
            Some((_, key)) => *key,
            None => {
                let key = key::FILE_FIRST + files.len() as u16;
                files.push((name.to_owned(), key));
                key
            }
        };
        let mut items = self.items.lock();
        items.insert(key, data.into());
        // The directory is sorted by name: count, then size, selector, reserved, name of each; big-endian.
        let mut sorted: Vec<_> = files.iter().collect();
        sorted.sort();
        let mut dir = (files.len() as u32).to_be_bytes().to_vec();
        for (name, key) in sorted {
            let len = items.get(key).map_or(0, |d| d.len() as u32);
            dir.extend_from_slice(&len.to_be_bytes());
            dir.extend_from_slice(&key.to_be_bytes());
            dir.extend_from_slice(&[0, 0]);
            let mut field = [0; NAME_LEN];
            field[..name.len()].copy_from_slice(name.as_bytes());
            dir.extend_from_slice(&field);
        }
        items.insert(key::FILE_DIR, dir.into());
        true
    }

    fn item(&self, selector: u16) -> Option<Arc<[u8]>> {
        // Bit 14 says "write", bit 15 "architecture"; neither changes which blob is meant here.
        self.items.lock().get(&(selector & 0x3fff)).cloned()
    }

    fn run_dma(&self, address: u64) {
        let at = Gpa(address);
        let mut request = [0; 16];
        if self.dma.read(at, &mut request).is_err() {
            self.log.guest_error("fw_cfg", format_args!("DMA request structure outside memory"));
            return;
        }
        let word = |i: usize| u32::from_be_bytes([request[i], request[i + 1], request[i + 2], request[i + 3]]);
        let (control, len) = (word(0), word(4) as usize);
        let target = (u64::from(word(8)) << 32) | u64::from(word(12));
        let mut result = 0;
        let (selector, start) = {
            let mut state = self.state.lock();
            if control & SELECT != 0 {
                state.selector = (control >> 16) as u16;
                state.offset = 0;
            }
            let start = state.offset;
            if control & (READ | SKIP) != 0 {
                state.offset = start.saturating_add(len);
            }
            (state.selector, start)
        };
        if control & READ != 0 {
            let item = self.item(selector).unwrap_or_default();
            let have = item.get(start..).unwrap_or_default();
            let have = &have[..have.len().min(len)];
            let mut ok = self.dma.write(Gpa(target), have).is_ok();
            // Beyond the blob reads as zero.
            let (mut done, zeros) = (have.len(), [0; 4096]);
            while ok && done < len {
                let n = (len - done).min(zeros.len());
                ok = self.dma.write(Gpa(target).offset(done as u64), &zeros[..n]).is_ok();
                done += n;
            }
            if !ok {
                result = ERROR;
            }
        } else if control & WRITE != 0 {
            // No blob is writable.
            result = ERROR;
        }
        if self.dma.write(at, &result.to_be_bytes()).is_err() {
            self.log.guest_error("fw_cfg", format_args!("DMA request structure is not writable"));
        }
    }
}

impl MmioDevice for FwCfg {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        match offset {
            0..8 => {
                let mut state = self.state.lock();
                let item = self.item(state.selector).unwrap_or_default();
                // The bytes in the order of the blob, whatever the width.
                let mut bytes = [0; 8];
                for byte in &mut bytes[..usize::from(access.size)] {
                    *byte = item.get(state.offset).copied().unwrap_or(0);
                    state.offset = state.offset.saturating_add(1);
                }
                Ok(u64::from_le_bytes(bytes))
            }
            16..24 => {
                let bytes = DMA_SIGNATURE.to_be_bytes();
                let from = (offset - 16) as usize;
                Ok((0..usize::from(access.size))
                    .fold(0, |v, i| v | u64::from(bytes.get(from + i).copied().unwrap_or(0)) << (8 * i)))
            }
            _ => Ok(0),
        }
    }

    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        match (offset, access.size) {
            (8, 2) => {
                let mut state = self.state.lock();
                state.selector = (value as u16).swap_bytes();
                state.offset = 0;
            }
            (16, 4) => self.state.lock().dma_high = (value as u32).swap_bytes(),
            (20, 4) => {
                let high = std::mem::take(&mut self.state.lock().dma_high);
                self.run_dma((u64::from(high) << 32) | u64::from((value as u32).swap_bytes()));
            }
            (16, 8) => self.run_dma(value.swap_bytes()),
            _ => self.log.guest_error("fw_cfg", format_args!("write of {} bytes at {offset:#x}", access.size)),
        }
        Ok(())
    }

    fn rules(&self) -> AccessRules {
        AccessRules::ANY
    }
    fn name(&self) -> &str {
        "fw_cfg"
    }
}

impl Device for FwCfg {
    fn name(&self) -> &str {
        "fw_cfg"
    }
    fn reset(&self) {
        *self.state.lock() = State { selector: 0, offset: 0, dma_high: 0 };
    }
    fn save(&self) -> Saved {
        let State { selector, offset, dma_high } = *self.state.lock();
        rhea_device::state::encode(1, &(selector, offset as u64, dma_high))
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        let (selector, offset, dma_high): (u16, u64, u32) = rhea_device::state::decode(saved, 1)?;
        *self.state.lock() = State { selector, offset: usize::try_from(offset).unwrap_or(usize::MAX), dma_high };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhea_memory::{AddressSpace, RamBlock, Requester};

    #[test]
    fn registers_and_dma() {
        let space = AddressSpace::new("system");
        let ram = RamBlock::anonymous("ram", 0x10000).unwrap();
        let _ram = space.map_ram(Gpa(0x4000_0000), &ram, 0, 0x10000, 0).unwrap();
        let fw = FwCfg::new(DmaHandle::new(space.clone(), 0x10000), Log::off());
        assert!(fw.add_file("opt/b", b"second".as_slice()));
        assert!(fw.add_file("etc/a", b"first".as_slice()));
        assert!(!fw.add_file(&"x".repeat(56), b"".as_slice()));
        let _map = space.map_mmio(Gpa(0x902_0000), LEN, fw.clone(), 0).unwrap();
        let cpu = |n| Access::cpu(0, n);
        let select = |k: u16| space.store(Gpa(0x902_0008), u64::from(k.swap_bytes()), cpu(2)).unwrap();
        select(key::SIGNATURE);
        assert_eq!(space.load(Gpa(0x902_0000), cpu(4)), Ok(u64::from(u32::from_le_bytes(*b"QEMU"))));
        assert_eq!(space.load(Gpa(0x902_0000), cpu(8)), Ok(0));
        assert_eq!(space.load(Gpa(0x902_0010), cpu(8)).map(u64::swap_bytes), Ok(DMA_SIGNATURE));
        // The directory by DMA.
        let request = |control: u32, len: u32, to: u64| {
            let mut r = control.to_be_bytes().to_vec();
            r.extend_from_slice(&len.to_be_bytes());
            r.extend_from_slice(&to.to_be_bytes());
            space.write(Gpa(0x4000_0000), &r, Requester::Cpu(0)).unwrap();
            space.store(Gpa(0x902_0014), u64::from(0x4000_0000u32.swap_bytes()), cpu(4)).unwrap();
            (space.load(Gpa(0x4000_0000), cpu(4)).unwrap() as u32).swap_bytes()
        };
        assert_eq!(request(u32::from(key::FILE_DIR) << 16 | SELECT | READ, 4 + 128, 0x4000_1000), 0);
        let mut dir = [0; 132];
        space.read(Gpa(0x4000_1000), &mut dir, Requester::Cpu(0)).unwrap();
        assert_eq!(&dir[..4], &[0, 0, 0, 2]);
        assert_eq!(&dir[4..8], &[0, 0, 0, 5]);
        assert_eq!(&dir[12..17], b"etc/a");
        let key = u32::from(dir[8]) << 8 | u32::from(dir[9]);
        assert_eq!(request(key << 16 | SELECT | SKIP, 1, 0), 0);
        assert_eq!(request(READ, 8, 0x4000_2000), 0);
        assert_eq!(space.load(Gpa(0x4000_2000), cpu(8)), Ok(u64::from_le_bytes(*b"irst\0\0\0\0")));
        assert_eq!(request(READ, 8, 0), ERROR);
        assert_eq!(request(READ, u32::MAX, 0x4000_f000), ERROR);
        assert_eq!(request(WRITE, 8, 0x4000_2000), ERROR);
    }
}
