//! The ppc64 side on a kernel that is none: hypercalls and memory as the board sees them, the order of calls when interrupt
//! controllers change, and a kernel that refuses.

use parking_lot::Mutex;
use rhea_accel::spapr::{Mode, XiveQueue, XiveTarget};
use rhea_accel::{GuestAccelerator, Vcpu, VmControl, VmRequest};
use rhea_clock::VirtualClock;
use rhea_kvm::KvmError;
use rhea_kvm::ppc::abi::{self, kvm_ppc_cpu_char, kvm_regs, kvm_sregs};
use rhea_kvm::ppc::sys::{DeviceFile, DevicePages, Exit, System, VcpuFile, VmFile};
use rhea_kvm::ppc::{KvmVm, Places, PpcVm, Setup, check};
use rhea_kvm::sys::{AnyVm, IoEvent, PrivateMemory, Region, VfioDevice};
use rhea_memory::{AddressSpace, Gpa, Mapping, RamBlock};
use rhea_ppc::models::POWER10;
use rhea_ppc::{PpcCpu, PpcHooks};
use std::collections::VecDeque;
use std::io::{Error, Result};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// What the fake kernel does, and what was asked of it.
#[derive(Default)]
struct Kernel {
    /// A call, how often it fails, and its error.
    fail: Mutex<Option<(&'static str, u32, i32)>>,
    absent: Vec<u32>,
    exits: Vec<Exit>,
    pvr: Option<u32>,
    calls: Mutex<Vec<String>>,
    regs: Mutex<kvm_regs>,
    /// What R3 to R12 were after hypercalls, and data of reads.
    results: Mutex<Vec<(u64, [u64; 9])>>,
    data: Mutex<Vec<[u8; 8]>>,
}

impl Kernel {
    fn call(&self, name: &'static str, detail: String) -> Result<()> {
        self.calls.lock().push(format!("{name} {detail}").trim_end().to_owned());
        match &mut *self.fail.lock() {
            Some((which, left, errno)) if *which == name && *left > 0 => {
                *left -= 1;
                Err(Error::from_raw_os_error(*errno))
            }
            _ => Ok(()),
        }
    }
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock())
    }
}

struct Fake(Arc<Kernel>);
struct FakeVcpu {
    kernel: Arc<Kernel>,
    byte: Box<AtomicU8>,
    exits: VecDeque<Exit>,
    answered: bool,
}

impl System for Fake {
    fn check(&self, capability: u32) -> i32 {
        i32::from(!self.0.absent.contains(&capability))
    }
    fn api_version(&self) -> i32 {
        12
    }
    fn create_vm(&self) -> Result<Arc<dyn VmFile>> {
        self.0.call("create_vm", String::new())?;
        Ok(Arc::new(Fake(self.0.clone())))
    }
}

impl AnyVm for Fake {
    fn check(&self, capability: u32) -> i32 {
        match capability {
            10 => 509,
            abi::KVM_CAP_MAX_VCPU_ID => 4096,
            _ => System::check(self, capability),
        }
    }
    fn enable(&self, _: u32, _: [u64; 4]) -> Result<()> {
        Ok(())
    }
    fn set_memory(&self, r: &Region) -> Result<()> {
        self.0.call("memory", format!("{} {:#x} {:#x}", r.slot, r.gpa, r.len))
    }
    fn create_private(&self, _: u64) -> Result<Arc<dyn PrivateMemory>> {
        unreachable!("no memory is guest code's alone")
    }
    fn set_private(&self, _: u64, _: u64, _: bool) -> Result<()> {
        unreachable!("no memory is guest code's alone")
    }
    fn dirty_log(&self, _: u32, _: u64) -> Result<Vec<u64>> {
        Ok(Vec::new())
    }
    fn reset_dirty_rings(&self) -> Result<()> {
        unreachable!("no rings were asked for")
    }
    fn hold_writes(&self, _: u64, _: u32, _: bool) -> Result<()> {
        unreachable!("no writes are held back")
    }
    fn irqfd(&self, _: RawFd, _: u32, _: Option<RawFd>, _: bool) -> Result<()> {
        Ok(())
    }
    fn ioeventfd(&self, _: &IoEvent, _: bool) -> Result<()> {
        Ok(())
    }
    fn create_vfio(&self) -> Result<Arc<dyn VfioDevice>> {
        unreachable!("no device is assigned")
    }
}

