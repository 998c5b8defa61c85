//! Debian's amd64 kernel on `-M q35`: started directly, by SeaBIOS and by UEFI.

use std::process::Command;
use std::time::Duration;

use rhea_tests::{Board, Emulator, HttpServer, STEP, Scratch, disk_case, guest_file, noise, ppm, require, sha256};

const Q35: Board = Board::Q35;
/// Firmware and boot loaders take longer than a kernel.
const LONG: Duration = Duration::from_secs(240);

fn boots(cpus: u32) {
    Q35.linux_case("smp", &format!("rhea.cpus={cpus}"), &["-cpu", "max", "-smp", &cpus.to_string()]);
}

#[test]
fn boots_with_one_processor() {
    require!("amd64/kernel", "amd64/initramfs");
    boots(1);
}

#[test]
fn boots_with_four_processors() {
    require!("amd64/kernel", "amd64/initramfs");
    boots(4);
}

#[test]
fn boots_on_every_processor_model() {
    require!("amd64/kernel", "amd64/initramfs");
    for model in ["qemu64", "Nehalem", "Haswell", "Skylake-Client", "Skylake-Server", "EPYC", "EPYC-Rome"] {
        Q35.linux_case("features", "", &["-cpu", model]);
    }
}

#[test]
fn boots_with_memory_above_4_gib() {
    require!("amd64/kernel", "amd64/initramfs");
    let mut guest = Q35.start("", &["-cpu", "max", "-m", "5G"]);
    guest.expect("guest# ", STEP);
    guest.send("grep MemTotal /proc/meminfo\n");
    guest.expect("MemTotal:", STEP);
    let line = guest.expect("kB", STEP);
    let total: u64 = line.trim().trim_end_matches(" kB").trim().parse().expect("a number");
    assert!(total >= 4_800_000, "{total} kB");
}

#[test]
fn shell_takes_what_is_typed() {
    require!("amd64/kernel", "amd64/initramfs");
    let mut guest = Q35.start("", &["-cpu", "max"]);
    guest.expect("guest# ", STEP);
    guest.send("echo $((6 * 7))-$(uname -m)\n");
    guest.expect("42-x86_64", STEP);
    guest.send("exit\n");
    guest.expect("RHEA-SHELL left", STEP);
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
}

#[test]
fn monitor_presses_the_power_button() {
    require!("amd64/kernel", "amd64/initramfs");
    let mut guest = Q35.start("rhea.test=powerbutton", &["-cpu", "max"]);
    guest.expect("waiting for the button", STEP);
    guest.send("\x01csystem_powerdown\n");
    guest.send("\x01c");
    guest.expect("RHEA-TEST powerbutton PASS", STEP);
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
}

/// Twice, woken by these commands of the monitor or by the guest's own clock.
fn suspends(mut guest: Emulator, wake: [Option<&str>; 2]) {
    for (round, wake) in (1..).zip(wake) {
        guest.expect(&format!("suspending {round}"), LONG);
        if let Some(command) = wake {
            // What comes before the machine sleeps is no wake-up.
            std::thread::sleep(Duration::from_secs(3));
            guest.send("\x01cinfo status\n");
            guest.expect("paused (suspended)", STEP);
            guest.send(&format!("{command}\n\x01c"));
        }
        guest.expect(&format!("woken {round}"), LONG);
    }
    guest.expect("RHEA-TEST suspend PASS", STEP);
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
}

#[test]
fn suspends_to_ram_and_wakes_by_the_clock() {
    require!("amd64/kernel", "amd64/initramfs");
    let scratch = Scratch::new();
    for (cpus, drive, disk) in [("1", "if=virtio,", "vda"), ("4", "", "sda")] {
        let image = scratch.file("disk.img", &vec![0; 16 << 20]);
        let drive = format!("{drive}format=raw,file={image}");
        let words = format!("no_console_suspend rhea.test=suspend rhea.wake=rtc rhea.disk=/dev/{disk}");
        suspends(Q35.start(&words, &["-cpu", "max", "-smp", cpus, "-drive", &drive]), [None; 2]);
    }
}

