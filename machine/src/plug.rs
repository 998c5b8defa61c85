//! The devices of the user's choice: drives, network cards and `-device`.

mod net;
mod storage;
mod usb;
pub mod vfio;

use crate::board::{Board, Wiring};
use crate::config::{DeviceSpec, MachineConfig};
use crate::hotplug::PlugBoard;
use crate::hotplug::express::Ports;
use crate::options::ObjectSpec;
use crate::rom::with_rom;
use parking_lot::Mutex;
use rhea_accel::VmRequest;
use rhea_block::{BlockGraph, Drive, DriveInterface, DriveOptions, ErrorPolicy, FailureAction, Inherit, Media};
use rhea_device::OptionError;
use rhea_device::options::OptionSet;
use rhea_firmware::x86::boot_order::unit;
use rhea_net::{Link, MacAllocator, NetBackend};
use rhea_pci::{Devfn, PciBus, PciFunction, PciSlot};
use rhea_storage::Ahci;
use rhea_virtio::catalog::{self, Made};
use rhea_virtio::console::PortOptions;
use rhea_virtio::{DeviceType, Resources, Transport, VirtioCore, VirtioMmio, VirtioPci};
use std::collections::VecDeque;
use std::sync::Arc;

/// Makes a device that only one board has; false: it is none of those.
pub type OwnDevices<'a> = &'a mut dyn FnMut(&mut Board, &DeviceSpec) -> Result<bool, OptionError>;

/// What a device of a board's own bus is made of beside its properties.
pub struct BusParts {
    pub drive: Option<Arc<Drive>>,
    pub net: Option<Arc<dyn NetBackend>>,
    /// For a network card without `mac=`.
    pub mac: [u8; 6],
}

/// A bus that only one board has.
pub trait OwnBus {
    /// Is this a device of the bus?
    fn knows(&self, driver: &str) -> bool;
    /// # Errors
    /// [`OptionError`].
    fn make(&mut self, board: &mut Board, spec: &DeviceSpec, parts: BusParts) -> Result<(), OptionError>;
    /// What the bus has unless the user wants nothing by default; `cd`: there is no CD drive yet.
    ///
    /// # Errors
    /// [`OptionError`].
    fn defaults(&mut self, board: &mut Board, cd: bool) -> Result<(), OptionError>;
    /// Takes a drive with if=scsi.
    ///
    /// # Errors
    /// [`OptionError`].
    fn attach(&mut self, board: &mut Board, options: &DriveOptions, drive: Arc<Drive>) -> Result<(), OptionError>;
}

/// A drive with if=ide, its name, and its medium.
type IdeDrive<'a> = (&'a DriveOptions, String, Option<Arc<Drive>>);

/// Is it a CD drive in which there is nothing?
fn is_empty(options: &DriveOptions) -> bool {
    options.media == Media::Cdrom && options.file.is_none() && options.format.is_none() && options.node.is_empty()
}

/// A PCI function that was plugged.
pub struct Unit {
    pub id: Option<String>,
    pub function: Arc<dyn PciFunction>,
    /// What it uses: ids of a drive and of a network back end.
    drive: Option<String>,
    net: Option<String>,
}

/// What there is to plug, and what was plugged; it outlives the start of the machine.
#[derive(Default)]
pub struct Plugs {
    drives: Vec<(Arc<Drive>, bool)>,
    /// The ids of CD drives without a medium that no device has yet.
    empty: Vec<String>,
    /// Nodes below drives.
    pub graph: Arc<BlockGraph>,
    nets: Vec<(String, Arc<Link>, bool)>,
    /// Cards without an id that there have been.
    cards: usize,
    ids: Vec<String>,
    /// AHCI controllers by the name of their ports' bus.
    ahci: Vec<(String, Arc<Ahci>)>,
    usb: usb::UsbBuses,
    consoles: Vec<(Option<String>, Arc<rhea_virtio::console::Console>)>,
    macs: MacAllocator,
    pub objects: Vec<ObjectSpec>,
    pub units: Vec<Unit>,
    /// Ports of PCI Express.
    pub ports: Ports,
    assigned: vfio::AssignedDevices,
}

