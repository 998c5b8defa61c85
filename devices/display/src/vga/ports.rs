//! The VGA's ports 0x3b0 to 0x3df, a byte at a time.

use super::state::{Registers, attr, crtc, gfx, seq};

/// The first port of the window.
pub const FIRST: u16 = 0x3b0;
/// How many there are.
pub const COUNT: u16 = 0x30;

/// Miscellaneous output: the CRT controller is at 3dx, not 3bx.
const COLOR: u8 = 1;

/// Where the beam is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beam {
    /// Horizontal or vertical blanking.
    pub blank: bool,
    pub vertical_retrace: bool,
}

impl Registers {
    /// The place of the beam at a time in nanoseconds, by the CRT controller's timing.
    #[must_use]
    pub fn beam(&self, ns: u64) -> Beam {
        let c = |i: usize| u64::from(self.crtc[i]);
        let clock = if self.misc >> 2 & 3 == 1 { 28_322 } else { 25_175 };
        let dots = if self.seq[seq::CLOCKING_MODE] & seq::DOTS_8 != 0 { 8 } else { 9 };
        let half = if self.seq[seq::CLOCKING_MODE] & seq::HALF_CLOCK != 0 { 2 } else { 1 };
        // A character in picoseconds.
        let character = dots * half * 1_000_000_000 / clock;
        let overflow = c(crtc::OVERFLOW);
        let mut columns = c(crtc::HORIZONTAL_TOTAL) + 5;
        let mut lines = c(crtc::VERTICAL_TOTAL) + ((overflow & 1) << 8 | (overflow >> 5 & 1) << 9) + 2;
        let mut shown = (c(crtc::HORIZONTAL_DISPLAY_END) + 1, u64::from(self.vertical_display_end()) + 1);
        let mut retrace = c(crtc::RETRACE_START) + ((overflow >> 2 & 1) << 8 | (overflow >> 7 & 1) << 9);
        let mut retrace_lines = (c(crtc::RETRACE_END).wrapping_sub(retrace) & 15).max(1);
        let mut line_ps = character * columns;
        let sane = (20_000_000..80_000_000).contains(&line_ps)
            && (200..1024).contains(&lines)
            && retrace + retrace_lines <= lines;
        if !sane {
            // No mode was set by these registers: 640 by 480 at 60 Hz.
            (columns, lines, shown, retrace, retrace_lines) = (100, 525, (80, 480), 490, 2);
            line_ps = 31_778_000;
        }
        let in_frame = u128::from(ns) * 1000 % u128::from(line_ps * lines);
        let (line, column) = (in_frame as u64 / line_ps, (in_frame as u64 % line_ps) / (line_ps / columns).max(1));
        Beam {
            blank: line >= shown.1 || column >= shown.0,
            vertical_retrace: (retrace..retrace + retrace_lines).contains(&line),
        }
    }

    /// Is the port one of the half that is switched off (monochrome or colour)?
    fn absent(&self, port: u16) -> bool {
        match port {
            0x3b0..=0x3bf => self.misc & COLOR != 0,
            0x3d0..=0x3df => self.misc & COLOR == 0,
            _ => false,
        }
    }

