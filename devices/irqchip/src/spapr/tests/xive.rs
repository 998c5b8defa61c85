use super::*;
use rhea_memory::BusError;

fn machine() -> (Machine, u32) {
    let m = Machine::new(IcMode::Xive, &[0, 8]);
    let a = m.irq.allocate_messages(1, 1).unwrap();
    for cpu in 0..2 {
        m.start(cpu);
    }
    (m, a)
}

#[test]
fn messages() {
    let (m, a) = machine();
    // Off: lost, as the architecture has it.
    m.message(a);
    m.enable(a, 1);
    assert!(!m.up(1));
    m.message(a);
    assert!(m.up(1));
    assert_eq!(m.esb_load(a, 0x800), 2);
    m.message(a);
    m.message(a);
    assert_eq!(m.esb_load(a, 0x800), 3);
    // The one behind is sent at the end of the first.
    assert_eq!(m.take(1), [a, a]);
    assert_eq!(m.esb_load(a, 0x800), 0);
}

#[test]
fn acknowledge_cycle() {
    let (m, a) = machine();
    m.enable(a, 0);
    m.message(a);
    let ring = m.tima_read(0, 0x10, 8).unwrap().to_be_bytes();
    assert_eq!((ring[0], ring[1], ring[2], ring[7]), (0x80, 0xff, 0x80 >> PRIORITY, PRIORITY));
    assert_eq!(m.tima_read(0, 0x11, 1), Ok(0xff));
    assert_eq!(m.tima_read(0, 0x14, 4), Ok(u32::from_be_bytes([ring[4], ring[5], ring[6], ring[7]]).into()));
    assert_eq!(m.tima_read(0, 0x810, 2), Ok(0x8000 | u64::from(PRIORITY)));
    assert!(!m.up(0));
    assert_eq!(m.tima_read(0, 0x810, 2), Ok(PRIORITY.into()));
    // A more favoured one set by the OS itself, a less favoured one waits.
    let pend = |p: u8| m.space.store(Gpa(XivePlaces::default().tima + 0x2_0812), p.into(), Access::cpu(0, 1)).unwrap();
    pend(PRIORITY + 1);
    assert!(!m.up(0));
    pend(1);
    assert!(m.up(0));
    m.set_cppr(0, 1);
    assert!(!m.up(0));
    m.set_cppr(0, 8);
    assert_eq!(m.tima_read(0, 0x11, 1), Ok(0xff));
    assert_eq!(m.tima_read(0, 0x810, 2), Ok(0x8001));
    m.set_cppr(0, 0xff);
    assert_eq!(m.tima_read(0, 0x810, 2), Ok(0x8000 | u64::from(PRIORITY + 1)));
    // Only a processor has a context, and a guest no pages of the hypervisor.
    let tima = XivePlaces::default().tima;
    assert_eq!(m.space.load(Gpa(tima + 0x2_0010), Access::host(8)), Err(BusError::Refused));
    assert_eq!(m.space.load(Gpa(tima + 0x1_0010), Access::cpu(0, 8)), Err(BusError::Unassigned));
}

#[test]
fn levels_and_interprocessor() {
    let (m, _) = machine();
    let line = m.irq.claim(numbers::LSI, true).unwrap();
    line.raise();
    assert!(!m.up(0));
    m.enable(numbers::LSI, 0);
    assert!(m.up(0));
    let ended = Arc::new(Mutex::new(0));
    let (count, down) = (ended.clone(), line.clone());
    m.service(0, &move |irq| {
        assert_eq!(irq, numbers::LSI);
        *count.lock() += 1;
        if *count.lock() == 3 {
            down.lower();
        }
    });
    assert_eq!(*ended.lock(), 3);
    // Its event was taken from the queue with the others; what is left is the notification.
    assert!(m.take(0).is_empty());
    // Server 8's interprocessor interrupt is source 8.
    m.enable(8, 1);
    m.esb_store(8, 0, 0);
    assert_eq!(m.take(1), [8]);
    let info = m.ok(0, h::H_INT_GET_SOURCE_INFO, &[0, numbers::LSI.into()]);
    assert_eq!((info[0], info[2], info[3]), (5, u64::MAX, 16));
    let info = m.ok(0, h::H_INT_GET_SOURCE_INFO, &[0, 8]);
    assert_eq!((info[0], info[1] - info[2], info[2]), (3, 0x1_0000, XivePlaces::default().esb + 8 * 0x2_0000));
}

