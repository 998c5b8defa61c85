//! What one processor model is: features, addresses, caches, topology, frequency.

use iced_x86::{Code, CpuidFeature, DecoderOptions, Instruction};

/// Whose manual holds where Intel and AMD differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Vendor {
    Intel,
    #[default]
    Amd,
}

impl Vendor {
    /// The string of CPUID leaf 0.
    #[must_use]
    pub const fn id(self) -> &'static [u8; 12] {
        match self {
            Vendor::Intel => b"GenuineIntel",
            Vendor::Amd => b"AuthenticAMD",
        }
    }
}

/// A register of CPUID that holds feature bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    /// Leaf 1 EDX.
    L1Edx,
    L1Ecx,
    /// Leaf 6 EAX.
    L6Eax,
    /// Leaf 7, subleaf 0.
    L7Ebx,
    L7Ecx,
    L7Edx,
    /// Leaf 0xD, subleaf 1.
    Ld1Eax,
    /// 0x8000_0001.
    X1Edx,
    X1Ecx,
    /// 0x8000_0007.
    X7Edx,
    /// 0x8000_0008.
    X8Ebx,
    /// 0x4000_0001.
    KvmEax,
}

macro_rules! features {
    ($($id:ident $word:ident $bit:literal $name:literal $(| $alias:literal)* $have:ident;)*) => {
        /// A feature with a bit in CPUID.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u8)]
        pub enum Feature { $($id),* }

        impl Feature {
            /// All of them.
            pub const ALL: &'static [Feature] = &[$(Feature::$id),*];
            /// Where CPUID has it.
            #[must_use]
            pub const fn place(self) -> (Word, u32) {
                match self { $(Feature::$id => (Word::$word, $bit)),* }
            }
            /// Name in `-cpu`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Feature::$id => $name),* }
            }
            /// By name or alias; `_` and `-` and `.` are the same.
            #[must_use]
            pub fn by_name(name: &str) -> Option<Feature> {
                let name = name.replace(['_', '.'], "-");
                match name.as_str() {
                    $($name $(| $alias)* => Some(Feature::$id),)*
                    _ => None,
                }
            }
            /// Does Rhea execute it?
            #[must_use]
            pub const fn available(self) -> bool {
                match self { $(Feature::$id => features!(@ $have)),* }
            }
        }
    };
    (@ yes) => { true };
    (@ no) => { false };
}

