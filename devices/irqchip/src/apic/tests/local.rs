//! One local APIC: priorities, EOI, errors, inputs, timer, paravirtual EOI.

use super::*;
use rhea_accel::IrqSink;
use rhea_device::Device;
use rhea_memory::{Gpa, RamBlock};

#[test]
fn reset_values() {
    let m = Machine::with_ids(&[5, 0x105], |c| c.virtual_wire = true);
    m.bus.reset();
    assert_eq!((m.read(0, 0x20), m.read(1, 0x20)), (5 << 24, 5 << 24));
    assert_eq!(m.read(0, 0x30), 0x0106_0014);
    assert_eq!((m.read(0, SVR), m.read(0, DFR), m.read(0, LDR)), (0xff, u32::MAX, 0));
    assert_eq!((m.read(0, LVT_TIMER), m.read(0, LVT_LINT0), m.read(1, LVT_LINT0)), (0x1_0000, 0x700, 0x1_0000));
    assert_eq!((m.bus.apic_base(0), m.bus.apic_base(1)), (0xfee0_0900, 0xfee0_0800));
    assert!(m.bus.describe(0).contains("xAPIC") && m.bus.describe(9).contains("no CPU"));
}

#[test]
fn ids_are_the_guests_in_xapic_mode() {
    let m = Machine::new(3);
    let id = |cpu| m.read(cpu, 0x20) >> 24;
    // Two with the same id both take what is for it; nobody has the old ones any more.
    m.write(1, 0x20, 7 << 24 | 0xff_ffff);
    m.write(2, 0x20, 7 << 24);
    assert_eq!((id(0), m.read(1, 0x20), id(2)), (0, 7 << 24, 7));
    m.icr(0, 7, 0x41);
    m.icr(0, 1, 0x42);
    m.icr(0, 0, 0x43);
    for cpu in [1, 2] {
        assert!(m.has(cpu, IRR, 0x41) && !m.has(cpu, IRR, 0x42) && !m.has(cpu, IRR, 0x43));
    }
    assert!(m.has(0, IRR, 0x43) && !m.has(0, IRR, 0x41));
    // INIT keeps it, and so does saved state.
    m.bus.init(1);
    let saved = m.bus.save();
    m.bus.reset();
    assert_eq!((id(1), id(2)), (1, 2));
    m.bus.load(&saved).unwrap();
    assert_eq!((id(1), id(2)), (7, 7));
    // x2APIC mode has the initial one, as the APIC has that was off.
    m.to_x2apic(1);
    assert_eq!(m.bus.x2apic_read(1, 0x802), Ok(1));
    m.bus.set_apic_base(2, 0xfee0_0000).unwrap();
    m.bus.set_apic_base(2, 0xfee0_0800).unwrap();
    assert_eq!(id(2), 2);
    m.write(2, 0x20, 2 << 24);
    assert_eq!(id(2), 2);
}

#[test]
fn priorities_and_nesting() {
    let m = Machine::new(1);
    for vector in [0x31, 0x55, 0x52, 0x80] {
        m.icr(0, 0, vector);
    }
    assert!(m.intr(0));
    assert_eq!(m.bus.acknowledge(0), Some(0x80));
    assert_eq!((m.read(0, PPR), m.intr(0)), (0x80, false));
    // Only another class interrupts.
    m.icr(0, 0, 0x8f);
    assert!(!m.intr(0));
    m.icr(0, 0, 0x90);
    assert_eq!(m.bus.acknowledge(0), Some(0x90));
    m.write(0, EOI, 0);
    assert!(!m.intr(0) && m.has(0, ISR, 0x80) && !m.has(0, ISR, 0x90));
    m.write(0, EOI, 0);
    assert_eq!(m.bus.acknowledge(0), Some(0x8f));
    m.write(0, EOI, 0);
    m.write(0, TPR, 0x5f);
    assert_eq!((m.intr(0), m.bus.acknowledge(0), m.bus.tpr(0), m.read(0, PPR)), (false, None, 5, 0x5f));
    m.bus.set_tpr(0, 4);
    assert_eq!((m.intr(0), m.read(0, TPR)), (true, 0x40));
    assert_eq!(m.bus.acknowledge(0), Some(0x55));
    assert_eq!(m.bus.acknowledge(0), None);
    assert_eq!((m.has(0, IRR, 0x52), m.has(0, IRR, 0x31)), (true, true));
    m.write(0, EOI, 0);
    assert_eq!(m.bus.acknowledge(0), Some(0x52));
    m.write(0, EOI, 0);
    // One more EOI than interrupts.
    m.write(0, EOI, 0);
    m.write(0, TPR, 0);
    assert_eq!(m.bus.acknowledge(0), Some(0x31));
}

