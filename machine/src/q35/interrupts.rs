//! Interrupt controllers and what leads to them: a global system interrupt below 16 is an input of the 8259s and of the I/O APIC.

use super::map;
use crate::board::Board;
use rhea_accel::{IrqFd, IrqLine, IrqSink, MsiMessage, MsiTarget, Route};
use rhea_device::OptionError;
use rhea_irqchip::apic::{
    AcceleratedApics, ApicBus, ApicConfig, IoApic, IoApicConfig, LapicConfig, LapicOutputs, MessageBus,
};
use rhea_irqchip::i8259::{I8259, I8259Config, Which};
use rhea_kvm::x86::X86Chips;
use rhea_memory::{Access, AccessRules, AddressSpace, BusError, Gpa, Mapping, MmioDevice};
use rhea_x86::X86Pins;
use rhea_x86::hooks::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

/// The first of [`IsaSink`]'s pins for PIRQs that the LPC bridge routes to the 8259s.
const PIRQ_PINS: u32 = 0x100;
/// The first of its pins for the event timers, which are I/O APIC inputs by number.
const HPET_PINS: u32 = 0x200;
/// Who drives an input.
const LINE: u8 = 1;
const PIRQ: u8 = 2;
const HPET: u8 = 4;

/// Inputs of a controller, each up while any source drives it.
struct Inputs(Vec<(IrqLine, AtomicU8)>);

impl Inputs {
    fn new(sink: &Arc<dyn IrqSink>, count: u32) -> Self {
        Self((0..count).map(|n| (IrqLine::to_sink(sink.clone(), n), AtomicU8::new(0))).collect())
    }
    fn set(&self, n: u32, source: u8, level: bool, import: bool) {
        let Some((line, sources)) = self.0.get(n as usize) else { return };
        if level {
            sources.fetch_or(source, SeqCst);
        } else {
            sources.fetch_and(!source, SeqCst);
        }
        // Whoever comes last sees the final sources.
        loop {
            let up = sources.load(SeqCst) != 0;
            if import {
                line.import(up);
            } else {
                line.set(up);
            }
            if up == (sources.load(SeqCst) != 0) {
                break;
            }
        }
    }
}

/// Takes the lines of the machine.
struct IsaSink {
    io_apic: Inputs,
    pic: Inputs,
    /// The controllers tell of the end of interrupts.
    tells_end: bool,
}

impl IsaSink {
    fn set(&self, pin: u32, level: bool, import: bool) {
        if let Some(n) = pin.checked_sub(HPET_PINS) {
            self.io_apic.set(n, HPET, level, import);
            if n < 16 {
                self.pic.set(n, HPET, level, import);
            }
        } else if let Some(n) = pin.checked_sub(PIRQ_PINS) {
            // The number is one interrupt for both, so that software finds it at the I/O APIC by the number firmware gave it.
            self.pic.set(n, PIRQ, level, import);
            self.io_apic.set(n, PIRQ, level, import);
        } else {
            if pin < 16 {
                self.pic.set(pin, LINE, level, import);
            }
            // The interval timer is at input 2, where nothing else is.
            match pin {
                0 => self.io_apic.set(2, LINE, level, import),
                2 => {}
                n => self.io_apic.set(n, LINE, level, import),
            }
        }
    }
}

impl IrqSink for IsaSink {
    fn set_level(&self, pin: u32, level: bool) {
        self.set(pin, level, false);
    }
    fn import_level(&self, pin: u32, level: bool) {
        self.set(pin, level, true);
    }
    /// Below 16 software may have taken the I/O APIC's input for the PIRQ instead.
    fn tells_end(&self, pin: u32) -> bool {
        self.tells_end && (16..map::GSIS).contains(&pin)
    }
}

