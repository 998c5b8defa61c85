//! ppc64: hypercalls and memory as the board sees them, the order of calls when interrupt controllers change, and a kernel that refuses.

use crate::kernel::{
    self, FakePrivate, FakeVfio, LONG, Machine, Run, any_vm, is_too_old, memory, refuse, until, use_eventfds,
    use_memory,
};
use parking_lot::Mutex;
use rhea_accel::spapr::{Mode, XiveQueue, XiveTarget};
use rhea_accel::{Accelerator, GuestAccelerator, GuestVcpu, MsiMessage, ShutdownCause, VmControl, VmRequest};
use rhea_clock::VirtualClock;
use rhea_kvm::KvmError;
use rhea_kvm::ppc::abi::{self, kvm_create_spapr_tce_64, kvm_ppc_cpu_char, kvm_regs, kvm_sregs};
use rhea_kvm::ppc::sys::{DeviceFile, DevicePages, Exit, System, VcpuFile, VmFile};
use rhea_kvm::ppc::{KvmVm, Places, PpcVm, Setup, host_of};
use rhea_kvm::sys::{AnyVm, IoEvent, PrivateMemory, Region, VfioDevice, cap};
use rhea_memory::{AddressSpace, Gpa, Mapping, RamBlock};
use rhea_ppc::bits::msr;
use rhea_ppc::models::POWER10;
use rhea_ppc::{PpcCpu, PpcHooks};
use std::io::{Error, Result};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

type Plan = kernel::Plan<Exit>;
type Kernel = kernel::Kernel<Exit>;

fn usual(capability: u32) -> i32 {
    match capability {
        cap::NR_MEMSLOTS => 509,
        abi::KVM_CAP_MAX_VCPU_ID => 4096,
        _ => 1,
    }
}

/// What was asked of the kernel.
struct Seen {
    kernel: Arc<Kernel>,
    calls: Mutex<Vec<String>>,
    /// So often a vCPU is still in guest code when a page table is made.
    busy: AtomicU32,
    regs: Mutex<kvm_regs>,
    /// What R3 to R12 were after hypercalls, and data of reads.
    results: Mutex<Vec<(u64, [u64; 9])>>,
    data: Mutex<Vec<[u8; 8]>>,
}

impl Seen {
    fn new(plan: Plan) -> Arc<Self> {
        Arc::new(Self {
            kernel: Kernel::new(plan, usual),
            calls: Mutex::default(),
            busy: AtomicU32::new(0),
            regs: Mutex::default(),
            results: Mutex::default(),
            data: Mutex::default(),
        })
    }
    fn call(&self, name: &'static str, detail: String) -> Result<()> {
        self.calls.lock().push(format!("{name} {detail}").trim_end().to_owned());
        self.kernel.call(name)
    }
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock())
    }
    fn has(&self, call: &str) -> bool {
        self.calls.lock().iter().any(|c| c == call)
    }
}

struct FakeSystem(Arc<Seen>);
struct FakeVm(Arc<Kernel>, Arc<Seen>);
struct FakeVcpu {
    kernel: Arc<Seen>,
    run: Run<Exit>,
    answered: bool,
}

impl System for FakeSystem {
    fn check(&self, capability: u32) -> i32 {
        self.0.kernel.check(capability)
    }
    fn api_version(&self) -> i32 {
        if self.0.kernel.plan.caps.contains_key(&u32::MAX) { 11 } else { 12 }
    }
    fn create_vm(&self) -> Result<Arc<dyn VmFile>> {
        self.0.call("create_vm", String::new())?;
        Ok(Arc::new(FakeVm(self.0.kernel.clone(), self.0.clone())))
    }
}

any_vm!(FakeVm);

