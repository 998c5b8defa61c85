//! Where an operating system goes on after suspend to RAM (ACPI specification 6.5, 5.2.10 and 16.3.2).

/// Bytes of a FACS that are looked at.
pub const FACS_LEN: usize = 64;
const VECTOR: usize = 12;
const X_VECTOR: usize = 24;
const VERSION: usize = 32;

/// The address, and the mode the processor is in there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakingVector {
    /// Real mode: the address is CS times 16 plus IP, which is below 16.
    Real(u32),
    /// Protected mode without paging, flat segments, interrupts off.
    Protected(u32),
}

impl WakingVector {
    /// What the system has noted in the FACS; `None`: nothing, or nothing that can be reached.
    #[must_use]
    pub fn of_facs(facs: &[u8; FACS_LEN]) -> Option<Self> {
        let word = |at: usize| facs[at..at + 4].iter().rev().fold(0u32, |v, b| v << 8 | u32::from(*b));
        if facs[..4] != *b"FACS" {
            return None;
        }
        if facs[VERSION] >= 1 && (word(X_VECTOR) | word(X_VECTOR + 4)) != 0 {
            return (word(X_VECTOR + 4) == 0).then_some(Self::Protected(word(X_VECTOR)));
        }
        let vector = word(VECTOR);
        (1..1 << 20).contains(&vector).then_some(Self::Real(vector))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors() {
        let mut facs = [0; FACS_LEN];
        facs[..4].copy_from_slice(b"FACS");
        facs[VERSION] = 1;
        assert_eq!(WakingVector::of_facs(&facs), None);
        facs[VECTOR..VECTOR + 4].copy_from_slice(&0x9_1230u32.to_le_bytes());
        assert_eq!(WakingVector::of_facs(&facs), Some(WakingVector::Real(0x9_1230)));
        facs[X_VECTOR..X_VECTOR + 4].copy_from_slice(&0x12_3456u32.to_le_bytes());
        assert_eq!(WakingVector::of_facs(&facs), Some(WakingVector::Protected(0x12_3456)));
        // The long vector is of version 1 only, and has to lie below 4 GiB.
        facs[VERSION] = 0;
        assert_eq!(WakingVector::of_facs(&facs), Some(WakingVector::Real(0x9_1230)));
        facs[VERSION] = 1;
        facs[X_VECTOR + 4] = 1;
        assert_eq!(WakingVector::of_facs(&facs), None);
        facs[X_VECTOR..X_VECTOR + 8].fill(0);
        facs[VECTOR + 2] = 0x10;
        assert_eq!(WakingVector::of_facs(&facs), None);
        facs[VECTOR + 2] = 9;
        facs[0] = b'X';
        assert_eq!(WakingVector::of_facs(&facs), None);
    }
}
