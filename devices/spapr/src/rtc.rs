//! The time of day by RTAS (LoPAPR 7.3.9).

use crate::papr::{RtasCalls, rtas, rtas_return};
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_clock::RtcClock;
use rhea_clock::calendar::{date, days};
use rhea_device::state::{decode, encode};
use rhea_device::{Device, LoadError, Saved};
use std::sync::Arc;

const DAY: i64 = 86_400;

#[derive(Encode, Decode)]
struct State {
    #[n(0)]
    offset: i64,
}

/// The wall clock (`spapr-rtc`).
pub struct Rtc {
    clock: RtcClock,
    /// What the guest set it ahead, in seconds.
    offset: Mutex<i64>,
}

impl Rtc {
    #[must_use]
    pub fn new(clock: RtcClock) -> Arc<Self> {
        Arc::new(Self { clock, offset: Mutex::new(0) })
    }
    /// Year, month, day, hour, minute, second, nanosecond.
    fn get(&self) -> [u32; 7] {
        let (seconds, ns) = self.clock.now();
        let seconds = seconds.saturating_add(*self.offset.lock());
        let (day, of_day) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        let (year, month, day) = date(day.clamp(-719_468, 3_652_059 - 719_528));
        [year, month, day, of_day / 3600, of_day / 60 % 60, of_day % 60, i64::from(ns)].map(|v| v as u32)
    }
    fn set(&self, time: [u32; 7]) -> bool {
        let [year, month, day, hour, minute, second, _] = time.map(i64::from);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let length = match month {
            2 => 28 + i64::from(leap),
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return false,
        };
        if !(1..=9999).contains(&year) || !(1..=length).contains(&day) || hour > 23 || minute > 59 || second > 59 {
            return false;
        }
        let wanted = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second;
        let offset = wanted - self.clock.now().0;
        *self.offset.lock() = offset;
        self.clock.changed(offset);
        true
    }
}

impl RtasCalls for Rtc {
    fn names(&self) -> &'static [&'static str] {
        &["get-time-of-day", "set-time-of-day"]
    }
    fn rtas(&self, name: &str, args: &[u32], results: &mut [u32]) -> bool {
        match (name, args) {
            ("get-time-of-day", &[]) if results.len() >= 8 => rtas_return(results, rtas::SUCCESS, &self.get()),
            ("set-time-of-day", &[y, mo, d, h, mi, s, ns]) if self.set([y, mo, d, h, mi, s, ns]) => {
                rtas_return(results, rtas::SUCCESS, &[]);
            }
            _ if self.names().contains(&name) => rtas_return(results, rtas::PARAMETER_ERROR, &[]),
            _ => return false,
        }
        true
    }
}

impl Device for Rtc {
    fn name(&self) -> &str {
        "spapr-rtc"
    }
    /// A clock keeps its time over a reset.
    fn reset(&self) {}
    fn save(&self) -> Saved {
        encode(1, &State { offset: *self.offset.lock() })
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        let State { offset } = decode(saved, 1)?;
        *self.offset.lock() = offset;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhea_clock::{RtcBase, RtcSource, VirtualClock};

    #[test]
    fn time_of_day() {
        let rtc = Rtc::new(RtcClock::new(RtcBase::Fixed(951_782_400), RtcSource::Vm, &VirtualClock::new()));
        let mut results = [9; 8];
        assert!(rtc.rtas("get-time-of-day", &[], &mut results));
        assert_eq!(results, [0, 2000, 2, 29, 0, 0, 0, 0]);
        let set = |args: &[u32]| {
            let mut results = [9];
            assert!(rtc.rtas("set-time-of-day", args, &mut results));
            results[0] as i32
        };
        assert_eq!(set(&[2024, 12, 31, 23, 59, 58, 0]), 0);
        assert!(rtc.rtas("get-time-of-day", &[], &mut results));
        assert_eq!(results, [0, 2024, 12, 31, 23, 59, 58, 0]);
        let saved = rtc.save();
        for bad in [
            &[2023, 2, 29, 0, 0, 0, 0][..],
            &[2023, 13, 1, 0, 0, 0, 0],
            &[2023, 1, 1, 24, 0, 0, 0],
            &[0, 1, 1, 0, 0, 0, 0],
            &[u32::MAX; 7],
            &[1, 2],
        ] {
            assert_eq!(set(bad), rtas::PARAMETER_ERROR);
        }
        assert_eq!(set(&[1999, 1, 1, 1, 1, 1, 1]), 0);
        assert!(rtc.load(&saved).is_ok());
        assert!(rtc.rtas("get-time-of-day", &[], &mut results));
        assert_eq!(results[1], 2024);
        assert!(rtc.rtas("get-time-of-day", &[1], &mut results[..2]));
        assert_eq!(results[0] as i32, rtas::PARAMETER_ERROR);
        assert!(!rtc.rtas("power-off", &[], &mut results));
    }
}
