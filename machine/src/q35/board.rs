//! Puts the board together.

use super::accel;
use super::boot::Firmware;
use super::cpu;
use super::globals;
use super::hooks::BoardHooks;
use super::interrupts::{self, ApicFeatures};
use super::iommu;
use super::map;
use super::pci_setup;
use super::platform;
use super::rom;
use crate::board::{Board, Wiring};
use crate::config::MachineConfig;
use crate::cpu::report_stops;
use crate::hotplug::HotPlug;
use crate::hotplug::express::Express;
use crate::machine::{Architecture, Machine, MachineCpu, Parts};
use crate::options::{Q35Options, Smp};
use crate::plug::Plugger;
use rhea_accel::{Accelerator, VmControl, VmRequest, WakeReason};
use rhea_chipset::lpc::pirq;
use rhea_chipset::{ConfigPorts, Eeprom, Lpc, LpcWiring, Mch, MchWiring, ResetControl, SmBus, Smi};
use rhea_device::{Log, OptionError};
use rhea_firmware::acpi::{FACS_LEN, WakingVector};
use rhea_firmware::fw_cfg::{self, FwCfg};
use rhea_firmware::x86::{BootImage, CpuStart, RamLayout};
use rhea_memory::{AddressSpace, Gpa, RamBlock, Requester};
use rhea_pc::{A20Gate, CoprocessorError};
use rhea_pci::{IntxLines, PciBus, PciFunction};
use rhea_storage::Ahci;
use rhea_x86::config::Topology;
use rhea_x86::models::Parsed;
use rhea_x86::{Feature, X86Config, X86Cpu};
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

/// The spaces of the board.
struct Spaces {
    io: Arc<AddressSpace>,
    /// What CPUs see in system-management mode.
    smram: Arc<AddressSpace>,
}

/// The most CPUs: APIC ids up to that of broadcasts in xAPIC mode need no interrupt remapping.
const MAX_CPUS: u32 = 255;

fn cpu_config(config: &MachineConfig, ram: RamLayout, host: Option<X86Config>) -> Result<Parsed, OptionError> {
    let under_kvm = host.is_some();
    let parsed = rhea_x86::models::parse_on(&config.cpu, host).map_err(|e| OptionError::new("-cpu", e))?;
    // Under emulation it is a feature like others, which is told of and left out.
    let nested = parsed.absent.iter().find(|f| under_kvm && matches!(f, Feature::Vmx | Feature::Svm));
    if let Some(f) = nested {
        let text = format!(
            "'{}': feature '{}' is not available: this host's KVM offers no guests inside of guests with it",
            config.cpu,
            f.name()
        );
        return Err(OptionError::new("-cpu", text));
    }
    let nesting = parsed.config.has(Feature::Vmx) || parsed.config.has(Feature::Svm);
    if let Some(name) = parsed.nested.first().filter(|_| under_kvm && nesting) {
        let text = format!(
            "'{}': '{name}' cannot be chosen: what there is of nested virtualization is the host's",
            config.cpu
        );
        return Err(OptionError::new("-cpu", text));
    }
    let mut parsed = parsed;
    if let Some(warning) = parsed.warning.take() {
        eprintln!("rhea: warning: -cpu: {warning}");
    }
    let cpu = &mut parsed.config;
    let Smp { sockets, dies, clusters, cores, threads, cpus, .. } = config.smp;
    if clusters != 1 {
        return Err(OptionError::new("-smp", "clusters is of Arm machines: use sockets, dies, cores and threads"));
    }
    cpu.topology = Topology { sockets, dies, cores, threads };
    let last = cpu.topology.apic_id(cpus - 1);
    if last >= MAX_CPUS {
        let text = format!("{cpus} CPUs: APIC ids go up to {last}, the machine has at most {MAX_CPUS}");
        return Err(OptionError::new("-smp", text));
    }
    let (bits, has) = (64 - (ram.end() - 1).leading_zeros(), cpu.physical_bits);
    if bits > has {
        let text = format!("'{}': has {has} physical address bits, the machine needs {bits}: use less RAM", config.cpu);
        return Err(OptionError::new("-cpu", text));
    }
    Ok(parsed)
}

