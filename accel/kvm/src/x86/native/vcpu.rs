//! A vCPU: its exits, interrupts that are injected from outside of the kernel.

use super::chips;
use super::cpuid;
use super::registers::{APIC_BASE, APIC_BSP, Abilities, Registers};
use super::sys::{Exit, VcpuFile, name_of};
use super::vm::{Core, HC_MAP_GPA_RANGE};
use crate::error::{Context, KvmError};
use crate::kick::Attached;
use crate::mmio;
use crate::vcpu::{Cycle, Processor};
use kvm_bindings as kb;
use rhea_accel::ShutdownCause;
use rhea_ir::guest::{Guest, Poll};
use rhea_memory::{Access, Gpa, Lookup, WriteHolder};
use rhea_x86::hooks::pin;
use rhea_x86::{DebugEvent, Feature, X86Cpu, X86Pins};
use std::sync::Arc;

/// An instruction that is not done after so many exits is none.
const MOST_PARTS: u32 = 4096;
/// `KVM_MAP_GPA_RANGE_ENCRYPTED`.
const MAP_ENCRYPTED: u64 = 1 << 4;

/// What only the vCPU's thread touches.
pub struct Inner {
    vm: Arc<Core>,
    index: u32,
    file: Box<dyn VcpuFile>,
    guest: Box<X86Cpu>,
    pins: Arc<X86Pins>,
    registers: Registers,
    /// `guest` holds the state as it is now.
    fresh: bool,
    /// It was changed since: the kernel's is old.
    changed: bool,
    /// The instruction of the last exit is done at the next run only.
    incomplete: bool,
    /// In HLT, with controllers outside the kernel.
    halted: bool,
    /// In shutdown, or stopped by an error: nothing runs before a reset.
    stuck: bool,
    /// In shutdown since it was given its state last.
    was_shut_down: bool,
    /// An interrupt could be injected when the vCPU was left; EFLAGS.IF then.
    ready: bool,
    interrupts: bool,
}

impl Inner {
    pub(super) fn new(
        vm: &Arc<Core>,
        index: u32,
        guest: Box<X86Cpu>,
        file: Box<dyn VcpuFile>,
    ) -> Result<Self, KvmError> {
        let nested = cpuid::NESTING.into_iter().find(|f| guest.config.has(*f));
        let tiles = guest.config.has(Feature::AmxTile);
        let mut registers = Registers::new(&*file, Abilities { nested, tiles, ..vm.can })?;
        let pins = guest.pins();
        let mut guest = guest;
        // Its local APIC is as the kernel made it: with the base of a first processor or of another.
        if vm.can.kernel_apic {
            let mut sregs = file.sregs().during("KVM_GET_SREGS")?;
            sregs.apic_base = base(index);
            file.set_sregs(&sregs).during("KVM_SET_SREGS")?;
        }
        // Once, so that a model that the kernel cannot run is refused before the machine starts.
        let (apic_base, cr8) = outside(vm, index);
        registers.push(&*file, &mut guest, apic_base, cr8)?;
        Ok(Self {
            vm: vm.clone(),
            index,
            file,
            guest,
            pins,
            registers,
            fresh: true,
            changed: true,
            incomplete: false,
            halted: false,
            stuck: false,
            was_shut_down: false,
            ready: false,
            interrupts: false,
        })
    }
}

fn base(index: u32) -> u64 {
    APIC_BASE | if index == 0 { APIC_BSP } else { 0 }
}

/// What a local APIC outside the kernel gives: base and task priority.
fn outside(vm: &Core, index: u32) -> (Option<u64>, Option<u64>) {
    if vm.can.kernel_apic {
        return (None, None);
    }
    (Some(vm.hooks.apic_base(index)), Some(vm.hooks.tpr(index).into()))
}

impl Inner {
    // ---- whose the state is ----

