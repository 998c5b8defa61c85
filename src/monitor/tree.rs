//! `info qtree` and `info mtree`: the devices by their buses, and memory.

use rhea_machine::Machine;
use rhea_machine::inventory::{DeviceEntry, Unit};
use rhea_memory::{AddressSpace, FlatTarget};
use rhea_pci::{BusKind, PciBus};
use std::fmt::Write;
use std::sync::Arc;

/// A tree as text. Writing to a string does not fail.
#[derive(Default)]
struct Tree {
    text: String,
    depth: usize,
}

impl Tree {
    fn line(&mut self, line: &str) {
        let _ = writeln!(self.text, "{:1$}{line}", "", self.depth * 2);
    }
    fn inside(&mut self, f: impl FnOnce(&mut Self)) {
        self.depth += 1;
        f(self);
        self.depth -= 1;
    }
    fn properties(&mut self, entry: &DeviceEntry) {
        for (key, value) in entry.spec.pairs.iter().filter(|(key, _)| !matches!(key.as_str(), "id" | "bus" | "addr")) {
            let value = value.as_deref().unwrap_or("on");
            self.line(&format!("{key} = \"{value}\""));
        }
    }
}

/// What is on no bus of PCI: those that have an id of a bus, by its name.
struct Rest<'a> {
    entries: Vec<&'a DeviceEntry>,
}

/// The bus that a device without `bus=` goes to, of those that are no PCI devices.
fn usual_bus(driver: &str) -> &'static str {
    match driver {
        d if d.starts_with("scsi-") => "scsi.0",
        d if d.starts_with("ide-") => "ide.0",
        d if d.starts_with("usb-") => "usb.0",
        d if d.starts_with("virtserial") || d == "virtconsole" => "virtio-serial0.0",
        _ => "",
    }
}

impl<'a> Rest<'a> {
    fn bus(entry: &'a DeviceEntry) -> &'a str {
        entry.spec.value("bus").unwrap_or_else(|| usual_bus(&entry.spec.driver))
    }
    /// Shows the buses whose names `wanted` takes, and forgets what is on them.
    fn show(&mut self, tree: &mut Tree, wanted: impl Fn(&str) -> bool) {
        while let Some(bus) = self.entries.iter().map(|e| Self::bus(e)).find(|b| !b.is_empty() && wanted(b)) {
            tree.line(&format!("bus: {bus}"));
            tree.inside(|tree| {
                for entry in self.entries.iter().filter(|e| Self::bus(e) == bus) {
                    tree.line(&format!("dev: {}, id \"{}\"", entry.spec.driver, entry.id().unwrap_or("")));
                    tree.inside(|tree| tree.properties(entry));
                }
            });
            self.entries.retain(|e| Self::bus(e) != bus);
        }
    }
}

fn pci(tree: &mut Tree, bus: &Arc<PciBus>, units: &[Unit], all: &[DeviceEntry], rest: &mut Rest<'_>) {
    tree.line(&format!("bus: {}", bus.name()));
    tree.inside(|tree| {
        tree.line(&format!("type {}", if bus.kind() == BusKind::Pci { "PCI" } else { "PCIE" }));
        for function in bus.functions() {
            let config = function.config();
            let id = units.iter().find(|(_, f)| Arc::ptr_eq(f, &function)).and_then(|(id, _)| id.as_deref());
            let entry = all.iter().find(|e| id.is_some() && e.id() == id);
            let kind = function.name().split(['@', ' ']).next().unwrap_or_default();
            let driver = entry.map_or(kind, |e| &e.spec.driver);
            tree.line(&format!("dev: {driver}, id \"{}\"", id.unwrap_or("")));
            tree.inside(|tree| {
                let (vendor, device) = config.ids();
                let place = config.slot().devfn();
                tree.line(&format!("addr = {place}"));
                entry.iter().for_each(|entry| tree.properties(entry));
                let class = config.read(0xa, 2);
                tree.line(&format!(
                    "class {class:04x}, addr {:02x}:{place}, pci id {vendor:04x}:{device:04x}",
                    bus.number()
                ));
                for (n, start, len) in config.mapped_bars() {
                    tree.line(&format!("bar {n}: mem at {start:#x} [{:#x}]", start.wrapping_add(len.wrapping_sub(1))));
                }
                if let Some(behind) = function.secondary() {
                    pci(tree, behind, units, all, rest);
                }
                let own = |bus: &str| id.is_some_and(|id| bus.strip_prefix(id).is_some_and(|n| n.starts_with('.')));
                rest.show(tree, own);
            });
        }
    });
}

/// `info qtree`.
pub fn devices(machine: &Machine) -> String {
    let mut tree = Tree::default();
    let all = machine.inventory().devices();
    let roots = machine.inventory().pci();
    let functions: Vec<_> = roots.iter().flat_map(|bus| bus.all_functions()).collect();
    let units = machine.inventory().units();
    let on_pci = |e: &&DeviceEntry| units.iter().any(|(id, _)| id.is_some() && id.as_deref() == e.id());
    let mut rest = Rest { entries: all.iter().filter(|e| e.chosen && !on_pci(e)).collect() };
    tree.line("bus: main-system-bus");
    tree.inside(|tree| {
        tree.line("type System");
        for device in machine.devices().iter().filter(|d| functions.iter().all(|f| f.name() != d.name())) {
            tree.line(&format!("dev: {}, id \"\"", device.name()));
        }
        roots.iter().for_each(|bus| pci(tree, bus, &units, &all, &mut rest));
        rest.show(tree, |_| true);
    });
    tree.text
}

/// The ranges of a flat view.
pub fn ranges(space: &AddressSpace) -> String {
    let mut text = String::new();
    for range in space.view().ranges() {
        let (kind, name, offset) = match &range.target {
            FlatTarget::Ram(r) => {
                let kind = match (r.writes.is_some(), r.readonly) {
                    (true, _) => "romd",
                    (false, true) => "rom",
                    (false, false) => "ram",
                };
                (kind, r.block.name(), r.offset)
            }
            FlatTarget::Mmio(m) => ("i/o", m.device.name(), m.offset),
        };
        let at = if offset == 0 { String::new() } else { format!(" @{offset:016x}") };
        let (first, last) = (range.range.start, range.range.last());
        let _ = writeln!(text, "  {first:016x}-{last:016x} (prio 0, {kind}): {name}{at}");
    }
    text
}

/// `info mtree -f`.
pub fn flat_views(machine: &Machine) -> String {
    let spaces = [("memory", "system", Some(machine.space())), ("I/O", "io", machine.ports())];
    let mut text = String::new();
    for (n, (name, root, space)) in spaces.iter().enumerate() {
        if let Some(space) = space {
            let _ = writeln!(text, "FlatView #{n}\n AS \"{name}\", root: {root}\n Root memory region: {root}");
            let _ = writeln!(text, "{}", ranges(space));
        }
    }
    text
}