features! {
    Fpu L1Edx 0 "fpu" yes;
    Vme L1Edx 1 "vme" yes;
    De L1Edx 2 "de" yes;
    Pse L1Edx 3 "pse" yes;
    Tsc L1Edx 4 "tsc" yes;
    Msr L1Edx 5 "msr" yes;
    Pae L1Edx 6 "pae" yes;
    Mce L1Edx 7 "mce" yes;
    Cx8 L1Edx 8 "cx8" yes;
    Apic L1Edx 9 "apic" yes;
    Sep L1Edx 11 "sep" yes;
    Mtrr L1Edx 12 "mtrr" yes;
    Pge L1Edx 13 "pge" yes;
    Mca L1Edx 14 "mca" yes;
    Cmov L1Edx 15 "cmov" yes;
    Pat L1Edx 16 "pat" yes;
    Pse36 L1Edx 17 "pse36" yes;
    Pn L1Edx 18 "pn" no;
    Clflush L1Edx 19 "clflush" yes;
    Ds L1Edx 21 "ds" no;
    Acpi L1Edx 22 "acpi" no;
    Mmx L1Edx 23 "mmx" yes;
    Fxsr L1Edx 24 "fxsr" yes;
    Sse L1Edx 25 "sse" yes;
    Sse2 L1Edx 26 "sse2" yes;
    Ss L1Edx 27 "ss" yes;
    Ht L1Edx 28 "ht" yes;
    Tm L1Edx 29 "tm" no;
    Pbe L1Edx 31 "pbe" no;

    Sse3 L1Ecx 0 "sse3" | "pni" yes;
    Pclmulqdq L1Ecx 1 "pclmulqdq" yes;
    Dtes64 L1Ecx 2 "dtes64" no;
    Monitor L1Ecx 3 "monitor" yes;
    DsCpl L1Ecx 4 "ds-cpl" no;
    Vmx L1Ecx 5 "vmx" no;
    Smx L1Ecx 6 "smx" no;
    Est L1Ecx 7 "est" no;
    Tm2 L1Ecx 8 "tm2" no;
    Ssse3 L1Ecx 9 "ssse3" yes;
    Fma L1Ecx 12 "fma" yes;
    Cx16 L1Ecx 13 "cx16" yes;
    Xtpr L1Ecx 14 "xtpr" no;
    Pdcm L1Ecx 15 "pdcm" no;
    Pcid L1Ecx 17 "pcid" yes;
    Dca L1Ecx 18 "dca" no;
    Sse41 L1Ecx 19 "sse4-1" yes;
    Sse42 L1Ecx 20 "sse4-2" yes;
    X2apic L1Ecx 21 "x2apic" yes;
    Movbe L1Ecx 22 "movbe" yes;
    Popcnt L1Ecx 23 "popcnt" yes;
    TscDeadline L1Ecx 24 "tsc-deadline" yes;
    Aes L1Ecx 25 "aes" yes;
    Xsave L1Ecx 26 "xsave" yes;
    Avx L1Ecx 28 "avx" yes;
    F16c L1Ecx 29 "f16c" yes;
    Rdrand L1Ecx 30 "rdrand" yes;
    Hypervisor L1Ecx 31 "hypervisor" yes;

    Arat L6Eax 2 "arat" yes;

    Fsgsbase L7Ebx 0 "fsgsbase" yes;
    TscAdjust L7Ebx 1 "tsc-adjust" yes;
    Sgx L7Ebx 2 "sgx" no;
    Bmi1 L7Ebx 3 "bmi1" yes;
    Hle L7Ebx 4 "hle" no;
    Avx2 L7Ebx 5 "avx2" yes;
    Smep L7Ebx 7 "smep" yes;
    Bmi2 L7Ebx 8 "bmi2" yes;
    Erms L7Ebx 9 "erms" yes;
    Invpcid L7Ebx 10 "invpcid" yes;
    Rtm L7Ebx 11 "rtm" no;
    Mpx L7Ebx 14 "mpx" no;
    Avx512f L7Ebx 16 "avx512f" no;
    Avx512dq L7Ebx 17 "avx512dq" no;
    Rdseed L7Ebx 18 "rdseed" yes;
    Adx L7Ebx 19 "adx" yes;
    Smap L7Ebx 20 "smap" yes;
    Avx512ifma L7Ebx 21 "avx512ifma" no;
    Clflushopt L7Ebx 23 "clflushopt" yes;
    Clwb L7Ebx 24 "clwb" yes;
    IntelPt L7Ebx 25 "intel-pt" no;
    Avx512cd L7Ebx 28 "avx512cd" no;
    ShaNi L7Ebx 29 "sha-ni" yes;
    Avx512bw L7Ebx 30 "avx512bw" no;
    Avx512vl L7Ebx 31 "avx512vl" no;

    Avx512vbmi L7Ecx 1 "avx512vbmi" no;
    Umip L7Ecx 2 "umip" yes;
    Pku L7Ecx 3 "pku" yes;
    Waitpkg L7Ecx 5 "waitpkg" no;
    CetSs L7Ecx 7 "shstk" no;
    Gfni L7Ecx 8 "gfni" yes;
    Vaes L7Ecx 9 "vaes" yes;
    Vpclmulqdq L7Ecx 10 "vpclmulqdq" yes;
    Avx512vnni L7Ecx 11 "avx512vnni" no;
    Avx512vpopcntdq L7Ecx 14 "avx512-vpopcntdq" no;
    La57 L7Ecx 16 "la57" yes;
    Rdpid L7Ecx 22 "rdpid" yes;
    BusLockDetect L7Ecx 24 "bus-lock-detect" no;
    Cldemote L7Ecx 25 "cldemote" yes;
    Movdiri L7Ecx 27 "movdiri" no;
    Movdir64b L7Ecx 28 "movdir64b" no;
    Pks L7Ecx 31 "pks" yes;

    Fsrm L7Edx 4 "fsrm" yes;
    MdClear L7Edx 10 "md-clear" yes;
    Serialize L7Edx 14 "serialize" yes;
    TsxLdtrk L7Edx 16 "tsx-ldtrk" no;
    ArchLbr L7Edx 19 "arch-lbr" no;
    CetIbt L7Edx 20 "ibt" no;
    AmxBf16 L7Edx 22 "amx-bf16" no;
    AmxTile L7Edx 24 "amx-tile" no;
    AmxInt8 L7Edx 25 "amx-int8" no;
    SpecCtrl L7Edx 26 "spec-ctrl" yes;
    Stibp L7Edx 27 "stibp" yes;
    FlushL1d L7Edx 28 "flush-l1d" no;
    ArchCapabilities L7Edx 29 "arch-capabilities" yes;
    CoreCapability L7Edx 30 "core-capability" no;
    Ssbd L7Edx 31 "ssbd" yes;

    Xsaveopt Ld1Eax 0 "xsaveopt" yes;
    Xsavec Ld1Eax 1 "xsavec" yes;
    Xgetbv1 Ld1Eax 2 "xgetbv1" yes;
    Xsaves Ld1Eax 3 "xsaves" yes;
    Xfd Ld1Eax 4 "xfd" no;

    Syscall X1Edx 11 "syscall" yes;
    Nx X1Edx 20 "nx" | "xd" yes;
    Mmxext X1Edx 22 "mmxext" yes;
    FxsrOpt X1Edx 25 "fxsr-opt" | "ffxsr" yes;
    Pdpe1gb X1Edx 26 "pdpe1gb" yes;
    Rdtscp X1Edx 27 "rdtscp" yes;
    Lm X1Edx 29 "lm" | "i64" yes;
    D3nowext X1Edx 30 "3dnowext" no;
    D3now X1Edx 31 "3dnow" no;

    LahfLm X1Ecx 0 "lahf-lm" yes;
    CmpLegacy X1Ecx 1 "cmp-legacy" yes;
    Svm X1Ecx 2 "svm" no;
    Extapic X1Ecx 3 "extapic" no;
    Cr8legacy X1Ecx 4 "cr8legacy" yes;
    Abm X1Ecx 5 "abm" | "lzcnt" yes;
    Sse4a X1Ecx 6 "sse4a" yes;
    Misalignsse X1Ecx 7 "misalignsse" no;
    D3nowprefetch X1Ecx 8 "3dnowprefetch" yes;
    Osvw X1Ecx 9 "osvw" yes;
    Ibs X1Ecx 10 "ibs" no;
    Xop X1Ecx 11 "xop" no;
    Skinit X1Ecx 12 "skinit" no;
    Wdt X1Ecx 13 "wdt" no;
    Lwp X1Ecx 15 "lwp" no;
    Fma4 X1Ecx 16 "fma4" no;
    Tbm X1Ecx 21 "tbm" no;
    Topoext X1Ecx 22 "topoext" yes;
    PerfctrCore X1Ecx 23 "perfctr-core" no;
    Monitorx X1Ecx 29 "monitorx" yes;

    Invtsc X7Edx 8 "invtsc" yes;

    Clzero X8Ebx 0 "clzero" yes;
    Xsaveerptr X8Ebx 2 "xsaveerptr" yes;
    Rdpru X8Ebx 4 "rdpru" no;
    Wbnoinvd X8Ebx 9 "wbnoinvd" yes;
    Ibpb X8Ebx 12 "ibpb" yes;
    AmdStibp X8Ebx 15 "amd-stibp" yes;
    AmdSsbd X8Ebx 24 "amd-ssbd" yes;
    VirtSsbd X8Ebx 25 "virt-ssbd" no;

    Kvmclock KvmEax 3 "kvmclock" yes;
    KvmNopiodelay KvmEax 1 "kvm-nopiodelay" yes;
    KvmAsyncpf KvmEax 4 "kvm-asyncpf" no;
    KvmStealTime KvmEax 5 "kvm-steal-time" yes;
    KvmPvEoi KvmEax 6 "kvm-pv-eoi" yes;
    KvmPvUnhalt KvmEax 7 "kvm-pv-unhalt" yes;
    KvmPvTlbFlush KvmEax 9 "kvm-pv-tlb-flush" yes;
    KvmPvIpi KvmEax 11 "kvm-pv-ipi" yes;
    KvmPollControl KvmEax 12 "kvm-poll-control" no;
    KvmPvSchedYield KvmEax 13 "kvm-pv-sched-yield" no;
    KvmAsyncpfInt KvmEax 14 "kvm-asyncpf-int" no;
    KvmMsiExtDestId KvmEax 15 "kvm-msi-ext-dest-id" no;
    KvmclockStable KvmEax 24 "kvmclock-stable-bit" yes;
}

