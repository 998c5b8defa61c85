use super::*;
use crate::sys::Host;
use crate::sys::fake::{Call, FakeDevice, FakeKernel, FakeSetup, content};
use std::path::Path;

const ALL: MigrationFlags = MigrationFlags { stop_copy: true, p2p: true, pre_copy: true };

fn kernel(migration: Option<MigrationFlags>) -> FakeKernel {
    let device = Arc::new(FakeSetup { migration, ..FakeSetup::default() });
    FakeKernel { device, ..FakeKernel::default() }
}

fn device(flags: MigrationFlags) -> (FakeKernel, Arc<FakeDevice>, Migration) {
    let kernel = kernel(Some(flags));
    let file = kernel.open_cdev(Path::new("vfio0")).expect("a device");
    let device = kernel.devices.lock()[0].clone();
    let migration = Migration::of(&file).expect("it migrates");
    (kernel, device, migration)
}

fn take(into: &mut Vec<u8>) -> impl FnMut(&[u8]) -> io::Result<()> {
    |data| {
        into.extend_from_slice(data);
        Ok(())
    }
}

fn give(mut from: &[u8]) -> impl FnMut(&mut [u8]) -> io::Result<usize> {
    move |into| {
        // In pieces.
        let n = from.len().min(into.len()).min(7);
        into[..n].copy_from_slice(&from[..n]);
        from = &from[n..];
        Ok(n)
    }
}

/// Each way there is, and each that there is not, of functions with and without the states that not all have.
#[test]
fn every_change() {
    for bits in 0..4 {
        let flags = MigrationFlags { stop_copy: true, p2p: bits & 1 != 0, pre_copy: bits & 2 != 0 };
        for from in State::ALL {
            for to in State::ALL {
                let (kernel, _device, m) = device(flags);
                if m.go(from).is_err() {
                    assert!(from == State::Error || !m.has(from), "{from}");
                    continue;
                }
                kernel.log.take();
                let done = m.go(to);
                let expected = m.has(to) && leads(from, to);
                assert_eq!(done.is_ok(), expected, "{flags:?}: {from} to {to}");
                assert_eq!(m.state(), if expected { to } else { from });
                // What cannot be is not asked for.
                let asked = kernel.log.take().contains(&Call::Migrate(to));
                assert_eq!(asked, expected && from != to);
            }
        }
    }
    let (_kernel, _device, m) = device(MigrationFlags { stop_copy: true, ..MigrationFlags::default() });
    assert!(matches!(m.go(State::PreCopy), Err(MigrationError::Unsupported(State::PreCopy))));
    assert_eq!(m.go(State::Error).unwrap_err().to_string(), "no way leads from the state 'running' to 'error'");
}

#[test]
fn those_that_cannot() {
    for flags in [None, Some(MigrationFlags { p2p: true, ..MigrationFlags::default() })] {
        let file = kernel(flags).open_cdev(Path::new("vfio0")).expect("a device");
        assert!(Migration::of(&file).is_none());
    }
}

/// Each change that fails, with each state that it may end in.
#[test]
fn failing_changes() {
    for to in State::ALL.into_iter().filter(|s| !matches!(s, State::Error | State::Running)) {
        for end in [State::Running, State::Stop, State::Error] {
            let (kernel, device, m) = device(ALL);
            device.movable().fail = Some((to, end));
            kernel.log.take();
            let Err(MigrationError::Refused { from, now, .. }) = m.go(to) else { panic!("{to} did not fail") };
            // A reset leads out of an error.
            let after = if end == State::Error { State::Running } else { end };
            assert_eq!((from, now, m.state()), (State::Running, after, after), "{to}");
            assert_eq!(kernel.log.take().contains(&Call::Reset), end == State::Error);
            m.go(State::Stop).expect("it goes on");
        }
    }
    // One that cannot be reset is lost, and says so.
    let (kernel, device, m) = device(ALL);
    device.movable().fail = Some((State::Stop, State::Error));
    kernel.log.fail_after(1, libc::EIO);
    assert!(m.go(State::Stop).is_err());
    assert_eq!(m.state(), State::Error);
    assert!(matches!(m.go(State::Running), Err(MigrationError::Illegal { .. })));
    m.was_reset();
    assert_eq!(m.state(), State::Running);
}

