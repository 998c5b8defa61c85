use super::*;
use rhea_accel::{IrqSink, Route, RoutingEvent, RoutingListener, ShutdownCause, VmRequest, WakeReason};
use std::time::Duration;

#[derive(Default)]
struct Inputs(Mutex<std::collections::BTreeMap<u32, bool>>);
impl IrqSink for Inputs {
    fn set_level(&self, pin: u32, level: bool) {
        self.0.lock().insert(pin, level);
    }
}
impl Inputs {
    fn get(&self, pin: u32) -> bool {
        self.0.lock().get(&pin).copied().unwrap_or(false)
    }
}

struct Board {
    lpc: Arc<Lpc>,
    io: Arc<AddressSpace>,
    system: Arc<AddressSpace>,
    routing: Arc<InterruptRouting>,
    apic: Arc<Inputs>,
    pic: Arc<Inputs>,
    smis: Arc<Mutex<Vec<Option<u32>>>>,
    requests: crossbeam::Requests,
    clock: Arc<VirtualClock>,
}

mod crossbeam {
    use rhea_accel::{VmControl, VmRequest};
    pub struct Requests(pub Box<dyn Fn() -> Option<VmRequest>>);
    pub fn control() -> (VmControl, Requests) {
        let (control, receiver) = VmControl::new();
        (control, Requests(Box::new(move || receiver.try_recv().ok())))
    }
}

fn board(smm: bool) -> Board {
    let (system, io) = (AddressSpace::new("system"), AddressSpace::new("io"));
    let bus = PciBus::new("pcie.0", system.clone(), [0; 4].map(|_| IrqLine::unconnected()), None);
    let (clock, routing) = (VirtualClock::new(), InterruptRouting::new());
    let (apic, pic) = (Arc::new(Inputs::default()), Arc::new(Inputs::default()));
    for n in 0..24 {
        routing.set_route(n, Some(Route { sink: apic.clone(), pin: n }));
    }
    let (control, requests) = crossbeam::control();
    let smis = Arc::new(Mutex::new(Vec::new()));
    let seen = smis.clone();
    let smi: Smi = Arc::new(move |cpu| seen.lock().push(cpu));
    let lines: Vec<_> = (0..16).map(|n| IrqLine::to_sink(pic.clone(), n)).collect();
    let lpc = Lpc::new(LpcWiring {
        bus,
        system: system.clone(),
        io: io.clone(),
        clock: clock.clone(),
        control,
        routing: routing.clone(),
        pic: lines,
        smi: smm.then_some(smi),
        log: Log::off(),
    })
    .unwrap();
    Board { lpc, io, system, routing, apic, pic, smis, requests, clock }
}

impl Board {
    fn out(&self, port: u64, size: u8, value: u64) {
        self.io.store(Gpa(port), value, Access::cpu(3, size)).unwrap();
    }
    fn inp(&self, port: u64, size: u8) -> u64 {
        self.io.load(Gpa(port), Access::cpu(3, size)).unwrap()
    }
}

#[test]
fn pirq_routing() {
    struct Watch(Mutex<Vec<u32>>);
    impl RoutingListener for Watch {
        fn routing_changed(&self, event: RoutingEvent) {
            if let RoutingEvent::RouteChanged(n) = event {
                self.0.lock().push(n);
            }
        }
    }
    let b = board(true);
    // Slot 3, INTA: PIRQH.
    let line = pirq::pin_line(&b.routing, 3, 0);
    line.raise();
    assert!(b.apic.get(23) && !b.pic.get(11));
    let watch = Arc::new(Watch(Mutex::default()));
    let _subscription = b.routing.subscribe(watch.clone());
    b.lpc.config_write(PIRQE_ROUT + 3, 1, 11);
    assert!(b.pic.get(11));
    assert!(watch.0.lock().contains(&(PIN_LINE_3A)));
    // Another pin on the same PIRQ keeps it up.
    let other = pirq::pin_line(&b.routing, 7, 0);
    other.raise();
    line.lower();
    assert!(b.apic.get(23) && b.pic.get(11));
    other.lower();
    assert!(!b.apic.get(23) && !b.pic.get(11));
    b.lpc.config_write(PIRQE_ROUT + 3, 1, 0x80);
    line.raise();
    assert!(b.apic.get(23) && !b.pic.get(11));
}
const PIN_LINE_3A: u32 = pirq::PIN_LINES + 3 * 4;

