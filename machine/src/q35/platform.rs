//! The board's fixed devices: timers, clock, keyboard controller, serial ports, ports of the chipset.

use super::map::{self, Window};
use crate::board::{Board, Wiring};
use crate::config::{DeviceSpec, MachineConfig};
use crate::options::Q35Options;
use parking_lot::Mutex;
use rhea_accel::IrqLine;
use rhea_chipset::Lpc;
use rhea_clock::RtcClock;
use rhea_device::OptionError;
use rhea_device::options::{OptionDecl, OptionKind, OptionSet};
use rhea_firmware::x86::RamLayout;
use rhea_memory::{AddressSpace, Gpa, Requester};
use rhea_pc::testdev::{self, PcTestDev};
use rhea_pc::uart::{COM_PORTS, UartOptions};
use rhea_pc::{A20Gate, DmaControllers, Hpet, HpetLines, HpetOptions, I8042, I8042Wiring, Pit};
use rhea_pc::{Port92, Rtc, SharedIrq, Uart16550, catalog};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Sets up the 8259s and the timer as a BIOS leaves them.
pub fn bios_interrupts(io: &AddressSpace) {
    const MASTER: u64 = map::PIC_MASTER.start;
    const SLAVE: u64 = map::PIC_SLAVE.start;
    const PIT: u64 = map::PIT.start;
    // ICW1 to ICW4: edges, base vector, cascade on input 2, 8086 mode; then the mask. Counter 0 in mode 2 with 65536.
    let writes = [
        (MASTER, 0x11),
        (MASTER + 1, 0x08),
        (MASTER + 1, 0x04),
        (MASTER + 1, 0x01),
        (SLAVE, 0x11),
        (SLAVE + 1, 0x70),
        (SLAVE + 1, 0x02),
        (SLAVE + 1, 0x01),
        (MASTER + 1, 0xfa),
        (SLAVE + 1, 0xff),
        (PIT + 3, 0x34),
        (PIT, 0),
        (PIT, 0),
    ];
    for (port, value) in writes {
        // A machine without the timer takes no writes to it.
        let _ = io.write(Gpa(port), &[value], Requester::Host);
    }
}

/// Why a system starts: a cell of the clock that firmware reads, and its value after suspend to RAM.
pub const SHUTDOWN_STATUS: u8 = 0x0f;
pub const RESUME: u8 = 0xfe;

/// Makes the devices; gives the clock with its cells and the interrupts of serial ports.
pub fn build(
    board: &mut Board,
    config: &MachineConfig,
    options: &Q35Options,
    wiring: &Wiring,
    io: &Arc<AddressSpace>,
    hpet_inputs: Vec<IrqLine>,
    a20: &Arc<A20Gate>,
    ram: RamLayout,
    lpc: &Arc<Lpc>,
) -> (Arc<Rtc>, SerialLines) {
    let line = |board: &Board, n: u32| board.routing.line(n);
    // A direct line to the timer's input, shared with the HPET's legacy replacement.
    let (irq0, irq8) = (line(board, map::IRQ_PIT), line(board, map::IRQ_RTC));
    let pit = options.pit.then(|| Pit::new("pit", irq0.clone(), &board.clock));
    if let Some(pit) = &pit {
        board.map_into(io, map::PIT, pit.clone());
        let port61 = pit.system_control_b();
        board.map_into(io, map::SYSTEM_CONTROL_B, port61);
        board.devices.push(pit.clone());
    }

    let wall = RtcClock::new(config.rtc.0, config.rtc.1, &board.clock);
    board.inventory.set_wall(&wall);
    let rtc = Rtc::new("rtc", irq8.clone(), wall, &board.clock, board.log.clone());
    board.map_into(io, map::RTC, rtc.clone());
    board.devices.push(rtc.clone());
    cmos(&rtc, config, ram);
    let pm = Arc::downgrade(lpc.pm());
    rtc.on_alarm(move || {
        if let Some(pm) = pm.upgrade() {
            pm.rtc_alarm();
        }
    });

    if options.hpet {
        let (p, r) = (pit, rtc.clone());
        let legacy = Box::new(move |on| {
            if let Some(pit) = &p {
                pit.set_irq_blocked(on);
            }
            r.set_irq_blocked(on);
        });
        let lines = HpetLines { inputs: hpet_inputs, irq0, irq8, legacy };
        let hpet = Hpet::new("hpet", HpetOptions::default(), lines, &board.clock, board.log.clone());
        board.map(map::HPET, hpet.clone());
        board.devices.push(hpet);
    }

    if options.i8042 {
        let wiring = I8042Wiring {
            irq1: line(board, map::IRQ_KEYBOARD),
            irq12: line(board, map::IRQ_MOUSE),
            a20: a20.clone(),
            control: board.control.clone(),
            input: board.input.clone(),
        };
        let keyboard = I8042::new("i8042", wiring, &board.clock, board.log.clone());
        board.map_into(io, map::KEYBOARD_DATA, keyboard.data_port());
        board.map_into(io, map::KEYBOARD_COMMAND, keyboard.command_port());
        board.devices.push(keyboard);
    }
    let port = Port92::new("port92", a20.clone(), board.control.clone());
    board.map_into(io, map::PORT_92, port.clone());
    board.devices.push(port);
    let dma = DmaControllers::new("dma", board.log.clone());
    board.map_into(io, map::DMA_SECONDARY, dma.secondary());
    board.map_into(io, map::DMA_PRIMARY, dma.primary());
    board.map_into(io, map::DMA_PAGES, dma.pages());
    board.devices.push(dma);

    let mut lines = SerialLines::default();
    for (n, (port, irq)) in serial_ports(wiring).into_iter().enumerate() {
        let Some(backend) = wiring.serials.get(n) else { continue };
        let name = format!("serial@{port:x}");
        let irq = lines.line(board, irq);
        let uart = Uart16550::new(&name, UartOptions::default(), irq, backend.clone(), &board.clock);
        board.map_into(io, Window { start: port.into(), len: uart.window() }, uart.clone());
        board.devices.push(uart);
    }
    (rtc, lines)
}

