//! PrimeCell real-time clock (PL031, ARM DDI 0224).

use crate::primecell;
use parking_lot::Mutex;
use rhea_accel::IrqLine;
use rhea_clock::{RtcClock, Timer, VirtualClock};
use rhea_device::RegisterRules::{ReadOnly, ReadWrite, WriteOnly};
use rhea_device::{Device, LoadError, Log, RegisterDecl, RegisterMap, Saved, log_guest_error, state as saved};
use rhea_memory::{Access, BusError, MmioDevice};
use std::sync::{Arc, Weak};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reg {
    Dr,
    Mr,
    Lr,
    Cr,
    Imsc,
    Ris,
    Mis,
    Icr,
    Itcr,
    Itip,
    Itop,
    Toffset,
    Tcount,
    Id,
}

const MAP: RegisterMap<Reg> = RegisterMap::new(&[
    RegisterDecl::new(0x00, 4, ReadOnly, Reg::Dr),
    RegisterDecl::new(0x04, 4, ReadWrite, Reg::Mr),
    RegisterDecl::new(0x08, 4, ReadWrite, Reg::Lr),
    RegisterDecl::new(0x0c, 4, ReadWrite, Reg::Cr),
    RegisterDecl::new(0x10, 4, ReadWrite, Reg::Imsc),
    RegisterDecl::new(0x14, 4, ReadOnly, Reg::Ris),
    RegisterDecl::new(0x18, 4, ReadOnly, Reg::Mis),
    RegisterDecl::new(0x1c, 4, WriteOnly, Reg::Icr),
    RegisterDecl::new(0x80, 4, ReadWrite, Reg::Itcr),
    RegisterDecl::new(0x84, 4, ReadOnly, Reg::Itip),
    RegisterDecl::new(0x88, 4, ReadWrite, Reg::Itop),
    RegisterDecl::new(0x8c, 4, ReadOnly, Reg::Toffset),
    RegisterDecl::new(0x90, 4, ReadOnly, Reg::Tcount),
    RegisterDecl::array(0xfe0, 4, ReadOnly, Reg::Id, 8),
]);

#[derive(Clone, Debug, Default, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
struct State {
    /// What the guest's clock is ahead of the board's, in seconds.
    #[n(0)]
    offset: u32,
    #[n(1)]
    mr: u32,
    #[n(2)]
    lr: u32,
    #[n(3)]
    imsc: bool,
    #[n(4)]
    ris: bool,
    #[n(5)]
    itcr: bool,
    #[n(6)]
    itop: bool,
    /// When the counter next equals the match register, in seconds of the board's clock.
    #[n(7)]
    alarm: Option<i64>,
}

impl State {
    fn interrupt(&self) -> bool {
        if self.itcr { self.itop } else { self.ris && self.imsc }
    }
}

/// The clock: a 4 KiB window. It counts from power-on (RTCCR reads as started); a reset of the machine keeps the time.
pub struct Pl031 {
    name: String,
    line: IrqLine,
    rtc: RtcClock,
    timer: Timer,
    log: Log,
    state: Mutex<State>,
}

impl Pl031 {
    /// `rtc` is the wall clock of the machine, `clock` runs the alarm.
    #[must_use]
    pub fn new(name: &str, line: IrqLine, rtc: RtcClock, clock: &Arc<VirtualClock>, log: Log) -> Arc<Self> {
        Arc::new_cyclic(|weak: &Weak<Self>| {
            let fired = weak.clone();
            let timer = clock.timer(move || {
                if let Some(device) = fired.upgrade() {
                    device.alarm();
                }
            });
            Self { name: name.to_owned(), line, rtc, timer, log, state: Mutex::default() }
        })
    }

