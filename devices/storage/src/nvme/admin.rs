//! Admin commands (NVMe 1.4, chapter 5).

use super::command::{self, Command, Status};
use super::queue::{Cq, Sq};
use super::{Controller, MAX_ENTRIES, MAX_TRANSFER, identify};
use crate::guest;
use std::sync::Arc;
use std::sync::atomic::Ordering;

mod opcode {
    pub const DELETE_SQ: u8 = 0x00;
    pub const CREATE_SQ: u8 = 0x01;
    pub const GET_LOG_PAGE: u8 = 0x02;
    pub const DELETE_CQ: u8 = 0x04;
    pub const CREATE_CQ: u8 = 0x05;
    pub const IDENTIFY: u8 = 0x06;
    pub const ABORT: u8 = 0x08;
    pub const SET_FEATURES: u8 = 0x09;
    pub const GET_FEATURES: u8 = 0x0a;
    pub const ASYNC_EVENT: u8 = 0x0c;
}
mod feature {
    pub const ARBITRATION: u8 = 0x01;
    pub const POWER: u8 = 0x02;
    pub const TEMPERATURE: u8 = 0x04;
    pub const ERROR_RECOVERY: u8 = 0x05;
    pub const WRITE_CACHE: u8 = 0x06;
    pub const QUEUES: u8 = 0x07;
    pub const COALESCING: u8 = 0x08;
    pub const VECTOR: u8 = 0x09;
    pub const ATOMICITY: u8 = 0x0a;
    pub const EVENTS: u8 = 0x0b;
}

/// Asynchronous event requests at once.
pub const MAX_EVENTS: usize = 4;

/// Error events (5.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A doorbell of a queue that is not there.
    BadRegister = 0,
    BadValue = 1,
}

/// What admin commands change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Commands that wait for events.
    pub requests: Vec<u16>,
    pub events: Vec<Event>,
    /// An error event was told and its log not read yet.
    pub masked: bool,
    /// Values of features 1, 2, 5, 8, 10, 11 as set.
    pub arbitration: u32,
    pub recovery: u32,
    pub coalescing: u32,
    pub atomicity: u32,
    pub event_config: u32,
    /// Temperature thresholds: over, under, in kelvin.
    pub thresholds: [u16; 2],
    /// Vectors whose coalescing is disabled.
    pub uncoalesced: Vec<u16>,
    /// I/O queues the host may create: submission, completion.
    pub queues: [u16; 2],
    /// Errors so far, for the log.
    pub errors: u64,
    pub last_error: (u16, u16, u16),
}

impl Admin {
    pub fn new(queues: u16) -> Self {
        Self {
            requests: Vec::new(),
            events: Vec::new(),
            masked: false,
            arbitration: 6,
            recovery: 0,
            coalescing: 0,
            atomicity: 0,
            event_config: 0,
            thresholds: [0x157, 0],
            uncoalesced: Vec::new(),
            queues: [queues; 2],
            errors: 0,
            last_error: (0, 0, 0),
        }
    }
}

type Answer = Result<Option<u32>, Status>;

impl Controller {
    /// Runs an admin command; `None`: it is answered later.
    pub(super) fn admin_command(self: &Arc<Self>, sq: &Arc<Sq>, c: &Command) -> Option<(Status, u32)> {
        if c.opcode() == opcode::ASYNC_EVENT {
            {
                let mut a = self.admin.lock();
                if a.requests.len() >= MAX_EVENTS {
                    return Some((Status::EVENT_LIMIT, 0));
                }
                a.requests.push(c.id());
            }
            self.release(sq);
            self.tell_events();
            return None;
        }
        let answer = {
            let mut a = self.admin.lock();
            // The controller may have been reset meanwhile.
            if !self.sq(0).is_some_and(|now| Arc::ptr_eq(&now, sq)) {
                Ok(Some(0))
            } else if !c.is_plain() {
                Err(Status::INVALID_FIELD)
            } else {
                self.execute(&mut a, sq, c)
            }
        };
        match answer {
            Ok(Some(result)) => Some((Status::SUCCESS, result)),
            Ok(None) => None,
            Err(status) => {
                let mut a = self.admin.lock();
                a.errors += 1;
                a.last_error = (sq.id, c.id(), status.field());
                Some((status, 0))
            }
        }
    }

