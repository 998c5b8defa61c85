//! Transfer rings: work items are taken from them, given to devices, and answered with events (xHCI 4.10, 4.11).

use super::slot::{Endpoint, Stages, endpoint, kind as endpoint_kind};
use super::trb::{self, Gap, Ring, Trb, code, kind};
use super::{Controller, Core};
use crate::{Answer, Buffer, Setup, Stall, Transfer};
use rhea_device::{DmaHandle, log_guest_error};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// TRBs and bytes of one transfer descriptor.
const MOST_TRBS: usize = 4096;
const MOST_BYTES: u64 = 64 << 20;
/// What one call does before it lets a timer go on.
const BUDGET: u32 = 2048;
const MICROFRAME_NS: u64 = 125_000;

/// A transfer descriptor: TRBs that are chained, with their addresses.
pub struct Td {
    items: Vec<(u64, Trb)>,
    /// The ring after it.
    next: Ring,
}

enum Fault {
    Memory,
    /// This TRB cannot be.
    Trb(u64),
}

impl Td {
    /// The next one of a ring, if it is there whole.
    fn fetch(dma: &DmaHandle, ring: Ring) -> Result<Option<Self>, Fault> {
        let mut td = Self { items: Vec::with_capacity(4), next: ring };
        let mut bytes = 0;
        loop {
            match td.next.next(dma) {
                Ok((at, trb)) => {
                    td.items.push((at, trb));
                    bytes += trb.len();
                    if !trb.has(trb::CHAIN) {
                        return Ok(Some(td));
                    }
                    if td.items.len() >= MOST_TRBS || bytes > MOST_BYTES {
                        return Err(Fault::Trb(ring.at));
                    }
                }
                Err(Gap::Empty) => return Ok(None),
                Err(Gap::Memory) => return Err(Fault::Memory),
                Err(Gap::Loop) => return Err(Fault::Trb(ring.at)),
            }
        }
    }
    fn first(&self) -> Trb {
        self.items.first().map_or_else(Trb::default, |i| i.1)
    }
    /// The first TRB that an endpoint of this type must not have here.
    fn wrong(&self, e: &Endpoint) -> Option<u64> {
        let control = e.kind == endpoint_kind::CONTROL;
        let first = self.first().kind();
        let bad = |(n, (_, trb)): &(usize, &(u64, Trb))| {
            let this = trb.kind();
            !match (*n, control) {
                (0, true) => matches!(this, kind::SETUP | kind::DATA | kind::STATUS | kind::NO_OP),
                (0, false) => {
                    matches!(this, kind::NORMAL | kind::EVENT_DATA | kind::NO_OP) || this == kind::ISOCH && e.is_isoch()
                }
                (_, true) => {
                    matches!(first, kind::DATA | kind::STATUS)
                        && (this == kind::EVENT_DATA || this == kind::NORMAL && first == kind::DATA)
                }
                (_, false) => matches!(this, kind::NORMAL | kind::EVENT_DATA) && first != kind::NO_OP,
            }
        };
        self.items.iter().enumerate().find(bad).map(|(_, (at, _))| *at)
    }
    /// The memory of the transfer; `Err`: a TRB that cannot be.
    fn buffer(&self, dma: &DmaHandle, to_host: bool) -> Result<Buffer, u64> {
        let moves = |t: &Trb| matches!(t.kind(), kind::NORMAL | kind::DATA | kind::ISOCH);
        let mut pieces: Vec<(u64, u64)> = Vec::with_capacity(self.items.len());
        for (at, trb) in self.items.iter().filter(|(_, t)| moves(t)) {
            if trb.has(trb::IMMEDIATE) {
                let alone = self.items.iter().filter(|(_, t)| moves(t)).count() == 1;
                if to_host || trb.len() > 8 || !alone {
                    return Err(*at);
                }
                return Ok(Buffer::immediate(dma.clone(), trb.parameter.to_le_bytes(), trb.len()));
            }
            if trb.len() == 0 {
                continue;
            }
            match pieces.last_mut() {
                Some((start, n)) if start.wrapping_add(*n) == trb.parameter => *n += trb.len(),
                _ => pieces.push((trb.parameter, trb.len())),
            }
        }
        Ok(Buffer::new(dma.clone(), pieces))
    }
}

