//! Puts the board together.

use super::accel::{self, Running};
use super::cpu::{self, PowerStates, Start};
use super::fdt::{self, FdtInput};
use super::hooks::BoardHooks;
use super::images::{self, Images};
use super::map::{self, Map};
use crate::board::{Board, Wiring};
use crate::config::MachineConfig;
use crate::cpu::report_stops;
use crate::hotplug::HotPlug;
use crate::hotplug::express::Express;
use crate::machine::{Architecture, Machine, MachineCpu, Parts};
use crate::options::{GicVersion, VirtOptions};
use crate::plug::Plugger;
use parking_lot::Mutex;
use rhea_accel::{Accelerator, GuestVcpu, IrqLine, IrqSink, MsiTarget, Route, VmControl};
use rhea_arm::hooks::{ArmPins, Conduit, Pin};
use rhea_arm::timer::{GenericTimers, TimerId};
use rhea_arm::{ArmConfig, ArmCpu, Feature};
use rhea_clock::RtcClock;
use rhea_device::{Log, OptionError};
use rhea_firmware::fw_cfg::{self, FwCfg};
use rhea_irqchip::gic::{CpuOutputs, GicV2, GicV2Config, GicV2m, GicV3, GicV3Config, GicV3Cpu, Its};
use rhea_memory::Gpa;
use rhea_pci::{HostWindows, PcieHost};
use rhea_virtio::VirtioMmio;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

/// What the options mean together.
struct Plan {
    arm: ArmConfig,
    v3: bool,
    map: Map,
    /// The flash holds firmware.
    firmware: bool,
    conduit: Option<Conduit>,
    running: Running,
}

fn plan(config: &MachineConfig, options: &VirtOptions) -> Result<Plan, OptionError> {
    let cpus = config.smp.cpus;
    let (given, places) = (config.serials.len(), if options.secure { 2 } else { 1 });
    if given > places {
        let ports = if places == 1 { "one serial port (two with -M virt,secure=on)" } else { "two serial ports" };
        return Err(OptionError::new("-serial", format!("given {given} times: the machine has {ports}")));
    }
    if config.smp.dies != 1 {
        return Err(OptionError::new("-smp", "dies is of x86 machines: use sockets, clusters, cores and threads"));
    }
    let (mut arm, running) = accel::processor(config, options)?;
    let v3 = match options.gic_version {
        GicVersion::V2 => false,
        GicVersion::V3 => true,
        GicVersion::Host | GicVersion::Max => running.newest_gic() == 3,
    };
    if !v3 && cpus > 8 {
        return Err(OptionError::new(
            "-smp",
            format!("{cpus} CPUs: a GICv2 serves at most 8: use -M virt,gic-version=3"),
        ));
    }
    arm.gic_sysregs = v3;
    arm.peripheral_base = map::GIC_DIST.start;
    arm.cpus = cpus;
    let map = Map::new(config.ram.size, cpus, options, v3)?;
    let bits = running.address_bits(&arm);
    if map.address_bits() > bits {
        let text = format!(
            "'{}': has {bits} address bits, the machine needs {}: use less RAM or -M virt,highmem=off",
            arm.model,
            map.address_bits()
        );
        return Err(OptionError::new("-cpu", text));
    }
    let firmware = config.bios.is_some()
        || options.pflash[0].is_some()
        || config
            .drives
            .iter()
            .any(|d| d.interface == rhea_block::DriveInterface::Pflash && d.index.is_none_or(|i| i == 0));
    // Firmware in EL3 has its own PSCI.
    let conduit = match (options.secure && firmware, options.virtualization) {
        (true, _) => None,
        (false, true) => Some(Conduit::Smc),
        (false, false) => Some(Conduit::Hvc),
    };
    Ok(Plan { arm, v3, map, firmware, conduit, running })
}

fn tree(config: &MachineConfig, options: &VirtOptions, plan: &Plan) -> Result<rhea_firmware::FdtNode, OptionError> {
    if let Some(path) = &config.dtb {
        return images::user_tree(path, &plan.map);
    }
    let compatible = match plan.arm.model {
        "max" | "host" => "arm,armv8".to_owned(),
        model => format!("arm,{model}"),
    };
    Ok(fdt::build(&FdtInput {
        options,
        map: &plan.map,
        smp: &config.smp,
        v3: plan.v3,
        cpu_compatible: &compatible,
        psci_method: plan.conduit.map(|c| if c == Conduit::Hvc { "hvc" } else { "smc" }),
        pmu: plan.arm.has(Feature::Pmu),
        vhe: plan.arm.has(Feature::Vhe) && options.virtualization,
        seed: options.dtb_randomness.then(images::seed),
    }))
}

