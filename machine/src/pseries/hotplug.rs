//! What comes and goes while the partition runs: cores, memory modules, PCI functions.

use super::drc::{self, DrcType};
use super::partition::Partition;
use super::platform::date;
use super::rtas::events::{Events, HotPlugEvent};
use super::tree::{self, LMB};
use crate::config::DeviceSpec;
use crate::hotplug::{HotPlug, MemoryModule, PlugBoard};
use crate::options::ObjectSpec;
use parking_lot::Mutex;
use rhea_accel::GuestAccelerator;
use rhea_clock::RtcClock;
use rhea_device::OptionError;
use rhea_device::options::{OptionDecl, OptionKind, OptionSet};
use rhea_firmware::FdtNode;
use rhea_irqchip::spapr::Node;
use rhea_memory::{AddressSpace, Gpa, Mapping, RamBlock, RamOptions};
use rhea_pci::{Devfn, PciFunction, PciSlot};
use rhea_ppc::PpcCpu;
use rhea_spapr::{Phb, Phbs};
use std::fmt::Write;
use std::sync::{Arc, OnceLock, Weak};

const ID: OptionDecl = OptionDecl::new("id", OptionKind::Text, None, "name");
/// The end of the names of cores; the processor's model comes before.
const CORE: &str = "-spapr-cpu-core";
/// Properties of cores.
pub const CORE_OPTIONS: &[OptionDecl] = &[
    ID,
    OptionDecl::new("core-id", OptionKind::Number { min: 0, max: 0xffff }, None, "number of its first thread"),
    OptionDecl::new("nr-threads", OptionKind::Number { min: 1, max: 8 }, None, "its threads: those of all cores"),
    OptionDecl::new("node-id", OptionKind::Number { min: 0, max: 0 }, None, "there is one node"),
];
/// Properties of `pc-dimm`.
pub const DIMM_OPTIONS: &[OptionDecl] = &[
    ID,
    OptionDecl::new("memdev", OptionKind::Text, None, "id of the -object that is the memory"),
    OptionDecl::new("addr", OptionKind::Number { min: 0, max: u64::MAX }, None, "where it is"),
    OptionDecl::new("slot", OptionKind::Number { min: 0, max: 255 }, None, "number of its place"),
    OptionDecl::new("node", OptionKind::Number { min: 0, max: 0 }, Some("0"), "there is one node"),
];

/// A memory module.
struct Dimm {
    id: Option<String>,
    object: String,
    slot: u32,
    start: u64,
    block: Arc<RamBlock>,
    mapping: Mapping,
    /// It was there before the partition started.
    cold: bool,
}

impl Dimm {
    fn blocks(&self) -> std::ops::Range<u32> {
        let first = (self.start / LMB) as u32;
        first..first + (self.block.len() / LMB) as u32
    }
}

/// A core that came with `-device` or `device_add`.
struct Core {
    id: Option<String>,
    first: u32,
}

/// The changeable part of the partition.
pub struct Changes {
    partition: Weak<Partition>,
    phbs: Arc<Phbs>,
    space: Arc<AddressSpace>,
    accel: Arc<dyn GuestAccelerator<PpcCpu>>,
    events: Arc<Events>,
    wall: RtcClock,
    /// Places for memory modules.
    slots: u32,
    dimms: Mutex<Vec<Dimm>>,
    cores: Mutex<Vec<Core>>,
    hotplug: OnceLock<Weak<HotPlug>>,
}

/// What [`Changes`] are made of.
pub struct ChangesParts {
    pub partition: Weak<Partition>,
    pub phbs: Arc<Phbs>,
    pub space: Arc<AddressSpace>,
    pub accel: Arc<dyn GuestAccelerator<PpcCpu>>,
    pub events: Arc<Events>,
    pub wall: RtcClock,
    pub slots: u32,
}

