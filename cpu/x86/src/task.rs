//! Task management: task switches by JMP, CALL, IRET, interrupts and exceptions (vol. 3, chapter 9).

use crate::debug::dr6;
use crate::exception::Exception;
use crate::flags;
use crate::mmu::cr0;
use crate::segment::{Descriptor, code_of, system};
use crate::state::{Seg, Segment, X86Cpu, attr};

/// What switches tasks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    Jmp,
    Call,
    Iret,
    Interrupt,
}

impl Why {
    fn nests(self) -> bool {
        matches!(self, Why::Call | Why::Interrupt)
    }
}

/// Offsets in a 32-bit TSS.
mod tss32 {
    pub const CR3: u64 = 0x1c;
    pub const EIP: u64 = 0x20;
    pub const EFLAGS: u64 = 0x24;
    pub const GPR: u64 = 0x28;
    pub const SEGMENTS: u64 = 0x48;
    pub const LDT: u64 = 0x60;
    pub const TRAP: u64 = 0x64;
    pub const MIN_LIMIT: u32 = 0x67;
}

/// Offsets in a 16-bit TSS.
mod tss16 {
    pub const IP: u64 = 0x0e;
    pub const FLAGS: u64 = 0x10;
    pub const GPR: u64 = 0x12;
    pub const SEGMENTS: u64 = 0x22;
    pub const LDT: u64 = 0x2a;
    pub const MIN_LIMIT: u32 = 0x2b;
}

/// The order of segment registers in a TSS; a 16-bit one ends with DS.
const ORDER: [Seg; 6] = [Seg::Es, Seg::Cs, Seg::Ss, Seg::Ds, Seg::Fs, Seg::Gs];

/// What a TSS holds of a task.
#[derive(Default)]
struct Image {
    cr3: u64,
    eip: u64,
    eflags: u32,
    r: [u64; 8],
    selectors: [u16; 6],
    ldt: u16,
    trap: bool,
}

