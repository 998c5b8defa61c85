//! Repeated string instructions. A call does as much as lies within a page of each operand, with the registers exact after each
//! element, and says whether the instruction is finished.
#![expect(unsafe_code, reason = "moves blocks of guest memory by host addresses")]

use crate::flags::packed;
use crate::helpers::STRINGS_BASE;
use crate::mmu::As;
use crate::state::{Seg, X86Cpu, gpr};
use rhea_ir::Effects;
use rhea_ir::env::PAGE_SIZE;
use rhea_ir::guest::{Access, Raised};
use rhea_ir::raw::touch;

crate::helpers! {
    base STRINGS_BASE;
    /// The argument is of [`pack`]; the result is not 0 when the instruction is finished.
    REP = rep, (I64) -> I64, Effects::WRITES_STATE.union(Effects::RAISES);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    Movs,
    Stos,
    Lods,
    Cmps,
    Scas,
}

/// What [`REP`] is to do: `bits` of the element, `address` size, the segment of the source, REPNE, one iteration only (traps),
/// downward, offsets are to be checked against segments.
pub fn pack(
    kind: Kind,
    bits: u32,
    address: u32,
    seg: Seg,
    repne: bool,
    one: bool,
    down: bool,
    segmented: bool,
    mmu_idx: u32,
) -> u64 {
    kind as u64
        | (bits as u64) << 8
        | (address as u64) << 16
        | (seg as u64) << 24
        | (repne as u64) << 32
        | (one as u64) << 33
        | (down as u64) << 34
        | (segmented as u64) << 35
        | (mmu_idx as u64) << 40
}

struct Rep {
    kind: Kind,
    /// Bytes of an element.
    size: u64,
    /// Mask of offsets and the count.
    mask: u64,
    seg: Seg,
    repne: bool,
    down: bool,
    segmented: bool,
    idx: u32,
}

/// Elements after which a call returns, so that interrupts are seen.
const BUDGET: u64 = PAGE_SIZE;

extern "C" fn rep(cpu: &mut X86Cpu, what: u64, _: u64, _: u64, _: u64) -> u64 {
    let bit = |n: u32| what >> n & 1 != 0;
    let r = Rep {
        kind: match what & 7 {
            0 => Kind::Movs,
            1 => Kind::Stos,
            2 => Kind::Lods,
            3 => Kind::Cmps,
            _ => Kind::Scas,
        },
        size: (what >> 8 & 0xff) / 8,
        mask: u64::MAX >> (64 - (what >> 16 & 0xff).clamp(16, 64)),
        seg: Seg::ALL[(what >> 24 & 7).min(5) as usize],
        repne: bit(32),
        down: bit(34),
        segmented: bit(35),
        idx: (what >> 40 & 15) as u32,
    };
    let count = r.count(cpu);
    if count == 0 {
        return 1;
    }
    match r.run(cpu, if bit(33) { 1 } else { count.min(BUDGET) }) {
        Ok(stop) => (stop || r.count(cpu) == 0) as u64,
        Err(Raised) => 0,
    }
}

impl Rep {
    fn count(&self, cpu: &X86Cpu) -> u64 {
        cpu.r[gpr::RCX as usize] & self.mask
    }
    /// Adds to a register of the address size.
    fn add(&self, cpu: &mut X86Cpu, n: u32, v: u64) {
        let r = &mut cpu.r[n as usize];
        let sum = r.wrapping_add(v) & self.mask;
        // 16-bit writes keep the rest of the register, 32-bit ones clear it.
        *r = if self.mask == 0xffff { *r & !0xffff | sum } else { sum };
    }
    fn advance(&self, cpu: &mut X86Cpu, elements: u64) {
        let bytes = elements.wrapping_mul(self.size);
        let bytes = if self.down { bytes.wrapping_neg() } else { bytes };
        if matches!(self.kind, Kind::Movs | Kind::Lods | Kind::Cmps) {
            self.add(cpu, gpr::RSI, bytes);
        }
        if self.kind != Kind::Lods {
            self.add(cpu, gpr::RDI, bytes);
        }
        self.add(cpu, gpr::RCX, elements.wrapping_neg());
    }
    /// The linear address of the next element of an operand.
    fn address(&self, cpu: &mut X86Cpu, n: u32, seg: Seg, write: bool) -> Result<u64, Raised> {
        let offset = cpu.r[n as usize] & self.mask;
        if self.segmented {
            return cpu.operand_address(seg, offset, self.size as u32, write);
        }
        Ok(match seg {
            Seg::Fs | Seg::Gs => cpu.seg[seg as usize].base.wrapping_add(offset),
            _ => offset,
        })
    }
    /// Elements from `va` to the end of its page.
    fn in_page(&self, va: u64) -> u64 {
        (PAGE_SIZE - va % PAGE_SIZE) / self.size
    }

