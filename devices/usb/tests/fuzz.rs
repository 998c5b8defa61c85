//! Hostile guests: random registers, random memory, rings and contexts half right. Nothing may panic, hang or write outside the
//! guest's memory; afterwards a reset makes the controller usable again.

mod driver;

use driver::{CHAIN, DATA, Disk, Faulty, Host, IN, INPUT, IOC, ISP, OUT, RAM, RAM_SIZE, Random, Trb};
use rhea_device::Device;
use rhea_pc::input::{Button, InputEvent};
use rhea_pc::{InputHub, KeyCode};
use rhea_pci::PciFunction;
use rhea_usb::{Hid, HidKind, Hub, StorageOptions, UsbStorage, XhciOptions};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const BAR: u64 = 0xe000_0000;

fn host(seed: u64) -> (Host, Arc<Faulty>) {
    let disk = Faulty::new(Random(seed).bytes(1 << 20));
    disk.slow_reads.store(seed.is_multiple_of(2), Ordering::SeqCst);
    let h = Host::new(XhciOptions { interrupters: 4, slots: 8, ..XhciOptions::default() }, |h| {
        let options = StorageOptions { removable: true, ..StorageOptions::default() };
        h.xhci.attach(Some(&[1]), UsbStorage::disk(disk.drive(), options)).unwrap();
        h.xhci.attach(Some(&[2]), Hid::new(HidKind::Keyboard, "1", &h.input, &h.clock)).unwrap();
        h.xhci.attach(Some(&[3]), Hub::new("1")).unwrap();
        h.xhci.attach(Some(&[3, 1]), Hid::new(HidKind::Tablet, "1", &h.input, &h.clock)).unwrap();
        h.xhci.attach(Some(&[4]), UsbStorage::cd(disk.drive(), "1")).unwrap();
    });
    (h, disk)
}

/// An address that is often memory, sometimes its end, a register, or nothing.
fn address(r: &mut Random) -> u64 {
    match r.below(8) {
        0 => BAR + r.below(0x4000),
        1 => RAM + RAM_SIZE - r.below(8192),
        2 => r.next(),
        3 => u64::MAX - r.below(8192),
        _ => RAM + r.below(RAM_SIZE),
    }
}

/// A value with few bits, many bits, or an address.
fn value(r: &mut Random) -> u32 {
    match r.below(4) {
        0 => r.next() as u32,
        1 => 1 << r.below(32),
        2 => address(r) as u32,
        _ => r.below(32) as u32,
    }
}

fn input(r: &mut Random, hub: &InputHub) {
    let n = r.next();
    hub.send(&[
        InputEvent::Key { code: KeyCode::ALL[n as usize % KeyCode::ALL.len()], down: n >> 40 & 1 != 0 },
        InputEvent::Absolute { x: (n >> 8) as u16, y: (n >> 24) as u16 },
        InputEvent::Button { button: Button::Left, down: n >> 41 & 1 != 0 },
    ]);
}

fn usable(h: &mut Host, disk: &Faulty) {
    disk.hold(false);
    h.xhci.reset();
    h.set_up();
    let mut d = Disk::new(h, 1);
    assert_eq!(d.run(h, &[0; 6]), 1);
    assert_eq!(d.sense(h), (6, 0x29));
    assert_eq!(d.read(h, &[0x12, 0, 0, 0, 36, 0], 36).1.len(), 36);
}