/// A set of features.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Features([u64; 4]);

impl Features {
    #[inline]
    #[must_use]
    pub const fn has(&self, f: Feature) -> bool {
        self.0[f as usize >> 6] >> (f as usize & 63) & 1 != 0
    }
    pub const fn set(&mut self, f: Feature, on: bool) {
        let bit = 1 << (f as usize & 63);
        if on {
            self.0[f as usize >> 6] |= bit;
        } else {
            self.0[f as usize >> 6] &= !bit;
        }
    }
    pub fn iter(&self) -> impl Iterator<Item = Feature> + '_ {
        Feature::ALL.iter().copied().filter(|f| self.has(*f))
    }
}

/// One cache: what CPUID leaves 4 and 0x8000_001D say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cache {
    /// KiB.
    pub size: u32,
    pub ways: u32,
    /// Logical processors that share it: 0 one core, 1 the die.
    pub per_die: bool,
    pub inclusive: bool,
}

/// Caches with lines of 64 bytes; a size of 0 is absent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caches {
    pub l1d: Cache,
    pub l1i: Cache,
    pub l2: Cache,
    pub l3: Cache,
}

impl Default for Caches {
    fn default() -> Caches {
        Caches {
            l1d: Cache { size: 32, ways: 8, ..Cache::default() },
            l1i: Cache { size: 32, ways: 8, ..Cache::default() },
            l2: Cache { size: 4096, ways: 16, ..Cache::default() },
            l3: Cache { size: 16384, ways: 16, per_die: true, inclusive: true },
        }
    }
}

