//! Redistributors: their two frames, and LPIs as the ITS and the frames drive them.

use super::super::banks::{self, Bank, View};
use super::GicV3;
use super::lpi::FIRST;
use super::spec::{
    ADDRESS_MASK, CTLR_CES, CTLR_DPG, CTLR_ENABLE_LPIS, GICR, Gicr, IIDR, PENDBASER_MASK, PENDBASER_PTZ,
    PROPBASER_MASK, REDISTRIBUTOR, WAKER_CHILDREN_ASLEEP, WAKER_SLEEP, identification,
};
use rhea_device::{log_guest_error, log_unimp};
use rhea_memory::{Access, BusError, Gpa, MmioDevice, Requester};
use std::sync::Arc;

/// The requester id of table accesses.
pub(super) const REQUESTER: Requester = Requester::Device(0x1_0010);

/// A region of redistributors: those of processors `first` to `first + len - 1`.
pub(super) struct Redistributors {
    pub gic: Arc<GicV3>,
    pub first: usize,
    pub len: usize,
}

impl Redistributors {
    fn cpu(&self, offset: u64) -> Option<usize> {
        let n = usize::try_from(offset / REDISTRIBUTOR).ok().filter(|n| *n < self.len)?;
        Some(self.first + n).filter(|cpu| *cpu < self.gic.cpus())
    }
    /// The last redistributor of the region that exists.
    fn is_last(&self, cpu: usize) -> bool {
        cpu + 1 == (self.first + self.len).min(self.gic.cpus())
    }
}

impl MmioDevice for Redistributors {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        let (gic, view) = (&*self.gic, self.gic.view(access));
        let Some(cpu) = self.cpu(offset) else { return Ok(0) };
        let last = self.is_last(cpu);
        GICR.read(
            offset % REDISTRIBUTOR,
            access.size,
            |hit| Ok(gic.gicr_read(cpu, last, hit.id, hit.index, view)),
            |at| log_unimp!(gic.config.log, "gicv3", "read of GICR offset {at:#x}"),
        )
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        let (gic, view) = (&*self.gic, self.gic.view(access));
        let Some(cpu) = self.cpu(offset) else { return Ok(()) };
        GICR.write(
            offset % REDISTRIBUTOR,
            access.size,
            value,
            |hit, value, mask| {
                gic.gicr_write(cpu, hit.id, hit.index, value, mask, view);
                Ok(())
            },
            |at| log_guest_error!(gic.config.log, "gicv3", "write of GICR offset {at:#x}"),
        )
    }
    fn name(&self) -> &str {
        "gicv3-redist"
    }
}

impl GicV3 {
    fn gicr_read(&self, cpu: usize, last: bool, reg: Gicr, index: u32, view: View) -> u64 {
        let peek = |f: fn(&super::Icc) -> u64| self.engine.peek_cpu(cpu, |core| f(&core.iface)).unwrap_or(0);
        match reg {
            Gicr::Ctlr => peek(|icc| {
                let dpg = (icc.dpg & 1) | (icc.dpg >> 2 & 1) << 1 | (icc.dpg >> 1 & 1) << 2;
                u64::from(icc.lpis.enabled) | u64::from(CTLR_CES) | u64::from(dpg) << 24
            }),
            Gicr::Iidr => IIDR,
            Gicr::Typer => {
                let affinity = self.config.cpus.get(cpu).map_or(0, |c| c.affinity);
                u64::from(affinity) << 32
                    | (cpu as u64 & 0xffff) << 8
                    | 1 << 5
                    | u64::from(last) << 4
                    | u64::from(self.lpis())
            }
            Gicr::Waker if view.full => {
                peek(|icc| if icc.asleep { u64::from(WAKER_SLEEP | WAKER_CHILDREN_ASLEEP) } else { 0 })
            }
            Gicr::Propbaser => peek(|icc| icc.lpis.propbaser),
            Gicr::Pendbaser => peek(|icc| icc.lpis.pendbaser & !PENDBASER_PTZ),
            Gicr::Id => identification(0x93, index),
            Gicr::Bank(bank) => {
                self.engine.peek_cpu(cpu, |core| banks::read(&core.private, bank, index, view).into()).unwrap_or(0)
            }
            _ => 0,
        }
    }

