//! Stage 1 of address translation (DDI 0487 D8.2 to D8.5).

use super::{Bench, RAM, config, put};
use crate::bits::{pstate, sctlr};
use crate::config::Feature;
use crate::mmu::{Fault, FaultKind};
use crate::mode::mmu;
use crate::reg::Reg;
use rhea_ir::guest::{Access, Guest};

const TABLE: u64 = 0x10_0000;
const AF: u64 = 1 << 10;
const AP_RO: u64 = 1 << 7;
const AP_EL0: u64 = 1 << 6;
const UXN: u64 = 1 << 54;
const PXN: u64 = 1 << 53;
const DBM: u64 = 1 << 51;
const HA: u64 = 1 << 39;
const HD: u64 = 1 << 40;

/// TCR_EL1 with 48-bit output for TTBR0 alone.
fn tcr(granule: u32, input: u32) -> u64 {
    let tg0 = match granule {
        16 => 1,
        14 => 2,
        _ => 0,
    };
    u64::from(64 - input) | tg0 << 14 | 5 << 32 | 1 << 23 | 25 << 16
}
fn bench(granule: u32, input: u32) -> Bench {
    let mut b = Bench::new(config(1));
    b.stage1_on(tcr(granule, input), TABLE);
    b
}
fn fault<T>(kind: FaultKind, level: i32) -> Result<T, Fault> {
    Err(Fault::stage1(kind, level))
}
fn pa(r: Result<crate::mmu::Mapping, Fault>) -> Result<u64, Fault> {
    r.map(|m| m.pa)
}

#[test]
fn granules_levels_and_blocks() {
    for (granule, inputs) in [(12, [17, 30, 39, 48]), (14, [17, 36, 47, 48]), (16, [18, 29, 42, 48])] {
        for input in inputs {
            for level in 0..=3 {
                let bits = granule + (granule - 3) * (3 - level) as u32;
                if bits >= input {
                    continue;
                }
                let b = bench(granule, input);
                let va = (0x0000_5a5a_1234_5678u64 & ((1 << input) - 1)) | 1;
                let out = 0x0000_a5a5_0000_0000u64 >> bits << bits;
                let kind = if level == 3 { 3 } else { 1 };
                put(&b, TABLE, granule, input, va, level, out | AF | kind);
                let block = match granule {
                    12 => level >= 1,
                    14 => level >= 2,
                    // Of 4 TiB where physical addresses have 52 bits.
                    _ => level >= 1,
                };
                let r = b.read1(va);
                if block {
                    let m = r.unwrap();
                    assert_eq!((m.pa, m.size_log2), (out | va & ((1 << bits) - 1), bits), "{granule} {input} {level}");
                } else {
                    assert_eq!(
                        r.err(),
                        Some(Fault::stage1(FaultKind::Translation, level)),
                        "{granule} {input} {level}"
                    );
                }
            }
        }
    }
}

/// 52-bit addresses: with 64K pages, and with the DS format of 4K and 16K pages.
#[test]
fn wide_addresses() {
    let high = 0x000f_0000_0000_0000u64;
    // 64K: bits 51:48 of the output at 15:12 of the descriptor.
    let mut b = Bench::new(config(1));
    let wide = 6 << 32;
    b.stage1_on(tcr(16, 52) & !(7 << 32) | wide, TABLE);
    let va = 0x000a_0000_1234_5678;
    put(&b, TABLE, 16, 52, va, 3, 0x1234_5678_0000 | 0xf << 12 | AF | 3);
    assert_eq!(pa(b.read1(va)), Ok(high | 0x1234_5678_5678));
    put(&b, TABLE, 16, 52, va, 1, 0x5400_0000_0000 | 3 << 12 | AF | 1);
    let m = b.read1(va).unwrap();
    assert_eq!((m.pa >> 42, m.size_log2), (0x3_5400_0000_0000 >> 42, 42), "a block of 4 TiB");
    // 4K with DS: five levels, bits 51:50 at 9:8, a block at level 0.
    let ds = 1 << 59;
    b.stage1_on(tcr(12, 52) & !(7 << 32) | wide | ds, TABLE);
    let va = 0x000b_0000_1234_5678;
    put(&b, TABLE, 12, 52, va, 3, 0x0003_1234_5678_9000 | 3 << 8 | AF | 3);
    assert_eq!(
        pa(b.read1(va)),
        Ok(high & !(3 << 50) | 3 << 50 & high | 0x0003_1234_5678_9678 & !high | 0x000f_0000_0000_0000 & 3 << 48)
    );
    put(&b, TABLE, 12, 52, va, 0, 0x0002_0000_0000_0000 | 1 << 8 | AF | 1);
    let m = b.read1(va).unwrap();
    assert_eq!((m.pa >> 39, m.size_log2), (0x0006_0000_0000_0000 >> 39, 39));
    // The same size without DS, or without the feature, is none.
    b.stage1_on(tcr(12, 52) & !(7 << 32) | wide, TABLE);
    assert_eq!(pa(b.read1(va)), fault(FaultKind::Translation, 0));
    let mut c = config(1);
    c.set(Feature::Lpa2, false);
    let mut b = Bench::new(c);
    b.stage1_on(tcr(12, 52) & !(7 << 32) | wide | ds, TABLE);
    assert_eq!(pa(b.read1(va)), fault(FaultKind::Translation, 0));
}

