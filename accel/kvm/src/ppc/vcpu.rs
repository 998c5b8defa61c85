//! A vCPU: its exits, and interrupts of controllers outside of the kernel.

use super::abi;
use super::registers::Registers;
use super::sys::{Exit, VcpuFile};
use super::vm::Core;
use crate::error::{Context, KvmError};
use crate::kick::Attached;
use crate::vcpu::{Cycle, Processor};
use rhea_accel::ShutdownCause;
use rhea_ir::guest::{Guest, Poll};
use rhea_memory::{Access, Gpa};
use rhea_ppc::bits::msr;
use rhea_ppc::hooks::pin;
use rhea_ppc::{PpcCpu, PpcPins};
use std::os::fd::RawFd;
use std::sync::Arc;

/// An instruction that is not done after so many exits is none.
const MOST_PARTS: u32 = 4096;

/// What only the vCPU's thread touches.
pub struct Inner {
    vm: Arc<Core>,
    index: u32,
    file: Box<dyn VcpuFile>,
    guest: Box<PpcCpu>,
    pins: Arc<PpcPins>,
    registers: Registers,
    /// `guest` holds the state as it is now.
    fresh: bool,
    /// It was changed since: the kernel's is old.
    changed: bool,
    /// The instruction of the last exit is done at the next run only.
    incomplete: bool,
    /// Stopped by an error: nothing runs before a reset.
    stuck: bool,
    /// The level of the external interrupt that the kernel was told.
    external: bool,
    /// What the kernel has of the guest's time base.
    ahead: i64,
}

