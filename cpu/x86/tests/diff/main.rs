//! Random instructions of every class, run by the IR interpreter, by generated code of single blocks, by optimised regions
//! and by the host's processor: all registers, flags and memory must agree.
//!
//! `RHEA_DIFF_BATCHES` (1), `RHEA_DIFF_SEED` (1) and `RHEA_DIFF_SHOW` (5) vary the amount; the default takes seconds.
//! `RHEA_DIFF_ONLY` restricts a class to one mnemonic, `RHEA_DIFF_INPUTS` shows all inputs of what fails.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod board;
mod check;
mod classes;
mod control;
mod edges;
mod fuzz;
mod generate;
mod native;
mod random;
mod state;

macro_rules! classes {
    ($($name:ident)*) => { $(
        #[test]
        fn $name() {
            let class = classes::CLASSES.iter().find(|c| c.name == stringify!($name)).expect("a class of this name");
            check::check(class);
        }
    )* };
}

classes! {
    alu shifts multiply_divide bits conditions branches atomics flags stack strings decimal
    mmx sse sse2 sse4 avx avx2 fma
    x87 x87_environment save transcendental
}
