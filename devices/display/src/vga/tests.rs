use super::dispi::index;
use super::*;
use crate::pci::{DisplayFunction, FunctionOptions};
use rhea_accel::IrqLine;
use rhea_device::Device;
use rhea_memory::{AddressSpace, Gpa};
use rhea_pci::{Devfn, PciBus, PciFunction};

/// A generator of numbers for tests.
struct Random(u64);
impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
}

fn vga(kind: Kind) -> Arc<Vga> {
    let options = VgaOptions { kind, memory: 2 << 20, edid: Some((1024, 768)) };
    Vga::new("vga", &options, &VirtualClock::new(), Log::off()).unwrap()
}

impl Vga {
    fn indexed(&self, port: u16, index: u8, value: u8) {
        self.write_port(port, index);
        self.write_port(port + 1, value);
    }
    fn attribute(&self, index: u8, value: u8) {
        let _ = self.read_port(0x3da);
        self.write_port(0x3c0, index);
        self.write_port(0x3c0, value);
        self.write_port(0x3c0, attr_on());
    }
    fn poke(&self, offset: u64, value: u8) {
        self.registers.lock().write_memory(&self.vram, offset, value);
    }
    fn peek(&self, offset: u64) -> u8 {
        self.registers.lock().read_memory(&self.vram, offset)
    }
    fn crtc(&self, values: &[(u8, u8)]) {
        self.indexed(0x3d4, 0x11, 0);
        values.iter().for_each(|(i, v)| self.indexed(0x3d4, *i, *v));
    }
    /// The palette that firmware sets: entry i of the attribute controller is colour i, colour i is gray.
    fn palette(&self) {
        for i in 0..16 {
            self.attribute(i, i);
        }
        self.attribute(0x12, 15);
        self.write_port(0x3c8, 0);
        for i in 0..256u32 {
            (0..3).for_each(|_| self.write_port(0x3c9, i as u8 & 0x3f));
        }
    }
    fn show(&self) -> Surface {
        let mut s = Surface::default();
        s.begin();
        self.render(&mut s, Blink::SHOWN);
        s
    }
}

fn attr_on() -> u8 {
    state::attr::DISPLAY_ON
}

/// Gray `i` of [`Vga::palette`].
fn gray(i: u32) -> u32 {
    (i << 2 | i >> 4) * 0x01_0101
}

/// Text, 80 by 25 with 9 by 16 dots.
fn text_mode(v: &Vga) {
    v.write_port(0x3c2, 0x67);
    for (i, value) in [3, 0, 3, 0, 2].into_iter().enumerate() {
        v.indexed(0x3c4, i as u8, value);
    }
    for (i, value) in [0, 0, 0, 0, 0, 0x10, 0x0e, 0x0f, 0xff].into_iter().enumerate() {
        v.indexed(0x3ce, i as u8, value);
    }
    v.crtc(&[
        (0, 0x5f),
        (1, 79),
        (6, 0xbf),
        (7, 0x1f),
        (8, 0),
        (9, 0x4f),
        (10, 13),
        (11, 14),
        (12, 0),
        (13, 0),
        (14, 0),
        (15, 3),
        (0x10, 0x9c),
        (0x11, 0x8e),
        (0x12, 0x8f),
        (0x13, 40),
        (0x14, 0x1f),
        (0x17, 0xa3),
        (0x18, 0xff),
    ]);
    v.palette();
    v.attribute(0x10, 0x0c);
    v.attribute(0x13, 8);
}

