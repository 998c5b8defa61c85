//! The SMBus host controller of the ICH9: device 31, function 3, with memory modules' identification EEPROMs on its bus.

mod eeprom;

use crate::{INTEL, SUBSYSTEM, SUBSYSTEM_VENDOR};
pub use eeprom::Eeprom;
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_device::{Device, LoadError, Log, Saved, state};
use rhea_memory::{Access, AccessRules, BusError, MmioDevice};
use rhea_pci::{BarKind, ConfigBuilder, Devfn, Identity, PciBus, PciConfig, PciConfigState, PciFunction};
use std::sync::{Arc, Weak};

/// Host configuration (18.1.16).
const HOSTC: u16 = 0x40;
const HOST_ENABLE: u8 = 1;

/// Host status (18.2.1).
mod status {
    pub const DONE: u8 = 1 << 1;
    pub const ERROR: u8 = 1 << 2;
    pub const FAILED: u8 = 1 << 4;
    pub const IN_USE: u8 = 1 << 6;
    pub const BYTE_DONE: u8 = 1 << 7;
    /// Cleared by writing ones.
    pub const CLEAR: u8 = 0xfe;
}
/// Host control (18.2.2).
mod control {
    pub const INTERRUPT: u8 = 1;
    pub const KILL: u8 = 1 << 1;
    pub const LAST_BYTE: u8 = 1 << 5;
    pub const START: u8 = 1 << 6;
    pub const STORED: u8 = !(START | KILL);
}
/// Auxiliary control: the block buffer of 32 bytes is used.
const BUFFER_32: u8 = 1 << 1;
const BLOCK: usize = 32;

/// The place of the controller.
pub const DEVFN: Devfn = Devfn::new(31, 3);

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Registers {
    #[n(0)]
    status: u8,
    #[n(1)]
    control: u8,
    #[n(2)]
    command: u8,
    #[n(3)]
    address: u8,
    #[n(4)]
    data: [u8; 2],
    #[n(5)]
    block: [u8; BLOCK],
    #[n(6)]
    index: u8,
    #[n(7)]
    auxiliary: u8,
    #[n(8)]
    in_use: bool,
}

impl Registers {
    const fn new() -> Self {
        Self {
            status: 0,
            control: 0,
            command: 0,
            address: 0,
            data: [0; 2],
            block: [0; BLOCK],
            index: 0,
            auxiliary: 0,
            in_use: false,
        }
    }
}

#[derive(Encode, Decode)]
struct State {
    #[n(0)]
    config: PciConfigState,
    #[n(1)]
    registers: Registers,
    #[n(2)]
    pointers: Vec<u8>,
}

/// The controller.
pub struct SmBus {
    config: PciConfig,
    registers: Mutex<(Registers, Vec<Eeprom>)>,
    log: Log,
}

struct Ports(Weak<SmBus>);

impl SmBus {
    /// The controller with these EEPROMs on its bus; attach it to the PCI bus.
    #[must_use]
    pub fn new(bus: &Arc<PciBus>, eeproms: Vec<Eeprom>, log: Log) -> Arc<Self> {
        let identity = Identity {
            vendor: INTEL,
            device: 0x2930,
            revision: 2,
            class: 0x0c_0500,
            subsystem_vendor: SUBSYSTEM_VENDOR,
            subsystem: SUBSYSTEM,
        };
        Arc::new_cyclic(|me: &Weak<Self>| Self {
            config: ConfigBuilder::new(identity, bus.slot(DEVFN))
                .register(HOSTC.into(), &[0], &[0x1f])
                .bar(4, BarKind::Io, 32, Arc::new(Ports(me.clone())))
                .intx(2)
                .build(),
            registers: Mutex::new((Registers::new(), eeproms)),
            log,
        })
    }

