//! Debian's arm64 kernel on `-M virt`.

use std::time::{Duration, Instant};

use rhea_tests::{Board, Emulator, STEP, linux, linux_case, require, run};

#[test]
fn boots_on_every_processor_model() {
    require!("kernel", "initramfs");
    for (model, part) in [
        ("cortex-a53", "0xd03"),
        ("cortex-a57", "0xd07"),
        ("cortex-a72", "0xd08"),
        ("cortex-a76", "0xd0b"),
        ("neoverse-n1", "0xd0c"),
    ] {
        let text = linux_case("features", "", &["-cpu", model]);
        assert!(text.contains(&format!(": {part}")), "{model}: {text}");
    }
}

#[test]
fn boots_with_each_interrupt_controller() {
    require!("kernel", "initramfs");
    for (version, sign, cpus) in [("2", "GICv2m: range", "2"), ("3", "GICv3: CPU0: found redistributor", "4")] {
        let machine = format!("gic-version={version}");
        let args = ["-cpu", "max", "-smp", cpus, "-machine", &machine];
        let text = linux_case("features,smp", &format!("rhea.cpus={cpus}"), &args);
        assert!(text.contains(sign), "GICv{version}: {text}");
        if version == "3" {
            assert!(text.contains("ITS [mem"), "no ITS: {text}");
        }
    }
}

#[test]
fn boots_at_el2() {
    require!("kernel", "initramfs");
    let text = linux_case("features", "", &["-cpu", "max", "-machine", "virtualization=on,gic-version=3"]);
    assert!(text.contains("CPU features"), "{text}");
    let mut guest = Board::Virt.start("", &["-cpu", "cortex-a72", "-machine", "virtualization=on"]);
    guest.expect("guest# ", STEP);
    guest.send("dmesg | grep -o 'started at EL[0-9]'\n");
    guest.expect("started at EL2", STEP);
}

/// The memory that the guest at its shell has, in KiB, is at least `least`.
fn has_memory(guest: &mut Emulator, least: u64) {
    guest.send("grep MemTotal /proc/meminfo\n");
    guest.expect("MemTotal:", STEP);
    let line = guest.expect("kB", STEP);
    let total: u64 = line.trim().trim_end_matches(" kB").trim().parse().expect("a number");
    assert!(total >= least, "{total} kB");
}

#[test]
fn shell_takes_what_is_typed() {
    require!("kernel", "initramfs");
    let mut guest = Board::Virt.start("", &["-cpu", "max", "-m", "3G"]);
    guest.expect("guest# ", STEP);
    has_memory(&mut guest, 2_800_000);
    guest.send("echo $((6 * 7))-$(uname -m)\n");
    guest.expect("42-aarch64", STEP);
    // Longer than the FIFO of the UART.
    let long = "x".repeat(200);
    guest.send(&format!("echo {long} | wc -c\n"));
    guest.expect("\n201", STEP);
    guest.send("exit\n");
    guest.expect("RHEA-SHELL left", STEP);
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
}

#[test]
fn terminal_is_raw_and_ctrl_a_x_leaves() {
    require!("kernel", "initramfs");
    let mut guest = Emulator::start_on_terminal(&[linux(""), vec!["-cpu".into(), "max".into()]].concat());
    guest.expect("guest# ", STEP);
    // Ctrl-C belongs to the guest, not to the emulator.
    guest.send("sleep 1000\n");
    std::thread::sleep(Duration::from_millis(500));
    guest.send("\x03");
    guest.expect("guest# ", STEP);
    guest.send("echo still-$((1 + 1))-here\n");
    guest.expect("still-2-here", STEP);
    guest.send("\x01h");
    guest.expect("C-a x", STEP);
    guest.send("\x01x");
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
}

#[test]
fn monitor_behind_the_console() {
    require!("kernel", "initramfs");
    let mut guest = Board::Virt.start("", &["-cpu", "max", "-m", "256M", "-name", "a-guest"]);
    guest.expect("guest# ", STEP);
    has_memory(&mut guest, 180_000);
    guest.send("\x01c");
    guest.expect(") ", STEP);
    guest.send("info status\n");
    guest.expect("VM status: running", STEP);
    guest.send("stop\n");
    guest.expect(") ", STEP);
    guest.send("info status\n");
    guest.expect("VM status: paused", STEP);
    guest.send("info name\n");
    guest.expect("a-guest", STEP);
    guest.send("nonsense\n");
    guest.expect("unknown command", STEP);
    guest.send("cont\n");
    guest.send("info status\n");
    guest.expect("VM status: running", STEP);
    guest.send("\x01c\n");
    guest.expect("guest# ", STEP);
    guest.send("echo back-$((3 * 3))\n");
    guest.expect("back-9", STEP);
    guest.send("\x01c");
    guest.send("quit\n");
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
}

