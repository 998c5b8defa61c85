//! What a machine is made of, as those see it who control it.

use crate::config::DeviceSpec;
use crate::plug::vfio::AssignedDevices;
pub use crate::plug::vfio::Status as AssignedStatus;
use parking_lot::Mutex;
use rhea_block::Drive;
use rhea_clock::RtcClock;
use rhea_net::{FilterWatcher, Link};
use rhea_pci::{PciBus, PciFunction};
use rhea_storage::CdDrive;
use rhea_virtio::balloon::Balloon;
use rhea_virtio::console::PortWatcher;
use std::sync::Arc;

/// A device of the user's choice, or one that the board has without being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceEntry {
    pub spec: DeviceSpec,
    /// By `-device` or a command.
    pub chosen: bool,
    /// Among those of its kind without an id, in the order in which they came.
    number: usize,
}

impl DeviceEntry {
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.spec.value("id")
    }
    /// The path in the tree of objects.
    #[must_use]
    pub fn path(&self) -> String {
        match self.id() {
            Some(id) => format!("/machine/peripheral/{id}"),
            None => format!("/machine/{}/device[{}]", self.folder(), self.number),
        }
    }
    /// The object in the tree whose child it is.
    #[must_use]
    pub fn folder(&self) -> &'static str {
        match (self.id(), self.chosen) {
            (Some(_), _) => "peripheral",
            (None, true) => "peripheral-anon",
            (None, false) => "unattached",
        }
    }
    /// Its name among the children of its folder.
    #[must_use]
    pub fn name(&self) -> String {
        self.id().map_or_else(|| format!("device[{}]", self.number), str::to_owned)
    }
}

/// The id of a PCI function, if it has one, and the function.
pub type Unit = (Option<String>, Arc<dyn PciFunction>);

/// A drive whose medium can be changed.
#[derive(Clone)]
pub struct Tray {
    /// The id of the drive that was in it when the machine started; empty: there was none.
    pub name: String,
    /// The id of the device.
    pub device: Option<String>,
    pub cd: Arc<CdDrive>,
}

impl Tray {
    /// What `info block` shows.
    #[must_use]
    pub fn description(&self) -> String {
        let name = if self.name.is_empty() { self.device.as_deref().unwrap_or("cd") } else { &self.name };
        let (open, locked) = self.cd.tray();
        let medium = self.cd.medium().map_or_else(|| format!("{name}: [not inserted]"), |d| d.description());
        let tray = if open { "open" } else { "closed" };
        format!("{medium}\n    Removable device: {}locked, tray {tray}\n", if locked { "" } else { "not " })
    }
}

#[derive(Default)]
struct Parts {
    devices: Vec<DeviceEntry>,
    trays: Vec<Tray>,
    drives: Option<Arc<dyn Fn() -> Vec<Arc<Drive>> + Send + Sync>>,
    nets: Option<Arc<dyn Fn() -> Vec<(String, Arc<Link>)> + Send + Sync>>,
    units: Option<Arc<dyn Fn() -> Vec<Unit> + Send + Sync>>,
    pci: Vec<Arc<PciBus>>,
    balloon: Option<Arc<Balloon>>,
    /// Told of channels to the guest: the port's id, and whether the guest has it open.
    ports: Option<Arc<dyn Fn(&str, bool) + Send + Sync>>,
    /// Told of network back ends whose card's filter has changed.
    filters: Option<Arc<dyn Fn(&str) + Send + Sync>>,
    /// What the guest reads the time of day from.
    wall: Option<RtcClock>,
    assigned: AssignedDevices,
    /// The numbers of devices without an id that come next: chosen ones, and others, before which the CPUs are counted.
    next: (usize, usize),
}

/// The list; devices that come and go change it.
#[derive(Default)]
pub struct Inventory(Mutex<Parts>);

