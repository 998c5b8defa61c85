//! Traditional memory balloon (virtio 1.2, 5.5): inflated and reported pages go back to the host unless DMA has
//! them pinned.

use crate::core::{VirtioDevice, config_bytes};
use crate::features;
use crate::queue::{Chain, QueueError};
use crate::queues::{Gate, Queues};
use parking_lot::{Condvar, Mutex};
use rhea_device::LoadError;
use rhea_memory::Gpa;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The device type.
pub const ID: u16 = 5;
const INFLATE: u16 = 0;
const DEFLATE: u16 = 1;
const STATS: u16 = 2;
/// Free page hints are not offered, so the reporting queue follows the statistics queue.
const REPORTING: u16 = 3;
const PAGE: u64 = 4096;
const ENTRY: usize = 10;

/// What the guest said of its memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Tag and value (5.5.6.3).
    pub entries: Vec<(u16, u64)>,
    /// When that was: seconds of the host's clock since 1970; 0: never.
    pub updated: u64,
}

/// How often the guest is asked for statistics by itself.
#[derive(Default)]
struct Polling {
    /// Seconds, 0: not at all; and how often that was changed: the thread of an earlier setting ends.
    setting: Mutex<(u32, u64)>,
    changed: Condvar,
}

impl Polling {
    fn set(&self, seconds: u32) -> u64 {
        let mut setting = self.setting.lock();
        *setting = (seconds, setting.1 + 1);
        self.changed.notify_all();
        setting.1
    }
}

/// A balloon.
pub struct Balloon {
    deflate_on_oom: bool,
    reporting: bool,
    /// Pages of 4 KiB the host wants, and the guest gave.
    target: AtomicU32,
    actual: AtomicU32,
    queues: OnceLock<Arc<Queues>>,
    gates: [Gate; 4],
    /// The buffer for the next statistics, and the last ones: tag and value.
    held: Mutex<Option<Chain>>,
    statistics: Mutex<Statistics>,
    polling: Arc<Polling>,
    /// Told of what the guest gave, in bytes.
    changed: OnceLock<Box<dyn Fn(u64) + Send + Sync>>,
}

impl Balloon {
    /// `reporting`: the guest tells of pages it does not use, which go back to the host until they are touched.
    #[must_use]
    pub fn new(deflate_on_oom: bool, reporting: bool) -> Arc<Self> {
        Arc::new(Self {
            deflate_on_oom,
            reporting,
            target: AtomicU32::new(0),
            actual: AtomicU32::new(0),
            queues: OnceLock::new(),
            gates: Default::default(),
            held: Mutex::default(),
            statistics: Mutex::default(),
            polling: Arc::default(),
            changed: OnceLock::new(),
        })
    }
    /// Calls `f` with the bytes the guest has given whenever it gives or takes. The first one stays.
    pub fn on_change(&self, f: impl Fn(u64) + Send + Sync + 'static) {
        let _ = self.changed.set(Box::new(f));
    }
    /// Asks the guest to give `bytes` of its memory.
    pub fn set_target(&self, bytes: u64) {
        self.target.store(u32::try_from(bytes / PAGE).unwrap_or(u32::MAX), Ordering::Release);
        if let Some(queues) = self.queues.get() {
            queues.config_changed();
        }
    }
    /// Bytes the guest gave.
    #[must_use]
    pub fn actual(&self) -> u64 {
        u64::from(self.actual.load(Ordering::Acquire)) * PAGE
    }
    /// The last statistics; asks for new ones, unless that is done regularly.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        if self.polling_interval() == 0 {
            self.ask();
        }
        self.statistics.lock().clone()
    }
    /// Gives the guest its buffer for statistics, which it returns filled.
    fn ask(&self) {
        let held = self.held.lock().take();
        if let (Some(queues), Some(chain)) = (self.queues.get(), held) {
            queues.complete(STATS, chain, 0);
        }
    }
    /// Seconds between two questions for statistics; 0: they are asked for when somebody looks.
    #[must_use]
    pub fn polling_interval(&self) -> u32 {
        self.polling.setting.lock().0
    }
    /// Asks for statistics every so many seconds, or not (0).
    ///
    /// # Errors
    /// The host has no thread for it.
    pub fn set_polling_interval(self: &Arc<Self>, seconds: u32) -> std::io::Result<()> {
        let mine = self.polling.set(seconds);
        if seconds == 0 {
            return Ok(());
        }
        let (balloon, polling) = (Arc::downgrade(self), self.polling.clone());
        let run = move || {
            let interval = Duration::from_secs(seconds.into());
            while let Some(balloon) = balloon.upgrade() {
                balloon.ask();
                drop(balloon);
                let mut setting = polling.setting.lock();
                let end = std::time::Instant::now() + interval;
                while setting.1 == mine && !polling.changed.wait_until(&mut setting, end).timed_out() {}
                if setting.1 != mine {
                    break;
                }
            }
        };
        let spawned = std::thread::Builder::new().name("balloon-stats".to_owned()).spawn(run);
        if spawned.is_err() {
            self.polling.set(0);
        }
        spawned.map(drop)
    }

    /// The page numbers of a buffer.
    fn pages(queues: &Queues, chain: &Chain) -> Option<Vec<u32>> {
        let mut data = vec![0; chain.readable_len().min(1 << 20) as usize / 4 * 4];
        chain.read(queues.dma(), 0, &mut data).ok()?;
        Some(data.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect())
    }
    /// Gives the whole pages of a range back to the host.
    fn discard(queues: &Queues, start: u64, len: u64) {
        let Some(end) = start.checked_add(len) else { return };
        // By the ranges of the memory map: most of a hostile buffer may be nothing at all.
        // Page numbers are of guest-physical memory.
        let dma = queues.dma().untranslated();
        let space = dma.space();
        let parts: Vec<(u64, u64)> = space
            .view()
            .ranges()
            .iter()
            .filter_map(|r| {
                let first = r.range.start.0.max(start).checked_next_multiple_of(PAGE)?;
                let last = r.range.last().saturating_add(1).min(end) / PAGE * PAGE;
                (first < last).then_some((first, last))
            })
            .collect();
        for (first, last) in parts {
            let len = last - first;
            // Only writable RAM.
            let Some(slice) = dma.host_slice(Gpa(first), len) else { continue };
            let (block, offset) = slice.block();
            if block.discard(offset, len).is_err() && len > PAGE {
                // Some page is pinned: the others go.
                for page in 0..len / PAGE {
                    let _ = block.discard(offset + page * PAGE, PAGE);
                }
            }
        }
    }
    fn inflate(queues: &Queues, mut pages: Vec<u32>) {
        pages.sort_unstable();
        pages.dedup();
        let mut rest = pages.as_slice();
        while let Some(&first) = rest.first() {
            let run =
                rest.iter().enumerate().take_while(|(i, p)| u64::from(**p) == u64::from(first) + *i as u64).count();
            Self::discard(queues, u64::from(first) * PAGE, run as u64 * PAGE);
            rest = &rest[run..];
        }
    }
}