#[test]
fn suspend_to_ram() {
    const PM: u64 = 0x600;
    const SLEEP_S3: u64 = 1 << 13 | 1 << 10;
    let sleeping = || {
        let b = board(false);
        b.lpc.set_up();
        // The alarm is enabled.
        b.out(PM + 2, 2, 1 << 10);
        b.out(PM + 4, 2, SLEEP_S3);
        assert_eq!((b.requests.0)(), Some(VmRequest::Suspend));
        assert_eq!((b.requests.0)(), None);
        assert!(b.lpc.pm().suspended());
        b
    };
    let woken = |b: &Board, reason, events: u64| {
        b.lpc.wake();
        b.lpc.pm().woken(reason);
        assert!(!b.lpc.pm().suspended());
        // The cause, what enabled it and the sleep type are still there; SCI goes on only when asked for.
        assert_eq!(b.inp(PM, 2), 1 << 15 | events);
        assert_eq!(b.inp(PM + 2, 2), 1 << 10);
        assert_eq!(b.inp(PM + 4, 2) >> 10, u64::from(super::pm::SLEEP_S3));
    };
    let b = sleeping();
    b.lpc.pm().rtc_alarm();
    b.lpc.pm().rtc_alarm();
    assert_eq!((b.requests.0)(), Some(VmRequest::Wake(WakeReason::Rtc)));
    assert_eq!((b.requests.0)(), None);
    woken(&b, WakeReason::Rtc, 1 << 10);
    // The button wakes without being enabled; so does a device whose event is.
    let b = sleeping();
    b.lpc.power_button();
    assert_eq!((b.requests.0)(), Some(VmRequest::Wake(WakeReason::PowerButton)));
    woken(&b, WakeReason::PowerButton, 1 << 8);
    let b = sleeping();
    b.lpc.pm().pulse_gpe(13);
    assert_eq!((b.requests.0)(), None);
    b.out(PM + 0x28, 4, 1 << 13);
    assert_eq!((b.requests.0)(), Some(VmRequest::Wake(WakeReason::Other)));
    // An event that waits when the guest goes to sleep wakes it again; a reset forgets all of it.
    let b = board(false);
    b.lpc.set_up();
    b.lpc.power_button();
    b.out(PM + 4, 2, SLEEP_S3);
    assert_eq!((b.requests.0)(), Some(VmRequest::Suspend));
    assert_eq!((b.requests.0)(), Some(VmRequest::Wake(WakeReason::PowerButton)));
    let b = sleeping();
    Device::reset(&*b.lpc);
    b.lpc.power_button();
    assert_eq!((b.requests.0)(), None);
}

#[test]
fn device_route_registers() {
    let b = board(true);
    b.lpc.config_write(RCBA, 4, ROOT_COMPLEX_BASE | 1);
    let line = pirq::pin_line(&b.routing, 31, 1);
    line.raise();
    assert!(b.apic.get(17));
    // INTB of device 31 to PIRQG: the level moves along.
    b.system.store(Gpa(u64::from(ROOT_COMPLEX_BASE) + 0x3140), 0x3260, Access::cpu(0, 2)).unwrap();
    assert!(!b.apic.get(17) && b.apic.get(22));
    line.lower();
    assert!(!b.apic.get(22));
}

#[test]
fn power_management() {
    let b = board(true);
    b.lpc.set_up();
    let base = u64::from(PM_BASE);
    assert_eq!(b.inp(base + 4, 2) & 1, 1);
    b.lpc.power_button();
    assert!(!b.apic.get(9));
    b.out(base + 2, 2, 1 << 8);
    assert!(b.apic.get(9));
    b.out(base, 2, 1 << 8);
    assert!(!b.apic.get(9));
    // A general-purpose event.
    b.lpc.pm().pulse_gpe(33);
    b.out(base + 0x2c, 4, 2);
    assert!(b.apic.get(9));
    b.out(base + 0x24, 4, 2);
    assert!(!b.apic.get(9));
    b.out(base + 4, 4, 1 | u64::from(SLEEP) << 10 | 1 << 13);
    assert_eq!((b.requests.0)(), Some(VmRequest::PowerOff(ShutdownCause::Guest)));
    b.out(base + 4, 4, 1 | 4 << 10 | 1 << 13);
    assert_eq!((b.requests.0)(), None, "reserved");
}
const SLEEP: u8 = pm::SLEEP_S5;

