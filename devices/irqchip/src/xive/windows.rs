//! The pages in guest memory. All registers are big-endian.

use super::{PRIORITIES, TIMA_PAGE_SHIFT, TIMA_PAGES, Xive};
use rhea_memory::{Access, BusError, MmioDevice};
use std::sync::Arc;

/// What the bus sees of the low `size` bytes of a big-endian register.
fn to_bus(value: u64, size: u8) -> u64 {
    value.swap_bytes() >> (64 - 8 * u32::from(size.clamp(1, 8)))
}

/// The event state buffers: two pages for each source (trigger, management), then two for each event queue (notification,
/// escalation).
pub struct EsbWindow(Arc<Xive>);

impl EsbWindow {
    #[must_use]
    pub fn new(xive: &Arc<Xive>) -> Arc<Self> {
        Arc::new(Self(xive.clone()))
    }
    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        ((self.0.sources.len() + self.0.ends.len()) as u64) << (self.0.places.page_shift + 1)
    }
    /// Number of the buffer, is it the second page, offset in the page.
    fn split(&self, offset: u64) -> (u64, bool, u64) {
        let shift = self.0.places.page_shift;
        (offset >> (shift + 1), offset >> shift & 1 != 0, offset & ((1 << shift) - 1))
    }
}

impl MmioDevice for EsbWindow {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        let xive = &self.0;
        let (n, second, at) = self.split(offset);
        let sources = xive.sources.len() as u64;
        let value = if n < sources {
            // Nothing is to be loaded from a trigger page.
            if second { xive.esb(n as u32, at, false) } else { u64::MAX }
        } else {
            let queue = n - sources;
            match xive.ends.get(queue as usize) {
                Some(end) => {
                    let (value, notify) = end.esb(at, second);
                    if notify {
                        let per = u64::from(PRIORITIES);
                        xive.present((queue / per) as u32, (queue % per) as u8);
                    }
                    value
                }
                None => u64::MAX,
            }
        };
        Ok(to_bus(value, access.size))
    }
    fn write(&self, offset: u64, _value: u64, _access: Access) -> Result<(), BusError> {
        let xive = &self.0;
        let (n, second, at) = self.split(offset);
        if n >= xive.sources.len() as u64 {
            xive.log.guest_error("xive", format_args!("store to the event state buffer of a queue"));
        } else if second {
            xive.esb(n as u32, at, true);
        } else {
            xive.esb_trigger(n as u32);
        }
        Ok(())
    }
    fn name(&self) -> &str {
        "xive-esb"
    }
}

/// The thread interrupt management area of the accessing processor.
pub struct TimaWindow(Arc<Xive>);

impl TimaWindow {
    #[must_use]
    pub fn new(xive: &Arc<Xive>) -> Arc<Self> {
        Arc::new(Self(xive.clone()))
    }
    /// Bytes.
    #[must_use]
    pub const fn size() -> u64 {
        TIMA_PAGES << TIMA_PAGE_SHIFT
    }
}

const OS_PAGE: u64 = 2;
const USER_PAGE: u64 = 3;
/// The OS ring in the page.
const OS_RING: u64 = 0x10;
const CPPR: u64 = OS_RING + 1;
/// Special operations.
const ACK_OS: u64 = 0x810;
const SET_OS_PENDING: u64 = 0x812;
const PULL_USER: u64 = 0x808;
/// Acknowledge of an event-based branch's interrupt, of the user ring, which never has one.
const ACK_EBB: u64 = 0x800;

impl MmioDevice for TimaWindow {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        let xive = &self.0;
        let (page, at) = (offset >> TIMA_PAGE_SHIFT, offset & 0xfff);
        let server = access.cpu_index().and_then(|n| xive.cpus.get(n as usize));
        let Some(context) = server.and_then(|s| xive.context(*s)) else { return Err(BusError::Refused) };
        match (page, at, access.size) {
            (OS_PAGE, ACK_OS, 2) => {
                let value = context.acknowledge();
                xive.drive(context);
                Ok(to_bus(value.into(), 8) >> 48)
            }
            (OS_PAGE | USER_PAGE, ACK_EBB, 2) | (OS_PAGE, PULL_USER, 4) => Ok(0),
            (OS_PAGE | USER_PAGE, 0..=0x3f, size) => {
                // Rings in turn: user, OS, pool, physical; an OS sees the first two, a user the first only, which has nothing.
                let mut bytes = [0u8; 64];
                if page == OS_PAGE {
                    bytes[OS_RING as usize..][..8].copy_from_slice(&context.raw().to_be_bytes());
                }
                let from = at as usize;
                let mut value = [0u8; 8];
                let got = bytes.get(from..from + usize::from(size)).ok_or(BusError::Refused)?;
                value[..got.len()].copy_from_slice(got);
                Ok(u64::from_le_bytes(value))
            }
            (OS_PAGE | USER_PAGE, ..) => {
                let size = access.size;
                xive.log.guest_error("xive", format_args!("load of {size} bytes from TIMA offset {at:#x}"));
                Ok(u64::MAX)
            }
            // The pages of hardware and hypervisor are not for guests.
            _ => Err(BusError::Unassigned),
        }
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        let xive = &self.0;
        let (page, at) = (offset >> TIMA_PAGE_SHIFT, offset & 0xfff);
        let server = access.cpu_index().and_then(|n| xive.cpus.get(n as usize));
        let Some(context) = server.and_then(|s| xive.context(*s)) else { return Err(BusError::Refused) };
        match (page, at, access.size) {
            (OS_PAGE, CPPR, 1) => {
                context.set_cppr(value as u8);
                xive.drive(context);
            }
            (OS_PAGE, SET_OS_PENDING, 1) => {
                if value as u8 <= 7 {
                    context.pend(value as u8);
                    xive.drive(context);
                }
            }
            (OS_PAGE | USER_PAGE, _, size) => {
                xive.log.guest_error("xive", format_args!("store of {size} bytes to TIMA offset {at:#x}"));
            }
            _ => return Err(BusError::Unassigned),
        }
        Ok(())
    }
    fn name(&self) -> &str {
        "xive-tima"
    }
}
