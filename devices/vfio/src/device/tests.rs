//! The function as a guest sees it, over the fake kernel.

use super::*;
use crate::sys::fake::{Call, FakeDevice, FakeKernel, FakeSetup, Log as Calls, content};
use crate::sys::{DependentDevice, Host, HotResetInfo, MigrationFlags};
use rhea_accel::{IrqSink, MsiTarget, Route};
use rhea_memory::{Access, AddressSpace, Gpa};
use rhea_pci::{Devfn, IntxLines, PciBus};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

#[derive(Default)]
struct Controller {
    level: AtomicBool,
    rises: AtomicU32,
    tells: AtomicBool,
    messages: Mutex<Vec<MsiMessage>>,
}

impl IrqSink for Controller {
    fn set_level(&self, _: u32, level: bool) {
        self.level.store(level, SeqCst);
        self.rises.fetch_add(u32::from(level), SeqCst);
    }
    fn tells_end(&self, _: u32) -> bool {
        self.tells.load(SeqCst)
    }
}

impl MsiTarget for Controller {
    fn send(&self, message: MsiMessage) {
        self.messages.lock().push(message);
    }
}

struct Machine {
    bus: Arc<PciBus>,
    routing: Arc<InterruptRouting>,
    controller: Arc<Controller>,
    device: Arc<FakeDevice>,
    calls: Arc<Calls>,
    function: Arc<VfioPci>,
    released: Arc<AtomicU32>,
    requests: Arc<AtomicU32>,
    requested: crossbeam_channel::Receiver<VmRequest>,
}

const PM: usize = 0x40;
const MSI: usize = 0x50;
const MSIX: usize = 0x70;
const EXPRESS: usize = 0x80;
/// BAR 0 of 64 KiB with MSI-X's table in its second page, and BAR 2 of 16 bytes.
const TABLE: u64 = 0x1000;
const BAR: u64 = 0x1_0000_0000;

fn space() -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    let mut put = |at: usize, data: &[u8]| bytes[at..at + data.len()].copy_from_slice(data);
    put(0, &[0x86, 0x80, 0xd3, 0x10, 0, 0, 0x10, 0x40, 3, 0, 0, 2]);
    put(0x10, &[0x04]);
    put(0x2c, &[1, 0, 2, 0]);
    put(0x34, &[PM as u8]);
    put(0x3d, &[1]);
    put(PM, &[1, MSI as u8, 3, 0, 8, 0]);
    put(MSI, &[5, MSIX as u8, 0x84, 1]);
    put(MSIX, &[0x11, EXPRESS as u8, 7, 0, 0, 0x10, 0, 0, 0, 0x18, 0, 0]);
    put(EXPRESS, &[0x10, 0xe0, 2, 0, 0, 0x80, 0, 0x10]);
    put(EXPRESS + 0xc, &[0x12, 0x34, 0x56, 0x78]);
    // Something unknown, whose list comes back to the start.
    put(0xe0, &[0x42, PM as u8, 0xab, 0xcd]);
    // Address translation is hidden, error reporting is not.
    put(0x100, &[0x0f, 0, 1, 0x20]);
    put(0x200, &[1, 0, 1, 0, 0x99]);
    bytes
}

fn setup(space: Vec<u8>) -> FakeSetup {
    let mut setup = FakeSetup::default();
    setup.regions[0].size = 0x1_0000;
    setup.regions[2] = crate::sys::RegionInfo { index: 2, size: 16, offset: 2 << 40, ..setup.regions[0].clone() };
    setup.contents.insert(region::CONFIG, space);
    setup.contents.insert(0, vec![0x11; 16]);
    setup
}

