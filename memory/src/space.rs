//! Address spaces: what is mapped where.

use crate::mmio::MmioDevice;
use crate::notify::Notifier;
use crate::view::{FlatRange, FlatTarget, MmioTarget, RamTarget, same_ram};
use crate::{ChangeListener, ChangeReason, FlatView, Gpa, GpaRange, MemoryChange, RamBlock, Subscription};
use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock, Weak};
use thiserror::Error;

/// Why a mapping is impossible.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MapError {
    #[error("'{name}': range {start:#x}+{len:#x} is empty or leaves the address space")]
    Range { name: String, start: u64, len: u64 },
    #[error("'{name}': range {offset:#x}+{len:#x} leaves the memory block")]
    Block { name: String, offset: u64, len: u64 },
}

/// What a mapping shows.
enum Content {
    Ram(RamTarget),
    RomDevice { ram: RamTarget, device: MmioTarget, rom_mode: bool },
    Mmio(MmioTarget),
    Alias { space: Arc<AddressSpace>, start: u64 },
}

struct Region {
    id: u64,
    start: u64,
    len: u64,
    priority: i32,
    enabled: bool,
    content: Content,
}

#[derive(Default)]
struct State {
    regions: Vec<Region>,
    next_id: u64,
    generation: u64,
    transactions: u32,
    stale: bool,
    /// Address spaces that show parts of this one.
    viewers: Vec<Weak<AddressSpace>>,
}

/// An address space. Where mappings overlap the higher priority wins; at equal priority the later one.
pub struct AddressSpace {
    name: String,
    view: ArcSwap<FlatView>,
    state: Mutex<State>,
    notifier: Notifier,
    secure: OnceLock<Weak<AddressSpace>>,
}

fn check_range(name: &str, start: u64, len: u64) -> Result<(), MapError> {
    if len != 0 && start.checked_add(len - 1).is_some() {
        Ok(())
    } else {
        Err(MapError::Range { name: name.to_owned(), start, len })
    }
}

