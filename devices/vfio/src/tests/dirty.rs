//! What devices write finds its way to the dirty logs of memory.

use super::maps::{Silent, behind};
use super::{Bench, MIB};
use crate::sys::fake::{Call, DmaLog, FakeDevice, FakeKernel, FakeSetup};
use crate::sys::{ContainerInfo, DirtyTracking, extension};
use crate::{Assigned, Wanted};
use rhea_memory::{ChangeReason, DirtyClient, Gpa, GpaRange, MemoryChange, PAGE_SIZE, RamBlock};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use DirtyClient::{Display, Migration, Snapshot};

/// Who tells what was written.
#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    Devices,
    Container,
    Tables,
    Nobody,
}

const ALL: [By; 4] = [By::Devices, By::Container, By::Tables, By::Nobody];

fn kernel(by: By, ranges: usize) -> FakeKernel {
    let dma_log = (by == By::Devices).then_some(DmaLog { ranges });
    let device = Arc::new(FakeSetup { dma_log, ..FakeSetup::default() });
    let kernel = FakeKernel { device, tables_track: by == By::Tables, ..FakeKernel::default() };
    let dirty = (by == By::Container).then_some(DirtyTracking { page_sizes: 0x1000, max_bitmap: 1 << 20 });
    *kernel.info.lock() = ContainerInfo { page_sizes: !0xfff, dirty, ..ContainerInfo::default() };
    kernel
}

struct Tracked {
    bench: Bench,
    assigned: Option<Assigned>,
    by: By,
}

impl Tracked {
    fn of(by: By, ranges: usize) -> Self {
        Self::on(Bench::new(kernel(by, ranges)), by)
    }
    fn on(bench: Bench, by: By) -> Self {
        let iommufd = (by == By::Tables).then(|| bench.vfio.iommufd(None).expect("an iommufd"));
        let wanted = Wanted::Address("01:00.0".to_owned());
        let assigned = bench.vfio.assign(wanted, iommufd.as_ref(), &bench.dma).expect("assigned");
        bench.kernel.log.take();
        Self { bench, assigned: Some(assigned), by }
    }
    fn calls(&self) -> Vec<Call> {
        self.bench.kernel.log.take()
    }
    fn dma(&self, at: u64) {
        self.bench.kernel.dma(at);
    }
    /// Addresses of the pages in the RAM's log.
    fn dirty(&self) -> Vec<u64> {
        dirty(&self.bench.ram)
    }
    fn device(&self) -> Arc<FakeDevice> {
        self.bench.kernel.devices.lock()[0].clone()
    }
    fn text(&self) -> String {
        self.assigned.as_ref().and_then(Assigned::space).map(|s| s.describe()).unwrap_or_default()
    }
    fn warnings(&self) -> usize {
        self.bench.warnings.lock().len()
    }
}

fn dirty(block: &RamBlock) -> Vec<u64> {
    block.take_dirty(Migration, 0, u64::MAX).into_iter().map(|page| page * PAGE_SIZE).collect()
}

fn every_page(from: u64, to: u64) -> Vec<u64> {
    (from..to).step_by(PAGE_SIZE as usize).collect()
}

