//! An assigned function on the guest's bus.

mod guest;
mod resets;
mod saved;

#[cfg(test)]
mod tests;

use crate::bars::Bar;
use crate::config::{self, COMMAND, Layout, Overrides};
use crate::events::Events;
use crate::interrupts::{Counters, Event, Interrupts, Message, Source, Surroundings, drain, event};
use crate::migration::{Migration, Peers};
use crate::msix::Table;
use crate::sys::{DeviceFile, DeviceInfo, IrqAction, IrqData, MigrationState, RegionInfo, irq, region};
use guest::Guest;
use parking_lot::Mutex;
use rhea_accel::{
    InterruptRouting, IrqFd, IrqLine, MsiMessage, ResampleListener, RoutingEvent, RoutingListener, RoutingSubscription,
    VmControl, VmRequest,
};
use rhea_clock::{Timer, VirtualClock};
use rhea_device::{Device, LoadError, Log, LogMask, Saved};
use rhea_pci::{BarKind, PciConfig, PciFunction, PciSlot};
use std::any::Any;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use thiserror::Error;

/// Why an assigned function cannot be had.
#[derive(Debug, Error)]
pub enum DeviceError {
    #[error("is no PCI function")]
    NotPci,
    #[error("has a header of type {0:#x}: bridges cannot be assigned")]
    Bridge(u8),
    #[error("{what}: {source}")]
    Call { what: &'static str, source: io::Error },
}

/// A device that was opened.
pub struct Opened {
    pub device: Arc<dyn DeviceFile>,
    /// `0000:01:00.0`
    pub name: String,
    /// All functions of the machine that can migrate.
    pub peers: Arc<Peers>,
    /// Descriptors of these groups, if all are this machine's, for a reset of a whole bus.
    pub groups: Groups,
    /// What it is open by, dropped after the device.
    pub keep: Box<dyn Any + Send + Sync>,
}

/// See [`Opened::groups`].
pub type Groups = Box<dyn Fn(&[u32]) -> Option<Vec<RawFd>> + Send + Sync>;

/// What the user chose.
#[derive(Clone, Copy, Debug)]
pub struct Choices {
    pub overrides: Overrides,
    /// Milliseconds until BARs are mapped again after an interrupt; 0: never.
    pub intx_timeout: u64,
    pub no_mmap: bool,
    /// Interrupts are all carried by this process.
    pub no_fast_intx: bool,
    pub no_fast_msi: bool,
    /// The host's expansion ROM is shown.
    pub rom: bool,
}

impl Default for Choices {
    fn default() -> Self {
        Self {
            overrides: Overrides::default(),
            intx_timeout: 1100,
            no_mmap: false,
            no_fast_intx: false,
            no_fast_msi: false,
            rom: true,
        }
    }
}

/// The machine around the function.
#[derive(Clone)]
pub struct Environment {
    pub routing: Arc<InterruptRouting>,
    pub clock: Arc<VirtualClock>,
    pub log: Log,
    pub control: VmControl,
    /// Drops something when no processor uses it any more.
    pub release: Arc<dyn Fn(Box<dyn Any + Send>) + Send + Sync>,
    /// How long the machine waits for a reset, or for the function to be given back.
    pub patience: Duration,
    /// The host wants the function back.
    pub requested: Arc<dyn Fn() + Send + Sync>,
}

/// The function. What it is made of is dropped in the order of the fields.
struct Inner {
    name: String,
    host: String,
    interrupts: OnceLock<Arc<Interrupts>>,
    config: PciConfig,
    layout: Layout,
    bars: Vec<Bar>,
    table: Option<Arc<Table>>,
    subscription: Mutex<Option<RoutingSubscription>>,
    end: Mutex<Option<(u32, Arc<End>)>>,
    timer: OnceLock<Timer>,
    events: OnceLock<Events>,
    /// Errors and requests of the host.
    notices: Mutex<Vec<(u32, Event)>>,
    guest: Mutex<Guest>,
    /// BARs may be shown, as far as interrupts are concerned.
    shown: AtomicBool,
    asleep: AtomicBool,
    /// Nothing is to be done with it any more: it was given up, or the host's kernel does not come back from a call.
    gone: AtomicBool,
    /// The machine, or the function in it, has ended: it does not come back.
    ended: AtomicBool,
    pending: Mutex<resets::Pending>,
    choices: Choices,
    environment: Environment,
    info: DeviceInfo,
    space: RegionInfo,
    groups: Groups,
    /// `None`: it cannot migrate.
    migration: Option<Arc<Migration>>,
    peers: Arc<Peers>,
    /// The machine is at rest, and wants the function to be.
    resting: AtomicBool,
    device: Arc<dyn DeviceFile>,
    _keep: Box<dyn Any + Send + Sync>,
}

/// `vfio-pci`.
pub struct VfioPci(Arc<Inner>);

fn call<T>(what: &'static str, result: io::Result<T>) -> Result<T, DeviceError> {
    result.map_err(|source| DeviceError::Call { what, source })
}

/// The interrupt index, if the function has it.
fn vectors(device: &dyn DeviceFile, index: u32) -> u32 {
    device.irq_info(index).ok().filter(|i| i.eventfd).map_or(0, |i| i.count)
}

impl VfioPci {
    /// The function for `slot`, without interrupts before its first reset.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn new(
        opened: Opened,
        slot: &PciSlot,
        choices: Choices,
        environment: Environment,
    ) -> Result<Arc<Self>, DeviceError> {
        let Opened { device, name: host, peers, groups, keep } = opened;
        let info = call("what the device is", device.info())?;
        if !info.pci {
            return Err(DeviceError::NotPci);
        }
        let name = format!("vfio-pci@{slot}");
        let space = call("its configuration space", device.region_info(region::CONFIG))?;
        let mut bytes = vec![0; (space.size as usize).clamp(256, config::SIZE)];
        for (n, word) in bytes.chunks_exact_mut(4).enumerate() {
            if n * 4 < space.size as usize {
                call("reading its configuration space", device.read(&space, n as u64 * 4, word))?;
            }
        }
        let kind = bytes[0xe] & 0x7f;
        if kind != 0 {
            return Err(DeviceError::Bridge(kind));
        }
        let slot = if choices.rom { with_rom(&*device, slot) } else { slot.clone() };
        let counts = [irq::INTX, irq::MSI, irq::MSIX].map(|index| vectors(&*device, index));
        let (mut builder, layout) = config::build(&bytes, &slot, choices.overrides, counts[1], counts[2], info.reset);
        let table = layout.msix.map(|place| Arc::new(Table::new(place)));
        let mut bars = Vec::new();
        let mut skip = false;
        for index in 0..6 {
            if std::mem::take(&mut skip) {
                continue;
            }
            let Ok(of) = device.region_info(index) else { continue };
            if of.size == 0 {
                continue;
            }
            let flags = bytes[0x10 + index as usize * 4];
            let kind = match (flags & 1, flags & 6, flags & 8) {
                (1, ..) => BarKind::Io,
                (_, 4, 0) => BarKind::Registers64,
                (_, 4, _) => BarKind::Memory64,
                _ => BarKind::Memory32,
            };
            skip = kind.is_wide();
            let size = of.size;
            let no_mmap = choices.no_mmap || kind == BarKind::Io;
            let bar = call("a BAR", Bar::new(&name, &device, of, table.as_ref(), no_mmap))?;
            builder = if kind == BarKind::Io {
                builder.bar(index as usize, kind, size, bar.window.clone())
            } else {
                let prefetchable = flags & 8 != 0;
                builder.space_bar(index as usize, (kind, prefetchable), size, &bar.space, bar.window.clone())
            };
            bars.push(bar);
        }
        if layout.interrupt_pin != 0 && counts[0] > 0 {
            builder = builder.intx(layout.interrupt_pin);
        }
        let has_intx = layout.interrupt_pin != 0 && counts[0] > 0;
        let inner = Arc::new(Inner {
            name,
            host,
            interrupts: OnceLock::new(),
            config: builder.build(),
            layout,
            bars,
            table,
            subscription: Mutex::default(),
            end: Mutex::default(),
            timer: OnceLock::new(),
            events: OnceLock::new(),
            notices: Mutex::default(),
            guest: Mutex::default(),
            shown: AtomicBool::new(true),
            asleep: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            pending: Mutex::default(),
            choices,
            environment,
            info,
            space,
            groups,
            migration: Migration::of(&device).map(Arc::new),
            peers,
            resting: AtomicBool::new(false),
            device,
            _keep: keep,
        });
        if let Some(migration) = &inner.migration {
            inner.peers.add(migration);
        }
        call("waiting for its interrupts", inner.connect(has_intx))?;
        Ok(Arc::new(Self(inner)))
    }
    /// For `info vfio`.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.status()
    }
    /// What can be asked for its status as long as it lives.
    #[must_use]
    pub fn watcher(&self) -> Watcher {
        Watcher(Arc::downgrade(&self.0))
    }
}

