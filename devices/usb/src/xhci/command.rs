//! The command ring (xHCI 4.6).

use super::Core;
use super::slot::{
    CONTEXT, Context, DEFAULT_ENDPOINT, ENDPOINTS, Endpoint, Slot, endpoint, kind as endpoint_kind, state,
};
use super::trb::{self, Gap, Ring, Trb, code, kind};
use rhea_device::{DmaHandle, log_unimp};
use rhea_memory::BusError;

/// Commands in one go.
const BUDGET: u32 = 1024;

/// What a command comes to: the completion code, or why it could not even be tried.
type Result<T> = std::result::Result<T, Failure>;

enum Failure {
    Code(u8),
    /// A context is not in memory.
    Memory,
}

impl From<BusError> for Failure {
    fn from(_: BusError) -> Self {
        Self::Memory
    }
}

fn fail<T>(code: u8) -> Result<T> {
    Err(Failure::Code(code))
}

/// The endpoint must be at rest before the command runs.
pub fn touches(trb: &Trb, slot: usize, dci: usize) -> bool {
    trb.slot() == slot
        && match trb.kind() {
            kind::STOP_ENDPOINT | kind::RESET_ENDPOINT | kind::SET_DEQUEUE => trb.endpoint() == dci,
            kind::DISABLE_SLOT | kind::RESET_DEVICE | kind::CONFIGURE_ENDPOINT | kind::ADDRESS_DEVICE => true,
            _ => false,
        }
}

/// The type of an endpoint goes with its direction; only the default endpoint is of control.
fn fits(dci: usize, kind: u8) -> bool {
    match kind {
        1..=3 => dci.is_multiple_of(2),
        5..=7 => dci % 2 == 1,
        _ => false,
    }
}

impl Core {
    /// The doorbell of the command ring.
    pub(super) fn ring_for_commands(&mut self, dma: &DmaHandle) {
        if dma.enabled() && std::mem::take(&mut self.commands_untouched) && !self.commands.cycle {
            // Firmware exists that writes back the cycle state it has read, which is 0 always (5.4.5), and gives its commands a 1.
            // Who rings for the first time has put a command there, so that its cycle bit is the one that counts.
            self.commands.cycle = Trb::read(dma, self.commands.at).is_ok_and(|first| first.has(trb::CYCLE));
        }
        self.commands_run = true;
        self.run_commands(dma);
    }
    /// Runs what is in the command ring.
    pub(super) fn run_commands(&mut self, dma: &DmaHandle) {
        for _ in 0..BUDGET {
            if !self.commands_run || !self.running() || !dma.enabled() || self.interrupters[0].crowded() {
                return;
            }
            let (at, trb) = match self.pending.take() {
                Some(waited) => waited,
                None => match self.commands.next(dma) {
                    Ok(next) => next,
                    Err(Gap::Empty) => return,
                    Err(Gap::Memory | Gap::Loop) => return self.fail("the command ring is not in memory"),
                },
            };
            if self.is_busy(&trb) {
                self.pending = Some((at, trb));
                return;
            }
            let (code, slot) = match self.command(dma, &trb) {
                Ok(slot) => (code::SUCCESS, slot),
                Err(Failure::Code(code)) => (code, trb.slot()),
                Err(Failure::Memory) => {
                    self.completed(at, code::PARAMETER, trb.slot(), kind::COMMAND_COMPLETION, 0);
                    return self.fail("a context is not in memory");
                }
            };
            let (event, parameter) = match trb.kind() {
                kind::NEC_GET_FIRMWARE if code == code::SUCCESS => (kind::NEC_COMPLETION, 0x3025),
                _ => (kind::COMMAND_COMPLETION, 0),
            };
            self.completed(at, code, slot, event, parameter);
            // Endpoints that had to wait for it.
            self.look_at_slot(trb.slot());
            if std::mem::take(&mut self.commands_stop) {
                return self.stop_commands();
            }
        }
        self.after.timer = 0;
    }
    /// A command that waited for transfers may run now.
    pub(super) fn retry_commands(&mut self, dma: &DmaHandle) {
        if self.pending.is_some() {
            self.run_commands(dma);
        }
    }
    fn is_busy(&self, trb: &Trb) -> bool {
        let Some(s) = self.slots.get(trb.slot()) else { return false };
        s.endpoints.iter().enumerate().any(|(dci, e)| e.flight.is_some() && touches(trb, trb.slot(), dci))
    }
    fn completed(&mut self, at: u64, code: u8, slot: usize, kind: u8, parameter: u32) {
        let status = u32::from(code) << 24 | parameter;
        let control = (slot as u32) << 24 | u32::from(kind) << 10;
        self.post(0, Trb { parameter: at, status, control }, true);
    }
    /// Stop or abort (4.6.1.2): no command takes time but those that wait for transfers, after which it stops.
    pub(super) fn stop_commands(&mut self) {
        if self.pending.is_some() {
            self.commands_stop = true;
            return;
        }
        self.commands_run = false;
        self.completed(self.commands.at, code::COMMAND_RING_STOPPED, 0, kind::COMMAND_COMPLETION, 0);
    }

