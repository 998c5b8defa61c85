//! All migratable state of a processor as plain data.

use crate::flags;
use crate::mmu::{cr0, efer};
use crate::state::{Seg, Segment, Shadow, TableRegister, X86Cpu, attr};
use minicbor::{Decode, Encode};
use rhea_ir::guest::{TlbFlush, request};

/// Version of [`X86Saved`].
pub const VERSION: u32 = 1;

/// A segment register with its hidden part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SegmentSaved {
    #[n(0)]
    pub selector: u32,
    #[n(1)]
    pub base: u64,
    #[n(2)]
    pub limit: u32,
    #[n(3)]
    pub attr: u32,
}

impl From<&Segment> for SegmentSaved {
    fn from(s: &Segment) -> Self {
        Self { selector: s.selector, base: s.base, limit: s.limit, attr: s.attr }
    }
}
impl From<SegmentSaved> for Segment {
    fn from(s: SegmentSaved) -> Self {
        const ATTRIBUTES: u32 = 0xf0ff | attr::UNUSABLE;
        Self {
            selector: s.selector & 0xffff,
            base: s.base,
            limit: s.limit,
            attr: s.attr & ATTRIBUTES,
            ..Self::default()
        }
    }
}

/// The x87 unit.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct X87Saved {
    /// Control word, status word, abridged tag word.
    #[n(0)]
    pub words: [u16; 3],
    /// Significand and exponent with sign of R0–R7.
    #[n(1)]
    pub registers: [(u64, u16); 8],
    /// Pointers of the last instruction and its operand: offset, selector.
    #[n(2)]
    pub pointers: [(u64, u32); 2],
    #[n(3)]
    pub opcode: u32,
}

/// See [`X86Cpu::save_state`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct X86Saved {
    #[n(0)]
    pub apic_id: u32,
    /// Linear address of the next instruction.
    #[n(1)]
    pub pc: u64,
    #[n(2)]
    pub r: [u64; 16],
    #[n(3)]
    pub rflags: u32,
    #[n(4)]
    pub segments: [SegmentSaved; 6],
    #[n(5)]
    pub ldtr: SegmentSaved,
    #[n(6)]
    pub tr: SegmentSaved,
    /// GDTR and IDTR: base, limit.
    #[n(7)]
    pub tables: [(u64, u32); 2],
    /// CR0, CR2, CR3, CR4, EFER, XCR0.
    #[n(8)]
    pub control: [u64; 6],
    #[n(9)]
    pub pkru: u32,
    #[n(10)]
    pub dr: [u64; 8],
    /// Four words of YMM0–15, the lowest first.
    #[n(11)]
    pub ymm: [[u64; 4]; 16],
    #[n(12)]
    pub mxcsr: u32,
    #[n(13)]
    pub x87: X87Saved,
    /// Model-specific registers by fields of [`crate::msr::Msrs`].
    #[n(14)]
    pub msrs: Vec<u64>,
    #[n(15)]
    pub mtrrs: Vec<u64>,
    #[n(16)]
    pub pdpte: [u64; 4],
    #[n(17)]
    pub smbase: u32,
    #[n(18)]
    pub cpl: u8,
    /// 0: nothing is held off, 1: after STI, 2: after a load of SS.
    #[n(19)]
    pub shadow: u8,
    #[n(20)]
    pub halted: bool,
    #[n(21)]
    pub wait_for_sipi: bool,
    #[n(22)]
    pub shut_down: bool,
    #[n(23)]
    pub nmi_blocked: bool,
    #[n(24)]
    pub smm: bool,
    #[n(25)]
    pub smm_nmi_blocked: bool,
    /// Debug traps that wait, for DR6; whether the instruction began with TF.
    #[n(26)]
    pub traps: (u64, bool),
    /// Paravirtual registers: wall clock, system time, steal time, end of interrupt; version of the time page.
    #[n(27)]
    pub paravirtual: [u64; 5],
    /// Latched inputs, vector of a start-up message, NMIs that wait.
    #[n(28)]
    pub pins: [u32; 3],
    /// What XINUSE says beyond the contents of registers.
    #[n(29)]
    pub in_use: u32,
}

