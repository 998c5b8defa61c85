//! The machine moves to another process while its guest runs: pages are sent, those that the guest has written to meanwhile again, and
//! when few are left the guest stands still for the rest.
//!
//! Where the other end can answer, it says "ok" when it has taken the machine over, and starts it when it is told "go": never do two
//! processes run it. Until then the machine goes on here whatever fails.

use super::machine::Manner;
use super::multifd::{Accepting, Dial, Plan, READY, Receivers, Senders};
use super::pace::{Pace, Paced};
use super::postcopy::{self, Handover};
use super::ram;
use super::stream::{Kind, Result, StateError, Writer};
use super::throttle::{Throttle, ThrottleParameters};
use crate::machine::{Machine, RunState};
use parking_lot::{Condvar, Mutex};
use rhea_memory::{DirtyClient, PAGE_SIZE, RamBlock};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// What can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MigrationParameters {
    /// Bytes a second; 0: no limit.
    pub max_bandwidth: u64,
    /// Milliseconds for which the guest may stand still.
    pub downtime_limit: u64,
    /// Pages are compressed, with this level of zstd.
    pub zstd: Option<i32>,
    /// [`Migration::go_on`] is waited for when the guest stands still.
    pub pause_before_switchover: bool,
    /// What is said of the other end's answers, which are waited for wherever there can be any.
    pub return_path: bool,
    /// A guest that writes too fast is slowed down.
    pub auto_converge: bool,
    pub throttle: ThrottleParameters,
    /// Pages go by several connections; how many, if so: 1 to 255.
    pub multifd: bool,
    pub multifd_channels: u8,
    /// [`Migration::start_postcopy`] may be asked for.
    pub postcopy: bool,
    /// Bytes a second in post-copy; 0: no limit.
    pub max_postcopy_bandwidth: u64,
    /// The machine is not moved: it is saved while its guest runs.
    pub background: bool,
}

impl MigrationParameters {
    /// The channels that are in use.
    fn channels(&self) -> Option<u8> {
        self.multifd.then_some(self.multifd_channels)
    }
}

impl Default for MigrationParameters {
    fn default() -> Self {
        Self {
            max_bandwidth: 128 << 20,
            downtime_limit: 300,
            zstd: None,
            pause_before_switchover: false,
            return_path: true,
            auto_converge: false,
            throttle: ThrottleParameters::default(),
            multifd: false,
            multifd_channels: 2,
            postcopy: false,
            max_postcopy_bandwidth: 0,
            background: false,
        }
    }
}

/// Where a move is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MigrationStatus {
    #[default]
    None,
    Setup,
    Active,
    /// The guest stands still; [`Migration::go_on`] is waited for.
    PreSwitchover,
    /// The guest stands still.
    Device,
    /// The guest runs at the destination, and pages follow.
    PostcopyActive,
    /// They would, but the connection is broken: [`Migration::resume`] and [`Migration::recover`].
    PostcopyPaused,
    /// Another connection is being made.
    PostcopyRecoverSetup,
    /// It is there, and what is missing is told.
    PostcopyRecover,
    Completed,
    Failed,
    Cancelling,
    Cancelled,
}

impl MigrationStatus {
    /// The word of the control protocol.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Setup => "setup",
            Self::Active => "active",
            Self::PreSwitchover => "pre-switchover",
            Self::Device => "device",
            Self::PostcopyActive => "postcopy-active",
            Self::PostcopyPaused => "postcopy-paused",
            Self::PostcopyRecoverSetup => "postcopy-recover-setup",
            Self::PostcopyRecover => "postcopy-recover",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
        }
    }
    /// Is the machine being moved?
    #[must_use]
    pub fn busy(self) -> bool {
        matches!(self, Self::Setup | Self::Active | Self::PreSwitchover | Self::Device | Self::Cancelling)
            || self.in_postcopy()
    }
    /// Does the guest run where not all of its memory is?
    #[must_use]
    pub fn in_postcopy(self) -> bool {
        use MigrationStatus::{PostcopyActive, PostcopyPaused, PostcopyRecover, PostcopyRecoverSetup};
        matches!(self, PostcopyActive | PostcopyPaused | PostcopyRecoverSetup | PostcopyRecover)
    }
}

