//! The hypercalls H_INT_*.

use super::end::Queue;
use super::source::Eas;
use super::tima::NO_LINE;
use super::{LAST_PRIORITY, QUEUE_SIZES, Xive};
use crate::spapr::papr::{Answer, Args, Status, hcall as h};
use rhea_memory::Gpa;

/// Flags: bit 63 is the lowest.
const SOURCE_STORE_EOI: u64 = 1;
const SOURCE_TRIGGER: u64 = 2;
const SOURCE_LSI: u64 = 4;
const CONFIG_MASK: u64 = 1;
const CONFIG_EISN: u64 = 2;
const QUEUE_ALWAYS_NOTIFY: u64 = 1;
const QUEUE_DEBUG: u64 = 1;
const ESB_STORE: u64 = 1;
/// The priority that masks.
const MASKED: u64 = 0xff;

fn narrow(value: u64, error: Status) -> Answer<u32> {
    u32::try_from(value).map_err(|_| error)
}

fn no_flags(flags: u64, allowed: u64) -> Answer {
    if flags & !allowed == 0 { Ok(()) } else { Err(Status::PARAMETER) }
}

fn priority(value: u64, error: Status) -> Answer<u8> {
    u8::try_from(value).ok().filter(|p| *p <= LAST_PRIORITY).ok_or(error)
}

impl Xive {
    fn esb_address(&self, n: usize, second: bool) -> u64 {
        let shift = self.places.page_shift;
        self.places.esb + ((n as u64) << (shift + 1)) + (u64::from(second) << shift)
    }
    fn lisn(&self, value: u64) -> Answer<u32> {
        let lisn = narrow(value, Status::P2)?;
        self.source(lisn).map(|_| lisn).ok_or(Status::P2)
    }
    fn queue_of(&self, server: u64, prio: u64) -> Answer<(&super::End, usize)> {
        let prio = priority(prio, Status::P3)?;
        let server = narrow(server, Status::P2)?;
        let end = self.end(server, prio).ok_or(Status::P2)?;
        Ok((end, server as usize * 8 + usize::from(prio)))
    }

    /// One of H_INT_*; `None`: another one. `out` are R4 and up.
    pub fn hcall(&self, number: u64, args: &Args, out: &mut Args) -> Option<Status> {
        let result = match number {
            h::H_INT_GET_SOURCE_INFO => self.source_info(args, out),
            h::H_INT_SET_SOURCE_CONFIG => self.set_source(args),
            h::H_INT_GET_SOURCE_CONFIG => self.get_source(args, out),
            h::H_INT_GET_QUEUE_INFO => self.queue_info(args, out),
            h::H_INT_SET_QUEUE_CONFIG => self.set_queue(args),
            h::H_INT_GET_QUEUE_CONFIG => self.get_queue(args, out),
            h::H_INT_SET_OS_REPORTING_LINE => self.set_line(args),
            h::H_INT_GET_OS_REPORTING_LINE => self.get_line(args, out),
            h::H_INT_ESB => self.esb_access(args, out),
            // Events are in their queues when the store that triggers them is done.
            h::H_INT_SYNC => no_flags(args[0], 0).and_then(|()| self.lisn(args[1]).map(drop)),
            h::H_INT_RESET => no_flags(args[0], 0).map(|()| self.forget_configuration()),
            _ => return None,
        };
        Some(result.err().unwrap_or(Status::SUCCESS))
    }