impl VmFile for FakeVm {
    fn create_vcpu(&self, id: u32) -> Result<Box<dyn VcpuFile>> {
        self.1.call("create_vcpu", id.to_string())?;
        Ok(Box::new(FakeVcpu { kernel: self.1.clone(), run: Run::new(&self.0.plan.exits), answered: true }))
    }
    fn configure_mmu(&self, flags: u64, table: u64) -> Result<()> {
        self.1.call("mmu", format!("{flags} {table:#x}"))
    }
    fn allocate_htab(&self, order: u32) -> Result<()> {
        self.1.call("htab", order.to_string())?;
        match self.1.busy.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)) {
            Ok(_) => Err(Error::from_raw_os_error(libc::EBUSY)),
            Err(_) => Ok(()),
        }
    }
    fn cpu_char(&self) -> Result<kvm_ppc_cpu_char> {
        self.1.call("cpu_char", String::new())?;
        Ok(kvm_ppc_cpu_char { character: 1, behaviour: 2, ..Default::default() })
    }
    fn set_irq_line(&self, irq: u32, level: bool) -> Result<()> {
        self.1.call("line", format!("{irq:#x} {level}"))
    }
    fn define_rtas_token(&self, name: &str, token: u32) -> Result<()> {
        self.1.call("token", format!("{name} {token}"))
    }
    fn create_device(&self, kind: u32) -> Result<Arc<dyn DeviceFile>> {
        self.1.call("create_device", kind.to_string())?;
        Ok(Arc::new(FakeDevice(self.1.clone())))
    }
    fn create_tces(&self, t: &kvm_create_spapr_tce_64) -> Result<Arc<dyn DeviceFile>> {
        self.1.call("create_tces", format!("{:#x} {} {:#x} {}", t.liobn, t.page_shift, t.offset, t.size))?;
        Ok(Arc::new(FakeDevice(self.1.clone())))
    }
    fn has_device(&self, _: u32) -> bool {
        true
    }
}

struct FakeDevice(Arc<Seen>);
struct FakePages(Arc<Seen>);

impl Drop for FakeDevice {
    fn drop(&mut self) {
        let _ = self.0.call("close_device", String::new());
    }
}

impl Drop for FakePages {
    fn drop(&mut self) {
        let _ = self.0.call("unmap", String::new());
    }
}

impl DeviceFile for FakeDevice {
    fn fd(&self) -> RawFd {
        77
    }
    fn map(&self, page: u64, _: u64) -> Result<Box<dyn DevicePages>> {
        self.0.call("map", page.to_string())?;
        Ok(Box::new(FakePages(self.0.clone())))
    }
    fn set(&self, group: u32, attribute: u64, value: &[u8]) -> Result<()> {
        let value = match value.len() {
            8 => format!("{:#x}", u64::from_ne_bytes(value.try_into().unwrap())),
            n => format!("{n} bytes"),
        };
        self.0.call("set", format!("{group} {attribute:#x} {value}"))
    }
    fn get(&self, group: u32, attribute: u64, value: &mut [u8]) -> Result<()> {
        self.0.call("get", format!("{group} {attribute:#x}"))?;
        if value.len() == 8 {
            value.copy_from_slice(&abi::KVM_XICS_PENDING.to_ne_bytes());
        }
        Ok(())
    }
}

impl DevicePages for FakePages {
    fn host(&self) -> u64 {
        0x1000_0000
    }
    fn load(&self, offset: u64) -> u64 {
        let _ = self.0.call("load", format!("{offset:#x}"));
        2u64.to_be()
    }
    fn store(&self, offset: u64, _: u64) {
        let _ = self.0.call("store", format!("{offset:#x}"));
    }
}

