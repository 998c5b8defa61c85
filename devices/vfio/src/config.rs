//! Configuration space of an assigned function: what the guest sees of the host's.
//!
//! Each byte has bits that are *through*: read from and written to the function. The others are a copy that the guest changes by its
//! own write masks. Capabilities keep their places; those that make no sense for one function of a guest are not in the list.

use rhea_pci::{BusKind, ConfigBuilder, Identity, PciSlot};

/// Bytes of a configuration space.
pub const SIZE: usize = 4096;
const CONVENTIONAL: usize = 256;
pub const COMMAND: usize = 0x04;
pub const STATUS: usize = 0x06;
const CAPABILITY_LIST: u8 = 1 << 4;
const CAPABILITIES: usize = 0x34;
const FIRST: usize = 0x40;

/// Capability ids (PCI Code and ID Assignment Specification, 2).
pub mod id {
    pub const PM: u8 = 0x01;
    pub const MSI: u8 = 0x05;
    pub const EXPRESS: u8 = 0x10;
    pub const MSIX: u8 = 0x11;
    pub const AF: u8 = 0x13;
    pub const ENHANCED_ALLOCATION: u8 = 0x14;
}
/// Extended capabilities that are hidden: what they control belongs to the host or to more than this function.
/// SR-IOV, multicast, address translation, page requests, resizable BARs, PASID, L1 substates, precision time measurement, those of
/// virtual functions, ARI, downstream port containment.
const HIDDEN: &[u16] = &[0x0e, 0x0f, 0x10, 0x12, 0x13, 0x15, 0x1b, 0x1d, 0x1e, 0x1f, 0x24];

/// Registers of the PCI Express capability (PCI Express base specification 7.5.3), from its start.
pub mod express {
    pub const FLAGS: usize = 2;
    pub const DEVICE_CAPABILITIES: usize = 4;
    pub const DEVICE_CONTROL: usize = 8;
    pub const LINK: usize = 0xc;
    pub const LINK_END: usize = 0x14;
    pub const DEVICE_CAPABILITIES_2: usize = 0x24;
    pub const DEVICE_CONTROL_2: usize = 0x28;
    pub const LINK_2: usize = 0x2c;
    pub const END: usize = 0x3c;
    /// In Device Capabilities; in Device Control.
    pub const CAN_RESET: u32 = 1 << 28;
    pub const RESET: u16 = 1 << 15;
}
/// Advanced Features (ECN of 2006): control register, from the capability's start, and its bit.
pub mod advanced {
    pub const CAPABILITIES: usize = 3;
    pub const CONTROL: usize = 4;
    pub const CAN_RESET: u8 = 1 << 1;
    pub const RESET: u8 = 1;
}

/// MSI: where, and what its registers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsiPlace {
    pub at: usize,
    pub wide: bool,
    pub maskable: bool,
    /// log2 of how many vectors there are.
    pub vectors: u8,
}

impl MsiPlace {
    pub fn len(&self) -> usize {
        let data = if self.wide { 12 } else { 8 };
        if self.maskable { data + 12 } else { data + 2 }
    }
    pub fn data(&self) -> usize {
        self.at + if self.wide { 12 } else { 8 }
    }
    pub fn mask(&self) -> Option<usize> {
        self.maskable.then(|| self.data() + 4)
    }
}

/// MSI-X: where it is; BAR and offset of table and of pending bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixPlace {
    pub at: usize,
    pub vectors: u16,
    pub table: (usize, u64),
    pub pending: (usize, u64),
}

/// Where things are.
pub struct Layout {
    pub msi: Option<MsiPlace>,
    pub msix: Option<MsixPlace>,
    pub pm: Option<usize>,
    pub express: Option<usize>,
    pub advanced: Option<usize>,
    /// The guest can reset the function by itself.
    pub function_reset: bool,
    pub interrupt_pin: u8,
    pub through: Box<[u8; SIZE]>,
}

/// What the user wants other than the host has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Overrides {
    pub vendor: Option<u16>,
    pub device: Option<u16>,
    pub subsystem_vendor: Option<u16>,
    pub subsystem: Option<u16>,
}

fn word(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}
fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from(word(bytes, at)) | u32::from(word(bytes, at + 2)) << 16
}

