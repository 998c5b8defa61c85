//! Those that keep a requester's translations in another IOMMU, the host's: in caching mode (6.1) software invalidates what it maps as well
//! as what it unmaps, so that they can be told of both.

use crate::cache::Scope;
use parking_lot::Mutex;
use rhea_device::dma::TranslationListener;
use rhea_memory::{Gpa, GpaRange};
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};

/// Invalidations kept apart until they are told; more are one of everything.
const MOST: usize = 256;

#[derive(Default)]
pub struct Followers {
    /// By requester.
    all: Mutex<Vec<(u16, Weak<dyn TranslationListener>)>>,
    some: AtomicBool,
    /// What they have not been told of.
    changes: Mutex<Vec<Scope>>,
}

impl Followers {
    pub fn add(&self, requester: u16, listener: Weak<dyn TranslationListener>) {
        let mut all = self.all.lock();
        all.retain(|(_, l)| l.strong_count() > 0);
        all.push((requester, listener));
        self.some.store(true, Ordering::Release);
    }
    /// An invalidation, of which they are told soon.
    pub fn note(&self, scope: Scope) {
        if !self.some.load(Ordering::Acquire) {
            return;
        }
        let mut changes = self.changes.lock();
        if scope == Scope::Everything || changes.len() >= MOST {
            *changes = vec![Scope::Everything];
        } else if changes.first() != Some(&Scope::Everything) {
            changes.push(scope);
        }
    }
    pub fn waiting(&self) -> bool {
        self.some.load(Ordering::Acquire) && !self.changes.lock().is_empty()
    }
    /// Tells them; `domain` is a requester's, if it has one. With no lock of the unit's held.
    pub fn tell(&self, domain: impl Fn(u16) -> Option<u16>) {
        if !self.waiting() {
            return;
        }
        let changes = std::mem::take(&mut *self.changes.lock());
        let all: Vec<_> = self.all.lock().iter().filter_map(|(r, l)| Some((*r, l.upgrade()?))).collect();
        for (requester, listener) in all {
            let own = domain(requester);
            // Without a domain there are no translations any more.
            let concerns = |d: u16| own.is_none_or(|own| own == d);
            let mut ranges = Vec::new();
            let mut whole = false;
            for change in &changes {
                match *change {
                    Scope::Everything => whole = true,
                    Scope::Domain(d) => whole |= concerns(d),
                    Scope::Pages { domain, address, mask } if concerns(domain) => {
                        ranges.push(GpaRange { start: Gpa(address), len: 0x1000 << mask.min(51) });
                    }
                    Scope::Pages { .. } => {}
                }
            }
            if whole {
                listener.translation_changed(None);
                continue;
            }
            for range in ranges {
                listener.translation_changed(Some(range));
            }
        }
    }
}
