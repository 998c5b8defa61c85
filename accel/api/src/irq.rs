//! Interrupt lines, where they end, and message-signalled interrupts.

use arc_swap::ArcSwapOption;
use parking_lot::{Mutex, RwLock};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// The receiving end of lines: an interrupt controller's inputs, or a vCPU's interrupt pins.
pub trait IrqSink: Send + Sync {
    /// The level of input `pin` is now `level`. Never called twice at once for one line. Called only for changes, except that a
    /// line that is up may be announced again when a controller is replaced.
    fn set_level(&self, pin: u32, level: bool);
    /// Takes over a level without making an edge (after a controller change or a restored state).
    fn import_level(&self, pin: u32, level: bool) {
        self.set_level(pin, level);
    }
    /// Is the end of an interrupt of input `pin` told to the line it came from ([`InterruptRouting::resample`]), always?
    fn tells_end(&self, _pin: u32) -> bool {
        false
    }
    /// The line that input `pin` is passed on to at the moment, if this is no controller but only wires: who takes a fast path past
    /// lines and sinks needs the controller's own input.
    fn passes_to(&self, _pin: u32) -> Option<IrqLine> {
        None
    }
}

/// Told when the guest ended (EOI) a level interrupt, so that the source can re-evaluate its level.
pub trait ResampleListener: Send + Sync {
    fn resample(&self);
}

/// Where a line ends.
#[derive(Clone)]
pub struct Route {
    pub sink: Arc<dyn IrqSink>,
    pub pin: u32,
}

/// The level as the source last set it.
const LEVEL: u32 = 1;
/// A thread is delivering to the sink, or the route is being changed.
const BUSY: u32 = 2;
/// A rising edge came while the level was already falling again, not yet delivered.
const EDGE: u32 = 4;
/// The level was imported: the sink is to be told without an edge.
const IMPORT: u32 = 8;
/// The level the sink was last told.
const TOLD: u32 = 16;

/// How often a thread yields at most to the one that delivers.
const MAX_YIELDS: u32 = 10_000;

/// A number of the calling thread, not 0: the address of something of its own.
#[inline]
fn this_thread() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

struct Line {
    number: Option<u32>,
    state: AtomicU32,
    /// The thread that took BUSY last.
    deliverer: AtomicUsize,
    route: ArcSwapOption<Route>,
    resample: Mutex<Vec<Weak<dyn ResampleListener>>>,
}

impl Line {
    fn new(number: Option<u32>, route: Option<Route>) -> Arc<Self> {
        let state = AtomicU32::new(0);
        Arc::new(Self {
            number,
            state,
            deliverer: AtomicUsize::new(0),
            route: ArcSwapOption::new(route.map(Arc::new)),
            resample: Mutex::default(),
        })
    }

