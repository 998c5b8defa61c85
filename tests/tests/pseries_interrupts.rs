//! XICS, XIVE and the changes between them, in programs without an operating system and in Debian's kernel; programs in either byte
//! order.

use std::process::Command;
use std::time::Duration;

use rhea_tests::{Emulator, STEP, Scratch, guest_file, is_qemu, require, run};

/// A hundred changes and 25 starts of the machine; firmware and boot loaders.
const LONG: Duration = Duration::from_secs(240);

/// A program without an operating system, started through the client interface, and its two devices.
fn bare(program: &str, args: &[&str]) -> Emulator {
    let kernel = guest_file(&format!("ppc64el/bare-{program}.elf"));
    let first =
        ["-M", "pseries,x-vof=on", "-m", "512M", "-nographic", "-vga", "none", "-nic", "none", "-kernel", &kernel];
    let devices = ["-device", "edu,addr=4", "-device", "edu,addr=5"];
    Emulator::start(&[&first[..], &devices, args].concat())
}

/// The numbers behind `name=` in a line.
fn number(text: &str, name: &str) -> u64 {
    let (_, rest) = text.rsplit_once(&format!(" {name}=")).unwrap_or_else(|| panic!("no {name} in {text}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|e| panic!("{name} in {text}: {e}"))
}

/// What `info pic` says while the program waits, with both devices at work.
fn sources(guest: &mut Emulator, controller: &str) {
    guest.expect(&format!("HOLD {controller}"), STEP);
    if !is_qemu() {
        guest.send("\x01cinfo pic\n");
        let text = guest.expect("0x1300", STEP) + &guest.expect("\n", STEP);
        assert!(text.contains(&format!("active: {controller}")), "{text}");
        // The four level interrupts of the host bridge, the two of events, the message.
        for source in ["0x1000", "0x1001", "0x1200", "0x1201", "0x1202", "0x1203", "0x1300"] {
            assert!(text.contains(source), "{source}: {text}");
        }
        guest.send("\x01c");
    }
    guest.send("g");
}

fn changes_under_load(order: &str, args: &[&str]) {
    let log = Scratch::new();
    let file = log.path("log");
    let trace: &[&str] = if is_qemu() { &[] } else { &["-d", "irqchip", "-D", &file] };
    let mut guest = bare(&format!("interrupts-{order}"), &[args, trace].concat());
    sources(&mut guest, "XICS");
    sources(&mut guest, "XIVE");
    guest.expect("RHEA-BARE PASS", LONG);
    let line = guest.expect("\n", STEP);
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
    assert_eq!((number(&line, "changes"), number(&line, "resets")), (100, 25), "{line}");
    for device in ["pin", "message"] {
        assert!(number(&line, device) > 500, "{line}");
    }
    if !is_qemu() {
        // Besides those asked for: each reset goes back to XICS, from XIVE only.
        let log = std::fs::read_to_string(&file).expect("a log");
        let count = |what: &str| log.lines().filter(|l| l.contains(what)).count();
        let (xive, xics) = (count("XIVE is active"), count("XICS is active"));
        assert!(xive >= 50 && xics >= 50, "XIVE {xive} times, XICS {xics} times");
    }
}

#[test]
fn a_hundred_changes_lose_no_interrupt() {
    require!("ppc64el/bare-interrupts-little.elf");
    changes_under_load("little", &[]);
}

#[test]
fn a_hundred_changes_lose_no_interrupt_in_a_big_endian_program() {
    require!("ppc64el/bare-interrupts-big.elf");
    changes_under_load("big", &["-cpu", "power9"]);
}

#[test]
fn both_byte_orders() {
    require!("ppc64el/bare-order-little.elf", "ppc64el/bare-order-big.elf");
    for order in ["big", "little"] {
        for model in ["power9", "power10"] {
            let mut guest = bare(&format!("order-{order}"), &["-cpu", model]);
            guest.expect("RHEA-BARE PASS", STEP);
            assert!(guest.wait(STEP).success(), "{}", guest.transcript());
        }
    }
}

/// Debian's kernel on XICS, on XIVE after a reset, on XICS again; on the first two followed by a kernel that it starts by kexec. A disk's
/// messages and the pin of the device `edu` work under each.
#[test]
fn linux_changes_controllers() {
    require!("ppc64el/grub.img");
    let scratch = Scratch::new();
    let disk = scratch.path("disk");
    std::fs::copy(guest_file("ppc64el/grub.img"), &disk).expect("a copy of the disk");
    // What the case needs, which loads sooner than all there are.
    let modules = "virtio,virtio_ring,virtio_pci_modern_dev,virtio_pci_legacy_dev,virtio_pci,virtio_blk,fat,vfat,nls_cp437,\
                   nls_ascii,uio,uio_pci_generic";
    let words = format!("rhea.rounds=3 rhea.modules={modules} movablecore=400M xive=off");
    let settings = format!("set timeout=0\nset test=controllers\nset words=\"{words}\"\n");
    let words = scratch.file("words.cfg", settings.as_bytes());
    // The file system of the second partition.
    let target = format!("{disk}@@{}", 30720 * 512);
    let copied = Command::new("mcopy").args(["-i", &target, &words, "::words.cfg"]).status().expect("mcopy");
    assert!(copied.success());
    let drive = format!("if=virtio,format=raw,file={disk}");
    let args =
        ["-M", "pseries", "-m", "1G", "-smp", "2", "-nographic", "-vga", "none", "-nic", "none", "-drive", &drive];
    let mut guest = Emulator::start(&[&args[..], &["-device", "edu"]].concat());
    for (controller, kexec) in [("XICS", ""), ("XICS", "1"), ("XIVE", ""), ("XIVE", "1"), ("XICS", "")] {
        guest.expect("RHEA-TEST controllers START", LONG);
        guest.expect(&format!("controller={controller} kexec={kexec}\r\n"), STEP);
        for _ in 0..2 {
            guest.expect("edu: interrupts=300", STEP);
        }
    }
    guest.expect("RHEA-TEST controllers PASS", STEP);
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
}

/// A guest that insists on a controller which the machine does not have is told so: negotiation fails.
#[test]
fn controllers_that_are_not_there_are_refused() {
    require!("ppc64el/bare-interrupts-little.elf");
    if is_qemu() {
        return;
    }
    // The program negotiates XICS first, then XIVE.
    for (mode, number) in [("xive", "0"), ("xics", "1")] {
        let mut guest =
            bare("interrupts-little", &["-M", &format!("pseries,x-vof=on,ic-mode={mode}"), "-d", "guest_errors"]);
        if mode == "xics" {
            guest.expect("HOLD XICS", STEP);
            guest.send("g");
        }
        assert!(guest.wait(STEP).success(), "{}", guest.transcript());
        // The log and the console come by two streams, which may meet in the middle of a line.
        for text in [format!("ic-mode={mode})"), "RHEA-BARE FAIL: ".to_owned(), format!("negotiation {number}")] {
            assert!(guest.transcript().contains(&text), "{text}: {}", guest.transcript());
        }
    }
    let ended = run(&["-M", "pseries,ic-mode=both", "-nodefaults", "-nographic"], STEP);
    assert!(!ended.status.success() && ended.stderr.contains("ic-mode"), "{}", ended.stderr);
}
