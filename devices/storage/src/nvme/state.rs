//! Saved state. The controller is at rest: no command uses memory.

use super::admin::{Admin, Event};
use super::queue::{Cq, Sq};
use super::{Controller, MAX_ENTRIES, MAX_PAGE_SHIFT, Registers};
use minicbor::{Decode, Encode};
use rhea_device::{LoadError, Saved, state};
use rhea_pci::PciConfigState;
use std::sync::atomic::Ordering;

#[derive(Encode, Decode)]
struct CqSaved {
    #[n(0)]
    id: u16,
    #[n(1)]
    base: u64,
    #[n(2)]
    size: u32,
    #[n(3)]
    vector: u16,
    #[n(4)]
    interrupts: bool,
    #[n(5)]
    head: u32,
    #[n(6)]
    tail: u32,
    #[n(7)]
    phase: bool,
    /// Completions without room: queue, command, result, status field.
    #[n(8)]
    waiting: Vec<(u16, u16, u32, u16)>,
}

#[derive(Encode, Decode)]
struct SqSaved {
    #[n(0)]
    id: u16,
    #[n(1)]
    base: u64,
    #[n(2)]
    size: u32,
    #[n(3)]
    cq: u16,
    #[n(4)]
    head: u32,
    #[n(5)]
    tail: u32,
}

#[derive(Encode, Decode)]
struct AdminSaved {
    #[n(0)]
    requests: Vec<u16>,
    /// Events not told: true is a bad value, false a bad register.
    #[n(1)]
    events: Vec<bool>,
    #[n(2)]
    masked: bool,
    #[n(3)]
    arbitration: u32,
    #[n(4)]
    recovery: u32,
    #[n(5)]
    coalescing: u32,
    #[n(6)]
    atomicity: u32,
    #[n(7)]
    event_config: u32,
    #[n(8)]
    thresholds: [u16; 2],
    #[n(9)]
    uncoalesced: Vec<u16>,
    #[n(10)]
    queues: [u16; 2],
    #[n(11)]
    errors: u64,
    #[n(12)]
    last_error: (u16, u16, u16),
}

#[derive(Encode, Decode)]
struct State {
    #[n(0)]
    config: PciConfigState,
    #[n(1)]
    cc: u32,
    #[n(2)]
    csts: u32,
    #[n(3)]
    aqa: u32,
    #[n(4)]
    asq: u64,
    #[n(5)]
    acq: u64,
    #[n(6)]
    on: bool,
    #[n(7)]
    fatal: bool,
    #[n(8)]
    mask: u32,
    #[n(9)]
    page: u32,
    #[n(10)]
    write_cache: bool,
    #[n(11)]
    cqs: Vec<CqSaved>,
    #[n(12)]
    sqs: Vec<SqSaved>,
    #[n(13)]
    admin: AdminSaved,
}

pub fn save(c: &Controller, config: PciConfigState) -> Saved {
    let Registers { cc, csts, aqa, asq, acq, on } = *c.registers.lock();
    let Admin {
        requests,
        events,
        masked,
        arbitration,
        recovery,
        coalescing,
        atomicity,
        event_config,
        thresholds,
        uncoalesced,
        queues,
        errors,
        last_error,
    } = c.admin.lock().clone();
    let cqs = c.cqs.iter().filter_map(|q| q.read().clone()).map(|q| {
        let (head, tail, phase) = q.place();
        CqSaved {
            id: q.id,
            base: q.base,
            size: q.size,
            vector: q.vector,
            interrupts: q.interrupts,
            head,
            tail,
            phase,
            waiting: q.waiting(),
        }
    });
    let sqs = c.sqs.iter().filter_map(|q| q.read().clone()).map(|q| SqSaved {
        id: q.id,
        base: q.base,
        size: q.size,
        cq: q.cq.id,
        head: q.head.load(Ordering::Acquire),
        tail: q.tail.load(Ordering::Acquire),
    });
    state::encode(
        1,
        &State {
            config,
            cc,
            csts,
            aqa,
            asq,
            acq,
            on,
            fatal: c.fatal.load(Ordering::SeqCst),
            mask: c.mask.load(Ordering::SeqCst),
            page: c.page.load(Ordering::Acquire),
            write_cache: c.write_cache.load(Ordering::Acquire),
            cqs: cqs.collect(),
            sqs: sqs.collect(),
            admin: AdminSaved {
                requests,
                events: events.iter().map(|e| *e == Event::BadValue).collect(),
                masked,
                arbitration,
                recovery,
                coalescing,
                atomicity,
                event_config,
                thresholds,
                uncoalesced,
                queues,
                errors,
                last_error,
            },
        },
    )
}

/// Takes over everything but the configuration space, which is returned.
pub fn load(c: &Controller, saved: &Saved) -> Result<PciConfigState, LoadError> {
    let s: State = state::decode(saved, 1)?;
    let bad = |what: &str| LoadError::Mismatch(format!("{}: {what}", c.name));
    c.reset();
    for q in s.cqs {
        let place = c.cqs.get(usize::from(q.id)).ok_or_else(|| bad("number of queues"))?;
        if q.size > MAX_ENTRIES.max(4096) {
            return Err(bad("size of a queue"));
        }
        let cq = Cq::at(q.id, q.base, q.size, q.vector, q.interrupts, (q.head, q.tail, q.phase));
        *place.write() = Some(cq.clone());
        for n in s.sqs.iter().filter(|n| n.cq == q.id) {
            let place = c.sqs.get(usize::from(n.id)).ok_or_else(|| bad("number of queues"))?;
            if n.size > MAX_ENTRIES.max(4096) {
                return Err(bad("size of a queue"));
            }
            *place.write() = Some(Sq::at(n.id, n.base, n.size, &cq, n.head, n.tail));
        }
        for (id, cid, result, status) in q.waiting.into_iter().take(4096 * 4) {
            // The queue may have been deleted since; its completions still come.
            let sq = c.sq(id).unwrap_or_else(|| Sq::new(id, 0, 2, &cq));
            cq.restore_waiting(&sq, cid, result, status);
        }
        cq.recount(&c.told);
    }
    let a = s.admin;
    if let Some(sq) = c.sq(0) {
        sq.busy.fetch_add(a.requests.len().min(super::admin::MAX_EVENTS) as u32, Ordering::AcqRel);
    }
    let most = c.options.queues;
    *c.admin.lock() = Admin {
        requests: a.requests.into_iter().take(super::admin::MAX_EVENTS).collect(),
        events: a.events.into_iter().take(2).map(|v| if v { Event::BadValue } else { Event::BadRegister }).collect(),
        masked: a.masked,
        arbitration: a.arbitration,
        recovery: a.recovery,
        coalescing: a.coalescing,
        atomicity: a.atomicity,
        event_config: a.event_config,
        thresholds: a.thresholds,
        uncoalesced: a.uncoalesced,
        queues: a.queues.map(|n| n.min(most)),
        errors: a.errors,
        last_error: a.last_error,
    };
    *c.registers.lock() = Registers { cc: s.cc, csts: s.csts, aqa: s.aqa, asq: s.asq, acq: s.acq, on: s.on };
    c.fatal.store(s.fatal, Ordering::SeqCst);
    c.mask.store(s.mask, Ordering::SeqCst);
    c.page.store(s.page.min(MAX_PAGE_SHIFT), Ordering::Release);
    c.write_cache.store(s.write_cache, Ordering::Release);
    Ok(s.config)
}
