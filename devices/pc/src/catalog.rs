//! The names of `-device` that are ISA devices, their properties, and how a device is made of them.

use crate::i8042::{I8042, I8042Wiring};
use crate::uart::COM_PORTS;
use crate::{A20Gate, DebugCon, DebugExit, InputHub, PvPanic, Uart16550, UartOptions};
use rhea_accel::{IrqLine, VmControl};
use rhea_clock::VirtualClock;
use rhea_device::chardev::CharBackend;
use rhea_device::options::{OptionDecl, OptionError, OptionKind, OptionSet};
use rhea_device::{Device, Log};
use rhea_memory::MmioDevice;
use std::sync::Arc;

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    Serial,
    DebugCon,
    DebugExit,
    PvPanic,
    I8042,
}

/// A name of `-device`.
#[derive(Clone, Copy, Debug)]
pub struct DeviceType {
    pub name: &'static str,
    pub model: Model,
    pub description: &'static str,
}

/// All names.
pub const DEVICES: &[DeviceType] = &[
    DeviceType { name: "i8042", model: Model::I8042, description: "keyboard controller with keyboard and mouse" },
    DeviceType { name: "isa-debug-exit", model: Model::DebugExit, description: "port that ends the emulator" },
    DeviceType {
        name: "isa-debugcon",
        model: Model::DebugCon,
        description: "port that writes to a character back end",
    },
    DeviceType { name: "isa-serial", model: Model::Serial, description: "16550A serial port" },
    DeviceType { name: "pvpanic", model: Model::PvPanic, description: "port by which the guest tells that it crashed" },
];

const PORT: OptionKind = OptionKind::Number { min: 0, max: 0xffff };

const COMMON: &[OptionDecl] = &[
    OptionDecl::new("id", OptionKind::Text, None, "name"),
    OptionDecl::new("bus", OptionKind::Text, None, "bus to sit on"),
];
const SERIAL: &[OptionDecl] = &[
    OptionDecl::new("chardev", OptionKind::Text, None, "character back end"),
    OptionDecl::new("index", OptionKind::Number { min: 0, max: 3 }, None, "COM port less one (default: the next)"),
    OptionDecl::new("iobase", PORT, None, "first I/O port (default: that of the COM port)"),
    OptionDecl::new("irq", OptionKind::Number { min: 0, max: 15 }, None, "interrupt (default: that of the COM port)"),
];
const DEBUG_CON: &[OptionDecl] = &[
    OptionDecl::new("chardev", OptionKind::Text, None, "character back end"),
    OptionDecl::new("iobase", PORT, Some("0xe9"), "I/O port"),
    OptionDecl::new("readback", OptionKind::Number { min: 0, max: 0xff }, Some("0xe9"), "what a read answers"),
];
const DEBUG_EXIT: &[OptionDecl] = &[
    OptionDecl::new("iobase", PORT, Some("0x501"), "first I/O port"),
    OptionDecl::new("iosize", OptionKind::Number { min: 1, max: 8 }, Some("2"), "how many ports"),
];
const PVPANIC: &[OptionDecl] = &[
    OptionDecl::new("ioport", PORT, Some("0x505"), "I/O port"),
    OptionDecl::new(
        "events",
        OptionKind::Number { min: 0, max: PvPanic::ALL_EVENTS as u64 },
        Some("7"),
        "events offered: 1 panic, 2 crash loaded, 4 shutdown",
    ),
];

/// What the board has for the devices.
pub struct Resources<'a> {
    /// For `chardev=`.
    pub chardev: Option<Arc<dyn CharBackend>>,
    /// Makes the sending end of an ISA interrupt.
    pub irq: &'a dyn Fn(u8) -> IrqLine,
    /// The COM ports that are taken, a bit for each.
    pub serials: u8,
    pub clock: &'a Arc<VirtualClock>,
    pub control: &'a VmControl,
    pub a20: &'a Arc<A20Gate>,
    pub input: &'a Arc<InputHub>,
    pub log: &'a Log,
}

