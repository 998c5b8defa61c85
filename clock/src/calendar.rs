//! Dates of the (proleptic) Gregorian calendar.

/// Days since 1970-01-01 of a date (month 1 to 12); `day` may be out of the month.
#[must_use]
pub fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March have their leap day last.
    let shifted = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let (era, of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (month * 153 + 2) / 5 + day - 1 - 719_468
}

/// Year, month (1 to 12) and day of days since 1970-01-01.
#[must_use]
pub fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (year * 365 + year / 4 - year / 100);
    let month = (of_year * 5 + 2) / 153;
    let day = of_year - (month * 153 + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        assert_eq!((days(1970, 1, 1), days(2000, 2, 29), days(1969, 12, 31)), (0, 11_016, -1));
        for n in (-800_000..800_000).step_by(97) {
            let (year, month, day) = date(n);
            assert_eq!(days(year, month, day), n);
            assert!((1..=12).contains(&month) && (1..=31).contains(&day));
        }
    }
}