/// Asks for a function's status.
#[derive(Clone)]
pub struct Watcher(Weak<Inner>);

impl Watcher {
    /// `None`: the function is gone.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        self.0.upgrade().map(|inner| inner.status())
    }
}

/// What there is to know of a function.
#[derive(Clone, Debug)]
pub struct Status {
    pub name: String,
    /// The function of the host.
    pub host: String,
    pub mode: String,
    /// Line of the pin, and controller's input at which it ends.
    pub route: Option<(u32, u32)>,
    pub tells_end: bool,
    /// Its state in the protocol of migration; `None`: it cannot migrate.
    pub migration: Option<MigrationState>,
    pub shown: bool,
    /// Bytes of BARs that are mapped.
    pub mapped: u64,
    /// Name and number of each counter.
    pub counters: Vec<(&'static str, u64)>,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, host, mode, route, tells_end, migration, shown, mapped, counters } = self;
        let route = route.map_or_else(|| "none".to_owned(), |(line, end)| format!("line {line} to input {end}"));
        writeln!(f, "{name}: host {host}")?;
        writeln!(
            f,
            "  interrupts: {mode}; route: {route}; end known by: {}",
            if *tells_end { "controller" } else { "access" }
        )?;
        writeln!(f, "  BARs: {mapped} bytes mapped, {}", if *shown { "shown" } else { "hidden" })?;
        if let Some(state) = migration {
            writeln!(f, "  migration: {state}")?;
        }
        write!(f, " ")?;
        for (name, value) in counters {
            write!(f, " {name}={value}")?;
        }
        writeln!(f)
    }
}