/// The device tree blob of `-M dumpdtb=`.
///
/// # Errors
/// [`OptionError`].
pub fn dtb(config: &MachineConfig, options: &VirtOptions) -> Result<Vec<u8>, OptionError> {
    let mut tree = tree(config, options, &plan(config, options)?)?;
    fdt::add_boot(&mut tree, config.append.as_deref(), None);
    tree.to_blob().map_err(|e| OptionError::new("-M virt,dumpdtb", e.to_string()))
}

/// The interrupt inputs of a CPU as a sink: pin numbers are those of [`Pin`].
struct PinSink(Arc<ArmPins>);

impl IrqSink for PinSink {
    fn set_level(&self, pin: u32, level: bool) {
        let pin = match pin {
            0 => Pin::Irq,
            1 => Pin::Fiq,
            2 => Pin::Virq,
            _ => Pin::Vfiq,
        };
        self.0.set(pin, level);
    }
}

fn outputs(pins: &Arc<ArmPins>) -> CpuOutputs {
    let sink: Arc<dyn IrqSink> = Arc::new(PinSink(pins.clone()));
    let line = |pin: Pin| IrqLine::to_sink(sink.clone(), pin as u32);
    CpuOutputs { irq: line(Pin::Irq), fiq: line(Pin::Fiq), virq: line(Pin::Virq), vfiq: line(Pin::Vfiq) }
}

/// The places for virtio devices on the memory bus.
fn virtio_places(board: &mut Board) -> VecDeque<Arc<VirtioMmio>> {
    (0..map::VIRTIO_COUNT)
        .map(|i| {
            let window = map::Window { start: map::VIRTIO.start + i * map::VIRTIO.len, len: map::VIRTIO.len };
            let name = format!("virtio-mmio@{:x}", window.start);
            let place = VirtioMmio::new(&name, board.routing.line(map::VIRTIO_SPI + i as u32), board.log.clone());
            board.map(window, place.clone());
            board.devices.push(place.clone());
            place
        })
        .collect()
}

enum Gic {
    V2(Arc<GicV2>),
    V3(Arc<GicV3>),
}

impl Gic {
    fn ppi(&self, cpu: usize, ppi: u32) -> IrqLine {
        match self {
            Self::V2(g) => g.ppi(cpu, ppi + 16),
            Self::V3(g) => g.ppi(cpu, ppi + 16),
        }
    }
}

