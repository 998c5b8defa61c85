//! A root bus: its functions, and what a function gets from its place on it.

use crate::intx::IntxLines;
use crate::{Devfn, PciFunction};
use parking_lot::RwLock;
use rhea_accel::{IrqLine, MsiMessage, MsiTarget};
use rhea_device::DmaHandle;
use rhea_memory::AddressSpace;
use std::collections::BTreeMap;
use std::sync::Arc;
use thiserror::Error;

/// Why a function cannot be attached.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PciError {
    #[error("PCI slot {0} of bus '{1}' is in use")]
    InUse(Devfn, String),
    #[error("bus '{0}' has no free slot")]
    Full(String),
}

/// A PCI bus (number 0 of its host bridge).
pub struct PciBus {
    name: String,
    memory: Arc<AddressSpace>,
    io: Arc<AddressSpace>,
    dma: Arc<AddressSpace>,
    intx: Arc<IntxLines>,
    msi: RwLock<Option<Arc<dyn MsiTarget>>>,
    functions: RwLock<BTreeMap<Devfn, Arc<dyn PciFunction>>>,
}

impl PciBus {
    /// A bus whose functions master `dma` and drive the four lines `intx`; messages go to `msi`.
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
        Arc::new(Self {
            name: name.to_owned(),
            memory: AddressSpace::new(&format!("{name} memory")),
            io: AddressSpace::new(&format!("{name} I/O")),
            dma,
            intx,
            msi: RwLock::new(msi),
            functions: RwLock::default(),
        })
    }
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
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
    /// Where messages go from now on.
    pub fn set_msi_target(&self, target: Option<Arc<dyn MsiTarget>>) {
        *self.msi.write() = target;
    }
    /// Can functions use MSI and MSI-X?
    #[must_use]
    pub fn has_msi(&self) -> bool {
        self.msi.read().is_some()
    }
    /// The wiring of a place.
    #[must_use]
    pub fn slot(self: &Arc<Self>, devfn: Devfn) -> PciSlot {
        let dma = DmaHandle::new(self.dma.clone(), u32::from(devfn.0));
        dma.set_enabled(false);
        PciSlot { bus: self.clone(), devfn, dma }
    }
    /// The wiring of the first device number without functions.
    ///
    /// # Errors
    /// [`PciError::Full`].
    pub fn free_slot(self: &Arc<Self>) -> Result<PciSlot, PciError> {
        let functions = self.functions.read();
        let free = (0..32).find(|d| !functions.keys().any(|k| k.device() == *d));
        drop(functions);
        free.map(|d| self.slot(Devfn::new(d, 0))).ok_or_else(|| PciError::Full(self.name.clone()))
    }
    /// Puts a function on the bus, at the place its configuration was made for.
    ///
    /// # Errors
    /// [`PciError::InUse`].
    pub fn attach(&self, function: Arc<dyn PciFunction>) -> Result<(), PciError> {
        let devfn = function.config().devfn();
        let mut functions = self.functions.write();
        if functions.contains_key(&devfn) {
            return Err(PciError::InUse(devfn, self.name.clone()));
        }
        if functions.range(Devfn::new(devfn.device(), 0)..=Devfn::new(devfn.device(), 7)).next().is_some()
            || devfn.function() != 0
        {
            function.config().set_multifunction();
            if let Some(first) = functions.get(&Devfn::new(devfn.device(), 0)) {
                first.config().set_multifunction();
            }
        }
        functions.insert(devfn, function);
        Ok(())
    }
    /// Takes all functions off the bus (the machine ends).
    pub fn detach_all(&self) {
        // Dropped after the lock: a function's drop unmaps its BARs.
        let functions = std::mem::take(&mut *self.functions.write());
        drop(functions);
    }
    /// The function at `devfn`.
    #[must_use]
    pub fn function(&self, devfn: Devfn) -> Option<Arc<dyn PciFunction>> {
        self.functions.read().get(&devfn).cloned()
    }
    /// The function that a configuration access to bus `number` reaches (type 0 or 1 cycles).
    #[must_use]
    pub fn find(&self, number: u8, devfn: Devfn) -> Option<Arc<dyn PciFunction>> {
        if number == 0 { self.function(devfn) } else { None }
    }
    /// All functions in the order of their numbers.
    #[must_use]
    pub fn functions(&self) -> Vec<Arc<dyn PciFunction>> {
        self.functions.read().values().cloned().collect()
    }
}

/// What a function gets from its place on a bus.
#[derive(Clone)]
pub struct PciSlot {
    pub(crate) bus: Arc<PciBus>,
    devfn: Devfn,
    dma: DmaHandle,
}

impl PciSlot {
    #[must_use]
    pub fn devfn(&self) -> Devfn {
        self.devfn
    }
    /// The way to memory; enabled while Command.BusMaster is set.
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
    /// Sends a message, which is a memory write of the function and so needs bus mastering.
    pub(crate) fn send(&self, address: u64, data: u32) {
        if !self.dma.enabled() {
            return;
        }
        let target = self.bus.msi.read().clone();
        if let Some(target) = target {
            target.send(MsiMessage { address, data, requester_id: self.dma.requester_id() });
        }
    }
}
