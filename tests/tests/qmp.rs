//! The control protocol on whole machines.

mod errors;
mod fuzz;
mod images;
mod network;
mod probes;

use rhea_control::{Schema, Value, json};
use rhea_tests::{Board, Emulator, Random, STEP, Scratch, emulator_binary, require, run, run_command};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

/// A program that controls an emulator.
struct Client {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
    events: Vec<Value>,
    schema: Schema,
    next: u64,
}

impl Client {
    /// Connects once the emulator listens.
    fn connect(path: &str) -> Self {
        let end = Instant::now() + STEP;
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(e) => assert!(Instant::now() < end, "{path}: {e}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        stream.set_read_timeout(Some(STEP)).expect("a time limit");
        let lines = BufReader::new(stream.try_clone().expect("the socket"));
        Self { stream, lines, events: Vec::new(), schema: rhea_control::schema(), next: 0 }
    }
    /// The same, ready for commands.
    fn ready(path: &str) -> Self {
        let mut client = Self::connect(path);
        let greeting = client.line();
        assert_eq!(greeting["QMP"]["capabilities"], json!(["oob"]), "{greeting}");
        assert_eq!(client.run("qmp_capabilities", json!({"enable": ["oob"]})), Ok(json!({})));
        client
    }
    fn line(&mut self) -> Value {
        let mut line = String::new();
        let n = self.lines.read_line(&mut line).expect("a line");
        assert!(n != 0, "the connection ended");
        assert!(line.ends_with("\r\n"), "{line:?}");
        line.parse().unwrap_or_else(|e| panic!("{line}: {e}"))
    }
    fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).expect("the emulator reads");
    }
    /// The next answer; events before it are kept.
    fn answer(&mut self) -> Value {
        loop {
            let line = self.line();
            if line.get("event").is_none() {
                return line;
            }
            self.events.push(line);
        }
    }
    /// Executes a command; the error is class and text. What is returned must be of the declared type.
    fn run(&mut self, command: &str, arguments: Value) -> Result<Value, (String, String)> {
        self.next += 1;
        let id = json!({"n": self.next});
        let mut request = json!({"execute": command, "id": id});
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        self.send(&format!("{request}\n"));
        let answer = self.answer();
        assert_eq!(answer["id"], id, "{command}: {answer}");
        if let Some(error) = answer.get("error") {
            let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
            return Err((text("class"), text("desc")));
        }
        let value = answer["return"].clone();
        if let Err(e) = self.schema.check_return(command, &value) {
            panic!("{command} returns {value}: {e}");
        }
        Ok(value)
    }
    fn get(&mut self, command: &str) -> Value {
        self.run(command, Value::Null).unwrap_or_else(|(class, text)| panic!("{command}: {class}: {text}"))
    }
    /// Waits for an event; earlier ones are forgotten.
    fn event(&mut self, name: &str) -> Value {
        loop {
            if let Some(at) = self.events.iter().position(|e| e["event"] == name) {
                return self.events.drain(..=at).next_back().unwrap_or_default();
            }
            let line = self.line();
            assert!(line.get("event").is_some(), "{line} while waiting for {name}");
            let seconds = line["timestamp"]["seconds"].as_u64();
            assert!(seconds.is_some_and(|s| s > 1_500_000_000), "{line}");
            self.events.push(line);
        }
    }
}

/// A machine with a monitor at the path that is returned.
fn start(scratch: &Scratch, board: Board, linux: bool, more: &[&str]) -> (Emulator, String) {
    let path = scratch.path("qmp");
    let qmp = format!("unix:{path},server=on,wait=off");
    let machine = ["-M", board.machine(), "-m", "512M", "-display", "none", "-serial", "stdio"];
    let mut args = if linux { board.linux("") } else { machine.map(String::from).to_vec() };
    args.extend(["-monitor", "none", "-qmp", &qmp].iter().chain(more).map(|s| (*s).to_owned()));
    (Emulator::start(&args), path)
}

#[test]
fn negotiation_and_errors() {
    require!("kernel");
    let scratch = Scratch::new();
    let (_machine, path) = start(&scratch, Board::Virt, false, &["-S", "-cpu", "max"]);
    let mut client = Client::connect(&path);
    assert!(client.line().get("QMP").is_some());
    let error = |class: &str, text: &str| Err((class.to_owned(), text.to_owned()));
    let before = error("CommandNotFound", "Expecting capabilities negotiation with 'qmp_capabilities'");
    assert_eq!(client.run("query-status", Value::Null), before);
    assert!(client.run("qmp_capabilities", json!({"enable": ["speed"]})).is_err());
    assert_eq!(client.run("qmp_capabilities", Value::Null), Ok(json!({})));
    let again = "Capabilities negotiation is already complete, command ignored";
    assert_eq!(client.run("qmp_capabilities", Value::Null), error("CommandNotFound", again));
    assert_eq!(client.run("nope", Value::Null), error("CommandNotFound", "The command nope has not been found"));
    for (arguments, text) in [
        (json!({}), "Parameter 'filename' is missing"),
        (json!({"filename": 1}), "Invalid parameter type for 'filename', expected: string"),
        (json!({"filename": "x", "format": "gif"}), "Parameter 'format' does not accept value 'gif'"),
        (json!({"filename": "x", "colour": 1}), "Parameter 'colour' is unexpected"),
    ] {
        assert_eq!(client.run("screendump", arguments), error("GenericError", text));
    }
    let keys = json!({"keys": [{"type": "qcode"}]});
    assert_eq!(client.run("send-key", keys), error("GenericError", "Parameter 'keys[0].data' is missing"));
    for (line, text) in [
        ("[1]\n", "QMP input must be a JSON object"),
        ("{\"foo\": 1}\n", "QMP input member 'foo' is unexpected"),
        ("{\"execute\": 5}\n", "QMP input member 'execute' must be a string"),
        ("{\"execute\": \"stop\", \"arguments\": []}\n", "QMP input member 'arguments' must be an object"),
        ("{\"exec-oob\": \"stop\"}\n", "QMP input member 'exec-oob' is unexpected"),
    ] {
        client.send(line);
        assert_eq!(client.answer()["error"]["desc"], text);
    }
    // What is no JSON does no harm to what comes after it.
    for bad in ["{\n", "}\n", "{\"execute\": \"quit\n", "\u{0}\u{1}\n]]\n"] {
        client.send(bad);
    }
    client.send("]}\n");
    loop {
        client.send("\n{'execute': 'query-name', 'id': 'last'}\n");
        let answer = client.answer();
        if answer["id"] == "last" {
            assert_eq!(answer["return"], json!({}));
            break;
        }
        assert!(answer.get("error").is_some(), "{answer}");
    }
}

