//! The GDB stub, through its protocol.

use std::time::Duration;

use rhea_tests::{Emulator, Rsp, STEP, Scratch, free_port, linux, require};

fn register(registers: &str, number: usize) -> u64 {
    // x0 to x30, sp, pc: 64 bits each in the guest's byte order.
    let hex = &registers[number * 16..number * 16 + 16];
    let bytes: Vec<u8> = (0..8).map(|i| u8::from_str_radix(&hex[i * 2..i * 2 + 2], 16).expect("hex")).collect();
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

const PC: usize = 32;

#[test]
fn debugs_a_kernel() {
    require!("kernel", "initramfs");
    let port = free_port();
    let mut args = linux("nokaslr rhea.test=smp rhea.cpus=2");
    let gdb = format!("tcp:127.0.0.1:{port}");
    args.extend(["-cpu", "max", "-smp", "2", "-S", "-gdb", &gdb].map(String::from));
    let mut guest = Emulator::start(&args);
    let mut gdb = Rsp::connect(port, Duration::from_secs(30));
    assert!(gdb.ask("qSupported:swbreak+;hwbreak+;vContSupported+;multiprocess+").contains("PacketSize"));
    let stop = gdb.ask("?");
    assert!(stop.starts_with('T') || stop.starts_with('S'), "{stop}");

    // The first instructions are a boot stub at the start of memory.
    let registers = gdb.ask("g");
    assert_eq!(register(&registers, PC), 0x4000_0000, "{registers}");
    let code = gdb.ask("m40000000,8");
    assert_eq!(code.len(), 16, "{code}");
    for _ in 0..3 {
        let stop = gdb.ask("s");
        assert!(stop.starts_with('T') || stop.starts_with('S'), "{stop}");
    }
    let registers = gdb.ask("g");
    assert_eq!(register(&registers, PC), 0x4000_000c, "three steps: {registers}");

    // The kernel's entry: x0 holds the device tree.
    let entry = 0x4020_0000_u64;
    assert_eq!(gdb.ask(&format!("Z1,{entry:x},4")), "OK");
    let stop = gdb.ask("vCont;c");
    assert!(stop.starts_with('T') || stop.starts_with('S'), "{stop}");
    let registers = gdb.ask("g");
    assert_eq!(register(&registers, PC), entry, "{registers}");
    let tree = register(&registers, 0);
    assert_eq!(gdb.ask(&format!("m{tree:x},4")), "d00dfeed");
    assert_eq!(gdb.ask(&format!("z1,{entry:x},4")), "OK");

    // Registers and memory can be written.
    assert_eq!(gdb.ask("P13=efcdab8967452301"), "OK");
    assert_eq!(register(&gdb.ask("g"), 0x13), 0x0123_4567_89ab_cdef);
    assert_eq!(gdb.ask("M50000000,4:01020304"), "OK");
    assert_eq!(gdb.ask("m50000000,4"), "01020304");
    assert!(gdb.ask("m9999999999999999,4").starts_with('E'));
    let mut threads = 0;
    let mut list = gdb.ask("qfThreadInfo");
    while let Some(some) = list.strip_prefix('m') {
        threads += some.split(',').count();
        list = gdb.ask("qsThreadInfo");
    }
    assert_eq!((threads, list.as_str()), (2, "l"));

    // On it goes, is interrupted, looks at a virtual address, and goes on to the end.
    gdb.tell("vCont;c");
    guest.expect("RHEA-TEST smp START", STEP);
    gdb.interrupt();
    let stop = gdb.answer();
    assert!(stop.starts_with('T') || stop.starts_with('S'), "{stop}");
    assert_eq!(gdb.ask("D;1"), "OK");
    guest.expect("RHEA-TEST smp PASS", STEP);
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
}

/// A multiboot kernel: the header with addresses, and behind it, at [`ENTRY`], a few instructions that end in a loop.
fn multiboot() -> Vec<u8> {
    const MAGIC: u32 = 0x1bad_b002;
    const FLAGS: u32 = 0x1_0000;
    let checksum = 0_u32.wrapping_sub(MAGIC + FLAGS);
    let header = [MAGIC, FLAGS, checksum, 0x10_0000, 0x10_0000, 0, 0, ENTRY as u32];
    let mut image: Vec<u8> = header.iter().flat_map(|w| w.to_le_bytes()).collect();
    image.extend([0xb8, 0x78, 0x56, 0x34, 0x12]); // mov $0x12345678, %eax
    image.extend([0x83, 0xc0, 0x01]); // add $1, %eax
    image.extend([0xa3, 0x00, 0x00, 0x20, 0x00]); // mov %eax, 0x200000
    image.extend([0xeb, 0xfe]); // jmp .
    image.resize(0x400, 0xf4);
    image
}

const ENTRY: u64 = 0x10_0020;
const RAX: usize = 0;
/// RIP follows RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP and R8 to R15.
const RIP: usize = 16;

#[test]
fn debugs_a_pc() {
    require!();
    let scratch = Scratch::new();
    let kernel = scratch.file("kernel", &multiboot());
    let port = free_port();
    let gdb = format!("tcp:127.0.0.1:{port}");
    let args = ["-M", "q35", "-smp", "2", "-m", "64M", "-kernel", &kernel, "-display", "none", "-S", "-gdb", &gdb];
    let _guest = Emulator::start(&args);
    let mut gdb = Rsp::connect(port, Duration::from_secs(30));
    assert!(gdb.ask("qSupported:swbreak+;hwbreak+;vContSupported+;multiprocess+").contains("PacketSize"));
    let stopped = |stop: &str| assert!(stop.starts_with('T') || stop.starts_with('S'), "{stop}");
    stopped(&gdb.ask("?"));
    assert_eq!(register(&gdb.ask("g"), RIP), ENTRY);
    assert_eq!(gdb.ask(&format!("m{ENTRY:x},5")), "b878563412");

    for (rip, rax) in [(ENTRY + 5, 0x1234_5678), (ENTRY + 8, 0x1234_5679)] {
        stopped(&gdb.ask("s"));
        let registers = gdb.ask("g");
        assert_eq!((register(&registers, RIP), register(&registers, RAX)), (rip, rax), "{registers}");
    }

    // What is written to a register is what the program goes on with, up to the breakpoint.
    assert_eq!(gdb.ask("P0=efcdab0000000000"), "OK");
    let end = ENTRY + 13;
    assert_eq!(gdb.ask(&format!("Z0,{end:x},1")), "OK");
    stopped(&gdb.ask("vCont;c"));
    assert_eq!(register(&gdb.ask("g"), RIP), end);
    assert_eq!(gdb.ask("m200000,4"), "efcdab00");
    assert_eq!(gdb.ask(&format!("z0,{end:x},1")), "OK");
    assert_eq!(gdb.ask("M200000,4:01020304"), "OK");
    assert_eq!(gdb.ask("m200000,4"), "01020304");

    // Again, with another instruction in place of the first, up to the store.
    assert_eq!(gdb.ask(&format!("M{ENTRY:x},5:b821436507")), "OK");
    assert_eq!(gdb.ask("P10=2000100000000000"), "OK");
    assert_eq!(gdb.ask("Z2,200000,4"), "OK");
    let stop = gdb.ask("vCont;c");
    assert!(stop.contains("watch:"), "{stop}");
    assert_eq!(register(&gdb.ask("g"), RAX), 0x0765_4322);
    assert_eq!(gdb.ask("z2,200000,4"), "OK");

    let mut threads = 0;
    let mut list = gdb.ask("qfThreadInfo");
    while let Some(some) = list.strip_prefix('m') {
        threads += some.split(',').count();
        list = gdb.ask("qsThreadInfo");
    }
    assert_eq!((threads, list.as_str()), (2, "l"));

    // The loop runs and can be interrupted.
    gdb.tell("vCont;c");
    std::thread::sleep(Duration::from_millis(100));
    gdb.interrupt();
    stopped(&gdb.answer());
    assert_eq!(register(&gdb.ask("g"), RIP), end);
    assert_eq!(gdb.ask("D;1"), "OK");
}
