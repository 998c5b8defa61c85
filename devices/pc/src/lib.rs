//! The legacy devices of a PC: UART, interval timer, real-time clock, HPET, keyboard controller with PS/2 keyboard and mouse, DMA
//! controllers, A20 gate and the debug ports; and where input events go.
//!
//! A port device is an [`rhea_memory::MmioDevice`] whose offset is the port less the first one it answers at; the board maps it in
//! its I/O space.

mod a20;
pub mod catalog;
mod coprocessor;
mod debug;
mod dma8237;
pub mod hpet;
mod i8042;
pub mod input;
pub mod pit;
mod port92;
mod ps2;
mod pvpanic;
pub mod rtc;
mod shared;
pub mod testdev;
#[cfg(test)]
mod testing;
pub mod uart;

pub use a20::{A20Gate, A20Source};
pub use coprocessor::CoprocessorError;
pub use debug::{DebugCon, DebugExit};
pub use dma8237::{DmaControllers, PageRegisters};
pub use hpet::{Hpet, HpetLines, HpetOptions};
pub use i8042::{I8042, I8042Wiring};
pub use input::{InputEvent, InputHub, KeyCode};
pub use pit::{Pit, SystemControlB};
pub use port92::Port92;
pub use pvpanic::PvPanic;
pub use rtc::Rtc;
pub use shared::SharedIrq;
pub use uart::{Uart16550, UartOptions};

use rhea_memory::AccessRules;

/// Devices of 8-bit registers: a wider access touches as many in turn.
const BYTES: AccessRules = AccessRules::implemented(1, 1);
