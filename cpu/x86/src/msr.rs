//! Model-specific registers (vol. 4; AMD64 APM vol. 2, appendix A). A register that the model lacks, and a reserved bit, is
//! #GP(0).

use crate::config::{Feature, Vendor};
use crate::exception::Exception;
use crate::state::{Seg, X86Cpu};

/// Numbers of registers.
pub mod reg {
    pub const P5_MC_ADDR: u32 = 0;
    pub const P5_MC_TYPE: u32 = 1;
    pub const TSC: u32 = 0x10;
    pub const PLATFORM_ID: u32 = 0x17;
    pub const APIC_BASE: u32 = 0x1b;
    pub const EBL_CR_POWERON: u32 = 0x2a;
    pub const FEATURE_CONTROL: u32 = 0x3a;
    pub const TSC_ADJUST: u32 = 0x3b;
    pub const SPEC_CTRL: u32 = 0x48;
    pub const PRED_CMD: u32 = 0x49;
    pub const BIOS_UPDT_TRIG: u32 = 0x79;
    pub const BIOS_SIGN_ID: u32 = 0x8b;
    pub const PLATFORM_INFO: u32 = 0xce;
    pub const MTRRCAP: u32 = 0xfe;
    pub const ARCH_CAPABILITIES: u32 = 0x10a;
    pub const BBL_CR_CTL3: u32 = 0x11e;
    pub const SYSENTER_CS: u32 = 0x174;
    pub const SYSENTER_ESP: u32 = 0x175;
    pub const SYSENTER_EIP: u32 = 0x176;
    pub const MCG_CAP: u32 = 0x179;
    pub const MCG_STATUS: u32 = 0x17a;
    pub const MCG_CTL: u32 = 0x17b;
    pub const PERF_STATUS: u32 = 0x198;
    pub const PERF_CTL: u32 = 0x199;
    pub const THERM_STATUS: u32 = 0x19c;
    pub const MISC_ENABLE: u32 = 0x1a0;
    pub const DEBUGCTL: u32 = 0x1d9;
    pub const LAST_BRANCH_FROM: u32 = 0x1db;
    pub const LAST_INT_TO: u32 = 0x1de;
    pub const MTRR_PHYS_BASE0: u32 = 0x200;
    pub const MTRR_FIX64K: u32 = 0x250;
    pub const MTRR_FIX16K: u32 = 0x258;
    pub const MTRR_FIX4K: u32 = 0x268;
    pub const PAT: u32 = 0x277;
    pub const MTRR_DEF_TYPE: u32 = 0x2ff;
    pub const MC0_CTL: u32 = 0x400;
    pub const TSC_DEADLINE: u32 = 0x6e0;
    pub const PKRS: u32 = 0x6e1;
    pub const X2APIC: u32 = 0x800;
    pub const X2APIC_LAST: u32 = 0x8ff;
    pub const XSS: u32 = 0xda0;
    pub const EFER: u32 = 0xc000_0080;
    pub const STAR: u32 = 0xc000_0081;
    pub const LSTAR: u32 = 0xc000_0082;
    pub const CSTAR: u32 = 0xc000_0083;
    pub const SFMASK: u32 = 0xc000_0084;
    pub const FS_BASE: u32 = 0xc000_0100;
    pub const GS_BASE: u32 = 0xc000_0101;
    pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
    pub const TSC_AUX: u32 = 0xc000_0103;
    // AMD.
    pub const K7_EVNTSEL0: u32 = 0xc001_0000;
    pub const K7_PERFCTR3: u32 = 0xc001_0007;
    pub const SYSCFG: u32 = 0xc001_0010;
    pub const HWCR: u32 = 0xc001_0015;
    pub const IORR_BASE0: u32 = 0xc001_0016;
    pub const IORR_MASK1: u32 = 0xc001_0019;
    pub const TOP_MEM: u32 = 0xc001_001a;
    pub const TOP_MEM2: u32 = 0xc001_001d;
    pub const NB_CFG: u32 = 0xc001_001f;
    pub const PATCH_LOADER: u32 = 0xc001_0020;
    pub const INT_PENDING: u32 = 0xc001_0055;
    pub const MMIO_CONF_BASE: u32 = 0xc001_0058;
    pub const SMM_BASE: u32 = 0xc001_0111;
    pub const VM_CR: u32 = 0xc001_0114;
    pub const OSVW_LENGTH: u32 = 0xc001_0140;
    pub const OSVW_STATUS: u32 = 0xc001_0141;
    pub const LS_CFG: u32 = 0xc001_1020;
    pub const DC_CFG: u32 = 0xc001_1022;
    pub const BU_CFG2: u32 = 0xc001_102a;
    pub const DE_CFG: u32 = 0xc001_1029;
}
use reg as R;