/// A transfer that a device has.
pub struct Flight {
    serial: u64,
    td: Td,
}

/// What is to be done with no lock held.
enum Job {
    Control { setup: Setup, data: Vec<u8> },
    Transfer { endpoint: u8, buffer: Buffer },
}

struct Begun {
    slot: usize,
    dci: usize,
    serial: u64,
    device: usize,
    job: Job,
}

enum Next {
    /// There is nothing to do.
    Idle,
    /// Something was done at once.
    Did,
    Begun(Begun),
}

impl Core {
    /// An endpoint is to be looked at.
    pub(super) fn look(&mut self, slot: usize, dci: usize) {
        if let Some(todo) = self.todo.get_mut(slot) {
            *todo |= 1 << (dci & 31);
        }
    }
    /// All endpoints of a slot are to be looked at.
    pub(super) fn look_at_slot(&mut self, slot: usize) {
        if let Some(todo) = self.todo.get_mut(slot) {
            *todo = !1;
        }
    }
    pub(super) fn look_at_all(&mut self) {
        for (n, todo) in self.todo.iter_mut().enumerate() {
            *todo = if n > 0 { !1 } else { 0 };
        }
    }
    fn crowded(&self) -> bool {
        self.interrupters.iter().any(super::event::Interrupter::crowded)
    }
    /// Takes the next work item from any ring that is to be looked at.
    fn take_next(&mut self, dma: &DmaHandle, paused: bool) -> Next {
        if paused || !self.running() || !dma.enabled() || self.crowded() {
            // Looked at again when that changes.
            return Next::Idle;
        }
        for slot in 1..self.todo.len() {
            while self.todo[slot] != 0 {
                let dci = self.todo[slot].trailing_zeros() as usize;
                self.todo[slot] &= !(1 << dci);
                match self.begin(dma, slot, dci) {
                    Next::Idle => {}
                    next => return next,
                }
            }
        }
        Next::Idle
    }
    fn begin(&mut self, dma: &DmaHandle, slot: usize, dci: usize) -> Next {
        if self.pending.is_some_and(|(_, t)| super::command::touches(&t, slot, dci)) {
            return Next::Idle;
        }
        let Some(s) = self.slots.get_mut(slot).filter(|s| s.enabled) else { return Next::Idle };
        if !self.ports.get(usize::from(s.port).wrapping_sub(1)).is_some_and(|p| p.works()) {
            return Next::Idle;
        }
        let device = s.device;
        let Some(e) = s.endpoints.get_mut(dci).filter(|e| e.state == endpoint::RUNNING && e.flight.is_none()) else {
            return Next::Idle;
        };
        e.again = false;
        let start = e.ring.at;
        let td = match Td::fetch(dma, e.ring) {
            Ok(Some(td)) => td,
            Ok(None) => {
                e.waiting = false;
                return Next::Idle;
            }
            Err(Fault::Memory) => {
                self.fail("a transfer ring is not in memory");
                return Next::Idle;
            }
            Err(Fault::Trb(at)) => return self.bad_trb(dma, slot, dci, at),
        };
        if let Some(at) = td.wrong(e) {
            return self.bad_trb(dma, slot, dci, at);
        }
        let job = match td.first().kind() {
            kind::NO_OP | kind::EVENT_DATA => {
                self.complete(dma, slot, dci, &td, code::SUCCESS, 0);
                return Next::Did;
            }
            kind::SETUP => {
                let trb = td.first();
                if !trb.has(trb::IMMEDIATE) || trb.len() != 8 {
                    return self.bad_trb(dma, slot, dci, start);
                }
                let setup = Setup::new(trb.parameter.to_le_bytes());
                e.control = Some(Stages { setup, data: Vec::new(), answered: false });
                self.complete(dma, slot, dci, &td, code::SUCCESS, 8);
                return Next::Did;
            }
            kind::DATA | kind::STATUS => {
                let Some(c) = &mut e.control else {
                    return self.bad_trb(dma, slot, dci, start);
                };
                let data = td.first().kind() == kind::DATA;
                if data && td.first().has(trb::TO_HOST) != c.setup.to_host() {
                    return self.bad_trb(dma, slot, dci, start);
                }
                if c.answered && !data {
                    e.control = None;
                    self.complete(dma, slot, dci, &td, code::SUCCESS, 0);
                    return Next::Did;
                }
                if data && !c.setup.to_host() {
                    let buffer = match td.buffer(dma, false) {
                        Ok(buffer) => buffer,
                        Err(at) => return self.bad_trb(dma, slot, dci, at),
                    };
                    let room = u64::from(c.setup.length).saturating_sub(c.data.len() as u64);
                    let (code, n) = match buffer.get(room) {
                        Ok(more) => {
                            c.data.extend(more);
                            (code::SUCCESS, buffer.len())
                        }
                        Err(_) => (code::DATA_BUFFER, 0),
                    };
                    self.complete(dma, slot, dci, &td, code, n);
                    return Next::Did;
                }
                Job::Control { setup: c.setup, data: std::mem::take(&mut c.data) }
            }
            _ => {
                let to_host = dci % 2 == 1;
                let buffer = match td.buffer(dma, to_host) {
                    Ok(buffer) => buffer,
                    Err(at) => return self.bad_trb(dma, slot, dci, at),
                };
                Job::Transfer { endpoint: (dci / 2) as u8 | u8::from(to_host) << 7, buffer }
            }
        };
        let Some(device) = device else {
            self.complete(dma, slot, dci, &td, code::TRANSACTION, 0);
            return Next::Did;
        };
        self.serial += 1;
        let serial = self.serial;
        e.flight = Some(Flight { serial, td });
        Next::Begun(Begun { slot, dci, serial, device, job })
    }
    fn bad_trb(&mut self, dma: &DmaHandle, slot: usize, dci: usize, at: u64) -> Next {
        log_guest_error!(self.log, &self.name, "slot {slot}, endpoint {dci}: a TRB that cannot be there");
        if let Some(e) = self.slots.get_mut(slot).and_then(|s| s.endpoints.get_mut(dci)) {
            e.state = endpoint::ERROR;
        }
        self.transfer_event(slot, dci, at, code::TRB, 0, 0, 0, true);
        self.show_endpoint(dma, slot, dci);
        Next::Did
    }
    fn transfer_event(
        &mut self,
        slot: usize,
        dci: usize,
        parameter: u64,
        code: u8,
        len: u32,
        flags: u32,
        interrupter: usize,
        interrupt: bool,
    ) {
        let status = u32::from(code) << 24 | len & 0xff_ffff;
        let control = (slot as u32) << 24 | (dci as u32) << 16 | u32::from(kind::TRANSFER_EVENT) << 10 | flags;
        self.post(interrupter, Trb { parameter, status, control }, interrupt);
    }
    /// Ends a transfer descriptor of which `bytes` moved: events, and the ring goes on or the endpoint halts.
    fn complete(&mut self, dma: &DmaHandle, slot: usize, dci: usize, td: &Td, code: u8, bytes: u64) {
        let Some(e) = self.slots.get_mut(slot).and_then(|s| s.endpoints.get_mut(dci)) else { return };
        let failed = code != code::SUCCESS;
        // Event data counts from the start of the descriptor, or the last event data (4.11.5.2).
        let (mut left, mut moved, mut short) = (bytes, 0u32, false);
        let isoch = e.is_isoch();
        e.waiting = false;
        if !failed || isoch {
            e.ring = td.next;
        } else {
            e.state = endpoint::HALTED;
            e.control = None;
        }
        let mut told = false;
        for (at, trb) in &td.items {
            if failed && told {
                break;
            }
            let interrupt = !trb.has(trb::BLOCK_INTERRUPT);
            let wanted = trb.has(trb::ON_COMPLETION);
            if trb.kind() == kind::EVENT_DATA {
                if wanted {
                    let code = if short { code::SHORT_PACKET } else { code };
                    let length = moved;
                    self.transfer_event(
                        slot,
                        dci,
                        trb.parameter,
                        code,
                        length,
                        trb::EVENT_DATA,
                        trb.interrupter(),
                        interrupt,
                    );
                    told = failed;
                }
                moved = 0;
                continue;
            }
            let len = match trb.kind() {
                kind::NORMAL | kind::DATA | kind::ISOCH | kind::SETUP => trb.len(),
                _ => 0,
            };
            let n = left.min(len);
            left -= n;
            moved = moved.wrapping_add(n as u32) & 0xff_ffff;
            let rest = (len - n) as u32;
            // Where it stopped: the TRB that is not full, or the last.
            if failed && (rest > 0 || len == 0 || left == 0) {
                self.transfer_event(slot, dci, *at, code, rest, 0, trb.interrupter(), interrupt);
                told = true;
                continue;
            }
            let here = !failed && !short && rest > 0;
            short |= here;
            if wanted || here && trb.has(trb::ON_SHORT) {
                let code = if short { code::SHORT_PACKET } else { code };
                self.transfer_event(slot, dci, *at, code, rest, 0, trb.interrupter(), interrupt);
            }
        }
        if failed && !isoch {
            self.show_endpoint(dma, slot, dci);
        }
        self.look(slot, dci);
        // The device may now have something to say elsewhere.
        let Some(s) = self.slots.get_mut(slot) else { return };
        let waiting = s.endpoints.iter().enumerate().filter(|(_, e)| e.waiting);
        let bits = waiting.fold(0u32, |bits, (n, _)| bits | 1 << (n & 31));
        if let Some(todo) = self.todo.get_mut(slot) {
            *todo |= bits;
        }
    }
    /// The flight with this number, taken.
    fn land(&mut self, slot: usize, dci: usize, serial: u64) -> Option<Td> {
        let e = self.slots.get_mut(slot)?.endpoints.get_mut(dci)?;
        e.flight.take_if(|f| f.serial == serial).map(|f| f.td)
    }
    /// A device has answered.
    fn answered(&mut self, dma: &DmaHandle, slot: usize, dci: usize, serial: u64, answer: Answer) {
        let Some(td) = self.land(slot, dci, serial) else { return };
        let (code, bytes) = match answer {
            Answer::Done(n) => (code::SUCCESS, n),
            Answer::Stall => (code::STALL, 0),
            Answer::Babble => (code::BABBLE, 0),
            Answer::BadBuffer => (code::DATA_BUFFER, 0),
            Answer::Silent | Answer::Pending => (code::TRANSACTION, 0),
            Answer::Nak => {
                if let Some(e) = self.slots.get_mut(slot).and_then(|s| s.endpoints.get_mut(dci)) {
                    e.waiting = true;
                    if std::mem::take(&mut e.again) {
                        self.look(slot, dci);
                    }
                }
                return self.retry_commands(dma);
            }
        };
        self.complete(dma, slot, dci, &td, code, bytes);
        self.retry_commands(dma);
    }
    /// A device has answered a control transfer, in its data stage to the host or its status stage.
    fn controlled(
        &mut self,
        dma: &DmaHandle,
        slot: usize,
        dci: usize,
        serial: u64,
        result: Result<(), Stall>,
        data: &[u8],
    ) {
        let Some(td) = self.land(slot, dci, serial) else { return };
        let (mut code, mut bytes) = (if result.is_ok() { code::SUCCESS } else { code::STALL }, 0);
        let status = td.first().kind() == kind::STATUS;
        if let Some(e) = self.slots.get_mut(slot).and_then(|s| s.endpoints.get_mut(dci)) {
            match &mut e.control {
                Some(c) if !status => c.answered = true,
                _ => e.control = None,
            }
        }
        if result.is_ok() && !status {
            match td.buffer(dma, true) {
                Ok(buffer) if buffer.put(data).is_ok() => bytes = buffer.len().min(data.len() as u64),
                _ => code = code::DATA_BUFFER,
            }
        }
        self.complete(dma, slot, dci, &td, code, bytes);
        self.retry_commands(dma);
    }
    /// A stop: what the device had nothing to say to is told to be stopped (4.6.9).
    pub(super) fn tell_stopped(&mut self, dma: &DmaHandle, slot: usize, dci: usize) {
        let Some(e) = self.slots.get_mut(slot).and_then(|s| s.endpoints.get_mut(dci)) else { return };
        if !std::mem::take(&mut e.waiting) {
            return;
        }
        if let Ok(Some(td)) = Td::fetch(dma, e.ring)
            && let Some((at, trb)) = td.items.first()
        {
            let len = if trb.kind() == kind::NORMAL { trb.len() as u32 } else { 0 };
            self.transfer_event(slot, dci, *at, code::STOPPED, len, 0, trb.interrupter(), true);
        }
    }
}

