//! The state of whole machines: snapshots of a running Linux.

use rhea_tests::{Board, Emulator, STEP, Scratch, require, run};

/// A qcow2 image.
fn image(scratch: &Scratch) -> String {
    let image = scratch.path("disk.qcow2");
    let made = run(&["img", "create", "-f", "qcow2", &image, "64M"], STEP);
    assert!(made.status.success(), "{}", made.stderr);
    image
}

/// What the monitor answers to a command.
fn monitor(guest: &mut Emulator, command: &str) -> String {
    guest.send(&format!("\x01c{command}\n"));
    guest.expect(&format!("(rhea) {command}"), STEP);
    let answer = guest.expect("(rhea) ", STEP);
    guest.send("\x01c");
    answer
}

/// A command that prints `text` (and does not have it in itself) is run in the guest's shell.
fn shell(guest: &mut Emulator, command: &str, text: &str) {
    guest.send(&format!("\n{command}\n"));
    guest.expect(text, STEP);
    guest.expect("guest# ", STEP);
}

/// Machine and disk go back to where they were saved, in the same process and in another one.
fn snapshots(board: Board, args: &[&str]) {
    let scratch = Scratch::new();
    let image = image(&scratch);
    let drive = format!("if=none,id=d,file={image}");
    let mut all = args.to_vec();
    all.extend(["-drive", &drive, "-device", "virtio-blk-pci,drive=d"]);
    let mut guest = board.start("", &all);
    guest.expect("guest# ", STEP);
    let read = "dd if=/dev/vda bs=512 count=1 iflag=direct 2>/dev/null | tr -d '\\0'";
    let write = |text: &str| {
        format!("echo {text} | dd of=/dev/vda bs=512 conv=sync oflag=direct 2>/dev/null; A={text}; echo $A-$((1+1))")
    };
    shell(&mut guest, &write("before"), "before-2");
    assert_eq!(monitor(&mut guest, "savevm one").trim().trim_end_matches("(rhea)").trim(), "");
    shell(&mut guest, &write("after"), "after-2");
    for _ in 0..2 {
        let answer = monitor(&mut guest, "loadvm one");
        assert!(!answer.contains("Error"), "{answer}");
        shell(&mut guest, &format!("echo $A+$({read})"), "before+before");
    }
    assert!(monitor(&mut guest, "loadvm two").contains("does not have the requested snapshot 'two'"));
    let list = monitor(&mut guest, "info snapshots");
    assert!(list.contains("one"), "{list}");
    drop(guest);

    all.extend(["-loadvm", "one"]);
    let mut again = board.start("", &all);
    // The serial port's state comes with the machine: what is typed before is lost.
    let status = monitor(&mut again, "info status");
    assert!(status.contains("running"), "{status}");
    shell(&mut again, &format!("echo $A+$({read})"), "before+before");
    assert!(!monitor(&mut again, "delvm one").contains("Error"));
    assert!(monitor(&mut again, "info snapshots").contains("There is no snapshot available"));
    drop(again);
}

#[test]
fn snapshots_on_virt() {
    require!("kernel", "initramfs");
    snapshots(Board::Virt, &["-cpu", "max", "-smp", "2"]);
}

#[test]
fn snapshots_on_q35() {
    require!("amd64/kernel", "amd64/initramfs");
    snapshots(Board::Q35, &["-cpu", "max", "-smp", "2"]);
}

#[test]
fn snapshots_on_pseries() {
    require!("ppc64el/kernel", "ppc64el/initramfs");
    snapshots(Board::Pseries, &["-smp", "2"]);
}

/// A machine that is another one is told by what differs.
#[test]
fn snapshots_of_another_machine_are_refused() {
    let scratch = Scratch::new();
    let drive = format!("if=none,id=d,file={}", image(&scratch));
    let start = |args: &[&str], more: &[&str]| {
        let own = ["-M", "q35", "-S", "-nodefaults", "-display", "none", "-monitor", "stdio"];
        let disk = ["-drive", &drive, "-device", "virtio-blk-pci,drive=d"];
        [&own[..], &disk, args, more].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut guest = Emulator::start(&start(&["-m", "64M"], &[]));
    guest.expect("(rhea) ", STEP);
    guest.send("savevm one\n");
    guest.expect("savevm one", STEP);
    guest.expect("(rhea) ", STEP);
    guest.send("quit\n");
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
    for (args, message) in [
        (&["-m", "128M"][..], "memory 'ram': the saved machine has 67108864 bytes, this one 134217728 bytes"),
        (&["-m", "64M", "-smp", "2"], "-smp: the saved machine has cpus=1"),
        (
            &["-m", "64M", "-device", "virtio-rng-pci"],
            "device 'virtio-rng-pci@03.0': the saved machine has no such device",
        ),
    ] {
        let ended = run(&start(args, &["-loadvm", "one", "-accel", "tcg"]), STEP);
        let all = format!("{}{}", ended.stdout, ended.stderr);
        assert!(!ended.status.success() && all.contains(message), "{args:?}: {all}");
    }
    let ended = run(&start(&["-m", "64M"], &["-loadvm", "two", "-accel", "tcg"]), STEP);
    assert!(ended.stderr.contains("rhea: -loadvm: 'two': Device 'd' does not have the requested snapshot 'two'"));
}