/// The slot with the host's expansion ROM, if it can be read.
fn with_rom(device: &dyn DeviceFile, slot: &PciSlot) -> PciSlot {
    let Some(of) = device.region_info(region::ROM).ok().filter(|r| r.size > 0 && r.read) else { return slot.clone() };
    let mut image = vec![0; (of.size as usize).min(rhea_pci::ROM_LIMIT)];
    let read = image.chunks_mut(4096).enumerate().all(|(n, part)| device.read(&of, n as u64 * 4096, part).is_ok());
    // One without signature is no ROM.
    let good = read && image.starts_with(&[0x55, 0xaa]);
    if good { slot.clone().with_rom(&image, false).unwrap_or_else(|_| slot.clone()) } else { slot.clone() }
}

impl Inner {
    fn connect(self: &Arc<Self>, has_intx: bool) -> io::Result<()> {
        let weak = Arc::downgrade(self);
        let interrupts = Interrupts::new(self.device.clone(), has_intx, Box::new(Here(weak.clone())));
        let _ = self.interrupts.set(interrupts);
        let (signalled, timed, accessed) = (weak.clone(), weak.clone(), weak.clone());
        let events = Events::new("vfio", move |source| {
            let Some(inner) = signalled.upgrade() else { return false };
            inner.signalled(source);
            true
        })?;
        let _ = self.events.set(events);
        let timer = self.environment.clock.timer(move || {
            if let Some(inner) = timed.upgrade() {
                inner.interrupts().timeout();
            }
        });
        let _ = self.timer.set(timer);
        for bar in &self.bars {
            let accessed = accessed.clone();
            bar.window.on_access(Box::new(move || {
                if let Some(inner) = accessed.upgrade() {
                    inner.interrupts().accessed();
                }
            }));
        }
        if let Some(table) = &self.table {
            let (changed, asked) = (weak.clone(), weak.clone());
            table.connect(
                Box::new(move |n| {
                    if let Some(inner) = changed.upgrade() {
                        inner.vector_changed(n);
                    }
                }),
                Box::new(move |first| asked.upgrade().map_or(0, |inner| inner.interrupts().pending(first))),
            );
        }
        for (index, source) in [(irq::ERR, Source::Error), (irq::REQ, Source::Request)] {
            if vectors(&*self.device, index) == 0 {
                continue;
            }
            let notice = event()?;
            self.device.set_irqs(index, IrqAction::Trigger, 0, IrqData::EventFds(&[Some(notice.as_raw_fd())]))?;
            self.watch(source, &notice)?;
            self.notices.lock().push((index, notice));
        }
        *self.subscription.lock() = Some(self.environment.routing.subscribe(Arc::new(Follower(weak))));
        Ok(())
    }
    fn interrupts(&self) -> &Arc<Interrupts> {
        self.interrupts.get_or_init(|| unreachable!("they are made with the function"))
    }
    fn watch(&self, source: Source, event: &Event) -> io::Result<()> {
        self.events.get().map_or(Ok(()), |e| e.watch(source, event))
    }
    fn trace(&self, text: fmt::Arguments<'_>) {
        let log = &self.environment.log;
        if log.enabled(LogMask::Vfio) {
            log.line(LogMask::Vfio, format_args!("{} ({}): {text}", self.name, self.host));
        }
    }
    fn warn(&self, text: &str) {
        eprintln!("rhea: warning: -device vfio-pci,host={}: {text}", self.host);
    }
    fn signalled(self: &Arc<Self>, source: Source) {
        match source {
            Source::Error | Source::Request => {
                let index = if source == Source::Error { irq::ERR } else { irq::REQ };
                let notice = self.notices.lock().iter().find(|(i, _)| *i == index).map(|(_, e)| e.clone());
                if !notice.as_ref().is_some_and(drain) || self.gone.load(SeqCst) {
                    return;
                }
                if source == Source::Error {
                    let host = &self.host;
                    eprintln!(
                        "rhea: vfio-pci {host}: the device reports an error that is not corrected: the machine stops"
                    );
                    self.environment.control.request(VmRequest::InternalError);
                } else {
                    self.trace(format_args!("the host wants it back"));
                    (self.environment.requested)();
                }
            }
            Source::Intx | Source::Vector(_) => self.interrupts().signalled(source),
        }
    }
    /// Line of the pin, and where it ends.
    fn route(&self) -> Option<(IrqLine, IrqLine)> {
        let line = self.config.intx()?.line()?.clone();
        let end = self.environment.routing.end_of(&line);
        Some((line, end))
    }
    /// Listens for ends of interrupts where the line ends now.
    fn rewire(self: &Arc<Self>) {
        let Some((_, line)) = self.route() else { return };
        let Some(number) = line.number() else { return };
        let mut end = self.end.lock();
        if end.as_ref().is_some_and(|(n, _)| *n == number) {
            return;
        }
        let new = Arc::new(End(Arc::downgrade(self)));
        let listener: Weak<End> = Arc::downgrade(&new);
        line.on_resample(listener);
        *end = Some((number, new));
    }
    fn tells_end(&self) -> bool {
        self.route().is_some_and(|(_, end)| self.environment.routing.tells_end(&end))
    }
    fn show(&self) {
        let shown = self.shown.load(SeqCst) && !self.asleep.load(SeqCst);
        // Not `any`, which would stop at the first.
        let changed = self.bars.iter().filter(|bar| bar.show(shown)).count();
        if changed > 0 {
            Counters::add(&self.interrupts().counters.remaps);
        }
    }
    fn status(&self) -> Status {
        let interrupts = self.interrupts();
        let c = &interrupts.counters;
        let trapped = self.bars.iter().map(|b| b.window.accesses.load(SeqCst)).sum();
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(SeqCst);
        Status {
            name: self.name.clone(),
            host: self.host.clone(),
            mode: interrupts.kind().to_string(),
            route: self.route().and_then(|(line, end)| Some((line.number()?, end.number()?))),
            tells_end: self.tells_end(),
            migration: self.migration.as_ref().map(|m| m.state()),
            shown: self.shown.load(SeqCst) && !self.asleep.load(SeqCst),
            mapped: self.bars.iter().map(Bar::mapped).sum(),
            counters: vec![
                ("intx", read(&c.intx)),
                ("messages", read(&c.messages)),
                ("ends", read(&c.ends)),
                ("transitions", read(&c.transitions)),
                ("joined-fast", read(&c.joined)),
                ("left-fast", read(&c.left)),
                ("remaps", read(&c.remaps)),
                ("accesses", trapped),
                ("failures", read(&c.failures)),
            ],
        }
    }
    fn release_memory(&self) {
        let memory: Vec<_> = self.bars.iter().flat_map(Bar::take).collect();
        if !memory.is_empty() {
            (self.environment.release)(Box::new(memory));
        }
    }
    /// Gives everything of the host back but the device itself, which goes with the last user of this.
    fn release(&self) {
        if self.gone.swap(true, SeqCst) {
            return;
        }
        self.interrupts().give_up();
        for (index, notice) in std::mem::take(&mut *self.notices.lock()) {
            let _ = self.device.set_irqs(index, IrqAction::Trigger, 0, IrqData::None(0));
            if let Some(events) = self.events.get() {
                events.unwatch(&notice);
            }
        }
        drop(self.subscription.lock().take());
        drop(self.end.lock().take());
        if let Some(timer) = self.timer.get() {
            timer.cancel();
        }
        self.release_memory();
        // Nothing it does reaches memory.
        let _ = self.device.write(&self.space, COMMAND as u64, &[0; 2]);
        self.trace(format_args!("released"));
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.release();
        // Of one that was given up in the middle of something.
        self.release_memory();
    }
}

