//! Address spaces: overlaps, aliases, access rules, notification, dirty log, code pages.

use parking_lot::Mutex;
use rhea_memory::*;
use std::sync::{Arc, Weak};

/// Records accesses; reads answer the offset's bytes.
struct Probe {
    rules: AccessRules,
    seen: Mutex<Vec<(u64, u8, Option<u64>)>>,
}

impl Probe {
    fn new(rules: AccessRules) -> Arc<Self> {
        Arc::new(Self { rules, seen: Mutex::default() })
    }
    fn take(&self) -> Vec<(u64, u8, Option<u64>)> {
        std::mem::take(&mut self.seen.lock())
    }
}

impl MmioDevice for Probe {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        self.seen.lock().push((offset, access.size, None));
        Ok((0..8).fold(0, |v, i| v | ((offset + i) & 0xff) << (8 * i)))
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        self.seen.lock().push((offset, access.size, Some(value)));
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        self.rules
    }
}

#[derive(Default)]
struct Changes(Mutex<Vec<MemoryChange>>);
impl ChangeListener for Changes {
    fn memory_changed(&self, change: &MemoryChange) {
        self.0.lock().push(change.clone());
    }
}

fn cpu(size: u8) -> Access {
    Access::cpu(0, size)
}

#[test]
fn overlap_priority_and_removal() {
    let space = AddressSpace::new("system");
    let ram = RamBlock::anonymous("ram", 0x10000).unwrap();
    let _ram = space.map_ram(Gpa(0), &ram, 0, 0x10000, 0).unwrap();
    let dev = Probe::new(AccessRules::ANY);
    let over = space.map_mmio(Gpa(0x4000), 0x1000, dev.clone(), 1).unwrap();
    assert_eq!(space.view().ranges().len(), 3);
    space.store(Gpa(0x3ff8), 0x1122_3344_5566_7788, cpu(8)).unwrap();
    assert_eq!(space.load(Gpa(0x3ffc), cpu(2)), Ok(0x3344));
    assert_eq!(space.load(Gpa(0x4010), cpu(4)), Ok(0x1312_1110));
    // Across the edge of RAM and device.
    assert_eq!(space.load(Gpa(0x3ffe), cpu(4)), Ok(0x0100_1122));
    over.move_to(Gpa(0xf800)).unwrap();
    assert_eq!(space.load(Gpa(0x10000), cpu(4)), Ok(0x0302_0100), "offset 0x800 has low bytes 0..3");
    over.set_enabled(false);
    assert_eq!(space.load(Gpa(0x10000), cpu(4)), Err(BusError::Unassigned));
    over.set_enabled(true);
    drop(over);
    assert_eq!(space.view().ranges().len(), 1);
    assert_eq!(space.load(Gpa(0xf800), cpu(4)), Ok(0));
    assert!(space.map_ram(Gpa(0), &ram, 0x8000, 0x8001, 0).is_err());
    assert!(space.map_mmio(Gpa(u64::MAX), 2, dev, 0).is_err());
}

#[test]
fn top_of_the_address_space() {
    let space = AddressSpace::new("system");
    let dev = Probe::new(AccessRules::ANY);
    let _low = space.map_mmio(Gpa(0), u64::MAX, dev.clone(), -1).unwrap();
    let _high = space.map_mmio(Gpa(u64::MAX - 0xfff), 0x1000, dev, 0).unwrap();
    assert_eq!(space.view().ranges().len(), 2);
    assert!(space.load(Gpa(u64::MAX), cpu(1)).is_ok());
    assert!(space.load(Gpa(u64::MAX - 3), cpu(8)).is_ok(), "wraps to 0");
}