/// The capabilities: id and place of each, in the order of the list. A list that runs in a circle or outside ends there.
pub fn capabilities(bytes: &[u8]) -> Vec<(u8, usize)> {
    let mut list: Vec<(u8, usize)> = Vec::new();
    if bytes.get(STATUS).is_none_or(|s| s & CAPABILITY_LIST == 0) {
        return list;
    }
    let mut at = usize::from(bytes[CAPABILITIES] & !3);
    while at >= FIRST && at + 4 <= CONVENTIONAL.min(bytes.len()) && !list.iter().any(|(_, seen)| *seen == at) {
        list.push((bytes[at], at));
        at = usize::from(bytes[at + 1] & !3);
    }
    list
}

/// The extended capabilities: id, version and place of each.
pub fn extended_capabilities(bytes: &[u8]) -> Vec<(u16, u8, usize)> {
    let mut list: Vec<(u16, u8, usize)> = Vec::new();
    let mut at = CONVENTIONAL;
    while at >= CONVENTIONAL && at + 4 <= bytes.len() && !list.iter().any(|c| c.2 == at) {
        let header = long(bytes, at);
        if header == 0 || header == u32::MAX {
            break;
        }
        list.push((header as u16, (header >> 16 & 15) as u8, at));
        at = (header >> 20) as usize & !3;
    }
    list
}

/// Puts the guest's configuration space together from the host's `bytes`. `msi_vectors`: how many the kernel has (0: no MSI);
/// `resets`: the kernel can reset the function.
pub fn build(
    bytes: &[u8],
    slot: &PciSlot,
    wanted: Overrides,
    msi_vectors: u32,
    msix_vectors: u32,
    resets: bool,
) -> (ConfigBuilder, Layout) {
    let identity = Identity {
        vendor: wanted.vendor.unwrap_or(word(bytes, 0)),
        device: wanted.device.unwrap_or(word(bytes, 2)),
        revision: bytes[8],
        class: long(bytes, 8) >> 8,
        subsystem_vendor: wanted.subsystem_vendor.unwrap_or(word(bytes, 0x2c)),
        subsystem: wanted.subsystem.unwrap_or(word(bytes, 0x2e)),
    };
    let mut layout = Layout {
        msi: None,
        msix: None,
        pm: None,
        express: None,
        advanced: None,
        function_reset: false,
        interrupt_pin: if bytes[0x3d] <= 4 { bytes[0x3d] } else { 0 },
        through: Box::new([0; SIZE]),
    };
    let mut builder = ConfigBuilder::new(identity, slot.clone());
    // The status is the function's, but for the list of capabilities.
    (layout.through[STATUS], layout.through[STATUS + 1]) = (!CAPABILITY_LIST, 0xff);
    let express_bus = slot.bus().kind().is_express();
    let all = capabilities(bytes);
    let shown: Vec<_> = all
        .iter()
        .filter(|(id, _)| match *id {
            id::MSI => msi_vectors > 0,
            id::MSIX => msix_vectors > 0,
            id::EXPRESS => express_bus,
            id::ENHANCED_ALLOCATION => false,
            _ => true,
        })
        .copied()
        .collect();
    // Between and behind capabilities may be registers of the function's own.
    let last = bytes.len().min(CONVENTIONAL);
    layout.through[FIRST..last].fill(0xff);
    for (id, at) in &all {
        if !shown.contains(&(*id, *at)) {
            let end = end_of(&all, *at, last);
            layout.through[*at..end].fill(0);
        }
    }
    let mut pointer = CAPABILITIES;
    for (id, at) in &shown {
        layout.through[*at..*at + 2].fill(0);
        builder = builder.register(pointer, &[*at as u8], &[0]).register(*at, &[*id, 0], &[0, 0]);
        pointer = at + 1;
        let end = end_of(&all, *at, last);
        builder =
            layout.capability(builder, bytes, (*id, *at), end, slot.bus().kind(), (msi_vectors, msix_vectors), resets);
    }
    if !shown.is_empty() {
        builder = builder.register(STATUS, &[CAPABILITY_LIST], &[0]);
    }
    if express_bus && layout.express.is_some() {
        builder = layout.extended(builder, bytes);
    }
    (builder, layout)
}

/// Where a capability ends at the latest: at the next one.
fn end_of(all: &[(u8, usize)], at: usize, last: usize) -> usize {
    all.iter().map(|(_, other)| *other).filter(|other| *other > at).min().unwrap_or(last).min(last)
}

