//! A guest that means harm: random accesses to every device register and PCI configuration space,
//! malformed virtqueues, damaged device trees, hypercalls and calls of firmware with anything in
//! them. Whatever it does, no thread of the emulator panics or hangs, and after a reset the devices
//! work.

mod pseries;
mod q35;
mod state;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use rhea_accel::{VmControl, VmRequest};
use rhea_block::DriveOptions;
use rhea_clock::{RtcBase, RtcSource};
use rhea_device::Log;
use rhea_firmware::FdtNode;
use rhea_machine::accel::AccelKind;
use rhea_machine::config::{BoardOptions, BootOptions, DeviceSpec, MachineConfig, RamConfig};
use rhea_machine::options::Smp;
use rhea_machine::{Machine, Wiring};
use rhea_memory::view::FlatTarget;
use rhea_memory::{Access, AddressSpace, Backing, Gpa};
use rhea_tests::{Random, Scratch};

const RAM: u64 = 0x4000_0000;
const RAM_LEN: u64 = 64 << 20;
const SECTOR: [u8; 512] = [0xa7; 512];

/// How much longer than briefly to try: `RHEA_FUZZ=100` with `cargo test --test hostile` for a night.
fn times(rounds: u32) -> u32 {
    let factor = std::env::var("RHEA_FUZZ").ok().and_then(|n| n.parse::<u32>().ok()).unwrap_or(1);
    rounds.saturating_mul(factor)
}

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Runs `test` so that a panic of any thread, and standing still, make it fail.
fn watched(test: impl FnOnce() + Send + 'static) {
    // One after the other, or a panic of one would be that of another as well.
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::SeqCst);
            print(info);
        }));
    });
    let before = PANICS.load(Ordering::SeqCst);
    let (done, finished) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        test();
        let _ = done.send(());
    });
    if finished.recv_timeout(Duration::from_secs(300) * times(1)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
        eprintln!("the emulator stands still");
        // The thread can't be ended, and panicking would wait for nothing else.
        std::process::abort();
    }
    assert!(thread.join().is_ok(), "the test's thread panicked");
    assert_eq!(PANICS.load(Ordering::SeqCst), before, "a thread of the emulator panicked");
}

/// What is plugged into `virt`.
const VIRT_DEVICES: &[&str] = &[
    "virtio-rng-device",
    "virtio-blk-device,drive=a,num-queues=2",
    "virtio-net-device,netdev=n",
    "virtio-serial-device",
    "virtio-balloon-device",
    "virtio-rng-device,packed=on",
    "virtio-blk-pci,drive=b,packed=on",
    "virtio-net-pci,netdev=p,packed=on",
    "virtio-serial-pci",
    "virtio-rng-pci",
    "virtio-balloon-pci",
];

/// What a machine is made of: `-M` of it, `-device` of each device. Drives are `a`, `b` and so on, network back ends `n` and `p`.
fn config(scratch: &Scratch, options: &str, cpus: u32, drives: &[&str], devices: &[&str]) -> MachineConfig {
    let image = scratch.path(&format!("disk-{cpus}"));
    std::fs::write(&image, SECTOR.repeat(8192)).expect("a disk image");
    let drive =
        |text: &&str| DriveOptions::parse(&format!("{text},file={image},format=raw,snapshot=on")).expect("a drive");
    let device = |text: &&str| DeviceSpec::parse(text).expect("a device");
    MachineConfig {
        name: None,
        board: BoardOptions::parse(&[options.to_owned()], "virt").expect("machine options"),
        cpu: "max".to_owned(),
        smp: Smp::parse(&cpus.to_string()).expect("a number of CPUs"),
        ram: RamConfig { size: RAM_LEN, backing: Backing::Anonymous, prealloc: false },
        accel: AccelKind::Jit { code_bytes: None },
        kernel: None,
        initrd: None,
        append: None,
        dtb: None,
        bios: Some(scratch.file("firmware", &[0xf4; 0x1_0000]).into()).filter(|_| options.starts_with("q35")),
        boot: BootOptions::default(),
        fw_cfg: Vec::new(),
        uuid: [0; 16],
        smbios: Vec::new(),
        firmware_dirs: Vec::new(),
        vnc: Vec::new(),
        vga: None,
        globals: Vec::new(),
        blockdevs: Vec::new(),
        drives: drives.iter().map(drive).collect(),
        devices: devices.iter().map(device).collect(),
        netdevs: ["user,id=n,restrict=on", "user,id=p,restrict=on"].map(String::from).to_vec(),
        nics: Vec::new(),
        objects: Vec::new(),
        chardevs: Vec::new(),
        serials: Vec::new(),
        monitors: Vec::new(),
        no_defaults: true,
        prom_env: Vec::new(),
        max_ram: RAM_LEN,
        ram_slots: 0,
        snapshot: false,
        actions: Default::default(),
        load_snapshot: None,
        incoming: None,
        paused: true,
        icount: None,
        gdb: None,
        log_mask: 0,
        log_file: None,
        rtc: (RtcBase::Utc, RtcSource::Host),
        pid_file: None,
        perf_map: false,
    }
}

