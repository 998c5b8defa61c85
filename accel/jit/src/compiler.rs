//! Regions made of hot blocks: by the vCPU that found them hot, or by a thread of the machine while the cheap code runs on.
//!
//! A region is made from copies of guest pages without a lock, and installed only if the pages are what they were then.

use crate::blocks::Maker;
use crate::cache::{Key, Made, Range, Seen};
use crate::code::{Resting, Soon};
use crate::fetch::{FetchEntry, Pages};
use crate::region::Profile;
use crate::translate::{CodePage, REGION_SIZES, Source};
use crate::vm::Core;
use crate::x64::{self, Entry, Region};
use parking_lot::{Condvar, Mutex, MutexGuard};
use rhea_ir::env::{PAGE_SIZE, Requests};
use rhea_ir::guest::Guest;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A hot block, and what its vCPU knew of the pages around it.
pub struct Job<G: Guest> {
    pub key: Key,
    pub first: FetchEntry,
    /// The vCPU's fetched pages.
    pub pages: Pages,
    pub config: Arc<G::Config>,
}

/// What became of a job.
#[derive(PartialEq, Eq)]
enum Outcome {
    /// Installed, or not needed any more, or impossible for good.
    Done,
    /// The pages changed meanwhile.
    Stale,
    /// Code memory is full.
    Full,
}

/// Jobs that wait. More are not worth waiting for: what is hot stays hot.
const WAITING: usize = 16;

/// With nothing to do for so long there is nothing new for a while.
const IDLE: Duration = Duration::from_millis(100);

struct Queue<G: Guest> {
    jobs: VecDeque<Job<G>>,
    /// Comes before the jobs.
    soon: Option<Soon>,
    /// The host page of the block being worked on.
    busy: Option<u64>,
    /// Something was done since code memory was laid to rest.
    awake: bool,
    stop: bool,
}

/// Makes regions.
pub struct Compiler<G: Guest> {
    core: Arc<Core>,
    maker: Arc<Maker<G>>,
    threshold: i32,
    queue: Mutex<Queue<G>>,
    more: Condvar,
}

fn page_of(key: &Key) -> u64 {
    key.host & !(PAGE_SIZE - 1)
}

impl<G: Guest> Compiler<G> {
    pub fn new(maker: &Arc<Maker<G>>, threshold: i32) -> Arc<Compiler<G>> {
        let queue = Queue { jobs: VecDeque::new(), soon: None, busy: None, awake: true, stop: false };
        Arc::new(Compiler {
            core: maker.core.clone(),
            maker: maker.clone(),
            threshold,
            queue: Mutex::new(queue),
            more: Condvar::new(),
        })
    }

    /// Has `job` done by the thread, unless there is enough to do or one of the same page is being done, which may contain
    /// this block too: then the block asks again if it stays hot.
    pub fn submit(&self, key: &Key, job: impl FnOnce() -> Job<G>) {
        let mut queue = self.queue.lock();
        let page = page_of(key);
        let accepted = queue.jobs.len() < WAITING
            && queue.busy != Some(page)
            && !queue.jobs.iter().any(|j| page_of(&j.key) == page);
        self.core.cache.lock().rearm(key, if accepted { Requests::MOST } else { self.threshold });
        if accepted {
            queue.jobs.push_back(job());
            self.more.notify_one();
        }
    }

    /// Has the thread make code memory ready.
    pub fn submit_soon(&self, soon: Soon) {
        self.queue.lock().soon = Some(soon);
        self.more.notify_one();
    }

    /// Does a job on the calling thread, which is outside generated code.
    pub fn make(&self, job: &Job<G>) {
        // It is not asked for again, whatever comes of it.
        self.core.cache.lock().rearm(&job.key, Requests::MOST);
        match self.region(job) {
            Outcome::Done => {}
            Outcome::Stale => self.core.cache.lock().rearm(&job.key, self.threshold),
            Outcome::Full => self.core.flush_code(),
        }
    }

