//! Register allocation over a region in SSA form: by linear scan where it has to be made fast, else by [`priority`].
//!
//! A value has one location for its whole life: a register or a spill slot. Values that only state maps use weigh
//! almost nothing, so they are spilled first. *Deferred* values (compares folded into their branch, flags only needed
//! by cold exits, constants) get no location: whoever uses them computes them from their arguments.

use rhea_ir::func::{ExitKind, Function, Inst, StateId, Target, Term, Value};
use rhea_ir::guest::{HelperDesc, NanRule};
use rhea_ir::op::{Class, Op};
use rhea_ir::types::Type;

mod priority;
mod quick;

use priority::{Range, Ranges};
pub use quick::recycle;

/// Where a value lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loc {
    /// Not allocated: unused, or deferred.
    None,
    Gpr(u8),
    Xmm(u8),
    /// 8-byte-aligned (16 for vectors) offset in the spill area.
    Spill(u32),
}

/// The register file a back end lets the allocator use.
pub struct RegFile {
    /// Allocatable general registers, in order of preference.
    pub gprs: &'static [u8],
    pub xmms: &'static [u8],
    /// General registers that calls preserve.
    pub preserved: u16,
    /// Where the spill area begins, a multiple of 16, and where it ends.
    pub spill_from: u32,
    pub spill_bytes: u32,
}

/// The hull of a value's live ranges, `[start, end]` in instruction positions.
#[derive(Clone, Copy, Debug)]
pub struct Interval {
    pub value: Value,
    pub start: u32,
    pub end: u32,
    /// Weighted uses by length of life.
    weight: f32,
    crosses_call: bool,
}

pub struct Allocation {
    /// Blocks in emission order.
    pub order: Vec<usize>,
    pub locs: Vec<Loc>,
    pub deferred: Vec<bool>,
    /// Position of every instruction (0 for those not emitted).
    pub pos: Vec<u32>,
    /// Intervals sorted by start.
    pub intervals: Vec<Interval>,
    /// Where allocation is by priority: where in its interval a value is live.
    ranges: Option<Ranges>,
    pub spill_used: u32,
}

impl Allocation {
    /// Is what the interval's value holds needed both before and after the instruction at `pos`?
    pub fn lives_across(&self, i: &Interval, pos: u32) -> bool {
        i.start <= pos
            && i.end > pos
            && self.ranges.as_ref().is_none_or(|r| r.of(i.value).iter().any(|r| r.start <= pos && r.end > pos))
    }
}

/// The region needs more spill space than there is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("spill area exhausted")]
pub struct OutOfSpill;

/// Values the exits of a kind use besides their state map.
pub fn exit_value(k: ExitKind) -> Option<Value> {
    match k {
        ExitKind::Indirect(v) | ExitKind::Return(v) | ExitKind::IndirectCall { target: v, .. } => Some(v),
        _ => None,
    }
}

fn fits_imm32(f: &Function, v: Value) -> bool {
    f.as_const(v).is_some_and(|c| match f.ty(v) {
        Type::I64 => c as i64 >= i32::MIN as i64 && c as i64 <= i32::MAX as i64,
        Type::I32 | Type::Bool => true,
        _ => c == 0,
    })
}

/// How often a value is used in ways that let it be computed there.
#[derive(Clone, Copy, Default)]
struct Uses {
    /// Where a condition can be absorbed.
    cond: u32,
    flag: u32,
    /// As the argument of an edge.
    edge: u32,
}

/// Where a value is live, and how much it is used there.
#[derive(Clone, Copy)]
struct Life {
    start: u32,
    end: u32,
    weight: f32,
    /// In the block at hand.
    here: (u32, u32),
}

const NOWHERE: (u32, u32) = (u32::MAX, 0);

struct Lives {
    of: Vec<Life>,
    /// Those that are live in the block at hand.
    here: Vec<u32>,
    /// Values and where they are live, block by block, if that is asked for.
    parts: Option<Vec<(u32, Range)>>,
}