/// AP, UXN, PXN, PAN, EPAN and WXN.
#[test]
fn permissions() {
    // AP[2:1] to what EL1 and EL0 may: read, write.
    let table = [(0, "rw", ""), (AP_EL0, "rw", "rw"), (AP_RO, "r", ""), (AP_RO | AP_EL0, "r", "r")];
    for (ap, el1, el0) in table {
        for xn in 0..4u64 {
            for (wxn, pan, epan) in
                [(false, false, false), (true, false, false), (false, true, false), (false, true, true)]
            {
                let mut b = bench(12, 39);
                let bits = if wxn { sctlr::WXN } else { 0 } | if epan { sctlr::EPAN } else { 0 };
                b[Reg::SctlrEl1] |= bits;
                put(&b, TABLE, 12, 39, 0x1000, 3, 0x5000 | AF | 3 | ap | xn << 53);
                let (pxn, uxn) = (xn & 1 != 0, xn & 2 != 0);
                let privileged = if pan { mmu::E10_1_PAN } else { mmu::E10_1 };
                let ok = |access, idx| b.translate(0x1000, access, idx).is_ok();
                let barred = pan && (!el0.is_empty() || epan && !uxn);
                let w = |s: &str| s.contains('w');
                assert_eq!(ok(Access::Read, privileged), !barred, "{ap:#x} {xn} {pan} {epan}");
                assert_eq!(ok(Access::Write, privileged), !barred && w(el1));
                // What EL0 may write is never executable at EL1.
                let execute1 = !pxn && !w(el0) && !(wxn && w(el1));
                assert_eq!(ok(Access::Fetch, privileged), execute1, "{ap:#x} {xn} {wxn}");
                assert_eq!(ok(Access::Read, mmu::E10_0), !el0.is_empty());
                assert_eq!(ok(Access::Write, mmu::E10_0), w(el0));
                assert_eq!(ok(Access::Fetch, mmu::E10_0), !uxn && !(wxn && w(el0)));
            }
        }
    }
}

/// APTable, UXNTable and PXNTable restrict what is below; HPD turns them off.
#[test]
fn hierarchical_permissions() {
    for (bits, accesses) in [
        (1u64 << 62, [true, false, true, false]),
        (1 << 61, [true, true, false, true]),
        (1 << 60, [true, true, true, true]),
        (1 << 59, [true, true, true, false]),
    ] {
        let mut b = bench(12, 39);
        put(&b, TABLE, 12, 39, 0x1000, 3, 0x5000 | AF | 3 | AP_EL0);
        b.poke(TABLE, b.peek(TABLE) | bits);
        let ok = |b: &Bench, access, idx| b.translate(0x1000, access, idx).is_ok();
        // Read-only for all; nothing for EL0; not executable at EL0 and at EL1.
        assert_eq!(ok(&b, Access::Write, mmu::E10_1), accesses[1]);
        assert_eq!(ok(&b, Access::Read, mmu::E10_0), accesses[2], "{bits:#x}");
        assert_eq!(ok(&b, Access::Fetch, mmu::E10_0), bits & (1 << 60 | 1 << 61) != 1 << 60);
        b[Reg::TcrEl1] |= 1 << 41;
        assert!(
            ok(&b, Access::Write, mmu::E10_1) && ok(&b, Access::Read, mmu::E10_0) && ok(&b, Access::Fetch, mmu::E10_0)
        );
    }
}

