//! The PCI host bridge: configuration space, messages, windows of memory and DMA.

mod board;

use board::{Board, Random};
use rhea_accel::spapr::{KernelTable, KernelTces};
use rhea_clock::VirtualClock;
use rhea_device::dma::{DmaWindow, TranslationListener};
use rhea_device::{Device, LoadError, Log, Saved, state};
use rhea_memory::{Access, AccessRules, BusError, Gpa, GpaRange, MmioDevice};
use rhea_pci::edu::Edu;
use rhea_pci::{BarKind, ConfigBuilder, Devfn, Identity, PciConfig, PciConfigState, PciFunction, PciSlot};
use rhea_spapr::papr::hcall as h;
use rhea_spapr::{Phb, PhbConfig, RtasCalls};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

const IDENTITY: Identity =
    Identity { vendor: 0x1b36, device: 0x11e8, revision: 1, class: 0x02_0000, subsystem_vendor: 1, subsystem: 2 };

/// A function with a BAR of each kind, MSI-X and a pin.
struct Card {
    config: PciConfig,
}

struct Register;
impl MmioDevice for Register {
    fn read(&self, offset: u64, _: Access) -> Result<u64, BusError> {
        Ok(0x1100 + offset)
    }
    fn write(&self, _: u64, _: u64, _: Access) -> Result<(), BusError> {
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::ANY
    }
}

impl Card {
    fn new(slot: PciSlot) -> Arc<Self> {
        let config = ConfigBuilder::new(IDENTITY, slot)
            .bar(0, BarKind::Memory32, 0x1000, Arc::new(Register))
            .bar(2, BarKind::Memory64, 0x10_0000, Arc::new(Register))
            .bar(4, BarKind::Io, 0x20, Arc::new(Register))
            .msix(1, 5)
            .intx(1)
            .build();
        Arc::new(Self { config })
    }
}

impl Device for Card {
    fn name(&self) -> &str {
        "card"
    }
    fn reset(&self) {
        self.config.reset();
    }
    fn save(&self) -> Saved {
        state::encode(1, &self.config.save())
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        self.config.load(state::decode::<PciConfigState>(saved, 1)?)
    }
}

impl PciFunction for Card {
    fn config(&self) -> &PciConfig {
        &self.config
    }
}

/// Card at 01.0, educational device (MSI) at 02.0.
fn bridge() -> (Board, Arc<Card>, Arc<Edu>) {
    bridge_of(Board::new())
}
fn bridge_of(b: Board) -> (Board, Arc<Card>, Arc<Edu>) {
    let card = Card::new(b.phb.bus().slot(Devfn::new(1, 0)));
    b.phb.bus().attach(card.clone()).unwrap();
    let identity = Identity { class: 0x00ff00, ..IDENTITY };
    let slot = b.phb.bus().slot(Devfn::new(2, 0));
    let edu = Edu::new(identity, &slot, u64::MAX, &VirtualClock::new(), &Log::off());
    b.phb.bus().attach(edu.clone()).unwrap();
    (b, card, edu)
}

const CARD: u32 = 1 << 11;
const EDU: u32 = 2 << 11;

#[test]
fn configuration_space() {
    let (b, ..) = bridge();
    assert_eq!(b.pci("ibm,read-pci-config", &[CARD, 4], 2), [0, 0x11e8_1b36]);
    assert_eq!(b.pci("ibm,read-pci-config", &[CARD | 2, 2], 2), [0, 0x11e8]);
    assert_eq!(b.pci("ibm,write-pci-config", &[CARD | 0x3c, 1, 0xab], 1), [0]);
    assert_eq!(b.rtas(&*b.phbs, "read-pci-config", &[CARD | 0x3c, 1], 2), [0, 0xab]);
    // Beyond 256 bytes.
    assert_eq!(b.pci("ibm,read-pci-config", &[CARD | 1 << 28, 4], 2), [0, 0]);
    for bad in [[CARD | 1, 2], [CARD, 3], [CARD, 8], [5 << 11, 4], [1 << 16 | CARD, 4], [CARD, u32::MAX]] {
        assert_eq!(b.pci("ibm,read-pci-config", &bad, 2)[0] as i32, -3, "{bad:x?}");
    }
    assert_eq!(b.rtas(&*b.phbs, "ibm,read-pci-config", &[CARD, 0, 0, 4], 2)[0] as i32, -3);
    assert_eq!(b.rtas(&*b.phbs, "ibm,write-pci-config", &[CARD], 1)[0] as i32, -3);
    assert!(!b.phbs.rtas("power-off", &[], &mut []));
}

