//! Configuration space of a function (type 0 and type 1 headers): declared registers with write masks, BARs, capabilities.

use crate::intx::IntxPin;
use crate::msi::{self, Msi};
use crate::msix::{Msix, MsixState};
use crate::{BusKind, Devfn, PciSlot};
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_device::LoadError;
use rhea_memory::{AddressSpace, Gpa, MapError, Mapping, MmioDevice, RamBlock};
use std::sync::Arc;

/// Bytes of a function's configuration space.
pub const SIZE: usize = 4096;
pub(crate) const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const HEADER_TYPE: usize = 0x0e;
const BAR0: usize = 0x10;
const EXPANSION_ROM: usize = 0x30;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
const INTERRUPT_PIN: usize = 0x3d;
const FIRST_CAPABILITY: usize = 0x40;

pub(crate) const COMMAND_IO: u16 = 1;
pub(crate) const COMMAND_MEMORY: u16 = 1 << 1;
pub(crate) const COMMAND_MASTER: u16 = 1 << 2;
const COMMAND_INTX_DISABLE: u16 = 1 << 10;
/// I/O, memory, bus master, parity error response, SERR#, interrupt disable.
const COMMAND_MASK: u16 = 0x0547;
const STATUS_INTERRUPT: u32 = 1 << 3;
const STATUS_CAPABILITIES: u8 = 1 << 4;
/// Error bits that software clears by writing ones.
const STATUS_CLEAR: u16 = 0xf900;

// Of type 1 headers (PCI Express base specification 7.5.1.3).
pub(crate) const BUS_NUMBERS: usize = 0x18;
pub(crate) const IO_WINDOW: usize = 0x1c;
const SECONDARY_STATUS: usize = 0x1e;
pub(crate) const MEMORY_WINDOW: usize = 0x20;
pub(crate) const PREFETCHABLE_WINDOW: usize = 0x24;
pub(crate) const BRIDGE_CONTROL: usize = 0x3e;
/// Parity error response, SERR#, ISA, VGA, VGA 16-bit decode, secondary bus reset.
const BRIDGE_CONTROL_MASK: u16 = 0x5f;
/// Offsets in the PCI Express capability (7.5.3).
pub(crate) mod express {
    pub const LINK_CONTROL: usize = 0x10;
    pub const LINK_STATUS: usize = 0x12;
    pub const SLOT_CONTROL: usize = 0x18;
    pub const SLOT_STATUS: usize = 0x1a;
}

/// Who a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub vendor: u16,
    pub device: u16,
    pub revision: u8,
    /// Base class, subclass, programming interface: 24 bits.
    pub class: u32,
    pub subsystem_vendor: u16,
    pub subsystem: u16,
}

/// What a BAR decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    Io,
    Memory32,
    /// Takes two BARs; prefetchable.
    Memory64,
    /// Takes two BARs; not prefetchable: registers that a read may change.
    Registers64,
}

impl BarKind {
    /// Does it take two BARs?
    #[must_use]
    pub fn is_wide(self) -> bool {
        matches!(self, BarKind::Memory64 | BarKind::Registers64)
    }
}

/// The device/port type of the PCI Express capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PcieType {
    Endpoint = 0,
    RootPort = 4,
    UpstreamPort = 5,
    DownstreamPort = 6,
    ToPciBridge = 7,
    RootComplexIntegratedEndpoint = 9,
}

/// What answers behind a BAR.
enum Content {
    Device(Arc<dyn MmioDevice>),
    Ram(Arc<RamBlock>),
    /// What the device maps into a space of its own; the handler answers accesses that are no memory cycles.
    Space(Arc<AddressSpace>, Arc<dyn MmioDevice>),
    /// The expansion ROM, which has a register and an enable bit of its own.
    Rom(Arc<RamBlock>),
}

impl Content {
    fn map(&self, space: &Arc<AddressSpace>, at: Gpa, size: u64) -> Result<Mapping, MapError> {
        match self {
            Self::Device(device) => space.map_mmio(at, size, device.clone(), 1),
            Self::Ram(block) => space.map_ram(at, block, 0, block.len(), 1),
            Self::Space(content, _) => space.map_alias(at, content, Gpa(0), size, 1),
            Self::Rom(block) => space.map_rom(at, block, 0, block.len(), 1),
        }
    }
}