    fn gicr_write(&self, cpu: usize, reg: Gicr, index: u32, value: u64, mask: u64, view: View) {
        match reg {
            Gicr::Ctlr => {
                if mask as u32 & CTLR_DPG != 0 {
                    let bits = (value as u32 >> 24) as u8;
                    self.engine.with_cpu(cpu, |core| {
                        core.iface.dpg = (bits & 1) | (bits >> 1 & 1) << 2 | (bits >> 2 & 1) << 1
                    });
                    self.engine.place_any();
                }
                if mask as u32 & CTLR_ENABLE_LPIS != 0 && self.lpis() {
                    self.enable_lpis(cpu, value as u32 & CTLR_ENABLE_LPIS != 0);
                }
            }
            Gicr::Waker if view.full && mask as u32 & WAKER_SLEEP != 0 => {
                self.engine.with_cpu(cpu, |core| core.iface.asleep = value as u32 & WAKER_SLEEP != 0);
                self.engine.place_any();
            }
            Gicr::Propbaser | Gicr::Pendbaser if self.lpis() => {
                let refused = self.engine.with_cpu(cpu, |core| {
                    let lpis = &mut core.iface.lpis;
                    if lpis.enabled {
                        return true;
                    }
                    if reg == Gicr::Propbaser {
                        lpis.propbaser = (lpis.propbaser & !mask | value & mask) & PROPBASER_MASK;
                    } else {
                        lpis.pendbaser = (lpis.pendbaser & !mask | value & mask) & (PENDBASER_MASK | PENDBASER_PTZ);
                    }
                    false
                });
                if refused == Some(true) {
                    log_guest_error!(self.config.log, "gicv3", "LPI tables moved while LPIs are on");
                }
            }
            Gicr::Setlpir | Gicr::Clrlpir | Gicr::Invlpir | Gicr::Invallr => {
                log_unimp!(self.config.log, "gicv3", "direct LPI register {reg:?} (GICR_TYPER.DirectLPI is 0)");
            }
            Gicr::Bank(bank) => {
                self.engine.with_cpu(cpu, |core| {
                    let private = &mut core.private;
                    // SGIs are edge-triggered for good.
                    if !(bank == Bank::Config && index == 0) {
                        banks::write(private, bank, index, value as u32, mask as u32, view);
                    }
                });
            }
            _ => {}
        }
    }

    /// Reads `len` bytes of a table; what cannot be read counts as zero.
    fn read_table(&self, base: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        if let Some(memory) = &self.config.memory
            && memory.read(Gpa(base), &mut data, REQUESTER).is_err()
        {
            log_guest_error!(self.config.log, "gicv3", "an LPI table is not in memory");
            data.fill(0);
        }
        data
    }
    /// EnableLPIs: the tables are read and written with no lock held.
    fn enable_lpis(&self, cpu: usize, on: bool) {
        let Some((was, props, pend, count)) = self.engine.peek_cpu(cpu, |core| {
            let lpis = &core.iface.lpis;
            (lpis.enabled, lpis.propbaser, lpis.pendbaser, lpis.count() as usize)
        }) else {
            return;
        };
        let pending_base = (pend & ADDRESS_MASK).wrapping_add(u64::from(FIRST / 8));
        if on && !was {
            let config = self.read_table(props & ADDRESS_MASK, count);
            let pending = if pend & PENDBASER_PTZ != 0 { Vec::new() } else { self.read_table(pending_base, count / 8) };
            self.engine.with_cpu(cpu, |core| {
                if !core.iface.lpis.enabled {
                    core.iface.lpis.enable(config, &pending);
                }
            });
        } else if !on && was {
            let pending = self.engine.with_cpu(cpu, |core| core.iface.lpis.disable()).unwrap_or_default();
            if let Some(memory) = &self.config.memory
                && memory.write(Gpa(pending_base), &pending, REQUESTER).is_err()
            {
                log_guest_error!(self.config.log, "gicv3", "the LPI pending table is not in memory");
            }
        }
    }

    /// An LPI becomes pending.
    pub(super) fn lpi_pend(&self, cpu: usize, intid: u32) {
        self.engine.with_cpu(cpu, |core| core.iface.lpis.set_pending(intid));
    }
    /// An LPI is no longer pending; was it?
    pub(super) fn lpi_clear(&self, cpu: usize, intid: u32) -> bool {
        self.engine.with_cpu(cpu, |core| core.iface.lpis.clear_pending(intid)).unwrap_or(false)
    }
    pub(super) fn lpi_move(&self, from: usize, to: usize, intid: u32) {
        if from != to && self.lpi_clear(from, intid) {
            self.lpi_pend(to, intid);
        }
    }
    pub(super) fn lpi_move_all(&self, from: usize, to: usize) {
        if from == to {
            return;
        }
        let moved = self.engine.with_cpu(from, |core| {
            let all = core.iface.lpis.all_pending();
            for intid in &all {
                core.iface.lpis.clear_pending(*intid);
            }
            all
        });
        self.engine.with_cpu(to, |core| {
            for intid in moved.unwrap_or_default() {
                core.iface.lpis.set_pending(intid);
            }
        });
    }
    /// Reads the configuration of an LPI anew.
    pub(super) fn lpi_reload(&self, cpu: usize, intid: u32) {
        let table = self.engine.peek_cpu(cpu, |core| (core.iface.lpis.propbaser, core.iface.lpis.count()));
        if let (Some((props, count)), Some(index)) = (table, intid.checked_sub(FIRST))
            && index < count
        {
            let byte = self.read_table((props & ADDRESS_MASK).wrapping_add(u64::from(index)), 1);
            self.engine.with_cpu(cpu, |core| core.iface.lpis.configure(intid, byte[0]));
        }
    }
    /// Reads the configuration of all LPIs anew.
    pub(super) fn lpi_reload_all(&self, cpu: usize) {
        let table = self.engine.peek_cpu(cpu, |core| {
            let lpis = &core.iface.lpis;
            lpis.enabled.then(|| (lpis.propbaser, lpis.count() as usize))
        });
        if let Some((props, count)) = table.flatten() {
            let config = self.read_table(props & ADDRESS_MASK, count);
            self.engine.with_cpu(cpu, |core| core.iface.lpis.configure_all(config));
        }
    }
}
