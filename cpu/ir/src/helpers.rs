//! Tables of helpers ([`Guest::HELPERS`](crate::Guest::HELPERS)): each part of a front end declares its own and the parts are
//! joined at compile time.

use crate::guest::{Effects, HelperDesc, HelperFn};
use crate::types::Type;

/// Declares helpers of a processor: constants of type `HelperId` and a `TABLE`.
///
/// ```ignore
/// helper_table! {
///     cpu PpcCpu, base crate::helpers::SYSTEM_BASE;
///     /// Reads a special-purpose register.
///     MFSPR = mfspr, (I32) -> I64, Effects::WRITES_STATE;
/// }
/// ```
/// `mfspr` is the path of an `extern "C" fn(&mut PpcCpu, u64, u64, u64, u64) -> u64`.
#[macro_export]
macro_rules! helper_table {
    (cpu $cpu:ty, base $base:expr; $($(#[$doc:meta])* $id:ident = $f:path, ($($arg:ident),*) -> $ret:ident, $eff:expr;)*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, dead_code)]
        #[repr(u16)]
        enum HelperIndex { $($id,)* End }
        $($(#[$doc])*
        pub const $id: $crate::HelperId = $crate::HelperId($base + HelperIndex::$id as u16);)*
        /// The helpers of this file, in the order of their ids.
        pub const TABLE: &[$crate::HelperDesc] = &[$($crate::HelperDesc {
            name: stringify!($id),
            func: {
                let f: for<'a> extern "C" fn(&'a mut $cpu, u64, u64, u64, u64) -> u64 = $f;
                $crate::guest::HelperFn(f as *const ())
            },
            args: &[$($crate::Type::$arg),*],
            ret: $crate::Type::$ret,
            effects: $eff,
        },)*];
    };
}

extern "C" fn unused(_: *mut (), _: u64, _: u64, _: u64, _: u64) -> u64 {
    0
}

const UNUSED: HelperDesc = HelperDesc {
    name: "unused",
    func: HelperFn(unused as *const ()),
    args: &[],
    ret: Type::Void,
    effects: Effects::PURE,
};

/// Joins parts, each with its first id; a part must end before the next one begins.
pub const fn join<const N: usize>(parts: &[(u16, &[HelperDesc])]) -> [HelperDesc; N] {
    let mut all = [UNUSED; N];
    let mut n = 0;
    while n < parts.len() {
        let (base, part) = parts[n];
        let end = if n + 1 < parts.len() { parts[n + 1].0 as usize } else { N };
        assert!(base as usize + part.len() <= end, "a part of the helper table is larger than its room");
        let mut i = 0;
        while i < part.len() {
            all[base as usize + i] = part[i];
            i += 1;
        }
        n += 1;
    }
    all
}
