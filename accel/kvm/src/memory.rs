//! Slots of guest memory: what of an address space is RAM, told to the kernel and kept so.

use crate::error::{Context, KvmError};
use crate::host::page_size;
use crate::kick::Gate;
use crate::sys::{AnyVm, PageRing, PrivateMemory, Region, cap};
use parking_lot::Mutex;
use rhea_memory::ram::DirtySource;
use rhea_memory::{
    AddressSpace, ChangeListener, ChangeReason, DirtyClient, FlatTarget, FlatView, Gpa, GpaRange, MemoryChange,
    RamBlock, Subscription,
};
use std::sync::{Arc, Weak};

/// What becomes of an error while the machine runs.
pub type Failed = Box<dyn Fn(&KvmError) + Send + Sync>;

/// A range of RAM as the kernel sees it: whole pages.
#[derive(Clone)]
struct Range {
    gpa: u64,
    len: u64,
    block: Arc<RamBlock>,
    offset: u64,
    readonly: bool,
}

impl Range {
    fn same(&self, other: &Range) -> bool {
        self.gpa == other.gpa
            && self.len == other.len
            && Arc::ptr_eq(&self.block, &other.block)
            && self.offset == other.offset
            && self.readonly == other.readonly
    }
    fn host(&self) -> u64 {
        self.block.host_ptr().addr() as u64 + self.offset
    }
}

struct Slot {
    /// Number, and in the upper half which address space it is in.
    id: u32,
    range: Range,
    logged: bool,
    /// Its pages may be guest code's alone. Such a slot is not logged: the kernel cannot.
    private: bool,
}

#[derive(Default)]
struct State {
    slots: Vec<Slot>,
    /// Those of vCPUs, if pages that were written to are in rings.
    rings: Vec<Box<dyn PageRing>>,
}

/// The slots of a VM.
pub struct Slots {
    vm: Arc<dyn AnyVm>,
    gate: Arc<Gate>,
    /// By number: what vCPUs see, and what they see in system-management mode.
    spaces: Vec<Weak<AddressSpace>>,
    /// Slots in each.
    most: u32,
    /// The kernel has read-only memory; without it ROM is a device.
    readonly: bool,
    state: Mutex<State>,
    /// What of the RAM may be guest code's alone.
    private: Option<Private>,
    failed: Failed,
    me: Weak<Slots>,
}

/// RAM that has a second face, which only guest code sees.
struct Private {
    block: Arc<RamBlock>,
    memory: Arc<dyn PrivateMemory>,
    /// One change at a time.
    changing: Mutex<()>,
}

struct Follower(Weak<Slots>, u32);

impl ChangeListener for Follower {
    fn memory_changed(&self, change: &MemoryChange) {
        // What lies behind a range changed; dirty logs and pins are no concern of the slots.
        if !matches!(change.reason, ChangeReason::Unmap | ChangeReason::RangeProtection) {
            return;
        }
        if let Some(slots) = self.0.upgrade()
            && let Err(e) = slots.update(self.1)
        {
            (slots.failed)(&e);
        }
    }
}

/// The RAM of a view in whole pages; the rest is reached by exits.
fn ranges(view: &FlatView, readonly: bool) -> Vec<Range> {
    let page = page_size();
    let mut all: Vec<Range> = Vec::new();
    for flat in view.ranges() {
        let FlatTarget::Ram(ram) = &flat.target else { continue };
        if ram.readonly && !readonly {
            continue;
        }
        let start = flat.range.start.0;
        let Some(gpa) = start.checked_next_multiple_of(page) else { continue };
        let skip = gpa - start;
        let Some(len) = flat.range.len.checked_sub(skip).map(|n| n / page * page) else { continue };
        let offset = ram.offset + skip;
        // Only whole pages of the host can be shown.
        if len == 0 || !(ram.block.host_ptr().addr() as u64).wrapping_add(offset).is_multiple_of(page) {
            continue;
        }
        if let Some(last) = all.last_mut()
            && last.gpa + last.len == gpa
            && Arc::ptr_eq(&last.block, &ram.block)
            && last.offset + last.len == offset
            && last.readonly == ram.readonly
        {
            last.len += len;
            continue;
        }
        all.push(Range { gpa, len, block: ram.block.clone(), offset, readonly: ram.readonly });
    }
    all
}

impl Slots {
    /// The slots of `vm`, filled from what vCPUs see: `spaces` by number.
    ///
    /// # Errors
    /// [`KvmError`]: too many ranges, or the kernel's.
    pub fn new(
        vm: &Arc<dyn AnyVm>,
        gate: &Arc<Gate>,
        spaces: &[Arc<AddressSpace>],
        private: Option<&Arc<RamBlock>>,
        failed: Failed,
    ) -> Result<(Arc<Self>, Vec<Subscription>), KvmError> {
        let most = match vm.check(cap::NR_MEMSLOTS) {
            n if n > 0 => n as u32,
            // What kernels had before they said it.
            _ => 32,
        };
        let made = |block: &Arc<RamBlock>| {
            let memory = vm.create_private(block.len()).during("KVM_CREATE_GUEST_MEMFD")?;
            Ok(Private { block: block.clone(), memory, changing: Mutex::default() })
        };
        let private = private.map(made).transpose()?;
        let slots = Arc::new_cyclic(|me| Self {
            vm: vm.clone(),
            gate: gate.clone(),
            spaces: spaces.iter().map(Arc::downgrade).collect(),
            most,
            readonly: vm.check(cap::READONLY_MEM) > 0,
            state: Mutex::default(),
            private,
            failed,
            me: me.clone(),
        });
        let mut subscriptions = Vec::new();
        for (n, space) in spaces.iter().enumerate() {
            subscriptions.push(space.subscribe(Arc::new(Follower(Arc::downgrade(&slots), n as u32))));
            slots.update(n as u32)?;
        }
        Ok((slots, subscriptions))
    }