#[test]
fn software_disable_keeps_what_is_pending() {
    let m = Machine::new(1);
    m.write(0, LVT_LINT0, 0x40);
    m.icr(0, 0, 0x44);
    m.write(0, SVR, 0xff);
    assert_eq!(m.read(0, LVT_LINT0), 0x1_0040);
    // No mask can be taken away, nothing new is accepted.
    m.write(0, LVT_LINT0, 0x40);
    assert_eq!(m.read(0, LVT_LINT0), 0x1_0040);
    m.icr(0, 0, 0x99);
    assert!(!m.has(0, IRR, 0x99));
    m.icr(0, 0, 0x400);
    assert_eq!(m.events(0), ["nmi"]);
    assert_eq!(m.bus.acknowledge(0), Some(0x44));
}

#[test]
fn errors_are_latched_by_a_write() {
    let m = Machine::new(1);
    m.write(0, LVT_ERROR, 0x3e);
    m.icr(0, 0, 0x0f);
    assert_eq!(m.read(0, ESR), 0);
    assert_eq!(m.took(0x3e), [0]);
    // Not again before ESR was written.
    m.read(0, 0x3f0);
    assert!(m.took(0x3e).is_empty());
    m.write(0, ESR, 0);
    assert_eq!(m.read(0, ESR), 0xe0);
    m.write(0, ESR, 0);
    assert_eq!(m.read(0, ESR), 0);
    m.write(0, 0x40, 0);
    assert_eq!(m.took(0x3e), [0]);
    m.write(0, ESR, 0);
    assert_eq!(m.read(0, ESR), 0x80);
    // An illegal vector of the error interrupt itself ends somewhere.
    m.write(0, LVT_ERROR, 3);
    m.read(0, 0x400);
    m.write(0, ESR, 0);
    assert_eq!(m.read(0, ESR), 0xc0);
    // What the Pentium had, and EOI, can be read.
    for at in [0x90, 0xb0, 0xc0] {
        assert_eq!(m.read(0, at), 0);
    }
    m.write(0, ESR, 0);
    assert_eq!(m.read(0, ESR), 0);
}

#[test]
fn lint_inputs() {
    let m = Machine::new(2);
    let (lint0, lint1) = (m.bus.lint(0), m.bus.lint(1));
    m.write(0, LVT_LINT1, 0x400);
    lint1.pulse();
    assert_eq!((m.events(0), m.events(1)), (vec!["nmi".to_owned()], vec![]));
    // Edge, then level with remote IRR.
    m.write(0, LVT_LINT0, 0x60);
    lint0.pulse();
    assert_eq!(m.took(0x60), [0]);
    lint0.raise();
    assert_eq!(m.took(0x60), [0]);
    m.write(0, LVT_LINT0, 0x8061);
    assert_eq!(m.read(0, LVT_LINT0), 0xc061);
    assert_eq!(m.bus.acknowledge(0), Some(0x61));
    assert!(m.has(0, TMR, 0x61));
    m.write(0, EOI, 0);
    // Still up: again.
    assert_eq!(m.bus.acknowledge(0), Some(0x61));
    lint0.lower();
    m.write(0, EOI, 0);
    assert_eq!((m.intr(0), m.read(0, LVT_LINT0)), (false, 0x8061));
    // A polled input that is only taken over makes no edge.
    m.write(0, LVT_LINT0, 0x62);
    lint0.import(true);
    assert!(!m.intr(0));
}

struct Pic;
impl InterruptAcknowledge for Pic {
    fn acknowledge(&self) -> u8 {
        0x08
    }
}

#[test]
fn ext_int_through_lint0_message_and_disabled_apic() {
    let m = Machine::new(2);
    let pic = Arc::new(Pic);
    m.bus.connect_external(&pic);
    let line = m.bus.lint(0);
    m.write(0, LVT_LINT0, 0x700);
    m.write(0, TPR, 0xff);
    line.raise();
    // No priority holds it back, and it is not in service here.
    assert_eq!((m.intr(0), m.intr(1)), (true, false));
    assert_eq!(m.bus.acknowledge(0), Some(8));
    assert!(m.intr(0) && !m.has(0, ISR, 8));
    line.lower();
    assert_eq!((m.intr(0), m.bus.acknowledge(0)), (false, None));
    m.msi(0xfee0_1000, 0x700);
    assert_eq!((m.intr(1), m.bus.acknowledge(1), m.intr(1)), (true, Some(8), false));
    // Hardware-disabled: the inputs are INTR and NMI.
    m.bus.set_apic_base(1, 0xfee0_0000).unwrap();
    line.raise();
    m.bus.lint(1).raise();
    assert_eq!((m.intr(1), m.bus.acknowledge(1), m.events(1)), (true, Some(8), vec!["nmi".to_owned()]));
    drop(pic);
    assert_eq!(m.bus.acknowledge(1), None);
}

