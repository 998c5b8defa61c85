//! The kernel's own VFIO.
#![expect(unsafe_code, reason = "system calls")]

use super::abi::{self, Record};
use super::*;
use iommufd_bindings::iommufd as ioas;
use libc::Ioctl;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::ptr;
use vfio_bindings::bindings::vfio;
use vmm_sys_util::ioctl::{ioctl, ioctl_with_mut_ptr, ioctl_with_mut_ref, ioctl_with_ref, ioctl_with_val};

/// VFIO of this host, with its files in a folder, `/dev` but in tests.
#[derive(Clone, Debug)]
pub struct Kernel {
    dev: PathBuf,
}

impl Kernel {
    #[must_use]
    pub fn new(dev: impl Into<PathBuf>) -> Self {
        Self { dev: dev.into() }
    }
    fn open(path: &Path) -> Result<File> {
        OpenOptions::new().read(true).write(true).open(path)
    }
}

/// Bytes of a page of the host.
#[must_use]
pub fn page_size() -> u64 {
    // SAFETY: no pointers.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.try_into().unwrap_or(0x1000)
}

/// What a call returned that does not fail with a negative number only.
fn done(result: i32) -> Result<i32> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

/// The length of a structure, which is its first field.
const fn length<T>() -> u32 {
    size_of::<T>() as u32
}

/// A call with a structure of any length.
fn call(file: &impl AsRawFd, number: Ioctl, record: &mut Record) -> Result<i32> {
    // SAFETY: the kernel reads and writes no more than the length in the record's first word, which is that of its memory.
    done(unsafe { ioctl_with_mut_ptr(file, number, record.as_mut_ptr()) })
}

/// A call that answers with a structure and capabilities after it: again with the length that the kernel asks for.
fn call_with_capabilities(
    file: &impl AsRawFd,
    number: Ioctl,
    fill: impl Fn(&mut Record),
    len: usize,
) -> Result<Record> {
    let mut len = len;
    for _ in 0..8 {
        let mut record = Record::new(len);
        fill(&mut record);
        call(file, number, &mut record)?;
        let wanted = record.u32(0) as usize;
        if wanted <= len {
            return Ok(record);
        }
        len = wanted;
    }
    Err(Error::from(ErrorKind::InvalidData))
}

impl Host for Kernel {
    fn open_container(&self) -> Result<Arc<dyn ContainerFile>> {
        Ok(Arc::new(Container(Self::open(&self.dev.join("vfio/vfio"))?)))
    }
    fn open_group(&self, number: u32, noiommu: bool) -> Result<Arc<dyn GroupFile>> {
        let name = if noiommu { format!("vfio/noiommu-{number}") } else { format!("vfio/{number}") };
        Ok(Arc::new(Group(Self::open(&self.dev.join(name))?)))
    }
    fn open_cdev(&self, path: &Path) -> Result<Arc<dyn DeviceFile>> {
        Ok(Arc::new(Device(Self::open(path)?)))
    }
    fn adopt_cdev(&self, fd: OwnedFd) -> Result<Arc<dyn DeviceFile>> {
        Ok(Arc::new(Device(fd.into())))
    }
    fn open_iommufd(&self, fd: Option<OwnedFd>) -> Result<Arc<dyn IommuFile>> {
        let file = match fd {
            Some(fd) => fd.into(),
            None => Self::open(&self.dev.join("iommu"))?,
        };
        Ok(Arc::new(Iommu(file)))
    }
}

struct Group(File);

impl GroupFile for Group {
    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
    fn status(&self) -> Result<GroupStatus> {
        let mut status = vfio::vfio_group_status { argsz: length::<vfio::vfio_group_status>(), flags: 0 };
        // SAFETY: the kernel writes the structure.
        done(unsafe { ioctl_with_mut_ref(&self.0, abi::VFIO_GROUP_GET_STATUS, &mut status) })?;
        Ok(GroupStatus {
            viable: status.flags & vfio::VFIO_GROUP_FLAGS_VIABLE != 0,
            container_set: status.flags & vfio::VFIO_GROUP_FLAGS_CONTAINER_SET != 0,
        })
    }
    fn set_container(&self, container: &dyn ContainerFile) -> Result<()> {
        let fd = container.fd();
        // SAFETY: the kernel reads a descriptor.
        done(unsafe { ioctl_with_ref(&self.0, abi::VFIO_GROUP_SET_CONTAINER, &fd) }).map(drop)
    }
    fn unset_container(&self) -> Result<()> {
        // SAFETY: no argument.
        done(unsafe { ioctl(&self.0, abi::VFIO_GROUP_UNSET_CONTAINER) }).map(drop)
    }
    fn device(&self, name: &str) -> Result<Arc<dyn DeviceFile>> {
        let name = CString::new(name)?;
        // SAFETY: the kernel reads the name up to its zero, and makes a descriptor for this call.
        let file = unsafe {
            let fd = done(libc::ioctl(self.0.as_raw_fd(), abi::VFIO_GROUP_GET_DEVICE_FD, name.as_ptr()))?;
            File::from_raw_fd(fd)
        };
        Ok(Arc::new(Device(file)))
    }
}

