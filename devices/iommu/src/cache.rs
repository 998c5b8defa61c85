//! The context cache, the IOTLB, and who keeps translations elsewhere (chapter 6).

use crate::follow::Followers;
use crate::tables::{Context, Leaf};
use parking_lot::{Mutex, RwLock};
use rhea_memory::GpaRange;
use rustc_hash::FxHashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Pages remembered at most; then all are forgotten.
const MAX_PAGES: usize = 1 << 13;
const MAX_CONTEXTS: usize = 1 << 12;

#[derive(Default)]
struct Entries {
    contexts: FxHashMap<u16, Context>,
    /// By domain and number of the 4 KiB page.
    pages: FxHashMap<(u16, u64), Leaf>,
    /// Have some of them been parts of large pages?
    large: bool,
}

struct Watch {
    requester: u16,
    ranges: Vec<GpaRange>,
    changed: Weak<AtomicBool>,
}

/// What is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Everything,
    Domain(u16),
    /// `1 << mask` pages from `address`, which is aligned to that.
    Pages {
        domain: u16,
        address: u64,
        mask: u8,
    },
}

#[derive(Default)]
pub struct Cache {
    entries: RwLock<Entries>,
    /// Rises with each invalidation: what was read from tables before it is not remembered after it.
    epoch: AtomicU64,
    watches: Mutex<Vec<Watch>>,
    pub followers: Followers,
}

/// A cached context and, if it has tables, page.
pub enum Found {
    Nothing,
    Context(Context),
    Page(Context, Leaf),
}

impl Cache {
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }
    pub fn find(&self, requester: u16, address: u64) -> Found {
        let entries = self.entries.read();
        let Some(context) = entries.contexts.get(&requester) else { return Found::Nothing };
        match entries.pages.get(&(context.domain, address >> 12)) {
            Some(leaf) if context.table.is_some() => Found::Page(*context, *leaf),
            _ => Found::Context(*context),
        }
    }
    /// Remembers what was read since [`Self::epoch`] gave `epoch`.
    pub fn insert(&self, epoch: u64, requester: u16, context: Context, page: Option<(u64, Leaf)>) {
        let mut entries = self.entries.write();
        if self.epoch() != epoch {
            return;
        }
        if entries.contexts.len() >= MAX_CONTEXTS {
            entries.contexts.clear();
        }
        entries.contexts.insert(requester, context);
        if let Some((address, leaf)) = page {
            if entries.pages.len() >= MAX_PAGES {
                entries.pages.clear();
            }
            entries.large |= leaf.shift > 12;
            entries.pages.insert((context.domain, address >> 12), leaf);
        }
    }
    /// Forgets contexts for which `which` holds.
    pub fn forget_contexts(&self, which: impl Fn(u16, &Context) -> bool) {
        {
            let mut entries = self.entries.write();
            self.epoch.fetch_add(1, Ordering::AcqRel);
            entries.contexts.retain(|requester, context| !which(*requester, context));
        }
        self.followers.note(Scope::Everything);
        self.tell(|_| true);
    }
    /// Forgets translations.
    pub fn forget(&self, scope: Scope) {
        let (large, domains): (bool, FxHashMap<u16, u16>) = {
            let entries = &mut *self.entries.write();
            self.epoch.fetch_add(1, Ordering::AcqRel);
            match scope {
                Scope::Everything => entries.pages.clear(),
                Scope::Domain(domain) => entries.pages.retain(|(d, _), _| *d != domain),
                Scope::Pages { domain, address, mask } => {
                    let (first, count) = (address >> 12, 1u64 << mask.min(51));
                    if !entries.large && count <= entries.pages.len() as u64 {
                        for page in first..first.saturating_add(count) {
                            entries.pages.remove(&(domain, page));
                        }
                    } else {
                        // A large page goes as a whole.
                        entries.pages.retain(|(d, page), leaf| {
                            let size = 1u64 << (leaf.shift - 12);
                            let start = page & !(size - 1);
                            *d != domain || start >= first.saturating_add(count) || start + size <= first
                        });
                    }
                }
            }
            (entries.large, entries.contexts.iter().map(|(r, c)| (*r, c.domain)).collect())
        };
        self.followers.note(scope);
        self.tell(|watch| match (scope, domains.get(&watch.requester)) {
            (Scope::Domain(domain) | Scope::Pages { domain, .. }, Some(d)) if *d != domain => false,
            (Scope::Pages { address, mask, .. }, _) => {
                // A mapping may be larger than what software names: up to 1 GiB around it.
                let size = (0x1000u64 << mask.min(51)).max(if large { 1 << 30 } else { 0 });
                let start = address & !(size - 1);
                watch.ranges.iter().any(|r| start <= r.last() && r.start.0 <= start.saturating_add(size - 1))
            }
            _ => true,
        });
    }
    fn tell(&self, concerns: impl Fn(&Watch) -> bool) {
        self.watches.lock().retain(|watch| match watch.changed.upgrade() {
            // Whoever is told looks anew, with a new mark.
            Some(changed) if concerns(watch) => {
                changed.store(true, Ordering::Release);
                false
            }
            Some(_) => true,
            None => false,
        });
    }
    pub fn watch(&self, requester: u16, ranges: &[GpaRange]) -> Arc<AtomicBool> {
        let changed = Arc::new(AtomicBool::new(false));
        let mut watches = self.watches.lock();
        watches.retain(|w| w.changed.strong_count() > 0);
        watches.push(Watch { requester, ranges: ranges.to_vec(), changed: Arc::downgrade(&changed) });
        changed
    }
    /// Contexts and pages remembered.
    pub fn size(&self) -> (usize, usize) {
        let entries = self.entries.read();
        (entries.contexts.len(), entries.pages.len())
    }
}