impl AddressSpace {
    /// A new empty address space.
    #[must_use]
    pub fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            view: ArcSwap::default(),
            state: Mutex::default(),
            notifier: Notifier::default(),
            secure: OnceLock::new(),
        })
    }
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Sets what secure accesses see (Arm Secure state, x86 SMM): usually a space that shows this one and more over it. Once, before
    /// an accelerator is made over this space; the owner of the machine keeps it alive.
    pub fn set_secure_side(&self, side: &Arc<AddressSpace>) {
        // A second one would be a construction error; the first stays.
        let _ = self.secure.set(Arc::downgrade(side));
    }
    /// What secure accesses see, where that is another space than this.
    #[must_use]
    pub fn secure_side(&self) -> Option<Arc<AddressSpace>> {
        self.secure.get().and_then(Weak::upgrade)
    }

    // ---- mapping ----

    fn map(self: &Arc<Self>, gpa: Gpa, len: u64, priority: i32, content: Content) -> Mapping {
        let id = {
            let mut state = self.state.lock();
            state.next_id += 1;
            let id = state.next_id;
            state.regions.push(Region { id, start: gpa.0, len, priority, enabled: true, content });
            id
        };
        self.changed();
        Mapping { space: self.clone(), id }
    }

    fn ram_target(
        gpa: Gpa,
        block: &Arc<RamBlock>,
        offset: u64,
        len: u64,
        readonly: bool,
    ) -> Result<RamTarget, MapError> {
        check_range(block.name(), gpa.0, len)?;
        if offset.checked_add(len).is_none_or(|end| end > block.len()) {
            return Err(MapError::Block { name: block.name().to_owned(), offset, len });
        }
        Ok(RamTarget { block: block.clone(), offset, readonly, writes: None })
    }

    /// Maps `len` bytes of `block` from `offset`, read-write.
    ///
    /// # Errors
    /// [`MapError`] if a range is impossible (same for all `map_*`).
    pub fn map_ram(
        self: &Arc<Self>,
        gpa: Gpa,
        block: &Arc<RamBlock>,
        offset: u64,
        len: u64,
        priority: i32,
    ) -> Result<Mapping, MapError> {
        let ram = Self::ram_target(gpa, block, offset, len, false)?;
        Ok(self.map(gpa, len, priority, Content::Ram(ram)))
    }
    /// Maps `len` bytes of `block` from `offset`, read-only for CPUs and devices.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn map_rom(
        self: &Arc<Self>,
        gpa: Gpa,
        block: &Arc<RamBlock>,
        offset: u64,
        len: u64,
        priority: i32,
    ) -> Result<Mapping, MapError> {
        let ram = Self::ram_target(gpa, block, offset, len, true)?;
        Ok(self.map(gpa, len, priority, Content::Ram(ram)))
    }
    /// Maps a device's region of `len` bytes.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn map_mmio(
        self: &Arc<Self>,
        gpa: Gpa,
        len: u64,
        device: Arc<dyn MmioDevice>,
        priority: i32,
    ) -> Result<Mapping, MapError> {
        check_range(device.name(), gpa.0, len)?;
        let rules = device.rules();
        Ok(self.map(gpa, len, priority, Content::Mmio(MmioTarget { device, offset: 0, rules })))
    }
    /// Maps memory that reads directly and whose writes go to `device`; [`Mapping::set_rom_mode`]`(false)` sends reads there too
    /// (flash in command mode).
    ///
    /// # Errors
    /// [`MapError`].
    pub fn map_rom_device(
        self: &Arc<Self>,
        gpa: Gpa,
        block: &Arc<RamBlock>,
        offset: u64,
        len: u64,
        device: Arc<dyn MmioDevice>,
        priority: i32,
    ) -> Result<Mapping, MapError> {
        let ram = Self::ram_target(gpa, block, offset, len, true)?;
        let rules = device.rules();
        let device = MmioTarget { device, offset: 0, rules };
        Ok(self.map(gpa, len, priority, Content::RomDevice { ram, device, rom_mode: true }))
    }
    /// Shows `len` bytes of `target` from `target_gpa` at `gpa`; follows later changes of `target`, holes show what is below. An
    /// address space must not show itself, directly or through others.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn map_alias(
        self: &Arc<Self>,
        gpa: Gpa,
        target: &Arc<AddressSpace>,
        target_gpa: Gpa,
        len: u64,
        priority: i32,
    ) -> Result<Mapping, MapError> {
        check_range(&target.name, gpa.0, len)?;
        check_range(&target.name, target_gpa.0, len)?;
        {
            let mut state = target.state.lock();
            state.viewers.retain(|v| v.strong_count() > 0);
            if !state.viewers.iter().any(|v| v.as_ptr() == Arc::as_ptr(self)) {
                state.viewers.push(Arc::downgrade(self));
            }
        }
        Ok(self.map(gpa, len, priority, Content::Alias { space: target.clone(), start: target_gpa.0 }))
    }
    /// Runs `f`; the view is rebuilt and announced once at its end, however many mappings change in it.
    pub fn transaction<R>(&self, f: impl FnOnce() -> R) -> R {
        struct End<'a>(&'a AddressSpace);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                let rebuild = {
                    let mut state = self.0.state.lock();
                    state.transactions -= 1;
                    state.transactions == 0 && std::mem::take(&mut state.stale)
                };
                if rebuild {
                    self.0.changed();
                }
            }
        }
        self.state.lock().transactions += 1;
        let _end = End(self);
        f()
    }

    /// Rebuilds and announces, or notes that this is to be done at the end of a transaction.
    fn changed(&self) {
        let (old, new, viewers) = {
            let mut state = self.state.lock();
            if state.transactions > 0 {
                state.stale = true;
                return;
            }
            state.generation += 1;
            let new = Arc::new(FlatView { ranges: flatten(&state.regions), generation: state.generation });
            let old = self.view.swap(new.clone());
            (old, new, state.viewers.clone())
        };
        // What lost mere writability, and what became something else.
        let (mut downgraded, mut protected, mut replaced) = (Vec::new(), Vec::new(), Vec::new());
        for (range, was, is) in old.changes(&new) {
            match (was, is) {
                (Some(FlatTarget::Ram(a)), Some(FlatTarget::Ram(b))) if same_ram(&a, &b) => {
                    if b.readonly {
                        push_merged(&mut downgraded, range)
                    } else {
                        push_merged(&mut protected, range)
                    }
                }
                _ => push_merged(&mut replaced, range),
            }
        }
        for (ranges, reason, read_only_downgrade) in [
            (downgraded, ChangeReason::RangeProtection, true),
            (protected, ChangeReason::RangeProtection, false),
            (replaced, ChangeReason::Unmap, false),
        ] {
            if !ranges.is_empty() {
                self.notifier.announce(&MemoryChange {
                    reason,
                    ranges,
                    read_only_downgrade,
                    generation: new.generation,
                });
            }
        }
        for viewer in viewers.iter().filter_map(Weak::upgrade) {
            viewer.changed();
        }
    }

    // ---- the view ----

    /// The current view; cheap, lock-free. Do not keep it across waits.
    #[inline]
    #[must_use]
    pub fn view(&self) -> Guard<Arc<FlatView>> {
        self.view.load()
    }
    /// The generation of the current view.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.view.load().generation
    }
    /// Subscribes to changes until the subscription is dropped.
    pub fn subscribe(&self, listener: Arc<dyn ChangeListener>) -> Subscription {
        self.notifier.subscribe(listener)
    }
    /// The whole pages of a range that are RAM are guest code's alone from now on, or everybody's: accesses by others are refused
    /// wherever the memory is mapped, and who kept a host address is told. Private pages are the accelerator's to keep; what they hold
    /// is not what the block holds.
    pub fn set_private(&self, range: GpaRange, on: bool) {
        let mut changed = Vec::new();
        for flat in self.view().ranges().iter().filter(|r| r.range.overlaps(&range)) {
            let FlatTarget::Ram(ram) = &flat.target else { continue };
            let (first, last) = (flat.range.start.0.max(range.start.0), flat.range.last().min(range.last()));
            let offset = ram.offset + (first - flat.range.start.0);
            ram.block.set_private(offset, last - first + 1, on);
            changed.push((ram.block.clone(), offset, last - first + 1));
        }
        self.private_changed(&changed);
    }
    /// Tells those who look at the memory here, then those who look at this space.
    fn private_changed(&self, changed: &[(Arc<RamBlock>, u64, u64)]) {
        let (view, viewers) = {
            let mut state = self.state.lock();
            state.generation += 1;
            let ranges = self.view.load().ranges.clone();
            let view = Arc::new(FlatView { ranges, generation: state.generation });
            self.view.store(view.clone());
            (view, state.viewers.clone())
        };
        let mut ranges = Vec::new();
        for flat in view.ranges() {
            let FlatTarget::Ram(ram) = &flat.target else { continue };
            for (_, offset, len) in changed.iter().filter(|c| Arc::ptr_eq(&c.0, &ram.block)) {
                let (first, end) = ((*offset).max(ram.offset), (offset + len).min(ram.offset + flat.range.len));
                if first < end {
                    let start = flat.range.start.offset(first - ram.offset);
                    push_merged(&mut ranges, GpaRange { start, len: end - first });
                }
            }
        }
        if !ranges.is_empty() {
            let (reason, generation) = (ChangeReason::PrivateShared, view.generation);
            self.notifier.announce(&MemoryChange { reason, ranges, read_only_downgrade: false, generation });
        }
        for viewer in viewers.iter().filter_map(Weak::upgrade) {
            viewer.private_changed(changed);
        }
    }
    /// Announces a change that is not one of the mappings (protection, discard, migration). The generation is filled in.
    pub fn announce(&self, change: MemoryChange) {
        self.notifier.announce(&MemoryChange { generation: self.generation(), ..change });
    }
}

