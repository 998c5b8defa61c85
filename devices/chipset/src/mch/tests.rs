use super::*;
use rhea_memory::{Access, Gpa, Requester};

struct Board {
    mch: Arc<Mch>,
    system: Arc<AddressSpace>,
    smram: Arc<AddressSpace>,
    _keep: Vec<rhea_memory::Mapping>,
}

const LOW: u64 = 32 << 20;

fn board() -> Board {
    let (system, smram) = (AddressSpace::new("system"), AddressSpace::new("smram"));
    let bus = PciBus::new("pcie.0", system.clone(), [0; 4].map(|_| rhea_accel::IrqLine::unconnected()), None);
    let ram = RamBlock::anonymous("ram", LOW).unwrap();
    let rom = RamBlock::anonymous("rom", 0x2_0000).unwrap();
    rom.fill(0, 0x2_0000, 0xf0).unwrap();
    let mut keep = vec![
        system.map_ram(Gpa(0), &ram, 0, LEGACY_SMRAM, 0).unwrap(),
        system.map_ram(Gpa(1 << 20), &ram, 1 << 20, LOW - (1 << 20), 0).unwrap(),
        system.map_alias(Gpa(0), bus.memory(), Gpa(0), 1 << 32, -1).unwrap(),
        bus.memory().map_rom(Gpa(0xe_0000), &rom, 0, 0x2_0000, 0).unwrap(),
    ];
    keep.push(smram.map_alias(Gpa(0), &system, Gpa(0), 1 << 32, 0).unwrap());
    let mch = Mch::new(MchWiring {
        bus,
        system: system.clone(),
        smram: smram.clone(),
        ram,
        low_ram: LOW,
        extended_tseg: 16,
        smm: true,
        log: Log::off(),
    });
    Board { mch, system, smram, _keep: keep }
}

fn get(space: &AddressSpace, at: u64) -> Option<u8> {
    space.load(Gpa(at), Access::cpu(0, 1)).ok().map(|v| v as u8)
}
fn put(space: &AddressSpace, at: u64, value: u8) {
    let _ = space.store(Gpa(at), value.into(), Access::cpu(0, 1));
}

#[test]
fn pam_combinations() {
    let b = board();
    let at = 0xf_0123;
    assert_eq!(get(&b.system, at), Some(0xf0));
    // Writes to RAM, reads from ROM: memory, so that code there runs on.
    b.mch.config_write(PAM0, 1, 0x20);
    put(&b.system, at, 1);
    assert_eq!(get(&b.system, at), Some(0xf0));
    assert!(b.system.host_slice_readable(Gpa(at), 1).is_some());
    b.mch.config_write(PAM0, 1, 0x10);
    assert_eq!(get(&b.system, at), Some(1));
    put(&b.system, at, 2);
    assert_eq!(get(&b.system, at), Some(1), "read-only");
    b.mch.config_write(PAM0, 1, 0x30);
    put(&b.system, at, 3);
    assert_eq!(get(&b.system, at), Some(3));
    b.mch.config_write(PAM0, 1, 0);
    assert_eq!(get(&b.system, at), Some(0xf0));
    // A segment of 16 KiB and its neighbour, with nothing behind them.
    assert_eq!(get(&b.system, 0xc_4000), None);
    b.mch.config_write(PAM0 + 1, 1, 0x30);
    put(&b.system, 0xc_4000, 9);
    assert_eq!((get(&b.system, 0xc_3fff), get(&b.system, 0xc_4000), get(&b.system, 0xc_8000)), (None, Some(9), None));
    b.mch.config_write(PAM0 + 1, 1, 0x20);
    assert_eq!(get(&b.system, 0xc_4000), Some(0xff));
}

#[test]
fn smram_opens_closes_and_locks() {
    let b = board();
    let at = 0xa_8000;
    assert_eq!((get(&b.system, at), get(&b.smram, at)), (None, None));
    b.mch.config_write(SMRAM, 1, 0x4a);
    put(&b.system, at, 0x55);
    b.mch.config_write(SMRAM, 1, 0x0a);
    assert_eq!((get(&b.system, at), get(&b.smram, at)), (None, Some(0x55)));
    // A secure access to the system space reaches it where the sides are joined.
    b.system.set_secure_side(&b.smram);
    let secure = Access { size: 1, requester: Requester::Cpu(0), secure: true };
    assert_eq!(b.system.load(Gpa(at), secure), Ok(0x55));
    b.mch.config_write(SMRAM, 1, 0x5a);
    assert_eq!(get(&b.system, at), None, "locking closes");
    b.mch.config_write(SMRAM, 1, 0x40);
    assert_eq!(b.mch.config_read(SMRAM, 1), 0x1a);
    b.mch.config_write(ESMRAMC, 1, 0x81);
    assert_eq!(b.mch.config_read(ESMRAMC, 1), 0x38, "locked too");
    b.mch.reset();
    assert_eq!(b.mch.config_read(SMRAM, 1), 2);
    assert_eq!(get(&b.smram, at), None);
}

