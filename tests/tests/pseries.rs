//! Debian's ppc64el kernel on `-M pseries`: started directly, through the built-in client interface and by SLOF.

use std::process::Command;
use std::time::Duration;

use rhea_tests::{
    Board, Emulator, HttpServer, STEP, Scratch, disk_case, emulator_binary, guest_file, is_qemu, noise, require, run,
    sha256,
};

const PSERIES: Board = Board::Pseries;
/// Firmware and boot loaders take longer than a kernel.
const LONG: Duration = Duration::from_secs(240);
/// The built-in client interface instead of firmware.
const VOF: [&str; 2] = ["-M", "pseries,x-vof=on"];

fn start(words: &str, args: &[&str]) -> Emulator {
    let mut all = PSERIES.linux(words);
    all.extend(args.iter().map(|s| (*s).to_owned()));
    Emulator::start(&all)
}

/// Runs the case `smp` with `cpus` processors.
fn boots(cpus: &str, smp: &str, args: &[&str]) -> String {
    PSERIES.linux_case("smp", &format!("rhea.cpus={cpus}"), &[&["-smp", smp], args].concat())
}

#[test]
fn boots_through_the_client_interface() {
    require!("ppc64el/kernel", "ppc64el/initramfs");
    for (cpus, smp) in [("1", "1"), ("4", "4"), ("8", "8,threads=4")] {
        boots(cpus, smp, &VOF);
    }
}

#[test]
fn boots_through_firmware() {
    require!("ppc64el/kernel", "ppc64el/initramfs");
    for (cpus, smp) in [("1", "1"), ("4", "4"), ("8", "8,threads=4")] {
        boots(cpus, smp, &[]);
    }
}

#[test]
fn boots_on_every_processor_model() {
    require!("ppc64el/kernel", "ppc64el/initramfs");
    for (model, words, translation) in [
        ("power8", "", "hash-mmu"),
        ("power9", "", "radix-mmu"),
        ("power10", "", "radix-mmu"),
        ("power9", "disable_radix", "hash-mmu"),
        ("power10", "disable_radix", "hash-mmu"),
    ] {
        let mut guest = start(words, &[&VOF[..], &["-cpu", model, "-smp", "2"]].concat());
        guest.expect("guest# ", STEP);
        guest.send(&format!("dmesg | grep -c {translation}; grep -m1 platform /proc/cpuinfo\n"));
        guest.expect("pSeries", STEP);
        guest.send("exit\n");
        assert!(guest.wait(STEP).success(), "{}", guest.transcript());
        assert!(!guest.transcript().contains("\r\n0\r\n"), "{model} {words}: {}", guest.transcript());
    }
}

#[test]
fn compatibility_levels() {
    require!("ppc64el/kernel", "ppc64el/initramfs");
    for (level, shown) in [("power8", "POWER8"), ("power9", "POWER9")] {
        let machine = format!("pseries,x-vof=on,max-cpu-compat={level}");
        let mut guest = start("", &["-M", &machine]);
        guest.expect("guest# ", STEP);
        guest.send("grep -m1 cpu /proc/cpuinfo\n");
        guest.expect(&format!("{shown} (architected)"), STEP);
    }
}

#[test]
fn both_interrupt_controllers() {
    require!("ppc64el/kernel", "ppc64el/initramfs");
    for (mode, words, controller) in
        [("dual", "", "XIVE"), ("dual", "xive=off", "XICS"), ("xics", "", "XICS"), ("xive", "", "XIVE")]
    {
        let machine = format!("pseries,x-vof=on,ic-mode={mode}");
        let mut guest = start(words, &["-M", &machine, "-smp", "2", "-nic", "user,model=virtio"]);
        guest.expect("guest# ", STEP);
        guest.send("grep -c . /proc/interrupts; grep IPI /proc/interrupts\n");
        guest.expect(controller, STEP);
        guest.send("exit\n");
        assert!(guest.wait(STEP).success(), "{}", guest.transcript());
    }
}

#[test]
fn shell_takes_what_is_typed() {
    require!("ppc64el/kernel", "ppc64el/initramfs");
    let mut guest = start("", &VOF);
    guest.expect("guest# ", STEP);
    guest.send("echo $((6 * 7))-$(uname -m)\n");
    guest.expect("42-ppc64le", STEP);
    guest.send("exit\n");
    guest.expect("RHEA-SHELL left", STEP);
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
}

#[test]
fn guest_reboots() {
    require!("ppc64el/kernel", "ppc64el/initramfs");
    for args in [&VOF[..], &[]] {
        let mut guest = start("rhea.test=smp rhea.cpus=2 rhea.end=reboot", &[args, &["-smp", "2"]].concat());
        for _ in 0..3 {
            guest.expect("RHEA-TEST smp START", STEP);
            guest.expect("RHEA-TEST smp PASS", STEP);
        }
    }
}