    fn execute(self: &Arc<Self>, a: &mut Admin, sq: &Arc<Sq>, c: &Command) -> Answer {
        match c.opcode() {
            opcode::DELETE_SQ => self.delete_sq(sq, c),
            opcode::CREATE_SQ => self.create_sq(a, c),
            opcode::GET_LOG_PAGE => self.log_page(a, c),
            opcode::DELETE_CQ => self.delete_cq(c),
            opcode::CREATE_CQ => self.create_cq(a, c),
            opcode::IDENTIFY => self.identify(c),
            // Commands already at the drive cannot be called back.
            opcode::ABORT => Ok(Some(1)),
            opcode::SET_FEATURES => self.set_feature(a, c),
            opcode::GET_FEATURES => self.get_feature(a, c),
            _ => Err(Status::INVALID_OPCODE),
        }
    }

    fn give(&self, c: &Command, data: &[u8]) -> Answer {
        let pieces = command::prp(&self.dma, c, data.len() as u64, self.page_size())?;
        guest::scatter(&self.dma, &pieces, data).map_err(|_| Status::DATA_TRANSFER)?;
        Ok(Some(0))
    }

    fn create_cq(&self, a: &Admin, c: &Command) -> Answer {
        let (id, size) = (c.dword(10) as u16, (c.dword(10) >> 16) + 1);
        let vector = (c.dword(11) >> 16) as u16;
        let place = self.cqs.get(usize::from(id)).filter(|_| id != 0 && id <= a.queues[1]).ok_or(Status::QUEUE_ID)?;
        if place.read().is_some() {
            return Err(Status::QUEUE_ID);
        }
        if !(2..=MAX_ENTRIES).contains(&size) {
            return Err(Status::QUEUE_SIZE);
        }
        if c.prp1() & (self.page_size() - 1) != 0 {
            return Err(Status::PRP_OFFSET);
        }
        if self.msix.get().is_some_and(|m| vector >= m.vectors()) {
            return Err(Status::VECTOR);
        }
        if c.dword(11) & 1 == 0 {
            return Err(Status::INVALID_FIELD);
        }
        *place.write() = Some(Cq::new(id, c.prp1(), size, vector, c.dword(11) & 2 != 0));
        Ok(Some(0))
    }
    fn create_sq(&self, a: &Admin, c: &Command) -> Answer {
        let (id, size) = (c.dword(10) as u16, (c.dword(10) >> 16) + 1);
        let cq_id = (c.dword(11) >> 16) as u16;
        if cq_id == 0 || usize::from(cq_id) >= self.cqs.len() {
            return Err(Status::QUEUE_ID);
        }
        let cq = self.cq(cq_id).ok_or(Status::CQ_INVALID)?;
        let place = self.sqs.get(usize::from(id)).filter(|_| id != 0 && id <= a.queues[0]).ok_or(Status::QUEUE_ID)?;
        if place.read().is_some() {
            return Err(Status::QUEUE_ID);
        }
        if !(2..=MAX_ENTRIES).contains(&size) {
            return Err(Status::QUEUE_SIZE);
        }
        if c.prp1() & (self.page_size() - 1) != 0 {
            return Err(Status::PRP_OFFSET);
        }
        if c.dword(11) & 1 == 0 {
            return Err(Status::INVALID_FIELD);
        }
        *place.write() = Some(Sq::new(id, c.prp1(), size, &cq));
        Ok(Some(0))
    }
    fn delete_sq(&self, admin: &Arc<Sq>, c: &Command) -> Answer {
        let id = c.dword(10) as u16;
        let place = self.sqs.get(usize::from(id)).filter(|_| id != 0).ok_or(Status::QUEUE_ID)?;
        let sq = place.write().take().ok_or(Status::QUEUE_ID)?;
        sq.kill();
        let mut deleting = sq.deleting.lock();
        if sq.inflight.load(Ordering::Acquire) == 0 {
            return Ok(Some(0));
        }
        *deleting = Some((admin.clone(), c.id()));
        Ok(None)
    }
    /// The last transfer of a queue that is being deleted has ended.
    pub(super) fn finish_deletion(&self, sq: &Arc<Sq>) {
        let waiting = sq.deleting.lock().take();
        if let Some((admin, cid)) = waiting {
            self.post(&admin, cid, Status::SUCCESS, 0);
            self.interrupt(&admin.cq);
            self.release(&admin);
        }
    }
    fn delete_cq(&self, c: &Command) -> Answer {
        let id = c.dword(10) as u16;
        let place = self.cqs.get(usize::from(id)).filter(|_| id != 0).ok_or(Status::QUEUE_ID)?;
        let used = self.sqs.iter().any(|q| q.read().as_ref().is_some_and(|q| q.cq.id == id));
        if used {
            return Err(Status::QUEUE_DELETION);
        }
        let cq = place.write().take().ok_or(Status::QUEUE_ID)?;
        cq.kill(&self.told);
        // The caller's interrupt of the admin queue settles the line.
        Ok(Some(0))
    }

