//! Keyboard, mouse, tablet and hub as a driver sees them.

mod driver;

use driver::{DATA, Disk, Faulty, Host, IN, IOC, Random, Trb, wait};
use rhea_pc::KeyCode;
use rhea_pc::input::{Button, InputEvent, Leds};
use rhea_usb::{Hid, HidKind, Hub, StorageOptions, UsbStorage, XhciOptions};
use std::time::Duration;

const REPORTS: u32 = 3;

fn hid(kind: HidKind) -> (Host, u32) {
    let mut h = Host::new(XhciOptions::default(), |h| {
        h.xhci.attach(None, Hid::new(kind, "42", &h.input, &h.clock)).unwrap();
    });
    let speed = h.reset_port(5);
    let slot = h.address(5, 0, speed);
    (h, slot)
}

fn configure(h: &mut Host, slot: u32) {
    h.control(slot, [0, 9, 1, 0, 0, 0, 0, 0], &[]).unwrap();
    h.configure(slot, &[(REPORTS, 7, 8)]);
}

/// Asks for a report; it comes with [`report`].
fn ask(h: &mut Host, slot: u32, len: u32) {
    h.push(slot, REPORTS, Trb::new(1, DATA, len, IOC));
    h.bell(slot, REPORTS);
}

fn report(h: &mut Host, len: u32) -> Vec<u8> {
    let e = h.next_event();
    assert!(matches!(e.code(), 1 | 13), "{e:?}");
    h.m.get(DATA, (len - e.len()) as usize)
}

fn key(h: &Host, code: KeyCode, down: bool) {
    h.input.key(code, down);
}

#[test]
fn descriptors() {
    for (kind, interface) in [(HidKind::Keyboard, [3, 1, 1]), (HidKind::Mouse, [3, 1, 2]), (HidKind::Tablet, [3, 0, 0])]
    {
        let (mut h, slot) = hid(kind);
        let d = h.control(slot, [0x80, 6, 0, 1, 0, 0, 18, 0], &[]).unwrap();
        assert_eq!(d[8..12], [0x27, 0x06, 1, 0]);
        let c = h.control(slot, [0x80, 6, 0, 2, 0, 0, 255, 0], &[]).unwrap();
        assert_eq!(c.len(), usize::from(u16::from_le_bytes([c[2], c[3]])));
        assert_eq!(c[14..17], interface);
        let len = u16::from_le_bytes([c[25], c[26]]);
        let r = h.control(slot, [0x81, 6, 0, 0x22, 0, 0, 255, 0], &[]).unwrap();
        assert_eq!(r.len(), usize::from(len));
        assert_eq!(h.control(slot, [0x80, 6, 3, 3, 9, 4, 255, 0], &[]), Ok(vec![6, 3, b'4', 0, b'2', 0]));
        assert_eq!(h.control(slot, [0x80, 6, 0, 9, 0, 0, 255, 0], &[]), Err(6));
        assert_eq!(h.control(slot, [0x80, 6, 0, 1, 0, 0, 8, 0], &[]).unwrap(), d[..8]);
    }
}

