//! One local APIC: accepting, presenting and ending interrupts.

use super::bus::ApicBus;
use super::spec::{DEFAULT_BASE, Delivery, FIRST_VECTOR, LVTS, Lvt, Message, base, esr, lvt, svr};
use super::timer::{ApicTimer, Mode};
use super::vectors::Vectors;
use super::{ApicFault, LapicOutputs};
use rhea_memory::{Access, AddressSpace, Gpa};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};

/// No vector, in [`PvEoi::vector`].
const NONE: u32 = u32::MAX;
/// No word, in [`PvEoi::word`].
const OFF: u64 = u64::MAX;

/// The paravirtual EOI: a bit in memory that the guest may clear instead of writing EOI.
///
/// It is set when an edge-triggered interrupt is alone in service. Whether the guest has cleared it is looked at on the processor's own
/// thread only, so that the guest needs no atomic access. Until then INTR is computed as if the interrupt had ended: if another one
/// comes, the processor at worst acknowledges in vain, and the bit is taken back.
pub struct PvEoi {
    memory: Option<Arc<AddressSpace>>,
    word: AtomicU64,
    /// The vector that the bit stands for.
    vector: AtomicU32,
}

/// A local APIC. Everything that another thread may look at is an atomic; see the locks of [`super`].
pub struct Lapic {
    pub index: u32,
    /// The initial id, which is that of x2APIC mode.
    pub apic_id: u32,
    /// The id in xAPIC mode: the initial one, or the 8 bits that the guest wrote.
    pub xapic_id: AtomicU32,
    pub out: LapicOutputs,
    pub irr: Vectors,
    pub isr: Vectors,
    /// Of the vectors in IRR or ISR: came level-triggered.
    pub tmr: Vectors,
    pub tpr: AtomicU8,
    /// IA32_APIC_BASE.
    pub base: AtomicU64,
    pub svr: AtomicU32,
    pub ldr: AtomicU32,
    pub dfr: AtomicU32,
    pub lvt: [AtomicU32; LVTS],
    pub icr: AtomicU64,
    /// The error status register, as it was at the last write.
    pub esr: AtomicU32,
    /// Errors since.
    pub errors: AtomicU32,
    /// Bits 0 and 1: levels of the inputs LINT0 and LINT1.
    pub lint: AtomicU8,
    /// An ExtINT message came.
    pub ext_int: AtomicBool,
    pub pv: PvEoi,
    pub timer: ApicTimer,
}

impl Lapic {
    pub fn new(
        index: u32,
        apic_id: u32,
        out: LapicOutputs,
        memory: Option<Arc<AddressSpace>>,
        timer: ApicTimer,
    ) -> Self {
        Self {
            index,
            apic_id,
            xapic_id: AtomicU32::new(apic_id),
            out,
            irr: Vectors::default(),
            isr: Vectors::default(),
            tmr: Vectors::default(),
            tpr: AtomicU8::new(0),
            base: AtomicU64::new(DEFAULT_BASE | base::ENABLE),
            svr: AtomicU32::new(0xff),
            ldr: AtomicU32::new(0),
            dfr: AtomicU32::new(u32::MAX),
            lvt: std::array::from_fn(|_| AtomicU32::new(lvt::MASK)),
            icr: AtomicU64::new(0),
            esr: AtomicU32::new(0),
            errors: AtomicU32::new(0),
            lint: AtomicU8::new(0),
            ext_int: AtomicBool::new(false),
            pv: PvEoi { memory, word: AtomicU64::new(OFF), vector: AtomicU32::new(NONE) },
            timer,
        }
    }

    /// IA32_APIC_BASE enables the APIC.
    #[inline]
    pub fn enabled(&self) -> bool {
        self.base.load(SeqCst) & base::ENABLE != 0
    }
    #[inline]
    pub fn x2apic(&self) -> bool {
        self.base.load(SeqCst) & base::MODE == base::MODE
    }
    pub fn lvt(&self, entry: Lvt) -> u32 {
        self.lvt[entry as usize].load(SeqCst)
    }
    #[inline]
    pub fn software_enabled(&self) -> bool {
        self.svr.load(SeqCst) & svr::ENABLE != 0
    }

    // ---- priorities and the level of INTR ----

