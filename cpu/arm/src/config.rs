//! What a processor of the machine implements: features and the ID registers that tell of them.

use crate::sysreg::Index;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident)*) => {
        /// An architectural feature that changes which instructions or registers exist.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Feature { $($(#[$doc])* $name,)* }
        impl Feature {
            pub const ALL: &'static [Feature] = &[$(Feature::$name),*];
        }
    };
}

features! {
    /// AES instructions.
    Aes
    /// PMULL, PMULL2 of 64-bit elements.
    Pmull
    Sha1
    Sha256
    Sha512
    Sha3
    Sm3
    Sm4
    Crc32
    /// Large System Extensions atomics.
    Lse
    /// Alignment relaxation within 16 bytes.
    Lse2
    /// SQRDMLAH, SQRDMLSH.
    Rdm
    DotProd
    /// FMLAL, FMLSL.
    Fhm
    Fp16
    Fcma
    Jscvt
    /// LDAPR.
    Lrcpc
    /// LDAPUR, STLUR.
    Lrcpc2
    FlagM
    /// AXFLAG, XAFLAG.
    FlagM2
    /// FRINT32Z and the like.
    FrintTs
    Bf16
    I8mm
    /// Pointer authentication (with the algorithm of `PauthImpdef` or QARMA5).
    Pauth
    /// The fast implementation-defined algorithm instead of QARMA5.
    PauthImpdef
    /// Enhanced PAC (FEAT_PAuth2).
    Pauth2
    /// Faulting AUT.
    Fpac
    Bti
    Pan
    /// AT S1E1RP, S1E1WP.
    Pan2
    /// SCTLR.EPAN.
    Pan3
    Uao
    Dit
    Ssbs
    /// MSR and MRS of SSBS.
    Ssbs2
    Sb
    /// CFP, DVP, CPP.
    Specres
    /// DC CVAP.
    Dpb
    /// DC CVADP.
    Dpb2
    Vhe
    /// Limited ordering regions.
    Lor
    /// Small translation tables.
    Ttst
    TlbiOs
    TlbiRange
    /// Hardware management of the access flag.
    Haf
    /// Hardware management of dirty state.
    Dbm
    Hpds
    /// Execute-never control at stage 2 for EL1 and EL0.
    Xnx
    /// 52-bit physical addresses with 64K pages.
    Lpa
    /// 52-bit virtual addresses with 64K pages.
    Lva
    /// 52-bit addresses with 4K and 16K pages.
    Lpa2
    E0pd
    /// Trapping of ID registers gives EC 0x18.
    Idst
    /// Traps of EL1 cache and TLB operations (HCR_EL2.TTLB...).
    Evt
    /// WFET, WFIT.
    Wfxt
    Pmu
    /// EL2 exists.
    El2
    /// EL3 exists.
    El3
    /// Common not private translations.
    Cnp
    Ccidx
    /// VMID of 16 bits.
    Vmid16
    /// ASID of 16 bits.
    Asid16
    Granule4K
    Granule16K
    Granule64K
    /// Level hints in TLBI by address.
    Ttl
    /// Data gathering hint.
    Dgh
    /// Branch targets of one context do not steer another's speculation.
    Csv2
    /// Data loaded under a fault is not used in speculation.
    Csv3
}

/// Geometry of the caches that CLIDR and CCSIDR describe.
#[derive(Clone, Copy, Debug)]
pub struct Caches {
    /// (sets, ways) of L1 data, L1 instruction, L2 unified; lines are 64 bytes.
    pub l1d: (u32, u32),
    pub l1i: (u32, u32),
    pub l2: (u32, u32),
}

/// Which large mappings were ever put into a TLB of the machine. A TLB maintenance operation names one address, and must
/// remove the whole mapping around it, which TLBs of 4 KiB entries do not know.
#[derive(Debug)]
pub struct LargeMappings {
    /// Hashed bitmaps of regions of 2 MiB and of 1 GiB that a larger-than-granule mapping touched.
    medium: Box<[AtomicU64]>,
    large: Box<[AtomicU64]>,
    /// Something larger than 1 GiB was mapped.
    huge: AtomicU64,
}

const FILTER_WORDS: usize = 1024;

impl Default for LargeMappings {
    fn default() -> Self {
        let words = || (0..FILTER_WORDS).map(|_| AtomicU64::new(0)).collect();
        LargeMappings { medium: words(), large: words(), huge: AtomicU64::new(0) }
    }
}

