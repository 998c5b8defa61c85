//! What a command asks of a drive, and how it is handed over.

use parking_lot::Mutex;
use rhea_block::{Drive, Operation, Segment};
use std::io;
use std::sync::Arc;

/// Requests to one drive that end together.
pub enum Work {
    One(Operation),
    /// Requests without memory of the guest; the first error counts.
    Many(Vec<Operation>),
}

type Done = Box<dyn FnOnce(io::Result<()>, Vec<Segment>) + Send>;

/// The memory of an operation that has run.
#[must_use]
pub fn segments_of(operation: Operation) -> Vec<Segment> {
    match operation {
        Operation::Read { segments, .. } | Operation::Write { segments, .. } => segments,
        _ => Vec::new(),
    }
}

struct Join {
    left: usize,
    result: io::Result<()>,
    done: Option<Done>,
}

/// Hands the work to the drive's threads; `done` is called once.
pub fn submit(drive: &Arc<Drive>, work: Work, done: Done) {
    match work {
        Work::One(operation) => drive.submit(operation, done),
        Work::Many(list) if list.is_empty() => done(Ok(()), Vec::new()),
        Work::Many(list) => {
            let join = Arc::new(Mutex::new(Join { left: list.len(), result: Ok(()), done: Some(done) }));
            for operation in list {
                let join = join.clone();
                drive.submit(
                    operation,
                    Box::new(move |result, _| {
                        let last = {
                            let mut j = join.lock();
                            j.left -= 1;
                            if j.result.is_ok() {
                                j.result = result;
                            }
                            let end = j.left == 0;
                            end.then(|| (std::mem::replace(&mut j.result, Ok(())), j.done.take()))
                        };
                        if let Some((result, Some(done))) = last {
                            done(result, Vec::new());
                        }
                    }),
                );
            }
        }
    }
}

/// Runs a small read whose data is at hand; otherwise gives the work back.
///
/// # Errors
/// The work, which is to be submitted.
pub fn try_now(drive: &Drive, work: Work) -> Result<(io::Result<()>, Vec<Segment>), Work> {
    match work {
        Work::One(mut operation) => match drive.try_now(&mut operation) {
            Some(result) => Ok((result, segments_of(operation))),
            None => Err(Work::One(operation)),
        },
        many @ Work::Many(_) => Err(many),
    }
}