/// What the registers' description says, a bit at a time.
fn reference_write(r: &Registers, planes: &mut [u8; 4], value: u8) {
    let (latch, g) = (r.latch.to_le_bytes(), r.gfx);
    for p in 0..4 {
        let mut result = 0;
        for bit in 0..8 {
            let old = latch[p] >> bit & 1;
            let rotated = value.rotate_right((g[3] & 7).into()) >> bit & 1;
            let set_reset = g[0] >> p & 1;
            let mut mask = g[8] >> bit & 1;
            let new = match g[5] & 3 {
                0 if g[1] >> p & 1 == 1 => set_reset,
                0 => rotated,
                1 => {
                    result |= old << bit;
                    continue;
                }
                2 => value >> p & 1,
                _ => {
                    mask &= rotated;
                    set_reset
                }
            };
            let new = match g[3] >> 3 & 3 {
                0 => new,
                1 => new & old,
                2 => new | old,
                _ => new ^ old,
            };
            result |= if mask == 1 { new } else { old } << bit;
        }
        if r.seq[2] >> p & 1 == 1 {
            planes[p] = result;
        }
    }
}

#[test]
fn write_modes() {
    let v = vga(Kind::Vga);
    v.write_port(0x3c2, 3);
    v.indexed(0x3c4, 4, 6);
    let mut random = Random(1);
    let mut planes = [0u8; 4];
    for _ in 0..20_000 {
        let n = random.next();
        v.indexed(0x3ce, (n % 9) as u8, (n >> 8) as u8);
        // The window stays at a0000, reads mode 0 and plane 0, writes by planes.
        v.indexed(0x3ce, 6, 5);
        v.indexed(0x3ce, 5, (random.next() & 3) as u8);
        v.indexed(0x3c4, 2, (random.next() & 15) as u8);
        if random.next() & 3 == 0 {
            v.indexed(0x3ce, 4, 2);
            assert_eq!(v.peek(0x123), planes[2]);
            assert_eq!(v.registers.lock().latch, u32::from_le_bytes(planes));
        }
        let value = random.next() as u8;
        reference_write(&v.registers.lock().clone(), &mut planes, value);
        v.poke(0x123, value);
        assert_eq!(v.vram.load(0x123 * 4, 4), Ok(u32::from_le_bytes(planes).into()));
    }
}

#[test]
fn color_compare_and_chained_planes() {
    let v = vga(Kind::Vga);
    v.write_port(0x3c2, 3);
    v.indexed(0x3c4, 4, 6);
    v.indexed(0x3ce, 6, 5);
    v.vram.write(0, &[0b1100, 0b1010, 0, 0xff]).unwrap();
    v.indexed(0x3ce, 5, 8);
    v.indexed(0x3ce, 2, 0b1001);
    v.indexed(0x3ce, 7, 0b1011);
    assert_eq!(v.peek(0), 0b0100);
    v.indexed(0x3ce, 7, 0);
    assert_eq!(v.peek(0), 0xff);
    // Chain 4: linear.
    v.indexed(0x3ce, 5, 0x40);
    v.indexed(0x3ce, 8, 0xff);
    v.indexed(0x3c4, 2, 15);
    v.indexed(0x3c4, 4, 0x0e);
    (0..8).for_each(|i| v.poke(0x100 + i, 0x10 + i as u8));
    assert_eq!(v.vram.load(0x100, 8), Ok(0x1716_1514_1312_1110));
    assert_eq!(v.peek(0x106), 0x16);
    // Outside of the window, and with the memory off.
    v.indexed(0x3ce, 6, 0x0d);
    assert_eq!(v.peek(0x106), 0xff);
    v.poke(0x1_8106, 1);
    assert_eq!((v.peek(0x1_8106), v.vram.load(0x106, 1)), (1, Ok(1)));
    v.write_port(0x3c2, 1);
    assert_eq!(v.peek(0x1_8106), 0xff);
}

