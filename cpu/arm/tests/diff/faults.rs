//! Faults inside generated code restore the exact state: in a long random block each memory instruction in turn finds
//! its page missing or read-only, and the whole architectural state that the handler sees is the interpreter's.

use super::board::{Board, DATA_ABORT, Exception, PAGES, Page, SVC, SYSTEM, Then, UNKNOWN};
use super::check::config;
use super::program::{CODE, State};
use super::random::Random;
use super::simd::{KEPT, access, computation, computation_tables};
use parking_lot::Mutex;
use rhea_arm::reg::Reg;
use rhea_diff::{Engine, Rng, number};
use std::sync::Arc;

/// Memory instructions of a block; each has two pages of its own.
const ACCESSES: u64 = 32;
const AREA: u64 = ACCESSES * 0x2000;

struct Block {
    code: Vec<u32>,
    state: State,
    data: Vec<u8>,
}

/// MOVZ and MOVK of a 32-bit address.
fn address(code: &mut Vec<u32>, d: u32, v: u64) {
    code.push(0xd280_0000 | (v as u32 & 0xffff) << 5 | d);
    code.push(0xf2a0_0000 | (v as u32 >> 16) << 5 | d);
}

fn block(rng: &mut Rng) -> Block {
    let tables = computation_tables();
    // mov x28, #2: the block is a loop of two rounds.
    let mut code = vec![0xd280_005c];
    for n in 0..ACCESSES {
        let base = KEPT.start + n as u32 % (KEPT.end - 1 - KEPT.start);
        let (w, disp) = access(rng, base, true);
        let page = PAGES + n * 0x2000;
        // Aligned in the first page, anywhere in it, or across the two (where atomics take an alignment fault).
        let at = match rng.below(8) {
            0 => page + 0x1000 - 1 - rng.below(16),
            1 | 2 => page + rng.below(0xf80),
            _ => page + rng.below(0xf8) * 16,
        };
        for _ in 0..rng.below(4) {
            let c = computation(rng, tables);
            code.push(c);
        }
        address(&mut code, base, at.wrapping_sub(disp as u64));
        for _ in 0..rng.below(3) {
            let c = computation(rng, tables);
            code.push(c);
        }
        if rng.chance(6) {
            // Over the access, perhaps.
            code.push(0x5400_0040 | rng.below(16) as u32);
        }
        code.push(w);
    }
    code.push(0xd503_201f);
    // subs x28, x28, #1; b.ne to the second instruction; svc
    code.push(0xf100_079c);
    let back = (1 - code.len() as i32) as u32 & 0x7_ffff;
    code.extend([0x5400_0001 | back << 5, 0xd400_0001]);
    let mut state = rng.state(true);
    state.sp &= !15;
    let data = (0..AREA / 8).flat_map(|_| rng.int().to_le_bytes()).collect();
    Block { code, state, data }
}

/// Everything a handler can see.
#[derive(Clone, PartialEq, Debug)]
struct Seen {
    pc: u64,
    esr: u64,
    far: Option<u64>,
    spsr: u64,
    fpsr: u64,
    fpcr: u32,
    sp: u64,
    x: [u64; 31],
    v: [u128; 32],
    monitor: (u32, u64, u64),
    memory: u64,
}

