//! The logical LAN.

mod board;

use board::{Board, Random};
use rhea_device::Device;
use rhea_net::{NetBackend, NetFrontend, Offload};
use rhea_spapr::papr::{Status, hcall as h};
use rhea_spapr::vio::VioDevice;
use rhea_spapr::vio::vlan::{self, Vlan};
use std::sync::{Arc, Mutex};

const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
const LIST: u64 = 0x1000;
const FILTER: u64 = 0x2000;
const QUEUE: u64 = 0x3000;
const VALID: u64 = 1 << 63;

#[derive(Default)]
struct Wire {
    sent: Mutex<Vec<Vec<u8>>>,
    guest: Mutex<Option<Arc<dyn NetFrontend>>>,
    ready: Mutex<u32>,
}

impl NetBackend for Wire {
    fn send(&self, frame: &[u8], _: Offload) {
        self.sent.lock().unwrap().push(frame.to_vec());
    }
    fn set_frontend(&self, frontend: Arc<dyn NetFrontend>) {
        *self.guest.lock().unwrap() = Some(frontend);
    }
    fn receive_ready(&self) {
        *self.ready.lock().unwrap() += 1;
    }
    fn description(&self) -> String {
        "wire".to_owned()
    }
}

impl Wire {
    fn deliver(&self, frame: &[u8]) -> bool {
        self.guest.lock().unwrap().as_ref().unwrap().receive(frame, Offload::default())
    }
}

fn card() -> (Board, Arc<Wire>, Arc<Vlan>, u64) {
    let b = Board::new();
    let wire = Arc::new(Wire::default());
    let lan = Vlan::new(b.vio.slot(vlan::KIND, None).unwrap(), wire.clone(), MAC);
    b.vio.attach(lan.clone());
    let unit = u64::from(lan.slot().unit());
    b.open(unit as u32);
    (b, wire, lan, unit)
}

fn frame(to: [u8; 6], len: usize) -> Vec<u8> {
    let mut f = to.to_vec();
    f.extend([2, 0, 0, 0, 0, 1, 8, 0]);
    f.resize(len, 0x5a);
    f
}

#[test]
fn frames_both_ways() {
    let (b, wire, lan, unit) = card();
    let queue = VALID | 64 << 32 | QUEUE;
    b.ok(h::H_REGISTER_LOGICAL_LAN, &[unit, LIST, queue, FILTER, 0]);
    assert_eq!(b.call(h::H_REGISTER_LOGICAL_LAN, &[unit, LIST, queue, FILTER, 0]).0, Status::RESOURCE.0);
    b.put(0x6000, &frame([0xff; 6], 40)[..20]);
    b.put(0x7000, &[1; 30]);
    b.ok(h::H_SEND_LOGICAL_LAN, &[unit, VALID | 20 << 32 | 0x6000, VALID | 30 << 32 | 0x7000, 0, 0, 0, 0, 0]);
    assert_eq!(*wire.sent.lock().unwrap(), [[&frame([0xff; 6], 40)[..20], &[1; 30]].concat()]);
    // Nowhere to put it: held until there is a buffer.
    assert!(!wire.deliver(&frame(MAC, 60)));
    b.put(0x8000, &0xfeed_u64.to_be_bytes());
    b.ok(h::H_ADD_LOGICAL_LAN_BUFFER, &[unit, VALID | 2048 << 32 | 0x8000]);
    assert_eq!(*wire.ready.lock().unwrap(), 1);
    b.enable(lan.slot().interrupt().unwrap());
    b.ok(h::H_VIO_SIGNAL, &[unit, 1]);
    assert!(wire.deliver(&frame(MAC, 60)));
    assert_eq!(b.take(), lan.slot().interrupt());
    let entry = b.get(QUEUE, 16);
    assert_eq!(entry, [&[0xc0, 0, 0, 8, 0, 0, 0, 60][..], &0xfeed_u64.to_be_bytes()].concat());
    assert_eq!(b.get(0x8008, 60), frame(MAC, 60));
    // The toggle changes when the queue of four is full.
    for n in 0..8 {
        b.ok(h::H_ADD_LOGICAL_LAN_BUFFER, &[unit, VALID | 2048 << 32 | 0x8000]);
        assert!(wire.deliver(&frame([0xff; 6], 60)));
        let flags = b.get(QUEUE + (n + 1) % 4 * 16, 1)[0];
        assert_eq!(flags, if (n + 1) / 4 % 2 == 0 { 0xc0 } else { 0x40 }, "{n}");
    }
    // Not for us, and multicast that nobody asked for.
    b.ok(h::H_ADD_LOGICAL_LAN_BUFFER, &[unit, VALID | 2048 << 32 | 0x8000]);
    b.put(QUEUE, &[0; 64]);
    assert!(wire.deliver(&frame([0x52, 0x54, 0, 9, 9, 9], 60)));
    let group = [1, 0, 0x5e, 0, 0, 1];
    assert!(wire.deliver(&frame(group, 60)));
    assert_eq!(b.get(QUEUE, 64), [0; 64]);
    b.ok(h::H_MULTICAST_CTRL, &[unit, 0xf0000, 0]);
    b.ok(h::H_MULTICAST_CTRL, &[unit, 1, 0x0100_5e00_0001]);
    assert!(wire.deliver(&frame([1, 0, 0x5e, 0, 0, 2], 60)));
    assert_eq!(b.get(QUEUE, 64), [0; 64]);
    let state = lan.save();
    assert!(wire.deliver(&frame(group, 60)));
    assert_ne!(b.get(QUEUE, 64), [0; 64]);
    lan.load(&state).unwrap();
    b.put(QUEUE, &[0; 64]);
    assert!(wire.deliver(&frame(group, 60)));
    assert_ne!(b.get(QUEUE, 64), [0; 64]);
    b.ok(h::H_CHANGE_LOGICAL_LAN_MAC, &[unit, 0x5254_0009_0909]);
    assert_eq!(b.call(h::H_CHANGE_LOGICAL_LAN_MAC, &[unit, 0x0154_0009_0909]).0, Status::PARAMETER.0);
    assert_eq!(b.ok(h::H_ILLAN_ATTRIBUTES, &[unit, 0, 0])[0], 0);
    b.ok(h::H_FREE_LOGICAL_LAN, &[unit]);
    assert_eq!(b.call(h::H_FREE_LOGICAL_LAN, &[unit]).0, Status::RESOURCE.0);
    assert_eq!(b.call(h::H_SEND_LOGICAL_LAN, &[unit, VALID | 20 << 32 | 0x6000]).0, Status::DROPPED.0);
}

