//! What runs the processors: the JIT, or KVM, which has the interrupt controller too.

use super::board::{self, MsiRoute};
use super::hooks::BoardHooks;
use super::map::{self, Map};
use crate::accel::{AccelKind, KernelChips, jit, kvm_error};
use crate::board::Board;
use crate::config::MachineConfig;
use crate::options::{GicVersion, VirtOptions};
use rhea_accel::{GuestAccelerator, IrqSink, MsiTarget};
use rhea_arm::{ArmConfig, ArmCpu, Feature};
use rhea_device::OptionError;
use rhea_kvm::arm::{self, ArmVm, Gic, Host, Setup};
use rhea_kvm::{Counts, DEV_KVM, DevKvm};
use std::sync::Arc;

/// What was chosen, before the machine is made.
pub enum Running {
    Jit,
    Kvm { kvm: DevKvm, host: Box<Host>, features: HostFeatures },
}

impl Running {
    /// The newest version of the interrupt controller.
    #[must_use]
    pub fn newest_gic(&self) -> u32 {
        match self {
            Self::Kvm { host, .. } if !host.gicv3 => 2,
            _ => 3,
        }
    }
    /// Bits of physical addresses that a processor has.
    #[must_use]
    pub fn address_bits(&self, arm: &ArmConfig) -> u32 {
        match self {
            Self::Jit => arm.pa_bits(),
            Self::Kvm { host, .. } => host.address_bits,
        }
    }
}

/// Features of the host's processor that can be left out.
#[derive(Clone, Copy, Debug)]
pub struct HostFeatures {
    pmu: bool,
    sve: bool,
    pauth: bool,
}

/// What a processor of the machine is.
pub fn processor(config: &MachineConfig, options: &VirtOptions) -> Result<(ArmConfig, Running), OptionError> {
    let AccelKind::Kvm(_) = config.accel else {
        if config.cpu.split(',').next() == Some("host") {
            return Err(OptionError::new("-cpu", "'host' needs KVM: use -accel kvm, or another model"));
        }
        if options.gic_version == GicVersion::Host {
            return Err(OptionError::new("-M virt,gic-version", "'host' needs KVM: use 2, 3 or max"));
        }
        let mut arm = ArmConfig::from_option(&config.cpu).map_err(|e| OptionError::new("-cpu", e.to_string()))?;
        arm.set(Feature::El2, options.virtualization);
        arm.set(Feature::El3, options.secure);
        return Ok((arm, Running::Jit));
    };
    for (on, name, what) in [(options.virtualization, "virtualization", "EL2"), (options.secure, "secure", "EL3")] {
        if on {
            let text = format!("KVM gives no {what} to guests: use -accel jit");
            return Err(OptionError::new(&format!("-M virt,{name}"), text));
        }
    }
    let kvm = DevKvm::open(DEV_KVM).map_err(|e| kvm_error(&e))?;
    let host = arm::host(&kvm).map_err(|e| kvm_error(&e))?;
    let there = match options.gic_version {
        GicVersion::V2 => host.gicv2,
        GicVersion::V3 => host.gicv3,
        GicVersion::Host | GicVersion::Max => host.gicv2 || host.gicv3,
    };
    if !there {
        let text = "the host's KVM has no such interrupt controller: use gic-version=host";
        return Err(OptionError::new("-M virt,gic-version", text));
    }
    let features = host_features(&config.cpu, &host)?;
    let mut arm = ArmConfig::host(host.config.midr, host.config.ctr, host.config.pa_range, features.pmu);
    // Only the model's name is shown, and it is the same.
    arm.cpus = config.smp.cpus;
    Ok((arm, Running::Kvm { kvm, host: Box::new(host), features }))
}

