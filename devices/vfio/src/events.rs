//! The thread that waits for a function's eventfds.

use crate::interrupts::{Event, Source, event};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

/// What the thread is told to end by.
const STOP: u64 = 0;
const VECTORS: u64 = 16;

fn key(source: Source) -> u64 {
    match source {
        Source::Intx => 1,
        Source::Error => 2,
        Source::Request => 3,
        Source::Vector(n) => VECTORS + u64::from(n),
    }
}

fn source(key: u64) -> Option<Source> {
    Some(match key {
        1 => Source::Intx,
        2 => Source::Error,
        3 => Source::Request,
        n => Source::Vector(u32::try_from(n.checked_sub(VECTORS)?).ok()?),
    })
}

/// Eventfds that are waited for. Dropping it ends the thread.
pub struct Events {
    epoll: Arc<OwnedFd>,
    stop: Event,
    thread: Option<JoinHandle<()>>,
}

impl Events {
    /// Calls `signalled` on a thread called `name` for each eventfd that is signalled, and again until it is drained; false: it wants
    /// no more.
    ///
    /// # Errors
    /// The host's.
    pub fn new(name: &str, signalled: impl Fn(Source) -> bool + Send + 'static) -> io::Result<Self> {
        let epoll = Arc::new(epoll::create(CreateFlags::CLOEXEC)?);
        let stop = event()?;
        epoll::add(&epoll, &stop, EventData::new_u64(STOP), EventFlags::IN)?;
        let waiting = epoll.clone();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || wait(&waiting, &signalled))?;
        Ok(Self { epoll, stop, thread: Some(thread) })
    }
    /// # Errors
    /// The host's; the eventfd is watched already.
    pub fn watch(&self, source: Source, event: &Event) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, event.as_fd(), EventData::new_u64(key(source)), EventFlags::IN)?)
    }
    /// A call that has begun is not waited for.
    pub fn unwatch(&self, event: &Event) {
        // One that is not watched is as wanted.
        let _ = epoll::delete(&self.epoll, event.as_fd());
    }
}

fn wait(epoll: &OwnedFd, signalled: &dyn Fn(Source) -> bool) {
    const AT_ONCE: usize = 16;
    loop {
        let mut room = [const { MaybeUninit::<epoll::Event>::uninit() }; AT_ONCE];
        let (events, _) = match epoll::wait(epoll, &mut room, None) {
            Ok(events) => events,
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
        };
        for event in events.iter() {
            let key = event.data.u64();
            if key == STOP || source(key).is_some_and(|source| !signalled(source)) {
                return;
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        // The last user may be the thread itself.
        if let Some(thread) = self.thread.take().filter(|t| t.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}