/// Port and interrupt of each serial port that the command line connects.
pub fn serial_ports(wiring: &Wiring) -> Vec<(u16, u8)> {
    COM_PORTS.iter().copied().take(wiring.serials.len()).collect()
}

/// The cells that firmware reads.
fn cmos(rtc: &Rtc, config: &MachineConfig, ram: RamLayout) {
    let word = |at: u8, value: u64| {
        let value = value.min(0xffff) as u16;
        rtc.set_cmos(at, value as u8);
        rtc.set_cmos(at + 1, (value >> 8) as u8);
    };
    // Equipment: coprocessor, mouse.
    rtc.set_cmos(0x14, 0x06);
    // KiB below 1 MiB, and above it (twice).
    word(0x15, 640);
    let above = (ram.below_4g >> 10).saturating_sub(1024);
    word(0x17, above);
    word(0x30, above);
    // 64 KiB above 16 MiB, and above 4 GiB.
    word(0x34, ram.below_4g.saturating_sub(16 << 20) >> 16);
    let high = ram.above_4g >> 16;
    word(0x5b, high & 0xffff);
    rtc.set_cmos(0x5d, (high >> 16).min(0xff) as u8);
    rtc.set_cmos(0x5f, (config.smp.cpus - 1).min(0xff) as u8);
    // Drives in the order of booting, four bits each.
    let letters = config.boot.once.as_deref().or(config.boot.order.as_deref()).unwrap_or("cad");
    let code = |n: usize| match letters.as_bytes().get(n) {
        Some(b'a' | b'b') => 1u8,
        Some(b'c') => 2,
        Some(b'd') => 3,
        Some(b'n'..=b'p') => 4,
        _ => 0,
    };
    rtc.set_cmos(0x3d, code(0) | code(1) << 4);
    // Bit 0: floppy disks need not have a signature.
    rtc.set_cmos(0x38, code(2) << 4 | 1);
}

/// The port of the panic device, if the command line asks for it.
pub fn pvpanic_port(config: &MachineConfig) -> Option<u16> {
    let spec = config.devices.iter().find(|d| d.driver == "pvpanic")?;
    let given = spec.value("ioport").map(|text| {
        let text = text.trim();
        text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |hex| u16::from_str_radix(hex, 16).ok())
    });
    given.unwrap_or(Some(map::PVPANIC))
}

/// The ISA interrupts of serial ports, of which COM1 and COM3 have one, and COM2 and COM4.
#[derive(Default)]
pub struct SerialLines(BTreeMap<u8, Arc<SharedIrq>>);

