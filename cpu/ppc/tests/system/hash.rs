//! Hashed page tables and segments.

use crate::asm::*;
use crate::board::{Run, START, call, say};
use crate::{EE, MSR};
use rhea_ppc::hooks::Pte;

const ON: u64 = MSR | 0x30;
const PROBLEM: u64 = ON | EE | 0x4000;
const GROUPS: u64 = (1 << 11) - 1;

/// An entry of a page of 4 KiB of a segment of 256 MiB, in its primary or secondary group: its number and contents.
fn page(vsid: u64, ea: u64, pa: u64, second: u64, secondary: bool) -> (u64, Pte) {
    let offset = ea & 0xfff_ffff;
    let hash = vsid ^ offset >> 12;
    let group = if secondary { !hash } else { hash } & GROUPS;
    let first = vsid << 12 | offset >> 16 & !0x7f | if secondary { 2 } else { 0 } | 1;
    (group * 8 + 3, [first, pa | second])
}
/// A page of 64 KiB of a segment of 1 TiB.
fn large(vsid: u64, ea: u64, pa: u64, second: u64) -> (u64, Pte) {
    let offset = ea & 0xff_ffff_ffff;
    let hash = vsid ^ vsid << 25 ^ offset >> 16;
    let first = 1 << 62 | vsid << 24 | offset >> 16 & !0x7f | 5;
    ((hash & GROUPS) * 8, [first, pa | 0x1000 | second])
}

const R: u64 = 0x100;
const C: u64 = 0x80;

fn segment(n: u32, esid: u64, rs: u64) -> Vec<u32> {
    [load(5, rs), load(6, esid | 1 << 27 | u64::from(n)), vec![slbmte(5, 6)]].concat()
}
fn go(pc: u64, msr: u64) -> Vec<u32> {
    [load(5, pc), vec![mtspr(26, 5)], load(5, msr), vec![mtspr(27, 5), RFID]].concat()
}

/// Real storage of the first MiB at 0xc000000000000000 in segment 0x111 (256 MiB, Kp set), its code at 0x50000.
fn run(code: Vec<u32>) -> Run {
    let mut hpt = vec![];
    for n in 0..16u64 {
        let ea = 0xc000_0000_0005_0000 + (n << 12);
        hpt.push(page(0x111, ea, ea & 0xf_ffff, R | C, n % 2 == 1));
    }
    hpt.push(page(0x222, 0x1000_0000, 0x30_0000, 2, false));
    hpt.push(page(0x222, 0x1000_1000, 0x30_1000, R | 3, false));
    hpt.push(page(0x222, 0x1000_2000, 0x30_2000, R | C | 2 | 4, false));
    hpt.push(page(0x222, 0x1000_3000, 0x30_3000, R | C | 2 | 1 << 9, false));
    hpt.push(page(0x333, 0x1000_0000, 0x31_0000, R | C | 2, true));
    hpt.push(large(0x44, 0x0100_0001_0000, 0x32_0000, R | C | 2));
    Run {
        hpt,
        code: vec![(0x5_0000, code)],
        tables: vec![
            (0x30_0000, vec![0x1111]),
            (0x30_1000, vec![0x2222]),
            (0x30_3000, vec![0x4444]),
            (0x31_0000, vec![0x3333]),
            (0x32_8000, vec![0x5555]),
        ],
        ..Run::default()
    }
}

/// Segments 0 (the code) and 1 (of class 1, 0x222), then translated.
fn enter() -> Vec<u32> {
    [
        segment(0, 0xc000_0000_0000_0000, 0x111 << 12 | 0x400),
        segment(1, 0x1000_0000, 0x222 << 12 | 0x480),
        go(0xc000_0000_0005_0000, ON),
    ]
    .concat()
}

