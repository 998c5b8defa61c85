//! Virtual SCSI (LoPAPR 17.3): a host adapter whose commands are information units of the SCSI RDMA protocol, named by messages of the
//! command/response queue.

mod iu;
mod management;

use super::crq::{Crq, CrqState};
use super::{SlotState, VioDevice, VioKind, VioSlot};
use crate::Node;
use crate::papr::{Answer, Status};
use iu::Command;
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_device::state::{decode, encode};
use rhea_device::{Device, LoadError, Saved};
use rhea_storage::scsi::{self, LogicalUnit, Outcome, Sense, operation};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use thiserror::Error;

pub const KIND: VioKind = VioKind {
    name: "v-scsi",
    device_type: "vscsi",
    compatible: "IBM,v-scsi",
    signals: 1,
    window: 0x1000_0000,
    interrupt: true,
};

/// Commands a guest can have in progress: what a login grants.
const REQUESTS: u32 = 64;
/// Bytes of an information unit at most.
const MAX_IU: usize = 256;
const LOGICAL_UNIT_NOT_SUPPORTED: Sense = Sense { key: 5, code: 0x25, qualifier: 0 };
/// Of a command whose descriptors or memory are not sound.
const DATA_ERROR: Sense = Sense { key: 0xb, code: 0x4b, qualifier: 0 };

/// First and second byte of a message.
const MESSAGE: u8 = 0x80;
const INITIALIZE: u8 = 0xc0;
const EVENT: u8 = 0xff;
const FORMAT_SRP: u8 = 1;
const FORMAT_MANAGEMENT: u8 = 2;
const INIT: u8 = 1;
const INIT_COMPLETE: u8 = 2;
/// The adapter could not write an answer.
const ADAPTER_FAILED: u8 = 0x10;

/// Why a unit cannot be attached.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AttachError {
    #[error("target {0}, logical unit {1} is in use")]
    InUse(u8, u8),
    #[error("there is no target {0}, logical unit {1}: targets are 0 to 63, logical units 0 to 31")]
    Range(u8, u8),
}

/// Target and logical unit.
type Address = (u8, u8);

/// A command in progress.
struct Running {
    tag: u64,
    address: Address,
    /// Its end is not told: a task management function waits for it instead.
    silent: bool,
}

/// A task management function that waits for commands to end.
struct Waiting {
    ids: Vec<u64>,
    answer: Vec<u8>,
    place: u64,
}

#[derive(Default)]
struct Requests {
    running: BTreeMap<u64, Running>,
    waiting: Vec<Waiting>,
    next: u64,
    /// Rises when all is forgotten.
    generation: u64,
}

#[derive(Encode, Decode)]
struct State {
    #[n(0)]
    crq: CrqState,
    #[n(1)]
    slot: SlotState,
    #[n(2)]
    units: Vec<(u8, u8, Vec<u8>)>,
}

/// `spapr-vscsi`.
pub struct Vscsi {
    name: String,
    slot: VioSlot,
    crq: Crq,
    units: Mutex<BTreeMap<Address, Arc<dyn LogicalUnit>>>,
    requests: Mutex<Requests>,
    me: Weak<Vscsi>,
}

