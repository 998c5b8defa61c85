//! Which instruction words are UNDEFINED, for every model, against `qemu-aarch64 -cpu` of the same model: random words,
//! words near allocated encodings, and the system instruction space.

use super::asm::{self, Segment, constant, single_x};
use super::board::{Board, Exception, SYSTEM, Then, UNKNOWN};
use super::check::EMULATOR;
use rhea_diff::{Engine, Rng, number};

use parking_lot::Mutex;
use rhea_arm::reg::Reg;
use rhea_arm::translate::{Pattern, decoder};
use rhea_arm::{ArmConfig, Feature};
use std::collections::BTreeMap;
use std::sync::Arc;

const CODE: u64 = 0x40_0000;
/// Each word is followed by a permanently undefined one.
const SLOTS: u64 = 0x1000_0000;
const RESULTS: u64 = 0x2000_0000;
const STATE: u64 = 0x2800_0000;
const STACK: u64 = 0x2900_0000;
const STACK_SIZE: u64 = 0x10_0000;
/// Value of all registers: an address where nothing is, also with another one added; no system call has this number.
const EMPTY: u64 = 0x7abc_0000_3000;

const SIGILL: u8 = 4;

/// Instructions that would jump about in the test itself.
fn jumps(w: u32) -> bool {
    w >> 26 & 0x1f == 5 || w >> 25 & 0x3f == 0b011010 || w >> 25 & 0x3f == 0b011011 || w & 0xff00_0010 == 0x5400_0000
}

/// Words whose behaviour at EL0 is the kernel's business rather than the instruction set's: identification registers,
/// timed waits; authentication, where the reference faults (FEAT_FPAC); and what is CONSTRAINED UNPREDICTABLE: ordered
/// loads and stores whose unused register fields are not ones.
fn excluded(w: u32) -> bool {
    let unused = decoder().find(w).is_some_and(|p| match p.name {
        "ldar" | "stlr" | "ldlar" | "stllr" => w >> 16 & 31 != 31 || w >> 10 & 31 != 31,
        "ldapr" => w >> 16 & 31 != 31,
        _ => false,
    });
    // The debug channel, which the reference lacks, too.
    let id = w & 0xffff_f000 == 0xd538_0000 || w & 0xffdf_ff00 == 0xd513_0400;
    let wait = w & 0xffff_ffc0 == 0xd503_1000;
    let auth = decoder().find(w).is_some_and(|p| {
        ["aut_reg", "autz_reg", "aut1716", "aut_lr", "bra", "braz", "blra", "blraz", "reta", "ldra"].contains(&p.name)
    });
    jumps(w) || id || wait || auth || unused
}

/// The reference's program: every signal is one word's result.
fn program(words: &[u32]) -> Vec<u8> {
    let mut code: Vec<u32> = Vec::new();
    let here = |code: &Vec<u32>| CODE + 4 * code.len() as u64;
    // x0 signal, x2 context. x5 index, x6 the word's address.
    constant(&mut code, 4, STATE);
    constant(&mut code, 6, SLOTS);
    code.extend([
        single_x(asm::LDR_X, 5, 4, 0),
        0x8b05_0cc6, // add x6, x6, x5, lsl #3
        single_x(asm::LDR_X, 3, 2, 440),
        0xeb06_007f, // cmp x3, x6
        0x9a9f_0000, // csel x0, x0, xzr, eq
    ]);
    constant(&mut code, 7, RESULTS);
    code.extend([
        0x3825_68e0, // strb w0, [x7, x5]
        0x9100_04a5, // add x5, x5, #1
        single_x(asm::STR_X, 5, 4, 0),
        0x9100_20c6, // add x6, x6, #8
        single_x(asm::STR_X, 6, 2, 440),
    ]);
    constant(&mut code, 3, EMPTY);
    code.extend((0..32).map(|k| single_x(asm::STR_X, 3, 2, 184 + 8 * k)));
    code.push(single_x(asm::STR_X, 31, 2, 448));
    constant(&mut code, 3, words.len() as u64);
    code.extend([
        0xeb03_00bf, // cmp x5, x3
        0x5400_0040, // b.eq over the return
        0xd65f_03c0, // ret
    ]);
    let call = |code: &mut Vec<u32>, number: u64, args: &[u64]| {
        args.iter().enumerate().for_each(|(n, &a)| constant(code, n as u32, a));
        constant(code, 8, number);
        code.push(0xd400_0001);
    };
    call(&mut code, 64, &[1, RESULTS, words.len() as u64]);
    call(&mut code, 94, &[0]);
    let entry = here(&code);
    let mut state = vec![0u8; 64];
    for v in [STACK, 0, STACK_SIZE] {
        state.extend_from_slice(&v.to_le_bytes());
    }
    state.resize(128, 0);
    for v in [CODE, 4 | 0x0800_0000, 0, 0] {
        state.extend_from_slice(&u64::to_le_bytes(v));
    }
    call(&mut code, 132, &[STATE + 64, 0]);
    // SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV
    for signal in [4, 5, 7, 8, 11] {
        call(&mut code, 134, &[signal, STATE + 128, 0, 8]);
    }
    constant(&mut code, 0, SLOTS);
    (1..31).for_each(|d| constant(&mut code, d, EMPTY));
    code.push(asm::mov_sp(31, 1));
    code.push(0xd61f_0000); // br x0
    let bytes = |w: &[u32]| w.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
    let segment = |addr, bytes: Vec<u8>, size, executable| Segment { addr, bytes, size, executable };
    asm::elf(
        entry,
        &[
            segment(CODE, bytes(&code), 0, true),
            segment(SLOTS, slots(words), 0, true),
            segment(RESULTS, vec![], words.len() as u64, false),
            segment(STATE, state, 0x1000, false),
            segment(STACK, vec![], STACK_SIZE, false),
        ],
    )
}

