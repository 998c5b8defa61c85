//! The pair by its ports and inputs.

use super::*;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rhea_device::Device;

struct Pic {
    pic: Arc<I8259>,
    ports: [Arc<dyn MmioDevice>; 2],
    output: Arc<AtomicBool>,
    ended: Arc<Mutex<Vec<u32>>>,
}

struct Output(Arc<AtomicBool>);
impl IrqSink for Output {
    fn set_level(&self, _: u32, level: bool) {
        self.0.store(level, SeqCst);
    }
}

impl Pic {
    /// Not initialized.
    fn raw() -> Self {
        let output = Arc::new(AtomicBool::new(false));
        let line = IrqLine::to_sink(Arc::new(Output(output.clone())), 0);
        let ended = Arc::new(Mutex::new(vec![]));
        let listener = ended.clone();
        let eoi: EoiListener = Arc::new(move |n| listener.lock().push(n));
        let pic = I8259::new(I8259Config { name: "pic".to_owned(), eoi: Some(eoi), log: Log::off() }, line);
        let ports = [pic.ports(Which::Master), pic.ports(Which::Slave)];
        Self { pic, ports, output, ended }
    }
    /// Vectors 0x20 and 0x28, all unmasked.
    fn new(icw4: u8) -> Self {
        let p = Self::raw();
        p.init(icw4);
        p
    }
    fn init(&self, icw4: u8) {
        for (n, vector, icw3) in [(0, 0x20, 4), (1, 0x28, 2)] {
            self.out(n, 0, 0x11);
            self.out(n, 1, vector);
            self.out(n, 1, icw3);
            self.out(n, 1, icw4);
            assert_eq!(self.read(n, 1), 0);
        }
    }
    fn out(&self, chip: usize, port: u64, value: u8) {
        self.ports[chip].write(port, value.into(), Access::cpu(0, 1)).unwrap();
    }
    fn read(&self, chip: usize, port: u64) -> u8 {
        self.ports[chip].read(port, Access::cpu(0, 1)).unwrap() as u8
    }
    fn isr(&self, chip: usize) -> u8 {
        self.out(chip, 0, 0x0b);
        let value = self.read(chip, 0);
        self.out(chip, 0, 0x0a);
        value
    }
    fn up(&self, n: u32) {
        self.pic.set_level(n, true);
    }
    fn down(&self, n: u32) {
        self.pic.set_level(n, false);
    }
    fn pulse(&self, n: u32) {
        self.up(n);
        self.down(n);
    }
    /// The vector, if the output is up.
    fn take(&self) -> Option<u8> {
        self.output.load(SeqCst).then(|| self.pic.acknowledge())
    }
}

#[test]
fn priorities_and_cascade() {
    let p = Pic::new(1);
    for n in [7, 12, 1, 8] {
        p.pulse(n);
    }
    assert_eq!((p.read(0, 0), p.read(1, 0)), (0x86, 0x11));
    assert_eq!(p.take(), Some(0x21));
    // The slave is below input 1.
    assert_eq!(p.take(), None);
    p.out(0, 0, 0x20);
    assert_eq!(p.take(), Some(0x28));
    assert_eq!((p.isr(0), p.isr(1)), (4, 1));
    p.pulse(0);
    assert_eq!(p.take(), Some(0x20));
    p.out(0, 0, 0x20);
    assert_eq!(p.take(), None);
    p.out(1, 0, 0x20);
    // 12 waits behind the cascade in service.
    assert_eq!(p.take(), None);
    p.out(0, 0, 0x62);
    assert_eq!(p.take(), Some(0x2c));
    p.out(1, 0, 0x64);
    p.out(0, 0, 0x62);
    assert_eq!(p.take(), Some(0x27));
    p.out(0, 0, 0x67);
    assert_eq!((p.take(), p.isr(0), p.isr(1)), (None, 0, 0));
    // The cascade and what is beyond are no inputs.
    p.up(2);
    p.up(16);
    assert_eq!(p.take(), None);
}

#[test]
fn masks() {
    let p = Pic::new(1);
    p.out(0, 1, 0xfb);
    p.out(1, 1, 0xbf);
    p.pulse(3);
    p.pulse(13);
    assert_eq!(p.take(), None);
    p.pulse(14);
    assert_eq!(p.take(), Some(0x2e));
    p.out(1, 0, 0x20);
    p.out(0, 0, 0x20);
    p.out(0, 1, 0xf7);
    assert_eq!((p.read(0, 1), p.take()), (0xf7, Some(0x23)));
}