fn push_merged(ranges: &mut Vec<GpaRange>, next: GpaRange) {
    match ranges.last_mut() {
        Some(last) if last.last().wrapping_add(1) == next.start.0 => last.len += next.len,
        _ => ranges.push(next),
    }
}

/// What `region` puts at which addresses.
fn pieces(region: &Region) -> Vec<FlatRange> {
    let whole = |target| vec![FlatRange { range: GpaRange { start: Gpa(region.start), len: region.len }, target }];
    match &region.content {
        Content::Ram(ram) => whole(FlatTarget::Ram(ram.clone())),
        Content::Mmio(mmio) => whole(FlatTarget::Mmio(mmio.clone())),
        Content::RomDevice { ram, device, rom_mode: true } => {
            whole(FlatTarget::Ram(RamTarget { writes: Some(device.clone()), ..ram.clone() }))
        }
        Content::RomDevice { device, rom_mode: false, .. } => whole(FlatTarget::Mmio(device.clone())),
        Content::Alias { space, start } => {
            let view = space.view();
            let window = GpaRange { start: Gpa(*start), len: region.len };
            let inside = view.ranges().iter().filter(|r| r.range.overlaps(&window));
            inside
                .map(|r| {
                    let first = r.range.start.0.max(window.start.0);
                    let last = r.range.last().min(window.last());
                    FlatRange {
                        range: GpaRange { start: Gpa(first - window.start.0 + region.start), len: last - first + 1 },
                        target: r.target.advance(first - r.range.start.0),
                    }
                })
                .collect()
        }
    }
}