impl Machine {
    fn new(setup: FakeSetup, choices: Choices) -> Self {
        Self::with_groups(setup, choices, Box::new(|_| None))
    }
    fn with_groups(setup: FakeSetup, choices: Choices, groups: Groups) -> Self {
        let (routing, controller) = (InterruptRouting::new(), Arc::new(Controller::default()));
        for n in 0..4 {
            let sink: Arc<dyn IrqSink> = controller.clone();
            routing.set_route(n, Some(Route { sink, pin: n }));
        }
        let memory = AddressSpace::new("memory");
        let wires = IntxLines::new(std::array::from_fn(|n| routing.line(n as u32)));
        let bus = PciBus::with_wires("pcie.0", memory, wires, Some(controller.clone()));
        let kernel = FakeKernel { device: Arc::new(setup), ..FakeKernel::default() };
        let file = kernel.open_cdev(Path::new("vfio0")).expect("the fake opens");
        let device = kernel.devices.lock()[0].clone();
        let (control, requested) = VmControl::new();
        let (released, requests): (Arc<AtomicU32>, Arc<AtomicU32>) = Default::default();
        let (counted, asked) = (released.clone(), requests.clone());
        let clock = VirtualClock::new();
        clock.start();
        let environment = Environment {
            routing: routing.clone(),
            clock,
            log: Log::off(),
            control,
            release: Arc::new(move |memory| {
                counted.fetch_add(1, SeqCst);
                drop(memory);
            }),
            patience: Duration::from_millis(if choices.no_fast_msi { 100 } else { 30_000 }),
            requested: Arc::new(move || {
                asked.fetch_add(1, SeqCst);
            }),
        };
        let opened =
            Opened { device: file, name: "0000:01:00.0".to_owned(), peers: Arc::default(), groups, keep: Box::new(()) };
        let slot = bus.slot(Devfn(8));
        let function = VfioPci::new(opened, &slot, choices, environment).expect("the fake is a function");
        bus.attach(function.clone()).expect("the slot is free");
        function.reset();
        let calls = kernel.log.clone();
        calls.take();
        Self { bus, routing, controller, device, calls, function, released, requests, requested }
    }
    fn read(&self, at: usize, size: u8) -> u32 {
        self.function.config_read(at as u16, size)
    }
    fn write(&self, at: usize, size: u8, value: u32) {
        self.function.config_write(at as u16, size, value);
    }
    fn load(&self, at: u64, size: u8) -> u64 {
        self.bus.memory().load(Gpa(BAR + at), Access::cpu(0, size)).expect("the BAR answers")
    }
    fn store(&self, at: u64, size: u8, value: u64) {
        self.bus.memory().store(Gpa(BAR + at), value, Access::cpu(0, size)).expect("the BAR answers");
    }
    fn place(&self) {
        self.write(0x10, 4, 0);
        self.write(0x14, 4, 1);
        self.write(COMMAND, 2, 6);
    }
    fn up(&self) -> bool {
        self.controller.level.load(SeqCst)
    }
    fn mode(&self) -> String {
        self.function.status().mode
    }
}

