//! SYSCALL, SYSRET, SYSENTER and SYSEXIT (vol. 2; APM vol. 3 where AMD processors differ).

use crate::config::{Feature, Vendor};
use crate::exception::Exception;
use crate::flags;
use crate::mmu::{cr0, efer};
use crate::state::{Seg, Segment, X86Cpu, attr, gpr};

impl X86Cpu {
    fn flat_code(selector: u32, dpl: u32, long: bool) -> Segment {
        let kind = if long { attr::LONG } else { attr::BIG };
        Segment {
            selector: selector & 0xffff,
            limit: u32::MAX,
            attr: 0x809b | kind | dpl << attr::DPL_SHIFT,
            ..Segment::default()
        }
    }
    fn flat_stack(selector: u32, dpl: u32) -> Segment {
        Segment {
            selector: selector & 0xffff,
            limit: u32::MAX,
            attr: 0xc093 | dpl << attr::DPL_SHIFT,
            ..Segment::default()
        }
    }
    /// SYSCALL and SYSRET trap by the TF that they set.
    fn arm_step(&mut self) {
        self.debug.step_armed = self.eflags & flags::TF != 0;
    }
    pub(crate) fn syscall(&mut self, len: u64) -> Result<(), Exception> {
        let intel = self.config.vendor == Vendor::Intel;
        if self.efer & efer::SCE == 0 || !self.protected() || !self.has(Feature::Syscall) || (intel && !self.is_long())
        {
            return Err(Exception::ud());
        }
        let star = self.msr.star;
        let cs = (star >> 32) as u32 & 0xfffc;
        let next = self.eip().wrapping_add(len);
        if self.lma() {
            let target = if self.is_long() { self.msr.lstar } else { self.msr.cstar };
            self.r[gpr::RCX as usize] = next;
            self.r[11] = u64::from(self.rflags() & !flags::RF);
            let f = self.rflags() & !(self.msr.sfmask as u32) & !flags::RF;
            self.set_segment(Seg::Ss, Self::flat_stack(cs + 8, 0));
            self.put_rflags(f);
            self.enter_code_as(Self::flat_code(cs, 0, true), 0, target);
        } else {
            self.r[gpr::RCX as usize] = next & 0xffff_ffff;
            self.set_segment(Seg::Ss, Self::flat_stack(cs + 8, 0));
            let f = self.rflags() & !(flags::IF | flags::VM | flags::RF);
            self.put_rflags(f);
            self.enter_code_as(Self::flat_code(cs, 0, false), 0, star & 0xffff_ffff);
        }
        self.arm_step();
        self.complete_here();
        Ok(())
    }
    pub(crate) fn sysret(&mut self, to64: bool) -> Result<(), Exception> {
        let intel = self.config.vendor == Vendor::Intel;
        if self.efer & efer::SCE == 0 || !self.protected() || !self.has(Feature::Syscall) || (intel && !self.is_long())
        {
            return Err(Exception::ud());
        }
        if self.cpl != 0 {
            return Err(Exception::gp(0));
        }
        let base = (self.msr.star >> 48) as u32;
        let rcx = self.r[gpr::RCX as usize];
        let to64 = to64 && self.is_long();
        if to64 && intel && !self.canonical(rcx) {
            return Err(Exception::gp(0));
        }
        let was_long = self.lma();
        let mut ss = Self::flat_stack((base + 8) | 3, 3);
        if !intel {
            // Only the selector is loaded (APM vol. 3, SYSRET); the rest stays, except that the level is 3.
            let old = self.segment(Seg::Ss);
            ss = Segment { selector: ss.selector, attr: old.attr & !attr::UNUSABLE | 3 << attr::DPL_SHIFT, ..*old };
            if !old.usable() {
                ss = Self::flat_stack((base + 8) | 3, 3);
            }
        }
        self.set_segment(Seg::Ss, ss);
        let (cs, target) = if to64 {
            (Self::flat_code((base + 16) | 3, 3, true), rcx)
        } else {
            (Self::flat_code(base | 3, 3, false), rcx & 0xffff_ffff)
        };
        let f = if was_long { self.r[11] as u32 & 0x003c_7fd7 } else { self.rflags() | flags::IF };
        self.put_rflags(f);
        self.enter_code_as(cs, 3, target);
        self.arm_step();
        self.complete_here();
        Ok(())
    }
    pub(crate) fn sysenter(&mut self) -> Result<(), Exception> {
        let amd_long = self.config.vendor == Vendor::Amd && self.lma();
        if amd_long || !self.has(Feature::Sep) {
            return Err(Exception::ud());
        }
        let cs = self.msr.sysenter_cs as u32;
        if self.cr0 & cr0::PE == 0 || cs & 0xfffc == 0 {
            return Err(Exception::gp(0));
        }
        let long = self.lma();
        let mask = if long { u64::MAX } else { 0xffff_ffff };
        let f = self.rflags() & !(flags::VM | flags::IF | flags::RF);
        self.put_rflags(f);
        let cs = cs & 0xfffc;
        self.set_segment(Seg::Ss, Self::flat_stack(cs + 8, 0));
        self.r[gpr::RSP as usize] = self.msr.sysenter_esp & mask;
        let target = self.msr.sysenter_eip & mask;
        self.enter_code_as(Self::flat_code(cs, 0, long), 0, target);
        self.complete_here();
        Ok(())
    }
    pub(crate) fn sysexit(&mut self, to64: bool) -> Result<(), Exception> {
        let amd_long = self.config.vendor == Vendor::Amd && self.lma();
        if amd_long || !self.has(Feature::Sep) {
            return Err(Exception::ud());
        }
        let cs = self.msr.sysenter_cs as u32 & 0xfffc;
        if self.cr0 & cr0::PE == 0 || self.vm86() || self.cpl != 0 || cs == 0 {
            return Err(Exception::gp(0));
        }
        let to64 = to64 && self.is_long();
        let mask = if to64 { u64::MAX } else { 0xffff_ffff };
        let (sp, target) = (self.r[gpr::RCX as usize] & mask, self.r[gpr::RDX as usize] & mask);
        if to64 && (!self.canonical(sp) || !self.canonical(target)) {
            return Err(Exception::gp(0));
        }
        let at = cs + if to64 { 32 } else { 16 };
        self.set_segment(Seg::Ss, Self::flat_stack((at + 8) | 3, 3));
        self.r[gpr::RSP as usize] = sp;
        self.enter_code_as(Self::flat_code(at | 3, 3, to64), 3, target);
        self.complete_here();
        Ok(())
    }
}