struct Bar {
    index: usize,
    kind: BarKind,
    size: u64,
    content: Content,
    mapping: Option<(u64, Mapping)>,
}

impl Bar {
    /// Number of the expansion ROM in [`PciConfig::mapped_bars`].
    const ROM: usize = 6;

    fn register(&self) -> usize {
        if self.index == Self::ROM { EXPANSION_ROM } else { BAR0 + self.index * 4 }
    }
}

struct Registers {
    bytes: Box<[u8; SIZE]>,
    /// Bits software may write.
    writable: Box<[u8; SIZE]>,
    /// Bits software clears by writing ones.
    clearable: Box<[u8; SIZE]>,
}

/// Saved state of the shared part.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PciConfigState {
    #[n(0)]
    bytes: Vec<u8>,
    #[n(1)]
    msix: Option<MsixState>,
    #[n(2)]
    intx: bool,
    #[n(3)]
    msi_pending: u32,
}

/// Puts a configuration space together.
pub struct ConfigBuilder {
    slot: PciSlot,
    registers: Registers,
    bars: Vec<Bar>,
    next: usize,
    last_pointer: usize,
    pin: Option<IntxPin>,
    msi: Option<(usize, Arc<Msi>)>,
    msix: Option<(usize, Arc<Msix>)>,
    pcie: Option<usize>,
}

/// The registers of a port that is wired to a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRegisters {
    pub capabilities: u32,
    /// Bits of Slot Control that software may write.
    pub control: u16,
}

fn put(bytes: &mut [u8; SIZE], at: usize, data: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + data.len()) {
        place.copy_from_slice(data);
    }
}