fn wait(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn configuration_space() {
    let m = Machine::new(setup(space()), Choices::default());
    assert_eq!((m.read(0, 4), m.read(8, 4), m.read(0x2c, 4)), (0x10d3_8086, 0x0200_0003, 0x0002_0001));
    // The list of capabilities, all in their places; the unknown one is the function's own.
    let mut list = Vec::new();
    let mut at = m.read(0x34, 1) as usize;
    while at != 0 {
        list.push((m.read(at, 1), at));
        at = m.read(at + 1, 1) as usize;
    }
    assert_eq!(list, [(1, PM), (5, MSI), (0x11, MSIX), (0x10, EXPRESS), (0x42, 0xe0)]);
    assert_eq!(m.read(0xe2, 2), 0xcdab);
    // On a root bus there is no link.
    assert_eq!((m.read(EXPRESS + 2, 2), m.read(EXPRESS + 0xc, 4)), (0x92, 0));
    // Of the hidden one nothing is seen but the start of the list.
    assert_eq!(
        (m.read(0x100, 4), m.read(0x104, 4), m.read(0x200, 4), m.read(0x204, 1)),
        (0x2000_0000, 0, 0x1_0001, 0x99)
    );
    // Sizes of BARs, and what kind they are.
    for (at, mask) in [(0x10, 0xffff_0004), (0x14, 0xffff_ffff), (0x18, 0xffff_fff0), (0x30, 0)] {
        m.write(at, 4, u32::MAX);
        assert_eq!(m.read(at, 4), mask, "{at:#x}");
    }
    assert_eq!(m.calls.take(), [], "BARs are nobody else's");
    // Bus mastering is the function's; memory stays on.
    m.write(COMMAND, 2, 0x404);
    assert_eq!(m.calls.take(), [Call::RegionWrite(region::CONFIG, 4, vec![7, 4])]);
    m.write(COMMAND, 2, 0x404);
    assert_eq!(m.calls.take(), []);
    // Device Control and Status: errors are cleared apart, the function is not reset.
    m.write(EXPRESS + 8, 4, 0x000f_2810);
    let express = EXPRESS as u64;
    assert_eq!(
        m.calls.take(),
        [
            Call::RegionWrite(region::CONFIG, express + 8, vec![0x10, 0x28]),
            Call::RegionWrite(region::CONFIG, express + 10, vec![0x0f, 0])
        ]
    );
    m.write(0x06, 2, 0xf900);
    assert_eq!(m.calls.take(), [Call::RegionWrite(region::CONFIG, 6, vec![0, 0xf9])]);
    m.write(MSIX, 2, 0);
    m.write(0, 4, 0);
    assert_eq!(m.calls.take(), []);
}

#[test]
fn bars_are_memory_but_for_the_table() {
    let m = Machine::new(setup(space()), Choices::default());
    m.place();
    assert_eq!(m.function.status().mapped, 0xf000);
    m.store(0x2000, 4, 0x1234_5678);
    assert_eq!(m.load(0x2000, 4), 0x1234_5678);
    m.store(TABLE + 4, 4, 0xaa);
    assert_eq!(m.load(TABLE, 8), 0xaa << 32);
    assert_eq!(m.calls.take().iter().filter(|c| matches!(c, Call::RegionWrite(0, ..))).count(), 0);
    // Without memory: reads and writes.
    let m = Machine::new(setup(space()), Choices { no_mmap: true, ..Choices::default() });
    m.place();
    m.calls.take();
    m.store(0x2000, 4, 0x1234_5678);
    assert_eq!(m.calls.take(), [Call::RegionWrite(0, 0x2000, vec![0x78, 0x56, 0x34, 0x12])]);
    assert_eq!(m.load(0, 4), 0x1111_1111);
    // In D3 nobody answers; the host's function stays awake.
    m.write(PM + 4, 2, 3);
    assert_eq!((m.load(0, 4), m.read(PM + 4, 2)), (0xffff_ffff, 0xb));
    m.write(PM + 4, 2, 0);
    assert_eq!(m.load(0, 4), 0x1111_1111);
    assert!(m.calls.take().is_empty());
}

#[test]
fn intx_by_access_and_by_controller() {
    for tells in [false, true] {
        let m = Machine::new(setup(space()), Choices::default());
        m.controller.tells.store(tells, SeqCst);
        m.place();
        assert_eq!(m.mode(), "INTx slow");
        for n in 1..=20 {
            m.device.set_intx(true);
            wait("the line rises", || m.up());
            assert_eq!(m.function.status().shown, tells);
            m.load(0x2000, 4);
            assert!(m.up() && m.device.intx_masked(), "{n}: the function asserts it");
            m.device.set_intx(false);
            if tells {
                m.routing.resample(m.function.status().route.expect("it has a pin").1);
            } else {
                m.load(0x2000, 4);
            }
            assert!(!m.up() && !m.device.intx_masked(), "{n}");
            assert_eq!(m.controller.rises.load(SeqCst), n);
        }
    }
}

/// An accelerator that raises lines by itself: those that eventfds lead to.
#[derive(Default)]
struct Fast(Mutex<Vec<(u32, OwnedFd)>>);

impl IrqFd for Fast {
    fn attach(&self, line: &IrqLine, trigger: BorrowedFd<'_>, resample: Option<BorrowedFd<'_>>) -> io::Result<()> {
        assert!(resample.is_some());
        self.0.lock().push((line.number().expect("a numbered line"), trigger.try_clone_to_owned()?));
        Ok(())
    }
    fn detach(&self, line: &IrqLine, _: BorrowedFd<'_>) -> io::Result<()> {
        let (mut all, number) = (self.0.lock(), line.number());
        let at = all.iter().position(|(n, _)| Some(*n) == number).ok_or(io::ErrorKind::NotFound)?;
        all.remove(at);
        Ok(())
    }
    fn attach_msi(&self, _: MsiMessage, _: BorrowedFd<'_>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn detach_msi(&self, _: MsiMessage, _: BorrowedFd<'_>) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }
}

