//! INTx: the slow and the fast path, and the way from one to the other.

use super::{Counters, Event, Interrupts, Mode, Source, drain, event, raw};
use crate::sys::{IrqAction, IrqData, irq};
use rhea_accel::{IrqFd, IrqLine};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::sync::Arc;

pub(super) struct Intx {
    trigger: Event,
    fast: Option<Fast>,
}

struct Fast {
    irqfd: Arc<dyn IrqFd>,
    line: IrqLine,
    /// Signalled at the end of an interrupt; unmasks.
    end: Event,
}

impl Intx {
    pub(super) fn is_fast(&self) -> bool {
        self.fast.is_some()
    }
}

impl Interrupts {
    /// none → slow, and on to fast if there is that.
    pub(super) fn enable_intx(&self, mode: &mut Mode) {
        if !self.intx {
            return;
        }
        let asserts = self.look();
        let trigger = match event() {
            Ok(trigger) => trigger,
            Err(e) => return self.failed(irq::INTX, "cannot be enabled", &e),
        };
        if let Err(e) = self.set(irq::INTX, IrqAction::Trigger, IrqData::EventFds(&[raw(&trigger)])) {
            return self.failed(irq::INTX, "cannot be enabled", &e);
        }
        if let Err(e) = self.wait_for(&trigger) {
            self.off(irq::INTX);
            return self.failed(irq::INTX, "cannot be enabled", &e);
        }
        let mut intx = Intx { trigger, fast: None };
        if !self.try_fast(&mut intx) {
            // Not every host's controller makes an interrupt of a level that was up before: the kernel looks when it unmasks.
            if asserts && let Err(e) = self.mask().and_then(|()| self.unmask()) {
                self.failed(irq::INTX, "cannot be unmasked", &e);
            }
            Counters::add(&self.counters.transitions);
            self.around.trace(format_args!("interrupts: INTx slow"));
        }
        *mode = Mode::Intx(intx);
    }
    /// INTx → none.
    pub(super) fn disable_intx(&self, mut intx: Intx) {
        self.leave_fast(&mut intx);
        self.off(irq::INTX);
        self.forget(&intx.trigger);
        self.around.arm(false);
        drop(intx);
        self.entered(&Mode::None);
    }

    /// The slow path waits for the trigger.
    fn wait_for(&self, trigger: &Event) -> io::Result<()> {
        self.state.lock().trigger = Some(trigger.clone());
        let watched = self.around.watch(Source::Intx, trigger);
        if watched.is_err() {
            self.state.lock().trigger = None;
        }
        watched
    }
    /// Nobody takes what the trigger says, nothing is pending, BARs are as they should be without an interrupt.
    fn forget(&self, trigger: &Event) {
        // From here on the thread leaves the eventfd alone.
        self.state.lock().trigger = None;
        self.around.unwatch(trigger);
        self.calm();
    }
    fn calm(&self) {
        {
            let mut state = self.state.lock();
            (state.pending, state.hidden) = (false, false);
        }
        self.settle_pin();
        self.settle_bars();
    }
    fn mask(&self) -> io::Result<()> {
        self.set(irq::INTX, IrqAction::Mask, IrqData::None(1))
    }
    fn unmask(&self) -> io::Result<()> {
        self.set(irq::INTX, IrqAction::Unmask, IrqData::None(1))
    }

