//! Puts the board together.

use super::accel::{self, Kernel};
use super::boot::Images;
use super::cas::Offer;
use super::cpu;
use super::hcall;
use super::hooks::BoardHooks;
use super::hotplug::{Changes, ChangesParts};
use super::memory::GuestRam;
use super::options::{Compat, IcMode, PseriesOptions, ResizeHpt};
use super::partition::saved::PartitionDevice;
use super::partition::{Late, Partition, PartitionConfig};
use super::platform;
use super::rtas::Rtas;
use super::rtas::events::Events;
use super::tree::{self, INTERRUPTS, LMB, TIMEBASE};
use crate::board::{Board, Wiring};
use crate::config::MachineConfig;
use crate::cpu::report_stops;
use crate::hotplug::HotPlug;
use crate::machine::{Architecture, Machine, MachineCpu, Parts};
use crate::plug::Plugger;
use rhea_accel::{Accelerator, GuestVcpu, IrqLine, IrqSink, VmControl};
use rhea_clock::RtcClock;
use rhea_device::{Log, OptionError};
use rhea_firmware::FdtNode;
use rhea_irqchip::spapr::papr::{Hypercalls, RtasCalls};
use rhea_irqchip::spapr::{self, ServerConfig, SpaprIrq, SpaprIrqConfig, numbers};
use rhea_irqchip::xive::XivePlaces;
use rhea_memory::Gpa;
use rhea_ppc::{Isa, PpcConfig, PpcCpu, PpcPins};
use rhea_spapr::rng::Rng;
use rhea_spapr::rtc::Rtc;
use rhea_spapr::{Phb, PhbConfig, Phbs, TceTables, VioBus};
use std::collections::VecDeque;
use std::sync::Arc;

/// The most processors: what XICS and XIVE number with room to spare.
const MAX_CPUS: u32 = 512;

/// The external interrupt input of a processor.
struct External(Arc<PpcPins>);

impl IrqSink for External {
    fn set_level(&self, _pin: u32, level: bool) {
        self.0.set_external(level);
    }
}

fn cpu_config(config: &MachineConfig, kernel: Option<&Kernel>) -> Result<PpcConfig, OptionError> {
    let (model, rest) = config.cpu.split_once(',').unwrap_or((&config.cpu, ""));
    let cpu = match (kernel, model) {
        (Some(kernel), model) => kernel.processor(model)?,
        (None, "max" | "host") => rhea_ppc::models::POWER10.config(),
        (None, model) => rhea_ppc::models::parse(model).map_err(|e| OptionError::new("-cpu", e))?,
    };
    if let Some((key, _)) = rhea_device::options::split(rest).into_iter().find(|(k, _)| !k.is_empty()) {
        let hint = if key == "compat" { ": use -M pseries,max-cpu-compat=LEVEL" } else { "" };
        return Err(OptionError::new("-cpu", format!("'{key}': {model} has no such property{hint}")));
    }
    let smp = &config.smp;
    if smp.clusters != 1 || smp.dies != 1 {
        return Err(OptionError::new("-smp", "use sockets, cores and threads: there are no clusters and dies"));
    }
    if !smp.threads.is_power_of_two() || smp.threads > cpu.max_threads {
        let text =
            format!("threads={}: a core of this processor has 1, 2, 4 or {} threads", smp.threads, cpu.max_threads);
        return Err(OptionError::new("-smp", text));
    }
    if smp.max_cpus > MAX_CPUS {
        return Err(OptionError::new("-smp", format!("{} CPUs: the machine has at most {MAX_CPUS}", smp.max_cpus)));
    }
    if !smp.cpus.is_multiple_of(smp.threads) {
        let text = format!("cpus={}: expected a multiple of threads={}: cores are whole", smp.cpus, smp.threads);
        return Err(OptionError::new("-smp", text));
    }
    Ok(cpu)
}

