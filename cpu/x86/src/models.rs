//! CPU models and the `-cpu MODEL,+feature,prop=value` option.

use crate::config::{Cache, Caches, Feature, Vendor, X86Config};

use Feature as F;

/// The models: name and description.
pub const MODELS: &[(&str, &str)] = &[
    ("qemu64", "64-bit processor of little more than the baseline (AMD)"),
    ("max", "every feature that is implemented (AMD)"),
    ("Nehalem", "Intel Core i7 9xx (Nehalem Class Core i7)"),
    ("Haswell", "Intel Core Processor (Haswell)"),
    ("Skylake-Client", "Intel Core Processor (Skylake)"),
    ("Skylake-Server", "Intel Xeon Processor (Skylake), without AVX-512"),
    ("Opteron_G1", "AMD Opteron 240 (Gen 1 Class Opteron)"),
    ("EPYC", "AMD EPYC Processor"),
    ("EPYC-Rome", "AMD EPYC-Rome Processor"),
    ("base", "no features, to begin with"),
];

/// Properties beside the features: name and description.
pub const PROPERTIES: &[(&str, &str)] = &[
    ("vendor", "GenuineIntel or AuthenticAMD"),
    ("family", "family number"),
    ("model", "model number"),
    ("stepping", "stepping"),
    ("model-id", "the brand string, up to 48 bytes"),
    ("level", "highest basic CPUID leaf"),
    ("xlevel", "highest extended CPUID leaf"),
    ("phys-bits", "bits of physical addresses, 36-52"),
    ("host-phys-bits", "accepted: phys-bits decides"),
    ("tsc-frequency", "frequency of the time-stamp counter in Hz"),
    ("kvm", "the paravirtual interface of KVM"),
    ("migratable", "accepted: all features are"),
    ("check", "warn of features that are not available"),
    ("enforce", "refuse a model with features that are not available"),
    ("l3-cache", "show an L3 cache"),
];

/// What [`parse`] gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parsed {
    pub config: X86Config,
    /// `enforce`: a feature that is missing is an error.
    pub enforce: bool,
    /// Features of the model that Rhea lacks and dropped: one line for the user, if any.
    pub warning: Option<String>,
    /// Features that were asked for by name and are not available.
    pub absent: Vec<Feature>,
    /// What the model has by itself and is not available, for those that are not `max`.
    pub missing: Vec<Feature>,
    /// Parts of nested virtualization that were named, on or off.
    pub nested: Vec<&'static str>,
    /// `tsc-frequency`, if it was given: in Hz.
    pub tsc_frequency: Option<u64>,
}

const BASE: &[Feature] = &[
    F::Fpu,
    F::De,
    F::Pse,
    F::Tsc,
    F::Msr,
    F::Pae,
    F::Mce,
    F::Cx8,
    F::Apic,
    F::Sep,
    F::Mtrr,
    F::Pge,
    F::Mca,
    F::Cmov,
    F::Pat,
    F::Pse36,
    F::Clflush,
    F::Mmx,
    F::Fxsr,
    F::Sse,
    F::Sse2,
    F::Sse3,
    F::Cx16,
    F::Syscall,
    F::Nx,
    F::Lm,
    F::Arat,
    F::X2apic,
    F::Hypervisor,
    F::TscDeadline,
    F::Invtsc,
];
const KVM: &[Feature] = &[
    F::Kvmclock,
    F::KvmNopiodelay,
    F::KvmStealTime,
    F::KvmPvEoi,
    F::KvmPvUnhalt,
    F::KvmPvTlbFlush,
    F::KvmPvIpi,
    F::KvmclockStable,
];
const NEHALEM: &[Feature] = &[F::Vme, F::Ssse3, F::Sse41, F::Sse42, F::Popcnt, F::LahfLm];
const HASWELL: &[Feature] = &[
    F::Pclmulqdq,
    F::Fma,
    F::Pcid,
    F::Movbe,
    F::Aes,
    F::Xsave,
    F::Xsaveopt,
    F::Avx,
    F::F16c,
    F::Rdrand,
    F::Fsgsbase,
    F::Bmi1,
    F::Hle,
    F::Avx2,
    F::Smep,
    F::Bmi2,
    F::Erms,
    F::Invpcid,
    F::Rtm,
    F::Rdtscp,
    F::Abm,
    F::TscAdjust,
];
const SKYLAKE: &[Feature] = &[F::Rdseed, F::Adx, F::Smap, F::D3nowprefetch, F::Xsavec, F::Xgetbv1, F::Xsaves];
const SKYLAKE_SERVER: &[Feature] =
    &[F::Pdpe1gb, F::Clwb, F::Clflushopt, F::Pku, F::Avx512f, F::Avx512dq, F::Avx512cd, F::Avx512bw, F::Avx512vl];
