//! Construction, reset, entry states of direct boots, and the mode word.

use crate::config::X86Config;
use crate::debug::DebugState;
use crate::flags;
use crate::hooks::{X86Hooks, X86Pins};
use crate::mmu::{Walks, cr0, cr4, efer};
use crate::mode::X86Mode;
use crate::msr::Msrs;
use crate::pv::Paravirtual;
use crate::state::{Seg, Segment, Shadow, TableRegister, X86Cpu, attr, gpr};
use crate::x87::X87;
use rhea_clock::VirtualClock;
use rhea_ir::EnvHeader;
use rhea_ir::guest::{TlbFlush, request};
use rhea_memory::AddressSpace;
use std::sync::Arc;

/// MXCSR after reset: all exceptions masked.
const MXCSR_RESET: u32 = 0x1f80;

/// Selectors that `enter_protected32` and `enter_long64` load: what the Linux boot protocol wants.
pub const BOOT_CS: u32 = 0x10;
pub const BOOT_DS: u32 = 0x18;

impl X86Cpu {
    /// A processor in its reset state. `index` numbers the vCPU, and 0 is the bootstrap processor.
    pub fn new(
        index: u32,
        apic_id: u32,
        config: &Arc<X86Config>,
        space: &Arc<AddressSpace>,
        clock: &Arc<VirtualClock>,
        hooks: Arc<dyn X86Hooks>,
    ) -> Box<X86Cpu> {
        let tells_exceptions = hooks.wants_exceptions();
        let mut cpu = Box::new(X86Cpu {
            header: EnvHeader::default(),
            r: [0; 16],
            cc: 0,
            cf: 0,
            eflags: flags::FIXED,
            interrupt_waits: 0,
            seg: [Segment::default(); 6],
            xmm: [0; 16],
            ymm_hi: [0; 16],
            mxcsr: MXCSR_RESET,
            reserved: 0,
            x87: X87::default(),
            ldtr: Segment::default(),
            tr: Segment::default(),
            gdtr: TableRegister::default(),
            idtr: TableRegister::default(),
            cr0: 0,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            efer: 0,
            xcr0: 1,
            pkru: 0,
            dr: [0; 8],
            msr: Msrs::default(),
            config: config.clone(),
            flushes: Vec::new(),
            hooks,
            pins: Arc::new(X86Pins::default()),
            space: space.clone(),
            clock: clock.clone(),
            index,
            resets: 0,
            apic_id,
            halted: false,
            wait_for_sipi: false,
            shut_down: false,
            nmi_blocked: false,
            smm: false,
            smm_nmi_blocked: false,
            smbase: 0,
            io_smi: None,
            cpl: 0,
            shadow: Shadow::None,
            near_limit: false,
            a20_mask: u64::MAX,
            pdpte: [0; 4],
            debug: DebugState::default(),
            walks: Walks::default(),
            pv: Paravirtual::default(),
            tells_exceptions,
            logged: Vec::new(),
        });
        cpu.reset_state();
        cpu
    }

    /// The interrupt inputs, to be driven from any thread.
    pub fn pins(&self) -> Arc<X86Pins> {
        self.pins.clone()
    }
    /// Is the processor in HLT?
    pub fn halted(&self) -> bool {
        self.halted
    }
    /// Shutdown after a triple fault.
    pub fn is_shut_down(&self) -> bool {
        self.shut_down
    }
    pub fn in_smm(&self) -> bool {
        self.smm
    }
    /// Waits for a start-up message.
    pub fn waits_for_sipi(&self) -> bool {
        self.wait_for_sipi
    }
    /// Starts a processor that waits for a start-up message where its registers say (direct boots).
    pub fn set_wait_for_sipi(&mut self, wait: bool) {
        self.wait_for_sipi = wait;
        self.request(request::INTERRUPT);
    }