impl VcpuFile for FakeVcpu {
    fn run(&mut self) -> Result<Exit> {
        if self.run.immediate.load(SeqCst) == 0 {
            assert!(self.answered, "guest code goes on without an answer");
            self.kernel.call("run", String::new())?;
        }
        let exit = self.run.end();
        self.answered = !matches!(exit, Some(Exit::Hypercall { .. } | Exit::Mmio { write: false, .. }));
        Ok(exit.unwrap_or(Exit::Interrupted))
    }
    fn set_mmio_data(&mut self, data: [u8; 8]) {
        self.answered = true;
        self.kernel.data.lock().push(data);
    }
    fn set_hcall_result(&mut self, status: u64, args: [u64; 9]) {
        self.answered = true;
        self.kernel.results.lock().push((status, args));
        let mut regs = self.kernel.regs.lock();
        regs.gpr[3] = status;
        regs.gpr[4..13].copy_from_slice(&args);
    }
    fn immediate_exit(&self) -> *mut u8 {
        self.run.immediate.as_ptr()
    }
    fn enable(&self, capability: u32, args: [u64; 4]) -> Result<()> {
        self.kernel.call("enable_vcpu", format!("{capability} {} {}", args[0], args[1]))
    }
    fn regs(&self) -> Result<kvm_regs> {
        self.kernel.kernel.call("regs")?;
        Ok(*self.kernel.regs.lock())
    }
    fn set_regs(&self, regs: &kvm_regs) -> Result<()> {
        self.kernel.kernel.call("set_regs")?;
        *self.kernel.regs.lock() = *regs;
        Ok(())
    }
    fn sregs(&self) -> Result<Box<kvm_sregs>> {
        self.kernel.kernel.call("sregs")?;
        let other = self.kernel.kernel.plan.other_version;
        Ok(Box::new(kvm_sregs { pvr: if other { 0x004e_1202 } else { POWER10.pvr }, ..kvm_sregs::default() }))
    }
    fn set_sregs(&self, _: &kvm_sregs) -> Result<()> {
        self.kernel.kernel.call("set_sregs")
    }
    fn reg(&self, _: u64) -> Result<u128> {
        self.kernel.kernel.call("reg").map(|()| 0)
    }
    fn set_reg(&self, id: u64, value: u128) -> Result<()> {
        match id {
            abi::KVM_REG_PPC_ICP_STATE => self.kernel.call("icp", format!("{value:#x}")),
            abi::KVM_REG_PPC_TB_OFFSET => self.kernel.call("time", (value as i64).to_string()),
            _ => self.kernel.kernel.call("set_reg"),
        }
    }
    fn interrupt(&self, level: bool) -> Result<()> {
        self.kernel.call("interrupt", level.to_string())
    }
    fn set_guest_debug(&self, _: bool) -> Result<()> {
        self.kernel.kernel.call("set_guest_debug")
    }
}

/// 0x300 needs registers only and has one argument, 0x31c all of the state.
struct Board;
impl PpcHooks for Board {
    fn hcall(&self, cpu: &mut PpcCpu) -> bool {
        match cpu.gpr[3] {
            0x300 => {
                let wide = cpu.msr & msr::SF != 0;
                (cpu.gpr[3], cpu.gpr[4]) = (0, if wide { cpu.gpr[4] + 1 } else { cpu.gpr[4] & 0xffff_ffff });
            }
            0x31c => {
                assert_eq!(cpu.gpr[1], 0xabc, "the state is there");
                (cpu.gpr[3], cpu.gpr[14]) = (0, 0xdef);
            }
            _ => cpu.gpr[3] = -2i64 as u64,
        }
        true
    }
    fn hcall_arguments(&self, number: u64) -> Option<usize> {
        (number == 0x300).then_some(1)
    }
}

/// A machine with one processor on the fake kernel.
struct Fake {
    kernel: Arc<Seen>,
    space: Arc<AddressSpace>,
    ram: Arc<RamBlock>,
    vm: Arc<KvmVm>,
    vcpu: Arc<dyn GuestVcpu<PpcCpu>>,
    requests: crossbeam_channel::Receiver<VmRequest>,
    _mappings: Vec<Mapping>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.vcpu.stop();
    }
}

fn machine(plan: Plan) -> std::result::Result<Fake, String> {
    let kernel = Seen::new(plan);
    let (space, ram, mappings) = memory();
    let (control, requests) = VmControl::new();
    let hooks = Arc::new(Board);
    let setup =
        Setup { space: space.clone(), hooks: hooks.clone(), control, threads: 1, dawr1: true, rpt_invalidate: true };
    let vm = KvmVm::new(&FakeSystem(kernel.clone()), setup).map_err(|e| e.to_string())?;
    let mut cpu = PpcCpu::new(0, &Arc::new(POWER10.config()), &space, &VirtualClock::new(), hooks);
    cpu.start_at(0x100, 0, false);
    cpu.gpr[1] = 0xabc;
    let vcpu = vm.clone().add_vcpu(0, cpu).map_err(|e| e.to_string())?;
    vcpu.start().unwrap();
    Ok(Fake { kernel, space, ram, vm, vcpu, requests, _mappings: mappings })
}

