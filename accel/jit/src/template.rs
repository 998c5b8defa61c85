//! Code of the cheap tier that serves at several guest addresses.
//!
//! Each start of a program puts its code and its libraries somewhere else, in the same pages of memory. A block that is met at a second
//! address is compiled twice more, for two addresses far apart; what differs between the two is where addresses stand, and the numbers and
//! pointers that belong to one block. From then on it is copied, with these put in, in place of being translated again.
//!
//! In both, constants in reach of the code are left alone but for sums ([`rhea_ir::func::Function::moves`]), so that
//! nothing is derived from where the code happens to be; a difference that is not accounted for makes no template.

use crate::cache::{Key, PageId, Range, Ranges};
use crate::fetch::fetch_slot;
use crate::translate::CodePage;
use crate::x64::{CodeBlob, Entry, LinkSite};
use rhea_ir::env::PAGE_SIZE;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Programs whose addresses change are above what fits 32 bits with room to reach, and in the lower half.
const LOWEST: u64 = 3 << 31;
const HIGHEST: u64 = 1 << 48;
/// Between the two addresses a template is made from: whole pages, and bits unlike any constant's.
const APART: u64 = 0x1235_6789_a000;
/// What is added to a block's number and pointers for the second.
const OTHER_ID: u32 = 0x0123_4567;
const OTHER_POINTERS: usize = 0x2_4680_2460;
/// Reach of constants that depend on where code is, to either side.
const REACH: u64 = 1 << 31;
/// Blocks remembered, and bytes of templates. When there are more, all are forgotten.
const MOST: usize = 1 << 17;
const MOST_BYTES: usize = 32 << 20;

/// What stands at a place of the code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// An address: the block's page and this.
    Address(u64),
    /// An exit reason with the block's number: these are its lower bits.
    Reason(u64),
    Targets,
    /// Four bytes: four times the fetch slot of an address, the block's page and this.
    Slot(u64),
}

pub struct Template {
    /// Offset in the page and bytes that it was made from.
    from: u16,
    guest: Box<[u8]>,
    code: Box<[u8]>,
    places: Box<[(u32, Kind)]>,
    cold: u32,
    crossings: Box<[u32]>,
    links: Box<[LinkSite]>,
    leave: u32,
    counts: Option<[u32; 2]>,
    /// It notes where its indirect branch goes.
    pub notes: bool,
    /// The page's address that it stands for as it is.
    page: u64,
}

/// What is known of the code at a place in memory.
enum Known {
    /// Met at this address.
    Once(u64),
    Template(Arc<Template>),
    /// Cannot be used elsewhere.
    Never,
}

/// What to do for a block.
pub enum Advice {
    Copy(Arc<Template>),
    /// Translate it, and make a template of it.
    Learn,
    Translate,
}

#[derive(Default)]
pub struct Templates {
    known: FxHashMap<Key, Known>,
    /// Of all templates made since all were forgotten.
    bytes: usize,
}

fn place(key: &Key) -> Option<Key> {
    (LOWEST..HIGHEST).contains(&key.pc).then_some(Key { pc: 0, ..*key })
}

impl Templates {
    /// Asked before a block is made.
    pub fn advice(&mut self, key: &Key) -> Advice {
        let Some(place) = place(key) else { return Advice::Translate };
        if self.known.len() >= MOST || self.bytes >= MOST_BYTES {
            *self = Self::default();
        }
        match self.known.entry(place).or_insert(Known::Once(key.pc)) {
            Known::Template(t) => Advice::Copy(t.clone()),
            Known::Once(pc) if *pc != key.pc => Advice::Learn,
            Known::Once(_) | Known::Never => Advice::Translate,
        }
    }
    /// What came of [`Advice::Learn`].
    pub fn learn(&mut self, key: &Key, made: Option<Template>) {
        if let Some(place) = place(key) {
            self.bytes += made.as_ref().map_or(0, Template::bytes);
            self.known.insert(place, made.map_or(Known::Never, |t| Known::Template(Arc::new(t))));
        }
    }
    /// The memory has other code now.
    pub fn forget(&mut self, key: &Key) {
        if let Some(place) = place(key) {
            self.known.insert(place, Known::Once(key.pc));
        }
    }
}