/// Variable memory type ranges.
const VARIABLE: usize = 8;
/// Machine-check banks.
const BANKS: usize = 10;
/// `MCG_CTL` is there.
const MCG_CTL_P: u64 = 1 << 8;
/// After power-up: WB, WT, UC-, UC, twice.
const PAT_RESET: u64 = 0x0007_0406_0007_0406;
/// Registers of which an access without effect was logged already, at most.
const LOGGED: usize = 64;

/// `IA32_MISC_ENABLE`.
mod misc {
    pub const FAST_STRING: u64 = 1;
    pub const BTS_UNAVAILABLE: u64 = 1 << 11;
    pub const PEBS_UNAVAILABLE: u64 = 1 << 12;
    pub const MONITOR: u64 = 1 << 18;
    pub const LIMIT_CPUID: u64 = 1 << 22;
    /// What writes change; the rest keeps its value.
    pub const WRITABLE: u64 = FAST_STRING | 1 << 3 | 1 << 16 | MONITOR | LIMIT_CPUID | 1 << 23 | 1 << 34 | 1 << 38;
}

/// `IA32_DEBUGCTL`.
pub(crate) mod debugctl {
    /// Record the last branch.
    pub const LBR: u64 = 1;
    /// TF traps after branches only.
    pub const BTF: u64 = 2;
}

/// Memory type range registers: kept for the guest; memory has one type here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mtrrs {
    pub default_type: u64,
    /// 64 KiB, 16 KiB twice, 4 KiB eight times.
    pub fixed: [u64; 11],
    /// Base and mask.
    pub variable: [[u64; 2]; VARIABLE],
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Msrs {
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub pat: u64,
    pub tsc_aux: u64,
    /// Rights of the protection keys of supervisor pages.
    pub pkrs: u32,
    /// Added to the counter that all processors share.
    pub tsc_offset: u64,
    pub tsc_adjust: u64,
    /// 0: disarmed.
    pub tsc_deadline: u64,
    pub debugctl: u64,
    /// Where the last branch came from and went to, and the last one before an interrupt or exception.
    pub last_branch: [u64; 4],
    pub misc_enable: u64,
    pub feature_control: u64,
    pub spec_ctrl: u64,
    pub bios_sign: u64,
    pub mtrr: Mtrrs,
    pub mcg_status: u64,
    pub mcg_ctl: u64,
    /// CTL, STATUS, ADDR, MISC of each bank.
    pub banks: [[u64; 4]; BANKS],
    pub syscfg: u64,
    pub hwcr: u64,
    pub top_mem: [u64; 2],
    pub iorr: [u64; 4],
    pub osvw: [u64; 2],
    pub vm_cr: u64,
    pub de_cfg: u64,
    pub ls_cfg: u64,
    pub nb_cfg: u64,
    pub mmio_conf_base: u64,
    logged: Vec<u32>,
}

