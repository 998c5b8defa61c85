//! Maps that follow memory and translations.

use super::{Bench, MIB};
use crate::sys::fake::{Call, FakeContainer, FakeKernel};
use crate::sys::{self, ContainerInfo, DmaMap, extension};
use crate::{Assigned, Wanted};
use parking_lot::Mutex;
use rhea_device::dma::{
    DmaHandle, DmaWindow, Iommu, IommuPlace, Translated, Translation, TranslationListener, Translations,
};
use rhea_memory::{
    Access, AccessRules, BusError, ChangeReason, DevicePages, Gpa, GpaRange, MemoryChange, MmioDevice, PAGE_SIZE,
    RamBlock,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

pub(super) struct Silent;

impl MmioDevice for Silent {
    fn read(&self, _: u64, _: Access) -> Result<u64, BusError> {
        Ok(0)
    }
    fn write(&self, _: u64, _: u64, _: Access) -> Result<(), BusError> {
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::implemented(1, 8)
    }
    fn name(&self) -> &str {
        "silent"
    }
}

/// Memory of a device.
struct Pages(Arc<RamBlock>);

#[expect(unsafe_code, reason = "device memory that a test can have")]
// SAFETY: the block, which is as long as that, lives as long as the value.
unsafe impl DevicePages for Pages {
    fn host(&self) -> *mut u8 {
        self.0.host_ptr()
    }
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl Bench {
    fn assign(&self) -> Assigned {
        let assigned = self.vfio.assign(Wanted::Address("01:00.0".to_owned()), None, &self.dma).expect("assigned");
        self.kernel.log.take();
        assigned
    }
    fn container(&self) -> Arc<FakeContainer> {
        self.kernel.containers.lock().last().cloned().expect("a container")
    }
    /// What is mapped, by offset in the RAM.
    fn maps(&self) -> Vec<(u64, u64, u64, bool)> {
        let base = self.host(&self.ram);
        let container = self.container();
        let maps = container.maps.lock();
        maps.ranges.values().map(|m| (m.iova, m.len, m.host.wrapping_sub(base), m.write)).collect()
    }
    /// Every address leads where the address space says.
    fn check(&self) {
        let container = self.container();
        let maps = container.maps.lock();
        for page in 0..8 * MIB / PAGE_SIZE {
            let gpa = Gpa(page * PAGE_SIZE);
            let want = match self.memory.view().lookup(gpa) {
                rhea_memory::Lookup::Ram { host, readonly, .. } => Some((host.expose_provenance() as u64, !readonly)),
                _ => None,
            };
            let is = maps.resolve(gpa.0);
            assert_eq!(is.map(|(host, _)| host), want.map(|(host, _)| host), "{gpa}");
            assert!(is.is_none_or(|(_, write)| write || !want.is_some_and(|(_, write)| write)), "{gpa}");
        }
    }
}

/// A part of a range is something else for a while.
#[test]
fn cut_and_mended() {
    let bench = Bench::new(FakeKernel::default());
    let assigned = bench.assign();
    let host = bench.host(&bench.ram);
    assert!(bench.ram.pinned(0) && bench.ram.discard(0, PAGE_SIZE).is_err());
    let hole = bench.memory.map_mmio(Gpa(MIB), PAGE_SIZE, Arc::new(Silent), 1).expect("room");
    let above = MIB + PAGE_SIZE;
    assert_eq!(
        bench.kernel.log.take(),
        [
            Call::Unmap(0, 4 * MIB),
            Call::Map(DmaMap { iova: 0, len: MIB, host, write: true }),
            Call::Map(DmaMap { iova: above, len: 4 * MIB - above, host: host + above, write: true }),
        ]
    );
    bench.check();
    assert!(!bench.ram.pinned(MIB / PAGE_SIZE) && bench.ram.pinned(MIB / PAGE_SIZE + 1));
    assert!(bench.ram.discard(MIB, PAGE_SIZE).is_ok());
    drop(hole);
    assert_eq!(
        bench.kernel.log.take(),
        [Call::Map(DmaMap { iova: MIB, len: PAGE_SIZE, host: host + MIB, write: true })]
    );
    bench.check();
    // Other RAM over the edges of all three.
    let other = RamBlock::anonymous("other", MIB).expect("RAM");
    let over = bench.memory.map_ram(Gpa(MIB / 2), &other, 0, MIB, 1).expect("room");
    bench.check();
    assert!(other.pinned(255) && assigned.space().is_some_and(|s| s.mapped() == (3, 4 * MIB)));
    drop(over);
    bench.check();
    assert!(!other.pinned(0));
    // Side by side: one call.
    bench.kernel.log.take();
    let over = bench.memory.map_ram(Gpa(0), &other, 0, MIB, 1).expect("room");
    bench.check();
    bench.memory.transaction(|| {
        drop(over);
        let whole = bench.memory.map_mmio(Gpa(0), 8 * MIB, Arc::new(Silent), 2);
        drop(whole.expect("room"));
    });
    bench.check();
    let whole = bench.memory.map_mmio(Gpa(0), 8 * MIB, Arc::new(Silent), 2).expect("room");
    let calls = bench.kernel.log.take();
    assert_eq!(calls.last(), Some(&Call::Unmap(0, 4 * MIB)), "{calls:?}");
    assert!(bench.maps().is_empty() && bench.warnings.lock().is_empty());
    drop((whole, assigned));
    bench.kernel.log.take();
    drop(bench.memory.map_ram(Gpa(8 * MIB), &other, 0, MIB, 1));
    assert_eq!(bench.kernel.log.take(), [], "nobody follows any more");
}

/// C1: what does not change where memory is remaps nothing.
#[test]
fn ignored() {
    let bench = Bench::new(FakeKernel::default());
    let assigned = bench.assign();
    let space = assigned.space().expect("a space").clone();
    let ignored = || space.counters().ignored.load(Ordering::Relaxed);
    let ranges = vec![GpaRange { start: Gpa(0), len: 4 * MIB }];
    for (reason, read_only_downgrade) in [
        (ChangeReason::SoftDirty, false),
        (ChangeReason::RangeProtection, true),
        (ChangeReason::PageProtection, false),
        (ChangeReason::ClearOrMigrate, false),
        (ChangeReason::PrivateShared, false),
    ] {
        bench.memory.announce(MemoryChange { reason, ranges: ranges.clone(), read_only_downgrade, generation: 0 });
    }
    assert_eq!(ignored(), 5);
    // Writability that goes and comes back; a device's registers that come and go elsewhere.
    let shadow = bench.memory.map_rom(Gpa(MIB), &bench.ram, MIB, MIB, 1).expect("room");
    drop(shadow);
    drop(bench.memory.map_mmio(Gpa(1 << 40), PAGE_SIZE, Arc::new(Silent), 0));
    let pages = RamBlock::device("bar", Arc::new(Pages(RamBlock::anonymous("pages", PAGE_SIZE).expect("RAM"))));
    drop(bench.memory.map_ram(Gpa(8 * MIB), &pages.expect("a block"), 0, PAGE_SIZE, 0));
    assert_eq!(ignored(), 11);
    assert_eq!(bench.kernel.log.take(), []);
    bench.check();
}

/// ROM is mapped for reading, and again when it becomes writable.
#[test]
fn rom() {
    let bench = Bench::new(FakeKernel::default());
    let rom = RamBlock::anonymous("rom", MIB).expect("ROM");
    let map = bench.memory.map_rom(Gpa(6 * MIB), &rom, 0, MIB, 0).expect("room");
    let _assigned = bench.assign();
    assert!(bench.maps().iter().any(|m| (m.0, m.1, m.3) == (6 * MIB, MIB, false)));
    let writable = bench.memory.map_ram(Gpa(6 * MIB), &rom, 0, MIB, 1).expect("room");
    assert!(bench.maps().iter().any(|m| (m.0, m.1, m.3) == (6 * MIB, MIB, true)));
    bench.check();
    drop((writable, map));
    bench.check();
}

/// The host's pages are larger than the guest's.
#[test]
fn pages_and_reach() {
    let kernel = FakeKernel::default();
    *kernel.info.lock() =
        ContainerInfo { page_sizes: !0xffff, iova_ranges: vec![(0, 16 * MIB - 1)], ..ContainerInfo::default() };
    let bench = Bench::new(kernel);
    let small = RamBlock::anonymous("small", 0x1000).expect("RAM");
    let odd = RamBlock::anonymous("odd", 0x23000).expect("RAM");
    let _maps = (
        bench.memory.map_ram(Gpa(6 * MIB + 0x3000), &small, 0, 0x1000, 0).expect("room"),
        bench.memory.map_ram(Gpa(7 * MIB), &odd, 0, 0x23000, 0).expect("room"),
    );
    let assigned = bench.assign();
    let space = assigned.space().expect("a space");
    let windows = [(0, 16), (8, 8), (8, 9), (32, 1)].map(|(base, len)| (base * MIB, len * MIB));
    let reached = windows.map(|(base, len)| space.reaches(DmaWindow { base, len, page_shift: 16 }));
    assert_eq!(reached, [true, true, false, false]);
    let sizes: Vec<_> = bench.maps().iter().map(|m| (m.0, m.1)).collect();
    assert_eq!(sizes, [(0, 4 * MIB), (7 * MIB, 0x20000)]);
    assert!(bench.warnings.lock()[0].contains("fills no page of the host's IOMMU (0x10000 bytes)"));
    // A small device in the middle takes a whole page of the IOMMU.
    let hole = bench.memory.map_mmio(Gpa(MIB + 0x5000), 0x1000, Arc::new(Silent), 1).expect("room");
    let sizes: Vec<_> = bench.maps().iter().map(|m| (m.0, m.1)).collect();
    assert_eq!(sizes, [(0, MIB), (MIB + 0x10000, 3 * MIB - 0x10000), (7 * MIB, 0x20000)]);
    drop(hole);
    assert_eq!(bench.maps().len(), 4);
    // Memory that is added out of reach is told of.
    let far = bench.memory.map_ram(Gpa(1 << 32), &odd, 0, 0x20000, 0).expect("room");
    assert!(
        bench.warnings.lock().last().is_some_and(|w| w.contains("where the host's IOMMU maps nothing (0x0-0xffffff)"))
    );
    drop(far);
}

/// Each call of a change fails in turn: what was there stays, or is gone and told of, and the next change mends it.
#[test]
fn failures() {
    for n in 0..3 {
        let bench = Bench::new(FakeKernel::default());
        let assigned = bench.assign();
        bench.kernel.log.fail_after(n, libc::EIO);
        let hole = bench.memory.map_mmio(Gpa(MIB), PAGE_SIZE, Arc::new(Silent), 1).expect("room");
        assert_eq!(bench.maps(), [(0, 4 * MIB, 0, true)], "call {n}: as it was");
        assert!(bench.ram.pinned(MIB / PAGE_SIZE) && bench.warnings.lock().len() == 1);
        assert_eq!(assigned.space().map(|s| s.counters().failed.load(Ordering::Relaxed)), Some(1));
        drop(hole);
        bench.check();
        assert_eq!(bench.maps(), [(0, 4 * MIB, 0, true)]);
        drop(assigned);
        assert!(!bench.ram.pinned(0));
    }
}

/// The limits of the kernel are explained.
#[test]
fn limits() {
    let bench = Bench::new(FakeKernel::default());
    let _assigned = bench.assign();
    bench.container().maps.lock().limit = Some(5 * MIB);
    let more = RamBlock::anonymous("more", 2 * MIB).expect("RAM");
    let map = bench.memory.map_ram(Gpa(8 * MIB), &more, 0, 2 * MIB, 0).expect("room");
    let told = bench.warnings.lock().last().cloned().expect("a warning");
    let limited = rustix::process::getrlimit(rustix::process::Resource::Memlock).current.is_some();
    let expected =
        if limited { "6144 KiB of memory must be locked for devices, and " } else { "cannot be mapped for devices" };
    assert!(told.contains(expected), "{told}");
    drop(map);
    bench.check();
}

// ---- a guest's IOMMU ----

/// Pages of 4 KiB, each with where it leads and whether it may be written.
pub(super) struct Tables {
    entries: Mutex<BTreeMap<u64, (u64, bool)>>,
    pub(super) windows: Mutex<Option<Vec<DmaWindow>>>,
    listeners: Mutex<Vec<Weak<dyn TranslationListener>>>,
}

struct Following(Arc<Tables>);

impl Translations for Following {
    fn windows(&self) -> Option<Vec<DmaWindow>> {
        self.0.windows.lock().clone()
    }
    fn mapped(&self, first: u64, last: u64, found: &mut dyn FnMut(Translated)) {
        for (iova, (gpa, write)) in self.0.entries.lock().range(first..=last) {
            found(Translated { iova: *iova, gpa: *gpa, len: PAGE_SIZE, read: true, write: *write });
        }
    }
}

impl Iommu for Tables {
    fn translate(&self, _: u32, _: u64, _: bool) -> Result<Translation, BusError> {
        Err(BusError::Refused)
    }
    fn interrupt(&self, _: u32, _: u64, _: u32) {}
    fn watch(&self, _: u32, _: &[GpaRange]) -> Arc<AtomicBool> {
        Arc::default()
    }
    fn domain(&self, _: u32) -> u32 {
        0
    }
    fn follow(
        self: Arc<Self>,
        _: u32,
        listener: Weak<dyn TranslationListener>,
    ) -> Result<Box<dyn Translations>, (&'static str, &'static str)> {
        self.listeners.lock().push(listener);
        Ok(Box::new(Following(self)))
    }
}

impl Tables {
    pub(super) fn new(windows: Option<Vec<DmaWindow>>) -> Arc<Self> {
        Arc::new(Self { entries: Mutex::default(), windows: Mutex::new(windows), listeners: Mutex::default() })
    }
    pub(super) fn tell(&self, range: Option<GpaRange>) {
        let listeners: Vec<_> = self.listeners.lock().iter().filter_map(Weak::upgrade).collect();
        for listener in listeners {
            listener.translation_changed(range);
        }
    }
    /// Sets an entry, `None`: clears it.
    pub(super) fn put(&self, iova: u64, entry: Option<(u64, bool)>) {
        match entry {
            Some(entry) => drop(self.entries.lock().insert(iova, entry)),
            None => drop(self.entries.lock().remove(&iova)),
        }
        self.tell(Some(GpaRange { start: Gpa(iova), len: PAGE_SIZE }));
    }
}

pub(super) fn behind(bench: &mut Bench, windows: Option<Vec<DmaWindow>>) -> Arc<Tables> {
    let tables = Tables::new(windows);
    let place = IommuPlace::default();
    assert!(place.set(tables.clone()).is_ok());
    bench.dma = DmaHandle::behind(bench.memory.clone(), 8, place);
    tables
}

#[test]
fn translations_are_followed() {
    let mut bench = Bench::new(FakeKernel::default());
    let tables = behind(&mut bench, None);
    tables.put(0x5000, Some((0x1000, true)));
    let assigned = bench.assign();
    assert_eq!(bench.maps(), [(0x5000, 0x1000, 0x1000, true)]);
    tables.put(0x6000, Some((0x2000, false)));
    tables.put(0x5000, Some((0x3000, true)));
    let all = [(0x5000, 0x1000, 0x3000, true), (0x6000, 0x1000, 0x2000, false)];
    assert_eq!(bench.maps(), all);
    // Adjacent pages stay apart: each comes and goes for itself.
    bench.kernel.log.take();
    tables.put(0x7000, Some((0x3000, false)));
    tables.put(0x6000, None);
    let calls = bench.kernel.log.take();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[1], Call::Unmap(0x6000, 0x1000));
    // The same again does nothing; nor does what leads to no memory.
    tables.put(0x7000, Some((0x3000, false)));
    tables.put(0x9000, Some((1 << 40, true)));
    assert_eq!(bench.kernel.log.take(), []);
    assert!(bench.ram.pinned(3) && !bench.ram.pinned(2));
    // Memory goes from under a translation, and comes back.
    let hole = bench.memory.map_mmio(Gpa(0x3000), 0x1000, Arc::new(Silent), 1).expect("room");
    assert!(bench.maps().is_empty() && !bench.ram.pinned(3));
    drop(hole);
    assert_eq!(bench.maps(), [(0x5000, 0x1000, 0x3000, true), (0x7000, 0x1000, 0x3000, false)]);
    drop(assigned);
    assert!(!bench.ram.pinned(3));
    tables.put(0x5000, None);
    assert!(tables.listeners.lock().iter().all(|l| l.strong_count() == 0));
}

/// A page may be mapped more often than its pins can be counted: it stays pinned then.
#[test]
fn pins_do_not_wrap() {
    let block = RamBlock::anonymous("ram", PAGE_SIZE).expect("RAM");
    for _ in 0..0x1_0001 {
        block.pin(0, PAGE_SIZE);
    }
    assert!(block.pinned(0));
    for _ in 0..0x1_0001 {
        block.unpin(0, PAGE_SIZE);
    }
    assert!(block.pinned(0) && block.discard(0, PAGE_SIZE).is_err());
}

fn tce_kernel() -> FakeKernel {
    FakeKernel { extensions: [extension::SPAPR_TCE_V2].into(), ..FakeKernel::default() }
}

/// Tables of the host follow those of the guest: windows, registered memory, entries.
#[test]
fn tce_windows() {
    let mut bench = Bench::new(tce_kernel());
    let low = DmaWindow { base: 0, len: 1 << 30, page_shift: 12 };
    let tables = behind(&mut bench, Some(vec![low]));
    tables.put(0x5000, Some((0x1000, true)));
    let assigned = bench.vfio.assign(Wanted::Address("01:00.0".to_owned()), None, &bench.dma).expect("assigned");
    let host = bench.host(&bench.ram);
    let entry = DmaMap { iova: 0x5000, len: 0x1000, host: host + 0x1000, write: true };
    assert_eq!(
        bench.kernel.log.take()[4..8],
        [Call::TceRemove(0), Call::TceCreate(12, 1 << 30), Call::Register(host, 4 * MIB), Call::Map(entry)]
    );
    assert!(bench.ram.pinned(1000), "registered memory is pinned as a whole");
    // A second window, far up; one that is there already is let be.
    let high = DmaWindow { base: 1 << 59, len: 8 * MIB, page_shift: 16 };
    *tables.windows.lock() = Some(vec![low, high]);
    tables.tell(None);
    let shift = sys::page_size().trailing_zeros().min(16);
    assert_eq!(bench.kernel.log.take(), [Call::TceCreate(shift, 8 * MIB)]);
    tables.put(0x5000, None);
    assert_eq!(bench.kernel.log.take(), [Call::Unmap(0x5000, 0x1000)]);
    // What is in a window goes with it.
    tables.put(0x6000, Some((0x2000, true)));
    *tables.windows.lock() = Some(vec![high]);
    tables.entries.lock().clear();
    bench.kernel.log.take();
    tables.tell(None);
    assert_eq!(bench.kernel.log.take(), [Call::TceRemove(0)]);
    assert_eq!(assigned.space().map(|s| s.mapped()), Some((0, 0)));
    // Memory that is plugged is registered, and given back.
    let more = RamBlock::anonymous("more", MIB).expect("RAM");
    let map = bench.memory.map_ram(Gpa(8 * MIB), &more, 0, MIB, 0).expect("room");
    assert_eq!(bench.kernel.log.take(), [Call::Register(bench.host(&more), MIB)]);
    drop(map);
    assert_eq!(bench.kernel.log.take(), [Call::Unregister(bench.host(&more), MIB)]);
    assert!(!more.pinned(0));
    // Pages that the host has not; a window that it has no place for.
    *tables.windows.lock() = Some(vec![high, DmaWindow { base: 0, len: 32 * MIB, page_shift: 24 }]);
    tables.tell(None);
    assert_eq!(bench.kernel.log.take(), [Call::TceCreate(shift, 32 * MIB)]);
    *tables.windows.lock() = Some(vec![high, DmaWindow { base: 1 << 40, len: MIB, page_shift: 12 }]);
    tables.tell(None);
    let told = bench.warnings.lock().last().cloned().expect("a warning");
    assert!(
        told.contains(
            "cannot have a window of 0x100000 bytes at 0x10000000000 with pages of 0x1000: it would be at 0x0"
        )
    );
    drop(assigned);
    assert!(!bench.ram.pinned(1000));
}

/// Without an IOMMU in the guest, one window shows all memory.
#[test]
fn tce_of_all_memory() {
    let bench = Bench::new(tce_kernel());
    let assigned = bench.vfio.assign(Wanted::Address("01:00.0".to_owned()), None, &bench.dma).expect("assigned");
    let host = bench.host(&bench.ram);
    let all = DmaMap { iova: 0, len: 4 * MIB, host, write: true };
    assert_eq!(
        bench.kernel.log.take()[4..8],
        [
            Call::TceRemove(0),
            Call::TceCreate(sys::page_size().trailing_zeros().min(16), 4 * MIB),
            Call::Register(host, 4 * MIB),
            Call::Map(all)
        ]
    );
    // A part can go by itself.
    let hole = bench.memory.map_mmio(Gpa(MIB), 0x10000, Arc::new(Silent), 1).expect("room");
    assert_eq!(bench.kernel.log.take(), [Call::Unmap(MIB, 0x10000)]);
    assert_eq!(assigned.space().map(|s| s.mapped()), Some((2, 4 * MIB - 0x10000)));
    drop(hole);
    assert_eq!(assigned.space().map(|s| s.mapped()), Some((3, 4 * MIB)));
}
