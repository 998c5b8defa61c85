//! Migration of a function's own state, by version 2 of VFIO's protocol (linux/vfio.h, `VFIO_DEVICE_FEATURE_MIGRATION` and
//! `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE`).
//!
//! The function is a machine of states in the kernel. In some of them there is a stream, of which its state is read or into which it is
//! written. The kernel takes a way over states in between by itself; a change that fails leaves the function where it got, or in an error,
//! out of which only a reset leads.

use crate::sys::{DeviceFile, MigrationData, MigrationFlags, MigrationState as State, PrecopyInfo};
use parking_lot::Mutex;
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Weak};
use thiserror::Error;

/// Bytes that are read or written at once.
const CHUNK: usize = 1 << 20;

/// Why the state of a function cannot be had, or given to it.
#[derive(Debug, Error)]
pub enum MigrationError {
    #[error("the device has no state '{0}'")]
    Unsupported(State),
    #[error("no way leads from the state '{from}' to '{to}'")]
    Illegal { from: State, to: State },
    #[error("the device does not go from '{from}' to '{to}', and is in '{now}' now: {source}")]
    Refused { from: State, to: State, now: State, source: io::Error },
    #[error("the device is in '{0}', in which it has no data of its state")]
    NoData(State),
    #[error("data of the device's state: {0}")]
    Data(io::Error),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Stop => "stop",
            Self::Running => "running",
            Self::StopCopy => "stop-copy",
            Self::Resuming => "resuming",
            Self::RunningP2p => "running-p2p",
            Self::PreCopy => "pre-copy",
            Self::PreCopyP2p => "pre-copy-p2p",
        })
    }
}

/// Is there a way from one state to another, for a function that has both? The kernel's table: a stop-copy does not become a pre-copy
/// again, and nobody goes into an error, or out of it.
#[must_use]
pub fn leads(from: State, to: State) -> bool {
    from != State::Error
        && to != State::Error
        && !(from == State::StopCopy && matches!(to, State::PreCopy | State::PreCopyP2p))
}

/// Does its state's data come out of a function in this state?
fn saves(state: State) -> bool {
    matches!(state, State::PreCopy | State::PreCopyP2p | State::StopCopy)
}

struct Now {
    state: State,
    stream: Option<Box<dyn MigrationData>>,
    /// Bytes that are left of what the function had before the stop when it was asked last; `None`: it is asked again.
    left: Option<u64>,
}

impl Now {
    fn new(state: State) -> Self {
        Self { state, stream: None, left: None }
    }
}

/// The states of a function that can migrate.
pub struct Migration {
    device: Arc<dyn DeviceFile>,
    flags: MigrationFlags,
    now: Mutex<Now>,
}

impl Migration {
    /// `None`: it cannot migrate.
    #[must_use]
    pub fn of(device: &Arc<dyn DeviceFile>) -> Option<Self> {
        let flags = device.migration_flags().ok().filter(|f| f.stop_copy)?;
        let state = device.migration_state().ok()?;
        Some(Self { device: device.clone(), flags, now: Mutex::new(Now::new(state)) })
    }
    #[must_use]
    pub fn state(&self) -> State {
        self.now.lock().state
    }
    /// The function was reset: it runs, whatever it did.
    pub fn was_reset(&self) {
        *self.now.lock() = Now::new(State::Running);
    }
    fn has(&self, state: State) -> bool {
        match state {
            State::RunningP2p => self.flags.p2p,
            State::PreCopy => self.flags.pre_copy,
            State::PreCopyP2p => self.flags.pre_copy && self.flags.p2p,
            _ => true,
        }
    }
    /// Changes the state.
    ///
    /// # Errors
    /// [`MigrationError`]; [`Self::state`] tells where it is then. One in an error was reset, and runs, if that was possible.
    pub fn go(&self, to: State) -> Result<(), MigrationError> {
        self.change(&mut self.now.lock(), to)
    }
    fn change(&self, now: &mut Now, to: State) -> Result<(), MigrationError> {
        let from = now.state;
        if !self.has(to) {
            return Err(MigrationError::Unsupported(to));
        }
        if !leads(from, to) {
            return Err(MigrationError::Illegal { from, to });
        }
        if from == to {
            return Ok(());
        }
        match self.device.set_migration_state(to) {
            Ok(stream) => {
                now.state = to;
                // What comes before the stop and what comes after it is one stream.
                if stream.is_some() || !(saves(from) && saves(to)) {
                    (now.stream, now.left) = (stream, None);
                }
                Ok(())
            }
            Err(source) => {
                let reached = self.device.migration_state().unwrap_or(State::Error);
                if reached != from {
                    now.stream = None;
                }
                now.state = reached;
                if reached == State::Error && self.device.reset().is_ok() {
                    now.state = State::Running;
                }
                Err(MigrationError::Refused { from, to, now: now.state, source })
            }
        }
    }