#[test]
fn access_rules() {
    let space = AddressSpace::new("system");
    let word = Probe::new(AccessRules::WORD);
    let exact = Probe::new(AccessRules::exactly(4));
    let _a = space.map_mmio(Gpa(0), 0x100, word.clone(), 0).unwrap();
    let _b = space.map_mmio(Gpa(0x100), 0x100, exact, 0).unwrap();
    assert_eq!(space.load(Gpa(2), cpu(1)), Ok(2));
    assert_eq!(space.load(Gpa(8), cpu(8)), Ok(0x0f0e_0d0c_0b0a_0908));
    assert_eq!(space.load(Gpa(6), cpu(4)), Ok(0x0908_0706));
    assert_eq!(word.take(), [(0, 4, None), (8, 4, None), (12, 4, None), (4, 4, None), (8, 4, None)]);
    space.store(Gpa(1), 0xab, cpu(1)).unwrap();
    space.store(Gpa(6), 0x1122_3344, cpu(4)).unwrap();
    space.store(Gpa(16), 0x1122_3344_5566_7788, cpu(8)).unwrap();
    let w = |o, v| (o, 4, Some(v));
    assert_eq!(word.take(), [w(0, 0xab00), w(4, 0x3344_0000), w(8, 0x1122), w(16, 0x5566_7788), w(20, 0x1122_3344)]);
    assert_eq!(space.load(Gpa(0x100), cpu(2)), Err(BusError::Refused));
    assert_eq!(space.load(Gpa(0x102), cpu(4)), Err(BusError::Refused));
    assert!(space.load(Gpa(0x100), cpu(4)).is_ok());
    let mut bytes = [0; 7];
    space.read(Gpa(0x11), &mut bytes, Requester::Device(3)).unwrap();
    assert_eq!(bytes, [0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17]);
}

#[test]
fn rom_and_flash() {
    let space = AddressSpace::new("system");
    let rom = RamBlock::anonymous("rom", 0x2000).unwrap();
    let dev = Probe::new(AccessRules::ANY);
    let _rom = space.map_rom(Gpa(0), &rom, 0, 0x1000, 0).unwrap();
    let flash = space.map_rom_device(Gpa(0x1000), &rom, 0x1000, 0x1000, dev.clone(), 0).unwrap();
    space.write_rom(Gpa(0xffe), &[1, 2, 3, 4]).unwrap();
    assert_eq!(space.load(Gpa(0xffe), cpu(2)), Ok(0x201));
    assert_eq!(space.load(Gpa(0x1000), cpu(2)), Ok(0x403));
    assert_eq!(space.store(Gpa(0), 1, cpu(4)), Err(BusError::ReadOnly));
    assert_eq!(space.compare_exchange(Gpa(0), 4, 0, 1), Err(BusError::ReadOnly));
    space.store(Gpa(0x1004), 0x90, cpu(2)).unwrap();
    assert_eq!(dev.take(), [(4, 2, Some(0x90))]);
    assert!(space.host_slice(Gpa(0), 16).is_none());
    assert!(space.host_slice_readable(Gpa(0), 16).is_some());
    flash.set_rom_mode(false);
    assert_eq!(space.load(Gpa(0x1000), cpu(2)), Ok(0x100));
    flash.set_rom_mode(true);
    assert_eq!(space.load(Gpa(0x1000), cpu(2)), Ok(0x403));
}

#[test]
fn aliases_follow() {
    let pci = AddressSpace::new("pci");
    let system = AddressSpace::new("system");
    let dev = Probe::new(AccessRules::ANY);
    let ram = RamBlock::anonymous("ram", 0x1000).unwrap();
    let _below = system.map_ram(Gpa(0x2000), &ram, 0, 0x1000, -1).unwrap();
    let _window = system.map_alias(Gpa(0x1000), &pci, Gpa(0x8000), 0x2000, 0).unwrap();
    assert_eq!(system.load(Gpa(0x1010), cpu(1)), Err(BusError::Unassigned));
    let bar = pci.map_mmio(Gpa(0x7800), 0x1000, dev.clone(), 0).unwrap();
    assert_eq!(system.load(Gpa(0x1010), cpu(1)), Ok(0x10));
    assert_eq!(dev.take(), [(0x810, 1, None)]);
    bar.move_to(Gpa(0x9000)).unwrap();
    assert_eq!(system.load(Gpa(0x2010), cpu(1)), Ok(0x10));
    drop(bar);
    assert_eq!(system.load(Gpa(0x2010), cpu(1)), Ok(0));
}

