use super::*;
use crate::console::Blink;
use crate::{Console, Display, Surface};
use flate2::{Decompress, FlushDecompress};
use parking_lot::Mutex;
use rhea_pc::InputHub;
use rhea_pc::input::{InputConsumer, InputEvent, InputKinds, KeyCode};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// A picture that depends on a number.
struct Pattern {
    seed: AtomicU32,
    size: Mutex<(usize, usize)>,
    preferred: Mutex<Option<(u32, u32)>>,
}

fn color(seed: u32, x: usize, y: usize) -> u32 {
    // Areas of one colour, of few colours, and of noise.
    match (x / 70 + y / 40) % 4 {
        0 => 0x20_4060 + seed,
        1 if x % 5 < 2 => 0xff_ffff,
        1 => 0x00_0010,
        2 => [0, 0xff_0000, 0x00_ff00, 0x00_00ff, 0x80_8080, 0x12_3456][(x / 3 + y) % 6],
        _ => (x as u32).wrapping_mul(0x9e37_79b9).wrapping_add((y as u32).wrapping_mul(0x85eb_ca6b)) >> 8,
    }
}

impl Display for Pattern {
    fn name(&self) -> &str {
        "pattern"
    }
    fn render(&self, surface: &mut Surface, _blink: Blink) {
        let (width, height) = *self.size.lock();
        surface.resize(width, height);
        let seed = self.seed.load(Ordering::SeqCst);
        for y in 0..height {
            let line: Vec<u32> = (0..width).map(|x| color(seed, x, y)).collect();
            surface.put(0, y, &line);
        }
    }
    fn prefer_size(&self, width: u32, height: u32) -> bool {
        *self.preferred.lock() = Some((width, height));
        true
    }
}

#[derive(Default)]
struct Sink(Mutex<Vec<InputEvent>>);
impl InputConsumer for Sink {
    fn input(&self, events: &[InputEvent]) {
        self.0.lock().extend_from_slice(events);
    }
}

struct Setup {
    pattern: Arc<Pattern>,
    server: Arc<VncServer>,
    hub: Arc<InputHub>,
    path: PathBuf,
}

fn setup(name: &str, options: &str) -> Setup {
    let path = std::env::temp_dir().join(format!("rhea-vnc-{}-{name}", std::process::id()));
    let pattern =
        Arc::new(Pattern { seed: AtomicU32::new(0), size: Mutex::new((300, 130)), preferred: Mutex::default() });
    let (console, hub) = (Console::new(pattern.clone()), InputHub::new());
    let options = VncOptions::parse(&format!("unix:{}{options}", path.display())).unwrap().unwrap();
    let server = VncServer::start(&options, &console, &hub, "test").unwrap();
    Setup { pattern, server, hub, path }
}

/// A client.
struct Client {
    s: UnixStream,
    width: usize,
    height: usize,
    pixels: Vec<u32>,
    zlib: Decompress,
    zrle: Decompress,
    /// Pseudo-rectangles seen: encoding, x, y, width, height.
    pseudo: Vec<(i32, [u16; 4])>,
}

