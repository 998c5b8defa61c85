//! Names of the system registers that are plain storage.

macro_rules! regs {
    ($($name:ident)*) => {
        /// Index of a register in `ArmCpu::sys`.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u16)]
        pub enum Reg { $($name,)* }
        impl Reg {
            pub const COUNT: usize = [$(Reg::$name),*].len();
        }
    };
}

regs! {
    SctlrEl1 SctlrEl2 SctlrEl3 CpacrEl1 CptrEl2 CptrEl3
    HcrEl2 ScrEl3 HstrEl2 VpidrEl2 VmpidrEl2
    Ttbr0El1 Ttbr1El1 TcrEl1 Ttbr0El2 Ttbr1El2 TcrEl2 Ttbr0El3 TcrEl3 VttbrEl2 VtcrEl2
    MairEl1 MairEl2 MairEl3
    EsrEl1 EsrEl2 EsrEl3 FarEl1 FarEl2 FarEl3 HpfarEl2
    VbarEl1 VbarEl2 VbarEl3 ElrEl1 ElrEl2 ElrEl3 SpsrEl1 SpsrEl2 SpsrEl3
    ContextidrEl1 ContextidrEl2 ParEl1 CsselrEl1
    CntkctlEl1 CnthctlEl2 CntfrqEl0
    MdscrEl1 MdcrEl2 MdcrEl3 MdccintEl1 OslarEl1 OsdlrEl1 OseccrEl1 Osdtrrx Osdtrtx DbgprcrEl1 DbgclaimEl1
    PmuserenrEl0
    ImpCpuactlr ImpCpuectlr ImpL2ectlr ImpL2actlr
}

impl Reg {
    /// The register of the exception level 1–3 in a family whose members follow each other.
    pub const fn of_el(self, el: u32) -> usize {
        let first = self as usize;
        first
            + (if el > 3 {
                2
            } else if el == 0 {
                0
            } else {
                el as usize - 1
            })
    }
}

/// The EL1 members of families stored for EL1, EL2, EL3 in a row.
pub mod family {
    use super::Reg;
    pub const SCTLR: Reg = Reg::SctlrEl1;
    pub const MAIR: Reg = Reg::MairEl1;
    pub const ESR: Reg = Reg::EsrEl1;
    pub const FAR: Reg = Reg::FarEl1;
    pub const VBAR: Reg = Reg::VbarEl1;
    pub const ELR: Reg = Reg::ElrEl1;
    pub const SPSR: Reg = Reg::SpsrEl1;
}