impl Fast {
    /// The line that interrupts.
    fn take(&self) -> Option<u32> {
        let all = self.0.lock();
        assert_eq!(all.len(), 1);
        rustix::io::read(&all[0].1, &mut [0; 8]).ok().map(|_| all[0].0)
    }
}

/// On boards whose pins are wired for good nothing changes a route: here the test does, and the controller, while the function interrupts.
#[test]
fn a_route_that_no_guest_changes() {
    const ROUNDS: u32 = 150;
    for fast in [false, true] {
        let m = Machine::new(setup(space()), Choices::default());
        let lines = Arc::new(Fast::default());
        if fast {
            m.bus.set_irqfd(Some(lines.clone()));
            m.function.reset();
        }
        m.place();
        let line = m.function.status().route.expect("it has a pin").0;
        let (mut here, mut old) = (m.controller.clone(), Arc::new(Controller::default()));
        for n in 0..ROUNDS {
            std::mem::swap(&mut here, &mut old);
            here.level.store(false, SeqCst);
            // Every third time it interrupts before the change, and asserts it still.
            if n % 3 == 0 {
                m.device.set_intx(true);
                if !fast {
                    wait("the old one has it", || old.level.load(SeqCst));
                }
            }
            let route = |pin| Some(Route { sink: here.clone() as Arc<dyn IrqSink>, pin });
            if n % 2 == 0 {
                m.routing.set_route(line, route(40 + n))
            } else {
                m.routing.replace_controller(&route)
            }
            m.device.set_intx(true);
            if fast {
                assert_eq!(lines.take(), Some(line), "{n}: it is lost");
            } else {
                wait("the new one has it", || here.level.load(SeqCst) && m.device.intx_masked());
            }
            m.device.set_intx(false);
            if fast {
                m.device.unmask_by_eventfd();
                assert_eq!(lines.take(), None, "{n}: it is doubled");
            } else {
                m.load(0x2000, 4);
                wait("it has ended", || !here.level.load(SeqCst) && !m.device.intx_masked());
            }
        }
        let status = m.function.status();
        let counter = |name| status.counters.iter().find(|(n, _)| *n == name).map_or(0, |(_, v)| *v as u32);
        let joined = if fast { ROUNDS + 1 } else { 0 };
        assert_eq!((counter("joined-fast"), counter("failures")), (joined, 0), "{status}");
        assert!(if fast { counter("intx") <= ROUNDS } else { counter("intx") >= ROUNDS }, "{status}");
        assert_eq!(status.mode, if fast { "INTx fast" } else { "INTx slow" });
        m.function.release();
        assert_eq!((m.device.eventfds(), lines.0.lock().len()), (0, 0));
    }
}

/// An end that nobody tells of: an access is taken for it after the time.
#[test]
fn time_helps() {
    let m = Machine::new(setup(space()), Choices { intx_timeout: 20, ..Choices::default() });
    m.controller.tells.store(true, SeqCst);
    m.place();
    m.device.set_intx(true);
    wait("BARs are hidden", || !m.function.status().shown);
    m.device.set_intx(false);
    m.load(0x2000, 4);
    assert!(!m.up());
    wait("BARs are shown", || m.function.status().shown);
}

