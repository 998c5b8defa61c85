//! Bare programs under every accelerator: what they do is the same. Skipped, with a line that says why, where there is no KVM.
#![cfg(target_arch = "x86_64")]

mod bench;
mod code;

use bench::{ALL, Bench, Under};
use parking_lot::Mutex;
use rhea_accel::{ShutdownCause, VmRequest};
use rhea_kvm::x86::{Irqchip, X86Vm};
use rhea_memory::{Access, BusError, DirtyClient, Gpa, HeldWrites, MmioDevice, RamBlock};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pages that the program `sweeper` writes to.
const SWEPT: u64 = 3000;

type Words = Vec<(u16, u8, u32)>;

/// Programs, processors, and what they say at last.
fn table() -> Vec<(&'static str, &'static [u8], u32, Words)> {
    let w = |port, value| (port, 2, value);
    let d = |port, value| (port, 4, value);
    let b = |port, value| (port, 1, value);
    vec![
        (
            "real",
            code::real(),
            1,
            vec![
                w(0x700, 0x5555),
                w(0x700, 55),
                d(0x701, 0x1122_3344),
                b(0x701, 0x11),
                b(0x702, 1),
                b(0x702, 2),
                b(0x702, 3),
                w(0x702, 0x0404),
                w(0x702, 0x0505),
                d(0x702, 0x0606_0606),
                w(0x703, 0x1_2345 / 7),
                w(0x703, 0x1_2345 % 7),
                b(0x703, 1),
                w(0x703, 1),
                w(0x704, 0x60),
                w(0x704, 0xdead),
            ],
        ),
        (
            "protected",
            code::protected(),
            1,
            vec![
                d(0x700, 2 * 0xcafe + 5),
                b(0x700, 3),
                w(0x700, 0x1312),
                d(0x700, 0x2726_2524),
                d(0x700, 0x3433_3231),
                w(0x700, 0x4443),
                d(0x700, 0x9392_9190),
                d(0x700, u32::from_le_bytes(*b"read")),
                d(0x700, u32::from_le_bytes(*b"read")),
                d(0x700, u32::MAX),
            ],
        ),
        (
            "long",
            code::long(),
            1,
            vec![
                d(0x700, 0xdef0_1234),
                d(0x700, 0x5678_9abc),
                d(0x700, 0x0b0a_0908),
                d(0x700, 0x0f0e_0d0c),
                d(0x700, 0x1f1e_1d1c),
                d(0x700, 0x2322_2120),
                d(0x700, 0x500),
                d(0x701, 0x55),
                d(0x702, 7),
                d(0x702, 3),
                d(0x702, 9),
            ],
        ),
        (
            "interrupts",
            code::interrupts(),
            1,
            vec![
                w(0x700, 1),
                w(0x700, 0x101),
                w(0x700, 0x102),
                w(0x700, 0x103),
                w(0x700, 0x104),
                w(0x700, 0x105),
                w(0x701, 5),
                w(0x702, 0x3333),
            ],
        ),
        ("levels", code::levels(), 1, vec![d(0x700, 0x8050), d(0x700, 0x8051), d(0x700, 4)]),
        ("apics", code::apics(), 2, vec![d(0x700, 0), w(0x702, 0x800), d(0x701, 3)]),
    ]
}

/// What memory and devices have seen at the end.
fn traces(bench: &Bench) -> (Vec<(u64, u8, u64)>, Vec<u8>) {
    let mut bytes = vec![0; 0x7000];
    bench.ram.read(0x8000, &mut bytes).unwrap();
    (bench.device.0.lock().clone(), bytes)
}