#[test]
fn text() {
    let v = vga(Kind::Vga);
    assert_eq!((v.show().width(), v.show().height()), (640, 480));
    text_mode(&v);
    // "A" of two fonts through planes 2, as firmware loads them.
    v.indexed(0x3c4, 2, 4);
    v.indexed(0x3c4, 4, 6);
    v.indexed(0x3ce, 5, 0);
    v.indexed(0x3ce, 6, 4);
    v.poke(32 * 0x41 + 5, 0b1000_0001);
    v.poke(32 * 0xc4 + 5, 0xff);
    v.poke(0x4000 + 32 * 0x41 + 5, 0b0100_0000);
    text_mode(&v);
    for (i, byte) in [0x41, 0x17, 0xc4, 0x07, 0x41, 0x0e, 0x20, 0x70].into_iter().enumerate() {
        v.poke(0x1_8000 + i as u64, byte);
    }
    assert_eq!((v.peek(0x1_8000), v.peek(0x1_8005)), (0x41, 0x0e));
    let s = v.show();
    assert_eq!((s.width(), s.height()), (720, 400));
    let dots = |from: usize| (from..from + 9).map(|x| s.pixel(x, 5)).collect::<Vec<_>>();
    let (f, b) = (gray(7), gray(1));
    assert_eq!(dots(0), [f, b, b, b, b, b, b, f, b]);
    assert_eq!(dots(9), [f; 9], "line drawing characters have a ninth dot");
    assert_eq!(dots(18)[..2], [gray(14), 0]);
    // The cursor covers rows 13 and 14 of cell 3, in its foreground 0 on background 7.
    assert_eq!([12, 13, 14, 15].map(|y| s.pixel(27, y)), [f, 0, 0, f]);
    // Second font for bright characters.
    v.indexed(0x3c4, 3, 0x04);
    let s = v.show();
    assert_eq!((s.pixel(18, 5), s.pixel(19, 5), s.pixel(0, 5)), (0, gray(14), f));
    // Blinking.
    v.poke(0x1_8001, 0x97);
    let mut hidden = Surface::default();
    v.render(&mut hidden, Blink { cursor: false, text: false });
    assert_eq!((hidden.pixel(0, 5), hidden.pixel(27, 13), v.show().pixel(0, 5)), (b, f, f));
    // Start address: a row further.
    v.crtc(&[(13, 80)]);
    assert_eq!(v.show().pixel(0, 5), 0);
    // Split: after line 15 the memory from 0 on is shown.
    v.crtc(&[(7, 0x0f), (9, 0x0f), (0x18, 15)]);
    assert_eq!(v.show().pixel(0, 21), f);
    // Off.
    v.indexed(0x3c4, 1, 0x20);
    assert_eq!(v.show().pixel(0, 21), 0);
}

#[test]
fn graphics_modes() {
    let v = vga(Kind::Vga);
    text_mode(&v);
    // 640 by 480 in 16 colours.
    v.attribute(0x10, 1);
    v.attribute(0x13, 0);
    v.indexed(0x3c4, 1, 1);
    v.indexed(0x3ce, 5, 0);
    v.indexed(0x3ce, 6, 5);
    v.crtc(&[(7, 0x3e), (9, 0x40), (0x12, 0xdf), (0x13, 40), (0x17, 0xe3), (0x18, 0xff)]);
    v.vram.write(80 * 4, &[0x80, 0, 0x81, 0]).unwrap();
    let s = v.show();
    assert_eq!((s.width(), s.height()), (640, 480));
    assert_eq!([0, 1, 7].map(|x| s.pixel(x, 1)), [gray(5), 0, gray(4)]);
    v.attribute(0x13, 7);
    assert_eq!(v.show().pixel(0, 1), gray(4));
    v.attribute(0x13, 0);
    // 320 by 200 in 256 colours, twice as wide and high.
    v.indexed(0x3ce, 5, 0x40);
    v.crtc(&[(7, 0x1f), (9, 0x41), (0x12, 0x8f), (0x14, 0x40), (0x17, 0xa3)]);
    v.vram.write(320 + 3, &[0x2a]).unwrap();
    let s = v.show();
    assert_eq!((s.width(), s.height()), (640, 400));
    assert_eq!([(6, 2), (7, 3), (6, 1), (8, 2)].map(|(x, y)| s.pixel(x, y)), [gray(0x2a), gray(0x2a), 0, 0]);
    // 320 by 200 in 4 colours of the CGA: odd lines 8 KiB further.
    v.indexed(0x3ce, 5, 0x30);
    v.indexed(0x3ce, 6, 0x0f);
    v.indexed(0x3c4, 1, 9);
    v.indexed(0x3c4, 2, 3);
    v.indexed(0x3c4, 4, 2);
    v.crtc(&[(1, 39), (9, 0xc1), (0x13, 20), (0x14, 0), (0x17, 0xa2)]);
    v.poke(0x1_8000 + 0x2000 + 80, 0b0001_1011);
    let s = v.show();
    assert_eq!((s.width(), s.height()), (640, 400));
    assert_eq!([0, 2, 4, 7].map(|x| s.pixel(x, 6)), [gray(0), gray(1), gray(2), gray(3)]);
    assert_eq!(s.pixel(7, 7), gray(3), "lines are doubled");
}