impl Mtrrs {
    /// What is saved.
    pub fn words(&self) -> Vec<u64> {
        let variable = self.variable.iter().flatten();
        std::iter::once(&self.default_type).chain(&self.fixed).chain(variable).copied().collect()
    }
    /// False: there are not as many.
    pub fn set_words(&mut self, words: &[u64]) -> bool {
        let Some((default_type, words)) = words.split_first() else { return false };
        if words.len() != self.fixed.len() + 2 * VARIABLE {
            return false;
        }
        self.default_type = *default_type;
        let all = self.fixed.iter_mut().chain(self.variable.iter_mut().flatten());
        all.zip(words).for_each(|(register, word)| *register = *word);
        true
    }
}

impl Msrs {
    /// All registers but the MTRRs, in the order of saved state: new ones go to the end.
    fn registers(&mut self) -> Vec<&mut u64> {
        let Msrs {
            star,
            lstar,
            cstar,
            sfmask,
            kernel_gs_base,
            sysenter_cs,
            sysenter_esp,
            sysenter_eip,
            pat,
            tsc_aux,
            pkrs: _,
            tsc_offset,
            tsc_adjust,
            tsc_deadline,
            debugctl,
            last_branch,
            misc_enable,
            feature_control,
            spec_ctrl,
            bios_sign,
            mtrr: _,
            mcg_status,
            mcg_ctl,
            banks,
            syscfg,
            hwcr,
            top_mem,
            iorr,
            osvw,
            vm_cr,
            de_cfg,
            ls_cfg,
            nb_cfg,
            mmio_conf_base,
            logged: _,
        } = self;
        let mut all = vec![
            star,
            lstar,
            cstar,
            sfmask,
            kernel_gs_base,
            sysenter_cs,
            sysenter_esp,
            sysenter_eip,
            pat,
            tsc_aux,
            tsc_offset,
            tsc_adjust,
            tsc_deadline,
            debugctl,
            misc_enable,
            feature_control,
            spec_ctrl,
            bios_sign,
            mcg_status,
            mcg_ctl,
            syscfg,
            hwcr,
            vm_cr,
            de_cfg,
            ls_cfg,
            nb_cfg,
            mmio_conf_base,
        ];
        all.extend(banks.iter_mut().flatten());
        all.extend(top_mem.iter_mut().chain(iorr).chain(osvw).chain(last_branch));
        all
    }
    /// What is saved.
    pub fn words(&mut self) -> Vec<u64> {
        let pkrs = self.pkrs.into();
        std::iter::once(pkrs).chain(self.registers().into_iter().map(|r| *r)).collect()
    }
    /// False: there are not as many.
    pub fn set_words(&mut self, words: &[u64]) -> bool {
        let Some((pkrs, words)) = words.split_first() else { return false };
        self.pkrs = *pkrs as u32;
        let all = self.registers();
        let same = all.len() == words.len();
        if same {
            all.into_iter().zip(words).for_each(|(register, word)| *register = *word);
        }
        same
    }
}

const GP: Exception = Exception::gp(0);

impl X86Cpu {
    /// A register that only holds a value, by number: what an accelerator keeps in step with the processor that it runs on. `None`
    /// for those that are part of other state, are computed, or are not kept here.
    pub fn plain_msr(&mut self, msr: u32) -> Option<&mut u64> {
        use crate::pv::reg as pv;
        let m = &mut self.msr;
        Some(match msr {
            R::STAR => &mut m.star,
            R::LSTAR => &mut m.lstar,
            R::CSTAR => &mut m.cstar,
            R::SFMASK => &mut m.sfmask,
            R::KERNEL_GS_BASE => &mut m.kernel_gs_base,
            R::SYSENTER_CS => &mut m.sysenter_cs,
            R::SYSENTER_ESP => &mut m.sysenter_esp,
            R::SYSENTER_EIP => &mut m.sysenter_eip,
            R::PAT => &mut m.pat,
            R::TSC_AUX => &mut m.tsc_aux,
            R::DEBUGCTL => &mut m.debugctl,
            R::MISC_ENABLE => &mut m.misc_enable,
            R::SPEC_CTRL => &mut m.spec_ctrl,
            R::MTRR_DEF_TYPE => &mut m.mtrr.default_type,
            R::MCG_STATUS => &mut m.mcg_status,
            R::MCG_CTL => &mut m.mcg_ctl,
            pv::WALL_CLOCK => &mut self.pv.wall_clock,
            pv::SYSTEM_TIME => &mut self.pv.system_time,
            pv::STEAL_TIME => &mut self.pv.steal_time,
            pv::PV_EOI_EN => &mut self.pv.eoi,
            _ => {
                if let Some(n) = fixed_range(msr) {
                    &mut m.mtrr.fixed[n]
                } else if let Some((n, k)) = variable_range(msr) {
                    &mut m.mtrr.variable[n][k]
                } else {
                    let (n, k) = bank(msr)?;
                    &mut m.banks[n][k]
                }
            }
        })
    }
}

