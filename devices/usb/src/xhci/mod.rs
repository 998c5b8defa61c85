//! The host controller (eXtensible Host Controller Interface 1.2). A device is called with no lock of the controller held: a work
//! item is taken from its ring, the device answers at once or later, and then the events are written.

mod command;
mod event;
mod port;
mod regs;
mod slot;
mod state;
mod transfer;
mod trb;

use crate::{Speed, UsbDevice};
use event::Interrupter;
use parking_lot::{Condvar, Mutex, RwLock};
use port::{Effect, Port};
use rhea_clock::{Timer, VirtualClock};
use rhea_device::{Device, DmaHandle, LoadError, Log, Saved, log_guest_error};
use rhea_pci::{BarKind, ConfigBuilder, Identity, IntxPin, Msi, Msix, PciConfig, PciFunction, PciSlot, PcieType};
use slot::Slot;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use trb::{Ring, Trb, kind};

/// Most ports of each kind, slots and interrupters.
pub const MOST_PORTS: u8 = 15;
pub const MOST_SLOTS: u8 = 64;
pub const MOST_INTERRUPTERS: u8 = 16;
/// Hubs between a device and its root port.
const MOST_TIERS: usize = 5;

const REGISTER_BAR: usize = 0;
const MSIX_BAR: usize = 2;
/// Serial bus release number, frame length adjustment (5.2).
const RELEASE: usize = 0x60;
const FIRST_CAPABILITY: usize = 0x70;

/// Bits of the command register (5.4.1).
const RUN: u32 = 1;
const INTERRUPTS: u32 = 1 << 2;
/// Bits of the status register (5.4.2).
const HOST_SYSTEM_ERROR: u32 = 1 << 2;
const EVENT_INTERRUPT: u32 = 1 << 3;
const PORT_CHANGE: u32 = 1 << 4;

/// Which controller it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XhciModel {
    /// 1b36:000d
    Generic,
    /// µPD720200, 1033:0194
    Nec,
}

/// What a controller can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XhciOptions {
    pub model: XhciModel,
    /// Ports of USB 2 and 3, 1 to [`MOST_PORTS`] each. Those of the same number are one connector.
    pub p2: u8,
    pub p3: u8,
    pub slots: u8,
    pub interrupters: u8,
    pub msi: bool,
    pub msix: bool,
}

impl Default for XhciOptions {
    fn default() -> Self {
        Self {
            model: XhciModel::Generic,
            p2: 4,
            p3: 4,
            slots: MOST_SLOTS,
            interrupters: MOST_INTERRUPTERS,
            msi: false,
            msix: true,
        }
    }
}

/// Why a device cannot be put at a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlaceError {
    /// There is no such port, or none for a device of its speed.
    NoPort,
    InUse,
    /// All ports are in use.
    Full,
    /// There is no hub at the port.
    NoHub,
}

impl std::fmt::Display for PlaceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoPort => "the controller has no such port for this device",
            Self::InUse => "the port is in use",
            Self::Full => "all ports of the controller are in use: give it more with p2= and p3=, or add a usb-hub",
            Self::NoHub => "there is no usb-hub at that port",
        })
    }
}

/// Where a device is.
struct Place {
    /// Root hub port, from 1, and the ports of hubs, four bits each.
    port: u8,
    route: u32,
    speed: Speed,
}

/// What follows from a change of the state when its lock is no longer held.
struct After {
    /// Messages of interrupters to send.
    messages: u32,
    /// Devices whose ports were reset.
    resets: Vec<(usize, Speed)>,
    /// When to look again, in ns; `u64::MAX`: never.
    timer: u64,
}

impl Default for After {
    fn default() -> Self {
        Self { messages: 0, resets: Vec::new(), timer: u64::MAX }
    }
}

/// The state behind the registers.
pub(crate) struct Core {
    name: String,
    log: Log,
    nec: bool,
    command: u32,
    status: u32,
    config: u32,
    notifications: u32,
    /// Device context base addresses.
    contexts: u64,
    commands: Ring,
    commands_run: bool,
    /// Nobody has rung for commands since the reset.
    commands_untouched: bool,
    /// To be stopped after the command that waits.
    commands_stop: bool,
    /// A command that waits for transfers.
    pending: Option<(u64, Trb)>,
    interrupters: Vec<Interrupter>,
    ports: Vec<Port>,
    slots: Vec<Slot>,
    places: Vec<Place>,
    /// Endpoints to look at, by slot.
    todo: Vec<u32>,
    serial: u64,
    /// A reset waits for transfers to end.
    resetting: bool,
    after: After,
}