/// Everything that can be asked is answered as declared, on each board; and what is declared is there on one of them.
#[test]
fn queries() {
    require!("kernel");
    let mut there = BTreeSet::new();
    let mut declared = BTreeSet::new();
    for board in [Board::Virt, Board::Q35, Board::Pseries] {
        let scratch = Scratch::new();
        let image = scratch.file("disk.img", &vec![0; 1 << 20]);
        let drive = format!("if=none,id=d0,format=raw,file={image}");
        let devices = [
            "-S",
            "-name",
            "one",
            "-drive",
            &drive,
            "-device",
            "virtio-blk-pci,drive=d0,id=disk0",
            "-device",
            "virtio-balloon-pci,id=b",
        ];
        let (_machine, path) = start(&scratch, board, false, &devices);
        let mut client = Client::ready(&path);
        declared.extend(client.schema.command_names().map(str::to_owned));
        let commands: Vec<String> = client
            .get("query-commands")
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|c| c["name"].as_str().map(str::to_owned))
            .collect();
        // Some have to be told what to ask about.
        let told = ["query-cpu-model-expansion", "query-stats"];
        let without = ["query-sev-capabilities", "query-sgx", "query-sgx-capabilities"];
        for command in commands.iter().filter(|c| c.starts_with("query-") && !told.contains(&c.as_str())) {
            let answer = client.run(command, Value::Null);
            assert_eq!(answer.is_err(), without.contains(&command.as_str()), "{command}: {answer:?}");
        }
        let polling = |value: Value| json!({"path": "b", "property": "guest-stats-polling-interval", "value": value});
        assert_eq!(client.run("qom-set", polling(json!(3600))), Ok(json!({})));
        let told = client.run("qom-get", json!({"path": "b", "property": "guest-stats-polling-interval"}));
        assert_eq!(told, Ok(json!(3600)));
        for bad in [polling(json!(-1)), polling(json!("x")), json!({"path": "b", "property": "type", "value": "x"})] {
            assert!(client.run("qom-set", bad).is_err());
        }
        if matches!(board, Board::Q35) {
            let asked = json!({"type": "static", "model": {"name": "qemu64", "props": {"cx16": false}}});
            let told = client.run("query-cpu-model-expansion", asked).expect("a model")["model"].clone();
            assert_eq!((&told["name"], &told["props"]["sse2"]), (&json!("base"), &json!(true)), "{told}");
            assert!(told["props"].get("cx16").is_none(), "{told}");
        }
        there.extend(commands);
        let schema = client.get("query-qmp-schema");
        assert!(schema.as_array().is_some_and(|all| all.iter().any(|e| e["name"] == "query-status")));
        assert_eq!(client.get("query-status"), json!({"running": false, "status": "prelaunch"}));
        assert_eq!(client.get("query-name"), json!({"name": "one"}));
        let cpus = client.get("query-cpus-fast");
        assert!(cpus[0]["thread-id"].as_i64().is_some_and(|id| id > 0), "{cpus}");
        let block = client.get("query-block");
        let entry = block.as_array().expect("a list").iter().find(|d| d["device"] == "d0").expect("the drive").clone();
        assert_eq!(entry["inserted"]["image"]["virtual-size"], 1 << 20);
        assert_eq!(entry["qdev"], "/machine/peripheral/disk0/virtio-backend");
        let list = client.run("qom-list", json!({"path": "/machine/peripheral"})).expect("a list");
        assert!(
            list.as_array().is_some_and(|l| l.contains(&json!({"name": "disk0", "type": "child<virtio-blk-pci>"}))),
            "{list}"
        );
        let kind = client.run("qom-get", json!({"path": "disk0", "property": "type"}));
        assert_eq!(kind, Ok(json!("virtio-blk-pci")));
        let cpu = cpus[0]["qom-path"].clone();
        assert!(client.run("qom-list", json!({"path": cpu})).is_ok());
        let missing = client.run("qom-list", json!({"path": "/machine/zzz"}));
        assert_eq!(missing, Err(("DeviceNotFound".to_owned(), "Device '/machine/zzz' not found".to_owned())));
        let properties = client.run("device-list-properties", json!({"typename": "virtio-blk-pci"})).expect("a list");
        assert!(properties.as_array().is_some_and(|l| l.iter().any(|p| p["name"] == "drive")), "{properties}");
        let types = client.run("qom-list-types", json!({"implements": "pci-device"})).expect("a list");
        assert!(types.as_array().is_some_and(|l| l.iter().any(|t| t["name"] == "virtio-net-pci")), "{types}");
        assert!(client.get("query-pci")[0]["devices"].as_array().is_some_and(|l| l.len() >= 2));
        let text = client.run("human-monitor-command", json!({"command-line": "info status"}));
        assert_eq!(text, Ok(json!("VM status: paused (prelaunch)\r\n")));
    }
    assert_eq!(declared.difference(&there).collect::<Vec<_>>(), Vec::<&String>::new(), "declared, and nowhere");
}

