//! The generic PCI Express host bridge: ECAM configuration window, memory windows, I/O window.

use crate::config::{ConfigBuilder, Identity};
use crate::{Devfn, PciBus, PciConfig, PciConfigState, PciFunction};
use rhea_accel::{IrqLine, MsiTarget};
use rhea_device::{Device, LoadError, Saved, state};
use rhea_memory::{Access, AccessRules, AddressSpace, BusError, Gpa, MapError, Mapping, MmioDevice};
use std::sync::Arc;

/// Where a host bridge sits in system memory: start and length of each window.
#[derive(Clone, Copy, Debug)]
pub struct HostWindows {
    /// Configuration space, 1 MiB for each bus.
    pub ecam: (Gpa, u64),
    /// Memory, the same addresses on the bus.
    pub memory32: (Gpa, u64),
    pub memory64: Option<(Gpa, u64)>,
    /// I/O, from bus address 0.
    pub io: Option<(Gpa, u64)>,
}

/// The host bridge, its root bus and its windows.
pub struct PcieHost {
    bus: Arc<PciBus>,
    _mappings: Vec<Mapping>,
}

impl PcieHost {
    /// A host bridge with windows in `system`; functions master the same space. INTA to INTD of device 0 are `intx`.
    ///
    /// # Errors
    /// A window is impossible.
    pub fn new(
        system: &Arc<AddressSpace>,
        windows: HostWindows,
        intx: [IrqLine; 4],
        msi: Option<Arc<dyn MsiTarget>>,
    ) -> Result<Self, MapError> {
        let bus = PciBus::new("pcie.0", system.clone(), intx, msi);
        let open: Arc<dyn MmioDevice> = Arc::new(OpenBus);
        let mut mappings = vec![system.map_mmio(windows.ecam.0, windows.ecam.1, Ecam::new(&bus), 0)?];
        for (start, len) in [Some(windows.memory32), windows.memory64].into_iter().flatten() {
            mappings.push(system.map_mmio(start, len, open.clone(), -1)?);
            mappings.push(system.map_alias(start, bus.memory(), start, len, 0)?);
        }
        if let Some((start, len)) = windows.io {
            mappings.push(system.map_mmio(start, len, open, -1)?);
            mappings.push(system.map_alias(start, bus.io(), Gpa(0), len, 0)?);
        }
        // The bridge's own function at 00.0; a fresh bus has the place free.
        let _ = bus.attach(Arc::new(HostBridge::new(&bus)));
        Ok(Self { bus, _mappings: mappings })
    }
    #[must_use]
    pub fn bus(&self) -> &Arc<PciBus> {
        &self.bus
    }
}

impl Drop for PcieHost {
    fn drop(&mut self) {
        // Functions hold their bus.
        self.bus.detach_all();
    }
}

/// What nobody decodes: reads give all ones (master abort), writes vanish.
pub struct OpenBus;

impl MmioDevice for OpenBus {
    fn read(&self, _offset: u64, _access: Access) -> Result<u64, BusError> {
        Ok(u64::MAX)
    }
    fn write(&self, _offset: u64, _value: u64, _access: Access) -> Result<(), BusError> {
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules { unaligned: true, ..AccessRules::ANY }
    }
    fn name(&self) -> &str {
        "pcie open bus"
    }
}

/// The configuration window (PCI Express base specification 7.2.2).
pub struct Ecam {
    bus: Arc<PciBus>,
}

impl Ecam {
    #[must_use]
    pub fn new(bus: &Arc<PciBus>) -> Arc<Self> {
        Arc::new(Self { bus: bus.clone() })
    }
    fn target(&self, offset: u64) -> Option<(Arc<dyn PciFunction>, u16)> {
        let (bus, devfn, register) = (offset >> 20, Devfn((offset >> 12) as u8), (offset & 0xfff) as u16);
        let function = self.bus.find(u8::try_from(bus).ok()?, devfn)?;
        // Conventional PCI has 256 bytes of configuration space.
        let express = function.config().slot().bus().kind().is_express();
        (express || register < 0x100).then_some((function, register))
    }
}

impl MmioDevice for Ecam {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        Ok(match self.target(offset) {
            Some((function, register)) => u64::from(function.config_read(register, access.size)),
            None => u64::MAX,
        })
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        if let Some((function, register)) = self.target(offset) {
            function.config_write(register, access.size, value as u32);
        }
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::implemented(1, 4)
    }
    fn name(&self) -> &str {
        "pcie ecam"
    }
}

/// The function of the host bridge itself.
pub struct HostBridge {
    config: PciConfig,
}

impl HostBridge {
    #[must_use]
    pub fn new(bus: &Arc<PciBus>) -> Self {
        // Vendor and device of the generic host bridge that guests' firmware knows for ECAM-only machines.
        let identity = Identity {
            vendor: 0x1b36,
            device: 0x0008,
            revision: 0,
            class: 0x06_0000,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
        };
        Self { config: ConfigBuilder::new(identity, bus.slot(Devfn(0))).build() }
    }
}

impl Device for HostBridge {
    fn name(&self) -> &str {
        "pcie-host-bridge"
    }
    fn reset(&self) {
        self.config.reset();
    }
    fn save(&self) -> Saved {
        state::encode(1, &self.config.save())
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        self.config.load(state::decode::<PciConfigState>(saved, 1)?)
    }
}

impl PciFunction for HostBridge {
    fn config(&self) -> &PciConfig {
        &self.config
    }
}
