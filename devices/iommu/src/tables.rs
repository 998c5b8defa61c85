//! Root, context and second-level tables (3.4, 3.7, 9.1, 9.3, 9.8).

use crate::VtdOptions;
use rhea_device::dma::{DmaHandle, Translated};
use rhea_memory::Gpa;

/// Why a request is refused (7.1.3), as recorded.
pub mod reason {
    pub const ROOT_NOT_PRESENT: u8 = 0x1;
    pub const CONTEXT_NOT_PRESENT: u8 = 0x2;
    pub const CONTEXT_INVALID: u8 = 0x3;
    pub const BEYOND_WIDTH: u8 = 0x4;
    pub const NO_WRITE: u8 = 0x5;
    pub const NO_READ: u8 = 0x6;
    pub const TABLE_UNREACHABLE: u8 = 0x7;
    pub const ROOT_UNREACHABLE: u8 = 0x8;
    pub const CONTEXT_UNREACHABLE: u8 = 0x9;
    pub const ROOT_RESERVED: u8 = 0xa;
    pub const CONTEXT_RESERVED: u8 = 0xb;
    pub const ENTRY_RESERVED: u8 = 0xc;
    pub const INTERRUPT_RESERVED: u8 = 0x20;
    pub const INTERRUPT_INDEX: u8 = 0x21;
    pub const INTERRUPT_NOT_PRESENT: u8 = 0x22;
    pub const INTERRUPT_UNREACHABLE: u8 = 0x23;
    pub const INTERRUPT_ENTRY_RESERVED: u8 = 0x24;
    pub const INTERRUPT_BLOCKED: u8 = 0x25;
    pub const INTERRUPT_SOURCE: u8 = 0x26;
    pub const ROOT_MODE: u8 = 0x31;
}

/// A refused request; `silent`: its tables say that it is not to be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub reason: u8,
    pub silent: bool,
}

impl Fault {
    pub const fn loud(reason: u8) -> Self {
        Self { reason, silent: false }
    }
}

/// Tables in RAM; what is not RAM is out of reach, so that no other device is called.
pub struct Memory(pub DmaHandle);

impl Memory {
    pub fn load(&self, at: u64) -> Option<u64> {
        self.0.host_slice_readable(Gpa(at), 8)?.load_u64(0).ok()
    }
    pub fn pair(&self, at: u64) -> Option<[u64; 2]> {
        let slice = self.0.host_slice_readable(Gpa(at), 16)?;
        Some([slice.load_u64(0).ok()?, slice.load_u64(8).ok()?])
    }
    pub fn store(&self, at: u64, value: u32) -> bool {
        self.0.write_ram(at, &value.to_le_bytes()).is_ok()
    }
}

/// What a context entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    pub domain: u16,
    /// Faults are not recorded.
    pub silent: bool,
    /// Width of addresses in bits.
    pub width: u8,
    /// The first table; `None`: addresses pass through.
    pub table: Option<u64>,
}

const PRESENT: u64 = 1;
const FAULTS_OFF: u64 = 2;

/// Bits of addresses above the host's width.
fn beyond(o: &VtdOptions) -> u64 {
    !((1u64 << o.host_bits) - 1)
}

/// The context of a requester.
pub fn context(memory: &Memory, o: &VtdOptions, root: u64, requester: u16) -> Result<Context, Fault> {
    const ROOT_RESERVED: u64 = 0xffe;
    let bus = u64::from(requester >> 8) * 16;
    let [low, high] = memory.pair(root.wrapping_add(bus)).ok_or(Fault::loud(reason::ROOT_UNREACHABLE))?;
    if low & PRESENT == 0 {
        return Err(Fault::loud(reason::ROOT_NOT_PRESENT));
    }
    if low & (ROOT_RESERVED | beyond(o)) != 0 || high != 0 {
        return Err(Fault::loud(reason::ROOT_RESERVED));
    }
    let at = (low & !0xfff).wrapping_add(u64::from(requester & 0xff) * 16);
    let [low, high] = memory.pair(at).ok_or(Fault::loud(reason::CONTEXT_UNREACHABLE))?;
    let silent = low & FAULTS_OFF != 0;
    let fault = |reason| Err(Fault { reason, silent });
    if low & PRESENT == 0 {
        return fault(reason::CONTEXT_NOT_PRESENT);
    }
    if low & (0xff0 | beyond(o)) != 0 || high & !0xff_ff7f != 0 {
        return fault(reason::CONTEXT_RESERVED);
    }
    let width = match high & 7 {
        1 => 39,
        2 if o.address_bits == 48 => 48,
        _ => return fault(reason::CONTEXT_INVALID),
    };
    let table = match low >> 2 & 3 {
        0 => Some(low & !0xfff),
        1 if o.device_iotlb => Some(low & !0xfff),
        2 if o.pass_through => None,
        _ => return fault(reason::CONTEXT_INVALID),
    };
    Ok(Context { domain: (high >> 8) as u16, silent, width, table })
}

