//! Radix trees (Book III, 6.7.10): the process-scoped translation of a guest. The partition-scoped one is the machine's memory map.

use super::{Fault, Mapping, TRIES};
use crate::bits::dsisr;
use crate::spr;
use crate::state::PpcCpu;
use crate::system::Rights;
use rhea_ir::guest::Access;

/// Bits of page directory and page table entries.
mod pte {
    pub const VALID: u64 = 1 << 63;
    pub const LEAF: u64 = 1 << 62;
    pub const RPN: u64 = 0x01ff_ffff_ffff_f000;
    pub const REFERENCE: u64 = 0x100;
    pub const CHANGE: u64 = 0x80;
    /// Attributes: 0 normal, 1 strong access ordering, 2 non-idempotent I/O, 3 tolerant I/O.
    pub const ATTRIBUTES: u64 = 0x30;
    pub const NON_IDEMPOTENT: u64 = 0x20;
    pub const PRIVILEGED: u64 = 8;
    pub const READ: u64 = 4;
    pub const READ_WRITE: u64 = 2;
    pub const EXECUTE: u64 = 1;
}

/// Base and log2 of the size of the next table, of a directory entry or the root in a process table entry.
const NEXT_BASE: u64 = 0x0fff_ffff_ffff_ff00;
const NEXT_SIZE: u64 = 0x1f;
/// Effective addresses without their quadrant.
const EA_BITS: u64 = (1 << 62) - 1;

/// A leaf: where it is, what it holds, log2 of its page's size.
struct Leaf {
    at: u64,
    entry: u64,
    shift: u32,
}

/// Reference and change, which walks set.
const STATE: u64 = pte::REFERENCE | pte::CHANGE;

impl PpcCpu {
    /// The first doubleword of a process table entry, and where it is.
    fn process_entry(&mut self, pid: u64) -> Result<(u64, u64), Fault> {
        let table = self.hooks.process_table();
        let size = 1u64 << (12 + (table & 0x1f));
        if table == 0 || pid * 16 >= size {
            return Err(Fault::Storage(dsisr::NOPTE));
        }
        let base = table & 0x0fff_ffff_ffff_f000;
        let at = base + pid * 16;
        Ok((self.read_table(at).ok_or(Fault::Storage(dsisr::BAD_CONFIG))?, at))
    }

    /// `note`: the walk is for a TLB.
    fn radix_leaf(&mut self, va: u64, note: bool) -> Result<Leaf, Fault> {
        let pid = match va >> 62 {
            0 => self.spr[spr::PIDR as usize],
            3 => 0,
            // A hypervisor's.
            _ => return Err(Fault::Segment),
        };
        let (entry, at) = self.process_entry(pid)?;
        let note = note && va >> 62 == 3;
        if note {
            self.sys.seen.directory(at, entry);
        }
        let size = ((entry >> 61 & 3) << 3 | entry >> 5 & 7) as u32 + 31;
        let ea = va & EA_BITS;
        if size > 62 || ea >> size != 0 {
            return Err(Fault::Segment);
        }
        let bad = Fault::Storage(dsisr::BAD_CONFIG);
        let (mut base, mut bits, mut left) = (entry & NEXT_BASE, (entry & NEXT_SIZE) as u32, size);
        // At least 5 bits a level, of at most 62 − 12.
        loop {
            if bits < 5 || bits > left.saturating_sub(12) {
                return Err(bad);
            }
            left -= bits;
            let index = ea >> left & ((1 << bits) - 1);
            let at = (base & !((8 << bits) - 1)) + index * 8;
            let entry = self.read_table(at).ok_or(bad)?;
            if entry & pte::VALID == 0 {
                return Err(Fault::Storage(dsisr::NOPTE));
            }
            if entry & pte::LEAF != 0 {
                return Ok(Leaf { at, entry, shift: left });
            }
            if note {
                self.sys.seen.directory(at, entry);
            }
            (base, bits) = (entry & NEXT_BASE, (entry & NEXT_SIZE) as u32);
        }
    }

    pub(super) fn radix_walk(&mut self, va: u64, access: Option<Access>, rights: Rights) -> Result<Mapping, Fault> {
        for _ in 0..TRIES {
            let leaf = self.radix_leaf(va, access.is_some())?;
            let mut entry = leaf.entry;
            let within = (1 << leaf.shift) - 1;
            let attributes = entry & pte::ATTRIBUTES;
            let private = entry & pte::PRIVILEGED != 0;
            let mut m = Mapping {
                pa: entry & pte::RPN & !within | va & within,
                read: entry & (pte::READ | pte::READ_WRITE) != 0,
                write: entry & pte::READ_WRITE != 0,
                execute: entry & pte::EXECUTE != 0,
                device: attributes >= pte::NON_IDEMPOTENT,
                global: va >> 62 == 3,
            };
            let Some(access) = access else { return Ok(m) };
            if access == Access::Fetch && (!m.execute || attributes == pte::NON_IDEMPOTENT) {
                return Err(Fault::Storage(dsisr::NOEXEC));
            }
            if attributes == pte::NON_IDEMPOTENT {
                m.execute = false;
            }
            if private && rights.problem {
                return Err(Fault::Storage(dsisr::PROTECTION));
            }
            if !private && !rights.problem {
                m.write &= rights.amr >> 63 == 0;
                m.read &= rights.amr >> 62 & 1 == 0;
                m.execute &= rights.iamr >> 62 & 1 == 0;
            }
            let permitted = match access {
                Access::Read => m.read,
                Access::Write => m.write,
                Access::Fetch => m.execute,
            };
            if !permitted {
                return Err(Fault::Storage(dsisr::PROTECTION));
            }
            let set = pte::REFERENCE | if access == Access::Write { pte::CHANGE } else { 0 };
            if entry & set != set {
                if !self.replace_table(leaf.at, entry, entry | set) {
                    continue;
                }
                entry |= set;
            }
            m.write &= entry & pte::CHANGE != 0;
            if m.global {
                self.sys.seen.leaf(leaf.at, entry, va & !within, leaf.shift, STATE);
            }
            return Ok(m);
        }
        Err(Fault::Storage(dsisr::RC))
    }
}
