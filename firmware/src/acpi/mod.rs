//! The ACPI tables of a PC with an ICH9 chipset (ACPI specification 6.5, chapters 5 and 6).

mod aml;
mod dsdt;
mod linker;
mod tables;
mod waking;

pub use waking::{FACS_LEN, WakingVector};

pub use linker::{FwCfgFiles, LOADER_FILE, Placed, RSDP_FILE, TABLES_FILE, Tables};

use std::ops::Range;

/// A processor of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    pub apic_id: u32,
    /// Proximity domain; counts with [`PcAcpi::numa`] only.
    pub node: u32,
}

/// A 16550 at its ISA ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SerialPort {
    pub port: u16,
    pub irq: u8,
}

/// The MMIO configuration space of PCI Express.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ecam {
    pub base: u64,
    /// Number of the last bus.
    pub last_bus: u8,
}

/// Sleep types: what the guest writes to `PM1_CNT.SLP_TYP`; `None`: the state does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SleepTypes {
    pub s3: Option<u8>,
    pub s4: Option<u8>,
    pub s5: u8,
}

/// How the operating system takes ACPI over from system management mode: a port and the values for on and off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmiCommand {
    pub port: u16,
    pub enable: u8,
    pub disable: u8,
}

/// Memory and distances of the proximity domains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numa {
    /// Memory of each domain, as ranges of guest-physical addresses.
    pub memory: Vec<Vec<Range<u64>>>,
    /// Row by row, 10 for a domain to itself; empty: no SLIT.
    pub distances: Vec<Vec<u8>>,
}

/// A remapping unit that all PCI functions are behind (Intel's architecture specification for directed I/O, chapter 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dmar {
    /// Of its registers.
    pub base: u64,
    /// Bits of addresses.
    pub host_bits: u8,
    pub interrupt_remapping: bool,
    /// Root ports pass translated requests on.
    pub device_iotlb: bool,
    /// Who the I/O APIC is among requesters: bus << 8 | devfn.
    pub io_apic: u16,
}

/// What the tables tell of the board. The default is a q35 board as its chipset comes out of firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcAcpi {
    pub processors: Vec<Processor>,
    pub local_apic: u32,
    pub io_apic: u32,
    pub io_apic_id: u8,
    /// The timer's IRQ 0 arrives at GSI 2.
    pub irq0_override: bool,
    pub sci: u8,
    /// Base of the power-management registers.
    pub pm_base: u16,
    pub smi_command: Option<SmiCommand>,
    pub sleep: SleepTypes,
    pub hpet: Option<u32>,
    pub ecam: Option<Ecam>,
    /// Memory the PCI host decodes below 4 GiB, besides the video window.
    pub windows32: Vec<Range<u64>>,
    /// Memory the PCI host decodes above 4 GiB.
    pub window64: Option<Range<u64>>,
    /// Root complex register block.
    pub rcba: Option<u32>,
    pub serial: Vec<SerialPort>,
    pub i8042: bool,
    /// The port of the panic device.
    pub pvpanic: Option<u16>,
    pub fw_cfg: bool,
    /// There is a VGA adapter.
    pub vga: bool,
    pub numa: Option<Numa>,
    pub dmar: Option<Dmar>,
}

impl Default for PcAcpi {
    fn default() -> Self {
        Self {
            processors: vec![Processor { apic_id: 0, node: 0 }],
            local_apic: 0xfee0_0000,
            io_apic: 0xfec0_0000,
            io_apic_id: 0,
            irq0_override: true,
            sci: 9,
            pm_base: 0x600,
            smi_command: Some(SmiCommand { port: 0xb2, enable: 2, disable: 3 }),
            sleep: SleepTypes { s3: None, s4: None, s5: 0 },
            hpet: Some(0xfed0_0000),
            ecam: Some(Ecam { base: 0xb000_0000, last_bus: 255 }),
            windows32: std::iter::once(0xc000_0000..0xfec0_0000).collect(),
            window64: None,
            rcba: Some(0xfed1_c000),
            serial: vec![SerialPort { port: 0x3f8, irq: 4 }],
            i8042: true,
            pvpanic: None,
            fw_cfg: true,
            vga: true,
            numa: None,
            dmar: None,
        }
    }
}

/// The number of PIRQ lines (A to H).
pub const PIRQS: u8 = 8;

/// The PIRQ line (0 to 7 for A to H) of a root bus slot's interrupt pin (0 to 3 for A to D), as the chipset resets to: slots 0 to 24
/// rotate over E to H, the chipset's own devices have A to D, the bridge in slot 30 E to H.
#[must_use]
pub const fn pirq(slot: u8, pin: u8) -> u8 {
    match slot {
        30 => 4 + pin % 4,
        25..=31 => pin % 4,
        _ => 4 + (slot % 4 + pin % 4) % 4,
    }
}

/// The I/O APIC input of a PIRQ line.
#[must_use]
pub const fn pirq_gsi(pirq: u8) -> u32 {
    16 + (pirq % PIRQS) as u32
}

/// The windows a PCI host decodes: from the end of low RAM to the I/O APIC without ECAM, and all above high RAM that
/// `physical_bits` can address. The chipset sends everything there that is not RAM.
#[must_use]
pub fn pci_windows(
    ram: crate::x86::RamLayout,
    ecam: Option<Ecam>,
    physical_bits: u32,
) -> (Vec<Range<u64>>, Option<Range<u64>>) {
    const IO_APIC: u64 = 0xfec0_0000;
    const MIB: u64 = 1 << 20;
    let start = ram.below_4g.next_multiple_of(MIB);
    let mut low = Vec::new();
    match ecam {
        Some(e) if e.base < IO_APIC && e.base >= start => {
            low.push(start..e.base);
            low.push(e.base + (u64::from(e.last_bus) + 1) * MIB..IO_APIC);
        }
        _ => low.push(start..IO_APIC),
    }
    low.retain(|w| w.start < w.end);
    let high = ram.end().next_multiple_of(1 << 30)..1u64 << physical_bits.clamp(36, 52);
    (low, (high.start < high.end).then_some(high))
}

impl PcAcpi {
    /// Builds all tables.
    #[must_use]
    pub fn build(&self) -> Tables {
        tables::build(self)
    }
}

#[cfg(test)]
mod tests;
