//! What delivers interrupts to CPUs, whatever the version of the controller.
//!
//! # Locks
//! There are two kinds of lock, and no global one:
//! - one for each word of 32 SPIs ([`SpiWord`]): their state, routing, and where they wait;
//! - one for each CPU ([`CpuCore`]): its SGIs, PPIs and LPIs, the SPIs that wait for it, its CPU interfaces.
//!
//! The order is: SPI word, then CPU. A thread holds at most one SPI word and at most one CPU lock. What must change an SPI because of
//! something it found in a CPU (an acknowledge) lets the CPU go, takes the word, then the CPU, and looks again. An SGI takes the
//! target's lock only. Output lines are set with no lock held: a CPU's wanted levels are published under its lock, and whoever sets
//! the lines looks again afterwards, so the last published levels win.

use super::irqs::{Candidates, GROUP1_NS, Irqs, Place, SPI_END, SPURIOUS, SpiWord};
use super::{CpuOutputs, EoiListener};
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_accel::IrqLine;
use std::sync::atomic::{AtomicU8, Ordering};

/// Bits of a CPU's output levels.
pub const IRQ: u8 = 1;
pub const FIQ: u8 = 2;
pub const VIRQ: u8 = 4;
pub const VFIQ: u8 = 8;

/// The most CPUs a controller can have.
pub const MAX_CPUS: usize = 512;

/// The part of a CPU's state that depends on the version: its CPU interfaces.
pub trait CpuInterface: Send {
    /// The output levels ([`IRQ`] and so on). `best`: the best candidate of each group; `enables`: bit n set if the distributor
    /// forwards group n.
    fn outputs(&self, best: [u32; 3], enables: u8) -> u8;
    /// The best LPI (group 1 Non-secure) as a key.
    fn best_lpi(&self) -> u32 {
        super::irqs::NONE
    }
    /// Bit n: takes 1-of-N interrupts of group n.
    fn accepts(&self) -> u8 {
        7
    }
    /// The private interrupt stays latched although it was just acknowledged (GICv2: SGIs from several CPUs).
    fn still_pending(&self, _intid: u32) -> bool {
        false
    }
    /// PPIs that the interface itself makes: bits of the private word and their levels.
    fn own_ppis(&self) -> (u32, u32) {
        (0, 0)
    }
}

/// A CPU's state, under its lock.
pub struct CpuCore<I> {
    /// INTIDs 0 to 31.
    pub private: Irqs,
    spis: Candidates,
    pub iface: I,
}

impl<I: CpuInterface> CpuCore<I> {
    /// The best candidate of each group, whatever the groups' enables.
    pub fn best(&self) -> [u32; 3] {
        let (private, spis) = (self.private.best(0), self.spis.best());
        let mut best = [private[0].min(spis[0]), private[1].min(spis[1]), private[2].min(spis[2])];
        best[GROUP1_NS] = best[GROUP1_NS].min(self.iface.best_lpi());
        best
    }
}

struct Slot<I> {
    core: Mutex<CpuCore<I>>,
    lines: [IrqLine; 4],
    wanted: AtomicU8,
    accepts: AtomicU8,
}

impl<I> Slot<I> {
    /// Sets the lines as published last. No lock may be held.
    fn deliver(&self) {
        loop {
            let wanted = self.wanted.load(Ordering::SeqCst);
            for (n, line) in self.lines.iter().enumerate() {
                line.set(wanted >> n & 1 != 0);
            }
            if self.wanted.load(Ordering::SeqCst) == wanted {
                return;
            }
        }
    }
}

/// CPUs whose lines are to be set once the locks are free.
struct Touched([u64; MAX_CPUS / 64]);

impl Touched {
    fn new() -> Self {
        Self([0; MAX_CPUS / 64])
    }
    fn add(&mut self, cpu: usize) {
        self.0[cpu / 64 % (MAX_CPUS / 64)] |= 1 << (cpu % 64);
    }
}

/// The CPUs of a place.
fn cpus_of(place: Place) -> impl Iterator<Item = usize> {
    let (one, mask) = match place {
        Place::One(cpu) => (Some(usize::from(cpu)), 0),
        Place::Mask(mask) => (None, mask),
        Place::Nowhere | Place::Any => (None, 0),
    };
    one.into_iter().chain((0..8usize).filter(move |n| mask >> n & 1 != 0))
}

fn contains(place: Place, cpu: usize) -> bool {
    cpus_of(place).any(|c| c == cpu)
}

/// Saved state of 32 SPIs.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SavedWord {
    #[n(0)]
    irqs: Irqs,
    #[n(1)]
    route: [u64; 32],
}