impl Lives {
    fn new(values: usize, parts: bool) -> Lives {
        let none = Life { start: u32::MAX, end: 0, weight: 0.0, here: NOWHERE };
        Lives { of: vec![none; values], here: Vec::new(), parts: parts.then(Vec::new) }
    }
    fn cover(&mut self, v: usize, at: u32) {
        let life = &mut self.of[v];
        life.start = life.start.min(at);
        life.end = life.end.max(at);
        if life.here == NOWHERE {
            self.here.push(v as u32);
        }
        life.here = (life.here.0.min(at), life.here.1.max(at));
    }
    /// Used at a place it is live up to.
    fn used(&mut self, v: usize, at: u32, weight: f32) {
        self.cover(v, at);
        self.of[v].weight += weight;
    }
    fn cover_row(&mut self, row: &[u64], at: u32) {
        for (k, &word) in row.iter().enumerate() {
            let mut word = word;
            while word != 0 {
                self.cover(k * 64 + word.trailing_zeros() as usize, at);
                word &= word - 1;
            }
        }
    }
    fn end_block(&mut self) {
        for v in self.here.drain(..) {
            let (start, end) = std::mem::replace(&mut self.of[v as usize].here, NOWHERE);
            if let Some(parts) = &mut self.parts {
                parts.push((v, Range { start, end }));
            }
        }
    }
}

/// Of flags: which of two compares a conditional one or a loop left.
fn is_choice(i: &Inst) -> bool {
    i.op == Op::Select && matches!(i.ty, Type::I32 | Type::V128)
}

/// Flags of integers.
pub(crate) fn is_flags(op: Op) -> bool {
    matches!(op, Op::FlagsSub | Op::FlagsAdd | Op::FlagsAdc | Op::FlagsLogic | Op::FlagsCmp | Op::FlagsSbb)
}

/// Decides which values are deferred.
fn defer(f: &Function, order: &[usize], hot_uses: &[u32]) -> Vec<bool> {
    let mut deferred = vec![false; f.insts.len()];
    // Comparing again where the flags are used would raise again what was cleared in between.
    let clears = order.iter().any(|&b| f.blocks[b].insts.iter().any(|&v| f.inst(v).op == Op::FpFlagsClear));
    let mut uses = vec![Uses::default(); f.insts.len()];
    for &b in order {
        for &v in &f.blocks[b].insts {
            let i = f.inst(v);
            if matches!(i.op, Op::Select | Op::FromBool) {
                uses[i.args[0].index()].cond += 1;
                // A condition that is also selected as a value is not absorbed twice.
            }
            if i.op == Op::CondFlags {
                uses[i.args[0].index()].flag += 1;
            }
        }
        if let Term::Branch { cond, .. } = &f.blocks[b].term {
            uses[cond.index()].cond += 1;
        }
        for t in f.blocks[b].term.targets() {
            if let Target::Block(_, args) = t {
                args.iter().for_each(|a| uses[a.index()].edge += 1);
            }
        }
    }
    // Flags that are chosen between only where somebody leaves are computed there too.
    for &b in order {
        for &v in &f.blocks[b].insts {
            let i = f.inst(v);
            if is_choice(i) && uses[v.index()].edge == hot_uses[v.index()] {
                let flags = |a: &&Value| is_flags(f.inst(**a).op);
                i.args[1..3].iter().filter(flags).for_each(|a| uses[a.index()].edge += 1);
            }
        }
    }
    for &b in order {
        for &v in &f.blocks[b].insts {
            let i = f.inst(v);
            let n = v.index();
            let (u, all) = (uses[n], hot_uses[n]);
            deferred[n] = match i.op {
                Op::Const => fits_imm32(f, v),
                Op::ICmp | Op::CondFlags | Op::OrderIs | Op::ToBool => u.cond == all,
                Op::FlagsVTest => u.flag + u.edge == all,
                op if is_flags(op) => u.flag + u.edge == all,
                Op::FlagsFCom => u.flag + u.edge == all && !clears && f.fp.is_host_x86(),
                Op::FlagsFCmp => u.flag == all && f.fp.host_compares() && !clears && f.fp.nan_rule == NanRule::Arm,
                Op::Select if is_choice(i) => u.edge == all,
                Op::VFromScalar | Op::VZeroHi | Op::Zext64 | Op::Order | Op::OrderOf => u.edge == all,
                _ => false,
            };
        }
    }
    deferred
}