impl Plugs {
    /// Takes a new id.
    ///
    /// # Errors
    /// Ids must differ.
    pub fn take_id(&mut self, option: &str, id: &str) -> Result<(), OptionError> {
        if self.ids.iter().any(|i| i == id) {
            return Err(OptionError::new(option, format!("'id={id}': the id is in use: ids must differ")));
        }
        self.ids.push(id.to_owned());
        Ok(())
    }
    pub fn free_id(&mut self, id: &str) {
        self.ids.retain(|i| i != id);
    }
    /// A drive of the running machine, for a device that comes later.
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn add_drive(&mut self, options: &DriveOptions, snapshot: bool) -> Result<(), OptionError> {
        let Some(id) = options.id.clone() else {
            return Err(OptionError::new(&options.option, "property 'id' is missing: id=NAME"));
        };
        self.check_drive(options, &id)?;
        self.drives.push((options.open_in(&self.graph, &id, snapshot)?, false));
        Ok(())
    }
    fn check_drive(&self, options: &DriveOptions, id: &str) -> Result<(), OptionError> {
        if self.drives.iter().any(|(d, _)| d.id() == id) || self.empty.iter().any(|e| e == id) {
            return Err(OptionError::new(&options.option, format!("the id '{id}' is given twice: ids must differ")));
        }
        Ok(())
    }
    /// Takes a drive away that no device uses.
    ///
    /// # Errors
    /// There is none, or it is in use.
    pub fn remove_drive(&mut self, option: &str, id: &str) -> Result<(), OptionError> {
        match self.drives.iter().find(|(d, _)| d.id() == id) {
            None => Err(OptionError::new(option, format!("'{id}': no drive has this id"))),
            Some((_, true)) => Err(OptionError::new(option, format!("'{id}': the drive is used by a device"))),
            Some(_) => {
                self.drives.retain(|(d, _)| d.id() != id);
                Ok(())
            }
        }
    }
    /// Is a device at a node?
    #[must_use]
    pub fn uses_node(&self, name: &str) -> bool {
        let of = |d: &Arc<Drive>| d.node().is_some_and(|n| n.name() == name);
        self.drives.iter().any(|(d, used)| *used && of(d))
    }
    /// Closes a node that nothing uses.
    ///
    /// # Errors
    /// There is none, or it is in use.
    pub fn remove_node(&mut self, name: &str) -> Result<(), String> {
        if self.uses_node(name) {
            return Err(format!("node '{name}' is busy: a device uses it"));
        }
        // What a device that is gone was connected by. A processor that sleeps may have such a device in its view of memory still.
        self.drives.retain(|(d, _)| {
            let gone = d.is_anonymous() && d.node().is_some_and(|n| n.name() == name);
            if gone {
                d.let_go();
            }
            !gone
        });
        self.graph.remove(name)
    }
    /// Forgets a function that is gone; what it used is free again.
    pub fn forget(&mut self, function: &Arc<dyn PciFunction>) -> Option<Unit> {
        let unit = self.units.iter().position(|u| Arc::ptr_eq(&u.function, function)).map(|n| self.units.remove(n))?;
        if let Some(id) = &unit.id {
            self.free_id(id);
        }
        for (_, used) in self.drives.iter_mut().filter(|(d, _)| unit.drive.as_deref() == Some(d.id())) {
            *used = false;
        }
        for (_, link, used) in self.nets.iter_mut().filter(|(i, ..)| unit.net.as_ref() == Some(i)) {
            *used = false;
            link.take_card();
        }
        Some(unit)
    }
}

/// Plugs devices into the board.
pub struct Plugger<'a> {
    board: &'a mut Board,
    config: &'a MachineConfig,
    wiring: &'a Wiring,
    bus: Arc<PciBus>,
    /// virtio-mmio places that are free; boards without have none.
    free: VecDeque<Arc<VirtioMmio>>,
    plugs: Plugs,
    own_bus: Option<&'a mut dyn OwnBus>,
    /// The machine runs: how PCI functions come into it.
    hot: Option<&'a dyn PlugBoard>,
}

