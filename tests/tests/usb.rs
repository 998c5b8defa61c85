//! xHCI and what sits at its ports, in Linux and in firmware.

use std::time::Duration;

use rhea_tests::{Board, DiskImages, Emulator, STEP, Scratch, disk_case, guest_file, require, run};

const Q35: Board = Board::Q35;
/// Firmware and boot loaders take longer than a kernel.
const LONG: Duration = Duration::from_secs(240);

const DRIVE: &str = "if=none,id=d,file=IMAGE,format=raw";

#[test]
fn disks_on_q35() {
    require!("amd64/kernel", "amd64/initramfs");
    let args = [
        "-cpu",
        "max",
        "-smp",
        "2",
        // At super speed, at high speed behind the other controller, and behind a hub.
        "-drive",
        DRIVE,
        "-device",
        "qemu-xhci,id=a",
        "-device",
        "usb-storage,drive=d,bus=a.0,port=1,serial=one",
        "-drive",
        "if=none,id=e,file=IMAGE,format=raw",
        "-device",
        "nec-usb-xhci,id=b,p2=3,p3=1",
        "-device",
        "usb-storage,drive=e,bus=b.0,port=2,serial=two",
        "-usb",
        "-drive",
        "if=none,id=f,file=IMAGE,format=raw",
        "-device",
        "usb-hub,bus=usb-bus.0,port=2",
        "-device",
        "usb-storage,drive=f,bus=usb-bus.0,port=2.7,serial=three",
    ];
    // The transport tells nothing of unmapping.
    disk_case(Q35, "rhea.disk=/dev/sda,/dev/sdb,/dev/sdc rhea.notrim=1", &args);
}

/// Types a line into the monitor, which shares the terminal with the serial port.
fn monitor(guest: &mut Emulator, line: &str) {
    guest.send("\x01c");
    guest.send(&format!("{line}\n"));
    guest.send("\x01c");
}

/// The case `typing` shows events of the next device.
fn listens(guest: &mut Emulator) {
    guest.expect("listening to", STEP);
    // The shell opens the device after the line.
    std::thread::sleep(Duration::from_secs(1));
}

fn types(guest: &mut Emulator) {
    listens(guest);
    // Scan code, key, end of the report; for each of two changes.
    monitor(guest, "sendkey z");
    guest.expect("0001 002c 0001 0000", STEP);
    guest.expect("0001 002c 0000 0000", STEP);
}

fn passes(mut guest: Emulator) {
    guest.expect("RHEA-TEST typing PASS", STEP);
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
}

#[test]
fn keyboard_and_mouse_on_q35() {
    require!("amd64/kernel", "amd64/initramfs");
    let devices = ["-usbdevice", "keyboard", "-device", "usb-mouse,bus=usb-bus.0,port=3"];
    let words = "rhea.test=typing rhea.input=keyboard,USB.mouse rhea.events=6";
    let mut guest = Q35.start(words, &[&["-M", "i8042=off", "-cpu", "max"][..], &devices].concat());
    types(&mut guest);
    listens(&mut guest);
    monitor(&mut guest, "mouse_move 7 -3");
    monitor(&mut guest, "mouse_button 1");
    guest.expect("0002 0000 0007 0000", STEP);
    guest.expect("0002 0001 fffd ffff", STEP);
    guest.expect("0001 0110 0001 0000", STEP);
    passes(guest);
}

#[test]
fn disk_and_keyboard_on_virt() {
    require!("kernel", "initramfs");
    let devices =
        ["-device", "usb-kbd,bus=u.0", "-device", "qemu-xhci", "-device", "usb-storage,drive=d,bus=usb-bus.1"];
    let first = ["-cpu", "max", "-smp", "2", "-drive", DRIVE, "-device", "qemu-xhci,id=u,p2=1"];
    let images = DiskImages::new(&[&first[..], &devices].concat());
    let words = "rhea.test=disk,typing rhea.disk=/dev/sda rhea.notrim=1 rhea.input=keyboard rhea.events=6";
    let mut guest = Board::Virt.start(words, &images.args());
    guest.expect("RHEA-TEST disk PASS", STEP);
    types(&mut guest);
    let text = guest.transcript();
    passes(guest);
    images.check(&text);
}

fn grub(args: &[&str]) -> Emulator {
    let drive = format!("if=none,id=d,format=raw,snapshot=on,file={}", guest_file("amd64/grub.img"));
    let fixed = ["-M", "q35", "-cpu", "max", "-m", "512M", "-nic", "none", "-nographic", "-device", "qemu-xhci,id=u"];
    let disk = ["-drive", &drive, "-device", "usb-storage,bus=u.0,port=3,drive=d,bootindex=0"];
    Emulator::start(&[&fixed[..], &disk, args].concat())
}

