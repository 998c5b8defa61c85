//! aarch64.

use crate::kernel::{
    self, FakePrivate, FakeVfio, LONG, Machine, Run, any_vm, is_too_old, memory, refuse, until, use_eventfds,
    use_memory,
};
use parking_lot::Mutex;
use rhea_accel::{Accelerator, GuestAccelerator, GuestVcpu, MsiMessage, ShutdownCause, VmControl, VmRequest};
use rhea_arm::hooks::NoHooks;
use rhea_arm::timer::GenericTimers;
use rhea_arm::{ArmConfig, ArmCpu};
use rhea_clock::VirtualClock;
use rhea_kvm::KvmError;
use rhea_kvm::arm::abi::{self as kb, kvm_guest_debug, kvm_irq_routing_entry, kvm_msi, kvm_vcpu_init};
use rhea_kvm::arm::sys::{DeviceFile, Exit, System, VcpuFile, VmFile};
use rhea_kvm::arm::{ArmVm, Gic, KvmVm, Setup, host_of};
use rhea_kvm::sys::{AnyVm, IoEvent, PrivateMemory, Region, VfioDevice};
use rhea_memory::{AddressSpace, Gpa, Mapping, RamBlock};
use std::collections::BTreeMap;
use std::io::{Error, Result};
use std::os::fd::RawFd;
use std::sync::Arc;

/// The number of the guest's virtual counter.
const COUNTER: u64 = 0x6030_0000_0013_df1a;

type Plan = kernel::Plan<Exit>;
type Kernel = kernel::Kernel<Exit>;

fn usual(capability: u32) -> i32 {
    match capability {
        kb::KVM_CAP_NR_MEMSLOTS => 509,
        kb::KVM_CAP_IRQ_ROUTING => 4096,
        kb::KVM_CAP_MAX_VCPUS => 512,
        kb::KVM_CAP_ARM_VM_IPA_SIZE => 44,
        kb::KVM_CAP_GUEST_DEBUG_HW_BPS | kb::KVM_CAP_GUEST_DEBUG_HW_WPS => 4,
        _ => 1,
    }
}

struct FakeSystem(Arc<Kernel>);
struct FakeVm(Arc<Kernel>);
struct FakeDevice(Arc<Kernel>);
struct FakeVcpu {
    kernel: Arc<Kernel>,
    run: Run<Exit>,
    registers: Mutex<BTreeMap<u64, Vec<u8>>>,
}

impl System for FakeSystem {
    fn check(&self, capability: u32) -> i32 {
        self.0.check(capability)
    }
    fn api_version(&self) -> i32 {
        if self.0.plan.caps.contains_key(&u32::MAX) { 11 } else { 12 }
    }
    fn create_vm(&self, address_bits: u32) -> Result<Arc<dyn VmFile>> {
        let known = self.0.check(kb::KVM_CAP_ARM_VM_IPA_SIZE) > 0;
        assert!(address_bits == 0 || known && (32..=52).contains(&address_bits));
        self.0.call("create_vm")?;
        Ok(Arc::new(FakeVm(self.0.clone())))
    }
}

any_vm!(FakeVm);

impl VmFile for FakeVm {
    fn set_irq_line(&self, _: u32, _: bool) -> Result<()> {
        self.0.call("set_irq_line")
    }
    fn signal_msi(&self, _: kvm_msi) -> Result<()> {
        self.0.call("signal_msi")
    }
    fn set_routing(&self, _: &[kvm_irq_routing_entry]) -> Result<()> {
        self.0.call("set_routing")
    }
    fn test_device(&self, _: u32) -> Result<()> {
        self.0.call("test_device")
    }
    fn create_device(&self, _: u32) -> Result<Box<dyn DeviceFile>> {
        self.0.call("create_device")?;
        Ok(Box::new(FakeDevice(self.0.clone())))
    }
    fn preferred_target(&self) -> Result<kvm_vcpu_init> {
        self.0.call("preferred_target").map(|()| kvm_vcpu_init { target: 5, features: [0; 7] })
    }
    fn create_vcpu(&self, _: u32) -> Result<Box<dyn VcpuFile>> {
        self.0.call("create_vcpu")?;
        Ok(Box::new(FakeVcpu {
            kernel: self.0.clone(),
            run: Run::new(&self.0.plan.exits),
            registers: Mutex::default(),
        }))
    }
}

