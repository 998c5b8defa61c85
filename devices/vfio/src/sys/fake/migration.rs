//! A device that migrates: what it is, is a sequence of bytes, which the kernel's table of states leads in and out.

use super::*;
use MigrationState as State;
use std::sync::Arc;

/// What the sequence begins with: its length without this.
const HEAD: usize = 8;

/// How a device's states are, and its data.
#[derive(Clone, Default)]
pub(crate) struct Movable {
    pub state: Option<State>,
    /// What the device is. What there is more of it than a pre-copy has read, comes after the stop.
    pub content: Arc<Mutex<Vec<u8>>>,
    pub(super) incoming: Arc<Mutex<Vec<u8>>>,
    /// How much a pre-copy may read at the moment.
    pub ready: Arc<Mutex<usize>>,
    /// The change to this state fails, once, and leads to the other.
    pub fail: Option<(State, State)>,
    /// The states it was in.
    pub path: Vec<State>,
}

/// The kernel's table (`vfio_from_fsm_table`): the next state on the way.
fn next(from: State, to: State, flags: MigrationFlags) -> State {
    use State::*;
    let towards = |from| match (from, to) {
        (from, to) if from == to => to,
        (Error, _) | (_, Error) | (StopCopy, PreCopy | PreCopyP2p) => Error,
        (Stop, StopCopy | Resuming) => to,
        (Stop, _) => RunningP2p,
        (StopCopy | Resuming, _) => Stop,
        (Running, PreCopy | PreCopyP2p) => PreCopy,
        (Running, _) => RunningP2p,
        (RunningP2p, Running | PreCopy | PreCopyP2p) => Running,
        (RunningP2p, _) => Stop,
        (PreCopy, PreCopyP2p | StopCopy) => PreCopyP2p,
        (PreCopy, _) => Running,
        (PreCopyP2p, PreCopy | StopCopy) => to,
        (PreCopyP2p, _) => RunningP2p,
    };
    let mut at = towards(from);
    while matches!(at, RunningP2p | PreCopyP2p) && !flags.p2p {
        at = towards(at);
    }
    at
}

impl Movable {
    pub(crate) fn go(&mut self, to: State, flags: MigrationFlags) -> Result<Option<Box<dyn MigrationData>>> {
        let unknown = matches!(to, State::PreCopy | State::PreCopyP2p) && !flags.pre_copy
            || matches!(to, State::RunningP2p | State::PreCopyP2p) && !flags.p2p;
        let Some(mut now) = self.state.filter(|_| !unknown) else { return error(libc::EINVAL) };
        let mut stream: Option<Box<dyn MigrationData>> = None;
        while now != to {
            let then = next(now, to, flags);
            if then == State::Error {
                return error(libc::EINVAL);
            }
            if let Some((_, end)) = self.fail.take_if(|(at, _)| *at == then) {
                self.state = Some(end);
                return error(libc::EIO);
            }
            match (now, then) {
                (State::Running, State::PreCopy) | (State::Stop, State::StopCopy) => {
                    stream = Some(Box::new(Out { of: self.content.clone(), ready: self.ready.clone(), at: 0 }));
                }
                (State::Stop, State::Resuming) => {
                    self.incoming.lock().clear();
                    stream = Some(Box::new(In(self.incoming.clone())));
                }
                (State::Resuming, State::Stop) => {
                    let data = std::mem::take(&mut *self.incoming.lock());
                    let len = data.first_chunk::<HEAD>().map(|head| u64::from_le_bytes(*head) as usize);
                    if !data.is_empty() && len != Some(data.len().wrapping_sub(HEAD)) {
                        self.state = Some(State::Error);
                        return error(libc::EINVAL);
                    }
                    if !data.is_empty() {
                        *self.content.lock() = data;
                    }
                }
                _ => {}
            }
            if then == State::StopCopy {
                *self.ready.lock() = usize::MAX;
            }
            now = then;
            self.state = Some(now);
            self.path.push(now);
        }
        Ok(stream)
    }
}

/// A sequence with its length before it.
pub(crate) fn content(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

struct Out {
    of: Arc<Mutex<Vec<u8>>>,
    ready: Arc<Mutex<usize>>,
    at: usize,
}

impl MigrationData for Out {
    fn read(&mut self, data: &mut [u8]) -> Result<usize> {
        let (of, ready) = (self.of.lock(), *self.ready.lock());
        let left = &of[self.at..ready.clamp(self.at, of.len())];
        if left.is_empty() && ready != usize::MAX {
            return error(libc::ENOMSG);
        }
        // Not all at once.
        let n = left.len().min(data.len()).min(3);
        data[..n].copy_from_slice(&left[..n]);
        self.at += n;
        Ok(n)
    }
    fn write(&mut self, _: &[u8]) -> Result<usize> {
        error(libc::EINVAL)
    }
    fn precopy_info(&self) -> Result<PrecopyInfo> {
        let initial = self.ready.lock().saturating_sub(self.at) as u64;
        Ok(PrecopyInfo { initial, dirty: (self.of.lock().len() - self.at) as u64 - initial })
    }
}

struct In(Arc<Mutex<Vec<u8>>>);

impl MigrationData for In {
    fn read(&mut self, _: &mut [u8]) -> Result<usize> {
        error(libc::EINVAL)
    }
    fn write(&mut self, data: &[u8]) -> Result<usize> {
        let n = data.len().min(5);
        self.0.lock().extend_from_slice(&data[..n]);
        Ok(n)
    }
    fn precopy_info(&self) -> Result<PrecopyInfo> {
        error(libc::EINVAL)
    }
}
