//! The hashed page table of the partition, kept on the host: entries and the hypercalls on them (LoPAPR 14.5.4.1).

use super::memory::GuestRam;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rhea_irqchip::spapr::papr::Status;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Fields of the first doubleword of an entry (Power ISA Book III, 6.7.8.1).
pub mod pte0 {
    pub const VALID: u64 = 1;
    pub const SECONDARY: u64 = 2;
    pub const LARGE: u64 = 4;
    /// B and AVPN, without the bits that software keeps.
    pub const AVPN: u64 = 0xffff_ffff_ffff_ff80;
    /// Segment size: 1 TiB.
    pub const SEGMENT_1T: u64 = 0x4000_0000_0000_0000;
    pub const SEGMENT: u64 = 0xc000_0000_0000_0000;
}
/// Fields of the second doubleword.
pub mod pte1 {
    pub const PP0: u64 = 0x8000_0000_0000_0000;
    pub const KEY_HIGH: u64 = 0x3000_0000_0000_0000;
    pub const RPN: u64 = 0x0fff_ffff_ffff_f000;
    pub const KEY_LOW: u64 = 0xe00;
    pub const REFERENCED: u64 = 0x100;
    pub const CHANGED: u64 = 0x80;
    pub const WIMG: u64 = 0x78;
    pub const NO_EXECUTE: u64 = 4;
    pub const PP: u64 = 3;
}
/// Flags of the calls (R4), by PAPR's bit numbers.
pub mod flag {
    const fn bit(n: u32) -> u64 {
        1 << (63 - n)
    }
    pub const LARGE_PAGE: u64 = bit(16);
    pub const EXACT: u64 = bit(24);
    pub const R_XLATE: u64 = bit(25);
    pub const READ_4: u64 = bit(26);
    pub const AVPN: u64 = bit(32);
    pub const ANDCOND: u64 = bit(33);
    pub const ZERO_PAGE: u64 = bit(48);
    pub const COPY_PAGE: u64 = bit(49);
}
/// H_PTEG_FULL.
const PTEG_FULL: Status = Status(-6);
const GROUP: u64 = 8;

/// One table. Entries are read without a lock; writers make an entry invalid first and valid last.
pub struct Table {
    order: u32,
    entries: Vec<[AtomicU64; 2]>,
}

