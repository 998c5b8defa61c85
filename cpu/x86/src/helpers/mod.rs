//! The helper table: functions that generated code calls. Each part of the crate declares its own with
//! [`helpers!`](crate::helpers) and the parts are joined here at compile time.

use crate::state::X86Cpu;
use rhea_ir::guest::{HelperDesc, HelperFn};

pub mod integer;
pub mod strings;
pub mod system;
pub mod system2;

/// The native signature of every helper (see `rhea_ir::guest::HelperFn`).
pub type RawHelper = for<'a> extern "C" fn(&'a mut X86Cpu, u64, u64, u64, u64) -> u64;

/// Erases a helper's type for the table.
pub const fn entry(f: RawHelper) -> HelperFn {
    HelperFn(f as *const ())
}

/// Declares helpers: constants of type `HelperId` and a `TABLE`.
///
/// ```ignore
/// helpers! {
///     base crate::helpers::SYSTEM_BASE;
///     /// Reads a model-specific register.
///     RDMSR = rdmsr, (I32) -> I64, Effects::RAISES;
/// }
/// ```
/// `rdmsr` is the path of an `extern "C" fn(&mut X86Cpu, u64, u64, u64, u64) -> u64`.
#[macro_export]
macro_rules! helpers {
    (base $base:expr; $($(#[$doc:meta])* $id:ident = $f:path, ($($arg:ident),*) -> $ret:ident, $eff:expr;)*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, dead_code)]
        #[repr(u16)]
        enum HelperIndex { $($id,)* End }
        $($(#[$doc])*
        pub const $id: rhea_ir::HelperId = rhea_ir::HelperId($base + HelperIndex::$id as u16);)*
        /// The helpers of this file, in the order of their ids.
        pub const TABLE: &[rhea_ir::HelperDesc] = &[$(rhea_ir::HelperDesc {
            name: stringify!($id),
            func: $crate::helpers::entry($f),
            args: &[$(rhea_ir::Type::$arg),*],
            ret: rhea_ir::Type::$ret,
            effects: $eff,
        },)*];
    };
}

/// First id of each part. The parts reserve room so that ids do not move when one grows.
pub const SYSTEM_BASE: u16 = 0;
/// System instructions: `helpers::system2`.
pub const SYSTEM2_BASE: u16 = 64;
/// Integer helpers: `helpers::integer`.
pub const INTEGER_BASE: u16 = 128;
/// String instructions: `helpers::strings`.
pub const STRINGS_BASE: u16 = 192;
/// x87 and MMX helpers: `x87::helpers`.
pub const X87_BASE: u16 = 224;
/// SSE and AVX helpers: `translate::sse::helpers`.
pub const SSE_BASE: u16 = 448;
/// Size of the table.
pub const COUNT: usize = 768;

extern "C" fn unused(_: &mut X86Cpu, _: u64, _: u64, _: u64, _: u64) -> u64 {
    0
}

const UNUSED: HelperDesc = HelperDesc {
    name: "unused",
    func: entry(unused),
    args: &[],
    ret: rhea_ir::Type::Void,
    effects: rhea_ir::Effects::PURE,
};

const fn place(mut all: [HelperDesc; COUNT], base: u16, end: u16, part: &[HelperDesc]) -> [HelperDesc; COUNT] {
    assert!(base as usize + part.len() <= end as usize, "a part of the helper table is larger than its room");
    let mut i = 0;
    while i < part.len() {
        all[base as usize + i] = part[i];
        i += 1;
    }
    all
}

const fn join() -> [HelperDesc; COUNT] {
    let all = [UNUSED; COUNT];
    let all = place(all, SYSTEM_BASE, SYSTEM2_BASE, system::TABLE);
    let all = place(all, SYSTEM2_BASE, INTEGER_BASE, system2::TABLE);
    let all = place(all, INTEGER_BASE, STRINGS_BASE, integer::TABLE);
    let all = place(all, STRINGS_BASE, X87_BASE, strings::TABLE);
    let all = place(all, X87_BASE, SSE_BASE, crate::x87::helpers::TABLE);
    place(all, SSE_BASE, COUNT as u16, crate::translate::sse::helpers::TABLE)
}

/// All helpers; indexed by `HelperId`.
pub static HELPERS: [HelperDesc; COUNT] = join();
