//! Processor models and the logical versions that a guest can be limited to.

use crate::bits::pcr;
use crate::config::{Isa, PpcConfig};
use crate::mmu::segments::SegmentMap;

/// A processor that can be chosen by name.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    pub name: &'static str,
    pub tree_name: &'static str,
    pub description: &'static str,
    pub pvr: u32,
    pub isa: Isa,
    pub max_threads: u32,
}

pub const POWER8: Model = Model {
    name: "power8",
    tree_name: "PowerPC,POWER8",
    description: "POWER8 v2.0 (Power ISA 2.07)",
    pvr: 0x004d_0200,
    isa: Isa::V2_07,
    max_threads: 8,
};
/// As POWER8 but for its number: the entry server's and that with NVLink.
pub const POWER8E: Model = Model {
    name: "power8e",
    tree_name: "PowerPC,POWER8E",
    description: "POWER8E v2.1 (Power ISA 2.07)",
    pvr: 0x004b_0201,
    ..POWER8
};
pub const POWER8NVL: Model = Model {
    name: "power8nvl",
    tree_name: "PowerPC,POWER8NVL",
    description: "POWER8NVL v1.0 (Power ISA 2.07)",
    pvr: 0x004c_0100,
    ..POWER8
};
pub const POWER9: Model = Model {
    name: "power9",
    tree_name: "PowerPC,POWER9",
    description: "POWER9 v2.2 (Power ISA 3.0)",
    pvr: 0x004e_1202,
    isa: Isa::V3_0,
    max_threads: 8,
};
pub const POWER10: Model = Model {
    name: "power10",
    tree_name: "PowerPC,POWER10",
    description: "POWER10 v2.0 (Power ISA 3.1)",
    pvr: 0x0080_1200,
    isa: Isa::V3_1,
    max_threads: 8,
};

/// All models and their other names.
pub const MODELS: &[(&str, Model)] = &[
    ("power8", POWER8),
    ("power8_v2.0", POWER8),
    ("power8e", POWER8E),
    ("power8e_v2.1", POWER8E),
    ("power8nvl", POWER8NVL),
    ("power8nvl_v1.0", POWER8NVL),
    ("power9", POWER9),
    ("power9_v2.0", Model { description: "POWER9 v2.0 (Power ISA 3.0)", pvr: 0x004e_1200, ..POWER9 }),
    ("power9_v2.2", POWER9),
    ("power10", POWER10),
    ("power10_v2.0", POWER10),
];

impl Model {
    pub fn config(&self) -> PpcConfig {
        PpcConfig {
            name: self.name,
            tree_name: self.tree_name,
            pvr: self.pvr,
            isa: self.isa,
            slb_entries: 32,
            decrementer_bits: if self.isa >= Isa::V3_0 { 56 } else { 32 },
            radix: self.isa >= Isa::V3_0,
            tlb_sets: if self.isa >= Isa::V3_0 { 128 } else { 512 },
            max_threads: self.max_threads,
            segments: SegmentMap::default(),
        }
    }
}

/// The model of a name.
///
/// # Errors
/// One line that lists the models.
pub fn parse(name: &str) -> Result<PpcConfig, String> {
    let name = name.to_ascii_lowercase();
    MODELS.iter().find(|(n, _)| *n == name).map(|(_, m)| m.config()).ok_or_else(|| {
        let all: Vec<&str> = [POWER8, POWER9, POWER10].iter().map(|m| m.name).collect();
        format!("unknown processor `{name}`: there are {}", all.join(", "))
    })
}

/// A logical processor version (LoPAPR, B.6.2.1) that a processor can be limited to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compat {
    /// As after `max-cpu-compat=`.
    pub name: &'static str,
    pub logical_pvr: u32,
    pub isa: Isa,
    /// What PCR disables.
    pub pcr: u64,
    /// Hardware threads of a core that such a processor can have.
    pub max_threads: u32,
}

/// In ascending order.
pub const COMPATS: &[Compat] = &[
    Compat {
        name: "power8",
        logical_pvr: 0x0f00_0004,
        isa: Isa::V2_07,
        pcr: pcr::V3_10 | pcr::V3_00 | pcr::V2_07,
        max_threads: 8,
    },
    Compat { name: "power9", logical_pvr: 0x0f00_0005, isa: Isa::V3_0, pcr: pcr::V3_10 | pcr::V3_00, max_threads: 8 },
    Compat { name: "power10", logical_pvr: 0x0f00_0006, isa: Isa::V3_1, pcr: pcr::V3_10, max_threads: 8 },
];

/// The version of a logical PVR.
pub fn compat_of_pvr(logical_pvr: u32) -> Option<&'static Compat> {
    COMPATS.iter().find(|c| c.logical_pvr == logical_pvr)
}

impl PpcConfig {
    /// Can the processor be limited to this version?
    pub fn supports(&self, compat: &Compat) -> bool {
        compat.isa <= self.isa
    }
    /// The version of the processor itself.
    pub fn own_compat(&self) -> Option<&'static Compat> {
        COMPATS.iter().find(|c| c.isa == self.isa)
    }
    /// Does a PVR/mask pair of an option vector mean this processor or a version it supports?
    pub fn matches_pvr(&self, mask: u32, value: u32) -> bool {
        self.pvr & mask == value & mask || COMPATS.iter().any(|c| self.supports(c) && c.logical_pvr & mask == value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions() {
        assert_eq!(parse("POWER9").unwrap().pvr, 0x004e_1202);
        assert!(parse("power7").unwrap_err().contains("power8, power9, power10"));
        assert_eq!(parse("power8nvl_v1.0").unwrap().tree_name, "PowerPC,POWER8NVL");
        let p9 = POWER9.config();
        assert!(p9.supports(&COMPATS[0]) && p9.supports(&COMPATS[1]) && !p9.supports(&COMPATS[2]));
        assert_eq!(p9.own_compat().unwrap().logical_pvr, 0x0f00_0005);
        assert!(p9.matches_pvr(0xffff_0000, 0x004e_0000));
        assert!(p9.matches_pvr(0xffff_ffff, 0x0f00_0004));
        assert!(!p9.matches_pvr(0xffff_ffff, 0x0f00_0006));
    }
}
