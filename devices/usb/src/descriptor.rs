//! Descriptors and standard requests (USB 2.0 chapter 9, USB 3.2 chapter 9), the same for all devices.

use crate::{Setup, Speed, Stall};
use minicbor::{Decode, Encode};

/// How an endpoint transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointKind {
    Bulk,
    Interrupt,
}

/// An endpoint of the only interface.
#[derive(Clone, Copy, Debug)]
pub struct EndpointSpec {
    /// The number, with bit 7 set if data goes to the host.
    pub address: u8,
    pub kind: EndpointKind,
    /// Bytes of a packet at full, high and super speed.
    pub packet: [u16; 3],
    /// As the descriptor has it: ms at full speed, an exponent otherwise.
    pub interval: [u8; 3],
}

/// The only interface of a device.
#[derive(Clone, Debug)]
pub struct InterfaceSpec {
    pub class: u8,
    pub subclass: u8,
    pub protocol: u8,
    /// Descriptors of the class, before those of the endpoints.
    pub extra: Vec<u8>,
    pub endpoints: Vec<EndpointSpec>,
}

/// What a device says about itself.
#[derive(Clone, Debug)]
pub struct Descriptors {
    pub vendor: u16,
    pub product: u16,
    pub device_class: u8,
    /// Manufacturer, product, serial number; at most 126 characters each.
    pub strings: [String; 3],
    pub self_powered: bool,
    pub remote_wakeup: bool,
    /// The fastest it can.
    pub most: Speed,
    pub interface: InterfaceSpec,
}

mod request {
    pub const GET_STATUS: u8 = 0;
    pub const CLEAR_FEATURE: u8 = 1;
    pub const SET_FEATURE: u8 = 3;
    pub const SET_ADDRESS: u8 = 5;
    pub const GET_DESCRIPTOR: u8 = 6;
    pub const GET_CONFIGURATION: u8 = 8;
    pub const SET_CONFIGURATION: u8 = 9;
    pub const GET_INTERFACE: u8 = 10;
    pub const SET_INTERFACE: u8 = 11;
    pub const SET_SEL: u8 = 48;
    pub const SET_ISOCH_DELAY: u8 = 49;
}
mod kind {
    pub const DEVICE: u8 = 1;
    pub const CONFIGURATION: u8 = 2;
    pub const STRING: u8 = 3;
    pub const QUALIFIER: u8 = 6;
    pub const OTHER_SPEED: u8 = 7;
    pub const BOS: u8 = 15;
}
const HALT: u16 = 0;
const REMOTE_WAKEUP: u16 = 1;
/// U1, U2 and latency messages.
const POWER_FEATURES: std::ops::RangeInclusive<u16> = 48..=50;

fn index(speed: Speed) -> usize {
    match speed {
        Speed::Full => 0,
        Speed::High => 1,
        Speed::Super => 2,
    }
}

impl Descriptors {
    fn version(&self, speed: Speed) -> u16 {
        match (self.most, speed) {
            (Speed::Super, Speed::Super) => 0x0300,
            // It has a BOS.
            (Speed::Super, _) => 0x0210,
            (Speed::High, _) => 0x0200,
            (Speed::Full, _) => 0x0110,
        }
    }
    fn device(&self, speed: Speed) -> Vec<u8> {
        let [v0, v1] = self.vendor.to_le_bytes();
        let [p0, p1] = self.product.to_le_bytes();
        let [u0, u1] = self.version(speed).to_le_bytes();
        let packet = if speed == Speed::Super { 9 } else { 64 };
        let protocol = u8::from(self.device_class == 9 && speed == Speed::High);
        vec![18, kind::DEVICE, u0, u1, self.device_class, 0, protocol, packet, v0, v1, p0, p1, 0, 1, 1, 2, 3, 1]
    }
    fn qualifier(&self, speed: Speed) -> Vec<u8> {
        let [u0, u1] = self.version(speed).to_le_bytes();
        vec![10, kind::QUALIFIER, u0, u1, self.device_class, 0, 0, 64, 1, 0]
    }
    fn configuration(&self, kind: u8, speed: Speed) -> Vec<u8> {
        let i = &self.interface;
        let attributes = 0x80 | u8::from(self.self_powered) << 6 | u8::from(self.remote_wakeup) << 5;
        // Units of 2 mA, of 8 mA at super speed.
        let power = match (self.self_powered, speed) {
            (true, _) => 0,
            (false, Speed::Super) => 12,
            (false, _) => 50,
        };
        let mut b = vec![9, kind, 0, 0, 1, 1, 0, attributes, power];
        b.extend([9, 4, 0, 0, i.endpoints.len() as u8, i.class, i.subclass, i.protocol, 0]);
        b.extend(&i.extra);
        for e in &i.endpoints {
            let at = index(speed);
            let attributes = if e.kind == EndpointKind::Bulk { 2 } else { 3 };
            let [p0, p1] = e.packet[at].to_le_bytes();
            b.extend([7, 5, e.address, attributes, p0, p1, e.interval[at]]);
            if speed == Speed::Super {
                // Companion: packets of a burst less one, bytes of an interval.
                let (burst, [n0, n1]) = if e.kind == EndpointKind::Bulk { (15, [0, 0]) } else { (0, [p0, p1]) };
                b.extend([6, 48, burst, 0, n0, n1]);
            }
        }
        let [l0, l1] = (b.len() as u16).to_le_bytes();
        (b[2], b[3]) = (l0, l1);
        b
    }
    fn bos() -> Vec<u8> {
        // USB 2.0 extension without link power management; super speed: also full and high speed, all of it works at full speed.
        vec![5, kind::BOS, 22, 0, 2, 7, 16, 2, 0, 0, 0, 0, 10, 16, 3, 0, 0x0e, 0, 1, 10, 32, 0]
    }
    fn string(&self, n: u8) -> Option<Vec<u8>> {
        if n == 0 {
            // English (United States).
            return Some(vec![4, kind::STRING, 9, 4]);
        }
        let text = self.strings.get(usize::from(n) - 1)?;
        let mut b = vec![0, kind::STRING];
        b.extend(text.encode_utf16().take(126).flat_map(u16::to_le_bytes));
        b[0] = b.len() as u8;
        Some(b)
    }
    fn descriptor(&self, value: u16, speed: Speed) -> Option<Vec<u8>> {
        let [n, what] = value.to_le_bytes();
        let other = if speed == Speed::High { Speed::Full } else { Speed::High };
        let two = self.most >= Speed::High && speed != Speed::Super;
        match what {
            kind::DEVICE => Some(self.device(speed)),
            kind::CONFIGURATION if n == 0 => Some(self.configuration(what, speed)),
            kind::STRING => self.string(n),
            kind::QUALIFIER if two => Some(self.qualifier(other)),
            kind::OTHER_SPEED if two && n == 0 => Some(self.configuration(what, other)),
            kind::BOS if self.most == Speed::Super => Some(Self::bos()),
            _ => None,
        }
    }
}

