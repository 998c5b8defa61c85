//! The devices of `-device` by name, and their help.

use rhea_device::options;
use rhea_vfio::catalog as vfio;
use rhea_virtio::{DEVICES, Transport, catalog};

pub use rhea_usb::catalog::USB_DEVICE;

/// The text of `-device help`.
#[must_use]
pub fn help() -> String {
    let mut text = String::new();
    for transport in [Transport::Pci, Transport::Mmio] {
        text.push_str(if transport == Transport::Pci { "PCI devices:\n" } else { "virtio-mmio devices:\n" });
        for d in DEVICES.iter().filter(|d| d.transport == transport) {
            text.push_str(&format!("name \"{}\", desc \"{}\"\n", d.name, d.description));
        }
    }
    text.push_str("Displays (PCI):\n");
    for d in rhea_display::DEVICES {
        text.push_str(&format!("name \"{}\", desc \"{}\"\n", d.name, d.description));
    }
    text.push_str("ISA devices:\n");
    for d in rhea_pc::catalog::DEVICES {
        text.push_str(&format!("name \"{}\", desc \"{}\"\n", d.name, d.description));
    }
    let (name, description, _) = crate::q35::TEST_DEVICE;
    text.push_str(&format!("name \"{name}\", desc \"{description}\"\n"));
    text.push_str("Devices of pseries:\n");
    for (name, description, _) in crate::pseries::DEVICES {
        text.push_str(&format!("name \"{name}\", desc \"{description}\"\n"));
    }
    text.push_str("Storage:\n");
    for d in rhea_storage::catalog::DEVICES {
        text.push_str(&format!("name \"{}\", desc \"{}\"\n", d.name, d.description));
    }
    text.push_str("Network (PCI):\n");
    for d in rhea_nic::catalog::DEVICES {
        text.push_str(&format!("name \"{}\", desc \"{}\"\n", d.name, d.description));
    }
    text.push_str("Bridges and other (PCI):\n");
    for d in rhea_pci::catalog::DEVICES {
        text.push_str(&format!("name \"{}\", desc \"{}\"\n", d.name, d.description));
    }
    text.push_str(&format!("name \"{}\", desc \"{}\"\n", vfio::NAME, vfio::DESCRIPTION));
    text.push_str("USB:\n");
    for d in rhea_usb::catalog::DEVICES {
        text.push_str(&format!("name \"{}\", desc \"{}\"\n", d.name, d.description));
    }
    text.push_str(&format!("IOMMU:\nname \"{}\", desc \"{}\"\n", rhea_iommu::NAME, rhea_iommu::DESCRIPTION));
    text.push_str("Ports of a virtio-serial device:\nname \"virtconsole\", desc \"console port\"\nname \"virtserialport\", desc \"named channel\"\n");
    text
}

/// The text of `-device NAME,help`.
#[must_use]
pub fn help_of(name: &str) -> Option<String> {
    if matches!(name, "virtconsole" | "virtserialport") {
        return Some(options::help(name, catalog::VIRTCONSOLE_OPTIONS));
    }
    if let Some(d) = rhea_display::find(name) {
        return Some(options::help(d.name, &d.options()));
    }
    if let Some(d) = rhea_pc::catalog::find(name) {
        return Some(options::help(d.name, &d.options()));
    }
    if name == crate::q35::TEST_DEVICE.0 {
        return Some(options::help(name, crate::q35::TEST_DEVICE.2));
    }
    if let Some((name, _, decls)) = crate::pseries::DEVICES.iter().find(|d| d.0 == name) {
        return Some(options::help(name, decls));
    }
    if crate::pseries::hotplug::is_core(name) {
        return Some(options::help(name, crate::pseries::hotplug::CORE_OPTIONS));
    }
    if let Some(d) = rhea_storage::catalog::find(name) {
        return Some(options::help(d.name, &d.options()));
    }
    if let Some(d) = rhea_nic::catalog::find(name) {
        return Some(options::help(d.name, &d.options()));
    }
    if name == rhea_iommu::NAME {
        return Some(options::help(name, rhea_iommu::declarations()));
    }
    if let Some(d) = rhea_pci::catalog::find(name) {
        return Some(options::help(d.name, &d.options()));
    }
    if name == vfio::NAME {
        return Some(options::help(name, vfio::options()));
    }
    if let Some(d) = rhea_usb::catalog::find(name) {
        return Some(options::help(d.name, &d.options()));
    }
    catalog::find(name).map(|d| options::help(d.name, &d.options()))
}

/// The text of `-netdev help`.
#[must_use]
pub fn netdev_help() -> String {
    "Available netdev backend types:\nuser\ntap\n".to_owned()
}

/// The text of `-nic help`.
#[must_use]
pub fn nic_help() -> String {
    "Available NIC models (model=):\ne1000e (default on q35)\nvirtio-net-pci (also called virtio)\nvirtio-net-device\nAvailable back ends:\nnone\nuser\ntap\n".to_owned()
}
