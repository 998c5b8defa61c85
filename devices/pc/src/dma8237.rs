//! The two cascaded 8237A DMA controllers and their page registers (Intel 8237A data sheet). No device of the machine uses a
//! channel, so nothing is ever transferred; every register works.

use parking_lot::Mutex;
use rhea_device::{Device, LoadError, Log, Saved, log_unimp, state as saved};
use rhea_memory::{Access, AccessRules, BusError, MmioDevice};
use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
struct Channel {
    #[n(0)]
    base_address: u16,
    #[n(1)]
    base_count: u16,
    #[n(2)]
    address: u16,
    #[n(3)]
    count: u16,
    /// Without the channel number.
    #[n(4)]
    mode: u8,
}

/// One 8237A.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
struct Controller {
    #[n(0)]
    channels: [Channel; 4],
    #[n(1)]
    command: u8,
    /// A bit for each channel.
    #[n(2)]
    mask: u8,
    #[n(3)]
    requests: u8,
    #[n(4)]
    terminal_counts: u8,
    #[n(5)]
    temporary: u8,
    /// The first/last flip-flop: the next byte of a 16-bit register is the high one.
    #[n(6)]
    high_next: bool,
}

impl Default for Controller {
    fn default() -> Self {
        Self {
            channels: Default::default(),
            command: 0,
            mask: 0x0f,
            requests: 0,
            terminal_counts: 0,
            temporary: 0,
            high_next: false,
        }
    }
}

fn set_byte(word: &mut u16, high: bool, value: u8) {
    *word = if high { *word & 0x00ff | u16::from(value) << 8 } else { *word & 0xff00 | u16::from(value) };
}

impl Controller {
    fn master_clear(&mut self) {
        *self = Self { channels: self.channels.clone(), ..Self::default() };
    }
    fn read(&mut self, register: u8) -> u8 {
        match register {
            0..=7 => {
                let channel = &self.channels[usize::from(register >> 1)];
                let word = if register & 1 == 0 { channel.address } else { channel.count };
                let high = self.high_next;
                self.high_next = !high;
                if high { (word >> 8) as u8 } else { word as u8 }
            }
            8 => {
                let status = self.terminal_counts | self.requests << 4;
                self.terminal_counts = 0;
                status
            }
            0x0d => self.temporary,
            0x0f => self.mask | 0xf0,
            _ => 0,
        }
    }
    fn write(&mut self, register: u8, value: u8) {
        let select = value & 3;
        let bit = 1 << select;
        match register {
            0..=7 => {
                let high = self.high_next;
                self.high_next = !high;
                let channel = &mut self.channels[usize::from(register >> 1)];
                let (base, current) = if register & 1 == 0 {
                    (&mut channel.base_address, &mut channel.address)
                } else {
                    (&mut channel.base_count, &mut channel.count)
                };
                set_byte(base, high, value);
                set_byte(current, high, value);
            }
            8 => self.command = value,
            9 => self.requests = if value & 4 != 0 { self.requests | bit } else { self.requests & !bit },
            0x0a => self.mask = if value & 4 != 0 { self.mask | bit } else { self.mask & !bit },
            0x0b => self.channels[usize::from(select)].mode = value & 0xfc,
            0x0c => self.high_next = false,
            0x0d => self.master_clear(),
            0x0e => self.mask = 0,
            _ => self.mask = value & 0x0f,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
struct State {
    #[n(0)]
    controllers: [Controller; 2],
    /// Ports 0x80 to 0x8f.
    #[n(1)]
    pages: [u8; 16],
}

/// Both controllers; the board maps [`Self::secondary`] (channels 0 to 3), [`Self::primary`] (4 to 7) and [`Self::pages`].
pub struct DmaControllers {
    name: String,
    log: Log,
    state: Mutex<State>,
}

struct Registers {
    all: Arc<DmaControllers>,
    index: usize,
    /// Registers are `1 << shift` ports apart.
    shift: u8,
}

impl DmaControllers {
    #[must_use]
    pub fn new(name: &str, log: Log) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), log, state: Mutex::default() })
    }
    /// Channels 0 to 3: 16 ports at 0x00.
    #[must_use]
    pub fn secondary(self: &Arc<Self>) -> Arc<dyn MmioDevice> {
        Arc::new(Registers { all: self.clone(), index: 0, shift: 0 })
    }
    /// Channels 4 to 7: 32 ports at 0xc0.
    #[must_use]
    pub fn primary(self: &Arc<Self>) -> Arc<dyn MmioDevice> {
        Arc::new(Registers { all: self.clone(), index: 1, shift: 1 })
    }
    /// The page registers: 16 ports at 0x80. Port 0x80, which belongs to no channel, shows what firmware does (POST).
    #[must_use]
    pub fn pages(self: &Arc<Self>) -> Arc<PageRegisters> {
        Arc::new(PageRegisters { all: self.clone() })
    }
    /// The last POST code.
    #[must_use]
    pub fn post_code(&self) -> u8 {
        self.state.lock().pages[0]
    }
}

