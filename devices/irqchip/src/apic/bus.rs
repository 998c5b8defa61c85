//! The bus: all local APICs, and messages between them, from devices and from I/O APICs.

use super::lapic::Lapic;
use super::spec::{DEFAULT_BASE, Delivery, FIRST_VECTOR, Lvt, Message, base, esr, icr};
use super::timer::ApicTimer;
use super::window::Window;
use super::{
    ApicConfig, ApicError, ApicFault, EoiTarget, InterruptAcknowledge, InterruptRemapping, MAX_APIC_ID, MessageBus,
    Remapped,
};
use parking_lot::Mutex;
use rhea_accel::{IrqLine, IrqSink, MsiMessage, MsiTarget};
use rhea_device::log_guest_error;
use rhea_memory::MmioDevice;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, OnceLock, Weak};

/// The most I/O APICs.
const MAX_TARGETS: usize = 8;
/// The most places the registers can be moved to.
const MAX_PLACES: usize = 8;
/// No processor, in [`ApicBus::by_id`].
const NOBODY: u32 = u32::MAX;

/// Maps [`ApicBus::window`] at another address; false: it cannot.
type Relocate = Box<dyn Fn(u64) -> bool + Send + Sync>;

/// All local APICs of a machine. The methods with a processor's index are called on its thread.
pub struct ApicBus {
    pub(super) config: super::ApicConfig,
    pub(super) lapics: Vec<Lapic>,
    /// Processor index by initial APIC id.
    by_id: Vec<u32>,
    /// The guest has given some APIC another id.
    renamed: AtomicBool,
    targets: [OnceLock<Weak<dyn EoiTarget>>; MAX_TARGETS],
    external: OnceLock<Weak<dyn InterruptAcknowledge>>,
    relocate: OnceLock<Relocate>,
    /// Where the registers were moved to.
    places: Mutex<Vec<u64>>,
    /// Where the search for the lowest priority begins.
    next: AtomicU32,
    remapping: OnceLock<Weak<dyn InterruptRemapping>>,
}

impl ApicBus {
    /// # Errors
    /// [`ApicError`].
    pub fn new(mut config: ApicConfig) -> Result<Arc<Self>, ApicError> {
        let cpus = std::mem::take(&mut config.cpus);
        if !(1..=MAX_APIC_ID as usize).contains(&cpus.len()) {
            return Err(ApicError::Cpus(cpus.len()));
        }
        let mut by_id = Vec::new();
        for (index, cpu) in cpus.iter().enumerate() {
            if cpu.apic_id >= MAX_APIC_ID {
                return Err(ApicError::Id(cpu.apic_id));
            }
            let at = cpu.apic_id as usize;
            if by_id.len() <= at {
                by_id.resize(at + 1, NOBODY);
            }
            if by_id[at] != NOBODY {
                return Err(ApicError::SameId(cpu.apic_id));
            }
            by_id[at] = index as u32;
        }
        let bus = Arc::new_cyclic(|weak: &Weak<Self>| {
            let lapic = |(index, cpu): (usize, super::LapicConfig)| {
                let bus = weak.clone();
                let expired = move || {
                    if let Some(bus) = bus.upgrade()
                        && let Some(lapic) = bus.lapics.get(index)
                    {
                        lapic.timer_event(lapic.timer.expired());
                    }
                };
                let timer = ApicTimer::new(&config.clock, expired);
                Lapic::new(index as u32, cpu.apic_id, cpu.outputs, config.memory.clone(), timer)
            };
            let lapics = cpus.into_iter().enumerate().map(lapic).collect();
            Self {
                config,
                lapics,
                by_id,
                renamed: AtomicBool::new(false),
                targets: std::array::from_fn(|_| OnceLock::new()),
                external: OnceLock::new(),
                relocate: OnceLock::new(),
                places: Mutex::new(vec![DEFAULT_BASE]),
                next: AtomicU32::new(0),
                remapping: OnceLock::new(),
            }
        });
        bus.reset_all();
        Ok(bus)
    }
    pub(super) fn reset_all(&self) {
        for lapic in &self.lapics {
            lapic.reset(self.config.virtual_wire);
        }
        self.renamed.store(false, SeqCst);
    }
    /// The APIC has this id in xAPIC mode from now on, which others may have too.
    pub(super) fn rename(&self, lapic: &Lapic, id: u32) {
        if id == lapic.apic_id & 0xff {
            return lapic.xapic_id.store(lapic.apic_id, SeqCst);
        }
        self.renamed.store(true, SeqCst);
        lapic.xapic_id.store(id, SeqCst);
    }

