//! The remapping hardware unit: its registers, and the requests of devices.

use crate::cache::{Cache, Found, Scope};
use crate::faults::{self, Event, Recorder};
use crate::interrupts::{self, Outcome, Table};
use crate::invalidation;
use crate::registers::{self as reg, Registers, global};
use crate::tables::{Context, Fault, Leaf, Memory, Survey, context, reason, walk};
use crate::{NAME, VtdOptions};
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_accel::MsiMessage;
use rhea_device::dma::{DmaHandle, DmaWindow, Iommu, Translated, Translation, TranslationListener, Translations};
use rhea_device::{Device, LoadError, Log, Saved, log_guest_error, state};
use rhea_irqchip::apic::{InterruptRemapping, MessageBus, Remapped};
use rhea_memory::{Access, AccessRules, AddressSpace, BusError, GpaRange, MmioDevice};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Interrupt requests are stores into this MiB.
const INTERRUPTS: u64 = 0xfee0_0000;
const INTERRUPTS_LEN: u64 = 0x10_0000;
/// The requester that reads tables: none on a PCI bus.
const OWN_REQUESTER: u32 = 0x1_0020;

/// Where the unit sits.
pub struct VtdWiring {
    /// System memory, with the tables.
    pub memory: Arc<AddressSpace>,
    pub apic: Arc<dyn MessageBus>,
    pub log: Log,
}

struct State {
    registers: Registers,
    recorder: Recorder,
}

/// Saved state.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct VtdState {
    #[n(0)]
    words: Vec<u32>,
    #[n(1)]
    next_fault: u16,
    #[n(2)]
    root: u64,
    #[n(3)]
    interrupts: u64,
}

/// The unit; its register window is an [`MmioDevice`] of 4 KiB.
pub struct Vtd {
    options: VtdOptions,
    apic: Arc<dyn MessageBus>,
    memory: Memory,
    log: Log,
    state: Mutex<State>,
    cache: Cache,
    /// The root table, with [`ON`].
    root: AtomicU64,
    /// An [`interrupts::Table`].
    interrupts: AtomicU64,
    /// Software has said since [`Vtd::told`] that entries of that table may be others.
    stale: AtomicBool,
}

/// Translation is on, in [`Vtd::root`].
const ON: u64 = 1;
/// The kind of tables, in [`Vtd::root`]: others than legacy ones are not offered.
const TABLE_MODE: u64 = 3 << 10;

impl Vtd {
    /// Where the q35 board has it.
    pub const BASE: u64 = 0xfed9_0000;
    pub const LENGTH: u64 = reg::LENGTH;

    /// The unit, with everything off.
    #[must_use]
    pub fn new(options: VtdOptions, wiring: VtdWiring) -> Arc<Self> {
        let VtdWiring { memory, apic, log } = wiring;
        Arc::new(Self {
            options,
            apic,
            memory: Memory(DmaHandle::new(memory, OWN_REQUESTER)),
            log,
            state: Mutex::new(State { registers: Registers::new(&options), recorder: Recorder::default() }),
            cache: Cache::default(),
            root: AtomicU64::new(0),
            interrupts: AtomicU64::new(0),
            stale: AtomicBool::new(false),
        })
    }
    #[must_use]
    pub fn options(&self) -> &VtdOptions {
        &self.options
    }
    /// Text for `info iommu`.
    #[must_use]
    pub fn describe(&self) -> String {
        let (root, table) = (self.root.load(Ordering::Acquire), self.interrupts.load(Ordering::Acquire));
        let on = |bit| if bit { "on" } else { "off" };
        let (contexts, pages) = self.cache.size();
        format!(
            "translation {}, root table {:#x}; interrupt remapping {}, table {:#x}\n{contexts} contexts and {pages} pages cached\n",
            on(root & ON != 0),
            root & !0xfff,
            on(table & Table::ON != 0),
            table & !0xfff,
        )
    }

    fn send(&self, events: impl IntoIterator<Item = Event>) {
        for (address, data) in events {
            // The unit's own messages are not remapped.
            self.apic.send_direct(address, data);
        }
    }
    fn record(&self, source: u16, fault: Fault, information: u64, read: bool) {
        log_guest_error!(self.log, "intel-iommu", "fault {:#x} of device {source:#x}", fault.reason);
        if fault.silent {
            return;
        }
        let event = {
            let State { registers, recorder } = &mut *self.state.lock();
            recorder.record(registers, source, fault.reason, information, read)
        };
        self.send(event);
    }

    // ---- requests ----