impl Client {
    fn connect(setup: &Setup, version: &[u8; 12], shared: u8) -> Self {
        let mut s = UnixStream::connect(&setup.path).unwrap();
        s.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut c = |n: usize, send: &[u8]| {
            let mut data = vec![0; n];
            s.read_exact(&mut data).unwrap();
            s.write_all(send).unwrap();
            data
        };
        assert_eq!(c(12, version), b"RFB 003.008\n");
        match &version[8..11] {
            b"003" => assert_eq!(c(4, &[shared]), [0, 0, 0, 1]),
            b"007" => assert_eq!(c(2, &[1, shared]), [1, 1]),
            _ => {
                assert_eq!(c(2, &[1]), [1, 1]);
                assert_eq!(c(4, &[shared]), [0; 4]);
            }
        }
        let init = c(24, &[]);
        let name = c(u32::from_be_bytes(init[20..24].try_into().unwrap()) as usize, &[]);
        assert_eq!(name, b"Rhea (test)");
        let (width, height) =
            (usize::from(init[0]) << 8 | usize::from(init[1]), usize::from(init[2]) << 8 | usize::from(init[3]));
        let stream = || Decompress::new(true);
        Self { s, width, height, pixels: vec![0; width * height], zlib: stream(), zrle: stream(), pseudo: vec![] }
    }
    fn send(&mut self, data: &[u8]) {
        self.s.write_all(data).unwrap();
    }
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut data = [0; N];
        self.s.read_exact(&mut data).unwrap();
        data
    }
    fn word(&mut self) -> u16 {
        u16::from_be_bytes(self.take())
    }
    fn bytes(&mut self, n: usize) -> Vec<u8> {
        let mut data = vec![0; n];
        self.s.read_exact(&mut data).unwrap();
        data
    }
    fn encodings(&mut self, list: &[i32]) {
        let mut m = vec![2, 0];
        m.extend((list.len() as u16).to_be_bytes());
        list.iter().for_each(|n| m.extend(n.to_be_bytes()));
        self.send(&m);
    }
    fn request(&mut self, incremental: u8) {
        let mut m = vec![3, incremental, 0, 0, 0, 0];
        m.extend((self.width as u16).to_be_bytes());
        m.extend((self.height as u16).to_be_bytes());
        self.send(&m);
    }
    fn inflate(zrle: &mut Decompress, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let before = zrle.total_in();
        while ((zrle.total_in() - before) as usize) < data.len() || out.len() == out.capacity() {
            out.reserve(65536);
            zrle.decompress_vec(&data[(zrle.total_in() - before) as usize..], &mut out, FlushDecompress::Sync).unwrap();
        }
        out
    }
    fn put(&mut self, x: usize, y: usize, width: usize, pixels: &[u32]) {
        for (i, p) in pixels.iter().enumerate() {
            self.pixels[(y + i / width) * self.width + x + i % width] = *p;
        }
    }
    /// One update; false if it was one of pseudo-rectangles only.
    fn update(&mut self) -> bool {
        let [kind, _] = self.take::<2>();
        assert_eq!(kind, 0);
        let mut real = false;
        for _ in 0..self.word() {
            let [x, y, w, h] = [0; 4].map(|_: u8| self.word());
            let encoding = i32::from_be_bytes(self.take());
            let (x_, y_, w_, h_) = (usize::from(x), usize::from(y), usize::from(w), usize::from(h));
            if encoding < 0 {
                self.pseudo.push((encoding, [x, y, w, h]));
                if matches!(encoding, -223 | -308) {
                    (self.width, self.height, self.pixels) = (w_, h_, vec![0; w_ * h_]);
                }
                if encoding == -308 {
                    let screens = self.take::<4>()[0];
                    self.bytes(usize::from(screens) * 16);
                }
                continue;
            }
            real = true;
            let four = |data: Vec<u8>| -> Vec<u32> {
                data.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
            };
            match encoding {
                0 => {
                    let pixels = four(self.bytes(w_ * h_ * 4));
                    self.put(x_, y_, w_, &pixels);
                }
                6 => {
                    let n = u32::from_be_bytes(self.take());
                    let data = self.bytes(n as usize);
                    let pixels = four(Self::inflate(&mut self.zlib, &data));
                    assert_eq!(pixels.len(), w_ * h_);
                    self.put(x_, y_, w_, &pixels);
                }
                16 => {
                    let n = u32::from_be_bytes(self.take());
                    let data = self.bytes(n as usize);
                    let data = Self::inflate(&mut self.zrle, &data);
                    self.zrle_tiles(&data, x_, y_, w_, h_);
                }
                5 => self.hextile(x_, y_, w_, h_),
                _ => panic!("encoding {encoding}"),
            }
        }
        real
    }
    fn hextile(&mut self, x0: usize, y0: usize, w: usize, h: usize) {
        let (mut back, mut fore) = (0, 0);
        for y in (0..h).step_by(16) {
            for x in (0..w).step_by(16) {
                let (tw, th) = (16.min(w - x), 16.min(h - y));
                let [kind] = self.take::<1>();
                let mut tile = vec![0; tw * th];
                if kind & 1 != 0 {
                    tile.fill_with(|| u32::from_le_bytes(self.take()));
                } else {
                    if kind & 2 != 0 {
                        back = u32::from_le_bytes(self.take());
                    }
                    if kind & 4 != 0 {
                        fore = u32::from_le_bytes(self.take());
                    }
                    tile.fill(back);
                    let n = if kind & 8 != 0 { self.take::<1>()[0] } else { 0 };
                    for _ in 0..n {
                        let c = if kind & 16 != 0 { u32::from_le_bytes(self.take()) } else { fore };
                        let [place, size] = self.take::<2>();
                        for j in 0..=usize::from(size & 15) {
                            for i in 0..=usize::from(size >> 4) {
                                tile[(usize::from(place & 15) + j) * tw + usize::from(place >> 4) + i] = c;
                            }
                        }
                    }
                }
                self.put(x0 + x, y0 + y, tw, &tile);
            }
        }
    }
    fn zrle_tiles(&mut self, data: &[u8], x0: usize, y0: usize, w: usize, h: usize) {
        let mut d = data;
        fn pixel(d: &mut &[u8]) -> u32 {
            let p = u32::from_le_bytes([d[0], d[1], d[2], 0]);
            *d = &d[3..];
            p
        }
        for y in (0..h).step_by(64) {
            for x in (0..w).step_by(64) {
                let (tw, th) = (64.min(w - x), 64.min(h - y));
                let kind = d[0];
                d = &d[1..];
                let mut tile = Vec::new();
                match kind {
                    0 => tile.extend((0..tw * th).map(|_| pixel(&mut d))),
                    1 => tile.resize(tw * th, pixel(&mut d)),
                    2..=16 => {
                        let palette: Vec<u32> = (0..kind).map(|_| pixel(&mut d)).collect();
                        let bits = match kind {
                            2 => 1,
                            3 | 4 => 2,
                            _ => 4,
                        };
                        for _ in 0..th {
                            let row = &d[..(tw * bits).div_ceil(8)];
                            for i in 0..tw {
                                let shift = 8 - bits - i * bits % 8;
                                tile.push(palette[usize::from(row[i * bits / 8] >> shift) & ((1 << bits) - 1)]);
                            }
                            d = &d[row.len()..];
                        }
                    }
                    128 => {
                        while tile.len() < tw * th {
                            let c = pixel(&mut d);
                            let mut n = 1;
                            loop {
                                let b = d[0];
                                d = &d[1..];
                                n += usize::from(b);
                                if b != 255 {
                                    break;
                                }
                            }
                            tile.extend(std::iter::repeat_n(c, n));
                        }
                    }
                    _ => panic!("tile {kind}"),
                }
                assert_eq!(tile.len(), tw * th);
                self.put(x0 + x, y0 + y, tw, &tile);
            }
        }
        assert!(d.is_empty());
    }
    fn check(&self, seed: u32) {
        for y in 0..self.height {
            for x in 0..self.width {
                assert_eq!(self.pixels[y * self.width + x], color(seed, x, y) & 0xff_ffff, "{x},{y}");
            }
        }
    }
}

