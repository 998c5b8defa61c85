use super::*;
use rhea_block::{CacheMode, MemoryBackend};

const LEN: u64 = 4 << 20;
const BLOCK: u64 = 256 << 10;

struct Rig {
    flash: Arc<Flash>,
    space: Arc<AddressSpace>,
    backend: Arc<MemoryBackend>,
    mapping: Arc<Mapping>,
}

fn rig_with(content: Vec<u8>, readonly: bool) -> Rig {
    let backend = Arc::new(MemoryBackend::new(content, readonly));
    let drive = Drive::new("pflash0", backend.clone(), CacheMode::Writeback);
    let flash =
        Flash::new("flash", LEN, BLOCK, FlashOptions { drive: Some(drive), ..FlashOptions::default() }, Log::off())
            .unwrap();
    let space = AddressSpace::new("test");
    let mapping = flash.map(&space, Gpa(0)).unwrap();
    Rig { flash, space, backend, mapping }
}

fn rig() -> Rig {
    rig_with(vec![0xff; LEN as usize], false)
}

impl Rig {
    fn rd(&self, at: u64) -> u64 {
        self.space.load(Gpa(at), Access::cpu(0, 4)).unwrap()
    }
    fn wr(&self, at: u64, value: u64) {
        self.space.store(Gpa(at), value, Access::cpu(0, 4)).unwrap();
    }
    /// The same command to both chips.
    fn command(&self, at: u64, command: u64) {
        self.wr(at, command << 16 | command);
    }
    fn is_memory(&self) -> bool {
        matches!(self.space.view().lookup(Gpa(0)), rhea_memory::Lookup::Ram { .. })
    }
}

#[test]
fn program_and_erase() {
    let r = rig();
    assert!(r.is_memory());
    r.command(0x100, 0x40);
    assert!(!r.is_memory());
    assert_eq!(r.rd(0x100), 0x0080_0080);
    r.wr(0x100, 0x1234_5678);
    assert_eq!(r.rd(0x100), 0x0080_0080);
    r.command(0, 0xff);
    assert!(r.is_memory());
    assert_eq!(r.rd(0x100), 0x1234_5678);
    // Only clears bits; with a byte access only those of the byte.
    r.command(0, 0x10);
    r.wr(0x100, 0xffff_0f0f);
    r.space.store(Gpa(0), 0x40, Access::cpu(0, 2)).unwrap();
    r.space.store(Gpa(0x101), 0, Access::cpu(0, 1)).unwrap();
    r.command(0, 0xff);
    assert_eq!(r.rd(0x100), 0x1234_0008);
    assert_eq!(r.backend.content()[0x100..0x104], [0x08, 0x00, 0x34, 0x12]);
    r.command(BLOCK - 4, 0x20);
    r.command(BLOCK - 4, 0xd0);
    r.command(0, 0xff);
    assert_eq!(r.rd(0x100), 0xffff_ffff);
    assert!(r.backend.content().iter().all(|b| *b == 0xff));
}

#[test]
fn buffered_program() {
    let r = rig();
    let base = BLOCK + 0x80;
    r.command(base, 0xe8);
    assert_eq!(r.rd(base) & 0x0080_0080, 0x0080_0080);
    r.command(base, 31);
    for i in 0..32 {
        r.wr(base + i * 4, i * 0x0001_0001);
    }
    r.command(base, 0xd0);
    r.command(base, 0x70);
    assert_eq!(r.rd(base), 0x0080_0080);
    r.command(base, 0xff);
    assert!((0..32).all(|i| r.rd(base + i * 4) == i * 0x0001_0001));
    assert_eq!(r.rd(base + 128), 0xffff_ffff);
    // A buffer across blocks, one that is too long, and one that is not confirmed.
    for (count, second, confirm) in [(1, 2 * BLOCK, None), (1024, 0, None), (0, 0, Some(0x12))] {
        r.command(base, 0x50);
        r.command(base, 0xe8);
        r.command(base, count);
        if count < 1024 {
            r.wr(base, 0);
        }
        if count == 1 {
            r.wr(second, 0);
        }
        if let Some(c) = confirm {
            r.command(base, c);
        }
        assert_eq!(r.rd(base), 0x00b0_00b0);
        r.command(base, 0xff);
        assert_eq!(r.rd(base + 4), 0x0001_0001);
    }
}