impl LargeMappings {
    fn place(key: u64) -> (usize, u64) {
        let h = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        ((h >> 6) as usize % FILTER_WORDS, 1 << (h & 63))
    }
    /// Notes a mapping of `1 << size_log2` bytes (more than a granule) at `va`.
    pub fn note(&self, va: u64, size_log2: u32) {
        let (map, key) = match size_log2 {
            0..=21 => (&self.medium, va << 8 >> 29),
            22..=30 => (&self.large, va << 8 >> 38),
            _ => {
                self.huge.store(1, Ordering::Release);
                return;
            }
        };
        let (word, bit) = Self::place(key);
        if map[word].load(Ordering::Relaxed) & bit == 0 {
            map[word].fetch_or(bit, Ordering::Release);
        }
    }
    /// log2 of the size of the largest mapping that may contain `va`: 0 if only single granules, 21, 30, or 64.
    pub fn largest(&self, va: u64) -> u32 {
        if self.huge.load(Ordering::Acquire) != 0 {
            return 64;
        }
        let hit = |map: &[AtomicU64], key| {
            let (word, bit) = Self::place(key);
            map[word].load(Ordering::Acquire) & bit != 0
        };
        if hit(&self.large, va << 8 >> 38) {
            30
        } else if hit(&self.medium, va << 8 >> 29) {
            21
        } else {
            0
        }
    }
}

/// What one CPU of the machine is. The same for all vCPUs of a machine.
#[derive(Debug)]
pub struct ArmConfig {
    pub model: &'static str,
    features: [u64; 2],
    /// log2 of the bytes DC ZVA clears.
    pub zva_log2: u32,
    pub midr: u64,
    pub ctr: u64,
    pub caches: Caches,
    /// ID_AA64MMFR0_EL1.PARange.
    pub pa_range: u64,
    /// Number of breakpoints, watchpoints, context-aware breakpoints.
    pub breakpoints: u32,
    pub watchpoints: u32,
    pub context_breakpoints: u32,
    /// Implementation defined registers of this family exist (see `sysreg::impdef`).
    pub impdef: ImpDef,
    /// The GIC has a system-register interface.
    pub gic_sysregs: bool,
    /// Where a reset starts and RVBAR points.
    pub reset_vector: u64,
    /// Base address of the GIC for CBAR_EL1.
    pub peripheral_base: u64,
    /// Number of vCPUs, for L2CTLR.
    pub cpus: u32,
    pub large_mappings: LargeMappings,
    /// Made at the first use, when the configuration is complete.
    sysregs: OnceLock<Index>,
}

/// Families of implementation defined registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImpDef {
    None,
    /// Cortex-A53, A57, A72.
    A5x,
    /// Cortex-A76, Neoverse N1.
    A7x,
}

