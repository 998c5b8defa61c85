//! Segmentation: descriptors, segment registers (vol. 3, chapters 3 and 6).

mod far;
mod fast;

use crate::exception::Exception;
use crate::flags;
use crate::mmu::cr4;
use crate::state::{Seg, Segment, Shadow, X86Cpu, attr, gpr};

/// Operand size of stack accesses and far transfers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    W16,
    W32,
    W64,
}

impl Size {
    #[must_use]
    pub const fn of_bits(bits: u64) -> Size {
        match bits {
            16 => Size::W16,
            64 => Size::W64,
            _ => Size::W32,
        }
    }
    #[must_use]
    pub const fn bytes(self) -> u32 {
        match self {
            Size::W16 => 2,
            Size::W32 => 4,
            Size::W64 => 8,
        }
    }
    pub(crate) const fn mask(self) -> u64 {
        match self {
            Size::W16 => 0xffff,
            Size::W32 => 0xffff_ffff,
            Size::W64 => u64::MAX,
        }
    }
}

/// A descriptor of 8 bytes with where it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub raw: u64,
    /// Linear address.
    pub at: u64,
}

impl Descriptor {
    pub const fn attr(self) -> u32 {
        (self.raw >> 40) as u32 & 0xf0ff
    }
    pub const fn is_system(self) -> bool {
        self.attr() & attr::S == 0
    }
    /// Type field: 0–15.
    pub const fn kind(self) -> u32 {
        self.attr() & 15
    }
    pub const fn is_code(self) -> bool {
        self.attr() & (attr::S | attr::CODE) == attr::S | attr::CODE
    }
    pub const fn is_data(self) -> bool {
        self.attr() & (attr::S | attr::CODE) == attr::S
    }
    pub const fn conforming(self) -> bool {
        self.attr() & attr::EXPAND_DOWN != 0
    }
    pub const fn writable(self) -> bool {
        self.attr() & attr::WRITABLE != 0
    }
    pub const fn dpl(self) -> u32 {
        self.attr() >> attr::DPL_SHIFT & 3
    }
    pub const fn present(self) -> bool {
        self.attr() & attr::PRESENT != 0
    }
    pub const fn limit(self) -> u32 {
        let limit = (self.raw & 0xffff | self.raw >> 32 & 0xf_0000) as u32;
        if self.attr() & attr::GRANULAR != 0 { limit << 12 | 0xfff } else { limit }
    }
    pub const fn base(self) -> u64 {
        self.raw >> 16 & 0xff_ffff | self.raw >> 32 & 0xff00_0000
    }
    pub const fn segment(self, selector: u32) -> Segment {
        Segment {
            base: self.base(),
            read_top: 0,
            write_top: 0,
            limit: self.limit(),
            selector,
            attr: self.attr(),
            reserved: 0,
        }
    }
}

/// Types of system descriptors.
pub(crate) mod system {
    pub const TSS16: u32 = 1;
    pub const LDT: u32 = 2;
    pub const TSS16_BUSY: u32 = 3;
    pub const CALL16: u32 = 4;
    pub const TASK: u32 = 5;
    pub const INT16: u32 = 6;
    pub const TRAP16: u32 = 7;
    pub const TSS: u32 = 9;
    pub const TSS_BUSY: u32 = 11;
    pub const CALL: u32 = 12;
    pub const INT: u32 = 14;
    pub const TRAP: u32 = 15;
}

/// A stack being pushed to or popped from; RSP changes when all went well.
#[derive(Clone, Copy)]
pub(crate) struct Stack {
    pub seg: Segment,
    pub sp: u64,
    mask: u64,
    /// MMU index of the accesses.
    idx: u32,
    /// Error code of #SS.
    code: u32,
}

