//! Client-architecture support: what the guest says about itself (LoPAPR B.6.2.3, B.6.2.4) and what comes of it.

use super::memory::GuestRam;
use super::options::{Compat, IcMode};
use rhea_irqchip::spapr::papr::Status;

/// Bytes of an option vector that are looked at; longer ones are cut.
const VECTOR_BYTES: usize = 256;

/// An option vector: options are numbered by byte (from 1) and bit (from 0, the most significant).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct OptionVector(Vec<u8>);

impl OptionVector {
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
    /// The bytes, without the length.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
    /// Byte `n`, counted from 1; 0 beyond the vector.
    #[must_use]
    pub fn byte(&self, n: usize) -> u8 {
        n.checked_sub(1).and_then(|i| self.0.get(i)).copied().unwrap_or(0)
    }
    #[must_use]
    pub fn has(&self, byte: usize, bit: u32) -> bool {
        self.byte(byte) >> (7 - bit & 7) & 1 != 0
    }
    pub fn set_byte(&mut self, n: usize, value: u8) {
        let Some(i) = n.checked_sub(1) else { return };
        if self.0.len() <= i {
            self.0.resize(i + 1, 0);
        }
        self.0[i] = value;
    }
    pub fn set(&mut self, byte: usize, bit: u32) {
        let value = self.byte(byte) | 0x80 >> (bit & 7);
        self.set_byte(byte, value);
    }
    /// The bytes with the length (minus one) in front, as in memory and in `ibm,architecture-vec-5`.
    #[must_use]
    pub fn encode(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![len.saturating_sub(1) as u8];
        bytes.extend((1..=len).map(|n| self.byte(n)));
        bytes
    }
}

/// Fields of option vector 5 (LoPAPR table B.33).
pub mod ov5 {
    /// Dynamic reconfiguration of memory in one node.
    pub const DRCONF_MEMORY: (usize, u32) = (2, 2);
    pub const FORM1_AFFINITY: (usize, u32) = (5, 0);
    pub const HP_EVENT: (usize, u32) = (6, 5);
    pub const HPT_RESIZE: (usize, u32) = (6, 7);
    pub const DRMEM_V2: (usize, u32) = (22, 0);
    /// Interrupt controller.
    pub const XIVE: usize = 23;
    pub const XIVE_EXPLOITATION: u8 = 0x40;
    pub const XIVE_EITHER: u8 = 0x80;
    /// MMU.
    pub const MMU: usize = 24;
    pub const MMU_RADIX: u8 = 0x40;
    pub const MMU_EITHER: u8 = 0x80;
    pub const HASH: usize = 25;
    pub const RADIX: usize = 26;
    pub const GTSE: u8 = 0x40;
    /// Bytes of the vector.
    pub const LEN: usize = 26;
}

/// What the guest handed over.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ClientVectors {
    /// Mask and value of processor versions, in the guest's order of preference.
    pub pvrs: Vec<(u32, u32)>,
    /// Option vectors 1 to 8; empty if absent.
    pub vectors: [OptionVector; 8],
}