/// Index of a fixed-range register.
fn fixed_range(msr: u32) -> Option<usize> {
    match msr {
        R::MTRR_FIX64K => Some(0),
        R::MTRR_FIX16K..=0x259 => Some((msr - R::MTRR_FIX16K) as usize + 1),
        R::MTRR_FIX4K..=0x26f => Some((msr - R::MTRR_FIX4K) as usize + 3),
        _ => None,
    }
}
/// Index of a variable range and which of its two registers.
fn variable_range(msr: u32) -> Option<(usize, usize)> {
    let n = msr.checked_sub(R::MTRR_PHYS_BASE0)? as usize;
    (n < 2 * VARIABLE).then_some((n / 2, n % 2))
}
/// Bank and register.
fn bank(msr: u32) -> Option<(usize, usize)> {
    let n = msr.checked_sub(R::MC0_CTL)? as usize;
    (n < 4 * BANKS).then_some((n / 4, n % 4))
}
/// Memory types of MTRRs.
const fn mtrr_type(t: u8) -> bool {
    matches!(t, 0 | 1 | 4 | 5 | 6)
}

impl X86Cpu {
    /// RESET: what INIT keeps.
    pub(crate) fn reset_msrs(&mut self) {
        let intel = self.config.vendor == Vendor::Intel;
        let tsc_frequency_fixed = self.config.family >= 0x10;
        let monitor = if self.has(Feature::Monitor) { misc::MONITOR } else { 0 };
        self.msr = Msrs {
            pat: PAT_RESET,
            misc_enable: misc::FAST_STRING | misc::BTS_UNAVAILABLE | misc::PEBS_UNAVAILABLE | monitor,
            bios_sign: if intel { 1 << 32 } else { 0x0100_0065 },
            mcg_ctl: u64::MAX,
            hwcr: if !intel && tsc_frequency_fixed { 1 << 24 } else { 0 },
            // SVM is off for good.
            vm_cr: 1 << 3 | 1 << 4,
            // LFENCE serialises.
            de_cfg: 1 << 1,
            // The counter goes on: it is virtual time, the same on all processors.
            ..Msrs::default()
        };
        for b in &mut self.msr.banks {
            b[0] = u64::MAX;
        }
        self.hooks.set_tsc_deadline(self.index, None);
        self.reset_pv();
    }

    fn unknown_msr(&mut self, msr: u32, write: Option<u64>) -> Exception {
        if self.msr.logged.len() < LOGGED && !self.msr.logged.contains(&msr) {
            self.msr.logged.push(msr);
            let line = match write {
                Some(v) => format!("write of {v:#x} to unknown MSR {msr:#x}"),
                None => format!("read of unknown MSR {msr:#x}"),
            };
            self.hooks.unimplemented(self.index, &line);
        }
        GP
    }