    fn line(&self, up: bool) {
        if let Some(pin) = self.config.intx() {
            pin.set(up);
        }
    }
    /// Does what the control register says; true: the interrupt line goes up.
    fn start(&self, r: &mut Registers, eeproms: &mut [Eeprom]) -> bool {
        let (address, read) = (r.address >> 1, r.address & 1 != 0);
        let Some(chip) = eeproms.iter_mut().find(|e| e.address() == address) else {
            r.status |= status::ERROR;
            return r.control & control::INTERRUPT != 0;
        };
        match r.control >> 2 & 7 {
            // Quick: only the acknowledgement.
            0 => {}
            1 if read => r.data[0] = chip.read(),
            1 => chip.set_pointer(r.command),
            2 if read => {
                chip.set_pointer(r.command);
                r.data[0] = chip.read();
            }
            2 => {
                chip.set_pointer(r.command);
                chip.write(r.data[0]);
            }
            3 | 4 if read || r.control >> 2 & 7 == 4 => {
                chip.set_pointer(r.command);
                r.data = [chip.read(), chip.read()];
            }
            3 => {
                chip.set_pointer(r.command);
                chip.write(r.data[0]);
                chip.write(r.data[1]);
            }
            // Block: these chips know none but reading a count from the addressed byte on; I2C read is the same.
            5 | 6 if read || r.control >> 2 & 7 == 6 => {
                chip.set_pointer(r.command);
                r.data[0] = BLOCK as u8;
                r.block = std::array::from_fn(|_| chip.read());
                r.index = 0;
                if r.auxiliary & BUFFER_32 == 0 {
                    r.status |= status::BYTE_DONE;
                    return r.control & control::INTERRUPT != 0;
                }
            }
            5 => {
                chip.set_pointer(r.command);
                for n in 0..usize::from(r.data[0]).min(BLOCK) {
                    chip.write(r.block[n]);
                }
            }
            other => {
                self.log.guest_error("smbus", format_args!("reserved command {other}"));
                r.status |= status::FAILED;
            }
        }
        r.status |= status::DONE;
        r.control & control::INTERRUPT != 0
    }
    fn read(&self, offset: u64) -> u8 {
        let (r, _) = &mut *self.registers.lock();
        match offset {
            0 => {
                // The semaphore: the first who reads 0 has it.
                let taken = std::mem::replace(&mut r.in_use, true);
                r.status | if taken { status::IN_USE } else { 0 }
            }
            2 => {
                r.index = 0;
                r.control
            }
            3 => r.command,
            4 => r.address,
            5 | 6 => r.data[offset as usize - 5],
            7 => {
                let byte = r.block[usize::from(r.index) % BLOCK];
                if r.auxiliary & BUFFER_32 != 0 {
                    r.index = (r.index + 1) % BLOCK as u8;
                }
                byte
            }
            0xd => r.auxiliary,
            _ => 0,
        }
    }
    fn write(&self, offset: u64, value: u8) {
        if self.config.read(HOSTC, 1) as u8 & HOST_ENABLE == 0 {
            self.log.guest_error("smbus", format_args!("the host controller is not enabled"));
            return;
        }
        let mut raise = None;
        {
            let (r, eeproms) = &mut *self.registers.lock();
            match offset {
                0 => {
                    if value & status::IN_USE != 0 {
                        r.in_use = false;
                    }
                    let byte_done = r.status & value & status::BYTE_DONE != 0;
                    r.status &= !(value & status::CLEAR);
                    if byte_done {
                        // The next byte of a block, or the end of it.
                        r.index += 1;
                        if usize::from(r.index) >= BLOCK || r.control & control::LAST_BYTE != 0 {
                            r.index = 0;
                            r.status |= status::DONE;
                        } else {
                            r.status |= status::BYTE_DONE;
                        }
                    }
                    let pending = r.status & (status::DONE | status::ERROR | status::FAILED | status::BYTE_DONE);
                    raise = Some(pending != 0 && r.control & control::INTERRUPT != 0);
                }
                2 => {
                    r.control = value & control::STORED;
                    if value & control::KILL != 0 {
                        r.status |= status::FAILED;
                        raise = Some(r.control & control::INTERRUPT != 0);
                    } else if value & control::START != 0 {
                        r.index = 0;
                        if self.start(r, eeproms) {
                            raise = Some(true);
                        }
                    }
                }
                3 => r.command = value,
                4 => r.address = value,
                5 | 6 => r.data[offset as usize - 5] = value,
                7 => {
                    r.block[usize::from(r.index) % BLOCK] = value;
                    r.index = (r.index + 1) % BLOCK as u8;
                }
                0xd => r.auxiliary = value & 3,
                _ => self.log.unimp("smbus", format_args!("write to register {offset:#x}")),
            }
        }
        if let Some(up) = raise {
            self.line(up);
        }
    }
}

impl MmioDevice for Ports {
    fn read(&self, offset: u64, _access: Access) -> Result<u64, BusError> {
        Ok(self.0.upgrade().map_or(0xff, |s| s.read(offset)).into())
    }
    fn write(&self, offset: u64, value: u64, _access: Access) -> Result<(), BusError> {
        if let Some(smbus) = self.0.upgrade() {
            smbus.write(offset, value as u8);
        }
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::implemented(1, 1)
    }
    fn name(&self) -> &str {
        "smbus"
    }
}

impl Device for SmBus {
    fn name(&self) -> &str {
        "smbus"
    }
    fn reset(&self) {
        self.config.reset();
        let (registers, eeproms) = &mut *self.registers.lock();
        *registers = Registers::new();
        for chip in eeproms {
            chip.set_pointer(0);
        }
    }
    fn save(&self) -> Saved {
        let (registers, pointers) = {
            let (r, eeproms) = &*self.registers.lock();
            (r.clone(), eeproms.iter().map(Eeprom::pointer).collect())
        };
        state::encode(1, &State { config: self.config.save(), registers, pointers })
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        let State { config, registers, pointers } = state::decode(saved, 1)?;
        self.config.load(config)?;
        let (r, eeproms) = &mut *self.registers.lock();
        if pointers.len() != eeproms.len() {
            return Err(LoadError::Mismatch("number of EEPROMs on the SMBus".to_owned()));
        }
        *r = Registers { index: registers.index % BLOCK as u8, ..registers };
        for (chip, pointer) in eeproms.iter_mut().zip(pointers) {
            chip.set_pointer(pointer);
        }
        Ok(())
    }
}

impl PciFunction for SmBus {
    fn config(&self) -> &PciConfig {
        &self.config
    }
}

#[cfg(test)]
mod tests;
