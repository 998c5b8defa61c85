//! PCI host bridges of a logical partition (LoPAPR 9.1, 7.3.11): configuration space, message interrupts and DMA windows are reached
//! by RTAS calls that name the bridge by its unit id; memory and I/O by windows in the address space.

mod access;
mod ddw;
mod eeh;
mod enumerate;
mod msi;
mod state;
mod tree;

pub use tree::function_node;

use crate::SpaprIrq;
use crate::papr::{RtasCalls, rtas, rtas_return};
use crate::tce::{DmaWindows, TceTables};
use msi::Messages;
use parking_lot::{Mutex, RwLock};
use rhea_accel::MsiTarget;
use rhea_device::OptionError;
use rhea_irqchip::spapr::{SpaprIrqError, numbers};
use rhea_memory::{AddressSpace, Gpa, GpaRange, MapError, Mapping, MmioDevice};
use rhea_pci::{Devfn, IntxLines, OpenBus, PciBus, PciFunction};
use std::collections::BTreeMap;
use std::sync::Arc;
use thiserror::Error;

const FIRST_BUID: u64 = 0x0800_0000_2000_0000;
/// Where windows begin, and their sizes.
const BASE: u64 = 1 << 45;
const IO_SIZE: u64 = 0x1_0000;
const MEMORY32_SIZE: u64 = 0x8000_0000;
const MEMORY64_SIZE: u64 = 1 << 40;
/// Bus address of the 32-bit window.
const MEMORY32_BUS: u64 = 0x8000_0000;
/// What functions write messages to; nothing is mapped there.
const MESSAGE_ADDRESS: u64 = 0x400_0000_0000;
const MESSAGE_SIZE: u64 = 0x1_0000;
/// The DMA window at bus address 0, in pages of 4 KiB.
const DMA_SIZE: u64 = 0x4000_0000;
/// Bus address of windows created later.
const DMA64_BASE: u64 = 0x0800_0000_0000_0000;

/// Why there is no such host bridge.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PhbError {
    #[error("index={0}: host bridges are numbered 0 to {max}", max = numbers::MAX_PHBS - 1)]
    Index(u32),
    #[error("index={0} is used by another host bridge")]
    InUse(u32),
    #[error("{0}")]
    Interrupt(SpaprIrqError),
    #[error("{0}")]
    Map(MapError),
}

impl PhbError {
    /// As an error of `-device spapr-pci-host-bridge`.
    #[must_use]
    pub fn option(&self, option: &str) -> OptionError {
        OptionError::new(option, self.to_string())
    }
}

/// What a [`Phb`] is made of.
pub struct PhbConfig {
    /// `index=`: 0 to 30; unit id, windows and interrupts follow from it.
    pub index: u32,
    /// Name of the bus, like `pci.0`.
    pub bus: String,
    pub system: Arc<AddressSpace>,
    pub irq: Arc<SpaprIrq>,
    pub tces: Arc<TceTables>,
    /// `ddw=`: the guest can make DMA windows.
    pub ddw: bool,
    /// log2 of the page sizes of such windows.
    pub page_shifts: Vec<u32>,
    /// Where guest memory can end, hot-plugged included: how large such a window can be of use.
    pub memory_end: u64,
}

impl PhbConfig {
    #[must_use]
    pub fn new(index: u32, system: &Arc<AddressSpace>, irq: &Arc<SpaprIrq>, tces: &Arc<TceTables>) -> Self {
        Self {
            index,
            bus: format!("pci.{index}"),
            system: system.clone(),
            irq: irq.clone(),
            tces: tces.clone(),
            ddw: true,
            page_shifts: vec![12, 16, 21],
            memory_end: 1 << 40,
        }
    }
}

/// One window in the address space: address, bus address, size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub address: u64,
    pub bus: u64,
    pub size: u64,
}

/// A host bridge (`spapr-pci-host-bridge`).
pub struct Phb {
    name: String,
    index: u32,
    buid: u64,
    bus: Arc<PciBus>,
    irq: Arc<SpaprIrq>,
    tces: Arc<TceTables>,
    windows: Arc<DmaWindows>,
    io: Window,
    memory32: Window,
    memory64: Window,
    messages: Messages,
    ddw: bool,
    page_shifts: Vec<u32>,
    memory_end: u64,
    /// Held while DMA windows come and go.
    changing: Mutex<()>,
    _mappings: Vec<Mapping>,
}

