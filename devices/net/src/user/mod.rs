//! User networking: the guest's packets become connections of this process, with no privileges on the host.
//!
//! One thread owns everything. TCP of the guest ends in a smoltcp stack and goes on through the host's sockets; UDP, ARP, DHCP and
//! ICMP echo are answered packet by packet.

mod dhcp;
mod fragments;
mod icmp;
mod packet;
mod router;
mod tcp;
mod tftp;
mod udp;
mod watch;
mod wire;

use crate::options::Protocol;
use crate::{MAX_FRAME, NetBackend, NetFrontend, Offload, Offloads, UserOptions, error_text};
use packet::{ETHERNET, Ip, be16};
use parking_lot::Mutex;
use polling::{Events, Poller};
use rhea_device::OptionError;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{HardwareAddress, IpCidr};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tcp::{Stack, Tcp};
use udp::Udp;
use wire::{HOST_MAC, Output, Wire};

/// Frames of the guest that wait for the thread.
const INBOX: usize = 1024;
/// How often what is idle or late is looked for, while there is something that may be.
const HOUSEKEEPING: Duration = Duration::from_secs(5);
const RESOLV_CONF: &str = "/etc/resolv.conf";
const DNS_PORT: u16 = 53;

#[derive(Default)]
struct Inbox {
    frames: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

struct Shared {
    inbox: Mutex<Inbox>,
    poller: Arc<Poller>,
    /// The thread waits, or is about to.
    sleeping: AtomicBool,
    /// The guest has room, the front end or its offloads changed.
    changed: AtomicBool,
    frontend: Mutex<Option<Arc<dyn NetFrontend>>>,
    offloads: AtomicU8,
    ended: AtomicBool,
}

impl Shared {
    fn wake(&self) {
        if self.sleeping.swap(false, Ordering::SeqCst) {
            let _ = self.poller.notify();
        }
    }
}

/// A user network; dropping it closes all its connections.
pub struct UserNet {
    shared: Arc<Shared>,
    description: String,
    forwards: Vec<(Protocol, u16)>,
}

/// Poll keys, never used twice.
pub(crate) struct Keys(usize);

impl Keys {
    fn next(&mut self) -> usize {
        self.0 += 1;
        self.0
    }
}

/// Translation between the guest's addresses and the host's.
pub(crate) struct Nat {
    options: UserOptions,
    nameserver: Ipv4Addr,
    /// When the resolver's configuration was last looked at, and its age then.
    checked: Option<Instant>,
    modified: Option<SystemTime>,
}

impl Nat {
    fn new(options: UserOptions) -> Self {
        Self { options, nameserver: Ipv4Addr::LOCALHOST, checked: None, modified: None }
    }
    fn local(&self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX << (32 - u32::from(self.options.prefix));
        u32::from(address) & mask == u32::from(self.options.network)
    }
    /// The host's name server, read anew when its file changed.
    fn nameserver(&mut self) -> SocketAddrV4 {
        if let Some(given) = self.options.nameserver {
            return given;
        }
        if self.checked.is_none_or(|t| t.elapsed() > Duration::from_secs(1)) {
            self.checked = Some(Instant::now());
            let modified = std::fs::metadata(RESOLV_CONF).and_then(|m| m.modified()).ok();
            if modified != self.modified || modified.is_none() {
                self.modified = modified;
                let text = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
                self.nameserver = first_nameserver(&text).unwrap_or(Ipv4Addr::LOCALHOST);
            }
        }
        SocketAddrV4::new(self.nameserver, DNS_PORT)
    }
    /// Where the host sends what the guest sends to `to`; `None`: nowhere.
    fn outward(&mut self, to: Ipv4Addr, port: u16) -> Option<SocketAddrV4> {
        if to == self.options.host {
            Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
        } else if to == self.options.dns {
            (port == DNS_PORT).then(|| self.nameserver())
        } else if self.local(to) || to.is_unspecified() || to.is_loopback() || to.is_multicast() || to.is_broadcast() {
            None
        } else {
            Some(SocketAddrV4::new(to, port))
        }
    }
    /// How the guest sees the peer `from`.
    fn inward(&self, from: Ipv4Addr) -> Ipv4Addr {
        if from.is_loopback() || from.is_unspecified() || self.local(from) { self.options.host } else { from }
    }
}

fn first_nameserver(text: &str) -> Option<Ipv4Addr> {
    text.lines()
        .filter_map(|l| l.trim().strip_prefix("nameserver"))
        .find_map(|l| l.split_whitespace().next()?.parse().ok())
}

struct Engine {
    shared: Arc<Shared>,
    nat: Nat,
    keys: Keys,
    stack: Stack,
    tcp: Tcp,
    udp: Udp,
    echo: icmp::Echo,
    fragments: fragments::Fragments,
    dhcp: dhcp::Server,
    tftp: tftp::Server,
    buffer: Vec<u8>,
}

impl UserNet {
    /// Starts a user network and opens its forwarded ports.
    ///
    /// # Errors
    /// One line: the port in use, or what the host refuses.
    pub fn new(options: &UserOptions) -> Result<Arc<Self>, OptionError> {
        let fail =
            |what: String, e: &std::io::Error| OptionError::new(&options.option, format!("{what}: {}", error_text(e)));
        let poller = Arc::new(Poller::new().map_err(|e| fail("cannot poll".to_owned(), &e))?);
        let mut keys = Keys(0);
        let (mut tcp, mut udp) = (Tcp::new(poller.clone()), Udp::new(poller.clone()));
        let echo = icmp::Echo::new(poller.clone());
        let mut forwards = Vec::new();
        for f in &options.forwards {
            let guest = (f.guest.unwrap_or(options.dhcp_start), f.guest_port);
            let (address, key) = ((f.host, f.host_port), keys.next());
            let (word, opened) = match f.protocol {
                Protocol::Tcp => (
                    "tcp",
                    TcpListener::bind(address).and_then(|s| {
                        let port = s.local_addr()?.port();
                        tcp.forward(key, s, guest).map(|()| port)
                    }),
                ),
                Protocol::Udp => (
                    "udp",
                    UdpSocket::bind(address).and_then(|s| {
                        let port = s.local_addr()?.port();
                        udp.forward(key, s, guest).map(|()| port)
                    }),
                ),
            };
            let port = opened
                .map_err(|e| fail(format!("'hostfwd': cannot listen on {word} port {}:{}", f.host, f.host_port), &e))?;
            forwards.push((f.protocol, port));
        }
        let shared = Arc::new(Shared {
            inbox: Mutex::default(),
            poller,
            sleeping: AtomicBool::new(false),
            changed: AtomicBool::new(false),
            frontend: Mutex::default(),
            offloads: AtomicU8::new(0),
            ended: AtomicBool::new(false),
        });
        let mut wire = Wire { input: VecDeque::new(), spare: Vec::new(), output: Output::new(options.host) };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
        let mut iface = Interface::new(config, &mut wire, StackInstant::ZERO);
        // The stack answers for every address, and reaches every guest.
        iface.set_any_ip(true);
        iface.update_ip_addrs(|a| {
            let _ = a.push(IpCidr::new(options.host.into(), options.prefix));
        });
        let _ = iface.routes_mut().add_default_ipv4_route(options.host);
        let stack =
            Stack { iface, sockets: SocketSet::new(Vec::new()), wire, start: Instant::now(), skipped: Duration::ZERO };
        let mut engine = Engine {
            shared: shared.clone(),
            nat: Nat::new(options.clone()),
            keys,
            stack,
            tcp,
            udp,
            echo,
            fragments: fragments::Fragments::default(),
            dhcp: dhcp::Server::new(),
            tftp: tftp::Server::new(options.tftp.as_deref()),
            buffer: vec![0; 65536],
        };
        let thread = std::thread::Builder::new().name("user-net".to_owned()).spawn(move || engine.run());
        thread.map_err(|e| fail("cannot start a thread".to_owned(), &e))?;
        let description = format!(
            "user,net={}/{},restrict={}",
            options.network,
            options.prefix,
            if options.restrict { "on" } else { "off" }
        );
        Ok(Arc::new(Self { shared, description, forwards }))
    }
    /// The forwarded ports as opened, in the order of the options.
    #[must_use]
    pub fn forwarded_ports(&self) -> &[(Protocol, u16)] {
        &self.forwards
    }
}

impl NetBackend for UserNet {
    fn send(&self, frame: &[u8], _offload: Offload) {
        if frame.len() > MAX_FRAME {
            return;
        }
        let mut inbox = self.shared.inbox.lock();
        if inbox.frames.len() < INBOX {
            let mut copy = inbox.spare.pop().unwrap_or_default();
            copy.clear();
            copy.extend_from_slice(frame);
            inbox.frames.push_back(copy);
        }
    }
    fn flush(&self) {
        self.shared.wake();
    }
    fn set_frontend(&self, frontend: Arc<dyn NetFrontend>) {
        *self.shared.frontend.lock() = Some(frontend);
        self.receive_ready();
    }
    fn receive_ready(&self) {
        self.shared.changed.store(true, Ordering::SeqCst);
        self.shared.wake();
    }
    fn offloads(&self) -> Offloads {
        Offloads { checksum: true, tso4: true, tso6: false }
    }
    fn set_frontend_offloads(&self, o: Offloads) {
        self.shared.offloads.store(u8::from(o.checksum) | u8::from(o.tso4 && o.checksum) << 1, Ordering::SeqCst);
        self.receive_ready();
    }
    fn description(&self) -> String {
        self.description.clone()
    }
}

impl Drop for UserNet {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        let _ = self.shared.poller.notify();
    }
}