/// Run states, the events that tell of them, two monitors at once, one that never reads.
#[test]
fn life() {
    require!("kernel", "initramfs");
    let scratch = Scratch::new();
    let (second, deaf) = (scratch.path("second"), scratch.path("deaf"));
    let chardev = format!("socket,id=mon1,path={second},server=on,wait=off");
    let third = format!("unix:{deaf},server=on,wait=off");
    let more = ["-cpu", "max", "-S", "-chardev", &chardev, "-mon", "chardev=mon1,mode=control", "-qmp", &third];
    let (mut guest, path) = start(&scratch, Board::Virt, true, &more);
    let (mut one, mut two) = (Client::ready(&path), Client::ready(&second));
    let mut silent = Client::ready(&deaf);
    one.get("cont");
    one.event("RESUME");
    two.event("RESUME");
    guest.expect("guest# ", STEP);
    for _ in 0..3 {
        two.get("stop");
        assert_eq!(one.get("query-status"), json!({"running": false, "status": "paused"}));
        one.event("STOP");
        one.get("cont");
        one.event("RESUME");
    }
    // A client that asks and never reads: the others, and the guest, go on.
    silent.stream.set_write_timeout(Some(Duration::from_secs(2))).expect("a time limit");
    for _ in 0..2000 {
        if silent.stream.write_all(b"{\"execute\": \"query-qmp-schema\"}\n").is_err() {
            break;
        }
    }
    for _ in 0..20 {
        one.get("stop");
        one.get("cont");
    }
    guest.send("echo still-$((40+2))\n");
    guest.expect("still-42", STEP);
    // The prompt of before the reset, lest it be taken for the one after it.
    guest.expect("guest# ", STEP);
    one.events.clear();
    two.events.clear();
    one.get("system_reset");
    assert_eq!(one.event("RESET")["data"], json!({"guest": false, "reason": "host-qmp-system-reset"}));
    guest.expect("guest# ", STEP);
    guest.send("poweroff -f\n");
    assert_eq!(one.event("SHUTDOWN")["data"], json!({"guest": true, "reason": "guest-shutdown"}));
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
}

/// With the actions of `-action`, a guest that has switched off is looked at, reset, and run again.
#[test]
fn actions() {
    require!("kernel", "initramfs");
    let scratch = Scratch::new();
    let (mut guest, path) = start(&scratch, Board::Virt, true, &["-cpu", "max", "-no-shutdown"]);
    let mut client = Client::ready(&path);
    guest.expect("guest# ", STEP);
    guest.send("poweroff -f\n");
    client.event("SHUTDOWN");
    client.event("STOP");
    assert_eq!(client.get("query-status")["status"], "shutdown");
    let refused = client.run("cont", Value::Null);
    assert_eq!(refused, Err(("GenericError".to_owned(), "Resetting the Virtual Machine is required".to_owned())));
    client.get("system_reset");
    assert_eq!(client.get("query-status")["status"], "prelaunch");
    client.get("cont");
    guest.expect("guest# ", STEP);
    let done = client.run("set-action", json!({"reboot": "shutdown", "shutdown": "poweroff"}));
    assert_eq!(done, Ok(json!({})));
    guest.send("reboot -f\n");
    assert_eq!(client.event("SHUTDOWN")["data"], json!({"guest": true, "reason": "guest-reset"}));
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
}