#[test]
fn messages() {
    let m = Machine::new(setup(space()), Choices::default());
    m.place();
    // MSI, two vectors of four.
    m.write(MSI + 4, 4, 0xfee0_1000);
    m.write(MSI + 8, 4, 1);
    m.write(MSI + 12, 2, 0x4041);
    m.write(MSI + 16, 4, 0xffff_ffff);
    assert_eq!(m.read(MSI + 16, 4), 0xf);
    m.write(MSI + 16, 4, 2);
    m.write(MSI + 2, 2, 0x11);
    assert_eq!(m.mode(), "MSI, 2 vectors, 0 fast");
    assert!(m.device.fire(irq::MSI, 0) && m.device.fire(irq::MSI, 1) && !m.device.fire(irq::MSI, 2));
    wait("the message", || m.controller.messages.lock().len() == 1);
    assert_eq!(m.controller.messages.lock()[0], MsiMessage { address: 0x1_fee0_1000, data: 0x4040, requester_id: 8 });
    // The masked one waits.
    wait("it is pending", || m.read(MSI + 20, 4) == 2);
    m.write(MSI + 16, 4, 0);
    wait("the other message", || m.controller.messages.lock().len() == 2);
    assert_eq!((m.controller.messages.lock()[1].data, m.read(MSI + 20, 4)), (0x4041, 0));
    // Off: INTx at once.
    m.write(MSI + 2, 2, 0);
    assert_eq!(m.mode(), "INTx slow");
    // MSI-X, whose vectors come when they are opened.
    m.write(MSIX + 2, 2, 0x8000);
    assert_eq!(m.mode(), "MSI-X, 0 vectors, 0 fast");
    let entry = |n: u64, data: u64, masked: u64| {
        m.store(TABLE + n * 16, 8, 0xfee0_0000);
        m.store(TABLE + n * 16 + 8, 4, data);
        m.store(TABLE + n * 16 + 12, 4, masked);
    };
    entry(3, 0x77, 0);
    assert!(m.device.fire(irq::MSIX, 3) && !m.device.fire(irq::MSIX, 2));
    wait("vector 3", || m.controller.messages.lock().len() == 3);
    // All masked at once: pending bits, then the message.
    m.write(MSIX + 2, 2, 0xc000);
    assert!(m.device.fire(irq::MSIX, 3));
    wait("it is pending", || m.load(0x1800, 8) == 8);
    m.write(MSIX + 2, 2, 0x8000);
    wait("vector 3 again", || m.controller.messages.lock().len() == 4);
    // Without bus mastering there are no messages.
    m.write(COMMAND, 2, 2);
    assert!(m.device.fire(irq::MSIX, 3));
    wait("it is taken", || m.function.status().counters.contains(&("messages", 5)));
    assert_eq!(m.controller.messages.lock().len(), 4);
    m.write(MSIX + 2, 2, 0);
    assert_eq!(m.mode(), "INTx slow");
}

#[test]
fn resets() {
    let m = Machine::new(setup(space()), Choices::default());
    m.place();
    m.write(MSI + 2, 2, 1);
    m.calls.take();
    // By the guest: Initiate Function Level Reset.
    m.write(EXPRESS + 8, 2, 0xa810);
    let calls = m.calls.take();
    let at = |wanted: &Call| calls.iter().position(|c| c == wanted);
    let off = at(&Call::SetIrqs(irq::MSI, IrqAction::Trigger, 0, crate::sys::fake::Data::None(0)));
    assert!(off.is_some() && off < at(&Call::Reset), "{calls:?}");
    assert_eq!(
        (m.mode().as_str(), m.read(COMMAND, 2), m.read(0x14, 4), m.read(MSI + 2, 2)),
        ("INTx slow", 0, 0, 0x184)
    );
    // The machine's, with an interrupt pending.
    m.device.set_intx(true);
    wait("the line rises", || m.up());
    m.device.set_intx(false);
    m.function.reset();
    assert!(!m.up() && m.function.status().shown);
    assert_eq!(m.mode(), "INTx slow");
}

#[test]
fn notices_of_the_host() {
    let m = Machine::new(setup(space()), Choices::default());
    assert!(m.device.fire(irq::REQ, 0));
    wait("it is asked for", || m.requests.load(SeqCst) == 1);
    assert!(m.device.fire(irq::ERR, 0));
    let stop = m.requested.recv_timeout(Duration::from_secs(30));
    assert_eq!(stop, Ok(VmRequest::InternalError));
}

