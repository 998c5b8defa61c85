//! Control registers and what they flush (vol. 3, 2.5 and 5.10.4).

use super::{cr0, cr4, efer, pte};
use crate::config::Feature;
use crate::exception::Exception;
use crate::mode::mmu as index;
use crate::state::{Seg, X86Cpu, attr};
use rhea_ir::guest::{Contexts, TlbFlush, request};

/// Bit 63 of the value for CR3: the translations of the PCID stay.
const NO_FLUSH: u64 = 1 << 63;
const PCID: u64 = 0xfff;

impl X86Cpu {
    /// The process-context identifier, 0 while CR4.PCIDE is clear.
    pub(crate) fn pcid(&self) -> u64 {
        if self.cr4 & cr4::PCIDE != 0 { self.cr3 & PCID } else { 0 }
    }
    /// All translations, global ones too.
    pub fn flush_all(&mut self) {
        self.flush(TlbFlush::All, false);
    }
    /// All translations but global ones, of the current PCID or of all.
    fn flush_not_global(&mut self, of: Contexts) {
        self.flush(TlbFlush::Context { indexes: index::ALL, of }, false);
    }

    /// Loads the PDPTE registers from the table at `cr3` (5.4.1).
    fn load_pdptes(&mut self, at: u64) -> Result<(), Exception> {
        let table = at & 0xffff_ffe0;
        let mut new = [0; 4];
        let reserved = !(u64::MAX >> (64 - self.physical_bits())) | 0x1e6;
        for (n, p) in new.iter_mut().enumerate() {
            *p = self.read_entry(table + 8 * n as u64, 8);
            if *p & pte::P != 0 && *p & reserved != 0 {
                return Err(Exception::gp(0));
            }
        }
        self.pdpte = new;
        Ok(())
    }