/// How the logical processors are arranged; set by the board from `-smp`. All at least 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Topology {
    pub sockets: u32,
    /// Dies of a socket.
    pub dies: u32,
    /// Cores of a die.
    pub cores: u32,
    /// Threads of a core.
    pub threads: u32,
}

impl Default for Topology {
    fn default() -> Topology {
        Topology { sockets: 1, dies: 1, cores: 1, threads: 1 }
    }
}

/// Bits that number `n` things.
const fn width(n: u32) -> u32 {
    let n = if n == 0 { 1 } else { n };
    32 - (n - 1).leading_zeros()
}

impl Topology {
    /// Shift of the core number in an APIC id.
    #[must_use]
    pub const fn core_shift(&self) -> u32 {
        width(self.threads)
    }
    #[must_use]
    pub const fn die_shift(&self) -> u32 {
        self.core_shift() + width(self.cores)
    }
    #[must_use]
    pub const fn package_shift(&self) -> u32 {
        self.die_shift() + width(self.dies)
    }
    /// Logical processors of a die.
    #[must_use]
    pub const fn per_die(&self) -> u32 {
        self.cores.saturating_mul(self.threads)
    }
    /// Logical processors of a package.
    #[must_use]
    pub fn per_package(&self) -> u32 {
        self.per_die().saturating_mul(self.dies)
    }
    /// The APIC id of logical processor `index` of the machine.
    #[must_use]
    pub fn apic_id(&self, index: u32) -> u32 {
        let max = |a: u32| if a == 0 { 1 } else { a };
        let (threads, cores, dies) = (max(self.threads), max(self.cores), max(self.dies));
        let thread = index % threads;
        let core = index / threads % cores;
        let die = index / threads / cores % dies;
        let socket = index / threads / cores / dies;
        thread | core << self.core_shift() | die << self.die_shift() | socket.wrapping_shl(self.package_shift())
    }
}

/// Words of the table of allowed instructions.
const CODE_WORDS: usize = 128;

/// A processor model with its options.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct X86Config {
    /// Name as given, for messages.
    pub model: String,
    pub vendor: Vendor,
    pub family: u32,
    pub model_number: u32,
    pub stepping: u32,
    /// CPUID.1:EAX, also in EDX after reset.
    pub signature: u32,
    /// The brand string of leaves 0x8000_0002–4; up to 48 bytes.
    pub brand: String,
    /// Highest basic and extended leaf.
    pub level: u32,
    pub extended_level: u32,
    features: Features,
    /// MAXPHYADDR, 32–52.
    pub physical_bits: u32,
    /// Linear address bits: 32, 48 or 57.
    pub linear_bits: u32,
    pub caches: Caches,
    pub topology: Topology,
    /// Hz.
    pub tsc_frequency: u64,
    /// The leaves of KVM (0x4000_0000) are there.
    pub kvm: bool,
    /// Bit per `iced_x86::Code`; made by [`X86Config::finish`].
    allowed: Box<[u64; CODE_WORDS]>,
    decoder_options: u32,
}

/// What an instruction's `CpuidFeature` asks of the model.
enum Need {
    Always,
    Never,
    Is(Feature),
}

