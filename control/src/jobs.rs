//! Work in the background that clients watch and steer.
//!
//! A job has a thread. It says how far it is, and asks at every step whether it may go on ([`Job::proceed`]), where it waits while it is
//! paused or too fast. When it is through it gives what is to be done at the end, once the client has agreed if it wants to be asked. What is not
//! done then is dropped, and whatever has to be taken back is taken back by that.

use crate::events::Events;
use crate::{Error, ErrorClass, Value, json};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Created,
    Running,
    Paused,
    /// It goes on until it is told to complete.
    Ready,
    /// Paused while ready.
    Standby,
    Waiting,
    /// It waits for the client's consent to end.
    Pending,
    Aborting,
    Concluded,
    Null,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Ready => "ready",
            Self::Standby => "standby",
            Self::Waiting => "waiting",
            Self::Pending => "pending",
            Self::Aborting => "aborting",
            Self::Concluded => "concluded",
            Self::Null => "null",
        }
    }
}

/// How a job is to be run.
#[derive(Clone, Debug)]
pub struct JobSettings {
    pub id: String,
    /// `mirror`, `commit` and so on.
    pub kind: &'static str,
    /// Work on images: it has events of its own, and a speed.
    pub block: bool,
    /// Bytes a second, 0: no limit.
    pub speed: u64,
    pub auto_finalize: bool,
    pub auto_dismiss: bool,
    /// What it works on: nobody else may at the same time.
    pub uses: Vec<String>,
}

/// What is done when a job ends well.
pub type Finish = Box<dyn FnOnce() -> Result<(), String> + Send>;
/// What a job does.
pub type Work = Box<dyn FnOnce(&Job) -> Result<Finish, String> + Send>;

/// A job was cancelled: what its work returns then does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelled;

impl From<Cancelled> for String {
    fn from(_: Cancelled) -> Self {
        "cancelled".to_owned()
    }
}

#[derive(Debug)]
struct State {
    status: Status,
    done: u64,
    total: u64,
    speed: u64,
    error: Option<String>,
    pause: bool,
    cancel: bool,
    complete: bool,
    /// It is to end with what it has made as it is.
    soft: bool,
    finalize: bool,
    /// Bytes and begin of the second in which the speed is limited.
    window: (Instant, u64),
}

/// One job.
pub struct Job {
    settings: JobSettings,
    state: Mutex<State>,
    changed: Condvar,
    events: Arc<Events>,
}

/// All jobs.
pub struct Jobs {
    /// Locked before the state of a job.
    list: Mutex<Vec<Arc<Job>>>,
    events: Arc<Events>,
}

impl Job {
    #[must_use]
    pub fn id(&self) -> &str {
        &self.settings.id
    }
    fn set(&self, state: &mut State, status: Status) {
        if state.status != status {
            state.status = status;
            self.events.emit("JOB_STATUS_CHANGE", json!({"id": self.settings.id, "status": status.word()}));
        }
    }
    fn block_event(&self, state: &State, name: &str) {
        if !self.settings.block {
            return;
        }
        let mut data = json!({
            "type": self.settings.kind, "device": self.settings.id, "len": state.total, "offset": state.done,
            "speed": state.speed,
        });
        if let Some(error) = state.error.as_ref().filter(|_| name == "BLOCK_JOB_COMPLETED") {
            data["error"] = json!(error);
        }
        self.events.emit(name, data);
    }
    /// Says how much there is to do, in bytes or steps.
    pub fn set_total(&self, total: u64) {
        self.state.lock().total = total;
    }
    /// Says how much is left to do.
    pub fn set_left(&self, left: u64) {
        let mut state = self.state.lock();
        state.total = state.done + left;
    }
    /// Says that so much more is done; waits while the job is paused or too fast.
    ///
    /// # Errors
    /// The job was cancelled.
    pub fn proceed(&self, done: u64) -> Result<(), Cancelled> {
        let mut state = self.state.lock();
        state.done += done;
        state.total = state.total.max(state.done);
        if state.window.0.elapsed() >= Duration::from_secs(1) {
            state.window = (Instant::now(), 0);
        }
        state.window.1 += done;
        loop {
            if state.cancel {
                return Err(Cancelled);
            }
            if state.pause {
                let running = state.status;
                self.set(&mut state, if running == Status::Ready { Status::Standby } else { Status::Paused });
                while state.pause && !state.cancel {
                    self.changed.wait(&mut state);
                }
                self.set(&mut state, running);
                continue;
            }
            let (begin, bytes) = state.window;
            if state.speed == 0 || bytes <= state.speed {
                return Ok(());
            }
            // As long as so many bytes take at that speed.
            let until = begin + Duration::from_secs_f64(bytes as f64 / state.speed as f64);
            if Instant::now() >= until {
                state.window = (Instant::now(), 0);
                return Ok(());
            }
            self.changed.wait_until(&mut state, until);
        }
    }
    /// What is to be done is done for now; more may come until the job is told to complete.
    pub fn ready(&self) {
        let mut state = self.state.lock();
        if state.status == Status::Running {
            self.set(&mut state, Status::Ready);
            self.block_event(&state, "BLOCK_JOB_READY");
        }
    }
    /// Was it told to complete, after it was ready?
    #[must_use]
    pub fn is_completing(&self) -> bool {
        self.state.lock().complete
    }
    /// Is it to leave what it has made as it is, and everything else too?
    #[must_use]
    pub fn is_soft(&self) -> bool {
        self.state.lock().soft
    }
    /// Waits for somebody to say something, at most `limit`.
    pub fn rest(&self, limit: Duration) {
        let mut state = self.state.lock();
        if !state.cancel && !state.complete && !state.pause {
            self.changed.wait_for(&mut state, limit);
        }
    }