struct Sets {
    words: usize,
    bits: Vec<u64>,
}

impl Sets {
    fn new(blocks: usize, values: usize) -> Sets {
        let words = values.div_ceil(64);
        Sets { words, bits: vec![0; words * blocks] }
    }
    fn row(&self, b: usize) -> &[u64] {
        &self.bits[b * self.words..(b + 1) * self.words]
    }
    fn set(&mut self, b: usize, v: usize) {
        self.bits[b * self.words + v / 64] |= 1 << (v % 64);
    }
    fn clear(&mut self, b: usize, v: usize) {
        self.bits[b * self.words + v / 64] &= !(1 << (v % 64));
    }
}

/// Visits the allocated values that a use of `v` really reads: `v` itself, or what a deferred value is made of.
pub fn real_uses(f: &Function, deferred: &[bool], v: Value, visit: &mut dyn FnMut(Value)) {
    if v.is_none() {
        return;
    }
    if !deferred[v.index()] {
        visit(v);
        return;
    }
    let i = f.inst(v);
    for &a in i.args() {
        real_uses(f, deferred, a, visit);
    }
}

fn state_uses(f: &Function, deferred: &[bool], s: StateId, visit: &mut dyn FnMut(Value)) {
    if s != StateId::NONE {
        for d in &f.state(s).dirty {
            real_uses(f, deferred, d.1, visit);
        }
    }
}

/// What a use counts that only passes a value on, and one that stores it to guest state.
const PASSED: f32 = 0.25;
const STORED: f32 = 0.3;

fn term_uses(f: &Function, deferred: &[bool], t: &Term, visit: &mut dyn FnMut(Value, f32)) {
    if let Some(v) = t.value() {
        real_uses(f, deferred, v, &mut |v| visit(v, 1.0));
    }
    for t in t.targets() {
        match t {
            Target::Block(_, args) => {
                for &a in args {
                    let part = if deferred[a.index()] { 1.0 } else { PASSED };
                    real_uses(f, deferred, a, &mut |v| visit(v, part));
                }
            }
            Target::Exit(k, s) => {
                if let Some(v) = exit_value(*k) {
                    real_uses(f, deferred, v, &mut |v| visit(v, 1.0));
                }
                state_uses(f, deferred, *s, &mut |v| visit(v, STORED));
            }
        }
    }
}

/// Loop depth by block: a back edge in the emission order encloses everything between.
fn loop_depths(f: &Function, order: &[usize]) -> Vec<u32> {
    let mut at = vec![usize::MAX; f.blocks.len()];
    for (k, &b) in order.iter().enumerate() {
        at[b] = k;
    }
    let mut depth = vec![0u32; f.blocks.len()];
    for (k, &b) in order.iter().enumerate() {
        for t in f.blocks[b].term.targets() {
            if let Some(to) = t.block()
                && at[to.index()] <= k
            {
                for &x in &order[at[to.index()]..=k] {
                    depth[x] = (depth[x] + 1).min(4);
                }
            }
        }
    }
    depth
}