    fn update(&self, space: u32) -> Result<(), KvmError> {
        let Some(of) = self.spaces.get(space as usize).and_then(Weak::upgrade) else { return Ok(()) };
        // What is replaced or goes: then vCPUs must not look meanwhile, since there is a time without.
        let takes_away = {
            let state = self.state.lock();
            let wanted = ranges(&of.view(), self.readonly);
            let mut slots = state.slots.iter().filter(|s| s.id >> 16 == space);
            slots.any(|s| !wanted.iter().any(|r| r.same(&s.range)))
        };
        let apply = || {
            let mut state = self.state.lock();
            // The newest view, whoever comes last.
            let wanted = ranges(&of.view(), self.readonly);
            self.apply(&mut state, space, wanted)
        };
        if takes_away { self.gate.exclusively(apply) } else { apply() }
    }

    fn apply(&self, state: &mut State, space: u32, wanted: Vec<Range>) -> Result<(), KvmError> {
        // While all slots are known.
        self.empty(state);
        let mut kept = Vec::with_capacity(state.slots.len());
        let mut result = Ok(());
        for slot in std::mem::take(&mut state.slots) {
            if slot.id >> 16 != space || wanted.iter().any(|r| r.same(&slot.range)) {
                kept.push(slot);
                continue;
            }
            if (slot.logged || slot.private) && state.rings.is_empty() {
                self.collect_slot(&slot);
            }
            let gone = Region { len: 0, ..self.region(&slot) };
            if let Err(e) = self.vm.set_memory(&gone).during("KVM_SET_USER_MEMORY_REGION") {
                // Still there for the kernel: its memory must live on.
                kept.push(slot);
                result = Err(e);
            }
        }
        state.slots = kept;
        result?;
        for range in wanted {
            if state.slots.iter().any(|s| s.id >> 16 == space && s.range.same(&range)) {
                continue;
            }
            let free = (0..self.most.min(0x1_0000))
                .map(|n| space << 16 | n)
                .find(|id| !state.slots.iter().any(|s| s.id == *id));
            let id = free.ok_or(KvmError::Slots(self.most))?;
            range.block.add_dirty_source(self.me.clone(), &DirtyClient::ALL);
            let private = self.may_be_private(state, &range);
            let logged = range.block.dirty_logging() && !private;
            let slot = Slot { id, range, logged, private };
            self.vm.set_memory(&self.region(&slot)).map_err(|source| match source.raw_os_error() {
                Some(libc::ENOSPC) => KvmError::Slots(self.most),
                _ => KvmError::Call { call: "KVM_SET_USER_MEMORY_REGION", source },
            })?;
            state.slots.push(slot);
        }
        Ok(())
    }

    fn region(&self, slot: &Slot) -> Region {
        let Range { gpa, len, readonly, .. } = slot.range;
        let private = self.private.as_ref().filter(|_| slot.private).map(|p| (p.memory.fd(), slot.range.offset));
        Region { slot: slot.id, readonly, log: slot.logged, gpa, len, host: slot.range.host(), private }
    }

    // ---- pages that are guest code's alone ----