#[test]
fn tseg() {
    let b = board();
    let top = LOW - (2 << 20);
    put(&b.system, top, 7);
    b.mch.config_write(ESMRAMC, 1, 0x38 | 1 << 1 | 1);
    assert_eq!(get(&b.system, top), Some(7), "G_SMRAME is clear");
    b.mch.config_write(SMRAM, 1, 0x0a);
    assert_eq!((get(&b.system, top), get(&b.system, top - 1), get(&b.smram, top)), (Some(0xff), Some(0), Some(7)));
    // Opened again it is RAM like any other.
    b.mch.config_write(ESMRAMC, 1, 0x38 | 1 << 1);
    assert_eq!(get(&b.system, top), Some(7));
    b.mch.config_write(ESMRAMC, 1, 0x38 | 1 << 1 | 1);
    // Firmware finds the base it has noted.
    b.mch.config_write(0xac, 4, 0x1f0_0000);
    assert_eq!(b.mch.config_read(0xac, 4), 0x1f0_0000);
    // The extended size is asked for by writing ones.
    assert_eq!(b.mch.config_read(EXT_TSEG, 2), 0);
    b.mch.config_write(EXT_TSEG, 2, 0xffff);
    assert_eq!(b.mch.config_read(EXT_TSEG, 2), 16);
    b.mch.config_write(ESMRAMC, 1, 0x38 | 3 << 1 | 1);
    assert_eq!((get(&b.system, LOW - (16 << 20)), get(&b.smram, top)), (Some(0xff), Some(7)));
}

#[test]
fn ecam_moves() {
    let b = board();
    let at = |base: u64| b.system.load(Gpa(base), Access::cpu(0, 4)).ok();
    assert_eq!(at(ECAM_BASE), None);
    b.mch.wiring.bus.attach(b.mch.clone()).unwrap();
    b.mch.open_ecam();
    assert_eq!(at(ECAM_BASE), Some(0x29c0_8086));
    b.mch.config_write(PCIEXBAR, 4, 0xe400_0005);
    assert_eq!((at(ECAM_BASE), at(0xe400_0000), at(0xe400_0000 + (64 << 20))), (None, Some(0x29c0_8086), None));
    let saved = b.mch.save();
    b.mch.reset();
    assert_eq!(at(0xe400_0000), None);
    b.mch.load(&saved).unwrap();
    assert_eq!(at(0xe400_0000), Some(0x29c0_8086));
}

#[test]
fn wakes_with_shadowed_ram() {
    let b = board();
    let at = 0xf_0123;
    b.mch.config_write(PAM0, 1, 0x30);
    put(&b.system, at, 3);
    b.mch.open_ecam();
    b.mch.config_write(SMRAM, 1, (smram::ENABLE | smram::LOCK).into());
    // Write-protected: that ends with it.
    b.mch.config_write(PAM0, 1, 0x10);
    b.mch.config_write(PAM0 + 6, 1, 0x01);
    b.mch.wake();
    assert_eq!(get(&b.system, at), Some(3));
    put(&b.system, at, 4);
    assert_eq!(get(&b.system, at), Some(4));
    assert_eq!((b.mch.byte(PAM0), b.mch.byte(PAM0 + 1), b.mch.byte(PAM0 + 6)), (0x30, 0, 0x03));
    assert!(b.mch.ecam_window().is_some());
    assert_eq!(b.mch.byte(SMRAM), smram::BASE_SEGMENT);
    // As SeaBIOS sets the window up again, through itself.
    for (register, value) in [(PCIEXBAR, 0), (PCIEXBAR + 4, 0), (PCIEXBAR, ECAM_BASE as u32 | 1)] {
        b.mch.config_write(register, 4, value);
        assert_eq!(b.mch.ecam_window(), Some((ECAM_BASE, 256 << 20)));
    }
    let saved = b.mch.save();
    Device::reset(&*b.mch);
    b.mch.load(&saved).unwrap();
    b.mch.config_write(PCIEXBAR, 4, 0);
    assert!(b.mch.ecam_window().is_some());
    Device::reset(&*b.mch);
    b.mch.open_ecam();
    b.mch.config_write(PCIEXBAR, 4, 0);
    assert_eq!(b.mch.ecam_window(), None);
    Device::reset(&*b.mch);
    assert_eq!(get(&b.system, at), Some(0xf0));
}