    /// Asks the run loop to call `poll` (`request` bits).
    pub(crate) fn request(&self, bits: u32) {
        self.header.exit_request.set(bits);
    }
    /// Has the accelerator drop translations, here or on all processors, and drops those kept here.
    pub fn flush(&mut self, what: TlbFlush, everywhere: bool) {
        self.walks.flush();
        self.flushes.push((what, everywhere));
        self.request(request::ACCEL);
    }
    pub fn cpl(&self) -> u32 {
        self.cpl
    }
    /// CR0.PE without EFLAGS.VM.
    pub(crate) fn protected(&self) -> bool {
        self.cr0 & cr0::PE != 0 && self.eflags & flags::VM == 0
    }
    pub(crate) fn vm86(&self) -> bool {
        self.eflags & flags::VM != 0
    }
    /// EFER.LMA.
    pub(crate) fn lma(&self) -> bool {
        self.efer & efer::LMA != 0
    }
    /// 64-bit mode.
    pub fn is_long(&self) -> bool {
        self.lma() && self.seg[Seg::Cs as usize].attr & attr::LONG != 0
    }
    pub(crate) fn iopl(&self) -> u32 {
        (self.eflags & flags::IOPL) >> 12
    }
    /// EIP or RIP of the current instruction.
    pub fn eip(&self) -> u64 {
        if self.is_long() {
            self.header.pc
        } else {
            self.header.pc.wrapping_sub(self.seg[Seg::Cs as usize].base) & 0xffff_ffff
        }
    }
    /// The linear address of an offset in the code segment.
    pub(crate) fn linear_of(&self, eip: u64) -> u64 {
        if self.is_long() { eip } else { eip.wrapping_add(self.seg[Seg::Cs as usize].base) & 0xffff_ffff }
    }
    /// Sets EIP or RIP (debugger, boot).
    pub fn set_eip(&mut self, eip: u64) {
        self.header.pc = self.linear_of(eip);
    }
    /// Sets EFLAGS or RFLAGS whole, without checks; changes the mode.
    pub fn set_rflags(&mut self, f: u32) {
        self.put_rflags(f);
        self.rebuild_mode();
    }
    /// The same; the caller rebuilds the mode.
    pub(crate) fn put_rflags(&mut self, f: u32) {
        self.set_status_flags(f);
        self.eflags = f & !flags::STATUS & 0x003f_7fd7 | flags::FIXED;
        if f & flags::RF != 0 && !X86Mode(self.header.mode).breakpoints() {
            // RF matters to instruction breakpoints alone.
            self.eflags &= !flags::RF;
        }
        if self.eflags & flags::IF != 0 && self.pins.bits() != 0 {
            self.request(request::INTERRUPT);
        }
    }
    /// Sets a segment register with its hidden part, keeping `read_top` and `write_top`; the mode is to be rebuilt after it.
    pub fn set_segment(&mut self, seg: Seg, mut s: Segment) {
        s.read_top = 0;
        s.write_top = 0;
        let end = u64::from(s.limit) + 1;
        if s.attr & attr::UNUSABLE == 0 && s.attr & attr::PRESENT != 0 {
            if s.attr & attr::CODE != 0 {
                if s.attr & attr::WRITABLE != 0 {
                    s.read_top = end;
                }
                if !self.protected() {
                    s.write_top = end;
                }
            } else if s.attr & attr::EXPAND_DOWN == 0 {
                s.read_top = end;
                if s.attr & attr::WRITABLE != 0 {
                    s.write_top = end;
                }
            }
        }
        self.seg[seg as usize] = s;
    }
    /// Recomputes `header.mode`.
    pub fn rebuild_mode(&mut self) {
        const FULL: u64 = 1 << 32;
        let cs = &self.seg[Seg::Cs as usize];
        let ss = &self.seg[Seg::Ss as usize];
        let long = self.is_long();
        let protected = self.cr0 & cr0::PE != 0;
        let (f, m) = (self.eflags, self.mxcsr);
        let writable = |s: Seg| {
            let s = &self.seg[s as usize];
            s.base == 0 && s.read_top == FULL && s.write_top == FULL
        };
        let flat = long
            || (cs.base == 0 && cs.read_top == FULL && writable(Seg::Ss) && writable(Seg::Ds) && writable(Seg::Es));
        let user = self.cpl == 3;
        let mut idx = if user {
            crate::mode::mmu::USER
        } else if self.cr4 & cr4::SMAP != 0 && f & flags::AC == 0 {
            crate::mode::mmu::SUPERVISOR_SMAP
        } else {
            crate::mode::mmu::SUPERVISOR
        };
        if self.smm {
            idx += crate::mode::mmu::SMM;
        }
        let fpu_off = self.cr0 & (cr0::EM | cr0::TS) != 0;
        let avx = self.cr4 & cr4::OSXSAVE != 0 && self.xcr0 & 6 == 6;
        let mode = X86Mode(0)
            .with_cpl(self.cpl)
            .with_long(long)
            .with_code32(!long && cs.big())
            .with_stack32(!long && ss.big())
            .with_protected(protected)
            .with_vm86(f & flags::VM != 0)
            .with_lma(self.lma())
            .with_flat(flat)
            .with_tf(f & flags::TF != 0)
            .with_shadow(self.shadow != Shadow::None)
            .with_df(f & flags::DF != 0)
            .with_x87_nm(fpu_off)
            .with_sse_ud(self.cr0 & cr0::EM != 0 || self.cr4 & cr4::OSFXSR == 0)
            .with_ts(self.cr0 & cr0::TS != 0)
            .with_avx(avx)
            .with_ac(user && self.cr0 & cr0::AM != 0 && f & flags::AC != 0)
            .with_smm(self.smm)
            .with_breakpoints(self.debug.has_host_breakpoints() || self.has_breakpoints())
            .with_host_step(self.debug.host_step || self.debug.alone || self.records_branches())
            .with_rc(m >> 13 & 3)
            .with_ftz(m & 0x8000 != 0)
            .with_daz(m & 0x40 != 0)
            .with_fp_unmasked(m & 0x1f80 != 0x1f80)
            .with_mmu_idx(idx)
            .with_io_privileged(!protected || self.cpl <= self.iopl())
            .with_near_limit(self.near_limit && !long);
        self.header.mode = mode.0;
    }

