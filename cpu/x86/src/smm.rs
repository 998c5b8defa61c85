//! System-management mode (vol. 3, chapter 33; APM vol. 2, chapter 10): the state-save map is AMD64's (revision 0x20064) on
//! processors with long mode, else the 32-bit one (revision 0x20000).

use crate::config::Feature;
use crate::exception::Exception;
use crate::flags;
use crate::hooks::pin;
use crate::mmu::{cr0, efer};
use crate::state::{Seg, Segment, Shadow, X86Cpu, attr, gpr};
use rhea_ir::guest::{TlbFlush, request};

/// The state-save map begins here above SMBASE + 0x8000; offsets below are those of the manuals.
const MAP: u64 = 0x8000;
/// SMBASE can be relocated (bit 17), I/O instructions restarted (bit 16).
const REVISION64: u64 = 0x3_0064;
const REVISION32: u64 = 0x3_0000;
const SEGMENTS: [Seg; 6] = [Seg::Es, Seg::Cs, Seg::Ss, Seg::Ds, Seg::Fs, Seg::Gs];

/// General-purpose registers from the top of the 64-bit map downwards: RAX, RCX, ….
const ORDER64: [u32; 16] =
    [gpr::RAX, gpr::RCX, gpr::RDX, gpr::RBX, gpr::RSP, gpr::RBP, gpr::RSI, gpr::RDI, 8, 9, 10, 11, 12, 13, 14, 15];

/// An I/O instruction that caused an SMI, as it began: the handler may have it run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IoSmi {
    /// Linear addresses of it and of the next one.
    pub at: [u64; 2],
    pub rip: u64,
    pub rcx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub port: u16,
    /// Bytes.
    pub size: u8,
    pub input: bool,
    pub string: bool,
    pub rep: bool,
}

impl IoSmi {
    /// The I/O restart doubleword (APM vol. 2, 10.3.6).
    fn word64(&self, single_step: bool) -> u64 {
        u64::from(self.input)
            | 1 << 1
            | u64::from(self.string) << 2
            | u64::from(self.rep) << 3
            | u64::from(self.size & 7) << 4
            | u64::from(single_step) << 11
            | u64::from(self.port) << 16
    }
    /// The I/O state field (vol. 3, 33.7).
    fn word32(&self) -> u64 {
        let kind = u64::from(self.input) | u64::from(self.string) << 1 | u64::from(self.rep) << 2;
        1 | u64::from(self.size & 7) << 1 | kind << 4 | u64::from(self.port) << 16
    }
}

/// Attributes as the maps hold them: bits 8–15 and 20–23 of a descriptor without the gap.
fn pack_attr(a: u32) -> u64 {
    let usable = if a & attr::UNUSABLE != 0 { !u64::from(attr::PRESENT) } else { !0 };
    u64::from(a & 0xff | a >> 4 & 0xf00) & usable
}
fn unpack_attr(a: u64) -> u32 {
    let a = a as u32;
    let u = if a & attr::PRESENT == 0 { attr::UNUSABLE } else { 0 };
    a & 0xff | (a & 0xf00) << 4 | u
}

impl X86Cpu {
    fn save(&mut self, at: u64, size: u8, v: u64) {
        let pa = u64::from(self.smbase).wrapping_add(MAP + at) & 0xffff_ffff;
        self.write_physical(pa, size, v);
    }
    fn restore(&mut self, at: u64, size: u8) -> u64 {
        let pa = u64::from(self.smbase).wrapping_add(MAP + at) & 0xffff_ffff;
        self.read_physical(pa, size)
    }