#[test]
fn programs_do_the_same() {
    let kvm = bench::kvm().is_some();
    for (name, program, cpus, expected) in table() {
        let mut first = None;
        for under in ALL.into_iter().filter(|u| kvm || *u == Under::Jit) {
            let in_kernel = matches!(under, Under::Kvm(Irqchip::Kernel | Irqchip::Split));
            if name == "levels" && in_kernel && !rhea_kvm::x86::has_extensions() {
                println!(
                    "skipped: {name} under {under:?}: without virtualization extensions it sees the end of interrupts late"
                );
                continue;
            }
            println!("{name} under {under:?}");
            let bench = Bench::new(under, cpus, program);
            let said = bench.run();
            assert_eq!(said, expected, "{name} under {under:?}: {said:x?}");
            let traces = traces(&bench);
            let first = first.get_or_insert_with(|| traces.clone());
            assert_eq!(first.0, traces.0, "{name} under {under:?}: writes to the device");
            assert!(first.1 == traces.1, "{name} under {under:?}: memory");
        }
    }
}

#[test]
fn a_triple_fault_resets() {
    let kvm = bench::kvm().is_some();
    for under in ALL.into_iter().filter(|u| kvm || *u == Under::Jit) {
        println!("{under:?}");
        let bench = Bench::new(under, 1, code::triple_fault());
        bench.resume();
        let asked = bench.requests.recv_timeout(Duration::from_secs(30));
        assert_eq!(asked, Ok(VmRequest::Reset(ShutdownCause::Guest)), "{under:?}");
        // And after a reset it runs again.
        bench.pause();
        bench.ram.write(bench::PROGRAM.into(), code::real()).unwrap();
        bench.with(0, |cpu| {
            use rhea_ir::guest::Guest;
            use rhea_x86::{Seg, Segment};
            cpu.reset();
            cpu.set_segment(Seg::Cs, Segment { attr: 0x9b, ..Segment::real(0, 0) });
            cpu.r[4] = 0x7000;
            cpu.set_eip(bench::PROGRAM.into());
            cpu.rebuild_mode();
        });
        assert_eq!(bench.run().len(), 16, "{under:?}");
    }
}

/// The state comes out as it went in, through the kernel and back, after guest code ran on it.
#[test]
fn registers_come_back() {
    let Some(_) = bench::kvm() else { return };
    for irqchip in [Irqchip::Machine, Irqchip::Split, Irqchip::Kernel] {
        let bench = Bench::new(Under::Kvm(irqchip), 1, code::spinner());
        let set = bench.with(0, |cpu| {
            cpu.r = std::array::from_fn(|n| 0x1111 * n as u64);
            cpu.r[4] = 0x7000;
            cpu.xmm = std::array::from_fn(|n| u128::MAX / (n as u128 + 2));
            cpu.x87.set_control_word(0x27f);
            cpu.x87.set_status_word(0x3800);
            cpu.x87.significand = std::array::from_fn(|n| 0x8000_0000_0000_0000 | n as u64);
            cpu.x87.sign_exponent = [0x3fff; 8];
            cpu.x87.set_abridged_tags(0x81);
            cpu.set_mxcsr(0x9f80);
            cpu.cr2 = 0x1234_5000;
            cpu.dr[0] = 0x7777;
            for (msr, value) in
                [(0xc000_0082, 0x1234), (0xc000_0102, 0x5678), (0x174, 8), (0x277, 0x0007_0406_0007_0406)]
            {
                *cpu.plain_msr(msr).unwrap() = value;
            }
            cpu.save_state()
        });
        let before = Instant::now();
        bench.resume();
        while bench.ram.load(0x6000, 4).unwrap() < 50 {
            assert!(before.elapsed() < Duration::from_secs(30), "{irqchip:?}: nothing runs");
            std::thread::yield_now();
        }
        bench.pause();
        let mut got = bench.with(0, |cpu| {
            let msrs = [0xc000_0082, 0xc000_0102, 0x174].map(|n| *cpu.plain_msr(n).unwrap());
            assert_eq!(msrs, [0x1234, 0x5678, 8]);
            cpu.save_state()
        });
        // The program counts.
        assert!(got.r[1] >= 50, "{irqchip:?}");
        (got.r[1], got.pc, got.rflags) = (set.r[1], set.pc, set.rflags);
        assert_eq!(got, set, "{irqchip:?}");
    }
}

