//! What the kernel offers, as traits: [`Kernel`] is the real thing, tests have a fake that records the calls.
//!
//! Descriptors that are passed are open during the call; the kernel keeps references of its own.

mod abi;
#[cfg(test)]
#[allow(dead_code, reason = "it can do more than each test asks for")]
pub(crate) mod fake;
mod kernel;

pub use kernel::{Kernel, page_size};

use std::io::Result;
use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

/// Kinds of IOMMU (`VFIO_*_IOMMU`) for [`ContainerFile::check_extension`] and [`ContainerFile::set_iommu`], and other extensions.
pub mod extension {
    pub use vfio_bindings::bindings::vfio::{
        VFIO_DMA_CC_IOMMU as DMA_CC, VFIO_NOIOMMU_IOMMU as NOIOMMU, VFIO_SPAPR_TCE_IOMMU as SPAPR_TCE,
        VFIO_SPAPR_TCE_v2_IOMMU as SPAPR_TCE_V2, VFIO_TYPE1_IOMMU as TYPE1, VFIO_TYPE1v2_IOMMU as TYPE1_V2,
    };
    /// Everything can be unmapped in one call.
    pub const UNMAP_ALL: u32 = 9;
}

/// Regions of a PCI function: BARs are 0 to 5.
pub mod region {
    pub use vfio_bindings::bindings::vfio::{
        VFIO_PCI_CONFIG_REGION_INDEX as CONFIG, VFIO_PCI_NUM_REGIONS as COUNT, VFIO_PCI_ROM_REGION_INDEX as ROM,
        VFIO_PCI_VGA_REGION_INDEX as VGA,
    };
}

/// Interrupts of a PCI function.
pub mod irq {
    pub use vfio_bindings::bindings::vfio::{
        VFIO_PCI_ERR_IRQ_INDEX as ERR, VFIO_PCI_INTX_IRQ_INDEX as INTX, VFIO_PCI_MSI_IRQ_INDEX as MSI,
        VFIO_PCI_MSIX_IRQ_INDEX as MSIX, VFIO_PCI_NUM_IRQS as COUNT, VFIO_PCI_REQ_IRQ_INDEX as REQ,
    };
}

/// The only version of the container's interface there is.
pub const API_VERSION: i32 = 0;

/// Where VFIO's files are opened.
pub trait Host: Send + Sync {
    /// `/dev/vfio/vfio`.
    ///
    /// # Errors
    /// The kernel's, as in all methods of this module.
    fn open_container(&self) -> Result<Arc<dyn ContainerFile>>;
    /// `/dev/vfio/<number>`; `noiommu`: `/dev/vfio/noiommu-<number>`.
    ///
    /// # Errors
    /// The kernel's: EBUSY if somebody has it open.
    fn open_group(&self, number: u32, noiommu: bool) -> Result<Arc<dyn GroupFile>>;
    /// A device's own file, `/dev/vfio/devices/vfio<N>`.
    ///
    /// # Errors
    /// The kernel's.
    fn open_cdev(&self, path: &Path) -> Result<Arc<dyn DeviceFile>>;
    /// A device's own file, opened by another process.
    ///
    /// # Errors
    /// It is no file of a VFIO device.
    fn adopt_cdev(&self, fd: OwnedFd) -> Result<Arc<dyn DeviceFile>>;
    /// `/dev/iommu`, or that file opened by another process.
    ///
    /// # Errors
    /// The kernel's.
    fn open_iommufd(&self, fd: Option<OwnedFd>) -> Result<Arc<dyn IommuFile>>;
}

/// A group of devices that the IOMMU cannot tell apart; closed when dropped, after its devices.
pub trait GroupFile: Send + Sync {
    fn fd(&self) -> RawFd;
    /// # Errors
    /// The kernel's.
    fn status(&self) -> Result<GroupStatus>;
    /// # Errors
    /// The kernel's.
    fn set_container(&self, container: &dyn ContainerFile) -> Result<()>;
    /// The last group that leaves a container takes the container's IOMMU and its maps away.
    ///
    /// # Errors
    /// EBUSY while a device is open.
    fn unset_container(&self) -> Result<()>;
    /// A device by its name in sysfs (`0000:01:00.0`).
    ///
    /// # Errors
    /// The kernel's.
    fn device(&self, name: &str) -> Result<Arc<dyn DeviceFile>>;
}

/// Of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupStatus {
    /// All its devices are bound to VFIO or to no driver that does DMA.
    pub viable: bool,
    /// It is in a container.
    pub container_set: bool,
}

/// A range to map for DMA: `iova`, `len` and `host` in bytes, multiples of a page size of the IOMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaMap {
    pub iova: u64,
    pub len: u64,
    /// Where it is in this process; stays mapped there as long as it is mapped for DMA.
    pub host: u64,
    /// The device may write it (it may always read).
    pub write: bool,
}

