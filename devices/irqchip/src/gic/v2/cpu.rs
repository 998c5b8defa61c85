//! The CPU interface (IHI 0048B section 4.4).

use super::super::banks::View;
use super::super::engine::{CpuCore, CpuInterface, FIQ, IRQ};
use super::super::irqs::{GROUP0, GROUP1_NS, NONE, SPURIOUS, key_intid, key_priority};
use super::super::priority::{
    IDLE, MIN_BPR, PRIORITY_MASK, active_bit, from_nonsecure, group_mask, highest_active, to_nonsecure,
};
use super::super::virt::VirtualCpu;
use super::GicV2;
use super::spec::{GICC, GICC_IIDR, GICC_SIZE, Gicc, ctlr};
use minicbor::{Decode, Encode};
use rhea_device::log_guest_error;
use rhea_memory::{Access, AccessRules, BusError, MmioDevice, Requester};
use std::sync::Arc;

/// A group 1 interrupt is pending where only group 0 may be acknowledged.
const OTHER_GROUP: u32 = 1022;

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CpuRegs {
    #[n(0)]
    pub ctlr: u32,
    #[n(1)]
    pub pmr: u8,
    /// Binary points of groups 0 and 1.
    #[n(2)]
    pub bpr: [u8; 2],
    #[n(3)]
    pub apr: [u32; 2],
}

impl Default for CpuRegs {
    fn default() -> Self {
        Self { ctlr: 0, pmr: 0, bpr: [MIN_BPR, MIN_BPR + 1], apr: [0; 2] }
    }
}

/// The CPU interfaces of a processor and the sources of its pending SGIs.
pub struct CpuIface {
    pub regs: CpuRegs,
    pub virt: VirtualCpu,
    /// For each SGI the processors that sent it and were not answered.
    pub sgi_sources: [u8; 16],
    /// The mask of the maintenance PPI in the private word, 0 without virtualization.
    maintenance: u32,
}

/// 0 or 1 from a group index.
fn number(group: usize) -> usize {
    usize::from(group != GROUP0)
}

impl CpuInterface for CpuIface {
    fn outputs(&self, best: [u32; 3], enables: u8) -> u8 {
        let physical = match self.signalled(best, enables) {
            None => 0,
            Some((_, GROUP0)) if self.regs.ctlr & ctlr::FIQEN != 0 => FIQ,
            Some(_) => IRQ,
        };
        physical | self.virt.outputs()
    }
    fn own_ppis(&self) -> (u32, u32) {
        (self.maintenance, if self.virt.maintenance() { self.maintenance } else { 0 })
    }
    fn still_pending(&self, intid: u32) -> bool {
        self.sgi_sources.get(intid as usize).is_some_and(|s| *s != 0)
    }
}

impl CpuIface {
    pub fn new(maintenance: u32) -> Self {
        Self { regs: CpuRegs::default(), virt: VirtualCpu::new(), sgi_sources: [0; 16], maintenance }
    }
    fn on(&self, field: u32) -> bool {
        self.regs.ctlr & field != 0
    }
    fn mask(&self, group: usize) -> u8 {
        if group == GROUP0 || self.on(ctlr::CBPR) {
            group_mask(self.regs.bpr[0])
        } else {
            group_mask(self.regs.bpr[1].saturating_sub(1))
        }
    }
    pub fn running(&self) -> u8 {
        highest_active(self.regs.apr[0] | self.regs.apr[1])
    }
    fn pending(&self, best: [u32; 3], enables: u8) -> Option<(u32, usize)> {
        let on = |group: usize, field: u32| enables >> group & 1 != 0 && self.on(field);
        let zero = if on(GROUP0, ctlr::GRP0) { best[GROUP0] } else { NONE };
        let one = if on(GROUP1_NS, ctlr::GRP1) { best[GROUP1_NS] } else { NONE };
        match zero.min(one) {
            NONE => None,
            key => Some((key, if key == zero { GROUP0 } else { GROUP1_NS })),
        }
    }
    fn signalled(&self, best: [u32; 3], enables: u8) -> Option<(u32, usize)> {
        let (key, group) = self.pending(best, enables)?;
        let (priority, mask, running) = (key_priority(key), self.mask(group), self.running());
        (priority < self.regs.pmr && (running == IDLE || priority & mask < running & mask)).then_some((key, group))
    }
    /// What IAR (or AIAR) and HPPIR show of an interrupt.
    fn visible(&self, found: Option<(u32, usize)>, alias: bool, view: View) -> Result<u32, u32> {
        match found {
            None => Err(SPURIOUS),
            Some((key, GROUP0)) => {
                if view.full && !alias {
                    Ok(key_intid(key))
                } else {
                    Err(SPURIOUS)
                }
            }
            Some((key, _)) if alias || !view.full || self.on(ctlr::ACKCTL) => Ok(key_intid(key)),
            Some(_) => Err(OTHER_GROUP),
        }
    }
    fn source(&self, intid: u32) -> u32 {
        self.sgi_sources.get(intid as usize).map_or(0, |s| if *s == 0 { 0 } else { s.trailing_zeros() << 10 })
    }
    fn take(core: &mut CpuCore<Self>, intid: u32, enables: u8) -> u32 {
        if let Some((key, group)) = core.iface.signalled(core.best(), enables) {
            let bit = active_bit(key_priority(key) & core.iface.mask(group));
            core.iface.regs.apr[number(group)] |= bit;
        }
        let answer = intid | core.iface.source(intid);
        if let Some(sources) = core.iface.sgi_sources.get_mut(intid as usize) {
            *sources &= sources.wrapping_sub(1);
        }
        answer
    }
    fn splits(&self, view: View, security: bool) -> bool {
        self.on(if security && !view.full { ctlr::EOIMODE_NS } else { ctlr::EOIMODE })
    }
}