impl ConfigBuilder {
    #[must_use]
    pub fn new(identity: Identity, slot: PciSlot) -> Self {
        let zeros = || Box::new([0; SIZE]);
        let mut r = Registers { bytes: zeros(), writable: zeros(), clearable: zeros() };
        let Identity { vendor, device, revision, class, subsystem_vendor, subsystem } = identity;
        put(&mut r.bytes, 0, &vendor.to_le_bytes());
        put(&mut r.bytes, 2, &device.to_le_bytes());
        put(&mut r.bytes, 8, &(class << 8 | u32::from(revision)).to_le_bytes());
        put(&mut r.bytes, 0x2c, &subsystem_vendor.to_le_bytes());
        put(&mut r.bytes, 0x2e, &subsystem.to_le_bytes());
        put(&mut r.writable, COMMAND, &COMMAND_MASK.to_le_bytes());
        put(&mut r.clearable, STATUS, &STATUS_CLEAR.to_le_bytes());
        // Cache line size and interrupt line: scratch for software.
        r.writable[0x0c] = 0xff;
        r.writable[INTERRUPT_LINE] = 0xff;
        Self {
            slot,
            registers: r,
            bars: Vec::new(),
            next: FIRST_CAPABILITY,
            last_pointer: CAPABILITIES,
            pin: None,
            msi: None,
            msix: None,
            pcie: None,
        }
    }
    /// A PCI-to-PCI bridge's (type 1) configuration space: bus numbers, a 16-bit I/O window, a memory window and a 64-bit
    /// prefetchable one, bridge control.
    #[must_use]
    pub fn bridge(identity: Identity, slot: PciSlot) -> Self {
        let mut this = Self::new(identity, slot);
        let r = &mut this.registers;
        r.bytes[HEADER_TYPE] = 1;
        // Firmware may enable masters behind a bridge and not think of the bridge: it forwards until software switches that off.
        put(&mut r.bytes, COMMAND, &COMMAND_MASTER.to_le_bytes());
        // The subsystem ids have a capability of their own.
        put(&mut r.bytes, 0x2c, &[0; 4]);
        put(&mut r.bytes, PREFETCHABLE_WINDOW, &[1, 0, 1, 0]);
        put(&mut r.writable, BUS_NUMBERS, &[0xff; 3]);
        put(&mut r.writable, IO_WINDOW, &[0xf0; 2]);
        put(&mut r.writable, MEMORY_WINDOW, &[0xf0, 0xff, 0xf0, 0xff]);
        put(&mut r.writable, PREFETCHABLE_WINDOW, &[0xf0, 0xff, 0xf0, 0xff]);
        put(&mut r.writable, PREFETCHABLE_WINDOW + 4, &[0xff; 8]);
        put(&mut r.writable, BRIDGE_CONTROL, &BRIDGE_CONTROL_MASK.to_le_bytes());
        put(&mut r.clearable, SECONDARY_STATUS, &STATUS_CLEAR.to_le_bytes());
        this
    }
    /// Declares a register whose bits of `mask` software clears by writing ones.
    #[must_use]
    pub fn clearable(mut self, at: usize, mask: &[u8]) -> Self {
        put(&mut self.registers.clearable, at, mask);
        self
    }
    /// Declares a register of the device's own: its power-on value and the bits software may write.
    #[must_use]
    pub fn register(mut self, at: usize, value: &[u8], writable: &[u8]) -> Self {
        put(&mut self.registers.bytes, at, value);
        put(&mut self.registers.writable, at, writable);
        self
    }
    /// Declares BAR `index` of `size` bytes (rounded up to a power of two), decoded by `handler` with offsets from its start.
    #[must_use]
    pub fn bar(self, index: usize, kind: BarKind, size: u64, handler: Arc<dyn MmioDevice>) -> Self {
        self.add_bar(index, kind, size, Content::Device(handler))
    }
    /// Declares BAR `index`, prefetchable, behind which `block` lies.
    #[must_use]
    pub fn ram_bar(mut self, index: usize, kind: BarKind, block: &Arc<RamBlock>) -> Self {
        self = self.add_bar(index, kind, block.len(), Content::Ram(block.clone()));
        self.registers.bytes[BAR0 + index * 4] |= 8;
        self
    }
    /// Declares BAR `index` that shows `content` from address 0 on, which the device changes at will; `handler` takes accesses to it
    /// that do not come over the memory bus.
    #[must_use]
    pub fn space_bar(
        mut self,
        index: usize,
        (kind, prefetchable): (BarKind, bool),
        size: u64,
        content: &Arc<AddressSpace>,
        handler: Arc<dyn MmioDevice>,
    ) -> Self {
        self = self.add_bar(index, kind, size, Content::Space(content.clone(), handler));
        if kind != BarKind::Io {
            self.registers.bytes[BAR0 + index * 4] =
                self.registers.bytes[BAR0 + index * 4] & !8 | u8::from(prefetchable) << 3;
        }
        self
    }
    /// Declares the expansion ROM.
    fn rom(mut self, image: &Arc<RamBlock>) -> Self {
        let size = image.len().next_power_of_two();
        let mask = !(size - 1) as u32 & 0xffff_f800 | 1;
        put(&mut self.registers.writable, EXPANSION_ROM, &mask.to_le_bytes());
        let (index, kind, content) = (Bar::ROM, BarKind::Memory32, Content::Rom(image.clone()));
        self.bars.push(Bar { index, kind, size, content, mapping: None });
        self
    }
    fn add_bar(mut self, index: usize, kind: BarKind, size: u64, content: Content) -> Self {
        let size = size.max(if kind == BarKind::Io { 4 } else { 16 }).next_power_of_two();
        let at = BAR0 + index * 4;
        let address_mask = !(size - 1);
        let (flags, low_bits) = match kind {
            BarKind::Io => (1, 3),
            BarKind::Memory32 => (0, 15),
            BarKind::Memory64 => (0xc, 15),
            BarKind::Registers64 => (4, 15),
        };
        self.registers.bytes[at] = flags;
        put(&mut self.registers.writable, at, &(address_mask as u32 & !low_bits).to_le_bytes());
        if kind.is_wide() {
            put(&mut self.registers.writable, at + 4, &((address_mask >> 32) as u32).to_le_bytes());
        }
        self.bars.push(Bar { index, kind, size, content, mapping: None });
        self
    }
    /// The capabilities added from now on start at `at` or later, where a device has registers of its own before.
    #[must_use]
    pub fn capabilities_from(mut self, at: usize) -> Self {
        self.next = self.next.max(at.next_multiple_of(4));
        self
    }
    /// Adds a capability: `body` follows id and next pointer, `writable` is its write mask (shorter: the rest is read-only).
    /// Returns the capability's offset through `offset`.
    #[must_use]
    pub fn capability(mut self, id: u8, body: &[u8], writable: &[u8], offset: &mut usize) -> Self {
        let at = self.next;
        *offset = at;
        self.registers.bytes[at] = id;
        put(&mut self.registers.bytes, at + 2, body);
        put(&mut self.registers.writable, at + 2, writable);
        self.registers.bytes[self.last_pointer] = at as u8;
        self.registers.bytes[STATUS] |= STATUS_CAPABILITIES;
        self.last_pointer = at + 1;
        self.next = (at + 2 + body.len()).next_multiple_of(4);
        self
    }
    /// Adds the PCI Express capability, version 2, of an endpoint: as the bus asks for below a port, none on conventional PCI.
    #[must_use]
    pub fn pcie(self, kind: PcieType) -> Self {
        let kind = match self.slot.bus().kind() {
            BusKind::Root => kind,
            BusKind::Link | BusKind::Switch => PcieType::Endpoint,
            BusKind::Pci | BusKind::ExpressPci => return self,
        };
        self.pcie_port(kind, 0, None)
    }
    /// Adds the PCI Express capability of any function; `port` is the link's number.
    #[must_use]
    pub fn pcie_port(mut self, kind: PcieType, port: u8, slot: Option<SlotRegisters>) -> Self {
        let (mut body, mut mask) = ([0; 0x3a], [0; 0x3a]);
        // Offsets are those of the capability less the two bytes before the body.
        body[0] = 2 | (kind as u8) << 4;
        // Device capabilities: role-based error reporting. Device control: error reporting enables, relaxed ordering,
        // payload and read request size, no snoop.
        body[2..6].copy_from_slice(&0x8000u32.to_le_bytes());
        body[6..8].copy_from_slice(&0x2810u16.to_le_bytes());
        mask[6..8].copy_from_slice(&0x78ffu16.to_le_bytes());
        if kind != PcieType::RootComplexIntegratedEndpoint {
            // Link: 2.5 GT/s, one lane.
            body[10..14].copy_from_slice(&(0x11 | u32::from(port) << 24).to_le_bytes());
            body[16..18].copy_from_slice(&0x11u16.to_le_bytes());
        }
        if matches!(kind, PcieType::RootPort | PcieType::DownstreamPort) {
            // The state of the link is reported; software may switch it off. ASPM and clock bits are storage.
            body[12] |= 1 << 4;
            mask[14..16].copy_from_slice(&0x00d8u16.to_le_bytes());
            // Link capabilities 2: 2.5 GT/s. Link control 2: the same target.
            body[42] = 2;
            body[46] = 1;
        }
        if kind == PcieType::RootPort {
            // Root control: errors and power-management events as interrupts, none of which occur.
            mask[26] = 0xf;
        }
        if let Some(slot) = slot {
            body[1] |= 1;
            body[18..22].copy_from_slice(&slot.capabilities.to_le_bytes());
            mask[22..24].copy_from_slice(&slot.control.to_le_bytes());
        }
        let mut at = 0;
        self = self.capability(0x10, &body, &mask, &mut at);
        if slot.is_some() {
            // Attention button, power fault, latch, presence, command completed; link state.
            self = self.clearable(at + express::SLOT_STATUS, &[0x1f, 1]);
        }
        self.pcie = Some(at);
        self
    }
    /// Adds the subsystem ids of a bridge (PCI-to-PCI bridge specification 3.2.4.6).
    #[must_use]
    pub fn subsystem_capability(self, vendor: u16, subsystem: u16) -> Self {
        let ([a, b], [c, d]) = (vendor.to_le_bytes(), subsystem.to_le_bytes());
        self.capability(0x0d, &[0, 0, a, b, c, d], &[], &mut 0)
    }
    /// Adds MSI-X with `vectors` vectors, whose table is the whole of BAR `bar`.
    #[must_use]
    pub fn msix(mut self, bar: usize, vectors: u16) -> Self {
        let msix = Msix::new(self.slot.clone(), vectors);
        let mut body = [0; 10];
        body[0..2].copy_from_slice(&(msix.vectors() - 1).to_le_bytes());
        body[2..6].copy_from_slice(&(bar as u32).to_le_bytes());
        body[6..10].copy_from_slice(&(msix.pba_offset() as u32 | bar as u32).to_le_bytes());
        let mut at = 0;
        self = self.bar(bar, BarKind::Memory32, msix.bar_size(), msix.clone()).capability(
            0x11,
            &body,
            &[0, 0xc0],
            &mut at,
        );
        self.msix = Some((at, msix));
        self
    }
    /// Adds MSI with `1 << log2_vectors` vectors.
    #[must_use]
    pub fn msi(mut self, log2_vectors: u8) -> Self {
        let msi = Msi::new(self.slot.clone(), log2_vectors);
        let (body, mask) = msi.body();
        let mut at = 0;
        self = self.capability(0x05, &body, &mask, &mut at);
        self.msi = Some((at, msi));
        self
    }
    /// Gives the function interrupt pin `pin` (1 = INTA).
    #[must_use]
    pub fn intx(mut self, pin: u8) -> Self {
        self.registers.bytes[INTERRUPT_PIN] = pin;
        self.pin = Some(IntxPin::new(self.slot.intx(), self.slot.devfn().device(), pin));
        self
    }
    #[must_use]
    pub fn build(self) -> PciConfig {
        let this = match self.slot.rom.clone() {
            Some(rom) => {
                let ids = *self.registers.bytes.first_chunk().unwrap_or(&[0; 4]);
                self.rom(rom.block(ids))
            }
            None => self,
        };
        let Self { slot, registers, bars, pin, msi, msix, pcie, .. } = this;
        let initial = registers.bytes.clone();
        PciConfig {
            slot,
            initial,
            registers: Mutex::new(registers),
            bars: Mutex::new(bars),
            pin: pin.map(Arc::new),
            msi,
            msix,
            pcie,
        }
    }
}

