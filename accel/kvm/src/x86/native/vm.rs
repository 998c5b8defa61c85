//! A machine's VM.

use super::super::{Irqchip, Setup, X86Chips, X86Vm};
use super::chips::{KernelChips, MSI_GSI};
use super::cpuid;
use super::registers::Abilities;
use super::sys::{System, VcpuFile, VmFile};
use super::vcpu::Inner;
use crate::Counts;
use crate::error::{Context, KvmError};
use crate::held::Held;
use crate::parts::Parts;
use crate::rings::PAGE_ENTRY;
use crate::sys::{API_VERSION, AnyVm, cap};
use crate::vcpu::{KvmVcpu, Work};
use kvm_bindings as kb;
use kvm_bindings::{kvm_clock_data, kvm_cpuid_entry2};
use parking_lot::RwLock;
use rhea_accel::{Accelerator, GuestAccelerator, GuestVcpu, IrqFd, Services, Vcpu, VcpuError, VmControl};
use rhea_memory::{AddressSpace, Subscription, WriteHolder};
use rhea_x86::{Feature, X86Config, X86Cpu, X86Hooks};
use std::sync::Arc;

/// Pages that the kernel may need for itself on processors that cannot run real mode: three of a task, one of a page table. In
/// the hole below the local APICs' firmware, where nothing else is.
const TASK_PAGES: u64 = 0xfeff_d000;
const IDENTITY_PAGE: u64 = 0xfeff_c000;

/// The kernel tells of registers that it does not know (bit 1 of `KVM_CAP_X86_USER_SPACE_MSR`).
const UNKNOWN_MSRS: u64 = 1 << 1;