impl Inner {
    pub(super) fn new(
        vm: &Arc<Core>,
        index: u32,
        mut guest: Box<PpcCpu>,
        file: Box<dyn VcpuFile>,
    ) -> Result<Self, KvmError> {
        let registers = Registers::new(&*file, &mut guest)?;
        let pins = guest.pins();
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
            stuck: false,
            external: false,
            ahead: 0,
        })
    }

    // ---- whose the state is ----

    /// Has the kernel finish the instruction that the last exit was for.
    fn complete(&mut self, attached: &Attached) -> Result<(), KvmError> {
        for _ in 0..MOST_PARTS {
            if !std::mem::take(&mut self.incomplete) {
                return Ok(());
            }
            match attached.completing(|| self.file.run()).during("KVM_RUN")? {
                Exit::Interrupted | Exit::Debug { .. } => {}
                Exit::Mmio { address, len, write, data } => self.memory(address, len, write, data),
                exit => return Err(KvmError::Refused(format!("an instruction ends in {exit:?}"))),
            }
        }
        Err(KvmError::Refused("an instruction does not end".to_owned()))
    }
    /// Gives it to the kernel, if it was changed.
    fn give(&mut self) -> Result<(), KvmError> {
        if std::mem::take(&mut self.changed) {
            self.registers.push(&*self.file, &mut self.guest)?;
        }
        Ok(())
    }

    // ---- interrupts ----

    /// Looks at the interrupt inputs before guest code is entered; false: there is nothing to run.
    fn inputs(&mut self, attached: &Attached) -> Result<bool, KvmError> {
        let bits = self.pins.bits();
        let waits = self.guest.halted();
        if self.guest.powered_off() {
            return Ok(false);
        }
        // System reset is taken by the model, as the board wants it; so is what ends a wait that the kernel does not know of.
        if bits & pin::SYSTEM_RESET != 0 || waits {
            self.fetch(attached)?;
            let polled = self.guest.poll();
            self.take_over();
            if !matches!(polled, Poll::Run) {
                return Ok(false);
            }
        }
        let level = self.pins.bits() & pin::EXTERNAL != 0 && !self.vm.kernel_irqchip();
        if level != self.external {
            self.file.interrupt(level).during("KVM_INTERRUPT")?;
            self.external = level;
        }
        Ok(true)
    }

    /// Has the kernel's interrupt controller present to this processor: its index is the server's number.
    pub(super) fn connect(&mut self, attached: &Attached, capability: u32, device: RawFd) -> Result<(), KvmError> {
        self.complete(attached)?;
        if std::mem::take(&mut self.external) {
            self.file.interrupt(false).during("KVM_INTERRUPT")?;
        }
        let name = if capability == abi::KVM_CAP_IRQ_XICS { "KVM_CAP_IRQ_XICS" } else { "KVM_CAP_PPC_IRQ_XIVE" };
        self.file.enable(capability, [device as u64, self.index.into(), 0, 0]).during(name)
    }
    /// Sets a register that the model does not know.
    pub(super) fn set_register(&mut self, attached: &Attached, id: u64, value: u128) -> Result<(), KvmError> {
        self.complete(attached)?;
        self.file.set_reg(id, value).during("KVM_SET_ONE_REG")
    }

    // ---- exits ----

    fn handle(&mut self, exit: Exit, attached: &Attached) -> Result<(), KvmError> {
        match exit {
            Exit::Interrupted | Exit::Debug { .. } => {}
            Exit::Mmio { address, len, write, data } => self.memory(address, len, write, data),
            Exit::Hypercall { number, args } => self.hypercall(number, args, attached)?,
            // The kernel has dealt with it.
            Exit::MachineCheck { recovered: true } => {}
            Exit::MachineCheck { recovered: false } => {
                /// SRR1 and DSISR: by a load or store, "other".
                const BY_ACCESS: (u64, u64) = (0x0020_0000, 0x8000);
                self.fetch(attached)?;
                self.guest.machine_check(BY_ACCESS.0, BY_ACCESS.1, 0);
                self.guest.poll();
                self.take_over();
            }
            Exit::SystemEvent(abi::KVM_SYSTEM_EVENT_RESET) => self.vm.control.reset(ShutdownCause::Guest),
            Exit::SystemEvent(abi::KVM_SYSTEM_EVENT_SHUTDOWN) => self.vm.control.power_off(ShutdownCause::Guest),
            Exit::SystemEvent(kind) => return Err(KvmError::Refused(format!("system event {kind}"))),
            Exit::EntryFailed { reason } => {
                let text = format!("the processor refuses the guest's state: reason {reason:#x}{}", self.place());
                return Err(KvmError::Refused(text));
            }
            Exit::InternalError { suberror } => {
                return Err(KvmError::Refused(format!("internal error {suberror}{}", self.place())));
            }
            Exit::Other(reason) => return Err(KvmError::Refused(format!("unknown exit {reason}{}", self.place()))),
        }
        Ok(())
    }
    /// Where the guest is, for messages.
    fn place(&self) -> String {
        self.file.regs().map_or_else(|_| String::new(), |r| format!(" at {:x}, MSR {:x}", r.pc, r.msr))
    }
    fn hypercall(&mut self, number: u64, args: [u64; 9], attached: &Attached) -> Result<(), KvmError> {
        self.incomplete = true;
        if let Some(count) = self.vm.hooks.hcall_arguments(number) {
            // R3 to R12 are all that it sees and changes, and they are here. MSR is not, but calls of problem state are the kernel's to
            // turn away, and 32-bit mode makes a difference only to what has more bits.
            if args.iter().take(count).any(|arg| *arg >> 32 != 0) {
                self.registers.pull_mode(&*self.file, &mut self.guest)?;
            } else {
                self.guest.msr = msr::SF;
            }
        } else {
            // The call as it was made: its registers are given back unchanged, and its state is the model's until it is done.
            self.file.set_hcall_result(number, args);
            self.fetch(attached)?;
        }
        self.guest.gpr[3] = number;
        args.into_iter().enumerate().for_each(|(n, arg)| self.guest.gpr[4 + n] = arg);
        let hooks = self.vm.hooks.clone();
        hooks.hcall(&mut self.guest);
        if self.fresh {
            self.take_over();
        } else {
            let gpr = &self.guest.gpr;
            self.file.set_hcall_result(gpr[3], std::array::from_fn(|n| gpr[4 + n]));
        }
        Ok(())
    }
    fn memory(&mut self, address: u64, len: u8, write: bool, mut data: [u8; 8]) {
        self.incomplete = true;
        let len = usize::from(len.min(8));
        let mut at = 0;
        while at < len {
            // Natural pieces of an access that may begin anywhere.
            let gpa = address.wrapping_add(at as u64);
            let mut n = if at == 0 && len.is_power_of_two() { len } else { 1 };
            while n < len - at && 2 * n <= len - at && gpa.is_multiple_of(2 * n as u64) {
                n *= 2;
            }
            let access = Access::cpu(self.index, n as u8);
            let mut word = [0; 8];
            if write {
                word[..n].copy_from_slice(&data[at..at + n]);
                // Writes to nothing are lost.
                let _ = self.vm.space.store(Gpa(gpa), u64::from_le_bytes(word), access);
            } else {
                let value = self.vm.space.load(Gpa(gpa), access).unwrap_or(u64::MAX);
                data[at..at + n].copy_from_slice(&value.to_le_bytes()[..n]);
            }
            at += n;
        }
        if !write {
            self.file.set_mmio_data(data);
        }
    }
}

impl Processor for Inner {
    type Guest = PpcCpu;
    /// KVM-HV leaves for an instruction that would have to be put into the guest's memory, and steps nothing.
    const DEBUGS: bool = false;

    fn immediate_exit(&self) -> *mut u8 {
        self.file.immediate_exit()
    }
    fn resumed(&mut self) {
        let ahead = self.vm.vcpu_resumed();
        if ahead == self.ahead {
            return;
        }
        match self.file.set_reg(abi::KVM_REG_PPC_TB_OFFSET, u128::from(ahead as u64)) {
            Ok(()) => self.ahead = ahead,
            // It then runs on as it would have.
            Err(e) => eprintln!("rhea: -accel kvm: the guest's clock did not stand: KVM_SET_ONE_REG: {e}"),
        }
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
        self.registers.pull(&*self.file, &mut self.guest)
    }
    fn guest(&mut self) -> &mut PpcCpu {
        &mut self.guest
    }
    fn take_over(&mut self) {
        self.guest.take_flushes();
        (self.fresh, self.changed) = (true, true);
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
        if !attached.enter(&self.vm.parts.gate) {
            self.vm.parts.gate.wait_open();
            return Ok(Cycle::KeptOut);
        }
        (self.fresh, self.incomplete) = (false, false);
        let exit = self.file.run();
        attached.exit();
        self.handle(exit.during("KVM_RUN")?, attached)?;
        Ok(Cycle::Ran)
    }
}
