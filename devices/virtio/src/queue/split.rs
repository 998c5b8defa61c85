//! The split ring (virtio 1.2, 2.7).

use super::{Chain, Collector, DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Descriptor, Queue, QueueError};
use std::sync::atomic::{Ordering, fence};

const USED_NO_NOTIFY: u16 = 1;
const AVAIL_NO_INTERRUPT: u16 = 1;

impl Queue {
    fn parts(&self) -> Result<&super::Rings, QueueError> {
        self.rings.as_ref().ok_or(QueueError::Memory)
    }

    /// How many chains wait.
    pub(super) fn available_split(&mut self) -> Result<u16, QueueError> {
        let next = self.state.next_avail;
        if self.shadow_avail == next {
            self.shadow_avail = self.parts()?.driver.load_u16(2)?;
            // The ring's entries are read after the index.
            fence(Ordering::Acquire);
        }
        let waiting = self.shadow_avail.wrapping_sub(next);
        if waiting > self.state.size { Err(QueueError::AvailableIndex) } else { Ok(waiting) }
    }

    pub(super) fn pop_split(&mut self) -> Result<Option<Chain>, QueueError> {
        if self.available_split()? == 0 {
            return Ok(None);
        }
        let size = self.state.size;
        let slot = u64::from(self.state.next_avail % size);
        let mut collector = Collector::new(self.spare(), size);
        let rings = self.parts()?;
        let head = rings.driver.load_u16(4 + 2 * slot)?;
        let mut index = head;
        // At most `size` rounds: each adds a buffer or ends.
        loop {
            if index >= size {
                return Err(QueueError::DescriptorIndex);
            }
            let mut bytes = [0; 16];
            rings.desc.read(u64::from(index) * 16, &mut bytes)?;
            let Descriptor { addr, len, word12: flags, word14: next } = Descriptor::from_bytes(&bytes);
            if flags & DESC_INDIRECT != 0 {
                if flags & DESC_NEXT != 0 {
                    return Err(QueueError::Indirect);
                }
                self.add_indirect(&mut collector, addr, len, true)?;
                break;
            }
            collector.add(addr, len, flags & DESC_WRITE != 0)?;
            if flags & DESC_NEXT == 0 {
                break;
            }
            index = next;
        }
        self.state.next_avail = self.state.next_avail.wrapping_add(1);
        Ok(Some(collector.finish(head, 1)))
    }

    pub(super) fn push_split(&mut self, chains: impl Iterator<Item = (Chain, u32)>) -> Result<(), QueueError> {
        let size = self.state.size;
        let mut added = 0u16;
        for (chain, len) in chains {
            let at = 4 + 8 * u64::from(self.state.next_used.wrapping_add(added) % size);
            let rings = self.parts()?;
            rings.device.store_u32(at, u32::from(chain.id))?;
            rings.device.store_u32(at + 4, len)?;
            added = added.wrapping_add(1);
            self.recycle(chain);
        }
        self.state.next_used = self.state.next_used.wrapping_add(added);
        self.state.unsignalled = self.state.unsignalled.saturating_add(added);
        fence(Ordering::Release);
        self.parts()?.device.store_u16(2, self.state.next_used)?;
        Ok(())
    }

    pub(super) fn interrupt_split(&mut self) -> Result<bool, QueueError> {
        // The driver's wish is read after the index is visible.
        fence(Ordering::SeqCst);
        let rings = self.parts()?;
        if !self.event_idx {
            return Ok(rings.driver.load_u16(0)? & AVAIL_NO_INTERRUPT == 0);
        }
        let event = rings.driver.load_u16(4 + 2 * u64::from(self.state.size))?;
        Ok(crossed(event, self.state.next_used, self.state.unsignalled))
    }

    pub(super) fn disable_split(&mut self) -> Result<(), QueueError> {
        // With an event index the driver stays silent until the index is moved.
        if !self.event_idx {
            self.parts()?.device.store_u16(0, USED_NO_NOTIFY)?;
        }
        Ok(())
    }

    pub(super) fn enable_split(&mut self) -> Result<(), QueueError> {
        let (next, size) = (self.state.next_avail, u64::from(self.state.size));
        let rings = self.parts()?;
        if self.event_idx {
            rings.device.store_u16(4 + 8 * size, next)?;
        } else {
            rings.device.store_u16(0, 0)?;
        }
        // The wish is visible before the index is looked at again.
        fence(Ordering::SeqCst);
        Ok(())
    }
}

/// Did the index, moving `added` steps to `new`, pass `event`?
pub(super) fn crossed(event: u16, new: u16, added: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < added
}
