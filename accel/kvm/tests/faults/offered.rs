//! What only some kernels offer, and what a machine does without it.

use super::*;
use rhea_accel::Accelerator;

#[test]
fn writes_that_are_held_back() {
    let held = |n: u64| HeldWrite { address: SLOW + 4 * n, len: 4, data: n.to_le_bytes() };
    let got = |machine: &Fake| std::mem::take(&mut *machine.slow.got.lock());
    let mut later = machine(Plan::default(), Irqchip::Kernel).unwrap();
    assert_eq!(later.vm.counts().held, 1);
    later.kernel.writes.lock().extend((0..3).map(held));
    assert_eq!(got(&later), []);
    // The device asks.
    later.slow.held.settle();
    assert_eq!(got(&later), [(0, 0), (4, 1), (8, 2)]);
    // The machine stands.
    later.vcpu.resume();
    let until = Instant::now() + Duration::from_secs(20);
    while later.runs() < 1 {
        assert!(Instant::now() < until);
        std::thread::yield_now();
    }
    later.kernel.writes.lock().push_back(held(7));
    later.vcpu.request_pause();
    assert!(later.vcpu.wait_paused(Some(Duration::from_secs(20))));
    assert_eq!(got(&later), [(28, 7)]);
    // Another device lies there, and then nothing.
    later.kernel.writes.lock().push_back(held(1));
    let over = later.space.map_mmio(Gpa(SLOW), 0x1000, Arc::new(Bell), 1).unwrap();
    assert_eq!((later.vm.counts().held, got(&later).len()), (0, 0));
    drop(over);
    assert_eq!(later.vm.counts().held, 1);
    later._mappings.clear();
    assert_eq!(later.vm.counts().held, 0);
    // Before an access that ends guest code: by memory and by port, in order with it.
    for exit in [
        Exit::Mmio { address: SLOW + 0x20, len: 4, write: true, data: [9; 8] },
        Exit::Io { port: 0x80, size: 1, count: 1, write: true },
    ] {
        let last = matches!(exit, Exit::Mmio { .. });
        let machine = machine(Plan { exits: vec![exit], ..Plan::default() }, Irqchip::Kernel).unwrap();
        machine.kernel.writes.lock().push_back(held(3));
        machine.vcpu.resume();
        let until = Instant::now() + Duration::from_secs(20);
        while machine.runs() < 2 {
            assert!(Instant::now() < until);
            std::thread::yield_now();
        }
        let expected = [(12, 3), (0x20, 0x0909_0909)];
        assert_eq!(got(&machine), expected[..if last { 2 } else { 1 }]);
    }
    // A kernel that will not: nothing is held back.
    for call in ["hold_writes", "write_ring"] {
        let machine =
            machine(Plan { fail: Some((call, 1, libc::ENOSPC)), ..Plan::default() }, Irqchip::Kernel).unwrap();
        assert_eq!(machine.vm.counts().held, 0, "{call}");
    }
}