fn set_mode(v: &Vga, x: u16, y: u16, bpp: u16) {
    for (register, value) in
        [(index::ENABLE, 0), (index::XRES, x), (index::YRES, y), (index::BPP, bpp), (index::ENABLE, 0x41)]
    {
        v.write_dispi(register, value);
    }
}

#[test]
fn display_interface() {
    let v = vga(Kind::Vga);
    v.write_port(0x3c2, 3);
    v.write_port(0x3c0, 0x20);
    assert_eq!(v.read_dispi(index::ID), 0xb0c5);
    v.write_dispi(index::ENABLE, 2);
    assert_eq!([1, 2, 3].map(|i| v.read_dispi(i)), [16000, 12000, 32]);
    v.vram.fill(0, 2 << 20, 0xff).unwrap();
    for (bpp, bytes, pixel) in [
        (32, vec![0x33, 0x22, 0x11, 0x99], 0x11_2233),
        (24, vec![0x33, 0x22, 0x11], 0x11_2233),
        (16, vec![0x1f, 0x83], 0x84_61ff),
        (15, vec![0xe1, 0x43], 0x84_ff08),
        (8, vec![7], gray(7)),
    ] {
        set_mode(&v, 320, 200, bpp);
        if bpp == 8 {
            v.palette();
        }
        let at = (321 * bytes.len()) as u64;
        v.vram.write(at, &bytes).unwrap();
        let s = v.show();
        assert_eq!((s.width(), s.height()), (320, 200));
        assert_eq!((s.pixel(1, 1), s.pixel(0, 1), s.pixel(319, 199)), (pixel, 0, 0), "{bpp}");
    }
    // The virtual width moves lines apart, offsets the start.
    set_mode(&v, 320, 200, 32);
    v.write_dispi(index::VIRT_WIDTH, 400);
    assert_eq!(v.read_dispi(index::VIRT_HEIGHT), 1310);
    v.vram.store(400 * 4 * 11 + 40, 4, 0xabcdef).unwrap();
    v.write_dispi(index::X_OFFSET, 8);
    v.write_dispi(index::Y_OFFSET, 10);
    assert_eq!(v.show().pixel(2, 1), 0xab_cdef);
    v.set_byte_order(ByteOrder::Big);
    assert_eq!(v.show().pixel(2, 1), 0xcd_ab00);
    v.set_byte_order(ByteOrder::Little);
    assert_eq!(v.show().pixel(2, 1), 0xab_cdef);
    // Banks of 64 KiB at a0000.
    v.write_dispi(index::BANK, 3);
    v.poke(5, 0x77);
    assert_eq!((v.vram.load(0x3_0005, 1), v.peek(5), v.peek(0x1_0000)), (Ok(0x77), 0x77, 0xff));
    v.write_dispi(index::BANK, 32);
    assert_eq!(v.read_dispi(index::BANK), 3, "there is no such bank");
    // What does not fit is made to.
    set_mode(&v, 16000, 12000, 32);
    assert_eq!((v.read_dispi(index::XRES), v.read_dispi(index::YRES)), (16000, 32));
    // Planes.
    set_mode(&v, 800, 600, 4);
    v.palette();
    v.vram.write(100 * 4, &[1, 0, 0, 1]).unwrap();
    let s = v.show();
    assert_eq!((s.width(), s.height(), s.pixel(7, 1)), (800, 600, gray(9)));
    // Components of 8 bits; the colours stay.
    v.write_dispi(index::ENABLE, 0x61);
    v.write_port(0x3c7, 9);
    assert_eq!(v.read_port(0x3c9), 9 << 2);
    v.write_port(0x3c8, 9);
    [1, 2, 3].into_iter().for_each(|c| v.write_port(0x3c9, c));
    assert_eq!(v.show().pixel(7, 1), 0x01_0203);
}