impl Vscsi {
    #[must_use]
    pub fn new(slot: VioSlot) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            name: slot.name(),
            crq: Crq::new(&slot),
            slot,
            units: Mutex::default(),
            requests: Mutex::default(),
            me: me.clone(),
        })
    }
    /// Puts a unit at a target and number.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach(&self, target: u8, lun: u8, unit: Arc<dyn LogicalUnit>) -> Result<(), AttachError> {
        if target > 63 || lun > 31 {
            return Err(AttachError::Range(target, lun));
        }
        let mut units = self.units.lock();
        if units.contains_key(&(target, lun)) {
            return Err(AttachError::InUse(target, lun));
        }
        units.insert((target, lun), unit);
        Ok(())
    }
    /// The first target without units.
    #[must_use]
    pub fn free_target(&self) -> Option<u8> {
        let units = self.units.lock();
        (0..64).find(|t| !units.keys().any(|(used, _)| used == t))
    }
    /// Targets and numbers of all units.
    #[must_use]
    pub fn addresses(&self) -> Vec<(u8, u8)> {
        self.units.lock().keys().copied().collect()
    }
    fn unit(&self, address: Address) -> Option<Arc<dyn LogicalUnit>> {
        self.units.lock().get(&address).cloned()
    }

    /// Writes an answer where the request was, and tells.
    fn answer(&self, format: u8, answer: &[u8], place: u64) {
        let written = self.slot.dma().write_ram(place, answer).is_ok();
        let mut message = [0; 16];
        message[0] = MESSAGE;
        message[1] = format;
        message[3] = if written { 0 } else { ADAPTER_FAILED };
        message[6..8].copy_from_slice(&(answer.len() as u16).to_be_bytes());
        // Not the address but the tag, by which the guest knows its request.
        if let Some(tag) = answer.get(8..16) {
            message[8..].copy_from_slice(tag);
        }
        // A guest that has no room for answers loses them.
        let _ = self.crq.send(&message);
    }
    fn request(&self, format: u8, len: u16, place: u64) -> Answer {
        let mut iu = [0; MAX_IU];
        let len = usize::from(len);
        let bytes = iu.get_mut(..len).filter(|b| b.len() >= 16).ok_or(Status::PARAMETER)?;
        if self.slot.dma().read_ram(place, bytes).is_err() {
            return Err(Status::PARAMETER);
        }
        match format {
            FORMAT_SRP => self.srp(&iu, place),
            FORMAT_MANAGEMENT => {
                let answer = management::handle(&iu, self.slot.dma());
                self.answer(FORMAT_MANAGEMENT, &answer, place);
            }
            _ => return Err(Status::PARAMETER),
        }
        Ok(())
    }
    fn srp(&self, iu: &[u8; MAX_IU], place: u64) {
        match iu[0] {
            iu::LOGIN => self.answer(FORMAT_SRP, &iu::login_response(iu, REQUESTS, MAX_IU as u32), place),
            iu::COMMAND => self.command(iu, place),
            iu::TASK_MANAGEMENT => self.task(iu, place),
            // Logout and answers to what was not asked need no answer.
            _ => (),
        }
    }
    fn command(&self, iu: &[u8; MAX_IU], place: u64) {
        let tag = iu::tag(iu);
        let fail = |outcome: Outcome| {
            let answer = iu::response(tag, &outcome, (0, 0));
            self.answer(FORMAT_SRP, &answer, place);
        };
        let Some(Command { address, cdb, data_in, data_out }) = iu::parse(iu, self.slot.dma()) else {
            return fail(Outcome::failed(DATA_ERROR));
        };
        let room = (iu::size(&data_in), iu::size(&data_out));
        let local = |data: Vec<u8>| {
            let outcome = self.local(&data_in, data);
            self.answer(FORMAT_SRP, &iu::response(tag, &outcome, room), place);
        };
        let limit = |at: usize| usize::from(u16::from_be_bytes([cdb[at], cdb[at + 1]]));
        if cdb[0] == operation::REPORT_LUNS {
            let there = |a: &&Address| address.is_some_and(|(target, _)| a.0 == target);
            let luns: Vec<u64> = self.units.lock().keys().filter(there).map(|(_, lun)| u64::from(*lun) << 48).collect();
            if luns.is_empty() {
                return fail(Outcome::failed(LOGICAL_UNIT_NOT_SUPPORTED));
            }
            let mut data = scsi::report_luns(&luns);
            data.truncate(u32::from_be_bytes([cdb[6], cdb[7], cdb[8], cdb[9]]) as usize);
            return local(data);
        }
        let found = address.and_then(|a| Some((a, self.unit(a)?)));
        let Some((address, unit)) = found else {
            if cdb[0] == operation::INQUIRY && cdb[1] & 1 == 0 {
                let mut data = scsi::absent();
                data.truncate(limit(3));
                return local(data);
            }
            return fail(Outcome::failed(LOGICAL_UNIT_NOT_SUPPORTED));
        };
        let begun = {
            let mut r = self.requests.lock();
            if r.running.len() >= REQUESTS as usize {
                None
            } else {
                r.next += 1;
                let id = r.next;
                r.running.insert(id, Running { tag, address, silent: false });
                Some((id, r.generation))
            }
        };
        let Some((id, generation)) = begun else {
            return fail(Outcome { status: scsi::status::BUSY, sense: None, wanted: 0, moved: 0 });
        };
        let me = self.me.clone();
        let done = move |outcome: Outcome| {
            if let Some(me) = me.upgrade() {
                me.ended(id, generation, &iu::response(tag, &outcome, room), place);
            }
        };
        scsi::run(&unit, cdb, self.slot.dma(), &data_in, &data_out, Box::new(done));
    }
    /// Data of the adapter itself.
    fn local(&self, pieces: &[scsi::Piece], data: Vec<u8>) -> Outcome {
        match rhea_storage::guest::scatter(self.slot.dma(), pieces, &data) {
            Ok(moved) => {
                Outcome { status: scsi::status::GOOD, sense: None, wanted: data.len() as u64, moved: moved as u64 }
            }
            Err(_) => Outcome::failed(DATA_ERROR),
        }
    }
    /// A command has ended.
    fn ended(&self, id: u64, generation: u64, answer: &[u8], place: u64) {
        let (tell, over) = {
            let mut r = self.requests.lock();
            if r.generation != generation {
                return;
            }
            let tell = r.running.remove(&id).is_some_and(|c| !c.silent);
            let mut over = Vec::new();
            r.waiting.retain_mut(|w| {
                w.ids.retain(|n| *n != id);
                if w.ids.is_empty() {
                    over.push((std::mem::take(&mut w.answer), w.place));
                    return false;
                }
                true
            });
            (tell, over)
        };
        if tell {
            self.answer(FORMAT_SRP, answer, place);
        }
        for (answer, place) in over {
            self.answer(FORMAT_SRP, &answer, place);
        }
    }
    /// Task management: what it concerns cannot be stopped, but ends soon; then the function is complete.
    fn task(&self, iu: &[u8; MAX_IU], place: u64) {
        let (address, task, function) = iu::task(iu);
        let known = address.filter(|a| self.units.lock().contains_key(a));
        let Some(address) = known else {
            return self.answer(FORMAT_SRP, &iu::task_response(iu, iu::FIELDS_INVALID), place);
        };
        let concerns: &dyn Fn(&Running) -> bool = match function {
            iu::ABORT_TASK => &|c| c.address == address && c.tag == task,
            iu::ABORT_TASK_SET | iu::CLEAR_TASK_SET => &|c| c.address == address,
            iu::LOGICAL_UNIT_RESET => {
                if let Some(unit) = self.unit(address) {
                    unit.reset();
                }
                &|c| c.address == address
            }
            _ => return self.answer(FORMAT_SRP, &iu::task_response(iu, iu::NOT_SUPPORTED), place),
        };
        let answer = iu::task_response(iu, iu::COMPLETE);
        {
            let mut r = self.requests.lock();
            let mut ids = Vec::new();
            for (id, c) in r.running.iter_mut().filter(|(_, c)| concerns(c)) {
                c.silent = true;
                ids.push(*id);
            }
            if !ids.is_empty() {
                if r.waiting.len() < REQUESTS as usize {
                    r.waiting.push(Waiting { ids, answer, place });
                }
                return;
            }
        }
        self.answer(FORMAT_SRP, &answer, place);
    }
    /// Ends what is in progress without telling.
    fn forget(&self) {
        {
            let mut r = self.requests.lock();
            r.generation += 1;
            r.running.clear();
            r.waiting.clear();
        }
        self.quiesce();
    }
}

