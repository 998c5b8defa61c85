//! MSI-X (PCI Express base specification 7.7.2): vector table and pending bits in a BAR.

use crate::PciSlot;
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_accel::MsiMessage;
use rhea_device::LoadError;
use rhea_memory::{Access, AccessRules, BusError, MmioDevice};
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Message Control bits.
pub(crate) const ENABLE: u16 = 1 << 15;
pub(crate) const FUNCTION_MASK: u16 = 1 << 14;
const VECTOR_MASKED: u32 = 1;
const ENTRY: u64 = 16;

struct Table {
    control: u16,
    /// Address low and high, data, vector control.
    entries: Vec<[u32; 4]>,
    pending: Vec<bool>,
    /// Eventfds by which the accelerator sends a vector's message, while it may be sent.
    shortcuts: Vec<Option<Shortcut>>,
}

struct Shortcut {
    event: OwnedFd,
    message: MsiMessage,
}

impl Table {
    /// May this vector's message be sent?
    fn open(&self, vector: usize) -> bool {
        let masked = self.entries.get(vector).is_none_or(|e| e[3] & VECTOR_MASKED != 0);
        self.control & (ENABLE | FUNCTION_MASK) == ENABLE && !masked
    }
}

/// Saved state.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MsixState {
    #[n(0)]
    entries: Vec<[u32; 4]>,
    #[n(1)]
    pending: Vec<bool>,
}

/// The MSI-X part of a function; as an [`MmioDevice`] it is the BAR with the table at 0 and the pending bits at
/// [`Msix::pba_offset`].
pub struct Msix {
    slot: PciSlot,
    table: Mutex<Table>,
    vectors: u16,
    /// Held while shortcuts are made and given up, around calls of the accelerator.
    following: Mutex<()>,
}