impl ClientVectors {
    /// Reads the structure at `address`.
    ///
    /// # Errors
    /// H_PARAMETER: it does not lie in RAM, or has no end.
    pub fn read(ram: &GuestRam, address: u64) -> Result<Self, Status> {
        const MOST_PVRS: usize = 512;
        let fail = |_| Status::PARAMETER;
        let mut at = address;
        let mut take = |n: u64| {
            let here = at;
            at = at.checked_add(n).ok_or(Status::PARAMETER)?;
            Ok::<u64, Status>(here)
        };
        let mut client = Self::default();
        loop {
            let here = take(8)?;
            let (mask, value) = (ram.u32(here).map_err(fail)?, ram.u32(here.wrapping_add(4)).map_err(fail)?);
            client.pvrs.push((mask, value));
            if mask == 0 || !mask & value != 0 {
                // The last one: all bits of the value but the mask's are zero in the others.
                break;
            }
            if client.pvrs.len() >= MOST_PVRS {
                return Err(Status::PARAMETER);
            }
        }
        // One less than the number of vectors; each one less than its length.
        let mut byte = [0];
        ram.read(take(1)?, &mut byte).map_err(fail)?;
        let count = usize::from(byte[0]) + 1;
        for n in 0..count {
            ram.read(take(1)?, &mut byte).map_err(fail)?;
            let len = u64::from(byte[0]) + 1;
            let bytes = ram.bytes(take(len)?, len).map_err(fail)?;
            if let Some(v) = client.vectors.get_mut(n) {
                *v = OptionVector(bytes[..bytes.len().min(VECTOR_BYTES)].to_vec());
            }
        }
        Ok(client)
    }
    #[must_use]
    pub fn vector(&self, n: usize) -> &OptionVector {
        &self.vectors[n.clamp(1, 8) - 1]
    }
}

/// What the platform can do.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    pub ic_mode: IcMode,
    /// The processor knows radix translation.
    pub radix: bool,
    /// There can be hashed page tables.
    pub hash: bool,
    /// The kernel carries out some of the hypercalls (KVM).
    pub kernel: bool,
    /// PVR of the processors.
    pub pvr: u32,
    /// The levels they can be put into: up to this.
    pub newest: Compat,
    pub max_compat: Option<Compat>,
    pub hpt_resize: bool,
    pub hotplug_events: bool,
    pub drmem: bool,
}

/// The outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The level the processors are in; `None`: as they are.
    pub compat: Option<Compat>,
    pub xive: bool,
    pub radix: bool,
    pub gtse: bool,
    /// What `ibm,architecture-vec-5` says.
    pub vec5: OptionVector,
}

impl Offer {
    /// The outcome before any negotiation, and after each reset.
    #[must_use]
    pub fn initial(&self) -> Outcome {
        Outcome {
            compat: self.max_compat.filter(|c| *c < self.newest),
            xive: self.ic_mode == IcMode::Xive,
            radix: false,
            gtse: false,
            vec5: self.vec5(self.ic_mode == IcMode::Xive, false, false),
        }
    }
    fn vec5(&self, xive: bool, radix: bool, gtse: bool) -> OptionVector {
        let mut v = OptionVector::default();
        if self.drmem {
            v.set(ov5::DRCONF_MEMORY.0, ov5::DRCONF_MEMORY.1);
            v.set(ov5::DRMEM_V2.0, ov5::DRMEM_V2.1);
        }
        v.set(ov5::FORM1_AFFINITY.0, ov5::FORM1_AFFINITY.1);
        if self.hotplug_events {
            v.set(ov5::HP_EVENT.0, ov5::HP_EVENT.1);
        }
        if self.hpt_resize {
            v.set(ov5::HPT_RESIZE.0, ov5::HPT_RESIZE.1);
        }
        if xive {
            v.set_byte(ov5::XIVE, ov5::XIVE_EXPLOITATION);
        }
        if radix {
            v.set_byte(ov5::MMU, ov5::MMU_RADIX);
        }
        if gtse {
            v.set_byte(ov5::RADIX, ov5::GTSE);
        }
        v
    }
    /// `ibm,arch-vec-5-platform-support`: pairs of byte number and value.
    #[must_use]
    pub fn platform_support(&self) -> Vec<u8> {
        let xive = match self.ic_mode {
            IcMode::Xics => 0,
            IcMode::Xive => ov5::XIVE_EXPLOITATION,
            IcMode::Dual => ov5::XIVE_EITHER,
        };
        let (mmu, options) = match (self.radix, self.hash) {
            (true, true) => (ov5::MMU_EITHER, ov5::GTSE),
            (true, false) => (ov5::MMU_RADIX, ov5::GTSE),
            (false, _) => (0, 0),
        };
        vec![ov5::XIVE as u8, xive, ov5::MMU as u8, mmu, ov5::HASH as u8, 0, ov5::RADIX as u8, options]
    }