impl Core {
    fn running(&self) -> bool {
        self.command & RUN != 0
    }
    fn fail(&mut self, what: &str) {
        log_guest_error!(self.log, &self.name, "{what}");
        self.status |= HOST_SYSTEM_ERROR;
        self.command &= !RUN;
    }
    fn post(&mut self, interrupter: usize, event: Trb, interrupt: bool) {
        let n = if interrupter < self.interrupters.len() { interrupter } else { 0 };
        self.interrupters[n].post(event, interrupt);
    }
    /// The device at a root port.
    fn at_root(&self, port: u8) -> Option<(usize, Speed)> {
        let found = self.places.iter().enumerate().find(|(_, p)| p.port == port && p.route == 0);
        found.map(|(n, p)| (n, p.speed))
    }
    /// Controller reset (4.2): power-on state, and the devices are reset too.
    fn reset(&mut self, options: &XhciOptions) {
        let speeds = (1..=options.p3 + options.p2).map(|n| (n, self.at_root(n).map(|(_, s)| s)));
        self.ports = speeds.map(|(n, speed)| Port::new(n <= options.p3, speed)).collect();
        self.interrupters = (0..options.interrupters).map(|_| Interrupter::default()).collect();
        self.slots = (0..=options.slots).map(|_| Slot::default()).collect();
        self.todo = vec![0; self.slots.len()];
        (self.command, self.status, self.config, self.notifications, self.contexts) = (0, 0, 0, 0, 0);
        (self.commands, self.commands_run, self.commands_stop, self.pending) = (Ring::default(), false, false, None);
        self.commands_untouched = true;
        self.after.messages = 0;
        self.after.resets = self.places.iter().enumerate().map(|(n, p)| (n, p.speed)).collect();
    }
    fn port_effect(&mut self, port: u8, effect: Effect) {
        if effect.reset
            && let Some(device) = self.at_root(port)
        {
            self.after.resets.push(device);
        }
        if effect.resumed || effect.reset {
            self.look_at_all();
        }
        if effect.changed {
            self.port_changed(port);
        }
    }
    /// The root port that a slot context means. Firmware exists that counts the ports of each protocol from 1: where it names an
    /// empty port of USB 3, it means that of USB 2 at the same connector.
    fn meant_port(&self, port: u8) -> u8 {
        let usb3 = self.ports.iter().filter(|p| p.is_usb3()).count() as u8;
        let other = port.saturating_add(usb3);
        let empty = |port: u8| self.at_root(port).is_none();
        if (1..=usb3).contains(&port) && empty(port) && !empty(other) { other } else { port }
    }
    /// Tells of a port's change. Of one that happens while nothing runs there is no event: who starts the controller looks
    /// at the ports.
    fn port_changed(&mut self, port: u8) {
        self.status |= PORT_CHANGE;
        if self.running() {
            let control = u32::from(kind::PORT_STATUS_CHANGE) << 10;
            self.post(0, Trb { parameter: u64::from(port) << 24, status: 1 << 24, control }, true);
        }
    }
    /// A device at or below a root port wants attention.
    fn wake_port(&mut self, port: u8) {
        if let Some(p) = self.ports.get_mut(usize::from(port).wrapping_sub(1)) {
            let effect = p.wake();
            self.port_effect(port, effect);
        }
    }
    fn write_port(&mut self, n: usize, register: u64, value: u32) {
        if let Some(p) = self.ports.get_mut(n) {
            let effect = p.write(register, value);
            self.port_effect(n as u8 + 1, effect);
        }
    }
    /// Writes events and finds out which interrupts are to be told.
    fn settle(&mut self, dma: &DmaHandle, now: u64, messages: bool) {
        if dma.enabled() && self.interrupters.iter_mut().try_for_each(|i| i.flush(dma)).is_err() {
            self.fail("an event ring is not in memory");
            self.interrupters.iter_mut().for_each(|i| i.write(0x08, 0));
        }
        for (n, i) in self.interrupters.iter_mut().enumerate() {
            if i.settle(now, &mut self.after.timer) {
                self.status |= EVENT_INTERRUPT;
            }
            if messages && self.command & INTERRUPTS != 0 && i.wants() {
                i.sent();
                self.after.messages |= 1 << (n & 31);
            }
        }
    }
    fn line(&self) -> bool {
        self.command & INTERRUPTS != 0 && self.interrupters.iter().any(Interrupter::wants)
    }
}