#[test]
fn pause_and_requests_are_seen_at_once() {
    let Some(_) = bench::kvm() else { return };
    let bench = Bench::new(Under::Kvm(Irqchip::Kernel), 1, code::spinner());
    for _ in 0..100 {
        bench.resume();
        let pc = bench.with(0, |cpu| cpu.eip());
        assert!((0x1000..0x1020).contains(&pc), "{pc:#x}");
        bench.pause();
    }
    // Each time one signal for the request at most, and one for the pause.
    let kicks = bench.kvm.as_ref().unwrap().counts().kicks;
    assert!(kicks <= 220, "{kicks}");
}

/// By bitmaps, by rings.
#[test]
fn dirty_pages() {
    let Some(_) = bench::kvm() else { return };
    for ring in [0, 1024] {
        let bench = Bench::with_ring(Under::Kvm(Irqchip::Kernel), 1, code::writer(), ring);
        bench.ram.start_dirty_log(DirtyClient::Migration);
        assert!(bench.ram.take_dirty(DirtyClient::Migration, 0, u64::MAX).is_empty());
        bench.run();
        let expected: Vec<u64> = (0..16).map(|n| 0x20 + 2 * n).collect();
        let found = bench.ram.take_dirty(DirtyClient::Migration, 0x20, 0x60);
        assert_eq!(found, expected, "{ring}");
        assert!(bench.ram.take_dirty(DirtyClient::Migration, 0x20, 0x60).is_empty());
        bench.ram.stop_dirty_log(DirtyClient::Migration);
    }
}

/// A ring that is too small for what the guest writes: none of it is lost.
#[test]
fn full_rings_of_dirty_pages() {
    let Some(_) = bench::kvm() else { return };
    let bench = Bench::with_ring(Under::Kvm(Irqchip::Kernel), 1, code::sweeper(), 1024);
    bench.ram.start_dirty_log(DirtyClient::Migration);
    let more = RamBlock::anonymous("more", SWEPT * 4096).unwrap();
    let _mapping = bench.space.map_ram(Gpa(0x10_0000), &more, 0, SWEPT * 4096, 0).unwrap();
    more.start_dirty_log(DirtyClient::Migration);
    bench.run();
    let found = more.take_dirty(DirtyClient::Migration, 0, u64::MAX);
    let lost: Vec<_> = (0..SWEPT).filter(|n| !found.contains(n)).collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert!(bench.requests.is_empty());
}

/// A device whose writes are held back.
#[derive(Default)]
struct Slow(HeldWrites, Mutex<Vec<(u64, u8, u64)>>);

impl MmioDevice for Slow {
    fn read(&self, _: u64, _: Access) -> Result<u64, BusError> {
        Ok(self.1.lock().len() as u64)
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        self.1.lock().push((offset, access.size, value));
        Ok(())
    }
    fn held_writes(&self) -> Option<&HeldWrites> {
        Some(&self.0)
    }
}

#[test]
fn held_writes_come_before_the_next_access() {
    let Some(_) = bench::kvm() else { return };
    let bench = Bench::new(Under::Kvm(Irqchip::Kernel), 1, code::rings());
    let vm = bench.kvm.as_ref().unwrap();
    let slow = Arc::new(Slow::default());
    let _mapping = bench.space.map_mmio(Gpa(bench::DEVICE), 0x1000, slow.clone(), 1).unwrap();
    assert_eq!(vm.counts().held, 1);
    bench.run();
    let expected: Vec<_> = [5, 4, 3, 2, 1].into_iter().map(|n| (0x100, 2, n)).chain([(0x102, 2, 0)]).collect();
    assert_eq!(*slow.1.lock(), expected);
    // The port that says that it is done, and what ends a pause.
    let exits = vm.counts().exits;
    assert!(exits <= 4, "{exits}");
}