    // ---- connections ----

    /// The region at [`DEFAULT_BASE`], [`super::WINDOW_LEN`] bytes: the registers of the accessing processor's APIC, and what devices
    /// write message-signalled interrupts to.
    #[must_use]
    pub fn window(self: &Arc<Self>) -> Arc<dyn MmioDevice> {
        Arc::new(Window { bus: self.clone(), base: DEFAULT_BASE })
    }
    /// The registers (4 KiB) where a guest moved them to.
    ///
    /// # Errors
    /// [`ApicError::Base`]: not a multiple of 4 KiB.
    pub fn window_at(self: &Arc<Self>, address: u64) -> Result<Arc<dyn MmioDevice>, ApicError> {
        if address & 0xfff != 0 {
            return Err(ApicError::Base(address));
        }
        Ok(Arc::new(Window { bus: self.clone(), base: address }))
    }
    /// Lets the guest move the registers: `map` is called on a vCPU's thread with each new address, and maps [`Self::window_at`] there
    /// above all else. Without it the registers stay at [`DEFAULT_BASE`] whatever IA32_APIC_BASE says.
    pub fn on_relocate(&self, map: impl Fn(u64) -> bool + Send + Sync + 'static) {
        // The first one stays.
        let _ = self.relocate.set(Box::new(map));
    }
    /// Who answers the acknowledge of an ExtINT: the 8259 pair. The first one stays.
    pub fn connect_external(&self, source: &Arc<impl InterruptAcknowledge + 'static>) {
        let source: Weak<dyn InterruptAcknowledge> = Arc::downgrade(&(source.clone() as Arc<dyn InterruptAcknowledge>));
        let _ = self.external.set(source);
    }
    /// Tells `target` of the ends of level-triggered interrupts.
    ///
    /// # Errors
    /// [`ApicError::IoApics`]: there are too many.
    pub fn connect_eoi(&self, target: &Arc<dyn EoiTarget>) -> Result<(), ApicError> {
        let free = self.targets.iter().any(|slot| slot.set(Arc::downgrade(target)).is_ok());
        if free { Ok(()) } else { Err(ApicError::IoApics(MAX_TARGETS)) }
    }
    /// The line into LINT0 (`pin` 0) or LINT1 (`pin` 1) of all local APICs.
    #[must_use]
    pub fn lint(self: &Arc<Self>, pin: u32) -> IrqLine {
        IrqLine::to_sink(Arc::new(Lints(self.clone())), pin & 1)
    }
    #[must_use]
    pub fn cpus(&self) -> usize {
        self.lapics.len()
    }
    /// The processor that has this initial (x2)APIC id.
    #[must_use]
    pub fn cpu_of(&self, apic_id: u32) -> Option<u32> {
        self.by_id.get(apic_id as usize).copied().filter(|n| *n != NOBODY)
    }

    // ---- what a processor does with its own APIC ----

