//! The state of interrupts, 32 to a word, and the set of SPIs that wait for one CPU.

use minicbor::{Decode, Encode};

/// No interrupt: greater than every key.
pub const NONE: u32 = u32::MAX;
/// INTID: no interrupt to acknowledge.
pub const SPURIOUS: u32 = 1023;
/// The first INTID that is not an SPI.
pub const SPI_END: u32 = 1020;

/// Orders waiting interrupts: by priority, then by INTID (at most 16 bits).
#[must_use]
pub const fn key(priority: u8, intid: u32) -> u32 {
    (priority as u32) << 16 | (intid & 0xffff)
}
#[must_use]
pub const fn key_intid(key: u32) -> u32 {
    key & 0xffff
}
#[must_use]
pub const fn key_priority(key: u32) -> u8 {
    (key >> 16) as u8
}

/// The groups as array indices and bit numbers. A controller without security states has 0 and [`GROUP1_NS`] only.
pub const GROUP0: usize = 0;
pub const GROUP1_S: usize = 1;
pub const GROUP1_NS: usize = 2;

/// 32 interrupts. Bit n of each field belongs to interrupt n of the word.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Irqs {
    #[n(0)]
    pub enabled: u32,
    /// Pending by an edge or by software.
    #[n(1)]
    pub latch: u32,
    /// The level of the input.
    #[n(2)]
    pub level: u32,
    #[n(3)]
    pub active: u32,
    /// Edge-triggered, else level-sensitive.
    #[n(4)]
    pub edge: u32,
    #[n(5)]
    pub group: u32,
    #[n(6)]
    pub grpmod: u32,
    /// Group modifiers count (two security states).
    #[n(7)]
    pub two_states: bool,
    #[n(8)]
    pub priority: [u8; 32],
}

impl Irqs {
    #[inline]
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.latch | (self.level & !self.edge)
    }
    /// Pending, enabled and not active: a candidate for delivery.
    #[inline]
    #[must_use]
    pub fn ready(&self) -> u32 {
        self.pending() & self.enabled & !self.active
    }
    #[inline]
    #[must_use]
    pub fn group_of(&self, bit: u32) -> usize {
        let one = |word: u32| word >> (bit & 31) & 1 != 0;
        if one(self.group) {
            GROUP1_NS
        } else if self.two_states && one(self.grpmod) {
            GROUP1_S
        } else {
            GROUP0
        }
    }
    /// Interrupts of Non-secure group 1, for Non-secure accesses.
    #[must_use]
    pub fn nonsecure(&self) -> u32 {
        self.group
    }
    /// The input changed.
    #[inline]
    pub fn set_level(&mut self, bit: u32, level: bool) {
        let mask = 1 << (bit & 31);
        if level {
            if self.edge & mask != 0 && self.level & mask == 0 {
                self.latch |= mask;
            }
            self.level |= mask;
        } else {
            self.level &= !mask;
        }
    }
    /// The state change of an acknowledge.
    pub fn activate(&mut self, bit: u32) {
        let mask = 1 << (bit & 31);
        self.active |= mask;
        self.latch &= !mask;
    }
    /// The best candidate of each group; `base` is the INTID of bit 0.
    #[must_use]
    pub fn best(&self, base: u32) -> [u32; 3] {
        let mut best = [NONE; 3];
        let mut ready = self.ready();
        while ready != 0 {
            let bit = ready.trailing_zeros();
            ready &= ready - 1;
            let group = self.group_of(bit);
            best[group] = best[group].min(key(self.priority[bit as usize], base + bit));
        }
        best
    }
    /// Two configuration bits for each of 16 interrupts, from interrupt 0 or 16.
    #[must_use]
    pub fn config(&self, half: u32) -> u32 {
        let bits = self.edge >> (half * 16) & 0xffff;
        (0..16).fold(0, |word, n| word | (bits >> n & 1) << (2 * n + 1))
    }
    /// Writes the trigger of those interrupts of a half that `allowed` (bits of the word) has.
    pub fn set_config(&mut self, half: u32, value: u32, allowed: u32) {
        for n in 0..16 {
            let mask = 1 << (half * 16 + n);
            if allowed & mask != 0 {
                self.edge = if value >> (2 * n + 1) & 1 != 0 { self.edge | mask } else { self.edge & !mask };
            }
        }
    }
}