    /// Has the kernel finish the instruction that the last exit was for.
    fn complete(&mut self, attached: &Attached) -> Result<(), KvmError> {
        for _ in 0..MOST_PARTS {
            if !std::mem::take(&mut self.incomplete) {
                return Ok(());
            }
            let exit = attached.completing(|| self.file.run()).during("KVM_RUN")?;
            self.look();
            if !matches!(exit, Exit::Interrupted | Exit::Debug { .. }) {
                self.handle(exit)?;
            }
        }
        Err(KvmError::Refused("an instruction does not end".to_owned()))
    }
    /// Gives it to the kernel, if it was changed.
    fn give(&mut self) -> Result<(), KvmError> {
        if !self.changed {
            return Ok(());
        }
        let (apic_base, cr8) = outside(&self.vm, self.index);
        let Self { registers, file, guest, .. } = self;
        if std::mem::take(&mut self.was_shut_down) {
            registers.lose_translations(&**file)?;
        }
        registers.push(&**file, guest, apic_base, cr8)?;
        const IF: u32 = 1 << 9;
        (self.ready, self.interrupts) = (false, self.guest.rflags() & IF != 0);
        self.changed = false;
        Ok(())
    }

    // ---- interrupts ----

    /// Looks at the interrupt inputs before guest code is entered; false: there is nothing to run.
    fn inputs(&mut self, attached: &Attached) -> Result<bool, KvmError> {
        let kernel = self.vm.can.kernel_apic;
        let bits = self.pins.bits();
        if bits & pin::WAKE != 0 {
            self.pins.clear(pin::WAKE);
            self.halted = false;
        }
        let waits = !kernel && self.guest.waits_for_sipi();
        if bits & pin::MCE != 0 || !kernel && (bits & (pin::INIT | pin::SIPI) != 0 || waits) {
            // Start-up and machine checks are the model's.
            self.fetch(attached)?;
            let polled = self.guest.poll();
            self.take_over();
            if self.guest.is_shut_down() {
                self.stuck = true;
                return Ok(false);
            }
            return Ok(matches!(polled, Poll::Run) && !self.guest.waits_for_sipi());
        }
        if bits & pin::SMI != 0 {
            self.pins.clear(pin::SMI);
            if self.vm.can.smm {
                self.between(attached)?;
                self.file.smi().during("KVM_SMI")?;
                self.halted = false;
            }
        }
        for _ in 0..self.pins.take_nmis() {
            self.between(attached)?;
            self.file.nmi().during("KVM_NMI")?;
            self.halted = false;
        }
        if self.halted {
            // A halt that no interrupt ends goes on.
            let interrupted = bits & pin::INTR != 0 && self.interrupts_enabled();
            self.halted = !interrupted;
        }
        Ok(!self.halted)
    }
    /// The kernel's state must be the one that events are added to.
    fn between(&mut self, attached: &Attached) -> Result<(), KvmError> {
        self.complete(attached)?;
        self.give()
    }
    fn interrupts_enabled(&self) -> bool {
        const IF: u32 = 1 << 9;
        if self.changed { self.guest.rflags() & IF != 0 } else { self.interrupts }
    }
    /// Injects what the controllers outside the kernel have.
    fn inject(&mut self) -> Result<(), KvmError> {
        if self.vm.can.kernel_pic {
            return Ok(());
        }
        let wanted = |i: &Self| i.pins.bits() & pin::INTR != 0;
        // An instruction that is not done yet comes first: the run that ends it tells when the next can be interrupted.
        if wanted(self) && self.ready && self.interrupts && !self.incomplete {
            if let Some(vector) = self.vm.hooks.acknowledge(self.index) {
                self.file.interrupt(vector).during("KVM_INTERRUPT")?;
            }
            self.ready = false;
        }
        let window = wanted(self);
        self.file.request_window(window);
        if !self.vm.can.kernel_apic {
            self.file.set_cr8(self.vm.hooks.tpr(self.index).into());
        }
        Ok(())
    }
    /// After a run.
    fn look(&mut self) {
        let state = self.file.state();
        (self.ready, self.interrupts) = (state.ready, state.interrupts);
        if self.vm.can.kernel_apic {
            return;
        }
        let hooks = &self.vm.hooks;
        if u64::from(hooks.tpr(self.index)) != state.cr8 & 15 {
            hooks.set_tpr(self.index, state.cr8 as u8 & 15);
        }
        if hooks.apic_base(self.index) != state.apic_base {
            // The kernel has checked it as far as it knows.
            let _ = hooks.set_apic_base(self.index, state.apic_base);
        }
    }
    /// The kernel's local APIC after reset.
    pub(super) fn reset_lapic(&mut self, attached: &Attached) -> Result<(), KvmError> {
        self.complete(attached)?;
        let mut sregs = self.file.sregs().during("KVM_GET_SREGS")?;
        sregs.apic_base = base(self.index);
        self.file.set_sregs(&sregs).during("KVM_SET_SREGS")?;
        let mut lapic = self.file.lapic().during("KVM_GET_LAPIC")?;
        chips::reset_lapic(&mut lapic, self.guest.apic_id, self.vm.virtual_wire && self.index == 0);
        self.file.set_lapic(&lapic).during("KVM_SET_LAPIC")
    }

