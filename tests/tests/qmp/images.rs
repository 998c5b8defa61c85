//! Images of a running guest: snapshots, copies, chains that become shorter.

use super::{Client, start};
use rhea_control::{Value, json};
use rhea_tests::{Board, Emulator, STEP, Scratch, is_qemu, require, run, run_command};
use std::process::Command;

const SIZE: u64 = 16 << 20;

/// A guest that writes, and what controls its emulator.
struct Bench {
    guest: Emulator,
    client: Client,
    scratch: Scratch,
    rounds: u32,
}

impl Bench {
    fn new() -> Self {
        let scratch = Scratch::new();
        let disk = scratch.path("disk");
        img(&["create", "-f", "qcow2", &disk, "16M"]);
        let node = format!("driver=qcow2,node-name=disk,file.driver=file,file.filename={disk}");
        let more = ["-blockdev", &node, "-device", "virtio-blk-pci,drive=disk,id=vd"];
        let (mut guest, path) = start(&scratch, Board::Virt, true, &more);
        let client = Client::ready(&path);
        guest.expect("guest# ", STEP);
        Self { guest, client, scratch, rounds: 0 }
    }
    /// The guest writes a part of its disk.
    fn write(&mut self, first: u32, blocks: u32) {
        self.rounds += 1;
        let mark = format!("written-{}", self.rounds);
        let dd = format!("dd if=/dev/urandom of=/dev/vda bs=64k seek={first} count={blocks} conv=fsync 2>/dev/null");
        self.guest.send(&format!("{dd}; echo written-$(({} + 1))\n", self.rounds - 1));
        self.guest.expect(&mark, STEP);
    }
    /// What the guest reads, from the disk and not from its own memory.
    fn sum(&mut self) -> String {
        self.guest.send("echo 3 >/proc/sys/vm/drop_caches; echo sum-$(sha256sum /dev/vda)-\n");
        self.guest.expect("sum-", STEP);
        let mut text = self.guest.expect(" ", STEP);
        while text.trim().len() != 64 {
            // What was typed comes first.
            self.guest.expect("sum-", STEP);
            text = self.guest.expect(" ", STEP);
        }
        text.trim().to_owned()
    }
    fn run(&mut self, command: &str, arguments: Value) {
        let told = self.client.run(command, arguments.clone());
        assert_eq!(told, Ok(json!({})), "{command} {arguments}");
    }
    /// Waits until a job is so far.
    fn until(&mut self, job: &str, status: &str) {
        loop {
            let told = self.client.event("JOB_STATUS_CHANGE")["data"].clone();
            assert!(told["id"] != job || told["status"] != "aborting", "{}", self.client.get("query-jobs"));
            if told == json!({"id": job, "status": status}) {
                return;
            }
        }
    }
    /// A new image of a name that its node has too.
    fn image(&mut self, name: &str) {
        let path = self.scratch.path(name);
        let store = format!("{name}-file");
        let file = json!({"driver": "file", "filename": path, "size": 0});
        self.create(file);
        self.run("blockdev-add", json!({"driver": "file", "node-name": store, "filename": path}));
        self.create(json!({"driver": "qcow2", "file": store, "size": SIZE, "cluster-size": 32768}));
        self.run("blockdev-add", json!({"driver": "qcow2", "node-name": name, "file": store, "backing": null}));
    }
    fn create(&mut self, options: Value) {
        self.run("blockdev-create", json!({"job-id": "make", "options": options}));
        self.until("make", "concluded");
        assert!(self.client.get("query-jobs")[0].get("error").is_none());
        self.run("job-dismiss", json!({"id": "make"}));
        self.until("make", "null");
    }
    fn remove(&mut self, name: &str) {
        self.run("blockdev-del", json!({"node-name": name}));
        self.run("blockdev-del", json!({"node-name": format!("{name}-file")}));
    }
    /// The node that the guest's disk is on.
    fn on(&mut self) -> String {
        self.client.get("query-block")[0]["inserted"]["node-name"].as_str().unwrap_or_default().to_owned()
    }
}

