//! Accesses to linear addresses by the processor itself and by helpers.

use super::cr4;
use crate::exception::Exception;
use crate::flags;
use crate::mode::mmu as index;
use crate::state::{Seg, X86Cpu};
use rhea_ir::guest::{Access, Raised};

/// With whose rights a helper accesses memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum As {
    /// As the program does.
    Cpl,
    /// As the processor does with descriptor tables and task-state segments.
    System,
}

const RECENT: usize = 64;

#[derive(Clone, Copy)]
struct Entry {
    /// Page address | generation << 4 | 8 if it may be written | MMU index.
    tag: u64,
    page: u64,
}

/// Recent translations of this kind of access, dropped with the TLB.
pub(crate) struct Recent([Entry; RECENT]);

impl Default for Recent {
    fn default() -> Recent {
        Recent([Entry { tag: u64::MAX, page: 0 }; RECENT])
    }
}

impl Recent {
    pub fn clear(&mut self) {
        for e in &mut self.0 {
            e.tag = u64::MAX;
        }
    }
}

impl X86Cpu {
    /// The MMU index of an access as the current program does it.
    pub(crate) fn cpl_index(&self) -> u32 {
        self.index_of(self.cpl, self.eflags & flags::AC != 0)
    }
    /// The MMU index of the processor's own accesses to tables: supervisor, under SMAP whatever AC says.
    pub(crate) fn system_index(&self) -> u32 {
        self.index_of(0, false)
    }
    pub(crate) fn index_of(&self, cpl: u32, ac: bool) -> u32 {
        let i = if cpl == 3 {
            index::USER
        } else if self.cr4 & cr4::SMAP != 0 && !ac {
            index::SUPERVISOR_SMAP
        } else {
            index::SUPERVISOR
        };
        if self.smm { i + index::SMM } else { i }
    }

    /// The physical address of `va`.
    #[inline]
    pub(crate) fn linear_to_physical(&mut self, va: u64, write: bool, idx: u32) -> Result<u64, Exception> {
        let page = va & !0xfff;
        let tag = page | self.walks.generation << 4 | if write { 8 } else { 0 } | u64::from(idx);
        let slot = (va >> 12) as usize * 2 % RECENT + usize::from(write);
        let e = self.walks.linear.0[slot];
        if e.tag == tag {
            return Ok(e.page | (va & 0xfff));
        }
        let m = self.translate(va, Some(if write { Access::Write } else { Access::Read }), idx)?;
        self.walks.linear.0[slot] = Entry { tag, page: m.pa & !0xfff };
        Ok(m.pa)
    }
    /// Reads 1, 2, 4 or 8 bytes, also across pages.
    pub(crate) fn mem_read(&mut self, va: u64, size: u32, idx: u32) -> Result<u64, Exception> {
        let va = if self.lma() { va } else { va & 0xffff_ffff };
        self.watch_helper_access(va, size, false);
        if (va & 0xfff) + u64::from(size) <= 0x1000 {
            let pa = self.linear_to_physical(va, false, idx)?;
            return Ok(self.read_physical(pa, size as u8));
        }
        let mut v = 0;
        for n in 0..u64::from(size) {
            let at = self.next_linear(va, n);
            let pa = self.linear_to_physical(at, false, idx)?;
            v |= self.read_physical(pa, 1) << (8 * n);
        }
        Ok(v)
    }
    /// Writes 1, 2, 4 or 8 bytes, also across pages; nothing is written if a part faults.
    pub(crate) fn mem_write(&mut self, va: u64, size: u32, value: u64, idx: u32) -> Result<(), Exception> {
        let va = if self.lma() { va } else { va & 0xffff_ffff };
        self.watch_helper_access(va, size, true);
        let first = self.linear_to_physical(va, true, idx)?;
        if (va & 0xfff) + u64::from(size) <= 0x1000 {
            self.write_physical(first, size as u8, value);
            return Ok(());
        }
        let next = self.next_linear(va | 0xfff, 1);
        self.linear_to_physical(next, true, idx)?;
        for n in 0..u64::from(size) {
            let at = self.next_linear(va, n);
            let pa = self.linear_to_physical(at, true, idx)?;
            self.write_physical(pa, 1, value >> (8 * n) & 0xff);
        }
        Ok(())
    }
    fn next_linear(&self, va: u64, n: u64) -> u64 {
        let at = va.wrapping_add(n);
        if self.lma() { at } else { at & 0xffff_ffff }
    }
    fn index_as(&self, how: As) -> u32 {
        match how {
            As::Cpl => self.cpl_index(),
            As::System => self.system_index(),
        }
    }
    fn or_raise<T>(&mut self, r: Result<T, Exception>) -> Result<T, Raised> {
        r.map_err(|e| {
            self.raise_exception(e);
            Raised
        })
    }

