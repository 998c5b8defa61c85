//! The Bochs display interface: linear and planar modes of any size, set through a few 16-bit registers.

use minicbor::{Decode, Encode};

/// Register numbers.
pub mod index {
    pub const ID: u16 = 0;
    pub const XRES: u16 = 1;
    pub const YRES: u16 = 2;
    pub const BPP: u16 = 3;
    pub const ENABLE: u16 = 4;
    pub const BANK: u16 = 5;
    pub const VIRT_WIDTH: u16 = 6;
    pub const VIRT_HEIGHT: u16 = 7;
    pub const X_OFFSET: u16 = 8;
    pub const Y_OFFSET: u16 = 9;
    pub const MEMORY_64K: u16 = 10;
    pub const COUNT: u16 = 11;
}

/// Bits of the enable register.
const ENABLED: u16 = 1;
const GET_CAPABILITIES: u16 = 1 << 1;
const DAC_8BIT: u16 = 1 << 5;
const NO_CLEAR: u16 = 1 << 7;
/// With linear framebuffer (bit 6).
const ENABLE_MASK: u16 = 0x00e3;

const OLDEST_ID: u16 = 0xb0c0;
const NEWEST_ID: u16 = 0xb0c5;

const MAX_XRES: u16 = 16000;
const MAX_YRES: u16 = 12000;
const MAX_BPP: u16 = 32;

/// The registers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Dispi {
    #[n(0)]
    index: u16,
    #[n(1)]
    id: u16,
    #[n(2)]
    xres: u16,
    #[n(3)]
    yres: u16,
    #[n(4)]
    bpp: u16,
    #[n(5)]
    enable: u16,
    #[n(6)]
    bank: u16,
    #[n(7)]
    virt_width: u16,
    #[n(8)]
    x_offset: u16,
    #[n(9)]
    y_offset: u16,
}

/// What a write asks the device for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DispiEffect {
    Nothing,
    /// Nothing is written: the value or register is none of the interface's.
    Refused,
    /// The first so many bytes of the framebuffer become zero.
    Clear(u64),
}

/// A mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DispiMode {
    pub width: u32,
    pub height: u32,
    /// 4 (planes), 8, 15, 16, 24 or 32.
    pub bpp: u32,
    /// Bytes from line to line; of all four planes together in planar modes.
    pub pitch: u64,
    /// Bytes from the start of memory to the first line; pixels in planar modes are in [`Self::pixel`].
    pub start: u64,
    /// First pixel within the first byte of a planar mode.
    pub pixel: u32,
}

impl Default for Dispi {
    fn default() -> Self {
        Self {
            index: 0,
            id: NEWEST_ID,
            xres: 0,
            yres: 0,
            bpp: 8,
            enable: 0,
            bank: 0,
            virt_width: 0,
            x_offset: 0,
            y_offset: 0,
        }
    }
}

/// Bytes of a line.
fn pitch(bpp: u16, width: u16) -> u64 {
    let width = u64::from(width);
    match bpp {
        4 => width / 2,
        15 => width * 2,
        bpp => width * u64::from(bpp) / 8,
    }
}