    /// Finds what both can do.
    ///
    /// # Errors
    /// H_HARDWARE: the guest runs on no processor that this one can be; H_PARAMETER: it insists on what is not there.
    pub fn negotiate(&self, client: &ClientVectors) -> Result<Outcome, Status> {
        let mut raw = false;
        let mut best: Option<Compat> = None;
        for (mask, value) in &client.pvrs {
            if self.pvr & mask == value & mask && *mask != 0 && value >> 24 != 0x0f {
                raw = true;
            }
            if let Some(level) = Compat::of_logical_pvr(*value)
                && level <= self.newest
                && self.max_compat.is_none_or(|m| level <= m)
            {
                best = best.max(Some(level));
            }
        }
        // A level is preferred to the processor as it is: it stays the same on a newer one.
        let compat = match (best, raw && self.max_compat.is_none()) {
            (Some(level), _) => Some(level),
            (None, true) => None,
            (None, false) => return Err(Status::HARDWARE),
        };
        let v5 = client.vector(5);
        // 00 hash or legacy, 01 radix or exploitation, 10 whatever the platform likes best.
        let xive_byte = v5.byte(ov5::XIVE) & 0xc0;
        let xive = match (xive_byte, self.ic_mode) {
            (ov5::XIVE_EXPLOITATION, IcMode::Xics) | (0, IcMode::Xive) => return Err(Status::PARAMETER),
            (ov5::XIVE_EXPLOITATION, _) => true,
            (0, _) => false,
            (_, mode) => mode != IcMode::Xics,
        };
        let level_radix = compat.is_none_or(|c| c >= Compat::Power9);
        let radix = match v5.byte(ov5::MMU) & 0xc0 {
            ov5::MMU_RADIX if !self.radix || !level_radix => return Err(Status::PARAMETER),
            ov5::MMU_RADIX => true,
            0 if !self.hash => return Err(Status::PARAMETER),
            0 => false,
            _ => self.radix && level_radix,
        };
        let gtse = radix && v5.byte(ov5::RADIX) & ov5::GTSE != 0;
        let mut vec5 = self.vec5(xive, radix, gtse);
        // What the guest does not know is not switched on.
        for n in 1..ov5::XIVE {
            vec5.set_byte(n, vec5.byte(n) & v5.byte(n));
        }
        Ok(Outcome { compat, xive, radix, gtse, vec5 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhea_memory::RamBlock;

    const OFFER: Offer = Offer {
        ic_mode: IcMode::Dual,
        radix: true,
        hash: true,
        kernel: false,
        pvr: 0x0080_0200,
        newest: Compat::Power10,
        max_compat: None,
        hpt_resize: true,
        hotplug_events: true,
        drmem: false,
    };

    fn client(pvrs: &[(u32, u32)], bytes: &[(usize, u8)]) -> ClientVectors {
        let mut client = ClientVectors { pvrs: pvrs.to_vec(), ..ClientVectors::default() };
        for (n, value) in bytes {
            client.vectors[4].set_byte(*n, *value);
        }
        client
    }

    #[test]
    fn vectors_are_read() {
        let ram = GuestRam::new(&RamBlock::anonymous("ram", 0x1_0000).unwrap());
        let mut data = Vec::new();
        for word in [0xffff_0000u32, 0x0080_0000, 0xffff_ffff, 0x0f00_0006, 0xffff_fffe, 0x0f00_0001] {
            data.extend(word.to_be_bytes());
        }
        data.extend([4, 0, 1, 0, 2, 0, 3, 0, 4, 25]);
        let mut v5 = [0u8; 26];
        v5[22] = 0x80;
        data.extend(v5);
        ram.write(0x100, &data).unwrap();
        let read = ClientVectors::read(&ram, 0x100).unwrap();
        assert_eq!(read.pvrs.len(), 3);
        assert_eq!(read.vector(1).byte(1), 1);
        assert_eq!(read.vector(5).byte(23), 0x80);
        assert_eq!(read.vector(8).byte(1), 0);
        // At the end of RAM.
        ram.write(0x1_0000 - data.len() as u64 + 3, &data[..data.len() - 3]).unwrap();
        assert_eq!(ClientVectors::read(&ram, 0x1_0000 - data.len() as u64 + 3), Err(Status::PARAMETER));
        for bad in [0xffff, u64::MAX, u64::MAX - 7, 1 << 40] {
            assert_eq!(ClientVectors::read(&ram, bad), Err(Status::PARAMETER));
        }
        // Processor versions without end.
        ram.fill(0, 0x1_0000, 0xff).unwrap();
        assert_eq!(ClientVectors::read(&ram, 0), Err(Status::PARAMETER));
    }

    #[test]
    fn negotiation() {
        let linux = [(0xffff_0000, 0x0080_0000), (0xffff_ffff, 0x0f00_0006), (0xffff_ffff, 0x0f00_0005)];
        let out = OFFER.negotiate(&client(&linux, &[(23, 0x40), (24, 0x40), (26, 0x40), (5, 0x80)])).unwrap();
        assert_eq!((out.compat, out.xive, out.radix, out.gtse), (Some(Compat::Power10), true, true, true));
        assert_eq!(out.vec5.byte(24), 0x40);
        assert!(out.vec5.has(5, 0) && !out.vec5.has(6, 7));
        let out = OFFER.negotiate(&client(&linux, &[])).unwrap();
        assert_eq!((out.xive, out.radix), (false, false));
        let out = OFFER.negotiate(&client(&linux, &[(23, 0x80), (24, 0x80)])).unwrap();
        assert_eq!((out.xive, out.radix, out.gtse), (true, true, false));
        let power8 = Offer { max_compat: Some(Compat::Power8), ..OFFER };
        assert_eq!(power8.negotiate(&client(&linux, &[])), Err(Status::HARDWARE));
        assert_eq!(power8.initial().compat, Some(Compat::Power8));
        let out = power8.negotiate(&client(&[(0xffff_ffff, 0x0f00_0004)], &[(24, 0x80)])).unwrap();
        assert_eq!((out.compat, out.radix), (Some(Compat::Power8), false));
        assert_eq!(OFFER.negotiate(&client(&[(0xffff_0000, 0x0080_0000)], &[])).unwrap().compat, None);
        assert_eq!(OFFER.negotiate(&client(&[(0xffff_0000, 0x004b_0000)], &[])), Err(Status::HARDWARE));
        let xics = Offer { ic_mode: IcMode::Xics, radix: false, ..OFFER };
        assert_eq!(xics.negotiate(&client(&linux, &[(23, 0x40)])), Err(Status::PARAMETER));
        assert_eq!(xics.negotiate(&client(&linux, &[(24, 0x40)])), Err(Status::PARAMETER));
        let radix = Offer { hash: false, ..OFFER };
        assert_eq!(radix.negotiate(&client(&linux, &[])), Err(Status::PARAMETER));
        assert_eq!(radix.platform_support()[3], 0x40);
        assert_eq!(OFFER.platform_support(), [23, 0x80, 24, 0x80, 25, 0, 26, 0x40]);
    }

    #[test]
    fn vectors_of_noise() {
        let ram = GuestRam::new(&RamBlock::anonymous("ram", 0x1000).unwrap());
        let mut seed = 0x1234_5678u64;
        for _ in 0..2000 {
            let bytes: Vec<u8> = (0..0x1000)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (seed >> 56) as u8
                })
                .collect();
            ram.write(0, &bytes).unwrap();
            if let Ok(read) = ClientVectors::read(&ram, seed >> 52) {
                let _ = OFFER.negotiate(&read);
            }
        }
    }
}
