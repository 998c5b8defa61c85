//! The displays as PCI functions.

use crate::vga::{self, Kind, Vga, VgaOptions, memory, ports};
use minicbor::{Decode, Encode};
use rhea_clock::VirtualClock;
use rhea_device::{Device, LoadError, Log, Saved, state};
use rhea_memory::{Gpa, MapError, Mapping, MemoryError};
use rhea_pci::{BarKind, ConfigBuilder, Identity, PciConfig, PciConfigState, PciFunction, PciSlot, PcieType};
use std::sync::Arc;

/// Why a display cannot be made.
#[derive(Debug)]
pub enum DisplayError {
    Memory(MemoryError),
    Map(MapError),
}

impl std::fmt::Display for DisplayError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory(e) => e.fmt(f),
            Self::Map(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for DisplayError {}

impl From<MemoryError> for DisplayError {
    fn from(e: MemoryError) -> Self {
        Self::Memory(e)
    }
}

impl From<MapError> for DisplayError {
    fn from(e: MapError) -> Self {
        Self::Map(e)
    }
}

/// What a function is.
#[derive(Clone, Debug)]
pub struct FunctionOptions {
    pub vga: VgaOptions,
    /// It answers at the VGA's fixed addresses, always: firmware that knows only those does not program the function first.
    pub legacy: bool,
}

/// A display on a PCI bus: BAR 0 is the framebuffer, BAR 2 the registers.
pub struct DisplayFunction {
    name: String,
    vga: Arc<Vga>,
    config: PciConfig,
    /// The fixed addresses.
    _legacy: Vec<Mapping>,
}

/// Class codes: VGA, other display.
const CLASS_VGA: u32 = 0x03_0000;
const CLASS_DISPLAY: u32 = 0x03_8000;

/// The ports of the Bochs interface.
const DISPI_INDEX: u64 = 0x1ce;
const DISPI_DATA: u64 = 0x1cf;
const WINDOW: u64 = 0xa_0000;

#[derive(Encode, Decode)]
struct State {
    #[n(0)]
    config: PciConfigState,
    #[cbor(n(1), with = "minicbor::bytes")]
    vga: Vec<u8>,
}

impl DisplayFunction {
    /// Makes the function for a slot; `model` names it.
    ///
    /// # Errors
    /// [`DisplayError`].
    pub fn new(
        model: &str,
        slot: &PciSlot,
        options: FunctionOptions,
        clock: &Arc<VirtualClock>,
        log: Log,
    ) -> Result<Arc<Self>, DisplayError> {
        let FunctionOptions { vga: vga_options, legacy } = options;
        let name = format!("{model}@{slot}");
        let vga = Vga::new(&name, &vga_options, clock, log)?;
        let identity = Identity {
            vendor: 0x1234,
            device: 0x1111,
            revision: 2,
            class: if legacy { CLASS_VGA } else { CLASS_DISPLAY },
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
        };
        let mut builder = ConfigBuilder::new(identity, slot.clone()).ram_bar(0, BarKind::Memory32, vga.vram()).bar(
            2,
            BarKind::Memory32,
            vga::MMIO_LENGTH,
            vga.mmio(),
        );
        if vga_options.kind == Kind::Bochs {
            builder = builder.pcie(PcieType::RootComplexIntegratedEndpoint);
        }
        let mut mappings = Vec::new();
        if legacy {
            let (space, io) = (slot.bus().memory(), slot.bus().io());
            mappings.push(space.map_mmio(Gpa(WINDOW), memory::LENGTH, vga.memory_window(), 1)?);
            mappings.push(io.map_mmio(Gpa(ports::FIRST.into()), ports::COUNT.into(), vga.port_window(), 1)?);
            mappings.push(io.map_mmio(Gpa(DISPI_INDEX), 1, vga.dispi_index_port(), 1)?);
            mappings.push(io.map_mmio(Gpa(DISPI_DATA), 2, vga.dispi_data_port(), 1)?);
        }
        Ok(Arc::new(Self { name, vga, config: builder.build(), _legacy: mappings }))
    }
    /// What is shown.
    #[must_use]
    pub fn vga(&self) -> &Arc<Vga> {
        &self.vga
    }
}

impl Device for DisplayFunction {
    fn name(&self) -> &str {
        &self.name
    }
    fn reset(&self) {
        self.vga.reset();
        self.config.reset();
    }
    fn save(&self) -> Saved {
        state::encode(1, &State { config: self.config.save(), vga: self.vga.save() })
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        let State { config, vga } = state::decode(saved, 1)?;
        self.vga.load(&vga)?;
        self.config.load(config)
    }
}

impl PciFunction for DisplayFunction {
    fn config(&self) -> &PciConfig {
        &self.config
    }
}
