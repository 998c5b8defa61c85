//! Registers, the main counter and matches; interrupts to be made come back as [`Effect`].

/// General configuration.
const ENABLE: u64 = 1 << 0;
pub(super) const LEGACY: u64 = 1 << 1;
/// Timer configuration.
const LEVEL: u64 = 1 << 1;
const INT_ENABLE: u64 = 1 << 2;
const PERIODIC: u64 = 1 << 3;
const PERIODIC_CAP: u64 = 1 << 4;
const SIZE_CAP: u64 = 1 << 5;
const SET_VALUE: u64 = 1 << 6;
const MODE_32: u64 = 1 << 8;
const ROUTE: u64 = 0x1f << 9;
const FSB_ENABLE: u64 = 1 << 14;
const FSB_CAP: u64 = 1 << 15;

/// A tick in ns.
pub(super) const TICK_NS: u64 = 10;
/// A tick in fs, as the capabilities tell it.
const PERIOD_FS: u64 = 10_000_000;

/// Bits of a set of lines beyond the I/O APIC's inputs.
pub(super) const IRQ0: u32 = 32;
pub(super) const IRQ8: u32 = 33;

/// What the block can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Abilities {
    pub timers: u8,
    pub routes: u32,
    pub fsb: bool,
}

/// Interrupts to be made.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Effect {
    /// Lines that get an edge, a bit for each.
    pub edges: u64,
    /// Address and data of FSB interrupts.
    pub messages: Vec<(u32, u32)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
struct Timer {
    /// The writable bits.
    #[n(0)]
    config: u64,
    #[n(1)]
    comparator: u64,
    #[n(2)]
    period: u64,
    /// FSB interrupt value and, above it, address.
    #[n(3)]
    fsb: u64,
    /// The next match, in ticks since the counter was enabled.
    #[n(4)]
    due: Option<u64>,
}

