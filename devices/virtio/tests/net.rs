//! The network device as a driver sees it.

mod driver;

use driver::{Driver, SIZE};
use rhea_device::Device;
use rhea_net::{NetBackend, NetFrontend, Offload, Offloads};
use rhea_virtio::net::{Net, NetOptions};
use rhea_virtio::{VirtioDevice, features};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

const RX: u32 = 0;
const TX: u32 = 1;
const CTRL: u32 = 2;
const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
const PLAIN: u64 = !(features::RING_PACKED | features::EVENT_IDX);

#[derive(Default)]
struct Backend {
    front: Mutex<Option<Arc<dyn NetFrontend>>>,
    sent: Mutex<Vec<(Vec<u8>, Offload)>>,
    flushes: AtomicU32,
    /// Done at the next flush.
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    ready: AtomicU32,
    offloads: Mutex<Offloads>,
}

impl NetBackend for Backend {
    fn send(&self, frame: &[u8], offload: Offload) {
        self.sent.lock().unwrap().push((frame.to_vec(), offload));
    }
    fn flush(&self) {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        if let Some(work) = self.meanwhile.lock().unwrap().take() {
            work();
        }
    }
    fn set_frontend(&self, frontend: Arc<dyn NetFrontend>) {
        *self.front.lock().unwrap() = Some(frontend);
    }
    fn receive_ready(&self) {
        self.ready.fetch_add(1, Ordering::SeqCst);
    }
    fn offloads(&self) -> Offloads {
        Offloads { checksum: true, tso4: true, tso6: false }
    }
    fn set_frontend_offloads(&self, o: Offloads) {
        *self.offloads.lock().unwrap() = o;
    }
    fn description(&self) -> String {
        "test".to_owned()
    }
}

impl Backend {
    fn give(&self, frame: &[u8]) -> bool {
        let front = self.front.lock().unwrap().clone().unwrap();
        front.receive(frame, Offload { flags: Offload::DATA_VALID, ..Offload::default() })
    }
}

fn setup(change: impl FnOnce(&mut NetOptions)) -> (Driver, Arc<Backend>) {
    let backend = Arc::new(Backend::default());
    let mut options = NetOptions::new(MAC);
    change(&mut options);
    (Driver::new(Net::new(backend.clone(), options)), backend)
}

fn frame(to: [u8; 6], len: usize) -> Vec<u8> {
    let mut f = to.to_vec();
    f.extend((6..len).map(|i| (i * 7) as u8));
    f
}

#[test]
fn configuration() {
    let (d, _) = setup(|o| o.mtu = 1400);
    assert_eq!((d.read(8), d.config(0, 4), d.config(4, 2)), (1, 0x0100_5452, 0x0302));
    assert_eq!((d.config(6, 2), d.config(10, 2)), (1, 1400));
    let f = d.offered();
    for bit in [
        features::NET_MAC,
        features::NET_STATUS,
        features::NET_MTU,
        features::NET_MRG_RXBUF,
        features::NET_CTRL_VQ,
        features::NET_HOST_TSO4,
        features::NET_GUEST_TSO4,
    ] {
        assert!(f & bit != 0);
    }
    assert!(f & features::NET_HOST_TSO6 == 0);
    let (d, _) = setup(|o| (o.offloads, o.control, o.mergeable) = (false, false, false));
    let f = d.offered();
    assert!(
        f & (features::NET_CSUM | features::NET_CTRL_VQ | features::NET_MRG_RXBUF | features::NET_CTRL_GUEST_OFFLOADS)
            == 0
    );
}

#[test]
fn transmit() {
    let (mut d, b) = setup(|_| ());
    d.start(PLAIN, SIZE);
    assert_eq!(*b.offloads.lock().unwrap(), Offloads { checksum: true, tso4: true, tso6: false });
    let offload =
        Offload { flags: 1, gso_type: 1, header_len: 54, gso_size: 1448, checksum_start: 34, checksum_offset: 16 };
    let data = frame([1; 6], 5000);
    d.add(TX, &[&offload.to_bytes(0), &data], &[]);
    let joined = [&Offload::default().to_bytes(0)[..], &data[..60]].concat();
    d.add(TX, &[&joined[..7], &joined[7..]], &[]);
    d.kick(TX);
    assert_eq!((d.wait_used(TX), d.wait_used(TX)), (0, 0));
    let sent = std::mem::take(&mut *b.sent.lock().unwrap());
    assert!(sent == [(data.clone(), offload), (data[..60].to_vec(), Offload::default())]);
    assert_eq!(b.flushes.load(Ordering::SeqCst), 1, "one for the burst");
    // Too short and too long are dropped, not answered with more.
    for len in [5, 12, 70_000] {
        d.add(TX, &[&vec![0; len]], &[]);
        d.kick(TX);
        d.wait_used(TX);
    }
    assert!(b.sent.lock().unwrap().is_empty() && !d.broken());
}

