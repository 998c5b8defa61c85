//! Dirty bitmaps of nodes: which parts of an image have changed since somebody looked, for copies of nothing else. They go with the
//! emulator; those within images are of `qcow2`.

use crate::{BlockBackend, Extent, Geometry, Segment, segment::total};
use parking_lot::{Mutex, RwLock};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Parts of an image, all of the same size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    bits: Vec<u64>,
    count: u64,
    /// Bytes of the image.
    len: u64,
    /// Bytes of a part, a power of two.
    unit: u64,
}

impl Parts {
    /// Of no image.
    pub const NONE: Self = Self { bits: Vec::new(), count: 0, len: 0, unit: 512 };

    fn new(len: u64, unit: u64) -> Option<Self> {
        let words = usize::try_from(len.div_ceil(unit).div_ceil(64)).ok()?;
        Some(Self { bits: vec![0; words], count: 0, len, unit })
    }
    /// Adds all parts of which some bytes are in the range.
    pub fn mark(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.len);
        if offset >= end {
            return;
        }
        for part in offset / self.unit..=(end - 1) / self.unit {
            if let Some(word) = self.bits.get_mut((part / 64) as usize) {
                self.count += u64::from(*word & 1 << (part % 64) == 0);
                *word |= 1 << (part % 64);
            }
        }
    }
    /// Is any byte of the range in one of them?
    #[must_use]
    pub fn touches(&self, offset: u64, len: u64) -> bool {
        let end = offset.saturating_add(len).min(self.len);
        let is = |part: u64| self.bits.get((part / 64) as usize).is_some_and(|w| w & 1 << (part % 64) != 0);
        offset < end && (offset / self.unit..=(end - 1) / self.unit).any(is)
    }
    /// Ranges of bytes: offset and length of each part.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        let parts = self.bits.iter().enumerate().filter(|(_, w)| **w != 0);
        let parts =
            parts.flat_map(|(n, w)| (0..64).filter(move |bit| w & 1 << bit != 0).map(move |bit| n as u64 * 64 + bit));
        parts.map(|part| (part * self.unit, self.unit.min(self.len.saturating_sub(part * self.unit))))
    }
    /// Adds what is in `other`, whose parts may have another size.
    pub fn merge(&mut self, other: &Self) {
        other.ranges().for_each(|(offset, len)| self.mark(offset, len));
    }
    /// Keeps the parts (offset and length) for which `f` is true.
    pub fn retain(&mut self, f: impl Fn(u64, u64) -> bool) {
        let mut kept = Self { bits: vec![0; self.bits.len()], count: 0, ..*self };
        self.ranges().filter(|(offset, len)| f(*offset, *len)).for_each(|(offset, len)| kept.mark(offset, len));
        *self = kept;
    }
    /// Bytes in them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (self.count * self.unit).min(self.len)
    }
    fn resize(&mut self, len: u64) {
        let Some(mut new) = Self::new(len, self.unit) else { return };
        new.merge(self);
        // What is new was not there when somebody looked.
        new.mark(self.len, len.saturating_sub(self.len));
        *self = new;
    }
}

#[derive(Debug)]
struct State {
    parts: Parts,
    recording: bool,
    busy: bool,
}

/// A dirty bitmap.
#[derive(Debug)]
pub struct DirtyBitmap {
    name: String,
    state: Mutex<State>,
}

impl DirtyBitmap {
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Bytes that a bit stands for.
    #[must_use]
    pub fn granularity(&self) -> u64 {
        self.state.lock().parts.unit
    }
    /// Bytes that are dirty.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.state.lock().parts.bytes()
    }
    #[must_use]
    pub fn is_recording(&self) -> bool {
        self.state.lock().recording
    }
    /// Whether it was.
    pub fn record(&self, on: bool) -> bool {
        std::mem::replace(&mut self.state.lock().recording, on)
    }
    /// A job uses it.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.state.lock().busy
    }
    /// A job begins or ends to use it; whether one did.
    pub fn use_it(&self, on: bool) -> bool {
        std::mem::replace(&mut self.state.lock().busy, on)
    }
    /// What is dirty.
    #[must_use]
    pub fn parts(&self) -> Parts {
        self.state.lock().parts.clone()
    }
    /// What is dirty, which is clean then.
    #[must_use]
    pub fn take(&self) -> Parts {
        let parts = &mut self.state.lock().parts;
        let clean = Parts { bits: vec![0; parts.bits.len()], count: 0, ..*parts };
        std::mem::replace(parts, clean)
    }
    /// More is dirty.
    pub fn merge(&self, parts: &Parts) {
        self.state.lock().parts.merge(parts);
    }
    /// What is dirty, from now on.
    pub fn set(&self, parts: &Parts) {
        let mut state = self.state.lock();
        state.parts.bits.fill(0);
        state.parts.count = 0;
        state.parts.merge(parts);
    }
}

