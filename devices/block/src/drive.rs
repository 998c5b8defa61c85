//! A drive: a back end with worker threads, so that whoever submits a request never waits for a disk.

use crate::segment::{segments_are_zero, total};
use crate::{BlockBackend, CacheMode, DetectZeroes, ErrorPolicy, Node, Segment, Throttle};
use parking_lot::{Condvar, Mutex, RwLock};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One request. Offsets and lengths in bytes.
pub enum Operation {
    Read { offset: u64, segments: Vec<Segment> },
    Write { offset: u64, segments: Vec<Segment>, flush: bool },
    Flush,
    Discard { offset: u64, len: u64 },
    WriteZeroes { offset: u64, len: u64, may_unmap: bool, flush: bool },
}

/// Called once, on a worker thread (or in [`Drive::submit`] itself), with the result and the segments of the request.
pub type Completion = Box<dyn FnOnce(io::Result<()>, Vec<Segment>) + Send>;

/// Requests that one drive works on at once.
const MAX_WORKERS: usize = 4;
/// An idle worker ends after this.
const IDLE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Jobs {
    queue: VecDeque<(Operation, Completion)>,
    idle: usize,
    workers: usize,
    /// Queued or being worked on.
    pending: usize,
    ended: bool,
}

#[derive(Default)]
struct Pool {
    jobs: Mutex<Jobs>,
    work: Condvar,
    drained: Condvar,
}

/// Bytes and operations since the start, for `info blockstats`.
#[derive(Default)]
struct Counters {
    read_ops: AtomicU64,
    read_bytes: AtomicU64,
    write_ops: AtomicU64,
    write_bytes: AtomicU64,
    flushes: AtomicU64,
    discards: AtomicU64,
}

/// How a drive behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DriveSettings {
    pub(crate) cache: CacheMode,
    /// Of reads, of writes.
    pub(crate) errors: (ErrorPolicy, ErrorPolicy),
    /// Discards release storage.
    pub(crate) discard: bool,
    pub(crate) detect_zeroes: DetectZeroes,
    /// What is written is gone at the end (`-snapshot`).
    pub(crate) temporary: bool,
}

/// What is below a drive that has let go.
struct Gone;

fn no_medium<T>() -> io::Result<T> {
    Err(Errno::NOMEDIUM.into())
}

impl BlockBackend for Gone {
    fn capacity(&self) -> u64 {
        0
    }
    fn read(&self, _: u64, _: &mut [Segment]) -> io::Result<()> {
        no_medium()
    }
    fn write(&self, _: u64, _: &[Segment]) -> io::Result<()> {
        no_medium()
    }
    fn flush(&self) -> io::Result<()> {
        no_medium()
    }
    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        no_medium()
    }
    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
        no_medium()
    }
    fn readonly(&self) -> bool {
        true
    }
    fn description(&self) -> String {
        "nothing".to_owned()
    }
}

/// A drive; shared by a device and the monitor.
pub struct Drive {
    id: String,
    /// Held shared while a request runs: whoever replaces it waits for those.
    backend: RwLock<Arc<dyn BlockBackend>>,
    node: Mutex<Option<Arc<Node>>>,
    /// It was made of a node for a device, and has no name of its own.
    anonymous: bool,
    throttle: RwLock<Option<Arc<Throttle>>>,
    settings: DriveSettings,
    pool: Arc<Pool>,
    counters: Counters,
    resized: Mutex<Vec<Resized>>,
}

/// Told of a new capacity; false: nobody listens any more.
type Resized = Arc<dyn Fn() -> bool + Send + Sync>;