fn need(f: CpuidFeature) -> Need {
    use CpuidFeature as C;
    use Feature as F;
    use Need::{Always, Is, Never};
    match f {
        C::INTEL8086
        | C::INTEL186
        | C::INTEL286
        | C::INTEL386
        | C::INTEL486
        | C::CPUID
        | C::MULTIBYTENOP
        | C::PAUSE
        | C::RDPMC
        | C::SMM
        // Hints in the space of reserved NOPs do nothing where they are absent.
        | C::PREFETCHW
        | C::CLDEMOTE
        | C::CET_IBT
        | C::PREFETCHITI => Always,
        C::X64 => Is(F::Lm),
        C::FPU | C::FPU287 | C::FPU387 => Is(F::Fpu),
        C::ADX => Is(F::Adx),
        C::AES => Is(F::Aes),
        C::AVX => Is(F::Avx),
        C::AVX2 => Is(F::Avx2),
        C::BMI1 => Is(F::Bmi1),
        C::BMI2 => Is(F::Bmi2),
        C::CLFLUSHOPT => Is(F::Clflushopt),
        C::CLFSH => Is(F::Clflush),
        C::CLWB => Is(F::Clwb),
        C::CLZERO => Is(F::Clzero),
        C::CMOV => Is(F::Cmov),
        C::CMPXCHG16B => Is(F::Cx16),
        C::CX8 => Is(F::Cx8),
        C::F16C => Is(F::F16c),
        C::FMA => Is(F::Fma),
        C::FSGSBASE => Is(F::Fsgsbase),
        C::FXSR => Is(F::Fxsr),
        C::GFNI => Is(F::Gfni),
        C::INVPCID => Is(F::Invpcid),
        C::LZCNT => Is(F::Abm),
        C::MMX => Is(F::Mmx),
        C::MONITOR => Is(F::Monitor),
        C::MONITORX => Is(F::Monitorx),
        C::MOVBE => Is(F::Movbe),
        C::MOVDIRI => Is(F::Movdiri),
        C::MOVDIR64B => Is(F::Movdir64b),
        C::MSR => Is(F::Msr),
        C::PCLMULQDQ => Is(F::Pclmulqdq),
        C::PKU => Is(F::Pku),
        C::POPCNT => Is(F::Popcnt),
        C::RDPID => Is(F::Rdpid),
        C::RDRAND => Is(F::Rdrand),
        C::RDSEED => Is(F::Rdseed),
        C::RDTSCP => Is(F::Rdtscp),
        C::SEP => Is(F::Sep),
        C::SERIALIZE => Is(F::Serialize),
        C::SHA => Is(F::ShaNi),
        C::SMAP => Is(F::Smap),
        C::SSE => Is(F::Sse),
        C::SSE2 => Is(F::Sse2),
        C::SSE3 => Is(F::Sse3),
        C::SSE4_1 => Is(F::Sse41),
        C::SSE4_2 => Is(F::Sse42),
        C::SSE4A => Is(F::Sse4a),
        C::SSSE3 => Is(F::Ssse3),
        C::SYSCALL => Is(F::Syscall),
        C::TSC => Is(F::Tsc),
        C::VAES => Is(F::Vaes),
        C::VPCLMULQDQ => Is(F::Vpclmulqdq),
        C::WBNOINVD => Is(F::Wbnoinvd),
        C::XSAVE => Is(F::Xsave),
        C::XSAVEC => Is(F::Xsavec),
        C::XSAVEOPT => Is(F::Xsaveopt),
        C::XSAVES => Is(F::Xsaves),
        _ => Never,
    }
}

