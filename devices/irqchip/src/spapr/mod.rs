//! Interrupts of the pseries machine: one space of interrupt numbers, whose sources are those of XICS or of XIVE, whichever the guest
//! has negotiated. A device keeps one line, or sends messages to one target, over all changes.
//!
//! # A change of controllers
//! [`SpaprIrq::activate`] marks the change, so that messages wait; the old controller gives up and tells which messages it had
//! pending; the new one is reset and takes them over; then it is the active one. The numbered lines are routed to it by
//! [`InterruptRouting::replace_controller`], which announces the change and carries levels over. A message that was on its way into
//! the old controller is handed to the new one by whoever carried it.

mod kernel;
pub mod numbers;
pub mod papr;
pub(crate) mod pin;
mod rtas;
mod state;
mod tree;

#[cfg(test)]
mod tests;

pub use rhea_accel::spapr::Mode;
pub use tree::Node;

use crate::xics::Xics;
use crate::xive::{self, EsbWindow, TimaWindow, Xive, XiveConfig, XivePlaces};
use numbers::{FIRST, MSI, TOTAL};
use papr::{Answer, Args, Hypercalls, Status, hcall as h};
use parking_lot::Mutex;
use pin::ServerPin;
use rhea_accel::spapr::KernelIrqchip;
use rhea_accel::{InterruptRouting, IrqLine, IrqSink, MsiMessage, MsiTarget, Route};
use rhea_device::Log;
use rhea_memory::{AddressSpace, Gpa, MapError, Mapping};
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use thiserror::Error;

/// What a guest can negotiate (`ic-mode=`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcMode {
    Xics,
    Xive,
    /// Starts on XICS.
    Dual,
}

impl IcMode {
    /// Parses the value of `ic-mode=`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "xics" => Some(Self::Xics),
            "xive" => Some(Self::Xive),
            "dual" => Some(Self::Dual),
            _ => None,
        }
    }
    /// After reset.
    #[must_use]
    pub fn initial(self) -> Mode {
        match self {
            Self::Xics | Self::Dual => Mode::Xics,
            Self::Xive => Mode::Xive,
        }
    }
    #[must_use]
    pub fn offers(self, mode: Mode) -> bool {
        match self {
            Self::Xics => mode == Mode::Xics,
            Self::Xive => mode == Mode::Xive,
            Self::Dual => true,
        }
    }
}

/// Why interrupts cannot be set up.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpaprIrqError {
    #[error("interrupt {0:#x} is not one of {FIRST:#x} to {last:#x}", last = TOTAL - 1)]
    Number(u32),
    #[error("interrupt {0:#x} is in use")]
    InUse(u32),
    #[error("interrupt server {0} is used twice or beyond {max}", max = numbers::MAX_SERVERS - 1)]
    Server(u32),
    #[error("the pages of XIVE cannot be mapped: {0}")]
    Map(MapError),
}

/// One possible processor, in the order of vCPU indices.
pub struct ServerConfig {
    /// Interrupt server number, as in `ibm,ppc-interrupt-server#s`.
    pub server: u32,
    /// Its external interrupt input.
    pub input: IrqLine,
}

/// What a [`SpaprIrq`] is made of.
pub struct SpaprIrqConfig {
    pub name: String,
    pub mode: IcMode,
    /// All processors that can ever be there.
    pub cpus: Vec<ServerConfig>,
    /// Guest memory: event queues, and where XIVE's pages are mapped while it is active.
    pub memory: Arc<AddressSpace>,
    /// The machine's lines; the line of an interrupt has its number.
    pub routing: Arc<InterruptRouting>,
    pub places: XivePlaces,
    /// Controllers in the kernel, which are used where there are any.
    pub kernel: Option<Arc<dyn KernelIrqchip>>,
    pub log: Log,
}

/// The kinds of sources.
const NONE: u8 = 0;
const EDGE: u8 = 1;
const LEVEL: u8 = 2;

const XICS: u8 = 0;
const XIVE: u8 = 1;
/// One controller has given up, the other is not ready.
const CHANGING: u8 = 2;
/// The kernel's.
const KERNEL_XICS: u8 = 3;
const KERNEL_XIVE: u8 = 4;

/// The two controllers, and which is active.
struct Core {
    xics: Xics,
    xive: Arc<Xive>,
    kernel: Option<Arc<dyn KernelIrqchip>>,
    active: AtomicU8,
    /// Kind of each number.
    kinds: Vec<AtomicU8>,
}