impl Engine {
    fn run(&mut self) {
        let mut events = Events::new();
        let mut frames = VecDeque::new();
        let mut expired = Instant::now();
        while !self.shared.ended.load(Ordering::SeqCst) {
            if self.shared.changed.swap(false, Ordering::SeqCst) {
                let o = self.shared.offloads.load(Ordering::SeqCst);
                let output = &mut self.stack.wire.output;
                output.frontend = self.shared.frontend.lock().clone();
                output.offloads = Offloads { checksum: o & 1 != 0, tso4: o & 2 != 0, tso6: false };
                output.resume();
            }
            self.take_frames(&mut frames);
            for frame in frames.drain(..) {
                self.frame(frame);
            }
            self.stack.poll();
            if self.tcp.pump(&mut self.stack) {
                self.stack.poll();
            }
            if expired.elapsed() > HOUSEKEEPING {
                expired = Instant::now();
                self.udp.expire();
                self.echo.expire();
                self.fragments.expire();
                self.tcp.expire(&mut self.stack);
                self.tcp.pump(&mut self.stack);
                self.stack.poll();
            }
            let stopped = self.stack.wire.output.blocked().then(Instant::now);
            let timeout = self.timeout();
            events.clear();
            if self.shared.poller.wait(&mut events, timeout).is_err() {
                break;
            }
            self.shared.sleeping.store(false, Ordering::SeqCst);
            if let Some(since) = stopped {
                self.stack.skipped += since.elapsed();
            }
            for event in events.iter() {
                let (keys, stack) = (&mut self.keys, &mut self.stack);
                // No match: a connection that ended while its event was on the way.
                let _ = self.tcp.ready(keys, &self.nat, stack, event)
                    || self.udp.ready(event.key, &self.nat, &mut stack.wire, &mut self.buffer)
                    || self.echo.ready(event.key, &mut stack.wire, &mut self.buffer);
            }
        }
    }
    fn take_frames(&mut self, frames: &mut VecDeque<Vec<u8>>) {
        let mut inbox = self.shared.inbox.lock();
        std::mem::swap(&mut inbox.frames, frames);
        if inbox.spare.is_empty() {
            std::mem::swap(&mut inbox.spare, &mut self.stack.wire.spare);
        }
    }
    /// How long to wait; announces that the thread sleeps.
    fn timeout(&mut self) -> Option<Duration> {
        // A guest that takes nothing wakes us when it does.
        let stack = if self.stack.wire.output.blocked() { None } else { self.stack.delay() };
        let keep = self.tcp.waits() || !self.udp.is_empty() || !self.echo.is_empty() || !self.fragments.is_empty();
        let housekeeping = keep.then_some(HOUSEKEEPING);
        self.shared.sleeping.store(true, Ordering::SeqCst);
        if !self.shared.inbox.lock().frames.is_empty() || self.shared.changed.load(Ordering::SeqCst) {
            return Some(Duration::ZERO);
        }
        [stack, housekeeping].into_iter().flatten().min()
    }

