//! xHCI and what sits at its ports, in Linux and in firmware.

use std::time::Duration;

use rhea_tests::{Board, Emulator, STEP, Scratch, disk_case, guest_file, require, run};

const Q35: Board = Board::Q35;
/// Firmware and boot loaders take longer than a kernel.
const LONG: Duration = Duration::from_secs(240);

const DRIVE: &str = "if=none,id=d,file=IMAGE,format=raw";

#[test]
fn disk_on_q35() {
    require!("amd64/kernel", "amd64/initramfs");
    // At super speed, and at high speed behind the other controller.
    for (controller, port) in [("qemu-xhci", "1"), ("nec-usb-xhci,p2=3,p3=1", "2")] {
        let device = format!("usb-storage,drive=d,port={port},serial=one");
        let args = ["-cpu", "max", "-smp", "2", "-drive", DRIVE, "-device", controller, "-device", &device];
        // The transport tells nothing of unmapping.
        disk_case(Q35, "rhea.disk=/dev/sda rhea.notrim=1", &args);
    }
}

#[test]
fn disk_on_virt() {
    require!("kernel", "initramfs");
    let args = ["-cpu", "max", "-smp", "2", "-drive", DRIVE, "-device", "qemu-xhci", "-device", "usb-storage,drive=d"];
    disk_case(Board::Virt, "rhea.disk=/dev/sda rhea.notrim=1", &args);
}

#[test]
fn disk_behind_a_hub() {
    require!("amd64/kernel", "amd64/initramfs");
    let devices = ["-usb", "-device", "usb-hub,port=2", "-device", "usb-storage,drive=d,port=2.7"];
    let args = [&["-cpu", "max", "-drive", DRIVE][..], &devices].concat();
    disk_case(Q35, "rhea.disk=/dev/sda rhea.notrim=1", &args);
}

/// Starts the case `typing`, which shows `events` events of the device called `name`.
fn listen(board: Board, name: &str, events: u32, args: &[&str]) -> Emulator {
    let mut all = board.linux(&format!("rhea.test=typing rhea.input={name} rhea.events={events}"));
    all.extend(args.iter().map(|s| (*s).to_owned()));
    let mut guest = Emulator::start(&all);
    guest.expect("listening to", STEP);
    // The shell opens the device after the line.
    std::thread::sleep(Duration::from_secs(1));
    guest
}

/// Types a line into the monitor, which shares the terminal with the serial port.
fn monitor(guest: &mut Emulator, line: &str) {
    guest.send("\x01c");
    guest.send(&format!("{line}\n"));
    guest.send("\x01c");
}

fn passes(mut guest: Emulator) {
    guest.expect("RHEA-TEST typing PASS", STEP);
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
}

fn types(board: Board, args: &[&str]) {
    // Scan code, key, end of the report; for each of two changes.
    let mut guest = listen(board, "keyboard", 6, args);
    monitor(&mut guest, "sendkey z");
    guest.expect("0001 002c 0001 0000", STEP);
    guest.expect("0001 002c 0000 0000", STEP);
    passes(guest);
}

#[test]
fn keyboard_on_q35() {
    require!("amd64/kernel", "amd64/initramfs");
    types(Q35, &["-M", "i8042=off", "-cpu", "max", "-usbdevice", "keyboard"]);
}

#[test]
fn keyboard_on_virt() {
    require!("kernel", "initramfs");
    types(Board::Virt, &["-cpu", "max", "-device", "qemu-xhci,p2=1", "-device", "usb-kbd"]);
}

#[test]
fn mouse() {
    require!("amd64/kernel", "amd64/initramfs");
    let mut guest = listen(Q35, "USB.mouse", 6, &["-cpu", "max", "-usb", "-device", "usb-mouse,bus=usb-bus.0,port=3"]);
    monitor(&mut guest, "mouse_move 7 -3");
    monitor(&mut guest, "mouse_button 1");
    guest.expect("0002 0000 0007 0000", STEP);
    guest.expect("0002 0001 fffd ffff", STEP);
    guest.expect("0001 0110 0001 0000", STEP);
    passes(guest);
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