/// The interrupts of a controller and its CPUs.
pub struct Engine<I> {
    /// Words 1 and up: word n holds INTIDs 32n to 32n+31; element 0 is word 1.
    words: Vec<Mutex<SpiWord>>,
    slots: Vec<Slot<I>>,
    enables: AtomicU8,
    eoi: Option<EoiListener>,
}

impl<I: CpuInterface> Engine<I> {
    /// `words` words of SPIs.
    pub fn new(words: usize, cpus: Vec<(I, CpuOutputs)>, eoi: Option<EoiListener>) -> Self {
        let slots = cpus.into_iter().map(|(iface, out)| Slot {
            core: Mutex::new(CpuCore { private: Irqs::default(), spis: Candidates::default(), iface }),
            lines: [out.irq, out.fiq, out.virq, out.vfiq],
            wanted: AtomicU8::new(0),
            accepts: AtomicU8::new(0),
        });
        Self {
            words: (0..words).map(|_| Mutex::default()).collect(),
            slots: slots.collect(),
            enables: AtomicU8::new(0),
            eoi,
        }
    }
    pub fn cpus(&self) -> usize {
        self.slots.len()
    }
    /// One more than the highest word of SPIs; words start at 1.
    pub fn words_end(&self) -> u32 {
        self.words.len() as u32 + 1
    }
    /// Does the SPI exist?
    pub fn is_spi(&self, intid: u32) -> bool {
        (32..SPI_END.min(self.words_end() * 32)).contains(&intid)
    }
    /// Bit n: the distributor forwards group n.
    pub fn enables(&self) -> u8 {
        self.enables.load(Ordering::Acquire)
    }
    /// Changes the distributor's group enables.
    pub fn set_enables(&self, enables: u8) {
        self.enables.store(enables, Ordering::SeqCst);
        for cpu in 0..self.slots.len() {
            self.with_cpu(cpu, |_| ());
        }
    }

    /// With the CPU's lock: publishes the output levels.
    fn settle(&self, slot: &Slot<I>, core: &mut CpuCore<I>) {
        let (own, levels) = core.iface.own_ppis();
        core.private.level = core.private.level & !own | levels & own;
        slot.accepts.store(core.iface.accepts(), Ordering::Release);
        slot.wanted.store(core.iface.outputs(core.best(), self.enables()), Ordering::SeqCst);
    }
    /// Reads a CPU's state. `None` if there is no such CPU.
    pub fn peek_cpu<R>(&self, cpu: usize, f: impl FnOnce(&CpuCore<I>) -> R) -> Option<R> {
        self.slots.get(cpu).map(|slot| f(&slot.core.lock()))
    }
    /// Changes a CPU's state, then sets its lines. `None` if there is no such CPU.
    pub fn with_cpu<R>(&self, cpu: usize, f: impl FnOnce(&mut CpuCore<I>) -> R) -> Option<R> {
        let slot = self.slots.get(cpu)?;
        let result = {
            let mut core = slot.core.lock();
            let result = f(&mut core);
            self.settle(slot, &mut core);
            result
        };
        slot.deliver();
        Some(result)
    }
    /// Reads a word of SPIs; `None` if it does not exist.
    pub fn peek_word<R>(&self, word: u32, f: impl FnOnce(&SpiWord) -> R) -> Option<R> {
        self.words.get((word as usize).wrapping_sub(1)).map(|w| f(&w.lock()))
    }
    /// Changes a word of SPIs. `f` answers which interrupts of the word are to be looked at again.
    pub fn with_word(&self, word: u32, f: impl FnOnce(&mut SpiWord) -> u32) {
        let Some(lock) = self.words.get((word as usize).wrapping_sub(1)) else { return };
        let mut touched = Touched::new();
        {
            let mut spis = lock.lock();
            let mut changed = f(&mut spis);
            while changed != 0 {
                let bit = changed.trailing_zeros();
                changed &= changed - 1;
                self.place(&mut spis, word, bit, &mut touched);
            }
        }
        self.deliver(&touched);
    }
    fn deliver(&self, touched: &Touched) {
        for (n, word) in touched.0.iter().enumerate() {
            let mut bits = *word;
            while bits != 0 {
                if let Some(slot) = self.slots.get(n * 64 + bits.trailing_zeros() as usize) {
                    slot.deliver();
                }
                bits &= bits - 1;
            }
        }
    }
    /// A CPU for a 1-of-N interrupt: the first that takes its group, CPU 0 if none does.
    fn choose(&self, group: usize) -> Place {
        let cpu = self.slots.iter().position(|s| s.accepts.load(Ordering::Acquire) >> group & 1 != 0).unwrap_or(0);
        Place::One(cpu as u16)
    }
    /// With the word's lock: puts an SPI among the candidates of the CPUs it is to go to now.
    fn place(&self, spis: &mut SpiWord, word: u32, bit: u32, touched: &mut Touched) {
        let index = (bit & 31) as usize;
        let (intid, group) = (word * 32 + bit, spis.irqs.group_of(bit));
        let new = match (spis.irqs.ready() >> bit & 1, spis.target[index]) {
            (0, _) => Place::Nowhere,
            (_, Place::Any) => self.choose(group),
            (_, target) => target,
        };
        let old = std::mem::replace(&mut spis.placed[index], new);
        for cpu in cpus_of(old).filter(|cpu| !contains(new, *cpu)) {
            if let Some(slot) = self.slots.get(cpu) {
                let mut core = slot.core.lock();
                core.spis.remove(intid);
                self.settle(slot, &mut core);
                touched.add(cpu);
            }
        }
        for cpu in cpus_of(new) {
            if let Some(slot) = self.slots.get(cpu) {
                let mut core = slot.core.lock();
                core.spis.insert(intid, group, spis.irqs.priority[index]);
                self.settle(slot, &mut core);
                touched.add(cpu);
            }
        }
    }
    /// Chooses CPUs for the 1-of-N interrupts anew, after a CPU began or ceased to take them.
    pub fn place_any(&self) {
        for word in 1..self.words_end() {
            self.with_word(word, |spis| {
                (0..32).filter(|n| spis.target[*n as usize] == Place::Any).fold(0, |m, n| m | 1 << n)
            });
        }
    }