/// Begun with the first log, ended with the last; in between each page is told once.
#[test]
fn by_each_way() {
    for by in ALL {
        let t = Tracked::of(by, 4);
        let ram = &t.bench.ram;
        ram.start_dirty_log(Display);
        assert_eq!(t.calls(), [], "the display's log is not for devices");
        t.dma(0x5000);
        ram.start_dirty_log(Migration);
        let begun = match by {
            By::Devices => vec![Call::StartDmaLog(vec![(0, 4 * MIB)])],
            By::Container => vec![Call::TrackDirty(true)],
            By::Tables => vec![Call::HwptTrack(2, true)],
            By::Nobody => vec![Call::TrackDirty(true)],
        };
        assert_eq!(t.calls(), if by == By::Nobody { Vec::new() } else { begun }, "{by:?}");
        assert_eq!(t.dirty(), if by == By::Nobody { every_page(0, 4 * MIB) } else { Vec::new() });
        t.calls();
        for page in [0, 0x3000, 0x4000, 0x3f_f000, 0x40_0000] {
            t.dma(page);
        }
        let all = if by == By::Nobody { every_page(0, 4 * MIB) } else { vec![0, 0x3000, 0x4000, 0x3f_f000] };
        assert_eq!(t.dirty(), all, "{by:?}");
        let asked = match by {
            By::Devices => vec![Call::DmaLog(0, 4 * MIB)],
            By::Container => vec![Call::Dirty(0, 4 * MIB)],
            By::Tables => vec![Call::HwptDirty(2, 0, 4 * MIB)],
            By::Nobody => Vec::new(),
        };
        assert_eq!(t.calls(), asked);
        assert!(ram.take_dirty(Display, 0, u64::MAX).is_empty());
        assert_eq!(t.dirty().is_empty(), by != By::Nobody);
        // A second log, which goes first.
        t.dma(0x7000);
        t.calls();
        ram.start_dirty_log(Snapshot);
        ram.stop_dirty_log(Snapshot);
        assert_eq!(t.calls(), asked, "what the first has not asked for yet is its");
        assert!(t.dirty().contains(&0x7000));
        t.calls();
        ram.stop_dirty_log(Migration);
        let ended = match by {
            By::Devices => vec![Call::StopDmaLog],
            By::Container => vec![Call::TrackDirty(false)],
            By::Tables => vec![Call::HwptTrack(2, false)],
            By::Nobody => Vec::new(),
        };
        assert_eq!(t.calls(), ended);
        // It is said once, however often it begins.
        ram.start_dirty_log(Migration);
        assert_eq!(t.warnings(), usize::from(by == By::Nobody));
        let says = ["tracked by devices", "tracked by the IOMMU", "tracked by the IOMMU", "all counts as written"];
        assert!(t.text().ends_with(says[by as usize]), "{}", t.text());
    }
}

/// Maps that come and go while a log is on keep what was written.
#[test]
fn maps_change() {
    for by in ALL {
        let t = Tracked::of(by, 4);
        t.bench.ram.start_dirty_log(Migration);
        t.dirty();
        t.calls();
        t.dma(MIB);
        t.dma(2 * MIB);
        // The whole is unmapped, and what is left mapped again.
        let hole = t.bench.memory.map_mmio(Gpa(MIB), PAGE_SIZE, Arc::new(Silent), 1).expect("room");
        let calls = t.calls();
        let unmapped = match by {
            By::Container => vec![Call::UnmapDirty(0, 4 * MIB)],
            By::Devices => vec![Call::Unmap(0, 4 * MIB), Call::DmaLog(0, 4 * MIB)],
            By::Tables | By::Nobody => vec![Call::Unmap(0, 4 * MIB)],
        };
        assert_eq!(calls[..unmapped.len()], unmapped, "{by:?}: {calls:?}");
        assert_eq!(calls.len(), unmapped.len() + 2, "{calls:?}");
        // Tables forget what they told with what is unmapped.
        let all = matches!(by, By::Tables | By::Nobody);
        assert_eq!(t.dirty(), if all { every_page(0, 4 * MIB) } else { vec![MIB, 2 * MIB] }, "{by:?}");
        t.dma(MIB);
        t.dma(3 * MIB);
        drop(hole);
        assert_eq!(t.dirty(), if by == By::Nobody { every_page(0, 4 * MIB) } else { vec![3 * MIB] }, "{by:?}");
        // Memory that is plugged: devices log only where they were told to.
        let more = RamBlock::anonymous("more", MIB).expect("RAM");
        more.start_dirty_log(Migration);
        let map = t.bench.memory.map_ram(Gpa(8 * MIB), &more, 0, MIB, 0).expect("room");
        t.dma(8 * MIB + 0x2000);
        let whole = matches!(by, By::Devices | By::Nobody);
        let expected = if whole { every_page(0, MIB) } else { vec![0x2000] };
        assert_eq!(dirty(&more), expected, "{by:?}");
        t.dma(8 * MIB + 0x6000);
        drop(map);
        let gone = dirty(&more);
        assert_eq!(gone, if by == By::Container { vec![0x6000] } else { every_page(0, MIB) }, "{by:?}");
        // Of what is not mapped any more nobody is asked, and the other's log goes on.
        more.stop_dirty_log(Migration);
        t.dma(0x9000);
        assert!(t.dirty().contains(&0x9000));
    }
}

