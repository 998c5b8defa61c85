//! What the JIT has done: counters for the monitor, and who is told of code that is made.

use crate::cache::Stats;
use crate::x64::reason;
use rhea_ir::func::Function;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Called with the intermediate code of all that is compiled.
pub type CompileListener = Box<dyn Fn(&Function) + Send + Sync>;
/// Called with code that is ready to run, without a lock of the JIT.
pub type InstallListener = Box<dyn Fn(&Installed) + Send + Sync>;

/// Who is told of what is made; each is set once.
#[derive(Default)]
pub struct Listeners {
    pub compiled: OnceLock<CompileListener>,
    pub installed: OnceLock<InstallListener>,
}

impl Listeners {
    pub fn installed(&self, code: &Installed) {
        if let Some(listener) = self.installed.get() {
            listener(code);
        }
    }
}

/// Code that was made.
#[derive(Clone, Copy, Debug)]
pub struct Installed {
    /// Guest-virtual address of its first instruction.
    pub pc: u64,
    /// Where it is, and how many bytes long: what it is entered by, and what is rarely run.
    pub parts: [(usize, usize); 2],
    /// Of the guest, that it was made from.
    pub guest_bytes: u64,
    /// A region made of hot blocks, not a block.
    pub optimised: bool,
    /// What making it took.
    pub time: Duration,
}

impl Installed {
    #[must_use]
    pub fn what(&self) -> &'static str {
        if self.optimised { "region" } else { "block" }
    }
}

/// A number of one writer, its vCPU's thread, that others may read.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn count(&self) {
        self.0.store(self.get() + 1, Ordering::Relaxed);
    }
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where a vCPU found the code it looked for.
#[derive(Clone, Copy, Debug)]
pub enum Look {
    /// Where it looks first, by address.
    Jumps,
    /// Among what it found lately, by all that a translation depends on.
    Lately,
    /// In the cache of all vCPUs.
    Cache,
    /// Nowhere: it was translated.
    Translated,
}

/// What became of a memory access that generated code did not do by itself.
#[derive(Clone, Copy, Debug)]
pub enum Slow {
    /// The TLB knew the page: the access is of a kind that is always done here.
    Hit,
    /// It was in the TLB's second level.
    Revived,
    /// The guest's tables were walked, or a walk's result that is kept.
    Walked,
    /// It went to a device (walked, too).
    Device,
}

const LOOKS: [&str; 4] = ["jump cache", "found lately", "code cache", "translated"];
const SLOW: [&str; 4] = ["in the TLB", "second level", "walked", "devices"];
/// By [`reason`].
const EXITS: [&str; 7] = ["indirect jump", "jump to link", "hot", "exception", "request", "wait or mode", "other page"];

/// What a vCPU has done.
#[derive(Default)]
pub struct Counts {
    looks: [Counter; LOOKS.len()],
    slow: [Counter; SLOW.len()],
    exits: [Counter; EXITS.len()],
    flushes: Counter,
}

impl Counts {
    pub fn look(&self, look: Look) {
        self.looks[look as usize].count();
    }
    pub fn slow(&self, slow: Slow) {
        self.slow[slow as usize].count();
    }
    /// Generated code was left for a [`reason`].
    pub fn exit(&self, reason: u64) {
        if let Some(counter) = self.exits.get(reason as usize) {
            counter.count();
        }
    }
    /// Something was flushed from the TLB.
    pub fn flush(&self) {
        self.flushes.count();
    }
}

const _: () = assert!(reason::PAGES as usize == EXITS.len() - 1);

/// The text of `info jit`.
pub fn describe<'a>(stats: &Stats, vcpus: impl Iterator<Item = (u32, &'a Counts)>) -> String {
    let mut text = stats.to_string();
    let vcpus: Vec<_> = vcpus.collect();
    let mut group = |title: &str, names: &[&str], of: &dyn Fn(&Counts) -> Vec<u64>| {
        text.push_str(&format!("{title}\n"));
        let columns: Vec<Vec<u64>> = vcpus.iter().map(|(_, counts)| of(counts)).collect();
        let all: u64 = columns.iter().flatten().sum();
        for (n, name) in names.iter().enumerate() {
            let row: u64 = columns.iter().filter_map(|c| c.get(n)).sum();
            let share = if all == 0 { 0.0 } else { row as f64 * 100.0 / all as f64 };
            text.push_str(&format!("  {name:<18} {row:>12} {share:>5.1}%"));
            if vcpus.len() > 1 {
                for ((index, _), column) in vcpus.iter().zip(&columns) {
                    text.push_str(&format!("  cpu{index} {}", column.get(n).unwrap_or(&0)));
                }
            }
            text.push('\n');
        }
    };
    let values = |counters: &[Counter]| counters.iter().map(Counter::get).collect::<Vec<_>>();
    group("code looked for, found in", &LOOKS, &|c| values(&c.looks));
    group("generated code left for", &EXITS, &|c| values(&c.exits));
    group("memory accesses outside generated code", &SLOW, &|c| values(&c.slow));
    let flushes: u64 = vcpus.iter().map(|(_, c)| c.flushes.get()).sum();
    text.push_str(&format!("TLB flushes          {flushes}\n"));
    text
}

impl fmt::Display for Installed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, Installed { pc, parts: [(entry, hot), (_, cold)], guest_bytes, time, .. }) = (self.what(), self);
        let len = hot + cold;
        let us = time.as_nanos() as f64 / 1000.0;
        write!(f, "{what} at {pc:#x}: {guest_bytes} bytes of the guest, {len} of the host at {entry:#x}, {us:.1} us")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_all_vcpus() {
        let (a, b) = (Counts::default(), Counts::default());
        for _ in 0..3 {
            a.look(Look::Jumps);
        }
        b.look(Look::Translated);
        b.exit(reason::RAISED);
        b.slow(Slow::Device);
        b.flush();
        // A reason that is none counts nowhere.
        b.exit(9);
        let one = describe(&Stats::default(), [(0, &a)].into_iter());
        assert!(one.contains("  jump cache                    3 100.0%\n"), "{one}");
        let two = describe(&Stats::default(), [(0, &a), (1, &b)].into_iter());
        for line in [
            "  jump cache                    3  75.0%  cpu0 3  cpu1 0\n",
            "  translated                    1  25.0%  cpu0 0  cpu1 1\n",
            "  exception                     1 100.0%  cpu0 0  cpu1 1\n",
            "  devices                       1 100.0%  cpu0 0  cpu1 1\n",
            "TLB flushes          1\n",
        ] {
            assert!(two.contains(line), "{line}{two}");
        }
    }
}
