//! Whatever a guest does: no panic, and the interrupt output agrees with the registers.

use super::*;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rhea_accel::IrqSink;
use rhea_device::Device;

#[derive(Clone, Debug)]
enum Step {
    Window(u64, u64, u8, u8),
    Msr(u32, u64),
    Base(u64),
    IoApic(u64, u64, u8),
    Entry(u32, u64),
    Line(u32, bool),
    Lint(u32, bool),
    Msi(u64, u32),
    Take,
    Time(u16),
    Deadline(Option<u16>),
    Tpr(u8),
    Init,
    SaveAndLoad,
}

fn step() -> impl Strategy<Value = Step> {
    let small = prop_oneof![any::<u64>(), (0u64..0x1_0000), (0u64..256)];
    let size = prop_oneof![Just(1u8), Just(2), Just(4), Just(8)];
    prop_oneof![
        4 => (0u64..0x400, small.clone(), size.clone(), 0u8..4).prop_map(|(o, v, s, d)| Step::Window(o, v, s, d)),
        4 => (0u64..0x40, small.clone(), 0u8..1).prop_map(|(o, v, d)| Step::Window(o * 16, v, 4, d)),
        2 => (0x800u32..0x840, small.clone()).prop_map(|(m, v)| Step::Msr(m, v)),
        1 => prop_oneof![any::<u64>(), (0u64..16).prop_map(|m| 0xfee0_0000 | m << 8)].prop_map(Step::Base),
        2 => (0u64..0x50, small.clone(), size).prop_map(|(o, v, s)| Step::IoApic(o, v, s)),
        2 => (0u32..24, small).prop_map(|(p, e)| Step::Entry(p, e)),
        3 => (0u32..26, any::<bool>()).prop_map(|(p, l)| Step::Line(p, l)),
        1 => (0u32..2, any::<bool>()).prop_map(|(p, l)| Step::Lint(p, l)),
        2 => (0u64..0x10_0000, any::<u32>()).prop_map(|(a, d)| Step::Msi(0xfee0_0000 | a, d)),
        4 => Just(Step::Take),
        2 => any::<u16>().prop_map(Step::Time),
        1 => any::<Option<u16>>().prop_map(Step::Deadline),
        1 => (0u8..16).prop_map(Step::Tpr),
        1 => Just(Step::Init),
        1 => Just(Step::SaveAndLoad),
    ]
}

fn run(m: &Machine, cpu: u32, step: Step) {
    match step {
        Step::Window(offset, value, size, kind) => {
            let access = if kind == 3 { Access::device(1, size) } else { Access::cpu(cpu, size) };
            let _ = m.window.read(offset, access);
            let _ = m.window.write(offset, value, access);
        }
        Step::Msr(msr, value) => {
            let _ = m.bus.x2apic_read(cpu, msr);
            let _ = m.bus.x2apic_write(cpu, msr, value);
        }
        Step::Base(value) => {
            let _ = m.bus.set_apic_base(cpu, value);
        }
        Step::IoApic(offset, value, size) => {
            let _ = m.ioapic.read(offset, Access::cpu(cpu, size));
            let _ = m.ioapic.write(offset, value, Access::cpu(cpu, size));
        }
        Step::Entry(pin, value) => m.redirect(pin, value),
        Step::Line(pin, level) => m.ioapic.set_level(pin, level),
        Step::Lint(pin, level) => m.bus.lint(pin).set(level),
        Step::Msi(address, data) => m.msi(address, data),
        Step::Take => {
            let _ = m.bus.acknowledge(cpu);
        }
        Step::Time(ns) => m.clock.set_ns(m.clock.now_ns() + u64::from(ns)),
        Step::Deadline(at) => m.bus.set_tsc_deadline(cpu, at.map(u64::from)),
        Step::Tpr(class) => m.bus.set_tpr(cpu, class),
        Step::Init => m.bus.init(cpu),
        Step::SaveAndLoad => {
            let (bus, ioapic) = (m.bus.save(), m.ioapic.save());
            m.bus.load(&bus).unwrap();
            m.ioapic.load(&ioapic).unwrap();
            assert_eq!((m.bus.save(), m.ioapic.save()), (bus, ioapic));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: RngSeed::Fixed(1), cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn random_accesses(steps in proptest::collection::vec((0u32..3, step()), 0..120)) {
        let m = Machine::new(3);
        for (cpu, step) in steps {
            run(&m, cpu, step);
            for n in 0..3 {
                let lapic = &m.bus.lapics[n as usize];
                let vector = lapic.irr.highest().filter(|v| lapic.enabled() && v >> 4 > lapic.ppr() >> 4);
                let up = m.intr(n);
                prop_assert!(up || vector.is_none(), "CPU {n} misses {vector:?}");
                prop_assert!(lapic.irr.half(0) & 0xffff == 0, "a vector below 16");
            }
        }
        for n in 0..3 {
            let _ = m.bus.describe(n);
        }
        let _ = m.ioapic.describe();
        m.bus.reset();
        m.ioapic.reset();
        prop_assert!((0..3).all(|n| !m.intr(n)));
    }
}
