//! x2APIC: modes, registers that fault, destinations; and IA32_APIC_BASE.

use super::*;

const ENABLE: u64 = 1 << 11;
const EXTD: u64 = 1 << 10;
const BASE: u64 = 0xfee0_0000;

#[test]
fn changes_of_mode() {
    let m = Machine::new(1);
    let set = |mode: u64| m.bus.set_apic_base(0, BASE | 0x100 | mode);
    assert_eq!(set(EXTD), Err(ApicFault));
    m.write(0, TPR, 0x70);
    assert_eq!(set(ENABLE | EXTD), Ok(()));
    assert_eq!(m.bus.tpr(0), 7);
    // The window does not answer, stores there go nowhere.
    assert_eq!(m.read(0, 0x30), u32::MAX);
    m.write(0, TPR, 0);
    assert_eq!(m.bus.tpr(0), 7);
    for mode in [EXTD, ENABLE] {
        assert_eq!(set(mode), Err(ApicFault));
    }
    assert_eq!(set(0), Ok(()));
    assert_eq!((m.bus.tpr(0), m.read(0, 0x30)), (7, u32::MAX));
    m.bus.set_tpr(0, 8);
    assert_eq!((m.bus.tpr(0), m.read(0, 0x80)), (8, u32::MAX));
    for mode in [EXTD, ENABLE | EXTD] {
        assert_eq!(set(mode), Err(ApicFault));
    }
    assert_eq!(set(ENABLE), Ok(()));
    assert_eq!((m.read(0, SVR), m.read(0, TPR)), (0xff, 0x80));
    // Reserved bits.
    for bits in [1, 0x80, 0x200, 1 << 40, 1 << 63] {
        assert_eq!(m.bus.set_apic_base(0, BASE | ENABLE | bits), Err(ApicFault));
    }
    let m = Machine::with_ids(&[0], |c| c.x2apic = false);
    assert_eq!(m.bus.set_apic_base(0, BASE | ENABLE | EXTD), Err(ApicFault));
}

#[test]
fn moved_registers() {
    let m = Machine::new(2);
    let places = Arc::new(Mutex::new(vec![]));
    let seen = places.clone();
    m.bus.on_relocate(move |at| {
        seen.lock().push(at);
        true
    });
    m.bus.set_apic_base(1, 0xfed4_0000 | ENABLE).unwrap();
    m.bus.set_apic_base(1, BASE | ENABLE).unwrap();
    m.bus.set_apic_base(1, 0xfed4_0000 | ENABLE).unwrap();
    assert_eq!(*places.lock(), [0xfed4_0000]);
    let moved = m.bus.window_at(0xfed4_0000).unwrap();
    assert_eq!(moved.read(0x30, Access::cpu(1, 4)), Ok(0x0106_0014));
    assert_eq!(moved.read(0x30, Access::cpu(0, 4)).map(|v| v as u32), Ok(u32::MAX));
    assert_eq!((m.read(1, 0x30), m.read(0, 0x30)), (u32::MAX, 0x0106_0014));
    for n in 0..100 {
        m.bus.set_apic_base(0, n << 12 | ENABLE).unwrap();
    }
    assert!(places.lock().len() < 20);
    assert!(m.bus.window_at(1).is_err());
}

/// Can be read, can be written with 0.
fn access(register: u32) -> (bool, bool) {
    match register {
        0x02 | 0x03 | 0x0a | 0x0d | 0x10..=0x27 | 0x39 => (true, false),
        0x08 | 0x0f | 0x28 | 0x2f | 0x30 | 0x32..=0x38 | 0x3e => (true, true),
        0x0b | 0x3f => (false, true),
        _ => (false, false),
    }
}

