//! Pages of the allocator's memory. It asks for huge ones for all of it, which a translator of code gains from; but most of such a page
//! is never used, and where the processor runs guest code itself that would be half of what the program takes.
#![expect(unsafe_code, reason = "advice on memory")]

use rustix::mm::{Advice, madvise};

/// Whether the allocator's memory gets huge pages from now on.
pub fn set_huge_pages(on: bool) {
    let probe = Box::new(0u8);
    let Some((start, end)) = mapping_of((&raw const *probe).addr()) else { return };
    let advice = if on { Advice::LinuxHugepage } else { Advice::LinuxNoHugepage };
    // SAFETY: advice of this kind changes nothing but the size of pages that are not there yet. An error is a kernel that has none.
    let _ = unsafe { madvise(std::ptr::without_provenance_mut(start), end - start, advice) };
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
        set_huge_pages(false);
        set_huge_pages(true);
    }
}
