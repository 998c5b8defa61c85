//! Far transfers: JMP, CALL, RET, call gates, and the stacks of inner levels (vol. 3, 6.8).

use super::{Descriptor, Size, Stack, code_of, null_ss, system};
use crate::exception::Exception;
use crate::state::{Seg, Segment, Shadow, X86Cpu, attr, gpr};

impl X86Cpu {
    /// L and D both set is no code segment in long mode.
    fn check_long_code(&self, d: Descriptor, code: u32) -> Result<(), Exception> {
        let both = attr::LONG | attr::BIG;
        if self.lma() && d.attr() & both == both { Err(Exception::gp(code)) } else { Ok(()) }
    }
    /// Is the offset within a code segment?
    pub(crate) fn check_target(&self, cs: &Segment, offset: u64, ext: bool) -> Result<(), Exception> {
        let long = self.lma() && cs.attr & attr::LONG != 0;
        let bad = if long { !self.canonical(offset) } else { offset > u64::from(cs.limit) };
        if bad { Err(Exception::gp(0).external(ext)) } else { Ok(()) }
    }
    /// Loads CS at a privilege level and goes to an offset in it, with everything that hangs on it.
    pub(crate) fn enter_code(&mut self, mut cs: Segment, cpl: u32, offset: u64) {
        cs.selector = cs.selector & !3 | cpl;
        self.enter_code_as(cs, cpl, offset);
    }
    /// The same, with the selector as it is.
    pub(crate) fn enter_code_as(&mut self, cs: Segment, cpl: u32, offset: u64) {
        self.cpl = cpl;
        self.near_limit = false;
        self.shadow = Shadow::None;
        self.set_segment(Seg::Cs, cs);
        self.header.pc = self.linear_of(offset);
        self.rebuild_mode();
    }
    /// A direct far JMP or CALL to a code descriptor: its checks.
    fn direct_code(&mut self, selector: u16, mut d: Descriptor) -> Result<Segment, Exception> {
        let code = code_of(selector);
        let rpl = u32::from(selector & 3);
        let bad = if d.conforming() { d.dpl() > self.cpl } else { rpl > self.cpl || d.dpl() != self.cpl };
        if bad {
            return Err(Exception::gp(code));
        }
        self.check_long_code(d, code)?;
        if !d.present() {
            return Err(Exception::np(code));
        }
        self.set_accessed(&mut d)?;
        Ok(d.segment(u32::from(selector & !3) | self.cpl))
    }
    fn real_code(&self, selector: u16) -> Segment {
        let mut cs = self.real_segment(Seg::Cs, selector);
        if !self.vm86() {
            cs.attr = 0x9b | cs.attr & (attr::BIG | attr::GRANULAR);
        }
        cs
    }
    pub(super) fn complete_here(&mut self) {
        let pc = self.header.pc;
        self.complete(pc);
    }

