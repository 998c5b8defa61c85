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

macro_rules! classes {
    ($($name:ident)*) => { $(
        #[test]
        fn $name() {
            let all = integer::CLASSES.iter().chain(memory::CLASSES).chain(vector::CLASSES);
            let class = all.into_iter().find(|c| c.name == stringify!($name)).expect("a class of this name");
            check::check(class);
        }
    )* };
}

classes! {
    arithmetic division logical conditions traps branches
    loads_stores prefixed multiple quadwords atomics
    fp_arithmetic fp_enabled fp_status vmx_integer vmx_float vmx_decimal vsx_scalar vsx_vector vsx_moves vsx_quad vsx_matrix decimal_float fp_access
}