#[test]
fn spurious() {
    let p = Pic::new(1);
    p.up(3);
    p.out(0, 1, 0xff);
    assert_eq!((p.take(), p.pic.acknowledge()), (None, 0x27));
    assert_eq!(p.isr(0), 0);
    p.out(0, 1, 0);
    assert_eq!(p.take(), Some(0x23));
    p.out(0, 0, 0x20);
    // A level at the slave that goes away again takes the master's request with it.
    p.pic.elcr().write(1, 0x06, Access::cpu(0, 1)).unwrap();
    p.up(9);
    assert!(p.output.load(SeqCst));
    p.down(9);
    assert_eq!((p.take(), p.pic.acknowledge()), (None, 0x27));
}

#[test]
fn levels_and_elcr() {
    let p = Pic::new(1);
    let elcr = p.pic.elcr();
    let set = |n, value: u64| elcr.write(n, value, Access::cpu(0, 1)).unwrap();
    set(0, 0xff);
    set(1, 0xff);
    assert_eq!((elcr.read(0, Access::cpu(0, 1)), elcr.read(1, Access::cpu(0, 1))), (Ok(0xf8), Ok(0xde)));
    p.up(5);
    assert_eq!(p.take(), Some(0x25));
    p.out(0, 0, 0x20);
    assert_eq!(*p.ended.lock(), [5]);
    assert_eq!(p.take(), Some(0x25));
    p.down(5);
    p.out(0, 0, 0x20);
    assert_eq!((p.take(), p.ended.lock().len()), (None, 2));
    p.up(11);
    assert_eq!(p.take(), Some(0x2b));
    p.down(11);
    p.out(1, 0, 0x20);
    p.out(0, 0, 0x20);
    assert_eq!((p.take(), p.ended.lock().clone()), (None, vec![5, 5, 11]));
    // The timer stays edge-triggered.
    p.up(0);
    assert_eq!(p.take(), Some(0x20));
    p.out(0, 0, 0x20);
    assert_eq!((p.take(), p.ended.lock().len()), (None, 3));
}

#[test]
fn rotation() {
    let p = Pic::new(1);
    // Rotate on non-specific EOI.
    p.pulse(3);
    assert_eq!(p.take(), Some(0x23));
    p.out(0, 0, 0xa0);
    p.pulse(3);
    p.pulse(4);
    p.pulse(0);
    assert_eq!(p.take(), Some(0x24));
    p.out(0, 0, 0xe4);
    assert_eq!(p.take(), Some(0x20));
    p.out(0, 0, 0x60);
    assert_eq!(p.take(), Some(0x23));
    p.out(0, 0, 0x20);
    // Set priority: 5 is the lowest.
    p.out(0, 0, 0xc5);
    p.pulse(5);
    p.pulse(6);
    p.pulse(1);
    assert_eq!(p.take(), Some(0x26));
    p.out(0, 0, 0x20);
    assert_eq!(p.take(), Some(0x21));
    p.out(0, 0, 0x20);
    assert_eq!(p.take(), Some(0x25));
    // OCW2 without meaning.
    p.out(0, 0, 0x47);
    assert_eq!(p.isr(0), 0x20);
}

#[test]
fn automatic_eoi() {
    let p = Pic::new(3);
    p.pulse(1);
    p.pulse(2 + 8);
    assert_eq!((p.take(), p.isr(0)), (Some(0x21), 0));
    assert_eq!((p.take(), p.isr(0), p.isr(1)), (Some(0x2a), 0, 0));
    p.pulse(11);
    p.pulse(12);
    assert_eq!((p.take(), p.take(), p.take()), (Some(0x2b), Some(0x2c), None));
    // Rotating.
    p.out(0, 0, 0x80);
    p.pulse(4);
    assert_eq!(p.take(), Some(0x24));
    p.pulse(4);
    p.pulse(5);
    assert_eq!(p.take(), Some(0x25));
    p.out(0, 0, 0);
    assert_eq!(p.take(), Some(0x24));
    p.pulse(4);
    p.pulse(5);
    assert_eq!(p.take(), Some(0x24));
}

#[test]
fn special_mask_mode() {
    let p = Pic::new(1);
    p.pulse(1);
    assert_eq!(p.take(), Some(0x21));
    p.pulse(5);
    assert_eq!(p.take(), None);
    p.out(0, 1, 2);
    p.out(0, 0, 0x68);
    assert_eq!(p.take(), Some(0x25));
    // A non-specific EOI passes over the masked one.
    p.out(0, 0, 0x20);
    assert_eq!(p.isr(0), 2);
    p.out(0, 0, 0x48);
    p.pulse(5);
    assert_eq!(p.take(), None);
    p.out(0, 0, 0x20);
    assert_eq!((p.isr(0), p.take()), (0, Some(0x25)));
}

