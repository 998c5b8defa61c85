//! PrimeCell GPIO (PL061, ARM DDI 0190).

#[cfg(test)]
mod tests;

use crate::primecell;
use parking_lot::Mutex;
use rhea_accel::{IrqLine, IrqSink};
use rhea_device::RegisterRules::{ReadOnly, ReadWrite, WriteOnly};
use rhea_device::{Device, LoadError, Log, RegisterDecl, RegisterMap, Saved, log_guest_error, state as saved};
use rhea_memory::{Access, BusError, MmioDevice};
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reg {
    /// Bits 9:2 of the address select the bits of the port.
    Data,
    Dir,
    Is,
    Ibe,
    Iev,
    Ie,
    Ris,
    Mis,
    Ic,
    Afsel,
    Itcr,
    Itip1,
    Itip2,
    Itop1,
    Itop2,
    Itop3,
    Id,
}

const MAP: RegisterMap<Reg> = RegisterMap::new(&[
    RegisterDecl::array(0x000, 4, ReadWrite, Reg::Data, 256),
    RegisterDecl::new(0x400, 4, ReadWrite, Reg::Dir),
    RegisterDecl::new(0x404, 4, ReadWrite, Reg::Is),
    RegisterDecl::new(0x408, 4, ReadWrite, Reg::Ibe),
    RegisterDecl::new(0x40c, 4, ReadWrite, Reg::Iev),
    RegisterDecl::new(0x410, 4, ReadWrite, Reg::Ie),
    RegisterDecl::new(0x414, 4, ReadOnly, Reg::Ris),
    RegisterDecl::new(0x418, 4, ReadOnly, Reg::Mis),
    RegisterDecl::new(0x41c, 4, WriteOnly, Reg::Ic),
    RegisterDecl::new(0x420, 4, ReadWrite, Reg::Afsel),
    RegisterDecl::new(0x600, 4, ReadWrite, Reg::Itcr),
    RegisterDecl::new(0x604, 4, ReadWrite, Reg::Itip1),
    RegisterDecl::new(0x608, 4, ReadWrite, Reg::Itip2),
    RegisterDecl::new(0x60c, 4, ReadOnly, Reg::Itop1),
    RegisterDecl::new(0x610, 4, ReadWrite, Reg::Itop2),
    RegisterDecl::new(0x614, 4, ReadWrite, Reg::Itop3),
    RegisterDecl::array(0xfe0, 4, ReadOnly, Reg::Id, 8),
]);

#[derive(Clone, Debug, Default, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
struct State {
    /// Levels outside drives the input pins to; what nothing drives is pulled down.
    #[n(0)]
    inputs: u8,
    #[n(1)]
    data: u8,
    #[n(2)]
    dir: u8,
    #[n(3)]
    is: u8,
    #[n(4)]
    ibe: u8,
    #[n(5)]
    iev: u8,
    #[n(6)]
    ie: u8,
    /// Edges seen.
    #[n(7)]
    edges: u8,
    #[n(8)]
    afsel: u8,
    #[n(9)]
    itcr: bool,
    #[n(10)]
    itip: [u8; 2],
    #[n(11)]
    itop2: bool,
    #[n(12)]
    itop3: u8,
}

impl State {
    /// Pins that software drives.
    fn driven(&self) -> u8 {
        self.dir & !self.afsel
    }
    /// The levels of the pins.
    fn pins(&self) -> u8 {
        self.data & self.driven() | self.inputs & !self.driven()
    }
    fn ris(&self) -> u8 {
        // Of a level-sensitive pin: is it at the level of GPIOIEV?
        self.edges & !self.is | !(self.pins() ^ self.iev) & self.is
    }
    fn interrupt(&self) -> bool {
        if self.itcr { self.itop2 } else { self.ris() & self.ie != 0 }
    }
    /// Notes the edges that a change of the pins from `before` made.
    fn pins_changed(&mut self, before: u8) {
        let now = self.pins();
        let changed = before ^ now;
        let wanted = self.ibe | !(now ^ self.iev);
        self.edges |= changed & wanted & !self.is;
    }

