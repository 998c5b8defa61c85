//! Registers, configuration space and storage queues of the PC.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rhea_machine::Machine;
use rhea_memory::{Access, AddressSpace, Gpa};
use rhea_tests::{Random, Scratch};

use super::{RAM_LEN, Requests, SECTOR, build, save_and_load, times, watched, windows};

/// What is plugged into `q35` besides what it has.
const Q35_DEVICES: &[&str] = &[
    "VGA",
    "bochs-display",
    "secondary-vga",
    "nvme,drive=n,serial=nvme,max_ioqpairs=4",
    "ahci,id=second",
    "ide-hd,drive=s,bus=second.1",
    "ide-cd,bus=second.2",
    "virtio-blk-pci,drive=v,packed=on",
    "virtio-net-pci,netdev=n",
    "virtio-serial-pci",
    "virtio-rng-pci",
    "virtio-balloon-pci",
    "isa-debug-exit",
    "pvpanic",
    "pc-testdev",
];

/// Those that not every version of the machine has, as far as this one does.
const Q35_OPTIONAL: &[&str] = &["qemu-xhci,id=usb", "usb-kbd", "usb-tablet", "e1000e,netdev=p", "pcie-root-port"];

pub(super) fn q35(scratch: &Scratch, options: &str, cpus: u32) -> (Arc<Machine>, Requests) {
    let known = |text: &&&str| {
        let name = text.split(',').next().unwrap_or(text);
        rhea_machine::devices::help_of(name).is_some()
    };
    let devices: Vec<&str> = Q35_DEVICES.iter().chain(Q35_OPTIONAL.iter().filter(known)).copied().collect();
    let drives = ["if=ide,index=0", "if=ide,index=1,media=cdrom", "if=none,id=n", "if=none,id=s", "if=none,id=v"];
    build(scratch, &format!("q35,{options}"), cpus, &drives, &devices)
}

/// The lowest bit that is set.
fn lowest(n: u32) -> u32 {
    n & n.wrapping_neg()
}

/// The machine of a PC as its ports and configuration space show it.
struct Pc<'a> {
    space: &'a AddressSpace,
    ports: &'a AddressSpace,
}

/// Memory that the arenas and rings of the q35 tests are in.
const Q35_ARENA: u64 = 1 << 20;
const ECAM: u64 = 0xb000_0000;
/// 1f.2
const CHIPSET_AHCI: u32 = 0x1f << 3 | 2;

impl<'a> Pc<'a> {
    fn new(machine: &'a Machine) -> Self {
        Self { space: machine.space(), ports: machine.ports().expect("a PC has ports") }
    }

    fn output(&self, port: u64, size: u8, value: u32) {
        let _ = self.ports.store(Gpa(port), u64::from(value), Access::cpu(0, size));
    }

    fn input(&self, port: u64, size: u8) -> u32 {
        self.ports.load(Gpa(port), Access::cpu(0, size)).unwrap_or(u64::MAX) as u32
    }

    fn config_read(&self, devfn: u32, at: u32) -> u32 {
        self.output(0xcf8, 4, 1 << 31 | devfn << 8 | at & 0xfc);
        self.input(0xcfc, 4)
    }

    fn config_write(&self, devfn: u32, at: u32, value: u32) {
        self.output(0xcf8, 4, 1 << 31 | devfn << 8 | at & 0xfc);
        self.output(0xcfc, 4, value);
    }

    fn functions(&self) -> Vec<u32> {
        (0..256).filter(|devfn| self.config_read(*devfn, 0) as u16 != 0xffff).collect()
    }

    /// What firmware does: the chipset's windows open, all BARs get addresses. The functions.
    fn set_up(&self) -> Vec<u32> {
        const LPC: u32 = 0x1f << 3;
        self.config_write(0, 0x64, 0);
        self.config_write(0, 0x60, ECAM as u32 | 1);
        self.config_write(LPC, 0x40, 0x601);
        self.config_write(LPC, 0x44, 0x80);
        self.config_write(LPC, 0xf0, 0xfed1_c001);
        let (mut memory, mut ports) = (0xc000_0000_u32, 0xc000_u32);
        let functions = self.functions();
        for devfn in &functions {
            let mut bar = 0x10;
            while bar < 0x28 {
                self.config_write(*devfn, bar, u32::MAX);
                let mask = self.config_read(*devfn, bar);
                let wide = mask & 7 == 4;
                let place = if mask & 1 != 0 { &mut ports } else { &mut memory };
                let size = lowest(mask & if mask & 1 != 0 { 0xfffc } else { !15 });
                if size != 0 {
                    *place = place.next_multiple_of(size);
                    self.config_write(*devfn, bar, *place);
                    *place += size;
                }
                if wide {
                    self.config_write(*devfn, bar + 4, 0);
                }
                bar += if wide { 8 } else { 4 };
            }
            self.config_write(*devfn, 0x30, 0xe000_0001);
            self.config_write(*devfn, 4, 0x507);
        }
        functions
    }