#[test]
fn wakes_by_button_key_and_monitor() {
    require!("amd64/kernel", "amd64/initramfs");
    for commands in [["system_powerdown", "sendkey a"], ["system_wakeup", "system_powerdown"]] {
        let guest = Q35.start("no_console_suspend rhea.test=suspend", &["-cpu", "max", "-smp", "2"]);
        suspends(guest, commands.map(Some));
    }
}

#[test]
fn firmware_wakes_a_suspended_system() {
    require!("amd64/grub.img", "amd64/bios-256k.bin", "amd64/ovmf-code.fd", "amd64/ovmf-vars.fd");
    let scratch = Scratch::new();
    let vars = scratch.file("vars.fd", &std::fs::read(guest_file("amd64/ovmf-vars.fd")).expect("the variables"));
    let code = format!("if=pflash,unit=0,format=raw,readonly=on,file={}", guest_file("amd64/ovmf-code.fd"));
    let (vars, bios) = (format!("if=pflash,unit=1,format=raw,file={vars}"), guest_file("amd64/bios-256k.bin"));
    let words = "type=1,serial=no_console_suspend rhea.test=suspend rhea.wake=rtc";
    let without_smm = ["-machine", "smm=off", "-bios", &bios];
    let firmwares: [(&[&str], &[&str]); 3] =
        [(&["-bios", &bios], &["4"]), (&without_smm, &["1"]), (&["-drive", &code, "-drive", &vars], &["1", "4"])];
    for (firmware, counts) in firmwares {
        for cpus in counts {
            let disk = ["-smp", cpus, "-smbios", words, "-drive", "if=virtio,IMAGE"];
            suspends(grub(&[firmware, &disk].concat()), [None; 2]);
        }
    }
}

#[test]
fn guest_reboots() {
    require!("amd64/kernel", "amd64/initramfs");
    let mut guest = Q35.start("rhea.test=smp rhea.cpus=2 rhea.end=reboot", &["-cpu", "max", "-smp", "2"]);
    guest.expect("RHEA-TEST smp PASS", STEP);
    guest.expect("RHEA-TEST smp START", STEP);
    guest.expect("RHEA-TEST smp PASS", STEP);
}

#[test]
fn idle_guest_uses_little_processor_time() {
    require!("amd64/kernel", "amd64/initramfs");
    let mut guest = Q35.start("", &["-cpu", "max", "-smp", "2"]);
    guest.expect("guest# ", STEP);
    std::thread::sleep(Duration::from_secs(2));
    let before = guest.cpu_time();
    std::thread::sleep(Duration::from_secs(4));
    let used = guest.cpu_time() - before;
    assert!(used < Duration::from_secs(1), "{used:?} of processor time in 4 s of idling");
}

#[test]
fn clocks_agree_with_the_host() {
    require!("amd64/kernel", "amd64/initramfs");
    let before = std::time::SystemTime::now();
    let text = Q35.linux_case("time", "", &["-cpu", "max"]);
    let guest: u64 = text
        .lines()
        .find_map(|l| l.trim().strip_prefix("epoch="))
        .and_then(|n| n.trim().parse().ok())
        .expect("the guest's time");
    let host = before.duration_since(std::time::UNIX_EPOCH).expect("a host clock after 1970").as_secs();
    assert!((host.saturating_sub(5)..host + 200).contains(&guest), "guest {guest}, host {host}");
}

#[test]
fn virtio_disk() {
    require!("amd64/kernel", "amd64/initramfs");
    let drive = "if=none,id=d,file=IMAGE,format=raw,discard=unmap";
    disk_case(Q35, "", &["-cpu", "max", "-smp", "2", "-drive", drive, "-device", "virtio-blk-pci,drive=d"]);
}

#[test]
fn ahci_disk() {
    require!("amd64/kernel", "amd64/initramfs");
    let drive = "if=none,id=d,file=IMAGE,format=raw,discard=unmap";
    let args = ["-cpu", "max", "-smp", "2", "-drive", drive, "-device", "ide-hd,drive=d,bus=ide.0"];
    disk_case(Q35, "rhea.disk=/dev/sda", &args);
}

