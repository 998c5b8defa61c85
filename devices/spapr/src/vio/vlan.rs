//! The interpartition logical LAN (LoPAPR 17.4): buffers for reception are given by hypercall, what was received is told in a queue in
//! guest memory, frames are sent by hypercall.

use super::{SlotState, VioDevice, VioKind, VioSlot};
use crate::Node;
use crate::papr::{Answer, Args, Status, hcall as h};
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_device::state::{decode, encode};
use rhea_device::{Device, LoadError, Saved};
use rhea_net::{MAX_FRAME, NetBackend, NetFrontend, Offload};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};

pub const KIND: VioKind = VioKind {
    name: "l-lan",
    device_type: "network",
    compatible: "IBM,l-lan",
    signals: 1,
    window: 0x1000_0000,
    interrupt: true,
};

/// Buffer descriptors: valid, toggle, 24 bits of length, 32 of address.
const VALID: u64 = 1 << 63;
const TOGGLE: u64 = 1 << 62;
/// An entry of the receive queue.
const ENTRY: u64 = 16;
const ENTRY_VALID: u8 = 0x40;
const ENTRY_TOGGLE: u8 = 0x80;
/// The first bytes of a buffer are the guest's handle; the frame follows.
const HANDLE: u64 = 8;
const PAGE: u64 = 4096;
/// The buffer list page: descriptors of the receive queue and of the filter list; the last entry counts frames that were dropped.
const LIST_QUEUE: u64 = 0;
const LIST_FILTER: u64 = 8;
const LIST_DROPPED: u64 = PAGE - 8;
/// Buffers that are held.
const MOST_BUFFERS: usize = 16384;
const MOST_FILTERS: usize = 256;
/// Descriptors of one frame.
const FRAGMENTS: usize = 6;