/// Maps RAM and what lies around it.
fn memory(board: &mut Board, bus: &Arc<PciBus>, ram: &Arc<RamBlock>, layout: RamLayout) -> Result<Spaces, OptionError> {
    let fail = |e: rhea_memory::MapError| OptionError::new("-m", e.to_string());
    let space = board.space.clone();
    let low = [(0, map::VIDEO.min(layout.below_4g)), (map::MIB, layout.below_4g.saturating_sub(map::MIB))];
    for (start, len) in low.into_iter().filter(|(_, len)| *len != 0) {
        board.keep_mapping(space.map_ram(Gpa(start), ram, start, len, 0).map_err(fail)?);
    }
    if layout.above_4g != 0 {
        let high = space.map_ram(Gpa(map::FOUR_GIB), ram, layout.below_4g, layout.above_4g, 0);
        board.keep_mapping(high.map_err(fail)?);
    }
    board.keep_mapping(space.map_alias(Gpa(0), bus.memory(), Gpa(0), map::ADDRESS_SPACE, -1).map_err(fail)?);
    let smram = AddressSpace::new("system management");
    board.keep_mapping(smram.map_alias(Gpa(0), &space, Gpa(0), map::ADDRESS_SPACE, 0).map_err(fail)?);
    space.set_secure_side(&smram);
    let io = AddressSpace::new("ports");
    board.keep_mapping(io.map_alias(Gpa(0), bus.io(), Gpa(0), map::PORTS, -1).map_err(fail)?);
    Ok(Spaces { io, smram })
}

/// The chipset's own functions.
struct Chipset {
    mch: Arc<Mch>,
    lpc: Arc<Lpc>,
    ahci: Option<Arc<Ahci>>,
}

fn chipset(
    board: &mut Board,
    options: &Q35Options,
    bus: &Arc<PciBus>,
    spaces: &Spaces,
    ram: &Arc<RamBlock>,
    layout: RamLayout,
    extended_tseg: u16,
    pic: Vec<rhea_accel::IrqLine>,
    smi: Smi,
) -> Result<Chipset, OptionError> {
    let fail = |e: &dyn std::fmt::Display| OptionError::new("-M q35", e.to_string());
    let mch = Mch::new(MchWiring {
        bus: bus.clone(),
        system: board.space.clone(),
        smram: spaces.smram.clone(),
        ram: ram.clone(),
        low_ram: layout.below_4g,
        extended_tseg,
        smm: options.smm,
        log: board.log.clone(),
    });
    let lpc = Lpc::new(LpcWiring {
        bus: bus.clone(),
        system: board.space.clone(),
        io: spaces.io.clone(),
        clock: board.clock.clone(),
        control: board.control.clone(),
        routing: board.routing.clone(),
        pic,
        smi: options.smm.then_some(smi),
        log: board.log.clone(),
    })
    .map_err(|e| fail(&e))?;
    let mut functions: Vec<Arc<dyn PciFunction>> = vec![mch.clone(), lpc.clone()];
    let ahci = options.sata.then(|| Ahci::new(&bus.slot(rhea_storage::ahci::DEVFN), &board.log));
    functions.extend(ahci.clone().map(|a| a as Arc<dyn PciFunction>));
    if options.smbus {
        // Two modules, if the RAM is a power of two.
        let size = layout.size();
        let half = if size.is_power_of_two() { size / 2 } else { size };
        let count = if size.is_power_of_two() { 2 } else { 1 };
        let modules = (0..count).map(|n| Eeprom::module(n, half)).collect();
        functions.push(SmBus::new(bus, modules, board.log.clone()));
    }
    for function in functions {
        bus.attach(function.clone()).map_err(|e| fail(&e))?;
        board.devices.push(function);
    }
    let ports = ConfigPorts::new(bus, ResetControl::new(board.control.clone()));
    board.map_into(&spaces.io, map::Window { start: ConfigPorts::PORT, len: 8 }, ports.clone());
    board.devices.push(ports);
    let shown = lpc.pirq().clone();
    board.info.push(("irq", "show the routing of PCI interrupts", Box::new(move || shown.describe())));
    Ok(Chipset { mch, lpc, ahci })
}

