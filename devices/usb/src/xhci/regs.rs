//! Registers (xHCI 5.3 to 5.6), extended capabilities (7.2) and doorbells.

use super::port::Port;
use super::slot::endpoint;
use super::trb::Ring;
use super::{Controller, Core, EVENT_INTERRUPT, HOST_SYSTEM_ERROR, INTERRUPTS, PORT_CHANGE, RUN, event};
use rhea_device::{log_guest_error, log_unimp};
use rhea_memory::{Access, AccessRules, BusError, MmioDevice};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes of the BAR.
pub const SIZE: u64 = 0x4000;

const VERSION: u32 = 0x0120;
const OPERATIONAL: u64 = 0x40;
const EXTENDED: u64 = 0x20;
const PORTS: u64 = OPERATIONAL + 0x400;
const RUNTIME: u64 = 0x1000;
const INTERRUPTER_0: u64 = RUNTIME + 0x20;
const DOORBELLS: u64 = 0x2000;

/// Capability registers (5.3).
mod cap {
    pub const LENGTH: u64 = 0x00;
    pub const HCSPARAMS1: u64 = 0x04;
    pub const HCSPARAMS2: u64 = 0x08;
    pub const HCSPARAMS3: u64 = 0x0c;
    pub const HCCPARAMS1: u64 = 0x10;
    pub const DBOFF: u64 = 0x14;
    pub const RTSOFF: u64 = 0x18;
}
/// Operational registers (5.4).
mod op {
    pub const USBCMD: u64 = super::OPERATIONAL;
    pub const USBSTS: u64 = super::OPERATIONAL + 0x04;
    pub const PAGESIZE: u64 = super::OPERATIONAL + 0x08;
    pub const DNCTRL: u64 = super::OPERATIONAL + 0x14;
    pub const CRCR: u64 = super::OPERATIONAL + 0x18;
    pub const CRCR_HIGH: u64 = super::OPERATIONAL + 0x1c;
    pub const DCBAAP: u64 = super::OPERATIONAL + 0x30;
    pub const DCBAAP_HIGH: u64 = super::OPERATIONAL + 0x34;
    pub const CONFIG: u64 = super::OPERATIONAL + 0x38;
}

const RESET: u32 = 1 << 1;
const LIGHT_RESET: u32 = 1 << 7;
const SAVE: u32 = 1 << 8;
const RESTORE: u32 = 1 << 9;
const WRAP_EVENTS: u32 = 1 << 10;
/// Run, interrupts, host system errors, wrap events, U3 stop.
const COMMAND_WRITABLE: u32 = RUN | INTERRUPTS | 1 << 3 | WRAP_EVENTS | 1 << 11;
const HALTED: u32 = 1;
const RESTORE_ERROR: u32 = 1 << 10;
const NOT_READY: u32 = 1 << 11;
const STATUS_CLEAR: u32 = HOST_SYSTEM_ERROR | EVENT_INTERRUPT | PORT_CHANGE | RESTORE_ERROR;
/// Command ring: cycle state, stop, abort, running.
const RING_CYCLE: u32 = 1;
const RING_STOP: u32 = 1 << 1;
const RING_ABORT: u32 = 1 << 2;
const RING_RUNNING: u32 = 1 << 3;

