//! The firmware configuration device: numbered and named blobs the firmware reads, with DMA. Two register layouts lead to
//! the same device: memory-mapped (`qemu,fw-cfg-mmio`), and the x86 ports.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_device::{Device, DmaHandle, LoadError, Log, Saved};
use rhea_memory::{Access, AccessRules, BusError, Gpa, MmioDevice};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Fixed selectors.
pub mod key {
    pub const SIGNATURE: u16 = 0x00;
    pub const ID: u16 = 0x01;
    pub const UUID: u16 = 0x02;
    pub const RAM_SIZE: u16 = 0x03;
    pub const NO_GRAPHICS: u16 = 0x04;
    pub const NB_CPUS: u16 = 0x05;
    pub const KERNEL_ADDR: u16 = 0x07;
    pub const KERNEL_SIZE: u16 = 0x08;
    pub const INITRD_ADDR: u16 = 0x0a;
    pub const INITRD_SIZE: u16 = 0x0b;
    pub const NUMA: u16 = 0x0d;
    pub const BOOT_MENU: u16 = 0x0e;
    pub const MAX_CPUS: u16 = 0x0f;
    pub const KERNEL_ENTRY: u16 = 0x10;
    pub const KERNEL_DATA: u16 = 0x11;
    pub const INITRD_DATA: u16 = 0x12;
    pub const CMDLINE_ADDR: u16 = 0x13;
    pub const CMDLINE_SIZE: u16 = 0x14;
    pub const CMDLINE_DATA: u16 = 0x15;
    pub const SETUP_ADDR: u16 = 0x16;
    pub const SETUP_SIZE: u16 = 0x17;
    pub const SETUP_DATA: u16 = 0x18;
    pub const FILE_DIR: u16 = 0x19;
    pub const FILE_FIRST: u16 = 0x20;
    /// Selectors with this bit belong to the architecture.
    pub const ARCHITECTURE: u16 = 0x8000;
    pub const X86_IRQ0_OVERRIDE: u16 = ARCHITECTURE | 2;
    pub const X86_HPET: u16 = ARCHITECTURE | 4;
}

/// Length of the memory-mapped register window.
pub const LEN: u64 = 0x18;
/// The x86 ports: selector (16 bits) and data (8 bits, the next port), DMA address at offset 4.
pub const PORT: u64 = 0x510;
pub const PORT_LEN: u64 = 12;

const DMA_SIGNATURE: u64 = 0x5145_4d55_2043_4647; // "QEMU CFG"
const ERROR: u32 = 1;
const READ: u32 = 2;
const SKIP: u32 = 4;
const SELECT: u32 = 8;
const WRITE: u32 = 16;
/// File names are at most this long, with the terminating zero.
const NAME_LEN: usize = 56;
/// Selector bit that says the item is to be written; the items are the same.
const FOR_WRITING: u16 = 0x4000;

struct State {
    selector: u16,
    offset: usize,
    dma_high: u32,
}

type Written = Arc<dyn Fn(&[u8]) + Send + Sync>;
type Build = Arc<dyn Fn(&FwCfg) + Send + Sync>;

#[derive(Clone)]
struct Item {
    data: Arc<[u8]>,
    writable: Option<Writable>,
}

#[derive(Clone)]
struct Writable {
    /// Its content after a reset.
    initial: Arc<[u8]>,
    written: Written,
}

/// Files that are made when the guest first reads one of them.
struct Lazy {
    keys: Vec<u16>,
    build: Build,
    /// Made since the last reset.
    done: bool,
}

