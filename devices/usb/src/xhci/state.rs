//! Saved state. The controller is at rest: no device has a transfer.

use super::event::Interrupter;
use super::port::Port;
use super::slot::{ENDPOINTS, Slot};
use super::trb::{Ring, Trb};
use super::{After, Controller};
use minicbor::{Decode, Encode};
use rhea_device::{LoadError, Saved, state};
use rhea_pci::PciConfigState;

#[derive(Encode, Decode)]
struct State {
    #[n(0)]
    config: PciConfigState,
    #[n(1)]
    command: u32,
    #[n(2)]
    status: u32,
    #[n(3)]
    configured: u32,
    #[n(4)]
    notifications: u32,
    #[n(5)]
    contexts: u64,
    #[n(6)]
    commands: Ring,
    #[n(7)]
    commands_run: bool,
    #[n(8)]
    pending: Option<(u64, Trb)>,
    #[n(9)]
    interrupters: Vec<Interrupter>,
    #[n(10)]
    ports: Vec<Port>,
    #[n(11)]
    slots: Vec<Slot>,
    #[n(12)]
    devices: Vec<Vec<u8>>,
    #[n(13)]
    commands_untouched: bool,
}

pub fn save(c: &Controller, config: PciConfigState) -> Saved {
    let devices = c.devices.read().iter().map(|d| d.save()).collect();
    let core = &mut *c.core.lock();
    // Slots hold what is not saved too: they are lent.
    let slots = std::mem::take(&mut core.slots);
    let mut whole = State {
        config,
        command: core.command,
        status: core.status,
        configured: core.config,
        notifications: core.notifications,
        contexts: core.contexts,
        commands: core.commands,
        commands_run: core.commands_run,
        pending: core.pending,
        interrupters: core.interrupters.clone(),
        ports: core.ports.clone(),
        slots,
        devices,
        commands_untouched: core.commands_untouched,
    };
    let saved = state::encode(1, &whole);
    core.slots = std::mem::take(&mut whole.slots);
    saved
}

/// Takes over everything but the configuration space, which is returned.
pub fn load(c: &Controller, saved: &Saved) -> Result<PciConfigState, LoadError> {
    let s: State = state::decode(saved, 1)?;
    let bad = |what: &str| LoadError::Mismatch(format!("{}: {what}", c.name));
    let devices = c.devices.read().clone();
    if s.devices.len() != devices.len() {
        return Err(bad("number of devices"));
    }
    {
        let core = &mut *c.core.lock();
        if s.ports.len() != core.ports.len() || s.slots.len() != core.slots.len() {
            return Err(bad("number of ports or slots"));
        }
        if s.interrupters.len() != core.interrupters.len() || !s.interrupters.iter().all(Interrupter::sane) {
            return Err(bad("interrupters"));
        }
        if s.slots.iter().any(|s| s.endpoints.len() != ENDPOINTS) {
            return Err(bad("endpoints"));
        }
        core.command = s.command;
        core.status = s.status;
        core.config = s.configured;
        core.notifications = s.notifications;
        core.contexts = s.contexts;
        core.commands = s.commands;
        core.commands_run = s.commands_run;
        core.commands_untouched = s.commands_untouched;
        core.pending = s.pending;
        core.interrupters = s.interrupters;
        core.ports = s.ports;
        core.slots = s.slots;
        core.resetting = false;
        core.after = After::default();
    }
    for (device, state) in devices.iter().zip(&s.devices) {
        device.load(state)?;
    }
    Ok(s.config)
}
