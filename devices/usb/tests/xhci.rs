//! The controller's registers, rings and commands.

mod driver;

use driver::{CHAIN, COMMANDS, CRCR, DATA, Disk, ERDP, Faulty, Host, IMAN, IMOD, IN, INPUT, IOC, ISP, OUT, Trb, wait};
use driver::{PORTSC, RAM, RAM_SIZE, Random, USBCMD, USBSTS};
use rhea_device::Device;
use rhea_pci::PciFunction;
use rhea_usb::{Hid, HidKind, Hub, PlaceError, StorageOptions, UsbStorage, Xhci, XhciModel, XhciOptions};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

fn options() -> XhciOptions {
    XhciOptions::default()
}

fn disk(seed: u64) -> Arc<Faulty> {
    Faulty::new(Random(seed).bytes(4 << 20))
}

fn plug_disk(h: &Host, disk: &Arc<Faulty>) {
    let options = StorageOptions { serial: "S1".into(), ..StorageOptions::default() };
    h.xhci.attach(None, UsbStorage::disk(disk.drive(), options)).unwrap();
}

#[test]
fn capabilities() {
    let h = Host::new(options(), |_| ());
    assert_eq!(h.read(0) & 0xff, 0x40);
    assert_eq!(h.read(4), 64 | 16 << 8 | 8 << 24);
    // Extended capabilities: both protocols.
    let first = u64::from(h.read(0x10) >> 16) * 4;
    let second = first + u64::from(h.read(first) >> 8 & 0xff) * 4;
    assert_eq!((h.read(first) >> 24, h.read(first + 8)), (3, 1 | 4 << 8));
    assert_eq!((h.read(second) >> 24, h.read(second + 8)), (2, 5 | 4 << 8));
    assert_eq!((h.read(second) >> 8 & 0xff, h.read(first + 4)), (0, 0x2042_5355));
    assert_eq!(h.xhci.config_read(0, 4), 0x000d_1b36);
    assert_eq!(h.xhci.config_read(8, 4) >> 8, 0x0c_0330);
    assert_eq!(h.xhci.config_read(0x60, 1), 0x30);
    let nec = Host::new(XhciOptions { model: XhciModel::Nec, msi: true, ..options() }, |_| ());
    assert_eq!(nec.xhci.config_read(0, 4), 0x0194_1033);
    driver::find_capability(&*nec.xhci, 5);
}

#[test]
fn places() {
    let disk = disk(1);
    let mut h = Host::new(XhciOptions { p2: 3, p3: 1, ..options() }, |h| {
        let hid = || Hid::new(HidKind::Mouse, "1", &h.input, &h.clock);
        assert_eq!(h.xhci.attach(Some(&[4]), hid()), Err(PlaceError::NoPort));
        assert_eq!(h.xhci.attach(Some(&[2, 1]), hid()), Err(PlaceError::NoHub));
        plug_disk(h, &disk);
        assert_eq!(h.xhci.attach(Some(&[1]), hid()), Err(PlaceError::InUse));
        assert_eq!(h.xhci.attach(Some(&[3]), Hub::new("1")), Ok(vec![3]));
        assert_eq!(h.xhci.attach(Some(&[3, 8]), hid()), Ok(vec![3, 8]));
        assert_eq!(h.xhci.attach(Some(&[3, 8]), hid()), Err(PlaceError::InUse));
        assert_eq!(h.xhci.attach(Some(&[3, 9]), hid()), Err(PlaceError::NoPort));
        assert_eq!(h.xhci.attach(None, hid()), Ok(vec![2]));
        assert_eq!(h.xhci.attach(None, hid()), Err(PlaceError::Full));
        assert_eq!(h.xhci.list().len(), 4);
    });
    // Disk at super speed at the USB 3 port; hub and mouse at their USB 2 ports.
    let speeds: Vec<u32> = (0..4).map(|n| h.read(PORTSC + n * 16) >> 10 & 15).collect();
    assert_eq!(speeds, [4, 0, 3, 1]);
    let mouse = h.reset_port(3);
    assert_eq!(mouse, 3);
    h.address(3, 0, 3);
}

