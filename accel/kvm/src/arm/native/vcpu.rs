//! A vCPU: its resets and its exits.

use super::abi as kb;
use super::abi::kvm_vcpu_init;
use super::registers::{Registers, read, write};
use super::sys::{Exit, VcpuFile};
use super::vm::Core;
use crate::error::{Context, KvmError};
use crate::kick::Attached;
use crate::mmio;
use crate::vcpu::{Cycle, Processor};
use rhea_accel::ShutdownCause;
use rhea_arm::ArmCpu;
use rhea_memory::Access;
use std::sync::Arc;

/// MPIDR_EL1.
const MPIDR: u64 = super::registers::system(3, 0, 0, 0, 5);

/// What only the vCPU's thread touches.
pub struct Inner {
    vm: Arc<Core>,
    index: u32,
    file: Box<dyn VcpuFile>,
    guest: Box<ArmCpu>,
    registers: Registers,
    init: kvm_vcpu_init,
    /// `guest` holds the state as it is now.
    fresh: bool,
    /// It was changed since: the kernel's is old.
    changed: bool,
    /// The instruction of the last exit is done at the next run only.
    incomplete: bool,
    /// Stopped by an error: nothing runs before a reset.
    stuck: bool,
}

impl Inner {
    pub(super) fn new(
        vm: &Arc<Core>,
        index: u32,
        guest: Box<ArmCpu>,
        file: Box<dyn VcpuFile>,
        init: kvm_vcpu_init,
    ) -> Result<Self, KvmError> {
        file.init(&init).during("KVM_ARM_VCPU_INIT")?;
        if vm.sve {
            file.finalize(kb::KVM_ARM_VCPU_SVE).during("KVM_ARM_VCPU_FINALIZE")?;
        }
        let mut inner = Self {
            vm: vm.clone(),
            index,
            file,
            guest,
            registers: Registers::new(vm.sve, vm.stops),
            init,
            fresh: true,
            changed: true,
            incomplete: false,
            stuck: false,
        };
        // Once, so that a processor that the kernel cannot run is refused before the machine starts.
        inner.give()?;
        Ok(inner)
    }
    /// The processor's affinity in the multiprocessor as the GIC has it: Aff3 to Aff0 in 32 bits.
    pub(super) fn affinity(&self) -> Result<u64, KvmError> {
        let mpidr = read(&*self.file, MPIDR)? as u64;
        Ok(mpidr & 0x00ff_ffff | mpidr >> 8 & 0xff00_0000)
    }
    /// Connects the performance monitors; the interrupt controller is complete.
    pub(super) fn start_pmu(&mut self, ppi: u32) -> Result<(), KvmError> {
        let group = kb::KVM_ARM_VCPU_PMU_V3_CTRL;
        let set = |attribute: u32, value| self.file.set_attribute(group, attribute.into(), value);
        set(kb::KVM_ARM_VCPU_PMU_V3_IRQ, Some(ppi + 16)).during("KVM_ARM_VCPU_PMU_V3_IRQ")?;
        set(kb::KVM_ARM_VCPU_PMU_V3_INIT, None).during("KVM_ARM_VCPU_PMU_V3_INIT")
    }

    /// Has the kernel finish the instruction that the last exit was for.
    fn complete(&mut self, attached: &Attached) -> Result<(), KvmError> {
        if std::mem::take(&mut self.incomplete) {
            let exit = attached.completing(|| self.file.run()).during("KVM_RUN")?;
            if !matches!(exit, Exit::Interrupted | Exit::Debug { .. }) {
                self.handle(exit)?;
            }
        }
        Ok(())
    }
    /// Gives the guest's state to the kernel, if it was changed.
    fn give(&mut self) -> Result<(), KvmError> {
        if !self.changed {
            return Ok(());
        }
        if self.registers.was_reset(&self.guest) {
            self.file.init(&self.init).during("KVM_ARM_VCPU_INIT")?;
            self.file.set_stopped(self.guest.powered_off()).during("KVM_SET_MP_STATE")?;
        }
        self.registers.push(&*self.file, &mut self.guest)?;
        self.changed = false;
        Ok(())
    }