/// What interrupts of a function reach.
struct Here(Weak<Inner>);

impl Surroundings for Here {
    fn set_pin(&self, level: bool) {
        if let Some(pin) = self.0.upgrade().and_then(|inner| inner.config.intx().cloned()) {
            pin.set(level);
        }
    }
    fn show_bars(&self, shown: bool) {
        if let Some(inner) = self.0.upgrade() {
            inner.shown.store(shown, SeqCst);
            inner.show();
        }
    }
    fn arm(&self, on: bool) {
        let Some(inner) = self.0.upgrade() else { return };
        let Some(timer) = inner.timer.get() else { return };
        match inner.choices.intx_timeout {
            ms if on && ms > 0 => {
                timer.arm(inner.environment.clock.now_ns().saturating_add(ms.saturating_mul(1_000_000)))
            }
            _ => timer.cancel(),
        }
    }
    fn tells_end(&self) -> bool {
        self.0.upgrade().is_some_and(|inner| inner.tells_end())
    }
    fn asserts(&self) -> bool {
        self.0.upgrade().is_some_and(|inner| inner.asserts())
    }
    fn fast_line(&self) -> Option<(Arc<dyn IrqFd>, IrqLine)> {
        let inner = self.0.upgrade()?;
        if inner.choices.no_fast_intx {
            return None;
        }
        let irqfd = inner.config.slot().irqfd()?;
        let (_, line) = inner.route()?;
        line.number()?;
        Some((irqfd, line))
    }
    fn fast_messages(&self) -> Option<Arc<dyn IrqFd>> {
        let inner = self.0.upgrade()?;
        if inner.choices.no_fast_msi { None } else { inner.config.slot().irqfd() }
    }
    fn message(&self, message: Message) -> MsiMessage {
        let requester_id = self.0.upgrade().map_or(0, |inner| inner.config.slot().dma().requester_id());
        MsiMessage { address: message.address, data: message.data, requester_id }
    }
    fn send(&self, message: Message) {
        if let Some(inner) = self.0.upgrade() {
            inner.config.slot().send(message.address, message.data);
        }
    }
    fn watch(&self, source: Source, event: &Event) -> io::Result<()> {
        self.0.upgrade().map_or(Ok(()), |inner| inner.watch(source, event))
    }
    fn unwatch(&self, event: &Event) {
        if let Some(inner) = self.0.upgrade()
            && let Some(events) = inner.events.get()
        {
            events.unwatch(event);
        }
    }
    fn warn(&self, text: &str) {
        if let Some(inner) = self.0.upgrade() {
            inner.warn(text);
        }
    }
    fn trace(&self, text: fmt::Arguments<'_>) {
        if let Some(inner) = self.0.upgrade() {
            inner.trace(text);
        }
    }
}