impl Stack {
    pub fn push(&mut self, cpu: &mut X86Cpu, size: Size, value: u64) -> Result<(), Exception> {
        let n = size.bytes();
        let sp = self.sp.wrapping_sub(n.into()) & self.mask;
        let va = self.linear(cpu, sp, n, true)?;
        cpu.mem_write(va, n, value & size.mask(), self.idx)?;
        self.sp = self.sp & !self.mask | sp;
        Ok(())
    }
    pub fn pop(&mut self, cpu: &mut X86Cpu, size: Size) -> Result<u64, Exception> {
        let n = size.bytes();
        let sp = self.sp & self.mask;
        let va = self.linear(cpu, sp, n, false)?;
        let v = cpu.mem_read(va, n, self.idx)?;
        self.release(n.into());
        Ok(v)
    }
    pub fn release(&mut self, bytes: u64) {
        self.sp = self.sp & !self.mask | self.sp.wrapping_add(bytes) & self.mask;
    }
    fn linear(&self, cpu: &X86Cpu, sp: u64, n: u32, write: bool) -> Result<u64, Exception> {
        if self.mask == u64::MAX {
            if !cpu.canonical(sp) || !cpu.canonical(sp.wrapping_add(u64::from(n) - 1)) {
                return Err(Exception::ss(self.code));
            }
            return Ok(sp);
        }
        if !segment_allows(&self.seg, sp, n, write) {
            return Err(Exception::ss(self.code));
        }
        Ok(self.seg.base.wrapping_add(sp) & 0xffff_ffff)
    }
}

/// Type and limit check of a data access (5.3, 5.5).
pub(crate) fn segment_allows(s: &Segment, offset: u64, size: u32, write: bool) -> bool {
    if s.attr & attr::UNUSABLE != 0 || s.attr & attr::PRESENT == 0 {
        return false;
    }
    let last = offset.wrapping_add(u64::from(size.max(1)) - 1);
    if s.attr & attr::CODE == 0 {
        if write && s.attr & attr::WRITABLE == 0 {
            return false;
        }
        if s.attr & attr::EXPAND_DOWN != 0 {
            let top = if s.attr & attr::BIG != 0 { 0xffff_ffff } else { 0xffff };
            return offset > u64::from(s.limit) && last <= top;
        }
    } else if write || s.attr & attr::WRITABLE == 0 {
        return false;
    }
    last <= u64::from(s.limit)
}

impl X86Cpu {
    pub(crate) fn segment(&self, s: Seg) -> &Segment {
        &self.seg[s as usize]
    }
    /// Limit and type check of an access of `size` bytes at `offset` in segment register `seg` (not in 64-bit mode).
    pub(crate) fn check_segment(&mut self, seg: u32, offset: u64, size: u32, write: bool) -> Result<(), Exception> {
        let n = seg as usize % 6;
        let s = &self.seg[n];
        let real_code = write && n == Seg::Cs as usize && !self.protected();
        if real_code && offset.wrapping_add(u64::from(size.max(1)) - 1) <= u64::from(s.limit) {
            return Ok(());
        }
        if segment_allows(s, offset, size, write) {
            return Ok(());
        }
        Err(if n == Seg::Ss as usize { Exception::ss(0) } else { Exception::gp(0) })
    }

    // ---- stacks ----

    /// The current stack.
    pub(crate) fn stack(&self) -> Stack {
        let seg = self.seg[Seg::Ss as usize];
        let mask = if self.is_long() {
            u64::MAX
        } else if seg.big() {
            0xffff_ffff
        } else {
            0xffff
        };
        Stack { seg, sp: self.r[gpr::RSP as usize], mask, idx: self.cpl_index(), code: 0 }
    }
    /// Another stack, used with the rights of `cpl`; `code` for #SS.
    pub(crate) fn stack_of(&self, seg: Segment, sp: u64, cpl: u32, long: bool, code: u32) -> Stack {
        let mask = if long {
            u64::MAX
        } else if seg.big() {
            0xffff_ffff
        } else {
            0xffff
        };
        Stack { seg, sp, mask, idx: self.index_of(cpl, self.eflags & flags::AC != 0), code }
    }
    /// Takes over the stack pointer.
    pub(crate) fn set_sp(&mut self, s: &Stack) {
        self.set_sp_masked(s.sp, s.mask);
    }
    fn set_sp_masked(&mut self, sp: u64, mask: u64) {
        let rsp = &mut self.r[gpr::RSP as usize];
        *rsp = match mask {
            0xffff => *rsp & !0xffff | sp & 0xffff,
            0xffff_ffff => sp & 0xffff_ffff,
            _ => sp,
        };
    }