/// Keys, pictures, memory, core files; the end is told.
#[test]
fn q35_from_outside() {
    require!("amd64/kernel", "amd64/initramfs");
    let scratch = Scratch::new();
    let second = ["-chardev", "null,id=second", "-device", "isa-serial,chardev=second"];
    let more = [&["-cpu", "max", "-smp", "2", "-device", "VGA,id=v"], &second[..]].concat();
    let (mut guest, path) = start(&scratch, Board::Q35, true, &more);
    let mut client = Client::ready(&path);
    guest.expect("guest# ", STEP);
    // Somewhere in it is the kernel.
    const START: u64 = 16 << 20;
    const SIZE: u64 = 64 << 20;
    let picture = scratch.path("picture.png");
    let done = client.run("screendump", json!({"filename": picture, "device": "v", "format": "png"}));
    assert_eq!(done, Ok(json!({})));
    assert!(std::fs::read(&picture).expect("the picture").starts_with(b"\x89PNG"));
    let keys = json!({"keys": [{"type": "qcode", "data": "a"}, {"type": "number", "data": 30}], "hold-time": 10});
    assert_eq!(client.run("send-key", keys), Ok(json!({})));
    let events = json!({"events": [{"type": "rel", "data": {"axis": "x", "value": 5}},
        {"type": "btn", "data": {"button": "left", "down": true}}, {"type": "btn", "data": {"button": "left", "down": false}}]});
    assert_eq!(client.run("input-send-event", events), Ok(json!({})));
    let memory = scratch.path("memory");
    let done = client.run("pmemsave", json!({"val": START, "size": SIZE, "filename": memory}));
    assert_eq!(done, Ok(json!({})));
    let saved = std::fs::read(&memory).expect("the memory");
    assert!(saved.len() as u64 == SIZE && saved.iter().any(|b| *b != 0));
    // The second serial port gets something else behind it, and so what the guest says from then on.
    let spoken = scratch.path("spoken");
    let to_file = json!({"id": "second", "backend": {"type": "file", "data": {"out": spoken}}});
    assert_eq!(client.run("chardev-change", to_file), Ok(json!({})));
    let busy = client.run("chardev-remove", json!({"id": "second"}));
    assert!(busy.is_err_and(|(_, text)| text.contains("busy")));
    guest.send("echo something >/dev/ttyS1; sleep 1; echo spoken-$((40+2))\n");
    guest.expect("spoken-42", STEP);
    assert!(std::fs::read_to_string(&spoken).expect("the file").contains("something"));
    client.get("inject-nmi");
    guest.expect("NMI received", STEP);
    let core = scratch.path("core");
    let arguments = json!({"paging": false, "protocol": format!("file:{core}"), "detach": true});
    assert_eq!(client.run("dump-guest-memory", arguments), Ok(json!({})));
    let told = client.event("DUMP_COMPLETED");
    assert_eq!(told["data"]["result"]["status"], "completed", "{told}");
    let dump = std::fs::read(&core).expect("the core file");
    assert!(dump.starts_with(b"\x7fELF\x02\x01") && dump.len() > 512 << 20, "{} bytes", dump.len());
    // Memory is in it where its headers say.
    let long = |at: usize| u64::from_le_bytes(dump[at..at + 8].try_into().expect("eight bytes"));
    let headers = u16::from_le_bytes([dump[56], dump[57]]);
    let found = (1..usize::from(headers))
        .map(|n| 64 + 56 * n)
        .find(|at| long(at + 24) <= START && long(at + 24) + long(at + 32) >= START + SIZE);
    let at = found.expect("a load with this memory");
    let offset = (long(at + 8) + START - long(at + 24)) as usize;
    let same = dump[offset..offset + SIZE as usize].iter().zip(&saved).filter(|(a, b)| a == b).count();
    assert!(same as u64 > SIZE / 4 * 3, "{same} bytes are the same");
    client.get("quit");
    assert_eq!(client.event("SHUTDOWN")["data"], json!({"guest": false, "reason": "host-qmp-quit"}));
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
}

