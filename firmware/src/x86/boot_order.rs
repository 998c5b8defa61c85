//! The paths by which firmware knows boot devices (Open Firmware's PCI Bus Binding), for the file `bootorder`.

/// Unit names below a controller.
pub mod unit {
    /// The disk of a SCSI-like controller.
    pub const DISK: &str = "disk@0,0";
    pub const NETWORK: &str = "ethernet-phy@0";
    /// The first namespace of an NVMe controller.
    pub const NVME: &str = "namespace@1,0";

    /// The disk or CD-ROM at an AHCI port.
    #[must_use]
    pub fn ahci(port: u8) -> String {
        format!("drive@{port:x}/disk@0")
    }
    /// A mass storage device at a USB root port, counted from 1.
    #[must_use]
    pub fn usb_storage(port: u8) -> String {
        format!("storage@{port:x}/channel@0/disk@0,0")
    }
}

/// The name of a PCI function: that of its class (base class and subclass) if the binding has one, else its ids.
#[must_use]
pub fn pci_node(class: u16, vendor: u16, device_id: u16, device: u8, function: u8) -> String {
    let name = match class {
        0x0100 => "scsi",
        0x0101 => "ide",
        0x0104 => "raid",
        0x0200 => "ethernet",
        0x0300 => "display",
        0x0604 => "pci-bridge",
        0x0c03 => "usb",
        _ => "",
    };
    let name = if name.is_empty() { format!("pci{vendor:x},{device_id:x}") } else { name.to_owned() };
    match function {
        0 => format!("{name}@{device:x}"),
        _ => format!("{name}@{device:x},{function:x}"),
    }
}

/// The whole path of a unit of a function on the root bus, or behind the bridges that come first in `nodes`.
#[must_use]
pub fn pci_path(nodes: &[String], unit: &str) -> String {
    format!("/pci@i0cf8/{}/{unit}", nodes.join("/"))
}

/// The paths by ascending boot index.
#[must_use]
pub fn sorted(mut entries: Vec<(u64, String)>) -> Vec<String> {
    entries.sort();
    entries.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let disk = pci_path(&[pci_node(0x0100, 0x1af4, 0x1042, 3, 0)], unit::DISK);
        assert_eq!(disk, "/pci@i0cf8/scsi@3/disk@0,0");
        let ahci = pci_path(&[pci_node(0x0106, 0x8086, 0x2922, 0x1f, 2)], &unit::ahci(1));
        assert_eq!(ahci, "/pci@i0cf8/pci8086,2922@1f,2/drive@1/disk@0");
        let bridge = pci_node(0x0604, 0x1b36, 0xc, 2, 0);
        let nic = pci_path(&[bridge, pci_node(0x0200, 0x1af4, 0x1041, 0, 0)], unit::NETWORK);
        assert_eq!(nic, "/pci@i0cf8/pci-bridge@2/ethernet@0/ethernet-phy@0");
        assert_eq!(sorted(vec![(2, disk.clone()), (1, ahci.clone())]), [ahci, disk]);
    }
}