    /// `IA32_ARCH_CAPABILITIES`: none of the weaknesses of real caches and predictors.
    fn arch_capabilities(&self) -> u64 {
        const RDCL_NO: u64 = 1;
        const IBRS_ALL: u64 = 1 << 1;
        const SKIP_L1DFL_VMENTRY: u64 = 1 << 3;
        const SSB_NO: u64 = 1 << 4;
        const MDS_NO: u64 = 1 << 5;
        const PSCHANGE_MC_NO: u64 = 1 << 6;
        const TAA_NO: u64 = 1 << 8;
        const SBDR_SSDP_NO: u64 = 1 << 13;
        const FBSDP_NO: u64 = 1 << 14;
        const PSDP_NO: u64 = 1 << 15;
        const BHI_NO: u64 = 1 << 20;
        const PBRSB_NO: u64 = 1 << 24;
        const GDS_NO: u64 = 1 << 26;
        const RFDS_NO: u64 = 1 << 27;
        RDCL_NO
            | if self.has(Feature::SpecCtrl) { IBRS_ALL } else { 0 }
            | SKIP_L1DFL_VMENTRY
            | SSB_NO
            | MDS_NO
            | PSCHANGE_MC_NO
            | TAA_NO
            | SBDR_SSDP_NO
            | FBSDP_NO
            | PSDP_NO
            | BHI_NO
            | PBRSB_NO
            | GDS_NO
            | RFDS_NO
    }