/// The device. Blobs are added while the machine is built.
pub struct FwCfg {
    items: Mutex<BTreeMap<u16, Item>>,
    files: Mutex<Vec<(String, u16)>>,
    lazy: Mutex<Vec<Lazy>>,
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
            lazy: Mutex::default(),
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
        self.items.lock().insert(key, Item { data: data.into(), writable: None });
    }
    pub fn add_u16(&self, key: u16, value: u16) {
        self.add(key, value.to_le_bytes().as_slice());
    }
    pub fn add_u32(&self, key: u16, value: u32) {
        self.add(key, value.to_le_bytes().as_slice());
    }
    pub fn add_u64(&self, key: u16, value: u64) {
        self.add(key, value.to_le_bytes().as_slice());
    }
    /// Adds or replaces a named file; false if the name is too long or there are too many.
    pub fn add_file(&self, name: &str, data: impl Into<Arc<[u8]>>) -> bool {
        self.put_file(name, Item { data: data.into(), writable: None })
    }
    /// Adds a file the guest can write by DMA, within its length; `written` is given the whole new content after each write. A
    /// reset brings the first content back.
    pub fn add_writable_file(
        &self,
        name: &str,
        data: impl Into<Arc<[u8]>>,
        written: impl Fn(&[u8]) + Send + Sync + 'static,
    ) -> bool {
        let data: Arc<[u8]> = data.into();
        let writable = Writable { initial: data.clone(), written: Arc::new(written) };
        self.put_file(name, Item { data, writable: Some(writable) })
    }
    /// Files whose content depends on what firmware has set up: `build` adds them (with [`FwCfg::add_file`]), now and again when
    /// the guest reads one of them for the first time since a reset. Their lengths should stay, as the guest reads the directory
    /// before.
    pub fn add_lazy_files(&self, names: &[&str], build: impl Fn(&FwCfg) + Send + Sync + 'static) {
        build(self);
        let keys = {
            let files = self.files.lock();
            files.iter().filter(|(n, _)| names.contains(&n.as_str())).map(|(_, key)| *key).collect()
        };
        self.lazy.lock().push(Lazy { keys, build: Arc::new(build), done: false });
    }

    fn put_file(&self, name: &str, item: Item) -> bool {
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
        items.insert(key, item);
        // The directory is sorted by name: count, then size, selector, reserved, name of each; big-endian.
        let mut sorted: Vec<_> = files.iter().collect();
        sorted.sort();
        let mut dir = (files.len() as u32).to_be_bytes().to_vec();
        for (name, key) in sorted {
            let len = items.get(key).map_or(0, |i| i.data.len() as u32);
            dir.extend_from_slice(&len.to_be_bytes());
            dir.extend_from_slice(&key.to_be_bytes());
            dir.extend_from_slice(&[0, 0]);
            let mut field = [0; NAME_LEN];
            field[..name.len()].copy_from_slice(name.as_bytes());
            dir.extend_from_slice(&field);
        }
        items.insert(key::FILE_DIR, Item { data: dir.into(), writable: None });
        true
    }

    fn item(&self, selector: u16) -> Option<Item> {
        let key = selector & !FOR_WRITING;
        let build = {
            let mut lazy = self.lazy.lock();
            let wanted = lazy.iter_mut().find(|l| !l.done && l.keys.contains(&key));
            wanted.map(|l| {
                l.done = true;
                l.build.clone()
            })
        };
        if let Some(build) = build {
            build(self);
        }
        self.items.lock().get(&key).cloned()
    }

    fn data(&self, selector: u16) -> Arc<[u8]> {
        self.item(selector).map(|i| i.data).unwrap_or_default()
    }

    /// Several bytes of the data register: those of the blob in their order, whatever the width.
    fn next_bytes(&self, bytes: &mut [u8]) {
        let selector = self.state.lock().selector;
        let data = self.data(selector);
        let mut state = self.state.lock();
        for byte in bytes {
            *byte = data.get(state.offset).copied().unwrap_or(0);
            state.offset = state.offset.saturating_add(1);
        }
    }

    fn select(&self, selector: u16) {
        let mut state = self.state.lock();
        state.selector = selector;
        state.offset = 0;
    }

    /// A byte of the DMA register as it reads.
    fn signature(at: u64) -> u8 {
        usize::try_from(at).ok().and_then(|at| DMA_SIGNATURE.to_be_bytes().get(at).copied()).unwrap_or(0)
    }

    /// A write to the big-endian DMA address register, at `offset` within it.
    fn write_dma(&self, offset: u64, value: u64, size: u8) {
        match (offset, size) {
            (0, 4) => self.state.lock().dma_high = (value as u32).swap_bytes(),
            (4, 4) => {
                let high = std::mem::take(&mut self.state.lock().dma_high);
                self.run_dma((u64::from(high) << 32) | u64::from((value as u32).swap_bytes()));
            }
            (0, 8) => self.run_dma(value.swap_bytes()),
            _ => {
                self.log.guest_error("fw_cfg", format_args!("write of {size} bytes at {offset:#x} of the DMA address"))
            }
        }
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
        if control & SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        let (selector, start) = {
            let mut state = self.state.lock();
            let start = state.offset;
            if control & (READ | WRITE | SKIP) != 0 {
                state.offset = start.saturating_add(len);
            }
            (state.selector, start)
        };
        let ok = if control & READ != 0 {
            self.dma_read(selector, start, len, target)
        } else if control & WRITE != 0 {
            self.dma_write(selector, start, len, target)
        } else {
            true
        };
        let result = if ok { 0 } else { ERROR };
        if self.dma.write(at, &result.to_be_bytes()).is_err() {
            self.log.guest_error("fw_cfg", format_args!("DMA request structure is not writable"));
        }
    }

    fn dma_read(&self, selector: u16, start: usize, len: usize, target: u64) -> bool {
        let data = self.data(selector);
        let have = data.get(start..).unwrap_or_default();
        let have = &have[..have.len().min(len)];
        let mut ok = self.dma.write(Gpa(target), have).is_ok();
        // Beyond the blob reads as zero.
        let (mut done, zeros) = (have.len(), [0; 4096]);
        while ok && done < len {
            let n = (len - done).min(zeros.len());
            ok = self.dma.write(Gpa(target).offset(done as u64), &zeros[..n]).is_ok();
            done += n;
        }
        ok
    }

    fn dma_write(&self, selector: u16, start: usize, len: usize, target: u64) -> bool {
        let Some(Item { data, writable: Some(writable) }) = self.item(selector) else { return false };
        let mut new = data.to_vec();
        let Some(part) = start.checked_add(len).and_then(|end| new.get_mut(start..end)) else { return false };
        if self.dma.read(Gpa(target), part).is_err() {
            return false;
        }
        if let Some(item) = self.items.lock().get_mut(&(selector & !FOR_WRITING)) {
            item.data = new.as_slice().into();
        }
        (writable.written)(&new);
        true
    }

    /// The x86 ports, to be mapped at [`PORT`] of the I/O space.
    #[must_use]
    pub fn ports(self: &Arc<Self>) -> Arc<FwCfgPorts> {
        Arc::new(FwCfgPorts { device: self.clone() })
    }
}

