//! A set of the 256 vectors that several threads change.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// IRR, ISR or TMR. Sequentially consistent: see the locks of [`super`].
#[derive(Default)]
pub struct Vectors([AtomicU64; 4]);

impl Vectors {
    #[inline]
    fn word(&self, vector: u8) -> (&AtomicU64, u64) {
        (&self.0[usize::from(vector >> 6)], 1 << (vector & 63))
    }
    #[inline]
    pub fn set(&self, vector: u8) {
        let (word, bit) = self.word(vector);
        word.fetch_or(bit, SeqCst);
    }
    /// Takes the vector out; was it there?
    #[inline]
    pub fn clear(&self, vector: u8) -> bool {
        let (word, bit) = self.word(vector);
        word.fetch_and(!bit, SeqCst) & bit != 0
    }
    #[inline]
    pub fn assign(&self, vector: u8, value: bool) {
        if self.contains(vector) != value {
            if value {
                self.set(vector);
            } else {
                self.clear(vector);
            }
        }
    }
    #[inline]
    pub fn contains(&self, vector: u8) -> bool {
        let (word, bit) = self.word(vector);
        word.load(SeqCst) & bit != 0
    }
    /// The highest vector.
    #[inline]
    pub fn highest(&self) -> Option<u8> {
        for (n, word) in self.0.iter().enumerate().rev() {
            let bits = word.load(SeqCst);
            if bits != 0 {
                return Some((n as u32 * 64 + bits.ilog2()) as u8);
            }
        }
        None
    }
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|w| w.load(SeqCst) == 0)
    }
    /// 32 vectors, from 32 * `index` (0 to 7).
    pub fn half(&self, index: u32) -> u32 {
        (self.0[(index as usize >> 1) & 3].load(SeqCst) >> (32 * (index & 1))) as u32
    }
    pub fn store(&self, words: [u64; 4]) {
        for (word, value) in self.0.iter().zip(words) {
            word.store(value, SeqCst);
        }
    }
    pub fn load(&self) -> [u64; 4] {
        [0, 1, 2, 3].map(|n: usize| self.0[n].load(SeqCst))
    }
    /// The vectors as text, rising.
    pub fn list(&self) -> String {
        let words = self.load();
        let all = (0..=255u8).filter(|v| words[usize::from(v >> 6)] >> (v & 63) & 1 != 0);
        let text: Vec<_> = all.map(|v| v.to_string()).collect();
        if text.is_empty() { "(none)".to_owned() } else { text.join(" ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn highest_of_many() {
        let set = Vectors::default();
        assert!(set.is_empty() && set.highest().is_none());
        for v in [0, 63, 64, 200, 255] {
            set.set(v);
            assert_eq!(set.highest(), Some(v));
            assert!(set.contains(v));
        }
        assert_eq!((set.half(0), set.half(1), set.half(2), set.half(7)), (1, 1 << 31, 1, 1 << 31));
        assert_eq!(set.list(), "0 63 64 200 255");
        assert!(set.clear(255) && !set.clear(255));
        assert_eq!(set.highest(), Some(200));
        set.assign(200, false);
        assert_eq!(set.highest(), Some(64));
    }
}
