//! Declared register maps: offsets, widths and access rules are data; device code matches an enum.

use rhea_memory::BusError;

/// What accesses a register allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterRules {
    ReadWrite,
    ReadOnly,
    WriteOnly,
}

/// One register, or an array of `count` registers `stride` bytes apart.
#[derive(Clone, Copy, Debug)]
pub struct RegisterDecl<R: Copy + 'static> {
    pub offset: u64,
    /// Width in bytes: 1, 2, 4 or 8.
    pub width: u8,
    pub rules: RegisterRules,
    pub id: R,
    pub count: u32,
    pub stride: u32,
}

impl<R: Copy> RegisterDecl<R> {
    #[must_use]
    pub const fn new(offset: u64, width: u8, rules: RegisterRules, id: R) -> Self {
        Self { offset, width, rules, id, count: 1, stride: width as u32 }
    }
    #[must_use]
    pub const fn array(offset: u64, width: u8, rules: RegisterRules, id: R, count: u32) -> Self {
        Self { offset, width, rules, id, count, stride: width as u32 }
    }
}

/// A register an access touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterHit<R> {
    pub id: R,
    /// Index in an array declaration.
    pub index: u32,
}

/// The map: sorted declarations. Accesses narrower than a register read or modify part of it, wider ones touch several
/// registers in rising order, bytes between registers read as zero and ignore writes.
pub struct RegisterMap<R: Copy + 'static> {
    decls: &'static [RegisterDecl<R>],
}

impl<R: Copy + 'static> RegisterMap<R> {
    /// `decls` must be sorted by offset and not overlap (checked by [`Self::check`] in the device's tests).
    #[must_use]
    pub const fn new(decls: &'static [RegisterDecl<R>]) -> Self {
        Self { decls }
    }
    /// Is the declaration list sorted, non-overlapping, and of legal widths?
    #[must_use]
    pub fn check(&self) -> bool {
        let mut end = 0;
        self.decls.iter().all(|d| {
            let good =
                d.offset >= end && matches!(d.width, 1 | 2 | 4 | 8) && d.count > 0 && d.stride >= u32::from(d.width);
            end = d.offset + u64::from(d.count - 1) * u64::from(d.stride) + u64::from(d.width);
            good
        })
    }

    fn find(&self, at: u64) -> Option<(&RegisterDecl<R>, u32, u64)> {
        let i = self.decls.partition_point(|d| d.offset <= at).checked_sub(1)?;
        let d = &self.decls[i];
        let index = (at - d.offset) / u64::from(d.stride);
        let start = d.offset + index * u64::from(d.stride);
        (index < u64::from(d.count) && at - start < u64::from(d.width)).then_some((d, index as u32, start))
    }

    /// Reads `size` bytes at `offset`: calls `read` for each register touched (in rising order) and assembles the value.
    /// Write-only registers and holes read as zero; `missed` is called for each with its offset.
    ///
    /// # Errors
    /// What `read` returns.
    pub fn read(
        &self,
        offset: u64,
        size: u8,
        mut read: impl FnMut(RegisterHit<R>) -> Result<u64, BusError>,
        mut missed: impl FnMut(u64),
    ) -> Result<u64, BusError> {
        let (mut value, mut at) = (0u64, offset);
        let end = offset.wrapping_add(u64::from(size.min(8)));
        while at < end {
            let Some((d, index, start)) = self.find(at) else {
                missed(at);
                at = self.next_after(at).min(end);
                continue;
            };
            if d.rules == RegisterRules::WriteOnly {
                missed(at);
            } else {
                let word = read(RegisterHit { id: d.id, index })?;
                let part = word & ones(d.width);
                let (skip, place) = ((at - start) * 8, (at - offset) * 8);
                value |= (part >> skip) << place;
            }
            at = (start + u64::from(d.width)).min(end);
        }
        Ok(value & ones(size))
    }

    /// Writes `size` bytes at `offset`: calls `write` for each register touched with the value and a mask of the bits written
    /// (all ones over the register's width when it is written whole). Read-only registers and holes go to `missed`.
    ///
    /// # Errors
    /// What `write` returns.
    pub fn write(
        &self,
        offset: u64,
        size: u8,
        value: u64,
        mut write: impl FnMut(RegisterHit<R>, u64, u64) -> Result<(), BusError>,
        mut missed: impl FnMut(u64),
    ) -> Result<(), BusError> {
        let mut at = offset;
        let end = offset.wrapping_add(u64::from(size.min(8)));
        while at < end {
            let Some((d, index, start)) = self.find(at) else {
                missed(at);
                at = self.next_after(at).min(end);
                continue;
            };
            let stop = (start + u64::from(d.width)).min(end);
            if d.rules == RegisterRules::ReadOnly {
                missed(at);
            } else {
                let bytes = (stop - at) as u8;
                let skip = (at - start) * 8;
                let part = (value >> ((at - offset) * 8)) & ones(bytes);
                write(RegisterHit { id: d.id, index }, part << skip, ones(bytes) << skip)?;
            }
            at = stop;
        }
        Ok(())
    }

    fn next_after(&self, at: u64) -> u64 {
        // Within an array with gaps the next element may be nearer than the next declaration; one byte at a time is right, and
        // accesses are at most 8 bytes.
        at + 1
    }
}

/// The low `bytes` bytes all ones.
const fn ones(bytes: u8) -> u64 {
    if bytes >= 8 { u64::MAX } else { (1 << (bytes as u32 * 8)) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RegisterRules::{ReadOnly, ReadWrite};

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum R {
        A,
        B,
        C,
    }
    const MAP: RegisterMap<R> = RegisterMap::new(&[
        RegisterDecl::new(0, 4, ReadWrite, R::A),
        RegisterDecl::new(4, 4, ReadOnly, R::B),
        RegisterDecl::array(0x10, 2, ReadWrite, R::C, 4),
    ]);

    #[test]
    fn odd_accesses() {
        assert!(MAP.check());
        let read = |h: RegisterHit<R>| {
            Ok(match h.id {
                R::A => 0x1122_3344,
                R::B => 0x5566_7788,
                R::C => 0x1000 + u64::from(h.index),
            })
        };
        assert_eq!(MAP.read(0, 8, read, |_| ()), Ok(0x5566_7788_1122_3344));
        assert_eq!(MAP.read(1, 2, read, |_| ()), Ok(0x2233));
        assert_eq!(MAP.read(0x12, 4, read, |_| ()), Ok(0x1002_1001));
        let mut holes = 0;
        assert_eq!(MAP.read(8, 4, read, |_| holes += 1), Ok(0));
        assert_eq!(holes, 4);
        let mut seen = vec![];
        let mut missed = vec![];
        MAP.write(
            2,
            4,
            0xaabb_ccdd,
            |h, v, m| {
                seen.push((h.id, v, m));
                Ok(())
            },
            |o| missed.push(o),
        )
        .unwrap();
        assert_eq!(seen, [(R::A, 0xccdd_0000, 0xffff_0000)]);
        assert_eq!(missed, [4]);
        assert_eq!(MAP.read(u64::MAX - 1, 8, read, |_| ()), Ok(0));
    }
}