/// Everything behind the registers.
pub(crate) struct Controller {
    name: String,
    dma: DmaHandle,
    options: XhciOptions,
    clock: Arc<VirtualClock>,
    core: Mutex<Core>,
    devices: RwLock<Vec<Arc<dyn UsbDevice>>>,
    /// Transfers that devices have.
    inflight: AtomicU32,
    /// For those who wait until there are none.
    waiters: Mutex<()>,
    rest: Condvar,
    paused: AtomicBool,
    timer: OnceLock<Timer>,
    msi: OnceLock<Arc<Msi>>,
    msix: OnceLock<Arc<Msix>>,
    intx: OnceLock<Arc<IntxPin>>,
}

impl Controller {
    fn device(&self, n: usize) -> Option<Arc<dyn UsbDevice>> {
        self.devices.read().get(n).cloned()
    }
    fn leave(&self) {
        if self.inflight.fetch_sub(1, Ordering::AcqRel) == 1 {
            let _wait = self.waiters.lock();
            self.rest.notify_all();
        }
    }
    fn drain(&self) {
        let devices = self.devices.read().clone();
        loop {
            {
                let mut wait = self.waiters.lock();
                while self.inflight.load(Ordering::Acquire) > 0 {
                    self.rest.wait(&mut wait);
                }
            }
            devices.iter().for_each(|d| d.quiesce());
            if self.inflight.load(Ordering::Acquire) == 0 {
                return;
            }
        }
    }
    fn uses_msix(&self) -> Option<&Arc<Msix>> {
        self.msix.get().filter(|m| m.enabled())
    }
    fn uses_msi(&self) -> Option<&Arc<Msi>> {
        self.msi.get().filter(|m| m.enabled())
    }
    /// Changes the state, and then does what follows from it with no lock held.
    fn with<R>(self: &Arc<Self>, change: impl FnOnce(&mut Core) -> R) -> R {
        let messages = self.uses_msix().is_some() || self.uses_msi().is_some();
        let (result, after) = {
            let c = &mut *self.core.lock();
            let result = change(c);
            c.settle(&self.dma, self.clock.now_ns(), messages);
            (result, std::mem::take(&mut c.after))
        };
        for (n, speed) in after.resets {
            if let Some(device) = self.device(n) {
                device.reset(speed);
            }
        }
        for n in (0..32).filter(|n| after.messages >> n & 1 != 0) {
            match (self.uses_msix(), self.uses_msi()) {
                (Some(msix), _) => msix.notify(n),
                (None, Some(msi)) => msi.notify(n),
                (None, None) => {}
            }
        }
        self.update_line();
        if after.timer != u64::MAX
            && let Some(timer) = self.timer.get()
            && timer.deadline().is_none_or(|d| d > after.timer)
        {
            timer.arm(after.timer);
        }
        result
    }
    fn update_line(&self) {
        let Some(pin) = self.intx.get() else { return };
        let level = || self.uses_msix().is_none() && self.uses_msi().is_none() && self.core.lock().line();
        loop {
            let now = level();
            if pin.asserted() != now {
                pin.set(now);
            }
            if now == level() {
                return;
            }
        }
    }
    /// Looks at everything that may have waited.
    fn kick(self: &Arc<Self>) {
        self.with(|c| {
            c.look_at_all();
            c.run_commands(&self.dma);
        });
        self.pump();
    }
    /// The timer: interrupts that were held back, and rings that were left.
    fn later(self: &Arc<Self>) {
        self.with(|c| c.run_commands(&self.dma));
        self.pump();
    }
}

/// The controller as a PCI function.
pub struct Xhci {
    config: PciConfig,
    controller: Arc<Controller>,
}