/// The shared part of a function.
pub struct PciConfig {
    slot: PciSlot,
    initial: Box<[u8; SIZE]>,
    registers: Mutex<Registers>,
    /// Taken by configuration writes only, so that two of them do not interleave their mapping changes.
    bars: Mutex<Vec<Bar>>,
    pin: Option<Arc<IntxPin>>,
    msi: Option<(usize, Arc<Msi>)>,
    msix: Option<(usize, Arc<Msix>)>,
    /// Where the PCI Express capability is.
    pcie: Option<usize>,
}

fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b))
}

impl PciConfig {
    #[must_use]
    pub fn devfn(&self) -> Devfn {
        self.slot.devfn()
    }
    #[must_use]
    pub fn slot(&self) -> &PciSlot {
        &self.slot
    }
    #[must_use]
    pub fn intx(&self) -> Option<&Arc<IntxPin>> {
        self.pin.as_ref()
    }
    #[must_use]
    pub fn msi(&self) -> Option<&Arc<Msi>> {
        self.msi.as_ref().map(|(_, m)| m)
    }
    #[must_use]
    pub fn msix(&self) -> Option<&Arc<Msix>> {
        self.msix.as_ref().map(|(_, m)| m)
    }
    /// Offset of the PCI Express capability.
    #[must_use]
    pub fn pcie(&self) -> Option<usize> {
        self.pcie
    }
    /// Other functions share the device number.
    pub fn set_multifunction(&self) {
        // Not part of the reset values: it tells of the neighbours.
        self.registers.lock().bytes[HEADER_TYPE] |= 0x80;
    }
    /// Vendor and device, for `info pci`.
    #[must_use]
    pub fn ids(&self) -> (u16, u16) {
        (self.read(0, 2) as u16, self.read(2, 2) as u16)
    }
    /// The mapped BARs: index (6: the expansion ROM), address, size.
    #[must_use]
    pub fn mapped_bars(&self) -> Vec<(usize, u64, u64)> {
        self.bars.lock().iter().filter_map(|b| b.mapping.as_ref().map(|(at, _)| (b.index, *at, b.size))).collect()
    }