    /// The input of an SPI changed.
    pub fn set_spi_level(&self, intid: u32, level: bool) {
        if self.is_spi(intid) {
            self.with_word(intid / 32, |spis| {
                let before = spis.irqs.ready();
                spis.irqs.set_level(intid & 31, level);
                before ^ spis.irqs.ready()
            });
        }
    }
    /// Sets an SPI's input without an edge.
    pub fn import_spi_level(&self, intid: u32, level: bool) {
        if self.is_spi(intid) {
            self.with_word(intid / 32, |spis| {
                let (before, mask) = (spis.irqs.ready(), 1 << (intid & 31));
                spis.irqs.level = if level { spis.irqs.level | mask } else { spis.irqs.level & !mask };
                before ^ spis.irqs.ready()
            });
        }
    }
    /// The input of a PPI changed.
    pub fn set_ppi_level(&self, cpu: usize, intid: u32, level: bool) {
        self.with_cpu(cpu, |core| core.private.set_level(intid & 31, level));
    }
    /// Sets a PPI's input without an edge.
    pub fn import_ppi_level(&self, cpu: usize, intid: u32, level: bool) {
        self.with_cpu(cpu, |core| {
            let mask = 1 << (intid & 31);
            core.private.level = if level { core.private.level | mask } else { core.private.level & !mask };
        });
    }
    /// The SPIs to save.
    pub fn save_words(&self) -> Vec<SavedWord> {
        let save = |spis: &SpiWord| SavedWord { irqs: spis.irqs.clone(), route: spis.route };
        (1..self.words_end()).filter_map(|n| self.peek_word(n, save)).collect()
    }
    /// Loads them, as many as there are; `place_of` says where a route leads.
    pub fn load_words(&self, words: Vec<SavedWord>, two_states: bool, place_of: impl Fn(u64) -> Place) {
        for (n, SavedWord { irqs, route }) in words.into_iter().enumerate() {
            self.with_word(n as u32 + 1, |spis| {
                spis.irqs = Irqs { two_states, ..irqs };
                spis.route = route;
                spis.target = route.map(&place_of);
                !0
            });
        }
    }
    /// A message for an SPI: an edge, or (level-sensitive) the level until it is taken back.
    pub fn message_spi(&self, intid: u32, set: bool, allowed: impl Fn(usize) -> bool) {
        if self.is_spi(intid) {
            self.with_word(intid / 32, |spis| {
                let mask = 1 << (intid & 31);
                if allowed(spis.irqs.group_of(intid & 31)) {
                    let field = if spis.irqs.edge & mask != 0 { &mut spis.irqs.latch } else { &mut spis.irqs.level };
                    *field = if set { *field | mask } else { *field & !mask };
                }
                mask
            });
        }
    }