const EPYC: &[Feature] = &[
    F::Vme,
    F::Ssse3,
    F::Sse41,
    F::Sse42,
    F::Popcnt,
    F::LahfLm,
    F::Pclmulqdq,
    F::Fma,
    F::Movbe,
    F::Aes,
    F::Xsave,
    F::Xsaveopt,
    F::Avx,
    F::F16c,
    F::Rdrand,
    F::Fsgsbase,
    F::Bmi1,
    F::Avx2,
    F::Smep,
    F::Bmi2,
    F::Rdseed,
    F::Adx,
    F::Smap,
    F::Clflushopt,
    F::ShaNi,
    F::Xsavec,
    F::Xgetbv1,
    F::Xsaves,
    F::Mmxext,
    F::FxsrOpt,
    F::Pdpe1gb,
    F::Rdtscp,
    F::Abm,
    F::Sse4a,
    F::Misalignsse,
    F::D3nowprefetch,
    F::Osvw,
    F::Cr8legacy,
    F::TscAdjust,
];
const ROME: &[Feature] = &[F::Clwb, F::Umip, F::Rdpid, F::Clzero, F::Xsaveerptr, F::Wbnoinvd, F::Ibpb, F::AmdStibp];

/// Names that stand for a model's version.
const VERSIONS: &[(&str, &str, &[Feature], &[Feature])] = &[
    // Alias, model, added, removed.
    ("Nehalem-v1", "Nehalem", &[], &[]),
    ("Nehalem-v2", "Nehalem", &[F::SpecCtrl], &[]),
    ("Nehalem-IBRS", "Nehalem", &[F::SpecCtrl], &[]),
    ("Haswell-v1", "Haswell", &[], &[]),
    ("Haswell-v2", "Haswell", &[], &[F::Hle, F::Rtm]),
    ("Haswell-noTSX", "Haswell", &[], &[F::Hle, F::Rtm]),
    ("Haswell-v3", "Haswell", &[F::SpecCtrl], &[]),
    ("Haswell-IBRS", "Haswell", &[F::SpecCtrl], &[]),
    ("Haswell-v4", "Haswell", &[F::SpecCtrl], &[F::Hle, F::Rtm]),
    ("Haswell-noTSX-IBRS", "Haswell", &[F::SpecCtrl], &[F::Hle, F::Rtm]),
    ("Skylake-Client-v1", "Skylake-Client", &[], &[]),
    ("Skylake-Client-v2", "Skylake-Client", &[F::SpecCtrl], &[]),
    ("Skylake-Client-IBRS", "Skylake-Client", &[F::SpecCtrl], &[]),
    ("Skylake-Client-v3", "Skylake-Client", &[F::SpecCtrl], &[F::Hle, F::Rtm]),
    ("Skylake-Client-noTSX-IBRS", "Skylake-Client", &[F::SpecCtrl], &[F::Hle, F::Rtm]),
    ("Skylake-Client-v4", "Skylake-Client", &[F::SpecCtrl], &[F::Hle, F::Rtm]),
    ("Skylake-Server-v1", "Skylake-Server", &[], &[]),
    ("Skylake-Server-v2", "Skylake-Server", &[F::SpecCtrl, F::Clflushopt], &[F::Pku]),
    ("Skylake-Server-IBRS", "Skylake-Server", &[F::SpecCtrl, F::Clflushopt], &[F::Pku]),
    ("Skylake-Server-v3", "Skylake-Server", &[F::SpecCtrl], &[F::Hle, F::Rtm, F::Pku]),
    ("Skylake-Server-noTSX-IBRS", "Skylake-Server", &[F::SpecCtrl], &[F::Hle, F::Rtm, F::Pku]),
    ("Skylake-Server-v4", "Skylake-Server", &[F::SpecCtrl], &[F::Hle, F::Rtm, F::Pku]),
    ("Skylake-Server-v5", "Skylake-Server", &[F::SpecCtrl], &[F::Hle, F::Rtm, F::Pku]),
    ("EPYC-v1", "EPYC", &[], &[]),
    ("EPYC-v2", "EPYC", &[F::Ibpb], &[]),
    ("EPYC-IBPB", "EPYC", &[F::Ibpb], &[]),
    ("EPYC-v3", "EPYC", &[F::Ibpb, F::Clzero, F::Xsaveerptr], &[]),
    ("EPYC-v4", "EPYC", &[F::Ibpb, F::Clzero, F::Xsaveerptr], &[]),
    ("EPYC-Rome-v1", "EPYC-Rome", &[], &[]),
    ("EPYC-Rome-v2", "EPYC-Rome", &[F::Ibpb, F::AmdSsbd], &[]),
    ("EPYC-Rome-v3", "EPYC-Rome", &[F::Ibpb, F::AmdSsbd], &[]),
    ("EPYC-Rome-v4", "EPYC-Rome", &[F::Ibpb, F::AmdSsbd], &[F::Xsaves]),
    ("qemu64-v1", "qemu64", &[], &[]),
];

