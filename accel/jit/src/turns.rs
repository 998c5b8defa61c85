//! Whose turn it is where instructions are counted: one vCPU runs at a time, and the next one is found from what the guest did
//! alone, so that it runs the same each time.

use crate::shared::Shared;
use parking_lot::Mutex;
use rhea_clock::{Counter, VirtualClock};
use std::sync::Arc;

/// Instructions of a turn, if there are other vCPUs.
const TURN: u64 = 100_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Paused, or not yet started.
    Away,
    /// It waits for its turn, or has it.
    Ready,
    /// It waits for an interrupt.
    Asleep,
}

struct State {
    places: Vec<(Arc<Shared>, Place)>,
    /// Number in `places`.
    turn: Option<usize>,
    /// How often it was somebody's after nobody's.
    taken: u64,
}

/// The turns of one machine's vCPUs.
pub struct Turns {
    pub clock: Arc<VirtualClock>,
    pub counter: &'static Counter,
    state: Arc<Mutex<State>>,
}

impl Turns {
    /// `None`: the clock does not count instructions.
    pub fn new(clock: &Arc<VirtualClock>) -> Option<Turns> {
        let counter = clock.counter()?;
        let state = Arc::new(Mutex::new(State { places: Vec::new(), turn: None, taken: 0 }));
        let of_clock = Arc::downgrade(&state);
        clock.on_idle(move || of_clock.upgrade().is_some_and(|state| state.lock().busy()));
        Some(Turns { clock: clock.clone(), counter, state })
    }
    pub fn add(&self, vcpu: &Arc<Shared>) {
        self.state.lock().places.push((vcpu.clone(), Place::Away));
    }
    /// Is it the turn of this vCPU?
    pub fn has(&self, index: u32) -> bool {
        let state = self.state.lock();
        state.turn.is_some_and(|n| state.places[n].0.index == index)
    }
    /// This vCPU wants to run: true if it may, else it waits until [`Self::has`] says so. Asked for already when the vCPU is resumed, so
    /// that it does not depend on threads who is the first.
    pub fn ask(&self, index: u32) -> bool {
        let (taken, most) = {
            let mut state = self.state.lock();
            let Some(n) = state.number(index) else { return true };
            state.places[n].1 = Place::Ready;
            match state.turn {
                Some(turn) => return turn == n,
                None => state.turn = Some(n),
            }
            state.taken += 1;
            (state.taken, state.most())
        };
        self.clock.end_idle(taken);
        self.clock.begin(most);
        true
    }
    /// This vCPU was asked for while it waited for an interrupt, and is about to look at why: it takes part again, whether or not it has
    /// come to [`Self::ask`] when another's turn ends.
    pub fn wake(&self, index: u32) {
        let mut state = self.state.lock();
        if let Some(n) = state.number(index)
            && state.places[n].1 == Place::Asleep
        {
            state.places[n].1 = Place::Ready;
        }
    }
    /// This vCPU used up what it was allowed.
    pub fn spent(&self, index: u32) {
        self.clock.spent();
        self.pass(index, Place::Ready);
    }
    /// This vCPU waits for an interrupt.
    pub fn sleep(&self, index: u32) {
        self.pass(index, Place::Asleep);
    }
    /// This vCPU does not take part for a while.
    pub fn leave(&self, index: u32) {
        self.pass(index, Place::Away);
    }
    /// The next vCPU's turn, if it was this one's.
    fn pass(&self, index: u32, place: Place) {
        let (next, taken, most) = {
            let mut state = self.state.lock();
            let Some(n) = state.number(index) else { return };
            state.places[n].1 = place;
            if state.turn != Some(n) {
                return;
            }
            let count = state.places.len();
            let next = (1..=count).map(|k| (n + k) % count).find(|&k| match &state.places[k] {
                (_, Place::Ready) => true,
                (shared, Place::Asleep) => shared.asked(),
                (_, Place::Away) => false,
            });
            state.turn = next;
            (next.map(|k| state.places[k].0.clone()), state.taken, state.most())
        };
        match next {
            Some(next) => {
                self.clock.begin(most);
                if next.index != index {
                    next.control.wake();
                }
            }
            None => self.clock.begin_idle(taken),
        }
    }
}

impl State {
    fn number(&self, index: u32) -> Option<usize> {
        self.places.iter().position(|(shared, _)| shared.index == index)
    }
    /// Does a vCPU run, or is one about to that waited for an interrupt?
    fn busy(&self) -> bool {
        let about_to = |(shared, place): &(Arc<Shared>, Place)| match place {
            Place::Ready => true,
            Place::Asleep => shared.interrupted(),
            Place::Away => false,
        };
        self.turn.is_some() || self.places.iter().any(about_to)
    }
    /// Instructions of a turn.
    fn most(&self) -> u64 {
        if self.places.len() > 1 { TURN } else { u64::MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhea_clock::Counting;
    use rhea_ir::env::EnvHeader;
    use rhea_ir::guest::request;

    /// A vCPU that has seen why it was woken, and has not asked for its turn yet, is not passed over: that would depend on threads.
    #[test]
    fn who_is_woken_takes_part_at_once() {
        let turns =
            Turns::new(&VirtualClock::counted(Counting { shift: Some(1), sleep: false, align: false })).unwrap();
        let headers = [EnvHeader::default(), EnvHeader::default()];
        let vcpus = [0, 1].map(|n| Arc::new(Shared::new(n, &headers[n as usize])));
        vcpus.iter().for_each(|v| turns.add(v));
        assert!(turns.ask(0) && !turns.ask(1));
        turns.spent(0);
        assert!(turns.has(1));
        turns.sleep(1);
        assert!(turns.has(0));
        turns.spent(0);
        assert!(turns.has(0), "the other one sleeps");
        // It is asked for; its thread looks at that, and only then asks for its turn.
        vcpus[1].request(request::INTERRUPT);
        turns.wake(1);
        vcpus[1].word().clear_all();
        turns.spent(0);
        assert!(turns.has(1) && turns.ask(1));
        turns.leave(1);
        assert!(turns.has(0));
        // Who does not take part is not woken.
        turns.wake(1);
        turns.spent(0);
        assert!(turns.has(0));
        turns.leave(0);
    }
}