/// Random writes anywhere in the registers, over random memory.
#[test]
fn registers() {
    for seed in 1..6 {
        let (mut h, disk) = host(seed);
        let mut r = Random(seed * 1001);
        for n in 0..64 {
            let junk = r.bytes(1 << 12);
            h.m.put(RAM + n * (1 << 12), &junk);
        }
        for _ in 0..4000 {
            let at = match r.below(5) {
                0 => r.below(0x4000),
                1 => 0x40 + r.below(0x40),
                2 => 0x440 + r.below(0x90),
                3 => 0x1000 + r.below(0xa0),
                _ => 0x2000 + r.below(9) * 4,
            } & !3;
            match r.below(6) {
                0 => drop(h.read(at)),
                1 => h.write(0x40, 5),
                _ => h.write(at, value(&mut r)),
            }
            if r.below(200) == 0 {
                h.xhci.config_write(4, 2, if r.below(2) == 0 { 2 } else { 6 });
            }
            input(&mut r, &h.input);
        }
        h.xhci.config_write(4, 2, 6);
        let saved = h.xhci.save();
        h.xhci.load(&saved).unwrap();
        usable(&mut h, &disk);
    }
}

fn trb(r: &mut Random, most: u32) -> Trb {
    let kind = if r.below(8) == 0 { r.below(64) as u32 } else { 1 + r.below(most.into()) as u32 };
    let flags = [0, IOC, ISP, CHAIN, IOC | ISP, CHAIN | IOC, 1 << 6, 1 << 9, 1 << 16, 3 << 16];
    let mut control = flags[r.below(10) as usize] | flags[r.below(10) as usize];
    if r.below(16) == 0 {
        control = r.next() as u32 & 0xffff_03fe;
    }
    let length = match r.below(4) {
        0 => 8,
        1 => 512 * r.below(32) as u32,
        _ => value(r),
    };
    Trb::new(kind, address(r), length, control)
}

/// Rings that are set up well and filled badly.
#[test]
fn transfers() {
    for seed in 1..6 {
        let (mut h, disk) = host(seed);
        let mut r = Random(seed * 77_777);
        let mut d = Disk::new(&mut h, 1);
        let speed = h.reset_port(6);
        let keyboard = h.address(6, 0, speed);
        h.control(keyboard, [0, 9, 1, 0, 0, 0, 0, 0], &[]).unwrap();
        h.configure(keyboard, &[(3, 7, 8)]);
        let rings = [(d.slot, 1), (d.slot, IN), (d.slot, OUT), (keyboard, 1), (keyboard, 3)];
        d.run(&mut h, &[0; 6]);
        for _ in 0..1500 {
            let (slot, dci) = rings[r.below(rings.len() as u64) as usize];
            match r.below(6) {
                // A setup stage with a request that is nearly known.
                0 => {
                    let kinds = [0u8, 1, 2, 0x80, 0x81, 0x82, 0x21, 0xa1, 0x23, 0xa3];
                    let setup = [
                        kinds[r.below(10) as usize],
                        r.below(14) as u8,
                        r.below(4) as u8,
                        r.below(4) as u8,
                        r.below(3) as u8 | (r.below(2) as u8) << 7,
                        0,
                        r.below(64) as u8,
                        0,
                    ];
                    h.push(slot, 1, Trb::new(2, u64::from_le_bytes(setup), 8, 1 << 6));
                    h.push(slot, 1, Trb::new(3, DATA, r.below(64) as u32, IOC | (r.below(2) as u32) << 16));
                    h.push(slot, 1, Trb::new(4, 0, 0, IOC));
                    h.bell(slot, 1);
                }
                // A wrapper with a random command.
                1 => {
                    let mut b = b"USBC".to_vec();
                    b.extend(r.bytes(27));
                    b[13] &= u8::from(r.below(8) == 0);
                    b[14] = 1 + r.below(16) as u8;
                    let known = [
                        0, 3, 8, 0x0a, 0x12, 0x15, 0x1a, 0x1b, 0x28, 0x2a, 0x35, 0x41, 0x42, 0x55, 0x5a, 0x88, 0x93,
                        0x9e,
                    ];
                    b[15] = known[r.below(known.len() as u64) as usize];
                    for zero in [17, 18, 19, 22] {
                        b[zero] &= u8::from(r.below(4) == 0);
                    }
                    (b[10], b[11]) = (0, 0);
                    h.m.put(DATA - 0x2000, &b);
                    h.push(d.slot, OUT, Trb::new(1, DATA - 0x2000, 31, IOC));
                    h.bell(d.slot, OUT);
                }
                _ => {
                    for _ in 0..=r.below(4) {
                        let bad = trb(&mut r, 8);
                        h.push(slot, dci, bad);
                    }
                    h.bell(slot, dci);
                }
            }
            if r.below(3) != 0 {
                // A driver that recovers.
                for command in [15, 14, 16] {
                    let head = h.head(slot, dci);
                    h.queue_command(Trb::new(command, head, 0, slot << 24 | dci << 16));
                }
                if dci > 1 {
                    let address = (dci / 2) as u8 | (dci as u8 & 1) << 7;
                    let clear = u64::from_le_bytes([2, 1, 0, 0, address, 0, 0, 0]);
                    h.push(slot, 1, Trb::new(2, clear, 8, 1 << 6));
                    h.push(slot, 1, Trb::new(4, 0, 0, 1 << 16));
                    h.bell(slot, 1);
                }
            }
            input(&mut r, &h.input);
            while h.event().is_some() {}
            h.acknowledge();
            if h.read(driver::USBSTS) & 4 != 0 {
                h.write(driver::USBSTS, 4);
                h.write(driver::USBCMD, 5);
            }
            disk.hold(r.below(8) == 0);
        }
        disk.hold(false);
        let saved = h.xhci.save();
        h.xhci.load(&saved).unwrap();
        usable(&mut h, &disk);
    }
}