/// A log that is on before the device is there.
#[test]
fn a_device_comes_and_goes() {
    for by in ALL {
        let bench = Bench::new(kernel(by, 4));
        bench.ram.start_dirty_log(Migration);
        let mut t = Tracked::on(bench, by);
        assert_eq!(t.dirty(), every_page(0, 4 * MIB), "what was written before it was seen");
        t.dma(0x5000);
        assert_eq!(t.dirty(), if by == By::Nobody { every_page(0, 4 * MIB) } else { vec![0x5000] }, "{by:?}");
        t.dma(0x8000);
        drop(t.assigned.take());
        assert!(!t.device().logging());
        assert!(dirty(&t.bench.ram).contains(&0x8000), "{by:?}");
        // Nobody is left to ask.
        t.calls();
        assert!(t.dirty().is_empty());
        t.bench.ram.stop_dirty_log(Migration);
        assert_eq!(t.calls(), []);
    }
}

/// Each call fails in turn: what may have been written counts as written.
#[test]
fn each_call_fails() {
    for by in ALL {
        for n in 0.. {
            let t = Tracked::of(by, 4);
            let written = |t: &Tracked, pages: &[u64]| {
                let found = t.dirty();
                assert!(pages.iter().all(|p| found.contains(p)), "{by:?}, call {n}: {pages:x?} in {found:x?}");
            };
            t.bench.kernel.log.fail_after(n, libc::EIO);
            t.bench.ram.start_dirty_log(Migration);
            t.dma(0x1000);
            written(&t, &[0x1000]);
            t.dma(0x2000);
            t.dma(MIB);
            let hole = t.bench.memory.map_mmio(Gpa(MIB), PAGE_SIZE, Arc::new(Silent), 1).expect("room");
            written(&t, &[0x2000, MIB]);
            t.dma(0x3000);
            written(&t, &[0x3000]);
            drop(hole);
            t.dma(0x4000);
            let other = t.bench.vfio.assign(Wanted::Address("02:00.0".to_owned()), None, &t.bench.dma);
            t.dma(0x5000);
            written(&t, &[0x4000, 0x5000]);
            t.dma(0x6000);
            drop(other);
            written(&t, &[0x6000]);
            t.bench.ram.stop_dirty_log(Migration);
            if t.bench.kernel.log.succeed() {
                assert!(n > 5, "{by:?}: {n}");
                break;
            }
            // The next log is a whole one again.
            t.calls();
            t.bench.ram.start_dirty_log(Migration);
            t.dma(0x7000);
            written(&t, &[0x7000]);
        }
    }
}

/// Ranges that devices log: all of them, or as many as they take, with gaps between them closed.
#[test]
fn as_many_ranges_as_devices_take() {
    for (most, expected) in [
        (4, Some(vec![(0, MIB), (2 * MIB, MIB), (4 * MIB, 4 * MIB)])),
        (3, Some(vec![(0, MIB), (2 * MIB, MIB), (4 * MIB, 4 * MIB)])),
        (1, Some(vec![(0, 8 * MIB)])),
        (0, None),
    ] {
        let bench = Bench::new(kernel(By::Devices, most));
        let blocks: Vec<_> = (0..2).map(|_| RamBlock::anonymous("more", 2 * MIB).expect("RAM")).collect();
        let _maps = [
            bench.memory.map_mmio(Gpa(MIB), MIB, Arc::new(Silent), 1).expect("room"),
            bench.memory.map_mmio(Gpa(3 * MIB), MIB, Arc::new(Silent), 1).expect("room"),
            bench.memory.map_ram(Gpa(4 * MIB), &blocks[0], 0, 2 * MIB, 0).expect("room"),
            bench.memory.map_ram(Gpa(6 * MIB), &blocks[1], 0, 2 * MIB, 0).expect("room"),
        ];
        let t = Tracked::on(bench, By::Devices);
        blocks[1].start_dirty_log(Migration);
        let mut calls = t.calls();
        match expected {
            Some(ranges) => assert_eq!(calls.pop(), Some(Call::StartDmaLog(ranges))),
            // The container is asked after them.
            None => assert!(t.text().ends_with("all counts as written") && calls.len() == 2, "{calls:?}"),
        }
        t.dma(6 * MIB + 0x3000);
        assert_eq!(dirty(&blocks[1]).len(), if most == 0 { 512 } else { 1 });
        // Of ranges side by side there is one question.
        let asked = t.calls();
        assert_eq!(asked, if most == 0 { Vec::new() } else { vec![Call::DmaLog(4 * MIB, 4 * MIB)] });
    }
}