/// A function goes over with its registers, its vectors and its own state.
#[test]
fn a_function_moves() {
    let flags = MigrationFlags { stop_copy: true, p2p: true, pre_copy: false };
    let new = |migration| Machine::new(FakeSetup { migration, ..setup(space()) }, Choices::default());
    let from = new(Some(flags));
    *from.device.movable().content.lock() = content(b"what it is");
    from.place();
    from.write(MSIX + 2, 2, 0x8000);
    from.store(TABLE + 0x30, 8, 0xfee0_0000);
    from.store(TABLE + 0x38, 8, 0x77);
    let saved = from.function.save();
    let works = |m: &Machine| {
        assert_eq!(m.function.status().migration, Some(MigrationState::Running));
        assert_eq!((m.mode().as_str(), m.read(COMMAND, 2)), ("MSI-X, 1 vectors, 0 fast", 6));
        assert_eq!(m.load(TABLE + 0x38, 8), 0x77);
        assert!(m.device.fire(irq::MSIX, 3));
        wait("the message", || m.controller.messages.lock().len() == 1);
        assert_eq!(m.controller.messages.lock()[0].data, 0x77);
    };
    works(&from);
    let to = new(Some(flags));
    to.function.load(&saved).expect("it is taken");
    assert_eq!(*to.device.movable().content.lock(), content(b"what it is"));
    works(&to);
    // Over one that does something else, asleep.
    let busy = new(Some(flags));
    busy.write(PM + 4, 2, 3);
    busy.write(MSI + 2, 2, 1);
    busy.device.set_intx(true);
    busy.function.load(&saved).expect("it is taken");
    works(&busy);
    // Nor out of, or into, one that cannot; nor what is not whole.
    let fixed = new(None);
    assert!(matches!(fixed.function.save(), Saved::NotMigratable(_)));
    assert!(fixed.function.load(&saved).is_err());
    assert_eq!(fixed.function.status().migration, None);
    let Saved::Bytes { version, mut data } = saved else { panic!("{saved:?}") };
    data.pop();
    assert!(to.function.load(&Saved::Bytes { version, data }).is_err());
    // A device that gives none.
    from.device.movable().fail = Some((MigrationState::StopCopy, MigrationState::Error));
    assert!(matches!(from.function.save(), Saved::NotMigratable(_)));
    assert_eq!(from.function.status().migration, Some(MigrationState::Running));
}

/// Moved while the guest runs: a part before the stop, the rest after it; what it signalled before is here, and it runs there.
#[test]
fn a_function_moves_while_it_runs() {
    use MigrationState::{PreCopy, Running, Stop, StopCopy};
    let flags = MigrationFlags { stop_copy: true, p2p: true, pre_copy: true };
    let new = |migration| Machine::new(FakeSetup { migration, ..setup(space()) }, Choices::default());
    let state = |m: &Machine| m.function.status().migration;
    let from = new(Some(flags));
    from.place();
    from.write(MSIX + 2, 2, 0x8000);
    from.store(TABLE + 0x30, 8, 0xfee0_0000);
    from.store(TABLE + 0x38, 8, 0x77);
    *from.device.movable().content.lock() = content(b"what it is, and what it will be");
    *from.device.movable().ready.lock() = 20;
    assert_eq!(from.function.blocker(), None);
    // Given up before the stop.
    from.function.moving().expect("it begins");
    assert_eq!(state(&from), Some(PreCopy));
    from.function.moved();
    assert_eq!(state(&from), Some(Running));
    from.function.moving().expect("it begins");
    let mut parts = Vec::new();
    while let Some(part) = from.function.moving_data(9).ok().filter(|p| !p.is_empty()) {
        parts.push(part);
    }
    assert_eq!(parts.concat().len(), 20);
    assert!(from.device.fire(irq::MSIX, 3));
    from.function.quiesce();
    assert_eq!((state(&from), from.controller.messages.lock().len()), (Some(StopCopy), 1));
    let saved = from.function.save();
    from.function.moved();
    assert_eq!(state(&from), Some(Stop), "it is the other's now");
    let to = new(Some(flags));
    to.function.quiesce();
    parts.iter().for_each(|part| to.function.take_data(part).expect("it is taken"));
    to.function.load(&saved).expect("it is taken");
    assert_eq!(*to.device.movable().content.lock(), content(b"what it is, and what it will be"));
    assert_eq!((state(&to), to.mode().as_str()), (Some(Stop), "MSI-X, 1 vectors, 0 fast"));
    to.function.resume();
    assert_eq!(state(&to), Some(Running));
    // It failed there: it runs on here.
    from.function.resume();
    from.function.resume();
    assert_eq!(state(&from), Some(Running));
    // A reset at rest is a fresh start, and what is at rest is saved as it stands.
    to.function.quiesce();
    assert!(matches!(to.function.save(), Saved::Bytes { .. }));
    assert_eq!(state(&to), Some(Stop));
    to.function.reset();
    to.function.resume();
    assert_eq!(state(&to), Some(Running));
    // One that cannot says so by name, and nothing happens to it.
    let fixed = new(None);
    let why = fixed.function.blocker().expect("it cannot");
    assert_eq!(why, "the driver of 0000:01:00.0 on the host cannot tell its state");
    fixed.calls.take();
    fixed.function.quiesce();
    fixed.function.resume();
    assert!(fixed.function.take_data(&[1]).is_err() && fixed.calls.take().is_empty());
    // Nor does one that does not stop hold up the machine.
    to.device.movable().fail = Some((MigrationState::RunningP2p, Running));
    to.device.movable().state = Some(Running);
    to.function.quiesce();
    to.function.resume();
    assert_eq!(state(&to), Some(Running));
}

