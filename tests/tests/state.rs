//! The state of whole machines: snapshots of a running Linux, a program that is moved from process to process.

use rhea_control::{Value, json};
use rhea_tests::{Board, Emulator, STEP, Scratch, guest_file, require, run, run_command};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// A qcow2 image.
fn image(scratch: &Scratch) -> String {
    let image = scratch.path("disk.qcow2");
    let made = run(&["img", "create", "-f", "qcow2", &image, "64M"], STEP);
    assert!(made.status.success(), "{}", made.stderr);
    image
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
    // The shell asks its terminal for the cursor after it has prompted, at any time: commands do not share the terminal with it.
    let socket = scratch.path("qmp");
    let qmp = format!("unix:{socket},server=on,wait=off");
    all.extend(["-drive", &drive, "-device", "virtio-blk-pci,drive=d", "-qmp", &qmp]);
    let mut guest = board.start("", &all);
    let mut control = Control::connect(&socket, &guest);
    guest.expect("guest# ", STEP);
    let read = "dd if=/dev/vda bs=512 count=1 iflag=direct 2>/dev/null | tr -d '\\0'";
    let write = |text: &str| {
        format!("echo {text} | dd of=/dev/vda bs=512 conv=sync oflag=direct 2>/dev/null; A={text}; echo $A-$((1+1))")
    };
    shell(&mut guest, &write("before"), "before-2");
    assert_eq!(control.monitor("savevm one"), "");
    shell(&mut guest, &write("after"), "after-2");
    for _ in 0..2 {
        assert_eq!(control.monitor("loadvm one"), "");
        shell(&mut guest, &format!("echo $A+$({read})"), "before+before");
    }
    assert!(control.monitor("loadvm two").contains("does not have the requested snapshot 'two'"));
    let list = control.monitor("info snapshots");
    assert!(list.contains("one"), "{list}");
    drop((guest, control));

    all.extend(["-loadvm", "one"]);
    let mut again = board.start("", &all);
    // The serial port's state comes with the machine: what is typed before is lost.
    let mut control = Control::connect(&socket, &again);
    let end = Instant::now() + STEP;
    while control.execute(json!({"execute": "query-status"}))["return"]["status"] != "running" {
        assert!(Instant::now() < end, "{}", again.transcript());
        std::thread::sleep(Duration::from_millis(20));
    }
    shell(&mut again, &format!("echo $A+$({read})"), "before+before");
    assert_eq!(control.monitor("delvm one"), "");
    assert!(control.monitor("info snapshots").contains("There is no snapshot available"));
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
        (&["-m", "64M", "-M", "q35,smm=off"], "-M smm: the saved machine has on, this one off"),
        (
            &["-m", "64M", "-device", "virtio-rng-pci"],
            "device 'virtio-rng-pci@02.0': the saved machine has no such device",
        ),
    ] {
        let ended = run(&start(args, &["-loadvm", "one", "-accel", "tcg"]), STEP);
        let all = format!("{}{}", ended.stdout, ended.stderr);
        assert!(!ended.status.success() && all.contains(message), "{args:?}: {all}");
    }
    let ended = run(&start(&["-m", "64M"], &["-loadvm", "two", "-accel", "tcg"]), STEP);
    assert!(ended.stderr.contains("rhea: -loadvm: 'two': Device 'd' does not have the requested snapshot 'two'"));
}

/// The control protocol of an emulator, and the events that have come.
struct Control(BufReader<UnixStream>, Vec<Value>);