impl ArmConfig {
    pub(crate) fn bare(model: &'static str, midr: u64) -> ArmConfig {
        ArmConfig {
            model,
            features: [0; 2],
            zva_log2: 6,
            midr,
            ctr: 0x8444_c004,
            caches: Caches { l1d: (256, 4), l1i: (256, 4), l2: (1024, 16) },
            pa_range: 5,
            breakpoints: 6,
            watchpoints: 4,
            context_breakpoints: 2,
            impdef: ImpDef::None,
            gic_sysregs: false,
            reset_vector: 0,
            peripheral_base: 0,
            cpus: 1,
            large_mappings: LargeMappings::default(),
            sysregs: OnceLock::new(),
        }
    }
    #[inline]
    pub const fn has(&self, f: Feature) -> bool {
        self.features[f as usize / 64] & (1 << (f as usize % 64)) != 0
    }
    /// The system registers by encoding.
    #[inline]
    pub(crate) fn sysregs(&self) -> &Index {
        self.sysregs.get_or_init(|| Index::new(self))
    }
    pub fn set(&mut self, f: Feature, on: bool) {
        self.sysregs = OnceLock::new();
        let (word, bit) = (f as usize / 64, 1u64 << (f as usize % 64));
        if on {
            self.features[word] |= bit;
        } else {
            self.features[word] &= !bit;
        }
    }
    pub(crate) fn enable(&mut self, features: &[Feature]) {
        for &f in features {
            self.set(f, true);
        }
    }
    /// Every feature on, whether a model has it or not; for tests of translators.
    pub fn all_features() -> ArmConfig {
        let mut c = ArmConfig::bare("max", 0x000f_0510);
        c.pa_range = 6;
        c.enable(Feature::ALL);
        c
    }
    /// A processor that an accelerator runs on the host's own, of which these are MIDR_EL1, CTR_EL0 and ID_AA64MMFR0_EL1. What
    /// instructions there are is for the host to say: all features but those of higher exception levels are as if there.
    pub fn host(midr: u64, ctr: u64, mmfr0: u64, pmu: bool) -> ArmConfig {
        let mut c = ArmConfig { model: "host", midr, ctr, pa_range: mmfr0 & 15, ..ArmConfig::all_features() };
        for (feature, on) in [(Feature::El2, false), (Feature::El3, false), (Feature::Pmu, pmu)] {
            c.set(feature, on);
        }
        c
    }
    /// Bits of a physical address.
    pub const fn pa_bits(&self) -> u32 {
        match self.pa_range {
            0 => 32,
            1 => 36,
            2 => 40,
            3 => 42,
            4 => 44,
            5 => 48,
            _ => 52,
        }
    }
    /// Highest implemented exception level: where a reset starts.
    pub const fn highest_el(&self) -> u32 {
        if self.has(Feature::El3) {
            3
        } else if self.has(Feature::El2) {
            2
        } else {
            1
        }
    }
    const fn field(&self, f: Feature, value: u64, shift: u32) -> u64 {
        if self.has(f) { value << shift } else { 0 }
    }
    /// `two` if the second feature is there, else `one` if the first is.
    const fn field2(&self, first: Feature, one: u64, second: Feature, two: u64, shift: u32) -> u64 {
        if self.has(second) { two << shift } else { self.field(first, one, shift) }
    }
    /// Absent: `off`.
    const fn inverse(&self, f: Feature, on: u64, off: u64, shift: u32) -> u64 {
        if self.has(f) { on << shift } else { off << shift }
    }