    /// Takes an SMI.
    pub(crate) fn enter_smm(&mut self) {
        let halted = std::mem::take(&mut self.halted);
        let hooks = self.hooks.clone();
        hooks.smm(self.index, true);
        let eip = self.eip();
        let io = self.io_smi.take().filter(|io| io.at.contains(&self.header.pc));
        self.smm = true;
        self.walks.flush();
        if self.has(Feature::Lm) {
            self.save64(eip, halted, io);
        } else {
            self.save32(eip, halted, io);
        }
        if self.tells_exceptions {
            hooks.exception(self.index, &format!("SMI at {:#x}", self.header.pc));
        }
        self.smm_nmi_blocked = std::mem::replace(&mut self.nmi_blocked, true);
        self.set_status_flags(0);
        self.eflags = flags::FIXED;
        self.cpl = 0;
        self.cr0 &= !(cr0::PE | cr0::EM | cr0::TS | cr0::PG);
        self.cr4 = 0;
        self.efer = 0;
        self.dr[7] = crate::debug::dr7::FIXED;
        self.shadow = Shadow::None;
        self.near_limit = false;
        self.debug.forget_instruction();
        for s in SEGMENTS {
            let mut seg = Segment { limit: u32::MAX, attr: 0x8093, ..Segment::real(0, 0) };
            if s == Seg::Cs {
                seg.selector = self.smbase >> 4 & 0xffff;
                seg.base = self.smbase.into();
            }
            self.set_segment(s, seg);
        }
        self.header.pc = u64::from(self.smbase).wrapping_add(0x8000) & 0xffff_ffff;
        self.flush(TlbFlush::All, false);
        self.rebuild_mode();
    }
    /// After an access to a port: if it has caused an SMI, that comes before the next instruction.
    pub(crate) fn note_io(&mut self, io: impl FnOnce(&X86Cpu) -> IoSmi) {
        if self.pins.bits() & pin::SMI != 0 && !self.smm {
            let mut io = io(self);
            let next = self.instruction_at(self.header.pc).next_ip();
            io.at = [self.header.pc, if self.is_long() { next } else { next & 0xffff_ffff }];
            self.io_smi = Some(io);
        }
    }
    fn save64(&mut self, eip: u64, halted: bool, io: Option<IoSmi>) {
        for (n, s) in SEGMENTS.into_iter().enumerate() {
            let seg = *self.segment(s);
            self.save_segment64(0x7e00 + 16 * n as u64, seg);
        }
        let (gdtr, ldtr, idtr, tr) = (self.gdtr, self.ldtr, self.idtr, self.tr);
        self.save(0x7e64, 4, gdtr.limit.into());
        self.save(0x7e68, 8, gdtr.base);
        self.save_segment64(0x7e70, ldtr);
        self.save(0x7e84, 4, idtr.limit.into());
        self.save(0x7e88, 8, idtr.base);
        self.save_segment64(0x7e90, tr);
        for (n, v) in io.map_or([0; 4], |i| [i.rip, i.rcx, i.rsi, i.rdi]).into_iter().enumerate() {
            self.save(0x7ea0 + 8 * n as u64, 8, v);
        }
        let step = self.eflags & flags::TF != 0;
        self.save(0x7ec0, 4, io.map_or(0, |i| i.word64(step)));
        self.save(0x7ec8, 1, 0);
        self.save(0x7ec9, 1, halted.into());
        self.save(0x7eca, 1, self.nmi_blocked.into());
        self.save(0x7ed0, 8, self.efer);
        self.save(0x7efc, 4, REVISION64);
        self.save(0x7f00, 4, self.smbase.into());
        self.save(0x7f48, 8, self.cr4);
        self.save(0x7f50, 8, self.cr3);
        self.save(0x7f58, 8, self.cr0);
        self.save(0x7f60, 8, self.dr[7]);
        self.save(0x7f68, 8, self.dr[6]);
        let f = self.rflags();
        self.save(0x7f70, 8, f.into());
        self.save(0x7f78, 8, eip);
        for (n, r) in ORDER64.into_iter().enumerate() {
            let v = self.r[r as usize];
            self.save(0x7ff8 - 8 * n as u64, 8, v);
        }
    }
    fn save_segment64(&mut self, at: u64, s: Segment) {
        self.save(at, 2, s.selector.into());
        self.save(at + 2, 2, pack_attr(s.attr));
        self.save(at + 4, 4, s.limit.into());
        self.save(at + 8, 8, s.base);
    }
    fn restore_segment64(&mut self, at: u64) -> Segment {
        Segment {
            selector: self.restore(at, 2) as u32,
            attr: unpack_attr(self.restore(at + 2, 2)),
            limit: self.restore(at + 4, 4) as u32,
            base: self.restore(at + 8, 8),
            ..Segment::default()
        }
    }
    /// Where the hidden part of a segment register is in the 32-bit map: attributes, limit, base.
    fn hidden32(n: u64) -> u64 {
        if n < 3 { 0x7f84 + 12 * n } else { 0x7f2c + 12 * (n - 3) }
    }
    fn save_segment32(&mut self, selector_at: u64, at: u64, s: Segment) {
        self.save(selector_at, 4, s.selector.into());
        self.save(at, 4, pack_attr(s.attr));
        self.save(at + 4, 4, s.limit.into());
        self.save(at + 8, 4, s.base);
    }
    fn restore_segment32(&mut self, selector_at: u64, at: u64) -> Segment {
        Segment {
            selector: self.restore(selector_at, 4) as u32 & 0xffff,
            attr: unpack_attr(self.restore(at, 4)),
            limit: self.restore(at + 4, 4) as u32,
            base: self.restore(at + 8, 4),
            ..Segment::default()
        }
    }
    fn save32(&mut self, eip: u64, halted: bool, io: Option<IoSmi>) {
        self.save(0x7ffc, 4, self.cr0);
        self.save(0x7ff8, 4, self.cr3);
        let f = self.rflags();
        self.save(0x7ff4, 4, f.into());
        self.save(0x7ff0, 4, eip);
        for n in 0..8 {
            let v = self.r[n];
            self.save(0x7fd0 + 4 * n as u64, 4, v);
        }
        self.save(0x7fcc, 4, self.dr[6]);
        self.save(0x7fc8, 4, self.dr[7]);
        let (gdtr, ldtr, idtr, tr) = (self.gdtr, self.ldtr, self.idtr, self.tr);
        self.save_segment32(0x7fc4, 0x7f5c, tr);
        self.save_segment32(0x7fc0, 0x7f78, ldtr);
        self.save(0x7f74, 4, gdtr.base);
        self.save(0x7f70, 4, gdtr.limit.into());
        self.save(0x7f58, 4, idtr.base);
        self.save(0x7f54, 4, idtr.limit.into());
        for (n, s) in SEGMENTS.into_iter().enumerate() {
            let (n, seg) = (n as u64, *self.segment(s));
            self.save_segment32(0x7fa8 + 4 * n, Self::hidden32(n), seg);
        }
        self.save(0x7fa4, 4, io.map_or(0, |i| i.word32()));
        self.save(0x7f14, 4, self.cr4);
        for (n, v) in io.map_or([0; 4], |i| [i.rdi, i.rcx, i.rsi, i.rip]).into_iter().enumerate() {
            self.save(0x7f04 + 4 * n as u64, 4, v);
        }
        self.save(0x7f02, 2, halted.into());
        self.save(0x7f00, 2, 0);
        self.save(0x7efc, 4, REVISION32);
        self.save(0x7ef8, 4, self.smbase.into());
    }

