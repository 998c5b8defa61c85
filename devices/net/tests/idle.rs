//! A network where nothing happens costs nothing, and what ended leaves nothing. Alone in its process, which it measures.

mod guest;
#[path = "guest/tcp.rs"]
mod tcp;

use guest::*;
use rhea_net::{NetdevKind, NetdevOptions, Offloads};
use std::net::{Ipv4Addr, Shutdown, TcpListener};
use std::time::{Duration, Instant};
use tcp::Tcp;

/// Processor time of this process.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let mut total = text.split(' ').next().and_then(|t| t.parse().ok()).unwrap_or(0u64);
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if name.trim() == "user-net" {
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            total += text.split(' ').next().and_then(|t| t.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Duration::from_nanos(total)
}

/// One test at a time.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn idle_uses_no_processor_time() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let NetdevKind::User(options) = NetdevOptions::parse("user,id=n,hostfwd=tcp:127.0.0.1:0-:22").unwrap().kind else {
        unreachable!()
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let g = Guest::new(&options);
    let mut open = Tcp::connect(&g, Offloads::default(), 33000, (GATEWAY, port)).unwrap();
    // One half closed by the host, one by the guest.
    let mut half = Tcp::connect(&g, Offloads::default(), 33001, (GATEWAY, port)).unwrap();
    let (s, _) = listener.accept().unwrap();
    let (h, _) = listener.accept().unwrap();
    h.shutdown(Shutdown::Write).unwrap();
    half.until(|t| t.fin);
    open.write(b"hello", tcp::MSS);
    open.close();
    std::thread::sleep(Duration::from_millis(300));
    let (before, start) = (cpu_time(), Instant::now());
    std::thread::sleep(Duration::from_secs(2));
    let used = cpu_time() - before;
    assert!(used < start.elapsed() / 100, "{used:?}");
    drop((s, h));
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn connections_leave_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let NetdevKind::User(options) = NetdevOptions::parse("user,id=n").unwrap().kind else { unreachable!() };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let g = Guest::new(&options);
    let before = descriptors();
    let mut ended: Vec<Tcp<'_>> = Vec::new();
    for round in 0..40u16 {
        // Several at once, each ended in another way.
        let mut open: Vec<_> = (0..8)
            .map(|n| Tcp::connect(&g, Offloads::default(), 20_000 + round * 8 + n, (GATEWAY, port)).unwrap())
            .collect();
        let mut hosts: Vec<_> = open.iter().map(|_| Some(listener.accept().unwrap().0)).collect();
        for (n, (t, host)) in open.iter_mut().zip(&mut hosts).enumerate() {
            t.write(b"some data", tcp::MSS);
            match n % 4 {
                0 => {
                    t.close();
                    *host = None;
                }
                1 => {
                    host.as_ref().unwrap().shutdown(Shutdown::Write).unwrap();
                    t.until(|t| t.fin);
                    t.close();
                    *host = None;
                }
                2 => {
                    t.send(tcp::RST | tcp::ACK, &[]);
                    *host = None;
                }
                _ => {
                    *host = None;
                    t.send(tcp::FIN | tcp::ACK, &[]);
                    t.seq = t.seq.wrapping_add(1);
                    t.until(|t| t.reset || t.fin && t.acked == t.seq);
                }
            }
        }
        ended.append(&mut open);
    }
    let end = Instant::now() + WAIT;
    while descriptors() > before {
        // What is still on its way to the guest wants an answer.
        while let Some((frame, offload)) = g.next(Duration::ZERO) {
            let segment = tcp::parse(&frame, offload, Offloads::default());
            if let Some((s, t)) = segment.and_then(|s| ended.iter_mut().find(|t| t.local == s.to).map(|t| (s, t))) {
                t.take(&s);
            }
        }
        assert!(Instant::now() < end, "{} descriptors, {before} before", descriptors());
        std::thread::sleep(Duration::from_millis(20));
    }
}
