//! The unit as drivers and devices see it: translation, faults, invalidation, interrupt remapping, rubbish.

use rhea_clock::VirtualClock;
use rhea_device::dma::{DmaHandle, Iommu, IommuPlace, TranslationListener, Translations};
use rhea_device::{Device, Log, OptionSet};
use rhea_iommu::{Vtd, VtdOptions, VtdWiring, declarations};
use rhea_irqchip::apic::{
    ApicBus, ApicConfig, Delivery, InterruptRemapping, LapicConfig, LapicOutputs, Message, Remapped,
};
use rhea_memory::{Access, AddressSpace, BusError, Gpa, GpaRange, Mapping, RamBlock};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const RAM: u64 = 16 << 20;
const ROOT: u64 = 0x1000;
const CONTEXTS: u64 = 0x2000;
const TABLE: u64 = 0x3000;
const QUEUE: u64 = 0x8000;
const STATUS: u64 = 0x9000;
const ENTRIES: u64 = 0x1_0000;
const DEVICE: u16 = 0x0108;
const DOMAIN: u64 = 5;

const SET_ROOT: u64 = 1 << 30;
const TRANSLATE: u64 = 1 << 31;
const QUEUED: u64 = 1 << 26;
const REMAP: u64 = 1 << 25;
const SET_ENTRIES: u64 = 1 << 24;

struct Board {
    memory: Arc<AddressSpace>,
    vtd: Arc<Vtd>,
    dma: DmaHandle,
    _maps: Vec<Mapping>,
}

impl Board {
    fn new(options: VtdOptions) -> Self {
        let memory = AddressSpace::new("memory");
        let ram = RamBlock::anonymous("ram", RAM).unwrap();
        let cpus = vec![LapicConfig { apic_id: 0, outputs: LapicOutputs::unconnected() }];
        let apic = ApicBus::new(ApicConfig::new("apic", cpus, VirtualClock::new())).unwrap();
        let wiring = VtdWiring { memory: memory.clone(), apic, log: Log::off() };
        let vtd = Vtd::new(options, wiring);
        let maps = vec![
            memory.map_ram(Gpa(0), &ram, 0, RAM, 0).unwrap(),
            memory.map_mmio(Gpa(Vtd::BASE), Vtd::LENGTH, vtd.clone(), 0).unwrap(),
        ];
        let place = IommuPlace::default();
        assert!(place.set(vtd.clone()).is_ok());
        let dma = DmaHandle::behind(memory.clone(), DEVICE.into(), place);
        Self { memory, vtd, dma, _maps: maps }
    }
    fn put(&self, at: u64, value: u64) {
        self.memory.store(Gpa(at), value, Access::host(8)).unwrap();
    }
    fn get(&self, at: u64) -> u64 {
        self.memory.load(Gpa(at), Access::host(8)).unwrap()
    }
    fn write(&self, register: u64, value: u64) {
        self.memory.store(Gpa(Vtd::BASE + register), value, Access::cpu(0, 8)).unwrap();
    }
    fn write32(&self, register: u64, value: u64) {
        self.memory.store(Gpa(Vtd::BASE + register), value, Access::cpu(0, 4)).unwrap();
    }
    fn read(&self, register: u64) -> u64 {
        self.memory.load(Gpa(Vtd::BASE + register), Access::cpu(0, 8)).unwrap()
    }
    fn read32(&self, register: u64) -> u64 {
        self.memory.load(Gpa(Vtd::BASE + register), Access::cpu(0, 4)).unwrap()
    }
    fn command(&self, bits: u64) {
        self.write32(0x18, self.read32(0x1c) & 0x96ff_ffff & !(SET_ROOT | SET_ENTRIES) | bits);
    }
    /// Three levels: page 0 of the device is at 0x10_0000, 2 MiB from 0x20_0000 at 0x40_0000; translation on.
    fn translating(options: VtdOptions) -> Self {
        let b = Self::new(options);
        b.put(ROOT + 16, CONTEXTS | 1);
        b.put(CONTEXTS + 8 * 16, TABLE | 1);
        b.put(CONTEXTS + 8 * 16 + 8, DOMAIN << 8 | 1);
        b.put(TABLE, TABLE + 0x1003);
        b.put(TABLE + 0x1000, TABLE + 0x2003);
        b.put(TABLE + 0x1008, 0x40_0083);
        b.put(TABLE + 0x2000, 0x10_0003);
        b.put(TABLE + 0x2008, 0x10_1001);
        b.write(0x20, ROOT);
        b.command(SET_ROOT);
        b.command(TRANSLATE);
        b
    }
    /// The fault recorded first, and clears it: reason, source, information, is it a read?
    fn fault(&self) -> Option<(u64, u64, u64, bool)> {
        let index = self.read32(0x34) >> 8 & 0xff;
        let at = 0x220 + index * 16;
        let (low, high) = (self.read(at), self.read(at + 8));
        if high >> 63 == 0 {
            return None;
        }
        self.write32(at + 12, 1 << 31);
        Some((high >> 32 & 0xff, high & 0xffff, low, high >> 62 & 1 != 0))
    }
    fn queue(&self, descriptors: &[[u64; 2]]) {
        let head = self.read32(0x80);
        let mut at = head;
        for d in descriptors {
            self.put(QUEUE + at, d[0]);
            self.put(QUEUE + at + 8, d[1]);
            at = (at + 16) % 0x1000;
        }
        self.write(0x88, at);
    }
}

