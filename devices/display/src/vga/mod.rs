//! The VGA with the Bochs display interface: registers, memory and scan-out, however they are reached.

pub mod dispi;
pub mod memory;
pub mod ports;
pub mod scan;
pub mod state;
#[cfg(test)]
mod tests;

use crate::console::{Blink, Display};
use crate::edid::{self, Edid};
use crate::{ByteOrder, Surface};
use dispi::DispiEffect;
use flate2::Compression;
use flate2::read::{DeflateDecoder, DeflateEncoder};
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_clock::VirtualClock;
use rhea_device::{LoadError, Log};
use rhea_memory::{Access, AccessRules, BusError, HeldWrites, MemoryError, MmioDevice, RamBlock};
use state::Registers;
use std::io::Read;
use std::sync::Arc;

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// VGA and Bochs interface.
    Vga,
    /// The Bochs interface only; switching a mode on keeps what was set before.
    Bochs,
}

/// How the display is made.
#[derive(Clone, Debug)]
pub struct VgaOptions {
    pub kind: Kind,
    /// Bytes of the framebuffer: a power of two from 1 to 512 MiB.
    pub memory: u64,
    /// The monitor's own size, if it tells one.
    pub edid: Option<(u32, u32)>,
}

/// The core of the displays.
pub struct Vga {
    name: String,
    kind: Kind,
    vram: Arc<RamBlock>,
    registers: Mutex<Registers>,
    /// Of the window at 0xa0000.
    held: HeldWrites,
    edid: Option<Mutex<Edid>>,
    clock: Arc<VirtualClock>,
    log: Log,
}

#[derive(Encode, Decode)]
struct State {
    #[n(0)]
    registers: Registers,
    /// The framebuffer, deflated.
    #[cbor(n(1), with = "minicbor::bytes")]
    vram: Vec<u8>,
}

/// The MMIO BAR: EDID, VGA ports from 3c0, Bochs interface, its extension.
const MMIO_EDID: std::ops::Range<u64> = 0..0x100;
const MMIO_PORTS: std::ops::Range<u64> = 0x400..0x420;
const MMIO_DISPI: std::ops::Range<u64> = 0x500..0x516;
const MMIO_EXTENSION: u64 = 0x600;
const MMIO_BYTE_ORDER: u64 = 0x604;
/// Length of the MMIO BAR.
pub const MMIO_LENGTH: u64 = 0x1000;
const LITTLE: u32 = 0x1e1e_1e1e;
const BIG: u32 = 0xbebe_bebe;

impl Vga {
    /// # Errors
    /// The framebuffer cannot be had.
    pub fn new(
        name: &str,
        options: &VgaOptions,
        clock: &Arc<VirtualClock>,
        log: Log,
    ) -> Result<Arc<Self>, MemoryError> {
        Ok(Arc::new(Self {
            name: name.to_owned(),
            kind: options.kind,
            vram: RamBlock::anonymous(&format!("{name} framebuffer"), options.memory)?,
            registers: Mutex::default(),
            held: HeldWrites::default(),
            edid: options.edid.map(|(x, y)| Mutex::new(edid::make(x, y))),
            clock: clock.clone(),
            log,
        }))
    }
    #[must_use]
    pub fn vram(&self) -> &Arc<RamBlock> {
        &self.vram
    }
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The order of bytes in pixels.
    #[must_use]
    pub fn byte_order(&self) -> ByteOrder {
        if self.registers.lock().big_endian { ByteOrder::Big } else { ByteOrder::Little }
    }

    // ---- registers ----

    /// Reads one of the ports 0x3b0 to 0x3df.
    #[must_use]
    pub fn read_port(&self, port: u16) -> u8 {
        let now = self.clock.now_ns();
        let mut registers = self.registers.lock();
        let beam = if matches!(port, 0x3ba | 0x3da) { registers.beam(now) } else { ports::Beam::default() };
        registers.read_port(port, || beam)
    }
    /// Writes one.
    pub fn write_port(&self, port: u16, value: u8) {
        let known = self.registers.lock().write_port(port, value);
        if !known {
            self.log.guest_error(&self.name, format_args!("write to port {port:#x}, where there is no such register"));
        }
    }
    #[must_use]
    pub fn read_dispi(&self, register: u16) -> u16 {
        self.registers.lock().dispi.read(register, self.vram.len())
    }
    pub fn write_dispi(&self, register: u16, value: u16) {
        let effect = {
            let r = &mut *self.registers.lock();
            let wide = r.dispi.dac_8bit();
            let effect = r.dispi.write(register, value, self.vram.len(), self.kind == Kind::Bochs);
            if r.dispi.dac_8bit() != wide {
                // The colours stay what they are.
                r.palette.as_flattened_mut().iter_mut().for_each(|c| *c = if wide { *c >> 2 } else { *c << 2 });
            }
            effect
        };
        match effect {
            DispiEffect::Nothing => {}
            DispiEffect::Refused => {
                self.log
                    .guest_error(&self.name, format_args!("write to display interface register {register:#x} refused"));
            }
            DispiEffect::Clear(len) => {
                // `len` is at most the framebuffer's.
                let _ = self.vram.fill(0, len, 0);
            }
        }
    }
    fn dispi_index(&self) -> u16 {
        self.registers.lock().dispi.index()
    }
    fn edid_bytes(&self, offset: u64, size: u8) -> u64 {
        let Some(edid) = &self.edid else { return u64::MAX };
        let edid = edid.lock();
        (0..u64::from(size)).fold(0, |all, i| {
            let byte = edid.get((offset + i) as usize).copied().unwrap_or(0);
            all | u64::from(byte) << (i * 8)
        })
    }

