//! A small machine under any accelerator: RAM, a device, ports, interrupt controllers.

use parking_lot::{Condvar, Mutex};
use rhea_accel::{
    GuestAccelerator, GuestVcpu, InterruptRouting, IrqLine, IrqSink, MsiTarget, Route, ShutdownCause, VmControl,
    VmRequest,
};
use rhea_clock::VirtualClock;
use rhea_device::Log;
use rhea_irqchip::apic::{
    AcceleratedApics, ApicBus, ApicConfig, InterruptAcknowledge, IoApic, IoApicConfig, LapicConfig, LapicOutputs,
    MessageBus,
};
use rhea_irqchip::i8259::{I8259, I8259Config, Which};
use rhea_jit::{JitOptions, JitVm};
use rhea_kvm::DevKvm;
use rhea_kvm::x86::{Irqchip, KvmVm, Setup, X86Chips, X86Vm};
use rhea_memory::{Access, AccessRules, AddressSpace, BusError, Gpa, Mapping, MmioDevice, RamBlock};
use rhea_x86::hooks::pin;
use rhea_x86::state::Seg;
use rhea_x86::{ApicFault, Segment, X86Cpu, X86Hooks, X86Pins};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// What runs a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Under {
    Jit,
    Kvm(Irqchip),
}

pub const ALL: [Under; 4] =
    [Under::Jit, Under::Kvm(Irqchip::Machine), Under::Kvm(Irqchip::Split), Under::Kvm(Irqchip::Kernel)];

/// `/dev/kvm`, or a line that says why not.
pub fn kvm() -> Option<DevKvm> {
    match DevKvm::open("/dev/kvm").and_then(|k| rhea_kvm::x86::check(&k, Irqchip::Kernel).map(|()| k)) {
        Ok(kvm) => Some(kvm),
        Err(e) => {
            println!("skipped: {e}");
            None
        }
    }
}

pub const RAM: u64 = 0x8_0000;
pub const ROM: u64 = 0xc_0000;
/// A register that answers, and remembers.
pub const DEVICE: u64 = 0xd_0000;
/// Where programs are put.
pub const PROGRAM: u32 = 0x1000;

/// Ports of the machine itself: those below are for programs to report.
pub const DONE: u16 = 0xf4;
pub const RAISE: u16 = 0x510;
pub const LOWER: u16 = 0x511;
pub const NMI: u16 = 0x512;
pub const MSI: u16 = 0x513;
/// The line of a device of the machine.
pub const LINE: u32 = 5;

#[derive(Default)]
struct Said {
    words: Vec<(u16, u8, u32)>,
    done: u32,
}

pub struct Hooks {
    pub io: Arc<AddressSpace>,
    control: VmControl,
    apic: OnceLock<Arc<ApicBus>>,
    accelerated: OnceLock<(Arc<AcceleratedApics>, Arc<I8259>)>,
    line: OnceLock<IrqLine>,
    msi: OnceLock<Arc<dyn MsiTarget>>,
    pins: OnceLock<Vec<Arc<X86Pins>>>,
    said: Mutex<Said>,
    changed: Condvar,
    /// What string input reads.
    input: Mutex<u32>,
}

impl Hooks {
    fn line(&self) -> &IrqLine {
        self.line.get().unwrap()
    }
}

