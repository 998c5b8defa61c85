//! The names of `-device`, their properties, and how a device is made of them.

use crate::balloon::Balloon;
use crate::blk::{Blk, BlkOptions};
use crate::console::{self, Console};
use crate::core::VirtioDevice;
use crate::features;
use crate::net::{Net, NetOptions};
use crate::rng::Rng;
use rhea_block::Drive;
use rhea_device::options::{OptionDecl, OptionError, OptionKind, OptionSet};
use rhea_net::NetBackend;
use std::path::Path;
use std::sync::Arc;

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    Blk,
    Net,
    Serial,
    Rng,
    Balloon,
}

/// How it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Pci,
    Mmio,
}

/// A name of `-device`.
#[derive(Clone, Copy, Debug)]
pub struct DeviceType {
    pub name: &'static str,
    pub model: Model,
    pub transport: Transport,
    pub description: &'static str,
}

const fn device(name: &'static str, model: Model, transport: Transport, description: &'static str) -> DeviceType {
    DeviceType { name, model, transport, description }
}

/// All names.
pub const DEVICES: &[DeviceType] = &[
    device("virtio-balloon-device", Model::Balloon, Transport::Mmio, "memory balloon"),
    device("virtio-balloon-pci", Model::Balloon, Transport::Pci, "memory balloon"),
    device("virtio-balloon-pci-non-transitional", Model::Balloon, Transport::Pci, "memory balloon, modern only"),
    device("virtio-blk-device", Model::Blk, Transport::Mmio, "block device"),
    device("virtio-blk-pci", Model::Blk, Transport::Pci, "block device"),
    device("virtio-blk-pci-non-transitional", Model::Blk, Transport::Pci, "block device, modern only"),
    device("virtio-net-device", Model::Net, Transport::Mmio, "network device"),
    device("virtio-net-pci", Model::Net, Transport::Pci, "network device"),
    device("virtio-net-pci-non-transitional", Model::Net, Transport::Pci, "network device, modern only"),
    device("virtio-rng-device", Model::Rng, Transport::Mmio, "entropy device"),
    device("virtio-rng-pci", Model::Rng, Transport::Pci, "entropy device"),
    device("virtio-rng-pci-non-transitional", Model::Rng, Transport::Pci, "entropy device, modern only"),
    device("virtio-serial-device", Model::Serial, Transport::Mmio, "console bus for virtconsole and virtserialport"),
    device("virtio-serial-pci", Model::Serial, Transport::Pci, "console bus for virtconsole and virtserialport"),
    device("virtio-serial-pci-non-transitional", Model::Serial, Transport::Pci, "console bus, modern only"),
];

/// The properties of `virtconsole` and `virtserialport`.
pub const VIRTCONSOLE_OPTIONS: &[OptionDecl] = &[
    OptionDecl::new("id", OptionKind::Text, None, "name"),
    OptionDecl::new("bus", OptionKind::Text, None, "console bus to sit on"),
    OptionDecl::new("chardev", OptionKind::Text, None, "character back end"),
    OptionDecl::new("name", OptionKind::Text, None, "port name"),
    OptionDecl::new("nr", OptionKind::Number { min: 0, max: 30 }, None, "port number"),
];

const SIZES: OptionKind = OptionKind::Number { min: 4, max: 1024 };
const BLOCK_SIZES: OptionKind = OptionKind::Number { min: 512, max: 65536 };

