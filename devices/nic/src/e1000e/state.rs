//! Saved state.

use super::tx::{Context, TxQueue};
use super::{Controller, QUEUES};
use minicbor::{Decode, Encode};
use rhea_device::state::{decode, encode};
use rhea_device::{LoadError, Saved};
use rhea_pci::PciConfigState;
use std::sync::atomic::Ordering;

const VERSION: u32 = 1;

#[derive(Encode, Decode)]
struct Queue {
    #[n(0)]
    context: [u32; 4],
    #[n(1)]
    packet: Vec<u8>,
    #[n(2)]
    open: bool,
    #[n(3)]
    options: u8,
    #[n(4)]
    segment: bool,
    #[n(5)]
    broken: bool,
}

#[derive(Encode, Decode)]
struct All {
    #[n(0)]
    config: PciConfigState,
    #[n(1)]
    registers: Vec<u32>,
    #[n(2)]
    phy: Vec<u16>,
    #[n(3)]
    nvm: Vec<u16>,
    #[n(4)]
    queues: Vec<Queue>,
    #[n(5)]
    io_address: u64,
    /// None: of before links could be down.
    #[n(6)]
    link: Option<bool>,
}

pub fn save(c: &Controller, config: PciConfigState) -> Saved {
    let s = c.state.lock();
    let queues = s.tx.iter().map(|q| Queue {
        context: q.context.0,
        packet: q.packet.clone(),
        open: q.open,
        options: q.options,
        segment: q.segment,
        broken: q.broken,
    });
    let all = All {
        config,
        registers: s.registers.clone(),
        phy: s.phy.registers.clone(),
        nvm: s.nvm.clone(),
        queues: queues.collect(),
        io_address: c.io_address.load(Ordering::SeqCst),
        link: Some(s.phy.up),
    };
    drop(s);
    encode(VERSION, &all)
}

/// Takes over all but the configuration space, which is returned.
///
/// # Errors
/// The state is not of this device.
pub fn load(c: &Controller, saved: &Saved) -> Result<PciConfigState, LoadError> {
    let all: All = decode(saved, VERSION)?;
    let s = &mut *c.state.lock();
    if all.registers.len() != s.registers.len()
        || all.phy.len() != s.phy.registers.len()
        || all.nvm.len() != s.nvm.len()
        || all.queues.len() != QUEUES
    {
        return Err(LoadError::Mismatch("registers of the network controller".to_owned()));
    }
    (s.registers, s.phy.registers, s.nvm) = (all.registers, all.phy, all.nvm);
    for (q, saved) in s.tx.iter_mut().zip(all.queues) {
        *q = TxQueue {
            context: Context(saved.context),
            packet: saved.packet,
            open: saved.open,
            options: saved.options,
            segment: saved.segment,
            broken: saved.broken,
        };
    }
    s.starved = false;
    s.phy.up = all.link.unwrap_or(true);
    c.backend.restore_link(s.phy.up);
    c.io_address.store(all.io_address & 0xf_ffff, Ordering::SeqCst);
    Ok(all.config)
}