    /// RSM.
    pub(crate) fn rsm(&mut self) -> Result<(), Exception> {
        if !self.smm {
            return Err(Exception::ud());
        }
        let ok = if self.has(Feature::Lm) { self.restore64() } else { self.restore32() };
        self.smm = false;
        self.nmi_blocked = self.smm_nmi_blocked;
        self.shadow = Shadow::None;
        self.near_limit = false;
        let hooks = self.hooks.clone();
        hooks.smm(self.index, false);
        self.flush(TlbFlush::All, false);
        self.rebuild_mode();
        self.request(request::INTERRUPT);
        if ok.is_none() {
            // An invalid state is shutdown (33.5).
            self.triple_fault();
        }
        Ok(())
    }
    /// What both maps share: control registers, flags, pc, level. `None` if the state is invalid.
    fn resume(&mut self, cr: [u64; 3], efer: u64, f: u32, eip: u64, segments: [Segment; 6]) -> Option<()> {
        let [new0, new3, new4] = cr;
        let bad = (new0 & cr0::PG != 0 && new0 & cr0::PE == 0)
            || (new0 & cr0::NW != 0 && new0 & cr0::CD == 0)
            || new0 >> 32 != 0
            || new4 & !self.cr4_allowed() != 0;
        if bad {
            return None;
        }
        self.cr0 = new0 & cr0::ALL | cr0::ET;
        self.cr3 = new3;
        self.cr4 = new4;
        self.efer = efer;
        self.set_status_flags(f);
        self.eflags = f & !flags::STATUS & 0x003f_7fd7 | flags::FIXED;
        for (s, seg) in SEGMENTS.into_iter().zip(segments) {
            self.set_segment(s, seg);
        }
        self.cpl = if self.vm86() {
            3
        } else if self.protected() {
            self.segment(Seg::Ss).dpl()
        } else {
            0
        };
        if self.cr0 & cr0::PG != 0 && self.cr4 & crate::mmu::cr4::PAE != 0 && !self.lma() {
            self.write_cr3(new3).ok()?;
        }
        self.header.pc = self.linear_of(eip);
        Some(())
    }
    /// Auto-halt restart: back into HLT if the map still says so.
    fn auto_halt(&mut self, flag: u64) {
        self.halted = flag & 1 != 0;
    }
    /// Has an I/O instruction run again, if the handler wrote to the slot for that: gives its address.
    fn io_restart(&mut self, eip: u64, slot: u64, [rip, rcx, rsi, rdi]: [u64; 4]) -> u64 {
        if slot & 0xff == 0 {
            return eip;
        }
        for (n, v) in [(gpr::RCX, rcx), (gpr::RSI, rsi), (gpr::RDI, rdi)] {
            self.r[n as usize] = v;
        }
        rip
    }
    fn restore64(&mut self) -> Option<()> {
        for (n, r) in ORDER64.into_iter().enumerate() {
            self.r[r as usize] = self.restore(0x7ff8 - 8 * n as u64, 8);
        }
        let mut segments = [Segment::default(); 6];
        for (n, s) in segments.iter_mut().enumerate() {
            *s = self.restore_segment64(0x7e00 + 16 * n as u64);
        }
        self.gdtr.limit = self.restore(0x7e64, 4) as u32;
        self.gdtr.base = self.restore(0x7e68, 8);
        self.ldtr = self.restore_segment64(0x7e70);
        self.idtr.limit = self.restore(0x7e84, 4) as u32;
        self.idtr.base = self.restore(0x7e88, 8);
        self.tr = self.restore_segment64(0x7e90);
        self.dr[7] = self.restore(0x7f60, 4) & crate::debug::dr7::WRITABLE | crate::debug::dr7::FIXED;
        self.dr[6] = self.restore(0x7f68, 4) & crate::debug::dr6::WRITABLE | crate::debug::dr6::FIXED;
        let cr = [self.restore(0x7f58, 8), self.restore(0x7f50, 8), self.restore(0x7f48, 8)];
        let (f, eip) = (self.restore(0x7f70, 4) as u32, self.restore(0x7f78, 8));
        let known = efer::SCE | efer::LME | efer::LMA | efer::NXE | efer::FFXSR;
        let efer = self.restore(0x7ed0, 8) & known;
        let (halt, slot) = (self.restore(0x7ec9, 1), self.restore(0x7ec8, 1));
        let io = [0x7ea0, 0x7ea8, 0x7eb0, 0x7eb8].map(|at| self.restore(at, 8));
        let eip = self.io_restart(eip, slot, io);
        let smbase = self.restore(0x7f00, 4) as u32;
        self.resume(cr, efer, f, eip, segments)?;
        self.auto_halt(halt);
        self.smbase = smbase;
        Some(())
    }
    fn restore32(&mut self) -> Option<()> {
        for n in 0..8 {
            self.r[n] = self.restore(0x7fd0 + 4 * n as u64, 4);
        }
        let mut segments = [Segment::default(); 6];
        for (n, s) in segments.iter_mut().enumerate() {
            *s = self.restore_segment32(0x7fa8 + 4 * n as u64, Self::hidden32(n as u64));
        }
        self.tr = self.restore_segment32(0x7fc4, 0x7f5c);
        self.ldtr = self.restore_segment32(0x7fc0, 0x7f78);
        self.gdtr.base = self.restore(0x7f74, 4);
        self.gdtr.limit = self.restore(0x7f70, 4) as u32;
        self.idtr.base = self.restore(0x7f58, 4);
        self.idtr.limit = self.restore(0x7f54, 4) as u32;
        self.dr[6] = self.restore(0x7fcc, 4) & crate::debug::dr6::WRITABLE | crate::debug::dr6::FIXED;
        self.dr[7] = self.restore(0x7fc8, 4) & crate::debug::dr7::WRITABLE | crate::debug::dr7::FIXED;
        let cr = [self.restore(0x7ffc, 4), self.restore(0x7ff8, 4), self.restore(0x7f14, 4)];
        let (f, eip) = (self.restore(0x7ff4, 4) as u32, self.restore(0x7ff0, 4));
        let (halt, slot) = (self.restore(0x7f02, 2), self.restore(0x7f00, 2));
        let io = [0x7f10, 0x7f08, 0x7f0c, 0x7f04].map(|at| self.restore(at, 4));
        let eip = self.io_restart(eip, slot, io);
        let smbase = self.restore(0x7ef8, 4) as u32;
        self.resume(cr, 0, f, eip, segments)?;
        self.auto_halt(halt);
        self.smbase = smbase;
        Some(())
    }
}
