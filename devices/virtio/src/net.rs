//! Network device (virtio 1.2, 5.1), one queue pair and the control queue.

use crate::beside::Patience;
use crate::core::{VirtioDevice, config_bytes};
use crate::features;
use crate::queue::{Chain, QueueError};
use crate::queues::{Gate, Queues};
use parking_lot::Mutex;
use rhea_device::LoadError;
use rhea_net::{MAX_FRAME, NetBackend, NetFrontend, Offload, Offloads, Pass, ReceiveFilter};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use virtio_bindings::virtio_net as vn;

/// The device type.
pub const ID: u16 = 1;
const RX: u16 = 0;
const TX: u16 = 1;
const CTRL: u16 = 2;
const HEADER: usize = Offload::LEN;
const LINK_UP: u16 = 1;
/// Addresses the receive filter compares; if the driver gives more (one more is kept), everything of the kind passes.
const MAX_ADDRESSES: usize = 64;
const BROADCAST: [u8; 6] = [0xff; 6];

/// What a network device can be told.
#[derive(Clone, Debug)]
pub struct NetOptions {
    pub mac: [u8; 6],
    /// Entries of the receive and transmit queues, powers of two.
    pub rx_queue_size: u16,
    pub tx_queue_size: u16,
    pub mergeable: bool,
    pub control: bool,
    /// Offer the checksum and segmentation offloads the back end has.
    pub offloads: bool,
    /// 0: none given.
    pub mtu: u16,
}

impl NetOptions {
    #[must_use]
    pub fn new(mac: [u8; 6]) -> Self {
        Self { mac, rx_queue_size: 256, tx_queue_size: 256, mergeable: true, control: true, offloads: true, mtu: 0 }
    }
}

/// What frames the guest wants.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Filter {
    mac: [u8; 6],
    promiscuous: bool,
    all_multicast: bool,
    all_unicast: bool,
    no_multicast: bool,
    no_unicast: bool,
    no_broadcast: bool,
    unicast: Vec<[u8; 6]>,
    multicast: Vec<[u8; 6]>,
}

fn wanted(list: &[[u8; 6]], address: &[u8; 6]) -> bool {
    list.len() > MAX_ADDRESSES || list.contains(address)
}

fn pass(none: bool, all: bool) -> Pass {
    match (none, all) {
        (true, _) => Pass::None,
        (_, true) => Pass::All,
        _ => Pass::Normal,
    }
}

impl Filter {
    fn describe(&self) -> ReceiveFilter {
        // One more than is kept stands for an overflow.
        let kept = |list: &[[u8; 6]]| list.iter().take(MAX_ADDRESSES).copied().collect();
        ReceiveFilter {
            promiscuous: self.promiscuous,
            multicast: pass(self.no_multicast, self.all_multicast),
            unicast: pass(self.no_unicast, self.all_unicast),
            broadcast: !self.no_broadcast,
            mac: self.mac,
            multicast_table: kept(&self.multicast),
            multicast_overflow: self.multicast.len() > MAX_ADDRESSES,
            unicast_table: kept(&self.unicast),
            unicast_overflow: self.unicast.len() > MAX_ADDRESSES,
        }
    }
    fn new(mac: [u8; 6]) -> Self {
        Self {
            mac,
            // Until the driver says otherwise.
            promiscuous: true,
            all_multicast: false,
            all_unicast: false,
            no_multicast: false,
            no_unicast: false,
            no_broadcast: false,
            unicast: Vec::new(),
            multicast: Vec::new(),
        }
    }
    fn passes(&self, frame: &[u8]) -> bool {
        if self.promiscuous {
            return true;
        }
        let Some(to) = frame.first_chunk::<6>() else { return false };
        if *to == BROADCAST {
            !self.no_broadcast
        } else if to[0] & 1 != 0 {
            !self.no_multicast && (self.all_multicast || wanted(&self.multicast, to))
        } else {
            !self.no_unicast && (self.all_unicast || *to == self.mac || wanted(&self.unicast, to))
        }
    }
}

