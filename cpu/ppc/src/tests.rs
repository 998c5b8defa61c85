//! Tests of translation and state without an engine: registers are set by hand.

use crate::bits::{lpcr, msr};
use crate::hooks::{PpcHooks, Pte};
use crate::mmu::{Fault, rpt_invalidate};
use crate::state::PpcCpu;
use crate::{models, spr};
use rhea_clock::VirtualClock;
use rhea_ir::guest::{Access, Contexts, Guest, Poll, TlbFlush};
use rhea_memory::{AddressSpace, Gpa, Mapping, RamBlock};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const RAM: u64 = 16 << 20;

struct Tables {
    process_table: AtomicU64,
    /// Every entry of the hashed table.
    seed: AtomicU64,
    order: u32,
}
impl PpcHooks for Tables {
    fn hpt_order(&self) -> u32 {
        self.order
    }
    fn hpt_group(&self, group: u64) -> [Pte; 8] {
        assert!(group < 1 << (self.order - 7));
        let mut r = self.seed.load(Ordering::Relaxed) ^ group;
        std::array::from_fn(|_| [random(&mut r), random(&mut r)])
    }
    fn process_table(&self) -> u64 {
        self.process_table.load(Ordering::Relaxed)
    }
}

fn random(r: &mut u64) -> u64 {
    *r = r.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *r ^ *r >> 29 ^ *r << 17
}

struct Bench {
    cpu: Box<PpcCpu>,
    ram: Arc<RamBlock>,
    tables: Arc<Tables>,
    clock: Arc<VirtualClock>,
    _map: Mapping,
}

fn bench(model: &str) -> Bench {
    let space = AddressSpace::new("test");
    let ram = RamBlock::anonymous("ram", RAM).unwrap();
    let map = space.map_ram(Gpa(0), &ram, 0, RAM, 0).unwrap();
    let tables = Arc::new(Tables { process_table: AtomicU64::new(0), seed: AtomicU64::new(0), order: 18 });
    let config = Arc::new(models::parse(model).unwrap());
    let clock = VirtualClock::new();
    let cpu = PpcCpu::new(0, &config, &space, &clock, tables.clone());
    Bench { cpu, ram, tables, clock, _map: map }
}

impl Bench {
    fn translated(&mut self, extra: u64) -> u32 {
        self.cpu.msr |= msr::IR | msr::DR | extra;
        self.cpu.rebuild_mode();
        crate::PpcMode(self.cpu.header.mode).data_idx()
    }
}

/// Tables full of noise: every walk ends, and in nothing but a translation or a fault.
#[test]
fn hostile_radix_trees() {
    let mut b = bench("power10");
    b.cpu.set_lpcr(lpcr::HR | lpcr::UPRT);
    let mut r = 7;
    for at in (0..RAM).step_by(8) {
        // Mostly valid, with pointers that stay in memory.
        let mut v = random(&mut r);
        if v & 7 != 0 {
            v = v & (1 << 62 | 0xff_ff00) | 1 << 63 | 9 | v >> 40 & 0xe6;
        }
        b.ram.store(at, 8, v.swap_bytes()).unwrap();
    }
    let index = b.translated(0);
    let mut found = 0;
    for n in 0..20_000u64 {
        b.tables
            .process_table
            .store(random(&mut r) & 0xff_ffff | if n % 3 == 0 { 1 << 50 } else { 0 }, Ordering::Relaxed);
        b.cpu.spr[spr::PIDR as usize] = random(&mut r) & 0xffff_ffff >> (n % 32);
        let va = random(&mut r) >> (n % 50);
        let access = [None, Some(Access::Read), Some(Access::Write), Some(Access::Fetch)][n as usize % 4];
        found += u64::from(b.cpu.translate_address(va, access, index).is_ok());
    }
    assert!(found > 0);
}

#[test]
fn hostile_hashed_tables() {
    let mut b = bench("power8");
    let index = b.translated(0);
    let mut r = 11;
    for n in 0..20_000u64 {
        b.tables.seed.store(random(&mut r), Ordering::Relaxed);
        let entry = random(&mut r);
        b.cpu.slb_move_to(entry >> 1, random(&mut r) & !0xfff | n % 40);
        let va = b.cpu.slb_entry(n as usize % 32).esid ^ random(&mut r) & 0xfff_ffff;
        let access = [None, Some(Access::Read), Some(Access::Write), Some(Access::Fetch)][n as usize % 4];
        let _ = b.cpu.translate_address(va, access, index);
        b.cpu.invalidate_pte(random(&mut r) & 0xffff, [random(&mut r), random(&mut r)]);
        match n % 5 {
            0 => b.cpu.slb_invalidate(random(&mut r)),
            1 if n % 100 == 1 => b.cpu.slb_invalidate_all(random(&mut r) as u32 & 7),
            _ => b.cpu.sync_segments(),
        }
        b.cpu.take_flushes();
    }
}