impl X86Cpu {
    /// The state, while the processor does not run.
    pub fn save_state(&mut self) -> X86Saved {
        let x = &self.x87;
        let x87 = X87Saved {
            words: [x.control_word(), x.status_word(), x.tags as u16 & 0xff],
            registers: std::array::from_fn(|n| (x.significand[n], x.sign_exponent[n] as u16)),
            pointers: [(x.fip, x.fcs), (x.fdp, x.fds)],
            opcode: x.fop,
        };
        // A deadline that has come is none.
        if self.hooks.tsc_deadline(self.index).is_none() {
            self.msr.tsc_deadline = 0;
        }
        X86Saved {
            apic_id: self.apic_id,
            pc: self.header.pc,
            r: self.r,
            rflags: self.rflags(),
            segments: self.seg.each_ref().map(SegmentSaved::from),
            ldtr: (&self.ldtr).into(),
            tr: (&self.tr).into(),
            tables: [self.gdtr, self.idtr].map(|t| (t.base, t.limit)),
            control: [self.cr0, self.cr2, self.cr3, self.cr4, self.efer, self.xcr0],
            pkru: self.pkru,
            dr: self.dr,
            ymm: std::array::from_fn(|n| {
                let (low, high) = (self.xmm[n], self.ymm_hi[n]);
                [low as u64, (low >> 64) as u64, high as u64, (high >> 64) as u64]
            }),
            mxcsr: self.mxcsr(),
            x87,
            msrs: self.msr.words(),
            mtrrs: self.msr.mtrr.words(),
            pdpte: self.pdpte,
            smbase: self.smbase,
            cpl: self.cpl as u8,
            shadow: match self.shadow {
                Shadow::None => 0,
                Shadow::Sti => 1,
                Shadow::MovSs => 2,
            },
            halted: self.halted,
            wait_for_sipi: self.wait_for_sipi,
            shut_down: self.shut_down,
            nmi_blocked: self.nmi_blocked,
            smm: self.smm,
            smm_nmi_blocked: self.smm_nmi_blocked,
            traps: (self.debug.pending, self.debug.step_armed),
            paravirtual: self.pv.words(),
            pins: self.pins.save(),
            in_use: self.reserved,
        }
    }

    /// Takes over a saved state; the local APIC, the clock and the A20 gate have taken over theirs.
    ///
    /// # Errors
    /// What does not fit this processor; the processor is then in its reset state.
    pub fn load_state(&mut self, saved: &X86Saved) -> Result<(), &'static str> {
        self.reset_state();
        let result = self.take_over(saved);
        if result.is_err() {
            self.reset_state();
        }
        result
    }
    fn take_over(&mut self, s: &X86Saved) -> Result<(), &'static str> {
        const EFER: u64 = efer::SCE | efer::LME | efer::LMA | efer::NXE | efer::FFXSR;
        let [new0, _, _, new4, new_efer, _] = s.control;
        let active = new0 & cr0::PG != 0 && new_efer & efer::LME != 0;
        if s.apic_id != self.apic_id {
            return Err("the processor has another APIC id");
        }
        if new0 & !cr0::ALL != 0
            || new0 & cr0::PG != 0 && new0 & cr0::PE == 0
            || new4 & !self.cr4_allowed() != 0
            || new_efer & !EFER != 0
            || (new_efer & efer::LMA != 0) != active
            || active && new4 & crate::mmu::cr4::PAE == 0
        {
            return Err("impossible control registers");
        }
        if s.cpl > 3 || s.shadow > 2 {
            return Err("impossible privilege level or interrupt shadow");
        }
        if !self.msr.set_words(&s.msrs) || !self.msr.mtrr.set_words(&s.mtrrs) {
            return Err("another number of model-specific registers");
        }
        self.pv.set_words(s.paravirtual);
        self.pins.load(s.pins);
        self.set_registers(s);
        if self.pv.eoi & 1 != 0 {
            self.hooks.set_pv_eoi(self.index, Some(self.pv.eoi & !3));
        }
        self.arm_deadline();
        self.request(request::INTERRUPT);
        Ok(())
    }

    /// Takes over registers as a processor left them: all but model-specific ([`X86Cpu::plain_msr`]) and paravirtual registers and
    /// the interrupt inputs. Values are not checked.
    pub fn set_registers(&mut self, s: &X86Saved) {
        let [new0, new2, new3, new4, new_efer, xcr0] = s.control;
        (self.cr0, self.cr2, self.cr3, self.cr4) = (new0 | cr0::ET, new2, new3, new4);
        (self.efer, self.xcr0, self.pkru) = (new_efer, xcr0 | 1, s.pkru);
        self.r = s.r;
        self.set_status_flags(s.rflags);
        self.eflags = s.rflags & !flags::STATUS & 0x003f_7fd7 | flags::FIXED;
        for (seg, saved) in Seg::ALL.into_iter().zip(s.segments) {
            self.set_segment(seg, saved.into());
        }
        (self.ldtr, self.tr) = (s.ldtr.into(), s.tr.into());
        [self.gdtr, self.idtr] = s.tables.map(|(base, limit)| TableRegister { base, limit: limit & 0xffff });
        self.dr = s.dr;
        self.dr[6] = s.dr[6] & crate::debug::dr6::WRITABLE | crate::debug::dr6::FIXED;
        self.dr[7] = s.dr[7] & crate::debug::dr7::WRITABLE | crate::debug::dr7::FIXED;
        for (n, ymm) in s.ymm.iter().enumerate() {
            self.xmm[n] = u128::from(ymm[0]) | u128::from(ymm[1]) << 64;
            self.ymm_hi[n] = u128::from(ymm[2]) | u128::from(ymm[3]) << 64;
        }
        for (n, (significand, exponent)) in s.x87.registers.iter().enumerate() {
            (self.x87.significand[n], self.x87.sign_exponent[n]) = (*significand, u32::from(*exponent));
        }
        self.x87.set_control_word(s.x87.words[0]);
        self.x87.set_status_word(s.x87.words[1]);
        self.x87.tags = u32::from(s.x87.words[2] & 0xff);
        [(self.x87.fip, self.x87.fcs), (self.x87.fdp, self.x87.fds)] = s.x87.pointers;
        self.x87.fop = s.x87.opcode & 0x7ff;
        self.pdpte = s.pdpte;
        (self.smbase, self.smm, self.smm_nmi_blocked) = (s.smbase, s.smm, s.smm_nmi_blocked);
        self.cpl = u32::from(s.cpl & 3);
        self.shadow = [Shadow::None, Shadow::Sti, Shadow::MovSs][usize::from(s.shadow.min(2))];
        (self.halted, self.wait_for_sipi, self.shut_down) = (s.halted, s.wait_for_sipi, s.shut_down);
        self.nmi_blocked = s.nmi_blocked;
        (self.debug.pending, self.debug.step_armed) = s.traps;
        self.reserved = s.in_use;
        self.header.pc = s.pc;
        self.header.raised = 0;
        // Rebuilds the mode too.
        self.set_mxcsr(s.mxcsr);
        self.a20_changed();
        self.flush(TlbFlush::All, false);
    }
}