#[test]
fn nothing_is_left() {
    let m = Machine::new(setup(space()), Choices::default());
    m.place();
    m.device.set_intx(true);
    wait("the line rises", || m.up());
    m.function.release();
    assert!(!m.up());
    assert_eq!((m.device.eventfds(), m.released.load(SeqCst), m.mode().as_str()), (0, 1, "none"));
    let unmapped = m.calls.take().iter().filter(|c| matches!(c, Call::UnmapRegion(..))).count();
    assert_eq!(unmapped, 2);
    // Nothing answers any more.
    assert_eq!((m.read(0, 4), m.load(0x2000, 4)), (u32::MAX, 0xffff_ffff));
    m.write(MSI + 2, 2, 1);
    m.function.reset();
    assert_eq!(m.calls.take(), []);
    assert!(m.device.is_open());
    let Machine { bus, function, device, .. } = m;
    bus.detach_all();
    drop(function);
    wait("it is closed", || !device.is_open());
}

/// A function whose reset does not come back: the machine goes on without it, and gives everything back.
#[test]
fn a_function_that_hangs() {
    // Not patient: see `Machine::new`.
    let m = Machine::new(setup(space()), Choices { no_fast_msi: true, ..Choices::default() });
    m.place();
    let stuck = m.device.stuck.lock();
    let began = Instant::now();
    m.write(EXPRESS + 8, 2, 0x8000);
    m.function.reset();
    m.function.release();
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!((m.read(0, 4), m.up()), (u32::MAX, false));
    drop(stuck);
    let Machine { bus, function, device, .. } = m;
    bus.detach_all();
    drop(function);
    wait("it is closed", || !device.is_open());
    assert_eq!(device.eventfds(), 0);
}

/// A reset that takes longer than the machine waits: when it is over the function is there again, as after any reset.
#[test]
fn a_function_whose_reset_is_late() {
    let m = Machine::new(setup(space()), Choices { no_fast_msi: true, ..Choices::default() });
    m.place();
    let id = m.read(0, 4);
    for _ in 0..3 {
        let stuck = m.device.stuck.lock();
        m.function.reset();
        assert_eq!(m.read(0, 4), u32::MAX);
        // Another one meanwhile has nothing to wait for.
        let began = Instant::now();
        m.function.reset();
        assert!(began.elapsed() < Duration::from_secs(20));
        drop(stuck);
        wait("it is there again", || m.read(0, 4) == id);
        wait("its interrupts are", || m.mode().starts_with("INTx"));
        m.place();
    }
    m.function.release();
    assert_eq!(m.device.eventfds(), 0);
}

