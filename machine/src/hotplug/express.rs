//! PCI Express: devices come and go in the slots of ports with native hot-plug.

use super::{HotPlug, MemoryModule, PlugBoard};
use crate::config::DeviceSpec;
use crate::options::ObjectSpec;
use parking_lot::Mutex;
use rhea_device::OptionError;
use rhea_pci::{PciFunction, PciSlot, Port};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// Ports by the names of the buses behind them.
pub type Ports = Arc<Mutex<Vec<(String, Arc<Port>)>>>;

/// The ports of a machine.
pub struct Express {
    ports: Ports,
    hotplug: OnceLock<Weak<HotPlug>>,
}

impl Express {
    #[must_use]
    pub fn new(ports: Ports) -> Arc<Self> {
        Arc::new(Self { ports, hotplug: OnceLock::new() })
    }
    fn port(&self, slot: &PciSlot) -> Result<Arc<Port>, String> {
        let name = slot.bus().name();
        let found =
            self.ports.lock().iter().find(|(bus, port)| bus == name && port.has_hotplug()).map(|(_, p)| p.clone());
        found.ok_or_else(|| format!("bus '{name}' has no hot-plug: use that of a pcie-root-port (bus=ID)"))
    }
}

/// Takes what is in the slot out of the machine.
fn take_out(port: &Port, hotplug: Option<&Weak<HotPlug>>) {
    let hotplug = hotplug.and_then(Weak::upgrade);
    for function in port.remove() {
        if let Some(hotplug) = &hotplug {
            hotplug.removed(function);
        }
    }
}

impl PlugBoard for Express {
    fn check(&self, slot: &PciSlot) -> Result<(), String> {
        let port = self.port(slot)?;
        if port.occupied() {
            return Err(format!("the slot of port '{}' is in use", slot.bus().name()));
        }
        Ok(())
    }
    fn insert(&self, function: Arc<dyn PciFunction>) -> Result<(), String> {
        let port = self.port(function.config().slot())?;
        port.insert(function).map_err(|e| e.to_string())?;
        // Where there is a button, software waits for it and not for the presence of a card.
        port.press_attention();
        Ok(())
    }
    fn eject(&self, function: &Arc<dyn PciFunction>) -> Result<bool, String> {
        let port = self.port(function.config().slot())?;
        if !port.powered() {
            // The guest does not use it.
            take_out(&port, self.hotplug.get());
            return Ok(false);
        }
        let (weak, hotplug, done) = (Arc::downgrade(&port), self.hotplug.get().cloned(), AtomicBool::new(false));
        port.on_power(Box::new(move |on| {
            if let Some(port) = weak.upgrade()
                && !on
                && !done.swap(true, Ordering::SeqCst)
            {
                take_out(&port, hotplug.as_ref());
            }
        }));
        port.press_attention();
        Ok(false)
    }
    fn has(&self, _driver: &str) -> bool {
        false
    }
    fn plug(&self, _spec: &DeviceSpec, _objects: &[ObjectSpec]) -> Option<Result<(), OptionError>> {
        None
    }
    fn unplug(&self, _id: &str) -> Option<Result<(), String>> {
        None
    }
    fn uses(&self, _object: &str) -> bool {
        false
    }
    fn processors(&self) -> String {
        String::new()
    }
    fn memory(&self) -> Vec<MemoryModule> {
        Vec::new()
    }
    fn connect(&self, hotplug: &Arc<HotPlug>) {
        let _ = self.hotplug.set(Arc::downgrade(hotplug));
    }
}