    fn frame(&mut self, frame: Vec<u8>) {
        let Some(source) = frame.get(6..).and_then(|s| s.first_chunk::<6>()).copied() else { return };
        match be16(&frame, 12) {
            Some(packet::TYPE_ARP) => self.arp(&frame),
            Some(packet::TYPE_IPV4) => {
                let Some(ip) = Ip::parse(&frame[ETHERNET..]) else { return };
                if self.nat.local(ip.src) && ip.src != self.nat.options.host && ip.src != self.nat.options.dns {
                    self.stack.wire.output.learn(ip.src, source);
                }
                if !ip.fragment {
                    self.packet(source, frame);
                } else if let Some(whole) = self.fragments.add(&frame) {
                    self.packet(source, whole);
                }
            }
            // IPv6 is off, which those who ask are told.
            Some(packet::TYPE_IPV6) => {
                if let Some(answer) = router::answer(&frame) {
                    self.stack.wire.output.send_checked(answer);
                }
            }
            _ => (),
        }
    }
    /// A whole IPv4 packet of the guest, as a frame.
    fn packet(&mut self, source: [u8; 6], frame: Vec<u8>) {
        let (keys, nat, stack) = (&mut self.keys, &mut self.nat, &mut self.stack);
        match frame.get(ETHERNET + 9) {
            Some(&packet::TCP_PROTOCOL) => self.tcp.packet(keys, nat, stack, source, frame),
            Some(&packet::ICMP_PROTOCOL) => self.echo.packet(keys, nat, &mut stack.wire, source, &frame),
            Some(&packet::UDP_PROTOCOL) => self.datagram(&frame),
            _ => (),
        }
    }
    fn arp(&mut self, frame: &[u8]) {
        let Some(a) = frame.get(ETHERNET..).and_then(|a| a.first_chunk::<28>()) else { return };
        if a[..6] != [0, 1, 8, 0, 6, 4] {
            return;
        }
        let address = |at: usize| Ipv4Addr::new(a[at], a[at + 1], a[at + 2], a[at + 3]);
        let (operation, sender, target) = (a[7], address(14), address(24));
        let Some(&mac) = a[8..].first_chunk::<6>() else { return };
        let options = &self.nat.options;
        let ours = target == options.host || target == options.dns;
        if self.nat.local(sender) {
            self.stack.wire.output.learn(sender, mac);
        }
        if operation == 1 && ours {
            self.stack.wire.output.send_checked(wire::arp(2, target, HOST_MAC, sender, mac, mac));
        }
    }
    fn datagram(&mut self, frame: &[u8]) {
        let Some(ip) = Ip::parse(&frame[ETHERNET..]) else { return };
        let (Some(sport), Some(dport), Some(len)) = (be16(ip.payload, 0), be16(ip.payload, 2), be16(ip.payload, 4))
        else {
            return;
        };
        let Some(data) = ip.payload.get(packet::UDP..usize::from(len)) else { return };
        if dport == dhcp::SERVER_PORT && (ip.dst.is_broadcast() || ip.dst == self.nat.options.host) {
            let options = &self.nat.options;
            if let Some(answer) = self.dhcp.answer(options, data) {
                if !answer.client.is_broadcast() {
                    self.stack.wire.output.learn(answer.client, answer.mac);
                }
                self.stack.wire.output.send_checked(answer.frame(options, HOST_MAC));
            }
            return;
        }
        let host = self.nat.options.host;
        if dport == tftp::PORT && ip.dst == host {
            if let Some(answer) = self.tftp.answer((ip.src, sport), data)
                && let Some(mac) = self.stack.wire.output.resolve(ip.src)
            {
                let frame = packet::udp_frame(mac, HOST_MAC, (host, tftp::PORT), (ip.src, sport), &answer);
                self.stack.wire.output.send_packet(frame);
            }
            return;
        }
        self.udp.send(&mut self.keys, &mut self.nat, (ip.src, sport), (ip.dst, dport), data);
    }
}