#[test]
fn errors() {
    let (b, _, _, unit) = card();
    let p = Status::PARAMETER.0;
    let queue = VALID | 64 << 32 | QUEUE;
    for args in [
        [unit, LIST + 8, queue, FILTER],
        [unit, LIST, queue & !VALID, FILTER],
        [unit, LIST, queue | 1 << 62, FILTER],
        [unit, LIST, queue + 8, FILTER],
        [unit, LIST, VALID | QUEUE, FILTER],
        [unit, 0xfff0_0000, queue, FILTER],
        [unit, LIST, VALID | 64 << 32 | 0xfff_0000, FILTER],
        [unit, 1 << 40, queue, FILTER],
        [1, LIST, queue, FILTER],
    ] {
        assert_eq!(b.call(h::H_REGISTER_LOGICAL_LAN, &args).0, p, "{args:x?}");
    }
    assert_eq!(b.call(h::H_ADD_LOGICAL_LAN_BUFFER, &[unit, VALID | 64 << 32]).0, Status::RESOURCE.0);
    b.ok(h::H_REGISTER_LOGICAL_LAN, &[unit, LIST, queue, FILTER, 0]);
    for buffer in [64 << 32, VALID | 8 << 32, VALID | 64 << 32 | 2, VALID | 1 << 62 | 64 << 32] {
        assert_eq!(b.call(h::H_ADD_LOGICAL_LAN_BUFFER, &[unit, buffer]).0, p);
    }
    assert_eq!(b.call(h::H_SEND_LOGICAL_LAN, &[unit, 0]).0, p);
    assert_eq!(b.call(h::H_SEND_LOGICAL_LAN, &[unit, VALID | 60 << 32 | 0xfff_0000]).0, Status::S_PARM.0);
    assert_eq!(b.call(h::H_SEND_LOGICAL_LAN, &[unit, VALID | 0xff_ffff << 32]).0, Status::RESOURCE.0);
    assert_eq!(b.call(h::H_FREE_LOGICAL_LAN_BUFFER, &[unit, 64]).0, p);
    assert_eq!(b.call(h::H_REG_CRQ, &[unit, 0x1000, 0x1000]).0, p);
    assert_eq!(b.call(h::H_MULTICAST_CTRL, &[unit, 2, 5]).0, p);
}

#[test]
fn hostile() {
    let (b, wire, lan, unit) = card();
    let mut r = Random(5);
    let calls = [0x114, 0x118, 0x11c, 0x11c, 0x11c, 0x120, 0x130, 0x14c, 0x1d4, 0x244, 0x104, 0x20];
    for _ in 0..4000 {
        let mut args = [0; 9];
        for a in &mut args {
            *a = match r.below(5) {
                0 => r.next(),
                1 => VALID | r.below(0x1_0000) << 32 | r.below(0x10_0000),
                2 => VALID | 64 << 32 | QUEUE,
                3 => r.below(16) << 12,
                _ => r.below(4),
            };
        }
        args[0] = if r.below(50) == 0 { r.next() } else { unit };
        b.call(calls[r.below(12) as usize], &args);
        if r.below(3) == 0 {
            let to = if r.below(2) == 0 { MAC } else { [0xff; 6] };
            wire.deliver(&frame(to, r.below(2000) as usize));
        }
        if r.below(200) == 0 {
            let state = lan.save();
            lan.load(&state).unwrap();
        }
        if r.below(500) == 0 {
            lan.reset();
            b.open(unit as u32);
        }
    }
}
