//! Debian's ppc64el kernel on `-M pseries`: started directly, through the built-in client interface and by SLOF.

use std::process::Command;
use std::time::Duration;

use rhea_tests::{
    Board, Emulator, STEP, Scratch, disk_and_network_case, emulator_binary, guest_file, is_qemu, noise, ppm, require,
    run, sha256,
};

const PSERIES: Board = Board::Pseries;
/// Firmware and boot loaders take longer than a kernel.
const LONG: Duration = Duration::from_secs(240);
/// The built-in client interface instead of firmware.
const VOF: [&str; 2] = ["-M", "pseries,x-vof=on"];

/// Without a display firmware has no USB to scan: where those are the matter, they are there.
const NO_DISPLAY: [&str; 2] = ["-vga", "none"];

fn start(words: &str, args: &[&str]) -> Emulator {
    PSERIES.start(words, &[&NO_DISPLAY[..], args].concat())
}

/// Runs the cases `features` and `smp` with `cpus` processors.
fn boots(words: &str, cpus: &str, smp: &str, args: &[&str]) -> String {
    let words = format!("rhea.cpus={cpus} {words}");
    PSERIES.linux_case("features,smp", &words, &[&NO_DISPLAY[..], &["-smp", smp], args].concat())
}

#[test]
fn boots_through_firmware() {
    require!("ppc64el/kernel", "ppc64el/initramfs");
    // Fewer processors are in the tests of reboots and of devices that come and go.
    boots("", "8", "8,threads=4", &[]);
}

#[test]
fn boots_through_the_client_interface_on_every_processor_model() {
    require!("ppc64el/kernel", "ppc64el/initramfs");
    for (model, words, translation, cpus, smp) in [
        ("power8", "", "hash-mmu", "4", "4"),
        ("power9", "", "radix-mmu", "1", "1"),
        ("power10", "", "radix-mmu", "8", "8,threads=4"),
        ("power9", "disable_radix", "hash-mmu", "2", "2"),
        ("power10", "disable_radix", "hash-mmu", "2", "2,threads=2"),
    ] {
        let text = boots(words, cpus, smp, &[&VOF[..], &["-cpu", model]].concat());
        assert!(text.contains(translation) && text.contains("pSeries"), "{model} {words}: {text}");
    }
}

/// Interrupt controllers, and levels of compatibility: the oldest knows one controller only.
#[test]
fn what_is_negotiated() {
    require!("ppc64el/kernel", "ppc64el/initramfs");
    for (options, words, controller, level) in [
        ("ic-mode=dual", "", "XIVE", "POWER10"),
        ("ic-mode=dual", "xive=off", "XICS", "POWER10"),
        ("ic-mode=xics,max-cpu-compat=power8", "", "XICS", "POWER8"),
        ("ic-mode=xive,max-cpu-compat=power9", "", "XIVE", "POWER9"),
    ] {
        let machine = format!("pseries,x-vof=on,{options}");
        let mut guest = start(words, &["-M", &machine, "-smp", "2", "-nic", "user,model=virtio"]);
        guest.expect("guest# ", STEP);
        guest.send("grep -m1 cpu /proc/cpuinfo; grep -c . /proc/interrupts; grep IPI /proc/interrupts\n");
        guest.expect(&format!("{level} (architected)"), STEP);
        guest.expect(controller, STEP);
        guest.send("exit\n");
        guest.expect("RHEA-SHELL left", STEP);
        assert!(guest.wait(STEP).success(), "{}", guest.transcript());
    }
}

#[test]
fn guest_reboots() {
    require!("ppc64el/kernel", "ppc64el/initramfs");
    for args in [&VOF[..], &[]] {
        let mut guest = start("rhea.test=smp rhea.cpus=4 rhea.end=reboot", &[args, &["-smp", "4"]].concat());
        for _ in 0..2 {
            guest.expect("RHEA-TEST smp START", STEP);
            guest.expect("RHEA-TEST smp PASS", STEP);
        }
    }
}

