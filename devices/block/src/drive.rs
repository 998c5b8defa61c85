//! A drive: a back end with worker threads, so that whoever submits a request never waits for a disk.

use crate::failures::no_space;
use crate::segment::{segments_are_zero, total};
use crate::{
    BlockBackend, CacheMode, DetectZeroes, ErrorPolicy, Failure, FailureAction, Failures, Node, Segment, Throttle,
};
use parking_lot::{Condvar, Mutex, RwLock};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// One request. Offsets and lengths in bytes.
pub enum Operation {
    Read { offset: u64, segments: Vec<Segment> },
    Write { offset: u64, segments: Vec<Segment>, flush: bool },
    Flush,
    Discard { offset: u64, len: u64 },
    WriteZeroes { offset: u64, len: u64, may_unmap: bool, flush: bool },
}

impl Operation {
    /// Is it one that `werror=` is about?
    fn writes(&self) -> bool {
        !matches!(self, Self::Read { .. })
    }
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
    /// Queued, being worked on, or parked.
    pending: usize,
    /// Those that failed, until the machine goes on.
    parked: Vec<(Operation, Completion)>,
    /// Who waits for all to end: nothing is parked meanwhile.
    draining: usize,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl Default for DriveSettings {
    fn default() -> Self {
        Self {
            cache: CacheMode::default(),
            errors: (ErrorPolicy::Report, ErrorPolicy::Enospc),
            discard: false,
            detect_zeroes: DetectZeroes::default(),
            temporary: false,
        }
    }
}

/// How requests went since the machine went on last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoStatus {
    Ok,
    Failed,
    NoSpace,
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
    /// Of reads, of writes.
    errors: Mutex<(ErrorPolicy, ErrorPolicy)>,
    failures: Mutex<Option<Arc<Failures>>>,
    /// An [`IoStatus`].
    status: AtomicU8,
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
            errors: Mutex::new(settings.errors),
            failures: Mutex::default(),
            status: AtomicU8::new(IoStatus::Ok as u8),
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
    /// Has requests that fail told to these.
    pub fn set_failures(&self, failures: &Arc<Failures>) {
        *self.failures.lock() = Some(failures.clone());
    }
    /// What failed reads and writes do; `None`: what was said before.
    pub fn set_error_policy(&self, read: Option<ErrorPolicy>, write: Option<ErrorPolicy>) {
        let mut errors = self.errors.lock();
        errors.0 = read.unwrap_or(errors.0);
        errors.1 = write.unwrap_or(errors.1);
    }
    /// How requests went for which the machine was stopped.
    #[must_use]
    pub fn io_status(&self) -> IoStatus {
        [IoStatus::Failed, IoStatus::NoSpace]
            .into_iter()
            .find(|s| *s as u8 == self.status.load(Ordering::Acquire))
            .unwrap_or(IoStatus::Ok)
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
    /// What is done about an error. `may_wait`: the request can be done again later.
    fn action(&self, operation: &Operation, e: &io::Error, may_wait: bool) -> FailureAction {
        let errors = *self.errors.lock();
        match if operation.writes() { errors.1 } else { errors.0 } {
            ErrorPolicy::Ignore => FailureAction::Ignore,
            ErrorPolicy::Stop if may_wait => FailureAction::Stop,
            ErrorPolicy::Enospc if may_wait && no_space(e) => FailureAction::Stop,
            _ => FailureAction::Report,
        }
    }
    fn tell(&self, write: bool, e: &io::Error, action: FailureAction) {
        let failures = self.failures.lock().clone();
        let Some(failures) = failures else { return };
        failures.tell(&Failure {
            drive: self.id.clone(),
            node: self.node().map(|n| n.name().to_owned()),
            write,
            action,
            no_space: no_space(e),
            reason: crate::error_text(e),
        });
    }
    /// Carries a request out; the outer error is one that the machine is to stop for.
    fn attempt(&self, operation: &mut Operation, may_wait: bool) -> Result<io::Result<()>, io::Error> {
        let e = match self.carry_out(operation) {
            Ok(Ok(())) => return Ok(Ok(())),
            // The guest asked for what cannot be.
            Err(e) => return Ok(Err(e)),
            Ok(Err(e)) => e,
        };
        let action = self.action(operation, &e, may_wait);
        if action == FailureAction::Stop {
            return Err(e);
        }
        self.tell(operation.writes(), &e, action);
        Ok(if action == FailureAction::Ignore { Ok(()) } else { Err(e) })
    }

    /// Runs a request now, on this thread.
    ///
    /// # Errors
    /// The host's error, or out of range, or read-only.
    pub fn run(&self, operation: &mut Operation) -> io::Result<()> {
        // It cannot wait here.
        self.attempt(operation, false).unwrap_or_else(Err)
    }
    /// The outer error: the request is out of range, or a write to what is read-only.
    fn carry_out(&self, operation: &mut Operation) -> io::Result<io::Result<()>> {
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
        Ok(result)
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
        // One that fails is done again where it can wait.
        result.ok()?;
        self.count(operation);
        Some(Ok(()))
    }
    /// Hands a request to a worker thread; `done` is called when it is finished. Requests finish in any order.
    pub fn submit(self: &Arc<Self>, operation: Operation, done: Completion) {
        self.enqueue(|jobs| {
            jobs.queue.push_back((operation, done));
            jobs.pending += 1;
        });
    }
    /// The machine goes on: requests for which it was stopped are done again.
    pub fn retry(self: &Arc<Self>) {
        self.status.store(IoStatus::Ok as u8, Ordering::Release);
        if !self.pool.jobs.lock().parked.is_empty() {
            self.enqueue(|jobs| {
                let parked = std::mem::take(&mut jobs.parked);
                jobs.queue.extend(parked);
            });
        }
    }
    /// Adds to the queue and sees that somebody works.
    fn enqueue(self: &Arc<Self>, add: impl FnOnce(&mut Jobs)) {
        let spawn = {
            let mut jobs = self.pool.jobs.lock();
            add(&mut jobs);
            let spawn = jobs.idle < jobs.queue.len() && jobs.workers < MAX_WORKERS;
            jobs.workers += usize::from(spawn);
            spawn
        };
        if !spawn {
            self.pool.work.notify_all();
            return;
        }
        // The worker does not keep the drive alive: jobs carry what they need.
        let (pool, drive) = (self.pool.clone(), Arc::downgrade(self));
        let made = std::thread::Builder::new().name(format!("blk-{}", self.id)).spawn(move || worker(&pool, &drive));
        if made.is_err() {
            let alone = {
                let mut jobs = self.pool.jobs.lock();
                jobs.workers -= 1;
                jobs.workers == 0
            };
            if alone {
                // No thread at all: slow is better than never.
                while let Some(job) = { self.pool.jobs.lock().queue.pop_front() } {
                    finish(&self.pool, job, Some(self));
                }
            }
        }
    }
    /// Those for which the machine is stopped are done again here, and end whatever comes of that: whoever saves or resets the machine
    /// waits for them. The caller has counted itself as draining.
    fn end_parked(&self) {
        let parked = std::mem::take(&mut self.pool.jobs.lock().parked);
        for job in parked {
            finish(&self.pool, job, Some(self));
        }
    }
    /// Waits until every submitted request has completed. One that the machine is stopped for is done again, and its error is the guest's.
    pub fn drain(&self) {
        self.pool.jobs.lock().draining += 1;
        self.end_parked();
        let mut jobs = self.pool.jobs.lock();
        while jobs.pending > 0 {
            self.pool.drained.wait(&mut jobs);
        }
        jobs.draining -= 1;
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
        // It is the end: nothing is parked any more.
        self.pool.jobs.lock().draining += 1;
        self.end_parked();
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

/// Carries a request out and tells who submitted it, or parks it; without a drive it fails.
fn finish(pool: &Pool, (mut operation, done): (Operation, Completion), drive: Option<&Drive>) {
    let may_wait = pool.jobs.lock().draining == 0;
    let attempt =
        drive.map_or_else(|| Ok(Err(io::ErrorKind::BrokenPipe.into())), |d| d.attempt(&mut operation, may_wait));
    let write = operation.writes();
    let result = match (attempt, drive) {
        (Ok(result), _) => result,
        (Err(e), Some(drive)) => {
            let mut jobs = pool.jobs.lock();
            if jobs.draining == 0 {
                jobs.parked.push((operation, done));
                drop(jobs);
                let status = if no_space(&e) { IoStatus::NoSpace } else { IoStatus::Failed };
                drive.status.store(status as u8, Ordering::Release);
                return drive.tell(write, &e, FailureAction::Stop);
            }
            drop(jobs);
            drive.tell(write, &e, FailureAction::Report);
            Err(e)
        }
        (Err(e), None) => Err(e),
    };
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

fn worker(pool: &Pool, drive: &Weak<Drive>) {
    let mut jobs = pool.jobs.lock();
    loop {
        if let Some(job) = jobs.queue.pop_front() {
            drop(jobs);
            finish(pool, job, drive.upgrade().as_deref());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryBackend;
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc;

    /// Storage that is full, or broken, for a while.
    struct Failing {
        below: MemoryBackend,
        errno: Mutex<Option<Errno>>,
        tried: AtomicBool,
    }
    impl Failing {
        fn fails(&self) -> io::Result<()> {
            self.tried.store(true, Ordering::SeqCst);
            self.errno.lock().map_or(Ok(()), |e| Err(e.into()))
        }
    }
    impl BlockBackend for Failing {
        fn capacity(&self) -> u64 {
            self.below.capacity()
        }
        fn read(&self, offset: u64, segments: &mut [Segment]) -> io::Result<()> {
            self.fails()?;
            self.below.read(offset, segments)
        }
        fn write(&self, offset: u64, segments: &[Segment]) -> io::Result<()> {
            self.fails()?;
            self.below.write(offset, segments)
        }
        fn flush(&self) -> io::Result<()> {
            self.fails()
        }
        fn discard(&self, _: u64, _: u64) -> io::Result<()> {
            self.fails()
        }
        fn write_zeroes(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
            self.fails()
        }
        fn readonly(&self) -> bool {
            false
        }
        fn description(&self) -> String {
            String::new()
        }
    }

    #[test]
    fn errors_wait_are_reported_or_ignored() {
        let below = Arc::new(Failing {
            below: MemoryBackend::new(vec![0; 4096], false),
            errno: Mutex::new(Some(Errno::NOSPC)),
            tried: AtomicBool::new(false),
        });
        let drive = Drive::new("d", below.clone(), CacheMode::Writeback);
        let (failures, (told, failed)) = (Arc::new(Failures::default()), mpsc::channel());
        let told = Mutex::new(told);
        failures.listen(move |f| told.lock().send((f.write, f.action, f.no_space)).unwrap());
        drive.set_failures(&failures);
        let (sender, done) = mpsc::channel();
        let write = |byte: u8| {
            let (sender, segments) = (sender.clone(), vec![Segment::Host(vec![byte; 512])]);
            drive.submit(
                Operation::Write { offset: 0, segments, flush: false },
                Box::new(move |result, _| sender.send(result.is_ok()).unwrap()),
            );
        };
        let limit = Duration::from_secs(30);
        // No room: the request waits (the usual policy), is done again in vain, and then with success.
        write(1);
        assert_eq!(failed.recv_timeout(limit), Ok((true, FailureAction::Stop, true)));
        assert_eq!(drive.io_status(), IoStatus::NoSpace);
        drive.retry();
        assert_eq!(failed.recv_timeout(limit), Ok((true, FailureAction::Stop, true)));
        assert!(done.try_recv().is_err());
        *below.errno.lock() = None;
        drive.retry();
        assert_eq!((done.recv_timeout(limit), drive.io_status()), (Ok(true), IoStatus::Ok));
        let mut data = [0; 512];
        drive.read_bytes(0, &mut data).unwrap();
        assert_eq!(data, [1; 512]);
        // Another error is reported, unless the machine is to stop for all.
        *below.errno.lock() = Some(Errno::IO);
        write(2);
        assert_eq!(failed.recv_timeout(limit), Ok((true, FailureAction::Report, false)));
        assert_eq!(done.recv_timeout(limit), Ok(false));
        drive.set_error_policy(None, Some(ErrorPolicy::Stop));
        write(3);
        assert_eq!(failed.recv_timeout(limit), Ok((true, FailureAction::Stop, false)));
        assert_eq!(drive.io_status(), IoStatus::Failed);
        // Who waits for all requests gets them to end.
        drive.drain();
        assert_eq!(done.try_recv(), Ok(false));
        assert_eq!(failed.recv_timeout(limit), Ok((true, FailureAction::Report, false)));
        drive.set_error_policy(Some(ErrorPolicy::Ignore), Some(ErrorPolicy::Ignore));
        write(4);
        assert_eq!(done.recv_timeout(limit), Ok(true));
        assert_eq!(failed.recv_timeout(limit), Ok((true, FailureAction::Ignore, false)));
        // What the guest may not ask for is its own error.
        drive.set_error_policy(Some(ErrorPolicy::Stop), None);
        assert!(drive.read_bytes(1 << 20, &mut data).is_err());
        assert!(failed.try_recv().is_err() && below.tried.load(Ordering::SeqCst));
    }
}