/// What programs ask an emulator without a machine, which goes on in the background.
#[test]
fn probed_in_the_background() {
    let scratch = Scratch::new();
    for (program, machine, version) in
        [("qemu-system-x86_64", "q35", "pc-q35-10.0"), ("qemu-system-aarch64", "virt", "virt-10.0")]
    {
        let link = scratch.path(program);
        std::os::unix::fs::symlink(std::path::absolute(emulator_binary()).expect("a path"), &link).expect("a link");
        let (socket, pid) = (scratch.path(&format!("{machine}.qmp")), scratch.path(&format!("{machine}.pid")));
        let qmp = format!("unix:{socket},server=on,wait=off");
        let mut command = Command::new(&link);
        command.args(["-S", "-no-user-config", "-nodefaults", "-nographic", "-machine", "none,accel=tcg"]);
        command.args(["-qmp", &qmp, "-pidfile", &pid, "-daemonize"]);
        let started = run_command(command, STEP);
        assert!(started.status.success(), "{}", started.stderr);
        // All is there when the one that was started ends.
        let process: i32 = std::fs::read_to_string(&pid).expect("the file").trim().parse().expect("a number");
        let mut client = Client::ready(&socket);
        let machines = client.get("query-machines");
        let names: Vec<_> = machines.as_array().into_iter().flatten().map(|m| m["name"].clone()).collect();
        assert_eq!(names, [json!("none"), json!(version)]);
        assert_eq!(machines[1]["alias"], machine);
        assert_eq!(client.get("query-cpus-fast"), json!([]));
        for (property, of) in [("accel", "none".to_owned()), ("memory-backend", version.to_owned())] {
            let listed =
                client.run("qom-list-properties", json!({"typename": format!("{of}-machine")})).expect("a list");
            assert!(listed.to_string().contains(property), "{listed}");
        }
        let refused = client.run("device_add", json!({"driver": "edu"})).unwrap_err();
        assert_eq!(refused.0, "GenericError", "{}", refused.1);
        if machine == "q35" {
            let model = |name: &str, props: Value| json!({"type": "full", "model": {"name": name, "props": props}});
            let has = |c: &mut Client, arguments| {
                c.run("query-cpu-model-expansion", arguments).map(|m| m["model"]["props"]["avx2"].clone())
            };
            assert_eq!(has(&mut client, model("Haswell", json!({}))), Ok(json!(true)));
            assert_eq!(has(&mut client, model("Haswell", json!({"avx2": false}))), Ok(json!(false)));
            assert_eq!(has(&mut client, model("host", json!({}))).unwrap_err().0, "GenericError");
            let fixed = client.run("query-cpu-model-expansion", json!({"type": "static", "model": {"name": "max"}}));
            let fixed = fixed.expect("a model")["model"].clone();
            assert_eq!(fixed["name"], "base");
            // The same again from nothing.
            let again = has(&mut client, json!({"type": "full", "model": fixed}));
            assert_eq!(again, Ok(json!(true)));
        }
        client.get("quit");
        let end = Instant::now() + STEP;
        while rustix::process::Pid::from_raw(process).is_some_and(|p| rustix::process::test_kill_process(p).is_ok()) {
            assert!(Instant::now() < end, "it has not ended");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    // What goes wrong is said before it goes there.
    let failed = run(
        &["-M", "none", "-nodefaults", "-display", "none", "-daemonize", "-msg", "timestamp=on", "-vga", "std"],
        STEP,
    );
    let line = failed.stderr.trim_end();
    assert!(!failed.status.success() && line.lines().count() == 1, "{line}");
    assert!(line[10..].starts_with('T') && line.contains("Z rhea: -vga: "), "{line}");
}

/// Nodes come and go, and are put into drives.
#[test]
fn nodes_come_and_go() {
    let scratch = Scratch::new();
    let file = scratch.file("cd.iso", &[7; 100 * 2048]);
    let empty = ["-drive", "if=none,id=slot,media=cdrom", "-drive", "media=cdrom,index=3"];
    let more = ["-S", "-device", "ide-cd,id=cd,drive=slot,bus=ide.0"].into_iter().chain(empty).collect::<Vec<_>>();
    let (_emulator, path) = start(&scratch, Board::Q35, false, &more);
    let mut c = Client::ready(&path);
    let drives = c.get("query-block");
    let names: Vec<_> = drives.as_array().into_iter().flatten().map(|d| d["device"].clone()).collect();
    assert_eq!(names, [json!("ide3-cd0"), json!("slot")], "{drives}");
    let add = |c: &mut Client, options| c.run("blockdev-add", options);
    let del = |c: &mut Client, name: &str| c.run("blockdev-del", json!({"node-name": name}));
    add(&mut c, json!({"driver": "file", "node-name": "store", "filename": file, "read-only": true})).unwrap();
    add(&mut c, json!({"driver": "raw", "node-name": "disc", "file": "store", "read-only": true})).unwrap();
    for bad in [
        json!({"driver": "raw", "node-name": "disc", "file": "store", "read-only": true}),
        json!({"driver": "raw", "node-name": "other", "file": "nothing"}),
        json!({"driver": "raw", "node-name": "other", "file": "store", "read-only": true, "colour": 1}),
        json!({"driver": "raw", "file": "store", "read-only": true}),
    ] {
        assert_eq!(add(&mut c, bad).unwrap_err().0, "GenericError");
    }
    let nodes = c.run("query-named-block-nodes", json!({"flat": true})).expect("a list");
    assert_eq!(nodes.as_array().map(Vec::len), Some(2), "{nodes}");
    let insert = |c: &mut Client, node: &str| c.run("blockdev-insert-medium", json!({"id": "cd", "node-name": node}));
    assert!(insert(&mut c, "disc").unwrap_err().1.contains("not open"));
    c.run("blockdev-open-tray", json!({"id": "cd"})).unwrap();
    assert_eq!(c.event("DEVICE_TRAY_MOVED")["data"]["id"], "cd");
    assert!(insert(&mut c, "nothing").is_err());
    insert(&mut c, "disc").unwrap();
    assert!(insert(&mut c, "disc").is_err());
    c.run("blockdev-close-tray", json!({"id": "cd"})).unwrap();
    assert_eq!(c.get("query-block")[1]["inserted"]["node-name"], "disc");
    // What is in use stays.
    assert!(del(&mut c, "disc").is_err() && del(&mut c, "store").is_err());
    c.run("eject", json!({"id": "cd"})).unwrap();
    del(&mut c, "disc").unwrap();
    del(&mut c, "store").unwrap();
    assert!(del(&mut c, "store").is_err());
    // What is open for reading is opened for writing, and for reading again; nothing else changes.
    add(&mut c, json!({"driver": "file", "node-name": "store", "filename": file, "read-only": true})).unwrap();
    let reopen = |c: &mut Client, more: Value| {
        let mut options = json!({"driver": "file", "node-name": "store", "filename": file});
        options.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        c.run("blockdev-reopen", json!({"options": [options]})).map_err(|e| e.1)
    };
    let readonly = |c: &mut Client| c.get("query-named-block-nodes")[0]["ro"] == true;
    reopen(&mut c, json!({})).unwrap();
    assert!(!readonly(&mut c));
    assert!(reopen(&mut c, json!({"discard": "unmap", "read-only": true})).unwrap_err().contains("discard"));
    assert!(reopen(&mut c, json!({"driver": "raw", "read-only": true})).unwrap_err().contains("driver"));
    assert!(!readonly(&mut c));
    reopen(&mut c, json!({"read-only": true})).unwrap();
    assert!(readonly(&mut c));
    del(&mut c, "store").unwrap();
    // A device that is refused does not keep its node.
    add(&mut c, json!({"driver": "null-co", "node-name": "null"})).unwrap();
    assert!(c.run("device_add", json!({"driver": "virtio-blk-pci", "drive": "null"})).is_err());
    del(&mut c, "null").unwrap();
}

/// Back ends of character devices come and go, and what they had open is closed.
#[test]
fn chardevs_come_and_go() {
    let scratch = Scratch::new();
    let (_emulator, path) = start(&scratch, Board::Q35, false, &["-S"]);
    let mut c = Client::ready(&path);
    let socket = scratch.path("socket");
    let listens = json!({"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": socket}}}});
    c.run("chardev-add", json!({"id": "s", "backend": listens})).unwrap();
    assert!(c.run("chardev-add", json!({"id": "s", "backend": listens})).unwrap_err().1.contains("already exists"));
    let mut peer = UnixStream::connect(&socket).expect("it listens");
    let pty = c.run("chardev-add", json!({"id": "p", "backend": {"type": "pty", "data": {}}})).unwrap();
    let pty = pty["pty"].as_str().unwrap_or_default().to_owned();
    assert!(std::fs::exists(&pty).expect("an answer"), "{pty}");
    let listed = c.get("query-chardev");
    let of =
        |id: &str| listed.as_array().and_then(|l| l.iter().find(|e| e["label"] == id).cloned()).unwrap_or_default();
    assert_eq!(of("s")["frontend-open"], false, "{listed}");
    assert_eq!(of("p")["filename"], format!("pty:{pty}"));
    for (backend, why) in [
        (json!({"type": "file", "data": {"out": "/nonexistent/x"}}), "/nonexistent/x"),
        (json!({"type": "socket", "data": {"addr": listens["data"]["addr"], "wait": true}}), "wait"),
        (json!({"type": "stdio", "data": {}}), "stdio"),
    ] {
        let (_, text) = c.run("chardev-add", json!({"id": "x", "backend": backend})).unwrap_err();
        assert!(text.contains(why), "{text}");
    }
    c.run("chardev-remove", json!({"id": "s"})).unwrap();
    // The peer is let go.
    peer.set_read_timeout(Some(STEP)).expect("a time limit");
    assert_eq!(std::io::Read::read(&mut peer, &mut [0]).expect("the end"), 0);
    assert!(UnixStream::connect(&socket).is_err());
    c.run("chardev-add", json!({"id": "s", "backend": listens})).unwrap();
    UnixStream::connect(&socket).expect("it listens again");
    c.run("chardev-remove", json!({"id": "p"})).unwrap();
    assert!(c.run("chardev-remove", json!({"id": "p"})).unwrap_err().1.contains("not found"));
}