#[test]
fn special_fully_nested_mode() {
    let p = Pic::new(0x11);
    p.pulse(12);
    assert_eq!(p.take(), Some(0x2c));
    p.pulse(9);
    p.pulse(3);
    assert_eq!(p.take(), Some(0x29));
    // Still below the cascade.
    assert_eq!(p.take(), None);
    p.out(1, 0, 0x20);
    p.out(1, 0, 0x20);
    p.out(0, 0, 0x20);
    assert_eq!(p.take(), Some(0x23));
}

#[test]
fn polled_mode() {
    let p = Pic::new(1);
    p.out(0, 0, 0x0c);
    assert_eq!(p.read(0, 0), 0);
    p.pulse(6);
    p.out(0, 0, 0x0c);
    assert_eq!(p.read(0, 0), 0x86);
    assert_eq!((p.isr(0), p.take()), (0x40, None));
    // Once only.
    assert_eq!(p.read(0, 0), 0);
    p.out(0, 0, 0x20);
    p.pulse(14);
    p.out(1, 0, 0x0c);
    assert_eq!(p.read(1, 1), 0x86);
    assert_eq!(p.take(), None);
}

#[test]
fn initialization() {
    let p = Pic::new(3);
    p.up(1);
    p.out(0, 1, 0xff);
    p.out(0, 0, 0x68);
    // ICW1 without ICW4: no automatic EOI; the input that is up needs a new edge.
    p.out(0, 0, 0x10);
    assert_eq!((p.read(0, 0), p.read(0, 1)), (0, 0));
    p.out(0, 1, 0x47);
    p.out(0, 1, 4);
    p.out(0, 1, 0x80);
    assert_eq!(p.read(0, 1), 0x80);
    p.down(1);
    p.up(1);
    assert_eq!((p.take(), p.isr(0)), (Some(0x41), 2));
    // Single, level-triggered.
    p.out(0, 0, 0x1b);
    p.out(0, 1, 0x50);
    p.out(0, 1, 1);
    assert_eq!((p.read(0, 1), p.take()), (0, Some(0x51)));
    assert_eq!(p.read(0, 0), 2);
    p.pic.reset();
    assert_eq!((p.read(0, 0), p.isr(0)), (0, 0));
    assert!(!p.output.load(SeqCst));
}

#[test]
fn saved_state() {
    let p = Pic::new(1);
    p.pulse(3);
    p.take();
    p.pulse(1);
    p.up(9);
    p.out(0, 0, 0xc6);
    let saved = p.pic.save();
    let other = Pic::raw();
    other.pic.load(&saved).unwrap();
    assert_eq!(other.pic.save(), saved);
    assert_eq!(other.isr(0), 8);
    other.out(0, 0, 0x20);
    assert_eq!(other.take(), Some(0x21));
    other.out(0, 0, 0x20);
    assert_eq!(other.take(), Some(0x29));
    assert!(other.pic.describe().contains("slave"));
    assert!(other.pic.load(&rhea_device::Saved::Nothing).is_err());
    // A level that is only taken over makes no edge.
    other.pic.import_level(4, true);
    other.out(0, 0, 0x20);
    assert_eq!(other.take(), None);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: RngSeed::Fixed(1), cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn random_accesses(steps in proptest::collection::vec((0u8..8, any::<u8>(), any::<bool>()), 0..300)) {
        let p = Pic::raw();
        let elcr = p.pic.elcr();
        for (what, value, flag) in steps {
            let port = u64::from(flag);
            match what {
                0 | 1 => p.out(what.into(), port, value),
                2 => { p.read(usize::from(value & 1), port); }
                3 => elcr.write(port, value.into(), Access::cpu(0, 1)).unwrap(),
                4 => { p.pic.acknowledge(); }
                5 => { p.take(); }
                6 if value == 0 => {
                    let saved = p.pic.save();
                    p.pic.load(&saved).unwrap();
                    prop_assert_eq!(p.pic.save(), saved);
                }
                _ => p.pic.set_level(u32::from(value) % 18, flag),
            }
            prop_assert_eq!(p.output.load(SeqCst), p.pic.pair.lock().settle());
        }
    }
}
