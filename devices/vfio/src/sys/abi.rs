//! Numbers of the calls (`linux/vfio.h`, `linux/iommufd.h`), which the bindings lack, and structures of any length.

use libc::{_IO, Ioctl};

const VFIO: u32 = b';' as u32;
const BASE: u32 = 100;

const fn vfio(number: u32) -> Ioctl {
    _IO(VFIO, BASE + number)
}

pub const VFIO_GET_API_VERSION: Ioctl = vfio(0);
pub const VFIO_CHECK_EXTENSION: Ioctl = vfio(1);
pub const VFIO_SET_IOMMU: Ioctl = vfio(2);
pub const VFIO_GROUP_GET_STATUS: Ioctl = vfio(3);
pub const VFIO_GROUP_SET_CONTAINER: Ioctl = vfio(4);
pub const VFIO_GROUP_UNSET_CONTAINER: Ioctl = vfio(5);
pub const VFIO_GROUP_GET_DEVICE_FD: Ioctl = vfio(6);
pub const VFIO_DEVICE_GET_INFO: Ioctl = vfio(7);
pub const VFIO_DEVICE_GET_REGION_INFO: Ioctl = vfio(8);
pub const VFIO_DEVICE_GET_IRQ_INFO: Ioctl = vfio(9);
pub const VFIO_DEVICE_SET_IRQS: Ioctl = vfio(10);
pub const VFIO_DEVICE_RESET: Ioctl = vfio(11);
pub const VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: Ioctl = vfio(12);
pub const VFIO_DEVICE_PCI_HOT_RESET: Ioctl = vfio(13);
pub const VFIO_DEVICE_FEATURE: Ioctl = vfio(17);
pub const VFIO_DEVICE_BIND_IOMMUFD: Ioctl = vfio(18);
pub const VFIO_DEVICE_ATTACH_IOMMUFD_PT: Ioctl = vfio(19);
pub const VFIO_DEVICE_DETACH_IOMMUFD_PT: Ioctl = vfio(20);
/// Of a migration's data stream.
pub const VFIO_MIG_GET_PRECOPY_INFO: Ioctl = vfio(21);

// Of containers; type 1 and spapr TCE have some numbers for different things.
pub const VFIO_IOMMU_GET_INFO: Ioctl = vfio(12);
pub const VFIO_IOMMU_SPAPR_TCE_GET_INFO: Ioctl = vfio(12);
pub const VFIO_IOMMU_MAP_DMA: Ioctl = vfio(13);
pub const VFIO_IOMMU_UNMAP_DMA: Ioctl = vfio(14);
pub const VFIO_IOMMU_DIRTY_PAGES: Ioctl = vfio(17);
pub const VFIO_IOMMU_SPAPR_REGISTER_MEMORY: Ioctl = vfio(17);
pub const VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY: Ioctl = vfio(18);
pub const VFIO_IOMMU_SPAPR_TCE_CREATE: Ioctl = vfio(19);
pub const VFIO_IOMMU_SPAPR_TCE_REMOVE: Ioctl = vfio(20);

const fn iommu(number: u32) -> Ioctl {
    _IO(VFIO, number)
}

pub const IOMMU_DESTROY: Ioctl = iommu(0x80);
pub const IOMMU_IOAS_ALLOC: Ioctl = iommu(0x81);
pub const IOMMU_IOAS_IOVA_RANGES: Ioctl = iommu(0x84);
pub const IOMMU_IOAS_MAP: Ioctl = iommu(0x85);
pub const IOMMU_IOAS_UNMAP: Ioctl = iommu(0x86);
pub const IOMMU_HWPT_ALLOC: Ioctl = iommu(0x89);
pub const IOMMU_HWPT_SET_DIRTY_TRACKING: Ioctl = iommu(0x8b);
pub const IOMMU_HWPT_GET_DIRTY_BITMAP: Ioctl = iommu(0x8c);