impl Dispi {
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.enable & ENABLED != 0
    }
    /// Does the DAC have 8 bits for each component?
    #[must_use]
    pub fn dac_8bit(&self) -> bool {
        self.enable & DAC_8BIT != 0
    }
    /// What the window at a0000 shows in a linear mode: the offset of the bank.
    #[must_use]
    pub fn linear_bank(&self) -> Option<u64> {
        (self.enabled() && self.bpp != 4).then(|| u64::from(self.bank) << 16)
    }
    /// The bank in planar modes.
    #[must_use]
    pub fn planar_bank(&self) -> u64 {
        if self.enabled() && self.bpp == 4 { u64::from(self.bank) << 16 } else { 0 }
    }
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }
    pub fn set_index(&mut self, index: u16) {
        self.index = index;
    }
    /// The mode, if one is on.
    #[must_use]
    pub fn mode(&self) -> Option<DispiMode> {
        if !self.enabled() {
            return None;
        }
        let line = pitch(self.bpp, self.virt_width);
        let x = if self.bpp == 4 { self.x_offset & !7 } else { self.x_offset };
        Some(DispiMode {
            width: self.xres.into(),
            height: self.yres.into(),
            bpp: self.bpp.into(),
            pitch: line,
            start: line * u64::from(self.y_offset) + pitch(self.bpp, x),
            pixel: if self.bpp == 4 { u32::from(self.x_offset & 7) } else { 0 },
        })
    }
    /// Reads register `n`; `memory` is the size of the framebuffer.
    #[must_use]
    pub fn read(&self, n: u16, memory: u64) -> u16 {
        let capabilities = self.enable & GET_CAPABILITIES != 0;
        match n {
            index::ID => self.id,
            index::XRES if capabilities => MAX_XRES,
            index::YRES if capabilities => MAX_YRES,
            index::BPP if capabilities => MAX_BPP,
            index::XRES => self.xres,
            index::YRES => self.yres,
            index::BPP => self.bpp,
            index::ENABLE => self.enable,
            index::BANK => self.bank,
            index::VIRT_WIDTH => self.virt_width,
            index::VIRT_HEIGHT => (memory / pitch(self.bpp, self.virt_width).max(1)).min(0xffff) as u16,
            index::X_OFFSET => self.x_offset,
            index::Y_OFFSET => self.y_offset,
            index::MEMORY_64K => (memory >> 16).min(0xffff) as u16,
            _ => 0,
        }
    }
    /// Writes register `n`. `keep_virtual`: switching a mode on keeps the virtual width and the offsets (they are written
    /// before).
    pub fn write(&mut self, n: u16, value: u16, memory: u64, keep_virtual: bool) -> DispiEffect {
        match n {
            index::ID => {
                if !(OLDEST_ID..=NEWEST_ID).contains(&value) {
                    return DispiEffect::Refused;
                }
                self.id = value;
            }
            index::XRES => self.xres = value,
            index::YRES => self.yres = value,
            index::BPP => self.bpp = if value == 0 { 8 } else { value },
            index::ENABLE => {
                let was = self.enabled();
                self.enable = value & ENABLE_MASK;
                self.bank = 0;
                if self.enabled() && !was {
                    if !keep_virtual {
                        (self.virt_width, self.x_offset, self.y_offset) = (0, 0, 0);
                    }
                    self.fix(memory);
                    if value & NO_CLEAR == 0 {
                        let clear = pitch(self.bpp, self.virt_width) * u64::from(self.yres);
                        return DispiEffect::Clear(clear.min(memory));
                    }
                }
            }
            index::BANK => {
                let bank = value & 0x3fff;
                if u64::from(bank) << 16 >= memory {
                    return DispiEffect::Refused;
                }
                self.bank = bank;
            }
            index::VIRT_WIDTH => self.virt_width = value,
            // Follows from memory and width.
            index::VIRT_HEIGHT => return DispiEffect::Nothing,
            index::X_OFFSET => self.x_offset = value,
            index::Y_OFFSET => self.y_offset = value,
            _ => return DispiEffect::Refused,
        }
        if self.enabled() {
            self.fix(memory);
        }
        DispiEffect::Nothing
    }
    /// Makes a mode of the registers that fits the memory.
    fn fix(&mut self, memory: u64) {
        if !matches!(self.bpp, 4 | 8 | 15 | 16 | 24 | 32) {
            self.bpp = 8;
        }
        self.xres = (self.xres & !7).clamp(8, MAX_XRES);
        self.virt_width = (self.virt_width & !7).clamp(self.xres, MAX_XRES);
        let line = pitch(self.bpp, self.virt_width).max(1);
        self.yres = self.yres.clamp(1, (memory / line).clamp(1, MAX_YRES.into()) as u16);
        let end = |x: u16, y: u16| pitch(self.bpp, x) + line * (u64::from(y) + u64::from(self.yres));
        if end(self.x_offset, self.y_offset) > memory {
            self.y_offset = 0;
            if end(self.x_offset, 0) > memory {
                self.x_offset = 0;
            }
        }
    }
    /// Registers of a saved state that no guest can have written are put right.
    pub fn sanitize(&mut self, memory: u64) {
        self.enable &= ENABLE_MASK;
        if u64::from(self.bank) << 16 >= memory {
            self.bank = 0;
        }
        if self.enabled() {
            self.fix(memory);
        }
    }
}
