//! What a processor of the machine implements.

/// Version of the architecture; later ones include earlier ones but for what was removed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(u8)]
pub enum Isa {
    /// POWER8.
    V2_07 = 0,
    /// POWER9.
    #[default]
    V3_0 = 1,
    /// POWER10.
    V3_1 = 2,
}

impl Isa {
    pub const fn from_u32(v: u32) -> Isa {
        match v {
            0 => Isa::V2_07,
            1 => Isa::V3_0,
            _ => Isa::V3_1,
        }
    }
}

/// The same for all processors of a machine.
#[derive(Debug)]
pub struct PpcConfig {
    /// Processor version register.
    pub pvr: u32,
    pub isa: Isa,
}