    /// Acknowledges an interrupt of `cpu`. `select` names the interrupt, or the special INTID to answer. `take` does the CPU
    /// interface's part; it is called once, with the CPU's lock held and before the interrupt's state changes, for an interrupt that
    /// `select` named under that lock. Answers what `take` did.
    pub fn acknowledge(
        &self,
        cpu: usize,
        select: impl Fn(&CpuCore<I>) -> Result<u32, u32>,
        mut take: impl FnMut(&mut CpuCore<I>, u32) -> u32,
    ) -> u32 {
        let Some(slot) = self.slots.get(cpu) else { return SPURIOUS };
        // Each retry means that another thread changed an interrupt in between.
        for _ in 0..64 {
            let intid = {
                let mut core = slot.core.lock();
                match select(&core) {
                    Err(special) => return special,
                    Ok(intid) if self.is_spi(intid) => intid,
                    Ok(intid) => {
                        let answer = take(&mut core, intid);
                        if intid < 32 {
                            core.private.activate(intid);
                            core.private.latch |= u32::from(core.iface.still_pending(intid)) << intid;
                        }
                        self.settle(slot, &mut core);
                        drop(core);
                        slot.deliver();
                        return answer;
                    }
                }
            };
            let Some(lock) = self.words.get(intid as usize / 32 - 1) else { return SPURIOUS };
            let mut touched = Touched::new();
            let answer = {
                let mut spis = lock.lock();
                let taken = {
                    let mut core = slot.core.lock();
                    if select(&core) == Ok(intid) {
                        spis.irqs.activate(intid & 31);
                        Some(take(&mut core, intid))
                    } else {
                        None
                    }
                };
                if taken.is_some() {
                    self.place(&mut spis, intid / 32, intid & 31, &mut touched);
                }
                taken
            };
            if let Some(answer) = answer {
                touched.add(cpu);
                self.deliver(&touched);
                return answer;
            }
        }
        SPURIOUS
    }
    /// Deactivates an interrupt if it is active and `allowed` by its group.
    pub fn deactivate(&self, cpu: usize, intid: u32, allowed: impl Fn(usize) -> bool) {
        if intid < 32 {
            self.with_cpu(cpu, |core| {
                if allowed(core.private.group_of(intid)) {
                    core.private.active &= !(1 << intid);
                }
            });
        } else if self.is_spi(intid) {
            let mut resample = false;
            self.with_word(intid / 32, |spis| {
                let mask = 1 << (intid & 31);
                if !allowed(spis.irqs.group_of(intid & 31)) || spis.irqs.active & mask == 0 {
                    return 0;
                }
                resample = spis.irqs.edge & mask == 0;
                spis.irqs.active &= !mask;
                mask
            });
            if let (true, Some(eoi)) = (resample, &self.eoi) {
                eoi(intid - 32);
            }
        }
    }

    /// Resets all interrupts (levels of inputs stay: their sources drive them) and lets `iface` reset each CPU interface.
    pub fn reset(&self, word: impl Fn(&mut SpiWord, u32), mut private: impl FnMut(usize, &mut CpuCore<I>)) {
        self.enables.store(0, Ordering::SeqCst);
        for n in 1..self.words_end() {
            self.with_word(n, |spis| {
                let level = spis.irqs.level;
                let placed = spis.placed;
                *spis = SpiWord { placed, ..SpiWord::default() };
                spis.irqs.level = level;
                word(spis, n);
                !0
            });
        }
        for cpu in 0..self.slots.len() {
            self.with_cpu(cpu, |core| {
                let level = core.private.level;
                core.private = Irqs { level, ..Irqs::default() };
                private(cpu, core);
            });
        }
    }
    /// Is the CPU's output (bits [`IRQ`], ...) asserted? For inspection and tests.
    pub fn outputs(&self, cpu: usize) -> u8 {
        self.slots.get(cpu).map_or(0, |s| s.wanted.load(Ordering::SeqCst))
    }
    /// The words of SPIs in use, a line each.
    pub fn describe_spis(&self) -> String {
        let lines = (1..self.words_end()).filter_map(|word| {
            self.peek_word(word, |spis| {
                let irqs = &spis.irqs;
                (irqs.enabled | irqs.pending() | irqs.active != 0).then(|| {
                    format!(
                        "  {}..{}: enabled={:#010x} pending={:#010x} active={:#010x} level={:#010x} edge={:#010x}\n",
                        word * 32,
                        word * 32 + 31,
                        irqs.enabled,
                        irqs.pending(),
                        irqs.active,
                        irqs.level,
                        irqs.edge
                    )
                })
            })
            .flatten()
        });
        lines.collect()
    }
}
