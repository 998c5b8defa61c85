//! BARs: regions of the function, shown to the guest as memory where that is possible, and through reads and writes elsewhere.
#![expect(unsafe_code, reason = "says that what the kernel mapped stays mapped, and asks for the size of pages")]

use crate::interrupts::Counters;
use crate::msix::Table;
use crate::sys::{DeviceFile, RegionInfo, RegionPages};
use parking_lot::Mutex;
use rhea_memory::{Access, AccessRules, AddressSpace, BusError, DevicePages, Gpa, Mapping, MmioDevice, RamBlock};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Told of each access that comes through the device, after it was made.
pub type Accessed = Box<dyn Fn() + Send + Sync>;

struct Pages(Arc<dyn RegionPages>);

// SAFETY: the kernel has mapped this many bytes there for reading and writing, until the value that is kept here is dropped.
unsafe impl DevicePages for Pages {
    fn host(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.0.host() as usize)
    }
    fn len(&self) -> u64 {
        self.0.len()
    }
}

/// Reads and writes of a region.
pub struct Window {
    name: String,
    device: Arc<dyn DeviceFile>,
    region: RegionInfo,
    /// MSI-X's table and pending bits, if some are in this BAR.
    table: Option<Arc<Table>>,
    accessed: OnceLock<Accessed>,
    /// Nothing answers: the function sleeps, or is gone.
    off: AtomicBool,
    pub accesses: AtomicU64,
}

impl Window {
    /// Whom to tell of accesses, once.
    pub fn on_access(&self, f: Accessed) {
        let _ = self.accessed.set(f);
    }
    pub fn switch(&self, on: bool) {
        self.off.store(!on, Ordering::Release);
    }
    fn note(&self) {
        Counters::add(&self.accesses);
        if let Some(f) = self.accessed.get() {
            f();
        }
    }
    fn bar(&self) -> usize {
        self.region.index as usize
    }
}

impl MmioDevice for Window {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        if self.off.load(Ordering::Acquire) {
            return Ok(u64::MAX);
        }
        if let Some(value) = self.table.as_ref().and_then(|t| t.read(self.bar(), offset, access.size)) {
            return Ok(value);
        }
        let (mut bytes, size) = ([0; 8], usize::from(access.size).min(8));
        // What the function does not answer reads as all ones, as on a bus.
        let read = self.device.read(&self.region, offset, &mut bytes[..size]);
        self.note();
        Ok(if read.is_ok() { u64::from_le_bytes(bytes) } else { u64::MAX })
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        if self.off.load(Ordering::Acquire) {
            return Ok(());
        }
        if self.table.as_ref().is_some_and(|t| t.write(self.bar(), offset, access.size, value)) {
            return Ok(());
        }
        // A write that the function does not take is lost, as on a bus.
        let _ = self.device.write(&self.region, offset, &value.to_le_bytes()[..usize::from(access.size).min(8)]);
        self.note();
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::implemented(1, 8)
    }
    fn name(&self) -> &str {
        &self.name
    }
}

/// A memory BAR.
pub struct Bar {
    pub window: Arc<Window>,
    /// What the guest sees behind it.
    pub space: Arc<AddressSpace>,
    pieces: Mutex<Vec<Mapping>>,
    blocks: Mutex<Vec<Arc<RamBlock>>>,
    _whole: Mapping,
}

/// The parts of a region of `size` bytes that can be mapped, without the pages in which `hidden` (start and length) lies: whole
/// pages of the host.
fn parts(region: &RegionInfo, hidden: &[(u64, u64)], page: u64) -> Vec<(u64, u64)> {
    if !region.mmap || !region.read || !region.write {
        return Vec::new();
    }
    let mut parts: Vec<(u64, u64)> = region.sparse.clone().unwrap_or_else(|| vec![(0, region.size)]);
    for (start, len) in hidden {
        let (first, end) = (start / page * page, (start + len).div_ceil(page) * page);
        parts = parts
            .into_iter()
            .flat_map(|(at, n)| {
                let last = at + n;
                [(at, first.clamp(at, last) - at), (end.clamp(at, last), last - end.clamp(at, last))]
            })
            .collect();
    }
    let whole = |(at, len): (u64, u64)| {
        let (first, end) = (at.checked_next_multiple_of(page)?, (at + len) / page * page);
        (first < end).then(|| (first, end - first))
    };
    parts.into_iter().filter_map(whole).collect()
}