fn slots(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| [*w, 0]).flat_map(|w: u32| w.to_le_bytes()).collect()
}

/// For each word: is it undefined here?
fn run(config: &Arc<ArmConfig>, words: &[u32]) -> Vec<bool> {
    let board = Board::new(config, Engine::Blocks);
    board.write(SLOTS, &slots(words));
    let results = Arc::new(Mutex::new(Vec::new()));
    let (log, count) = (results.clone(), words.len());
    board.run(
        SLOTS,
        |s| {
            s.x = [EMPTY; 31];
            s.sp[0] = EMPTY;
            // CNTVCT_EL0 can be read.
            s.sys[Reg::CntkctlEl1 as usize] = 2;
            // WFI traps instead of waiting.
            s.sys[Reg::SctlrEl1 as usize] &= !(1 << 16);
        },
        move |e: &mut Exception| {
            let mut log = log.lock();
            let at = SLOTS + 8 * log.len() as u64;
            log.push(matches!(e.class(), UNKNOWN | SYSTEM) && e.cpu[Reg::ElrEl1] == at);
            if log.len() == count {
                return Then::Stop;
            }
            e.cpu.x = [EMPTY; 31].into();
            e.cpu.sp_el[0] = EMPTY;
            e.cpu[Reg::SpsrEl1] = 0;
            e.cpu[Reg::ElrEl1] = at + 8;
            Then::Return
        },
    );
    let r = results.lock().clone();
    assert_eq!(r.len(), words.len());
    r
}

