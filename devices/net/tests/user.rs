//! The user network as a guest sees it.

mod guest;
#[path = "guest/tcp.rs"]
mod tcp;

use guest::*;
use rhea_net::{NetBackend, NetdevKind, NetdevOptions, Offloads, UserOptions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;
use tcp::Tcp;

const PLAIN: Offloads = Offloads { checksum: false, tso4: false, tso6: false };
const LARGE: Offloads = Offloads { checksum: true, tso4: true, tso6: false };

fn options(text: &str) -> UserOptions {
    match NetdevOptions::parse(&format!("user,id=n{text}")).unwrap().kind {
        NetdevKind::User(u) => u,
        NetdevKind::Tap(_) => unreachable!(),
    }
}

fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 31 + i / 256 + i / 65536) as u8).collect()
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[test]
fn arp() {
    let g = Guest::new(&options(""));
    assert!(g.resolve(DNS).is_some());
    assert!(
        g.resolve(IP).is_none()
            && g.resolve(Ipv4Addr::new(10, 0, 2, 99)).is_none()
            && g.resolve(Ipv4Addr::new(1, 1, 1, 1)).is_none()
    );
    let o = options(",net=192.168.7.0/24,host=192.168.7.1");
    let net = rhea_net::user::UserNet::new(&o).unwrap();
    assert!(net.description().contains("192.168.7.0/24"));
}

fn dhcp(kind: u8, more: &[u8], ciaddr: [u8; 4], mac: [u8; 6]) -> Vec<u8> {
    let mut m = vec![1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0];
    m.extend(ciaddr);
    m.resize(28, 0);
    m.extend(mac);
    m.resize(236, 0);
    m.extend([99, 130, 83, 99, 53, 1, kind]);
    m.extend(more);
    m.push(255);
    m
}

fn option(message: &[u8], code: u8) -> Option<&[u8]> {
    let mut at = 240;
    while message[at] != 255 {
        if message[at] == code {
            return Some(&message[at + 2..][..usize::from(message[at + 1])]);
        }
        at += 2 + usize::from(message[at + 1]);
    }
    None
}

#[test]
fn dhcp_leases() {
    let g = Guest::new(&options(",hostname=box,domainname=example.org,dnssearch=a.example,dnssearch=b"));
    let ask = |kind, more: &[u8], ciaddr, mac| {
        let packet =
            udp([0xff; 6], (Ipv4Addr::UNSPECIFIED, 68), (Ipv4Addr::BROADCAST, 67), &dhcp(kind, more, ciaddr, mac));
        g.send(&packet);
        g.expect_udp(68, Duration::from_millis(500)).map(|(from, m)| {
            assert_eq!(from, (GATEWAY, 67));
            assert_eq!((m[0], be32(&m, 4)), (2, 0xdead_beef));
            m
        })
    };
    let offer = ask(1, &[], [0; 4], MAC).unwrap();
    assert_eq!((option(&offer, 53), ip_at(&offer, 16)), (Some(&[2][..]), IP));
    assert_eq!(option(&offer, 1), Some(&[255, 255, 255, 0][..]));
    assert_eq!((option(&offer, 3), option(&offer, 6)), (Some(&GATEWAY.octets()[..]), Some(&DNS.octets()[..])));
    assert_eq!((option(&offer, 12), option(&offer, 15)), (Some(&b"box"[..]), Some(&b"example.org"[..])));
    assert_eq!(option(&offer, 119), Some(&b"\x01a\x07example\0\x01b\0"[..]));
    let wanted = [&[50, 4][..], &IP.octets(), &[54, 4], &GATEWAY.octets()].concat();
    assert_eq!(option(&ask(3, &wanted, [0; 4], MAC).unwrap(), 53), Some(&[5][..]));
    // Renewal, INFORM, a wrong address, another server's client, rubbish.
    assert_eq!(option(&ask(3, &[], IP.octets(), MAC).unwrap(), 53), Some(&[5][..]));
    let inform = ask(8, &[], IP.octets(), MAC).unwrap();
    assert_eq!(
        (option(&inform, 53), ip_at(&inform, 16), option(&inform, 51)),
        (Some(&[5][..]), Ipv4Addr::UNSPECIFIED, None)
    );
    assert_eq!(option(&ask(3, &[50, 4, 10, 0, 2, 77], [0; 4], MAC).unwrap(), 53), Some(&[6][..]));
    assert!(ask(3, &[54, 4, 10, 0, 2, 77], [0; 4], MAC).is_none());
    assert!(ask(1, &[60, 200], [0; 4], MAC).is_some());
    // A second client gets the next address; the pool ends.
    for n in 1..16 {
        assert_eq!(ip_at(&ask(1, &[], [0; 4], [2, 0, 0, 0, 0, n]).unwrap(), 16), Ipv4Addr::new(10, 0, 2, 15 + n));
    }
    assert!(ask(1, &[], [0; 4], [2, 0, 0, 0, 0, 99]).is_none());
}