/// Commands with random contexts.
#[test]
fn commands() {
    for seed in 1..6 {
        let (mut h, disk) = host(seed);
        let mut r = Random(seed * 4242);
        for port in [1, 6, 7, 8] {
            h.write(driver::PORTSC + (port - 1) * 16, 1 << 9 | 1 << 4);
        }
        for _ in 0..3000 {
            if r.below(3) == 0 {
                // A context of mostly possible numbers.
                h.m.put(INPUT, &r.bytes(0x440));
                let add = [3, 3, 1, 9, 0x19, value(&mut r)][r.below(6) as usize];
                h.m.put32(INPUT, if r.below(8) == 0 { value(&mut r) } else { 0 });
                h.m.put32(INPUT + 4, add);
                h.m.put32(INPUT + 32, 1 << 27 | r.below(4) as u32);
                h.m.put32(INPUT + 36, (r.below(10) as u32) << 16);
                for dci in 1..6u64 {
                    let kind = [0, 4, 2, 6, 3, 7][dci as usize];
                    let at = INPUT + 32 * (dci + 1);
                    h.m.put32(at, 0);
                    h.m.put32(at + 4, 512 << 16 | kind << 3);
                    let ring = (address(&mut r) & !15) | r.below(2);
                    h.m.put(at + 8, &ring.to_le_bytes());
                }
                let contexts: Vec<u8> =
                    (0..9).flat_map(|_| (RAM + 0x10_0000 + r.below(1 << 20)).to_le_bytes()).collect();
                h.m.put(RAM + 0x1000, &contexts);
            }
            let kinds = [9, 10, 11, 11, 12, 12, 13, 14, 15, 16, 17, 21, 23];
            let kind = if r.below(16) == 0 { r.below(64) } else { kinds[r.below(13) as usize] } as u32;
            let at = if r.below(8) == 0 { address(&mut r) } else { INPUT };
            let target = (r.below(9) as u32) << 24 | (r.below(6) as u32) << 16 | (r.below(4) as u32 & 1) << 9;
            h.queue_command(Trb::new(kind, at, 0, target));
            h.bell(r.below(9) as u32, r.below(6) as u32);
            input(&mut r, &h.input);
            while h.event().is_some() {}
            h.acknowledge();
            if h.read(driver::USBSTS) & 4 != 0 {
                h.start();
            }
        }
        usable(&mut h, &disk);
    }
}