/// What a type 1 container can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerInfo {
    /// A bit for each size of page, as the kernel tells it: ranges must be multiples of the smallest. 0: not told.
    pub page_sizes: u64,
    /// First and last address of what may be mapped, rising. Empty: not told, everything may be tried.
    pub iova_ranges: Vec<(u64, u64)>,
    /// How many more ranges can be mapped.
    pub dma_available: Option<u32>,
    /// The container tracks dirty pages.
    pub dirty: Option<DirtyTracking>,
}

/// How a container tracks dirty pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirtyTracking {
    /// A bit for each size of page it can do.
    pub page_sizes: u64,
    /// In bytes, for one call.
    pub max_bitmap: u64,
}

/// What a spapr TCE container can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TceInfo {
    /// Start and length of the default window, with pages of 4 KiB.
    pub dma32: (u32, u32),
    /// More windows can be made.
    pub dynamic: Option<DynamicWindows>,
}

/// Windows beside the default one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DynamicWindows {
    /// A bit for each size of page.
    pub page_sizes: u64,
    pub windows: u32,
    /// Of a table.
    pub levels: u32,
}

/// A bitmap of dirty pages, a bit each, the first in the lowest.
#[derive(Debug)]
pub struct DirtyBitmap<'a> {
    /// In bytes.
    pub page_size: u64,
    /// The kernel sets bits of it, but clears none.
    pub words: &'a mut [u64],
}

/// An address space of one or more groups. Closing it unmaps everything.
pub trait ContainerFile: Send + Sync {
    fn fd(&self) -> RawFd;
    fn api_version(&self) -> i32;
    /// One of [`extension`].
    fn check_extension(&self, extension: u32) -> bool;
    /// Chooses the kind of IOMMU, once a group is in it.
    ///
    /// # Errors
    /// The kernel's.
    fn set_iommu(&self, kind: u32) -> Result<()>;
    /// Type 1.
    ///
    /// # Errors
    /// The kernel's.
    fn info(&self) -> Result<ContainerInfo>;
    /// # Errors
    /// EEXIST if some of it is mapped, ENOMEM over the limit of locked memory, ENOSPC if no more ranges can be mapped.
    fn map(&self, map: &DmaMap) -> Result<()>;
    /// Unmaps what lies in the range, and says how many bytes that was.
    ///
    /// # Errors
    /// EINVAL if an edge of the range is inside of what was mapped in one call.
    fn unmap(&self, iova: u64, len: u64) -> Result<u64>;
    /// Unmaps everything, if [`extension::UNMAP_ALL`] is there.
    ///
    /// # Errors
    /// The kernel's.
    fn unmap_all(&self) -> Result<()>;
    /// The same as [`Self::unmap`], and says which pages were written.
    ///
    /// # Errors
    /// The kernel's.
    fn unmap_dirty(&self, iova: u64, len: u64, dirty: &mut DirtyBitmap<'_>) -> Result<u64>;
    /// # Errors
    /// The kernel's.
    fn track_dirty(&self, on: bool) -> Result<()>;
    /// Takes the dirty pages of a range.
    ///
    /// # Errors
    /// The kernel's.
    fn dirty(&self, iova: u64, len: u64, dirty: &mut DirtyBitmap<'_>) -> Result<()>;
    /// spapr TCE.
    ///
    /// # Errors
    /// The kernel's.
    fn tce_info(&self) -> Result<TceInfo>;
    /// spapr TCE v2: memory of this process that may be mapped from now on.
    ///
    /// # Errors
    /// ENOMEM over the limit of locked memory.
    fn register_memory(&self, host: u64, len: u64) -> Result<()>;
    /// spapr TCE v2.
    ///
    /// # Errors
    /// EBUSY if some of it is mapped.
    fn unregister_memory(&self, host: u64, len: u64) -> Result<()>;
    /// spapr TCE v2: makes a window of `len` bytes, and says where it starts.
    ///
    /// # Errors
    /// The kernel's.
    fn tce_create(&self, page_shift: u32, len: u64, levels: u32) -> Result<u64>;
    /// spapr TCE v2: removes the window that starts there.
    ///
    /// # Errors
    /// The kernel's.
    fn tce_remove(&self, start: u64) -> Result<()>;
}

/// `/dev/iommu`: makes address spaces by number. Closing it, with all devices bound to it, unmaps everything.
pub trait IommuFile: Send + Sync {
    fn fd(&self) -> RawFd;
    /// Makes an address space.
    ///
    /// # Errors
    /// The kernel's.
    fn ioas_alloc(&self) -> Result<u32>;
    /// Destroys an object by its number.
    ///
    /// # Errors
    /// EBUSY while it is used.
    fn destroy(&self, id: u32) -> Result<()>;
    /// What may be mapped: [`ContainerInfo::page_sizes`] from the alignment, and the ranges.
    ///
    /// # Errors
    /// The kernel's.
    fn ioas_info(&self, ioas: u32) -> Result<ContainerInfo>;
    /// # Errors
    /// EEXIST if some of it is mapped, ENOMEM over the limit of locked memory.
    fn ioas_map(&self, ioas: u32, map: &DmaMap) -> Result<()>;
    /// Unmaps whole mappings in the range, and says how many bytes that was.
    ///
    /// # Errors
    /// ENOENT if a mapping is only in part in the range, or there is none.
    fn ioas_unmap(&self, ioas: u32, iova: u64, len: u64) -> Result<u64>;
    /// Makes tables of an address space for a device that is bound, which tell what was written by them; devices are attached to them
    /// by their number as to the address space.
    ///
    /// # Errors
    /// EOPNOTSUPP if the device's IOMMU cannot tell.
    fn hwpt_alloc(&self, device: u32, ioas: u32) -> Result<u32>;
    /// # Errors
    /// The kernel's.
    fn hwpt_track_dirty(&self, hwpt: u32, on: bool) -> Result<()>;
    /// Takes the dirty pages of a range.
    ///
    /// # Errors
    /// The kernel's.
    fn hwpt_dirty(&self, hwpt: u32, iova: u64, len: u64, dirty: &mut DirtyBitmap<'_>) -> Result<()>;
}

/// Of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceInfo {
    /// A PCI function.
    pub pci: bool,
    /// [`DeviceFile::reset`] is there.
    pub reset: bool,
    pub regions: u32,
    pub irqs: u32,
}

/// Of a region of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionInfo {
    pub index: u32,
    /// In bytes; 0: the device has it not.
    pub size: u64,
    /// Where it is in the device's file.
    pub offset: u64,
    pub read: bool,
    pub write: bool,
    pub mmap: bool,
    /// Offset and length of what may be mapped, if not all of it (`VFIO_REGION_INFO_CAP_SPARSE_MMAP`).
    pub sparse: Option<Vec<(u64, u64)>>,
    /// The MSI-X table in it may be mapped, too.
    pub msix_mappable: bool,
    /// Type and subtype, of regions that are no BARs.
    pub kind: Option<(u32, u32)>,
}

/// Of an interrupt index of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IrqInfo {
    /// How many vectors there are; 0: the device has it not.
    pub count: u32,
    pub eventfd: bool,
    pub maskable: bool,
    /// Masked when it fires.
    pub automasked: bool,
    /// Vectors cannot be added while others are in use.
    pub noresize: bool,
}