fn len(descriptor: u64) -> u64 {
    descriptor >> 32 & 0xff_ffff
}
fn address(descriptor: u64) -> u64 {
    descriptor & 0xffff_ffff
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
struct Lan {
    #[n(0)]
    open: bool,
    #[n(1)]
    list: u64,
    #[n(2)]
    queue: u64,
    /// Where the next entry goes.
    #[n(3)]
    next: u64,
    /// Buffer descriptors, shortest first.
    #[n(4)]
    buffers: Vec<u64>,
    #[n(5)]
    mac: [u8; 6],
    #[n(6)]
    multicast: bool,
    #[n(7)]
    filtering: bool,
    #[n(8)]
    filters: Vec<u64>,
    #[n(9)]
    dropped: u64,
    /// Length of the longest buffer there has been: for frames that fit it another may come.
    #[n(10)]
    longest: u64,
}

#[derive(Encode, Decode)]
struct State {
    #[n(0)]
    lan: Lan,
    #[n(1)]
    slot: SlotState,
}

/// `spapr-vlan`.
pub struct Vlan {
    name: String,
    slot: VioSlot,
    net: Arc<dyn NetBackend>,
    mac: [u8; 6],
    lan: Mutex<Lan>,
    /// The back end holds a frame until there is a buffer.
    starved: AtomicBool,
}

fn number(mac: &[u8]) -> u64 {
    mac.iter().fold(0, |v, b| v << 8 | u64::from(*b))
}

impl Vlan {
    #[must_use]
    pub fn new(slot: VioSlot, net: Arc<dyn NetBackend>, mac: [u8; 6]) -> Arc<Self> {
        let lan = Mutex::new(Lan { mac, ..Lan::default() });
        let vlan = Arc::new(Self { name: slot.name(), slot, net, mac, lan, starved: AtomicBool::new(false) });
        vlan.net.set_frontend(Arc::new(Receiver(Arc::downgrade(&vlan))));
        vlan
    }

    // ---- hypercalls ----

    fn register(&self, args: &Args) -> Answer {
        let [_, list, queue, filter, mac, ..] = *args;
        let mut lan = self.lan.lock();
        if lan.open {
            return Err(Status::RESOURCE);
        }
        let sound = list % PAGE == 0
            && filter % PAGE == 0
            && list.max(filter) <= u64::from(u32::MAX)
            && queue & (VALID | TOGGLE) == VALID
            && address(queue).is_multiple_of(ENTRY)
            && len(queue) != 0
            && len(queue).is_multiple_of(ENTRY);
        if !sound {
            return Err(Status::PARAMETER);
        }
        let dma = self.slot.dma();
        let filter = VALID | PAGE << 32 | filter;
        for (at, value) in [(LIST_QUEUE, queue), (LIST_FILTER, filter), (LIST_DROPPED, 0)] {
            dma.write_ram(list + at, &value.to_be_bytes()).map_err(|_| Status::PARAMETER)?;
        }
        // The whole queue must be there.
        let mut probe = [0];
        for at in [address(queue), address(queue) + len(queue) - 1] {
            dma.read_ram(at, &mut probe).map_err(|_| Status::PARAMETER)?;
        }
        let bytes = mac.to_be_bytes();
        let mut own = [0; 6];
        own.copy_from_slice(&bytes[2..]);
        *lan = Lan { open: true, list, queue, mac: if own == [0; 6] { self.mac } else { own }, ..Lan::default() };
        Ok(())
    }
    fn free(&self) -> Answer {
        let mut lan = self.lan.lock();
        if !lan.open {
            return Err(Status::RESOURCE);
        }
        *lan = Lan { mac: lan.mac, ..Lan::default() };
        Ok(())
    }
    fn add_buffer(&self, buffer: u64) -> Answer {
        {
            let mut lan = self.lan.lock();
            if !lan.open {
                return Err(Status::RESOURCE);
            }
            if buffer & (VALID | TOGGLE) != VALID || !address(buffer).is_multiple_of(4) || len(buffer) < 16 {
                return Err(Status::PARAMETER);
            }
            if lan.buffers.len() >= MOST_BUFFERS {
                return Err(Status::RESOURCE);
            }
            // Those of one length in the order they were given.
            let at = lan.buffers.partition_point(|b| len(*b) <= len(buffer));
            lan.buffers.insert(at, buffer);
            lan.longest = lan.longest.max(len(buffer));
        }
        if self.starved.swap(false, SeqCst) {
            self.net.receive_ready();
        }
        Ok(())
    }
    /// Takes back a buffer of exactly `size` bytes.
    fn free_buffer(&self, size: u64) -> Answer {
        let mut lan = self.lan.lock();
        let at = lan.buffers.iter().position(|b| len(*b) == size).ok_or(Status::PARAMETER)?;
        lan.buffers.remove(at);
        Ok(())
    }
    fn send(&self, descriptors: &[u64; FRAGMENTS], token: u64) -> Answer {
        if !self.lan.lock().open {
            return Err(Status::DROPPED);
        }
        // There is nothing to be continued.
        if token != 0 {
            return Err(Status::PARAMETER);
        }
        let used = descriptors.iter().take_while(|d| **d & VALID != 0);
        let total: u64 = used.clone().map(|d| len(*d)).sum();
        if total < 14 {
            return Err(Status::PARAMETER);
        }
        if total > MAX_FRAME as u64 {
            return Err(Status::RESOURCE);
        }
        let mut frame = vec![0; total as usize];
        let mut at = 0;
        for d in used {
            let n = len(*d) as usize;
            self.slot.dma().read_ram(address(*d), &mut frame[at..at + n]).map_err(|_| Status::S_PARM)?;
            at += n;
        }
        self.net.send(&frame, Offload::default());
        self.net.flush();
        Ok(())
    }
    fn multicast(&self, command: u64, mac: u64) -> Answer {
        const MODIFY_RECEPTION: u64 = 0x8_0000;
        const MODIFY_FILTERING: u64 = 0x4_0000;
        const ENABLE_RECEPTION: u64 = 0x2_0000;
        const ENABLE_FILTERING: u64 = 0x1_0000;
        let mut lan = self.lan.lock();
        if !lan.open {
            return Err(Status::RESOURCE);
        }
        if command & MODIFY_RECEPTION != 0 {
            lan.multicast = command & ENABLE_RECEPTION != 0;
        }
        if command & MODIFY_FILTERING != 0 {
            lan.filtering = command & ENABLE_FILTERING != 0;
        }
        match command & 3 {
            1 if lan.filters.contains(&mac) => (),
            1 if lan.filters.len() >= MOST_FILTERS => return Err(Status::RESOURCE),
            1 => lan.filters.push(mac),
            2 => {
                let at = lan.filters.iter().position(|f| *f == mac).ok_or(Status::PARAMETER)?;
                lan.filters.remove(at);
            }
            3 => lan.filters.clear(),
            _ => (),
        }
        Ok(())
    }

    // ---- reception ----

    /// `None`: there is no room now.
    fn receive(&self, frame: &[u8]) -> Option<()> {
        let mut lan = self.lan.lock();
        let Lan { open, list, queue, next, mac, multicast, filtering, .. } = *lan;
        let Some(to) = frame.get(..6).filter(|_| open) else { return Some(()) };
        let wanted = to == mac
            || to == [0xff; 6]
            || to[0] & 1 != 0 && multicast && (!filtering || lan.filters.contains(&number(to)));
        if !wanted {
            return Some(());
        }
        let needed = frame.len() as u64 + HANDLE;
        let dma = self.slot.dma();
        if needed > lan.buffers.last().map_or(0, |b| len(*b)) {
            if lan.longest == 0 || needed <= lan.longest {
                return None;
            }
            // No buffer is for such frames; the guest reads how many there were.
            lan.dropped = lan.dropped.wrapping_add(1);
            let count = lan.dropped.to_be_bytes();
            let _ = dma.write_ram(list + LIST_DROPPED, &count);
            return Some(());
        }
        let mut entry = [0; ENTRY as usize];
        let at = address(queue) + next;
        // A guest has an entry for each buffer it gives, so that none is overwritten.
        let toggle = queue & TOGGLE == 0;
        let index = lan.buffers.partition_point(|b| len(*b) < needed);
        let buffer = lan.buffers.remove(index);
        let mut handle = [0; HANDLE as usize];
        let placed = dma.read_ram(address(buffer), &mut handle).is_ok()
            && dma.write_ram(address(buffer) + HANDLE, frame).is_ok();
        if !placed {
            // The guest has unmapped it: its loss.
            return Some(());
        }
        entry[0] = ENTRY_VALID | if toggle { ENTRY_TOGGLE } else { 0 };
        entry[2..4].copy_from_slice(&(HANDLE as u16).to_be_bytes());
        entry[4..8].copy_from_slice(&(frame.len() as u32).to_be_bytes());
        entry[8..].copy_from_slice(&handle);
        let written = dma.write_ram(at + 1, &entry[1..]).is_ok();
        std::sync::atomic::fence(SeqCst);
        if !written || dma.write_ram(at, &entry[..1]).is_err() {
            return Some(());
        }
        lan.next = next + ENTRY;
        if lan.next >= len(queue) {
            lan.next = 0;
            lan.queue = queue ^ TOGGLE;
            let descriptor = lan.queue.to_be_bytes();
            let _ = dma.write_ram(list + LIST_QUEUE, &descriptor);
        }
        drop(lan);
        self.slot.signal();
        Some(())
    }
}

struct Receiver(Weak<Vlan>);

impl NetFrontend for Receiver {
    fn receive(&self, frame: &[u8], _offload: Offload) -> bool {
        let Some(vlan) = self.0.upgrade() else { return true };
        if vlan.receive(frame).is_some() {
            return true;
        }
        vlan.starved.store(true, SeqCst);
        // A buffer may have come in between.
        vlan.receive(frame).is_some()
    }
}

impl VioDevice for Vlan {
    fn slot(&self) -> &VioSlot {
        &self.slot
    }
    fn describe(&self, node: Node) -> Node {
        // Eight bytes, as the platform has always told it.
        let mac = [&[0, 0][..], &self.mac].concat();
        node.bytes("local-mac-address", mac)
            .cell("ibm,mac-address-filters", MOST_FILTERS as u32)
            .cell("address-bits", 48)
            .cell("max-frame-size", MAX_FRAME as u32)
    }
    fn hcall(&self, number: u64, args: &Args, out: &mut Args) -> Answer {
        match number {
            h::H_REGISTER_LOGICAL_LAN => self.register(args),
            h::H_FREE_LOGICAL_LAN => self.free(),
            h::H_ADD_LOGICAL_LAN_BUFFER => self.add_buffer(args[1]),
            h::H_FREE_LOGICAL_LAN_BUFFER => self.free_buffer(args[1]),
            h::H_SEND_LOGICAL_LAN => {
                let [_, a, b, c, d, e, f, token, _] = *args;
                // Nothing remains to be sent.
                out[0] = 0;
                self.send(&[a, b, c, d, e, f], token)
            }
            h::H_MULTICAST_CTRL => {
                out[0] = 0;
                self.multicast(args[1], args[2])
            }
            h::H_CHANGE_LOGICAL_LAN_MAC => {
                let bytes = args[1].to_be_bytes();
                // Multicast addresses are nobody's own.
                if bytes[2] & 1 != 0 {
                    return Err(Status::PARAMETER);
                }
                self.lan.lock().mac.copy_from_slice(&bytes[2..]);
                Ok(())
            }
            h::H_ILLAN_ATTRIBUTES => {
                // No attribute (trunk, checksum offload, large send) is there, so none can be set.
                out[0] = 0;
                if args[2] == 0 { Ok(()) } else { Err(Status::PARAMETER) }
            }
            _ => Err(Status::FUNCTION),
        }
    }
}

impl Device for Vlan {
    fn name(&self) -> &str {
        &self.name
    }
    fn reset(&self) {
        *self.lan.lock() = Lan { mac: self.mac, ..Lan::default() };
        self.slot.reset();
        if self.starved.swap(false, SeqCst) {
            self.net.receive_ready();
        }
    }
    fn save(&self) -> Saved {
        encode(1, &State { lan: self.lan.lock().clone(), slot: self.slot.save() })
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        let State { mut lan, slot } = decode(saved, 1)?;
        lan.buffers.truncate(MOST_BUFFERS);
        lan.buffers.sort_by_key(|b| len(*b));
        lan.filters.truncate(MOST_FILTERS);
        if lan.open && (lan.next % ENTRY != 0 || lan.next >= len(lan.queue)) {
            return Err(LoadError::Damaged("receive queue".to_owned()));
        }
        *self.lan.lock() = lan;
        self.slot.load(&slot)
    }
}