impl Phb {
    /// The bridge, its empty bus, its windows, its four level interrupts, and its DMA window.
    ///
    /// # Errors
    /// [`PhbError`].
    pub fn new(config: PhbConfig) -> Result<Arc<Self>, PhbError> {
        let PhbConfig { index, bus: name, system, irq, tces, ddw, page_shifts, memory_end } = config;
        if index >= numbers::MAX_PHBS {
            return Err(PhbError::Index(index));
        }
        let n = u64::from(index);
        let io = Window { address: BASE + n * IO_SIZE, bus: 0, size: IO_SIZE };
        let memory32 = Window { address: BASE + (n + 1) * MEMORY32_SIZE, bus: MEMORY32_BUS, size: MEMORY32_SIZE };
        let at = BASE + (n + 1) * MEMORY64_SIZE;
        let memory64 = Window { address: at, bus: at, size: MEMORY64_SIZE };

        let mut lines = Vec::new();
        for pin in 0..4 {
            let number = numbers::LSI + index * 4 + pin;
            lines.push(irq.claim(number, true).map_err(|e| match e {
                SpaprIrqError::InUse(_) => PhbError::InUse(index),
                other => PhbError::Interrupt(other),
            })?);
        }
        let intx = IntxLines::new(std::array::from_fn(|pin| lines[pin].clone()));
        let target: Arc<dyn MsiTarget> = irq.clone();
        let messages = GpaRange { start: Gpa(MESSAGE_ADDRESS), len: MESSAGE_SIZE };
        let windows = DmaWindows::new(Some((messages, target.clone())));
        let bus = PciBus::with_wires(&name, system.clone(), intx, Some(target));
        // A fresh bus has none.
        let _ = bus.set_iommu(windows.clone());

        let open: Arc<dyn MmioDevice> = Arc::new(OpenBus);
        let mut mappings = Vec::new();
        for (window, space) in [(io, bus.io()), (memory32, bus.memory()), (memory64, bus.memory())] {
            let at = Gpa(window.address);
            mappings.push(system.map_mmio(at, window.size, open.clone(), -1).map_err(PhbError::Map)?);
            let alias = system.map_alias(at, space, Gpa(window.bus), window.size, 0).map_err(PhbError::Map)?;
            mappings.push(alias);
        }
        let phb = Arc::new(Self {
            name: format!("spapr-pci-host-bridge.{index}"),
            index,
            buid: FIRST_BUID + n,
            bus,
            irq,
            tces,
            windows,
            io,
            memory32,
            memory64,
            messages: Messages::default(),
            ddw,
            page_shifts,
            memory_end,
            changing: Mutex::new(()),
            _mappings: mappings,
        });
        phb.default_window();
        Ok(phb)
    }
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }
    /// The unit id by which RTAS calls name it.
    #[must_use]
    pub fn buid(&self) -> u64 {
        self.buid
    }
    /// The root bus.
    #[must_use]
    pub fn bus(&self) -> &Arc<PciBus> {
        &self.bus
    }
    /// What its functions address.
    #[must_use]
    pub fn dma_windows(&self) -> &Arc<DmaWindows> {
        &self.windows
    }
    /// The windows of I/O, 32-bit and 64-bit memory.
    #[must_use]
    pub fn windows(&self) -> [Window; 3] {
        [self.io, self.memory32, self.memory64]
    }
    /// The number of INTA to INTD (`pin` 0 to 3) of the bridge's own, before swizzling.
    #[must_use]
    pub fn lsi(&self, pin: u32) -> u32 {
        numbers::LSI + self.index * 4 + pin % 4
    }
    /// The logical I/O bus number of DMA window `n`.
    fn liobn(&self, n: u32) -> u32 {
        0x8000_0000 | self.index << 8 | n & 0xff
    }
    /// The window there is after reset, only.
    fn default_window(&self) {
        let _one = self.changing.lock();
        for old in self.windows.windows().iter() {
            self.tces.remove(old.liobn());
        }
        self.windows.set(vec![self.tces.make(self.liobn(0), 0, 12, DMA_SIZE >> 12)]);
    }
    /// The function a configuration address (bus in bits 23:16, device and function in 15:8) names.
    fn function(&self, address: u32) -> Option<Arc<dyn PciFunction>> {
        self.bus.find((address >> 16) as u8, Devfn((address >> 8) as u8))
    }
}

