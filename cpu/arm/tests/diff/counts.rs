//! Instructions are counted one by one, and a vCPU stops where it is told to, whatever runs it.

use crate::board::{Board, Then};
use parking_lot::Mutex;
use rhea_clock::{Counter, Counting, VirtualClock};
use rhea_diff::Engine;
use rhea_ir::guest::Guest;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const CODE: u64 = 0x1000;
const DATA: u64 = 0x9000;
const ROUNDS: u64 = 3000;
/// svc #0; movz x1, #ROUNDS; then a loop of seven with memory accesses, a branch that is taken every second time, and two blocks; svc #0.
const PROGRAM: [u32; 11] = [
    0xd400_0001,
    0xd280_0001 | (ROUNDS as u32) << 5,
    0xf940_0002, // ldr x2, [x0]
    0x9100_0442, // add x2, x2, #1
    0xf900_0002, // str x2, [x0]
    0x3600_0042, // tbz w2, #0, over the next
    0xd503_201f, // nop
    0xd100_0421, // sub x1, x1, #1
    0xb5ff_ff41, // cbnz x1, to the load
    0xd503_201f, // nop
    0xd400_0001, // svc #0
];
/// From the first exception's hypervisor call to that of the second: the program's and those of the vectors.
const EXPECTED: u64 = 1 + 1 + ROUNDS * 6 + ROUNDS / 2 + 2 + 3;

fn executed(counter: &Counter) -> u64 {
    counter.executed.load(Ordering::SeqCst)
}

#[test]
fn instructions_are_counted_and_stopped_at() {
    for engine in Engine::ALL {
        let clock = VirtualClock::counted(Counting { shift: Some(0), sleep: true, align: false });
        let counter = clock.counter().expect("it counts");
        clock.start();
        let mut options = engine.options();
        options.counting = Some(clock.clone());
        let board = Board::with(&crate::check::config(), options);
        board.write(CODE, &PROGRAM.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<_>>());
        let fired: Arc<Mutex<Vec<u64>>> = Arc::default();
        let told = fired.clone();
        let timer = clock.timer(move || told.lock().push(executed(counter)));
        let timer = Arc::new(timer);
        for run in 0..engine.runs() {
            let wait = 777 + u64::from(run);
            let counts: Arc<Mutex<Vec<u64>>> = Arc::default();
            let (seen, timer, clock) = (counts.clone(), timer.clone(), clock.clone());
            board.run(
                CODE,
                |state| state.x[0] = DATA,
                move |exception| {
                    assert!(exception.cpu.header().counter.is_some());
                    let mut seen = seen.lock();
                    seen.push(executed(counter));
                    if seen.len() > 1 {
                        return Then::Stop;
                    }
                    timer.arm(clock.now_ns() + wait);
                    Then::Return
                },
            );
            let [from, to] = counts.lock()[..] else { panic!("not two exceptions") };
            assert_eq!(to - from, EXPECTED, "{engine:?}");
            assert_eq!(std::mem::take(&mut *fired.lock()), [from + wait], "{engine:?}");
        }
    }
}