fn word(rng: &mut Rng, patterns: &[&'static Pattern]) -> u32 {
    loop {
        let random = rng.next() as u32;
        let w = match rng.below(8) {
            0 | 1 => random,
            2 => 0xd500_0000 | (random & 0x3f_ffff),
            // Hints, barriers, PSTATE.
            3 => 0xd500_0000 | (random & 0x7_ffff),
            4 => {
                // One bit away from a pattern.
                rng.pick(patterns).encoding(random) ^ 1 << rng.below(32)
            }
            // Floating point and AdvSIMD.
            5 => (random & !(7 << 25)) | 7 << 25,
            // Loads and stores.
            6 => (random & !(5 << 25)) | 4 << 25,
            _ => rng.pick(patterns).encoding(random),
        };
        if !excluded(w) {
            return w;
        }
    }
}

/// PSTATE.SSBS by name: with ID_AA64PFR1_EL1.SSBS = 1 as in the Cortex-A76, the bit exists and these instructions do not;
/// the reference has them.
fn names_ssbs(w: u32) -> bool {
    w & 0xffff_f0ff == 0xd503_403f || w & 0xffdf_ffe0 == 0xd51b_42c0
}

/// DBGDTRRX_EL0 and DBGDTRTX_EL0, open to EL0 while MDSCR_EL1.TDCC is 0: the reference has neither.
fn transfers_data_to_a_debugger(w: u32) -> bool {
    w & 0xffdf_ffe0 == 0xd513_0500
}

/// Instructions that the reference's `max` has and this crate does not (the name of the feature).
fn beyond(w: u32) -> Option<&'static str> {
    let m = |mask: u32, value: u32| w & mask == value;
    Some(match w {
        // Tags: ADDG, SUBG; SUBP, IRG, GMI; STG and relatives; STGP.
        _ if m(0xbf80_0000, 0x9180_0000) || m(0xdfe0_fc00, 0x9ac0_0000) || m(0xff20_0000, 0xd920_0000) => "MTE",
        _ if m(0xbfe0_fc00, 0x9ac0_1000) || m(0xffe0_fc00, 0x9ac0_1400) || m(0xfe40_0000, 0x6800_0000) => "MTE",
        // DC GVA and the like.
        _ if m(0xffff_ff00, 0xd50b_7400) || m(0xffff_f000, 0xd50b_7000) => "MTE",
        // MSR TCO.
        _ if m(0xffff_f0ff, 0xd503_409f) || m(0xffdf_ffe0, 0xd51b_42e0) => "MTE",
        _ if m(0x3b20_0c00, 0x1900_0400) => "MOPS",
        _ if m(0xffff_f3ff, 0xd503_323f) => "XS",
        _ if m(0xffff_ffe0, 0xd53b_e0a0) || m(0xffff_ffe0, 0xd53b_e0c0) => "ECV",
        _ if m(0xff00_0010, 0x5400_0010) => "HBC",
        _ if m(0xffff_ffc0, 0xd53b_2400) => "RNG",
        _ => return None,
    })
}

fn compare(model: &str, reference: &str) {
    let mut config = ArmConfig::from_option(model).expect("a model");
    config.set(Feature::El2, false);
    config.set(Feature::El3, false);
    let config = Arc::new(config);
    let patterns = decoder().patterns();
    let mut failed = BTreeMap::<(&str, bool, u32), (u32, usize)>::new();
    for batch in 0..number("RHEA_DIFF_BATCHES", 1) {
        let mut rng = Rng::new(number("RHEA_DIFF_SEED", 1).wrapping_add(batch * 0x1_0001) ^ 0x0dd);
        let words: Vec<u32> = (0..number("RHEA_DIFF_WORDS", 6000)).map(|_| word(&mut rng, patterns)).collect();
        let ours = run(&config, &words);
        let Some(out) = rhea_diff::reference(EMULATOR, reference, &program(&words), &format!("undefined-{model}"))
        else {
            return;
        };
        assert_eq!(out.len(), words.len(), "results of the reference");
        for ((&w, &ours), &signal) in words.iter().zip(&ours).zip(&out) {
            let theirs = signal == SIGILL;
            let known = match model {
                "max" => ours && beyond(w).is_some(),
                "cortex-a76" => ours && names_ssbs(w),
                _ => false,
            };
            if ours == theirs || known || theirs && transfers_data_to_a_debugger(w) {
                continue;
            }
            let name = decoder().find(w).map_or("none", |p| p.name);
            let e = failed.entry((name, ours, w >> 21)).or_insert((w, 0));
            e.1 += 1;
        }
    }
    let mut text = String::new();
    for ((name, ours, _), (w, n)) in &failed {
        let what = if *ours { "undefined here only" } else { "undefined in the reference only" };
        text += &format!("  {w:08x} {name}: {what} ({n} like it)\n");
    }
    assert!(failed.is_empty(), "{model}: {} kinds differ\n{text}", failed.len());
}

macro_rules! models {
    ($($test:ident $model:literal $reference:literal;)*) => { $(
        #[test]
        fn $test() {
            compare($model, $reference);
        }
    )* };
}

models! {
    cortex_a53 "cortex-a53" "cortex-a53";
    cortex_a57 "cortex-a57" "cortex-a57";
    cortex_a72 "cortex-a72" "cortex-a72";
    cortex_a76 "cortex-a76" "cortex-a76";
    neoverse_n1 "neoverse-n1" "neoverse-n1";
    max "max" "max,sve=off,sme=off";
}
