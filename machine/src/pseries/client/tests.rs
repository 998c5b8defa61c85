use super::*;
use parking_lot::Mutex;
use rhea_memory::RamBlock;

struct Board {
    ram: GuestRam,
    out: Mutex<Vec<u8>>,
}
impl Machine for Board {
    fn ram(&self) -> &GuestRam {
        &self.ram
    }
    fn rma(&self) -> u64 {
        self.ram.len()
    }
    fn console_write(&self, data: &[u8]) {
        self.out.lock().extend_from_slice(data);
    }
    fn console_read(&self) -> Option<u8> {
        None
    }
    fn milliseconds(&self) -> u32 {
        42
    }
    fn negotiate(&self, address: u64) -> Result<FdtNode, ()> {
        if address == 0x5000 { Ok(sample()) } else { Err(()) }
    }
    fn instantiate_rtas(&self, address: u64) -> bool {
        self.ram.has(address, 20)
    }
}

fn sample() -> FdtNode {
    let mut root = FdtNode::default();
    root.string("compatible", "qemu,pseries");
    root.child("chosen").string("bootargs", "quiet");
    root.child("rtas");
    let vdevice = root.child("vdevice");
    vdevice.child("vty@71000000").string("device_type", "serial").u32("phandle", 77);
    vdevice.child("nvram@71000001");
    root
}

fn board() -> (Board, Client) {
    let ram = GuestRam::new(&RamBlock::anonymous("ram", 1 << 20).unwrap());
    let client = Client::new(&sample(), &[(0, 0x1_0000)], Some("/vdevice/vty@71000000"));
    (Board { ram, out: Mutex::default() }, client)
}

/// Calls a service; strings among the arguments are put into memory.
enum Arg<'a> {
    N(u32),
    T(&'a str),
}
use Arg::{N, T};

