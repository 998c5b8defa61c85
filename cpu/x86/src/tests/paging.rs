use super::*;
use crate::exception::{Exception, Vector};
use crate::mode::mmu::{SUPERVISOR, SUPERVISOR_SMAP, USER};
use rhea_ir::guest::Access::{self, Fetch, Read, Write};

const PT: u64 = PML4 + 0x3000;
const NX: u64 = 1 << 63;
/// Where the page under test is.
const VA: u64 = 0x20_1000;
const PAGE: u64 = 0x5_5000;

/// `VA` is mapped by a page-table entry `entry`, and the upper entries let everything through.
fn page(entry: u64) -> Bench {
    let mut b = Bench::long(0);
    b.put(PML4 + 0x2000 + 8, 8, PT | 7);
    b.put(PT + 8, 8, entry);
    b
}
fn try_(b: &mut Bench, access: Access, idx: u32) -> Result<u64, u32> {
    match b.translate(VA + 0x123, Some(access), idx) {
        Ok(m) => Ok(m.pa),
        Err(e) => {
            assert_eq!((e.vector, e.cr2), (Vector::PageFault, VA + 0x123));
            Err(e.code.unwrap())
        }
    }
}

#[test]
fn permissions() {
    // entry bits, CR0.WP, CR4 bits; for each of supervisor, supervisor under SMAP and user: read, write, fetch; error codes
    // or 0xff for success.
    const OK: u32 = 0xff;
    let smep = cr4::SMEP;
    let smap = cr4::SMAP;
    let table: &[(u64, bool, u64, [[u32; 3]; 3])] = &[
        (0, true, 0, [[0, 2, 16], [0, 2, 16], [4, 6, 20]]),
        (1, true, 0, [[OK, 3, OK], [OK, 3, OK], [5, 7, 21]]),
        (1, false, 0, [[OK, OK, OK], [OK, OK, OK], [5, 7, 21]]),
        (3, true, 0, [[OK, OK, OK], [OK, OK, OK], [5, 7, 21]]),
        (5, true, 0, [[OK, 3, OK], [1, 3, OK], [OK, 7, OK]]),
        (5, false, smap, [[OK, OK, OK], [1, 3, OK], [OK, 7, OK]]),
        (7, true, smep | smap, [[OK, OK, 17], [1, 3, 17], [OK, OK, OK]]),
        (7 | NX, true, 0, [[OK, OK, 17], [1, 3, 17], [OK, OK, 21]]),
        (3 | NX, true, 0, [[OK, OK, 17], [OK, OK, 17], [5, 7, 21]]),
        // Reserved: an address bit above MAXPHYADDR.
        (7 | 1 << 50, true, 0, [[9, 11, 25], [9, 11, 25], [13, 15, 29]]),
    ];
    for (n, &(bits, wp, c4, expected)) in table.iter().enumerate() {
        for (who, idx) in [SUPERVISOR, SUPERVISOR_SMAP, USER].into_iter().enumerate() {
            for (what, access) in [Read, Write, Fetch].into_iter().enumerate() {
                let mut b = page(PAGE | bits);
                b.cr4 |= c4;
                if !wp {
                    b.cr0 &= !cr0::WP;
                }
                let e = expected[who][what];
                let want = if e == OK { Ok(PAGE + 0x123) } else { Err(e) };
                assert_eq!(try_(&mut b, access, idx), want, "row {n}, index {idx}, {access:?}");
                let flags = b.get(PT + 8, 8) & 0x60;
                let set = match (want, access) {
                    (Ok(_), Write) => 0x60,
                    (Ok(_), _) => 0x20,
                    _ => 0,
                };
                assert_eq!(flags, set, "accessed and dirty of row {n}, index {idx}, {access:?}");
            }
        }
    }
}