/// Features of nested virtualization (CPUID leaf 0x8000_000A), which is absent with all its parts.
const NESTED: &[&str] = &[
    "npt",
    "lbrv",
    "svm-lock",
    "nrip-save",
    "tsc-scale",
    "vmcb-clean",
    "flushbyasid",
    "decodeassists",
    "pause-filter",
    "pfthreshold",
    "avic",
    "v-vmsave-vmload",
    "vgif",
    "vnmi",
    "svme-addr-chk",
];

fn model(name: &str) -> Option<X86Config> {
    let epyc_caches = Caches {
        l1d: Cache { size: 32, ways: 8, ..Cache::default() },
        l1i: Cache { size: 64, ways: 4, ..Cache::default() },
        l2: Cache { size: 512, ways: 8, inclusive: true, ..Cache::default() },
        l3: Cache { size: 8192, ways: 16, per_die: true, inclusive: true },
    };
    let mut c = match name {
        "base" => return Some(X86Config::bare(name, Vendor::Amd, 6, 6, 3)),
        "qemu64" => {
            let mut c = X86Config::bare(name, Vendor::Amd, 15, 107, 1);
            c.extended_level = 0x8000_000a;
            c.brand = "Rhea Virtual CPU".into();
            c
        }
        "Opteron_G1" => {
            let mut c = X86Config::bare(name, Vendor::Amd, 15, 6, 1);
            c.brand = "AMD Opteron 240 (Gen 1 Class Opteron)".into();
            c.enable(&[F::Vme]);
            c
        }
        "max" => {
            let mut c = X86Config::bare(name, Vendor::Amd, 6, 6, 3);
            c.level = 0x1f;
            c.extended_level = 0x8000_0026;
            c.brand = "Rhea CPU".into();
            c.enable(Feature::ALL);
            c
        }
        "Nehalem" => {
            let mut c = X86Config::bare(name, Vendor::Intel, 6, 26, 3);
            c.level = 0xb;
            c.brand = "Intel Core i7 9xx (Nehalem Class Core i7)".into();
            c.enable(NEHALEM);
            c
        }
        "Haswell" => {
            let mut c = X86Config::bare(name, Vendor::Intel, 6, 60, 4);
            c.brand = "Intel Core Processor (Haswell)".into();
            c.enable(NEHALEM);
            c.enable(HASWELL);
            c
        }
        "Skylake-Client" => {
            let mut c = X86Config::bare(name, Vendor::Intel, 6, 94, 3);
            c.level = 0x16;
            c.brand = "Intel Core Processor (Skylake)".into();
            c.enable(NEHALEM);
            c.enable(HASWELL);
            c.enable(SKYLAKE);
            c
        }
        "Skylake-Server" => {
            let mut c = X86Config::bare(name, Vendor::Intel, 6, 85, 4);
            c.level = 0x16;
            c.brand = "Intel Xeon Processor (Skylake)".into();
            c.enable(NEHALEM);
            c.enable(HASWELL);
            c.enable(SKYLAKE);
            c.enable(SKYLAKE_SERVER);
            c
        }
        "EPYC" | "EPYC-Rome" => {
            let rome = name == "EPYC-Rome";
            let mut c = X86Config::bare(name, Vendor::Amd, 23, if rome { 49 } else { 1 }, if rome { 0 } else { 2 });
            c.extended_level = 0x8000_001e;
            c.brand = if rome { "AMD EPYC-Rome Processor" } else { "AMD EPYC Processor" }.into();
            c.caches = epyc_caches;
            c.enable(EPYC);
            if rome {
                c.enable(ROME);
                c.caches.l1i = Cache { size: 32, ways: 8, ..Cache::default() };
                c.caches.l3 = Cache { size: 16384, ways: 16, per_die: true, inclusive: true };
            }
            c
        }
        _ => return None,
    };
    c.enable(BASE);
    c.enable(KVM);
    Some(c)
}