/// I/O ports a device answers at.
#[derive(Clone)]
pub struct PortWindow {
    pub port: u16,
    pub len: u16,
    pub device: Arc<dyn MmioDevice>,
}

/// A device just made.
#[derive(Clone)]
pub struct Made {
    pub device: Arc<dyn Device>,
    pub windows: Vec<PortWindow>,
    /// Its ISA interrupt, if it has one that firmware tables tell.
    pub irq: Option<u8>,
    /// The COM port it is, less one.
    pub serial: Option<u8>,
}

/// The type called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static DeviceType> {
    DEVICES.iter().find(|d| d.name == name)
}

/// A number of an option whose bounds fit the type.
fn number<T: TryFrom<u64>>(set: &OptionSet, key: &str) -> Option<T> {
    set.number(key).and_then(|n| T::try_from(n).ok())
}

/// Ports at `key`, which must all exist.
fn window(
    set: &OptionSet,
    key: &str,
    port: u16,
    len: u16,
    device: Arc<dyn MmioDevice>,
) -> Result<PortWindow, OptionError> {
    if u32::from(port) + u32::from(len) > 0x1_0000 {
        return Err(set.error(key, &format!("{len} ports from {port:#x} go past the last port 0xffff")));
    }
    Ok(PortWindow { port, len, device })
}

fn backend(set: &OptionSet, resources: &Resources<'_>) -> Result<Arc<dyn CharBackend>, OptionError> {
    let missing = || set.error("chardev", "property is missing: give chardev=ID of a -chardev ...,id=ID");
    resources.chardev.clone().ok_or_else(missing)
}

