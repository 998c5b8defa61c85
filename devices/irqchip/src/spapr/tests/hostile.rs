//! Whatever a guest calls and stores: no panic, and the machine still works afterwards.

use super::*;
use rhea_device::Device;

struct Random(u64);
impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0.rotate_left(31)
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    /// A value that is likely to mean something.
    fn value(&mut self) -> u64 {
        match self.next() % 8 {
            0 => self.next(),
            1 => u64::MAX,
            2 => 0x1200 + self.next() % 8,
            3 => 0x1300 + self.next() % 8,
            4 => self.next() % 0x20 * 0x1000,
            5 => [12, 16, 21, 24, 0xff, 8][self.next() as usize % 6],
            _ => self.next() % 10,
        }
    }
}

#[test]
fn anything_at_all() {
    for seed in 0..6 {
        let mut r = Random(seed + 1);
        let m = Machine::new(IcMode::Dual, &[0, 8]);
        let lines = [0, 1].map(|n| m.irq.claim(numbers::LSI + n, true).unwrap());
        let first = m.irq.allocate_messages(4, 4).unwrap();
        for _ in 0..6000 {
            let cpu = (r.next() % 2) as usize;
            match r.next() % 10 {
                0..3 => {
                    let mut args = [0; 9];
                    args.iter_mut().take(5).for_each(|a| *a = r.value());
                    let mut out = args;
                    let number = if r.below(2) == 0 { 0x64 + r.next() % 5 * 4 } else { 0x3a8 + r.next() % 11 * 4 };
                    let _ = m.irq.hcall(m.server(cpu), number, &args, &mut out);
                }
                3 => {
                    let names = m.irq.names();
                    let args = [r.value() as u32, r.value() as u32, r.value() as u32];
                    let name = names[r.next() as usize % names.len()];
                    let (n, k) = (r.next() as usize % 4, r.next() as usize % 4);
                    RtasCalls::rtas(&*m.irq, name, &args[..n], &mut [0; 3][..k]);
                }
                4 => m.message(first + (r.next() % 6) as u32),
                5 => lines[r.next() as usize % 2].set(r.below(2) == 0),
                6 => {
                    let at = XivePlaces::default().tima + r.next() % 0x4_0000;
                    let at =
                        if r.below(2) == 0 { XivePlaces::default().tima + 0x2_0000 + r.next() % 0xa00 } else { at };
                    let access = Access::cpu(r.next() as u32 % 4, 1 << (r.next() % 4));
                    let _ = m.space.load(Gpa(at), access);
                    let _ = m.space.store(Gpa(at), r.next(), access);
                }
                7 => {
                    let at = (r.value() << 16).wrapping_add(r.next() % 0x1000) % ((u64::from(TOTAL) + 72) << 17);
                    let at = Gpa(XivePlaces::default().esb + at);
                    let access = Access::cpu(cpu as u32, 1 << (r.next() % 4));
                    let _ = m.space.load(at, access);
                    let _ = m.space.store(at, r.next(), access);
                }
                8 if r.below(16) == 0 => {
                    let mode = if r.below(2) == 0 { Mode::Xics } else { Mode::Xive };
                    m.irq.activate(mode);
                }
                8 if r.below(16) == 0 => {
                    let state = m.irq.save();
                    m.irq.load(&state).unwrap();
                }
                _ => drop(m.irq.describe()),
            }
        }
        lines.iter().for_each(IrqLine::lower);
        m.irq.restart();
        m.start(0);
        m.enable(first, 0);
        m.message(first);
        assert_eq!(m.take(0), [first]);
    }
}

#[test]
fn damaged_state() {
    let m = Machine::new(IcMode::Dual, &[0, 8]);
    m.irq.activate(Mode::Xive);
    m.start(0);
    let saved = m.irq.save();
    let rhea_device::Saved::Bytes { version, data } = saved else { panic!("no state") };
    for n in 0..data.len() {
        for value in [0, 0xff, data[n] ^ 1] {
            let mut bad = data.clone();
            bad[n] = value;
            let _ = m.irq.load(&rhea_device::Saved::Bytes { version, data: bad });
            m.message(MSI);
            let _ = m.irq.describe();
        }
    }
}