    fn source_info(&self, args: &Args, out: &mut Args) -> Answer {
        no_flags(args[0], 0)?;
        let lisn = self.lisn(args[1])?;
        let level = self.source(lisn).is_some_and(super::Source::level);
        out[0] = SOURCE_STORE_EOI | if level { SOURCE_LSI } else { SOURCE_TRIGGER };
        out[1] = self.esb_address(lisn as usize, true);
        out[2] = if level { u64::MAX } else { self.esb_address(lisn as usize, false) };
        out[3] = self.places.page_shift.into();
        Ok(())
    }
    fn set_source(&self, args: &Args) -> Answer {
        let [flags, lisn, server, prio, data, ..] = *args;
        no_flags(flags, CONFIG_MASK | CONFIG_EISN)?;
        let lisn = self.lisn(lisn)?;
        let source = self.source(lisn).ok_or(Status::P2)?;
        if prio == MASKED {
            source.assign(Eas::RESET);
            return Ok(());
        }
        let prio = priority(prio, Status::P4)?;
        let server = narrow(server, Status::P3)?;
        self.end(server, prio).ok_or(Status::P3)?;
        let data = if flags & CONFIG_EISN != 0 { data as u32 } else { source.assignment().data };
        source.assign(Eas { masked: flags & CONFIG_MASK != 0, server, priority: prio, data });
        self.settle(source);
        Ok(())
    }
    fn get_source(&self, args: &Args, out: &mut Args) -> Answer {
        no_flags(args[0], 0)?;
        let lisn = self.lisn(args[1])?;
        let eas = self.source(lisn).ok_or(Status::P2)?.assignment();
        out[0] = eas.server.into();
        out[1] = if eas.masked { MASKED } else { eas.priority.into() };
        out[2] = eas.data.into();
        Ok(())
    }
    fn queue_info(&self, args: &Args, out: &mut Args) -> Answer {
        no_flags(args[0], 0)?;
        let (end, n) = self.queue_of(args[1], args[2])?;
        out[0] = self.esb_address(self.sources.len() + n, false);
        out[1] = end.get().shift.into();
        Ok(())
    }
    fn set_queue(&self, args: &Args) -> Answer {
        let [flags, server, prio, page, shift, ..] = *args;
        no_flags(flags, QUEUE_ALWAYS_NOTIFY)?;
        let (end, _) = self.queue_of(server, prio)?;
        let shift = narrow(shift, Status::P5)?;
        let page = match shift {
            0 => 0,
            _ if !QUEUE_SIZES.contains(&shift) => return Err(Status::P5),
            _ if page & ((1 << shift) - 1) != 0 => return Err(Status::P4),
            _ if self.memory.host_slice(Gpa(page), 1 << shift).is_none() => return Err(Status::P4),
            _ => page,
        };
        let always_notify = flags & QUEUE_ALWAYS_NOTIFY != 0;
        // Without a ring the queue is as after a reset.
        end.set(if shift == 0 {
            Queue::RESET
        } else {
            Queue { valid: true, always_notify, page, shift, ..Queue::RESET }
        });
        Ok(())
    }
    fn get_queue(&self, args: &Args, out: &mut Args) -> Answer {
        no_flags(args[0], QUEUE_DEBUG)?;
        let (end, _) = self.queue_of(args[1], args[2])?;
        let q = end.get();
        out[0] = if q.always_notify { QUEUE_ALWAYS_NOTIFY } else { 0 };
        out[1] = q.page;
        out[2] = q.shift.into();
        out[3] = 0;
        if args[0] & QUEUE_DEBUG != 0 {
            out[0] |= u64::from(q.generation) << 1;
            out[3] = q.index.into();
        }
        Ok(())
    }
    fn set_line(&self, args: &Args) -> Answer {
        let [flags, server, line, ..] = *args;
        no_flags(flags, 0)?;
        let server = narrow(server, Status::P2)?;
        let context = self.context(server).ok_or(Status::P2)?;
        // Two cache lines of 128 bytes in RAM; all ones takes it back.
        if line != NO_LINE && (line & 0xff != 0 || self.memory.host_slice(Gpa(line), 256).is_none()) {
            return Err(Status::P3);
        }
        context.set_reporting(line);
        Ok(())
    }
    fn get_line(&self, args: &Args, out: &mut Args) -> Answer {
        no_flags(args[0], 0)?;
        let server = narrow(args[1], Status::P2)?;
        out[0] = self.context(server).ok_or(Status::P2)?.reporting();
        Ok(())
    }
    fn esb_access(&self, args: &Args, out: &mut Args) -> Answer {
        let [flags, lisn, offset, ..] = *args;
        no_flags(flags, ESB_STORE)?;
        let lisn = self.lisn(lisn)?;
        if offset >= 1 << self.places.page_shift {
            return Err(Status::P3);
        }
        let store = flags & ESB_STORE != 0;
        let value = self.esb(lisn, offset, store);
        out[0] = if store { u64::MAX } else { value };
        Ok(())
    }
}
