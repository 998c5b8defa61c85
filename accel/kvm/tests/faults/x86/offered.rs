//! What only some kernels offer, and what a machine does without it.

use super::*;
use rhea_accel::Accelerator;
use rhea_kvm::sys::HeldWrite;

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
    until(|| later.runs() >= 1);
    later.kernel.writes.lock().push_back(held(7));
    later.pause();
    assert_eq!(got(&later), [(28, 7)]);
    // Another device lies there, and then nothing.
    later.kernel.writes.lock().push_back(held(1));
    let over = later.space.map_mmio(Gpa(SLOW), 0x1000, Arc::new(crate::kernel::Bell), 1).unwrap();
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
        until(|| machine.runs() >= 2);
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
    let resets = |m: &Fake| m.kernel.count("reset_dirty_rings");
    assert_eq!(resets(&good), 1);
    assert!(good.ram.take_dirty(DirtyClient::Migration, 0, u64::MAX).is_empty());
    assert_eq!((resets(&good), good.kernel.count("dirty_log")), (1, 0));
    // Taken before the slot goes.
    good.kernel.pages.lock().push_back((0, 5));
    let over = good.space.map_mmio(Gpa(0), 0x1000, Arc::new(crate::kernel::Bell), 1).unwrap();
    assert_eq!(good.ram.take_dirty(DirtyClient::Migration, 0, u64::MAX), [5]);
    drop(over);
    // A ring that is full.
    let full = machine_of(Plan { exits: vec![Exit::DirtyRingFull], ..plan() }).unwrap();
    full.ram.start_dirty_log(DirtyClient::Migration);
    full.kernel.pages.lock().push_back((0, 9));
    full.vcpu.resume();
    until(|| resets(&full) > 0);
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
    let resets = |m: &Fake| m.kernel.count("set_nested_state");
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
        assert_eq!((resets(&machine), machine.kernel.count("nested_state")), (0, 0));
        machine.is_well();
    }
}

/// Tiles (AMX) need a state of more than a page, which must be permitted before there are processors.
#[test]
fn tiles_and_their_state() {
    let knows = |components, fail| Plan { components, fail, ..Plan::default() };
    let good = machine(knows(Some(TILES | 7), None), Irqchip::Kernel).unwrap();
    assert!(good.with(|cpu| cpu.config.has(Feature::AmxTile) && cpu.config.has(Feature::AmxInt8)));
    good.vcpu.resume();
    until(|| good.runs() >= 1);
    // What the guest has there comes back whole when something else of its state is changed.
    let tile = |n: usize| (n % 251) as u8 | 1;
    {
        let mut area = good.kernel.xsave.lock();
        area[512..520].copy_from_slice(&(TILES | 3).to_le_bytes());
        (TILES_AT..TILES_END).for_each(|n| area[n] = tile(n));
    }
    let before = good.kernel.count("set_xsave");
    good.with(|cpu| cpu.r[0] = 7);
    until(|| good.kernel.count("set_xsave") > before);
    let same = |area: &[u8]| (TILES_AT..TILES_END).all(|n| area[n] == tile(n)) && area[514] == 6;
    assert!(same(&good.kernel.xsave.lock()));
    // A reset clears it.
    let before = good.kernel.count("set_xsave");
    good.with(|cpu| {
        use rhea_ir::guest::Guest;
        cpu.reset();
    });
    until(|| good.kernel.count("set_xsave") > before);
    assert!(good.kernel.xsave.lock()[TILES_AT..].iter().all(|b| *b == 0) && good.kernel.xsave.lock()[514] == 0);
    good.is_well();
    // Refused, a host without, a kernel that does not know the question, one that knows it of programs only.
    for plan in [
        knows(Some(TILES | 7), Some(("permit_component", 1, libc::EPERM))),
        knows(Some(7), None),
        knows(None, None),
        knows(Some(TILES | 7), Some(("permit_component", 1, libc::EINVAL))),
    ] {
        let machine = machine(plan, Irqchip::Kernel).unwrap();
        machine.live();
        assert!(!machine.with(|cpu| cpu.config.has(Feature::AmxTile) || cpu.config.has(Feature::Xfd)));
        assert_eq!(machine.kernel.xsave.lock().len(), 4096);
        machine.is_well();
    }
}

