//! What firmware does to PCI devices before a kernel starts: bus numbers and windows of bridges, addresses of BARs, interrupt line
//! numbers. For starts without firmware.

use rhea_pci::{PciBus, PciFunction};
use std::ops::Range;
use std::sync::Arc;

const COMMAND: u16 = 4;
const HEADER_TYPE: u16 = 0xe;
const BAR0: u16 = 0x10;
const BUS_NUMBERS: u16 = 0x18;
const IO_WINDOW: u16 = 0x1c;
const MEMORY_WINDOW: u16 = 0x20;
const PREFETCHABLE_WINDOW: u16 = 0x24;
const INTERRUPT_LINE: u16 = 0x3c;
const INTERRUPT_PIN: u16 = 0x3d;

/// What a port keeps free for a device that may be plugged in later.
const HOTPLUG_MEMORY: u64 = 2 << 20;
const MIB: u64 = 1 << 20;
/// The unit of a bridge's I/O window.
const IO_UNIT: u64 = 0x1000;

/// Free addresses.
struct Room(Range<u64>);

impl Room {
    fn take(&mut self, size: u64) -> Option<u64> {
        let start = self.0.start.checked_next_multiple_of(size)?;
        let end = start.checked_add(size).filter(|e| *e <= self.0.end)?;
        self.0.start = end;
        Some(start)
    }
    /// Leaves what is before the next multiple; the end, if there is none.
    fn align(&mut self, to: u64) -> u64 {
        self.0.start = self.0.start.checked_next_multiple_of(to).unwrap_or(self.0.end).min(self.0.end);
        self.0.start
    }
}

/// Where things may go.
pub struct Windows {
    pub ports: Range<u64>,
    pub memory: Range<u64>,
    pub memory64: Option<Range<u64>>,
}

struct Setup<'a> {
    ports: Room,
    memory: Room,
    high: Option<Room>,
    last_bus: u8,
    /// The ISA interrupt of a root bus device's pin.
    irq: &'a dyn Fn(u8, u8) -> u8,
}

/// Gives bus numbers and addresses to all functions; `irq` gives the ISA interrupt of a root bus device's pin (0 = INTA).
pub fn assign(bus: &Arc<PciBus>, windows: Windows, irq: &dyn Fn(u8, u8) -> u8) {
    let Windows { ports, memory, memory64 } = windows;
    Setup { ports: Room(ports), memory: Room(memory), high: memory64.map(Room), last_bus: 0, irq }.bus(bus);
}

