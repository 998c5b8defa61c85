use super::super::ram;
use super::super::stream::{Kind, StateError, Writer};
use super::*;
use rhea_memory::{PAGE_SIZE, RamBlock};
use std::io::{BufWriter, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// Connections that are handed over in the process.
fn pairs() -> (Sender<UnixStream>, Accepting) {
    let (to, from): (_, Receiver<UnixStream>) = channel();
    let accept = move |until: std::time::Instant| {
        let left = until.saturating_duration_since(std::time::Instant::now());
        from.recv_timeout(left).map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "nobody connects"))
    };
    (to, Accepting { accept: Box::new(accept), stop: Box::new(|| {}) })
}

fn receivers(accepting: Accepting, channels: u8, seconds: u64) -> Receivers<'static> {
    let mut all = Receivers::new(Some(channels), Some(accepting), None);
    all.patience = Duration::from_secs(seconds);
    all
}

fn section(round: u64) -> Section {
    Section { kind: Kind::Round, name: String::new(), version: 1, data: round.to_le_bytes().to_vec() }
}

fn message<T>(result: Result<T>) -> String {
    result.err().map(|e| e.to_string()).unwrap_or_default()
}

/// A page that is sent in each round, by whichever channel, is at the end what it was in the last one.
#[test]
fn rounds_keep_their_order() {
    let (dialled, accepting) = pairs();
    let dial: Dial = Box::new(move || {
        let (here, there) = UnixStream::pair()?;
        dialled.send(there).map_err(|_| ended())?;
        Ok(here)
    });
    let plan = Plan::new(4).unwrap();
    let from = RamBlock::anonymous("ram", 64 * PAGE_SIZE).unwrap();
    let to = RamBlock::anonymous("ram", 64 * PAGE_SIZE).unwrap();
    let told = Arc::new(AtomicU64::new(0));
    let tell = {
        let told = told.clone();
        move |pages, _| {
            told.fetch_add(pages, Ordering::SeqCst);
        }
    };
    let senders = Senders::new(&plan, &dial, Some(1), |link| link, Box::new(|| {}), Arc::new(tell)).unwrap();
    let mut receivers = receivers(accepting, 4, 60);
    receivers.begin(Some(&plan), std::slice::from_ref(&to)).unwrap();
    for turn in 1..=50u8 {
        from.fill(0, 64 * PAGE_SIZE, turn).unwrap();
        for page in 0..64 {
            senders.pages(&from, page, 1).unwrap();
        }
        assert_eq!(senders.round().unwrap(), u64::from(turn));
        receivers.round(&section(u64::from(turn))).unwrap();
        let mut all = vec![0; 64 * PAGE_SIZE as usize];
        to.read(0, &mut all).unwrap();
        assert!(all.iter().all(|b| *b == turn), "round {turn}");
    }
    senders.finish().unwrap();
    receivers.end().unwrap();
    assert_eq!(told.load(Ordering::SeqCst), 50 * 64);
}

#[test]
fn both_ends_want_the_same() {
    let plan = Plan::new(2).unwrap();
    let refused = |wanted, plan| message(Receivers::new(wanted, Some(pairs().1), None).begin(plan, &[]));
    assert_eq!(refused(None, Some(&plan)), "multifd: the saved machine has on, this one off");
    assert_eq!(refused(Some(2), None), "multifd: the saved machine has off, this one on");
    assert_eq!(refused(Some(3), Some(&plan)), "multifd-channels: the saved machine has 2, this one 3");
    assert_eq!(refused(None, None), "");
}

/// Connections that say nothing or something else are none of the move's.
#[test]
fn strangers_are_let_go() {
    let (dialled, accepting) = pairs();
    let plan = Plan::new(1).unwrap();
    let other = Plan::new(1).unwrap();
    let ends: Vec<UnixStream> = (0..4)
        .map(|_| {
            let (here, there) = UnixStream::pair().unwrap();
            dialled.send(there).unwrap();
            here
        })
        .collect();
    (&ends[0]).write_all(&other.greeting(0)).unwrap();
    (&ends[1]).write_all(&plan.greeting(1)).unwrap();
    (&ends[2]).write_all(&plan.greeting(0)[..20]).unwrap();
    ends[2].shutdown(std::net::Shutdown::Write).unwrap();
    (&ends[3]).write_all(&plan.greeting(0)).unwrap();
    let mut one = receivers(accepting, 1, 60);
    one.begin(Some(&plan), &[]).unwrap();
    assert!(one.carry_pages());
    // Channels that are never made are not waited for without end.
    let (_dialled, accepting) = pairs();
    let e = message(receivers(accepting, 1, 0).begin(Some(&plan), &[]));
    assert_eq!(e, "multifd channel 0: nobody connects");
}

