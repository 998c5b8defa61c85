//! Requests that fail, and who is told of them.

use parking_lot::Mutex;
use std::io;
use std::sync::Arc;

/// What is done about a request that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureAction {
    /// The guest is told.
    Report,
    /// The guest is told that it was done.
    Ignore,
    /// The machine stops; the request is done again when it goes on.
    Stop,
}

impl FailureAction {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Ignore => "ignore",
            Self::Stop => "stop",
        }
    }
}

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Id of the drive.
    pub drive: String,
    pub node: Option<String>,
    pub write: bool,
    pub action: FailureAction,
    pub no_space: bool,
    /// For people.
    pub reason: String,
}

type Listener = Arc<dyn Fn(&Failure) + Send + Sync>;

/// Who is told of the failures of a machine's drives.
#[derive(Default)]
pub struct Failures(Mutex<Vec<Listener>>);

impl Failures {
    /// Calls `f` with each failure, on the thread that met it; it must not wait for requests.
    pub fn listen(&self, f: impl Fn(&Failure) + Send + Sync + 'static) {
        self.0.lock().push(Arc::new(f));
    }
    pub(crate) fn tell(&self, failure: &Failure) {
        let listeners = self.0.lock().clone();
        listeners.iter().for_each(|f| f(failure));
    }
}

/// Is there no room for more on the storage?
pub(crate) fn no_space(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