    /// The processor priority for `in_service`: the higher class of TPR and of the interrupt in service (SDM 11.8.3.1).
    #[inline]
    fn priority(&self, in_service: Option<u8>) -> u8 {
        let (tpr, isr) = (self.tpr.load(SeqCst), in_service.unwrap_or(0));
        if tpr >> 4 >= isr >> 4 { tpr } else { isr & 0xf0 }
    }
    #[inline]
    pub fn ppr(&self) -> u8 {
        self.priority(self.isr.highest())
    }
    /// An ExtINT interrupt waits.
    fn external(&self) -> bool {
        let lint0 = self.lint.load(SeqCst) & 1 != 0;
        if !self.enabled() {
            return lint0;
        }
        let entry = self.lvt(Lvt::Lint0);
        self.ext_int.load(SeqCst)
            || lint0 && entry & lvt::MASK == 0 && Delivery::of(entry >> 8) == Some(Delivery::ExtInt)
    }
    /// The highest vector that the processor would take with `in_service`.
    #[inline]
    fn candidate(&self, in_service: Option<u8>) -> Option<u8> {
        if !self.enabled() {
            return None;
        }
        self.irr.highest().filter(|vector| vector >> 4 > self.priority(in_service) >> 4)
    }
    #[inline]
    fn wanted(&self) -> bool {
        let in_service = if self.pv.vector.load(SeqCst) == NONE { self.isr.highest() } else { None };
        self.candidate(in_service).is_some() || self.external()
    }
    /// Sets INTR after a change.
    pub fn update(&self) {
        let mut level = self.wanted();
        loop {
            (self.out.intr)(level);
            let now = self.wanted();
            if now == level {
                return;
            }
            level = now;
        }
    }

    // ---- interrupts that come ----

    /// Takes a fixed interrupt; false: the APIC does not accept it.
    #[inline]
    pub fn accept(&self, vector: u8, level: bool) -> bool {
        if !self.software_enabled() || !self.enabled() {
            return false;
        }
        if vector < FIRST_VECTOR {
            self.error(esr::RECEIVE_ILLEGAL_VECTOR);
            return true;
        }
        self.tmr.assign(vector, level);
        self.irr.set(vector);
        self.update();
        true
    }
    /// Takes a message that is for this APIC.
    #[inline]
    pub fn receive(&self, message: &Message) -> bool {
        match message.delivery {
            Delivery::Fixed | Delivery::LowestPriority => return self.accept(message.vector, message.level),
            _ if !self.enabled() => return false,
            Delivery::Smi => (self.out.smi)(),
            Delivery::Nmi => (self.out.nmi)(),
            Delivery::Init => (self.out.init)(),
            Delivery::StartUp => (self.out.sipi)(message.vector),
            Delivery::ExtInt => {
                self.ext_int.store(true, SeqCst);
                self.update();
            }
        }
        true
    }
    /// Notes an error; the first one since the last write of ESR makes the error interrupt.
    pub fn error(&self, bit: u32) {
        if self.errors.fetch_or(bit, SeqCst) == 0 {
            self.local(Lvt::Error);
        }
    }
    /// An event of the local vector table.
    pub fn local(&self, entry: Lvt) {
        let value = self.lvt(entry);
        if value & lvt::MASK != 0 || !self.enabled() {
            return;
        }
        let vector = (value & lvt::VECTOR) as u8;
        match Delivery::of(value >> 8) {
            Some(Delivery::Fixed) => {
                self.accept(vector, false);
            }
            Some(Delivery::Smi) => (self.out.smi)(),
            Some(Delivery::Nmi) => (self.out.nmi)(),
            Some(Delivery::Init) => (self.out.init)(),
            // ExtINT is a level of LINT0; the others are reserved.
            _ => {}
        }
        if entry == Lvt::Pmc {
            self.lvt[entry as usize].fetch_or(lvt::MASK, SeqCst);
        }
    }
    /// The level of LINT0 (`pin` 0) or LINT1 changes.
    pub fn set_lint(&self, pin: u32, level: bool, edge: bool) {
        let bit = 1u8 << (pin & 1);
        let old = if level { self.lint.fetch_or(bit, SeqCst) } else { self.lint.fetch_and(!bit, SeqCst) };
        let rising = level && edge && old & bit == 0;
        if !self.enabled() {
            // The inputs are the processor's INTR and NMI then.
            match pin & 1 {
                0 => self.update(),
                _ if rising => (self.out.nmi)(),
                _ => {}
            }
            return;
        }
        let entry = Lvt::lint(pin);
        let value = self.lvt(entry);
        match Delivery::of(value >> 8) {
            Some(Delivery::ExtInt) => self.update(),
            Some(Delivery::Fixed) if value & lvt::LEVEL != 0 => self.service_lint(pin),
            _ if rising => self.local(entry),
            _ => {}
        }
    }
    /// Makes the interrupt of a level-triggered LINT input that is up and not in service.
    pub fn service_lint(&self, pin: u32) {
        let entry = Lvt::lint(pin);
        let value = self.lvt(entry);
        let fixed_level = value & (lvt::DELIVERY | lvt::LEVEL | lvt::MASK) == lvt::LEVEL;
        if fixed_level && self.lint.load(SeqCst) >> (pin & 1) & 1 != 0 {
            let old = self.lvt[entry as usize].fetch_or(lvt::REMOTE_IRR, SeqCst);
            if old & lvt::REMOTE_IRR == 0 && !self.accept((value & lvt::VECTOR) as u8, true) {
                self.lvt[entry as usize].fetch_and(!lvt::REMOTE_IRR, SeqCst);
            }
        }
    }