impl Changes {
    #[must_use]
    pub fn new(parts: ChangesParts) -> Arc<Self> {
        let ChangesParts { partition, phbs, space, accel, events, wall, slots } = parts;
        Arc::new(Self {
            partition,
            phbs,
            space,
            accel,
            events,
            wall,
            slots,
            dimms: Mutex::default(),
            cores: Mutex::default(),
            hotplug: OnceLock::new(),
        })
    }
    fn partition(&self) -> Result<Arc<Partition>, String> {
        self.partition.upgrade().ok_or_else(|| "the machine ends".to_owned())
    }
    fn tell(&self, partition: &Partition, event: HotPlugEvent) {
        self.events.hot_plug(date(self.wall.now().0), event, partition.modern_events());
    }
    /// Connectors for the slots of host bridges; functions that are there are the partition's.
    pub fn add_slots(&self) {
        let Some(partition) = self.partition.upgrade() else { return };
        for phb in self.phbs.list() {
            for device in 0..32 {
                let id = slot_id(phb.index(), device);
                partition.drcs.add(DrcType::Pci, id, !functions(&phb, device).is_empty());
            }
        }
    }
    /// Plugs a core or a memory module that `-device` names; `None`: it is neither. `running`: the partition is to be told.
    pub fn plug_device(
        &self,
        spec: &DeviceSpec,
        objects: &[ObjectSpec],
        running: bool,
    ) -> Option<Result<(), OptionError>> {
        let option = format!("-device {}", spec.driver);
        let decls = if spec.driver == "pc-dimm" {
            DIMM_OPTIONS
        } else if spec.driver.ends_with(CORE) {
            CORE_OPTIONS
        } else {
            return None;
        };
        let plug = || {
            let set = OptionSet::parse(&option, decls, &spec.pairs)?;
            let partition = self.partition().map_err(|e| OptionError::new(&option, e))?;
            if spec.driver == "pc-dimm" {
                self.plug_dimm(&partition, &set, objects, running)
            } else {
                self.plug_core(&partition, &set, spec.driver.trim_end_matches(CORE), running)
            }
        };
        Some(plug())
    }

    // ---- processors ----

    fn plug_core(&self, partition: &Partition, set: &OptionSet, model: &str, running: bool) -> Result<(), OptionError> {
        let fail = |text: String| OptionError::new(set.option(), text);
        let found = rhea_ppc::models::parse(model).map_err(&fail)?;
        if found.pvr != partition.cpu.pvr {
            return Err(fail(format!("the processors of the machine are of the model {}", partition.cpu.name)));
        }
        let smp = &partition.smp;
        if set.number("nr-threads").is_some_and(|n| n != u64::from(smp.threads)) {
            return Err(set.error("nr-threads", &format!("the cores of the machine have {} threads", smp.threads)));
        }
        let Some(first) = set.number("core-id").map(|n| n as u32) else {
            return Err(fail("property 'core-id' is missing: the number of its first thread".to_owned()));
        };
        if first >= smp.max_cpus || first % smp.threads.max(1) != 0 {
            let text = format!(
                "'{first}': expected a multiple of the {} threads of a core, below maxcpus={}",
                smp.threads, smp.max_cpus
            );
            return Err(set.error("core-id", &text));
        }
        let index = drc::index(DrcType::Cpu, first);
        if partition.thread(first.into()).is_some() || partition.drcs.attach(index, running).is_err() {
            return Err(set.error("core-id", &format!("'{first}': there is a core with this number")));
        }
        partition.set_core(first, true);
        self.cores.lock().push(Core { id: set.text("id").map(str::to_owned), first });
        if running {
            self.tell(partition, HotPlugEvent { kind: DrcType::Cpu, removal: false, index, count: None });
        }
        Ok(())
    }

    // ---- memory ----

