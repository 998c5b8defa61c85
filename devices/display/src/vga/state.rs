//! The registers of the VGA and their reset values.

use super::dispi::Dispi;
use minicbor::{Decode, Encode};

/// Sequencer registers.
pub mod seq {
    pub const CLOCKING_MODE: usize = 1;
    pub const MAP_MASK: usize = 2;
    pub const CHARACTER_MAP: usize = 3;
    pub const MEMORY_MODE: usize = 4;
    /// Bits that exist.
    pub const MASKS: [u8; 5] = [0x03, 0x3d, 0x0f, 0x3f, 0x0e];

    /// Clocking mode: characters have 8 dots, not 9.
    pub const DOTS_8: u8 = 1;
    /// Clocking mode: the dot clock is halved.
    pub const HALF_CLOCK: u8 = 1 << 3;
    pub const SCREEN_OFF: u8 = 1 << 5;
    /// Memory mode: addresses select planes one after the other, not odd and even ones.
    pub const ODD_EVEN_OFF: u8 = 1 << 2;
    pub const CHAIN_4: u8 = 1 << 3;
}

/// CRT controller registers.
pub mod crtc {
    pub const HORIZONTAL_TOTAL: usize = 0x00;
    pub const HORIZONTAL_DISPLAY_END: usize = 0x01;
    pub const VERTICAL_TOTAL: usize = 0x06;
    pub const OVERFLOW: usize = 0x07;
    pub const PRESET_ROW_SCAN: usize = 0x08;
    pub const MAXIMUM_SCAN_LINE: usize = 0x09;
    pub const CURSOR_START: usize = 0x0a;
    pub const CURSOR_END: usize = 0x0b;
    pub const START_HIGH: usize = 0x0c;
    pub const CURSOR_HIGH: usize = 0x0e;
    pub const RETRACE_START: usize = 0x10;
    pub const RETRACE_END: usize = 0x11;
    pub const VERTICAL_DISPLAY_END: usize = 0x12;
    pub const OFFSET: usize = 0x13;
    pub const UNDERLINE: usize = 0x14;
    pub const MODE: usize = 0x17;
    pub const LINE_COMPARE: usize = 0x18;
    pub const COUNT: usize = 0x19;
    /// Not in the register list of the manuals, but in every implementation: the latch of the selected plane, and the
    /// attribute controller's flip-flop and index.
    pub const LATCH: u8 = 0x22;
    pub const ATTRIBUTE_STATE: u8 = 0x24;
    pub const ATTRIBUTE_INDEX: u8 = 0x26;
    /// Retrace end: registers 0 to 7 are read-only.
    pub const PROTECT: u8 = 1 << 7;
}

/// Graphics controller registers.
pub mod gfx {
    pub const SET_RESET: usize = 0;
    pub const ENABLE_SET_RESET: usize = 1;
    pub const COLOR_COMPARE: usize = 2;
    pub const DATA_ROTATE: usize = 3;
    pub const READ_MAP: usize = 4;
    pub const MODE: usize = 5;
    pub const MISCELLANEOUS: usize = 6;
    pub const COLOR_DONT_CARE: usize = 7;
    pub const BIT_MASK: usize = 8;
    pub const MASKS: [u8; 9] = [0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff];
}

/// Attribute controller registers.
pub mod attr {
    pub const MODE: usize = 0x10;
    pub const PLANE_ENABLE: usize = 0x12;
    pub const PIXEL_PANNING: usize = 0x13;
    pub const COLOR_SELECT: usize = 0x14;
    pub const COUNT: usize = 0x15;
    /// Index: the palette belongs to the display, not to the CPU.
    pub const DISPLAY_ON: u8 = 1 << 5;
}