/// What a machine asks its main loop for.
type Requests = Receiver<VmRequest>;

/// A paused machine.
fn make(config: &MachineConfig, wiring: &Wiring) -> (Arc<Machine>, Requests) {
    let (control, requests) = VmControl::new();
    let log = Log::new(0, Box::new(std::io::sink()));
    let machine = rhea_machine::build(config, wiring, control, log).expect("a machine");
    machine.clock().start();
    (machine, requests)
}

fn build(scratch: &Scratch, options: &str, cpus: u32, drives: &[&str], devices: &[&str]) -> (Arc<Machine>, Requests) {
    make(&config(scratch, options, cpus, drives, devices), &Wiring::default())
}

fn machine(scratch: &Scratch, options: &str, cpus: u32) -> (Arc<Machine>, Requests) {
    build(scratch, &format!("virt,{options}"), cpus, &["if=none,id=a", "if=none,id=b"], VIRT_DEVICES)
}

/// Start and length of all windows of devices.
fn windows(space: &AddressSpace) -> Vec<(u64, u64)> {
    let view = space.view();
    let is_device = |target: &FlatTarget| match target {
        FlatTarget::Mmio(_) => true,
        FlatTarget::Ram(ram) => ram.writes.is_some(),
    };
    view.ranges().iter().filter(|r| is_device(&r.target)).map(|r| (r.range.start.0, r.range.len)).collect()
}

/// Random reads and writes all over the devices.
fn storm(machine: &Machine, random: &mut Random, cpus: u32, accesses: u32) {
    let space = machine.space();
    let mut all = windows(space);
    assert!(all.len() > 30, "{all:?}");
    for n in 0..accesses {
        if n % 4096 == 0 {
            // Writes to base address registers move windows.
            all = windows(space);
        }
        let (start, len) = *random.pick(&all);
        let size = *random.pick(&[1, 2, 4, 4, 4, 4, 8]);
        let offset = match random.below(4) {
            // Configuration space of the first functions, and the first registers of all devices.
            0 => random.below(32) << 15 | random.below(0x100),
            1 => random.below(0x200),
            2 => random.below(0x2_0000),
            _ => random.bits() >> 8,
        } % len;
        let offset = if random.once_in(8) { offset } else { offset & !u64::from(size - 1) };
        let mut access = match random.below(16) {
            0 => Access::device(random.below(0x1_0002) as u32, size),
            1 => Access::host(size),
            _ => Access::cpu(random.below(u64::from(cpus)) as u32, size),
        };
        access.secure = random.once_in(2);
        let value = match random.below(4) {
            0 => RAM + random.below(RAM_LEN),
            _ => random.edge(),
        };
        // Errors are an answer as good as any.
        if random.once_in(3) {
            let _ = space.load(Gpa(start + offset), access);
        } else {
            let _ = space.store(Gpa(start + offset), value, access);
        }
    }
}

/// Saving and loading state works in whatever state the guest has brought the devices.
fn save_and_load(machine: &Machine, kind: &str) {
    for device in machine.devices().iter().filter(|d| d.name().starts_with(kind)) {
        device.quiesce();
        let saved = device.save();
        if let Err(e) = device.load(&saved) {
            panic!("{}: {e}", device.name());
        }
        device.resume();
    }
}

fn registers_take_garbage(options: &'static str, cpus: u32, seed: u64) {
    watched(move || {
        let scratch = Scratch::new();
        let (machine, _requests) = machine(&scratch, options, cpus);
        let mut random = Random::new(seed);
        for round in 0..times(4) {
            storm(&machine, &mut random, cpus, 50_000);
            if round == 0 {
                save_and_load(&machine, "");
            }
            for topic in machine.topics().map(|(name, _)| name).collect::<Vec<_>>() {
                let _ = machine.info(topic);
            }
            machine.reset();
            machine.clock().start();
            devices_work(&machine);
        }
        machine.shut_down();
    });
}

#[test]
fn registers_take_garbage_with_gicv2() {
    registers_take_garbage("gic-version=2", 2, 1);
}