    fn plug_dimm(
        &self,
        partition: &Partition,
        set: &OptionSet,
        objects: &[ObjectSpec],
        running: bool,
    ) -> Result<(), OptionError> {
        let fail = |text: String| OptionError::new(set.option(), text);
        let Some(name) = set.text("memdev") else {
            return Err(fail("property 'memdev' is missing: memdev=ID of a memory -object".to_owned()));
        };
        let object = objects.iter().find_map(|o| match o {
            ObjectSpec::Memory { id, size, backing, prealloc } if id == name => {
                Some((*size, backing.clone(), *prealloc))
            }
            _ => None,
        });
        let Some((size, backing, prealloc)) = object else {
            return Err(set.error("memdev", &format!("'{name}': no memory -object has this id")));
        };
        let mut dimms = self.dimms.lock();
        if dimms.iter().any(|d| d.object == name) || partition.options.memory_backend.as_deref() == Some(name) {
            return Err(set.error("memdev", &format!("'{name}': the memory is in use")));
        }
        if size == 0 || size % LMB != 0 {
            return Err(set.error("memdev", &format!("'{name}': {size} bytes: modules have a multiple of 256 MiB")));
        }
        let slot = match set.number("slot").map(|n| n as u32) {
            Some(n) if n >= self.slots => {
                return Err(set.error("slot", &format!("'{n}': there are {} places (-m slots=)", self.slots)));
            }
            Some(n) if dimms.iter().any(|d| d.slot == n) => {
                return Err(set.error("slot", &format!("'{n}': the place is taken")));
            }
            Some(n) => n,
            None => {
                let free = (0..self.slots).find(|n| dimms.iter().all(|d| d.slot != *n));
                free.ok_or_else(|| fail(format!("all {} places for memory are taken (-m slots=)", self.slots)))?
            }
        };
        let range = tree::plug_range(partition.ram.len(), partition.max_ram);
        let count = (size / LMB) as u32;
        let free = |first: u32| {
            let blocks = first..first.saturating_add(count);
            blocks.end <= range.end && blocks.into_iter().all(|n| partition.drcs.is_free(drc::index(DrcType::Lmb, n)))
        };
        let first = match set.number("addr").filter(|a| *a != 0) {
            Some(at) => {
                let first = u32::try_from(at / LMB).unwrap_or(u32::MAX);
                if at % LMB != 0 || first < range.start || !free(first) {
                    let text = format!(
                        "'{at:#x}': expected a multiple of 256 MiB with room for it, from {:#x} on",
                        u64::from(range.start) * LMB
                    );
                    return Err(set.error("addr", &text));
                }
                first
            }
            None => range.clone().find(|n| free(*n)).ok_or_else(|| {
                fail(format!("{size} bytes: there is no room for it below the end of memory (-m maxmem=)"))
            })?,
        };
        let start = u64::from(first) * LMB;
        let label = set.text("id").map_or_else(|| format!("dimm{slot}"), str::to_owned);
        let block =
            RamBlock::new(RamOptions { name: label, len: size, backing, prealloc }).map_err(|e| fail(e.to_string()))?;
        let mapping = self.space.map_ram(Gpa(start), &block, 0, size, 0).map_err(|e| fail(e.to_string()))?;
        partition.ram.add(start, &block);
        for n in first..first + count {
            // They were free, and modules come one at a time.
            let _ = partition.drcs.attach(drc::index(DrcType::Lmb, n), running);
        }
        let id = set.text("id").map(str::to_owned);
        dimms.push(Dimm { id, object: name.to_owned(), slot, start, block, mapping, cold: !running });
        drop(dimms);
        if running {
            let index = drc::index(DrcType::Lmb, first);
            self.tell(partition, HotPlugEvent { kind: DrcType::Lmb, removal: false, index, count: Some(count) });
        }
        Ok(())
    }
    /// Takes a module away if the partition has none of its blocks any more.
    fn release_memory(&self, partition: &Partition, block: u32) {
        let gone = {
            let mut dimms = self.dimms.lock();
            let whole = |d: &Dimm| d.blocks().all(|n| partition.drcs.is_free(drc::index(DrcType::Lmb, n)));
            let place = dimms.iter().position(|d| d.blocks().contains(&block) && whole(d));
            place.map(|n| dimms.remove(n))
        };
        let Some(Dimm { id, start, block, mapping, .. }) = gone else { return };
        partition.ram.remove(start);
        drop(mapping);
        // Processors may be about to use the host's addresses, and their code is known under these: the memory goes when all have
        // left generated code, which the one that calls here waits for as well.
        let accel = self.accel.clone();
        std::thread::spawn(move || {
            accel.flush();
            drop(block);
        });
        if let Some(id) = id {
            self.gone(&id);
        }
    }

    // ---- PCI ----