impl VmFile for Fake {
    fn create_vcpu(&self, id: u32) -> Result<Box<dyn VcpuFile>> {
        self.0.call("create_vcpu", id.to_string())?;
        let kernel = self.0.clone();
        let exits = kernel.exits.iter().cloned().collect();
        Ok(Box::new(FakeVcpu { kernel, byte: Box::default(), exits, answered: true }))
    }
    fn configure_mmu(&self, flags: u64, table: u64) -> Result<()> {
        self.0.call("mmu", format!("{flags} {table:#x}"))
    }
    fn allocate_htab(&self, order: u32) -> Result<()> {
        self.0.call("htab", order.to_string())
    }
    fn cpu_char(&self) -> Result<kvm_ppc_cpu_char> {
        Ok(kvm_ppc_cpu_char { character: 1, behaviour: 2, ..Default::default() })
    }
    fn set_irq_line(&self, irq: u32, level: bool) -> Result<()> {
        self.0.call("line", format!("{irq:#x} {level}"))
    }
    fn define_rtas_token(&self, name: &str, token: u32) -> Result<()> {
        self.0.call("token", format!("{name} {token}"))
    }
    fn create_device(&self, kind: u32) -> Result<Arc<dyn DeviceFile>> {
        self.0.call("create_device", kind.to_string())?;
        Ok(Arc::new(FakeDevice(self.0.clone())))
    }
    fn has_device(&self, _: u32) -> bool {
        true
    }
}

struct FakeDevice(Arc<Kernel>);
struct FakePages(Arc<Kernel>);

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
        if self.byte.load(SeqCst) != 0 {
            self.answered = true;
            return Ok(Exit::Interrupted);
        }
        assert!(self.answered, "guest code goes on without an answer");
        self.kernel.call("run", String::new())?;
        if let Some(exit) = self.exits.pop_front() {
            self.answered = !matches!(exit, Exit::Hypercall { .. } | Exit::Mmio { write: false, .. });
            return Ok(exit);
        }
        while self.byte.load(SeqCst) == 0 {
            std::thread::yield_now();
        }
        Ok(Exit::Interrupted)
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
        self.byte.as_ptr()
    }
    fn enable(&self, capability: u32, args: [u64; 4]) -> Result<()> {
        self.kernel.call("enable", format!("{capability} {} {}", args[0], args[1]))
    }
    fn regs(&self) -> Result<kvm_regs> {
        Ok(*self.kernel.regs.lock())
    }
    fn set_regs(&self, regs: &kvm_regs) -> Result<()> {
        self.kernel.call("set_regs", String::new())?;
        *self.kernel.regs.lock() = *regs;
        Ok(())
    }
    fn sregs(&self) -> Result<Box<kvm_sregs>> {
        Ok(Box::new(kvm_sregs { pvr: self.kernel.pvr.unwrap_or(POWER10.pvr), ..kvm_sregs::default() }))
    }
    fn set_sregs(&self, _: &kvm_sregs) -> Result<()> {
        Ok(())
    }
    fn reg(&self, _: u64) -> Result<u128> {
        Ok(0)
    }
    fn set_reg(&self, id: u64, value: u128) -> Result<()> {
        if id == abi::KVM_REG_PPC_ICP_STATE {
            return self.kernel.call("icp", format!("{value:#x}"));
        }
        Ok(())
    }
    fn interrupt(&self, level: bool) -> Result<()> {
        self.kernel.call("interrupt", level.to_string())
    }
    fn set_guest_debug(&self, _: bool) -> Result<()> {
        Ok(())
    }
}

/// 0x300 needs registers only, 0x31c all of the state.
struct Board;
impl PpcHooks for Board {
    fn hcall(&self, cpu: &mut PpcCpu) -> bool {
        match cpu.gpr[3] {
            0x300 => (cpu.gpr[3], cpu.gpr[4]) = (0, cpu.gpr[4] + 1),
            0x31c => {
                assert_eq!(cpu.gpr[1], 0xabc, "the state is there");
                (cpu.gpr[3], cpu.gpr[14]) = (0, 0xdef);
            }
            _ => cpu.gpr[3] = -2i64 as u64,
        }
        true
    }
    fn hcall_keeps_state(&self, number: u64) -> bool {
        number == 0x300
    }
}

struct Machine {
    kernel: Arc<Kernel>,
    vm: Arc<KvmVm>,
    vcpu: Option<Arc<dyn rhea_accel::GuestVcpu<PpcCpu>>>,
    requests: crossbeam_channel::Receiver<VmRequest>,
    _map: Mapping,
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(vcpu) = &self.vcpu {
            vcpu.stop();
        }
    }
}

fn start(kernel: Kernel) -> std::result::Result<Machine, String> {
    let kernel = Arc::new(kernel);
    let space = AddressSpace::new("guest");
    let ram = RamBlock::anonymous("ram", 1 << 20).unwrap();
    let map = space.map_ram(Gpa(0), &ram, 0, 1 << 20, 0).unwrap();
    let (control, requests) = VmControl::new();
    let hooks = Arc::new(Board);
    let setup =
        Setup { space: space.clone(), hooks: hooks.clone(), control, threads: 1, dawr1: false, rpt_invalidate: false };
    let vm = KvmVm::new(&Fake(kernel.clone()), setup).map_err(|e| e.to_string())?;
    let mut cpu = PpcCpu::new(0, &Arc::new(POWER10.config()), &space, &VirtualClock::new(), hooks);
    cpu.start_at(0x100, 0, false);
    cpu.gpr[1] = 0xabc;
    let vcpu = vm.clone().add_vcpu(0, cpu).map_err(|e| e.to_string())?;
    Ok(Machine { kernel, vm, vcpu: Some(vcpu), requests, _map: map })
}

