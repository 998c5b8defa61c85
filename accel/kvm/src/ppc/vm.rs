//! A machine's VM.

use super::abi;
use super::chips::{KernelChips, Places};
use super::sys::{System, VmFile};
use super::vcpu::Inner;
use super::{Host, PpcVm, Setup};
use crate::assigned::Assigned;
use crate::doorbells::Doorbells;
use crate::error::{Context, KvmError};
use crate::kick::Gate;
use crate::memory::Slots;
use crate::sys::{AnyVm, IoEvent, cap};
use crate::{Counts, KvmVcpu};
use parking_lot::{Mutex, RwLock};
use rhea_accel::spapr::KernelIrqchip;
use rhea_accel::{Accelerator, GuestAccelerator, GuestVcpu, IoEventFd, IrqFd, Services, Vcpu, VcpuError, VmControl};
use rhea_memory::{AddressSpace, Gpa, Subscription};
use rhea_ppc::{PpcCpu, PpcHooks};
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

/// What every VM needs of the kernel.
const NEEDED: &[(u32, &str)] = &[
    (abi::KVM_CAP_USER_MEMORY, "memory of user space"),
    (abi::KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT (Linux 4.11)"),
    (abi::KVM_CAP_ONE_REG, "KVM_CAP_ONE_REG"),
    (abi::KVM_CAP_ENABLE_CAP, "KVM_CAP_ENABLE_CAP"),
    (abi::KVM_CAP_ENABLE_CAP_VM, "KVM_CAP_ENABLE_CAP_VM"),
    (abi::KVM_CAP_PPC_PAPR, "KVM_CAP_PPC_PAPR"),
    (abi::KVM_CAP_PPC_UNSET_IRQ, "KVM_CAP_PPC_UNSET_IRQ"),
    (abi::KVM_CAP_PPC_IRQ_LEVEL, "KVM_CAP_PPC_IRQ_LEVEL"),
    (abi::KVM_CAP_PPC_ENABLE_HCALL, "KVM_CAP_PPC_ENABLE_HCALL"),
];

/// Hypercalls that the kernel carries out when it is told to (LoPAPR table 14.1): H_CLEAR_MOD, H_CLEAR_REF, H_PAGE_INIT,
/// H_LOGICAL_CI_LOAD, H_LOGICAL_CI_STORE, H_SET_MODE. What it does not know of them comes here all the same.
const ENABLED: &[u64] = &[0x10, 0x14, 0x2c, 0x3c, 0x40, 0x31c];

/// Guest radix: of the second doubleword of a partition's entry (Book III, 6.7.6).
const PATE_GR: u64 = 1 << 63;

/// How often a new page table is asked for while vCPUs leave guest code.
const TRIES: u32 = 1000;

/// Has the kernel all that is needed?
///
/// # Errors
/// [`KvmError::TooOld`].
pub fn check(system: &dyn System) -> Result<(), KvmError> {
    if system.api_version() != crate::sys::API_VERSION {
        return Err(KvmError::TooOld("version 12 of its interface"));
    }
    match NEEDED.iter().find(|(capability, _)| system.check(*capability) == 0) {
        Some((_, name)) => Err(KvmError::TooOld(name)),
        None => Ok(()),
    }
}

/// Creates a VM.
fn make(system: &dyn System) -> Result<Arc<dyn VmFile>, KvmError> {
    system.create_vm().map_err(|source| match source.kind() {
        ErrorKind::InvalidInput => {
            KvmError::Refused("the kernel has no KVM of the hypervisor's kind (module kvm-hv)".to_owned())
        }
        _ => KvmError::Call { call: "KVM_CREATE_VM", source },
    })
}

/// What the host's processors are, by a VM that is given up again.
///
/// # Errors
/// [`KvmError`].
pub fn host(system: &dyn System) -> Result<Host, KvmError> {
    check(system)?;
    let vm = make(system)?;
    let vcpu = vm.create_vcpu(0).during("KVM_CREATE_VCPU")?;
    let pvr = vcpu.sregs().during("KVM_GET_SREGS")?.pvr;
    let has = |capability: u32| vm.check(capability) > 0;
    Ok(Host {
        pvr,
        radix: has(abi::KVM_CAP_PPC_MMU_RADIX),
        // Before architecture 3.0 there is nothing else.
        hash: !has(abi::KVM_CAP_PPC_MMU_RADIX) || has(abi::KVM_CAP_PPC_MMU_HASH_V3),
        dawr1: has(abi::KVM_CAP_PPC_DAWR1),
        rpt_invalidate: has(abi::KVM_CAP_PPC_RPT_INVALIDATE),
        ail_mode_3: has(abi::KVM_CAP_PPC_AIL_MODE_3),
        characteristics: vm.cpu_char().ok().map(|c| (c.character, c.behaviour)),
    })
}

/// What vCPUs need of the VM; lives as long as any of them.
pub(super) struct Core {
    pub file: Arc<dyn VmFile>,
    pub gate: Arc<Gate>,
    pub space: Arc<AddressSpace>,
    pub hooks: Arc<dyn PpcHooks>,
    pub control: VmControl,
    /// The interrupt controller in use is in the kernel.
    in_kernel: AtomicBool,
    slots: Arc<Slots>,
    /// `None`: writes to them end guest code.
    doorbells: Option<Doorbells>,
    /// How many vCPUs are not paused.
    running: Mutex<u32>,
}

/// The vCPUs of a VM, by index.
pub(super) type Vcpus = Arc<RwLock<Vec<Arc<KvmVcpu<Inner>>>>>;

/// The VM of one machine.
pub struct KvmVm {
    core: Arc<Core>,
    ioeventfd: bool,
    assigned: Arc<Assigned>,
    vcpus: Vcpus,
    chips: OnceLock<Arc<KernelChips>>,
    _follow: Vec<Subscription>,
}

impl KvmVm {
    /// # Errors
    /// [`KvmError`].
    pub fn new(system: &dyn System, setup: Setup) -> Result<Arc<Self>, KvmError> {
        let Setup { space, hooks, control, threads, dawr1, rpt_invalidate } = setup;
        check(system)?;
        let file = make(system)?;
        // Numbers of vCPUs are those of interrupt servers: threads of a core one after the other.
        if file.check(abi::KVM_CAP_PPC_SMT) != threads as i32
            && file.enable(abi::KVM_CAP_PPC_SMT, [threads.into(), 0, 0, 0]).is_err()
        {
            let text = format!("the kernel cannot give cores {threads} thread(s): use another -smp threads=");
            return Err(KvmError::Refused(text));
        }
        for number in ENABLED {
            // One that it does not know comes here.
            let _ = file.enable(abi::KVM_CAP_PPC_ENABLE_HCALL, [*number, 1, 0, 0]);
        }
        if dawr1 {
            file.enable(abi::KVM_CAP_PPC_DAWR1, [0; 4]).during("KVM_CAP_PPC_DAWR1")?;
        }
        if rpt_invalidate {
            file.enable(abi::KVM_CAP_PPC_RPT_INVALIDATE, [0; 4]).during("KVM_CAP_PPC_RPT_INVALIDATE")?;
        }
        let gate = Arc::new(Gate::default());
        let panic = control.clone();
        let failed = move |e: &KvmError| panic.guest_panic(&format!("KVM: {e}"));
        let any: Arc<dyn AnyVm> = file.clone();
        let (slots, follow) = Slots::new(&any, &gate, std::slice::from_ref(&space), None, Box::new(failed))?;
        let ioeventfd = file.check(cap::IOEVENTFD) > 0;
        let doorbells = if ioeventfd { Doorbells::new(&any, &space).ok() } else { None };
        let in_kernel = AtomicBool::new(false);
        let core = Core { file, gate, space, hooks, control, in_kernel, slots, doorbells, running: Mutex::default() };
        Ok(Arc::new(Self {
            core: Arc::new(core),
            ioeventfd,
            assigned: Assigned::new(any),
            vcpus: Arc::default(),
            chips: OnceLock::new(),
            _follow: follow,
        }))
    }
}

impl Core {
    /// Is the interrupt controller in use in the kernel?
    pub fn kernel_irqchip(&self) -> bool {
        self.in_kernel.load(SeqCst)
    }
    pub fn set_kernel_irqchip(&self, on: bool) {
        self.in_kernel.store(on, SeqCst);
    }
    pub fn vcpu_resumed(&self) {
        *self.running.lock() += 1;
    }
    pub fn vcpu_paused(&self) {
        let last = {
            let mut running = self.running.lock();
            *running = running.saturating_sub(1);
            *running == 0
        };
        // What the guest has rung is done before the machine stands.
        if let (true, Some(doorbells)) = (last, &self.doorbells) {
            doorbells.settle();
        }
    }
}

impl PpcVm for KvmVm {
    fn counts(&self) -> Counts {
        crate::vcpu::counts(&self.core.slots, self.core.doorbells.as_ref(), &self.vcpus.read())
    }
    fn irqchip(&self, places: Places) -> Option<Arc<dyn KernelIrqchip>> {
        let chips = KernelChips::new(&self.core, &self.vcpus, places)?;
        Some(self.chips.get_or_init(|| chips).clone())
    }
    fn kernel_irqchip(&self) -> bool {
        self.core.kernel_irqchip()
    }
    fn set_rtas_tokens(&self, tokens: &[(String, u32)]) {
        if let Some(chips) = self.chips.get() {
            chips.set_tokens(tokens);
        }
    }
    fn set_hash(&self, order: u32) -> Result<(), KvmError> {
        self.core.gate.exclusively(|| {
            let mut result = self.core.file.allocate_htab(order);
            for _ in 0..TRIES {
                if !result.as_ref().is_err_and(|e| e.kind() == ErrorKind::ResourceBusy) {
                    break;
                }
                std::thread::yield_now();
                result = self.core.file.allocate_htab(order);
            }
            result.during("KVM_PPC_ALLOCATE_HTAB")
        })
    }
    fn set_radix(&self, process_table: u64, gtse: bool) -> Result<(), KvmError> {
        let flags = abi::KVM_PPC_MMUV3_RADIX | if gtse { abi::KVM_PPC_MMUV3_GTSE } else { 0 };
        self.core.gate.exclusively(|| {
            self.core.file.configure_mmu(flags, process_table | PATE_GR).during("KVM_PPC_CONFIGURE_V3_MMU")
        })
    }
}

impl Accelerator for KvmVm {
    fn name(&self) -> &'static str {
        "kvm"
    }
    fn services(&self) -> Services {
        let ioeventfd = self.ioeventfd.then(|| Arc::new(IoEvents(self.core.file.clone())) as Arc<dyn IoEventFd>);
        let irqfd = self.core.file.check(cap::IRQFD) > 0;
        let irqfd = self.chips.get().filter(|_| irqfd).map(|chips| chips.clone() as Arc<dyn IrqFd>);
        Services { irqfd, ioeventfd, assigned: Some(self.assigned.clone()) }
    }
    fn vcpus(&self) -> Vec<Arc<dyn Vcpu>> {
        self.vcpus.read().iter().map(|v| v.clone() as Arc<dyn Vcpu>).collect()
    }
    fn flush(&self) {}
}