fn boots_by_grub(mut guest: Emulator) {
    guest.expect("RHEA-TEST features START", LONG);
    guest.expect("RHEA-TEST features PASS", STEP);
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
}

#[test]
fn seabios_starts_from_a_usb_disk() {
    require!("amd64/grub.img", "amd64/bios-256k.bin");
    boots_by_grub(grub(&["-bios", &guest_file("amd64/bios-256k.bin"), "-device", "usb-kbd"]));
}

#[test]
fn uefi_starts_from_a_usb_disk() {
    require!("amd64/grub.img", "amd64/ovmf-code.fd", "amd64/ovmf-vars.fd");
    let scratch = Scratch::new();
    let vars = scratch.file("vars.fd", &std::fs::read(guest_file("amd64/ovmf-vars.fd")).expect("the variables"));
    let code = format!("if=pflash,unit=0,format=raw,readonly=on,file={}", guest_file("amd64/ovmf-code.fd"));
    let vars = format!("if=pflash,unit=1,format=raw,file={vars}");
    boots_by_grub(grub(&["-drive", &code, "-drive", &vars]));
}

/// What is refused, with one line that names it.
#[test]
fn refused() {
    require!();
    let scratch = Scratch::new();
    let image = scratch.file("image", &[0; 4096]);
    let cases: &[(&str, &[&str])] = &[
        ("-device usb-kbd", &["usb-kbd", "controller"]),
        ("-device qemu-xhci,p2=0", &["p2"]),
        ("-device qemu-xhci,p3=16", &["p3"]),
        ("-device qemu-xhci,intrs=99", &["intrs"]),
        ("-device qemu-xhci,streams=on", &["streams"]),
        ("-device qemu-xhci,no-such-property=1", &["no-such-property"]),
        ("-device qemu-xhci,addr=77", &["77"]),
        ("-device qemu-xhci -device usb-kbd,bus=no-such-bus.0", &["no-such-bus.0"]),
        ("-device qemu-xhci -device usb-kbd,port=9", &["port", "9"]),
        ("-device qemu-xhci -device usb-kbd,port=x", &["port", "x"]),
        ("-device qemu-xhci -device usb-kbd,port=1 -device usb-kbd,port=1", &["port", "in use"]),
        ("-device qemu-xhci -device usb-kbd,port=1.2", &["port", "usb-hub"]),
        ("-device qemu-xhci -device usb-hub,port=1 -device usb-kbd,port=1.9", &["port", "1.9"]),
        ("-device qemu-xhci,p2=1,p3=1 -device usb-kbd -device usb-mouse", &["usb-mouse", "in use"]),
        ("-device qemu-xhci -device usb-kbd,id=a -device usb-kbd,id=a", &["'id=a'"]),
        ("-device qemu-xhci -device usb-kbd,drive=d", &["drive"]),
        ("-device qemu-xhci -device usb-storage", &["drive"]),
        ("-device qemu-xhci -device usb-storage,drive=no-such-drive", &["no-such-drive"]),
        (
            "-device qemu-xhci -drive if=none,id=d,format=raw,file={image} -device usb-storage,drive=d,removable=maybe",
            &["maybe"],
        ),
        (
            "-device qemu-xhci -drive if=none,id=d,format=raw,file={image} -device usb-storage,drive=d,logical_block_size=777",
            &["logical_block_size"],
        ),
        (
            "-device qemu-xhci -drive if=none,id=d,format=raw,file={image} -device usb-storage,drive=d -device usb-storage,drive=d",
            &["'drive=d'"],
        ),
        ("-usbdevice no-such-device", &["no-such-device"]),
        ("-usbdevice tablet -device usb-kbd,bus=usb-bus.1", &["usb-bus.1"]),
        ("-global usb-kbd.no-such-property=1", &["no-such-property"]),
    ];
    for machine in ["q35", "virt"] {
        for (text, names) in cases {
            let text = format!("-M {machine} -display none -S {}", text.replace("{image}", &image));
            let done = run(&text.split(' ').collect::<Vec<_>>(), Duration::from_secs(30));
            assert_eq!(done.status.code(), Some(1), "{text}\n{}", done.stderr);
            assert_eq!(done.stderr.lines().count(), 1, "{text}\n{}", done.stderr);
            assert!(names.iter().all(|n| done.stderr.contains(n)), "{text}\n{}", done.stderr);
        }
    }
}