    /// The tables' answer, remembered.
    fn look_up(&self, root: u64, source: u16, address: u64, write: bool) -> Result<(Context, Option<Leaf>), Fault> {
        let epoch = self.cache.epoch();
        let context = match self.cache.find(source, address) {
            Found::Context(context) | Found::Page(context, _) => context,
            Found::Nothing => context(&self.memory, &self.options, root, source)?,
        };
        if address >> context.width != 0 {
            return Err(Fault { reason: reason::BEYOND_WIDTH, silent: context.silent });
        }
        let leaf = match context.table {
            Some(table) => Some(walk(&self.memory, &self.options, &context, table, address, write)?),
            None => None,
        };
        self.cache.insert(epoch, source, context, leaf.map(|l| (address, l)));
        Ok((context, leaf))
    }
    fn through(&self, root: u64, source: u16, address: u64, write: bool) -> Result<Translation, Fault> {
        let (context, leaf) = match self.cache.find(source, address) {
            Found::Page(context, leaf) if if write { leaf.write } else { leaf.read } => (context, Some(leaf)),
            Found::Context(context) if context.table.is_none() && address >> context.width == 0 => (context, None),
            _ => self.look_up(root, source, address, write)?,
        };
        Ok(match leaf {
            Some(leaf) => {
                let last = address | ((1 << leaf.shift) - 1);
                Translation::Memory { gpa: leaf.page | address & 0xfff, len: last - address + 1 }
            }
            None => plain(address, 1 << context.width),
        })
    }

    // ---- registers ----

    /// A write of the global command register (11.4.4): the state follows at once.
    fn command(&self, registers: &mut Registers, value: u32, events: &mut Vec<Event>) {
        let status = registers.get(reg::GLOBAL_STATUS);
        let changed = status ^ value;
        let mut set = |bits: u32, on: bool| {
            registers.change(reg::GLOBAL_STATUS, if on { 0 } else { bits }, if on { bits } else { 0 });
        };
        let toggle = |bit: u32| changed & bit != 0;
        if value & global::SET_ROOT != 0 {
            set(global::SET_ROOT, true);
        }
        if value & global::SET_INTERRUPTS != 0 && self.options.interrupt_remapping {
            set(global::SET_INTERRUPTS, true);
        }
        for bit in [global::TRANSLATION, global::QUEUE] {
            set(bit, value & bit != 0);
        }
        if self.options.interrupt_remapping {
            for bit in [global::REMAPPING, global::COMPATIBILITY] {
                set(bit, value & bit != 0);
            }
        }
        if toggle(global::QUEUE) {
            registers.set(reg::QUEUE_HEAD, 0);
            if value & global::QUEUE != 0 {
                self.run_queue(registers, events);
            }
        }
        let on = |bit: u32| registers.get(reg::GLOBAL_STATUS) & bit != 0;
        let root = if value & global::SET_ROOT != 0 {
            registers.get64(reg::ROOT_TABLE)
        } else {
            self.root.load(Ordering::Acquire)
        };
        self.root.store(root & !ON | if on(global::TRANSLATION) { ON } else { 0 }, Ordering::Release);
        let table = if value & global::SET_INTERRUPTS != 0 {
            let extended = if self.options.extended_interrupts { 0 } else { Table::EXTENDED };
            registers.get64(reg::INTERRUPT_TABLE) & !extended
        } else {
            self.interrupts.load(Ordering::Acquire)
        };
        let bits = [(global::REMAPPING, Table::ON), (global::COMPATIBILITY, Table::COMPATIBILITY)];
        let flags = bits.iter().fold(0, |all, (bit, flag)| all | if on(*bit) { *flag } else { 0 });
        self.interrupts.store(table & !(Table::ON | Table::COMPATIBILITY) | flags, Ordering::Release);
        self.stale.store(true, Ordering::Release);
        if value & global::SET_ROOT != 0 || toggle(global::TRANSLATION) {
            self.forget();
        }
    }
    fn forget(&self) {
        self.cache.forget_contexts(|_, _| true);
        self.cache.forget(Scope::Everything);
    }
    fn run_queue(&self, registers: &mut Registers, events: &mut Vec<Event>) {
        if invalidation::run(registers, &self.cache, &self.memory, &self.options, events) {
            self.stale.store(true, Ordering::Release);
        }
    }
    /// Tells those that keep answers of interrupt remapping, and those that keep translations elsewhere; without the registers' lock.
    fn told(&self) {
        let root = self.root.load(Ordering::Acquire);
        self.cache.followers.tell(|source| {
            let found = context(&self.memory, &self.options, root & !0xfff, source);
            found.ok().filter(|_| root & (ON | TABLE_MODE) == ON).map(|context| context.domain)
        });
        if self.stale.swap(false, Ordering::AcqRel) {
            self.apic.remapping_changed();
        }
    }
    fn queued(registers: &Registers) -> bool {
        registers.get(reg::GLOBAL_STATUS) & global::QUEUE != 0
    }
    /// A write of the word at `at`; the messages it makes.
    fn write_word(&self, at: u16, value: u32) -> Vec<Event> {
        let State { registers, .. } = &mut *self.state.lock();
        let mut events = Vec::new();
        let keep = !reg::storage(at);
        match at {
            reg::GLOBAL_COMMAND => self.command(registers, value, &mut events),
            reg::FAULT_STATUS => {
                faults::clear_status(registers, value);
                // The queue goes on once its error is cleared.
                if Self::queued(registers) {
                    self.run_queue(registers, &mut events);
                }
            }
            reg::FAULT_CONTROL | reg::COMPLETION_CONTROL => events.extend(faults::write_control(registers, at, value)),
            reg::COMPLETION_STATUS => {
                registers.change(at, value & 1, 0);
                if value & 1 != 0 {
                    registers.change(reg::COMPLETION_CONTROL, reg::event::PENDING, 0);
                }
            }
            reg::QUEUE_TAIL => {
                registers.change(at, !keep, value & !keep);
                if Self::queued(registers) {
                    self.run_queue(registers, &mut events);
                }
            }
            // The upper halves of commands start them.
            0x2c | 0xfc => {
                let low = at - 4;
                let command = u64::from(value) << 32 | u64::from(registers.get(low));
                let result = if Self::queued(registers) {
                    log_guest_error!(self.log, "intel-iommu", "invalidation by register beside the queue");
                    command & !(1 << 63)
                } else if low == reg::CONTEXT_COMMAND {
                    invalidation::context_command(&self.cache, command)
                } else {
                    invalidation::iotlb(&self.cache, command, registers.get64(reg::INVALIDATE_ADDRESS))
                };
                registers.set64(low, result);
            }
            _ if faults::is_record(at) => {
                if value & reg::fault::RECORDED != 0 {
                    faults::clear_record(registers, at);
                }
            }
            _ if keep == u32::MAX => log_guest_error!(self.log, "intel-iommu", "write of register {at:#x}"),
            _ => registers.change(at, !keep, value & !keep),
        }
        events
    }
}