/// How far it is.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    pub status: MigrationStatus,
    pub error: Option<String>,
    /// Bytes of RAM, those that are still to be sent, and what has gone through the stream.
    pub total: u64,
    pub remaining: u64,
    pub transferred: u64,
    /// What of it has gone through channels of multifd.
    pub multifd_bytes: u64,
    /// Pages sent.
    pub pages: u64,
    /// Rounds over what was written to.
    pub rounds: u64,
    /// Bytes a second, lately.
    pub bandwidth: u64,
    /// Pages a second that the guest writes to.
    pub dirty_rate: u64,
    /// In milliseconds.
    pub expected_downtime: u64,
    pub downtime: u64,
    /// Percent of the processors' time that is taken from the guest.
    pub throttle: u8,
    /// Pages that the destination has waited for.
    pub postcopy_requests: u64,
    pub setup_time: u64,
    pub total_time: u64,
}

/// A stream's end.
pub struct Channel {
    pub to: Box<dyn Write + Send>,
    /// Answers of the other end, if it can give any.
    pub from: Option<Box<dyn Read + Send>>,
    /// Makes whoever waits for the other end fail.
    pub shut: Box<dyn Fn() + Send + Sync>,
    /// Called when all was written and `to` is closed: whether it arrived where no one answers.
    pub end: Box<dyn FnOnce() -> io::Result<()> + Send>,
    /// Opens further connections, if that is possible.
    pub dial: Option<Dial>,
}

type Listener = Box<dyn Fn(MigrationStatus) + Send + Sync>;
type PassListener = Box<dyn Fn(u64) + Send + Sync>;
type HoldsDisks = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// The move of one machine.
#[derive(Default)]
pub struct Migration {
    pub(super) progress: Mutex<Progress>,
    parameters: Mutex<MigrationParameters>,
    pub(super) cancel: Arc<AtomicBool>,
    /// The machine is to run at the destination at once.
    pub(super) switch: AtomicBool,
    pub(super) resumes: Handover<Channel>,
    pub(super) recovers: Handover<Source>,
    /// Rings when `progress` has left [`MigrationStatus::PreSwitchover`].
    left: Condvar,
    pub(super) shut: Mutex<Option<Box<dyn Fn() + Send + Sync>>>,
    listeners: Mutex<Vec<Listener>>,
    pass_listeners: Mutex<Vec<PassListener>>,
    started: Mutex<Option<Instant>>,
    /// Says why the disks must stay here.
    holds_disks: Mutex<Option<HoldsDisks>>,
}