fn running(exits: &[Exit]) -> Fake {
    let m = machine(Plan { exits: exits.to_vec(), ..Plan::default() }).unwrap();
    m.vcpu.resume();
    m
}

const PLACES: Places = Places { tima: 0x6_0000_0000, esb: 0x7_0000_0000, sources: 0x2000 };

impl Fake {
    /// Interrupts of the machine's own controller, then of the kernel's, which comes and goes.
    fn interrupts(&self) {
        let pins = self.with(|cpu| cpu.pins());
        for level in [true, false, true] {
            pins.set_external(level);
            self.vcpu.kick();
            until(|| self.kernel.has(&format!("interrupt {level}")) || !self.requests.is_empty());
            self.with(|_| ());
        }
        let Some(chips) = self.vm.irqchip(PLACES) else { return };
        self.vm.set_rtas_tokens(&[("ibm,set-xive".to_owned(), 5)]);
        for _ in 0..3 {
            if chips.open(Mode::Xics, &[(0x1000, false), (0x1200, true)]) {
                let _ = chips.set_level(0x1200, true);
                chips.reset_server(0);
                self.with(|_| ());
                if let Some(irqfd) = self.vm.services().irqfd {
                    use_eventfds(&*irqfd, MsiMessage { address: 0, data: 0x1000, requester_id: 0 });
                }
                chips.close(true);
            }
            self.with(|_| ());
        }
    }
}

impl Machine for Fake {
    type Guest = PpcCpu;
    fn count(&self, name: &str) -> u32 {
        self.kernel.kernel.count(name)
    }
    fn vcpu(&self) -> &dyn GuestVcpu<PpcCpu> {
        &*self.vcpu
    }
    fn requests(&self) -> &crossbeam_channel::Receiver<VmRequest> {
        &self.requests
    }
    fn live(&self) {
        for result in [self.vm.set_hash(24), self.vm.set_radix(0x1234_000c, true), self.vm.set_hash(24)] {
            assert!(result.err().is_none_or(|e| e.to_string().lines().count() == 1));
        }
        if let Some(tces) = self.vm.tces() {
            let tables = [1, 2, 3].map(|n| tces.create(n, 12, 0, 64));
            tables.iter().flatten().for_each(|t| t.store(1, t.load(0)));
        }
        self.vcpu.resume();
        until(|| self.runs() >= 1 || !self.requests.is_empty());
        self.interrupts();
        use_memory(&self.space, &self.ram);
        for _ in 0..3 {
            self.with(|cpu| cpu.gpr[5] += 1);
            self.pause();
            self.vcpu.resume();
        }
        self.pause();
    }
}

/// Calls, and whether the machine can do without what they are for, or who asked for it is told.
const CALLS: &[(&str, bool)] = &[
    ("create_vm", false),
    ("enable", true),
    ("create_vcpu", false),
    ("enable_vcpu", false),
    ("sregs", false),
    ("set_sregs", false),
    ("regs", false),
    ("set_regs", false),
    ("reg", true),
    ("set_reg", true),
    ("set_memory", false),
    ("dirty_log", false),
    ("ioeventfd", true),
    ("irqfd", true),
    ("htab", true),
    ("mmu", true),
    ("interrupt", false),
    ("create_device", true),
    ("create_tces", true),
    ("map", true),
    ("set", true),
    ("get", true),
    ("token", true),
    ("line", true),
    ("icp", false),
    ("run", false),
];