#[cfg(test)]
mod tests {
    use crate::hooks::pin;
    use crate::tests::Bench;

    #[test]
    fn everything_comes_back() {
        for mut b in [Bench::real(), Bench::protected(3), Bench::long(0), Bench::long(3)] {
            b.r = std::array::from_fn(|n| 0x1234_5678 * n as u64);
            b.set_rflags(0x247);
            b.xmm = std::array::from_fn(|n| u128::MAX / (n as u128 + 2));
            b.ymm_hi = std::array::from_fn(|n| u128::MAX / (n as u128 + 20));
            b.x87.significand = std::array::from_fn(|n| u64::MAX / (n as u64 + 1));
            b.x87.set_control_word(0x27f);
            b.x87.set_status_word(0x3800);
            b.set_mxcsr(0x9f82);
            b.dr[0] = 0x1000;
            b.cr2 = 77;
            b.msr.star = 5;
            b.msr.mtrr.fixed[3] = 9;
            b.msr.banks[2][1] = 8;
            b.pv.wall_clock = 0x1000;
            b.nmi_blocked = true;
            b.pins().signal(pin::NMI);
            let (saved, mode) = (b.save_state(), b.header.mode);
            let bytes = minicbor::to_vec(&saved).unwrap();
            let mut fresh = Bench::real();
            fresh.load_state(&minicbor::decode(&bytes).unwrap()).unwrap();
            assert_eq!(fresh.save_state(), saved);
            assert_eq!((fresh.header.mode, fresh.rflags(), &fresh.x87, &fresh.msr), (mode, 0x247, &b.x87, &b.msr));
            assert_eq!(fresh.pins().bits() & pin::NMI, pin::NMI);
        }
    }

    #[test]
    fn damaged_state_is_refused() {
        let saved = Bench::long(0).save_state();
        let refused = |change: &dyn Fn(&mut super::X86Saved)| {
            let mut bad = saved.clone();
            change(&mut bad);
            let mut b = Bench::protected(0);
            assert!(b.load_state(&bad).is_err());
            // What is left is a processor that can run.
            assert_eq!((b.header.pc, b.cpl()), (0xffff_fff0, 0));
        };
        refused(&|s| s.apic_id = 9);
        refused(&|s| s.control[0] = crate::mmu::cr0::PG);
        refused(&|s| s.control[3] = u64::MAX);
        refused(&|s| s.control[4] = crate::mmu::efer::LME);
        refused(&|s| s.cpl = 4);
        refused(&|s| s.shadow = 3);
        refused(&|s| s.msrs.truncate(3));
        refused(&|s| s.mtrrs.push(0));
        assert!(minicbor::decode::<super::X86Saved>(&[0x80]).is_err());
    }
}