#[test]
fn changes_are_announced_precisely() {
    let space = AddressSpace::new("system");
    let ram = RamBlock::anonymous("ram", 0x10000).unwrap();
    let changes = Arc::new(Changes::default());
    let subscription = space.subscribe(changes.clone());
    let map = space.map_ram(Gpa(0), &ram, 0, 0x10000, 0).unwrap();
    changes.0.lock().clear();
    let slice = space.host_slice(Gpa(0x100), 0x100).unwrap();
    assert!(slice.is_current(&space));
    let rom = space.map_rom(Gpa(0x1000), &ram, 0x1000, 0x1000, 1).unwrap();
    assert!(!slice.is_current(&space));
    {
        let seen = changes.0.lock();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].reason, ChangeReason::RangeProtection);
        assert!(seen[0].read_only_downgrade);
        assert_eq!(seen[0].ranges, [GpaRange { start: Gpa(0x1000), len: 0x1000 }]);
    }
    changes.0.lock().clear();
    space.transaction(|| {
        drop(rom);
        drop(map);
    });
    assert_eq!(changes.0.lock().len(), 1);
    assert_eq!(changes.0.lock()[0].ranges, [GpaRange { start: Gpa(0), len: 0x10000 }]);
    assert_eq!(changes.0.lock()[0].reason, ChangeReason::Unmap);
    drop(subscription);
    let _map = space.map_ram(Gpa(0), &ram, 0, 0x10000, 0).unwrap();
    assert_eq!(changes.0.lock().len(), 1);
}

#[derive(Default)]
struct CodeWrites(Mutex<Vec<(u64, u64)>>);
impl CodeWriteListener for CodeWrites {
    fn code_written(&self, _block: &RamBlock, offset: u64, len: u64) {
        self.0.lock().push((offset, len));
    }
}

