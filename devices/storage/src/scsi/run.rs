//! Runs a command: moves its data between the initiator's memory and the unit or its drive.

use super::{Action, Cdb, LogicalUnit, Sense, status};
pub use crate::guest::Piece;
use crate::guest::{gather, scatter, segments, unpin};
use crate::work::{self, Work};
use rhea_block::{Operation, SECTOR};
use rhea_device::DmaHandle;
use std::sync::Arc;

/// The end of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub status: u8,
    pub sense: Option<Sense>,
    /// Bytes the command had to move, and bytes that were.
    pub wanted: u64,
    pub moved: u64,
}

impl Outcome {
    fn good(wanted: u64, moved: u64) -> Self {
        Self { status: status::GOOD, sense: None, wanted, moved }
    }
    #[must_use]
    pub fn failed(sense: Sense) -> Self {
        Self { status: status::CHECK_CONDITION, sense: Some(sense), wanted: 0, moved: 0 }
    }
}

/// A transfer to or from memory that is not there.
const TRANSFER_ERROR: Sense = Sense { key: 0xb, code: 0x4b, qualifier: 0 };
const INVALID_FIELD: Sense = crate::atapi::sense::INVALID_FIELD;

/// The first `len` bytes of the pieces.
fn cut(pieces: &[Piece], len: u64) -> Vec<Piece> {
    let mut left = len;
    let take = |(at, n): &Piece| {
        let n = (*n).min(left);
        left -= n;
        (n != 0).then_some((*at, n))
    };
    pieces.iter().map_while(take).collect()
}

fn size(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|p| p.1).fold(0, u64::saturating_add)
}

/// Runs a command of `unit`. `data_in` and `data_out` are the initiator's memory, to which `dma` is the way. `done` is called once,
/// perhaps before this returns, perhaps on a thread of the drive.
pub fn run(
    unit: &Arc<dyn LogicalUnit>,
    cdb: Cdb,
    dma: &DmaHandle,
    data_in: &[Piece],
    data_out: &[Piece],
    done: Box<dyn FnOnce(Outcome) + Send>,
) {
    let action = unit.execute(&cdb);
    finish(unit, cdb, dma, data_in, data_out, action, done);
}

fn finish(
    unit: &Arc<dyn LogicalUnit>,
    cdb: Cdb,
    dma: &DmaHandle,
    data_in: &[Piece],
    data_out: &[Piece],
    action: Action,
    done: Box<dyn FnOnce(Outcome) + Send>,
) {
    match action {
        Action::Good => done(Outcome::good(0, 0)),
        Action::Fail(sense) => done(Outcome::failed(sense)),
        Action::In(data) => {
            let wanted = data.len() as u64;
            done(match scatter(dma, data_in, &data) {
                Ok(moved) => Outcome::good(wanted, moved as u64),
                Err(_) => Outcome::failed(TRANSFER_ERROR),
            });
        }
        Action::Out(len) => {
            let mut data = vec![0; len];
            match gather(dma, data_out, &mut data) {
                Ok(got) => {
                    data.truncate(got);
                    let next = match unit.data_out(&cdb, &data) {
                        // A unit asks once.
                        Action::Out(_) => Action::Fail(INVALID_FIELD),
                        Action::Good => return done(Outcome::good(len as u64, got as u64)),
                        other => other,
                    };
                    finish(unit, cdb, dma, data_in, data_out, next, done);
                }
                Err(_) => done(Outcome::failed(TRANSFER_ERROR)),
            }
        }
        Action::Run { drive, work } => submit(unit, cdb, &drive, work, (0, 0), done),
        Action::Transfer { drive, offset, len, write, flush } => {
            let pieces = if write { data_out } else { data_in };
            // As much as the initiator has room for.
            let moved = len.min(size(pieces)) / SECTOR * SECTOR;
            if moved == 0 && len != 0 {
                return done(Outcome::failed(INVALID_FIELD));
            }
            let Some(segments) = segments(dma, &cut(pieces, moved), !write) else {
                return done(Outcome::failed(TRANSFER_ERROR));
            };
            let operation =
                if write { Operation::Write { offset, segments, flush } } else { Operation::Read { offset, segments } };
            submit(unit, cdb, &drive, Work::One(operation), (len, moved), done);
        }
    }
}

fn submit(
    unit: &Arc<dyn LogicalUnit>,
    cdb: Cdb,
    drive: &Arc<rhea_block::Drive>,
    work: Work,
    (wanted, moved): (u64, u64),
    done: Box<dyn FnOnce(Outcome) + Send>,
) {
    let unit = unit.clone();
    let end = move |result: std::io::Result<()>, segments: Vec<rhea_block::Segment>| {
        unpin(&segments);
        done(match unit.finished(&cdb, &result) {
            None => Outcome::good(wanted, moved),
            Some(sense) => Outcome::failed(sense),
        });
    };
    match work::try_now(drive, work) {
        Ok((result, segments)) => end(result, segments),
        Err(work) => work::submit(drive, work, Box::new(end)),
    }
}
