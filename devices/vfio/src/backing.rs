//! What carries out maps: a container of one of the two kinds, or an address space of an iommufd.

use crate::VfioError;
use crate::error::Context;
use crate::sys::{ContainerFile, ContainerInfo, DmaMap, IommuFile};
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
    Iommufd { file: Arc<dyn IommuFile>, ioas: u32, info: Mutex<ContainerInfo> },
}

impl Drop for Backing {
    fn drop(&mut self) {
        if let Self::Iommufd { file, ioas, .. } = self {
            // Fails while a device is attached: it goes with the file then.
            let _ = file.destroy(*ioas);
        }
    }
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
    pub(crate) fn iommufd(file: Arc<dyn IommuFile>, ioas: u32) -> io::Result<Self> {
        let info = Mutex::new(file.ioas_info(ioas)?);
        Ok(Self::Iommufd { file, ioas, info })
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
            Self::Iommufd { file, ioas, info } => *info.lock() = file.ioas_info(*ioas)?,
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