impl Timer {
    fn is(&self, bit: u64) -> bool {
        self.config & bit != 0
    }
    fn mask(&self) -> u64 {
        if self.is(MODE_32) { u64::from(u32::MAX) } else { u64::MAX }
    }
    /// Finds the next match; the counter is at `counter`, `elapsed` ticks after it was enabled.
    fn plan(&mut self, counter: u64, elapsed: u64) {
        let wait = self.comparator.wrapping_sub(counter) & self.mask();
        self.due = match wait {
            // A match is an event of a tick: the present one has begun.
            0 if self.is(MODE_32) => elapsed.checked_add(1 << 32),
            0 => None,
            _ => elapsed.checked_add(wait),
        };
    }
    /// The match that was due has been; finds the one after `elapsed`.
    fn matched(&mut self, due: u64, elapsed: u64) {
        let mask = self.mask();
        let period = self.period & mask;
        if self.is(PERIODIC) && period != 0 {
            let steps = (elapsed - due) / period + 1;
            self.comparator = self.comparator.wrapping_add(period.wrapping_mul(steps)) & mask;
            self.due = steps.checked_mul(period).and_then(|ticks| due.checked_add(ticks));
        } else if self.is(MODE_32) {
            let steps = ((elapsed - due) >> 32) + 1;
            self.due = due.checked_add(steps << 32);
        } else {
            self.due = None;
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub(super) struct State {
    #[n(0)]
    config: u64,
    /// Level interrupts that are active.
    #[n(1)]
    status: u64,
    /// The counter while halted, and when it was enabled.
    #[n(2)]
    base: u64,
    /// When it was enabled, in ns of the virtual clock.
    #[n(3)]
    enabled_at: u64,
    #[n(4)]
    timers: Vec<Timer>,
}

fn merge(old: u64, value: u64, mask: u64) -> u64 {
    old & !mask | value & mask
}

impl State {
    pub fn new(abilities: Abilities) -> Self {
        Self { timers: vec![Timer::default(); usize::from(abilities.timers)], ..Self::default() }
    }
    fn enabled(&self) -> bool {
        self.config & ENABLE != 0
    }
    pub fn legacy(&self) -> bool {
        self.config & LEGACY != 0
    }
    fn elapsed(&self, now: u64) -> u64 {
        now.saturating_sub(self.enabled_at) / TICK_NS
    }
    pub fn counter(&self, now: u64) -> u64 {
        if self.enabled() { self.base.wrapping_add(self.elapsed(now)) } else { self.base }
    }
    /// The line of timer `index`, if it has one.
    fn line(&self, index: usize, abilities: Abilities) -> Option<u32> {
        let timer = &self.timers[index];
        match index {
            0 if self.legacy() => Some(IRQ0),
            1 if self.legacy() => Some(IRQ8),
            _ => Some((timer.config & ROUTE) as u32 >> 9).filter(|route| abilities.routes >> route & 1 != 0),
        }
    }
    /// The lines that level interrupts hold up.
    pub fn levels(&self, abilities: Abilities) -> u64 {
        let mut lines = 0;
        for (i, timer) in self.timers.iter().enumerate() {
            let active = self.status >> i & 1 != 0 && timer.is(INT_ENABLE) && timer.is(LEVEL) && !timer.is(FSB_ENABLE);
            if let (true, Some(line)) = (active && self.enabled(), self.line(i, abilities)) {
                lines |= 1 << line;
            }
        }
        lines
    }
    /// When the next match is that interrupts, in ns. What others change is seen only by who looks, who catches up first.
    pub fn next_event(&self) -> Option<u64> {
        if !self.enabled() {
            return None;
        }
        let due = self.timers.iter().filter(|timer| timer.is(INT_ENABLE)).filter_map(|timer| timer.due).min()?;
        // Beyond the end of the clock: never.
        due.checked_mul(TICK_NS).and_then(|ns| ns.checked_add(self.enabled_at))
    }
    /// Does the matches until `now`.
    pub fn catch_up(&mut self, now: u64, abilities: Abilities, effect: &mut Effect) {
        if !self.enabled() {
            return;
        }
        let elapsed = self.elapsed(now);
        for i in 0..self.timers.len() {
            let Some(due) = self.timers[i].due.filter(|due| *due <= elapsed) else { continue };
            self.timers[i].matched(due, elapsed);
            let line = self.line(i, abilities);
            let timer = &self.timers[i];
            if timer.is(FSB_ENABLE) {
                if timer.is(INT_ENABLE) {
                    effect.messages.push(((timer.fsb >> 32) as u32, timer.fsb as u32));
                }
            } else if timer.is(LEVEL) {
                self.status |= 1 << i;
            } else if let (true, Some(line)) = (timer.is(INT_ENABLE), line) {
                effect.edges |= 1 << line;
            }
        }
    }
    fn plan_all(&mut self, now: u64) {
        let (counter, elapsed, enabled) = (self.counter(now), self.elapsed(now), self.enabled());
        for timer in &mut self.timers {
            if enabled { timer.plan(counter, elapsed) } else { timer.due = None }
        }
    }
    fn set_counter(&mut self, value: u64, now: u64) {
        self.base = value;
        self.enabled_at = now;
        self.plan_all(now);
    }

    /// The 64-bit register at `offset`, a multiple of 8.
    pub fn read(&self, offset: u64, now: u64, abilities: Abilities) -> u64 {
        match offset {
            // Intel, revision 1, legacy replacement, a 64-bit counter.
            0x000 => PERIOD_FS << 32 | 0x8086_a001 | u64::from(abilities.timers.saturating_sub(1)) << 8,
            0x010 => self.config,
            0x020 => self.status,
            0x0f0 => self.counter(now),
            _ => {
                let Some(timer) = Self::index(offset).and_then(|i| self.timers.get(i)) else { return 0 };
                match offset & 0x18 {
                    0x00 => {
                        let fsb = if abilities.fsb { FSB_CAP } else { 0 };
                        timer.config | PERIODIC_CAP | SIZE_CAP | fsb | u64::from(abilities.routes) << 32
                    }
                    0x08 => timer.comparator,
                    0x10 => timer.fsb,
                    _ => 0,
                }
            }
        }
    }
    /// The timer whose registers are at `offset`.
    fn index(offset: u64) -> Option<usize> {
        usize::try_from(offset.checked_sub(0x100)? >> 5).ok()
    }
    /// Writes the bits of `mask` of the register at `offset`; the state was brought up to `now`.
    pub fn write(&mut self, offset: u64, value: u64, mask: u64, now: u64, abilities: Abilities) {
        match offset {
            0x010 => {
                let new = merge(self.config, value, mask) & (ENABLE | LEGACY);
                let counter = self.counter(now);
                let switched = (new ^ self.config) & ENABLE != 0;
                self.config = new;
                if switched {
                    self.set_counter(counter, now);
                }
            }
            0x020 => self.status &= !(value & mask),
            0x0f0 => self.set_counter(merge(self.counter(now), value, mask), now),
            _ => {
                let (counter, elapsed, enabled) = (self.counter(now), self.elapsed(now), self.enabled());
                let Some((i, timer)) = Self::index(offset).and_then(|i| Some((i, self.timers.get_mut(i)?))) else {
                    return;
                };
                match offset & 0x18 {
                    0x00 => {
                        let mut writable = LEVEL | INT_ENABLE | PERIODIC | SET_VALUE | MODE_32;
                        if abilities.fsb {
                            writable |= FSB_ENABLE;
                        }
                        let new = merge(timer.config, value, mask);
                        // An input the timer cannot be routed to is not taken.
                        if abilities.routes >> (new >> 9 & 0x1f) & 1 != 0 {
                            writable |= ROUTE;
                        }
                        let old = timer.config;
                        timer.config = merge(old, new, writable);
                        timer.comparator &= timer.mask();
                        timer.period &= timer.mask();
                        if timer.config & LEVEL == 0 {
                            self.status &= !(1 << i);
                        }
                        if (old ^ self.timers[i].config) & MODE_32 == 0 {
                            return;
                        }
                    }
                    0x08 => {
                        let (width, set) = (timer.mask(), timer.is(SET_VALUE));
                        if timer.is(PERIODIC) {
                            timer.period = merge(timer.period, value, mask) & width;
                            timer.config &= !SET_VALUE;
                            if !set {
                                return;
                            }
                        }
                        timer.comparator = merge(timer.comparator, value, mask) & width;
                    }
                    0x10 => {
                        timer.fsb = merge(timer.fsb, value, mask);
                        return;
                    }
                    _ => return,
                }
                if enabled {
                    self.timers[i].plan(counter, elapsed);
                }
            }
        }
    }
    /// Does it fit a block of these abilities?
    pub fn fits(&self, abilities: Abilities) -> bool {
        self.timers.len() == usize::from(abilities.timers)
    }
}