#[test]
fn timer_modes() {
    let m = Machine::new(1);
    m.write(0, DIVIDE, 0xb);
    m.write(0, LVT_TIMER, 0xee);
    m.write(0, INITIAL, 1000);
    m.clock.set_ns(400);
    assert_eq!((m.read(0, INITIAL), m.read(0, CURRENT)), (1000, 600));
    m.clock.set_ns(1000);
    assert_eq!(m.read(0, CURRENT), 0);
    assert_eq!(m.took(0xee), [0]);
    m.write(0, LVT_TIMER, 0x2_00ee);
    m.write(0, INITIAL, 100);
    m.clock.set_ns(1230);
    assert_eq!(m.read(0, CURRENT), 70);
    assert_eq!(m.took(0xee), [0]);
    // Masked, it goes on counting.
    m.write(0, LVT_TIMER, 0x3_00ee);
    m.clock.set_ns(1310);
    assert_eq!((m.read(0, CURRENT), m.intr(0)), (90, false));
    m.write(0, INITIAL, 0);
    assert_eq!(m.read(0, CURRENT), 0);
    m.write(0, LVT_TIMER, 0x4_00ef);
    m.write(0, INITIAL, 50);
    assert_eq!(m.read(0, INITIAL), 0);
    m.bus.set_tsc_deadline(0, Some(2000));
    assert_eq!((m.bus.tsc_deadline(0), m.intr(0)), (Some(2000), false));
    m.clock.set_ns(2000);
    assert_eq!(m.bus.tsc_deadline(0), None);
    assert_eq!(m.took(0xef), [0]);
    // One that has passed: at once.
    m.bus.set_tsc_deadline(0, Some(1));
    assert_eq!(m.took(0xef), [0]);
    m.bus.set_tsc_deadline(0, Some(9000));
    m.bus.set_tsc_deadline(0, None);
    assert_eq!(m.bus.tsc_deadline(0), None);
    m.write(0, LVT_TIMER, 0xef);
    m.bus.set_tsc_deadline(0, Some(1));
    assert_eq!((m.bus.tsc_deadline(0), m.intr(0)), (None, false));
}

#[test]
fn the_clock_fires_the_timer() {
    let m = Machine::new(1);
    m.clock.start();
    m.write(0, LVT_TIMER, 0x2_00ee);
    m.write(0, DIVIDE, 0xb);
    m.write(0, INITIAL, 1_000_000);
    for _ in 0..3 {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while !m.intr(0) && std::time::Instant::now() < end {
            std::thread::yield_now();
        }
        assert_eq!(m.took(0xee), [0]);
    }
    // The shortest period does not occupy the clock's thread.
    m.write(0, INITIAL, 1);
    m.bus.set_tsc_deadline(0, Some(5));
    m.write(0, INITIAL, 0);
}

#[test]
fn init_keeps_the_mode_and_reset_does_not() {
    let m = Machine::new(2);
    m.to_x2apic(1);
    m.bus.x2apic_write(1, 0x808, 0x20).unwrap();
    m.bus.x2apic_write(1, 0x83f, 0x50).unwrap();
    m.bus.init(1);
    assert!(!m.intr(1));
    assert_eq!((m.bus.apic_base(1), m.bus.tpr(1)), (0xfee0_0c00, 0));
    assert_eq!((m.bus.x2apic_read(1, 0x802), m.bus.x2apic_read(1, 0x80f)), (Ok(1), Ok(0xff)));
    m.bus.reset();
    assert_eq!(m.bus.apic_base(1), 0xfee0_0800);
    assert_eq!(m.read(1, 0x20), 1 << 24);
}