    /// Runs up to `limit` iterations; true if a comparison ended the instruction.
    fn run(&self, cpu: &mut X86Cpu, limit: u64) -> Result<bool, Raised> {
        if matches!(self.kind, Kind::Movs | Kind::Stos) {
            let done = self.block(cpu, limit)?;
            if done > 0 {
                return Ok(false);
            }
        }
        // A device or a page boundary inside an element: a few elements at a time.
        let limit = limit.min(64);
        for _ in 0..limit {
            if self.element(cpu)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Elements from the one at `va` on that lie in its page; none if that one does not.
    fn run_in_page(&self, va: u64) -> u64 {
        match self.in_page(va) {
            0 => 0,
            _ if self.down => va % PAGE_SIZE / self.size + 1,
            n => n,
        }
    }
    /// Elements from offset `o` on before the offset wraps at the address size.
    fn before_wrap(&self, o: u64) -> u64 {
        let o = o & self.mask;
        if self.down { o / self.size } else { (self.mask - o) / self.size }
    }
    /// Does the segment allow element number `n` - 1 from the register's, as it does the first? Then it does those between.
    fn fits(&self, cpu: &mut X86Cpu, register: u32, seg: Seg, n: u64, write: bool) -> bool {
        let span = (n - 1) * self.size;
        let o = cpu.r[register as usize] & self.mask;
        let last = if self.down { o - span } else { o + span };
        !self.segmented || cpu.is_long() || cpu.check_segment(seg as u32, last, self.size as u32, write).is_ok()
    }

    /// Moves or fills what lies in one page; 0 if that is not possible.
    fn block(&self, cpu: &mut X86Cpu, limit: u64) -> Result<u64, Raised> {
        let mut n = limit;
        let src = match self.kind {
            Kind::Movs => {
                let src = self.address(cpu, gpr::RSI, self.seg, false)?;
                n = n.min(self.run_in_page(src)).min(self.before_wrap(cpu.r[gpr::RSI as usize]));
                Some(src)
            }
            _ => None,
        };
        let dst = self.address(cpu, gpr::RDI, Seg::Es, true)?;
        n = n.min(self.run_in_page(dst)).min(self.before_wrap(cpu.r[gpr::RDI as usize]));
        if n == 0 || !self.fits(cpu, gpr::RDI, Seg::Es, n, true) {
            return Ok(0);
        }
        // The lowest of `n` elements, of which `p` is the first.
        let lowest = |p: *mut u8, n: u64| if self.down { p.wrapping_sub(((n - 1) * self.size) as usize) } else { p };
        if let Some(src) = src {
            if !self.fits(cpu, gpr::RSI, self.seg, n, false) {
                return Ok(0);
            }
            let Some(from) = touch(cpu, src, Access::Read, self.idx)? else { return Ok(0) };
            let Some(to) = touch(cpu, dst, Access::Write, self.idx)? else { return Ok(0) };
            let ahead = (to as u64).wrapping_sub(from as u64);
            let ahead = if self.down { ahead.wrapping_neg() } else { ahead };
            if ahead != 0 && ahead < n * self.size {
                // The destination overlaps what is still to be read: elements repeat, as one by one.
                let period = ahead / self.size;
                if !ahead.is_multiple_of(self.size) || period == 0 {
                    return Ok(0);
                }
                n = n.min(period);
            }
            // SAFETY: `touch` gives addresses good for their pages, in which the `n` elements lie; guest memory may change under
            // the copy as under any access of the guest.
            unsafe { std::ptr::copy(lowest(from, n), lowest(to, n), (n * self.size) as usize) };
        } else {
            let Some(to) = touch(cpu, dst, Access::Write, self.idx)? else { return Ok(0) };
            let v = cpu.r[gpr::RAX as usize];
            // SAFETY: as above.
            unsafe { fill(lowest(to, n), v, self.size, n) };
        }
        self.advance(cpu, n);
        Ok(n)
    }

    fn read(&self, cpu: &mut X86Cpu, va: u64) -> Result<u64, Raised> {
        if self.in_page(va) > 0
            && let Some(p) = touch(cpu, va, Access::Read, self.idx)?
        {
            // SAFETY: the element lies in the page that `touch` vouches for.
            return Ok(unsafe {
                match self.size {
                    1 => p.read_volatile().into(),
                    2 => p.cast::<u16>().read_unaligned().into(),
                    4 => p.cast::<u32>().read_unaligned().into(),
                    _ => p.cast::<u64>().read_unaligned(),
                }
            });
        }
        cpu.read_linear(va, self.size as u32, As::Cpl)
    }
    fn write(&self, cpu: &mut X86Cpu, va: u64, v: u64) -> Result<(), Raised> {
        if self.in_page(va) > 0
            && let Some(p) = touch(cpu, va, Access::Write, self.idx)?
        {
            // SAFETY: as in `read`.
            unsafe {
                match self.size {
                    1 => p.write_volatile(v as u8),
                    2 => p.cast::<u16>().write_unaligned(v as u16),
                    4 => p.cast::<u32>().write_unaligned(v as u32),
                    _ => p.cast::<u64>().write_unaligned(v),
                }
            }
            return Ok(());
        }
        cpu.write_linear(va, self.size as u32, v, As::Cpl)
    }

    /// One iteration; true if a comparison ended the instruction.
    fn element(&self, cpu: &mut X86Cpu) -> Result<bool, Raised> {
        let low = |v: u64| v & (u64::MAX >> (64 - 8 * self.size));
        let compare = match self.kind {
            Kind::Movs => {
                let src = self.address(cpu, gpr::RSI, self.seg, false)?;
                let v = self.read(cpu, src)?;
                let dst = self.address(cpu, gpr::RDI, Seg::Es, true)?;
                self.write(cpu, dst, v)?;
                None
            }
            Kind::Stos => {
                let dst = self.address(cpu, gpr::RDI, Seg::Es, true)?;
                self.write(cpu, dst, cpu.r[gpr::RAX as usize])?;
                None
            }
            Kind::Lods => {
                let src = self.address(cpu, gpr::RSI, self.seg, false)?;
                let v = self.read(cpu, src)?;
                let rax = &mut cpu.r[gpr::RAX as usize];
                *rax = match self.size {
                    1 => *rax & !0xff | low(v),
                    2 => *rax & !0xffff | low(v),
                    _ => low(v),
                };
                None
            }
            Kind::Cmps => {
                let src = self.address(cpu, gpr::RSI, self.seg, false)?;
                let a = self.read(cpu, src)?;
                let dst = self.address(cpu, gpr::RDI, Seg::Es, false)?;
                Some((a, self.read(cpu, dst)?))
            }
            Kind::Scas => {
                let dst = self.address(cpu, gpr::RDI, Seg::Es, false)?;
                Some((low(cpu.r[gpr::RAX as usize]), self.read(cpu, dst)?))
            }
        };
        self.advance(cpu, 1);
        let mut stop = false;
        if let Some((a, b)) = compare {
            cpu.set_compare_flags(a, b, 8 * self.size as u32);
            stop = (a == b) == self.repne;
        }
        Ok(stop || self.count(cpu) == 0)
    }
}

/// Fills `n` elements of `size` bytes from `to` on with the low bytes of `v`.
///
/// # Safety
/// `to` is valid for writing `n * size` bytes.
unsafe fn fill(to: *mut u8, v: u64, size: u64, n: u64) {
    let n = n as usize;
    // A pattern of equal bytes, nearly always zero, is a fill of bytes.
    let bytes = v.to_le_bytes();
    let size = size as usize;
    if bytes.iter().take(size).all(|&b| b == bytes[0]) {
        // SAFETY: the caller's.
        unsafe { std::ptr::write_bytes(to, bytes[0], n * size) };
        return;
    }
    for k in 0..n {
        // SAFETY: the caller's; element `k` is one of `n`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.add(k * size), size) };
    }
}

impl X86Cpu {
    /// The status flags of `a - b` on the low `bits`.
    pub(crate) fn set_compare_flags(&mut self, a: u64, b: u64, bits: u32) {
        let shift = 64 - bits;
        let (x, y) = (a << shift, b << shift);
        let (r, borrow) = x.overflowing_sub(y);
        let mut f = 0;
        if r == 0 {
            f |= packed::Z;
        }
        if (r as i64) < 0 {
            f |= packed::N;
        }
        if borrow {
            f |= packed::C;
        }
        if (x as i64).overflowing_sub(y as i64).1 {
            f |= packed::V;
        }
        let difference = a.wrapping_sub(b);
        if (difference as u8).count_ones() & 1 == 0 {
            f |= packed::P;
        }
        if (a ^ b ^ difference) & 16 != 0 {
            f |= packed::A;
        }
        (self.cc, self.cf) = (f, f);
    }
}