#[test]
fn windows_and_enumeration() {
    let (b, card, _) = bridge();
    let [io, memory32, memory64] = b.phb.windows();
    // Nobody decodes: all ones.
    assert_eq!(b.space.load(Gpa(memory32.address + 0x1000), Access::host(4)), Ok(0xffff_ffff));
    b.phb.enumerate();
    let bars = card.config.mapped_bars();
    assert_eq!(bars.len(), 4);
    for (index, at, _) in bars {
        let window = match index {
            0 => memory32,
            2 => memory64,
            4 => io,
            _ => continue,
        };
        let place = Gpa(window.address + (at - window.bus) + 4);
        assert_eq!(b.space.load(place, Access::host(4)), Ok(0x1104), "BAR {index} at {at:#x}");
    }
    let tree = b.phb.tree(0x1111, &|_| 7, true);
    assert_eq!(tree.name, "pci@800000020000000");
    assert_eq!(tree.children[0].name, "ethernet@1");
    let assigned = tree.children[0].get("assigned-addresses").unwrap();
    assert_eq!(assigned.len(), 4 * 20);
    assert_eq!(tree.children[0].get("ibm,req#msi-x"), Some(&[0, 0, 0, 5][..]));
    assert_eq!(tree.get("ibm,ddw-applicable"), Some(&[0, 0, 0, 7, 0, 0, 0, 7, 0, 0, 0, 7][..]));
    // Device 1 INTA is the second line.
    let map = tree.get("interrupt-map").unwrap();
    let entry = &map[4 * 28..5 * 28];
    assert_eq!(entry[20..24], 0x1201u32.to_be_bytes());
    assert_eq!(b.phb.lsi(1), 0x1201);
    assert!(b.phb.tree(1, &|_| 0, false).children.is_empty());
    let second = PhbConfig::new(0, &b.space, &b.irq, &b.tces);
    assert!(Phb::new(second).is_err());
    assert!(Phb::new(PhbConfig::new(31, &b.space, &b.irq, &b.tces)).is_err());
    assert!(Phb::new(PhbConfig::new(1, &b.space, &b.irq, &b.tces)).is_ok());
}

#[test]
fn level_interrupt() {
    let (b, card, _) = bridge();
    b.enable(0x1201);
    card.config.intx().unwrap().set(true);
    assert!(b.up());
    card.config.intx().unwrap().set(false);
    assert_eq!(b.take(), Some(0x1201));
    assert!(!b.up());
}

#[test]
fn messages() {
    let (b, card, edu) = bridge();
    let master = |at: u32| b.pci("ibm,write-pci-config", &[at | 4, 2, 4], 1);
    // MSI-X, as many as there are.
    assert_eq!(b.pci("ibm,change-msi", &[CARD, 4, 9, 0], 4), [0, 5, 1, 2]);
    let first = b.pci("ibm,query-interrupt-source-number", &[CARD, 0], 3);
    assert_eq!((first[0], first[2]), (0, 1));
    assert_eq!(b.pci("ibm,query-interrupt-source-number", &[CARD, 4], 3)[1], first[1] + 4);
    assert_eq!(b.pci("ibm,query-interrupt-source-number", &[CARD, 5], 3)[0] as i32, -3);
    let msix = card.config.msix().unwrap();
    // What a kernel does: unmask in the table, enable, bus master.
    msix.write(3 * 16 + 12, 0, Access::cpu(0, 4)).unwrap();
    master(CARD);
    let mut at = b.pci("ibm,read-pci-config", &[CARD | 0x34, 1], 2)[1];
    while b.pci("ibm,read-pci-config", &[CARD | at, 1], 2)[1] != 0x11 {
        at = b.pci("ibm,read-pci-config", &[CARD | at + 1, 1], 2)[1];
    }
    b.pci("ibm,write-pci-config", &[CARD | at + 2, 2, 0x8000], 1);
    b.enable(first[1] + 3);
    msix.notify(3);
    assert_eq!(b.take(), Some(first[1] + 3));
    // MSI of the other function.
    assert_eq!(b.pci("ibm,change-msi", &[EDU, 3, 1, 4], 4), [0, 1, 5, 1]);
    let n = b.pci("ibm,query-interrupt-source-number", &[EDU, 0], 3)[1];
    assert_eq!(n, first[1] + 5);
    master(EDU);
    let at = b.pci("ibm,read-pci-config", &[EDU | 0x34, 1], 2)[1];
    let control = b.pci("ibm,read-pci-config", &[EDU | at + 2, 2], 2)[1];
    b.pci("ibm,write-pci-config", &[EDU | at + 2, 2, control | 1], 1);
    b.enable(n);
    edu.config().msi().unwrap().notify(0);
    assert_eq!(b.take(), Some(n));
    // Given back, and given again.
    assert_eq!(b.pci("ibm,change-msi", &[CARD, 4, 0, 1], 4), [0, 0, 2, 2]);
    assert_eq!(b.pci("ibm,query-interrupt-source-number", &[CARD, 0], 3)[0] as i32, -3);
    assert_eq!(b.pci("ibm,change-msi", &[CARD, 4, 2, 1], 3), [0, 2, 2]);
    let (saved, irqs) = (b.phb.save(), b.irq.save());
    b.phb.reset();
    assert_eq!(b.pci("ibm,query-interrupt-source-number", &[CARD, 0], 3)[0] as i32, -3);
    b.irq.load(&irqs).unwrap();
    b.phb.load(&saved).unwrap();
    assert_eq!(b.pci("ibm,query-interrupt-source-number", &[CARD, 0], 3), [0, first[1], 1]);
    for bad in [[CARD, 3, 1, 0], [EDU, 4, 1, 0], [CARD, 7, 1, 0], [9 << 11, 3, 1, 0]] {
        assert_eq!(b.pci("ibm,change-msi", &bad, 4)[0] as i32, -3, "{bad:x?}");
    }
}

