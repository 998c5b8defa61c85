//! System register accesses: routing, and the registers that touch more than the PE's own state.

use super::super::engine::CpuCore;
use super::super::irqs::{GROUP0, GROUP1_NS, GROUP1_S};
use super::icc::Icc;
use super::sysreg::{Target, route};
use super::{GicV3, IccContext, IccReg, IccTrap, ich};
use rhea_device::log_guest_error;

impl GicV3 {
    fn route(&self, cpu: usize, reg: IccReg, ctx: &IccContext) -> Result<Target, IccTrap> {
        route(reg, ctx, self.levels(), || self.engine.peek_cpu(cpu, |core| core.iface.virt.hcr).unwrap_or(0))
    }

    /// MRS by processor `cpu`.
    ///
    /// # Errors
    /// [`IccTrap`] if the access does not complete.
    pub fn read_sysreg(&self, cpu: usize, reg: IccReg, ctx: IccContext) -> Result<u64, IccTrap> {
        if !reg.readable() {
            return Err(IccTrap::Undefined);
        }
        let target = self.route(cpu, reg, &ctx)?;
        if target == Target::Virtual {
            return match reg {
                // An acknowledge changes the outputs.
                IccReg::Iar(_) => self.engine.with_cpu(cpu, |core| ich::read_icv(&mut core.iface.virt, reg)),
                _ => self.engine.peek_cpu(cpu, |core| ich::read_icv(&mut core.iface.virt.clone(), reg)),
            }
            .unwrap_or(Err(IccTrap::Undefined));
        }
        let enables = self.engine.enables();
        let value = match reg {
            IccReg::Iar(g) => Some(Ok(self.acknowledge(cpu, g != 0, &ctx).into())),
            IccReg::Hppir(g) => {
                self.engine.peek_cpu(cpu, |core| Ok(Icc::highest_pending(core, enables, g != 0, &ctx).into()))
            }
            // Five bits of priority: the others do not exist.
            IccReg::Ap(_, 1..) => None,
            IccReg::IchAp(..)
            | IccReg::IchHcr
            | IccReg::IchVtr
            | IccReg::IchMisr
            | IccReg::IchEisr
            | IccReg::IchElrsr
            | IccReg::IchVmcr
            | IccReg::IchLr(_) => self.engine.peek_cpu(cpu, |core| ich::read_ich(&core.iface.virt, reg)),
            _ => self.engine.peek_cpu(cpu, |core| Ok(core.iface.read(reg, &ctx))),
        };
        value.unwrap_or(Err(IccTrap::Undefined))
    }

    fn acknowledge(&self, cpu: usize, group1: bool, ctx: &IccContext) -> u32 {
        let enables = self.engine.enables();
        self.engine.acknowledge(
            cpu,
            |core| Icc::select(core, enables, group1, ctx),
            |core, intid| Icc::take(core, intid, enables),
        )
    }

    /// MSR by processor `cpu`.
    ///
    /// # Errors
    /// [`IccTrap`] if the access does not complete.
    pub fn write_sysreg(&self, cpu: usize, reg: IccReg, value: u64, ctx: IccContext) -> Result<(), IccTrap> {
        if !reg.writable() {
            return Err(IccTrap::Undefined);
        }
        let target = self.route(cpu, reg, &ctx)?;
        if target == Target::Virtual {
            let done = self.engine.with_cpu(cpu, |core| ich::write_icv(&mut core.iface.virt, reg, value));
            if let Some(intid) = done.unwrap_or(Err(IccTrap::Undefined))? {
                // The hypervisor's list register stands for a Non-secure physical interrupt.
                self.deactivate(cpu, intid, &ctx);
            }
            return Ok(());
        }
        match reg {
            IccReg::Eoir(g) => self.end(cpu, value as u32 & 0x00ff_ffff, g != 0, &ctx),
            IccReg::Dir => {
                let split = self.engine.peek_cpu(cpu, |core| !core.iface.eoi_deactivates(&ctx)).unwrap_or(false);
                if split {
                    self.deactivate(cpu, value as u32 & 0x00ff_ffff, &ctx);
                } else {
                    log_guest_error!(self.config.log, "gicv3", "ICC_DIR_EL1 written with EOImode 0");
                }
            }
            IccReg::Sgi1r | IccReg::Asgi1r | IccReg::Sgi0r => self.send_sgi(cpu, reg, value, &ctx),
            IccReg::Ap(_, 1..) => return Err(IccTrap::Undefined),
            IccReg::Igrpen(_) | IccReg::Igrpen1El3 => {
                self.engine.with_cpu(cpu, |core| core.iface.write(reg, value, &ctx));
                self.engine.place_any();
            }
            IccReg::IchAp(..) | IccReg::IchHcr | IccReg::IchVmcr | IccReg::IchLr(_) => {
                return self
                    .engine
                    .with_cpu(cpu, |core| ich::write_ich(&mut core.iface.virt, reg, value))
                    .unwrap_or(Err(IccTrap::Undefined));
            }
            _ => {
                self.engine.with_cpu(cpu, |core| core.iface.write(reg, value, &ctx));
            }
        }
        Ok(())
    }

