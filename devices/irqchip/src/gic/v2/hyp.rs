//! The Virtualization Extensions: GICH for the hypervisor, GICV for its guest (IHI 0048B chapter 5). The state is that of
//! [`VirtualCpu`]; list registers are converted.

use super::super::irqs::SPURIOUS;
use super::super::priority::PRIORITY_BITS;
use super::super::virt::{LIST_REGISTERS, VirtualCpu, hcr, vmcr};
use super::GicV2;
use super::spec::{GICC, GICC_IIDR, GICH, GICH_SIZE, GICV_SIZE, Gicc, Gich};
use rhea_device::log_guest_error;
use rhea_memory::{Access, AccessRules, BusError, MmioDevice};
use std::sync::Arc;

/// GICH_VTR: priority bits, preemption bits, list registers.
const VTR: u32 = (PRIORITY_BITS - 1) << 29 | (PRIORITY_BITS - 1) << 26 | (LIST_REGISTERS as u32 - 1);
/// GICV_CTLR's fields are at the places of GICH_VMCR's.
const CTLR_MASK: u32 = vmcr::ENG0 | vmcr::ENG1 | vmcr::ACKCTL | vmcr::FIQEN | vmcr::CBPR | vmcr::EOIM;
/// SGIs carry their source processor in bits 10 to 12 of the INTID.
const ID_MASK: u32 = 0x1fff;

/// GICH_LR to the layout of version 3.
fn widen(lr: u32) -> u64 {
    let lr = u64::from(lr);
    let wide = lr & 0x3ff | (lr >> 23 & 0x1f) << 51 | (lr >> 28 & 3) << 62 | (lr >> 30 & 1) << 60 | (lr >> 31) << 61;
    if lr >> 31 != 0 { wide | (lr >> 10 & 0x3ff) << 32 } else { wide | lr & 0x1c00 | (lr >> 19 & 1) << 41 }
}

fn narrow(wide: u64) -> u32 {
    let lr =
        wide & 0x3ff | (wide >> 51 & 0x1f) << 23 | (wide >> 62) << 28 | (wide >> 60 & 1) << 30 | (wide >> 61 & 1) << 31;
    (if wide >> 61 & 1 != 0 { lr | (wide >> 32 & 0x3ff) << 10 } else { lr | wide & 0x1c00 | (wide >> 41 & 1) << 19 })
        as u32
}

fn read_gich(v: &VirtualCpu, reg: Gich, index: u32) -> u32 {
    match reg {
        Gich::Hcr => v.hcr,
        Gich::Vtr => VTR,
        Gich::Vmcr => v.vmcr(),
        Gich::Misr => v.misr(),
        Gich::Eisr if index == 0 => v.eisr(),
        Gich::Elrsr if index == 0 => v.elrsr(),
        Gich::Apr => v.apr[0] | v.apr[1],
        Gich::Lr => v.lr.get(index as usize).map_or(0, |lr| narrow(*lr)),
        _ => 0,
    }
}

fn write_gich(v: &mut VirtualCpu, reg: Gich, index: u32, value: u32) {
    match reg {
        Gich::Hcr => v.hcr = value & (0xff | hcr::EOICOUNT),
        Gich::Vmcr => v.set_vmcr(value),
        // One register holds the priorities of both groups.
        Gich::Apr => v.apr = [value, 0],
        Gich::Lr => {
            if let Some(lr) = v.lr.get_mut(index as usize) {
                *lr = widen(value);
            }
        }
        _ => {}
    }
}

/// The group a read of IAR, AIAR and their HPPIR forms may show: `Err` is the answer if it is none.
fn shown(v: &VirtualCpu, found: Option<(u32, usize)>, alias: bool) -> Result<u32, u32> {
    match found {
        None => Err(SPURIOUS),
        Some((intid, group)) if (group == 1) == alias => Ok(intid & ID_MASK),
        Some((intid, 1)) if v.vmcr_bit(vmcr::ACKCTL) => Ok(intid & ID_MASK),
        Some((_, 1)) => Err(1022),
        Some(_) => Err(SPURIOUS),
    }
}

