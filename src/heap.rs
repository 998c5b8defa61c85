//! The allocator's memory. It asks for huge pages for all of it, of which most is never used, and keeps what was freed for longer than
//! a guest takes to start.
#![expect(unsafe_code, reason = "advice on memory; an option of the allocator's library")]

use libmimalloc_sys::{mi_option_set, mi_option_t};
use rustix::mm::{Advice, madvise};

/// `mi_option_purge_delay` of mimalloc.h: milliseconds until memory that was freed is given back to the host.
const PURGE_DELAY: mi_option_t = 15;
const PURGE_AFTER: std::ffi::c_long = 10;

/// The allocator's memory gets no huge pages from now on, and is given back soon after it was freed.
pub fn keep_small() {
    // SAFETY: may be called at any time.
    unsafe { mi_option_set(PURGE_DELAY, PURGE_AFTER) };
    let probe = Box::new(0u8);
    let Some((start, end)) = mapping_of((&raw const *probe).addr()) else { return };
    // SAFETY: advice of this kind changes nothing but the size of pages that are not there yet. An error is a kernel that has none.
    let _ = unsafe { madvise(std::ptr::without_provenance_mut(start), end - start, Advice::LinuxNoHugepage) };
}

/// The bounds of this process's mapping that an address is in.
fn mapping_of(address: usize) -> Option<(usize, usize)> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        let bounds = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
        (bounds.0..bounds.1).contains(&address).then_some(bounds)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mapping_is_found() {
        let probe = Box::new(0u8);
        let at = (&raw const *probe).addr();
        let (start, end) = mapping_of(at).unwrap();
        assert!(start.is_multiple_of(4096) && end.is_multiple_of(4096) && (start..end).contains(&at));
        assert!(mapping_of(8).is_none());
        keep_small();
    }
    #[test]
    fn the_option_is_the_delay() {
        // SAFETY: only reads. Its neighbours are switches.
        let before = unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert!((10..=10_000).contains(&before), "{before}");
    }
}
