//! The pair of 8259A programmable interrupt controllers of a PC, with the edge/level control registers of EISA and PCI chip sets.

mod chip;
mod state;

#[cfg(test)]
mod tests;

use crate::EoiListener;
use crate::apic::InterruptAcknowledge;
use chip::Chip;
use parking_lot::Mutex;
use rhea_accel::{IrqLine, IrqSink};
use rhea_device::{Log, log_guest_error, log_unimp};
use rhea_memory::{Access, AccessRules, BusError, MmioDevice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// The master's input that the slave is connected to.
const CASCADE: u8 = 2;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Ports 0x20 and 0x21, inputs 0 to 7.
    Master,
    /// Ports 0xa0 and 0xa1, inputs 8 to 15.
    Slave,
}

/// How to make an [`I8259`].
#[derive(Clone)]
pub struct I8259Config {
    pub name: String,
    /// Told the input (0 to 15) of each level-triggered interrupt that the guest ended, with no lock held.
    pub eoi: Option<EoiListener>,
    pub log: Log,
}

/// Both chips.
struct Pair {
    master: Chip,
    slave: Chip,
}

impl Pair {
    /// Passes the slave's output on; what the master's output then is.
    fn settle(&mut self) -> bool {
        let slave = self.slave.pending().is_some();
        self.master.set_cascade(CASCADE, slave);
        self.master.pending().is_some()
    }
}

/// The pair; an [`IrqSink`] for inputs 0 to 15 (2 is the cascade, and ignored).
pub struct I8259 {
    config: I8259Config,
    pair: Mutex<Pair>,
    output: IrqLine,
    /// The level `output` is to have.
    wanted: AtomicBool,
}

impl I8259 {
    /// `output`: INTR of the master (LINT0 of the local APICs).
    #[must_use]
    pub fn new(config: I8259Config, output: IrqLine) -> Arc<Self> {
        let pair = Pair { master: Chip::new(true), slave: Chip::new(false) };
        Arc::new(Self { config, pair: Mutex::new(pair), output, wanted: AtomicBool::new(false) })
    }
    /// The command and data port of one chip, 2 bytes.
    #[must_use]
    pub fn ports(self: &Arc<Self>, which: Which) -> Arc<dyn MmioDevice> {
        Arc::new(Ports(self.clone(), which))
    }
    /// The edge/level control registers ELCR1 and ELCR2 (ports 0x4d0 and 0x4d1), 2 bytes.
    #[must_use]
    pub fn elcr(self: &Arc<Self>) -> Arc<dyn MmioDevice> {
        Arc::new(Elcr(self.clone()))
    }
    /// Changes the chips, then sets the output and tells of ended interrupts. `change` returns the inputs that were ended.
    fn with<R>(&self, change: impl FnOnce(&mut Pair) -> (R, u16)) -> R {
        let (result, ended) = {
            let mut pair = self.pair.lock();
            let (result, ended) = change(&mut pair);
            let levels = u16::from(pair.master.level_inputs()) | u16::from(pair.slave.level_inputs()) << 8;
            self.wanted.store(pair.settle(), SeqCst);
            (result, ended & levels)
        };
        self.output.settle(|| self.wanted.load(SeqCst));
        if let (Some(eoi), true) = (&self.config.eoi, ended != 0) {
            for n in (0..16).filter(|n| ended >> n & 1 != 0) {
                eoi(n);
            }
        }
        result
    }
    fn set_input(&self, pin: u32, level: bool, edge: bool) {
        let Some(pin) = u8::try_from(pin).ok().filter(|n| *n < 16 && *n != CASCADE) else { return };
        self.with(|pair| {
            let chip = if pin < 8 { &mut pair.master } else { &mut pair.slave };
            if edge {
                chip.set_input(pin & 7, level);
            } else {
                chip.import_input(pin & 7, level);
            }
            ((), 0)
        });
    }
    /// Text for `info pic`.
    #[must_use]
    pub fn describe(&self) -> String {
        let pair = self.pair.lock();
        format!(
            "{}: output {}\n  master: {}\n  slave: {}\n",
            self.config.name,
            u8::from(self.wanted.load(SeqCst)),
            pair.master.describe(),
            pair.slave.describe()
        )
    }
}

impl InterruptAcknowledge for I8259 {
    fn acknowledge(&self) -> u8 {
        self.with(|pair| {
            pair.settle();
            let Some(n) = pair.master.pending() else {
                // The request is gone: a spurious interrupt, without a bit in service.
                return (pair.master.vector(7), 0);
            };
            let mut ended = u16::from(pair.master.acknowledge(n));
            if n != CASCADE || !pair.master.has_slave() {
                return (pair.master.vector(n), ended);
            }
            let Some(n) = pair.slave.pending() else { return (pair.slave.vector(7), ended) };
            ended |= u16::from(pair.slave.acknowledge(n)) << 8;
            (pair.slave.vector(n), ended)
        })
    }
}

impl IrqSink for I8259 {
    fn set_level(&self, pin: u32, level: bool) {
        self.set_input(pin, level, true);
    }
    fn import_level(&self, pin: u32, level: bool) {
        self.set_input(pin, level, false);
    }
}

struct Ports(Arc<I8259>, Which);

impl Ports {
    fn with<R>(&self, change: impl FnOnce(&mut Chip) -> (R, u8)) -> R {
        self.0.with(|pair| match self.1 {
            Which::Master => {
                let (result, ended) = change(&mut pair.master);
                (result, ended.into())
            }
            Which::Slave => {
                let (result, ended) = change(&mut pair.slave);
                (result, u16::from(ended) << 8)
            }
        })
    }
}

impl MmioDevice for Ports {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        if access.requester == rhea_memory::Requester::Debugger {
            let pair = self.0.pair.lock();
            let chip = if self.1 == Which::Master { &pair.master } else { &pair.slave };
            return Ok(chip.peek(offset & 1 != 0).into());
        }
        Ok(self.with(|chip| chip.read(offset & 1 != 0)).into())
    }
    fn write(&self, offset: u64, value: u64, _access: Access) -> Result<(), BusError> {
        let (mcs80, chained) = self.with(|chip| {
            let ended = chip.write(offset & 1 != 0, value as u8);
            ((chip.mcs80(), chip.wrongly_chained()), ended)
        });
        if mcs80 {
            log_unimp!(self.0.config.log, "i8259", "interrupts of the MCS-80 system");
        }
        if chained {
            log_guest_error!(self.0.config.log, "i8259", "{:?}: initialized for another cascade than there is", self.1);
        }
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::implemented(1, 1)
    }
    fn name(&self) -> &str {
        match self.1 {
            Which::Master => "pic-master",
            Which::Slave => "pic-slave",
        }
    }
}

struct Elcr(Arc<I8259>);

impl MmioDevice for Elcr {
    fn read(&self, offset: u64, _access: Access) -> Result<u64, BusError> {
        let pair = self.0.pair.lock();
        Ok(if offset & 1 == 0 { pair.master.elcr() } else { pair.slave.elcr() }.into())
    }
    fn write(&self, offset: u64, value: u64, _access: Access) -> Result<(), BusError> {
        self.0.with(|pair| {
            let chip = if offset & 1 == 0 { &mut pair.master } else { &mut pair.slave };
            chip.set_elcr(value as u8);
            ((), 0)
        });
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::implemented(1, 1)
    }
    fn name(&self) -> &str {
        "elcr"
    }
}