    /// MOV to CR0; privilege was checked.
    ///
    /// # Errors
    /// #GP(0) for impossible combinations.
    pub fn write_cr0(&mut self, value: u64) -> Result<(), Exception> {
        if value >> 32 != 0 {
            return Err(Exception::gp(0));
        }
        let new = value & cr0::ALL | cr0::ET;
        let old = self.cr0;
        if (new & cr0::PG != 0 && new & cr0::PE == 0) || (new & cr0::NW != 0 && new & cr0::CD == 0) {
            return Err(Exception::gp(0));
        }
        let changed = old ^ new;
        if changed & cr0::PG != 0 {
            if new & cr0::PG != 0 {
                if self.efer & efer::LME != 0 {
                    if self.cr4 & cr4::PAE == 0 || self.seg[Seg::Cs as usize].attr & attr::LONG != 0 {
                        return Err(Exception::gp(0));
                    }
                    self.efer |= efer::LMA;
                } else if self.cr4 & cr4::PAE != 0 {
                    self.load_pdptes(self.cr3)?;
                }
            } else {
                if self.is_long() || self.cr4 & cr4::PCIDE != 0 {
                    return Err(Exception::gp(0));
                }
                self.efer &= !efer::LMA;
            }
        } else if new & cr0::PG != 0 && self.cr4 & cr4::PAE != 0 && !self.lma() && changed & (cr0::CD | cr0::NW) != 0 {
            self.load_pdptes(self.cr3)?;
        }
        self.cr0 = new;
        // Without paging there is nothing that depends on WP and PE.
        if changed & cr0::PG != 0 || new & cr0::PG != 0 && changed & cr0::WP != 0 {
            self.flush_all();
        }
        self.rebuild_mode();
        Ok(())
    }
    /// MOV to CR3.
    ///
    /// # Errors
    /// #GP(0): reserved bits, bad PDPTEs.
    pub fn write_cr3(&mut self, value: u64) -> Result<(), Exception> {
        let pcide = self.cr4 & cr4::PCIDE != 0;
        let keep = pcide && value & NO_FLUSH != 0;
        let new = if pcide { value & !NO_FLUSH } else { value };
        if self.lma() && new >> self.physical_bits() != 0 {
            return Err(Exception::gp(0));
        }
        let new = if self.is_long() { new } else { new & 0xffff_ffff };
        if self.cr0 & cr0::PG != 0 && self.cr4 & cr4::PAE != 0 && !self.lma() {
            self.load_pdptes(new)?;
        }
        self.cr3 = new;
        if keep {
            self.walks.flush();
            self.request(request::ACCEL);
        } else {
            let of = Contexts { mask: PCID, value: self.pcid() };
            self.flush_not_global(if pcide { of } else { Contexts::ALL });
        }
        Ok(())
    }
    /// MOV to CR4.
    ///
    /// # Errors
    /// #GP(0): bits of features that are absent, impossible changes.
    pub fn write_cr4(&mut self, new: u64) -> Result<(), Exception> {
        let old = self.cr4;
        let changed = old ^ new;
        if new & !self.cr4_allowed() != 0 {
            return Err(Exception::gp(0));
        }
        if self.lma() && (new & cr4::PAE == 0 || changed & cr4::LA57 != 0) {
            return Err(Exception::gp(0));
        }
        if new & !old & cr4::PCIDE != 0 && (!self.lma() || self.cr3 & PCID != 0) {
            return Err(Exception::gp(0));
        }
        let paging = cr4::PSE | cr4::PAE | cr4::PGE | cr4::SMEP;
        if self.cr0 & cr0::PG != 0
            && new & cr4::PAE != 0
            && !self.lma()
            && changed & (cr4::PSE | cr4::PAE | cr4::PGE | cr4::SMEP) != 0
        {
            self.load_pdptes(self.cr3)?;
        }
        self.cr4 = new;
        if changed & (paging | cr4::PCIDE | cr4::SMAP | cr4::PKE | cr4::PKS | cr4::LA57) != 0 {
            self.flush_all();
        }
        self.rebuild_mode();
        Ok(())
    }
    /// The bits of CR4 that the model has.
    pub(crate) fn cr4_allowed(&self) -> u64 {
        use Feature as F;
        const OF: &[(Feature, u64)] = &[
            (F::Vme, cr4::VME | cr4::PVI),
            (F::Tsc, cr4::TSD),
            (F::De, cr4::DE),
            (F::Pse, cr4::PSE),
            (F::Pae, cr4::PAE),
            (F::Mce, cr4::MCE),
            (F::Pge, cr4::PGE),
            (F::Fxsr, cr4::OSFXSR),
            (F::Sse, cr4::OSXMMEXCPT),
            (F::Umip, cr4::UMIP),
            (F::La57, cr4::LA57),
            (F::Fsgsbase, cr4::FSGSBASE),
            (F::Pcid, cr4::PCIDE),
            (F::Xsave, cr4::OSXSAVE),
            (F::Smep, cr4::SMEP),
            (F::Smap, cr4::SMAP),
            (F::Pku, cr4::PKE),
            (F::Pks, cr4::PKS),
        ];
        OF.iter().fold(cr4::PCE, |all, (f, bits)| if self.has(*f) { all | bits } else { all })
    }
    /// WRMSR to IA32_EFER.
    ///
    /// # Errors
    /// #GP(0): reserved bits, LME changed while paging is on.
    pub fn write_efer(&mut self, value: u64) -> Result<(), Exception> {
        let mut allowed = efer::LMA;
        if self.has(Feature::Syscall) {
            allowed |= efer::SCE;
        }
        if self.has(Feature::Lm) {
            allowed |= efer::LME;
        }
        if self.has(Feature::Nx) {
            allowed |= efer::NXE;
        }
        if self.has(Feature::FxsrOpt) {
            allowed |= efer::FFXSR;
        }
        if value & !allowed != 0 || ((value ^ self.efer) & efer::LME != 0 && self.cr0 & cr0::PG != 0) {
            return Err(Exception::gp(0));
        }
        let new = value & !efer::LMA | self.efer & efer::LMA;
        let changed = new ^ self.efer;
        self.efer = new;
        if changed & efer::NXE != 0 {
            self.flush_all();
        }
        Ok(())
    }
    /// PKRU (WRPKRU, XRSTOR).
    pub fn set_pkru(&mut self, value: u32) {
        if self.pkru != value {
            self.pkru = value;
            if self.cr4 & cr4::PKE != 0 {
                self.flush_all();
            }
        }
    }
    /// WRMSR to IA32_PKRS.
    pub(crate) fn set_pkrs(&mut self, value: u32) {
        if self.msr.pkrs != value {
            self.msr.pkrs = value;
            if self.cr4 & cr4::PKS != 0 {
                self.flush_all();
            }
        }
    }
    /// INVLPG: the page in the current PCID, and global translations of it.
    pub fn invlpg(&mut self, va: u64) {
        let va = if self.lma() { va } else { va & 0xffff_ffff };
        let of = Contexts { mask: PCID, value: self.pcid() };
        self.flush(TlbFlush::Range { va: va & !0xfff, pages: 1, indexes: index::ALL, of }, false);
        if va < 0x1000 && !self.is_long() {
            // Known under this address too: see `behind_4gib`.
            self.flush(TlbFlush::Range { va: 1 << 32, pages: 1, indexes: index::ALL, of }, false);
        }
    }
    /// INVPCID with its descriptor; privilege was checked.
    ///
    /// # Errors
    /// #GP(0): reserved bits, an unknown type, a PCID without CR4.PCIDE, a non-canonical address.
    pub fn invpcid(&mut self, kind: u64, descriptor: [u64; 2]) -> Result<(), Exception> {
        let (pcid, va) = (descriptor[0] & PCID, descriptor[1]);
        let bad_pcid = pcid != 0 && self.cr4 & cr4::PCIDE == 0;
        let of = Contexts { mask: PCID, value: pcid };
        if descriptor[0] & !PCID != 0 {
            return Err(Exception::gp(0));
        }
        match kind {
            0 => {
                if bad_pcid || (self.lma() && !self.canonical_value(va)) {
                    return Err(Exception::gp(0));
                }
                // Global translations may be dropped too.
                self.flush(TlbFlush::Range { va: va & !0xfff, pages: 1, indexes: index::ALL, of }, false);
            }
            1 if bad_pcid => return Err(Exception::gp(0)),
            1 => self.flush_not_global(of),
            2 => self.flush_all(),
            3 => self.flush_not_global(Contexts::ALL),
            _ => return Err(Exception::gp(0)),
        }
        Ok(())
    }
}