impl Bar {
    /// The BAR of a region.
    ///
    /// # Errors
    /// It is too large for an address space.
    pub fn new(
        name: &str,
        device: &Arc<dyn DeviceFile>,
        region: RegionInfo,
        table: Option<&Arc<Table>>,
        no_mmap: bool,
    ) -> io::Result<Self> {
        let index = region.index as usize;
        let hidden = table.map_or_else(Vec::new, |t| t.places(index));
        let window = Arc::new(Window {
            name: format!("{name} BAR {index}"),
            device: device.clone(),
            region: region.clone(),
            table: table.filter(|_| !hidden.is_empty()).cloned(),
            accessed: OnceLock::new(),
            off: AtomicBool::new(false),
            accesses: AtomicU64::new(0),
        });
        let space = AddressSpace::new(&window.name);
        let size = region.size.next_power_of_two();
        let whole = space.map_mmio(Gpa(0), size, window.clone(), 0).map_err(io::Error::other)?;
        let (mut pieces, mut blocks) = (Vec::new(), Vec::new());
        let parts = if no_mmap { Vec::new() } else { parts(&region, &hidden, page_size()) };
        for (at, len) in parts {
            // What cannot be mapped is read and written.
            let Ok(pages) = device.map(&region, at, len) else { continue };
            let Ok(block) = RamBlock::device(&window.name, Arc::new(Pages(pages))) else { continue };
            if let Ok(mapping) = space.map_ram(Gpa(at), &block, 0, block.len(), 1) {
                pieces.push(mapping);
                blocks.push(block);
            }
        }
        Ok(Self { window, space, pieces: Mutex::new(pieces), blocks: Mutex::new(blocks), _whole: whole })
    }
    /// Shows what is mapped, or lets all accesses through [`Window`]; false: it is so already.
    pub fn show(&self, shown: bool) -> bool {
        let pieces = self.pieces.lock();
        let changes = pieces.first().is_some_and(|p| p.enabled() != shown);
        if changes {
            self.space.transaction(|| pieces.iter().for_each(|p| p.set_enabled(shown)));
        }
        changes
    }
    /// Bytes that the guest accesses without this process.
    pub fn mapped(&self) -> u64 {
        self.blocks.lock().iter().map(|b| b.len()).sum()
    }
    /// Takes the memory away for good; it must live until no processor uses it any more.
    pub fn take(&self) -> Vec<Arc<RamBlock>> {
        self.window.switch(false);
        let pieces = std::mem::take(&mut *self.pieces.lock());
        self.space.transaction(|| drop(pieces));
        std::mem::take(&mut *self.blocks.lock())
    }
}

/// Of the host, in bytes.
fn page_size() -> u64 {
    // SAFETY: has no requirements.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(size: u64, sparse: Option<Vec<(u64, u64)>>) -> RegionInfo {
        RegionInfo { size, read: true, write: true, mmap: true, sparse, ..RegionInfo::default() }
    }

    #[test]
    fn whole_pages_without_the_table() {
        let page = 0x1000;
        assert_eq!(parts(&region(0x4000, None), &[], page), [(0, 0x4000)]);
        assert_eq!(parts(&region(0x4000, None), &[(0x1800, 0x10)], page), [(0, 0x1000), (0x2000, 0x2000)]);
        assert_eq!(parts(&region(0x4000, None), &[(0, 0x80), (0x3ff8, 8)], page), [(0x1000, 0x2000)]);
        assert_eq!(parts(&region(0x4000, None), &[(0x1ff8, 0x10)], page), [(0, 0x1000), (0x3000, 0x1000)]);
        // Smaller than a page: read and written.
        assert_eq!(parts(&region(0x800, None), &[], page), []);
        assert_eq!(parts(&region(0x1_0000, None), &[(0x8000, 1)], 0x1_0000), []);
        let sparse = Some(vec![(0x800, 0x1800), (0x3000, 0x1000)]);
        assert_eq!(parts(&region(0x4000, sparse), &[(0x3000, 1)], page), [(0x1000, 0x1000)]);
        assert_eq!(parts(&RegionInfo { mmap: false, ..region(0x4000, None) }, &[], page), []);
        // A table that the kernel says is elsewhere than it can be.
        assert_eq!(parts(&region(0x4000, None), &[(0x10_0000, 0x10)], page), [(0, 0x4000)]);
    }
}