    /// Changes the level and tells the sink, or leaves the telling to the thread that is just doing it, and waits until it has: a
    /// guest that took back the cause of an interrupt must not find it still pending. No lock is held while the sink is called,
    /// and a sink may set the same line again (then nothing is waited for).
    #[inline]
    fn set(&self, level: bool, import: bool) {
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            if (state & LEVEL != 0) == level && !import {
                return;
            }
            let mut next = state & !LEVEL;
            if level {
                next |= LEVEL;
            }
            if import {
                next |= IMPORT;
            } else if level && state & BUSY != 0 {
                // The deliverer may miss a short pulse: leave a note.
                next |= EDGE;
            }
            match self.state.compare_exchange_weak(state, next | BUSY, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) if state & BUSY != 0 => return self.wait_told(),
                Ok(_) => {
                    self.deliverer.store(this_thread(), Ordering::Relaxed);
                    break self.deliver();
                }
                Err(seen) => state = seen,
            }
        }
    }

    /// Another thread is delivering: lets it finish. The wait has an end, should that thread wait for something of this one's.
    #[cold]
    fn wait_told(&self) {
        if self.deliverer.load(Ordering::Relaxed) == this_thread() {
            return;
        }
        for _ in 0..MAX_YIELDS {
            if self.state.load(Ordering::Acquire) & BUSY == 0 {
                return;
            }
            std::thread::yield_now();
        }
    }

    /// With BUSY taken: tells the sink until it knows the level, then gives BUSY back.
    fn deliver(&self) {
        let mut state = self.state.load(Ordering::Acquire);
        loop {
            let (level, told) = (state & LEVEL != 0, state & TOLD != 0);
            if level == told && state & (EDGE | IMPORT) == 0 {
                match self.state.compare_exchange(state, state & !BUSY, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => return,
                    Err(seen) => {
                        state = seen;
                        continue;
                    }
                }
            }
            let mut next = state & !(EDGE | IMPORT | TOLD);
            if level {
                next |= TOLD;
            }
            if let Err(seen) = self.state.compare_exchange(state, next, Ordering::AcqRel, Ordering::Acquire) {
                state = seen;
                continue;
            }
            if let Some(route) = &*self.route.load() {
                let tell = |level| route.sink.set_level(route.pin, level);
                if state & (IMPORT | EDGE) == IMPORT {
                    route.sink.import_level(route.pin, level);
                } else if state & EDGE != 0 {
                    // It rose since the sink was told, and perhaps fell again.
                    if told {
                        tell(false);
                    }
                    tell(true);
                    if !level {
                        tell(false);
                    }
                } else if level != told {
                    tell(level);
                }
            }
            state = self.state.load(Ordering::Acquire);
        }
    }

    /// Takes BUSY: deliveries wait (they are done by [`Self::release`]).
    fn hold(&self) {
        while self.state.fetch_or(BUSY, Ordering::AcqRel) & BUSY != 0 {
            std::thread::yield_now();
        }
        // What this thread sets meanwhile is delivered afterwards.
        self.deliverer.store(this_thread(), Ordering::Relaxed);
    }

    /// With BUSY taken: the sink behind the line is a new one that believes the line is low.
    fn carry_level(&self) {
        let up = self.state.load(Ordering::Acquire) & LEVEL != 0;
        self.state.fetch_and(!TOLD, Ordering::AcqRel);
        if up {
            self.state.fetch_or(IMPORT, Ordering::AcqRel);
        }
    }
}

/// The sending end of an interrupt line; cheap to clone, clones are the same line. Setting the level it already has costs one
/// atomic load.
#[derive(Clone)]
pub struct IrqLine {
    line: Arc<Line>,
}

impl IrqLine {
    /// A line that ends nowhere.
    #[must_use]
    pub fn unconnected() -> Self {
        Self { line: Line::new(None, None) }
    }
    /// A line straight to `pin` of `sink`, outside any routing (wiring inside a controller; tests).
    #[must_use]
    pub fn to_sink(sink: Arc<dyn IrqSink>, pin: u32) -> Self {
        Self { line: Line::new(None, Some(Route { sink, pin })) }
    }
    /// The line's number in its [`InterruptRouting`]; `None` for the others.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        self.line.number
    }
    /// Sets the level.
    #[inline]
    pub fn set(&self, level: bool) {
        self.line.set(level, false);
    }
    pub fn raise(&self) {
        self.set(true);
    }
    pub fn lower(&self) {
        self.set(false);
    }
    /// One edge: up and down.
    pub fn pulse(&self) {
        self.set(true);
        self.set(false);
    }
    /// Sets the level to what `level` computes (under the device's lock, which must be free here). Threads that do so at once
    /// cannot leave a stale level behind: each looks again after it has told the line.
    pub fn settle(&self, level: impl Fn() -> bool) {
        loop {
            let now = level();
            self.set(now);
            if level() == now {
                return;
            }
        }
    }
    /// Sets the level without making an edge (restored state).
    pub fn import(&self, level: bool) {
        self.line.set(level, true);
    }
    /// The current level.
    #[must_use]
    pub fn level(&self) -> bool {
        self.line.state.load(Ordering::Acquire) & LEVEL != 0
    }
    /// Asks to be told when the guest ended the interrupt, as long as the listener lives.
    pub fn on_resample(&self, listener: Weak<dyn ResampleListener>) {
        let mut all = self.line.resample.lock();
        all.retain(|l| l.strong_count() > 0);
        all.push(listener);
    }
    /// Called by controllers at EOI of a level interrupt (through [`InterruptRouting::resample`], or directly).
    pub fn resample(&self) {
        let listeners: Vec<_> = {
            let all = self.line.resample.lock();
            if all.is_empty() {
                return;
            }
            all.iter().filter_map(Weak::upgrade).collect()
        };
        for listener in listeners {
            listener.resample();
        }
    }
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoutingEvent {
    /// The controller behind the routing was replaced; fast paths (irqfd) are detached and may be attached again.
    IrqchipChanged,
    /// One line ends elsewhere now.
    RouteChanged(u32),
}