/// Nodes are served to other programs, which write to those that nobody uses.
#[test]
fn nodes_are_exported() {
    let scratch = Scratch::new();
    let (file, same) = (scratch.file("disk", &[7; 1 << 20]), scratch.file("same", &[7; 1 << 20]));
    let other = scratch.file("other", &[9; 1 << 20]);
    let used = "driver=null-co,node-name=used,size=1M";
    let node = format!("driver=raw,node-name=disk,file.driver=file,file.filename={file}");
    let more = ["-S", "-blockdev", &node, "-blockdev", used, "-device", "virtio-blk-pci,drive=used,id=d"];
    let (_emulator, path) = start(&scratch, Board::Q35, false, &more);
    let mut c = Client::ready(&path);
    let add = |c: &mut Client, id: &str, node: &str, writable: bool| {
        let name = format!("{id}-name");
        let export = json!({"type": "nbd", "id": id, "node-name": node, "name": name, "writable": writable});
        c.run("block-export-add", export).map_err(|e| e.1)
    };
    assert_eq!(add(&mut c, "e", "disk", true).unwrap_err(), "NBD server not running");
    let socket = scratch.path("nbd");
    let place = json!({"addr": {"type": "unix", "data": {"path": socket}}});
    c.run("nbd-server-start", place.clone()).unwrap();
    assert!(c.run("nbd-server-start", place.clone()).unwrap_err().1.contains("already running"));
    assert!(add(&mut c, "u", "used", true).unwrap_err().contains("in use"));
    add(&mut c, "u", "used", false).unwrap();
    add(&mut c, "e", "disk", true).unwrap();
    assert!(add(&mut c, "e", "disk", false).unwrap_err().contains("already in use"));
    assert!(add(&mut c, "n", "nothing", false).is_err());
    let url = |name: &str| format!("nbd+unix:///{name}?socket={socket}");
    let img = |words: &[&str]| run(&[&["img"], words].concat(), STEP).status.success();
    assert!(img(&["compare", "-f", "raw", "-F", "raw", &same, &url("e-name")]));
    assert!(img(&["convert", "-n", "-f", "raw", "-O", "raw", &other, &url("e-name")]));
    assert!(!img(&["convert", "-n", "-f", "raw", "-O", "raw", &other, &url("u-name")]));
    assert!(std::fs::read(&file).expect("the image") == std::fs::read(&other).expect("the image"));
    assert!(c.run("blockdev-del", json!({"node-name": "disk"})).unwrap_err().1.contains("busy"));
    assert_eq!(c.get("query-block-exports")[1]["node-name"], "disk");
    c.run("block-export-del", json!({"id": "e"})).unwrap();
    assert_eq!(c.event("BLOCK_EXPORT_DELETED")["data"]["id"], "e");
    c.run("blockdev-del", json!({"node-name": "disk"})).unwrap();
    c.run("block_resize", json!({"node-name": "used", "size": 4096})).unwrap_err();
    c.get("nbd-server-stop");
    assert_eq!(c.event("BLOCK_EXPORT_DELETED")["data"]["id"], "u");
    assert_eq!(c.run("nbd-server-stop", Value::Null).unwrap_err().1, "NBD server not running");
    assert!(!img(&["info", &url("u-name")]));
}