#[test]
fn identification() {
    let r = rig();
    r.command(0x55 * 4, 0x98);
    let query: Vec<u64> = (0x10..0x13).map(|i| r.rd(i * 4)).collect();
    assert_eq!(query, [0x0051_0051, 0x0052_0052, 0x0059_0059]);
    assert_eq!(r.rd(0x27 * 4), 0x0015_0015, "each chip has 2 MiB");
    assert_eq!((r.rd(0x2d * 4), r.rd(0x2f * 4), r.rd(0x30 * 4)), (0x000f_000f, 0, 0x0002_0002));
    // One chip alone.
    r.space.store(Gpa(2), 0xff, Access::cpu(0, 2)).unwrap();
    assert_eq!(r.rd(0x10 * 4), 0xffff_0051);
    assert!(!r.is_memory());
    r.command(0, 0x90);
    assert_eq!((r.rd(0), r.rd(4), r.rd(8)), (0x0089_0089, 0x0018_0018, 0));
    r.command(0, 0xff);
    assert!(r.is_memory());
}

#[test]
fn locks() {
    let r = rig();
    r.command(BLOCK, 0x60);
    r.command(BLOCK, 0x01);
    r.command(BLOCK, 0x90);
    assert_eq!((r.rd(BLOCK + 8), r.rd(8)), (0x0001_0001, 0));
    r.command(BLOCK, 0x40);
    r.wr(BLOCK, 0);
    assert_eq!(r.rd(0), 0x0092_0092);
    r.command(BLOCK, 0x20);
    r.command(BLOCK, 0xd0);
    assert_eq!(r.rd(0), 0x00b2_00b2);
    r.command(0, 0x50);
    r.command(BLOCK, 0x60);
    r.command(BLOCK, 0xd0);
    r.command(BLOCK, 0x40);
    r.wr(BLOCK, 0);
    assert_eq!(r.rd(0), 0x0080_0080);
    r.command(BLOCK, 0x60);
    r.command(BLOCK, 0x2f);
    r.command(BLOCK, 0x60);
    r.command(BLOCK, 0xd0);
    r.command(BLOCK, 0x90);
    assert_eq!(r.rd(BLOCK + 8), 0x0003_0003);
    r.flash.reset();
    assert!(r.is_memory());
    r.command(BLOCK, 0x90);
    assert_eq!(r.rd(BLOCK + 8), 0);
}

/// How UEFI firmware for virtual machines finds that a bank is flash, in bytes of one chip: neither RAM nor ROM, with a status
/// of zero after it was cleared.
#[test]
fn firmware_finds_flash() {
    let r = rig();
    let byte = |value: u64| r.space.store(Gpa(0x10), value, Access::cpu(0, 1)).unwrap();
    let read = || r.space.load(Gpa(0x10), Access::cpu(0, 1)).unwrap();
    byte(0x50);
    assert_eq!(read(), 0xff);
    byte(0x70);
    assert_eq!(read(), 0);
    byte(0xff);
    assert!(r.is_memory());
    byte(0x10);
    byte(0x5a);
    assert_eq!(read(), 0x80);
    byte(0xff);
    assert_eq!(read(), 0x5a);
}

#[test]
fn secure_banks_take_commands_from_secure_accesses_only() {
    let options = FlashOptions { image: Some(vec![0xa5; 64]), secure: true, ..FlashOptions::default() };
    let flash = Flash::new("flash", LEN, BLOCK, options, Log::off()).unwrap();
    let access = |secure| Access { secure, ..Access::cpu(0, 4) };
    flash.write(0, 0x0090_0090, access(false)).unwrap();
    assert_eq!(flash.read(0, access(true)).unwrap(), 0xa5a5_a5a5);
    flash.write(0, 0x0090_0090, access(true)).unwrap();
    assert_eq!(flash.read(0, access(true)).unwrap(), 0x0089_0089);
    // Outside the array is seen meanwhile.
    assert_eq!(flash.read(0, access(false)).unwrap(), 0xa5a5_a5a5);
    flash.write(0, 0x0040_0040, access(true)).unwrap();
    flash.write(4, 0, access(false)).unwrap();
    flash.write(4, 0x1234_5678, access(true)).unwrap();
    flash.write(0, 0x00ff_00ff, access(true)).unwrap();
    assert_eq!(flash.read(4, access(true)).unwrap(), 0x1234_5678 & 0xa5a5_a5a5);
}