impl GuestAccelerator<PpcCpu> for KvmVm {
    fn add_vcpu(self: Arc<Self>, index: u32, guest: Box<PpcCpu>) -> Result<Arc<dyn GuestVcpu<PpcCpu>>, VcpuError> {
        let fail = |e: KvmError| VcpuError::Model { index, message: e.to_string() };
        let most = self.core.file.check(abi::KVM_CAP_MAX_VCPU_ID);
        if most > 0 && index >= most as u32 {
            return Err(fail(KvmError::Refused(format!("its number is beyond the {most} of this kernel"))));
        }
        let file = self.core.file.create_vcpu(index).during("KVM_CREATE_VCPU").map_err(fail)?;
        file.enable(abi::KVM_CAP_PPC_PAPR, [0; 4]).during("KVM_CAP_PPC_PAPR").map_err(fail)?;
        let vcpu = KvmVcpu::new(index, Inner::new(&self.core, index, guest, file).map_err(fail)?);
        self.core.gate.add(vcpu.kick_handle());
        self.vcpus.write().push(vcpu.clone());
        Ok(vcpu)
    }
}

/// Doorbells.
struct IoEvents(Arc<dyn VmFile>);

impl IoEvents {
    fn set(&self, gpa: Gpa, size: u8, data: Option<u64>, fd: BorrowedFd<'_>, attach: bool) -> std::io::Result<()> {
        let event = IoEvent { address: gpa.0, size, data, port: false, fd: fd.as_raw_fd() };
        self.0.ioeventfd(&event, attach)
    }
}

impl IoEventFd for IoEvents {
    fn attach(&self, gpa: Gpa, size: u8, data: Option<u64>, fd: BorrowedFd<'_>) -> std::io::Result<()> {
        self.set(gpa, size, data, fd, true)
    }
    fn detach(&self, gpa: Gpa, size: u8, data: Option<u64>, fd: BorrowedFd<'_>) -> std::io::Result<()> {
        self.set(gpa, size, data, fd, false)
    }
}