/// What is to be done with interrupts (`VFIO_IRQ_SET_ACTION_`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqAction {
    Mask,
    Unmask,
    /// With [`IrqData::EventFds`]: what is signalled. With [`IrqData::None`] of 0 vectors: the index is disabled.
    Trigger,
}

/// How it is to be done (`VFIO_IRQ_SET_DATA_`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqData<'a> {
    /// To this many vectors, at once.
    None(u32),
    /// To those that are true, at once.
    Bool(&'a [bool]),
    /// When the descriptor is signalled (or it is signalled then); `None`: no longer.
    EventFds(&'a [Option<RawFd>]),
}

/// A function that a bus reset would reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DependentDevice {
    /// Number of its group; of a device bound to an iommufd its number there, 0 (bound to the same) or -1 (not ours).
    pub owner: i32,
    pub segment: u16,
    pub bus: u8,
    pub devfn: u8,
}

/// What a bus reset of a device would reset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HotResetInfo {
    pub devices: Vec<DependentDevice>,
    /// [`DependentDevice::owner`] is a number in an iommufd.
    pub by_device: bool,
    /// All are owned by that iommufd.
    pub owned: bool,
}

/// A part of a region in this process, unmapped when dropped: the guest may not see it any more then. Offsets are in bytes.
pub trait RegionPages: Send + Sync {
    /// Where it is.
    fn host(&self) -> u64;
    /// In bytes.
    fn len(&self) -> u64;
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What of migration a device can do (`VFIO_MIGRATION_`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MigrationFlags {
    pub stop_copy: bool,
    pub p2p: bool,
    pub pre_copy: bool,
}

/// States of a migratable device (`VFIO_DEVICE_STATE_`, version 2 of the protocol).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MigrationState {
    Error = 0,
    Stop = 1,
    Running = 2,
    StopCopy = 3,
    Resuming = 4,
    RunningP2p = 5,
    PreCopy = 6,
    PreCopyP2p = 7,
}

impl MigrationState {
    pub const ALL: [Self; 8] = [
        Self::Error,
        Self::Stop,
        Self::Running,
        Self::StopCopy,
        Self::Resuming,
        Self::RunningP2p,
        Self::PreCopy,
        Self::PreCopyP2p,
    ];
    /// The state with this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(number as usize).copied()
    }
}