#[test]
fn rights_of_upper_entries_count() {
    for (clear, codes) in [(2, (0xff, 7)), (4, (5, 7))] {
        for table in [PML4, PML4 + 0x1000, PML4 + 0x2008] {
            let mut b = page(PAGE | 7);
            let old = b.get(table, 8);
            b.put(table, 8, old & !clear);
            let read = try_(&mut b, Read, USER);
            assert_eq!(read.err().unwrap_or(0xff), codes.0);
            assert_eq!(try_(&mut b, Write, USER), Err(codes.1));
        }
    }
    let mut b = page(PAGE | 7);
    let old = b.get(PML4, 8);
    b.put(PML4, 8, old | NX);
    assert_eq!(try_(&mut b, Fetch, USER), Err(21));
    // Execute-disable not enabled: the bit is reserved, and I does not appear.
    b.efer &= !efer::NXE;
    b.flush_all();
    assert_eq!(try_(&mut b, Fetch, USER), Err(13));
}

#[test]
fn writes_come_back_for_the_dirty_flag() {
    let mut b = page(PAGE | 7);
    let m = b.translate(VA, Some(Read), USER).unwrap();
    assert!(m.read && !m.write && m.execute && !m.global);
    let m = b.translate(VA, Some(Write), USER).unwrap();
    assert!(m.write);
    b.put(PT + 8, 8, PAGE | 0x167);
    b.cr4 |= cr4::PGE;
    let m = b.translate(VA, Some(Read), USER).unwrap();
    assert!(m.write && m.global);
    // The debugger changes nothing.
    b.put(PT + 8, 8, PAGE | 1);
    assert_eq!(b.translate(VA, None, USER).unwrap().pa, PAGE);
    assert_eq!(b.get(PT + 8, 8), PAGE | 1);
}

#[test]
fn directories_are_kept_until_flushed() {
    let mut b = page(PAGE | 7);
    assert!(try_(&mut b, Read, USER).is_ok());
    let at = PML4 + 0x2008;
    b.put(at, 8, 0);
    assert!(try_(&mut b, Read, USER).is_ok(), "allowed without INVLPG");
    b.invlpg(0x7000_0000);
    assert_eq!(try_(&mut b, Read, USER), Err(4), "INVLPG drops paging-structure caches whatever the address");
}

#[test]
fn protection_keys() {
    // PKRU bits of key 1, expected for user read, user write, supervisor write.
    for (pkru, codes) in [(0, [0xff, 0xff, 0xff]), (1, [37, 39, 35]), (2, [0xff, 39, 35]), (3, [37, 39, 35])] {
        let mut b = page(PAGE | 7 | 1 << 59);
        b.cr4 |= cr4::PKE;
        b.set_pkru(pkru << 2);
        let got =
            [(Read, USER), (Write, USER), (Write, SUPERVISOR)].map(|(a, i)| try_(&mut b, a, i).err().unwrap_or(0xff));
        assert_eq!(got, codes, "PKRU {pkru}");
        assert!(try_(&mut b, Fetch, USER).is_ok());
    }
}

#[test]
fn supervisor_keys() {
    // Key 3 of a supervisor page; PKRU does not count.
    for (pkrs, wp, read, write) in [
        (0u64, true, None, None),
        (0x40, true, Some(0x21), Some(0x23)),
        (0x40, false, Some(0x21), Some(0x23)),
        (0x80, true, None, Some(0x23)),
        (0x80, false, None, None),
        (0x10, true, None, None),
    ] {
        let mut b = page(PAGE | 0x63 | 3 << 59);
        b.cr0 = if wp { b.cr0 | cr0::WP } else { b.cr0 & !cr0::WP };
        b.set_pkru(0xc0);
        b.write_msr(0x6e1, 0xc0).unwrap();
        let cr4 = b.cr4 | cr4::PKE;
        b.write_cr4(cr4).unwrap();
        assert!(try_(&mut b, Write, SUPERVISOR).is_ok(), "CR4.PKS is off");
        b.write_cr4(cr4 | cr4::PKS).unwrap();
        b.write_msr(0x6e1, pkrs).unwrap();
        assert_eq!(b.read_msr(0x6e1), Ok(pkrs));
        assert_eq!([Read, Write].map(|a| try_(&mut b, a, SUPERVISOR).err()), [read, write], "PKRS {pkrs:#x} WP {wp}");
        assert!(try_(&mut b, Fetch, SUPERVISOR).is_ok());
    }
    assert_eq!(page(0).write_msr(0x6e1, 1 << 32), Err(Exception::gp(0)));
}