const COMMON: &[OptionDecl] = &[
    OptionDecl::new("id", OptionKind::Text, None, "name"),
    OptionDecl::new("bus", OptionKind::Text, None, "bus to sit on"),
    OptionDecl::new("packed", OptionKind::Bool, Some("off"), "offer packed rings"),
    OptionDecl::new("indirect_desc", OptionKind::Bool, Some("on"), "offer indirect descriptors"),
    OptionDecl::new("event_idx", OptionKind::Bool, Some("on"), "offer event indices"),
];
const PCI: &[OptionDecl] = &[
    OptionDecl::new("addr", OptionKind::Text, None, "slot and function, like 03.0"),
    OptionDecl::new("multifunction", OptionKind::Bool, Some("off"), "other functions share the slot"),
    OptionDecl::new(
        "disable-legacy",
        OptionKind::Choice(&["auto", "on", "true"]),
        Some("auto"),
        "the legacy interface is never there",
    ),
    OptionDecl::new(
        "disable-modern",
        OptionKind::Choice(&["off", "false"]),
        Some("off"),
        "the modern interface is always there",
    ),
    OptionDecl::new("iommu_platform", OptionKind::Bool, Some("off"), "addresses are those that an IOMMU translates"),
    OptionDecl::new("romfile", OptionKind::Text, None, "file of the expansion ROM, none if empty"),
    OptionDecl::new("rombar", OptionKind::Number { min: 0, max: 1 }, Some("1"), "whether the ROM is there"),
    OptionDecl::new("vectors", OptionKind::Number { min: 1, max: 2048 }, None, "MSI-X vectors"),
];
const BLK: &[OptionDecl] = &[
    OptionDecl::new("drive", OptionKind::Text, None, "id of the drive"),
    rhea_block::DEVICE_ERRORS[0],
    rhea_block::DEVICE_ERRORS[1],
    OptionDecl::new("bootindex", OptionKind::Number { min: 0, max: 0x7fff_ffff }, None, "boot order"),
    OptionDecl::new("serial", OptionKind::Text, Some(""), "serial number, at most 20 bytes"),
    OptionDecl::new("num-queues", OptionKind::Number { min: 1, max: 1024 }, None, "request queues"),
    OptionDecl::new("queue-size", SIZES, Some("256"), "entries of a queue, a power of two"),
    OptionDecl::new("write-cache", OptionKind::Bool, None, "volatile write cache"),
    OptionDecl::new("config-wce", OptionKind::Bool, Some("on"), "the guest may switch the write cache"),
    OptionDecl::new("discard", OptionKind::Bool, Some("on"), "offer discard"),
    OptionDecl::new("write-zeroes", OptionKind::Bool, Some("on"), "offer write zeroes"),
    OptionDecl::new("logical_block_size", BLOCK_SIZES, None, "bytes, a power of two"),
    OptionDecl::new("physical_block_size", BLOCK_SIZES, None, "bytes, a power of two"),
];
const NET: &[OptionDecl] = &[
    OptionDecl::new("netdev", OptionKind::Text, None, "id of the network back end"),
    OptionDecl::new("bootindex", OptionKind::Number { min: 0, max: 0x7fff_ffff }, None, "boot order"),
    OptionDecl::new("mac", OptionKind::Mac, None, "address"),
    OptionDecl::new("rx_queue_size", OptionKind::Number { min: 64, max: 1024 }, Some("256"), "entries, a power of two"),
    OptionDecl::new("tx_queue_size", OptionKind::Number { min: 64, max: 1024 }, Some("256"), "entries, a power of two"),
    OptionDecl::new("mrg_rxbuf", OptionKind::Bool, Some("on"), "offer mergeable receive buffers"),
    OptionDecl::new("ctrl_vq", OptionKind::Bool, Some("on"), "offer the control queue"),
    OptionDecl::new("csum", OptionKind::Bool, Some("on"), "offer checksum and segmentation offloads"),
    OptionDecl::new("host_mtu", OptionKind::Number { min: 0, max: 65535 }, Some("0"), "MTU told to the guest, 0: none"),
    OptionDecl::new("mq", OptionKind::Choice(&["off", "false"]), Some("off"), "one queue pair"),
];
const RNG: &[OptionDecl] = &[
    OptionDecl::new("rng", OptionKind::Text, None, "id of the entropy back end"),
    OptionDecl::new("max-bytes", OptionKind::Number { min: 1, max: u64::MAX }, None, "rate limit: none"),
];
const SERIAL: &[OptionDecl] =
    &[OptionDecl::new("max_ports", OptionKind::Number { min: 1, max: 31 }, Some("31"), "ports at most")];
const BALLOON: &[OptionDecl] = &[
    OptionDecl::new("deflate-on-oom", OptionKind::Bool, Some("off"), "the guest may take pages back"),
    OptionDecl::new("free-page-reporting", OptionKind::Bool, Some("off"), "the guest tells of pages it does not use"),
];

/// What the machine found for the ids in a device's properties.
#[derive(Clone, Default)]
pub struct Resources {
    /// For `drive=`.
    pub drive: Option<Arc<Drive>>,
    /// For `netdev=`.
    pub net: Option<Arc<dyn NetBackend>>,
    /// Used if `mac=` is absent.
    pub mac: [u8; 6],
    /// File of `rng=`; none: the host's generator.
    pub entropy: Option<std::path::PathBuf>,
    /// Used if `num-queues=` is absent; 0 counts as 1.
    pub vcpus: u16,
}

/// A device just made; the machine keeps what it needs to connect or control.
#[derive(Clone)]
pub enum Made {
    Blk(Arc<Blk>),
    Net(Arc<Net>),
    Serial(Arc<Console>),
    Rng(Arc<Rng>),
    Balloon(Arc<Balloon>),
}

impl Made {
    #[must_use]
    pub fn device(&self) -> Arc<dyn VirtioDevice> {
        match self {
            Self::Blk(d) => d.clone(),
            Self::Net(d) => d.clone(),
            Self::Serial(d) => d.clone(),
            Self::Rng(d) => d.clone(),
            Self::Balloon(d) => d.clone(),
        }
    }
}

