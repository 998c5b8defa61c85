//! What carries out maps: a container of one of the two kinds, or an address space of an iommufd.

use crate::VfioError;
use crate::error::Context;
use crate::sys::{ContainerFile, ContainerInfo, DeviceFile, DirtyBitmap, DmaMap, IommuFile};
use parking_lot::Mutex;
use rhea_device::dma::DmaWindow;
use std::io;
use std::sync::Arc;

/// The smallest page of any IOMMU.
const SMALLEST: u64 = 0x1000;

/// One address space of the host's IOMMU.
pub(crate) enum Backing {
    /// Type 1, version 2: what was mapped in one call is unmapped in one.
    Type1 { file: Arc<dyn ContainerFile>, info: Mutex<ContainerInfo> },
    /// spapr TCE, version 2: tables with an entry for each page, in windows; memory is registered first.
    Tce { file: Arc<dyn ContainerFile>, windows: Mutex<Vec<DmaWindow>> },
    /// As type 1, by number.
    Iommufd { file: Arc<dyn IommuFile>, ioas: u32, info: Mutex<ContainerInfo>, attached: Mutex<Vec<Attachment>> },
}

/// A device in an address space of an iommufd.
pub(crate) struct Attachment {
    /// Its number in the iommufd.
    device: u32,
    /// The tables it uses, which tell what it writes; `None`: those that the kernel chose, which do not.
    tables: Option<u32>,
}

impl Drop for Backing {
    fn drop(&mut self) {
        if let Self::Iommufd { file, ioas, .. } = self {
            // Fails while a device is attached: it goes with the file then.
            let _ = file.destroy(*ioas);
        }
    }
}

fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The kernel, or the device's IOMMU, has not what was asked for.
fn lacking(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOTTY | libc::EINVAL))
}

/// The numbers of tables, each once.
fn tables(attached: &[Attachment]) -> Vec<u32> {
    let mut all: Vec<u32> = attached.iter().filter_map(|a| a.tables).collect();
    all.sort_unstable();
    all.dedup();
    all
}

