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
use std::sync::Arc;
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
        Some(Self { device: device.clone(), flags, now: Mutex::new(Now { state, stream: None }) })
    }
    #[must_use]
    pub fn state(&self) -> State {
        self.now.lock().state
    }
    /// The function was reset: it runs, whatever it did.
    pub fn was_reset(&self) {
        *self.now.lock() = Now { state: State::Running, stream: None };
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
                    now.stream = stream;
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

    /// What is read at most at once before the stop, while the guest runs, to `sink`; what there is still to read. Begins it if need be.
    ///
    /// # Errors
    /// [`MigrationError`]: a function without pre-copy has no such state.
    pub fn precopy(&self, sink: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<PrecopyInfo, MigrationError> {
        let mut now = self.now.lock();
        if !matches!(now.state, State::PreCopy | State::PreCopyP2p) {
            self.change(&mut now, State::PreCopy)?;
        }
        let state = now.state;
        let stream = now.stream.as_mut().ok_or(MigrationError::NoData(state))?;
        let mut data = vec![0; CHUNK];
        match stream.read(&mut data) {
            Ok(n) => sink(&data[..n]).map_err(MigrationError::Data)?,
            // Nothing at the moment.
            Err(e) if e.raw_os_error() == Some(libc::ENOMSG) => {}
            Err(e) => return Err(MigrationError::Data(e)),
        }
        stream.precopy_info().map_err(MigrationError::Data)
    }
    /// Stops the function and reads what is left of its state, to `sink`. It stays stopped; [`Self::go`] lets it run on.
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
    /// Gives the function a state, of which `source` has the data; 0 bytes: that was all. It is stopped then.
    ///
    /// # Errors
    /// [`MigrationError`]: it has no part of that state, as it was reset.
    pub fn load(&self, source: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>) -> Result<(), MigrationError> {
        let mut now = self.now.lock();
        self.change(&mut now, State::Resuming)?;
        let copied = match now.stream.as_mut() {
            Some(stream) => copy_in(&mut **stream, source).map_err(MigrationError::Data),
            None => Err(MigrationError::NoData(State::Resuming)),
        };
        // At the end of the data the function looks whether it is whole.
        let done = copied.and_then(|()| self.change(&mut now, State::Stop));
        if done.is_err() {
            let state = if self.device.reset().is_ok() { State::Running } else { State::Error };
            *now = Now { state, stream: None };
        }
        done
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

/// Stops functions that may do DMA to each other: none does it to one that is stopped already.
///
/// # Errors
/// The first's that does not stop; the others are stopped as far as they can be.
pub fn stop_all(all: &[&Migration]) -> Result<(), MigrationError> {
    in_steps(all, State::Stop)
}

/// Lets functions run that may do DMA to each other.
///
/// # Errors
/// The first's that does not run.
pub fn run_all(all: &[&Migration]) -> Result<(), MigrationError> {
    in_steps(all, State::Running)
}

fn in_steps(all: &[&Migration], to: State) -> Result<(), MigrationError> {
    let step = |to| all.iter().filter(|m| m.has(to)).map(|m| m.go(to)).fold(Ok(()), Result::and);
    let quiet = step(State::RunningP2p);
    step(to).and(quiet)
}

#[cfg(test)]
mod tests;