    /// Reads 1, 2, 4 or 8 bytes at a linear address, zero-extended.
    ///
    /// # Errors
    /// The fault was raised: the helper returns 0.
    pub fn read_linear(&mut self, va: u64, size: u32, how: As) -> Result<u64, Raised> {
        let idx = self.index_as(how);
        let r = self.mem_read(va, size, idx);
        self.or_raise(r)
    }
    /// Writes 1, 2, 4 or 8 bytes.
    ///
    /// # Errors
    /// The fault was raised: the helper returns 0. Nothing was written.
    pub fn write_linear(&mut self, va: u64, size: u32, value: u64, how: As) -> Result<(), Raised> {
        let idx = self.index_as(how);
        let r = self.mem_write(va, size, value, idx);
        self.or_raise(r)
    }
    /// Fills `data` from memory.
    ///
    /// # Errors
    /// The fault was raised.
    pub fn read_bytes(&mut self, va: u64, data: &mut [u8], how: As) -> Result<(), Raised> {
        let idx = self.index_as(how);
        let mut va = va;
        for part in data.chunks_mut(8) {
            if part.len() == 8 {
                let r = self.mem_read(va, 8, idx);
                part.copy_from_slice(&self.or_raise(r)?.to_le_bytes());
            } else {
                for (n, b) in part.iter_mut().enumerate() {
                    let r = self.mem_read(va.wrapping_add(n as u64), 1, idx);
                    *b = self.or_raise(r)? as u8;
                }
            }
            va = va.wrapping_add(8);
        }
        Ok(())
    }
    /// Writes `data` to memory; all of it can be written or nothing is.
    ///
    /// # Errors
    /// The fault was raised.
    pub fn write_bytes(&mut self, va: u64, data: &[u8], how: As) -> Result<(), Raised> {
        self.probe_write(va, data.len() as u64, how)?;
        let idx = self.index_as(how);
        let mut va = va;
        for part in data.chunks(8) {
            if let Ok(word) = <[u8; 8]>::try_from(part) {
                let r = self.mem_write(va, 8, u64::from_le_bytes(word), idx);
                self.or_raise(r)?;
            } else {
                for (n, b) in part.iter().enumerate() {
                    let r = self.mem_write(va.wrapping_add(n as u64), 1, u64::from(*b), idx);
                    self.or_raise(r)?;
                }
            }
            va = va.wrapping_add(8);
        }
        Ok(())
    }
    /// Checks that `len` bytes can be written.
    ///
    /// # Errors
    /// The fault was raised.
    pub fn probe_write(&mut self, va: u64, len: u64, how: As) -> Result<(), Raised> {
        let idx = self.index_as(how);
        let mut at = va;
        let last = va.wrapping_add(len.max(1) - 1);
        loop {
            let r = self.linear_to_physical(self.next_linear(at, 0), true, idx);
            self.or_raise(r)?;
            if (at ^ last) & !0xfff == 0 {
                return Ok(());
            }
            at = (at | 0xfff).wrapping_add(1);
        }
    }
    /// The linear address of an offset in a segment for an access of `size` bytes, checked as an instruction's operand is.
    ///
    /// # Errors
    /// The fault was raised.
    pub fn operand_address(&mut self, seg: Seg, offset: u64, size: u32, write: bool) -> Result<u64, Raised> {
        let base = self.seg[seg as usize].base;
        if self.is_long() {
            return Ok(if matches!(seg, Seg::Fs | Seg::Gs) { base.wrapping_add(offset) } else { offset });
        }
        let r = self.check_segment(seg as u32, offset, size, write);
        self.or_raise(r)?;
        Ok(base.wrapping_add(offset) & 0xffff_ffff)
    }
}
