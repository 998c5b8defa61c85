//! The kernel's table of where interrupts by number (GSI) go: lines of the machine, which stay, and messages that something is
//! attached to, which get numbers behind them.

use kvm_bindings as kb;
use kvm_bindings::kvm_irq_routing_entry;
use parking_lot::Mutex;
use rhea_accel::MsiMessage;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// An input of a controller.
pub fn chip_route(gsi: u32, chip: u32, pin: u32) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi, type_: kb::KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
    entry.u.irqchip = kb::kvm_irq_routing_irqchip { irqchip: chip, pin };
    entry
}

/// What a table asks of its VM.
pub trait Table: Send + Sync {
    /// # Errors
    /// The kernel's.
    fn set(&self, entries: &[kvm_irq_routing_entry]) -> io::Result<()>;
    /// # Errors
    /// The kernel's.
    fn event(&self, fd: RawFd, gsi: u32, attach: bool) -> io::Result<()>;
}

pub struct Routes {
    lines: Vec<kvm_irq_routing_entry>,
    /// The first number for messages.
    first: u32,
    /// Entries that the kernel's table has room for.
    room: usize,
    /// Messages are told apart by who sends them.
    by_requester: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Messages that lines send.
    lines: BTreeMap<u32, MsiMessage>,
    /// Messages that have a number, and how many use it.
    messages: BTreeMap<u32, (MsiMessage, u32)>,
}

impl Routes {
    pub fn new(lines: Vec<kvm_irq_routing_entry>, first: u32, room: usize, by_requester: bool) -> Self {
        Self { lines, first, room, by_requester, state: Mutex::default() }
    }
    fn entry(&self, gsi: u32, m: &MsiMessage) -> kvm_irq_routing_entry {
        let mut entry = kvm_irq_routing_entry { gsi, type_: kb::KVM_IRQ_ROUTING_MSI, ..Default::default() };
        let mut msi = kb::kvm_irq_routing_msi {
            address_lo: m.address as u32,
            address_hi: (m.address >> 32) as u32,
            data: m.data,
            ..Default::default()
        };
        if self.by_requester {
            entry.flags = kb::KVM_MSI_VALID_DEVID;
            msi.__bindgen_anon_1.devid = m.requester_id;
        }
        entry.u.msi = msi;
        entry
    }
    fn same(&self, a: &MsiMessage, b: &MsiMessage) -> bool {
        a.address == b.address && a.data == b.data && (!self.by_requester || a.requester_id == b.requester_id)
    }
    fn write(&self, vm: &dyn Table, state: &State) -> io::Result<()> {
        let mut table = self.lines.clone();
        table.extend(state.lines.iter().map(|(gsi, m)| self.entry(*gsi, m)));
        table.extend(state.messages.iter().map(|(gsi, (m, _))| self.entry(*gsi, m)));
        if table.len() > self.room {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        vm.set(&table)
    }
    /// Writes the table for the first time.
    ///
    /// # Errors
    /// The kernel's, or ENOSPC.
    pub fn begin(&self, vm: &dyn Table) -> io::Result<()> {
        self.write(vm, &self.state.lock())
    }
    /// Line `gsi`, which has no other entry, sends this message from now on.
    ///
    /// # Errors
    /// The kernel's, or ENOSPC.
    #[cfg(target_arch = "x86_64")]
    pub fn set_line(&self, vm: &dyn Table, gsi: u32, message: MsiMessage) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.lines.insert(gsi, message) == Some(message) { Ok(()) } else { self.write(vm, &state) }
    }
    /// A number for a message: the one it has, or a free one.
    fn take(&self, vm: &dyn Table, message: MsiMessage) -> io::Result<u32> {
        let mut state = self.state.lock();
        if let Some((gsi, (_, users))) = state.messages.iter_mut().find(|(_, (m, _))| self.same(m, &message)) {
            *users += 1;
            return Ok(*gsi);
        }
        let gsi = (self.first..).find(|n| !state.messages.contains_key(n)).unwrap_or(self.first);
        state.messages.insert(gsi, (message, 1));
        let written = self.write(vm, &state);
        if written.is_err() {
            state.messages.remove(&gsi);
        }
        written.map(|()| gsi)
    }
    /// Gives a number back. What the kernel says of a smaller table does not matter: the number stands for nothing any more.
    fn give_back(&self, vm: &dyn Table, gsi: u32) {
        let mut state = self.state.lock();
        let Some((_, users)) = state.messages.get_mut(&gsi) else { return };
        *users -= 1;
        if *users == 0 {
            state.messages.remove(&gsi);
            let _ = self.write(vm, &state);
        }
    }
    fn number_of(&self, message: &MsiMessage) -> Option<u32> {
        let state = self.state.lock();
        state.messages.iter().find(|(_, (m, _))| self.same(m, message)).map(|(gsi, _)| *gsi)
    }
    /// # Errors
    /// The kernel's, or ENOSPC.
    pub fn attach(&self, vm: &dyn Table, message: MsiMessage, trigger: BorrowedFd<'_>) -> io::Result<()> {
        let gsi = self.take(vm, message)?;
        let attached = vm.event(trigger.as_raw_fd(), gsi, true);
        if attached.is_err() {
            self.give_back(vm, gsi);
        }
        attached
    }
    /// # Errors
    /// The kernel's; `NotFound` for a message that nothing is attached to.
    pub fn detach(&self, vm: &dyn Table, message: MsiMessage, trigger: BorrowedFd<'_>) -> io::Result<()> {
        let gsi = self.number_of(&message).ok_or(io::ErrorKind::NotFound)?;
        vm.event(trigger.as_raw_fd(), gsi, false)?;
        self.give_back(vm, gsi);
        Ok(())
    }
    /// How many messages have a number.
    #[must_use]
    pub fn used(&self) -> usize {
        self.state.lock().messages.len()
    }
}