    /// Far JMP.
    pub(crate) fn far_jmp(&mut self, selector: u16, offset: u64, size: Size, len: u64) -> Result<(), Exception> {
        let offset = offset & size.mask();
        if !self.protected() {
            let cs = self.real_code(selector);
            self.check_target(&cs, offset, false)?;
            self.enter_code_as(cs, self.cpl, offset);
        } else {
            let code = code_of(selector);
            if code == 0 {
                return Err(Exception::gp(0));
            }
            let d = self.descriptor(selector, Exception::gp)?;
            if d.is_code() {
                let cs = self.direct_code(selector, d)?;
                self.check_target(&cs, offset, false)?;
                self.enter_code(cs, self.cpl, offset);
            } else if d.is_system() {
                return self.far_gate(selector, d, None, len);
            } else {
                return Err(Exception::gp(code));
            }
        }
        self.complete_here();
        Ok(())
    }
    /// Far CALL.
    pub(crate) fn far_call(&mut self, selector: u16, offset: u64, size: Size, len: u64) -> Result<(), Exception> {
        let offset = offset & size.mask();
        let ret = self.eip().wrapping_add(len) & size.mask();
        let old_cs = u64::from(self.segment(Seg::Cs).selector);
        if !self.protected() {
            let cs = self.real_code(selector);
            let mut stack = self.stack();
            stack.push(self, size, old_cs)?;
            stack.push(self, size, ret)?;
            self.check_target(&cs, offset, false)?;
            self.set_sp(&stack);
            self.enter_code_as(cs, self.cpl, offset);
        } else {
            let code = code_of(selector);
            if code == 0 {
                return Err(Exception::gp(0));
            }
            let d = self.descriptor(selector, Exception::gp)?;
            if d.is_code() {
                let cs = self.direct_code(selector, d)?;
                let mut stack = self.stack();
                stack.push(self, size, old_cs)?;
                stack.push(self, size, ret)?;
                self.check_target(&cs, offset, false)?;
                self.set_sp(&stack);
                self.enter_code(cs, self.cpl, offset);
            } else if d.is_system() {
                return self.far_gate(selector, d, Some(()), len);
            } else {
                return Err(Exception::gp(code));
            }
        }
        self.complete_here();
        Ok(())
    }
    /// Far JMP or (`call`) CALL to a system descriptor: call gate, task gate, TSS.
    fn far_gate(&mut self, selector: u16, d: Descriptor, call: Option<()>, len: u64) -> Result<(), Exception> {
        let code = code_of(selector);
        let rpl = u32::from(selector & 3);
        let long = self.lma();
        match d.kind() {
            system::CALL => {}
            system::CALL16 | system::TASK | system::TSS | system::TSS16 if !long => {}
            _ => return Err(Exception::gp(code)),
        }
        if d.dpl() < self.cpl || d.dpl() < rpl {
            return Err(Exception::gp(code));
        }
        let why = if call.is_some() { crate::task::Why::Call } else { crate::task::Why::Jmp };
        match d.kind() {
            system::TSS | system::TSS16 => {
                if selector & 4 != 0 {
                    return Err(Exception::gp(code));
                }
                if !d.present() {
                    return Err(Exception::np(code));
                }
                let next = self.eip().wrapping_add(len);
                self.task_switch(selector, d, why, next, false)?;
                self.complete_task_switch();
                Ok(())
            }
            system::TASK => {
                if !d.present() {
                    return Err(Exception::np(code));
                }
                let next = self.eip().wrapping_add(len);
                self.task_gate((d.raw >> 16) as u16, why, next, false)?;
                self.complete_task_switch();
                Ok(())
            }
            _ => self.call_gate(selector, d, call.is_some(), len),
        }
    }
    fn call_gate(&mut self, selector: u16, gate: Descriptor, call: bool, len: u64) -> Result<(), Exception> {
        let gate_code = code_of(selector);
        let long = self.lma();
        let mut offset = gate.raw & 0xffff | gate.raw >> 32 & 0xffff_0000;
        let size = if long {
            match self.upper_half(selector, gate)? {
                // Bits 8–12 of the last word are a type of 0.
                Some(upper) if upper >> 40 & 0x1f == 0 => offset |= upper << 32,
                _ => return Err(Exception::gp(gate_code)),
            }
            Size::W64
        } else if gate.kind() == system::CALL16 {
            offset &= 0xffff;
            Size::W16
        } else {
            Size::W32
        };
        if !gate.present() {
            return Err(Exception::np(gate_code));
        }
        let target = (gate.raw >> 16) as u16;
        let code = code_of(target);
        if code == 0 {
            return Err(Exception::gp(0));
        }
        let mut d = self.descriptor(target, Exception::gp)?;
        if !d.is_code() || d.dpl() > self.cpl || (!call && !d.conforming() && d.dpl() != self.cpl) {
            return Err(Exception::gp(code));
        }
        if long && d.attr() & (attr::LONG | attr::BIG) != attr::LONG {
            return Err(Exception::gp(code));
        }
        if !d.present() {
            return Err(Exception::np(code));
        }
        let cs = d.segment(target.into());
        let old_cs = u64::from(self.segment(Seg::Cs).selector);
        let ret = self.eip().wrapping_add(len);
        if call && !d.conforming() && d.dpl() < self.cpl {
            let cpl = d.dpl();
            let old_ss = u64::from(self.segment(Seg::Ss).selector);
            let old_sp = self.r[gpr::RSP as usize];
            let mut stack = self.inner_stack(cpl, false)?;
            stack.push(self, size, old_ss)?;
            stack.push(self, size, old_sp)?;
            if !long {
                let count = gate.raw >> 32 & 31;
                let mut old = self.stack();
                old.release(count * u64::from(size.bytes()));
                for _ in 0..count {
                    // From the last to the first.
                    let bytes = u64::from(size.bytes());
                    old.sp = old.sp & !old.mask | old.sp.wrapping_sub(bytes) & old.mask;
                    let mut one = old;
                    let v = one.pop(self, size)?;
                    stack.push(self, size, v)?;
                }
            }
            stack.push(self, size, old_cs)?;
            stack.push(self, size, ret)?;
            self.check_target(&cs, offset, false)?;
            self.set_accessed(&mut d)?;
            self.set_segment(Seg::Ss, stack.seg);
            self.set_sp(&stack);
            self.enter_code(d.segment(target.into()), cpl, offset);
        } else {
            if call {
                let mut stack = self.stack();
                if long {
                    stack.mask = u64::MAX;
                }
                stack.push(self, size, old_cs)?;
                stack.push(self, size, ret)?;
                self.check_target(&cs, offset, false)?;
                self.set_accessed(&mut d)?;
                self.set_sp(&stack);
            } else {
                self.check_target(&cs, offset, false)?;
                self.set_accessed(&mut d)?;
            }
            self.enter_code(d.segment(target.into()), self.cpl, offset);
        }
        self.complete_here();
        Ok(())
    }
    /// The stack that the TSS gives for an inner privilege level, not yet loaded. `ext` is the EXT bit of error codes.
    pub(crate) fn inner_stack(&mut self, cpl: u32, ext: bool) -> Result<Stack, Exception> {
        let tr = self.tr;
        let idx = self.system_index();
        let tr_fault = Exception::ts(tr.selector & 0xfffc).external(ext);
        if self.lma() {
            let at = 4 + 8 * cpl;
            let sp = self.tss_word(at, 8, tr_fault)?;
            return Ok(self.stack_of(null_ss(cpl, cpl), sp, cpl, true, u32::from(ext)));
        }
        let (sp, ss) = if tr.attr & 8 != 0 {
            let at = 4 + 8 * cpl;
            if at + 5 > tr.limit {
                return Err(tr_fault);
            }
            let at = tr.base.wrapping_add(at.into());
            (self.mem_read(at, 4, idx)?, self.mem_read(at.wrapping_add(4), 2, idx)? as u16)
        } else {
            let at = 2 + 4 * cpl;
            if at + 3 > tr.limit {
                return Err(tr_fault);
            }
            let at = tr.base.wrapping_add(at.into());
            (self.mem_read(at, 2, idx)?, self.mem_read(at.wrapping_add(2), 2, idx)? as u16)
        };
        let seg = self.inner_ss(ss, cpl).map_err(|e| e.external(ext))?;
        Ok(self.stack_of(seg, sp, cpl, false, code_of(ss) | u32::from(ext)))
    }
    /// A word of the TSS.
    pub(crate) fn tss_word(&mut self, at: u32, size: u32, fault: Exception) -> Result<u64, Exception> {
        if u64::from(at) + u64::from(size) - 1 > u64::from(self.tr.limit) {
            return Err(fault);
        }
        let idx = self.system_index();
        self.mem_read(self.tr.base.wrapping_add(at.into()), size, idx)
    }
    /// The checks of SS from a TSS.
    fn inner_ss(&mut self, ss: u16, cpl: u32) -> Result<Segment, Exception> {
        let code = code_of(ss);
        if code == 0 {
            return Err(Exception::ts(0));
        }
        let mut d = self.descriptor(ss, Exception::ts)?;
        if u32::from(ss & 3) != cpl || d.dpl() != cpl || !d.is_data() || !d.writable() {
            return Err(Exception::ts(code));
        }
        if !d.present() {
            return Err(Exception::ss(code));
        }
        self.set_accessed(&mut d)?;
        Ok(d.segment(ss.into()))
    }