#[test]
fn rings_of_dirty_pages() {
    let plan = || Plan { dirty_ring: 4096, ..Plan::default() };
    let fails = |call, errno| Plan { fail: Some((call, 1, errno)), ..plan() };
    let machine_of = |plan| machine(plan, Irqchip::Machine);
    let good = machine_of(plan()).unwrap();
    good.ram.start_dirty_log(DirtyClient::Migration);
    // A page of the RAM, one behind it, one of a slot that is not there.
    good.kernel.pages.lock().extend([(0, 3), (0, 0x10), (0, u64::MAX), (77, 0)]);
    assert_eq!(good.ram.take_dirty(DirtyClient::Migration, 0, u64::MAX), [3]);
    let resets = |m: &Fake| m.kernel.counts.lock().get("reset_dirty_rings").copied().unwrap_or(0);
    assert_eq!(resets(&good), 1);
    assert!(good.ram.take_dirty(DirtyClient::Migration, 0, u64::MAX).is_empty());
    assert_eq!((resets(&good), good.kernel.counts.lock().get("dirty_log")), (1, None));
    // Taken before the slot goes.
    good.kernel.pages.lock().push_back((0, 5));
    let over = good.space.map_mmio(Gpa(0), 0x1000, Arc::new(Bell), 1).unwrap();
    assert_eq!(good.ram.take_dirty(DirtyClient::Migration, 0, u64::MAX), [5]);
    drop(over);
    // A ring that is full.
    let full = machine_of(Plan { exits: vec![Exit::DirtyRingFull], ..plan() }).unwrap();
    full.ram.start_dirty_log(DirtyClient::Migration);
    full.kernel.pages.lock().push_back((0, 9));
    full.vcpu.resume();
    let until = Instant::now() + Duration::from_secs(20);
    while resets(&full) == 0 {
        assert!(Instant::now() < until);
        std::thread::yield_now();
    }
    assert_eq!(full.ram.take_dirty(DirtyClient::Migration, 0, u64::MAX), [9]);
    // What the kernel refuses.
    let text = machine_of(Plan { dirty_ring: 0x2_0000, ..Plan::default() }).err().unwrap();
    assert!(text.contains("dirty-ring-size=131072: this kernel's rings have at most 65536 entries"), "{text}");
    let text = machine_of(fails("page_ring", libc::ENOMEM)).err().unwrap();
    assert!(text.contains("the ring of dirty pages") && text.lines().count() == 1, "{text}");
    let text = machine_of(fails("enable", libc::EIO)).err().unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    let fails = machine_of(fails("reset_dirty_rings", libc::EIO)).unwrap();
    fails.ram.start_dirty_log(DirtyClient::Migration);
    fails.kernel.pages.lock().push_back((0, 1));
    assert_eq!(fails.ram.take_dirty(DirtyClient::Migration, 0, u64::MAX), [1]);
    assert!(matches!(fails.requests.try_recv(), Ok(VmRequest::GuestPanic(t)) if t.contains("KVM_RESET_DIRTY_RINGS")));
    // Without rings there are bitmaps.
    let caps = [(kb::KVM_CAP_DIRTY_LOG_RING_ACQ_REL, 0), (kb::KVM_CAP_DIRTY_LOG_RING, 0)].into();
    let old = machine_of(Plan { caps, ..plan() }).unwrap();
    old.ram.start_dirty_log(DirtyClient::Migration);
    assert_eq!(old.ram.take_dirty(DirtyClient::Migration, 0, 16).len(), 16);
}

/// Guests that run guests of their own: only where the processor and the kernel can.
#[test]
fn guests_of_guests() {
    let resets = |m: &Fake| m.kernel.counts.lock().get("set_nested_state").copied().unwrap_or(0);
    let good = machine(Plan::default(), Irqchip::Kernel).unwrap();
    assert!(good.with(|cpu| cpu.config.has(Feature::Svm)));
    let before = resets(&good);
    good.live();
    assert!(resets(&good) > before, "a reset ends what runs inside");
    for plan in [
        Plan { no_svm: true, ..Plan::default() },
        Plan { caps: [(kb::KVM_CAP_NESTED_STATE, 0)].into(), ..Plan::default() },
    ] {
        let machine = machine(plan, Irqchip::Kernel).unwrap();
        machine.live();
        assert!(!machine.with(|cpu| cpu.config.has(Feature::Svm)));
        assert_eq!((resets(&machine), machine.kernel.counts.lock().get("nested_state")), (0, None));
        assert_eq!(machine.requests.try_recv().ok(), None);
    }
}

#[test]
fn files_of_assigned_devices() {
    let machine_of = |fail| machine(Plan { fail, ..Plan::default() }, Irqchip::Kernel).unwrap();
    let told = |m: &Fake| std::mem::take(&mut *m.kernel.files.lock());
    let made = |m: &Fake| m.kernel.counts.lock().get("create_vfio").copied().unwrap_or(0);
    let good = machine_of(None);
    // Whoever asks tells the same device of the kernel's, which is made when it is needed.
    let assigned = || good.vm.services().assigned.unwrap();
    assert_eq!((made(&good), told(&good)), (0, vec![]));
    assigned().added(40);
    assigned().added(41);
    assigned().removed(40);
    // One that is not there, and one that comes again under the same number.
    assigned().removed(77);
    assigned().removed(40);
    assigned().added(40);
    assert_eq!(told(&good), [("add", 40), ("add", 41), ("remove", 40), ("add", 40)]);
    assert_eq!(made(&good), 1);
    // A kernel without: it is not asked again.
    for errno in [libc::ENODEV, libc::ENOTTY, libc::EMFILE] {
        let without = machine_of(Some(("create_vfio", 1, errno)));
        let assigned = without.vm.services().assigned.unwrap();
        assigned.added(40);
        assigned.added(41);
        assigned.removed(40);
        assert_eq!((made(&without), told(&without)), (1, vec![]));
    }
    // One that it does not take is not taken back.
    let refusing = machine_of(Some(("vfio_add", 1, libc::EBADF)));
    let assigned = refusing.vm.services().assigned.unwrap();
    assigned.added(40);
    assigned.added(41);
    assigned.removed(40);
    assigned.removed(41);
    assert_eq!(told(&refusing), [("add", 41), ("remove", 41)]);
}