fn on_off(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "on" | "yes" | "true" => Ok(true),
        "off" | "no" | "false" => Ok(false),
        _ => Err(format!("CPU property '{name}': '{value}' is not 'on' or 'off'")),
    }
}

/// A number, decimal or with `0x`; within bounds.
fn number(name: &str, value: &str, from: u64, to: u64) -> Result<u64, String> {
    let n = match value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => value.parse().ok(),
    };
    n.filter(|n| (from..=to).contains(n))
        .ok_or_else(|| format!("CPU property '{name}': '{value}' is not a number from {from} to {to}"))
}

/// A frequency with an optional suffix k, M or G (decimal).
fn frequency(name: &str, value: &str) -> Result<u64, String> {
    let (digits, unit) = match value.as_bytes().last() {
        Some(b'k' | b'K') => (&value[..value.len() - 1], 1_000),
        Some(b'm' | b'M') => (&value[..value.len() - 1], 1_000_000),
        Some(b'g' | b'G') => (&value[..value.len() - 1], 1_000_000_000),
        _ => (value, 1),
    };
    let n = number(name, digits, 0, u64::MAX).ok().and_then(|n| n.checked_mul(unit));
    n.filter(|n| (1_000_000..=100_000_000_000).contains(n))
        .ok_or_else(|| format!("CPU property '{name}': '{value}' is not a frequency from 1000000 to 100000000000 Hz"))
}

/// The model that is the processor guest code runs on.
pub const HOST: &str = "host";

/// From the value of `-cpu`.
///
/// # Errors
/// One line: an unknown model or property, a bad value, a feature asked for that Rhea lacks.
pub fn parse(text: &str) -> Result<Parsed, String> {
    parse_on(text, None)
}