/// Media of CD drives are changed, and images that are none change nothing.
#[test]
fn media_are_changed() {
    let scratch = Scratch::new();
    let image = |name: &str, blocks: usize| {
        let path = scratch.path(name);
        std::fs::write(&path, vec![7; blocks * 2048]).expect("an image");
        path
    };
    let (first, second) = (image("first.iso", 100), image("second.iso", 200));
    let disk = image("disk", 512);
    let drive = format!("file={disk},format=raw,if=virtio");
    let more = ["-S", "-cdrom", &first, "-drive", &drive, "-device", "ide-cd,id=extra"];
    let (_emulator, path) = start(&scratch, Board::Q35, false, &more);
    let mut c = Client::ready(&path);
    let of = |c: &mut Client, name: &str| {
        let all = c.get("query-block");
        all.as_array().and_then(|l| l.iter().find(|d| d["device"] == name).cloned()).unwrap_or_default()
    };
    let size = |drive: &Value| drive["inserted"]["image"]["virtual-size"].as_u64().unwrap_or(0) / 2048;
    let cd = of(&mut c, "ide2-cd0");
    assert_eq!((size(&cd), &cd["removable"], &cd["tray_open"]), (100, &json!(true), &json!(false)));
    assert_eq!(of(&mut c, "virtio0")["removable"], json!(false));
    assert!(of(&mut c, "").get("inserted").is_none());

    let medium = |file: &str| json!({"device": "ide2-cd0", "filename": file, "format": "raw"});
    c.run("blockdev-change-medium", medium(&second)).unwrap();
    for open in [true, false] {
        let told = c.event("DEVICE_TRAY_MOVED")["data"].clone();
        assert_eq!((&told["device"], &told["tray-open"]), (&json!("ide2-cd0"), &json!(open)));
    }
    assert_eq!(size(&of(&mut c, "ide2-cd0")), 200);
    let (class, text) = c.run("blockdev-change-medium", medium(&scratch.path("none.iso"))).unwrap_err();
    assert!(class == "GenericError" && text.contains("none.iso"), "{class}: {text}");
    assert_eq!(size(&of(&mut c, "ide2-cd0")), 200);

    assert!(c.run("blockdev-remove-medium", json!({"device": "ide2-cd0"})).is_err());
    c.run("blockdev-open-tray", json!({"device": "ide2-cd0"})).unwrap();
    assert_eq!(of(&mut c, "ide2-cd0")["tray_open"], json!(true));
    c.run("blockdev-remove-medium", json!({"device": "ide2-cd0"})).unwrap();
    c.run("blockdev-close-tray", json!({"device": "ide2-cd0"})).unwrap();
    assert!(of(&mut c, "ide2-cd0").get("inserted").is_none());

    c.run("blockdev-change-medium", json!({"id": "extra", "filename": first})).unwrap();
    let extra = of(&mut c, "");
    assert_eq!((size(&extra), &extra["qdev"]), (100, &json!("extra")));
    c.run("eject", json!({"id": "extra"})).unwrap();
    assert!(of(&mut c, "").get("inserted").is_none());
    for (device, class) in [("virtio0", "GenericError"), ("nothing", "DeviceNotFound")] {
        assert_eq!(c.run("eject", json!({"device": device})).unwrap_err().0, class);
    }

    let human = |c: &mut Client, line: &str| {
        let text = c.run("human-monitor-command", json!({"command-line": line})).unwrap();
        text.as_str().unwrap_or_default().replace('\r', "")
    };
    assert_eq!(human(&mut c, &format!("change ide2-cd0 {first} raw")), "");
    let shown = human(&mut c, "info block");
    assert!(shown.contains("first.iso") && shown.contains("virtio0") && !shown.contains("second.iso"), "{shown}");
    assert_eq!(human(&mut c, "eject ide2-cd0"), "");
    let shown = human(&mut c, "info block");
    assert!(shown.contains("ide2-cd0: [not inserted]") && shown.contains("tray open"), "{shown}");
    assert!(human(&mut c, "eject virtio0").contains("not removable"));
}

/// Devices come and go while the guest runs.
#[test]
fn devices_come_and_go() {
    require!("amd64/kernel", "amd64/initramfs");
    let scratch = Scratch::new();
    let port = ["-cpu", "max", "-device", "pcie-root-port,id=port,chassis=1,slot=1"];
    let (mut guest, path) = start(&scratch, Board::Q35, true, &port);
    let mut client = Client::ready(&path);
    guest.expect("guest# ", STEP);
    let object = json!({"qom-type": "rng-builtin", "id": "noise"});
    assert_eq!(client.run("object-add", object), Ok(json!({})));
    let device = json!({"driver": "virtio-rng-pci", "id": "rng", "bus": "port", "rng": "noise"});
    assert_eq!(client.run("device_add", device), Ok(json!({})));
    let list = client.run("qom-list", json!({"path": "/machine/peripheral"})).expect("a list");
    assert!(list.to_string().contains("child<virtio-rng-pci>"), "{list}");
    assert!(client.run("object-del", json!({"id": "nothing"})).is_err());
    let missing = client.run("device_del", json!({"id": "nothing"}));
    assert_eq!(missing, Err(("DeviceNotFound".to_owned(), "Device 'nothing' not found".to_owned())));
    // The guest has to be done with taking it in before it hears of the next press of the button.
    guest.send("until grep -q 0x1044 /sys/bus/pci/devices/*/device; do sleep 1; done; sleep 3; echo see-$((40+2))\n");
    guest.expect("see-42", STEP);
    assert_eq!(client.run("device_del", json!({"id": "rng"})), Ok(json!({})));
    let told = client.event("DEVICE_DELETED");
    assert_eq!(told["data"], json!({"device": "rng", "path": "/machine/peripheral/rng"}));
    assert_eq!(client.run("object-del", json!({"id": "noise"})), Ok(json!({})));
    let net = json!({"type": "user", "id": "net7"});
    assert_eq!(client.run("netdev_add", net), Ok(json!({})));
    assert_eq!(client.run("netdev_del", json!({"id": "net7"})), Ok(json!({})));
}

