//! Buses behind bridges: routing of configuration cycles, windows, interrupts, requester ids, resets, hot-plug, hostile software.

use rhea_accel::{IrqLine, MsiMessage, MsiTarget};
use rhea_clock::VirtualClock;
use rhea_device::{Device, LoadError, Log, OptionSet, Saved, state};
use rhea_memory::{Access, AddressSpace, BusError, Gpa, MmioDevice, RamBlock};
use rhea_pci::catalog;
use rhea_pci::{
    BarKind, ConfigBuilder, Devfn, Ecam, Identity, PciBus, PciConfig, PciConfigState, PciError, PciFunction, PcieType,
    Port, PortKind,
};
use std::sync::{Arc, Mutex};

struct Number(u64);

impl MmioDevice for Number {
    fn read(&self, _: u64, _: Access) -> Result<u64, BusError> {
        Ok(self.0)
    }
    fn write(&self, _: u64, _: u64, _: Access) -> Result<(), BusError> {
        Ok(())
    }
}

#[derive(Default)]
struct Messages(Mutex<Vec<(u64, u32, u32)>>);

impl MsiTarget for Messages {
    fn send(&self, m: MsiMessage) {
        self.0.lock().unwrap().push((m.address, m.data, m.requester_id));
    }
}

struct Card(PciConfig);

impl Device for Card {
    fn name(&self) -> &str {
        "card"
    }
    fn reset(&self) {
        self.0.reset();
    }
    fn save(&self) -> Saved {
        state::encode(1, &self.0.save())
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        self.0.load(state::decode::<PciConfigState>(saved, 1)?)
    }
}

impl PciFunction for Card {
    fn config(&self) -> &PciConfig {
        &self.0
    }
}

const IDENTITY: Identity =
    Identity { vendor: 0x1af4, device: 7, revision: 0, class: 0xff_0000, subsystem_vendor: 0, subsystem: 0 };

struct Board {
    root: Arc<PciBus>,
    lines: [IrqLine; 4],
    messages: Arc<Messages>,
}

impl Board {
    fn new() -> Self {
        let memory = AddressSpace::new("memory");
        let ram = RamBlock::anonymous("ram", 0x1_0000).unwrap();
        // Lives as long as the space.
        std::mem::forget(memory.map_ram(Gpa(0), &ram, 0, 0x1_0000, 0).unwrap());
        let lines = std::array::from_fn(|_| IrqLine::unconnected());
        let messages = Arc::new(Messages::default());
        Self { root: PciBus::new("root", memory, lines.clone(), Some(messages.clone())), lines, messages }
    }
    fn try_make(&self, model: &str, id: &str, on: &str, at: Devfn, extra: &[(&str, &str)]) -> Result<(), String> {
        let kind = catalog::find(model).unwrap();
        let pairs: Vec<_> = extra.iter().map(|(k, v)| ((*k).to_owned(), Some((*v).to_owned()))).collect();
        let set = OptionSet::parse("-device", &kind.options(), &pairs).map_err(|e| e.to_string())?;
        let slot = self.root.find_bus(on).unwrap().slot(at);
        let made = kind.make(&set, &slot, id, &VirtualClock::new(), &Log::off()).map_err(|e| e.to_string())?;
        made.attach().map(drop).map_err(|e| e.to_string())
    }
    fn make(&self, model: &str, id: &str, on: &str, at: Devfn) -> Arc<PciBus> {
        self.try_make(model, id, on, at, &[]).unwrap();
        self.root.find_bus(id).unwrap()
    }
    fn card(&self, on: &str, at: Devfn, number: u64) -> Arc<Card> {
        let config = ConfigBuilder::new(IDENTITY, self.root.find_bus(on).unwrap().slot(at))
            .bar(0, BarKind::Memory32, 0x1000, Arc::new(Number(number)))
            .bar(1, BarKind::Io, 0x20, Arc::new(Number(number)))
            .bar(2, BarKind::Memory64, 0x10_0000, Arc::new(Number(number)))
            .pcie(PcieType::Endpoint)
            .msi(0)
            .intx(1)
            .build();
        let card = Arc::new(Card(config));
        self.root.find_bus(on).unwrap().attach(card.clone()).unwrap();
        card
    }
    fn reset(&self) {
        for function in self.root.all_functions() {
            function.reset();
        }
    }
    fn write(&self, bus: u8, at: Devfn, register: u16, size: u8, value: u32) {
        self.root.find(bus, at).unwrap().config_write(register, size, value);
    }
    fn read(&self, bus: u8, at: Devfn, register: u16, size: u8) -> Option<u32> {
        self.root.find(bus, at).map(|f| f.config_read(register, size))
    }
    fn number(&self, bus: u8, at: Devfn, primary: u32, secondary: u32, subordinate: u32) {
        self.write(bus, at, 0x18, 4, primary | secondary << 8 | subordinate << 16);
    }
    fn memory(&self, at: u64) -> Option<u64> {
        self.root.memory().load(Gpa(at), Access::cpu(0, 4)).ok()
    }
}