/// The same where the processor named `host` is known: the one that guest code runs on.
///
/// # Errors
/// As [`parse`].
pub fn parse_on(text: &str, host: Option<X86Config>) -> Result<Parsed, String> {
    let mut parts = text.split(',');
    let name = parts.next().unwrap_or_default();
    let version = VERSIONS.iter().find(|v| v.0.eq_ignore_ascii_case(name));
    let base = version.map_or(name, |v| v.1);
    let base = MODELS.iter().map(|m| m.0).find(|m| m.eq_ignore_ascii_case(base)).unwrap_or(base);
    // What the host's processor executes itself is there too.
    let beyond: Vec<Feature> = host.iter().flat_map(|h| h.features().iter().filter(|f| !f.available())).collect();
    let there = |f: &Feature| f.available() || beyond.contains(f);
    // All that is implemented is what the host has.
    let own = host.filter(|_| matches!(base, HOST | "max"));
    if name == HOST && own.is_none() {
        return Err("the model 'host' is of -accel kvm: other accelerators have 'max'".into());
    }
    let mut config = own.or_else(|| model(base)).ok_or_else(|| {
        let known: Vec<_> = MODELS.iter().map(|m| m.0).collect();
        format!("unknown CPU model '{name}' (known: {})", known.join(", "))
    })?;
    if let Some((_, _, add, remove)) = version {
        config.enable(add);
        for &f in *remove {
            config.set(f, false);
        }
        config.model = name.into();
    }
    let mut asked = Vec::new();
    let mut tsc_frequency = None;
    let mut nested: Vec<&str> = Vec::new();
    let mut mentioned: Vec<&'static str> = Vec::new();
    let mut enforce = false;
    let mut given = (false, false);
    for part in parts.filter(|p| !p.is_empty()) {
        let (key, value) = match (part.split_once('='), part.strip_prefix('+'), part.strip_prefix('-')) {
            (_, Some(name), _) => (name, "on"),
            (_, _, Some(name)) => (name, "off"),
            (Some((k, v)), ..) => (k, v),
            _ => (part, "on"),
        };
        if let Some(f) = Feature::by_name(key) {
            let on = on_off(key, value)?;
            config.set(f, on);
            asked.retain(|a| *a != f);
            if on {
                asked.push(f);
            }
            continue;
        }
        match key.replace('_', "-").as_str() {
            "vendor" => {
                config.vendor = match value {
                    "GenuineIntel" => Vendor::Intel,
                    "AuthenticAMD" => Vendor::Amd,
                    _ => {
                        return Err(format!(
                            "CPU property 'vendor': '{value}' is not 'GenuineIntel' or 'AuthenticAMD'"
                        ));
                    }
                };
            }
            "family" => config.family = number(key, value, 0, 270)? as u32,
            "model" => config.model_number = number(key, value, 0, 255)? as u32,
            "stepping" => config.stepping = number(key, value, 0, 15)? as u32,
            "model-id" => {
                if value.len() > 48 {
                    return Err("CPU property 'model-id' is longer than 48 bytes".into());
                }
                config.brand = value.into();
            }
            "level" => {
                config.level = number(key, value, 1, 0x1f)? as u32;
                given.0 = true;
            }
            "xlevel" => {
                config.extended_level = number(key, value, 0x8000_0000, 0x8000_0026)? as u32;
                given.1 = true;
            }
            "phys-bits" => config.physical_bits = number(key, value, 36, 52)? as u32,
            "host-phys-bits" | "migratable" | "check" | "pmu" if value == "off" || key != "pmu" => {
                on_off(key, value)?;
            }
            "pmu" => return Err("CPU feature 'pmu' is not available".into()),
            "enforce" => enforce = on_off(key, value)?,
            "tsc-frequency" | "tsc-freq" => {
                config.tsc_frequency = frequency(key, value)?;
                tsc_frequency = Some(config.tsc_frequency);
            }
            "kvm" => config.kvm = on_off(key, value)?,
            "l3-cache" => {
                if !on_off(key, value)? {
                    config.caches.l3 = Cache::default();
                }
            }
            key => match NESTED.iter().find(|n| **n == key) {
                Some(name) => {
                    mentioned.push(name);
                    nested.retain(|n| n != name);
                    if on_off(key, value)? {
                        nested.push(name);
                    }
                }
                None => return Err(format!("CPU model '{base}' has no property or feature '{key}'")),
            },
        }
    }
    if let Some(f) = asked.iter().find(|f| enforce && !there(f)) {
        return Err(format!("CPU feature '{}' is not available", f.name()));
    }
    let missing: Vec<_> = config.features().iter().filter(|f| !there(f)).collect();
    for f in &missing {
        config.set(*f, false);
    }
    drop_dependent(&mut config, &asked)?;
    // Leaves that the features need.
    if !given.0 && config.features().iter().any(|f| matches!(f.place().0, crate::config::Word::L7Ebx)) {
        config.level = config.level.max(7);
    }
    if !given.0 && config.has(Feature::Xsave) {
        config.level = config.level.max(0xd);
    }
    if !config.has(Feature::Hypervisor) {
        config.kvm = false;
    }
    config.finish();
    // What a whole model lacks is told; of "max" only what was asked for.
    let told = |f: &&Feature| base != "max" || asked.contains(f);
    let names: Vec<_> = missing.iter().filter(told).map(|f| f.name()).chain(nested).collect();
    let warning = if names.is_empty() {
        None
    } else {
        let line = format!("CPU model '{name}' without features that are not available: {}", names.join(", "));
        if enforce {
            return Err(line);
        }
        Some(line)
    };
    let whole = if base == "max" { Vec::new() } else { missing.clone() };
    let absent = asked.into_iter().filter(|f| missing.contains(f)).collect();
    Ok(Parsed { config, enforce, warning, absent, missing: whole, nested: mentioned, tsc_frequency })
}

