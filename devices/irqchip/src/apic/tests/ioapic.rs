//! The I/O APIC with the local APICs behind it.

use super::*;
use rhea_accel::{IrqLine, IrqSink};
use rhea_device::Device;

const LEVEL: u64 = 1 << 15;
const MASK: u64 = 1 << 16;
const REMOTE_IRR: u64 = 1 << 14;

fn line(m: &Machine, pin: u32) -> IrqLine {
    IrqLine::to_sink(m.ioapic.clone(), pin)
}

#[test]
fn registers() {
    let m = Machine::new(1);
    assert_eq!(m.ioapic_read(1), 0x17_0020);
    m.ioapic_write(1, 0);
    assert_eq!(m.ioapic_read(1), 0x17_0020);
    m.ioapic_write(0, !0);
    assert_eq!((m.ioapic_read(0), m.ioapic_read(2)), (0x0f00_0000, 0x0f00_0000));
    m.ioapic_write(2, 0);
    assert_eq!(m.ioapic_read(2), 0x0f00_0000);
    assert_eq!(m.entry(23), MASK);
    m.redirect(23, !0);
    assert_eq!(m.entry(23), 0xffff_0000_0001_afff);
    for register in [3, 0xf, 0x40, 0xff] {
        m.ioapic_write(register, !0);
        assert_eq!(m.ioapic_read(register), 0);
    }
    assert!(m.ioapic.describe().contains("pin 23"));
    m.ioapic.reset();
    assert_eq!((m.entry(23), m.ioapic_read(0)), (MASK, 0));
}

#[test]
fn edges() {
    let m = Machine::new(2);
    let pin = line(&m, 14);
    m.redirect(14, 1 << 56 | 0x76);
    pin.raise();
    assert_eq!(m.took(0x76), [1]);
    assert!(!m.has(1, TMR, 0x76));
    pin.lower();
    // An edge while masked is lost.
    m.redirect(14, 0x76 | MASK);
    pin.pulse();
    m.redirect(14, 0x76);
    assert!(m.took(0x76).is_empty());
    pin.import(true);
    assert!(m.took(0x76).is_empty());
    assert!(m.ended.lock().is_empty());
    m.redirect(14, 0x400);
    pin.lower();
    pin.raise();
    assert_eq!(m.events(0), ["nmi"]);
    // NMI is edge-triggered whatever the trigger mode is.
    m.redirect(14, 0x400 | LEVEL);
    pin.lower();
    pin.raise();
    assert_eq!((m.events(0), m.entry(14)), (vec!["nmi".to_owned()], 0x400 | LEVEL));
}

#[test]
fn levels() {
    let m = Machine::new(2);
    let pin = line(&m, 14);
    m.redirect(14, 0x77 | LEVEL);
    pin.raise();
    assert_eq!(m.entry(14), 0x77 | LEVEL | REMOTE_IRR);
    assert_eq!(m.bus.acknowledge(0), Some(0x77));
    assert!(m.has(0, TMR, 0x77));
    // Merged while in service.
    pin.lower();
    pin.raise();
    assert!(!m.has(0, IRR, 0x77));
    m.write(0, EOI, 0);
    assert_eq!(*m.ended.lock(), [14]);
    // Still up: sent again.
    assert_eq!(m.bus.acknowledge(0), Some(0x77));
    pin.lower();
    m.write(0, EOI, 0);
    assert_eq!((m.entry(14), m.intr(0)), (0x77 | LEVEL, false));
    // Masked and unmasked.
    m.redirect(14, 0x77 | LEVEL | MASK);
    pin.raise();
    assert!(!m.intr(0));
    m.redirect(14, 0x77 | LEVEL);
    assert_eq!(m.bus.acknowledge(0), Some(0x77));
    // The destination changes while in service; the end is by vector.
    m.ioapic_write(0x11 + 28, 1 << 24);
    m.write(0, EOI, 0);
    assert_eq!(m.bus.acknowledge(1), Some(0x77));
    // Edge mode takes remote IRR away.
    m.redirect(14, 0x77 | MASK);
    assert_eq!(m.entry(14), 0x77 | MASK);
    m.redirect(14, 0x77 | LEVEL | MASK);
    m.write(1, EOI, 0);
    assert_eq!(m.ended.lock().len(), 3);
}