/// Paints the regions, highest priority first; what is painted stays.
fn flatten(regions: &[Region]) -> Vec<FlatRange> {
    let mut order: Vec<&Region> = regions.iter().filter(|r| r.enabled).collect();
    order.sort_by_key(|r| std::cmp::Reverse((r.priority, r.id)));
    let mut flat: Vec<FlatRange> = Vec::new();
    for piece in order.into_iter().flat_map(pieces) {
        // Walk the painted ranges that overlap the piece and fill the gaps between them.
        let (mut at, last) = (piece.range.start.0, piece.range.last());
        let mut gaps = Vec::new();
        let mut done = false;
        let from = flat.partition_point(|r| r.range.last() < at);
        for painted in &flat[from..] {
            if painted.range.start.0 > last {
                break;
            }
            if painted.range.start.0 > at {
                gaps.push((at, painted.range.start.0 - 1));
            }
            match painted.range.last().checked_add(1) {
                Some(next) if next <= last => at = at.max(next),
                _ => {
                    done = true;
                    break;
                }
            }
        }
        if !done {
            gaps.push((at, last));
        }
        for (first, last) in gaps {
            let range = GpaRange { start: Gpa(first), len: last - first + 1 };
            let target = piece.target.advance(first - piece.range.start.0);
            let place = flat.partition_point(|r| r.range.start.0 < first);
            flat.insert(place, FlatRange { range, target });
        }
    }
    flat
}

/// Owns one mapping; dropping it unmaps.
#[must_use = "dropping a Mapping unmaps it"]
pub struct Mapping {
    space: Arc<AddressSpace>,
    id: u64,
}

impl Mapping {
    /// Changes the region; `f` answers whether the view changes.
    fn with(&self, f: impl FnOnce(&mut Region) -> bool) {
        let changed = {
            let mut state = self.space.state.lock();
            state.regions.iter_mut().find(|r| r.id == self.id).is_some_and(f)
        };
        if changed {
            self.space.changed();
        }
    }
    fn get<R: Default>(&self, f: impl FnOnce(&Region) -> R) -> R {
        self.space.state.lock().regions.iter().find(|r| r.id == self.id).map(f).unwrap_or_default()
    }
    /// Shows or hides the mapping (PCI memory enable, BAR).
    pub fn set_enabled(&self, enabled: bool) {
        self.with(|r| std::mem::replace(&mut r.enabled, enabled) != enabled);
    }
    /// Moves the mapping.
    ///
    /// # Errors
    /// [`MapError::Range`]; the mapping stays where it was.
    pub fn move_to(&self, gpa: Gpa) -> Result<(), MapError> {
        check_range(&self.space.name, gpa.0, self.len())?;
        self.with(|r| std::mem::replace(&mut r.start, gpa.0) != gpa.0 && r.enabled);
        Ok(())
    }
    /// For [`AddressSpace::map_rom_device`]: true = reads come from memory, false = from the device.
    pub fn set_rom_mode(&self, rom: bool) {
        self.with(|r| match &mut r.content {
            Content::RomDevice { rom_mode, .. } => std::mem::replace(rom_mode, rom) != rom && r.enabled,
            _ => false,
        });
    }
    #[must_use]
    pub fn gpa(&self) -> Gpa {
        self.get(|r| Gpa(r.start))
    }
    #[must_use]
    pub fn len(&self) -> u64 {
        self.get(|r| r.len)
    }
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.get(|r| r.enabled)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // The region's content is dropped after the lock, since a device may own mappings itself.
        let removed = {
            let mut state = self.space.state.lock();
            state.regions.iter().position(|r| r.id == self.id).map(|i| state.regions.remove(i))
        };
        if removed.is_some_and(|r| r.enabled) {
            self.space.changed();
        }
    }
}