#[test]
fn registers_take_garbage_with_gicv2_secure_and_el2() {
    registers_take_garbage("gic-version=2,secure=on,virtualization=on", 4, 2);
}

#[test]
fn registers_take_garbage_with_gicv3() {
    registers_take_garbage("gic-version=3", 3, 3);
}

#[test]
fn registers_take_garbage_with_gicv3_secure_and_el2() {
    registers_take_garbage("gic-version=3,secure=on,virtualization=on", 2, 4);
}

/// Registers of virtio over MMIO (virtio 1.2, 4.2.2).
mod reg {
    pub const DEVICE_ID: u64 = 0x008;
    pub const DRIVER_FEATURES: u64 = 0x020;
    pub const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub const DEVICE_FEATURES: u64 = 0x010;
    pub const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub const QUEUE_SEL: u64 = 0x030;
    pub const QUEUE_NUM_MAX: u64 = 0x034;
    pub const QUEUE_NUM: u64 = 0x038;
    pub const QUEUE_READY: u64 = 0x044;
    pub const QUEUE_NOTIFY: u64 = 0x050;
    pub const STATUS: u64 = 0x070;
    pub const QUEUE_DESC: u64 = 0x080;
    pub const QUEUE_DRIVER: u64 = 0x090;
    pub const QUEUE_DEVICE: u64 = 0x0a0;
}

const PACKED: u32 = 1 << 2; // in the upper word of the features
const INDIRECT: u32 = 1 << 28;

/// A driver of one virtio-mmio device, good or bad.
struct Driver<'a> {
    space: &'a AddressSpace,
    base: u64,
}

impl<'a> Driver<'a> {
    /// Those of the machine, with their device ids.
    fn all(space: &'a AddressSpace) -> Vec<(u32, Self)> {
        let places = (0..32).map(|n| Self { space, base: 0x0a00_0000 + n * 0x200 });
        places.map(|d| (d.read(reg::DEVICE_ID), d)).filter(|(id, _)| *id != 0).collect()
    }

    fn read(&self, register: u64) -> u32 {
        self.space.load(Gpa(self.base + register), Access::cpu(0, 4)).expect("a register") as u32
    }

    fn write(&self, register: u64, value: u32) {
        self.space.store(Gpa(self.base + register), u64::from(value), Access::cpu(0, 4)).expect("a register");
    }

    fn features(&self, word: u32) -> u32 {
        self.write(reg::DEVICE_FEATURES_SEL, word);
        self.read(reg::DEVICE_FEATURES)
    }

    /// Reset to FEATURES_OK with these features.
    fn begin(&self, features: [u32; 2]) {
        self.write(reg::STATUS, 0);
        self.write(reg::STATUS, 1);
        self.write(reg::STATUS, 3);
        for (n, features) in features.into_iter().enumerate() {
            self.write(reg::DRIVER_FEATURES_SEL, n as u32);
            self.write(reg::DRIVER_FEATURES, features);
        }
        self.write(reg::STATUS, 11);
    }

    fn queue(&self, index: u32, size: u32, [desc, driver, device]: [u64; 3]) {
        self.write(reg::QUEUE_SEL, index);
        self.write(reg::QUEUE_NUM, size);
        for (register, address) in [(reg::QUEUE_DESC, desc), (reg::QUEUE_DRIVER, driver), (reg::QUEUE_DEVICE, device)] {
            self.write(register, address as u32);
            self.write(register + 4, (address >> 32) as u32);
        }
        self.write(reg::QUEUE_READY, 1);
    }