    // ---- exits ----

    fn handle(&mut self, exit: Exit) -> Result<(), KvmError> {
        let index = self.index;
        match exit {
            Exit::Interrupted | Exit::IrqWindow | Exit::SetTpr | Exit::BusLock | Exit::Notify => {}
            Exit::Io { port, size, count, write } => {
                self.incomplete = true;
                self.vm.held.settle();
                self.port(port, size, count, write);
            }
            Exit::Mmio { address, len, write, data } => {
                self.incomplete = true;
                self.vm.held.settle();
                self.memory(address, len, write, data);
            }
            Exit::Halt => self.halted = true,
            Exit::DirtyRingFull => self.vm.parts.slots.empty_rings(),
            Exit::Shutdown => {
                (self.stuck, self.was_shut_down) = (true, true);
                self.vm.hooks.shutdown(index);
            }
            Exit::ReadMsr(msr) => {
                self.incomplete = true;
                let value = self.guest.read_msr(msr).ok();
                self.file.set_msr_result(value);
            }
            Exit::WriteMsr(msr, value) => {
                self.incomplete = true;
                let written = self.guest.write_msr(msr, value).is_ok();
                self.guest.take_flushes();
                self.file.set_msr_result(written.then_some(0));
            }
            Exit::SystemEvent(kind) => match kind {
                kb::KVM_SYSTEM_EVENT_RESET => self.vm.control.reset(ShutdownCause::Guest),
                kb::KVM_SYSTEM_EVENT_SHUTDOWN => self.vm.control.power_off(ShutdownCause::Guest),
                _ => return Err(KvmError::Refused(format!("system event {kind}"))),
            },
            Exit::EntryFailed { reason, cpu } => {
                return Err(KvmError::Refused(format!(
                    "the processor ({cpu}) refuses the guest's state: reason {reason:#x}{}",
                    self.place()
                )));
            }
            Exit::InternalError { suberror, data } => {
                let what = match suberror {
                    kb::KVM_INTERNAL_ERROR_EMULATION => "an instruction cannot be emulated",
                    kb::KVM_INTERNAL_ERROR_SIMUL_EX => "two exceptions at once",
                    kb::KVM_INTERNAL_ERROR_DELIVERY_EV => "an exit while an event is delivered",
                    _ => "internal error",
                };
                return Err(KvmError::Refused(format!("{what} ({suberror}, {data:x?}){}", self.place())));
            }
            Exit::Hypercall { number: HC_MAP_GPA_RANGE, args: [start, pages, attributes, _] } => {
                self.incomplete = true;
                let private = attributes & MAP_ENCRYPTED != 0;
                let len = pages.checked_mul(rhea_memory::PAGE_SIZE);
                let done = len.map_or(Ok(false), |len| self.vm.parts.slots.set_private(start, len, private))?;
                self.file.set_hypercall_result(if done { 0 } else { (-i64::from(libc::EINVAL)) as u64 });
            }
            Exit::Hypercall { number, .. } => {
                return Err(KvmError::Refused(format!("hypercall {number} came out of the kernel{}", self.place())));
            }
            Exit::MemoryFault { address, len, private } => {
                // It is used as what it is not: then it becomes that.
                let is = matches!(self.vm.space.view().lookup(Gpa(address)), Lookup::Private);
                if is != private && self.vm.parts.slots.set_private(address, len, private)? {
                    return Ok(());
                }
                let text = format!("memory at {address:#x} cannot be accessed{}", self.place());
                return Err(KvmError::Refused(text));
            }
            Exit::IoApicEoi(vector) => self.vm.hooks.end_of_interrupt(vector),
            // Acknowledged by those who asked for it; nobody did.
            Exit::Debug { .. } => {}
            Exit::Unknown { reason } => {
                let text = format!(
                    "the processor stopped for reason {reason:#x}, which the kernel does not know{}",
                    self.place()
                );
                return Err(KvmError::Refused(text));
            }
            Exit::Other(exit) => {
                let text = format!("guest code was left by exit {exit}, {}{}", name_of(exit), self.place());
                return Err(KvmError::Refused(text));
            }
        }
        Ok(())
    }
    /// Where the guest is, for messages.
    fn place(&self) -> String {
        match (self.file.regs(), self.file.sregs()) {
            (Ok(r), Ok(s)) => format!(" at {:x}:{:x}", s.cs.selector, r.rip),
            _ => String::new(),
        }
    }
    fn port(&mut self, port: u16, size: u8, count: u32, write: bool) {
        let (index, vm) = (self.index, self.vm.clone());
        let bytes = usize::from(size);
        if !matches!(bytes, 1 | 2 | 4) {
            return;
        }
        for item in self.file.io_data().chunks_exact_mut(bytes).take(count as usize) {
            if write {
                let mut word = [0; 4];
                word[..bytes].copy_from_slice(item);
                vm.hooks.port_out(index, port, size, u32::from_le_bytes(word));
            } else {
                let value = vm.hooks.port_in(index, port, size);
                item.copy_from_slice(&value.to_le_bytes()[..bytes]);
            }
        }
    }
    fn memory(&mut self, address: u64, len: u8, write: bool, data: [u8; 8]) {
        let secure = self.file.state().smm;
        let access = Access { secure, ..Access::cpu(self.index, len) };
        // Nothing drives the bus where nothing is.
        let data = mmio::access(&self.vm.space, address, access, write, data, u64::MAX);
        if !write {
            self.file.set_mmio_data(data);
        }
    }
    /// Tells the guest why it stopped; false: not for a debugger's sake.
    fn debug_event(&mut self, exception: u32, dr6: u64) -> bool {
        const DB: u32 = 1;
        const BS: u64 = 1 << 14;
        let event = match self.registers.stop_of(dr6) {
            _ if exception != DB => DebugEvent::Breakpoint,
            Some((true, va, write)) => DebugEvent::Watchpoint { va, write },
            Some((false, ..)) => DebugEvent::Breakpoint,
            None if dr6 & BS != 0 => DebugEvent::Step,
            None => return false,
        };
        self.guest.stopped_for_debugger(event);
        self.changed = true;
        true
    }
}

