//! Hypercalls, RTAS calls, negotiations and calls of the client interface with anything in them, made by two processors at once.
//! A small program in the guest carries out what the test has put into its memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rhea_device::chardev::{CharBackend, NullChar};
use rhea_machine::{Machine, RunState, Wiring};
use rhea_memory::{Access, Gpa, Requester};
use rhea_tests::{Random, Scratch};

use super::{RAM_LEN, Requests, config, make, save_and_load, times, watched};

const CPUS: u64 = 2;
/// Where the machine puts a program that is linked at 0.
const PROGRAM: u64 = 0x40_0000;
/// How many calls each processor has made.
const DONE: u64 = 0x70_0000;
/// Calls: R3 to R12, and R3 afterwards.
const TABLE: u64 = 0x80_0000;
const ENTRY: u64 = 128;
const RESULT: u64 = 80;
const CALLS: u64 = 512;
/// What calls point to: a piece for each.
const ARENA: u64 = 0x100_0000;
const PIECE: u64 = 1024;

/// How long a good program may do nothing: a loaded machine is no failure.
const PATIENT: Duration = Duration::from_secs(30);

const H_RTAS: u64 = 0xf000;
const H_CAS: u64 = 0xf002;
const H_UPDATE_DT: u64 = 0xf003;
const H_CLIENT: u64 = 0xf005;
/// RTAS calls have tokens from here on.
const TOKENS: u64 = 0x2000;

/// Instructions with an immediate operand, and an address.
fn immediate(opcode: u32, to: u32, from: u32, value: u32) -> u32 {
    opcode << 26 | to << 21 | from << 16 | value & 0xffff
}

/// Makes the calls of the table, R3 times the size of a table further on.
fn program() -> Vec<u32> {
    let mut code = vec![
        0x5474_801e,                                // slwi r20, r3, 16
        immediate(15, 30, 0, (TABLE >> 16) as u32), // lis r30, TABLE
        0x7fde_a214,                                // add r30, r30, r20
        0x5474_1838,                                // slwi r20, r3, 3
        immediate(15, 29, 0, (DONE >> 16) as u32),  // lis r29, DONE
        0x7fbd_a214,                                // add r29, r29, r20
        immediate(14, 28, 0, 0),                    // li r28, 0
    ];
    let again = code.len();
    // The decrementer ends waiting.
    code.extend([immediate(15, 20, 0, 1), 0x7e96_03a6]); // lis r20, 1; mtdec r20
    code.extend((3..13).map(|r| immediate(58, r, 30, (r - 3) * 8))); // ld
    code.push(0x4400_0022); // sc 1
    code.push(immediate(62, 3, 30, RESULT as u32)); // std r3
    code.push(immediate(14, 28, 28, 1)); // addi r28, r28, 1
    code.push(immediate(62, 28, 29, 0)); // std r28, DONE
    code.push(immediate(14, 30, 30, ENTRY as u32));
    code.push(immediate(11, 0, 28, CALLS as u32)); // cmpwi r28, CALLS
    let back = (again as i32 - code.len() as i32) * 4;
    code.push(0x4082_0000 | back as u32 & 0xfffc); // bne
    code.push(0x4800_0000); // b .
    code
}

/// At each vector: back, with interrupts disabled.
const HANDLER: [u32; 5] = [
    0x7c72_43a6, // mtsprg2 r3
    0x7c60_00a6, // mfmsr r3
    0x7c7b_03a6, // mtsrr1 r3
    0x7c72_42a6, // mfsprg2 r3
    0x4c00_0024, // rfid
];

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_be_bytes()).collect()
}

/// A big-endian ELF file with one segment, linked at 0.
fn elf(code: &[u8]) -> Vec<u8> {
    let mut data = b"\x7fELF\x02\x02\x01".to_vec();
    data.resize(16, 0);
    let (half, word, long) = (
        |d: &mut Vec<u8>, v: u16| d.extend(v.to_be_bytes()),
        |d: &mut Vec<u8>, v: u32| d.extend(v.to_be_bytes()),
        |d: &mut Vec<u8>, v: u64| d.extend(v.to_be_bytes()),
    );
    // An executable for 64-bit Power; its program headers behind this header.
    half(&mut data, 2);
    half(&mut data, 21);
    word(&mut data, 1);
    for v in [0, 64, 0] {
        long(&mut data, v);
    }
    word(&mut data, 2);
    for v in [64, 56, 1, 64, 0, 0] {
        half(&mut data, v);
    }
    word(&mut data, 1);
    word(&mut data, 7);
    for v in [120, 0, 0, code.len() as u64, code.len() as u64, 8] {
        long(&mut data, v);
    }
    data.extend_from_slice(code);
    data
}