    /// The slot that a command names.
    fn slot(&mut self, trb: &Trb) -> Result<&mut Slot> {
        let slot = self.slots.get_mut(trb.slot()).filter(|s| s.enabled && trb.slot() > 0);
        slot.ok_or(Failure::Code(code::SLOT_NOT_ENABLED))
    }
    fn endpoint(&mut self, trb: &Trb) -> Result<&mut Endpoint> {
        let dci = trb.endpoint();
        let slot = self.slot(trb)?;
        match slot.endpoints.get_mut(dci) {
            _ if dci < DEFAULT_ENDPOINT => fail(code::TRB),
            Some(e) if e.state != endpoint::DISABLED => Ok(e),
            _ => fail(code::ENDPOINT_NOT_ENABLED),
        }
    }
    /// Runs a command; the slot for its event.
    fn command(&mut self, dma: &DmaHandle, trb: &Trb) -> Result<usize> {
        match trb.kind() {
            kind::ENABLE_SLOT => {
                let most = (self.config & 0xff) as usize;
                let free = self.slots.iter().enumerate().skip(1).take(most).find(|(_, s)| !s.enabled);
                let Some((n, _)) = free else {
                    self.completed_without_slot();
                    return fail(code::NO_SLOTS);
                };
                self.slots[n] = Slot { enabled: true, ..Slot::default() };
                return Ok(n);
            }
            kind::DISABLE_SLOT => *self.slot(trb)? = Slot::default(),
            kind::ADDRESS_DEVICE => self.address(dma, trb)?,
            kind::CONFIGURE_ENDPOINT => self.configure(dma, trb)?,
            kind::EVALUATE_CONTEXT => self.evaluate(dma, trb)?,
            kind::RESET_ENDPOINT => {
                let e = self.endpoint(trb)?;
                if e.state != endpoint::HALTED {
                    return fail(code::CONTEXT_STATE);
                }
                e.state = endpoint::STOPPED;
                self.show_endpoint(dma, trb.slot(), trb.endpoint());
            }
            kind::STOP_ENDPOINT => {
                let e = self.endpoint(trb)?;
                if e.state != endpoint::RUNNING {
                    return fail(code::CONTEXT_STATE);
                }
                e.state = endpoint::STOPPED;
                self.tell_stopped(dma, trb.slot(), trb.endpoint());
                self.show_endpoint(dma, trb.slot(), trb.endpoint());
            }
            kind::SET_DEQUEUE => {
                let e = self.endpoint(trb)?;
                if !matches!(e.state, endpoint::STOPPED | endpoint::ERROR) {
                    return fail(code::CONTEXT_STATE);
                }
                // There are no streams.
                if trb.status >> 16 != 0 {
                    return fail(code::TRB);
                }
                e.state = endpoint::STOPPED;
                e.ring = Ring::of_pointer(trb.parameter);
                e.control = None;
                self.show_endpoint(dma, trb.slot(), trb.endpoint());
            }
            kind::RESET_DEVICE => self.reset_device(dma, trb)?,
            kind::GET_PORT_BANDWIDTH => self.bandwidth(dma, trb)?,
            kind::NO_OP_COMMAND => return Ok(0),
            kind::NEC_GET_FIRMWARE if self.nec => return Ok(0),
            other => {
                log_unimp!(self.log, &self.name, "command {other}");
                return fail(code::TRB);
            }
        }
        Ok(trb.slot())
    }
    fn completed_without_slot(&self) {
        log_unimp!(self.log, &self.name, "more devices than there are slots");
    }
    /// The input context (6.2.5): which contexts to drop and to add, and where it is.
    fn input(&self, dma: &DmaHandle, trb: &Trb) -> Result<(u32, u32, u64)> {
        let at = trb.parameter & !15;
        let control = Context::read(dma, at)?;
        Ok((control.0[0], control.0[1], at))
    }
    fn input_context(dma: &DmaHandle, at: u64, index: usize) -> Result<Context> {
        Ok(Context::read(dma, at.wrapping_add(CONTEXT * (index as u64 + 1)))?)
    }
    fn place(base: u64, index: usize) -> u64 {
        base.wrapping_add(CONTEXT * index as u64)
    }
    /// 4.6.5
    fn address(&mut self, dma: &DmaHandle, trb: &Trb) -> Result<()> {
        let slot = trb.slot();
        let unaddressed = trb.has(trb::VARIANT);
        let old = self.slot(trb)?.state;
        if !(old == state::ENABLED || old == state::DEFAULT && !unaddressed) {
            return fail(code::CONTEXT_STATE);
        }
        let (drop, add, at) = self.input(dma, trb)?;
        if drop != 0 || add & 3 != 3 {
            return fail(code::TRB);
        }
        let mut shown = Self::input_context(dma, at, 0)?;
        let mut first = Self::input_context(dma, at, DEFAULT_ENDPOINT)?;
        let (port, route) = (self.meant_port(shown.root_port()), shown.route());
        let working = self.ports.get(usize::from(port).wrapping_sub(1)).is_some_and(|p| p.enabled());
        let device = self.places.iter().position(|p| p.port == port && p.route == route);
        if !working || device.is_none() {
            return fail(code::TRANSACTION);
        }
        let other = self.slots.iter().enumerate().any(|(n, s)| n != slot && s.enabled && s.device == device);
        if other || first.endpoint_kind() != endpoint_kind::CONTROL || first.max_packet() == 0 {
            return fail(code::PARAMETER);
        }
        let mut pointer = [0; 8];
        dma.read_ram(self.contexts.wrapping_add(8 * slot as u64), &mut pointer)?;
        let context = u64::from_le_bytes(pointer) & !63;
        let ring = Ring::of_pointer(first.dequeue());
        let new = if unaddressed { state::DEFAULT } else { state::ADDRESSED };
        shown.set_slot_state(new, if unaddressed { 0 } else { slot as u8 });
        first.set_endpoint(endpoint::RUNNING, ring);
        shown.write(dma, context)?;
        first.write(dma, Self::place(context, DEFAULT_ENDPOINT))?;
        let s = self.slot(trb)?;
        *s = Slot { enabled: true, state: new, context, port, route, device, ..Slot::default() };
        s.endpoints[DEFAULT_ENDPOINT] =
            Endpoint { state: endpoint::RUNNING, kind: endpoint_kind::CONTROL, ring, ..Endpoint::default() };
        Ok(())
    }
    /// 4.6.6
    fn configure(&mut self, dma: &DmaHandle, trb: &Trb) -> Result<()> {
        let deconfigure = trb.has(trb::VARIANT);
        let s = self.slot(trb)?;
        if s.state < state::ADDRESSED {
            return fail(code::CONTEXT_STATE);
        }
        let context = s.context;
        let (drop, add, at) = if deconfigure { (!3, 1, 0) } else { self.input(dma, trb)? };
        if drop & 3 != 0 || add & 2 != 0 {
            return fail(code::TRB);
        }
        // Everything is looked at before anything changes.
        let mut new = Vec::new();
        for dci in (2..ENDPOINTS).filter(|n| !deconfigure && add >> n & 1 != 0) {
            let c = Self::input_context(dma, at, dci)?;
            if !fits(dci, c.endpoint_kind()) || c.streams() != 0 || c.max_packet() == 0 {
                return fail(code::PARAMETER);
            }
            let is = self.slot(trb)?.endpoints[dci].state;
            if is != endpoint::DISABLED && drop >> dci & 1 == 0 {
                return fail(code::CONTEXT_STATE);
            }
            new.push((dci, c));
        }
        let asked = if deconfigure { None } else { Some(Self::input_context(dma, at, 0)?) };
        for dci in (2..ENDPOINTS).filter(|n| drop >> n & 1 != 0) {
            self.slot(trb)?.endpoints[dci] = Endpoint::default();
            let place = Self::place(context, dci);
            let mut c = Context::read(dma, place)?;
            c.set_endpoint(endpoint::DISABLED, Ring::default());
            c.write(dma, place)?;
        }
        for (dci, mut c) in new {
            let ring = Ring::of_pointer(c.dequeue());
            c.set_endpoint(endpoint::RUNNING, ring);
            c.write(dma, Self::place(context, dci))?;
            let kind = c.endpoint_kind();
            self.slot(trb)?.endpoints[dci] = Endpoint { state: endpoint::RUNNING, kind, ring, ..Endpoint::default() };
        }
        let s = self.slot(trb)?;
        let last = (2..ENDPOINTS).rev().find(|n| s.endpoints[*n].state != endpoint::DISABLED);
        s.state = if last.is_some() { state::CONFIGURED } else { state::ADDRESSED };
        let state = s.state;
        let mut shown = Context::read(dma, context)?;
        if let Some(asked) = asked.filter(|_| add & 1 != 0) {
            shown.take_hub(&asked);
            shown.set_entries(asked.entries());
        }
        if deconfigure || shown.entries() == 0 {
            shown.set_entries(last.unwrap_or(DEFAULT_ENDPOINT) as u32);
        }
        shown.set_slot_state(state, trb.slot() as u8);
        Ok(shown.write(dma, context)?)
    }
    /// 4.6.7
    fn evaluate(&mut self, dma: &DmaHandle, trb: &Trb) -> Result<()> {
        let s = self.slot(trb)?;
        if s.state < state::DEFAULT {
            return fail(code::CONTEXT_STATE);
        }
        let context = s.context;
        let (drop, add, at) = self.input(dma, trb)?;
        if drop != 0 {
            return fail(code::TRB);
        }
        if add & 1 != 0 {
            let asked = Self::input_context(dma, at, 0)?;
            let mut shown = Context::read(dma, context)?;
            shown.take_evaluated(&asked);
            shown.write(dma, context)?;
        }
        if add & 2 != 0 {
            let asked = Self::input_context(dma, at, DEFAULT_ENDPOINT)?;
            let place = Self::place(context, DEFAULT_ENDPOINT);
            let mut shown = Context::read(dma, place)?;
            shown.take_max_packet(&asked);
            shown.write(dma, place)?;
        }
        Ok(())
    }
    /// 4.6.11
    fn reset_device(&mut self, dma: &DmaHandle, trb: &Trb) -> Result<()> {
        let s = self.slot(trb)?;
        if s.state < state::ADDRESSED {
            return fail(code::CONTEXT_STATE);
        }
        s.state = state::DEFAULT;
        let context = s.context;
        for dci in 2..ENDPOINTS {
            let e = &mut self.slot(trb)?.endpoints[dci];
            if e.state != endpoint::DISABLED {
                *e = Endpoint::default();
                let place = Self::place(context, dci);
                let mut c = Context::read(dma, place)?;
                c.set_endpoint(endpoint::DISABLED, Ring::default());
                c.write(dma, place)?;
            }
        }
        let mut shown = Context::read(dma, context)?;
        shown.set_entries(1);
        shown.set_slot_state(state::DEFAULT, 0);
        Ok(shown.write(dma, context)?)
    }
    /// Port bandwidth context (6.2.6): the share that is free, in percent.
    fn bandwidth(&mut self, dma: &DmaHandle, trb: &Trb) -> Result<()> {
        let mut shares = vec![0; (self.ports.len() + 1).next_multiple_of(8)];
        shares[1..=self.ports.len()].fill(if trb.control >> 16 & 15 == 3 { 80 } else { 90 });
        Ok(dma.write_ram(trb.parameter & !15, &shares)?)
    }

    /// Writes an endpoint's state and place to its context.
    pub(super) fn show_endpoint(&mut self, dma: &DmaHandle, slot: usize, dci: usize) {
        let Some(s) = self.slots.get(slot) else { return };
        let Some(e) = s.endpoints.get(dci) else { return };
        let place = Self::place(s.context, dci);
        let shown = Context::read(dma, place).and_then(|mut c| {
            c.set_endpoint(e.state, e.ring);
            c.write(dma, place)
        });
        if shown.is_err() {
            self.fail("a context is not in memory");
        }
    }
}
