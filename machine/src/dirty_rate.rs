//! How much memory the guest writes to.

use crate::machine::Machine;
use parking_lot::Mutex;
use rhea_memory::{DirtyClient, PAGE_SIZE, RamBlock};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Checksums of some pages before and after.
    #[default]
    PageSampling,
    /// Dirty logs of all pages.
    DirtyBitmap,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measure {
    pub mode: Mode,
    /// Milliseconds.
    pub time: u64,
    /// Pages of each GiB.
    pub samples: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status {
    #[default]
    Unstarted,
    Measuring,
    /// MiB in a second.
    Measured(u64),
}

/// The last measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub measure: Measure,
    pub status: Status,
    /// Seconds since 1970.
    pub start: u64,
}

#[derive(Default)]
pub struct DirtyRate(Mutex<Report>);

/// A page whose content is compared.
struct Sample {
    block: Arc<RamBlock>,
    page: u64,
    sum: u64,
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The pages of a sample, at random places, with their checksums.
fn sample(blocks: &[Arc<RamBlock>], per_gib: u64, keys: &RandomState) -> Vec<Sample> {
    let of_block = |block: &Arc<RamBlock>| {
        let pages = block.len() / PAGE_SIZE;
        let count = (u128::from(block.len()) * u128::from(per_gib) / u128::from(GIB)).max(1) as u64;
        let (block, keys) = (block.clone(), keys.clone());
        (0..count.min(pages)).map(move |n| {
            let page = keys.hash_one((block.name(), n)) % pages;
            Sample { sum: checksum(&block, page, &keys), block: block.clone(), page }
        })
    };
    blocks.iter().flat_map(of_block).collect()
}

fn checksum(block: &RamBlock, page: u64, keys: &RandomState) -> u64 {
    let mut data = [0; PAGE_SIZE as usize];
    // What cannot be read does not change.
    let _ = block.read(page * PAGE_SIZE, &mut data);
    keys.hash_one(data)
}

/// MiB in a second.
fn rate(bytes: u128, time: Duration) -> u64 {
    let ms = time.as_millis().max(1);
    u64::try_from(bytes * 1000 / ms / u128::from(MIB)).unwrap_or(u64::MAX)
}

impl DirtyRate {
    #[must_use]
    pub fn query(&self) -> Report {
        *self.0.lock()
    }
    /// Starts to measure; the result is there when the time has passed.
    ///
    /// # Errors
    /// Another measurement runs, or the host has no thread.
    pub fn start(self: &Arc<Self>, machine: &Arc<Machine>, measure: Measure) -> Result<(), String> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        {
            let mut report = self.0.lock();
            if report.status == Status::Measuring {
                return Err("the dirty rate is already being measured".to_owned());
            }
            *report = Report { measure, status: Status::Measuring, start: since };
        }
        let (me, machine) = (Arc::downgrade(self), Arc::downgrade(machine));
        let work = move || {
            let measured = run(&machine, measure);
            if let Some(me) = Weak::upgrade(&me) {
                me.0.lock().status = measured.map_or(Status::Unstarted, Status::Measured);
            }
        };
        let spawned = std::thread::Builder::new().name("rhea-dirty-rate".to_owned()).spawn(work);
        spawned.map(drop).map_err(|e| {
            self.0.lock().status = Status::Unstarted;
            format!("cannot start a thread: {e}")
        })
    }
}

/// Measures; `None`: the machine is gone.
fn run(machine: &Weak<Machine>, measure: Measure) -> Option<u64> {
    let wait = Duration::from_millis(measure.time);
    let blocks = machine.upgrade()?.memory_blocks();
    let begin = Instant::now();
    if measure.mode == Mode::DirtyBitmap {
        blocks.iter().for_each(|b| b.start_dirty_log(DirtyClient::Rate));
        std::thread::sleep(wait);
        let pages: usize = blocks.iter().map(|b| b.take_dirty(DirtyClient::Rate, 0, u64::MAX).len()).sum();
        let time = begin.elapsed();
        blocks.iter().for_each(|b| b.stop_dirty_log(DirtyClient::Rate));
        return Some(rate(pages as u128 * u128::from(PAGE_SIZE), time));
    }
    let keys = RandomState::new();
    let before = sample(&blocks, measure.samples, &keys);
    std::thread::sleep(wait);
    let changed = before.iter().filter(|s| checksum(&s.block, s.page, &keys) != s.sum).count();
    let total: u128 = blocks.iter().map(|b| u128::from(b.len())).sum();
    Some(rate(total * changed as u128 / before.len().max(1) as u128, begin.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        assert_eq!(rate(u128::from(10 * MIB), Duration::from_secs(2)), 5);
        assert_eq!(rate(u128::MAX >> 12, Duration::ZERO), u64::MAX);
    }
}
