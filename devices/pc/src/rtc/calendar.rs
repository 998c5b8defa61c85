//! Seconds since 1970 to the cells of the clock and back (proleptic Gregorian calendar).

use rhea_clock::calendar::{date, days};

/// Data mode and hour mode of register B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    pub binary: bool,
    pub hours24: bool,
}

pub(super) const PM: u8 = 0x80;
pub(super) const DAY: i64 = 86_400;

/// The cells in the order seconds, minutes, hours, day of the week (Sunday is 1), day, month, year, century.
pub(super) type Cells = [u8; 8];
pub(super) const DAY_OF_WEEK: usize = 3;

/// The day of the week at `seconds`, 0 for Sunday.
pub(super) fn weekday(seconds: i64) -> i64 {
    (seconds.div_euclid(DAY) + 4).rem_euclid(7)
}

impl Format {
    fn number(self, value: i64) -> u8 {
        let value = value.rem_euclid(100) as u8;
        if self.binary { value } else { value / 10 << 4 | value % 10 }
    }
    /// The number in a cell; digits above 9 count as they are.
    pub fn value(self, cell: u8) -> i64 {
        if self.binary { cell.into() } else { i64::from(cell >> 4) * 10 + i64::from(cell & 15) }
    }
    fn hour_cell(self, hour: i64) -> u8 {
        if self.hours24 {
            return self.number(hour);
        }
        let twelve = if hour % 12 == 0 { 12 } else { hour % 12 };
        self.number(twelve) | if hour >= 12 { PM } else { 0 }
    }
    /// The hour of the day in a cell.
    pub fn hour(self, cell: u8) -> i64 {
        if self.hours24 {
            return self.value(cell);
        }
        self.value(cell & !PM) % 12 + if cell & PM != 0 { 12 } else { 0 }
    }
    /// The cells at `seconds`; `weekday_offset` is what the guest's day of the week is ahead.
    pub fn cells(self, seconds: i64, weekday_offset: u8) -> Cells {
        let (year, month, day) = date(seconds.div_euclid(DAY));
        let of_day = seconds.rem_euclid(DAY);
        [
            self.number(of_day % 60),
            self.number(of_day / 60 % 60),
            self.hour_cell(of_day / 3600),
            self.number((weekday(seconds) + i64::from(weekday_offset)) % 7 + 1),
            self.number(day),
            self.number(month),
            self.number(year),
            self.number(year.div_euclid(100)),
        ]
    }
    /// Seconds since 1970 of cells, whatever is in them.
    pub fn seconds(self, cells: &Cells) -> i64 {
        let [second, minute, hour, _, day, month, year, century] = *cells;
        let year = self.value(century) * 100 + self.value(year);
        let month = self.value(month).clamp(1, 12);
        days(year, month, self.value(day)) * DAY + self.hour(hour) * 3600 + self.value(minute) * 60 + self.value(second)
    }
}

/// The first second after `after` at which the time of day matches; `None` in a field matches any.
pub(super) fn next_match(after: i64, hour: Option<i64>, minute: Option<i64>, second: Option<i64>) -> Option<i64> {
    let range = |field: Option<i64>, end: i64| match field {
        Some(value) => value..value + 1,
        None => 0..end,
    };
    if hour.is_some_and(|h| h > 23) || minute.is_some_and(|m| m > 59) || second.is_some_and(|s| s > 59) {
        return None;
    }
    let midnight = after.div_euclid(DAY) * DAY;
    for day in [midnight, midnight + DAY] {
        for h in range(hour, 24) {
            for m in range(minute, 60) {
                let start = day + h * 3600 + m * 60;
                if start + 59 <= after {
                    continue;
                }
                if let Some(s) = range(second, 60).find(|s| start + s > after) {
                    return Some(start + s);
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (text, (y, m, d)) in
            [(0, (1970, 1, 1)), (11_016, (2000, 2, 29)), (-1, (1969, 12, 31)), (20_453, (2025, 12, 31))]
        {
            assert_eq!(date(text), (y, m, d));
            assert_eq!(days(y, m, d), text);
        }
        for day in -800_000..800_000 {
            let (y, m, d) = date(day);
            assert_eq!(days(y, m, d), day);
        }
        assert_eq!(weekday(0), 4, "a Thursday");
    }

    #[test]
    fn cells() {
        let bcd = Format { binary: false, hours24: true };
        // 2026-11-21 13:04:09, a Saturday.
        let t = days(2026, 11, 21) * DAY + 13 * 3600 + 4 * 60 + 9;
        assert_eq!(bcd.cells(t, 0), [0x09, 0x04, 0x13, 7, 0x21, 0x11, 0x26, 0x20]);
        let twelve = Format { binary: true, hours24: false };
        assert_eq!(twelve.cells(t, 1), [9, 4, 0x81, 1, 21, 11, 26, 20]);
        assert_eq!(twelve.cells(t - 13 * 3600, 0)[2], 12);
        assert_eq!(twelve.cells(t - 3600, 0)[2], 0x8c);
        for binary in [false, true] {
            for hours24 in [false, true] {
                let f = Format { binary, hours24 };
                for step in 0..30 {
                    let t = t + step * 3600;
                    assert_eq!(f.seconds(&f.cells(t, 3)), t);
                }
            }
        }
        bcd.seconds(&[0xff; 8]);
    }

    #[test]
    fn matches() {
        assert_eq!(next_match(0, None, None, None), Some(1));
        assert_eq!(next_match(0, Some(0), Some(0), Some(0)), Some(DAY));
        assert_eq!(next_match(-1, Some(0), Some(0), Some(0)), Some(0));
        assert_eq!(next_match(3600, None, None, Some(0)), Some(3660));
        assert_eq!(next_match(3600, Some(23), None, Some(59)), Some(23 * 3600 + 59));
        assert_eq!(next_match(DAY - 1, None, Some(59), Some(59)), Some(DAY + 3599));
        assert_eq!(next_match(5, Some(24), None, None), None);
    }
}