impl X86Config {
    /// A model without features.
    #[must_use]
    pub fn bare(model: &str, vendor: Vendor, family: u32, model_number: u32, stepping: u32) -> X86Config {
        let mut c = X86Config {
            model: model.into(),
            vendor,
            family,
            model_number,
            stepping,
            signature: 0,
            brand: String::new(),
            level: 0xd,
            extended_level: 0x8000_0008,
            features: Features::default(),
            physical_bits: 40,
            linear_bits: 48,
            caches: Caches::default(),
            topology: Topology::default(),
            tsc_frequency: 2_000_000_000,
            kvm: true,
            allowed: Box::new([0; CODE_WORDS]),
            decoder_options: 0,
        };
        c.finish();
        c
    }
    #[inline]
    #[must_use]
    pub const fn has(&self, f: Feature) -> bool {
        self.features.has(f)
    }
    #[must_use]
    pub const fn features(&self) -> &Features {
        &self.features
    }
    /// Sets a feature; [`X86Config::finish`] is due after it.
    pub const fn set(&mut self, f: Feature, on: bool) {
        self.features.set(f, on);
    }
    pub fn enable(&mut self, of: &[Feature]) {
        for &f in of {
            self.set(f, true);
        }
    }
    /// Recomputes what depends on features and numbers.
    pub fn finish(&mut self) {
        let (base, extended) = if self.family > 15 { (15, self.family - 15) } else { (self.family, 0) };
        self.signature = self.stepping & 15
            | (self.model_number & 15) << 4
            | base << 8
            | (self.model_number >> 4 & 15) << 16
            | (extended & 0xff) << 20;
        self.linear_bits = match (self.has(Feature::Lm), self.has(Feature::La57)) {
            (false, _) => 32,
            (true, false) => 48,
            (true, true) => 57,
        };
        let mut o = DecoderOptions::NONE;
        let lacks = |f| !self.has(f);
        if self.vendor == Vendor::Amd {
            o |= DecoderOptions::AMD;
        }
        if lacks(Feature::Bmi1) {
            o |= DecoderOptions::NO_MPFX_0FBC;
        }
        if lacks(Feature::Abm) {
            o |= DecoderOptions::NO_MPFX_0FBD;
        }
        if lacks(Feature::LahfLm) {
            o |= DecoderOptions::NO_LAHF_SAHF_64;
        }
        if lacks(Feature::Wbnoinvd) {
            o |= DecoderOptions::NO_WBNOINVD;
        }
        self.decoder_options = o;
        let mut allowed = Box::new([0; CODE_WORDS]);
        for code in Code::values() {
            // Hypercalls are answered whichever vendor's instruction is used.
            let call = self.kvm && matches!(code, Code::Vmcall | Code::Vmmcall);
            let ok = call
                || code.cpuid_features().iter().all(|f| match need(*f) {
                    Need::Always => true,
                    Need::Never => is_hint(code),
                    Need::Is(f) => self.has(f),
                });
            if ok && let Some(word) = allowed.get_mut(code as usize >> 6) {
                *word |= 1u64 << (code as usize & 63);
            }
        }
        self.allowed = allowed;
    }
    /// Does the model have the instruction (by its CPUID features)?
    #[inline]
    #[must_use]
    pub fn allows(&self, i: &Instruction) -> bool {
        let code = i.code() as usize;
        self.allowed[code >> 6 & (CODE_WORDS - 1)] >> (code & 63) & 1 != 0
    }
    /// Options for iced's decoder.
    #[inline]
    #[must_use]
    pub const fn decoder_options(&self) -> u32 {
        self.decoder_options
    }
    /// A null selector keeps the base that the segment register had: AMD's processors before Zen 2. Those that say by
    /// CPUID (leaf 0x8000_0021) that they clear it are others.
    #[must_use]
    pub fn null_keeps_base(&self) -> bool {
        let old = self.family < 0x17 || self.family == 0x17 && self.model_number < 0x30;
        self.vendor == Vendor::Amd && old && self.extended_level < 0x8000_0021
    }
    /// The bits of XCR0 that can be set.
    #[must_use]
    pub fn xcr0_allowed(&self) -> u64 {
        let mut x = 3;
        if self.has(Feature::Avx) {
            x |= 4;
        }
        if self.has(Feature::Pku) {
            x |= 1 << 9;
        }
        // Tiles' configuration and data, either with the other.
        if self.has(Feature::AmxTile) {
            x |= 3 << 17;
        }
        x
    }
    /// The bits of `IA32_SPEC_CTRL` that the model has.
    #[must_use]
    pub fn spec_ctrl_allowed(&self) -> u64 {
        let has = |f| u64::from(self.has(f));
        (has(Feature::SpecCtrl) | has(Feature::Ibpb) & has(Feature::AmdStibp))
            | (has(Feature::Stibp) | has(Feature::AmdStibp) | has(Feature::SpecCtrl)) << 1
            | (has(Feature::Ssbd) | has(Feature::AmdSsbd)) << 2
    }
}

/// Instructions of absent features that are NOPs by their place in the opcode map: RDSSP is in the space of hints.
fn is_hint(code: Code) -> bool {
    matches!(code, Code::Rdsspd_r32 | Code::Rdsspq_r64)
}