    /// Far RET that releases `extra` bytes.
    pub(crate) fn far_ret(&mut self, size: Size, extra: u16) -> Result<(), Exception> {
        let mut stack = self.stack();
        let offset = stack.pop(self, size)?;
        let selector = stack.pop(self, size)? as u16;
        if self.protected() {
            self.return_to(selector, offset, stack, size, extra.into(), None)?;
        } else {
            let cs = self.real_code(selector);
            self.check_target(&cs, offset, false)?;
            stack.release(extra.into());
            self.set_sp(&stack);
            self.enter_code_as(cs, self.cpl, offset);
        }
        self.complete_here();
        Ok(())
    }
    /// The common part of far RET and (with `image` of EFLAGS) IRET in protected mode: CS checks, change of level.
    pub(crate) fn return_to(
        &mut self,
        selector: u16,
        offset: u64,
        mut stack: Stack,
        size: Size,
        extra: u64,
        image: Option<u32>,
    ) -> Result<(), Exception> {
        let code = code_of(selector);
        let rpl = u32::from(selector & 3);
        if code == 0 {
            return Err(Exception::gp(0));
        }
        let mut d = self.descriptor(selector, Exception::gp)?;
        if !d.is_code() || rpl < self.cpl {
            return Err(Exception::gp(code));
        }
        if if d.conforming() { d.dpl() > rpl } else { d.dpl() != rpl } {
            return Err(Exception::gp(code));
        }
        self.check_long_code(d, code)?;
        if !d.present() {
            return Err(Exception::np(code));
        }
        let cs = d.segment(selector.into());
        self.check_target(&cs, offset, false)?;
        let outer = rpl > self.cpl;
        // IRET in 64-bit mode always takes SS and RSP.
        let takes_stack = outer || (image.is_some() && self.is_long());
        stack.release(extra);
        if !takes_stack {
            self.set_accessed(&mut d)?;
            self.set_sp(&stack);
            let old = self.cpl;
            if let Some(f) = image {
                self.set_flags_on_return(f, size, old);
            }
            self.enter_code_as(d.segment(selector.into()), old, offset);
            return Ok(());
        }
        let sp = stack.pop(self, size)?;
        let ss = stack.pop(self, size)? as u16;
        let to_long = self.lma() && d.attr() & attr::LONG != 0;
        let seg = if code_of(ss) == 0 {
            if !to_long || rpl == 3 || u32::from(ss & 3) != rpl {
                return Err(Exception::gp(0));
            }
            null_ss(ss.into(), rpl)
        } else {
            let mut s = self.descriptor(ss, Exception::gp)?;
            if u32::from(ss & 3) != rpl || !s.is_data() || !s.writable() || s.dpl() != rpl {
                return Err(Exception::gp(code_of(ss)));
            }
            if !s.present() {
                return Err(Exception::ss(code_of(ss)));
            }
            self.set_accessed(&mut s)?;
            s.segment(ss.into())
        };
        self.set_accessed(&mut d)?;
        let old = self.cpl;
        self.set_segment(Seg::Ss, seg);
        let mask = if to_long {
            u64::MAX
        } else if seg.big() {
            0xffff_ffff
        } else {
            0xffff
        };
        let sp = if image.is_none() { sp.wrapping_add(extra) } else { sp };
        self.set_sp_masked(sp, mask);
        if let Some(f) = image {
            self.set_flags_on_return(f, size, old);
        }
        self.enter_code_as(d.segment(selector.into()), rpl, offset);
        if outer {
            self.drop_inner_segments();
        }
        Ok(())
    }
}
