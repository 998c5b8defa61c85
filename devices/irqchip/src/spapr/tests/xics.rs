use super::*;

fn machine() -> (Machine, u32, u32) {
    let m = Machine::new(IcMode::Xics, &[0, 8]);
    let (a, b) = (m.irq.allocate_messages(1, 1).unwrap(), m.irq.allocate_messages(1, 1).unwrap());
    for cpu in 0..2 {
        m.start(cpu);
    }
    (m, a, b)
}

#[test]
fn messages() {
    let (m, a, b) = machine();
    // Masked: remembered.
    m.message(a);
    assert!(!m.up(0) && !m.up(1));
    m.enable(a, 0);
    assert!(m.up(0));
    assert_eq!(m.take(0), [a]);
    // A more favoured one displaces it, and both come.
    m.message(a);
    assert_eq!(m.rtas("ibm,set-xive", &[b, 0, 2]).0, 0);
    m.message(b);
    assert_eq!(m.ok(0, h::H_XIRR, &[])[0], 0xff00_0000 | u64::from(b));
    assert!(!m.up(0));
    m.message(b);
    assert!(!m.up(0));
    assert_eq!(m.ok(0, h::H_IPOLL, &[0])[..2], [0x0200_0000, 0xff]);
    m.ok(0, h::H_EOI, &[0xff00_0000 | u64::from(b)]);
    let mut both = m.take(0);
    both.sort_unstable();
    assert_eq!(both, [a, b]);
    assert_eq!(m.rtas("ibm,get-xive", &[b]), (0, 0, 2));
}

#[test]
fn off_and_on() {
    let (m, a, _) = machine();
    m.enable(a, 1);
    assert_eq!(m.rtas("ibm,int-off", &[a]).0, 0);
    m.message(a);
    assert!(!m.up(1));
    assert_eq!(m.rtas("ibm,get-xive", &[a]), (0, 8, 0xff));
    assert_eq!(m.rtas("ibm,int-on", &[a]).0, 0);
    assert_eq!(m.take(1), [a]);
}

#[test]
fn a_waiting_message_follows_its_source() {
    let (m, a, _) = machine();
    m.enable(a, 0);
    m.ok(0, h::H_CPPR, &[0]);
    m.message(a);
    assert!(!m.up(0));
    m.enable(a, 1);
    assert_eq!(m.take(1), [a]);
    m.ok(0, h::H_CPPR, &[0xff]);
    assert!(!m.up(0));
}

#[test]
fn interprocessor() {
    let (m, a, _) = machine();
    m.ok(0, h::H_IPI, &[8, 4]);
    assert!(m.up(1) && !m.up(0));
    // Raising the priority takes it back until CPPR allows it.
    m.ok(1, h::H_CPPR, &[4]);
    assert!(!m.up(1));
    m.ok(1, h::H_CPPR, &[5]);
    assert!(m.up(1));
    let xirr = m.ok(1, h::H_XIRR, &[])[0];
    assert_eq!(xirr, 0x0500_0002);
    m.ok(1, h::H_IPI, &[8, 0xff]);
    m.ok(1, h::H_EOI, &[xirr]);
    assert!(!m.up(1));
    // An IPI displaces a message, which is not lost.
    m.ok(1, h::H_CPPR, &[0xff]);
    m.enable(a, 1);
    m.message(a);
    m.ok(0, h::H_IPI, &[8, 1]);
    assert_eq!(m.ok(1, h::H_XIRR, &[])[0], 0xff00_0002);
    m.ok(0, h::H_IPI, &[8, 0xff]);
    m.ok(1, h::H_EOI, &[0xff00_0002]);
    assert_eq!(m.take(1), [a]);
}

