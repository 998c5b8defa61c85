//! Registers, cells and the passing of time.

use super::CENTURY;
use super::calendar::{Cells, DAY, DAY_OF_WEEK, Format, next_match, weekday};

pub(super) const A: u8 = 0x0a;
pub(super) const B: u8 = 0x0b;
pub(super) const C: u8 = 0x0c;
const D: u8 = 0x0d;

/// Register A.
const UIP: u8 = 0x80;
const DIVIDER: u8 = 0x70;
/// The divider runs from 32768 Hz.
const DIVIDER_RUNS: u8 = 0x20;
/// Register B.
const SET: u8 = 0x80;
const PIE: u8 = 0x40;
const AIE: u8 = 0x20;
const UIE: u8 = 0x10;
const SQWE: u8 = 0x08;
const DATA_BINARY: u8 = 0x04;
const HOURS_24: u8 = 0x02;
pub(super) const DSE: u8 = 0x01;
/// Register C: the flags, at the places of their enables.
const IRQF: u8 = 0x80;
const FLAGS: u8 = PIE | AIE | UIE;
/// Register D: RAM and time are valid.
const VRT: u8 = 0x80;

const NS: i128 = 1_000_000_000;
/// How long UIP is set before the time changes: 244 µs of warning and 1984 µs of update, in ns.
const UPDATE_NS: i128 = 2_228_000;
/// The cells of [`Cells`] in their order.
const TIME: [u8; 8] = [0, 2, 4, 6, 7, 8, 9, CENTURY];

/// The machine's wall clock, and its virtual clock, at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub wall_ns: i128,
    pub clock_ns: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub(super) struct State {
    /// All 256 bytes. Those of the time are current only while the clock stands; registers A and B are here, C and D are not.
    #[n(0)]
    pub cells: Vec<u8>,
    #[n(1)]
    pub index: u8,
    #[n(2)]
    pub extended_index: u8,
    #[n(3)]
    pub nmi_masked: bool,
    #[n(4)]
    pub irq_blocked: bool,
    /// What the guest's time is ahead of the wall clock: whole seconds and ns.
    #[n(5)]
    ahead: i64,
    #[n(6)]
    ahead_ns: u32,
    /// What the guest's day of the week is ahead of the calendar's.
    #[n(7)]
    weekday_offset: u8,
    /// Register C without IRQF.
    #[n(8)]
    flags: u8,
    /// The second up to which updates and alarms were looked at.
    #[n(9)]
    second: i64,
    /// The periods of the periodic interrupt counted so far.
    #[n(10)]
    periods: u64,
}

impl Default for State {
    fn default() -> Self {
        let mut cells = vec![0; 256];
        // As firmware leaves it: the divider runs, 1024 Hz, BCD, 24 hours.
        cells[usize::from(A)] = DIVIDER_RUNS | 6;
        cells[usize::from(B)] = HOURS_24;
        Self {
            cells,
            index: 0,
            extended_index: 0,
            nmi_masked: false,
            irq_blocked: false,
            ahead: 0,
            ahead_ns: 0,
            weekday_offset: 0,
            flags: 0,
            second: 0,
            periods: 0,
        }
    }
}