struct Container(File);

impl Container {
    fn unmap_flags(&self, iova: u64, len: u64, flags: u32, dirty: Option<&mut DirtyBitmap<'_>>) -> Result<u64> {
        // struct vfio_iommu_type1_dma_unmap: argsz, flags, iova, size, data (struct vfio_bitmap: pgsize, size, data).
        let mut record = Record::new(if dirty.is_some() { 48 } else { 24 });
        record.set_u32(4, flags);
        record.set_u64(8, iova);
        record.set_u64(16, len);
        if let Some(dirty) = dirty {
            set_bitmap(&mut record, 24, dirty);
        }
        call(&self.0, abi::VFIO_IOMMU_UNMAP_DMA, &mut record)?;
        Ok(record.u64(16))
    }
}

/// `struct vfio_bitmap`. The words stay borrowed while the record is used by the callers here.
fn set_bitmap(record: &mut Record, at: usize, dirty: &mut DirtyBitmap<'_>) {
    record.set_u64(at, dirty.page_size);
    record.set_u64(at + 8, size_of_val(dirty.words) as u64);
    record.set_u64(at + 16, dirty.words.as_mut_ptr().expose_provenance() as u64);
}

impl ContainerFile for Container {
    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
    fn api_version(&self) -> i32 {
        // SAFETY: no argument.
        unsafe { ioctl(&self.0, abi::VFIO_GET_API_VERSION) }
    }
    fn check_extension(&self, extension: u32) -> bool {
        // SAFETY: the argument is a number.
        unsafe { ioctl_with_val(&self.0, abi::VFIO_CHECK_EXTENSION, extension.into()) > 0 }
    }
    fn set_iommu(&self, kind: u32) -> Result<()> {
        // SAFETY: the argument is a number.
        done(unsafe { ioctl_with_val(&self.0, abi::VFIO_SET_IOMMU, kind.into()) }).map(drop)
    }
    fn info(&self) -> Result<ContainerInfo> {
        let len = size_of::<vfio::vfio_iommu_type1_info>();
        let record = call_with_capabilities(&self.0, abi::VFIO_IOMMU_GET_INFO, |_| (), len)?;
        // struct vfio_iommu_type1_info: argsz, flags, iova_pgsizes, cap_offset.
        let flags = record.u32(4);
        let mut info = ContainerInfo::default();
        if flags & vfio::VFIO_IOMMU_INFO_PGSIZES != 0 {
            info.page_sizes = record.u64(8);
        }
        let first = if flags & vfio::VFIO_IOMMU_INFO_CAPS != 0 { record.u32(16) } else { 0 };
        for (id, at) in record.capabilities(first) {
            match id {
                abi::TYPE1_INFO_CAP_IOVA_RANGE => {
                    let count = (record.u32(at) as usize).min(len_after(&record, at + 8) / 16);
                    let range = |i| (record.u64(at + 8 + 16 * i), record.u64(at + 16 + 16 * i));
                    info.iova_ranges = (0..count).map(range).collect();
                }
                abi::TYPE1_INFO_CAP_MIGRATION => {
                    let (page_sizes, max_bitmap) = (record.u64(at + 8), record.u64(at + 16));
                    info.dirty = Some(DirtyTracking { page_sizes, max_bitmap });
                }
                abi::TYPE1_INFO_DMA_AVAIL => info.dma_available = Some(record.u32(at)),
                _ => {}
            }
        }
        Ok(info)
    }
    fn map(&self, map: &DmaMap) -> Result<()> {
        let wanted = vfio::vfio_iommu_type1_dma_map {
            argsz: length::<vfio::vfio_iommu_type1_dma_map>(),
            flags: abi::DMA_MAP_READ | if map.write { abi::DMA_MAP_WRITE } else { 0 },
            vaddr: map.host,
            iova: map.iova,
            size: map.len,
        };
        // SAFETY: the structure is only read. What the device does with the memory is as with any other: it is shared with the guest.
        done(unsafe { ioctl_with_ref(&self.0, abi::VFIO_IOMMU_MAP_DMA, &wanted) }).map(drop)
    }
    fn unmap(&self, iova: u64, len: u64) -> Result<u64> {
        self.unmap_flags(iova, len, 0, None)
    }
    fn unmap_all(&self) -> Result<()> {
        self.unmap_flags(0, 0, abi::DMA_UNMAP_ALL, None).map(drop)
    }
    fn unmap_dirty(&self, iova: u64, len: u64, dirty: &mut DirtyBitmap<'_>) -> Result<u64> {
        self.unmap_flags(iova, len, abi::DMA_UNMAP_GET_DIRTY_BITMAP, Some(dirty))
    }
    fn track_dirty(&self, on: bool) -> Result<()> {
        let mut record = Record::new(8);
        let flag = if on { vfio::VFIO_IOMMU_DIRTY_PAGES_FLAG_START } else { vfio::VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP };
        record.set_u32(4, flag);
        call(&self.0, abi::VFIO_IOMMU_DIRTY_PAGES, &mut record).map(drop)
    }
    fn dirty(&self, iova: u64, len: u64, dirty: &mut DirtyBitmap<'_>) -> Result<()> {
        // struct vfio_iommu_type1_dirty_bitmap: argsz, flags, then vfio_iommu_type1_dirty_bitmap_get: iova, size, bitmap.
        let mut record = Record::new(48);
        record.set_u32(4, vfio::VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP);
        record.set_u64(8, iova);
        record.set_u64(16, len);
        set_bitmap(&mut record, 24, dirty);
        call(&self.0, abi::VFIO_IOMMU_DIRTY_PAGES, &mut record).map(drop)
    }
    fn tce_info(&self) -> Result<TceInfo> {
        let mut info = vfio::vfio_iommu_spapr_tce_info {
            argsz: length::<vfio::vfio_iommu_spapr_tce_info>(),
            ..Default::default()
        };
        // SAFETY: the kernel writes the structure.
        done(unsafe { ioctl_with_mut_ref(&self.0, abi::VFIO_IOMMU_SPAPR_TCE_GET_INFO, &mut info) })?;
        let dynamic = (info.flags & vfio::VFIO_IOMMU_SPAPR_INFO_DDW != 0).then_some(DynamicWindows {
            page_sizes: info.ddw.pgsizes,
            windows: info.ddw.max_dynamic_windows_supported,
            levels: info.ddw.levels,
        });
        Ok(TceInfo { dma32: (info.dma32_window_start, info.dma32_window_size), dynamic })
    }
    fn register_memory(&self, host: u64, len: u64) -> Result<()> {
        self.memory(abi::VFIO_IOMMU_SPAPR_REGISTER_MEMORY, host, len)
    }
    fn unregister_memory(&self, host: u64, len: u64) -> Result<()> {
        self.memory(abi::VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY, host, len)
    }
    fn tce_create(&self, page_shift: u32, len: u64, levels: u32) -> Result<u64> {
        let mut window = vfio::vfio_iommu_spapr_tce_create {
            argsz: length::<vfio::vfio_iommu_spapr_tce_create>(),
            page_shift,
            window_size: len,
            levels,
            ..Default::default()
        };
        // SAFETY: the kernel reads and writes the structure.
        done(unsafe { ioctl_with_mut_ref(&self.0, abi::VFIO_IOMMU_SPAPR_TCE_CREATE, &mut window) })?;
        Ok(window.start_addr)
    }
    fn tce_remove(&self, start: u64) -> Result<()> {
        let argsz = length::<vfio::vfio_iommu_spapr_tce_remove>();
        let window = vfio::vfio_iommu_spapr_tce_remove { argsz, flags: 0, start_addr: start };
        // SAFETY: the structure is only read.
        done(unsafe { ioctl_with_ref(&self.0, abi::VFIO_IOMMU_SPAPR_TCE_REMOVE, &window) }).map(drop)
    }
}

