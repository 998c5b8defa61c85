//! LPIs of one redistributor: their configuration and pending state, held in host memory while LPIs are on.

use super::super::irqs::{NONE, key};
use super::super::priority::PRIORITY_MASK;
use super::spec::ID_BITS;
use minicbor::{Decode, Encode};
use std::collections::BTreeSet;

/// The first LPI.
pub const FIRST: u32 = 8192;
const END: u32 = 1 << ID_BITS;

/// The LPIs of a redistributor.
#[derive(Default)]
pub struct Lpis {
    pub enabled: bool,
    pub propbaser: u64,
    pub pendbaser: u64,
    /// Configuration bytes from INTID 8192; its length is the number of LPIs.
    config: Vec<u8>,
    pending: Vec<u64>,
    /// Pending and enabled, best first.
    ready: BTreeSet<u32>,
}

/// What is saved of [`Lpis`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct SavedLpis {
    #[n(0)]
    pub enabled: bool,
    #[n(1)]
    pub propbaser: u64,
    #[n(2)]
    pub pendbaser: u64,
    #[n(3)]
    pub count: u32,
    /// (INTID, configuration byte) where it is not 0.
    #[n(4)]
    pub config: Vec<(u32, u8)>,
    #[n(5)]
    pub pending: Vec<u32>,
}

impl Lpis {
    /// The number of LPIs that GICR_PROPBASER has room for.
    pub fn count(&self) -> u32 {
        let bits = ((self.propbaser & 0x1f) as u32 + 1).min(ID_BITS);
        (1u32 << bits).min(END).saturating_sub(FIRST)
    }
    /// Turns LPIs on with the tables' contents.
    pub fn enable(&mut self, config: Vec<u8>, pending_table: &[u8]) {
        self.enabled = true;
        self.pending = vec![0; config.len().div_ceil(64)];
        self.config = config;
        self.ready.clear();
        for (n, byte) in pending_table.iter().enumerate() {
            for bit in (0..8).filter(|b| byte >> b & 1 != 0) {
                self.set_pending(FIRST + n as u32 * 8 + bit);
            }
        }
    }
    /// Turns LPIs off: the pending table's contents from INTID 8192.
    pub fn disable(&mut self) -> Vec<u8> {
        self.enabled = false;
        self.ready.clear();
        self.config = Vec::new();
        std::mem::take(&mut self.pending).iter().flat_map(|w| w.to_le_bytes()).collect()
    }
    fn index(&self, intid: u32) -> Option<usize> {
        let index = intid.checked_sub(FIRST)? as usize;
        (self.enabled && index < self.config.len()).then_some(index)
    }
    fn key_of(&self, index: usize) -> Option<u32> {
        let config = self.config[index];
        (config & 1 != 0).then(|| key(config & 0xfc & PRIORITY_MASK, FIRST + index as u32))
    }
    pub fn is_pending(&self, intid: u32) -> bool {
        self.index(intid).is_some_and(|i| self.pending[i / 64] >> (i % 64) & 1 != 0)
    }
    pub fn set_pending(&mut self, intid: u32) {
        if let Some(i) = self.index(intid) {
            self.pending[i / 64] |= 1 << (i % 64);
            if let Some(key) = self.key_of(i) {
                self.ready.insert(key);
            }
        }
    }
    /// Clears the pending state; was it set?
    pub fn clear_pending(&mut self, intid: u32) -> bool {
        let Some(i) = self.index(intid) else { return false };
        let was = self.pending[i / 64] >> (i % 64) & 1 != 0;
        self.pending[i / 64] &= !(1 << (i % 64));
        if let Some(key) = self.key_of(i) {
            self.ready.remove(&key);
        }
        was
    }
    /// All pending LPIs.
    pub fn all_pending(&self) -> Vec<u32> {
        let mut all = Vec::new();
        for (n, word) in self.pending.iter().enumerate() {
            let mut bits = *word;
            while bits != 0 {
                all.push(FIRST + n as u32 * 64 + bits.trailing_zeros());
                bits &= bits - 1;
            }
        }
        all
    }
    /// The configuration of one LPI was read anew.
    pub fn configure(&mut self, intid: u32, config: u8) {
        if let Some(i) = self.index(intid) {
            if let Some(key) = self.key_of(i) {
                self.ready.remove(&key);
            }
            self.config[i] = config;
            if self.is_pending(intid) {
                self.set_pending(intid);
            }
        }
    }
    /// The configuration of all LPIs was read anew.
    pub fn configure_all(&mut self, config: Vec<u8>) {
        if self.enabled && config.len() == self.config.len() {
            self.config = config;
            let mut ready = BTreeSet::new();
            for intid in self.all_pending() {
                if let Some(key) = self.index(intid).and_then(|i| self.key_of(i)) {
                    ready.insert(key);
                }
            }
            self.ready = ready;
        }
    }
    /// The best candidate.
    pub fn best(&self) -> u32 {
        self.ready.first().copied().unwrap_or(NONE)
    }
    pub fn save(&self) -> SavedLpis {
        let Self { enabled, propbaser, pendbaser, config, pending: _, ready: _ } = self;
        SavedLpis {
            enabled: *enabled,
            propbaser: *propbaser,
            pendbaser: *pendbaser,
            count: config.len() as u32,
            config: config.iter().enumerate().filter(|(_, c)| **c != 0).map(|(i, c)| (FIRST + i as u32, *c)).collect(),
            pending: self.all_pending(),
        }
    }
    pub fn load(&mut self, saved: &SavedLpis) {
        let SavedLpis { enabled, propbaser, pendbaser, count, config, pending } = saved;
        *self = Self { propbaser: *propbaser, pendbaser: *pendbaser, ..Self::default() };
        if *enabled {
            self.enable(vec![0; (*count).min(END - FIRST) as usize], &[]);
            for (intid, byte) in config {
                self.configure(*intid, *byte);
            }
            for intid in pending {
                self.set_pending(*intid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_and_configuration() {
        let mut lpis = Lpis { propbaser: 13, ..Lpis::default() };
        assert_eq!(lpis.count(), 8192);
        let mut config = vec![0xa1; 8192];
        config[5] = 0x81;
        config[6] = 0x80;
        lpis.enable(config, &[0x70]);
        assert_eq!(lpis.best(), key(0x80, FIRST + 5));
        assert!(lpis.clear_pending(FIRST + 5));
        assert_eq!(lpis.best(), key(0xa0, FIRST + 4));
        lpis.configure(FIRST + 6, 0x11);
        assert_eq!(lpis.best(), key(0x10, FIRST + 6));
        lpis.set_pending(FIRST + 8192);
        lpis.set_pending(3);
        let saved = lpis.save();
        let mut other = Lpis::default();
        other.load(&saved);
        assert_eq!((other.save(), other.best()), (saved, lpis.best()));
        assert_eq!(lpis.disable()[0], 0x50);
        assert_eq!(lpis.best(), NONE);
    }
}
