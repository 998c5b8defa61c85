//! The limit of a move's bandwidth.

use super::migrate::{Migration, MigrationStatus};
use parking_lot::Mutex;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What keeps all of a move's connections together to the limit.
pub(super) struct Pace {
    migration: Arc<Migration>,
    pub sent: Arc<AtomicU64>,
    /// Since when, how many bytes, and what the limit was.
    spent: Mutex<(Instant, u64, u64)>,
    /// A connection has failed: nobody waits any longer.
    pub halted: AtomicBool,
}

impl Pace {
    pub fn new(migration: Arc<Migration>, sent: Arc<AtomicU64>) -> Self {
        Self { migration, sent, spent: Mutex::new((Instant::now(), 0, 0)), halted: AtomicBool::new(false) }
    }
    /// Bytes a second at present; 0: none.
    fn limit(&self) -> u64 {
        let parameters = self.migration.parameters();
        match self.migration.progress().status {
            MigrationStatus::Active => parameters.max_bandwidth,
            MigrationStatus::PostcopyActive => parameters.max_postcopy_bandwidth,
            _ => 0,
        }
    }
}

/// Writes no faster than the limit, while the guest runs.
pub(super) struct Paced {
    pub to: Box<dyn Write + Send>,
    pub pace: Arc<Pace>,
}

impl Write for Paced {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let Pace { migration, sent, spent, halted } = &*self.pace;
        let limit = self.pace.limit();
        let paced = limit != 0;
        let piece = if paced { data.len().min(256 << 10) } else { data.len() };
        let n = self.to.write(&data[..piece])?;
        sent.fetch_add(n as u64, Ordering::Relaxed);
        if paced {
            let (since, bytes, _) = {
                let mut spent = spent.lock();
                if spent.2 != limit {
                    // What went at another speed is not to be made up for.
                    *spent = (Instant::now(), 0, limit);
                }
                spent.1 += n as u64;
                *spent
            };
            let due = Duration::from_secs_f64(bytes as f64 / limit as f64);
            while let Some(ahead) = due.checked_sub(since.elapsed()).filter(|a| !a.is_zero()) {
                if migration.cancel.load(Ordering::SeqCst) || halted.load(Ordering::SeqCst) {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                if self.pace.limit() != limit {
                    break;
                }
                std::thread::sleep(ahead.min(Duration::from_millis(50)));
            }
            let mut spent = spent.lock();
            // Who writes meanwhile keeps what it is ahead by.
            if spent.0 == since && since.elapsed() > Duration::from_secs(1) {
                *spent = (Instant::now(), spent.1.saturating_sub(bytes), limit);
            }
        }
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
