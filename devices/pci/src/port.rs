//! Downstream PCI Express ports: a bridge whose bus is a link to one device in a slot, with native hot-plug.

use crate::config::express::{LINK_CONTROL, LINK_STATUS, SLOT_CONTROL, SLOT_STATUS};
use crate::config::{ConfigBuilder, Identity, PcieType, SlotRegisters};
use crate::{Bridge, BusKind, Devfn, PciBus, PciConfig, PciError, PciFunction, PciSlot};
use parking_lot::Mutex;
use rhea_device::{Device, LoadError, Saved};
use std::sync::Arc;

/// Slot Capabilities (PCI Express base specification 7.5.3.9).
mod slot_cap {
    pub const BUTTON: u32 = 1;
    pub const POWER_CONTROLLER: u32 = 1 << 1;
    pub const INDICATORS: u32 = 3 << 3;
    pub const HOTPLUG: u32 = 1 << 6;
    pub const NUMBER: u32 = 19;
}
/// Slot Control.
mod slot_ctl {
    /// Enables of the events in [`super::event`] with the same numbers.
    pub const EVENTS: u16 = 0x1f;
    pub const INTERRUPT: u16 = 1 << 5;
    pub const INDICATORS_OFF: u16 = 0xf << 6;
    pub const POWER_INDICATOR: u16 = 3 << 8;
    pub const POWER_INDICATOR_ON: u16 = 1 << 8;
    pub const POWER_OFF: u16 = 1 << 10;
    pub const LINK: u16 = 1 << 12;
    pub const WRITABLE: u16 = 0x17ff;
}
/// Slot Status.
mod event {
    pub const BUTTON: u16 = 1;
    pub const PRESENCE: u16 = 1 << 3;
    pub const COMMAND: u16 = 1 << 4;
    pub const PRESENT: u16 = 1 << 6;
    pub const LINK: u16 = 1 << 8;
}
const LINK_DISABLE: u16 = 1 << 4;
const LINK_ACTIVE: u16 = 1 << 13;

/// What a port is made of.
#[derive(Clone, Copy, Debug)]
pub struct PortKind {
    pub model: &'static str,
    pub identity: Identity,
    /// [`PcieType::RootPort`] or [`PcieType::DownstreamPort`].
    pub pcie: PcieType,
    /// Link number.
    pub port: u8,
    /// Physical slot number (13 bits).
    pub slot: u16,
    /// Chassis number: with the slot it says where a device is.
    pub chassis: u8,
    pub hotplug: bool,
}

/// Told of the slot's power: false when software has switched it off.
type PowerListener = Box<dyn Fn(bool) + Send + Sync>;

/// A root port, or a downstream port of a switch.
pub struct Port {
    bridge: Bridge,
    hotplug: bool,
    /// Where the PCI Express capability is.
    express: usize,
    /// Was an interrupt due when last looked?
    due: Mutex<bool>,
    power: Mutex<Option<Arc<PowerListener>>>,
}