impl DeviceFile for FakeDevice {
    fn set(&self, _: u32, _: u64, _: u64) -> Result<()> {
        self.0.call("device_set")
    }
    fn command(&self, _: u32, _: u64) -> Result<()> {
        self.0.call("device_command")
    }
}

impl VcpuFile for FakeVcpu {
    fn run(&mut self) -> Result<Exit> {
        self.kernel.call("run")?;
        Ok(self.run.end().unwrap_or(Exit::Interrupted))
    }
    fn set_mmio_data(&mut self, _: [u8; 8]) {}
    fn immediate_exit(&self) -> *mut u8 {
        self.run.immediate.as_ptr()
    }
    fn init(&self, init: &kvm_vcpu_init) -> Result<()> {
        assert_eq!(init.target, 5);
        self.kernel.call("init")
    }
    fn finalize(&self, _: u32) -> Result<()> {
        self.kernel.call("finalize")
    }
    fn register(&self, id: u64, value: &mut [u8]) -> Result<()> {
        self.kernel.call(if id == COUNTER { "counter" } else { "register" })?;
        if self.kernel.plan.refused.contains(&id) {
            return Err(Error::from_raw_os_error(libc::ENOENT));
        }
        match self.registers.lock().get(&id) {
            Some(known) => value.copy_from_slice(known),
            None => value.fill(0),
        }
        Ok(())
    }
    fn set_register(&self, id: u64, value: &[u8]) -> Result<()> {
        self.kernel.call(if id == COUNTER { "set_counter" } else { "set_register" })?;
        self.registers.lock().insert(id, value.to_vec());
        Ok(())
    }
    fn set_attribute(&self, _: u32, _: u64, _: Option<u32>) -> Result<()> {
        self.kernel.call("set_attribute")
    }
    fn stopped(&self) -> Result<bool> {
        self.kernel.call("mp_state").map(|()| false)
    }
    fn set_stopped(&self, _: bool) -> Result<()> {
        self.kernel.call("set_mp_state")
    }
    fn set_guest_debug(&self, _: &kvm_guest_debug) -> Result<()> {
        self.kernel.call("set_guest_debug")
    }
}

/// A machine with one processor on the fake kernel.
struct Fake {
    kernel: Arc<Kernel>,
    space: Arc<AddressSpace>,
    ram: Arc<RamBlock>,
    vm: Arc<KvmVm>,
    vcpu: Arc<dyn GuestVcpu<ArmCpu>>,
    requests: crossbeam_channel::Receiver<VmRequest>,
    _mappings: Vec<Mapping>,
}

fn v2() -> Gic {
    Gic::V2 { distributor: 0x800_0000, cpu_interface: 0x801_0000 }
}
fn v3(its: Option<u64>) -> Gic {
    Gic::V3 { distributor: 0x800_0000, redistributors: vec![(0x80a_0000, 123)], its }
}
/// The controllers there are: without messages, with them.
fn controllers() -> [Gic; 3] {
    [v2(), v3(None), v3(Some(0x808_0000))]
}
fn has_its(gic: &Gic) -> bool {
    matches!(gic, Gic::V3 { its: Some(_), .. })
}