impl Drop for Phb {
    fn drop(&mut self) {
        // Functions hold their bus.
        self.bus.detach_all();
    }
}

/// All host bridges, for the RTAS calls that name one.
#[derive(Default)]
pub struct Phbs {
    list: RwLock<BTreeMap<u64, Arc<Phb>>>,
}

const NAMES: &[&str] = &[
    "read-pci-config",
    "write-pci-config",
    "ibm,read-pci-config",
    "ibm,write-pci-config",
    "ibm,change-msi",
    "ibm,query-interrupt-source-number",
    "ibm,query-pe-dma-window",
    "ibm,create-pe-dma-window",
    "ibm,remove-pe-dma-window",
    "ibm,reset-pe-dma-window",
    "ibm,set-eeh-option",
    "ibm,get-config-addr-info2",
    "ibm,read-slot-reset-state2",
    "ibm,set-slot-reset",
    "ibm,configure-pe",
    "ibm,slot-error-detail",
];

impl Phbs {
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }
    pub fn add(&self, phb: Arc<Phb>) {
        self.list.write().insert(phb.buid, phb);
    }
    pub fn remove(&self, buid: u64) -> Option<Arc<Phb>> {
        self.list.write().remove(&buid)
    }
    /// In the order of their indices.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Phb>> {
        self.list.read().values().cloned().collect()
    }
    fn get(&self, high: u32, low: u32) -> Option<Arc<Phb>> {
        self.list.read().get(&(u64::from(high) << 32 | u64::from(low))).cloned()
    }
    fn first(&self) -> Option<Arc<Phb>> {
        self.list.read().values().next().cloned()
    }
}

impl RtasCalls for Phbs {
    fn names(&self) -> &'static [&'static str] {
        NAMES
    }
    fn rtas(&self, name: &str, args: &[u32], results: &mut [u32]) -> bool {
        if !NAMES.contains(&name) {
            return false;
        }
        // The calls of old name no bridge.
        let (phb, rest) = match (name, args) {
            ("read-pci-config", [a, rest @ ..]) | ("write-pci-config", [a, rest @ ..]) => {
                (self.first(), [&[*a], rest].concat())
            }
            // Names a window.
            ("ibm,remove-pe-dma-window", &[liobn]) => {
                (self.list().into_iter().find(|p| p.owns_window(liobn)), vec![liobn])
            }
            (_, [a, high, low, rest @ ..]) => (self.get(*high, *low), [&[*a], rest].concat()),
            _ => (None, Vec::new()),
        };
        let answer = phb.and_then(|phb| phb.call(name, &rest, results.len()));
        match answer {
            Some((status, values)) => rtas_return(results, status, &values),
            None => rtas_return(results, rtas::PARAMETER_ERROR, &[]),
        }
        true
    }
}

/// Status and further results of an RTAS call; `None`: a parameter error.
type Reply = Option<(i32, Vec<u32>)>;

impl Phb {
    /// `args`: without the unit id.
    fn call(&self, name: &str, args: &[u32], results: usize) -> Reply {
        match (name, args) {
            ("read-pci-config" | "ibm,read-pci-config", &[address, size]) => self.read_config(address, size),
            ("write-pci-config" | "ibm,write-pci-config", &[address, size, value]) => {
                self.write_config(address, size, value)
            }
            ("ibm,change-msi", &[address, function, count, sequence]) => {
                self.change_msi(address, function, count, sequence, results)
            }
            ("ibm,query-interrupt-source-number", &[address, n]) => self.query_source(address, n),
            ("ibm,query-pe-dma-window", &[_]) => self.query_window(),
            ("ibm,create-pe-dma-window", &[_, page, window]) => self.create_window(page, window),
            ("ibm,remove-pe-dma-window", &[liobn]) => self.remove_window(liobn),
            ("ibm,reset-pe-dma-window", &[_]) => self.reset_windows(),
            _ => self.eeh(name, args),
        }
    }
}
