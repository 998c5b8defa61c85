use super::*;
use rhea_accel::IrqLine;
use rhea_memory::{AddressSpace, Gpa};

fn controller() -> (Arc<SmBus>, Arc<PciBus>) {
    let system = AddressSpace::new("system");
    let bus = PciBus::new("pcie.0", system, [0; 4].map(|_| IrqLine::unconnected()), None);
    let smbus = SmBus::new(&bus, vec![Eeprom::module(0, 1 << 30)], Log::off());
    smbus.config_write(0x20, 4, 0x700);
    smbus.config_write(4, 2, 1);
    smbus.config_write(HOSTC, 1, 1);
    (smbus, bus)
}

#[test]
fn reads_a_module() {
    let (_smbus, bus) = controller();
    let out = |at: u64, v: u64| bus.io().store(Gpa(0x700 + at), v, Access::cpu(0, 1)).unwrap();
    let inp = |at: u64| bus.io().load(Gpa(0x700 + at), Access::cpu(0, 1)).unwrap();
    let byte = |n: u64| {
        out(0, 0xff);
        out(4, 0xa1);
        out(3, n);
        out(2, 0x48);
        assert_eq!(inp(0) & 0x3e, 2);
        inp(5)
    };
    assert_eq!((byte(2), byte(31)), (8, 1));
    let sum = (0..63).fold(0u8, |s, n| s.wrapping_add(byte(n) as u8));
    assert_eq!(byte(63), u64::from(sum));
    // A block.
    out(0xd, 2);
    out(3, 0);
    out(2, 0x54);
    assert_eq!(inp(5), 32);
    inp(2);
    assert_eq!([inp(7), inp(7), inp(7)], [128, 8, 8]);
    // Nobody at the next address.
    out(0, 0xff);
    out(4, 0xa3);
    out(2, 0x48);
    assert_eq!(inp(0) & 0x3e, 4);
}