impl Drive {
    /// A drive over `backend`, called `id` in messages.
    #[must_use]
    pub fn new(id: &str, backend: Arc<dyn BlockBackend>, cache: CacheMode) -> Arc<Self> {
        let settings = DriveSettings { cache, discard: true, ..DriveSettings::default() };
        Self::with_settings(id, backend, settings)
    }
    /// A drive over a node of the graph.
    #[must_use]
    pub fn for_node(id: &str, node: &Arc<Node>) -> Arc<Self> {
        let (s, backend) = (node.settings(), node.backend());
        let cache = match (s.direct, s.no_flush) {
            (_, true) => CacheMode::Unsafe,
            (true, false) => CacheMode::None,
            (false, false) => CacheMode::Writeback,
        };
        let settings =
            DriveSettings { cache, discard: s.discard, detect_zeroes: s.detect_zeroes, ..DriveSettings::default() };
        Arc::new(Self::make(id, backend, settings, Some(node.clone())))
    }
    pub(crate) fn with_settings(id: &str, backend: Arc<dyn BlockBackend>, settings: DriveSettings) -> Arc<Self> {
        Arc::new(Self::make(id, backend, settings, None))
    }
    /// `node`: the one that it is made of for a device.
    fn make(id: &str, backend: Arc<dyn BlockBackend>, settings: DriveSettings, node: Option<Arc<Node>>) -> Self {
        Self {
            id: id.to_owned(),
            backend: RwLock::new(backend),
            anonymous: node.is_some(),
            node: Mutex::new(node),
            throttle: RwLock::default(),
            settings,
            pool: Arc::default(),
            counters: Counters::default(),
            resized: Mutex::default(),
        }
    }
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
    /// Its id is that of the node it was made of, for a device: it has no name of its own.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.anonymous
    }
    #[must_use]
    pub fn backend(&self) -> Arc<dyn BlockBackend> {
        self.backend.read().clone()
    }
    /// Calls `f` with what is below the drive, as a request: what is below stays meanwhile.
    pub fn with_backend<R>(&self, f: impl FnOnce(&dyn BlockBackend) -> R) -> R {
        f(&**self.backend.read())
    }
    /// Replaces what is below the drive, between requests: `change` gets the old one while no request runs.
    ///
    /// # Errors
    /// Those of `change`; the drive stays as it was.
    pub fn exchange<E>(
        &self,
        change: impl FnOnce(&Arc<dyn BlockBackend>) -> Result<Arc<dyn BlockBackend>, E>,
    ) -> Result<(), E> {
        let mut backend = self.backend.write();
        *backend = change(&backend)?;
        Ok(())
    }
    /// The node below the drive, if it is of a graph.
    #[must_use]
    pub fn node(&self) -> Option<Arc<Node>> {
        self.node.lock().clone()
    }
    /// Notes which node is below.
    pub fn set_node(&self, node: Option<Arc<Node>>) {
        *self.node.lock() = node;
    }
    #[must_use]
    pub fn throttle(&self) -> Option<Arc<Throttle>> {
        self.throttle.read().clone()
    }
    /// Limits the throughput, or not.
    pub fn set_throttle(&self, throttle: Option<Arc<Throttle>>) {
        *self.throttle.write() = throttle;
    }
    #[must_use]
    pub fn detect_zeroes(&self) -> DetectZeroes {
        self.settings.detect_zeroes
    }
    /// What is written is gone at the end (`-snapshot`).
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.settings.temporary
    }
    #[must_use]
    pub fn cache(&self) -> CacheMode {
        self.settings.cache
    }
    /// Bytes, a multiple of 512.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.backend.read().capacity()
    }
    #[must_use]
    pub fn readonly(&self) -> bool {
        self.backend.read().readonly()
    }
    /// Calls `f` when the capacity has changed, until it says false.
    pub fn on_resized(&self, f: impl Fn() -> bool + Send + Sync + 'static) {
        self.resized.lock().push(Arc::new(f));
    }
    /// Changes the capacity of what is below, between requests, and tells the device.
    ///
    /// # Errors
    /// The host's, or those of the format; it is read-only; `capacity` is no multiple of [`crate::SECTOR`].
    pub fn resize(&self, capacity: u64) -> io::Result<()> {
        if !capacity.is_multiple_of(crate::SECTOR) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let backend = self.backend.write();
        if backend.readonly() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        backend.resize(capacity)?;
        drop(backend);
        let listeners = self.resized.lock().clone();
        let gone: Vec<_> = listeners.into_iter().filter(|f| !f()).collect();
        self.resized.lock().retain(|f| !gone.iter().any(|g| Arc::ptr_eq(f, g)));
        Ok(())
    }
    /// `discard=unmap`: discards release storage.
    #[must_use]
    pub fn discard_enabled(&self) -> bool {
        self.settings.discard
    }
    /// One line for `info block`.
    #[must_use]
    pub fn description(&self) -> String {
        format!("{}: {}, {}", self.id, self.backend.read().description(), self.settings.cache.word())
    }
    /// Completed reads, bytes read, writes, bytes written.
    #[must_use]
    pub fn statistics(&self) -> [u64; 4] {
        let c = &self.counters;
        [&c.read_ops, &c.read_bytes, &c.write_ops, &c.write_bytes].map(|c| c.load(Ordering::Relaxed))
    }
    /// Completed flushes, and discards.
    #[must_use]
    pub fn flushes_and_discards(&self) -> [u64; 2] {
        [&self.counters.flushes, &self.counters.discards].map(|c| c.load(Ordering::Relaxed))
    }

    fn check(&self, backend: &dyn BlockBackend, operation: &Operation) -> io::Result<()> {
        let (offset, len, write) = match operation {
            Operation::Flush => return Ok(()),
            Operation::Read { offset, segments } => (*offset, total(segments), false),
            Operation::Write { offset, segments, .. } => (*offset, total(segments), true),
            Operation::Discard { offset, len } | Operation::WriteZeroes { offset, len, .. } => (*offset, *len, true),
        };
        if write && backend.readonly() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        match offset.checked_add(len) {
            Some(end) if end <= backend.capacity() => Ok(()),
            _ => Err(crate::out_of_range()),
        }
    }
    fn count(&self, operation: &Operation) {
        let (ops, bytes, n) = match operation {
            Operation::Read { segments, .. } => (&self.counters.read_ops, &self.counters.read_bytes, total(segments)),
            Operation::Write { segments, .. } => {
                (&self.counters.write_ops, &self.counters.write_bytes, total(segments))
            }
            Operation::Flush => {
                self.counters.flushes.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Operation::Discard { .. } | Operation::WriteZeroes { .. } => {
                self.counters.discards.fetch_add(1, Ordering::Relaxed);
                return;
            }
        };
        ops.fetch_add(1, Ordering::Relaxed);
        bytes.fetch_add(n, Ordering::Relaxed);
    }
    fn policy(&self, operation: &Operation, result: io::Result<()>) -> io::Result<()> {
        let ignored = match operation {
            Operation::Read { .. } => self.settings.errors.0 == ErrorPolicy::Ignore,
            _ => self.settings.errors.1 == ErrorPolicy::Ignore,
        };
        if ignored { Ok(()) } else { result }
    }

    /// Runs a request now, on this thread.
    ///
    /// # Errors
    /// The host's error, or out of range, or read-only.
    pub fn run(&self, operation: &mut Operation) -> io::Result<()> {
        if let Some(throttle) = self.throttle() {
            match operation {
                Operation::Read { segments, .. } => throttle.wait(false, total(segments)),
                Operation::Write { segments, .. } => throttle.wait(true, total(segments)),
                _ => {}
            }
        }
        let backend = self.backend.read();
        let b = &**backend;
        self.check(b, operation)?;
        self.count(operation);
        let flush_if = |flush: bool| if flush { b.flush() } else { Ok(()) };
        let result = match operation {
            Operation::Read { offset, segments } => b.read(*offset, segments),
            Operation::Write { offset, segments, flush } => {
                let detect = self.settings.detect_zeroes;
                let len = total(segments);
                let written = if detect != DetectZeroes::Off && segments_are_zero(segments, 0, len) {
                    let may_unmap = detect == DetectZeroes::Unmap && self.settings.discard;
                    b.write_zeroes(*offset, len, may_unmap)
                } else {
                    b.write(*offset, segments)
                };
                written.and_then(|()| flush_if(*flush))
            }
            Operation::Flush => b.flush(),
            Operation::Discard { offset, len } if self.settings.discard => b.discard(*offset, *len),
            Operation::Discard { .. } => Ok(()),
            Operation::WriteZeroes { offset, len, may_unmap, flush } => {
                let may_unmap = *may_unmap && self.settings.discard;
                b.write_zeroes(*offset, *len, may_unmap).and_then(|()| flush_if(*flush))
            }
        };
        drop(backend);
        self.policy(operation, result)
    }
    /// Runs a small read whose data the host has in memory, without waiting; `None`: use [`Self::submit`].
    pub fn try_now(&self, operation: &mut Operation) -> Option<io::Result<()>> {
        let backend = self.backend.try_read()?;
        if let Err(e) = self.check(&**backend, operation) {
            return Some(Err(e));
        }
        if self.throttle.read().is_some() {
            return None;
        }
        let result = match operation {
            Operation::Read { offset, segments } if total(segments) <= 64 << 10 => {
                backend.read_now(*offset, segments)?
            }
            _ => return None,
        };
        self.count(operation);
        Some(self.policy(operation, result))
    }
    /// Hands a request to a worker thread; `done` is called when it is finished. Requests finish in any order.
    pub fn submit(self: &Arc<Self>, operation: Operation, done: Completion) {
        let spawn = {
            let mut jobs = self.pool.jobs.lock();
            jobs.queue.push_back((operation, done));
            jobs.pending += 1;
            let spawn = jobs.idle < jobs.queue.len() && jobs.workers < MAX_WORKERS;
            jobs.workers += usize::from(spawn);
            spawn
        };
        if spawn {
            // The worker does not keep the drive alive: jobs carry what they need.
            let (pool, drive) = (self.pool.clone(), Arc::downgrade(self));
            let made = std::thread::Builder::new().name(format!("blk-{}", self.id)).spawn(move || {
                worker(&pool, &|op| match drive.upgrade() {
                    Some(drive) => drive.run(op),
                    None => Err(io::ErrorKind::BrokenPipe.into()),
                })
            });
            if made.is_err() {
                let alone = {
                    let mut jobs = self.pool.jobs.lock();
                    jobs.workers -= 1;
                    jobs.workers == 0
                };
                if alone {
                    // No thread at all: slow is better than never.
                    while let Some(job) = { self.pool.jobs.lock().queue.pop_front() } {
                        finish(&self.pool, job, &|op| self.run(op));
                    }
                }
            }
        } else {
            self.pool.work.notify_one();
        }
    }
    /// Waits until every submitted request has completed.
    pub fn drain(&self) {
        let mut jobs = self.pool.jobs.lock();
        while jobs.pending > 0 {
            self.pool.drained.wait(&mut jobs);
        }
    }
    /// Lets go of what is below, for good: whoever still has the drive keeps no image open, and its requests fail. Waits for those that run.
    pub fn let_go(&self) {
        *self.backend.write() = Arc::new(Gone);
        self.set_node(None);
    }
    /// Ends with the drive: waits a while for what was submitted, then leaves the image as not in use.
    ///
    /// # Errors
    /// The host's.
    pub fn close(&self) -> io::Result<()> {
        const PATIENCE: Duration = Duration::from_secs(10);
        {
            let mut jobs = self.pool.jobs.lock();
            while jobs.pending > 0 {
                if self.pool.drained.wait_for(&mut jobs, PATIENCE).timed_out() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
        // No request runs meanwhile.
        self.backend.write().close()
    }
    /// Reads bytes on this thread (flash, loaders).
    ///
    /// # Errors
    /// See [`Self::run`].
    pub fn read_bytes(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let mut operation = Operation::Read { offset, segments: vec![Segment::Host(vec![0; data.len()])] };
        self.run(&mut operation)?;
        match &operation {
            Operation::Read { segments, .. } => segments.first().map_or(Ok(()), |s| s.load(0, data)),
            _ => Ok(()),
        }
    }
    /// Writes bytes on this thread.
    ///
    /// # Errors
    /// See [`Self::run`].
    pub fn write_bytes(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.run(&mut Operation::Write { offset, segments: vec![Segment::Host(data.to_vec())], flush: false })
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        self.pool.jobs.lock().ended = true;
        self.pool.work.notify_all();
    }
}

type Run<'a> = &'a dyn Fn(&mut Operation) -> io::Result<()>;

fn finish(pool: &Pool, (mut operation, done): (Operation, Completion), run: Run<'_>) {
    let result = run(&mut operation);
    let segments = match operation {
        Operation::Read { segments, .. } | Operation::Write { segments, .. } => segments,
        _ => Vec::new(),
    };
    done(result, segments);
    let mut jobs = pool.jobs.lock();
    jobs.pending -= 1;
    if jobs.pending == 0 {
        pool.drained.notify_all();
    }
}

fn worker(pool: &Pool, run: Run<'_>) {
    let mut jobs = pool.jobs.lock();
    loop {
        if let Some(job) = jobs.queue.pop_front() {
            drop(jobs);
            finish(pool, job, run);
            jobs = pool.jobs.lock();
            continue;
        }
        if jobs.ended {
            break;
        }
        jobs.idle += 1;
        let timed_out = pool.work.wait_for(&mut jobs, IDLE).timed_out();
        jobs.idle -= 1;
        if timed_out && jobs.queue.is_empty() {
            break;
        }
    }
    jobs.workers -= 1;
}