impl Migration {
    #[must_use]
    pub fn progress(&self) -> Progress {
        let mut progress = self.progress.lock().clone();
        if let Some(started) = *self.started.lock() {
            progress.total_time = started.elapsed().as_millis() as u64;
        }
        progress
    }
    #[must_use]
    pub fn parameters(&self) -> MigrationParameters {
        *self.parameters.lock()
    }
    pub fn set_parameters(&self, parameters: MigrationParameters) {
        *self.parameters.lock() = parameters;
    }
    /// Tells `listener` of each change of the status.
    pub fn listen(&self, listener: impl Fn(MigrationStatus) + Send + Sync + 'static) {
        self.listeners.lock().push(Box::new(listener));
    }
    /// Tells `listener` how many rounds there were, after each.
    pub fn listen_to_passes(&self, listener: impl Fn(u64) + Send + Sync + 'static) {
        self.pass_listeners.lock().push(Box::new(listener));
    }
    /// `why` says why the disks must stay here at present, if they must: somebody works on them.
    pub fn keep_disks(&self, why: impl Fn() -> Option<String> + Send + Sync + 'static) {
        *self.holds_disks.lock() = Some(Box::new(why));
    }
    pub(super) fn check_holders(&self) -> Result<()> {
        let why = self.holds_disks.lock().as_ref().and_then(|why| why());
        why.map_or(Ok(()), |why| Err(StateError::Blocked(why)))
    }
    pub(super) fn set(&self, status: MigrationStatus) {
        if std::mem::replace(&mut self.progress.lock().status, status) != status {
            self.tell(status);
        }
    }
    pub(super) fn tell(&self, status: MigrationStatus) {
        self.listeners.lock().iter().for_each(|l| l(status));
    }
    fn tell_passes(&self, passes: u64) {
        self.pass_listeners.lock().iter().for_each(|l| l(passes));
    }
    /// Gives up a move that is not over; the machine goes on. What runs at the destination already is not given up.
    pub fn cancel(&self) {
        {
            let mut progress = self.progress.lock();
            let status = progress.status;
            if !status.busy() || status == MigrationStatus::Cancelling || status.in_postcopy() {
                return;
            }
            progress.status = MigrationStatus::Cancelling;
            self.cancel.store(true, Ordering::SeqCst);
            self.left.notify_all();
        }
        self.tell(MigrationStatus::Cancelling);
        if let Some(shut) = &*self.shut.lock() {
            shut();
        }
    }
    /// Goes on with a move that waits in [`MigrationStatus::PreSwitchover`]; false: there is none.
    pub fn go_on(&self) -> bool {
        {
            let mut progress = self.progress.lock();
            if progress.status != MigrationStatus::PreSwitchover {
                return false;
            }
            progress.status = MigrationStatus::Device;
            self.left.notify_all();
        }
        self.tell(MigrationStatus::Device);
        true
    }
    /// Waits for [`Self::go_on`] or the end, if that is wanted.
    pub(super) fn pause(&self) {
        if !self.parameters().pause_before_switchover || self.cancel.load(Ordering::SeqCst) {
            return;
        }
        self.set(MigrationStatus::PreSwitchover);
        let mut progress = self.progress.lock();
        while progress.status == MigrationStatus::PreSwitchover {
            self.left.wait(&mut progress);
        }
    }
    /// Begins a move, in a thread of its own. `open` opens the stream, in that thread.
    ///
    /// # Errors
    /// There is one already, or the machine cannot be moved.
    pub fn start(
        self: &Arc<Self>,
        machine: &Arc<Machine>,
        open: impl FnOnce() -> io::Result<Channel> + Send + 'static,
    ) -> Result<()> {
        if let Some(why) = machine.run_state().held() {
            return Err(StateError::Other(why.to_owned()));
        }
        machine.check_blockers()?;
        let parameters = self.parameters();
        if !parameters.background {
            machine.check_moved_disks()?;
        }
        // Who waits before the disks are given up ends jobs then.
        if !parameters.pause_before_switchover && !parameters.background {
            self.check_holders()?;
        }
        {
            let mut progress = self.progress.lock();
            if progress.status.busy() {
                return Err(StateError::Other("There's a migration process in progress".to_owned()));
            }
            let total = machine.memory_blocks().iter().map(|b| b.len()).sum();
            *progress = Progress { total, remaining: total, ..Progress::default() };
        }
        self.cancel.store(false, Ordering::SeqCst);
        self.switch.store(false, Ordering::SeqCst);
        *self.started.lock() = Some(Instant::now());
        self.set(MigrationStatus::Setup);
        let (this, machine) = (self.clone(), machine.clone());
        let thread = move || {
            let result = open().map_err(StateError::from).and_then(|channel| this.send(&machine, channel));
            this.end(result);
        };
        if let Err(e) = std::thread::Builder::new().name("rhea-migration".to_owned()).spawn(thread) {
            self.end(Err(e.into()));
        }
        Ok(())
    }
    fn end(&self, result: Result<()>) {
        *self.shut.lock() = None;
        let total = self.started.lock().take().map_or(0, |s| s.elapsed().as_millis() as u64);
        let cancelled = self.cancel.load(Ordering::SeqCst);
        let status = {
            let mut progress = self.progress.lock();
            progress.total_time = total;
            match &result {
                Ok(()) => MigrationStatus::Completed,
                Err(_) if cancelled => MigrationStatus::Cancelled,
                Err(e) => {
                    progress.error = Some(e.to_string());
                    MigrationStatus::Failed
                }
            }
        };
        self.set(status);
    }
    pub(super) fn check(&self) -> Result<()> {
        match self.cancel.load(Ordering::SeqCst) {
            true => Err(StateError::Other("the migration was cancelled".to_owned())),
            false => Ok(()),
        }
    }