/// All devices log, or none: one that cannot, or does not, has the others stop.
#[test]
fn devices_log_together() {
    let t = Tracked::of(By::Devices, 4);
    let second = t.bench.vfio.assign(Wanted::Address("02:00.0".to_owned()), None, &t.bench.dma).expect("assigned");
    t.calls();
    t.bench.kernel.log.fail_after(1, libc::EOPNOTSUPP);
    t.bench.ram.start_dirty_log(Migration);
    let ranges = vec![(0, 4 * MIB)];
    let start = Call::StartDmaLog(ranges);
    assert_eq!(t.calls(), [start.clone(), start.clone(), Call::StopDmaLog]);
    assert!(t.text().ends_with("all counts as written"));
    t.bench.ram.stop_dirty_log(Migration);
    t.bench.ram.start_dirty_log(Migration);
    assert_eq!(t.calls(), [start.clone(), start]);
    t.dma(0x2000);
    assert_eq!(t.dirty(), [0x2000]);
    assert_eq!(t.calls(), [Call::DmaLog(0, 4 * MIB), Call::DmaLog(0, 4 * MIB)]);
    t.dma(0x3000);
    drop(second);
    assert_eq!(t.calls()[..2], [Call::DmaLog(0, 4 * MIB), Call::DmaLog(0, 4 * MIB)]);
    assert_eq!(t.dirty(), [0x3000]);
}

/// Behind a guest's IOMMU devices log whatever it may map yet; tables of the host that cannot tell are all written.
#[test]
fn behind_a_guests_iommu() {
    let mut bench = Bench::new(kernel(By::Devices, 1));
    let tables = behind(&mut bench, None);
    tables.put(0x5000, Some((0x1000, true)));
    let t = Tracked::on(bench, By::Devices);
    t.bench.ram.start_dirty_log(Migration);
    assert_eq!(t.calls(), [Call::StartDmaLog(vec![(0, 1 << 48)])]);
    tables.put(0x9000, Some((0x2000, true)));
    tables.put(0xa000, Some((0x3000, false)));
    t.dma(0x9000);
    assert_eq!(t.dirty(), [0x2000]);
    t.dma(0x5000);
    tables.put(0x5000, Some((0x4000, true)));
    assert_eq!(t.dirty(), [0x1000]);
    // What may only be read is not written.
    tables.put(0xa000, None);
    assert!(t.dirty().is_empty());

    let mut bench = Bench::new(FakeKernel { extensions: [extension::SPAPR_TCE_V2].into(), ..kernel(By::Nobody, 0) });
    let tables = behind(&mut bench, None);
    tables.put(0x5000, Some((0x1000, true)));
    let t = Tracked::on(bench, By::Nobody);
    t.bench.ram.start_dirty_log(Migration);
    assert_eq!(t.dirty(), [0x1000]);
    tables.put(0x5000, None);
    assert_eq!((t.dirty(), t.dirty()), (vec![0x1000], vec![]));
}

/// Who announces that writes are to be tracked anew has the logs looked at again; nothing is mapped again.
#[test]
fn announced() {
    let t = Tracked::of(By::Container, 0);
    t.bench.ram.start_dirty_log(Migration);
    t.dma(0x1000);
    t.calls();
    let ranges = vec![GpaRange { start: Gpa(0), len: 4 * MIB }];
    let change = MemoryChange { reason: ChangeReason::SoftDirty, ranges, read_only_downgrade: false, generation: 0 };
    t.bench.memory.announce(change);
    assert_eq!(t.calls(), []);
    assert_eq!(t.dirty(), [0x1000]);
    let counted = t.assigned.as_ref().and_then(Assigned::space).map(|s| s.counters().dirty.load(Relaxed));
    assert_eq!((counted, t.by), (Some(1), By::Container));
}
