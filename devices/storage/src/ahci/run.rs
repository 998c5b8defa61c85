//! The command list: fetching commands, moving data, telling of the end (5.3, 5.5, 5.6).

use super::port::{PortState, interrupt};
use super::{Hba, SLOTS, fis};
use crate::ata::{Action, AtaDevice, Protocol, Registers, Taskfile, command, error, status};
use crate::guest::{self, Piece};
use crate::work::{self, Work};
use rhea_block::{Drive, Operation};
use rhea_device::log_guest_error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const HEADER: u64 = 32;
const PACKET_AT: u64 = 0x40;
const PRDT_AT: u64 = 0x80;
const PRD: usize = 16;
/// Entries read at once.
const PRD_BATCH: usize = 64;
/// Command header flags (4.2.2).
const HEADER_PREFETCH_RESERVED: u32 = 0x1f;
const HEADER_PACKET: u32 = 1 << 5;
/// Requests run on the caller's thread in a row, before the drive's threads get them.
const INLINE: u32 = 64;

/// A command under way.
#[derive(Clone, Copy)]
struct Command {
    slot: u8,
    tf: Taskfile,
    /// It has a tag.
    queued: bool,
    header: u64,
    epoch: u64,
}

/// What the PRD table gives for a transfer.
#[derive(Default)]
struct Table {
    pieces: Vec<Piece>,
    bytes: u64,
    /// An entry with its interrupt bit was used.
    descriptor: bool,
}

/// A transfer at the drive.
#[derive(Clone, Copy)]
struct Transfer {
    bytes: u64,
    /// Bytes of the last block of a PIO transfer.
    protocol: Protocol,
    write: bool,
    descriptor: bool,
    overflow: bool,
}

struct Job {
    command: Command,
    drive: Arc<Drive>,
    work: Work,
    transfer: Option<Transfer>,
}

/// Why the command list stops.
enum Fatal {
    /// A bad address.
    Bus,
    /// A bad frame.
    Interface,
}