fn until(what: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !what() {
        assert!(Instant::now() < end, "it does not happen");
        std::thread::yield_now();
    }
}

fn run(m: &Machine) {
    let vcpu: &dyn Vcpu = &**m.vcpu.as_ref().unwrap();
    vcpu.start().unwrap();
    vcpu.resume();
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
    let m = start(Kernel { exits, ..Kernel::default() }).unwrap();
    run(&m);
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

#[test]
fn interrupts_from_outside() {
    let m = start(Kernel::default()).unwrap();
    run(&m);
    let waker = m.vcpu.as_ref().unwrap().waker();
    let (send, pins) = crossbeam_channel::bounded(1);
    m.vcpu.as_ref().unwrap().post(Box::new(move |cpu| send.send(cpu.pins()).unwrap()));
    let pins = pins.recv().unwrap();
    let told = |level: bool| m.kernel.calls.lock().iter().any(|c| *c == format!("interrupt {level}"));
    pins.set_external(true);
    waker();
    until(|| told(true));
    pins.set_external(false);
    waker();
    until(|| told(false));
}

#[test]
fn controllers_come_and_go() {
    let m = start(Kernel::default()).unwrap();
    let chips = m.vm.irqchip(Places { tima: 0x6_0000_0000, esb: 0x7_0000_0000, sources: 0x2000 }).unwrap();
    m.vm.set_rtas_tokens(&[("ibm,set-xive".to_owned(), 5), ("display-character".to_owned(), 6)]);
    run(&m);
    until(|| m.kernel.calls.lock().iter().any(|c| c == "run"));
    m.kernel.take();
    assert!(chips.open(Mode::Xics, &[(0x1000, false), (0x1200, true)]));
    let connected = format!("enable {} 77 0", abi::KVM_CAP_IRQ_XICS);
    until(|| m.kernel.calls.lock().contains(&connected));
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
    until(|| m.kernel.calls.lock().iter().any(|c| c == "icp 0xffff0000"));
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

#[test]
fn translation() {
    let m = start(Kernel::default()).unwrap();
    m.kernel.take();
    *m.kernel.fail.lock() = Some(("htab", 3, libc::EBUSY));
    m.vm.set_hash(24).unwrap();
    m.vm.set_radix(0x1234_000c, true).unwrap();
    let calls = m.kernel.take();
    assert_eq!(calls, ["htab 24", "htab 24", "htab 24", "htab 24", "mmu 3 0x800000001234000c"]);
    *m.kernel.fail.lock() = Some(("mmu", 1, 22));
    assert!(matches!(m.vm.set_radix(0, false), Err(KvmError::Call { .. })));
}

#[test]
fn refusals_are_lines() {
    let absent = |capability| check(&Fake(Arc::new(Kernel { absent: vec![capability], ..Kernel::default() })));
    for capability in [3, abi::KVM_CAP_IMMEDIATE_EXIT, abi::KVM_CAP_PPC_PAPR, abi::KVM_CAP_PPC_ENABLE_HCALL] {
        assert!(matches!(absent(capability), Err(KvmError::TooOld(_))), "{capability}");
    }
    let refuses = |call, errno| start(Kernel { fail: Mutex::new(Some((call, 1, errno))), ..Kernel::default() }).err();
    assert!(refuses("create_vm", 22).unwrap().contains("kvm-hv"));
    assert!(refuses("create_vcpu", 12).unwrap().contains("KVM_CREATE_VCPU"));
    assert!(refuses("enable", 22).unwrap().contains("KVM_CAP_PPC_PAPR"));
    let other = start(Kernel { pvr: Some(0x004e_1202), ..Kernel::default() }).err().unwrap();
    assert!(other.contains("not of the guest's") && other.lines().count() == 1, "{other}");
    // While it runs: the machine's control is told once, and nobody waits for ever.
    for (kernel, says) in [
        (Kernel { fail: Mutex::new(Some(("run", 1, 14))), ..Kernel::default() }, "KVM_RUN"),
        (Kernel { exits: vec![Exit::EntryFailed { reason: 5 }], ..Kernel::default() }, "reason 0x5"),
        (Kernel { exits: vec![Exit::InternalError { suberror: 1 }], ..Kernel::default() }, "internal error 1"),
        (Kernel { exits: vec![Exit::Other(99)], ..Kernel::default() }, "unknown exit 99"),
        (Kernel { exits: vec![Exit::SystemEvent(9)], ..Kernel::default() }, "system event 9"),
    ] {
        let m = start(kernel).unwrap();
        run(&m);
        match m.requests.recv_timeout(Duration::from_secs(20)) {
            Ok(VmRequest::GuestPanic(text)) => assert!(text.contains(says) && text.lines().count() == 1, "{text}"),
            other => panic!("{says}: {other:?}"),
        }
    }
    let exits = vec![Exit::SystemEvent(abi::KVM_SYSTEM_EVENT_RESET)];
    let m = start(Kernel { exits, ..Kernel::default() }).unwrap();
    run(&m);
    assert!(matches!(m.requests.recv_timeout(Duration::from_secs(20)), Ok(VmRequest::Reset(_))));
}