#[test]
fn shell_takes_what_is_typed_until_the_power_button_is_pressed() {
    require!("ppc64el/kernel", "ppc64el/initramfs");
    let mut guest = start("", &VOF);
    guest.expect("guest# ", STEP);
    guest.send("echo $((6 * 7))-$(uname -m)\n");
    guest.expect("42-ppc64le", STEP);
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
fn disks_and_network_cards() {
    require!("ppc64el/kernel", "ppc64el/initramfs");
    let disks = [
        "-drive",
        "if=virtio,format=raw,file=IMAGE",
        "-drive",
        "if=none,id=d,format=raw,file=IMAGE",
        "-device",
        "nvme,drive=d,serial=1",
        "-drive",
        "format=raw,file=IMAGE",
    ];
    let mut args = [&VOF[..], &NO_DISPLAY, &disks].concat();
    for card in [
        ["-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0"],
        ["-netdev", "user,id=n1", "-device", "e1000e,netdev=n1"],
        ["-netdev", "user,id=n2", "-device", "spapr-vlan,netdev=n2"],
    ] {
        args.extend(card);
    }
    disk_and_network_case(PSERIES, "/dev/vda,/dev/nvme0n1,/dev/sda", 3, "", &args);
}

/// Firmware's console on a display, typed at the keyboard: as it is without options, but for who looks at it.
#[test]
fn firmware_shows_what_is_typed() {
    require!();
    let scratch = Scratch::new();
    let dump = scratch.path("screen.ppm");
    let mut guest = Emulator::start(&[
        "-M",
        "pseries",
        "-m",
        "512M",
        "-nic",
        "none",
        "-display",
        "none",
        "-serial",
        "mon:stdio",
        "-prom-env",
        "auto-boot?=false",
    ]);
    guest.expect("USB Keyboard", LONG);
    guest.expect("using screen & keyboard", STEP);
    guest.expect("Ready!", STEP);
    // A key goes up after a tenth of a second; firmware looks at its keyboard while it waits for one.
    for key in ["6", "spc", "7", "spc", "shift-8", "spc", "dot", "ret"] {
        monitor(&mut guest, &format!("sendkey {key}"));
        std::thread::sleep(Duration::from_millis(300));
    }
    // In hexadecimal.
    guest.expect("2a  ok", STEP);
    monitor(&mut guest, &format!("screendump {dump}"));
    let mut shown = 0;
    for _ in 0..100 {
        if let Some((800, 600, pixels)) = ppm(&dump) {
            shown = pixels.iter().filter(|p| **p != [0; 3]).count();
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    // Letters on black: some 30 lines of them.
    assert!((5_000..100_000).contains(&shown), "{shown} points are not black");
    monitor(&mut guest, "quit");
}

/// Types a command into the monitor.
fn monitor(guest: &mut Emulator, command: &str) {
    guest.send(&format!("\x01c{command}\n\x01c"));
}

/// Waits until the guest's `expression` is `value`.
fn until(guest: &mut Emulator, expression: &str, value: &str) {
    guest.send(&format!(
        "n=0; while [ \"$({expression})\" != '{value}' ] && [ $n -lt 300 ]; do sleep 0.1; n=$((n + 1)); done; \
         echo \"is=$({expression})=\"\n"
    ));
    guest.expect(&format!("is={value}="), STEP);
}

/// Plugs a core until the guest has so many processors: one that it has switched off is given up a moment later.
fn plug_core(guest: &mut Emulator, device: &str, cpus: &str) {
    let wanted = format!("is={cpus}=");
    for _ in 0..20 {
        monitor(guest, &format!("device_add {device}"));
        guest.send(&format!("n=0; while [ $(nproc) != {cpus} ] && [ $n -lt 50 ]; do sleep 0.1; n=$((n + 1)); done; "));
        guest.send("echo \"is=$(nproc)=\"\n");
        if guest.expect_any(&["is=1=", "is=2=", "is=4="], STEP).contains(&wanted) {
            return;
        }
    }
    panic!("no core came: {}", guest.transcript());
}

#[test]
fn cores_come_and_go() {
    require!("ppc64el/kernel", "ppc64el/initramfs");
    for (model, smp, plugged) in
        [("power10_v2.0", "1,maxcpus=3", "core-id=1"), ("power9_v2.2", "2,threads=2,maxcpus=6", "core-id=4")]
    {
        let mut guest = start("", &[&VOF[..], &["-smp", smp, "-cpu", model]].concat());
        guest.expect("guest# ", STEP);
        let first = smp.split(',').next().unwrap_or_default();
        let more = if first == "1" { "2" } else { "4" };
        until(&mut guest, "nproc", first);
        for _ in 0..2 {
            plug_core(&mut guest, &format!("{model}-spapr-cpu-core,id=core,{plugged}"), more);
            monitor(&mut guest, &format!("device_add {model}-spapr-cpu-core,{plugged}"));
            guest.expect("there is a core with this number", STEP);
            monitor(&mut guest, "device_del core");
            until(&mut guest, "nproc", first);
        }
        // A reset keeps what is plugged.
        if first == "1" {
            plug_core(&mut guest, &format!("{model}-spapr-cpu-core,id=core,{plugged}"), more);
            monitor(&mut guest, "system_reset");
            guest.expect("RHEA-SHELL ready", STEP);
            guest.expect("guest# ", STEP);
            until(&mut guest, "nproc", more);
        }
        guest.send("exit\n");
        assert!(guest.wait(STEP).success(), "{}", guest.transcript());
    }
}

#[test]
fn memory_comes_and_goes() {
    require!("ppc64el/kernel", "ppc64el/initramfs");
    // In mebibytes, to the next 256.
    const MEMORY: &str = "echo $((($(grep MemTotal /proc/meminfo | tr -dc 0-9) / 1024 + 255) / 256 * 256))";
    for words in ["movable_node", "movable_node disable_radix"] {
        let mut guest = start(words, &[&VOF[..], &["-m", "512M,slots=2,maxmem=2G"]].concat());
        guest.expect("guest# ", STEP);
        until(&mut guest, MEMORY, "512");
        monitor(&mut guest, "object_add memory-backend-ram,id=m1,size=512M");
        monitor(&mut guest, "device_add pc-dimm,id=d1,memdev=m1");
        until(&mut guest, MEMORY, "1024");
        // It is used.
        guest.send("mount -t tmpfs -o size=700m x /mnt; dd if=/dev/zero of=/mnt/f bs=1M count=400 2>/dev/null\n");
        guest.send("[ $(wc -c </mnt/f) = 419430400 ] && echo file-go''od; umount /mnt\n");
        guest.expect("file-good", STEP);
        monitor(&mut guest, "object_del m1");
        guest.expect("the object is in use", STEP);
        monitor(&mut guest, "device_del d1");
        until(&mut guest, MEMORY, "512");
        until(&mut guest, "ls -d /sys/devices/system/memory/memory* | wc -l", "2");
        monitor(&mut guest, "object_del m1");
        monitor(&mut guest, "object_add memory-backend-ram,id=m1,size=256M");
        monitor(&mut guest, "device_add pc-dimm,id=d1,memdev=m1");
        until(&mut guest, MEMORY, "768");
        guest.send("exit\n");
        assert!(guest.wait(STEP).success(), "{}", guest.transcript());
    }
}

#[test]
fn pci_devices_come_and_go() {
    require!("ppc64el/kernel", "ppc64el/drmgr-initramfs");
    let scratch = Scratch::new();
    let data = noise(1 << 20);
    let image = scratch.file("disk.img", &data);
    let sum = sha256(&image);
    let (kernel, initramfs) = (guest_file("ppc64el/kernel"), guest_file("ppc64el/drmgr-initramfs"));
    let drive = format!("if=none,id=d,format=raw,file={image}");
    let mut args = vec!["-m", "512M", "-kernel", &kernel, "-initrd", &initramfs, "-append", "console=hvc0 quiet"];
    args.extend(["-nographic", "-nodefaults", "-serial", "mon:stdio", "-drive", &drive]);
    for machine in [&VOF[..], &["-M", "pseries"]] {
        let mut guest = Emulator::start(&[machine, &args].concat());
        guest.expect("guest# ", LONG);
        guest.send("for m in rpaphp rpadlpar_io; do insmod /hotplug/$m.ko; done; echo modules-go''od\n");
        guest.expect("modules-good", STEP);
        monitor(&mut guest, "device_add virtio-blk-pci,id=disk,drive=d,addr=5");
        // The event is for a program of the guest, which calls this (-V: as for paravirtual devices, by PCI's own files).
        guest.send("drmgr -c pci -a -s 0x40000028 -n -V; echo status=$?\n");
        guest.expect("status=0", STEP);
        until(&mut guest, "sha256sum </dev/vda | cut -d' ' -f1", &sum);
        monitor(&mut guest, "netdev_add user,id=n");
        monitor(&mut guest, "device_add virtio-net-pci,id=card,netdev=n,addr=6");
        guest.send("drmgr -c pci -a -s 0x40000030 -n -V; echo status=$?\n");
        guest.expect("status=0", STEP);
        guest.send("ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; ping -c 1 -W 5 10.0.2.2 >/dev/null && echo ping-go''od\n");
        guest.expect("ping-good", STEP);
        until(&mut guest, "ls /sys/bus/pci/devices | wc -l", "2");
        monitor(&mut guest, "device_del disk");
        guest.send("drmgr -c pci -r -s 0x40000028 -n -V; echo status=$?\n");
        guest.expect("status=0", STEP);
        until(&mut guest, "ls /sys/bus/pci/devices | wc -l", "1");
        monitor(&mut guest, "device_del card");
        guest.send("drmgr -c pci -r -s 0x40000030 -n -V; echo status=$?\n");
        guest.expect("status=0", STEP);
        until(&mut guest, "ls /sys/bus/pci/devices | wc -l", "0");
        // What it used is free again.
        monitor(&mut guest, "netdev_del n");
        monitor(&mut guest, "device_add virtio-blk-pci,id=disk,drive=d,addr=5");
        guest.send("exit\n");
        assert!(guest.wait(STEP).success(), "{}", guest.transcript());
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
    // Each device is more for it to look for before it asks.
    let args = ["-M", "pseries", "-m", "1G", "-nographic", "-vga", "none", "-nic", "none", "-kernel", &kernel];
    let mut guest = Emulator::start(&[&args[..], &["-initrd", &initrd, "-append", "console=hvc0"]].concat());
    guest.expect("Select a language", 2 * LONG);
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
        &["-M", "pseries", "-cpu", "power9,compat=power8"],
        &["-M", "pseries", "-smp", "4,maxcpus=2"],
        &["-M", "pseries", "-smp", "1,threads=2,maxcpus=4"],
        &["-M", "pseries", "-m", "500M,slots=1,maxmem=1G"],
        &["-M", "pseries", "-device", "pc-dimm,memdev=m"],
        &["-M", "pseries", "-object", "memory-backend-ram,id=m,size=256M", "-device", "pc-dimm,memdev=m"],
        &["-M", "pseries", "-device", "power10_v2.0-spapr-cpu-core,core-id=1"],
        &["-M", "pseries", "-smp", "1,maxcpus=2", "-device", "power9_v2.2-spapr-cpu-core,core-id=1"],
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
    assert!(String::from_utf8_lossy(&text).contains("pseries-10.0"));
    let text = Command::new(&link).args(["-cpu", "help"]).output().expect("it starts").stdout;
    assert!(String::from_utf8_lossy(&text).contains("power10"));
}