    /// Reads a port; `beam` is asked for the status register only.
    pub fn read_port(&mut self, port: u16, beam: impl FnOnce() -> Beam) -> u8 {
        if self.absent(port) {
            return 0xff;
        }
        let register = |all: &[u8], index: u8| all.get(usize::from(index)).copied().unwrap_or(0);
        match port {
            0x3c0 => self.attr_index,
            0x3c1 => register(&self.attr, self.attr_index & 0x1f),
            // Input status 0: a monitor is there, no vertical interrupt.
            0x3c2 => 0x10,
            0x3c3 => self.enable,
            0x3c4 => self.seq_index,
            0x3c5 => register(&self.seq, self.seq_index),
            0x3c6 => self.pel_mask,
            0x3c7 => {
                if self.dac_reading {
                    3
                } else {
                    0
                }
            }
            0x3c8 => self.dac_write,
            0x3c9 => {
                let value = self.palette[usize::from(self.dac_read)][usize::from(self.dac_component.min(2))];
                self.dac_component += 1;
                if self.dac_component >= 3 {
                    self.dac_component = 0;
                    self.dac_read = self.dac_read.wrapping_add(1);
                }
                value
            }
            0x3ca => self.feature,
            0x3cc => self.misc,
            0x3ce => self.gfx_index,
            0x3cf => register(&self.gfx, self.gfx_index),
            0x3b4 | 0x3d4 => self.crtc_index,
            0x3b5 | 0x3d5 => match self.crtc_index {
                crtc::LATCH => self.latch.to_le_bytes()[usize::from(self.gfx[gfx::READ_MAP] & 3)],
                crtc::ATTRIBUTE_STATE => u8::from(self.attr_data) << 7,
                crtc::ATTRIBUTE_INDEX => self.attr_index,
                index => register(&self.crtc, index),
            },
            0x3ba | 0x3da => {
                self.attr_data = false;
                let Beam { blank, vertical_retrace } = beam();
                u8::from(blank || vertical_retrace) | u8::from(vertical_retrace) << 3
            }
            _ => 0xff,
        }
    }

    /// Writes a port; false if there is nothing to write.
    pub fn write_port(&mut self, port: u16, value: u8) -> bool {
        if self.absent(port) {
            return true;
        }
        let put = |all: &mut [u8], masks: &[u8], index: u8| match (
            all.get_mut(usize::from(index)),
            masks.get(usize::from(index)),
        ) {
            (Some(place), Some(mask)) => {
                *place = value & mask;
                true
            }
            _ => false,
        };
        match port {
            0x3c0 => {
                self.attr_data = !self.attr_data;
                if self.attr_data {
                    self.attr_index = value & 0x3f;
                    return true;
                }
                let index = usize::from(self.attr_index & 0x1f);
                let mask = match index {
                    0..=0x0f | attr::PLANE_ENABLE => 0x3f,
                    attr::MODE => 0xef,
                    attr::PIXEL_PANNING | attr::COLOR_SELECT => 0x0f,
                    _ => 0xff,
                };
                match self.attr.get_mut(index) {
                    Some(place) => *place = value & mask,
                    None => return false,
                }
            }
            0x3c2 => self.misc = value & 0xef,
            0x3c3 => self.enable = value & 1,
            0x3c4 => self.seq_index = value & 7,
            0x3c5 => return put(&mut self.seq, &seq::MASKS, self.seq_index),
            0x3c6 => self.pel_mask = value,
            0x3c7 => (self.dac_read, self.dac_component, self.dac_reading) = (value, 0, true),
            0x3c8 => (self.dac_write, self.dac_component, self.dac_reading) = (value, 0, false),
            0x3c9 => {
                let value = if self.dispi.dac_8bit() { value } else { value & 0x3f };
                self.dac_cache[usize::from(self.dac_component.min(2))] = value;
                self.dac_component += 1;
                if self.dac_component >= 3 {
                    self.dac_component = 0;
                    self.palette[usize::from(self.dac_write)] = self.dac_cache;
                    self.dac_write = self.dac_write.wrapping_add(1);
                }
            }
            0x3ce => self.gfx_index = value & 0x0f,
            0x3cf => return put(&mut self.gfx, &gfx::MASKS, self.gfx_index),
            0x3b4 | 0x3d4 => self.crtc_index = value & 0x3f,
            0x3b5 | 0x3d5 => {
                let index = usize::from(self.crtc_index);
                let protected = self.crtc[crtc::RETRACE_END] & crtc::PROTECT != 0;
                match self.crtc.get_mut(index) {
                    // The line compare bit is outside of the protection.
                    Some(place) if protected && index == crtc::OVERFLOW => *place = *place & !0x10 | value & 0x10,
                    Some(_) if protected && index < crtc::OVERFLOW => {}
                    Some(place) => *place = value,
                    None => return false,
                }
            }
            0x3ba | 0x3da => self.feature = value & 0x08,
            _ => return false,
        }
        true
    }
}