    // ---- what the processor does ----

    /// INTA by the processor.
    pub fn acknowledge(&self, bus: &ApicBus) -> Option<u8> {
        self.sync_pv();
        if self.external() {
            self.ext_int.store(false, SeqCst);
            if let Some(vector) = bus.acknowledge_external() {
                self.update();
                return Some(vector);
            }
        }
        let in_service = self.isr.highest();
        let vector = self.candidate(in_service);
        if let Some(vector) = vector {
            self.isr.set(vector);
            self.irr.clear(vector);
            if in_service.is_none() {
                self.offer_pv(vector);
            }
        }
        self.update();
        vector
    }
    /// EOI.
    pub fn end(&self, bus: &ApicBus) {
        self.sync_pv();
        let Some(vector) = self.isr.highest() else { return };
        self.isr.clear(vector);
        if self.tmr.contains(vector) {
            for pin in 0..2 {
                let entry = &self.lvt[Lvt::lint(pin) as usize];
                if entry.load(SeqCst) & (lvt::REMOTE_IRR | lvt::VECTOR) == lvt::REMOTE_IRR | u32::from(vector) {
                    entry.fetch_and(!lvt::REMOTE_IRR, SeqCst);
                    self.service_lint(pin);
                }
            }
            self.update();
            if self.svr.load(SeqCst) & svr::NO_EOI_BROADCAST == 0 {
                bus.broadcast_eoi(vector);
            }
        } else {
            self.update();
        }
    }
    pub fn set_tpr(&self, tpr: u8) {
        self.tpr.store(tpr, SeqCst);
        self.update();
    }
    /// Writes an entry of the local vector table.
    pub fn set_lvt(&self, entry: Lvt, value: u32, tsc_deadline: bool) {
        let writable = entry.writable(tsc_deadline);
        let mut value = value & writable;
        if !self.software_enabled() {
            value |= lvt::MASK;
        }
        let keep = if value & lvt::LEVEL != 0 { lvt::REMOTE_IRR } else { 0 };
        let change = |old: u32| Some(old & keep | value);
        // It always changes.
        let _ = self.lvt[entry as usize].fetch_update(SeqCst, SeqCst, change);
        match entry {
            Lvt::Timer if self.timer.set_mode(Mode::of(value)) => self.local(Lvt::Timer),
            Lvt::Lint0 | Lvt::Lint1 => {
                self.service_lint(u32::from(entry == Lvt::Lint1));
                self.update();
            }
            _ => {}
        }
    }
    pub fn set_svr(&self, value: u32) {
        let writable = svr::VECTOR | svr::ENABLE | svr::FOCUS_OFF | svr::NO_EOI_BROADCAST;
        self.svr.store(value & writable, SeqCst);
        if value & svr::ENABLE == 0 {
            for entry in &self.lvt {
                entry.fetch_or(lvt::MASK, SeqCst);
            }
            self.update();
        }
    }
    /// The timer expired if `expired`.
    pub fn timer_event(&self, expired: bool) {
        if expired {
            self.local(Lvt::Timer);
        }
    }

    // ---- paravirtual EOI ----

