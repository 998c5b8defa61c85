//! A 256-byte EEPROM on the SMBus, and the serial presence detect data of a memory module in it (JEDEC 21-C, DDR2).

/// A read-only EEPROM.
#[derive(Clone)]
pub struct Eeprom {
    address: u8,
    data: Box<[u8; 256]>,
    pointer: u8,
}

impl Eeprom {
    /// An EEPROM at a 7-bit address.
    #[must_use]
    pub fn new(address: u8, data: [u8; 256]) -> Self {
        Self { address, data: Box::new(data), pointer: 0 }
    }
    /// A memory module in socket `n` (0–7), of a size from 128 MiB to 64 GiB, in ranks of powers of two.
    #[must_use]
    pub fn module(n: u8, bytes: u64) -> Self {
        let mut spd = [0u8; 256];
        let mib = (bytes >> 20).clamp(128, 64 << 10);
        // The density of a rank is one bit: 128 MiB is bit 5, doubling, 1 GiB is bit 0.
        let (mut rank, mut ranks) = (1u64 << mib.ilog2(), 1u64);
        while rank > 16 << 10 && ranks < 8 {
            rank /= 2;
            ranks *= 2;
        }
        let density = match rank {
            128 => 1 << 5,
            256 => 1 << 6,
            512 => 1 << 7,
            1024 => 1,
            2048 => 1 << 1,
            4096 => 1 << 2,
            8192 => 1 << 3,
            _ => 1 << 4,
        };
        let head: [u8; 36] = [
            128, // bytes written
            8,   // 2^8 bytes in all
            8,   // DDR2
            13,
            10,                       // row and column bits
            (ranks - 1) as u8 | 0x60, // ranks, 30 mm high
            64,
            0,
            5, // width, SSTL 1.8 V
            0x3d,
            0x50, // cycle and access time at the best CAS latency
            0,
            0x82, // no ECC; refresh 7.8 us, self
            8,
            0, // device width
            0,
            0x0c, // burst lengths 4 and 8
            4,
            0x38, // banks; CAS latencies 3–5
            0,
            2, // unbuffered DIMM
            0,
            1, // module and device attributes
            0x3d,
            0x50,
            0x50,
            0x60, // slower latencies
            0x3c,
            0x1e,
            0x3c,
            0x2d, // row timings
            density,
            0x20,
            0x27,
            0x10,
            0x17, // density, setup and hold
        ];
        spd[..36].copy_from_slice(&head);
        spd[62] = 0x12;
        spd[63] = spd[..63].iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
        Self::new(0x50 + (n & 7), spd)
    }
    pub(super) fn address(&self) -> u8 {
        self.address
    }
    pub(super) fn pointer(&self) -> u8 {
        self.pointer
    }
    pub(super) fn set_pointer(&mut self, pointer: u8) {
        self.pointer = pointer;
    }
    /// The byte at the pointer, which moves on.
    pub(super) fn read(&mut self) -> u8 {
        let byte = self.data[usize::from(self.pointer)];
        self.pointer = self.pointer.wrapping_add(1);
        byte
    }
    /// Modules are write-protected: the byte is lost.
    pub(super) fn write(&mut self, _byte: u8) {
        self.pointer = self.pointer.wrapping_add(1);
    }
}