    fn handle(&mut self, exit: Exit) -> Result<(), KvmError> {
        match exit {
            Exit::Interrupted | Exit::Debug { .. } => {}
            Exit::Mmio { address, len, write, data } => {
                self.incomplete = true;
                let access = Access::cpu(self.index, len);
                let data = mmio::access(&self.vm.space, address, access, write, data, 0);
                if !write {
                    self.file.set_mmio_data(data);
                }
            }
            Exit::SystemEvent(kind) => match kind {
                kb::KVM_SYSTEM_EVENT_RESET => self.vm.control.reset(ShutdownCause::Guest),
                kb::KVM_SYSTEM_EVENT_SHUTDOWN => self.vm.control.power_off(ShutdownCause::Guest),
                _ => return Err(KvmError::Refused(format!("system event {kind}"))),
            },
            Exit::EntryFailed { reason, cpu } => {
                let place = self.place();
                let text = format!("the processor ({cpu}) refuses the guest's state: reason {reason:#x}{place}");
                return Err(KvmError::Refused(text));
            }
            Exit::InternalError(suberror) => {
                return Err(KvmError::Refused(format!("internal error {suberror}{}", self.place())));
            }
            Exit::MemoryFault { address } => {
                let text = format!("memory at {address:#x} cannot be accessed{}", self.place());
                return Err(KvmError::Refused(text));
            }
            Exit::Other(reason) => return Err(KvmError::Refused(format!("unknown exit {reason}{}", self.place()))),
        }
        Ok(())
    }
    /// Where the guest is, for messages.
    fn place(&self) -> String {
        read(&*self.file, super::registers::PC).map_or_else(|_| String::new(), |pc| format!(" at {pc:x}"))
    }
}

impl Processor for Inner {
    type Guest = ArmCpu;

    fn immediate_exit(&self) -> *mut u8 {
        self.file.immediate_exit()
    }
    fn resumed(&mut self) {
        let file = &*self.file;
        self.vm.parts.resumed(|counter| write(file, super::registers::COUNTER, counter.into()));
    }
    fn paused(&mut self) {
        let file = &*self.file;
        self.vm.parts.paused(|| read(file, super::registers::COUNTER).ok().map(|v| v as u64));
    }
    fn fetch(&mut self, attached: &Attached) -> Result<(), KvmError> {
        if self.fresh {
            return Ok(());
        }
        self.complete(attached)?;
        // Even if it fails: what is there then is all that can be had.
        self.fresh = true;
        self.registers.pull(&*self.file, &mut self.guest)?;
        self.vm.hooks.power_state(self.index, !self.guest.powered_off());
        Ok(())
    }
    fn guest(&mut self) -> &mut ArmCpu {
        &mut self.guest
    }
    fn take_over(&mut self) {
        use rhea_ir::guest::Guest;
        self.guest.take_flushes();
        (self.fresh, self.changed) = (true, true);
        if self.registers.was_reset(&self.guest) {
            // What it was doing is forgotten by the kernel too.
            (self.stuck, self.incomplete) = (false, false);
        }
    }
    fn fail(&mut self, e: &KvmError) {
        if !self.stuck {
            self.stuck = true;
            self.vm.control.guest_panic(&format!("KVM: vCPU {}: {e}", self.index));
        }
    }
    fn cycle(&mut self, attached: &Attached) -> Result<Cycle, KvmError> {
        if self.stuck {
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
        let exit = exit.during("KVM_RUN")?;
        if let Exit::Debug { esr, far } = exit {
            self.fetch(attached)?;
            let Some(event) = Registers::stop_of(esr, far) else { return Ok(Cycle::Ran) };
            self.guest.stopped_for_debugger(event);
            self.changed = true;
            return Ok(Cycle::DebugStop);
        }
        self.handle(exit)?;
        Ok(Cycle::Ran)
    }
}
