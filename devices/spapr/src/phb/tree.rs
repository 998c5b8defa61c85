//! Device-tree nodes of a host bridge and its functions (IEEE 1275 PCI binding, LoPAPR B.6.5.1.1).

use super::{Phb, Window, msi};
use crate::Node;
use rhea_irqchip::spapr::numbers;
use rhea_pci::{BarKind, PciBus, PciFunction};

/// Space codes of physical addresses.
const IO: u32 = 1;
const MEMORY32: u32 = 2;
const MEMORY64: u32 = 3;
/// Relocatable addresses have the "n" bit clear.
const NOT_RELOCATABLE: u32 = 1 << 31;
const PREFETCHABLE: u32 = 1 << 30;
/// Number of the expansion ROM's register in the list of BARs.
const ROM: usize = 6;

fn range(space: u32, w: Window) -> [u32; 7] {
    let split = |v: u64| [(v >> 32) as u32, v as u32];
    let ([b1, b0], [a1, a0], [s1, s0]) = (split(w.bus), split(w.address), split(w.size));
    [space << 24, b1, b0, a1, a0, s1, s0]
}

/// Generic names (IEEE 1275 recommended practice).
fn generic_name(class: u32) -> &'static str {
    match ((class >> 16) as u8, (class >> 8) as u8) {
        (0x00, 0x01) | (0x03, 0x00) => "vga",
        (0x00, 0x00) => "legacy-device",
        (0x01, 0x00) => "scsi",
        (0x01, 0x01) => "ide",
        (0x01, 0x04) => "raid",
        (0x01, 0x06) => "sata",
        (0x01, 0x07) => "sas",
        (0x01, 0x08) => "nvme",
        (0x01, _) => "mass-storage",
        (0x02, 0x00) => "ethernet",
        (0x02, _) => "network",
        (0x03, _) => "display",
        (0x04, _) => "multimedia-device",
        (0x05, _) => "memory-controller",
        (0x06, 0x00) => "host",
        (0x06, 0x04) => "pci",
        (0x06, _) => "bridge",
        (0x07, _) => "communication-controller",
        (0x08, 0x80) => "system-peripheral",
        (0x0c, 0x03) => "usb",
        (0x0c, _) => "serial-bus",
        _ => "unknown-legacy-device",
    }
}

impl Phb {
    /// The bridge's node. `phandle`: of the interrupt controller; `token`: of an RTAS call by name; `functions`: with nodes of all
    /// functions (firmware that probes itself makes its own).
    #[must_use]
    pub fn tree(&self, phandle: u32, token: &dyn Fn(&str) -> u32, functions: bool) -> Node {
        let mut ranges = Vec::new();
        for (space, window) in [(IO, self.io), (MEMORY32, self.memory32), (MEMORY64, self.memory64)] {
            ranges.extend(range(space, window));
        }
        let mut map = Vec::new();
        for device in 0..32u32 {
            for pin in 0..4u32 {
                map.extend([device << 11, 0, 0, pin + 1, phandle, self.lsi(device + pin), 1]);
            }
        }
        let mut node = Node::new(format!("pci@{:x}", self.buid))
            .text("device_type", "pci")
            .text("compatible", "IBM,Logical_PHB")
            .cell("#address-cells", 3)
            .cell("#size-cells", 2)
            .cell("#interrupt-cells", 1)
            .empty("used-by-rtas")
            .cells("bus-range", &[0, 0xff])
            .longs("reg", &[self.buid, 0])
            .cells("ranges", &ranges)
            .cell("ibm,pci-config-space-type", 1)
            .cell("ibm,pe-total-#msi", numbers::TOTAL - numbers::MSI)
            // Device numbers and pins.
            .cells("interrupt-map-mask", &[0xf800, 0, 0, 7])
            .cells("interrupt-map", &map)
            .text("ibm,loc-code", &format!("PCI.{}", self.index))
            .cell("ibm,#dma-address-cells", 2)
            .cell("ibm,#dma-size-cells", 2);
        if let Some(window) = self.windows.windows().iter().find(|w| w.base() == 0) {
            let size = window.size();
            node = node.cells("ibm,dma-window", &[window.liobn(), 0, 0, (size >> 32) as u32, size as u32]);
        }
        if self.ddw {
            let tokens = ["query", "create", "remove"].map(|what| token(&format!("ibm,{what}-pe-dma-window")));
            node = node
                .cells("ibm,ddw-applicable", &tokens)
                .cells("ibm,ddw-extensions", &[1, token("ibm,reset-pe-dma-window")]);
        }
        if functions {
            node.children = children(&self.bus);
        }
        node
    }
}