/// What the driver adds while a burst is sent is sent without another notification, which it is not asked for.
#[test]
fn frames_that_come_while_others_are_sent() {
    let (mut d, b) = setup(|_| ());
    d.start(PLAIN, SIZE);
    for to in [1, 2] {
        let data = [&Offload::default().to_bytes(0)[..], &frame([to; 6], 60)].concat();
        d.add(TX, &[&data], &[]);
    }
    let (ram, rings) = (d.ram.clone(), 0x1_0000 * u64::from(TX));
    let index = rings + 0x4002;
    ram.write(index, &1u16.to_le_bytes()).unwrap();
    *b.meanwhile.lock().unwrap() = Some(Box::new(move || {
        let mut flags = [0; 2];
        ram.read(rings + 0x8000, &mut flags).unwrap();
        assert_eq!(u16::from_le_bytes(flags), 1, "VIRTQ_USED_F_NO_NOTIFY");
        ram.write(index, &2u16.to_le_bytes()).unwrap();
    }));
    d.kick(TX);
    assert_eq!((d.wait_used(TX), d.wait_used(TX)), (0, 0));
    assert_eq!(b.sent.lock().unwrap().iter().map(|(f, _)| f[0]).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(b.flushes.load(Ordering::SeqCst), 2);
}

/// On a thread beside the driver: it is interrupted for several frames at once, turns end although there is more, and at the end it is
/// asked to notify again.
#[test]
fn transmit_beside_the_driver() {
    let backend = Arc::new(Backend::default());
    let net = Net::new(backend.clone(), NetOptions { tx_queue_size: 512, ..NetOptions::new(MAC) });
    let mut d = Driver::new(net.clone());
    d.start(PLAIN, 512);
    let (ram, rings) = (d.ram.clone(), 0x1_0000 * u64::from(TX));
    let no_notify = move || {
        let mut flags = [0; 2];
        ram.read(rings + 0x8000, &mut flags).unwrap();
        flags[0] == 1
    };
    let data = [&Offload::default().to_bytes(0)[..], &frame([1; 6], 60)].concat();
    for _ in 0..300 {
        d.add(TX, &[&data], &[]);
    }
    assert!(net.notify_apart(TX as u16) && no_notify() && d.line.level());
    assert_eq!(backend.sent.lock().unwrap().len(), 256);
    assert!(!net.notify_apart(TX as u16) && !no_notify());
    assert_eq!(backend.sent.lock().unwrap().len(), 300);
    // One that comes while it is looked for more is sent without being told of, and then the driver is told.
    d.write(0x64, 1);
    let (line, seen) = (d.line.clone(), Arc::new(AtomicU32::new(0)));
    for _ in 0..2 {
        d.add(TX, &[&data], &[]);
    }
    let (ram, index, levels) = (d.ram.clone(), rings + 0x4002, seen.clone());
    ram.write(index, &301u16.to_le_bytes()).unwrap();
    *backend.meanwhile.lock().unwrap() = Some(Box::new(move || {
        levels.store(u32::from(line.level()) + 1, Ordering::SeqCst);
        ram.write(index, &302u16.to_le_bytes()).unwrap();
    }));
    assert!(!net.notify_apart(TX as u16) && !no_notify() && d.line.level());
    assert_eq!((backend.sent.lock().unwrap().len(), seen.load(Ordering::SeqCst)), (302, 1));
}

#[test]
fn receive_into_merged_buffers() {
    let (mut d, b) = setup(|_| ());
    d.start(PLAIN, SIZE);
    let data = frame(MAC, 5000);
    assert!(!b.give(&data), "no buffers yet");
    let first: Vec<_> = (0..3).map(|_| d.add(RX, &[], &[1024])).collect();
    d.kick(RX);
    assert!(b.ready.load(Ordering::SeqCst) > 0);
    assert!(!b.give(&data), "too few buffers");
    assert!(d.used(RX).is_none());
    let rest: Vec<_> = (0..3).map(|_| d.add(RX, &[], &[2000, 1000])).collect();
    assert!(b.give(&data));
    // Three of 1 KiB and one of the longer ones.
    let lens: Vec<_> = (0..4).map(|_| d.used(RX).unwrap()).collect();
    assert_eq!(lens, [1024, 1024, 1024, 5012 - 3072]);
    assert!(d.used(RX).is_none());
    let mut got = Vec::new();
    for s in first.iter().chain(&rest) {
        for (at, len) in &s.writable {
            got.extend(d.get(*at, *len as usize));
        }
    }
    assert_eq!(got[..12], Offload { flags: 2, ..Offload::default() }.to_bytes(4));
    assert!(got[12..5012] == data);
    assert!(b.give(&frame(MAC, 60)) && d.used(RX) == Some(72));
}

#[test]
fn receive_into_single_buffers() {
    let (mut d, b) = setup(|o| o.mergeable = false);
    d.start(PLAIN, SIZE);
    let s = d.add(RX, &[], &[12, 1514]);
    assert!(b.give(&frame(MAC, 4000)), "what never fits is dropped");
    assert!(d.used(RX).is_none());
    assert!(b.give(&frame(MAC, 1514)));
    assert_eq!(d.used(RX), Some(1526));
    assert_eq!(d.get(s.writable[0].0, 12)[10], 1);
    assert!(d.get(s.writable[1].0, 1514) == frame(MAC, 1514));
    assert!(!b.give(&frame(MAC, 100)));
}

#[test]
fn control_commands() {
    let (mut d, b) = setup(|_| ());
    d.start(PLAIN, SIZE);
    for _ in 0..SIZE / 2 {
        d.add(RX, &[], &[2048]);
    }
    let command =
        |d: &mut Driver, class: u8, code: u8, data: &[u8]| d.request(CTRL, &[&[class, code], data], &[1]).1[0][0];
    let arrives = |d: &mut Driver, to: [u8; 6]| {
        assert!(b.give(&frame(to, 60)));
        d.used(RX).is_some()
    };
    let (other, group) = ([2, 0, 0, 0, 0, 9], [1, 0, 0x5e, 0, 0, 1]);
    assert!(arrives(&mut d, other), "promiscuous at first");
    assert_eq!(command(&mut d, 0, 0, &[0]), 0);
    assert!(!arrives(&mut d, other) && !arrives(&mut d, group) && arrives(&mut d, MAC) && arrives(&mut d, [0xff; 6]));
    assert_eq!(command(&mut d, 0, 1, &[1]), 0);
    assert!(arrives(&mut d, group));
    assert_eq!((command(&mut d, 0, 1, &[0]), command(&mut d, 0, 5, &[1])), (0, 0));
    assert!(!arrives(&mut d, group) && !arrives(&mut d, [0xff; 6]));
    let table = |unicast: &[[u8; 6]], multicast: &[[u8; 6]]| {
        let list = |l: &[[u8; 6]]| [&(l.len() as u32).to_le_bytes()[..], &l.concat()].concat();
        [list(unicast), list(multicast)].concat()
    };
    assert_eq!(command(&mut d, 1, 0, &table(&[other], &[group])), 0);
    assert!(arrives(&mut d, other) && arrives(&mut d, group) && !arrives(&mut d, [2, 0, 0, 0, 0, 8]));
    // More than the filter compares, then fewer again.
    assert_eq!(command(&mut d, 1, 0, &table(&[other; 65], &[])), 0);
    assert!(arrives(&mut d, [2, 0, 0, 0, 0, 8]) && !arrives(&mut d, group));
    assert_eq!(command(&mut d, 1, 0, &table(&[], &[])), 0);
    assert!(!arrives(&mut d, other));
    assert_eq!(command(&mut d, 1, 1, &other), 0);
    assert!(arrives(&mut d, other) && !arrives(&mut d, MAC));
    assert_eq!(d.config(0, 4), 2);
    // Offloads, within what was negotiated.
    assert_eq!(command(&mut d, 5, 0, &2u64.to_le_bytes()), 0);
    assert_eq!(*b.offloads.lock().unwrap(), Offloads { checksum: true, ..Offloads::default() });
    assert_eq!(command(&mut d, 5, 0, &(1u64 << 8).to_le_bytes()), 1);
    // Saved and loaded.
    d.mmio.quiesce();
    let saved = d.mmio.save();
    d.mmio.reset();
    assert_eq!(*b.offloads.lock().unwrap(), Offloads::default());
    d.mmio.load(&saved).unwrap();
    d.mmio.resume();
    assert_eq!(*b.offloads.lock().unwrap(), Offloads { checksum: true, ..Offloads::default() });
    assert!(arrives(&mut d, other) && !arrives(&mut d, MAC));
    // Wrong and unknown ones.
    for (class, code, data) in
        [(0, 9, &[1][..]), (9, 0, &[1]), (1, 0, &[255, 255, 255, 255, 0]), (1, 1, &[1, 2]), (4, 0, &[2, 0])]
    {
        assert_eq!(command(&mut d, class, code, data), 1, "{class} {code}");
    }
    // No room for the answer.
    d.add(CTRL, &[&[0, 0, 1]], &[]);
    d.kick(CTRL);
    assert!(d.broken());
}

#[test]
fn stopped_devices_hold_frames() {
    let (mut d, b) = setup(|_| ());
    assert!(b.give(&frame(MAC, 60)), "no driver: lost");
    d.start(PLAIN, SIZE);
    d.add(RX, &[], &[2048]);
    d.mmio.quiesce();
    assert!(!b.give(&frame(MAC, 60)));
    let before = b.ready.load(Ordering::SeqCst);
    d.mmio.resume();
    assert!(b.ready.load(Ordering::SeqCst) > before);
    assert!(b.give(&frame(MAC, 60)) && d.used(RX).is_some());
}