impl X86Hooks for Hooks {
    fn acknowledge(&self, cpu: u32) -> Option<u8> {
        match self.accelerated.get() {
            Some((_, pic)) => Some(pic.acknowledge()),
            None => self.apic.get()?.acknowledge(cpu),
        }
    }
    fn end_of_interrupt(&self, vector: u8) {
        self.accelerated.get().unwrap().0.end_of_interrupt(vector);
    }
    fn apic_base(&self, cpu: u32) -> u64 {
        self.apic.get().map_or(0, |a| a.apic_base(cpu))
    }
    fn set_apic_base(&self, cpu: u32, value: u64) -> Result<(), ApicFault> {
        self.apic.get().ok_or(ApicFault)?.set_apic_base(cpu, value).map_err(|_| ApicFault)
    }
    fn tpr(&self, cpu: u32) -> u8 {
        self.apic.get().map_or(0, |a| a.tpr(cpu))
    }
    fn set_tpr(&self, cpu: u32, class: u8) {
        if let Some(a) = self.apic.get() {
            a.set_tpr(cpu, class);
        }
    }
    fn init(&self, cpu: u32) {
        if let Some(a) = self.apic.get() {
            a.init(cpu);
        }
    }
    fn port_in(&self, cpu: u32, port: u16, size: u8) -> u32 {
        if port == 0x600 {
            let mut n = self.input.lock();
            *n += 1;
            return 0x0101_0101 * *n;
        }
        self.io.load(Gpa(port.into()), Access::cpu(cpu, size)).map_or(u32::MAX, |v| v as u32)
    }
    fn port_out(&self, cpu: u32, port: u16, size: u8, value: u32) {
        match port {
            RAISE => self.line().raise(),
            LOWER => self.line().lower(),
            NMI => self.pins.get().unwrap()[0].signal(pin::NMI),
            MSI => self.msi.get().unwrap().send(rhea_accel::MsiMessage {
                address: 0xfee0_0000,
                data: value,
                requester_id: 8,
            }),
            DONE => {
                self.said.lock().done += 1;
                self.changed.notify_all();
            }
            0x700..=0x7ff => self.said.lock().words.push((port, size, value)),
            _ => {
                let _ = self.io.store(Gpa(port.into()), value.into(), Access::cpu(cpu, size));
            }
        }
    }
    fn shutdown(&self, _: u32) {
        self.control.reset(ShutdownCause::Guest);
    }
}

/// Reads give the offset in each byte; writes are remembered.
#[derive(Default)]
pub struct Device(pub Mutex<Vec<(u64, u8, u64)>>);

impl MmioDevice for Device {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        let all = (0..8).fold(0, |v, n| v | ((offset + n) & 0xff) << (8 * n));
        Ok(if access.size == 8 { all } else { all & ((1 << (8 * access.size)) - 1) })
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        self.0.lock().push((offset, access.size, value));
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::implemented(1, 8)
    }
    fn name(&self) -> &str {
        "register"
    }
}

pub struct Bench {
    pub space: Arc<AddressSpace>,
    pub ram: Arc<RamBlock>,
    _rom: Arc<RamBlock>,
    pub device: Arc<Device>,
    pub hooks: Arc<Hooks>,
    pub vcpus: Vec<Arc<dyn GuestVcpu<X86Cpu>>>,
    _accel: Arc<dyn GuestAccelerator<X86Cpu>>,
    pub kvm: Option<Arc<KvmVm>>,
    pub requests: crossbeam_channel::Receiver<VmRequest>,
    pub routing: Arc<InterruptRouting>,
    _mappings: Vec<Mapping>,
}

