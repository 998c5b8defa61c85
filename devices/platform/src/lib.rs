//! The board's fixed devices: the PrimeCell UART, clock and GPIO, and NOR flash.

mod line;
pub mod pl011;
mod primecell;
#[cfg(test)]
mod testing;

pub use pl011::Pl011;
