//! The distributor's frame.

use super::super::banks::{self, Bank, View};
use super::super::irqs::{GROUP0, GROUP1_NS, GROUP1_S, SPI_END};
use super::GicV3;
use super::spec::{FRAME, GICD, Gicd, ID_BITS, IIDR, ctlr, identification};
use rhea_device::{log_guest_error, log_unimp};
use rhea_memory::{Access, BusError, MmioDevice, Requester};
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub(super) struct Distributor(pub Arc<GicV3>);

/// Implemented bits of GICD_IROUTER.
const IROUTER_MASK: u64 = 0xff_80ff_ffff;

impl MmioDevice for Distributor {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        let (gic, view) = (&*self.0, self.0.view(access));
        GICD.read(
            offset & (FRAME - 1),
            access.size,
            |hit| Ok(gic.gicd_read(hit.id, hit.index, view)),
            |at| log_unimp!(gic.config.log, "gicv3", "read of GICD offset {at:#x}"),
        )
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        let (gic, view) = (&*self.0, self.0.view(access));
        GICD.write(
            offset & (FRAME - 1),
            access.size,
            value,
            |hit, value, mask| {
                gic.gicd_write(hit.id, hit.index, value, mask, view);
                Ok(())
            },
            |at| log_guest_error!(gic.config.log, "gicv3", "write of GICD offset {at:#x}"),
        )
    }
    fn name(&self) -> &str {
        "gicv3-dist"
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

impl GicV3 {
    pub(super) fn view(&self, access: Access) -> View {
        View {
            full: access.secure
                || !self.two_states()
                || matches!(access.requester, Requester::Host | Requester::Debugger),
        }
    }

    fn gicd_read(&self, reg: Gicd, index: u32, view: View) -> u64 {
        match reg {
            Gicd::Ctlr => {
                let value = self.ctlr.load(Ordering::Acquire);
                u64::from(match (self.two_states(), view.full) {
                    (false, _) => value & (ctlr::GRP0 | ctlr::GRP1_NS | ctlr::E1NWF) | ctlr::DS | ctlr::ARE_S,
                    (true, true) => value | ctlr::ARE_S | ctlr::ARE_NS,
                    (true, false) => value & ctlr::GRP1_NS | ctlr::ARE_S,
                })
            }
            Gicd::Typer => {
                let id_bits = if self.lpis() { ID_BITS } else { 10 };
                u64::from(self.engine.words_end() - 1)
                    | u64::from(self.two_states()) << 10
                    | 1 << 16
                    | u64::from(self.lpis()) << 17
                    | u64::from(id_bits - 1) << 19
                    | 1 << 24
            }
            Gicd::Iidr => IIDR,
            Gicd::Id => identification(0x92, index),
            Gicd::Irouter => {
                let (word, bit) = (index / 32, index % 32);
                let route = self.engine.peek_word(word, |spis| {
                    if view.visible(&spis.irqs) >> bit & 1 != 0 { spis.route[bit as usize] } else { 0 }
                });
                route.unwrap_or(0)
            }
            Gicd::Bank(bank) => {
                let (word, index) = element(bank, index);
                self.engine.peek_word(word, |spis| banks::read(&spis.irqs, bank, index, view).into()).unwrap_or(0)
            }
            _ => 0,
        }
    }

    fn gicd_write(&self, reg: Gicd, index: u32, value: u64, mask: u64, view: View) {
        match reg {
            Gicd::Ctlr => self.gicd_write_ctlr(value as u32, mask as u32, view),
            // A message names an SPI; the Secure registers exist with two security states only.
            Gicd::SetspiNsr | Gicd::ClrspiNsr => {
                self.engine
                    .message_spi(value as u32 & 0x3ff, reg == Gicd::SetspiNsr, |group| view.full || group == GROUP1_NS);
            }
            Gicd::SetspiSr | Gicd::ClrspiSr if view.full && self.two_states() => {
                self.engine.message_spi(value as u32 & 0x3ff, reg == Gicd::SetspiSr, |_| true);
            }
            Gicd::Irouter if self.engine.is_spi(index) && index < SPI_END => {
                let bit = (index % 32) as usize;
                self.engine.with_word(index / 32, |spis| {
                    if view.visible(&spis.irqs) >> bit & 1 == 0 {
                        return 0;
                    }
                    let route = (spis.route[bit] & !mask | value & mask) & IROUTER_MASK;
                    spis.route[bit] = route;
                    spis.target[bit] = self.place_of(route);
                    1 << bit
                });
            }
            Gicd::Bank(bank) => {
                let (word, index) = element(bank, index);
                // The last word has no interrupts 1020 to 1023.
                let exists = if word == 31 { 0x0fff_ffff } else { !0 };
                let limit =
                    if matches!(bank, Bank::Priority | Bank::Config | Bank::NonSecureAccess) { !0 } else { exists };
                self.engine.with_word(word, |spis| {
                    banks::write(&mut spis.irqs, bank, index, value as u32 & limit, mask as u32, view)
                });
            }
            _ => {}
        }
    }

    fn gicd_write_ctlr(&self, value: u32, mask: u32, view: View) {
        let two_states = self.two_states();
        let writable = match (two_states, view.full) {
            (false, _) => ctlr::GRP0 | ctlr::GRP1_NS | ctlr::E1NWF,
            (true, true) => ctlr::GRP0 | ctlr::GRP1_NS | ctlr::GRP1_S | ctlr::DS | ctlr::E1NWF,
            (true, false) => ctlr::GRP1_NS,
        } & mask;
        // DS can be set once and then stays.
        let update = |old: u32| Some(old & !writable | value & writable | old & ctlr::DS);
        let old = self.ctlr.fetch_update(Ordering::AcqRel, Ordering::Acquire, update).unwrap_or_else(|old| old);
        let new = self.ctlr.load(Ordering::Acquire);
        if !old & new & ctlr::DS != 0 {
            self.set_two_states(false);
        }
        self.apply_ctlr();
    }
    /// Forwards the groups that GICD_CTLR enables.
    pub(super) fn apply_ctlr(&self) {
        let value = self.ctlr.load(Ordering::Acquire);
        let bit = |field: u32, group: usize| u8::from(value & field != 0) << group;
        self.engine.set_enables(bit(ctlr::GRP0, GROUP0) | bit(ctlr::GRP1_S, GROUP1_S) | bit(ctlr::GRP1_NS, GROUP1_NS));
    }
    fn set_two_states(&self, two: bool) {
        for cpu in 0..self.engine.cpus() {
            self.engine.with_cpu(cpu, |core| {
                core.private.two_states = two;
                core.iface.two_states = two;
            });
        }
        for word in 1..self.engine.words_end() {
            self.engine.with_word(word, |spis| {
                spis.irqs.two_states = two;
                !0
            });
        }
    }
}
