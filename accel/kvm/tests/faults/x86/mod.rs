//! x86-64.

mod offered;

use crate::kernel::{
    self, FakePrivate, FakeVfio, LONG, Machine, Pages, Run, Writes, any_vm, is_too_old, memory, refuse, until,
    use_eventfds, use_memory,
};
use kvm_bindings as kb;
use kvm_bindings::nested::KvmNestedStateBuffer;
use kvm_bindings::{
    kvm_clock_data, kvm_cpuid_entry2, kvm_debugregs, kvm_guest_debug, kvm_irq_routing_entry, kvm_irqchip,
    kvm_lapic_state, kvm_mp_state, kvm_msi, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs,
};
use parking_lot::Mutex;
use rhea_accel::{GuestAccelerator, GuestVcpu, LocalApics, MsiMessage, ShutdownCause, VmControl, VmRequest};
use rhea_clock::VirtualClock;
use rhea_kvm::KvmError;
use rhea_kvm::sys::{AnyVm, IoEvent, PageRing, PrivateMemory, Region, VfioDevice, WriteRing};
use rhea_kvm::x86::sys::{Exit, RunState, System, VcpuFile, VmFile};
use rhea_kvm::x86::{Irqchip, KvmVm, Setup, X86Vm};
use rhea_memory::{Access, AddressSpace, BusError, DirtyClient, Gpa, HeldWrites, Mapping, MmioDevice, RamBlock};
use rhea_x86::{Feature, X86Cpu, X86Hooks};
use std::io::{Error, Result};
use std::os::fd::RawFd;
use std::sync::Arc;

/// Where writes are held back.
const SLOW: u64 = 0xf_0000;
/// Tiles, where they are: components 17 and 18.
const TILES: u64 = 3 << 17;
const TILES_AT: usize = 2752;
const TILES_END: usize = 11008;
/// CPUID of a host that has them: XSAVE and long mode with it.
const TILE_LEAVES: &[(u32, u32, [u32; 4])] = &[
    (1, 0, [0x1f, 0, 1 << 26, 0]),
    (7, 0, [0, 0, 0, 1 << 22 | 1 << 24 | 1 << 25]),
    (0xd, 0, [7, TILES_END as u32, TILES_END as u32, 0]),
    (0xd, 1, [0x10, 0, 0, 0]),
    (0xd, 17, [64, TILES_AT as u32, 2, 0]),
    (0xd, 18, [8192, TILES_AT as u32 + 64, 6, 0]),
    (0x1d, 0, [1, 0, 0, 0]),
];

/// The kernel gives them to guests: the last thing asked for was permitted.
fn has_tiles(kernel: &Kernel) -> bool {
    let refused = kernel.plan.fail.is_some_and(|(call, ..)| call == "permit_component");
    kernel.count("permit_component") > 0 && !refused
}

/// The frequency of its counters.
const TSC_KHZ: u32 = 2_500_000;

type Plan = kernel::Plan<Exit>;
type Kernel = kernel::Kernel<Exit>;

fn usual(capability: u32) -> i32 {
    match capability {
        kb::KVM_CAP_NR_MEMSLOTS => 509,
        kb::KVM_CAP_IRQ_ROUTING => 4096,
        kb::KVM_CAP_MAX_VCPU_ID => 255,
        kb::KVM_CAP_MULTI_ADDRESS_SPACE => 2,
        kb::KVM_CAP_DIRTY_LOG_RING_ACQ_REL => 0x10_0000,
        kb::KVM_CAP_VM_TYPES => 3,
        kb::KVM_CAP_MEMORY_ATTRIBUTES => 8,
        kb::KVM_CAP_EXIT_HYPERCALL => 1 << 12,
        _ => 1,
    }
}

struct FakeSystem(Arc<Kernel>);
struct FakeVm(Arc<Kernel>);
struct FakeVcpu {
    kernel: Arc<Kernel>,
    run: Run<Exit>,
    data: [u8; 16],
    regs: Mutex<kvm_regs>,
    sregs: Mutex<kvm_sregs>,
}