fn hash(bytes: &[u8]) -> u64 {
    bytes.chunks_exact(8).fold(0, |h: u64, c| {
        (h.rotate_left(5) ^ u64::from_le_bytes(c.try_into().unwrap())).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

/// Runs the block with one page changed; what the handler saw at each exception.
fn run(board: &Board, b: &Block, changed: Option<(u64, Page)>) -> Vec<Seen> {
    board.write(PAGES, &b.data);
    let pages = board.pages();
    if let Some((va, page)) = changed {
        pages.set(va, page);
    }
    let seen = Arc::new(Mutex::new(Vec::<Seen>::new()));
    let log = seen.clone();
    let ram = board.ram.clone();
    let s = &b.state;
    board.run(
        CODE,
        |a| {
            a.x = s.x;
            a.v = s.v;
            a.sp[0] = s.sp;
            a.pstate = s.nzcv as u32;
            a.fpcr = s.fpcr as u32;
            a.fpsr = s.fpsr as u32;
        },
        move |e: &mut Exception| {
            let class = e.class();
            let mut memory = vec![0; AREA as usize];
            ram.read(PAGES, &mut memory).expect("RAM");
            let c = &mut *e.cpu;
            let far = c[Reg::FarEl1];
            log.lock().push(Seen {
                pc: c[Reg::ElrEl1],
                esr: c[Reg::EsrEl1],
                far: (class == DATA_ABORT).then_some(far),
                spsr: c[Reg::SpsrEl1],
                fpsr: e.fpsr,
                fpcr: c.fpcr,
                sp: c.sp_el[0],
                x: c.x.all(),
                v: c.v,
                monitor: if c.excl_size == 0 { (0, 0, 0) } else { (c.excl_size, c.excl_addr, c.excl_lo) },
                memory: hash(&memory),
            });
            let fault = c[Reg::EsrEl1] & 0x3f;
            match class {
                // Translation and permission faults are repaired; misaligned atomics are left out.
                DATA_ABORT if fault != 0x21 && log.lock().len() < 1000 => {
                    pages.set(far & !0xfff, Page::ReadWrite);
                    Then::Return
                }
                DATA_ABORT | UNKNOWN | SYSTEM if log.lock().len() < 1000 => e.skip(),
                SVC => Then::Stop,
                _ => {
                    eprintln!(
                        "stopped by an exception of class {class:#x} at {:#x}",
                        log.lock().last().map_or(0, |s| s.pc)
                    );
                    Then::Stop
                }
            }
        },
    );
    if let Some((va, _)) = changed {
        board.pages().set(va, Page::ReadWrite);
    }
    std::mem::take(&mut *seen.lock())
}

fn explain(a: &Seen, b: &Seen) -> String {
    let mut s = format!("at {:#x} (expected {:#x})\n", a.pc, b.pc);
    for k in 0..31 {
        if a.x[k] != b.x[k] {
            s += &format!("  x{k}: {:#x}, expected {:#x}\n", a.x[k], b.x[k]);
        }
    }
    for k in 0..32 {
        if a.v[k] != b.v[k] {
            s += &format!("  v{k}: {:#x}, expected {:#x}\n", a.v[k], b.v[k]);
        }
    }
    let rest = |s: &Seen| format!("{:x?}", (s.esr, s.far, s.spsr, s.fpsr, s.fpcr, s.sp, s.monitor, s.memory));
    if rest(a) != rest(b) {
        s += &format!("  esr, far, spsr, fpsr, fpcr, sp, monitor, memory: {},\n  expected {}\n", rest(a), rest(b));
    }
    s
}

#[test]
fn faults_restore_exact_state() {
    let config = config();
    for round in 0..number("RHEA_DIFF_BATCHES", 1) * 2 {
        let mut rng = Rng::new(number("RHEA_DIFF_SEED", 1).wrapping_add(round * 0x1_0001) ^ 0xfa017);
        let b = block(&mut rng);
        let code: Vec<u8> = b.code.iter().flat_map(|w| w.to_le_bytes()).collect();
        let mut cases = vec![None];
        for n in 0..2 * ACCESSES {
            cases.extend([Page::None, Page::ReadOnly].map(|p| Some((PAGES + n * 0x1000, p))));
        }
        let mut expected: Vec<Vec<Seen>> = Vec::new();
        for engine in Engine::ALL {
            let board = Board::new(&config, engine);
            board.write(CODE, &code);
            for _ in 1..engine.runs() {
                run(&board, &b, None);
            }
            assert!(engine != Engine::Regions || board.regions() > 0, "no region was optimised");
            for (n, &case) in cases.iter().enumerate() {
                let seen = run(&board, &b, case);
                if engine == Engine::Interpreter {
                    expected.push(seen);
                    continue;
                }
                let want = &expected[n];
                if let Some((a, w)) = seen.iter().zip(want).find(|(a, w)| a != w) {
                    let at = w.pc.wrapping_sub(CODE) as usize / 4;
                    let near = b.code.get(at.saturating_sub(6)..=at).unwrap_or_default();
                    panic!("round {round}, {engine:?}, {case:x?}: {}  code before: {near:08x?}", explain(a, w));
                }
                assert_eq!(seen.len(), want.len(), "round {round}, {engine:?}, {case:x?}: number of exceptions");
            }
        }
        let faults: usize = expected.iter().skip(1).map(|s| s.iter().filter(|s| s.far.is_some()).count()).sum();
        eprintln!(
            "{faults} faults, {} exceptions, {} monitors",
            expected.iter().map(Vec::len).sum::<usize>(),
            expected.iter().flatten().filter(|s| s.monitor.0 != 0).count()
        );
        assert!(faults > ACCESSES as usize, "only {faults} faults");
    }
}