impl Core {
    fn kind(&self, irq: u32) -> u8 {
        self.kinds.get(irq as usize).map_or(NONE, |k| k.load(SeqCst))
    }
    /// An edge, to whichever controller is active.
    fn trigger(&self, irq: u32) {
        loop {
            match (self.active.load(SeqCst), &self.kernel) {
                (XICS, _) => return self.xics.trigger(irq),
                (XIVE, _) => return self.xive.trigger(irq),
                (now @ (KERNEL_XICS | KERNEL_XIVE), Some(kernel)) => {
                    // One that was given up meanwhile has taken nothing: the next one gets it.
                    if kernel.set_level(irq, true) || self.active.load(SeqCst) == now {
                        return;
                    }
                }
                // A change takes microseconds.
                _ => std::thread::yield_now(),
            }
        }
    }
    /// The kernel's controllers, while one of them is in use.
    fn active_kernel(&self) -> Option<&Arc<dyn KernelIrqchip>> {
        self.kernel.as_ref().filter(|_| matches!(self.active.load(SeqCst), KERNEL_XICS | KERNEL_XIVE))
    }
    fn set_level(&self, mode: Mode, irq: u32, level: bool) {
        if let Some(kernel) = self.active_kernel() {
            // One that was given up meanwhile needs no level: lines bring theirs to the next.
            kernel.set_level(irq, level);
            return;
        }
        match mode {
            Mode::Xics => self.xics.set_level(irq, level),
            Mode::Xive => self.xive.set_level(irq, level),
        }
    }
}

/// The end of the lines while a controller is active.
struct Sink {
    core: Arc<Core>,
    mode: Mode,
}

impl IrqSink for Sink {
    fn set_level(&self, pin: u32, level: bool) {
        match self.core.kind(pin) {
            EDGE if level => self.core.trigger(pin),
            LEVEL => self.core.set_level(self.mode, pin, level),
            _ => (),
        }
    }
    fn import_level(&self, pin: u32, level: bool) {
        if self.core.kind(pin) == LEVEL {
            self.core.set_level(self.mode, pin, level);
        }
    }
    fn tells_end(&self, pin: u32) -> bool {
        self.core.kind(pin) == LEVEL && self.core.active_kernel().is_none()
    }
}

/// The interrupts of a pseries machine.
pub struct SpaprIrq {
    name: String,
    mode: IcMode,
    core: Arc<Core>,
    routing: Arc<InterruptRouting>,
    servers: u32,
    /// Held while sources come and go and while controllers change, not while interrupts are delivered.
    change: Mutex<()>,
    windows: Vec<Mapping>,
    timebase: Mutex<Option<Arc<dyn Fn() -> u64 + Send + Sync>>>,
    log: Log,
}

