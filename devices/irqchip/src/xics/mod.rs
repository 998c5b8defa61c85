//! The PAPR external interrupt option (LoPAPR 6.2 and 14.5.4.7): interrupt sources, and a presentation controller for each interrupt
//! server with CPPR, XIRR and MFRR, reached by hypercalls and RTAS.
//!
//! # Locks
//! There are none. A source is one atomic word, a presentation controller another. A source that its server refuses leaves a note
//! there (REJECTED in its own word, a bit in the server's list) and then looks again whether the server would take it by now;
//! a server that becomes ready takes the notes and tries those sources. Clearing the mark in the source's word decides who of several
//! delivers it.

mod icp;
mod ics;
mod state;

use crate::EoiListener;
use crate::spapr::papr::{Answer, Status};
use crate::spapr::pin::ServerPin;
use icp::{IPI, Icp, Presented};
use ics::{Claim, Source, Triggered};
pub use state::XicsState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::SeqCst};

/// Told of each message that came while the controller was being given up: it is to be delivered to the next one.
pub type Handover = Arc<dyn Fn(u32) + Send + Sync>;

/// Its number among the drivers of a processor's input.
pub(crate) const DRIVER: u8 = 0;
/// Least favoured: masks.
pub const LEAST_FAVOURED: u8 = 0xff;

/// The controller: presentation controllers by server number, sources from `base`.
pub struct Xics {
    servers: Vec<Option<Icp>>,
    base: u32,
    sources: Vec<Source>,
    handover: Handover,
    resample: EoiListener,
    /// Which time the controller is in use; 10 bits.
    epoch: AtomicU16,
}

impl Xics {
    /// Servers are the indices of `outputs` (each the external interrupt input of a processor); sources are `base` to
    /// `base + count - 1`. `resample` is told of the end of level interrupts.
    #[must_use]
    pub fn new(
        outputs: &[Option<Arc<ServerPin>>],
        base: u32,
        count: u32,
        handover: Handover,
        resample: EoiListener,
    ) -> Self {
        Self {
            servers: outputs.iter().map(|o| o.clone().map(|pin| Icp::new(pin, count))).collect(),
            base,
            sources: (0..count).map(|_| Source::new()).collect(),
            handover,
            resample,
            epoch: AtomicU16::new(0),
        }
    }
    fn source(&self, irq: u32) -> Option<&Source> {
        self.sources.get(irq.checked_sub(self.base)? as usize).filter(|s| s.exists())
    }
    fn any_source(&self, irq: u32) -> Option<&Source> {
        self.sources.get(irq.checked_sub(self.base)? as usize)
    }
    fn icp(&self, server: u32) -> Option<&Icp> {
        self.servers.get(server as usize)?.as_ref()
    }
    /// Is there such a server?
    #[must_use]
    pub fn has_server(&self, server: u32) -> bool {
        self.icp(server).is_some()
    }

    // ---- sources ----

    /// Makes a source exist, masked.
    pub fn claim(&self, irq: u32, level: bool) {
        if let Some(s) = self.any_source(irq) {
            s.claim(level);
        }
    }
    pub fn free(&self, irq: u32) {
        if let Some(s) = self.any_source(irq) {
            s.free();
        }
    }
    /// An edge on a message source.
    pub fn trigger(&self, irq: u32) {
        let Some(s) = self.source(irq) else { return };
        match s.trigger() {
            Triggered::Deliver => self.deliver(irq, s),
            Triggered::Kept => (),
            Triggered::Closed => (self.handover)(irq),
        }
    }
    /// The level of a level source.
    pub fn set_level(&self, irq: u32, level: bool) {
        let Some(s) = self.source(irq) else { return };
        s.set_asserted(level);
        if level {
            self.retry(irq, s);
        }
    }
    /// Delivers if there is something to deliver and nobody else does.
    fn retry(&self, irq: u32, s: &Source) {
        if s.take() == Claim::Taken {
            self.deliver(irq, s);
        }
    }
    /// With the right to deliver: presents the interrupt, or leaves it to the server.
    fn deliver(&self, irq: u32, s: &Source) {
        loop {
            let (server, priority, epoch) = s.target();
            let Some(icp) = self.icp(server) else {
                // Its server is gone; it waits for another one.
                s.give_back();
                return;
            };
            match icp.present(irq, priority, epoch) {
                Presented::Yes { displaced } => {
                    icp.drive();
                    if displaced != 0 && displaced != IPI {
                        self.refuse(displaced);
                    }
                    return;
                }
                Presented::No => {
                    if s.give_back() {
                        (self.handover)(irq);
                        return;
                    }
                    icp.wait(irq - self.base);
                    // The server may have become ready, or the source been changed, before the note was there.
                    let (server, priority, _) = s.target();
                    if !self.icp(server).is_some_and(|i| i.accepts(priority)) || s.take() != Claim::Taken {
                        return;
                    }
                }
                Presented::Closed => {
                    // A level is told to the next controller by its line.
                    if !s.level() {
                        (self.handover)(irq);
                    }
                    return;
                }
            }
        }
    }
    /// What a server had presented, and no longer does.
    fn refuse(&self, irq: u32) {
        let Some(s) = self.any_source(irq) else { return };
        if s.give_back() {
            (self.handover)(irq);
            return;
        }
        let (server, priority, _) = s.target();
        if let Some(icp) = self.icp(server) {
            icp.wait(irq - self.base);
            if icp.accepts(priority) {
                self.retry(irq, s);
            }
        }
    }
    fn check_ipi(&self, icp: &Icp) {
        let displaced = icp.check_ipi();
        icp.drive();
        if displaced != 0 && displaced != IPI {
            self.refuse(displaced);
        }
    }
    /// A server may take more than before.
    fn resend(&self, icp: &Icp) {
        self.check_ipi(icp);
        icp.take_waiting(|n| {
            if let Some(s) = self.sources.get(n as usize) {
                self.retry(self.base + n, s);
            }
        });
    }

