//! Random instructions of each class, run by `qemu-aarch64` and by this crate's translation; all registers and memory
//! must agree. `RHEA_DIFF_BATCHES`, `RHEA_DIFF_SEED` and `RHEA_DIFF_SHOW` vary the amount; the default is short.

mod diff;
mod setup;

macro_rules! classes {
    ($($name:ident)*) => { $(
        #[test]
        fn $name() {
            let class = diff::classes::BASE.iter().find(|c| c.name == stringify!($name)).expect("a class of this name");
            diff::check(class);
        }
    )* };
}

classes! {
    dp_immediate dp_register load_store_single load_store_register load_store_pair literals atomics exclusives branches system
}
