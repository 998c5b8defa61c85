//! The partition's state as a device's.

use super::{Outcome, Partition, Registered};
use crate::pseries::cas::OptionVector;
use crate::pseries::client::Client;
use crate::pseries::options::Compat;
use minicbor::{Decode, Encode};
use rhea_device::state::{decode, encode};
use rhea_device::{Device, LoadError, Saved};
use rhea_firmware::FdtNode;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const VERSION: u32 = 1;

#[derive(Encode, Decode)]
struct ThreadState {
    #[n(0)]
    present: bool,
    #[n(1)]
    running: bool,
    #[n(2)]
    joined: bool,
    #[n(3)]
    vpa: u64,
    #[n(4)]
    slb_shadow: (u64, u64),
    #[n(5)]
    dispatch_log: (u64, u64),
}

#[derive(Encode, Decode)]
struct State {
    /// Logical PVR; 0: none was negotiated.
    #[n(0)]
    compat: u32,
    /// XIVE, radix, GTSE.
    #[n(1)]
    modes: (bool, bool, bool),
    #[n(2)]
    vec5: Vec<u8>,
    #[n(3)]
    process_table: u64,
    #[n(4)]
    nmi: Option<(u64, u64)>,
    #[n(5)]
    rtas: Option<u64>,
    /// The tree that firmware has handed over, flattened.
    #[n(6)]
    tree: Option<Vec<u8>>,
    #[n(7)]
    client: Option<Client>,
    #[n(8)]
    input: Vec<u8>,
    #[n(9)]
    threads: Vec<ThreadState>,
    /// Connectors: index, state, flags, indicator.
    #[n(10)]
    connectors: Vec<(u32, u8, u8, u32)>,
    /// Events that wait: power, hot-plug.
    #[n(11)]
    events: (Vec<Vec<u8>>, Vec<Vec<u8>>),
    /// The hashed page table: log2 of its bytes, and its entries that are not zero.
    #[n(12)]
    hpt_order: u32,
    #[n(13)]
    hpt: Vec<(u64, u64, u64)>,
    #[n(14)]
    little_endian: bool,
}

/// The partition among the devices. Its power-on state is the board's to make.
pub struct PartitionDevice(pub Arc<Partition>);

impl PartitionDevice {
    fn check(&self, s: &State) -> Result<Option<Compat>, LoadError> {
        let p = &self.0;
        let damaged = |what: &str| Err(LoadError::Damaged(what.to_owned()));
        let compat = Compat::of_logical_pvr(s.compat);
        if s.compat != 0 && compat.is_none_or(|c| c > p.offer.newest) {
            return Err(LoadError::Mismatch(format!("the processors have no level {:#x}", s.compat)));
        }
        if s.modes.1 && !p.offer.radix {
            return Err(LoadError::Mismatch("the processors have no radix translation".to_owned()));
        }
        if s.threads.len() != p.threads.len() || s.vec5.len() > 256 || s.input.len() > 16 {
            return damaged("number of processors, or length of a list");
        }
        if s.threads.iter().zip(&p.threads).any(|(s, t)| s.present != t.present.load(Ordering::SeqCst)) {
            return Err(LoadError::Mismatch("other processors are plugged".to_owned()));
        }
        Ok(compat)
    }
}

impl Device for PartitionDevice {
    fn name(&self) -> &str {
        "spapr-partition"
    }
    fn reset(&self) {}
    fn blocker(&self) -> Option<String> {
        self.0.kernel.get().map(|_| "its state is in the kernel".to_owned())
    }
    fn save(&self) -> Saved {
        let p = &self.0;
        if p.kernel.get().is_some() {
            return Saved::NotMigratable("its state is in the kernel");
        }
        let Some(hpt) = p.hpt.save() else {
            return Saved::NotMigratable("the guest is changing the size of its hashed page table");
        };
        let Outcome { compat, xive, radix, gtse, vec5 } = p.outcome();
        let threads = p.threads.iter().map(|t| {
            let Registered { vpa, slb_shadow, dispatch_log } = *t.registered.lock();
            let flag = |f: &std::sync::atomic::AtomicBool| f.load(Ordering::SeqCst);
            let (present, running, joined) = (flag(&t.present), flag(&t.running), flag(&t.joined));
            ThreadState { present, running, joined, vpa, slb_shadow, dispatch_log }
        });
        let state = State {
            compat: compat.map_or(0, Compat::logical_pvr),
            modes: (xive, radix, gtse),
            vec5: vec5.bytes().to_vec(),
            process_table: p.process_table.load(Ordering::SeqCst),
            nmi: *p.nmi.lock(),
            rtas: *p.rtas.lock(),
            tree: p.updated.lock().as_ref().and_then(|t| t.to_blob().ok()),
            client: p.client.lock().clone(),
            input: p.input.lock().iter().copied().collect(),
            threads: threads.collect(),
            connectors: p.drcs.save(),
            events: p.late().map(|l| l.events.save()).unwrap_or_default(),
            hpt_order: p.hpt.order(),
            hpt,
            little_endian: p.little_endian.load(Ordering::SeqCst),
        };
        encode(VERSION, &state)
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        let s: State = decode(saved, VERSION)?;
        let compat = self.check(&s)?;
        let p = &self.0;
        let damaged = |what: &str| LoadError::Damaged(what.to_owned());
        let tree = s.tree.map(|blob| FdtNode::parse(&blob)).transpose();
        let tree = tree.map_err(|e| LoadError::Damaged(format!("field 6: {e}")))?;
        if s.client.as_ref().is_some_and(|c| !c.is_sound()) {
            return Err(damaged("field 7: the client interface's tree"));
        }
        if !p.drcs.load(&s.connectors) {
            return Err(LoadError::Mismatch("field 10: other connectors, or what is at them".to_owned()));
        }
        if !p.hpt.load(s.hpt_order, &s.hpt) {
            return Err(damaged("field 13: the hashed page table"));
        }
        let (xive, radix, gtse) = s.modes;
        *p.outcome.lock() = Outcome { compat, xive, radix, gtse, vec5: OptionVector::new(&s.vec5) };
        p.process_table.store(s.process_table, Ordering::SeqCst);
        *p.nmi.lock() = s.nmi;
        *p.rtas.lock() = s.rtas;
        *p.updated.lock() = tree;
        *p.client.lock() = s.client;
        *p.input.lock() = s.input.into();
        for (thread, s) in p.threads.iter().zip(s.threads) {
            thread.running.store(s.running, Ordering::SeqCst);
            thread.joined.store(s.joined, Ordering::SeqCst);
            *thread.registered.lock() =
                Registered { vpa: s.vpa, slb_shadow: s.slb_shadow, dispatch_log: s.dispatch_log };
        }
        if let Some(late) = p.late() {
            late.events.load(s.events);
        }
        p.set_byte_order(s.little_endian);
        Ok(())
    }
}