    fn counter(&self, state: &State) -> u32 {
        (self.rtc.now().0 as u32).wrapping_add(state.offset)
    }
    /// Finds the next match; it raises the interrupt at once if the counter is there already.
    fn set_alarm(&self, state: &mut State) {
        let now = self.rtc.now().0;
        let wait = state.mr.wrapping_sub((now as u32).wrapping_add(state.offset));
        if wait == 0 {
            state.ris = true;
        }
        let wait = if wait == 0 { 1 << 32 } else { i64::from(wait) };
        state.alarm = Some(now.saturating_add(wait));
    }
    fn arm(&self) {
        let alarm = self.state.lock().alarm;
        match alarm {
            Some(seconds) => self.timer.arm(self.rtc.deadline_for(seconds)),
            None => self.timer.cancel(),
        }
    }
    /// The timer fired: perhaps early, if the host's clock was set back.
    fn alarm(&self) {
        {
            let mut state = self.state.lock();
            if state.alarm.is_some_and(|at| at <= self.rtc.now().0) {
                state.ris = true;
                state.alarm = state.alarm.map(|at| at.saturating_add(1 << 32));
            }
        }
        self.arm();
        self.line.settle(|| self.state.lock().interrupt());
    }
}

impl MmioDevice for Pl031 {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        let state = self.state.lock();
        let read = |reg, index| match reg {
            Reg::Dr => self.counter(&state).into(),
            Reg::Mr => state.mr.into(),
            Reg::Lr => state.lr.into(),
            // Started, and it cannot be stopped.
            Reg::Cr => 1,
            Reg::Imsc => state.imsc.into(),
            Reg::Ris => state.ris.into(),
            Reg::Mis => (state.ris && state.imsc).into(),
            Reg::Icr | Reg::Itip => 0,
            Reg::Itcr => state.itcr.into(),
            Reg::Itop => state.interrupt().into(),
            Reg::Toffset => state.offset.into(),
            Reg::Tcount => self.rtc.now().0 as u32 as u64,
            Reg::Id => primecell::id(index, 0x031, 0, 0).into(),
        };
        let missed = |at: u64| log_guest_error!(self.log, &self.name, "read of offset {at:#x}");
        MAP.read(offset, access.size, |hit| Ok(read(hit.id, hit.index)), missed)
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        let (mut timed, mut set) = (false, None);
        let write = |reg, value: u64, mask: u64| {
            let mut state = self.state.lock();
            let word = |old: u32| (u64::from(old) & !mask | value & mask) as u32;
            let bit = |old: bool| word(old.into()) & 1 != 0;
            match reg {
                Reg::Mr => {
                    state.mr = word(state.mr);
                    self.set_alarm(&mut state);
                    timed = true;
                }
                Reg::Lr => {
                    state.lr = word(state.lr);
                    state.offset = state.lr.wrapping_sub(self.rtc.now().0 as u32);
                    // Signed: the time may have been set back.
                    set = Some(i64::from(state.offset as i32));
                    if state.alarm.is_some() {
                        self.set_alarm(&mut state);
                        timed = true;
                    }
                }
                Reg::Imsc => state.imsc = bit(state.imsc),
                Reg::Icr => state.ris &= value & mask & 1 == 0,
                Reg::Itcr => state.itcr = bit(state.itcr),
                Reg::Itop => state.itop = bit(state.itop),
                Reg::Cr | Reg::Dr | Reg::Ris | Reg::Mis | Reg::Itip | Reg::Toffset | Reg::Tcount | Reg::Id => {}
            }
        };
        let mut write = write;
        let result = MAP.write(
            offset,
            access.size,
            value,
            |hit, value, mask| {
                write(hit.id, value, mask);
                Ok(())
            },
            |at| log_guest_error!(self.log, &self.name, "write of offset {at:#x}"),
        );
        if timed {
            self.arm();
        }
        if let Some(offset) = set {
            self.rtc.changed(offset);
        }
        self.line.settle(|| self.state.lock().interrupt());
        result
    }
    fn name(&self) -> &str {
        &self.name
    }
}

