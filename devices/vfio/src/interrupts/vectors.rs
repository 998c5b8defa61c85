//! Vectors of MSI and MSI-X, each an eventfd from when the guest first opens it.

use super::{Counters, Event, Interrupts, Mode, Source, drain, event, raw};
use crate::sys::{IrqAction, IrqData, irq};
use rhea_accel::{IrqFd, MsiMessage};
use std::io::ErrorKind;
use std::os::fd::{AsFd, RawFd};
use std::sync::Arc;

/// Address and data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub address: u64,
    pub data: u32,
}

/// A vector as the thread sees it.
#[derive(Default)]
pub(super) struct Slot {
    /// What is waited for, while this process sends the message.
    watched: Option<Event>,
    /// What it sends; `None`: it is masked.
    message: Option<Message>,
    /// It came while it was masked.
    pending: bool,
}

struct Vector {
    event: Event,
    fast: Option<(Arc<dyn IrqFd>, MsiMessage)>,
}

pub(super) struct Vectors {
    index: u32,
    all: Vec<Option<Vector>>,
    /// How many the kernel has enabled.
    enabled: usize,
    /// More can be enabled while there are some.
    grows: bool,
}

impl Vectors {
    pub(super) fn index(&self) -> u32 {
        self.index
    }
    pub(super) fn used(&self) -> u32 {
        self.all.iter().flatten().count() as u32
    }
    pub(super) fn fast(&self) -> u32 {
        self.all.iter().flatten().filter(|v| v.fast.is_some()).count() as u32
    }
    /// The first `count` eventfds, for the kernel.
    fn events(&self, count: usize) -> Vec<Option<RawFd>> {
        self.all.iter().take(count).map(|v| v.as_ref().and_then(|v| raw(&v.event))).collect()
    }
}

impl Interrupts {
    /// none → MSI or MSI-X: one call with the eventfds of all vectors that are open.
    pub(super) fn enable_vectors(&self, mode: &mut Mode, index: u32, messages: &[Option<Message>]) {
        let info = match self.device.irq_info(index) {
            Ok(info) => info,
            Err(e) => return self.failed(index, "cannot be enabled", &e),
        };
        let count = messages.len().min(info.count as usize);
        let mut vectors = Vectors { index, all: (0..count).map(|_| None).collect(), enabled: 0, grows: !info.noresize };
        self.state.lock().vectors = (0..count).map(|_| Slot::default()).collect();
        for (n, message) in messages.iter().take(count).enumerate() {
            self.state.lock().vectors[n].message = *message;
            // MSI has no vectors that could be added later.
            if message.is_none() && index == irq::MSIX {
                continue;
            }
            match event() {
                Ok(event) => vectors.all[n] = Some(Vector { event, fast: None }),
                Err(e) => self.failed(index, "has too few vectors", &e),
            }
        }
        if count == 0 {
            return;
        }
        let last = vectors.all.iter().rposition(Option::is_some).map_or(1, |n| n + 1);
        let enable = |n: usize| self.set(index, IrqAction::Trigger, IrqData::EventFds(&vectors.events(n))).map(|()| n);
        // Kernels that cannot add vectors have all at once, if the host has so many, as what comes while they are enabled anew is lost.
        let all = if vectors.grows { last } else { count };
        let enabled = enable(all).or_else(|e| if all == last { Err(e) } else { enable(last) });
        match enabled {
            Ok(enabled) => vectors.enabled = enabled,
            Err(e) => {
                self.state.lock().vectors.clear();
                return self.failed(index, "cannot be enabled", &e);
            }
        }
        self.join_messages(&mut vectors);
        *mode = Mode::Vectors(vectors);
        self.entered(mode);
    }
    /// MSI or MSI-X → none.
    pub(super) fn disable_vectors(&self, mut vectors: Vectors) {
        self.off(vectors.index);
        for vector in vectors.all.iter_mut().flatten() {
            if let Some((irqfd, message)) = vector.fast.take() {
                let _ = irqfd.detach_msi(message, vector.event.as_fd());
            }
        }
        self.state.lock().vectors.clear();
        for vector in vectors.all.iter().flatten() {
            self.around.unwatch(&vector.event);
        }
        drop(vectors);
        self.entered(&Mode::None);
    }