impl SpaprIrq {
    /// Both controllers (whatever the mode), the initial one active.
    ///
    /// # Errors
    /// Servers, or where XIVE's pages are to be.
    pub fn new(config: SpaprIrqConfig) -> Result<Arc<Self>, SpaprIrqError> {
        let SpaprIrqConfig { name, mode, cpus, memory, routing, places, kernel, log } = config;
        let servers = cpus.iter().map(|c| c.server).max().map_or(0, |n| n.saturating_add(1));
        if servers > numbers::MAX_SERVERS {
            return Err(SpaprIrqError::Server(servers - 1));
        }
        let mut pins: Vec<Option<Arc<ServerPin>>> = vec![None; servers as usize];
        let numbers: Vec<u32> = cpus.iter().map(|c| c.server).collect();
        for ServerConfig { server, input } in cpus {
            let place = &mut pins[server as usize];
            if place.replace(Arc::new(ServerPin::new(input))).is_some() {
                return Err(SpaprIrqError::Server(server));
            }
        }
        let core = Arc::new_cyclic(|weak: &Weak<Core>| {
            let core = weak.clone();
            let handover: crate::xics::Handover = Arc::new(move |irq| {
                if let Some(core) = core.upgrade() {
                    core.trigger(irq);
                }
            });
            let lines = routing.clone();
            let resample: crate::EoiListener = Arc::new(move |irq| lines.resample(irq));
            Core {
                xics: Xics::new(&pins, FIRST, TOTAL - FIRST, handover.clone(), resample.clone()),
                xive: Xive::new(XiveConfig {
                    pins,
                    cpus: numbers,
                    sources: TOTAL,
                    places,
                    memory: memory.clone(),
                    handover,
                    resample,
                    log: log.clone(),
                }),
                kernel,
                active: AtomicU8::new(CHANGING),
                kinds: (0..TOTAL).map(|_| AtomicU8::new(NONE)).collect(),
            }
        });
        // Interprocessor interrupts of XIVE are sources like others; a guest allots them as it likes.
        for lisn in 0..servers {
            core.xive.claim(lisn, false);
        }
        let esb = EsbWindow::new(&core.xive);
        let windows = vec![
            memory.map_mmio(Gpa(places.esb), esb.size(), esb.clone(), 0).map_err(SpaprIrqError::Map)?,
            memory
                .map_mmio(Gpa(places.tima), TimaWindow::size(), TimaWindow::new(&core.xive), 0)
                .map_err(SpaprIrqError::Map)?,
        ];
        let irq = Arc::new(Self {
            name,
            mode,
            core,
            routing,
            servers,
            change: Mutex::new(()),
            windows,
            timebase: Mutex::new(None),
            log,
        });
        let _ = irq.core.xics.close();
        let _ = irq.core.xive.close();
        irq.open(mode.initial(), false);
        irq.enable_windows();
        Ok(irq)
    }
    /// What H_XIRR_X tells as the time an interrupt was presented: the time base.
    pub fn set_timebase(&self, timebase: impl Fn() -> u64 + Send + Sync + 'static) {
        *self.timebase.lock() = Some(Arc::new(timebase));
    }
    fn enable_windows(&self) {
        // The kernel shows its own pages in their places.
        let on = self.core.active.load(SeqCst) == XIVE;
        for window in &self.windows {
            window.set_enabled(on);
        }
    }
    /// Number of the highest server, plus one.
    #[must_use]
    pub fn servers(&self) -> u32 {
        self.servers
    }
    #[must_use]
    pub fn ic_mode(&self) -> IcMode {
        self.mode
    }
    /// The controller in use.
    #[must_use]
    pub fn mode(&self) -> Mode {
        if matches!(self.core.active.load(SeqCst), XIVE | KERNEL_XIVE) { Mode::Xive } else { Mode::Xics }
    }
    /// The lines.
    #[must_use]
    pub fn routing(&self) -> &Arc<InterruptRouting> {
        &self.routing
    }

    // ---- sources ----

    /// Makes an interrupt exist; its line.
    ///
    /// # Errors
    /// The number is out of range or in use.
    pub fn claim(&self, irq: u32, level: bool) -> Result<IrqLine, SpaprIrqError> {
        let _change = self.change.lock();
        self.claim_locked(irq, level)?;
        Ok(self.routing.line(irq))
    }
    fn claim_locked(&self, irq: u32, level: bool) -> Result<(), SpaprIrqError> {
        if !(FIRST..TOTAL).contains(&irq) {
            return Err(SpaprIrqError::Number(irq));
        }
        let kind = &self.core.kinds[irq as usize];
        if kind.load(SeqCst) != NONE {
            return Err(SpaprIrqError::InUse(irq));
        }
        self.core.xics.claim(irq, level);
        self.core.xive.claim(irq, level);
        if let Some(kernel) = self.core.active_kernel()
            && let Err(e) = kernel.claim(irq, level)
        {
            self.log.guest_error("spapr", format_args!("the kernel has no interrupt {irq:#x}: {e}"));
        }
        kind.store(if level { LEVEL } else { EDGE }, SeqCst);
        self.routing.set_route(irq, Some(self.route(irq, self.mode())));
        Ok(())
    }
    /// Takes an interrupt away.
    pub fn free(&self, irq: u32) {
        let _change = self.change.lock();
        self.free_locked(irq);
    }
    fn free_locked(&self, irq: u32) {
        if let Some(kind) = self.core.kinds.get(irq as usize).filter(|k| k.load(SeqCst) != NONE) {
            kind.store(NONE, SeqCst);
            self.core.xics.free(irq);
            self.core.xive.free(irq);
            if let Some(kernel) = self.core.active_kernel() {
                kernel.free(irq);
            }
            self.routing.set_route(irq, None);
        }
    }
    fn route(&self, irq: u32, mode: Mode) -> Route {
        Route { sink: Arc::new(Sink { core: self.core.clone(), mode }), pin: irq }
    }
    /// Allocates `count` messages in a row, the first a multiple of `align` (a power of two).
    #[must_use]
    pub fn allocate_messages(&self, count: u32, align: u32) -> Option<u32> {
        let _change = self.change.lock();
        let align = align.max(1);
        if count == 0 || count > TOTAL - MSI {
            return None;
        }
        let mut first = MSI.next_multiple_of(align);
        while first + count <= TOTAL {
            match (first..first + count).rfind(|n| self.core.kind(*n) != NONE) {
                None => {
                    // All are free, and in range.
                    let all = (first..first + count).all(|n| self.claim_locked(n, false).is_ok());
                    return all.then_some(first);
                }
                Some(used) => first = (used + 1).next_multiple_of(align),
            }
        }
        None
    }
    /// Gives messages back.
    pub fn free_messages(&self, first: u32, count: u32) {
        let _change = self.change.lock();
        for irq in first..first.saturating_add(count).min(TOTAL) {
            if irq >= MSI {
                self.free_locked(irq);
            }
        }
    }
    /// Makes an edge on a message interrupt.
    pub fn pulse(&self, irq: u32) {
        if self.core.kind(irq) == EDGE {
            self.core.trigger(irq);
        }
    }
    /// A processor is started, plugged or reset: its presentation controllers are as after a reset.
    pub fn reset_server(&self, server: u32) {
        self.core.xics.reset_server(server);
        self.core.xive.reset_server(server);
        if let Some(kernel) = self.core.active_kernel() {
            kernel.reset_server(server);
        }
    }

