//! `-M pseries,...`

use crate::options::{RamUse, machine_pairs};
use rhea_device::options::{self, OptionDecl, OptionError, OptionKind, OptionSet};

/// `ic-mode=`: interrupt controllers the guest may choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcMode {
    Xics,
    Xive,
    Dual,
}

impl IcMode {
    /// The value of `ic-mode=`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Xics => "xics",
            Self::Xive => "xive",
            Self::Dual => "dual",
        }
    }
}

/// Compatibility levels of processors (logical PVRs of LoPAPR B.6.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compat {
    Power8,
    Power9,
    Power10,
}

impl Compat {
    /// In ascending order: word, logical PVR.
    pub const ALL: [(Self, &'static str, u32); 3] = [
        (Self::Power8, "power8", 0x0f00_0004),
        (Self::Power9, "power9", 0x0f00_0005),
        (Self::Power10, "power10", 0x0f00_0006),
    ];
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, w, _)| *w == word).map(|c| c.0)
    }
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::ALL[self as usize].1
    }
    #[must_use]
    pub fn logical_pvr(self) -> u32 {
        Self::ALL[self as usize].2
    }
    #[must_use]
    pub fn of_logical_pvr(pvr: u32) -> Option<Self> {
        Self::ALL.iter().find(|(.., p)| *p == pvr).map(|c| c.0)
    }
}

/// `resize-hpt=`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizeHpt {
    Disabled,
    Enabled,
    Required,
}

/// Answers of the mitigation capabilities: what H_GET_CPU_CHARACTERISTICS tells the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mitigation {
    Broken,
    Workaround,
    Fixed,
    FixedIbs,
    FixedCcd,
    FixedNa,
}

/// The machine capabilities (`cap-*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    pub vsx: bool,
    pub dfp: bool,
    /// Cache flush on privilege change.
    pub cfpc: Mitigation,
    /// Speculation barrier bounds checking.
    pub sbbc: Mitigation,
    /// Indirect branch speculation.
    pub ibs: Mitigation,
    /// The largest page of hashed translation, as a shift.
    pub max_page_shift: u8,
    pub large_decrementer: bool,
    /// Count cache flush assist.
    pub ccf_assist: bool,
    pub fwnmi: bool,
    pub rpt_invalidate: bool,
    pub ail_mode_3: bool,
    pub dawr1: bool,
}

/// `-M pseries,...`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PseriesOptions {
    pub ic_mode: IcMode,
    pub max_cpu_compat: Option<Compat>,
    pub resize_hpt: ResizeHpt,
    /// The built-in Open Firmware client interface instead of firmware.
    pub vof: bool,
    /// Where a kernel is placed.
    pub kernel_addr: u64,
    pub host_model: Option<String>,
    pub host_serial: Option<String>,
    pub caps: Capabilities,
    pub graphics: bool,
    /// A USB controller, with keyboard and mouse if there is a display; else there is one if there is a display.
    pub usb: Option<bool>,
    pub ram_use: RamUse,
    pub memory_backend: Option<String>,
    pub accel: Option<String>,
    /// Not the hypervisor's kind of KVM.
    pub kvm_pr: bool,
    /// What H_GET_CPU_CHARACTERISTICS tells if the host knows: characteristics and behaviour.
    pub host_characteristics: Option<(u64, u64)>,
}

const MITIGATION: OptionKind = OptionKind::Choice(&["broken", "workaround", "fixed"]);

