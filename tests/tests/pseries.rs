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
        plug_core(&mut guest, &format!("{model}-spapr-cpu-core,id=core,{plugged}"), more);
        monitor(&mut guest, "system_reset");
        guest.expect("RHEA-SHELL ready", STEP);
        guest.expect("guest# ", STEP);
        until(&mut guest, "nproc", more);
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
    assert!(String::from_utf8_lossy(&text).contains("pseries-1.0"));
    let text = Command::new(&link).args(["-cpu", "help"]).output().expect("it starts").stdout;
    assert!(String::from_utf8_lossy(&text).contains("power10"));
}