#[test]
fn queues_wrap_and_can_be_silent() {
    let (m, a) = machine();
    m.enable(a, 0);
    m.ok(0, h::H_INT_SET_QUEUE_CONFIG, &[1, 0, PRIORITY.into(), QUEUE, 12]);
    for n in 0..3000u32 {
        m.message(a);
        m.esb_store(a, 1, 0x400);
        let at = Gpa(QUEUE + u64::from(n % 1024) * 4);
        let entry = (m.space.load(at, Access::host(4)).unwrap() as u32).swap_bytes();
        assert_eq!(entry, u32::from(n / 1024 % 2 == 0) << 31 | a);
    }
    let config = m.ok(0, h::H_INT_GET_QUEUE_CONFIG, &[1, 0, PRIORITY.into()]);
    assert_eq!(config[..4], [1 | 2, QUEUE, 12, 3000 % 1024]);
    // Without "always notify" the queue's own event state buffer decides.
    m.take(0);
    m.ok(0, h::H_INT_SET_QUEUE_CONFIG, &[0, 8, PRIORITY.into(), QUEUE, 12]);
    m.enable(a, 1);
    m.message(a);
    assert!(!m.up(1));
    let info = m.ok(0, h::H_INT_GET_QUEUE_INFO, &[0, 8, PRIORITY.into()]);
    assert_eq!(info[1], 12);
    let esn = |at| m.space.load(Gpa(info[0] + at), Access::cpu(0, 8)).unwrap().swap_bytes();
    assert_eq!(esn(0xc00), 1);
    m.esb_store(a, 1, 0x400);
    m.message(a);
    assert!(m.up(1));
    assert_eq!(esn(0x800), 2);
}

#[test]
fn errors() {
    let (m, a) = machine();
    let (p1, p2, p3, p4, p5) = (Status::PARAMETER.0, Status::P2.0, Status::P3.0, Status::P4.0, Status::P5.0);
    let a = u64::from(a);
    for (number, args, status) in [
        (h::H_INT_GET_SOURCE_INFO, &[1, a][..], p1),
        (h::H_INT_GET_SOURCE_INFO, &[0, 0x1fff], p2),
        (h::H_INT_GET_SOURCE_INFO, &[0, u64::MAX], p2),
        (h::H_INT_SET_SOURCE_CONFIG, &[4, a, 0, 5, 0], p1),
        (h::H_INT_SET_SOURCE_CONFIG, &[0, 1 << 33, 0, 5, 0], p2),
        (h::H_INT_SET_SOURCE_CONFIG, &[0, a, 1, 5, 0], p3),
        (h::H_INT_SET_SOURCE_CONFIG, &[0, a, 1 << 32, 5, 0], p3),
        (h::H_INT_SET_SOURCE_CONFIG, &[0, a, 0, 7, 0], p4),
        (h::H_INT_SET_SOURCE_CONFIG, &[0, a, 0, 0x1ff, 0], p4),
        (h::H_INT_GET_SOURCE_CONFIG, &[0, 9], p2),
        (h::H_INT_GET_QUEUE_INFO, &[0, 1, 5], p2),
        (h::H_INT_GET_QUEUE_INFO, &[0, 0, 7], p3),
        (h::H_INT_SET_QUEUE_CONFIG, &[2, 0, 5, 0, 16], p1),
        (h::H_INT_SET_QUEUE_CONFIG, &[0, 2, 5, 0, 16], p2),
        (h::H_INT_SET_QUEUE_CONFIG, &[0, 0, 0xff, 0, 16], p3),
        (h::H_INT_SET_QUEUE_CONFIG, &[0, 0, 5, 0x1000, 16], p4),
        (h::H_INT_SET_QUEUE_CONFIG, &[0, 0, 5, 1 << 40, 16], p4),
        (h::H_INT_SET_QUEUE_CONFIG, &[0, 0, 5, 0, 24], p4),
        (h::H_INT_SET_QUEUE_CONFIG, &[0, 0, 5, 0, 13], p5),
        (h::H_INT_SET_QUEUE_CONFIG, &[0, 0, 5, 0, u64::MAX], p5),
        (h::H_INT_SET_OS_REPORTING_LINE, &[0, 0, 0x10], p3),
        (h::H_INT_SET_OS_REPORTING_LINE, &[0, 9, 0x100], p2),
        (h::H_INT_ESB, &[2, a, 0], p1),
        (h::H_INT_ESB, &[0, a, 1 << 16], p3),
        (h::H_INT_SYNC, &[0, 0xfff], p2),
        (h::H_INT_RESET, &[1], p1),
        (h::H_XIRR, &[], Status::FUNCTION.0),
    ] {
        assert_eq!(m.call(0, number, args).0, status, "{number:#x} {args:x?}");
    }
    assert_eq!(m.rtas("ibm,set-xive", &[a as u32, 0, 5]).0, -1);
    m.ok(0, h::H_INT_SET_OS_REPORTING_LINE, &[0, 8, 0x100]);
    assert_eq!(m.ok(0, h::H_INT_GET_OS_REPORTING_LINE, &[0, 8])[0], 0x100);
    m.enable(a as u32, 1);
    assert_eq!(m.ok(0, h::H_INT_GET_SOURCE_CONFIG, &[0, a])[..3], [8, PRIORITY.into(), a]);
    m.ok(0, h::H_INT_SET_SOURCE_CONFIG, &[0, a, 0, 0xff, 0]);
    assert_eq!(m.ok(0, h::H_INT_GET_SOURCE_CONFIG, &[0, a])[1], 0xff);
    assert_eq!(m.ok(0, h::H_INT_ESB, &[0, a, 0xd00])[0], 0);
    assert_eq!(m.ok(0, h::H_INT_ESB, &[0, a, 0x800])[0], 1);
    assert_eq!(m.ok(0, h::H_INT_ESB, &[1, a, 0x400])[0], u64::MAX);
    m.ok(0, h::H_INT_SYNC, &[0, a]);
    m.ok(0, h::H_INT_RESET, &[0]);
    assert_eq!(m.ok(0, h::H_INT_GET_QUEUE_CONFIG, &[0, 8, PRIORITY.into()])[1..3], [0, 0]);
}

