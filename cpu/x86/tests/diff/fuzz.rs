//! Any bytes translate to code or to an exception, in every mode.

use super::random::Rng;
use rhea_ir::guest::{Guest, Translated};
use rhea_ir::{Builder, Function, verify};
use rhea_x86::{X86Cpu, X86Mode};

fn mode(rng: &mut Rng) -> X86Mode {
    let m = X86Mode(rng.next()).with_smm(false).with_breakpoints(false).with_host_step(false);
    match rng.below(4) {
        0 => m.with_long(true).with_lma(true).with_protected(true).with_vm86(false).with_flat(true),
        1 => m.with_long(false).with_protected(false).with_vm86(false).with_lma(false),
        2 => m.with_long(false).with_protected(true).with_lma(false),
        _ => m
            .with_long(true)
            .with_lma(true)
            .with_protected(true)
            .with_vm86(false)
            .with_flat(true)
            .with_avx(true)
            .with_sse_ud(false)
            .with_ts(false)
            .with_x87_nm(false),
    }
    .with_mmu_idx(rng.below(6) as u32)
}

#[test]
fn any_bytes() {
    let config = super::check::config();
    let mut rng = Rng::new(super::check::number("RHEA_DIFF_SEED", 1));
    for _ in 0..super::check::number("RHEA_DIFF_BATCHES", 1) * 15_000 {
        let m = mode(&mut rng);
        let mut code = Vec::new();
        let legacy = [0x66u8, 0x67, 0xf0, 0xf2, 0xf3, 0x2e, 0x36, 0x64, 0x65, 0x48, 0x41, 0x0f];
        for _ in 0..rng.below(4) {
            code.push(rng.pick(&legacy));
        }
        match rng.below(4) {
            0 => code.extend([0x0f, rng.next() as u8]),
            1 => code.extend([0xc5, rng.next() as u8]),
            2 => code.extend([0xc4, rng.next() as u8 & 0xe3, rng.next() as u8]),
            _ => {}
        }
        let length = 15 + rng.below(20) as usize;
        while code.len() < length {
            code.push(rng.next() as u8);
        }
        code.truncate(length);
        let pc = if m.long() { rng.next() } else { rng.next() & 0xffff_ffff };
        let mut f = Function::new(X86Cpu::fp_mode(m.0));
        let block = f.new_block(pc);
        let mut b = Builder::new(&mut f, X86Cpu::HELPERS, block);
        let done = X86Cpu::translate(&config, m.0, 0, &code, 1 + rng.below(4) as u32, &mut b);
        if let Translated::Done { bytes } = done {
            assert!(b.is_ended() && bytes > 0, "{code:02x?} in mode {m:x?}");
            drop(b);
            let checked = verify::verify(&f, X86Cpu::HELPERS, verify::Stage::Built);
            assert!(checked.is_ok(), "{code:02x?} in mode {m:x?}: {:?}", checked.err());
        }
    }
}