impl SerialLines {
    /// One more input of the interrupt.
    fn line(&mut self, board: &Board, irq: u8) -> IrqLine {
        let shared = self.0.entry(irq).or_insert_with(|| SharedIrq::new(board.routing.line(irq.into())));
        // Four ports of the command line and a few devices do not fill it.
        shared.input().unwrap_or_else(IrqLine::unconnected)
    }
}

/// What ISA devices of `-device` need of the board.
pub struct Isa<'a> {
    pub wiring: &'a Wiring,
    pub io: &'a Arc<AddressSpace>,
    pub a20: &'a Arc<A20Gate>,
    pub lines: SerialLines,
    /// The serial ports that are taken, a bit for each COM port.
    pub serials: u8,
    /// The ports firmware tables tell of.
    pub told: Vec<(u16, u8)>,
}

impl Isa<'_> {
    /// Makes an ISA device of the user's choice; false: it is none.
    pub fn device(&mut self, board: &mut Board, spec: &DeviceSpec) -> Result<bool, OptionError> {
        let option = format!("-device {}", spec.driver);
        if spec.driver == TEST_DEVICE.0 {
            OptionSet::parse(&option, TEST_DEVICE.2, &spec.pairs)?;
            let lines = (0..24).map(|n| board.routing.line(n)).collect();
            let device = PcTestDev::new(lines);
            for (start, len, ports) in device.ports() {
                board.map_into(self.io, Window { start: start.into(), len: len.into() }, ports);
            }
            board.map(Window { start: testdev::MEMORY, len: testdev::MEMORY_LEN }, device.memory());
            board.devices.push(device);
            return Ok(true);
        }
        let Some(kind) = catalog::find(&spec.driver) else { return Ok(false) };
        let set = OptionSet::parse(&option, &kind.options(), &spec.pairs)?;
        if kind.model == catalog::Model::I8042 && board.devices.iter().any(|d| d.name() == "i8042") {
            return Err(OptionError::new(&option, "the machine has one: use -M q35,i8042=off with this device"));
        }
        let chardev = match set.text("chardev") {
            None => None,
            Some(id) => match self.wiring.chardevs.get(id) {
                Some(backend) => Some(backend),
                None => return Err(set.error("chardev", &format!("'{id}': no -chardev has this id"))),
            },
        };
        let lines = Mutex::new(&mut self.lines);
        let irq = |n: u8| lines.lock().line(board, n);
        let resources = catalog::Resources {
            chardev,
            irq: &irq,
            serials: self.serials,
            clock: &board.clock,
            control: &board.control,
            a20: self.a20,
            input: &board.input,
            log: &board.log,
        };
        let place = |keys: &[&str]| keys.iter().find_map(|key| set.number(key));
        let name = match (kind.model, place(&["iobase", "ioport"])) {
            (catalog::Model::I8042 | catalog::Model::PvPanic, _) => kind.name.to_owned(),
            (_, Some(port)) => format!("{}@{port:x}", kind.name),
            // Whatever other devices there are: they may have come while another process had the machine.
            (_, None) => {
                let alike = |name: &str| name.strip_prefix(kind.name).is_some_and(|rest| rest.starts_with(['.', '@']));
                format!("{}.{}", kind.name, board.devices.iter().filter(|d| alike(d.name())).count())
            }
        };
        let made = kind.make(&name, &set, &resources)?;
        for w in &made.windows {
            let taken = self.io.map_mmio(Gpa(w.port.into()), w.len.into(), w.device.clone(), 0);
            let mapping = taken.map_err(|e| OptionError::new(&option, format!("port {:#x}: {e}", w.port)))?;
            board.keep_mapping(mapping);
        }
        if let (Some(index), Some(irq)) = (made.serial, made.irq) {
            self.serials |= 1 << index;
            self.told.extend(made.windows.first().map(|w| (w.port, irq)));
        }
        board.devices.push(made.device);
        Ok(true)
    }
}

/// The device for test programs: name, description, properties.
pub const TEST_DEVICE: (&str, &str, &[OptionDecl]) =
    ("pc-testdev", "ports and lines for test programs", &[OptionDecl::new("id", OptionKind::Text, None, "name")]);
