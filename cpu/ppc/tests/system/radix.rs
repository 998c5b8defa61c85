//! Radix trees.

use crate::asm::*;
use crate::board::{Run, START, call, say};
use crate::{EE, MSR};

const PROCESSES: u64 = 0x10_0000;
const KERNEL: u64 = 0x20_0000;
const USER: u64 = 0x22_0000;
/// MSR of translated privileged code, and of problem state.
const ON: u64 = MSR | 0x30;
pub const PROBLEM: u64 = ON | EE | 0x4000;
const CODE: u64 = 0x50_0000;
const LPCR: u64 = 1 << 20 | 1 << 22 | 1 << 10;

const V: u64 = 1 << 63;
const LEAF: u64 = 1 << 62;
const R: u64 = 0x100;
const C: u64 = 0x80;

fn root(table: u64) -> u64 {
    2 << 61 | table | 5 << 5 | 13
}
fn next(table: u64) -> u64 {
    V | table | 9
}

/// Real storage at quadrant 3; a process 1 with pages of 4 KiB and 2 MiB.
pub fn run(user: Vec<u32>) -> Run {
    let megabytes = (0..8).map(|n| V | LEAF | n << 21 | R | C | 0xf).collect();
    let mut pages = vec![0; 512];
    pages[0x10] = V | LEAF | CODE | R | C | 5; // read and execute
    pages[0x20] = V | LEAF | 0x51_0000 | 4; // read, not yet referenced
    pages[0x21] = V | LEAF | 0x51_1000 | R | 6; // write, not yet changed
    pages[0x22] = V | LEAF | 0x51_2000 | R | C | 0xe; // privileged
    pages[0x23] = V | LEAF | 0x51_3000 | R | C | 0x20 | 7; // device
    Run {
        lpcr: LPCR,
        process_table: PROCESSES,
        tables: vec![
            (PROCESSES, vec![root(KERNEL), 0, root(USER), 0]),
            (KERNEL, vec![next(KERNEL + 0x1_0000)]),
            (KERNEL + 0x1_0000, vec![next(KERNEL + 0x1_1000)]),
            (KERNEL + 0x1_1000, megabytes),
            (USER, vec![next(USER + 0x1_0000)]),
            (USER + 0x1_0000, vec![next(USER + 0x1_1000), V | 0x30_0000 | 4]),
            (USER + 0x1_1000, vec![next(USER + 0x1_2000), V | LEAF | 0x60_0000 | R | C | 6]),
            (USER + 0x1_2000, pages),
            (0x51_0000, vec![0x1234]),
            (0x51_1000, vec![0x5678]),
            (0x60_0008, vec![0x9abc]),
        ],
        code: vec![(CODE, user)],
        ..Run::default()
    }
}

pub fn go(pc: u64, msr: u64) -> Vec<u32> {
    [load(5, pc), vec![mtspr(26, 5)], load(5, msr), vec![mtspr(27, 5), RFID]].concat()
}
/// Ends a program of problem state: sc, and on at `resume` in real mode.
pub fn leave(resume: u64) -> Vec<u32> {
    [load(25, resume), load(26, MSR), vec![sc(0)]].concat()
}

#[test]
fn problem_state() {
    for ail in [0u64, 3] {
        let resume = START + 4 * 15;
        let mut user = load(6, 0x2_0000);
        user.extend([ld(7, 0, 6), std(7, 0, 6)]);
        user.extend(load(6, 0x2_1000));
        user.extend([std(7, 8, 6), ld(7, 0, 6)]);
        let at_private = 0x1_0000 + 4 * (user.len() as u64 + 5);
        user.extend(load(6, 0x2_2000));
        user.extend([ld(8, 0, 6)]);
        user.extend(load(6, 0x4000_0000));
        user.extend([ld(8, 0, 6)]);
        user.extend(load(6, 0x2_8000));
        user.extend([ld(8, 0, 6)]);
        user.extend(load(6, 0xc000_0000_0000_0000));
        user.extend([ld(8, 0, 6)]);
        user.extend(load(6, 0x4000_0000_0000_0000));
        user.extend([ld(8, 0, 6)]);
        user.extend(load(6, 0x0010_0000_0000_0000));
        user.extend([ld(8, 0, 6)]);
        user.extend(load(6, 0x20_0008));
        user.extend([ld(9, 0, 6), mfmsr(8), mfspr(8, 815), mfspr(8, 26), scv(0)]);
        let at_mfmsr = 0x1_0000 + 4 * (user.len() as u64 - 4);
        user.extend(leave(resume));
        let at_sc = 0x1_0000 + 4 * user.len() as u64;
        let mut run = run(user);
        run.lpcr |= ail << 23;
        let mut program = vec![li(5, 1), mtspr(48, 5)];
        program.extend(go(0x1_0000, PROBLEM));
        assert_eq!(START + 4 * program.len() as u64, resume);
        program.extend(say(9));
        let in_private = 0x0800_0000;
        run.check(&program, |said, ram, _| {
            let got: Vec<[u64; 5]> = said.chunks(5).map(|c| std::array::from_fn(|n| *c.get(n).unwrap_or(&0))).collect();
            let want = [
                [0x300, 0x1_0000 + 24, PROBLEM, 0x2_0000, 0x0a00_0000],
                [0x300, at_private, PROBLEM, 0x2_2000, in_private],
                [0x300, at_private + 24, PROBLEM, 0x4000_0000, 0x0008_0000],
                [0x300, at_private + 48, PROBLEM, 0x2_8000, 0x4000_0000],
                [0x300, at_private + 72, PROBLEM, 0xc000_0000_0000_0000, in_private],
                [0x380, at_private + 96, PROBLEM, 0x4000_0000_0000_0000, 0],
                [0x380, at_private + 120, PROBLEM, 0x0010_0000_0000_0000, 0],
                [0x700, at_mfmsr, PROBLEM | 1 << 18, 0, 0],
                [0xf60, at_mfmsr + 4, PROBLEM, 0, 0],
                [0x700, at_mfmsr + 8, PROBLEM | 1 << 18, 0, 0],
                [0xf60, at_mfmsr + 12, PROBLEM, 0, 0],
                [0xc00, at_sc, PROBLEM, 0, 0],
                [0x9abc, 0, 0, 0, 0],
            ];
            assert_eq!(got, want, "\ngot  {got:#x?}\nwant {want:#x?}");
            let entry = |n: u64| {
                let mut b = [0; 8];
                ram.read(USER + 0x1_2000 + 8 * n, &mut b).unwrap();
                u64::from_be_bytes(b)
            };
            assert_eq!(entry(0x20), V | LEAF | 0x51_0000 | R | 4);
            assert_eq!(entry(0x21), V | LEAF | 0x51_1000 | R | C | 6);
            let mut b = [0; 8];
            ram.read(0x51_1008, &mut b).unwrap();
            assert_eq!(u64::from_be_bytes(b), 0x1234);
        });
    }
}

