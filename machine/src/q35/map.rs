//! The memory and port map of `q35`.

pub use crate::board::Window;

const fn window(start: u64, len: u64) -> Window {
    Window { start, len }
}

pub const MIB: u64 = 1 << 20;
/// Conventional memory ends here; video memory and ROMs follow.
pub const VIDEO: u64 = 0xa_0000;
pub const FOUR_GIB: u64 = 4 << 30;
pub const IO_APIC: Window = window(0xfec0_0000, 0x1000);
pub const HPET: Window = window(0xfed0_0000, 0x400);
pub const LOCAL_APIC: Window = window(0xfee0_0000, 0x10_0000);
/// The most that flash or ROM below 4 GiB may take.
pub const ROM_LIMIT: u64 = 16 * MIB;
/// Its last part is shown below 1 MiB too.
pub const ROM_ALIAS: u64 = 0x2_0000;
/// Address space that anything can be mapped in: 52 bits.
pub const ADDRESS_SPACE: u64 = 1 << 52;
pub const PORTS: u64 = 0x1_0000;

pub const PIC_MASTER: Window = window(0x20, 2);
pub const PIC_SLAVE: Window = window(0xa0, 2);
pub const ELCR: Window = window(0x4d0, 2);
pub const PIT: Window = window(0x40, 4);
pub const KEYBOARD_DATA: Window = window(0x60, 1);
pub const SYSTEM_CONTROL_B: Window = window(0x61, 1);
pub const KEYBOARD_COMMAND: Window = window(0x64, 1);
pub const RTC: Window = window(0x70, 4);
pub const DMA_SECONDARY: Window = window(0x00, 16);
pub const DMA_PAGES: Window = window(0x80, 16);
pub const DMA_PRIMARY: Window = window(0xc0, 32);
pub const PORT_92: Window = window(0x92, 1);
pub const FERR: Window = window(0xf0, 1);
pub const PVPANIC: u16 = 0x505;

pub const IRQ_PIT: u32 = 0;
pub const IRQ_KEYBOARD: u32 = 1;
pub const IRQ_RTC: u32 = 8;
pub const IRQ_MOUSE: u32 = 12;
pub const IRQ_FERR: u32 = 13;
/// Global system interrupts: inputs of the I/O APIC.
pub const GSIS: u32 = 24;