    /// Power-on and RESET (table 11-1).
    pub(crate) fn reset_state(&mut self) {
        self.xmm = [0; 16];
        self.ymm_hi = [0; 16];
        self.mxcsr = MXCSR_RESET;
        self.header.fp_flags = 0;
        self.x87 = X87::reset();
        self.xcr0 = 1;
        self.pkru = 0;
        self.smbase = 0x3_0000;
        self.smm = false;
        self.cr0 = 0;
        self.reset_msrs();
        self.reset_common();
        self.cr0 = cr0::ET | cr0::NW | cr0::CD;
        self.wait_for_sipi = !self.is_bsp();
        self.debug.event = None;
        self.rebuild_mode();
    }
    fn is_bsp(&self) -> bool {
        self.index == 0
    }
    /// INIT: as RESET, but caches, floating-point and vector state, most MSRs and SMBASE stay.
    pub fn init_reset(&mut self) {
        let kept = self.cr0 & (cr0::CD | cr0::NW);
        self.reset_common();
        self.cr0 = cr0::ET | kept;
        self.wait_for_sipi = !self.is_bsp();
        let hooks = self.hooks.clone();
        hooks.init(self.index);
        self.rebuild_mode();
    }
    fn reset_common(&mut self) {
        self.resets = self.resets.wrapping_add(1);
        self.r = [0; 16];
        self.r[gpr::RDX as usize] = self.config.signature.into();
        self.set_status_flags(0);
        self.eflags = flags::FIXED;
        self.cr0 &= !cr0::PE;
        self.cr2 = 0;
        self.cr3 = 0;
        self.cr4 = 0;
        self.efer = 0;
        self.cpl = 0;
        for s in [Seg::Es, Seg::Ss, Seg::Ds, Seg::Fs, Seg::Gs] {
            self.set_segment(s, Segment::real(0, 0));
        }
        let cs = Segment { attr: 0x9b, ..Segment::real(0xf000, 0xffff_0000) };
        self.set_segment(Seg::Cs, cs);
        self.ldtr = Segment { attr: 0x82, ..Segment::real(0, 0) };
        self.tr = Segment { attr: 0x8b, ..Segment::real(0, 0) };
        self.gdtr = TableRegister { base: 0, limit: 0xffff };
        self.idtr = TableRegister { base: 0, limit: 0xffff };
        self.pdpte = [0; 4];
        self.reset_debug_registers();
        self.header.pc = 0xffff_fff0;
        self.header.raised = 0;
        self.halted = false;
        self.shut_down = false;
        self.io_smi = None;
        self.nmi_blocked = false;
        self.shadow = Shadow::None;
        self.near_limit = false;
        self.a20_changed();
        self.flush(TlbFlush::All, false);
    }
    /// A start-up message: real mode at `vector` × 4 KiB.
    pub(crate) fn start_up(&mut self, vector: u8) {
        self.wait_for_sipi = false;
        let vector = u32::from(vector);
        self.set_segment(Seg::Cs, Segment { attr: 0x9b, ..Segment::real(vector << 8, u64::from(vector) << 12) });
        self.header.pc = u64::from(vector) << 12;
        self.rebuild_mode();
    }
    /// The A20 gate changed; runs on the vCPU's thread.
    pub fn a20_changed(&mut self) {
        self.a20_mask = if self.hooks.a20() { u64::MAX } else { !(1 << 20) };
        self.flush(TlbFlush::All, false);
    }

