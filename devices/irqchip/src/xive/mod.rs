//! The PAPR XIVE exploitation mode (LoPAPR 14.5.4.8; the External Interrupt Virtualization Engine of POWER9 and later): event state
//! buffers of the sources, event assignment, event queues in guest memory, and the thread interrupt management area, reached by loads
//! and stores and configured by hypercalls. Queues have event state buffers for escalation, but no hypercall gives escalations a target.
//!
//! # Locks
//! P and Q bits of a source with what else it has pending, its event assignment, and the OS ring of a processor are an atomic word
//! each. An event queue has a short lock, held while an entry is written to guest RAM. An event carries the number of the time
//! in use ("epoch") in which it began: it ends if the controller was given up meanwhile, which has carried its source's P bit.

mod end;
mod hcalls;
mod source;
mod state;
mod tima;
mod windows;

use crate::EoiListener;
use crate::spapr::pin::ServerPin;
use crate::xics::Handover;
use end::End;
use rhea_accel::spapr::{XiveQueue, XiveTarget};
use rhea_device::Log;
use rhea_memory::AddressSpace;
use source::{Eas, Source, Step};
pub use state::XiveState;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use tima::Context;
pub use windows::{EsbWindow, TimaWindow};

/// Priorities of a server; the last one is the hypervisor's.
pub const PRIORITIES: u8 = 8;
/// The last priority a guest can use.
pub const LAST_PRIORITY: u8 = 6;
/// Sizes of event queues: log2 of bytes.
pub const QUEUE_SIZES: [u32; 4] = [12, 16, 21, 24];
/// Pages of the thread interrupt management area: hardware, hypervisor, OS, user.
pub const TIMA_PAGES: u64 = 4;
/// log2 of the size of such a page.
pub const TIMA_PAGE_SHIFT: u32 = 16;
const DRIVER: u8 = 1;

/// Where the pages of a [`Xive`] are in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XivePlaces {
    /// Event state buffers: sources first, event queues behind.
    pub esb: u64,
    /// Thread interrupt management area.
    pub tima: u64,
    /// log2 of the size of an event state buffer's page: 12 or 16. Each has two, the second for management.
    pub page_shift: u32,
}

impl Default for XivePlaces {
    fn default() -> Self {
        Self { esb: 0x0006_0100_0000_0000, tima: 0x0006_0302_0318_0000, page_shift: 16 }
    }
}

/// What a [`Xive`] is made of.
pub struct XiveConfig {
    /// The inputs of processors by server number.
    pub pins: Vec<Option<Arc<ServerPin>>>,
    /// Server number of each vCPU index.
    pub cpus: Vec<u32>,
    /// Number of sources.
    pub sources: u32,
    pub places: XivePlaces,
    /// Where event queues are.
    pub memory: Arc<AddressSpace>,
    pub handover: Handover,
    /// Told of the end of level interrupts.
    pub resample: EoiListener,
    pub log: Log,
}

/// The controller.
pub struct Xive {
    sources: Vec<Source>,
    contexts: Vec<Option<Context>>,
    /// Event queues: server × 8 + priority.
    ends: Vec<End>,
    cpus: Vec<u32>,
    places: XivePlaces,
    memory: Arc<AddressSpace>,
    handover: Handover,
    resample: EoiListener,
    closed: AtomicBool,
    epoch: AtomicU32,
    log: Log,
}

