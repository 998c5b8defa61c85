//! Both ends of a move that ends in post-copy.

use super::super::machine::{Life, Rest};
use super::super::migrate::{Channel, Migration, MigrationStatus, Pages, Source, begin, dirty, refuse};
use super::super::pace::{Pace, Paced};
use super::super::stream::{Kind, Result, StateError, Writer};
use super::send::{Late, Remainder, Said};
use super::{Arrival, PageSet, Token, one_way};
use crate::machine::{Machine, RunState};
use crossbeam_channel::Receiver;
use rhea_memory::PAGE_SIZE;
use std::io::{self, BufWriter, Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

type Out = Writer<BufWriter<Paced>>;

/// What the source's thread tells the move.
struct Told<'a> {
    migration: &'a Migration,
    /// Since when the guest stands still.
    since: Instant,
    pace: &'a Pace,
}

impl Late for Told<'_> {
    fn gone(&self) {
        self.migration.progress.lock().downtime = self.since.elapsed().as_millis() as u64;
        self.migration.set(MigrationStatus::PostcopyActive);
    }
    fn sent(&self, pages: u64, wanted: bool, left: u64) {
        let mut progress = self.migration.progress.lock();
        progress.pages += pages;
        progress.postcopy_requests += u64::from(wanted);
        progress.remaining = left * PAGE_SIZE;
        progress.transferred = self.pace.sent.load(Ordering::Relaxed);
    }
    fn check(&self) -> Result<()> {
        self.migration.check()
    }
}