impl<'a> Plugger<'a> {
    #[must_use]
    pub fn new(
        board: &'a mut Board,
        config: &'a MachineConfig,
        wiring: &'a Wiring,
        bus: &Arc<PciBus>,
        free: VecDeque<Arc<VirtioMmio>>,
    ) -> Self {
        let plugs = Plugs { objects: config.objects.clone(), ..Plugs::default() };
        // What a machine that moves here is to write is still in the hands of the process that runs it.
        plugs.graph.set_away(config.incoming.is_some());
        Self { board, config, wiring, bus: bus.clone(), free, plugs, own_bus: None, hot: None }
    }

    /// The machine runs already, with `plugs`.
    #[must_use]
    pub fn running(mut self, plugs: Plugs, hot: &'a dyn PlugBoard) -> Self {
        (self.plugs, self.hot) = (plugs, Some(hot));
        self
    }

    /// Plugs one device into the running machine.
    ///
    /// # Errors
    /// [`OptionError`]; `plugs` are as before.
    pub fn plug_one(mut self, spec: &DeviceSpec) -> (Plugs, Result<(), OptionError>) {
        let ids = self.plugs.ids.clone();
        let drives: Vec<bool> = self.plugs.drives.iter().map(|d| d.1).collect();
        let nets: Vec<bool> = self.plugs.nets.iter().map(|n| n.2).collect();
        let done = self.device(spec);
        if done.is_err() {
            self.plugs.ids = ids;
            // Those of nodes were made for the device.
            self.plugs.drives.truncate(drives.len());
            self.plugs.drives.iter_mut().zip(drives).for_each(|(d, used)| d.1 = used);
            for ((_, link, now), used) in self.plugs.nets.iter_mut().zip(nets) {
                if std::mem::replace(now, used) != used {
                    link.take_card();
                }
            }
        }
        (self.plugs, done)
    }

    /// The chipset's AHCI controller: its ports are `ide.0` and so on, and drives with if=ide go there.
    #[must_use]
    pub fn with_ahci(mut self, controller: Option<Arc<Ahci>>) -> Self {
        self.plugs.ahci.extend(controller.map(|c| ("ide".to_owned(), c)));
        self
    }

    /// A bus that only this board has.
    #[must_use]
    pub fn with_bus(mut self, bus: &'a mut dyn OwnBus) -> Self {
        self.own_bus = Some(bus);
        self
    }