#[test]
fn any_call_may_fail() {
    for &(call, optional) in CALLS {
        let failed = refuse(call, |_| optional, |fail| machine(Plan { fail, ..Plan::default() }));
        assert!(failed > 0 || optional, "{call} is never made");
    }
    // What is not there at first is done without; what is gone later is missed.
    let known = machine(Plan::default()).unwrap().count("reg");
    let m = machine(Plan { fail: Some(("reg", known + 5, libc::EIO)), ..Plan::default() }).unwrap();
    m.live();
    assert!(m.panicked().contains("KVM_GET_ONE_REG"));
    for (at, name) in [(9, "KVM_CAP_PPC_DAWR1"), (10, "KVM_CAP_PPC_RPT_INVALIDATE")] {
        let text = machine(Plan { fail: Some(("enable", at, libc::EINVAL)), ..Plan::default() }).err().unwrap();
        assert!(text.contains(name) && text.lines().count() == 1, "{text}");
    }
}

#[test]
fn a_kernel_that_works_is_not_complained_of() {
    let m = machine(Plan::default()).unwrap();
    m.live();
    m.is_well();
    assert!(CALLS.iter().all(|(call, _)| m.count(call) > 0 || *call == "irqfd"));
    m.vm.services().ioeventfd.unwrap();
}

#[test]
fn missing_capabilities() {
    for needed in [
        3,
        abi::KVM_CAP_IMMEDIATE_EXIT,
        abi::KVM_CAP_ONE_REG,
        abi::KVM_CAP_ENABLE_CAP,
        abi::KVM_CAP_ENABLE_CAP_VM,
        abi::KVM_CAP_PPC_PAPR,
        abi::KVM_CAP_PPC_UNSET_IRQ,
        abi::KVM_CAP_PPC_IRQ_LEVEL,
        abi::KVM_CAP_PPC_ENABLE_HCALL,
        u32::MAX,
    ] {
        let text = machine(Plan::without(&[needed])).err().unwrap();
        is_too_old(&text);
    }
    let optional = [
        cap::READONLY_MEM,
        cap::NR_MEMSLOTS,
        cap::IRQFD,
        cap::IRQFD_RESAMPLE,
        cap::IOEVENTFD,
        cap::IOEVENTFD_ANY_LENGTH,
        abi::KVM_CAP_MAX_VCPU_ID,
        abi::KVM_CAP_IRQ_XICS,
        abi::KVM_CAP_PPC_IRQ_XIVE,
        abi::KVM_CAP_PPC_RTAS,
        abi::KVM_CAP_SPAPR_TCE_64,
    ];
    for caps in optional.iter().map(std::slice::from_ref).chain([&optional[..]]) {
        let m = machine(Plan::without(caps)).unwrap();
        m.live();
        m.is_well();
    }
    let m = machine(Plan::without(&optional)).unwrap();
    let services = m.vm.services();
    assert!(services.irqfd.is_none() && services.ioeventfd.is_none() && m.vm.irqchip(PLACES).is_none());
    assert!(m.vm.tces().is_none());
}

/// What is asked of a host before there is a machine.
#[test]
fn the_host() {
    let host = |plan| host_of(&FakeSystem(Seen::new(plan))).map_err(|e| e.to_string());
    let good = host(Plan::default()).unwrap();
    assert!(good.radix && good.hash && good.dawr1 && good.characteristics == Some((1, 2)));
    for (call, optional) in [("create_vm", false), ("create_vcpu", false), ("sregs", false), ("cpu_char", true)] {
        for errno in [libc::EIO, libc::EINTR, libc::ENOMEM, libc::ENODEV, libc::EINVAL] {
            match host(Plan { fail: Some((call, 1, errno)), ..Plan::default() }) {
                Ok(found) => assert!(optional && found.characteristics.is_none(), "{call}"),
                Err(text) => assert!(!optional && text.lines().count() == 1, "{call}: {text}"),
            }
        }
    }
}

/// The time base stands while the machine does, as far as the kernel's steps (of 2^24) let it.
#[test]
fn the_time_base_stands() {
    let m = running(&[]);
    until(|| m.runs() >= 1);
    m.pause();
    std::thread::sleep(Duration::from_millis(100));
    m.vcpu.resume();
    m.with(|_| ());
    m.pause();
    let calls = m.kernel.take();
    let times: Vec<i64> = calls.iter().filter_map(|c| c.strip_prefix("time ")?.parse().ok()).collect();
    // 100 ms are 3.05 steps.
    assert!(matches!(times[..], [time] if time <= -3 << 24 && time % (1 << 24) == 0), "{times:?}");
}

