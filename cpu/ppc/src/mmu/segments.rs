//! How segments and TLBs go together.
//!
//! The engine's TLBs hold translations of effective addresses, for a *context*. Segments of class 0 are those of the operating
//! system: their translations are global, and dropped when the segment goes. Segments of class 1 belong to a process: when all of them
//! are gone, the context ends, and when the first of the next ones comes, the context that knew it is taken up again, so that a
//! process finds its translations after others ran.
//!
//! slbmte leaves lookaside information as it is (Book III); slbie and slbia end it at the next context synchronizing event.

use crate::state::PpcCpu;
use parking_lot::Mutex;
use rhea_ir::guest::{Contexts as Which, TlbFlush, request};
use std::collections::HashMap;

/// A mapping of effective to virtual addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// First effective address.
    pub base: u64,
    pub shift: u32,
    /// The second doubleword of the SLB entry.
    pub vsid: u64,
}

impl Segment {
    fn overlaps(&self, base: u64, shift: u32) -> bool {
        (self.base ^ base) >> self.shift.max(shift) == 0
    }
}

/// The segments that translations of a context were made with.
#[derive(Clone, Debug, Default)]
struct Known {
    id: u64,
    used: u64,
    segments: Vec<Segment>,
}

/// Contexts kept; as many as the engine keeps TLBs for, about.
const KEPT: usize = 8;
/// Segments of a context, after which it starts anew.
const MANY: usize = 512;
/// Above the identifiers of processes.
const FIRST: u64 = 1 << 40;

/// The contexts of a processor under a hashed page table.
#[derive(Debug)]
pub(crate) struct Contexts {
    /// The current one; 0: none, no segment of class 1 is there.
    current: u64,
    known: Vec<Known>,
    global: Vec<Segment>,
    /// Segments of class 1 that were invalidated since the last synchronization: base and size.
    removed: Vec<(u64, u32)>,
    next: u64,
    tick: u64,
}

impl Default for Contexts {
    fn default() -> Contexts {
        Contexts {
            current: FIRST,
            known: Vec::new(),
            global: Vec::new(),
            removed: Vec::new(),
            next: FIRST + 1,
            tick: 0,
        }
    }
}

impl Contexts {
    /// What `Guest::context` says.
    pub fn current(&self) -> u64 {
        self.current
    }
    /// After a reset no identifier comes again.
    pub fn next_after(&mut self, old: &Contexts) {
        self.next = old.next;
    }
    fn find(&mut self, id: u64) -> Option<&mut Known> {
        self.known.iter_mut().find(|k| k.id == id)
    }
}

/// Where in effective address spaces the virtual segments of a machine are: of all its processors, for invalidations by virtual
/// address. On the slow paths of slbmte and of changes of the page table only.
#[derive(Debug, Default)]
pub struct SegmentMap(Mutex<HashMap<u64, Option<u64>>>);

/// Virtual segments remembered.
const REMEMBERED: usize = 1 << 16;

impl SegmentMap {
    fn key(vsid: u64) -> u64 {
        vsid & !0xfff
    }
    /// A processor maps the segment; false: too many are known, everything must be flushed and is forgotten.
    fn note(&self, s: &Segment) -> bool {
        let mut map = self.0.lock();
        let full = map.len() >= REMEMBERED;
        if full {
            map.clear();
        }
        map.entry(Self::key(s.vsid)).and_modify(|at| *at = at.filter(|at| *at == s.base)).or_insert(Some(s.base));
        !full
    }
    /// The effective address of a virtual segment (B and VSID as in an SLB entry); `Some(None)`: several.
    fn find(&self, vsid: u64) -> Option<Option<u64>> {
        self.0.lock().get(&Self::key(vsid)).copied()
    }
}

impl PpcCpu {
    /// All indexes of translated accesses.
    pub(crate) const TRANSLATED: u16 = !1;

    fn flush_segment(&mut self, base: u64, shift: u32, of: Which) {
        let pages = 1u64 << (shift - 12);
        self.flush(TlbFlush::Range { va: base, pages, indexes: Self::TRANSLATED, of }, false);
    }
    fn set_context(&mut self, id: u64) {
        if std::mem::replace(&mut self.sys.contexts.current, id) != id {
            self.request(request::ACCEL);
        }
    }