#[test]
fn paravirtual_eoi() {
    let space = AddressSpace::new("test");
    let ram = RamBlock::anonymous("ram", 0x1000).unwrap();
    let _ram = space.map_ram(Gpa(0), &ram, 0, 0x1000, 0).unwrap();
    let memory = space.clone();
    let m = Machine::with_ids(&[0], |c| c.memory = Some(memory));
    let word = || space.load(Gpa(0x80), Access::host(4)).unwrap();
    let clear = || space.store(Gpa(0x80), 0, Access::host(4)).unwrap();
    m.icr(0, 0, 0x40);
    assert_eq!((m.bus.acknowledge(0), word()), (Some(0x40), 0));
    m.write(0, EOI, 0);
    m.bus.set_pv_eoi(0, Some(0x80));
    // The guest ends it by the bit: the next one is taken although it never wrote EOI.
    m.icr(0, 0, 0x40);
    assert_eq!((m.bus.acknowledge(0), word()), (Some(0x40), 1));
    clear();
    assert!(!m.intr(0));
    m.icr(0, 0, 0x40);
    assert_eq!((m.intr(0), m.bus.acknowledge(0), word()), (true, Some(0x40), 1));
    // Not ended yet: looked at in vain, and then EOI is to be written.
    m.icr(0, 0, 0x41);
    assert_eq!((m.intr(0), m.bus.acknowledge(0), word(), m.intr(0)), (true, None, 0, false));
    m.write(0, EOI, 0);
    assert!(m.intr(0));
    assert_eq!((m.bus.acknowledge(0), word()), (Some(0x41), 1));
    clear();
    assert!(!m.has(0, ISR, 0x41));
    assert_eq!(m.read(0, PPR), 0);
    // Level-triggered interrupts and nested ones need EOI.
    m.msi(0xfee0_0000, 0xc050);
    assert_eq!((m.bus.acknowledge(0), word()), (Some(0x50), 0));
    m.icr(0, 0, 0x60);
    assert_eq!((m.bus.acknowledge(0), word()), (Some(0x60), 0));
    m.write(0, EOI, 0);
    m.write(0, EOI, 0);
    m.icr(0, 0, 0x40);
    assert_eq!((m.bus.acknowledge(0), word()), (Some(0x40), 1));
    m.bus.set_pv_eoi(0, None);
    assert_eq!((word(), m.has(0, ISR, 0x40)), (0, true));
}

/// What the guest may end by the bit when its memory is saved it may not end where it is loaded, unless it does so by EOI.
#[test]
fn paravirtual_eoi_of_a_machine_that_moves() {
    let space = AddressSpace::new("test");
    let ram = RamBlock::anonymous("ram", 0x1000).unwrap();
    let _ram = space.map_ram(Gpa(0), &ram, 0, 0x1000, 0).unwrap();
    let machine = || Machine::with_ids(&[0], |c| c.memory = Some(space.clone()));
    let word = || space.load(Gpa(0x80), Access::host(4)).unwrap();
    let m = machine();
    m.bus.set_pv_eoi(0, Some(0x80));
    m.icr(0, 0, 0x40);
    assert_eq!((m.bus.acknowledge(0), word()), (Some(0x40), 1));
    m.bus.quiesce();
    let memory = word();
    let saved = m.bus.save();
    assert_eq!((memory, word()), (0, 0));
    let other = machine();
    other.bus.load(&saved).unwrap();
    assert!(other.has(0, ISR, 0x40));
    other.write(0, EOI, 0);
    other.icr(0, 0, 0x41);
    assert_eq!((other.bus.acknowledge(0), word()), (Some(0x41), 1));
}

#[test]
fn saved_state() {
    let m = Machine::new(2);
    m.to_x2apic(1);
    m.write(0, TPR, 0x10);
    m.write(0, LDR, 0x0100_0000);
    m.icr(0, 0, 0x44);
    m.icr(0, 0, 0x55);
    assert_eq!(m.bus.acknowledge(0), Some(0x55));
    m.write(0, DIVIDE, 0xb);
    m.write(0, LVT_TIMER, 0x2_00ee);
    m.write(0, INITIAL, 1000);
    m.bus.lint(0).raise();
    m.redirect(3, 0x8033);
    IrqSink::set_level(&*m.ioapic, 3, true);
    let (bus, ioapic) = (m.bus.save(), m.ioapic.save());
    let other = Machine::new(2);
    other.clock.set_ns(600);
    other.bus.load(&bus).unwrap();
    other.ioapic.load(&ioapic).unwrap();
    assert_eq!((other.bus.save(), other.ioapic.save()), (bus.clone(), ioapic));
    assert_eq!((other.read(0, CURRENT), other.bus.apic_base(1)), (400, 0xfee0_0c00));
    other.write(0, EOI, 0);
    assert_eq!(other.bus.acknowledge(0), Some(0x44));
    other.write(0, EOI, 0);
    assert_eq!(other.bus.acknowledge(0), Some(0x33));
    other.write(0, EOI, 0);
    assert_eq!(*other.ended.lock(), [3]);
    assert!(Machine::new(3).bus.load(&bus).is_err());
}