/// The controllers.
pub struct Interrupts {
    /// The machine's own local APICs, if they are not in the kernel.
    pub apic: Option<Arc<ApicBus>>,
    /// Local APICs in the kernel with the machine's other controllers, of which the 8259s interrupt processors by themselves.
    pub accelerated: Option<(Arc<AcceleratedApics>, Arc<I8259>)>,
    /// What an IOMMU may stand before, if there is any.
    pub bus: Option<Arc<dyn MessageBus>>,
    /// Messages by eventfds.
    pub irqfd: Option<Arc<dyn IrqFd>>,
    /// Takes the messages of devices.
    pub messages: Arc<dyn MsiTarget>,
    /// Inputs of the 8259s for PIRQs.
    pub pirq_inputs: Vec<IrqLine>,
    /// I/O APIC inputs for the event timers.
    pub hpet_inputs: Vec<IrqLine>,
}

/// What the local APICs are to be like.
pub struct ApicFeatures {
    pub x2apic: bool,
    pub tsc_deadline: bool,
    pub phys_bits: u8,
    /// The machine starts without firmware, which would set up LINT0.
    pub virtual_wire: bool,
    pub extended_destination: bool,
}

/// Makes and wires them: the processors' `pins` with their APIC ids.
pub fn build(
    board: &mut Board,
    io: &Arc<AddressSpace>,
    cpus: Vec<(u32, Arc<X86Pins>)>,
    features: &ApicFeatures,
) -> Result<Interrupts, OptionError> {
    let fail = |e: &dyn std::fmt::Display| OptionError::new("-smp", e.to_string());
    let cpus = cpus.into_iter().map(|(apic_id, pins)| LapicConfig { apic_id, outputs: outputs(&pins) }).collect();
    let mut config = ApicConfig::new("lapic", cpus, board.clock.clone());
    config.x2apic = features.x2apic;
    config.tsc_deadline = features.tsc_deadline;
    config.phys_bits = features.phys_bits;
    config.virtual_wire = features.virtual_wire;
    config.extended_destination = features.extended_destination;
    config.memory = Some(board.space.clone());
    config.log = board.log.clone();
    let apic = ApicBus::new(config).map_err(|e| fail(&e))?;
    board.map(map::LOCAL_APIC, apic.window());
    relocatable(board, &apic);
    board.devices.push(apic.clone());

    let (pic, pirq_inputs, hpet_inputs) = outside(board, io, apic.clone(), apic.lint(0))?;
    apic.connect_external(&pic);
    let shown = apic.clone();
    let all = move || (0..shown.cpus() as u32).map(|n| shown.describe(n)).collect();
    board.info.push(("lapic", "show the local APICs", Box::new(all)));
    Ok(Interrupts {
        messages: apic.clone(),
        bus: Some(apic.clone()),
        apic: Some(apic),
        accelerated: None,
        irqfd: None,
        pirq_inputs,
        hpet_inputs,
    })
}

/// Makes I/O APIC and 8259s of the machine, whose output is `intr`: with inputs for PIRQs and for event timers.
fn outside(
    board: &mut Board,
    io: &Arc<AddressSpace>,
    apics: Arc<dyn MessageBus>,
    intr: IrqLine,
) -> Result<(Arc<I8259>, Vec<IrqLine>, Vec<IrqLine>), OptionError> {
    let routing = board.routing.clone();
    // Input 2 is the interval timer's, whose line is 0.
    let eoi: rhea_irqchip::EoiListener = Arc::new(move |n| routing.resample(if n == 2 { 0 } else { n }));
    let config = IoApicConfig { name: "ioapic".to_owned(), eoi: Some(eoi), log: board.log.clone() };
    let io_apic = IoApic::new(config, apics).map_err(|e| OptionError::new("-M q35", e.to_string()))?;
    board.map(map::IO_APIC, io_apic.clone());
    board.devices.push(io_apic.clone());

    let routing = board.routing.clone();
    let eoi: rhea_irqchip::EoiListener = Arc::new(move |n| routing.resample(n));
    let config = I8259Config { name: "i8259".to_owned(), eoi: Some(eoi), log: board.log.clone() };
    let pic = I8259::new(config, intr);
    board.map_into(io, map::PIC_MASTER, pic.ports(Which::Master));
    board.map_into(io, map::PIC_SLAVE, pic.ports(Which::Slave));
    board.map_into(io, map::ELCR, pic.elcr());
    board.devices.push(pic.clone());

    let (io_apic_inputs, pic_inputs): (Arc<dyn IrqSink>, Arc<dyn IrqSink>) = (io_apic.clone(), pic.clone());
    let (pirq_inputs, hpet_inputs) = route(board, &io_apic_inputs, &pic_inputs, true);

    let (a, b) = (io_apic, pic.clone());
    board.info.push((
        "pic",
        "show the interrupt controllers",
        Box::new(move || format!("{}{}", a.describe(), b.describe())),
    ));
    Ok((pic, pirq_inputs, hpet_inputs))
}