/// The address that a template for `pc` is compared at.
pub fn other_pc(pc: u64) -> u64 {
    if pc < HIGHEST / 2 { pc + APART } else { pc - APART }
}
pub fn other_entry(e: Entry) -> Entry {
    let targets = if e.targets == 0 { 0 } else { e.targets.wrapping_add(OTHER_POINTERS) };
    Entry { id: e.id.wrapping_add(OTHER_ID), targets, ..e }
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
fn half(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

impl Template {
    /// What it takes, about.
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.code.len() + self.guest.len() + size_of_val(&*self.places) + size_of_val(&*self.links)
    }

    /// From code for `pc` and for [`other_pc`], whose entries are `entry` and [`other_entry`], made from `range` of `page`. `None`
    /// if they differ in more than what can be put in.
    pub fn new(
        pc: u64,
        entry: Entry,
        (one, two): (&CodeBlob, &CodeBlob),
        range: &Range,
        page: &CodePage,
    ) -> Option<Template> {
        let other = other_entry(entry);
        let base = pc & !(PAGE_SIZE - 1);
        let apart = other_pc(pc).wrapping_sub(pc);
        let (a, b) = (&one.bytes, &two.bytes);
        if a.len() != b.len()
            || one.leave != two.leave
            || one.cold != two.cold
            || one.crossings != two.crossings
            || one.links.len() != two.links.len()
            || one.counts != two.counts
            || !entry.counted
        {
            return None;
        }
        let mut places = Vec::new();
        for (x, y) in one.links.iter().zip(&two.links) {
            if x.at != y.at || x.identity_at != y.identity_at || y.pc != x.pc.wrapping_add(apart) {
                return None;
            }
            if let Some(n) = x.identity_at {
                // cmp dword [rdx + disp32], imm32
                let at = (n as usize).checked_sub(4)?;
                let slot = |pc: u64| fetch_slot(pc) as u32 * 4;
                if a.get(at.checked_sub(2)?..at)? != [0x81, 0xba]
                    || half(a, at)? != slot(x.pc)
                    || half(b, at)? != slot(y.pc)
                {
                    return None;
                }
                places.push((at as u32, Kind::Slot(x.pc.wrapping_sub(base))));
            }
        }
        let kind = |at: usize| {
            let (x, y) = (word(a, at)?, word(b, at)?);
            let moved = y.wrapping_sub(x);
            if moved == apart && x.wrapping_sub(base).wrapping_add(REACH) < 2 * REACH {
                Some(Kind::Address(x.wrapping_sub(base)))
            } else if x >> 16 == u64::from(entry.id) && y >> 16 == u64::from(other.id) && (x ^ y) & 0xffff == 0 {
                Some(Kind::Reason(x & 0xffff))
            } else if entry.targets != 0 && x == entry.targets as u64 && y == other.targets as u64 {
                Some(Kind::Targets)
            } else {
                None
            }
        };
        let mut n = 0;
        // The end of the last place.
        let mut end = 0;
        while n < a.len() {
            if let Some((at, _)) = places.iter().find(|(at, k)| matches!(k, Kind::Slot(_)) && *at as usize == n) {
                end = *at as usize + 4;
                n = end;
                continue;
            }
            if a[n] == b[n] {
                n += 1;
                continue;
            }
            let mut found = (n.saturating_sub(7).max(end)..=n).filter_map(|at| Some((at, kind(at)?)));
            let (at, kind) = found.next()?;
            if found.next().is_some() {
                return None;
            }
            places.push((at as u32, kind));
            end = at + 8;
            n = end;
        }
        Some(Template {
            from: range.from,
            guest: page.bytes_between(range.from.into(), range.to.into())?.into(),
            code: a.clone(),
            places: places.into(),
            cold: one.cold,
            crossings: one.crossings.clone(),
            links: one.links.clone().into(),
            leave: one.leave,
            counts: one.counts,
            notes: entry.targets != 0,
            page: base,
        })
    }

    /// The code for another address, and what it is made from; `None` if the page has other bytes there.
    pub fn at(&self, pc: u64, entry: Entry, page: &CodePage) -> Option<(Ranges, CodeBlob)> {
        let to = self.from as usize + self.guest.len();
        if page.bytes_between(self.from.into(), to)? != &*self.guest {
            return None;
        }
        let base = pc & !(PAGE_SIZE - 1);
        let mut bytes = self.code.clone();
        for &(at, kind) in &self.places {
            let at = at as usize;
            let mut put = |v: u64| bytes.get_mut(at..at + 8).map(|b| b.copy_from_slice(&v.to_le_bytes()));
            match kind {
                Kind::Address(from_base) => put(base.wrapping_add(from_base))?,
                Kind::Reason(low) => put(u64::from(entry.id) << 16 | low)?,
                Kind::Targets => put(entry.targets as u64)?,
                Kind::Slot(from_base) => {
                    let slot = fetch_slot(base.wrapping_add(from_base)) as u32 * 4;
                    bytes.get_mut(at..at + 4)?.copy_from_slice(&slot.to_le_bytes());
                }
            }
        }
        let moved = base.wrapping_sub(self.page);
        let links = self.links.iter().map(|l| LinkSite { pc: l.pc.wrapping_add(moved), ..*l }).collect();
        let id: PageId = page.id;
        let ranges = Ranges::from_elem(Range { page: id, from: self.from, to: to as u16 }, 1);
        let (cold, crossings) = (self.cold, self.crossings.clone());
        Some((ranges, CodeBlob { bytes, cold, crossings, links, leave: self.leave, counts: self.counts }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x64::{Region, RuntimeFns, compile};
    use rhea_ir::func::{Builder, Function};
    use rhea_ir::guest::FpMode;
    use rhea_ir::op::Op;
    use rhea_ir::types::{MemOp, Slot, Type};

    const PC: u64 = 0x7f12_3456_7890;
    const SLOTS: usize = 4096;

    /// Code that computes with addresses around it, reads beside it, and leaves for this page, another one and a computed address.
    fn blob(pc: u64, entry: Entry, movable: bool) -> CodeBlob {
        let mut f = Function::new(FpMode::default());
        f.eager = true;
        f.movable = movable.then_some(pc & !(PAGE_SIZE - 1));
        let id = f.new_block(pc);
        let mut b = Builder::new(&mut f, &[], id);
        let slot = |n: usize| Slot::new(SLOTS + 8 * n, Type::I64);
        let here = b.iconst(Type::I64, pc.wrapping_add(0x123));
        let far = b.bin_imm(Op::Add, here, 0x1234_5678);
        // Depends on bits of the address that two samples might have in common.
        let bit = b.bin_imm(Op::And, far, 1 << 45);
        let apart = b.bin(Op::Sub, far, here);
        let read = b.load(Type::I64, MemOp::new(3, 0), far, 16);
        for (n, v) in [here, far, bit, apart, read].into_iter().enumerate() {
            b.set(slot(n), v);
        }
        if entry.targets != 0 {
            b.end_indirect_call(read, pc + 8);
        } else {
            let zero = b.iconst(Type::I64, 0);
            let cond = b.icmp(rhea_ir::op::Cond::Eq, read, zero);
            b.end_cond(cond, pc + 64, pc + 0x5000);
        }
        let fns = RuntimeFns {
            load: 0x1000,
            store: 0x2000,
            rmw: 0x3000,
            cas: 0x4000,
            probe_write: 0x5000,
            fp: 0x6000,
            fp_flags_get: 0x7000,
            fp_flags_clear: 0x8000,
            flat_index: None,
        };
        compile(&Region { func: &f, helpers: &[], fns: &fns, entry, others: &[], sites: None }).expect("code")
    }

    fn page(pc: u64, bytes: &[u8]) -> CodePage {
        let first = (pc & (PAGE_SIZE - 1)) as usize;
        let (va, id) = (pc & !(PAGE_SIZE - 1), (5, 6));
        CodePage { va, tag: va, host: 0x5000, attrs: 0, identity: 1, id, first, bytes: bytes.into() }
    }

    #[test]
    fn copies_are_what_would_be_compiled() {
        let range = Range { page: (5, 6), from: (PC & 0xfff) as u16, to: (PC & 0xfff) as u16 + 12 };
        let bytes = [7u8; 40];
        for targets in [0, 0x7f00_1234_5600] {
            let entry = Entry { id: 7, counted: true, targets };
            let two = blob(other_pc(PC), other_entry(entry), true);
            let t = Template::new(PC, entry, (&blob(PC, entry, true), &two), &range, &page(PC, &bytes))
                .expect("a template");
            assert_eq!(t.notes, targets != 0);
            for to in [PC + 0x1000, 0x2_0004_0890, 0xffff_8004_1890, other_pc(PC), PC] {
                let pointer = |p: usize| if p == 0 { 0 } else { 0x7f00_0000_2000 + p % 4096 };
                let entry = Entry { id: 0x7fff_1234, counted: true, targets: pointer(targets) };
                let (ranges, copy) = t.at(to, entry, &page(to, &bytes)).expect("a copy");
                let direct = blob(to, entry, true);
                assert_eq!(
                    (copy.bytes, copy.links, copy.leave, copy.cold, copy.crossings, copy.counts),
                    (direct.bytes, direct.links, direct.leave, direct.cold, direct.crossings, direct.counts)
                );
                assert_eq!((ranges[0].from, ranges[0].to), (range.from, range.to));
            }
            // Other bytes.
            let mut other = bytes;
            other[11] = 8;
            assert!(t.at(PC, entry, &page(PC, &other)).is_none());
            other = bytes;
            other[12] = 8;
            assert!(t.at(PC, entry, &page(PC, &other)).is_some());
        }
    }

    /// Not made to be moved: what was computed from the address ahead differs by something else.
    #[test]
    fn what_depends_on_the_address_makes_no_template() {
        let range = Range { page: (5, 6), from: (PC & 0xfff) as u16, to: (PC & 0xfff) as u16 + 12 };
        let entry = Entry { id: 7, counted: true, targets: 0 };
        let two = blob(other_pc(PC), other_entry(entry), false);
        assert!(Template::new(PC, entry, (&blob(PC, entry, false), &two), &range, &page(PC, &[7; 40])).is_none());
    }

    #[test]
    fn learnt_at_the_second_address() {
        let mut all = Templates::default();
        let key = |pc| Key { pc, host: 0x7000, mode: 1, attrs: 0 };
        assert!(matches!(all.advice(&key(PC)), Advice::Translate));
        assert!(matches!(all.advice(&key(PC)), Advice::Translate));
        assert!(matches!(all.advice(&key(PC + 0x1000)), Advice::Learn));
        all.learn(&key(PC + 0x1000), None);
        assert!(matches!(all.advice(&key(PC)), Advice::Translate));
        all.forget(&key(PC));
        assert!(matches!(all.advice(&key(PC + 0x1000)), Advice::Learn));
        // Too much: all is forgotten.
        all.bytes = MOST_BYTES;
        assert!(matches!(all.advice(&key(PC + 0x2000)), Advice::Translate));
        assert!(matches!(all.advice(&key(PC)), Advice::Learn));
        // Addresses that fit 32 bits, and the kernel's.
        for pc in [0x40_1000, 0xffff_ffff_8100_0000] {
            assert!(matches!(all.advice(&key(pc)), Advice::Translate));
            assert!(matches!(all.advice(&key(pc + 0x1000)), Advice::Translate));
        }
    }
}
