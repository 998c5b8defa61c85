//! Output to a peer that may be slow: a bounded buffer and a thread that writes it.

use parking_lot::{Condvar, Mutex};
use std::io::Write;
use std::sync::Arc;

const LIMIT: usize = 64 << 10;

#[derive(Default)]
struct State {
    data: Vec<u8>,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    more: Condvar,
}

/// Ends its thread when dropped, after what is buffered was written or failed.
pub(super) struct Outbox {
    shared: Arc<Shared>,
}

impl Outbox {
    pub(super) fn new(mut peer: impl Write + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mine = shared.clone();
        std::thread::Builder::new().name("rhea-char-out".to_owned()).spawn(move || {
            loop {
                let data = {
                    let mut state = mine.state.lock();
                    while state.data.is_empty() && !state.ended {
                        mine.more.wait(&mut state);
                    }
                    if state.data.is_empty() {
                        return;
                    }
                    std::mem::take(&mut state.data)
                };
                // A peer that went away takes nothing more; the next one has its own outbox.
                if peer.write_all(&data).and_then(|()| peer.flush()).is_err() {
                    mine.state.lock().ended = true;
                }
            }
        })?;
        Ok(Self { shared })
    }

    pub(super) fn write(&self, data: &[u8]) {
        let mut state = self.shared.state.lock();
        if state.ended {
            return;
        }
        let room = LIMIT.saturating_sub(state.data.len());
        state.data.extend_from_slice(&data[..data.len().min(room)]);
        self.shared.more.notify_one();
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.shared.state.lock().ended = true;
        self.shared.more.notify_one();
    }
}