#[test]
fn idle_guest_uses_little_processor_time_and_a_stopped_one_sees_no_time_pass() {
    require!("kernel", "initramfs");
    let mut guest = Board::Virt.start("", &["-cpu", "max", "-smp", "2"]);
    guest.expect("guest# ", STEP);
    std::thread::sleep(Duration::from_secs(2));
    let before = guest.cpu_time();
    std::thread::sleep(Duration::from_secs(4));
    let used = guest.cpu_time() - before;
    assert!(used < Duration::from_secs(1), "{used:?} of processor time in 4 s of idling");

    let uptime = |guest: &mut Emulator| -> f64 {
        guest.send("echo up=$(cut -d' ' -f1 /proc/uptime)=\n");
        guest.expect("\nup=", STEP);
        guest.expect("=", STEP).trim_end_matches('=').parse().expect("a number")
    };
    let before = uptime(&mut guest);
    guest.expect("guest# ", STEP);
    let started = Instant::now();
    guest.send("\x01cstop\n");
    std::thread::sleep(Duration::from_secs(4));
    guest.send("cont\n\x01c");
    let after = uptime(&mut guest);
    let passed = started.elapsed().as_secs_f64();
    assert!(after - before < passed - 3.0, "{before} {after} in {passed} s with 4 s stopped");
}

#[test]
fn monitor_presses_the_power_button() {
    require!("kernel", "initramfs");
    let mut guest = Board::Virt.start("rhea.test=powerbutton", &["-cpu", "max"]);
    guest.expect("waiting for the button", STEP);
    guest.send("\x01csystem_powerdown\n");
    guest.send("\x01c");
    guest.expect("RHEA-TEST powerbutton PASS", STEP);
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
}

#[test]
fn monitor_resets_the_machine_and_the_guest_reboots() {
    require!("kernel", "initramfs");
    let mut guest = Board::Virt.start("", &["-cpu", "max", "-smp", "2"]);
    for reset in ["\x01csystem_reset\n\x01c", "reboot -f\n", ""] {
        guest.expect("RHEA-SHELL ready", STEP);
        guest.expect("guest# ", STEP);
        guest.send("nproc\n");
        guest.expect("\n2", STEP);
        guest.expect("guest# ", STEP);
        guest.send(reset);
    }
}

/// Accesses to unassigned addresses do no harm; then a reboot ends the emulator.
#[test]
fn no_reboot_ends_instead() {
    require!("kernel", "initramfs");
    let words = "rhea.test=rng,badaddress rhea.end=reboot";
    let mut guest = Board::Virt.start(words, &["-cpu", "max", "-no-reboot", "-device", "virtio-rng-pci"]);
    guest.expect("RHEA-TEST rng PASS", STEP);
    guest.expect("read 0x30000000", STEP);
    guest.expect("RHEA-TEST badaddress PASS", STEP);
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
}

#[test]
fn one_processor_whose_clocks_agree_with_the_host() {
    require!("kernel", "initramfs");
    let before = std::time::SystemTime::now();
    let text = linux_case("time,smp", "rhea.cpus=1", &["-cpu", "max"]);
    let guest: u64 = text
        .lines()
        .find_map(|l| l.trim().strip_prefix("epoch="))
        .and_then(|n| n.trim().parse().ok())
        .expect("the guest's time");
    let host = before.duration_since(std::time::UNIX_EPOCH).expect("a host clock after 1970").as_secs();
    assert!((host.saturating_sub(5)..host + 200).contains(&guest), "guest {guest}, host {host}");
}

#[test]
fn log_to_a_file() {
    require!("kernel", "initramfs");
    let scratch = rhea_tests::Scratch::new();
    let file = scratch.path("log");
    let mut args = linux("rhea.test=features");
    args.extend(["-d", "int,cpu_reset", "-D", &file].map(String::from));
    let ended = run(&args, STEP);
    assert!(ended.status.success(), "{}", ended.stderr);
    let text = std::fs::read_to_string(file).expect("the log");
    for line in ["CPU Reset (CPU 0)", "CPU 0: Sync exception from EL0 to EL1", "CPU 0: Irq exception"] {
        assert!(text.contains(line), "no '{line}' in the log");
    }
}

#[test]
fn serial_port_to_a_file() {
    require!("kernel", "initramfs");
    let scratch = rhea_tests::Scratch::new();
    let file = scratch.path("serial");
    let mut args = linux("rhea.test=time");
    args.retain(|a| a != "-nographic");
    let serial = format!("file:{file}");
    args.extend(
        ["-cpu", "max", "-rtc", "base=2001-02-03T04:05:06", "-display", "none", "-monitor", "none", "-serial", &serial]
            .map(String::from),
    );
    let ended = run(&args, STEP);
    assert!(ended.status.success(), "{}", ended.stderr);
    assert_eq!(ended.stdout, "");
    let text = std::fs::read_to_string(file).expect("the serial port's file");
    assert!(text.contains("RHEA-TEST time PASS"), "{text}");
    // The clock begins as it was told.
    assert!(text.contains("epoch=981173"), "{text}");
}

#[test]
fn counted_instructions_make_the_same_run_again() {
    require!("kernel", "initramfs");
    let kernels_log = || {
        let args = [
            "-machine",
            "dtb-randomness=off",
            "-cpu",
            "cortex-a57",
            "-smp",
            "2",
            "-rtc",
            "base=2026-01-01,clock=vm",
            "-icount",
            "shift=1,sleep=off",
        ];
        let text = linux_case("time", "ignore_loglevel", &args);
        // With its times, in microseconds; programs wait for the host to take what they print.
        let kernels = text.lines().take_while(|line| !line.contains("Run /init"));
        kernels.filter(|line| line.starts_with('[')).map(str::to_owned).collect::<Vec<_>>()
    };
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(kernels_log);
        (kernels_log(), one.join().expect("the other one"))
    });
    assert!(one.len() > 100, "{one:#?}");
    for (a, b) in one.iter().zip(&other) {
        assert_eq!(a, b);
    }
    assert_eq!(one.len(), other.len());
}