/// The dirty bitmaps of a node.
#[derive(Default)]
pub struct DirtyBitmaps {
    list: RwLock<Vec<Arc<DirtyBitmap>>>,
    any: AtomicBool,
}

impl DirtyBitmaps {
    #[must_use]
    pub fn list(&self) -> Vec<Arc<DirtyBitmap>> {
        self.list.read().clone()
    }
    /// # Errors
    /// There is none.
    pub fn find(&self, name: &str) -> Result<Arc<DirtyBitmap>, String> {
        let found = self.list.read().iter().find(|b| b.name == name).cloned();
        found.ok_or_else(|| format!("Dirty bitmap '{name}' not found"))
    }
    /// A new one of an image of `len` bytes, all clean; `unit`: bytes that a bit stands for.
    ///
    /// # Errors
    /// One line.
    pub fn add(&self, name: &str, len: u64, unit: u64, recording: bool) -> Result<Arc<DirtyBitmap>, String> {
        if name.is_empty() || name.len() > 1023 {
            return Err("Bitmap name must have 1 to 1023 bytes".to_owned());
        }
        if !unit.is_power_of_two() || !(512..=1 << 31).contains(&unit) {
            return Err("Granularity must be a power of 2 from 512 to 2 GiB".to_owned());
        }
        let parts = Parts::new(len, unit).ok_or_else(|| "the image is too large".to_owned())?;
        let bitmap = DirtyBitmap { name: name.to_owned(), state: Mutex::new(State { parts, recording, busy: false }) };
        self.put(Arc::new(bitmap))
    }
    /// Adds one that there was.
    ///
    /// # Errors
    /// There is one of this name.
    pub fn put(&self, bitmap: Arc<DirtyBitmap>) -> Result<Arc<DirtyBitmap>, String> {
        let mut list = self.list.write();
        if list.iter().any(|b| b.name == bitmap.name) {
            return Err(format!("Bitmap already exists: {}", bitmap.name));
        }
        list.push(bitmap.clone());
        self.any.store(true, Ordering::SeqCst);
        Ok(bitmap)
    }
    pub fn remove(&self, name: &str) {
        let mut list = self.list.write();
        list.retain(|b| b.name != name);
        self.any.store(!list.is_empty(), Ordering::SeqCst);
    }
    fn each(&self, f: impl Fn(&mut State)) {
        if self.any.load(Ordering::SeqCst) {
            self.list.read().iter().for_each(|b| f(&mut b.state.lock()));
        }
    }
    fn mark(&self, offset: u64, len: u64) {
        self.each(|state| {
            if state.recording {
                state.parts.mark(offset, len);
            }
        });
    }
}

/// An image whose changes its bitmaps follow.
pub(crate) struct Recorded {
    pub(crate) below: Arc<dyn BlockBackend>,
    pub(crate) bitmaps: DirtyBitmaps,
}

impl Recorded {
    fn change(&self, offset: u64, len: u64, change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let result = change();
        // Also where it failed: some of it may have been written.
        self.bitmaps.mark(offset, len);
        result
    }
}