/// Bytes of the record from there on.
fn len_after(record: &Record, at: usize) -> usize {
    (record.u32(0) as usize).saturating_sub(at)
}

impl Container {
    fn memory(&self, number: Ioctl, host: u64, len: u64) -> Result<()> {
        let argsz = length::<vfio::vfio_iommu_spapr_register_memory>();
        let memory = vfio::vfio_iommu_spapr_register_memory { argsz, flags: 0, vaddr: host, size: len };
        // SAFETY: the structure is only read.
        done(unsafe { ioctl_with_ref(&self.0, number, &memory) }).map(drop)
    }
}

struct Iommu(File);

impl IommuFile for Iommu {
    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
    fn ioas_alloc(&self) -> Result<u32> {
        let mut made = ioas::iommu_ioas_alloc { size: length::<ioas::iommu_ioas_alloc>(), flags: 0, out_ioas_id: 0 };
        // SAFETY: the kernel reads and writes the structure.
        done(unsafe { ioctl_with_mut_ref(&self.0, abi::IOMMU_IOAS_ALLOC, &mut made) })?;
        Ok(made.out_ioas_id)
    }
    fn destroy(&self, id: u32) -> Result<()> {
        let wanted = ioas::iommu_destroy { size: length::<ioas::iommu_destroy>(), id };
        // SAFETY: the structure is only read.
        done(unsafe { ioctl_with_ref(&self.0, abi::IOMMU_DESTROY, &wanted) }).map(drop)
    }
    fn ioas_info(&self, ioas: u32) -> Result<ContainerInfo> {
        let mut room = 16usize;
        // The number of ranges may grow between two calls, but not for ever.
        for _ in 0..8 {
            // struct iommu_iova_range: start, last.
            let mut ranges = vec![[0u64; 2]; room];
            let mut wanted = ioas::iommu_ioas_iova_ranges {
                size: length::<ioas::iommu_ioas_iova_ranges>(),
                ioas_id: ioas,
                num_iovas: room as u32,
                __reserved: 0,
                allowed_iovas: ranges.as_mut_ptr().expose_provenance() as u64,
                out_iova_alignment: 0,
            };
            // SAFETY: the kernel reads and writes the structure, and writes as many ranges as it says there is room for.
            let result = done(unsafe { ioctl_with_mut_ref(&self.0, abi::IOMMU_IOAS_IOVA_RANGES, &mut wanted) });
            let found = wanted.num_iovas as usize;
            match result {
                Ok(_) => {
                    ranges.truncate(found);
                    return Ok(ContainerInfo {
                        // All multiples of the alignment.
                        page_sizes: wanted.out_iova_alignment.max(1).wrapping_neg(),
                        iova_ranges: ranges.into_iter().map(|[start, last]| (start, last)).collect(),
                        ..ContainerInfo::default()
                    });
                }
                Err(e) if e.raw_os_error() == Some(libc::EMSGSIZE) && found > room => room = found,
                Err(e) => return Err(e),
            }
        }
        Err(Error::from(ErrorKind::InvalidData))
    }
    fn ioas_map(&self, ioas: u32, map: &DmaMap) -> Result<()> {
        let write = if map.write { ioas::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE } else { 0 };
        let wanted = ioas::iommu_ioas_map {
            size: length::<ioas::iommu_ioas_map>(),
            flags: ioas::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA
                | ioas::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE
                | write,
            ioas_id: ioas,
            __reserved: 0,
            user_va: map.host,
            length: map.len,
            iova: map.iova,
        };
        // SAFETY: the structure is only read; as for a container's maps.
        done(unsafe { ioctl_with_ref(&self.0, abi::IOMMU_IOAS_MAP, &wanted) }).map(drop)
    }
    fn ioas_unmap(&self, ioas: u32, iova: u64, len: u64) -> Result<u64> {
        let size = length::<ioas::iommu_ioas_unmap>();
        let mut wanted = ioas::iommu_ioas_unmap { size, ioas_id: ioas, iova, length: len };
        // SAFETY: the kernel reads and writes the structure.
        done(unsafe { ioctl_with_mut_ref(&self.0, abi::IOMMU_IOAS_UNMAP, &mut wanted) })?;
        Ok(wanted.length)
    }
    fn hwpt_alloc(&self, device: u32, ioas: u32) -> Result<u32> {
        let mut wanted = ioas::iommu_hwpt_alloc {
            size: length::<ioas::iommu_hwpt_alloc>(),
            flags: ioas::iommufd_hwpt_alloc_flags_IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
            dev_id: device,
            pt_id: ioas,
            data_type: ioas::iommu_hwpt_data_type_IOMMU_HWPT_DATA_NONE,
            ..Default::default()
        };
        // SAFETY: the kernel reads and writes the structure, which has no data of its own.
        done(unsafe { ioctl_with_mut_ref(&self.0, abi::IOMMU_HWPT_ALLOC, &mut wanted) })?;
        Ok(wanted.out_hwpt_id)
    }
    fn hwpt_track_dirty(&self, hwpt: u32, on: bool) -> Result<()> {
        let enable = ioas::iommufd_hwpt_set_dirty_tracking_flags_IOMMU_HWPT_DIRTY_TRACKING_ENABLE;
        let wanted = ioas::iommu_hwpt_set_dirty_tracking {
            size: length::<ioas::iommu_hwpt_set_dirty_tracking>(),
            flags: if on { enable } else { 0 },
            hwpt_id: hwpt,
            __reserved: 0,
        };
        // SAFETY: the structure is only read.
        done(unsafe { ioctl_with_ref(&self.0, abi::IOMMU_HWPT_SET_DIRTY_TRACKING, &wanted) }).map(drop)
    }
    fn hwpt_dirty(&self, hwpt: u32, iova: u64, len: u64, dirty: &mut DirtyBitmap<'_>) -> Result<()> {
        room(len, dirty)?;
        let wanted = ioas::iommu_hwpt_get_dirty_bitmap {
            size: length::<ioas::iommu_hwpt_get_dirty_bitmap>(),
            hwpt_id: hwpt,
            iova,
            length: len,
            page_size: dirty.page_size,
            data: dirty.words.as_mut_ptr().expose_provenance() as u64,
            ..Default::default()
        };
        // SAFETY: the structure is only read; the kernel sets bits of the range's pages in the words, which have room for them.
        done(unsafe { ioctl_with_ref(&self.0, abi::IOMMU_HWPT_GET_DIRTY_BITMAP, &wanted) }).map(drop)
    }
}