/// A kernel that does not let it: the guest runs on, and the next stop is not lost.
#[test]
fn the_time_base_does_not_stand() {
    let m = machine(Plan { fail: Some(("time", 1, libc::EINVAL)), ..Plan::default() }).unwrap();
    for _ in 0..2 {
        m.vcpu.resume();
        m.with(|_| ());
        m.pause();
        std::thread::sleep(Duration::from_millis(100));
    }
    m.vcpu.resume();
    m.with(|_| ());
    m.is_well();
    let calls = m.kernel.take();
    let times: Vec<i64> = calls.iter().filter_map(|c| c.strip_prefix("time ")?.parse().ok()).collect();
    assert!(matches!(times[..], [refused, all] if all < refused && refused <= -3 << 24), "{times:?}");
}

#[test]
fn busy_and_out_of_slots() {
    let busy = Plan { fail: Some(("create_vm", 1, libc::EBUSY)), ..Plan::default() };
    assert_eq!(machine(busy).err().unwrap(), KvmError::Busy.to_string());
    let slots = |n| Plan { caps: [(cap::NR_MEMSLOTS, n)].into(), ..Plan::default() };
    assert_eq!(machine(slots(1)).err().unwrap(), KvmError::Slots(1).to_string());
    let full = Plan { fail: Some(("set_memory", 2, libc::ENOSPC)), ..Plan::default() };
    assert_eq!(machine(full).err().unwrap(), KvmError::Slots(509).to_string());
    // Or later.
    let machine = machine(slots(2)).unwrap();
    let one_more = machine.space.map_ram(Gpa(0x10_0000), &machine.ram, 0x3_0000, 0x1000, 0).unwrap();
    assert!(machine.panicked().contains("no memory slot is left"));
    drop(one_more);
}

#[test]
fn hypercalls_and_memory() {
    let args = [7, 0, 0, 0, 0, 0, 0, 0, 0];
    let exits = vec![
        Exit::Hypercall { number: 0x300, args },
        Exit::Hypercall { number: 0x31c, args },
        Exit::Hypercall { number: 0xf00d, args },
        Exit::Mmio { address: 0xffff_0000, len: 4, write: false, data: [0; 8] },
    ];
    let m = running(&exits);
    until(|| m.kernel.data.lock().len() == 1);
    let results = m.kernel.results.lock().clone();
    assert_eq!(results[0], (0, [8, 0, 0, 0, 0, 0, 0, 0, 0]));
    // What needs the state is first given back as it was made, then its registers are set.
    assert_eq!(results[1], (0x31c, args));
    assert_eq!(results[2], (0xf00d, args));
    assert_eq!(m.kernel.regs.lock().gpr[14], 0xdef);
    assert_eq!(m.kernel.data.lock()[0][..4], [0xff; 4]);
    assert!(m.requests.try_recv().is_err());
}

/// A hypercall of small arguments costs no call of the kernel but the one that runs the guest. What is in registers that it does not
/// use is no matter; of a large argument it is asked how much the guest's mode has of it.
#[test]
fn hypercalls_without_a_detour() {
    const ALL: u64 = 64;
    let call = |arg, rest| Exit::Hypercall { number: 0x300, args: [arg, rest, 0, 0, 0, 0, 0, 0, 0] };
    let asked = |exit: &Exit, mode| {
        let m = machine(Plan { exits: vec![exit.clone(); ALL as usize], ..Plan::default() }).unwrap();
        // Without what the machine asks at its start.
        m.with(move |cpu| cpu.msr = mode);
        let before = m.count("regs");
        m.vcpu.resume();
        until(|| m.runs() > ALL as u32);
        let answers = m.kernel.results.lock().clone();
        assert_eq!(answers.len(), ALL as usize);
        m.is_well();
        (m.count("regs") - before, answers[0])
    };
    const WIDE: u64 = 7 << 32 | 7;
    let rest = [u64::MAX, 0, 0, 0, 0, 0, 0, 0];
    let answer = |first| {
        let mut all = [first; 9];
        all[1..].copy_from_slice(&rest);
        (0, all)
    };
    assert_eq!(asked(&call(7, u64::MAX), msr::SF), (0, answer(8)));
    assert_eq!(asked(&call(WIDE, u64::MAX), msr::SF), (ALL as u32, answer(WIDE + 1)));
    assert_eq!(asked(&call(WIDE, u64::MAX), 0), (ALL as u32, answer(7)));
}