/// Builds the machine; the CPUs are paused at their start.
///
/// # Errors
/// [`OptionError`] naming the option that cannot be satisfied.
pub fn build(
    config: &MachineConfig,
    options: &VirtOptions,
    wiring: &Wiring,
    control: VmControl,
    log: Log,
) -> Result<Arc<Machine>, OptionError> {
    let plan = plan(config, options)?;
    let tree = tree(config, options, &plan)?;
    let mut board = Board::new(&control, &log, config.icount);
    let (space, clock) = (board.space.clone(), board.clock.clone());
    let ram = config.make_ram()?;
    board.ram.push(ram.clone());
    let mapped = space
        .map_ram(Gpa(plan.map.ram.start), &ram, 0, config.ram.size, 0)
        .map_err(|e| OptionError::new("-m", e.to_string()))?;
    board.keep_mapping(mapped);

    let fw = FwCfg::new(board.dma(), log.clone());
    fw.add_u16(fw_cfg::key::NB_CPUS, config.smp.cpus as u16);
    fw.add_u16(fw_cfg::key::MAX_CPUS, config.smp.cpus as u16);
    let images = Images::new(config, options, tree, &plan.map, plan.firmware, &fw)?;

    // CPUs.
    let arm = Arc::new(plan.arm);
    let power = PowerStates::new(config.smp.cpus);
    let hooks = Arc::new(BoardHooks {
        config: arm.clone(),
        power: power.clone(),
        control: control.clone(),
        log: log.clone(),
        vcpus: OnceLock::new(),
        gic: OnceLock::new(),
        pmu_lines: OnceLock::new(),
    });
    let place = (&plan.map, plan.v3, config.smp.cpus);
    let chosen = accel::build(&mut board, (config, options), plan.running, place, &hooks)?;
    let accelerator: Arc<dyn Accelerator> = chosen.vcpus.clone();
    board.accelerator = Some(Arc::downgrade(&accelerator));
    let (mut vcpus, mut timers, mut pins) = (Vec::<Arc<dyn GuestVcpu<ArmCpu>>>::new(), Vec::new(), Vec::new());
    for index in 0..config.smp.cpus {
        let timer = GenericTimers::new(&clock);
        let mut cpu = ArmCpu::new(index, &arm, &space, &timer, hooks.clone());
        cpu.set_conduit(plan.conduit);
        let pin = cpu.pins();
        let vcpu = chosen.vcpus.clone().add_vcpu(index, cpu).map_err(|e| OptionError::new("-accel", e.to_string()))?;
        pin.set_wake(vcpu.waker());
        report_stops(&vcpu, index, &control);
        vcpus.push(vcpu);
        timers.push(timer);
        pins.push(pin);
    }

    // Interrupts.
    let msi = match &chosen.kvm {
        Some(vm) => {
            let _ = hooks.vcpus.set(vcpus.clone());
            accel::interrupts(&mut board, vm, plan.v3, options.its)?
        }
        None => {
            let (gic, msi) = interrupts(options, &plan.map, &arm, plan.v3, plan.firmware, &pins, &mut board)?;
            private(&gic, &timers, &vcpus, &hooks);
            msi
        }
    };

    // Devices.
    board.map(map::FW_CFG, fw.clone());
    board.devices.push(fw.clone());
    let intx = [0, 1, 2, 3].map(|n| board.routing.line(map::PCIE_SPI + n));
    let window = |w: map::Window| (Gpa(w.start), w.len);
    let windows = HostWindows {
        ecam: window(plan.map.ecam),
        memory32: window(map::PCIE_MMIO),
        memory64: plan.map.high_mmio.map(window),
        io: Some(window(map::PCIE_PIO)),
    };
    let pcie =
        Arc::new(PcieHost::new(&space, windows, intx, msi).map_err(|e| OptionError::new("-M virt", e.to_string()))?);
    pcie.bus().set_irqfd(chosen.vcpus.services().irqfd);
    let rtc = RtcClock::new(config.rtc.0, config.rtc.1, &clock);
    board.inventory.set_wall(&rtc);
    let power_button = super::platform::build(&mut board, config, options, wiring, rtc)?;
    let places = virtio_places(&mut board);
    let plugs = Plugger::new(&mut board, config, wiring, pcie.bus(), places).plug_all(&mut |_, _| Ok(false))?;
    let changes = Express::new(plugs.lock().ports.clone());
    let hotplug = HotPlug::new(&board, config, wiring, pcie.bus(), plugs, changes);
    board.keep.push(Box::new(pcie));

    if config.kernel.is_none() && !plan.firmware && !config.paused {
        return Err(OptionError::new(
            "-kernel",
            "there is nothing to boot: give -kernel FILE, -bios FILE or a -drive if=pflash with firmware",
        ));
    }
    // Start.
    let start = images.start();
    let secondary = if plan.conduit.is_none() { Start::Reset } else { Start::Off };
    let cpus: Vec<Arc<dyn MachineCpu>> = vcpus
        .into_iter()
        .enumerate()
        .map(|(n, v)| cpu::start(v, &arm, &space, &power, if n == 0 { start } else { secondary }) as _)
        .collect();
    let (images, memory) = (Mutex::new(images), space.clone());
    let machine = Machine::new(Parts {
        name: config.name.clone().unwrap_or_else(|| "virt".to_owned()),
        architecture: Architecture::Aarch64,
        space,
        ports: None,
        clock,
        routing: board.routing,
        control,
        log,
        cpus,
        devices: board.devices,
        ram: board.ram,
        plugged_ram: Box::new(Vec::new),
        reload: Box::new(move || images.lock().load(&memory, &ram)),
        power_button,
        nmi: None,
        info: board.info,
        keep: board.keep,
        displays: board.displays,
        input: board.input,
        hotplug: Some(hotplug),
        inventory: board.inventory,
    })
    .map_err(|e| OptionError::new("-smp", e.to_string()))?;
    machine.reset();
    Ok(machine)
}

/// Wires interrupts that each CPU has for itself.
fn private(gic: &Gic, timers: &[Arc<GenericTimers>], vcpus: &[Arc<dyn GuestVcpu<ArmCpu>>], hooks: &BoardHooks) {
    for (n, timer) in timers.iter().enumerate() {
        let outputs = [
            (TimerId::Physical, map::PPI_TIMER_PHYS),
            (TimerId::Virtual, map::PPI_TIMER_VIRT),
            (TimerId::HypPhysical, map::PPI_TIMER_HYP),
            (TimerId::HypVirtual, map::PPI_TIMER_HYP_VIRT),
            (TimerId::SecurePhysical, map::PPI_TIMER_SECURE),
        ];
        for (id, ppi) in outputs {
            let line = gic.ppi(n, ppi);
            timer.set_output(id, Box::new(move |level| line.set(level)));
        }
    }
    // Each is set once, here.
    let _ = hooks.pmu_lines.set((0..vcpus.len()).map(|n| gic.ppi(n, map::PPI_PMU)).collect());
    let _ = hooks.vcpus.set(vcpus.to_vec());
    if let Gic::V3(g) = gic {
        let _ = hooks.gic.set(g.clone());
    }
}

