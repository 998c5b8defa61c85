//! Facilities that problem-state reference programs do not reach: hashes, atomic operations, performance monitor, events.

use crate::asm::*;
use crate::board::{RAM, Run, START, say};
use crate::radix::{self, PROBLEM};
use crate::{EE, MSR};

const TRAPPED: u64 = 1 << 17;
const POWER10: &str = "power10";

const DEXCR: u32 = 828;
const HASHKEYR: u32 = 468;
const HASHPKEYR: u32 = 469;
const MMCR0: u32 = 795;
const PMC5: u32 = 791;
const FSCR: u32 = 153;

/// hashst and its like at the doubleword before (RA).
fn hash(op: u32, rb: u32, ra: u32) -> u32 {
    x31(op, 31, ra, rb) | 1
}

#[test]
fn hashes() {
    let address = START + 0x1000;
    let (store, check, store_private, check_private) = (722, 754, 658, 690);
    // Off: nothing is stored.
    let mut program = [
        load(6, address),
        load(7, 0x0123_4567_89ab_cdef),
        load(8, 0x8899_aabb_ccdd_eeff),
        load(9, 0x1122_3344_5566_7788),
    ]
    .concat();
    program.extend([mtspr(HASHKEYR, 8), mfspr(10, HASHKEYR), hash(store, 7, 6), ld(10, 0xfff8, 6)]);
    program.extend(say(10));
    program.extend(load(10, 3 << 57));
    program.extend([mtspr(DEXCR, 10), hash(store, 7, 6), ld(10, 0xfff8, 6), hash(check, 7, 6)]);
    program.extend(say(10));
    program.extend([hash(check, 8, 6)]);
    let trapped = START + 4 * (program.len() as u64 - 1);
    // HASHPKEYR is the hypervisor's: a key of zero.
    program.extend([mtspr(HASHPKEYR, 9)]);
    let refused = START + 4 * (program.len() as u64 - 1);
    program.extend([hash(store_private, 7, 6), hash(check_private, 7, 6), hash(check, 7, 6)]);
    let differs = START + 4 * (program.len() as u64 - 1);
    Run { model: POWER10, ..Run::default() }.check(&program, |said, _, _| {
        let want = [
            [0, 0xeb05_f0e0_d865_dfa9].as_slice(),
            &[0x700, trapped, MSR | TRAPPED, 0, 0],
            &[0x700, refused, MSR | 1 << 18, 0, 0],
            &[0x700, differs, MSR | TRAPPED, 0, 0],
        ]
        .concat();
        assert_eq!(said, want, "{said:#x?}");
    });
}

/// Reserved function codes, pasting to main storage, a prefixed instruction across 64 bytes.
#[test]
fn storage_and_alignment_interrupts() {
    let address = START + 0x1000;
    let mut program = load(6, address);
    // lwat, stdat, paste.
    program.extend([x31(582, 5, 6, 9), x31(742, 5, 6, 16), li(0, 0), x31(902, 1, 0, 6) | 1]);
    program.extend([NOP; 6]);
    assert_eq!(program.len(), 15);
    program.extend([0x0600_0000, li(7, 1)]);
    let at = |n: u64| START + 4 * n;
    Run { model: POWER10, ..Run::default() }.interrupts(
        &program,
        &[
            [0x300, at(5), MSR, address, 0x0200_0004],
            [0x300, at(6), MSR, address, 0x0200_0004],
            [0x300, at(8), MSR, address, 0x0200_0008],
            [0x600, at(15), MSR | 3 << 28, at(15), 0],
        ],
    );
}

/// The same privileged code with facilities off and on.
#[test]
fn floating_point_and_vectors_off_and_on() {
    const FP: u64 = 1 << 13;
    const VEC: u64 = 1 << 25;
    const VSX: u64 = 1 << 23;
    // All off first, then GPR 8 to 10 in turn.
    let mut program = [load(6, START), load(8, MSR | FP | VEC | VSX), load(9, MSR | FP), load(10, MSR)].concat();
    program.push(li(7, 6));
    let at = START + 4 * program.len() as u64;
    // lfd, vor, xxlor, fmr, the last two in a block of their own.
    program.extend([
        50 << 26 | 1 << 21 | 6 << 16,
        4 << 26 | 1156,
        b(at + 8, at + 12),
        60 << 26 | 146 << 3,
        63 << 26 | 72 << 1,
    ]);
    program.extend([addi(7, 7, -1), cmpdi(7, 0), beq_over(6)]);
    program.extend([mtmsrd(8, 0), mr(11, 8), mr(8, 9), mr(9, 10), mr(10, 11)]);
    program.push(b(START + 4 * program.len() as u64, at));
    let off = |vector: u64, n: u64, msr: u64| [vector, at + 4 * n, msr, 0, 0];
    let none = [off(0x800, 0, MSR), off(0xf20, 1, MSR), off(0xf40, 3, MSR), off(0x800, 4, MSR)];
    let fp = [off(0xf20, 1, MSR | FP), off(0xf40, 3, MSR | FP)];
    let want = [&none[..], &fp[..], &none[..], &fp[..]].concat();
    Run::default().interrupts(&program, &want);
}

