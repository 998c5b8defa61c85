//! Accesses that left guest code.

use rhea_memory::{Access, AddressSpace, Gpa};

/// Does an access of up to eight bytes in natural pieces, as it may begin anywhere. `absent` is read where nothing is; writes to nothing
/// are lost. The data that was read, or `data`.
pub fn access(
    space: &AddressSpace,
    address: u64,
    access: Access,
    write: bool,
    mut data: [u8; 8],
    absent: u64,
) -> [u8; 8] {
    let len = usize::from(access.size.min(8));
    let mut at = 0;
    while at < len {
        let gpa = address.wrapping_add(at as u64);
        let mut n = if len - at == len && len.is_power_of_two() { len } else { 1 };
        while n < len - at && 2 * n <= len - at && gpa.is_multiple_of(2 * n as u64) {
            n *= 2;
        }
        let piece = Access { size: n as u8, ..access };
        let mut word = [0; 8];
        if write {
            word[..n].copy_from_slice(&data[at..at + n]);
            let _ = space.store(Gpa(gpa), u64::from_le_bytes(word), piece);
        } else {
            let value = space.load(Gpa(gpa), piece).unwrap_or(absent);
            data[at..at + n].copy_from_slice(&value.to_le_bytes()[..n]);
        }
        at += n;
    }
    data
}