/// Who takes messages.
pub type MsiRoute = Option<Arc<dyn MsiTarget>>;

fn interrupts(
    options: &VirtOptions,
    map: &Map,
    arm: &ArmConfig,
    v3: bool,
    firmware: bool,
    pins: &[Arc<ArmPins>],
    board: &mut Board,
) -> Result<(Gic, MsiRoute), OptionError> {
    let fail = |e: rhea_irqchip::gic::GicError| OptionError::new("-M virt", e.to_string());
    let routing = board.routing.clone();
    let eoi: rhea_irqchip::gic::EoiListener = Arc::new(move |spi| routing.resample(spi));
    let (sink, result): (Arc<dyn IrqSink>, _) = if v3 {
        let low = (map::GIC_REDIST.len / map::REDIST_LEN) as usize;
        let cpus = pins.iter().enumerate().map(|(n, p)| {
            let mpidr = arm.mpidr(n as u32);
            GicV3Cpu { affinity: (mpidr & 0x00ff_ffff | mpidr >> 8 & 0xff00_0000) as u32, outputs: outputs(p) }
        });
        let mut setup = GicV3Config::new("gicv3", cpus.collect());
        setup.spis = map::SPIS;
        setup.security = options.secure;
        setup.virtualization = options.virtualization;
        setup.maintenance_ppi = map::PPI_MAINTENANCE + 16;
        setup.regions = vec![pins.len().min(low), pins.len().saturating_sub(low)];
        setup.memory = options.its.then(|| board.space.clone());
        setup.nonsecure_boot = options.secure && !firmware;
        setup.eoi = Some(eoi);
        setup.log = board.log.clone();
        let gic = GicV3::new(setup).map_err(fail)?;
        board.map(map::GIC_DIST, gic.distributor());
        board.map(
            map::Window { start: map::GIC_REDIST.start, len: pins.len().min(low) as u64 * map::REDIST_LEN },
            gic.redistributors(0),
        );
        if let Some(high) = map.high_redist {
            board.map(
                map::Window { start: high.start, len: pins.len().saturating_sub(low) as u64 * map::REDIST_LEN },
                gic.redistributors(1),
            );
        }
        board.devices.push(gic.clone());
        let mut msi: MsiRoute = None;
        if options.its {
            let its = Its::new("its", &gic, board.space.clone(), board.log.clone());
            board.map(map::GIC_ITS, its.clone());
            board.devices.push(its.clone());
            msi = Some(its);
        }
        let shown = gic.clone();
        board.info.push(("pic", "show the interrupt controller", Box::new(move || shown.describe())));
        (gic.clone(), (Gic::V3(gic), msi))
    } else {
        let mut setup = GicV2Config::new("gicv2", pins.iter().map(outputs).collect());
        setup.spis = map::SPIS;
        setup.security = options.secure;
        setup.virtualization = options.virtualization;
        setup.maintenance_ppi = map::PPI_MAINTENANCE + 16;
        setup.nonsecure_boot = options.secure && !firmware;
        setup.eoi = Some(eoi);
        setup.log = board.log.clone();
        let gic = GicV2::new(setup).map_err(fail)?;
        board.map(map::GIC_DIST, gic.distributor());
        board.map(map::GIC_CPU, gic.cpu_interface());
        if options.virtualization {
            board.map(map::GIC_HYP, gic.virtual_control());
            board.map(map::GIC_VCPU, gic.virtual_cpu_interface());
        }
        board.devices.push(gic.clone());
        let v2m = message_frame(board, gic.clone())?;
        let shown = gic.clone();
        board.info.push(("pic", "show the interrupt controller", Box::new(move || shown.describe())));
        (gic.clone(), (Gic::V2(gic), Some(v2m)))
    };
    route(board, &sink);
    Ok(result)
}

/// Ends the board's lines at a controller.
pub fn route(board: &Board, sink: &Arc<dyn IrqSink>) {
    for spi in 0..map::SPIS {
        board.routing.set_route(spi, Some(Route { sink: sink.clone(), pin: spi }));
    }
}

/// What takes messages for a GICv2.
pub fn message_frame(board: &mut Board, gic: Arc<dyn IrqSink>) -> Result<Arc<dyn MsiTarget>, OptionError> {
    let v2m = GicV2m::new("gicv2m", gic, map::V2M_SPI + 32, map::V2M_COUNT, board.log.clone());
    let v2m = v2m.map_err(|e| OptionError::new("-M virt", e.to_string()))?;
    board.map(map::GIC_V2M, v2m.clone());
    board.devices.push(v2m.clone());
    Ok(v2m)
}
