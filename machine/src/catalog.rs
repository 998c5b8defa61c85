//! The kinds of devices that there are, whatever crate they are in.

use crate::machine::Architecture;
use rhea_device::OptionDecl;
use rhea_vfio::catalog as vfio;
use rhea_virtio::Transport;

/// A kind of device, by the name that `-device` takes.
#[derive(Clone, Debug)]
pub struct DeviceKind {
    pub name: &'static str,
    pub description: &'static str,
    pub options: Vec<OptionDecl>,
    /// What it is more generally: the bus it belongs to.
    pub parent: &'static str,
}

/// Devices of PCI.
pub const PCI: &str = "pci-device";

/// Devices of the board: name, what it is, properties that `-global` changes.
type Fixed = (&'static str, &'static str, &'static [OptionDecl]);

/// Devices that boards have in any case.
#[must_use]
pub fn fixed_kinds(architecture: Architecture) -> Vec<DeviceKind> {
    const VIRT: &[Fixed] = &[
        ("cfi.pflash01", "flash of the firmware", &[]),
        ("gpex-pcihost", "PCI Express host bridge", &[]),
        ("pl011", "serial port", &[]),
        ("pl031", "clock", &[]),
        ("pl061", "general-purpose input and output", &[]),
        ("virtio-mmio", "place for a virtio device", &[]),
    ];
    let list = match architecture {
        Architecture::X86_64 => crate::q35::CHIPSET,
        Architecture::Aarch64 => VIRT,
        Architecture::Ppc64 => &[],
    };
    let kind = |(name, description, options): &(&'static str, &'static str, &[OptionDecl])| DeviceKind {
        name,
        description,
        options: options.to_vec(),
        parent: "device",
    };
    list.iter().map(kind).collect()
}

/// The devices that machines of an architecture may have.
#[must_use]
pub fn device_kinds(architecture: Architecture) -> Vec<DeviceKind> {
    let kind = |name, description, options, parent| DeviceKind { name, description, options, parent };
    let mut all = Vec::new();
    for d in rhea_virtio::DEVICES {
        match (d.transport, architecture) {
            (Transport::Pci, _) => all.push(kind(d.name, d.description, d.options(), PCI)),
            (Transport::Mmio, Architecture::Aarch64) => {
                all.push(kind(d.name, d.description, d.options(), "virtio-device"));
            }
            (Transport::Mmio, _) => {}
        }
    }
    let port = rhea_virtio::catalog::VIRTCONSOLE_OPTIONS;
    for (name, description) in [("virtconsole", "console port"), ("virtserialport", "named channel")] {
        all.push(kind(name, description, port.to_vec(), "virtio-serial-port"));
    }
    all.extend(rhea_display::DEVICES.iter().map(|d| kind(d.name, d.description, d.options(), PCI)));
    all.extend(rhea_nic::catalog::DEVICES.iter().map(|d| kind(d.name, d.description, d.options(), PCI)));
    all.extend(rhea_pci::catalog::DEVICES.iter().map(|d| kind(d.name, d.description, d.options(), PCI)));
    all.push(kind(vfio::NAME, vfio::DESCRIPTION, vfio::options().to_vec(), PCI));
    for d in rhea_storage::catalog::DEVICES {
        let parent = if d.is_controller() { PCI } else { "ide-device" };
        all.push(kind(d.name, d.description, d.options(), parent));
    }
    for d in rhea_usb::catalog::DEVICES {
        let parent = if d.is_controller() { PCI } else { "usb-device" };
        all.push(kind(d.name, d.description, d.options(), parent));
    }
    match architecture {
        Architecture::X86_64 => {
            all.extend(
                rhea_pc::catalog::DEVICES.iter().map(|d| kind(d.name, d.description, d.options(), "isa-device")),
            );
            let (name, description, options) = crate::q35::TEST_DEVICE;
            all.push(kind(name, description, options.to_vec(), "isa-device"));
            all.push(kind(
                rhea_iommu::NAME,
                rhea_iommu::DESCRIPTION,
                rhea_iommu::declarations().to_vec(),
                "sys-bus-device",
            ));
        }
        Architecture::Ppc64 => {
            for (name, description, options) in crate::pseries::DEVICES {
                all.push(kind(name, description, options.to_vec(), "vio-spapr-device"));
            }
        }
        Architecture::Aarch64 => {}
    }
    all.sort_by_key(|d| d.name);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ() {
        for architecture in [Architecture::Aarch64, Architecture::X86_64, Architecture::Ppc64] {
            let all = device_kinds(architecture);
            assert!(all.windows(2).all(|pair| pair[0].name != pair[1].name));
            assert!(all.iter().any(|d| d.name == "virtio-blk-pci" && d.options.iter().any(|o| o.key == "drive")));
            assert_eq!(all.iter().any(|d| d.name == "isa-serial"), architecture == Architecture::X86_64);
        }
    }
}
