//! Configuration space, BARs and interrupts as software sees them, through the ECAM window.

use rhea_accel::{IrqLine, MsiMessage, MsiTarget};
use rhea_device::{Device, LoadError, Saved, state};
use rhea_memory::{Access, AccessRules, AddressSpace, BusError, Gpa, MmioDevice, RamBlock, Requester};
use rhea_pci::{
    BarKind, ConfigBuilder, Devfn, HostWindows, Identity, PciBus, PciConfig, PciConfigState, PciFunction, PcieHost,
    PcieType,
};
use std::sync::{Arc, Mutex};

const ECAM: u64 = 0x40_1000_0000;
const WINDOW32: u64 = 0x1000_0000;
const WINDOW64: u64 = 0x80_0000_0000;
const IO: u64 = 0x3eff_0000;

/// Answers with the offset.
struct Offsets;

impl MmioDevice for Offsets {
    fn read(&self, offset: u64, _access: Access) -> Result<u64, BusError> {
        Ok(offset | 0x5000_0000)
    }
    fn write(&self, _offset: u64, _value: u64, _access: Access) -> Result<(), BusError> {
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::ANY
    }
    fn name(&self) -> &str {
        "offsets"
    }
}

#[derive(Default)]
struct Messages(Mutex<Vec<(u64, u32, u32)>>);

impl MsiTarget for Messages {
    fn send(&self, m: MsiMessage) {
        self.0.lock().unwrap().push((m.address, m.data, m.requester_id));
    }
}