#[test]
fn nvme_disk() {
    require!("amd64/kernel", "amd64/initramfs");
    let drive = "if=none,id=d,file=IMAGE,format=raw,discard=unmap";
    let args = ["-cpu", "max", "-smp", "2", "-drive", drive, "-device", "nvme,drive=d,serial=one"];
    disk_case(Q35, "rhea.disk=/dev/nvme0n1", &args);
}

/// An ISO 9660 image with a file `data`, and the sum of the file.
fn iso(scratch: &Scratch) -> (String, String) {
    let folder = scratch.path("iso");
    std::fs::create_dir_all(&folder).expect("a folder");
    let data = format!("{folder}/data");
    std::fs::write(&data, noise(5 << 20)).expect("a file");
    let image = scratch.path("cd.iso");
    let made = Command::new("xorriso")
        .args(["-as", "mkisofs", "-quiet", "-R", "-V", "RHEA", "-o", &image, &folder])
        .output()
        .expect("xorriso; tests/install installs it");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (image, sha256(&data))
}

#[test]
fn cdrom() {
    require!("amd64/kernel", "amd64/initramfs");
    let scratch = Scratch::new();
    let (image, sum) = iso(&scratch);
    Q35.linux_case("cdrom", &format!("rhea.sum={sum}"), &["-cpu", "max", "-cdrom", &image]);
}

#[test]
fn network() {
    require!("amd64/kernel", "amd64/initramfs");
    for device in ["virtio-net-pci", "e1000e"] {
        let scratch = Scratch::new();
        let content = noise(4 << 20);
        let sum = sha256(&scratch.file("data", &content));
        let server = HttpServer::start(content);
        let words = format!("rhea.port={} rhea.sum={sum}", server.port());
        let device = format!("{device},netdev=n");
        let text = Q35.linux_case("net", &words, &["-cpu", "max", "-netdev", "user,id=n", "-device", &device]);
        assert!(text.contains("ip=10.0.2.15 router=10.0.2.2 dns=10.0.2.3"), "{text}");
    }
}

fn grub(args: &[&str]) -> Emulator {
    let drive = format!("format=raw,snapshot=on,file={},", guest_file("amd64/grub.img"));
    let args: Vec<String> = args.iter().map(|a| a.replace("IMAGE", &drive)).collect();
    let fixed = ["-M", "q35", "-cpu", "max", "-m", "512M", "-nic", "none", "-nographic"].map(String::from);
    Emulator::start(&[&fixed[..], &args].concat())
}

fn boots_by_grub(mut guest: Emulator) {
    guest.expect("RHEA-TEST features START", LONG);
    guest.expect("RHEA-TEST features PASS", STEP);
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
}

#[test]
fn seabios_starts_a_kernel_through_grub() {
    require!("amd64/grub.img", "amd64/bios-256k.bin");
    let bios = guest_file("amd64/bios-256k.bin");
    boots_by_grub(grub(&["-smp", "1", "-bios", &bios, "-drive", "if=virtio,IMAGE"]));
    boots_by_grub(grub(&["-smp", "4", "-bios", &bios, "-drive", "IMAGE"]));
}

#[test]
fn uefi_starts_a_kernel_through_grub() {
    require!("amd64/grub.img", "amd64/ovmf-code.fd", "amd64/ovmf-vars.fd");
    for cpus in ["1", "4"] {
        let scratch = Scratch::new();
        let vars = scratch.file("vars.fd", &std::fs::read(guest_file("amd64/ovmf-vars.fd")).expect("the variables"));
        let code = format!("if=pflash,unit=0,format=raw,readonly=on,file={}", guest_file("amd64/ovmf-code.fd"));
        let vars = format!("if=pflash,unit=1,format=raw,file={vars}");
        let guest = grub(&["-smp", cpus, "-drive", &code, "-drive", &vars, "-drive", "if=virtio,IMAGE"]);
        boots_by_grub(guest);
    }
}