impl Backing {
    pub(crate) fn type1(file: Arc<dyn ContainerFile>) -> io::Result<Self> {
        let info = Mutex::new(file.info()?);
        Ok(Self::Type1 { file, info })
    }
    pub(crate) fn tce(file: Arc<dyn ContainerFile>) -> io::Result<Self> {
        // The kernel begins with one, which is not the guest's.
        let (start, len) = file.tce_info()?.dma32;
        if len != 0 {
            file.tce_remove(start.into())?;
        }
        Ok(Self::Tce { file, windows: Mutex::default() })
    }
    /// With a device in it, as many would have it.
    pub(crate) fn iommufd(
        file: Arc<dyn IommuFile>,
        ioas: u32,
        device: &dyn DeviceFile,
        number: u32,
    ) -> io::Result<Self> {
        let attached = Mutex::default();
        let made = Self::Iommufd { file, ioas, info: Mutex::default(), attached };
        made.attach(device, number)?;
        made.refresh().inspect_err(|_| made.detach(device, number))?;
        Ok(made)
    }
    /// Another device of an iommufd.
    ///
    /// # Errors
    /// It cannot be in this address space.
    pub(crate) fn attach(&self, device: &dyn DeviceFile, number: u32) -> io::Result<()> {
        let Self::Iommufd { file, ioas, attached, .. } = self else { return unsupported() };
        let mut attached = attached.lock();
        let known = tables(&attached).into_iter().find(|id| device.attach_ioas(*id).is_ok());
        let tables = match known {
            Some(id) => Some(id),
            None => match file.hwpt_alloc(number, *ioas) {
                Ok(id) => {
                    device.attach_ioas(id).inspect_err(|_| drop(file.destroy(id)))?;
                    Some(id)
                }
                Err(e) if lacking(&e) => {
                    device.attach_ioas(*ioas)?;
                    None
                }
                Err(e) => return Err(e),
            },
        };
        attached.push(Attachment { device: number, tables });
        Ok(())
    }
    /// It leaves again.
    pub(crate) fn detach(&self, device: &dyn DeviceFile, number: u32) {
        let Self::Iommufd { file, attached, .. } = self else { return };
        let _ = device.detach_ioas();
        let mut attached = attached.lock();
        let before = tables(&attached);
        attached.retain(|a| a.device != number);
        for id in before.into_iter().filter(|id| !attached.iter().any(|a| a.tables == Some(*id))) {
            let _ = file.destroy(id);
        }
    }
    /// Has note taken of what devices write, or no longer.
    ///
    /// # Errors
    /// Unsupported, or the kernel's: not all of it is noted then.
    pub(crate) fn track_dirty(&self, on: bool) -> io::Result<()> {
        match self {
            Self::Type1 { file, info } => {
                let page = self.page();
                let can = info.lock().dirty.is_some_and(|d| d.page_sizes & page != 0);
                if can { file.track_dirty(on) } else { unsupported() }
            }
            Self::Iommufd { file, attached, .. } => {
                let attached = attached.lock();
                if on && attached.iter().any(|a| a.tables.is_none()) {
                    return unsupported();
                }
                let all = tables(&attached);
                let done = all.iter().map(|id| file.hwpt_track_dirty(*id, on)).fold(Ok(()), io::Result::and);
                if on && done.is_err() {
                    for id in all {
                        let _ = file.hwpt_track_dirty(id, false);
                    }
                }
                done
            }
            Self::Tce { .. } => unsupported(),
        }
    }
    /// Takes the pages of a range that were written; no mapping is cut by its edges.
    ///
    /// # Errors
    /// The kernel's; what it has told is lost then.
    pub(crate) fn dirty(&self, iova: u64, len: u64, dirty: &mut DirtyBitmap<'_>) -> io::Result<()> {
        match self {
            Self::Type1 { file, .. } => file.dirty(iova, len, dirty),
            Self::Iommufd { file, attached, .. } => {
                let all = tables(&attached.lock());
                all.into_iter().try_for_each(|id| file.hwpt_dirty(id, iova, len, dirty))
            }
            Self::Tce { .. } => unsupported(),
        }
    }
    /// Unmaps all that lies in the range, and takes the pages that were written up to then.
    ///
    /// # Errors
    /// Unsupported where the one does not come with the other, or the kernel's: it may have been unmapped.
    pub(crate) fn unmap_dirty(&self, iova: u64, len: u64, dirty: &mut DirtyBitmap<'_>) -> io::Result<()> {
        match self {
            Self::Type1 { file, .. } => file.unmap_dirty(iova, len, dirty).map(drop),
            _ => unsupported(),
        }
    }
    /// The smallest page of what may be mapped.
    pub(crate) fn page(&self) -> u64 {
        self.allowed().iter().map(|(.., page)| *page).min().unwrap_or(SMALLEST)
    }
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Type1 { .. } => "type 1",
            Self::Tce { .. } => "spapr TCE",
            Self::Iommufd { .. } => "iommufd",
        }
    }
    /// Looks again at what may be mapped, which devices that join may make less.
    pub(crate) fn refresh(&self) -> io::Result<()> {
        match self {
            Self::Type1 { file, info } => *info.lock() = file.info()?,
            Self::Iommufd { file, ioas, info, .. } => *info.lock() = file.ioas_info(*ioas)?,
            Self::Tce { .. } => {}
        }
        Ok(())
    }
    /// A part of what was mapped in one call can be unmapped.
    pub(crate) fn splits(&self) -> bool {
        matches!(self, Self::Tce { .. })
    }
    /// Memory must be registered before it is mapped, and is locked by that.
    pub(crate) fn registers(&self) -> bool {
        matches!(self, Self::Tce { .. })
    }
    /// What may be mapped: first and last address, and size of pages, which is a power of two. Rising.
    pub(crate) fn allowed(&self) -> Vec<(u64, u64, u64)> {
        match self {
            Self::Type1 { info, .. } | Self::Iommufd { info, .. } => {
                let info = info.lock();
                let page = match info.page_sizes {
                    0 => SMALLEST,
                    sizes => 1 << sizes.trailing_zeros(),
                };
                if info.iova_ranges.is_empty() {
                    return vec![(0, u64::MAX, page)];
                }
                info.iova_ranges.iter().map(|(first, last)| (*first, *last, page)).collect()
            }
            Self::Tce { windows, .. } => {
                let windows = windows.lock();
                let window = |w: &DmaWindow| (w.base, w.base.saturating_add(w.len.max(1) - 1), 1 << w.page_shift);
                let mut all: Vec<_> = windows.iter().map(window).collect();
                all.sort_unstable();
                all
            }
        }
    }
    /// Can there be a window like this, as far as one knows before it is made?
    pub(crate) fn reaches(&self, window: DmaWindow) -> bool {
        let last = window.base.saturating_add(window.len.max(1) - 1);
        // The kernel has a place for each of its own windows.
        self.registers() || self.allowed().iter().any(|(start, end, _)| *start <= window.base && last <= *end)
    }
    /// Makes the windows these, which what is mapped in others must not need any more.
    ///
    /// # Errors
    /// The kernel cannot have a window like this.
    pub(crate) fn set_windows(&self, wanted: &[DmaWindow]) -> Result<(), VfioError> {
        let Self::Tce { file, windows } = self else { return Ok(()) };
        let mut windows = windows.lock();
        for gone in windows.iter().filter(|w| !wanted.contains(w)) {
            file.tce_remove(gone.base).during("a window of the host's IOMMU")?;
        }
        windows.retain(|w| wanted.contains(w));
        let offered = file.tce_info().during("windows of the host's IOMMU")?.dynamic;
        for w in wanted {
            if windows.contains(w) {
                continue;
            }
            let page = 1u64 << w.page_shift;
            let fails = |why: &str| VfioError::Window { base: w.base, len: w.len, page, why: why.to_owned() };
            let Some(offered) = offered else { return Err(fails("it has only the one it started with")) };
            if offered.page_sizes & page == 0 {
                return Err(fails("it has no such pages"));
            }
            let made = (1..=offered.levels.max(1)).find_map(|levels| file.tce_create(w.page_shift, w.len, levels).ok());
            match made {
                Some(start) if start == w.base => windows.push(*w),
                Some(start) => {
                    let _ = file.tce_remove(start);
                    return Err(fails(&format!("it would be at {start:#x}")));
                }
                None => return Err(fails("the kernel refuses it")),
            }
        }
        Ok(())
    }
    /// The windows there are now.
    pub(crate) fn windows(&self) -> Vec<DmaWindow> {
        match self {
            Self::Tce { windows, .. } => windows.lock().clone(),
            _ => Vec::new(),
        }
    }
    /// Sizes of pages a window may have.
    pub(crate) fn window_pages(&self) -> u64 {
        match self {
            Self::Tce { file, .. } => file.tce_info().ok().and_then(|i| i.dynamic).map_or(SMALLEST, |d| d.page_sizes),
            _ => !(SMALLEST - 1),
        }
    }
    pub(crate) fn register(&self, host: u64, len: u64) -> io::Result<()> {
        match self {
            Self::Tce { file, .. } => file.register_memory(host, len),
            _ => Ok(()),
        }
    }
    pub(crate) fn unregister(&self, host: u64, len: u64) -> io::Result<()> {
        match self {
            Self::Tce { file, .. } => file.unregister_memory(host, len),
            _ => Ok(()),
        }
    }
    pub(crate) fn map(&self, map: &DmaMap) -> io::Result<()> {
        match self {
            Self::Type1 { file, .. } | Self::Tce { file, .. } => file.map(map),
            Self::Iommufd { file, ioas, .. } => file.ioas_map(*ioas, map),
        }
    }
    /// Unmaps all that lies in the range.
    pub(crate) fn unmap(&self, iova: u64, len: u64) -> io::Result<()> {
        match self {
            Self::Type1 { file, .. } | Self::Tce { file, .. } => file.unmap(iova, len).map(drop),
            Self::Iommufd { file, ioas, .. } => file.ioas_unmap(*ioas, iova, len).map(drop),
        }
    }
}
