//! The ends of the address space: branches to addresses that are none, operands across 4 GiB.

use super::check::compare;
use super::classes::Kind;
use super::native;
use super::state::{STACK_WINDOW, State, Test, place};

fn test(bits: u32, code: &[u8], r: &[(usize, u64)]) -> Test {
    let mut state = State::default();
    state.r[3] = place::DATA;
    state.r[4] = STACK_WINDOW + 256;
    for &(n, v) in r {
        state.r[n] = v;
    }
    Test { code: code.to_vec(), bits, state, undefined: 0, ever_undefined: 0 }
}

fn same_as_the_host(name: &str, tests: &[Test]) {
    if !std::arch::is_x86_feature_detected!("avx") {
        println!("not compared with the host, which has no AVX");
        return;
    }
    let Some(expected) = native::run(tests) else { return };
    let failed = compare(name, Kind::Integer, tests, &expected);
    assert!(failed.is_empty(), "{failed}");
}

#[test]
fn near_branches_to_addresses_that_are_none() {
    let mut tests = Vec::new();
    for address in [1u64 << 47, 0xaaaa_aaaa_aaaa_aaaa, 0xffff_7fff_ffff_ffff, 1 << 63] {
        // JMP, CALL by register; PUSH and RET; with more to release; JMP, CALL by memory, and by memory that RSP points to.
        tests.push(test(64, &[0xff, 0xe0], &[(0, address)]));
        tests.push(test(64, &[0xff, 0xd0], &[(0, address)]));
        tests.push(test(64, &[0x50, 0xc3], &[(0, address)]));
        tests.push(test(64, &[0x50, 0xc2, 0x18, 0], &[(0, address)]));
        for (code, at) in [(&[0xff, 0x63, 0x10][..], 0x10), (&[0xff, 0x53, 0x10], 0x10)] {
            let mut t = test(64, code, &[]);
            t.state.data[at..at + 8].copy_from_slice(&address.to_le_bytes());
            tests.push(t);
        }
        tests.push(test(64, &[0x50, 0xff, 0x14, 0x24], &[(0, address)]));
        tests.push(test(64, &[0x50, 0xff, 0x24, 0x24], &[(0, address)]));
    }
    same_as_the_host("branches", &tests);
}

#[test]
fn operands_across_4_gib() {
    let end = |n: u64| (1 << 32) - n;
    let mut tests = Vec::new();
    for n in [1, 2, 3] {
        let (dx, bp, sp) = ((2, end(n)), (5, end(n)), (4, end(n)));
        // MOV, ADD, MOVUPS by DS; by SS through EBP; by SS of a prefix; PUSH and POP; FLD of ten bytes; MOVSD.
        tests.push(test(32, &[0x8b, 0x02], &[dx]));
        tests.push(test(32, &[0x01, 0x02], &[dx]));
        tests.push(test(32, &[0x0f, 0x10, 0x02], &[dx]));
        tests.push(test(32, &[0x8b, 0x45, 0], &[bp]));
        tests.push(test(32, &[0x36, 0x8b, 0x02], &[dx]));
        // MASKMOVDQU and MASKMOVQ of all bytes and of none.
        for mask in [0x76, 0xef] {
            tests.push(test(32, &[0x66, 0x0f, mask, 0xc9, 0x66, 0x0f, 0xf7, 0xc1], &[(7, end(n))]));
            tests.push(test(32, &[0x0f, mask, 0xc9, 0x0f, 0xf7, 0xc1], &[(7, end(n))]));
        }
        tests.push(test(32, &[0x58], &[sp]));
        tests.push(test(32, &[0x50], &[(4, n)]));
        tests.push(test(32, &[0xdb, 0x2a], &[dx]));
        tests.push(test(32, &[0xa5], &[(6, end(n)), (7, place::DATA)]));
        tests.push(test(32, &[0xa5], &[(6, place::DATA), (7, end(n))]));
    }
    same_as_the_host("operands", &tests);
}
