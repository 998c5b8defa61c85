//! Saved state.

use super::Xive;
use super::end::Queue;
use minicbor::{Decode, Encode};
use rhea_device::LoadError;

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct QueueState {
    #[n(0)]
    number: u32,
    #[n(1)]
    valid: bool,
    #[n(2)]
    always_notify: bool,
    #[n(3)]
    page: u64,
    #[n(4)]
    shift: u32,
    #[n(5)]
    generation: bool,
    #[n(6)]
    index: u32,
    #[n(7)]
    pq: u8,
    #[n(8)]
    escalation: u8,
}

/// Sources that exist, queues that differ from their reset state, OS rings by server.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct XiveState {
    /// Number, bits, assignment.
    #[n(0)]
    sources: Vec<(u32, u32, u64)>,
    #[n(1)]
    queues: Vec<QueueState>,
    /// Server, ring, reporting line.
    #[n(2)]
    contexts: Vec<(u32, u64, u64)>,
}

impl Xive {
    #[must_use]
    pub fn save(&self) -> XiveState {
        let queue = |(n, end): (u32, &super::End)| {
            let q = end.get();
            let Queue { valid, always_notify, page, shift, generation, index, pq, escalation } = q;
            (q != Queue::RESET).then_some(QueueState {
                number: n,
                valid,
                always_notify,
                page,
                shift,
                generation,
                index,
                pq,
                escalation,
            })
        };
        let sources = (0..).zip(&self.sources).filter(|(_, s)| s.exists());
        XiveState {
            sources: sources
                .map(|(n, s)| {
                    let (bits, assignment) = s.raw();
                    (n, bits, assignment)
                })
                .collect(),
            queues: (0..).zip(&self.ends).filter_map(queue).collect(),
            contexts: (0..)
                .zip(&self.contexts)
                .filter_map(|(n, c)| c.as_ref().map(|c| (n, c.raw(), c.reporting())))
                .collect(),
        }
    }
    /// # Errors
    /// Servers or sources that are not there, impossible queues.
    pub fn load(&self, state: XiveState) -> Result<(), LoadError> {
        let XiveState { sources, queues, contexts } = state;
        self.reset(false, false);
        for s in &self.sources {
            s.free();
        }
        for (n, bits, assignment) in sources {
            let s = self.sources.get(n as usize);
            s.ok_or_else(|| LoadError::Mismatch(format!("interrupt source {n:#x}")))?.set_raw(bits, assignment);
        }
        for QueueState { number, valid, always_notify, page, shift, generation, index, pq, escalation } in queues {
            let end = self.ends.get(number as usize);
            let end = end.ok_or_else(|| LoadError::Mismatch(format!("event queue {number}")))?;
            let sound = shift == 0 || super::QUEUE_SIZES.contains(&shift) && index < 1 << (shift - 2);
            if !sound {
                return Err(LoadError::Damaged(format!("event queue {number}")));
            }
            let (pq, escalation) = (pq & 3, escalation & 3);
            end.set(Queue { valid, always_notify, page, shift, generation, index, pq, escalation });
        }
        for (n, ring, line) in contexts {
            let c = self.context(n).ok_or_else(|| LoadError::Mismatch(format!("interrupt server {n}")))?;
            c.set_raw(ring);
            c.set_reporting(line);
            self.drive(c);
        }
        Ok(())
    }
}