    pub const fn id_aa64pfr0(&self) -> u64 {
        use Feature::*;
        0x11 | self.field(El2, 1, 8)
            | self.field(El3, 1, 12)
            | self.field(Fp16, 0x11, 16)
            | ((self.gic_sysregs as u64) << 24)
            | self.field(Dit, 1, 48)
            | self.field(Csv2, 1, 56)
            | self.field(Csv3, 1, 60)
    }
    pub const fn id_aa64pfr1(&self) -> u64 {
        use Feature::*;
        self.field(Bti, 1, 0) | self.field2(Ssbs, 1, Ssbs2, 2, 4)
    }
    pub const fn id_aa64dfr0(&self) -> u64 {
        // Armv8 debug, PMUv3, no trace.
        6 | self.field(Feature::Pmu, 1, 8)
            | ((self.breakpoints as u64 - 1) << 12)
            | ((self.watchpoints as u64 - 1) << 20)
            | ((self.context_breakpoints as u64 - 1) << 28)
    }
    pub const fn id_aa64isar0(&self) -> u64 {
        use Feature::*;
        self.field2(Aes, 1, Pmull, 2, 4)
            | self.field(Sha1, 1, 8)
            | self.field2(Sha256, 1, Sha512, 2, 12)
            | self.field(Crc32, 1, 16)
            | self.field(Lse, 2, 20)
            | self.field(Rdm, 1, 28)
            | self.field(Sha3, 1, 32)
            | self.field(Sm3, 1, 36)
            | self.field(Sm4, 1, 40)
            | self.field(DotProd, 1, 44)
            | self.field(Fhm, 1, 48)
            | self.field2(FlagM, 1, FlagM2, 2, 52)
            | self.field2(TlbiOs, 1, TlbiRange, 2, 56)
    }
    pub const fn id_aa64isar1(&self) -> u64 {
        use Feature::*;
        let pac = if self.has(Fpac) {
            4
        } else if self.has(Pauth2) {
            3
        } else {
            1
        };
        let (address, generic) = if self.has(PauthImpdef) { (8, 28) } else { (4, 24) };
        self.field2(Dpb, 1, Dpb2, 2, 0)
            | self.field(Pauth, pac, address)
            | self.field(Pauth, 1, generic)
            | self.field(Jscvt, 1, 12)
            | self.field(Fcma, 1, 16)
            | self.field2(Lrcpc, 1, Lrcpc2, 2, 20)
            | self.field(FrintTs, 1, 32)
            | self.field(Sb, 1, 36)
            | self.field(Specres, 1, 40)
            | self.field(Bf16, 1, 44)
            | self.field(Dgh, 1, 48)
            | self.field(I8mm, 1, 52)
    }
    pub const fn id_aa64isar2(&self) -> u64 {
        self.field(Feature::Wfxt, 2, 0)
    }
    pub const fn id_aa64mmfr0(&self) -> u64 {
        use Feature::*;
        let g16 = if !self.has(Granule16K) {
            0
        } else if self.has(Lpa2) {
            2
        } else {
            1
        };
        let g4 = if !self.has(Granule4K) {
            0xf
        } else if self.has(Lpa2) {
            1
        } else {
            0
        };
        self.pa_range
            | self.field(Asid16, 2, 4)
            | (1 << 8)
            | self.field(El3, 1, 12)
            | (g16 << 20)
            | self.inverse(Granule64K, 0, 0xf, 24)
            | (g4 << 28)
    }
    pub const fn id_aa64mmfr1(&self) -> u64 {
        use Feature::*;
        let pan = if self.has(Pan3) {
            3
        } else if self.has(Pan2) {
            2
        } else {
            self.has(Pan) as u64
        };
        self.field2(Haf, 1, Dbm, 2, 0)
            | self.field(Vmid16, 2, 4)
            | self.field(Vhe, 1, 8)
            | self.field(Hpds, 1, 12)
            | self.field(Lor, 1, 16)
            | (pan << 20)
            | self.field(Xnx, 1, 28)
    }
    pub const fn id_aa64mmfr2(&self) -> u64 {
        use Feature::*;
        self.field(Cnp, 1, 0)
            | self.field(Uao, 1, 4)
            | self.field(Lva, 1, 16)
            | self.field(Ccidx, 1, 20)
            | self.field(Ttst, 1, 28)
            | self.field(Lse2, 1, 32)
            | self.field(Idst, 1, 36)
            | self.field(Ttl, 1, 48)
            | self.field(Evt, 2, 56)
            | self.field(E0pd, 1, 60)
    }
    /// CLIDR_EL1: split L1, unified L2; unification and coherency points past L2 (inner shareable L1).
    pub const fn clidr(&self) -> u64 {
        // LoUU = LoUIS = 1 unless the instruction cache needs no maintenance, LoC = 2.
        let lou = if self.ctr & (1 << 28) != 0 { 0 } else { 1 };
        0x23 | (lou << 21) | (2 << 24) | (lou << 27)
    }
    /// CCSIDR_EL1 for CSSELR_EL1 = `select` (InD bit 0, level 3:1).
    pub const fn ccsidr(&self, select: u64) -> u64 {
        let ((sets, ways), policy) = match select & 0xf {
            0 => (self.caches.l1d, 7u64),
            1 => (self.caches.l1i, 2),
            2 => (self.caches.l2, 7),
            _ => return 0,
        };
        // Line of 64 bytes: log2 - 4 = 2.
        if self.has(Feature::Ccidx) {
            2 | ((ways as u64 - 1) << 3) | ((sets as u64 - 1) << 32)
        } else {
            2 | ((ways as u64 - 1) << 3) | ((sets as u64 - 1) << 13) | (policy << 28)
        }
    }
    /// DCZID_EL0 without the prohibition bit: log2 of the block in words.
    pub const fn dczid(&self) -> u64 {
        self.zva_log2 as u64 - 2
    }
    /// MPIDR_EL1 of vCPU `index`: 16 per cluster with a system-register GIC, 8 else.
    pub const fn mpidr(&self, index: u32) -> u64 {
        let cluster = if self.gic_sysregs { 16 } else { 8 };
        let (aff0, rest) = ((index % cluster) as u64, (index / cluster) as u64);
        (1 << 31) | aff0 | ((rest & 0xff) << 8) | (((rest >> 8) & 0xff) << 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_mapping_filter() {
        let l = LargeMappings::default();
        assert_eq!(l.largest(0x1234_5678), 0);
        l.note(0xffff_8000_0020_0000, 21);
        assert_eq!(l.largest(0xffff_8000_003f_f000), 21);
        assert_eq!(l.largest(0xffff_8000_0040_0000), 0);
        // The top byte does not matter.
        assert_eq!(l.largest(0x00ff_8000_003f_f000), 21);
        l.note(0x4000_0000, 30);
        assert_eq!(l.largest(0x7fff_f000), 30);
        l.note(0, 39);
        assert_eq!(l.largest(0x9999_9999_0000), 64);
    }
}