/// Requests of all kinds, well formed and not, never end the emulator or leave it without an answer.
#[test]
fn strange_requests() {
    require!("kernel");
    let scratch = Scratch::new();
    let (mut machine, path) = start(&scratch, Board::Q35, false, &["-S", "-device", "virtio-balloon-pci,id=b"]);
    let mut client = Client::ready(&path);
    let commands: Vec<String> = client.schema.command_names().map(str::to_owned).collect();
    let words = [
        "id",
        "path",
        "property",
        "filename",
        "val",
        "size",
        "value",
        "keys",
        "events",
        "device",
        "typename",
        "begin",
        "length",
        "paging",
        "protocol",
        "fdname",
        "command-line",
        "cpu-index",
        "option",
    ];
    let mut random = Random::new(8);
    for _ in 0..600 {
        let command = random.pick(&commands).clone();
        // Those end it, write files, or take long.
        if [
            "quit",
            "qmp_capabilities",
            "system_reset",
            "object-add",
            "netdev_add",
            "screendump",
            "memsave",
            "pmemsave",
            "dump-guest-memory",
        ]
        .contains(&command.as_str())
        {
            continue;
        }
        let mut arguments = json!({});
        for _ in 0..random.below(4) {
            let value = match random.below(7) {
                0 => json!(random.edge()),
                1 => json!(random.edge() as i64),
                2 => json!("/machine/peripheral/b"),
                3 => json!([{"type": "qcode", "data": "a"}]),
                4 => json!({"a": {"b": []}}),
                5 => json!(null),
                _ => json!(random.once_in(2)),
            };
            arguments[*random.pick(&words)] = value;
        }
        let line = json!({"execute": command, "arguments": arguments, "id": 7}).to_string();
        let line = match random.below(4) {
            0 => line[..random.below(line.len() as u64) as usize].to_owned() + "\n}]\"\n",
            _ => line + "\n",
        };
        client.send(&line);
        client.send("\n{\"execute\": \"query-name\", \"id\": \"mark\"}\n");
        while client.answer()["id"] != "mark" {}
    }
    client.get("quit");
    assert!(machine.wait(STEP).success(), "{}", machine.transcript());
}

/// Snapshots as jobs, of a machine that was never started.
#[test]
fn snapshot_jobs() {
    let scratch = Scratch::new();
    let (socket, image) = (scratch.path("qmp"), scratch.path("disk.qcow2"));
    assert!(run(&["img", "create", "-f", "qcow2", &image, "64M"], STEP).status.success());
    let node = format!("driver=qcow2,node-name=n,file.driver=file,file.filename={image}");
    let device = "virtio-blk-pci,drive=n,id=disk";
    let qmp = format!("unix:{socket},server=on,wait=off");
    let args =
        ["-M", "virt", "-S", "-nodefaults", "-display", "none", "-m", "64M", "-blockdev", &node, "-device", device];
    let _guest = Emulator::start(&[&args[..], &["-qmp", &qmp]].concat());
    let mut client = Client::ready(&socket);
    let job = |client: &mut Client, command: &str, id: &str, tag: &str| {
        let mut arguments = json!({"job-id": id, "tag": tag, "devices": ["n"]});
        if command != "snapshot-delete" {
            arguments["vmstate"] = json!("n");
        }
        client.run(command, arguments).expect("a job");
        loop {
            let jobs = client.run("query-jobs", Value::Null).expect("jobs");
            let job = jobs.as_array().into_iter().flatten().find(|j| j["id"] == id).expect("the job").clone();
            if job["status"] == "concluded" {
                assert_eq!(client.run("job-dismiss", json!({"id": id})), Ok(json!({})));
                return job.get("error").and_then(Value::as_str).map(str::to_owned);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    assert_eq!(job(&mut client, "snapshot-save", "a", "one"), None);
    let again = job(&mut client, "snapshot-save", "b", "one").expect("an error");
    assert_eq!(again, "Snapshot 'one' already exists in one or more devices");
    assert_eq!(job(&mut client, "snapshot-load", "c", "one"), None);
    assert_eq!(client.run("query-status", Value::Null).expect("the status")["status"], "paused");
    assert!(job(&mut client, "snapshot-load", "d", "two").is_some());
    assert_eq!(job(&mut client, "snapshot-delete", "e", "one"), None);
    assert!(job(&mut client, "snapshot-delete", "f", "one").is_some());
    assert_eq!(client.run("query-jobs", Value::Null), Ok(json!([])));
    assert!(client.events.iter().any(|e| e["event"] == "JOB_STATUS_CHANGE" && e["data"]["status"] == "concluded"));
}