/// Knows of one page that was written.
#[derive(Default)]
struct Elsewhere(Mutex<Vec<&'static str>>);

impl DirtySource for Elsewhere {
    fn track(&self, _: &RamBlock, on: bool) {
        self.0.lock().push(if on { "on" } else { "off" });
    }
    fn collect(&self, block: &RamBlock) {
        self.0.lock().push("collect");
        block.mark_dirty(0x3000, 1, &[DirtyClient::Migration, DirtyClient::Display]);
    }
}

/// Each source is there for some logs: told when the first of them begins and the last ends, and asked for those only.
#[test]
fn sources_of_dirty_pages() {
    use DirtyClient::{Display, Migration, Snapshot};
    let ram = RamBlock::anonymous("ram", 1 << 20).unwrap();
    let (all, some) = (Arc::new(Elsewhere::default()), Arc::new(Elsewhere::default()));
    let (weak, other): (Weak<Elsewhere>, Weak<Elsewhere>) = (Arc::downgrade(&all), Arc::downgrade(&some));
    ram.add_dirty_source(weak.clone(), &DirtyClient::ALL);
    ram.add_dirty_source(weak, &DirtyClient::ALL);
    ram.add_dirty_source(other, &[Migration, Snapshot]);
    ram.start_dirty_log(Display);
    assert!(ram.logged_for(&[Display]) && !ram.logged_for(&[Migration, Snapshot]));
    ram.start_dirty_log(Migration);
    assert_eq!(ram.take_dirty(Migration, 0, u64::MAX), [3]);
    ram.start_dirty_log(Snapshot);
    assert!(ram.take_dirty(Display, 0, 3).is_empty());
    for client in DirtyClient::ALL {
        ram.stop_dirty_log(client);
    }
    assert_eq!(*all.0.lock(), ["on", "collect", "collect", "collect", "collect", "off"]);
    assert_eq!(*some.0.lock(), ["on", "collect", "collect", "off"]);
    // Nobody's log is on, and one who is gone is not asked.
    ram.mark_dirty(0, 1 << 20, &DirtyClient::ALL);
    drop(some);
    ram.start_dirty_log(Migration);
    ram.mark_dirty(1 << 20, 1, &DirtyClient::ALL);
    ram.mark_dirty(0x8fff, 2, &[Snapshot, Migration]);
    assert_eq!(ram.take_dirty(Migration, 4, u64::MAX), [8, 9]);
}

#[test]
fn dirty_code_pins() {
    let space = AddressSpace::new("system");
    // A terabyte of guest memory costs nothing until touched.
    let ram = RamBlock::anonymous("ram", 1 << 40).unwrap();
    let _ram = space.map_ram(Gpa(0), &ram, 0, 1 << 40, 0).unwrap();
    let top = (1u64 << 40) - PAGE_SIZE;
    space.store(Gpa(top), 7, cpu(8)).unwrap();
    ram.start_dirty_log(DirtyClient::Migration);
    space.write(Gpa(top - 1), &[1, 2], Requester::Device(0)).unwrap();
    space.store(Gpa(0x42_f000), 7, cpu(8)).unwrap();
    assert_eq!(ram.take_dirty(DirtyClient::Migration, 0x400, 0x40), [0x42f]);
    assert_eq!(ram.take_dirty(DirtyClient::Migration, 0, u64::MAX), [top / PAGE_SIZE - 1, top / PAGE_SIZE]);
    ram.stop_dirty_log(DirtyClient::Migration);

    let listener = Arc::new(CodeWrites::default());
    let weak: std::sync::Weak<CodeWrites> = Arc::downgrade(&listener);
    ram.set_code_listener(weak);
    assert!(ram.set_code_page(5));
    assert!(!ram.set_code_page(5));
    space.store(Gpa(0x4000), 7, cpu(8)).unwrap();
    space.write(Gpa(0x4ff0), &[0; 64], Requester::Device(0)).unwrap();
    ram.clear_code_page(5);
    space.store(Gpa(0x5000), 7, cpu(8)).unwrap();
    assert_eq!(*listener.0.lock(), [(0x4ff0, 64)]);

    let slice = space.host_slice(Gpa(0x5800), 8).unwrap();
    slice.store_u64(0, 99).unwrap();
    assert_eq!(slice.load_u64(1), Err(BusError::Unassigned));
    assert_eq!(slice.load_u32(2), Err(BusError::Refused));
    slice.pin();
    assert_eq!(ram.discard(0x4000, 0x4000), Err(BusError::Refused));
    slice.unpin();
    ram.discard(0x4000, 0x4000).unwrap();
    assert_eq!(slice.load_u64(0), Ok(0));
    assert_eq!(space.compare_exchange(Gpa(0x5800), 8, 0, 5), Ok(0));
    assert_eq!(space.compare_exchange(Gpa(0x5800), 8, 0, 6), Ok(5));
    assert_eq!(space.load(Gpa(0x5800), cpu(8)), Ok(5));
}

#[test]
fn backings() {
    let dir = std::env::temp_dir();
    let file = dir.join(format!("rhea-memory-test-{}", std::process::id()));
    let backing = Backing::File { path: file.clone(), share: true };
    let block = RamBlock::new(RamOptions { name: "ram".into(), len: 0x3000, backing, prealloc: true }).unwrap();
    block.write(0x1234, b"hello").unwrap();
    assert_eq!(&std::fs::read(&file).unwrap()[0x1234..0x1239], b"hello");
    std::fs::remove_file(&file).unwrap();
    let backing = Backing::File { path: dir, share: false };
    assert!(RamBlock::new(RamOptions { name: "ram".into(), len: 0x3000, backing, prealloc: false }).is_ok());
    let backing = Backing::File { path: "/nonexistent/x".into(), share: false };
    let error = RamBlock::new(RamOptions { name: "ram".into(), len: 0x3000, backing, prealloc: false }).err().unwrap();
    assert!(error.to_string().contains("/nonexistent/x"));
    assert!(matches!(RamBlock::anonymous("x", 0x1001), Err(MemoryError::Size { .. })));
    assert!(matches!(RamBlock::anonymous("x", 1 << 60), Err(MemoryError::Allocate { .. })));
}

/// Pages that are guest code's alone: nobody else reaches them, wherever they are mapped, and who kept their address is told.
#[test]
fn private_pages() {
    let space = AddressSpace::new("system");
    let ram = RamBlock::anonymous("ram", 0x20_0000).unwrap();
    let _low = space.map_ram(Gpa(0x1000), &ram, 0, 0x10_0000, 0).unwrap();
    let _again = space.map_ram(Gpa(0x100_0000), &ram, 0x4000, 0x4000, 0).unwrap();
    let bus = AddressSpace::new("bus");
    let _alias = bus.map_alias(Gpa(0x8000_0000), &space, Gpa(0), 0x200_0000, 0).unwrap();
    let (seen, behind) = (Arc::new(Changes::default()), Arc::new(Changes::default()));
    let _subscriptions = (space.subscribe(seen.clone()), bus.subscribe(behind.clone()));
    let slice = space.host_slice(Gpa(0x4000), 0x4000).unwrap();
    // From the middle of a page: it stays; two are whole.
    space.set_private(GpaRange { start: Gpa(0x4800), len: 0x2800 }, true);
    let change = seen.0.lock().pop().unwrap();
    assert_eq!((change.reason, change.generation), (ChangeReason::PrivateShared, space.generation()));
    assert_eq!(change.ranges.len(), 2, "also where it is mapped once more: {change:?}");
    assert_eq!(behind.0.lock()[0].ranges[0].start, Gpa(0x8000_4800));
    assert!(!slice.is_current(&space));
    let mut two = [0; 16];
    let device = Requester::Host;
    assert_eq!(space.read(Gpa(0x4ff0), &mut two, device), Ok(()));
    assert_eq!(space.read(Gpa(0x4ff8), &mut two, device), Err(BusError::Refused));
    assert_eq!(space.write(Gpa(0x6ff8), &two, device), Err(BusError::Refused));
    assert_eq!(space.write(Gpa(0x7000), &two, device), Ok(()));
    assert_eq!(space.load(Gpa(0x5000), cpu(4)), Err(BusError::Refused));
    assert_eq!(space.store(Gpa(0x5ffc), 1, cpu(4)), Err(BusError::Refused));
    assert_eq!(space.load(Gpa(0x4ffc), cpu(8)), Err(BusError::Refused), "into it");
    assert_eq!(space.compare_exchange(Gpa(0x5000), 4, 0, 1), Err(BusError::Refused));
    assert_eq!(bus.read(Gpa(0x8000_5000), &mut two, device), Err(BusError::Refused));
    assert_eq!(space.write_rom(Gpa(0x100_0000), &two), Err(BusError::Refused));
    assert!(space.host_slice(Gpa(0x4000), 0x1001).is_none() && space.host_slice(Gpa(0x4000), 0x1000).is_some());
    assert_eq!(ram.reachable(0x6000, 0x10_0000), 0x10_0000);
    assert_eq!(ram.reachable(0, 0x10_0000), 0x4000);
    // Given back.
    space.set_private(GpaRange { start: Gpa(0), len: u64::MAX }, false);
    assert_eq!(space.read(Gpa(0x5000), &mut two, device), Ok(()));
    assert!(space.host_slice(Gpa(0x4000), 0x4000).is_some());
}