    fn run(self: &Arc<Self>, jobs: &Jobs, work: Work) {
        self.set(&mut self.state.lock(), Status::Running);
        let worked = work(self);
        let ended = worked.and_then(|finish| {
            {
                let mut state = self.state.lock();
                self.set(&mut state, Status::Waiting);
                self.set(&mut state, Status::Pending);
                if !self.settings.auto_finalize {
                    if self.settings.block {
                        let data = json!({"type": self.settings.kind, "id": self.settings.id});
                        self.events.emit("BLOCK_JOB_PENDING", data);
                    }
                    while !state.finalize && !state.cancel {
                        self.changed.wait(&mut state);
                    }
                }
                if state.cancel {
                    return Err(Cancelled.into());
                }
            }
            finish()
        });
        // Whoever hears of the end finds the job as it is then, and one that dismisses itself nowhere.
        let mut list = jobs.list.lock();
        let mut state = self.state.lock();
        if let Err(e) = ended {
            if !state.cancel {
                state.error = Some(e);
            }
            self.set(&mut state, Status::Aborting);
        } else {
            state.total = state.total.max(state.done);
            state.done = state.total;
            state.cancel = false;
        }
        let event = if state.cancel { "BLOCK_JOB_CANCELLED" } else { "BLOCK_JOB_COMPLETED" };
        self.block_event(&state, event);
        self.set(&mut state, Status::Concluded);
        if self.settings.auto_dismiss {
            list.retain(|job| !Arc::ptr_eq(job, self));
            self.set(&mut state, Status::Null);
        }
    }