/// The values live at the start and at the end of each block.
fn liveness(f: &Function, order: &[usize], deferred: &[bool]) -> (Sets, Sets) {
    let (nb, nv) = (f.blocks.len(), f.insts.len());
    let mut live_in = Sets::new(nb, nv);
    let mut kill = Sets::new(nb, nv);
    let mut live_out = Sets::new(nb, nv);
    for &b in order {
        let blk = &f.blocks[b];
        // Backwards: uses set, definitions clear.
        term_uses(f, deferred, &blk.term, &mut |v, _| live_in.set(b, v.index()));
        for &v in blk.insts.iter().rev() {
            live_in.clear(b, v.index());
            kill.set(b, v.index());
            if deferred[v.index()] && f.inst(v).op.class() != Class::Fp {
                continue;
            }
            let i = f.inst(v);
            for &a in i.args() {
                real_uses(f, deferred, a, &mut |x| live_in.set(b, x.index()));
            }
            state_uses(f, deferred, i.state, &mut |x| live_in.set(b, x.index()));
        }
        for &p in &blk.params {
            live_in.clear(b, p.index());
            kill.set(b, p.index());
        }
    }
    loop {
        let mut changed = false;
        for &b in order.iter().rev() {
            for t in f.blocks[b].term.targets() {
                let Some(to) = t.block() else { continue };
                for w in 0..live_in.words {
                    let inn = live_in.row(to.index())[w];
                    let o = &mut live_out.bits[b * live_out.words + w];
                    *o |= inn;
                    let add = *o & !kill.bits[b * kill.words + w];
                    let i = &mut live_in.bits[b * live_in.words + w];
                    if *i | add != *i {
                        *i |= add;
                        changed = true;
                    }
                }
            }
        }
        if !changed {
            break;
        }
    }
    (live_in, live_out)
}

/// Allocates registers for the region, by priority if `thorough`. `is_call` tells which instructions clobber caller-saved
/// registers on the hot path.
pub fn allocate(
    f: &Function,
    helpers: &[HelperDesc],
    regs: &RegFile,
    thorough: bool,
    is_call: &dyn Fn(Value) -> bool,
) -> Result<Allocation, OutOfSpill> {
    let order = match quick::analyze(f, rhea_ir::opt::reverse_post_order(f), helpers, is_call) {
        Ok(mut alloc) => {
            scan(f, regs, &mut alloc)?;
            return Ok(alloc);
        }
        Err(order) => order,
    };
    let nv = f.insts.len();
    let mut hot_uses = vec![0u32; nv];
    for &b in &order {
        for &v in &f.blocks[b].insts {
            for &a in f.inst(v).args() {
                hot_uses[a.index()] += 1;
            }
        }
        if let Some(v) = f.blocks[b].term.value() {
            hot_uses[v.index()] += 1;
        }
        for t in f.blocks[b].term.targets() {
            match t {
                Target::Block(_, args) => args.iter().for_each(|a| hot_uses[a.index()] += 1),
                Target::Exit(k, _) => {
                    if let Some(v) = exit_value(*k) {
                        hot_uses[v.index()] += 1;
                    }
                }
            }
        }
    }
    let deferred = defer(f, &order, &hot_uses);

    // A single block has no values from outside.
    let live = (f.blocks.len() > 1).then(|| liveness(f, &order, &deferred));

    // Intervals: the hull of all live positions.
    let depth = if live.is_some() { loop_depths(f, &order) } else { vec![0] };
    let weights: Vec<f32> = depth.iter().map(|&d| [1f32, 10.0, 100.0, 1000.0, 4000.0][d as usize]).collect();
    let mut pos = vec![0u32; nv];
    let mut lives = Lives::new(nv, thorough && live.is_some());
    let mut calls = Vec::new();
    let mut p = 2u32;
    for &b in &order {
        let blk = &f.blocks[b];
        let w = weights[b];
        let first = p;
        if let Some((live_in, _)) = &live {
            lives.cover_row(live_in.row(b), first);
        }
        for &v in &blk.params {
            lives.used(v.index(), first, PASSED * w);
        }
        p += 2;
        for &v in &blk.insts {
            let i = f.inst(v);
            let n = v.index();
            pos[n] = p;
            if !deferred[n] || i.op.class() == Class::Fp {
                for &a in i.args() {
                    real_uses(f, &deferred, a, &mut |x| lives.used(x.index(), p, w));
                }
                state_uses(f, &deferred, i.state, &mut |x| lives.used(x.index(), p, 0.01 * w));
            }
            if !deferred[n] && i.ty != Type::Void {
                lives.used(n, p + 1, w);
            }
            if is_call(v) {
                calls.push(p);
            }
            p += 2;
        }
        term_uses(f, &deferred, &blk.term, &mut |v, part| lives.used(v.index(), p, part * w));
        // Values live out stay live through the edge's moves.
        if let Some((_, live_out)) = &live {
            lives.cover_row(live_out.row(b), p + 1);
        }
        lives.end_block();
        p += 2;
    }
    let ranges = lives.parts.take().map(|parts| Ranges::new(nv, parts));
    let mut intervals = Vec::with_capacity(nv);
    for (v, life) in lives.of.iter().enumerate() {
        if life.start == u32::MAX || deferred[v] {
            continue;
        }
        let value = Value(v as u32);
        let crosses = |start: u32, end: u32| {
            let k = calls.partition_point(|&c| c < start);
            calls.get(k).is_some_and(|&c| c < end)
        };
        let (length, crosses_call) = match &ranges {
            None => (life.end - life.start + 1, crosses(life.start, life.end)),
            Some(r) => (r.length(value), r.of(value).iter().any(|r| crosses(r.start, r.end))),
        };
        let weight = life.weight / length as f32;
        intervals.push(Interval { value, start: life.start, end: life.end, weight, crosses_call });
    }
    intervals.sort_unstable_by_key(|i| (i.start, i.value.0));
    let mut alloc = Allocation { order, locs: vec![Loc::None; nv], deferred, pos, intervals, ranges, spill_used: 0 };
    if alloc.ranges.is_some() {
        priority::choose(f, regs, &weights, &mut alloc)?;
    } else {
        scan(f, regs, &mut alloc)?;
    }
    Ok(alloc)
}