    // ---- change of controllers ----

    /// Makes `mode` the active controller, reset, with levels and pending messages carried over; at the end of negotiation, or when
    /// the guest starts again. Not to be called with an interrupt being handled by the guest. False: the machine does not have it.
    pub fn activate(&self, mode: Mode) -> bool {
        if !self.mode.offers(mode) {
            return false;
        }
        if self.mode() != mode {
            self.change(mode, true);
        }
        true
    }
    fn change(&self, mode: Mode, carry: bool) {
        {
            let _change = self.change.lock();
            let old = self.core.active.swap(CHANGING, SeqCst);
            let pending = match (old, &self.core.kernel) {
                (XIVE, _) => self.core.xive.close(),
                (KERNEL_XICS | KERNEL_XIVE, Some(kernel)) => kernel.close(carry),
                _ => self.core.xics.close(),
            };
            let new = self.prepare(mode, carry);
            if carry {
                for irq in pending {
                    match (new, &self.core.kernel) {
                        (XICS, _) => self.core.xics.import(irq),
                        (XIVE, _) => self.core.xive.import(irq),
                        (_, Some(kernel)) => drop(kernel.set_level(irq, true)),
                        _ => {}
                    }
                }
            }
            self.core.active.store(new, SeqCst);
        }
        self.enable_windows();
        self.log.line(
            rhea_device::LogMask::Irqchip,
            format_args!(
                "spapr interrupts: {} is active{}",
                if mode == Mode::Xive { "XIVE" } else { "XICS" },
                if self.core.active_kernel().is_some() { ", in the kernel" } else { "" }
            ),
        );
        // Lines of others stay where they are.
        self.routing.replace_controller(&|irq| match self.core.kind(irq) {
            NONE => self.routing.route(irq),
            _ => Some(self.route(irq, mode)),
        });
    }
    /// Resets and opens a controller, the kernel's if it has one: which is to be active.
    fn prepare(&self, mode: Mode, carry: bool) -> u8 {
        match mode {
            Mode::Xics => self.core.xics.reset(false),
            Mode::Xive => self.core.xive.reset(false, carry),
        }
        let in_kernel = self.core.kernel.as_ref().is_some_and(|kernel| kernel.open(mode, &self.sources(mode)));
        if in_kernel {
            // The machine's own has no part in it but for what the guest configures.
            let _ = match mode {
                Mode::Xics => self.core.xics.close(),
                Mode::Xive => self.core.xive.close(),
            };
        }
        match (mode, in_kernel) {
            (Mode::Xics, false) => XICS,
            (Mode::Xive, false) => XIVE,
            (Mode::Xics, true) => KERNEL_XICS,
            (Mode::Xive, true) => KERNEL_XIVE,
        }
    }
    fn open(&self, mode: Mode, carry: bool) {
        let now = self.prepare(mode, carry);
        self.core.active.store(now, SeqCst);
    }

    // ---- guest ----

