//! The PHY of the 82574 behind MDIC (IEEE 802.3, 22.2.4), its link up at 1000 Mb/s or down.

const PAGES: usize = 8;
const CONTROL_RESET: u16 = 1 << 15;
const CONTROL_RESTART: u16 = 1 << 9;
const PAGE_SELECT: usize = 22;
/// Status: negotiation complete, link up. Status of copper: resolved, link up. Status of 1000BASE-T: receivers are well.
const NEEDS_LINK: [(u32, u16); 3] = [(1, 1 << 5 | 1 << 2), (17, 3 << 10), (10, 3 << 12)];

/// Registers of the pages.
pub struct Phy {
    pub registers: Vec<u16>,
    /// The wire is plugged in.
    pub up: bool,
}

impl Default for Phy {
    fn default() -> Self {
        let mut registers = vec![0; PAGES * 32];
        let page0 = [
            // Auto-negotiation, full duplex, 1000 Mb/s; link up, negotiation complete.
            (0, 0x1140),
            (1, 0x796d),
            (2, 0x0141),
            (3, 0x0cb1),
            // What is advertised, and the partner's ability.
            (4, 0x0de1),
            (5, 0xcde1),
            (6, 0x000f),
            (9, 0x0e00),
            (10, 0x7c00),
            (15, 0x3000),
            (16, 0x0078),
            // 1000 Mb/s, full duplex, resolved, link up.
            (17, 0xac08),
        ];
        for (n, value) in page0 {
            registers[n] = value;
        }
        Self { registers, up: true }
    }
}

impl Phy {
    /// Reset; the wire stays as it is.
    pub fn reset(&mut self) {
        *self = Self { up: self.up, ..Self::default() };
    }
    fn index(&self, n: u32) -> Option<usize> {
        let n = (n & 31) as usize;
        // Registers of the standard are on every page.
        let page = if n < 16 || n == PAGE_SELECT { 0 } else { usize::from(*self.registers.get(PAGE_SELECT)?) };
        (page < PAGES).then_some(page * 32 + n)
    }
    #[must_use]
    pub fn read(&self, n: u32) -> u16 {
        let at = self.index(n);
        let value = at.and_then(|i| self.registers.get(i).copied()).unwrap_or(0);
        let needs = NEEDS_LINK.iter().find(|(r, _)| at == Some(*r as usize)).map_or(0, |(_, bits)| *bits);
        if self.up { value } else { value & !needs }
    }
    /// Writes a register; true: the link was negotiated again.
    pub fn write(&mut self, n: u32, value: u16) -> bool {
        let n = n & 31;
        match n {
            0 if value & CONTROL_RESET != 0 => {
                self.reset();
                return true;
            }
            0 => {
                if let Some(r) = self.registers.first_mut() {
                    *r = value & !(CONTROL_RESTART | 0x3f);
                }
                return value & CONTROL_RESTART != 0;
            }
            // Status, identifiers, the partner's, and status of the link are read-only.
            1..=3 | 5 | 6 | 10 | 15 | 17 | 19 => (),
            _ => {
                if let Some(r) = self.index(n).and_then(|i| self.registers.get_mut(i)) {
                    *r = value;
                }
            }
        }
        false
    }
}