#[test]
fn name_server() {
    let server = UdpSocket::bind(local(0)).unwrap();
    let SocketAddr::V4(address) = server.local_addr().unwrap() else { unreachable!() };
    let g = Guest::new(&UserOptions { nameserver: Some(address), ..options("") });
    let thread = std::thread::spawn(move || {
        let mut b = [0; 512];
        for _ in 0..2 {
            let (n, from) = server.recv_from(&mut b).unwrap();
            server.send_to(&[b"answer to ", &b[..n]].concat(), from).unwrap();
        }
    });
    for port in [40000, 40001] {
        g.udp(port, (DNS, 53), b"query");
        assert_eq!(g.expect_udp(port, WAIT), Some(((DNS, 53), b"answer to query".to_vec())));
    }
    thread.join().unwrap();
    // Nothing else is there.
    g.udp(40002, (DNS, 54), b"query");
    assert!(g.expect_udp(40002, Duration::from_millis(200)).is_none());
}

#[test]
fn udp_both_ways() {
    let server = UdpSocket::bind(local(0)).unwrap();
    server.set_read_timeout(Some(WAIT)).unwrap();
    let port = server.local_addr().unwrap().port();
    let g = Guest::new(&options(""));
    let mut b = vec![0; 65536];
    for len in [0, 1, 1472, 1473, 9000, 60000] {
        let data = pattern(len);
        let packet = udp_packet((IP, 5000), (GATEWAY, port), &data);
        // Long ones in fragments, as a guest's own stack sends them.
        let count = packet.len().div_ceil(1480);
        for (i, piece) in packet.chunks(1480).enumerate().rev() {
            let more = if i + 1 < count { 0x2000 } else { 0 };
            g.send(&fragment(g.gateway_mac, IP, GATEWAY, 17, piece, len as u16, more | (i * 185) as u16));
        }
        let (n, from) = server.recv_from(&mut b).unwrap();
        assert!(b[..n] == data);
        server.send_to(&data, from).unwrap();
        let mut whole = vec![0; 8 + len];
        let mut have = 0;
        let source = g.expect(WAIT, |f, _| {
            let (src, _, piece) = ipv4_of(f, 17)?;
            assert!(f.len() <= 1514);
            let at = usize::from(be16(f, 20) & 0x1fff) * 8;
            whole[at..at + piece.len()].copy_from_slice(piece);
            have += piece.len();
            (have == whole.len()).then_some(src)
        });
        assert_eq!(source, Some(GATEWAY));
        assert_eq!(
            (be16(&whole, 0), be16(&whole, 2), sum(&whole, pseudo(GATEWAY, IP, 17, whole.len()))),
            (port, 5000, 0xffff)
        );
        assert!(whole[8..] == data);
    }
}

#[test]
fn echo() {
    let g = Guest::new(&options(""));
    for (to, len) in [(GATEWAY, 56), (DNS, 0), (GATEWAY, 4000)] {
        let mut icmp = [&[8, 0, 0, 0, 0x12, 0x34, 0, 7][..], &pattern(len)].concat();
        let c = !sum(&icmp, 0);
        icmp[2..4].copy_from_slice(&c.to_be_bytes());
        let count = icmp.len().div_ceil(1480);
        for (i, piece) in icmp.chunks(1480).enumerate() {
            let more = if i + 1 < count { 0x2000 } else { 0 };
            g.send(&fragment(g.gateway_mac, IP, to, 1, piece, 3, more | (i * 185) as u16));
        }
        let mut whole = vec![0; icmp.len()];
        let mut have = 0;
        let from = g.expect(WAIT, |f, _| {
            let (src, _, piece) = ipv4_of(f, 1)?;
            let at = usize::from(be16(f, 20) & 0x1fff) * 8;
            whole[at..at + piece.len()].copy_from_slice(piece);
            have += piece.len();
            (have == whole.len()).then_some(src)
        });
        assert_eq!(from, Some(to));
        assert_eq!((whole[0], sum(&whole, 0)), (0, 0xffff));
        assert!(whole[4..] == icmp[4..]);
    }
}