#[test]
fn invalidations_find_their_pages() {
    let mut b = bench("power9");
    b.cpu.slb_move_to(0x111 << 12, 0x1000_0000 | 1 << 27);
    b.cpu.slb_move_to(1 << 62 | 0x44 << 24 | 0x110, 0x0100_0000_0000 | 1 << 27 | 1);
    b.cpu.take_flushes();
    let mut range = |index: u64, pte: Pte| {
        b.cpu.invalidate_pte(index, pte);
        match b.cpu.take_flushes()[..] {
            [(TlbFlush::Range { va, pages, of: Contexts::ALL, .. }, true)] => Some((va, pages)),
            [] => None,
            ref f => panic!("{f:?}"),
        }
    };
    // 4 KiB at 0x1234_5000 − the low bits come from the hash.
    let offset = 0x234_5000u64;
    let group = 0x111 ^ offset >> 12;
    let first = 0x111 << 12 | offset >> 16 & !0x7f | 1;
    assert_eq!(range((group & 0x7ff) * 8 + 5, [first, 0]), Some((0x1234_5000, 1)));
    assert_eq!(range((!group & 0x7ff) * 8 + 5, [first | 2, 0]), Some((0x1234_5000, 1)));
    // 64 KiB in a segment of 1 TiB.
    let offset = 0x12_3456_0000u64;
    let group = 0x44 ^ 0x44 << 25 ^ offset >> 16;
    let first = 1 << 62 | 0x44 << 24 | offset >> 16 & !0x7f | 5;
    assert_eq!(range((group & 0x7ff) * 8, [first, 0x1000]), Some((0x0112_3456_0000, 16)));
    // A segment that no processor has; an entry that is not valid.
    assert_eq!(range(0, [0x222 << 12 | 1, 0]), None);
    assert_eq!(range((group & 0x7ff) * 8, [first & !1, 0x1000]), None);
}

#[test]
fn contexts_of_segments_come_again() {
    let mut b = bench("power9");
    let user = |b: &mut Bench, vsid: u64| {
        b.cpu.slb_invalidate_all(3);
        b.cpu.sync_segments();
        let none = b.cpu.context();
        b.cpu.slb_move_to(vsid << 12 | 0x480, 0x1000_0000 | 1 << 27 | 3);
        assert_ne!(b.cpu.context(), none);
        b.cpu.context()
    };
    let (one, two) = (user(&mut b, 0x111), user(&mut b, 0x222));
    assert_ne!(one, two);
    b.cpu.take_flushes();
    assert_eq!(user(&mut b, 0x111), one);
    assert_eq!(user(&mut b, 0x222), two);
    assert!(b.cpu.take_flushes().is_empty());
    // slbie of one of two segments drops its translations.
    b.cpu.slb_move_to(0x333 << 12 | 0x480, 0x2000_0000 | 1 << 27 | 4);
    b.cpu.slb_invalidate(0x2000_0000 | 1 << 27);
    b.cpu.sync_segments();
    assert_eq!(b.cpu.context(), two);
    assert!(matches!(b.cpu.take_flushes()[..], [(TlbFlush::Range { va: 0x2000_0000, .. }, false)]));
    // A segment of class 0 that goes is gone in all contexts.
    b.cpu.slb_move_to(0x444 << 12, 0xc000_0000_0000_0000 | 1 << 27 | 5);
    assert!(b.cpu.take_flushes().is_empty());
    b.cpu.slb_invalidate(0xc000_0000_0000_0000);
    assert!(matches!(b.cpu.take_flushes()[..], [(TlbFlush::Range { of: Contexts::ALL, .. }, false)]));
}