#[test]
fn dac_and_status() {
    let v = vga(Kind::Vga);
    v.write_port(0x3c2, 1);
    v.write_port(0x3c8, 0xff);
    [1, 2, 0xc3, 4, 5, 6].into_iter().for_each(|c| v.write_port(0x3c9, c));
    v.write_port(0x3c7, 0xff);
    assert_eq!((v.read_port(0x3c7), v.read_port(0x3c8)), (3, 1));
    assert_eq!([0; 6].map(|_| v.read_port(0x3c9)), [1, 2, 3, 4, 5, 6]);
    // Protected registers.
    v.indexed(0x3d4, 0x11, 0x80);
    v.indexed(0x3d4, 0, 0x55);
    v.indexed(0x3d4, 7, 0xff);
    let read = |i| {
        v.write_port(0x3d4, i);
        v.read_port(0x3d5)
    };
    assert_eq!((read(0), read(7), v.read_port(0x3b4)), (0, 0x10, 0xff));
    // A frame has a retrace.
    text_mode(&v);
    let r = v.registers.lock().clone();
    let samples: Vec<_> = (0..16_000).map(|us| r.beam(us * 1000)).collect();
    let retrace = samples.iter().filter(|b| b.vertical_retrace).count();
    let blank = samples.iter().filter(|b| b.blank).count();
    assert!((30..200).contains(&retrace) && (2000..8000).contains(&blank), "{retrace} {blank}");
}

fn function() -> (Arc<PciBus>, Arc<DisplayFunction>) {
    let bus = PciBus::new("pci", AddressSpace::new("dma"), std::array::from_fn(|_| IrqLine::unconnected()), None);
    let options =
        FunctionOptions { vga: VgaOptions { kind: Kind::Vga, memory: 1 << 20, edid: Some((800, 600)) }, legacy: true };
    let slot = bus.slot(Devfn::new(1, 0)).with_rom(&[0x55, 0xaa, 1], false).unwrap();
    let function = DisplayFunction::new("VGA", &slot, options, &VirtualClock::new(), Log::off()).unwrap();
    bus.attach(function.clone()).unwrap();
    function.reset();
    (bus, function)
}