    fn end(&self, cpu: usize, intid: u32, group1: bool, ctx: &IccContext) {
        if (1020..=1023).contains(&intid) {
            return;
        }
        let deactivate = self.engine.with_cpu(cpu, |core| {
            if !core.iface.drop_priority(group1, ctx) {
                return false;
            }
            if !core.iface.eoi_deactivates(ctx) {
                return false;
            }
            let group = if group1 { core.iface.group1(ctx) } else { GROUP0 };
            if intid < 32 && core.private.group_of(intid) == group {
                core.private.active &= !(1 << intid);
            }
            intid >= 32
        });
        match deactivate {
            Some(true) => {
                let two_states = self.two_states();
                let group = match (group1, two_states && ctx.bank_secure()) {
                    (false, _) => GROUP0,
                    (true, true) => GROUP1_S,
                    (true, false) => GROUP1_NS,
                };
                self.engine.deactivate(cpu, intid, |g| g == group);
            }
            Some(false) => {}
            None => {}
        }
    }
    fn deactivate(&self, cpu: usize, intid: u32, ctx: &IccContext) {
        let nonsecure_only = self.two_states() && !ctx.secure && ctx.el < 3;
        self.engine.deactivate(cpu, intid, |group| !nonsecure_only || group == GROUP1_NS);
    }

    fn send_sgi(&self, cpu: usize, reg: IccReg, value: u64, ctx: &IccContext) {
        let intid = (value >> 24 & 15) as u32;
        let two_states = self.two_states();
        let secure = two_states && ctx.bank_secure();
        let group = match reg {
            IccReg::Sgi0r if two_states && !secure => return,
            IccReg::Sgi0r => GROUP0,
            IccReg::Sgi1r if secure => GROUP1_S,
            IccReg::Sgi1r => GROUP1_NS,
            // The other security state's group 1; Non-secure software may not reach the Secure one.
            _ if secure => GROUP1_NS,
            _ => return,
        };
        let pend = |core: &mut CpuCore<Icc>| {
            if core.private.group_of(intid) == group {
                core.private.latch |= 1 << intid;
            }
        };
        if value & 1 << 40 != 0 {
            for target in (0..self.engine.cpus()).filter(|n| *n != cpu) {
                self.engine.with_cpu(target, pend);
            }
            return;
        }
        // Range selector 0 only (RSS = 0).
        if value >> 44 & 15 != 0 {
            log_guest_error!(self.config.log, "gicv3", "SGI with a range selector other than 0");
            return;
        }
        let cluster = (value >> 48 & 0xff) << 24 | (value >> 32 & 0xff) << 16 | (value >> 16 & 0xff) << 8;
        let mut list = value & 0xffff;
        while list != 0 {
            let affinity = cluster as u32 | list.trailing_zeros();
            list &= list - 1;
            if let Some(target) = self.by_affinity.get(&affinity) {
                self.engine.with_cpu(usize::from(*target), pend);
            }
        }
    }
}
