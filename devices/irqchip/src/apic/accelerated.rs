//! What I/O APICs and interrupt remapping see of the local APICs: those of [`ApicBus`], or an accelerator's.

use super::spec::{DEFAULT_BASE, Delivery, Message};
use super::{ApicBus, ApicError, EoiTarget, InterruptRemapping, Remapped};
use parking_lot::Mutex;
use rhea_accel::{IrqFd, IrqLine, LocalApics, MsiMessage, MsiTarget};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, OnceLock, Weak};

/// The bus of the local APICs.
pub trait MessageBus: MsiTarget {
    /// An I/O APIC is to hear of level-triggered interrupts that end.
    ///
    /// # Errors
    /// [`ApicError::IoApics`].
    fn connect_eoi(&self, target: &Arc<dyn EoiTarget>) -> Result<(), ApicError>;
    /// Puts interrupt remapping between devices and the bus; the first one stays.
    fn set_remapping(&self, remapping: Weak<dyn InterruptRemapping>);
    fn remapping(&self) -> Option<Arc<dyn InterruptRemapping>>;
    /// The destination of a device's message, with the bits that extend it if those count.
    fn device_destination(&self, low: u32, extension: u32) -> u32;
    /// Hands a message to those it is for; false if nobody took it.
    fn deliver(&self, message: &Message) -> bool;
    /// Sends a message as it is, whatever remapping says.
    fn send_direct(&self, address: u64, data: u32);
    /// Has the bus to know what pins of I/O APICs send before they do?
    fn wants_pins(&self) -> bool {
        false
    }
    /// What a pin with a level-triggered interrupt sends from now on.
    fn set_pin(&self, _pin: u32, _message: &Message) {}
    /// Remapping gives other answers from now on.
    fn remapping_changed(&self) {}

    /// What a device's request becomes.
    fn remap(&self, source: Option<u16>, address: u64, data: u32) -> Remapped {
        self.remapping().map_or(Remapped::Unchanged, |r| r.remap(source, address, data))
    }
}

impl MessageBus for ApicBus {
    fn connect_eoi(&self, target: &Arc<dyn EoiTarget>) -> Result<(), ApicError> {
        self.connect_eoi(target)
    }
    fn set_remapping(&self, remapping: Weak<dyn InterruptRemapping>) {
        self.set_remapping(remapping);
    }
    fn remapping(&self) -> Option<Arc<dyn InterruptRemapping>> {
        self.remapping()
    }
    fn device_destination(&self, low: u32, extension: u32) -> u32 {
        self.device_destination(low, extension)
    }
    fn deliver(&self, message: &Message) -> bool {
        self.deliver(message)
    }
    fn send_direct(&self, address: u64, data: u32) {
        self.send_direct(address, data);
    }
}

/// As a message-signalled interrupt (SDM volume 3, 11.11). Bits 31:8 of a destination that is that wide are in bits 63:40 of the address.
fn encode(m: &Message) -> MsiMessage {
    let delivery = match m.delivery {
        Delivery::Fixed => 0,
        Delivery::LowestPriority => 1,
        Delivery::Smi => 2,
        Delivery::Nmi => 4,
        Delivery::Init => 5,
        Delivery::StartUp => 6,
        Delivery::ExtInt => 7,
    };
    let high = if m.wide { u64::from(m.destination & !0xff) << 32 } else { 0 };
    let address = high | DEFAULT_BASE | u64::from(m.destination & 0xff) << 12 | u64::from(m.logical) << 2;
    const ASSERT: u32 = 1 << 14;
    MsiMessage {
        address,
        data: u32::from(m.vector) | delivery << 8 | ASSERT | u32::from(m.level) << 15,
        requester_id: 0,
    }
}

/// An eventfd that stands for a message.
struct Attached {
    asked: MsiMessage,
    /// The caller's number of the file, by which it is found again.
    number: RawFd,
    file: OwnedFd,
    /// What the accelerator was told; `None`: remapping blocks it.
    told: Option<MsiMessage>,
}

/// The local APICs of an accelerator, with I/O APIC and interrupt remapping of the machine.
pub struct AcceleratedApics {
    local: Arc<dyn LocalApics>,
    irqfd: Option<Arc<dyn IrqFd>>,
    target: OnceLock<Weak<dyn EoiTarget>>,
    remapping: OnceLock<Weak<dyn InterruptRemapping>>,
    attached: Mutex<Vec<Attached>>,
}