#[test]
fn segments_and_protection() {
    let base = 0xc000_0000_0005_0000;
    let mut code = load(6, 0x1000_0000);
    code.push(ld(7, 0, 6));
    code.extend(say(7));
    code.push(std(7, 8, 6));
    code.extend(load(6, 0x1000_1000));
    code.push(ld(7, 0, 6));
    code.extend(say(7));
    let store = base + 4 * code.len() as u64;
    code.extend([std(7, 8, 6)]);
    code.extend(load(6, 0x1000_9000));
    let absent = base + 4 * code.len() as u64;
    code.extend([ld(7, 0, 6)]);
    code.extend(load(6, 0x2000_0000));
    let unmapped = base + 4 * code.len() as u64;
    code.extend([ld(7, 0, 6)]);
    // Key 1: no stores.
    code.extend(load(7, 2 << 60));
    code.extend(load(6, 0x1000_3000));
    code.extend([mtspr(29, 7), ISYNC, ld(7, 0, 6)]);
    code.extend(say(7));
    let key = base + 4 * code.len() as u64;
    code.extend([std(7, 8, 6), li(7, 0), mtspr(29, 7), ISYNC, std(7, 8, 6)]);
    code.extend(load(5, 1 << 62 | 0x44 << 24 | 0x110));
    code.extend(load(6, 0x0100_0000_0000 | 1 << 27 | 5));
    code.extend([slbmte(5, 6), ISYNC]);
    code.extend(load(6, 0x0100_0001_8000));
    code.push(ld(7, 0, 6));
    code.extend(say(7));
    // slbmfev, slbfee.
    code.extend([li(6, 5), x31(851, 7, 0, 6)]);
    code.extend(say(7));
    code.extend(load(6, 0x1000_5000));
    code.push(x31(979, 7, 0, 6) | 1);
    code.extend(say(7));
    code.extend(call(0));
    run(code).check(&enter(), |said, _, board| {
        let at = |n: usize| -> [u64; 5] { std::array::from_fn(|k| said[n + k]) };
        assert_eq!(said[..2], [0x1111, 0x2222], "{said:#x?}");
        assert_eq!(at(2), [0x300, store, ON, 0x1000_1008, 0x0a00_0000]);
        assert_eq!(at(7), [0x300, absent, ON, 0x1000_9000, 0x4000_0000]);
        assert_eq!(at(12), [0x380, unmapped, ON, 0x2000_0000, 0]);
        assert_eq!(said[17], 0x4444);
        assert_eq!(at(18), [0x300, key, ON, 0x1000_3008, 0x0220_0000]);
        assert_eq!(said[23..], [0x5555, 1 << 62 | 0x44 << 24 | 0x110, 0x222 << 12 | 0x480]);
        let (n, pte) = page(0x222, 0x1000_0000, 0x30_0000, 2, false);
        assert_eq!(board.pte(n)[1], pte[1] | R | C);
    });
}

#[test]
fn fetches() {
    let base = 0xc000_0000_0005_0000;
    let branch =
        |to: u64| [load(6, to), load(25, base + 0x1000), load(26, ON), vec![mtspr(9, 6), 0x4e80_0420]].concat();
    for (to, vector, cause) in
        [(0x1000_2000u64, 0x400, 0x1000_0000u64), (0x1000_9000, 0x400, 0x4000_0000), (0x2000_0000, 0x480, 0)]
    {
        let mut run = run(branch(to));
        run.code.push((0x5_1000, call(0).to_vec()));
        run.interrupts(&enter(), &[[vector, to, ON | cause, 0, 0]]);
    }
    // Problem state in the system's segment: Kp and PP = 0 permit nothing.
    let mut code = load(25, base + 0x1000);
    code.extend(load(26, ON));
    code.extend(go(base, PROBLEM));
    let mut run = run(code);
    run.code.push((0x5_1000, call(0).to_vec()));
    run.interrupts(&enter(), &[[0x400, base, PROBLEM | 0x0800_0000, 0, 0]]);
}

/// Two processes in turn in the same addresses, with slbie and with slbia.
#[test]
fn processes_in_turn() {
    let mut code = vec![];
    let user =
        |vsid: u64| [load(5, vsid << 12 | 0x480), load(6, 0x1000_0001 | 1 << 27), vec![slbmte(5, 6), ISYNC]].concat();
    let look = [load(6, 0x1000_0000), vec![ld(7, 0, 6)], say(7).to_vec()].concat();
    for n in 0..3 {
        for vsid in [0x222u64, 0x333] {
            if n == 1 {
                code.extend([slbia(3), ISYNC]);
            } else {
                code.extend(load(6, 0x1000_0000 | 1 << 27));
                code.extend([slbie(6), ISYNC]);
            }
            // Gone: a segment interrupt.
            code.extend(load(6, 0x1000_0000));
            code.push(ld(7, 0, 6));
            code.extend(user(vsid));
            code.extend(&look);
        }
    }
    code.extend(call(0));
    run(code).check(&enter(), |said, _, _| {
        assert_eq!(said.len(), 36, "{said:#x?}");
        for (n, round) in said.chunks(6).enumerate() {
            assert_eq!((round[0], round[3]), (0x380, 0x1000_0000));
            assert_eq!(round[5], if n % 2 == 0 { 0x1111 } else { 0x3333 });
        }
    });
}

#[test]
fn start_is_not_translated() {
    let mut program = load(6, 0x30_0000);
    program.push(ld(7, 0, 6));
    program.extend(say(7));
    run(vec![]).check(&program, |said, _, _| assert_eq!(said, [0x1111]));
    assert_eq!(START & 0xfff, 0);
}
