//! What a device on the memory bus looks like to the bus.

use std::sync::{OnceLock, Weak};
use thiserror::Error;

/// Who made an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requester {
    /// A vCPU, by index.
    Cpu(u32),
    /// A bus master, by requester id (PCI: bus << 8 | devfn; others: 0x1_0000 and up).
    Device(u32),
    /// The GDB stub: devices should have no side effects.
    Debugger,
    /// The emulator itself (loaders, firmware tables).
    Host,
}

/// One access on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Bytes: 1, 2, 4 or 8.
    pub size: u8,
    pub requester: Requester,
    /// The Secure attribute of the transaction (Arm NS = 0).
    pub secure: bool,
}

impl Access {
    /// A non-secure access of `size` bytes by vCPU `index`.
    #[must_use]
    pub const fn cpu(index: u32, size: u8) -> Self {
        Self { size, requester: Requester::Cpu(index), secure: false }
    }
    /// A non-secure access of `size` bytes by the device `rid`.
    #[must_use]
    pub const fn device(rid: u32, size: u8) -> Self {
        Self { size, requester: Requester::Device(rid), secure: false }
    }
    /// An access by the emulator itself.
    #[must_use]
    pub const fn host(size: u8) -> Self {
        Self { size, requester: Requester::Host, secure: false }
    }
    /// The index of the vCPU that made the access, if one did.
    #[must_use]
    pub const fn cpu_index(&self) -> Option<u32> {
        match self.requester {
            Requester::Cpu(n) => Some(n),
            _ => None,
        }
    }
    /// The same access with another size.
    #[must_use]
    pub const fn with_size(self, size: u8) -> Self {
        Self { size, ..self }
    }
}

/// Why an access failed. A CPU turns each into an external abort, a DMA master into its own error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BusError {
    /// Nothing answers at the address.
    #[error("nothing is mapped at the address")]
    Unassigned,
    /// The target exists and refused the access (size, alignment, security, a device error), or it is memory that is guest code's alone.
    #[error("the device refused the access")]
    Refused,
    /// A write to read-only memory.
    #[error("the memory is read-only")]
    ReadOnly,
}

/// What access sizes a device takes. The bus refuses what is not valid, and splits, widens or merges valid accesses into
/// implemented ones. Values are little-endian numbers; a widened read reads the enclosing implemented word and extracts, a
/// widened write writes the enclosing word with the other bytes zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessRules {
    /// Smallest and largest size in bytes the bus accepts; others are [`BusError::Refused`].
    pub valid_min: u8,
    pub valid_max: u8,
    /// Smallest and largest size in bytes the device's handlers see.
    pub impl_min: u8,
    pub impl_max: u8,
    /// Accesses that are not naturally aligned are valid; the bus splits them into aligned ones.
    pub unaligned: bool,
}

impl AccessRules {
    /// All sizes 1 to 8 accepted and passed on unchanged, unaligned ones refused.
    pub const ANY: Self = Self { valid_min: 1, valid_max: 8, impl_min: 1, impl_max: 8, unaligned: false };
    /// All sizes accepted, the handler sees aligned 4-byte accesses only.
    pub const WORD: Self = Self { valid_min: 1, valid_max: 8, impl_min: 4, impl_max: 4, unaligned: true };
    /// Only exactly `n`-byte aligned accesses are valid.
    #[must_use]
    pub const fn exactly(n: u8) -> Self {
        Self { valid_min: n, valid_max: n, impl_min: n, impl_max: n, unaligned: false }
    }
    /// Everything from 1 to 8 accepted, the handler sees `min` to `max`.
    #[must_use]
    pub const fn implemented(min: u8, max: u8) -> Self {
        Self { valid_min: 1, valid_max: 8, impl_min: min, impl_max: max, unaligned: true }
    }
}

/// A device's window on the bus. Handlers take `&self` and lock inside; they may be called from every vCPU thread at once,
/// and must not hold a lock while calling into another device or into [`crate::AddressSpace`].
pub trait MmioDevice: Send + Sync {
    /// Reads `access.size` bytes at `offset` from the start of the region; the value is zero-extended.
    ///
    /// # Errors
    /// The bus error the master shall see.
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError>;

    /// Writes the low `access.size` bytes of `value` at `offset`.
    ///
    /// # Errors
    /// The bus error the master shall see.
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError>;