#[test]
fn keyboard() {
    let (mut h, slot) = hid(HidKind::Keyboard);
    key(&h, KeyCode::A, true);
    configure(&mut h, slot);
    h.control(slot, [0x21, 10, 0, 0, 0, 0, 0, 0], &[]).unwrap();
    ask(&mut h, slot, 8);
    std::thread::sleep(Duration::from_millis(5));
    assert!(h.event().is_none(), "nobody uses the keyboard before it is configured");
    key(&h, KeyCode::Shift, true);
    assert_eq!(report(&mut h, 8), [2, 0, 0, 0, 0, 0, 0, 0]);
    // Pressed before the host asks.
    key(&h, KeyCode::B, true);
    key(&h, KeyCode::B, false);
    for keys in [5, 0] {
        ask(&mut h, slot, 8);
        assert_eq!(report(&mut h, 8), [2, 0, keys, 0, 0, 0, 0, 0]);
    }
    // Lights.
    h.control(slot, [0x21, 9, 0, 2, 0, 0, 1, 0], &[2]).unwrap();
    assert_eq!(h.input.leds(), Leds::CAPS_LOCK);
    assert_eq!(h.control(slot, [0xa1, 1, 0, 2, 0, 0, 1, 0], &[]), Ok(vec![2]));
    assert_eq!(h.control(slot, [0xa1, 1, 0, 1, 0, 0, 8, 0], &[]).unwrap()[0], 2);
    // Protocols.
    assert_eq!(h.control(slot, [0xa1, 3, 0, 0, 0, 0, 1, 0], &[]), Ok(vec![1]));
    h.control(slot, [0x21, 11, 0, 0, 0, 0, 0, 0], &[]).unwrap();
    assert_eq!(h.control(slot, [0xa1, 3, 0, 0, 0, 0, 1, 0], &[]), Ok(vec![0]));
    assert_eq!(h.control(slot, [0x21, 11, 2, 0, 0, 0, 0, 0], &[]), Err(6));
    // An idle rate of 8 ms: the report comes again.
    h.control(slot, [0x21, 10, 0, 2, 0, 0, 0, 0], &[]).unwrap();
    for _ in 0..3 {
        ask(&mut h, slot, 8);
        assert_eq!(report(&mut h, 8), [2, 0, 0, 0, 0, 0, 0, 0]);
    }
    h.control(slot, [0x21, 10, 0, 0, 0, 0, 0, 0], &[]).unwrap();
    // Too little room.
    key(&h, KeyCode::C, true);
    ask(&mut h, slot, 4);
    assert_eq!(h.next_event().code(), 3);
    // A reset of the port: another keyboard may have the keys now.
    h.reset_port(5);
    assert_eq!(h.input.leds(), Leds::empty());
}

#[test]
fn pointers() {
    let (mut h, slot) = hid(HidKind::Mouse);
    configure(&mut h, slot);
    assert!(!h.input.pointer_is_absolute());
    h.input.send(&[InputEvent::Relative { dx: 5, dy: -2 }, InputEvent::Button { button: Button::Right, down: true }]);
    ask(&mut h, slot, 5);
    assert_eq!(report(&mut h, 5), [2, 5, 0xfe, 0, 0]);
    h.input.send(&[InputEvent::Wheel { vertical: -1, horizontal: 0 }]);
    // A report that is shorter than the buffer.
    ask(&mut h, slot, 8);
    assert_eq!(report(&mut h, 8), [2, 0, 0, 0xff, 0]);

    let (mut h, slot) = hid(HidKind::Tablet);
    configure(&mut h, slot);
    assert!(h.input.pointer_is_absolute());
    ask(&mut h, slot, 7);
    h.input.send(&[InputEvent::Absolute { x: 0x7fff, y: 0x102 }]);
    assert_eq!(report(&mut h, 7), [0, 0xff, 0x7f, 2, 1, 0, 0]);
    assert_eq!(h.control(slot, [0xa1, 3, 0, 0, 0, 0, 1, 0], &[]), Err(6), "no boot protocol");
}

/// A key wakes a port that sleeps, if the device may.
#[test]
fn remote_wakeup() {
    let (mut h, slot) = hid(HidKind::Keyboard);
    configure(&mut h, slot);
    h.control(slot, [0x21, 10, 0, 0, 0, 0, 0, 0], &[]).unwrap();
    let port = driver::PORTSC + 4 * 16;
    let link = |to: u32| 1 << 16 | to << 5 | 1 << 9;
    ask(&mut h, slot, 8);
    h.write(port, link(3));
    key(&h, KeyCode::A, true);
    assert_eq!(h.read(port) >> 5 & 15, 3, "it was not allowed");
    h.write(port, link(0));
    assert_eq!(report(&mut h, 8)[2], 4);
    h.write(port, 1 << 9 | 0xfe_0000);
    h.control(slot, [0, 3, 1, 0, 0, 0, 0, 0], &[]).unwrap();
    ask(&mut h, slot, 8);
    h.write(port, link(3));
    key(&h, KeyCode::A, false);
    assert_eq!(h.read(port) >> 5 & 15, 15, "resume");
    assert_eq!(h.read(port) >> 22 & 1, 1, "the link has changed");
    h.write(port, link(0));
    assert_eq!(report(&mut h, 8)[2], 0);
}

