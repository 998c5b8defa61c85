//! Requests of drives that fail: the machine stops for them, or the guest is told.

use super::{Client, start};
use rhea_control::json;
use rhea_tests::{Board, STEP, Scratch, require};
use std::process::Command;

#[test]
fn failed_writes() {
    require!("amd64/kernel", "amd64/initramfs");
    let scratch = Scratch::new();
    let images = ["a", "b"].map(|name| scratch.file(name, &vec![0; 16 << 20]));
    let (pid_file, drives) = (scratch.path("pid"), images.each_ref().map(|i| format!("if=none,format=raw,file={i}")));
    let [a, b] = [format!("{},id=a", drives[0]), format!("{},id=b", drives[1])];
    let stops = ["-drive", &a, "-device", "virtio-blk-pci,drive=a,id=da,werror=stop"];
    let reports = ["-drive", &b, "-device", "virtio-blk-pci,drive=b,id=db", "-cpu", "max", "-pidfile", &pid_file];
    let (mut guest, path) = start(&scratch, Board::Q35, true, &[&stops[..], &reports].concat());
    let mut c = Client::ready(&path);
    guest.expect("guest# ", STEP);
    let pid = std::fs::read_to_string(&pid_file).expect("the process's id");
    // No file may become longer, as if the storage were broken.
    let limit = |size: &str| {
        let done = Command::new("prlimit").args(["--pid", pid.trim(), &format!("--fsize={size}")]).status();
        assert!(done.is_ok_and(|s| s.success()), "prlimit");
    };
    limit("1048576:unlimited");
    let write = |disk: &str, name: &str| {
        let to = format!("of=/dev/{disk} bs=4096 seek=2048 count=1 conv=fsync");
        format!("yes | dd iflag=fullblock {to} 2>/dev/null; echo {name}-$?\n")
    };
    // Not for this one: the guest is told.
    guest.send(&write("vdb", "reported"));
    guest.expect("reported-1", STEP);
    let told = c.event("BLOCK_IO_ERROR")["data"].clone();
    assert_eq!(
        (&told["device"], &told["action"], &told["operation"]),
        (&json!("b"), &json!("report"), &json!("write"))
    );
    assert_eq!(told["qom-path"], "/machine/peripheral/db/virtio-backend");
    guest.send(&write("vda", "done"));
    for _ in 0..2 {
        let told = loop {
            let told = c.event("BLOCK_IO_ERROR")["data"].clone();
            if told["device"] == "a" {
                break told;
            }
        };
        assert_eq!((&told["action"], &told["nospace"]), (&json!("stop"), &json!(false)), "{told}");
        // The event comes first.
        while c.get("query-status") != json!({"running": false, "status": "io-error"}) {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let drives = c.get("query-block");
        let drive = drives.as_array().and_then(|l| l.iter().find(|d| d["device"] == "a").cloned()).expect("the drive");
        assert_eq!(drive["io-status"], "failed");
        // The first time it is no better.
        c.get("cont");
    }
    c.event("BLOCK_IO_ERROR");
    limit("unlimited:unlimited");
    while c.get("query-status")["status"] != "io-error" {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    c.get("cont");
    guest.expect("done-0", STEP);
    let data = std::fs::read(&images[0]).expect("the image");
    assert_eq!(&data[8 << 20..(8 << 20) + 4], b"y\ny\n");
}