impl AcceleratedApics {
    #[must_use]
    pub fn new(local: Arc<dyn LocalApics>, irqfd: Option<Arc<dyn IrqFd>>) -> Arc<Self> {
        Arc::new(Self { local, irqfd, target: OnceLock::new(), remapping: OnceLock::new(), attached: Mutex::default() })
    }
    /// A local APIC broadcasts the end of the level-triggered interrupt `vector`.
    pub fn end_of_interrupt(&self, vector: u8) {
        if let Some(target) = self.target.get().and_then(Weak::upgrade) {
            target.end_of_interrupt(vector);
        }
    }
    /// The message that reaches the local APICs, for who prepares it: no fault is reported.
    fn foresee(&self, m: MsiMessage) -> Option<MsiMessage> {
        let MsiMessage { address, data, requester_id } = m;
        let remapped =
            self.remapping().map_or(Remapped::Unchanged, |r| r.foresee(Some(requester_id as u16), address, data));
        match remapped {
            Remapped::Unchanged => Some(MsiMessage { requester_id: 0, ..m }),
            Remapped::Message(message) => Some(encode(&message)),
            Remapped::Blocked => None,
        }
    }
    fn accelerator(&self) -> io::Result<&Arc<dyn IrqFd>> {
        self.irqfd.as_ref().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }
}

impl MsiTarget for AcceleratedApics {
    fn send(&self, message: MsiMessage) {
        let MsiMessage { address, data, requester_id } = message;
        match self.remap(Some(requester_id as u16), address, data) {
            Remapped::Unchanged => self.send_direct(address, data),
            Remapped::Message(message) => {
                self.deliver(&message);
            }
            Remapped::Blocked => {}
        }
    }
}

impl MessageBus for AcceleratedApics {
    fn connect_eoi(&self, target: &Arc<dyn EoiTarget>) -> Result<(), ApicError> {
        self.target.set(Arc::downgrade(target)).map_err(|_| ApicError::IoApics(1))
    }
    fn set_remapping(&self, remapping: Weak<dyn InterruptRemapping>) {
        let _ = self.remapping.set(remapping);
    }
    fn remapping(&self) -> Option<Arc<dyn InterruptRemapping>> {
        self.remapping.get().and_then(Weak::upgrade)
    }
    fn device_destination(&self, low: u32, _extension: u32) -> u32 {
        low
    }
    fn deliver(&self, message: &Message) -> bool {
        self.local.signal(encode(message))
    }
    fn send_direct(&self, address: u64, data: u32) {
        const LEVEL_DOWN: (u32, u32) = (3 << 14, 1 << 15);
        // The end of a level: nothing is sent.
        if data & LEVEL_DOWN.0 != LEVEL_DOWN.1 {
            self.local.signal(MsiMessage { address, data, requester_id: 0 });
        }
    }
    fn wants_pins(&self) -> bool {
        true
    }
    fn set_pin(&self, pin: u32, message: &Message) {
        self.local.set_pin(pin, encode(message));
    }
    fn remapping_changed(&self) {
        if let Some(target) = self.target.get().and_then(Weak::upgrade) {
            target.remapping_changed();
        }
        let Ok(irqfd) = self.accelerator() else { return };
        for entry in &mut *self.attached.lock() {
            let wanted = self.foresee(entry.asked);
            if wanted == entry.told {
                continue;
            }
            if let Some(old) = entry.told.take() {
                let _ = irqfd.detach_msi(old, entry.file.as_fd());
            }
            entry.told = wanted.filter(|new| irqfd.attach_msi(*new, entry.file.as_fd()).is_ok());
        }
    }
}

/// Messages only: a level-triggered line ends in the machine's I/O APIC.
impl IrqFd for AcceleratedApics {
    fn attach(&self, _: &IrqLine, _: BorrowedFd<'_>, _: Option<BorrowedFd<'_>>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn detach(&self, _: &IrqLine, _: BorrowedFd<'_>) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }
    fn attach_msi(&self, message: MsiMessage, trigger: BorrowedFd<'_>) -> io::Result<()> {
        let irqfd = self.accelerator()?;
        let mut attached = self.attached.lock();
        // One that is blocked is sent the long way, which reports it.
        let told = self.foresee(message).ok_or(io::ErrorKind::PermissionDenied)?;
        let file = trigger.try_clone_to_owned()?;
        irqfd.attach_msi(told, trigger)?;
        attached.push(Attached { asked: message, number: trigger.as_raw_fd(), file, told: Some(told) });
        Ok(())
    }
    fn detach_msi(&self, message: MsiMessage, trigger: BorrowedFd<'_>) -> io::Result<()> {
        let mut attached = self.attached.lock();
        let number = trigger.as_raw_fd();
        let at = attached.iter().position(|a| a.number == number && a.asked == message);
        let entry = attached.swap_remove(at.ok_or(io::ErrorKind::NotFound)?);
        match entry.told {
            Some(told) => self.accelerator()?.detach_msi(told, trigger),
            None => Ok(()),
        }
    }
}