    fn xics_hcall(&self, server: u32, number: u64, args: &Args, out: &mut Args) -> Answer {
        let xics = &self.core.xics;
        match number {
            // Only the low byte counts.
            h::H_CPPR => xics.set_cppr(server, args[0] as u8),
            h::H_EOI => xics.eoi(server, args[0] as u32),
            h::H_IPI => {
                let to = u32::try_from(args[0]).map_err(|_| Status::PARAMETER)?;
                xics.set_mfrr(to, args[1] as u8)
            }
            h::H_IPOLL => {
                let of = u32::try_from(args[0]).map_err(|_| Status::PARAMETER)?;
                let (xirr, mfrr) = xics.poll(of)?;
                (out[0], out[1]) = (xirr.into(), mfrr.into());
                Ok(())
            }
            _ => {
                out[0] = xics.accept(server)?.into();
                if number == h::H_XIRR_X {
                    let timebase = self.timebase.lock().clone();
                    out[1] = timebase.map_or(0, |t| t());
                }
                Ok(())
            }
        }
    }

    /// The node of the controller in use, and properties of the root of the tree that belong to it. `phandle` is what devices name as
    /// their interrupt parent.
    #[must_use]
    pub fn tree(&self, phandle: u32) -> (Node, Vec<(String, Vec<u8>)>) {
        match self.mode() {
            Mode::Xics => {
                let node = Node::new("interrupt-controller")
                    .text("device_type", "PowerPC-External-Interrupt-Presentation")
                    .text("compatible", "IBM,ppc-xicp")
                    .empty("interrupt-controller")
                    .cells("ibm,interrupt-server-ranges", &[0, self.servers])
                    .cell("#interrupt-cells", 2)
                    .cell("linux,phandle", phandle)
                    .cell("phandle", phandle);
                (node, Vec::new())
            }
            Mode::Xive => {
                let tima = self.core.xive.places().tima;
                let page = |n: u64| tima + (n << xive::TIMA_PAGE_SHIFT);
                let len = 1 << xive::TIMA_PAGE_SHIFT;
                let node = Node::new(format!("interrupt-controller@{:x}", page(3)))
                    .text("device_type", "power-ivpe")
                    .text("compatible", "ibm,power-ivpe")
                    // User page, OS page.
                    .longs("reg", &[page(3), len, page(2), len])
                    .cells("ibm,xive-eq-sizes", &xive::QUEUE_SIZES)
                    .cells("ibm,xive-lisn-ranges", &[0, self.servers])
                    .empty("interrupt-controller")
                    .cell("#interrupt-cells", 2)
                    .cell("#address-cells", 0)
                    .cell("linux,phandle", phandle)
                    .cell("phandle", phandle);
                // Behind the last usable one they are the hypervisor's, but for the one that masks.
                let reserved = [u32::from(xive::LAST_PRIORITY) + 1, 0xfe - u32::from(xive::LAST_PRIORITY)];
                let bytes = reserved.iter().flat_map(|v| v.to_be_bytes()).collect();
                (node, vec![("ibm,plat-res-int-priorities".to_owned(), bytes)])
            }
        }
    }
    /// Text of `info pic`: the active controller and the state of every source.
    #[must_use]
    pub fn describe(&self) -> String {
        if self.core.active_kernel().is_some() {
            return format!("active: {}, in the kernel\n", if self.mode() == Mode::Xive { "XIVE" } else { "XICS" });
        }
        match self.mode() {
            Mode::Xics => format!("active: XICS\n{}", self.core.xics.describe()),
            Mode::Xive => format!("active: XIVE\n{}", self.core.xive.describe()),
        }
    }
}

impl Hypercalls for SpaprIrq {
    fn hcall(&self, server: u32, number: u64, args: &Args, out: &mut Args) -> Option<Status> {
        match number {
            h::H_CPPR | h::H_EOI | h::H_IPI | h::H_IPOLL | h::H_XIRR | h::H_XIRR_X => {
                if self.mode() != Mode::Xics {
                    return Some(Status::FUNCTION);
                }
                if self.core.active_kernel().is_some() {
                    // They are the kernel's; what it leaves is none of them.
                    return Some(Status::HARDWARE);
                }
                Some(self.xics_hcall(server, number, args, out).err().unwrap_or(Status::SUCCESS))
            }
            h::H_INT_GET_SOURCE_INFO..=h::H_INT_RESET if number.is_multiple_of(4) => {
                if self.mode() != Mode::Xive {
                    return Some(Status::FUNCTION);
                }
                match self.core.active_kernel() {
                    Some(kernel) => self.kernel_hcall(&**kernel, number, args, out),
                    None => self.core.xive.hcall(number, args, out),
                }
            }
            _ => None,
        }
    }
}

impl MsiTarget for SpaprIrq {
    /// The data of a message is the number of the interrupt.
    fn send(&self, message: MsiMessage) {
        if message.data >= MSI {
            self.pulse(message.data);
        }
    }
}
