//! Addresses of data accesses: SP alignment, address tags, alignment rules.

use super::Translator;
use crate::config::Feature;
use crate::helpers::system;
use rhea_ir::{Cond, MemOp, Value};

/// The kind of ordering or exclusivity that decides about alignment (AArch64.UnalignedAccessFaults()).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ordered {
    Exclusive,
    /// Read-modify-writes.
    Atomic,
    /// Load-acquire, store-release.
    AcquireRelease,
}

impl Translator<'_, '_> {
    /// The base register Xn or SP of a load or store, with the SP alignment check. Emits: call it after all checks
    /// for unallocated encodings.
    pub fn base_register(&mut self, n: u32) -> Value {
        if n == 31 && self.mode.sp_align_check() && !self.sp_aligned {
            let sp = self.xsp(31);
            let low = self.and_imm(sp, 15);
            let zero = self.c64(0);
            let bad = self.b.icmp(Cond::Ne, low, zero);
            self.raise_if(bad, |t| {
                t.b.call(system::SP_ALIGN, &[]);
            });
            self.sp_aligned = true;
        }
        self.xsp(n)
    }

    /// The address of a data access as it goes to the MMU. The displacement of an access is added after this: only a
    /// displacement across the edge of an address range would see the difference, where no translation exists anyway.
    pub fn data_address(&mut self, a: Value) -> Value {
        if self.mode.strip_tags() { self.untagged_address(a) } else { a }
    }
    /// A data address without its tag.
    pub fn untagged_address(&mut self, a: Value) -> Value {
        self.strip_top_byte(a, self.mode.tbi0(), self.mode.tbi1())
    }

    /// Attributes of an ordinary access of `1 << size` bytes in elements of that size.
    pub fn mem_op(&self, size: u32) -> MemOp {
        self.mem_op_at(size, self.mode.mmu_idx())
    }
    /// The same with another MMU index.
    pub fn mem_op_at(&self, size: u32, mmu_idx: u32) -> MemOp {
        let m = MemOp::new(size, mmu_idx).big_endian(self.mode.big_endian());
        if self.mode.align_check() { m.align(size) } else { m }
    }

    /// Address and attributes of an access with ordering or exclusivity of `1 << size` bytes at Xn or SP plus `disp`.
    pub(super) fn ordered_access(
        &mut self,
        n: u32,
        disp: i64,
        size: u32,
        kind: Ordered,
        write: bool,
    ) -> (Value, MemOp) {
        let base = self.base_register(n);
        let raw = self.add_imm(base, disp as u64);
        // The exclusive monitor compares addresses.
        let addr = if kind == Ordered::Exclusive { self.untagged_address(raw) } else { self.data_address(raw) };
        let m = MemOp::new(size, self.mode.mmu_idx()).big_endian(self.mode.big_endian());
        if !self.cfg.has(Feature::Lse2) || self.mode.align_check() || size == 4 {
            return (addr, m.align(size));
        }
        let anywhere = kind == Ordered::AcquireRelease && self.mode.naa();
        if size > 0 && !anywhere {
            // FEAT_LSE2: all bytes within 16 aligned bytes.
            let low = self.and_imm(addr, 15);
            let last = self.c64(16 - (1 << size));
            let bad = self.b.icmp(Cond::Ugt, low, last);
            self.raise_if(bad, |t| {
                let w = t.c32(write as u32);
                t.b.call(system::ALIGN_FAULT, &[raw, w]);
            });
        }
        (addr, m)
    }
}