    /// All BARs, mapped or not: index (6: the expansion ROM), kind, size.
    #[must_use]
    pub fn declared_bars(&self) -> Vec<(usize, BarKind, u64)> {
        self.bars.lock().iter().map(|b| (b.index, b.kind, b.size)).collect()
    }

    /// Reads 1, 2 or 4 bytes; what lies outside reads as zero.
    #[must_use]
    pub fn read(&self, offset: u16, size: u8) -> u32 {
        let at = usize::from(offset);
        let mut value = {
            let r = self.registers.lock();
            r.bytes.get(at..at + usize::from(size.min(4))).map_or(0, |b| little(b) as u32)
        };
        let covers = |start: usize, len: usize| at < start + len && start < at + usize::from(size);
        if covers(STATUS, 1) && self.pin.as_ref().is_some_and(|p| p.asserted()) {
            value |= if at <= STATUS { STATUS_INTERRUPT << ((STATUS - at) * 8) } else { 0 };
        }
        if let Some((cap, msi)) = &self.msi
            && covers(cap + 0x14, 4)
        {
            let pending = u64::from(msi.pending());
            value = if at >= cap + 0x14 { (pending >> ((at - cap - 0x14) * 8)) as u32 } else { value };
            value &= (u64::from(u32::MAX) >> (32 - 8 * u32::from(size.clamp(1, 4)))) as u32;
        }
        value
    }