#[test]
fn access_flag_and_dirty_state() {
    let mut b = bench(12, 39);
    let at = put(&b, TABLE, 12, 39, 0x1000, 3, 0x5000 | 3 | AP_RO | DBM);
    assert_eq!(pa(b.read1(0x1000)), fault(FaultKind::AccessFlag, 3));
    b[Reg::TcrEl1] |= HA;
    assert!(!b.read1(0x1000).unwrap().write);
    assert_eq!(b.peek(at), 0x5000 | 3 | AP_RO | DBM | AF);
    assert_eq!(pa(b.translate(0x1000, Access::Write, mmu::E10_1)), fault(FaultKind::Permission, 3));
    b[Reg::TcrEl1] |= HD;
    // Clean: reads do not make it dirty, and the mapping must not let writes through.
    assert!(!b.read1(0x1000).unwrap().write);
    assert_ne!(b.peek(at) & AP_RO, 0);
    assert!(b.translate(0x1000, Access::Write, mmu::E10_1).unwrap().write);
    assert_eq!(b.peek(at), 0x5000 | 3 | DBM | AF);
    // Without DBM the page is read-only for good.
    b.poke(at, 0x5000 | 3 | AP_RO | AF);
    assert_eq!(pa(b.translate(0x1000, Access::Write, mmu::E10_1)), fault(FaultKind::Permission, 3));
    // A failed access sets no flag, nor does a debugger's.
    b.poke(at, 0x5000 | 3 | AP_RO);
    assert!(b.translate(0x1000, Access::Write, mmu::E10_1).is_err());
    assert!(b.walk_debug(0x1000).is_some());
    assert_eq!(b.peek(at) & AF, 0);
    // HD counts only with HA.
    b[Reg::TcrEl1] &= !HA;
    b.poke(at, 0x5000 | 3 | AP_RO | DBM | AF);
    assert_eq!(pa(b.translate(0x1000, Access::Write, mmu::E10_1)), fault(FaultKind::Permission, 3));
}

#[test]
fn ranges_tags_and_disabled_halves() {
    let mut b = bench(12, 39);
    put(&b, TABLE, 12, 39, 0x1000, 3, 0x5000 | AF | 3 | AP_EL0);
    let tagged = 0x5a00_0000_0000_1000;
    assert_eq!(pa(b.read1(1 << 39)), fault(FaultKind::Translation, 0));
    assert_eq!(pa(b.read1(tagged)), fault(FaultKind::Translation, 0));
    assert_eq!(pa(b.read1(!0 << 39)), fault(FaultKind::Translation, 0), "EPD1");
    b[Reg::TcrEl1] |= 1 << 37;
    assert_eq!(pa(b.read1(tagged | 8)), Ok(0x5008));
    assert_eq!(pa(b.read1(tagged | 1 << 55)), fault(FaultKind::Translation, 0));
    // TBID0: tags of instruction addresses count.
    assert!(b.translate(tagged, Access::Fetch, mmu::E10_0).is_ok());
    b[Reg::TcrEl1] |= 1 << 51;
    assert_eq!(pa(b.translate(tagged, Access::Fetch, mmu::E10_0)), fault(FaultKind::Translation, 0));
    assert!(b.translate(tagged, Access::Read, mmu::E10_0).is_ok());
    // E0PD0 takes the half away from EL0 only.
    b[Reg::TcrEl1] |= 1 << 55;
    assert_eq!(pa(b.translate(0x1000, Access::Read, mmu::E10_0)), fault(FaultKind::Translation, 0));
    assert!(b.read1(0x1000).is_ok());
    b[Reg::TcrEl1] |= 1 << 7;
    assert_eq!(pa(b.read1(0x1000)), fault(FaultKind::Translation, 0), "EPD0");
}

/// The upper half has controls and tables of its own.
#[test]
fn upper_half() {
    let mut b = bench(12, 39);
    let second = 0x80_0000;
    b[Reg::Ttbr1El1] = second;
    // T1SZ 16 with 64K pages.
    b[Reg::TcrEl1] = tcr(12, 39) & !(1 << 23 | 0x3f << 16) | 16 << 16 | 3 << 30;
    put(&b, second, 16, 48, 0xffff_0000_1234_5678, 3, 0xab_0000 | AF | 3 | 1 << 11);
    let m = b.read1(0xffff_0000_1234_5678).unwrap();
    assert_eq!((m.pa, m.size_log2, m.global), (0xab_5678, 16, false));
    assert_eq!(pa(b.read1(0xfffe_0000_1234_5678)), fault(FaultKind::Translation, 0));
}