impl Layout {
    /// Makes `len` bytes at `at` a copy of the host's, of which the guest changes what is writable.
    fn copy(&mut self, builder: ConfigBuilder, bytes: &[u8], at: usize, len: usize, writable: &[u8]) -> ConfigBuilder {
        let end = (at + len).min(bytes.len());
        self.through[at..end].fill(0);
        builder.register(at, &bytes[at..end], &writable[..writable.len().min(end - at)])
    }
    fn capability(
        &mut self,
        mut builder: ConfigBuilder,
        bytes: &[u8],
        (id, at): (u8, usize),
        end: usize,
        bus: BusKind,
        (msi_vectors, msix_vectors): (u32, u32),
        resets: bool,
    ) -> ConfigBuilder {
        let body = at + 2;
        let fits = |len: usize| body + len <= end;
        match id {
            // Power states are the guest's alone: the function stays in D0, so that its BARs do.
            id::PM if fits(6) => {
                self.pm = Some(at);
                builder = self.copy(builder, bytes, body, 6, &[0, 0, 3]);
            }
            id::MSI if fits(8) => {
                let control = word(bytes, body);
                let most = msi_vectors.max(1).ilog2().min(5) as u8;
                let place = MsiPlace {
                    at,
                    wide: control & 0x80 != 0,
                    maskable: control & 0x100 != 0,
                    vectors: (control >> 1 & 7).min(most.into()) as u8,
                };
                if !fits(place.len() - 2) {
                    return builder;
                }
                let mut mask = [0; 22];
                mask[0] = 0x71;
                mask[2..6].copy_from_slice(&[0xfc, 0xff, 0xff, 0xff]);
                let data = place.data() - body;
                mask[6..data].fill(0xff);
                mask[data..data + 2].fill(0xff);
                if let Some(masks) = place.mask() {
                    let bits = ((1u64 << (1u32 << place.vectors)) - 1) as u32;
                    mask[masks - body..masks - body + 4].copy_from_slice(&bits.to_le_bytes());
                }
                builder = self.copy(builder, bytes, body, place.len() - 2, &mask);
                let control = control & !0x71 & !0xe | u16::from(place.vectors) << 1;
                builder = builder.register(body, &control.to_le_bytes(), &[0x71, 0]);
                for zero in (body + 2..place.at + place.len()).step_by(2) {
                    builder = builder.register(zero, &[0; 2], &mask[zero - body..zero - body + 2]);
                }
                self.msi = Some(place);
            }
            id::MSIX if fits(10) => {
                let place = |at: usize| (usize::from(bytes[at] & 7), u64::from(long(bytes, at) & !7));
                let vectors = (word(bytes, body) & 0x7ff) + 1;
                let vectors = vectors.min(msix_vectors.min(2048) as u16);
                builder = self.copy(builder, bytes, body, 10, &[]);
                builder = builder.register(body, &(vectors - 1).to_le_bytes(), &[0, 0xc0]);
                self.msix = Some(MsixPlace { at, vectors, table: place(at + 4), pending: place(at + 8) });
            }
            id::EXPRESS if fits(0x12) => builder = self.express(builder, bytes, at, end, bus, resets),
            id::AF if fits(4) => {
                let mut capabilities = bytes[at + advanced::CAPABILITIES];
                if !resets {
                    capabilities &= !advanced::CAN_RESET;
                }
                self.function_reset |= capabilities & advanced::CAN_RESET != 0;
                self.advanced = Some(at);
                builder = self.copy(builder, bytes, body, 2, &[]);
                builder = builder.register(at + advanced::CAPABILITIES, &[capabilities], &[0]);
                self.through[at + advanced::CONTROL] = 0;
            }
            // Vital product data, what is the vendor's, and what is not known here is the function's.
            _ => {}
        }
        builder
    }
    /// As the bus asks for: an integrated endpoint without link on a root bus, an endpoint below a port.
    fn express(
        &mut self,
        mut builder: ConfigBuilder,
        bytes: &[u8],
        at: usize,
        end: usize,
        bus: BusKind,
        resets: bool,
    ) -> ConfigBuilder {
        const KIND: u16 = 0xf0;
        const ENDPOINT: u16 = 0;
        const INTEGRATED: u16 = 9 << 4;
        let len = (end - at).min(express::END);
        builder = self.copy(builder, bytes, at + 2, len - 2, &[]);
        let flags = word(bytes, at + express::FLAGS);
        let kind = match (bus, flags & KIND) {
            (BusKind::Root, _) => INTEGRATED,
            (_, INTEGRATED) => ENDPOINT,
            (_, kind) => kind,
        };
        builder = builder.register(at + express::FLAGS, &(flags & !KIND & !0x100 | kind).to_le_bytes(), &[]);
        let mut capabilities = long(bytes, at + express::DEVICE_CAPABILITIES);
        if !resets {
            capabilities &= !express::CAN_RESET;
        }
        self.function_reset |= capabilities & express::CAN_RESET != 0;
        builder = builder.register(at + express::DEVICE_CAPABILITIES, &capabilities.to_le_bytes(), &[]);
        // Control and status are the function's; the bit that resets it is carried out here.
        self.through[at + express::DEVICE_CONTROL..at + express::DEVICE_CONTROL + 4].fill(0xff);
        self.through[at + express::DEVICE_CONTROL + 1] = !((express::RESET >> 8) as u8);
        let clear = |mut b: ConfigBuilder, range: std::ops::Range<usize>| {
            for n in range.step_by(2).filter(|n| n + 2 <= len) {
                b = b.register(at + n, &[0; 2], &[]);
            }
            b
        };
        match (bus, flags & KIND) {
            (BusKind::Root, _) => {
                builder = clear(builder, express::LINK..express::LINK_END);
                builder = clear(builder, express::LINK_2..express::END);
            }
            (_, INTEGRATED) => {
                // A link at 2.5 GT/s with one lane.
                builder = clear(builder, express::LINK..express::LINK_END);
                builder = builder.register(at + express::LINK, &[0x11, 0, 0, 0], &[]);
                builder = builder.register(at + express::LINK + 6, &[0x11, 0], &[]);
            }
            _ => {}
        }
        if len > express::DEVICE_CONTROL_2 + 2 {
            // Latency tolerance, buffer flushes, ARI forwarding, and atomics' routing are between ports.
            const OF_PORTS: u32 = 1 << 5 | 1 << 6 | 1 << 11 | 3 << 18;
            let more = long(bytes, at + express::DEVICE_CAPABILITIES_2) & !OF_PORTS;
            builder = builder.register(at + express::DEVICE_CAPABILITIES_2, &more.to_le_bytes(), &[]);
            // Completion timeouts.
            self.through[at + express::DEVICE_CONTROL_2] = 0x1f;
            builder = clear(builder, express::DEVICE_CONTROL_2..express::DEVICE_CONTROL_2 + 2);
        }
        self.express = Some(at);
        builder
    }
    /// Extended configuration space, with a list without what is hidden.
    fn extended(&mut self, mut builder: ConfigBuilder, bytes: &[u8]) -> ConfigBuilder {
        let all = extended_capabilities(bytes);
        self.through[CONVENTIONAL..bytes.len().min(SIZE)].fill(0xff);
        for (id, _, at) in &all {
            if HIDDEN.contains(id) {
                let end = all.iter().map(|c| c.2).filter(|other| other > at).min().unwrap_or(bytes.len());
                self.through[*at..end].fill(0);
            }
        }
        let shown: Vec<_> = all.iter().filter(|(id, ..)| !HIDDEN.contains(id)).collect();
        // The list starts at a fixed place: with an entry that says nothing, if what is there is hidden.
        let mut headers: Vec<(usize, u32)> =
            shown.iter().map(|(id, version, at)| (*at, u32::from(*id) | u32::from(*version) << 16)).collect();
        if headers.first().is_none_or(|(at, _)| *at != CONVENTIONAL) {
            headers.insert(0, (CONVENTIONAL, 0));
        }
        for n in 0..headers.len() {
            let next = headers.get(n + 1).map_or(0, |(at, _)| *at as u32);
            let (at, header) = headers[n];
            self.through[at..at + 4].fill(0);
            builder = builder.register(at, &(header | next << 20).to_le_bytes(), &[]);
        }
        builder
    }
    /// The bits of an access that are the function's.
    pub fn through(&self, offset: u16, size: u8) -> u32 {
        let at = usize::from(offset);
        let bytes = self.through.get(at..at + usize::from(size.min(4))).unwrap_or(&[]);
        bytes.iter().rev().fold(0, |mask, b| mask << 8 | u32::from(*b))
    }
}