// Identifiers of capabilities.
pub const REGION_INFO_CAP_SPARSE_MMAP: u16 = 1;
pub const REGION_INFO_CAP_TYPE: u16 = 2;
pub const REGION_INFO_CAP_MSIX_MAPPABLE: u16 = 3;
pub const TYPE1_INFO_CAP_IOVA_RANGE: u16 = 1;
pub const TYPE1_INFO_CAP_MIGRATION: u16 = 2;
pub const TYPE1_INFO_DMA_AVAIL: u16 = 3;

// Flags.
pub const DMA_MAP_READ: u32 = 1;
pub const DMA_MAP_WRITE: u32 = 2;
pub const DMA_UNMAP_GET_DIRTY_BITMAP: u32 = 1;
pub const DMA_UNMAP_ALL: u32 = 2;

/// A structure of any length, aligned for its parts, of which the kernel reads and writes `len` bytes: those whose first word says
/// their length.
pub struct Record {
    words: Vec<u64>,
    len: usize,
}

impl Record {
    /// All zero but the length.
    pub fn new(len: usize) -> Self {
        let mut record = Self { words: vec![0; len.div_ceil(8)], len };
        record.set_u32(0, len as u32);
        record
    }
    pub fn as_mut_ptr(&mut self) -> *mut u64 {
        self.words.as_mut_ptr()
    }
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        if at.checked_add(N)? > self.len {
            return None;
        }
        Some(std::array::from_fn(|i| self.words[(at + i) / 8].to_ne_bytes()[(at + i) % 8]))
    }
    pub fn set(&mut self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.len, "all is set within the length that was asked for");
        for (i, byte) in bytes.iter().enumerate() {
            let word = &mut self.words[(at + i) / 8];
            let mut all = word.to_ne_bytes();
            all[(at + i) % 8] = *byte;
            *word = u64::from_ne_bytes(all);
        }
    }
    pub fn set_u32(&mut self, at: usize, value: u32) {
        self.set(at, &value.to_ne_bytes());
    }
    pub fn set_u64(&mut self, at: usize, value: u64) {
        self.set(at, &value.to_ne_bytes());
    }
    /// 0 beyond the end.
    pub fn u8(&self, at: usize) -> u8 {
        self.bytes(at).map_or(0, u8::from_ne_bytes)
    }
    /// 0 beyond the end.
    pub fn u16(&self, at: usize) -> u16 {
        self.bytes(at).map_or(0, u16::from_ne_bytes)
    }
    /// 0 beyond the end.
    pub fn u32(&self, at: usize) -> u32 {
        self.bytes(at).map_or(0, u32::from_ne_bytes)
    }
    /// 0 beyond the end.
    pub fn u64(&self, at: usize) -> u64 {
        self.bytes(at).map_or(0, u64::from_ne_bytes)
    }
    /// The capabilities of a list that starts at `first` (`struct vfio_info_cap_header`): identifier, and where its own fields
    /// start.
    pub fn capabilities(&self, first: u32) -> Vec<(u16, usize)> {
        let mut found = Vec::new();
        let mut at = first as usize;
        // As many as have room: no list can be longer.
        while at != 0 && at + 8 <= self.len && found.len() < self.len / 8 {
            found.push((self.u16(at), at + 8));
            at = self.u32(at + 4) as usize;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let mut record = Record::new(43);
        assert_eq!(record.u32(0), 43);
        record.set_u64(5, 0x1122_3344_5566_7788);
        assert_eq!(record.u64(5), 0x1122_3344_5566_7788);
        assert_eq!((record.u8(43), record.u32(40)), (0, 0));
        // A list that leads back to itself ends.
        record.set(16, &9u16.to_ne_bytes());
        record.set_u32(20, 16);
        assert_eq!(record.capabilities(16).first(), Some(&(9, 24)));
        assert!(record.capabilities(16).len() <= 5);
        assert!(record.capabilities(40).is_empty() && record.capabilities(0).is_empty());
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn numbers() {
        assert_eq!((VFIO_GET_API_VERSION, VFIO_DEVICE_SET_IRQS, IOMMU_IOAS_MAP), (0x3b64, 0x3b6e, 0x3b85));
    }
}