pub(super) struct CpuFrame(pub Arc<GicV2>);

impl MmioDevice for CpuFrame {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        let gic = &*self.0;
        let (cpu, view) = (gic.cpu_of(access), gic.view(access));
        // A debugger's look acknowledges nothing.
        let peek = access.requester == Requester::Debugger;
        let reg = |reg| match reg {
            Gicc::Iar if peek => Gicc::Hppir,
            Gicc::Aiar if peek => Gicc::Ahppir,
            other => other,
        };
        GICC.read(
            offset & (GICC_SIZE - 1),
            access.size,
            |hit| Ok(gic.gicc_read(cpu, reg(hit.id), hit.index, view).into()),
            |_| (),
        )
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        let gic = &*self.0;
        let (cpu, view) = (gic.cpu_of(access), gic.view(access));
        GICC.write(
            offset & (GICC_SIZE - 1),
            access.size,
            value,
            |hit, value, _| {
                gic.gicc_write(cpu, hit.id, hit.index, value as u32, view);
                Ok(())
            },
            |at| log_guest_error!(gic.config.log, "gicv2", "write of GICC offset {at:#x}"),
        )
    }
    fn rules(&self) -> AccessRules {
        AccessRules::WORD
    }
    fn name(&self) -> &str {
        "gicv2-cpu"
    }
}

impl GicV2 {
    /// Is the access limited to group 1?
    fn limited(&self, view: View) -> bool {
        self.config.security && !view.full
    }

    fn gicc_read(&self, cpu: usize, reg: Gicc, index: u32, view: View) -> u32 {
        let enables = self.engine.enables();
        let limited = self.limited(view);
        if matches!(reg, Gicc::Iar | Gicc::Aiar) {
            if limited && reg == Gicc::Aiar {
                return 0;
            }
            let alias = reg == Gicc::Aiar;
            return self.engine.acknowledge(
                cpu,
                |core| core.iface.visible(core.iface.signalled(core.best(), enables), alias, view),
                |core, intid| CpuIface::take(core, intid, enables),
            );
        }
        let read = |core: &CpuCore<CpuIface>| {
            let (iface, regs) = (&core.iface, &core.iface.regs);
            let shift = |priority: u8| u32::from(if limited { to_nonsecure(priority) } else { priority });
            match reg {
                Gicc::Ctlr if limited => {
                    regs.ctlr >> 1 & 1
                        | (regs.ctlr & 0b11 << 7) >> 2
                        | if iface.on(ctlr::EOIMODE_NS) { ctlr::EOIMODE } else { 0 }
                }
                Gicc::Ctlr => regs.ctlr,
                Gicc::Pmr => shift(regs.pmr),
                Gicc::Bpr if !limited => regs.bpr[0].into(),
                Gicc::Bpr if iface.on(ctlr::CBPR) => (regs.bpr[0] + 1).min(7).into(),
                Gicc::Bpr => regs.bpr[1].into(),
                Gicc::Abpr if !limited => regs.bpr[1].into(),
                Gicc::Rpr => match iface.running() {
                    IDLE => IDLE.into(),
                    running => shift(running),
                },
                Gicc::Hppir | Gicc::Ahppir if !(limited && reg == Gicc::Ahppir) => {
                    let found = iface.visible(iface.pending(core.best(), enables), reg == Gicc::Ahppir, view);
                    found.map_or_else(|special| special, |intid| intid | iface.source(intid))
                }
                // Non-secure software sees the upper half, from bit 0.
                Gicc::Apr if index == 0 && limited => regs.apr[1] >> 16,
                Gicc::Apr if index == 0 => regs.apr[0],
                Gicc::Nsapr if index == 0 && !limited => regs.apr[1],
                Gicc::Iidr => GICC_IIDR as u32,
                _ => 0,
            }
        };
        self.engine.peek_cpu(cpu, read).unwrap_or(0)
    }