    /// Writes 1, 2 or 4 bytes by the write masks, with all side effects.
    pub fn write(&self, offset: u16, size: u8, value: u32) {
        let (at, size) = (usize::from(offset), usize::from(size.min(4)));
        if at + size > SIZE {
            return;
        }
        // Held to the end, so that writes take effect in order; nothing that decodes or maps calls back into configuration space.
        let mut bars = self.bars.lock();
        {
            let r = &mut *self.registers.lock();
            for (i, byte) in value.to_le_bytes()[..size].iter().enumerate() {
                let mask = r.writable[at + i];
                let old = r.bytes[at + i] & !(byte & r.clearable[at + i]);
                r.bytes[at + i] = old & !mask | byte & mask;
            }
        }
        let touches = |start: usize, len: usize| at < start + len && start < at + size;
        if touches(COMMAND, 2) {
            self.apply_command();
        }
        if !bars.is_empty() && (touches(COMMAND, 2) || touches(BAR0, 24) || touches(EXPANSION_ROM, 4)) {
            self.decode(&mut bars);
        }
        if let Some((cap, msix)) = &self.msix
            && touches(cap + 2, 2)
        {
            msix.set_control(self.word(cap + 2));
        }
        if let Some((cap, msi)) = &self.msi
            && touches(*cap, msi::LENGTH + 2)
        {
            self.apply_msi(*cap, msi);
        }
    }
    /// Changes a 16-bit register from the device's side: clears the bits of `clear`, then sets those of `set`; gives what it was.
    pub(crate) fn change_word(&self, at: usize, clear: u16, set: u16) -> u16 {
        let r = &mut *self.registers.lock();
        let Some(bytes) = r.bytes.get_mut(at..at + 2) else { return 0 };
        let old = little(bytes) as u16;
        bytes.copy_from_slice(&(old & !clear | set).to_le_bytes());
        old
    }
    pub(crate) fn word(&self, at: usize) -> u16 {
        self.registers.lock().bytes.get(at..at + 2).map_or(0, |b| little(b) as u16)
    }
    fn apply_msi(&self, cap: usize, msi: &Msi) {
        let mut body = [0; msi::LENGTH];
        if let Some(bytes) = self.registers.lock().bytes.get(cap + 2..cap + 2 + msi::LENGTH) {
            body.copy_from_slice(bytes);
        }
        msi.update(&body);
    }
    fn apply_command(&self) {
        let command = self.word(COMMAND);
        self.slot.dma().set_enabled(command & COMMAND_MASTER != 0);
        if let Some(pin) = &self.pin {
            pin.set_disabled(command & COMMAND_INTX_DISABLE != 0);
        }
    }
    /// Maps each BAR where the registers say.
    fn decode(&self, bars: &mut [Bar]) {
        let command = self.word(COMMAND);
        for bar in bars {
            let at = bar.register();
            let raw = self.registers.lock().bytes.get(at..at + 8).map_or(0, little);
            let command = match &bar.content {
                Content::Rom(_) if raw & 1 == 0 => 0,
                _ => command,
            };
            let low = if bar.index == Bar::ROM { 0xffff_f800 } else { 0xffff_fff0 };
            let (space, on, address, limit): (&Arc<AddressSpace>, _, _, _) = match bar.kind {
                BarKind::Io => (self.slot.bus.io(), command & COMMAND_IO, raw & 0xffff_fffc, 0xffff_ffff),
                BarKind::Memory32 => (self.slot.bus.memory(), command & COMMAND_MEMORY, raw & low, 0xffff_ffff),
                BarKind::Memory64 | BarKind::Registers64 => {
                    (self.slot.bus.memory(), command & COMMAND_MEMORY, raw & !0xf, u64::MAX)
                }
            };
            // Address 0, and the value left by sizing, are "not assigned".
            let last = address.checked_add(bar.size - 1);
            let wanted = (on != 0 && address != 0 && last.is_some_and(|l| l < limit)).then_some(address);
            match (&mut bar.mapping, wanted) {
                (Some((now, _)), Some(there)) if *now == there => (),
                (Some((now, mapping)), Some(there)) => {
                    if mapping.move_to(Gpa(there)).is_ok() {
                        *now = there;
                    }
                }
                (mapping, None) => *mapping = None,
                (mapping @ None, Some(there)) => {
                    *mapping = bar.content.map(space, Gpa(there), bar.size).ok().map(|m| (there, m));
                }
            }
        }
    }
    /// An access to BAR `index` as if it were mapped: its handler, if `offset` and `size` lie inside and a device is there.
    #[must_use]
    pub fn bar_handler(&self, index: usize, offset: u64, size: u64) -> Option<Arc<dyn MmioDevice>> {
        let bars = self.bars.lock();
        let bar = bars.iter().find(|b| b.index == index)?;
        offset.checked_add(size).filter(|end| *end <= bar.size)?;
        match &bar.content {
            Content::Device(device) | Content::Space(_, device) => Some(device.clone()),
            Content::Ram(_) | Content::Rom(_) => None,
        }
    }
    /// Writes read-only registers too (the device's own changes, capability windows).
    pub fn set_bytes(&self, at: usize, data: &[u8]) {
        put(&mut self.registers.lock().bytes, at, data);
    }