/// Leads the machine's lines to the controllers: inputs for PIRQs and for event timers.
fn route(
    board: &Board,
    io_apic: &Arc<dyn IrqSink>,
    pic: &Arc<dyn IrqSink>,
    tells_end: bool,
) -> (Vec<IrqLine>, Vec<IrqLine>) {
    let sink: Arc<dyn IrqSink> =
        Arc::new(IsaSink { io_apic: Inputs::new(io_apic, map::GSIS), pic: Inputs::new(pic, 16), tells_end });
    for n in 0..map::GSIS {
        board.routing.set_route(n, Some(Route { sink: sink.clone(), pin: n }));
    }
    let inputs = |first: u32, count: u32| (0..count).map(|n| IrqLine::to_sink(sink.clone(), first + n)).collect();
    (inputs(PIRQ_PINS, 16), inputs(HPET_PINS, map::GSIS))
}

/// Wires those in the kernel.
pub fn in_kernel(board: &mut Board, chips: &Arc<dyn X86Chips>) -> Interrupts {
    let messages: Arc<dyn MsiTarget> = chips.clone();
    board.map(map::LOCAL_APIC, Arc::new(Doorbell(messages.clone())));
    let (pirq_inputs, hpet_inputs) = route(board, &chips.io_apic(), &chips.pic(), false);
    let irqfd = chips.has_irqfd().then(|| chips.clone() as Arc<dyn IrqFd>);
    Interrupts { apic: None, accelerated: None, bus: None, irqfd, messages, pirq_inputs, hpet_inputs }
}

/// Makes and wires those beside local APICs in the kernel.
pub fn split(
    board: &mut Board,
    io: &Arc<AddressSpace>,
    chips: &Arc<dyn X86Chips>,
    pins: &[Arc<X86Pins>],
) -> Result<Interrupts, OptionError> {
    let irqfd = chips.has_irqfd();
    let apics = AcceleratedApics::new(chips.clone(), irqfd.then(|| chips.clone() as Arc<dyn IrqFd>));
    board.map(map::LOCAL_APIC, Arc::new(Doorbell(apics.clone())));
    let intr = IrqLine::to_sink(Arc::new(ExternalInterrupt(pins.to_vec())), 0);
    let (pic, pirq_inputs, hpet_inputs) = outside(board, io, apics.clone(), intr)?;
    Ok(Interrupts {
        apic: None,
        messages: apics.clone(),
        bus: Some(apics.clone()),
        irqfd: irqfd.then(|| apics.clone() as Arc<dyn IrqFd>),
        accelerated: Some((apics, pic)),
        pirq_inputs,
        hpet_inputs,
    })
}

/// The output of the 8259s: an input of all local APICs, which let it through or not.
struct ExternalInterrupt(Vec<Arc<X86Pins>>);

impl IrqSink for ExternalInterrupt {
    fn set_level(&self, _: u32, level: bool) {
        for pins in &self.0 {
            pins.set_intr(level);
        }
    }
}

/// Where devices write messages; processors reach the registers of their own local APIC there, in the kernel.
struct Doorbell(Arc<dyn MsiTarget>);

impl MmioDevice for Doorbell {
    fn read(&self, _offset: u64, _access: Access) -> Result<u64, BusError> {
        Ok(u64::MAX)
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        if access.cpu_index().is_none() {
            let address = map::LOCAL_APIC.start + offset;
            self.0.send(MsiMessage { address, data: value as u32, requester_id: 0 });
        }
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::implemented(4, 4)
    }
    fn name(&self) -> &str {
        "local APICs"
    }
}