/// What needs another feature: dropped with it, refused if asked for.
const NEEDS: &[(Feature, Feature)] = &[
    (F::Sse, F::Fxsr),
    (F::Sse2, F::Sse),
    (F::Sse3, F::Sse2),
    (F::Ssse3, F::Sse3),
    (F::Sse41, F::Ssse3),
    (F::Sse42, F::Sse41),
    (F::Aes, F::Sse2),
    (F::Pclmulqdq, F::Sse2),
    (F::ShaNi, F::Sse2),
    (F::Xsaveopt, F::Xsave),
    (F::Xsavec, F::Xsave),
    (F::Xgetbv1, F::Xsave),
    (F::Xsaves, F::Xsavec),
    (F::Avx, F::Xsave),
    (F::Pku, F::Xsave),
    (F::Pks, F::Lm),
    (F::Xfd, F::Xsave),
    (F::AmxTile, F::Xsave),
    (F::AmxTile, F::Lm),
    (F::AmxBf16, F::AmxTile),
    (F::AmxInt8, F::AmxTile),
    (F::F16c, F::Avx),
    (F::Fma, F::Avx),
    (F::Avx2, F::Avx),
    (F::La57, F::Lm),
    (F::Pcid, F::Lm),
    (F::LahfLm, F::Lm),
    (F::Fsgsbase, F::Lm),
    (F::Cx16, F::Lm),
    (F::X2apic, F::Apic),
    (F::TscDeadline, F::Apic),
    (F::TscAdjust, F::Tsc),
];