/// The platform's offer for client-architecture support.
fn offer(
    options: &PseriesOptions,
    cpu: &PpcConfig,
    config: &MachineConfig,
    kernel: Option<&Kernel>,
) -> Result<Offer, OptionError> {
    let newest = match cpu.isa {
        Isa::V2_07 => Compat::Power8,
        Isa::V3_0 => Compat::Power9,
        Isa::V3_1 => Compat::Power10,
    };
    if let Some(max) = options.max_cpu_compat.filter(|m| *m > newest) {
        let text = format!("'max-cpu-compat={}': the processor is a {}", max.word(), newest.word());
        return Err(OptionError::new("-M pseries", text));
    }
    let level = options.max_cpu_compat.unwrap_or(newest);
    let ic_mode = match options.ic_mode {
        // What such processors know.
        IcMode::Dual if level < Compat::Power9 => IcMode::Xics,
        IcMode::Xive if level < Compat::Power9 => {
            return Err(OptionError::new("-M pseries", "'ic-mode=xive': needs a POWER9 or newer processor"));
        }
        mode => mode,
    };
    Ok(Offer {
        ic_mode,
        radix: cpu.radix && level >= Compat::Power9,
        hash: kernel.is_none_or(|k| k.host.hash),
        kernel: kernel.is_some(),
        pvr: cpu.pvr,
        newest,
        max_compat: options.max_cpu_compat,
        hpt_resize: options.resize_hpt != ResizeHpt::Disabled,
        hotplug_events: true,
        drmem: config.max_ram > config.ram.size,
    })
}

/// Takes the functions off their buses at the end: they hold them.
struct Detach(Arc<Phbs>);

impl Drop for Detach {
    fn drop(&mut self) {
        for phb in self.0.list() {
            phb.bus().detach_all();
        }
    }
}