/// Would the operation like its result where its first operand was?
fn wants_first(i: &Inst) -> bool {
    !i.args[0].is_none() && !matches!(i.op, Op::Load | Op::Select | Op::Call)
}

/// Values whose register a value would like to share.
fn hints(f: &Function) -> Vec<Value> {
    let mut hint = vec![Value::NONE; f.insts.len()];
    for b in &f.blocks {
        for &v in &b.insts {
            let i = f.inst(v);
            if wants_first(i) {
                hint[v.index()] = i.args[0];
            }
        }
        for t in b.term.targets() {
            let Target::Block(to, args) = t else { continue };
            for (&p, &a) in f.blocks[to.index()].params.iter().zip(args) {
                if hint[p.index()].is_none() {
                    hint[p.index()] = a;
                }
            }
        }
    }
    hint
}

struct SpillArea {
    /// End of the interval that holds each 8-byte slot.
    busy: Vec<u32>,
    limit: usize,
}

impl SpillArea {
    fn take(&mut self, bytes: u32, start: u32, end: u32) -> Option<u32> {
        let n = if bytes > 8 { 2 } else { 1 };
        let mut k = 0;
        loop {
            if k + n > self.limit {
                return None;
            }
            if self.busy.len() < k + n {
                self.busy.resize(k + n, 0);
            }
            if self.busy[k..k + n].iter().all(|&e| e < start) {
                self.busy[k..k + n].iter_mut().for_each(|e| *e = end);
                return Some(k as u32 * 8);
            }
            k += n;
        }
    }
}

type ActiveSet = smallvec::SmallVec<[Interval; 12]>;

