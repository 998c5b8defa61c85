//! Stage 2 of address translation and its faults (DDI 0487 D8.2, D8.4, D24.2 "ESR_EL2").

use super::{Bench, config, put};
use crate::bits::hcr;
use crate::config::Feature;
use crate::mmu::{AtOp, Fault, FaultKind};
use crate::mode::mmu;
use crate::reg::Reg;
use crate::syndrome::iss;
use rhea_ir::guest::{Access, Guest};

const S2: u64 = 0x20_0000;
const S1: u64 = 0x50_0000;
const AF: u64 = 1 << 10;
/// Normal write-back memory, readable and writable.
const RW: u64 = AF | 3 << 6 | 0xf << 2;
const EC: u64 = 0x24 << 26 | 1 << 25;

/// 39-bit intermediate addresses with 4K pages, first level 1; no stage 1.
fn bench() -> Bench {
    let mut b = Bench::new(config(2));
    b[Reg::VtcrEl2] = 25 | 1 << 6 | 5 << 16 | 1 << 31;
    b[Reg::VttbrEl2] = S2 | 7 << 48;
    b[Reg::HcrEl2] = hcr::VM | hcr::RW | hcr::API | hcr::APK;
    b.at(1);
    b
}
fn s2fault<T>(kind: FaultKind, level: i32, ipa: u64, s1ptw: bool) -> Result<T, Fault> {
    Err(Fault::stage2(kind, level, ipa, s1ptw))
}
fn raises(b: &mut Bench, va: u64, access: Access, idx: u32) -> (u64, u64, u64) {
    assert!(b.walk(va, access, idx).is_err());
    assert_eq!(b.el(), 2);
    (b[Reg::EsrEl2], b[Reg::FarEl2], b[Reg::HpfarEl2])
}

#[test]
fn maps_and_permissions() {
    let b = bench();
    put(&b, S2, 12, 39, 0x8000_1000, 3, 0x5000 | RW | 3);
    put(&b, S2, 12, 39, 0x9000_0000, 2, 0x60_0000 | RW | 1);
    let m = b.read1(0x8000_1234).unwrap();
    assert_eq!((m.pa, m.read, m.write, m.execute, m.global, m.size_log2), (0x5234, true, true, true, false, 12));
    assert_eq!(b.read1(0x9012_3456).unwrap().pa, 0x72_3456);
    assert_eq!(b.read1(0x8000_2000).map(|m| m.pa), s2fault(FaultKind::Translation, 3, 0x8000_2000, false));
    assert_eq!(b.read1(1 << 39).map(|m| m.pa), s2fault(FaultKind::Translation, 0, 1 << 39, false));
    // S2AP: none, read, write, both. XN[1:0]: EL1 and EL0 may, EL0 may, none, EL1 may.
    for s2ap in 0..4u64 {
        for xn in 0..4u64 {
            put(&b, S2, 12, 39, 0x8000_1000, 3, 0x5000 | AF | s2ap << 6 | 0xf << 2 | xn << 53 | 3);
            let ok = |access, idx| b.translate(0x8000_1000, access, idx).is_ok();
            for idx in [mmu::E10_0, mmu::E10_1] {
                assert_eq!(ok(Access::Read, idx), s2ap & 1 != 0);
                assert_eq!(ok(Access::Write, idx), s2ap & 2 != 0);
            }
            assert_eq!(ok(Access::Fetch, mmu::E10_1), xn == 0 || xn == 3);
            assert_eq!(ok(Access::Fetch, mmu::E10_0), xn < 2);
        }
    }
    // Without FEAT_XNX XN[1] speaks for both.
    let mut c = config(2);
    c.set(Feature::Xnx, false);
    let mut b = Bench::new(c);
    b[Reg::VtcrEl2] = 25 | 1 << 6 | 5 << 16;
    b[Reg::VttbrEl2] = S2;
    b[Reg::HcrEl2] = hcr::VM | hcr::RW;
    put(&b, S2, 12, 39, 0x1000, 3, 0x5000 | RW | 3 | 1 << 53);
    assert!(b.translate(0x1000, Access::Fetch, mmu::E10_1).is_ok());
}

