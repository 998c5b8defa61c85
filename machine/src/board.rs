//! A board while it is put together: what every board has.

use crate::inventory::Inventory;
use crate::machine::Info;
use rhea_accel::{Accelerator, InterruptRouting, VmControl};
use rhea_block::Drive;
use rhea_clock::{Counting, VirtualClock};
use rhea_device::chardev::{CharBackend, Chardevs};
use rhea_device::{Device, DmaHandle, Log};
use rhea_display::Console;
use rhea_memory::{AddressSpace, Gpa, Mapping, MmioDevice, RamBlock};
use rhea_pc::InputHub;
use rhea_pci::PciFunction;
use std::any::Any;
use std::sync::{Arc, Weak};

/// What the front of the emulator connects to the board.
#[derive(Clone, Default)]
pub struct Wiring {
    pub serials: Vec<Arc<dyn CharBackend>>,
    /// `-chardev` back ends by id.
    pub chardevs: Arc<Chardevs>,
}

/// A fixed region: start and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub start: u64,
    pub len: u64,
}

/// Requester id of devices that are not on the PCI bus.
const PLATFORM_RID: u32 = 0x1_0000;

/// The parts of the board while it is put together.
pub struct Board {
    pub space: Arc<AddressSpace>,
    pub routing: Arc<InterruptRouting>,
    pub clock: Arc<VirtualClock>,
    pub log: Log,
    pub devices: Vec<Arc<dyn Device>>,
    /// Memory whose content is part of the machine's state.
    pub ram: Vec<Arc<RamBlock>>,
    pub info: Vec<(&'static str, &'static str, Info)>,
    pub keep: Vec<Box<dyn Any + Send + Sync>>,
    pub control: VmControl,
    /// Drives of the flash, for `info block`.
    pub flash_drives: Vec<Arc<Drive>>,
    /// Boot indices and paths of devices, for firmware that is told them.
    pub boot_order: Option<Vec<(u64, String)>>,
    /// What can be looked at, the first one first.
    pub displays: Vec<Arc<Console>>,
    /// Keyboards and pointers.
    pub input: Arc<InputHub>,
    pub inventory: Arc<Inventory>,
    /// What runs the processors, from when it is there.
    pub accelerator: Option<Weak<dyn Accelerator>>,
    /// Guest code can make memory its own, out of reach for devices.
    pub private_memory: bool,
}

impl Board {
    #[must_use]
    pub fn new(control: &VmControl, log: &Log, icount: Option<Counting>) -> Self {
        Self {
            space: AddressSpace::new("system"),
            routing: InterruptRouting::new(),
            clock: icount.map_or_else(VirtualClock::new, VirtualClock::counted),
            log: log.clone(),
            devices: Vec::new(),
            ram: Vec::new(),
            info: Vec::new(),
            keep: Vec::new(),
            control: control.clone(),
            flash_drives: Vec::new(),
            boot_order: None,
            displays: Vec::new(),
            input: InputHub::new(),
            inventory: Arc::default(),
            accelerator: None,
            private_memory: false,
        }
    }
    /// Makes boards with the same parts and nothing on them, for devices that come later.
    pub fn seed(&self) -> Box<dyn Fn() -> Self + Send + Sync> {
        let (space, routing, clock) = (self.space.clone(), self.routing.clone(), self.clock.clone());
        let (log, control, input) = (self.log.clone(), self.control.clone(), self.input.clone());
        let (inventory, accelerator) = (self.inventory.clone(), self.accelerator.clone());
        let private_memory = self.private_memory;
        Box::new(move || Self {
            space: space.clone(),
            routing: routing.clone(),
            clock: clock.clone(),
            log: log.clone(),
            devices: Vec::new(),
            ram: Vec::new(),
            info: Vec::new(),
            keep: Vec::new(),
            control: control.clone(),
            flash_drives: Vec::new(),
            boot_order: None,
            displays: Vec::new(),
            input: input.clone(),
            inventory: inventory.clone(),
            accelerator: accelerator.clone(),
            private_memory,
        })
    }
    /// Maps a device into a space, which is a window of the board's map.
    pub fn map_into(&mut self, space: &Arc<AddressSpace>, window: Window, device: Arc<dyn MmioDevice>) {
        // The map of a board has no impossible ranges.
        match space.map_mmio(Gpa(window.start), window.len, device, 0) {
            Ok(mapping) => self.keep.push(Box::new(mapping)),
            Err(e) => unreachable!("{e}"),
        }
    }
    /// Maps a device at a window's start.
    pub fn map(&mut self, window: Window, device: Arc<dyn MmioDevice>) {
        let space = self.space.clone();
        self.map_into(&space, window, device);
    }
    pub fn keep_mapping(&mut self, mapping: Mapping) {
        self.keep.push(Box::new(mapping));
    }
    /// Tells firmware the boot index of a function's unit; false if this board's firmware is not told.
    pub fn add_boot_entry(&mut self, index: u64, function: &dyn PciFunction, unit: &str) -> bool {
        let Some(order) = &mut self.boot_order else { return false };
        order.push((index, crate::pci::boot_path(function, unit)));
        true
    }
    #[must_use]
    pub fn dma(&self) -> DmaHandle {
        DmaHandle::new(self.space.clone(), PLATFORM_RID)
    }
}