/// Addresses that stay as they are, below `end`, up to the interrupt requests.
fn plain(address: u64, end: u64) -> Translation {
    let end = if address < INTERRUPTS { end.min(INTERRUPTS) } else { end };
    Translation::Memory { gpa: address, len: end.saturating_sub(address).max(1) }
}

impl Iommu for Vtd {
    fn translate(&self, requester: u32, address: u64, write: bool) -> Result<Translation, BusError> {
        let root = self.root.load(Ordering::Acquire);
        if address.wrapping_sub(INTERRUPTS) < INTERRUPTS_LEN {
            return if write { Ok(Translation::Interrupt) } else { Err(BusError::Refused) };
        }
        if root & ON == 0 {
            return Ok(plain(address, u64::MAX));
        }
        let source = requester as u16;
        if root & TABLE_MODE != 0 {
            self.record(source, Fault::loud(reason::ROOT_MODE), address & !0xfff, !write);
            return Err(BusError::Refused);
        }
        self.through(root & !0xfff, source, address, write).map_err(|fault| {
            self.record(source, fault, address & !0xfff, !write);
            BusError::Refused
        })
    }
    fn interrupt(&self, requester: u32, address: u64, data: u32) {
        self.apic.send(MsiMessage { address, data, requester_id: requester });
    }
    fn watch(&self, requester: u32, ranges: &[GpaRange]) -> Arc<AtomicBool> {
        self.cache.watch(requester as u16, ranges)
    }
    fn follow(
        self: Arc<Self>,
        requester: u32,
        listener: Weak<dyn TranslationListener>,
    ) -> Result<Box<dyn Translations>, (&'static str, &'static str)> {
        if !self.options.caching_mode {
            return Err((NAME, ": give it caching-mode=on, so that software tells of what it maps"));
        }
        self.cache.followers.add(requester as u16, listener);
        Ok(Box::new(Followed { vtd: self, source: requester as u16 }))
    }
}

/// A requester's translations, for those that follow them.
struct Followed {
    vtd: Arc<Vtd>,
    source: u16,
}

