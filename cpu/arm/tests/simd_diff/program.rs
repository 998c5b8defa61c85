//! An AArch64 program that runs single instructions on given states, and running it under `qemu-aarch64`.

use std::io::Write;
use std::process::Command;

pub const IN_BYTES: usize = 512 + 128 + 32;
pub const SCRATCH_BYTES: usize = 192;
pub const OUT_BYTES: usize = 512 + 128 + 32 + SCRATCH_BYTES;
/// Guest address of the memory that loads and stores under test use.
pub const SCRATCH: u64 = 0x2000_0000;

const CODE: u64 = 0x40_0000;
const PARAMS: u64 = 0x1000_0000;
const INPUT: u64 = 0x1000_1000;
const OUTPUT: u64 = 0x3000_0000;

/// Takes the addresses from the parameter block, installs the SIGILL handler.
const START: &[u32] = &[
    0xd2a20001, // mov x1, #0x10000000
    0xf940103d, // ldr x29, [x1, #32]
    0xf940143b, // ldr x27, [x1, #40]
    0xf940183a, // ldr x26, [x1, #48]
    0xd2800080, // mov x0, #0x4
    0xd2800002, // mov x2, #0x0
    0xd2800103, // mov x3, #0x8
    0xd28010c8, // mov x8, #0x86
    0xd4000001, // svc #0x0
];

/// Writes the records to standard output, exits.
const FINISH: &[u32] = &[
    0xd2a20009, // mov x9, #0x10000000
    0xf9401521, // ldr x1, [x9, #40]
    0xf9401d22, // ldr x2, [x9, #56]
    0xd2800020, // mov x0, #0x1
    0xd2800808, // mov x8, #0x40
    0xd4000001, // svc #0x0
    0xf100001f, // cmp x0, #0x0
    0x5400008d, // b.le 50
    0x8b000021, // add x1, x1, x0
    0xeb000042, // subs x2, x2, x0
    0x54ffff21, // b.ne 30
    0xd2800000, // mov x0, #0x0
    0xd2800bc8, // mov x8, #0x5e
    0xd4000001, // svc #0x0
];

/// Loads the state of the record at x29.
const LOAD: &[u32] = &[
    0x4cdf2fa0, // ld1 {v0.2d-v3.2d}, [x29], #64
    0x4cdf2fa4, // ld1 {v4.2d-v7.2d}, [x29], #64
    0x4cdf2fa8, // ld1 {v8.2d-v11.2d}, [x29], #64
    0x4cdf2fac, // ld1 {v12.2d-v15.2d}, [x29], #64
    0x4cdf2fb0, // ld1 {v16.2d-v19.2d}, [x29], #64
    0x4cdf2fb4, // ld1 {v20.2d-v23.2d}, [x29], #64
    0x4cdf2fb8, // ld1 {v24.2d-v27.2d}, [x29], #64
    0x4cdf2fbc, // ld1 {v28.2d-v31.2d}, [x29], #64
    0xa8c107a0, // ldp x0, x1, [x29], #16
    0xa8c10fa2, // ldp x2, x3, [x29], #16
    0xa8c117a4, // ldp x4, x5, [x29], #16
    0xa8c11fa6, // ldp x6, x7, [x29], #16
    0xa8c127a8, // ldp x8, x9, [x29], #16
    0xa8c12faa, // ldp x10, x11, [x29], #16
    0xa8c137ac, // ldp x12, x13, [x29], #16
    0xa8c13fae, // ldp x14, x15, [x29], #16
    0xa8c147b0, // ldp x16, x17, [x29], #16
    0xd51b4410, // msr fpcr, x16
    0xd51b4431, // msr fpsr, x17
    0xa8c147b0, // ldp x16, x17, [x29], #16
    0xd51b4210, // msr nzcv, x16
    0xd280001c, // mov x28, #0x0
    0xd65f03c0, // ret
];