/// A network device over a back end.
pub struct Net {
    backend: Arc<dyn NetBackend>,
    options: NetOptions,
    queues: OnceLock<Arc<Queues>>,
    features: AtomicU64,
    /// Also held while a frame is received, so that reset can wait for that.
    filter: Mutex<Filter>,
    tx: Gate,
    sending: Mutex<Sending>,
    ctrl: Gate,
    /// Offloads of the receiving side as the driver last set them; none: as negotiated.
    guest_offloads: Mutex<Option<u64>>,
}

/// The back end's way to the device; the back end does not keep the device alive.
struct Front(Weak<Net>);

impl NetFrontend for Front {
    fn receive(&self, frame: &[u8], offload: Offload) -> bool {
        self.0.upgrade().is_none_or(|net| net.receive(frame, offload))
    }
    fn link_changed(&self, _up: bool) {
        if let Some(net) = self.0.upgrade()
            && let Some(queues) = net.queues.get()
        {
            queues.config_changed();
        }
    }
    fn filter(&self) -> Option<ReceiveFilter> {
        self.0.upgrade().map(|net| net.filter.lock().describe())
    }
}

/// What sending keeps from one time to the next.
#[derive(Default)]
struct Sending {
    frame: Vec<u8>,
    patience: Patience,
}

enum Delivery {
    Done { interrupt: bool },
    NoRoom,
}