impl Translations for Followed {
    fn windows(&self) -> Option<Vec<DmaWindow>> {
        None
    }
    fn mapped(&self, first: u64, last: u64, found: &mut dyn FnMut(Translated)) {
        let Vtd { options, memory, .. } = &*self.vtd;
        let mut plain = |last: u64| {
            if first <= last {
                let len = (last - first).saturating_add(1);
                found(Translated { iova: first, gpa: first, len, read: true, write: true });
            }
        };
        let root = self.vtd.root.load(Ordering::Acquire);
        if root & ON == 0 {
            return plain(last);
        }
        if root & TABLE_MODE != 0 {
            return;
        }
        match context(memory, options, root & !0xfff, self.source) {
            Err(_) => {}
            Ok(context @ Context { table: None, .. }) => plain(last.min((1 << context.width) - 1)),
            Ok(context @ Context { table: Some(table), .. }) => {
                if !Survey::new(memory, options, (first, last), found).run(&context, table) {
                    log_guest_error!(self.vtd.log, NAME, "device {:#x} has more mappings than are kept", self.source);
                }
            }
        }
    }
}

impl InterruptRemapping for Vtd {
    fn remap(&self, source: Option<u16>, address: u64, data: u32) -> Remapped {
        let table = Table(self.interrupts.load(Ordering::Acquire));
        match interrupts::remap(&self.memory, table, source, address, data) {
            Outcome::Unchanged => Remapped::Unchanged,
            Outcome::Message(message) => Remapped::Message(message),
            Outcome::Fault(fault, index) => {
                self.record(source.unwrap_or(Self::IO_APIC), fault, u64::from(index) << 48, false);
                Remapped::Blocked
            }
        }
    }
    fn foresee(&self, source: Option<u16>, address: u64, data: u32) -> Remapped {
        let table = Table(self.interrupts.load(Ordering::Acquire));
        match interrupts::remap(&self.memory, table, source, address, data) {
            Outcome::Unchanged => Remapped::Unchanged,
            Outcome::Message(message) => Remapped::Message(message),
            Outcome::Fault(..) => Remapped::Blocked,
        }
    }
}

impl Vtd {
    /// The I/O APIC's place among requesters, as the DMAR table says: device 0 of bus 255.
    pub const IO_APIC: u16 = 0xff00;
}

impl MmioDevice for Vtd {
    fn read(&self, offset: u64, _access: Access) -> Result<u64, BusError> {
        let at = u16::try_from(offset).unwrap_or(u16::MAX);
        Ok(self.state.lock().registers.get(at).into())
    }
    fn write(&self, offset: u64, value: u64, _access: Access) -> Result<(), BusError> {
        let events = self.write_word(u16::try_from(offset).unwrap_or(u16::MAX), value as u32);
        self.told();
        self.send(events);
        // Waits of the queue that were left: each turn does one at least, and nobody can have it go on for ever.
        for _ in 0..invalidation::MOST_DESCRIPTORS {
            let mut events = Vec::new();
            {
                let registers = &mut self.state.lock().registers;
                if !invalidation::is_behind(registers) {
                    break;
                }
                self.run_queue(registers, &mut events);
            }
            self.told();
            self.send(events);
        }
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules { valid_min: 4, ..AccessRules::implemented(4, 4) }
    }
    fn name(&self) -> &str {
        "intel-iommu"
    }
}

impl Device for Vtd {
    fn name(&self) -> &str {
        "intel-iommu"
    }
    fn reset(&self) {
        *self.state.lock() = State { registers: Registers::new(&self.options), recorder: Recorder::default() };
        self.root.store(0, Ordering::Release);
        self.interrupts.store(0, Ordering::Release);
        self.forget();
        self.stale.store(true, Ordering::Release);
        self.told();
    }
    fn save(&self) -> Saved {
        let s = self.state.lock();
        let saved = VtdState {
            words: s.registers.words().to_vec(),
            next_fault: s.recorder.next,
            root: self.root.load(Ordering::Acquire),
            interrupts: self.interrupts.load(Ordering::Acquire),
        };
        state::encode(1, &saved)
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        let VtdState { words, next_fault, root, interrupts } = state::decode(saved, 1)?;
        {
            let s = &mut *self.state.lock();
            let fixed = s.registers.get64(reg::CAPABILITY);
            if !s.registers.load(&words) || s.registers.get64(reg::CAPABILITY) != fixed {
                return Err(LoadError::Mismatch("registers of the IOMMU".to_owned()));
            }
            s.recorder.next = next_fault % reg::FAULT_COUNT;
        }
        self.root.store(root, Ordering::Release);
        self.interrupts.store(interrupts, Ordering::Release);
        self.forget();
        self.stale.store(true, Ordering::Release);
        self.told();
        Ok(())
    }
}
