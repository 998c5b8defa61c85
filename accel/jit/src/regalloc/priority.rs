//! Allocation by priority: values choose in the order of how much they are used for the time they live, each among the places
//! that are free wherever it is live. Lives have holes: a value needs no place in blocks where nobody will use it.

use super::{Allocation, Interval, Loc, OutOfSpill, RegFile, wants_first};
use rhea_ir::func::{Function, Target, Value};

/// Positions `start` to `end`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub start: u32,
    pub end: u32,
}

/// Where each value is live, in rising order.
pub struct Ranges {
    ranges: Vec<Range>,
    /// Of each value: the first of its ranges; the next value's first is their end.
    first: Vec<u32>,
}

impl Ranges {
    /// From the parts of each block, in the order of blocks.
    pub fn new(values: usize, parts: Vec<(u32, Range)>) -> Ranges {
        let mut first = vec![0u32; values + 2];
        for (v, _) in &parts {
            first[*v as usize + 2] += 1;
        }
        for v in 2..first.len() {
            first[v] += first[v - 1];
        }
        let mut ranges = vec![Range { start: 0, end: 0 }; parts.len()];
        for (v, part) in parts {
            let at = &mut first[v as usize + 1];
            ranges[*at as usize] = part;
            *at += 1;
        }
        first.pop();
        Ranges { ranges, first }
    }
    pub fn of(&self, v: Value) -> &[Range] {
        &self.ranges[self.first[v.index()] as usize..self.first[v.index() + 1] as usize]
    }
    pub fn length(&self, v: Value) -> u32 {
        self.of(v).iter().map(|r| r.end - r.start + 1).sum::<u32>().max(1)
    }
}

/// When a register or eight bytes of the spill area are taken: disjoint ranges in rising order.
#[derive(Clone, Default)]
struct Taken(Vec<Range>);

impl Taken {
    fn is_free(&self, ranges: &[Range]) -> bool {
        let mut at = 0;
        ranges.iter().all(|r| {
            at += self.0[at..].partition_point(|t| t.end < r.start);
            self.0.get(at).is_none_or(|t| r.end < t.start)
        })
    }
    fn take(&mut self, ranges: &[Range]) {
        for r in ranges {
            let at = self.0.partition_point(|t| t.end < r.start);
            match at.checked_sub(1).and_then(|n| self.0.get_mut(n)) {
                // Blocks that follow one another.
                Some(before) if before.end + 1 == r.start => before.end = r.end,
                _ => self.0.insert(at, *r),
            }
        }
    }
}

/// Values that would like to share a place, and how much they would save.
struct Friends {
    list: Vec<(u32, Value, f32)>,
    first: Vec<u32>,
}

impl Friends {
    fn new(f: &Function, order: &[usize], weights: &[f32]) -> Friends {
        let mut list = Vec::new();
        let mut befriend = |a: Value, b: Value, w: f32| {
            list.push((a.0, b, w));
            list.push((b.0, a, w));
        };
        for &b in order {
            let block = &f.blocks[b];
            for &v in &block.insts {
                let i = f.inst(v);
                if wants_first(i) {
                    befriend(v, i.args[0], weights[b]);
                }
            }
            for t in block.term.targets() {
                let Target::Block(to, args) = t else { continue };
                for (&p, &a) in f.blocks[to.index()].params.iter().zip(args) {
                    if p != a {
                        befriend(p, a, weights[b]);
                    }
                }
            }
        }
        list.sort_by_key(|l| l.0);
        let mut first = vec![0; f.insts.len() + 1];
        for (v, at) in first.iter_mut().enumerate() {
            *at = list.partition_point(|l| (l.0 as usize) < v) as u32;
        }
        Friends { list, first }
    }
    fn of(&self, v: Value) -> &[(u32, Value, f32)] {
        &self.list[self.first[v.index()] as usize..self.first[v.index() + 1] as usize]
    }
}

/// Chooses places. `weights`: of blocks.
pub(super) fn choose(f: &Function, regs: &RegFile, weights: &[f32], a: &mut Allocation) -> Result<(), OutOfSpill> {
    let friends = Friends::new(f, &a.order, weights);
    let mut turns = a.intervals.clone();
    turns.sort_by(|x, y| y.weight.total_cmp(&x.weight));
    let mut taken = [vec![Taken::default(); 16], vec![Taken::default(); 16]];
    let mut slots = vec![Taken::default(); regs.spill_bytes as usize / 8];
    let others = Taken(vec![Range { start: 0, end: u32::MAX }]);
    slots[..regs.spill_from as usize / 8].fill(others);
    let Some(lives) = &a.ranges else { return Ok(()) };
    for i in &turns {
        let ranges = lives.of(i.value);
        let class = usize::from(!f.ty(i.value).is_int());
        a.locs[i.value.index()] = if let Some(r) = register(i, ranges, regs, class, &taken[class], &friends, &a.locs) {
            taken[class][r as usize].take(ranges);
            if class == 0 { Loc::Gpr(r) } else { Loc::Xmm(r) }
        } else {
            let bytes = f.ty(i.value).bytes().max(8);
            let at = slot(i.value, ranges, bytes, &slots, &friends, &a.locs).ok_or(OutOfSpill)?;
            slots[at..at + bytes as usize / 8].iter_mut().for_each(|s| s.take(ranges));
            a.spill_used = a.spill_used.max(at as u32 * 8 + bytes);
            Loc::Spill(at as u32 * 8)
        };
    }
    Ok(())
}

/// The register that most friends have, or else the first that is free.
fn register(
    i: &Interval,
    ranges: &[Range],
    regs: &RegFile,
    class: usize,
    taken: &[Taken],
    friends: &Friends,
    locs: &[Loc],
) -> Option<u8> {
    let kept = |r: u8| class == 1 || regs.preserved >> r & 1 != 0;
    let mut wish = [0f32; 16];
    for (_, friend, weight) in friends.of(i.value) {
        match (class, locs[friend.index()]) {
            (0, Loc::Gpr(r)) | (1, Loc::Xmm(r)) if !i.crosses_call || kept(r) => wish[r as usize] += weight,
            _ => {}
        }
    }
    while let Some((r, best)) = wish.iter().copied().enumerate().max_by(|x, y| x.1.total_cmp(&y.1))
        && best > 0.0
    {
        if taken[r].is_free(ranges) {
            return Some(r as u8);
        }
        wish[r] = 0.0;
    }
    let list = if class == 0 { regs.gprs } else { regs.xmms };
    let free = |r: u8, want: bool| (kept(r) == want || class == 1) && taken[r as usize].is_free(ranges);
    let find = |want: bool| list.iter().copied().find(|&r| free(r, want));
    find(i.crosses_call).or_else(|| if class == 0 { find(!i.crosses_call) } else { None })
}

/// The first of the eight bytes that a friend has, or else those free that come first.
fn slot(v: Value, ranges: &[Range], bytes: u32, slots: &[Taken], friends: &Friends, locs: &[Loc]) -> Option<usize> {
    let n = bytes as usize / 8;
    let free =
        |at: usize| at.is_multiple_of(n) && slots.get(at..at + n).is_some_and(|s| s.iter().all(|s| s.is_free(ranges)));
    let of_friend = friends.of(v).iter().find_map(|(_, friend, _)| match locs[friend.index()] {
        Loc::Spill(at) if free(at as usize / 8) => Some(at as usize / 8),
        _ => None,
    });
    of_friend.or_else(|| (0..slots.len()).step_by(n).find(|&at| free(at)))
}