/// The type called `name`; `virtio-blk` and the like are the PCI ones.
#[must_use]
pub fn find(name: &str) -> Option<&'static DeviceType> {
    DEVICES
        .iter()
        .find(|d| d.name == name)
        .or_else(|| DEVICES.iter().find(|d| d.transport == Transport::Pci && d.name.strip_suffix("-pci") == Some(name)))
}

fn power_of_two(set: &OptionSet, key: &str, default: u16) -> Result<u16, OptionError> {
    match set.number(key).map(u16::try_from) {
        None => Ok(default),
        Some(Ok(n)) if n.is_power_of_two() => Ok(n),
        Some(_) => Err(set.error(key, "must be a power of two")),
    }
}

impl DeviceType {
    /// The properties, for parsing and for `-device NAME,help`.
    #[must_use]
    pub fn options(&self) -> Vec<OptionDecl> {
        let own = match self.model {
            Model::Blk => BLK,
            Model::Net => NET,
            Model::Serial => SERIAL,
            Model::Rng => RNG,
            Model::Balloon => BALLOON,
        };
        let bus = if self.transport == Transport::Pci { PCI } else { &[] };
        [COMMON, bus, own].concat()
    }
    /// Makes the device of parsed properties.
    ///
    /// # Errors
    /// A property is missing or impossible.
    pub fn make(&self, set: &OptionSet, resources: &Resources) -> Result<Made, OptionError> {
        Ok(match self.model {
            Model::Blk => {
                let Some(drive) = resources.drive.clone() else {
                    return Err(set.error("drive", "property is missing: give drive=ID of a -drive if=none,id=ID"));
                };
                let serial = set.text("serial").unwrap_or_default().to_owned();
                if serial.len() > 20 {
                    return Err(set.error("serial", "longer than 20 bytes"));
                }
                let block_size = |key: &str| match set.number(key).map(u32::try_from) {
                    None => Ok(0),
                    Some(Ok(n)) if n.is_power_of_two() => Ok(n),
                    Some(_) => Err(set.error(key, "must be a power of two")),
                };
                let queues =
                    set.number("num-queues").and_then(|n| u16::try_from(n).ok()).unwrap_or(resources.vcpus).max(1);
                Made::Blk(Blk::new(
                    drive,
                    BlkOptions {
                        serial,
                        queues,
                        queue_size: power_of_two(set, "queue-size", 256)?,
                        config_wce: set.bool("config-wce"),
                        write_cache: set.given("write-cache").then(|| set.bool("write-cache")),
                        discard: set.bool("discard"),
                        write_zeroes: set.bool("write-zeroes"),
                        logical_block_size: block_size("logical_block_size")?,
                        physical_block_size: block_size("physical_block_size")?,
                    },
                ))
            }
            Model::Net => {
                let Some(net) = resources.net.clone() else {
                    return Err(set.error("netdev", "property is missing: give netdev=ID of a -netdev ...,id=ID"));
                };
                let mac = set.mac("mac").unwrap_or(resources.mac);
                if mac[0] & 1 != 0 {
                    return Err(set.error("mac", "is a multicast address"));
                }
                Made::Net(Net::new(
                    net,
                    NetOptions {
                        mac,
                        rx_queue_size: power_of_two(set, "rx_queue_size", 256)?,
                        tx_queue_size: power_of_two(set, "tx_queue_size", 256)?,
                        mergeable: set.bool("mrg_rxbuf"),
                        control: set.bool("ctrl_vq"),
                        offloads: set.bool("csum"),
                        mtu: set.number("host_mtu").and_then(|n| u16::try_from(n).ok()).unwrap_or(0),
                    },
                ))
            }
            Model::Serial => Made::Serial(Console::new(
                set.number("max_ports").and_then(|n| u32::try_from(n).ok()).unwrap_or(console::MAX_PORTS),
            )),
            Model::Rng => {
                if set.given("max-bytes") {
                    return Err(set.error("max-bytes", "a rate limit is not supported"));
                }
                let path = resources.entropy.as_deref();
                Made::Rng(Rng::new(path).map_err(|e| {
                    set.error(
                        "rng",
                        &format!("cannot open '{}': {e}", path.unwrap_or(Path::new("/dev/urandom")).display()),
                    )
                })?)
            }
            Model::Balloon => Made::Balloon(Balloon::new(set.bool("deflate-on-oom"), set.bool("free-page-reporting"))),
        })
    }
    /// The ring features the properties ask for, for the transport's constructor.
    #[must_use]
    pub fn ring_features(set: &OptionSet) -> u64 {
        [
            ("packed", features::RING_PACKED),
            ("indirect_desc", features::INDIRECT_DESC),
            ("event_idx", features::EVENT_IDX),
            ("iommu_platform", features::ACCESS_PLATFORM),
        ]
        .into_iter()
        .fold(0, |all, (key, bit)| if set.bool(key) { all | bit } else { all })
    }
}