impl Msix {
    /// `vectors` from 1 to 2048.
    #[must_use]
    pub fn new(slot: PciSlot, vectors: u16) -> Arc<Self> {
        let vectors = vectors.clamp(1, 2048);
        let n = usize::from(vectors);
        let table = Table {
            control: 0,
            entries: vec![[0, 0, 0, VECTOR_MASKED]; n],
            pending: vec![false; n],
            shortcuts: (0..n).map(|_| None).collect(),
        };
        Arc::new(Self { slot, table: Mutex::new(table), vectors, following: Mutex::new(()) })
    }
    #[must_use]
    pub fn vectors(&self) -> u16 {
        self.vectors
    }
    /// Where the pending bits start in the BAR.
    #[must_use]
    pub fn pba_offset(&self) -> u64 {
        (u64::from(self.vectors) * ENTRY).next_multiple_of(2048)
    }
    /// Size of the BAR: a power of two, at least a page.
    #[must_use]
    pub fn bar_size(&self) -> u64 {
        (self.pba_offset() + u64::from(self.vectors).div_ceil(64) * 8).next_power_of_two().max(4096)
    }
    /// Does the guest use MSI-X (and so neither MSI nor INTx)?
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.table.lock().control & ENABLE != 0
    }
    /// Signals a vector: sends the message, or marks it pending while masked. Nothing while MSI-X is off or out of range.
    pub fn notify(&self, vector: u16) {
        let message = {
            let mut t = self.table.lock();
            let i = usize::from(vector);
            let Some(&[low, high, data, control]) = t.entries.get(i) else { return };
            if t.control & ENABLE == 0 {
                return;
            }
            if t.control & FUNCTION_MASK != 0 || control & VECTOR_MASKED != 0 {
                t.pending[i] = true;
                return;
            }
            // Under the lock, so that nothing comes after the vector was masked.
            if let Some(shortcut) = &t.shortcuts[i]
                && self.slot.dma().enabled()
                && rustix::io::write(&shortcut.event, &1u64.to_ne_bytes()).is_ok()
            {
                return;
            }
            (u64::from(high) << 32 | u64::from(low), data)
        };
        self.slot.send(message.0, message.1);
    }
    /// Sends what is pending and no longer masked.
    fn flush(&self) {
        let messages: Vec<(u64, u32)> = {
            let t = &mut *self.table.lock();
            if t.control & (ENABLE | FUNCTION_MASK) != ENABLE {
                return;
            }
            let due = t.entries.iter().zip(&mut t.pending).filter(|(e, p)| **p && e[3] & VECTOR_MASKED == 0);
            due.map(|(e, p)| {
                *p = false;
                (u64::from(e[1]) << 32 | u64::from(e[0]), e[2])
            })
            .collect()
        };
        for (address, data) in messages {
            self.slot.send(address, data);
        }
    }
    /// Makes and gives up shortcuts of these vectors, as their entries are now.
    fn follow(&self, vectors: std::ops::Range<usize>) {
        let Some(irqfd) = self.slot.irqfd() else { return };
        let _one = self.following.lock();
        for vector in vectors {
            loop {
                let requester_id = self.slot.dma().requester_id();
                let (wanted, old) = {
                    let t = &mut *self.table.lock();
                    let (Some(&[low, high, data, _]), Some(slot)) = (t.entries.get(vector), t.shortcuts.get(vector))
                    else {
                        break;
                    };
                    let message = MsiMessage { address: u64::from(high) << 32 | u64::from(low), data, requester_id };
                    let wanted = t.open(vector).then_some(message);
                    if wanted == slot.as_ref().map(|s| s.message) {
                        break;
                    }
                    (wanted, t.shortcuts[vector].take())
                };
                if let Some(old) = old {
                    // What the accelerator says of it does not matter: the eventfd goes.
                    let _ = irqfd.detach_msi(old.message, old.event.as_fd());
                }
                let Some(message) = wanted else { continue };
                // Without one, messages are sent as before.
                let Ok(event) = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK) else { break };
                if irqfd.attach_msi(message, event.as_fd()).is_err() {
                    break;
                }
                // An entry that has changed meanwhile is looked at again.
                self.table.lock().shortcuts[vector] = Some(Shortcut { event, message });
            }
        }
    }
    fn follow_all(&self) {
        self.follow(0..usize::from(self.vectors));
    }
    pub(crate) fn set_control(&self, control: u16) {
        let control = control & (ENABLE | FUNCTION_MASK);
        let changed = std::mem::replace(&mut self.table.lock().control, control) != control;
        if changed {
            self.follow_all();
        }
        self.flush();
    }
    pub(crate) fn reset(&self) {
        {
            let mut t = self.table.lock();
            t.control = 0;
            t.entries.fill([0, 0, 0, VECTOR_MASKED]);
            t.pending.fill(false);
        }
        self.follow_all();
    }
    pub(crate) fn save(&self) -> MsixState {
        let t = self.table.lock();
        MsixState { entries: t.entries.clone(), pending: t.pending.clone() }
    }
    pub(crate) fn load(&self, state: MsixState, control: u16) -> Result<(), LoadError> {
        let MsixState { entries, pending } = state;
        {
            let t = &mut *self.table.lock();
            if entries.len() != t.entries.len() || pending.len() != t.pending.len() {
                return Err(LoadError::Mismatch("number of MSI-X vectors".to_owned()));
            }
            (t.control, t.entries, t.pending) = (control & (ENABLE | FUNCTION_MASK), entries, pending);
        }
        self.follow_all();
        Ok(())
    }
}

impl Drop for Msix {
    fn drop(&mut self) {
        self.table.get_mut().control = 0;
        self.follow_all();
    }
}

impl MmioDevice for Msix {
    fn read(&self, offset: u64, _access: Access) -> Result<u64, BusError> {
        let t = self.table.lock();
        if let Some(entry) = t.entries.get((offset / ENTRY) as usize) {
            return Ok(u64::from(entry[(offset % ENTRY / 4) as usize]));
        }
        let Some(at) = offset.checked_sub(self.pba_offset()) else { return Ok(0) };
        let first = (at as usize).saturating_mul(8);
        let bits = t.pending.iter().skip(first).take(32).enumerate();
        Ok(bits.fold(0, |v, (i, p)| v | u64::from(*p) << i))
    }
    fn write(&self, offset: u64, value: u64, _access: Access) -> Result<(), BusError> {
        let n = (offset / ENTRY) as usize;
        let (changed, unmasked) = {
            let mut t = self.table.lock();
            let Some(entry) = t.entries.get_mut(n) else {
                // The pending bits are read-only.
                return Ok(());
            };
            let word = (offset % ENTRY / 4) as usize;
            let before = *entry;
            entry[word] = match word {
                0 => value as u32 & !3,
                3 => value as u32 & VECTOR_MASKED,
                _ => value as u32,
            };
            (before != *entry, before[3] & !entry[3] & VECTOR_MASKED != 0)
        };
        if changed {
            self.follow(n..n + 1);
        }
        if unmasked {
            self.flush();
        }
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::WORD
    }
    fn name(&self) -> &str {
        "msix"
    }
}