#[test]
fn interrupts_from_outside() {
    let m = running(&[]);
    let waker = m.vcpu.waker();
    let (send, pins) = crossbeam_channel::bounded(1);
    m.vcpu.post(Box::new(move |cpu| send.send(cpu.pins()).unwrap()));
    let pins = pins.recv().unwrap();
    let told = |level: bool| m.kernel.has(&format!("interrupt {level}"));
    pins.set_external(true);
    waker();
    until(|| told(true));
    pins.set_external(false);
    waker();
    until(|| told(false));
}

#[test]
fn controllers_come_and_go() {
    let m = machine(Plan::default()).unwrap();
    let chips = m.vm.irqchip(PLACES).unwrap();
    m.vm.set_rtas_tokens(&[("ibm,set-xive".to_owned(), 5), ("display-character".to_owned(), 6)]);
    m.vcpu.resume();
    until(|| m.kernel.has("run"));
    m.kernel.take();
    assert!(chips.open(Mode::Xics, &[(0x1000, false), (0x1200, true)]));
    let connected = format!("enable_vcpu {} 77 0", abi::KVM_CAP_IRQ_XICS);
    until(|| m.kernel.has(&connected));
    let mut calls = m.kernel.take();
    calls.retain(|c| c != "run" && *c != connected);
    let expected = [
        "create_device 3",
        "set 2 0x1 4 bytes",
        "set 1 0x1000 0x2ff00000000",
        "set 1 0x1200 0x3ff00000000",
        "token ibm,set-xive 5",
    ];
    assert_eq!(calls, expected);
    assert!(m.vm.kernel_irqchip() && chips.set_level(0x1200, true));
    chips.reset_server(0);
    until(|| m.kernel.has("icp 0xffff0000"));
    m.kernel.take();
    // Messages that were pending are told; the device goes while no guest code runs.
    assert_eq!(chips.close(true), [0x1000]);
    let mut calls = m.kernel.take();
    calls.retain(|c| c != "run");
    assert_eq!(calls, ["token ibm,set-xive 0", "get 1 0x1000", "close_device"]);
    assert!(!m.vm.kernel_irqchip());
    // To look is to disturb: the kernel masks all sources for it.
    assert!(chips.open(Mode::Xics, &[(0x1000, false)]));
    assert!(chips.close(false).is_empty());
    assert!(!m.kernel.take().iter().any(|c| c.starts_with("get")));
    if !chips.open(Mode::Xive, &[(0, false), (0x1200, true)]) {
        // Its pages are shown only by hosts with pages of that size.
        return;
    }
    chips.set_target(0x1200, XiveTarget { masked: false, server: 1, priority: 6, data: 9 }).unwrap();
    chips.set_queue(1, 6, XiveQueue { shift: 16, page: 0x1_0000, toggle: 1, index: 0 }).unwrap();
    assert_eq!(chips.close(true), [0]);
}