impl Bench {
    /// A machine with the program in its RAM, `cpus` processors, the first of which is to start at the program in real mode.
    pub fn new(under: Under, cpus: u32, program: &[u8]) -> Bench {
        Self::with_ring(under, cpus, program, 0)
    }
    /// The same with rings of dirty pages of so many entries.
    pub fn with_ring(under: Under, cpus: u32, program: &[u8], dirty_ring: u32) -> Bench {
        let space = AddressSpace::new("system");
        let ram = RamBlock::anonymous("ram", RAM).unwrap();
        let rom = RamBlock::anonymous("rom", 0x1000).unwrap();
        rom.write(0, b"read only").unwrap();
        ram.write(PROGRAM.into(), program).unwrap();
        let device = Arc::new(Device::default());
        let mut mappings = vec![
            space.map_ram(Gpa(0), &ram, 0, RAM, 0).unwrap(),
            space.map_rom_device(Gpa(ROM), &rom, 0, 0x1000, device.clone(), 0).unwrap(),
            space.map_mmio(Gpa(DEVICE), 0x1000, device.clone(), 0).unwrap(),
        ];
        let io = AddressSpace::new("ports");
        let (control, requests) = VmControl::new();
        let hooks = Arc::new(Hooks {
            io: io.clone(),
            control: control.clone(),
            apic: OnceLock::new(),
            accelerated: OnceLock::new(),
            line: OnceLock::new(),
            msi: OnceLock::new(),
            pins: OnceLock::new(),
            said: Mutex::default(),
            changed: Condvar::new(),
            input: Mutex::default(),
        });
        let clock = VirtualClock::new();
        clock.start();
        let mut config = rhea_x86::models::parse("qemu64").unwrap().config;
        config.topology.cores = cpus;
        let (mut kvm, accel): (_, Arc<dyn GuestAccelerator<X86Cpu>>) = match under {
            Under::Jit => (None, JitVm::<X86Cpu>::new(&space, JitOptions::default()).unwrap()),
            Under::Kvm(irqchip) => {
                let system = DevKvm::open("/dev/kvm").unwrap();
                let setup = Setup {
                    irqchip,
                    space: space.clone(),
                    hooks: hooks.clone(),
                    control,
                    virtual_wire: true,
                    tsc_frequency: None,
                    dirty_ring,
                    private: None,
                };
                let vm = KvmVm::new(&system, setup).unwrap_or_else(|e| panic!("{e}"));
                vm.restrict(&mut config);
                (Some(vm.clone()), vm)
            }
        };
        let config = Arc::new(config);
        let routing = InterruptRouting::new();
        let mut vcpus = Vec::new();
        let mut pins = Vec::new();
        for index in 0..cpus {
            let guest = X86Cpu::new(index, index, &config, &space, &clock, hooks.clone());
            let pin = guest.pins();
            let vcpu = accel.clone().add_vcpu(index, guest).unwrap_or_else(|e| panic!("{e}"));
            pin.set_wake(vcpu.waker());
            pins.push(pin);
            vcpus.push(vcpu);
        }
        let chips = kvm.as_ref().and_then(|k: &Arc<KvmVm>| k.kernel_chips().cloned());
        let (io_apic, pic): (Arc<dyn IrqSink>, Arc<dyn IrqSink>) = match &chips {
            Some(chips) if chips.split() => {
                let apics = AcceleratedApics::new(chips.clone(), None);
                hooks.msi.set(apics.clone() as Arc<dyn MsiTarget>).ok();
                let intr = IrqLine::to_sink(Arc::new(Intr(pins.clone())), 0);
                let (io_apic, pic) = outside(&space, &io, apics.clone(), intr, &routing, &mut mappings);
                hooks.accelerated.set((apics, pic.clone())).ok();
                (io_apic, pic)
            }
            Some(chips) => {
                hooks.msi.set(chips.clone() as Arc<dyn MsiTarget>).ok();
                (chips.io_apic(), chips.pic())
            }
            None => {
                let lapics = pins.iter().enumerate().map(|(n, p)| lapic(n as u32, p)).collect();
                let mut config = ApicConfig::new("lapic", lapics, clock.clone());
                config.x2apic = false;
                let apic = ApicBus::new(config).unwrap();
                mappings.push(space.map_mmio(Gpa(0xfee0_0000), 0x10_0000, apic.window(), 0).unwrap());
                let (io_apic, pic) = outside(&space, &io, apic.clone(), apic.lint(0), &routing, &mut mappings);
                apic.connect_external(&pic);
                hooks.msi.set(apic.clone() as Arc<dyn MsiTarget>).ok();
                hooks.apic.set(apic).ok();
                (io_apic, pic)
            }
        };
        routing.set_route(LINE, Some(Route { sink: Arc::new(Both(io_apic, pic)), pin: LINE }));
        hooks.line.set(routing.line(LINE)).ok();
        hooks.pins.set(pins).ok();
        if let Some(kvm) = &mut kvm {
            kvm.reset_chips().unwrap();
        }
        let bench = Bench {
            space,
            ram,
            _rom: rom,
            device,
            hooks,
            vcpus,
            _accel: accel,
            kvm,
            requests,
            routing,
            _mappings: mappings,
        };
        for (n, vcpu) in bench.vcpus.iter().enumerate() {
            vcpu.start().unwrap();
            bench.with(n, move |cpu| {
                use rhea_ir::guest::Guest;
                cpu.reset();
                if n == 0 {
                    let cs = Segment { attr: 0x9b, ..Segment::real(0, 0) };
                    cpu.set_segment(Seg::Cs, cs);
                    cpu.r[4] = 0x7000;
                    cpu.set_eip(PROGRAM.into());
                    cpu.rebuild_mode();
                }
            });
        }
        bench
    }
    /// Runs `f` on a processor's thread and waits for it.
    pub fn with<R: Send + 'static>(&self, n: usize, f: impl FnOnce(&mut X86Cpu) -> R + Send + 'static) -> R {
        let (done, result) = crossbeam_channel::bounded(1);
        self.vcpus[n].post(Box::new(move |cpu| {
            let _ = done.send(f(cpu));
        }));
        result.recv_timeout(Duration::from_secs(30)).expect("the vCPU does not answer")
    }
    pub fn resume(&self) {
        for vcpu in &self.vcpus {
            vcpu.resume();
        }
    }
    pub fn pause(&self) {
        for vcpu in &self.vcpus {
            vcpu.request_pause();
            assert!(vcpu.wait_paused(Some(Duration::from_secs(30))), "the vCPU does not pause");
        }
    }
    /// Waits until programs said so often that they are done.
    pub fn wait_done(&self, times: u32) {
        let until = Instant::now() + Duration::from_secs(60);
        let mut said = self.hooks.said.lock();
        while said.done < times {
            if !self.changed_until(&mut said, until) {
                drop(said);
                let at = self.with(0, |cpu| (cpu.eip(), cpu.r));
                panic!(
                    "not done: {:x?}; asked: {:?}; at {at:x?}, {:?}",
                    self.said(),
                    self.requests.try_iter().collect::<Vec<_>>(),
                    self.kvm.as_ref().map(|vm| vm.counts())
                );
            }
        }
    }
    fn changed_until(&self, said: &mut parking_lot::MutexGuard<'_, Said>, until: Instant) -> bool {
        !self.hooks.changed.wait_until(said, until).timed_out()
    }
    pub fn said(&self) -> Vec<(u16, u8, u32)> {
        self.hooks.said.lock().words.clone()
    }
    /// Runs the program to its end: what it said.
    pub fn run(&self) -> Vec<(u16, u8, u32)> {
        self.resume();
        self.wait_done(1);
        self.pause();
        self.said()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for vcpu in &self.vcpus {
            vcpu.stop();
        }
    }
}

