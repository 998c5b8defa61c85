//! A device: its regions, interrupts and resets.

use super::*;
use std::sync::atomic::{AtomicU32, Ordering};

/// Closes a fake when the last user drops it, while the test keeps looking at it.
pub(super) struct Handle(pub Arc<FakeDevice>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What a device is.
#[derive(Clone)]
pub(crate) struct FakeSetup {
    pub info: DeviceInfo,
    pub regions: Vec<RegionInfo>,
    /// The first bytes of each region; the rest are 0.
    pub contents: BTreeMap<u32, Vec<u8>>,
    pub irqs: [IrqInfo; irq::COUNT as usize],
    pub hot_reset: HotResetInfo,
    pub migration: Option<MigrationFlags>,
    /// How it logs its own writes, if it does.
    pub dma_log: Option<DmaLog>,
}

/// How a device logs its own writes.
#[derive(Clone, Copy)]
pub(crate) struct DmaLog {
    /// So many ranges at most.
    pub ranges: usize,
}

impl Default for FakeSetup {
    /// A function with a BAR of a page, INTx, 4 vectors of MSI and 8 of MSI-X.
    fn default() -> Self {
        let region = |index, size, mmap| RegionInfo {
            index,
            size,
            offset: u64::from(index) << 40,
            read: true,
            write: true,
            mmap,
            ..RegionInfo::default()
        };
        let mut regions: Vec<_> = (0..region::COUNT).map(|index| region(index, 0, false)).collect();
        regions[0] = region(0, 0x1000, true);
        regions[region::CONFIG as usize] = region(region::CONFIG, 0x1000, false);
        let irqs = [1, 4, 8, 1, 1].map(|count| IrqInfo { count, eventfd: true, ..IrqInfo::default() });
        let mut setup = Self {
            info: DeviceInfo { pci: true, reset: true, regions: region::COUNT, irqs: irq::COUNT },
            regions,
            contents: BTreeMap::new(),
            irqs,
            hot_reset: HotResetInfo::default(),
            migration: None,
            dma_log: None,
        };
        let intx = &mut setup.irqs[irq::INTX as usize];
        (intx.maskable, intx.automasked) = (true, true);
        setup.irqs[irq::MSI as usize].noresize = true;
        setup.irqs[irq::MSIX as usize].noresize = true;
        setup
    }
}

#[derive(Default)]
struct DeviceState {
    open: bool,
    contents: BTreeMap<u32, BTreeMap<u64, u8>>,
    /// What is signalled, by index and vector: copies of the descriptors.
    triggers: BTreeMap<(u32, u32), File>,
    /// INTx fired or was masked.
    masked: bool,
    /// The level of INTx at the device.
    level: bool,
    unmask: Option<File>,
    movable: Movable,
    /// Ranges that it logs its writes in, and those.
    logged: Vec<(u64, u64)>,
    written: Written,
}

pub(crate) struct FakeDevice {
    pub log: Arc<Log>,
    /// While a test holds it resets do not come back.
    pub stuck: Mutex<()>,
    setup: Arc<FakeSetup>,
    /// In an iommufd.
    number: u32,
    state: Mutex<DeviceState>,
}

fn copied(fd: RawFd) -> Result<File> {
    if fd < 0 {
        return error(libc::EBADF);
    }
    #[expect(unsafe_code, reason = "a test's own descriptor")]
    // SAFETY: callers pass descriptors that are open during the call.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(borrowed.try_clone_to_owned()?.into())
}

fn signal(file: &mut File) {
    file.write_all(&1u64.to_ne_bytes()).expect("an eventfd takes a signal");
}

impl FakeDevice {
    pub(crate) fn new(log: Arc<Log>, setup: Arc<FakeSetup>) -> Arc<Self> {
        let contents = setup
            .contents
            .iter()
            .map(|(index, bytes)| (*index, bytes.iter().enumerate().map(|(i, b)| (i as u64, *b)).collect()))
            .collect();
        let movable = Movable { state: setup.migration.map(|_| MigrationState::Running), ..Movable::default() };
        let state = DeviceState { open: true, contents, movable, ..DeviceState::default() };
        static NUMBER: AtomicU32 = AtomicU32::new(7);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { log, stuck: Mutex::new(()), setup, number, state: Mutex::new(state) })
    }
    fn close(&self) {
        self.log.tell(Call::Close("device"));
        let mut state = self.state.lock();
        state.open = false;
        state.triggers.clear();
        state.unmask = None;
    }
    pub(crate) fn is_open(&self) -> bool {
        self.state.lock().open
    }
    /// A vector of MSI or MSI-X (or ERR, REQ) fires; false if nobody listens.
    pub(crate) fn fire(&self, index: u32, vector: u32) -> bool {
        self.state.lock().triggers.get_mut(&(index, vector)).map(signal).is_some()
    }
    /// The level of INTx at the device, which its status register tells: fires if it is high and not masked, and is masked then.
    pub(crate) fn set_intx(&self, level: bool) {
        let mut state = self.state.lock();
        state.level = level;
        let status = state.contents.entry(region::CONFIG).or_default().entry(6).or_default();
        *status = *status & !8 | u8::from(level) << 3;
        state.evaluate();
    }
    /// INTx is masked, by firing or by call.
    pub(crate) fn intx_masked(&self) -> bool {
        self.state.lock().masked
    }
    /// What the kernel does when the eventfd that unmasks is signalled, if there is one.
    pub(crate) fn unmask_by_eventfd(&self) {
        let mut state = self.state.lock();
        if state.unmask.is_some() {
            state.masked = false;
            state.evaluate();
        }
    }
    /// How many eventfds the kernel holds for this device.
    pub(crate) fn eventfds(&self) -> usize {
        let state = self.state.lock();
        state.triggers.len() + usize::from(state.unmask.is_some())
    }
    /// Is the vector connected?
    pub(crate) fn connected(&self, index: u32, vector: u32) -> bool {
        self.state.lock().triggers.contains_key(&(index, vector))
    }
    /// It writes a page.
    pub(super) fn logs(&self, page: u64) {
        let mut state = self.state.lock();
        if state.logged.iter().any(|(iova, len)| *iova <= page && page - iova < *len) {
            state.written.note(page);
        }
    }
    /// Is the log of its writes on?
    pub(crate) fn logging(&self) -> bool {
        self.state.lock().written.on
    }
    /// What of it migrates.
    pub(crate) fn movable(&self) -> MappedMutexGuard<'_, Movable> {
        MutexGuard::map(self.state.lock(), |state| &mut state.movable)
    }
}