/// Leaves and joins fast paths as lines and controllers change.
struct Follower(Weak<Inner>);

impl Follower {
    fn concerned(&self, line: u32) -> Option<Arc<Inner>> {
        let inner = self.0.upgrade()?;
        let own = inner.config.intx()?.line()?.number()?;
        (own == line).then_some(inner)
    }
}

impl RoutingListener for Follower {
    fn detach(&self, line: Option<u32>) {
        let inner = match line {
            Some(line) => self.concerned(line),
            None => self.0.upgrade(),
        };
        if let Some(inner) = inner {
            inner.interrupts().leave(line.is_none());
        }
    }
    fn routing_changed(&self, event: RoutingEvent) {
        let inner = match event {
            RoutingEvent::RouteChanged(line) => self.concerned(line),
            RoutingEvent::IrqchipChanged => self.0.upgrade(),
        };
        if let Some(inner) = inner {
            inner.trace(format_args!("{event:?}"));
            inner.rewire();
            inner.interrupts().join();
        }
    }
}

/// Told of the end of interrupts.
struct End(Weak<Inner>);

impl ResampleListener for End {
    fn resample(&self) {
        if let Some(inner) = self.0.upgrade()
            && inner.tells_end()
        {
            inner.interrupts().end();
        }
    }
}