impl Table {
    /// An empty table of `1 << order` bytes; order 0: none.
    #[must_use]
    pub fn new(order: u32) -> Self {
        let count = if order < MIN_ORDER { 0 } else { 1usize << (order - 4) };
        let mut entries = Vec::new();
        entries.resize_with(count, || [AtomicU64::new(0), AtomicU64::new(0)]);
        Self { order, entries }
    }
    #[must_use]
    pub fn order(&self) -> u32 {
        self.order
    }
    /// The entry `index`; zeros beyond the table.
    #[must_use]
    pub fn read(&self, index: u64) -> [u64; 2] {
        let Some(e) = usize::try_from(index).ok().and_then(|n| self.entries.get(n)) else { return [0; 2] };
        // The second doubleword belongs to the first only if that is the same before and after.
        loop {
            let first = e[0].load(Ordering::Acquire);
            let second = e[1].load(Ordering::Acquire);
            if e[0].load(Ordering::Acquire) == first {
                return [first, second];
            }
        }
    }
    fn write(&self, index: u64, value: [u64; 2]) {
        if let Some(e) = self.entries.get(index as usize) {
            e[0].store(0, Ordering::Release);
            e[1].store(value[1], Ordering::Release);
            e[0].store(value[0], Ordering::Release);
        }
    }
    /// Sets bits of the second doubleword if the entry is still `old`.
    pub fn update(&self, index: u64, old: [u64; 2], set: u64) -> bool {
        let Some(e) = usize::try_from(index).ok().and_then(|n| self.entries.get(n)) else { return false };
        e[0].load(Ordering::Acquire) == old[0]
            && e[1].compare_exchange(old[1], old[1] | set, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
    fn len(&self) -> u64 {
        self.entries.len() as u64
    }
    fn groups(&self) -> u64 {
        self.len() / GROUP
    }
}

/// The smallest and the largest table: 256 KiB, 64 GiB. Hosts are asked for memory of what is used only.
pub const MIN_ORDER: u32 = 18;
pub const MAX_ORDER: u32 = 36;

/// A resize that the guest has begun.
struct Pending {
    order: u32,
    table: Option<Table>,
}

/// The table of the partition and the calls on it.
pub struct Hpt {
    table: ArcSwap<Table>,
    /// One change at a time; a resize that was prepared.
    change: Mutex<Option<Pending>>,
    ram: GuestRam,
    /// Pages of this size and smaller, as shifts.
    max_page_shift: u8,
    /// What a resize may not go beyond.
    max_order: u32,
}

/// The order of a table for that much RAM: a 128th of it.
#[must_use]
pub fn order_for(ram: u64) -> u32 {
    let order = ram.next_power_of_two().trailing_zeros().saturating_sub(7);
    order.clamp(MIN_ORDER, 46)
}

/// The base page size (as a shift) that an entry encodes, if it is one.
fn page_shift(v: u64, r: u64) -> Option<u8> {
    if v & pte0::LARGE == 0 {
        return Some(12);
    }
    // LP is in the low bits of RPN (Book III, 6.7.8.1): 64 KiB pages 0000_0001 in a 64 KiB segment, 16 MiB 0000_0000 (or
    // 0000_1000 in a 64 KiB segment, 0000_0111 in a 4 KiB one).
    let lp = r >> 12 & 0xff;
    match lp {
        _ if lp & 0xf == 1 => Some(16),
        0 | 8 => Some(24),
        // A 16 MiB page in a segment of 4 KiB pages keeps L set with this encoding.
        0x38 => Some(24),
        7 => Some(16),
        3 => Some(34),
        _ => None,
    }
}

impl Hpt {
    #[must_use]
    pub fn new(ram: &GuestRam, max_page_shift: u8, max_order: u32) -> Self {
        Self {
            table: ArcSwap::from_pointee(Table::new(0)),
            change: Mutex::new(None),
            ram: ram.clone(),
            max_page_shift,
            max_order,
        }
    }
    /// The table in use.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }
    /// log2 of its size in bytes, 0: none.
    #[must_use]
    pub fn order(&self) -> u32 {
        self.table.load().order
    }
    /// Eight entries.
    #[must_use]
    pub fn group(&self, group: u64) -> [[u64; 2]; 8] {
        let table = self.table.load();
        let first = group.wrapping_mul(GROUP);
        std::array::from_fn(|n| table.read(first.wrapping_add(n as u64)))
    }
    /// Sets R and C.
    pub fn update(&self, index: u64, old: [u64; 2], set: u64) -> bool {
        self.table.load().update(index, old, set)
    }
    /// An empty table of that order takes the place of what there was; 0: none.
    pub fn reset(&self, order: u32) {
        *self.change.lock() = None;
        self.table.store(Arc::new(Table::new(if order == 0 { 0 } else { order.clamp(MIN_ORDER, MAX_ORDER) })));
    }

    /// The entries that are not zero: index and both doublewords. `None`: the guest is changing the table's size.
    #[must_use]
    pub fn save(&self) -> Option<Vec<(u64, u64, u64)>> {
        let pending = self.change.lock();
        let table = self.table.load();
        let entries = (0..table.len()).map(|n| (n, table.read(n))).filter(|(_, e)| *e != [0; 2]);
        pending.is_none().then(|| entries.map(|(n, e)| (n, e[0], e[1])).collect())
    }
    /// Takes over a table; false: it is none the partition can have.
    #[must_use]
    pub fn load(&self, order: u32, entries: &[(u64, u64, u64)]) -> bool {
        if order != 0 && !(MIN_ORDER..=self.max_order.max(MIN_ORDER)).contains(&order) {
            return false;
        }
        let table = Table::new(order);
        let sound = |(index, v, r): &(u64, u64, u64)| {
            *index < table.len() && (v & pte0::VALID == 0 || self.allowed(*v, *r).is_ok())
        };
        if !entries.iter().all(sound) {
            return false;
        }
        for (index, v, r) in entries {
            table.write(*index, [*v, *r]);
        }
        *self.change.lock() = None;
        self.table.store(Arc::new(table));
        true
    }

    /// May the partition map this page with these storage attributes?
    fn allowed(&self, v: u64, r: u64) -> Result<(), Status> {
        let shift = page_shift(v, r).filter(|s| *s <= self.max_page_shift).ok_or(Status::PARAMETER)?;
        let start = r & pte1::RPN & !((1u64 << shift) - 1);
        let attributes = r & pte1::WIMG;
        let ram = self.ram.has(start, 1 << shift.min(24));
        // RAM is coherent and cached; what is no RAM is cache-inhibited.
        let right = if ram {
            matches!(attributes, 0x10 | 0x50 | 0x18)
        } else {
            matches!(attributes, 0x20 | 0x28 | 0x38 | 0x30)
        };
        if right { Ok(()) } else { Err(Status::PARAMETER) }
    }

    /// H_ENTER: gives the index of the entry.
    ///
    /// # Errors
    /// H_PARAMETER, H_PTEG_FULL.
    pub fn enter(&self, flags: u64, index: u64, v: u64, r: u64) -> Result<u64, Status> {
        self.allowed(v, r)?;
        let _change = self.change.lock();
        let table = self.table.load();
        let v = v & !0x60;
        if index >= table.len() {
            return Err(Status::PARAMETER);
        }
        let place = if flags & flag::EXACT != 0 {
            (table.read(index)[0] & pte0::VALID == 0).then_some(index)
        } else {
            let first = index & !(GROUP - 1);
            (first..first + GROUP).find(|n| table.read(*n)[0] & pte0::VALID == 0)
        };
        let place = place.ok_or(PTEG_FULL)?;
        if flags & (flag::ZERO_PAGE | flag::COPY_PAGE) == flag::ZERO_PAGE {
            let shift = page_shift(v, r).unwrap_or(12);
            let start = r & pte1::RPN & !((1u64 << shift) - 1);
            self.ram.fill(start, 1 << shift, 0).map_err(|_| Status::PARAMETER)?;
        }
        table.write(place, [v | pte0::VALID, r]);
        Ok(place)
    }

    /// Is the entry one the caller means?
    fn matches(entry: [u64; 2], flags: u64, avpn: u64) -> bool {
        entry[0] & pte0::VALID != 0
            && (flags & flag::AVPN == 0 || entry[0] & !0x7f == avpn & !0x7f)
            && (flags & flag::ANDCOND == 0 || entry[0] & avpn == 0)
    }

    fn remove_locked(table: &Table, flags: u64, index: u64, avpn: u64) -> Result<[u64; 2], Status> {
        if index >= table.len() {
            return Err(Status::PARAMETER);
        }
        let entry = table.read(index);
        if !Self::matches(entry, flags, avpn) {
            return Err(Status::NOT_FOUND);
        }
        // Processors may set R and C until the entry is invalid: what is returned is read after that.
        table.entries[index as usize][0].store(0, Ordering::SeqCst);
        let second = table.entries[index as usize][1].swap(0, Ordering::SeqCst);
        Ok([entry[0], second])
    }

    /// H_REMOVE: gives the entry as it was.
    ///
    /// # Errors
    /// H_PARAMETER, H_NOT_FOUND.
    pub fn remove(&self, flags: u64, index: u64, avpn: u64) -> Result<[u64; 2], Status> {
        let _change = self.change.lock();
        Self::remove_locked(&self.table.load(), flags, index, avpn)
    }

    /// H_BULK_REMOVE: changes the requests in place; gives the entries that are gone with their indexes.
    pub fn bulk_remove(&self, args: &mut [u64; 8]) -> (Status, Vec<(u64, [u64; 2])>) {
        const TYPE: u64 = 0xc000_0000_0000_0000;
        const REQUEST: u64 = 0x4000_0000_0000_0000;
        const RESPONSE: u64 = 0x8000_0000_0000_0000;
        const END: u64 = 0xc000_0000_0000_0000;
        const NOT_FOUND: u64 = 0x1000_0000_0000_0000;
        const PARM: u64 = 0x2000_0000_0000_0000;
        const FLAGS: u64 = 0x0300_0000_0000_0000;
        const INDEX: u64 = 0x00ff_ffff_ffff_ffff;
        let mut gone = Vec::new();
        let _change = self.change.lock();
        let table = self.table.load();
        for n in 0..4 {
            let (high, low) = (args[2 * n], args[2 * n + 1]);
            match high & TYPE {
                END => break,
                REQUEST => {}
                _ => return (Status::PARAMETER, gone),
            }
            args[2 * n] = high & (FLAGS | INDEX) | RESPONSE;
            if high & FLAGS == FLAGS {
                // AVPN and ANDCOND together are reserved.
                args[2 * n] |= PARM;
                return (Status::PARAMETER, gone);
            }
            // ANDCOND is bit 7 of the byte's low half, AVPN the one above.
            let flags = (high & FLAGS) >> 26;
            match Self::remove_locked(&table, flags, high & INDEX, low) {
                Ok(entry) => {
                    args[2 * n] |= (entry[1] & (pte1::REFERENCED | pte1::CHANGED)) << 51;
                    gone.push((high & INDEX, entry));
                }
                Err(Status::NOT_FOUND) => args[2 * n] |= NOT_FOUND,
                Err(_) => {
                    args[2 * n] |= PARM;
                    return (Status::PARAMETER, gone);
                }
            }
        }
        (Status::SUCCESS, gone)
    }

    /// H_BLOCK_REMOVE: removes up to eight entries of pages in one block of eight; gives the answers, from the first register on, and
    /// the entries that are gone with their indexes.
    pub fn block_remove(&self, args: &[u64; 9]) -> (Status, [u64; 8], Vec<(u64, [u64; 2])>) {
        const TYPE: u64 = 0xc000_0000_0000_0000;
        const REQUEST: u64 = 0x4000_0000_0000_0000;
        const RESPONSE: u64 = 0x8000_0000_0000_0000;
        const END: u64 = 0xc000_0000_0000_0000;
        const NOT_FOUND: u64 = 0x0800_0000_0000_0000;
        const PARM: u64 = 0x1000_0000_0000_0000;
        const BY_AVPN: u64 = 0x0100_0000_0000_0000;
        const INDEX: u64 = 0x00ff_ffff_ffff_ffff;
        let (mut answers, mut gone, mut all) = ([0; 8], Vec::new(), true);
        let _change = self.change.lock();
        let table = self.table.load();
        for (request, answer) in args[1..].iter().zip(&mut answers) {
            match request & TYPE {
                END => break,
                REQUEST => {}
                _ => return (Status::PARAMETER, answers, gone),
            }
            let (index, flags) = (request & INDEX, if request & BY_AVPN != 0 { flag::AVPN } else { 0 });
            *answer = RESPONSE | index;
            match Self::remove_locked(&table, flags, index, args[0]) {
                Ok(entry) => {
                    *answer |= (entry[1] & (pte1::REFERENCED | pte1::CHANGED)) << 50;
                    gone.push((index, entry));
                }
                Err(status) => {
                    *answer |= if status == Status::NOT_FOUND { NOT_FOUND } else { PARM };
                    all = false;
                }
            }
        }
        (if all { Status::SUCCESS } else { Status::PARTIAL }, answers, gone)
    }

    /// H_PROTECT: gives the entry as it was.
    ///
    /// # Errors
    /// H_PARAMETER, H_NOT_FOUND.
    pub fn protect(&self, flags: u64, index: u64, avpn: u64) -> Result<[u64; 2], Status> {
        let _change = self.change.lock();
        let table = self.table.load();
        if index >= table.len() {
            return Err(Status::PARAMETER);
        }
        let entry = table.read(index);
        if !Self::matches(entry, flags & flag::AVPN, avpn) {
            return Err(Status::NOT_FOUND);
        }
        const FIELDS: u64 = pte1::PP0 | pte1::PP | pte1::NO_EXECUTE | pte1::KEY_HIGH | pte1::KEY_LOW;
        let new = flags << 55 & pte1::PP0
            | flags << 48 & pte1::KEY_HIGH
            | flags & (pte1::PP | pte1::NO_EXECUTE | pte1::KEY_LOW);
        let e = &table.entries[index as usize];
        e[0].store(0, Ordering::SeqCst);
        let second = e[1].load(Ordering::SeqCst);
        e[1].store(second & !FIELDS | new, Ordering::SeqCst);
        e[0].store(entry[0], Ordering::SeqCst);
        Ok([entry[0], second])
    }

    /// H_READ: one entry, or the four of an aligned group with READ_4.
    ///
    /// # Errors
    /// H_PARAMETER.
    pub fn read(&self, flags: u64, index: u64) -> Result<Vec<[u64; 2]>, Status> {
        let table = self.table.load();
        if index >= table.len() {
            return Err(Status::PARAMETER);
        }
        let (first, count) = if flags & flag::READ_4 != 0 { (index & !3, 4) } else { (index, 1) };
        Ok((first..first + count).map(|n| table.read(n)).collect())
    }

    /// H_CLEAR_REF, H_CLEAR_MOD: clears `bit` and gives the entry as it was.
    ///
    /// # Errors
    /// H_PARAMETER, H_NOT_FOUND.
    pub fn clear(&self, flags: u64, index: u64, avpn: u64, bit: u64) -> Result<[u64; 2], Status> {
        let _change = self.change.lock();
        let table = self.table.load();
        if index >= table.len() {
            return Err(Status::PARAMETER);
        }
        let entry = table.read(index);
        if !Self::matches(entry, flags, avpn) {
            return Err(Status::NOT_FOUND);
        }
        let second = table.entries[index as usize][1].fetch_and(!bit, Ordering::SeqCst);
        Ok([entry[0], second])
    }

    /// H_RESIZE_HPT_PREPARE: makes the table of the new size; order 0 cancels.
    ///
    /// # Errors
    /// H_PARAMETER, H_RESOURCE.
    pub fn prepare(&self, flags: u64, order: u64) -> Result<(), Status> {
        if flags != 0 {
            return Err(Status::PARAMETER);
        }
        if order == 0 {
            *self.change.lock() = None;
            return Ok(());
        }
        let order = u32::try_from(order).map_err(|_| Status::PARAMETER)?;
        if !(MIN_ORDER..=46).contains(&order) {
            return Err(Status::PARAMETER);
        }
        if order > self.max_order {
            return Err(Status::RESOURCE);
        }
        let table = Table::new(order);
        *self.change.lock() = Some(Pending { order, table: Some(table) });
        Ok(())
    }

    /// H_RESIZE_HPT_COMMIT: moves the bolted entries into the new table, which takes the old one's place. The caller sees to it that no
    /// other processor runs and that all translations are forgotten.
    ///
    /// # Errors
    /// H_PARAMETER, H_CLOSED (nothing prepared), H_PTEG_FULL.
    pub fn commit(&self, flags: u64, order: u64) -> Result<(), Status> {
        if flags != 0 {
            return Err(Status::PARAMETER);
        }
        let mut change = self.change.lock();
        let Some(mut pending) = change.take() else { return Err(Status::CLOSED) };
        if u64::from(pending.order) != order {
            *change = Some(pending);
            return Err(Status::CLOSED);
        }
        let Some(new) = pending.table.take() else { return Err(Status::CLOSED) };
        let old = self.table.load_full();
        /// Entries that software marked as to be kept (HPTE_V_BOLTED).
        const BOLTED: u64 = 0x10;
        for index in 0..old.len() {
            let entry = old.read(index);
            if entry[0] & (pte0::VALID | BOLTED) != pte0::VALID | BOLTED {
                continue;
            }
            move_entry(&old, &new, index, entry)?;
        }
        self.table.store(Arc::new(new));
        Ok(())
    }
}

/// Puts an entry where it belongs in a table of another size.
fn move_entry(old: &Table, new: &Table, index: u64, entry: [u64; 2]) -> Result<(), Status> {
    let shift = page_shift(entry[0], entry[1]).unwrap_or(12);
    let secondary = entry[0] & pte0::SECONDARY != 0;
    let group = index / GROUP;
    let hash_low = if secondary { !group } else { group } & (old.groups() - 1);
    // The virtual page number: AVPN has all but the low 23 bits of the address, which the old place tells.
    let avpn = (entry[0] & 0x3fff_ffff_ffff_ff80) >> 7;
    let hash = if entry[0] & pte0::SEGMENT == 0 {
        // 256 MiB segments: 28 bits of offset.
        let offset_high = (avpn & 0x1f) << 23;
        let vsid = avpn >> 5;
        let offset = if shift < 23 { (vsid ^ hash_low) << shift & ((1 << 23) - 1) } else { 0 } | offset_high;
        vsid ^ offset >> shift
    } else if entry[0] & pte0::SEGMENT == pte0::SEGMENT_1T {
        // 1 TiB segments: 40 bits of offset.
        let offset_high = (avpn & 0x1_ffff) << 23;
        let vsid = avpn >> 17;
        let offset =
            if shift < 23 { (vsid ^ vsid << 25 ^ hash_low) << shift & ((1 << 23) - 1) } else { 0 } | offset_high;
        vsid ^ vsid << 25 ^ offset >> shift
    } else {
        return Err(Status::HARDWARE);
    };
    let group = if secondary { !hash } else { hash } & (new.groups() - 1);
    let first = group * GROUP;
    let place = (first..first + GROUP).find(|n| new.read(*n)[0] & pte0::VALID == 0).ok_or(PTEG_FULL)?;
    new.write(place, entry);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhea_memory::RamBlock;

    fn hpt() -> Hpt {
        let ram = GuestRam::new(&RamBlock::anonymous("ram", 1 << 24).unwrap());
        let hpt = Hpt::new(&ram, 24, 24);
        hpt.reset(18);
        hpt
    }
    /// An entry of a 4 KiB page of RAM.
    fn entry(avpn: u64, page: u64) -> (u64, u64) {
        (avpn << 7 | pte0::VALID, page << 12 | 0x10 | 2)
    }

    #[test]
    fn enter_read_remove() {
        let hpt = hpt();
        let (v, r) = entry(5, 3);
        assert_eq!(hpt.enter(0, 17, v, r), Ok(16));
        assert_eq!(hpt.enter(0, 17, v, r), Ok(17));
        assert_eq!(hpt.enter(flag::EXACT, 17, v, r), Err(PTEG_FULL));
        assert_eq!(hpt.read(0, 16), Ok(vec![[v, r]]));
        assert_eq!(hpt.read(flag::READ_4, 18).unwrap().len(), 4);
        assert_eq!(hpt.remove(flag::AVPN, 16, 6 << 7), Err(Status::NOT_FOUND));
        assert!(hpt.update(16, [v, r], pte1::REFERENCED));
        assert_eq!(hpt.remove(flag::AVPN, 16, 5 << 7), Ok([v, r | pte1::REFERENCED]));
        assert_eq!(hpt.remove(0, 16, 0), Err(Status::NOT_FOUND));
        assert!(!hpt.update(16, [v, r], pte1::REFERENCED));
        for n in 16..24 {
            let _ = hpt.enter(flag::EXACT, n, v, r);
        }
        assert_eq!(hpt.enter(0, 16, v, r), Err(PTEG_FULL));
    }

    #[test]
    fn what_the_partition_does_not_have_is_refused() {
        let hpt = hpt();
        let (v, r) = entry(5, 0x1000);
        // Beyond RAM: only cache-inhibited.
        assert_eq!(hpt.enter(0, 0, v, r), Err(Status::PARAMETER));
        assert!(hpt.enter(0, 0, v, r & !pte1::WIMG | 0x28).is_ok());
        let (v, r) = entry(5, 1);
        assert_eq!(hpt.enter(0, 0, v, r & !pte1::WIMG | 0x28), Err(Status::PARAMETER));
        assert_eq!(hpt.enter(0, 1 << 14, v, r), Err(Status::PARAMETER));
        assert_eq!(hpt.enter(0, u64::MAX, v, r), Err(Status::PARAMETER));
        assert_eq!(hpt.enter(0, 0, v | pte0::LARGE, r | 0xff_000), Err(Status::PARAMETER));
        assert_eq!(hpt.read(flag::READ_4, u64::MAX), Err(Status::PARAMETER));
        assert_eq!(hpt.remove(0, u64::MAX, 0), Err(Status::PARAMETER));
        assert_eq!(hpt.protect(0, 1 << 14, 0), Err(Status::PARAMETER));
        assert_eq!(hpt.clear(0, 1 << 14, 0, pte1::CHANGED), Err(Status::PARAMETER));
    }

    #[test]
    fn protection_and_bulk() {
        let hpt = hpt();
        let (v, r) = entry(5, 3);
        hpt.enter(flag::EXACT, 0, v, r).unwrap();
        assert_eq!(hpt.protect(flag::AVPN | 3 | pte1::NO_EXECUTE, 0, 5 << 7), Ok([v, r]));
        assert_eq!(hpt.table().read(0)[1] & 7, 7);
        hpt.update(0, hpt.table().read(0), pte1::REFERENCED | pte1::CHANGED);
        hpt.clear(0, 0, 0, pte1::CHANGED).unwrap();
        let mut args = [0x4200_0000_0000_0000, 5 << 7, 0x4000_0000_0000_0001, 0, 0xc000_0000_0000_0000, 0, 0, 0];
        let (status, gone) = hpt.bulk_remove(&mut args);
        assert_eq!((status, gone.len()), (Status::SUCCESS, 1));
        assert_eq!(args[0], 0x8a00_0000_0000_0000, "{:x}", args[0]);
        assert_eq!(args[2], 0x9000_0000_0000_0001, "{:x}", args[2]);
        assert_eq!(hpt.bulk_remove(&mut [0x0123_4567_89ab_cdef; 8]).0, Status::PARAMETER);
    }

    #[test]
    fn blocks() {
        let hpt = hpt();
        let (v, r) = entry(5, 3);
        for n in [0, 8, 16] {
            hpt.enter(flag::EXACT, n, v, r | if n == 8 { pte1::CHANGED } else { 0 }).unwrap();
        }
        hpt.enter(flag::EXACT, 24, entry(6, 3).0, r).unwrap();
        let request = |n: u64| 0x4100_0000_0000_0000 | n;
        let end = 0xc000_0000_0000_0000;
        let args = [5 << 7, request(0), request(8), end, 0, 0, 0, 0, 0];
        let (status, answers, gone) = hpt.block_remove(&args);
        assert_eq!((status, gone.len()), (Status::SUCCESS, 2));
        assert_eq!(answers[..3], [0x8000_0000_0000_0000, 0x8200_0000_0000_0008, 0]);
        // Another page's entry, and one that is none.
        let args = [5 << 7, request(24), request(16), request(1 << 20), end, 0, 0, 0, 0];
        let (status, answers, gone) = hpt.block_remove(&args);
        assert_eq!((status, gone.len()), (Status::PARTIAL, 1));
        assert_eq!(answers[..3], [0x8800_0000_0000_0018, 0x8000_0000_0000_0010, 0x9000_0000_0010_0000]);
        assert_eq!(hpt.block_remove(&[0; 9]).0, Status::PARAMETER);
    }

    #[test]
    fn resizing_keeps_bolted_entries() {
        let hpt = hpt();
        // VSID 0x123, offset page 0x4567 of a 256 MiB segment, bolted.
        let (vsid, page) = (0x123u64, 0x4567u64);
        let hash = vsid ^ page;
        let group = hash & 0x7ff;
        let v = (vsid << 5 | page >> 11) << 7 | 0x10 | pte0::VALID;
        let at = hpt.enter(0, group * 8, v, 3 << 12 | 0x10).unwrap();
        assert_eq!(at, group * 8);
        hpt.enter(0, 0, v & !0x10, 3 << 12 | 0x10).unwrap();
        assert_eq!(hpt.commit(0, 20), Err(Status::CLOSED));
        assert_eq!(hpt.prepare(0, 50), Err(Status::PARAMETER));
        assert_eq!(hpt.prepare(0, 30), Err(Status::RESOURCE));
        assert_eq!(hpt.prepare(1, 20), Err(Status::PARAMETER));
        hpt.prepare(0, 20).unwrap();
        assert_eq!(hpt.commit(0, 21), Err(Status::CLOSED));
        hpt.commit(0, 20).unwrap();
        assert_eq!(hpt.order(), 20);
        assert_eq!(hpt.table().read((hash & 0x1fff) * 8)[0], v);
        assert_eq!((0..hpt.table().len()).filter(|n| hpt.table().read(*n)[0] != 0).count(), 1);
    }

    #[test]
    fn sizes() {
        assert_eq!((order_for(512 << 20), order_for(1 << 20), order_for(4 << 30)), (22, 18, 25));
    }
}