    fn tell(&self, verb: &str, may: &[Status], f: impl FnOnce(&mut State)) -> Result<(), Error> {
        let mut state = self.state.lock();
        if !may.contains(&state.status) {
            return Err(Error::new(format!(
                "Job '{}' in state '{}' cannot accept command verb '{verb}'",
                self.settings.id,
                state.status.word()
            )));
        }
        f(&mut state);
        self.changed.notify_all();
        Ok(())
    }
    /// # Errors
    /// It is not running, or paused already.
    pub fn pause(&self) -> Result<(), Error> {
        if self.state.lock().pause {
            return Err(Error::new("Job is already paused"));
        }
        let may = [Status::Created, Status::Running, Status::Paused, Status::Ready, Status::Standby];
        self.tell("pause", &may, |state| state.pause = true)
    }
    /// # Errors
    /// It is not paused.
    pub fn resume(&self) -> Result<(), Error> {
        if !self.state.lock().pause {
            return Err(Error::new("Can't resume a job that was not paused"));
        }
        let may = [Status::Created, Status::Running, Status::Paused, Status::Ready, Status::Standby];
        self.tell("resume", &may, |state| state.pause = false)
    }
    /// Ends it; without `force` a job that is ready ends well, with what it has made as it is.
    ///
    /// # Errors
    /// It has ended.
    pub fn cancel(&self, force: bool) -> Result<(), Error> {
        use Status::{Created, Paused, Pending, Ready, Running, Standby, Waiting};
        self.tell("cancel", &[Created, Running, Paused, Ready, Standby, Waiting, Pending], |state| {
            if !force && state.status == Ready {
                (state.soft, state.complete) = (true, true);
            } else {
                state.cancel = true;
            }
        })
    }
    /// # Errors
    /// It is not ready.
    pub fn complete(&self) -> Result<(), Error> {
        if self.state.lock().pause {
            return Err(Error::new(format!("Job '{}' is paused and so cannot be completed", self.settings.id)));
        }
        self.tell("complete", &[Status::Ready], |state| state.complete = true)
    }
    /// # Errors
    /// It does not wait for that.
    pub fn finalize(&self) -> Result<(), Error> {
        self.tell("finalize", &[Status::Pending], |state| state.finalize = true)
    }
    /// Bytes a second, 0: no limit.
    pub fn set_speed(&self, speed: u64) {
        let mut state = self.state.lock();
        state.speed = speed;
        state.window = (Instant::now(), 0);
        self.changed.notify_all();
    }
}

/// For a job id.
fn good_id(id: &str) -> bool {
    id.starts_with(|c: char| c.is_ascii_alphabetic())
        && id.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
}

/// Does no job work on one of these nodes?
fn unused(list: &[Arc<Job>], nodes: &[String]) -> Result<(), Error> {
    let shared = |job: &&Arc<Job>| {
        let ended = matches!(job.state.lock().status, Status::Concluded | Status::Null);
        !ended && job.settings.uses.iter().any(|node| nodes.contains(node))
    };
    let Some(other) = list.iter().find(shared) else { return Ok(()) };
    let node = other.settings.uses.iter().find(|node| nodes.contains(node)).map_or("", String::as_str);
    let kind = other.settings.kind;
    Err(Error::new(format!("Node '{node}' is busy: block device is in use by block job: {kind}")))
}

