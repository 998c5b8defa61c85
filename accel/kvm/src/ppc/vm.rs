//! A machine's VM.

use super::abi;
use super::chips::{KernelChips, Places};
use super::sys::{System, VmFile};
use super::tces::Tces;
use super::vcpu::Inner;
use super::{Host, PpcVm, Setup};
use crate::error::{Context, KvmError};
use crate::parts::Parts;
use crate::sys::cap;
use crate::{Counts, KvmVcpu};
use parking_lot::RwLock;
use rhea_accel::spapr::{KernelIrqchip, KernelTces};
use rhea_accel::{Accelerator, GuestAccelerator, GuestVcpu, IrqFd, Services, Vcpu, VcpuError, VmControl};
use rhea_memory::AddressSpace;
use rhea_ppc::{PpcCpu, PpcHooks, timebase};
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

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
/// H_LOGICAL_CI_LOAD, H_LOGICAL_CI_STORE, H_STUFF_TCE, H_PUT_TCE_INDIRECT, H_SET_MODE. What it does not know of them comes here all the
/// same.
const ENABLED: &[u64] = &[0x10, 0x14, 0x2c, 0x3c, 0x40, 0x138, 0x13c, 0x31c];

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
        ErrorKind::ResourceBusy => KvmError::Busy,
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
    /// The guest's clock is the time base: when the machine stood still.
    pub parts: Parts<Instant>,
    pub space: Arc<AddressSpace>,
    pub hooks: Arc<dyn PpcHooks>,
    pub control: VmControl,
    /// The interrupt controller in use is in the kernel.
    in_kernel: AtomicBool,
    /// What the guest's time base is ahead of the host's.
    ahead: AtomicI64,
}

/// What the kernel has of the difference of two time bases.
const TIME_STEP: u64 = 1 << 24;

/// A time base that was `ahead`, after it stood for a while: it does not go back, and not on by more than the kernel's steps want.
fn behind(ahead: i64, stood: Duration) -> i64 {
    let ticks = (stood.as_nanos() * u128::from(timebase::FREQUENCY_HZ) / 1_000_000_000) as i64;
    let exact = ahead.saturating_sub(ticks);
    let step = TIME_STEP as i64;
    exact.checked_add(step - 1).map_or(exact, |up| up.div_euclid(step) * step)
}

/// The vCPUs of a VM, by index.
pub(super) type Vcpus = Arc<RwLock<Vec<Arc<KvmVcpu<Inner>>>>>;

/// The VM of one machine.
pub struct KvmVm {
    core: Arc<Core>,
    vcpus: Vcpus,
    chips: OnceLock<Arc<KernelChips>>,
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
        let parts = Parts::new(file.clone(), std::slice::from_ref(&space), None, &control)?;
        let (in_kernel, ahead) = (AtomicBool::new(false), AtomicI64::new(0));
        let core = Arc::new(Core { file, parts, space, hooks, control, in_kernel, ahead });
        Ok(Arc::new(Self { core, vcpus: Arc::default(), chips: OnceLock::new() }))
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
    /// What the guest's time base is to be ahead of the host's, now that a vCPU goes on.
    pub fn vcpu_resumed(&self) -> i64 {
        self.parts.resumed(|stood: Instant| {
            self.ahead.store(behind(self.ahead.load(SeqCst), stood.elapsed()), SeqCst);
            Ok(())
        });
        self.ahead.load(SeqCst)
    }
    pub fn vcpu_paused(&self) {
        self.parts.paused(|| Some(Instant::now()));
    }
}

impl PpcVm for KvmVm {
    fn counts(&self) -> Counts {
        self.core.parts.counts(&self.vcpus.read())
    }
    fn irqchip(&self, places: Places) -> Option<Arc<dyn KernelIrqchip>> {
        let chips = KernelChips::new(&self.core, &self.vcpus, places)?;
        Some(self.chips.get_or_init(|| chips).clone())
    }
    fn kernel_irqchip(&self) -> bool {
        self.core.kernel_irqchip()
    }
    fn tces(&self) -> Option<Arc<dyn KernelTces>> {
        (self.core.file.check(abi::KVM_CAP_SPAPR_TCE_64) > 0).then(|| Tces::new(&self.core) as _)
    }
    fn set_rtas_tokens(&self, tokens: &[(String, u32)]) {
        if let Some(chips) = self.chips.get() {
            chips.set_tokens(tokens);
        }
    }
    fn set_hash(&self, order: u32) -> Result<(), KvmError> {
        self.core.parts.gate.exclusively(|| {
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
        self.core.parts.gate.exclusively(|| {
            self.core.file.configure_mmu(flags, process_table | PATE_GR).during("KVM_PPC_CONFIGURE_V3_MMU")
        })
    }
}

impl Accelerator for KvmVm {
    fn name(&self) -> &'static str {
        "kvm"
    }
    fn services(&self) -> Services {
        let irqfd = self.core.file.check(cap::IRQFD) > 0;
        self.core.parts.services(self.chips.get().filter(|_| irqfd).map(|chips| chips.clone() as Arc<dyn IrqFd>))
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
        self.core.parts.gate.add(vcpu.kick_handle());
        self.vcpus.write().push(vcpu.clone());
        Ok(vcpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_base_stands() {
        let step = Duration::from_nanos(TIME_STEP * 1_000_000_000 / timebase::FREQUENCY_HZ);
        let at = |ahead: i64, stood| behind(ahead << 24, stood) >> 24;
        assert_eq!((at(0, Duration::ZERO), at(0, step / 2), at(0, step * 2)), (0, 0, -2));
        assert_eq!((at(-2, step * 5 / 2), at(7, step / 3), at(7, step * 4 / 3)), (-4, 7, 6));
        assert_eq!(behind(i64::MIN, Duration::from_secs(1)) % (1 << 24), 0);
    }
}
