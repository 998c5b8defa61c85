//! Buses: their functions, the buses behind their bridges, and what a function gets from its place.

use crate::intx::IntxLines;
use crate::rom::Rom;
use crate::{Devfn, PciFunction};
use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use rhea_accel::{IrqFd, IrqLine, MsiMessage, MsiTarget};
use rhea_device::dma::{DmaHandle, Iommu, IommuPlace};
use rhea_memory::AddressSpace;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use thiserror::Error;

/// Why a function cannot be attached.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PciError {
    #[error("PCI slot {0} of bus '{1}' is in use")]
    InUse(Devfn, String),
    #[error("bus '{0}' has no free slot")]
    Full(String),
    #[error("PCI slot {0} does not exist: bus '{1}' is a link, which has slot 0 only")]
    Link(Devfn, String),
    #[error("bus '{0}' is no PCI Express bus")]
    Conventional(String),
}

/// What a bus is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusKind {
    /// The root bus of a PCI Express host bridge.
    Root,
    /// The link below a root port or a switch's downstream port: one device.
    Link,
    /// Inside a switch, between its ports.
    Switch,
    /// Conventional PCI below a PCI-to-PCI bridge, which asks on behalf of its devices.
    Pci,
    /// Conventional PCI below a PCI Express-to-PCI bridge, whose devices ask as device 0 of their bus.
    ExpressPci,
}

impl BusKind {
    /// PCI Express, with 4 KiB of configuration space for each function?
    #[must_use]
    pub const fn is_express(self) -> bool {
        matches!(self, Self::Root | Self::Link | Self::Switch)
    }
}

/// What all buses below a host bridge share.
#[derive(Default)]
struct Shared {
    msi: RwLock<Option<Arc<dyn MsiTarget>>>,
    irqfd: RwLock<Option<Arc<dyn IrqFd>>>,
    iommu: IommuPlace,
    /// Held while bus numbers and the forwarding of requests change.
    topology: Mutex<()>,
}

type Functions = [Option<Arc<dyn PciFunction>>; 256];

/// A PCI bus: the root bus of a host bridge, or the secondary bus of a bridge.
pub struct PciBus {
    name: String,
    kind: BusKind,
    memory: Arc<AddressSpace>,
    io: Arc<AddressSpace>,
    dma: Arc<AddressSpace>,
    intx: Arc<IntxLines>,
    shared: Arc<Shared>,
    /// The bridge above; the root bus has none.
    upstream: Option<PciSlot>,
    /// Number of the bus, and of the last bus behind it in bits 15:8.
    numbers: AtomicU32,
    /// Bridges from here up do not forward requests of masters.
    blocked: AtomicBool,
    /// Configuration accesses come through (the link is up).
    open: AtomicBool,
    functions: ArcSwap<Functions>,
    children: ArcSwap<Vec<Arc<PciBus>>>,
    /// One change of functions or children at a time.
    changing: Mutex<()>,
}