impl Port {
    /// A port at `place`; the link behind it is called `bus`. Reached after [`PciBus::attach`] and [`Self::connect`].
    #[must_use]
    pub fn new(kind: PortKind, bus: &str, place: &PciSlot) -> Arc<Self> {
        let hotplug = if kind.hotplug {
            slot_cap::BUTTON | slot_cap::POWER_CONTROLLER | slot_cap::INDICATORS | slot_cap::HOTPLUG
        } else {
            0
        };
        let registers = SlotRegisters {
            capabilities: hotplug | u32::from(kind.slot & 0x1fff) << slot_cap::NUMBER,
            control: if kind.hotplug { slot_ctl::WRITABLE } else { 0 },
        };
        let Identity { subsystem_vendor, subsystem, .. } = kind.identity;
        let config = ConfigBuilder::bridge(kind.identity, place.clone())
            .intx(1)
            .msi(0)
            .subsystem_capability(subsystem_vendor, subsystem)
            .pcie_port(kind.pcie, kind.port, Some(registers));
        let bridge = Bridge::new(kind.model, bus, BusKind::Link, place, config);
        let express = bridge.config().pcie().unwrap_or_default();
        Arc::new(Self { bridge, hotplug: kind.hotplug, express, due: Mutex::new(false), power: Mutex::default() })
    }
    /// Lets the bus of the port know of the link behind it.
    pub fn connect(&self) {
        self.bridge.connect();
    }
    /// Calls `listener` when software switches the slot's power off (the device may be taken out then) or on.
    pub fn on_power(&self, listener: PowerListener) {
        *self.power.lock() = Some(Arc::new(listener));
    }
    fn link(&self) -> &Arc<PciBus> {
        self.bridge.secondary().unwrap_or_else(|| unreachable!("a bridge has a bus"))
    }
    /// Is there a device in the slot?
    #[must_use]
    pub fn occupied(&self) -> bool {
        !self.link().functions().is_empty()
    }
    fn word(&self, at: usize) -> u16 {
        self.config().word(self.express + at)
    }
    /// Can devices come and go while software runs?
    #[must_use]
    pub fn has_hotplug(&self) -> bool {
        self.hotplug
    }
    /// Has software switched the slot's power on, or not off?
    #[must_use]
    pub fn powered(&self) -> bool {
        !self.hotplug || self.word(SLOT_CONTROL) & slot_ctl::POWER_OFF == 0
    }
    /// Presses the attention button: asks software to take the device in or out.
    pub fn press_attention(&self) {
        self.event(event::BUTTON);
    }
    /// Puts a device into the slot of the running machine: function 0 comes last.
    ///
    /// # Errors
    /// [`PciError`].
    pub fn insert(&self, function: Arc<dyn PciFunction>) -> Result<(), PciError> {
        let first = function.config().devfn().function() == 0;
        self.link().attach(function)?;
        if first {
            self.event(event::PRESENCE | self.update_link());
        }
        Ok(())
    }
    /// Takes the device out of the slot, without asking software.
    pub fn remove(&self) -> Vec<Arc<dyn PciFunction>> {
        let functions: Vec<_> = (0..8).filter_map(|n| self.link().detach(Devfn::new(0, n))).collect();
        for function in &functions {
            function.reset();
        }
        if !functions.is_empty() {
            self.event(event::PRESENCE | self.update_link());
        }
        functions
    }
    /// Presence and link as they are now; gives the event of a link that came up or went down.
    fn update_link(&self) -> u16 {
        let occupied = self.occupied();
        let up = occupied && self.powered() && self.word(LINK_CONTROL) & LINK_DISABLE == 0;
        let (present, active) = (if occupied { event::PRESENT } else { 0 }, if up { LINK_ACTIVE } else { 0 });
        self.config().change_word(self.express + SLOT_STATUS, event::PRESENT, present);
        self.link().set_open(up);
        let was = self.config().change_word(self.express + LINK_STATUS, LINK_ACTIVE, active);
        if self.hotplug && (was ^ active) & LINK_ACTIVE != 0 { event::LINK } else { 0 }
    }
    /// Notes events and tells of them.
    fn event(&self, events: u16) {
        if self.hotplug {
            self.config().change_word(self.express + SLOT_STATUS, 0, events);
            self.update_interrupt();
        }
    }
    /// 6.7.3.4: a message when a condition comes up, or the level of the pin.
    fn update_interrupt(&self) {
        let (status, control) = (self.word(SLOT_STATUS), self.word(SLOT_CONTROL));
        let link = status & event::LINK != 0 && control & slot_ctl::LINK != 0;
        let events = status & control & slot_ctl::EVENTS != 0 || link;
        let now = events && control & slot_ctl::INTERRUPT != 0;
        let rises = {
            let mut due = self.due.lock();
            !std::mem::replace(&mut *due, now) && now
        };
        let config = self.config();
        match config.msi().filter(|m| m.enabled()) {
            Some(msi) if rises => msi.notify(0),
            Some(_) => {}
            None => {
                if let Some(pin) = config.intx() {
                    pin.set(now);
                }
            }
        }
    }
    /// After power-on: the slot has power if there is something in it.
    fn power_on(&self) {
        if self.hotplug {
            let on = if self.occupied() {
                slot_ctl::INDICATORS_OFF & !slot_ctl::POWER_INDICATOR | slot_ctl::POWER_INDICATOR_ON
            } else {
                slot_ctl::INDICATORS_OFF | slot_ctl::POWER_OFF
            };
            self.config().change_word(self.express + SLOT_CONTROL, u16::MAX, on);
        }
        self.update_link();
        *self.due.lock() = false;
    }
}

impl PciFunction for Port {
    fn config(&self) -> &PciConfig {
        self.bridge.config()
    }
    fn secondary(&self) -> Option<&Arc<PciBus>> {
        self.bridge.secondary()
    }
    fn config_write(&self, offset: u16, size: u8, value: u32) {
        let at = usize::from(offset);
        let touches = |register: usize| {
            let start = self.express + register;
            at < start + 2 && start < at + usize::from(size)
        };
        let was = self.powered();
        self.bridge.config_write(offset, size, value);
        let mut events = 0;
        if self.hotplug && touches(SLOT_CONTROL) {
            events |= event::COMMAND;
            if was && !self.powered() {
                self.bridge.reset_secondary();
            }
        }
        if touches(SLOT_CONTROL) || touches(LINK_CONTROL) {
            events |= self.update_link();
        }
        // Status bits may have been cleared, MSI switched.
        self.event(events);
        let now = self.powered();
        let listener = if was == now { None } else { self.power.lock().clone() };
        if let Some(listener) = listener {
            listener(now);
        }
    }
}

impl Device for Port {
    fn name(&self) -> &str {
        self.bridge.name()
    }
    fn reset(&self) {
        self.bridge.reset();
        self.power_on();
    }
    fn save(&self) -> Saved {
        self.bridge.save()
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        self.bridge.load(saved)?;
        self.update_link();
        self.update_interrupt();
        Ok(())
    }
}
