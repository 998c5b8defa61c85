//! A hub of full speed (USB 1.1 chapter 11).

use crate::descriptor::{Descriptors, EndpointKind, EndpointSpec, InterfaceSpec, Outcome, Standard};
use crate::{Answer, Setup, Speed, Stall, Transfer, UsbDevice, Wake};
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_device::LoadError;
use std::sync::{Arc, OnceLock};

/// Ports of a hub, from 1.
pub const PORTS: u8 = 8;

/// The only endpoint: which ports have changed.
const CHANGES: u8 = 0x81;
const DESCRIPTOR: u8 = 0x29;

/// Port status (11.16.2.6).
mod status {
    pub const CONNECTION: u16 = 1;
    pub const ENABLE: u16 = 1 << 1;
    pub const SUSPEND: u16 = 1 << 2;
    pub const RESET: u16 = 1 << 4;
    pub const POWER: u16 = 1 << 8;
}
/// Feature selectors (11.16.2).
mod feature {
    pub const ENABLE: u16 = 1;
    pub const SUSPEND: u16 = 2;
    pub const RESET: u16 = 4;
    pub const POWER: u16 = 8;
    pub const FIRST_CHANGE: u16 = 16;
    pub const LAST_CHANGE: u16 = 20;
}

#[derive(Clone, Copy, Debug, Default, Encode, Decode)]
struct Port {
    #[n(0)]
    status: u16,
    #[n(1)]
    change: u16,
}

#[derive(Clone, Debug, Encode, Decode)]
struct State {
    #[n(0)]
    standard: Standard,
    #[n(1)]
    ports: [Port; PORTS as usize],
}

/// A hub.
pub struct Hub {
    descriptors: Descriptors,
    state: Mutex<State>,
    wake: OnceLock<Wake>,
    below: Mutex<[Option<Arc<dyn UsbDevice>>; PORTS as usize]>,
}

impl Hub {
    #[must_use]
    pub fn new(serial: &str) -> Arc<Self> {
        let descriptors = Descriptors {
            vendor: 0x0409,
            product: 0x55aa,
            device_class: 9,
            strings: ["Rhea".to_owned(), "USB hub".to_owned(), serial.to_owned()],
            self_powered: true,
            remote_wakeup: true,
            most: Speed::Full,
            interface: InterfaceSpec {
                class: 9,
                subclass: 0,
                protocol: 0,
                extra: Vec::new(),
                endpoints: vec![EndpointSpec {
                    address: CHANGES,
                    kind: EndpointKind::Interrupt,
                    packet: [2; 3],
                    interval: [255; 3],
                }],
            },
        };
        let state = State { standard: Standard::new(Speed::Full), ports: [Port::default(); PORTS as usize] };
        Arc::new(Self { descriptors, state: Mutex::new(state), wake: OnceLock::new(), below: Mutex::default() })
    }
    /// The ports without a device, from 1.
    #[must_use]
    pub fn is_free(&self, port: u8) -> bool {
        self.below.lock().get(usize::from(port).wrapping_sub(1)).is_some_and(Option::is_none)
    }
    /// Puts a device at a port before the machine runs.
    pub fn connect(&self, port: u8, device: Arc<dyn UsbDevice>) {
        if let Some(place) = self.below.lock().get_mut(usize::from(port).wrapping_sub(1)) {
            *place = Some(device);
        }
    }
    fn child(&self, port: usize) -> Option<Arc<dyn UsbDevice>> {
        self.below.lock().get(port).cloned().flatten()
    }
    fn wake_up(&self) {
        if let Some(wake) = self.wake.get() {
            wake(CHANGES);
        }
    }
    fn set(&self, port: usize, value: u16) -> Result<(), Stall> {
        let child = self.child(port);
        let reset = {
            let s = &mut *self.state.lock();
            let p = s.ports.get_mut(port).ok_or(Stall)?;
            match value {
                feature::POWER => {
                    let was = p.status;
                    p.status |= status::POWER;
                    if was & status::POWER == 0 && child.is_some() {
                        p.status |= status::CONNECTION;
                        p.change |= status::CONNECTION;
                    }
                    false
                }
                feature::RESET if p.status & status::CONNECTION != 0 => {
                    p.status = p.status & !status::SUSPEND | status::ENABLE;
                    p.change |= status::RESET;
                    true
                }
                feature::SUSPEND if p.status & status::ENABLE != 0 => {
                    p.status |= status::SUSPEND;
                    false
                }
                feature::RESET | feature::SUSPEND => false,
                _ => return Err(Stall),
            }
        };
        if let (true, Some(child)) = (reset, child) {
            child.reset(Speed::Full);
        }
        self.wake_up();
        Ok(())
    }
    fn clear(&self, port: usize, value: u16) -> Result<(), Stall> {
        {
            let s = &mut *self.state.lock();
            let p = s.ports.get_mut(port).ok_or(Stall)?;
            match value {
                feature::ENABLE => p.status &= !status::ENABLE,
                feature::SUSPEND if p.status & status::SUSPEND != 0 => {
                    p.status &= !status::SUSPEND;
                    p.change |= status::SUSPEND;
                }
                feature::SUSPEND => {}
                feature::POWER => *p = Port::default(),
                feature::FIRST_CHANGE..=feature::LAST_CHANGE => p.change &= !(1 << (value - feature::FIRST_CHANGE)),
                _ => return Err(Stall),
            }
        }
        self.wake_up();
        Ok(())
    }
}