impl Drop for Balloon {
    fn drop(&mut self) {
        self.polling.set(0);
    }
}

impl VirtioDevice for Balloon {
    fn id(&self) -> u16 {
        ID
    }
    fn name(&self) -> &'static str {
        "virtio-balloon"
    }
    fn pci_class(&self) -> u32 {
        0x00_ff00
    }
    fn features(&self) -> u64 {
        let reporting = if self.reporting { features::BALLOON_REPORTING } else { 0 };
        features::BALLOON_STATS_VQ | reporting | if self.deflate_on_oom { features::BALLOON_DEFLATE_ON_OOM } else { 0 }
    }
    fn queue_sizes(&self) -> Vec<u16> {
        vec![128; if self.reporting { 4 } else { 3 }]
    }
    fn attach(&self, queues: Arc<Queues>) {
        let _ = self.queues.set(queues);
    }
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut c = [0; 8];
        c[..4].copy_from_slice(&self.target.load(Ordering::Acquire).to_le_bytes());
        c[4..].copy_from_slice(&self.actual.load(Ordering::Acquire).to_le_bytes());
        config_bytes(&c, offset, data);
    }
    fn write_config(&self, offset: u64, data: &[u8]) {
        if let (4, Ok(bytes)) = (offset, <[u8; 4]>::try_from(data)) {
            self.actual.store(u32::from_le_bytes(bytes), Ordering::Release);
            if let Some(changed) = self.changed.get() {
                changed(self.actual());
            }
        }
    }
    fn notify(&self, queue: u16) {
        let (Some(queues), Some(gate)) = (self.queues.get(), self.gates.get(usize::from(queue))) else { return };
        gate.run(|| {
            queues.drain(queue, |chain| {
                match queue {
                    INFLATE | DEFLATE => {
                        let Some(pages) = Self::pages(queues, &chain) else {
                            queues.fail(QueueError::Memory);
                            return false;
                        };
                        if queue == INFLATE {
                            Self::inflate(queues, pages);
                        }
                        // Deflated pages come back, zeroed, as they are touched.
                        queues.complete(queue, chain, 0);
                    }
                    REPORTING => {
                        for b in chain.writable() {
                            // 4 GiB at most: a chain is no longer.
                            Self::discard(queues, b.gpa.0, u64::from(b.len));
                        }
                        queues.complete(queue, chain, 0);
                    }
                    _ => {
                        let mut data = vec![0; chain.readable_len().min(64 * ENTRY as u64) as usize];
                        if chain.read(queues.dma(), 0, &mut data).is_err() {
                            queues.fail(QueueError::Memory);
                            return false;
                        }
                        let entry = |e: &[u8]| {
                            (
                                u16::from_le_bytes([e[0], e[1]]),
                                e[2..ENTRY].iter().rev().fold(0, |v, b| v << 8 | u64::from(*b)),
                            )
                        };
                        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
                        let entries = data.chunks_exact(ENTRY).map(entry).collect();
                        *self.statistics.lock() = Statistics { entries, updated: now };
                        // Kept until statistics are wanted again.
                        let old = self.held.lock().replace(chain);
                        if let Some(old) = old {
                            queues.complete(STATS, old, 0);
                        }
                    }
                }
                true
            });
        });
    }
    fn reset(&self) {
        self.gates.iter().for_each(Gate::wait);
        *self.held.lock() = None;
        *self.statistics.lock() = Statistics::default();
        self.actual.store(0, Ordering::Release);
    }
    fn quiesce(&self) {
        self.gates.iter().for_each(Gate::wait);
        // The held buffer would be forgotten by saved state.
        if let (Some(queues), Some(chain)) = (self.queues.get(), self.held.lock().take()) {
            queues.complete(STATS, chain, 0);
        }
    }
    fn save(&self) -> Vec<u8> {
        [self.target.load(Ordering::Acquire).to_le_bytes(), self.actual.load(Ordering::Acquire).to_le_bytes()].concat()
    }
    fn load(&self, state: &[u8]) -> Result<(), LoadError> {
        let Ok([a, b, c, d, e, f, g, h]) = <[u8; 8]>::try_from(state) else {
            return Err(LoadError::Damaged("virtio-balloon".to_owned()));
        };
        self.target.store(u32::from_le_bytes([a, b, c, d]), Ordering::Release);
        self.actual.store(u32::from_le_bytes([e, f, g, h]), Ordering::Release);
        Ok(())
    }
}
