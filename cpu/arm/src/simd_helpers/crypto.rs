//! Entries of the cryptographic instructions over [`crate::crypto`].

use crate::crypto::{poly, sha, sm};
use crate::state::ArmCpu;

macro_rules! entries {
    ($($name:ident $kind:tt $f:path;)*) => {$(
        pub extern "C" fn $name(cpu: &mut ArmCpu, a: u64, b: u64, c: u64, d: u64) -> u64 {
            let s = &cpu.header.scratch;
            let _ = (a, b, c, d);
            cpu.header.scratch[7] = entries!(@ $kind $f, s, b, d);
            0
        }
    )*};
    (@ 1 $f:path, $s:ident, $b:ident, $d:ident) => { $f($s[0]) };
    (@ 2 $f:path, $s:ident, $b:ident, $d:ident) => { $f($s[0], $s[1]) };
    (@ 3 $f:path, $s:ident, $b:ident, $d:ident) => { $f($s[0], $s[1], $s[2]) };
    // The second argument is a word.
    (@ word $f:path, $s:ident, $b:ident, $d:ident) => { $f($s[0], $b as u32, $s[1]) };
    // The fourth argument is an index.
    (@ index $f:path, $s:ident, $b:ident, $d:ident) => { $f($s[0], $s[1], $s[2], $d as u32) };
    (@ dwords $f:path, $s:ident, $b:ident, $d:ident) => { $f($s[0] as u64, $s[1] as u64) };
}

entries! {
    sha1c word sha::sha1c;
    sha1p word sha::sha1p;
    sha1m word sha::sha1m;
    sha1su0 3 sha::sha1su0;
    sha1su1 2 sha::sha1su1;
    sha512h 3 sha::sha512h;
    sha512h2 3 sha::sha512h2;
    sha512su0 2 sha::sha512su0;
    sha512su1 3 sha::sha512su1;
    sm3ss1 3 sm::sm3ss1;
    sm3tt1a index sm::sm3tt1a;
    sm3tt1b index sm::sm3tt1b;
    sm3tt2a index sm::sm3tt2a;
    sm3tt2b index sm::sm3tt2b;
    sm3partw1 3 sm::sm3partw1;
    sm3partw2 3 sm::sm3partw2;
    sm4e 2 sm::sm4e;
    sm4ekey 2 sm::sm4ekey;
    pmul 2 poly::pmul_bytes;
    pmull8 dwords poly::pmull_bytes;
}