    /// The host bridge whose root bus a place is on.
    fn bridge_of(&self, slot: &PciSlot) -> Option<Arc<Phb>> {
        self.phbs.list().into_iter().find(|p| Arc::ptr_eq(p.bus(), slot.bus()))
    }
    fn connector_of(&self, slot: &PciSlot) -> Result<(Arc<Phb>, u32), String> {
        let phb = self.bridge_of(slot);
        let phb =
            phb.ok_or_else(|| format!("bus '{}' has no hot-plug: use that of a host bridge", slot.bus().name()))?;
        let index = drc::index(DrcType::Pci, slot_id(phb.index(), slot.devfn().device()));
        Ok((phb, index))
    }
    /// Nodes of the functions in a slot, as ibm,configure-connector tells of them: with addresses.
    pub fn pci_nodes(&self, id: u32) -> Vec<Node> {
        let Some(phb) = self.phbs.list().into_iter().find(|p| p.index() == id >> 16) else { return Vec::new() };
        let list = functions(&phb, (id >> 3 & 31) as u8);
        let mut nodes = Vec::new();
        for function in &list {
            phb.assign(&**function);
            nodes.push(rhea_spapr::function_node(&**function).cell("ibm,my-drc-index", drc::index(DrcType::Pci, id)));
        }
        nodes
    }
    /// The node of a host bridge with its connectors, and those that its functions are at.
    pub fn bridge_tree(&self, phb: &Phb, node: &Node) -> FdtNode {
        let mut node = tree::node(node);
        let Some(partition) = self.partition.upgrade() else { return node };
        partition.drcs.describe(&mut node, |kind, id| kind == DrcType::Pci && id >> 16 == phb.index());
        for child in &mut node.children {
            let unit = child.name.rsplit('@').next().and_then(|u| u.split(',').next());
            if let Some(device) = unit.and_then(|u| u8::from_str_radix(u, 16).ok()) {
                child.u32("ibm,my-drc-index", drc::index(DrcType::Pci, slot_id(phb.index(), device)));
            }
        }
        node
    }
    fn release_slot(&self, id: u32) {
        let Some(phb) = self.phbs.list().into_iter().find(|p| p.index() == id >> 16) else { return };
        let hotplug = self.hotplug.get().and_then(Weak::upgrade);
        for function in functions(&phb, (id >> 3 & 31) as u8).into_iter().rev() {
            phb.bus().detach(function.config().devfn());
            function.reset();
            if let Some(hotplug) = &hotplug {
                hotplug.removed(function);
            }
        }
    }

    fn gone(&self, id: &str) {
        if let Some(hotplug) = self.hotplug.get().and_then(Weak::upgrade) {
            hotplug.removed_other(id);
        }
    }
    /// The partition has given up the resource of a connector.
    pub fn released(&self, index: u32) {
        let Some(partition) = self.partition.upgrade() else { return };
        let id = drc::id(index);
        if index == drc::index(DrcType::Cpu, id) {
            partition.set_core(id, false);
            let name = {
                let mut cores = self.cores.lock();
                let place = cores.iter().position(|c| c.first == id);
                place.and_then(|n| cores.remove(n).id)
            };
            if let Some(name) = name {
                self.gone(&name);
            }
        } else if index == drc::index(DrcType::Lmb, id) {
            self.release_memory(&partition, id);
        } else {
            self.release_slot(id);
        }
    }

    fn unplug_core(&self, first: u32) -> Result<(), String> {
        let partition = self.partition()?;
        if first == 0 {
            return Err("the core that the machine starts with stays".to_owned());
        }
        let index = drc::index(DrcType::Cpu, first);
        match partition.drcs.detach(index) {
            Ok(true) => {
                self.tell(&partition, HotPlugEvent { kind: DrcType::Cpu, removal: true, index, count: None });
                Ok(())
            }
            Ok(false) => {
                self.released(index);
                Ok(())
            }
            Err(_) => Err("there is no such core".to_owned()),
        }
    }
    fn unplug_dimm(&self, blocks: std::ops::Range<u32>) -> Result<(), String> {
        let partition = self.partition()?;
        let index = drc::index(DrcType::Lmb, blocks.start);
        if partition.drcs.unplugging(index) {
            return Err("the guest has been asked for it already".to_owned());
        }
        let mut asked = false;
        for n in blocks.clone() {
            asked |= partition.drcs.detach(drc::index(DrcType::Lmb, n)) == Ok(true);
        }
        if asked {
            let count = Some(blocks.len() as u32);
            self.tell(&partition, HotPlugEvent { kind: DrcType::Lmb, removal: true, index, count });
        } else {
            self.released(index);
        }
        Ok(())
    }
}

/// The number of the connector of a slot on the root bus of a host bridge.
fn slot_id(bridge: u32, device: u8) -> u32 {
    bridge << 16 | u32::from(device) << 3
}

/// The functions of a device, the first one first.
fn functions(phb: &Phb, device: u8) -> Vec<Arc<dyn PciFunction>> {
    (0..8).filter_map(|f| phb.bus().function(Devfn::new(device, f))).collect()
}