    /// Opens back ends and makes all devices; `own` makes those that only this board has, and says whether it did.
    ///
    /// # Errors
    /// [`OptionError`] naming the option that cannot be satisfied.
    pub fn plug_all(mut self, own: OwnDevices<'_>) -> Result<Arc<Mutex<Plugs>>, OptionError> {
        for (driver, property, _) in &self.config.globals {
            let known = catalog::find(driver).is_some_and(|d| d.options().iter().any(|o| o.key == property))
                || rhea_display::find(driver).is_some_and(|d| d.options().iter().any(|o| o.key == property))
                || rhea_nic::catalog::find(driver).is_some_and(|d| d.options().iter().any(|o| o.key == property))
                || rhea_pci::catalog::find(driver).is_some_and(|d| d.options().iter().any(|o| o.key == property))
                || rhea_usb::catalog::find(driver).is_some_and(|d| d.options().iter().any(|o| o.key == property))
                || driver == rhea_vfio::catalog::NAME
                    && rhea_vfio::catalog::options().iter().any(|o| o.key == property);
            if !known && !crate::q35::is_global(&self.config.board, driver, property) {
                let text = format!("'{driver}.{property}': there is no such device or property");
                return Err(OptionError::new("-global", text));
            }
        }
        if let Some(name) = crate::display::default_device(self.config)? {
            self.display(name, "-vga", &[])?;
            self.own_choice(name, &[]);
        }
        let (virtio_drives, ide_drives) = self.open_drives()?;
        if let Some(bus) = self.own_bus.as_mut().filter(|_| !self.config.no_defaults) {
            let drive = self.config.drives.iter().any(|d| d.media == Media::Cdrom);
            let device = self.config.devices.iter().any(|d| matches!(d.driver.as_str(), "scsi-cd" | "ide-cd"));
            bus.defaults(self.board, !drive && !device)?;
        }
        self.attach_ide(ide_drives)?;
        self.open_nets()?;
        self.default_usb()?;
        for spec in &self.config.devices {
            if !own(self.board, spec)? {
                self.device(spec)?;
            }
            self.board.inventory.add_device(spec, true);
        }
        for drive in virtio_drives {
            let pairs = [("drive".to_owned(), Some(drive.id().to_owned()))];
            self.make("-drive", "virtio-blk-pci", &[], Resources { drive: Some(drive), ..self.resources() })?;
            self.own_choice("virtio-blk-pci", &pairs);
        }
        if let Some((drive, _)) = self.plugs.drives.iter().find(|(_, used)| !used) {
            eprintln!("rhea: warning: the drive '{}' is used by no device", drive.id());
        }
        if let Some((id, ..)) = self.plugs.nets.iter().find(|(.., used)| !used) {
            eprintln!("rhea: warning: the netdev '{id}' is used by no device");
        }
        self.usb_info();
        let list = self.plugs.assigned.clone();
        self.board.inventory.set_assigned(list.clone());
        self.board.info.push(("vfio", "show the assigned devices", Box::new(move || list.describe())));
        let flash: Vec<Arc<Drive>> = self.board.flash_drives.drain(..).collect();
        let control = self.board.control.clone();
        self.plugs.graph.failures().listen(move |failure| {
            if failure.action == FailureAction::Stop {
                control.request(VmRequest::IoError);
            }
        });
        let plugs = Arc::new(Mutex::new(self.plugs));
        let (list, of_flash) = (plugs.clone(), flash.clone());
        let drives = move || -> Vec<Arc<Drive>> {
            of_flash.iter().cloned().chain(list.lock().drives.iter().map(|(d, _)| d.clone())).collect()
        };
        let drives = Arc::new(drives);
        let (all, of_nets, of_units) = (drives.clone(), plugs.clone(), Arc::downgrade(&plugs));
        let nets = move || of_nets.lock().nets.iter().map(|(id, net, _)| (id.clone(), net.clone())).collect();
        // Functions hold what holds this list.
        let units = move || {
            let plugs = of_units.upgrade();
            plugs.map_or_else(Vec::new, |p| p.lock().units.iter().map(|u| (u.id.clone(), u.function.clone())).collect())
        };
        self.board.inventory.set_sources(move || all(), nets, units);
        self.board.inventory.add_pci(&self.bus);
        let list = drives.clone();
        let inventory = self.board.inventory.clone();
        let block = move || {
            let fixed = inventory.fixed_drives().into_iter().map(|d| format!("{}\n", d.description()));
            fixed.chain(inventory.trays().iter().map(crate::inventory::Tray::description)).collect()
        };
        self.board.info.push(("block", "show the block devices", Box::new(block)));
        let statistics = move || {
            list()
                .iter()
                .map(|d| {
                    let [reads, read_bytes, writes, written] = d.statistics();
                    format!(
                        "{}: rd_operations={reads} rd_bytes={read_bytes} wr_operations={writes} wr_bytes={written}\n",
                        d.id()
                    )
                })
                .collect()
        };
        self.board.info.push(("blockstats", "show block device statistics", Box::new(statistics)));
        let list = plugs.clone();
        let network =
            move || list.lock().nets.iter().map(|(id, n, _)| format!("{id}: {}\n", n.description())).collect();
        self.board.info.push(("network", "show the network state", Box::new(network)));
        if self.board.info.iter().all(|(topic, ..)| *topic != "irq") {
            let routing = self.board.routing.clone();
            self.board.info.push(("irq", "show the interrupt lines", Box::new(move || routing.describe())));
        }
        let bus = self.bus.clone();
        let pci = move || crate::pci::describe(&bus);
        self.board.info.push(("pci", "show the PCI devices", Box::new(pci)));
        Ok(plugs)
    }

