//! CPU models and the `-cpu MODEL,prop=on|off` option.

use crate::config::{ArmConfig, Caches, Feature, ImpDef};
use thiserror::Error;

/// Why a `-cpu` value is refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum CpuError {
    #[error("unknown CPU model '{0}' (known: {list})", list = names())]
    Model(String),
    #[error("CPU model '{model}' has no property '{property}' (known: {list})", list = property_names(model))]
    Property { model: &'static str, property: String },
    #[error("CPU property '{property}': '{value}' is not 'on' or 'off'")]
    Value { property: String, value: String },
    #[error("CPU property '{0}' cannot be off")]
    Fixed(&'static str),
    #[error("CPU property '{0}' needs 'pauth=on'")]
    NeedsPauth(&'static str),
}

/// The models: name and description.
pub const MODELS: &[(&str, &str)] = &[
    ("cortex-a53", "Arm Cortex-A53 (Armv8.0)"),
    ("cortex-a57", "Arm Cortex-A57 (Armv8.0)"),
    ("cortex-a72", "Arm Cortex-A72 (Armv8.0)"),
    ("cortex-a76", "Arm Cortex-A76 (Armv8.2)"),
    ("neoverse-n1", "Arm Neoverse N1 (Armv8.2)"),
    ("max", "every feature that is implemented"),
];

fn names() -> String {
    MODELS.iter().map(|m| m.0).collect::<Vec<_>>().join(", ")
}

/// Properties a model takes: name, description, does it apply to other models than `max`?
pub const PROPERTIES: &[(&str, &str, bool)] = &[
    ("aarch64", "64-bit execution state; always on", true),
    ("pmu", "performance monitors", true),
    ("pauth", "pointer authentication", false),
    ("pauth-impdef", "the fast implementation-defined algorithm for pointer authentication", false),
    ("pauth-qarma5", "the QARMA5 algorithm for pointer authentication", false),
    ("lpa2", "52-bit addresses with 4K and 16K pages", false),
];

fn property_names(model: &str) -> String {
    PROPERTIES.iter().filter(|p| p.2 || model == "max").map(|p| p.0).collect::<Vec<_>>().join(", ")
}

use Feature::*;

const V8_0: &[Feature] = &[Aes, Pmull, Sha1, Sha256, Crc32, Pmu, Granule4K, Granule64K, Asid16];
const V8_2: &[Feature] = &[
    Granule16K, Lse, Rdm, Fp16, DotProd, Lrcpc, Pan, Pan2, Uao, Dpb, Haf, Dbm, Hpds, Xnx, Vhe, Vmid16, Lor, Cnp, Csv2,
    Csv3, Ssbs,
];
/// What `max` adds.
const LATEST: &[Feature] = &[
    Ssbs2,
    Sha512,
    Sha3,
    Sm3,
    Sm4,
    Fhm,
    Fcma,
    Jscvt,
    Lrcpc2,
    FlagM,
    FlagM2,
    FrintTs,
    Sb,
    Dpb2,
    Bti,
    Dit,
    Pan3,
    TlbiOs,
    TlbiRange,
    Ttl,
    Ttst,
    Lpa,
    Lva,
    Lpa2,
    E0pd,
    Idst,
    Evt,
    Pauth,
    PauthImpdef,
    Bf16,
    I8mm,
];

fn model(name: &str) -> Option<ArmConfig> {
    let mut c = match name {
        "cortex-a53" => {
            let mut c = ArmConfig::bare("cortex-a53", 0x410f_d034);
            c.ctr = 0x8444_8004;
            c.caches = Caches { l1d: (128, 4), l1i: (256, 2), l2: (1024, 16) };
            c.pa_range = 2;
            c
        }
        "cortex-a57" => {
            let mut c = ArmConfig::bare("cortex-a57", 0x411f_d070);
            c.caches = Caches { l1d: (256, 2), l1i: (256, 3), l2: (2048, 16) };
            c.pa_range = 4;
            c
        }
        "cortex-a72" => {
            let mut c = ArmConfig::bare("cortex-a72", 0x410f_d083);
            c.caches = Caches { l1d: (256, 2), l1i: (256, 3), l2: (1024, 16) };
            c.pa_range = 4;
            c
        }
        "cortex-a76" => {
            let mut c = ArmConfig::bare("cortex-a76", 0x414f_d0b1);
            c.caches = Caches { l1d: (256, 4), l1i: (256, 4), l2: (1024, 8) };
            c.pa_range = 2;
            c
        }
        "neoverse-n1" => {
            let mut c = ArmConfig::bare("neoverse-n1", 0x414f_d0c1);
            // The instruction cache is coherent: IDC and DIC.
            c.ctr |= 3 << 28;
            c.caches = Caches { l1d: (256, 4), l1i: (256, 4), l2: (2048, 8) };
            c
        }
        "max" => {
            let mut c = ArmConfig::bare("max", 0x000f_0510);
            c.ctr |= 3 << 28;
            c.pa_range = 6;
            c
        }
        _ => return None,
    };
    c.enable(V8_0);
    c.impdef = ImpDef::A5x;
    if matches!(name, "cortex-a76" | "neoverse-n1" | "max") {
        c.enable(V8_2);
        c.impdef = ImpDef::A7x;
    }
    if name == "neoverse-n1" {
        c.set(Ssbs2, true);
    }
    if name == "max" {
        c.enable(LATEST);
        c.impdef = ImpDef::None;
    }
    Some(c)
}

impl ArmConfig {
    /// From the value of `-cpu`. The machine then sets [`Feature::El2`], [`Feature::El3`], `gic_sysregs` and the addresses.
    ///
    /// # Errors
    /// [`CpuError`].
    pub fn from_option(option: &str) -> Result<ArmConfig, CpuError> {
        let mut parts = option.split(',');
        let name = parts.next().unwrap_or_default();
        let mut c = model(name).ok_or_else(|| CpuError::Model(name.to_owned()))?;
        let mut algorithm = None;
        for part in parts {
            let (property, value) = part.split_once('=').unwrap_or((part, "on"));
            let Some(known) = PROPERTIES.iter().find(|p| p.0 == property && (p.2 || c.model == "max")) else {
                return Err(CpuError::Property { model: c.model, property: property.to_owned() });
            };
            let on = match value {
                "on" | "true" | "yes" => true,
                "off" | "false" | "no" => false,
                _ => return Err(CpuError::Value { property: property.to_owned(), value: value.to_owned() }),
            };
            match known.0 {
                "aarch64" if !on => return Err(CpuError::Fixed("aarch64")),
                "pmu" => c.set(Pmu, on),
                "pauth" => c.set(Pauth, on),
                "pauth-impdef" => {
                    c.set(PauthImpdef, on);
                    algorithm = on.then_some("pauth-impdef").or(algorithm);
                }
                "pauth-qarma5" => {
                    c.set(PauthImpdef, !on);
                    algorithm = on.then_some("pauth-qarma5").or(algorithm);
                }
                "lpa2" => c.set(Lpa2, on),
                _ => {}
            }
        }
        if let (Some(property), false) = (algorithm, c.has(Pauth)) {
            return Err(CpuError::NeedsPauth(property));
        }
        Ok(c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_registers_of_models() {
        let c = ArmConfig::from_option("cortex-a53").unwrap();
        assert_eq!(c.id_aa64isar0(), 0x0001_1120);
        assert_eq!(c.id_aa64mmfr0(), 0x0000_0122);
        assert_eq!(c.id_aa64pfr0(), 0x11);
        assert_eq!(c.ccsidr(0), 0x700f_e01a);
        assert_eq!(c.ccsidr(1), 0x201f_e00a);
        assert_eq!(c.ccsidr(2), 0x707f_e07a);
        assert_eq!(c.clidr(), 0x0a20_0023);
        let c = ArmConfig::from_option("cortex-a72").unwrap();
        assert_eq!(c.id_aa64mmfr0(), 0x0000_0124);
        assert_eq!((c.ccsidr(0), c.ccsidr(1), c.ccsidr(2)), (0x701f_e00a, 0x201f_e012, 0x707f_e07a));
        let c = ArmConfig::from_option("cortex-a76").unwrap();
        assert_eq!(c.id_aa64isar0(), 0x0000_1000_1021_1120);
        assert_eq!(c.id_aa64isar1(), 0x0010_0001);
        assert_eq!(c.id_aa64pfr1(), 0x10);
        let mut c = ArmConfig::from_option("max,pauth-impdef=off").unwrap();
        assert_eq!(c.id_aa64isar1() >> 4 & 0xff, 1);
        c.set(El2, true);
        assert_eq!(c.id_aa64pfr0() >> 8 & 0xf, 1);
    }

    #[test]
    fn options_are_checked() {
        assert!(matches!(ArmConfig::from_option("cortex-a99"), Err(CpuError::Model(_))));
        assert!(matches!(ArmConfig::from_option("max,sve=on"), Err(CpuError::Property { .. })));
        assert!(matches!(ArmConfig::from_option("cortex-a53,pauth=on"), Err(CpuError::Property { .. })));
        assert!(matches!(ArmConfig::from_option("max,pauth=maybe"), Err(CpuError::Value { .. })));
        assert!(matches!(ArmConfig::from_option("max,aarch64=off"), Err(CpuError::Fixed(_))));
        assert!(matches!(ArmConfig::from_option("max,pauth=off,pauth-impdef=on"), Err(CpuError::NeedsPauth(_))));
        assert!(ArmConfig::from_option("max,pauth-qarma5=on,pmu=off").is_ok());
    }
}
