//! The distributor (IHI 0048B section 4.3).

use super::super::banks::{self, Bank, View};
use super::super::irqs::{GROUP0, GROUP1_NS};
use super::GicV2;
use super::spec::{GICD, GICD_IIDR, GICD_SIZE, Gicd, identification};
use rhea_device::{log_guest_error, log_unimp};
use rhea_memory::{Access, BusError, MmioDevice};
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub(super) struct Distributor(pub Arc<GicV2>);

impl MmioDevice for Distributor {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        let gic = &*self.0;
        let (cpu, view) = (gic.cpu_of(access), gic.view(access));
        GICD.read(
            offset & (GICD_SIZE - 1),
            access.size,
            |hit| Ok(gic.gicd_read(cpu, hit.id, hit.index, view).into()),
            |at| log_unimp!(gic.config.log, "gicv2", "read of GICD offset {at:#x}"),
        )
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        let gic = &*self.0;
        let (cpu, view) = (gic.cpu_of(access), gic.view(access));
        GICD.write(
            offset & (GICD_SIZE - 1),
            access.size,
            value,
            |hit, value, mask| {
                gic.gicd_write(cpu, hit.id, hit.index, value as u32, mask as u32, view);
                Ok(())
            },
            |at| log_guest_error!(gic.config.log, "gicv2", "write of GICD offset {at:#x}"),
        )
    }
    fn name(&self) -> &str {
        "gicv2-dist"
    }
}

/// Word and index in the word of an element of a bank.
fn element(bank: Bank, index: u32) -> (u32, u32) {
    match bank {
        Bank::Priority => (index / 32, index % 32),
        Bank::Config | Bank::NonSecureAccess => (index / 2, index % 2),
        _ => (index, 0),
    }
}

impl GicV2 {
    fn gicd_read(&self, cpu: usize, reg: Gicd, index: u32, view: View) -> u32 {
        match reg {
            Gicd::Ctlr if view.full => self.ctlr.load(Ordering::Acquire).into(),
            Gicd::Ctlr => (self.ctlr.load(Ordering::Acquire) >> 1).into(),
            Gicd::Typer => {
                self.engine.words_end() - 1 | (self.cpus() as u32 - 1) << 5 | u32::from(self.config.security) << 10
            }
            Gicd::Iidr => GICD_IIDR as u32,
            Gicd::Id => identification(index) as u32,
            Gicd::Bank(bank) => match element(bank, index) {
                (0, index) => self.engine.peek_cpu(cpu, |core| banks::read(&core.private, bank, index, view)),
                (word, index) => self.engine.peek_word(word, |spis| banks::read(&spis.irqs, bank, index, view)),
            }
            .unwrap_or(0),
            // With one processor there is nothing to target.
            Gicd::Itargetsr if self.cpus() == 1 => 0,
            Gicd::Itargetsr if index < 32 => 1 << cpu,
            Gicd::Itargetsr => {
                let bit = index % 32;
                let read = |spis: &super::super::irqs::SpiWord| {
                    if view.visible(&spis.irqs) >> bit & 1 != 0 { spis.route[bit as usize] as u32 } else { 0 }
                };
                self.engine.peek_word(index / 32, read).unwrap_or(0)
            }
            Gicd::Cpendsgir | Gicd::Spendsgir => {
                let read = |core: &super::super::engine::CpuCore<super::CpuIface>| {
                    let seen = view.visible(&core.private) >> (index & 15) & 1 != 0;
                    if seen { core.iface.sgi_sources[index as usize & 15].into() } else { 0 }
                };
                self.engine.peek_cpu(cpu, read).unwrap_or(0)
            }
            Gicd::Sgir => 0,
        }
    }

    fn gicd_write(&self, cpu: usize, reg: Gicd, index: u32, value: u32, mask: u32, view: View) {
        match reg {
            Gicd::Ctlr if mask & 0xff != 0 => {
                let update = |old: u8| Some(if view.full { value as u8 & 3 } else { old & 1 | (value as u8 & 1) << 1 });
                let _ = self.ctlr.fetch_update(Ordering::AcqRel, Ordering::Acquire, update);
                self.apply_ctlr();
            }
            Gicd::Bank(bank) => match element(bank, index) {
                (0, index) => {
                    // Of SGIs the enables, the pending bits (see SPENDSGIR) and the trigger are read-only.
                    let value = match bank {
                        Bank::SetEnable | Bank::ClearEnable | Bank::SetPending | Bank::ClearPending => value & !0xffff,
                        _ => value,
                    };
                    if !(bank == Bank::Config && index == 0) {
                        self.engine
                            .with_cpu(cpu, |core| banks::write(&mut core.private, bank, index, value, mask, view));
                    }
                }
                (word, index) => {
                    let exists =
                        if word == 31 && !matches!(bank, Bank::Priority | Bank::Config) { 0x0fff_ffff } else { !0 };
                    self.engine
                        .with_word(word, |spis| banks::write(&mut spis.irqs, bank, index, value & exists, mask, view));
                }
            },
            Gicd::Itargetsr if index >= 32 && self.engine.is_spi(index) && self.cpus() > 1 => {
                let bit = (index % 32) as usize;
                let existing = (1u64 << self.cpus()) - 1;
                self.engine.with_word(index / 32, |spis| {
                    if view.visible(&spis.irqs) >> bit & 1 == 0 {
                        return 0;
                    }
                    spis.route[bit] = u64::from(value) & existing;
                    spis.target[bit] = self.place_of(spis.route[bit]);
                    1 << bit
                });
            }
            Gicd::Sgir if mask & 0xff00_0000 != 0 => self.send_sgi(cpu, value, view),
            Gicd::Cpendsgir | Gicd::Spendsgir => {
                let intid = index & 15;
                self.engine.with_cpu(cpu, |core| {
                    if view.visible(&core.private) >> intid & 1 == 0 {
                        return;
                    }
                    let sources = &mut core.iface.sgi_sources[intid as usize];
                    *sources = if reg == Gicd::Spendsgir { *sources | value as u8 } else { *sources & !(value as u8) };
                    core.private.latch = core.private.latch & !(1 << intid) | u32::from(*sources != 0) << intid;
                });
            }
            _ => {}
        }
    }
    /// Forwards the groups that GICD_CTLR enables.
    pub(super) fn apply_ctlr(&self) {
        let value = self.ctlr.load(Ordering::Acquire);
        self.engine.set_enables((value & 1) << GROUP0 | (value >> 1 & 1) << GROUP1_NS);
    }

    fn send_sgi(&self, cpu: usize, value: u32, view: View) {
        let intid = value & 15;
        let list = match value >> 24 & 3 {
            0 => value >> 16 & 0xff,
            1 => !(1 << cpu),
            2 => 1 << cpu,
            _ => {
                log_guest_error!(self.config.log, "gicv2", "GICD_SGIR with a reserved target filter");
                return;
            }
        };
        let (security, nonsecure) = (self.config.security, value & 1 << 15 != 0);
        for target in (0..self.cpus()).filter(|n| list >> n & 1 != 0) {
            self.engine.with_cpu(target, |core| {
                let group1 = core.private.group_of(intid) != GROUP0;
                let forwarded = match (security, view.full) {
                    (false, _) => true,
                    (true, true) => group1 == nonsecure,
                    (true, false) => group1,
                };
                if forwarded {
                    core.iface.sgi_sources[intid as usize] |= 1 << cpu;
                    core.private.latch |= 1 << intid;
                }
            });
        }
    }
}