fn word(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

/// Bytes of the last of the blocks that `len` bytes take.
fn last_block(len: u64, block: u32) -> u16 {
    let block = u64::from(block.max(2));
    let rest = len % block;
    (if rest == 0 && len > 0 { block.min(len) } else { rest }) as u16
}

impl Hba {
    /// Begins what waits in port `n`'s command list, as far as the device takes it.
    pub(crate) fn run(hba: &Arc<Self>, n: u8) {
        let mut inline = 0;
        loop {
            let jobs = hba.collect(n);
            if jobs.is_empty() {
                return;
            }
            for Job { command, drive, work, transfer } in jobs {
                let work = if inline < INLINE { work::try_now(&drive, work) } else { Err(work) };
                match work {
                    Ok((result, segments)) => {
                        inline += 1;
                        guest::unpin(&segments);
                        hba.finish(n, &command, transfer, &result);
                    }
                    Err(work) => {
                        let hba = hba.clone();
                        let done = move |result: io::Result<()>, segments: Vec<_>| {
                            guest::unpin(&segments);
                            hba.finish(n, &command, transfer, &result);
                            Hba::run(&hba, n);
                        };
                        work::submit(&drive, work, Box::new(done));
                    }
                }
            }
        }
    }

    /// Takes commands from the list; those that need the drive are returned.
    fn collect(&self, n: u8) -> Vec<Job> {
        let mut jobs = Vec::new();
        let Some(port) = self.ports.get(usize::from(n)) else { return jobs };
        let Some(device) = port.device() else { return jobs };
        {
            let s = &mut *port.state.lock();
            // Each round ends a command, gives one to the drive, or stops; and a slot is visited once in a call, so that the list
            // of a program that keeps filling it is left now and then.
            for _ in 0..SLOTS {
                if !s.running() || s.r.ci == 0 || self.paused.load(Ordering::SeqCst) || !self.dma.enabled() {
                    break;
                }
                let from = u32::from(s.r.next) % SLOTS;
                let slot = ((from + s.r.ci.rotate_right(from).trailing_zeros()) % SLOTS) as u8;
                s.r.slot = slot;
                s.r.next = (slot + 1) % SLOTS as u8;
                match self.fetch(n, s, port, device, slot) {
                    Ok(Some(job)) => {
                        s.inflight += 1;
                        jobs.push(job);
                    }
                    Ok(None) => (),
                    Err(why) => {
                        s.r.fatal = true;
                        let bit = match why {
                            Fatal::Bus => interrupt::BUS_FATAL,
                            Fatal::Interface => interrupt::INTERFACE_FATAL,
                        };
                        log_guest_error!(self.log, &self.name, "bad command in a command list");
                        s.raise(self, n, bit);
                    }
                }
            }
        }
        self.signal();
        jobs
    }

    fn fetch(
        &self,
        n: u8,
        s: &mut PortState,
        port: &super::port::Port,
        device: &Arc<dyn AtaDevice>,
        slot: u8,
    ) -> Result<Option<Job>, Fatal> {
        let mut h = [0; 16];
        let header = s.r.clb.wrapping_add(u64::from(slot) * HEADER);
        self.dma.read_ram(header, &mut h).map_err(|_| Fatal::Bus)?;
        let flags = word(&h, 0);
        let table = u64::from(word(&h, 12)) << 32 | u64::from(word(&h, 8) & !0x7f);
        let length = flags & HEADER_PREFETCH_RESERVED;
        if !(2..=16).contains(&length) {
            return Err(Fatal::Interface);
        }
        let mut frame = [0; 64];
        self.dma.read_ram(table, &mut frame).map_err(|_| Fatal::Bus)?;
        frame[length as usize * 4..].fill(0);
        if frame[0] != fis::HOST_TO_DEVICE {
            return Err(Fatal::Interface);
        }
        let tf = Taskfile::of_fis(&frame);
        if frame[1] & 0x80 == 0 {
            // Device control.
            s.r.ci &= !(1 << slot);
            let on = tf.control & 1 << 2 != 0;
            if on || s.r.soft_reset {
                port.soft_reset(self, n, s, on);
            }
            return Ok(None);
        }
        let mut packet = [0; 16];
        if flags & HEADER_PACKET != 0 {
            self.dma.read_ram(table + PACKET_AT, &mut packet).map_err(|_| Fatal::Bus)?;
        }
        let queued = command::is_queued(tf.command) && !device.is_packet();
        let cmd = Command { slot, tf, queued, header, epoch: s.epoch };
        s.r.soft_reset = false;
        if !queued && s.r.queued != 0 {
            // It is refused, and the queue with it (ACS-3 4.15.2).
            let end = Registers::failed(&tf, error::ABRT);
            device.queue_error(&tf, &end, false);
            s.epoch += 1;
            s.r.queued = 0;
            self.end(n, s, &cmd, &end);
            return Ok(None);
        }
        let prdtl = flags >> 16;
        let mut action = device.command(&tf, &packet);
        if let Action::Out { len, protocol } = action {
            let prds = self.table(table, prdtl, len as u64)?;
            let mut data = vec![0; len];
            let got = guest::gather(&self.dma, &prds.pieces, &mut data).map_err(|_| Fatal::Bus)?;
            if got < len {
                let end = Registers::failed(&tf, error::ABRT);
                self.end(n, s, &cmd, &end);
                return Ok(None);
            }
            self.moved(n, s, &cmd, prds.descriptor, len as u64);
            self.pio_frame(n, s, &tf, protocol, len as u64, false, false);
            action = device.data_out(&tf, &packet, &data);
        }
        if queued {
            // The device takes the command and is ready for the next.
            let tag = u32::from(tf.tag());
            if s.r.queued >> tag & 1 != 0 {
                action = Action::End(Registers::failed(&tf, error::ABRT));
            }
            s.r.ci &= !(1 << slot);
            s.r.queued |= 1 << tag;
            s.r.status = status::GOOD;
            s.r.error = 0;
            if let Action::End(r) = &action {
                self.end_queued(n, s, &cmd, device, r);
                return Ok(None);
            }
        }
        let (drive, work, transfer) = match action {
            Action::End(r) => {
                self.end(n, s, &cmd, &r);
                return Ok(None);
            }
            Action::In { data, protocol, end } => {
                let prds = self.table(table, prdtl, data.len() as u64)?;
                let stored = guest::scatter(&self.dma, &prds.pieces, &data).map_err(|_| Fatal::Bus)? as u64;
                let transfer = Transfer {
                    bytes: stored,
                    protocol,
                    write: false,
                    descriptor: prds.descriptor,
                    overflow: stored < data.len() as u64,
                };
                self.end_transfer(n, s, &cmd, transfer, &end);
                return Ok(None);
            }
            // data_out does not ask again.
            Action::Out { .. } | Action::Nothing => {
                s.r.status = status::BSY | status::DRDY;
                s.r.current = Some(slot);
                return Ok(None);
            }
            Action::Run { drive, work } => (drive, work, None),
            Action::Transfer { drive, offset, len, write, flush, protocol } => {
                let prds = self.table(table, prdtl, len)?;
                let overflow = prds.bytes < len;
                if overflow && write {
                    // The host does not have the data it announced.
                    let end = Registers::failed(&tf, error::ABRT);
                    if queued {
                        self.end_queued(n, s, &cmd, device, &end);
                    } else {
                        self.end(n, s, &cmd, &end);
                    }
                    return Ok(None);
                }
                let segments = guest::segments(&self.dma, &prds.pieces, !write).ok_or(Fatal::Bus)?;
                let operation = match write {
                    true => Operation::Write { offset, segments, flush },
                    false => Operation::Read { offset, segments },
                };
                let transfer = Transfer { bytes: prds.bytes, protocol, write, descriptor: prds.descriptor, overflow };
                if write {
                    self.pio_frame(n, s, &tf, protocol, len, false, false);
                }
                (drive, Work::One(operation), Some(transfer))
            }
        };
        if !queued {
            s.r.status = status::BSY | status::DRDY;
            s.r.current = Some(slot);
        }
        Ok(Some(Job { command: Command { epoch: s.epoch, ..cmd }, drive, work, transfer }))
    }

    /// The first entries of the PRD table, as far as `len` bytes reach (4.2.3.3).
    fn table(&self, table: u64, prdtl: u32, len: u64) -> Result<Table, Fatal> {
        let mut t = Table::default();
        let mut entries = [0; PRD * PRD_BATCH];
        let mut n = 0;
        while n < prdtl && t.bytes < len {
            let batch = ((prdtl - n) as usize).min(PRD_BATCH);
            let at = table.wrapping_add(PRDT_AT + u64::from(n) * PRD as u64);
            self.dma.read_ram(at, &mut entries[..batch * PRD]).map_err(|_| Fatal::Bus)?;
            for e in entries[..batch * PRD].chunks_exact(PRD) {
                let address = u64::from(word(e, 4)) << 32 | u64::from(word(e, 0) & !1);
                let info = word(e, 12);
                // The count is of bytes less one, and even bytes go.
                let bytes = u64::from(info & 0x3f_ffff | 1) + 1;
                let used = bytes.min(len - t.bytes);
                t.pieces.push((address, used));
                t.bytes += used;
                t.descriptor |= info >> 31 != 0;
                if t.bytes >= len {
                    break;
                }
            }
            n += batch as u32;
        }
        Ok(t)
    }

    /// The drive is done.
    fn finish(&self, n: u8, cmd: &Command, transfer: Option<Transfer>, result: &io::Result<()>) {
        let Some(port) = self.ports.get(usize::from(n)) else { return };
        let Some(device) = port.device() else { return };
        {
            let s = &mut *port.state.lock();
            if s.epoch == cmd.epoch {
                let end = device.finished(&cmd.tf, result);
                if cmd.queued {
                    self.end_queued_transfer(n, s, cmd, device, transfer, &end);
                } else {
                    match transfer {
                        Some(t) => self.end_transfer(n, s, cmd, t, &end),
                        None => self.end(n, s, cmd, &end),
                    }
                }
            }
            s.inflight = s.inflight.saturating_sub(1);
            if s.inflight == 0 {
                port.at_rest(self, n, s);
            }
        }
        self.signal();
    }

    /// Notes the bytes moved in the command header, and descriptors that asked for an interrupt.
    fn moved(&self, n: u8, s: &mut PortState, cmd: &Command, descriptor: bool, bytes: u64) {
        if !cmd.queued && self.dma.write_ram(cmd.header + 4, &(bytes as u32).to_le_bytes()).is_err() {
            s.r.fatal = true;
            s.raise(self, n, interrupt::BUS_FATAL);
        }
        if descriptor {
            s.raise(self, n, interrupt::DESCRIPTOR);
        }
    }

    /// The PIO Setup frame of the last block of `len` bytes, if the data goes so.
    fn pio_frame(
        &self,
        n: u8,
        s: &mut PortState,
        tf: &Taskfile,
        protocol: Protocol,
        len: u64,
        to_host: bool,
        tell: bool,
    ) {
        let (block, packet) = match protocol {
            _ if len == 0 => return,
            Protocol::Dma => return,
            Protocol::Pio(block) => (block, false),
            Protocol::PacketPio(limit) => (limit, true),
        };
        let mut r = Registers::good(tf);
        let count = last_block(len, block);
        if packet {
            // Interrupt reason: data, its direction; byte count.
            r.count = if to_host { 2 } else { 0 };
            r.lba = u64::from(count) << 8;
        }
        // What follows the block: the end, or with PACKET and from the host first a Register frame.
        let end = if to_host && !packet { status::GOOD } else { status::BSY | status::GOOD };
        let frame = fis::pio_setup(&r, status::GOOD | status::DRQ, end, count, to_host, tell);
        s.receive(self, n, fis::PIO_SETUP_AT, &frame);
        if tell {
            s.raise(self, n, interrupt::PIO_SETUP);
        }
    }

    fn end_transfer(&self, n: u8, s: &mut PortState, cmd: &Command, t: Transfer, end: &Registers) {
        if end.is_error() {
            self.end(n, s, cmd, end);
            return;
        }
        self.moved(n, s, cmd, t.descriptor, t.bytes);
        if t.overflow {
            s.raise(self, n, interrupt::OVERFLOW);
        }
        if !t.write {
            self.pio_frame(n, s, &cmd.tf, t.protocol, t.bytes, true, true);
        }
        if !t.write && matches!(t.protocol, Protocol::Pio(_)) {
            // The status that came with the last PIO Setup is the end.
            s.r.status = end.status;
            s.r.error = end.error;
            s.r.current = None;
            s.r.ci &= !(1 << cmd.slot);
        } else {
            self.end(n, s, cmd, end);
        }
    }

    /// A command without queuing ends with a Register frame.
    fn end(&self, n: u8, s: &mut PortState, cmd: &Command, end: &Registers) {
        s.r.current = None;
        if end.is_error() {
            // The slot stays, for software to see which it was.
            s.r.fatal = true;
            s.registers(self, n, end, true);
            s.raise(self, n, interrupt::TASK_FILE);
        } else {
            s.r.ci &= !(1 << cmd.slot);
            s.registers(self, n, end, true);
        }
    }

    fn end_queued_transfer(
        &self,
        n: u8,
        s: &mut PortState,
        cmd: &Command,
        device: &Arc<dyn AtaDevice>,
        transfer: Option<Transfer>,
        end: &Registers,
    ) {
        if let (Some(t), false) = (transfer, end.is_error()) {
            let frame = fis::dma_setup(cmd.tf.tag(), t.bytes, !t.write);
            s.receive(self, n, fis::DMA_SETUP_AT, &frame);
            self.moved(n, s, cmd, t.descriptor, t.bytes);
            if t.overflow {
                s.raise(self, n, interrupt::OVERFLOW);
            }
        }
        self.end_queued(n, s, cmd, device, end);
    }

    /// A queued command ends with a Set Device Bits frame; an error ends the whole queue.
    fn end_queued(&self, n: u8, s: &mut PortState, cmd: &Command, device: &Arc<dyn AtaDevice>, end: &Registers) {
        let bit = 1u32 << cmd.tf.tag();
        let done = if end.is_error() { 0 } else { bit };
        s.r.status = s.r.status & (status::BSY | status::DRQ) | end.status & !(status::BSY | status::DRQ);
        s.r.error = end.error;
        s.r.sact &= !done;
        s.r.queued &= !bit;
        let frame = fis::set_bits(end.status, end.error, done);
        s.receive(self, n, fis::SET_BITS_AT, &frame);
        if end.is_error() {
            device.queue_error(&cmd.tf, end, true);
            s.epoch += 1;
            s.r.queued = 0;
            s.r.fatal = true;
            s.raise(self, n, interrupt::SET_BITS | interrupt::TASK_FILE);
        } else {
            s.raise(self, n, interrupt::SET_BITS);
        }
    }
}