impl Net {
    #[must_use]
    pub fn new(backend: Arc<dyn NetBackend>, options: NetOptions) -> Arc<Self> {
        let net = Arc::new(Self {
            backend,
            queues: OnceLock::new(),
            features: AtomicU64::new(0),
            filter: Mutex::new(Filter::new(options.mac)),
            tx: Gate::default(),
            sending: Mutex::default(),
            ctrl: Gate::default(),
            guest_offloads: Mutex::default(),
            options,
        });
        net.backend.set_frontend(Arc::new(Front(Arc::downgrade(&net))));
        net
    }
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn NetBackend> {
        &self.backend
    }
    /// The address in use.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.filter.lock().mac
    }

    /// What the driver takes from now on: the feature bits of the receiving side.
    fn set_guest_offloads(&self, bits: u64) {
        let checksum = bits & features::NET_GUEST_CSUM != 0;
        self.backend.set_frontend_offloads(Offloads {
            checksum,
            tso4: checksum && bits & features::NET_GUEST_TSO4 != 0,
            tso6: checksum && bits & features::NET_GUEST_TSO6 != 0,
        });
    }

    fn receive(&self, frame: &[u8], offload: Offload) -> bool {
        let Some(queues) = self.queues.get() else { return true };
        let filter = self.filter.lock();
        if queues.paused() {
            return false;
        }
        if !queues.running() || !filter.passes(frame) {
            return true;
        }
        let mergeable = self.features.load(Ordering::Acquire) & features::NET_MRG_RXBUF != 0;
        let total = (HEADER + frame.len()) as u64;
        let result = queues.with(RX, |q| {
            let mark = q.mark();
            loop {
                let (mut chains, mut room) = (Vec::new(), 0);
                while room < total
                    && let Some(chain) = q.pop()?
                {
                    room += chain.writable_len();
                    chains.push(chain);
                    if !mergeable || chains.len() == usize::from(u16::MAX) {
                        break;
                    }
                }
                if room >= total {
                    let header = offload.to_bytes(chains.len() as u16);
                    let filled = fill(q.dma(), chains, &header, frame)?;
                    q.push(filled)?;
                    return Ok(Delivery::Done { interrupt: q.needs_interrupt()? });
                }
                if !mergeable && !chains.is_empty() {
                    // The buffers are too small for this frame and will be: it is lost.
                    q.rewind(mark);
                    return Ok(Delivery::Done { interrupt: false });
                }
                // Asked for before the chains are given back: the driver shall tell of chains beyond these.
                let more = q.enable_notifications()?;
                q.rewind(mark);
                if !more {
                    return Ok(Delivery::NoRoom);
                }
            }
        });
        drop(filter);
        match result {
            Some(Delivery::Done { interrupt }) => {
                if interrupt {
                    queues.interrupt(RX);
                }
                true
            }
            Some(Delivery::NoRoom) => false,
            // The device is broken or being reset.
            None => true,
        }
    }

    /// `apart`: the driver runs on meanwhile. True: to be called again.
    fn notified(&self, queue: u16, apart: bool) -> bool {
        let Some(queues) = self.queues.get() else { return false };
        let mut more = false;
        match queue {
            RX => self.backend.receive_ready(),
            TX => self.tx.run(|| more = self.transmit(queues, apart)),
            CTRL => self.ctrl.run(|| self.control(queues)),
            _ => (),
        }
        more
    }
    fn transmit(&self, queues: &Arc<Queues>, apart: bool) -> bool {
        let mut sending = self.sending.lock();
        let Sending { frame, patience } = &mut *sending;
        let sent = Cell::new(false);
        let mut work = |chain: Chain| {
            let len = chain.readable_len();
            if len <= HEADER as u64 || len > (HEADER + MAX_FRAME) as u64 {
                queues.log().guest_error("virtio-net", format_args!("frame of impossible length"));
            } else {
                let len = len as usize;
                if frame.len() < len {
                    frame.resize(len, 0);
                }
                if chain.read(queues.dma(), 0, &mut frame[..len]).is_err() {
                    queues.fail(QueueError::Memory);
                    return false;
                }
                if let Some((header, data)) = frame[..len].split_first_chunk::<HEADER>() {
                    self.backend.send(data, Offload::from_bytes(header));
                    sent.set(true);
                }
            }
            queues.push(TX, chain, 0);
            true
        };
        let mut flush = || {
            if sent.take() {
                self.backend.flush();
            }
        };
        if apart {
            return queues.drain_in_turns(TX, Some(patience), work, flush);
        }
        while queues.drain_in_turns(TX, None, &mut work, &mut flush) {}
        false
    }

    fn control(&self, queues: &Arc<Queues>) {
        queues.drain(CTRL, |chain| {
            let len = chain.readable_len().min(64 << 10) as usize;
            let mut command = vec![0; len];
            if chain.writable_len() == 0 || chain.read(queues.dma(), 0, &mut command).is_err() {
                queues.fail(QueueError::Order);
                return false;
            }
            let done = self.command(&command);
            let filters = [vn::VIRTIO_NET_CTRL_RX, vn::VIRTIO_NET_CTRL_MAC];
            if done.is_some() && command.first().is_some_and(|class| filters.contains(&u32::from(*class))) {
                self.backend.filter_changed();
            }
            let ack = if done.is_some() { vn::VIRTIO_NET_OK } else { vn::VIRTIO_NET_ERR };
            if chain.write(queues.dma(), 0, &[ack as u8]).is_err() {
                queues.fail(QueueError::Memory);
                return false;
            }
            queues.complete(CTRL, chain, 1);
            true
        });
    }

    /// Executes a control command (5.1.6.5); `None` if it is wrong or unknown.
    fn command(&self, command: &[u8]) -> Option<()> {
        let (&[class, code], data) = command.split_first_chunk::<2>()?;
        let mut f = self.filter.lock();
        match (u32::from(class), u32::from(code)) {
            (vn::VIRTIO_NET_CTRL_RX, code) => {
                let on = *data.first()? != 0;
                let flag = match code {
                    vn::VIRTIO_NET_CTRL_RX_PROMISC => &mut f.promiscuous,
                    vn::VIRTIO_NET_CTRL_RX_ALLMULTI => &mut f.all_multicast,
                    vn::VIRTIO_NET_CTRL_RX_ALLUNI => &mut f.all_unicast,
                    vn::VIRTIO_NET_CTRL_RX_NOMULTI => &mut f.no_multicast,
                    vn::VIRTIO_NET_CTRL_RX_NOUNI => &mut f.no_unicast,
                    vn::VIRTIO_NET_CTRL_RX_NOBCAST => &mut f.no_broadcast,
                    _ => return None,
                };
                *flag = on;
            }
            (vn::VIRTIO_NET_CTRL_MAC, vn::VIRTIO_NET_CTRL_MAC_ADDR_SET) => f.mac = data.try_into().ok()?,
            (vn::VIRTIO_NET_CTRL_MAC, vn::VIRTIO_NET_CTRL_MAC_TABLE_SET) => {
                let (unicast, rest) = table(data)?;
                let (multicast, _) = table(rest)?;
                f.unicast = unicast.into_iter().take(MAX_ADDRESSES + 1).collect();
                f.multicast = multicast.into_iter().take(MAX_ADDRESSES + 1).collect();
            }
            (vn::VIRTIO_NET_CTRL_GUEST_OFFLOADS, vn::VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET) => {
                let bits = u64::from_le_bytes(data.try_into().ok()?);
                let able = features::NET_GUEST_CSUM | features::NET_GUEST_TSO4 | features::NET_GUEST_TSO6;
                let negotiated = self.features.load(Ordering::Acquire);
                if negotiated & features::NET_CTRL_GUEST_OFFLOADS == 0 || bits & !(negotiated & able) != 0 {
                    return None;
                }
                drop(f);
                *self.guest_offloads.lock() = Some(bits);
                self.set_guest_offloads(bits);
            }
            _ => return None,
        }
        Some(())
    }
}