impl Setup<'_> {
    fn bus(&mut self, bus: &Arc<PciBus>) {
        for function in bus.functions() {
            let f = &*function;
            let bars = match f.config_read(HEADER_TYPE, 1) & 0x7f {
                0 => 6,
                1 => 2,
                _ => continue,
            };
            let decode = self.bars(f, bars);
            if decode != 0 {
                let command = f.config_read(COMMAND, 2);
                f.config_write(COMMAND, 2, command | decode);
            }
            self.interrupt(f);
            if let Some(behind) = f.secondary() {
                self.bridge(f, behind);
            }
        }
    }
    /// Gives addresses to `count` BARs; the command bits they need.
    fn bars(&mut self, f: &dyn PciFunction, count: u16) -> u32 {
        let (mut decode, mut bar) = (0, 0);
        while bar < count {
            let at = BAR0 + bar * 4;
            let (low, size, wide) = size(f, at);
            bar += if wide { 2 } else { 1 };
            if size == 0 {
                continue;
            }
            let address = match low & 1 {
                0 => self.memory.take(size).or_else(|| self.high.as_mut().filter(|_| wide).and_then(|h| h.take(size))),
                _ => self.ports.take(size),
            };
            // Without room the function stays off; the kernel may find some.
            let Some(address) = address else { continue };
            f.config_write(at, 4, address as u32);
            if wide {
                f.config_write(at + 4, 4, (address >> 32) as u32);
            }
            decode |= if low & 1 != 0 { 1 } else { 2 };
        }
        decode
    }
    fn interrupt(&self, f: &dyn PciFunction) {
        let pin = f.config_read(INTERRUPT_PIN, 1) as u8;
        if !(1..=4).contains(&pin) {
            return;
        }
        let (mut slot, mut pin) = (f.config().slot(), pin - 1);
        while let Some(bridge) = slot.bus().upstream() {
            pin = (pin + slot.devfn().device()) % 4;
            slot = bridge;
        }
        f.config_write(INTERRUPT_LINE, 1, (self.irq)(slot.devfn().device(), pin).into());
    }
    /// Numbers of the buses behind a bridge, then windows around what they took.
    fn bridge(&mut self, f: &dyn PciFunction, behind: &Arc<PciBus>) {
        let Some(secondary) = self.last_bus.checked_add(1) else { return };
        self.last_bus = secondary;
        let primary = u32::from(f.config().slot().bus().number());
        let numbers = |last: u8| primary | u32::from(secondary) << 8 | u32::from(last) << 16;
        f.config_write(BUS_NUMBERS, 4, numbers(0xff));
        let (ports, memory) = (self.ports.align(IO_UNIT), self.memory.align(MIB));
        let high = self.high.as_mut().map(|h| h.align(MIB));
        self.bus(behind);
        let slot_capabilities = f.config().pcie().map_or(0, |at| f.config_read(at as u16 + 0x14, 4));
        // Without room there will be none for a device either.
        while slot_capabilities & 1 << 6 != 0
            && self.memory.0.start - memory < HOTPLUG_MEMORY
            && self.memory.take(MIB).is_some()
        {}
        f.config_write(BUS_NUMBERS, 4, numbers(self.last_bus));
        let (ports, memory) = (ports..self.ports.align(IO_UNIT), memory..self.memory.align(MIB));
        // A base above the limit: the window is closed.
        let io = if ports.is_empty() { 0x00f0 } else { (ports.start >> 8 & 0xf0) | (ports.end - 1) & 0xf000 };
        f.config_write(IO_WINDOW, 2, io as u32);
        let window = |r: &Range<u64>| {
            if r.is_empty() { 0xfff0 } else { (r.start >> 16 & 0xfff0) | (r.end - 1) & 0xfff0_0000 }
        };
        f.config_write(MEMORY_WINDOW, 4, window(&memory) as u32);
        let high = high.zip(self.high.as_mut()).map_or(0..0, |(start, room)| start..room.align(MIB));
        f.config_write(PREFETCHABLE_WINDOW, 4, window(&high) as u32);
        f.config_write(PREFETCHABLE_WINDOW + 4, 4, (high.start >> 32) as u32);
        f.config_write(PREFETCHABLE_WINDOW + 8, 4, (high.end.saturating_sub(1) >> 32) as u32);
        let command = f.config_read(COMMAND, 2);
        f.config_write(COMMAND, 2, command | 7);
    }
}

