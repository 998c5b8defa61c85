//! Root hub ports (xHCI 4.19, 5.4.8).

use crate::Speed;
use minicbor::{Decode, Encode};

const CONNECTED: u32 = 1;
const ENABLED: u32 = 1 << 1;
const RESET: u32 = 1 << 4;
const LINK: u32 = 15 << 5;
const POWER: u32 = 1 << 9;
const INDICATOR: u32 = 3 << 14;
const LINK_STROBE: u32 = 1 << 16;
const CONNECT_CHANGE: u32 = 1 << 17;
const WARM_CHANGE: u32 = 1 << 19;
const RESET_CHANGE: u32 = 1 << 21;
const LINK_CHANGE: u32 = 1 << 22;
/// Bits that software clears by writing ones.
const CHANGES: u32 = 0x00fe_0000;
/// Wake on connect, disconnect, over-current.
const WAKE: u32 = 7 << 25;
const WARM_RESET: u32 = 1 << 31;

/// Port link states (table 5-27).
mod link {
    pub const U0: u32 = 0;
    pub const U2: u32 = 2;
    pub const U3: u32 = 3;
    pub const DISABLED: u32 = 4;
    pub const RX_DETECT: u32 = 5;
    pub const POLLING: u32 = 7;
    pub const RESUME: u32 = 15;
}

/// A port of USB 2 or 3.
#[derive(Clone, Debug, Encode, Decode)]
pub struct Port {
    #[n(0)]
    usb3: bool,
    #[n(1)]
    status: u32,
    #[n(2)]
    power: u32,
    #[n(3)]
    low_power: u32,
}

/// What a write to a port leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// There is a change that software has not been told of.
    pub changed: bool,
    /// The device is reset.
    pub reset: bool,
    /// Transfers may go again.
    pub resumed: bool,
}

impl Port {
    /// `speed` of the device that is connected.
    pub fn new(usb3: bool, speed: Option<Speed>) -> Self {
        let status = match speed {
            // A link of USB 3 trains by itself.
            Some(s) if usb3 => CONNECTED | ENABLED | CONNECT_CHANGE | link::U0 << 5 | (s as u32) << 10,
            Some(s) => CONNECTED | CONNECT_CHANGE | link::POLLING << 5 | (s as u32) << 10,
            None => link::RX_DETECT << 5,
        };
        Self { usb3, status: status | POWER, power: 0, low_power: 0 }
    }
    pub fn is_usb3(&self) -> bool {
        self.usb3
    }
    pub fn changed(&self) -> bool {
        self.status & CHANGES != 0
    }
    fn link(&self) -> u32 {
        (self.status & LINK) >> 5
    }
    fn set_link(&mut self, state: u32) {
        self.status = self.status & !LINK | state << 5;
    }
    /// The device can be talked to.
    pub fn works(&self) -> bool {
        self.status & ENABLED != 0 && !matches!(self.link(), link::U3 | link::RESUME)
    }
    pub fn enabled(&self) -> bool {
        self.status & ENABLED != 0
    }
    /// A device that sleeps asks for attention.
    pub fn wake(&mut self) -> Effect {
        if self.status & ENABLED == 0 || self.link() != link::U3 {
            return Effect::default();
        }
        let before = self.status;
        // USB 3 resumes without software; USB 2 waits for it.
        self.set_link(if self.usb3 { link::U0 } else { link::RESUME });
        self.status |= LINK_CHANGE;
        Effect { changed: before & LINK_CHANGE == 0, reset: false, resumed: self.usb3 }
    }
    pub fn read(&self, register: u64) -> u32 {
        match register {
            0 => self.status,
            4 => self.power,
            // Link errors: none.
            8 => 0,
            _ => self.low_power,
        }
    }
    pub fn write(&mut self, register: u64, value: u32) -> Effect {
        match register {
            0 => return self.control(value),
            // U1 and U2 timeouts; or remote wake, latency, device slot, hardware management.
            4 => self.power = value & if self.usb3 { 0x1_ffff } else { 0x1_fff8 },
            12 if !self.usb3 => self.low_power = value & 0x3fff,
            _ => {}
        }
        Effect::default()
    }
    fn control(&mut self, value: u32) -> Effect {
        let mut effect = Effect::default();
        self.status &= !(value & CHANGES);
        let before = self.status;
        self.status = self.status & !(WAKE | INDICATOR) | value & (WAKE | INDICATOR);
        let warm = self.usb3 && value & WARM_RESET != 0;
        if (value & RESET != 0 || warm) && self.status & CONNECTED != 0 {
            self.set_link(link::U0);
            self.status |= ENABLED | RESET_CHANGE | if warm { WARM_CHANGE } else { 0 };
            effect.reset = true;
        } else if value & ENABLED != 0 && self.status & ENABLED != 0 {
            self.status &= !ENABLED;
            self.set_link(if self.usb3 { link::DISABLED } else { link::POLLING });
        } else if value & LINK_STROBE != 0 {
            effect.resumed = self.move_link((value & LINK) >> 5);
        }
        effect.changed = self.status & !before & CHANGES != 0;
        effect
    }
    /// Software moves the link; true: transfers may go again.
    fn move_link(&mut self, to: u32) -> bool {
        let from = self.link();
        match (to, from) {
            (link::U0, link::U3 | link::RESUME) if self.enabled() => {
                self.set_link(link::U0);
                self.status |= LINK_CHANGE;
                return true;
            }
            (link::U0..=link::U2, link::U0..=link::U2) if self.enabled() => self.set_link(to),
            (link::U3, link::U0..=link::U2) if self.enabled() => self.set_link(to),
            (link::RESUME, link::U3) if !self.usb3 => self.set_link(to),
            (link::DISABLED, _) if self.usb3 => {
                self.status &= !ENABLED;
                self.set_link(to);
            }
            (link::RX_DETECT, link::DISABLED) if self.usb3 => {
                let connected = self.status & CONNECTED != 0;
                self.set_link(if connected { link::U0 } else { to });
                if connected {
                    self.status |= ENABLED | CONNECT_CHANGE;
                }
            }
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resets_and_changes() {
        let mut p = Port::new(false, Some(Speed::High));
        assert!(!p.works() && p.changed());
        p.write(0, CHANGES);
        let e = p.write(0, RESET);
        assert_eq!(e, Effect { changed: true, reset: true, resumed: false });
        assert_eq!(p.read(0) & (ENABLED | LINK | RESET | RESET_CHANGE), ENABLED | RESET_CHANGE);
        assert!(!p.write(0, RESET).changed, "the change has been told");
        p.write(0, CHANGES | ENABLED);
        assert!(!p.works() && !p.changed());
        let mut empty = Port::new(true, None);
        assert_eq!(empty.write(0, RESET | WARM_RESET), Effect::default());
    }

    #[test]
    fn sleep() {
        let mut p = Port::new(true, Some(Speed::Super));
        p.write(0, CHANGES);
        assert!(p.works());
        p.write(0, LINK_STROBE | link::U3 << 5);
        assert!(!p.works() && !p.changed());
        assert!(p.wake().changed && p.works());
        let mut p = Port::new(false, Some(Speed::High));
        p.write(0, CHANGES | RESET);
        p.write(0, CHANGES);
        p.write(0, LINK_STROBE | link::U3 << 5);
        assert!(p.wake().changed && !p.works());
        assert!(p.write(0, CHANGES | LINK_STROBE).resumed && p.works());
    }
}