impl Controller {
    fn capability(&self, offset: u64) -> u32 {
        let o = &self.options;
        let (p2, p3) = (u32::from(o.p2), u32::from(o.p3));
        // Supported protocols: USB 3.0 at the first ports, USB 2.0 behind them.
        let protocol = |offset: u64, revision: u32, next: u32, ports: u32| match offset {
            0 => 2 | next << 8 | revision << 24,
            4 => u32::from_le_bytes(*b"USB "),
            8 => ports,
            _ => 0,
        };
        match offset {
            cap::LENGTH => OPERATIONAL as u32 | VERSION << 16,
            cap::HCSPARAMS1 => u32::from(o.slots) | u32::from(o.interrupters) << 8 | (p2 + p3) << 24,
            // Isochronous scheduling threshold: a microframe; segments of event rings.
            cap::HCSPARAMS2 => 1 | event::MOST_SEGMENTS_LOG2 << 4,
            cap::HCSPARAMS3 => 0,
            // 64-bit addresses; where the extended capabilities are, in words.
            cap::HCCPARAMS1 => 1 | (EXTENDED as u32 / 4) << 16,
            cap::DBOFF => DOORBELLS as u32,
            cap::RTSOFF => RUNTIME as u32,
            EXTENDED..0x30 => protocol(offset - EXTENDED, 3, 4, 1 | p3 << 8),
            0x30..0x40 => protocol(offset - 0x30, 2, 0, (p3 + 1) | p2 << 8),
            _ => 0,
        }
    }
    fn read(&self, offset: u64) -> u32 {
        if offset < OPERATIONAL {
            return self.capability(offset);
        }
        let busy = self.inflight.load(Ordering::Acquire) > 0;
        let c = &mut *self.core.lock();
        c.resetting &= busy;
        match offset {
            op::USBCMD => c.command | u32::from(c.resetting) * RESET,
            op::USBSTS => {
                let halted = !c.running() && !busy;
                c.status | u32::from(halted) * HALTED | u32::from(c.resetting) * NOT_READY
            }
            // 4 KiB.
            op::PAGESIZE => 1,
            op::DNCTRL => c.notifications,
            op::CRCR => u32::from(c.commands_run) * RING_RUNNING,
            op::DCBAAP => c.contexts as u32,
            op::DCBAAP_HIGH => (c.contexts >> 32) as u32,
            op::CONFIG => c.config,
            PORTS..RUNTIME => {
                let at = offset - PORTS;
                c.ports.get((at / 16) as usize).map_or(0, |p| p.read(at % 16))
            }
            RUNTIME if c.running() => (self.clock.now_ns() / 125_000) as u32 & 0x3fff,
            INTERRUPTER_0..DOORBELLS => {
                let at = offset - INTERRUPTER_0;
                c.interrupters.get((at / 32) as usize).map_or(0, |i| i.read(at % 32))
            }
            _ => 0,
        }
    }
    fn write(self: &Arc<Self>, offset: u64, value: u32) {
        let low = |old: u64| old & !0xffff_ffff | u64::from(value & !63);
        let high = |old: u64| old & 0xffff_ffff | u64::from(value) << 32;
        match offset {
            op::USBCMD => self.command(value),
            DOORBELLS..0x2400 => self.doorbell(((offset - DOORBELLS) / 4) as usize, value),
            INTERRUPTER_0..DOORBELLS => {
                let at = offset - INTERRUPTER_0;
                let roomy = self.with(|c| {
                    let crowded = c.interrupters.iter().any(event::Interrupter::crowded);
                    if let Some(i) = c.interrupters.get_mut((at / 32) as usize) {
                        i.write(at % 32, value);
                    }
                    !crowded
                });
                if !roomy {
                    // Rings waited for room for their events.
                    self.kick();
                }
            }
            PORTS..RUNTIME => {
                let at = offset - PORTS;
                self.with(|c| c.write_port((at / 16) as usize, at % 16, value));
                self.pump();
            }
            _ => self.with(|c| match offset {
                op::USBSTS => c.status &= !(value & STATUS_CLEAR),
                op::DNCTRL => c.notifications = value & 0xffff,
                op::CRCR => {
                    if c.commands_run {
                        if value & (RING_STOP | RING_ABORT) != 0 {
                            c.stop_commands();
                        }
                    } else {
                        c.commands = Ring { at: low(c.commands.at), cycle: value & RING_CYCLE != 0 };
                    }
                }
                op::CRCR_HIGH if !c.commands_run => c.commands.at = high(c.commands.at),
                op::DCBAAP => c.contexts = low(c.contexts),
                op::DCBAAP_HIGH => c.contexts = high(c.contexts),
                // Slots enabled, and two hints.
                op::CONFIG => c.config = value & 0x3ff,
                _ => log_guest_error!(c.log, &c.name, "write to register {offset:#x}"),
            }),
        }
    }
    fn command(self: &Arc<Self>, value: u32) {
        let started = self.with(|c| {
            c.resetting &= self.inflight.load(Ordering::Acquire) > 0;
            if c.resetting {
                return false;
            }
            if value & (RESET | LIGHT_RESET) != 0 {
                c.reset(&self.options);
                // Transfers under way still use memory.
                c.resetting = self.inflight.load(Ordering::Acquire) > 0;
                return false;
            }
            if value & WRAP_EVENTS != 0 {
                log_unimp!(c.log, &c.name, "events when the microframe index wraps");
            }
            let old = std::mem::replace(&mut c.command, value & COMMAND_WRITABLE);
            if value & SAVE == 0 && value & RESTORE != 0 {
                // Nothing is kept over a loss of power: software sets up anew.
                c.status |= RESTORE_ERROR;
            }
            if value & RUN == 0 {
                c.commands_run &= c.pending.is_some();
            }
            let started = value & !old & RUN != 0;
            if started && c.ports.iter().any(Port::changed) {
                c.status |= PORT_CHANGE;
            }
            started
        });
        if started {
            self.kick();
        }
    }
    fn doorbell(self: &Arc<Self>, slot: usize, value: u32) {
        let dci = (value & 0xff) as usize;
        if slot == 0 {
            self.with(|c| {
                if dci == 0 && c.running() {
                    c.ring_for_commands(&self.dma);
                }
            });
        } else {
            self.with(|c| c.ring(&self.dma, slot, dci));
        }
        self.pump();
    }
}

impl Core {
    /// The doorbell of an endpoint (4.7): one that is stopped runs again.
    fn ring(&mut self, dma: &rhea_device::DmaHandle, slot: usize, dci: usize) {
        let found = self.slots.get_mut(slot).filter(|s| s.enabled).and_then(|s| s.endpoints.get_mut(dci));
        let Some(e) = found.filter(|e| e.state != endpoint::DISABLED) else {
            log_guest_error!(self.log, &self.name, "doorbell of an endpoint that is not there");
            return;
        };
        if !self.command & RUN != 0 {
            return;
        }
        let stopped = e.state == endpoint::STOPPED;
        if stopped {
            e.state = endpoint::RUNNING;
        }
        if stopped {
            self.show_endpoint(dma, slot, dci);
        }
        self.look(slot, dci);
    }
}

/// BAR 0.
pub struct Bar(pub Arc<Controller>);

impl MmioDevice for Bar {
    fn read(&self, offset: u64, _access: Access) -> Result<u64, BusError> {
        Ok(self.0.read(offset).into())
    }
    fn write(&self, offset: u64, value: u64, _access: Access) -> Result<(), BusError> {
        self.0.write(offset, value as u32);
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::WORD
    }
    fn name(&self) -> &str {
        "xhci"
    }
}