/// A driver that gives no cycle state to the command ring, counts the ports of each protocol from 1 and expects no events but for
/// what it has done.
#[test]
fn simple_firmware() {
    let mut h = Host::new(options(), |h| {
        for _ in 0..2 {
            h.xhci.attach(None, Hid::new(HidKind::Keyboard, "1", &h.input, &h.clock)).unwrap();
        }
    });
    assert!(h.event().is_none(), "of ports that changed before the controller ran");
    assert_eq!(h.read(USBSTS) >> 4 & 1, 1);
    h.write(USBCMD, 0);
    h.write64(CRCR, COMMANDS);
    h.write(USBCMD, 1);
    for connector in [1, 2] {
        let at = PORTSC + (connector + 3) * 16;
        h.write(at, h.read(at) | 1 << 4);
        let e = h.event().expect("the port's");
        assert_eq!((e.kind(), e.parameter), (34, (connector + 4) << 24));
        h.acknowledge();
        assert_eq!(h.read(at) & 0x2_0003, 3);
        let slot = h.address(connector as u32, 0, h.read(at) >> 10 & 15);
        assert_eq!(h.control(slot, [0x80, 6, 0, 1, 0, 0, 8, 0], &[]).map(|d| d[..2].to_vec()), Ok(vec![18, 1]));
        assert!(h.event().is_none());
    }
}

#[test]
fn commands() {
    let disk = disk(2);
    let mut h = Host::new(options(), |h| plug_disk(h, &disk));
    assert_eq!(h.command(23, 0, 0, 0), (1, 0), "no-op");
    for _ in 0..200 {
        assert_eq!(h.command(23, 0, 0, 0).0, 1);
    }
    assert_eq!(h.command(10, 0, 0, 5 << 24).0, 11, "slot not enabled");
    assert_eq!(h.command(49, 0, 0, 0).0, 5, "the vendor's, of another vendor");
    assert_eq!(h.command(63, 0, 0, 0).0, 5);
    let slots: Vec<u32> = (0..32).map(|_| h.command(9, 0, 0, 0).1).collect();
    assert_eq!(slots, (1..=32).collect::<Vec<u32>>());
    assert_eq!(h.command(9, 0, 0, 0).0, 9, "no slots");
    for slot in 2..=32 {
        assert_eq!(h.command(10, 0, 0, slot << 24), (1, slot));
    }
    // An address needs a port that works, and a device.
    h.m.put32(INPUT + 4, 3);
    h.m.put32(INPUT + 36, 2 << 16);
    assert_eq!(h.command(11, INPUT, 0, 1 << 24).0, 4);
    h.m.put32(INPUT + 4, 1);
    assert_eq!(h.command(11, INPUT, 0, 1 << 24).0, 5);
    assert_eq!(h.command(12, INPUT, 0, 1 << 24).0, 19);
    assert_eq!(h.command(10, 0, 0, 1 << 24), (1, 1));
    // Port bandwidth.
    assert_eq!(h.command(21, DATA, 0, 4 << 16).0, 1);
    assert_eq!(h.m.get(DATA, 10), [0, 90, 90, 90, 90, 90, 90, 90, 90, 0]);

    let mut d = Disk::new(&mut h, 1);
    let ep = d.slot << 24 | IN << 16;
    assert_eq!(h.command(14, 0, 0, ep).0, 19, "not halted");
    assert_eq!(h.command(16, COMMANDS, 0, ep).0, 19, "running");
    assert_eq!(h.command(15, 0, 0, ep), (1, d.slot));
    assert_eq!(h.context(d.slot, IN.into(), 0) & 7, 3);
    assert_eq!(h.command(15, 0, 0, ep).0, 19, "stopped");
    assert_eq!(h.command(15, 0, 0, d.slot << 24 | 9 << 16).0, 12);
    // The doorbell starts it again.
    assert_eq!(d.run(&mut h, &[0; 6]), 1);
    assert_eq!(d.sense(&mut h), (6, 0x29));
    assert_eq!(h.context(d.slot, IN.into(), 0) & 7, 1);
    // Reset Device, then again from the address on.
    assert_eq!(h.command(17, 0, 0, d.slot << 24).0, 1);
    assert_eq!(h.context(d.slot, 0, 3) >> 27, 1);
    assert_eq!(h.command(12, INPUT, 0, d.slot << 24).0, 19);
    // Stop the ring.
    h.write(CRCR, 2);
    let e = h.next_event();
    assert_eq!((e.kind(), e.code(), h.read(CRCR)), (33, 24, 0));
    assert_eq!(h.command(23, 0, 0, 0).0, 1);
    assert_eq!(h.read(CRCR), 8);
}