    #[inline]
    pub(super) fn lapic(&self, cpu: u32) -> Option<&Lapic> {
        self.lapics.get(cpu as usize)
    }
    /// INTA: the vector of the interrupt that INTR announces, now in service; `None` if there is none any more.
    #[must_use]
    pub fn acknowledge(&self, cpu: u32) -> Option<u8> {
        self.lapic(cpu)?.acknowledge(self)
    }
    /// IA32_APIC_BASE.
    #[must_use]
    pub fn apic_base(&self, cpu: u32) -> u64 {
        self.lapic(cpu).map_or(0, |l| l.base.load(SeqCst))
    }
    /// Writes IA32_APIC_BASE (SDM 11.4.4, 11.12.5).
    ///
    /// # Errors
    /// [`ApicFault`]: reserved bits or a forbidden change of mode.
    pub fn set_apic_base(&self, cpu: u32, value: u64) -> Result<(), ApicFault> {
        let lapic = self.lapic(cpu).ok_or(ApicFault)?;
        let limit = 1u64.checked_shl(self.config.phys_bits.into()).unwrap_or(0).wrapping_sub(1);
        if value & !(limit & !0xfff | base::BSP | base::MODE) != 0 {
            return Err(ApicFault);
        }
        let place = value & !0xfff;
        let moved = (lapic.base.load(SeqCst) & !0xfff) != place;
        lapic.set_base(value, self.config.x2apic)?;
        if moved {
            self.relocate(place);
        }
        Ok(())
    }
    pub(super) fn relocate(&self, place: u64) {
        let refused = || log_guest_error!(self.config.log, "apic", "the registers cannot be moved to {place:#x}");
        let Some(map) = self.relocate.get() else { return refused() };
        {
            let mut places = self.places.lock();
            if places.contains(&place) {
                return;
            }
            if places.len() > MAX_PLACES {
                return refused();
            }
            places.push(place);
        }
        if !map(place) {
            refused();
        }
    }
    /// The APIC of `cpu`, if its registers answer at `address`.
    #[inline]
    pub(super) fn answering(&self, cpu: u32, address: u64) -> Option<&Lapic> {
        let lapic = self.lapic(cpu)?;
        let value = lapic.base.load(SeqCst);
        let here = value & !0xfff == address || self.relocate.get().is_none();
        (value & base::MODE == base::ENABLE && here).then_some(lapic)
    }
    /// RDMSR 0x800 to 0x8FF.
    ///
    /// # Errors
    /// [`ApicFault`].
    pub fn x2apic_read(&self, cpu: u32, msr: u32) -> Result<u64, ApicFault> {
        self.lapic(cpu).ok_or(ApicFault)?.read_x2apic(self, msr.wrapping_sub(0x800))
    }
    /// WRMSR 0x800 to 0x8FF.
    ///
    /// # Errors
    /// [`ApicFault`].
    pub fn x2apic_write(&self, cpu: u32, msr: u32, value: u64) -> Result<(), ApicFault> {
        self.lapic(cpu).ok_or(ApicFault)?.write_x2apic(self, msr.wrapping_sub(0x800), value)
    }
    /// CR8: the class of the task priority.
    #[must_use]
    pub fn tpr(&self, cpu: u32) -> u8 {
        self.lapic(cpu).map_or(0, |l| l.tpr.load(SeqCst) >> 4)
    }
    pub fn set_tpr(&self, cpu: u32, class: u8) {
        if let Some(lapic) = self.lapic(cpu) {
            lapic.set_tpr(class << 4);
        }
    }
    /// IA32_TSC_DEADLINE as ns of the virtual clock; `None` disarms. Ignored unless the timer is in that mode. A deadline that has
    /// passed makes the interrupt before this returns.
    pub fn set_tsc_deadline(&self, cpu: u32, deadline_ns: Option<u64>) {
        if let Some(lapic) = self.lapic(cpu) {
            lapic.timer_event(lapic.timer.set_deadline(deadline_ns));
        }
    }
    /// The deadline while it is armed: when `None`, IA32_TSC_DEADLINE reads as 0.
    #[must_use]
    pub fn tsc_deadline(&self, cpu: u32) -> Option<u64> {
        let lapic = self.lapic(cpu)?;
        let (deadline, expired) = lapic.timer.deadline();
        lapic.timer_event(expired);
        deadline
    }
    /// The processor took INIT.
    pub fn init(&self, cpu: u32) {
        if let Some(lapic) = self.lapic(cpu) {
            lapic.init();
        }
    }
    /// The word of the paravirtual EOI (its bit 0), `None` if it is off.
    pub fn set_pv_eoi(&self, cpu: u32, gpa: Option<u64>) {
        if let Some(lapic) = self.lapic(cpu) {
            lapic.set_pv_word(gpa.filter(|_| self.config.memory.is_some()));
        }
    }
    /// The paravirtual interrupt: the low word of ICR (delivery mode and vector) to one APIC id; false if there is none.
    pub fn pv_ipi(&self, cpu: u32, apic_id: u32, icr: u32) -> bool {
        let Some(sender) = self.lapic(cpu) else { return false };
        if self.cpu_of(apic_id).is_none() {
            return false;
        }
        self.send_icr(sender, icr & 0xffff & !icr::LOGICAL, apic_id, true);
        true
    }
    /// The processor's performance counters overflowed.
    pub fn performance_interrupt(&self, cpu: u32) {
        self.local(cpu, Lvt::Pmc);
    }
    /// The processor's thermal sensor changed.
    pub fn thermal_interrupt(&self, cpu: u32) {
        self.local(cpu, Lvt::Thermal);
    }
    /// Corrected machine checks reached their threshold.
    pub fn corrected_machine_check(&self, cpu: u32) {
        if self.config.cmci {
            self.local(cpu, Lvt::Cmci);
        }
    }
    fn local(&self, cpu: u32, entry: Lvt) {
        if let Some(lapic) = self.lapic(cpu) {
            lapic.local(entry);
        }
    }

