//! A network where nothing happens costs nothing. Alone in its process, whose time it measures.

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

#[test]
fn idle_uses_no_processor_time() {
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
