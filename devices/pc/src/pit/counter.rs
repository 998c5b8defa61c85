//! One counter of the 8254, computed from the time instead of stepped (Intel 8254 data sheet).
//!
//! Times are in clock ticks. A run of the counting element is described by when it began and from what count; everything the guest
//! can see follows from that.

/// A tick that never comes.
pub(super) const NEVER: i64 = i64::MAX;

/// A counter. Ticks in its fields are absolute.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub(super) struct Counter {
    /// D5 to D0 of the control word: read/write format, mode, BCD; as written.
    #[n(0)]
    control: u8,
    #[n(1)]
    gate: bool,
    /// The first of two bytes, until the second is written.
    #[n(2)]
    low: Option<u8>,
    /// The next byte read is the second of two.
    #[n(3)]
    high_next: bool,
    /// The latched count and whether one of its two bytes was read.
    #[n(4)]
    latch: Option<u16>,
    #[n(5)]
    status_latch: Option<u8>,
    /// The count register: 1 to 0x10000, or 10000 (a little more from digits above 9) in BCD; 0: none written since the control word.
    #[n(6)]
    count: u32,
    /// The count register goes to the counting element at this tick ([`NEVER`]: not without a trigger).
    #[n(7)]
    load_at: i64,
    /// The count register waits to be loaded.
    #[n(8)]
    null_count: bool,
    /// What the counting element began from; 0: it has nothing.
    #[n(9)]
    loaded: u32,
    /// When it began, while it counts.
    #[n(10)]
    start: i64,
    /// The ticks it has counted, while it does not.
    #[n(11)]
    frozen: Option<i64>,
}

impl Default for Counter {
    /// The data sheet leaves it undefined: a counter programmed for mode 0 that never got a count.
    fn default() -> Self {
        Self {
            control: 0x30,
            gate: true,
            low: None,
            high_next: false,
            latch: None,
            status_latch: None,
            count: 0,
            load_at: NEVER,
            null_count: true,
            loaded: 0,
            start: 0,
            frozen: None,
        }
    }
}

impl Counter {
    pub fn with_gate(gate: bool) -> Self {
        Self { gate, ..Self::default() }
    }
    /// The mode, 0 to 5.
    pub fn mode(&self) -> u8 {
        let mode = self.control >> 1 & 7;
        if mode > 5 { mode & 3 } else { mode }
    }
    fn bcd(&self) -> bool {
        self.control & 1 != 0
    }
    fn format(&self) -> u8 {
        self.control >> 4 & 3
    }
    fn modulus(&self) -> i64 {
        if self.bcd() { 10_000 } else { 0x1_0000 }
    }
    /// Ticks counted in the present run.
    fn elapsed(&self, now: i64) -> i64 {
        self.frozen.unwrap_or_else(|| now.saturating_sub(self.start)).max(0)
    }
    /// Mode 3: how long OUT is high in a period.
    fn high_half(loaded: u32) -> i64 {
        i64::from(loaded).saturating_add(1) / 2
    }
    fn period(&self) -> i64 {
        i64::from(self.loaded).max(1)
    }

    /// Brings the state up to `now`: a count written earlier may have been loaded since.
    pub fn advance(&mut self, now: i64) {
        if self.load_at <= now {
            let at = self.load_at;
            self.load(at);
        }
    }
    fn load(&mut self, at: i64) {
        // In mode 3 a new count that was written during a period is taken between its halves, and OUT goes on from there.
        let in_low_half = self.mode() == 3 && self.loaded != 0 && self.frozen.is_none() && !self.level(at);
        self.loaded = self.count;
        self.start = if in_low_half { at.saturating_sub(Self::high_half(self.loaded)) } else { at };
        self.frozen = (!self.gate && matches!(self.mode(), 0 | 2 | 3 | 4)).then_some(0);
        self.null_count = false;
        self.load_at = NEVER;
    }
    /// The tick at which a new count is taken by itself.
    fn next_load(&self, now: i64) -> i64 {
        match self.mode() {
            1 | 5 => NEVER,
            0 | 4 => now.saturating_add(1),
            // The first count after the control word, or the gate is low and the next trigger takes it.
            _ if self.loaded == 0 => now.saturating_add(1),
            _ if self.frozen.is_some() => NEVER,
            mode => {
                let (elapsed, period) = (self.elapsed(now), self.period());
                let phase = elapsed % period;
                let half = Self::high_half(self.loaded);
                let wait = if mode == 3 && phase < half { half - phase } else { period - phase };
                // Not before the run began.
                now.max(self.start).saturating_add(wait)
            }
        }
    }

    /// OUT at `now`, to which the state was advanced.
    pub fn level(&self, now: i64) -> bool {
        let elapsed = self.elapsed(now);
        let n = i64::from(self.loaded);
        match self.mode() {
            0 | 1 if self.loaded == 0 => self.mode() == 1,
            0 => self.low.is_none() && self.load_at == NEVER && elapsed >= n,
            1 => elapsed >= n,
            _ if self.loaded == 0 => true,
            2 => self.frozen.is_some() || elapsed % n != n - 1,
            3 => self.frozen.is_some() || elapsed % n < Self::high_half(self.loaded),
            _ => elapsed != n,
        }
    }
    /// The next tick after `now` at which OUT changes or a count is loaded, and whether OUT rises there. The single low clock of
    /// mode 2 is only told by its end.
    pub fn next_event(&self, now: i64) -> Option<(i64, bool)> {
        let own = self.next_edge(now);
        let load = (self.load_at != NEVER).then_some((self.load_at.max(now.saturating_add(1)), false));
        match (own, load) {
            (Some(own), Some(load)) => Some(if own.0 <= load.0 { own } else { load }),
            (own, load) => own.or(load),
        }
    }
    fn next_edge(&self, now: i64) -> Option<(i64, bool)> {
        if self.loaded == 0 || self.frozen.is_some() {
            return None;
        }
        let (elapsed, n) = (self.elapsed(now), i64::from(self.loaded));
        let base = now.max(self.start);
        match self.mode() {
            0 if self.low.is_some() || self.load_at != NEVER => None,
            0 | 1 => (elapsed < n).then(|| (base + (n - elapsed), true)),
            // A count of 1 is illegal in the periodic modes: nothing comes of it.
            2 | 3 if n < 2 => None,
            2 => Some((base + (n - elapsed % n), true)),
            3 => {
                let (phase, half) = (elapsed % n, Self::high_half(self.loaded));
                Some(if phase < half { (base + (half - phase), false) } else { (base + (n - phase), true) })
            }
            _ if elapsed < n => Some((base + (n - elapsed), false)),
            _ => (elapsed == n).then_some((base + 1, true)),
        }
    }