/// All registers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Registers {
    #[n(0)]
    pub misc: u8,
    #[n(1)]
    pub feature: u8,
    /// Video subsystem enable (port 3c3).
    #[n(2)]
    pub enable: u8,
    #[n(3)]
    pub seq_index: u8,
    #[n(4)]
    pub seq: [u8; 5],
    #[n(5)]
    pub crtc_index: u8,
    #[n(6)]
    pub crtc: [u8; crtc::COUNT],
    #[n(7)]
    pub gfx_index: u8,
    #[n(8)]
    pub gfx: [u8; 9],
    /// With [`attr::DISPLAY_ON`].
    #[n(9)]
    pub attr_index: u8,
    #[n(10)]
    pub attr: [u8; attr::COUNT],
    /// The next write to port 3c0 is data.
    #[n(11)]
    pub attr_data: bool,
    #[n(12)]
    pub palette: [[u8; 3]; 256],
    #[n(13)]
    pub pel_mask: u8,
    #[n(14)]
    pub dac_read: u8,
    #[n(15)]
    pub dac_write: u8,
    /// Which component is next.
    #[n(16)]
    pub dac_component: u8,
    /// The last index written was that for reads.
    #[n(17)]
    pub dac_reading: bool,
    #[n(18)]
    pub dac_cache: [u8; 3],
    /// A byte of each plane, plane 0 lowest.
    #[n(19)]
    pub latch: u32,
    #[n(20)]
    pub dispi: Dispi,
    /// Pixels of several bytes in the framebuffer are big-endian.
    #[n(21)]
    pub big_endian: bool,
}

impl Default for Registers {
    fn default() -> Self {
        Self {
            misc: 0,
            feature: 0,
            enable: 1,
            seq_index: 0,
            seq: [0; 5],
            crtc_index: 0,
            crtc: [0; crtc::COUNT],
            gfx_index: 0,
            gfx: [0; 9],
            attr_index: 0,
            attr: [0; attr::COUNT],
            attr_data: false,
            palette: [[0; 3]; 256],
            pel_mask: 0xff,
            dac_read: 0,
            dac_write: 0,
            dac_component: 0,
            dac_reading: false,
            dac_cache: [0; 3],
            latch: 0,
            dispi: Dispi::default(),
            big_endian: false,
        }
    }
}

impl Registers {
    /// Lines shown less one.
    #[must_use]
    pub fn vertical_display_end(&self) -> u32 {
        let o = u32::from(self.crtc[crtc::OVERFLOW]);
        u32::from(self.crtc[crtc::VERTICAL_DISPLAY_END]) | (o >> 1 & 1) << 8 | (o >> 6 & 1) << 9
    }
    /// The last line before the split.
    #[must_use]
    pub fn line_compare(&self) -> u32 {
        u32::from(self.crtc[crtc::LINE_COMPARE])
            | u32::from(self.crtc[crtc::OVERFLOW] >> 4 & 1) << 8
            | u32::from(self.crtc[crtc::MAXIMUM_SCAN_LINE] >> 6 & 1) << 9
    }
    /// A register pair of the CRT controller, high byte first.
    #[must_use]
    pub fn crtc_word(&self, high: usize) -> u32 {
        u32::from(self.crtc[high]) << 8 | u32::from(self.crtc[high + 1])
    }
    /// The colours of the DAC as pixels, the PEL mask applied.
    #[must_use]
    pub fn dac_pixels(&self) -> [u32; 256] {
        let wide = self.dispi.dac_8bit();
        let component = |v: u8| u32::from(if wide { v } else { v << 2 | v >> 4 & 3 });
        std::array::from_fn(|i| {
            let [r, g, b] = self.palette[i & usize::from(self.pel_mask)];
            component(r) << 16 | component(g) << 8 | component(b)
        })
    }
    /// The colours that the attribute controller makes of 4-bit ones.
    #[must_use]
    pub fn attribute_pixels(&self) -> [u32; 16] {
        let dac = self.dac_pixels();
        let (mode, select) = (self.attr[attr::MODE], self.attr[attr::COLOR_SELECT]);
        std::array::from_fn(|i| {
            let entry = self.attr[i & usize::from(self.attr[attr::PLANE_ENABLE] & 15)];
            let low = if mode & 0x80 != 0 { entry & 0x0f | (select & 3) << 4 } else { entry & 0x3f };
            dac[usize::from(low | (select >> 2 & 3) << 6)]
        })
    }
}