    /// The whole move.
    fn send(self: &Arc<Self>, machine: &Arc<Machine>, channel: Channel) -> Result<()> {
        let Channel { to, mut from, shut, end, dial } = channel;
        let shut: Arc<dyn Fn() + Send + Sync> = Arc::from(shut);
        let main = shut.clone();
        *self.shut.lock() = Some(Box::new(move || main()));
        self.check()?;
        let sent = Arc::new(AtomicU64::new(0));
        let pace = Arc::new(Pace::new(self.clone(), sent.clone()));
        let paced = Paced { to, pace: pace.clone() };
        let mut writer = Writer::new(BufWriter::with_capacity(1 << 20, paced))?;
        writer.zstd = self.parameters().zstd;
        if self.parameters().background {
            return self.background(machine, writer, &sent).and_then(|()| Ok(end()?));
        }
        let plan = self.parameters().channels().map(Plan::new).transpose()?;
        let token = if self.parameters().postcopy { Some(postcopy::token()?) } else { None };
        if token.is_some() && from.is_none() {
            return Err(postcopy::one_way());
        }
        let mut channels = None;
        let blocks = machine.memory_blocks();
        let mut moving = 0;
        let devices = machine.devices();
        let result = (|| {
            for device in &devices {
                moving += 1;
                let fail = |e| StateError::Section(format!("device '{}'", device.name()), e);
                device.moving().map_err(fail)?;
            }
            blocks.iter().for_each(|b| b.start_dirty_log(DirtyClient::Migration));
            machine.write_head(&mut writer, Manner { asks: from.is_some(), multifd: plan, postcopy: token })?;
            if let Some(plan) = &plan {
                writer.flush()?;
                channels = Some(self.open_channels(plan, &mut from, dial, &pace)?);
            }
            if let Some(channels) = &channels {
                let stop = channels.stopper();
                *self.shut.lock() = Some(Box::new(move || {
                    stop();
                    shut();
                }));
            }
            self.progress.lock().setup_time = self.started.lock().map_or(0, |s| s.elapsed().as_millis() as u64);
            self.check()?;
            self.set(MigrationStatus::Active);
            let all = blocks.iter().map(|b| (b.clone(), (0..b.len() / PAGE_SIZE).collect())).collect();
            self.rounds(machine, &mut writer, &channels, all, &sent)
        })();
        let stopped = result.and_then(|left| Ok((self.stop(machine)?, left)));
        let result = match stopped {
            Ok((stood @ (before, since), left)) => {
                let result = match (left, token, from) {
                    (Some(left), Some(token), Some(from)) => {
                        self.late(machine, writer, from, &pace, stood, left, token)
                    }
                    (_, _, from) => {
                        let result = self.last(machine, writer, &channels, from, before, &sent);
                        self.progress.lock().downtime = since.elapsed().as_millis() as u64;
                        result
                    }
                };
                let result = result.and_then(|()| Ok(end()?));
                let (own, moved) = (machine.clone(), result.is_ok());
                let back = machine.control().run(move || {
                    if moved {
                        own.set_run_state(RunState::PostMigrate);
                        return Ok(());
                    }
                    if let Err(e) = own.take_disks_back() {
                        // 'cont' tries again.
                        own.set_run_state(RunState::PostMigrate);
                        return Err(e);
                    }
                    own.unrest();
                    own.go_on(before);
                    Ok(())
                });
                match (result, back) {
                    (Err(e), Some(Err(taken))) => {
                        Err(StateError::Other(format!("{e}; the machine stands still: {taken}")))
                    }
                    (result, _) => result,
                }
            }
            Err(e) => Err(e),
        };
        blocks.iter().for_each(|b| b.stop_dirty_log(DirtyClient::Migration));
        devices.iter().take(moving).for_each(|d| d.moved());
        result
    }
    /// Makes the connections that pages go by, when the other end waits for them.
    fn open_channels(
        self: &Arc<Self>,
        plan: &Plan,
        from: &mut Option<Box<dyn Read + Send>>,
        dial: Option<Dial>,
        pace: &Arc<Pace>,
    ) -> Result<Senders> {
        let (Some(from), Some(dial)) = (from, dial) else {
            return Err(StateError::Other("Migration requires multi-channel URIs (e.g. tcp)".to_owned()));
        };
        expect(from, READY)?;
        let (this, own) = (self.clone(), pace.clone());
        let tell = move |pages: u64, bytes: u64| {
            let mut progress = this.progress.lock();
            progress.pages += pages;
            progress.remaining = progress.remaining.saturating_sub(pages * PAGE_SIZE);
            progress.transferred += bytes;
            progress.multifd_bytes += bytes;
        };
        let halt = move || own.halted.store(true, Ordering::SeqCst);
        let wrap = |link| Paced { to: Box::new(link), pace: pace.clone() };
        Senders::new(plan, &dial, self.parameters().zstd, wrap, Box::new(halt), Arc::new(tell))
    }
    /// Sends pages until few enough are left, or the machine is to run at the destination at once: what of a round is left then.
    fn rounds<W: Write>(
        &self,
        machine: &Machine,
        writer: &mut Writer<W>,
        channels: &Option<Senders>,
        mut pages: Pages,
        sent: &AtomicU64,
    ) -> Result<Option<Pages>> {
        let mut throttle = Throttle::new(machine.cpus());
        loop {
            let (begin, before) = (Instant::now(), sent.load(Ordering::Relaxed));
            let left = self.pages(writer, channels, &pages)?;
            for device in machine.devices() {
                let fail = |e| StateError::Section(format!("device '{}'", device.name()), e);
                loop {
                    self.check()?;
                    let data = device.moving_data(1 << 20).map_err(fail)?;
                    if data.is_empty() {
                        break;
                    }
                    writer.section(Kind::Data, device.name(), 1, &data)?;
                }
            }
            writer.flush()?;
            if self.switch.load(Ordering::SeqCst) {
                return Ok(Some(left));
            }
            let time = begin.elapsed().as_secs_f64().max(1e-6);
            let bytes = sent.load(Ordering::Relaxed) - before;
            pages = dirty(machine);
            let count: u64 = pages.iter().map(|(_, p)| p.len() as u64).sum();
            let limit = self.parameters();
            let mut progress = self.progress.lock();
            // A round of nearly nothing says nothing of the stream.
            if bytes > 1 << 20 || progress.bandwidth == 0 {
                progress.bandwidth = (bytes as f64 / time) as u64;
            }
            progress.rounds += 1;
            let passes = progress.rounds;
            progress.dirty_rate = (count as f64 / time) as u64;
            progress.remaining = count * PAGE_SIZE;
            // What the limit of the bandwidth slows down is not slow when the guest stands still.
            let speed = progress.bandwidth.max(1 << 20);
            progress.expected_downtime = (u128::from(progress.remaining) * 1000 / u128::from(speed)) as u64;
            if progress.expected_downtime <= limit.downtime_limit {
                drop(progress);
                self.tell_passes(passes);
                // They are taken again with the guest standing still: what is dirty stays so.
                for (block, list) in &pages {
                    let mark = |page: &u64| block.mark_dirty(page * PAGE_SIZE, 1, &[DirtyClient::Migration]);
                    list.iter().for_each(mark);
                }
                return Ok(None);
            }
            if limit.auto_converge {
                progress.throttle = throttle.round(&limit.throttle, progress.remaining, bytes);
            }
            drop(progress);
            self.tell_passes(passes);
        }
    }
    /// Sends pages; those that are left when the machine is to run at the destination at once.
    fn pages<W: Write>(
        &self,
        writer: &mut Writer<W>,
        channels: &Option<Senders>,
        pages: &[(Arc<RamBlock>, Vec<u64>)],
    ) -> Result<Pages> {
        if let Some(channels) = channels {
            for (block, list) in pages {
                for (first, count) in ram::runs(list) {
                    self.check()?;
                    channels.pages(block, first, count)?;
                }
            }
            let round = channels.round()?;
            writer.section(Kind::Round, "", 1, &round.to_le_bytes())?;
            return Ok(Vec::new());
        }
        let mut left = Vec::new();
        for (block, list) in pages {
            let mut sent = 0;
            for (first, count) in ram::runs(list) {
                self.check()?;
                if self.switch.load(Ordering::SeqCst) {
                    break;
                }
                sent += count as usize;
                ram::write(writer, block, first, count)?;
                let mut progress = self.progress.lock();
                progress.pages += count;
                progress.remaining = progress.remaining.saturating_sub(count * PAGE_SIZE);
                progress.transferred = writer.written;
            }
            left.push((block.clone(), list[sent..].to_vec()));
        }
        Ok(left)
    }
    /// The guest stands still from here on; in which state it was, and since when.
    pub(super) fn stop(self: &Arc<Self>, machine: &Arc<Machine>) -> Result<(RunState, Instant)> {
        let (this, own) = (self.clone(), machine.clone());
        let stopped = machine.control().run(move || {
            this.check()?;
            let (before, since) = (own.run_state(), Instant::now());
            if let Some(why) = before.held() {
                return Err(StateError::Other(why.to_owned()));
            }
            own.stop(RunState::FinishMigrate);
            own.rest().inspect_err(|_| own.go_on(before))?;
            Ok((before, since))
        });
        stopped.unwrap_or_else(|| Err(StateError::Other("the emulator ends".to_owned())))
    }
    /// The rest of the stream, and what the other end says to it.
    fn last<W: Write>(
        &self,
        machine: &Machine,
        mut writer: Writer<W>,
        channels: &Option<Senders>,
        from: Option<Box<dyn Read + Send>>,
        before: RunState,
        sent: &AtomicU64,
    ) -> Result<()> {
        self.pause();
        self.check()?;
        self.set(MigrationStatus::Device);
        self.pages(&mut writer, channels, &dirty(machine))?;
        self.check_holders()?;
        machine.give_disks()?;
        machine.write_rest(&mut writer, before.runs())?;
        if let Some(channels) = channels {
            channels.finish()?;
        }
        let mut to = writer.finish()?;
        self.progress.lock().remaining = 0;
        self.check()?;
        if let Some(mut from) = from {
            expect(&mut from, "ok")?;
            self.check()?;
            to.write_all(b"go\n")?;
            to.flush()?;
        }
        self.progress.lock().transferred = sent.load(Ordering::Relaxed);
        Ok(())
    }