    fn identify(&self, c: &Command) -> Answer {
        let (namespace, structure) = (c.namespace(), c.dword(10) as u8);
        let data = match structure {
            0x00 | 0x03 if namespace != 1 => return Err(Status::INVALID_NAMESPACE),
            0x00 => {
                let g = self.drive.backend().geometry();
                let physical = match self.options.physical_block_size {
                    0 => g.physical_block,
                    n => n,
                };
                identify::namespace(self.blocks(), self.shift, physical, g.optimal_io)
            }
            0x01 => identify::controller(&self.options, self.drive.cache().write_cache()),
            0x02 => {
                if namespace >= 0xffff_fffe {
                    return Err(Status::INVALID_NAMESPACE);
                }
                let mut list = vec![0; identify::SIZE];
                if namespace == 0 {
                    list[0] = 1;
                }
                list
            }
            0x03 => identify::descriptors(&self.options.serial),
            _ => return Err(Status::INVALID_FIELD),
        };
        self.give(c, &data)
    }

    fn log_page(&self, a: &mut Admin, c: &Command) -> Answer {
        let dwords = u64::from(c.dword(10) >> 16) | u64::from(c.dword(11) & 0xffff) << 16;
        let len = (dwords + 1) * 4;
        let offset = u64::from(c.dword(12)) | u64::from(c.dword(13)) << 32;
        if len > MAX_TRANSFER || offset & 3 != 0 {
            return Err(Status::INVALID_FIELD);
        }
        let mut page = match c.dword(10) as u8 {
            0x01 => {
                let mut b = vec![0; 64];
                if a.errors > 0 {
                    let (queue, command, status) = a.last_error;
                    b[..8].copy_from_slice(&a.errors.to_le_bytes());
                    b[8..10].copy_from_slice(&queue.to_le_bytes());
                    b[10..12].copy_from_slice(&command.to_le_bytes());
                    b[12..14].copy_from_slice(&status.to_le_bytes());
                    b[14..16].fill(0xff);
                }
                // Reading ends the mask, unless the host wants to keep it.
                if c.dword(10) & 1 << 15 == 0 {
                    a.masked = false;
                }
                b
            }
            0x02 => self.health(a),
            0x03 => {
                let mut b = vec![0; 512];
                b[0] = 1;
                let text = format!("{:<8}", self.options.version);
                for (place, byte) in b[8..16].iter_mut().zip(text.bytes()) {
                    *place = byte;
                }
                b
            }
            _ => return Err(Status::LOG_PAGE),
        };
        let offset = usize::try_from(offset).ok().filter(|o| *o < page.len()).ok_or(Status::INVALID_FIELD)?;
        page.drain(..offset);
        page.resize(len as usize, 0);
        self.give(c, &page)
    }
    /// SMART / health information.
    fn health(&self, a: &Admin) -> Vec<u8> {
        let mut b = vec![0; 512];
        let temperature = 0x12cu16;
        let hot = temperature >= a.thresholds[0] || temperature <= a.thresholds[1];
        b[0] = u8::from(hot) << 1;
        b[1..3].copy_from_slice(&temperature.to_le_bytes());
        b[3] = 100;
        b[4] = 10;
        let [reads, read_bytes, writes, written] = self.drive.statistics();
        let units = |bytes: u64| bytes.div_ceil(512_000);
        for (at, value) in
            [(32, units(read_bytes)), (48, units(written)), (64, reads), (80, writes), (112, 1), (176, a.errors)]
        {
            b[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        b
    }

    fn set_feature(&self, a: &mut Admin, c: &Command) -> Answer {
        let value = c.dword(11);
        if c.dword(10) & 1 << 31 != 0 {
            return Err(Status::NOT_SAVEABLE);
        }
        match c.dword(10) as u8 {
            feature::ARBITRATION => a.arbitration = value & 0xffff_ff07,
            // One power state.
            feature::POWER if value & 0x1f == 0 => (),
            feature::TEMPERATURE => match (value >> 16 & 15, value >> 20 & 3) {
                (0, kind @ (0 | 1)) => a.thresholds[kind as usize] = value as u16,
                // Sensors that are not there, or all of them.
                (0xf, kind @ (0 | 1)) => a.thresholds[kind as usize] = value as u16,
                _ => return Err(Status::INVALID_FIELD),
            },
            feature::ERROR_RECOVERY => a.recovery = value & 0xffff,
            feature::WRITE_CACHE if self.drive.cache().write_cache() => {
                self.write_cache.store(value & 1 != 0, Ordering::Release);
            }
            feature::QUEUES => {
                let wanted = [value & 0xffff, value >> 16];
                if wanted.contains(&0xffff) {
                    return Err(Status::INVALID_FIELD);
                }
                let made = self.sqs.iter().skip(1).any(|q| q.read().is_some())
                    || self.cqs.iter().skip(1).any(|q| q.read().is_some());
                if made {
                    return Err(Status::SEQUENCE);
                }
                a.queues = wanted.map(|n| (n as u16 + 1).min(self.options.queues));
                return Ok(Some(self.queue_counts(a)));
            }
            feature::COALESCING => a.coalescing = value & 0xffff,
            feature::VECTOR => {
                let vector = value as u16;
                if self.msix.get().is_some_and(|m| vector >= m.vectors()) {
                    return Err(Status::INVALID_FIELD);
                }
                a.uncoalesced.retain(|v| *v != vector);
                if value & 1 << 16 != 0 {
                    a.uncoalesced.push(vector);
                }
            }
            feature::ATOMICITY => a.atomicity = value & 1,
            feature::EVENTS => a.event_config = value & 0x1f,
            _ => return Err(Status::INVALID_FIELD),
        }
        Ok(Some(0))
    }
    fn queue_counts(&self, a: &Admin) -> u32 {
        u32::from(a.queues[0].saturating_sub(1)) | u32::from(a.queues[1].saturating_sub(1)) << 16
    }
    fn get_feature(&self, a: &Admin, c: &Command) -> Answer {
        // Only current values (4.13.2: select is not there).
        if c.dword(10) >> 8 & 7 != 0 {
            return Err(Status::INVALID_FIELD);
        }
        Ok(Some(match c.dword(10) as u8 {
            feature::ARBITRATION => a.arbitration,
            feature::POWER => 0,
            feature::TEMPERATURE => match (c.dword(11) >> 16 & 15, c.dword(11) >> 20 & 3) {
                (0, kind @ (0 | 1)) => a.thresholds[kind as usize].into(),
                _ => return Err(Status::INVALID_FIELD),
            },
            feature::ERROR_RECOVERY => a.recovery,
            feature::WRITE_CACHE if self.drive.cache().write_cache() => self.write_cache.load(Ordering::Acquire).into(),
            feature::QUEUES => self.queue_counts(a),
            feature::COALESCING => a.coalescing,
            feature::VECTOR => {
                let vector = c.dword(11) as u16;
                if self.msix.get().is_some_and(|m| vector >= m.vectors()) {
                    return Err(Status::INVALID_FIELD);
                }
                // The admin queue's is never coalesced.
                u32::from(vector) | u32::from(vector == 0 || a.uncoalesced.contains(&vector)) << 16
            }
            feature::ATOMICITY => a.atomicity,
            feature::EVENTS => a.event_config,
            _ => return Err(Status::INVALID_FIELD),
        }))
    }

    /// An error that is told as an asynchronous event.
    pub(super) fn event(&self, event: Event) {
        {
            let mut a = self.admin.lock();
            a.errors += 1;
            // The command is not known.
            a.last_error = (0, 0xffff, 0);
            if !a.masked && !a.events.contains(&event) {
                a.events.push(event);
            }
        }
        self.tell_events();
    }
    fn tell_events(&self) {
        let mut told = None;
        {
            let mut a = self.admin.lock();
            let Some(sq) = self.sq(0) else { return };
            while !a.masked
                && !a.events.is_empty()
                && let Some(cid) = a.requests.pop()
            {
                let event = a.events.remove(0);
                // Others of this type wait until the log is read.
                a.masked = true;
                self.post(&sq, cid, Status::SUCCESS, (event as u32) << 8 | 1 << 16);
                told = Some(sq.clone());
            }
        }
        if let Some(sq) = told {
            self.interrupt(&sq.cq);
        }
    }
}
