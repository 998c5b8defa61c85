//! What CPUID shows: the model's leaves, without what this host's kernel cannot give. Nothing of the host is passed on unseen.

use super::super::NEEDS_KERNEL_APIC;
use super::sys::System;
use crate::error::{Context, KvmError};
use kvm_bindings as kb;
use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use rhea_x86::config::{Caches, Word};
use rhea_x86::{Feature, Vendor, X86Config};
use std::arch::x86_64::__cpuid;
use std::io;

/// The highest sub-leaf that is asked for of leaves that end by themselves.
const MOST_SUBLEAVES: u32 = 16;
const KVM_BASE: u32 = 0x4000_0000;
/// In EAX of the leaf behind it.
const HC_MAP_GPA_RANGE: u32 = 1 << 16;
const EXTENDED: u32 = 0x8000_0000;
/// The leaves of the processor's name.
const BRAND: [u32; 3] = [EXTENDED + 2, EXTENDED + 3, EXTENDED + 4];
const XSAVE: u32 = 0xd;
/// State components of XSAVE beyond the legacy ones have numbers from 2 to 62.
const COMPONENTS: std::ops::Range<u32> = 2..63;

/// What a machine gives by itself, whatever the kernel says of it.
const OWN: &[Feature] = &[Feature::Apic, Feature::Ht, Feature::Hypervisor, Feature::Arat];

fn leaf(supported: &[kvm_cpuid_entry2], function: u32, index: u32) -> Option<&kvm_cpuid_entry2> {
    let indexed = |e: &kvm_cpuid_entry2| e.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0;
    supported.iter().find(|e| e.function == function && (!indexed(e) || e.index == index))
}

/// Virtualization inside of guests: where the processor has it, and the kernel lets it be reset.
pub const NESTING: [Feature; 2] = [Feature::Vmx, Feature::Svm];
/// Revision and features of SVM (APM volume 3, E.4.9).
const SVM: u32 = EXTENDED + 0xa;
/// Of its features: nested paging, LBR virtualization, next instruction, rate of the counter, clean bits, flushes by ASID, decode assists,
/// pause filter and its threshold, virtual VMLOAD and GIF, NMIs, check of the VMCB's address.
const SVM_FEATURES: u32 = 0x1201_94fb;

/// Tiles (AMX): features that need their state, of which the data must be permitted, since it is large.
const TILES: [Feature; 4] = [Feature::AmxTile, Feature::AmxBf16, Feature::AmxInt8, Feature::Xfd];
const TILE_DATA: u32 = 18;
const TILE_STATE: u64 = 3 << 17;
/// Palettes of tiles, and the unit that multiplies them.
const PALETTES: u32 = 0x1d;
const MULTIPLIER: u32 = 0x1e;

/// Asks that guests may have tiles where the host has them.
fn permit_tiles(system: &dyn System) -> io::Result<()> {
    // Kernels before 5.16 know neither the question nor tiles, those before 5.17 none for guests.
    if !system.components().is_ok_and(|known| known & TILE_STATE == TILE_STATE) {
        return Ok(());
    }
    match system.permit_component(TILE_DATA) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        done => done,
    }
}

/// Takes the features of tiles away where there is no state for them: not permitted, or not known.
fn drop_stateless(all: &mut [kvm_cpuid_entry2]) {
    let state = leaf(all, XSAVE, 0).map_or(0, |e| e.eax);
    if u64::from(state) & TILE_STATE == TILE_STATE {
        return;
    }
    let bits = |of: Word| TILES.iter().map(|f| f.place()).filter(|p| p.0 == of).fold(0, |all, p| all | 1 << p.1);
    for e in all {
        match (e.function, e.index) {
            (7, 0) => e.edx &= !bits(Word::L7Edx),
            (XSAVE, 0) => e.eax &= !(TILE_STATE as u32),
            (XSAVE, 1) => e.eax &= !bits(Word::Ld1Eax),
            _ => {}
        }
    }
}

