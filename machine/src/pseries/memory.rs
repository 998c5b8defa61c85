//! What hypercalls and RTAS do to the guest's memory: only RAM, always inside it, big-endian as PAPR's structures are.

use arc_swap::ArcSwap;
use rhea_memory::RamBlock;
use std::sync::Arc;

/// Blocks behind the first one: address and memory.
type Added = Vec<(u64, Arc<RamBlock>)>;

/// The RAM of the partition: a block at address 0, and what was plugged behind it.
#[derive(Clone)]
pub struct GuestRam {
    block: Arc<RamBlock>,
    added: Arc<ArcSwap<Added>>,
}

/// An address or length outside RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outside;

impl GuestRam {
    #[must_use]
    pub fn new(block: &Arc<RamBlock>) -> Self {
        Self { block: block.clone(), added: Arc::default() }
    }
    /// Bytes of the RAM that is always there.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.block.len()
    }
    /// A block at `address`, behind all the RAM that is always there and beside other blocks.
    pub fn add(&self, address: u64, block: &Arc<RamBlock>) {
        self.added.rcu(|old| {
            let mut new = Added::clone(old);
            new.push((address, block.clone()));
            new.sort_by_key(|b| b.0);
            new
        });
    }
    /// Takes it away.
    pub fn remove(&self, address: u64) {
        self.added.rcu(|old| old.iter().filter(|b| b.0 != address).cloned().collect::<Added>());
    }
    /// Addresses and lengths of the blocks behind the first one, in order.
    #[must_use]
    pub fn added(&self) -> Vec<(u64, u64)> {
        self.added.load().iter().map(|(at, block)| (*at, block.len())).collect()
    }
    /// The blocks behind the first one.
    #[must_use]
    pub fn blocks(&self) -> Vec<Arc<RamBlock>> {
        self.added.load().iter().map(|(_, block)| block.clone()).collect()
    }
    /// Are all `len` bytes at `address` RAM?
    #[must_use]
    pub fn has(&self, address: u64, len: u64) -> bool {
        let Some(end) = address.checked_add(len) else { return false };
        if end <= self.len() {
            return true;
        }
        let added = self.added.load();
        let mut at = address;
        while at < end {
            // The end of the block that has it; blocks that touch are one range.
            let block = added.iter().find(|(start, b)| at >= *start && at - start < b.len());
            at = match block {
                _ if at < self.len() => self.len(),
                Some((start, b)) => start + b.len(),
                None => return false,
            };
        }
        len != 0
    }
    /// Calls `f` for each piece of a range with its block, the offset in it, and where in the range it is.
    fn pieces(
        &self,
        address: u64,
        len: u64,
        mut f: impl FnMut(&RamBlock, u64, std::ops::Range<u64>) -> Result<(), Outside>,
    ) -> Result<(), Outside> {
        if !self.has(address, len) {
            return Err(Outside);
        }
        if address + len <= self.block.len() {
            return f(&self.block, address, 0..len);
        }
        let added = self.added.load();
        let blocks = std::iter::once((0, &self.block)).chain(added.iter().map(|(at, b)| (*at, b)));
        for (start, block) in blocks {
            let (from, to) = (address.max(start), (address + len).min(start + block.len()));
            if from < to {
                f(block, from - start, from - address..to - address)?;
            }
        }
        Ok(())
    }
    /// # Errors
    /// [`Outside`].
    pub fn read(&self, address: u64, data: &mut [u8]) -> Result<(), Outside> {
        self.pieces(address, data.len() as u64, |block, at, part| {
            block.read(at, &mut data[part.start as usize..part.end as usize]).map_err(|_| Outside)
        })
    }
    /// # Errors
    /// [`Outside`]; nothing is written then.
    pub fn write(&self, address: u64, data: &[u8]) -> Result<(), Outside> {
        self.pieces(address, data.len() as u64, |block, at, part| {
            block.write(at, &data[part.start as usize..part.end as usize]).map_err(|_| Outside)
        })
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
        self.pieces(address, len, |block, at, part| block.fill(at, part.end - part.start, byte).map_err(|_| Outside))
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
    fn blocks_come_and_go() {
        let ram = GuestRam::new(&RamBlock::anonymous("ram", 0x1_0000).unwrap());
        let (a, b) = (RamBlock::anonymous("a", 0x1000).unwrap(), RamBlock::anonymous("b", 0x1000).unwrap());
        ram.add(0x1_2000, &b);
        assert!(
            ram.has(0x1_2000, 0x1000) && !ram.has(0x1_0fff, 2) && !ram.has(0x1_2fff, 2) && !ram.has(0x1_1000, 0x1000)
        );
        ram.add(0x1_1000, &a);
        // Over the border of two blocks.
        ram.set_u64(0x1_1ffc, 0x0102_0304_0506_0708).unwrap();
        assert_eq!((ram.u64(0x1_1ffc), ram.u32(0x1_2000)), (Ok(0x0102_0304_0506_0708), Ok(0x0506_0708)));
        assert_eq!(ram.u64(0x1_0ffc), Err(Outside));
        let c = RamBlock::anonymous("c", 0x1000).unwrap();
        ram.add(0x1_0000, &c);
        ram.fill(0xfff0, 0x3000, 7).unwrap();
        assert_eq!((ram.u32(0xfffe), ram.u32(0x1_1ffe)), (Ok(0x0707_0707), Ok(0x0707_0707)));
        ram.remove(0x1_1000);
        assert_eq!(ram.added(), [(0x1_0000, 0x1000), (0x1_2000, 0x1000)]);
        assert_eq!((ram.u32(0x1_1ffe), ram.u32(0x1_1ffc)), (Err(Outside), Err(Outside)));
        assert!(!ram.has(0x1_0000, 0x1001) && !ram.has(u64::MAX, 1) && !ram.has(0x1_2000, u64::MAX));
    }

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
