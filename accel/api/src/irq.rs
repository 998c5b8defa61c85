//! Interrupt lines, where they end, and message-signalled interrupts.

use std::sync::{Arc, Weak};

/// The receiving end of lines: an interrupt controller's inputs, or a vCPU's interrupt pins.
pub trait IrqSink: Send + Sync {
    /// The level of input `pin` is now `level`. Never called twice at once for one line; called again with the same level never.
    fn set_level(&self, pin: u32, level: bool);
    /// Takes over a level without making an edge (after a controller change or a restored state).
    fn import_level(&self, pin: u32, level: bool) {
        self.set_level(pin, level);
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

/// The sending end of an interrupt line; cheap to clone, clones are the same line. Setting the level it already has costs one
/// atomic operation.
#[derive(Clone)]
pub struct IrqLine {
    _inner: Arc<()>,
}

impl IrqLine {
    /// A line that ends nowhere.
    #[must_use]
    pub fn unconnected() -> Self {
        Self { _inner: Arc::new(()) }
    }
    /// A line straight to `pin` of `sink`, outside any routing (wiring inside a controller; tests).
    #[must_use]
    pub fn to_sink(sink: Arc<dyn IrqSink>, pin: u32) -> Self {
        let _ = (sink, pin);
        unimplemented!()
    }
    /// The line's number in its [`InterruptRouting`]; `None` for the others.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        None
    }
    /// Sets the level.
    #[inline]
    pub fn set(&self, level: bool) {
        let _ = level;
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
    /// Sets the level without making an edge (restored state).
    pub fn import(&self, level: bool) {
        let _ = level;
    }
    /// The current level.
    #[must_use]
    pub fn level(&self) -> bool {
        false
    }
    /// Asks to be told when the guest ended the interrupt.
    pub fn on_resample(&self, listener: Weak<dyn ResampleListener>) {
        let _ = listener;
    }
    /// Called by controllers at EOI of a level interrupt (through [`InterruptRouting::resample`], or directly).
    pub fn resample(&self) {}
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
    /// Before a change: detach fast paths now.
    fn detach(&self, _line: Option<u32>) {}
}

/// All numbered lines of one machine and where they end.
pub struct InterruptRouting {
    _private: (),
}

impl InterruptRouting {
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { _private: () })
    }
    /// The line `number`, made (unconnected) on first use.
    #[must_use]
    pub fn line(&self, number: u32) -> IrqLine {
        let _ = number;
        unimplemented!()
    }
    /// The route of a line.
    #[must_use]
    pub fn route(&self, number: u32) -> Option<Route> {
        let _ = number;
        unimplemented!()
    }
    /// Ends line `number` at `route` (or nowhere); carries the level over without an edge if it is up, then announces
    /// [`RoutingEvent::RouteChanged`].
    pub fn set_route(&self, number: u32, route: Option<Route>) {
        let _ = (number, route);
    }
    /// Replaces the controller of all lines: stop deliveries, detach fast paths, swap and carry levels, announce, let listeners
    /// attach again, re-evaluate asserted levels. `route` gives each line's new end.
    pub fn replace_controller(&self, route: &dyn Fn(u32) -> Option<Route>) {
        let _ = route;
    }
    /// For controllers: the guest ended the level interrupt that line `number` made.
    pub fn resample(&self, number: u32) {
        let _ = number;
    }
    /// Subscribes to changes until the subscription is dropped.
    pub fn subscribe(&self, listener: Arc<dyn RoutingListener>) -> RoutingSubscription {
        let _ = listener;
        unimplemented!()
    }
}

/// Keeps a [`RoutingListener`] subscribed.
#[must_use]
pub struct RoutingSubscription {
    _private: (),
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