/// What the kernel supports, without what this program cannot do with it.
///
/// # Errors
/// [`KvmError::Call`].
pub fn supported(system: &dyn System) -> Result<Vec<kvm_cpuid_entry2>, KvmError> {
    // What is not permitted is not there: then it is told of where the model is the host's.
    let _ = permit_tiles(system);
    let mut all = system.supported_cpuid().during("KVM_GET_SUPPORTED_CPUID")?;
    if system.check(kb::KVM_CAP_NESTED_STATE) == 0 {
        for e in &mut all {
            match e.function {
                1 => e.ecx &= !(1 << Feature::Vmx.place().1),
                f if f == EXTENDED + 1 => e.ecx &= !(1 << Feature::Svm.place().1),
                _ => {}
            }
        }
    }
    drop_stateless(&mut all);
    Ok(all)
}

/// The bits of a feature word that the kernel supports.
fn word(supported: &[kvm_cpuid_entry2], word: Word) -> u32 {
    let of = |function, index, pick: fn(&kvm_cpuid_entry2) -> u32| leaf(supported, function, index).map_or(0, pick);
    match word {
        Word::L1Edx => of(1, 0, |e| e.edx),
        Word::L1Ecx => of(1, 0, |e| e.ecx),
        Word::L6Eax => of(6, 0, |e| e.eax),
        Word::L7Ebx => of(7, 0, |e| e.ebx),
        Word::L7Ecx => of(7, 0, |e| e.ecx),
        Word::L7Edx => of(7, 0, |e| e.edx),
        Word::Ld1Eax => of(XSAVE, 1, |e| e.eax),
        Word::X1Edx => of(EXTENDED + 1, 0, |e| e.edx),
        Word::X1Ecx => of(EXTENDED + 1, 0, |e| e.ecx),
        Word::X7Edx => of(EXTENDED + 7, 0, |e| e.edx),
        Word::X8Ebx => of(EXTENDED + 8, 0, |e| e.ebx),
        Word::KvmEax => of(KVM_BASE + 1, 0, |e| e.eax),
    }
}

/// Takes from a model what the kernel does not support: the features it lost. `kernel_apic`: local APICs are in the kernel;
/// `deadline`: with the TSC-deadline mode of their timers.
pub fn restrict(
    config: &mut X86Config,
    supported: &[kvm_cpuid_entry2],
    kernel_apic: bool,
    deadline: bool,
) -> Vec<Feature> {
    let has = |f: Feature| match f {
        f if NEEDS_KERNEL_APIC.contains(&f) && !kernel_apic => false,
        Feature::X2apic => true,
        Feature::TscDeadline => deadline,
        f if OWN.contains(&f) => true,
        f => {
            let (at, bit) = f.place();
            word(supported, at) >> bit & 1 != 0
        }
    };
    let lost: Vec<Feature> = config.features().iter().filter(|f| !has(*f)).collect();
    for &f in &lost {
        config.set(f, false);
    }
    let physical = leaf(supported, EXTENDED + 8, 0).map_or(0, |e| e.eax & 0xff);
    if physical != 0 {
        config.physical_bits = config.physical_bits.min(physical);
    }
    config.finish();
    lost
}

/// The same of the host behind `system`.
///
/// # Errors
/// [`KvmError::Call`].
pub fn host_model(system: &dyn System) -> Result<X86Config, KvmError> {
    if let Err(e) = permit_tiles(system) {
        eprintln!("rhea: warning: -accel kvm: guests may not have tiles (AMX): {e}");
    }
    let mut config = host_config(&supported(system)?);
    // The kernel's list may lack the name.
    if config.brand.is_empty() && __cpuid(EXTENDED).eax >= BRAND[2] {
        config.brand = brand(BRAND.map(__cpuid).map(|e| [e.eax, e.ebx, e.ecx, e.edx]));
    }
    Ok(config)
}

