//! What VMs of all architectures are made of, and how they stand still.

use crate::Counts;
use crate::assigned::Assigned;
use crate::doorbells::Doorbells;
use crate::error::KvmError;
use crate::kick::Gate;
use crate::memory::Slots;
use crate::sys::{AnyVm, IoEvents, cap};
use crate::vcpu::{KvmVcpu, Processor};
use parking_lot::Mutex;
use rhea_accel::{IrqFd, Services, VmControl};
use rhea_memory::{AddressSpace, RamBlock, Subscription};
use std::sync::Arc;

/// The parts of a VM; lives as long as any of its vCPUs. `T`: a time of the guest's clock.
pub struct Parts<T> {
    _follow: Vec<Subscription>,
    pub gate: Arc<Gate>,
    /// Keeps the memory that the kernel shows.
    pub slots: Arc<Slots>,
    vm: Arc<dyn AnyVm>,
    /// `None`: writes to them end guest code.
    doorbells: Option<Doorbells>,
    assigned: Arc<Assigned>,
    /// How many vCPUs are not paused, and the guest's clock since the last one was.
    running: Mutex<(u32, Option<T>)>,
}

impl<T> Parts<T> {
    /// Of a VM that sees these spaces, the first by its processors; `private`: RAM that guest code may have for itself.
    ///
    /// # Errors
    /// [`KvmError`]: the kernel does not show the memory.
    pub fn new(
        vm: Arc<dyn AnyVm>,
        spaces: &[Arc<AddressSpace>],
        private: Option<&Arc<RamBlock>>,
        control: &VmControl,
    ) -> Result<Self, KvmError> {
        let gate = Arc::new(Gate::default());
        let panic = control.clone();
        let failed = move |e: &KvmError| panic.guest_panic(&format!("KVM: {e}"));
        let (slots, follow) = Slots::new(&vm, &gate, spaces, private, Box::new(failed))?;
        let doorbells = spaces.first().filter(|_| vm.check(cap::IOEVENTFD) > 0).map(|space| Doorbells::new(&vm, space));
        let assigned = Assigned::new(vm.clone());
        Ok(Self { _follow: follow, gate, slots, vm, doorbells, assigned, running: Mutex::default() })
    }
    /// A vCPU goes on. The first one sets the guest's clock to what it was when all were paused.
    pub fn resumed(&self, set: impl FnOnce(T) -> Result<(), KvmError>) {
        let mut running = self.running.lock();
        if running.0 == 0
            && let Some(clock) = running.1.take()
            && let Err(e) = set(clock)
        {
            // It then runs on as it would have.
            eprintln!("rhea: -accel kvm: the guest's clock did not stand: {e}");
        }
        running.0 += 1;
    }
    /// A vCPU is paused; was it the last? That one looks at the guest's clock, and what the guest has rung is done before the machine
    /// stands.
    pub fn paused(&self, get: impl FnOnce() -> Option<T>) -> bool {
        {
            let mut running = self.running.lock();
            running.0 = running.0.saturating_sub(1);
            if running.0 != 0 {
                return false;
            }
            running.1 = get();
        }
        if let Some(doorbells) = &self.doorbells {
            doorbells.settle();
        }
        true
    }
    /// What the VM has used and done so far.
    pub fn counts<P: Processor>(&self, vcpus: &[Arc<KvmVcpu<P>>]) -> Counts {
        Counts {
            slots: self.slots.used(),
            doorbells: self.doorbells.as_ref().map_or(0, Doorbells::count),
            held: 0,
            exits: vcpus.iter().map(|v| v.exits()).sum(),
            kicks: vcpus.iter().map(|v| v.kicks()).sum(),
        }
    }
    /// What devices may use; interrupts by eventfds are of the controller.
    pub fn services(&self, irqfd: Option<Arc<dyn IrqFd>>) -> Services {
        let ioeventfd = self.doorbells.as_ref().map(|_| Arc::new(IoEvents(self.vm.clone())) as _);
        Services { irqfd, ioeventfd, assigned: Some(self.assigned.clone()) }
    }
}