impl Inventory {
    /// The CPUs are the first of the devices nobody chose.
    pub fn count_cpus(&self, cpus: usize) {
        let mut parts = self.0.lock();
        for device in parts.devices.iter_mut().filter(|d| !d.chosen) {
            device.number += cpus;
        }
        parts.next.1 += cpus;
    }
    pub fn add_device(&self, spec: &DeviceSpec, chosen: bool) {
        let mut parts = self.0.lock();
        let next = if chosen { &mut parts.next.0 } else { &mut parts.next.1 };
        let number = *next;
        if spec.value("id").is_none() {
            *next += 1;
        }
        parts.devices.push(DeviceEntry { spec: spec.clone(), chosen, number });
    }
    /// Forgets a device; false: there is none of this id.
    pub fn remove_device(&self, id: &str) -> bool {
        let mut parts = self.0.lock();
        let before = parts.devices.len();
        parts.devices.retain(|d| d.id() != Some(id));
        parts.devices.len() != before
    }
    #[must_use]
    pub fn devices(&self) -> Vec<DeviceEntry> {
        self.0.lock().devices.clone()
    }
    /// Where drives, network back ends and functions are listed.
    pub fn set_sources(
        &self,
        drives: impl Fn() -> Vec<Arc<Drive>> + Send + Sync + 'static,
        nets: impl Fn() -> Vec<(String, Arc<Link>)> + Send + Sync + 'static,
        units: impl Fn() -> Vec<Unit> + Send + Sync + 'static,
    ) {
        let mut parts = self.0.lock();
        parts.drives = Some(Arc::new(drives));
        parts.nets = Some(Arc::new(nets));
        parts.units = Some(Arc::new(units));
    }
    #[must_use]
    pub fn drives(&self) -> Vec<Arc<Drive>> {
        let drives = self.0.lock().drives.clone();
        drives.map_or_else(Vec::new, |list| list())
    }
    pub fn add_tray(&self, name: &str, device: Option<&str>, cd: &Arc<CdDrive>) {
        let (name, device) = (name.to_owned(), device.map(str::to_owned));
        self.0.lock().trays.push(Tray { name, device, cd: cd.clone() });
    }
    #[must_use]
    pub fn trays(&self) -> Vec<Tray> {
        self.0.lock().trays.clone()
    }
    /// Drives that keep their medium.
    #[must_use]
    pub fn fixed_drives(&self) -> Vec<Arc<Drive>> {
        let trays = self.trays();
        let mut drives = self.drives();
        drives.retain(|d| trays.iter().all(|t| t.name != d.id()));
        drives
    }
    /// Network back ends with their ids.
    #[must_use]
    pub fn nets(&self) -> Vec<(String, Arc<Link>)> {
        let nets = self.0.lock().nets.clone();
        nets.map_or_else(Vec::new, |list| list())
    }
    /// Functions of PCI that were plugged.
    #[must_use]
    pub fn units(&self) -> Vec<Unit> {
        let units = self.0.lock().units.clone();
        units.map_or_else(Vec::new, |list| list())
    }
    /// A root bus, and all behind it.
    pub fn add_pci(&self, root: &Arc<PciBus>) {
        self.0.lock().pci.push(root.clone());
    }
    #[must_use]
    pub fn pci(&self) -> Vec<Arc<PciBus>> {
        self.0.lock().pci.clone()
    }
    pub(crate) fn set_assigned(&self, assigned: AssignedDevices) {
        self.0.lock().assigned = assigned;
    }
    /// Devices of the host.
    #[must_use]
    pub fn assigned(&self) -> AssignedDevices {
        self.0.lock().assigned.clone()
    }
    /// Has `f` called with the id of each port that the guest opens (true) or closes. The newest one stays.
    pub fn on_port(&self, f: impl Fn(&str, bool) + Send + Sync + 'static) {
        self.0.lock().ports = Some(Arc::new(f));
    }
    /// What tells of the port `id`; also of one that was plugged before anybody listened.
    #[must_use]
    pub fn port_watcher(self: &Arc<Self>, id: &str) -> PortWatcher {
        let (me, id) = (Arc::downgrade(self), id.to_owned());
        Arc::new(move |open| {
            let listener = me.upgrade().and_then(|inventory| inventory.0.lock().ports.clone());
            if let Some(listener) = listener {
                listener(&id, open);
            }
        })
    }
    /// Has `f` called with the id of each network back end whose card wants other frames. The newest one stays.
    pub fn on_filter(&self, f: impl Fn(&str) + Send + Sync + 'static) {
        self.0.lock().filters = Some(Arc::new(f));
    }
    /// What tells of the card of the back end `id`.
    #[must_use]
    pub fn filter_watcher(self: &Arc<Self>, id: &str) -> FilterWatcher {
        let (me, id) = (Arc::downgrade(self), id.to_owned());
        Arc::new(move || {
            let listener = me.upgrade().and_then(|inventory| inventory.0.lock().filters.clone());
            if let Some(listener) = listener {
                listener(&id);
            }
        })
    }
    pub fn set_wall(&self, wall: &RtcClock) {
        self.0.lock().wall = Some(wall.clone());
    }
    #[must_use]
    pub fn wall(&self) -> Option<RtcClock> {
        self.0.lock().wall.clone()
    }
    pub fn set_balloon(&self, balloon: Option<Arc<Balloon>>) {
        self.0.lock().balloon = balloon;
    }
    #[must_use]
    pub fn balloon(&self) -> Option<Arc<Balloon>> {
        self.0.lock().balloon.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let inventory = Inventory::default();
        for (text, chosen) in [("VGA", false), ("edu,id=a", true), ("edu", true), ("edu", true)] {
            inventory.add_device(&DeviceSpec::parse(text).unwrap(), chosen);
        }
        inventory.count_cpus(2);
        inventory.add_device(&DeviceSpec::parse("e1000e").unwrap(), false);
        let paths: Vec<_> = inventory.devices().iter().map(DeviceEntry::path).collect();
        assert_eq!(
            paths,
            [
                "/machine/unattached/device[2]",
                "/machine/peripheral/a",
                "/machine/peripheral-anon/device[0]",
                "/machine/peripheral-anon/device[1]",
                "/machine/unattached/device[3]",
            ]
        );
        assert!(inventory.remove_device("a") && !inventory.remove_device("a"));
        assert_eq!(inventory.devices().len(), 4);
    }
}