fn machine(plan: Plan, gic: Gic) -> std::result::Result<Fake, String> {
    let kernel = Kernel::new(plan, usual);
    let (space, ram, mappings) = memory();
    let (control, requests) = VmControl::new();
    let setup = Setup {
        gic,
        spis: 32,
        space: space.clone(),
        hooks: Arc::new(NoHooks),
        control,
        address_bits: 40,
        pmu: Some(7),
        sve: true,
        pauth: true,
    };
    let vm = KvmVm::new(&FakeSystem(kernel.clone()), setup).map_err(|e| e.to_string())?;
    let config = Arc::new(ArmConfig::host(0x410f_d0c1, 0x8444_c004, 4, true));
    let cpu = ArmCpu::new(0, &config, &space, &GenericTimers::new(&VirtualClock::new()), Arc::new(NoHooks));
    let pins = cpu.pins();
    let vcpu = vm.clone().add_vcpu(0, cpu).map_err(|e| e.to_string())?;
    pins.set_wake(vcpu.waker());
    vm.complete().map_err(|e| e.to_string())?;
    vcpu.start().unwrap();
    Ok(Fake { kernel, space, ram, vm, vcpu, requests, _mappings: mappings })
}

impl Fake {
    /// Lines, messages and eventfds. What the kernel refuses is an error for who asked, or lost.
    fn interrupts(&self) {
        let gic = self.vm.gic();
        let message = MsiMessage { address: 0x809_0040, data: 3, requester_id: 8 };
        gic.send(message);
        for level in [true, false] {
            gic.set_level(5, level);
        }
        gic.set_level(u32::MAX, true);
        let Some(irqfd) = self.vm.services().irqfd else { return };
        use_eventfds(&*irqfd, message);
    }
}

impl Machine for Fake {
    type Guest = ArmCpu;
    fn count(&self, name: &str) -> u32 {
        self.kernel.count(name)
    }
    fn vcpu(&self) -> &dyn GuestVcpu<ArmCpu> {
        &*self.vcpu
    }
    fn requests(&self) -> &crossbeam_channel::Receiver<VmRequest> {
        &self.requests
    }
    fn live(&self) {
        if let Err(e) = self.vm.reset_gic() {
            assert_eq!(e.to_string().lines().count(), 1);
        }
        self.with(|cpu| {
            use rhea_ir::guest::Guest;
            cpu.reset();
            cpu.add_host_breakpoint(0x1000);
        });
        self.vcpu.resume();
        until(|| self.runs() >= 1 || !self.requests.is_empty());
        self.interrupts();
        use_memory(&self.space, &self.ram);
        assert!(self.with(|cpu| cpu.x[0]) != 1);
        self.pause();
        self.vcpu.resume();
        self.with(|cpu| cpu.x[0] = 2);
        self.pause();
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.vcpu.stop();
    }
}

/// Calls, and whether the machine can do without what they are for.
const CALLS: &[(&str, bool)] = &[
    ("create_vm", false),
    ("preferred_target", false),
    ("create_device", false),
    ("device_set", false),
    ("device_command", false),
    ("set_memory", false),
    ("dirty_log", false),
    ("set_routing", false),
    ("create_vcpu", false),
    ("init", false),
    ("finalize", false),
    ("register", false),
    ("set_register", false),
    ("counter", true),
    ("set_counter", true),
    ("set_attribute", false),
    ("mp_state", false),
    ("set_mp_state", false),
    ("set_guest_debug", false),
    ("irqfd", true),
    ("ioeventfd", true),
    ("signal_msi", true),
    ("set_irq_line", true),
    ("run", false),
];

#[test]
fn any_call_may_fail() {
    for gic in controllers() {
        for &(call, optional) in CALLS {
            // Later ones are for messages, whose sender is told, and resets, as their caller is.
            let later = matches!(call, "set_routing") || call == "device_command" && has_its(&gic);
            let optional = |at| optional || later && at > 1;
            let failed = refuse(call, optional, |fail| machine(Plan { fail, ..Plan::default() }, gic.clone()));
            assert!(failed > 0 || optional(1), "{call} is never made with {gic:?}");
        }
    }
}