/// Linux invalidates all of its translations for each page that it unmaps.
#[test]
fn only_what_changed_is_forgotten() {
    const LEAF: u64 = 0xc000_0000_0000_018e;
    let mut b = bench("power10");
    b.cpu.set_lpcr(lpcr::HR | lpcr::UPRT | lpcr::GTSE);
    let put = |b: &Bench, at: u64, v: u64| b.ram.store(at, 8, v.swap_bytes()).unwrap();
    // 31 bits: 10 in the root, 9 in its tables.
    b.tables.process_table.store(0x1000, Ordering::Relaxed);
    put(&b, 0x1000, 0x1_0000 | 10);
    put(&b, 0x1_0000, 1 << 63 | 0x2_0000 | 9);
    for page in 0..512 {
        put(&b, 0x2_0000 + page * 8, LEAF | page << 12);
    }
    let kernel = 3u64 << 62;
    let index = b.translated(0);
    let look = |b: &mut Bench, page: u64| {
        b.cpu.translate_address(kernel | page << 12, Some(Access::Read), index).map(|m| m.pa)
    };
    let range = |page: u64| TlbFlush::Range {
        va: kernel | page << 12,
        pages: 1,
        indexes: PpcCpu::TRANSLATED,
        of: Contexts::ALL,
    };
    let everything = vec![TlbFlush::Indexes(PpcCpu::TRANSLATED)];
    b.cpu.take_flushes();
    b.cpu.tlb_invalidate(crate::mmu::Form { local: false, ric: 2, process: true, radix: true }.pack(), 0, 0x400);
    assert!(matches!(b.cpu.take_flushes()[..], [(TlbFlush::Outdated, true), (TlbFlush::Context { .. }, true)]));
    for page in 0..20 {
        assert_eq!(look(&mut b, page), Ok(page << 12));
    }
    assert_eq!(b.cpu.outdated(), []);
    // Other pages, one of them twice; the second time nothing is known of them any more.
    put(&b, 0x2_0000 + 3 * 8, LEAF | 0x5000);
    put(&b, 0x2_0000 + 19 * 8, 0);
    assert_eq!(b.cpu.outdated(), [range(19), range(3)]);
    assert_eq!(b.cpu.outdated(), []);
    assert!(look(&mut b, 19).is_err());
    assert_eq!(look(&mut b, 3), Ok(0x5000));
    // A page that was read before it became another one, and after: its translations are of both kinds.
    put(&b, 0x2_0000 + 7 * 8, LEAF | 0x9000);
    assert_eq!(look(&mut b, 7), Ok(0x9000));
    assert_eq!(b.cpu.outdated(), [range(7)]);
    // A table.
    put(&b, 0x1_0000, 1 << 63 | 0x3_0000 | 9);
    assert_eq!(b.cpu.outdated(), everything);
    assert_eq!(b.cpu.outdated(), []);
    // More than is remembered, or has changed at a time.
    put(&b, 0x1_0000, 1 << 63 | 0x2_0000 | 9);
    for page in 20..500 {
        assert_eq!(look(&mut b, page), Ok(page << 12));
    }
    assert_eq!(b.cpu.outdated(), everything);
    for page in 20..40 {
        assert_eq!(look(&mut b, page), Ok(page << 12));
        put(&b, 0x2_0000 + page * 8, 0);
    }
    assert_eq!(b.cpu.outdated(), everything);
}

#[test]
fn rpt_invalidate_codes() {
    use rpt_invalidate as c;
    let mut b = bench("power10");
    assert_eq!(b.cpu.rpt_invalidate(1, 1, c::TYPE_TLB, 1, 0, 1), c::FUNCTION);
    b.cpu.set_lpcr(lpcr::HR | lpcr::UPRT);
    assert_eq!(b.cpu.rpt_invalidate(1, 0, c::TYPE_TLB, 1, 0, 1), c::P2);
    assert_eq!(b.cpu.rpt_invalidate(1, 8, c::TYPE_TLB, 1, 0, 1), c::P2);
    assert_eq!(b.cpu.rpt_invalidate(1, 1, 0x80, 1, 0, 1), c::P3);
    assert_eq!(b.cpu.rpt_invalidate(1, 1, c::TYPE_TLB, 1, 2, 1), c::P5);
    assert_eq!(b.cpu.rpt_invalidate(1, 1, c::TYPE_NESTED, 1, 0, 1), c::FUNCTION);
    b.cpu.take_flushes();
    assert_eq!(b.cpu.rpt_invalidate(1, 1, c::TYPE_TLB, 1, 0x1000, 0x3000), c::SUCCESS);
    assert!(matches!(b.cpu.take_flushes()[..], [(TlbFlush::Range { va: 0x1000, pages: 2, .. }, true)]));
    assert_eq!(b.cpu.rpt_invalidate(1, 2, c::TYPE_TLB, 1, 0, u64::MAX), c::SUCCESS);
    assert!(matches!(b.cpu.take_flushes()[..], [(TlbFlush::Context { .. }, false)]));
}

