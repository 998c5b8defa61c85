//! ICH_* for a hypervisor and ICV_* for its guests (IHI 0069 sections 12.3 and 12.4).

use super::super::irqs::SPURIOUS;
use super::super::priority::PRIORITY_BITS;
use super::super::virt::{LIST_REGISTERS, LR_MASK, Physical, VirtualCpu, hcr, vmcr};
use super::sysreg::{IccReg, IccTrap};

/// ICH_VTR_EL2: priority bits, preemption bits, 16 INTID bits, affinity level 3, no direct injection, DIR traps, list registers.
const VTR: u64 = (PRIORITY_BITS as u64 - 1) << 29
    | (PRIORITY_BITS as u64 - 1) << 26
    | 1 << 21
    | 1 << 20
    | 1 << 19
    | (LIST_REGISTERS as u64 - 1);

/// The implemented bits of ICH_HCR_EL2.
const HCR_MASK: u32 = 0xff | hcr::TC | hcr::TALL0 | hcr::TALL1 | hcr::TDIR | hcr::EOICOUNT;

/// Reads an ICH register.
pub fn read_ich(v: &VirtualCpu, reg: IccReg) -> Result<u64, IccTrap> {
    Ok(match reg {
        IccReg::IchAp(g, 0) => v.apr[usize::from(g & 1)].into(),
        IccReg::IchHcr => v.hcr.into(),
        IccReg::IchVtr => VTR,
        IccReg::IchMisr => v.misr().into(),
        IccReg::IchEisr => v.eisr().into(),
        IccReg::IchElrsr => v.elrsr().into(),
        IccReg::IchVmcr => v.vmcr().into(),
        IccReg::IchLr(n) => *v.lr.get(usize::from(n)).ok_or(IccTrap::Undefined)?,
        _ => return Err(IccTrap::Undefined),
    })
}

/// Writes an ICH register.
pub fn write_ich(v: &mut VirtualCpu, reg: IccReg, value: u64) -> Result<(), IccTrap> {
    match reg {
        IccReg::IchAp(g, 0) => v.apr[usize::from(g & 1)] = value as u32,
        IccReg::IchHcr => v.hcr = value as u32 & HCR_MASK,
        // With system registers VFIQEn is one and VAckCtl zero.
        IccReg::IchVmcr => v.set_vmcr(value as u32 & !vmcr::ACKCTL | vmcr::FIQEN),
        IccReg::IchLr(n) => *v.lr.get_mut(usize::from(n)).ok_or(IccTrap::Undefined)? = value & LR_MASK,
        _ => return Err(IccTrap::Undefined),
    }
    Ok(())
}

/// Reads an ICC register at EL1 that HCR_EL2 redirects to the virtual interface.
pub fn read_icv(v: &mut VirtualCpu, reg: IccReg) -> Result<u64, IccTrap> {
    Ok(match reg {
        IccReg::Pmr => v.pmr().into(),
        IccReg::Rpr => v.running_priority().into(),
        IccReg::Iar(g) => v.acknowledge(Some(usize::from(g))).into(),
        IccReg::Hppir(g) => {
            v.pending().filter(|(_, of)| *of == usize::from(g)).map_or(SPURIOUS, |(intid, _)| intid).into()
        }
        IccReg::Bpr(g) => v.bpr(usize::from(g)).into(),
        IccReg::Ap(g, 0) => v.apr[usize::from(g & 1)].into(),
        IccReg::Ctlr => {
            (u64::from(PRIORITY_BITS) - 1) << 8
                | 1 << 15
                | u64::from(v.vmcr_bit(vmcr::CBPR))
                | u64::from(v.vmcr_bit(vmcr::EOIM)) << 1
        }
        IccReg::Igrpen(0) => v.vmcr_bit(vmcr::ENG0).into(),
        IccReg::Igrpen(_) => v.vmcr_bit(vmcr::ENG1).into(),
        _ => return Err(IccTrap::Undefined),
    })
}

/// Writes an ICC register at EL1 that HCR_EL2 redirects to the virtual interface. Answers what is to be deactivated physically.
pub fn write_icv(v: &mut VirtualCpu, reg: IccReg, value: u64) -> Result<Physical, IccTrap> {
    match reg {
        IccReg::Pmr => v.set_pmr(value as u8),
        IccReg::Eoir(g) => return Ok(v.end(value as u32 & 0x00ff_ffff, Some(usize::from(g)))),
        IccReg::Dir if v.vmcr_bit(vmcr::EOIM) => return Ok(v.deactivate(value as u32 & 0x00ff_ffff)),
        IccReg::Dir => {}
        IccReg::Bpr(g) => v.set_bpr(usize::from(g), value as u8),
        IccReg::Ap(g, 0) => v.apr[usize::from(g & 1)] = value as u32,
        IccReg::Ctlr => {
            v.set_vmcr_bit(vmcr::CBPR, value & 1 != 0);
            v.set_vmcr_bit(vmcr::EOIM, value & 2 != 0);
        }
        IccReg::Igrpen(0) => v.set_vmcr_bit(vmcr::ENG0, value & 1 != 0),
        IccReg::Igrpen(_) => v.set_vmcr_bit(vmcr::ENG1, value & 1 != 0),
        _ => return Err(IccTrap::Undefined),
    }
    Ok(None)
}