const fn slot(n: u8) -> Devfn {
    Devfn::new(n, 0)
}

/// port (2.0) - card; bridge (3.0) - inner (1.0) - card (5.0).
fn tree() -> (Board, Arc<Card>, Arc<Card>) {
    let b = Board::new();
    b.make("pcie-root-port", "port", "root", slot(2));
    b.make("pci-bridge", "bridge", "root", slot(3));
    b.make("pci-bridge", "inner", "bridge", slot(1));
    let (near, far) = (b.card("port", slot(0), 1), b.card("inner", slot(5), 2));
    b.reset();
    (b, near, far)
}

#[test]
fn configuration_cycles_follow_bus_numbers() {
    let (b, _, _) = tree();
    assert!((1..=255).all(|bus| b.root.find(bus, slot(0)).is_none()));
    assert_eq!(b.read(0, slot(2), 0xe, 1), Some(1));
    b.number(0, slot(2), 0, 1, 1);
    b.number(0, slot(3), 0, 2, 3);
    assert_eq!(b.read(1, slot(0), 0, 4), Some(0x0007_1af4));
    assert_eq!(b.read(1, slot(1), 0, 4), None);
    // Type 1 cycles go through, but end without the inner bridge's numbers.
    assert_eq!(b.read(2, slot(1), 0, 4), Some(0x0001_1b36));
    assert_eq!(b.read(3, slot(5), 0, 4), None);
    b.number(2, slot(1), 2, 3, 3);
    assert_eq!(b.read(3, slot(5), 0, 4), Some(0x0007_1af4));
    // Outside of the outer bridge's range.
    b.number(0, slot(3), 0, 2, 2);
    assert_eq!(b.read(3, slot(5), 0, 4), None);
    // ECAM: conventional PCI has no extended registers.
    let ecam = Ecam::new(&b.root);
    let at = |bus: u64, device: u64, register: u64| bus << 20 | device << 15 | register;
    assert_eq!(ecam.read(at(1, 0, 0x100), Access::cpu(0, 4)), Ok(0));
    assert_eq!(ecam.read(at(2, 1, 0), Access::cpu(0, 4)), Ok(0x0001_1b36));
    assert_eq!(ecam.read(at(2, 1, 0x100), Access::cpu(0, 4)), Ok(u64::MAX));
}