/// Stores the state and the scratch memory to the record at x27.
const SAVE: &[u32] = &[
    0x4c9f2f60, // st1 {v0.2d-v3.2d}, [x27], #64
    0x4c9f2f64, // st1 {v4.2d-v7.2d}, [x27], #64
    0x4c9f2f68, // st1 {v8.2d-v11.2d}, [x27], #64
    0x4c9f2f6c, // st1 {v12.2d-v15.2d}, [x27], #64
    0x4c9f2f70, // st1 {v16.2d-v19.2d}, [x27], #64
    0x4c9f2f74, // st1 {v20.2d-v23.2d}, [x27], #64
    0x4c9f2f78, // st1 {v24.2d-v27.2d}, [x27], #64
    0x4c9f2f7c, // st1 {v28.2d-v31.2d}, [x27], #64
    0xa8810760, // stp x0, x1, [x27], #16
    0xa8810f62, // stp x2, x3, [x27], #16
    0xa8811764, // stp x4, x5, [x27], #16
    0xa8811f66, // stp x6, x7, [x27], #16
    0xa8812768, // stp x8, x9, [x27], #16
    0xa8812f6a, // stp x10, x11, [x27], #16
    0xa881376c, // stp x12, x13, [x27], #16
    0xa8813f6e, // stp x14, x15, [x27], #16
    0xd53b4430, // mrs x16, fpsr
    0xd53b4211, // mrs x17, nzcv
    0xa8814770, // stp x16, x17, [x27], #16
    0xa8817f7c, // stp x28, xzr, [x27], #16
    0xd51b441f, // msr fpcr, xzr
    0xaa1a03f4, // mov x20, x26
    0x4cdf2e80, // ld1 {v0.2d-v3.2d}, [x20], #64
    0x4c9f2f60, // st1 {v0.2d-v3.2d}, [x27], #64
    0x4cdf2e80, // ld1 {v0.2d-v3.2d}, [x20], #64
    0x4c9f2f60, // st1 {v0.2d-v3.2d}, [x27], #64
    0x4cdf2e80, // ld1 {v0.2d-v3.2d}, [x20], #64
    0x4c9f2f60, // st1 {v0.2d-v3.2d}, [x27], #64
    0xd65f03c0, // ret
];

/// SIGILL: skips the instruction and sets x28.
const HANDLER: &[u32] = &[
    0xf940dc43, // ldr x3, [x2, #440]
    0x91001063, // add x3, x3, #0x4
    0xf900dc43, // str x3, [x2, #440]
    0xd2800024, // mov x4, #0x1
    0xf900cc44, // str x4, [x2, #408]
    0xd65f03c0, // ret
];

/// One instruction and the state it starts from.
#[derive(Clone, Debug)]
pub struct Case {
    pub insn: u32,
    pub v: [u128; 32],
    pub x: [u64; 16],
    pub fpcr: u32,
    pub fpsr: u32,
    /// In bits 31..28.
    pub nzcv: u32,
}

/// The state after an instruction.
#[derive(Clone, PartialEq, Debug)]
pub struct Result {
    pub v: [u128; 32],
    pub x: [u64; 16],
    pub fpsr: u32,
    pub nzcv: u32,
    pub undefined: bool,
    pub scratch: Vec<u8>,
}

fn record(c: &Case) -> Vec<u8> {
    let mut r = Vec::with_capacity(IN_BYTES);
    c.v.iter().for_each(|v| r.extend(v.to_le_bytes()));
    c.x.iter().for_each(|x| r.extend(x.to_le_bytes()));
    [c.fpcr, c.fpsr, c.nzcv, 0].iter().for_each(|&w| r.extend((w as u64).to_le_bytes()));
    r
}

fn parse(r: &[u8]) -> Result {
    let q = |at: usize| u64::from_le_bytes(r[at..at + 8].try_into().unwrap());
    let mut out =
        Result { v: [0; 32], x: [0; 16], fpsr: q(640) as u32, nzcv: q(648) as u32, undefined: q(656) != 0, scratch: r[672..].to_vec() };
    for n in 0..32 {
        out.v[n] = q(n * 16) as u128 | (q(n * 16 + 8) as u128) << 64;
    }
    for n in 0..16 {
        out.x[n] = q(512 + n * 8);
    }
    out
}