impl X86Cpu {
    /// Through a task gate to the TSS of `selector`.
    pub(crate) fn task_gate(&mut self, selector: u16, why: Why, eip: u64, ext: bool) -> Result<(), Exception> {
        let code = code_of(selector);
        if code == 0 || selector & 4 != 0 {
            return Err(Exception::gp(code).external(ext));
        }
        let d = self.descriptor(selector, Exception::gp).map_err(|e| e.external(ext))?;
        if !matches!(d.attr() & 0x1f, system::TSS | system::TSS16) {
            return Err(Exception::gp(code).external(ext));
        }
        if !d.present() {
            return Err(Exception::np(code).external(ext));
        }
        self.task_switch(selector, d, why, eip, ext)
    }
    /// IRET with NT set.
    pub(crate) fn iret_task(&mut self) -> Result<(), Exception> {
        let idx = self.system_index();
        let selector = self.mem_read(self.tr.base, 2, idx)? as u16;
        let code = code_of(selector);
        if code == 0 || selector & 4 != 0 {
            return Err(Exception::ts(code));
        }
        let d = self.descriptor(selector, Exception::ts)?;
        if !matches!(d.attr() & 0x1f, system::TSS_BUSY | system::TSS16_BUSY) {
            return Err(Exception::ts(code));
        }
        if !d.present() {
            return Err(Exception::np(code));
        }
        // IRET is two bytes at most with a prefix; where it lies does not matter: the old task goes on behind it.
        let eip = self.iret_end();
        self.task_switch(selector, d, Why::Iret, eip, false)?;
        self.complete_task_switch();
        Ok(())
    }
    /// The offset behind the current IRET: prefixes and the opcode.
    fn iret_end(&mut self) -> u64 {
        let idx = self.cpl_index();
        let eip = self.eip();
        for n in 0..15 {
            let at = self.header.pc.wrapping_add(n) & 0xffff_ffff;
            match self.mem_read(at, 1, idx) {
                Ok(0xcf) => return eip.wrapping_add(n + 1),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        eip.wrapping_add(1)
    }
    /// After a successful switch: the trap of the T bit and the rest that follows an instruction.
    pub(crate) fn complete_task_switch(&mut self) {
        self.debug.step_armed = false;
        let pc = self.header.pc;
        self.complete(pc);
    }

    /// Switches to the task of a TSS descriptor that was checked for type and presence. Errors before the new task's
    /// registers are loaded belong to the old task, later ones to the new.
    pub(crate) fn task_switch(
        &mut self,
        selector: u16,
        d: Descriptor,
        why: Why,
        eip: u64,
        ext: bool,
    ) -> Result<(), Exception> {
        let code = code_of(selector);
        let new32 = d.kind() & 8 != 0;
        let old32 = self.tr.attr & 8 != 0;
        let base = d.base();
        let idx = self.system_index();
        let min = if new32 { tss32::MIN_LIMIT } else { tss16::MIN_LIMIT };
        if d.limit() < min {
            return Err(Exception::ts(code).external(ext));
        }
        let old_min = if old32 { tss32::GPR + 32 + 4 * 6 } else { tss16::SEGMENTS + 8 };
        if u64::from(self.tr.limit) + 1 < old_min {
            return Err(Exception::ts(self.tr.selector & 0xfffc).external(ext));
        }
        let image = self.read_tss(base, new32, idx)?;

        // The old task: its busy bit, its state.
        let old_selector = self.tr.selector;
        if matches!(why, Why::Jmp | Why::Iret) {
            let old = self.descriptor(old_selector as u16, Exception::ts)?;
            self.set_busy(old, false)?;
        }
        let mut f = self.rflags();
        if why == Why::Iret {
            f &= !flags::NT;
        }
        self.write_tss(self.tr.base, old32, idx, eip, f)?;
        if why.nests() {
            self.mem_write(base, 2, old_selector.into(), idx)?;
        }
        if why != Why::Iret {
            self.set_busy(d, true)?;
        }

        // The new task: from here on errors are its own.
        self.cr0 |= cr0::TS;
        self.tr = d.segment(selector.into());
        self.tr.attr |= 2;
        let mut f = image.eflags;
        if why.nests() {
            f |= flags::NT;
        }
        if new32 && self.cr0 & cr0::PG != 0 && image.cr3 != self.cr3 {
            self.write_cr3(image.cr3)?;
        }
        self.load_image(&image, f, new32, ext)
    }

    fn read_tss(&mut self, base: u64, wide: bool, idx: u32) -> Result<Image, Exception> {
        let mut t = Image::default();
        let at = |o: u64| base.wrapping_add(o);
        if wide {
            t.cr3 = self.mem_read(at(tss32::CR3), 4, idx)?;
            t.eip = self.mem_read(at(tss32::EIP), 4, idx)?;
            t.eflags = self.mem_read(at(tss32::EFLAGS), 4, idx)? as u32;
            for n in 0..8 {
                t.r[n] = self.mem_read(at(tss32::GPR + 4 * n as u64), 4, idx)?;
            }
            for n in 0..6 {
                t.selectors[n] = self.mem_read(at(tss32::SEGMENTS + 4 * n as u64), 2, idx)? as u16;
            }
            t.ldt = self.mem_read(at(tss32::LDT), 2, idx)? as u16;
            t.trap = self.mem_read(at(tss32::TRAP), 1, idx)? & 1 != 0;
        } else {
            t.eip = self.mem_read(at(tss16::IP), 2, idx)?;
            t.eflags = self.mem_read(at(tss16::FLAGS), 2, idx)? as u32;
            for n in 0..8 {
                // The upper halves are undefined; processors set them.
                t.r[n] = self.mem_read(at(tss16::GPR + 2 * n as u64), 2, idx)? | 0xffff_0000;
            }
            for n in 0..4 {
                t.selectors[n] = self.mem_read(at(tss16::SEGMENTS + 2 * n as u64), 2, idx)? as u16;
            }
            t.ldt = self.mem_read(at(tss16::LDT), 2, idx)? as u16;
        }
        Ok(t)
    }
    fn write_tss(&mut self, base: u64, wide: bool, idx: u32, eip: u64, f: u32) -> Result<(), Exception> {
        let at = |o: u64| base.wrapping_add(o);
        let (size, ip, fl, gpr, segs, n_segs) = if wide {
            (4, tss32::EIP, tss32::EFLAGS, tss32::GPR, tss32::SEGMENTS, 6)
        } else {
            (2, tss16::IP, tss16::FLAGS, tss16::GPR, tss16::SEGMENTS, 4)
        };
        let step = u64::from(size);
        self.mem_write(at(ip), size, eip, idx)?;
        self.mem_write(at(fl), size, f.into(), idx)?;
        for n in 0..8 {
            let v = self.r[n];
            self.mem_write(at(gpr + step * n as u64), size, v, idx)?;
        }
        for (n, s) in ORDER.into_iter().enumerate().take(n_segs) {
            let v = self.segment(s).selector;
            self.mem_write(at(segs + step * n as u64), 2, v.into(), idx)?;
        }
        Ok(())
    }

    /// Loads a task's registers, then its segments with their checks, which raise #TS, #NP and #SS in the new task.
    fn load_image(&mut self, t: &Image, f: u32, wide: bool, ext: bool) -> Result<(), Exception> {
        let f = if wide { f } else { f & 0xffff };
        for n in 0..8 {
            self.r[n] = t.r[n] & 0xffff_ffff;
        }
        let vm = f & flags::VM != 0;
        self.cpl = if vm { 3 } else { u32::from(t.selectors[1] & 3) };
        self.eflags = self.eflags & !flags::VM | f & flags::VM;
        self.shadow = crate::state::Shadow::None;
        self.near_limit = false;
        // Selectors first, each without a usable descriptor.
        for (s, selector) in ORDER.into_iter().zip(t.selectors) {
            let big = attr::BIG;
            let mut none = Segment { selector: selector.into(), ..Segment::UNUSABLE };
            if s == Seg::Cs {
                // Until its descriptor is known EIP is kept as an offset from 0.
                none = Segment { limit: u32::MAX, attr: attr::UNUSABLE | big, ..none };
            }
            self.set_segment(s, none);
        }
        self.ldtr = Segment { selector: t.ldt.into(), ..Segment::UNUSABLE };
        // Local breakpoints end with the task.
        if self.dr[7] & 0x155 != 0 {
            self.dr[7] &= !0x155;
            self.flush_all();
        }
        self.header.pc = t.eip;
        self.set_rflags(f | flags::FIXED);
        if t.trap {
            self.debug.pending |= dr6::BT;
        }

        let fail = |e: Exception| e.external(ext);
        let ldt_code = code_of(t.ldt);
        if ldt_code != 0 {
            if t.ldt & 4 != 0 {
                return Err(fail(Exception::ts(ldt_code)));
            }
            let d = self.descriptor(t.ldt, Exception::ts).map_err(fail)?;
            if d.attr() & 0x1f != system::LDT || !d.present() {
                return Err(fail(Exception::ts(ldt_code)));
            }
            self.ldtr = d.segment(t.ldt.into());
        }
        if vm {
            for (s, selector) in ORDER.into_iter().zip(t.selectors) {
                let r = self.real_segment(s, selector);
                self.set_segment(s, r);
            }
            self.header.pc = t.eip.wrapping_add(self.segment(Seg::Cs).base) & 0xffff_ffff;
            self.rebuild_mode();
            return Ok(());
        }
        let cs = self.task_code(t.selectors[1]).map_err(fail)?;
        self.set_segment(Seg::Cs, cs);
        self.header.pc = t.eip.wrapping_add(cs.base) & 0xffff_ffff;
        self.rebuild_mode();
        let ss = self.task_stack(t.selectors[2]).map_err(fail)?;
        self.set_segment(Seg::Ss, ss);
        self.rebuild_mode();
        for s in [Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs] {
            let selector = t.selectors[s as usize];
            let cpl = self.cpl;
            let r = self.data_segment(s, selector, cpl).map_err(|mut e| {
                if e.vector == crate::exception::Vector::GeneralProtection {
                    e.vector = crate::exception::Vector::InvalidTss;
                }
                fail(e)
            })?;
            self.set_segment(s, r);
        }
        self.rebuild_mode();
        if t.eip > u64::from(cs.limit) {
            return Err(fail(Exception::gp(0)));
        }
        Ok(())
    }
    fn task_code(&mut self, selector: u16) -> Result<Segment, Exception> {
        let code = code_of(selector);
        if code == 0 {
            return Err(Exception::ts(0));
        }
        let mut d = self.descriptor(selector, Exception::ts)?;
        let rpl = u32::from(selector & 3);
        if !d.is_code() || if d.conforming() { d.dpl() > rpl } else { d.dpl() != rpl } {
            return Err(Exception::ts(code));
        }
        if !d.present() {
            return Err(Exception::np(code));
        }
        self.set_accessed(&mut d)?;
        Ok(d.segment(selector.into()))
    }
    fn task_stack(&mut self, selector: u16) -> Result<Segment, Exception> {
        let code = code_of(selector);
        if code == 0 {
            return Err(Exception::ts(0));
        }
        let mut d = self.descriptor(selector, Exception::ts)?;
        let rpl = u32::from(selector & 3);
        if !d.is_data() || !d.writable() || d.dpl() != self.cpl || rpl != self.cpl {
            return Err(Exception::ts(code));
        }
        if !d.present() {
            return Err(Exception::ss(code));
        }
        self.set_accessed(&mut d)?;
        Ok(d.segment(selector.into()))
    }
    /// I/O permission of `size` ports from `port` for a program that is not privileged (vol. 1, 19.5.2).
    ///
    /// # Errors
    /// #GP(0) if the bitmap forbids it, or a fault of the access to it.
    pub fn check_io(&mut self, port: u16, size: u32) -> Result<(), Exception> {
        if self.cr0 & cr0::PE == 0 || (!self.vm86() && self.cpl <= self.iopl()) {
            return Ok(());
        }
        let denied = Exception::gp(0);
        if self.tr.attr & 8 == 0 || !self.tr.usable() {
            return Err(denied);
        }
        let map = self.tss_word(102, 2, denied)? as u32;
        let bits = self.tss_word(map + u32::from(port) / 8, 2, denied)?;
        let mask = (1u64 << size) - 1;
        if bits >> (port & 7) & mask != 0 { Err(denied) } else { Ok(()) }
    }
}