/// 40 bits from level 1: two tables side by side. 43 bits: sixteen, the most there can be.
#[test]
fn concatenated_tables() {
    for (input, ipa) in [(40u32, 0x80_8000_1000u64), (43, 0x5c0_8000_1000)] {
        let mut b = bench();
        b[Reg::VtcrEl2] = u64::from(64 - input) | 1 << 6 | 5 << 16;
        let base = 0x40_0000;
        b[Reg::VttbrEl2] = base;
        // The index at level 1 counts through all the tables.
        b.poke(base + 8 * (ipa >> 30), 0x30_0000 | 3);
        b.poke(0x30_0000 + 8 * (ipa >> 21 & 511), 0x31_0000 | 3);
        b.poke(0x31_0000 + 8 * (ipa >> 12 & 511), 0x7000 | RW | 3);
        assert_eq!(b.read1(ipa + 5).unwrap().pa, 0x7005);
    }
    // 44 bits need a level 0, and level 2 alone holds no more than 34 bits.
    for vtcr in [20 | 1 << 6, 25] {
        let mut b = bench();
        b[Reg::VtcrEl2] = vtcr | 5 << 16;
        assert_eq!(b.read1(0x1000).map(|m| m.pa), s2fault(FaultKind::Translation, 0, 0x1000, false));
    }
}

/// A fault of the access itself: FAR has the virtual, HPFAR the intermediate address, the syndrome describes the instruction.
#[test]
fn fault_syndromes() {
    let mut b = bench();
    put(&b, S2, 12, 39, 0x4000_0000, 3, 0x6000 | RW | 3);
    put(&b, S2, 12, 39, 0x8000_1000, 3, 0x5000 | RW & !(2 << 6) | 3);
    let mut run = |insn: u32, va: u64, access, idx| {
        b.at(if idx == mmu::E10_0 { 0 } else { 1 });
        b.header.pc = 0x4000_0010;
        b.poke(0x6010, insn.into());
        raises(&mut b, va, access, idx)
    };
    // str x7, [x1]: a write to a read-only page, level 3.
    let isv = iss::ISV | 3 << 22 | 7 << 16 | 1 << 15;
    let r = run(0xf900_0027, 0x8000_1238, Access::Write, mmu::E10_1);
    assert_eq!(r, (EC | isv | iss::WNR | 0x0f, 0x8000_1238, 0x8000_1000 >> 8));
    // ldrsh w3, [x2] at EL0 of what is not there.
    let isv = iss::ISV | 1 << 22 | 1 << 21 | 3 << 16;
    let r = run(0x79c0_0043, 0x8_8000_2230, Access::Read, mmu::E10_0);
    assert_eq!(r, (EC | isv | 0x05, 0x8_8000_2230, 0x8_8000_2000 >> 8));
    // ldp x0, x1, [x2] has no instruction syndrome; nor has a fetch.
    assert_eq!(run(0xa940_0440, 0x8000_2230, Access::Read, mmu::E10_1).0, EC | 0x07);
    assert_eq!(run(0, 0x8000_2230, Access::Fetch, mmu::E10_1).0, 0x20 << 26 | 1 << 25 | 0x07);
}

/// Stage 1 under stage 2: table addresses are intermediate ones, and faults on them say so.
#[test]
fn nested_walks() {
    let mut b = bench();
    // Stage 1 tables at the intermediate address 0x1_0000_0000, which stage 2 puts at S1 (2 MiB aligned up).
    let ipa = 0x1_0000_0000u64;
    let real = S1 & !0x1f_ffff;
    put(&b, S2, 12, 39, ipa, 2, real | RW | 1);
    put(&b, S2, 12, 39, 0x8020_0000, 3, 0x9000 | RW | 3);
    let (l1, l2, l3) = (real, real + 0x1000, real + 0x2000);
    b.poke(l1, ipa + 0x1000 | 3);
    b.poke(l2, ipa + 0x2000 | 3);
    b.poke(l3 + 8, 0x8020_0000 | AF | 3);
    // Level 2 entry 1 leads to a table that stage 2 does not map.
    b.poke(l2 + 8, 0x2_0000_0000 | 3);
    b.stage1_on(25 | 1 << 23 | 25 << 16 | 5 << 32 | 1 << 39, ipa);
    assert_eq!(b.read1(0x1123).unwrap().pa, 0x9123);
    assert_eq!(b.read1(0x20_3123).map(|m| m.pa), s2fault(FaultKind::Translation, 1, 0x2_0000_0018, true));
    b.header.pc = 0x1000;
    let (esr, far, hpfar) = raises(&mut b, 0x20_3123, Access::Write, mmu::E10_1);
    assert_eq!((esr, far, hpfar), (EC | iss::WNR | iss::S1PTW | 0x05, 0x20_3123, 0x2_0000_0000 >> 8));
    // Hardware update of a stage 1 descriptor needs write permission of stage 2.
    b.at(1);
    b.poke(l3 + 16, 0x8020_0000 | 3);
    put(&b, S2, 12, 39, ipa, 2, real | RW & !(2 << 6) | 1);
    assert_eq!(b.read1(0x2000).map(|m| m.pa), s2fault(FaultKind::Permission, 2, ipa + 0x2010, true));
    put(&b, S2, 12, 39, ipa, 2, real | RW | 1);
    assert!(b.read1(0x2000).is_ok());
    assert_eq!(b.peek(l3 + 16), 0x8020_0000 | AF | 3);
    // PTW: tables in Device memory are refused.
    b[Reg::HcrEl2] |= hcr::PTW;
    put(&b, S2, 12, 39, ipa, 2, real | RW & !(0xf << 2) | 1);
    assert!(matches!(b.read1(0x1123), Err(Fault { kind: FaultKind::Permission, s1ptw: true, stage2: true, .. })));
}