impl State {
    fn a(&self) -> u8 {
        self.cells[usize::from(A)]
    }
    fn b(&self) -> u8 {
        self.cells[usize::from(B)]
    }
    fn format(&self) -> Format {
        Format { binary: self.b() & DATA_BINARY != 0, hours24: self.b() & HOURS_24 != 0 }
    }
    fn divider_runs(&self) -> bool {
        self.a() & DIVIDER == DIVIDER_RUNS
    }
    /// Do updates happen?
    fn runs(&self) -> bool {
        self.divider_runs() && self.b() & SET == 0
    }
    pub fn interrupt(&self) -> bool {
        self.flags & self.b() & FLAGS != 0
    }
    /// Is the alarm interrupt enabled and pending?
    pub fn alarm(&self) -> bool {
        self.flags & self.b() & AIE != 0
    }
    /// The guest's time in ns.
    fn time(&self, now: Now) -> i128 {
        now.wall_ns + i128::from(self.ahead) * NS + i128::from(self.ahead_ns)
    }
    /// Seconds by which the guest has set the time ahead.
    pub fn ahead(&self) -> i64 {
        self.ahead
    }
    fn seconds(&self, now: Now) -> i64 {
        self.time(now).div_euclid(NS) as i64
    }
    /// Lets the guest's time be `time` now.
    fn set_time(&mut self, time: i128, now: Now) {
        let ahead = time - now.wall_ns;
        self.ahead = ahead.div_euclid(NS) as i64;
        self.ahead_ns = ahead.rem_euclid(NS) as u32;
        self.second = self.seconds(now);
    }
    /// The length of a period of the periodic interrupt in ticks of 32768 Hz; `None`: none.
    fn period(&self) -> Option<u64> {
        if !self.divider_runs() {
            return None;
        }
        match self.a() & 15 {
            0 => None,
            rate @ 1..=2 => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }
    fn count_periods(&self, now: Now) -> u64 {
        let ticks = u128::from(now.clock_ns) * 32_768 / 1_000_000_000;
        self.period().map_or(0, |period| (ticks / u128::from(period)) as u64)
    }
    fn next_alarm(&self, after: i64) -> Option<i64> {
        let format = self.format();
        // The two top bits set: any value.
        let field = |index: usize| Some(self.cells[index]).filter(|cell| cell & 0xc0 != 0xc0);
        next_match(
            after,
            field(5).map(|cell| format.hour(cell)),
            field(3).map(|cell| format.value(cell)),
            field(1).map(|cell| format.value(cell)),
        )
    }

    /// Power-on, at `now`.
    pub fn begin(&mut self, now: Now) {
        self.second = self.seconds(now);
        self.periods = self.count_periods(now);
    }
    /// The RESET pin.
    pub fn reset(&mut self) {
        self.cells[usize::from(B)] &= !(PIE | AIE | UIE | SQWE);
        self.flags = 0;
        self.index = 0;
        self.extended_index = 0;
        self.nmi_masked = false;
    }
    /// Sets the flags of what has happened until `now`.
    pub fn catch_up(&mut self, now: Now) {
        if self.runs() {
            let second = self.seconds(now);
            if second > self.second {
                self.flags |= UIE;
                if self.next_alarm(self.second).is_some_and(|at| at <= second) {
                    self.flags |= AIE;
                }
            }
            // The host's clock may have been set back.
            self.second = second;
        }
        let periods = self.count_periods(now);
        if periods != self.periods {
            self.periods = periods;
            self.flags |= PIE;
        }
    }
    /// When, on the virtual clock, the next interrupt is to be made.
    pub fn next_event(&self, now: Now) -> Option<u64> {
        let wanted = self.b() & !self.flags;
        let in_wall = |second: i64| {
            let wait = (i128::from(second) * NS - self.time(now)).max(0);
            u64::try_from(i128::from(now.clock_ns) + wait).unwrap_or(u64::MAX)
        };
        let periodic = self.period().filter(|_| wanted & PIE != 0).map(|period| {
            let tick = u128::from(self.periods + 1) * u128::from(period);
            u64::try_from((tick * 1_000_000_000).div_ceil(32_768)).unwrap_or(u64::MAX)
        });
        let update = (wanted & UIE != 0 && self.runs()).then(|| in_wall(self.second.saturating_add(1)));
        let alarm = (wanted & AIE != 0 && self.runs()).then(|| self.next_alarm(self.second)).flatten().map(in_wall);
        [periodic, update, alarm].into_iter().flatten().min()
    }

    fn time_cells(&self, now: Now) -> Cells {
        if self.runs() {
            self.format().cells(self.seconds(now), self.weekday_offset)
        } else {
            TIME.map(|index| self.cells[usize::from(index)])
        }
    }
    /// The clock stops: the time goes to the cells.
    fn stop(&mut self, now: Now) {
        for (index, cell) in TIME.into_iter().zip(self.format().cells(self.seconds(now), self.weekday_offset)) {
            self.cells[usize::from(index)] = cell;
        }
    }
    /// The time becomes what `cells` say, `fraction` ns into the second.
    fn take_cells(&mut self, cells: &Cells, fraction: i128, now: Now) {
        let seconds = self.format().seconds(cells);
        self.set_time(i128::from(seconds) * NS + fraction, now);
        let day = self.format().value(cells[DAY_OF_WEEK]);
        if (1..=7).contains(&day) {
            self.weekday_offset = (day - 1 - weekday(seconds)).rem_euclid(7) as u8;
        }
    }
    /// Changes registers A and B: the clock may stop, or start from the cells.
    fn set_control(&mut self, index: u8, value: u8, now: Now) {
        let (ran, divided) = (self.runs(), self.divider_runs());
        if index == A {
            // The rate changes without an interrupt of its own.
            let stopped = ran && value & DIVIDER != DIVIDER_RUNS;
            if stopped {
                self.stop(now);
            }
            self.cells[usize::from(A)] = value & !UIP;
            self.periods = self.count_periods(now);
        } else {
            if ran && value & SET != 0 {
                self.stop(now);
            }
            // SET ends the update interrupt.
            self.cells[usize::from(B)] = if value & SET != 0 { value & !UIE } else { value };
        }
        if !ran && self.runs() {
            let cells = TIME.map(|index| self.cells[usize::from(index)]);
            // A divider that comes out of reset makes its first update after half a second; SET alone leaves it running.
            let fraction = if divided { self.time(now).rem_euclid(NS) } else { NS / 2 };
            self.take_cells(&cells, fraction, now);
        }
    }

    /// Any register but C.
    pub fn read(&self, index: u8, now: Now) -> u8 {
        if let Some(place) = TIME.iter().position(|cell| *cell == index) {
            return self.time_cells(now)[place];
        }
        match index {
            A => {
                let left = NS - self.time(now).rem_euclid(NS);
                self.a() | if self.runs() && left <= UPDATE_NS { UIP } else { 0 }
            }
            D => VRT,
            _ => self.cells[usize::from(index)],
        }
    }
    pub fn read_c(&mut self) -> u8 {
        let value = self.flags | if self.interrupt() { IRQF } else { 0 };
        self.flags = 0;
        value
    }
    pub fn write(&mut self, index: u8, value: u8, now: Now) {
        // Bit 7 of the seconds is read-only.
        let value = if index == 0 { value & 0x7f } else { value };
        match TIME.iter().position(|cell| *cell == index) {
            Some(place) if self.runs() => {
                let mut cells = self.time_cells(now);
                cells[place] = value;
                let fraction = self.time(now).rem_euclid(NS);
                self.take_cells(&cells, fraction, now);
            }
            Some(_) => self.cells[usize::from(index)] = value,
            None => match index {
                A | B => self.set_control(index, value, now),
                C | D => {}
                _ => self.cells[usize::from(index)] = value,
            },
        }
    }
    /// Are all values ones that the clock can have?
    pub fn sane(&self) -> bool {
        let far = 1 << 40;
        self.ahead.abs() < far
            && self.second.abs() < far * DAY
            && self.ahead_ns < 1_000_000_000
            && self.weekday_offset < 7
    }
}