impl DeviceType {
    /// The properties, for parsing and for `-device NAME,help`.
    #[must_use]
    pub fn options(&self) -> Vec<OptionDecl> {
        let own = match self.model {
            Model::Serial => SERIAL,
            Model::DebugCon => DEBUG_CON,
            Model::DebugExit => DEBUG_EXIT,
            Model::PvPanic => PVPANIC,
            Model::I8042 => &[],
        };
        [COMMON, own].concat()
    }
    /// Makes the device of parsed properties; `name` is its own in the machine.
    ///
    /// # Errors
    /// A property is missing or impossible.
    pub fn make(&self, name: &str, set: &OptionSet, resources: &Resources<'_>) -> Result<Made, OptionError> {
        let log = || resources.log.clone();
        Ok(match self.model {
            Model::Serial => {
                let chardev = backend(set, resources)?;
                let taken = |index: u8| resources.serials >> index & 1 != 0;
                let index = number(set, "index").or_else(|| (0..4).find(|index| !taken(*index)));
                // A port that says where it is needs no COM number.
                if index.is_none() && !(set.given("iobase") && set.given("irq")) {
                    return Err(set.error("index", "all four COM ports are taken: give iobase= and irq="));
                }
                let place = index.unwrap_or(0) & 3;
                if set.given("index") && taken(place) {
                    return Err(set.error("index", &format!("COM{} is taken", place + 1)));
                }
                let (port, irq) = COM_PORTS[usize::from(place)];
                let (port, irq) = (number(set, "iobase").unwrap_or(port), number(set, "irq").unwrap_or(irq));
                let uart = Uart16550::new(name, UartOptions::default(), (resources.irq)(irq), chardev, resources.clock);
                let windows = vec![window(set, "iobase", port, 8, uart.clone())?];
                Made { device: uart, windows, irq: Some(irq), serial: index }
            }
            Model::DebugCon => {
                let readback = number(set, "readback").unwrap_or(DebugCon::READBACK);
                let console = DebugCon::new(name, backend(set, resources)?, readback);
                let port = number(set, "iobase").unwrap_or(0xe9);
                let windows = vec![window(set, "iobase", port, 1, console.clone())?];
                Made { device: console, windows, irq: None, serial: None }
            }
            Model::DebugExit => {
                let exit = DebugExit::new(name, resources.control.clone());
                let (port, len) = (number(set, "iobase").unwrap_or(0x501), number(set, "iosize").unwrap_or(2));
                let windows = vec![window(set, "iobase", port, len, exit.clone())?];
                Made { device: exit, windows, irq: None, serial: None }
            }
            Model::PvPanic => {
                let events = number(set, "events").unwrap_or(PvPanic::ALL_EVENTS);
                let panic = PvPanic::new(name, events, resources.control.clone(), log());
                let port = number(set, "ioport").unwrap_or(0x505);
                let windows = vec![window(set, "ioport", port, 1, panic.clone())?];
                Made { device: panic, windows, irq: None, serial: None }
            }
            Model::I8042 => {
                let wiring = I8042Wiring {
                    irq1: (resources.irq)(1),
                    irq12: (resources.irq)(12),
                    a20: resources.a20.clone(),
                    control: resources.control.clone(),
                    input: resources.input.clone(),
                };
                let controller = I8042::new(name, wiring, resources.clock, log());
                let windows = vec![
                    PortWindow { port: 0x60, len: 1, device: controller.data_port() },
                    PortWindow { port: 0x64, len: 1, device: controller.command_port() },
                ];
                Made { device: controller, windows, irq: Some(1), serial: None }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhea_device::chardev::MemoryChar;
    use rhea_device::options::split;

    /// Ports and interrupt, or the error.
    fn make(text: &str, chardev: bool, serials: u8) -> Result<(Vec<(u16, u16)>, Option<u8>, Option<u8>), String> {
        let (name, rest) = text.split_once(',').unwrap_or((text, ""));
        let kind = find(name).unwrap();
        let set =
            OptionSet::parse(&format!("-device {name}"), &kind.options(), &split(rest)).map_err(|e| e.to_string())?;
        let (control, _requests) = VmControl::new();
        let resources = Resources {
            chardev: chardev.then(|| MemoryChar::new() as Arc<dyn CharBackend>),
            irq: &|_| IrqLine::unconnected(),
            serials,
            clock: &VirtualClock::new(),
            control: &control,
            a20: &A20Gate::new(),
            input: &InputHub::new(),
            log: &Log::off(),
        };
        let made = kind.make(name, &set, &resources).map_err(|e| e.to_string())?;
        Ok((made.windows.iter().map(|w| (w.port, w.len)).collect(), made.irq, made.serial))
    }

    #[test]
    fn defaults() {
        assert_eq!(make("isa-serial,chardev=x", true, 0), Ok((vec![(0x3f8, 8)], Some(4), Some(0))));
        assert_eq!(make("isa-serial,chardev=x", true, 1), Ok((vec![(0x2f8, 8)], Some(3), Some(1))));
        assert_eq!(make("isa-serial,index=3,irq=5", true, 1), Ok((vec![(0x2e8, 8)], Some(5), Some(3))));
        assert_eq!(make("isa-serial,iobase=0x1000,irq=5", true, 15), Ok((vec![(0x1000, 8)], Some(5), None)));
        assert_eq!(make("isa-debugcon,iobase=0x402", true, 0), Ok((vec![(0x402, 1)], None, None)));
        assert_eq!(make("isa-debug-exit,iobase=0xf4,iosize=4", false, 0), Ok((vec![(0xf4, 4)], None, None)));
        assert_eq!(make("pvpanic", false, 0), Ok((vec![(0x505, 1)], None, None)));
        assert_eq!(make("i8042", false, 0), Ok((vec![(0x60, 1), (0x64, 1)], Some(1), None)));
    }

    #[test]
    fn mistakes() {
        for (text, word) in [
            ("isa-serial", "chardev"),
            ("isa-debugcon,iobase=0x10000", "iobase"),
            ("isa-debug-exit,iobase=0xffff", "0xffff"),
            ("pvpanic,events=8", "events"),
            ("i8042,irq=1", "unknown property"),
        ] {
            let error = make(text, false, 0).unwrap_err();
            assert!(error.starts_with("-device ") && error.contains(word), "{error}");
        }
        assert!(make("isa-serial,index=0", true, 1).unwrap_err().contains("COM1 is taken"));
        assert!(make("isa-serial", true, 15).unwrap_err().contains("iobase= and irq="));
    }
}