impl PciBus {
    /// A root bus whose functions master `dma` and drive the four lines `intx`; messages go to `msi`.
    #[must_use]
    pub fn new(name: &str, dma: Arc<AddressSpace>, intx: [IrqLine; 4], msi: Option<Arc<dyn MsiTarget>>) -> Arc<Self> {
        Self::with_wires(name, dma, IntxLines::new(intx), msi)
    }
    /// The same with other interrupt wires.
    #[must_use]
    pub fn with_wires(
        name: &str,
        dma: Arc<AddressSpace>,
        intx: Arc<IntxLines>,
        msi: Option<Arc<dyn MsiTarget>>,
    ) -> Arc<Self> {
        let shared = Shared { msi: RwLock::new(msi), ..Shared::default() };
        Self::make(name, BusKind::Root, dma, intx, Arc::new(shared), None)
    }
    /// The bus behind the bridge at `upstream`. It is reached once [`Self::connect`] put it below the bridge's bus and the bridge
    /// has numbers and windows.
    #[must_use]
    pub fn behind(name: &str, kind: BusKind, upstream: &PciSlot) -> Arc<Self> {
        let above = &upstream.bus;
        let intx = IntxLines::behind(&above.intx, upstream.devfn.device());
        Self::make(name, kind, above.dma.clone(), intx, above.shared.clone(), Some(upstream.clone()))
    }
    fn make(
        name: &str,
        kind: BusKind,
        dma: Arc<AddressSpace>,
        intx: Arc<IntxLines>,
        shared: Arc<Shared>,
        upstream: Option<PciSlot>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            kind,
            memory: AddressSpace::new(&format!("{name} memory")),
            io: AddressSpace::new(&format!("{name} I/O")),
            dma,
            intx,
            shared,
            numbers: AtomicU32::new(if upstream.is_none() { 0xff00 } else { 0 }),
            blocked: AtomicBool::new(upstream.is_some()),
            upstream,
            open: AtomicBool::new(true),
            functions: ArcSwap::from_pointee([const { None }; 256]),
            children: ArcSwap::default(),
            changing: Mutex::new(()),
        })
    }
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    #[must_use]
    pub fn kind(&self) -> BusKind {
        self.kind
    }
    /// Memory space as functions decode it.
    #[must_use]
    pub fn memory(&self) -> &Arc<AddressSpace> {
        &self.memory
    }
    /// I/O space.
    #[must_use]
    pub fn io(&self) -> &Arc<AddressSpace> {
        &self.io
    }
    /// Where messages of the whole hierarchy go from now on.
    pub fn set_msi_target(&self, target: Option<Arc<dyn MsiTarget>>) {
        *self.shared.msi.write() = target;
    }
    /// How eventfds send messages, if the accelerator can: before functions are used.
    pub fn set_irqfd(&self, irqfd: Option<Arc<dyn IrqFd>>) {
        *self.shared.irqfd.write() = irqfd;
    }
    /// Can functions use MSI and MSI-X?
    #[must_use]
    pub fn has_msi(&self) -> bool {
        self.shared.msi.read().is_some()
    }
    /// Puts an IOMMU between the functions of the whole hierarchy and memory. Once, while the machine is built.
    ///
    /// # Errors
    /// There is one.
    pub fn set_iommu(&self, iommu: Arc<dyn Iommu>) -> Result<(), Arc<dyn Iommu>> {
        self.shared.iommu.set(iommu)
    }

    // ---- topology ----

    /// The bridge above; `None` for a root bus.
    #[must_use]
    pub fn upstream(&self) -> Option<&PciSlot> {
        self.upstream.as_ref()
    }
    /// The buses behind bridges of this one.
    #[must_use]
    pub fn children(&self) -> Vec<Arc<Self>> {
        self.children.load().to_vec()
    }
    /// The bus called `name`, here or below.
    #[must_use]
    pub fn find_bus(self: &Arc<Self>, name: &str) -> Option<Arc<Self>> {
        if self.name == name {
            return Some(self.clone());
        }
        self.children.load().iter().find_map(|c| c.find_bus(name))
    }
    /// The number software gave the bus (0: none yet).
    #[must_use]
    pub fn number(&self) -> u8 {
        self.numbers.load(Ordering::Acquire) as u8
    }
    /// The number of the last bus behind it.
    #[must_use]
    pub fn subordinate(&self) -> u8 {
        (self.numbers.load(Ordering::Acquire) >> 8) as u8
    }
    /// Puts a secondary bus below its bridge's bus.
    pub(crate) fn connect(self: &Arc<Self>) {
        let Some(slot) = &self.upstream else { return };
        let _one = slot.bus.changing.lock();
        let mut list = slot.bus.children.load().to_vec();
        list.push(self.clone());
        slot.bus.children.store(Arc::new(list));
    }
    /// Numbers of a bridge's secondary side, and whether it forwards requests upstream.
    pub(crate) fn set_bridge(&self, secondary: u8, subordinate: u8, forwards: bool) {
        let _one = self.shared.topology.lock();
        self.numbers.store(u32::from(secondary) | u32::from(subordinate) << 8, Ordering::Release);
        self.blocked.store(!forwards, Ordering::Release);
        self.propagate();
    }
    /// With the topology held: tells functions here and below what changed above them.
    fn propagate(&self) {
        for function in self.functions.load().iter().flatten() {
            self.introduce(&**function);
        }
        for child in self.children.load().iter() {
            child.propagate();
        }
    }
    fn introduce(&self, function: &dyn PciFunction) {
        let slot = function.config().slot();
        slot.dma.set_requester_id(self.requester_id(slot.devfn));
        slot.dma.set_blocked(self.is_blocked());
    }
    fn is_blocked(&self) -> bool {
        let mut bus = self;
        loop {
            if bus.blocked.load(Ordering::Acquire) {
                return true;
            }
            let Some(slot) = &bus.upstream else { return false };
            bus = &slot.bus;
        }
    }
    /// Who asks, as the root complex sees it, when `devfn` of this bus does (PCI Express to PCI/PCI-X Bridge specification 2.3).
    #[must_use]
    pub fn requester_id(&self, devfn: Devfn) -> u32 {
        let mut id = u32::from(self.number()) << 8 | u32::from(devfn.0);
        let mut bus = self;
        while let Some(slot) = &bus.upstream {
            match bus.kind {
                BusKind::Pci => id = u32::from(slot.bus.number()) << 8 | u32::from(slot.devfn.0),
                BusKind::ExpressPci => id = u32::from(bus.number()) << 8,
                BusKind::Root | BusKind::Link | BusKind::Switch => {}
            }
            bus = &slot.bus;
        }
        id
    }
    /// Lets configuration accesses through, or not (no link, no power).
    pub(crate) fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::Release);
    }

    // ---- functions ----

    /// The wiring of a place.
    #[must_use]
    pub fn slot(self: &Arc<Self>, devfn: Devfn) -> PciSlot {
        let dma = DmaHandle::behind(self.dma.clone(), self.requester_id(devfn), self.shared.iommu.clone());
        dma.set_enabled(false);
        dma.set_blocked(self.is_blocked());
        PciSlot { bus: self.clone(), devfn, dma, rom: None }
    }
    /// The wiring of the first device number without functions.
    ///
    /// # Errors
    /// [`PciError::Full`].
    pub fn free_slot(self: &Arc<Self>) -> Result<PciSlot, PciError> {
        let last = if self.kind == BusKind::Link { 1 } else { 32 };
        let functions = self.functions.load();
        let free = (0..last).find(|d| functions[d * 8..d * 8 + 8].iter().all(Option::is_none));
        free.map(|d| self.slot(Devfn::new(d as u8, 0))).ok_or_else(|| PciError::Full(self.name.clone()))
    }
    /// Puts a function on the bus, at the place its configuration was made for.
    ///
    /// # Errors
    /// [`PciError::InUse`], [`PciError::Link`].
    pub fn attach(&self, function: Arc<dyn PciFunction>) -> Result<(), PciError> {
        let devfn = function.config().devfn();
        if self.kind == BusKind::Link && devfn.device() != 0 {
            return Err(PciError::Link(devfn, self.name.clone()));
        }
        {
            let _one = self.changing.lock();
            let mut functions = Functions::clone(&self.functions.load());
            let first = usize::from(devfn.device()) * 8;
            let device = &functions[first..first + 8];
            if functions[usize::from(devfn.0)].is_some() {
                return Err(PciError::InUse(devfn, self.name.clone()));
            }
            if devfn.function() != 0 || device.iter().any(Option::is_some) {
                function.config().set_multifunction();
                if let Some(first) = &device[0] {
                    first.config().set_multifunction();
                }
            }
            functions[usize::from(devfn.0)] = Some(function.clone());
            self.functions.store(Arc::new(functions));
        }
        let _one = self.shared.topology.lock();
        self.introduce(&*function);
        Ok(())
    }
    /// Takes a function off the bus; its BARs stay mapped until it is reset or dropped.
    pub fn detach(&self, devfn: Devfn) -> Option<Arc<dyn PciFunction>> {
        let _one = self.changing.lock();
        let mut functions = Functions::clone(&self.functions.load());
        let taken = functions[usize::from(devfn.0)].take();
        self.functions.store(Arc::new(functions));
        taken
    }
    /// Takes all functions off this bus and those behind (the machine ends).
    pub fn detach_all(&self) {
        let (functions, children) = {
            let _one = self.changing.lock();
            (self.functions.swap(Arc::new([const { None }; 256])), self.children.swap(Arc::default()))
        };
        for child in children.iter() {
            child.detach_all();
        }
        // Dropped without the lock: a function's drop unmaps its BARs.
        drop(functions);
    }
    /// The function at `devfn`.
    #[must_use]
    pub fn function(&self, devfn: Devfn) -> Option<Arc<dyn PciFunction>> {
        self.functions.load()[usize::from(devfn.0)].clone()
    }
    /// The function that a configuration access to bus `number` reaches: by type 0 cycles here, by type 1 cycles through the
    /// bridges whose numbers say so. Takes no lock.
    #[must_use]
    pub fn find(&self, number: u8, devfn: Devfn) -> Option<Arc<dyn PciFunction>> {
        if self.upstream.is_none() && number == self.number() {
            return self.function(devfn);
        }
        for child in self.children.load().iter() {
            let (secondary, subordinate) = (child.number(), child.subordinate());
            if number < secondary || number > subordinate || secondary == 0 || !child.open.load(Ordering::Acquire) {
                continue;
            }
            return if number == secondary { child.function(devfn) } else { child.find(number, devfn) };
        }
        None
    }
    /// All functions of this bus in the order of their numbers.
    #[must_use]
    pub fn functions(&self) -> Vec<Arc<dyn PciFunction>> {
        self.functions.load().iter().flatten().cloned().collect()
    }
    /// The functions of this bus, each followed by those behind it.
    #[must_use]
    pub fn all_functions(&self) -> Vec<Arc<dyn PciFunction>> {
        let mut list = Vec::new();
        for function in self.functions() {
            list.push(function.clone());
            if let Some(secondary) = function.secondary() {
                list.extend(secondary.all_functions());
            }
        }
        list
    }
}