#[test]
fn dma_windows() {
    let (b, card, _) = bridge();
    let dma = card.config.slot().dma();
    b.pci("ibm,write-pci-config", &[CARD | 4, 2, 4], 1);
    let mut data = [0; 4];
    assert!(dma.read(Gpa(0x1000), &mut data).is_err());
    b.put(0x6000, b"tces");
    b.ok(h::H_PUT_TCE, &[0x8000_0000, 0x1000, 0x6003]);
    assert_eq!(dma.read(Gpa(0x1000), &mut data), Ok(()));
    assert_eq!(&data, b"tces");
    assert_eq!(b.pci("ibm,query-pe-dma-window", &[CARD], 5), [0, 1, (board::RAM >> 12) as u32, 0x103, 0]);
    let made = b.pci("ibm,create-pe-dma-window", &[CARD, 16, 25], 4);
    assert_eq!(made, [0, 0x8000_0001, 0x0800_0000, 0]);
    b.ok(h::H_STUFF_TCE, &[0x8000_0001, 0x0800_0000_0000_0000, 3, 512]);
    assert_eq!(dma.read(Gpa(0x0800_0000_0000_6000), &mut data), Ok(()));
    assert_eq!(&data, b"tces");
    assert_eq!(b.pci("ibm,create-pe-dma-window", &[CARD, 16, 25], 4)[0] as i32, -1);
    for bad in [[CARD, 13, 25], [CARD, 16, 12], [CARD, 16, 63], [CARD, 16, u32::MAX]] {
        assert_eq!(b.pci("ibm,create-pe-dma-window", &bad, 4)[0] as i32, -3);
    }
    let saved = b.phb.save();
    assert_eq!(b.rtas(&*b.phbs, "ibm,remove-pe-dma-window", &[0x8000_0001], 1), [0]);
    assert!(dma.read(Gpa(0x0800_0000_0000_6000), &mut data).is_err());
    assert_eq!(b.rtas(&*b.phbs, "ibm,remove-pe-dma-window", &[0x8000_0001], 1)[0] as i32, -3);
    // More entries than a table may have.
    assert_eq!(b.pci("ibm,create-pe-dma-window", &[CARD, 12, 60], 4)[0] as i32, -1);
    b.phb.load(&saved).unwrap();
    assert_eq!(dma.read(Gpa(0x0800_0000_0000_6000), &mut data), Ok(()));
    assert_eq!(b.pci("ibm,reset-pe-dma-window", &[CARD], 1), [0]);
    assert!(dma.read(Gpa(0x1000), &mut data).is_err());
    assert_eq!(b.pci("ibm,query-pe-dma-window", &[CARD], 5)[1], 1);
    // A message as a store.
    let n = b.irq.allocate_messages(1, 1).unwrap();
    b.enable(n);
    assert_eq!(dma.write(Gpa(0x400_0000_0000), &n.to_le_bytes()), Ok(()));
    assert_eq!(b.take(), Some(n));
}

