//! Memory operands: effective addresses, segmentation, loads and stores.

use super::Translator;
use crate::helpers::system as calls;
use crate::state::{Seg, slots};
use iced_x86::Register;
use rhea_ir::{Cond, MemOp, Op, Type, Value};

/// A checked linear address: `addr + disp`.
#[derive(Clone, Copy, Debug)]
pub struct Mem {
    pub addr: Value,
    pub disp: i64,
}

/// The segment register of an iced register (DS for anything else).
pub fn seg_of(r: Register) -> Seg {
    match r {
        Register::ES => Seg::Es,
        Register::CS => Seg::Cs,
        Register::SS => Seg::Ss,
        Register::FS => Seg::Fs,
        Register::GS => Seg::Gs,
        _ => Seg::Ds,
    }
}

impl Translator<'_, '_> {
    /// Size in bits of the memory operand's address.
    pub fn address_bits(&self) -> u32 {
        let of = |r: Register| match r.size() {
            8 => Some(64),
            4 => Some(32),
            2 => Some(16),
            _ => None,
        };
        // A vector index says nothing.
        let index = self.i.memory_index();
        let index = if index.is_gpr() { of(index) } else { None };
        of(self.i.memory_base()).or(index).unwrap_or(match self.i.memory_displ_size() {
            2 => 16,
            4 => 32,
            8 => 64,
            _ => self.mode.code_bits(),
        })
    }

    /// The offset of the memory operand within its segment, and a displacement not yet added (only with 64-bit addresses).
    fn offset(&mut self) -> (Value, i64) {
        let bits = self.address_bits();
        let disp = self.i.memory_displacement64();
        let (base, index) = (self.i.memory_base(), self.i.memory_index());
        if self.i.is_ip_rel_memory_operand() {
            // The displacement is the address.
            return (self.c64(if bits == 32 { disp & 0xffff_ffff } else { disp }), 0);
        }
        let mut sum = None;
        if base != Register::None {
            sum = Some(self.r64(base.number() as u32));
        }
        if index.is_gpr() {
            let x = self.r64(index.number() as u32);
            let x = self.shl(x, self.i.memory_index_scale().trailing_zeros());
            sum = Some(match sum {
                Some(s) => self.b.add(s, x),
                None => x,
            });
        }
        let Some(sum) = sum else {
            return (self.c64(if bits == 64 { disp } else { disp & (u64::MAX >> (64 - bits)) }), 0);
        };
        if bits == 64 {
            return (sum, disp as i64);
        }
        let sum = self.add_imm(sum, disp);
        (self.b.zext(sum, bits), 0)
    }
    /// The offset alone (LEA), I64, zero-extended from the address size.
    pub fn effective_address(&mut self) -> Value {
        let (v, disp) = self.offset();
        self.add_imm(v, disp as u64)
    }

    /// The linear address of the memory operand, checked for an access of `size` bytes.
    pub fn ea(&mut self, size: u32, write: bool) -> Mem {
        let (offset, disp) = self.offset();
        let seg = seg_of(self.i.memory_segment());
        self.linear(seg, offset, disp, size, write)
    }
    /// The linear address of `offset + disp` (I64, zero-extended from its address size) in a segment, checked for an access
    /// of `size` bytes.
    pub fn linear(&mut self, seg: Seg, offset: Value, disp: i64, size: u32, write: bool) -> Mem {
        if self.mode.long() {
            return match seg {
                Seg::Fs | Seg::Gs => {
                    let base = self.b.get(slots::seg_base(seg));
                    Mem { addr: self.b.add(base, offset), disp }
                }
                _ => Mem { addr: offset, disp },
            };
        }
        let offset = self.add_imm(offset, disp as u64);
        if self.mode.flat() && !matches!(seg, Seg::Fs | Seg::Gs) && !(write && seg == Seg::Cs) {
            return Mem { addr: offset, disp: 0 };
        }
        self.linear_in_limit(seg, offset, size, write)
    }
    /// The same where each segment has a limit and the access is made in parts: that it goes beyond a flat segment's end would not be seen.
    pub fn linear_in_limit(&mut self, seg: Seg, offset: Value, size: u32, write: bool) -> Mem {
        let top = self.b.get(slots::seg_top(seg, write));
        let end = self.add_imm(offset, size as u64);
        let bad = self.b.icmp(Cond::Ugt, end, top);
        self.when(bad, -1, |t| {
            let what = t.c64((seg as u64) | (size as u64) << 8 | (write as u64) << 32);
            t.b.call(calls::CHECK_SEGMENT, &[what, offset]);
        });
        let base = self.b.get(slots::seg_base(seg));
        let sum = self.b.add(base, offset);
        Mem { addr: self.b.zext(sum, 32), disp: 0 }
    }
    /// `MemOp` of an ordinary access of `bits`.
    pub fn mem_op(&self, bits: u32) -> MemOp {
        let log2 = (bits / 8).trailing_zeros();
        let op = MemOp::new(log2, self.mode.mmu_idx());
        if self.mode.ac() && bits <= 64 { op.align(log2) } else { op }
    }
    /// Loads 8, 16 or 32 bits into an I32 (zero-extended) or 64 into an I64.
    pub fn load(&mut self, bits: u32, m: Mem) -> Value {
        let op = self.mem_op(bits);
        self.b.load(Self::ty(bits), op, m.addr, m.disp)
    }
    /// As `load` for an operand that is written back: a fault says that it was a write.
    pub fn load_for_update(&mut self, bits: u32, m: Mem) -> Value {
        let op = self.mem_op(bits).for_update();
        self.b.load(Self::ty(bits), op, m.addr, m.disp)
    }
    /// Stores the low `bits` of a value of [`Self::ty`].
    pub fn store(&mut self, bits: u32, m: Mem, v: Value) {
        let op = self.mem_op(bits);
        self.b.store(op, m.addr, m.disp, v);
    }
    /// Loads 128 bits; `aligned`: a misaligned address is #GP(0).
    pub fn load_v(&mut self, m: Mem, aligned: bool) -> Value {
        let op = MemOp::new(4, self.mode.mmu_idx());
        self.b.load(Type::V128, if aligned { op.align(4) } else { op }, m.addr, m.disp)
    }
    pub fn store_v(&mut self, m: Mem, v: Value, aligned: bool) {
        let op = MemOp::new(4, self.mode.mmu_idx());
        self.b.store(if aligned { op.align(4) } else { op }, m.addr, m.disp, v);
    }
    /// `m` some bytes on.
    pub fn plus(&self, m: Mem, bytes: i64) -> Mem {
        Mem { addr: m.addr, disp: m.disp.wrapping_add(bytes) }
    }
    /// The address as one value (atomics take no displacement).
    pub fn address(&mut self, m: Mem) -> Value {
        self.b.bin_imm(Op::Add, m.addr, m.disp as u64)
    }
}
