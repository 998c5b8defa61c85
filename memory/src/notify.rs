//! The change notifier: who caches host addresses of guest memory learns what changed, and why.

use crate::addr::GpaRange;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};

/// Why what a guest range maps to changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeReason {
    /// The range maps to something else, or to nothing, from now on.
    Unmap,
    /// The content was discarded or is being migrated away.
    ClearOrMigrate,
    /// The protection of a whole range changed.
    RangeProtection,
    /// The protection of single pages changed.
    PageProtection,
    /// Write tracking was (re)armed: cached writable mappings must be taken again.
    SoftDirty,
    /// Pages moved between private and shared memory of a confidential guest.
    PrivateShared,
}

/// One announced change.
#[derive(Clone, Debug)]
pub struct MemoryChange {
    pub reason: ChangeReason,
    pub ranges: Vec<GpaRange>,
    /// Hint: readers may keep their mapping, only writability was lost.
    pub read_only_downgrade: bool,
    /// The address space's generation after the change.
    pub generation: u64,
}

/// Receives changes after the new view is published, with no lock of the address space's readers held. Called on the thread
/// that made the change; must not map or unmap in the same address space.
pub trait ChangeListener: Send + Sync {
    fn memory_changed(&self, change: &MemoryChange);
}

type Listeners = Mutex<Vec<(u64, Arc<dyn ChangeListener>)>>;

/// The list of listeners of one address space.
#[derive(Default)]
pub(crate) struct Notifier {
    listeners: Arc<Listeners>,
    next: Mutex<u64>,
}

impl Notifier {
    pub(crate) fn subscribe(&self, listener: Arc<dyn ChangeListener>) -> Subscription {
        let id = {
            let mut next = self.next.lock();
            *next += 1;
            *next
        };
        self.listeners.lock().push((id, listener));
        Subscription { id, listeners: Arc::downgrade(&self.listeners) }
    }

    pub(crate) fn announce(&self, change: &MemoryChange) {
        let listeners: Vec<_> = self.listeners.lock().iter().map(|(_, l)| l.clone()).collect();
        for listener in listeners {
            listener.memory_changed(change);
        }
    }
}

/// Keeps a [`ChangeListener`] subscribed; dropping it unsubscribes.
#[must_use]
pub struct Subscription {
    id: u64,
    listeners: Weak<Listeners>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(listeners) = self.listeners.upgrade() {
            listeners.lock().retain(|(id, _)| *id != self.id);
        }
    }
}