    /// The word in memory, `None`: off.
    pub fn set_pv_word(&self, word: Option<u64>) {
        self.sync_pv();
        self.pv.word.store(word.unwrap_or(OFF), SeqCst);
    }
    pub fn pv_word(&self) -> Option<u64> {
        Some(self.pv.word.load(SeqCst)).filter(|w| *w != OFF)
    }
    /// `vector` is alone in service: lets the guest end it by the bit in memory.
    fn offer_pv(&self, vector: u8) {
        let word = self.pv.word.load(SeqCst);
        let Some(memory) = &self.pv.memory else { return };
        if word == OFF || self.tmr.contains(vector) || !self.irr.is_empty() {
            return;
        }
        if memory.store(Gpa(word), 1, Access::cpu(self.index, 1)).is_ok() {
            self.pv.vector.store(vector.into(), SeqCst);
        }
    }
    /// On the processor's thread, or while it stands still: finds out whether the guest ended the interrupt by the bit in memory, and takes the offer back.
    pub fn sync_pv(&self) {
        let vector = self.pv.vector.load(SeqCst);
        if vector == NONE {
            return;
        }
        let (word, access) = (Gpa(self.pv.word.load(SeqCst)), Access::cpu(self.index, 1));
        let bits = self.pv.memory.as_ref().and_then(|m| m.load(word, access).ok());
        match (bits, &self.pv.memory) {
            (Some(bits), Some(memory)) if bits & 1 != 0 => {
                // If this fails the guest ends the interrupt without a write of EOI; only its own memory map can cause that.
                let _ = memory.store(word, bits & !1, access);
            }
            (Some(_), _) => {
                self.isr.clear(vector as u8);
            }
            _ => {}
        }
        self.pv.vector.store(NONE, SeqCst);
        self.update();
    }

    // ---- reset and IA32_APIC_BASE ----

    /// The registers after power-up, reset or INIT (SDM 11.4.7.1, 11.4.7.3); ids, IA32_APIC_BASE, TPR and the levels of the inputs stay.
    fn reset_registers(&self) {
        self.pv.vector.store(NONE, SeqCst);
        for set in [&self.irr, &self.isr, &self.tmr] {
            set.store([0; 4]);
        }
        self.svr.store(0xff, SeqCst);
        self.ldr.store(0, SeqCst);
        self.dfr.store(u32::MAX, SeqCst);
        self.icr.store(0, SeqCst);
        self.esr.store(0, SeqCst);
        self.errors.store(0, SeqCst);
        self.ext_int.store(false, SeqCst);
        for entry in &self.lvt {
            entry.store(lvt::MASK, SeqCst);
        }
        self.timer.load(super::timer::Count::new());
    }
    /// The state after INIT: as after power-up, but IA32_APIC_BASE and the mode stay.
    pub fn init(&self) {
        self.reset_registers();
        self.tpr.store(0, SeqCst);
        self.pv.word.store(OFF, SeqCst);
        self.update();
    }
    /// Power-up. `virtual_wire`: see [`super::ApicConfig::virtual_wire`].
    pub fn reset(&self, virtual_wire: bool) {
        self.reset_registers();
        self.xapic_id.store(self.apic_id, SeqCst);
        self.tpr.store(0, SeqCst);
        self.pv.word.store(OFF, SeqCst);
        let bsp = if self.index == 0 { base::BSP } else { 0 };
        self.base.store(DEFAULT_BASE | base::ENABLE | bsp, SeqCst);
        if virtual_wire && self.index == 0 {
            self.lvt[Lvt::Lint0 as usize].store(7 << 8, SeqCst);
        }
        self.update();
    }
    /// Writes IA32_APIC_BASE; the caller has checked the address bits. SDM 11.12.5: which changes of mode are allowed.
    pub fn set_base(&self, value: u64, x2apic: bool) -> Result<(), ApicFault> {
        let old = self.base.load(SeqCst);
        let allowed = match (old & base::MODE, value & base::MODE) {
            (_, base::X2APIC) => false,
            (_, base::MODE) if !x2apic => false,
            (0, base::MODE) | (base::MODE, base::ENABLE) => false,
            _ => true,
        };
        if !allowed {
            return Err(ApicFault);
        }
        self.sync_pv();
        self.base.store(value, SeqCst);
        if old & base::MODE != value & base::MODE {
            match value & base::MODE {
                // On again it is as after power-up.
                0 => {
                    self.xapic_id.store(self.apic_id, SeqCst);
                    self.reset_registers();
                }
                base::MODE => {
                    self.icr.fetch_and(0xffff_ffff, SeqCst);
                }
                _ => {}
            }
            self.update();
        }
        Ok(())
    }

