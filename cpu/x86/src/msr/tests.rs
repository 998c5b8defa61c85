use super::*;
use crate::models::parse;
use crate::pv;
use crate::tests::Bench;

fn bench(text: &str) -> Bench {
    Bench::with(parse(text).map(|p| p.config).unwrap_or_else(|e| panic!("{e}")))
}

#[test]
fn reserved_bits() {
    let mut b = bench("Skylake-Client,+pku");
    let bad: &[(u32, u64)] = &[
        (R::PAT, 0x0200_0000_0000_0000),
        (R::PAT, 8),
        (R::MTRR_DEF_TYPE, 0x1000),
        (R::MTRR_DEF_TYPE, 2),
        (R::MTRR_FIX64K, 7),
        (R::MTRR_PHYS_BASE0, 0x100),
        (R::MTRR_PHYS_BASE0 + 1, 1 << 10),
        (R::MTRR_PHYS_BASE0, 1 << 45),
        (R::MTRRCAP, 0),
        (R::XSS, 1),
        (R::TSC_AUX, 1 << 32),
        (R::LSTAR, 1 << 47),
        (R::FS_BASE, 0x8000_0000_0000_0000),
        (R::KERNEL_GS_BASE, 1 << 60),
        (R::EFER, 2),
        (R::FEATURE_CONTROL, 4),
        (R::MC0_CTL, 0xaaaa),
        (R::MC0_CTL + 1, 1),
        (R::MCG_STATUS, 8),
        (R::SPEC_CTRL, 1),
        (R::ARCH_CAPABILITIES, 0),
        (pv::reg::STEAL_TIME, 0x1003),
        (pv::reg::PV_EOI_EN, 2),
        (0x38f, 0),
        (0xc001_0010, 0),
        (0x1234_5678, 0),
    ];
    for &(msr, v) in bad {
        assert_eq!(b.write_msr(msr, v), Err(Exception::gp(0)), "{msr:#x} = {v:#x}");
    }
    for msr in [0x38f, 0xc1, 0x345, R::ARCH_CAPABILITIES, R::SPEC_CTRL, R::SYSCFG, 0x480, 0x600, 0x4b56_4dff] {
        assert_eq!(b.read_msr(msr), Err(Exception::gp(0)), "{msr:#x}");
    }
}
#[test]
fn stored() {
    let mut b = bench("EPYC-Rome");
    let good: &[(u32, u64)] = &[
        (R::PAT, 0x0001_0406_0507_0406),
        (R::MTRR_DEF_TYPE, 0xc06),
        (R::MTRR_FIX16K + 1, 0x0605_0401_0006_0606),
        (R::MTRR_FIX4K + 7, 0x0606_0606_0606_0606),
        (R::MTRR_PHYS_BASE0 + 6, 0xc000_0006),
        (R::MTRR_PHYS_BASE0 + 7, 0xff_c000_0800),
        (R::STAR, 0x0023_0010_0000_0000),
        (R::LSTAR, 0xffff_ffff_8100_0000),
        (R::SFMASK, 0x4_7700),
        (R::KERNEL_GS_BASE, 0xffff_8880_0000_0000),
        (R::SYSENTER_ESP, 0xffff_c900_0000_0000),
        (R::TSC_AUX, 3),
        (R::SYSCFG, 1 << 18),
        (R::MC0_CTL + 4, u64::MAX),
    ];
    for &(msr, v) in good {
        b.write_msr(msr, v).unwrap();
        assert_eq!(b.read_msr(msr), Ok(v), "{msr:#x}");
    }
    assert_eq!(b.read_msr(R::HWCR), Ok(1 << 24), "the TSC counts at a fixed frequency");
    let revision = b.read_msr(R::BIOS_SIGN_ID);
    b.write_msr(R::BIOS_SIGN_ID, 0).unwrap();
    assert_eq!(b.read_msr(R::BIOS_SIGN_ID), revision, "cleared before it is read, as Intel's is");
}
#[test]
fn time_stamp_counter() {
    let mut b = bench("max,tsc-frequency=1G".replace("1G", "3000000000").as_str());
    // The clock stands.
    b.clock.set_ns(1_000_000);
    assert_eq!(b.read_msr(R::TSC), Ok(3_000_000));
    b.write_msr(R::TSC_ADJUST, 5).unwrap();
    assert_eq!(b.read_msr(R::TSC), Ok(3_000_005));
    b.write_msr(R::TSC, 0).unwrap();
    assert_eq!(b.read_msr(R::TSC), Ok(0));
    assert_eq!(b.read_msr(R::TSC_ADJUST), Ok(5u64.wrapping_sub(3_000_005)));
    assert_eq!(b.tsc_to_ns(3_000), 1_001_000);
    b.write_msr(R::TSC_DEADLINE, 10).unwrap();
    assert_eq!(b.read_msr(R::TSC_DEADLINE), Ok(10));
    b.clock.set_ns(2_000_000);
    assert_eq!(b.read_msr(R::TSC_DEADLINE), Ok(0), "it has passed");
}
#[test]
fn paravirtual_clock() {
    let mut b = bench("max,tsc-frequency=2500000000");
    b.clock.set_ns(7_000);
    b.write_msr(pv::reg::SYSTEM_TIME, 0x5001).unwrap();
    let page = |b: &Bench| {
        (
            b.get(0x5000, 4),
            b.get(0x5008, 8),
            b.get(0x5010, 8),
            b.get(0x5018, 4),
            b.get(0x501c, 1) as i8,
            b.get(0x501d, 1),
        )
    };
    let (version, stamp, time, mul, shift, flags) = page(&b);
    assert!(version != 0 && version % 2 == 0);
    assert_eq!(flags, 1);
    let tsc = b.tsc();
    let ticks = tsc - stamp;
    let ticks = if shift < 0 { ticks >> -shift } else { ticks << shift };
    let now = time + (u128::from(ticks) * u128::from(mul) >> 32) as u64;
    assert!(now.abs_diff(7_000) <= 1, "{now}");
    b.write_msr(R::TSC, 0).unwrap();
    assert_ne!(page(&b).0, version, "the page follows the counter");
    b.write_msr(pv::reg::WALL_CLOCK, 0x6000).unwrap();
    assert!(b.get(0x6000, 4) == 2 && b.get(0x6004, 4) > 1_600_000_000);
    b.write_msr(pv::reg::SYSTEM_TIME, 0).unwrap();
    b.put(0x5000, 4, 99);
    b.write_msr(R::TSC, 0).unwrap();
    assert_eq!(b.get(0x5000, 4), 99, "off");
}
#[test]
fn hypercalls() {
    use crate::state::gpr::{RAX, RBX, RCX, RDX, RSI};
    let mut b = bench("max");
    let call = |b: &mut Bench, regs: [u64; 5]| {
        for (n, v) in [RAX, RBX, RCX, RDX, RSI].into_iter().zip(regs) {
            b.r[n as usize] = v;
        }
        b.hypercall();
        b.r[0]
    };
    // 16-bit code: results are 32 bits wide.
    assert_eq!(call(&mut b, [77, 0, 0, 0, 0]), u64::from((-1000i32) as u32));
    assert_eq!(call(&mut b, [pv::call::KICK_CPU, 0, 1, 0, 0]), 0);
    assert_eq!(call(&mut b, [pv::call::SEND_IPI, 1, 0, 0, 1 << 11]), u64::from((-22i32) as u32));
    assert_eq!(call(&mut b, [pv::call::SEND_IPI, 3, 0, 0, 0xfd]), 0, "no such processors");
    b.cpl = 3;
    assert_eq!(call(&mut b, [pv::call::KICK_CPU, 0, 1, 0, 0]), u64::from(u32::MAX));
}