    fn read_mmio(&self, offset: u64, access: Access) -> u64 {
        let size = access.size;
        let bytes = |one: &dyn Fn(u64) -> u8| {
            (0..u64::from(size)).fold(0, |all, i| all | u64::from(one(offset + i)) << (i * 8))
        };
        if MMIO_EDID.contains(&offset) {
            return self.edid_bytes(offset, size);
        }
        if MMIO_PORTS.contains(&offset) && self.kind == Kind::Vga {
            return bytes(&|at| self.read_port((at - MMIO_PORTS.start) as u16 + 0x3c0));
        }
        if MMIO_DISPI.contains(&offset) {
            let word = |at: u64| u64::from(self.read_dispi(((at - MMIO_DISPI.start) / 2) as u16));
            return match size {
                1 => word(offset) >> (offset % 2 * 8) & 0xff,
                2 => word(offset),
                _ => word(offset) | word(offset + 2) << 16,
            };
        }
        let order = if self.registers.lock().big_endian { BIG } else { LITTLE };
        match (offset, size) {
            (MMIO_EXTENSION, 4) => 8,
            (MMIO_BYTE_ORDER, 4) => order.into(),
            _ => {
                self.log.guest_error(&self.name, format_args!("read of {size} bytes at MMIO offset {offset:#x}"));
                u64::MAX
            }
        }
    }
    fn write_mmio(&self, offset: u64, value: u64, access: Access) {
        let size = access.size;
        if MMIO_PORTS.contains(&offset) && self.kind == Kind::Vga {
            for i in 0..u64::from(size) {
                self.write_port((offset - MMIO_PORTS.start + i) as u16 + 0x3c0, (value >> (i * 8)) as u8);
            }
            return;
        }
        if MMIO_DISPI.contains(&offset) && size >= 2 {
            for i in (0..u64::from(size)).step_by(2) {
                let register = ((offset - MMIO_DISPI.start + i) / 2) as u16;
                self.write_dispi(register, (value >> (i * 8)) as u16);
            }
            return;
        }
        match (offset, size, value as u32) {
            (MMIO_BYTE_ORDER, 4, LITTLE) => self.registers.lock().big_endian = false,
            (MMIO_BYTE_ORDER, 4, BIG) => self.registers.lock().big_endian = true,
            _ => {
                self.log.guest_error(&self.name, format_args!("write of {size} bytes at MMIO offset {offset:#x}"));
            }
        }
    }

    // ---- windows ----

    /// The window at 0xa0000, [`memory::LENGTH`] bytes.
    #[must_use]
    pub fn memory_window(self: &Arc<Self>) -> Arc<dyn MmioDevice> {
        Arc::new(MemoryWindow(self.clone()))
    }
    /// The ports from [`ports::FIRST`], [`ports::COUNT`] of them.
    #[must_use]
    pub fn port_window(self: &Arc<Self>) -> Arc<dyn MmioDevice> {
        Arc::new(PortWindow(self.clone()))
    }
    /// Port 0x1ce.
    #[must_use]
    pub fn dispi_index_port(self: &Arc<Self>) -> Arc<dyn MmioDevice> {
        Arc::new(DispiIndex(self.clone()))
    }
    /// Port 0x1cf, 16 bits wide.
    #[must_use]
    pub fn dispi_data_port(self: &Arc<Self>) -> Arc<dyn MmioDevice> {
        Arc::new(DispiData(self.clone()))
    }
    /// The BAR with registers, [`MMIO_LENGTH`] bytes.
    #[must_use]
    pub fn mmio(self: &Arc<Self>) -> Arc<dyn MmioDevice> {
        Arc::new(Mmio(self.clone()))
    }

    // ---- lifecycle ----