#[test]
fn disk_data() {
    let disk = disk(3);
    let mut h = Host::new(options(), |h| plug_disk(h, &disk));
    let mut d = Disk::new(&mut h, 1);
    assert_eq!(d.run(&mut h, &[0; 6]), 1, "unit attention");
    assert_eq!(d.sense(&mut h), (6, 0x29));
    let (status, inquiry) = d.read(&mut h, &[0x12, 0, 0, 0, 255, 0], 255);
    assert_eq!((status, inquiry.len(), &inquiry[8..12]), (0, 36, &b"RHEA"[..]));
    let (_, capacity) = d.read(&mut h, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8);
    assert_eq!(capacity, [0, 0, 0x1f, 0xff, 0, 0, 2, 0]);
    let data = Random(9).bytes(96 << 10);
    for slow in [true, false] {
        disk.slow_reads.store(slow, Ordering::SeqCst);
        assert_eq!(d.write(&mut h, &Disk::command(true, 17, 192), &data), 0);
        h.m.put(DATA, &vec![0; data.len()]);
        assert_eq!(d.read(&mut h, &Disk::command(false, 17, 192), data.len() as u32), (0, data.clone()));
    }
    assert!(disk.quick.load(Ordering::SeqCst) == 0, "96 KiB are not read at once");
    assert_eq!(d.read(&mut h, &Disk::command(false, 17, 8), 4096), (0, data[..4096].to_vec()));
    assert_eq!(disk.quick.load(Ordering::SeqCst), 1);
    assert_eq!(d.run(&mut h, &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 0);
    assert_eq!(disk.flushes.load(Ordering::SeqCst), 1);
    // Out of range: no data, a stall.
    assert_eq!(d.read(&mut h, &Disk::command(false, 8191, 2), 1024), (1, vec![]));
    assert_eq!(d.sense(&mut h), (5, 0x21));
    // A bad block, read and written.
    disk.bad.store(20 * 512, Ordering::SeqCst);
    disk.slow_reads.store(true, Ordering::SeqCst);
    assert_eq!(d.read(&mut h, &Disk::command(false, 20, 1), 512).0, 1);
    assert_eq!(d.sense(&mut h), (3, 0x11));
    assert_eq!(d.write(&mut h, &Disk::command(true, 20, 1), &data[..512]), 1);
    assert_eq!(d.sense(&mut h), (3, 0x0c));
}

/// The cases in which host and device do not agree (bulk-only transport 6.7).
#[test]
fn disagreements() {
    let disk = disk(4);
    let mut h = Host::new(options(), |h| plug_disk(h, &disk));
    let mut d = Disk::new(&mut h, 1);
    d.run(&mut h, &[0; 6]);
    let read = Disk::command(false, 0, 2);
    let write = Disk::command(true, 0, 2);
    // No data expected, but there is some.
    assert_eq!(d.run(&mut h, &read), 2);
    assert_eq!(d.run(&mut h, &write), 2);
    // Less expected.
    assert_eq!(d.read(&mut h, &read, 512), (2, vec![]));
    assert_eq!(d.write(&mut h, &write, &[0; 512]), 2);
    // More expected.
    assert_eq!(d.read(&mut h, &read, 4096).1.len(), 1024);
    assert_eq!(d.write(&mut h, &write, &[7; 4096]), 0);
    // The other direction.
    assert_eq!(d.write(&mut h, &read, &[0; 1024]), 2);
    assert_eq!(d.read(&mut h, &write, 1024), (2, vec![]));
    // Data where none is.
    assert_eq!(d.read(&mut h, &[0; 6], 512), (0, vec![]));
    // A transfer that ends where the data does, before the host's end.
    d.wrapper(&mut h, 2048, true, &read);
    assert_eq!(h.transfer(d.slot, IN, DATA, 1024), (1, 1024));
    assert_eq!(h.transfer(d.slot, IN, DATA, 1024), (6, 0));
    h.recover(d.slot, IN);
    assert_eq!(d.status(&mut h), (0, 1024));
    // No wrapper: everything stalls until the reset.
    h.m.put(DATA, &[1; 31]);
    assert_eq!(h.transfer(d.slot, OUT, DATA, 31).0, 6);
    h.recover(d.slot, OUT);
    assert_eq!(h.transfer(d.slot, OUT, DATA, 31).0, 6);
    assert_eq!(h.transfer(d.slot, IN, DATA, 13).0, 6);
    h.control(d.slot, [0x21, 0xff, 0, 0, 0, 0, 0, 0], &[]).unwrap();
    h.recover(d.slot, OUT);
    h.recover(d.slot, IN);
    assert_eq!(d.run(&mut h, &[0; 6]), 0);
    assert_eq!(h.control(d.slot, [0xa1, 0xfe, 0, 0, 0, 0, 1, 0], &[]), Ok(vec![0]));
}

/// Chains over many TRBs and a link, odd pieces, event data, short packets.
#[test]
fn chains() {
    let disk = disk(5);
    let mut h = Host::new(options(), |h| plug_disk(h, &disk));
    let mut d = Disk::new(&mut h, 1);
    d.run(&mut h, &[0; 6]);
    let whole = Random(5).bytes(4 << 20);
    for round in 0..8u64 {
        let blocks = 96;
        let len = blocks * 512;
        d.wrapper(&mut h, len, true, &Disk::command(false, 64, blocks as u16));
        let (mut left, mut at, mut n) = (len, DATA + round, 0);
        let mut places = vec![];
        while left > 0 {
            let piece = left.min(1000 + 37 * n);
            left -= piece;
            n += 1;
            h.push(d.slot, IN, Trb::new(1, at, piece, CHAIN | ISP));
            places.push((at, piece));
            at += u64::from(piece) + 64;
        }
        h.push(d.slot, IN, Trb::new(7, 0x1234_5678_9abc_def0 + round, 0, IOC));
        h.bell(d.slot, IN);
        let e = h.next_event();
        assert_eq!((e.code(), e.len(), e.parameter), (1, len, 0x1234_5678_9abc_def0 + round));
        assert_eq!(e.control >> 2 & 1, 1, "event data");
        let got: Vec<u8> = places.iter().flat_map(|(at, n)| h.m.get(*at, *n as usize)).collect();
        assert_eq!(got, whole[64 * 512..64 * 512 + len as usize]);
        assert_eq!(d.status(&mut h), (0, 0));
    }
    // Short: at the second of three, then at the last, which wants to know.
    d.wrapper(&mut h, 192, true, &[0x12, 0, 0, 0, 192, 0]);
    h.push(d.slot, IN, Trb::new(1, DATA, 20, CHAIN | ISP));
    let second = h.push(d.slot, IN, Trb::new(1, DATA + 20, 100, CHAIN | ISP));
    let third = h.push(d.slot, IN, Trb::new(1, DATA + 120, 72, IOC));
    h.bell(d.slot, IN);
    let (a, b) = (h.next_event(), h.next_event());
    assert_eq!((a.parameter, a.code(), a.len()), (second, 13, 84));
    assert_eq!((b.parameter, b.code(), b.len()), (third, 13, 72));
    assert_eq!(d.status(&mut h), (0, 156));
    // Immediate data, and an end that is not memory.
    let mut b = b"USBC".to_vec();
    b.resize(31, 0);
    h.push(d.slot, OUT, Trb::new(1, DATA, 23, CHAIN));
    h.push(d.slot, OUT, Trb::new(1, 0, 8, driver::IDT | IOC));
    h.bell(d.slot, OUT);
    assert_eq!(h.next_event().code(), 5, "immediate data is alone");
    assert_eq!(h.context(d.slot, OUT.into(), 0) & 7, 4);
    let head = h.head(d.slot, OUT);
    assert_eq!(h.command(16, head, 0, d.slot << 24 | OUT << 16).0, 1);
    d.wrapper(&mut h, 1024, true, &Disk::command(false, 0, 2));
    assert_eq!(h.transfer(d.slot, IN, RAM + RAM_SIZE - 512, 1024).0, 2);
    h.recover(d.slot, IN);
    assert_eq!(h.transfer(d.slot, IN, DATA, 1024), (1, 1024));
    assert_eq!(d.status(&mut h), (0, 0));
}

/// Commands wait for transfers that use memory; so does a reset.
#[test]
fn stops_while_busy() {
    let disk = disk(6);
    let mut h = Host::new(options(), |h| plug_disk(h, &disk));
    let mut d = Disk::new(&mut h, 1);
    d.run(&mut h, &[0; 6]);
    disk.hold(true);
    d.wrapper(&mut h, 1024, true, &Disk::command(false, 0, 2));
    h.push(d.slot, IN, Trb::new(1, DATA, 1024, IOC | ISP));
    h.bell(d.slot, IN);
    wait("the request", || disk.arrived.load(Ordering::SeqCst) > 0);
    h.queue_command(Trb::new(15, 0, 0, d.slot << 24 | IN << 16));
    h.queue_command(Trb::new(23, 0, 0, 0));
    std::thread::sleep(Duration::from_millis(20));
    assert!(h.event().is_none(), "nothing may end before the request");
    disk.hold(false);
    let e = [h.next_event(), h.next_event(), h.next_event()].map(|e| (e.kind(), e.code()));
    assert_eq!(e, [(32, 1), (33, 1), (33, 1)]);
    assert_eq!(h.context(d.slot, IN.into(), 0) & 7, 3);
    assert_eq!(d.status(&mut h), (0, 0));
    // A status that the device has not got yet: its place is told when the endpoint stops.
    let at = h.push(d.slot, IN, Trb::new(1, DATA, 13, IOC));
    h.bell(d.slot, IN);
    h.queue_command(Trb::new(15, 0, 0, d.slot << 24 | IN << 16));
    let (a, b) = (h.next_event(), h.next_event());
    assert_eq!((a.kind(), a.code(), a.parameter, a.len()), (32, 26, at, 13));
    assert_eq!((b.kind(), b.code()), (33, 1));
    let head = h.head(d.slot, IN);
    assert_eq!(h.command(16, head, 0, d.slot << 24 | IN << 16).0, 1);

    disk.hold(true);
    d.wrapper(&mut h, 1024, true, &Disk::command(false, 0, 2));
    h.push(d.slot, IN, Trb::new(1, DATA, 1024, IOC | ISP));
    let before = disk.arrived.load(Ordering::SeqCst);
    h.bell(d.slot, IN);
    wait("the request", || disk.arrived.load(Ordering::SeqCst) > before);
    h.write(USBCMD, 2);
    assert_eq!((h.read(USBCMD) & 2, h.read(USBSTS) >> 11 & 1), (2, 1));
    disk.hold(false);
    h.start();
    let mut d = Disk::new(&mut h, 1);
    assert_eq!(d.run(&mut h, &[0; 6]), 1);
    assert_eq!(d.sense(&mut h), (6, 0x29));
}

#[test]
fn interrupts() {
    let mut h = Host::new(options(), |_| ());
    assert!(!h.m.any_line());
    h.queue_command(Trb::new(23, 0, 0, 0));
    assert!(h.m.any_line());
    assert_eq!((h.read(IMAN), h.read(USBSTS) >> 3 & 1, h.read(ERDP) >> 3 & 1), (3, 1, 1));
    h.write(USBSTS, 8);
    h.write(IMAN, 3);
    assert!(!h.m.any_line());
    // Busy: more events make no interrupt until the handler has ended.
    h.queue_command(Trb::new(23, 0, 0, 0));
    assert!(!h.m.any_line());
    assert!(h.event().is_some());
    h.acknowledge();
    assert!(h.m.any_line(), "there is another event");
    h.next_event();
    h.write(IMAN, 3);
    assert!(!h.m.any_line());
    h.use_msix();
    let sent = h.m.sent();
    h.queue_command(Trb::new(23, 0, 0, 0));
    assert_eq!((h.m.sent(), h.read(IMAN)), (sent + 1, 2));
    h.next_event();
    // At most one in 16 ms.
    let begun = Instant::now();
    h.write(IMOD, 0xffff);
    assert_eq!(h.command(23, 0, 0, 0).0, 1);
    assert_eq!(h.command(23, 0, 0, 0).0, 1);
    h.queue_command(Trb::new(23, 0, 0, 0));
    let now = h.m.sent();
    // A host that is slow today has more of them in this time.
    let most = begun.elapsed().as_millis() as u64 / 16 + 1;
    assert!((1..=most).contains(&(now - sent - 1)), "{} of {most}: not held back", now - sent - 1);
    wait("the interrupt", || h.m.sent() >= sent + 3);
    let sent = h.m.sent() - 3;
    // Off: events come, interrupts do not.
    h.next_event();
    h.write(USBCMD, 1);
    assert_eq!(h.command(23, 0, 0, 0).0, 1);
    std::thread::sleep(Duration::from_millis(10));
    assert_eq!(h.m.sent(), sent + 3);
}

/// Many more events than the ring has places: none is lost.
#[test]
fn full_event_ring() {
    let mut h = Host::new(options(), |_| ());
    let mut want = vec![];
    for _ in 0..40 {
        for _ in 0..50 {
            want.push(h.queue_command(Trb::new(23, 0, 0, 0)));
        }
        let mut full = 0;
        let mut got = vec![];
        wait("all events", || {
            while let Some(e) = h.event() {
                match e.kind() {
                    33 => got.push(e.parameter),
                    37 => full += 1,
                    kind => panic!("event {kind}"),
                }
            }
            h.acknowledge();
            got.len() >= 50
        });
        assert_eq!(got, want.split_off(0));
        assert_eq!(full, 0);
    }
    for _ in 0..190 {
        h.write(0x2000, 0);
        // The command ring has 63 places: those that were run may be used again.
        want.push(h.queue_command(Trb::new(23, 0, 0, 0)));
    }
    let (mut got, mut full) = (vec![], 0);
    wait("all events", || {
        while let Some(e) = h.event() {
            if e.kind() == 37 { full += 1 } else { got.push(e.parameter) }
        }
        h.acknowledge();
        got.len() >= 190
    });
    assert_eq!(got, want);
    assert_eq!(full, 1);
}

#[test]
fn not_in_memory() {
    let mut h = Host::new(options(), |_| ());
    h.write(USBCMD, 0);
    assert_eq!(h.read(USBSTS) & 1, 1);
    h.write64(CRCR, 0xffff_ffff_ffff_ff00 | 1);
    h.write(USBCMD, 5);
    h.write(0x2000, 0);
    assert_eq!(h.read(USBSTS) & 5, 5, "host system error, halted");
    h.start();
    assert_eq!(h.command(23, 0, 0, 0).0, 1);
    // Without bus mastering nothing moves; then it goes on.
    h.xhci.config_write(4, 2, 2);
    h.queue_command(Trb::new(23, 0, 0, 0));
    assert!(h.event().is_none());
    h.xhci.config_write(4, 2, 6);
    assert_eq!(h.next_event().code(), 1);
}

/// A machine that was saved goes on in another one, in the middle of a command.
#[test]
fn saved() {
    let disk = disk(7);
    let mut h = Host::new(options(), |h| plug_disk(h, &disk));
    let mut d = Disk::new(&mut h, 1);
    d.run(&mut h, &[0; 6]);
    d.wrapper(&mut h, 2048, true, &Disk::command(false, 8, 4));
    assert_eq!(h.transfer(d.slot, IN, DATA, 1024), (1, 1024));
    h.xhci.quiesce();
    let state = h.xhci.save();
    let other = Xhci::new(&h.m.bus.slot(rhea_pci::Devfn::new(6, 0)), options(), &h.clock, &rhea_device::Log::off());
    assert!(other.load(&state).is_err(), "it has no disk");
    let storage = UsbStorage::disk(disk.drive(), StorageOptions::default());
    other.attach(None, storage).unwrap();
    h.m.bus.attach(other.clone()).unwrap();
    // The first no longer decodes.
    h.xhci.config_write(4, 2, 0);
    other.load(&state).unwrap();
    h.xhci = other;
    assert_eq!(h.transfer(d.slot, IN, DATA + 1024, 1024), (1, 1024));
    assert_eq!(d.status(&mut h), (0, 0));
    assert_eq!(h.m.get(DATA, 2048), Random(7).bytes(4 << 20)[4096..6144]);
    h.xhci.reset();
    h.set_up();
    let mut d = Disk::new(&mut h, 1);
    assert_eq!(d.run(&mut h, &[0; 6]), 1);
}