/// The machine, run from outside.
pub(super) struct Partition {
    pub(super) machine: Arc<Machine>,
    requests: Requests,
    /// Tokens of `start-cpu` and `query-cpu-stopped-state`.
    tokens: [u64; 2],
    /// Those of calls that end the machine, or the processor.
    ends: Vec<u64>,
}

impl Partition {
    pub(super) fn new(scratch: &Scratch, options: &str) -> Self {
        let drives = ["if=none,id=a", "if=none,id=b", "if=none,id=c"];
        let devices = [
            "virtio-blk-pci,drive=a",
            "virtio-net-pci,netdev=n",
            "edu",
            "nvme,drive=c,serial=1",
            "pci-bridge,id=bridge,chassis_nr=1",
            "virtio-rng-pci,bus=bridge,addr=3",
            "spapr-vscsi,id=scsi",
            "scsi-hd,drive=b,bus=scsi.0",
            "spapr-vlan,netdev=p",
            "spapr-pci-host-bridge,index=1",
        ];
        let mut config = config(scratch, &format!("pseries,x-vof=on,{options}"), CPUS as u32, &drives, &devices);
        config.kernel = Some(scratch.file("program", &elf(&bytes(&program()))).into());
        let wiring = Wiring { serials: vec![Arc::new(NullChar) as Arc<dyn CharBackend>], chardevs: Arc::default() };
        let (machine, requests) = make(&config, &wiring);
        let mut partition = Self { machine, requests, tokens: [0; 2], ends: Vec::new() };
        partition.tokens = ["start-cpu", "query-cpu-stopped-state"].map(|name| partition.token(name));
        let ends = ["power-off", "system-reboot", "ibm,os-term", "stop-self"];
        partition.ends = ends.iter().map(|name| partition.token(name)).collect();
        partition
    }
    /// The token of an RTAS call.
    fn token(&self, name: &str) -> u64 {
        // The cells of two calls, the text, and the value.
        let (node, value, text, result) = (ARENA, ARENA + 64, ARENA + 128, ARENA + 512);
        for (n, word) in ["finddevice", "/rtas", "getprop", name].iter().enumerate() {
            self.put(text + 64 * n as u64, &[word.as_bytes(), &[0]].concat());
        }
        let mut handle = 0;
        for cells in [node, value] {
            self.begin();
            self.cells(node, &[text, 1, 1, text + 64, 0]);
            self.cells(value, &[text + 128, 4, 1, handle, text + 192, result, 4, 0]);
            (0..CALLS).for_each(|n| self.call(0, n, &[H_CLIENT, cells]));
            self.run(1, PATIENT);
            handle = self.long(node + 16) >> 32;
        }
        self.long(result) >> 32
    }
    fn put(&self, at: u64, data: &[u8]) {
        self.machine.space().write(Gpa(at), data, Requester::Host).expect("memory");
    }
    fn long(&self, at: u64) -> u64 {
        let mut data = [0; 8];
        self.machine.space().read(Gpa(at), &mut data, Requester::Host).expect("memory");
        u64::from_be_bytes(data)
    }
    /// The machine anew, with nothing in the table.
    fn begin(&self) {
        self.machine.stop(RunState::Paused);
        self.machine.reset();
        while self.requests.try_recv().is_ok() {}
        for vector in (1..16).map(|n| n << 8) {
            self.put(vector, &bytes(&HANDLER));
        }
        self.put(DONE, &[0; 64]);
    }
    fn call(&self, cpu: u64, n: u64, registers: &[u64]) {
        let mut data = vec![0; ENTRY as usize];
        for (place, value) in data.chunks_exact_mut(8).zip(registers) {
            place.copy_from_slice(&value.to_be_bytes());
        }
        self.put(TABLE + (cpu * CALLS + n) * ENTRY, &data);
    }
    /// Arguments of RTAS or of the client interface.
    fn cells(&self, at: u64, cells: &[u64]) {
        let words: Vec<u32> = cells.iter().map(|c| *c as u32).collect();
        self.put(at, &bytes(&words));
    }
    /// Runs until so many processors have done all, nothing more is done for so long (a guest can stop itself in many ways) or the
    /// machine is asked to end.
    fn run(&self, cpus: u64, patience: Duration) {
        self.machine.start();
        let mut seen = (0, Instant::now());
        loop {
            let done: u64 = (0..CPUS).map(|cpu| self.long(DONE + 8 * cpu)).fold(0, u64::wrapping_add);
            if done != seen.0 {
                seen = (done, Instant::now());
            }
            let all = (0..cpus).all(|cpu| self.long(DONE + 8 * cpu) == CALLS);
            if all || seen.1.elapsed() > patience || self.requests.try_recv().is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    /// What a call has returned, if it was made.
    fn result(&self, cpu: u64, n: u64) -> Option<i64> {
        let done = self.long(DONE + 8 * cpu);
        (n < done && done <= CALLS).then(|| self.long(TABLE + (cpu * CALLS + n) * ENTRY + RESULT) as i64)
    }
    /// RTAS works, the second processor starts.
    fn works(&self) {
        self.begin();
        for cpu in 0..CPUS {
            (0..CALLS).for_each(|n| self.call(cpu, n, &[0xe0 + 4]));
        }
        self.cells(ARENA, &[self.tokens[1], 1, 2, 1, 7, 7]);
        self.call(0, 0, &[H_RTAS, ARENA]);
        self.start_second();
        self.run(CPUS, PATIENT);
        assert_eq!(self.result(0, 0), Some(0));
        assert_eq!(self.long(ARENA + 16), 0, "the second processor is stopped");
        assert_eq!(self.result(1, CALLS - 1), Some(0), "calls of the second processor");
    }
    /// The second call of the first processor.
    fn start_second(&self) {
        self.cells(ARENA + PIECE, &[self.tokens[0], 3, 1, 1, PROGRAM, 1, 0]);
        self.call(0, 1, &[H_RTAS, ARENA + PIECE]);
    }
}

/// A number as an argument: an address more often than not.
fn word(random: &mut Random, piece: u64) -> u64 {
    match random.below(12) {
        0..=2 => piece + random.below(PIECE),
        3 => RAM_LEN - random.below(64),
        4 => random.below(RAM_LEN) & !0xfff,
        5 => random.below(64),
        6 => *random.pick(&[0x1000_u64, 0x1001, 0x1100, 0x1200, 0x1203, 0x1300, 0x1301, 0x1fff, 0x2000]),
        7 => *random.pick(&[0x7100_0000_u64, 0x7100_0001, 0x7100_0002, 0x7100_0003, 0x8000_0000, 0x8000_0100]),
        // Windows of devices: host bridges, event state buffers, interrupt management.
        8 => {
            *random.pick(&[1_u64 << 45, 0x2000_8000_0000, 0x6_0100_0000_0000, 0x6_0302_0318_0000])
                + random.below(1 << 22)
        }
        _ => random.edge(),
    }
}

/// Numbers of hypercalls, those that exist more often than not.
fn hypercall(random: &mut Random, piece: u64) -> Vec<u64> {
    let number = match random.below(8) {
        0 => random.edge(),
        1 => 0xf000 + random.below(16),
        2 => 0x3a8 + random.below(11) * 4,
        3 => 0x64 + random.below(5) * 4,
        _ => random.below(0x118) * 4,
    };
    let mut registers = vec![number];
    registers.extend((0..9).map(|_| word(random, piece)));
    // Interrupts in the other byte order end the program.
    if number == 0x31c && registers[2] == 4 && !random.once_in(16) {
        registers[1] = 0;
    }
    registers
}

/// The unit ids of host bridges, as two cells.
const BRIDGE: u64 = 0x0800_0000;

fn rtas(random: &mut Random, piece: u64) -> (Vec<u64>, Vec<u64>) {
    let count = |random: &mut Random| match random.below(8) {
        0 => random.edge(),
        1 => random.below(20),
        _ => random.below(9),
    };
    let token = if random.once_in(8) { random.edge() } else { TOKENS + random.below(64) };
    let mut cells = vec![token, count(random), 1 + count(random)];
    cells.extend((0..24).map(|_| match random.below(6) {
        0 => BRIDGE,
        1 => 0x2000_0000 + random.below(3),
        2 => random.below(32) << 11 | random.below(64) * 4,
        3 => 9000 + random.below(8),
        _ => word(random, piece + PIECE / 2),
    }));
    // Configuration space, messages and windows name a function first and a bridge behind it.
    if random.once_in(2) {
        cells[3] = random.below(8) << 11 | random.below(64) * 4;
        (cells[4], cells[5], cells[6]) = (BRIDGE, 0x2000_0000 + random.below(2), 1 + random.below(4));
    }
    let at = if random.once_in(16) { word(random, piece) } else { piece };
    (vec![H_RTAS, at], cells)
}

fn negotiation(random: &mut Random, piece: u64) -> (Vec<u64>, Vec<u8>) {
    let mut data = Vec::new();
    for _ in 0..random.below(4) {
        let version = *random.pick(&[0x0f00_0006_u32, 0x0f00_0005, 0x0f00_0004, 0x0080_0200, 0x004e_1202, 0]);
        data.extend([u32::MAX.to_be_bytes(), version.to_be_bytes()].concat());
    }
    data.extend([0xff, 0xff, 0xff, 0xfe, 0x0f, 0, 0, 1]);
    let count = random.below(8) as u8;
    data.push(count);
    for n in 0..=count {
        let len = if n == 4 && random.below(4) != 0 { 25 } else { random.below(40) as u8 };
        data.push(len);
        data.extend((0..=len).map(|_| *random.pick(&[0_u8, 0, 0x40, 0x80, 0xc0, 0xff])));
    }
    if random.once_in(4) {
        let at = random.below(data.len() as u64) as usize;
        data[at] = random.bits() as u8;
    }
    let pick = |random: &mut Random, good: u64| if random.once_in(8) { word(random, piece) } else { good };
    (vec![H_CAS, pick(random, piece), pick(random, 0x200_0000), pick(random, 0x1_0000)], data)
}

const SERVICES: &[&str] = &[
    "finddevice",
    "peer",
    "child",
    "parent",
    "getproplen",
    "getprop",
    "nextprop",
    "setprop",
    "canon",
    "package-to-path",
    "instance-to-path",
    "instance-to-package",
    "open",
    "close",
    "write",
    "read",
    "seek",
    "claim",
    "release",
    "call-method",
    "milliseconds",
    "quiesce",
    "test",
    "test-method",
    "interpret",
    "boot",
    "exit",
    "enter",
    "",
    "no-such-service",
];

/// Cells, and text behind them: a service, a name.
fn client(random: &mut Random, piece: u64) -> (Vec<u64>, Vec<u64>, Vec<u8>) {
    const NAMES: &[&str] = &[
        "/",
        "/chosen",
        "/rtas",
        "/memory@0",
        "/vdevice/vty@71000000",
        "//",
        "/:",
        "reg",
        "name",
        "phandle",
        "stdout",
        "bootargs",
        "ibm,client-architecture-support",
        "instantiate-rtas",
        "",
    ];
    let names = piece + PIECE / 2;
    // Those that end the machine, now and then.
    let most = if random.once_in(64) { SERVICES.len() } else { SERVICES.len() - 5 };
    let service = SERVICES[random.below(most as u64) as usize];
    let mut text = service.as_bytes().to_vec();
    text.resize(64, 0);
    text.extend(random.pick(NAMES).as_bytes());
    if random.once_in(16) {
        text.resize(PIECE as usize / 2, b'x');
    } else {
        text.push(0);
    }
    let count = |random: &mut Random| if random.once_in(16) { random.edge() } else { random.below(8) };
    let mut cells = vec![names, count(random), count(random)];
    cells.extend((0..12).map(|_| match random.below(6) {
        0 => 0x1000_0000 + random.below(40),
        1 => 0x100 + random.below(8),
        2 | 3 => names + 64,
        4 => random.below(64),
        _ => word(random, piece),
    }));
    let at = if random.once_in(16) { word(random, piece) } else { piece };
    (vec![H_CLIENT, at], cells, text)
}

/// A status of a hypercall: the ranges of LoPAPR tables 14.1 and 14.2.
fn is_status(status: i64) -> bool {
    matches!(status, -512..=-256 | -80..=19 | 9900..=9905 | 9999) || status == 0xffff_ffff
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hypercalls,
    Rtas,
    Negotiation,
    Client,
}

/// Puts a call into the table.
fn put(partition: &Partition, random: &mut Random, kind: Kind, cpu: u64, n: u64) {
    let piece = ARENA + (cpu * CALLS + n) * PIECE;
    let registers = match kind {
        Kind::Hypercalls => {
            let noise: Vec<u64> = (0..32).map(|_| word(random, piece)).collect();
            let bytes: Vec<u8> = noise.iter().flat_map(|w| w.to_be_bytes()).collect();
            partition.put(piece, &bytes);
            hypercall(random, piece)
        }
        Kind::Rtas => {
            let (registers, mut cells) = rtas(random, piece);
            // Not too often, or nothing else is tried.
            if partition.ends.contains(&cells[0]) && !random.once_in(64) {
                cells[0] = partition.tokens[1];
            }
            partition.cells(piece, &cells);
            registers
        }
        Kind::Negotiation if random.once_in(8) => {
            // A tree: the header of one, and noise.
            let noise: Vec<u64> = (0..64).map(|_| random.below(80)).collect();
            partition.cells(piece, &[&[0xd00d_feed, 512, 56, 400, 40, 17, 16, 0, 64, 300], &noise[..]].concat());
            vec![H_UPDATE_DT, if random.once_in(8) { word(random, piece) } else { piece }]
        }
        Kind::Negotiation => {
            let (registers, data) = negotiation(random, piece);
            partition.put(piece, &data);
            registers
        }
        Kind::Client => {
            let (registers, cells, text) = client(random, piece);
            partition.cells(piece, &cells);
            partition.put(piece + PIECE / 2, &text);
            registers
        }
    };
    partition.call(cpu, n, &registers);
}

fn calls_take_garbage(options: &'static str, seed: u64, kinds: &'static [Kind]) {
    watched(move || {
        let scratch = Scratch::new();
        let partition = Partition::new(&scratch, options);
        partition.works();
        let mut random = Random::new(seed);
        let mut made = 0;
        let rounds = times(8);
        for round in 0..rounds {
            partition.begin();
            for cpu in 0..CPUS {
                for n in 0..CALLS {
                    let kind = *random.pick(kinds);
                    put(&partition, &mut random, kind, cpu, n);
                }
            }
            partition.call(0, 0, &[0xe0 + 4]);
            partition.start_second();
            let before: Vec<u64> = (0..CPUS * CALLS).map(|n| partition.long(TABLE + n * ENTRY)).collect();
            partition.run(CPUS, Duration::from_millis(150));
            for cpu in 0..CPUS {
                for n in 0..CALLS {
                    // A call may have written over the table; then the program goes on with something else.
                    let Some(status) = partition.result(cpu, n) else { break };
                    let number = partition.long(TABLE + (cpu * CALLS + n) * ENTRY);
                    if number == before[(cpu * CALLS + n) as usize] {
                        made += 1;
                        assert!(is_status(status), "hypercall {number:#x} returned {status:#x}");
                    }
                }
            }
            if round % 4 == 1 {
                // As monitors look at it; a machine at rest is saved.
                partition.machine.stop(RunState::Paused);
                save_and_load(&partition.machine, "");
                for topic in partition.machine.topics().map(|(name, _)| name).collect::<Vec<_>>() {
                    let _ = partition.machine.info(topic);
                }
            }
            if round % 8 == 7 {
                partition.works();
            }
        }
        partition.works();
        let least = u64::from(rounds) * CALLS / 8;
        assert!(made > least, "only {made} calls were made");
        // The first of the memory is RAM still.
        assert!(partition.machine.space().load(Gpa(0x100), Access::host(4)).is_ok());
        partition.machine.shut_down();
    });
}

#[test]
fn hypercalls_take_garbage() {
    calls_take_garbage("ic-mode=dual,cap-rpt-invalidate=on", 71, &[Kind::Hypercalls]);
}

#[test]
fn rtas_takes_garbage() {
    calls_take_garbage("ic-mode=xics", 72, &[Kind::Rtas]);
}

#[test]
fn negotiation_takes_garbage() {
    calls_take_garbage("ic-mode=dual", 73, &[Kind::Negotiation, Kind::Hypercalls]);
}

#[test]
fn the_client_interface_takes_garbage() {
    calls_take_garbage("ic-mode=xive", 74, &[Kind::Client]);
}

#[test]
fn all_calls_at_once_take_garbage() {
    calls_take_garbage("ic-mode=dual", 75, &[Kind::Client, Kind::Rtas, Kind::Negotiation, Kind::Hypercalls]);
}