#[test]
fn timer_overflows() {
    let b = board(true);
    b.lpc.set_up();
    let base = u64::from(PM_BASE);
    // Shortly before bit 23 changes.
    let before = (1u64 << 23) * 1_000_000_000 / pm::TIMER_HZ - 2_000_000;
    b.clock.set_ns(before);
    assert_eq!(b.inp(base + 8, 4), before * pm::TIMER_HZ / 1_000_000_000);
    b.out(base + 2, 2, 1);
    b.clock.start();
    let mut tries = 0;
    while !b.apic.get(9) && tries < 1000 {
        std::thread::sleep(Duration::from_millis(1));
        tries += 1;
    }
    assert!(b.apic.get(9), "the SCI comes");
    assert_eq!(b.inp(base, 2) & 1, 1);
    b.out(base, 2, 1);
    assert!(!b.apic.get(9));
}

#[test]
fn system_management_interrupts() {
    let b = board(true);
    b.lpc.set_up();
    let base = u64::from(PM_BASE);
    b.out(0xb2, 1, 0x40);
    assert!(b.smis.lock().is_empty());
    b.out(base + 0x30, 4, 0x21);
    b.out(0xb2, 1, 0x40);
    assert_eq!(*b.smis.lock(), [Some(3)]);
    assert_eq!((b.inp(base + 0x34, 4), b.inp(0xb2, 1)), (0x20, 0x40));
    b.out(base + 0x34, 4, 0x20);
    assert_eq!(b.inp(base + 0x34, 4), 0);
    // The global enable can be locked.
    b.lpc.config_write(GEN_PMCON_1, 1, SMI_LOCK.into());
    b.out(base + 0x30, 4, 0);
    assert_eq!(b.inp(base + 0x30, 4), 1);
    // ACPI mode goes by the APM port.
    b.out(0xb2, 1, APM_ACPI_DISABLE.into());
    assert_eq!(b.inp(base + 4, 2) & 1, 0);
    // Without SMM, firmware finds it already set up.
    let b = board(false);
    b.lpc.set_up();
    assert_eq!(b.inp(base + 0x30, 4), 0x20);
}

#[test]
fn watchdog() {
    let b = board(true);
    b.lpc.set_up();
    b.lpc.config_write(RCBA, 4, ROOT_COMPLEX_BASE | 1);
    // Clear the no-reboot strap; two ticks a period.
    b.system.store(Gpa(u64::from(ROOT_COMPLEX_BASE) + 0x3410), 0, Access::cpu(0, 4)).unwrap();
    let base = u64::from(PM_BASE);
    b.out(base + 0x72, 2, 2);
    b.out(base + 0x60, 2, 1);
    assert_eq!(b.inp(base + 0x60, 2), 2);
    // Halted and saved, it does not run.
    b.out(base + 0x68, 2, 1 << 11);
    b.clock.start();
    b.clock.stop();
    assert_eq!((b.requests.0)(), None);
    b.out(base + 0x68, 2, 0);
    b.clock.start();
    let mut request = None;
    for _ in 0..400 {
        request = (b.requests.0)();
        if request.is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(request, Some(VmRequest::Watchdog));
    assert_eq!(b.inp(base + 0x66, 2) & 6, 6);
}

#[test]
fn saved_and_loaded() {
    let b = board(true);
    b.lpc.set_up();
    b.out(u64::from(PM_BASE) + 2, 2, 0x100);
    let saved = b.lpc.save();
    let c = board(true);
    c.lpc.load(&saved).unwrap();
    assert_eq!(c.inp(u64::from(PM_BASE) + 2, 2), 0x100);
    c.lpc.reset();
    assert!(c.io.load(Gpa(u64::from(PM_BASE)), Access::cpu(0, 2)).is_err());
}

#[test]
fn software_smis_of_all_processors() {
    let b = board(true);
    b.lpc.set_up();
    // Global enable, APM.
    b.out(0x630, 4, 1 | 1 << 5);
    b.out(0xb2, 1, 0x10);
    assert_eq!(std::mem::take(&mut *b.smis.lock()), [Some(3)]);
    let pm = b.lpc.pm();
    assert!(!pm.agree_on_smi_features(pm::SMI_FEATURES << 1) && !pm.smi_features_agreed());
    assert!(pm.agree_on_smi_features(1) && pm.smi_features_agreed());
    // Nobody changes them afterwards.
    assert!(!pm.agree_on_smi_features(0) && pm.agree_on_smi_features(1));
    b.out(0xb2, 1, 0x10);
    assert_eq!(std::mem::take(&mut *b.smis.lock()), [None]);
    Device::reset(&*b.lpc);
    assert!(!b.lpc.pm().smi_features_agreed());
}
