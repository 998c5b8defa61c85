//! Random instructions of every class, run by the IR interpreter, by generated code of single blocks, by optimised
//! regions and by `qemu-aarch64` of the package `qemu-user`: all registers and memory must agree.
//!
//! `RHEA_DIFF_BATCHES` (1), `RHEA_DIFF_SEED` (1) and `RHEA_DIFF_SHOW` (5) vary the amount; the default takes seconds.
//! `RHEA_DIFF_PATTERN` restricts the SIMD and FP classes to patterns with that in their name.

mod asm;
mod board;
mod check;
mod classes;
mod counts;
mod faults;
mod program;
mod random;
mod simd;
mod tags;
mod undefined;

macro_rules! classes {
    ($($name:ident)*) => { $(
        #[test]
        fn $name() {
            let all = classes::BASE.iter().chain(simd::CLASSES);
            let class = all.into_iter().find(|c| c.name == stringify!($name)).expect("a class of this name");
            check::check(class);
        }
    )* };
}

classes! {
    dp_immediate dp_register load_store_single load_store_register load_store_pair literals atomics exclusives branches system
    self_modifying pauth
    fp_scalar simd_vector simd_scalar crypto structures mixed
}