#[test]
fn levels() {
    let (m, ..) = machine();
    let line = m.irq.claim(numbers::LSI, true).unwrap();
    m.enable(numbers::LSI, 0);
    line.raise();
    let xirr = m.ok(0, h::H_XIRR, &[])[0];
    // Still up at the end: again.
    m.ok(0, h::H_EOI, &[xirr]);
    assert!(m.up(0));
    let xirr = m.ok(0, h::H_XIRR, &[])[0];
    line.lower();
    m.ok(0, h::H_EOI, &[xirr]);
    assert!(!m.up(0));
    // A level that came while masked.
    assert_eq!(m.rtas("ibm,int-off", &[numbers::LSI]).0, 0);
    line.raise();
    assert!(!m.up(0));
    assert_eq!(m.rtas("ibm,int-on", &[numbers::LSI]).0, 0);
    assert!(m.up(0));
}

#[test]
fn errors() {
    let (m, a, _) = machine();
    assert_eq!(m.call(0, h::H_IPI, &[3, 0]).0, Status::PARAMETER.0);
    assert_eq!(m.call(0, h::H_IPI, &[u64::MAX, 0]).0, Status::PARAMETER.0);
    assert_eq!(m.call(0, h::H_IPOLL, &[1 << 32]).0, Status::PARAMETER.0);
    assert_eq!(m.call(0, h::H_EOI, &[0xff00_0000 | 0x1fff]).0, Status::PARAMETER.0);
    assert_eq!(m.call(0, h::H_INT_RESET, &[0]).0, Status::FUNCTION.0);
    for (name, args) in [
        ("ibm,set-xive", &[a, 3, 5][..]),
        ("ibm,set-xive", &[a, 0, 0x100]),
        ("ibm,set-xive", &[0x1fff, 0, 5]),
        ("ibm,set-xive", &[a]),
        ("ibm,get-xive", &[0]),
        ("ibm,int-on", &[u32::MAX]),
        ("ibm,int-off", &[]),
    ] {
        assert_eq!(m.rtas(name, args).0, -3, "{name} {args:?}");
    }
}

#[test]
fn saved() {
    let (m, a, b) = machine();
    m.enable(a, 0);
    m.enable(b, 1);
    m.message(a);
    m.ok(1, h::H_CPPR, &[0]);
    m.message(b);
    let state = rhea_device::Device::save(&*m.irq);
    let n = Machine::new(IcMode::Dual, &[0, 8]);
    rhea_device::Device::load(&*n.irq, &state).unwrap();
    assert_eq!(n.take(0), [a]);
    n.ok(1, h::H_CPPR, &[0xff]);
    assert_eq!(n.take(1), [b]);
    assert!(rhea_device::Device::load(&*Machine::new(IcMode::Xive, &[0, 8]).irq, &state).is_err());
    assert!(rhea_device::Device::load(&*Machine::new(IcMode::Xics, &[0]).irq, &state).is_err());
}

#[test]
fn polling_and_the_time_of_presentation() {
    let (m, a, _) = machine();
    m.irq.set_timebase(|| 0x1234_5678_9abc);
    m.enable(a, 0);
    m.message(a);
    // Without effect, of any server, by any.
    for _ in 0..2 {
        assert_eq!(m.ok(1, h::H_IPOLL, &[0])[..2], [0xff00_0000 | u64::from(a), 0xff]);
    }
    assert_eq!(m.ok(0, h::H_IPOLL, &[8])[0], 0xff00_0000);
    assert_eq!(m.ok(0, h::H_XIRR_X, &[])[..2], [0xff00_0000 | u64::from(a), 0x1234_5678_9abc]);
    assert_eq!(m.ok(0, h::H_IPOLL, &[0])[0], u64::from(PRIORITY) << 24);
    // Nothing is pending: source 0.
    assert_eq!(m.ok(0, h::H_XIRR, &[])[0], u64::from(PRIORITY) << 24);
    m.ok(0, h::H_EOI, &[0xff00_0000 | u64::from(a)]);
    assert_eq!(m.ok(0, h::H_IPOLL, &[0])[0], 0xff00_0000);
    // Only the low byte of a priority counts.
    m.ok(0, h::H_CPPR, &[0x1_2345_6703]);
    assert_eq!(m.ok(0, h::H_IPOLL, &[0])[0], 0x0300_0000);
    m.ok(1, h::H_IPI, &[0, 0x102]);
    assert_eq!(m.ok(0, h::H_IPOLL, &[0])[..2], [0x0300_0002, 2]);
}
