//! The PCI hierarchy as the board sees it: its description, the paths of boot devices.

use rhea_firmware::x86::boot_order;
use rhea_pci::{PciBus, PciFunction};
use std::fmt::Write;
use std::sync::Arc;

/// The functions of all buses with what they decode, for `info pci`.
pub fn describe(root: &Arc<PciBus>) -> String {
    let mut text = String::new();
    for f in root.all_functions() {
        let config = f.config();
        let ((vendor, device), slot) = (config.ids(), config.slot());
        let bus = slot.bus().number();
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {bus:02x}:{}: {} [{vendor:04x}:{device:04x}]", slot.devfn(), f.name());
        if let Some(behind) = f.secondary() {
            let (name, first, last) = (behind.name(), behind.number(), behind.subordinate());
            let _ = writeln!(text, "      bus '{name}': secondary {first:#x}, subordinate {last:#x}");
        }
        for (n, start, len) in config.mapped_bars() {
            let _ = writeln!(text, "      BAR{n}: memory at {start:#x} [{:#x}]", start + len.wrapping_sub(1));
        }
    }
    text
}

/// The path by which firmware knows a unit of `function`.
pub fn boot_path(function: &dyn PciFunction, unit: &str) -> String {
    let ((vendor, device), mut slot) = (function.config().ids(), function.config().slot());
    let node = |class, vendor, device, slot: &rhea_pci::PciSlot| {
        boot_order::pci_node(class, vendor, device, slot.devfn().device(), slot.devfn().function())
    };
    let mut nodes = vec![node(function.config().read(0xa, 2) as u16, vendor, device, slot)];
    while let Some(bridge) = slot.bus().upstream() {
        const BRIDGE: u16 = 0x0604;
        nodes.push(node(BRIDGE, 0, 0, bridge));
        slot = bridge;
    }
    nodes.reverse();
    boot_order::pci_path(&nodes, unit)
}