/// Where an SPI is to go, or where it waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    #[default]
    Nowhere,
    One(u16),
    /// Any of these CPUs (GICv2).
    Mask(u8),
    /// The controller chooses a CPU (1 of N).
    Any,
}

/// A word of SPIs.
#[derive(Clone, Debug)]
pub struct SpiWord {
    pub irqs: Irqs,
    /// GICD_IROUTER, or the CPU mask of GICD_ITARGETSR.
    pub route: [u64; 32],
    /// What `route` means.
    pub target: [Place; 32],
    /// Which CPUs have the SPI among their candidates.
    pub(super) placed: [Place; 32],
}

impl Default for SpiWord {
    fn default() -> Self {
        Self { irqs: Irqs::default(), route: [0; 32], target: [Place::Nowhere; 32], placed: [Place::Nowhere; 32] }
    }
}

/// The SPIs that wait for one CPU, with the best of each group at hand.
pub(super) struct Candidates {
    bits: [[u32; 32]; 3],
    /// Which words of `bits` are not zero.
    words: [u32; 3],
    priority: [u8; 1024],
    best: [u32; 3],
}

impl Default for Candidates {
    fn default() -> Self {
        Self { bits: [[0; 32]; 3], words: [0; 3], priority: [0; 1024], best: [NONE; 3] }
    }
}

impl Candidates {
    pub fn insert(&mut self, intid: u32, group: usize, priority: u8) {
        let (word, mask) = ((intid >> 5 & 31) as usize, 1 << (intid & 31));
        if (0..3).any(|g| self.bits[g][word] & mask != 0) {
            if self.bits[group][word] & mask != 0 && self.priority[intid as usize & 1023] == priority {
                return;
            }
            self.remove(intid);
        }
        self.bits[group][word] |= mask;
        self.words[group] |= 1 << word;
        self.priority[intid as usize & 1023] = priority;
        self.best[group] = self.best[group].min(key(priority, intid));
    }
    pub fn remove(&mut self, intid: u32) {
        let (word, mask) = ((intid >> 5 & 31) as usize, 1 << (intid & 31));
        for group in 0..3 {
            if self.bits[group][word] & mask != 0 {
                self.bits[group][word] &= !mask;
                if self.bits[group][word] == 0 {
                    self.words[group] &= !(1 << word);
                }
                if key_intid(self.best[group]) == intid {
                    self.best[group] = self.scan(group);
                }
            }
        }
    }
    fn scan(&self, group: usize) -> u32 {
        let (mut best, mut words) = (NONE, self.words[group]);
        while words != 0 {
            let word = words.trailing_zeros();
            words &= words - 1;
            let mut bits = self.bits[group][word as usize];
            while bits != 0 {
                let intid = word * 32 + bits.trailing_zeros();
                bits &= bits - 1;
                best = best.min(key(self.priority[intid as usize & 1023], intid));
            }
        }
        best
    }
    pub fn best(&self) -> [u32; 3] {
        self.best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_keep_the_best() {
        let mut set = Candidates::default();
        set.insert(40, GROUP1_NS, 0xa0);
        set.insert(900, GROUP1_NS, 0x80);
        set.insert(41, GROUP0, 0xf8);
        assert_eq!(set.best(), [key(0xf8, 41), NONE, key(0x80, 900)]);
        set.insert(900, GROUP1_NS, 0xb0);
        assert_eq!(set.best()[GROUP1_NS], key(0xa0, 40));
        set.insert(40, GROUP0, 0x10);
        assert_eq!(set.best(), [key(0x10, 40), NONE, key(0xb0, 900)]);
        set.remove(40);
        set.remove(41);
        set.remove(41);
        set.remove(900);
        assert_eq!(set.best(), [NONE; 3]);
    }

    #[test]
    fn triggers() {
        let mut irqs = Irqs { enabled: !0, edge: 2, ..Irqs::default() };
        irqs.set_level(0, true);
        irqs.set_level(1, true);
        irqs.set_level(1, false);
        assert_eq!(irqs.pending(), 3);
        irqs.activate(1);
        irqs.set_level(0, false);
        assert_eq!((irqs.pending(), irqs.active), (0, 2));
        irqs.set_config(1, 0xffff_ffff, !0);
        assert_eq!((irqs.edge, irqs.config(1), irqs.config(0)), (0xffff_0002, 0xaaaa_aaaa, 8));
    }
}