impl UsbDevice for Hub {
    fn name(&self) -> &str {
        "USB hub"
    }
    fn speeds(&self) -> &[Speed] {
        &[Speed::Full]
    }
    fn attach(&self, wake: Wake) {
        // Once, when it is put at its port.
        let _ = self.wake.set(wake);
    }
    fn reset(&self, speed: Speed) {
        *self.state.lock() = State { standard: Standard::new(speed), ports: [Port::default(); PORTS as usize] };
    }
    fn control(&self, setup: &Setup, data: &mut Vec<u8>) -> Result<(), Stall> {
        let outcome = self.state.lock().standard.request(&self.descriptors, setup, data)?;
        if outcome != Outcome::Other {
            return Ok(());
        }
        let port = usize::from(setup.index & 0xff).wrapping_sub(1);
        match (setup.kind, setup.request) {
            (0xa0, 6) if setup.value >> 8 == u16::from(DESCRIPTOR) => {
                // Power is switched by port, current is not watched; on after 2 ms.
                *data = vec![11, DESCRIPTOR, PORTS, 0x11, 0, 1, 0, 0, 0, 0xff, 0xff];
            }
            (0xa0, 0) => *data = vec![0; 4],
            (0xa3, 0) => {
                let p = self.state.lock().ports.get(port).copied().ok_or(Stall)?;
                *data = [p.status.to_le_bytes(), p.change.to_le_bytes()].concat();
            }
            // Local power and over-current never change.
            (0x20, 1 | 3) if setup.value < 2 => {}
            (0x23, 3) => return self.set(port, setup.value),
            (0x23, 1) => return self.clear(port, setup.value),
            _ => return Err(Stall),
        }
        data.truncate(setup.length.into());
        Ok(())
    }
    fn transfer(&self, transfer: Transfer) -> Answer {
        let bits = {
            let s = self.state.lock();
            if s.standard.configuration == 0 {
                return Answer::Silent;
            }
            if transfer.endpoint != CHANGES || s.standard.halted(CHANGES) {
                return Answer::Stall;
            }
            let changed = s.ports.iter().enumerate().filter(|(_, p)| p.change != 0);
            changed.fold(0u16, |bits, (n, _)| bits | 2 << n)
        };
        match transfer.buffer.len() {
            _ if bits == 0 => Answer::Nak,
            0 | 1 => Answer::Babble,
            _ => match transfer.buffer.put(&bits.to_le_bytes()) {
                Ok(()) => Answer::Done(2),
                Err(e) => e.into(),
            },
        }
    }
    fn may_wake(&self) -> bool {
        self.state.lock().standard.remote_wakeup
    }
    fn as_hub(&self) -> Option<&Hub> {
        Some(self)
    }
    fn save(&self) -> Vec<u8> {
        // Encoding into a vector does not fail.
        minicbor::to_vec(&*self.state.lock()).unwrap_or_default()
    }
    fn load(&self, state: &[u8]) -> Result<(), LoadError> {
        *self.state.lock() = minicbor::decode(state).map_err(|e| LoadError::Damaged(e.to_string()))?;
        Ok(())
    }
}