/// Receives [`RoutingEvent`]s, on the thread that made the change, with no lock held.
pub trait RoutingListener: Send + Sync {
    fn routing_changed(&self, event: RoutingEvent);
    /// Before a change: detach fast paths of the line (`None`: of all) now. The line's level can still be set, and is delivered
    /// after the change.
    fn detach(&self, _line: Option<u32>) {}
}

type Listeners = Mutex<Vec<(u64, Arc<dyn RoutingListener>)>>;

/// All numbered lines of one machine and where they end.
pub struct InterruptRouting {
    lines: RwLock<Vec<Option<Arc<Line>>>>,
    listeners: Arc<Listeners>,
    next: AtomicU32,
    /// One change at a time.
    changing: Mutex<()>,
}

/// Line numbers are small: the largest allowed.
pub const MAX_LINE: u32 = 1 << 20;

impl InterruptRouting {
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            lines: RwLock::default(),
            listeners: Arc::default(),
            next: AtomicU32::new(0),
            changing: Mutex::new(()),
        })
    }
    fn get(&self, number: u32) -> Arc<Line> {
        assert!(number <= MAX_LINE, "interrupt line {number} is beyond {MAX_LINE}");
        let index = number as usize;
        if let Some(Some(line)) = self.lines.read().get(index) {
            return line.clone();
        }
        let mut lines = self.lines.write();
        if lines.len() <= index {
            lines.resize(index + 1, None);
        }
        lines[index].get_or_insert_with(|| Line::new(Some(number), None)).clone()
    }
    /// The line `number` (at most [`MAX_LINE`]), made (unconnected) on first use.
    #[must_use]
    pub fn line(&self, number: u32) -> IrqLine {
        IrqLine { line: self.get(number) }
    }
    /// The lines there are and what their sources last set, for `info irq`.
    #[must_use]
    pub fn describe(&self) -> String {
        let lines = self.lines.read().clone();
        let one = |(number, line): (usize, Option<Arc<Line>>)| {
            let line = line?;
            let level = u32::from(line.state.load(Ordering::Acquire) & LEVEL != 0);
            let pin = line.route.load().as_ref().map_or("unconnected".to_owned(), |route| format!("pin {}", route.pin));
            Some(format!("line {number}: level={level}, {pin}\n"))
        };
        lines.into_iter().enumerate().filter_map(one).collect()
    }
    /// The route of a line.
    #[must_use]
    pub fn route(&self, number: u32) -> Option<Route> {
        self.get(number).route.load().as_deref().cloned()
    }
    /// The input of a controller at which a line ends now: itself, or a line that wires on its way lead to ([`IrqSink::passes_to`]).
    #[must_use]
    pub fn end_of(&self, line: &IrqLine) -> IrqLine {
        /// More than any board has in a row.
        const MOST: usize = 8;
        let mut line = line.clone();
        for _ in 0..MOST {
            let next = line.line.route.load().as_ref().and_then(|route| route.sink.passes_to(route.pin));
            match next {
                Some(next) => line = next,
                None => break,
            }
        }
        line
    }
    /// Is the end of interrupts of this controller's input told to listeners ([`IrqLine::on_resample`])?
    #[must_use]
    pub fn tells_end(&self, end: &IrqLine) -> bool {
        end.line.route.load().as_ref().is_some_and(|route| route.sink.tells_end(route.pin))
    }
    /// Ends line `number` at `route` (or nowhere); carries the level over without an edge if it is up, then announces
    /// [`RoutingEvent::RouteChanged`]. Not to be called from a sink.
    pub fn set_route(&self, number: u32, route: Option<Route>) {
        let line = self.get(number);
        let changing = self.changing.lock();
        let listeners = self.listeners();
        line.hold();
        for listener in &listeners {
            listener.detach(Some(number));
        }
        line.route.store(route.map(Arc::new));
        line.carry_level();
        drop(changing);
        for listener in &listeners {
            listener.routing_changed(RoutingEvent::RouteChanged(number));
        }
        line.deliver();
    }
    /// Replaces the controller of all lines: stop deliveries, detach fast paths, swap and carry levels, announce, let listeners
    /// attach again, re-evaluate asserted levels. `route` gives each line's new end. Not to be called from a sink.
    pub fn replace_controller(&self, route: &dyn Fn(u32) -> Option<Route>) {
        let changing = self.changing.lock();
        let listeners = self.listeners();
        let lines: Vec<_> = self.lines.read().iter().flatten().cloned().collect();
        for line in &lines {
            line.hold();
        }
        for listener in &listeners {
            listener.detach(None);
        }
        for line in &lines {
            line.route.store(line.number.and_then(route).map(Arc::new));
            line.carry_level();
        }
        drop(changing);
        for listener in &listeners {
            listener.routing_changed(RoutingEvent::IrqchipChanged);
        }
        for line in &lines {
            line.deliver();
        }
    }
    /// For controllers: the guest ended the level interrupt that line `number` made.
    pub fn resample(&self, number: u32) {
        let line = self.lines.read().get(number as usize).cloned().flatten();
        if let Some(line) = line {
            IrqLine { line }.resample();
        }
    }
    /// Subscribes to changes until the subscription is dropped.
    pub fn subscribe(&self, listener: Arc<dyn RoutingListener>) -> RoutingSubscription {
        let id = u64::from(self.next.fetch_add(1, Ordering::Relaxed));
        self.listeners.lock().push((id, listener));
        RoutingSubscription { id, listeners: Arc::downgrade(&self.listeners) }
    }
    fn listeners(&self) -> Vec<Arc<dyn RoutingListener>> {
        self.listeners.lock().iter().map(|(_, l)| l.clone()).collect()
    }
}