fn brand(words: [[u32; 4]; 3]) -> String {
    let bytes: Vec<u8> = words.into_iter().flatten().flat_map(u32::to_le_bytes).take_while(|b| *b != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `-cpu host`: the host's processor, with those of its features that this program knows of.
fn host_config(supported: &[kvm_cpuid_entry2]) -> X86Config {
    let zero = kvm_cpuid_entry2::default();
    let get = |function| leaf(supported, function, 0).copied().unwrap_or(zero);
    let (first, one) = (get(0), get(1));
    let vendor = if first.ebx == u32::from_le_bytes(*b"Genu") { Vendor::Intel } else { Vendor::Amd };
    let (family, extended_family) = (one.eax >> 8 & 15, one.eax >> 20 & 0xff);
    let (model, extended_model) = (one.eax >> 4 & 15, one.eax >> 16 & 15);
    let family_number = if family == 15 { family + extended_family } else { family };
    let model_number = if matches!(family, 6 | 15) { model | extended_model << 4 } else { model };
    let mut config = X86Config::bare("host", vendor, family_number, model_number, one.eax & 15);
    config.brand = brand(BRAND.map(get).map(|e| [e.eax, e.ebx, e.ecx, e.edx]));
    config.level = first.eax.clamp(1, 0x1f);
    config.extended_level = get(EXTENDED).eax.clamp(EXTENDED + 8, EXTENDED + 0x1f);
    config.physical_bits = 52;
    config.caches = Caches::default();
    for &f in Feature::ALL.iter().filter(|f| f.available()) {
        config.set(f, true);
    }
    for f in NESTING.into_iter().chain(TILES) {
        let (at, bit) = f.place();
        config.set(f, word(supported, at) >> bit & 1 != 0);
    }
    config.finish();
    config
}

/// The table for one processor. `private`: its guest can make memory its own, by a hypercall.
pub fn table(config: &X86Config, supported: &[kvm_cpuid_entry2], apic_id: u32, private: bool) -> Vec<kvm_cpuid_entry2> {
    let state = rhea_x86::CpuidState { apic_id, xcr0: 1, lma: true, apic_enabled: true, ..Default::default() };
    let mut all = Vec::new();
    let mut put = |function: u32, index: Option<u32>, [eax, ebx, ecx, edx]: [u32; 4]| {
        let flags = if index.is_some() { KVM_CPUID_FLAG_SIGNIFCANT_INDEX } else { 0 };
        let index = index.unwrap_or(0);
        all.push(kvm_cpuid_entry2 { function, index, flags, eax, ebx, ecx, edx, ..Default::default() });
    };
    let mut ranges = vec![0..=config.level];
    if config.kvm {
        ranges.push(KVM_BASE..=KVM_BASE + 1);
    }
    let least = if config.has(Feature::Svm) { SVM } else { 0 };
    ranges.push(EXTENDED..=config.extended_level.max(least));
    for function in ranges.into_iter().flatten() {
        match function {
            // Caches, until there are no more.
            4 | 0x8000_001d => {
                for index in 0..MOST_SUBLEAVES {
                    let words = config.cpuid(&state, function, index);
                    put(function, Some(index), words);
                    if words[0] & 31 == 0 {
                        break;
                    }
                }
            }
            0xb | 0x1f => {
                for index in 0..MOST_SUBLEAVES {
                    let words = config.cpuid(&state, function, index);
                    put(function, Some(index), words);
                    if words[2] >> 8 & 0xff == 0 {
                        break;
                    }
                }
            }
            7 => put(7, Some(0), config.cpuid(&state, 7, 0)),
            SVM if config.has(Feature::Svm) => {
                let words = leaf(supported, SVM, 0).map_or([0; 4], |e| [e.eax & 0xff, e.ebx, 0, e.edx & SVM_FEATURES]);
                put(SVM, None, words);
            }
            XSAVE => xsave(config, supported, &mut put),
            PALETTES | MULTIPLIER if config.has(Feature::AmxTile) => {
                // The highest palette, of which each has a subleaf; there is one unit.
                let words = |index| leaf(supported, function, index).map_or([0; 4], |e| [e.eax, e.ebx, e.ecx, e.edx]);
                let last = if function == PALETTES { words(0)[0].min(MOST_SUBLEAVES - 1) } else { 0 };
                (0..=last).for_each(|index| put(function, Some(index), words(index)));
            }
            f if f == KVM_BASE + 1 && private => {
                let [eax, ebx, ecx, edx] = config.cpuid(&state, f, 0);
                put(f, None, [eax | HC_MAP_GPA_RANGE, ebx, ecx, edx]);
            }
            // The counter runs as the host's does, which the guest finds out or asks its clock.
            0x15 | 0x16 => put(function, None, [0; 4]),
            _ => put(function, None, config.cpuid(&state, function, 0)),
        }
    }
    all
}

/// Where components are in the area is the host's business; which there are is the model's. Current sizes are the kernel's to fill in.
fn xsave(config: &X86Config, supported: &[kvm_cpuid_entry2], put: &mut impl FnMut(u32, Option<u32>, [u32; 4])) {
    if !config.has(Feature::Xsave) {
        return put(XSAVE, Some(0), [0; 4]);
    }
    let has = leaf(supported, XSAVE, 0).map_or(0, |e| u64::from(e.eax) | u64::from(e.edx) << 32);
    let mask = config.xcr0_allowed() & has;
    let components: Vec<(u32, &kvm_cpuid_entry2)> =
        COMPONENTS.filter(|n| mask >> n & 1 != 0).filter_map(|n| Some((n, leaf(supported, XSAVE, n)?))).collect();
    let size = components.iter().map(|(_, e)| e.ebx.saturating_add(e.eax)).fold(576, u32::max);
    put(XSAVE, Some(0), [mask as u32, size, size, (mask >> 32) as u32]);
    let word = config.word(Word::Ld1Eax) & word(supported, Word::Ld1Eax);
    put(XSAVE, Some(1), [word, size, 0, 0]);
    for (n, e) in components {
        put(XSAVE, Some(n), [e.eax, e.ebx, e.ecx, 0]);
    }
}

/// Where PKRU is in the XSAVE area of this host.
pub fn pkru_offset(supported: &[kvm_cpuid_entry2]) -> Option<usize> {
    let entry = supported.iter().find(|e| e.function == XSAVE && e.index == 9 && e.eax >= 4)?;
    Some(entry.ebx as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, index: u32, flags: u32, words: [u32; 4]) -> kvm_cpuid_entry2 {
        let [eax, ebx, ecx, edx] = words;
        kvm_cpuid_entry2 { function, index, flags, eax, ebx, ecx, edx, ..Default::default() }
    }
    /// A host that reports all bits, memory encryption and leaves from elsewhere among them.
    fn generous() -> Vec<kvm_cpuid_entry2> {
        let mut all: Vec<_> = (0..0x20).filter(|f| *f != XSAVE).map(|f| entry(f, 0, 0, [u32::MAX; 4])).collect();
        all.extend((EXTENDED..EXTENDED + 0x26).map(|f| entry(f, 0, 0, [u32::MAX; 4])));
        all.extend((KVM_BASE..KVM_BASE + 2).map(|f| entry(f, 0, 0, [u32::MAX; 4])));
        all.push(entry(XSAVE, 0, 1, [0x2e7, 2696, 2696, 0]));
        all.push(entry(XSAVE, 1, 1, [15, 2696, 0, 0]));
        all.push(entry(XSAVE, 2, 1, [256, 576, 0, 0]));
        all.push(entry(XSAVE, 5, 1, [64, 1088, 0, 0]));
        all.push(entry(XSAVE, 9, 1, [8, 2688, 0, 0]));
        all
    }
    fn model(name: &str) -> X86Config {
        rhea_x86::models::parse(name).unwrap().config
    }
    fn find(table: &[kvm_cpuid_entry2], function: u32, index: u32) -> [u32; 4] {
        leaf(table, function, index).map_or([0; 4], |e| [e.eax, e.ebx, e.ecx, e.edx])
    }

    #[test]
    fn the_model_decides_and_the_host_limits() {
        let mut config = model("max");
        let lost = restrict(&mut config, &generous(), true, true);
        assert!(lost.is_empty(), "{lost:?}");
        let all = table(&config, &generous(), 5, false);
        // Nothing that the model lacks, however generous the host.
        let state = rhea_x86::CpuidState { apic_id: 5, xcr0: 1, lma: true, apic_enabled: true, ..Default::default() };
        for function in [0, 1, 6, 7, KVM_BASE, KVM_BASE + 1, EXTENDED, EXTENDED + 1, EXTENDED + 7, EXTENDED + 8] {
            assert_eq!(find(&all, function, 0), config.cpuid(&state, function, 0), "leaf {function:#x}");
        }
        assert_eq!(find(&all, EXTENDED + 0x1f, 0), [0; 4], "memory encryption is hidden");
        assert_eq!(find(&all, 0x14, 0), [0; 4], "no processor trace");
        assert_eq!(find(&all, 0xa, 0), [0; 4], "no performance counters");
        // Components of the model where the host has them.
        assert_eq!(find(&all, XSAVE, 0), [0x207, 2696, 2696, 0]);
        assert_eq!(find(&all, XSAVE, 9), [8, 2688, 0, 0]);
        assert_eq!(find(&all, XSAVE, 5), [0; 4], "AVX-512 is none of the model's");
        assert_eq!(pkru_offset(&generous()), Some(2688));
        let private = table(&config, &generous(), 5, true);
        assert_eq!(find(&private, KVM_BASE + 1, 0)[0], find(&all, KVM_BASE + 1, 0)[0] | 1 << 16);
    }

    #[test]
    fn what_the_kernel_lacks_goes() {
        let mut config = model("max");
        let mut host = generous();
        for e in host.iter_mut().filter(|e| e.function == 1) {
            e.ecx &= !(1 << 28 | 1 << 13 | 1 << 21 | 1 << 24);
        }
        for e in host.iter_mut().filter(|e| e.function == EXTENDED + 8) {
            e.eax = 48 << 8 | 39;
        }
        let lost = restrict(&mut config, &host, true, false);
        assert_eq!(lost, [Feature::Cx16, Feature::TscDeadline, Feature::Avx], "{lost:?}");
        assert!(config.has(Feature::X2apic), "the kernel's local APIC has it whatever CPUID says");
        assert_eq!(config.physical_bits, 39);
        let ecx = find(&table(&config, &host, 0, false), 1, 0)[2];
        assert_eq!(ecx & (1 << 13 | 1 << 28 | 1 << 24), 0);
        // Without a host that says anything there is next to nothing.
        let mut config = model("max");
        restrict(&mut config, &[], false, true);
        let left: Vec<_> = config.features().iter().collect();
        assert!(left.iter().all(|f| OWN.contains(f)), "{left:?}");
    }

    /// A host with tiles, whose kernel gives their state to guests or not.
    fn with_tiles(permitted: bool) -> Vec<kvm_cpuid_entry2> {
        let mut host = generous();
        host.retain(|e| !matches!((e.function, e.index), (XSAVE, 0) | (PALETTES | MULTIPLIER, _)));
        let state = if permitted { 0x602e7 } else { 0x2e7 };
        host.push(entry(XSAVE, 0, 1, [state, 11008, 11008, 0]));
        host.push(entry(XSAVE, 17, 1, [64, 2752, 2, 0]));
        host.push(entry(XSAVE, 18, 1, [8192, 2816, 6, 0]));
        host.push(entry(PALETTES, 0, 1, [1, 0, 0, 0]));
        host.push(entry(PALETTES, 1, 1, [0x0400_2000, 0x0008_0040, 16, 0]));
        host.push(entry(MULTIPLIER, 0, 1, [0, 0x4010, 0, 0]));
        for e in host.iter_mut().filter(|e| e.function == XSAVE && e.index == 1) {
            e.eax = 31;
        }
        host
    }

    #[test]
    fn tiles_are_there_with_their_state() {
        let mut host = with_tiles(true);
        drop_stateless(&mut host);
        let mut config = host_config(&host);
        restrict(&mut config, &host, true, true);
        assert!(TILES.iter().all(|f| config.has(*f)));
        let all = table(&config, &host, 0, false);
        assert_eq!(find(&all, XSAVE, 0), [0x60207, 11008, 11008, 0]);
        assert_eq!(find(&all, XSAVE, 1)[0], 31);
        assert_eq!((find(&all, XSAVE, 17), find(&all, XSAVE, 18)), ([64, 2752, 2, 0], [8192, 2816, 6, 0]));
        assert_eq!(find(&all, PALETTES, 1), [0x0400_2000, 0x0008_0040, 16, 0]);
        assert_eq!((find(&all, PALETTES, 0), find(&all, MULTIPLIER, 0)), ([1, 0, 0, 0], [0, 0x4010, 0, 0]));
        // Not of a model that has none, nor where their state is not.
        let mut other = model("max");
        restrict(&mut other, &host, true, true);
        let all = table(&other, &host, 0, false);
        assert_eq!(
            (find(&all, XSAVE, 0)[0], find(&all, PALETTES, 1), find(&all, MULTIPLIER, 0)),
            (0x207, [0; 4], [0; 4])
        );
        let mut host = with_tiles(false);
        drop_stateless(&mut host);
        let mut config = host_config(&host);
        config.enable(&TILES);
        let lost = restrict(&mut config, &host, true, true);
        assert!(TILES.iter().all(|f| lost.contains(f) && !config.has(*f)), "{lost:?}");
        let all = table(&config, &host, 0, false);
        assert_eq!((find(&all, XSAVE, 0)[0], find(&all, XSAVE, 1)[0]), (0x207, 15));
        assert_eq!((find(&all, XSAVE, 18), find(&all, PALETTES, 1)), ([0; 4], [0; 4]));
    }

    #[test]
    fn local_apic_outside_the_kernel() {
        let mut config = model("max");
        restrict(&mut config, &generous(), false, true);
        for f in [Feature::X2apic, Feature::TscDeadline, Feature::KvmPvEoi, Feature::KvmPvUnhalt, Feature::KvmPvIpi] {
            assert!(!config.has(f), "{}", f.name());
        }
    }

    #[test]
    fn the_host_as_a_model() {
        let mut host = generous();
        for e in &mut host {
            match e.function {
                0 => (e.eax, e.ebx) = (0x1f, u32::from_le_bytes(*b"Genu")),
                1 => e.eax = 0x000c_06f2,
                EXTENDED => e.eax = EXTENDED + 8,
                _ => {}
            }
        }
        let mut config = host_config(&host);
        assert_eq!((config.vendor, config.family, config.model_number, config.stepping), (Vendor::Intel, 6, 0xcf, 2));
        restrict(&mut config, &host, true, true);
        assert!(config.has(Feature::Avx2) && config.has(Feature::Vmx));
        assert_eq!(find(&table(&config, &host, 0, false), SVM, 0), [0xff, u32::MAX, 0, SVM_FEATURES]);
        config.set(Feature::Svm, false);
        assert_eq!(find(&table(&config, &host, 0, false), SVM, 0), [0; 4]);
        assert_eq!(find(&table(&config, &host, 0, false), 1, 0)[0], 0x000c_06f2);
    }
}