#[test]
fn capabilities_follow_options() {
    let b = Board::new(VtdOptions::default());
    assert_eq!(b.read32(0), 0x10);
    assert_eq!(b.read(8), 0xd2_078c_222f_0606);
    assert_eq!(b.read(0x10), 0xf0_0f5b);
    let parse = |text: &str| {
        let set = OptionSet::parse("-device intel-iommu", declarations(), &rhea_device::options::split(text))?;
        VtdOptions::of(&set, 40)
    };
    let narrow = parse("aw-bits=39,intremap=off,caching-mode=on,device-iotlb=on,pt=off,dma-drain=off").unwrap();
    let b = Board::new(narrow);
    assert_eq!((b.read(8) >> 8 & 0x1f, b.read(8) >> 16 & 0x3f, b.read(8) >> 7 & 1), (2, 38, 1));
    assert_eq!((b.read(8) >> 54 & 3, b.read(0x10) & 0x7f), (0, 7));
    for bad in ["intremap=off,eim=on", "aw-bits=57", "x-scalable-mode=on", "no-such-property=1"] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn translates() {
    let b = Board::translating(VtdOptions::default());
    b.put(0x10_0ff8, 0x1122_3344_5566_7788);
    b.put(0x10_1000, 0x99aa_bbcc_ddee_ff00);
    assert_eq!(b.dma.load(Gpa(0xff8), 8), Ok(0x1122_3344_5566_7788));
    // Across pages that lie side by side.
    assert_eq!(b.dma.load(Gpa(0xffc), 8), Ok(0xddee_ff00_1122_3344));
    assert_eq!(b.dma.store(Gpa(0x2f_f000), 8, 7), Ok(()));
    assert_eq!(b.get(0x4f_f000), 7);
    assert!(b.dma.host_slice(Gpa(0x20_0000), 2 << 20).is_some());
    assert!(b.dma.host_slice(Gpa(0x20_0000), (2 << 20) + 1).is_none());
    assert!(b.fault().is_some_and(|f| f.0 == 5));
    // A read-only page.
    assert_eq!(b.dma.store(Gpa(0x1000), 4, 0), Err(BusError::Refused));
    assert_eq!(b.fault(), Some((5, DEVICE.into(), 0x1000, false)));
    // No page, the same by its neighbour's bus, and beyond the width.
    assert_eq!(b.dma.load(Gpa(0x3008), 4), Err(BusError::Refused));
    assert_eq!(b.fault(), Some((6, DEVICE.into(), 0x3000, true)));
    assert!(b.vtd.translate(0x208, 0, false).is_err());
    assert_eq!(b.fault(), Some((1, 0x208, 0, true)));
    assert!(b.vtd.translate(0x109, 0, false).is_err());
    assert_eq!(b.fault(), Some((2, 0x109, 0, true)));
    assert_eq!(b.dma.load(Gpa(1 << 39), 4), Err(BusError::Refused));
    assert_eq!(b.fault().unwrap().0, 4);
    assert_eq!(b.read32(0x34) & 0xff, 0, "all is cleared");
    assert_eq!(b.dma.untranslated().load(Gpa(0x10_0ff8), 8), Ok(0x1122_3344_5566_7788));
}

#[test]
fn tables_are_checked() {
    let four = |b: &Board| {
        b.put(CONTEXTS + 8 * 16 + 8, DOMAIN << 8 | 2);
        b.put(CONTEXTS + 8 * 16, 0x7001);
        b.put(0x7000, TABLE | 3);
    };
    let b = Board::translating(VtdOptions::default());
    four(&b);
    b.put(0x10_0000, 42);
    assert_eq!(b.dma.load(Gpa(0), 8), Ok(42));
    type Damage = fn(&Board);
    let cases: [(Damage, u64); 11] = [
        (|b| b.put(ROOT + 16, CONTEXTS | 3), 0xa),
        (|b| b.put(ROOT + 24, 1), 0xa),
        (|b| b.put(ROOT + 16, 1 << 38 | 1), 0x9),
        (|b| b.put(CONTEXTS + 8 * 16, TABLE | 0x11), 0xb),
        (|b| b.put(CONTEXTS + 8 * 16, TABLE | 0xd), 0x3),
        (|b| b.put(CONTEXTS + 8 * 16 + 8, 4), 0x3),
        (|b| b.put(TABLE, 1 << 38 | 3), 0x7),
        (|b| b.put(TABLE, (TABLE + 0x1000) | 0x803), 0xc),
        (|b| b.put(TABLE + 0x2000, 1 << 45 | 3), 0xc),
        (|b| b.put(TABLE, 0x1083), 0xc),
        (|b| b.put(TABLE, 0), 0x6),
    ];
    for (damage, reason) in cases {
        let b = Board::translating(VtdOptions::default());
        damage(&b);
        assert_eq!(b.dma.load(Gpa(0), 4), Err(BusError::Refused), "{reason:#x}");
        assert_eq!(b.fault().unwrap().0, reason);
    }
    // Faults that the context keeps quiet, pass-through, and what is not offered.
    let b = Board::translating(VtdOptions::default());
    b.put(CONTEXTS + 8 * 16, TABLE | 3);
    assert!(b.dma.load(Gpa(0x3000), 4).is_err());
    assert_eq!(b.fault(), None);
    let b = Board::translating(VtdOptions::default());
    b.put(CONTEXTS + 8 * 16, 0x9);
    b.put(0x5000, 3);
    assert_eq!(b.dma.load(Gpa(0x5000), 8), Ok(3));
    let b = Board::translating(VtdOptions { pass_through: false, address_bits: 39, ..VtdOptions::default() });
    b.put(CONTEXTS + 8 * 16, 0x9);
    assert!(b.dma.load(Gpa(0x5000), 8).is_err());
    assert_eq!(b.fault().unwrap().0, 3);
    four(&b);
    assert!(b.dma.load(Gpa(0), 8).is_err());
    assert_eq!(b.fault().unwrap().0, 3);
}

#[test]
fn faults_overflow_and_tell_once() {
    let b = Board::translating(VtdOptions::default());
    for n in 0..20 {
        assert!(b.dma.load(Gpa(0x3000 + n * 0x1000), 4).is_err());
    }
    // Pending and overflow; the event waits, being masked.
    assert_eq!(b.read32(0x34), 3);
    assert_eq!(b.read32(0x38), 3 << 30);
    for n in 0..8 {
        assert_eq!(b.read(0x220 + n * 16), 0x3000 + n * 0x1000);
        b.write32(0x22c + n * 16, 1 << 31);
    }
    assert_eq!(b.read32(0x34), 1);
    b.write32(0x34, 1);
    assert_eq!((b.read32(0x34), b.read32(0x38)), (0, 1 << 31));
}

#[test]
fn caches_are_kept_until_invalidated() {
    for large in [false, true] {
        let b = Board::translating(VtdOptions::default());
        b.put(0x10_0000, 1);
        b.put(0x11_0000, 2);
        let watch = b.vtd.watch(DEVICE.into(), &[GpaRange { start: Gpa(0), len: 0x1000 }]);
        assert_eq!(b.dma.load(Gpa(0), 8), Ok(1));
        if large {
            assert!(b.dma.load(Gpa(0x20_0000), 8).is_ok());
        }
        b.put(TABLE + 0x2000, 0x11_0003);
        assert_eq!(b.dma.load(Gpa(0), 8), Ok(1), "from the cache");
        // Another domain, another page: by register.
        b.write(0xf8, 1 << 63 | 2 << 60 | 9 << 32);
        assert_eq!(b.read(0xf8), 2 << 57 | 2 << 60 | 9 << 32);
        b.write(0xf0, 0x1000);
        b.write(0xf8, 1 << 63 | 3 << 60 | DOMAIN << 32);
        assert_eq!(b.dma.load(Gpa(0), 8), Ok(1));
        assert_eq!(watch.load(Ordering::SeqCst), large, "with large pages about, the neighbour may be of the same");
        b.write(0xf0, 2);
        b.write(0xf8, 1 << 63 | 3 << 60 | DOMAIN << 32);
        assert_eq!(b.dma.load(Gpa(0), 8), Ok(2));
        assert!(watch.load(Ordering::SeqCst));
        // A context.
        b.put(CONTEXTS + 8 * 16, 0);
        assert!(b.dma.load(Gpa(0), 8).is_ok());
        b.write(0x28, 1 << 63 | 3 << 61 | u64::from(DEVICE) << 16 | DOMAIN);
        assert_eq!(b.read(0x28) >> 59 & 3, 3);
        assert!(b.dma.load(Gpa(0), 8).is_err());
    }
}

#[test]
fn invalidation_queue() {
    let b = Board::translating(VtdOptions::default());
    b.write(0x90, QUEUE);
    b.command(QUEUED);
    b.put(0x10_0000, 1);
    b.put(0x11_0000, 2);
    assert_eq!(b.dma.load(Gpa(0), 8), Ok(1));
    b.put(TABLE + 0x2000, 0x11_0003);
    let wait = |n: u64| [n << 32 | 0x25, STATUS];
    b.queue(&[[0x32 | DOMAIN << 16, 0], wait(1)]);
    assert_eq!((b.get(STATUS) & 0xffff_ffff, b.read32(0x80)), (1, 0x20));
    assert_eq!(b.dma.load(Gpa(0), 8), Ok(2));
    b.put(TABLE + 0x2000, 0x10_0003);
    b.queue(&[[0x12, 0], [0x11, 0], [4, 0], [0x15, 0], wait(2)]);
    assert_eq!((b.get(STATUS) & 0xffff_ffff, b.read32(0x9c)), (2, 1));
    assert_eq!(b.dma.load(Gpa(0), 8), Ok(1));
    // The event waits, being masked, until its status is cleared.
    assert_eq!(b.read32(0xa0), 3 << 30);
    b.write32(0x9c, 1);
    assert_eq!((b.read32(0x9c), b.read32(0xa0)), (0, 1 << 31));
    // Wrong descriptors stop the queue there; it goes on with what software puts in their place.
    for bad in [[0, 0], [3, 0], [6, 0], [0x02, 0], [0x32, 63], [0x25, u64::MAX - 7], [0x11, 1]] {
        let head = b.read32(0x80);
        b.queue(&[bad, wait(3)]);
        assert_eq!((b.read32(0x80), b.read32(0x34) & 0x10), (head, 0x10), "{bad:x?}");
        b.put(QUEUE + head, 0x12);
        b.put(QUEUE + head + 8, 0);
        b.write32(0x34, 0x10);
        assert_eq!((b.read32(0x80), b.read32(0x34) & 0x10), (head + 0x20, 0));
    }
    // It wraps around, and a tail outside is wrong.
    for n in 0..600 {
        b.queue(&[wait(n)]);
        assert_eq!(b.get(STATUS) & 0xffff_ffff, n);
    }
    b.write(0x88, 0x1000);
    assert_eq!(b.read32(0x34) & 0x10, 0x10);
}

#[test]
fn remaps_interrupts() {
    let b = Board::new(VtdOptions::default());
    let address = |index: u64| 0xfee0_0010 | (index & 0x7fff) << 5 | (index >> 15) << 2;
    let ask = |source, address, data| b.vtd.remap(source, address, data);
    assert_eq!(ask(Some(DEVICE), address(1), 0), Remapped::Unchanged);
    b.write(0xb8, ENTRIES | 7);
    b.command(SET_ENTRIES);
    b.command(REMAP);
    let entry = |index: u64, low: u64, high: u64| {
        b.put(ENTRIES + index * 16, low);
        b.put(ENTRIES + index * 16 + 8, high);
    };
    entry(1, 3 << 40 | 0x41 << 16 | 1, 1 << 18 | u64::from(DEVICE));
    let message = |destination, vector| Message {
        destination,
        logical: false,
        wide: false,
        delivery: Delivery::Fixed,
        vector,
        level: false,
    };
    assert_eq!(ask(Some(DEVICE), address(1), 0), Remapped::Message(message(3, 0x41)));
    assert_eq!(ask(None, address(1), 0x41), Remapped::Message(message(3, 0x41)), "the I/O APIC is trusted");
    // With a subhandle.
    entry(4, 3 << 40 | 0x44 << 16 | 1, 0);
    assert_eq!(ask(Some(9), address(1) | 8, 3), Remapped::Message(message(3, 0x44)));
    // Level, lowest priority among the logical, and a range of buses.
    entry(5, 3 << 40 | 0x45 << 16 | 0x1d, 2 << 18 | 0x0103);
    let Remapped::Message(m) = ask(Some(0x2ff), address(5), 0) else { panic!("refused") };
    assert!(m.level && m.logical && m.delivery == Delivery::LowestPriority);
    let refused = |source: u16, address, data, reason: u64, index: u64| {
        assert_eq!(ask(Some(source), address, data), Remapped::Blocked, "{reason:#x}");
        assert_eq!(b.fault(), Some((reason, source.into(), index << 48, false)));
    };
    refused(0x400, address(5), 0, 0x26, 5);
    refused(DEVICE + 1, address(1), 0, 0x26, 1);
    entry(1, 3 << 40 | 0x41 << 16 | 1, 1 << 18 | 3 << 16 | u64::from(DEVICE));
    assert!(matches!(ask(Some(DEVICE + 1), address(1), 0), Remapped::Message(_)));
    refused(DEVICE, address(2), 0, 0x22, 2);
    refused(DEVICE, address(256), 0, 0x21, 256);
    refused(DEVICE, address(1) | 8, 1 << 16, 0x20, 1);
    refused(DEVICE, 0xfee0_0000, 0x31, 0x25, 0);
    entry(6, 1 << 15 | 1, 0);
    refused(DEVICE, address(6), 0, 0x24, 6);
    entry(6, 0x61, 0);
    assert!(matches!(ask(Some(DEVICE), address(6), 0), Remapped::Blocked));
    b.fault();
    entry(7, 1 << 32 | 1, 0);
    refused(DEVICE, address(7), 0, 0x24, 7);
    entry(7, 2, 0);
    assert_eq!(ask(Some(DEVICE), address(7), 0), Remapped::Blocked);
    assert_eq!(b.fault(), None, "the entry keeps it quiet");
    // Compatibility format where allowed, extended destinations.
    b.command(1 << 23);
    assert_eq!(ask(Some(DEVICE), 0xfee0_0000, 0x31), Remapped::Unchanged);
    b.write(0xb8, ENTRIES | 1 << 11 | 7);
    b.command(SET_ENTRIES);
    refused(DEVICE, 0xfee0_0000, 0x31, 0x25, 0);
    entry(8, 0x1_0002 << 32 | 0x48 << 16 | 5, 0);
    let wide = Message { logical: true, wide: true, ..message(0x1_0002, 0x48) };
    assert_eq!(ask(Some(DEVICE), address(8), 0), Remapped::Message(wide));
    // By a store of the device.
    assert_eq!(b.dma.store(Gpa(0xfee0_0000), 4, 0x31), Ok(()));
    assert!(b.dma.load(Gpa(0xfee0_0000), 4).is_err());
    let other = Board::new(VtdOptions { interrupt_remapping: false, ..VtdOptions::default() });
    other.command(SET_ENTRIES | REMAP);
    assert_eq!(other.read32(0x1c), 0);
}

#[test]
fn state_comes_back() {
    let b = Board::translating(VtdOptions::default());
    b.put(0x10_0000, 77);
    assert!(b.dma.load(Gpa(0x3000), 4).is_err());
    let saved = b.vtd.save();
    b.vtd.reset();
    assert_eq!(b.read32(0x1c), 0);
    assert_eq!(b.dma.load(Gpa(0x10_0000), 8), Ok(77), "off after reset");
    b.vtd.load(&saved).unwrap();
    assert_eq!(b.dma.load(Gpa(0), 8), Ok(77));
    assert_eq!(b.fault().unwrap().0, 6);
    let other = Board::new(VtdOptions { address_bits: 39, ..VtdOptions::default() });
    assert!(other.vtd.load(&saved).is_err());
}

/// Any writes, any tables: bounded, and nothing outside of RAM.
#[test]
fn rubbish() {
    let b = Board::translating(VtdOptions { device_iotlb: true, ..VtdOptions::default() });
    let mut x = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    for _ in 0..40_000 {
        let value = if random() % 4 == 0 { random() } else { random() & (RAM - 1) };
        match random() % 6 {
            0 => b.put(random() % 0x2_0000 & !7, value | random() & 3),
            1 => b.write(random() % 0x300 & !7, value),
            2 => b.write32(random() % 0x300 & !3, value & 0xffff_ffff),
            3 => {
                let _ = b.dma.load(Gpa(random() >> (random() % 64)), 4);
            }
            4 => {
                let _ = b.dma.write(Gpa(random() >> (random() % 64)), &[1; 64]);
            }
            _ => {
                let _ = b.vtd.remap(Some(random() as u16), 0xfee0_0000 | random() & 0xf_ffff, random() as u32);
            }
        }
    }
    b.vtd.reset();
    assert_eq!(b.read32(0x34), 0);
}

/// Keeps the device's translations as they were when it was told last.
struct Mirror {
    translations: std::sync::OnceLock<Box<dyn Translations>>,
    told: parking_lot::Mutex<Vec<Option<(u64, u64)>>>,
    /// The status that the queue writes, each time.
    status: parking_lot::Mutex<Vec<u64>>,
    memory: Arc<AddressSpace>,
}

impl TranslationListener for Mirror {
    fn translation_changed(&self, range: Option<GpaRange>) {
        self.told.lock().push(range.map(|r| (r.start.0, r.len)));
        self.status.lock().push(self.memory.load(Gpa(STATUS), Access::host(4)).unwrap());
    }
}

impl Mirror {
    fn new(b: &Board) -> Arc<Self> {
        let (told, status) = Default::default();
        let mirror =
            Arc::new(Self { translations: std::sync::OnceLock::new(), told, status, memory: b.memory.clone() });
        let listener: std::sync::Weak<dyn TranslationListener> = Arc::<Self>::downgrade(&mirror);
        let followed = b.vtd.clone().follow(DEVICE.into(), listener).map_err(|(name, why)| format!("{name}{why}"));
        assert!(mirror.translations.set(followed.unwrap()).is_ok());
        mirror
    }
    /// From address to address: addresses, length, writable.
    fn all(&self, first: u64, last: u64) -> Vec<(u64, u64, u64, bool)> {
        let mut all = Vec::new();
        let translations = self.translations.get().unwrap();
        translations.mapped(first, last, &mut |t| all.push((t.iova, t.gpa, t.len, t.write)));
        assert!(translations.windows().is_none());
        all
    }
    fn told(&self) -> Vec<Option<(u64, u64)>> {
        std::mem::take(&mut self.told.lock())
    }
}

#[test]
fn translations_are_followed() {
    let options = VtdOptions { caching_mode: true, ..VtdOptions::default() };
    let b = Board::new(options);
    let mirror = Mirror::new(&b);
    // Without translation all is as it is.
    assert_eq!(mirror.all(0, u64::MAX), [(0, 0, u64::MAX, true)]);
    let b = Board::translating(options);
    let mirror = Mirror::new(&b);
    let large = (0x20_0000, 0x40_0000, 0x20_0000, true);
    assert_eq!(mirror.all(0, u64::MAX), [(0, 0x10_0000, 0x1000, true), (0x1000, 0x10_1000, 0x1000, false), large]);
    assert_eq!(mirror.all(0x1fff, 0x1f_ffff), [(0x1000, 0x10_1000, 0x1000, false)]);
    assert_eq!(mirror.all(0x3f_ffff, 0x4000_0000), [large]);
    assert_eq!(mirror.all(0x2000, 0x1f_ffff), []);
    // By the queue: pages of its domain and of another one, and a wait, which is done when they have been told.
    b.write(0x90, QUEUE);
    b.command(QUEUED);
    mirror.told();
    mirror.status.lock().clear();
    b.put(STATUS, 0);
    b.put(TABLE + 0x2010, 0x10_2003);
    let pages = |domain: u64, address: u64| [domain << 16 | 0x32, address];
    let wait = |status: u64| [status << 32 | 0x25, STATUS];
    b.queue(&[pages(DOMAIN, 0x2000), pages(DOMAIN + 1, 0x5000), wait(1), pages(DOMAIN, 0x4001), wait(2)]);
    assert_eq!(mirror.told(), [Some((0x2000, 0x1000)), Some((0x4000, 0x2000))]);
    assert_eq!((&*mirror.status.lock(), b.get(STATUS)), (&vec![0, 1], 2));
    assert_eq!(b.read32(0x80), b.read32(0x88));
    assert_eq!(mirror.all(0x2000, 0x2fff), [(0x2000, 0x10_2000, 0x1000, true)]);
    // Its domain; all; contexts.
    for descriptor in [[DOMAIN << 16 | 0x22, 0], [0x12, 0], [0x11, 0]] {
        b.queue(&[descriptor]);
        assert_eq!(mirror.told(), [None], "{descriptor:x?}");
    }
    b.queue(&[[(DOMAIN + 1) << 16 | 0x22, 0]]);
    assert_eq!(mirror.told(), []);
    // More than are kept apart are one; none is forgotten.
    b.queue(&(0..255).map(|n| pages(DOMAIN, n << 12)).collect::<Vec<_>>());
    assert_eq!(mirror.told().len(), 255);
    for _ in 0..2 {
        b.queue(&(0..200).map(|n| pages(DOMAIN, n << 12)).collect::<Vec<_>>());
    }
    assert_eq!(mirror.told().len(), 400);
    // A table that leads to itself, at all levels: the look ends.
    for n in 0..512 {
        b.put(TABLE + n * 8, TABLE | 3);
    }
    let mut count = 0u64;
    mirror.translations.get().unwrap().mapped(0, u64::MAX, &mut |_| count += 1);
    assert!((1 << 20..1 << 25).contains(&count), "{count}");
    // No context, and a reset.
    b.put(CONTEXTS + 8 * 16, 0);
    assert_eq!(mirror.all(0, u64::MAX), []);
    b.vtd.reset();
    assert_eq!(mirror.told(), [None]);
    assert_eq!(mirror.all(0x1000, 0x1fff), [(0x1000, 0x1000, 0x1000, true)]);
    // Without caching mode nobody would tell of what is mapped.
    let b = Board::new(VtdOptions::default());
    let nobody: std::sync::Weak<dyn TranslationListener> = std::sync::Weak::<Mirror>::new();
    assert!(b.vtd.clone().follow(DEVICE.into(), nobody).is_err_and(|(_, why)| why.contains("caching-mode=on")));
}