    // ---- messages ----

    /// Calls `f` for the local APICs that `destination` means.
    fn for_destination<'a>(&'a self, message: &Message, mut f: impl FnMut(&'a Lapic)) {
        let Message { destination, logical, wide, .. } = *message;
        let everybody = if wide { u32::MAX } else { 0xff };
        if !logical && destination != everybody && !self.renamed.load(SeqCst) {
            if let Some(lapic) = self.cpu_of(destination).and_then(|n| self.lapic(n)) {
                f(lapic);
            }
            return;
        }
        if wide && logical && destination != everybody {
            // What x2APIC sends: a cluster and its 16 members.
            for bit in (0..16).filter(|bit| destination >> bit & 1 != 0) {
                let member = self.cpu_of((destination >> 16) << 4 | bit).and_then(|n| self.lapic(n));
                if let Some(lapic) = member.filter(|l| l.x2apic()) {
                    f(lapic);
                }
            }
            return;
        }
        for lapic in self.lapics.iter().filter(|l| l.matches(destination, logical, wide)) {
            f(lapic);
        }
    }
    /// Delivers a message; false: nobody took it.
    pub fn deliver(&self, message: &Message) -> bool {
        let mut taken = false;
        if message.delivery == Delivery::LowestPriority {
            // Those that would take it, the lowest priority first; among equal ones in turn.
            let count = self.lapics.len() as u32;
            let turn = self.next.load(Relaxed) % count;
            let mut best: Option<(u8, u32, &Lapic)> = None;
            self.for_destination(message, |lapic| {
                let key = (lapic.ppr() >> 4, (lapic.index + count - turn) % count);
                if lapic.enabled() && lapic.software_enabled() && best.is_none_or(|b| key < (b.0, b.1)) {
                    best = Some((key.0, key.1, lapic));
                }
            });
            if let Some((_, _, lapic)) = best {
                self.next.store(lapic.index + 1, Relaxed);
                taken = lapic.receive(message);
            }
        } else {
            self.for_destination(message, |lapic| taken |= lapic.receive(message));
        }
        taken
    }
    /// Sends what the low word of ICR says (SDM 11.6.1).
    pub(super) fn send_icr(&self, sender: &Lapic, low: u32, destination: u32, wide: bool) {
        let vector = low as u8;
        let delivery = match Delivery::of(low >> 8) {
            Some(delivery) if delivery != Delivery::ExtInt => delivery,
            _ => return log_guest_error!(self.config.log, "apic", "ICR with a reserved delivery mode: {low:#x}"),
        };
        if delivery == Delivery::Init && low & (icr::LEVEL | icr::ASSERT) == icr::LEVEL {
            // INIT level de-assert: only set arbitration ids, which there are none of.
            return;
        }
        if matches!(delivery, Delivery::Fixed | Delivery::LowestPriority) && vector < FIRST_VECTOR {
            sender.error(esr::SEND_ILLEGAL_VECTOR);
        }
        // Interrupts between processors are edge-triggered whatever bit 15 says.
        let message = Message { destination, logical: low & icr::LOGICAL != 0, wide, delivery, vector, level: false };
        match low >> 18 & 3 {
            0 => {
                self.deliver(&message);
            }
            1 => {
                sender.receive(&message);
            }
            shorthand if delivery == Delivery::LowestPriority => {
                // To all, with or without self, in turn like any other.
                let all = Message { destination: u32::MAX, logical: false, wide: true, ..message };
                if shorthand == 2 {
                    self.deliver(&all);
                } else {
                    self.lowest_of_others(sender, &all);
                }
            }
            shorthand => {
                for lapic in self.lapics.iter().filter(|l| shorthand == 2 || l.index != sender.index) {
                    lapic.receive(&message);
                }
            }
        }
    }
    fn lowest_of_others(&self, sender: &Lapic, message: &Message) {
        let others = self.lapics.iter().filter(|l| l.index != sender.index && l.enabled() && l.software_enabled());
        if let Some(lapic) = others.min_by_key(|l| l.ppr() >> 4) {
            lapic.receive(message);
        }
    }
    /// The SELF IPI register.
    pub(super) fn send_self(&self, sender: &Lapic, vector: u8) {
        if vector < FIRST_VECTOR {
            sender.error(esr::SEND_ILLEGAL_VECTOR);
        }
        sender.accept(vector, false);
    }
    pub(super) fn broadcast_eoi(&self, vector: u8) {
        for target in self.targets.iter().map_while(OnceLock::get).filter_map(Weak::upgrade) {
            target.end_of_interrupt(vector);
        }
    }
    pub(super) fn acknowledge_external(&self) -> Option<u8> {
        Some(self.external.get()?.upgrade()?.acknowledge())
    }
    /// Bits 7:0 of a destination, and the extension if there is one.
    pub(super) fn device_destination(&self, low: u32, extension: u32) -> u32 {
        if self.config.extended_destination { low | extension << 8 } else { low }
    }