/// Keeps a [`RoutingListener`] subscribed.
#[must_use]
pub struct RoutingSubscription {
    id: u64,
    listeners: Weak<Listeners>,
}

impl Drop for RoutingSubscription {
    fn drop(&mut self) {
        if let Some(listeners) = self.listeners.upgrade() {
            listeners.lock().retain(|(id, _)| *id != self.id);
        }
    }
}

/// A message-signalled interrupt on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsiMessage {
    pub address: u64,
    pub data: u32,
    /// PCI requester id (bus << 8 | devfn), the ITS's DeviceID.
    pub requester_id: u32,
}

/// Who receives messages: the ITS, GICv2m, a local APIC bus.
pub trait MsiTarget: Send + Sync {
    fn send(&self, message: MsiMessage);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Sink(Mutex<Vec<(u32, bool, bool)>>);
    impl IrqSink for Sink {
        fn set_level(&self, pin: u32, level: bool) {
            self.0.lock().push((pin, level, false));
        }
        fn import_level(&self, pin: u32, level: bool) {
            self.0.lock().push((pin, level, true));
        }
    }
    impl Sink {
        fn take(&self) -> Vec<(u32, bool, bool)> {
            std::mem::take(&mut self.0.lock())
        }
    }

    #[test]
    fn levels_and_edges() {
        let sink = Arc::new(Sink::default());
        let line = IrqLine::to_sink(sink.clone(), 3);
        line.raise();
        line.clone().raise();
        line.lower();
        line.pulse();
        assert_eq!(sink.take(), [(3, true, false), (3, false, false), (3, true, false), (3, false, false)]);
        line.import(true);
        line.import(true);
        line.lower();
        assert_eq!(sink.take(), [(3, true, true), (3, true, true), (3, false, false)]);
        IrqLine::unconnected().pulse();
    }

    /// A sink that sets its own line while being told.
    struct Echo(Mutex<Option<IrqLine>>, Mutex<Vec<bool>>);
    impl IrqSink for Echo {
        fn set_level(&self, _pin: u32, level: bool) {
            self.1.lock().push(level);
            let line = self.0.lock().take();
            if let Some(line) = line {
                line.lower();
                line.raise();
                line.lower();
            }
        }
    }

    #[test]
    fn a_pulse_inside_a_delivery_is_not_lost() {
        let echo = Arc::new(Echo(Mutex::new(None), Mutex::default()));
        let line = IrqLine::to_sink(echo.clone(), 0);
        *echo.0.lock() = Some(line.clone());
        line.raise();
        let seen = echo.1.lock().clone();
        assert_eq!(seen.iter().filter(|l| **l).count(), 2, "{seen:?}");
        assert_eq!(seen.last(), Some(&false));
    }