    // ---- the other end ----

    /// Takes the machine over, in a thread of its own: `open` waits for the stream. The machine stands still in
    /// [`RunState::InMigrate`] and is started if it ran where it comes from and `start` says so. `failed` is called if nothing comes of
    /// it, and the machine is of no use.
    ///
    /// # Errors
    /// There is one already, or no thread.
    pub fn receive(
        self: &Arc<Self>,
        machine: &Arc<Machine>,
        start: bool,
        open: impl FnOnce() -> io::Result<Source> + Send + 'static,
        failed: impl FnOnce(&StateError) + Send + 'static,
    ) -> Result<()> {
        {
            let mut progress = self.progress.lock();
            if progress.status != MigrationStatus::None {
                return Err(StateError::Other("The incoming migration has already been started".to_owned()));
            }
            progress.total = machine.memory_blocks().iter().map(|b| b.len()).sum();
        }
        *self.started.lock() = Some(Instant::now());
        self.set(MigrationStatus::Setup);
        let (this, machine) = (self.clone(), machine.clone());
        let thread = move || {
            let result = open().map_err(StateError::from).and_then(|source| {
                this.set(MigrationStatus::Active);
                this.take(&machine, source, start)
            });
            if let Err(e) = &result {
                failed(e);
            }
            this.end(result);
        };
        std::thread::Builder::new().name("rhea-migration".to_owned()).spawn(thread)?;
        Ok(())
    }