fn img(words: &[&str]) -> String {
    let done = run(&[&["img"], words].concat(), STEP);
    assert!(done.status.success(), "{words:?}: {}{}", done.stdout, done.stderr);
    done.stdout
}

#[test]
fn images_change_below_a_running_guest() {
    require!("kernel", "initramfs");
    if is_qemu() {
        return;
    }
    let mut b = Bench::new();
    b.write(0, 100);
    let first = b.sum();

    // Over the disk, and back into it.
    b.image("over");
    let snapshot = json!({"type": "blockdev-snapshot", "data": {"node": "disk", "overlay": "over"}});
    let abort = json!({"type": "abort", "data": {}});
    let told = b.client.run("transaction", json!({"actions": [snapshot.clone(), abort]}));
    assert!(told.is_err_and(|(_, text)| text.contains("Abort")));
    assert_eq!(b.on(), "disk");
    b.run("transaction", json!({"actions": [snapshot]}));
    assert_eq!((b.on().as_str(), b.sum()), ("over", first.clone()));
    assert!(b.client.run("blockdev-del", json!({"node-name": "disk"})).is_err());
    b.write(50, 100);
    let second = b.sum();
    assert_ne!(first, second);
    b.run("block-commit", json!({"job-id": "c", "device": "over", "auto-dismiss": false}));
    let again = b.client.run("block-commit", json!({"job-id": "d", "device": "over"}));
    assert!(again.is_err_and(|(_, text)| text.contains("busy")));
    b.until("c", "ready");
    b.write(120, 20);
    let third = b.sum();
    b.run("job-complete", json!({"id": "c"}));
    b.until("c", "concluded");
    b.run("job-dismiss", json!({"id": "c"}));
    assert_eq!((b.on().as_str(), b.sum()), ("disk", third.clone()));
    b.remove("over");

    // Larger: the guest sees it, and what was there stays.
    b.run("block_resize", json!({"node-name": "disk", "size": 2 * SIZE}));
    b.guest.send("until [ $(cat /sys/block/vda/size) = 65536 ]; do sleep 1; done; echo larger-$((40+2))\n");
    b.guest.expect("larger-42", STEP);
    b.run("block_resize", json!({"device": "vd", "size": SIZE}));
    b.guest.send("until [ $(cat /sys/block/vda/size) = 32768 ]; do sleep 1; done; echo as-before-$((40+2))\n");
    b.guest.expect("as-before-42", STEP);

    // To another place; what is cancelled leaves the guest where it is.
    b.image("copy");
    let mirror = json!({"job-id": "m", "device": "disk", "target": "copy", "sync": "full"});
    b.run("blockdev-mirror", mirror.clone());
    b.client.event("BLOCK_JOB_READY");
    b.run("block-job-cancel", json!({"device": "m", "force": true}));
    b.client.event("BLOCK_JOB_CANCELLED");
    assert_eq!((b.on().as_str(), b.sum()), ("disk", third));
    b.until("m", "null");
    b.run("blockdev-mirror", mirror);
    b.write(30, 60);
    b.client.event("BLOCK_JOB_READY");
    b.write(200, 30);
    let fourth = b.sum();
    b.run("block-job-complete", json!({"device": "m"}));
    assert!(b.client.event("BLOCK_JOB_COMPLETED")["data"].get("error").is_none());
    assert_eq!((b.on().as_str(), b.sum()), ("copy", fourth.clone()));
    b.run("blockdev-del", json!({"node-name": "disk"}));

    // Over the new place, with a name only, and the place taken in.
    let over = b.scratch.path("over-copy");
    b.run("blockdev-snapshot-sync", json!({"node-name": "copy", "snapshot-file": over, "snapshot-node-name": "last"}));
    b.write(10, 10);
    let fifth = b.sum();
    b.run("block-stream", json!({"job-id": "s", "device": "last"}));
    assert!(b.client.event("BLOCK_JOB_COMPLETED")["data"].get("error").is_none());
    assert_eq!((b.on().as_str(), b.sum()), ("last", fifth.clone()));
    b.until("s", "null");
    b.remove("copy");

    // What it is at one moment.
    b.image("kept");
    b.run(
        "blockdev-backup",
        json!({"job-id": "b", "device": "last", "target": "kept", "sync": "full", "speed": 4 << 20}),
    );
    b.write(0, 150);
    b.run("block-job-set-speed", json!({"device": "b", "speed": 0}));
    assert!(b.client.event("BLOCK_JOB_COMPLETED")["data"].get("error").is_none());
    b.until("b", "null");
    assert_ne!(b.sum(), fifth);
    b.remove("kept");
    b.run("quit", Value::Null);
    assert!(b.guest.wait(STEP).success());
    let (last, kept, raw) = (over, b.scratch.path("kept"), b.scratch.path("raw"));
    for image in [&last, &kept, &b.scratch.path("copy"), &b.scratch.path("disk")] {
        img(&["check", image]);
    }
    assert!(!img(&["info", &last]).contains("backing"));
    img(&["convert", "-O", "raw", &kept, &raw]);
    let mut sum = Command::new("sha256sum");
    sum.arg(&raw);
    let sum = run_command(sum, STEP);
    assert!(sum.stdout.starts_with(&fifth), "{} is not {fifth}", sum.stdout);
}

