//! The memory images of FSTENV, FLDENV, FSAVE and FRSTOR: two sizes in two modes (vol. 1, figures 8-9 to 8-12).

use super::{X87, cw};
use crate::exception::Vector;
use crate::mmu::As;
use crate::state::X86Cpu;
use rhea_ir::guest::Raised;

/// Layout of an image.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub wide: bool,
    pub protected: bool,
}

impl Layout {
    pub const fn bytes(self) -> usize {
        if self.wide { 28 } else { 14 }
    }
    fn put(self, image: &mut [u8; 28], n: usize, v: u32) {
        if self.wide {
            image[4 * n..4 * n + 4].copy_from_slice(&v.to_le_bytes());
        } else {
            image[2 * n..2 * n + 2].copy_from_slice(&(v as u16).to_le_bytes());
        }
    }
    fn take(self, image: &[u8; 28], n: usize) -> u32 {
        if self.wide {
            u32::from_le_bytes([image[4 * n], image[4 * n + 1], image[4 * n + 2], image[4 * n + 3]])
        } else {
            u32::from(u16::from_le_bytes([image[2 * n], image[2 * n + 1]]))
        }
    }
}

impl X87 {
    fn environment(&self, l: Layout) -> [u8; 28] {
        let mut image = [0; 28];
        // The upper halves of words are ones.
        let word = |v: u32| v | 0xffff_0000;
        l.put(&mut image, 0, word(self.control_word().into()));
        l.put(&mut image, 1, word(self.status_word().into()));
        l.put(&mut image, 2, word(self.tag_word().into()));
        let (fip, fdp) = (self.fip as u32, self.fdp as u32);
        if l.protected {
            l.put(&mut image, 3, fip);
            l.put(&mut image, 4, if l.wide { self.fcs & 0xffff | self.fop << 16 } else { self.fcs });
            l.put(&mut image, 5, fdp);
            l.put(&mut image, 6, word(self.fds & 0xffff));
        } else {
            let (ip, dp) = (fip.wrapping_add(self.fcs << 4), fdp.wrapping_add(self.fds << 4));
            let low = |v: u32| if l.wide { word(v & 0xffff) } else { v };
            let high = |v: u32, more: u32| if l.wide { v >> 16 << 12 | more } else { v >> 4 & 0xf000 | more };
            l.put(&mut image, 3, low(ip));
            l.put(&mut image, 4, high(ip, self.fop));
            l.put(&mut image, 5, low(dp));
            l.put(&mut image, 6, high(dp, 0));
        }
        image
    }
    fn load_environment(&mut self, l: Layout, image: &[u8; 28]) {
        let f = |n: usize| l.take(image, n);
        self.control = f(0) & cw::WRITABLE | cw::FIXED;
        self.set_status_word(f(1) as u16);
        self.set_tag_word(f(2) as u16);
        if l.protected {
            self.fip = f(3).into();
            self.fcs = f(4) & 0xffff;
            // The 16-bit format has no opcode.
            self.fop = f(4) >> 16 & 0x7ff;
            self.fdp = f(5).into();
            self.fds = f(6) & 0xffff;
        } else {
            let high = |v: u32| if l.wide { v >> 12 << 16 & 0xffff_0000 } else { (v & 0xf000) << 4 };
            self.fip = u64::from(f(3) & 0xffff | high(f(4)));
            self.fop = f(4) & 0x7ff;
            self.fdp = u64::from(f(5) & 0xffff | high(f(6)));
            (self.fcs, self.fds) = (0, 0);
        }
    }
}

impl X86Cpu {
    fn layout(&self, wide: bool) -> Layout {
        Layout { wide, protected: self.protected() }
    }
    /// FNSTENV and, with `all`, FNSAVE.
    pub(super) fn store_environment(&mut self, address: u64, wide: bool, all: bool) -> Result<(), Raised> {
        let l = self.layout(wide);
        let mut image = [0u8; 108];
        let n = l.bytes();
        image[..28].copy_from_slice(&self.x87.environment(l));
        let size = if all { n + 80 } else { n };
        if all {
            for i in 0..8 {
                let (significand, sign_exponent) = self.x87.st(i);
                let at = n + 10 * i as usize;
                image[at..at + 8].copy_from_slice(&significand.to_le_bytes());
                image[at + 8..at + 10].copy_from_slice(&sign_exponent.to_le_bytes());
            }
        }
        self.write_bytes(address, &image[..size], As::Cpl)?;
        let pending = self.x87.error_pending();
        if all {
            self.x87.init();
        } else {
            self.x87.control |= cw::MASKS;
            self.x87.update_summary();
        }
        self.x87_quiet(pending);
        Ok(())
    }
    /// FLDENV and, with `all`, FRSTOR.
    pub(super) fn load_environment(&mut self, address: u64, wide: bool, all: bool) -> Result<(), Raised> {
        let l = self.layout(wide);
        let mut image = [0u8; 108];
        let n = l.bytes();
        let size = if all { n + 80 } else { n };
        self.read_bytes(address, &mut image[..size], As::Cpl)?;
        let mut head = [0; 28];
        head[..n].copy_from_slice(&image[..n]);
        self.x87.load_environment(l, &head);
        if all {
            for i in 0..8u32 {
                let at = n + 10 * i as usize;
                let mut s = [0; 8];
                s.copy_from_slice(&image[at..at + 8]);
                self.x87.set_st(i, u64::from_le_bytes(s), u16::from_le_bytes([image[at + 8], image[at + 9]]));
            }
        }
        Ok(())
    }
    /// The fault of an MMX instruction while CR0.EM or TS is set.
    pub(super) fn mmx_fault(&mut self) {
        let em = self.cr0 & crate::mmu::cr0::EM != 0;
        self.raise(if em { Vector::InvalidOpcode } else { Vector::DeviceNotAvailable }, None);
    }
}