    /// Takes the machine over.
    fn take(&self, machine: &Arc<Machine>, source: Source, start: bool) -> Result<()> {
        let Source { from, mut answers, accepting, shut } = source;
        *self.shut.lock() = shut;
        machine.check_blockers()?;
        machine.rest()?;
        let parameters = self.parameters();
        let mut from = BufReader::with_capacity(1 << 20, from);
        let read = {
            let mut channels = Receivers::new(parameters.channels(), accepting, answers.as_mut());
            machine.read_from(&mut from, true, &mut channels).map_err(|e| channels.error(e))
        };
        let both = answers.is_some();
        let read = read.and_then(|(rest, asks)| self.check_postcopy(machine, &rest, both).map(|()| (rest, asks)));
        let apply = |rest| {
            let own = machine.clone();
            let applied = machine.control().run(move || {
                // Flash looks at its drive.
                own.take_disks()?;
                own.apply_state(rest)
            });
            applied.unwrap_or_else(|| Err(StateError::Other("the emulator ends".to_owned())))
        };
        let mut result = match read {
            Ok((mut rest, _)) if rest.missing.is_some() => {
                let missing = rest.missing.take().unwrap_or_default();
                let begin = (missing, rest.token.unwrap_or_default());
                return self.take_late(machine, from, answers, begin, || apply(rest), start);
            }
            read => read.and_then(|(rest, asks)| Ok((apply(rest)?, asks))),
        };
        if let (Err(e), Some(to)) = (&result, &mut answers) {
            refuse(to, e);
        }
        if let (Ok((_, true)), Some(to)) = (&result, &mut answers) {
            let mut word = String::new();
            let gone =
                writeln!(to, "ok").and_then(|()| to.flush()).and_then(|()| from.by_ref().take(64).read_line(&mut word));
            if gone.is_err() || word != "go\n" {
                result = Err(StateError::Other("the source has not let the machine go".to_owned()));
            }
        }
        let (life, _) = result?;
        begin(machine, life.running && start);
        Ok(())
    }
}