impl Messages {
    fn take(&self) -> Vec<(u64, u32, u32)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

struct Function {
    config: PciConfig,
}

impl Device for Function {
    fn name(&self) -> &str {
        "function"
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

impl PciFunction for Function {
    fn config(&self) -> &PciConfig {
        &self.config
    }
}

struct Board {
    system: Arc<AddressSpace>,
    host: PcieHost,
    lines: [IrqLine; 4],
    messages: Arc<Messages>,
    function: Arc<Function>,
    cap: usize,
}

const DEVFN: Devfn = Devfn::new(3, 0);

impl Board {
    fn new() -> Self {
        let system = AddressSpace::new("system");
        let lines = std::array::from_fn(|_| IrqLine::unconnected());
        let messages = Arc::new(Messages::default());
        let windows = HostWindows {
            ecam: (Gpa(ECAM), 1 << 20),
            memory32: (Gpa(WINDOW32), 0x2000_0000),
            memory64: Some((Gpa(WINDOW64), 1 << 39)),
            io: Some((Gpa(IO), 0x1_0000)),
        };
        let host = PcieHost::new(&system, windows, lines.clone(), Some(messages.clone())).unwrap();
        let identity = Identity {
            vendor: 0x1234,
            device: 0x5678,
            revision: 9,
            class: 0x01_0203,
            subsystem_vendor: 0xaaaa,
            subsystem: 0xbbbb,
        };
        let mut cap = 0;
        let config = ConfigBuilder::new(identity, host.bus().slot(DEVFN))
            .bar(0, BarKind::Io, 0x20, Arc::new(Offsets))
            .bar(1, BarKind::Memory32, 0x1800, Arc::new(Offsets))
            .bar(2, BarKind::Memory64, 0x10000, Arc::new(Offsets))
            .msix(4, 3)
            .msi(2)
            .capability(9, &[1, 2, 3, 4, 5, 6], &[0, 0xff], &mut cap)
            .pcie(PcieType::Endpoint)
            .intx(1)
            .build();
        let function = Arc::new(Function { config });
        host.bus().attach(function.clone()).unwrap();
        Self { system, host, lines, messages, function, cap }
    }
    fn read(&self, register: u64, size: u8) -> u64 {
        self.system.load(Gpa(ECAM + (u64::from(DEVFN.0) << 12) + register), Access::host(size)).unwrap()
    }
    fn write(&self, register: u64, size: u8, value: u64) {
        self.system.store(Gpa(ECAM + (u64::from(DEVFN.0) << 12) + register), value, Access::host(size)).unwrap();
    }
    fn load(&self, gpa: u64) -> Option<u64> {
        self.system.load(Gpa(gpa), Access::host(4)).ok().filter(|v| *v != 0xffff_ffff)
    }
    /// Offset of a capability by id.
    fn capability(&self, id: u64) -> u64 {
        let mut at = self.read(0x34, 1);
        while at != 0 {
            if self.read(at, 1) == id {
                return at;
            }
            at = self.read(at + 1, 1);
        }
        panic!("no capability {id:#x}");
    }
}

#[test]
fn identity_and_write_masks() {
    let b = Board::new();
    assert_eq!(
        (b.read(0, 4), b.read(8, 4), b.read(0x2c, 4), b.read(0x3d, 1)),
        (0x5678_1234, 0x0102_0309, 0xbbbb_aaaa, 1)
    );
    for register in (0..0x40).step_by(4).filter(|r| !(0x10..0x28).contains(r)) {
        let before = b.read(register, 4);
        b.write(register, 4, u64::from(u32::MAX));
        let changed = before ^ b.read(register, 4);
        let may = match register {
            4 => 0x0547,
            0xc | 0x3c => 0xff,
            _ => 0,
        };
        assert_eq!(changed & !may, 0, "register {register:#x}");
        b.write(register, 4, 0);
    }
    assert_eq!(b.read(b.cap as u64 + 2, 4), 0x0403_0201);
    b.write(b.cap as u64 + 2, 4, 0xffff_ffff);
    assert_eq!(b.read(b.cap as u64 + 2, 4), 0x0403_ff01);
    // Nobody there.
    let at = |devfn: u64, bus: u64| b.system.load(Gpa(ECAM + (bus << 20) + (devfn << 12)), Access::host(4));
    assert_eq!(at(u64::from(DEVFN.0) + 1, 0), Ok(0xffff_ffff));
    assert_eq!(b.read(0xffc, 4), 0);
    assert!(at(0, 1).is_err(), "beyond the window");
    // Other sizes.
    assert_eq!((b.read(0, 1), b.read(1, 1), b.read(2, 2)), (0x34, 0x12, 0x5678));
    b.write(5, 1, 4);
    assert_eq!(b.read(4, 2), 0x0400);
}

#[test]
fn bars() {
    let b = Board::new();
    // Sizing.
    for (register, want) in [
        (0x10, 0xffff_ffe1),
        (0x14, 0xffff_e000),
        (0x18, 0xffff_000c),
        (0x1c, 0xffff_ffff),
        (0x20, 0xffff_f000),
        (0x24, 0),
    ] {
        b.write(register, 4, 0xffff_ffff);
        assert_eq!(b.read(register, 4), want, "BAR at {register:#x}");
        b.write(register, 4, 0);
    }
    b.write(0x10, 4, 0x1000);
    b.write(0x14, 4, WINDOW32 + 0x2000);
    b.write(0x18, 4, 0);
    b.write(0x1c, 4, WINDOW64 >> 32);
    assert_eq!(b.load(WINDOW32 + 0x2004), None, "decoding is off");
    b.write(4, 2, 3);
    assert_eq!(
        (b.load(IO + 0x1004), b.load(WINDOW32 + 0x2004), b.load(WINDOW64 + 8)),
        (Some(0x5000_0004), Some(0x5000_0004), Some(0x5000_0008))
    );
    assert_eq!(b.function.config.mapped_bars().len(), 3);
    // Moved, with decoding on.
    b.write(0x14, 4, WINDOW32 + 0x10_0000);
    assert_eq!((b.load(WINDOW32 + 0x2004), b.load(WINDOW32 + 0x10_1ffc)), (None, Some(0x5000_1ffc)));
    // Out of the window, and sized while decoding.
    b.write(0x14, 4, 0xf000_0000);
    assert_eq!(b.load(WINDOW32 + 0x10_0004), None);
    b.write(0x14, 4, 0xffff_ffff);
    b.write(0x14, 4, WINDOW32);
    assert_eq!(b.load(WINDOW32 + 4), Some(0x5000_0004));
    // Saved and loaded; reset.
    let saved = b.function.save();
    b.function.reset();
    assert_eq!((b.load(WINDOW32 + 4), b.read(4, 2), b.read(0x14, 4)), (None, 0, 0));
    b.function.load(&saved).unwrap();
    assert_eq!((b.load(WINDOW32 + 4), b.load(IO + 0x1004)), (Some(0x5000_0004), Some(0x5000_0004)));
    b.write(4, 2, 0);
    assert_eq!((b.load(WINDOW32 + 4), b.load(IO + 0x1004), b.load(WINDOW64)), (None, None, None));
}

/// Firmware tells kinds of BARs apart by these bits (PCI 3.0, 6.2.5.1); a 64-bit BAR of registers must not say prefetchable.
#[test]
fn types_of_bars() {
    let board = Board::new();
    let kinds = [(BarKind::Io, 1), (BarKind::Memory32, 0), (BarKind::Memory64, 0xc), (BarKind::Registers64, 4)];
    for (n, (kind, bits)) in kinds.into_iter().enumerate() {
        let slot = board.host.bus().slot(Devfn::new(4 + n as u8, 0));
        let identity = Identity { vendor: 1, device: 2, revision: 0, class: 0, subsystem_vendor: 0, subsystem: 0 };
        let config = ConfigBuilder::new(identity, slot).bar(0, kind, 0x1000, Arc::new(Offsets)).build();
        assert_eq!(config.read(0x10, 4), bits, "{kind:?}");
        config.write(0x14, 4, u32::MAX);
        assert_eq!(config.read(0x14, 4) == u32::MAX, kind.is_wide(), "{kind:?}");
    }
}

#[test]
fn intx() {
    let b = Board::new();
    let pin = b.function.config.intx().unwrap().clone();
    let levels = || b.lines.each_ref().map(IrqLine::level);
    pin.set(true);
    // Device 3, INTA: swizzled to the fourth wire.
    assert_eq!(levels(), [false, false, false, true]);
    assert_eq!(b.read(6, 2) & 8, 8);
    b.write(4, 2, 0x400);
    assert_eq!((levels(), b.read(6, 2) & 8), ([false; 4], 8), "disabled, but pending");
    b.write(4, 2, 0);
    assert_eq!(levels(), [false, false, false, true]);
    pin.set(false);
    assert_eq!(levels(), [false; 4]);
    pin.set(true);
    b.function.reset();
    assert_eq!(levels(), [false; 4]);
}

#[test]
fn msix() {
    let b = Board::new();
    let msix = b.function.config.msix().unwrap().clone();
    let cap = b.capability(0x11);
    assert_eq!((b.read(cap + 2, 2), b.read(cap + 4, 4), b.read(cap + 8, 4)), (2, 4, 2048 | 4));
    b.write(0x20, 4, WINDOW32);
    b.write(4, 2, 6);
    let store = |offset: u64, v: u64| b.system.store(Gpa(WINDOW32 + offset), v, Access::host(4)).unwrap();
    let load = |offset: u64| b.system.load(Gpa(WINDOW32 + offset), Access::host(4)).unwrap();
    assert_eq!(load(12), 1, "masked after reset");
    for (n, v) in [0xfee0_0003u64, 1, 77, 0].into_iter().enumerate() {
        store(16 + 4 * n as u64, v);
    }
    msix.notify(1);
    assert!(b.messages.take().is_empty(), "MSI-X is off");
    b.write(cap + 2, 2, 0x8000);
    for vector in [1, 3, 0xffff] {
        msix.notify(vector);
    }
    assert_eq!(b.messages.take(), [(0x1_fee0_0000, 77, u32::from(DEVFN.0))]);
    // Masked by the function, then by the vector: pending.
    b.write(cap + 2, 2, 0xc000);
    msix.notify(1);
    assert_eq!((b.messages.take().len(), load(2048)), (0, 2));
    b.write(cap + 2, 2, 0x8000);
    assert_eq!((b.messages.take().len(), load(2048)), (1, 0));
    store(28, 1);
    msix.notify(1);
    msix.notify(1);
    let saved = b.function.save();
    b.function.reset();
    assert!(!msix.enabled());
    b.function.load(&saved).unwrap();
    assert_eq!((b.messages.take().len(), load(2048)), (0, 2));
    store(28, 0);
    assert_eq!((b.messages.take().len(), load(2048)), (1, 0));
    // Without bus mastering no message leaves.
    b.write(4, 2, 2);
    msix.notify(1);
    assert!(b.messages.take().is_empty());
}

#[test]
fn msi() {
    let b = Board::new();
    let msi = b.function.config.msi().unwrap().clone();
    let cap = b.capability(5);
    // 64-bit, maskable, four vectors asked for.
    assert_eq!(b.read(cap + 2, 2), 0x0184);
    b.write(4, 2, 4);
    b.write(cap + 4, 4, 0x1234_5678);
    b.write(cap + 8, 4, 0x9a);
    b.write(cap + 12, 2, 0x4243);
    msi.notify(1);
    assert!(b.messages.take().is_empty());
    b.write(cap + 2, 2, 0x21);
    for vector in 0..4 {
        msi.notify(vector);
    }
    assert_eq!(b.messages.take().iter().map(|m| m.1).collect::<Vec<_>>(), [0x4240, 0x4241, 0x4242, 0x4243]);
    // One vector allocated: all share it.
    b.write(cap + 2, 2, 1);
    msi.notify(3);
    assert_eq!(b.messages.take(), [(0x9a_1234_5678, 0x4243, u32::from(DEVFN.0))]);
    b.write(cap + 0x10, 4, 1);
    msi.notify(0);
    assert_eq!((b.messages.take().len(), b.read(cap + 0x14, 4)), (0, 1));
    b.write(cap + 0x10, 4, 0);
    assert_eq!((b.messages.take().len(), b.read(cap + 0x14, 4)), (1, 0));
}

#[test]
fn places() {
    let b = Board::new();
    let bus: &Arc<PciBus> = b.host.bus();
    let make = |devfn| {
        let identity = Identity { vendor: 1, device: 2, revision: 0, class: 0, subsystem_vendor: 0, subsystem: 0 };
        Arc::new(Function { config: ConfigBuilder::new(identity, bus.slot(devfn)).build() })
    };
    assert!(bus.attach(make(DEVFN)).unwrap_err().to_string().contains("03.0"));
    bus.attach(make(Devfn::new(3, 1))).unwrap();
    assert_eq!(b.read(0xe, 1), 0x80, "several functions");
    for n in 1..31 {
        let slot = bus.free_slot().unwrap();
        assert_eq!(slot.devfn().function(), 0);
        bus.attach(make(slot.devfn())).unwrap();
        assert!(n < 30 || bus.free_slot().is_err());
    }
    for (text, want) in [
        ("3", Some(0x18)),
        ("1f.7", Some(0xff)),
        ("0x5.0x1", Some(0x29)),
        ("20", None),
        ("1.8", None),
        ("", None),
        ("x", None),
    ] {
        assert_eq!(Devfn::parse(text), want.map(Devfn), "{text}");
    }
}

/// Rubbish written everywhere in configuration space and in the windows.
#[test]
fn rubbish() {
    let b = Board::new();
    let mut seed = 0x1357_9bdf_2468_aceeu64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let (msix, msi, pin) = (
        b.function.config.msix().unwrap().clone(),
        b.function.config.msi().unwrap().clone(),
        b.function.config.intx().unwrap().clone(),
    );
    for n in 0..30_000 {
        let size = [1u8, 2, 4, 8][(random() % 4) as usize];
        let register = if random() % 4 == 0 { random() % 4096 } else { random() % 0xc0 };
        let mut value = random();
        if random() % 2 == 0 {
            value = [WINDOW32, WINDOW64 >> 32, 0, u64::MAX, 7, 0x8000, ECAM, IO][(random() % 8) as usize]
                .wrapping_add(random() % 3 * 0x1000);
        }
        let _ = b.system.store(Gpa(ECAM + ((random() % 64) << 12) + register), value, Access::host(size));
        b.write(register & !3, 4, value & 0xffff_ffff);
        let at = [WINDOW32, WINDOW64, IO][(random() % 3) as usize] + random() % 0x3000;
        let _ = b.system.load(Gpa(at), Access { size, requester: Requester::Host, secure: false });
        let _ = b.system.store(Gpa(at & !7), value, Access::host(size));
        match random() % 8 {
            0 => msix.notify(random() as u16),
            1 => msi.notify(random() as u16),
            2 => pin.set(random() % 2 == 0),
            3 if n % 64 == 0 => {
                let saved = b.function.save();
                b.function.reset();
                b.function.load(&saved).unwrap();
            }
            _ => (),
        }
        assert_eq!(b.read(0, 4), 0x5678_1234);
    }
    b.messages.take();
    b.function.reset();
    assert!(b.lines.iter().all(|l| !l.level()) && b.function.config.mapped_bars().is_empty());
}

#[test]
fn memory_behind_bars_and_expansion_rom() {
    let bus = PciBus::new("pci", AddressSpace::new("dma"), std::array::from_fn(|_| IrqLine::unconnected()), None);
    let identity = Identity { vendor: 1, device: 2, revision: 0, class: 0x03_0000, subsystem_vendor: 0, subsystem: 0 };
    let ram = RamBlock::anonymous("ram", 0x10000).unwrap();
    let mut image = vec![0; 0x2801];
    image[..2].copy_from_slice(&[0x55, 0xaa]);
    let slot = bus.slot(DEVFN).with_rom(&image, true).unwrap();
    let config = ConfigBuilder::new(identity, slot).ram_bar(0, BarKind::Memory32, &ram).build();
    let size = |at| {
        config.write(at, 4, u32::MAX);
        config.read(at, 4)
    };
    assert_eq!((size(0x10), size(0x30)), (0xffff_0008, 0xffff_c001));
    config.write(0x10, 4, 0xe000_0000);
    config.write(0x30, 4, 0xfeb0_0000);
    config.write(4, 2, 2);
    let load = |at| bus.memory().load(Gpa(at), Access::cpu(0, 2));
    bus.memory().store(Gpa(0xe000_0010), 0x1234, Access::cpu(0, 2)).unwrap();
    assert_eq!(ram.load(0x10, 2), Ok(0x1234));
    assert_eq!(load(0xfeb0_0000), Err(BusError::Unassigned), "not enabled");
    config.write(0x30, 4, 0xfeb0_0001);
    assert_eq!(load(0xfeb0_0000), Ok(0xaa55));
    assert_eq!(bus.memory().store(Gpa(0xfeb0_0000), 0, Access::cpu(0, 2)), Err(BusError::ReadOnly));
    assert_eq!(config.mapped_bars(), [(0, 0xe000_0000, 0x10000), (6, 0xfeb0_0000, 0x4000)]);
    config.write(4, 2, 0);
    assert!(config.mapped_bars().is_empty() && load(0xe000_0000).is_err());
}
