//! The board's fixed devices: the PrimeCell UART, clock and GPIO, and NOR flash.

pub mod flash;
pub mod pl011;
pub mod pl031;
pub mod pl061;
mod power_key;
mod primecell;
mod secure;
#[cfg(test)]
mod testing;

pub use flash::{Flash, FlashError, FlashOptions};
pub use pl011::Pl011;
pub use pl031::Pl031;
pub use pl061::Pl061;
pub use power_key::{GpioKey, PowerSwitch};
pub use secure::SecureOnly;