#[test]
fn large_pages() {
    let mut b = Bench::long(0);
    // 1 GiB page at 1 GiB.
    b.put(PML4 + 0x1008, 8, 0x87);
    assert_eq!(b.translate(0x4012_3456, Some(Read), USER).unwrap().pa, 0x12_3456);
    b.put(PML4 + 0x1008, 8, 0x87 | 1 << 13);
    assert_eq!(b.translate(0x4012_3456, Some(Read), USER).unwrap_err().code, Some(13));
    // 5 levels.
    b.put(0x20_0000, 8, PML4 | 7);
    b.cr3 = 0x20_0000;
    b.cr4 |= cr4::LA57;
    b.flush_all();
    assert_eq!(b.translate(0x12_3456, Some(Read), USER).unwrap().pa, 0x12_3456);
    assert_eq!(b.translate(1 << 56, Some(Read), USER).unwrap_err(), Exception::gp(0));
    assert_eq!(b.translate(1 << 55, Some(Read), USER).unwrap_err().code, Some(4));
    b.cr4 &= !cr4::LA57;
    assert_eq!(b.translate(1 << 47, Some(Read), USER).unwrap_err(), Exception::gp(0));
}

#[test]
fn legacy_paging() {
    let mut b = Bench::protected(0);
    b.cr0 |= cr0::PG | cr0::WP;
    b.cr3 = PML4;
    b.put(PML4, 4, PT | 7);
    b.put(PT + 4 * 5, 4, PAGE | 5);
    assert_eq!(b.translate(0x5123, Some(Read), USER).unwrap().pa, PAGE + 0x123);
    assert_eq!(b.translate(0x5123, Some(Write), USER).unwrap_err().code, Some(7));
    // I is never set without NX or SMEP.
    assert_eq!(b.translate(0x6000, Some(Fetch), USER).unwrap_err().code, Some(4));
    // 4 MiB pages with PSE-36: bit 13 is address bit 32; bit 21 is reserved.
    b.put(PML4 + 4, 4, 0x0080_0087 | 1 << 13);
    assert_eq!(b.translate(0x40_0010, Some(Read), USER).unwrap_err().code, Some(4), "PSE off: a table elsewhere");
    b.cr4 |= cr4::PSE;
    b.flush_all();
    assert_eq!(b.translate(0x40_0010, Some(Read), USER).unwrap().pa, 0x1_0080_0010);
    b.put(PML4 + 4, 4, 0x0080_0087 | 1 << 21);
    assert_eq!(b.translate(0x40_0010, Some(Read), USER).unwrap_err().code, Some(13));
}

#[test]
fn pae_paging() {
    let mut b = Bench::protected(0);
    b.cr4 |= cr4::PAE;
    b.put(0x9020, 8, (PML4 + 0x2000) | 1);
    b.put(0x9028, 8, 0);
    b.put(PML4 + 0x2000, 8, 0x20_0087);
    b.write_cr3(0x9020).unwrap();
    b.write_cr0(cr0::PE | cr0::PG | cr0::ET).unwrap();
    assert_eq!(b.translate(0x123, Some(Read), USER).unwrap().pa, 0x20_0123);
    assert_eq!(b.translate(0x4000_0000, Some(Read), USER).unwrap_err().code, Some(4));
    // The registers are loaded by MOV CR3 only, which checks them.
    b.put(0x9020, 8, 0);
    b.flush_all();
    assert!(b.translate(0x123, Some(Read), USER).is_ok());
    b.put(0x9020, 8, 0x3);
    assert_eq!(b.write_cr3(0x9020), Err(Exception::gp(0)));
    assert!(b.translate(0x123, Some(Read), USER).is_ok());
}

