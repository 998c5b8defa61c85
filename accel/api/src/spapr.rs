//! What the pseries machine asks of an accelerator that has interrupt controllers, or tables that translate for devices, itself.

use std::io::Result;

/// A controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Xics,
    Xive,
}

/// Where the events of a XIVE source go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XiveTarget {
    pub masked: bool,
    pub server: u32,
    /// 0 to 6.
    pub priority: u8,
    /// What the queue's entry says.
    pub data: u32,
}

/// An event queue of XIVE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XiveQueue {
    /// log2 of its size in bytes; 0: there is none.
    pub shift: u32,
    /// Its guest-real address.
    pub page: u64,
    /// The bit that entries have now, and the place of the next.
    pub toggle: u32,
    pub index: u32,
}

/// Interrupt controllers of an accelerator, one of them at a time. Errors are the host's. The guest's hypercalls and pages that
/// present and end interrupts are the accelerator's then.
pub trait KernelIrqchip: Send + Sync {
    /// Makes the controller, with its sources (number, is it level-sensitive) masked. False: there is none of this mode.
    fn open(&self, mode: Mode, sources: &[(u32, bool)]) -> bool;
    /// Gives it up; the messages that were pending, where `carry` asks for them.
    fn close(&self, carry: bool) -> Vec<u32>;
    /// A source begins to exist, masked.
    ///
    /// # Errors
    /// The host's.
    fn claim(&self, irq: u32, level: bool) -> Result<()>;
    /// A source is gone.
    fn free(&self, irq: u32);
    /// The level of a level-sensitive source; for others `true` is an edge. False: there is no controller.
    fn set_level(&self, irq: u32, level: bool) -> bool;
    /// A server's presentation controller is as after a reset.
    fn reset_server(&self, server: u32);
    /// XIVE: assigns a source.
    ///
    /// # Errors
    /// The host's.
    fn set_target(&self, irq: u32, target: XiveTarget) -> Result<()>;
    /// XIVE: makes a queue, or takes it away.
    ///
    /// # Errors
    /// The host's.
    fn set_queue(&self, server: u32, priority: u8, queue: XiveQueue) -> Result<()>;
    /// XIVE: a queue as it is.
    ///
    /// # Errors
    /// The host's.
    fn queue(&self, server: u32, priority: u8) -> Result<XiveQueue>;
    /// XIVE: loads from or stores to the management page of a source; what was loaded.
    fn esb(&self, irq: u32, offset: u64, store: bool) -> u64;
    /// XIVE: events on their way are in their queues.
    ///
    /// # Errors
    /// The host's.
    fn sync(&self, irq: u32) -> Result<()>;
    /// XIVE: forgets what the guest has configured.
    ///
    /// # Errors
    /// The host's.
    fn reset(&self) -> Result<()>;
}

/// Tables of translation control entries that the accelerator changes itself, so that the guest's hypercalls do not leave guest code, and
/// nobody is told of a change.
pub trait KernelTces: Send + Sync {
    /// An empty table of `pages` entries, for pages of 2^`page_shift` bytes, the first with number `first` on the bus. `None`: the
    /// accelerator cannot have it. There is one table for a bus number at a time.
    fn create(&self, liobn: u32, page_shift: u32, first: u64, pages: u64) -> Option<Box<dyn KernelTable>>;
    /// Calls `f` while no processor is in guest code, and no table changes.
    fn exclusively(&self, f: &mut dyn FnMut());
}

/// Such a table. It ends when this is dropped; hypercalls for its bus leave guest code then.
pub trait KernelTable: Send + Sync {
    /// An entry; 0 beyond the end.
    fn load(&self, index: usize) -> u64;
    fn store(&self, index: usize, tce: u64);
}
