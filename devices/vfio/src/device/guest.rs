//! What the guest does with the function's configuration space.

use super::{Inner, resets};
use crate::config::{COMMAND, MsiPlace, STATUS, advanced, express};
use crate::interrupts::Message;
use crate::msix::ENABLE;
use crate::sys::irq;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// Which interrupts the guest has chosen.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Chosen {
    #[default]
    Pin,
    Msi(Vec<Option<Message>>),
    Msix,
}

#[derive(Debug, Default)]
pub(super) struct Guest {
    pub chosen: Chosen,
    /// The command register of the function.
    pub command: Option<u16>,
}

/// Of the command register: what is the guest's to say. Memory and ports stay decoded: where is the host's business, and a function that
/// does not decode would fail accesses of processors that are just under way.
const COMMAND_OF_GUEST: u16 = 0x0544;
const IO: u16 = 1;
const MEMORY: u16 = 2;
/// Of the status register.
const INTERRUPT_STATUS: u32 = 8;
const MSI_ENABLE: u32 = 1;
const D3_HOT: u32 = 3;
/// Power Management Control/Status: the state is kept in D3.
const NO_SOFT_RESET: u32 = 8;
/// From the capability's start.
const POWER_STATE: usize = 4;

impl Inner {
    fn of_host(&self, offset: u16, size: u8) -> Option<u32> {
        let (mut bytes, size) = ([0; 4], usize::from(size.min(4)));
        self.device.read(&self.space, offset.into(), &mut bytes[..size]).ok()?;
        Some(u32::from_le_bytes(bytes))
    }
    /// Interrupt Status. A function that does not answer reads as ones and asserts nothing.
    pub(super) fn asserts(&self) -> bool {
        !self.gone.load(SeqCst)
            && self.of_host(STATUS as u16, 2).is_some_and(|s| s != 0xffff && s & INTERRUPT_STATUS != 0)
    }
    pub(super) fn read(&self, offset: u16, size: u8) -> u32 {
        if self.gone.load(SeqCst) {
            return u32::MAX >> (32 - 8 * u32::from(size.clamp(1, 4)));
        }
        let through = self.layout.through(offset, size);
        let mut value = self.config.read(offset, size);
        if through != 0 {
            // What the function does not answer reads as ones.
            value = value & !through | self.of_host(offset, size).unwrap_or(u32::MAX) & through;
        }
        if let Some(pending) = self.layout.msi.and_then(|m| m.mask()).map(|at| at + 4)
            && (pending..pending + 4).contains(&usize::from(offset))
        {
            let bits = self.interrupts().pending(0) as u32;
            value = bits >> ((usize::from(offset) - pending) * 8) & u32::MAX >> (32 - 8 * u32::from(size.clamp(1, 4)));
        }
        value
    }
    pub(super) fn write(self: &Arc<Self>, offset: u16, size: u8, value: u32) {
        if self.gone.load(SeqCst) {
            return;
        }
        let at = usize::from(offset);
        let touches = |start: usize, len: usize| at < start + len && start < at + usize::from(size);
        self.config.write(offset, size, value);
        self.forward(offset, size, value);
        if touches(COMMAND, 2) {
            self.forward_command();
        }
        let changes_msi = self.layout.msi.is_some_and(|m| touches(m.at + 2, m.len() - 2));
        if changes_msi || self.layout.msix.is_some_and(|m| touches(m.at + 2, 2)) {
            self.choose();
        }
        if let Some(pm) = self.layout.pm
            && touches(pm + POWER_STATE, 1)
        {
            self.set_power();
        }
        let bit = |register: usize, bit: u32| touches(register, 1) && value >> ((register - at) * 8) & bit != 0;
        let by_express =
            self.layout.express.is_some_and(|e| bit(e + express::DEVICE_CONTROL + 1, u32::from(express::RESET >> 8)));
        let by_advanced = self.layout.advanced.is_some_and(|a| bit(a + advanced::CONTROL, advanced::RESET.into()));
        if (by_express || by_advanced) && self.layout.function_reset {
            resets::function(self);
        }
    }
    /// The parts of a write that are the function's, in words: another register's status bits beside it are not cleared.
    fn forward(&self, offset: u16, size: u8, value: u32) {
        let step = size.min(2);
        let whole = self.layout.through(offset, size);
        if whole == u32::MAX {
            let _ = self.device.write(&self.space, offset.into(), &value.to_le_bytes());
            return;
        }
        for part in (0..size.min(4)).step_by(step.max(1).into()) {
            let through = self.layout.through(offset + u16::from(part), step);
            if through != 0 {
                let bytes = (value >> (part * 8) & through).to_le_bytes();
                // A write that is not taken is lost.
                let _ = self.device.write(&self.space, (offset + u16::from(part)).into(), &bytes[..step.into()]);
            }
        }
    }
    /// Bus mastering and what else of the command register is the guest's.
    pub(super) fn forward_command(&self) {
        let command = self.config.read(COMMAND as u16, 2) as u16 & COMMAND_OF_GUEST | IO | MEMORY;
        let mut guest = self.guest.lock();
        if guest.command.replace(command) != Some(command) {
            let _ = self.device.write(&self.space, COMMAND as u64, &command.to_le_bytes());
        }
    }
    fn messages(&self, msi: MsiPlace) -> Option<Vec<Option<Message>>> {
        let word = |at: usize, size| self.config.read(at as u16, size);
        let control = word(msi.at + 2, 2);
        if control & MSI_ENABLE == 0 {
            return None;
        }
        let count = 1u32 << (control >> 4 & 7).min(msi.vectors.into());
        let high = if msi.wide { word(msi.at + 8, 4) } else { 0 };
        let address = u64::from(high) << 32 | u64::from(word(msi.at + 4, 4));
        let data = word(msi.data(), 2) & !(count - 1);
        let masked = msi.mask().map_or(0, |at| word(at, 4));
        let message = |n: u32| (masked >> n & 1 == 0).then_some(Message { address, data: data | n });
        Some((0..count).map(message).collect())
    }
    /// Makes the function's interrupts those that the registers say.
    pub(super) fn choose(&self) {
        let mut guest = self.guest.lock();
        let msix = self.layout.msix.map(|m| self.config.read(m.at as u16 + 2, 2) as u16);
        let masks_changed = self.table.as_ref().zip(msix).is_some_and(|(t, control)| t.set_control(control));
        let msi = self.layout.msi.and_then(|m| self.messages(m));
        let chosen = match (msix, msi) {
            (Some(control), _) if control & ENABLE != 0 => Chosen::Msix,
            (_, Some(messages)) => Chosen::Msi(messages),
            _ => Chosen::Pin,
        };
        let before = std::mem::replace(&mut guest.chosen, chosen);
        let interrupts = self.interrupts();
        match (&before, &guest.chosen) {
            (Chosen::Pin, Chosen::Pin) => {}
            (_, Chosen::Pin) => interrupts.vectors_off(),
            (Chosen::Msix, Chosen::Msix) => {
                if masks_changed && let Some(table) = &self.table {
                    for (n, message) in table.messages().into_iter().enumerate() {
                        interrupts.vector(n as u32, message);
                    }
                }
            }
            (_, Chosen::Msix) => {
                let messages = self.table.as_ref().map(|t| t.messages()).unwrap_or_default();
                interrupts.vectors_on(irq::MSIX, &messages);
            }
            (Chosen::Msi(old), Chosen::Msi(new)) if old.len() == new.len() => {
                for (n, (_, message)) in old.iter().zip(new).enumerate().filter(|(_, (a, b))| a != b) {
                    interrupts.vector(n as u32, *message);
                }
            }
            (_, Chosen::Msi(messages)) => interrupts.vectors_on(irq::MSI, messages),
        }
    }
    /// The guest changed an entry of the table.
    pub(super) fn vector_changed(&self, n: u32) {
        let guest = self.guest.lock();
        if guest.chosen == Chosen::Msix
            && let Some(table) = &self.table
        {
            self.interrupts().vector(n, table.message(n));
        }
    }
    /// In D3 nothing but the configuration space answers. The host's function stays awake.
    pub(super) fn set_power(self: &Arc<Self>) {
        let Some(pm) = self.layout.pm else { return };
        let state = self.config.read((pm + POWER_STATE) as u16, 2);
        let asleep = state & 3 == D3_HOT;
        if self.asleep.swap(asleep, SeqCst) == asleep {
            return;
        }
        for bar in &self.bars {
            bar.window.switch(!asleep);
        }
        self.show();
        if !asleep && state & NO_SOFT_RESET == 0 {
            resets::function(self);
        }
    }
}