    /// Notes a device that no `-device` asked for.
    fn own_choice(&mut self, driver: &str, pairs: &[(String, Option<String>)]) {
        self.board.inventory.add_device(&DeviceSpec { driver: driver.to_owned(), pairs: pairs.to_vec() }, false);
    }

    fn resources(&self) -> Resources {
        Resources { vcpus: self.config.smp.cpus as u16, ..Resources::default() }
    }

    /// Opens all drives but those of the flash; those with if=virtio and if=ide are returned for their own devices.
    fn open_drives(&mut self) -> Result<(Vec<Arc<Drive>>, Vec<IdeDrive<'a>>), OptionError> {
        let (mut virtio, mut ide, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
        for node in &self.config.blockdevs {
            let opened = self.plugs.graph.add(node.clone(), &Inherit::default());
            opened.map_err(|e| OptionError::new("-blockdev", e))?;
        }
        for options in self.config.drives.iter().filter(|d| crate::flash::bank(self.config, d).is_none()) {
            // The first number that neither an option nor a drive before has.
            let taken = |n: &u32| {
                let same = |d: &&DriveOptions| d.interface == options.interface;
                self.config.drives.iter().filter(same).any(|d| d.index == Some(*n))
                    || numbers.contains(&(options.interface, *n))
            };
            let n = options.index.or_else(|| (0..).find(|n| !taken(n))).unwrap_or(0);
            numbers.push((options.interface, n));
            let medium = if options.media == Media::Cdrom { "cd" } else { "hd" };
            let name = match options.interface {
                DriveInterface::Virtio => format!("virtio{n}"),
                DriveInterface::Ide => format!("ide{n}-{medium}0"),
                DriveInterface::Scsi => format!("scsi0-{medium}{n}"),
                _ => format!("none{n}"),
            };
            if let Some(id) = &options.id {
                self.plugs.check_drive(options, id)?;
            }
            if is_empty(options) {
                let name = options.id.clone().unwrap_or(name);
                match options.interface {
                    DriveInterface::Ide => ide.push((options, name, None)),
                    DriveInterface::None => self.plugs.empty.push(name),
                    _ => {
                        let text =
                            "a drive without a medium is at an AHCI port: use if=ide, or if=none and -device ide-cd";
                        return Err(OptionError::new(&options.option, text));
                    }
                }
                continue;
            }
            let drive = options.open_in(&self.plugs.graph, &name, self.config.snapshot)?;
            match options.interface {
                DriveInterface::Virtio => virtio.push(drive.clone()),
                DriveInterface::Ide => ide.push((options, drive.id().to_owned(), Some(drive.clone()))),
                DriveInterface::Scsi => match &mut self.own_bus {
                    Some(bus) => bus.attach(self.board, options, drive.clone())?,
                    None => return Err(OptionError::new(&options.option, "the machine has no SCSI adapter")),
                },
                _ => {}
            }
            let used = matches!(options.interface, DriveInterface::Virtio | DriveInterface::Ide | DriveInterface::Scsi);
            self.plugs.drives.push((drive, used));
        }
        Ok((virtio, ide))
    }

    /// Is it one of those that are there from the start or not at all?
    fn is_fixed(driver: &str) -> bool {
        let pci = catalog::find(driver).is_some_and(|d| d.transport == Transport::Pci)
            || rhea_storage::catalog::find(driver).is_some_and(rhea_storage::catalog::DeviceType::is_controller)
            || rhea_nic::catalog::find(driver).is_some()
            || driver == rhea_vfio::catalog::NAME
            || rhea_usb::catalog::find(driver).is_some_and(rhea_usb::catalog::DeviceType::is_controller);
        !pci && crate::devices::help_of(driver).is_some()
    }

    fn device(&mut self, spec: &DeviceSpec) -> Result<(), OptionError> {
        if self.hot.is_some() && Self::is_fixed(&spec.driver) {
            let text = "cannot be plugged while the machine runs: it belongs on the command line";
            return Err(OptionError::new(&format!("-device {}", spec.driver), text));
        }
        if self.own_bus.as_ref().is_some_and(|b| b.knows(&spec.driver)) {
            let option = format!("-device {}", spec.driver);
            let (drive, net) = (self.named_drive(&option, spec)?, self.named_net(&option, spec)?);
            let mac = self.plugs.macs.allocate();
            let parts = BusParts { drive, net, mac };
            return self.own_bus.as_mut().map_or(Ok(()), |bus| bus.make(self.board, spec, parts));
        }
        if matches!(spec.driver.as_str(), "virtconsole" | "virtserialport") {
            return self.console_port(spec);
        }
        if rhea_display::find(&spec.driver).is_some() {
            return self.display(&spec.driver, "-device", &spec.pairs);
        }
        if let Some(kind) = rhea_storage::catalog::find(&spec.driver) {
            return self.storage(kind, spec);
        }
        if spec.driver == rhea_iommu::NAME {
            return Err(OptionError::new("-device intel-iommu", "is of the q35 board: this one has no such IOMMU"));
        }
        if let Some(kind) = rhea_pci::catalog::find(&spec.driver) {
            return self.pci_device(kind, spec);
        }
        if spec.driver == rhea_vfio::catalog::NAME {
            return self.vfio(spec);
        }
        if let Some(kind) = rhea_usb::catalog::find(&spec.driver) {
            return self.usb(&format!("-device {}", kind.name), kind, spec);
        }
        let option = format!("-device {}", spec.driver);
        let mut resources = self.resources();
        resources.drive = self.named_drive(&option, spec)?;
        resources.net = self.named_net(&option, spec)?;
        if let Some(kind) = rhea_nic::catalog::find(&spec.driver) {
            return self.nic(kind, &option, &spec.pairs, resources.net);
        }
        if let Some(id) = spec.value("rng") {
            let object = self.plugs.objects.iter().find_map(|o| match o {
                ObjectSpec::Rng { id: i, filename } if i == id => Some(filename.clone()),
                _ => None,
            });
            resources.entropy = Some(
                object.ok_or_else(|| OptionError::new(&option, format!("'rng={id}': no rng -object has this id")))?,
            );
        }
        if spec.driver.starts_with("virtio-net") {
            resources.mac = self.plugs.macs.allocate();
        }
        self.make("-device", &spec.driver, &spec.pairs, resources)
    }

    /// The drive that `drive=` names, taken.
    fn named_drive(&mut self, option: &str, spec: &DeviceSpec) -> Result<Option<Arc<Drive>>, OptionError> {
        let Some(id) = spec.value("drive") else { return Ok(None) };
        let known = self.plugs.drives.iter().any(|(d, _)| d.id() == id);
        if let Some(node) = self.plugs.graph.get(id).filter(|_| !known) {
            self.plugs.drives.push((self.plugs.graph.drive_for(id, &node), false));
        }
        let Some((drive, used)) = self.plugs.drives.iter_mut().find(|(d, _)| d.id() == id) else {
            let text = format!("'drive={id}': no -drive has this id, and no -blockdev this node-name");
            return Err(OptionError::new(option, text));
        };
        if std::mem::replace(used, true) {
            return Err(OptionError::new(option, format!("'drive={id}': the drive is used by another device")));
        }
        let policy = |key| spec.value(key).and_then(ErrorPolicy::of);
        drive.set_error_policy(policy("rerror"), policy("werror"));
        Ok(Some(drive.clone()))
    }

    /// Device ids must differ.
    fn take_id(&mut self, set: &OptionSet) -> Result<(), OptionError> {
        set.text("id").map_or(Ok(()), |id| self.plugs.take_id(set.option(), id))
    }

    /// Puts a function on its bus.
    fn attach(&mut self, set: &OptionSet, function: Arc<dyn PciFunction>) -> Result<(), OptionError> {
        match self.hot {
            Some(board) => {
                function.reset();
                board.insert(function.clone())
            }
            None => function.config().slot().bus().attach(function.clone()).map_err(|e| e.to_string()),
        }
        .map_err(|e| OptionError::new(set.option(), e))?;
        self.note(set, function);
        Ok(())
    }

    /// Notes a function that is on its bus.
    fn note(&mut self, set: &OptionSet, function: Arc<dyn PciFunction>) {
        let text = |key: &str| set.text(key).map(str::to_owned);
        let unit = Unit { id: text("id"), function: function.clone(), drive: text("drive"), net: text("netdev") };
        self.plugs.units.push(unit);
        self.board.devices.push(function);
    }

    fn make(
        &mut self,
        place: &str,
        name: &str,
        pairs: &[(String, Option<String>)],
        resources: Resources,
    ) -> Result<(), OptionError> {
        let Some(kind) = catalog::find(name) else {
            return Err(OptionError::new(place, format!("unknown device '{name}' (-device help lists the devices)")));
        };
        let option = if place == "-device" { format!("-device {name}") } else { place.to_owned() };
        let pairs = self.with_globals(name, pairs);
        let set = OptionSet::parse(&option, &kind.options(), &pairs)?;
        self.take_id(&set)?;
        let made = kind.make(&set, &resources)?;
        if let Made::Serial(console) = &made {
            self.plugs.consoles.push((set.text("id").map(str::to_owned), console.clone()));
        }
        if let Made::Balloon(balloon) = &made {
            let balloon = balloon.clone();
            self.board.inventory.set_balloon(Some(balloon.clone()));
            self.board.info.push((
                "balloon",
                "show the balloon",
                Box::new(move || format!("balloon: given={}\n", balloon.actual())),
            ));
        }
        match kind.transport {
            Transport::Pci => self.plug_pci(&option, &set, &made),
            Transport::Mmio => {
                if let Some(bus) = set.text("bus").filter(|b| !b.starts_with("virtio-mmio-bus")) {
                    return Err(set.error("bus", &format!("there is no bus '{bus}' for this device: leave it out")));
                }
                let Some(place) = self.free.pop_front() else {
                    return Err(OptionError::new(&option, "all virtio-mmio places are taken: use the -pci device"));
                };
                let core = VirtioCore::new(
                    made.device(),
                    self.board.dma(),
                    DeviceType::ring_features(&set),
                    self.board.log.clone(),
                );
                place.plug(core);
                Ok(())
            }
        }
    }

    /// The pairs of a device with those that `-global` gives.
    fn with_globals(&self, name: &str, pairs: &[(String, Option<String>)]) -> Vec<(String, Option<String>)> {
        let mut pairs = pairs.to_vec();
        for (driver, property, value) in self.config.globals.iter().rev() {
            if driver == name && !pairs.iter().any(|(key, _)| key == property) {
                pairs.push((property.clone(), Some(value.clone())));
            }
        }
        pairs
    }

    fn display(&mut self, name: &str, place: &str, pairs: &[(String, Option<String>)]) -> Result<(), OptionError> {
        let Some(kind) = rhea_display::find(name) else { return Ok(()) };
        let option = if place == "-device" { format!("-device {name}") } else { place.to_owned() };
        let set = OptionSet::parse(&option, &kind.options(), &self.with_globals(name, pairs))?;
        self.take_id(&set)?;
        let slot = self.pci_slot(&option, &set)?;
        crate::display::make(self.board, self.config, kind, &set, slot)
    }

    /// The place on the bus that `bus=` and `addr=` ask for.
    fn pci_slot(&self, option: &str, set: &OptionSet) -> Result<PciSlot, OptionError> {
        let bus = match set.text("bus") {
            None => self.bus.clone(),
            Some(name) => self.bus.find_bus(name).ok_or_else(|| {
                let text = format!(
                    "there is no PCI bus '{name}': the root bus is '{}', others have the id of a bridge that comes before",
                    self.bus.name()
                );
                set.error("bus", &text)
            })?,
        };
        let slot = match set.text("addr") {
            Some(text) => {
                let devfn = Devfn::parse(text)
                    .ok_or_else(|| set.error("addr", &format!("'{text}': expected a slot and function like 03.0")))?;
                bus.slot(devfn)
            }
            None => bus.free_slot().map_err(|e| OptionError::new(option, e.to_string()))?,
        };
        if let Some(board) = self.hot {
            board.check(&slot).map_err(|e| OptionError::new(option, e))?;
        }
        Ok(slot)
    }

    /// A bridge, a port, or another function of the PCI crate.
    fn pci_device(
        &mut self,
        kind: &'static rhea_pci::catalog::DeviceType,
        spec: &DeviceSpec,
    ) -> Result<(), OptionError> {
        let option = format!("-device {}", kind.name);
        let set = OptionSet::parse(&option, &kind.options(), &self.with_globals(kind.name, &spec.pairs))?;
        self.take_id(&set)?;
        let slot = self.pci_slot(&option, &set)?;
        let bus = set.text("id").map_or_else(|| format!("pci.{slot}"), str::to_owned);
        let made = kind.make(&set, &slot, &bus, &self.board.clock, &self.board.log)?;
        self.plugs.ports.lock().extend(made.port.clone().map(|port| (bus.clone(), port)));
        let function = made.attach().map_err(|e| OptionError::new(&option, e.to_string()))?;
        self.note(&set, function);
        Ok(())
    }

    fn plug_pci(&mut self, option: &str, set: &OptionSet, made: &Made) -> Result<(), OptionError> {
        let rom = matches!(made, Made::Net(_)).then_some("efi-virtio.rom");
        let slot = with_rom(self.config, set, self.pci_slot(option, set)?, rom)?;
        let vectors = set.number("vectors").and_then(|n| u16::try_from(n).ok());
        let function = VirtioPci::new(made.device(), &slot, DeviceType::ring_features(set), vectors, &self.board.log);
        self.attach(set, function.clone())?;
        if let Some(index) = set.number("bootindex").filter(|_| self.hot.is_none()) {
            let unit = if matches!(made, Made::Net(_)) { unit::NETWORK } else { unit::DISK };
            if !self.board.add_boot_entry(index, &*function, unit) && self.config.kernel.is_none() {
                eprintln!(
                    "rhea: warning: {option}: bootindex is not told to the firmware, which has its own boot order"
                );
            }
        }
        Ok(())
    }

    fn console_port(&mut self, spec: &DeviceSpec) -> Result<(), OptionError> {
        let option = format!("-device {}", spec.driver);
        let set = OptionSet::parse(&option, catalog::VIRTCONSOLE_OPTIONS, &spec.pairs)?;
        self.take_id(&set)?;
        let Some(id) = set.text("chardev") else {
            return Err(OptionError::new(&option, "property 'chardev' is missing: chardev=ID"));
        };
        let Some(backend) = self.wiring.chardevs.get(id) else {
            return Err(set.error("chardev", &format!("'{id}': no -chardev has this id")));
        };
        let bus = set.text("bus").map(|b| b.strip_suffix(".0").unwrap_or(b));
        let found = self.plugs.consoles.iter().rev().find(|(id, _)| bus.is_none() || id.as_deref() == bus);
        let Some((_, console)) = found else {
            return Err(OptionError::new(
                &option,
                "there is no console bus for it: put -device virtio-serial-pci before it",
            ));
        };
        let port = PortOptions {
            number: set.number("nr").and_then(|n| u32::try_from(n).ok()),
            console: spec.driver == "virtconsole",
            name: set.text("name").unwrap_or_default().to_owned(),
            backend,
            watcher: spec.value("id").map(|id| self.board.inventory.port_watcher(id)),
        };
        console.add_port(port).map_err(|e| OptionError::new(&option, e))
    }
}
