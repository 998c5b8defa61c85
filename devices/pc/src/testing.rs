//! What the tests of this crate share.

use rhea_memory::{Access, MmioDevice};

/// Random numbers of a controlled seed: xorshift64*.
pub(crate) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Byte accesses.
pub(crate) trait Ports: MmioDevice {
    fn inb(&self, port: u64) -> u8 {
        self.read(port, Access::cpu(0, 1)).unwrap() as u8
    }
    fn outb(&self, port: u64, value: u8) {
        self.write(port, value.into(), Access::cpu(0, 1)).unwrap();
    }
}

impl<D: MmioDevice + ?Sized> Ports for D {}

/// One access of any size and kind to a window of `len` bytes.
pub(crate) fn poke(device: &dyn MmioDevice, len: u64, random: &mut Random) {
    let x = random.next();
    let size = 1u8 << (x >> 60 & 3);
    let offset = (x & 0xffff) % len;
    if x >> 40 & 1 == 0 {
        let _ = device.read(offset, Access::cpu(0, size));
    } else {
        let _ = device.write(offset, random.next(), Access::cpu(0, size));
    }
}