/// What a function gets from its place on a bus.
#[derive(Clone)]
pub struct PciSlot {
    pub(crate) bus: Arc<PciBus>,
    devfn: Devfn,
    dma: DmaHandle,
    pub(crate) rom: Option<Rom>,
}

impl PciSlot {
    #[must_use]
    pub fn devfn(&self) -> Devfn {
        self.devfn
    }
    /// The way to memory; enabled while Command.BusMaster is set, here and in the bridges above.
    #[must_use]
    pub fn dma(&self) -> &DmaHandle {
        &self.dma
    }
    #[must_use]
    pub fn bus(&self) -> &Arc<PciBus> {
        &self.bus
    }
    pub(crate) fn intx(&self) -> Arc<IntxLines> {
        self.bus.intx.clone()
    }
    /// The accelerator's way from eventfds to messages.
    #[must_use]
    pub fn irqfd(&self) -> Option<Arc<dyn IrqFd>> {
        self.bus.shared.irqfd.read().clone()
    }
    /// Sends a message, which is a memory write of the function and so needs bus mastering.
    pub fn send(&self, address: u64, data: u32) {
        if !self.dma.enabled() {
            return;
        }
        let target = self.bus.shared.msi.read().clone();
        if let Some(target) = target {
            target.send(MsiMessage { address, data, requester_id: self.dma.requester_id() });
        }
    }
}

/// `02.0`, or `port/00.0` behind a bridge: unique in a machine, whatever numbers software gives.
impl fmt::Display for PciSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bus.upstream {
            Some(_) => write!(f, "{}/{}", self.bus.name, self.devfn),
            None => write!(f, "{}", self.devfn),
        }
    }
}