/// A table is the kernel's pages, of the host's size, and goes with them; one that the kernel refuses, or does not show, is none.
#[test]
fn tables_for_devices() {
    let m = machine(Plan::default()).unwrap();
    let tces = m.vm.tces().unwrap();
    m.kernel.take();
    let table = tces.create(0x8000_0001, 16, 0x800_0000_0000, 512).unwrap();
    assert_eq!(table.load(3), 2u64.to_be());
    table.store(511, 7);
    m.vcpu.resume();
    until(|| m.runs() >= 1);
    let mut done = false;
    tces.exclusively(&mut || done = true);
    assert!(done);
    m.kernel.take();
    drop(table);
    let mut calls = m.kernel.take();
    calls.retain(|c| c != "run");
    assert_eq!(calls, ["unmap", "close_device"]);
    let table = tces.create(5, 12, 0, 1);
    let mut calls = m.kernel.take();
    calls.retain(|c| c != "run");
    assert_eq!(calls, ["create_tces 0x5 12 0x0 1", "map 0"]);
    drop(table);
    for call in ["create_tces", "map"] {
        for errno in [libc::EBUSY, libc::ENOMEM, libc::EINVAL, libc::ENOTTY] {
            let m = machine(Plan { fail: Some((call, 1, errno)), ..Plan::default() }).unwrap();
            let tces = m.vm.tces().unwrap();
            // Nothing is left of it.
            assert!(tces.create(5, 12, 0, 1).is_none() && m.kernel.has("close_device") == (call == "map"));
            assert!(tces.create(5, 12, 0, 1).is_some(), "{call} {errno}");
        }
    }
}

#[test]
fn translation() {
    let m = machine(Plan::default()).unwrap();
    m.kernel.take();
    m.kernel.busy.store(3, SeqCst);
    m.vm.set_hash(24).unwrap();
    m.vm.set_radix(0x1234_000c, true).unwrap();
    let calls = m.kernel.take();
    assert_eq!(calls, ["htab 24", "htab 24", "htab 24", "htab 24", "mmu 3 0x800000001234000c"]);
    let m = machine(Plan { fail: Some(("mmu", 1, libc::EINVAL)), ..Plan::default() }).unwrap();
    assert!(matches!(m.vm.set_radix(0, false), Err(KvmError::Call { .. })));
}

#[test]
fn exits_of_all_kinds() {
    let refuses = |call, errno| machine(Plan { fail: Some((call, 1, errno)), ..Plan::default() }).err().unwrap();
    assert!(refuses("create_vm", libc::EINVAL).contains("kvm-hv"));
    assert!(refuses("enable_vcpu", libc::EINVAL).contains("KVM_CAP_PPC_PAPR"));
    let other = machine(Plan { other_version: true, ..Plan::default() }).err().unwrap();
    assert!(other.contains("not of the guest's") && other.lines().count() == 1, "{other}");
    // While it runs: the machine's control is told once, and it answers.
    for (exit, says) in [
        (Exit::EntryFailed { reason: 5 }, "reason 0x5"),
        (Exit::InternalError { suberror: 1 }, "internal error 1"),
        (Exit::Other(99), "unknown exit 99"),
        (Exit::SystemEvent(9), "system event 9"),
    ] {
        let m = running(&[exit]);
        let text = m.panicked();
        assert!(text.contains(says), "{text}");
        m.with(|_| ());
        m.is_well();
    }
    for (event, asked) in [
        (abi::KVM_SYSTEM_EVENT_RESET, VmRequest::Reset(ShutdownCause::Guest)),
        (abi::KVM_SYSTEM_EVENT_SHUTDOWN, VmRequest::PowerOff(ShutdownCause::Guest)),
    ] {
        assert_eq!(running(&[Exit::SystemEvent(event)]).requests.recv_timeout(LONG), Ok(asked));
    }
    let mmio = |address, len, write| Exit::Mmio { address, len, write, data: [1; 8] };
    let goes_on = [
        mmio(0xd_0000, 8, false),
        mmio(0xd_0003, 7, true),
        mmio(0xfff, 3, false),
        mmio(u64::MAX - 1, 8, true),
        mmio(0x2_0000, 4, true),
        mmio(0xe_0000, 255, false),
        mmio(0, 0, false),
        Exit::MachineCheck { recovered: true },
        Exit::MachineCheck { recovered: false },
        Exit::Debug { address: u64::MAX },
        Exit::Interrupted,
    ];
    let m = running(&goes_on);
    until(|| m.runs() >= goes_on.len() as u32);
    m.with(|_| ());
    m.is_well();
}
