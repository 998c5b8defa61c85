//! FXSAVE, FXRSTOR and the XSAVE family (vol. 1, 10.5 and chapter 13).
#![expect(unsafe_code, reason = "copies save areas by host addresses of guest memory")]

use crate::config::Feature;
use crate::exception::Exception;
use crate::mmu::{As, cr4, efer};
use crate::state::X86Cpu;
use crate::x87::X87;
use rhea_ir::env::PAGE_SIZE;
use rhea_ir::guest::{Access, Raised};
use rhea_ir::raw::touch;

/// State components.
pub const X87_STATE: u64 = 1;
pub const SSE: u64 = 2;
pub const AVX: u64 = 4;
pub const PKRU: u64 = 1 << 9;
/// Bits of MXCSR that exist.
const MXCSR_MASK: u32 = crate::translate::sse::helpers::mxcsr::WRITABLE;
const MXCSR_INIT: u32 = 0x1f80;
/// The legacy region and the header.
const EXTENDED: u32 = 576;
const HEADER: u64 = 512;
/// XCOMP_BV: the compacted format.
const COMPACTED: u64 = 1 << 63;
const GP: Exception = Exception::gp(0);

/// Offset in the standard format and size of a component of the extended region.
#[must_use]
pub const fn component(n: u32) -> Option<(u32, u32)> {
    match n {
        2 => Some((576, 256)),
        9 => Some((832, 8)),
        _ => None,
    }
}

/// Bytes of an area in the standard format for the components of a mask.
#[must_use]
pub fn standard_size(mask: u64) -> u32 {
    (2..63).filter(|n| mask >> n & 1 != 0).filter_map(component).map(|(o, s)| o + s).fold(EXTENDED, u32::max)
}

/// The same in the compacted format, in which the components follow each other.
#[must_use]
pub fn compacted_size(mask: u64) -> u32 {
    (2..63).filter(|n| mask >> n & 1 != 0).filter_map(component).map(|(_, s)| s).sum::<u32>() + EXTENDED
}

/// Offset of PKRU: AVX state, if it is part of the format, comes before it.
fn pkru_offset(compacted: bool, format: u64) -> u64 {
    match (compacted, format & AVX != 0) {
        (false, _) => 832,
        (true, true) => 832,
        (true, false) => 576,
    }
}

/// The variants of XSAVE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Save {
    Xsave,
    Xsaveopt,
    Xsavec,
    Xsaves,
}

impl Save {
    #[must_use]
    pub const fn of(n: u64) -> Save {
        match n {
            0 => Save::Xsave,
            1 => Save::Xsaveopt,
            2 => Save::Xsavec,
            _ => Save::Xsaves,
        }
    }
}

/// Bytes 0–23 and 32–159 of the legacy region.
fn x87_image(x: &X87, wide: bool) -> ([u8; 24], [u8; 128]) {
    let mut head = [0; 24];
    head[0..2].copy_from_slice(&x.control_word().to_le_bytes());
    head[2..4].copy_from_slice(&x.status_word().to_le_bytes());
    head[4] = x.abridged_tags();
    head[6..8].copy_from_slice(&(x.fop as u16 & 0x7ff).to_le_bytes());
    if wide {
        head[8..16].copy_from_slice(&x.fip.to_le_bytes());
        head[16..24].copy_from_slice(&x.fdp.to_le_bytes());
    } else {
        head[8..12].copy_from_slice(&(x.fip as u32).to_le_bytes());
        head[12..14].copy_from_slice(&(x.fcs as u16).to_le_bytes());
        head[16..20].copy_from_slice(&(x.fdp as u32).to_le_bytes());
        head[20..22].copy_from_slice(&(x.fds as u16).to_le_bytes());
    }
    let mut registers = [0; 128];
    for (i, r) in registers.chunks_exact_mut(16).enumerate() {
        let (significand, sign_exponent) = x.st(i as u32);
        r[0..8].copy_from_slice(&significand.to_le_bytes());
        r[8..10].copy_from_slice(&sign_exponent.to_le_bytes());
    }
    (head, registers)
}

fn u16_at(b: &[u8], at: usize) -> u16 {
    b.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes)
}
fn u32_at(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}
fn u64_at(b: &[u8], at: usize) -> u64 {
    b.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}
fn u128_at(b: &[u8], at: usize) -> u128 {
    b.get(at..at + 16).and_then(|b| b.try_into().ok()).map_or(0, u128::from_le_bytes)
}