impl System for FakeSystem {
    fn check(&self, capability: u32) -> i32 {
        self.0.check(capability)
    }
    fn api_version(&self) -> i32 {
        if self.0.plan.caps.contains_key(&u32::MAX) { 11 } else { 12 }
    }
    fn supported_cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>> {
        self.0.call("supported_cpuid")?;
        let svm = kvm_cpuid_entry2 { function: 0x8000_0001, ecx: 4, ..Default::default() };
        let rest = (0..0x20).filter(|f| *f != 0xd).map(|function| kvm_cpuid_entry2 {
            function,
            eax: 0x1f,
            ..Default::default()
        });
        // The processor's features show whether their state is there or not.
        let state = if has_tiles(&self.0) { TILES as u32 } else { 0 };
        let tiles = if self.0.plan.components.is_some_and(|c| c & TILES != 0) { TILE_LEAVES } else { &[] };
        let tiles = tiles.iter().map(|&(function, index, [eax, ebx, ecx, edx])| {
            let eax = if (function, index) == (0xd, 0) { eax | state } else { eax };
            let flags = kb::KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
            kvm_cpuid_entry2 { function, index, flags, eax, ebx, ecx, edx, ..Default::default() }
        });
        Ok(tiles.chain(rest).chain((!self.0.plan.no_svm).then_some(svm)).collect())
    }
    fn msr_indices(&self) -> Result<Vec<u32>> {
        Ok(Vec::new())
    }
    fn components(&self) -> Result<u64> {
        self.0.call("components")?;
        self.0.plan.components.ok_or_else(|| Error::from_raw_os_error(libc::EINVAL))
    }
    fn permit_component(&self, number: u32) -> Result<()> {
        assert_eq!((number, self.0.count("create_vcpu")), (18, 0));
        self.0.call("permit_component")
    }
    fn create_vm(&self, kind: u32) -> Result<Arc<dyn VmFile>> {
        assert_eq!(kind, if self.0.plan.private { kb::KVM_X86_SW_PROTECTED_VM } else { 0 });
        self.0.call("create_vm")?;
        Ok(Arc::new(FakeVm(self.0.clone())))
    }
}

any_vm!(FakeVm);

impl VmFile for FakeVm {
    fn create_irqchip(&self) -> Result<()> {
        self.0.call("create_irqchip")
    }
    fn irqchip(&self, _: &mut kvm_irqchip) -> Result<()> {
        self.0.call("irqchip")
    }
    fn set_irqchip(&self, _: &kvm_irqchip) -> Result<()> {
        self.0.call("set_irqchip")
    }
    fn set_irq_line(&self, _: u32, _: bool) -> Result<()> {
        self.0.call("set_irq_line")
    }
    fn signal_msi(&self, _: kvm_msi) -> Result<bool> {
        self.0.call("signal_msi").map(|()| true)
    }
    fn set_routing(&self, _: &[kvm_irq_routing_entry]) -> Result<()> {
        self.0.call("set_routing")
    }
    fn clock(&self) -> Result<kvm_clock_data> {
        self.0.call("clock").map(|()| kvm_clock_data::default())
    }
    fn set_clock(&self, _: &kvm_clock_data) -> Result<()> {
        self.0.call("set_clock")
    }
    fn set_tss_address(&self, _: u64) -> Result<()> {
        self.0.call("set_tss_address")
    }
    fn set_identity_map(&self, _: u64) -> Result<()> {
        self.0.call("set_identity_map")
    }
    fn create_vcpu(&self, _: u32) -> Result<Box<dyn VcpuFile>> {
        self.0.call("create_vcpu")?;
        *self.0.xsave.lock() = vec![0; if has_tiles(&self.0) { TILES_END } else { 4096 }];
        Ok(Box::new(FakeVcpu {
            kernel: self.0.clone(),
            run: Run::new(&self.0.plan.exits),
            data: [0; 16],
            regs: Mutex::default(),
            sregs: Mutex::default(),
        }))
    }
}