/// Real storage ends where it ends; the bits above an address of it do not count.
#[test]
fn ends_of_real_storage() {
    let mut program = Vec::new();
    for at in [RAM - 8, RAM - 64, 0xf000_0000_0000_0000 | (RAM - 8), RAM - 128] {
        program.extend(load(6, at));
        program.push(ld(7, 0, 6));
        program.extend(say(7));
    }
    program.extend(load(6, RAM));
    program.push(ld(7, 0, 6));
    let beyond = START + 4 * (program.len() as u64 - 1);
    program.push(std(6, 0xfff8, 6));
    program.push(ld(7, 0xfff8, 6));
    program.extend(say(7));
    let tables = [(8, 1), (64, 2), (128, 3)].map(|(back, v)| (RAM - back, vec![v])).to_vec();
    Run { tables, ..Run::default() }.check(&program, |said, _, _| {
        assert_eq!(said, [1, 2, 1, 3, 0x200, beyond, MSR | 0x0020_0000, RAM, 0x8000, RAM], "{said:#x?}");
    });
}

/// A counter that becomes negative interrupts, once.
#[test]
fn performance_monitor() {
    let mut program = [load(5, 0x7fff_f000), load(6, 1 << 26 | 1 << 14), load(8, EE)].concat();
    program.extend([mtspr(PMC5, 5), mtspr(MMCR0, 6)]);
    let resume = START + 4 * (program.len() as u64 + 12);
    program.extend([load(25, resume), load(26, MSR)].concat());
    program.extend([mtmsrd(8, 1), SPIN]);
    assert_eq!(START + 4 * program.len() as u64, resume);
    program.push(mfspr(7, MMCR0));
    program.extend(say(7));
    // Frozen.
    program.extend(load(6, 1 << 31));
    program.extend([mtspr(MMCR0, 6), mfspr(7, PMC5), mfspr(8, PMC5), x31(40, 8, 7, 8)]);
    program.extend(say(8));
    Run::default().check(&program, |said, _, _| {
        assert_eq!(said, [0xf00, resume - 4, MSR | EE, 0, 0, 1 << 14 | 1 << 7, 0], "{said:#x?}");
    });
}

/// The same as an event-based branch of problem state, where alone the counters count.
#[test]
fn event_based_branch() {
    let (ebbhr, ebbrr, bescr, bescrr) = (804, 805, 806, 802);
    let resume = START + 4 * 41;
    let mut user = vec![SPIN, mfspr(11, bescr)];
    user.extend(radix::leave(resume));
    let sc_at = 0x1_0000 + 4 * user.len() as u64;
    user.resize(64, NOP);
    user.extend([mfspr(9, ebbrr), mfspr(10, bescr), li(12, 1), mtspr(bescrr, 12)]);
    user.extend(load(12, 0x1_0004));
    user.extend([mtspr(ebbrr, 12), 19 << 26 | 1 << 11 | 146 << 1]);
    let mut program = vec![li(5, 1), mtspr(48, 5), li(5, 0x80), mtspr(FSCR, 5)];
    for (register, value) in [
        (ebbhr, 0x1_0100),
        (bescr, 1 << 63 | 1 << 32),
        (PMC5, 0x7fff_f000),
        (MMCR0, 1 << 30 | 1 << 26 | 1 << 20 | 2 << 18 | 1 << 14),
    ] {
        program.extend(load(5, value));
        program.push(mtspr(register, 5));
    }
    program.extend(radix::go(0x1_0000, PROBLEM));
    assert_eq!(START + 4 * program.len() as u64, resume);
    program.extend([9, 10, 11].map(say).concat());
    radix::run(user).check(&program, |said, _, _| {
        assert_eq!(said, [0xc00, sc_at, PROBLEM, 0, 0, 0x1_0000, 1, 1 << 63], "{said:#x?}");
    });
}

/// The branch history buffer is not problem state's unless MMCR0 says so.
#[test]
fn branch_history() {
    let mut user = vec![x31(302, 5, 0, 0), x31(430, 0, 0, 0)];
    user.extend(radix::leave(START + 4 * 15));
    let sc_at = 0x1_0000 + 4 * user.len() as u64;
    let mut program = vec![li(5, 1), mtspr(48, 5)];
    program.extend(radix::go(0x1_0000, PROBLEM));
    radix::run(user).interrupts(
        &program,
        &[[0xf60, 0x1_0000, PROBLEM, 0, 0], [0xf60, 0x1_0004, PROBLEM, 0, 0], [0xc00, sc_at, PROBLEM, 0, 0]],
    );
}

/// The index of an insertion is in the low four bits of its register, whatever is above.
#[test]
fn insertions_look_at_four_bits() {
    const VEC: u64 = 1 << 25;
    const VSX: u64 = 1 << 23;
    let index = [load(6, 0x8000_0000_0000_0013), load(7, 0x1122_3344_5566_7788), load(8, MSR | VEC | VSX)];
    let mut program = index.concat();
    program.push(mtmsrd(8, 0));
    // vinswlx, vinswrx.
    for (op, dword) in [(655, 51), (911, 307)] {
        let vspltisb = 4 << 26 | 1 << 21 | 780;
        let insert = 4 << 26 | 1 << 21 | 6 << 16 | 7 << 11 | op;
        // mfvsrd, mfvsrld of v1.
        program.extend([vspltisb, insert, x31(dword, 1, 10, 0) | 1]);
        program.extend(say(10));
    }
    Run { model: POWER10, ..Run::default() }.check(&program, |said, _, _| {
        assert_eq!(said, [0x55_6677_8800, 0x55_6677_8800_0000], "{said:#x?}");
    });
}