fn call(b: &Board, c: &mut Client, name: &str, args: &[Arg<'_>]) -> [u32; 2] {
    let mut at = 0x2000u64;
    let mut put = |text: &str| {
        b.ram.write(at, &[text.as_bytes(), &[0]].concat()).unwrap();
        at += 0x100;
        at as u32 - 0x100
    };
    let mut words = vec![put(name), args.len() as u32, 2];
    for arg in args {
        words.push(match arg {
            N(n) => *n,
            T(text) => put(text),
        });
    }
    for (n, w) in words.iter().enumerate() {
        b.ram.set_u32(0x1000 + 4 * n as u64, *w).unwrap();
    }
    let _ = c.call(b, 0x1000);
    let end = 0x1000 + 4 * words.len() as u64;
    [b.ram.u32(end).unwrap(), b.ram.u32(end + 4).unwrap()]
}

#[test]
fn the_tree_can_be_walked() {
    let (b, mut c) = board();
    let root = call(&b, &mut c, "peer", &[N(0)])[0];
    assert_eq!(root, c.root());
    let vty = call(&b, &mut c, "finddevice", &[T("/vdevice/vty:x")])[0];
    assert_eq!(vty, 77);
    assert_eq!(call(&b, &mut c, "finddevice", &[T("/vdevice/@71000001")])[0], call(&b, &mut c, "peer", &[N(77)])[0]);
    assert_eq!(call(&b, &mut c, "finddevice", &[T("/nothing")])[0], FAIL);
    assert_eq!(call(&b, &mut c, "package-to-path", &[N(77), N(0x8000), N(8)])[0], 21);
    assert_eq!(b.ram.text(0x8000, 9), Ok("/vdevice".to_owned()));
    // Every property of a node, by name.
    let chosen = call(&b, &mut c, "finddevice", &[T("/chosen")])[0];
    let (mut names, mut last) = (Vec::new(), String::new());
    while call(&b, &mut c, "nextprop", &[N(chosen), T(&last.clone()), N(0x9000)])[0] == 1 {
        last = b.ram.text(0x9000, 64).unwrap();
        names.push(last.clone());
    }
    assert_eq!(names, ["bootargs", "name", "phandle", "stdout", "stdin"]);
    assert_eq!(call(&b, &mut c, "getprop", &[N(chosen), T("bootargs"), N(0x9000), N(100)])[0], 6);
    assert_eq!(b.ram.text(0x9000, 64), Ok("quiet".to_owned()));
    b.ram.write(0xa000, b"new").unwrap();
    assert_eq!(call(&b, &mut c, "setprop", &[N(chosen), T("linux,x"), N(0xa000), N(3)])[0], 3);
    assert_eq!(call(&b, &mut c, "getproplen", &[N(chosen), T("linux,x")])[0], 3);
    assert_eq!(call(&b, &mut c, "getproplen", &[N(chosen), T("linux,y")])[0], FAIL);
}

#[test]
fn console_memory_and_methods() {
    let (b, mut c) = board();
    let chosen = call(&b, &mut c, "finddevice", &[T("/chosen")])[0];
    call(&b, &mut c, "getprop", &[N(chosen), T("stdout"), N(0x9000), N(4)]);
    let stdout = b.ram.u32(0x9000).unwrap();
    assert_eq!(call(&b, &mut c, "instance-to-package", &[N(stdout)])[0], 77);
    assert_eq!(call(&b, &mut c, "write", &[N(stdout), T("hello"), N(5)])[0], 5);
    assert_eq!(*b.out.lock(), b"hello");
    assert_eq!(call(&b, &mut c, "claim", &[N(0), N(0x1000), N(0)])[0], FAIL);
    assert_eq!(call(&b, &mut c, "claim", &[N(0x1_0000), N(0x1000), N(0)])[0], 0x1_0000);
    assert_eq!(call(&b, &mut c, "claim", &[N(0x1_0fff), N(1), N(0)])[0], FAIL);
    assert_eq!(call(&b, &mut c, "claim", &[N(0), N(0x1000), N(0x8000)])[0], 0x1_8000);
    call(&b, &mut c, "release", &[N(0x1_0000), N(0x1000)]);
    assert_eq!(call(&b, &mut c, "claim", &[N(0x1_0fff), N(1), N(0)])[0], 0x1_0fff);
    assert_eq!(call(&b, &mut c, "claim", &[N(u32::MAX), N(u32::MAX), N(0)])[0], FAIL);
    let root = call(&b, &mut c, "open", &[T("/")])[0];
    assert_ne!(root, 0);
    let cas = "ibm,client-architecture-support";
    assert_eq!(call(&b, &mut c, "call-method", &[T(cas), N(root), N(0x5000)]), [0, 0]);
    assert_eq!(call(&b, &mut c, "call-method", &[T(cas), N(root), N(0x6000)]), [0, FAIL]);
    assert_eq!(call(&b, &mut c, "finddevice", &[T("/chosen")])[0], chosen, "handles stay");
    let rtas = call(&b, &mut c, "open", &[T("/rtas")])[0];
    assert_eq!(call(&b, &mut c, "call-method", &[T("instantiate-rtas"), N(rtas), N(0x7000)]), [0, 0x7000]);
    assert_eq!(call(&b, &mut c, "call-method", &[T("instantiate-rtas"), N(rtas), N(0xffff_fff0)])[0], FAIL);
    assert_eq!(call(&b, &mut c, "milliseconds", &[])[0], 42);
    assert_eq!(call(&b, &mut c, "interpret", &[T("1 2 +")])[0], FAIL);
    assert_eq!(call(&b, &mut c, "test", &[T("claim")])[0], 0);
}

#[test]
fn limits_hold() {
    let (b, mut c) = board();
    assert!((0..200).map(|_| call(&b, &mut c, "open", &[T("/")])[0]).any(|h| h == 0));
    let chosen = call(&b, &mut c, "finddevice", &[T("/chosen")])[0];
    let set = |c: &mut Client, n: u32| call(&b, c, "setprop", &[N(chosen), T(&format!("p{n}")), N(0), N(0x8_0000)])[0];
    assert!((0..64).any(|n| set(&mut c, n) == FAIL));
    for n in 0..5000u32 {
        call(&b, &mut c, "claim", &[N(0x2_0000 + n * 16), N(1), N(0)]);
    }
    assert!(c.claims.len() <= MAX_CLAIMS);
}

#[test]
fn calls_of_noise() {
    let (b, mut c) = board();
    let mut seed = 99u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 32) as u32
    };
    for n in 0..20_000 {
        let name = SERVICES[random() as usize % SERVICES.len()];
        let args: Vec<Arg<'_>> = (0..random() % 6)
            .map(|_| match random() % 5 {
                0 => N(random()),
                1 => N(random() % 0x200),
                2 => N(0x1000_0000 + random() % 16),
                3 => N(0xf_fff0 + random() % 32),
                _ => T(["/", "/chosen", "name", "/rtas", "reg", "instantiate-rtas"][random() as usize % 6]),
            })
            .collect();
        call(&b, &mut c, name, &args);
        // Wild argument blocks.
        let _ = c.call(&b, u64::from(random()) << (n % 32));
    }
}
