//! Message interrupts by RTAS (LoPAPR 7.3.10.5): the platform chooses numbers, and programs them into the function.

use super::{MESSAGE_ADDRESS, Phb, Reply};
use crate::papr::rtas;
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_pci::PciFunction;
use std::collections::BTreeMap;

/// Function numbers of ibm,change-msi.
const CHANGE: u32 = 1;
const RESET: u32 = 2;
const CHANGE_MSI: u32 = 3;
const CHANGE_MSIX: u32 = 4;

const CAP_MSI: u8 = 0x05;

/// What a function was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Given {
    #[n(0)]
    pub first: u32,
    #[n(1)]
    pub count: u32,
    #[n(2)]
    pub msix: bool,
}

/// By configuration address (bus, device, function; the register is 0).
#[derive(Default)]
pub(super) struct Messages(pub Mutex<BTreeMap<u32, Given>>);

/// The offset of a capability.
fn capability(function: &dyn PciFunction, id: u8) -> Option<u16> {
    let mut at = function.config_read(0x34, 1) as u16 & 0xfc;
    for _ in 0..48 {
        if at < 0x40 {
            return None;
        }
        let word = function.config_read(at, 2);
        if word as u8 == id {
            return Some(at);
        }
        at = (word >> 8) as u16 & 0xfc;
    }
    None
}

/// How many messages a function can have, MSI and MSI-X.
pub(super) fn capacity(function: &dyn PciFunction) -> (u32, u32) {
    let msi = capability(function, CAP_MSI).map_or(0, |at| 1 << (function.config_read(at + 2, 2) >> 1 & 7).min(5));
    (msi, function.msix_vectors())
}

fn program(function: &dyn PciFunction, given: Given) {
    let (low, high) = (MESSAGE_ADDRESS as u32, (MESSAGE_ADDRESS >> 32) as u32);
    if given.msix {
        for n in 0..given.count {
            function.program_msix(n, MESSAGE_ADDRESS, given.first + n);
        }
    } else if let Some(at) = capability(function, CAP_MSI) {
        let control = function.config_read(at + 2, 2);
        let wide = control & 0x80 != 0;
        function.config_write(at + 4, 4, low);
        if wide {
            function.config_write(at + 8, 4, high);
        }
        function.config_write(at + if wide { 12 } else { 8 }, 2, given.first);
        // Multiple message enable.
        function.config_write(at + 2, 2, control & !0x70 | given.count.trailing_zeros() << 4);
    }
}

impl Phb {
    fn give_back(&self, address: u32) {
        let old = self.messages.0.lock().remove(&address);
        if let Some(given) = old {
            self.irq.free_messages(given.first, given.count);
        }
    }
    pub(super) fn give_back_all(&self) {
        let all: Vec<u32> = self.messages.0.lock().keys().copied().collect();
        for address in all {
            self.give_back(address);
        }
    }
    /// A function is taken off the bus: its messages are free.
    pub fn forget(&self, bus: u8, devfn: u8) {
        self.give_back(u32::from(bus) << 16 | u32::from(devfn) << 8);
    }
    pub(super) fn change_msi(&self, address: u32, kind: u32, count: u32, sequence: u32, results: usize) -> Reply {
        let address = address & 0x00ff_ff00;
        let function = self.function(address)?;
        let (msi, msix) = capacity(&*function);
        let msix_wanted = match kind {
            CHANGE | CHANGE_MSI => false,
            CHANGE_MSIX => true,
            RESET => {
                self.give_back(address);
                return Some((rtas::SUCCESS, vec![0, sequence.wrapping_add(1), 1]));
            }
            _ => return None,
        };
        // Those that change one kind tell which it is.
        let kind_value = if msix_wanted { 2 } else { 1 };
        let reply = |count: u32| {
            let mut values = vec![count, sequence.wrapping_add(1)];
            if results > 3 {
                values.push(kind_value);
            }
            Some((rtas::SUCCESS, values))
        };
        if count == 0 {
            self.give_back(address);
            return reply(0);
        }
        let most = if msix_wanted { msix } else { msi };
        if most == 0 {
            return None;
        }
        // MSI has powers of two, and the messages differ in the low bits.
        let mut count = count.min(most);
        if !msix_wanted {
            count = 1 << count.ilog2();
        }
        let old = self.messages.0.lock().get(&address).copied();
        let given = match old {
            Some(old) if old.count == count && old.msix == msix_wanted => old,
            _ => {
                self.give_back(address);
                let align = if msix_wanted { 1 } else { count };
                let Some(first) = self.irq.allocate_messages(count, align) else {
                    return Some((rtas::HARDWARE_ERROR, Vec::new()));
                };
                Given { first, count, msix: msix_wanted }
            }
        };
        program(&*function, given);
        let replaced = self.messages.0.lock().insert(address, given);
        // Two processors may have asked at once.
        if let Some(lost) = replaced.filter(|r| *r != given) {
            self.irq.free_messages(lost.first, lost.count);
        }
        reply(count)
    }
    pub(super) fn query_source(&self, address: u32, n: u32) -> Reply {
        let given = self.messages.0.lock().get(&(address & 0x00ff_ff00)).copied()?;
        // 1: edge.
        (n < given.count).then(|| (rtas::SUCCESS, vec![given.first + n, 1]))
    }
}