/// A function moves with its data, which changes while the guest runs on.
#[test]
fn moves() {
    let (_kernel, source, from) = device(ALL);
    *source.movable().content.lock() = content(b"the first part, ");
    *source.movable().ready.lock() = 14;
    let mut data = Vec::new();
    assert!(from.part(8).expect("nothing").is_empty(), "it is not asked yet");
    from.begin().expect("pre-copy");
    loop {
        let part = from.part(2).expect("pre-copy");
        if part.is_empty() {
            break;
        }
        assert!(part.len() <= 2);
        data.extend(part);
    }
    // Nothing at the moment.
    assert!(from.part(8).expect("pre-copy").is_empty());
    assert_eq!((data.len(), from.state()), (14, State::PreCopy));
    let early = data.len();
    source.movable().content.lock()[14..].copy_from_slice(b"ond part, ");
    // Stopped by itself, it goes on with the same stream.
    let alone = Peers::default();
    alone.stop(&from).expect("stopped");
    assert_eq!(from.state(), State::StopCopy);
    from.save(&mut take(&mut data)).expect("stop-copy");
    assert_eq!(data, [&16u64.to_le_bytes()[..], b"the fiond part, "].concat());
    assert_eq!(from.state(), State::Stop);
    use State::{PreCopy, PreCopyP2p, Stop, StopCopy};
    assert_eq!(source.movable().path, [PreCopy, PreCopyP2p, StopCopy, Stop]);
    // It is there as it was: it may run on here, or there.
    let (kernel, target, to) = device(MigrationFlags { stop_copy: true, ..MigrationFlags::default() });
    for part in data[..early].chunks(5) {
        to.take_part(part).expect("a part");
    }
    alone.stop(&to).expect("it is stopped already");
    to.load(&mut give(&data[early..])).expect("resuming");
    assert_eq!(*target.movable().content.lock(), data);
    assert_eq!(to.state(), State::Stop);
    alone.run(&from).and(alone.run(&to)).expect("both run");
    assert_eq!((from.state(), to.state()), (State::Running, State::Running));
    // What is given up before the stop, and what has nothing before it.
    from.begin().and(to.begin()).expect("begun");
    assert_eq!((from.state(), to.state()), (State::PreCopy, State::Running));
    assert!(to.part(9).expect("none").is_empty());
    from.end().and(to.end()).expect("given up");
    assert_eq!((from.state(), to.state()), (State::Running, State::Running));
    // A function that has always more is asked again when it gave what it said.
    *source.movable().ready.lock() = 6;
    *source.movable().content.lock() = content(&[1; 12]);
    from.begin().expect("pre-copy");
    let mut given = 0;
    for n in 1.. {
        *source.movable().ready.lock() = 6 + n;
        *source.movable().content.lock() = content(&vec![1; 12 + n]);
        let part = from.part(2).expect("a part");
        if part.is_empty() {
            break;
        }
        given += part.len();
    }
    assert_eq!(given, 21, "as it was said at first");
    // Parts that are refused leave nothing of them.
    kernel.log.take();
    kernel.log.fail_after(0, libc::EIO);
    assert!(to.take_part(&[0; 9]).is_err());
    assert_eq!(to.state(), State::Running);
    assert!(kernel.log.take().contains(&Call::Reset));
}

#[test]
fn data_that_fails() {
    let (kernel, source, from) = device(ALL);
    *source.movable().content.lock() = content(&[7; 100]);
    let mut room = 20;
    let full = from.save(&mut |data| {
        room -= data.len() as i32;
        if room < 0 { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    });
    assert!(matches!(full, Err(MigrationError::Data(_))));
    assert_eq!(from.state(), State::Stop, "it loses nothing");
    let mut data = Vec::new();
    from.save(&mut take(&mut data)).expect("another time");
    assert_eq!(data, content(&[7; 100]));
    // Cut off, too long, or without a source: the function is not taken for restored.
    let long = [&data[..], b"more"].concat();
    for wrong in [&data[..50], &long] {
        kernel.log.take();
        assert!(from.load(&mut give(wrong)).is_err());
        assert_eq!(from.state(), State::Running);
        assert!(kernel.log.take().contains(&Call::Reset));
    }
    assert!(from.load(&mut |_| Err(ErrorKind::UnexpectedEof.into())).is_err());
    from.load(&mut give(&data)).expect("the right one");
}

/// None does DMA to one that is stopped already.
#[test]
fn functions_stop_together() {
    let (_k1, a, one) = device(ALL);
    let (_k2, b, two) = device(MigrationFlags { stop_copy: true, ..MigrationFlags::default() });
    let (one, two) = (Arc::new(one), Arc::new(two));
    let (_k3, c, three) = device(ALL);
    let three = Arc::new(three);
    let peers = Peers::default();
    [&one, &two, &three].into_iter().for_each(|m| peers.add(m));
    three.begin().expect("pre-copy");
    peers.stop(&one).expect("it stops");
    use State::{PreCopy, PreCopyP2p, RunningP2p, Stop, StopCopy};
    assert_eq!(a.movable().path, [RunningP2p, Stop]);
    assert_eq!(c.movable().path, [PreCopy, PreCopyP2p]);
    peers.stop(&two).and(peers.stop(&three)).expect("the others stop");
    assert_eq!((b.movable().path.clone(), three.state()), (vec![Stop], StopCopy));
    peers.run(&two).expect("it runs");
    assert_eq!((one.state(), two.state(), three.state()), (RunningP2p, State::Running, RunningP2p));
    peers.run(&one).and(peers.run(&three)).expect("they run");
    assert_eq!(a.movable().path[2..], [RunningP2p, State::Running]);
    b.movable().fail = Some((Stop, State::Running));
    assert!(peers.stop(&two).is_err());
    assert_eq!((one.state(), two.state()), (RunningP2p, State::Running));
}