fn read_gicv(v: &mut VirtualCpu, reg: Gicc, index: u32) -> u32 {
    match reg {
        Gicc::Ctlr => v.vmcr() & CTLR_MASK,
        Gicc::Pmr => v.pmr().into(),
        Gicc::Bpr => v.bpr(0).into(),
        Gicc::Abpr => v.bpr(1).into(),
        Gicc::Iar | Gicc::Aiar => match shown(v, v.candidate(), reg == Gicc::Aiar) {
            Ok(_) => v.acknowledge(None) & ID_MASK,
            Err(special) => special,
        },
        Gicc::Hppir | Gicc::Ahppir => shown(v, v.pending(), reg == Gicc::Ahppir).unwrap_or_else(|special| special),
        Gicc::Rpr => v.running_priority().into(),
        Gicc::Apr if index == 0 => v.apr[0] | v.apr[1],
        Gicc::Iidr => GICC_IIDR as u32,
        _ => 0,
    }
}

/// Answers the physical interrupt to deactivate.
fn write_gicv(v: &mut VirtualCpu, reg: Gicc, index: u32, value: u32) -> Option<u32> {
    match reg {
        Gicc::Ctlr => v.set_vmcr(v.vmcr() & !CTLR_MASK | value & CTLR_MASK),
        Gicc::Pmr => v.set_pmr(value as u8),
        Gicc::Bpr => v.set_bpr(0, value as u8),
        Gicc::Abpr => v.set_bpr(1, value as u8),
        Gicc::Eoir | Gicc::Aeoir => return v.end(value & ID_MASK, None),
        Gicc::Dir if v.vmcr_bit(vmcr::EOIM) => return v.deactivate(value & ID_MASK),
        Gicc::Apr if index == 0 => v.apr = [value, 0],
        _ => {}
    }
    None
}

pub(super) struct ControlFrame(pub Arc<GicV2>);

impl MmioDevice for ControlFrame {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        let (gic, cpu) = (&*self.0, self.0.cpu_of(access));
        let read =
            |reg, index| gic.engine.peek_cpu(cpu, |core| read_gich(&core.iface.virt, reg, index)).unwrap_or(0).into();
        GICH.read(offset & (GICH_SIZE - 1), access.size, |hit| Ok(read(hit.id, hit.index)), |_| ())
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        let (gic, cpu) = (&*self.0, self.0.cpu_of(access));
        GICH.write(
            offset & (GICH_SIZE - 1),
            access.size,
            value,
            |hit, value, _| {
                gic.engine.with_cpu(cpu, |core| write_gich(&mut core.iface.virt, hit.id, hit.index, value as u32));
                Ok(())
            },
            |at| log_guest_error!(gic.config.log, "gicv2", "write of GICH offset {at:#x}"),
        )
    }
    fn rules(&self) -> AccessRules {
        AccessRules::WORD
    }
    fn name(&self) -> &str {
        "gicv2-hyp"
    }
}

pub(super) struct VirtualFrame(pub Arc<GicV2>);

impl MmioDevice for VirtualFrame {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        let (gic, cpu) = (&*self.0, self.0.cpu_of(access));
        let read = |reg, index| {
            gic.engine.with_cpu(cpu, |core| read_gicv(&mut core.iface.virt, reg, index)).unwrap_or(0).into()
        };
        GICC.read(offset & (GICV_SIZE - 1), access.size, |hit| Ok(read(hit.id, hit.index)), |_| ())
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        let (gic, cpu) = (&*self.0, self.0.cpu_of(access));
        GICC.write(
            offset & (GICV_SIZE - 1),
            access.size,
            value,
            |hit, value, _| {
                let done =
                    gic.engine.with_cpu(cpu, |core| write_gicv(&mut core.iface.virt, hit.id, hit.index, value as u32));
                if let Some(intid) = done.flatten() {
                    gic.engine.deactivate(cpu, intid, |_| true);
                }
                Ok(())
            },
            |at| log_guest_error!(gic.config.log, "gicv2", "write of GICV offset {at:#x}"),
        )
    }
    fn rules(&self) -> AccessRules {
        AccessRules::WORD
    }
    fn name(&self) -> &str {
        "gicv2-vcpu"
    }
}

#[cfg(test)]
#[test]
fn list_registers_convert() {
    for lr in [0x9000_6c1b_u32, 0x5280_1403, 0x1288_0022, 0xffff_ffff, 0x6000_0000] {
        // Bits 20 to 22 are reserved; without HW so are 13 to 18.
        let seen = !(7 << 20) & if lr >> 31 != 0 { !0 } else { !(0x3f << 13) };
        assert_eq!(narrow(widen(lr)), lr & seen);
    }
}