/// Memory that guest code makes its own is out of reach for devices until it is shared again, or the machine is reset.
#[test]
fn memory_of_guest_code_alone() {
    use rhea_memory::{BusError, Requester};
    const PAGE: u64 = 0x1000;
    let call = |start, pages, attributes| Exit::Hypercall { number: 12, args: [start, pages, attributes, 0] };
    let plan = |exits: &[Exit]| Plan { private: true, exits: exits.to_vec(), ..Plan::default() };
    let run = |exits: &[Exit]| {
        let machine = machine(plan(exits), Irqchip::Split).unwrap();
        assert_eq!(machine.kernel.told.lock().drain(..).collect::<Vec<_>>(), ["slot 0x0 0x10000 at 0x0"]);
        machine.vcpu.resume();
        until(|| machine.runs() > exits.len() as u32 || !machine.requests.is_empty());
        machine
    };
    let told = |m: &Fake| std::mem::take(&mut *m.kernel.told.lock());
    let device = Requester::Host;
    let reads = |m: &Fake, at| m.space.read(Gpa(at), &mut [0; 16], device);
    let machine = run(&[call(0x4000, 3, 1 << 4), call(0x5000, 1, 0)]);
    assert_eq!(
        told(&machine),
        ["private 0x4000 0x3000", "answer 0", "shared 0x5000 0x1000", "free 0x5000 0x1000", "answer 0"]
    );
    for (page, refused) in [(3, false), (4, true), (5, false), (6, true), (7, false)] {
        let at = page * PAGE;
        let expected = if refused { Err(BusError::Refused) } else { Ok(()) };
        assert_eq!(reads(&machine, at), expected, "{at:#x}");
        assert_eq!(machine.space.write(Gpa(at), &[1; 8], device), expected, "{at:#x}");
        assert_eq!(machine.space.host_slice(Gpa(at), 16).is_none(), refused, "{at:#x}");
    }
    machine.is_well();
    // Not logged by the kernel: all of it may have changed.
    machine.ram.start_dirty_log(DirtyClient::Migration);
    assert_eq!(machine.ram.take_dirty(DirtyClient::Migration, 0, 16).len(), 16);
    machine.ram.stop_dirty_log(DirtyClient::Migration);
    // A reset gives all of it back.
    machine.vcpu.request_pause();
    machine.vm.reset_memory().unwrap();
    assert_eq!(told(&machine), ["shared 0x0 0x10000", "shared 0x20000 0x1000", "free 0x0 0x100000"]);
    assert_eq!((reads(&machine, 0x4000), reads(&machine, 0x6000)), (Ok(()), Ok(())));
    // Ranges that are none, of what is no RAM, read-only, or more than there is: the guest is told, and nothing happens.
    for exit in [
        call(0x4000, 0, 1 << 4),
        call(0x4001, 1, 1 << 4),
        call(0, 17, 1 << 4),
        call(0x2_0000, 1, 1 << 4),
        call(0xe_0000, 1, 1 << 4),
        call(0xffff_ffff_ffff_f000, 1, 0),
        call(0x1000, u64::MAX, 1 << 4),
        call(0x1000, 1 << 52, 1 << 4),
    ] {
        let machine = run(&[exit]);
        assert_eq!(told(&machine), ["answer -22"]);
        machine.is_well();
    }
    // An access that is not as the memory is makes it so; one that is, is an error, as is one to what cannot be.
    let fault = |address, private| Exit::MemoryFault { address, len: PAGE, private };
    let machine = run(&[fault(0x3000, true), fault(0x3000, false)]);
    assert_eq!(told(&machine), ["private 0x3000 0x1000", "shared 0x3000 0x1000", "free 0x3000 0x1000"]);
    machine.is_well();
    for exit in [fault(0x3000, false), fault(0x2_0000, true), fault(0xd_0000, true)] {
        assert!(run(&[exit]).panicked().contains("cannot be accessed"));
    }
    // What the kernel refuses.
    for (call, says) in
        [("create_private", "KVM_CREATE_GUEST_MEMFD"), ("enable", "KVM_CAP_"), ("create_vm", "KVM_CREATE_VM")]
    {
        let fail = Some((call, 1, libc::EINVAL));
        let text = super::machine(Plan { fail, ..plan(&[]) }, Irqchip::Machine).err().unwrap();
        assert!(text.contains(says) && text.lines().count() == 1, "{text}");
    }
    let fail = Some(("set_private", 1, libc::ENOMEM));
    let refuses = super::machine(Plan { fail, ..plan(&[call(0x4000, 1, 1 << 4)]) }, Irqchip::Machine).unwrap();
    refuses.vcpu.resume();
    assert!(refuses.panicked().contains("KVM_SET_MEMORY_ATTRIBUTES"));
    assert_eq!(reads(&refuses, 0x4000), Ok(()));
    // What it does not free stays there, unseen: the guest is answered all the same.
    let fail = Some(("free_private", 1, libc::ENOMEM));
    let exits = [call(0x4000, 1, 1 << 4), call(0x4000, 1, 0)];
    let keeps = super::machine(Plan { fail, ..plan(&exits) }, Irqchip::Machine).unwrap();
    keeps.vcpu.resume();
    until(|| keeps.runs() > 2);
    assert_eq!(told(&keeps).iter().filter(|t| *t == "answer 0").count(), 2);
    assert_eq!((keeps.count("free_private"), reads(&keeps, 0x4000)), (1, Ok(())));
    keeps.is_well();
    // And what it lacks.
    for (capability, has) in [
        (kb::KVM_CAP_VM_TYPES, 1),
        (kb::KVM_CAP_VM_TYPES, 0),
        (kb::KVM_CAP_GUEST_MEMFD, 0),
        (kb::KVM_CAP_MEMORY_ATTRIBUTES, 0),
        (kb::KVM_CAP_USER_MEMORY2, 0),
        (kb::KVM_CAP_EXIT_HYPERCALL, 1),
    ] {
        let text =
            super::machine(Plan { caps: [(capability, has)].into(), ..plan(&[]) }, Irqchip::Kernel).err().unwrap();
        assert!(text.contains("sw-protected-vm: this host's kernel lacks") && text.lines().count() == 1, "{text}");
    }
}

#[test]
fn files_of_assigned_devices() {
    let machine_of = |fail| machine(Plan { fail, ..Plan::default() }, Irqchip::Kernel).unwrap();
    let told = |m: &Fake| std::mem::take(&mut *m.kernel.files.lock());
    let made = |m: &Fake| m.kernel.count("create_vfio");
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
    // One that it does not give back is not asked for again, and may come anew.
    let keeping = machine_of(Some(("vfio_remove", 1, libc::ENOENT)));
    let assigned = keeping.vm.services().assigned.unwrap();
    assigned.added(40);
    assigned.removed(40);
    assigned.removed(40);
    assigned.added(40);
    assert_eq!(told(&keeping), [("add", 40), ("remove", 40), ("add", 40)]);
}