/// What a pre-copy has still to send, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrecopyInfo {
    pub initial: u64,
    pub dirty: u64,
}

/// The stream of a device's state while it migrates.
pub trait MigrationData: Send {
    /// Reads; 0: that was all.
    ///
    /// # Errors
    /// ENOMSG if there is nothing at the moment (pre-copy).
    fn read(&mut self, data: &mut [u8]) -> Result<usize>;
    /// # Errors
    /// The device's.
    fn write(&mut self, data: &[u8]) -> Result<usize>;
    /// # Errors
    /// The kernel's.
    fn precopy_info(&self) -> Result<PrecopyInfo>;
}

/// A device. Closed when dropped, which disables its interrupts and resets it.
pub trait DeviceFile: Send + Sync {
    fn fd(&self) -> RawFd;
    /// # Errors
    /// The kernel's.
    fn info(&self) -> Result<DeviceInfo>;
    /// # Errors
    /// EINVAL if there is no such region.
    fn region_info(&self, index: u32) -> Result<RegionInfo>;
    /// # Errors
    /// EINVAL if there is no such index.
    fn irq_info(&self, index: u32) -> Result<IrqInfo>;
    /// Reads at an offset of a region; 1, 2, 4 or 8 bytes, aligned, are one access of the device.
    ///
    /// # Errors
    /// The device's; UnexpectedEof if not all could be read.
    fn read(&self, region: &RegionInfo, offset: u64, data: &mut [u8]) -> Result<()>;
    /// # Errors
    /// The device's; WriteZero if not all could be written.
    fn write(&self, region: &RegionInfo, offset: u64, data: &[u8]) -> Result<()>;
    /// Maps a part of a region, in whole pages of the host.
    ///
    /// # Errors
    /// The kernel's.
    fn map(&self, region: &RegionInfo, offset: u64, len: u64) -> Result<Arc<dyn RegionPages>>;
    /// # Errors
    /// The kernel's: EINVAL while another of INTx, MSI and MSI-X is in use.
    fn set_irqs(&self, index: u32, action: IrqAction, start: u32, data: IrqData<'_>) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn reset(&self) -> Result<()>;
    /// # Errors
    /// ENODEV if the function has no bus reset.
    fn hot_reset_info(&self) -> Result<HotResetInfo>;
    /// Resets the bus. `groups`: descriptors of all groups concerned; none with an iommufd.
    ///
    /// # Errors
    /// EINVAL if a group is missing.
    fn hot_reset(&self, groups: &[RawFd]) -> Result<()>;

    /// Binds a cdev to an iommufd: number of the device there.
    ///
    /// # Errors
    /// The kernel's.
    fn bind_iommufd(&self, iommufd: RawFd) -> Result<u32>;
    /// Attaches a bound cdev to an address space, or to tables of one ([`IommuFile::hwpt_alloc`]); from one to another in one step.
    ///
    /// # Errors
    /// The kernel's.
    fn attach_ioas(&self, ioas: u32) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn detach_ioas(&self) -> Result<()>;

    /// # Errors
    /// ENOTTY if the device cannot migrate.
    fn migration_flags(&self) -> Result<MigrationFlags>;
    /// # Errors
    /// The kernel's.
    fn migration_state(&self) -> Result<MigrationState>;
    /// Changes the state, through those in between; the data stream that comes with the new one.
    ///
    /// # Errors
    /// The kernel's; [`Self::migration_state`] says where it is then.
    fn set_migration_state(&self, state: MigrationState) -> Result<Option<Box<dyn MigrationData>>>;
    /// Bytes of the state in stop-copy, estimated.
    ///
    /// # Errors
    /// The kernel's.
    fn migration_data_size(&self) -> Result<u64>;
    /// Can the device log its own writes?
    fn logs_dma(&self) -> bool;
    /// The device logs its own writes in these ranges (first address, length), which do not overlap; with which page size it does.
    ///
    /// # Errors
    /// The kernel's; a driver may not take as many ranges, or as long ones.
    fn start_dma_log(&self, page_size: u64, ranges: &[(u64, u64)]) -> Result<u64>;
    /// # Errors
    /// The kernel's.
    fn stop_dma_log(&self) -> Result<()>;
    /// Takes the dirty pages of a range.
    ///
    /// # Errors
    /// The kernel's.
    fn dma_log(&self, iova: u64, len: u64, dirty: &mut DirtyBitmap<'_>) -> Result<()>;
}