#[test]
fn saved() {
    let (m, a) = machine();
    m.enable(a, 1);
    m.message(a);
    m.message(a);
    let state = rhea_device::Device::save(&*m.irq);
    let n = Machine::new(IcMode::Dual, &[0, 8]);
    rhea_device::Device::load(&*n.irq, &state).unwrap();
    assert_eq!(n.irq.mode(), Mode::Xive);
    let mut page = vec![0; QUEUE as usize];
    m.space.read(Gpa(2 * QUEUE), &mut page, rhea_memory::Requester::Host).unwrap();
    n.space.write(Gpa(2 * QUEUE), &page, rhea_memory::Requester::Host).unwrap();
    assert_eq!(n.take(1), [a, a]);
}

/// A guest that does not look at its queue: the ring goes round over what was there, and nothing beyond it is written.
#[test]
fn queues_overflow() {
    let (m, a) = machine();
    m.ok(0, h::H_INT_SET_QUEUE_CONFIG, &[1, 0, PRIORITY.into(), QUEUE, 12]);
    let beyond = Gpa(QUEUE + 0x1000);
    m.space.store(beyond, 0x5a5a_5a5a, Access::host(4)).unwrap();
    m.enable(a, 0);
    for _ in 0..5000 {
        m.message(a);
        m.esb_store(a, 1, 0x400);
    }
    assert_eq!(m.space.load(beyond, Access::host(4)).unwrap(), 0x5a5a_5a5a);
    assert_eq!(m.ok(0, h::H_INT_GET_QUEUE_CONFIG, &[1, 0, PRIORITY.into()])[..4], [1 | 2, QUEUE, 12, 5000 % 1024]);
    // All were one notification.
    assert_eq!(m.tima_read(0, 0x810, 2), Ok(0x8000 | u64::from(PRIORITY)));
    m.set_cppr(0, 0xff);
    assert!(!m.up(0));
    m.message(a);
    assert!(m.up(0));
}

