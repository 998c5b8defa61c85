//! The GDB stub, through its protocol.

use std::time::Duration;

use rhea_tests::{Emulator, Rsp, STEP, free_port, linux, require};

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