/// Memory that comes, goes and turns read-only while the guest runs on.
#[test]
fn slots_follow_the_memory_map() {
    let Some(_) = bench::kvm() else { return };
    let bench = Bench::new(Under::Kvm(Irqchip::Kernel), 1, code::spinner());
    let vm = bench.kvm.as_ref().unwrap();
    let slots = vm.counts().slots;
    bench.resume();
    for n in 0..200 {
        let gpa = rhea_memory::Gpa(0x10_0000 + n * 0x1000);
        let mapping = if n % 2 == 0 {
            bench.space.map_ram(gpa, &bench.ram, 0, 0x1000, 0)
        } else {
            // Over what the program writes to; read-only there for a moment.
            bench.space.map_rom(rhea_memory::Gpa(0x7000), &bench.ram, 0x7000, 0x1000, 1)
        };
        assert!(vm.counts().slots > slots);
        drop(mapping.unwrap());
        assert_eq!(vm.counts().slots, slots);
    }
    let count = bench.ram.load(0x6000, 4).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert!(bench.ram.load(0x6000, 4).unwrap() > count, "the guest runs on");
    assert!(bench.requests.is_empty(), "{:?}", bench.requests.try_recv());
}

/// An eventfd: Linux gives a file that counts.
fn eventfd() -> std::fs::File {
    vmm_sys_util::eventfd::EventFd::new(libc::EFD_NONBLOCK)
        .map(|e| {
            use std::os::fd::{FromRawFd, IntoRawFd};
            #[expect(unsafe_code, reason = "the file descriptor changes its owner")]
            // SAFETY: it is given up by the one and taken by the other.
            unsafe {
                std::fs::File::from_raw_fd(e.into_raw_fd())
            }
        })
        .unwrap()
}
fn count(mut file: &std::fs::File) -> u64 {
    let mut word = [0; 8];
    file.read_exact(&mut word).map_or(0, |()| u64::from_ne_bytes(word))
}

#[test]
fn doorbells_and_interrupts_of_eventfds() {
    let Some(_) = bench::kvm() else { return };
    let bench = Bench::new(Under::Kvm(Irqchip::Kernel), 1, code::events());
    let services = rhea_accel::Accelerator::services(&**bench.kvm.as_ref().unwrap());
    let (irqfd, io) = (services.irqfd.unwrap(), services.ioeventfd.unwrap());
    let (any, three, trigger, resample) = (eventfd(), eventfd(), eventfd(), eventfd());
    let at = rhea_memory::Gpa(bench::DEVICE + 0x100);
    io.attach(at, 2, Some(3), three.as_fd()).unwrap();
    assert!(io.attach(at, 2, Some(3), three.as_fd()).is_err(), "twice");
    let line = bench.routing.line(bench::LINE);
    irqfd.attach(&line, trigger.as_fd(), Some(resample.as_fd())).unwrap();
    assert!(irqfd.attach(&rhea_accel::IrqLine::unconnected(), any.as_fd(), None).is_err());
    bench.resume();
    while bench.said().is_empty() {
        std::thread::yield_now();
    }
    // A level: raised by the trigger, lowered by the kernel at each end of interrupt, and told here.
    for n in 1..=3 {
        (&trigger).write_all(&1u64.to_ne_bytes()).unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        while count(&resample) == 0 {
            assert!(Instant::now() < until, "no end of interrupt {n}: {:?}", bench.requests.try_recv());
            std::thread::yield_now();
        }
    }
    bench.wait_done(1);
    bench.pause();
    assert_eq!(bench.said()[1..], [(0x700, 2, 3)]);
    assert_eq!(count(&three), 1);
    // The others went to the device.
    let seen: Vec<u64> = bench.device.0.lock().iter().filter(|w| w.0 == 0x100).map(|w| w.2).collect();
    assert_eq!(seen, [5, 4, 2, 1]);
    io.detach(at, 2, Some(3), three.as_fd()).unwrap();
    assert!(io.detach(at, 2, Some(3), three.as_fd()).is_err(), "gone");
    irqfd.detach(&line, trigger.as_fd()).unwrap();
}

/// A device with a doorbell: what it is written, and whether by a processor.
#[derive(Default)]
struct Bell(Mutex<Vec<(u64, u64, bool)>>);

