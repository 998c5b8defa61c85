//! A session: what goes out to a peer, and what the peer handed over.

use crate::Error;
use crate::transport::Stream;
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Replies wait while this many bytes are unread; a single one may be longer.
const REPLIES: usize = 64 << 10;
/// A peer that leaves this many bytes unread is given up: events are never held back, and never lost in silence.
const LIMIT: usize = 8 << 20;

#[derive(Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Taken from the queue, not written yet.
    writing: bool,
    closed: bool,
}

/// What goes out to a peer. Whoever sends an event never waits.
#[derive(Default)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// Events are sent only once the peer has negotiated.
    pub(crate) negotiated: AtomicBool,
    /// To end the session with.
    pub(crate) peer: OnceLock<Stream>,
}

impl Outbox {
    pub(crate) fn reply(&self, line: &[u8]) {
        let mut queue = self.queue.lock();
        while queue.bytes > REPLIES && !queue.closed {
            self.changed.wait(&mut queue);
        }
        self.put(&mut queue, line);
    }
    pub(crate) fn event(&self, line: &[u8]) {
        if !self.negotiated.load(Ordering::Relaxed) {
            return;
        }
        let mut queue = self.queue.lock();
        if queue.bytes + line.len() > LIMIT && !queue.closed {
            eprintln!("rhea: a monitor's peer does not read: its session is ended");
            queue.closed = true;
            queue.lines.clear();
            if let Some(peer) = self.peer.get() {
                peer.end();
            }
        }
        self.put(&mut queue, line);
    }
    fn put(&self, queue: &mut Queue, line: &[u8]) {
        if !queue.closed {
            queue.bytes += line.len();
            queue.lines.push_back(line.to_vec());
        }
        self.changed.notify_all();
    }
    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        self.changed.notify_all();
    }
    pub(crate) fn closed(&self) -> bool {
        self.queue.lock().closed
    }
    /// Writes what comes until the session is closed, and what is there then.
    pub(crate) fn write_to(&self, peer: &mut impl Write) {
        loop {
            let line = {
                let mut queue = self.queue.lock();
                queue.writing = false;
                self.changed.notify_all();
                while queue.lines.is_empty() && !queue.closed {
                    self.changed.wait(&mut queue);
                }
                let Some(line) = queue.lines.pop_front() else { return };
                queue.bytes -= line.len().min(queue.bytes);
                queue.writing = true;
                line
            };
            if peer.write_all(&line).and_then(|()| peer.flush()).is_err() {
                let mut queue = self.queue.lock();
                queue.closed = true;
                queue.lines.clear();
            }
        }
    }
    pub(crate) fn wait_empty(&self, end: Instant) {
        let mut queue = self.queue.lock();
        while (queue.writing || !queue.lines.is_empty()) && !queue.closed {
            if self.changed.wait_until(&mut queue, end).timed_out() {
                return;
            }
        }
    }
}

/// Descriptors that a peer handed over under names, for commands that take one.
#[derive(Default)]
pub struct Fds(Mutex<BTreeMap<String, OwnedFd>>);

impl Fds {
    /// Keeps a descriptor; one of the same name is closed.
    pub fn put(&self, name: &str, fd: OwnedFd) {
        self.0.lock().insert(name.to_owned(), fd);
    }
    /// Gives a descriptor out.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn take(&self, name: &str) -> Result<OwnedFd, Error> {
        let fd = self.0.lock().remove(name);
        fd.ok_or_else(|| Error::new(format!("File descriptor named '{name}' not found")))
    }
}