    /// [`Self::reset`] that leaves some registers as they are.
    pub fn reset_but(&self, kept: &[std::ops::Range<u16>]) {
        let kept: Vec<_> = {
            let registers = self.registers.lock();
            let part = |r: &std::ops::Range<u16>| registers.bytes.get(usize::from(r.start)..usize::from(r.end));
            kept.iter().filter_map(|r| part(r).map(|bytes| (r.start, bytes.to_vec()))).collect()
        };
        self.reset();
        for (at, bytes) in kept {
            self.set_bytes(at.into(), &bytes);
        }
    }
    /// Power-on state: nothing decoded, no interrupts, no bus mastering.
    pub fn reset(&self) {
        let mut bars = self.bars.lock();
        {
            let mut r = self.registers.lock();
            let multifunction = r.bytes[HEADER_TYPE] & 0x80;
            r.bytes.copy_from_slice(&self.initial[..]);
            r.bytes[HEADER_TYPE] |= multifunction;
        }
        if let Some(pin) = &self.pin {
            pin.set(false);
        }
        if let Some((_, msix)) = &self.msix {
            msix.reset();
        }
        if let Some((_, msi)) = &self.msi {
            msi.reset();
        }
        self.apply_command();
        self.decode(&mut bars);
    }
    #[must_use]
    pub fn save(&self) -> PciConfigState {
        PciConfigState {
            bytes: self.registers.lock().bytes.to_vec(),
            msix: self.msix.as_ref().map(|(_, m)| m.save()),
            intx: self.pin.as_ref().is_some_and(|p| p.asserted()),
            msi_pending: self.msi.as_ref().map_or(0, |(_, m)| m.pending()),
        }
    }
    /// # Errors
    /// The state is not of this function.
    pub fn load(&self, state: PciConfigState) -> Result<(), LoadError> {
        let PciConfigState { bytes, msix, intx, msi_pending } = state;
        let mut bars = self.bars.lock();
        {
            let mut r = self.registers.lock();
            if bytes.len() != SIZE || bytes[..4] != r.bytes[..4] {
                return Err(LoadError::Mismatch("vendor and device of the PCI function".to_owned()));
            }
            r.bytes.copy_from_slice(&bytes);
        }
        match (&self.msix, msix) {
            (Some((cap, m)), Some(state)) => m.load(state, self.word(cap + 2))?,
            (None, None) => (),
            _ => return Err(LoadError::Mismatch("MSI-X capability".to_owned())),
        }
        if let Some((cap, msi)) = &self.msi {
            self.apply_msi(*cap, msi);
            msi.set_pending(msi_pending);
        }
        self.apply_command();
        if let Some(pin) = &self.pin {
            pin.set(intx);
        }
        self.decode(&mut bars);
        Ok(())
    }
}

impl Drop for PciConfig {
    fn drop(&mut self) {
        // Nobody may reach memory through clones of the handle any more.
        self.slot.dma().set_enabled(false);
    }
}
