//! Devices that come and go while the machine runs: what the monitor's `device_add`, `device_del`, `object_add` and so on do.
//!
//! Removal is the guest's to agree to: `device_del` asks for it and returns; who wants to know of the end registers with
//! [`HotPlug::on_removed`].

pub mod express;

use crate::board::{Board, Wiring};
use crate::config::{DeviceSpec, MachineConfig};
use crate::inventory::Inventory;
use crate::machine::Machine;
use crate::options::ObjectSpec;
use crate::plug::{Plugger, Plugs};
use parking_lot::{Mutex, RwLock};
use rhea_block::{BlockGraph, Drive, DriveOptions, Inherit, Node, NodeOptions};
use rhea_device::{Device, OptionError};
use rhea_pci::{PciBus, PciFunction, PciSlot};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// The devices of a machine, in the order of reset.
pub type DeviceList = RwLock<Vec<Arc<dyn Device>>>;

/// Memory that was plugged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryModule {
    pub id: Option<String>,
    /// The id of the object that it is of.
    pub object: String,
    pub slot: u32,
    /// Where the guest sees it, and how many bytes.
    pub start: u64,
    pub size: u64,
    /// It was not there when the machine started.
    pub hotplugged: bool,
}

/// What a board does for devices that come and go.
pub trait PlugBoard: Send + Sync {
    /// Can a PCI function be plugged at this place?
    ///
    /// # Errors
    /// Why not.
    fn check(&self, slot: &PciSlot) -> Result<(), String>;
    /// Puts a function on its bus and tells the guest.
    ///
    /// # Errors
    /// Why not.
    fn insert(&self, function: Arc<dyn PciFunction>) -> Result<(), String>;
    /// Asks the guest to give a function up. True: the board has taken it off its bus already; otherwise
    /// [`HotPlug::removed`] is called later.
    ///
    /// # Errors
    /// Why it stays.
    fn eject(&self, function: &Arc<dyn PciFunction>) -> Result<bool, String>;
    /// Is it a device that is no PCI function, and comes and goes here?
    fn has(&self, driver: &str) -> bool;
    /// Plugs what is no PCI function; `None`: it is none of the board's.
    fn plug(&self, spec: &DeviceSpec, objects: &[ObjectSpec]) -> Option<Result<(), OptionError>>;
    /// Asks the guest to give such a thing up; `None`: there is none of that name.
    fn unplug(&self, id: &str) -> Option<Result<(), String>>;
    /// Is an object in use?
    fn uses(&self, object: &str) -> bool;
    /// Places for processors with what is in them, for `info hotpluggable-cpus`.
    fn processors(&self) -> String;
    /// Memory that was plugged.
    fn memory(&self) -> Vec<MemoryModule>;
    /// Whom to tell of what the guest has given up.
    fn connect(&self, hotplug: &Arc<HotPlug>);
}

type Removed = Box<dyn Fn(Option<&str>) + Send + Sync>;

/// The changeable part of a machine.
pub struct HotPlug {
    config: MachineConfig,
    wiring: Wiring,
    /// The parts of the board that devices are made with.
    parts: Box<dyn Fn() -> Board + Send + Sync>,
    bus: Arc<PciBus>,
    plugs: Arc<Mutex<Plugs>>,
    board: Arc<dyn PlugBoard>,
    inventory: Arc<Inventory>,
    devices: OnceLock<Arc<DeviceList>>,
    removed: Mutex<Vec<Arc<Removed>>>,
}

