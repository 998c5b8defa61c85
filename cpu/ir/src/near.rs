//! Registers in another order than their numbers': those that programs use most come first, which generated code reaches with a
//! displacement of one byte.

use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

/// Where each register is.
pub trait Places<const N: usize> {
    const PLACES: [u8; N];
}

/// Places where those of `first` come first, the others after them, both in the order given.
///
/// # Panics
/// A number in `first` that is not below `N`, or that comes twice.
pub const fn places<const N: usize>(first: &[u8]) -> [u8; N] {
    let mut all = [u8::MAX; N];
    let mut place = 0;
    while place < first.len() {
        let n = first[place] as usize;
        assert!(all[n] == u8::MAX, "a register has one place");
        all[n] = place as u8;
        place += 1;
    }
    let mut n = 0;
    while n < N {
        if all[n] == u8::MAX {
            all[n] = place as u8;
            place += 1;
        }
        n += 1;
    }
    all
}

/// Registers of 64 bits, indexed by number.
#[repr(transparent)]
pub struct Registers<P: Places<N>, const N: usize>([u64; N], PhantomData<P>);

impl<P: Places<N>, const N: usize> Registers<P, N> {
    /// Offset in bytes of register `n`.
    pub const fn offset(n: u32) -> usize {
        8 * P::PLACES[n as usize] as usize
    }
    /// All of them in the order of their numbers.
    pub fn all(&self) -> [u64; N] {
        std::array::from_fn(|n| self[n])
    }
}

impl<P: Places<N>, const N: usize> From<[u64; N]> for Registers<P, N> {
    fn from(all: [u64; N]) -> Self {
        let mut to = Registers([0; N], PhantomData);
        all.into_iter().enumerate().for_each(|(n, v)| to[n] = v);
        to
    }
}

impl<P: Places<N>, const N: usize> Index<usize> for Registers<P, N> {
    type Output = u64;
    fn index(&self, n: usize) -> &u64 {
        &self.0[P::PLACES[n] as usize]
    }
}
impl<P: Places<N>, const N: usize> IndexMut<usize> for Registers<P, N> {
    fn index_mut(&mut self, n: usize) -> &mut u64 {
        &mut self.0[P::PLACES[n] as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Five;
    impl Places<5> for Five {
        const PLACES: [u8; 5] = places(&[3, 1]);
    }

    #[test]
    fn by_number_and_by_place() {
        assert_eq!(Five::PLACES, [2, 1, 3, 0, 4]);
        let mut r = Registers::<Five, 5>::from([10, 11, 12, 13, 14]);
        assert_eq!((r.0, r.all()), ([13, 11, 10, 12, 14], [10, 11, 12, 13, 14]));
        r[4] = 5;
        assert_eq!((r[4], r.0[4], Registers::<Five, 5>::offset(4), Registers::<Five, 5>::offset(3)), (5, 5, 32, 0));
    }
}
