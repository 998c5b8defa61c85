use super::*;

fn rig() -> (Arc<Pl061>, IrqLine, IrqLine) {
    let (line, output) = (IrqLine::unconnected(), IrqLine::unconnected());
    let mut outputs = [const { None }; 8];
    outputs[1] = Some(output.clone());
    (Pl061::new("pl061@9030000", line.clone(), outputs, Log::off()), line, output)
}

fn rd(g: &Pl061, offset: u64) -> u64 {
    g.read(offset, Access::cpu(0, 4)).unwrap()
}
fn wr(g: &Pl061, offset: u64, value: u64) {
    g.write(offset, value, Access::cpu(0, 4)).unwrap();
}

#[test]
fn data_and_direction() {
    assert!(MAP.check());
    let (g, _, out) = rig();
    wr(&g, 0x3fc, 0xff);
    assert_eq!((rd(&g, 0x3fc), out.level()), (0, false));
    wr(&g, 0x400, 0x0f);
    assert_eq!((rd(&g, 0x3fc), out.level()), (0x0f, true));
    wr(&g, 2 << 2, 0);
    assert_eq!((rd(&g, 0x3fc), rd(&g, 0x0c << 2), out.level()), (0x0d, 0x0c, false));
    g.set_pin(7, true);
    g.set_pin(0, false);
    assert_eq!(rd(&g, 0x3fc), 0x8d);
    g.reset();
    assert_eq!(rd(&g, 0x3fc), 0x80);
    assert_eq!(rd(&g, 0xfe0), 0x61);
}

#[test]
fn edges_and_levels() {
    let (g, line, _) = rig();
    // Pin 3, rising edges: what gpio-keys asks for, before it also asks for falling ones.
    wr(&g, 0x40c, 8);
    wr(&g, 0x410, 8);
    g.set_pin(3, true);
    assert!(line.level());
    assert_eq!((rd(&g, 0x414), rd(&g, 0x418)), (8, 8));
    wr(&g, 0x41c, 8);
    assert!(!line.level());
    g.set_pin(3, false);
    assert!(!line.level());
    wr(&g, 0x408, 8);
    g.set_pin(3, true);
    wr(&g, 0x41c, 8);
    g.set_pin(3, false);
    assert!(line.level());
    wr(&g, 0x41c, 8);
    // Levels follow the pin and cannot be cleared.
    wr(&g, 0x404, 8);
    g.set_pin(3, true);
    wr(&g, 0x41c, 8);
    assert!(line.level());
    wr(&g, 0x40c, 0);
    assert!(!line.level());
    g.set_pin(3, false);
    assert!(line.level());
}

#[test]
fn saves() {
    let (g, ..) = rig();
    wr(&g, 0x400, 2);
    wr(&g, 0x3fc, 2);
    wr(&g, 0x40c, 8);
    wr(&g, 0x410, 8);
    g.set_pin(3, true);
    let (other, line, out) = rig();
    other.load(&g.save()).unwrap();
    assert!(line.level() && out.level());
}

#[test]
fn garbage() {
    let (g, line, out) = rig();
    let mut random = crate::testing::Random::new(3);
    for _ in 0..100_000 {
        let x = random.next();
        let size = 1u8 << (x >> 60 & 3);
        let offset = if x >> 59 & 1 == 0 { 0x400 + (x & 0x3f) } else { x & 0xfff } & !(u64::from(size) - 1);
        match x >> 40 & 3 {
            0 => drop(g.read(offset, Access::cpu(0, size))),
            1 => g.set_pin(x as u32 & 15, x >> 32 & 1 != 0),
            _ => drop(g.write(offset, random.next(), Access::cpu(0, size))),
        }
        let state = g.state.lock();
        assert_eq!(line.level(), state.interrupt());
        assert_eq!(out.level(), state.data & state.driven() & 2 != 0);
    }
}