impl VcpuFile for FakeVcpu {
    fn run(&mut self) -> Result<Exit> {
        self.kernel.call("run")?;
        Ok(self.run.end().unwrap_or(Exit::Interrupted))
    }
    fn io_data(&mut self) -> &mut [u8] {
        &mut self.data
    }
    fn set_mmio_data(&mut self, _: [u8; 8]) {}
    fn set_msr_result(&mut self, _: Option<u64>) {}
    fn set_hypercall_result(&mut self, value: u64) {
        self.kernel.told.lock().push(format!("answer {}", value as i64));
    }
    fn state(&self) -> RunState {
        RunState { ready: true, interrupts: true, ..RunState::default() }
    }
    fn request_window(&mut self, _: bool) {}
    fn set_cr8(&mut self, _: u64) {}
    fn immediate_exit(&self) -> *mut u8 {
        self.run.immediate.as_ptr()
    }
    fn write_ring(&self, _: u32) -> Result<Box<dyn WriteRing>> {
        self.kernel.call("write_ring")?;
        Ok(Box::new(Writes(self.kernel.clone())))
    }
    fn page_ring(&self, _: u32) -> Result<Box<dyn PageRing>> {
        self.kernel.call("page_ring")?;
        Ok(Box::new(Pages(self.kernel.clone())))
    }
    fn set_cpuid(&self, _: &[kvm_cpuid_entry2]) -> Result<()> {
        self.kernel.call("set_cpuid")
    }
    fn regs(&self) -> Result<kvm_regs> {
        self.kernel.call("regs").map(|()| *self.regs.lock())
    }
    fn set_regs(&self, regs: &kvm_regs) -> Result<()> {
        *self.regs.lock() = *regs;
        self.kernel.call("set_regs")
    }
    fn sregs(&self) -> Result<kvm_sregs> {
        self.kernel.call("sregs").map(|()| *self.sregs.lock())
    }
    fn set_sregs(&self, sregs: &kvm_sregs) -> Result<()> {
        *self.sregs.lock() = *sregs;
        self.kernel.call("set_sregs")
    }
    fn xsave(&self) -> Result<Vec<u8>> {
        self.kernel.call("xsave").map(|()| self.kernel.xsave.lock().clone())
    }
    fn set_xsave(&self, area: &[u8]) -> Result<()> {
        self.kernel.call("set_xsave")?;
        let mut own = self.kernel.xsave.lock();
        assert_eq!(area.len(), own.len());
        own.copy_from_slice(area);
        Ok(())
    }
    fn xcrs(&self) -> Result<kvm_xcrs> {
        self.kernel.call("xcrs").map(|()| kvm_xcrs::default())
    }
    fn set_xcrs(&self, _: &kvm_xcrs) -> Result<()> {
        self.kernel.call("set_xcrs")
    }
    fn debug_registers(&self) -> Result<kvm_debugregs> {
        self.kernel.call("debug_registers").map(|()| kvm_debugregs::default())
    }
    fn set_debug_registers(&self, _: &kvm_debugregs) -> Result<()> {
        self.kernel.call("set_debug_registers")
    }
    fn events(&self) -> Result<kvm_vcpu_events> {
        self.kernel.call("events").map(|()| kvm_vcpu_events::default())
    }
    fn set_events(&self, _: &kvm_vcpu_events) -> Result<()> {
        self.kernel.call("set_events")
    }
    fn nested_state(&self) -> Result<Box<KvmNestedStateBuffer>> {
        self.kernel.call("nested_state").map(|()| Box::new(KvmNestedStateBuffer::empty()))
    }
    fn set_nested_state(&self, _: &KvmNestedStateBuffer) -> Result<()> {
        self.kernel.call("set_nested_state")
    }
    fn mp_state(&self) -> Result<kvm_mp_state> {
        self.kernel.call("mp_state").map(|()| kvm_mp_state::default())
    }
    fn set_mp_state(&self, _: kvm_mp_state) -> Result<()> {
        self.kernel.call("set_mp_state")
    }
    fn msrs(&self, entries: &mut [kvm_msr_entry]) -> Result<usize> {
        self.kernel.call("msrs")?;
        Ok(entries.iter().take_while(|e| !self.kernel.plan.refused.contains(&e.index.into())).count())
    }
    fn set_msrs(&self, entries: &[kvm_msr_entry]) -> Result<usize> {
        self.kernel.call("set_msrs")?;
        // Bit 31 of a number in the list: it can be read, not written.
        let refused = |e: &kvm_msr_entry| self.kernel.plan.refused.contains(&(e.index | 1 << 31).into());
        Ok(entries.iter().take_while(|e| !refused(e)).count())
    }
    fn lapic(&self) -> Result<kvm_lapic_state> {
        self.kernel.call("lapic").map(|()| kvm_lapic_state::default())
    }
    fn set_lapic(&self, _: &kvm_lapic_state) -> Result<()> {
        self.kernel.call("set_lapic")
    }
    fn set_guest_debug(&self, _: &kvm_guest_debug) -> Result<()> {
        self.kernel.call("set_guest_debug")
    }
    fn interrupt(&self, _: u8) -> Result<()> {
        self.kernel.call("interrupt")
    }
    fn nmi(&self) -> Result<()> {
        self.kernel.call("nmi")
    }
    fn smi(&self) -> Result<()> {
        self.kernel.call("smi")
    }
    fn tsc_khz(&self) -> Result<u32> {
        self.kernel.call("tsc_khz").map(|()| TSC_KHZ)
    }
    fn set_tsc_khz(&self, _: u32) -> Result<()> {
        self.kernel.call("set_tsc_khz")
    }
    fn clock_stopped(&self) -> Result<()> {
        self.kernel.call("clock_stopped")
    }
}

