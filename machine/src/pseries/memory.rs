//! What hypercalls and RTAS do to the guest's memory: only RAM, always inside it, big-endian as PAPR's structures are.

use rhea_memory::RamBlock;
use std::sync::Arc;

/// The RAM of the partition, which begins at address 0.
#[derive(Clone)]
pub struct GuestRam {
    block: Arc<RamBlock>,
}

/// An address or length outside RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outside;

impl GuestRam {
    #[must_use]
    pub fn new(block: &Arc<RamBlock>) -> Self {
        Self { block: block.clone() }
    }
    /// Bytes of RAM.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.block.len()
    }
    /// Are all `len` bytes at `address` RAM?
    #[must_use]
    pub fn has(&self, address: u64, len: u64) -> bool {
        address.checked_add(len).is_some_and(|end| end <= self.len())
    }
    /// # Errors
    /// [`Outside`].
    pub fn read(&self, address: u64, data: &mut [u8]) -> Result<(), Outside> {
        if !self.has(address, data.len() as u64) {
            return Err(Outside);
        }
        self.block.read(address, data).map_err(|_| Outside)
    }
    /// # Errors
    /// [`Outside`]; nothing is written then.
    pub fn write(&self, address: u64, data: &[u8]) -> Result<(), Outside> {
        if !self.has(address, data.len() as u64) {
            return Err(Outside);
        }
        self.block.write(address, data).map_err(|_| Outside)
    }
    /// A copy of `len` bytes, at most 16 MiB.
    ///
    /// # Errors
    /// [`Outside`], also for a length that is too large.
    pub fn bytes(&self, address: u64, len: u64) -> Result<Vec<u8>, Outside> {
        if len > 16 << 20 || !self.has(address, len) {
            return Err(Outside);
        }
        let mut data = vec![0; len as usize];
        self.read(address, &mut data)?;
        Ok(data)
    }
    /// # Errors
    /// [`Outside`].
    pub fn fill(&self, address: u64, len: u64, byte: u8) -> Result<(), Outside> {
        if !self.has(address, len) {
            return Err(Outside);
        }
        self.block.fill(address, len, byte).map_err(|_| Outside)
    }
    /// # Errors
    /// [`Outside`].
    pub fn u32(&self, address: u64) -> Result<u32, Outside> {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }
    /// # Errors
    /// [`Outside`].
    pub fn u64(&self, address: u64) -> Result<u64, Outside> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_be_bytes(bytes))
    }
    /// # Errors
    /// [`Outside`].
    pub fn set_u32(&self, address: u64, value: u32) -> Result<(), Outside> {
        self.write(address, &value.to_be_bytes())
    }
    /// # Errors
    /// [`Outside`].
    pub fn set_u64(&self, address: u64, value: u64) -> Result<(), Outside> {
        self.write(address, &value.to_be_bytes())
    }
    /// Text up to its NUL, at most `max` bytes.
    ///
    /// # Errors
    /// [`Outside`], also for text that does not end or is not UTF-8.
    pub fn text(&self, address: u64, max: u64) -> Result<String, Outside> {
        let len = max.min(self.len().saturating_sub(address));
        let bytes = self.bytes(address, len)?;
        let end = bytes.iter().position(|b| *b == 0).ok_or(Outside)?;
        String::from_utf8(bytes[..end].to_vec()).map_err(|_| Outside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        let ram = GuestRam::new(&RamBlock::anonymous("ram", 0x1_0000).unwrap());
        ram.set_u64(0xfff8, 0x0102_0304_0506_0708).unwrap();
        assert_eq!(ram.u32(0xfffc), Ok(0x0506_0708));
        for bad in [0xfffd, 0x1_0000, u64::MAX - 1, 1 << 63] {
            assert_eq!(ram.u32(bad), Err(Outside));
            assert_eq!(ram.set_u64(bad, 1), Err(Outside));
            assert_eq!(ram.fill(bad, u64::MAX, 1), Err(Outside));
            assert_eq!(ram.bytes(bad, 1 << 40), Err(Outside));
        }
        ram.write(0xfff0, b"abc\0").unwrap();
        assert_eq!(ram.text(0xfff0, 100).as_deref(), Ok("abc"));
        ram.fill(0xff00, 0x100, b'x').unwrap();
        assert_eq!(ram.text(0xff00, 0x1000), Err(Outside));
        assert_eq!(ram.text(0x2_0000, 0x1000), Err(Outside));
    }
}