    /// The machine is to be moved: what can be read before the stop will be.
    ///
    /// # Errors
    /// [`MigrationError`]: it runs on.
    pub fn begin(&self) -> Result<(), MigrationError> {
        if self.has(State::PreCopy) { self.go(State::PreCopy) } else { Ok(()) }
    }
    /// Part of its state, at most `most` bytes, while the guest runs; nothing: that was as much as it had when a part was asked for after
    /// the last time that there was nothing. [`Self::save`] gives the rest.
    ///
    /// # Errors
    /// [`MigrationError`].
    pub fn part(&self, most: usize) -> Result<Vec<u8>, MigrationError> {
        let now = &mut *self.now.lock();
        if !matches!(now.state, State::PreCopy | State::PreCopyP2p) {
            return Ok(Vec::new());
        }
        let stream = now.stream.as_mut().ok_or(MigrationError::NoData(now.state))?;
        let left = match now.left.take() {
            Some(left) => left,
            None => {
                let PrecopyInfo { initial, dirty } = stream.precopy_info().map_err(MigrationError::Data)?;
                initial.saturating_add(dirty)
            }
        };
        if left == 0 {
            return Ok(Vec::new());
        }
        let mut data = vec![0; most.clamp(1, CHUNK)];
        let n = match stream.read(&mut data) {
            Ok(n) => n,
            // Nothing at the moment.
            Err(e) if e.raw_os_error() == Some(libc::ENOMSG) => 0,
            Err(e) => return Err(MigrationError::Data(e)),
        };
        data.truncate(n);
        now.left = (n > 0).then_some(left.saturating_sub(n as u64));
        Ok(data)
    }
    /// The move is over, or given up: a function that was not stopped runs on as always.
    ///
    /// # Errors
    /// [`MigrationError`].
    pub fn end(&self) -> Result<(), MigrationError> {
        if matches!(self.state(), State::PreCopy | State::PreCopyP2p) { self.go(State::Running) } else { Ok(()) }
    }
    /// Stops the function, which keeps what it was read of before.
    ///
    /// # Errors
    /// [`MigrationError`].
    fn stop(&self) -> Result<(), MigrationError> {
        match self.state() {
            State::PreCopy | State::PreCopyP2p => self.go(State::StopCopy),
            State::StopCopy | State::Resuming => Ok(()),
            _ => self.go(State::Stop),
        }
    }
    /// Stops the function and reads its state, or what is left of it, to `sink`. It stays stopped; [`Self::go`] lets it run on.
    ///
    /// # Errors
    /// [`MigrationError`]: it is stopped, if it can be, and loses nothing.
    pub fn save(&self, sink: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<(), MigrationError> {
        let mut now = self.now.lock();
        self.change(&mut now, State::StopCopy)?;
        let copied = match now.stream.as_mut() {
            Some(stream) => copy_out(&mut **stream, sink).map_err(MigrationError::Data),
            None => Err(MigrationError::NoData(State::StopCopy)),
        };
        copied.and(self.change(&mut now, State::Stop))
    }
    /// Gives the function a part of a state that was read by [`Self::part`].
    ///
    /// # Errors
    /// [`MigrationError`]: it has no part of that state, as it was reset.
    pub fn take_part(&self, mut data: &[u8]) -> Result<(), MigrationError> {
        let given = self.give(&mut self.now.lock(), &mut |into| {
            let n = data.len().min(into.len());
            into[..n].copy_from_slice(&data[..n]);
            data = &data[n..];
            Ok(n)
        });
        given.inspect_err(|_| self.wipe())
    }
    fn give(
        &self,
        now: &mut Now,
        source: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> Result<(), MigrationError> {
        self.change(now, State::Resuming)?;
        match now.stream.as_mut() {
            Some(stream) => copy_in(&mut **stream, source).map_err(MigrationError::Data),
            None => Err(MigrationError::NoData(State::Resuming)),
        }
    }
    fn wipe(&self) {
        let state = if self.device.reset().is_ok() { State::Running } else { State::Error };
        *self.now.lock() = Now::new(state);
    }
    /// Gives the function a state, or the rest of one, of which `source` has the data; 0 bytes: that was all. It is stopped then.
    ///
    /// # Errors
    /// [`MigrationError`]: it has no part of that state, as it was reset.
    pub fn load(&self, source: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>) -> Result<(), MigrationError> {
        let done = {
            let now = &mut *self.now.lock();
            // At the end of the data the function looks whether it is whole.
            self.give(now, source).and_then(|()| self.change(now, State::Stop))
        };
        done.inspect_err(|_| self.wipe())
    }
}

fn copy_out(stream: &mut dyn MigrationData, sink: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut data = vec![0; CHUNK];
    loop {
        match stream.read(&mut data) {
            Ok(0) => return Ok(()),
            Ok(n) => sink(&data[..n])?,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn copy_in(stream: &mut dyn MigrationData, source: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<()> {
    let mut data = vec![0; CHUNK];
    loop {
        let n = source(&mut data)?;
        if n == 0 {
            return Ok(());
        }
        let mut rest = &data[..n];
        while !rest.is_empty() {
            match stream.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// Functions that may do DMA to each other: none does it to one that is stopped already.
#[derive(Default)]
pub struct Peers(Mutex<Vec<Weak<Migration>>>);

impl Peers {
    /// Another, as long as it lives.
    pub fn add(&self, migration: &Arc<Migration>) {
        let mut all = self.0.lock();
        all.retain(|m| m.strong_count() != 0);
        all.push(Arc::downgrade(migration));
    }
    fn all(&self) -> Vec<Arc<Migration>> {
        self.0.lock().iter().filter_map(Weak::upgrade).collect()
    }
    /// Stops one of them, all of which are to be stopped.
    ///
    /// # Errors
    /// The one's, which does not stop.
    pub fn stop(&self, one: &Migration) -> Result<(), MigrationError> {
        for m in self.all().into_iter().filter(|m| m.flags.p2p) {
            // One that does not is stopped as well as it can be.
            let _ = match m.state() {
                State::Running => m.go(State::RunningP2p),
                State::PreCopy => m.go(State::PreCopyP2p),
                _ => Ok(()),
            };
        }
        one.stop()
    }
    /// Lets one of them run, all of which are to run.
    ///
    /// # Errors
    /// The one's, which does not run.
    pub fn run(&self, one: &Migration) -> Result<(), MigrationError> {
        for m in self.all().into_iter().filter(|m| m.flags.p2p) {
            if matches!(m.state(), State::Stop | State::StopCopy) {
                let _ = m.go(State::RunningP2p);
            }
        }
        one.go(State::Running)
    }
}

#[cfg(test)]
mod tests;