/// The keys of `-M pseries`.
pub const DECLS: &[OptionDecl] = &[
    OptionDecl::new("type", OptionKind::Text, None, "machine name"),
    OptionDecl::new(
        "ic-mode",
        OptionKind::Choice(&["xics", "xive", "dual"]),
        None,
        "interrupt controllers the guest chooses from (default dual; xics with power8)",
    ),
    OptionDecl::new(
        "max-cpu-compat",
        OptionKind::Choice(&["power8", "power9", "power10"]),
        None,
        "newest processor level the guest is offered",
    ),
    OptionDecl::new(
        "resize-hpt",
        OptionKind::Choice(&["default", "disabled", "enabled", "required"]),
        Some("default"),
        "resizing of the hashed page table",
    ),
    OptionDecl::new("x-vof", OptionKind::Bool, Some("off"), "built-in Open Firmware client interface"),
    OptionDecl::new(
        "kernel-addr",
        OptionKind::Number { min: 0, max: 1 << 40 },
        Some("0x400000"),
        "where -kernel is placed",
    ),
    OptionDecl::new("host-model", OptionKind::Text, None, "model of the host that the guest is told"),
    OptionDecl::new("host-serial", OptionKind::Text, None, "serial number of the host that the guest is told"),
    OptionDecl::new("cap-htm", OptionKind::Choice(&["off"]), Some("off"), "there is no transactional memory"),
    OptionDecl::new("cap-vsx", OptionKind::Bool, Some("on"), "Vector Scalar Extensions"),
    OptionDecl::new("cap-dfp", OptionKind::Bool, Some("on"), "Decimal Floating Point"),
    OptionDecl::new("cap-cfpc", MITIGATION, Some("workaround"), "cache flush on privilege change"),
    OptionDecl::new("cap-sbbc", MITIGATION, Some("workaround"), "speculation barrier bounds checking"),
    OptionDecl::new(
        "cap-ibs",
        OptionKind::Choice(&["broken", "workaround", "fixed-ibs", "fixed-ccd", "fixed-na"]),
        Some("workaround"),
        "indirect branch speculation",
    ),
    OptionDecl::new(
        "cap-hpt-max-page-size",
        OptionKind::Size { unit: 1 },
        Some("16M"),
        "largest page of hashed translation",
    ),
    OptionDecl::new("cap-nested-hv", OptionKind::Choice(&["off"]), Some("off"), "there is no nested virtualization"),
    OptionDecl::new("cap-nested-papr", OptionKind::Choice(&["off"]), Some("off"), "there is no nested virtualization"),
    OptionDecl::new("cap-large-decr", OptionKind::Bool, Some("on"), "large decrementer"),
    OptionDecl::new("cap-ccf-assist", OptionKind::Bool, Some("on"), "count cache flush assist"),
    OptionDecl::new("cap-fwnmi", OptionKind::Bool, Some("on"), "firmware-assisted non-maskable interrupts"),
    OptionDecl::new("cap-rpt-invalidate", OptionKind::Bool, Some("off"), "hypercall H_RPT_INVALIDATE"),
    OptionDecl::new("cap-ail-mode-3", OptionKind::Bool, Some("on"), "alternate interrupt location 3"),
    OptionDecl::new("cap-dawr1", OptionKind::Bool, Some("on"), "second data address watchpoint"),
    OptionDecl::new("modern-hotplug-events", OptionKind::Bool, Some("on"), "an event source of its own for hot-plug"),
    OptionDecl::new("memory-backend", OptionKind::Text, None, "id of the -object that is the RAM"),
    OptionDecl::new("accel", OptionKind::Text, None, "accelerator, as -accel"),
    OptionDecl::new("graphics", OptionKind::Bool, Some("on"), "firmware uses a display if there is one"),
    OptionDecl::new(
        "usb",
        OptionKind::Bool,
        None,
        "USB controller with keyboard and mouse (default on with a display)",
    ),
    OptionDecl::new(
        "kvm-type",
        OptionKind::Choice(&["hv", "HV", "pr", "PR", "auto"]),
        None,
        "kind of KVM: there is HV only; of no effect without KVM",
    ),
    OptionDecl::new("dump-guest-core", OptionKind::Bool, Some("on"), "RAM is part of core dumps of the emulator"),
    OptionDecl::new("mem-merge", OptionKind::Bool, Some("on"), "the host may merge equal pages of RAM"),
    OptionDecl::new("aux-ram-share", OptionKind::Choice(&["off"]), Some("off"), "other memory is not shared"),
    OptionDecl::new("suppress-vmdesc", OptionKind::Bool, Some("off"), "of no effect: states describe themselves"),
];

