//! Bare-metal programs under each engine: interrupts, translation, time. What handlers say by hypervisor calls is compared.

mod asm;
mod board;
mod facilities;
mod hash;
mod interrupts;
mod radix;

const MSR: u64 = 0x8000_0000_0000_1000;
const EE: u64 = 0x8000;