impl DeviceState {
    fn evaluate(&mut self) {
        if self.level
            && !self.masked
            && let Some(trigger) = self.triggers.get_mut(&(irq::INTX, 0))
        {
            signal(trigger);
            self.masked = true;
        }
    }
    fn set_irqs(&mut self, count: u32, index: u32, action: IrqAction, start: u32, data: IrqData<'_>) -> Result<()> {
        let vectors = match data {
            IrqData::None(n) => n,
            IrqData::Bool(set) => set.len() as u32,
            IrqData::EventFds(fds) => fds.len() as u32,
        };
        let off = matches!((action, data), (IrqAction::Trigger, IrqData::None(0)));
        if count == 0 || (vectors == 0 && !off) || start.checked_add(vectors).is_none_or(|end| end > count) {
            return error(libc::EINVAL);
        }
        let exclusive = [irq::INTX, irq::MSI, irq::MSIX];
        let active = |state: &Self, index| state.triggers.keys().any(|(i, _)| *i == index);
        if exclusive.contains(&index) && exclusive.iter().any(|i| *i != index && active(self, *i)) {
            return error(libc::EINVAL);
        }
        if off {
            self.triggers.retain(|(i, _), _| *i != index);
            if index == irq::INTX {
                (self.unmask, self.masked) = (None, false);
            }
            return Ok(());
        }
        match (action, data) {
            (IrqAction::Trigger, IrqData::EventFds(fds)) => {
                for (i, fd) in fds.iter().enumerate() {
                    let key = (index, start + i as u32);
                    match fd {
                        Some(fd) => drop(self.triggers.insert(key, copied(*fd)?)),
                        None => drop(self.triggers.remove(&key)),
                    }
                }
                if index == irq::INTX {
                    self.masked = false;
                    self.evaluate();
                }
                Ok(())
            }
            (IrqAction::Trigger, _) => {
                for vector in start..start + vectors {
                    self.triggers.get_mut(&(index, vector)).map(signal);
                }
                Ok(())
            }
            _ if index != irq::INTX || !active(self, irq::INTX) => error(libc::EINVAL),
            (IrqAction::Mask, IrqData::EventFds(_)) => error(libc::ENOTTY),
            (IrqAction::Mask, _) => {
                self.masked = true;
                Ok(())
            }
            (IrqAction::Unmask, IrqData::EventFds(fds)) => {
                self.unmask = fds.first().copied().flatten().map(copied).transpose()?;
                Ok(())
            }
            (IrqAction::Unmask, _) => {
                self.masked = false;
                self.evaluate();
                Ok(())
            }
        }
    }
}