    /// RDMSR at CPL 0.
    ///
    /// # Errors
    /// #GP(0).
    pub fn read_msr(&mut self, msr: u32) -> Result<u64, Exception> {
        let intel = self.config.vendor == Vendor::Intel;
        let need = |f| if self.config.has(f) { Ok(()) } else { Err(GP) };
        Ok(match msr {
            R::TSC => self.tsc(),
            R::FS_BASE => self.seg[Seg::Fs as usize].base,
            R::GS_BASE => self.seg[Seg::Gs as usize].base,
            R::KERNEL_GS_BASE => self.msr.kernel_gs_base,
            R::X2APIC..=R::X2APIC_LAST => {
                need(Feature::X2apic)?;
                self.hooks.x2apic_read(self.index, msr).map_err(|_| GP)?
            }
            R::TSC_DEADLINE => {
                need(Feature::TscDeadline)?;
                // It reads as zero once it has passed.
                if self.msr.tsc_deadline != 0 && self.tsc() >= self.msr.tsc_deadline {
                    self.msr.tsc_deadline = 0;
                }
                self.msr.tsc_deadline
            }
            R::TSC_AUX => {
                self.need_tsc_aux()?;
                self.msr.tsc_aux
            }
            R::PKRS => {
                need(Feature::Pks)?;
                self.msr.pkrs.into()
            }
            R::P5_MC_ADDR | R::P5_MC_TYPE => 0,
            R::APIC_BASE => {
                need(Feature::Apic)?;
                self.hooks.apic_base(self.index)
            }
            R::TSC_ADJUST => {
                need(Feature::TscAdjust)?;
                self.msr.tsc_adjust
            }
            R::SPEC_CTRL if self.config.spec_ctrl_allowed() != 0 => self.msr.spec_ctrl,
            R::BIOS_SIGN_ID => self.msr.bios_sign,
            R::MTRRCAP => {
                need(Feature::Mtrr)?;
                // Variable ranges, fixed ranges, write-combining.
                VARIABLE as u64 | 1 << 8 | 1 << 10
            }
            R::ARCH_CAPABILITIES => {
                need(Feature::ArchCapabilities)?;
                self.arch_capabilities()
            }
            R::SYSENTER_CS => self.msr.sysenter_cs,
            R::SYSENTER_ESP => self.msr.sysenter_esp,
            R::SYSENTER_EIP => self.msr.sysenter_eip,
            R::MCG_CAP => {
                need(Feature::Mca)?;
                BANKS as u64 | MCG_CTL_P
            }
            R::MCG_STATUS => self.msr.mcg_status,
            R::MCG_CTL => self.msr.mcg_ctl,
            R::MISC_ENABLE => self.msr.misc_enable,
            R::DEBUGCTL => self.msr.debugctl,
            R::LAST_BRANCH_FROM..=R::LAST_INT_TO => self.msr.last_branch[(msr - R::LAST_BRANCH_FROM) as usize & 3],
            R::PAT => {
                need(Feature::Pat)?;
                self.msr.pat
            }
            R::MTRR_DEF_TYPE => {
                need(Feature::Mtrr)?;
                self.msr.mtrr.default_type
            }
            R::XSS => {
                need(Feature::Xsaves)?;
                0
            }
            R::EFER => self.efer,
            R::STAR => self.msr.star,
            R::LSTAR => self.msr.lstar,
            R::CSTAR => self.msr.cstar,
            R::SFMASK => self.msr.sfmask,
            _ if self.config.has(Feature::Mtrr)
                && let Some(n) = fixed_range(msr) =>
            {
                self.msr.mtrr.fixed[n]
            }
            _ if self.config.has(Feature::Mtrr)
                && let Some((n, k)) = variable_range(msr) =>
            {
                self.msr.mtrr.variable[n][k]
            }
            _ if self.config.has(Feature::Mca)
                && let Some((n, k)) = bank(msr) =>
            {
                self.msr.banks[n][k]
            }
            _ if let Some(v) = self.read_pv(msr) => v,
            _ if intel => match self.read_intel(msr) {
                Some(v) => v,
                None => return Err(self.unknown_msr(msr, None)),
            },
            _ => match self.read_amd(msr) {
                Some(v) => v,
                None => return Err(self.unknown_msr(msr, None)),
            },
        })
    }
    fn need_tsc_aux(&self) -> Result<(), Exception> {
        if self.has(Feature::Rdtscp) || self.has(Feature::Rdpid) { Ok(()) } else { Err(GP) }
    }
    fn read_intel(&self, msr: u32) -> Option<u64> {
        Some(match msr {
            R::PLATFORM_ID | R::EBL_CR_POWERON | R::BBL_CR_CTL3 | R::THERM_STATUS | R::PERF_CTL => 0,
            R::FEATURE_CONTROL => self.msr.feature_control,
            R::PLATFORM_INFO => (self.config.tsc_frequency / 100_000_000 & 0xff) << 8,
            R::PERF_STATUS => 0x1_0000_0010,
            _ => return None,
        })
    }
    fn read_amd(&self, msr: u32) -> Option<u64> {
        Some(match msr {
            // There are no counters behind these registers, which CPUID cannot take away.
            R::K7_EVNTSEL0..=R::K7_PERFCTR3 => 0,
            R::SYSCFG => self.msr.syscfg,
            R::HWCR => self.msr.hwcr,
            R::IORR_BASE0..=R::IORR_MASK1 => self.msr.iorr[(msr - R::IORR_BASE0) as usize & 3],
            R::TOP_MEM => self.msr.top_mem[0],
            R::TOP_MEM2 => self.msr.top_mem[1],
            R::NB_CFG => self.msr.nb_cfg,
            R::INT_PENDING | R::DC_CFG | R::BU_CFG2 => 0,
            R::MMIO_CONF_BASE => self.msr.mmio_conf_base,
            R::SMM_BASE => self.smbase.into(),
            R::VM_CR => self.msr.vm_cr,
            R::OSVW_LENGTH if self.has(Feature::Osvw) => self.msr.osvw[0],
            R::OSVW_STATUS if self.has(Feature::Osvw) => self.msr.osvw[1],
            R::LS_CFG => self.msr.ls_cfg,
            R::DE_CFG => self.msr.de_cfg,
            _ => return None,
        })
    }

    /// A base address: canonical.
    fn linear_value(&self, v: u64) -> Result<u64, Exception> {
        if !self.has(Feature::Lm) || self.canonical_value(v) { Ok(v) } else { Err(GP) }
    }

