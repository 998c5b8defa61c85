//! Virtio devices in Linux, on PCI and on virtio-mmio.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use rhea_tests::{
    Board, Emulator, HttpServer, STEP, Scratch, disk_case, free_port, http_get, linux, linux_case, noise, require,
    sha256,
};

fn disk(args: &[&str]) {
    disk_case(Board::Virt, "", args);
}

#[test]
fn disk_on_pci() {
    require!("kernel", "initramfs");
    disk(&[
        "-cpu",
        "max",
        "-smp",
        "2",
        "-drive",
        "if=none,id=d,file=IMAGE,format=raw,discard=unmap",
        "-device",
        "virtio-blk-pci,drive=d",
    ]);
}

#[test]
fn disk_on_mmio() {
    require!("kernel", "initramfs");
    disk(&[
        "-cpu",
        "max",
        "-drive",
        "if=none,id=d,file=IMAGE,format=raw,discard=unmap",
        "-device",
        "virtio-blk-device,drive=d",
    ]);
}

#[test]
fn disk_by_the_short_option() {
    require!("kernel", "initramfs");
    disk(&["-cpu", "max", "-drive", "if=virtio,file=IMAGE,format=raw,discard=unmap"]);
}

#[test]
fn disk_with_packed_rings_and_several_queues() {
    require!("kernel", "initramfs");
    disk(&[
        "-cpu",
        "max",
        "-smp",
        "4",
        "-machine",
        "gic-version=3",
        "-drive",
        "if=none,id=d,file=IMAGE,format=raw,discard=unmap",
        "-device",
        "virtio-blk-pci,drive=d,num-queues=4,packed=on",
    ]);
}

#[test]
fn disk_read_only() {
    require!("kernel", "initramfs");
    let scratch = Scratch::new();
    let image = scratch.file("disk.img", &noise(4 << 20));
    let sum = sha256(&image);
    let drive = format!("if=none,id=d,file={image},format=raw,read-only=on");
    let text = linux_case("readonly", "", &["-cpu", "max", "-drive", &drive, "-device", "virtio-blk-pci,drive=d"]);
    assert!(text.contains(&format!("sum={sum}")), "{text}");
    assert_eq!(sha256(&image), sum);
}

fn net(args: &[&str]) {
    let scratch = Scratch::new();
    let content = noise(8 << 20);
    let sum = sha256(&scratch.file("data", &content));
    let server = HttpServer::start(content);
    let text = linux_case("net", &format!("rhea.port={} rhea.sum={sum}", server.port()), args);
    assert!(text.contains("ip=10.0.2.15 router=10.0.2.2 dns=10.0.2.3"), "{text}");
}

#[test]
fn net_on_pci() {
    require!("kernel", "initramfs");
    net(&["-cpu", "max", "-smp", "2", "-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n"]);
}

#[test]
fn net_on_mmio() {
    require!("kernel", "initramfs");
    net(&["-cpu", "max", "-netdev", "user,id=n", "-device", "virtio-net-device,netdev=n"]);
}

#[test]
fn net_by_the_short_option() {
    require!("kernel", "initramfs");
    net(&["-cpu", "max", "-nic", "user,model=virtio-net-pci"]);
}

#[test]
fn forwarded_port() {
    require!("kernel", "initramfs");
    let scratch = Scratch::new();
    let port = free_port();
    let mut args = linux("rhea.test=hostfwd");
    let netdev = format!("user,id=n,hostfwd=tcp:127.0.0.1:{port}-:8080");
    args.extend(["-cpu", "max", "-netdev", &netdev, "-device", "virtio-net-pci,netdev=n"].map(String::from));
    let mut guest = Emulator::start(&args);
    guest.expect("serving sum=", STEP);
    let sum = guest.expect("\n", STEP);
    for _ in 0..3 {
        let body = http_get(port, "/data", STEP);
        assert_eq!(sha256(&scratch.file("body", &body)), sum.trim());
    }
    assert_eq!(http_get(port, "/cgi-bin/done", STEP), b"bye\n");
    guest.expect("RHEA-TEST hostfwd PASS", STEP);
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
}

#[test]
fn random_numbers() {
    require!("kernel", "initramfs");
    linux_case("rng", "", &["-cpu", "max", "-device", "virtio-rng-pci"]);
    linux_case("rng", "", &["-cpu", "max", "-device", "virtio-rng-device"]);
}

#[test]
fn balloon_is_driven() {
    require!("kernel", "initramfs");
    linux_case("balloon", "", &["-cpu", "max", "-device", "virtio-balloon-pci"]);
    linux_case("balloon", "", &["-cpu", "max", "-device", "virtio-balloon-device,free-page-reporting=on"]);
}

/// A line from the guest and one back, through a port of a virtio console bus.
fn port_carries_lines(case: &str, device: &[&str]) {
    let scratch = Scratch::new();
    let path = scratch.path("console");
    let mut args = linux(&format!("rhea.test={case}"));
    let chardev = format!("socket,id=c,path={path},server=on,wait=off");
    args.extend([&["-cpu", "max", "-chardev", &chardev], device].concat().into_iter().map(String::from));
    let mut guest = Emulator::start(&args);
    let end = std::time::Instant::now() + STEP;
    let mut socket = loop {
        match UnixStream::connect(&path) {
            Ok(socket) => break socket,
            Err(e) => assert!(std::time::Instant::now() < end, "{path}: {e}\n{}", guest.transcript()),
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    socket.set_read_timeout(Some(STEP)).expect("a timeout can be set");
    let mut line = String::new();
    BufReader::new(socket.try_clone().expect("dup")).read_line(&mut line).expect("a line from the guest");
    assert_eq!(line.trim(), "hello from the guest");
    socket.write_all(b"hello from the host\n").expect("the guest reads");
    guest.expect(&format!("RHEA-TEST {case} PASS"), STEP);
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
}

#[test]
fn console_port() {
    require!("kernel", "initramfs");
    port_carries_lines("console", &["-device", "virtio-serial-pci", "-device", "virtconsole,chardev=c"]);
}

#[test]
fn named_port() {
    require!("kernel", "initramfs");
    let device = [
        "-device",
        "virtio-serial-device,max_ports=8",
        "-device",
        "virtserialport,chardev=c,nr=5,name=org.example.port",
    ];
    port_carries_lines("port", &device);
}