#[test]
fn instruction_storage() {
    // Problem state's branches to where it may not execute.
    let resume = START + 4 * 15;
    let targets = [(0x2_1000u64, 0x1000_0000u64), (0x2_2000, 0x1000_0000), (0x2_8000, 0x4000_0000)];
    for (target, cause) in targets {
        let user = [load(6, target), load(25, resume), load(26, MSR), vec![mtspr(9, 6), 0x4e80_0420]].concat();
        let mut program = vec![li(5, 1), mtspr(48, 5)];
        program.extend(go(0x1_0000, PROBLEM));
        run(user).interrupts(&program, &[[0x400, target, PROBLEM | cause, 0, 0]]);
    }
    let user =
        [load(6, 0x4000_0000_0000_0000), load(25, resume), load(26, MSR), vec![mtspr(9, 6), 0x4e80_0420]].concat();
    let mut program = vec![li(5, 1), mtspr(48, 5)];
    program.extend(go(0x1_0000, PROBLEM));
    run(user).interrupts(&program, &[[0x480, 0x4000_0000_0000_0000, PROBLEM, 0, 0]]);
}

/// AMR key 0 keeps privileged code from problem state's pages, and switches without any flush.
#[test]
fn privileged_access_prevention() {
    let mut kernel = load(6, 0x2_1000);
    let stop = load(7, 3 << 62);
    for _ in 0..3 {
        kernel.extend(&stop);
        kernel.extend([mtspr(29, 7), ISYNC, ld(8, 0, 6), li(8, 0), mtspr(29, 8), ISYNC, ld(8, 0, 6)]);
    }
    let resume = START + 4 * 15;
    kernel.extend(leave(resume));
    let mut program = vec![li(5, 1), mtspr(48, 5)];
    program.extend(go(0xc000_0000_0050_0000, ON));
    program.extend(say(8));
    let at = |n: u64| 0xc000_0000_0050_0000 + 4 * (5 + n * 12 + 7);
    run(kernel).check(&program, |said, _, _| {
        let faults: Vec<&[u64]> = said.chunks(5).filter(|c| c.len() == 5 && c[0] == 0x300).collect();
        for n in 0..3 {
            assert_eq!(faults[n as usize], [0x300, at(n), ON, 0x2_1000, 0x0800_0000]);
        }
        assert_eq!(said.last(), Some(&0x5678));
    });
}

/// A page is moved and tlbie makes it seen; another process sees its own.
#[test]
fn invalidation_and_processes() {
    let mut kernel = load(6, 0x2_0000);
    kernel.extend(load(10, 0xc000_0000_0000_0000 | (USER + 0x1_2000 + 8 * 0x20)));
    kernel.extend(load(11, V | LEAF | 0x51_1000 | R | 4));
    kernel.extend(load(12, 0x2_0000));
    kernel.extend(load(13, 1 << 32));
    kernel.push(ld(8, 0, 6));
    kernel.extend(say(8));
    kernel.extend([std(11, 0, 10), tlbie(12, 13, 0, 1, 1), 0x7c40_04ac, ld(8, 0, 6)]);
    kernel.extend(say(8));
    kernel.extend([li(5, 2), mtspr(48, 5), ISYNC, ld(8, 0, 6), li(5, 1), mtspr(48, 5), ISYNC, ld(8, 0, 6)]);
    kernel.extend(say(8));
    kernel.extend(call(0));
    let mut program = vec![li(5, 1), mtspr(48, 5)];
    program.extend(go(0xc000_0000_0050_0000, ON));
    run(kernel).check(&program, |said, _, _| {
        assert_eq!(said[..2], [0x1234, 0x5678]);
        // Its process table entry is not one of a tree.
        assert_eq!((said[2], said[5], said[6]), (0x300, 0x2_0000, 0x0008_0000));
        assert_eq!(said[7], 0x5678);
    });
}