    pub(super) fn change_vector(&self, vectors: &mut Vectors, n: u32, message: Option<Message>) {
        let at = n as usize;
        if at >= vectors.all.len() {
            return;
        }
        if vectors.all[at].is_none() && message.is_some() && !self.add_vector(vectors, at) {
            return;
        }
        if let Some(slot) = self.state.lock().vectors.get_mut(at) {
            slot.message = message;
        }
        if let Some(vector) = &mut vectors.all[at] {
            self.route(n, vector);
        }
        let due = {
            let mut state = self.state.lock();
            state.vectors.get_mut(at).and_then(|s| s.message.filter(|_| std::mem::take(&mut s.pending)))
        };
        if let Some(message) = due {
            Counters::add(&self.counters.messages);
            self.around.send(message);
        }
    }
    /// The guest opens a vector for the first time.
    fn add_vector(&self, vectors: &mut Vectors, at: usize) -> bool {
        let new = match event() {
            Ok(event) => event,
            Err(e) => {
                self.failed(vectors.index, "has too few vectors", &e);
                return false;
            }
        };
        let fd = raw(&new);
        vectors.all[at] = Some(Vector { event: new, fast: None });
        let done = if at < vectors.enabled || vectors.grows {
            self.device.set_irqs(vectors.index, IrqAction::Trigger, at as u32, IrqData::EventFds(&[fd]))
        } else {
            // Anew with more; what comes in between is lost, so that it is not to happen often.
            self.off(vectors.index);
            let count = (at + 1).next_power_of_two().min(vectors.all.len());
            let done = self.set(vectors.index, IrqAction::Trigger, IrqData::EventFds(&vectors.events(count)));
            if done.is_ok() {
                vectors.enabled = count;
            }
            done
        };
        if let Err(e) = done {
            vectors.all[at] = None;
            if at >= vectors.enabled && !vectors.grows {
                // All that were there before.
                let before = vectors.events(vectors.enabled);
                if let Err(e) = self.set(vectors.index, IrqAction::Trigger, IrqData::EventFds(&before)) {
                    self.failed(vectors.index, "cannot be enabled again", &e);
                }
            }
            self.failed(vectors.index, "has too few vectors", &e);
            return false;
        }
        vectors.enabled = vectors.enabled.max(at + 1);
        true
    }
    /// Leads a vector to where its message says: past this process if that is possible.
    fn route(&self, n: u32, vector: &mut Vector) {
        let at = n as usize;
        let message = self.state.lock().vectors.get(at).and_then(|s| s.message);
        let wanted = message.zip(self.around.fast_messages()).map(|(m, irqfd)| (irqfd, self.around.message(m)));
        if let (Some((_, now)), Some((_, new))) = (&vector.fast, &wanted)
            && now == new
        {
            return;
        }
        if let Some((irqfd, message)) = vector.fast.take() {
            let _ = irqfd.detach_msi(message, vector.event.as_fd());
            Counters::add(&self.counters.left);
        } else if wanted.is_some() {
            if let Some(slot) = self.state.lock().vectors.get_mut(at) {
                slot.watched = None;
            }
            self.around.unwatch(&vector.event);
        }
        if let Some((irqfd, message)) = wanted {
            match irqfd.attach_msi(message, vector.event.as_fd()) {
                Ok(()) => {
                    vector.fast = Some((irqfd, message));
                    Counters::add(&self.counters.joined);
                    return;
                }
                Err(e) if e.kind() == ErrorKind::Unsupported => {}
                Err(_) => Counters::add(&self.counters.failures),
            }
        }
        let is_new = {
            let mut state = self.state.lock();
            let slot = state.vectors.get_mut(at);
            slot.is_some_and(|slot| slot.watched.replace(vector.event.clone()).is_none())
        };
        if is_new && let Err(e) = self.around.watch(Source::Vector(n), &vector.event) {
            self.failed(irq::MSIX, "has a vector that nobody waits for", &e);
        }
    }
    pub(super) fn join_messages(&self, vectors: &mut Vectors) {
        for (n, vector) in vectors.all.iter_mut().enumerate() {
            if let Some(vector) = vector {
                self.route(n as u32, vector);
            }
        }
    }
    pub(super) fn leave_messages(&self, vectors: &mut Vectors) {
        for (n, vector) in vectors.all.iter_mut().enumerate() {
            let Some(vector) = vector else { continue };
            let Some((irqfd, message)) = vector.fast.take() else { continue };
            let _ = irqfd.detach_msi(message, vector.event.as_fd());
            Counters::add(&self.counters.left);
            if let Some(slot) = self.state.lock().vectors.get_mut(n) {
                slot.watched = Some(vector.event.clone());
            }
            if let Err(e) = self.around.watch(Source::Vector(n as u32), &vector.event) {
                self.failed(vectors.index, "has a vector that nobody waits for", &e);
            }
        }
    }

    pub(super) fn vector_signalled(&self, n: u32) {
        let message = {
            let mut state = self.state.lock();
            let Some(slot) = state.vectors.get_mut(n as usize) else { return };
            if !slot.watched.as_ref().is_some_and(drain) {
                return;
            }
            slot.pending = slot.message.is_none();
            slot.message
        };
        if let Some(message) = message {
            Counters::add(&self.counters.messages);
            self.around.send(message);
        }
    }
    /// Pending bits of vectors from `first` on, 64 at most.
    #[must_use]
    pub fn pending(&self, first: u32) -> u64 {
        let state = self.state.lock();
        let some = state.vectors.iter().skip(first as usize).take(64).enumerate();
        some.fold(0, |bits, (n, slot)| bits | u64::from(slot.pending) << n)
    }
}