impl Xhci {
    /// A controller for `slot`; [`rhea_pci::PciBus::attach`] puts it on the bus.
    #[must_use]
    pub fn new(slot: &PciSlot, options: XhciOptions, clock: &Arc<VirtualClock>, log: &Log) -> Arc<Self> {
        let options = XhciOptions {
            p2: options.p2.clamp(1, MOST_PORTS),
            p3: options.p3.clamp(1, MOST_PORTS),
            slots: options.slots.clamp(1, MOST_SLOTS),
            interrupters: options.interrupters.clamp(1, MOST_INTERRUPTERS),
            ..options
        };
        let name = format!("xhci@{slot}");
        let mut core = Core {
            name: name.clone(),
            log: log.clone(),
            nec: options.model == XhciModel::Nec,
            command: 0,
            status: 0,
            config: 0,
            notifications: 0,
            contexts: 0,
            commands: Ring::default(),
            commands_run: false,
            commands_untouched: true,
            commands_stop: false,
            pending: None,
            interrupters: Vec::new(),
            ports: Vec::new(),
            slots: Vec::new(),
            places: Vec::new(),
            todo: Vec::new(),
            serial: 0,
            resetting: false,
            after: After::default(),
        };
        core.reset(&options);
        let controller = Arc::new(Controller {
            name,
            dma: slot.dma().clone(),
            options,
            clock: clock.clone(),
            core: Mutex::new(core),
            devices: RwLock::default(),
            inflight: AtomicU32::new(0),
            waiters: Mutex::new(()),
            rest: Condvar::new(),
            paused: AtomicBool::new(false),
            timer: OnceLock::new(),
            msi: OnceLock::new(),
            msix: OnceLock::new(),
            intx: OnceLock::new(),
        });
        let weak = Arc::downgrade(&controller);
        let timer = clock.timer(move || {
            if let Some(controller) = weak.upgrade() {
                controller.later();
            }
        });
        let (vendor, device, revision) = match options.model {
            XhciModel::Generic => (0x1b36, 0x000d, 1),
            XhciModel::Nec => (0x1033, 0x0194, 3),
        };
        let identity =
            Identity { vendor, device, revision, class: 0x0c_0330, subsystem_vendor: 0x1af4, subsystem: 0x1100 };
        let mut builder = ConfigBuilder::new(identity, slot.clone())
            .register(RELEASE, &[0x30, 0x20], &[0, 0x3f])
            .capabilities_from(FIRST_CAPABILITY)
            .bar(REGISTER_BAR, BarKind::Registers64, regs::SIZE, Arc::new(regs::Bar(controller.clone())));
        let vectors = options.interrupters.next_power_of_two();
        if options.msi {
            builder = builder.msi(vectors.trailing_zeros() as u8);
        }
        if options.msix {
            builder = builder.msix(MSIX_BAR, options.interrupters.into());
        }
        let config = builder.pcie(PcieType::RootComplexIntegratedEndpoint).intx(1).build();
        // Each is set once, here.
        let _ = controller.timer.set(timer);
        if let Some(msi) = config.msi() {
            let _ = controller.msi.set(msi.clone());
        }
        if let Some(msix) = config.msix() {
            let _ = controller.msix.set(msix.clone());
        }
        if let Some(intx) = config.intx() {
            let _ = controller.intx.set(intx.clone());
        }
        Arc::new(Self { config, controller })
    }
    /// Puts a device at a port before the machine runs: `path` is the connector, from 1, then the ports of hubs; without one it is
    /// the first that is free. Returns the path.
    ///
    /// # Errors
    /// [`PlaceError`].
    pub fn attach(&self, path: Option<&[u8]>, device: Arc<dyn UsbDevice>) -> Result<Vec<u8>, PlaceError> {
        let c = &self.controller;
        let connectors = c.options.p2.max(c.options.p3);
        // The root port and speed that a connector offers.
        let offer = |n: u8| {
            let speeds = device.speeds();
            let fast = speeds.iter().copied().find(|s| *s == Speed::Super && n <= c.options.p3);
            let slow = speeds.iter().copied().rev().find(|s| *s != Speed::Super && n <= c.options.p2);
            fast.map(|s| (n, s)).or(slow.map(|s| (c.options.p3 + n, s)))
        };
        let taken = |core: &Core, n: u8| {
            core.at_root(n).is_some_and(|_| n <= c.options.p3) || core.at_root(c.options.p3 + n).is_some()
        };
        let core = &mut *self.controller.core.lock();
        let (path, place) = match path {
            None => {
                let n = (1..=connectors).find(|n| offer(*n).is_some() && !taken(core, *n)).ok_or(PlaceError::Full)?;
                let (port, speed) = offer(n).ok_or(PlaceError::NoPort)?;
                (vec![n], Place { port, route: 0, speed })
            }
            Some([n]) => {
                if *n == 0 || *n > connectors {
                    return Err(PlaceError::NoPort);
                }
                let (port, speed) = offer(*n).ok_or(PlaceError::NoPort)?;
                if taken(core, *n) {
                    return Err(PlaceError::InUse);
                }
                (vec![*n], Place { port, route: 0, speed })
            }
            Some(path @ [n, hubs @ ..]) => {
                let (Some(last), true) = (hubs.last(), hubs.len() <= MOST_TIERS) else {
                    return Err(PlaceError::NoPort);
                };
                let route = |ports: &[u8]| ports.iter().rev().fold(0u32, |r, p| r << 4 | u32::from(p & 15));
                let above = route(&hubs[..hubs.len() - 1]);
                let port = c.options.p3.saturating_add(*n);
                let hub = core.places.iter().position(|p| p.port == port && p.route == above);
                let hub = hub.and_then(|h| c.device(h)).ok_or(PlaceError::NoHub)?;
                let hub = hub.as_hub().ok_or(PlaceError::NoHub)?;
                if !(1..=crate::hub::PORTS).contains(last) || !device.speeds().contains(&Speed::Full) {
                    return Err(PlaceError::NoPort);
                }
                if !hub.is_free(*last) {
                    return Err(PlaceError::InUse);
                }
                hub.connect(*last, device.clone());
                (path.to_vec(), Place { port, route: route(hubs), speed: Speed::Full })
            }
            Some([]) => return Err(PlaceError::NoPort),
        };
        let mut devices = c.devices.write();
        let n = devices.len();
        let weak: Weak<Controller> = Arc::downgrade(c);
        device.attach(Arc::new(move |endpoint| {
            if let Some(controller) = weak.upgrade() {
                controller.wake(n, endpoint);
            }
        }));
        device.reset(place.speed);
        devices.push(device);
        core.places.push(place);
        core.reset(&c.options);
        core.after = After::default();
        Ok(path)
    }
    /// The devices for `info usb`: root hub port, route, speed, name.
    #[must_use]
    pub fn list(&self) -> Vec<(u8, u32, Speed, String)> {
        let places: Vec<_> = self.controller.core.lock().places.iter().map(|p| (p.port, p.route, p.speed)).collect();
        let devices = self.controller.devices.read();
        places.into_iter().zip(devices.iter()).map(|((port, r, s), d)| (port, r, s, d.name().to_owned())).collect()
    }
}

