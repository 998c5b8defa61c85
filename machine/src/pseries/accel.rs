//! What runs the processors: the JIT, or KVM.

use super::hooks::BoardHooks;
use super::options::{Compat, PseriesOptions, ResizeHpt};
use crate::accel::{AccelKind, KernelIrqchip as Wanted, jit, kvm_error};
use crate::board::Board;
use crate::config::MachineConfig;
use rhea_accel::GuestAccelerator;
use rhea_accel::spapr::KernelIrqchip;
use rhea_device::OptionError;
use rhea_irqchip::spapr::numbers;
use rhea_irqchip::xive::XivePlaces;
use rhea_kvm::ppc::{self, Host, Places, PpcVm, Setup};
use rhea_kvm::{Counts, DEV_KVM, DevKvm};
use rhea_ppc::{PpcConfig, PpcCpu};
use rhea_spapr::TceTables;
use std::sync::Arc;

/// Hashed pages larger than the host's own ones need memory of such pages.
const HASH_PAGE_SHIFT: u8 = 16;

/// KVM, if it was chosen.
pub struct Kernel {
    kvm: DevKvm,
    pub host: Host,
}

/// Opens it.
pub fn open(kind: &AccelKind) -> Result<Option<Kernel>, OptionError> {
    if !matches!(kind, AccelKind::Kvm(_)) {
        return Ok(None);
    }
    let kvm = DevKvm::open(DEV_KVM).map_err(|e| kvm_error(&e))?;
    let host = ppc::host(&kvm).map_err(|e| kvm_error(&e))?;
    Ok(Some(Kernel { kvm, host }))
}

impl Kernel {
    /// The host's processor, which all guests have: `model` (as after `-cpu`) is it, or leaves it open.
    pub fn processor(&self, model: &str) -> Result<PpcConfig, OptionError> {
        const VERSION_SHIFT: u32 = 16;
        let pvr = self.host.pvr;
        let same = |m: &rhea_ppc::models::Model| m.pvr >> VERSION_SHIFT == pvr >> VERSION_SHIFT;
        let of_host = rhea_ppc::models::MODELS.iter().map(|(_, m)| m).find(|m| same(m));
        let of_host = of_host.ok_or_else(|| {
            OptionError::new("-accel kvm", format!("the host's processor (version {pvr:#010x}) is not a known one"))
        })?;
        if !matches!(model, "max" | "host") {
            let wanted = rhea_ppc::models::parse(model).map_err(|e| OptionError::new("-cpu", e))?;
            if wanted.pvr >> VERSION_SHIFT != pvr >> VERSION_SHIFT {
                let name = of_host.name;
                let text = format!(
                    "'{model}': the host's processor is a {name}: use -cpu host and -M pseries,max-cpu-compat="
                );
                return Err(OptionError::new("-cpu", text));
            }
        }
        let mut config = of_host.config();
        (config.pvr, config.radix) = (pvr, self.host.radix);
        Ok(config)
    }

    /// Adapts the machine's capabilities to the host's.
    pub fn adapt(&self, options: &mut PseriesOptions, cpu: &PpcConfig) -> Result<(), OptionError> {
        let refuse =
            |what: &str| Err(OptionError::new("-M pseries", format!("'{what}': this host's KVM does not do it")));
        if options.kvm_pr {
            return refuse("kvm-type=PR");
        }
        let caps = &mut options.caps;
        if caps.rpt_invalidate && !self.host.rpt_invalidate {
            return refuse("cap-rpt-invalidate=on");
        }
        match options.resize_hpt {
            ResizeHpt::Required => return refuse("resize-hpt=required"),
            _ => options.resize_hpt = ResizeHpt::Disabled,
        }
        caps.dawr1 &= self.host.dawr1;
        caps.ail_mode_3 &= self.host.ail_mode_3;
        caps.max_page_shift = caps.max_page_shift.min(HASH_PAGE_SHIFT);
        let hash_only = options.max_cpu_compat.is_some_and(|c| c < Compat::Power9);
        if !self.host.hash && (hash_only || !cpu.radix) {
            return refuse("max-cpu-compat=power8");
        }
        options.host_characteristics = self.host.characteristics;
        Ok(())
    }
}

/// Makes the accelerator; with KVM also what the kernel does for the partition.
pub fn build(
    board: &mut Board,
    config: &MachineConfig,
    options: &PseriesOptions,
    kernel: Option<&Kernel>,
    hooks: &Arc<BoardHooks>,
    tces: &Arc<TceTables>,
) -> Result<(Arc<dyn GuestAccelerator<PpcCpu>>, Option<Arc<dyn PpcVm>>), OptionError> {
    let Some(kernel) = kernel else { return Ok((jit::<PpcCpu>(board, config)?, None)) };
    let setup = Setup {
        space: board.space.clone(),
        hooks: hooks.clone(),
        control: board.control.clone(),
        threads: config.smp.threads,
        dawr1: options.caps.dawr1,
        rpt_invalidate: options.caps.rpt_invalidate,
    };
    let vm = ppc::create(&kernel.kvm, setup).map_err(|e| kvm_error(&e))?;
    if let Some(kernel) = vm.tces() {
        tces.set_kernel(kernel);
    }
    let (shown, tces) = (vm.clone(), tces.clone());
    let info = move || {
        let Counts { slots, doorbells, exits, kicks, .. } = shown.counts();
        format!(
            "kvm support: enabled\nirqchip: {}\nmemory slots: {slots}\ndoorbells: {doorbells}\nexits: {exits}\n\
             kicks: {kicks}\n{}",
            if shown.kernel_irqchip() { "kernel" } else { "machine" },
            tces.describe()
        )
    };
    board.info.push(("kvm", "show what runs the processors", Box::new(info)));
    board.keep.push(Box::new(vm.clone()));
    Ok((vm.clone(), Some(vm)))
}

/// The kernel's interrupt controllers, if they are to be used.
pub fn irqchip(vm: &Arc<dyn PpcVm>, config: &MachineConfig) -> Result<Option<Arc<dyn KernelIrqchip>>, OptionError> {
    let AccelKind::Kvm(wanted) = &config.accel else { return Ok(None) };
    let own = XivePlaces::default();
    let places = Places { tima: own.tima, esb: own.esb, sources: numbers::TOTAL };
    let fail = |text: &str| Err(OptionError::new("-accel kvm", format!("'kernel-irqchip={text}")));
    match wanted.irqchip {
        Some(Wanted::Off) => Ok(None),
        Some(Wanted::Split) => {
            fail("split': the machine's interrupt controllers are in the kernel or not: use on or off")
        }
        None => Ok(vm.irqchip(places)),
        Some(Wanted::On) => match vm.irqchip(places) {
            None => fail("on': this kernel has neither XICS nor XIVE"),
            chips => Ok(chips),
        },
    }
}