impl BlockBackend for Recorded {
    fn capacity(&self) -> u64 {
        self.below.capacity()
    }
    fn read(&self, offset: u64, segments: &mut [Segment]) -> io::Result<()> {
        self.below.read(offset, segments)
    }
    fn read_now(&self, offset: u64, segments: &mut [Segment]) -> Option<io::Result<()>> {
        self.below.read_now(offset, segments)
    }
    fn write(&self, offset: u64, segments: &[Segment]) -> io::Result<()> {
        self.change(offset, total(segments), || self.below.write(offset, segments))
    }
    fn flush(&self) -> io::Result<()> {
        self.below.flush()
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change(offset, len, || self.below.discard(offset, len))
    }
    fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> io::Result<()> {
        self.change(offset, len, || self.below.write_zeroes(offset, len, may_unmap))
    }
    fn readonly(&self) -> bool {
        self.below.readonly()
    }
    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }
    fn description(&self) -> String {
        self.below.description()
    }
    fn read_part(&self, offset: u64, segments: &mut [Segment], skip: u64, len: u64) -> io::Result<()> {
        self.below.read_part(offset, segments, skip, len)
    }
    fn read_part_now(&self, offset: u64, segments: &mut [Segment], skip: u64, len: u64) -> Option<io::Result<()>> {
        self.below.read_part_now(offset, segments, skip, len)
    }
    fn write_part(&self, offset: u64, segments: &[Segment], skip: u64, len: u64) -> io::Result<()> {
        self.change(offset, len, || self.below.write_part(offset, segments, skip, len))
    }
    fn read_bytes(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.below.read_bytes(offset, data)
    }
    fn write_bytes(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(offset, data.len() as u64, || self.below.write_bytes(offset, data))
    }
    fn status(&self, offset: u64, len: u64) -> io::Result<Extent> {
        self.below.status(offset, len)
    }
    fn below(&self) -> Option<Arc<dyn BlockBackend>> {
        self.below.below()
    }
    fn resize(&self, capacity: u64) -> io::Result<()> {
        self.below.resize(capacity)?;
        self.bitmaps.each(|state| state.parts.resize(capacity));
        Ok(())
    }
    fn allocated_size(&self) -> Option<u64> {
        self.below.allocated_size()
    }
    fn cluster_size(&self) -> u64 {
        self.below.cluster_size()
    }
    fn close(&self) -> io::Result<()> {
        self.below.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryBackend;

    #[test]
    fn what_changes_is_marked() {
        let image: Arc<dyn BlockBackend> = Arc::new(MemoryBackend::new(vec![0; 1 << 20], false));
        let recorded = Recorded { below: image, bitmaps: DirtyBitmaps::default() };
        let list = &recorded.bitmaps;
        let fine = list.add("fine", 1 << 20, 512, true).unwrap();
        let coarse = list.add("coarse", 1 << 20, 65536, false).unwrap();
        for (name, unit, why) in [
            ("fine", 512, "already exists: fine"),
            ("", 512, "1 to 1023"),
            ("x", 256, "power of 2"),
            ("x", 1000, "power of 2"),
        ] {
            assert!(list.add(name, 1 << 20, unit, true).is_err_and(|e| e.contains(why)), "{name}");
        }
        recorded.write_bytes(1000, &[1; 100]).unwrap();
        recorded.write_zeroes(65536, 512, true).unwrap();
        recorded.discard((1 << 20) - 512, 512).unwrap();
        assert_eq!(
            fine.parts().ranges().collect::<Vec<_>>(),
            [(512, 512), (1024, 512), (65536, 512), ((1 << 20) - 512, 512)]
        );
        assert_eq!((fine.bytes(), coarse.bytes()), (2048, 0));
        coarse.merge(&fine.parts());
        assert_eq!(coarse.parts().ranges().collect::<Vec<_>>(), [(0, 65536), (65536, 65536), (15 << 16, 65536)]);
        assert!(coarse.parts().touches(70000, 1) && !coarse.parts().touches(131072, 65536));
        let taken = fine.take();
        assert_eq!((taken.bytes(), fine.bytes()), (2048, 0));
        fine.set(&coarse.parts());
        assert_eq!(fine.bytes(), 3 << 16);
        fine.set(&taken);
        assert_eq!(fine.parts(), taken);
        list.remove("fine");
        assert!(list.find("fine").is_err_and(|e| e == "Dirty bitmap 'fine' not found"));
        list.put(fine.clone()).unwrap();
        assert!(fine.record(false));
        recorded.write_bytes(300_000, &[1]).unwrap();
        assert_eq!(fine.bytes(), 2048);
    }

    #[test]
    fn what_grows_is_dirty() {
        let mut parts = Parts::new(5 << 16, 65536).unwrap();
        parts.mark(0, 1);
        parts.resize((7 << 16) + 512);
        assert_eq!(
            parts.ranges().collect::<Vec<_>>(),
            [(0, 65536), (5 << 16, 65536), (6 << 16, 65536), (7 << 16, 512)]
        );
        parts.resize(65536);
        assert_eq!(parts.bytes(), 65536);
        parts.mark(u64::MAX - 1, 100);
        assert_eq!(parts.bytes(), 65536);
    }
}