    /// WRMSR at CPL 0.
    ///
    /// # Errors
    /// #GP(0): no such register, reserved bits, a read-only register.
    pub fn write_msr(&mut self, msr: u32, v: u64) -> Result<(), Exception> {
        let intel = self.config.vendor == Vendor::Intel;
        let need = |f| if self.config.has(f) { Ok(()) } else { Err(GP) };
        let only = |bits: u64| if v & !bits == 0 { Ok(()) } else { Err(GP) };
        match msr {
            R::FS_BASE => self.seg[Seg::Fs as usize].base = self.linear_value(v)?,
            R::GS_BASE => self.seg[Seg::Gs as usize].base = self.linear_value(v)?,
            R::KERNEL_GS_BASE => self.msr.kernel_gs_base = self.linear_value(v)?,
            R::TSC_DEADLINE => {
                need(Feature::TscDeadline)?;
                self.msr.tsc_deadline = v;
                self.arm_deadline();
            }
            R::X2APIC..=R::X2APIC_LAST => {
                need(Feature::X2apic)?;
                return self.hooks.x2apic_write(self.index, msr, v).map_err(|_| GP);
            }
            R::SPEC_CTRL if self.config.spec_ctrl_allowed() != 0 => {
                only(self.config.spec_ctrl_allowed())?;
                self.msr.spec_ctrl = v;
            }
            R::PRED_CMD if self.has(Feature::SpecCtrl) || self.has(Feature::Ibpb) => only(1)?,
            R::PKRS => {
                need(Feature::Pks)?;
                only(0xffff_ffff)?;
                self.set_pkrs(v as u32);
            }
            R::P5_MC_ADDR | R::P5_MC_TYPE => {}
            R::TSC => self.set_tsc(v),
            R::APIC_BASE => {
                need(Feature::Apic)?;
                self.hooks.set_apic_base(self.index, v).map_err(|_| GP)?;
            }
            R::TSC_ADJUST => {
                need(Feature::TscAdjust)?;
                self.move_tsc(v.wrapping_sub(self.msr.tsc_adjust));
            }
            // AMD's patch level is not written, but firmware for both vendors clears it before it reads it.
            R::BIOS_SIGN_ID if intel => self.msr.bios_sign = if v == 0 { 1 << 32 } else { v },
            R::BIOS_SIGN_ID => {}
            R::BIOS_UPDT_TRIG if intel => {}
            R::SYSENTER_CS => self.msr.sysenter_cs = v & 0xffff_ffff,
            R::SYSENTER_ESP => self.msr.sysenter_esp = self.linear_value(v)?,
            R::SYSENTER_EIP => self.msr.sysenter_eip = self.linear_value(v)?,
            R::MCG_STATUS => {
                only(7)?;
                self.msr.mcg_status = v;
            }
            R::MCG_CTL => self.msr.mcg_ctl = v,
            R::MISC_ENABLE => {
                self.msr.misc_enable = self.msr.misc_enable & !misc::WRITABLE | v & misc::WRITABLE;
            }
            R::DEBUGCTL => {
                only(if intel { 0xffc3 } else { 0x3f })?;
                let known = debugctl::LBR | debugctl::BTF;
                if v & !known != 0 {
                    let line = format!("IA32_DEBUGCTL = {v:#x}: branch tracing and pins do nothing");
                    self.hooks.unimplemented(self.index, &line);
                }
                self.msr.debugctl = v & known;
                self.rebuild_mode();
            }
            R::PAT => {
                need(Feature::Pat)?;
                if v.to_le_bytes().iter().any(|t| !matches!(t, 0 | 1 | 4..=7)) {
                    return Err(GP);
                }
                self.msr.pat = v;
            }
            R::MTRR_DEF_TYPE => {
                need(Feature::Mtrr)?;
                only(0xcff)?;
                if !mtrr_type(v as u8) {
                    return Err(GP);
                }
                self.msr.mtrr.default_type = v;
            }
            R::XSS => {
                need(Feature::Xsaves)?;
                only(0)?;
            }
            R::EFER => {
                self.write_efer(v)?;
                self.rebuild_mode();
            }
            R::STAR => self.msr.star = v,
            R::LSTAR => self.msr.lstar = self.linear_value(v)?,
            R::CSTAR => self.msr.cstar = self.linear_value(v)?,
            R::SFMASK => self.msr.sfmask = v & 0xffff_ffff,
            R::TSC_AUX => {
                self.need_tsc_aux()?;
                if intel {
                    only(0xffff_ffff)?;
                }
                self.msr.tsc_aux = v & 0xffff_ffff;
            }
            _ if self.config.has(Feature::Mtrr)
                && let Some(n) = fixed_range(msr) =>
            {
                if !v.to_le_bytes().iter().all(|t| mtrr_type(*t)) {
                    return Err(GP);
                }
                self.msr.mtrr.fixed[n] = v;
            }
            _ if self.config.has(Feature::Mtrr)
                && let Some((n, k)) = variable_range(msr) =>
            {
                let address = u64::MAX >> (64 - self.physical_bits()) & !0xfff;
                only(address | if k == 0 { 0xff } else { 1 << 11 })?;
                if k == 0 && !mtrr_type(v as u8) {
                    return Err(GP);
                }
                self.msr.mtrr.variable[n][k] = v;
            }
            _ if self.config.has(Feature::Mca)
                && let Some((n, k)) = bank(msr) =>
            {
                let bad = match k {
                    // Controls take all ones or zeros; some systems leave one of two bits clear.
                    0 => v != 0 && v | 1 << 10 | 1 != u64::MAX,
                    // Status is only cleared, unless AMD's HWCR.McStatusWrEn is set.
                    1 => v != 0 && (intel || self.msr.hwcr >> 18 & 1 == 0),
                    _ => false,
                };
                if bad {
                    return Err(GP);
                }
                self.msr.banks[n][k] = v;
            }
            _ if let Some(r) = self.write_pv(msr, v) => return r,
            _ => {
                let done = if intel { self.write_intel(msr, v) } else { self.write_amd(msr, v) };
                match done {
                    Some(r) => return r,
                    None => return Err(self.unknown_msr(msr, Some(v))),
                }
            }
        }
        Ok(())
    }
    fn write_intel(&mut self, msr: u32, v: u64) -> Option<Result<(), Exception>> {
        match msr {
            R::FEATURE_CONTROL => {
                // Only the lock: VMX, SGX and local machine checks are absent.
                if self.msr.feature_control & 1 != 0 || v & !1 != 0 {
                    return Some(Err(GP));
                }
                self.msr.feature_control = v;
            }
            R::EBL_CR_POWERON | R::BBL_CR_CTL3 | R::PERF_CTL | R::THERM_STATUS => {}
            _ => return None,
        }
        Some(Ok(()))
    }
    fn write_amd(&mut self, msr: u32, v: u64) -> Option<Result<(), Exception>> {
        let m = &mut self.msr;
        match msr {
            R::K7_EVNTSEL0..=R::K7_PERFCTR3 | R::PATCH_LOADER | R::INT_PENDING | R::DC_CFG | R::BU_CFG2 => {}
            R::SYSCFG => m.syscfg = v & 0xff_ffff,
            R::HWCR => m.hwcr = v & 0xfeff_ffff | m.hwcr & 1 << 24,
            R::IORR_BASE0..=R::IORR_MASK1 => m.iorr[(msr - R::IORR_BASE0) as usize & 3] = v,
            R::TOP_MEM => m.top_mem[0] = v,
            R::TOP_MEM2 => m.top_mem[1] = v,
            R::NB_CFG => m.nb_cfg = v,
            R::MMIO_CONF_BASE => m.mmio_conf_base = v,
            R::SMM_BASE => self.smbase = v as u32,
            // Locked.
            R::VM_CR => {}
            R::OSVW_LENGTH if self.config.has(Feature::Osvw) => m.osvw[0] = v & 0xffff,
            R::OSVW_STATUS if self.config.has(Feature::Osvw) => m.osvw[1] = v,
            R::LS_CFG => m.ls_cfg = v,
            R::DE_CFG => m.de_cfg = v | 1 << 1,
            _ => return None,
        }
        Some(Ok(()))
    }
}

#[cfg(test)]
mod tests;