impl Device for Pl031 {
    fn name(&self) -> &str {
        &self.name
    }
    fn reset(&self) {
        {
            let mut state = self.state.lock();
            *state = State { offset: state.offset, lr: state.lr, ..State::default() };
        }
        self.timer.cancel();
        self.line.settle(|| self.state.lock().interrupt());
    }
    fn save(&self) -> Saved {
        saved::encode(1, &*self.state.lock())
    }
    fn load(&self, state: &Saved) -> Result<(), LoadError> {
        let new: State = saved::decode(state, 1)?;
        let level = new.interrupt();
        *self.state.lock() = new;
        self.line.import(level);
        self.arm();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhea_clock::{RtcBase, RtcSource};
    use std::time::{Duration, Instant};

    struct Rig {
        rtc: Arc<Pl031>,
        clock: Arc<VirtualClock>,
        line: IrqLine,
    }

    fn rig() -> Rig {
        let (clock, line) = (VirtualClock::new(), IrqLine::unconnected());
        let wall = RtcClock::new(RtcBase::Fixed(1_000_000), RtcSource::Vm, &clock);
        Rig { rtc: Pl031::new("pl031@9010000", line.clone(), wall, &clock, Log::off()), clock, line }
    }

    impl Rig {
        fn rd(&self, offset: u64) -> u64 {
            self.rtc.read(offset, Access::cpu(0, 4)).unwrap()
        }
        fn wr(&self, offset: u64, value: u64) {
            self.rtc.write(offset, value, Access::cpu(0, 4)).unwrap();
        }
        fn wait(&self) -> bool {
            let end = Instant::now() + Duration::from_secs(10);
            while !self.line.level() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(2));
            }
            self.line.level()
        }
    }

    #[test]
    fn time() {
        assert!(MAP.check());
        let r = rig();
        assert_eq!((r.rd(0), r.rd(0xc)), (1_000_000, 1));
        r.clock.set_ns(5_000_000_000);
        assert_eq!(r.rd(0), 1_000_005);
        r.wr(8, 0xffff_ffff);
        assert_eq!((r.rd(0), r.rd(8)), (0xffff_ffff, 0xffff_ffff));
        r.clock.set_ns(6_000_000_000);
        assert_eq!(r.rd(0), 0);
        r.rtc.reset();
        assert_eq!(r.rd(0), 0, "the time outlives a reset");
        let ids: Vec<u64> = (0..8).map(|i| r.rd(0xfe0 + i * 4)).collect();
        assert_eq!(ids, [0x31, 0x10, 0x04, 0, 0x0d, 0xf0, 0x05, 0xb1]);
    }

    #[test]
    fn alarms() {
        let r = rig();
        r.wr(0x10, 1);
        r.wr(4, 1_000_000);
        assert!(r.line.level(), "a match now");
        r.wr(0x1c, 1);
        assert!(!r.line.level());
        r.wr(4, 1_000_001);
        assert_eq!(r.rd(0x14), 0);
        r.clock.set_ns(990_000_000);
        r.clock.start();
        assert!(r.wait());
        assert_eq!((r.rd(0x18), r.rd(0)), (1, 1_000_001));
        r.wr(0x1c, 1);
        // Setting the time brings the match nearer.
        r.wr(4, 2_000_000);
        r.wr(8, 2_000_000);
        assert!(r.line.level());
    }

    #[test]
    fn saves() {
        let r = rig();
        r.wr(0x10, 1);
        r.wr(8, 77);
        r.wr(4, 77);
        let other = rig();
        other.rtc.load(&r.rtc.save()).unwrap();
        assert!(other.line.level());
        assert_eq!(*other.rtc.state.lock(), *r.rtc.state.lock());
    }

    #[test]
    fn garbage() {
        let r = rig();
        r.clock.start();
        let mut random = crate::testing::Random::new(2);
        for _ in 0..50_000 {
            let x = random.next();
            let size = 1u8 << (x >> 60 & 3);
            let offset = if x >> 59 & 1 == 0 { x & 0xff } else { x & 0xfff } & !(u64::from(size) - 1);
            if x >> 40 & 1 == 0 {
                let _ = r.rtc.read(offset, Access::cpu(0, size));
            } else {
                let _ = r.rtc.write(offset, random.next(), Access::cpu(0, size));
            }
        }
        r.clock.stop();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(r.line.level(), r.rtc.state.lock().interrupt());
    }
}
