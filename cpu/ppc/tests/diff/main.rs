//! Random instructions of every class, run by the IR interpreter, by generated code of single blocks, by optimised
//! regions and by `qemu-ppc64le` and `qemu-ppc64` of the package `qemu-user`: all registers and memory must agree.
//!
//! `RHEA_DIFF_BATCHES` (1), `RHEA_DIFF_SEED` (1) and `RHEA_DIFF_SHOW` (5) vary the amount; the default takes seconds.
//! `RHEA_DIFF_PATTERN` restricts classes made of all patterns of a table to those with that in their name.

mod asm;
mod board;
mod check;
mod integer;
mod memory;
mod program;
mod vector;

fn all() -> Vec<&'static check::Class> {
    integer::CLASSES.iter().chain(memory::CLASSES).chain(vector::CLASSES).collect()
}

macro_rules! classes {
    ($($name:ident)*) => { $(
        #[test]
        fn $name() {
            let class = all().into_iter().find(|c| c.name == stringify!($name)).expect("a class of this name");
            check::check(class);
        }
    )*
        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

classes! {
    arithmetic division logical conditions traps branches
    loads_stores prefixed multiple quadwords atomics
    fp_arithmetic fp_enabled fp_status vmx_integer vmx_float vmx_decimal vsx_scalar vsx_vector vsx_moves vsx_quad vsx_matrix decimal_float fp_access engines_only elements
}

/// Rows that no class makes instructions of, and why.
const UNTESTED: &[(&str, &[&str])] = &[
    (
        "privileged, or they leave problem state: the bare-metal programs",
        &[
            "hashstp", "hashchkp", "sc", "scv", "rfid", "rfscv", "rfebb", "mfmsr", "mtmsr", "mtmsrd", "mfspr", "mtspr",
            "slbie", "slbieg", "slbia", "slbiag", "slbmte", "slbmfev", "slbmfee", "slbfee", "slbsync", "tlbie",
            "tlbiel", "tlbsync", "msgsndp", "msgclrp",
        ],
    ),
    (
        "the hypervisor's: one interrupt",
        &[
            "hrfid", "urfid", "stop", "msgsnd", "msgclr", "msgsync", "lwzcix", "lhzcix", "lbzcix", "ldcix", "stwcix",
            "sthcix", "stbcix", "stdcix",
        ],
    ),
    (
        "not in version 3.1",
        &[
            "doze",
            "nap",
            "sleep",
            "rvwinkle",
            "tbegin",
            "tend",
            "tcheck",
            "tsr",
            "tabortwc",
            "tabortdc",
            "tabortwci",
            "tabortdci",
            "tabort",
            "treclaim",
            "trechkpt",
        ],
    ),
    ("a hint that the reference does not have", &["icbt"]),
    ("random, time, waiting", &["darn", "mftb", "wait"]),
    (
        "interrupts that the reference does not deliver: the bare-metal programs",
        &["copy", "paste", "clrbhrb", "mfbhrbe"],
    ),
    ("the reference's store fails: a test of their own", &["lqarx", "stqcx"]),
];

#[test]
fn every_row_has_a_class() {
    let all = all();
    assert!(all.iter().all(|c| NAMES.contains(&c.name)), "a class has no test");
    let missing = check::rows_without_class(&all);
    let listed: Vec<&str> = UNTESTED.iter().flat_map(|(_, names)| names.iter().copied()).collect();
    let unlisted: Vec<_> = missing.iter().filter(|n| !listed.contains(n)).collect();
    assert!(unlisted.is_empty(), "no class makes {unlisted:?}");
    let stale: Vec<_> = listed.iter().filter(|n| !missing.contains(n)).collect();
    assert!(stale.is_empty(), "listed but made: {stale:?}");
}