fn drop_dependent(config: &mut X86Config, asked: &[Feature]) -> Result<(), String> {
    for &(f, needed) in NEEDS {
        if config.has(f) && !config.has(needed) {
            if asked.contains(&f) {
                return Err(format!("CPU feature '{}' needs '{}'", f.name(), needed.name()));
            }
            config.set(f, false);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    fn ok(text: &str) -> Parsed {
        parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn every_model() {
        for (name, _) in MODELS {
            let p = ok(name);
            assert!(p.config.features().iter().all(Feature::available), "{name}");
            let amd = matches!(*name, "qemu64" | "max" | "Opteron_G1" | "EPYC" | "EPYC-Rome" | "base");
            assert_eq!(p.config.vendor, if amd { Vendor::Amd } else { Vendor::Intel }, "{name}");
        }
        for (name, model, ..) in VERSIONS {
            assert!(MODELS.iter().any(|m| m.0 == *model), "{name}");
            ok(name);
        }
        assert_eq!(ok("Haswell").config.signature, 0x306c4);
        assert_eq!(ok("EPYC-Rome").config.signature, 0x830f10);
        assert!(ok("max").warning.is_none());
        assert!(ok("Skylake-Server").warning.is_some_and(|w| w.contains("avx512f") && !w.contains('\n')));
    }
    #[test]
    fn what_the_host_has() {
        let host = || X86Config::bare("host", Vendor::Intel, 6, 0xcf, 2);
        for name in ["host", "max", "MAX"] {
            let p = parse_on(name, Some(host())).unwrap();
            assert_eq!((p.config.vendor, p.config.model_number), (Vendor::Intel, 0xcf), "{name}");
            assert!(p.warning.is_none(), "{name}");
        }
        assert_eq!(parse_on("EPYC", Some(host())).unwrap().config.vendor, Vendor::Amd);
        // What only the host executes.
        let mut nesting = host();
        nesting.set(F::Vmx, true);
        let p = parse_on("host", Some(nesting.clone())).unwrap();
        assert!(p.config.has(F::Vmx) && p.absent.is_empty());
        assert!(!parse_on("host,-vmx", Some(nesting.clone())).unwrap().config.has(F::Vmx));
        assert!(!parse_on("Haswell", Some(nesting.clone())).unwrap().config.has(F::Vmx));
        assert!(parse_on("Haswell-noTSX,enforce,+vmx,npt=off", Some(nesting.clone())).unwrap().nested == ["npt"]);
        assert_eq!(parse_on("host,+svm", Some(nesting)).unwrap().absent, [F::Svm]);
        let mut tiles = host();
        tiles.enable(&[F::Lm, F::Xsave, F::Xfd, F::AmxTile, F::AmxBf16, F::AmxInt8]);
        let p = parse_on("host,-amx-int8", Some(tiles.clone())).unwrap();
        assert!(p.config.has(F::AmxBf16) && !p.config.has(F::AmxInt8));
        assert_eq!(p.config.xcr0_allowed(), 3 | 3 << 17);
        let p = parse_on("host,amx-tile=off", Some(tiles)).unwrap();
        assert!(!p.config.has(F::AmxBf16) && p.config.xcr0_allowed() == 3);
        assert!(parse("host").unwrap_err().contains("of -accel kvm"));
    }
    #[test]
    fn properties() {
        assert!(!ok("max,-avx2").config.has(F::Avx2));
        assert!(ok("qemu64,+sse4.2,sse4_1=on,ssse3").config.has(F::Sse42));
        assert_eq!(ok("max,vendor=GenuineIntel").config.vendor, Vendor::Intel);
        let set = ok("max,tsc-frequency=0x77359400,+vmx,-vmx");
        assert_eq!(set.config.tsc_frequency, 2_000_000_000);
        assert_eq!((set.absent, set.tsc_frequency), (vec![], Some(2_000_000_000)));
        assert!(!ok("max,-avx").config.has(F::Fma), "what needs it goes too");
        assert!(ok("max,-npt").warning.is_none() && ok("max,+npt").warning.is_some());
        let absent = ok("max,+vmx");
        assert!(!absent.config.has(F::Vmx) && absent.warning.is_some_and(|w| w.ends_with(": vmx")));
        assert_eq!((absent.absent, absent.tsc_frequency), (vec![F::Vmx], None));
        for bad in [
            "nosuch",
            "",
            "max,nosuch=on",
            "max,avx=maybe",
            "max,+avx512f,enforce",
            "max,enforce,+vmx",
            "max,phys-bits=64",
            "max,-xsave,+avx",
            "max,vendor=x",
            "max,tsc-frequency=0",
            "max,level=99",
            "Skylake-Server,enforce",
        ] {
            let e = parse(bad).err().unwrap_or_else(|| panic!("{bad} is accepted"));
            assert!(!e.is_empty() && !e.contains('\n'), "{bad}: {e}");
        }
    }
    #[test]
    fn instructions_follow_features() {
        let allows = |model: &str, code: &[u8]| {
            let c = ok(model).config;
            let i = Decoder::new(64, code, DecoderOptions::NONE).decode();
            !i.is_invalid() && c.allows(&i)
        };
        let vpaddd_ymm = [0xc5, 0xf5, 0xfe, 0xc2];
        let vpaddd_zmm = [0x62, 0xf1, 0x75, 0x48, 0xfe, 0xc2];
        assert!(allows("Haswell", &vpaddd_ymm) && !allows("Nehalem", &vpaddd_ymm));
        assert!(!allows("max", &vpaddd_zmm));
        // ENDBR64 and RDSSPQ are NOPs without the feature; XBEGIN is not there.
        assert!(allows("qemu64", &[0xf3, 0x0f, 0x1e, 0xfa]));
        assert!(allows("max", &[0xf3, 0x48, 0x0f, 0x1e, 0xc8]));
        assert!(!allows("max", &[0xc7, 0xf8, 0, 0, 0, 0]));
        assert!(allows("max", &[0x0f, 0x01, 0xd9]) && !allows("max,kvm=off", &[0x0f, 0x01, 0xd9]), "VMMCALL");
        assert!(allows("max", &[0x90]) && allows("max", &[0x0f, 0x05]));
    }
}