    struct Watch(Mutex<Vec<String>>);
    impl RoutingListener for Watch {
        fn routing_changed(&self, event: RoutingEvent) {
            self.0.lock().push(format!("{event:?}"));
        }
        fn detach(&self, line: Option<u32>) {
            self.0.lock().push(format!("detach {line:?}"));
        }
    }

    #[test]
    fn controller_change() {
        let routing = InterruptRouting::new();
        let (old, new) = (Arc::new(Sink::default()), Arc::new(Sink::default()));
        let watch = Arc::new(Watch(Mutex::default()));
        let (up, down) = (routing.line(5), routing.line(6));
        for n in [5, 6] {
            routing.set_route(n, Some(Route { sink: old.clone(), pin: n }));
        }
        let subscription = routing.subscribe(watch.clone());
        up.raise();
        down.pulse();
        old.take();
        let to = new.clone();
        routing.replace_controller(&move |n| Some(Route { sink: to.clone(), pin: n + 100 }));
        assert_eq!(old.take(), []);
        assert_eq!(new.take(), [(105, true, true)]);
        assert_eq!(*watch.0.lock(), ["detach None", "IrqchipChanged"]);
        drop(subscription);
        up.lower();
        assert_eq!(new.take(), [(105, false, false)]);
        routing.set_route(5, None);
        up.raise();
        assert!(up.level());
        routing.set_route(5, Some(Route { sink: old.clone(), pin: 1 }));
        assert_eq!(old.take(), [(1, true, true)]);
        assert_eq!(watch.0.lock().len(), 2);
    }

    /// Raises a line while its route changes.
    struct Raise(IrqLine, bool);
    impl RoutingListener for Raise {
        fn routing_changed(&self, _: RoutingEvent) {}
        fn detach(&self, _: Option<u32>) {
            let (line, pulse) = (self.0.clone(), self.1);
            // From another thread: this one delivers.
            let raised = std::thread::spawn(move || if pulse { line.pulse() } else { line.raise() });
            while !self.1 && !self.0.level() {
                std::thread::yield_now();
            }
            if self.1 {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            drop(raised);
        }
    }

    #[test]
    fn an_edge_during_a_change_stays_an_edge() {
        for pulse in [false, true] {
            let routing = InterruptRouting::new();
            let sink = Arc::new(Sink::default());
            routing.set_route(5, Some(Route { sink: sink.clone(), pin: 5 }));
            let line = routing.line(5);
            let _subscription = routing.subscribe(Arc::new(Raise(line.clone(), pulse)));
            let to = sink.clone();
            routing.replace_controller(&move |n| Some(Route { sink: to.clone(), pin: n }));
            let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
            let edge = || sink.0.lock().contains(&(5, true, false));
            while !edge() && std::time::Instant::now() < end {
                std::thread::yield_now();
            }
            assert!(edge(), "{:?}", sink.take());
        }
    }

    #[test]
    fn racing_sources_end_consistent() {
        struct Last(std::sync::atomic::AtomicBool);
        impl IrqSink for Last {
            fn set_level(&self, _: u32, level: bool) {
                self.0.store(level, Ordering::SeqCst);
            }
        }
        let last = Arc::new(Last(false.into()));
        let line = IrqLine::to_sink(last.clone(), 0);
        std::thread::scope(|s| {
            for start in [true, false] {
                let line = line.clone();
                s.spawn(move || {
                    for i in 0..20_000 {
                        line.set((i % 2 == 0) == start);
                    }
                });
            }
        });
        assert_eq!(last.0.load(Ordering::SeqCst), line.level());
    }

    struct Resampled(AtomicU32);
    impl ResampleListener for Resampled {
        fn resample(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn resample_reaches_the_source() {
        let routing = InterruptRouting::new();
        let source = Arc::new(Resampled(AtomicU32::new(0)));
        let weak: Weak<Resampled> = Arc::downgrade(&source);
        routing.line(9).on_resample(weak);
        routing.resample(9);
        routing.resample(1 << 30);
        assert_eq!(source.0.load(Ordering::SeqCst), 1);
    }
}