/// Tells the source why nothing comes of it.
pub(super) fn refuse(to: &mut impl Write, e: &StateError) {
    // Who is told may be gone.
    let _ = writeln!(to, "{e}").and_then(|()| to.flush());
}

/// A machine that was taken over goes on, or stands still.
pub(super) fn begin(machine: &Arc<Machine>, runs: bool) {
    let own = machine.clone();
    machine.control().run(move || {
        own.unrest();
        if runs {
            own.start();
        } else {
            own.set_run_state(RunState::Paused);
        }
    });
}

/// The end of a stream at which a machine arrives.
pub struct Source {
    pub from: Box<dyn Read + Send>,
    /// Where the machine comes from, if it can be told something.
    pub answers: Option<Box<dyn Write + Send>>,
    /// Further connections, if there can be any.
    pub accepting: Option<Accepting>,
    /// Makes whoever waits for the other end fail.
    pub shut: Option<Box<dyn Fn() + Send + Sync>>,
}

/// Waits until the other end says `word`.
fn expect(from: &mut impl Read, word: &str) -> Result<()> {
    let mut answer = String::new();
    // Nothing behind the line is read.
    BufReader::with_capacity(1, from.take(4096)).read_line(&mut answer)?;
    match answer.trim_end() {
        "" => Err(StateError::Other("the other end has given up".to_owned())),
        text if text == word => Ok(()),
        text => Err(StateError::Other(format!("the other end says: {text}"))),
    }
}

/// Pages of blocks, by their numbers, which rise.
pub(super) type Pages = Vec<(Arc<RamBlock>, Vec<u64>)>;

/// What was written to since the last call.
pub(super) fn dirty(machine: &Machine) -> Pages {
    let taken = |b: Arc<RamBlock>| {
        let pages = b.take_dirty(DirtyClient::Migration, 0, u64::MAX);
        (b, pages)
    };
    machine.memory_blocks().into_iter().map(taken).collect()
}