fn children(bus: &PciBus) -> Vec<Node> {
    // In Open Firmware trees the last one comes first as often as not; in the order of numbers they are found in that order.
    bus.functions().iter().map(|f| function_node(&**f)).collect()
}

/// The node of a function, with those behind it.
#[must_use]
pub fn function_node(function: &dyn PciFunction) -> Node {
    let config = function.config();
    let devfn = config.devfn();
    let bus = u32::from(config.slot().bus().number());
    let at = bus << 16 | u32::from(devfn.0) << 8;
    let read = |offset, size| function.config_read(offset, size);
    let class = read(8, 4) >> 8;
    let unit = match devfn.function() {
        0 => format!("{:x}", devfn.device()),
        f => format!("{:x},{f:x}", devfn.device()),
    };
    let bridge = function.secondary();
    let mut reg = vec![at, 0, 0, 0, 0];
    let mut assigned = Vec::new();
    let mapped = config.mapped_bars();
    for (index, kind, size) in config.declared_bars() {
        let register = if index == ROM { 0x30 } else { 0x10 + 4 * index as u32 };
        let space = match kind {
            BarKind::Io => IO << 24,
            BarKind::Memory32 => MEMORY32 << 24,
            BarKind::Memory64 => MEMORY64 << 24 | PREFETCHABLE,
            BarKind::Registers64 => MEMORY64 << 24,
        };
        let high = at | register | space;
        reg.extend([high, 0, 0, (size >> 32) as u32, size as u32]);
        if let Some((_, address, size)) = mapped.iter().find(|(n, ..)| *n == index) {
            let [a1, a0] = [(address >> 32) as u32, *address as u32];
            assigned.extend([high | NOT_RELOCATABLE, a1, a0, (size >> 32) as u32, *size as u32]);
        }
    }
    let (msi, msix) = msi::capacity(function);
    let mut node = Node::new(format!("{}@{unit}", generic_name(class)))
        .cells("reg", &reg)
        .cell("vendor-id", read(0, 2))
        .cell("device-id", read(2, 2))
        .cell("revision-id", read(8, 1))
        .cell("class-code", class)
        .cell("cache-line-size", read(0xc, 1))
        .cell("devsel-speed", read(6, 2) >> 9 & 3)
        .cell("#address-cells", 3)
        .cell("#size-cells", 2)
        .cell("ibm,pci-config-space-type", 1)
        .text("ibm,loc-code", &format!("pci:{bus:02x}:{devfn}"));
    if !assigned.is_empty() {
        node = node.cells("assigned-addresses", &assigned);
    }
    if let Some(bridge) = bridge {
        let (first, last) = (bridge.number().into(), bridge.subordinate().into());
        node = node.text("device_type", "pci").cells("bus-range", &[first, last]);
        node.children = children(bridge);
    } else {
        node = node.cell("subsystem-vendor-id", read(0x2c, 2)).cell("subsystem-id", read(0x2e, 2));
    }
    let pin = read(0x3d, 1);
    if pin != 0 {
        node = node.cell("interrupts", pin);
    }
    if msi != 0 {
        node = node.cell("ibm,req#msi", msi);
    }
    if msix != 0 {
        node = node.cell("ibm,req#msi-x", msix);
    }
    node
}