impl Xive {
    #[must_use]
    pub fn new(config: XiveConfig) -> Arc<Self> {
        let XiveConfig { pins, cpus, sources, places, memory, handover, resample, log } = config;
        let ends = (0..pins.len() * usize::from(PRIORITIES)).map(|_| End::new()).collect();
        Arc::new(Self {
            sources: (0..sources).map(|_| Source::new()).collect(),
            contexts: pins.into_iter().map(|p| p.map(Context::new)).collect(),
            ends,
            cpus,
            places,
            memory,
            handover,
            resample,
            closed: AtomicBool::new(false),
            epoch: AtomicU32::new(0),
            log,
        })
    }
    fn source(&self, lisn: u32) -> Option<&Source> {
        self.sources.get(lisn as usize).filter(|s| s.exists())
    }
    fn context(&self, server: u32) -> Option<&Context> {
        self.contexts.get(server as usize)?.as_ref()
    }
    /// The queue of a priority 0 to 6 of a server that exists.
    fn end(&self, server: u32, priority: u8) -> Option<&End> {
        self.context(server)?;
        if priority > LAST_PRIORITY {
            return None;
        }
        self.ends.get(server as usize * usize::from(PRIORITIES) + usize::from(priority))
    }
    #[must_use]
    pub fn places(&self) -> &XivePlaces {
        &self.places
    }
    #[must_use]
    pub fn has_source(&self, lisn: u32) -> bool {
        self.source(lisn).is_some()
    }
    /// Where the guest has assigned a source to, for a controller in the kernel.
    #[must_use]
    pub fn target(&self, lisn: u32) -> Option<XiveTarget> {
        let Eas { masked, server, priority, data } = self.source(lisn)?.assignment();
        Some(XiveTarget { masked, server, priority: priority.min(LAST_PRIORITY), data })
    }
    /// A queue as the guest has configured it.
    #[must_use]
    pub fn queue(&self, server: u32, priority: u8) -> Option<XiveQueue> {
        let queue = self.end(server, priority)?.get();
        Some(XiveQueue { shift: queue.shift, page: queue.page, toggle: queue.generation.into(), index: queue.index })
    }

    // ---- sources ----

    /// Makes a source exist: off, not assigned.
    pub fn claim(&self, lisn: u32, level: bool) {
        if let Some(s) = self.sources.get(lisn as usize) {
            s.claim(level);
        }
    }
    pub fn free(&self, lisn: u32) {
        if let Some(s) = self.sources.get(lisn as usize) {
            s.free();
        }
    }
    /// An edge on a message source.
    pub fn trigger(&self, lisn: u32) {
        let Some(s) = self.source(lisn) else { return };
        match s.trigger() {
            Step::Forward(epoch) => self.forward(s, epoch),
            Step::Nothing => (),
            Step::Closed => (self.handover)(lisn),
        }
    }
    /// The level of a level source.
    pub fn set_level(&self, lisn: u32, level: bool) {
        let Some(s) = self.source(lisn) else { return };
        s.set_asserted(level);
        if level {
            self.settle(s);
        }
    }
    /// Delivers a level that is up, and a message carried from another controller, once the source is ready.
    fn settle(&self, s: &Source) {
        if let Step::Forward(epoch) = s.settle() {
            self.forward(s, epoch);
        }
    }
    /// An event of a source: into its queue, and to its server.
    fn forward(&self, s: &Source, epoch: u32) {
        let eas = s.assignment();
        if eas.masked {
            return;
        }
        let Some(end) = self.end(eas.server, eas.priority) else { return };
        match end.push(&self.memory, eas.data, epoch) {
            end::Pushed::Notify => self.present(eas.server, eas.priority),
            end::Pushed::Silent => (),
            end::Pushed::Invalid => {
                self.log.guest_error("xive", format_args!("event for a queue that was not configured"));
            }
        }
    }
    fn present(&self, server: u32, priority: u8) {
        if let Some(context) = self.context(server) {
            context.pend(priority);
            self.drive(context);
        }
    }
    fn drive(&self, context: &Context) {
        context.drive(|| !self.closed.load(SeqCst));
    }
    /// A load or store in the management page of a source; what a load returns.
    fn esb(&self, lisn: u32, offset: u64, store: bool) -> u64 {
        let Some(s) = self.source(lisn) else { return u64::MAX };
        let ended = |forwarded: Step| {
            if s.level() {
                (self.resample)(lisn);
            }
            let epoch = match forwarded {
                Step::Forward(epoch) => Some(epoch),
                _ => None,
            };
            if let Some(epoch) = epoch {
                self.forward(s, epoch);
            } else {
                self.settle(s);
            }
            u64::from(epoch.is_some())
        };
        match (offset & 0xfff, store) {
            // Load EOI, store EOI.
            (0x000..=0x3ff, false) | (0x400..=0x7ff, true) => ended(s.end()),
            (0x000..=0x3ff, true) => {
                self.esb_trigger(lisn);
                0
            }
            (0x800..=0xbff, false) => s.pq(),
            (set @ 0xc00..=0xfff, _) => {
                let pq = set >> 8 & 3;
                let was = s.set_pq(pq);
                if pq == 0 {
                    // How a guest ends message interrupts and turns sources on.
                    if s.level() {
                        (self.resample)(lisn);
                    }
                    self.settle(s);
                }
                was
            }
            _ => {
                self.log.guest_error("xive", format_args!("access of an event state buffer at {:#x}", offset & 0xf00));
                u64::MAX
            }
        }
    }
    /// A store in the trigger page of a source. Level sources have none.
    fn esb_trigger(&self, lisn: u32) {
        if self.source(lisn).is_some_and(|s| !s.level()) {
            self.trigger(lisn);
        }
    }