/// What a standard request has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered; nothing the device must know.
    Answered,
    /// Another configuration (0: none), or its interface anew.
    Configured(u8),
    /// An endpoint is no longer halted.
    Cleared(u8),
    /// No standard request: the device's own.
    Other,
}

/// The state that standard requests change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Standard {
    #[n(0)]
    pub speed: Speed,
    #[n(1)]
    pub configuration: u8,
    #[n(2)]
    pub remote_wakeup: bool,
    /// Halted endpoints: bits 0 to 15 to the device, 16 to 31 to the host.
    #[n(3)]
    halted: u32,
}

fn endpoint_bit(address: u8) -> u32 {
    1 << (address & 15 | (address & 0x80) >> 3)
}

impl Standard {
    /// As after a reset.
    #[must_use]
    pub fn new(speed: Speed) -> Self {
        Self { speed, configuration: 0, remote_wakeup: false, halted: 0 }
    }
    #[must_use]
    pub fn halted(&self, endpoint: u8) -> bool {
        self.halted & endpoint_bit(endpoint) != 0
    }
    pub fn halt(&mut self, endpoint: u8) {
        self.halted |= endpoint_bit(endpoint);
    }
    /// The default endpoint or one of the interface's.
    fn is_endpoint(d: &Descriptors, address: u8) -> bool {
        address & 0x7f == 0 || d.interface.endpoints.iter().any(|e| e.address == address)
    }
    /// Answers a request to the device, its interface or an endpoint.
    ///
    /// # Errors
    /// [`Stall`]: a standard request that cannot be answered.
    pub fn request(&mut self, d: &Descriptors, setup: &Setup, data: &mut Vec<u8>) -> Result<Outcome, Stall> {
        let [low, _] = setup.value.to_le_bytes();
        let target = setup.index as u8;
        let answer = |data: &mut Vec<u8>, bytes: &[u8]| {
            data.clear();
            data.extend(&bytes[..bytes.len().min(setup.length.into())]);
            Ok(Outcome::Answered)
        };
        match (setup.kind, setup.request) {
            (0x80, request::GET_STATUS) => {
                answer(data, &[u8::from(d.self_powered) | u8::from(self.remote_wakeup) << 1, 0])
            }
            (0x81, request::GET_STATUS) if target == 0 => answer(data, &[0, 0]),
            (0x82, request::GET_STATUS) if Self::is_endpoint(d, target) => {
                answer(data, &[self.halted(target).into(), 0])
            }
            (0x00, request::CLEAR_FEATURE | request::SET_FEATURE) => {
                match setup.value {
                    REMOTE_WAKEUP if d.remote_wakeup => self.remote_wakeup = setup.request == request::SET_FEATURE,
                    feature if self.speed == Speed::Super && POWER_FEATURES.contains(&feature) => (),
                    _ => return Err(Stall),
                }
                Ok(Outcome::Answered)
            }
            // Function suspend.
            (0x01, request::CLEAR_FEATURE | request::SET_FEATURE)
                if self.speed == Speed::Super && setup.value == 0 && target == 0 =>
            {
                self.remote_wakeup =
                    d.remote_wakeup && setup.request == request::SET_FEATURE && setup.index >> 9 & 1 != 0;
                Ok(Outcome::Answered)
            }
            (0x02, request::CLEAR_FEATURE) if setup.value == HALT && Self::is_endpoint(d, target) => {
                self.halted &= !endpoint_bit(target);
                Ok(Outcome::Cleared(target))
            }
            (0x02, request::SET_FEATURE) if setup.value == HALT && Self::is_endpoint(d, target) => {
                if target & 15 != 0 {
                    self.halt(target);
                }
                Ok(Outcome::Answered)
            }
            // The controller gives addresses.
            (0x00, request::SET_ADDRESS) => Ok(Outcome::Answered),
            (0x80, request::GET_DESCRIPTOR) => {
                let bytes = d.descriptor(setup.value, self.speed).ok_or(Stall)?;
                answer(data, &bytes)
            }
            (0x80, request::GET_CONFIGURATION) => answer(data, &[self.configuration]),
            (0x00, request::SET_CONFIGURATION) if low < 2 => {
                self.configuration = low;
                self.halted = 0;
                Ok(Outcome::Configured(low))
            }
            (0x81, request::GET_INTERFACE) if self.configuration != 0 && target == 0 => answer(data, &[0]),
            (0x01, request::SET_INTERFACE) if self.configuration != 0 && target == 0 && setup.value == 0 => {
                self.halted = 0;
                Ok(Outcome::Configured(self.configuration))
            }
            (0x00, request::SET_SEL | request::SET_ISOCH_DELAY) if self.speed == Speed::Super => Ok(Outcome::Answered),
            // The class has its say: descriptors of its own, and requests of other types.
            (0x81, request::GET_DESCRIPTOR) => Ok(Outcome::Other),
            (kind, _) if kind & 0x60 != 0 => Ok(Outcome::Other),
            _ => Err(Stall),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> Descriptors {
        let bulk =
            |address| EndpointSpec { address, kind: EndpointKind::Bulk, packet: [64, 512, 1024], interval: [0; 3] };
        Descriptors {
            vendor: 0x1234,
            product: 0x5678,
            device_class: 0,
            strings: ["a".into(), "b".repeat(300), "3".into()],
            self_powered: false,
            remote_wakeup: true,
            most: Speed::Super,
            interface: InterfaceSpec {
                class: 8,
                subclass: 6,
                protocol: 0x50,
                extra: vec![],
                endpoints: vec![bulk(0x81), bulk(2)],
            },
        }
    }
    fn ask(s: &mut Standard, kind: u8, request: u8, value: u16, index: u16) -> Result<Vec<u8>, Stall> {
        let mut data = vec![];
        s.request(&disk(), &Setup { kind, request, value, index, length: 1000 }, &mut data).map(|_| data)
    }

    /// Descriptors tell their lengths.
    #[test]
    fn lengths() {
        for speed in [Speed::Full, Speed::High, Speed::Super] {
            let mut s = Standard::new(speed);
            for value in [0x100, 0x200, 0x300, 0x301, 0x302, 0x303, 0x600, 0x700, 0xf00] {
                let Ok(d) = ask(&mut s, 0x80, 6, value, 0) else {
                    assert!(speed == Speed::Super && matches!(value, 0x600 | 0x700), "{value:#x}");
                    continue;
                };
                assert_eq!(d[1], (value >> 8) as u8);
                let whole = matches!(value, 0x200 | 0x700 | 0xf00);
                let first = usize::from(d[0]);
                assert_eq!(if whole { usize::from(u16::from_le_bytes([d[2], d[3]])) } else { first }, d.len());
                let mut rest = &d[..];
                while let [len, ..] = *rest {
                    rest = &rest[usize::from(len)..];
                }
            }
            assert_eq!(ask(&mut s, 0x80, 6, 0x304, 0), Err(Stall));
            assert_eq!(ask(&mut s, 0x80, 6, 0x201, 0), Err(Stall));
        }
    }

    #[test]
    fn state() {
        let mut s = Standard::new(Speed::High);
        assert_eq!(ask(&mut s, 0x81, 10, 0, 0), Err(Stall));
        assert_eq!(ask(&mut s, 0, 9, 2, 0), Err(Stall));
        ask(&mut s, 0, 9, 1, 0).unwrap();
        assert_eq!(ask(&mut s, 0x80, 8, 0, 0), Ok(vec![1]));
        ask(&mut s, 2, 3, 0, 0x81).unwrap();
        assert_eq!(ask(&mut s, 0x82, 0, 0, 0x81), Ok(vec![1, 0]));
        assert!(s.halted(0x81) && !s.halted(1));
        ask(&mut s, 2, 1, 0, 0x81).unwrap();
        assert!(!s.halted(0x81));
        assert_eq!(ask(&mut s, 2, 1, 0, 0x83), Err(Stall));
        ask(&mut s, 0, 3, 1, 0).unwrap();
        assert_eq!(ask(&mut s, 0x80, 0, 0, 0), Ok(vec![2, 0]));
        assert_eq!(ask(&mut s, 0, 3, 48, 0), Err(Stall));
    }
}