impl Processor for Inner {
    type Guest = X86Cpu;

    fn immediate_exit(&self) -> *mut u8 {
        self.file.immediate_exit()
    }
    fn resumed(&mut self) {
        self.vm.vcpu_resumed();
        // A guest without such a clock has nothing to be told.
        let _ = self.file.clock_stopped();
    }
    fn paused(&mut self) {
        self.vm.vcpu_paused();
    }
    fn fetch(&mut self, attached: &Attached) -> Result<(), KvmError> {
        if self.fresh {
            return Ok(());
        }
        self.complete(attached)?;
        // Even if it fails: what is there then is all that can be had.
        self.fresh = true;
        let (halted, stuck) = (self.halted, self.stuck);
        let Self { registers, file, guest, vm, .. } = self;
        registers.pull(&**file, guest, &vm.space, halted, stuck)
    }
    fn guest(&mut self) -> &mut X86Cpu {
        &mut self.guest
    }
    fn take_over(&mut self) {
        self.guest.take_flushes();
        (self.fresh, self.changed) = (true, true);
        if !self.guest.is_shut_down() && self.registers.was_reset(&self.guest) {
            self.stuck = false;
        }
        self.halted = self.guest.halted() && !self.vm.can.kernel_apic;
    }
    fn fail(&mut self, e: &KvmError) {
        if !self.stuck {
            self.stuck = true;
            self.vm.control.guest_panic(&format!("KVM: vCPU {}: {e}", self.index));
        }
    }
    fn cycle(&mut self, attached: &Attached) -> Result<Cycle, KvmError> {
        if self.stuck || !self.inputs(attached)? {
            return Ok(Cycle::Idle);
        }
        self.give()?;
        self.inject()?;
        if !attached.enter(&self.vm.parts.gate) {
            self.vm.parts.gate.wait_open();
            return Ok(Cycle::KeptOut);
        }
        (self.fresh, self.incomplete) = (false, false);
        let exit = self.file.run();
        attached.exit();
        let exit = exit.during("KVM_RUN")?;
        self.look();
        if let Exit::Debug { exception, dr6, .. } = exit {
            self.fetch(attached)?;
            return Ok(if self.debug_event(exception, dr6) { Cycle::DebugStop } else { Cycle::Ran });
        }
        self.handle(exit)?;
        Ok(Cycle::Ran)
    }
}
