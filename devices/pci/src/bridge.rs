//! PCI-to-PCI bridges: what their type 1 header makes of the bus behind them.

use crate::config::{
    BRIDGE_CONTROL, BUS_NUMBERS, COMMAND, COMMAND_IO, COMMAND_MASTER, COMMAND_MEMORY, ConfigBuilder, IO_WINDOW,
    MEMORY_WINDOW, PREFETCHABLE_WINDOW,
};
use crate::{BusKind, PciBus, PciConfig, PciConfigState, PciFunction, PciSlot};
use parking_lot::Mutex;
use rhea_device::{Device, LoadError, Saved, state};
use rhea_memory::{AddressSpace, Gpa, Mapping};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Bridge control (PCI Express base specification 7.5.1.3.13).
mod control {
    pub const ISA: u16 = 1 << 2;
    pub const VGA: u16 = 1 << 3;
    pub const RESET: u16 = 1 << 6;
}

/// What the bridge forwards from its primary to its secondary side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forward {
    Memory(u64, u64),
    Io(u64, u64),
}

#[derive(Default)]
struct Windows {
    open: Vec<Forward>,
    mappings: Vec<Mapping>,
}

/// A bridge function and the bus behind it.
pub struct Bridge {
    name: String,
    config: PciConfig,
    secondary: Arc<PciBus>,
    windows: Mutex<Windows>,
}

impl Bridge {
    /// A bridge at `slot` with the type 1 configuration that `config` completes; the bus behind it is called `bus`. Reached after
    /// [`PciBus::attach`] and [`Self::connect`].
    #[must_use]
    pub fn new(model: &str, bus: &str, kind: BusKind, slot: &PciSlot, config: ConfigBuilder) -> Self {
        Self {
            name: format!("{model}@{slot}"),
            config: config.build(),
            secondary: PciBus::behind(bus, kind, slot),
            windows: Mutex::default(),
        }
    }
    /// Lets the bus of the bridge know of the bus behind it.
    pub fn connect(&self) {
        self.secondary.connect();
    }

    /// What the registers forward.
    fn wanted(&self) -> Vec<Forward> {
        let read = |at: usize, size: u8| u64::from(self.config.read(at as u16, size));
        let (command, control) = (self.config.word(COMMAND), self.config.word(BRIDGE_CONTROL));
        let mut list = Vec::new();
        if command & COMMAND_MEMORY != 0 {
            let half = |at: usize| (read(at, 2) & 0xfff0) << 16;
            let upper = |at: usize| read(PREFETCHABLE_WINDOW + at, 4) << 32;
            let windows: [RangeInclusive<u64>; 2] = [
                half(MEMORY_WINDOW)..=half(MEMORY_WINDOW + 2) | 0xf_ffff,
                half(PREFETCHABLE_WINDOW) | upper(4)..=half(PREFETCHABLE_WINDOW + 2) | 0xf_ffff | upper(8),
            ];
            for w in windows.iter().filter(|w| !w.is_empty()) {
                // A window over all 64 bits of addresses does not exist; its last byte may stay out.
                list.push(Forward::Memory(*w.start(), (w.end() - w.start()).saturating_add(1)));
            }
            if control & control::VGA != 0 {
                list.push(Forward::Memory(0xa_0000, 0x2_0000));
            }
        }
        if command & COMMAND_IO != 0 {
            let (first, last) = ((read(IO_WINDOW, 1) & 0xf0) << 8, (read(IO_WINDOW + 1, 1) & 0xf0) << 8 | 0xfff);
            if first <= last && control & control::ISA == 0 {
                list.push(Forward::Io(first, last - first + 1));
            } else if first <= last {
                // Of each KiB only the first quarter, the rest are aliases of ISA ports.
                list.extend((first..=last).step_by(0x400).map(|at| Forward::Io(at, 0x100)));
            }
            if control & control::VGA != 0 {
                list.extend([Forward::Io(0x3b0, 0xc), Forward::Io(0x3c0, 0x20)]);
            }
        }
        list
    }
    /// Makes the bus behind follow the registers.
    fn apply(&self) {
        let windows = &mut *self.windows.lock();
        let master = self.config.word(COMMAND) & COMMAND_MASTER != 0;
        let byte = |n: usize| self.config.read((BUS_NUMBERS + n) as u16, 1) as u8;
        self.secondary.set_bridge(byte(1), byte(2), master);
        let wanted = self.wanted();
        if windows.open == wanted {
            return;
        }
        let primary = self.config.slot().bus();
        let map = |space: &Arc<AddressSpace>, behind: &Arc<AddressSpace>, start, len| {
            space.map_alias(Gpa(start), behind, Gpa(start), len, 1).ok()
        };
        primary.memory().transaction(|| {
            primary.io().transaction(|| {
                windows.mappings.clear();
                windows.mappings.extend(wanted.iter().filter_map(|w| match *w {
                    Forward::Memory(start, len) => map(primary.memory(), self.secondary.memory(), start, len),
                    Forward::Io(start, len) => map(primary.io(), self.secondary.io(), start, len),
                }));
            });
        });
        windows.open = wanted;
    }
    /// Secondary bus reset: everything behind as after power-on.
    pub fn reset_secondary(&self) {
        for function in self.secondary.functions() {
            function.reset();
        }
    }
}

impl PciFunction for Bridge {
    fn config(&self) -> &PciConfig {
        &self.config
    }
    fn secondary(&self) -> Option<&Arc<PciBus>> {
        Some(&self.secondary)
    }
    fn config_write(&self, offset: u16, size: u8, value: u32) {
        let (at, end) = (usize::from(offset), usize::from(offset) + usize::from(size));
        let resets = || self.config.word(BRIDGE_CONTROL) & control::RESET != 0;
        let was = resets();
        self.config.write(offset, size, value);
        let touches = |start: usize, stop: usize| at < stop && start < end;
        if touches(COMMAND, COMMAND + 2)
            || touches(BUS_NUMBERS, PREFETCHABLE_WINDOW + 12)
            || touches(BRIDGE_CONTROL, BRIDGE_CONTROL + 2)
        {
            self.apply();
        }
        if !was && resets() {
            self.reset_secondary();
        }
    }
}

impl Device for Bridge {
    fn name(&self) -> &str {
        &self.name
    }
    /// Resets what is behind, too.
    fn reset(&self) {
        self.config.reset();
        self.apply();
        self.reset_secondary();
    }
    fn save(&self) -> Saved {
        state::encode(1, &self.config.save())
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        self.config.load(state::decode::<PciConfigState>(saved, 1)?)?;
        self.apply();
        Ok(())
    }
}