fn bl(from: usize, to: usize) -> u32 {
    0x9400_0000 | ((to.wrapping_sub(from)) as u32 & 0x3ff_ffff)
}

/// A static executable that runs the cases one after another.
fn executable(cases: &[Case], scratch: &[u8]) -> Vec<u8> {
    let mut code = START.to_vec();
    let load = START.len() + 3 * cases.len() + FINISH.len();
    let save = load + LOAD.len();
    let handler = save + SAVE.len();
    for c in cases {
        code.push(bl(code.len(), load));
        code.push(c.insn);
        code.push(bl(code.len(), save));
    }
    for part in [FINISH, LOAD, SAVE, HANDLER] {
        code.extend(part);
    }
    let mut data = Vec::new();
    // struct sigaction: handler, SA_SIGINFO, restorer, mask; then the parameters.
    for w in [CODE + 4 * handler as u64, 4, 0, 0, INPUT, OUTPUT, SCRATCH, (cases.len() * OUT_BYTES) as u64] {
        data.extend(w.to_le_bytes());
    }
    data.resize((INPUT - PARAMS) as usize, 0);
    cases.iter().for_each(|c| data.extend(record(c)));
    let code: Vec<u8> = code.iter().flat_map(|w| w.to_le_bytes()).collect();

    // ELF header, four segments, contents at page-aligned file offsets.
    let mut e = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let half = |e: &mut Vec<u8>, v: &[u16]| v.iter().for_each(|h| e.extend(h.to_le_bytes()));
    let quad = |e: &mut Vec<u8>, v: &[u64]| v.iter().for_each(|q| e.extend(q.to_le_bytes()));
    half(&mut e, &[2, 183, 1, 0]);
    quad(&mut e, &[CODE, 64, 0]);
    half(&mut e, &[0, 0, 64, 56, 4, 0, 0, 0]);
    let page = |n: usize| n.div_ceil(4096) * 4096;
    let at_code = 4096;
    let at_data = at_code + page(code.len());
    let at_scratch = at_data + page(data.len());
    let segments = [
        (5u32, at_code, CODE, code.len(), code.len()),
        (6, at_data, PARAMS, data.len(), data.len()),
        (6, at_scratch, SCRATCH, scratch.len(), 4096),
        (6, at_scratch + 4096, OUTPUT, 0, cases.len() * OUT_BYTES + 4096),
    ];
    for (flags, at, va, size, memory) in segments {
        e.extend(1u32.to_le_bytes());
        e.extend(flags.to_le_bytes());
        quad(&mut e, &[at as u64, va, va, size as u64, memory as u64, 4096]);
    }
    e.resize(at_code, 0);
    e.extend(&code);
    e.resize(at_data, 0);
    e.extend(&data);
    e.resize(at_scratch, 0);
    e.extend(scratch);
    e.resize(at_scratch + 4096, 0);
    e
}

/// Runs the cases under `qemu-aarch64`; `None` if it is not installed.
pub fn run(cases: &[Case], scratch: &[u8], name: &str) -> Option<Vec<Result>> {
    let path = std::env::temp_dir().join(format!("rhea-simd-{}-{name}", std::process::id()));
    let mut file = std::fs::File::create(&path).expect("temporary file");
    file.write_all(&executable(cases, scratch)).expect("temporary file");
    drop(file);
    let mut perms = std::fs::metadata(&path).expect("metadata").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut perms, 0o755);
    std::fs::set_permissions(&path, perms).expect("permissions");
    let out = Command::new("qemu-aarch64").args(["-cpu", "max"]).arg(&path).output();
    std::fs::remove_file(&path).ok();
    let out = out.ok()?;
    assert_eq!(out.stdout.len(), cases.len() * OUT_BYTES, "{}: {}", out.status, String::from_utf8_lossy(&out.stderr));
    Some(out.stdout.chunks(OUT_BYTES).map(parse).collect())
}
