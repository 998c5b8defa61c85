//! What runs the processors: the JIT, or KVM.

use super::hooks::BoardHooks;
use super::iommu;
use crate::accel::{AccelKind, KernelChips, KernelIrqchip, jit, kvm_error};
use crate::board::Board;
use crate::config::MachineConfig;
use crate::options::ObjectSpec;
use rhea_accel::GuestAccelerator;
use rhea_device::OptionError;
use rhea_kvm::x86::{self, Irqchip, Setup, X86Chips};
use rhea_kvm::{Choice, Counts, DEV_KVM, DevKvm};
use rhea_memory::RamBlock;
use rhea_x86::models::Parsed;
use rhea_x86::{Feature, X86Config, X86Cpu};
use std::sync::Arc;

/// `/dev/kvm`, if it was chosen.
pub fn open(kind: &AccelKind) -> Result<Option<DevKvm>, OptionError> {
    match kind {
        AccelKind::Kvm(_) => DevKvm::open(DEV_KVM).map(Some).map_err(|e| kvm_error(&e)),
        AccelKind::Jit { .. } | AccelKind::Interpreter => Ok(None),
    }
}

/// The model named `host`.
pub fn host_model(kvm: Option<&DevKvm>) -> Result<Option<X86Config>, OptionError> {
    let Some(kvm) = kvm else { return Ok(None) };
    let model = x86::host_model(kvm).map_err(|e| kvm_error(&e))?;
    Ok(Some(model))
}

/// What `-cpu` means where an accelerator runs the machine.
///
/// # Errors
/// [`OptionError`]: there is no such model, or a property is impossible.
pub fn cpu_model(text: &str, kind: &AccelKind) -> Result<Parsed, OptionError> {
    let host = host_model(open(kind)?.as_ref())?;
    rhea_x86::models::parse_on(text, host).map_err(|e| OptionError::new("-cpu", e))
}

/// The accelerator of a machine.
pub struct Chosen {
    pub vcpus: Arc<dyn GuestAccelerator<X86Cpu>>,
    /// Interrupt controllers in the kernel, if local APICs at least are there.
    pub chips: Option<Arc<dyn X86Chips>>,
    /// There is system-management mode.
    pub smm: bool,
}

const CONFIDENTIAL: &str = "confidential-guest-support";

/// The RAM of which guest code can make pages its own, if it was asked for.
pub fn private(
    config: &MachineConfig,
    wanted: Option<&str>,
    ram: &Arc<RamBlock>,
) -> Result<Option<Arc<RamBlock>>, OptionError> {
    let Some(id) = wanted else { return Ok(None) };
    let known = |o: &ObjectSpec| matches!(o, ObjectSpec::SwProtectedVm { id: i } if i == id);
    if config.objects.iter().any(known) {
        return Ok(Some(ram.clone()));
    }
    Err(OptionError::new("-M q35", format!("{CONFIDENTIAL}={id}: no sw-protected-vm -object has this id")))
}

/// Makes it; takes from the processor's model what it cannot run.
pub fn build(
    board: &mut Board,
    config: &MachineConfig,
    kvm: Option<&DevKvm>,
    hooks: &Arc<BoardHooks>,
    model: &mut Parsed,
    virtual_wire: bool,
    private: Option<Arc<RamBlock>>,
) -> Result<Chosen, OptionError> {
    let (Some(system), AccelKind::Kvm(options)) = (kvm, &config.accel) else {
        if private.is_some() {
            return Err(OptionError::new("-M q35", format!("{CONFIDENTIAL}: it needs -accel kvm")));
        }
        return Ok(Chosen { vcpus: jit::<X86Cpu>(board, config)?, chips: None, smm: true });
    };
    let irqchip = match options.irqchip {
        Some(KernelIrqchip::On) => Irqchip::Kernel,
        Some(KernelIrqchip::Split) => Irqchip::Split,
        Some(KernelIrqchip::Off) => Irqchip::Machine,
        None if !iommu::wanted(config) => Irqchip::Kernel,
        // Interrupt remapping is the machine's.
        None if x86::usable(Choice::Last, Irqchip::Split).is_ok() => Irqchip::Split,
        None => Irqchip::Machine,
    };
    let (space, hooks, control) = (board.space.clone(), hooks.clone(), board.control.clone());
    let Parsed { config: cpu, enforce, tsc_frequency, .. } = model;
    let setup = Setup {
        irqchip,
        space,
        hooks,
        control,
        virtual_wire,
        tsc_frequency: *tsc_frequency,
        dirty_ring: options.dirty_ring,
        private: private.clone(),
    };
    let vm = x86::create(system, setup).map_err(|e| kvm_error(&e))?;
    let lost = vm.restrict(cpu);
    // Of the models that are all there is, nobody misses what there is not; nor without a local APIC in the kernel what needs it.
    let whole = |f: &&Feature| irqchip != Irqchip::Machine || !x86::NEEDS_KERNEL_APIC.contains(f);
    // That the counter's frequency never changes is said of a model if it can be.
    let asked = |f: &&Feature| **f != Feature::Invtsc || config.cpu.contains(f.name());
    let names: Vec<_> = lost.iter().filter(whole).filter(asked).map(|f| f.name()).collect();
    if !names.is_empty() && !matches!(cpu.model.as_str(), "max" | "host") {
        let text = format!("'{}': this host has not: {}", cpu.model, names.join(", "));
        if *enforce {
            return Err(OptionError::new("-cpu", text));
        }
        eprintln!("rhea: warning: -cpu: {text}");
    }
    if private.is_some() {
        let of_reset = vm.clone();
        let reset = Box::new(move || of_reset.reset_memory());
        board.devices.push(Arc::new(KernelChips { name: "kvm-memory", reset }));
        board.private_memory = true;
    }
    if vm.chips().is_some() {
        let of_reset = vm.clone();
        let reset = Box::new(move || of_reset.reset_chips());
        board.devices.push(Arc::new(KernelChips { name: "kvm-irqchip", reset }));
    }
    let nested = [Feature::Svm, Feature::Vmx].into_iter().find(|f| cpu.has(*f));
    let nested = nested.map_or("not offered", Feature::name);
    let shown = vm.clone();
    let info = move || {
        let Counts { slots, doorbells, held, exits, kicks } = shown.counts();
        let irqchip = match irqchip {
            Irqchip::Kernel => "kernel",
            Irqchip::Split => "split (local APICs in the kernel)",
            Irqchip::Machine => "machine",
        };
        let smm = if shown.smm() { "yes" } else { "not offered" };
        format!(
            "kvm support: enabled\nirqchip: {irqchip}\nsystem-management mode: {smm}\nnested virtualization: {nested}\n\
             memory slots: {slots}\ndoorbells: {doorbells}\nranges of coalesced writes: {held}\nexits: {exits}\nkicks: {kicks}\n"
        )
    };
    board.info.push(("kvm", "show what runs the processors", Box::new(info)));
    board.keep.push(Box::new(vm.clone()));
    Ok(Chosen { chips: vm.chips(), smm: vm.smm(), vcpus: vm })
}