/// A folder for TFTP: boot loaders from Debian's installer, which load the tests' kernel.
fn tftp(scratch: &Scratch) -> String {
    let put = |name: &str, from: &str| {
        let _ = scratch.file(name, &std::fs::read(guest_file(from)).unwrap_or_else(|e| panic!("{from}: {e}")));
    };
    put("pxelinux.0", "amd64/netboot/pxelinux.0");
    put("ldlinux.c32", "amd64/netboot/boot-screens/ldlinux.c32");
    put("grub.efi", "amd64/netboot/grubx64.efi");
    put("kernel", "amd64/kernel");
    put("initramfs", "amd64/initramfs");
    let words = "console=ttyS0 panic=-1 rhea.test=features";
    for (name, text) in [
        ("pxelinux.cfg/default", format!("DEFAULT l\nLABEL l\nKERNEL kernel\nAPPEND initrd=initramfs {words}\n")),
        ("debian-installer/amd64/grub/grub.cfg", format!("linux /kernel {words}\ninitrd /initramfs\nboot\n")),
    ] {
        let path = scratch.path(name);
        std::fs::create_dir_all(std::path::Path::new(&path).parent().expect("a folder")).expect("a folder");
        let _ = scratch.file(name, text.as_bytes());
    }
    scratch.path("")
}

#[test]
fn kernels_come_over_the_network() {
    require!("amd64/bios-256k.bin", "amd64/ovmf-code.fd", "amd64/ovmf-vars.fd", "amd64/netboot/pxelinux.0");
    let scratch = Scratch::new();
    let folder = tftp(&scratch);
    let start = |nic: &str, file: &str, firmware: &[&str]| {
        let net = format!("user,id=n,tftp={folder},bootfile={file}");
        let fixed =
            ["-M", "q35", "-cpu", "max", "-m", "1G", "-nographic", "-boot", "n", "-netdev", &net, "-device", nic];
        boots_by_grub(Emulator::start(&[&fixed[..], firmware].concat()));
    };
    let bios = guest_file("amd64/bios-256k.bin");
    start("e1000e,netdev=n", "pxelinux.0", &["-bios", &bios]);
    let vars = scratch.file("vars.fd", &std::fs::read(guest_file("amd64/ovmf-vars.fd")).expect("the variables"));
    let code = format!("if=pflash,unit=0,format=raw,readonly=on,file={}", guest_file("amd64/ovmf-code.fd"));
    let vars = format!("if=pflash,unit=1,format=raw,file={vars}");
    start("virtio-net-pci,netdev=n,bootindex=0", "grub.efi", &["-drive", &code, "-drive", &vars]);
}