impl VioDevice for Vscsi {
    fn slot(&self) -> &VioSlot {
        &self.slot
    }
    fn describe(&self, node: Node) -> Node {
        node.cell("#address-cells", 2).cell("#size-cells", 0)
    }
    fn crq(&self) -> Option<&Crq> {
        Some(&self.crq)
    }
    fn message(&self, message: [u8; 16]) -> Answer {
        let [valid, format, ..] = message;
        match (valid, format) {
            (INITIALIZE, INIT) => {
                let mut reply = [0; 16];
                reply[..2].copy_from_slice(&[INITIALIZE, INIT_COMPLETE]);
                let _ = self.crq.send(&reply);
                Ok(())
            }
            (INITIALIZE, INIT_COMPLETE) | (EVENT, _) => Ok(()),
            (MESSAGE, _) => {
                let place = message[8..].iter().fold(0, |v, b| v << 8 | u64::from(*b));
                self.request(format, u16::from_be_bytes([message[6], message[7]]), place)
            }
            _ => Err(Status::PARAMETER),
        }
    }
    fn connected(&self, on: bool) {
        if !on {
            self.forget();
        }
    }
}

impl Device for Vscsi {
    fn name(&self) -> &str {
        &self.name
    }
    fn reset(&self) {
        self.forget();
        self.crq.free();
        self.slot.reset();
        let units: Vec<_> = self.units.lock().values().cloned().collect();
        for unit in units {
            unit.power_on();
        }
    }
    fn save(&self) -> Saved {
        let units = self.units.lock().iter().map(|((t, l), u)| (*t, *l, u.save())).collect();
        encode(1, &State { crq: self.crq.save(), slot: self.slot.save(), units })
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        let State { crq, slot, units } = decode(saved, 1)?;
        self.forget();
        for (target, lun, state) in units {
            let unit = self.unit((target, lun));
            unit.ok_or_else(|| LoadError::Mismatch(format!("SCSI target {target}, unit {lun}")))?.load(&state)?;
        }
        self.crq.load(crq);
        self.slot.load(&slot)
    }
    fn quiesce(&self) {
        let units: Vec<_> = self.units.lock().values().cloned().collect();
        for drive in units.iter().filter_map(|u| u.drive()) {
            drive.drain();
        }
    }
}