/// A device whose writes may be held back: what it got.
#[derive(Default)]
struct Slow {
    held: HeldWrites,
    got: Mutex<Vec<(u64, u64)>>,
}
impl MmioDevice for Slow {
    fn read(&self, _: u64, _: Access) -> std::result::Result<u64, BusError> {
        Ok(0)
    }
    fn write(&self, offset: u64, value: u64, _: Access) -> std::result::Result<(), BusError> {
        self.got.lock().push((offset, value));
        Ok(())
    }
    fn held_writes(&self) -> Option<&HeldWrites> {
        Some(&self.held)
    }
}

struct Hooks(VmControl);
impl X86Hooks for Hooks {
    fn acknowledge(&self, _: u32) -> Option<u8> {
        Some(0x30)
    }
    fn apic_base(&self, _: u32) -> u64 {
        0xfee0_0900
    }
    fn shutdown(&self, _: u32) {
        self.0.reset(ShutdownCause::Guest);
    }
}

/// A machine with one processor on the fake kernel.
struct Fake {
    kernel: Arc<Kernel>,
    space: Arc<AddressSpace>,
    ram: Arc<RamBlock>,
    slow: Arc<Slow>,
    vm: Arc<KvmVm>,
    vcpu: Arc<dyn GuestVcpu<X86Cpu>>,
    requests: crossbeam_channel::Receiver<VmRequest>,
    pins: Arc<rhea_x86::X86Pins>,
    _mappings: Vec<Mapping>,
}

fn machine(plan: Plan, irqchip: Irqchip) -> std::result::Result<Fake, String> {
    machine_at(plan, irqchip, None)
}

fn machine_at(plan: Plan, irqchip: Irqchip, tsc_frequency: Option<u64>) -> std::result::Result<Fake, String> {
    let (dirty_ring, private) = (plan.dirty_ring, plan.private);
    let kernel = Kernel::new(plan, usual);
    let (space, ram, mut mappings) = memory();
    let slow = Arc::new(Slow::default());
    mappings.push(space.map_mmio(Gpa(SLOW), 0x1000, slow.clone(), 0).unwrap());
    let (control, requests) = VmControl::new();
    let hooks: Arc<dyn X86Hooks> = Arc::new(Hooks(control.clone()));
    let system = FakeSystem(kernel.clone());
    let setup = Setup {
        irqchip,
        space: space.clone(),
        hooks: hooks.clone(),
        control,
        virtual_wire: true,
        tsc_frequency,
        dirty_ring,
        private: private.then(|| ram.clone()),
    };
    let vm = KvmVm::new(&system, setup).map_err(|e| e.to_string())?;
    let mut config = rhea_x86::models::parse("qemu64").unwrap().config;
    config.enable(&[Feature::Svm, Feature::AmxTile, Feature::AmxInt8, Feature::Xfd]);
    vm.restrict(&mut config);
    let cpu = X86Cpu::new(0, 0, &Arc::new(config), &space, &VirtualClock::new(), hooks);
    let pins = cpu.pins();
    let vcpu = vm.clone().add_vcpu(0, cpu).map_err(|e| e.to_string())?;
    pins.set_wake(vcpu.waker());
    vcpu.start().unwrap();
    Ok(Fake { kernel, space, ram, slow, vm, vcpu, requests, pins, _mappings: mappings })
}