impl PlugBoard for Changes {
    fn check(&self, slot: &PciSlot) -> Result<(), String> {
        let (phb, index) = self.connector_of(slot)?;
        let devfn = slot.devfn();
        if phb.bus().function(Devfn::new(devfn.device(), 0)).is_some() {
            return Err(format!("PCI slot {:02x} of bus '{}' is in use", devfn.device(), phb.bus().name()));
        }
        let partition = self.partition()?;
        if !partition.drcs.is_free(index) {
            return Err(format!("the connector of PCI slot {:02x} is in use", devfn.device()));
        }
        Ok(())
    }
    fn insert(&self, function: Arc<dyn PciFunction>) -> Result<(), String> {
        let partition = self.partition()?;
        let (phb, index) = self.connector_of(function.config().slot())?;
        let first = function.config().devfn().function() == 0;
        phb.bus().attach(function).map_err(|e| e.to_string())?;
        // Function 0 completes a device.
        if first && partition.drcs.attach(index, true).is_ok() {
            self.tell(&partition, HotPlugEvent { kind: DrcType::Pci, removal: false, index, count: None });
        }
        Ok(())
    }
    fn eject(&self, function: &Arc<dyn PciFunction>) -> Result<bool, String> {
        let partition = self.partition()?;
        let (_, index) = self.connector_of(function.config().slot())?;
        if partition.drcs.unplugging(index) {
            return Err("the guest has been asked for it already".to_owned());
        }
        match partition.drcs.detach(index) {
            Ok(true) => {
                self.tell(&partition, HotPlugEvent { kind: DrcType::Pci, removal: true, index, count: None });
            }
            // The guest never took it in.
            Ok(false) => self.released(index),
            Err(_) => return Err("there is no function 0 at its slot: it leaves with that".to_owned()),
        }
        Ok(false)
    }
    fn has(&self, driver: &str) -> bool {
        driver == "pc-dimm" || driver.ends_with(CORE)
    }
    fn plug(&self, spec: &DeviceSpec, objects: &[ObjectSpec]) -> Option<Result<(), OptionError>> {
        self.plug_device(spec, objects, true)
    }
    fn unplug(&self, id: &str) -> Option<Result<(), String>> {
        let core = self.cores.lock().iter().find(|c| c.id.as_deref() == Some(id)).map(|c| c.first);
        if let Some(first) = core {
            return Some(self.unplug_core(first).map_err(|e| format!("'{id}': {e}")));
        }
        let blocks = self.dimms.lock().iter().find(|d| d.id.as_deref() == Some(id)).map(Dimm::blocks)?;
        Some(self.unplug_dimm(blocks).map_err(|e| format!("'{id}': {e}")))
    }
    fn uses(&self, object: &str) -> bool {
        self.dimms.lock().iter().any(|d| d.object == object)
    }
    fn processors(&self) -> String {
        let Some(partition) = self.partition.upgrade() else { return String::new() };
        // The name with its version.
        let models = rhea_ppc::models::MODELS.iter();
        let name =
            models.filter(|(_, m)| m.pvr == partition.cpu.pvr).map(|m| m.0).max_by_key(|n| n.len()).unwrap_or("");
        let smp = &partition.smp;
        let mut text = "Hotpluggable CPUs:\n".to_owned();
        let cores = self.cores.lock();
        for first in (0..smp.max_cpus).step_by(smp.threads.max(1) as usize) {
            let _ = write!(text, "  type: \"{name}{CORE}\"\n  vcpus_count: \"{}\"\n", smp.threads);
            if partition.thread(first.into()).is_some() {
                let id = cores.iter().find(|c| c.first == first).and_then(|c| c.id.as_deref()).unwrap_or("");
                let _ = writeln!(text, "  plugged: yes{}{id}", if id.is_empty() { "" } else { ", id=" });
            }
            let _ = writeln!(text, "  CPUInstance Properties:\n    core-id: \"{first}\"");
        }
        text
    }
    fn memory(&self) -> Vec<MemoryModule> {
        let one = |d: &Dimm| MemoryModule {
            id: d.id.clone(),
            object: d.object.clone(),
            slot: d.slot,
            start: d.start,
            size: d.block.len(),
            hotplugged: !d.cold,
        };
        self.dimms.lock().iter().map(one).collect()
    }
    fn connect(&self, hotplug: &Arc<HotPlug>) {
        let _ = self.hotplug.set(Arc::downgrade(hotplug));
    }
}

/// Is it the name of a core?
#[must_use]
pub fn is_core(driver: &str) -> bool {
    driver.strip_suffix(CORE).is_some_and(|model| rhea_ppc::models::parse(model).is_ok())
}