    /// An entry of the SLB becomes valid.
    pub(super) fn enter_segment(&mut self, s: Segment, class: bool) {
        if !self.config.segments.note(&s) {
            self.flush(TlbFlush::All, true);
        }
        let c = &mut self.sys.contexts;
        let of_global = c.global.iter().position(|g| g.overlaps(s.base, s.shift));
        if !class {
            if of_global.is_some_and(|n| c.global[n] == s) {
                return;
            }
            // What was known of these addresses, in any context, is no longer true.
            let stale =
                c.global.iter().chain(c.known.iter().flat_map(|k| &k.segments)).any(|g| g.overlaps(s.base, s.shift));
            c.global.retain(|g| !g.overlaps(s.base, s.shift));
            if c.global.len() >= MANY {
                c.global.clear();
                self.flush(TlbFlush::All, false);
            }
            let c = &mut self.sys.contexts;
            c.global.push(s);
            if stale {
                c.known.iter_mut().for_each(|k| k.segments.retain(|g| !g.overlaps(s.base, s.shift)));
                self.flush_segment(s.base, s.shift, Which::ALL);
            }
            return;
        }
        if of_global.is_some() {
            c.global.retain(|g| !g.overlaps(s.base, s.shift));
            self.flush_segment(s.base, s.shift, Which::ALL);
        }
        let c = &mut self.sys.contexts;
        c.tick += 1;
        let tick = c.tick;
        if c.current == FIRST {
            let id = match c.known.iter().find(|k| k.segments.contains(&s)) {
                Some(k) => k.id,
                None => {
                    if c.known.len() >= KEPT
                        && let Some(oldest) = (0..c.known.len()).min_by_key(|&n| c.known[n].used)
                    {
                        c.known.swap_remove(oldest);
                    }
                    let id = c.next;
                    c.next += 1;
                    c.known.push(Known { id, used: tick, segments: Vec::new() });
                    id
                }
            };
            self.set_context(id);
        }
        let c = &mut self.sys.contexts;
        let id = c.current;
        let Some(k) = c.find(id) else { return };
        k.used = tick;
        if k.segments.contains(&s) {
            return;
        }
        let stale = k.segments.iter().any(|g| g.overlaps(s.base, s.shift)) || k.segments.len() >= MANY;
        if k.segments.len() >= MANY {
            k.segments.clear();
            self.flush(TlbFlush::Context { indexes: Self::TRANSLATED, of: Which { mask: u64::MAX, value: id } }, false);
        } else if stale {
            k.segments.retain(|g| !g.overlaps(s.base, s.shift));
            self.flush_segment(s.base, s.shift, Which { mask: u64::MAX, value: id });
        }
        if let Some(k) = self.sys.contexts.find(id) {
            k.segments.push(s);
        }
    }

    /// An entry of the SLB was invalidated by slbie or slbia.
    pub(super) fn leave_segment(&mut self, base: u64, shift: u32, class: bool) {
        let c = &mut self.sys.contexts;
        if !class || c.global.iter().any(|g| g.overlaps(base, shift)) {
            let before = c.global.len();
            c.global.retain(|g| !g.overlaps(base, shift));
            if c.global.len() != before {
                self.flush_segment(base, shift, Which::ALL);
            }
        }
        let c = &mut self.sys.contexts;
        if class && c.current != FIRST && !c.removed.contains(&(base, shift)) {
            c.removed.push((base, shift));
            self.pending_sync();
        }
    }
    /// slbia ended all lookaside information: also that of segments whose entries had been replaced.
    pub(super) fn leave_replaced_segments(&mut self) {
        let there = self.sys.slb;
        let gone: Vec<Segment> = self
            .sys
            .contexts
            .global
            .iter()
            .filter(|g| !there.iter().any(|e| e.is_valid() && e.segment() == **g))
            .copied()
            .collect();
        for s in gone {
            self.leave_segment(s.base, s.shift, false);
        }
        self.leave_user_segments();
    }
    pub(super) fn leave_user_segments(&mut self) {
        let there = self.sys.slb;
        let c = &mut self.sys.contexts;
        let id = c.current;
        let gone: Vec<(u64, u32)> = match c.find(id) {
            Some(k) => k
                .segments
                .iter()
                .filter(|g| !there.iter().any(|e| e.is_valid() && e.segment() == **g))
                .map(|s| (s.base, s.shift))
                .collect(),
            None => return,
        };
        c.removed.extend(gone);
        if !self.sys.contexts.removed.is_empty() {
            self.pending_sync();
        }
    }
    /// A context synchronizing event must see `removed`.
    fn pending_sync(&mut self) {
        self.unsynchronized = 1;
    }

    /// A context synchronizing event: what slbie and slbia removed is gone.
    pub(crate) fn sync_segments(&mut self) {
        if self.unsynchronized == 0 {
            return;
        }
        self.unsynchronized = 0;
        let removed = std::mem::take(&mut self.sys.contexts.removed);
        if removed.is_empty() {
            return;
        }
        if !self.sys.slb.iter().any(|e| e.is_valid() && e.class()) {
            // The process is left as it is.
            return self.set_context(FIRST);
        }
        let id = self.sys.contexts.current;
        let there = self.sys.slb;
        for (base, shift) in removed {
            let back = there.iter().any(|e| e.is_valid() && e.base() == base && e.shift() == shift);
            let Some(k) = self.sys.contexts.find(id) else { return };
            if back {
                continue;
            }
            let before = k.segments.len();
            k.segments.retain(|g| !g.overlaps(base, shift));
            if k.segments.len() != before {
                self.flush_segment(base, shift, Which { mask: u64::MAX, value: id });
            }
        }
    }

    /// Forgets what TLBs knew of a virtual page, on all processors: B and VSID as in an SLB entry, the offset in the segment and the
    /// size of the page.
    pub(super) fn flush_virtual_page(&mut self, vsid: u64, offset: u64, page_shift: u32) {
        match self.config.segments.find(vsid) {
            // No processor ever mapped the segment.
            None => {}
            Some(Some(base)) => {
                let shift = page_shift.clamp(12, 40);
                let va = (base | offset) >> shift << shift;
                let (pages, indexes) = (1u64 << (shift - 12), Self::TRANSLATED);
                self.flush(TlbFlush::Range { va, pages, indexes, of: Which::ALL }, true);
            }
            Some(None) => self.flush(TlbFlush::Indexes(Self::TRANSLATED), true),
        }
    }
}
