//! The PCI buses.

use super::Context;
use rhea_control::{Call, Commands, Error, Value, json};
use rhea_pci::{BarKind, PciBus, PciFunction};
use std::sync::Arc;

pub fn register(commands: &mut Commands<Context>) {
    commands.add(&[("query-pci", query), ("x-query-vfio", vfio)]);
}

/// What the class code says: base class and subclass.
fn class(code: u32) -> Option<&'static str> {
    Some(match code {
        0x0100 => "SCSI controller",
        0x0101 => "IDE controller",
        0x0106 => "SATA controller",
        0x0108 => "NVMe controller",
        0x0200 => "Ethernet controller",
        0x0300 => "VGA controller",
        0x0380 => "Display controller",
        0x0600 => "Host bridge",
        0x0601 => "ISA bridge",
        0x0604 => "PCI bridge",
        0x0780 => "Communication controller",
        0x0c03 => "USB controller",
        0x0c05 => "SMBus",
        _ => return None,
    })
}

fn region(f: &dyn PciFunction, n: usize, kind: BarKind, size: u64) -> Value {
    let placed = f.config().mapped_bars().into_iter().find(|(bar, ..)| *bar == n);
    let address = placed.map_or(-1, |(_, start, _)| start as i64);
    let mut entry = json!({"bar": n, "type": "memory", "address": address, "size": size});
    match kind {
        BarKind::Io => entry["type"] = json!("io"),
        BarKind::Memory32 | BarKind::Memory64 | BarKind::Registers64 => {
            entry["prefetch"] = json!(kind == BarKind::Memory64);
            entry["mem_type_64"] = json!(kind.is_wide());
        }
    }
    entry
}

fn function(f: &dyn PciFunction) -> Value {
    let config = f.config();
    let (slot, (vendor, device)) = (config.slot(), config.ids());
    let code = config.read(0x0a, 2);
    let mut class_info = json!({"class": code});
    if let Some(desc) = class(code) {
        class_info["desc"] = json!(desc);
    }
    let mut id = json!({"device": device, "vendor": vendor});
    let secondary = f.secondary();
    if secondary.is_none() {
        id["subsystem-vendor"] = json!(config.read(0x2c, 2));
        id["subsystem"] = json!(config.read(0x2e, 2));
    }
    let regions: Vec<_> = config.declared_bars().into_iter().map(|(n, kind, size)| region(f, n, kind, size)).collect();
    let mut entry = json!({
        "bus": slot.bus().number(),
        "slot": slot.devfn().device(),
        "function": slot.devfn().function(),
        "class_info": class_info,
        "id": id,
        "irq_pin": config.read(0x3d, 1),
        "qdev_id": "",
        "regions": regions,
    });
    if let Some(bus) = secondary {
        entry["pci_bridge"] = json!({
            "bus": {"number": slot.bus().number(), "secondary": bus.number(), "subordinate": bus.subordinate()},
            "devices": functions(bus),
        });
    }
    entry
}

fn functions(bus: &Arc<PciBus>) -> Value {
    bus.functions().iter().map(|f| function(&**f)).collect()
}

fn query(context: &Context, _: &mut Call<'_>) -> Result<Value, Error> {
    let roots = context.machine.inventory().pci();
    Ok(roots.iter().map(|bus| json!({"bus": bus.number(), "devices": functions(bus)})).collect())
}

fn vfio(context: &Context, _: &mut Call<'_>) -> Result<Value, Error> {
    let all = context.machine.inventory().assigned().status();
    let entry = |s: rhea_machine::inventory::AssignedStatus| {
        let counters: Vec<_> = s.counters.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let mut entry = json!({
            "name": s.name,
            "host": s.host,
            "mode": s.mode,
            "end": if s.tells_end { "controller" } else { "access" },
            "shown": s.shown,
            "mapped": s.mapped,
            "counters": counters,
        });
        if let Some((line, input)) = s.route {
            (entry["line"], entry["input"]) = (json!(line), json!(input));
        }
        entry
    };
    Ok(all.into_iter().map(entry).collect())
}