impl PseriesOptions {
    /// The text of `-M pseries,help`.
    #[must_use]
    pub fn help() -> String {
        options::help("pseries", DECLS)
    }
    /// Parses all `-M` values given (later ones add to earlier ones); `power8`: the processor knows XICS only.
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn parse(texts: &[String]) -> Result<Self, OptionError> {
        let (_, pairs) = machine_pairs(texts, "pseries")?;
        let set = OptionSet::parse("-M pseries", DECLS, &pairs)?;
        let text = |key: &str| set.text(key).map(str::to_owned);
        let mitigation = |key: &str| match set.text(key) {
            Some("broken") => Mitigation::Broken,
            Some("fixed") => Mitigation::Fixed,
            Some("fixed-ibs") => Mitigation::FixedIbs,
            Some("fixed-ccd") => Mitigation::FixedCcd,
            Some("fixed-na") => Mitigation::FixedNa,
            _ => Mitigation::Workaround,
        };
        let page = set.number("cap-hpt-max-page-size").unwrap_or(16 << 20);
        let max_page_shift = match page {
            0x1000 => 12,
            0x1_0000 => 16,
            0x100_0000 => 24,
            0x4_0000_0000 => 34,
            _ => return Err(set.error("cap-hpt-max-page-size", "page sizes are 4k, 64k, 16M and 16G")),
        };
        let kernel_addr = set.number("kernel-addr").unwrap_or(0x40_0000);
        if kernel_addr % 0x1_0000 != 0 {
            return Err(set.error("kernel-addr", "expected a multiple of 64 KiB"));
        }
        Ok(Self {
            ic_mode: match set.text("ic-mode") {
                Some("xics") => IcMode::Xics,
                Some("xive") => IcMode::Xive,
                _ => IcMode::Dual,
            },
            max_cpu_compat: set.text("max-cpu-compat").and_then(Compat::parse),
            resize_hpt: match set.text("resize-hpt") {
                Some("disabled") => ResizeHpt::Disabled,
                Some("required") => ResizeHpt::Required,
                _ => ResizeHpt::Enabled,
            },
            vof: set.bool("x-vof"),
            kernel_addr,
            host_model: text("host-model"),
            host_serial: text("host-serial"),
            caps: Capabilities {
                vsx: set.bool("cap-vsx"),
                dfp: set.bool("cap-dfp"),
                cfpc: mitigation("cap-cfpc"),
                sbbc: mitigation("cap-sbbc"),
                ibs: mitigation("cap-ibs"),
                max_page_shift,
                large_decrementer: set.bool("cap-large-decr"),
                ccf_assist: set.bool("cap-ccf-assist"),
                fwnmi: set.bool("cap-fwnmi"),
                rpt_invalidate: set.bool("cap-rpt-invalidate"),
                ail_mode_3: set.bool("cap-ail-mode-3"),
                dawr1: set.bool("cap-dawr1"),
            },
            graphics: set.bool("graphics"),
            usb: set.given("usb").then(|| set.bool("usb")),
            ram_use: RamUse::of(&set),
            memory_backend: text("memory-backend"),
            accel: text("accel"),
            kvm_pr: matches!(set.text("kvm-type"), Some("pr" | "PR")),
            host_characteristics: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let parse = |t: &str| PseriesOptions::parse(&[t.to_owned()]);
        let o = parse("pseries,ic-mode=xics,max-cpu-compat=power9,x-vof=on,cap-cfpc=broken,cap-hpt-max-page-size=64k");
        let o = o.unwrap();
        assert_eq!((o.ic_mode, o.max_cpu_compat, o.vof), (IcMode::Xics, Some(Compat::Power9), true));
        assert_eq!((o.caps.cfpc, o.caps.max_page_shift), (Mitigation::Broken, 16));
        assert_eq!(parse("pseries,usb=off,kvm-type=HV").map(|o| o.usb), Ok(Some(false)));
        for bad in [
            "pseries,cap-htm=on",
            "pseries,cap-nested-papr=on",
            "pseries,kvm-type=x",
            "pseries,cap-nested-hv=on",
            "pseries,cap-hpt-max-page-size=5M",
            "pseries,ic-mode=gic",
            "pseries,kernel-addr=5",
            "pseries,cap-nothing=on",
        ] {
            let text = parse(bad).unwrap_err().to_string();
            assert!(text.starts_with("-M pseries: ") && !text.contains('\n'), "{bad}: {text}");
        }
        for (compat, _, pvr) in Compat::ALL {
            assert_eq!(Compat::of_logical_pvr(pvr), Some(compat));
            assert_eq!(Compat::parse(compat.word()), Some(compat));
        }
    }
}
