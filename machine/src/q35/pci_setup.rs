//! What firmware does to PCI devices before a kernel starts: addresses of BARs, interrupt line numbers. For starts without firmware.

use rhea_pci::{PciBus, PciFunction};
use std::ops::Range;
use std::sync::Arc;

const COMMAND: u16 = 4;
const HEADER_TYPE: u16 = 0xe;
const BAR0: u16 = 0x10;
const INTERRUPT_LINE: u16 = 0x3c;
const INTERRUPT_PIN: u16 = 0x3d;

/// Free addresses.
struct Room(Range<u64>);

impl Room {
    fn take(&mut self, size: u64) -> Option<u64> {
        let start = self.0.start.checked_next_multiple_of(size)?;
        let end = start.checked_add(size).filter(|e| *e <= self.0.end)?;
        self.0.start = end;
        Some(start)
    }
}

/// Where things may go.
pub struct Windows {
    pub ports: Range<u64>,
    pub memory: Range<u64>,
    pub memory64: Option<Range<u64>>,
}

/// Gives addresses to all functions of the root bus; `irq` gives the ISA interrupt of a device's pin (0 = INTA).
pub fn assign(bus: &Arc<PciBus>, windows: Windows, irq: &dyn Fn(u8, u8) -> u8) {
    let mut ports = Room(windows.ports);
    let mut memory = Room(windows.memory);
    let mut high = windows.memory64.map(Room);
    for function in bus.functions() {
        let f = &*function;
        if f.config_read(HEADER_TYPE, 1) & 0x7f != 0 {
            continue;
        }
        let mut decode = 0;
        let mut bar = 0;
        while bar < 6 {
            let at = BAR0 + bar * 4;
            let (low, size, wide) = size(f, at);
            bar += if wide { 2 } else { 1 };
            if size == 0 {
                continue;
            }
            let address = match low & 1 {
                0 => memory.take(size).or_else(|| high.as_mut().filter(|_| wide).and_then(|h| h.take(size))),
                _ => ports.take(size),
            };
            // Without room the function stays off; the kernel may find some.
            let Some(address) = address else { continue };
            f.config_write(at, 4, address as u32);
            if wide {
                f.config_write(at + 4, 4, (address >> 32) as u32);
            }
            decode |= if low & 1 != 0 { 1 } else { 2 };
        }
        if decode != 0 {
            let command = f.config_read(COMMAND, 2);
            f.config_write(COMMAND, 2, command | decode);
        }
        let pin = f.config_read(INTERRUPT_PIN, 1) as u8;
        if (1..=4).contains(&pin) {
            f.config_write(INTERRUPT_LINE, 1, irq(f.config().devfn().device(), pin - 1).into());
        }
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
}
