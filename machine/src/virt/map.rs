//! The memory map and interrupt numbers of `virt`.

pub use crate::board::Window;
use rhea_device::OptionError;

const fn window(start: u64, len: u64) -> Window {
    Window { start, len }
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Two banks, each this long.
pub const FLASH_BANK: u64 = 64 * MIB;
/// An erase block of a bank.
pub const FLASH_BLOCK: u64 = 256 << 10;
pub const FLASH: Window = window(0, 2 * FLASH_BANK);
pub const GIC_DIST: Window = window(0x0800_0000, 0x1_0000);
pub const GIC_CPU: Window = window(0x0801_0000, 0x1_0000);
pub const GIC_V2M: Window = window(0x0802_0000, 0x1000);
/// GICv2 virtual interface control and virtual CPU interface.
pub const GIC_HYP: Window = window(0x0803_0000, 0x1_0000);
pub const GIC_VCPU: Window = window(0x0804_0000, 0x1_0000);
pub const GIC_ITS: Window = window(0x0808_0000, 0x2_0000);
/// The first 123 redistributors.
pub const GIC_REDIST: Window = window(0x080a_0000, 0xf6_0000);
pub const REDIST_LEN: u64 = 0x2_0000;
pub const UART: Window = window(0x0900_0000, 0x1000);
pub const RTC: Window = window(0x0901_0000, 0x1000);
pub const FW_CFG: Window = window(0x0902_0000, 0x18);
pub const GPIO: Window = window(0x0903_0000, 0x1000);
pub const SECURE_UART: Window = window(0x0904_0000, 0x1000);
pub const SECURE_GPIO: Window = window(0x090b_0000, 0x1000);
pub const VIRTIO: Window = window(0x0a00_0000, 0x200);
pub const VIRTIO_COUNT: u64 = 32;
pub const SECURE_MEM: Window = window(0x0e00_0000, 0x0100_0000);
pub const PCIE_MMIO: Window = window(0x1000_0000, 0x2eff_0000);
pub const PCIE_PIO: Window = window(0x3eff_0000, 0x1_0000);
pub const PCIE_ECAM_LOW: Window = window(0x3f00_0000, 0x0100_0000);
pub const RAM_BASE: u64 = GIB;

pub const UART_SPI: u32 = 1;
pub const RTC_SPI: u32 = 2;
/// INTA to INTD of the PCIe host.
pub const PCIE_SPI: u32 = 3;
pub const GPIO_SPI: u32 = 7;
pub const SECURE_UART_SPI: u32 = 8;
pub const SECURE_GPIO_SPI: u32 = 9;
pub const VIRTIO_SPI: u32 = 16;
pub const V2M_SPI: u32 = 48;
pub const V2M_COUNT: u32 = 64;
/// SPIs of the board; the GIC has 32 more interrupts.
pub const SPIS: u32 = 256;

/// Private peripheral interrupts (PPI numbers, without the 16 SGIs).
pub const PPI_PMU: u32 = 7;
pub const PPI_MAINTENANCE: u32 = 9;
pub const PPI_TIMER_HYP: u32 = 10;
pub const PPI_TIMER_VIRT: u32 = 11;
pub const PPI_TIMER_HYP_VIRT: u32 = 12;
pub const PPI_TIMER_SECURE: u32 = 13;
pub const PPI_TIMER_PHYS: u32 = 14;

/// The regions that depend on the amount of RAM and on `highmem`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    pub ram: Window,
    /// Redistributors beyond the first 123.
    pub high_redist: Option<Window>,
    pub ecam: Window,
    pub high_mmio: Option<Window>,
}

impl Map {
    /// Lays out the high regions: they start at 256 GiB or behind RAM, each aligned to its size.
    ///
    /// # Errors
    /// [`OptionError`] if RAM or CPUs do not fit.
    pub fn new(ram_len: u64, cpus: u32, options: &crate::options::VirtOptions, v3: bool) -> Result<Self, OptionError> {
        if !options.highmem && ram_len > 3 * GIB {
            return Err(OptionError::new(
                "-m",
                format!("{} MiB: with highmem=off the machine has at most 3072 MiB", ram_len / MIB),
            ));
        }
        let low_redists = GIC_REDIST.len / REDIST_LEN;
        let need_high = v3 && u64::from(cpus) > low_redists;
        if need_high && !options.highmem_redists {
            return Err(OptionError::new(
                "-smp",
                format!("{cpus} CPUs: without highmem-redists the machine has at most {low_redists}"),
            ));
        }
        let mut at = (RAM_BASE + ram_len).next_multiple_of(GIB).max(256 * GIB);
        let mut take = |len: u64| {
            let start = at.next_multiple_of(len);
            at = start + len;
            window(start, len)
        };
        let (redist, ecam, mmio) = (take(64 * MIB), take(256 * MIB), take(512 * GIB));
        Ok(Self {
            ram: window(RAM_BASE, ram_len),
            high_redist: need_high.then_some(redist),
            ecam: if options.highmem_ecam { ecam } else { PCIE_ECAM_LOW },
            high_mmio: options.highmem_mmio.then_some(mmio),
        })
    }

    /// The address bits the map uses.
    #[must_use]
    pub fn address_bits(&self) -> u32 {
        let end = [Some(self.ram), self.high_redist, Some(self.ecam), self.high_mmio];
        let end = end.into_iter().flatten().map(|w| w.start + w.len).max().unwrap_or(1);
        64 - (end - 1).leading_zeros()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::VirtOptions;

    #[test]
    fn high_regions() {
        let options = VirtOptions::parse(&[]).unwrap();
        let map = Map::new(2 * GIB, 4, &options, true).unwrap();
        assert_eq!(map.ecam.start, 0x40_1000_0000);
        assert_eq!(map.high_mmio.unwrap().start, 0x80_0000_0000);
        assert_eq!(map.high_redist, None);
        assert_eq!(map.address_bits(), 40);
        let map = Map::new(255 * GIB, 200, &options, true).unwrap();
        assert_eq!(map.high_redist.unwrap().start, 0x40_0000_0000);
        let low = VirtOptions::parse(&["highmem=off".to_owned()]).unwrap();
        assert!(Map::new(4 * GIB, 4, &low, true).is_err());
        assert!(Map::new(GIB, 124, &low, true).is_err());
        assert_eq!(Map::new(GIB, 4, &low, true).unwrap().ecam, PCIE_ECAM_LOW);
    }
}