    /// One good request in queue 0: what is read by the device, and how much it may write; returns
    /// what it has written.
    fn request(&self, sent: &[u8], wanted: u32) -> Vec<u8> {
        let put = |address: u64, data: &[u8]| {
            self.space.write(Gpa(address), data, rhea_memory::Requester::Host).expect("memory");
        };
        let (rings, buffers) = (RAM + 0x1_0000, RAM + 0x2_0000);
        put(rings, &[0; 0x4000]);
        put(buffers, sent);
        let answer = buffers + 0x1000;
        put(answer, &vec![0; wanted as usize]);
        let descriptor = |address: u64, len: u32, flags: u16, next: u16| {
            [&address.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat()
        };
        if sent.is_empty() {
            put(rings, &descriptor(answer, wanted, 2, 0));
        } else {
            put(rings, &descriptor(buffers, sent.len() as u32, 1, 1));
            put(rings + 16, &descriptor(answer, wanted, 2, 0));
        }
        self.begin([0, 1]);
        self.queue(0, 8, [rings, rings + 0x1000, rings + 0x2000]);
        self.write(reg::STATUS, 15);
        put(rings + 0x1000, &[0, 0, 1, 0, 0, 0]);
        self.write(reg::QUEUE_NOTIFY, 0);
        let end = Instant::now() + Duration::from_secs(20);
        let mut used = [0; 12];
        loop {
            self.space.read(Gpa(rings + 0x2000), &mut used, rhea_memory::Requester::Host).expect("memory");
            if used[2] == 1 {
                break;
            }
            assert!(
                Instant::now() < end,
                "no answer of the device at {:#x}, status {:#x}",
                self.base,
                self.read(reg::STATUS)
            );
            std::thread::yield_now();
        }
        let mut written = vec![0; wanted as usize];
        self.space.read(Gpa(answer), &mut written, rhea_memory::Requester::Host).expect("memory");
        self.write(reg::STATUS, 0);
        written
    }
}

/// Entropy comes, and the disk can be read.
fn devices_work(machine: &Machine) {
    let drivers = Driver::all(machine.space());
    assert_eq!(drivers.len(), 6);
    for (id, driver) in drivers {
        match id {
            4 if driver.features(1) & PACKED == 0 => {
                let bytes = driver.request(&[], 64);
                assert!(bytes.iter().any(|b| *b != 0), "no entropy");
            }
            2 => {
                let last = driver.request(&[0; 16], 513);
                assert_eq!(last[512], 0, "the status of a read");
            }
            _ => {}
        }
    }
}

/// An address that a driver should not give, more often than not.
fn address(random: &mut Random, arena: u64) -> u64 {
    match random.below(12) {
        0 => RAM + RAM_LEN - random.below(64),
        1 => random.edge(),
        2 => 0x0900_0000 + random.below(0x2_0000),
        3 => 0x0a00_0000 + random.below(0x4000),
        4 => u64::MAX - random.below(0x1_0000),
        5 => RAM - random.below(64),
        6 => arena + random.below(0x1_0000),
        _ => arena + random.below(0x1000) * 16,
    }
}

/// Fills 64 KiB at `arena` with what might be descriptors, rings and requests.
fn fill(space: &AddressSpace, random: &mut Random, arena: u64, size: u64) {
    let mut data = Vec::with_capacity(0x1_0000);
    while data.len() < 0x1_0000 {
        match random.below(8) {
            // The header of a block request: type, reserved, sector.
            0 => {
                let kind = *random.pick(&[0_u32, 1, 4, 8, 11, 13, 99]);
                let sector = random.edge();
                data.extend([&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat());
            }
            // The head of a ring and some of its entries.
            1 => {
                let words = [
                    0,
                    random.below(2 * size + 2),
                    random.below(size),
                    random.below(2 * size),
                    0,
                    random.below(size),
                    0,
                    1,
                ];
                data.extend(words.iter().flat_map(|w| (*w as u16).to_le_bytes()));
            }
            2 => data.extend([random.bits().to_le_bytes(), random.bits().to_le_bytes()].concat()),
            3 => data.extend([0; 16]),
            _ => {
                let address = address(random, arena);
                let len = *random.pick(&[0_u32, 1, 12, 16, 16, 64, 512, 513, 1500, 4096, 0x1_0000, 0x2_0000, u32::MAX]);
                let packed = random.below(4) << 7 | random.below(4) << 14;
                let flags =
                    *random.pick(&[0_u64, 1, 2, 3, 4, 5, 6, 7, 0xffff]) | if random.once_in(2) { packed } else { 0 };
                let next = random.below(size + 2);
                data.extend(
                    [
                        &address.to_le_bytes()[..],
                        &len.to_le_bytes(),
                        &(flags as u16).to_le_bytes(),
                        &(next as u16).to_le_bytes(),
                    ]
                    .concat(),
                );
            }
        }
    }
    space.write(Gpa(arena), &data[..0x1_0000], rhea_memory::Requester::Host).expect("memory");
}

fn queues_take_garbage(seed: u64, mut choose: impl FnMut(&mut Random, [u32; 2]) -> [u32; 2] + Send + 'static) {
    watched(move || {
        let scratch = Scratch::new();
        let (machine, _requests) = machine(&scratch, "gic-version=3", 2);
        let mut random = Random::new(seed);
        let space = machine.space();
        for round in 0..times(1500) {
            let drivers = Driver::all(space);
            let (_, driver) = random.pick(&drivers);
            let arena = RAM + (1 << 20) + random.below(16) * 0x1_0000;
            let offered = [driver.features(0), driver.features(1)];
            let features = choose(&mut random, offered);
            driver.begin(features);
            let mut sizes = Vec::new();
            for index in 0..4 {
                driver.write(reg::QUEUE_SEL, index);
                let max = driver.read(reg::QUEUE_NUM_MAX);
                if max == 0 {
                    continue;
                }
                let size = match random.below(8) {
                    0 => random.edge() as u32,
                    1 => max,
                    2 => 1,
                    _ => 1 << random.below(5),
                };
                let mut place = || match random.below(10) {
                    0 => address(&mut random, arena),
                    _ => arena + random.below(0x800) * 16,
                };
                let rings = [place(), place(), place()];
                driver.queue(index, size, rings);
                sizes.push((size, rings[1]));
            }
            fill(space, &mut random, arena, 16);
            driver.write(reg::STATUS, 15);
            for _ in 0..random.below(12) {
                if let Some((size, ring)) = sizes.get(random.below(4) as usize)
                    && random.once_in(2)
                {
                    // A few new entries, or very many.
                    let index = if random.once_in(4) {
                        random.bits() as u16
                    } else {
                        random.below(u64::from((*size).clamp(1, 64))) as u16
                    };
                    let _ = space.write(Gpa(ring.wrapping_add(2)), &index.to_le_bytes(), rhea_memory::Requester::Host);
                }
                driver.write(reg::QUEUE_NOTIFY, random.below(5) as u32);
                match random.below(16) {
                    0 => fill(space, &mut random, arena, 8),
                    1 => save_and_load(&machine, "virtio"),
                    2 => {
                        let config = Gpa(driver.base + 0x100 + random.below(64));
                        let _ = space.store(config, random.edge(), Access::cpu(1, 1));
                    }
                    _ => {}
                }
            }
            match random.below(4) {
                0 => machine.reset(),
                1 => driver.write(reg::STATUS, 0),
                _ => {}
            }
            if round % 100 == 99 {
                machine.reset();
                machine.clock().start();
                devices_work(&machine);
            }
        }
        machine.shut_down();
    });
}

#[test]
fn split_queues_take_garbage() {
    queues_take_garbage(11, |_, offered| [offered[0], offered[1] & !PACKED]);
}

#[test]
fn queues_without_indirect_descriptors_take_garbage() {
    queues_take_garbage(12, |_, offered| [offered[0] & !INDIRECT, 1]);
}

#[test]
fn queues_with_any_features_take_garbage() {
    queues_take_garbage(13, |random, offered| match random.below(3) {
        0 => offered,
        1 => [offered[0] & random.bits() as u32, offered[1]],
        _ => [random.bits() as u32, random.bits() as u32],
    });
}

#[test]
fn damaged_device_trees_are_refused_or_read() {
    let mut root = FdtNode::default();
    root.u32("#address-cells", 2).string("compatible", "linux,dummy-virt").flag("dma-coherent");
    for n in 0..20 {
        let soc = root.child(format!("soc@{n}"));
        soc.child("uart@9000000").strings("clock-names", &["uartclk", "apb_pclk"]).cells("reg", &[0, n, 0, 0x1000]);
    }
    let good = root.to_blob().expect("a blob");
    assert_eq!(FdtNode::parse(&good).expect("the same tree"), root);
    let mut random = Random::new(21);
    let mut read = 0;
    for _ in 0..times(20_000) {
        let mut blob = good.clone();
        for _ in 0..=random.below(6) {
            let at = random.below(blob.len() as u64) as usize;
            match random.below(4) {
                0 => blob[at] = random.bits() as u8,
                1 => {
                    let at = at.min(blob.len() - 4) & !3;
                    let word = *random.pick(&[0_u32, 1, 2, 3, 4, 9, 0xd00d_feed, 0x7fff_ffff, u32::MAX]);
                    blob[at..at + 4].copy_from_slice(&word.to_be_bytes());
                }
                2 => {
                    let header = (random.below(10) * 4) as usize;
                    blob[header..header + 4].copy_from_slice(&(random.edge() as u32).to_be_bytes());
                }
                _ if random.once_in(8) => blob.truncate(at.max(40)),
                _ => {}
            }
        }
        if let Ok(tree) = FdtNode::parse(&blob) {
            read += 1;
            // Names that the format does not know are refused here; what is written is the same tree.
            if let Ok(again) = tree.to_blob() {
                assert_eq!(FdtNode::parse(&again), Ok(tree));
            }
        }
    }
    assert!(read > 100, "only {read} of the damaged trees could be read");
}