    fn region(&self, job: &Job<G>) -> Outcome {
        let key = job.key;
        let start = Instant::now();
        let Some(first) = code_page(&job.first, key.pc) else { return Outcome::Done };
        let generation = self.core.code_generation.load(Ordering::SeqCst);
        let emptied = || self.core.code_generation.load(Ordering::SeqCst) != generation;
        if self.core.cache.lock().find(&key).is_none_or(|m| m.optimised) {
            return Outcome::Done;
        }
        let mut src =
            Source::<G> { config: &job.config, mode: key.mode, pages: vec![first], counts: self.core.turns.is_some() };
        let index = G::fetch_index(key.mode) as u64;
        let tag = |va: u64| va & !(PAGE_SIZE - 1) | index;
        let hot = |to: u64| {
            let Some(at) = job.pages.key(tag(to), to, key.mode) else { return false };
            let entered = self.core.cache.lock().entered(&at, self.threshold);
            // Only what runs about as often as the head belongs with it.
            entered.is_some_and(|n| n * 16 >= self.threshold)
        };
        let targets = |from: u64| {
            let Some(at) = job.pages.key(tag(from), from, key.mode) else { return Seen::default() };
            self.core.cache.lock().branched_to(&at)
        };
        let mut used = vec![job.first.clone()];
        let mut more = |va: u64| {
            let page = job.pages.get(tag(va)).filter(FetchEntry::is_tracked)?;
            let code = code_page(&page, va)?;
            used.push(page);
            Some(code)
        };
        let mut compiled = None;
        for size in REGION_SIZES {
            let Some(t) = src.region(key.pc, size, &Profile { hot: &hot, targets: &targets }, &mut more) else {
                continue;
            };
            if let Some(tell) = self.maker.listeners.compiled.get() {
                tell(&t.func);
            }
            let (id, sites) = {
                let mut cache = self.core.cache.lock();
                if emptied() {
                    return Outcome::Done;
                }
                (cache.reserve(key), cache.sites(&t.func))
            };
            let entry = Entry { id, ..Entry::default() };
            let region = Region {
                func: &t.func,
                helpers: G::HELPERS,
                fns: &self.maker.fns,
                entry,
                others: &t.others,
                sites: Some(sites),
            };
            if let Ok(blob) = x64::compile(&region) {
                compiled = Some((id, t, blob));
                break;
            }
        }
        // A page that is being made a code page is one once all vCPUs know.
        let tracking = self.core.tracking.lock();
        let mut cache = self.core.cache.lock();
        let time = start.elapsed();
        cache.stats.region_time += time.as_nanos() as u64;
        // None that fits the frame: the cheap tier stays.
        let Some((id, t, blob)) = compiled else { return Outcome::Done };
        if emptied() {
            return Outcome::Done;
        }
        if !unchanged(used.iter(), &src.pages, &t.ranges) {
            return Outcome::Stale;
        }
        let made = Made { ranges: t.ranges, others: t.others, counter: 0, targets: 0, optimised: true };
        let Some(code) = cache.install(id, key, made, blob, time) else { return Outcome::Full };
        drop(cache);
        drop(tracking);
        self.maker.listeners.installed(&code);
        Outcome::Done
    }
}

/// Are the translated bytes what they were, and is each write to them told?
pub fn unchanged<'a>(
    entries: impl Iterator<Item = &'a FetchEntry> + Clone,
    sources: &[CodePage],
    ranges: &[Range],
) -> bool {
    ranges.iter().all(|r| {
        let (from, to) = (r.from as usize, r.to as usize);
        let entry = entries.clone().find(|e| e.id() == Some(r.page));
        let then = sources.iter().find(|s| s.id == r.page).and_then(|s| s.bytes_between(from, to));
        let (Some(then), Some((block, page))) = (then, entry.and_then(|e| e.page.as_ref())) else { return false };
        let same = |(n, then): (usize, &[u8])| {
            let mut now = [0; 64];
            let now = &mut now[..then.len()];
            block.read(page * PAGE_SIZE + (from + n * 64) as u64, now).is_ok() && now == then
        };
        block.is_code_page(*page) && then.chunks(64).enumerate().all(same)
    })
}

/// The bytes of a fetched page, at the page of `pc`.
pub fn code_page(e: &FetchEntry, pc: u64) -> Option<CodePage> {
    part_of_page(e, pc & !(PAGE_SIZE - 1), PAGE_SIZE)
}

/// Those from `pc` on, at most `most`.
pub fn part_of_page(e: &FetchEntry, pc: u64, most: u64) -> Option<CodePage> {
    let (block, page) = e.page.as_ref()?;
    let first = pc & (PAGE_SIZE - 1);
    let mut bytes = vec![0u8; most.min(PAGE_SIZE - first) as usize].into_boxed_slice();
    block.read(page * PAGE_SIZE + first, &mut bytes).ok()?;
    let (tag, host, attrs, identity) = (e.tag, e.host, e.attrs, e.identity);
    let (va, first) = (pc - first, first as usize);
    Some(CodePage { va, tag, host, attrs, identity, id: e.id()?, first, bytes })
}

/// The thread of a [`Compiler`]; ends when this is dropped.
pub struct Background<G: Guest> {
    compiler: Arc<Compiler<G>>,
    thread: Option<JoinHandle<()>>,
}

impl<G: Guest> Background<G> {
    /// # Errors
    /// The host's error when there can be no thread.
    pub fn start(compiler: &Arc<Compiler<G>>) -> std::io::Result<Background<G>> {
        let c = compiler.clone();
        let run = move || {
            let resting = c.core.cache.lock().resting();
            while let Some(job) = c.next(&resting) {
                c.make(&job);
            }
        };
        let thread = std::thread::Builder::new().name("rhea-compiler".into()).spawn(run)?;
        Ok(Background { compiler: compiler.clone(), thread: Some(thread) })
    }
}

impl<G: Guest> Compiler<G> {
    fn next(&self, resting: &Resting) -> Option<Job<G>> {
        let mut queue = self.queue.lock();
        queue.busy = None;
        loop {
            if queue.stop {
                return None;
            }
            if let Some(soon) = queue.soon.take() {
                queue.awake = true;
                MutexGuard::unlocked(&mut queue, || soon.make_ready());
                continue;
            }
            if let Some(job) = queue.jobs.pop_front() {
                queue.busy = Some(page_of(&job.key));
                queue.awake = true;
                return Some(job);
            }
            if !queue.awake {
                self.more.wait(&mut queue);
            } else if self.more.wait_for(&mut queue, IDLE).timed_out() {
                queue.awake = false;
                MutexGuard::unlocked(&mut queue, || resting.begin());
            }
        }
    }
}

impl<G: Guest> Drop for Background<G> {
    fn drop(&mut self) {
        self.compiler.queue.lock().stop = true;
        self.compiler.more.notify_one();
        if let Some(t) = self.thread.take() {
            // Its panic has been reported; there is nothing to end.
            let _ = t.join();
        }
    }
}