    // ---- direct boots ----

    fn flat_segments(&mut self, code_attr: u32) {
        let flat = |selector: u32, attr: u32| Segment { selector, attr, limit: u32::MAX, ..Segment::default() };
        for s in [Seg::Es, Seg::Ss, Seg::Ds, Seg::Fs, Seg::Gs] {
            self.set_segment(s, flat(BOOT_DS, 0xc093));
        }
        self.set_segment(Seg::Cs, flat(BOOT_CS, code_attr));
        self.tr = Segment { selector: 0x20, attr: 0x8b, limit: 0x67, ..Segment::default() };
        self.ldtr = Segment::UNUSABLE;
        self.cpl = 0;
        self.eflags = flags::FIXED;
        self.wait_for_sipi = false;
        self.halted = false;
    }
    /// Protected mode without paging at `eip`: flat segments with the selectors [`BOOT_CS`] and [`BOOT_DS`], interrupts off.
    /// The caller writes the GDT to memory.
    pub fn enter_protected32(&mut self, eip: u32, gdt: TableRegister) {
        self.cr0 = cr0::ET | cr0::PE;
        self.efer = 0;
        self.gdtr = gdt;
        self.flat_segments(0xc09b);
        self.header.pc = eip.into();
        self.flush(TlbFlush::All, false);
        self.rebuild_mode();
    }
    /// 64-bit mode at `rip` with the tables at `cr3`: the same otherwise.
    pub fn enter_long64(&mut self, rip: u64, cr3: u64, gdt: TableRegister) {
        self.cr0 = cr0::ET | cr0::PE | cr0::PG;
        self.cr4 = cr4::PAE;
        self.cr3 = cr3;
        self.efer = efer::LME | efer::LMA;
        self.gdtr = gdt;
        self.flat_segments(0xa09b);
        self.header.pc = rip;
        self.flush(TlbFlush::All, false);
        self.rebuild_mode();
    }
}