impl MmioDevice for Bell {
    fn read(&self, _: u64, _: Access) -> Result<u64, BusError> {
        Ok(0)
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        self.0.lock().push((offset, value, access.cpu_index().is_some()));
        Ok(())
    }
    fn doorbells(&self) -> Vec<u64> {
        vec![0x100, 0x2000]
    }
}

#[test]
fn declared_doorbells_do_not_end_guest_code() {
    let Some(_) = bench::kvm() else { return };
    for irqchip in [Irqchip::Kernel, Irqchip::Split, Irqchip::Machine] {
        let bench = Bench::new(Under::Kvm(irqchip), 1, code::rings());
        let vm = bench.kvm.as_ref().unwrap();
        assert_eq!(vm.counts().doorbells, 0);
        let bell = Arc::new(Bell::default());
        let mapping = bench.space.map_mmio(Gpa(bench::DEVICE), 0x1000, bell.clone(), 1).unwrap();
        // The other one is outside of what is mapped.
        assert_eq!(vm.counts().doorbells, 1);
        // When it stands, all that was rung is done.
        bench.run();
        let seen = bell.0.lock().clone();
        assert_eq!(seen.iter().filter(|w| w.2).collect::<Vec<_>>(), [&(0x102, 0, true)]);
        assert!((1..=5).contains(&seen.iter().filter(|w| w.0 == 0x100).count()), "{seen:?}");
        drop(mapping);
        assert_eq!(vm.counts().doorbells, 0);
    }
}

/// Messages get numbers, the same ones the same number, and give them back.
#[test]
fn message_routes_are_used_again() {
    let Some(_) = bench::kvm() else { return };
    let bench = Bench::new(Under::Kvm(Irqchip::Kernel), 1, code::spinner());
    let vm = bench.kvm.as_ref().unwrap();
    let irqfd = rhea_accel::Accelerator::services(&**vm).irqfd.unwrap();
    let message = |data| rhea_accel::MsiMessage { address: 0xfee0_0000, data, requester_id: 0 };
    let fds: Vec<_> = (0..8).map(|_| eventfd()).collect();
    for round in 0..3 {
        for (n, fd) in fds.iter().enumerate() {
            irqfd.attach_msi(message(0x40 + n as u32 / 2), fd.as_fd()).unwrap();
        }
        assert_eq!(vm.kernel_chips().unwrap().message_routes(), 4, "round {round}");
        for (n, fd) in fds.iter().enumerate() {
            irqfd.detach_msi(message(0x40 + n as u32 / 2), fd.as_fd()).unwrap();
        }
        assert_eq!(vm.kernel_chips().unwrap().message_routes(), 0, "round {round}");
        assert!(irqfd.detach_msi(message(0x40), fds[0].as_fd()).is_err());
    }
}

#[test]
fn two_machines_at_once() {
    let Some(_) = bench::kvm() else { return };
    let benches = [Irqchip::Kernel, Irqchip::Machine].map(|i| Bench::new(Under::Kvm(i), 1, code::interrupts()));
    benches.iter().for_each(Bench::resume);
    benches.iter().for_each(|b| b.wait_done(1));
    assert_eq!(benches[0].said(), benches[1].said());
}

/// Whether this host's KVM is fit for kernels is its own business; the answer comes soon, and says why not.
#[test]
fn the_probe_answers() {
    let Some(kvm) = bench::kvm() else { return };
    let start = Instant::now();
    let ran = rhea_kvm::x86::run_program(&kvm);
    if rhea_kvm::x86::has_extensions() {
        assert!(ran.is_ok(), "{ran:?}");
        assert!(rhea_kvm::x86::probe(&kvm, Irqchip::Kernel).is_ok());
    }
    match ran {
        Ok(()) => println!("fit"),
        Err(e) => {
            let text = e.to_string();
            println!("unfit: {text}");
            assert!(text.lines().count() == 1 && matches!(e, rhea_kvm::KvmError::Unfit(_)), "{text}");
        }
    }
    println!("{:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(10));
}