    /// slow → fast; a failure takes back what was done, in reverse, and leaves it on the slow path, unmasked.
    pub(super) fn join_fast(&self, intx: &mut Intx) {
        if !self.try_fast(intx) {
            // An interrupt may have ended on the way here: a function that still asserts it makes it anew.
            self.end();
        }
    }
    fn try_fast(&self, intx: &mut Intx) -> bool {
        if intx.is_fast() {
            return true;
        }
        let Some((irqfd, line)) = self.around.fast_line() else { return false };
        match self.attach(&intx.trigger, irqfd, line) {
            Ok(fast) => {
                intx.fast = Some(fast);
                self.around.arm(false);
                Counters::add(&self.counters.transitions);
                Counters::add(&self.counters.joined);
                self.around.trace(format_args!("interrupts: INTx fast"));
                true
            }
            Err(e) => {
                if let Err(e) = self.wait_for(&intx.trigger) {
                    self.failed(irq::INTX, "has no thread that waits for it", &e);
                }
                if let Err(e) = self.unmask() {
                    self.failed(irq::INTX, "cannot be unmasked", &e);
                }
                // What an accelerator cannot do at all is no news.
                if e.kind() != ErrorKind::Unsupported {
                    self.failed(irq::INTX, "takes the slow path", &e);
                }
                false
            }
        }
    }
    fn attach(&self, trigger: &Event, irqfd: Arc<dyn IrqFd>, line: IrqLine) -> io::Result<Fast> {
        self.state.lock().trigger = None;
        self.around.unwatch(trigger);
        let masked = self.mask();
        self.calm();
        masked?;
        let end = event()?;
        irqfd.attach(&line, trigger.as_fd(), Some(end.as_fd()))?;
        let wired = self.set(irq::INTX, IrqAction::Unmask, IrqData::EventFds(&[raw(&end)]));
        if let Err(e) = wired {
            let _ = irqfd.detach(&line, trigger.as_fd());
            return Err(e);
        }
        if let Err(e) = self.unmask() {
            let _ = self.set(irq::INTX, IrqAction::Unmask, IrqData::EventFds(&[None]));
            let _ = irqfd.detach(&line, trigger.as_fd());
            return Err(e);
        }
        Ok(Fast { irqfd, line, end })
    }
    /// fast → slow.
    pub(super) fn leave_fast(&self, intx: &mut Intx) {
        let Some(Fast { irqfd, line, end }) = intx.fast.take() else { return };
        if let Err(e) = self.mask() {
            self.failed(irq::INTX, "cannot be masked", &e);
        }
        self.calm();
        // A controller that is gone has let go of it already.
        let _ = irqfd.detach(&line, intx.trigger.as_fd());
        if let Err(e) = self.set(irq::INTX, IrqAction::Unmask, IrqData::EventFds(&[None])) {
            self.failed(irq::INTX, "has an eventfd that unmasks it still", &e);
        }
        drop(end);
        if let Err(e) = self.wait_for(&intx.trigger) {
            self.failed(irq::INTX, "has no thread that waits for it", &e);
        }
        if let Err(e) = self.unmask() {
            self.failed(irq::INTX, "cannot be unmasked", &e);
        }
        Counters::add(&self.counters.transitions);
        Counters::add(&self.counters.left);
        self.around.trace(format_args!("interrupts: INTx slow"));
    }

    // ---- the slow path ----

    /// The function interrupts; the kernel has masked it.
    pub(super) fn intx_signalled(&self) {
        let by_access = !self.around.tells_end();
        {
            let mut state = self.state.lock();
            if !state.trigger.as_ref().is_some_and(drain) {
                return;
            }
            state.pending = true;
            state.hidden |= by_access;
        }
        Counters::add(&self.counters.intx);
        if by_access {
            // Before the guest knows of the interrupt.
            self.settle_bars();
        }
        self.around.arm(true);
        self.settle_pin();
    }
    /// The interrupt that is pending has come to its end: the line falls, then another one may come. Level-triggered as it is, a
    /// function that still asserts it interrupts again.
    pub fn end(&self) {
        if !std::mem::replace(&mut self.state.lock().pending, false) {
            return;
        }
        Counters::add(&self.counters.ends);
        self.settle_pin();
        let unmasked = {
            let state = self.state.lock();
            // A transition unmasks by itself; a new interrupt has been masked by the kernel.
            if state.trigger.is_none() || state.pending { Ok(()) } else { self.unmask() }
        };
        if let Err(e) = unmasked {
            self.failed(irq::INTX, "cannot be unmasked", &e);
        }
    }
    /// The guest has accessed a BAR: where nothing else tells of it, that is the end of an interrupt, unless the function says that its
    /// cause is still there.
    pub fn accessed(&self) {
        {
            let state = self.state.lock();
            if !state.hidden || !state.pending {
                return;
            }
        }
        if !self.look() {
            self.end();
        }
    }
    /// Is INTx asserted for certain? The bit is in the status register whether INTx is enabled or not.
    fn look(&self) -> bool {
        let asserts = self.around.asserts();
        let mut state = self.state.lock();
        state.says |= !asserts;
        asserts && state.says
    }
    /// The time of [`super::Surroundings::arm`] is over. Of an interrupt that has not ended by then an access is taken for the end,
    /// whatever the controller tells: software may have set it up so that it does not.
    pub fn timeout(&self) {
        let pending = {
            let mut state = self.state.lock();
            state.hidden = state.pending;
            state.pending
        };
        self.settle_bars();
        if pending {
            self.around.arm(true);
        }
    }
    /// Whoever comes last sees what is true at the end.
    fn settle_pin(&self) {
        loop {
            let level = self.state.lock().pending;
            self.around.set_pin(level);
            if self.state.lock().pending == level {
                return;
            }
        }
    }
    fn settle_bars(&self) {
        loop {
            let hidden = self.state.lock().hidden;
            self.around.show_bars(!hidden);
            if self.state.lock().hidden == hidden {
                return;
            }
        }
    }
}