impl HotPlug {
    #[must_use]
    pub fn new(
        board: &Board,
        config: &MachineConfig,
        wiring: &Wiring,
        bus: &Arc<PciBus>,
        plugs: Arc<Mutex<Plugs>>,
        changes: Arc<dyn PlugBoard>,
    ) -> Arc<Self> {
        let hotplug = Arc::new(Self {
            config: config.clone(),
            wiring: wiring.clone(),
            parts: board.seed(),
            bus: bus.clone(),
            plugs,
            board: changes,
            inventory: board.inventory.clone(),
            devices: OnceLock::new(),
            removed: Mutex::default(),
        });
        hotplug.board.connect(&hotplug);
        hotplug
    }
    /// Where new devices go, once.
    pub(crate) fn set_devices(&self, list: &Arc<DeviceList>) {
        let _ = self.devices.set(list.clone());
    }
    /// Calls `f` with the id (if it has one) of each device that is gone.
    pub fn on_removed(&self, f: Removed) {
        self.removed.lock().push(Arc::new(f));
    }
    /// A function has left its bus.
    pub fn removed(&self, function: Arc<dyn PciFunction>) {
        function.release();
        let unit = self.plugs.lock().forget(&function);
        if let Some(list) = self.devices.get() {
            // The data pointers are compared: it is known under another trait there.
            let this = Arc::as_ptr(&function).cast::<()>();
            list.write().retain(|d| Arc::as_ptr(d).cast::<()>() != this);
        }
        let id = unit.and_then(|u| u.id);
        // What it used is free when that is told.
        drop(function);
        self.tell(id.as_deref());
    }
    /// Something else is gone; its id is free.
    pub fn removed_other(&self, id: &str) {
        self.plugs.lock().free_id(id);
        self.tell(Some(id));
    }
    fn tell(&self, id: Option<&str>) {
        // Listeners look up what has gone.
        let all: Vec<_> = self.removed.lock().clone();
        for f in all {
            f(id);
        }
        if let Some(id) = id {
            self.inventory.remove_device(id);
        }
    }

    fn device_add(&self, spec: &DeviceSpec) -> Result<(), OptionError> {
        let mut plugs = self.plugs.lock();
        let objects = plugs.objects.clone();
        let option = format!("-device {}", spec.driver);
        let id = spec.value("id").filter(|_| self.board.has(&spec.driver));
        if let Some(id) = id {
            plugs.take_id(&option, id)?;
        }
        if let Some(done) = self.board.plug(spec, &objects) {
            if let (Err(_), Some(id)) = (&done, id) {
                plugs.free_id(id);
            }
            done?;
            self.inventory.add_device(spec, true);
            return Ok(());
        }
        let mut board = (self.parts)();
        let plugger = Plugger::new(&mut board, &self.config, &self.wiring, &self.bus, VecDeque::new());
        let (back, done) = plugger.running(std::mem::take(&mut *plugs), &*self.board).plug_one(spec);
        *plugs = back;
        done?;
        if let Some(list) = self.devices.get() {
            list.write().append(&mut board.devices);
        }
        self.inventory.add_device(spec, true);
        Ok(())
    }
    fn device_del(&self, id: &str) -> Result<(), OptionError> {
        let fail = |e: String| OptionError::new("device_del", e);
        if let Some(done) = self.board.unplug(id) {
            return done.map_err(fail);
        }
        let found = self.plugs.lock().units.iter().find(|u| u.id.as_deref() == Some(id)).map(|u| u.function.clone());
        let function = found.ok_or_else(|| fail(format!("'{id}': no device that can be unplugged has this id")))?;
        if self.board.eject(&function).map_err(|e| fail(format!("'{id}': {e}")))? {
            self.removed(function);
        }
        Ok(())
    }
}

