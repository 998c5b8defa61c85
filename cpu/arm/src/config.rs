//! CPU models, features and ID registers.

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
    Sb
    /// CFP, DVP, CPP.
    Specres
    /// DC CVAP.
    Dpb
    /// DC CVADP.
    Dpb2
    /// MRS RNDR, RNDRRS.
    Rng
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
    Pmull64
    Ccidx
    /// VMID of 16 bits.
    Vmid16
    /// ASID of 16 bits.
    Asid16
    Granule4K
    Granule16K
    Granule64K
    /// TLB level hints and stage 2 forced write-back.
    S2fwb
    Dgh
    Csv2
}

/// What one CPU of the machine is: model, features, ID registers. The same for all vCPUs of a machine.
#[derive(Clone, Debug)]
pub struct ArmConfig {
    pub model: &'static str,
    features: [u64; 2],
    /// log2 of the bytes DC ZVA clears (6 on all models).
    pub zva_log2: u32,
    pub midr: u64,
    pub ctr: u64,
}

impl ArmConfig {
    #[inline]
    pub const fn has(&self, f: Feature) -> bool {
        self.features[f as usize / 64] & (1 << (f as usize % 64)) != 0
    }
    pub fn set(&mut self, f: Feature, on: bool) {
        let (word, bit) = (f as usize / 64, 1u64 << (f as usize % 64));
        if on { self.features[word] |= bit } else { self.features[word] &= !bit }
    }
    /// Everything this crate implements; for tests.
    pub fn all_features() -> ArmConfig {
        let mut c = ArmConfig { model: "max", features: [0; 2], zva_log2: 6, midr: 0x000f_0510, ctr: 0x8444_c004 };
        for &f in Feature::ALL {
            c.set(f, true);
        }
        c
    }
}