/// The x87 state of a legacy region.
fn x87_from(area: &[u8], wide: bool) -> X87 {
    let mut x = X87::default();
    x.set_control_word(u16_at(area, 0));
    x.set_status_word(u16_at(area, 2));
    x.set_abridged_tags(area.get(4).copied().unwrap_or(0));
    x.fop = u32::from(u16_at(area, 6)) & 0x7ff;
    if wide {
        x.fip = u64_at(area, 8);
        x.fdp = u64_at(area, 16);
    } else {
        x.fip = u32_at(area, 8).into();
        x.fcs = u16_at(area, 12).into();
        x.fdp = u32_at(area, 16).into();
        x.fds = u16_at(area, 20).into();
    }
    for i in 0..8 {
        let at = 32 + 16 * i as usize;
        x.set_st(i, u64_at(area, at), u16_at(area, at + 8));
    }
    x
}

impl X86Cpu {
    /// MXCSR of a save area, whose bits were checked.
    fn load_mxcsr(&mut self, v: u32) {
        if v != self.mxcsr() {
            self.set_mxcsr(v);
        }
    }

    // ---- memory ----

    fn fails<T>(&mut self, e: Exception) -> Result<T, Raised> {
        self.raise_exception(e);
        Err(Raised)
    }
    /// Stores bytes with the program's rights.
    fn put(&mut self, va: u64, data: &[u8]) -> Result<(), Raised> {
        if va % PAGE_SIZE + data.len() as u64 <= PAGE_SIZE && !self.page_is_watched(va) {
            let idx = self.cpl_index();
            if let Some(to) = touch(self, va, Access::Write, idx)? {
                // SAFETY: `touch` gives an address that is good for writing up to the end of the page.
                unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to, data.len()) };
                return Ok(());
            }
        }
        self.write_bytes(va, data, As::Cpl)
    }
    fn get(&mut self, va: u64, data: &mut [u8]) -> Result<(), Raised> {
        if va % PAGE_SIZE + data.len() as u64 <= PAGE_SIZE && !self.page_is_watched(va) {
            let idx = self.cpl_index();
            if let Some(from) = touch(self, va, Access::Read, idx)? {
                // SAFETY: as above, for reading.
                unsafe { std::ptr::copy_nonoverlapping(from, data.as_mut_ptr(), data.len()) };
                return Ok(());
            }
        }
        self.read_bytes(va, data, As::Cpl)
    }
    fn at(&self, va: u64, offset: u64) -> u64 {
        let va = va.wrapping_add(offset);
        if self.is_long() { va } else { va & 0xffff_ffff }
    }
    /// XMM registers that the area has in this mode.
    fn vectors(&self) -> usize {
        if self.is_long() { 16 } else { 8 }
    }
    fn xmm_image(&self) -> [u8; 256] {
        let mut image = [0; 256];
        for (b, x) in image.chunks_exact_mut(16).zip(self.xmm) {
            b.copy_from_slice(&x.to_le_bytes());
        }
        image
    }
    fn ymm_image(&self) -> [u8; 256] {
        let mut image = [0; 256];
        for (b, x) in image.chunks_exact_mut(16).zip(self.ymm_hi) {
            b.copy_from_slice(&x.to_le_bytes());
        }
        image
    }
    fn put_x87(&mut self, va: u64, wide: bool) -> Result<(), Raised> {
        let (head, registers) = x87_image(&self.x87, wide);
        self.put(va, &head)?;
        self.put(self.at(va, 32), &registers)
    }
    fn put_xmm(&mut self, va: u64) -> Result<(), Raised> {
        let image = self.xmm_image();
        let n = self.vectors() * 16;
        self.put(self.at(va, 160), &image[..n])
    }
    fn put_mxcsr(&mut self, va: u64) -> Result<(), Raised> {
        let both = u64::from(self.mxcsr()) | u64::from(MXCSR_MASK) << 32;
        self.put(self.at(va, 24), &both.to_le_bytes())
    }

    // ---- FXSAVE ----

    /// XMM registers are left out (APM vol. 2, FFXSR).
    fn fast_fxsave(&self) -> bool {
        self.efer & efer::FFXSR != 0 && self.is_long() && self.cpl() == 0
    }
    /// FXSAVE to an address of the program; the exception was raised on failure.
    pub(crate) fn fxsave(&mut self, va: u64, wide: bool) -> Result<(), Raised> {
        if va & 15 != 0 {
            return self.fails(GP);
        }
        self.probe_write(va, 512, As::Cpl)?;
        self.put_x87(va, wide)?;
        self.put_mxcsr(va)?;
        if !self.fast_fxsave() {
            self.put_xmm(va)?;
        }
        Ok(())
    }
    pub(crate) fn fxrstor(&mut self, va: u64, wide: bool) -> Result<(), Raised> {
        if va & 15 != 0 {
            return self.fails(GP);
        }
        let mut area = [0; 512];
        self.get(va, &mut area)?;
        let mxcsr = u32_at(&area, 24);
        if mxcsr & !MXCSR_MASK != 0 {
            return self.fails(GP);
        }
        self.x87 = x87_from(&area, wide);
        if !self.fast_fxsave() {
            for n in 0..self.vectors() {
                self.xmm[n] = u128_at(&area, 160 + 16 * n);
            }
        }
        self.load_mxcsr(mxcsr);
        Ok(())
    }

    // ---- XSAVE ----

    /// XGETBV.
    ///
    /// # Errors
    /// #UD, #GP(0).
    pub(crate) fn xgetbv(&self, n: u32) -> Result<u64, Exception> {
        if self.cr4 & cr4::OSXSAVE == 0 {
            return Err(Exception::ud());
        }
        match n {
            0 => Ok(self.xcr0),
            1 if self.has(Feature::Xgetbv1) => Ok(self.xcr0 & self.in_use()),
            _ => Err(GP),
        }
    }
    /// XSETBV; privilege was checked. Changes the mode.
    ///
    /// # Errors
    /// #UD, #GP(0).
    pub(crate) fn xsetbv(&mut self, n: u32, v: u64) -> Result<(), Exception> {
        if self.cr4 & cr4::OSXSAVE == 0 {
            return Err(Exception::ud());
        }
        // x87 state always; AVX state needs SSE state.
        if n != 0 || v & X87_STATE == 0 || v & (SSE | AVX) == AVX || v & !self.config.xcr0_allowed() != 0 {
            return Err(GP);
        }
        self.xcr0 = v;
        self.rebuild_mode();
        Ok(())
    }
    /// XINUSE: components that are not in their initial configuration.
    fn in_use(&self) -> u64 {
        let mut m = 0;
        if !self.x87.is_initial() {
            m |= X87_STATE;
        }
        let n = self.vectors();
        if self.xmm[..n].iter().any(|x| *x != 0) {
            m |= SSE;
        }
        if self.ymm_hi[..n].iter().any(|x| *x != 0) {
            m |= AVX;
        }
        if self.pkru != 0 {
            m |= PKRU;
        }
        m
    }
    /// The requested components, after the checks that all the instructions begin with.
    fn requested(&mut self, va: u64) -> Result<u64, Raised> {
        if self.cr4 & cr4::OSXSAVE == 0 {
            return self.fails(Exception::ud());
        }
        if va & 63 != 0 {
            return self.fails(GP);
        }
        Ok(self.xcr0 & (u64::from(self.r[2] as u32) << 32 | u64::from(self.r[0] as u32)))
    }
    pub(crate) fn xsave(&mut self, va: u64, wide: bool, kind: Save) -> Result<(), Raised> {
        let requested = self.requested(va)?;
        let in_use = self.in_use();
        let compacted = matches!(kind, Save::Xsavec | Save::Xsaves);
        let size = if compacted { compacted_size(requested) } else { standard_size(requested) };
        self.probe_write(va, size.into(), As::Cpl)?;
        let header = self.at(va, HEADER);
        let mut saved = if kind == Save::Xsave { requested } else { requested & in_use };
        if compacted && requested & SSE != 0 && self.mxcsr() != MXCSR_INIT {
            // MXCSR is part of the component.
            saved |= SSE;
        }
        if saved & X87_STATE != 0 {
            self.put_x87(va, wide)?;
        }
        let mxcsr = if compacted { saved & SSE } else { requested & (SSE | AVX) };
        if mxcsr != 0 {
            self.put_mxcsr(va)?;
        }
        if saved & SSE != 0 {
            self.put_xmm(va)?;
        }
        if saved & AVX != 0 {
            let image = self.ymm_image();
            let n = self.vectors() * 16;
            self.put(self.at(va, 576), &image[..n])?;
        }
        if saved & PKRU != 0 {
            let at = self.at(va, pkru_offset(compacted, requested));
            self.put(at, &u64::from(self.pkru).to_le_bytes())?;
        }
        if compacted {
            let mut words = [0; 16];
            words[..8].copy_from_slice(&saved.to_le_bytes());
            words[8..].copy_from_slice(&(requested | COMPACTED).to_le_bytes());
            self.put(header, &words)
        } else {
            let mut old = [0; 8];
            self.get(header, &mut old)?;
            let bv = u64::from_le_bytes(old) & !requested | requested & in_use;
            self.put(header, &bv.to_le_bytes())
        }
    }
    pub(crate) fn xrstor(&mut self, va: u64, wide: bool, supervisor: bool) -> Result<(), Raised> {
        let requested = self.requested(va)?;
        let mut area = [0; 1024];
        self.get(va, &mut area[..EXTENDED as usize])?;
        let (bv, xcomp) = (u64_at(&area, 512), u64_at(&area, 520));
        let compacted = xcomp & COMPACTED != 0;
        let rest_is_zero = |from: usize| area[from..EXTENDED as usize].iter().all(|b| *b == 0);
        let valid = if compacted {
            self.has(Feature::Xsavec) && xcomp & !COMPACTED & !self.xcr0 == 0 && bv & !xcomp == 0 && rest_is_zero(528)
        } else {
            !supervisor && xcomp == 0 && bv & !self.xcr0 == 0 && u64_at(&area, 528) == 0
        };
        if !valid {
            return self.fails(GP);
        }
        let load = requested & bv;
        let mxcsr = if compacted {
            (requested & SSE != 0).then(|| if load & SSE != 0 { u32_at(&area, 24) } else { MXCSR_INIT })
        } else {
            (requested & (SSE | AVX) != 0).then(|| u32_at(&area, 24))
        };
        if mxcsr.is_some_and(|v| v & !MXCSR_MASK != 0) {
            return self.fails(GP);
        }
        if load & AVX != 0 {
            let at = self.at(va, 576);
            self.get(at, &mut area[576..832])?;
        }
        if load & PKRU != 0 {
            let at = self.at(va, pkru_offset(compacted, xcomp));
            let mut word = [0; 8];
            self.get(at, &mut word)?;
            area[832..840].copy_from_slice(&word);
        }
        // Nothing faults any more.
        if requested & X87_STATE != 0 {
            self.x87 = if load & X87_STATE != 0 { x87_from(&area, wide) } else { X87::default() };
        }
        let n = self.vectors();
        if requested & SSE != 0 {
            for i in 0..n {
                self.xmm[i] = if load & SSE != 0 { u128_at(&area, 160 + 16 * i) } else { 0 };
            }
        }
        if requested & AVX != 0 {
            for i in 0..n {
                self.ymm_hi[i] = if load & AVX != 0 { u128_at(&area, 576 + 16 * i) } else { 0 };
            }
        }
        if requested & PKRU != 0 {
            let v = if load & PKRU != 0 { u32_at(&area, 832) } else { 0 };
            self.set_pkru(v);
        }
        if let Some(v) = mxcsr {
            self.load_mxcsr(v);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::parse;
    use crate::tests::Bench;

    const AT: u64 = 0x8000;

    /// All components in use; the clock stands, interrupts are off.
    fn bench() -> Bench {
        let mut b = Bench::with(parse("max").map(|p| p.config).unwrap_or_else(|e| panic!("{e}")));
        b.cr4 |= cr4::OSFXSR | cr4::OSXSAVE;
        b.xcr0 = 0x207;
        fill(&mut b, 1);
        (b.r[0], b.r[2]) = (u64::MAX, u64::MAX);
        b
    }
    fn fill(b: &mut Bench, seed: u64) {
        for n in 0..8 {
            b.xmm[n] = u128::from(seed * 100 + n as u64) << 64 | 7;
            b.ymm_hi[n] = u128::from(seed * 200 + n as u64) << 32 | 9;
            b.x87.set_st(n as u32, seed << 63 | n as u64, 0x3fff);
        }
        b.x87.set_control_word(0x27f);
        b.x87.set_status_word(0x3800);
        b.x87.set_abridged_tags(0x81);
        b.set_mxcsr(0x1f80 | 0x2000);
        b.set_pkru(seed as u32 * 4);
    }
    fn state(b: &Bench) -> (X87, [u128; 16], [u128; 16], u32, u32) {
        (b.x87.clone(), b.xmm, b.ymm_hi, b.pkru, b.mxcsr())
    }
    fn clear(b: &mut Bench) {
        b.x87 = X87::default();
        b.xmm = [0; 16];
        b.ymm_hi = [0; 16];
        b.pkru = 0;
        b.set_mxcsr(MXCSR_INIT);
    }

    #[test]
    fn round_trips() {
        for kind in [Save::Xsave, Save::Xsaveopt, Save::Xsavec, Save::Xsaves] {
            let mut b = bench();
            let want = state(&b);
            b.xsave(AT, true, kind).unwrap();
            assert_eq!(b.get(AT + 512, 8), 0x207, "{kind:?}");
            clear(&mut b);
            b.xrstor(AT, true, kind == Save::Xsaves).unwrap();
            assert_eq!(state(&b), want, "{kind:?}");
        }
    }
    #[test]
    fn initial_components() {
        let mut b = bench();
        clear(&mut b);
        b.put(AT + 160, 8, 0x55);
        b.xsave(AT, true, Save::Xsavec).unwrap();
        assert_eq!((b.get(AT + 512, 8), b.get(AT + 520, 8)), (0, 0x207 | COMPACTED));
        assert_eq!(b.get(AT + 160, 8), 0x55, "what is not in use is not written");
        let initial = state(&b);
        fill(&mut b, 3);
        b.xrstor(AT, true, false).unwrap();
        assert_eq!(state(&b), initial);
        // The standard format keeps the bits of components that are not asked for.
        b.put(AT + 520, 8, 0);
        b.put(AT + 512, 8, 0x204);
        (b.r[0], b.r[2]) = (3, 0);
        b.xsave(AT, true, Save::Xsave).unwrap();
        assert_eq!(b.get(AT + 512, 8), 0x204);
    }
    #[test]
    fn compacted_offsets() {
        let mut b = bench();
        (b.r[0], b.r[2]) = (PKRU | SSE, 0);
        b.xsave(AT, true, Save::Xsavec).unwrap();
        assert_eq!(b.get(AT + 576, 8), u64::from(b.pkru));
    }
    #[test]
    fn bad_headers() {
        let fails = |change: fn(&mut Bench), supervisor: bool| {
            let mut b = bench();
            b.xsave(AT, true, Save::Xsave).unwrap();
            change(&mut b);
            let before = state(&b);
            assert!(b.xrstor(AT, true, supervisor).is_err());
            assert_eq!(state(&b), before);
        };
        fails(|b| b.put(AT + 512, 8, 8), false);
        fails(|b| b.put(AT + 520, 8, 1), false);
        fails(|b| b.put(AT + 528, 8, 1), false);
        fails(|b| b.put(AT + 24, 4, 0x1_0000), false);
        fails(|_| {}, true);
        fails(|b| b.put(AT + 520, 8, COMPACTED | 1 << 5), false);
        fails(|b| b.put(AT + 520, 8, COMPACTED), false);
        let mut b = bench();
        assert!(b.xsave(AT + 32, true, Save::Xsave).is_err(), "alignment");
        b.cr4 &= !cr4::OSXSAVE;
        assert!(b.xsave(AT, true, Save::Xsave).is_err());
        assert!(b.xgetbv(0).is_err());
    }
    #[test]
    fn legacy_format() {
        for wide in [false, true] {
            let mut b = bench();
            let want = state(&b);
            b.fxsave(AT, wide).unwrap();
            assert_eq!(b.get(AT + 28, 4), 0xffff);
            assert_eq!(b.get(AT + 4, 1), 0x81);
            // Register 0 of the area is the top of the stack.
            assert_eq!(b.get(AT + 32, 8), b.x87.st(0).0);
            let ymm = b.ymm_hi;
            clear(&mut b);
            b.ymm_hi = ymm;
            b.pkru = want.3;
            b.fxrstor(AT, wide).unwrap();
            assert_eq!(state(&b), want);
            b.put(AT + 24, 4, 0x8001_0000);
            assert!(b.fxrstor(AT, wide).is_err());
            assert!(b.fxsave(AT + 8, wide).is_err());
        }
    }
    #[test]
    fn control_of_components() {
        let mut b = bench();
        assert_eq!(b.xsetbv(0, 7), Ok(()));
        assert_eq!(b.xgetbv(0), Ok(7));
        for v in [0, 2, 5, 0xf, 1 << 62 | 7] {
            assert_eq!(b.xsetbv(0, v), Err(GP), "{v:#x}");
        }
        assert_eq!(b.xsetbv(1, 7), Err(GP));
        clear(&mut b);
        assert_eq!(b.xgetbv(1), Ok(0));
        b.ymm_hi[3] = 1;
        assert_eq!(b.xgetbv(1), Ok(AVX));
        assert_eq!(b.xgetbv(2), Err(GP));
    }
}