/// What mappings are aligned to, on any host.
const FAKE_PAGE: u64 = 0x1_0000;

struct FakePages {
    log: Arc<Log>,
    index: u32,
    offset: u64,
    words: Box<[u64]>,
}

impl RegionPages for FakePages {
    fn host(&self) -> u64 {
        (self.words.as_ptr().expose_provenance() as u64).next_multiple_of(FAKE_PAGE)
    }
    fn len(&self) -> u64 {
        self.words.len() as u64 * 8 - FAKE_PAGE
    }
}

impl Drop for FakePages {
    fn drop(&mut self) {
        self.log.tell(Call::UnmapRegion(self.index, self.offset, self.len()));
    }
}

impl DeviceFile for Handle {
    fn fd(&self) -> RawFd {
        400
    }
    fn info(&self) -> Result<DeviceInfo> {
        Ok(self.0.setup.info)
    }
    fn region_info(&self, index: u32) -> Result<RegionInfo> {
        self.0.setup.regions.get(index as usize).cloned().map_or_else(|| error(libc::EINVAL), Ok)
    }
    fn irq_info(&self, index: u32) -> Result<IrqInfo> {
        self.0.setup.irqs.get(index as usize).copied().map_or_else(|| error(libc::EINVAL), Ok)
    }
    fn read(&self, region: &RegionInfo, offset: u64, data: &mut [u8]) -> Result<()> {
        if offset + data.len() as u64 > region.size {
            return error(libc::EINVAL);
        }
        let state = self.0.state.lock();
        let bytes = state.contents.get(&region.index);
        for (i, byte) in data.iter_mut().enumerate() {
            *byte = bytes.and_then(|b| b.get(&(offset + i as u64))).copied().unwrap_or(0);
        }
        Ok(())
    }
    fn write(&self, region: &RegionInfo, offset: u64, data: &[u8]) -> Result<()> {
        self.0.log.note(Call::RegionWrite(region.index, offset, data.to_vec()))?;
        if offset + data.len() as u64 > region.size {
            return error(libc::EINVAL);
        }
        let mut state = self.0.state.lock();
        let bytes = state.contents.entry(region.index).or_default();
        bytes.extend(data.iter().enumerate().map(|(i, b)| (offset + i as u64, *b)));
        Ok(())
    }
    fn map(&self, region: &RegionInfo, offset: u64, len: u64) -> Result<Arc<dyn RegionPages>> {
        self.0.log.note(Call::MapRegion(region.index, offset, len))?;
        if !region.mmap || offset + len > region.size || !(offset | len).is_multiple_of(0x1000) {
            return error(libc::EINVAL);
        }
        let words = vec![0; ((len + FAKE_PAGE) / 8) as usize].into();
        Ok(Arc::new(FakePages { log: self.0.log.clone(), index: region.index, offset, words }))
    }
    fn set_irqs(&self, index: u32, action: IrqAction, start: u32, data: IrqData<'_>) -> Result<()> {
        let shown = match data {
            IrqData::None(count) => Data::None(count),
            IrqData::Bool(set) => Data::Bool(set.to_vec()),
            IrqData::EventFds(fds) => Data::EventFds(fds.iter().map(Option::is_some).collect()),
        };
        self.0.log.note(Call::SetIrqs(index, action, start, shown))?;
        let count = self.irq_info(index)?.count;
        self.0.state.lock().set_irqs(count, index, action, start, data)
    }
    fn reset(&self) -> Result<()> {
        drop(self.0.stuck.lock());
        self.0.log.note(Call::Reset)?;
        let mut movable = self.0.movable();
        movable.state = movable.state.map(|_| MigrationState::Running);
        Ok(())
    }
    fn hot_reset_info(&self) -> Result<HotResetInfo> {
        Ok(self.0.setup.hot_reset.clone())
    }
    fn hot_reset(&self, groups: &[RawFd]) -> Result<()> {
        self.0.log.note(Call::HotReset(groups.len()))
    }
    fn bind_iommufd(&self, _iommufd: RawFd) -> Result<u32> {
        self.0.log.note(Call::BindIommufd)?;
        Ok(self.0.number)
    }
    fn attach_ioas(&self, ioas: u32) -> Result<()> {
        self.0.log.note(Call::AttachIoas(ioas))
    }
    fn detach_ioas(&self) -> Result<()> {
        self.0.log.note(Call::DetachIoas)
    }
    fn migration_flags(&self) -> Result<MigrationFlags> {
        self.0.setup.migration.map_or_else(|| error(libc::ENOTTY), Ok)
    }
    fn migration_state(&self) -> Result<MigrationState> {
        self.0.movable().state.map_or_else(|| error(libc::ENOTTY), Ok)
    }
    fn set_migration_state(&self, wanted: MigrationState) -> Result<Option<Box<dyn MigrationData>>> {
        self.0.log.note(Call::Migrate(wanted))?;
        let Some(flags) = self.0.setup.migration else { return error(libc::ENOTTY) };
        self.0.movable().go(wanted, flags)
    }
    fn migration_data_size(&self) -> Result<u64> {
        Ok(0)
    }
    fn logs_dma(&self) -> bool {
        self.0.setup.dma_log.is_some()
    }
    fn start_dma_log(&self, page_size: u64, ranges: &[(u64, u64)]) -> Result<u64> {
        self.0.log.note(Call::StartDmaLog(ranges.to_vec()))?;
        let Some(can) = self.0.setup.dma_log else { return error(libc::ENOTTY) };
        let odd = |(iova, len): &(u64, u64)| *len == 0 || !(iova | len).is_multiple_of(page_size);
        let overlap = ranges.windows(2).any(|w| w[0].0 + w[0].1 > w[1].0);
        let mut state = self.0.state.lock();
        if state.written.on || overlap || ranges.is_empty() || ranges.iter().any(odd) {
            return error(libc::EINVAL);
        }
        if ranges.len() > can.ranges {
            return error(libc::E2BIG);
        }
        state.logged = ranges.to_vec();
        state.written.switch(true);
        Ok(page_size)
    }
    fn stop_dma_log(&self) -> Result<()> {
        self.0.log.note(Call::StopDmaLog)?;
        let mut state = self.0.state.lock();
        state.written.switch(false);
        state.logged.clear();
        Ok(())
    }
    fn dma_log(&self, iova: u64, len: u64, dirty: &mut DirtyBitmap<'_>) -> Result<()> {
        self.0.log.note(Call::DmaLog(iova, len))?;
        let mut state = self.0.state.lock();
        if state.written.on { state.written.take(iova, len, dirty) } else { error(libc::EINVAL) }
    }
}