    // ---- descriptors ----

    /// Reads 8 bytes of a descriptor table.
    fn table_read(&mut self, at: u64) -> Result<u64, Exception> {
        let idx = self.system_index();
        self.mem_read(at, 8, idx)
    }
    /// The descriptor of a selector that is not null; `fault` makes the exception if it is outside of its table.
    pub(crate) fn descriptor(&mut self, selector: u16, fault: fn(u32) -> Exception) -> Result<Descriptor, Exception> {
        match self.find_descriptor(selector)? {
            Some(d) => Ok(d),
            None => Err(fault(code_of(selector))),
        }
    }
    fn find_descriptor(&mut self, selector: u16) -> Result<Option<Descriptor>, Exception> {
        let offset = u64::from(selector & !7);
        let (base, limit) = if selector & 4 != 0 {
            if !self.ldtr.usable() {
                return Ok(None);
            }
            (self.ldtr.base, self.ldtr.limit)
        } else {
            (self.gdtr.base, self.gdtr.limit)
        };
        if offset + 7 > u64::from(limit) {
            return Ok(None);
        }
        let at = base.wrapping_add(offset);
        Ok(Some(Descriptor { raw: self.table_read(at)?, at }))
    }
    /// The upper half of a 16-byte system descriptor; `None` beyond the table.
    fn upper_half(&mut self, selector: u16, d: Descriptor) -> Result<Option<u64>, Exception> {
        let limit = if selector & 4 != 0 { self.ldtr.limit } else { self.gdtr.limit };
        if u64::from(selector & !7) + 15 > u64::from(limit) {
            return Ok(None);
        }
        self.table_read(d.at.wrapping_add(8)).map(Some)
    }
    /// Sets the accessed bit of a code or data descriptor in memory.
    pub(crate) fn set_accessed(&mut self, d: &mut Descriptor) -> Result<(), Exception> {
        if d.raw & 1 << 40 == 0 {
            d.raw |= 1 << 40;
            let idx = self.system_index();
            self.mem_write(d.at.wrapping_add(5), 1, d.raw >> 40 & 0xff, idx)?;
        }
        Ok(())
    }
    /// Sets or clears the busy bit of a TSS descriptor in memory.
    pub(crate) fn set_busy(&mut self, d: Descriptor, busy: bool) -> Result<(), Exception> {
        let kind = d.raw >> 40 & 0xff;
        let kind = if busy { kind | 2 } else { kind & !2 };
        let idx = self.system_index();
        self.mem_write(d.at.wrapping_add(5), 1, kind, idx)
    }

    // ---- segment registers ----

