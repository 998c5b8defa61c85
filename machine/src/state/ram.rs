//! Pages of RAM in a saved machine.
//!
//! The content of a section: number of the first page (u64), number of pages (u16, at most [`BATCH`]), a bit for each page that is not
//! all zero (32 bytes), those pages.

use super::stream::{Kind, Result, Section, StateError, Writer};
use rhea_memory::{PAGE_SIZE, RamBlock};
use std::io::Write;
use std::sync::Arc;

/// Pages in a section.
pub const BATCH: u64 = 256;
const PAGE: usize = PAGE_SIZE as usize;
const MAP: usize = BATCH as usize / 8;
const HEAD: usize = 10 + MAP;
/// Bytes of a section's content, at most.
pub const MOST: u32 = (HEAD + BATCH as usize * PAGE) as u32;

fn is_zero(page: &[u8]) -> bool {
    page.as_chunks::<16>().0.iter().all(|c| u128::from_ne_bytes(*c) == 0)
}

/// The content of a section of `count` pages (at most [`BATCH`]) from `first` on.
pub fn content(block: &RamBlock, first: u64, count: u64) -> Result<Vec<u8>> {
    let mut content = vec![0; HEAD];
    content[..8].copy_from_slice(&first.to_le_bytes());
    content[8..10].copy_from_slice(&(count as u16).to_le_bytes());
    let mut pages = vec![0; count as usize * PAGE];
    let fail = |_| StateError::Other(format!("memory '{}' cannot be read", block.name()));
    block.read(first * PAGE_SIZE, &mut pages).map_err(fail)?;
    for (n, page) in pages.chunks(PAGE).enumerate() {
        if !is_zero(page) {
            content[10 + n / 8] |= 1 << (n % 8);
            content.extend_from_slice(page);
        }
    }
    Ok(content)
}

/// Writes `count` pages (at most [`BATCH`]) from `first` on.
pub fn write<W: Write>(writer: &mut Writer<W>, block: &RamBlock, first: u64, count: u64) -> Result<()> {
    writer.section(Kind::Pages, block.name(), 1, &content(block, first, count)?)
}

/// Groups numbers of pages, which rise, into runs of at most [`BATCH`]: first and count.
pub fn runs(pages: &[u64]) -> Vec<(u64, u64)> {
    let mut all: Vec<(u64, u64)> = Vec::new();
    for page in pages {
        match all.last_mut() {
            Some((first, count)) if *first + *count == *page && *count < BATCH => *count += 1,
            _ => all.push((*page, 1)),
        }
    }
    all
}

/// Calls `f` for each page of a section, with the number of its block and its own; `None` is a page of zeros. How many pages there are.
/// Nothing is called if the section is not as it should be.
pub fn each(
    section: &Section,
    blocks: &[Arc<RamBlock>],
    mut f: impl FnMut(usize, u64, Option<&[u8; PAGE]>) -> Result<()>,
) -> Result<u64> {
    let number = blocks.iter().position(|b| b.name() == section.name);
    let number = number.ok_or_else(|| section.error("the machine has no such memory"))?;
    let data = &section.data;
    if section.version != 1 || data.len() < HEAD {
        return Err(section.error("it is no list of pages"));
    }
    let first = u64::from_le_bytes(data[..8].try_into().unwrap_or_default());
    let count = u64::from(u16::from_le_bytes([data[8], data[9]]));
    let map = &data[10..HEAD];
    let here = |n: u64| map[n as usize / 8] & 1 << (n % 8) != 0;
    let full = map.iter().map(|b| b.count_ones() as usize).sum::<usize>();
    if count > BATCH
        || first.checked_add(count).is_none_or(|end| end > blocks[number].len() / PAGE_SIZE)
        || (count..BATCH).any(here)
        || data.len() != HEAD + full * PAGE
    {
        return Err(
            section.error(format!("page {first}: there is no room for {count} pages, or they are not all here"))
        );
    }
    let mut pages = data[HEAD..].as_chunks::<PAGE>().0.iter();
    for n in 0..count {
        f(number, first + n, if here(n) { pages.next() } else { None })?;
    }
    Ok(count)
}

/// Takes over the pages of a section, if `apply`; checks it in any case. How many pages there are.
pub fn read(section: &Section, blocks: &[Arc<RamBlock>], apply: bool) -> Result<u64> {
    const ZERO: [u8; PAGE] = [0; PAGE];
    let mut old = [0; PAGE];
    each(section, blocks, |block, number, page| {
        if !apply {
            return Ok(());
        }
        let (block, at, page) = (&blocks[block], number * PAGE_SIZE, page.unwrap_or(&ZERO));
        // What is there already costs neither memory of the host nor translations.
        let _ = block.read(at, &mut old);
        if old != *page && block.write(at, page).is_err() {
            return Err(section.error(format!("page {number}: it cannot be written")));
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::super::stream::Reader;
    use super::*;

    #[test]
    fn pages_arrive() {
        let from = RamBlock::anonymous("ram", 600 * PAGE_SIZE).unwrap();
        let to = RamBlock::anonymous("ram", 600 * PAGE_SIZE).unwrap();
        for n in [0u64, 3, 255, 256, 599] {
            from.fill(n * PAGE_SIZE, PAGE_SIZE, n as u8 + 1).unwrap();
        }
        to.fill(PAGE_SIZE, PAGE_SIZE, 9).unwrap();
        let mut w = Writer::new(Vec::new()).unwrap();
        for (first, count) in runs(&(0..600).collect::<Vec<_>>()) {
            write(&mut w, &from, first, count).unwrap();
        }
        let bytes = w.finish().unwrap();
        assert!(bytes.len() < 6 * 4096);
        let mut r = Reader::new(&bytes[..]).unwrap();
        let mut pages = 0;
        while let Some(section) = r.next().unwrap() {
            assert!(read(&section, &[], true).is_err());
            pages += read(&section, std::slice::from_ref(&to), true).unwrap();
        }
        assert_eq!(pages, 600);
        let (mut a, mut b) = (vec![0; 600 * 4096], vec![0; 600 * 4096]);
        from.read(0, &mut a).unwrap();
        to.read(0, &mut b).unwrap();
        assert!(a == b);
    }

    #[test]
    fn runs_are_bounded() {
        assert_eq!(runs(&[1, 2, 3, 7, 9, 10]), [(1, 3), (7, 1), (9, 2)]);
        assert_eq!(runs(&(0..600).collect::<Vec<_>>()), [(0, 256), (256, 256), (512, 88)]);
    }

    #[test]
    fn impossible_pages_are_refused() {
        let to = [RamBlock::anonymous("ram", 4 * PAGE_SIZE).unwrap()];
        let section = |first: u64, count: u16, map: u8, len: usize| {
            let mut data = first.to_le_bytes().to_vec();
            data.extend(count.to_le_bytes());
            data.push(map);
            data.resize(HEAD + len, 0);
            Section { kind: Kind::Pages, name: "ram".to_owned(), version: 1, data }
        };
        assert_eq!(read(&section(0, 4, 0, 0), &to, true).unwrap(), 4);
        for bad in [
            section(0, 5, 0, 0),
            section(u64::MAX, 2, 0, 0),
            section(0, 2, 4, PAGE),
            section(0, 2, 1, 0),
            section(0, 2, 1, PAGE - 1),
            section(0, 300, 0, 0),
        ] {
            assert!(read(&bad, &to, true).is_err());
        }
        assert!(read(&Section { data: vec![0; 9], ..section(0, 0, 0, 0) }, &to, true).is_err());
    }
}