#[test]
fn monitor_presses_the_power_button() {
    require!("ppc64el/kernel", "ppc64el/initramfs");
    let mut guest = start("", &VOF);
    guest.expect("guest# ", STEP);
    // Linux runs /sbin/poweroff for such an event.
    // The console is written by a thread of the kernel, which power-off does not wait for.
    guest.send(
        "mkdir -p /sbin; printf '#!/bin/sh\\necho BUTTON >/dev/console\\nsleep 1\\npoweroff -f\\n' >/sbin/poweroff\n",
    );
    guest.send("chmod +x /sbin/poweroff; echo rea''dy\n");
    guest.expect("ready", STEP);
    guest.send("\x01csystem_powerdown\n\x01c");
    guest.expect("BUTTON", STEP);
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
}

#[test]
fn virtio_disk() {
    require!("ppc64el/kernel", "ppc64el/initramfs");
    disk_case(PSERIES, "rhea.disk=/dev/vda", &[&VOF[..], &["-drive", "if=virtio,format=raw,file=IMAGE"]].concat());
}

#[test]
fn nvme_disk() {
    require!("ppc64el/kernel", "ppc64el/initramfs");
    let args = ["-drive", "if=none,id=d,format=raw,file=IMAGE", "-device", "nvme,drive=d,serial=1"];
    disk_case(PSERIES, "rhea.disk=/dev/nvme0n1", &[&VOF[..], &args].concat());
}

#[test]
fn virtual_scsi_disk() {
    require!("ppc64el/kernel", "ppc64el/initramfs");
    disk_case(PSERIES, "rhea.disk=/dev/sda", &[&VOF[..], &["-drive", "format=raw,file=IMAGE"]].concat());
}

#[test]
fn network() {
    require!("ppc64el/kernel", "ppc64el/initramfs");
    for device in ["virtio-net-pci", "e1000e", "spapr-vlan"] {
        let scratch = Scratch::new();
        let content = noise(4 << 20);
        let sum = sha256(&scratch.file("data", &content));
        let server = HttpServer::start(content);
        let words = format!("rhea.port={} rhea.sum={sum}", server.port());
        let device = format!("{device},netdev=n");
        let args = [&VOF[..], &["-netdev", "user,id=n", "-device", &device]].concat();
        let text = PSERIES.linux_case("net", &words, &args);
        assert!(text.contains("ip=10.0.2.15 router=10.0.2.2 dns=10.0.2.3"), "{text}");
    }
}

#[test]
fn firmware_starts_a_kernel_through_grub() {
    require!("ppc64el/grub.img");
    for drive in ["if=virtio,", ""] {
        let drive = format!("{drive}format=raw,snapshot=on,file={}", guest_file("ppc64el/grub.img"));
        let args = ["-M", "pseries", "-m", "1G", "-nographic", "-nic", "none", "-drive", &drive];
        let mut guest = Emulator::start(&args.map(String::from));
        guest.expect("RHEA-TEST features START", LONG);
        guest.expect("RHEA-TEST features PASS", STEP);
        assert!(guest.wait(STEP).success(), "{}", guest.transcript());
    }
}

#[test]
fn installer_comes_to_its_first_screen() {
    require!("ppc64el/installer-kernel", "ppc64el/installer-initrd");
    let (kernel, initrd) = (guest_file("ppc64el/installer-kernel"), guest_file("ppc64el/installer-initrd"));
    let args = ["-M", "pseries", "-m", "1G", "-nographic", "-kernel", &kernel, "-initrd", &initrd];
    let mut guest = Emulator::start(
        &[&args[..], &["-append", "console=hvc0"]].concat().iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(),
    );
    guest.expect("Select a language", LONG);
}

#[test]
fn what_cannot_be_is_refused_in_one_line() {
    require!();
    for args in [
        &["-M", "pseries,cap-htm=on"][..],
        &["-M", "pseries,cap-nested-hv=on"],
        &["-M", "pseries,x-vof=on"],
        &["-M", "pseries,max-cpu-compat=power10", "-cpu", "power9"],
        &["-M", "pseries,ic-mode=xive", "-cpu", "power8"],
        &["-M", "pseries", "-cpu", "power7"],
        &["-M", "pseries", "-smp", "8,threads=3"],
        &["-M", "pseries", "-smp", "16,threads=16"],
        &["-M", "pseries", "-m", "16M"],
        &["-M", "pseries", "-kernel", "/proc/self/exe"],
        &["-M", "pseries", "-bios", "/nonexistent"],
        &["-M", "pseries", "-dtb", "/dev/null"],
        &["-M", "pseries", "-prom-env", "x"],
    ] {
        let args: Vec<&str> = args.iter().copied().chain(["-nodefaults", "-nographic"]).collect();
        let ended = run(&args, STEP);
        assert!(!ended.status.success(), "{args:?}");
        assert_eq!(ended.stderr.trim_end().lines().count(), 1, "{args:?}: {}", ended.stderr);
    }
}

#[test]
fn the_name_chooses_the_machine() {
    require!();
    if is_qemu() {
        return;
    }
    let scratch = Scratch::new();
    let link = scratch.path("qemu-system-ppc64");
    std::os::unix::fs::symlink(emulator_binary(), &link).expect("a link");
    let text = Command::new(&link).args(["-M", "help"]).output().expect("it starts").stdout;
    assert!(String::from_utf8_lossy(&text).contains("pseries-1.0"));
    let text = Command::new(&link).args(["-cpu", "help"]).output().expect("it starts").stdout;
    assert!(String::from_utf8_lossy(&text).contains("power10"));
}
