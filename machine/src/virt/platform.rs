//! The board's fixed devices: UARTs, clock, power button, flash.

use super::map::{self, Window};
use crate::board::{Board, Wiring};
use crate::config::MachineConfig;
use crate::options::VirtOptions;
use rhea_accel::{IrqLine, IrqSink};
use rhea_clock::RtcClock;
use rhea_device::chardev::NullChar;
use rhea_device::{Device, OptionError};
use rhea_memory::{Gpa, MmioDevice, RamBlock};
use rhea_platform::{Flash, FlashOptions, GpioKey, Pl011, Pl031, Pl061, PowerSwitch, SecureOnly};
use std::sync::Arc;

/// The pin of the power button, as the device tree says.
const POWER_PIN: u32 = 3;

/// Makes the devices; gives the power button.
pub fn build(
    board: &mut Board,
    config: &MachineConfig,
    options: &VirtOptions,
    wiring: &Wiring,
    rtc: RtcClock,
) -> Result<Box<dyn Fn() + Send + Sync>, OptionError> {
    flash(board, config)?;
    uart(board, map::UART, map::UART_SPI, wiring, 0, false);
    let name = name("pl031", map::RTC);
    let rtc = Pl031::new(&name, board.routing.line(map::RTC_SPI), rtc, &board.clock, board.log.clone());
    add(board, map::RTC, rtc, false);
    let gpio = gpio(board, map::GPIO, map::GPIO_SPI, [const { None }; 8], false);
    let key = GpioKey::new(&gpio, POWER_PIN, &board.clock);
    if options.secure {
        secure(board, wiring)?;
    }
    Ok(Box::new(move || key.press()))
}

fn name(kind: &str, window: Window) -> String {
    format!("{kind}@{:x}", window.start)
}

/// Maps a device, for the Secure world only or for all.
fn add<D: MmioDevice + Device + 'static>(board: &mut Board, window: Window, device: Arc<D>, secure: bool) {
    if secure {
        board.map(window, Arc::new(SecureOnly(device.clone())));
    } else {
        board.map(window, device.clone());
    }
    board.devices.push(device);
}

/// A UART on the serial line `n` of the command line, or on nothing.
fn uart(board: &mut Board, window: Window, spi: u32, wiring: &Wiring, n: usize, secure: bool) {
    let backend = wiring.serials.get(n).cloned().unwrap_or_else(|| Arc::new(NullChar));
    let uart = Pl011::new(&name("pl011", window), board.routing.line(spi), backend, &board.clock, board.log.clone());
    add(board, window, uart, secure);
}

fn gpio(board: &mut Board, window: Window, spi: u32, outputs: [Option<IrqLine>; 8], secure: bool) -> Arc<Pl061> {
    let gpio = Pl061::new(&name("pl061", window), board.routing.line(spi), outputs, board.log.clone());
    add(board, window, gpio.clone(), secure);
    gpio
}

/// What only machines with EL3 have.
fn secure(board: &mut Board, wiring: &Wiring) -> Result<(), OptionError> {
    uart(board, map::SECURE_UART, map::SECURE_UART_SPI, wiring, 1, true);
    let switch: Arc<dyn IrqSink> = Arc::new(PowerSwitch(board.control.clone()));
    let mut outputs = [const { None }; 8];
    for (pin, output) in outputs.iter_mut().enumerate().take(2) {
        *output = Some(IrqLine::to_sink(switch.clone(), pin as u32));
    }
    gpio(board, map::SECURE_GPIO, map::SECURE_GPIO_SPI, outputs, true);
    // Addresses are not kept apart by security state: both worlds see this memory.
    let fail = |e: String| OptionError::new("-M virt,secure=on", e);
    let memory = RamBlock::anonymous("secure-ram", map::SECURE_MEM.len).map_err(|e| fail(e.to_string()))?;
    let mapping = board
        .space
        .map_ram(Gpa(map::SECURE_MEM.start), &memory, 0, memory.len(), 0)
        .map_err(|e| fail(e.to_string()))?;
    board.keep_mapping(mapping);
    board.ram.push(memory);
    Ok(())
}

/// Both banks.
fn flash(board: &mut Board, config: &MachineConfig) -> Result<(), OptionError> {
    for (n, drive) in crate::flash::banks(config)?.into_iter().enumerate() {
        let mut content = FlashOptions::default();
        let mut place = "-M virt".to_owned();
        if let Some(drive) = drive {
            let opened = crate::flash::open(config, drive, &format!("pflash{n}"))?;
            board.flash_drives.push(opened.clone());
            content.drive = Some(opened);
            place = match &drive.file {
                Some(file) => format!("{}: '{}'", drive.option, file),
                None => drive.option.clone(),
            };
        }
        if let (0, Some(path)) = (n, &config.bios) {
            if drive.is_some() {
                return Err(OptionError::new(
                    "-bios",
                    "flash bank 0 has a drive: use only one of -bios and -drive if=pflash,unit=0",
                ));
            }
            content.image = Some(crate::files::read("-bios", path)?);
            place = format!("-bios: '{}'", path.display());
        }
        let start = map::FLASH.start + n as u64 * map::FLASH_BANK;
        let flash =
            Flash::new(&format!("flash@{start:x}"), map::FLASH_BANK, map::FLASH_BLOCK, content, board.log.clone());
        let flash = flash.map_err(|e| OptionError::new(&place, e.to_string()))?;
        let mapping = flash.map(&board.space, Gpa(start)).map_err(|e| OptionError::new(&place, e.to_string()))?;
        board.keep.push(Box::new(mapping));
        board.devices.push(flash);
    }
    Ok(())
}