/// Where a page of 4 KiB leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Guest-physical address of the 4 KiB page.
    pub page: u64,
    /// Log2 of the size of the mapping it is part of.
    pub shift: u8,
    pub read: bool,
    pub write: bool,
}

const READ: u64 = 1;
const WRITE: u64 = 2;

/// What an entry of a second-level table leads to.
enum Target {
    Page(u64),
    Table(u64),
}

/// That of a present entry of a table of `level` (1: the last); `None`: reserved bits are set.
fn target(o: &VtdOptions, level: u8, entry: u64) -> Option<Target> {
    const LARGE: u64 = 1 << 7;
    /// Snoop control, which is not offered.
    const SNOOP: u64 = 1 << 11;
    /// What hardware ignores: available bits, transient mapping.
    const IGNORED: u64 = 0xfff << 52;
    let last = level == 1 || entry & LARGE != 0;
    let unaligned = if last { (1u64 << shift(level)) - 1 & !0xfff } else { 0 };
    let root_large = if level > 3 { LARGE } else { 0 };
    if entry & (beyond(o) & !IGNORED | SNOOP | unaligned | root_large) != 0 {
        return None;
    }
    let target = entry & !IGNORED & !0xfff;
    Some(if last { Target::Page(target) } else { Target::Table(target) })
}
/// Log2 of what an entry of a table of `level` covers.
const fn shift(level: u8) -> u8 {
    12 + 9 * (level - 1)
}

/// Translates by the second-level tables of `context`, whose first is `table`.
pub fn walk(
    memory: &Memory,
    o: &VtdOptions,
    context: &Context,
    table: u64,
    address: u64,
    write: bool,
) -> Result<Leaf, Fault> {
    let fault = |reason| Err(Fault { reason, silent: context.silent });
    let mut at = table;
    let mut rights = READ | WRITE;
    let mut level = (context.width - 12) / 9;
    loop {
        let shift = shift(level);
        let Some(entry) = memory.load(at | (address >> shift & 0x1ff) << 3) else {
            return fault(reason::TABLE_UNREACHABLE);
        };
        rights &= entry;
        if rights & if write { WRITE } else { READ } == 0 {
            return fault(if write { reason::NO_WRITE } else { reason::NO_READ });
        }
        match target(o, level, entry) {
            None => return fault(reason::ENTRY_RESERVED),
            Some(Target::Page(page)) => {
                let page = page | address & ((1 << shift) - 1) & !0xfff;
                return Ok(Leaf { page, shift, read: rights & READ != 0, write: rights & WRITE != 0 });
            }
            Some(Target::Table(next)) => at = next,
        }
        level -= 1;
    }
}

/// Entries that one look at a requester's tables reads at most, as a guest may have a table lead to itself: those of 64 GiB in small pages.
const MOST_ENTRIES: u32 = 1 << 24;

/// A look at all that a requester's tables map.
pub struct Survey<'a> {
    memory: &'a Memory,
    options: &'a VtdOptions,
    first: u64,
    last: u64,
    left: u32,
    found: &'a mut dyn FnMut(Translated),
}

impl<'a> Survey<'a> {
    /// Of the addresses from `first` to `last`.
    pub fn new(
        memory: &'a Memory,
        options: &'a VtdOptions,
        (first, last): (u64, u64),
        found: &'a mut dyn FnMut(Translated),
    ) -> Self {
        Self { memory, options, first, last, left: MOST_ENTRIES, found }
    }
    /// Calls `found` with each page that the tables of `context`, whose first is `table`, map. False: there is more than can be looked at.
    pub fn run(&mut self, context: &Context, table: u64) -> bool {
        self.last = self.last.min((1 << context.width) - 1);
        self.level(table, (context.width - 12) / 9, 0, READ | WRITE)
    }
    fn level(&mut self, table: u64, level: u8, base: u64, rights: u64) -> bool {
        let shift = shift(level);
        let index = |address: u64| address.saturating_sub(base) >> shift;
        for n in index(self.first).min(511)..=index(self.last).min(511) {
            let iova = base + (n << shift);
            if iova > self.last || iova + ((1 << shift) - 1) < self.first {
                continue;
            }
            let Some(left) = self.left.checked_sub(1) else { return false };
            self.left = left;
            let Some(entry) = self.memory.load(table | n << 3) else { return true };
            let rights = rights & entry;
            if rights == 0 {
                continue;
            }
            match target(self.options, level, entry) {
                Some(Target::Page(gpa)) => {
                    let (read, write) = (rights & READ != 0, rights & WRITE != 0);
                    (self.found)(Translated { iova, gpa, len: 1 << shift, read, write });
                }
                Some(Target::Table(next)) if !self.level(next, level - 1, iova, rights) => return false,
                None | Some(Target::Table(_)) => {}
            }
        }
        true
    }
}