impl Jobs {
    #[must_use]
    pub fn new(events: &Arc<Events>) -> Arc<Self> {
        Arc::new(Self { list: Mutex::default(), events: events.clone() })
    }
    /// Begins a job.
    ///
    /// # Errors
    /// The id is taken or not good, something else works on the same, or there are no more threads.
    pub fn start(self: &Arc<Self>, settings: JobSettings, work: Work) -> Result<(), Error> {
        if !good_id(&settings.id) {
            return Err(Error::new(format!("Invalid job ID '{}'", settings.id)));
        }
        let window = (Instant::now(), 0);
        let (speed, name) = (settings.speed, format!("rhea-{}", settings.kind));
        let job = {
            let mut list = self.list.lock();
            if list.iter().any(|job| job.settings.id == settings.id) {
                return Err(Error::new(format!("Job ID '{}' already in use", settings.id)));
            }
            unused(&list, &settings.uses)?;
            let state = State {
                status: Status::Created,
                done: 0,
                total: 0,
                speed,
                error: None,
                pause: false,
                cancel: false,
                complete: false,
                soft: false,
                finalize: false,
                window,
            };
            let events = self.events.clone();
            let job = Arc::new(Job { settings, state: Mutex::new(state), changed: Condvar::new(), events });
            list.push(job.clone());
            job
        };
        self.events.emit("JOB_STATUS_CHANGE", json!({"id": job.settings.id, "status": Status::Created.word()}));
        let (jobs, runs) = (self.clone(), job.clone());
        let thread = std::thread::Builder::new().name(name).spawn(move || runs.run(&jobs, work));
        if let Err(e) = thread {
            self.list.lock().retain(|other| !Arc::ptr_eq(other, &job));
            return Err(e.into());
        }
        Ok(())
    }
    /// Begins a job of one step, which stays until it is dismissed.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub fn start_step(
        self: &Arc<Self>,
        id: &str,
        kind: &'static str,
        uses: Vec<String>,
        step: impl FnOnce() -> Result<(), String> + Send + 'static,
    ) -> Result<(), Error> {
        let id = id.to_owned();
        let settings = JobSettings { id, kind, block: false, speed: 0, auto_finalize: true, auto_dismiss: false, uses };
        let work = move |job: &Job| {
            job.set_total(1);
            step()?;
            job.proceed(1)?;
            Ok(Box::new(|| Ok(())) as Finish)
        };
        self.start(settings, Box::new(work))
    }
    /// May somebody else work on this node?
    ///
    /// # Errors
    /// A job does.
    pub fn unused(&self, node: &str) -> Result<(), Error> {
        unused(&self.list.lock(), &[node.to_owned()])
    }
    /// A job.
    ///
    /// # Errors
    /// There is none of this id.
    pub fn get(&self, id: &str) -> Result<Arc<Job>, Error> {
        self.find(id, false).ok_or_else(|| Error::new("Job not found"))
    }
    /// A job that works on images.
    ///
    /// # Errors
    /// There is none of this id.
    pub fn block(&self, id: &str) -> Result<Arc<Job>, Error> {
        let missing = || Error::of(ErrorClass::DeviceNotActive, format!("Block job '{id}' not found"));
        self.find(id, true).ok_or_else(missing)
    }
    fn find(&self, id: &str, block: bool) -> Option<Arc<Job>> {
        self.list.lock().iter().find(|job| job.settings.id == id && (job.settings.block || !block)).cloned()
    }
    /// Forgets a job: with the answer it is gone.
    ///
    /// # Errors
    /// It has not ended.
    pub fn dismiss(&self, job: &Arc<Job>) -> Result<(), Error> {
        let mut list = self.list.lock();
        job.tell("dismiss", &[Status::Concluded], |state| job.set(state, Status::Null))?;
        list.retain(|other| !Arc::ptr_eq(other, job));
        Ok(())
    }
    /// The id of a job that works on images, if there is one.
    #[must_use]
    pub fn on_images(&self) -> Option<String> {
        let jobs = self.list.lock();
        let works = |job: &&Arc<Job>| {
            let over = matches!(job.state.lock().status, Status::Concluded | Status::Null);
            job.settings.block && !over
        };
        jobs.iter().find(works).map(|job| job.settings.id.clone())
    }
    /// The answer of `query-jobs`.
    #[must_use]
    pub fn list(&self) -> Value {
        let jobs = self.list.lock();
        let one = |job: &Arc<Job>| {
            let state = job.state.lock();
            let mut entry = json!({
                "id": job.settings.id, "type": job.settings.kind, "status": state.status.word(),
                "current-progress": state.done, "total-progress": state.total,
            });
            if let Some(error) = &state.error {
                entry["error"] = json!(error);
            }
            entry
        };
        jobs.iter().map(one).collect()
    }
    /// The answer of `query-block-jobs`.
    #[must_use]
    pub fn list_block(&self) -> Value {
        let jobs = self.list.lock();
        let one = |job: &Arc<Job>| {
            let state = job.state.lock();
            let mut entry = json!({
                "device": job.settings.id, "type": job.settings.kind, "status": state.status.word(),
                "offset": state.done, "len": state.total, "speed": state.speed, "io-status": "ok",
                "busy": matches!(state.status, Status::Running | Status::Ready) && !state.pause,
                "paused": state.pause, "ready": matches!(state.status, Status::Ready | Status::Standby),
                "auto-finalize": job.settings.auto_finalize, "auto-dismiss": job.settings.auto_dismiss,
            });
            if let Some(error) = &state.error {
                entry["error"] = json!(error);
            }
            entry
        };
        jobs.iter().filter(|job| job.settings.block).map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{Receiver, Sender, bounded};

    fn jobs() -> Arc<Jobs> {
        Jobs::new(&Events::new(&Arc::new(crate::schema())))
    }
    fn settings(id: &str, auto: bool) -> JobSettings {
        JobSettings {
            id: id.to_owned(),
            kind: "mirror",
            block: true,
            speed: 0,
            auto_finalize: auto,
            auto_dismiss: auto,
            uses: vec!["a".to_owned()],
        }
    }
    /// Waits for what another thread does.
    fn until(jobs: &Jobs, status: &str) {
        while jobs.list()[0]["status"] != status {
            std::thread::yield_now();
        }
    }
    /// Work that takes steps as it is told, of which `room` may wait, and what it says of its end.
    fn stepped(room: usize) -> (Work, Sender<u64>, Receiver<&'static str>) {
        let (steps, step) = bounded::<u64>(room);
        let (end, ended) = bounded(1);
        let work = move |job: &Job| {
            job.set_total(10);
            while let Ok(n) = step.recv() {
                job.proceed(n)?;
            }
            job.ready();
            while !job.is_completing() {
                job.proceed(0)?;
                job.rest(Duration::from_millis(1));
            }
            let soft = job.is_soft();
            Ok(Box::new(move || end.send(if soft { "soft" } else { "done" }).map_err(|e| e.to_string())) as Finish)
        };
        (Box::new(work), steps, ended)
    }

    #[test]
    fn a_job_from_begin_to_end() {
        let jobs = jobs();
        let (work, steps, ended) = stepped(1);
        jobs.start(settings("j", false), work).unwrap();
        assert!(jobs.start(settings("j", false), stepped(1).0).is_err_and(|e| e.text.contains("already in use")));
        assert!(jobs.start(settings("k", false), stepped(1).0).is_err_and(|e| e.text.contains("'a' is busy")));
        assert!(jobs.start(settings("0", false), stepped(1).0).is_err_and(|e| e.text.contains("Invalid")));
        let job = jobs.get("j").unwrap();
        steps.send(4).unwrap();
        while jobs.list()[0]["current-progress"] != 4 {
            std::thread::yield_now();
        }
        let entry = jobs.list()[0].clone();
        assert_eq!((&entry["current-progress"], &entry["total-progress"]), (&json!(4), &json!(10)));
        assert!(
            job.complete().is_err() && jobs.dismiss(&job).is_err() && job.finalize().is_err() && job.resume().is_err()
        );
        job.pause().unwrap();
        assert!(job.pause().is_err());
        steps.send(1).unwrap();
        until(&jobs, "paused");
        job.resume().unwrap();
        drop(steps);
        until(&jobs, "ready");
        assert_eq!(jobs.list_block()[0]["ready"], true);
        job.complete().unwrap();
        until(&jobs, "pending");
        assert!(ended.try_recv().is_err());
        job.finalize().unwrap();
        until(&jobs, "concluded");
        assert_eq!(ended.recv(), Ok("done"));
        // What has ended is in nobody's way.
        let (work, ..) = stepped(1);
        jobs.start(settings("k", true), work).unwrap();
        jobs.dismiss(&job).unwrap();
        assert!(jobs.get("j").is_err());
    }

    #[test]
    fn cancelled_and_failed() {
        let jobs = jobs();
        let (work, steps, ended) = stepped(1);
        jobs.start(settings("j", false), work).unwrap();
        drop(steps);
        until(&jobs, "ready");
        // What is ready ends well unless it is forced.
        jobs.block("j").unwrap().cancel(false).unwrap();
        until(&jobs, "pending");
        // Before it is final there is a way back.
        jobs.get("j").unwrap().cancel(true).unwrap();
        until(&jobs, "concluded");
        assert!(ended.recv().is_err() && jobs.list()[0].get("error").is_none());
        jobs.dismiss(&jobs.get("j").unwrap()).unwrap();
        assert!(jobs.get("j").is_err());
        jobs.start(settings("f", false), Box::new(|_| Err("no space".to_owned()))).unwrap();
        until(&jobs, "concluded");
        assert_eq!(jobs.list()[0]["error"], "no space");
        assert!(jobs.block("x").is_err_and(|e| e.class == ErrorClass::DeviceNotActive));
    }

    #[test]
    fn speed() {
        let jobs = jobs();
        let (work, steps, _ended) = stepped(0);
        jobs.start(JobSettings { speed: 1000, ..settings("j", true) }, work).unwrap();
        let begin = Instant::now();
        // The last waits until the one before it is through.
        for _ in 0..3 {
            steps.send(600).unwrap();
        }
        assert!(begin.elapsed() >= Duration::from_millis(150), "{:?}", begin.elapsed());
        jobs.get("j").unwrap().set_speed(0);
        drop(steps);
        until(&jobs, "ready");
        jobs.get("j").unwrap().cancel(true).unwrap();
    }
}