fn eventually(what: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !what() {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn pictures_in_all_encodings() {
    let t = setup("pictures", "");
    let mut seed = 0;
    for (encoding, version) in
        [(0, b"RFB 003.008\n"), (5, b"RFB 003.007\n"), (6, b"RFB 003.003\n"), (16, b"RFB 003.889\n")]
    {
        let mut c = Client::connect(&t, version, 1);
        c.encodings(&[7, encoding, 1]);
        c.request(0);
        assert!(c.update());
        c.check(seed);
        // The next one waits for a change.
        for _ in 0..2 {
            c.request(1);
            seed += 1;
            t.pattern.seed.store(seed, Ordering::SeqCst);
            assert!(c.update());
            c.check(seed);
        }
    }
    assert!(t.server.describe().contains("auth: none"));
    eventually(|| t.server.describe().lines().count() == 1);
}

#[test]
fn formats() {
    let t = setup("formats", "");
    let mut c = Client::connect(&t, b"RFB 003.008\n", 1);
    // RGB 5:6:5, big-endian.
    c.send(&[0, 0, 0, 0, 16, 16, 1, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0, 0, 0, 0]);
    c.request(0);
    let [_, _, _, 1, ..] = c.take::<16>() else { panic!("one rectangle") };
    let data = c.bytes(300 * 130 * 2);
    let (r, g, b) = ((0x20 * 31 + 127) / 255, (0x40 * 63 + 127) / 255, (0x60 * 31 + 127) / 255);
    assert_eq!(data[..2], ((r << 11 | g << 5 | b) as u16).to_be_bytes());
    // A colour map.
    c.send(&[0, 0, 0, 0, 8, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(c.take::<6>(), [1, 0, 0, 0, 1, 0]);
    c.bytes(256 * 6);
    c.request(0);
    c.take::<16>();
    assert_eq!(c.bytes(300 * 130)[0], 1 << 5 | 2 << 2 | 1);
    // An impossible one ends the connection.
    c.send(&[0, 0, 0, 0, 24, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert!(matches!(c.s.read(&mut [0; 1]), Ok(0) | Err(_)));
}

#[test]
fn sizes() {
    let t = setup("sizes", "");
    let mut c = Client::connect(&t, b"RFB 003.008\n", 1);
    c.encodings(&[0, -308, -223]);
    c.request(0);
    assert!(!c.update());
    assert_eq!(c.pseudo.pop(), Some((-308, [0, 0, 300, 130])));
    c.request(1);
    assert!(c.update());
    c.check(0);
    c.request(1);
    *t.pattern.size.lock() = (160, 200);
    assert!(!c.update());
    assert_eq!(c.pseudo.pop(), Some((-308, [0, 0, 160, 200])));
    c.request(1);
    assert!(c.update());
    c.check(0);
    // The client would like another size.
    c.send(&[251, 0, 4, 0, 3, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 3, 0, 0, 0, 0, 0]);
    c.request(1);
    assert!(!c.update());
    assert_eq!(c.pseudo.pop(), Some((-308, [1, 4, 160, 200])));
    assert_eq!(*t.pattern.preferred.lock(), Some((1024, 768)));
    // One that cannot follow sees what fits.
    let mut old = Client::connect(&t, b"RFB 003.003\n", 1);
    old.request(0);
    assert!(old.update());
    old.check(0);
    *t.pattern.size.lock() = (80, 60);
    old.request(1);
    assert!(old.update());
}

#[test]
fn input() {
    let t = setup("input", "");
    let (keyboard, mouse, tablet) = (Arc::new(Sink::default()), Arc::new(Sink::default()), Arc::new(Sink::default()));
    let weak = |s: &Arc<Sink>| -> Weak<dyn InputConsumer> {
        let w: Weak<Sink> = Arc::downgrade(s);
        w
    };
    let _k = t.hub.attach("keyboard", InputKinds::KEYS, weak(&keyboard));
    let _m = t.hub.attach("mouse", InputKinds::RELATIVE, weak(&mouse));
    let mut c = Client::connect(&t, b"RFB 003.008\n", 1);
    c.encodings(&[0, -258, -257]);
    assert!(!c.update() && !c.update());
    assert_eq!(c.pseudo, [(-258, [0, 0, 300, 130]), (-257, [0, 0, 300, 130])]);
    // Relative motion, a press, the wheel; a keysym, extended events with a number and without.
    c.send(&[5, 9, 0x80, 2, 0x7f, 0xfe]);
    c.send(&[4, 1, 0, 0, 0, 0, 0, 0x41]);
    c.send(&[255, 0, 0, 1, 0, 0, 0, 0x79, 0, 0, 0, 0x2c]);
    c.send(&[255, 0, 0, 0, 0, 0, 0xff, 0x0d, 0, 0, 0, 0]);
    // The clipboard is skipped.
    c.send(&[6, 0, 0, 0, 0, 0, 0, 5, 4, 4, 4, 4, 4]);
    let key = |code, down| InputEvent::Key { code, down };
    let expected = vec![key(KeyCode::A, true), key(KeyCode::Z, true), key(KeyCode::Ret, false)];
    eventually(|| *keyboard.0.lock() == expected);
    eventually(|| {
        *mouse.0.lock()
            == [
                InputEvent::Relative { dx: 3, dy: -1 },
                InputEvent::Button { button: rhea_pc::input::Button::Left, down: true },
                InputEvent::Wheel { vertical: 1, horizontal: 0 },
            ]
    });
    // A tablet takes over.
    let tab = t.hub.attach("tablet", InputKinds::ABSOLUTE, weak(&tablet));
    tab.activate();
    c.send(&[5, 1, 1, 43, 0, 0]);
    assert!(!c.update());
    assert_eq!(c.pseudo.pop(), Some((-257, [1, 0, 300, 130])));
    eventually(|| *tablet.0.lock() == [InputEvent::Absolute { x: 0x7fff, y: 0 }]);
    // What is down is released when the client goes.
    drop(c);
    eventually(|| keyboard.0.lock()[3..] == [key(KeyCode::A, false), key(KeyCode::Z, false)]);
    eventually(|| tablet.0.lock().len() == 2);
}

#[test]
fn sharing() {
    let ended = |c: &mut Client| matches!(c.s.read(&mut [0; 1]), Ok(0) | Err(_));
    let t = setup("exclusive", "");
    let mut first = Client::connect(&t, b"RFB 003.008\n", 1);
    let mut second = Client::connect(&t, b"RFB 003.008\n", 0);
    assert!(ended(&mut first));
    second.request(0);
    assert!(second.update());
    drop(t.server);
    assert!(ended(&mut second) && !t.path.exists());

    let t = setup("forced", ",share=force-shared,connections=1");
    let mut s = UnixStream::connect(&t.path).unwrap();
    s.write_all(b"RFB 003.003\n\0").unwrap();
    let mut all = Vec::new();
    s.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 16, "turned away after the version and the security type");
    eventually(|| t.server.describe().lines().count() == 1);
    let _one = Client::connect(&t, b"RFB 003.008\n", 1);
    let mut s = UnixStream::connect(&t.path).unwrap();
    assert!(matches!(s.read(&mut [0; 1]), Ok(0) | Err(_)), "one connection at most");
}

#[test]
fn passwords() {
    let t = setup("password", ",password=on");
    assert!(t.server.describe().contains("auth: vnc"));
    // What is read and written in turns; the answer to the challenge, which comes last, and what follows.
    let log_in = |password: &str, minor: &[u8; 3]| {
        let mut s = UnixStream::connect(&t.path).unwrap();
        s.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        s.read_exact(&mut [0; 12]).unwrap();
        s.write_all(&[b"RFB 003.", &minor[..], b"\n"].concat()).unwrap();
        let mut challenge = [0; 16];
        if minor == b"003" {
            let mut kind = [0; 4];
            s.read_exact(&mut kind).unwrap();
            assert_eq!(kind, [0, 0, 0, 2]);
        } else {
            let mut kinds = [0; 2];
            s.read_exact(&mut kinds).unwrap();
            assert_eq!(kinds, [1, 2]);
            s.write_all(&[2]).unwrap();
        }
        s.read_exact(&mut challenge).unwrap();
        s.write_all(&super::auth::encrypt(password, &challenge)).unwrap();
        let mut result = [0; 4];
        s.read_exact(&mut result).unwrap();
        if result == [0; 4] {
            s.write_all(&[1]).unwrap();
            s.read_exact(&mut [0; 24]).unwrap();
            return true;
        }
        assert_eq!(result, [0, 0, 0, 1]);
        let mut rest = Vec::new();
        s.read_to_end(&mut rest).unwrap();
        assert_eq!(rest.is_empty(), minor != b"008");
        false
    };
    assert!(!log_in("", b"008"), "no password is set");
    assert!(t.server.set_password("tiger"));
    for minor in [b"003", b"007", b"008"] {
        assert!(!log_in("lion", minor));
        assert!(log_in("tiger", minor));
    }
    assert!(t.server.expire_password(Some(std::time::SystemTime::now())));
    assert!(!log_in("tiger", b"008"));
    assert!(t.server.expire_password(None));
    assert!(log_in("tiger", b"008"));
    assert!(!setup("open", "").server.set_password("x"));
}

#[test]
fn nonsense_ends_the_connection() {
    let t = setup("nonsense", "");
    for m in [&[9u8][..], &[255, 1, 0, 0], &[255, 7]] {
        let mut c = Client::connect(&t, b"RFB 003.008\n", 1);
        c.send(m);
        assert!(matches!(c.s.read(&mut [0; 1]), Ok(0) | Err(_)));
    }
    let mut s = UnixStream::connect(&t.path).unwrap();
    s.write_all(b"GET / HTTP/1").unwrap();
    let mut all = Vec::new();
    let _ = s.read_to_end(&mut all);
    assert_eq!(all, b"RFB 003.008\n");
    // Requests far outside are answered with what there is.
    let mut c = Client::connect(&t, b"RFB 003.008\n", 1);
    c.send(&[3, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    c.update();
    let mut seed = 99u64;
    for _ in 0..200 {
        let mut c = Client::connect(&t, b"RFB 003.008\n", 1);
        let junk: Vec<u8> = (0..64)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if seed >> 62 == 0 { (seed >> 40) as u8 } else { (seed >> 40) as u8 % 7 }
            })
            .collect();
        // The server may have had enough.
        let _ = c.s.write_all(&junk);
    }
    eventually(|| t.server.describe().lines().count() == 2);
}