    /// The counting element, as the guest reads it.
    fn value(&self, now: i64) -> u16 {
        let (elapsed, n) = (self.elapsed(now), i64::from(self.loaded));
        let value = match self.mode() {
            _ if n == 0 => 0,
            2 => n - elapsed % n,
            3 => {
                let (phase, half) = (elapsed % n, Self::high_half(self.loaded));
                // An odd count is loaded less one.
                (n & !1) - 2 * (if phase < half { phase } else { phase - half })
            }
            _ => n - elapsed,
        };
        let value = value.rem_euclid(self.modulus()) as u16;
        if self.bcd() { value % 10 | value / 10 % 10 << 4 | value / 100 % 10 << 8 | value / 1000 << 12 } else { value }
    }
    /// The status byte of the read-back command.
    fn status(&self, now: i64) -> u8 {
        u8::from(self.level(now)) << 7 | u8::from(self.null_count) << 6 | self.control & 0x3f
    }

    /// A control word that is not a latch command: D5 to D0.
    pub fn set_control(&mut self, control: u8) {
        *self = Self { control: control & 0x3f, gate: self.gate, ..Self::default() };
    }
    pub fn latch_count(&mut self, now: i64) {
        self.advance(now);
        if self.latch.is_none() {
            self.latch = Some(self.value(now));
            // A latch starts over with the byte the format reads first.
            self.high_next = false;
        }
    }
    pub fn latch_status(&mut self, now: i64) {
        self.advance(now);
        if self.status_latch.is_none() {
            self.status_latch = Some(self.status(now));
        }
    }
    pub fn read(&mut self, now: i64) -> u8 {
        self.advance(now);
        if let Some(status) = self.status_latch.take() {
            return status;
        }
        let value = self.latch.unwrap_or_else(|| self.value(now));
        let [low, high] = value.to_le_bytes();
        match self.format() {
            1 => {
                self.latch = None;
                low
            }
            2 => {
                self.latch = None;
                high
            }
            _ if self.high_next => {
                self.high_next = false;
                self.latch = None;
                high
            }
            _ => {
                self.high_next = true;
                low
            }
        }
    }
    pub fn write(&mut self, value: u8, now: i64) {
        self.advance(now);
        let count = match (self.format(), self.low.take()) {
            (1, _) => u16::from(value),
            (2, _) => u16::from(value) << 8,
            (_, Some(low)) => u16::from_le_bytes([low, value]),
            (_, None) => {
                // In mode 0 the first byte stops the counting, and OUT goes low.
                if self.mode() == 0 && self.frozen.is_none() {
                    self.frozen = Some(self.elapsed(now));
                }
                self.low = Some(value);
                return;
            }
        };
        let mut digits = u32::from(count);
        if self.bcd() {
            digits = (0..4).map(|i| (u32::from(count) >> (4 * i) & 15) * 10u32.pow(i)).sum();
        }
        self.count = if digits == 0 { self.modulus() as u32 } else { digits };
        self.null_count = true;
        self.load_at = self.next_load(now);
    }
    pub fn set_gate(&mut self, gate: bool, now: i64) {
        self.advance(now);
        if gate == self.gate {
            return;
        }
        self.gate = gate;
        let trigger = gate && self.count != 0;
        match self.mode() {
            1 | 5 if trigger => self.load_at = now.saturating_add(1),
            0 | 4 => self.freeze(!gate, now),
            2 | 3 if trigger => {
                // Counting starts anew, from the count register; OUT is high.
                self.loaded = 0;
                self.load_at = now.saturating_add(1);
            }
            2 | 3 if !gate && self.load_at != NEVER && self.loaded != 0 => {
                self.freeze(true, now);
                self.load_at = NEVER;
            }
            2 | 3 => self.freeze(!gate, now),
            _ => {}
        }
    }
    fn freeze(&mut self, stop: bool, now: i64) {
        match (stop, self.frozen) {
            (true, None) => self.frozen = Some(self.elapsed(now)),
            // A half-written count of mode 0 keeps it stopped.
            (false, Some(elapsed)) if !(self.mode() == 0 && self.low.is_some()) => {
                self.start = now.saturating_sub(elapsed);
                self.frozen = None;
            }
            _ => {}
        }
    }
    /// The period in ticks of a square wave on OUT.
    pub fn square_wave(&self) -> Option<u32> {
        (self.mode() == 3 && self.loaded > 1 && self.frozen.is_none()).then_some(self.loaded)
    }
    /// Are all values ones that a counter can have?
    pub fn sane(&self) -> bool {
        let far = 1 << 62;
        self.count <= 0x1_0000
            && self.loaded <= 0x1_0000
            && self.start.unsigned_abs() < far
            && self.frozen.unwrap_or(0).unsigned_abs() < far
            && (self.load_at == NEVER || self.load_at.unsigned_abs() < far)
    }
}