#[test]
fn the_end_of_a_level_interrupt_by_its_register() {
    let m = Machine::new(1);
    let pin = line(&m, 20);
    m.write(0, SVR, 0x11ff);
    m.redirect(20, 0x50 | LEVEL);
    pin.raise();
    assert_eq!(m.bus.acknowledge(0), Some(0x50));
    m.write(0, EOI, 0);
    // The broadcast is suppressed.
    assert_eq!((m.entry(20), m.intr(0)), (0x50 | LEVEL | REMOTE_IRR, false));
    m.ioapic.write(0x40, 0x51, Access::cpu(0, 4)).unwrap();
    assert!(!m.intr(0));
    m.ioapic.write(0x40, 0x50, Access::cpu(0, 4)).unwrap();
    assert!(m.intr(0));
    pin.lower();
    assert_eq!(m.bus.acknowledge(0), Some(0x50));
    m.write(0, EOI, 0);
    m.ioapic.write(0x40, 0x50, Access::cpu(0, 4)).unwrap();
    assert_eq!((m.entry(20), m.ended.lock().len()), (0x50 | LEVEL, 2));
}

#[test]
fn destinations_and_shared_vectors() {
    let m = Machine::new(4);
    for n in 0..4 {
        m.write(n, LDR, 0x100_0000 << n);
    }
    let (a, b) = (line(&m, 10), line(&m, 11));
    m.redirect(10, 0xd << 56 | 0x886 | LEVEL);
    a.raise();
    for n in [0, 2, 3] {
        assert_eq!(m.bus.acknowledge(n), Some(0x86));
    }
    a.lower();
    m.write(0, EOI, 0);
    assert_eq!(m.entry(10) & REMOTE_IRR, 0);
    m.write(2, EOI, 0);
    m.write(3, EOI, 0);
    // Nobody takes it: it is not in service, and comes when somebody does.
    m.redirect(11, 0x4300_0000_0000_0000 | 0x60 | LEVEL);
    b.raise();
    assert_eq!(m.entry(11) & REMOTE_IRR, 0);
    m.ioapic_write(0x11 + 22, 3 << 24);
    assert_eq!(m.bus.acknowledge(3), Some(0x60));
    m.redirect(10, 0x60 | LEVEL);
    a.raise();
    b.lower();
    m.write(3, EOI, 0);
    // One EOI ends all with the vector.
    assert_eq!(*m.ended.lock(), [10, 10, 11]);
    assert!(m.has(0, IRR, 0x60));
    IrqSink::set_level(&*m.ioapic, 99, true);
}

/// A source that is told of the end lowers its line before the level is looked at again.
#[test]
fn the_source_lowers_its_line_at_the_end() {
    let m = Machine::new(1);
    let pin = line(&m, 5);
    let source = pin.clone();
    let lower: crate::EoiListener = Arc::new(move |_| source.lower());
    let config = IoApicConfig { name: "second".to_owned(), eoi: Some(lower), log: Log::off() };
    let second = IoApic::new(config, m.bus.clone()).unwrap();
    for (register, value) in [(0x1b, 0), (0x1a, 0x8055)] {
        second.write(0, register, Access::cpu(0, 4)).unwrap();
        second.write(0x10, value, Access::cpu(0, 4)).unwrap();
    }
    m.redirect(5, 0x56 | LEVEL);
    pin.raise();
    IrqSink::set_level(&*second, 5, true);
    assert_eq!(m.bus.acknowledge(0), Some(0x56));
    m.write(0, EOI, 0);
    assert_eq!(m.bus.acknowledge(0), Some(0x56));
    // 0x55 of the second ends: its listener lowers the line of the first.
    m.write(0, EOI, 0);
    assert_eq!(m.bus.acknowledge(0), Some(0x56));
    pin.lower();
    m.write(0, EOI, 0);
    assert_eq!(m.bus.acknowledge(0), Some(0x55));
}