#[test]
fn hub() {
    let disk = Faulty::new(Random(3).bytes(1 << 20));
    let mut h = Host::new(XhciOptions::default(), |h| {
        assert_eq!(h.xhci.attach(None, Hub::new("1")), Ok(vec![1]));
        h.xhci.attach(Some(&[1, 2]), Hid::new(HidKind::Keyboard, "1", &h.input, &h.clock)).unwrap();
        h.xhci.attach(Some(&[1, 7]), UsbStorage::disk(disk.drive(), StorageOptions::default())).unwrap();
    });
    let speed = h.reset_port(5);
    assert_eq!(speed, 1);
    let hub = h.address(5, 0, 1);
    h.control(hub, [0, 9, 1, 0, 0, 0, 0, 0], &[]).unwrap();
    h.configure(hub, &[(REPORTS, 7, 2)]);
    let d = h.control(hub, [0xa0, 6, 0, 0x29, 0, 0, 71, 0], &[]).unwrap();
    assert_eq!((d.len(), d[2]), (11, 8));
    ask(&mut h, hub, 2);
    for port in 1..=8 {
        h.push(hub, 1, Trb::new(2, u64::from_le_bytes([0x23, 3, 8, 0, port, 0, 0, 0]), 8, driver::IDT));
        h.push(hub, 1, Trb::new(4, 0, 0, 1 << 16));
    }
    h.bell(hub, 1);
    // Port 2 was first.
    assert_eq!(report(&mut h, 2), [4, 0]);
    ask(&mut h, hub, 2);
    assert_eq!(report(&mut h, 2), [0x84, 0]);
    for port in [2, 7] {
        assert_eq!(h.control(hub, [0xa3, 0, 0, 0, port, 0, 4, 0], &[]), Ok(vec![1, 1, 1, 0]));
        h.control(hub, [0x23, 1, 16, 0, port, 0, 0, 0], &[]).unwrap();
        h.control(hub, [0x23, 3, 4, 0, port, 0, 0, 0], &[]).unwrap();
        assert_eq!(h.control(hub, [0xa3, 0, 0, 0, port, 0, 4, 0], &[]), Ok(vec![3, 1, 16, 0]));
        h.control(hub, [0x23, 1, 20, 0, port, 0, 0, 0], &[]).unwrap();
    }
    assert_eq!(h.control(hub, [0xa3, 0, 0, 0, 9, 0, 4, 0], &[]), Err(6));
    let keyboard = h.address(5, 2, 1);
    configure(&mut h, keyboard);
    ask(&mut h, keyboard, 8);
    key(&h, KeyCode::Esc, true);
    assert_eq!(report(&mut h, 8)[2], 0x29);
    let slot = h.address(5, 7, 1);
    h.control(slot, [0, 9, 1, 0, 0, 0, 0, 0], &[]).unwrap();
    h.configure(slot, &[(IN, 6, 64), (driver::OUT, 2, 64)]);
    let c = h.control(slot, [0x80, 6, 0, 2, 0, 0, 255, 0], &[]).unwrap();
    assert_eq!(c[22..24], [64, 0], "packets of full speed");
    let mut d = Disk::at(slot);
    assert_eq!(d.run(&mut h, &[0; 6]), 1);
    assert_eq!(d.read(&mut h, &Disk::command(false, 1, 2), 1024).1, Random(3).bytes(1 << 20)[512..1536]);
    wait("rest", || h.event().is_none());
}