#[test]
fn protected_banks() {
    let r = rig_with(vec![0xa5; LEN as usize], true);
    r.command(0, 0x40);
    r.wr(0, 0);
    assert_eq!(r.rd(0), 0x0092_0092);
    r.command(0, 0x50);
    r.command(0, 0x20);
    r.command(0, 0xd0);
    assert_eq!(r.rd(0), 0x00a2_00a2);
    r.command(0, 0xff);
    assert_eq!(r.rd(0), 0xa5a5_a5a5);
    // A small image: what it lacks is protected.
    let r = rig_with(vec![0xa5; BLOCK as usize + 512], false);
    for (at, status) in [(0, 0x0080_0080), (BLOCK, 0x0092_0092), (2 * BLOCK, 0x0092_0092)] {
        r.command(0, 0x50);
        r.command(at, 0x40);
        r.wr(at, 0);
        assert_eq!(r.rd(0), status);
    }
    let big = Arc::new(MemoryBackend::new(vec![0; LEN as usize + 512], false));
    let drive = Drive::new("big", big, CacheMode::Writeback);
    assert!(matches!(
        Flash::new("f", LEN, BLOCK, FlashOptions { drive: Some(drive), ..FlashOptions::default() }, Log::off()),
        Err(FlashError::Size { .. })
    ));
}

#[test]
fn saves() {
    let r = rig();
    r.command(0, 0xe8);
    r.command(0, 1);
    r.wr(0, 0x1111_2222);
    let state = r.flash.save();
    let other = rig();
    other.flash.load(&state).unwrap();
    assert!(!other.is_memory());
    other.wr(4, 0x3333_4444);
    other.command(0, 0xd0);
    other.command(0, 0xff);
    assert_eq!((other.rd(0), other.rd(4)), (0x1111_2222, 0x3333_4444));
    // Without a drive the content is part of the state.
    let image = FlashOptions { image: Some(vec![7; 5000]), ..FlashOptions::default() };
    let volatile = Flash::new("v", LEN, BLOCK, image, Log::off()).unwrap();
    let copy = Flash::new("v", LEN, BLOCK, FlashOptions::default(), Log::off()).unwrap();
    copy.load(&volatile.save()).unwrap();
    assert_eq!(copy.read(4996, Access::cpu(0, 4)), Ok(0x0707_0707));
    assert_eq!(copy.read(5000, Access::cpu(0, 4)), Ok(0));
    drop(r.mapping);
}

#[test]
fn garbage() {
    let r = rig();
    let mut random = crate::testing::Random::new(4);
    let commands = [0x00, 0x01, 0x10, 0x20, 0x2f, 0x40, 0x50, 0x60, 0x70, 0x90, 0x98, 0xb0, 0xd0, 0xe8, 0xf0, 0xff];
    for step in 0..60_000 {
        let x = random.next();
        let size = 1u8 << (x >> 60 & 3);
        let at = if x >> 59 & 1 == 0 { x & 0xfff } else { x & (LEN - 1) } & !(u64::from(size) - 1);
        let value = match x >> 56 & 3 {
            0 => random.next(),
            1 => x >> 40 & 3,
            _ => {
                let c = commands[(x >> 50 & 15) as usize];
                c << 48 | c << 32 | c << 16 | c
            }
        };
        if x >> 46 & 3 == 0 {
            r.space.load(Gpa(at), Access::cpu(0, size)).unwrap();
        } else {
            r.space.store(Gpa(at), value, Access::cpu(0, size)).unwrap();
        }
        assert_eq!(r.is_memory(), r.flash.reads_array(), "step {step}");
    }
    r.command(0, 0xff);
    r.command(0, 0xff);
    r.flash.reset();
    let mut memory = vec![0; LEN as usize];
    r.flash.storage.memory.read(0, &mut memory).unwrap();
    assert!(memory == r.backend.content(), "memory and drive agree");
}

#[test]
fn a_pc_programs_byte_by_byte_at_any_address() {
    let options = FlashOptions { image: Some(vec![0xff; 64]), bytes: true, ..FlashOptions::default() };
    let flash = Flash::new("flash", LEN, BLOCK, options, Log::off()).unwrap();
    for (n, byte) in (1..=9u64).enumerate() {
        flash.write(3 + n as u64, 0x10, Access::host(1)).unwrap();
        flash.write(3 + n as u64, byte, Access::host(1)).unwrap();
        assert_eq!(flash.read(n as u64, Access::host(1)).unwrap() & 0xff, 0x80, "status");
    }
    flash.write(11, 0xff, Access::host(1)).unwrap();
    for (n, byte) in [0xff, 0xff, 0xff, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xff].into_iter().enumerate() {
        assert_eq!(flash.read(n as u64, Access::host(1)).unwrap() & 0xff, byte, "{n}");
    }
    // An erase clears whole blocks.
    flash.write(5, 0x20, Access::host(1)).unwrap();
    flash.write(5, 0xd0, Access::host(1)).unwrap();
    flash.write(5, 0xff, Access::host(1)).unwrap();
    assert!((0..16).all(|n| flash.read(n, Access::host(1)).unwrap() & 0xff == 0xff));
}
