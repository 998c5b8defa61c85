//! A machine's VM.

use super::super::{ArmGic, ArmVm, Host, Setup};
use super::abi as kb;
use super::abi::kvm_vcpu_init;
use super::gic::KernelGic;
use super::registers::{read, system};
use super::sys::{System, VcpuFile, VmFile};
use super::vcpu::Inner;
use crate::Counts;
use crate::error::{Context, KvmError};
use crate::parts::Parts;
use crate::sys::API_VERSION;
use crate::vcpu::{KvmVcpu, Work};
use parking_lot::{Mutex, RwLock};
use rhea_accel::{Accelerator, GuestAccelerator, GuestVcpu, IrqFd, Services, Vcpu, VcpuError, VmControl};
use rhea_arm::{ArmConfig, ArmCpu, ArmHooks};
use rhea_memory::AddressSpace;
use std::sync::Arc;

/// What every VM needs of the kernel.
const NEEDED: &[(u32, &str)] = &[
    (kb::KVM_CAP_USER_MEMORY, "memory of user space"),
    (kb::KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT (Linux 4.11)"),
    (kb::KVM_CAP_ONE_REG, "KVM_CAP_ONE_REG"),
    (kb::KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"),
    (kb::KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"),
    (kb::KVM_CAP_DEVICE_CTRL, "KVM_CAP_DEVICE_CTRL"),
    (kb::KVM_CAP_ARM_PSCI_0_2, "KVM_CAP_ARM_PSCI_0_2"),
];

/// Bits of guest physical addresses where the kernel does not say how many there may be.
const USUAL_ADDRESS_BITS: u32 = 40;

/// Has the kernel all that is needed?
///
/// # Errors
/// [`KvmError::TooOld`].
pub fn check(system: &dyn System) -> Result<(), KvmError> {
    if system.api_version() != API_VERSION {
        return Err(KvmError::TooOld("version 12 of its interface"));
    }
    match NEEDED.iter().find(|(capability, _)| system.check(*capability) == 0) {
        Some((_, name)) => Err(KvmError::TooOld(name)),
        None => Ok(()),
    }
}

/// Is it there, complete, and not taken by another hypervisor? Where it is, the processor has the extensions.
///
/// # Errors
/// [`KvmError`] that says why not.
#[cfg(target_arch = "aarch64")]
pub fn usable(choice: crate::Choice) -> Result<(), KvmError> {
    let kvm = crate::DevKvm::open(crate::DEV_KVM)?;
    check(&kvm)?;
    if choice == crate::Choice::Last { Ok(()) } else { create(&kvm, 0).map(drop) }
}

/// Creates a VM; the kernel refuses a second hypervisor by EBUSY.
fn create(system: &dyn System, address_bits: u32) -> Result<Arc<dyn VmFile>, KvmError> {
    // Kernels without the capability know no other type.
    let bits = if system.check(kb::KVM_CAP_ARM_VM_IPA_SIZE) > 0 { address_bits } else { 0 };
    system.create_vm(bits).map_err(|source| match source.raw_os_error() {
        Some(libc::EBUSY) => KvmError::Busy,
        _ => KvmError::Call { call: "KVM_CREATE_VM", source },
    })
}

/// What the host can give.
///
/// # Errors
/// [`KvmError`].
pub fn host_of(system: &dyn System) -> Result<Host, KvmError> {
    check(system)?;
    let vm = create(system, 0)?;
    let mut init = vm.preferred_target().during("KVM_ARM_PREFERRED_TARGET")?;
    let has = |capability| vm.check(capability) > 0;
    let pauth = has(kb::KVM_CAP_ARM_PTRAUTH_ADDRESS) && has(kb::KVM_CAP_ARM_PTRAUTH_GENERIC);
    let pmu = has(kb::KVM_CAP_ARM_PMU_V3);
    init.features[0] = features(pmu, false, pauth);
    let vcpu = vm.create_vcpu(0).during("KVM_CREATE_VCPU")?;
    vcpu.init(&init).during("KVM_ARM_VCPU_INIT")?;
    let get = |op1, crn, crm, op2| read(&*vcpu, system_of(op1, crn, crm, op2)).map(|v| v as u64);
    let config = ArmConfig::host(get(0, 0, 0, 0)?, get(3, 0, 0, 1)?, get(0, 0, 7, 0)?, pmu);
    let bits = system.check(kb::KVM_CAP_ARM_VM_IPA_SIZE);
    Ok(Host {
        config,
        gicv2: vm.test_device(kb::kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V2).is_ok(),
        gicv3: vm.test_device(kb::kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3).is_ok(),
        sve: has(kb::KVM_CAP_ARM_SVE),
        pauth,
        address_bits: if bits > 0 { bits as u32 } else { USUAL_ADDRESS_BITS },
    })
}

/// An identification register.
const fn system_of(op1: u64, crn: u64, crm: u64, op2: u64) -> u64 {
    system(3, op1, crn, crm, op2)
}

/// What a processor is initialised with.
fn features(pmu: bool, sve: bool, pauth: bool) -> u32 {
    let mut all = 1 << kb::KVM_ARM_VCPU_PSCI_0_2;
    for (bit, on) in [
        (kb::KVM_ARM_VCPU_PMU_V3, pmu),
        (kb::KVM_ARM_VCPU_SVE, sve),
        (kb::KVM_ARM_VCPU_PTRAUTH_ADDRESS, pauth),
        (kb::KVM_ARM_VCPU_PTRAUTH_GENERIC, pauth),
    ] {
        all |= u32::from(on) << bit;
    }
    all
}

/// What vCPUs need of the VM; lives as long as any of them.
pub(super) struct Core {
    pub file: Arc<dyn VmFile>,
    /// The guest's clock is its virtual counter.
    pub parts: Parts<u64>,
    pub space: Arc<AddressSpace>,
    pub hooks: Arc<dyn ArmHooks>,
    pub control: VmControl,
    pub sve: bool,
    /// Breakpoints and watchpoints for debuggers.
    pub stops: (usize, usize),
}

/// The VM of one machine.
pub struct KvmVm {
    core: Arc<Core>,
    gic: Arc<KernelGic>,
    init: kvm_vcpu_init,
    pmu: Option<u32>,
    vcpus: RwLock<Vec<Arc<KvmVcpu<Inner>>>>,
    /// Of the processors so far.
    affinities: Mutex<Vec<u64>>,
}

impl KvmVm {
    /// # Errors
    /// [`KvmError`].
    pub fn new(system: &dyn System, setup: Setup) -> Result<Arc<Self>, KvmError> {
        let Setup { gic, spis, space, hooks, control, address_bits, pmu, sve, pauth } = setup;
        check(system)?;
        // The least that kernels accept.
        let file = create(system, address_bits.max(32))?;
        let mut init = file.preferred_target().during("KVM_ARM_PREFERRED_TARGET")?;
        init.features[0] = features(pmu.is_some(), sve, pauth);
        let gic = KernelGic::new(&file, &gic, spis)?;
        let parts = Parts::new(file.clone(), std::slice::from_ref(&space), None, &control)?;
        let stop = |capability| system.check(capability).max(0) as usize;
        let stops = (stop(kb::KVM_CAP_GUEST_DEBUG_HW_BPS), stop(kb::KVM_CAP_GUEST_DEBUG_HW_WPS));
        let core = Core { file, parts, space, hooks, control, sve, stops };
        let (core, vcpus, affinities) = (Arc::new(core), RwLock::default(), Mutex::default());
        Ok(Arc::new(Self { core, gic, init, pmu, vcpus, affinities }))
    }
}

impl ArmVm for KvmVm {
    fn gic(&self) -> Arc<dyn ArmGic> {
        self.gic.clone()
    }
    fn complete(&self) -> Result<(), KvmError> {
        self.gic.complete()?;
        if let Some(ppi) = self.pmu {
            for vcpu in self.vcpus.read().iter() {
                vcpu.push(Work::Own(Box::new(move |inner: &mut Inner, _| inner.start_pmu(ppi))));
            }
        }
        Ok(())
    }
    fn counts(&self) -> Counts {
        self.core.parts.counts(&self.vcpus.read())
    }
    fn reset_gic(&self) -> Result<(), KvmError> {
        self.gic.reset(&self.affinities.lock())
    }
}

impl Accelerator for KvmVm {
    fn name(&self) -> &'static str {
        "kvm"
    }
    fn services(&self) -> Services {
        self.core.parts.services(self.gic.has_irqfd().then(|| self.gic.clone() as Arc<dyn IrqFd>))
    }
    fn vcpus(&self) -> Vec<Arc<dyn Vcpu>> {
        self.vcpus.read().iter().map(|v| v.clone() as Arc<dyn Vcpu>).collect()
    }
    fn flush(&self) {}
}

impl GuestAccelerator<ArmCpu> for KvmVm {
    fn add_vcpu(self: Arc<Self>, index: u32, guest: Box<ArmCpu>) -> Result<Arc<dyn GuestVcpu<ArmCpu>>, VcpuError> {
        let fail = |e: KvmError| VcpuError::Model { index, message: e.to_string() };
        let most = self.core.file.check(kb::KVM_CAP_MAX_VCPUS);
        if most > 0 && index >= most as u32 {
            return Err(fail(KvmError::Refused(format!("this kernel runs at most {most}"))));
        }
        let file: Box<dyn VcpuFile> = self.core.file.create_vcpu(index).during("KVM_CREATE_VCPU").map_err(fail)?;
        let inner = Inner::new(&self.core, index, guest, file, self.init).map_err(fail)?;
        self.affinities.lock().push(inner.affinity().map_err(fail)?);
        let vcpu = KvmVcpu::new(index, inner);
        self.core.parts.gate.add(vcpu.kick_handle());
        self.vcpus.write().push(vcpu.clone());
        Ok(vcpu)
    }
}
