//! The Advanced Programmable Interrupt Controllers of x86: local APICs in xAPIC and x2APIC mode (Intel SDM volume 3, chapter 11), the
//! bus between them, message-signalled interrupts (section 11.11), and the I/O APIC (82093AA, with the EOI register of version 0x20).
//!
//! [`ApicBus`] holds the local APICs of all processors and routes messages. The machine connects each processor's inputs by
//! [`LapicOutputs`] and calls the bus for what the processor does with its own APIC: [`ApicBus::acknowledge`], model-specific
//! registers, CR8.
//!
//! # Locks
//! A local APIC's registers are atomics, so that an inter-processor interrupt takes no lock at all: the sender sets the bit in IRR,
//! then computes the level of INTR. Whoever changes what INTR depends on computes and sets it, and computes it again afterwards
//! until nothing changed in between; all these accesses are sequentially consistent, so the last one to set it sets the right level.
//! The timer has a lock of its own, as has each pin of an I/O APIC. No lock is held while an output is set or a message is sent.

mod accelerated;
mod bus;
mod ioapic;
mod lapic;
mod regs;
mod spec;
mod state;
mod timer;
mod vectors;
mod window;

#[cfg(test)]
mod tests;

pub use accelerated::{AcceleratedApics, MessageBus};
pub use bus::ApicBus;
pub use ioapic::{IOAPIC_PINS, IoApic, IoApicConfig};
pub use spec::{DEFAULT_BASE, Delivery, Message, WINDOW_LEN};

use rhea_clock::VirtualClock;
use rhea_device::Log;
use rhea_memory::AddressSpace;
use std::sync::Arc;
use thiserror::Error;

/// The inputs of one processor that its local APIC drives. All may be called from any thread, and are called with no lock held.
pub struct LapicOutputs {
    /// INTR: a level, while there is an interrupt to acknowledge.
    pub intr: Box<dyn Fn(bool) + Send + Sync>,
    pub nmi: Box<dyn Fn() + Send + Sync>,
    pub smi: Box<dyn Fn() + Send + Sync>,
    pub init: Box<dyn Fn() + Send + Sync>,
    /// A start-up message with its vector.
    pub sipi: Box<dyn Fn(u8) + Send + Sync>,
}

impl LapicOutputs {
    /// Outputs that end nowhere.
    #[must_use]
    pub fn unconnected() -> Self {
        Self {
            intr: Box::new(|_| ()),
            nmi: Box::new(|| ()),
            smi: Box::new(|| ()),
            init: Box::new(|| ()),
            sipi: Box::new(|_| ()),
        }
    }
}

/// One processor on the bus.
pub struct LapicConfig {
    /// The initial (x2)APIC id, below [`MAX_APIC_ID`]; in xAPIC mode its low 8 bits are the id until the guest writes another.
    pub apic_id: u32,
    pub outputs: LapicOutputs,
}

/// The largest APIC id possible, plus one.
pub const MAX_APIC_ID: u32 = 1 << 16;

/// How to make an [`ApicBus`].
pub struct ApicConfig {
    pub name: String,
    /// One for each processor, in the order of their indices; the first is the bootstrap processor.
    pub cpus: Vec<LapicConfig>,
    pub clock: Arc<VirtualClock>,
    /// The processors have x2APIC mode.
    pub x2apic: bool,
    /// The processors have the TSC-deadline mode of the timer.
    pub tsc_deadline: bool,
    /// The processors have the CMCI entry of the local vector table.
    pub cmci: bool,
    /// The processors' physical address width: which bits of IA32_APIC_BASE are reserved.
    pub phys_bits: u8,
    /// After reset LINT0 of the bootstrap processor is an open ExtINT input, as firmware leaves it (virtual wire mode).
    pub virtual_wire: bool,
    /// Messages of devices carry 15 bits of destination: bits 11:5 of an MSI address (bits 55:49 of a redirection entry) are bits
    /// 14:8 of the APIC id. To be announced to the guest, for example by KVM_FEATURE_MSI_EXT_DEST_ID.
    pub extended_destination: bool,
    /// Where the words of the paravirtual EOI are; without it that is off.
    pub memory: Option<Arc<AddressSpace>>,
    pub log: Log,
}

impl ApicConfig {
    /// All features but extended destinations; 40 bits of physical address.
    #[must_use]
    pub fn new(name: &str, cpus: Vec<LapicConfig>, clock: Arc<VirtualClock>) -> Self {
        Self {
            name: name.to_owned(),
            cpus,
            clock,
            x2apic: true,
            tsc_deadline: true,
            cmci: true,
            phys_bits: 40,
            virtual_wire: true,
            extended_destination: false,
            memory: None,
            log: Log::off(),
        }
    }
}

/// Why an [`ApicBus`] or [`IoApic`] cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ApicError {
    #[error("a machine has 1 to {} processors, not {count}", MAX_APIC_ID, count = .0)]
    Cpus(usize),
    #[error("an APIC id must be below {}, not {id:#x}", MAX_APIC_ID, id = .0)]
    Id(u32),
    #[error("two processors have the APIC id {0:#x}")]
    SameId(u32),
    #[error("the address of an APIC must be a multiple of 4 KiB, not {0:#x}")]
    Base(u64),
    #[error("there are already {0} I/O APICs")]
    IoApics(usize),
}

/// The access of a model-specific register raises #GP(0).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApicFault;

/// Where the interrupt comes from when an ExtINT is acknowledged: the 8259 pair.
pub trait InterruptAcknowledge: Send + Sync {
    /// INTA: the vector.
    fn acknowledge(&self) -> u8;
}

/// What becomes of a device's interrupt request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remapped {
    /// It means what it says (SDM 11.11).
    Unchanged,
    /// It is another message.
    Message(Message),
    /// It goes nowhere.
    Blocked,
}

/// Interrupt remapping: between devices and the bus of the local APICs.
pub trait InterruptRemapping: Send + Sync {
    /// A request of the function `source` (bus << 8 | devfn), or of the chipset's I/O APIC (`None`).
    fn remap(&self, source: Option<u16>, address: u64, data: u32) -> Remapped;
    /// The same for a request that may come later: nothing is reported.
    fn foresee(&self, source: Option<u16>, address: u64, data: u32) -> Remapped;
}

/// Who is told of the end of level-triggered interrupts: I/O APICs.
pub trait EoiTarget: Send + Sync {
    /// A local APIC broadcasts the end of `vector`.
    fn end_of_interrupt(&self, vector: u8);
    /// Remapping gives other answers from now on.
    fn remapping_changed(&self) {}
}
