//! CPUID (vol. 2, CPUID; AMD64 APM vol. 3, appendix E). What a leaf shows is made here from the configuration, never taken
//! from the host.

use crate::config::{Cache, Feature, Vendor, Word, X86Config};
use crate::mmu::cr4;
use crate::state::X86Cpu;
use crate::xsave;

/// State of a processor that CPUID shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuidState {
    pub apic_id: u32,
    pub cr4: u64,
    pub xcr0: u64,
    /// EFER.LMA.
    pub lma: bool,
    /// `IA32_APIC_BASE.EN`.
    pub apic_enabled: bool,
    /// `IA32_MISC_ENABLE[22]`: leaves above 2 are hidden.
    pub limited: bool,
}

/// Bits of leaf 1 EDX that AMD shows again in 0x8000_0001.
const ALIASES: u32 = 0x0183_f3ff;
const KVM_BASE: u32 = 0x4000_0000;
const LINE: u32 = 64;
/// Frequency of the local APIC's timer, which is the core crystal clock of leaf 0x15.
const CRYSTAL_HZ: u64 = 1_000_000_000;

const fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl X86Config {
    /// The feature bits of a register.
    #[must_use]
    pub fn word(&self, word: Word) -> u32 {
        self.features().iter().map(Feature::place).filter(|p| p.0 == word).fold(0, |all, p| all | 1 << p.1)
    }
    /// EAX, EBX, ECX and EDX of a leaf.
    #[must_use]
    pub fn cpuid(&self, s: &CpuidState, leaf: u32, sub: u32) -> [u32; 4] {
        let intel = self.vendor == Vendor::Intel;
        let level = if s.limited { self.level.min(2) } else { self.level };
        if leaf < KVM_BASE {
            if leaf <= level {
                return self.basic(s, level, leaf, sub);
            }
        } else if leaf >> 31 != 0 {
            if leaf <= self.extended_level {
                return self.extended(s, leaf, sub);
            }
        } else if self.kvm && leaf <= KVM_BASE + 1 {
            return self.paravirtual(leaf);
        }
        // A leaf that is not there: Intel shows the highest basic one, AMD zeros.
        if intel { self.basic(s, level, level, sub) } else { [0; 4] }
    }

    fn basic(&self, s: &CpuidState, level: u32, leaf: u32, sub: u32) -> [u32; 4] {
        let intel = self.vendor == Vendor::Intel;
        let t = &self.topology;
        match leaf {
            0 => {
                let id = self.vendor.id();
                let word = |n: usize| u32::from_le_bytes([id[n], id[n + 1], id[n + 2], id[n + 3]]);
                [level, word(0), word(8), word(4)]
            }
            1 => {
                let threads = t.per_package();
                let mut ecx = self.word(Word::L1Ecx);
                let mut edx = self.word(Word::L1Edx);
                if s.cr4 & cr4::OSXSAVE != 0 {
                    ecx |= 1 << 27;
                }
                if !s.apic_enabled {
                    edx &= !(1 << 9);
                }
                if threads > 1 {
                    edx |= 1 << 28;
                }
                let count = if edx >> 28 & 1 != 0 { threads.next_power_of_two().min(255) } else { 0 };
                let flush = if self.has(Feature::Clflush) { LINE / 8 } else { 0 };
                [self.signature, s.apic_id << 24 | count << 16 | flush << 8, ecx, edx]
            }
            // Caches: see leaf 4.
            2 if intel => [0x00ff_0001, 0, 0, 0],
            4 if intel => {
                let Some((kind, depth, c)) = self.cache(sub) else { return [0; 4] };
                let sharing = if c.per_die { 1 << t.die_shift() } else { 1 << t.core_shift() };
                let cores = (1u32 << (t.package_shift() - t.core_shift())).min(64);
                let [ebx, ecx, edx] = cache_geometry(&c);
                [kind | depth << 5 | 1 << 8 | (sharing - 1) << 14 | (cores - 1) << 26, ebx, ecx, edx]
            }
            5 if self.has(Feature::Monitor) => [LINE, LINE, 3, 0],
            6 => [self.word(Word::L6Eax), 0, 0, 0],
            7 if sub == 0 => {
                let mut ecx = self.word(Word::L7Ecx);
                if s.cr4 & cr4::PKE != 0 {
                    ecx |= 1 << 4;
                }
                [0, self.word(Word::L7Ebx), ecx, self.word(Word::L7Edx)]
            }
            0xb => match sub {
                0 => [t.core_shift(), t.threads, 1 << 8, s.apic_id],
                1 => [t.package_shift(), t.per_package(), 1 | 2 << 8, s.apic_id],
                _ => [0, 0, sub & 0xff, s.apic_id],
            },
            0xd => self.xsave_leaf(s, sub),
            0x15 if intel => {
                let g = gcd(self.tsc_frequency, CRYSTAL_HZ).max(1);
                let (n, d) = (self.tsc_frequency / g, CRYSTAL_HZ / g);
                // Software multiplies the crystal's kHz with the numerator in 32 bits.
                if n.saturating_mul(CRYSTAL_HZ / 1000) > u32::MAX.into() {
                    return [0; 4];
                }
                [d as u32, n as u32, CRYSTAL_HZ as u32, 0]
            }
            0x16 if intel => {
                let mhz = (self.tsc_frequency / 1_000_000) as u32;
                [mhz & 0xffff, mhz & 0xffff, 100, 0]
            }
            0x1f => {
                let levels = [
                    Some((1, t.core_shift(), t.threads)),
                    Some((2, t.die_shift(), t.per_die())),
                    (t.dies > 1).then_some((5, t.package_shift(), t.per_package())),
                ];
                match levels.get(sub as usize).copied().flatten() {
                    Some((kind, shift, count)) => [shift, count, sub | kind << 8, s.apic_id],
                    None => [0, 0, sub & 0xff, s.apic_id],
                }
            }
            _ => [0; 4],
        }
    }
    /// Type and level of cache `n`.
    fn cache(&self, n: u32) -> Option<(u32, u32, Cache)> {
        let c = &self.caches;
        [(1, 1, c.l1d), (2, 1, c.l1i), (3, 2, c.l2), (3, 3, c.l3)].into_iter().filter(|c| c.2.size != 0).nth(n as usize)
    }

    fn xsave_leaf(&self, s: &CpuidState, sub: u32) -> [u32; 4] {
        if !self.has(Feature::Xsave) {
            return [0; 4];
        }
        let all = self.xcr0_allowed();
        match sub {
            0 => [all as u32, xsave::standard_size(s.xcr0), xsave::standard_size(all), (all >> 32) as u32],
            1 => {
                let features = self.word(Word::Ld1Eax);
                let size = if self.has(Feature::Xsavec) { xsave::compacted_size(s.xcr0) } else { 0 };
                [features, size, 0, 0]
            }
            2..63 if all >> sub & 1 != 0 => match xsave::component(sub) {
                Some((offset, size)) => [size, offset, 0, 0],
                None => [0; 4],
            },
            _ => [0; 4],
        }
    }

    fn paravirtual(&self, leaf: u32) -> [u32; 4] {
        let text = |b: [u8; 4]| u32::from_le_bytes(b);
        if leaf == KVM_BASE {
            return [KVM_BASE + 1, text(*b"KVMK"), text(*b"VMKV"), text(*b"M\0\0\0")];
        }
        let mut features = self.word(Word::KvmEax);
        if self.has(Feature::Kvmclock) {
            // The old numbers of the same registers too.
            features |= 1;
        }
        [features, 0, 0, 0]
    }

    fn extended(&self, s: &CpuidState, leaf: u32, sub: u32) -> [u32; 4] {
        let amd = self.vendor == Vendor::Amd;
        let t = &self.topology;
        match leaf {
            0x8000_0000 => {
                let [_, b, c, d] = if amd { self.basic(s, 0, 0, 0) } else { [0; 4] };
                [self.extended_level, b, c, d]
            }
            0x8000_0001 => {
                let mut edx = self.word(Word::X1Edx);
                let mut ecx = self.word(Word::X1Ecx);
                if amd {
                    edx |= self.basic(s, 1, 1, 0)[3] & ALIASES;
                    if t.per_package() > 1 {
                        ecx |= 2;
                    }
                } else {
                    ecx &= !2;
                    if !s.lma {
                        // Intel shows SYSCALL in 64-bit mode only.
                        edx &= !(1 << 11);
                    }
                }
                [if amd { self.signature } else { 0 }, 0, ecx, edx]
            }
            0x8000_0002..=0x8000_0004 => {
                let from = (leaf - 0x8000_0002) as usize * 16;
                let mut out = [0; 4];
                for (n, &b) in self.brand.as_bytes().iter().skip(from).take(16).enumerate() {
                    out[n / 4] |= u32::from(b) << (8 * (n % 4));
                }
                out
            }
            0x8000_0005 if amd => {
                let l1 = |c: &Cache| c.size << 24 | c.ways << 16 | 1 << 8 | LINE;
                [0xff20_ff20, 0xff40_ff40, l1(&self.caches.l1d), l1(&self.caches.l1i)]
            }
            0x8000_0006 => {
                let (l2, l3) = (&self.caches.l2, &self.caches.l3);
                let ecx = l2.size.min(0xffff) << 16 | associativity(l2.ways) << 12 | LINE;
                if amd {
                    let l3 = if l3.size == 0 {
                        0
                    } else {
                        l3.size / 512 << 18 | associativity(l3.ways) << 12 | 1 << 8 | LINE
                    };
                    [0x2400_2400, 0x4200_4200, ecx | 1 << 8, l3]
                } else {
                    [0, 0, ecx, 0]
                }
            }
            0x8000_0007 => [0, 0, 0, self.word(Word::X7Edx)],
            0x8000_0008 => {
                let linear = if self.has(Feature::Lm) { self.linear_bits } else { 32 };
                let (ebx, ecx) = if amd {
                    (self.word(Word::X8Ebx), t.package_shift() << 12 | (t.per_package().min(256) - 1))
                } else {
                    (self.word(Word::X8Ebx), 0)
                };
                [self.physical_bits | linear << 8, ebx, ecx, 0]
            }
            0x8000_001d if amd && self.has(Feature::Topoext) => {
                let Some((kind, depth, c)) = self.cache(sub) else { return [0; 4] };
                let sharing = if c.per_die { t.per_die() } else { t.threads };
                let [ebx, ecx, edx] = cache_geometry(&c);
                [kind | depth << 5 | 1 << 8 | (sharing.clamp(1, 4096) - 1) << 14, ebx, ecx, edx]
            }
            0x8000_001e if amd && self.has(Feature::Topoext) => {
                let field = |from: u32, to: u32| (s.apic_id >> from) & ((1 << (to - from)) - 1);
                let core = field(t.core_shift(), t.die_shift());
                let die = field(t.die_shift(), t.package_shift());
                let node = (s.apic_id >> t.package_shift()).wrapping_mul(t.dies).wrapping_add(die) & 0xff;
                [s.apic_id, core & 0xff | (t.threads.clamp(1, 256) - 1) << 8, node | (t.dies.clamp(1, 8) - 1) << 8, 0]
            }
            // Memory encryption is for guests that may use it: none here, whatever the host has.
            0x8000_001f => [0; 4],
            // LFENCE serialises, a null selector clears the base.
            0x8000_0021 if amd => [1 << 2 | 1 << 6, 0, 0, 0],
            0x8000_0026 if amd => {
                let levels = [
                    (1, t.core_shift(), t.threads),
                    (2, t.die_shift(), t.per_die()),
                    (3, t.die_shift(), t.per_die()),
                    (4, t.package_shift(), t.per_package()),
                ];
                match levels.get(sub as usize) {
                    Some((kind, shift, count)) => [*shift, *count, sub | kind << 8, s.apic_id],
                    None => [0, 0, sub & 0xff, s.apic_id],
                }
            }
            _ => [0; 4],
        }
    }
}