impl Controller {
    /// Does what there is to do in the rings.
    pub(super) fn pump(self: &Arc<Self>) {
        for _ in 0..BUDGET {
            let next = {
                let c = &mut *self.core.lock();
                let next = c.take_next(&self.dma, self.paused.load(Ordering::SeqCst));
                if let Next::Begun(_) = next {
                    // Counted while the lock is held, so that who drains after a pause misses nothing.
                    self.inflight.fetch_add(1, Ordering::AcqRel);
                }
                next
            };
            match next {
                Next::Idle => return self.with(|_| ()),
                Next::Did => {}
                Next::Begun(begun) => self.execute(begun),
            }
        }
        // A ring without an end: the rest of the machine has its turn.
        self.with(|c| c.after.timer = c.after.timer.min(self.clock.now_ns().saturating_add(MICROFRAME_NS)));
    }
    fn execute(self: &Arc<Self>, begun: Begun) {
        let Begun { slot, dci, serial, device, job } = begun;
        let device = self.device(device);
        match (job, device) {
            (Job::Control { setup, mut data }, Some(device)) => {
                let result = device.control(&setup, &mut data);
                self.with(|c| c.controlled(&self.dma, slot, dci, serial, result, &data));
                self.leave();
            }
            (Job::Transfer { endpoint, buffer }, Some(device)) => {
                let me = self.clone();
                let done = move |answer| {
                    me.with(|c| c.answered(&me.dma, slot, dci, serial, answer));
                    me.leave();
                    me.pump();
                };
                let answer = device.transfer(Transfer::new(endpoint, buffer, Box::new(done)));
                if answer != Answer::Pending {
                    self.with(|c| c.answered(&self.dma, slot, dci, serial, answer));
                    self.leave();
                }
            }
            (_, None) => {
                self.with(|c| c.answered(&self.dma, slot, dci, serial, Answer::Silent));
                self.leave();
            }
        }
    }
    /// A device has something to say at an endpoint.
    pub(super) fn wake(self: &Arc<Self>, device: usize, endpoint: u8) {
        let may_wake = self.device(device).is_some_and(|d| d.may_wake());
        let dci = usize::from(endpoint & 15) * 2 + usize::from(endpoint >> 7);
        self.with(|c| {
            let Some(port) = c.places.get(device).map(|p| p.port) else { return };
            if may_wake {
                c.wake_port(port);
            }
            for slot in 1..c.slots.len() {
                let s = &mut c.slots[slot];
                if s.device == Some(device)
                    && let Some(e) = s.endpoints.get_mut(dci)
                {
                    e.again = true;
                    c.look(slot, dci);
                }
            }
        });
        self.pump();
    }
}