struct Device(File);

/// Have the words room for the bits of so many bytes?
fn room(len: u64, dirty: &DirtyBitmap<'_>) -> Result<()> {
    let pages = len.div_ceil(dirty.page_size.max(1));
    if pages > dirty.words.len() as u64 * 64 { Err(Error::from(ErrorKind::InvalidInput)) } else { Ok(()) }
}

/// Length of `struct vfio_irq_set` without its data, and of `struct vfio_pci_hot_reset`.
const IRQ_SET: usize = 20;
const HOT_RESET: usize = 12;
/// Of `struct vfio_device_feature` without its data.
const FEATURE: usize = 8;

impl Device {
    /// `VFIO_DEVICE_FEATURE`: `fill` writes, `len` bytes of data come back in the record after its head.
    fn feature(&self, feature: u32, flags: u32, len: usize, fill: impl FnOnce(&mut Record)) -> Result<Record> {
        let mut record = Record::new(FEATURE + len);
        record.set_u32(4, feature | flags);
        fill(&mut record);
        call(&self.0, abi::VFIO_DEVICE_FEATURE, &mut record)?;
        Ok(record)
    }
}

impl DeviceFile for Device {
    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
    fn info(&self) -> Result<DeviceInfo> {
        // struct vfio_device_info: argsz, flags, num_regions, num_irqs, cap_offset.
        let mut record = Record::new(size_of::<vfio::vfio_device_info>());
        call(&self.0, abi::VFIO_DEVICE_GET_INFO, &mut record)?;
        let flags = record.u32(4);
        Ok(DeviceInfo {
            pci: flags & vfio::VFIO_DEVICE_FLAGS_PCI != 0,
            reset: flags & vfio::VFIO_DEVICE_FLAGS_RESET != 0,
            regions: record.u32(8),
            irqs: record.u32(12),
        })
    }
    fn region_info(&self, index: u32) -> Result<RegionInfo> {
        // struct vfio_region_info: argsz, flags, index, cap_offset, size, offset.
        let len = size_of::<vfio::vfio_region_info>();
        let ask = |record: &mut Record| record.set_u32(8, index);
        let record = call_with_capabilities(&self.0, abi::VFIO_DEVICE_GET_REGION_INFO, ask, len)?;
        let flags = record.u32(4);
        let mut info = RegionInfo {
            index,
            size: record.u64(16),
            offset: record.u64(24),
            read: flags & vfio::VFIO_REGION_INFO_FLAG_READ != 0,
            write: flags & vfio::VFIO_REGION_INFO_FLAG_WRITE != 0,
            mmap: flags & vfio::VFIO_REGION_INFO_FLAG_MMAP != 0,
            ..RegionInfo::default()
        };
        let first = if flags & vfio::VFIO_REGION_INFO_FLAG_CAPS != 0 { record.u32(12) } else { 0 };
        for (id, at) in record.capabilities(first) {
            match id {
                abi::REGION_INFO_CAP_SPARSE_MMAP => {
                    let count = (record.u32(at) as usize).min(len_after(&record, at + 8) / 16);
                    let area = |i| (record.u64(at + 8 + 16 * i), record.u64(at + 16 + 16 * i));
                    info.sparse = Some((0..count).map(area).collect());
                }
                abi::REGION_INFO_CAP_TYPE => info.kind = Some((record.u32(at), record.u32(at + 4))),
                abi::REGION_INFO_CAP_MSIX_MAPPABLE => info.msix_mappable = true,
                _ => {}
            }
        }
        Ok(info)
    }
    fn irq_info(&self, index: u32) -> Result<IrqInfo> {
        let mut info = vfio::vfio_irq_info { argsz: length::<vfio::vfio_irq_info>(), flags: 0, index, count: 0 };
        // SAFETY: the kernel reads and writes the structure.
        done(unsafe { ioctl_with_mut_ref(&self.0, abi::VFIO_DEVICE_GET_IRQ_INFO, &mut info) })?;
        let has = |flag| info.flags & flag != 0;
        Ok(IrqInfo {
            count: info.count,
            eventfd: has(vfio::VFIO_IRQ_INFO_EVENTFD),
            maskable: has(vfio::VFIO_IRQ_INFO_MASKABLE),
            automasked: has(vfio::VFIO_IRQ_INFO_AUTOMASKED),
            noresize: has(vfio::VFIO_IRQ_INFO_NORESIZE),
        })
    }
    fn read(&self, region: &RegionInfo, offset: u64, data: &mut [u8]) -> Result<()> {
        self.0.read_exact_at(data, region.offset.wrapping_add(offset))
    }
    fn write(&self, region: &RegionInfo, offset: u64, data: &[u8]) -> Result<()> {
        self.0.write_all_at(data, region.offset.wrapping_add(offset))
    }
    fn map(&self, region: &RegionInfo, offset: u64, len: u64) -> Result<Arc<dyn RegionPages>> {
        let too_big = || Error::from_raw_os_error(libc::EINVAL);
        let len = usize::try_from(len).map_err(|_| too_big())?;
        let at = region.offset.checked_add(offset).and_then(|at| at.try_into().ok()).ok_or_else(too_big)?;
        let mut access = 0;
        for (may, bit) in [(region.read, libc::PROT_READ), (region.write, libc::PROT_WRITE)] {
            access |= if may { bit } else { 0 };
        }
        // SAFETY: a new mapping, wherever the kernel likes.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, access, libc::MAP_SHARED, self.0.as_raw_fd(), at) };
        if base == libc::MAP_FAILED { Err(Error::last_os_error()) } else { Ok(Arc::new(Pages { base, len })) }
    }
    fn set_irqs(&self, index: u32, action: IrqAction, start: u32, data: IrqData<'_>) -> Result<()> {
        let (kind, count, bytes) = match data {
            IrqData::None(count) => (vfio::VFIO_IRQ_SET_DATA_NONE, count, Vec::new()),
            IrqData::Bool(set) => {
                (vfio::VFIO_IRQ_SET_DATA_BOOL, set.len() as u32, set.iter().map(|b| (*b).into()).collect())
            }
            IrqData::EventFds(fds) => {
                let bytes = fds.iter().flat_map(|fd| fd.unwrap_or(-1).to_ne_bytes()).collect();
                (vfio::VFIO_IRQ_SET_DATA_EVENTFD, fds.len() as u32, bytes)
            }
        };
        let action = match action {
            IrqAction::Mask => vfio::VFIO_IRQ_SET_ACTION_MASK,
            IrqAction::Unmask => vfio::VFIO_IRQ_SET_ACTION_UNMASK,
            IrqAction::Trigger => vfio::VFIO_IRQ_SET_ACTION_TRIGGER,
        };
        // struct vfio_irq_set: argsz, flags, index, start, count, data.
        let mut record = Record::new(IRQ_SET + bytes.len());
        for (i, value) in [kind | action, index, start, count].into_iter().enumerate() {
            record.set_u32(4 + 4 * i, value);
        }
        record.set(IRQ_SET, &bytes);
        call(&self.0, abi::VFIO_DEVICE_SET_IRQS, &mut record).map(drop)
    }
    fn reset(&self) -> Result<()> {
        // SAFETY: no argument.
        done(unsafe { ioctl(&self.0, abi::VFIO_DEVICE_RESET) }).map(drop)
    }
    fn hot_reset_info(&self) -> Result<HotResetInfo> {
        // struct vfio_pci_hot_reset_info: argsz, flags, count, then devices of 8 bytes: owner, segment, bus, devfn.
        let mut room = 8;
        for _ in 0..8 {
            let mut record = Record::new(HOT_RESET + 8 * room);
            match call(&self.0, abi::VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, &mut record) {
                Ok(_) => {
                    let flags = record.u32(4);
                    let device = |i| {
                        let at = HOT_RESET + 8 * i;
                        DependentDevice {
                            owner: record.u32(at) as i32,
                            segment: record.u16(at + 4),
                            bus: record.u8(at + 6),
                            devfn: record.u8(at + 7),
                        }
                    };
                    return Ok(HotResetInfo {
                        devices: (0..(record.u32(8) as usize).min(room)).map(device).collect(),
                        by_device: flags & vfio::VFIO_PCI_HOT_RESET_FLAG_DEV_ID != 0,
                        owned: flags & vfio::VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED != 0,
                    });
                }
                // It says how many there are.
                Err(e) if e.raw_os_error() == Some(libc::ENOSPC) => room = (record.u32(8) as usize).max(2 * room),
                Err(e) => return Err(e),
            }
        }
        Err(Error::from(ErrorKind::InvalidData))
    }
    fn hot_reset(&self, groups: &[RawFd]) -> Result<()> {
        let mut record = Record::new(HOT_RESET + 4 * groups.len());
        record.set_u32(8, groups.len() as u32);
        for (i, fd) in groups.iter().enumerate() {
            record.set(HOT_RESET + 4 * i, &fd.to_ne_bytes());
        }
        call(&self.0, abi::VFIO_DEVICE_PCI_HOT_RESET, &mut record).map(drop)
    }
    fn bind_iommufd(&self, iommufd: RawFd) -> Result<u32> {
        // struct vfio_device_bind_iommufd: argsz, flags, iommufd, out_devid.
        let mut record = Record::new(16);
        record.set(8, &iommufd.to_ne_bytes());
        call(&self.0, abi::VFIO_DEVICE_BIND_IOMMUFD, &mut record)?;
        Ok(record.u32(12))
    }
    fn attach_ioas(&self, ioas: u32) -> Result<()> {
        // struct vfio_device_attach_iommufd_pt: argsz, flags, pt_id.
        let mut record = Record::new(12);
        record.set_u32(8, ioas);
        call(&self.0, abi::VFIO_DEVICE_ATTACH_IOMMUFD_PT, &mut record).map(drop)
    }
    fn detach_ioas(&self) -> Result<()> {
        call(&self.0, abi::VFIO_DEVICE_DETACH_IOMMUFD_PT, &mut Record::new(8)).map(drop)
    }
    fn migration_flags(&self) -> Result<MigrationFlags> {
        let record = self.feature(vfio::VFIO_DEVICE_FEATURE_MIGRATION, vfio::VFIO_DEVICE_FEATURE_GET, 8, |_| ())?;
        let has = |flag: u32| record.u64(FEATURE) & u64::from(flag) != 0;
        Ok(MigrationFlags {
            stop_copy: has(vfio::VFIO_MIGRATION_STOP_COPY),
            p2p: has(vfio::VFIO_MIGRATION_P2P),
            pre_copy: has(vfio::VFIO_MIGRATION_PRE_COPY),
        })
    }
    fn migration_state(&self) -> Result<MigrationState> {
        let state = vfio::VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;
        let record = self.feature(state, vfio::VFIO_DEVICE_FEATURE_GET, 8, |_| ())?;
        MigrationState::from_number(record.u32(FEATURE)).ok_or_else(|| Error::from(ErrorKind::InvalidData))
    }
    fn set_migration_state(&self, state: MigrationState) -> Result<Option<Box<dyn MigrationData>>> {
        let feature = vfio::VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;
        let record = self.feature(feature, vfio::VFIO_DEVICE_FEATURE_SET, 8, |record| {
            record.set_u32(FEATURE, state as u32);
            record.set(FEATURE + 4, &(-1i32).to_ne_bytes());
        })?;
        let fd = record.u32(FEATURE + 4) as RawFd;
        // SAFETY: the kernel made the descriptor for this call.
        Ok((fd >= 0).then(|| Box::new(Stream(unsafe { File::from_raw_fd(fd) })) as _))
    }
    fn migration_data_size(&self) -> Result<u64> {
        let record = self.feature(vfio::VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, vfio::VFIO_DEVICE_FEATURE_GET, 8, |_| ())?;
        Ok(record.u64(FEATURE))
    }
    fn logs_dma(&self) -> bool {
        let start = vfio::VFIO_DEVICE_FEATURE_DMA_LOGGING_START;
        let probe = vfio::VFIO_DEVICE_FEATURE_PROBE | vfio::VFIO_DEVICE_FEATURE_SET;
        self.feature(start, probe, 0, |_| ()).is_ok()
    }
    fn start_dma_log(&self, page_size: u64, ranges: &[(u64, u64)]) -> Result<u64> {
        let ranges: Vec<[u64; 2]> = ranges.iter().map(|(iova, len)| [*iova, *len]).collect();
        let start = vfio::VFIO_DEVICE_FEATURE_DMA_LOGGING_START;
        // struct vfio_device_feature_dma_logging_control: page_size, num_ranges, reserved, ranges.
        let record = self.feature(start, vfio::VFIO_DEVICE_FEATURE_SET, 24, |record| {
            record.set_u64(FEATURE, page_size);
            record.set_u32(FEATURE + 8, ranges.len() as u32);
            record.set_u64(FEATURE + 16, ranges.as_ptr().expose_provenance() as u64);
        })?;
        Ok(record.u64(FEATURE))
    }
    fn stop_dma_log(&self) -> Result<()> {
        let stop = vfio::VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP;
        self.feature(stop, vfio::VFIO_DEVICE_FEATURE_SET, 0, |_| ()).map(drop)
    }
    fn dma_log(&self, iova: u64, len: u64, dirty: &mut DirtyBitmap<'_>) -> Result<()> {
        room(len, dirty)?;
        let report = vfio::VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT;
        // struct vfio_device_feature_dma_logging_report: iova, length, page_size, bitmap.
        let fill = |record: &mut Record| {
            let bitmap = dirty.words.as_mut_ptr().expose_provenance() as u64;
            for (i, value) in [iova, len, dirty.page_size, bitmap].into_iter().enumerate() {
                record.set_u64(FEATURE + 8 * i, value);
            }
        };
        self.feature(report, vfio::VFIO_DEVICE_FEATURE_GET, 32, fill).map(drop)
    }
}

/// Pages of a region, mapped as long as the value lives.
struct Pages {
    base: *mut libc::c_void,
    len: usize,
}

// SAFETY: device memory, which any thread may reach; nothing here does.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl RegionPages for Pages {
    fn host(&self) -> u64 {
        self.base.expose_provenance() as u64
    }
    fn len(&self) -> u64 {
        self.len as u64
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and who keeps its address keeps the value.
        unsafe {
            libc::munmap(self.base, self.len);
        }
    }
}

struct Stream(File);

impl MigrationData for Stream {
    fn read(&mut self, data: &mut [u8]) -> Result<usize> {
        std::io::Read::read(&mut self.0, data)
    }
    fn write(&mut self, data: &[u8]) -> Result<usize> {
        std::io::Write::write(&mut self.0, data)
    }
    fn precopy_info(&self) -> Result<PrecopyInfo> {
        // struct vfio_precopy_info: argsz, flags, initial_bytes, dirty_bytes.
        let mut record = Record::new(size_of::<vfio::vfio_precopy_info>());
        call(&self.0, abi::VFIO_MIG_GET_PRECOPY_INFO, &mut record)?;
        Ok(PrecopyInfo { initial: record.u64(8), dirty: record.u64(16) })
    }
}