#[test]
fn windows_gate_what_is_behind() {
    let (b, near, far) = tree();
    b.number(0, slot(2), 0, 1, 1);
    b.number(0, slot(3), 0, 2, 3);
    b.number(2, slot(1), 2, 3, 3);
    for (card, base) in [(&near, 0xc000_0000u32), (&far, 0xc020_1000)] {
        card.config_write(0x10, 4, base);
        card.config_write(0x14, 4, base >> 12 & 0xf000 | 0x40);
        card.config_write(0x18, 4, 0xc);
        card.config_write(0x1c, 4, base >> 20 & 0xf);
        card.config_write(4, 2, 3);
    }
    assert_eq!(b.memory(0xc000_0000), None);
    b.write(0, slot(2), 0x20, 4, 0xc000_c000);
    assert_eq!(b.memory(0xc000_0000), None, "memory is not enabled");
    b.write(0, slot(2), 4, 2, 2);
    assert_eq!(b.memory(0xc000_0000), Some(1));
    // Both bridges must agree.
    b.write(0, slot(3), 0x20, 4, 0xc020_c020);
    b.write(0, slot(3), 4, 2, 2);
    assert_eq!(b.memory(0xc020_1000), None);
    b.write(2, slot(1), 0x20, 4, 0xc030_c020);
    b.write(2, slot(1), 4, 2, 3);
    assert_eq!(b.memory(0xc020_1000), Some(2));
    b.write(0, slot(3), 0x20, 4, 0xc020_c030);
    assert_eq!(b.memory(0xc020_1000), None, "a base above the limit closes the window");
    // 64-bit prefetchable window.
    near.config_write(0x18, 4, 0);
    near.config_write(0x1c, 4, 8);
    b.write(0, slot(2), 0x24, 4, 0x0000_0000);
    b.write(0, slot(2), 0x28, 4, 8);
    assert_eq!(b.memory(8 << 32), None);
    b.write(0, slot(2), 0x2c, 4, 8);
    assert_eq!(b.memory(8 << 32), Some(1));
    // Ports, of which ISA mode takes the first quarter of each KiB.
    let port = |at: u64| b.root.io().load(Gpa(at), Access::cpu(0, 4)).ok();
    near.config_write(0x14, 4, 0x1040);
    b.write(0, slot(2), 0x1c, 2, 0x1010);
    assert_eq!(port(0x1040), None);
    b.write(0, slot(2), 4, 2, 3);
    assert_eq!(port(0x1040), Some(1));
    near.config_write(0x14, 4, 0x1540);
    assert_eq!(port(0x1540), Some(1));
    b.write(0, slot(2), 0x3e, 2, 4);
    assert_eq!(port(0x1540), None);
    near.config_write(0x14, 4, 0x1440);
    assert_eq!(port(0x1440), Some(1));
}

#[test]
fn interrupts_masters_and_messages_pass_bridges() {
    let (b, near, far) = tree();
    b.number(0, slot(2), 0, 1, 1);
    b.number(0, slot(3), 0, 2, 3);
    b.number(2, slot(1), 2, 3, 3);
    // The port is device 2: pin A of what is behind arrives at C. Device 5, 1 and 3: A becomes B, C, B.
    near.0.intx().unwrap().set(true);
    assert_eq!(b.lines.each_ref().map(IrqLine::level), [false, false, true, false]);
    near.0.intx().unwrap().set(false);
    far.0.intx().unwrap().set(true);
    assert_eq!(b.lines.each_ref().map(IrqLine::level), [false, true, false, false]);
    far.0.intx().unwrap().set(false);

    let dma = far.0.slot().dma().clone();
    far.config_write(4, 2, 4);
    assert!(dma.load(Gpa(0), 4).is_ok(), "bridges forward after reset");
    b.write(0, slot(3), 4, 2, 0);
    b.write(2, slot(1), 4, 2, 0);
    assert!(dma.load(Gpa(0), 4).is_err());
    b.write(2, slot(1), 4, 2, 4);
    assert!(dma.load(Gpa(0), 4).is_err());
    b.write(0, slot(3), 4, 2, 4);
    assert!(dma.load(Gpa(0), 4).is_ok());
    // Conventional bridges ask in their own name; PCI Express devices by their number.
    assert_eq!(dma.requester_id(), 3 << 3);
    assert_eq!(near.0.slot().dma().requester_id(), 1 << 8);
    b.number(0, slot(2), 0, 7, 7);
    assert_eq!(near.0.slot().dma().requester_id(), 7 << 8);
    b.write(0, slot(2), 4, 2, 4);
    near.config_write(4, 2, 4);
    let msi = 0x40 + 0x3c;
    near.config_write(msi + 4, 4, 0xfee0_0000);
    near.config_write(msi + 12, 2, 0x31);
    near.config_write(msi + 2, 2, 1);
    near.0.msi().unwrap().notify(0);
    assert_eq!(std::mem::take(&mut *b.messages.0.lock().unwrap()), [(0xfee0_0000, 0x31, 7 << 8)]);
    b.write(0, slot(2), 4, 2, 0);
    near.0.msi().unwrap().notify(0);
    assert!(b.messages.0.lock().unwrap().is_empty());
}