/// EBX, ECX and EDX of leaves 4 and 0x8000_001D.
fn cache_geometry(c: &Cache) -> [u32; 3] {
    let ways = c.ways.max(1);
    let sets = (c.size * 1024 / LINE / ways).max(1);
    [(LINE - 1) | (ways - 1) << 22, sets - 1, u32::from(c.inclusive) << 1]
}

/// The encoding of leaf 0x8000_0006.
fn associativity(ways: u32) -> u32 {
    match ways {
        0 => 0,
        1 => 1,
        2 => 2,
        3..=4 => 4,
        5..=8 => 6,
        9..=16 => 8,
        17..=32 => 10,
        33..=48 => 11,
        49..=64 => 12,
        65..=96 => 13,
        97..=128 => 14,
        _ => 15,
    }
}

impl X86Cpu {
    /// EAX, EBX, ECX and EDX of a leaf, as this processor shows it now.
    pub fn cpuid(&self, leaf: u32, sub: u32) -> [u32; 4] {
        let s = CpuidState {
            apic_id: self.apic_id,
            cr4: self.cr4,
            xcr0: self.xcr0,
            lma: self.lma(),
            apic_enabled: self.hooks.apic_base(self.index) >> 11 & 1 != 0,
            limited: self.msr.misc_enable >> 22 & 1 != 0,
        };
        self.config.cpuid(&s, leaf, sub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::parse;

    fn config(text: &str) -> X86Config {
        let mut c = parse(text).map(|p| p.config).unwrap_or_else(|e| panic!("{e}"));
        c.topology = crate::config::Topology { sockets: 1, dies: 2, cores: 3, threads: 2 };
        c
    }
    fn state() -> CpuidState {
        CpuidState { apic_id: 13, xcr0: 7, lma: true, apic_enabled: true, ..CpuidState::default() }
    }

    #[test]
    fn nothing_that_is_not_executed_shows() {
        for (name, _) in crate::models::MODELS {
            let c = config(name);
            let s = state();
            let l1 = c.cpuid(&s, 1, 0);
            assert_eq!(l1[2] & (1 << 5 | 1 << 6 | 1 << 27), 0, "{name}: VMX, SMX, OSXSAVE");
            if c.level >= 7 {
                let l7 = c.cpuid(&s, 7, 0);
                let absent = 1 << 2 | 1 << 4 | 1 << 11 | 1 << 14 | 0xd023_0000u32 & !(1 << 20 | 1 << 29);
                assert_eq!(l7[1] & absent & !(1 << 20), 0, "{name}: SGX, HLE, RTM, MPX, AVX-512");
                assert_eq!(l7[2] & (1 << 7 | 1 << 4), 0, "{name}: shadow stacks, OSPKE");
                assert_eq!(l7[3] & (7 << 22 | 1 << 20), 0, "{name}: AMX, IBT");
            }
            assert_eq!(
                c.cpuid(&s, 0xa, 0),
                if c.level >= 0xa || c.vendor == Vendor::Amd { [0; 4] } else { c.cpuid(&s, c.level, 0) }
            );
            assert_eq!(c.cpuid(&s, 0x8000_0001, 0)[2] & (1 << 2 | 1 << 11 | 1 << 16), 0, "{name}: SVM, XOP, FMA4");
        }
    }
    #[test]
    fn memory_encryption_is_hidden() {
        let c = config("max");
        assert!(c.extended_level >= 0x8000_001f);
        for sub in 0..4 {
            assert_eq!(c.cpuid(&state(), 0x8000_001f, sub), [0; 4]);
        }
    }
    #[test]
    fn leaves_that_are_not_there() {
        let c = config("Haswell");
        assert_eq!(c.cpuid(&state(), 0x16, 0), c.cpuid(&state(), c.level, 0), "Intel: the highest basic leaf");
        let c = config("qemu64");
        assert_eq!(c.cpuid(&state(), 0x30, 0), [0; 4], "AMD: zeros");
        assert_eq!(c.cpuid(&state(), 0x8000_0030, 0), [0; 4]);
    }
    #[test]
    fn kvm_leaves() {
        let c = config("max");
        let [max, b, x, d] = c.cpuid(&state(), 0x4000_0000, 0);
        let text: Vec<u8> = [b, x, d].iter().flat_map(|w| w.to_le_bytes()).collect();
        assert_eq!((max, text.as_slice()), (0x4000_0001, b"KVMKVMKVM\0\0\0".as_slice()));
        let features = c.cpuid(&state(), 0x4000_0001, 0)[0];
        assert_eq!(features, 1 << 24 | 0b1010_1110_1011, "no asynchronous page faults, no poll control");
        assert_eq!(config("max,kvm=off").cpuid(&state(), 0x4000_0000, 0), [0; 4]);
        assert_eq!(config("max,hypervisor=off").cpuid(&state(), 1, 0)[2] >> 31, 0);
    }
    #[test]
    fn topology() {
        // 2 threads, 3 cores, 2 dies: 1, 2 and 1 bits.
        let c = config("max");
        let s = state();
        assert_eq!(c.cpuid(&s, 0xb, 0), [1, 2, 1 << 8, 13]);
        assert_eq!(c.cpuid(&s, 0xb, 1), [4, 12, 1 | 2 << 8, 13]);
        assert_eq!(c.cpuid(&s, 0x1f, 1), [3, 6, 1 | 2 << 8, 13]);
        assert_eq!(c.cpuid(&s, 0x1f, 2), [4, 12, 2 | 5 << 8, 13]);
        assert_eq!(c.cpuid(&s, 0x1f, 3), [0, 0, 3, 13]);
        // APIC id 13 = die 1, core 2, thread 1.
        let e = c.cpuid(&s, 0x8000_001e, 0);
        assert_eq!((e[0], e[1], e[2]), (13, 2 | 1 << 8, 1 | 1 << 8));
        assert_eq!(c.topology.apic_id(11), 13);
    }
    #[test]
    fn time_leaves() {
        let c = config("Skylake-Client,tsc-frequency=2.6G".replace("2.6G", "2600M").as_str());
        let [d, n, hz, _] = c.cpuid(&state(), 0x15, 0);
        assert_eq!(u64::from(hz) * u64::from(n) / u64::from(d), 2_600_000_000);
        assert_eq!(c.cpuid(&state(), 0x16, 0)[0], 2600);
    }
    #[test]
    fn xsave_sizes() {
        let c = config("max");
        let s = state();
        assert_eq!(c.cpuid(&s, 0xd, 0), [0x207, 832, 840, 0]);
        assert_eq!(c.cpuid(&s, 0xd, 2), [256, 576, 0, 0]);
        assert_eq!(c.cpuid(&s, 0xd, 9), [8, 832, 0, 0]);
        assert_eq!(c.cpuid(&s, 0xd, 5), [0; 4]);
        assert_eq!(c.cpuid(&s, 0xd, 1)[0] & 15, 15);
    }
}