#[test]
fn as_a_pci_function() {
    let (bus, f) = function();
    assert_eq!(f.config_read(0, 4), 0x1111_1234);
    assert_eq!(f.config_read(8, 4) >> 8, 0x03_0000);
    for (at, value) in [(0x10, 0xe000_0000), (0x18, 0xe100_0000), (0x30, 0xe200_0001), (4, 3)] {
        f.config_write(at, 4, value);
    }
    let a = |size| Access::cpu(0, size);
    let (memory, io) = (bus.memory(), bus.io());
    assert_eq!(memory.load(Gpa(0xe200_0000), a(2)), Ok(0xaa55));
    assert_eq!(memory.load(Gpa(0xe100_0000), a(8)), Ok(0x00ff_ffff_ffff_ff00));
    assert_eq!(memory.load(Gpa(0xe100_0500), a(2)), Ok(0xb0c5));
    assert_eq!(memory.load(Gpa(0xe100_0600), a(4)), Ok(8));
    let dispi = |index: u64, value: u64| {
        io.store(Gpa(0x1ce), index, a(2)).unwrap();
        io.store(Gpa(0x1cf), value, a(2)).unwrap();
    };
    [(1, 64), (2, 32), (3, 32), (4, 0x41)].into_iter().for_each(|(i, v)| dispi(i, v));
    assert_eq!(io.load(Gpa(0x1ce), a(2)), Ok(4));
    assert_eq!(io.load(Gpa(0x1cf), a(2)), Ok(0x41));
    // The ports by MMIO.
    memory.store(Gpa(0xe100_0400), 0x20, a(1)).unwrap();
    assert_eq!(io.load(Gpa(0x3c0), a(1)), Ok(0x20));
    io.store(Gpa(0x3c4), 0x0f02, a(2)).unwrap();
    assert_eq!(memory.load(Gpa(0xe100_0404), a(2)), Ok(0x0f02));
    memory.store(Gpa(0xe000_0004), 0x12_3456, a(4)).unwrap();
    assert_eq!(memory.load(Gpa(0xa_0004), a(4)), Ok(0x12_3456));
    assert_eq!(f.vga().show().pixel(1, 0), 0x12_3456);
    memory.store(Gpa(0xe100_0604), 0xbebe_bebe, a(4)).unwrap();
    assert_eq!(f.vga().byte_order(), ByteOrder::Big);

    let saved = f.save();
    let (_bus, other) = function();
    other.load(&saved).unwrap();
    assert_eq!(*other.vga().registers.lock(), *f.vga().registers.lock());
    assert_eq!(other.vga().show().pixel(1, 0), f.vga().show().pixel(1, 0));
    f.reset();
    assert!(memory.load(Gpa(0xe000_0004), a(4)).is_err());
    assert_eq!(f.vga().show().width(), 640);
}

#[test]
fn random_accesses_do_no_harm() {
    let (bus, f) = function();
    f.config_write(0x10, 4, 0xe000_0000);
    f.config_write(0x18, 4, 0xe100_0000);
    f.config_write(4, 2, 3);
    let mut random = Random(7);
    let mut surface = Surface::default();
    for round in 0..6_000 {
        let (n, value) = (random.next(), random.next() << 20 ^ random.next());
        let size = 1 << (n & 3).min(2);
        let access = Access::cpu(0, size);
        let at = random.next();
        let _ = match n >> 4 & 7 {
            0 | 1 => bus.io().store(Gpa(0x3c0 + at % 0x20), value, access),
            2 => bus.io().store(Gpa(0x1ce + at % 3), value, access),
            3 => bus.memory().store(Gpa(0xe100_0400 + at % 0x210), value, access),
            4 => bus.memory().store(Gpa(0xa_0000 + at % 0x2_0000), value, access),
            5 => bus.memory().load(Gpa(0xa_0000 + at % 0x2_0000), access).map(drop),
            6 => bus.memory().load(Gpa(0xe100_0000 + at % 0x1000), access).map(drop),
            _ => {
                let r = &mut *f.vga().registers.lock();
                r.crtc[at as usize % state::crtc::COUNT] = value as u8;
                r.attr[at as usize % state::attr::COUNT] = value as u8;
                Ok(())
            }
        };
        if round % 20 == 0 {
            // Small, so that this is quick.
            f.vga().write_dispi(index::XRES, (value % 300) as u16);
            f.vga().write_dispi(index::ENABLE, (at & 0xff) as u16);
            f.vga().registers.lock().attr_index |= attr_on();
            f.vga().registers.lock().seq[1] &= !0x20;
            surface.begin();
            f.vga().render(&mut surface, Blink { cursor: at & 1 == 0, text: at & 2 == 0 });
            assert!(surface.width() <= Surface::MAX && surface.height() <= Surface::MAX);
        }
    }
}