#[test]
fn no_paging_and_a20() {
    let mut b = Bench::real();
    assert_eq!(b.translate(0x10_0010, Some(Write), SUPERVISOR).unwrap().pa, 0x10_0010);
    b.a20_mask = !(1 << 20);
    assert_eq!(b.translate(0x10_0010, Some(Write), SUPERVISOR).unwrap().pa, 0x10);
}

#[test]
fn control_registers() {
    let mut b = Bench::protected(0);
    let gp = Err(Exception::gp(0));
    assert_eq!(b.write_cr0(cr0::PG), gp, "paging without protection");
    assert_eq!(b.write_cr0(cr0::PE | cr0::NW), gp);
    assert_eq!(b.write_cr4(1 << 40), gp);
    assert_eq!(b.write_cr4(cr4::PCIDE), gp, "PCIDs need long mode");
    b.write_efer(efer::LME | efer::SCE).unwrap();
    assert_eq!(b.write_cr0(cr0::PE | cr0::PG), gp, "long mode needs PAE");
    b.write_cr4(cr4::PAE).unwrap();
    b.cr3 = PML4;
    b.write_cr0(cr0::PE | cr0::PG).unwrap();
    assert!(b.lma() && !b.is_long());
    assert_eq!(b.write_cr4(0), gp, "PAE stays on");
    assert_eq!(b.write_efer(efer::SCE), gp, "LME stays while paging is on");
    b.write_cr4(cr4::PAE | cr4::PCIDE).unwrap();
    assert_eq!(b.write_cr0(cr0::PE), gp, "PCIDE is in the way");
    b.write_cr4(cr4::PAE).unwrap();
    b.write_cr0(cr0::PE).unwrap();
    assert!(!b.lma());
}

#[test]
fn flushes() {
    use rhea_ir::guest::{Contexts, Guest, TlbFlush};
    let mut b = Bench::long(0);
    b.cr4 |= cr4::PCIDE;
    b.take_flushes();
    b.write_cr3(PML4 | 5 | 1 << 63).unwrap();
    assert_eq!(b.take_flushes(), []);
    assert_eq!(b.context(), 5);
    b.write_cr3(PML4 | 6).unwrap();
    let all = crate::mode::mmu::ALL;
    let of = Contexts { mask: 0xfff, value: 6 };
    assert_eq!(b.take_flushes(), [(TlbFlush::Context { indexes: all, of }, false)]);
    b.invlpg(0x1234);
    assert_eq!(b.take_flushes(), [(TlbFlush::Range { va: 0x1000, pages: 1, indexes: all, of }, false)]);
    let of = Contexts { mask: 0xfff, value: 9 };
    for (kind, descriptor, want) in [
        (0, [9, 0x5678], Ok(TlbFlush::Range { va: 0x5000, pages: 1, indexes: all, of })),
        (0, [9, 1 << 60], Err(Exception::gp(0))),
        (1, [9, 0], Ok(TlbFlush::Context { indexes: all, of })),
        (2, [0, 0], Ok(TlbFlush::All)),
        (3, [0, 0], Ok(TlbFlush::Context { indexes: all, of: Contexts::ALL })),
        (3, [0x1000, 0], Err(Exception::gp(0))),
        (4, [0, 0], Err(Exception::gp(0))),
    ] {
        let got = b.invpcid(kind, descriptor);
        assert_eq!(got, want.map(|_| ()));
        assert_eq!(b.take_flushes(), want.into_iter().map(|f| (f, false)).collect::<Vec<_>>());
    }
}