    /// Offsets of registers whose writes only say that there is work: value, size and who writes do not matter, several may become one,
    /// and an accelerator may [`Self::ring`] them on a thread of its own while guest code runs on. Always the same.
    fn doorbells(&self) -> Vec<u64> {
        Vec::new()
    }
    /// Does what a write to the doorbell at `offset` says that there is to do; true: not all of it, so that other doorbells of the device
    /// have their turn before this one is rung again.
    fn ring(&self, offset: u64) -> bool {
        let _ = self.write(offset, 0, Access::host(2));
        false
    }

    /// Not `None`: an accelerator may hold back writes to this device while guest code runs on. They are done one by one, in order, before
    /// any vCPU's access to a device that is not held back, and when the device asks by [`HeldWrites::settle`]. A handler of such writes
    /// looks at nothing but the device's own state. Always the same.
    fn held_writes(&self) -> Option<&HeldWrites> {
        None
    }

    /// The sizes this device takes. Asked once, when the region is mapped.
    fn rules(&self) -> AccessRules {
        AccessRules::ANY
    }

    /// A name for `info mtree` and for logs.
    fn name(&self) -> &str {
        "mmio"
    }
}

/// An accelerator that holds back writes.
pub trait WriteHolder: Send + Sync {
    /// Does those that it holds.
    fn settle(&self);
}

/// A device's side of [`MmioDevice::held_writes`].
#[derive(Default)]
pub struct HeldWrites(OnceLock<Weak<dyn WriteHolder>>);

impl HeldWrites {
    /// Names the accelerator. A machine has one: the first stays.
    pub fn hold(&self, holder: Weak<dyn WriteHolder>) {
        let _ = self.0.set(holder);
    }
    /// Has the writes done that are held back: before the device looks at its state for another reason than an access. The caller holds no
    /// lock that the handler of writes takes.
    pub fn settle(&self) {
        if let Some(holder) = self.0.get().and_then(Weak::upgrade) {
            holder.settle();
        }
    }
}

/// The low `size` bytes all ones.
const fn ones(size: u8) -> u64 {
    if size >= 8 { u64::MAX } else { (1 << (size as u32 * 8)) - 1 }
}

impl AccessRules {
    fn accepts(&self, offset: u64, size: u8) -> bool {
        size >= self.valid_min && size <= self.valid_max && (self.unaligned || offset & (u64::from(size) - 1) == 0)
    }
    fn direct(&self, offset: u64, size: u8) -> bool {
        size >= self.impl_min && size <= self.impl_max && offset & (u64::from(size) - 1) == 0
    }
    /// The implemented size for one piece of an access that is not direct.
    fn piece(&self, size: u8) -> u8 {
        size.clamp(self.impl_min, self.impl_max)
    }
}

/// A read by the rules.
#[inline]
pub(crate) fn read(device: &dyn MmioDevice, rules: AccessRules, offset: u64, access: Access) -> Result<u64, BusError> {
    let size = access.size;
    if !matches!(size, 1 | 2 | 4 | 8) || !rules.accepts(offset, size) {
        return Err(BusError::Refused);
    }
    if rules.direct(offset, size) {
        return Ok(device.read(offset, access)? & ones(size));
    }
    let piece = rules.piece(size);
    let step = u64::from(piece);
    let (mut value, mut at, end) = (0u64, offset & !(step - 1), offset + u64::from(size));
    while at < end {
        let word = device.read(at, access.with_size(piece))? & ones(piece);
        value |= if at < offset { word >> ((offset - at) * 8) } else { word << ((at - offset) * 8) };
        at += step;
    }
    Ok(value & ones(size))
}

/// A write by the rules.
#[inline]
pub(crate) fn write(
    device: &dyn MmioDevice,
    rules: AccessRules,
    offset: u64,
    value: u64,
    access: Access,
) -> Result<(), BusError> {
    let size = access.size;
    if !matches!(size, 1 | 2 | 4 | 8) || !rules.accepts(offset, size) {
        return Err(BusError::Refused);
    }
    let value = value & ones(size);
    if rules.direct(offset, size) {
        return device.write(offset, value, access);
    }
    let piece = rules.piece(size);
    let step = u64::from(piece);
    let (mut at, end) = (offset & !(step - 1), offset + u64::from(size));
    while at < end {
        let word = if at < offset { value << ((offset - at) * 8) } else { value >> ((at - offset) * 8) };
        device.write(at, word & ones(piece), access.with_size(piece))?;
        at += step;
    }
    Ok(())
}