/// UEFI in system-management mode, which alone writes the flash with the variables.
fn secure_uefi(vars: &str, image: &str) -> Emulator {
    let code = format!("if=pflash,unit=0,format=raw,readonly=on,file={}", guest_file("amd64/ovmf-secure-code.fd"));
    let vars = format!("if=pflash,unit=1,format=raw,file={vars}");
    let drive = format!("if=virtio,format=raw,snapshot=on,file={image}");
    let machine = ["-M", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on", "-cpu", "max"];
    let devices = ["-smp", "2", "-m", "512M", "-nic", "none", "-nographic", "-drive", &code, "-drive", &vars];
    Emulator::start(&[&machine[..], &devices, &["-drive", &drive]].concat())
}

#[test]
fn secure_boot_starts_signed_code_only() {
    require!("amd64/signed.img", "amd64/grub.img", "amd64/ovmf-secure-code.fd", "amd64/ovmf-secure-vars.fd");
    let scratch = Scratch::new();
    let enrolled = std::fs::read(guest_file("amd64/ovmf-secure-vars.fd")).expect("the variables");
    let vars = scratch.file("vars.fd", &enrolled);
    let mut guest = secure_uefi(&vars, &guest_file("amd64/signed.img"));
    guest.expect("secureboot: Secure boot enabled", LONG);
    guest.expect("RHEA-TEST features PASS", LONG);
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
    // The boot options it found are kept.
    assert!(std::fs::read(&vars).expect("the variables") != enrolled);
    let mut guest = secure_uefi(&vars, &guest_file("amd64/grub.img"));
    guest.expect("Access Denied", LONG);
}

#[test]
fn installer_shows_its_first_screen() {
    require!("amd64/installer-kernel", "amd64/installer-initrd");
    let mut guest = Emulator::start_on_terminal(&[
        "-M",
        "q35",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        "1G",
        "-kernel",
        &guest_file("amd64/installer-kernel"),
        "-initrd",
        &guest_file("amd64/installer-initrd"),
        "-append",
        "console=ttyS0 quiet",
        "-nographic",
        "-netdev",
        "user,id=n",
        "-device",
        "virtio-net-pci,netdev=n",
    ]);
    guest.expect("Select a language", LONG);
    guest.expect("English", STEP);
    guest.send("\x01x");
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
}

/// The frame buffer console with the list of languages: a grey window on blue, one line of it selected in red.
fn is_language_list((width, height, pixels): &(usize, usize, Vec<[u8; 3]>)) -> bool {
    let share = |colour: [u8; 3]| pixels.iter().filter(|p| **p == colour).count() * 100 / pixels.len().max(1);
    let selected = |row: &&[[u8; 3]]| row.iter().filter(|p| **p == [0xaa, 0, 0]).count() > 100;
    let rows: Vec<usize> = pixels.chunks(*width).enumerate().filter(|(_, row)| selected(row)).map(|(n, _)| n).collect();
    let bar = rows.windows(2).all(|w| w[1] == w[0] + 1) && (12..=20).contains(&rows.len());
    *height >= 600 && share([0xaa; 3]) >= 60 && share([0, 0, 0xaa]) >= 4 && bar
}

#[test]
fn installer_draws_its_first_screen_on_vga() {
    require!("amd64/installer-kernel", "amd64/installer-initrd");
    let scratch = Scratch::new();
    let dump = scratch.path("screen.ppm");
    let (kernel, initrd) = (guest_file("amd64/installer-kernel"), guest_file("amd64/installer-initrd"));
    let machine = ["-M", "q35", "-cpu", "max", "-smp", "2", "-m", "1G", "-nic", "none", "-vga", "std"];
    let boot = ["-kernel", &kernel, "-initrd", &initrd, "-append", "quiet"];
    let ports = ["-display", "none", "-serial", "null", "-monitor", "stdio"];
    let mut monitor = Emulator::start(&[&machine[..], &boot, &ports].concat());
    monitor.expect(") ", STEP);
    let end = std::time::Instant::now() + LONG;
    let mut last = None;
    while std::time::Instant::now() < end {
        std::thread::sleep(Duration::from_secs(3));
        monitor.send(&format!("screendump {dump}\n"));
        monitor.expect(") ", STEP);
        last = ppm(&dump);
        if last.as_ref().is_some_and(is_language_list) {
            monitor.send("quit\n");
            assert!(monitor.wait(STEP).success(), "{}", monitor.transcript());
            return;
        }
    }
    // Where the processors are, twice: a guest that is slow moves on, one that is stuck does not.
    for _ in 0..2 {
        monitor.send("info registers -a\n");
        monitor.expect(") ", STEP);
        std::thread::sleep(Duration::from_secs(3));
    }
    let size = last.map(|(w, h, _)| (w, h));
    panic!("no list of languages; the last screen: {size:?}\n{}", monitor.transcript());
}

/// All tests of memory but the end of the last; with `RHEA_MEMTEST_PASS` a whole pass.
#[test]
fn memtest_finds_the_memory_and_no_errors() {
    require!("amd64/memtest.bin");
    let memtest = guest_file("amd64/memtest.bin");
    let args = ["-M", "q35", "-cpu", "max", "-m", "32M", "-nic", "none", "-nographic", "-kernel", &memtest];
    let mut guest = Emulator::start(&[&args[..], &["-append", "console=ttyS0,115200"]].concat());
    guest.expect("Memtest86+", LONG);
    // The last test mostly waits, for three minutes, for bits to fade.
    guest.expect("[Bit fade test", LONG);
    if std::env::var_os("RHEA_MEMTEST_PASS").is_some() {
        guest.expect("Pass:  1        Errors: 0 ", Duration::from_secs(900));
    } else {
        guest.expect("Errors: 0 ", STEP);
    }
}