/// The type bits, the size (0: there is none) of a BAR and whether it is 64 bits wide.
fn size(f: &dyn PciFunction, at: u16) -> (u32, u64, bool) {
    let probe = |at: u16| {
        let old = f.config_read(at, 4);
        f.config_write(at, 4, u32::MAX);
        let mask = f.config_read(at, 4);
        f.config_write(at, 4, old);
        mask
    };
    let low = probe(at);
    if low == 0 {
        return (0, 0, false);
    }
    if low & 1 != 0 {
        return (low, u64::from((!(low & !3)).wrapping_add(1) & 0xffff), false);
    }
    let wide = low >> 1 & 3 == 2 && at < BAR0 + 20;
    let mask = u64::from(low & !15) | if wide { u64::from(probe(at + 4)) << 32 } else { 0xffff_ffff << 32 };
    (low, (!mask).wrapping_add(1), wide)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhea_accel::IrqLine;
    use rhea_device::{Device, LoadError, Saved};
    use rhea_memory::{Access, AddressSpace, BusError, Gpa, MmioDevice};
    use rhea_pci::{BarKind, ConfigBuilder, Devfn, Identity, PciConfig};

    struct Nothing(u64);
    impl MmioDevice for Nothing {
        fn read(&self, _: u64, _: Access) -> Result<u64, BusError> {
            Ok(self.0)
        }
        fn write(&self, _: u64, _: u64, _: Access) -> Result<(), BusError> {
            Ok(())
        }
    }
    struct Card(PciConfig);
    impl Device for Card {
        fn name(&self) -> &str {
            "card"
        }
        fn reset(&self) {}
        fn save(&self) -> Saved {
            Saved::Nothing
        }
        fn load(&self, _: &Saved) -> Result<(), LoadError> {
            Ok(())
        }
    }
    impl PciFunction for Card {
        fn config(&self) -> &PciConfig {
            &self.0
        }
    }

    #[test]
    fn bars_get_addresses() {
        let bus = PciBus::new("b", AddressSpace::new("s"), [0; 4].map(|_| IrqLine::unconnected()), None);
        let identity = Identity { vendor: 1, device: 2, revision: 0, class: 0, subsystem_vendor: 0, subsystem: 0 };
        let bar = |n| Arc::new(Nothing(n));
        let config = ConfigBuilder::new(identity, bus.slot(Devfn::new(3, 0)))
            .bar(0, BarKind::Io, 32, bar(1))
            .bar(1, BarKind::Memory32, 0x1000, bar(2))
            .bar(2, BarKind::Memory64, 0x10_0000, bar(3))
            .bar(4, BarKind::Memory64, 1 << 33, bar(4))
            .intx(1)
            .build();
        bus.attach(Arc::new(Card(config))).unwrap();
        let windows =
            Windows { ports: 0xc010..0x1_0000, memory: 0xc000_1000..0xd000_0000, memory64: Some(1 << 32..1 << 40) };
        assign(&bus, windows, &|device, pin| device + pin);
        let load = |space: &AddressSpace, at| space.load(Gpa(at), Access::cpu(0, 4)).ok();
        assert_eq!(load(bus.io(), 0xc020), Some(1));
        assert_eq!(load(bus.memory(), 0xc000_1000), Some(2));
        assert_eq!(load(bus.memory(), 0xc010_0000), Some(3));
        assert_eq!(load(bus.memory(), 1 << 33), Some(4));
        let f = bus.function(Devfn::new(3, 0)).unwrap();
        assert_eq!(f.config_read(INTERRUPT_LINE, 1), 3);
    }

    /// Behind a port and a bridge: numbers, windows, swizzled interrupts.
    #[test]
    fn bridges_get_numbers_and_windows() {
        let clock = rhea_clock::VirtualClock::new();
        let bus = PciBus::new("b", AddressSpace::new("s"), [0; 4].map(|_| IrqLine::unconnected()), None);
        let bridge = |model: &str, on: &Arc<PciBus>, device, name: &str| {
            let kind = rhea_pci::catalog::find(model).unwrap();
            let set = rhea_device::OptionSet::parse("-device", &kind.options(), &[]).unwrap();
            let slot = on.slot(Devfn::new(device, 0));
            kind.make(&set, &slot, name, &clock, &rhea_device::Log::off()).unwrap().attach().unwrap();
            bus.find_bus(name).unwrap()
        };
        let port = bridge("pcie-root-port", &bus, 2, "port");
        let pci = bridge("pci-bridge", &bus, 4, "pci");
        let inner = bridge("pci-bridge", &pci, 3, "inner");
        let identity = Identity { vendor: 1, device: 2, revision: 0, class: 0, subsystem_vendor: 0, subsystem: 0 };
        for (on, device, n) in [(&port, 0, 10), (&inner, 5, 20)] {
            let config = ConfigBuilder::new(identity, on.slot(Devfn::new(device, 0)))
                .bar(0, BarKind::Io, 32, Arc::new(Nothing(n)))
                .bar(1, BarKind::Memory32, 0x1000, Arc::new(Nothing(n + 1)))
                .bar(2, BarKind::Memory64, 1 << 33, Arc::new(Nothing(n + 2)))
                .intx(1)
                .build();
            on.attach(Arc::new(Card(config))).unwrap();
        }
        for f in bus.all_functions() {
            f.reset();
        }
        let windows =
            Windows { ports: 0xc000..0x1_0000, memory: 0xc000_0000..0xd000_0000, memory64: Some(1 << 36..1 << 40) };
        assign(&bus, windows, &|device, pin| device * 16 + pin);
        assert_eq!([&port, &pci, &inner].map(|b| (b.number(), b.subordinate())), [(1, 1), (2, 3), (3, 3)]);
        let load = |space: &AddressSpace, at| space.load(Gpa(at), Access::cpu(0, 4)).ok();
        assert_eq!(load(bus.io(), 0xc000), Some(10));
        assert_eq!(load(bus.io(), 0xd000), Some(20));
        assert_eq!(load(bus.memory(), 0xc000_0000), Some(11));
        // Two MiB are kept for the port.
        assert_eq!(load(bus.memory(), 0xc020_0000), Some(21));
        assert_eq!(load(bus.memory(), 1 << 36), Some(12));
        assert_eq!(load(bus.memory(), (1 << 36) + (1 << 33)), Some(22));
        let line = |number, device| bus.find(number, Devfn::new(device, 0)).unwrap().config_read(INTERRUPT_LINE, 1);
        assert_eq!(line(1, 0), 2 * 16);
        // Pin A of device 5 is B of the inner bridge, which is device 3: A of the outer.
        assert_eq!(line(3, 5), 4 * 16);
    }
}