#[test]
fn a_kernel_that_works_is_not_complained_of() {
    for gic in controllers() {
        let machine = machine(Plan::default(), gic.clone()).unwrap();
        machine.live();
        machine.vm.reset_gic().unwrap();
        machine.is_well();
        // Without an ITS the kernel knows no messages.
        assert_eq!(machine.count("set_routing") > 1, has_its(&gic));
    }
}

/// While a processor's thread is in a call of its own the kernel refuses to change the controller: it is asked again, not for ever.
#[test]
fn a_busy_controller() {
    for at in [20, 40] {
        let fail = Some(("device_set", at, libc::EBUSY));
        let machine = machine(Plan { fail, ..Plan::default() }, v3(Some(0x808_0000))).unwrap();
        machine.vm.reset_gic().unwrap();
        let without = machine_sets();
        assert_eq!(machine.count("device_set"), without + 1, "{at}");
    }
}
/// Attributes that are set until a machine was reset once.
fn machine_sets() -> u32 {
    let machine = machine(Plan::default(), v3(Some(0x808_0000))).unwrap();
    machine.vm.reset_gic().unwrap();
    machine.count("device_set")
}

#[test]
fn missing_capabilities() {
    for needed in [
        kb::KVM_CAP_USER_MEMORY,
        kb::KVM_CAP_IMMEDIATE_EXIT,
        kb::KVM_CAP_ONE_REG,
        kb::KVM_CAP_MP_STATE,
        kb::KVM_CAP_IRQCHIP,
        kb::KVM_CAP_DEVICE_CTRL,
        kb::KVM_CAP_ARM_PSCI_0_2,
        u32::MAX,
    ] {
        let text = machine(Plan::without(&[needed]), v2()).err().unwrap();
        is_too_old(&text);
    }
    let optional = [
        kb::KVM_CAP_READONLY_MEM,
        kb::KVM_CAP_IRQFD,
        kb::KVM_CAP_IRQFD_RESAMPLE,
        kb::KVM_CAP_IRQ_ROUTING,
        kb::KVM_CAP_IOEVENTFD,
        kb::KVM_CAP_IOEVENTFD_ANY_LENGTH,
        kb::KVM_CAP_NR_MEMSLOTS,
        kb::KVM_CAP_MAX_VCPUS,
        kb::KVM_CAP_ARM_VM_IPA_SIZE,
        kb::KVM_CAP_GUEST_DEBUG_HW_BPS,
        kb::KVM_CAP_GUEST_DEBUG_HW_WPS,
    ];
    for one in optional {
        let machine = machine(Plan::without(&[one]), v3(Some(0x808_0000))).unwrap();
        machine.live();
        machine.is_well();
    }
    let machine = machine(Plan::without(&optional), v3(None)).unwrap();
    machine.live();
    let services = machine.vm.services();
    assert!(services.irqfd.is_none() && services.ioeventfd.is_none());
    // ROM is no slot then.
    assert_eq!(machine.vm.counts().slots, 1);
    machine.is_well();
}

/// What is asked of a host before there is a machine.
#[test]
fn the_host() {
    let host = |plan| host_of(&FakeSystem(Kernel::new(plan, usual))).map_err(|e| e.to_string());
    let good = host(Plan::default()).unwrap();
    assert!(good.gicv2 && good.gicv3 && good.sve && good.pauth);
    assert_eq!(good.address_bits, 44);
    for (call, optional) in [
        ("create_vm", false),
        ("preferred_target", false),
        ("create_vcpu", false),
        ("init", false),
        ("register", false),
        ("test_device", true),
    ] {
        for errno in [libc::EIO, libc::EINTR, libc::ENOMEM, libc::ENODEV, libc::EINVAL] {
            match host(Plan { fail: Some((call, 1, errno)), ..Plan::default() }) {
                Ok(found) => assert!(optional && !found.gicv2 && found.gicv3, "{call}"),
                Err(text) => assert!(!optional && text.lines().count() == 1, "{call}: {text}"),
            }
        }
    }
    let caps = [kb::KVM_CAP_ARM_PMU_V3, kb::KVM_CAP_ARM_SVE, kb::KVM_CAP_ARM_PTRAUTH_GENERIC];
    let caps = caps.iter().chain([&kb::KVM_CAP_ARM_VM_IPA_SIZE]).map(|c| (*c, 0)).collect();
    let least = host(Plan { caps, ..Plan::default() }).unwrap();
    assert!(!least.sve && !least.pauth && !least.config.has(rhea_arm::Feature::Pmu));
    assert_eq!(least.address_bits, 40);
}