#[test]
fn event_state_buffers_of_queues() {
    let (m, _) = machine();
    let info = m.ok(0, h::H_INT_GET_QUEUE_INFO, &[0, 8, PRIORITY.into()]);
    let load =
        |page: u64, at: u64| m.space.load(Gpa(info[0] + (page << SHIFT) + at), Access::cpu(0, 8)).unwrap().swap_bytes();
    for page in [0, 1] {
        // Off after a reset; each on its own.
        assert_eq!(load(page, 0x800), 1);
        assert_eq!(load(page, 0xf00), 1);
        assert_eq!((load(page, 0x800), load(1 - page, 0x800)), (3, 1));
        // The end of one that came twice: notification has its server told, escalation nobody.
        assert_eq!(load(page, 0), 1);
        assert_eq!(load(page, 0x800), 2);
        assert_eq!(m.up(1), page == 0);
        m.tima_read(1, 0x810, 2).unwrap();
        m.set_cppr(1, 0xff);
        assert_eq!((load(page, 0), load(page, 0xd00)), (0, 0));
        assert_eq!(load(page, 0x400), u64::MAX);
        // No stores.
        m.space.store(Gpa(info[0] + (page << SHIFT) + 0xc00), 0, Access::cpu(0, 8)).unwrap();
        assert_eq!(load(page, 0x800), 1);
    }
    load(1, 0xe00);
    let state = rhea_device::Device::save(&*m.irq);
    load(1, 0xd00);
    rhea_device::Device::load(&*m.irq, &state).unwrap();
    assert_eq!((load(0, 0x800), load(1, 0x800)), (1, 2));
}

#[test]
fn event_state_buffers_of_sources() {
    let (m, a) = machine();
    m.enable(a, 0);
    // P and Q by stores as by loads; what comes while both are off is lost.
    m.esb_store(a, 1, 0xd00);
    m.message(a);
    assert_eq!((m.esb_load(a, 0x800), m.up(0)), (1, false));
    m.esb_store(a, 1, 0xc00);
    // A store at the start of the management page triggers, as any in the trigger page does.
    m.esb_store(a, 1, 0);
    m.esb_store(a, 0, 0x7f8);
    assert_eq!(m.esb_load(a, 0x800), 3);
    // The end by load tells that another one was sent.
    assert_eq!(m.esb_load(a, 0), 1);
    assert_eq!(m.esb_load(a, 0), 0);
    assert_eq!(m.esb_load(a, 0x800), 0);
    assert_eq!(m.next_event(0).zip(m.next_event(0)), Some((a, a)));
    assert_eq!(m.next_event(0), None);
    // Nothing is loaded from trigger pages, and level sources have none.
    let trigger = Gpa(XivePlaces::default().esb + (u64::from(a) << (SHIFT + 1)));
    assert_eq!(m.space.load(trigger, Access::cpu(0, 8)), Ok(u64::MAX));
    m.irq.claim(numbers::LSI, true).unwrap();
    m.enable(numbers::LSI, 0);
    m.esb_store(numbers::LSI, 0, 0);
    m.esb_store(numbers::LSI, 1, 0);
    assert_eq!((m.esb_load(numbers::LSI, 0x800), m.next_event(0)), (0, None));
    // A masked source has its events dropped, and waits for their end.
    m.ok(0, h::H_INT_SET_SOURCE_CONFIG, &[1, a.into(), 0, PRIORITY.into(), 0]);
    m.message(a);
    assert_eq!((m.esb_load(a, 0x800), m.next_event(0)), (2, None));
    assert_eq!(m.ok(0, h::H_INT_GET_SOURCE_CONFIG, &[0, a.into()])[..3], [0, 0xff, a.into()]);
}

#[test]
fn reset_by_the_guest() {
    let (m, a) = machine();
    m.enable(a, 0);
    m.message(a);
    m.ok(0, h::H_INT_SET_OS_REPORTING_LINE, &[0, 0, 0x200]);
    assert!(m.up(0));
    m.ok(0, h::H_INT_RESET, &[0]);
    // Nothing is left of what was pending for a queue that is gone; the processor's priority is its own.
    assert!(!m.up(0));
    assert_eq!(m.tima_read(0, 0x11, 1), Ok(0xff));
    assert_eq!(m.ok(0, h::H_INT_GET_OS_REPORTING_LINE, &[0, 0])[0], u64::MAX);
    assert_eq!(m.ok(0, h::H_INT_GET_SOURCE_CONFIG, &[0, a.into()])[1], 0xff);
    assert_eq!(m.esb_load(a, 0x800), 1);
    m.start(0);
    m.enable(a, 0);
    assert!(!m.up(0));
    m.message(a);
    assert_eq!(m.take(0), [a]);
}