/// Builds the machine; the CPUs are paused at their start.
///
/// # Errors
/// [`OptionError`] naming the option that cannot be satisfied.
pub fn build(
    config: &MachineConfig,
    options: &PseriesOptions,
    wiring: &Wiring,
    control: VmControl,
    log: Log,
) -> Result<Arc<Machine>, OptionError> {
    let fail = |option: &str, e: &dyn std::fmt::Display| OptionError::new(option, e.to_string());
    if config.ram.size < 64 << 20 {
        return Err(OptionError::new("-m", "the machine needs at least 64M"));
    }
    let whole = |size: u64| size.is_multiple_of(LMB);
    if config.max_ram > config.ram.size && !(whole(config.ram.size) && whole(config.max_ram)) {
        return Err(OptionError::new("-m", "with maxmem, it and the size are multiples of 256M"));
    }
    let kernel = accel::open(&config.accel)?;
    let cpu_config = Arc::new(cpu_config(config, kernel.as_ref())?);
    let mut options = options.clone();
    if let Some(kernel) = &kernel {
        kernel.adapt(&mut options, &cpu_config)?;
    }
    let options = &options;
    let offer = offer(options, &cpu_config, config, kernel.as_ref())?;
    let mut images = Images::new(config, options.vof, options.kernel_addr)?;
    let mut board = Board::new(&control, &log, config.icount);
    board.boot_order = Some(Vec::new());
    let (space, clock) = (board.space.clone(), board.clock.clone());
    let ram = config.make_ram()?;
    board.ram.push(ram.clone());
    board.keep_mapping(space.map_ram(Gpa(0), &ram, 0, ram.len(), 0).map_err(|e| fail("-m", &e))?);
    let partition = Partition::new(PartitionConfig {
        options: options.clone(),
        name: config.name.clone(),
        uuid: config.uuid,
        smp: config.smp,
        max_ram: config.max_ram.max(config.ram.size),
        cpu: cpu_config.clone(),
        offer,
        space: space.clone(),
        ram: GuestRam::new(&ram),
        control: control.clone(),
        clock: clock.clone(),
        log: log.clone(),
    });

    // Processors.
    let hooks = Arc::new(BoardHooks(partition.clone()));
    let tces = TceTables::new(rhea_spapr::guest::GuestRam::new(&space));
    let (accel, kvm) = accel::build(&mut board, config, options, kernel.as_ref(), &hooks, &tces)?;
    let accelerator: Arc<dyn Accelerator> = accel.clone();
    board.accelerator = Some(Arc::downgrade(&accelerator));
    if let Some(kvm) = &kvm {
        partition.set_kernel(kvm.clone());
    }
    let (mut guests, mut pins) = (Vec::<Arc<dyn GuestVcpu<PpcCpu>>>::new(), Vec::new());
    for index in 0..config.smp.max_cpus {
        let cpu = PpcCpu::new(index, &cpu_config, &space, &clock, hooks.clone());
        let pin = cpu.pins();
        let vcpu = accel.clone().add_vcpu(index, cpu).map_err(|e| fail("-accel", &e))?;
        pin.set_wake(vcpu.waker());
        report_stops(&vcpu, index, &control);
        guests.push(vcpu);
        pins.push(pin);
    }

    // Interrupts.
    let kernel_irqchip = kvm.as_ref().map(|vm| accel::irqchip(vm, config)).transpose()?.flatten();
    let servers = pins.iter().zip(0..);
    let cpus = servers
        .map(|(pin, server)| ServerConfig { server, input: IrqLine::to_sink(Arc::new(External(pin.clone())), 0) });
    let irq = SpaprIrq::new(SpaprIrqConfig {
        name: "spapr-irq".to_owned(),
        mode: match partition.offer.ic_mode {
            IcMode::Xics => spapr::IcMode::Xics,
            IcMode::Xive => spapr::IcMode::Xive,
            IcMode::Dual => spapr::IcMode::Dual,
        },
        cpus: cpus.collect(),
        memory: space.clone(),
        routing: board.routing.clone(),
        places: XivePlaces::default(),
        kernel: kernel_irqchip,
        log: log.clone(),
    })
    .map_err(|e| fail("-smp", &e))?;
    let ticking = clock.clone();
    irq.set_timebase(move || (u128::from(ticking.now_ns()) * u128::from(TIMEBASE) / 1_000_000_000) as u64);
    board.devices.push(irq.clone());
    let event = |number: u32| irq.claim(number, false).map_err(|e| fail("-M pseries", &e));
    let events = Arc::new(Events::new(event(numbers::EPOW)?, event(numbers::HOT_PLUG)?));
    let shown = irq.clone();
    board.info.push(("pic", "show the interrupt controllers", Box::new(move || shown.describe())));

    // Devices.
    let vio = VioBus::new(&space, &irq, &tces);
    let phbs = Phbs::new();
    let mut phb_config = PhbConfig::new(0, &space, &irq, &tces);
    phb_config.memory_end = config.max_ram.max(config.ram.size);
    let phb = Phb::new(phb_config).map_err(|e| e.option("-M pseries"))?;
    phbs.add(phb.clone());
    let wall = RtcClock::new(config.rtc.0, config.rtc.1, &clock);
    board.inventory.set_wall(&wall);
    let rtc = Rtc::new(wall);
    let rng = Rng::new(None).map_err(|e| fail("-M pseries", &format!("/dev/urandom: {e}")))?;
    let nvram = platform::build(&mut board, config, wiring, &space, &vio)?;
    board.devices.push(rtc.clone());
    board.devices.push(phb.clone());
    let wall = || RtcClock::new(config.rtc.0, config.rtc.1, &clock);
    let changes = Changes::new(ChangesParts {
        partition: Arc::downgrade(&partition),
        phbs: phbs.clone(),
        space: space.clone(),
        accel,
        events: events.clone(),
        wall: wall(),
        slots: config.ram_slots,
    });
    let mut plugged = platform::Plugged::new(&vio, wiring, &phbs, &space, &irq, &tces);
    let own = changes.clone();
    let plugs = Plugger::new(&mut board, config, wiring, phb.bus(), VecDeque::new()).with_bus(&mut plugged).plug_all(
        &mut |_, spec| own.plug_device(spec, &config.objects, false).map_or(Ok(false), |done| done.map(|()| true)),
    )?;
    changes.add_slots();
    let hotplug = HotPlug::new(&board, config, wiring, phb.bus(), plugs, changes.clone());

    images.boot.stdout = vio.console();
    images.boot.graphics = options.graphics && !board.displays.is_empty();
    let order = board.boot_order.take().unwrap_or_default();
    images.boot.list = platform::boot_list(order, phb.buid());

    let rtas_sets: Vec<Arc<dyn RtasCalls>> = vec![irq.clone(), vio.clone(), phbs.clone(), rtc, nvram];
    let sets: Vec<Arc<dyn Hypercalls>> = vec![irq.clone(), vio.clone(), tces.clone()];
    let rtas = Rtas::new(&rtas_sets);
    let tokens = rtas.tokens();
    if let Some(kvm) = &kvm {
        kvm.set_rtas_tokens(&tokens);
    }
    let (tree_vio, tree_phbs, vof) = (vio.clone(), phbs.clone(), options.vof);
    let changed = changes.clone();
    let tree_rng = rng.clone();
    let buses = move || -> Vec<FdtNode> {
        let token = |name: &str| tokens.iter().find(|(n, _)| n == name).map_or(0, |t| t.1);
        let mut nodes = vec![tree::node(&tree_vio.tree())];
        // Firmware probes the buses itself.
        nodes.extend(tree_phbs.list().iter().map(|phb| changed.bridge_tree(phb, &phb.tree(INTERRUPTS, &token, vof))));
        nodes.push(tree::node(&tree_rng.tree()));
        nodes
    };
    let (nodes, released) = (changes.clone(), changes);
    let (random, restarted) = (rng, irq.clone());
    let screens = board.displays.clone();
    partition.complete(Late {
        irq,
        vcpus: guests.clone(),
        pins,
        sets,
        rtas,
        events: events.clone(),
        buses: Box::new(buses),
        pci_nodes: Box::new(move |id| nodes.pci_nodes(id)),
        released: Box::new(move |index| released.released(index)),
        boot: images.boot.clone(),
        random: Box::new(move || platform::random(&random)),
        byte_order: Box::new(move |order| screens.iter().for_each(|s| s.display().set_byte_order(order))),
    });

    let plugged_ram = partition.ram.clone();
    board.devices.push(Arc::new(PartitionDevice(partition.clone())));
    let entry = images.entry();
    let cpus: Vec<Arc<dyn MachineCpu>> =
        guests.into_iter().map(|v| cpu::start(v, &space, &partition, entry) as _).collect();
    board.keep.push(Box::new(Detach(phbs.clone())));
    let wall = wall();
    let power_button = move || events.power_button(platform::date(wall.now().0));
    // As if the hypervisor called H_SIGNAL_SYS_RESET for all processors.
    let reset = partition.clone();
    let nmi = move || hcall::system_reset_all(&reset);
    let reload = move || {
        restarted.restart();
        partition.reset();
        if vof {
            for phb in phbs.list() {
                phb.enumerate();
            }
        }
        images.load(&partition);
    };
    let parts = Parts {
        name: config.name.clone().unwrap_or_else(|| "pseries".to_owned()),
        architecture: Architecture::Ppc64,
        space,
        ports: None,
        clock,
        routing: board.routing,
        control,
        log,
        cpus,
        devices: board.devices,
        ram: board.ram,
        plugged_ram: Box::new(move || plugged_ram.blocks()),
        reload: Box::new(reload),
        power_button: Box::new(power_button),
        nmi: Some(Box::new(nmi)),
        info: board.info,
        keep: board.keep,
        displays: board.displays,
        input: board.input,
        hotplug: Some(hotplug),
        inventory: board.inventory,
    };
    let machine = Machine::new(parts).map_err(|e| OptionError::new("-smp", e.to_string()))?;
    machine.reset();
    Ok(machine)
}