/// Counts what it is told.
#[derive(Default)]
struct Told(parking_lot::Mutex<Vec<Option<GpaRange>>>, std::sync::atomic::AtomicU64);

impl TranslationListener for Told {
    fn translation_changed(&self, range: Option<GpaRange>) {
        self.0.lock().push(range);
    }
    fn reaches(&self, window: DmaWindow) -> bool {
        let end = self.1.load(std::sync::atomic::Ordering::SeqCst);
        end == 0 || window.base + window.len <= end
    }
}

/// Whoever keeps translations elsewhere learns of each change, and finds what is translated.
#[test]
fn dma_windows_are_followed() {
    let (b, card, _) = bridge();
    let iommu = card.config.slot().dma().iommu().expect("the host bridge's").clone();
    let told = Arc::new(Told::default());
    let listener: std::sync::Weak<dyn TranslationListener> = Arc::<Told>::downgrade(&told);
    let Ok(all) = iommu.follow(0, listener) else { panic!("it can be followed") };
    let mapped = |first, last| {
        let mut found = Vec::new();
        all.mapped(first, last, &mut |t| found.push((t.iova, t.gpa, t.len, t.read, t.write)));
        found
    };
    let take = || std::mem::take(&mut *told.0.lock());
    let low = DmaWindow { base: 0, len: 0x4000_0000, page_shift: 12 };
    assert_eq!(all.windows(), Some(vec![low]));
    b.ok(h::H_PUT_TCE, &[0x8000_0000, 0x1000, 0x6003]);
    b.ok(h::H_STUFF_TCE, &[0x8000_0000, 0x3000, 0x7001, 2]);
    let range = |start, len| Some(GpaRange { start: Gpa(start), len });
    assert_eq!(take(), [range(0x1000, 0x1000), range(0x3000, 0x2000)]);
    let read_only = |iova| (iova, 0x7000, 0x1000, true, false);
    assert_eq!(mapped(0, u64::MAX), [(0x1000, 0x6000, 0x1000, true, true), read_only(0x3000), read_only(0x4000)]);
    assert_eq!(mapped(0x4000, 0x4fff), [read_only(0x4000)]);
    assert_eq!(mapped(0x5000, u64::MAX), []);
    // Another window; its entries are told of, and no more once it is gone.
    b.pci("ibm,create-pe-dma-window", &[CARD, 16, 25], 4);
    let high = DmaWindow { base: 0x0800_0000_0000_0000, len: 1 << 25, page_shift: 16 };
    assert_eq!((take(), all.windows()), (vec![None], Some(vec![low, high])));
    b.put(0x9000, &[0x1_0003u64.to_be_bytes(), 0u64.to_be_bytes()].concat());
    b.ok(h::H_PUT_TCE_INDIRECT, &[0x8000_0001, high.base, 0x9000, 2]);
    assert_eq!(take(), [range(high.base, 0x2_0000)]);
    assert_eq!(mapped(high.base, u64::MAX), [(high.base, 0x1_0000, 0x1_0000, true, true)]);
    let saved = b.phb.save();
    assert_eq!(b.pci("ibm,reset-pe-dma-window", &[CARD], 1), [0]);
    assert_eq!((take(), mapped(0, u64::MAX), all.windows()), (vec![None], vec![], Some(vec![low])));
    b.phb.load(&saved).unwrap();
    assert_eq!((take(), mapped(0, u64::MAX).len()), (vec![None], 4));
    b.phb.reset();
    assert!(take().contains(&None) && mapped(0, u64::MAX).is_empty());
    b.ok(h::H_PUT_TCE, &[0x8000_0000, 0x1000, 0x6003]);
    b.phb.reset();
    assert_eq!(take(), [range(0x1000, 0x1000), range(0, low.len)]);
}

/// A kernel that has tables: each by its number, with its entries.
#[derive(Default)]
struct Kernel(Arc<parking_lot::Mutex<BTreeMap<u32, Vec<u64>>>>, std::sync::atomic::AtomicBool);

struct KernelsTable(Arc<parking_lot::Mutex<BTreeMap<u32, Vec<u64>>>>, u32);