/// A function that the host resets only with its bus: with all groups that are on it, or with none of them where the host knows the
/// owner itself; and not at all if somebody else has one.
#[test]
fn resets_of_a_bus() {
    let on_bus = |owners: &[i32]| -> Vec<DependentDevice> {
        owners.iter().map(|&owner| DependentDevice { owner, segment: 0, bus: 1, devfn: 0 }).collect()
    };
    let by_groups = |owners: &[i32]| HotResetInfo { devices: on_bus(owners), ..HotResetInfo::default() };
    let by_device = |owned| HotResetInfo { devices: on_bus(&[0, 0]), by_device: true, owned };
    for (hot_reset, expected) in [
        (by_groups(&[7]), vec![1]),
        // Two functions of a group, and another group: each once.
        (by_groups(&[7, 9, 7]), vec![2]),
        // This is not ours.
        (by_groups(&[7, 8]), vec![]),
        // Nor can this be: it is no group.
        (by_groups(&[7, -1]), vec![]),
        (by_device(true), vec![0]),
        (by_device(false), vec![]),
    ] {
        let mut setup = FakeSetup { hot_reset: hot_reset.clone(), ..setup(space()) };
        setup.info.reset = false;
        let groups = |numbers: &[u32]| -> Option<Vec<RawFd>> {
            numbers.iter().map(|n| [7, 9].contains(n).then_some(*n as RawFd)).collect()
        };
        let m = Machine::with_groups(setup, Choices::default(), Box::new(groups));
        m.place();
        let resets = |m: &Machine| -> Vec<usize> {
            let calls = m.calls.take();
            assert!(!calls.contains(&Call::Reset));
            calls.iter().filter_map(|c| if let Call::HotReset(n) = c { Some(*n) } else { None }).collect()
        };
        m.calls.take();
        m.function.reset();
        assert_eq!(resets(&m), expected, "{hot_reset:?}");
        // The guest resets its function, and not others'.
        m.write(EXPRESS + 8, 2, 0x8000);
        assert!(resets(&m).is_empty(), "{hot_reset:?}");
        assert_eq!(m.read(COMMAND, 2) & 6, 0, "as after a reset");
        m.function.release();
        assert_eq!(m.device.eventfds(), 0);
    }
}

/// A bus reset that fails leaves the function usable, each time.
#[test]
fn a_bus_reset_that_fails() {
    let mut setup = setup(space());
    setup.info.reset = false;
    setup.hot_reset = HotResetInfo { devices: Vec::new(), by_device: true, owned: true };
    let m = Machine::new(setup, Choices::default());
    let id = m.read(0, 4);
    m.calls.take();
    m.function.reset();
    let calls = m.calls.take();
    let at = calls.iter().position(|c| *c == Call::HotReset(0)).expect("a bus reset");
    for errno in [libc::EPERM, libc::EAGAIN, libc::ENOTTY] {
        m.calls.fail_after(at, errno);
        m.function.reset();
        assert!(!m.calls.succeed(), "the call failed");
        assert_eq!(m.read(0, 4), id);
        m.place();
        assert_eq!(m.read(COMMAND, 2) & 6, 6);
        m.calls.take();
    }
    m.function.release();
    assert_eq!(m.device.eventfds(), 0);
}

/// Configuration space is the function's to fill: whatever is in it.
#[test]
fn hostile_configuration_spaces() {
    let mut seed = 1u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as u8
    };
    for n in 0..60 {
        let mut bytes: Vec<u8> = if n % 2 == 0 { (0..4096).map(|_| random()).collect() } else { space() };
        for _ in 0..8 {
            let at = usize::from(random()) | usize::from(random() & 15) << 8;
            bytes[at] = random();
        }
        bytes[0xe] = 0;
        bytes[6] |= 0x10;
        let m = Machine::new(setup(bytes), Choices { intx_timeout: 0, ..Choices::default() });
        for at in (0..4096).step_by(2) {
            // Resets take a thread each.
            let value = u32::from(random()) << 8 & 0x7f00 | u32::from(random());
            m.write(at, 2, value);
            m.read(at, 2);
        }
        m.function.release();
        assert_eq!(m.device.eventfds(), 0);
    }
}
