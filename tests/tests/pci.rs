//! Devices behind root ports, bridges and switches, and behind an IOMMU, in Linux.

use std::time::Duration;

use rhea_tests::{Board, Emulator, HttpServer, STEP, Scratch, disk_case, guest_file, noise, require, sha256};

const DRIVE: &str = "if=none,id=d,file=IMAGE,format=raw,discard=unmap";
/// Firmware and boot loaders take longer than a kernel.
const LONG: Duration = Duration::from_secs(240);

/// Fetches a file over a network card; `args` connect it to the back end `n`.
fn fetches(board: Board, words: &str, args: &[&str]) {
    let scratch = Scratch::new();
    let content = noise(4 << 20);
    let sum = sha256(&scratch.file("data", &content));
    let server = HttpServer::start(content);
    let words = format!("rhea.port={} rhea.sum={sum} {words}", server.port());
    board.linux_case("net", &words, &[&["-cpu", "max", "-netdev", "user,id=n"], args].concat());
}

#[test]
fn q35_disk_behind_a_root_port() {
    require!("amd64/kernel", "amd64/initramfs");
    let devices = ["-device", "pcie-root-port,id=p,chassis=1,slot=1", "-device", "nvme,drive=d,serial=one,bus=p"];
    disk_case(
        Board::Q35,
        "rhea.disk=/dev/nvme0n1",
        &[&["-cpu", "max", "-smp", "2", "-drive", DRIVE], &devices[..]].concat(),
    );
}

#[test]
fn q35_network_behind_bridges() {
    require!("amd64/kernel", "amd64/initramfs");
    let inner = ["-device", "pci-bridge,id=a,chassis_nr=1", "-device", "pci-bridge,id=b,bus=a,addr=5,chassis_nr=2"];
    fetches(Board::Q35, "", &[&inner[..], &["-device", "virtio-net-pci,netdev=n,bus=b,addr=7"]].concat());
    // INTx, which is swizzled on its way.
    fetches(Board::Q35, "pci=nomsi", &[&inner[..], &["-device", "e1000e,netdev=n,bus=b,addr=6"]].concat());
}

#[test]
fn q35_disk_behind_a_switch() {
    require!("amd64/kernel", "amd64/initramfs");
    let args = [
        "-cpu",
        "max",
        "-drive",
        DRIVE,
        "-device",
        "ioh3420,id=p,chassis=1,slot=1",
        "-device",
        "x3130-upstream,id=up,bus=p",
        "-device",
        "xio3130-downstream,id=d0,bus=up,chassis=2,slot=2",
        "-device",
        "xio3130-downstream,id=d1,bus=up,chassis=3,slot=3",
        "-device",
        "pcie-pci-bridge,id=c,bus=d0",
        "-device",
        "virtio-rng-pci,bus=c,addr=4",
        "-device",
        "nvme,drive=d,serial=one,bus=d1",
    ];
    disk_case(Board::Q35, "rhea.disk=/dev/nvme0n1", &args);
}

#[test]
fn seabios_starts_from_a_disk_behind_a_root_port() {
    require!("amd64/grub.img", "amd64/bios-256k.bin");
    let drive = format!("if=none,id=d,format=raw,snapshot=on,file={}", guest_file("amd64/grub.img"));
    let bios = guest_file("amd64/bios-256k.bin");
    let mut guest = Emulator::start(&[
        "-M",
        "q35",
        "-cpu",
        "max",
        "-m",
        "512M",
        "-nographic",
        "-bios",
        &bios,
        "-drive",
        &drive,
        "-device",
        "pcie-root-port,id=p,chassis=1,slot=1",
        "-device",
        "pci-bridge,id=b,chassis_nr=2",
        "-device",
        "nvme,drive=d,serial=one,bus=p,bootindex=0",
        "-netdev",
        "user,id=n",
        "-device",
        "virtio-net-pci,netdev=n,bus=b,addr=3",
    ]);
    guest.expect("RHEA-TEST features START", LONG);
    guest.expect("RHEA-TEST features PASS", STEP);
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
}

#[test]
fn virt_disk_and_network_behind_root_ports() {
    require!("kernel", "initramfs");
    let ports = ["-device", "pcie-root-port,id=p,chassis=1,slot=1", "-device", "pcie-root-port,id=q,chassis=2,slot=2"];
    let disk = ["-cpu", "max", "-smp", "2", "-drive", DRIVE, "-device"];
    disk_case(Board::Virt, "", &[&ports[..], &disk, &["virtio-blk-pci,drive=d,bus=p"]].concat());
    let bridge = ["-device", "pcie-pci-bridge,id=b,bus=p", "-device", "virtio-net-pci,netdev=n,bus=b,addr=3"];
    fetches(Board::Virt, "", &[&ports[..], &bridge].concat());
}

#[test]
fn intel_iommu_translates_for_disks_and_networks() {
    require!("amd64/kernel", "amd64/initramfs");
    let words = "intel_iommu=on iommu.strict=1";
    let unit = ["-cpu", "max", "-smp", "2", "-device", "intel-iommu,intremap=on"];
    let ports = ["-device", "pcie-root-port,id=p,chassis=1,slot=1", "-device", "pci-bridge,id=b,chassis_nr=2"];
    for (disk, device) in [
        ("nvme0n1", "nvme,drive=d,serial=one,bus=p"),
        ("vda", "virtio-blk-pci,drive=d,bus=b,iommu_platform=on"),
        ("sda", "ide-hd,drive=d,bus=ide.0"),
    ] {
        let words = format!("{words} rhea.disk=/dev/{disk}");
        disk_case(Board::Q35, &words, &[&unit[..], &ports, &["-drive", DRIVE, "-device", device]].concat());
    }
    for device in ["e1000e,netdev=n,bus=p", "virtio-net-pci,netdev=n,bus=b,iommu_platform=on"] {
        let narrow = ["-device", "intel-iommu,aw-bits=39,eim=off,caching-mode=on"];
        fetches(Board::Q35, words, &[&narrow[..], &ports, &["-device", device]].concat());
    }
    // A device that is not behind it, beside those that are.
    fetches(Board::Q35, words, &[&unit[2..], &["-device", "virtio-net-pci,netdev=n"]].concat());
}