impl KernelTces for Kernel {
    fn create(&self, liobn: u32, page_shift: u32, first: u64, pages: u64) -> Option<Box<dyn KernelTable>> {
        assert!(page_shift == 12 && first == 0 || page_shift == 16 && first == 0x800_0000_0000, "{first:x}");
        if self.1.load(SeqCst) {
            return None;
        }
        let old = self.0.lock().insert(liobn, vec![0; pages as usize]);
        assert!(old.is_none(), "there is one with the number {liobn:#x}");
        Some(Box::new(KernelsTable(self.0.clone(), liobn)))
    }
    fn exclusively(&self, f: &mut dyn FnMut()) {
        f();
    }
}

impl KernelTable for KernelsTable {
    fn load(&self, index: usize) -> u64 {
        self.0.lock()[&self.1].get(index).copied().unwrap_or(0)
    }
    fn store(&self, index: usize, tce: u64) {
        if let Some(entry) = self.0.lock().get_mut(&self.1).and_then(|t| t.get_mut(index)) {
            *entry = tce;
        }
    }
}

impl Drop for KernelsTable {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

/// Tables are the kernel's until somebody wants to be told of changes, and again after a reset when nobody does.
#[test]
fn dma_windows_of_the_kernel() {
    let kernel = Arc::new(Kernel::default());
    let (b, card, _) = bridge_of(Board::with(Some(kernel.clone())));
    let dma = card.config.slot().dma();
    b.pci("ibm,write-pci-config", &[CARD | 4, 2, 4], 1);
    b.put(0x6000, b"tces");
    let (mut data, high) = ([0; 4], 0x0800_0000_0000_0000);
    let mut read = |address| dma.read(Gpa(address), &mut data).map(|()| data);
    // What the kernel stores, and what it leaves to this program.
    let guest = |liobn: u32, index: usize, tce| kernel.0.lock().get_mut(&liobn).map(|t| t[index] = tce).is_some();
    assert!(guest(0x8000_0000, 1, 0x6003));
    assert_eq!((read(0x1000), read(0x2000)), (Ok(*b"tces"), Err(BusError::Refused)));
    b.ok(h::H_PUT_TCE, &[0x8000_0000, 0x2000, 0x6003]);
    assert_eq!((read(0x2000), kernel.0.lock()[&0x8000_0000][2]), (Ok(*b"tces"), 0x6003));
    b.pci("ibm,create-pe-dma-window", &[CARD, 16, 25], 4);
    assert!(guest(0x8000_0001, 0, 3) && b.tces.describe().contains(": 2 in the kernel, 0 in the machine, 1 hyper"));
    assert_eq!(read(high + 0x6000), Ok(*b"tces"));
    let saved = b.phb.save();
    b.phb.load(&saved).unwrap();
    assert_eq!((read(high + 0x6000), read(0x1000), kernel.0.lock().len()), (Ok(*b"tces"), Ok(*b"tces"), 2));
    // Queues that keep addresses.
    let mark = dma.watch(&[GpaRange { start: Gpa(0x1000), len: 4 }]).unwrap();
    assert!(kernel.0.lock().is_empty() && !mark.load(SeqCst));
    assert_eq!((read(0x1000), read(high + 0x6000)), (Ok(*b"tces"), Ok(*b"tces")));
    b.ok(h::H_PUT_TCE, &[0x8000_0000, 0x1000, 0]);
    assert!(mark.load(SeqCst) && read(0x1000).is_err());
    drop(mark);
    b.phb.reset();
    assert!(guest(0x8000_0000, 1, 0x6003) && read(0x2000).is_err() && kernel.0.lock().len() == 1);
    // A device of the host, as long as it is there.
    let told = Arc::new(Told::default());
    let listener: std::sync::Weak<dyn TranslationListener> = Arc::<Told>::downgrade(&told);
    let Ok(all) = dma.iommu().unwrap().clone().follow(0, listener) else { panic!("it can be followed") };
    let mut found = Vec::new();
    all.mapped(0, u64::MAX, &mut |t| found.push(t.iova));
    assert_eq!(found, [0x1000]);
    b.pci("ibm,create-pe-dma-window", &[CARD, 16, 25], 4);
    b.phb.reset();
    assert!(kernel.0.lock().is_empty());
    drop((all, told));
    b.phb.reset();
    assert_eq!(kernel.0.lock().len(), 1);
    // One that refuses: the machine's own.
    kernel.1.store(true, SeqCst);
    b.phb.reset();
    b.ok(h::H_PUT_TCE, &[0x8000_0000, 0x1000, 0x6003]);
    assert_eq!((read(0x1000), kernel.0.lock().len()), (Ok(*b"tces"), 0));
}

/// A window is where the host's IOMMU reaches it, and there is none if it reaches none.
#[test]
fn dma_windows_are_within_reach() {
    let (b, card, _) = bridge();
    let iommu = card.config.slot().dma().iommu().expect("the host bridge's").clone();
    let told = Arc::new(Told::default());
    let listener: std::sync::Weak<dyn TranslationListener> = Arc::<Told>::downgrade(&told);
    let Ok(_all) = iommu.follow(0, listener) else { panic!("it can be followed") };
    // At 1 << 42 are messages.
    for (bits, base) in [(64, 1u64 << 59), (48, 1 << 47), (43, 1 << 41), (39, 1 << 38)] {
        told.1.store(1u64.checked_shl(bits).unwrap_or(0), std::sync::atomic::Ordering::SeqCst);
        let made = b.pci("ibm,create-pe-dma-window", &[CARD, 16, 25], 4);
        assert_eq!(made, [0, 0x8000_0001, (base >> 32) as u32, base as u32]);
        assert_eq!(b.rtas(&*b.phbs, "ibm,remove-pe-dma-window", &[made[1]], 1), [0]);
    }
    told.1.store(1 << 32, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(b.pci("ibm,create-pe-dma-window", &[CARD, 16, 25], 4)[0] as i32, -1);
}

/// As a kernel looks for functions with enhanced error handling: those that it finds have none, and there are no others.
#[test]
fn enhanced_error_handling() {
    let (b, ..) = bridge();
    for function in [CARD, EDU] {
        assert_eq!(b.pci("ibm,get-config-addr-info2", &[function, 1], 2), [0, 0]);
        assert_eq!(b.pci("ibm,get-config-addr-info2", &[function, 0], 2)[0] as i32, -3);
        assert_eq!(b.pci("ibm,read-slot-reset-state2", &[function], 4), [0, 0, 0, 0]);
        for option in 0..4 {
            assert_eq!(b.pci("ibm,set-eeh-option", &[function, option], 1)[0] as i32, -3);
            assert_eq!(b.pci("ibm,set-slot-reset", &[function, option], 1)[0] as i32, -3);
        }
        assert_eq!(b.pci("ibm,configure-pe", &[function], 1)[0] as i32, -3);
        assert_eq!(b.pci("ibm,slot-error-detail", &[function, 0, 0, 0, 0, 1], 1)[0] as i32, -3);
    }
    for absent in [5 << 11, 1 << 16 | CARD, u32::MAX] {
        assert_eq!(b.pci("ibm,get-config-addr-info2", &[absent, 1], 2)[0] as i32, -3);
        assert_eq!(b.pci("ibm,read-slot-reset-state2", &[absent], 4)[0] as i32, -3);
    }
    assert_eq!(b.rtas(&*b.phbs, "ibm,read-slot-reset-state2", &[CARD, 0, 0], 4)[0] as i32, -3);
}

#[test]
fn hostile() {
    let (b, ..) = bridge();
    b.phb.enumerate();
    let names = b.phbs.names();
    let mut r = Random(17);
    for _ in 0..20_000 {
        let name = names[r.below(names.len() as u64) as usize];
        let mut args: Vec<u32> = (0..r.below(8))
            .map(|_| match r.below(5) {
                0 => r.next() as u32,
                1 => [CARD, EDU][r.below(2) as usize] | r.below(256) as u32,
                2 => 0x8000_0000 | r.below(3) as u32,
                3 => [12, 16, 20, 21, 25, 30][r.below(6) as usize],
                _ => r.below(6) as u32,
            })
            .collect();
        if args.len() > 2 && r.below(4) != 0 {
            let buid = b.phb.buid();
            (args[1], args[2]) = ((buid >> 32) as u32, buid as u32);
        }
        let mut results = [0; 6];
        b.phbs.rtas(name, &args, &mut results[..r.below(7) as usize]);
        if r.below(1000) == 0 {
            let _ = b.phb.tree(1, &|_| 0, true);
            let saved = b.phb.save();
            b.phb.load(&saved).unwrap();
        }
    }
    b.phb.reset();
    assert_eq!(b.pci("ibm,query-pe-dma-window", &[CARD], 5)[1], 1);
}