impl MmioDevice for FwCfg {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        let mut bytes = [0; 8];
        let part = &mut bytes[..usize::from(access.size.min(8))];
        match offset {
            0..8 => self.next_bytes(part),
            16..24 => part.iter_mut().zip(offset - 16..).for_each(|(b, at)| *b = Self::signature(at)),
            _ => {}
        }
        Ok(u64::from_le_bytes(bytes))
    }

    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        match (offset, access.size) {
            (8, 2) => self.select((value as u16).swap_bytes()),
            (16..24, size) => self.write_dma(offset - 16, value, size),
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

/// The device behind the x86 ports.
pub struct FwCfgPorts {
    device: Arc<FwCfg>,
}

impl MmioDevice for FwCfgPorts {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        let mut bytes = [0; 8];
        let part = &mut bytes[..usize::from(access.size.min(8))];
        // Both the selector's and the data port give data.
        let data = 2usize.saturating_sub(usize::try_from(offset).unwrap_or(2)).min(part.len());
        let (data, rest) = part.split_at_mut(data);
        if !data.is_empty() {
            self.device.next_bytes(data);
        }
        let first = offset + data.len() as u64;
        rest.iter_mut().zip(first..).filter(|(_, at)| *at >= 4).for_each(|(b, at)| *b = FwCfg::signature(at - 4));
        Ok(u64::from_le_bytes(bytes))
    }

    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        match (offset, access.size) {
            (0, 2) => self.device.select(value as u16),
            // Data cannot be written this way.
            (0 | 1, 1) => {}
            (4..12, size) => self.device.write_dma(offset - 4, value, size),
            _ => {
                let log = &self.device.log;
                log.guest_error("fw_cfg", format_args!("write of {} bytes at port {:#x}", access.size, PORT + offset));
            }
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

#[derive(Encode, Decode)]
struct Saving {
    #[n(0)]
    selector: u16,
    #[n(1)]
    offset: u64,
    #[n(2)]
    dma_high: u32,
    /// Selector and content of files the guest has written.
    #[n(3)]
    written: Option<Vec<(u16, ByteVec)>>,
}

impl Device for FwCfg {
    fn name(&self) -> &str {
        "fw_cfg"
    }
    fn reset(&self) {
        *self.state.lock() = State { selector: 0, offset: 0, dma_high: 0 };
        self.lazy.lock().iter_mut().for_each(|l| l.done = false);
        for item in self.items.lock().values_mut() {
            if let Some(writable) = &item.writable {
                item.data = writable.initial.clone();
            }
        }
    }
    fn save(&self) -> Saved {
        let State { selector, offset, dma_high } = *self.state.lock();
        let items = self.items.lock();
        let changed = items.iter().filter(|(_, i)| i.writable.as_ref().is_some_and(|w| w.initial != i.data));
        let written = changed.map(|(key, i)| (*key, i.data.to_vec().into())).collect();
        rhea_device::state::encode(1, &Saving { selector, offset: offset as u64, dma_high, written: Some(written) })
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        let Saving { selector, offset, dma_high, written } = rhea_device::state::decode(saved, 1)?;
        self.reset();
        *self.state.lock() = State { selector, offset: usize::try_from(offset).unwrap_or(usize::MAX), dma_high };
        for (key, content) in written.unwrap_or_default() {
            let mut items = self.items.lock();
            // A file of another length is another machine's.
            let item = items.get_mut(&key).filter(|i| i.data.len() == content.len());
            let Some(Item { data, writable: Some(writable) }) = item else {
                return Err(LoadError::Mismatch(format!(
                    "it has no writable fw_cfg item {key:#x} of {} bytes",
                    content.len()
                )));
            };
            *data = content.as_slice().into();
            let written = writable.written.clone();
            drop(items);
            written(&content);
        }
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

    #[test]
    fn ports() {
        let space = AddressSpace::new("system");
        let ram = RamBlock::anonymous("ram", 0x10000).unwrap();
        let _ram = space.map_ram(Gpa(0), &ram, 0, 0x10000, 0).unwrap();
        let io = AddressSpace::new("I/O");
        let fw = FwCfg::new(DmaHandle::new(space.clone(), 0x10000), Log::off());
        let _map = io.map_mmio(Gpa(PORT), PORT_LEN, fw.ports(), 0).unwrap();
        fw.add_u32(key::X86_IRQ0_OVERRIDE, 1);
        let out = |port: u64, size, value| io.store(Gpa(port), value, Access::cpu(0, size)).unwrap();
        let inp = |port: u64, size| io.load(Gpa(port), Access::cpu(0, size)).unwrap();
        out(0x510, 2, key::SIGNATURE.into());
        assert_eq!([(); 5].map(|()| inp(0x511, 1) as u8), *b"QEMU\0");
        out(0x510, 2, key::X86_IRQ0_OVERRIDE.into());
        assert_eq!(inp(0x511, 1), 1);
        assert_eq!((inp(0x514, 4) as u32).swap_bytes(), 0x5145_4d55);
        assert_eq!((inp(0x518, 4) as u32).swap_bytes(), 0x2043_4647);
        // A file made on first use, once per reset.
        let count = Arc::new(std::sync::atomic::AtomicU8::new(0));
        let counted = count.clone();
        fw.add_lazy_files(&["etc/lazy"], move |fw| {
            let n = counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            assert!(fw.add_file("etc/lazy", [n].as_slice()));
        });
        out(0x510, 2, key::FILE_FIRST.into());
        assert_eq!(inp(0x511, 1), 1);
        out(0x510, 2, key::FILE_FIRST.into());
        assert_eq!(inp(0x511, 1), 1);
        fw.reset();
        out(0x510, 2, key::FILE_FIRST.into());
        assert_eq!(inp(0x511, 1), 2);
        // Writing by DMA.
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sees = seen.clone();
        assert!(fw.add_writable_file("etc/w", [1, 2, 3, 4].as_slice(), move |data| *sees.lock() = data.to_vec()));
        let dma = |control: u32, len: u32| {
            let mut request = control.to_be_bytes().to_vec();
            request.extend_from_slice(&len.to_be_bytes());
            request.extend_from_slice(&0x2000u64.to_be_bytes());
            space.write(Gpa(0x1000), &request, Requester::Host).unwrap();
            out(0x514, 4, 0);
            out(0x518, 4, u64::from(0x1000u32.swap_bytes()));
            let mut result = [0; 4];
            space.read(Gpa(0x1000), &mut result, Requester::Host).unwrap();
            u32::from_be_bytes(result)
        };
        space.write(Gpa(0x2000), &[9, 8], Requester::Host).unwrap();
        let select = (u32::from(key::FILE_FIRST) + 1) << 16 | SELECT;
        assert_eq!(dma(select | WRITE, 2), 0);
        assert_eq!(*seen.lock(), [9, 8, 3, 4]);
        assert_eq!(dma(WRITE, 3), ERROR);
        assert_eq!(dma(u32::from(key::FILE_FIRST) << 16 | SELECT | WRITE, 1), ERROR);
        let saved = fw.save();
        fw.reset();
        seen.lock().clear();
        fw.load(&saved).unwrap();
        assert_eq!(*seen.lock(), [9, 8, 3, 4]);
        assert_eq!(dma(select | READ, 4), 0);
        let mut data = [0; 4];
        space.read(Gpa(0x2000), &mut data, Requester::Host).unwrap();
        assert_eq!(data, [9, 8, 3, 4]);
    }
}
