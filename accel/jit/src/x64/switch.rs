//! Jumps to one of many targets: a table of numbers, each where its hash says.

use super::asm::{Alu, Cc, Label, Shift};
use super::emit::Emit;
use super::encode::Place;
use super::stubs::Stub;
use super::*;
use crate::cache::LIST_BYTES;
use rhea_ir::func::{Target, Value};

/// log2 of an entry's bytes: eight of the number, four of where it leads, four of nothing.
const ENTRY_BITS: u32 = 4;
const WHERE: i32 = 8;
/// log2 of the entries there may be for each number.
const SPARE_BITS: u32 = 3;
/// Numbers are addresses of instructions: what tells them apart begins in one of these bits.
const SHIFTS: std::ops::Range<u32> = 0..12;

/// A number's entry: its bits from `shift` on, as many as `bits`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Hash {
    shift: u32,
    bits: u32,
}

impl Hash {
    fn of(self, n: u64) -> usize {
        (n >> self.shift) as usize & ((1 << self.bits) - 1)
    }
    /// Of those that tell all numbers apart the one with the smallest table, else the one that tells most apart.
    fn choose(numbers: &[u64]) -> Hash {
        let least = numbers.len().next_power_of_two().trailing_zeros().max(1);
        let mut best = (0, Hash { shift: 0, bits: least });
        for bits in least..=least + SPARE_BITS {
            for shift in SHIFTS {
                let hash = Hash { shift, bits };
                let mut taken = vec![false; 1 << bits];
                let apart = numbers.iter().filter(|&&n| !std::mem::replace(&mut taken[hash.of(n)], true)).count();
                if apart > best.0 {
                    best = (apart, hash);
                }
                if apart == numbers.len() {
                    return hash;
                }
            }
        }
        best.1
    }
    /// A number that belongs in another entry.
    fn stranger(self, entry: usize) -> u64 {
        (entry as u64 ^ 1) << self.shift
    }
}

impl Emit<'_> {
    pub(super) fn switch(&mut self, value: Value, cases: &[(u64, Target)], other: &Target, note: u64) {
        let v = self.gpr(value, RDX);
        let hash = Hash::choose(&cases.iter().map(|c| c.0).collect::<Vec<_>>());
        let (table, miss) = (self.asm.label(), self.asm.label());
        let mut entries = vec![None; 1 << hash.bits];
        let mut beside = Vec::new();
        for (n, target) in cases {
            let label = self.target_label(target);
            match &mut entries[hash.of(*n)] {
                free @ None => *free = Some((*n, label)),
                Some(_) => beside.push((*n, label)),
            }
        }
        let at = |e: usize, entry: Option<(u64, Label)>| entry.unwrap_or((hash.stranger(e), miss));
        let entries = entries.into_iter().enumerate().map(|(n, e)| at(n, e)).collect();
        self.asm.mov_rr(true, RCX, v);
        match hash.shift.checked_sub(ENTRY_BITS) {
            Some(0) => {}
            Some(n) => self.asm.shift_i(Shift::Shr, true, RCX, n as u8),
            None => self.asm.shift_i(Shift::Shl, true, RCX, (ENTRY_BITS - hash.shift) as u8),
        }
        self.asm.alu_ri(Alu::And, false, RCX, ((1 << hash.bits) - 1) << ENTRY_BITS);
        self.asm.lea_label(RAX, table);
        self.asm.alu_rr(Alu::Add, true, RCX, RAX);
        self.asm.cmp_at(v, Place::at(RCX, 0));
        self.asm.jcc(Cc::Ne, miss);
        // Counted from the end of the word.
        self.asm.load_s32_at(RAX, Place::at(RCX, WHERE));
        self.asm.lea_at(RAX, Place { base: RCX, index: Some(RAX), disp: WHERE + 4 });
        self.asm.jmp_reg(RAX);
        self.stubs.push(Stub::Table { label: table, entries });
        self.stubs.push(Stub::Beside { label: miss, value, cases: beside, other: other.clone(), note });
    }

    /// Where an edge begins.
    fn target_label(&mut self, t: &Target) -> Label {
        match t {
            Target::Block(b, args) if args.is_empty() => self.block_label(b.index()),
            _ => {
                let label = self.asm.label();
                self.stubs.push(Stub::Edge { label, target: t.clone(), skip_state: false });
                label
            }
        }
    }

    /// The numbers that have no entry of their own.
    pub(super) fn switch_beside(&mut self, value: Value, cases: &[(u64, Label)], other: &Target, note: u64) {
        if !cases.is_empty() {
            let v = self.gpr(value, RDX);
            for &(n, label) in cases {
                self.asm.mov_ri(RCX, n);
                self.asm.alu_rr(Alu::Cmp, true, v, RCX);
                self.asm.jcc(Cc::E, label);
            }
        }
        if note != 0 {
            self.gpr_to(value, RAX);
            self.note_target(note);
        }
        self.edge(other, None, false);
    }

    /// Adds the target in rax to the list at `list` ([`crate::cache::Cache::targets`]), if it is not there and there is room.
    pub(super) fn note_target(&mut self, list: u64) {
        let (again, next, done) = (self.asm.label(), self.asm.label(), self.asm.label());
        self.asm.mov_ri(RCX, list);
        self.asm.cmp_mem32_imm(RCX, LIST_BYTES - 8, 0);
        self.asm.jcc(Cc::Ne, done);
        self.asm.bind(again);
        self.asm.load(true, RDX, RCX, 0);
        self.asm.alu_rr(Alu::Cmp, true, RDX, RAX);
        self.asm.jcc(Cc::E, done);
        self.asm.test_rr(true, RDX, RDX);
        self.asm.jcc(Cc::Ne, next);
        self.asm.store(true, RCX, 0, RAX);
        self.asm.jmp(done);
        self.asm.bind(next);
        self.asm.lea(RCX, RCX, 8);
        // It ends where its alignment does.
        self.asm.test_ri(false, RCX, LIST_BYTES - 1);
        self.asm.jcc(Cc::Ne, again);
        self.asm.bind(done);
    }

    pub(super) fn switch_table(&mut self, label: Label, entries: &[(u64, Label)]) {
        self.asm.align(1 << ENTRY_BITS);
        self.asm.bind(label);
        for &(n, to) in entries {
            self.asm.bytes(&n.to_le_bytes());
            self.asm.displacement(to);
            self.asm.bytes(&[0; 4]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_tell_numbers_apart() {
        let spread = |numbers: &[u64]| {
            let hash = Hash::choose(numbers);
            let mut taken: Vec<_> = numbers.iter().map(|&n| hash.of(n)).collect();
            taken.sort_unstable();
            taken.dedup();
            (hash, taken.len())
        };
        assert_eq!(spread(&[0x1000, 0x1004, 0x1008, 0x100c]), (Hash { shift: 2, bits: 2 }, 4));
        assert_eq!(spread(&[0x40_0000, 0x40_0100, 0x40_0240]), (Hash { shift: 8, bits: 2 }, 3));
        assert_eq!(spread(&[7]).1, 1);
        // Nothing tells these apart but bits that are not asked.
        assert_eq!(spread(&[0x1000, 0x1000 | 1 << 40, 0x2000]).1, 2);
        for hash in [Hash { shift: 0, bits: 1 }, Hash { shift: 11, bits: 6 }] {
            assert!((0..1 << hash.bits).all(|e| hash.of(hash.stranger(e)) != e));
        }
    }
}
