//! Messages: delivery modes, destinations, shorthands, MSI.

use super::*;

#[test]
fn delivery_modes() {
    let m = Machine::new(3);
    m.icr(0, 1, 0x40);
    assert_eq!(m.took(0x40), [1]);
    for (low, event) in [(0x200, "smi"), (0x400, "nmi"), (0x4500, "init"), (0x608, "sipi 8")] {
        m.icr(0, 2, low);
        assert_eq!((m.events(0), m.events(1)), (vec![], vec![]));
        assert_eq!(m.events(2), [event]);
    }
    // INIT level de-assert, reserved modes, nobody.
    for (destination, low) in [(2, 0x8500), (2, 0x300), (2, 0x700), (9, 0x400)] {
        m.icr(0, destination, low);
    }
    assert!((0..3).all(|n| m.events(n).is_empty()));
    assert_eq!((m.read(0, ICR), m.read(0, ICR_HIGH)), (0x400, 9 << 24));
    // The delivery status is idle, the trigger mode without meaning.
    m.icr(0, 1, 0xd041);
    assert_eq!(m.read(0, ICR), 0xc041);
    assert!(m.has(1, IRR, 0x41) && !m.has(1, TMR, 0x41));
}

#[test]
fn shorthands_and_broadcast() {
    let m = Machine::new(4);
    m.icr(2, 0, 0x4_0050);
    assert_eq!(m.took(0x50), [2]);
    m.icr(2, 0, 0x8_0051);
    assert_eq!(m.took(0x51), [0, 1, 2, 3]);
    m.icr(2, 0, 0xc_0052);
    assert_eq!(m.took(0x52), [0, 1, 3]);
    m.icr(2, 0xff, 0x53);
    assert_eq!(m.took(0x53), [0, 1, 2, 3]);
    m.icr(2, 0xff, 0x854);
    assert_eq!(m.took(0x54), [0, 1, 2, 3]);
    m.icr(0, 0, 0xc_4500);
    assert_eq!(m.events(0), Vec::<String>::new());
    assert!((1..4).all(|n| m.events(n) == ["init"]));
    // A hardware-disabled one hears nothing.
    m.bus.set_apic_base(3, 0xfee0_0000).unwrap();
    m.icr(2, 0, 0xc_0055);
    assert_eq!(m.took(0x55), [0, 1]);
}

#[test]
fn logical_flat_and_cluster() {
    let m = Machine::new(4);
    for n in 0..4 {
        m.write(n, LDR, 0x100_0000 << n);
    }
    m.icr(0, 0b1101, 0x840);
    assert_eq!(m.took(0x40), [0, 2, 3]);
    m.icr(0, 0x10, 0x840);
    assert!(m.took(0x40).is_empty());
    for n in 0..4 {
        m.write(n, DFR, 0);
        // Clusters 1 and 2 with two members each.
        m.write(n, LDR, (0x10 << (n / 2) | 1 << (n % 2)) << 24);
    }
    assert_eq!((m.read(1, DFR), m.read(3, LDR)), (0x0fff_ffff, 0x2200_0000));
    m.icr(0, 0x13, 0x840);
    assert_eq!(m.took(0x40), [0, 1]);
    m.icr(0, 0x22, 0x840);
    assert_eq!(m.took(0x40), [3]);
    m.icr(0, 0xf1, 0x840);
    assert_eq!(m.took(0x40), [0, 2]);
    m.icr(0, 0xff, 0x840);
    assert_eq!(m.took(0x40), [0, 1, 2, 3]);
}

#[test]
fn lowest_priority_in_turn() {
    let m = Machine::new(4);
    for n in 0..4 {
        m.write(n, LDR, 0x100_0000 << n);
    }
    m.write(1, TPR, 0x20);
    m.write(3, SVR, 0xff);
    let order: Vec<_> = (0..4)
        .flat_map(|_| {
            m.icr(0, 0x0f, 0x940);
            m.took(0x40)
        })
        .collect();
    assert_eq!(order, [0, 2, 0, 2]);
    m.write(0, TPR, 0x30);
    m.write(2, TPR, 0x30);
    m.icr(0, 0, 0x8_0141);
    assert_eq!(m.took(0x41), [1]);
    m.icr(1, 0, 0xc_0142);
    assert_eq!(m.took(0x42).len(), 1);
}

#[test]
fn messages_of_devices() {
    let m = Machine::with_ids(&[0, 1, 2, 3, 0x101], |c| c.extended_destination = true);
    for n in 0..4 {
        m.write(n, LDR, 0x100_0000 << n);
    }
    m.msi(0xfee0_2000, 0x70);
    assert_eq!(m.took(0x70), [2]);
    m.msi(0xfee0_6004, 0x71);
    assert_eq!(m.took(0x71), [1, 2]);
    // The redirection hint: one of them; as does the delivery mode.
    m.msi(0xfee0_600c, 0x72);
    assert_eq!(m.took(0x72).len(), 1);
    m.msi(0xfee0_6004, 0x172);
    assert_eq!(m.took(0x72).len(), 1);
    m.msi(0xfeef_f000, 0x73);
    assert_eq!(m.took(0x73), [0, 1, 2, 3, 4]);
    m.msi(0xfee0_1000 | 1 << 5, 0x74);
    assert_eq!(m.took(0x74), [4]);
    m.msi(0xfee0_1000, 0x400);
    assert_eq!(m.events(1), ["nmi"]);
    // Level de-assert, start-up, another address.
    for (address, data) in [(0xfee0_1000, 0x8075), (0xfee0_1000, 0x675), (0xfed0_1000, 0x75), (0x1_fee0_1000, 0x75)] {
        m.msi(address, data);
    }
    assert!(m.events(1).is_empty() && m.took(0x75).is_empty());
    // By a write to the window; only of devices.
    m.window.write(0x3000, 0x76, Access::device(8, 4)).unwrap();
    m.window.write(0, 0x76, Access::device(8, 4)).unwrap();
    m.window.write(0x1000, 0x76, Access::cpu(0, 4)).unwrap();
    m.window.write(0x1000, 0x76, Access::device(8, 2)).unwrap();
    assert_eq!(m.took(0x76), [0, 3]);
}

#[test]
fn interrupts_between_threads_are_not_lost() {
    let m = Machine::new(3);
    let sent = std::sync::atomic::AtomicU32::new(0);
    let taken = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|s| {
        for sender in [1u32, 2] {
            let (m, sent, taken) = (&m, &sent, &taken);
            s.spawn(move || {
                for _ in 0..1000 {
                    // One at a time per vector, so that none may merge.
                    let vector = 0x40 + sender * 16;
                    let before = taken.load(SeqCst) >> (16 * (sender - 1)) & 0xffff;
                    m.icr(sender, 0, vector);
                    sent.fetch_add(1, SeqCst);
                    while taken.load(SeqCst) >> (16 * (sender - 1)) & 0xffff == before {
                        std::thread::yield_now();
                    }
                }
            });
        }
        let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let mut count = 0;
        while count < 2000 && std::time::Instant::now() < end {
            if !m.intr(0) {
                std::thread::yield_now();
                continue;
            }
            if let Some(vector) = m.bus.acknowledge(0) {
                m.write(0, EOI, 0);
                count += 1;
                taken.fetch_add(if vector == 0x50 { 1 } else { 1 << 16 }, SeqCst);
            }
        }
        // Lets the senders go, whatever happened.
        while count < 2000 && sent.load(SeqCst) < 2000 {
            taken.fetch_add(0x1_0001, SeqCst);
        }
        assert_eq!(count, 2000);
    });
    assert!(!m.intr(0));
}