    fn read(&self, reg: Reg, index: u32) -> u64 {
        match reg {
            Reg::Data => self.pins() & index as u8,
            Reg::Dir => self.dir,
            Reg::Is => self.is,
            Reg::Ibe => self.ibe,
            Reg::Iev => self.iev,
            Reg::Ie => self.ie,
            Reg::Ris => self.ris(),
            Reg::Mis | Reg::Itop1 => self.ris() & self.ie,
            Reg::Ic => 0,
            Reg::Afsel => self.afsel,
            Reg::Itcr => self.itcr.into(),
            Reg::Itip1 => self.itip[0],
            Reg::Itip2 => self.itip[1],
            Reg::Itop2 => self.interrupt().into(),
            Reg::Itop3 => self.itop3,
            Reg::Id => primecell::id(index, 0x061, 0, 0),
        }
        .into()
    }

    fn write(&mut self, reg: Reg, index: u32, value: u64, mask: u64) {
        if mask & 0xff == 0 {
            return;
        }
        let (value, before) = (value as u8, self.pins());
        match reg {
            Reg::Data => self.data = self.data & !(index as u8) | value & index as u8,
            Reg::Dir => self.dir = value,
            Reg::Is => {
                self.is = value;
                self.edges &= !value;
            }
            Reg::Ibe => self.ibe = value,
            Reg::Iev => self.iev = value,
            Reg::Ie => self.ie = value,
            Reg::Ic => self.edges &= !value,
            Reg::Afsel => self.afsel = value,
            Reg::Itcr => self.itcr = value & 1 != 0,
            Reg::Itip1 => self.itip[0] = value,
            Reg::Itip2 => self.itip[1] = value,
            Reg::Itop2 => self.itop2 = value & 1 != 0,
            Reg::Itop3 => self.itop3 = value,
            Reg::Ris | Reg::Mis | Reg::Itop1 | Reg::Id => {}
        }
        self.pins_changed(before);
    }
}

/// The port: a 4 KiB window, 8 pins, one combined interrupt (GPIOINTR). As an [`IrqSink`] it takes the levels of the pins from
/// outside.
pub struct Pl061 {
    name: String,
    line: IrqLine,
    /// Where the pins go that the guest drives.
    outputs: [Option<IrqLine>; 8],
    log: Log,
    state: Mutex<State>,
}

impl Pl061 {
    #[must_use]
    pub fn new(name: &str, line: IrqLine, outputs: [Option<IrqLine>; 8], log: Log) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), line, outputs, log, state: Mutex::default() })
    }
    /// Drives pin `pin` (0 to 7) from outside.
    pub fn set_pin(&self, pin: u32, level: bool) {
        {
            let mut state = self.state.lock();
            let before = state.pins();
            let bit = 1u8.checked_shl(pin).unwrap_or(0);
            if level {
                state.inputs |= bit;
            } else {
                state.inputs &= !bit;
            }
            state.pins_changed(before);
        }
        self.tell();
    }
    fn tell(&self) {
        for (pin, line) in self.outputs.iter().enumerate() {
            if let Some(line) = line {
                line.settle(|| {
                    let state = self.state.lock();
                    state.data & state.driven() & 1 << pin != 0
                });
            }
        }
        self.line.settle(|| self.state.lock().interrupt());
    }
}

impl IrqSink for Pl061 {
    fn set_level(&self, pin: u32, level: bool) {
        self.set_pin(pin, level);
    }
}

impl MmioDevice for Pl061 {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        let state = self.state.lock();
        let missed = |at: u64| log_guest_error!(self.log, &self.name, "read of offset {at:#x}");
        MAP.read(offset, access.size, |hit| Ok(state.read(hit.id, hit.index)), missed)
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        let result = {
            let mut state = self.state.lock();
            MAP.write(
                offset,
                access.size,
                value,
                |hit, value, mask| {
                    state.write(hit.id, hit.index, value, mask);
                    Ok(())
                },
                |at| log_guest_error!(self.log, &self.name, "write of offset {at:#x}"),
            )
        };
        self.tell();
        result
    }
    fn name(&self) -> &str {
        &self.name
    }
}

impl Device for Pl061 {
    fn name(&self) -> &str {
        &self.name
    }
    fn reset(&self) {
        {
            let mut state = self.state.lock();
            *state = State { inputs: state.inputs, ..State::default() };
        }
        self.tell();
    }
    fn save(&self) -> Saved {
        saved::encode(1, &*self.state.lock())
    }
    fn load(&self, state: &Saved) -> Result<(), LoadError> {
        let new: State = saved::decode(state, 1)?;
        let level = new.interrupt();
        *self.state.lock() = new;
        self.line.import(level);
        self.tell();
        Ok(())
    }
}