/// Takes the functions off their bus at the end: they hold it.
struct Detach(Arc<PciBus>);

impl Drop for Detach {
    fn drop(&mut self) {
        self.0.detach_all();
    }
}

/// Builds the machine; the CPUs are paused at their start.
///
/// # Errors
/// [`OptionError`] naming the option that cannot be satisfied.
pub fn build(
    config: &MachineConfig,
    options: &Q35Options,
    wiring: &Wiring,
    control: VmControl,
    log: Log,
) -> Result<Arc<Machine>, OptionError> {
    let (given, places) = (wiring.serials.len(), rhea_pc::uart::COM_PORTS.len());
    if given > places {
        return Err(OptionError::new("-serial", format!("given {given} times: the machine has {places} serial ports")));
    }
    let globals = globals::parse(config)?;
    let layout = RamLayout::q35(config.ram.size);
    let kvm = accel::open(&config.accel)?;
    let mut parsed = cpu_config(config, layout, accel::host_model(kvm.as_ref())?)?;
    let mut board = Board::new(&control, &log, config.icount);
    board.boot_order = Some(Vec::new());
    let (space, clock) = (board.space.clone(), board.clock.clone());
    let ram = config.make_ram()?;
    board.ram.push(ram.clone());
    let routing = board.routing.clone();
    let wires = IntxLines::of_pins(|device, pin| pirq::pin_line(&routing, device, pin));
    let bus = PciBus::with_wires("pcie.0", space.clone(), wires, None);
    let spaces = memory(&mut board, &bus, &ram, layout)?;
    let firmware = rom::wanted(config);

    // CPUs.
    let a20 = A20Gate::new();
    let coprocessor = CoprocessorError::new("coprocessor", board.routing.line(map::IRQ_FERR));
    board.map_into(&spaces.io, map::FERR, coprocessor.clone());
    board.devices.push(coprocessor.clone());
    let hooks = Arc::new(BoardHooks {
        io: spaces.io.clone(),
        control: control.clone(),
        log: log.clone(),
        a20: a20.clone(),
        coprocessor,
        apic: OnceLock::new(),
        accelerated: OnceLock::new(),
        vcpus: OnceLock::new(),
        pins: OnceLock::new(),
    });
    let private = accel::private(config, options.confidential_guest.as_deref(), &ram)?;
    let chosen = accel::build(&mut board, config, kvm.as_ref(), &hooks, &mut parsed, !firmware, private)?;
    let accelerator: Arc<dyn Accelerator> = chosen.vcpus.clone();
    board.accelerator = Some(Arc::downgrade(&accelerator));
    let options = &Q35Options { smm: options.smm && chosen.smm, ..options.clone() };
    let cpu_config = Arc::new(parsed.config);
    let (mut guests, mut pins, mut apic_ids) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..config.smp.cpus {
        let apic_id = cpu_config.topology.apic_id(index);
        let cpu = X86Cpu::new(index, apic_id, &cpu_config, &space, &clock, hooks.clone());
        let pin = cpu.pins();
        let vcpu = chosen.vcpus.clone().add_vcpu(index, cpu);
        let vcpu = vcpu.map_err(|e| OptionError::new("-cpu", e.to_string()))?;
        pin.set_wake(vcpu.waker());
        report_stops(&vcpu, index, &control);
        guests.push(vcpu);
        pins.push(pin);
        apic_ids.push(apic_id);
    }
    let weak: Vec<_> = guests.iter().map(Arc::downgrade).collect();
    a20.on_change(move |_| {
        for vcpu in weak.iter().filter_map(std::sync::Weak::upgrade) {
            vcpu.post(Box::new(X86Cpu::a20_changed));
        }
    });

    // Interrupts.
    let features = ApicFeatures {
        x2apic: cpu_config.has(Feature::X2apic),
        tsc_deadline: cpu_config.has(Feature::TscDeadline),
        phys_bits: cpu_config.physical_bits as u8,
        virtual_wire: !firmware,
        extended_destination: false,
    };
    let cpus = apic_ids.iter().copied().zip(pins.iter().cloned()).collect();
    let irqs = match &chosen.chips {
        Some(chips) if chips.split() => interrupts::split(&mut board, &spaces.io, chips, &pins)?,
        Some(chips) => interrupts::in_kernel(&mut board, chips),
        None => interrupts::build(&mut board, &spaces.io, cpus, &features)?,
    };
    let nmi = interrupts::nmi(irqs.apic.as_ref(), &pins);
    // Each is set once, here.
    if let Some(apic) = &irqs.apic {
        let _ = hooks.apic.set(apic.clone());
    }
    if let Some(apics) = irqs.accelerated {
        let _ = hooks.accelerated.set(apics);
    }
    let _ = hooks.vcpus.set(guests.clone());
    let _ = hooks.pins.set(pins);
    bus.set_msi_target(Some(irqs.messages));
    bus.set_irqfd(irqs.irqfd);
    let dmar = iommu::build(&mut board, config, &bus, irqs.bus, cpu_config.physical_bits)?;

    // Devices.
    let weak = Arc::downgrade(&hooks);
    let smi: Smi = Arc::new(move |cpu| {
        if let Some(hooks) = weak.upgrade() {
            hooks.smi(cpu);
        }
    });
    let Chipset { mch, lpc, ahci } =
        chipset(&mut board, options, &bus, &spaces, &ram, layout, globals.extended_tseg, irqs.pirq_inputs, smi)?;
    rom::build(&mut board, config, bus.memory(), globals.secure_flash)?;
    let fw = FwCfg::new(board.dma(), log.clone());
    board.map_into(&spaces.io, map::Window { start: fw_cfg::PORT, len: fw_cfg::PORT_LEN }, fw.ports());
    board.devices.push(fw.clone());
    let (rtc, lines) =
        platform::build(&mut board, config, options, wiring, &spaces.io, irqs.hpet_inputs, &a20, layout, &lpc);
    let mut isa = platform::Isa {
        wiring,
        io: &spaces.io,
        a20: &a20,
        lines,
        serials: ((1u32 << given) - 1) as u8,
        told: platform::serial_ports(wiring),
    };
    let plugs = Plugger::new(&mut board, config, wiring, &bus, VecDeque::new()).with_ahci(ahci).plug_all(
        &mut |board, spec| {
            match spec.driver.as_str() {
                // Made before.
                rhea_iommu::NAME => Ok(true),
                _ => isa.device(board, spec),
            }
        },
    )?;
    let changes = Express::new(plugs.lock().ports.clone());
    let hotplug = HotPlug::new(&board, config, wiring, &bus, plugs, changes);

    // What firmware is told, or the kernel finds.
    let told = Firmware {
        config,
        options,
        serial: isa.told,
        ram: layout,
        apic_ids: &apic_ids,
        phys_bits: cpu_config.physical_bits,
        vga: !board.displays.is_empty(),
        sleep: globals.sleep,
        processor_id: 0,
        dmar,
    };
    let acpi = told.acpi();
    told.tell(&fw, board.boot_order.take().unwrap_or_default(), firmware)?;
    told.tell_acpi(&fw, &mch, &lpc);
    told.tell_smi(&fw, &lpc);
    if cpu_config.has(Feature::Vmx) {
        // What firmware writes to IA32_FEATURE_CONTROL: locked, VMX outside SMX (SDM volume 3, 24.7).
        fw.add_file("etc/msr_feature_control", 5u64.to_le_bytes().as_slice());
    }
    let image = if firmware { None } else { told.direct(acpi.as_ref())? };
    let boot = cpu::BootCpu::new(image.as_ref().map_or(CpuStart::Reset, |i| i.cpu));
    let (windows32, window64) = told.windows();
    let cpus: Vec<Arc<dyn MachineCpu>> =
        guests.into_iter().zip(&apic_ids).map(|(v, id)| cpu::start(v, &space, *id, &boot) as _).collect();

    board.keep.push(Box::new(spaces.smram));
    let power = lpc.clone();
    let ports = spaces.io.clone();
    let (memory, detach) = (space.clone(), Detach(bus.clone()));
    board.keep.push(Box::new(detach));
    let weak = Arc::downgrade(lpc.pm());
    let waker = control.clone();
    board.input.on_input(move || {
        if weak.upgrade().is_some_and(|pm| pm.suspended()) {
            waker.request(VmRequest::Wake(WakeReason::Other));
        }
    });
    // What firmware does at each start, with a kernel or after suspend to RAM.
    let (setup_image, pm) = (image.clone(), lpc.pm().clone());
    let set_up = Arc::new(move || {
        let Some(image) = &setup_image else { return };
        mch.shadow_all();
        mch.open_ecam();
        lpc.set_up();
        let windows = pci_setup::Windows {
            ports: 0xc000..0x1_0000,
            memory: windows32.last().cloned().unwrap_or(0..0),
            memory64: window64.clone(),
        };
        // As `Lpc::set_up` routes PIRQs: A, B, E, F to 10, the others to 11.
        let router = lpc.pirq().clone();
        pci_setup::assign(&bus, windows, &|device, pin| if router.pirq_of(device, pin) & 2 == 0 { 10 } else { 11 });
        if image.bios_interrupts {
            platform::bios_interrupts(&ports);
        }
    });
    let facs = image.as_ref().and_then(|i| i.facs);
    let (direct, again, facs_memory) = (image.is_some(), set_up.clone(), space.clone());
    let woken = move |reason| {
        pm.woken(reason);
        if !direct {
            rtc.set_cmos(platform::SHUTDOWN_STATUS, platform::RESUME);
            return true;
        }
        let mut table = [0; FACS_LEN];
        let read = facs.is_some_and(|at| facs_memory.read(Gpa(at), &mut table, Requester::Host).is_ok());
        let Some(vector) = WakingVector::of_facs(&table).filter(|_| read) else {
            eprintln!("rhea: the guest gives no place to wake up at: it is reset");
            return false;
        };
        again();
        boot.wake(vector);
        true
    };
    let reload = move || {
        let Some(image) = &image else { return };
        set_up();
        load(image, &memory);
    };
    let parts = Parts {
        name: config.name.clone().unwrap_or_else(|| "q35".to_owned()),
        architecture: Architecture::X86_64,
        space,
        ports: Some(spaces.io),
        clock,
        routing: board.routing,
        control,
        log,
        cpus,
        devices: board.devices,
        ram: board.ram,
        plugged_ram: Box::new(Vec::new),
        reload: Box::new(reload),
        power_button: Box::new(move || power.power_button()),
        nmi: Some(nmi),
        info: board.info,
        keep: board.keep,
        displays: board.displays,
        input: board.input,
        hotplug: Some(hotplug),
        inventory: board.inventory,
    };
    let machine =
        Machine::with_sleep(parts, Some(Box::new(woken))).map_err(|e| OptionError::new("-smp", e.to_string()))?;
    machine.reset();
    Ok(machine)
}

/// Puts the image into memory.
fn load(image: &BootImage, space: &AddressSpace) {
    const ZEROS: [u8; 4096] = [0; 4096];
    let put = |at: u64, data: &[u8]| space.write_rom(Gpa(at), data).is_ok();
    let mut good = true;
    for range in &image.zeros {
        let mut at = range.start;
        while at < range.end {
            let n = (range.end - at).min(4096);
            good &= put(at, &ZEROS[..n as usize]);
            at += n;
        }
    }
    for (at, data) in &image.writes {
        good &= put(*at, data);
    }
    if !good {
        // The loader placed everything inside RAM.
        eprintln!("rhea: the kernel could not be loaded into memory");
    }
}