impl Migration {
    /// Has the machine run at the destination as soon as that is possible; what of its memory is not there follows.
    ///
    /// # Errors
    /// Nothing is being moved, or not so.
    pub fn start_postcopy(&self) -> std::result::Result<(), &'static str> {
        if !self.parameters().postcopy {
            return Err("Enable postcopy with migrate_set_capability before the start of migration");
        }
        use MigrationStatus::{Active, Setup};
        if !matches!(self.progress.lock().status, Setup | Active) {
            return Err("Postcopy must be started after migration has been started");
        }
        self.switch.store(true, Ordering::SeqCst);
        Ok(())
    }
    /// Breaks the connection of a move in post-copy, which waits for another one then.
    ///
    /// # Errors
    /// There is none.
    pub fn pause_postcopy(&self) -> std::result::Result<(), &'static str> {
        use MigrationStatus::{PostcopyActive, PostcopyRecover};
        if !matches!(self.progress.lock().status, PostcopyActive | PostcopyRecover) {
            return Err("migrate-pause is currently only supported during postcopy-active or postcopy-recover state");
        }
        if let Some(shut) = &*self.shut.lock() {
            shut();
        }
        Ok(())
    }
    fn leave_pause(&self) -> bool {
        {
            let mut progress = self.progress.lock();
            if progress.status != MigrationStatus::PostcopyPaused {
                return false;
            }
            progress.status = MigrationStatus::PostcopyRecoverSetup;
            progress.error = None;
        }
        self.tell(MigrationStatus::PostcopyRecoverSetup);
        true
    }
    /// At the source: goes on by the connection that `open` makes.
    ///
    /// # Errors
    /// No move is paused.
    pub fn resume(
        &self,
        open: impl FnOnce() -> io::Result<Channel> + Send + 'static,
    ) -> std::result::Result<(), &'static str> {
        if !self.leave_pause() {
            return Err("Cannot resume if there is no paused migration");
        }
        self.resumes.give(Box::new(open));
        Ok(())
    }
    /// At the destination: goes on by the connection that `open` waits for.
    ///
    /// # Errors
    /// No move is paused.
    pub fn recover(
        &self,
        open: impl FnOnce() -> io::Result<Source> + Send + 'static,
    ) -> std::result::Result<(), &'static str> {
        if !self.leave_pause() {
            return Err("Migrate recover can only be run when postcopy is paused.");
        }
        self.recovers.give(Box::new(open));
        Ok(())
    }
    fn paused(&self, why: &StateError) {
        if let Some(shut) = &*self.shut.lock() {
            shut();
        }
        self.progress.lock().error = Some(why.to_string());
        self.set(MigrationStatus::PostcopyPaused);
    }

    // ---- the source ----

    /// The machine, which stands still, goes before the rest of its memory: all but `left` and what is dirty was sent. An error: the
    /// destination has not got it.
    #[expect(clippy::too_many_arguments, reason = "they are what a move consists of")]
    pub(in super::super) fn late(
        &self,
        machine: &Machine,
        mut writer: Out,
        from: Box<dyn Read + Send>,
        pace: &Arc<Pace>,
        (before, since): (RunState, Instant),
        left: Pages,
        token: Token,
    ) -> Result<()> {
        self.pause();
        self.check()?;
        self.set(MigrationStatus::Device);
        let blocks = machine.memory_blocks();
        let mut rest = Remainder::new(&blocks, &[left, dirty(machine)].concat());
        self.check_holders()?;
        machine.give_disks()?;
        rest.pages().write(&mut writer)?;
        machine.write_rest(&mut writer, before.runs())?;
        let level = writer.zstd;
        let mut writer = Writer::new(writer.finish()?)?;
        writer.zstd = level;
        let mut said = Said::listen(from)?;
        let told = Told { migration: self, since, pace };
        while let Err(e) = rest.send(&mut writer, &said, &told) {
            if !rest.gone {
                return Err(e);
            }
            self.paused(&e);
            (writer, said) = self.resumed(&mut rest, pace, token, level);
            self.set(MigrationStatus::PostcopyActive);
        }
        let mut progress = self.progress.lock();
        progress.remaining = 0;
        progress.transferred = pace.sent.load(Ordering::Relaxed);
        Ok(())
    }
    /// Waits for a connection by which the move goes on.
    fn resumed(
        &self,
        rest: &mut Remainder,
        pace: &Arc<Pace>,
        token: Token,
        level: Option<i32>,
    ) -> (Out, Receiver<Said>) {
        loop {
            let open = self.resumes.wait();
            let made = open().map_err(StateError::from).and_then(|channel| {
                let Channel { to, from, shut, .. } = channel;
                let from = from.ok_or_else(one_way)?;
                *self.shut.lock() = Some(shut);
                self.set(MigrationStatus::PostcopyRecover);
                let mut writer = Writer::new(BufWriter::with_capacity(1 << 20, Paced { to, pace: pace.clone() }))?;
                writer.zstd = level;
                let token: Vec<u8> = token.into_iter().flat_map(u64::to_le_bytes).collect();
                writer.section(Kind::Resume, "", 1, &token)?;
                writer.flush()?;
                let said = Said::listen(from)?;
                rest.resume(&said)?;
                Ok((writer, said))
            });
            match made {
                Ok(made) => return made,
                Err(e) => self.paused(&e),
            }
        }
    }

    // ---- the destination ----

    /// What was read can be taken over here; `both`: the stream goes both ways.
    pub(in super::super) fn check_postcopy(&self, machine: &Machine, rest: &Rest, both: bool) -> Result<()> {
        match (rest.token, self.parameters().postcopy) {
            (None, _) => Ok(()),
            (Some(_), true) if !both => Err(one_way()),
            (Some(_), true) => Arrival::check_blocks(&machine.memory_blocks()),
            (Some(_), false) => Err(StateError::Differs("postcopy-ram".to_owned(), "on".to_owned(), "off".to_owned())),
        }
    }
    /// Takes over a machine whose memory is not all here: `apply` takes over the rest.
    pub(in super::super) fn take_late(
        &self,
        machine: &Arc<Machine>,
        from: impl Read + Send + 'static,
        mut answers: Option<Box<dyn Write + Send>>,
        (missing, token): (PageSet, Token),
        apply: impl FnOnce() -> Result<Life>,
        start: bool,
    ) -> Result<()> {
        let begun = Arrival::begin(machine.memory_blocks(), missing, from, &mut answers);
        let mut arrival = begun.inspect_err(|e| answers.iter_mut().for_each(|to| refuse(to, e)))?;
        let life = apply().inspect_err(|e| arrival.refuse(e))?;
        arrival.take_over()?;
        begin(machine, life.running && start);
        self.set(MigrationStatus::PostcopyActive);
        while let Err(e) = arrival.finish() {
            self.paused(&e);
            while let Err(e) = self.recovered(&mut arrival, token) {
                self.paused(&e);
            }
            self.set(MigrationStatus::PostcopyActive);
        }
        Ok(())
    }
    fn recovered(&self, arrival: &mut Arrival, token: Token) -> Result<()> {
        let open = self.recovers.wait();
        let Source { from, answers, shut, .. } = open()?;
        let answers = answers.ok_or_else(one_way)?;
        *self.shut.lock() = shut;
        self.set(MigrationStatus::PostcopyRecover);
        arrival.resume(from, answers, token)
    }
}
