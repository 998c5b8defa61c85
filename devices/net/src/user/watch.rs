//! A host socket in a poller, with level-triggered interest.
#![expect(unsafe_code, reason = "a poller does not keep its sources alive")]

use polling::{Event, PollMode, Poller};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

/// Owns a socket and its registration.
pub(super) struct Watch<S: AsFd + AsRawFd> {
    pub socket: S,
    poller: Arc<Poller>,
    key: usize,
    interest: (bool, bool),
}

impl<S: AsFd + AsRawFd> Watch<S> {
    pub(super) fn new(socket: S, poller: Arc<Poller>, key: usize) -> Self {
        Self { socket, poller, key, interest: (false, false) }
    }
    /// Waits for readable, writable. Without either the socket leaves the poller, so that a hang-up does not wake it for ever.
    pub(super) fn set(&mut self, readable: bool, writable: bool) -> io::Result<()> {
        let wanted = (readable, writable);
        if wanted == self.interest {
            return Ok(());
        }
        let event = Event::new(self.key, readable, writable);
        match (self.interest, wanted) {
            (_, (false, false)) => self.poller.delete(self.socket.as_fd())?,
            // SAFETY: the socket lives as long as this value, which removes it from the poller when dropped.
            ((false, false), _) => unsafe {
                self.poller.add_with_mode(self.socket.as_raw_fd(), event, PollMode::Level)?
            },
            _ => self.poller.modify_with_mode(self.socket.as_fd(), event, PollMode::Level)?,
        }
        self.interest = wanted;
        Ok(())
    }
}

impl<S: AsFd + AsRawFd> Drop for Watch<S> {
    fn drop(&mut self) {
        if self.interest != (false, false) {
            let _ = self.poller.delete(self.socket.as_fd());
        }
    }
}
