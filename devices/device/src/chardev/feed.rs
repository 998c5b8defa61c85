//! Input on its way to a front end: held while the front end has no room.

use super::{CharEvent, CharFrontend};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;

/// A reader waits when this much is held.
const HIGH: usize = 4096;

#[derive(Default)]
struct State {
    frontend: Option<Arc<dyn CharFrontend>>,
    pending: VecDeque<u8>,
    draining: bool,
    again: bool,
    closed: bool,
    /// The last event of the kind was [`CharEvent::Opened`].
    open: bool,
}

#[derive(Default)]
pub(super) struct Feed {
    state: Mutex<State>,
    room: Condvar,
}

impl Feed {
    pub(super) fn set_frontend(&self, frontend: Arc<dyn CharFrontend>) {
        let open = {
            let mut state = self.state.lock();
            state.frontend = Some(frontend.clone());
            state.open
        };
        // It came too late for that.
        if open {
            frontend.event(CharEvent::Opened);
        }
        self.drain();
    }

    /// Delivers what the front end takes.
    pub(super) fn drain(&self) {
        {
            let mut state = self.state.lock();
            if state.draining {
                state.again = true;
                return;
            }
            state.draining = true;
        }
        loop {
            let frontend = self.state.lock().frontend.clone();
            let room = frontend.as_ref().map_or(0, |f| f.can_receive());
            let chunk: Vec<u8> = {
                let mut state = self.state.lock();
                let n = room.min(state.pending.len());
                let chunk: Vec<u8> = state.pending.drain(..n).collect();
                if chunk.is_empty() && !std::mem::take(&mut state.again) {
                    state.draining = false;
                    self.room.notify_all();
                    return;
                }
                chunk
            };
            if let (Some(frontend), false) = (frontend, chunk.is_empty()) {
                frontend.receive(&chunk);
            }
        }
    }

    /// Adds input and delivers; waits while too much is held.
    pub(super) fn push(&self, data: &[u8]) {
        {
            let mut state = self.state.lock();
            while state.pending.len() >= HIGH && !state.closed {
                self.room.wait(&mut state);
            }
            state.pending.extend(data);
        }
        self.drain();
    }

    /// Adds input and delivers; drops what does not fit.
    pub(super) fn offer(&self, data: &[u8]) {
        {
            let mut state = self.state.lock();
            let room = HIGH.saturating_sub(state.pending.len());
            state.pending.extend(&data[..data.len().min(room)]);
        }
        self.drain();
    }

    pub(super) fn event(&self, event: CharEvent) {
        let frontend = {
            let mut state = self.state.lock();
            match event {
                CharEvent::Opened => state.open = true,
                CharEvent::Closed => state.open = false,
                CharEvent::Break => {}
            }
            state.frontend.clone()
        };
        if let Some(frontend) = frontend {
            frontend.event(event);
        }
    }

    /// Lets a waiting reader go.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.room.notify_all();
    }
}