fn outputs(pins: &Arc<X86Pins>) -> LapicOutputs {
    let signal = |bits: u32| {
        let pins = pins.clone();
        Box::new(move || pins.signal(bits)) as Box<dyn Fn() + Send + Sync>
    };
    let (intr, sipi) = (pins.clone(), pins.clone());
    LapicOutputs {
        intr: Box::new(move |level| intr.set_intr(level)),
        nmi: signal(pin::NMI),
        smi: signal(pin::SMI),
        init: signal(pin::INIT),
        sipi: Box::new(move |vector| sipi.startup(vector)),
    }
}

/// What interrupts the guest where it cannot defer it: an edge at LINT1 of all local APICs, which let it through or not.
pub fn nmi(apic: Option<&Arc<ApicBus>>, pins: &[Arc<X86Pins>]) -> Box<dyn Fn() + Send + Sync> {
    if let Some(apic) = apic {
        let line = apic.lint(1);
        return Box::new(move || line.pulse());
    }
    // What local APICs in the kernel let through is the kernel's to know. Firmware and guests open LINT1 of the boot processor.
    let boot = pins.first().cloned();
    Box::new(move || boot.iter().for_each(|pins| pins.signal(pin::NMI)))
}

/// Lets the guest move the registers of the local APICs: one more window for each address it chooses.
fn relocatable(board: &Board, apic: &Arc<ApicBus>) {
    /// A guest that moves them more often has them where it wanted them last, and where it wanted them first.
    const MOST: usize = 16;
    let windows: parking_lot::Mutex<Vec<(u64, Mapping)>> = parking_lot::Mutex::default();
    let (space, weak) = (board.space.clone(), Arc::downgrade(apic));
    apic.on_relocate(move |address| {
        let Some(apic) = weak.upgrade() else { return false };
        if windows.lock().iter().any(|w| w.0 == address) {
            return true;
        }
        let Ok(device) = apic.window_at(address) else { return false };
        let Ok(mapping) = space.map_mmio(Gpa(address), 0x1000, device, 3) else { return false };
        let mut windows = windows.lock();
        let dropped = (windows.len() >= MOST).then(|| windows.remove(0));
        windows.push((address, mapping));
        drop(windows);
        drop(dropped);
        true
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    #[derive(Default)]
    struct Seen(Mutex<Vec<(u32, bool)>>);
    impl IrqSink for Seen {
        fn set_level(&self, pin: u32, level: bool) {
            self.0.lock().push((pin, level));
        }
    }
    impl Seen {
        fn take(&self) -> Vec<(u32, bool)> {
            std::mem::take(&mut self.0.lock())
        }
    }

    #[test]
    fn sources_share_inputs() {
        let (apic, pic) = (Arc::new(Seen::default()), Arc::new(Seen::default()));
        let (apic_inputs, pic_inputs): (Arc<dyn IrqSink>, Arc<dyn IrqSink>) = (apic.clone(), pic.clone());
        let (io_apic, pic_side) = (Inputs::new(&apic_inputs, map::GSIS), Inputs::new(&pic_inputs, 16));
        let sink = IsaSink { io_apic, pic: pic_side, tells_end: true };
        // The interval timer.
        sink.set_level(0, true);
        assert_eq!((apic.take(), pic.take()), (vec![(2, true)], vec![(0, true)]));
        sink.set_level(2, true);
        assert_eq!((apic.take(), pic.take()), (vec![], vec![(2, true)]));
        // A PIRQ and an ISA device on interrupt 11 of the 8259s.
        sink.set_level(PIRQ_PINS + 11, true);
        sink.set_level(11, true);
        sink.set_level(PIRQ_PINS + 11, false);
        assert_eq!((apic.take(), pic.take()), (vec![(11, true)], vec![(11, true)]));
        sink.set_level(11, false);
        assert_eq!((apic.take(), pic.take()), (vec![(11, false)], vec![(11, false)]));
        // An event timer on an input of the I/O APIC that a PIRQ uses.
        sink.set_level(HPET_PINS + 20, true);
        sink.set_level(20, true);
        sink.set_level(HPET_PINS + 20, false);
        assert_eq!((apic.take(), pic.take()), (vec![(20, true)], vec![]));
        sink.set_level(20, false);
        assert_eq!(apic.take(), [(20, false)]);
    }
}
