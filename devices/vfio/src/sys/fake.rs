//! A kernel that records what it is asked, keeps the rules of the real one, and fails when it is told to.

mod migration;

use super::*;
pub(crate) use migration::{Movable, content};
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Error, Write};
use std::os::fd::{AsRawFd, BorrowedFd};

/// One call, with what it was about. Questions are not recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    OpenContainer,
    OpenGroup(u32),
    OpenCdev(String),
    OpenIommufd,
    SetContainer(u32),
    UnsetContainer(u32),
    OpenDevice(String),
    SetIommu(u32),
    Map(DmaMap),
    Unmap(u64, u64),
    UnmapAll,
    TrackDirty(bool),
    Register(u64, u64),
    Unregister(u64, u64),
    TceCreate(u32, u64),
    TceRemove(u64),
    IoasAlloc(u32),
    Destroy(u32),
    BindIommufd,
    AttachIoas(u32),
    DetachIoas,
    RegionWrite(u32, u64, Vec<u8>),
    MapRegion(u32, u64, u64),
    UnmapRegion(u32, u64, u64),
    /// Descriptors are shown as: there is one.
    SetIrqs(u32, IrqAction, u32, Data),
    Reset,
    HotReset(usize),
    Migrate(MigrationState),
    StartDmaLog,
    StopDmaLog,
    /// A file was closed.
    Close(&'static str),
    /// A call of something else than the kernel, in its place among these.
    Other(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    None(u32),
    Bool(Vec<bool>),
    EventFds(Vec<bool>),
}

/// All calls in order, and which is to fail.
#[derive(Default)]
pub(crate) struct Log {
    calls: Mutex<Vec<Call>>,
    /// How many calls succeed before one that fails, and its error number.
    fail: Mutex<Option<(usize, i32)>>,
}

impl Log {
    pub(crate) fn note(&self, call: Call) -> Result<()> {
        let mut calls = self.calls.lock();
        calls.push(call);
        let mut fail = self.fail.lock();
        match &mut *fail {
            Some((0, errno)) => {
                let error = Error::from_raw_os_error(*errno);
                *fail = None;
                Err(error)
            }
            Some((left, _)) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
    /// Recorded, cannot fail.
    pub(crate) fn tell(&self, call: Call) {
        self.calls.lock().push(call);
    }
    /// The calls since this was asked last.
    pub(crate) fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock())
    }
    /// The call after `n` more fails, once. Failing calls are recorded.
    pub(crate) fn fail_after(&self, n: usize, errno: i32) {
        *self.fail.lock() = Some((n, errno));
    }
    /// No call is to fail; was one still to?
    pub(crate) fn succeed(&self) -> bool {
        self.fail.lock().take().is_some()
    }
}

fn error<T>(errno: i32) -> Result<T> {
    Err(Error::from_raw_os_error(errno))
}

/// Ranges that are mapped in one address space.
#[derive(Default)]
pub(crate) struct Maps {
    pub ranges: BTreeMap<u64, DmaMap>,
    /// Pages of 4 KiB that may be mapped at a time (the limit of locked memory).
    pub limit: Option<u64>,
}

impl Maps {
    fn map(&mut self, map: &DmaMap, info: &ContainerInfo) -> Result<()> {
        let page = 1u64 << info.page_sizes.trailing_zeros().min(63);
        if map.len == 0 || !(map.iova | map.len | map.host).is_multiple_of(page) {
            return error(libc::EINVAL);
        }
        let Some(last) = map.iova.checked_add(map.len - 1) else { return error(libc::EINVAL) };
        let allowed = info.iova_ranges.iter().any(|(first, end)| *first <= map.iova && last <= *end);
        if !info.iova_ranges.is_empty() && !allowed {
            return error(libc::EINVAL);
        }
        if self.ranges.values().any(|m| m.iova <= last && map.iova <= m.iova + (m.len - 1)) {
            return error(libc::EEXIST);
        }
        if info.dma_available.is_some_and(|n| self.ranges.len() >= n as usize) {
            return error(libc::ENOSPC);
        }
        let locked: u64 = self.ranges.values().map(|m| m.len).sum();
        if self.limit.is_some_and(|limit| locked + map.len > limit) {
            return error(libc::ENOMEM);
        }
        self.ranges.insert(map.iova, *map);
        Ok(())
    }
    /// Type 1 v2: a range is unmapped as a whole, or not touched.
    fn unmap(&mut self, iova: u64, len: u64) -> Result<u64> {
        let Some(last) = len.checked_sub(1).and_then(|len| iova.checked_add(len)) else { return error(libc::EINVAL) };
        let hit: Vec<DmaMap> =
            self.ranges.values().filter(|m| m.iova <= last && iova <= m.iova + (m.len - 1)).copied().collect();
        if hit.iter().any(|m| m.iova < iova || m.iova + (m.len - 1) > last) {
            return error(libc::EINVAL);
        }
        for m in &hit {
            self.ranges.remove(&m.iova);
        }
        Ok(hit.iter().map(|m| m.len).sum())
    }
    /// Where an address of the device leads in this process, and whether it may write there.
    pub(crate) fn resolve(&self, iova: u64) -> Option<(u64, bool)> {
        let (start, m) = self.ranges.range(..=iova).next_back()?;
        (iova - start < m.len).then(|| (m.host + (iova - start), m.write))
    }
}

/// What there is: set up before it is used.
pub(crate) struct FakeKernel {
    pub log: Arc<Log>,
    pub extensions: BTreeSet<u32>,
    pub info: Mutex<ContainerInfo>,
    pub tce: TceInfo,
    /// Groups that are not viable.
    pub broken_groups: BTreeSet<u32>,
    /// Every device that is opened is this one.
    pub device: Arc<FakeSetup>,
    /// Everything that was opened, in order.
    pub containers: Mutex<Vec<Arc<FakeContainer>>>,
    pub iommufds: Mutex<Vec<Arc<FakeIommufd>>>,
    pub devices: Mutex<Vec<Arc<FakeDevice>>>,
}

impl Default for FakeKernel {
    fn default() -> Self {
        let info = ContainerInfo { page_sizes: !0xfff, ..ContainerInfo::default() };
        Self {
            log: Arc::default(),
            extensions: [extension::TYPE1_V2, extension::UNMAP_ALL].into(),
            info: Mutex::new(info),
            tce: TceInfo {
                dma32: (0, 1 << 30),
                dynamic: Some(DynamicWindows { page_sizes: 0x1000 | 0x1_0000, windows: 2, levels: 5 }),
            },
            broken_groups: BTreeSet::new(),
            device: Arc::default(),
            containers: Mutex::default(),
            iommufds: Mutex::default(),
            devices: Mutex::default(),
        }
    }
}

impl FakeKernel {
    fn opened_device(&self) -> Arc<dyn DeviceFile> {
        let device = FakeDevice::new(self.log.clone(), self.device.clone());
        self.devices.lock().push(device.clone());
        Arc::new(Handle(device))
    }
}

/// Closes a fake when the last user drops it, while the test keeps looking at it.
struct Handle(Arc<FakeDevice>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Host for FakeKernel {
    fn open_container(&self) -> Result<Arc<dyn ContainerFile>> {
        self.log.note(Call::OpenContainer)?;
        let container = Arc::new(FakeContainer {
            fd: 100 + self.containers.lock().len() as RawFd,
            log: self.log.clone(),
            extensions: self.extensions.clone(),
            info: self.info.lock().clone(),
            tce: self.tce,
            maps: Mutex::default(),
            registered: Mutex::default(),
            windows: Mutex::new([(u64::from(self.tce.dma32.0), (12, u64::from(self.tce.dma32.1)))].into()),
        });
        self.containers.lock().push(container.clone());
        Ok(container)
    }
    fn open_group(&self, number: u32, _noiommu: bool) -> Result<Arc<dyn GroupFile>> {
        self.log.note(Call::OpenGroup(number))?;
        let viable = !self.broken_groups.contains(&number);
        let device = FakeDevice::new(self.log.clone(), self.device.clone());
        self.devices.lock().push(device.clone());
        Ok(Arc::new(FakeGroup { number, viable, log: self.log.clone(), inside: Mutex::new(false), device }))
    }
    fn open_cdev(&self, path: &Path) -> Result<Arc<dyn DeviceFile>> {
        self.log.note(Call::OpenCdev(path.display().to_string()))?;
        Ok(self.opened_device())
    }
    fn adopt_cdev(&self, _fd: OwnedFd) -> Result<Arc<dyn DeviceFile>> {
        self.log.note(Call::OpenCdev("fd".to_owned()))?;
        Ok(self.opened_device())
    }
    fn open_iommufd(&self, _fd: Option<OwnedFd>) -> Result<Arc<dyn IommuFile>> {
        self.log.note(Call::OpenIommufd)?;
        let file = Arc::new(FakeIommufd {
            log: self.log.clone(),
            info: self.info.lock().clone(),
            spaces: Mutex::default(),
            next: Mutex::new(1),
        });
        self.iommufds.lock().push(file.clone());
        Ok(file)
    }
}

struct FakeGroup {
    number: u32,
    viable: bool,
    log: Arc<Log>,
    inside: Mutex<bool>,
    device: Arc<FakeDevice>,
}

impl GroupFile for FakeGroup {
    fn fd(&self) -> RawFd {
        200 + self.number as RawFd
    }
    fn status(&self) -> Result<GroupStatus> {
        Ok(GroupStatus { viable: self.viable, container_set: *self.inside.lock() })
    }
    fn set_container(&self, _container: &dyn ContainerFile) -> Result<()> {
        self.log.note(Call::SetContainer(self.number))?;
        *self.inside.lock() = true;
        Ok(())
    }
    fn unset_container(&self) -> Result<()> {
        self.log.note(Call::UnsetContainer(self.number))?;
        *self.inside.lock() = false;
        Ok(())
    }
    fn device(&self, name: &str) -> Result<Arc<dyn DeviceFile>> {
        self.log.note(Call::OpenDevice(name.to_owned()))?;
        Ok(Arc::new(Handle(self.device.clone())))
    }
}

impl Drop for FakeGroup {
    fn drop(&mut self) {
        self.log.tell(Call::Close("group"));
    }
}

pub(crate) struct FakeContainer {
    fd: RawFd,
    pub log: Arc<Log>,
    extensions: BTreeSet<u32>,
    info: ContainerInfo,
    tce: TceInfo,
    pub maps: Mutex<Maps>,
    /// Registered memory: start and length.
    pub registered: Mutex<BTreeMap<u64, u64>>,
    /// Windows by their start: page shift and length.
    pub windows: Mutex<BTreeMap<u64, (u32, u64)>>,
}

impl ContainerFile for FakeContainer {
    fn fd(&self) -> RawFd {
        self.fd
    }
    fn api_version(&self) -> i32 {
        API_VERSION
    }
    fn check_extension(&self, extension: u32) -> bool {
        self.extensions.contains(&extension)
    }
    fn set_iommu(&self, kind: u32) -> Result<()> {
        self.log.note(Call::SetIommu(kind))
    }
    fn info(&self) -> Result<ContainerInfo> {
        Ok(self.info.clone())
    }
    fn map(&self, map: &DmaMap) -> Result<()> {
        self.log.note(Call::Map(*map))?;
        if !self.extensions.contains(&extension::SPAPR_TCE_V2) {
            return self.maps.lock().map(map, &self.info);
        }
        let last = map.iova + (map.len - 1);
        let windows = self.windows.lock();
        let shift = windows.iter().find(|(start, (_, len))| **start <= map.iova && last - **start < *len);
        let Some((_, (shift, _))) = shift else { return error(libc::EINVAL) };
        let pinned =
            self.registered.lock().iter().any(|(host, len)| *host <= map.host && map.host - host + map.len <= *len);
        if !pinned || !(map.iova | map.len | map.host).is_multiple_of(1 << shift) {
            return error(libc::EINVAL);
        }
        // Entries of the table: what was there is replaced.
        let mut maps = self.maps.lock();
        for at in (map.iova..=last).step_by(1 << shift) {
            let entry = DmaMap { iova: at, len: 1 << shift, host: map.host + (at - map.iova), write: map.write };
            maps.ranges.insert(at, entry);
        }
        Ok(())
    }
    fn unmap(&self, iova: u64, len: u64) -> Result<u64> {
        self.log.note(Call::Unmap(iova, len))?;
        self.maps.lock().unmap(iova, len)
    }
    fn unmap_all(&self) -> Result<()> {
        self.log.note(Call::UnmapAll)?;
        self.maps.lock().ranges.clear();
        Ok(())
    }
    fn unmap_dirty(&self, iova: u64, len: u64, _dirty: &mut DirtyBitmap<'_>) -> Result<u64> {
        self.unmap(iova, len)
    }
    fn track_dirty(&self, on: bool) -> Result<()> {
        self.log.note(Call::TrackDirty(on))
    }
    fn dirty(&self, _iova: u64, _len: u64, _dirty: &mut DirtyBitmap<'_>) -> Result<()> {
        Ok(())
    }
    fn tce_info(&self) -> Result<TceInfo> {
        Ok(self.tce)
    }
    fn register_memory(&self, host: u64, len: u64) -> Result<()> {
        self.log.note(Call::Register(host, len))?;
        let mut registered = self.registered.lock();
        if registered.iter().any(|(h, l)| *h < host + len && host < h + l) {
            return error(libc::EBUSY);
        }
        registered.insert(host, len);
        Ok(())
    }
    fn unregister_memory(&self, host: u64, len: u64) -> Result<()> {
        self.log.note(Call::Unregister(host, len))?;
        if self.maps.lock().ranges.values().any(|m| m.host < host + len && host < m.host + m.len) {
            return error(libc::EBUSY);
        }
        match self.registered.lock().remove(&host) {
            Some(l) if l == len => Ok(()),
            _ => error(libc::ENOENT),
        }
    }
    fn tce_create(&self, page_shift: u32, len: u64, _levels: u32) -> Result<u64> {
        self.log.note(Call::TceCreate(page_shift, len))?;
        let mut windows = self.windows.lock();
        // Where the real one has them: the first at 0, the second high up.
        let Some(start) = [0, 1 << 59].into_iter().find(|start| !windows.contains_key(start)) else {
            return error(libc::ENOSPC);
        };
        windows.insert(start, (page_shift, len));
        Ok(start)
    }
    fn tce_remove(&self, start: u64) -> Result<()> {
        self.log.note(Call::TceRemove(start))?;
        let Some((_, len)) = self.windows.lock().remove(&start) else { return error(libc::EINVAL) };
        self.maps.lock().ranges.retain(|iova, _| *iova < start || *iova - start >= len);
        Ok(())
    }
}

pub(crate) struct FakeIommufd {
    log: Arc<Log>,
    info: ContainerInfo,
    pub spaces: Mutex<BTreeMap<u32, Maps>>,
    next: Mutex<u32>,
}

impl IommuFile for FakeIommufd {
    fn fd(&self) -> RawFd {
        300
    }
    fn ioas_alloc(&self) -> Result<u32> {
        let mut next = self.next.lock();
        self.log.note(Call::IoasAlloc(*next))?;
        self.spaces.lock().insert(*next, Maps::default());
        *next += 1;
        Ok(*next - 1)
    }
    fn destroy(&self, id: u32) -> Result<()> {
        self.log.note(Call::Destroy(id))?;
        self.spaces.lock().remove(&id);
        Ok(())
    }
    fn ioas_info(&self, _ioas: u32) -> Result<ContainerInfo> {
        Ok(self.info.clone())
    }
    fn ioas_map(&self, ioas: u32, map: &DmaMap) -> Result<()> {
        self.log.note(Call::Map(*map))?;
        match self.spaces.lock().get_mut(&ioas) {
            Some(maps) => maps.map(map, &self.info),
            None => error(libc::ENOENT),
        }
    }
    fn ioas_unmap(&self, ioas: u32, iova: u64, len: u64) -> Result<u64> {
        self.log.note(Call::Unmap(iova, len))?;
        let mut spaces = self.spaces.lock();
        let Some(maps) = spaces.get_mut(&ioas) else { return error(libc::ENOENT) };
        match maps.unmap(iova, len) {
            Ok(0) | Err(_) => error(libc::ENOENT),
            unmapped => unmapped,
        }
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
}

pub(crate) struct FakeDevice {
    pub log: Arc<Log>,
    /// While a test holds it resets do not come back.
    pub stuck: Mutex<()>,
    setup: Arc<FakeSetup>,
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
        Arc::new(Self { log, stuck: Mutex::new(()), setup, state: Mutex::new(state) })
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
        Ok(7)
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
    fn start_dma_log(&self, page_size: u64, _ranges: &[(u64, u64)]) -> Result<u64> {
        self.0.log.note(Call::StartDmaLog)?;
        Ok(page_size)
    }
    fn stop_dma_log(&self) -> Result<()> {
        self.0.log.note(Call::StopDmaLog)
    }
    fn dma_log(&self, _iova: u64, _len: u64, _dirty: &mut DirtyBitmap<'_>) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_sys_util::eventfd::EventFd;

    /// The rules that the state machines depend on.
    #[test]
    fn interrupts() {
        let kernel = FakeKernel::default();
        let file = kernel.open_cdev(Path::new("vfio0")).expect("a device");
        let device = kernel.devices.lock()[0].clone();
        let event = EventFd::new(libc::EFD_NONBLOCK).expect("an eventfd");
        let fd = Some(event.as_raw_fd());
        let fds = [fd; 2];
        let connect = |index, n| file.set_irqs(index, IrqAction::Trigger, 0, IrqData::EventFds(&fds[..n]));
        connect(irq::INTX, 1).expect("INTx");
        device.set_intx(true);
        assert_eq!((event.read().ok(), device.intx_masked()), (Some(1), true));
        file.set_irqs(irq::INTX, IrqAction::Unmask, 0, IrqData::None(1)).expect("unmasked");
        assert_eq!(event.read().ok(), Some(1), "it is still high");
        assert!(connect(irq::MSI, 2).is_err(), "INTx is in use");
        file.set_irqs(irq::INTX, IrqAction::Trigger, 0, IrqData::None(0)).expect("disabled");
        connect(irq::MSI, 2).expect("MSI");
        assert!(device.fire(irq::MSI, 1) && !device.fire(irq::MSI, 2));
        assert_eq!(device.eventfds(), 2);
        drop(file);
        assert_eq!((device.eventfds(), device.is_open()), (0, false));
        kernel.log.fail_after(1, libc::EIO);
        assert!(kernel.open_container().is_ok() && kernel.open_container().is_err() && kernel.open_container().is_ok());
    }
}