    // ---- destinations ----

    /// The id that physical destinations mean.
    #[inline]
    pub fn physical_id(&self) -> u32 {
        if self.x2apic() { self.apic_id } else { self.xapic_id.load(SeqCst) }
    }
    /// The logical destination register as the guest sees it.
    pub fn logical_id(&self) -> u32 {
        if self.x2apic() { x2apic_logical_id(self.apic_id) } else { self.ldr.load(SeqCst) }
    }
    /// Is a message with this destination for this APIC? (SDM 11.6.2, 11.12.9)
    pub fn matches(&self, destination: u32, logical: bool, wide: bool) -> bool {
        let everybody = if wide { u32::MAX } else { 0xff };
        if !logical {
            return destination == everybody || destination == self.physical_id();
        }
        if self.x2apic() {
            let id = x2apic_logical_id(self.apic_id);
            return destination == u32::MAX || destination >> 16 == id >> 16 && destination & id & 0xffff != 0;
        }
        // Only 8 bits reach an APIC in xAPIC mode.
        if destination == everybody {
            return true;
        }
        let ldr = self.ldr.load(SeqCst) >> 24;
        if destination > 0xff {
            return false;
        }
        match self.dfr.load(SeqCst) >> 28 {
            0xf => destination & ldr != 0,
            0 => (destination >> 4 == ldr >> 4 || destination >> 4 == 0xf) && destination & ldr & 0xf != 0,
            _ => false,
        }
    }

    /// A line of text per register that says something, for `info lapic`.
    pub fn describe(&self, initial_bits: &str) -> String {
        let base_reg = self.base.load(SeqCst);
        let mode = match base_reg & base::MODE {
            base::MODE => "x2APIC",
            base::ENABLE => "xAPIC",
            _ => "disabled",
        };
        let (svr_reg, timer) = (self.svr.load(SeqCst), self.timer.save());
        let mut text = format!(
            "local APIC of CPU {}: id {:#x}{initial_bits}, {mode}, IA32_APIC_BASE {base_reg:#x}{}\n\
             \x20 SVR {svr_reg:#06x} ({})  TPR {:#04x}  PPR {:#04x}  LDR {:#010x}  DFR {:#010x}\n\
             \x20 ESR {:#04x}  ICR {:#018x}  LINT0 {}  LINT1 {}\n",
            self.index,
            self.physical_id(),
            if base_reg & base::BSP != 0 { " BSP" } else { "" },
            if svr_reg & svr::ENABLE != 0 { "enabled" } else { "disabled" },
            self.tpr.load(SeqCst),
            self.ppr(),
            self.logical_id(),
            self.dfr.load(SeqCst),
            self.esr.load(SeqCst),
            self.icr.load(SeqCst),
            self.lint.load(SeqCst) & 1,
            self.lint.load(SeqCst) >> 1,
        );
        for (entry, name) in Lvt::ALL {
            let value = self.lvt(entry);
            let masked = if value & lvt::MASK != 0 { " masked" } else { "" };
            let remote = if value & lvt::REMOTE_IRR != 0 { " remote-irr" } else { "" };
            let trigger = if value & lvt::LEVEL != 0 { "level" } else { "edge" };
            let delivery = match Delivery::of(value >> 8) {
                Some(delivery) => format!("{delivery:?}"),
                None => "reserved".to_owned(),
            };
            let vector = value & lvt::VECTOR;
            text += &format!("  LVT {name:<7} {value:#010x} {delivery} vector {vector} {trigger}{masked}{remote}\n");
        }
        text += &format!(
            "  timer {:?}  initial {:#x}  divide {:#x}  deadline {:?}\n  ISR {}\n  IRR {}\n",
            timer.mode,
            timer.initial,
            timer.divide,
            timer.deadline,
            self.isr.list(),
            self.irr.list(),
        );
        text
    }
}

/// Cluster and bit (SDM 11.12.10.2).
pub fn x2apic_logical_id(apic_id: u32) -> u32 {
    (apic_id & !0xf) << 12 | 1 << (apic_id & 0xf)
}