impl MmioDevice for Registers {
    fn read(&self, offset: u64, _access: Access) -> Result<u64, BusError> {
        let register = (offset >> self.shift & 15) as u8;
        Ok(self.all.state.lock().controllers[self.index].read(register).into())
    }
    fn write(&self, offset: u64, value: u64, _access: Access) -> Result<(), BusError> {
        let register = (offset >> self.shift & 15) as u8;
        let asks = {
            let mut state = self.all.state.lock();
            let controller = &mut state.controllers[self.index];
            controller.write(register, value as u8);
            controller.requests != 0
        };
        if asks {
            log_unimp!(self.all.log, &self.all.name, "a software request for a DMA transfer");
        }
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        crate::BYTES
    }
    fn name(&self) -> &str {
        "dma"
    }
}

/// Ports 0x80 to 0x8f.
pub struct PageRegisters {
    all: Arc<DmaControllers>,
}

impl MmioDevice for PageRegisters {
    fn read(&self, offset: u64, _access: Access) -> Result<u64, BusError> {
        Ok(self.all.state.lock().pages[(offset & 15) as usize].into())
    }
    fn write(&self, offset: u64, value: u64, _access: Access) -> Result<(), BusError> {
        self.all.state.lock().pages[(offset & 15) as usize] = value as u8;
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        crate::BYTES
    }
    fn name(&self) -> &str {
        "dma-page"
    }
}

impl Device for DmaControllers {
    fn name(&self) -> &str {
        &self.name
    }
    fn reset(&self) {
        *self.state.lock() = State::default();
    }
    fn save(&self) -> Saved {
        saved::encode(1, &*self.state.lock())
    }
    fn load(&self, state: &Saved) -> Result<(), LoadError> {
        *self.state.lock() = saved::decode(state, 1)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Ports, Random, poke};

    #[test]
    fn registers() {
        let dma = DmaControllers::new("dma", Log::off());
        let (low, high, pages) = (dma.secondary(), dma.primary(), dma.pages());
        low.outb(0x0c, 0);
        low.outb(4, 0x34);
        low.outb(4, 0x12);
        low.outb(5, 0xff);
        low.outb(5, 0x01);
        assert_eq!([low.inb(4), low.inb(4), low.inb(5), low.inb(5)], [0x34, 0x12, 0xff, 1]);
        assert_eq!(low.inb(0x0f), 0xff);
        low.outb(0x0a, 2);
        assert_eq!(low.inb(0x0f), 0xfb);
        low.outb(9, 6);
        assert_eq!(low.inb(8), 0x40);
        low.outb(0x0d, 0);
        assert_eq!((low.inb(8), low.inb(0x0f), low.inb(4)), (0, 0xff, 0x34));
        high.outb(0xd4 - 0xc0, 0);
        assert_eq!(high.inb(0x1e), 0xfe);
        pages.outb(0, 0x5a);
        pages.outb(7, 0x12);
        assert_eq!((pages.inb(7), dma.post_code()), (0x12, 0x5a));
        let other = DmaControllers::new("dma", Log::off());
        other.load(&dma.save()).unwrap();
        assert_eq!(*other.state.lock(), *dma.state.lock());
        let mut random = Random::new(5);
        for _ in 0..20_000 {
            poke(&*low, 16, &mut random);
            poke(&*high, 32, &mut random);
            poke(&*pages, 16, &mut random);
        }
        dma.reset();
        assert_eq!(*dma.state.lock(), State::default());
    }
}