    /// Power-on state; memory keeps its content.
    pub fn reset(&self) {
        self.held.settle();
        *self.registers.lock() = Registers::default();
    }
    /// Registers and framebuffer.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        self.held.settle();
        let mut raw = vec![0; self.vram.len() as usize];
        // The whole block is inside of itself, and memory can be read and encoded.
        let _ = self.vram.read(0, &mut raw);
        let mut vram = Vec::new();
        let _ = DeflateEncoder::new(&raw[..], Compression::fast()).read_to_end(&mut vram);
        let registers = self.registers.lock().clone();
        minicbor::to_vec(State { registers, vram }).unwrap_or_default()
    }
    /// # Errors
    /// The state is not of such a display.
    pub fn load(&self, data: &[u8]) -> Result<(), LoadError> {
        self.held.settle();
        let State { mut registers, vram } = minicbor::decode(data).map_err(|e| LoadError::Damaged(e.to_string()))?;
        let len = self.vram.len();
        let mut raw = Vec::new();
        DeflateDecoder::new(&vram[..])
            .take(len + 1)
            .read_to_end(&mut raw)
            .map_err(|e| LoadError::Damaged(e.to_string()))?;
        if raw.len() as u64 != len {
            return Err(LoadError::Mismatch("size of the framebuffer".to_owned()));
        }
        self.vram.write(0, &raw).map_err(|e| LoadError::Damaged(e.to_string()))?;
        registers.dispi.sanitize(len);
        *self.registers.lock() = registers;
        Ok(())
    }
}

impl Display for Vga {
    fn name(&self) -> &str {
        &self.name
    }
    fn render(&self, surface: &mut Surface, blink: Blink) {
        self.held.settle();
        let registers = self.registers.lock().clone();
        scan::render(&registers, self.kind, &self.vram, surface, blink);
    }
    fn prefer_size(&self, width: u32, height: u32) -> bool {
        match &self.edid {
            Some(edid) => {
                *edid.lock() = edid::make(width, height);
                true
            }
            None => false,
        }
    }
    fn set_byte_order(&self, order: ByteOrder) {
        self.registers.lock().big_endian = order == ByteOrder::Big;
    }
}

struct MemoryWindow(Arc<Vga>);

impl MmioDevice for MemoryWindow {
    fn read(&self, offset: u64, _access: Access) -> Result<u64, BusError> {
        Ok(self.0.registers.lock().read_memory(&self.0.vram, offset).into())
    }
    fn write(&self, offset: u64, value: u64, _access: Access) -> Result<(), BusError> {
        self.0.registers.lock().write_memory(&self.0.vram, offset, value as u8);
        Ok(())
    }
    fn held_writes(&self) -> Option<&HeldWrites> {
        Some(&self.0.held)
    }
    fn rules(&self) -> AccessRules {
        AccessRules::implemented(1, 1)
    }
    fn name(&self) -> &str {
        "vga memory"
    }
}

struct PortWindow(Arc<Vga>);

impl MmioDevice for PortWindow {
    fn read(&self, offset: u64, _access: Access) -> Result<u64, BusError> {
        Ok(self.0.read_port(ports::FIRST + offset as u16).into())
    }
    fn write(&self, offset: u64, value: u64, _access: Access) -> Result<(), BusError> {
        self.0.write_port(ports::FIRST + offset as u16, value as u8);
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::implemented(1, 1)
    }
    fn name(&self) -> &str {
        "vga ports"
    }
}

/// The data port begins at the next odd port, so that 16-bit accesses to the index arrive here as their low byte, with the
/// high one, which is always zero, at the data port.
struct DispiIndex(Arc<Vga>);

impl MmioDevice for DispiIndex {
    fn read(&self, _offset: u64, _access: Access) -> Result<u64, BusError> {
        Ok(self.0.dispi_index().into())
    }
    fn write(&self, _offset: u64, value: u64, _access: Access) -> Result<(), BusError> {
        self.0.registers.lock().dispi.set_index(value as u16 & 0xff);
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::implemented(1, 1)
    }
    fn name(&self) -> &str {
        "display interface index"
    }
}

struct DispiData(Arc<Vga>);

impl MmioDevice for DispiData {
    fn read(&self, _offset: u64, access: Access) -> Result<u64, BusError> {
        Ok(if access.size == 2 { self.0.read_dispi(self.0.dispi_index()).into() } else { 0 })
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        if access.size == 2 && offset == 0 {
            self.0.write_dispi(self.0.dispi_index(), value as u16);
        }
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::implemented(1, 2)
    }
    fn name(&self) -> &str {
        "display interface data"
    }
}

struct Mmio(Arc<Vga>);

impl MmioDevice for Mmio {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        Ok(self.0.read_mmio(offset, access))
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        self.0.write_mmio(offset, value, access);
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules { valid_min: 1, valid_max: 8, impl_min: 1, impl_max: 4, unaligned: false }
    }
    fn name(&self) -> &str {
        "display registers"
    }
}