/// AT S1E1R under stage 2 answers an intermediate address, found through stage 2.
#[test]
fn address_translation_instructions() {
    let mut b = bench();
    let (ipa, real) = (0x1_0000_0000u64, 0x40_0000);
    put(&b, S2, 12, 39, ipa, 2, real | RW | 1);
    b.poke(real, ipa + 0x1000 | 3);
    b.poke(real + 0x1000, ipa + 0x2000 | 3);
    b.poke(real + 0x2008, 0x8020_0000 | AF | 3);
    b.poke(real + 0x1008, 0x2_0000_0000 | 3);
    b.stage1_on(25 | 1 << 23 | 25 << 16 | 5 << 32, ipa);
    let s1e1r = AtOp { el: 1, write: false, both: false, pan: false };
    let s12e1r = AtOp { both: true, ..s1e1r };
    b.at(2);
    b.address_translate(0x1123, s1e1r);
    assert_eq!(b[Reg::ParEl1] & 0x000f_ffff_ffff_f001, 0x8020_0000);
    // Both stages: the second fails, at level 2 of stage 2.
    b.address_translate(0x1123, s12e1r);
    assert_eq!(b[Reg::ParEl1], 1 | 1 << 11 | 1 << 9 | 0x05 << 1);
    put(&b, S2, 12, 39, 0x8020_0000, 3, 0x9000 | RW | 3);
    b.address_translate(0x1123, s12e1r);
    assert_eq!(b[Reg::ParEl1] & 0x000f_ffff_ffff_f001, 0x9000);
    // A stage 2 fault on a stage 1 table: in PAR for EL2, an exception for EL1.
    b.address_translate(0x20_0000, s1e1r);
    assert_eq!(b[Reg::ParEl1], 1 | 1 << 11 | 1 << 9 | 1 << 8 | 0x05 << 1);
    assert_eq!(b.header.raised, 0);
    b.at(1);
    b.address_translate(0x20_0000, s1e1r);
    assert_eq!((b.el(), b.header.raised), (2, 1));
    assert_eq!(b[Reg::EsrEl2], EC | iss::CM | iss::WNR | iss::S1PTW | 0x05);
    assert_eq!((b[Reg::HpfarEl2], b[Reg::FarEl2]), (0x2_0000_0000 >> 8, 0x20_0000));
}

#[test]
fn access_flag_and_dirty_state() {
    let mut b = bench();
    let at = put(&b, S2, 12, 39, 0x1000, 3, 0x5000 | RW & !(AF | 2 << 6) | 1 << 51 | 3);
    assert_eq!(b.read1(0x1000).map(|m| m.pa), s2fault(FaultKind::AccessFlag, 3, 0x1000, false));
    b[Reg::VtcrEl2] |= 1 << 21;
    assert!(!b.read1(0x1000).unwrap().write);
    assert_ne!(b.peek(at) & AF, 0);
    assert!(b.translate(0x1000, Access::Write, mmu::E10_1).is_err());
    b[Reg::VtcrEl2] |= 1 << 22;
    assert!(!b.read1(0x1000).unwrap().write);
    assert!(b.translate(0x1000, Access::Write, mmu::E10_1).unwrap().write);
    assert_ne!(b.peek(at) & 2 << 6, 0);
}

/// Memory types: the stronger of both stages, and Device memory of stage 2 stays that.
#[test]
fn combined_attributes() {
    for (memattr, device) in [(0u64, true), (1, true), (0xf, false), (5, false)] {
        let mut b = bench();
        b.stage1_on(25 | 1 << 23 | 25 << 16 | 5 << 32, 0x40_0000);
        put(&b, S2, 12, 39, 0x40_0000, 2, 0x40_0000 | RW | 1);
        put(&b, S2, 12, 39, 0x8000_0000, 3, 0x9000 | AF | 3 << 6 | memattr << 2 | 3);
        put(&b, 0x40_0000, 12, 39, 0x1000, 3, 0x8000_0000 | AF | 3);
        assert_eq!(b.read1(0x1000).unwrap().device(), device, "{memattr:#x}");
    }
    // HCR_EL2.DC: normal memory without stage 1.
    let mut b = Bench::new(config(2));
    assert!(b.read1(0x1000).unwrap().device());
    b[Reg::HcrEl2] |= hcr::DC;
    assert!(!b.read1(0x1000).unwrap().device());
}