/// What every VM needs of the kernel.
const NEEDED: &[(u32, &str)] = &[
    (kb::KVM_CAP_USER_MEMORY, "memory of user space"),
    (kb::KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT (Linux 4.11)"),
    (kb::KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"),
    (kb::KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS"),
    (kb::KVM_CAP_XSAVE, "KVM_CAP_XSAVE"),
    (kb::KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"),
    (kb::KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"),
    (kb::KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"),
];
/// What controllers in the kernel need besides.
const NEEDED_BY_CHIPS: &[(u32, &str)] = &[
    (kb::KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"),
    (kb::KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING"),
    (kb::KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI"),
];

/// What local APICs alone need besides.
const NEEDED_BY_SPLIT: &[(u32, &str)] = &[
    (kb::KVM_CAP_SPLIT_IRQCHIP, "KVM_CAP_SPLIT_IRQCHIP (Linux 4.4)"),
    (kb::KVM_CAP_X2APIC_API, "KVM_CAP_X2APIC_API (Linux 4.8)"),
];

/// What software-protected VMs need besides: capabilities and the bits that are wanted of their values.
const NEEDED_BY_PRIVATE: &[(u32, i32, &str)] = &[
    (
        kb::KVM_CAP_VM_TYPES,
        1 << kb::KVM_X86_SW_PROTECTED_VM,
        "a type of VM for it (Linux 6.8 with CONFIG_KVM_SW_PROTECTED_VM, on a processor with nested paging)",
    ),
    (cap::GUEST_MEMFD, 1, "KVM_CAP_GUEST_MEMFD"),
    (cap::MEMORY_ATTRIBUTES, kb::KVM_MEMORY_ATTRIBUTE_PRIVATE as i32, "KVM_CAP_MEMORY_ATTRIBUTES"),
    (cap::USER_MEMORY2, 1, "KVM_CAP_USER_MEMORY2"),
    (cap::MEMORY_FAULT_INFO, 1, "KVM_CAP_MEMORY_FAULT_INFO"),
    (kb::KVM_CAP_EXIT_HYPERCALL, 1 << HC_MAP_GPA_RANGE, "exits by KVM_HC_MAP_GPA_RANGE"),
];
/// The hypercall by which a guest tells which memory is whose (Linux, Documentation/virt/kvm/x86/hypercalls.rst).
pub(super) const HC_MAP_GPA_RANGE: u64 = 12;

/// Can a guest have memory for itself?
///
/// # Errors
/// [`KvmError::Refused`] that says what is missing.
fn check_private(system: &dyn System) -> Result<(), KvmError> {
    // Some say only that they are there.
    match NEEDED_BY_PRIVATE.iter().find(|(capability, bits, _)| system.check(*capability) & bits == 0) {
        Some((.., name)) => Err(KvmError::Refused(format!("sw-protected-vm: this host's kernel lacks {name}"))),
        None => Ok(()),
    }
}

/// Has the kernel all that is needed?
///
/// # Errors
/// [`KvmError::TooOld`].
pub fn check(system: &dyn System, irqchip: Irqchip) -> Result<(), KvmError> {
    if system.api_version() != API_VERSION {
        return Err(KvmError::TooOld("version 12 of its interface"));
    }
    let (chips, split) = match irqchip {
        Irqchip::Kernel => (NEEDED_BY_CHIPS, &[][..]),
        Irqchip::Split => (NEEDED_BY_CHIPS, NEEDED_BY_SPLIT),
        Irqchip::Machine => (&[][..], &[][..]),
    };
    match NEEDED.iter().chain(chips).chain(split).find(|(capability, _)| system.check(*capability) == 0) {
        Some((_, name)) => Err(KvmError::TooOld(name)),
        None => Ok(()),
    }
}

/// Creates a VM; the kernel refuses a second hypervisor by EBUSY.
pub fn create(system: &dyn System, kind: u32) -> Result<Arc<dyn VmFile>, KvmError> {
    system.create_vm(kind).map_err(|source| match source.raw_os_error() {
        Some(libc::EBUSY) => KvmError::Busy,
        _ => KvmError::Call { call: "KVM_CREATE_VM", source },
    })
}

/// What vCPUs need of the VM; lives as long as any of them.
pub(super) struct Core {
    pub file: Arc<dyn VmFile>,
    pub parts: Parts<kvm_clock_data>,
    pub space: Arc<AddressSpace>,
    pub hooks: Arc<dyn X86Hooks>,
    pub control: VmControl,
    pub can: Abilities,
    pub virtual_wire: bool,
    /// Writes to devices that the kernel keeps for a while.
    pub held: Arc<Held>,
}

/// The VM of one machine.
pub struct KvmVm {
    core: Arc<Core>,
    supported: Vec<kvm_cpuid_entry2>,
    tsc_deadline: bool,
    tsc_frequency: Option<u64>,
    /// The guest can make memory its own.
    private: bool,
    chips: Option<Arc<KernelChips>>,
    /// Where in what a vCPU shares the ring of held writes is, in pages; 0: the kernel has none.
    held_page: u32,
    /// Entries of the rings of pages that were written to.
    dirty_ring: u32,
    vcpus: RwLock<Vec<Arc<KvmVcpu<Inner>>>>,
    _follow: Subscription,
}

impl KvmVm {
    /// # Errors
    /// [`KvmError`].
    pub fn new(system: &dyn System, setup: Setup) -> Result<Arc<Self>, KvmError> {
        let Setup { irqchip, space, hooks, control, virtual_wire, tsc_frequency, dirty_ring, private } = setup;
        check(system, irqchip)?;
        let supported = cpuid::supported(system)?;
        if private.is_some() {
            check_private(system)?;
        }
        let file = create(system, if private.is_some() { kb::KVM_X86_SW_PROTECTED_VM } else { 0 })?;
        file.set_identity_map(IDENTITY_PAGE).during("KVM_SET_IDENTITY_MAP_ADDR")?;
        file.set_tss_address(TASK_PAGES).during("KVM_SET_TSS_ADDR")?;
        let chips = match irqchip {
            Irqchip::Kernel | Irqchip::Split => Some(KernelChips::new(&file, irqchip == Irqchip::Split)?),
            Irqchip::Machine => None,
        };
        // Registers that the kernel does not know are the model's business. Kernels before 5.10 answer with #GP themselves.
        if file.check(kb::KVM_CAP_X86_USER_SPACE_MSR) > 0 {
            file.enable(kb::KVM_CAP_X86_USER_SPACE_MSR, [UNKNOWN_MSRS, 0, 0, 0])
                .during("KVM_CAP_X86_USER_SPACE_MSR")?;
        }
        if private.is_some() {
            file.enable(kb::KVM_CAP_EXIT_HYPERCALL, [1 << HC_MAP_GPA_RANGE, 0, 0, 0])
                .during("KVM_CAP_EXIT_HYPERCALL")?;
        }
        let dirty_ring = use_rings(&*file, dirty_ring)?;
        let side = space.secure_side();
        let smm =
            file.check(kb::KVM_CAP_X86_SMM) > 0 && (side.is_none() || file.check(kb::KVM_CAP_MULTI_ADDRESS_SPACE) > 1);
        let can = Abilities {
            kernel_apic: chips.is_some(),
            kernel_pic: irqchip == Irqchip::Kernel,
            smm,
            nested: None,
            tiles: false,
            xcrs: file.check(kb::KVM_CAP_XCRS) > 0,
            pkru: cpuid::pkru_offset(&supported),
        };
        let any: Arc<dyn AnyVm> = file.clone();
        let spaces: Vec<_> = std::iter::once(space.clone()).chain(side.filter(|_| smm)).collect();
        let parts = Parts::new(any.clone(), &spaces, private.as_ref(), &control)?;
        let tsc_deadline = file.check(kb::KVM_CAP_TSC_DEADLINE_TIMER) > 0;
        let held_page = u32::try_from(file.check(cap::COALESCED_MMIO)).unwrap_or(0);
        let (held, follow) = Held::new(&any, &space);
        let core = Core { file, parts, space, hooks, control, can, virtual_wire, held };
        Ok(Arc::new(Self {
            core: Arc::new(core),
            supported,
            tsc_deadline,
            tsc_frequency,
            private: private.is_some(),
            chips,
            held_page,
            dirty_ring,
            vcpus: RwLock::default(),
            _follow: follow,
        }))
    }

    /// The interrupt controllers in the kernel, if local APICs at least are there.
    #[must_use]
    pub fn kernel_chips(&self) -> Option<&Arc<KernelChips>> {
        self.chips.as_ref()
    }
}

impl X86Vm for KvmVm {
    fn restrict(&self, config: &mut X86Config) -> Vec<Feature> {
        cpuid::restrict(config, &self.supported, self.core.can.kernel_apic, self.tsc_deadline)
    }
    fn chips(&self) -> Option<Arc<dyn X86Chips>> {
        self.chips.clone().map(|c| c as _)
    }
    fn smm(&self) -> bool {
        self.core.can.smm
    }
    fn counts(&self) -> Counts {
        Counts { held: self.core.held.count(), ..self.core.parts.counts(&self.vcpus.read()) }
    }
    fn reset_chips(&self) -> Result<(), KvmError> {
        let Some(chips) = &self.chips else { return Ok(()) };
        for vcpu in self.vcpus.read().iter() {
            vcpu.push(Work::Own(Box::new(Inner::reset_lapic)));
        }
        chips.reset()
    }
    fn reset_memory(&self) -> Result<(), KvmError> {
        self.core.parts.slots.share_all()
    }
}

impl Core {
    // ---- the guest's clock stands while the machine does ----

    pub fn vcpu_resumed(&self) {
        self.parts.resumed(|clock| {
            let clock = kvm_clock_data { clock: clock.clock, ..Default::default() };
            self.file.set_clock(&clock).during("KVM_SET_CLOCK")
        });
    }
    pub fn vcpu_paused(&self) {
        if self.parts.paused(|| self.file.clock().ok()) {
            self.held.settle();
        }
    }
}

impl Accelerator for KvmVm {
    fn name(&self) -> &'static str {
        "kvm"
    }
    fn services(&self) -> Services {
        let chips = self.chips.as_ref().filter(|chips| chips.has_irqfd());
        self.core.parts.services(chips.map(|chips| chips.clone() as Arc<dyn IrqFd>))
    }
    fn vcpus(&self) -> Vec<Arc<dyn Vcpu>> {
        self.vcpus.read().iter().map(|v| v.clone() as Arc<dyn Vcpu>).collect()
    }
    fn flush(&self) {}
}

impl GuestAccelerator<X86Cpu> for KvmVm {
    fn add_vcpu(self: Arc<Self>, index: u32, guest: Box<X86Cpu>) -> Result<Arc<dyn GuestVcpu<X86Cpu>>, VcpuError> {
        let fail = |e: KvmError| VcpuError::Model { index, message: e.to_string() };
        let id = guest.apic_id;
        let most = self.core.file.check(kb::KVM_CAP_MAX_VCPU_ID);
        if most > 0 && id >= most as u32 {
            return Err(fail(KvmError::Refused(format!("its APIC id {id} is beyond the {most} of this kernel"))));
        }
        let file = self.core.file.create_vcpu(id).during("KVM_CREATE_VCPU").map_err(fail)?;
        if let Some(hz) = self.tsc_frequency {
            set_tsc_frequency(&*file, hz, self.core.file.check(kb::KVM_CAP_TSC_CONTROL) > 0).map_err(fail)?;
        }
        let table = cpuid::table(&guest.config, &self.supported, id, self.private);
        file.set_cpuid(&table).during("KVM_SET_CPUID2").map_err(fail)?;
        if self.held_page != 0 {
            self.core.held.begin(file.write_ring(self.held_page));
        }
        if self.dirty_ring != 0 {
            let ring = file.page_ring(self.dirty_ring).during("the ring of dirty pages").map_err(fail)?;
            self.core.parts.slots.add_ring(ring);
        }
        let vcpu = KvmVcpu::new(index, Inner::new(&self.core, index, guest, file).map_err(fail)?);
        self.core.parts.gate.add(vcpu.kick_handle());
        self.vcpus.write().push(vcpu.clone());
        Ok(vcpu)
    }
}

/// Has the kernel put pages that were written to into rings, if that is `wanted`: how many entries they have. Kernels without rings have
/// bitmaps.
fn use_rings(file: &dyn VmFile, wanted: u32) -> Result<u32, KvmError> {
    if wanted == 0 {
        return Ok(0);
    }
    let Some(kind) = [cap::DIRTY_LOG_RING_ACQ_REL, cap::DIRTY_LOG_RING].into_iter().find(|c| file.check(*c) > 0) else {
        eprintln!(
            "rhea: warning: -accel kvm: dirty-ring-size: this kernel has no rings of dirty pages: it uses bitmaps"
        );
        return Ok(0);
    };
    let most = file.check(kind) as usize / PAGE_ENTRY;
    let refused = |text: String| KvmError::Refused(format!("dirty-ring-size={wanted}: {text}"));
    if wanted as usize > most {
        return Err(refused(format!("this kernel's rings have at most {most} entries")));
    }
    let len = wanted as usize * PAGE_ENTRY;
    file.enable(kind, [len as u64, 0, 0, 0]).map_err(|source| match source.raw_os_error() {
        Some(libc::EINVAL) => refused("this kernel wants another size".to_owned()),
        _ => KvmError::Call { call: "KVM_CAP_DIRTY_LOG_RING", source },
    })?;
    Ok(wanted)
}

/// Gives a vCPU's counter a frequency. One that the host's has is there without scaling; both are measured, so one in 4000 is no
/// difference.
fn set_tsc_frequency(file: &dyn VcpuFile, hz: u64, scales: bool) -> Result<(), KvmError> {
    let khz = u32::try_from(hz / 1000).unwrap_or(u32::MAX);
    if scales && file.set_tsc_khz(khz).is_ok() {
        return Ok(());
    }
    let own = file.tsc_khz().during("KVM_GET_TSC_KHZ")?;
    if own.abs_diff(khz) <= own / 4000 {
        return Ok(());
    }
    Err(KvmError::Refused(format!("tsc-frequency={hz}: the counter has {own} kHz, which this host cannot scale so")))
}

const _: () = assert!(MSI_GSI < 4096);