    fn bar(&self, devfn: u32, bar: u32) -> u64 {
        u64::from(self.config_read(devfn, 0x10 + bar * 4) & !15)
    }

    /// The functions of a class.
    fn of_class(&self, class: u32) -> Vec<u32> {
        self.functions().into_iter().filter(|f| self.config_read(*f, 8) >> 8 == class).collect()
    }

    fn put(&self, at: u64, data: &[u8]) {
        self.space.write(Gpa(at), data, rhea_memory::Requester::Host).expect("memory");
    }

    fn get<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut data = [0; N];
        self.space.read(Gpa(at), &mut data, rhea_memory::Requester::Host).expect("memory");
        data
    }

    fn store(&self, at: u64, value: u64) {
        let _ = self.space.store(Gpa(at), value & 0xffff_ffff, Access::cpu(0, 4));
    }

    fn load(&self, at: u64) -> u32 {
        self.space.load(Gpa(at), Access::cpu(0, 4)).unwrap_or(u64::MAX) as u32
    }

    /// The first sector of the first disk, through the chipset's AHCI controller.
    fn works(&self) {
        self.set_up();
        let registers = self.bar(CHIPSET_AHCI, 5);
        let port = registers + 0x100;
        let (list, received, table, data) = (Q35_ARENA, Q35_ARENA + 0x400, Q35_ARENA + 0x800, Q35_ARENA + 0x1000);
        self.put(list, &[0; 0x2000]);
        // READ DMA EXT of one sector at 0: a host-to-device FIS of five words, one entry of the PRDT.
        self.put(list, &[5, 0, 1, 0]);
        self.put(list + 8, &(table as u32).to_le_bytes());
        self.put(table, &[0x27, 0x80, 0x25, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 1, 0, 0, 0]);
        self.put(table + 0x80, &(data as u32).to_le_bytes());
        self.put(table + 0x8c, &511_u32.to_le_bytes());
        self.store(registers + 4, 1 << 31);
        for (register, value) in [(0, list), (4, 0), (8, received), (12, 0), (0x18, 0x16), (0x18, 0x17), (0x38, 1)] {
            self.store(port + register, value);
        }
        let end = Instant::now() + Duration::from_secs(20);
        while self.load(port + 0x38) != 0 {
            assert!(Instant::now() < end, "the disk does not answer: {:#x}", self.load(port + 0x20));
            std::thread::yield_now();
        }
        assert_eq!(self.get::<512>(data), SECTOR, "task file {:#x}", self.load(port + 0x20));
    }
}

/// A number that guests write: addresses in memory more often than not.
fn word(random: &mut Random) -> u64 {
    match random.below(4) {
        0 => Q35_ARENA + random.below(0x1000) * 16,
        1 => random.below(RAM_LEN),
        _ => random.edge(),
    }
}

/// Random accesses to all windows in `space`.
fn strike(space: &AddressSpace, all: &[(u64, u64)], random: &mut Random, cpus: u32) {
    let (start, len) = *random.pick(all);
    let size = *random.pick(&[1, 2, 4, 4, 4, 8]);
    let offset = match random.below(3) {
        0 => random.below(0x40),
        1 => random.below(0x1000),
        _ => random.bits() >> 8,
    } % len;
    let offset = if random.once_in(8) { offset } else { offset & !u64::from(size - 1) };
    let mut access = match random.below(16) {
        0 => Access::device(random.below(0x1_0002) as u32, size),
        1 => Access::host(size),
        _ => Access::cpu(random.below(u64::from(cpus)) as u32, size),
    };
    access.secure = random.once_in(8);
    if random.once_in(3) {
        let _ = space.load(Gpa(start + offset), access);
    } else {
        let _ = space.store(Gpa(start + offset), word(random), access);
    }
}

/// One fw_cfg DMA request (control, length and address big-endian), good or bad.
fn fw_cfg_dma(pc: &Pc<'_>, random: &mut Random) {
    let at = if random.once_in(8) { word(random) } else { Q35_ARENA + random.below(0x1000) * 8 };
    let control = (random.below(0x40) << 16 | random.below(0x20)) as u32;
    let length = *random.pick(&[0_u32, 1, 4, 16, 4096, 0x10_0000, u32::MAX]);
    let request = [&control.to_be_bytes()[..], &length.to_be_bytes(), &word(random).to_be_bytes()].concat();
    let _ = pc.space.write(Gpa(at), &request, rhea_memory::Requester::Host);
    pc.output(0x514, 4, ((at >> 32) as u32).swap_bytes());
    pc.output(0x518, 4, (at as u32).swap_bytes());
}