    /// MOV, POP, LDS and so on to a segment register.
    pub(crate) fn load_segment(&mut self, seg: u32, selector: u16) -> Result<(), Exception> {
        let seg = match seg {
            0 => Seg::Es,
            2 => Seg::Ss,
            3 => Seg::Ds,
            4 => Seg::Fs,
            5 => Seg::Gs,
            _ => return Err(Exception::ud()),
        };
        if self.protected() {
            let s = self.data_segment(seg, selector, self.cpl)?;
            self.set_segment(seg, s);
        } else {
            let s = self.real_segment(seg, selector);
            self.set_segment(seg, s);
        }
        if seg == Seg::Ss {
            self.set_shadow(true);
        } else if !self.is_long() {
            self.rebuild_mode();
        }
        Ok(())
    }
    /// What a load in real or virtual-8086 mode gives: in real mode the limit stays.
    pub(crate) fn real_segment(&self, seg: Seg, selector: u16) -> Segment {
        let old = self.segment(seg);
        let mut s = Segment::real(selector.into(), u64::from(selector) << 4);
        if self.vm86() {
            s.attr = 0xf3;
        } else if old.usable() {
            s.limit = old.limit;
            s.attr = 0x93 | old.attr & (attr::BIG | attr::GRANULAR);
        }
        s
    }
    /// The checks of a load of a data segment register in protected mode at `cpl`.
    pub(crate) fn data_segment(&mut self, seg: Seg, selector: u16, cpl: u32) -> Result<Segment, Exception> {
        let code = code_of(selector);
        let rpl = u32::from(selector & 3);
        if code == 0 {
            if seg == Seg::Ss {
                if !self.is_long() || cpl == 3 || rpl != cpl {
                    return Err(Exception::gp(0));
                }
                return Ok(null_ss(selector.into(), cpl));
            }
            let base = if self.config.null_keeps_base() { self.segment(seg).base } else { 0 };
            return Ok(Segment { selector: selector.into(), base, ..Segment::UNUSABLE });
        }
        let mut d = self.descriptor(selector, Exception::gp)?;
        if seg == Seg::Ss {
            if rpl != cpl || !d.is_data() || !d.writable() || d.dpl() != cpl {
                return Err(Exception::gp(code));
            }
            if !d.present() {
                return Err(Exception::ss(code));
            }
        } else {
            let readable = d.is_data() || (d.is_code() && d.writable());
            let checked = d.is_data() || !d.conforming();
            if !readable || (checked && (rpl > d.dpl() || cpl > d.dpl())) {
                return Err(Exception::gp(code));
            }
            if !d.present() {
                return Err(Exception::np(code));
            }
        }
        self.set_accessed(&mut d)?;
        Ok(d.segment(selector.into()))
    }
    /// Debug exceptions (after a load of SS) and interrupts are held off for one instruction.
    pub(crate) fn set_shadow(&mut self, mov_ss: bool) {
        self.shadow = if mov_ss { Shadow::MovSs } else { Shadow::Sti };
        self.rebuild_mode();
    }
    /// After a change to an outer privilege level: data segments that are more privileged become null.
    pub(crate) fn drop_inner_segments(&mut self) {
        let mut dropped = false;
        for s in [Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs] {
            let r = self.segment(s);
            let conforming = attr::S | attr::CODE | attr::EXPAND_DOWN;
            if r.usable() && r.dpl() < self.cpl && r.attr & conforming != conforming {
                // Bases are kept: what FS and GS have in 64-bit mode is not lost with the selector.
                let base = r.base;
                self.set_segment(s, Segment { base, ..Segment::UNUSABLE });
                dropped = true;
            }
        }
        if dropped {
            self.rebuild_mode();
        }
    }

    // ---- LDTR, TR and inquiries ----