/// What monitors offer. Errors are one line.
impl Machine {
    fn changes(&self, command: &str) -> Result<&Arc<HotPlug>, OptionError> {
        self.hotplug().ok_or_else(|| OptionError::new(command, "this machine's devices are there from the start"))
    }
    /// `device_add`: plugs a device into the running machine.
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn device_add(&self, spec: &DeviceSpec) -> Result<(), OptionError> {
        self.changes("device_add")?.device_add(spec)
    }
    /// `device_del`: asks the guest to give a device up.
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn device_del(&self, id: &str) -> Result<(), OptionError> {
        self.changes("device_del")?.device_del(id)
    }
    /// `object_add`
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn object_add(&self, spec: ObjectSpec) -> Result<(), OptionError> {
        let mut plugs = self.changes("object_add")?.plugs.lock();
        if plugs.objects.iter().any(|o| o.id() == spec.id()) {
            let text = format!("'id={}': the id is in use: ids must differ", spec.id());
            return Err(OptionError::new("object_add", text));
        }
        plugs.objects.push(spec);
        Ok(())
    }
    /// `object_del`
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn object_del(&self, id: &str) -> Result<(), OptionError> {
        let hotplug = self.changes("object_del")?;
        let mut plugs = hotplug.plugs.lock();
        let fail = |text: &str| Err(OptionError::new("object_del", format!("'{id}': {text}")));
        if !plugs.objects.iter().any(|o| o.id() == id) {
            return fail("no object has this id");
        }
        if hotplug.board.uses(id) || hotplug.config.board.memory_backend() == Some(id) {
            return fail("the object is in use");
        }
        plugs.objects.retain(|o| o.id() != id);
        Ok(())
    }
    /// `drive_add`: a drive (if=none) for a device that comes later.
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn drive_add(&self, options: &DriveOptions) -> Result<(), OptionError> {
        let hotplug = self.changes("drive_add")?;
        if options.interface != rhea_block::DriveInterface::None {
            return Err(OptionError::new("drive_add", "use if=none, and device_add for a device with drive=ID"));
        }
        hotplug.plugs.lock().add_drive(options, hotplug.config.snapshot)
    }
    /// Opens an image for a drive that is called `name`, with its format or what it looks like.
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn open_medium(
        &self,
        name: &str,
        file: &Path,
        format: Option<&str>,
        readonly: bool,
    ) -> Result<Arc<Drive>, OptionError> {
        let hotplug = self.changes("change")?;
        let mut options = DriveOptions::for_file("change", file);
        options.format = format.map(str::to_owned);
        options.readonly = readonly;
        let graph = hotplug.plugs.lock().graph.clone();
        options.open_in(&graph, name, hotplug.config.snapshot)
    }
    /// `blockdev-add`, as after `-blockdev`.
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn blockdev_add(&self, options: NodeOptions) -> Result<(), OptionError> {
        self.block_graph()?
            .add(options, &Inherit::default())
            .map(|_| ())
            .map_err(|e| OptionError::new("blockdev-add", e))
    }
    /// The nodes of the machine's drives, for those who change what is below them.
    ///
    /// # Errors
    /// [`OptionError`]: the machine has none.
    pub fn block_graph(&self) -> Result<Arc<BlockGraph>, OptionError> {
        Ok(self.changes("blockdev")?.plugs.lock().graph.clone())
    }
    /// `blockdev-del`: closes a node that nothing uses.
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn blockdev_del(&self, name: &str) -> Result<(), OptionError> {
        self.changes("blockdev-del")?.plugs.lock().remove_node(name).map_err(|e| OptionError::new("blockdev-del", e))
    }
    /// The nodes that have a name.
    #[must_use]
    pub fn block_nodes(&self) -> Vec<Arc<Node>> {
        self.hotplug().map(|h| h.plugs.lock().graph.nodes()).unwrap_or_default()
    }
    /// A node as a medium for a drive that has none.
    ///
    /// # Errors
    /// [`OptionError`]: there is no such node, or it is in use.
    pub fn node_medium(&self, name: &str) -> Result<Arc<Drive>, OptionError> {
        let fail = |what: &str| OptionError::new("blockdev-insert-medium", format!("'{name}': {what}"));
        let plugs = self.changes("blockdev-insert-medium")?.plugs.lock();
        let node = plugs.graph.get(name).ok_or_else(|| fail("there is no such node"))?;
        let inserted = self.inventory().trays().iter().filter_map(|t| t.cd.medium()).any(|d| d.id() == name);
        if inserted || plugs.uses_node(name) {
            return Err(fail("the node is in use"));
        }
        Ok(plugs.graph.drive_for(name, &node))
    }
    /// `drive_del`: closes a drive that no device uses.
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn drive_del(&self, id: &str) -> Result<(), OptionError> {
        self.changes("drive_del")?.plugs.lock().remove_drive("drive_del", id)
    }
    /// `netdev_add`, as after `-netdev`.
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn netdev_add(&self, text: &str) -> Result<(), OptionError> {
        self.changes("netdev_add")?.plugs.lock().add_net(text)
    }
    /// `netdev_del`
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn netdev_del(&self, id: &str) -> Result<(), OptionError> {
        self.changes("netdev_del")?.plugs.lock().remove_net("netdev_del", id)
    }
    /// The text of `info hotpluggable-cpus`.
    #[must_use]
    pub fn hotpluggable_cpus(&self) -> String {
        self.hotplug().map(|h| h.board.processors()).unwrap_or_default()
    }
    /// The text of `info memory-devices`.
    #[must_use]
    pub fn memory_devices(&self) -> Vec<MemoryModule> {
        self.hotplug().map(|h| h.board.memory()).unwrap_or_default()
    }
}