    // ---- change of controllers, reset ----

    /// Gives up: nothing is presented any more. The message sources that had something pending: sent and not ended, or carried.
    #[must_use]
    pub fn close(&self) -> Vec<u32> {
        self.closed.store(true, SeqCst);
        let pending = (0..).zip(&self.sources).filter(|(_, s)| s.close()).map(|(n, _)| n).collect();
        for context in self.contexts.iter().flatten() {
            self.drive(context);
        }
        pending
    }
    /// Reset state, open. `keep_levels`: levels as they are. `latch`: until the guest first turns a source on its messages are
    /// kept (after a change of controllers).
    pub fn reset(&self, keep_levels: bool, latch: bool) {
        self.reset_configuration(keep_levels, latch);
        self.closed.store(false, SeqCst);
        for context in self.contexts.iter().flatten() {
            context.reset();
            self.drive(context);
        }
    }
    /// Sources off and not assigned, no queues.
    fn reset_configuration(&self, keep_levels: bool, latch: bool) {
        let epoch = self.epoch.fetch_add(1, SeqCst).wrapping_add(1) & source::EPOCH_MASK;
        for end in &self.ends {
            end.reset(epoch);
        }
        for s in &self.sources {
            s.reset(keep_levels, latch, epoch);
        }
    }
    /// H_INT_RESET: what the guest has configured; nothing is pending for queues that are gone.
    fn forget_configuration(&self) {
        self.reset_configuration(true, false);
        for context in self.contexts.iter().flatten() {
            context.forget();
            self.drive(context);
        }
    }
    /// One server alone (a processor is started or plugged).
    pub fn reset_server(&self, server: u32) {
        if let Some(context) = self.context(server) {
            context.reset();
            self.drive(context);
        }
    }
    /// A message that another controller had pending: delivered when the guest has assigned the source and turned it on.
    pub fn import(&self, lisn: u32) {
        if let Some(s) = self.source(lisn).filter(|s| !s.level()) {
            s.carry();
            self.settle(s);
        }
    }

    /// Text for `info pic`.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::from("CPU   NSR CPPR IPB LSMFB ACK# INC AGE PIPR\n");
        for (n, context) in self.contexts.iter().enumerate() {
            if let Some(context) = context {
                text += &format!("{n:4}  {context}\n");
            }
        }
        text += "LISN   type PQ  EISN     CPU/PRIO  state\n";
        for (s, n) in self.sources.iter().zip(0u32..) {
            if s.exists() {
                let Eas { masked, server, priority, data } = s.assignment();
                let to = if masked { "masked".to_owned() } else { format!("{server:3}/{priority}") };
                text += &format!("{n:#06x} {s} {data:08x} {to}\n");
            }
        }
        for (n, end) in self.ends.iter().enumerate() {
            if let Some(line) = end.describe() {
                text += &format!("END {:3}/{} {line}\n", n / usize::from(PRIORITIES), n % usize::from(PRIORITIES));
            }
        }
        text
    }
}