    /// Can the pages of a new slot be? They are in one slot only, and that one is not read-only.
    fn may_be_private(&self, state: &State, range: &Range) -> bool {
        let Some(private) = self.private.as_ref().filter(|p| Arc::ptr_eq(&p.block, &range.block)) else { return false };
        let taken = |s: &Slot| {
            s.private
                && Arc::ptr_eq(&s.range.block, &private.block)
                && s.range.offset < range.offset + range.len
                && range.offset < s.range.offset + s.range.len
        };
        !range.readonly && !state.slots.iter().any(taken)
    }
    /// Pages of a range of guest addresses become guest code's alone, or everybody's; what they held is lost. False: the range is not all
    /// memory for which that can be.
    ///
    /// # Errors
    /// [`KvmError::Call`]: they stay what they were.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only x86-64 has such machines so far"))]
    pub fn set_private(&self, start: u64, len: u64, on: bool) -> Result<bool, KvmError> {
        let size = page_size();
        let Some(private) = &self.private else { return Ok(false) };
        let Some(end) = start.checked_add(len).filter(|_| len > 0 && (start | len).is_multiple_of(size)) else {
            return Ok(false);
        };
        let Some(space) = self.spaces.first().and_then(Weak::upgrade) else { return Ok(false) };
        let _changing = private.changing.lock();
        // Where it is in the block.
        let mut pieces = Vec::new();
        {
            let state = self.state.lock();
            for slot in state.slots.iter().filter(|s| s.private) {
                let Range { gpa, len, offset, .. } = slot.range;
                let (first, last) = (gpa.max(start), (gpa + len).min(end));
                if first < last {
                    pieces.push((offset + (first - gpa), last - first));
                }
            }
        }
        if pieces.iter().map(|(_, len)| len).sum::<u64>() != len {
            return Ok(false);
        }
        self.vm.set_private(start, len, on).during("KVM_SET_MEMORY_ATTRIBUTES")?;
        space.set_private(GpaRange { start: Gpa(start), len }, on);
        for (offset, len) in pieces {
            // The face that is not seen needs no memory. What is pinned by a device keeps it.
            let _ =
                if on { private.block.discard(offset, len).is_ok() } else { private.memory.free(offset, len).is_ok() };
        }
        Ok(true)
    }
    /// All memory is everybody's again: after a reset.
    ///
    /// # Errors
    /// [`KvmError::Call`].
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only x86-64 has such machines so far"))]
    pub fn share_all(&self) -> Result<(), KvmError> {
        let Some(private) = &self.private else { return Ok(()) };
        let _changing = private.changing.lock();
        let of_block = |s: &&Slot| s.id >> 16 == 0 && Arc::ptr_eq(&s.range.block, &private.block);
        let all: Vec<Range> = self.state.lock().slots.iter().filter(of_block).map(|s| s.range.clone()).collect();
        for Range { gpa, len, .. } in all {
            self.vm.set_private(gpa, len, false).during("KVM_SET_MEMORY_ATTRIBUTES")?;
        }
        if let Some(space) = self.spaces.first().and_then(Weak::upgrade) {
            space.set_private(GpaRange { start: Gpa(0), len: u64::MAX }, false);
        }
        // What it may keep is of no use to it.
        let _ = private.memory.free(0, private.block.len());
        Ok(())
    }

    fn collect_slot(&self, slot: &Slot) {
        if slot.private {
            return slot.range.block.note_write(slot.range.offset, slot.range.len);
        }
        let words = match self.vm.dirty_log(slot.id, slot.range.len).during("KVM_GET_DIRTY_LOG") {
            Ok(words) => words,
            Err(e) => {
                (self.failed)(&e);
                // Nothing is known: all of it may have changed.
                return slot.range.block.note_write(slot.range.offset, slot.range.len);
            }
        };
        let size = page_size();
        for (n, word) in words.into_iter().enumerate() {
            let mut left = word;
            while left != 0 {
                let page = n as u64 * 64 + u64::from(left.trailing_zeros());
                left &= left - 1;
                let at = page * size;
                if at < slot.range.len {
                    slot.range.block.note_write(slot.range.offset + at, size.min(slot.range.len - at));
                }
            }
        }
    }

    /// A vCPU's ring of pages that it wrote to; from then on there are no bitmaps.
    #[cfg(target_arch = "x86_64")]
    pub fn add_ring(&self, ring: Box<dyn PageRing>) {
        self.state.lock().rings.push(ring);
    }
    /// Takes note of the pages in all rings.
    pub fn empty_rings(&self) {
        self.empty(&mut self.state.lock());
    }
    fn empty(&self, state: &mut State) {
        let State { slots, rings } = state;
        let size = page_size();
        let mut taken = false;
        for (id, page) in rings.iter_mut().flat_map(|ring| std::iter::from_fn(|| ring.pop())) {
            taken = true;
            let at = page.saturating_mul(size);
            // What was in a slot that is gone meanwhile was taken before it went.
            if let Some(Slot { range, .. }) = slots.iter().find(|s| s.id == id && at < s.range.len) {
                range.block.note_write(range.offset + at, size.min(range.len - at));
            }
        }
        if taken && let Err(e) = self.vm.reset_dirty_rings().during("KVM_RESET_DIRTY_RINGS") {
            (self.failed)(&e);
        }
    }

    /// Slots in use.
    #[must_use]
    pub fn used(&self) -> usize {
        self.state.lock().slots.len()
    }
}

impl DirtySource for Slots {
    fn track(&self, block: &RamBlock, on: bool) {
        let mut state = self.state.lock();
        for slot in
            state.slots.iter_mut().filter(|s| std::ptr::eq(&*s.range.block, block) && s.logged != on && !s.private)
        {
            slot.logged = on;
            if let Err(e) = self.vm.set_memory(&self.region(slot)).during("KVM_SET_USER_MEMORY_REGION") {
                slot.logged = !on;
                (self.failed)(&e);
            }
        }
    }
    fn collect(&self, block: &RamBlock) {
        if !self.state.lock().rings.is_empty() {
            // The processor tells of some pages only when guest code is left.
            return self.gate.exclusively(|| self.empty_rings());
        }
        let state = self.state.lock();
        let of_block = |s: &&Slot| (s.logged || s.private) && std::ptr::eq(&*s.range.block, block);
        for slot in state.slots.iter().filter(of_block) {
            self.collect_slot(slot);
        }
    }
}