#[test]
fn real_mode_and_prevention_of_access() {
    let mut b = bench("power9");
    let real = b.cpu.translate_address(0xf000_0000_0000_1234, Some(Access::Write), 0).unwrap();
    assert_eq!(real.pa, 0x1234);
    b.cpu.set_lpcr(lpcr::HR | lpcr::UPRT);
    let index = b.translated(0);
    assert_eq!(b.cpu.translate_address(0, Some(Access::Read), index), Err(Fault::Storage(crate::bits::dsisr::NOPTE)));
    // The same authority masks have the same index; privileged and problem state have not.
    b.cpu.spr[spr::AMR as usize] = 3 << 62;
    b.cpu.select_rights();
    let blocked = b.translated(0);
    b.cpu.spr[spr::AMR as usize] = 0;
    b.cpu.select_rights();
    assert_ne!(blocked, index);
    assert_eq!(b.translated(0), index);
    assert_ne!(b.translated(msr::PR), index);
}

#[test]
fn saved_state() {
    let mut b = bench("power9");
    let mut r = 3;
    (0..32).for_each(|n| b.cpu.gpr[n] = random(&mut r));
    b.cpu.vsr.iter_mut().for_each(|v| *v = u128::from(random(&mut r)) << 64 | u128::from(random(&mut r)));
    b.cpu.set_cr(random(&mut r) as u32);
    b.cpu.set_xer(0xe00c_0011);
    (b.cpu.lr, b.cpu.ctr, b.cpu.tar) = (random(&mut r), random(&mut r), random(&mut r));
    b.cpu.set_lpcr(lpcr::LD | lpcr::ILE);
    b.cpu.slb_move_to(0x111 << 12, 0x1000_0000 | 1 << 27 | 7);
    b.cpu.set_decrementer(1 << 40);
    b.cpu.spr[spr::SPRG1 as usize] = 5;
    b.cpu.vscr = 0x1_0000;
    b.cpu.sat = 9;
    b.cpu.cede();
    let saved = b.cpu.save();
    let mut other = bench("power9");
    other.clock.set_ns(1_000_000);
    other.cpu.load(&saved);
    assert_eq!(other.cpu.save(), saved);
    assert!(other.cpu.halted());
    assert_eq!(other.cpu.header.mode, b.cpu.header.mode);
    assert_eq!(other.cpu.poll(), Poll::Halt(None));
    other.cpu.prod();
    assert_eq!(other.cpu.poll(), Poll::Run);
    // H_PROD before H_CEDE: does not wait.
    other.cpu.prod();
    other.cpu.cede();
    assert!(!other.cpu.halted());
}

#[test]
fn decrementer_follows_the_clock() {
    let mut b = bench("power8");
    b.cpu.set_decrementer(512);
    assert!(!b.cpu.decrementer_pending());
    b.clock.set_ns(1000);
    assert_eq!(b.cpu.decrementer(), 0);
    assert!(!b.cpu.decrementer_pending());
    b.clock.set_ns(1002);
    assert_eq!(b.cpu.decrementer(), 0xffff_ffff);
    assert!(b.cpu.decrementer_pending());
    b.cpu.set_decrementer(0x7fff_ffff);
    assert!(!b.cpu.decrementer_pending());
    b.cpu.set_time_base(1 << 50);
    assert_eq!((b.cpu.time_base(), b.cpu.decrementer()), (1 << 50, 0x7fff_ffff));
}

/// The timer goes off for an earlier value of the decrementer, and the poll that follows takes another interrupt.
#[test]
fn decrementer_is_not_lost_to_another_interrupt() {
    let mut b = bench("power9");
    b.cpu.set_lpcr(lpcr::LD);
    b.cpu.set_decrementer(512);
    b.cpu.set_decrementer(1 << 45);
    b.clock.start();
    while b.cpu.time.is_armed() {
        std::thread::yield_now();
    }
    b.cpu.pins().set_external(true);
    b.cpu.msr |= msr::EE;
    assert_eq!(b.cpu.poll(), Poll::Run);
    assert_eq!((b.cpu.header.pc, b.cpu.msr & msr::EE), (0x500, 0));
    assert!(b.cpu.time.is_armed());
}