#[test]
fn only_what_has_changed_is_copied() {
    require!("kernel", "initramfs");
    if is_qemu() {
        return;
    }
    let mut b = Bench::new();
    b.write(0, 100);
    let bitmaps = |b: &mut Bench| -> Vec<(String, u64, bool, bool)> {
        let all = b.client.get("query-block")[0]["inserted"]["dirty-bitmaps"].clone();
        let one = |v: &Value| {
            let flag = |key: &str| v[key] == true;
            let name = v["name"].as_str().unwrap_or_default().to_owned();
            (name, v["count"].as_u64().unwrap_or_default() >> 16, flag("recording"), flag("busy"))
        };
        all.as_array().map(|all| all.iter().map(one).collect()).unwrap_or_default()
    };
    let named = |name: &str| json!({"node": "disk", "name": name});
    let fails = |b: &mut Bench, command: &str, arguments: Value, why: &str| {
        let told = b.client.run(command, arguments.clone());
        assert!(told.as_ref().is_err_and(|(_, text)| text.contains(why)), "{command} {arguments}: {told:?}");
    };

    // All of it, and from that moment on what changes.
    b.image("full");
    let copy = |target: &str, more: Value| {
        let mut data = json!({"job-id": target, "device": "disk", "target": target});
        more.as_object().into_iter().flatten().for_each(|(key, value)| data[key] = value.clone());
        data
    };
    let full = json!({"type": "blockdev-backup", "data": copy("full", json!({"sync": "full"}))});
    let act = |kind: &str, data: Value| json!({"type": format!("block-dirty-bitmap-{kind}"), "data": data});
    let abort = json!({"type": "abort", "data": {}});
    let told = b.client.run("transaction", json!({"actions": [act("add", named("since")), full.clone(), abort]}));
    assert!(told.is_err() && bitmaps(&mut b).is_empty());
    b.run("transaction", json!({"actions": [act("add", named("since")), full]}));
    assert!(b.client.event("BLOCK_JOB_COMPLETED")["data"].get("error").is_none());
    b.until("full", "null");
    assert_eq!(bitmaps(&mut b), [("since".to_owned(), 0, true, false)]);
    fails(&mut b, "block-dirty-bitmap-add", named("since"), "Bitmap already exists: since");
    fails(&mut b, "block-dirty-bitmap-add", json!({"node": "disk", "name": "x", "granularity": 100}), "power of 2");
    fails(&mut b, "block-dirty-bitmap-add", json!({"node": "disk", "name": "x", "persistent": true}), "persistent");
    fails(&mut b, "block-dirty-bitmap-clear", named("none"), "Dirty bitmap 'none' not found");

    b.write(10, 5);
    b.write(200, 3);
    assert_eq!(bitmaps(&mut b), [("since".to_owned(), 8, true, false)]);
    // Others take over what it has, or stand still.
    b.run("block-dirty-bitmap-add", json!({"node": "disk", "name": "other", "disabled": true}));
    b.run("block-dirty-bitmap-merge", json!({"node": "disk", "target": "other", "bitmaps": ["since", named("since")]}));
    let told =
        b.client.run("transaction", json!({"actions": [act("clear", named("other")), {"type": "abort", "data": {}}]}));
    assert!(told.is_err());
    b.write(30, 1);
    assert_eq!(bitmaps(&mut b), [("since".to_owned(), 9, true, false), ("other".to_owned(), 8, false, false)]);
    b.run("block-dirty-bitmap-enable", named("other"));
    b.write(31, 1);
    b.run("block-dirty-bitmap-disable", named("other"));
    assert_eq!(bitmaps(&mut b)[1].1, 9);
    b.run("block-dirty-bitmap-remove", named("other"));

    // A copy that is given up has changed nothing; what it uses cannot go.
    let over = |b: &mut Bench, name: &str, below: &str| {
        let (path, store) = (b.scratch.path(name), format!("{name}-file"));
        b.create(json!({"driver": "file", "filename": path, "size": 0}));
        b.run("blockdev-add", json!({"driver": "file", "node-name": store, "filename": path}));
        let file = b.scratch.path(below);
        b.create(json!({"driver": "qcow2", "file": store, "size": SIZE, "backing-file": file, "backing-fmt": "qcow2"}));
        b.run("blockdev-add", json!({"driver": "qcow2", "node-name": name, "file": store, "backing": below}));
    };
    over(&mut b, "part", "full");
    let modes = [
        (json!({"sync": "incremental"}), "valid bitmap name"),
        (json!({"sync": "bitmap", "bitmap": "since"}), "must be given"),
        (json!({"sync": "incremental", "bitmap": "since", "bitmap-mode": "never"}), "must be 'on-success'"),
        (json!({"sync": "full", "bitmap-mode": "never"}), "without a bitmap"),
        (json!({"sync": "none", "bitmap": "since", "bitmap-mode": "always"}), "meaningful"),
    ];
    for (more, why) in modes {
        fails(&mut b, "blockdev-backup", copy("part", more), why);
    }
    b.run("blockdev-backup", copy("part", json!({"sync": "incremental", "bitmap": "since", "speed": 1})));
    assert!(bitmaps(&mut b)[0].3);
    fails(&mut b, "block-dirty-bitmap-remove", named("since"), "currently in use");
    b.write(60, 2);
    b.run("block-job-cancel", json!({"device": "part", "force": true}));
    b.client.event("BLOCK_JOB_CANCELLED");
    b.until("part", "null");
    assert_eq!(bitmaps(&mut b), [("since".to_owned(), 12, true, false)]);

    let sum = b.sum();
    b.run("blockdev-backup", copy("part", json!({"sync": "incremental", "bitmap": "since"})));
    assert!(b.client.event("BLOCK_JOB_COMPLETED")["data"].get("error").is_none());
    b.until("part", "null");
    assert_eq!(bitmaps(&mut b), [("since".to_owned(), 0, true, false)]);
    b.run("quit", Value::Null);
    assert!(b.guest.wait(STEP).success());
    let (part, raw) = (b.scratch.path("part"), b.scratch.path("raw"));
    img(&["check", &part]);
    let own = img(&["map", &part]);
    assert!(own.contains(&b.scratch.path("full")), "{own}");
    img(&["convert", "-O", "raw", &part, &raw]);
    let mut command = Command::new("sha256sum");
    command.arg(&raw);
    let copied = run_command(command, STEP);
    assert!(copied.stdout.starts_with(&sum), "{} is not {sum}", copied.stdout);
}