    /// Text for `info lapic`: the APIC of one processor.
    #[must_use]
    pub fn describe(&self, cpu: u32) -> String {
        match self.lapic(cpu) {
            Some(lapic) if lapic.apic_id > 0xff => lapic.describe(" (not addressable in xAPIC mode)"),
            Some(lapic) => lapic.describe(""),
            None => format!("there is no CPU {cpu}\n"),
        }
    }
}

impl ApicBus {
    /// Puts interrupt remapping between devices and the bus; the first one stays.
    pub fn set_remapping(&self, remapping: Weak<dyn InterruptRemapping>) {
        let _ = self.remapping.set(remapping);
    }
    pub(super) fn remapping(&self) -> Option<Arc<dyn InterruptRemapping>> {
        self.remapping.get().and_then(Weak::upgrade)
    }
    /// Sends a message as it is (SDM 11.11): the address holds destination, redirection hint and destination mode, the data the rest.
    pub fn send_direct(&self, address: u64, data: u32) {
        let delivery = match Delivery::of(data >> 8) {
            Some(Delivery::StartUp) | None => None,
            // The redirection hint asks for the lowest priority among several.
            Some(Delivery::Fixed) if address & 0xc == 0xc => Some(Delivery::LowestPriority),
            other => other,
        };
        let (Some(delivery), DEFAULT_BASE) = (delivery, address & !0xf_ffff) else {
            return log_guest_error!(self.config.log, "apic", "message {data:#x} to {address:#x} is not an interrupt");
        };
        let level = data & 1 << 15 != 0;
        if level && data & 1 << 14 == 0 {
            // The level goes down: nothing is sent.
            return;
        }
        let destination = self.device_destination((address >> 12) as u32 & 0xff, (address >> 5) as u32 & 0x7f);
        let logical = address & 4 != 0;
        let message = Message { destination, logical, wide: false, delivery, vector: data as u8, level };
        self.deliver(&message);
    }
}

impl MsiTarget for ApicBus {
    fn send(&self, message: MsiMessage) {
        let MsiMessage { address, data, requester_id } = message;
        match self.remap(Some(requester_id as u16), address, data) {
            Remapped::Unchanged => self.send_direct(address, data),
            Remapped::Message(message) => {
                self.deliver(&message);
            }
            Remapped::Blocked => {}
        }
    }
}

/// LINT0 and LINT1 of all.
struct Lints(Arc<ApicBus>);

impl IrqSink for Lints {
    fn set_level(&self, pin: u32, level: bool) {
        for lapic in &self.0.lapics {
            lapic.set_lint(pin, level, true);
        }
    }
    fn import_level(&self, pin: u32, level: bool) {
        for lapic in &self.0.lapics {
            lapic.set_lint(pin, level, false);
        }
    }
}