    fn gicc_write(&self, cpu: usize, reg: Gicc, index: u32, value: u32, view: View) {
        let limited = self.limited(view);
        match reg {
            Gicc::Eoir | Gicc::Aeoir => {
                if !(limited && reg == Gicc::Aeoir) {
                    self.end(cpu, value & 0x3ff, reg == Gicc::Aeoir, view);
                }
                return;
            }
            Gicc::Dir => {
                let split =
                    self.engine.peek_cpu(cpu, |core| core.iface.splits(view, self.config.security)).unwrap_or(false);
                if split {
                    self.engine.deactivate(cpu, value & 0x3ff, |group| !limited || group == GROUP1_NS);
                } else {
                    log_guest_error!(self.config.log, "gicv2", "GICC_DIR written with EOImode 0");
                }
                return;
            }
            _ => {}
        }
        self.engine.with_cpu(cpu, |core| {
            let regs = &mut core.iface.regs;
            match reg {
                Gicc::Ctlr if limited => {
                    let bypass = (value & 0b11 << 5) << 2;
                    let eoi = if value & ctlr::EOIMODE != 0 { ctlr::EOIMODE_NS } else { 0 };
                    regs.ctlr =
                        regs.ctlr & !(ctlr::GRP1 | 0b11 << 7 | ctlr::EOIMODE_NS) | (value & 1) << 1 | bypass | eoi;
                }
                Gicc::Ctlr => {
                    let all = ctlr::GRP0
                        | ctlr::GRP1
                        | ctlr::ACKCTL
                        | ctlr::FIQEN
                        | ctlr::CBPR
                        | ctlr::BYPASS
                        | ctlr::EOIMODE;
                    let all = if self.config.security { all | ctlr::EOIMODE_NS } else { all };
                    regs.ctlr = value & all;
                }
                Gicc::Pmr if !limited => regs.pmr = value as u8 & PRIORITY_MASK,
                Gicc::Pmr if regs.pmr & 0x80 != 0 => regs.pmr = from_nonsecure(value as u8) & PRIORITY_MASK,
                Gicc::Bpr if !limited => regs.bpr[0] = (value as u8 & 7).max(MIN_BPR),
                Gicc::Bpr if regs.ctlr & ctlr::CBPR != 0 => {}
                Gicc::Bpr => regs.bpr[1] = (value as u8 & 7).max(MIN_BPR + 1),
                Gicc::Abpr if !limited => regs.bpr[1] = (value as u8 & 7).max(MIN_BPR + 1),
                Gicc::Apr if index == 0 && limited => regs.apr[1] = regs.apr[1] & 0xffff | value << 16,
                Gicc::Apr if index == 0 => regs.apr[0] = value,
                Gicc::Nsapr if index == 0 && !limited => regs.apr[1] = value,
                _ => {}
            }
        });
    }

    fn end(&self, cpu: usize, intid: u32, alias: bool, view: View) {
        if intid >= 1020 {
            return;
        }
        let limited = self.limited(view);
        let deactivate = self.engine.with_cpu(cpu, |core| {
            let iface = &mut core.iface;
            let group = usize::from(highest_active(iface.regs.apr[1]) < highest_active(iface.regs.apr[0]));
            let allowed = match group {
                0 => !limited && !alias,
                _ => limited || alias || iface.on(ctlr::ACKCTL),
            };
            if !allowed || iface.regs.apr[group] == 0 {
                return false;
            }
            iface.regs.apr[group] &= iface.regs.apr[group].wrapping_sub(1);
            !iface.splits(view, self.config.security)
        });
        if deactivate == Some(true) {
            self.engine.deactivate(cpu, intid, |group| !limited || group == GROUP1_NS);
        }
    }
}