/// One address table of a control command and what follows it.
fn table(data: &[u8]) -> Option<(Vec<[u8; 6]>, &[u8])> {
    let (count, rest) = data.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_le_bytes(*count)).ok()?.checked_mul(6)?;
    let addresses = rest.get(..len)?.chunks_exact(6).filter_map(|c| c.try_into().ok()).collect();
    Some((addresses, &rest[len..]))
}

/// Spreads header and frame over the chains: each with what was written to it.
fn fill(
    dma: &rhea_device::DmaHandle,
    chains: Vec<Chain>,
    header: &[u8; HEADER],
    frame: &[u8],
) -> Result<Vec<(Chain, u32)>, QueueError> {
    let (mut head, mut rest) = (&header[..], frame);
    let mut filled = Vec::with_capacity(chains.len());
    for chain in chains {
        let n = chain.write(dma, 0, head)?;
        head = &head[n..];
        let m = if head.is_empty() { chain.write(dma, n as u64, rest)? } else { 0 };
        rest = &rest[m..];
        filled.push((chain, (n + m) as u32));
    }
    Ok(filled)
}

impl VirtioDevice for Net {
    fn id(&self) -> u16 {
        ID
    }
    fn name(&self) -> &'static str {
        "virtio-net"
    }
    fn pci_class(&self) -> u32 {
        0x02_0000
    }
    fn features(&self) -> u64 {
        let mut f = features::NET_MAC | features::NET_STATUS;
        if self.options.mergeable {
            f |= features::NET_MRG_RXBUF;
        }
        if self.options.control {
            f |= features::NET_CTRL_VQ
                | features::NET_CTRL_RX
                | features::NET_CTRL_RX_EXTRA
                | features::NET_CTRL_MAC_ADDR;
        }
        if self.options.mtu != 0 {
            f |= features::NET_MTU;
        }
        let o = self.backend.offloads();
        if self.options.offloads && o.checksum {
            if self.options.control {
                f |= features::NET_CTRL_GUEST_OFFLOADS;
            }
            f |= features::NET_CSUM | features::NET_GUEST_CSUM;
            f |= if o.tso4 { features::NET_HOST_TSO4 | features::NET_GUEST_TSO4 } else { 0 };
            f |= if o.tso6 { features::NET_HOST_TSO6 | features::NET_GUEST_TSO6 } else { 0 };
        }
        f
    }
    fn queue_sizes(&self) -> Vec<u16> {
        let mut sizes = vec![self.options.rx_queue_size, self.options.tx_queue_size];
        if self.options.control {
            sizes.push(64);
        }
        sizes
    }
    fn attach(&self, queues: Arc<Queues>) {
        let _ = self.queues.set(queues);
    }
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut c = [0; 12];
        c[..6].copy_from_slice(&self.mac());
        c[6..8].copy_from_slice(&(if self.backend.link_up() { LINK_UP } else { 0 }).to_le_bytes());
        c[8..10].copy_from_slice(&1u16.to_le_bytes());
        c[10..12].copy_from_slice(&self.options.mtu.to_le_bytes());
        config_bytes(&c, offset, data);
    }
    fn start(&self, features: u64) {
        self.features.store(features, Ordering::Release);
        self.set_guest_offloads(self.guest_offloads.lock().unwrap_or(features));
    }
    fn notify(&self, queue: u16) {
        self.notified(queue, false);
    }
    fn notify_apart(&self, queue: u16) -> bool {
        self.notified(queue, true)
    }
    fn reset(&self) {
        self.features.store(0, Ordering::Release);
        self.tx.wait();
        self.ctrl.wait();
        // Waits for a frame being received.
        *self.filter.lock() = Filter::new(self.options.mac);
        *self.guest_offloads.lock() = None;
        self.backend.set_frontend_offloads(Offloads::default());
    }
    fn quiesce(&self) {
        drop(self.filter.lock());
        self.tx.wait();
        self.ctrl.wait();
    }
    fn save(&self) -> Vec<u8> {
        let f = self.filter.lock();
        let Filter {
            mac,
            promiscuous,
            all_multicast,
            all_unicast,
            no_multicast,
            no_unicast,
            no_broadcast,
            unicast,
            multicast,
        } = &*f;
        let mut s = mac.to_vec();
        s.extend(
            [promiscuous, all_multicast, all_unicast, no_multicast, no_unicast, no_broadcast].map(|b| u8::from(*b)),
        );
        for list in [unicast, multicast] {
            s.extend((list.len() as u32).to_le_bytes());
            s.extend(list.iter().flatten());
        }
        let offloads = *self.guest_offloads.lock();
        s.push(u8::from(offloads.is_some()));
        s.extend(offloads.unwrap_or(0).to_le_bytes());
        s.push(u8::from(self.backend.link_up()));
        s
    }
    fn load(&self, state: &[u8]) -> Result<(), LoadError> {
        let parse = || {
            let (mac, rest) = state.split_first_chunk::<6>()?;
            let (&flags, rest) = rest.split_first_chunk::<6>()?;
            let [promiscuous, all_multicast, all_unicast, no_multicast, no_unicast, no_broadcast] =
                flags.map(|b| b != 0);
            let (unicast, rest) = table(rest)?;
            let (multicast, rest) = table(rest)?;
            let (&[given], rest) = rest.split_first_chunk::<1>()?;
            let (offloads, link) = rest.split_first_chunk::<8>()?;
            let offloads = (given != 0).then_some(u64::from_le_bytes(*offloads));
            // States of before links could be down end here.
            let link = match link {
                [] => true,
                [up] => *up != 0,
                _ => return None,
            };
            let filter = Filter {
                mac: *mac,
                promiscuous,
                all_multicast,
                all_unicast,
                no_multicast,
                no_unicast,
                no_broadcast,
                unicast,
                multicast,
            };
            Some((filter, offloads, link))
        };
        let (filter, offloads, link) = parse().ok_or_else(|| LoadError::Damaged("virtio-net".to_owned()))?;
        *self.filter.lock() = filter;
        *self.guest_offloads.lock() = offloads;
        self.backend.restore_link(link);
        Ok(())
    }
}