fn scan(f: &Function, regs: &RegFile, a: &mut Allocation) -> Result<(), OutOfSpill> {
    let edges = (!f.eager).then(|| hints(f));
    let mut active: [ActiveSet; 2] = Default::default();
    // The first end among those active.
    let mut soonest = [u32::MAX; 2];
    let mut free: [u32; 2] = [0, 0];
    regs.gprs.iter().for_each(|&r| free[0] |= 1 << r);
    regs.xmms.iter().for_each(|&r| free[1] |= 1 << r);
    let mut spill =
        SpillArea { busy: vec![u32::MAX; regs.spill_from as usize / 8], limit: regs.spill_bytes as usize / 8 };
    let reg_of = |l: Loc| match l {
        Loc::Gpr(r) | Loc::Xmm(r) => r,
        _ => 255,
    };
    for k in 0..a.intervals.len() {
        let cur = a.intervals[k];
        let class = !f.ty(cur.value).is_int() as usize;
        let mk = |r: u8| if class == 0 { Loc::Gpr(r) } else { Loc::Xmm(r) };
        // Expire.
        for c in 0..2 {
            if soonest[c] >= cur.start {
                continue;
            }
            let locs = &a.locs;
            let free_c = &mut free[c];
            let first = &mut soonest[c];
            *first = u32::MAX;
            active[c].retain(|i| {
                if i.end < cur.start {
                    *free_c |= 1 << reg_of(locs[i.value.index()]);
                    return false;
                }
                *first = i.end.min(*first);
                true
            });
        }
        let h = match &edges {
            Some(hint) => hint[cur.value.index()],
            None => Some(f.inst(cur.value)).filter(|i| wants_first(i)).map_or(Value::NONE, |i| i.args[0]),
        };
        let mut pick = None;
        if !h.is_none() {
            let r = reg_of(a.locs[h.index()]);
            if r != 255
                && (f.ty(h).is_int() as usize) != class
                && free[class] >> r & 1 != 0
                && (!cur.crosses_call || class == 1 || regs.preserved >> r & 1 != 0)
            {
                pick = Some(r);
            }
        }
        if pick.is_none() {
            let list = if class == 0 { regs.gprs } else { regs.xmms };
            let ok = |r: u8, want: bool| free[class] >> r & 1 != 0 && (regs.preserved >> r & 1 != 0) == want;
            pick = if class == 0 {
                list.iter()
                    .copied()
                    .find(|&r| ok(r, cur.crosses_call))
                    .or_else(|| list.iter().copied().find(|&r| ok(r, !cur.crosses_call)))
            } else {
                list.iter().copied().find(|&r| free[1] >> r & 1 != 0)
            };
        }
        let bytes = f.ty(cur.value).bytes();
        if let Some(r) = pick {
            free[class] &= !(1 << r);
            a.locs[cur.value.index()] = mk(r);
            active[class].push(cur);
            soonest[class] = soonest[class].min(cur.end);
            continue;
        }
        // Spill the lightest.
        let (at, lightest) = active[class]
            .iter()
            .enumerate()
            .min_by(|x, y| x.1.weight.total_cmp(&y.1.weight))
            .map(|(n, i)| (n, *i))
            .ok_or(OutOfSpill)?;
        let victim = if lightest.weight < cur.weight {
            let l = a.locs[lightest.value.index()];
            a.locs[cur.value.index()] = l;
            active[class][at] = cur;
            soonest[class] = soonest[class].min(cur.end);
            lightest
        } else {
            cur
        };
        let vb = if victim.value == cur.value { bytes } else { f.ty(victim.value).bytes() };
        // A victim's slot must be free for its whole life, which began earlier.
        let slot = spill.take(vb, victim.start, victim.end).ok_or(OutOfSpill)?;
        a.spill_used = a.spill_used.max(slot + vb.max(8));
        a.locs[victim.value.index()] = Loc::Spill(slot);
    }
    Ok(())
}