#[test]
fn address_sizes_and_external_aborts() {
    let mut b = bench(12, 39);
    // IPS: 32 bits.
    b[Reg::TcrEl1] &= !(7 << 32);
    put(&b, TABLE, 12, 39, 0x1000, 3, 1 << 32 | AF | 3);
    assert_eq!(pa(b.read1(0x1000)), fault(FaultKind::AddressSize, 3));
    put(&b, TABLE, 12, 39, 0x4000_0000, 1, 1 << 40 | 3);
    assert_eq!(pa(b.read1(0x4000_0000)), fault(FaultKind::AddressSize, 1));
    put(&b, TABLE, 12, 39, 0x8000_0000, 1, RAM | 3);
    assert_eq!(pa(b.read1(0x8000_0000)), fault(FaultKind::ExternalWalk, 2));
    b[Reg::Ttbr0El1] = 1 << 33;
    assert_eq!(pa(b.read1(0x1000)), fault(FaultKind::AddressSize, 0));
    // Off: flat, but for addresses beyond the physical ones.
    b[Reg::SctlrEl1] &= !sctlr::M;
    assert_eq!(pa(b.read1(0x1234)), Ok(0x1234));
    assert_eq!(pa(b.read1(1 << 60)), fault(FaultKind::AddressSize, 0));
}

/// A change of the controls takes effect although they are kept decoded.
#[test]
fn controls_follow_registers() {
    let mut b = bench(12, 39);
    put(&b, TABLE, 12, 39, 0x1000, 3, 0x5000 | AF | 3);
    assert_eq!(pa(b.read1(0x1000)), Ok(0x5000));
    b[Reg::TcrEl1] |= 1 << 7;
    assert!(b.read1(0x1000).is_err());
    b[Reg::TcrEl1] &= !(1 << 7);
    b[Reg::Ttbr0El1] = TABLE + 0x20_0000;
    assert_eq!(pa(b.read1(0x1000)), fault(FaultKind::Translation, 1));
    b[Reg::Ttbr0El1] = TABLE;
    // Tables may be big-endian.
    b[Reg::SctlrEl1] |= sctlr::EE;
    assert!(b.read1(0x1000).is_err());
}

/// EL1 data aborts: syndrome, address, and the level that takes them.
#[test]
fn abort_syndromes() {
    let mut b = bench(12, 39);
    b[Reg::VbarEl1] = 0x800;
    put(&b, TABLE, 12, 39, 0x1000, 3, 0x5000 | AF | 3 | AP_RO | PXN | UXN);
    let mut raise = |from: u32, va: u64, access, idx| {
        b.at(from);
        b.header.pc = 0x4444;
        assert!(b.walk(va, access, idx).is_err());
        (b[Reg::EsrEl1], b[Reg::FarEl1], b[Reg::ElrEl1], b.header.pc, b.pstate)
    };
    let masked = pstate::DAIF | pstate::SP | 1 << 2;
    // Permission fault of a write at level 3 from EL1; translation faults of reads; instruction aborts.
    let (esr, far, elr, pc, p) = raise(1, 0x1008, Access::Write, mmu::E10_1);
    assert_eq!((esr, far, elr, pc), (0x25 << 26 | 1 << 25 | 1 << 6 | 0x0f, 0x1008, 0x4444, 0xa00));
    assert_eq!(p & !pstate::PAN, masked);
    let (esr, .., pc, _) = raise(0, 0x2008, Access::Read, mmu::E10_0);
    assert_eq!((esr, pc), (0x24 << 26 | 1 << 25 | 0x07, 0xc00));
    let (esr, ..) = raise(0, 0x1004, Access::Fetch, mmu::E10_0);
    assert_eq!(esr, 0x20 << 26 | 1 << 25 | 0x0f);
    let (esr, far, ..) = raise(1, 1 << 45, Access::Fetch, mmu::E10_1);
    assert_eq!((esr, far), (0x21 << 26 | 1 << 25 | 0x04, 1 << 45));
}
