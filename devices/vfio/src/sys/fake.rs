//! A kernel that records what it is asked, keeps the rules of the real one, and fails when it is told to.

mod device;
mod iommu;
mod migration;

use super::*;
use device::Handle;
pub(crate) use device::{DmaLog, FakeDevice, FakeSetup};
use iommu::FakeGroup;
pub(crate) use iommu::{FakeContainer, FakeIommufd};
pub(crate) use migration::{Movable, content};
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Error, Write};
use std::os::fd::BorrowedFd;

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
    UnmapDirty(u64, u64),
    TrackDirty(bool),
    Dirty(u64, u64),
    Register(u64, u64),
    Unregister(u64, u64),
    TceCreate(u32, u64),
    TceRemove(u64),
    IoasAlloc(u32),
    Destroy(u32),
    HwptAlloc(u32),
    HwptTrack(u32, bool),
    HwptDirty(u32, u64, u64),
    BindIommufd,
    /// To an address space, or to tables of one.
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
    /// Ranges: first address and length.
    StartDmaLog(Vec<(u64, u64)>),
    StopDmaLog,
    DmaLog(u64, u64),
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

/// Pages that were written, by their addresses, while that is taken note of.
#[derive(Default)]
pub(crate) struct Written {
    pub on: bool,
    pages: BTreeSet<u64>,
}

impl Written {
    pub(crate) fn switch(&mut self, on: bool) {
        *self = Self { on, ..Self::default() };
    }
    pub(crate) fn note(&mut self, page: u64) {
        if self.on {
            self.pages.insert(page);
        }
    }
    fn forget(&mut self, iova: u64, len: u64) {
        self.pages.retain(|page| *page < iova || page - iova >= len);
    }
    /// Takes those of a range into a bitmap.
    fn take(&mut self, iova: u64, len: u64, dirty: &mut DirtyBitmap<'_>) -> Result<()> {
        if len.div_ceil(dirty.page_size) > dirty.words.len() as u64 * 64 || !iova.is_multiple_of(dirty.page_size) {
            return error(libc::EINVAL);
        }
        let found: Vec<u64> = self.pages.range(iova..=iova + (len - 1)).copied().collect();
        for page in found {
            self.pages.remove(&page);
            let at = (page - iova) / dirty.page_size;
            dirty.words[(at / 64) as usize] |= 1 << (at % 64);
        }
        Ok(())
    }
}

fn error<T>(errno: i32) -> Result<T> {
    Err(Error::from_raw_os_error(errno))
}

/// What there is: set up before it is used.
pub(crate) struct FakeKernel {
    pub log: Arc<Log>,
    pub extensions: BTreeSet<u32>,
    pub info: Mutex<ContainerInfo>,
    pub tce: TceInfo,
    /// Groups that are not viable.
    pub broken_groups: BTreeSet<u32>,
    /// Tables of an iommufd can tell what was written.
    pub tables_track: bool,
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
            tables_track: false,
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
    /// All devices write a page, where they may.
    pub(crate) fn dma(&self, page: u64) {
        let containers = self.containers.lock().iter().filter(|c| c.written_by_device(page)).count();
        let iommufds = self.iommufds.lock().iter().filter(|f| f.written_by_device(page)).count();
        if containers + iommufds > 0 {
            self.devices.lock().iter().filter(|d| d.is_open()).for_each(|d| d.logs(page));
        }
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
            written: Mutex::default(),
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
            tables: Mutex::default(),
            tables_track: self.tables_track,
            next: Mutex::new(1),
        });
        self.iommufds.lock().push(file.clone());
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
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