/// What becomes of a move one of whose two channels brings `bytes`, after which it ends or not.
fn hostile(bytes: &[u8], ends: bool, seconds: u64) -> String {
    let (dialled, accepting) = pairs();
    let plan = Plan::new(2).unwrap();
    let good = stream(&[1]);
    let mut links = Vec::new();
    for (number, bytes) in [(0, &good[..]), (1, bytes)] {
        let (here, there) = UnixStream::pair().unwrap();
        dialled.send(there).unwrap();
        (&here).write_all(&plan.greeting(number)).unwrap();
        (&here).write_all(bytes).unwrap();
        links.push(here);
    }
    if ends {
        links.pop();
    }
    let ram = RamBlock::anonymous("ram", 4 * PAGE_SIZE).unwrap();
    let mut all = receivers(accepting, 2, 60);
    all.begin(Some(&plan), &[ram]).unwrap();
    all.patience = Duration::from_secs(seconds);
    let result = all.round(&section(1)).and_then(|()| all.end());
    message(result.map_err(|e| all.error(e)))
}

/// A channel's stream with these rounds.
fn stream(rounds: &[u64]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new()).unwrap();
    let ram = RamBlock::anonymous("ram", 4 * PAGE_SIZE).unwrap();
    for round in rounds {
        ram::write(&mut writer, &ram, 0, 4).unwrap();
        writer.section(Kind::Round, "", 1, &round.to_le_bytes()).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn hostile_channels_end_the_move() {
    assert_eq!(hostile(&stream(&[1]), true, 60), "");
    let whole = stream(&[1]);
    let cut = hostile(&whole[..whole.len() - 30], true, 60);
    assert!(cut.starts_with("multifd channel 1: the stream ends in "), "{cut}");
    let mut bad = whole.clone();
    bad[40] ^= 1;
    assert!(hostile(&bad, true, 60).starts_with("multifd channel 1: "));
    assert_eq!(hostile(&stream(&[2]), true, 60), "multifd channel 1: round: the one after 0 is missing");
    assert_eq!(hostile(&stream(&[]), true, 60), "multifd channel 1: its stream has ended too early");
    // The good one may not have come to its end yet.
    let silent = hostile(&whole[..16], false, 0);
    assert!(silent.ends_with(": nothing comes"), "{silent}");
    // A section that no page needs is not waited for, nor is there room for it.
    let mut writer = Writer::new(Vec::new()).unwrap();
    writer.section(Kind::Pages, "ram", 1, &vec![0; ram::MOST as usize + 1]).unwrap();
    let large = writer.finish().unwrap();
    let e = hostile(&large[..16 + 16], false, 60);
    assert_eq!(e, "multifd channel 1: section 0: its length or compression is impossible");
    let mut writer = Writer::new(Vec::new()).unwrap();
    writer.section(Kind::Device, "uart", 1, &[]).unwrap();
    let e = hostile(&writer.finish().unwrap(), true, 60);
    assert_eq!(e, "multifd channel 1: device 'uart': it belongs to the main stream");
}

/// A channel that breaks ends the move at the source, whatever it waits for.
#[test]
fn broken_channels_are_told_of() {
    let (keep, kept) = channel();
    let dial: Dial = Box::new(move || {
        let (here, there) = UnixStream::pair()?;
        keep.send(there).map_err(|_| ended())?;
        Ok(here)
    });
    let plan = Plan::new(2).unwrap();
    let wrap = |link| BufWriter::with_capacity(16, link);
    let senders = Senders::new(&plan, &dial, None, wrap, Box::new(|| {}), Arc::new(|_, _| {})).unwrap();
    let ram = RamBlock::anonymous("ram", 256 * PAGE_SIZE).unwrap();
    ram.fill(0, 256 * PAGE_SIZE, 1).unwrap();
    let ends: Vec<UnixStream> = kept.try_iter().collect();
    // Nobody reads: one channel is stuck, the other is gone.
    drop(ends.into_iter().next_back());
    let result = (0..1000).try_for_each(|_| senders.pages(&ram, 0, 256));
    let e = message::<()>(result.and_then(|()| senders.round().map(|_| ())));
    assert!(e.starts_with("multifd channel "), "{e}");
    assert!(matches!(senders.finish(), Err(StateError::Other(_))));
}