#[test]
fn secondary_bus_reset() {
    let (b, near, far) = tree();
    b.number(0, slot(3), 0, 2, 3);
    b.number(2, slot(1), 2, 3, 3);
    for card in [&near, &far] {
        card.config_write(0x10, 4, 0x1234_5000);
    }
    b.write(0, slot(3), 0x3e, 2, 0x40);
    assert_eq!(far.config_read(0x10, 4), 0);
    assert_eq!(near.config_read(0x10, 4), 0x1234_5000);
    assert_eq!(b.read(2, slot(1), 0x18, 4), Some(0), "the bridge behind is reset, too");
    // Held: nothing happens again until it rises anew.
    far.config_write(0x10, 4, 0x1234_5000);
    b.write(0, slot(3), 0x3e, 2, 0x40);
    assert_eq!(far.config_read(0x10, 4), 0x1234_5000);
}

#[test]
fn state_comes_back() {
    let (b, near, _) = tree();
    b.number(0, slot(2), 0, 9, 9);
    b.write(0, slot(2), 0x20, 4, 0xc000_c000);
    b.write(0, slot(2), 4, 2, 6);
    near.config_write(0x10, 4, 0xc000_0000);
    near.config_write(4, 2, 6);
    let saved: Vec<_> = b.root.all_functions().iter().map(|f| f.save()).collect();
    let (other, near, _) = tree();
    for (function, saved) in other.root.all_functions().iter().zip(&saved) {
        function.load(saved).unwrap();
    }
    assert_eq!(other.memory(0xc000_0000), Some(1));
    assert_eq!(near.0.slot().dma().requester_id(), 9 << 8);
    assert!(near.0.slot().dma().enabled());
}

#[test]
fn places_and_switches() {
    let b = Board::new();
    b.make("pcie-root-port", "port", "root", slot(1));
    assert!(b.try_make("pcie-root-port", "x", "port", slot(0), &[]).unwrap_err().contains("root"));
    assert!(b.try_make("xio3130-downstream", "x", "port", slot(0), &[]).unwrap_err().contains("x3130-upstream"));
    assert!(b.try_make("x3130-upstream", "x", "root", slot(2), &[]).unwrap_err().contains("port"));
    assert!(b.try_make("pci-bridge", "x", "root", slot(2), &[("shpc", "on")]).unwrap_err().contains("shpc"));
    assert!(b.try_make("pcie-root-port", "x", "root", slot(2), &[("slot", "9999")]).unwrap_err().contains("slot"));
    b.make("x3130-upstream", "switch", "port", slot(0));
    assert!(b.try_make("pci-bridge", "x", "port", slot(1), &[]).unwrap_err().contains("slot 0"));
    assert!(matches!(b.root.find_bus("port").unwrap().free_slot(), Err(PciError::Full(_))));
    for n in 0..2 {
        b.make("xio3130-downstream", &format!("down{n}"), "switch", slot(n));
    }
    b.make("pcie-pci-bridge", "pci", "down1", slot(0));
    assert!(b.try_make("pcie-pci-bridge", "x", "pci", slot(1), &[]).unwrap_err().contains("Express"));
    let card = b.card("pci", slot(31), 1);
    assert_eq!(card.config_read(6, 2) & 0x10, 0x10);
    assert_eq!(card.0.pcie(), None, "a device on conventional PCI is none of PCI Express");
    assert_eq!(card.0.slot().to_string(), "pci/1f.0");
    b.reset();
    b.number(0, slot(1), 0, 1, 5);
    b.number(1, slot(0), 1, 2, 5);
    b.number(2, slot(1), 2, 3, 4);
    b.number(3, slot(0), 3, 4, 4);
    assert_eq!(b.read(4, slot(31), 0, 4), Some(0x0007_1af4));
    // Devices behind a PCI Express to PCI bridge ask as device 0 of its bus.
    assert_eq!(card.0.slot().dma().requester_id(), 4 << 8);
    // Device types in the PCI Express capabilities.
    for (bus, device, kind) in [(0, 1, 4), (1, 0, 5), (2, 0, 6), (3, 0, 7)] {
        let f = b.root.find(bus, slot(device)).unwrap();
        let at = f.config().pcie().unwrap() as u16;
        assert_eq!(f.config_read(at + 2, 2) >> 4 & 0xf, kind);
    }
}