/// I/O APIC and 8259s outside of the kernel.
fn outside(
    space: &Arc<AddressSpace>,
    io: &Arc<AddressSpace>,
    apics: Arc<dyn MessageBus>,
    intr: IrqLine,
    routing: &Arc<InterruptRouting>,
    mappings: &mut Vec<Mapping>,
) -> (Arc<IoApic>, Arc<I8259>) {
    let ends = routing.clone();
    let eoi: rhea_irqchip::EoiListener = Arc::new(move |n| ends.resample(n));
    let io_apic = IoApic::new(IoApicConfig { name: "ioapic".into(), eoi: Some(eoi), log: Log::off() }, apics).unwrap();
    mappings.push(space.map_mmio(Gpa(0xfec0_0000), 0x1000, io_apic.clone(), 0).unwrap());
    let pic = I8259::new(I8259Config { name: "i8259".into(), eoi: None, log: Log::off() }, intr);
    mappings.push(io.map_mmio(Gpa(0x20), 2, pic.ports(Which::Master), 0).unwrap());
    mappings.push(io.map_mmio(Gpa(0xa0), 2, pic.ports(Which::Slave), 0).unwrap());
    mappings.push(io.map_mmio(Gpa(0x4d0), 2, pic.elcr(), 0).unwrap());
    (io_apic, pic)
}

/// The 8259s' output, an input of all local APICs.
struct Intr(Vec<Arc<X86Pins>>);

impl IrqSink for Intr {
    fn set_level(&self, _: u32, level: bool) {
        for pins in &self.0 {
            pins.set_intr(level);
        }
    }
}

struct Both(Arc<dyn IrqSink>, Arc<dyn IrqSink>);

impl IrqSink for Both {
    fn set_level(&self, pin: u32, level: bool) {
        self.0.set_level(pin, level);
        self.1.set_level(pin, level);
    }
}

fn lapic(apic_id: u32, pins: &Arc<X86Pins>) -> LapicConfig {
    let signal = |bits: u32| {
        let pins = pins.clone();
        Box::new(move || pins.signal(bits)) as Box<dyn Fn() + Send + Sync>
    };
    let (intr, sipi) = (pins.clone(), pins.clone());
    let outputs = LapicOutputs {
        intr: Box::new(move |level| intr.set_intr(level)),
        nmi: signal(pin::NMI),
        smi: signal(pin::SMI),
        init: signal(pin::INIT),
        sipi: Box::new(move |vector| sipi.startup(vector)),
    };
    LapicConfig { apic_id, outputs }
}