impl PciFunction for VfioPci {
    fn config(&self) -> &PciConfig {
        &self.0.config
    }
    fn msix_vectors(&self) -> u32 {
        self.0.table.as_ref().map_or(0, |t| t.vectors())
    }
    fn program_msix(&self, vector: u32, address: u64, data: u32) {
        if let Some(table) = &self.0.table {
            table.program(vector, address, data);
        }
    }
    fn config_read(&self, offset: u16, size: u8) -> u32 {
        self.0.read(offset, size)
    }
    fn config_write(&self, offset: u16, size: u8, value: u32) {
        self.0.write(offset, size, value);
    }
}

impl Device for VfioPci {
    fn name(&self) -> &str {
        &self.0.name
    }
    fn reset(&self) {
        resets::machine(&self.0);
    }
    fn save(&self) -> Saved {
        saved::save(&self.0)
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        saved::load(&self.0, saved)
    }
    fn quiesce(&self) {
        saved::rest(&self.0);
    }
    fn resume(&self) {
        saved::run_on(&self.0);
    }
    fn release(&self) {
        resets::give_up(&self.0);
    }
    fn blocker(&self) -> Option<String> {
        saved::blocker(&self.0)
    }
    fn moving(&self) -> Result<(), String> {
        saved::moving(&self.0)
    }
    fn moving_data(&self, most: usize) -> Result<Vec<u8>, String> {
        saved::moving_data(&self.0, most)
    }
    fn moved(&self) {
        saved::moved(&self.0);
    }
    fn take_data(&self, data: &[u8]) -> Result<(), LoadError> {
        saved::take_data(&self.0, data)
    }
}
