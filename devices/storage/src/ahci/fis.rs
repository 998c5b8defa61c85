//! Frames from device to host (Serial ATA 3.x, 10.5), and where they are received (AHCI 4.2.1).

use crate::ata::Registers;

/// Offsets in the received-FIS area.
pub const DMA_SETUP_AT: u64 = 0x00;
pub const PIO_SETUP_AT: u64 = 0x20;
pub const REGISTER_AT: u64 = 0x40;
pub const SET_BITS_AT: u64 = 0x58;
pub const HOST_TO_DEVICE: u8 = 0x27;
const INTERRUPT: u8 = 1 << 6;
const TO_HOST: u8 = 1 << 5;

fn fields(kind: u8, flags: u8, r: &Registers) -> [u8; 20] {
    let lba = r.lba.to_le_bytes();
    let count = r.count.to_le_bytes();
    let mut f = [0; 20];
    f[0] = kind;
    f[1] = flags;
    f[2] = r.status;
    f[3] = r.error;
    f[4..7].copy_from_slice(&lba[..3]);
    f[7] = r.device;
    f[8..11].copy_from_slice(&lba[3..6]);
    f[12..14].copy_from_slice(&count);
    f
}

/// Register – Device to Host.
pub fn register(r: &Registers, interrupt: bool) -> [u8; 20] {
    fields(0x34, if interrupt { INTERRUPT } else { 0 }, r)
}

/// PIO Setup for a block of `count` bytes; `status` at its beginning, `end_status` after it.
pub fn pio_setup(r: &Registers, status: u8, end_status: u8, count: u16, to_host: bool, interrupt: bool) -> [u8; 20] {
    let flags = if to_host { TO_HOST } else { 0 } | if interrupt { INTERRUPT } else { 0 };
    let mut f = fields(0x5f, flags, &Registers { status, error: 0, ..*r });
    f[15] = end_status;
    f[16..18].copy_from_slice(&count.to_le_bytes());
    f
}

/// DMA Setup of queued command `tag`.
pub fn dma_setup(tag: u8, bytes: u64, to_host: bool) -> [u8; 28] {
    let mut f = [0; 28];
    f[0] = 0x41;
    f[1] = if to_host { TO_HOST } else { 0 };
    f[4] = tag;
    f[20..24].copy_from_slice(&(bytes as u32).to_le_bytes());
    f
}

/// Set Device Bits with an interrupt.
pub fn set_bits(status: u8, error: u8, active: u32) -> [u8; 8] {
    let a = active.to_le_bytes();
    [0xa1, INTERRUPT, status & 0x77, error, a[0], a[1], a[2], a[3]]
}
