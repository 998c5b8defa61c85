//! The packed ring (virtio 1.2, 2.8).

use super::split::crossed;
use super::{Chain, Collector, DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Descriptor, Queue, QueueError, Rings};
use std::sync::atomic::{Ordering, fence};

const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;
const EVENT_ENABLE: u16 = 0;
const EVENT_DISABLE: u16 = 1;
const EVENT_DESC: u16 = 2;

fn flags_at(rings: &Rings, index: u16) -> Result<u16, QueueError> {
    Ok(rings.desc.load_u16(u64::from(index) * 16 + 14)?)
}

fn is_available(flags: u16, wrap: bool) -> bool {
    (flags & AVAIL != 0) == wrap && (flags & USED != 0) != wrap
}

/// The place `n` descriptors further.
fn advance(index: u16, wrap: bool, n: u16, size: u16) -> (u16, bool) {
    let next = u32::from(index) + u32::from(n);
    if next >= u32::from(size) { ((next - u32::from(size)) as u16, !wrap) } else { (next as u16, wrap) }
}

impl Queue {
    fn packed_rings(&self) -> Result<&Rings, QueueError> {
        self.rings.as_ref().ok_or(QueueError::Memory)
    }

    pub(super) fn available_packed(&mut self) -> Result<bool, QueueError> {
        let flags = flags_at(self.packed_rings()?, self.state.next_avail)?;
        Ok(is_available(flags, self.state.avail_wrap))
    }

    pub(super) fn pop_packed(&mut self) -> Result<Option<Chain>, QueueError> {
        if self.state.next_avail >= self.state.size {
            return Err(QueueError::AvailableIndex);
        }
        if !self.available_packed()? {
            return Ok(None);
        }
        // The descriptor is read after its flags.
        fence(Ordering::Acquire);
        let size = self.state.size;
        let mut collector = Collector::new(self.spare(), size);
        let rings = self.packed_rings()?;
        let (mut index, mut wrap, mut count) = (self.state.next_avail, self.state.avail_wrap, 0u16);
        let id = loop {
            if count >= size {
                return Err(QueueError::TooLong);
            }
            let mut bytes = [0; 16];
            rings.desc.read(u64::from(index) * 16, &mut bytes)?;
            let Descriptor { addr, len, word12: id, word14: flags } = Descriptor::from_bytes(&bytes);
            count += 1;
            (index, wrap) = advance(index, wrap, 1, size);
            if flags & DESC_INDIRECT != 0 {
                if flags & DESC_NEXT != 0 || count > 1 {
                    return Err(QueueError::Indirect);
                }
                self.add_indirect(&mut collector, addr, len, false)?;
                break id;
            }
            collector.add(addr, len, flags & DESC_WRITE != 0)?;
            if flags & DESC_NEXT == 0 {
                break id;
            }
        };
        self.state.next_avail = index;
        self.state.avail_wrap = wrap;
        Ok(Some(collector.finish(id, count)))
    }

    pub(super) fn push_packed(&mut self, chains: impl Iterator<Item = (Chain, u32)>) -> Result<(), QueueError> {
        let size = self.state.size;
        let mut first = None;
        for (chain, len) in chains {
            let (index, wrap) = (self.state.next_used, self.state.used_wrap);
            if index >= size || chain.descriptors > size {
                return Err(QueueError::Used);
            }
            let rings = self.packed_rings()?;
            let at = u64::from(index) * 16;
            rings.desc.store_u32(at + 8, len)?;
            rings.desc.store_u16(at + 12, chain.id)?;
            let flags = if wrap { AVAIL | USED } else { 0 } | if len > 0 { DESC_WRITE } else { 0 };
            if first.is_none() {
                // Its flags are written last, so that all chains appear at once.
                first = Some((at, flags));
            } else {
                fence(Ordering::Release);
                rings.desc.store_u16(at + 14, flags)?;
            }
            (self.state.next_used, self.state.used_wrap) = advance(index, wrap, chain.descriptors, size);
            self.state.unsignalled = self.state.unsignalled.saturating_add(chain.descriptors);
            self.recycle(chain);
        }
        if let Some((at, flags)) = first {
            fence(Ordering::Release);
            self.packed_rings()?.desc.store_u16(at + 14, flags)?;
        }
        Ok(())
    }

    pub(super) fn interrupt_packed(&mut self) -> Result<bool, QueueError> {
        fence(Ordering::SeqCst);
        let rings = self.packed_rings()?;
        let event = rings.driver.load_u32(0)?;
        let (off_wrap, flags) = (event as u16, (event >> 16) as u16 & 3);
        Ok(match flags {
            EVENT_DISABLE => false,
            // After a whole turn the place cannot be told from the same place a turn later.
            EVENT_DESC if self.event_idx && self.state.unsignalled >= self.state.size => true,
            EVENT_DESC if self.event_idx => {
                let mut offset = off_wrap & 0x7fff;
                if (off_wrap >> 15 != 0) != self.state.used_wrap {
                    offset = offset.wrapping_sub(self.state.size);
                }
                crossed(offset, self.state.next_used, self.state.unsignalled)
            }
            _ => true,
        })
    }

    pub(super) fn disable_packed(&mut self) -> Result<(), QueueError> {
        self.packed_rings()?.device.store_u16(2, EVENT_DISABLE)?;
        Ok(())
    }

    pub(super) fn enable_packed(&mut self) -> Result<(), QueueError> {
        let place = self.state.next_avail | u16::from(self.state.avail_wrap) << 15;
        let rings = self.packed_rings()?;
        if self.event_idx {
            rings.device.store_u16(0, place)?;
            fence(Ordering::Release);
            rings.device.store_u16(2, EVENT_DESC)?;
        } else {
            rings.device.store_u16(2, EVENT_ENABLE)?;
        }
        fence(Ordering::SeqCst);
        Ok(())
    }
}