#[test]
fn busy_and_out_of_slots() {
    let busy = Plan { fail: Some(("create_vm", 1, libc::EBUSY)), ..Plan::default() };
    assert_eq!(machine(busy, v2()).err().unwrap(), KvmError::Busy.to_string());
    let slots = |n| Plan { caps: [(kb::KVM_CAP_NR_MEMSLOTS, n)].into(), ..Plan::default() };
    assert_eq!(machine(slots(1), v2()).err().unwrap(), KvmError::Slots(1).to_string());
    let full = Plan { fail: Some(("set_memory", 2, libc::ENOSPC)), ..Plan::default() };
    assert_eq!(machine(full, v2()).err().unwrap(), KvmError::Slots(509).to_string());
    // Or later.
    let machine = machine(slots(2), v2()).unwrap();
    let one_more = machine.space.map_ram(Gpa(0x10_0000), &machine.ram, 0x3_0000, 0x1000, 0).unwrap();
    assert!(machine.panicked().contains("no memory slot is left"));
    drop(one_more);
}

#[test]
fn exits_of_all_kinds() {
    let panics = [
        Exit::EntryFailed { reason: 1 << 63, cpu: 1 },
        Exit::InternalError(1),
        Exit::InternalError(77),
        Exit::MemoryFault { address: 0x1000 },
        Exit::SystemEvent(kb::KVM_SYSTEM_EVENT_CRASH),
        Exit::Other(kb::KVM_EXIT_HYPERCALL),
        Exit::Other(99),
    ];
    for exit in panics {
        let machine = machine(Plan { exits: vec![exit.clone()], ..Plan::default() }, v2()).unwrap();
        machine.vcpu.resume();
        machine.panicked();
        // It stands still, and answers.
        let runs = machine.runs();
        machine.with(|cpu| cpu.x[0]);
        assert!(machine.runs() <= runs + 1, "{exit:?}");
    }
    for (event, asked) in [
        (kb::KVM_SYSTEM_EVENT_RESET, VmRequest::Reset(ShutdownCause::Guest)),
        (kb::KVM_SYSTEM_EVENT_SHUTDOWN, VmRequest::PowerOff(ShutdownCause::Guest)),
    ] {
        let machine = machine(Plan { exits: vec![Exit::SystemEvent(event)], ..Plan::default() }, v2()).unwrap();
        machine.vcpu.resume();
        assert_eq!(machine.requests.recv_timeout(LONG), Ok(asked));
    }
    let mmio = |address, len, write| Exit::Mmio { address, len, write, data: [1; 8] };
    let goes_on = vec![
        mmio(0xd_0000, 8, false),
        mmio(0xd_0003, 7, true),
        mmio(0xfff, 3, false),
        mmio(u64::MAX - 1, 8, true),
        mmio(0x2_0000, 4, true),
        mmio(0xe_0000, 255, false),
        mmio(0, 0, false),
        Exit::Debug { esr: 0, far: 0 },
        Exit::Debug { esr: u32::MAX, far: u64::MAX },
        Exit::Interrupted,
    ];
    let count = goes_on.len() as u32;
    let machine = machine(Plan { exits: goes_on, ..Plan::default() }, v3(None)).unwrap();
    machine.vcpu.resume();
    until(|| machine.runs() >= count);
    machine.with(|cpu| cpu.x[0]);
    machine.is_well();
}