#[test]
fn hot_plug() {
    const SLOT_CONTROL: u16 = 0x18;
    const SLOT_STATUS: u16 = 0x1a;
    let b = Board::new();
    let identity = Identity { class: 0x06_0400, ..IDENTITY };
    let kind =
        PortKind { model: "port", identity, pcie: PcieType::RootPort, port: 3, slot: 77, chassis: 1, hotplug: true };
    let port = Port::new(kind, "link", &b.root.slot(slot(1)));
    b.root.attach(port.clone()).unwrap();
    port.connect();
    b.reset();
    let at = port.config().pcie().unwrap() as u16;
    let read = |register: u16| port.config_read(at + register, 2);
    let write = |register: u16, value: u32| port.config_write(at + register, 2, value);
    assert_eq!(port.config_read(at + 0x14, 4) >> 19, 77);
    // Empty: no power, no link.
    assert_eq!((read(SLOT_STATUS), read(0x12) & 0x2000, read(SLOT_CONTROL) & 0x400), (0, 0, 0x400));
    b.number(0, slot(1), 0, 1, 1);
    // Presence, button, command completed, interrupt.
    write(SLOT_CONTROL, 0x400 | 0x39);
    assert_eq!(read(SLOT_STATUS), 0x10);
    let level = || b.lines.iter().any(IrqLine::level);
    assert!(level());
    write(SLOT_STATUS, 0x10);
    assert!(!level());
    let config = ConfigBuilder::new(IDENTITY, b.root.find_bus("link").unwrap().slot(slot(0))).build();
    port.insert(Arc::new(Card(config))).unwrap();
    assert_eq!(read(SLOT_STATUS), 0x48);
    assert!(level());
    assert!(b.root.find(1, slot(0)).is_none(), "without power");
    write(SLOT_STATUS, 8);
    let told = Arc::new(Mutex::new(Vec::new()));
    let list = told.clone();
    port.on_power(Box::new(move |on| list.lock().unwrap().push(on)));
    write(SLOT_CONTROL, 0x39);
    assert_eq!(read(SLOT_STATUS), 0x150);
    assert_eq!(read(0x12) & 0x2000, 0x2000);
    assert!(b.root.find(1, slot(0)).is_some());
    write(SLOT_STATUS, 0x110);
    port.press_attention();
    assert_eq!(read(SLOT_STATUS), 0x41);
    write(SLOT_STATUS, 1);
    write(SLOT_CONTROL, 0x400 | 0x39);
    assert!(b.root.find(1, slot(0)).is_none());
    assert_eq!(*told.lock().unwrap(), [true, false]);
    assert_eq!(port.remove().len(), 1);
    assert_eq!(read(SLOT_STATUS), 0x118);
    assert!(port.remove().is_empty());
    // By message: one for each time a condition comes up.
    write(SLOT_STATUS, 0x1ff);
    port.config_write(4, 2, 4);
    port.config_write(0x44, 4, 0xfee0_0000);
    port.config_write(0x42, 2, 1);
    port.press_attention();
    port.press_attention();
    write(SLOT_STATUS, 0x1ff);
    port.press_attention();
    assert_eq!(b.messages.0.lock().unwrap().len(), 2);
}

/// Whatever software writes, all stays in bounds.
#[test]
fn rubbish() {
    let (b, near, far) = tree();
    b.make("pcie-root-port", "port2", "root", slot(4));
    b.make("x3130-upstream", "switch", "port2", slot(0));
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    let functions = b.root.all_functions();
    for round in 0..30_000 {
        let function = &functions[random() as usize % functions.len()];
        let size = [1u8, 2, 4][random() as usize % 3];
        let register = random() as u16 % if round % 4 == 0 { 4096 } else { 0x100 } & !u16::from(size - 1);
        if random() % 3 == 0 {
            function.config_read(register, size);
        } else {
            function.config_write(register, size, random() as u32);
        }
        if round % 64 == 0 {
            let _ = b.root.find(random() as u8, Devfn(random() as u8));
            let _ = b.root.memory().load(Gpa(random() >> (random() % 64)), Access::cpu(0, 4));
            near.0.intx().unwrap().set(random() % 2 == 0);
            far.0.msi().unwrap().notify(random() as u16);
        }
    }
    b.reset();
    assert!((1..=255).all(|bus| b.root.find(bus, slot(0)).is_none()));
    b.root.detach_all();
}