#[test]
fn registers_that_fault() {
    let m = Machine::new(1);
    for register in 0..0x100 {
        assert_eq!(m.bus.x2apic_read(0, 0x800 + register), Err(ApicFault), "xAPIC {register:#x}");
        assert_eq!(m.bus.x2apic_write(0, 0x800 + register, 0), Err(ApicFault), "xAPIC {register:#x}");
    }
    m.to_x2apic(0);
    for register in 0..0x100 {
        let (read, write) = access(register);
        assert_eq!(m.bus.x2apic_read(0, 0x800 + register).is_ok(), read, "read {register:#x}");
        assert_eq!(m.bus.x2apic_write(0, 0x800 + register, 0).is_ok(), write, "write {register:#x}");
        if register != 0x30 {
            assert!(m.bus.x2apic_write(0, 0x800 + register, 1 << 32).is_err(), "high {register:#x}");
        }
    }
    let reserved: [(u32, u64); 12] = [
        (0x08, 0x100),
        (0x0b, 1),
        (0x0f, 0x400),
        (0x0f, 0x2000),
        (0x28, 1),
        (0x2f, 0x8000),
        (0x30, 0x2000),
        (0x30, 0x1_0000),
        (0x32, 0x100),
        (0x37, 0x2_0000),
        (0x3e, 4),
        (0x3f, 0x100),
    ];
    for (register, value) in reserved {
        assert!(m.bus.x2apic_write(0, 0x800 + register, value).is_err(), "{register:#x} {value:#x}");
    }
    assert_eq!(m.bus.x2apic_write(0, 0x835, 0x1_f7ff), Ok(()));
    assert!(Machine::with_ids(&[0], |c| c.cmci = false).bus.x2apic_read(0, 0x82f).is_err());
    assert!(m.bus.x2apic_read(7, 0x802).is_err());
    assert!(m.bus.x2apic_read(0, 0).is_err() && m.bus.x2apic_write(0, 0x1b, 0).is_err());
}

#[test]
fn destinations() {
    let m = Machine::with_ids(&[0, 1, 0x13, 0x1f, 0x320], |_| ());
    for n in 0..5 {
        m.to_x2apic(n);
        m.bus.x2apic_write(n, 0x80f, 0x1ff).unwrap();
    }
    let icr = |destination: u64, low: u64| m.bus.x2apic_write(0, 0x830, destination << 32 | low).unwrap();
    assert_eq!(m.bus.x2apic_read(3, 0x80d), Ok(0x1_8000));
    assert_eq!(m.bus.x2apic_read(4, 0x80d), Ok(0x32_0001));
    icr(0x320, 0x40);
    assert_eq!(m.took(0x40), [4]);
    assert_eq!(m.bus.x2apic_read(0, 0x830), Ok(0x320_0000_0040));
    // 0xff is no broadcast here.
    icr(0xff, 0x41);
    assert!(m.took(0x41).is_empty());
    icr(0xffff_ffff, 0x42);
    assert_eq!(m.took(0x42), [0, 1, 2, 3, 4]);
    icr(0x1_8008, 0x843);
    assert_eq!(m.took(0x43), [2, 3]);
    icr(0x0_0002, 0x844);
    assert_eq!(m.took(0x44), [1]);
    icr(0xffff_ffff, 0x845);
    assert_eq!(m.took(0x45), [0, 1, 2, 3, 4]);
    m.bus.x2apic_write(3, 0x83f, 0x46).unwrap();
    assert_eq!(m.took(0x46), [3]);
    m.bus.x2apic_write(3, 0x83f, 5).unwrap();
    m.bus.x2apic_write(3, 0x828, 0).unwrap();
    assert_eq!(m.bus.x2apic_read(3, 0x828), Ok(0x60));
    // Devices reach ids below 255, and logically cluster 0.
    m.msi(0xfee1_3000, 0x47);
    assert_eq!(m.took(0x47), [2]);
    m.msi(0xfeef_f000, 0x48);
    assert_eq!(m.took(0x48), [0, 1, 2, 3, 4]);
    m.msi(0xfee0_3004, 0x49);
    assert_eq!(m.took(0x49), [0, 1]);
    // Paravirtual interrupts.
    assert!(m.bus.pv_ipi(0, 0x13, 0x4a) && !m.bus.pv_ipi(0, 0x14, 0x4a) && !m.bus.pv_ipi(0, u32::MAX, 0x4a));
    assert_eq!(m.took(0x4a), [2]);
    assert!(m.bus.pv_ipi(0, 0x1f, 0x400));
    assert_eq!(m.events(3), ["nmi"]);
    assert_eq!((m.bus.cpu_of(0x320), m.bus.cpu_of(0x321), m.bus.cpu_of(5)), (Some(4), None, None));
}

#[test]
fn refused_machines() {
    let clock = VirtualClock::new();
    let make = |ids: &[u32]| {
        let cpus = ids.iter().map(|id| LapicConfig { apic_id: *id, outputs: LapicOutputs::unconnected() }).collect();
        ApicBus::new(ApicConfig::new("apic", cpus, clock.clone())).map(|_| ())
    };
    assert_eq!(make(&[]), Err(ApicError::Cpus(0)));
    assert_eq!(make(&[1, 2, 1]), Err(ApicError::SameId(1)));
    assert_eq!(make(&[1 << 16]), Err(ApicError::Id(1 << 16)));
    assert_eq!(make(&[0xffff]), Ok(()));
}