impl Control {
    fn connect(socket: &str, emulator: &Emulator) -> Self {
        let end = Instant::now() + STEP;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(e) => assert!(Instant::now() < end, "{e}: {}", emulator.transcript()),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        stream.set_read_timeout(Some(STEP)).expect("a time limit");
        let mut control = Self(BufReader::new(stream), Vec::new());
        control.execute(json!({"execute": "qmp_capabilities"}));
        control
    }
    fn execute(&mut self, request: Value) -> Value {
        self.0.get_mut().write_all(format!("{request}\n").as_bytes()).expect("the emulator reads");
        self.answer(&request.to_string())
    }
    fn answer(&mut self, request: &str) -> Value {
        loop {
            let mut line = String::new();
            let n = self.0.read_line(&mut line).expect("a line");
            assert!(n != 0, "{request}: the connection ended");
            let answer: Value = line.parse().expect("JSON");
            if answer.get("return").is_some() || answer.get("error").is_some() {
                return answer;
            }
            self.1.push(answer);
        }
    }
    /// Hands a descriptor over, to be called `name`.
    fn give(&mut self, name: &str, fd: &UnixStream) {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
        let request = json!({"execute": "getfd", "arguments": {"fdname": name}});
        let text = format!("{request}\n");
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [fd.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        let data = [std::io::IoSlice::new(text.as_bytes())];
        sendmsg(self.0.get_ref(), &data, &mut control, SendFlags::empty()).expect("the emulator reads");
        assert_eq!(self.answer(&text)["return"], json!({}));
    }
    /// What the human monitor answers.
    fn monitor(&mut self, line: &str) -> String {
        let arguments = json!({"command-line": line});
        let answer = self.execute(json!({"execute": "human-monitor-command", "arguments": arguments}));
        answer["return"].as_str().unwrap_or_else(|| panic!("{line}: {answer}")).to_owned()
    }
}

/// A machine whose serial port is on the emulator's streams and whose monitor is reached by the control protocol: what the guest
/// prints does not get between.
struct Machine {
    emulator: Emulator,
    control: Control,
}

impl Machine {
    fn start(scratch: &Scratch, name: &str, args: &[&str]) -> Self {
        let socket = scratch.path(&format!("qmp-{name}"));
        let qmp = format!("unix:{socket},server=on,wait=off");
        let own = ["-nodefaults", "-display", "none", "-serial", "stdio", "-vga", "none", "-qmp", &qmp];
        let emulator = Emulator::start(&[&own[..], args].concat());
        let control = Control::connect(&socket, &emulator);
        Self { emulator, control }
    }
    fn monitor(&mut self, line: &str) -> String {
        self.control.monitor(line)
    }
    /// Waits until its migration is at this point.
    fn migration_is(&mut self, status: &str) {
        let end = Instant::now() + STEP;
        let line = format!("status: {status}");
        loop {
            let info = self.monitor("info migrate");
            if info.lines().any(|l| l.trim_end().ends_with(&line)) {
                return;
            }
            assert!(Instant::now() < end, "{status}: {info}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    /// The program goes on, and has found nothing wrong.
    fn runs(&mut self) {
        for _ in 0..2 {
            self.emulator.expect_any(&["turn ", "FAIL"], STEP);
        }
        assert!(!self.emulator.transcript().contains("FAIL"), "{}", self.emulator.transcript());
    }
}

/// How often a machine is moved: `RHEA_MOVES=100` for a night.
fn moves(otherwise: usize) -> usize {
    std::env::var("RHEA_MOVES").ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise)
}

/// A program that writes all of a piece of memory and finds it again, on the way between processes.
fn moves_by_rounds(board: Board, program: &str, from: u64, args: &[&str]) {
    let scratch = Scratch::new();
    let kernel = guest_file(program);
    let words = format!("from={from} mib=16");
    let common = ["-M", board.machine(), "-m", "256M", "-kernel", &kernel, "-append", &words];
    let common = [&common[..], args].concat();
    let mut guest = Machine::start(&scratch, "start", &common);
    guest.emulator.expect("turn 1\r\n", STEP);
    for round in 0..moves(5) {
        let place = format!("unix:{}", scratch.path(&format!("move-{round}")));
        let channels = round == 4;
        let incoming = ["-incoming", if channels { "defer" } else { &place }];
        let mut next = Machine::start(&scratch, &round.to_string(), &[&common[..], &incoming].concat());
        if channels {
            for machine in [&mut guest, &mut next] {
                assert_eq!(machine.monitor("migrate_set_capability multifd on"), "");
                assert_eq!(machine.monitor("migrate_set_parameter multifd-channels 4"), "");
            }
            assert_eq!(next.monitor(&format!("migrate_incoming {place}")), "");
        }
        assert_eq!(next.monitor("info status").trim(), "VM status: paused (inmigrate)");
        if round == 1 {
            assert_eq!(guest.monitor("migrate_set_parameter multifd-compression zstd"), "");
        }
        if round == 2 {
            // It writes faster than this is, until it is slowed down.
            assert_eq!(guest.monitor("migrate_set_capability auto-converge on"), "");
            assert_eq!(guest.monitor("migrate_set_parameter cpu-throttle-initial 95"), "");
            assert_eq!(guest.monitor("migrate_set_parameter max-bandwidth 32"), "");
        }
        if round == 3 {
            assert_eq!(guest.monitor("migrate_set_capability pause-before-switchover on"), "");
            assert!(guest.monitor("migrate_continue pre-switchover").contains("not in expected state"));
            assert_eq!(guest.monitor(&format!("migrate -d {place}")), "");
            let end = Instant::now() + STEP;
            while !guest.monitor("migrate_continue pre-switchover").is_empty() {
                assert!(Instant::now() < end, "{}", guest.monitor("info migrate"));
                std::thread::sleep(Duration::from_millis(20));
            }
            guest.migration_is("completed");
        } else {
            assert_eq!(guest.monitor(&format!("migrate {place}")), "", "{}", next.emulator.transcript());
        }
        assert_eq!(guest.monitor("info status").trim(), "VM status: paused (postmigrate)");
        let info = guest.monitor("info migrate");
        let none = info.lines().any(|line| line.trim_end().ends_with("multifd-bytes: 0"));
        assert_eq!(none, !channels, "{info}");
        next.runs();
        assert!(!guest.emulator.transcript().contains("FAIL"), "{}", guest.emulator.transcript());
        guest = next;
    }
}

#[test]
fn moves_on_virt() {
    require!("bare-moving");
    moves_by_rounds(Board::Virt, "bare-moving", 0x4400_0000, &["-cpu", "max"]);
}

#[test]
fn moves_on_q35() {
    require!("amd64/bare-moving");
    moves_by_rounds(Board::Q35, "amd64/bare-moving", 0x400_0000, &[]);
}

#[test]
fn moves_on_pseries() {
    require!("ppc64el/bare-moving-big.elf");
    moves_by_rounds(Board::Pseries, "ppc64el/bare-moving-big.elf", 0x400_0000, &["-M", "pseries,x-vof=on"]);
}

/// Whether the host lets this process take a machine over in post-copy.
fn has_postcopy(machine: &mut Machine) -> bool {
    let answer = machine.monitor("migrate_set_capability postcopy-ram on");
    if answer.is_empty() {
        return true;
    }
    assert!(answer.contains("Postcopy is not supported: userfaultfd: "), "{answer}");
    println!("skipped: {answer}");
    false
}

/// The number at the end of a line of `info migrate`.
fn number(info: &str, name: &str) -> u64 {
    let line = info.lines().find_map(|l| l.trim_end().split_once(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("{name}: {info}")).1.parse().expect("a number")
}

/// The program runs at the destination at once, and waits for what it writes to and reads; connections break, and others follow.
fn moves_in_postcopy(board: Board, program: &str, from: u64, args: &[&str]) {
    let scratch = Scratch::new();
    let kernel = guest_file(program);
    let words = format!("from={from} mib=16");
    let common = ["-M", board.machine(), "-m", "256M", "-kernel", &kernel, "-append", &words];
    let common = [&common[..], args].concat();
    let mut guest = Machine::start(&scratch, "start", &common);
    guest.emulator.expect("turn 1\r\n", STEP);
    assert!(guest.monitor("migrate_start_postcopy").contains("Enable postcopy"));
    assert!(guest.monitor("migrate_pause").contains("only supported during postcopy-active"));
    for round in 0..moves(2) {
        let place = format!("unix:{}", scratch.path(&format!("late-{round}")));
        let incoming = ["-incoming", "defer"];
        let mut next = Machine::start(&scratch, &format!("late-{round}"), &[&common[..], &incoming].concat());
        if !has_postcopy(&mut next) {
            return;
        }
        assert_eq!(guest.monitor("migrate_set_capability postcopy-ram on"), "");
        assert!(guest.monitor("migrate_set_capability multifd on").contains("not yet compatible with multifd"));
        assert!(guest.monitor("migrate_start_postcopy").contains("after migration has been started"));
        // Slower than the program writes, so that it would not come to its end.
        assert_eq!(guest.monitor("migrate_set_parameter max-bandwidth 1"), "");
        assert_eq!(guest.monitor("migrate_set_parameter max-postcopy-bandwidth 1"), "");
        assert_eq!(next.monitor(&format!("migrate_incoming {place}")), "");
        assert_eq!(guest.monitor(&format!("migrate -d {place}")), "");
        assert_eq!(guest.monitor("migrate_start_postcopy"), "", "{}", next.emulator.transcript());
        next.migration_is("postcopy-active");
        if round % 2 == 1 {
            // Both ends are told to, by turns.
            for n in 0..2 {
                guest.migration_is("postcopy-active");
                let one = if n == 0 { &mut guest } else { &mut next };
                assert_eq!(one.monitor("migrate_pause"), "");
                next.migration_is("postcopy-paused");
                guest.migration_is("postcopy-paused");
                let again = format!("unix:{}", scratch.path(&format!("again-{n}")));
                // Nobody is there.
                assert_eq!(guest.monitor(&format!("migrate -r {again}")), "");
                guest.migration_is("postcopy-paused");
                assert_eq!(next.monitor(&format!("migrate_recover {again}")), "");
                assert_eq!(guest.monitor(&format!("migrate -d -r {again}")), "");
                next.migration_is("postcopy-active");
            }
        }
        let end = Instant::now() + STEP;
        while number(&guest.monitor("info migrate"), "postcopy-requests") == 0 {
            assert!(Instant::now() < end, "{}", guest.monitor("info migrate"));
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(guest.monitor("migrate_set_parameter max-postcopy-bandwidth 0"), "");
        guest.migration_is("completed");
        next.migration_is("completed");
        assert_eq!(guest.monitor("info status").trim(), "VM status: paused (postmigrate)");
        let info = guest.monitor("info migrate");
        assert_eq!(number(&info, "remaining"), 0);
        next.runs();
        assert!(!guest.emulator.transcript().contains("FAIL"), "{}", guest.emulator.transcript());
        guest = next;
    }
}

#[test]
fn moves_in_postcopy_on_virt() {
    require!("bare-moving");
    moves_in_postcopy(Board::Virt, "bare-moving", 0x4400_0000, &["-cpu", "max"]);
}

#[test]
fn moves_in_postcopy_on_q35() {
    require!("amd64/bare-moving");
    moves_in_postcopy(Board::Q35, "amd64/bare-moving", 0x400_0000, &[]);
}

#[test]
fn moves_in_postcopy_on_pseries() {
    require!("ppc64el/bare-moving-big.elf");
    moves_in_postcopy(Board::Pseries, "ppc64el/bare-moving-big.elf", 0x400_0000, &["-M", "pseries,x-vof=on"]);
}

/// A machine is saved as it was while its program goes on.
fn is_saved_while_it_runs(board: Board, program: &str, from: u64, args: &[&str]) {
    let scratch = Scratch::new();
    let kernel = guest_file(program);
    let words = format!("from={from} mib=16");
    let common = ["-M", board.machine(), "-m", "256M", "-kernel", &kernel, "-append", &words];
    let common = [&common[..], args].concat();
    let mut guest = Machine::start(&scratch, "start", &common);
    guest.emulator.expect("turn 1\r\n", STEP);
    let answer = guest.monitor("migrate_set_capability background-snapshot on");
    if answer.contains("not supported by host kernel") {
        return println!("skipped: {answer}");
    }
    assert_eq!(answer, "");
    assert!(guest.monitor("migrate_set_capability multifd on").contains("not compatible with multifd"));
    // The last turn of which all was printed.
    let turn = |machine: &Machine| -> Option<u64> {
        let text = machine.emulator.transcript();
        text.rsplit_once("\r\n")?.0.rsplit("turn ").next()?.parse().ok()
    };
    let wait = |machine: &Machine, least: u64| -> u64 {
        let end = Instant::now() + STEP;
        loop {
            match turn(machine).filter(|n| *n >= least) {
                Some(n) => return n,
                None => assert!(Instant::now() < end, "{}", machine.emulator.transcript()),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    // The stream takes nothing before the program has gone on for some turns.
    let (file, go) = (scratch.path("saved"), scratch.path("go"));
    let place = format!("exec:while [ ! -e {go} ]; do sleep 0.05; done; cat >{file}");
    assert_eq!(guest.monitor(&format!("migrate -d {place}")), "");
    guest.migration_is("active");
    let end = Instant::now() + STEP;
    while number(&guest.monitor("info migrate"), "normal") == 0 {
        assert!(Instant::now() < end, "{}", guest.monitor("info migrate"));
        std::thread::sleep(Duration::from_millis(10));
    }
    let begun = wait(&guest, 1);
    wait(&guest, begun + 5);
    std::fs::write(&go, "").expect("a file");
    guest.migration_is("completed");
    assert_eq!(guest.monitor("info status").trim(), "VM status: running");
    guest.runs();
    let mut again = Machine::start(&scratch, "again", &[&common[..], &["-incoming", &format!("file:{file}")]].concat());
    wait(&again, 1);
    let text = again.emulator.transcript();
    // It may begin in the middle of a line.
    let first = text.split("\r\n").find_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    assert!(first.is_some_and(|n| n <= begun + 1), "{begun}: {text}");
    again.runs();
    guest.runs();
}

#[test]
fn virt_is_saved_while_it_runs() {
    require!("bare-moving");
    is_saved_while_it_runs(Board::Virt, "bare-moving", 0x4400_0000, &["-cpu", "max"]);
}

#[test]
fn q35_is_saved_while_it_runs() {
    require!("amd64/bare-moving");
    is_saved_while_it_runs(Board::Q35, "amd64/bare-moving", 0x400_0000, &[]);
}

#[test]
fn pseries_is_saved_while_it_runs() {
    require!("ppc64el/bare-moving-big.elf");
    is_saved_while_it_runs(Board::Pseries, "ppc64el/bare-moving-big.elf", 0x400_0000, &["-M", "pseries,x-vof=on"]);
}

/// By each kind of stream, some of which can tell the source nothing.
#[test]
fn moves_by_every_stream() {
    require!("amd64/bare-moving");
    let scratch = Scratch::new();
    let kernel = guest_file("amd64/bare-moving");
    let program = ["-M", "q35", "-kernel", &kernel, "-append", "from=67108864 mib=16", "-m", "256M"];
    let start =
        |name: &str, from: &[&str]| -> Machine { Machine::start(&scratch, name, &[&program[..], from].concat()) };
    let mut guest = start("start", &[]);
    guest.emulator.expect("turn 1\r\n", STEP);
    let moved = |guest: &mut Machine, mut next: Machine, to: &str| {
        assert_eq!(guest.monitor(&format!("migrate {to}")), "", "{}", next.emulator.transcript());
        next.runs();
        *guest = next;
    };

    assert_eq!(guest.monitor("migrate_set_capability events on"), "");
    // A port that nobody has had a moment ago.
    let free = || std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let place = format!("tcp:127.0.0.1:{}", free());
    let mut next = start("tcp", &["-incoming", &place]);
    assert_eq!(guest.monitor(&format!("migrate {place}")), "", "{}", next.emulator.transcript());
    guest.control.execute(json!({"execute": "query-status"}));
    let events = std::mem::take(&mut guest.control.1);
    let told = |name: &str, key: &str| -> Vec<Value> {
        events.iter().filter(|e| e["event"] == name).map(|e| e["data"][key].clone()).collect()
    };
    assert_eq!(told("MIGRATION", "status"), ["setup", "active", "device", "completed"], "{events:?}");
    let passes = told("MIGRATION_PASS", "pass");
    assert!(!passes.is_empty() && passes.iter().zip(1..).all(|(pass, n)| *pass == json!(n)), "{events:?}");
    next.runs();
    guest = next;

    let place = format!("tcp:127.0.0.1:{}", free());
    let mut next = start("defer", &["-incoming", "defer"]);
    assert!(guest.monitor(&format!("migrate {place}")).starts_with("Error: migration: "));
    assert_eq!(next.monitor(&format!("migrate_incoming {place}")), "");
    assert!(next.monitor(&format!("migrate_incoming {place}")).contains("already been started"));
    moved(&mut guest, next, &place);

    // The program writes its memory faster than a slow pipe takes it.
    assert_eq!(guest.monitor("migrate_set_parameter downtime-limit 10000"), "");
    let file = scratch.path("piped");
    assert_eq!(guest.monitor(&format!("migrate exec:cat >{file}")), "");
    let next = start("exec", &["-incoming", &format!("exec:cat {file}")]);
    guest = next;
    guest.runs();
    assert!(guest.monitor("migrate exec:exit 3").starts_with("Error: migration: "));
    guest.runs();

    // Both ends of a pair of sockets, by the names that they are given.
    let (here, there) = UnixStream::pair().expect("a pair");
    let mut next = start("fd", &["-incoming", "defer"]);
    guest.control.give("move", &here);
    next.control.give("move", &there);
    drop((here, there));
    let command = |control: &mut Control, command: &str, uri: &str| {
        control.execute(json!({"execute": command, "arguments": {"uri": uri}}))
    };
    assert_eq!(command(&mut next.control, "migrate-incoming", "fd:move")["return"], json!({}));
    assert!(
        command(&mut guest.control, "migrate", "fd:another")["error"]["desc"]
            .as_str()
            .is_some_and(|e| e.contains("another"))
    );
    assert_eq!(command(&mut guest.control, "migrate", "fd:move")["return"], json!({}));
    next.runs();
}

/// A disk that the guest writes to all the while goes with the machine, or stays when that stays.
#[test]
fn disks_move_with_the_machine() {
    require!("amd64/kernel", "amd64/initramfs");
    let scratch = Scratch::new();
    let image = image(&scratch);
    let (kernel, initrd) = (guest_file("amd64/kernel"), guest_file("amd64/initramfs"));
    let base = ["-M", "q35", "-m", "256M", "-kernel", &kernel, "-initrd", &initrd, "-append", "console=ttyS0 quiet"];
    let start = |name: &str, image: &str, more: &[&str]| {
        let drive = format!("if=none,id=d,file={image}");
        let disk = ["-drive", &drive, "-device", "virtio-blk-pci,drive=d"];
        Machine::start(&scratch, name, &[&base[..], &disk, more].concat())
    };
    let mut guest = start("first", &image, &[]);
    guest.emulator.expect("guest# ", STEP);
    assert_eq!(guest.monitor("migrate_set_parameter max-bandwidth 0"), "");
    // Pieces of the disk by turns, each with its sum; another one is looked at again.
    guest.emulator.send(
        "d=/dev/vda; n=0; while [ ! -e /stop ]; do n=$((n+1)); s=$((n%48)); \
         dd if=/dev/urandom of=/b bs=64k count=4 2>/dev/null; \
         dd if=/b of=$d bs=256k seek=$s conv=notrunc oflag=direct 2>/dev/null || echo FAI''L $s; \
         md5sum </b >/m$s; t=$((n*7%48)); \
         [ -e /m$t ] && [ \"$(dd if=$d bs=256k skip=$t count=1 iflag=direct 2>/dev/null | md5sum)\" != \"$(cat /m$t)\" ] \
         && echo FAI''L $t; echo tu''rn $n; done &\n",
    );
    guest.runs();

    // The other end has an image that somebody else has, which it learns when this one has been given up.
    let other = scratch.path("other.qcow2");
    std::fs::copy(&image, &other).expect("a copy");
    let _holder = Machine::start(&scratch, "holder", &["-M", "q35", "-S", "-drive", &format!("file={other}")]);
    let place = format!("unix:{}", scratch.path("refused"));
    let mut refused = start("refused", &other, &["-incoming", &place]);
    assert!(guest.monitor(&format!("migrate {place}")).contains("another process is using this image"));
    assert!(!refused.emulator.wait(STEP).success());
    guest.runs();
    let busy = run(&["img", "check", &image], STEP);
    assert!(busy.stderr.contains("another process is using this image"), "{}", busy.stderr);

    for round in 0..3 {
        let place = format!("unix:{}", scratch.path(&format!("disk-{round}")));
        let mut next = start(&round.to_string(), &image, &["-incoming", &place]);
        assert_eq!(guest.monitor(&format!("migrate {place}")), "", "{}", next.emulator.transcript());
        // The machine that was left cannot have its disks again while another has them.
        assert!(guest.monitor("cont").contains("another process is using this image"));
        next.runs();
        assert!(!guest.emulator.transcript().contains("FAIL"), "{}", guest.emulator.transcript());
        guest = next;
    }
    // To a file, and on from there with what the disk is then.
    let file = format!("file:{}", scratch.path("saved"));
    assert_eq!(guest.monitor(&format!("migrate {file}")), "");
    let sound = run(&["img", "check", &image], STEP);
    assert!(sound.status.success(), "{}{}", sound.stdout, sound.stderr);
    assert_eq!(guest.monitor("cont"), "");
    guest.runs();

    guest.emulator.send("\ntouch /stop; wait; dd if=/dev/vda bs=1M iflag=direct 2>/dev/null | md5sum; echo do''ne\n");
    let end = guest.emulator.expect("done", STEP);
    guest.control.execute(json!({"execute": "quit"}));
    guest.emulator.wait(STEP);
    assert!(!guest.emulator.transcript().contains("FAIL"), "{}", guest.emulator.transcript());
    let sound = run(&["img", "check", &image], STEP);
    assert!(sound.status.success(), "{}{}", sound.stdout, sound.stderr);
    let raw = scratch.path("disk.raw");
    assert!(run(&["img", "convert", "-O", "raw", &image, &raw], STEP).status.success());
    let mut sum = std::process::Command::new("md5sum");
    sum.arg(&raw);
    let sum = run_command(sum, STEP).stdout;
    let sum = sum.split(' ').next().expect("a sum");
    assert!(sum.len() == 32 && end.contains(sum), "{sum}: {end}");
}

/// The machine goes on where it is when the other end is another machine, goes away, or the move is given up.
#[test]
fn moves_that_fail_leave_the_machine_running() {
    require!("amd64/bare-moving");
    let scratch = Scratch::new();
    let kernel = guest_file("amd64/bare-moving");
    let program = ["-M", "q35", "-kernel", &kernel, "-append", "from=67108864 mib=16"];
    let mut guest = Machine::start(&scratch, "start", &[&program[..], &["-m", "256M"]].concat());
    guest.emulator.expect("turn 1\r\n", STEP);
    let incoming = |name: &str, memory: &str, place: &str| {
        Machine::start(&scratch, name, &[&program[..], &["-m", memory, "-incoming", place]].concat())
    };

    let place = format!("unix:{}", scratch.path("other"));
    let mut other = incoming("other", "512M", &place);
    let differs = "memory 'ram': the saved machine has 268435456 bytes, this one 536870912 bytes";
    assert!(guest.monitor(&format!("migrate {place}")).starts_with("Error: migration: "));
    other.emulator.expect(&format!("rhea: -incoming: {differs}"), STEP);
    assert!(!other.emulator.wait(STEP).success());
    guest.runs();
    assert!(guest.monitor(&format!("migrate unix:{}", scratch.path("nobody"))).starts_with("Error: migration: "));
    assert!(guest.monitor("migrate rdma:a:1").contains("'rdma' is not supported"));
    assert!(guest.monitor("migrate_set_capability rdma-pin-all on").contains("rdma-pin-all"));

    // So slow that it does not come to its end.
    assert_eq!(guest.monitor("migrate_set_parameter max-bandwidth 1"), "");
    let place = format!("unix:{}", scratch.path("slow"));
    let mut slow = incoming("slow", "256M", &place);
    assert_eq!(guest.monitor(&format!("migrate -d {place}")), "");
    guest.runs();
    guest.migration_is("active");
    assert_eq!(guest.monitor("migrate_cancel"), "");
    assert!(!slow.emulator.wait(STEP).success());
    guest.migration_is("cancelled");
    guest.runs();

    // A file is a stream too; one that is damaged is refused.
    assert_eq!(guest.monitor("migrate_set_parameter max-bandwidth 0"), "");
    let file = scratch.path("file");
    assert_eq!(guest.monitor(&format!("migrate file:{file}")), "");
    assert_eq!(guest.monitor("cont"), "");
    guest.runs();
    incoming("again", "256M", &format!("file:{file}")).runs();
    let mut bytes = std::fs::read(&file).expect("the file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = format!("file:{}", scratch.file("damaged", &bytes));
    let bare = ["-nodefaults", "-display", "none", "-vga", "none", "-serial", "null", "-accel", "tcg"];
    let refused = run(&[&program[..], &bare, &["-m", "256M", "-incoming", &damaged]].concat(), STEP);
    assert!(!refused.status.success() && refused.stderr.contains("its checksum is wrong"), "{}", refused.stderr);
}

/// What happens to a channel on its way.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Cut,
    Garbled,
    /// None of the channels comes to its end.
    Held,
}

/// Connections to `here` go on to `there`; what the third one brings suffers from `fault` after some time.
fn between(here: &str, there: &str, fault: Fault) {
    let listener = UnixListener::bind(here).expect("a socket");
    let there = there.to_owned();
    let copy = |from: &UnixStream, to: &UnixStream, fault: Option<Fault>| {
        let (mut from, mut to) = (from.try_clone().expect("a stream"), to.try_clone().expect("a stream"));
        std::thread::spawn(move || {
            let (mut data, mut sum) = (vec![0; 64 << 10], 0);
            while let Ok(n @ 1..) = from.read(&mut data) {
                sum += n;
                match fault.filter(|_| sum > 100 << 10) {
                    Some(Fault::Cut) => break,
                    Some(Fault::Garbled) => data[..n].iter_mut().for_each(|b| *b ^= 0x55),
                    Some(Fault::Held) | None => {}
                }
                if to.write_all(&data[..n]).is_err() {
                    break;
                }
            }
            for end in [from, to] {
                // Its other end may be gone.
                let _ = end.shutdown(std::net::Shutdown::Both);
            }
        });
    };
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for (number, link) in listener.incoming().enumerate() {
            if number > 0 && matches!(fault, Fault::Held) {
                held.push(link);
                continue;
            }
            let (Ok(link), Ok(on)) = (link, UnixStream::connect(&there)) else { break };
            copy(&link, &on, (number == 2).then_some(fault));
            copy(&on, &link, None);
        }
    });
}

/// A channel that breaks or brings what nobody has sent ends the move; the machine goes on, and moves when all is well.
#[test]
fn moves_by_channels_that_fail_leave_the_machine_running() {
    require!("amd64/bare-moving");
    let scratch = Scratch::new();
    let kernel = guest_file("amd64/bare-moving");
    let program = ["-M", "q35", "-kernel", &kernel, "-append", "from=67108864 mib=16", "-m", "256M"];
    let mut guest = Machine::start(&scratch, "start", &program);
    guest.emulator.expect("turn 1\r\n", STEP);
    let incoming = |name: &str, on: &str, place: &str| {
        let mut next = Machine::start(&scratch, name, &[&program[..], &["-incoming", "defer"]].concat());
        assert_eq!(next.monitor(&format!("migrate_set_capability multifd {on}")), "");
        assert_eq!(next.monitor("migrate_set_parameter multifd-channels 3"), "");
        assert_eq!(next.monitor(&format!("migrate_incoming {place}")), "");
        next
    };
    assert_eq!(guest.monitor("migrate_set_capability multifd on"), "");
    let several = "Migration requires multi-channel URIs (e.g. tcp)";
    assert!(guest.monitor("migrate exec:cat").contains(several));
    for (parameter, why) in [
        ("multifd-channels 0", "Parameter 'multifd-channels' expects a value between 1 and 255"),
        ("multifd-channels 256", "multifd-channels"),
        ("multifd-compression qpl", "qpl"),
    ] {
        let answer = guest.monitor(&format!("migrate_set_parameter {parameter}"));
        assert!(answer.contains(why), "{parameter}: {answer}");
    }

    let place = format!("unix:{}", scratch.path("off"));
    let mut off = incoming("off", "off", &place);
    let answer = guest.monitor(&format!("migrate {place}"));
    assert!(answer.starts_with("Error: migration: "), "{answer}");
    off.emulator.expect("rhea: -incoming: multifd: the saved machine has on, this one off", STEP);
    assert!(!off.emulator.wait(STEP).success());
    let place = format!("unix:{}", scratch.path("more"));
    let mut more = incoming("more", "on", &place);
    let answer = guest.monitor(&format!("migrate {place}"));
    assert!(answer.contains("multifd-channels: the saved machine has 2, this one 3"), "{answer}");
    assert!(!more.emulator.wait(STEP).success());
    guest.runs();

    assert_eq!(guest.monitor("migrate_set_parameter multifd-channels 3"), "");
    // When a channel is cut, either end may be the first to see it; what is garbled is seen at one.
    for (name, fault, why) in [("cut", Fault::Cut, ""), ("garbled", Fault::Garbled, "multifd channel 1: ")] {
        let there = scratch.path(name);
        let mut next = incoming(name, "on", &format!("unix:{there}"));
        let here = scratch.path(&format!("{name}-way"));
        between(&here, &there, fault);
        let answer = guest.monitor(&format!("migrate unix:{here}"));
        assert!(answer.starts_with("Error: migration: "), "{fault:?}: {answer}");
        next.emulator.expect(&format!("rhea: -incoming: {why}"), STEP);
        assert!(!next.emulator.wait(STEP).success());
        assert_eq!(guest.monitor("info status").trim(), "VM status: running");
        guest.runs();
    }

    // Given up while the other end waits for channels: it does not wait on.
    let there = scratch.path("held");
    let mut next = incoming("held", "on", &format!("unix:{there}"));
    let here = scratch.path("held-way");
    between(&here, &there, Fault::Held);
    assert_eq!(guest.monitor(&format!("migrate -d unix:{here}")), "");
    guest.migration_is("active");
    assert_eq!(guest.monitor("migrate_cancel"), "");
    next.emulator.expect("rhea: -incoming: multifd channel 0: the main connection has ended", STEP);
    assert!(!next.emulator.wait(STEP).success());
    guest.migration_is("cancelled");
    guest.runs();

    // Several connections keep to one limit; a move by them can be given up.
    assert_eq!(guest.monitor("migrate_set_parameter max-bandwidth 1"), "");
    let place = format!("unix:{}", scratch.path("slow"));
    let mut slow = incoming("slow", "on", &place);
    assert_eq!(guest.monitor(&format!("migrate -d {place}")), "");
    guest.runs();
    guest.migration_is("active");
    assert_eq!(guest.monitor("migrate_cancel"), "");
    assert!(!slow.emulator.wait(STEP).success());
    guest.migration_is("cancelled");
    guest.runs();

    assert_eq!(guest.monitor("migrate_set_parameter max-bandwidth 0"), "");
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let place = format!("tcp:127.0.0.1:{port}");
    let mut last = incoming("last", "on", &place);
    assert_eq!(guest.monitor(&format!("migrate {place}")), "", "{}", last.emulator.transcript());
    last.runs();
}