    // ---- RTAS ----

    /// ibm,set-xive; `Err`: no such source or server.
    pub fn set_xive(&self, irq: u32, server: u32, priority: u8) -> Answer {
        let s = self.source(irq).filter(|_| self.has_server(server)).ok_or(Status::PARAMETER)?;
        s.configure(Some(server), priority, Some(priority));
        self.retry(irq, s);
        Ok(())
    }
    /// ibm,get-xive: server and priority.
    pub fn get_xive(&self, irq: u32) -> Answer<(u32, u8)> {
        let (server, priority, _) = self.source(irq).ok_or(Status::PARAMETER)?.target();
        Ok((server, priority))
    }
    /// ibm,int-off.
    pub fn int_off(&self, irq: u32) -> Answer {
        let s = self.source(irq).ok_or(Status::PARAMETER)?;
        s.mask();
        Ok(())
    }
    /// ibm,int-on.
    pub fn int_on(&self, irq: u32) -> Answer {
        let s = self.source(irq).ok_or(Status::PARAMETER)?;
        s.unmask();
        self.retry(irq, s);
        Ok(())
    }

    // ---- hypercalls ----

    /// H_CPPR.
    pub fn set_cppr(&self, server: u32, cppr: u8) -> Answer {
        let icp = self.icp(server).ok_or(Status::HARDWARE)?;
        let change = icp.set_cppr(cppr);
        icp.drive();
        if change.displaced != 0 && change.displaced != IPI {
            self.refuse(change.displaced);
        }
        if change.ready {
            self.resend(icp);
        }
        Ok(())
    }
    /// H_XIRR: accepts the pending interrupt.
    pub fn accept(&self, server: u32) -> Answer<u32> {
        let icp = self.icp(server).ok_or(Status::HARDWARE)?;
        let xirr = icp.accept();
        icp.drive();
        Ok(xirr)
    }
    /// H_IPOLL: XIRR and MFRR, without effect.
    pub fn poll(&self, server: u32) -> Answer<(u32, u8)> {
        self.icp(server).map(Icp::poll).ok_or(Status::PARAMETER)
    }
    /// H_IPI.
    pub fn set_mfrr(&self, server: u32, mfrr: u8) -> Answer {
        let icp = self.icp(server).ok_or(Status::PARAMETER)?;
        icp.set_mfrr(mfrr);
        self.check_ipi(icp);
        Ok(())
    }
    /// H_EOI.
    pub fn eoi(&self, server: u32, xirr: u32) -> Answer {
        let irq = xirr & 0xff_ffff;
        let known = irq == 0 || irq == IPI || self.source(irq).is_some();
        if let Some(s) = self.source(irq)
            && s.end()
        {
            (self.resample)(irq);
        }
        self.set_cppr(server, (xirr >> 24) as u8)?;
        if let Some(s) = self.source(irq).filter(|s| s.level()) {
            self.retry(irq, s);
        }
        if let Some(icp) = self.icp(server) {
            self.resend(icp);
        }
        if known { Ok(()) } else { Err(Status::PARAMETER) }
    }

    // ---- change of controllers, reset ----

    /// Gives up: nothing is presented any more. The message sources that had something pending.
    #[must_use]
    pub fn close(&self) -> Vec<u32> {
        let mut pending: Vec<u32> =
            self.sources.iter().zip(self.base..).filter(|(s, _)| s.close()).map(|(_, n)| n).collect();
        for icp in self.servers.iter().flatten() {
            let presented = icp.close();
            icp.drive();
            if presented != 0
                && presented != IPI
                && self.any_source(presented).is_some_and(|s| s.exists() && !s.level())
                && !pending.contains(&presented)
            {
                pending.push(presented);
            }
        }
        pending
    }
    /// Reset state, open: servers refuse everything, sources are masked with nothing pending; levels as they are if `keep_levels`.
    pub fn reset(&self, keep_levels: bool) {
        let epoch = (self.epoch.load(SeqCst) + 1) & 0x3ff;
        self.epoch.store(epoch, SeqCst);
        for s in &self.sources {
            s.reset(keep_levels, epoch);
        }
        for icp in self.servers.iter().flatten() {
            icp.reset(Some(epoch));
            icp.drive();
        }
    }
    /// One server alone (a processor is started or plugged).
    pub fn reset_server(&self, server: u32) {
        let Some(icp) = self.icp(server) else { return };
        let presented = icp.reset(None);
        icp.drive();
        if presented != 0 && presented != IPI {
            self.refuse(presented);
        }
    }
    /// A message that another controller had pending: remembered until the guest unmasks the source.
    pub fn import(&self, irq: u32) {
        self.trigger(irq);
    }

    /// Text for `info pic`.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (n, icp) in self.servers.iter().enumerate() {
            if let Some(icp) = icp {
                text += &format!("CPU {n} {icp}\n");
            }
        }
        text += "ICS source: type, server, priority, state\n";
        for (s, n) in self.sources.iter().zip(self.base..) {
            if s.exists() {
                text += &format!("  {n:#06x} {s}\n");
            }
        }
        text
    }
}