/// A CD drive takes the commands that it takes behind AHCI.
#[test]
fn cd() {
    let medium = Faulty::new(Random(4).bytes(1 << 20));
    let mut h = Host::new(XhciOptions::default(), |h| {
        h.xhci.attach(None, UsbStorage::cd(medium.drive(), "1")).unwrap();
    });
    let mut d = Disk::new(&mut h, 1);
    while d.run(&mut h, &[0; 12]) != 0 {
        assert_eq!(d.sense(&mut h).0, 6);
    }
    let (_, inquiry) = d.read(&mut h, &[0x12, 0, 0, 0, 36, 0, 0, 0, 0, 0, 0, 0], 36);
    assert_eq!(inquiry[..2], [5, 0x80]);
    let (_, capacity) = d.read(&mut h, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8);
    assert_eq!(capacity, [0, 0, 1, 255, 0, 0, 8, 0]);
    let (status, data) = d.read(&mut h, &[0x28, 0, 0, 0, 0, 3, 0, 0, 2, 0, 0, 0], 4096);
    assert_eq!((status, data), (0, Random(4).bytes(1 << 20)[6144..10240].to_vec()));
    assert_eq!(d.read(&mut h, &[0x28, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0], 2048).0, 1);
    assert_eq!(d.sense(&mut h), (5, 0x21));
    // Mode parameters go to the drive.
    let mut page = vec![0; 8];
    page.extend([1, 10, 1, 3, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(d.write(&mut h, &[0x55, 0x10, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0], &page), 0);
    let (_, mode) = d.read(&mut h, &[0x5a, 0, 1, 0, 0, 0, 0, 0, 20, 0, 0, 0], 20);
    assert_eq!(mode[10..12], [1, 3]);
}

/// Unmapping, zeros without data, and writes that are forced to storage.
#[test]
fn provisioning() {
    let disk = Faulty::new(vec![7; 1 << 20]);
    let mut h = Host::new(XhciOptions::default(), |h| {
        h.xhci.attach(None, UsbStorage::disk(disk.drive(), StorageOptions::default())).unwrap();
    });
    let mut d = Disk::new(&mut h, 1);
    d.run(&mut h, &[0; 6]);
    let mut list = vec![0, 22, 0, 16, 0, 0, 0, 0];
    list.extend(8u64.to_be_bytes());
    list.extend(4u32.to_be_bytes());
    list.extend([0; 4]);
    assert_eq!(d.write(&mut h, &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], &list), 0);
    assert_eq!(d.write(&mut h, &[0x93, 8, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 2, 0, 0], &[0; 512]), 0);
    assert_eq!(d.write(&mut h, &[0x41, 0, 0, 0, 0, 40, 0, 0, 2, 0], &[1; 512]), 0);
    assert_eq!(d.read(&mut h, &Disk::command(false, 39, 4), 2048).1, [[7; 512], [1; 512], [1; 512], [7; 512]].concat());
    assert_eq!(d.write(&mut h, &[0x41, 0, 0, 0, 7, 255, 0, 0, 2, 0], &[1; 512]), 1, "beyond the end");
    assert_eq!(d.sense(&mut h), (5, 0x21));
    let (_, data) = d.read(&mut h, &Disk::command(false, 31, 4), 2048);
    assert!(data[..512].iter().chain(&data[1536..]).all(|b| *b == 7) && data[512..1536].iter().all(|b| *b == 0));
    let before = disk.flushes.load(std::sync::atomic::Ordering::SeqCst);
    let mut forced = Disk::command(true, 0, 1);
    forced[1] = 8;
    assert_eq!(d.write(&mut h, &forced, &[3; 512]), 0);
    assert_eq!(disk.flushes.load(std::sync::atomic::Ordering::SeqCst), before + 1);
}