#[test]
fn tcp_bulk_both_ways() {
    for offloads in [PLAIN, LARGE] {
        let listener = TcpListener::bind(local(0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let g = Guest::with_offloads(&options(""), offloads);
        let up = pattern(3 << 20);
        let down = pattern(5 << 20);
        let (want, give) = (up.clone(), down.clone());
        let host = std::thread::spawn(move || {
            let (mut s, _) = listener.accept().unwrap();
            let mut got = vec![0; want.len()];
            s.read_exact(&mut got).unwrap();
            assert!(got == want);
            s.write_all(&give).unwrap();
            s.shutdown(Shutdown::Write).unwrap();
            // The guest's end.
            assert_eq!(s.read(&mut got).unwrap(), 0);
        });
        let mut t = Tcp::connect(&g, offloads, 33000, (GATEWAY, port)).unwrap();
        t.write(&up, if offloads.tso4 { 60000 } else { tcp::MSS });
        t.until(|t| t.fin);
        assert!(t.received == down);
        t.close();
        host.join().unwrap();
        assert!(!t.reset);
    }
}

#[test]
fn tcp_backpressure() {
    // A host that does not read shuts the guest's window; a guest that takes nothing stops the host.
    let listener = TcpListener::bind(local(0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let g = Guest::new(&options(""));
    let mut t = Tcp::connect(&g, PLAIN, 33001, (GATEWAY, port)).unwrap();
    let (mut s, _) = listener.accept().unwrap();
    s.set_read_timeout(Some(WAIT)).unwrap();
    let all = pattern(64 << 20);
    let mut sent = 0;
    loop {
        while t.step(Duration::from_millis(if t.window == 0 { 60 } else { 0 })) {}
        let room = t.acked.wrapping_add(t.window).wrapping_sub(t.seq) as i32;
        if room <= 0 {
            while t.step(Duration::from_millis(60)) {}
            // Windows are told in units, so that the edge may move back a little: what went beyond it goes again.
            let lost = t.seq.wrapping_sub(t.acked);
            t.seq = t.acked;
            sent -= lost as usize;
            if t.window == 0 {
                break;
            }
            continue;
        }
        let n = (room as usize).min(tcp::MSS);
        t.write(&all[sent..sent + n], tcp::MSS);
        sent += n;
        assert!(sent < 48 << 20, "the window never shuts");
    }
    let mut got = vec![0; sent];
    s.read_exact(&mut got).unwrap();
    assert!(got == all[..sent]);
    t.until(|t| t.window > 0);

    g.set_full(true);
    s.set_write_timeout(Some(Duration::from_millis(150))).unwrap();
    let mut given = 0;
    while let Ok(n) = s.write(&all[given..]) {
        given += n;
        assert!(given < all.len(), "the host is never stopped");
    }
    g.set_full(false);
    t.until(|t| t.received.len() == given);
    assert!(t.received == all[..given]);
}

#[test]
fn tcp_refused_and_reset() {
    let g = Guest::new(&options(""));
    let free = TcpListener::bind(local(0)).unwrap().local_addr().unwrap().port();
    assert!(Tcp::connect(&g, PLAIN, 33002, (GATEWAY, free)).is_none());
    // Nobody is at unused addresses of the network.
    assert!(Tcp::connect(&g, PLAIN, 33003, (Ipv4Addr::new(10, 0, 2, 200), 80)).is_none());

    // The guest resets.
    let listener = TcpListener::bind(local(0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let t = Tcp::connect(&g, PLAIN, 33004, (GATEWAY, port)).unwrap();
    let (mut s, _) = listener.accept().unwrap();
    s.set_read_timeout(Some(WAIT)).unwrap();
    t.send(tcp::RST, &[]);
    assert_eq!(s.read(&mut [0; 8]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    // The host resets: unread data, and closed.
    let mut t = Tcp::connect(&g, PLAIN, 33005, (GATEWAY, port)).unwrap();
    let (s, _) = listener.accept().unwrap();
    t.write(b"unread", tcp::MSS);
    std::thread::sleep(Duration::from_millis(50));
    drop(s);
    t.until(|t| t.reset);
    // A packet of no connection.
    let mut t = Tcp::connect(&g, PLAIN, 33006, (GATEWAY, port)).unwrap();
    drop(listener.accept().unwrap());
    t.local = 33007;
    t.send(tcp::ACK, b"x");
    t.until(|t| t.reset);
    // The same port again after an end.
    for _ in 0..3 {
        let mut t = Tcp::connect(&g, PLAIN, 33008, (GATEWAY, port)).unwrap();
        drop(listener.accept().unwrap());
        t.until(|t| t.fin);
        t.close();
    }
}

#[test]
fn forwarded_tcp() {
    for offloads in [PLAIN, LARGE] {
        let g = Guest::with_offloads(&options(",hostfwd=tcp:127.0.0.1:0-:22"), offloads);
        let port = g.net.forwarded_ports()[0].1;
        let data = pattern(2 << 20);
        let give = data.clone();
        let host = std::thread::spawn(move || {
            let mut s = TcpStream::connect(local(port)).unwrap();
            s.write_all(&give).unwrap();
            let mut got = Vec::new();
            s.read_to_end(&mut got).unwrap();
            got
        });
        let mut t = Tcp::accept(&g, offloads, 22).unwrap();
        assert_eq!(t.remote.0, GATEWAY);
        t.until(|t| t.received.len() == data.len());
        assert!(t.received == data);
        t.write(b"that is all", tcp::MSS);
        t.close();
        assert_eq!(host.join().unwrap(), b"that is all");
    }
}

#[test]
fn forwarded_udp() {
    let g = Guest::new(&options(",restrict=on,hostfwd=udp:127.0.0.1:0-10.0.2.15:69,hostfwd=udp:127.0.0.1:0-:69"));
    for (_, port) in g.net.forwarded_ports() {
        let s = UdpSocket::bind(local(0)).unwrap();
        s.set_read_timeout(Some(WAIT)).unwrap();
        s.send_to(b"hello", local(*port)).unwrap();
        let (from, data) = g.expect_udp(69, WAIT).unwrap();
        assert_eq!((from, &data[..]), ((GATEWAY, s.local_addr().unwrap().port()), &b"hello"[..]));
        g.udp(69, from, b"there");
        let mut b = [0; 16];
        let (n, from) = s.recv_from(&mut b).unwrap();
        assert_eq!((&b[..n], from.port()), (&b"there"[..], *port));
    }
}

#[test]
fn restricted() {
    let server = UdpSocket::bind(local(0)).unwrap();
    server.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let listener = TcpListener::bind(local(0)).unwrap();
    let g = Guest::new(&options(",restrict=on"));
    g.udp(5000, (GATEWAY, server.local_addr().unwrap().port()), b"x");
    assert!(server.recv_from(&mut [0; 8]).is_err());
    assert!(Tcp::connect(&g, PLAIN, 33000, (GATEWAY, listener.local_addr().unwrap().port())).is_none());
}

#[test]
fn port_in_use() {
    let taken = TcpListener::bind(local(0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let e = rhea_net::user::UserNet::new(&options(&format!(",hostfwd=tcp:127.0.0.1:{port}-:22")))
        .err()
        .unwrap()
        .to_string();
    assert!(
        e.starts_with("-netdev user") && e.contains(&port.to_string()) && e.contains("in use") && !e.contains('\n'),
        "{e}"
    );
}

#[test]
fn rubbish_is_survived() {
    let g = Guest::new(&options(""));
    let mut seed = 0x1234_5678_9abc_def0u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let samples = [
        guest::arp(1, IP, GATEWAY),
        udp(g.gateway_mac, (IP, 68), (GATEWAY, 67), &dhcp(1, &[12, 3, 1, 2, 3], [0; 4], MAC)),
        udp(g.gateway_mac, (IP, 9), (Ipv4Addr::new(10, 0, 2, 4), 9), b"discarded"),
        ipv4(g.gateway_mac, IP, GATEWAY, 1, &[8, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3]),
        ipv4(
            g.gateway_mac,
            IP,
            Ipv4Addr::new(10, 0, 2, 4),
            6,
            &[1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 1, 1, 0, 0, 0, 0],
        ),
    ];
    for n in 0..20_000 {
        let mut f = samples[n % samples.len()].clone();
        for _ in 0..random() % 4 {
            let at = random() as usize % f.len();
            // Destinations stay on the virtual network.
            if !(30..34).contains(&at) && !(0..12).contains(&at) {
                f[at] = random() as u8;
            }
        }
        if random() % 4 == 0 {
            f.truncate(random() as usize % (f.len() + 1));
        }
        if be16(&[&f[..], &[0; 14]].concat(), 12) == 0x800
            && f.len() >= 34
            && !ip_at(&f, 30).octets().starts_with(&[10, 0, 2])
        {
            continue;
        }
        g.net.send(&f, rhea_net::Offload::default());
        if n % 64 == 0 {
            g.net.flush();
            while g.next(Duration::ZERO).is_some() {}
        }
    }
    g.net.flush();
    // Frames in excess are lost, as on a wire.
    assert!((0..20).any(|_| g.resolve(DNS).is_some()));
}