impl PciFunction for Xhci {
    fn config(&self) -> &PciConfig {
        &self.config
    }
    fn config_write(&self, offset: u16, size: u8, value: u32) {
        self.config.write(offset, size, value);
        if (4..8).contains(&offset) {
            self.controller.kick();
        } else {
            // MSI or MSI-X may have been switched.
            self.controller.with(|_| ());
        }
    }
}

impl Device for Xhci {
    fn name(&self) -> &str {
        &self.controller.name
    }
    fn reset(&self) {
        let c = &self.controller;
        let was = c.paused.swap(true, Ordering::SeqCst);
        c.drain();
        if let Some(timer) = c.timer.get() {
            timer.cancel();
        }
        c.with(|core| {
            core.reset(&c.options);
            core.resetting = false;
        });
        self.config.reset();
        c.update_line();
        c.paused.store(was, Ordering::SeqCst);
    }
    fn save(&self) -> Saved {
        let c = &self.controller;
        let was = c.paused.swap(true, Ordering::SeqCst);
        c.drain();
        let saved = state::save(c, self.config.save());
        if !was {
            self.resume();
        }
        saved
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        self.config.load(state::load(&self.controller, saved)?)?;
        self.controller.kick();
        Ok(())
    }
    fn quiesce(&self) {
        self.controller.paused.store(true, Ordering::SeqCst);
        self.controller.drain();
    }
    fn resume(&self) {
        self.controller.paused.store(false, Ordering::SeqCst);
        self.controller.kick();
    }
}