/// `-cpu host` and `max`, which is the same, with `pmu=`, `sve=`, `pauth=`.
fn host_features(text: &str, host: &Host) -> Result<HostFeatures, OptionError> {
    let fail = |text: String| Err(OptionError::new("-cpu", text));
    let mut parts = text.split(',');
    let model = parts.next().unwrap_or_default();
    if !matches!(model, "host" | "max") {
        return fail(format!("'{model}': KVM runs the host's processor only: use host, or -accel jit"));
    }
    let has = HostFeatures { pmu: host.config.has(Feature::Pmu), sve: host.sve, pauth: host.pauth };
    let mut wanted = has;
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, "on"));
        let on = match value {
            "on" | "true" | "yes" => true,
            "off" | "false" | "no" => false,
            _ => return fail(format!("property '{name}': '{value}' is not 'on' or 'off'")),
        };
        let (there, feature) = match name {
            "pmu" => (has.pmu, &mut wanted.pmu),
            "sve" => (has.sve, &mut wanted.sve),
            "pauth" => (has.pauth, &mut wanted.pauth),
            "aarch64" if on => continue,
            _ => return fail(format!("'{model}' has no property '{name}' under KVM (known: pmu, sve, pauth)")),
        };
        if on && !there {
            return fail(format!("'{name}': the host's processor or kernel has it not"));
        }
        *feature = on;
    }
    Ok(wanted)
}

/// The accelerator of a machine.
pub struct Chosen {
    pub vcpus: Arc<dyn GuestAccelerator<ArmCpu>>,
    /// KVM, with the interrupt controller.
    pub kvm: Option<Arc<dyn ArmVm>>,
}

/// Makes it, for a machine with this map, a GICv3 or a GICv2, and so many processors.
pub fn build(
    board: &mut Board,
    (config, options): (&MachineConfig, &VirtOptions),
    running: Running,
    (map, v3, cpus): (&Map, bool, u32),
    hooks: &Arc<BoardHooks>,
) -> Result<Chosen, OptionError> {
    let (kvm, host, features) = match running {
        Running::Jit => return Ok(Chosen { vcpus: jit::<ArmCpu>(board, config)?, kvm: None }),
        Running::Kvm { kvm, host, features } => (kvm, host, features),
    };
    let gic = if v3 {
        let low = cpus.min((map::GIC_REDIST.len / map::REDIST_LEN) as u32);
        let mut redistributors = vec![(map::GIC_REDIST.start, low)];
        redistributors.extend(map.high_redist.map(|high| (high.start, cpus - low)));
        let its = options.its.then_some(map::GIC_ITS.start);
        Gic::V3 { distributor: map::GIC_DIST.start, redistributors, its }
    } else {
        Gic::V2 { distributor: map::GIC_DIST.start, cpu_interface: map::GIC_CPU.start }
    };
    let setup = Setup {
        gic,
        spis: map::SPIS,
        space: board.space.clone(),
        hooks: hooks.clone(),
        control: board.control.clone(),
        // More than the machine needs may be more than the host's tables are for.
        address_bits: map.address_bits().min(host.address_bits),
        pmu: features.pmu.then_some(map::PPI_PMU),
        sve: features.sve,
        pauth: features.pauth,
    };
    let vm = arm::create(&kvm, setup).map_err(|e| kvm_error(&e))?;
    let shown = vm.clone();
    let info = move || {
        let Counts { slots, doorbells, exits, kicks, .. } = shown.counts();
        let gic = if v3 { "GICv3" } else { "GICv2" };
        format!(
            "kvm support: enabled\nirqchip: kernel ({gic})\nnested virtualization: not offered\n\
             memory slots: {slots}\ndoorbells: {doorbells}\nexits: {exits}\nkicks: {kicks}\n"
        )
    };
    board.info.push(("kvm", "show what runs the processors", Box::new(info)));
    board.keep.push(Box::new(vm.clone()));
    Ok(Chosen { vcpus: vm.clone(), kvm: Some(vm) })
}

/// Wires the interrupt controller in the kernel; all processors are made.
pub fn interrupts(board: &mut Board, vm: &Arc<dyn ArmVm>, v3: bool, its: bool) -> Result<MsiRoute, OptionError> {
    vm.complete().map_err(|e| kvm_error(&e))?;
    let gic = vm.gic();
    let sink: Arc<dyn IrqSink> = gic.clone();
    board::route(board, &sink);
    let of_reset = vm.clone();
    let reset = Box::new(move || of_reset.reset_gic());
    board.devices.push(Arc::new(KernelChips { name: "kvm-gic", reset }));
    if v3 {
        return Ok(its.then_some(gic as Arc<dyn MsiTarget>));
    }
    board::message_frame(board, sink).map(Some)
}