    fn privileged_protected(&self) -> Result<(), Exception> {
        if !self.protected() {
            return Err(Exception::ud());
        }
        if self.cpl != 0 { Err(Exception::gp(0)) } else { Ok(()) }
    }
    pub(crate) fn lldt(&mut self, selector: u16) -> Result<(), Exception> {
        self.privileged_protected()?;
        if code_of(selector) == 0 {
            self.ldtr = Segment { selector: selector.into(), ..Segment::UNUSABLE };
            return Ok(());
        }
        self.ldtr = self.system_segment(selector, |kind| kind == system::LDT)?.0;
        Ok(())
    }
    pub(crate) fn ltr(&mut self, selector: u16) -> Result<(), Exception> {
        self.privileged_protected()?;
        if code_of(selector) == 0 {
            return Err(Exception::gp(0));
        }
        let long = self.lma();
        let (mut tr, d) = self.system_segment(selector, |k| k == system::TSS || (!long && k == system::TSS16))?;
        self.set_busy(d, true)?;
        tr.attr |= 2;
        self.tr = tr;
        Ok(())
    }
    fn system_segment(
        &mut self,
        selector: u16,
        fits: impl Fn(u32) -> bool,
    ) -> Result<(Segment, Descriptor), Exception> {
        let code = code_of(selector);
        if selector & 4 != 0 {
            return Err(Exception::gp(code));
        }
        let d = self.descriptor(selector, Exception::gp)?;
        if !d.is_system() || !fits(d.kind()) {
            return Err(Exception::gp(code));
        }
        let mut s = d.segment(selector.into());
        if self.lma() {
            match self.upper_half(selector, d)? {
                Some(upper) if upper >> 40 & 0x1f == 0 => s.base |= upper << 32,
                _ => return Err(Exception::gp(code)),
            }
            if !self.canonical_value(s.base) {
                return Err(Exception::gp(code));
            }
        }
        if !d.present() {
            return Err(Exception::np(code));
        }
        Ok((s, d))
    }
    /// The descriptor of an inquiry (LAR, LSL, VERR, VERW), if there is one that is visible.
    fn inquire(&mut self, selector: u16) -> Result<Option<Descriptor>, Exception> {
        if !self.protected() {
            return Err(Exception::ud());
        }
        if code_of(selector) == 0 {
            return Ok(None);
        }
        let Some(d) = self.find_descriptor(selector)? else { return Ok(None) };
        let rpl = u32::from(selector & 3);
        let hidden = !(d.is_code() && d.conforming()) && (d.dpl() < self.cpl || d.dpl() < rpl);
        Ok(if hidden { None } else { Some(d) })
    }
    /// VERR and VERW.
    pub(crate) fn verify(&mut self, selector: u16, write: bool) -> Result<bool, Exception> {
        let Some(d) = self.inquire(selector)? else { return Ok(false) };
        Ok(if write { d.is_data() && d.writable() } else { d.is_data() || (d.is_code() && d.writable()) })
    }
    pub(crate) fn lar(&mut self, selector: u16) -> Result<Option<u32>, Exception> {
        let Some(d) = self.inquire(selector)? else { return Ok(None) };
        use system as s;
        let fits = if self.lma() {
            matches!(d.kind(), s::LDT | s::TSS | s::TSS_BUSY | s::CALL)
        } else {
            matches!(d.kind(), s::TSS16 | s::LDT | s::TSS16_BUSY | s::CALL16 | s::TASK | s::TSS | s::TSS_BUSY | s::CALL)
        };
        if d.is_system() && !fits {
            return Ok(None);
        }
        Ok(Some((d.raw >> 32) as u32 & 0x00ff_ff00))
    }
    pub(crate) fn lsl(&mut self, selector: u16) -> Result<Option<u32>, Exception> {
        let Some(d) = self.inquire(selector)? else { return Ok(None) };
        use system as s;
        let fits = if self.lma() {
            matches!(d.kind(), s::LDT | s::TSS | s::TSS_BUSY)
        } else {
            matches!(d.kind(), s::TSS16 | s::LDT | s::TSS16_BUSY | s::TSS | s::TSS_BUSY)
        };
        if d.is_system() && !fits {
            return Ok(None);
        }
        Ok(Some(d.limit()))
    }
    /// CR4.VME or PVI with the virtual interrupt flag in force (20.3, 20.4).
    pub(crate) fn virtual_interrupts(&self) -> bool {
        if self.vm86() { self.cr4 & cr4::VME != 0 } else { self.cpl == 3 && self.cr4 & cr4::PVI != 0 }
    }
}

/// The selector part of an error code.
pub(crate) const fn code_of(selector: u16) -> u32 {
    selector as u32 & 0xfffc
}
/// A null SS as long mode has it.
pub(crate) const fn null_ss(selector: u32, dpl: u32) -> Segment {
    Segment { selector, attr: attr::UNUSABLE | dpl << attr::DPL_SHIFT, ..Segment::UNUSABLE }
}
