//! Devices behind root ports, bridges and switches, and behind an IOMMU, in Linux.

use std::time::Duration;

use rhea_tests::{
    Board, Emulator, HttpServer, STEP, Scratch, disk_and_network_case, guest_file, noise, require, sha256,
};

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
fn q35_behind_ports_bridges_and_switches() {
    require!("amd64/kernel", "amd64/initramfs");
    let args = [
        "-cpu",
        "max",
        "-smp",
        "2",
        // A disk behind a root port.
        "-drive",
        DRIVE,
        "-device",
        "pcie-root-port,id=p,chassis=1,slot=1",
        "-device",
        "nvme,drive=d,serial=one,bus=p",
        // One behind a switch, with a bridge beside it.
        "-drive",
        "if=none,id=e,file=IMAGE,format=raw,discard=unmap",
        "-device",
        "ioh3420,id=q,chassis=2,slot=2",
        "-device",
        "x3130-upstream,id=up,bus=q",
        "-device",
        "xio3130-downstream,id=d0,bus=up,chassis=3,slot=3",
        "-device",
        "xio3130-downstream,id=d1,bus=up,chassis=4,slot=4",
        "-device",
        "pcie-pci-bridge,id=c,bus=d0",
        "-device",
        "virtio-rng-pci,bus=c,addr=4",
        "-device",
        "nvme,drive=e,serial=two,bus=d1",
        // A card behind two bridges.
        "-netdev",
        "user,id=n",
        "-device",
        "virtio-net-pci,netdev=n,bus=b,addr=7",
    ];
    let bridges = ["-device", "pci-bridge,id=a,chassis_nr=1", "-device", "pci-bridge,id=b,bus=a,addr=5,chassis_nr=2"];
    disk_and_network_case(Board::Q35, "/dev/nvme0n1,/dev/nvme1n1", 1, "", &[&bridges[..], &args].concat());
    // INTx, which is swizzled on its way.
    fetches(Board::Q35, "pci=nomsi", &[&bridges[..], &["-device", "e1000e,netdev=n,bus=b,addr=6"]].concat());
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
    let disk = ["-cpu", "max", "-smp", "2", "-drive", DRIVE, "-device", "virtio-blk-pci,drive=d,bus=p"];
    let bridge = ["-device", "pcie-pci-bridge,id=b,bus=q", "-device", "virtio-net-pci,netdev=n,bus=b,addr=3"];
    let args = [&ports[..], &disk, &["-netdev", "user,id=n"], &bridge].concat();
    disk_and_network_case(Board::Virt, "/dev/vda", 1, "", &args);
}

#[test]
fn intel_iommu_translates_for_disks_and_networks() {
    require!("amd64/kernel", "amd64/initramfs");
    let words = "intel_iommu=on iommu.strict=1";
    let ports = ["-device", "pcie-root-port,id=p,chassis=1,slot=1", "-device", "pci-bridge,id=b,chassis_nr=2"];
    let args = [
        "-cpu",
        "max",
        "-smp",
        "2",
        "-device",
        "intel-iommu,intremap=on",
        "-device",
        "pcie-root-port,id=p,chassis=1,slot=1",
        "-device",
        "pci-bridge,id=b,chassis_nr=2",
        "-drive",
        DRIVE,
        "-device",
        "nvme,drive=d,serial=one,bus=p",
        "-drive",
        "if=none,id=e,file=IMAGE,format=raw,discard=unmap",
        "-device",
        "virtio-blk-pci,drive=e,bus=b,iommu_platform=on",
        "-drive",
        "if=none,id=f,file=IMAGE,format=raw,discard=unmap",
        "-device",
        "ide-hd,drive=f,bus=ide.0",
        // A device that is not behind it, beside those that are.
        "-netdev",
        "user,id=n",
        "-device",
        "virtio-net-pci,netdev=n",
    ];
    disk_and_network_case(Board::Q35, "/dev/nvme0n1,/dev/vda,/dev/sda", 1, words, &args);
    let narrow = ["-device", "intel-iommu,aw-bits=39,eim=off,caching-mode=on", "-netdev", "user,id=m"];
    let cards = ["-device", "e1000e,netdev=n,bus=p", "-device", "virtio-net-pci,netdev=m,bus=b,iommu_platform=on"];
    fetches(Board::Q35, &format!("{words} rhea.cards=2"), &[&narrow[..], &ports, &cards].concat());
}
