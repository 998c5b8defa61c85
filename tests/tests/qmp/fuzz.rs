//! Commands with arguments made up from their declarations, and lines of the human monitor made up from its words: each is answered.

use super::{Client, start};
use rhea_control::{Chance, Value, json};
use rhea_tests::{Board, Random, STEP, Scratch, require};

/// How many to try: more with `RHEA_FUZZ=100`.
fn times(rounds: u32) -> u32 {
    let factor = std::env::var("RHEA_FUZZ").ok().and_then(|n| n.parse::<u32>().ok()).unwrap_or(1);
    rounds.saturating_mul(factor)
}

/// Those that end the emulator, write files, or listen wherever they are told; and the one that is tried by lines of its own.
const NOT: &[&str] = &[
    "quit",
    "qmp_capabilities",
    "screendump",
    "memsave",
    "pmemsave",
    "dump-guest-memory",
    "blockdev-snapshot-sync",
    "chardev-add",
    "chardev-change",
    "object-add",
    "netdev_add",
    "nbd-server-start",
    "display-update",
    "migrate",
    "human-monitor-command",
    "transaction",
];

/// Ids that are there, names that are not, and texts that are no good for anything.
const WORDS: &[&str] = &[
    "d",
    "n0",
    "n1",
    "r",
    "v",
    "b",
    "p",
    "net",
    "s0",
    "job",
    "",
    "none",
    "vnc",
    "virtio-blk-pci",
    "qemu64",
    "raw",
    "qcow2",
    "max",
    "/machine",
    "/machine/peripheral/b",
    "/machine/unattached/device[0]",
    "type",
    "%s%n",
    "\u{1f980}",
    "a,b=c",
    "fd:9",
    "info status",
    "node-name",
    "on",
    "18446744073709551616",
    "x86_64-cpu",
    "-",
    ".",
    "'",
    "*",
    "0x10",
    "1G",
];

struct Made<'a>(&'a mut Random);

impl Chance for Made<'_> {
    fn below(&mut self, limit: u64) -> u64 {
        self.0.below(limit)
    }
    fn edge(&mut self) -> u64 {
        self.0.edge()
    }
    fn word(&mut self) -> String {
        match self.0.below(64) {
            0 => "x".repeat(5000),
            _ => (*self.0.pick(WORDS)).to_owned(),
        }
    }
}

const DEVICES: &[&str] = &[
    "-S",
    "-no-shutdown",
    "-action",
    "reboot=reset",
    "-device",
    "virtio-balloon-pci,id=b",
    "-device",
    "pcie-root-port,id=p,chassis=3",
    "-blockdev",
    "driver=null-co,node-name=n0,size=1M",
    "-blockdev",
    "driver=null-co,node-name=n1,size=1M",
    "-blockdev",
    "driver=raw,node-name=r,file=n0",
    "-device",
    "virtio-blk-pci,drive=r,id=d",
    "-netdev",
    "user,id=net,restrict=on",
    "-device",
    "virtio-net-pci,netdev=net,id=v",
    "-chardev",
    "null,id=s0",
];

/// The answer of the command that was just sent.
fn answered(c: &mut Client, what: &str) {
    c.send("{\"execute\": \"query-name\", \"id\": \"mark\"}\n");
    // A client that waits in vain panics: say for what.
    eprintln!("tried: {what}");
    while c.answer()["id"] != "mark" {}
    c.events.clear();
}

#[test]
fn made_up_arguments() {
    require!("kernel");
    for (board, seed) in [(Board::Q35, 41), (Board::Virt, 42), (Board::Pseries, 43)] {
        let scratch = Scratch::new();
        let devices = if board == Board::Pseries { &DEVICES[..6] } else { DEVICES };
        let (mut machine, path) = start(&scratch, board, false, devices);
        let mut c = Client::ready(&path);
        let names: Vec<String> =
            c.schema.command_names().filter(|name| !NOT.contains(name)).map(str::to_owned).collect();
        let schema = rhea_control::schema();
        let mut random = Random::new(seed);
        for n in 0..times(names.len() as u32 * 3) {
            let name = &names[n as usize % names.len()];
            let mut arguments = schema.sample(name, &mut Made(&mut random), [0, 8, 3][(n as usize / names.len()) % 3]);
            // Not one that takes its time.
            for key in ["hold-time", "calc-time"] {
                if let Some(time) = arguments.get_mut(key) {
                    *time = json!(60);
                }
            }
            let request = json!({"execute": name, "arguments": arguments});
            c.send(&format!("{request}\n"));
            answered(&mut c, &request.to_string());
        }
        c.get("quit");
        assert!(machine.wait(STEP).success(), "{}", machine.transcript());
    }
}

#[test]
fn made_up_lines() {
    require!("kernel");
    let scratch = Scratch::new();
    let (mut machine, path) = start(&scratch, Board::Q35, false, DEVICES);
    let mut c = Client::ready(&path);
    let ask = |c: &mut Client, line: &str| -> String {
        eprintln!("tried: {line}");
        match c.run("human-monitor-command", json!({"command-line": line})) {
            Ok(Value::String(text)) => text,
            other => panic!("{line}: {other:?}"),
        }
    };
    let first = |text: &str| -> Vec<String> {
        text.lines().filter_map(|l| l.split([' ', '|']).next()).map(str::to_owned).collect()
    };
    let mut commands = first(&ask(&mut c, "help"));
    let files = [
        "screendump",
        "memsave",
        "pmemsave",
        "quit",
        "q",
        "chardev-add",
        "chardev-change",
        "object_add",
        "netdev_add",
        "migrate",
    ];
    commands.retain(|name| !files.contains(&name.as_str()));
    assert!(commands.len() > 30, "{commands:?}");
    let topics: Vec<String> =
        ask(&mut c, "info").lines().filter_map(|l| l.split(' ').nth(1)).map(str::to_owned).collect();
    let mut random = Random::new(44);
    let made = |random: &mut Random| -> String {
        let mut line =
            if random.once_in(3) { format!("info {}", random.pick(&topics)) } else { random.pick(&commands).clone() };
        for _ in 0..random.below(5) {
            let space = *random.pick(&[" ", " ", " ", "  ", "\t", "/", ","]);
            let word = match random.below(8) {
                0 => random.edge().to_string(),
                1 => format!("{:#x}", random.edge()),
                2 => format!("/{}{}", random.below(99999), random.pick(&["i", "x", "b", "gx", "s", "", "c"])),
                3 => "\"".to_owned() + *random.pick(WORDS),
                4 => "-f".to_owned(),
                _ => (*random.pick(WORDS)).to_owned(),
            };
            line.push_str(space);
            line.push_str(&word);
        }
        line
    };
    for _ in 0..times(700) {
        let line = made(&mut random);
        // What ends after a while for other reasons.
        if !line.starts_with("sendkey") {
            ask(&mut c, &line);
        }
    }
    c.get("quit");
    assert!(machine.wait(STEP).success(), "{}", machine.transcript());
}