impl Fake {
    /// Lines, messages and eventfds, if there are controllers in the kernel. What it refuses is an error for who asked, or lost.
    fn interrupts(&self) {
        let Some(chips) = self.vm.chips() else { return };
        let message = MsiMessage { address: 0xfee0_0000, data: 0x40, requester_id: 0 };
        chips.send(message);
        LocalApics::set_pin(&*chips, 5, message);
        for level in [true, false] {
            chips.io_apic().set_level(5, level);
        }
        let attached = use_eventfds(&*chips, message);
        assert!(!attached || !chips.split());
    }
}

impl Machine for Fake {
    type Guest = X86Cpu;
    fn count(&self, name: &str) -> u32 {
        self.kernel.count(name)
    }
    fn vcpu(&self) -> &dyn GuestVcpu<X86Cpu> {
        &*self.vcpu
    }
    fn requests(&self) -> &crossbeam_channel::Receiver<VmRequest> {
        &self.requests
    }
    fn live(&self) {
        self.vm.reset_chips().map_err(|e| e.to_string()).unwrap_or_else(|e| assert_eq!(e.lines().count(), 1));
        self.with(|cpu| {
            use rhea_ir::guest::Guest;
            cpu.reset();
            cpu.add_host_breakpoint(0x1000);
        });
        self.vcpu.resume();
        until(|| self.runs() >= 1 || !self.requests.is_empty());
        self.pins.signal(rhea_x86::hooks::pin::NMI | rhea_x86::hooks::pin::SMI);
        self.pins.set_intr(true);
        self.interrupts();
        use_memory(&self.space, &self.ram);
        assert!(self.with(|cpu| cpu.r[0]) != 1);
        self.pause();
        self.vcpu.resume();
        self.with(|cpu| cpu.r[0] = 2);
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
    ("supported_cpuid", false),
    ("components", true),
    ("permit_component", true),
    ("create_vm", false),
    ("enable", false),
    ("set_memory", false),
    ("dirty_log", false),
    ("create_irqchip", false),
    ("set_irqchip", true),
    ("set_routing", false),
    ("clock", true),
    ("set_clock", true),
    ("clock_stopped", true),
    ("set_tss_address", false),
    ("set_identity_map", false),
    ("create_vcpu", false),
    ("set_cpuid", false),
    ("regs", false),
    ("set_regs", false),
    ("sregs", false),
    ("set_sregs", false),
    ("xsave", false),
    ("set_xsave", false),
    ("xcrs", false),
    ("set_xcrs", false),
    ("debug_registers", false),
    ("set_debug_registers", false),
    ("events", false),
    ("set_events", false),
    ("nested_state", false),
    ("set_nested_state", false),
    ("mp_state", false),
    ("set_mp_state", false),
    ("msrs", false),
    ("set_msrs", false),
    ("lapic", false),
    ("set_lapic", false),
    ("set_guest_debug", false),
    ("interrupt", false),
    ("hold_writes", true),
    ("write_ring", true),
    ("irqfd", true),
    ("ioeventfd", true),
    ("signal_msi", true),
    ("set_irq_line", true),
    ("nmi", false),
    ("smi", false),
    ("run", false),
];

#[test]
fn any_call_may_fail() {
    for irqchip in [Irqchip::Kernel, Irqchip::Split, Irqchip::Machine] {
        for &(call, optional) in CALLS {
            // Later ones are for messages, whose sender is told.
            let optional = |at| optional || call == "set_routing" && at > 1;
            let failed = refuse(call, optional, |fail| machine(Plan { fail, ..Plan::default() }, irqchip));
            let kernels = matches!(call, "create_irqchip" | "set_irqchip" | "set_routing" | "lapic" | "set_lapic");
            let kernels = kernels || matches!(call, "mp_state" | "set_mp_state");
            let machines = call == "interrupt";
            let made = match irqchip {
                Irqchip::Kernel => !machines,
                Irqchip::Split => !matches!(call, "create_irqchip" | "set_irqchip"),
                Irqchip::Machine => !kernels,
            };
            assert!(failed > 0 || optional(1) || !made, "{call} is never made under {irqchip:?}");
        }
    }
}

#[test]
fn a_kernel_that_works_is_not_complained_of() {
    for irqchip in [Irqchip::Kernel, Irqchip::Split, Irqchip::Machine] {
        let machine = machine(Plan::default(), irqchip).unwrap();
        machine.live();
        machine.is_well();
    }
}

#[test]
fn missing_capabilities() {
    for needed in [
        kb::KVM_CAP_IMMEDIATE_EXIT,
        kb::KVM_CAP_VCPU_EVENTS,
        kb::KVM_CAP_XSAVE,
        kb::KVM_CAP_IRQCHIP,
        kb::KVM_CAP_SIGNAL_MSI,
        u32::MAX,
    ] {
        let text = machine(Plan::without(&[needed]), Irqchip::Kernel).err().unwrap();
        is_too_old(&text);
    }
    // Without controllers in the kernel there is no need of them.
    machine(Plan::without(&[kb::KVM_CAP_IRQCHIP, kb::KVM_CAP_SIGNAL_MSI]), Irqchip::Machine).unwrap().live();
    let optional = [
        kb::KVM_CAP_READONLY_MEM,
        kb::KVM_CAP_X86_SMM,
        kb::KVM_CAP_XCRS,
        kb::KVM_CAP_X86_USER_SPACE_MSR,
        kb::KVM_CAP_TSC_DEADLINE_TIMER,
        kb::KVM_CAP_IRQFD,
        kb::KVM_CAP_IOEVENTFD,
        kb::KVM_CAP_COALESCED_MMIO,
        kb::KVM_CAP_NR_MEMSLOTS,
        kb::KVM_CAP_MAX_VCPU_ID,
    ];
    let machine = machine(Plan::without(&optional), Irqchip::Kernel).unwrap();
    machine.live();
    let services = rhea_accel::Accelerator::services(&*machine.vm);
    assert!(services.irqfd.is_none() && services.ioeventfd.is_none() && !machine.vm.smm());
    // ROM is no slot then.
    assert_eq!(machine.vm.counts().slots, 1);
    assert_eq!(machine.requests.try_recv().ok(), None);
}

#[test]
fn frequencies_of_the_counter() {
    let own = u64::from(TSC_KHZ) * 1000;
    for (scales, errno, wanted, good) in [
        (1, 0, 1_000_000_000, true),
        (1, libc::EINVAL, 1_000_000_000, false),
        (0, 0, 1_000_000_000, false),
        // What the host has needs no scaling, up to its own inexactness.
        (1, libc::EINVAL, own + own / 8000, true),
        (0, 0, own, true),
        (0, 0, own + own / 2000, false),
        (0, 0, u64::MAX, false),
    ] {
        let fail = (errno != 0).then_some(("set_tsc_khz", 1, errno));
        let plan = Plan { fail, caps: [(kb::KVM_CAP_TSC_CONTROL, scales)].into(), ..Plan::default() };
        match machine_at(plan, Irqchip::Kernel, Some(wanted)) {
            Ok(_) => assert!(good, "{scales} {wanted}"),
            Err(text) => {
                assert!(!good && text.contains("tsc-frequency") && text.lines().count() == 1, "{wanted}: {text}")
            }
        }
    }
}

/// What frequency the host's counter has is not told.
#[test]
fn a_counter_of_unknown_frequency() {
    for errno in [libc::EIO, libc::EINTR, libc::EINVAL] {
        let fail = Some(("tsc_khz", 1, errno));
        let plan = Plan { fail, caps: [(kb::KVM_CAP_TSC_CONTROL, 0)].into(), ..Plan::default() };
        let text = machine_at(plan, Irqchip::Kernel, Some(1_000_000_000)).err().unwrap();
        assert!(text.contains("KVM_GET_TSC_KHZ") && text.lines().count() == 1, "{text}");
    }
}

#[test]
fn busy_and_out_of_slots() {
    let busy = Plan { fail: Some(("create_vm", 1, libc::EBUSY)), ..Plan::default() };
    assert_eq!(machine(busy, Irqchip::Kernel).err().unwrap(), KvmError::Busy.to_string());
    let slots = |n| Plan { caps: [(kb::KVM_CAP_NR_MEMSLOTS, n)].into(), ..Plan::default() };
    assert_eq!(machine(slots(1), Irqchip::Kernel).err().unwrap(), KvmError::Slots(1).to_string());
    let full = Plan { fail: Some(("set_memory", 2, libc::ENOSPC)), ..Plan::default() };
    assert_eq!(machine(full, Irqchip::Kernel).err().unwrap(), KvmError::Slots(509).to_string());
    // Or later.
    let machine = machine(slots(2), Irqchip::Kernel).unwrap();
    let one_more = machine.space.map_ram(Gpa(0x10_0000), &machine.ram, 0x3_0000, 0x1000, 0).unwrap();
    let VmRequest::GuestPanic(text) = machine.requests.try_recv().unwrap() else { panic!() };
    assert!(text.contains("no memory slot is left"), "{text}");
    drop(one_more);
}

#[test]
fn exits_of_all_kinds() {
    let internal = |suberror| Exit::InternalError { suberror, data: vec![1, 2, 3] };
    let panics = [
        Exit::EntryFailed { reason: 0x8000_0021, cpu: 1 },
        internal(1),
        internal(2),
        internal(77),
        Exit::MemoryFault { address: 0x1000, len: 0x1000, private: true },
        Exit::MemoryFault { address: u64::MAX, len: u64::MAX, private: false },
        Exit::Hypercall { number: 1, args: [0; 4] },
        Exit::SystemEvent(kb::KVM_SYSTEM_EVENT_CRASH),
        Exit::Unknown { reason: 0x7b },
        Exit::Other(kb::KVM_EXIT_NMI),
        Exit::Other(99),
    ];
    for exit in panics {
        let machine = machine(Plan { exits: vec![exit.clone()], ..Plan::default() }, Irqchip::Kernel).unwrap();
        machine.vcpu.resume();
        machine.panicked();
        // It stands still, and answers.
        let runs = machine.runs();
        machine.with(|cpu| cpu.eip());
        assert!(machine.runs() <= runs + 1, "{exit:?}");
    }
    for (exit, asked) in [
        (Exit::Shutdown, VmRequest::Reset(ShutdownCause::Guest)),
        (Exit::SystemEvent(kb::KVM_SYSTEM_EVENT_RESET), VmRequest::Reset(ShutdownCause::Guest)),
        (Exit::SystemEvent(kb::KVM_SYSTEM_EVENT_SHUTDOWN), VmRequest::PowerOff(ShutdownCause::Guest)),
    ] {
        let machine = machine(Plan { exits: vec![exit], ..Plan::default() }, Irqchip::Machine).unwrap();
        machine.vcpu.resume();
        assert_eq!(machine.requests.recv_timeout(LONG), Ok(asked));
    }
    let io = |size, count, write| Exit::Io { port: 0x80, size, count, write };
    let mmio = |address, len, write| Exit::Mmio { address, len, write, data: [1; 8] };
    let goes_on = vec![
        io(1, 16, true),
        io(4, 4, false),
        io(3, 1, true),
        io(0, 0, false),
        io(2, u32::MAX, true),
        mmio(0xd_0000, 8, false),
        mmio(0xd_0003, 7, true),
        mmio(0xfff, 3, false),
        mmio(u64::MAX - 1, 8, true),
        mmio(0x2_0000, 4, true),
        mmio(0, 0, false),
        Exit::ReadMsr(0x1234_5678),
        Exit::WriteMsr(0xc001_0015, 1 << 40),
        Exit::IrqWindow,
        Exit::SetTpr,
        Exit::BusLock,
        Exit::Notify,
        Exit::DirtyRingFull,
        Exit::IoApicEoi(9),
        Exit::Debug { exception: 1, pc: 0, dr6: 0, dr7: 0 },
        Exit::Interrupted,
        Exit::Halt,
    ];
    let count = goes_on.len() as u32;
    for irqchip in [Irqchip::Kernel, Irqchip::Split, Irqchip::Machine] {
        let machine = machine(Plan { exits: goes_on.clone(), ..Plan::default() }, irqchip).unwrap();
        machine.vcpu.resume();
        until(|| machine.runs() >= count);
        machine.with(|cpu| cpu.eip());
        assert_eq!(machine.requests.try_recv().ok(), None, "{irqchip:?}");
    }
}

#[test]
fn registers_that_the_kernel_refuses() {
    let refused = vec![0x1d9, 0x48, 0x4b56_4d04, 0x400, 0x2ff, 0x277 | 1 << 31, 0x1a0 | 1 << 31];
    let machine = machine(Plan { refused, ..Plan::default() }, Irqchip::Kernel).unwrap();
    machine.live();
    assert_eq!(machine.requests.try_recv().ok(), None);
}