/// Queues of AHCI and NVMe controllers full of what might be commands.
fn storage_takes_garbage(pc: &Pc<'_>, random: &mut Random, rounds: u32) {
    let (controllers, disks) = (pc.of_class(0x01_0601), pc.of_class(0x01_0802));
    assert_eq!((controllers.len(), disks.len()), (2, 1));
    for _ in 0..rounds {
        pc.set_up();
        let mut data = vec![0; 0x1_0000];
        for chunk in data.chunks_exact_mut(8) {
            let value = match random.below(8) {
                0..=2 => word(random),
                // A command FIS, an ATAPI command, an NVMe command, the header of a command.
                3 => {
                    u64::from(*random.pick(&[0x27_u32, 0x8027, 0x25_8027, 0x35_8027, 0x60_8027, 0xa0_8027, 0xec_8027]))
                }
                4 => {
                    *random.pick(&[0x0000_0028_u64, 0x25, 0x43, 0x4a, 0x46, 0x5a, 0xbe, 0x12]) | random.below(99) << 32
                }
                5 => random.below(0x20) | random.below(0x100) << 16 | 1 << 32,
                6 => random.below(0x100) | random.below(8) << 16 | Q35_ARENA << 32,
                _ => 0,
            };
            chunk.copy_from_slice(&value.to_le_bytes());
        }
        pc.put(Q35_ARENA, &data);
        let place = |random: &mut Random| match random.below(8) {
            0 => word(random),
            _ => Q35_ARENA + random.below(0x3f) * 0x400,
        };
        let ahci = pc.bar(*random.pick(&controllers), 5);
        pc.store(ahci + 4, 1 << 31 | random.below(4));
        let port = ahci + 0x100 + random.below(3) * 0x80;
        for register in [0, 8] {
            let at = place(random);
            pc.store(port + register, at);
            pc.store(port + register + 4, if random.once_in(8) { at >> 32 } else { 0 });
        }
        pc.store(port + 0x14, random.bits());
        pc.store(port + 0x18, 0x16);
        pc.store(port + 0x18, 0x17);
        let nvme = pc.bar(disks[0], 0);
        pc.store(nvme + 0x14, 0);
        pc.store(nvme + 0x24, if random.once_in(4) { random.edge() } else { 0x000f_000f });
        for register in [0x28, 0x30] {
            let at = place(random) & !0xfff;
            pc.store(nvme + register, at);
            pc.store(nvme + register + 4, if random.once_in(8) { at >> 32 } else { 0 });
        }
        pc.store(nvme + 0x14, 0x46_0001);
        for _ in 0..random.below(30) {
            match random.below(6) {
                0 | 1 => pc.store(nvme + 0x1000 + random.below(8) * 4, random.below(20)),
                2 | 3 => pc.store(port + 0x38, random.bits()),
                4 => pc.store(port + *random.pick(&[0x10, 0x18, 0x2c, 0x30, 0x34]), random.edge()),
                _ => pc.store(nvme + random.below(0x10) * 4, random.edge()),
            }
        }
    }
}

fn pc_takes_garbage(options: &'static str, cpus: u32, seed: u64) {
    watched(move || {
        let scratch = Scratch::new();
        let (machine, _requests) = q35(&scratch, options, cpus);
        let mut random = Random::new(seed);
        let pc = Pc::new(&machine);
        pc.works();
        for round in 0..times(3) {
            let (mut functions, mut memory, mut ports) = (Vec::new(), Vec::new(), Vec::new());
            for n in 0..30_000 {
                if n % 2048 == 0 {
                    // What the guest does to BARs and to the chipset takes windows away.
                    functions = pc.set_up();
                    ports = windows(pc.ports);
                    ports.push((0, 0x1_0000));
                }
                if n % 512 == 0 {
                    memory = windows(pc.space);
                    assert!(memory.len() > 3, "{memory:?}");
                }
                match random.below(16) {
                    0..=7 => strike(pc.space, &memory, &mut random, cpus),
                    8..=12 => strike(pc.ports, &ports, &mut random, cpus),
                    13 if random.once_in(8) => fw_cfg_dma(&pc, &mut random),
                    n => {
                        let devfn =
                            if random.once_in(16) { random.below(256) as u32 } else { *random.pick(&functions) };
                        let at = random.below(0x100) as u32;
                        let value = word(&mut random) as u32;
                        if n == 15 {
                            let at = ECAM + (u64::from(devfn) << 12) + random.below(0x1000);
                            let _ = pc.space.store(Gpa(at), u64::from(value), Access::cpu(0, 1));
                        } else if random.once_in(2) {
                            pc.config_write(devfn, at, value);
                        } else {
                            pc.config_read(devfn, at);
                        }
                    }
                }
            }
            storage_takes_garbage(&pc, &mut random, 60);
            if round == 0 {
                save_and_load(&machine, "");
            }
            for topic in machine.topics().map(|(name, _)| name).collect::<Vec<_>>() {
                let _ = machine.info(topic);
            }
            machine.reset();
            machine.clock().start();
            pc.works();
        }
        machine.shut_down();
    });
}

#[test]
fn pc_with_one_processor_takes_garbage() {
    pc_takes_garbage("smm=on", 1, 51);
}

#[test]
fn pc_with_two_processors_takes_garbage() {
    pc_takes_garbage("smm=off,hpet=off", 2, 52);
}

#[test]
fn pc_with_four_processors_takes_garbage() {
    pc_takes_garbage("smm=on", 4, 53);
}
