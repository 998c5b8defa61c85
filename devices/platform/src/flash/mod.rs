//! NOR flash: a bank of two interleaved 16-bit chips with the Intel command set, described by the Common Flash Interface.
//!
//! While both chips give their array, the bank is memory: reads and instruction fetches do not come here. Commands make it a
//! device until the array is chosen again.

mod cfi;
mod chip;
mod storage;
#[cfg(test)]
mod tests;

use cfi::CHIPS;
use chip::{Action, Chip, Failure, Fault, SavedChip};
use parking_lot::Mutex;
use rhea_block::Drive;
use rhea_device::{Device, LoadError, Log, Saved, log_guest_error, state as saved};
use rhea_memory::{
    Access, AccessRules, AddressSpace, BusError, Gpa, MapError, Mapping, MemoryError, MmioDevice, Requester,
};
use std::sync::{Arc, OnceLock, Weak};
use storage::Storage;
use thiserror::Error;

/// Why a bank cannot be made.
#[derive(Debug, Error)]
pub enum FlashError {
    #[error("the image has {is} bytes, the flash bank has {bank}: use an image of at most {bank} bytes")]
    Size { is: u64, bank: u64 },
    #[error("cannot read the image: {0}")]
    Read(std::io::Error),
    #[error("{0}")]
    Memory(MemoryError),
}

/// What is in a bank at first. Without drive the content is lost with the machine; where there is neither image nor drive the
/// bank reads as zero.
#[derive(Default)]
pub struct FlashOptions {
    /// Keeps the content; blocks it does not reach to the end of, and all blocks of a read-only drive, are write-protected.
    pub drive: Option<Arc<Drive>>,
    pub image: Option<Vec<u8>>,
    /// Commands come from secure accesses only (system-management mode); to others the bank is ROM.
    pub secure: bool,
    /// Commands are bytes at any address, as a PC's firmware sends them; else 16 bits for each chip.
    pub bytes: bool,
}

/// One bank.
pub struct Flash {
    name: String,
    /// Bytes of an erase block of the bank: of both chips together.
    block_len: u64,
    secure: bool,
    bytes: bool,
    storage: Storage,
    chips: Mutex<[Chip; CHIPS]>,
    mapping: OnceLock<Weak<Mapping>>,
    log: Log,
}

impl Flash {
    /// A bank of `len` bytes in blocks of `block_len` bytes (both powers of two, `len` a multiple of it).
    ///
    /// # Errors
    /// [`FlashError`].
    pub fn new(name: &str, len: u64, block_len: u64, options: FlashOptions, log: Log) -> Result<Arc<Self>, FlashError> {
        let (secure, bytes) = (options.secure, options.bytes);
        let storage = Storage::new(name, len, block_len, options)?;
        let chip = || Chip::new((len / block_len) as u32, (block_len / CHIPS as u64) as u32);
        let chips = Mutex::new([chip(), chip()]);
        Ok(Arc::new(Self {
            name: name.to_owned(),
            block_len,
            secure,
            bytes,
            storage,
            chips,
            mapping: OnceLock::new(),
            log,
        }))
    }

    /// Maps the bank at `gpa`, once; it is there as long as the mapping is kept.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn map(self: &Arc<Self>, space: &Arc<AddressSpace>, gpa: Gpa) -> Result<Arc<Mapping>, MapError> {
        let memory = &self.storage.memory;
        let mapping = Arc::new(space.map_rom_device(gpa, memory, 0, memory.len(), self.clone(), 0)?);
        // A second mapping would stay memory for ever.
        let _ = self.mapping.set(Arc::downgrade(&mapping));
        Ok(mapping)
    }

    fn reads_array(&self) -> bool {
        self.chips.lock().iter().all(Chip::reads_array)
    }
    /// Shows the array or the chips' answers, as the chips are now. No lock is held while the map changes; threads that do this
    /// at once cannot leave a stale choice behind.
    fn follow(&self) {
        let Some(mapping) = self.mapping.get().and_then(Weak::upgrade) else { return };
        loop {
            let array = self.reads_array();
            mapping.set_rom_mode(array);
            if self.reads_array() == array {
                return;
            }
        }
    }

    /// Carries out what the chips confirmed in one write.
    fn act(&self, chips: &mut [Chip; CHIPS], actions: [Option<Action>; CHIPS]) {
        let span = |n: usize, a: &Action| match a {
            Action::Program(words) => {
                let (first, last) =
                    words.iter().fold((u64::MAX, 0), |(lo, hi), w| (lo.min(u64::from(w.0)), hi.max(u64::from(w.0))));
                (first.min(last) * 4 + n as u64 * 2, last * 4 + n as u64 * 2 + 2)
            }
            Action::Erase { block } => (u64::from(*block) * self.block_len, (u64::from(*block) + 1) * self.block_len),
        };
        // In the usual case both chips do the same thing in the same block: one change of the storage.
        let spans: Vec<(usize, (u64, u64))> =
            actions.iter().enumerate().filter_map(|(n, a)| a.as_ref().map(|a| (n, span(n, a)))).collect();
        let together = spans.iter().all(|(_, s)| s.0 / self.block_len == spans[0].1.0 / self.block_len);
        let groups: Vec<&[(usize, (u64, u64))]> = if together { vec![&spans[..]] } else { spans.chunks(1).collect() };
        for group in groups.into_iter().filter(|g| !g.is_empty()) {
            let start = group.iter().map(|(_, s)| s.0).min().unwrap_or(0);
            let end = group.iter().map(|(_, s)| s.1).max().unwrap_or(start);
            let result = self.storage.change(start, end - start, |data| {
                for (n, _) in group {
                    if let Some(action) = &actions[*n] {
                        apply(data, start, *n, action);
                    }
                }
            });
            for (n, _) in group {
                if let Some(action) = &actions[*n] {
                    chips[*n].done(action, result);
                }
            }
            if result == Err(Failure::Storage) {
                eprintln!("rhea: {}: the host could not write the flash image", self.name);
            }
        }
    }

    fn complain(&self, fault: Fault, offset: u64) {
        match fault {
            Fault::Command(c) => log_guest_error!(self.log, &self.name, "unknown command {c:#04x}"),
            Fault::Sequence => {
                log_guest_error!(self.log, &self.name, "wrong command sequence in block {:#x}", offset / self.block_len)
            }
            Fault::Locked => {
                log_guest_error!(self.log, &self.name, "change of locked block {:#x}", offset / self.block_len)
            }
        }
    }
}

/// Carries out `action` of chip `n` on the bytes of the bank from `start`.
fn apply(data: &mut [u8], start: u64, n: usize, action: &Action) {
    let lane = n as u64 * 2;
    match action {
        Action::Program(words) => {
            for (word, value) in words {
                let at = (u64::from(*word) * 4 + lane).wrapping_sub(start) as usize;
                for (byte, new) in data.iter_mut().skip(at).zip(value.to_le_bytes()) {
                    // Programming only clears bits.
                    *byte &= new;
                }
            }
        }
        Action::Erase { .. } => {
            for (i, byte) in data.iter_mut().enumerate() {
                if (start + i as u64) & 2 == lane {
                    *byte = 0xff;
                }
            }
        }
    }
}

impl MmioDevice for Flash {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        let word = offset & !3;
        let array = self.storage.memory.load(word, 4)?;
        // The debugger looks at the array, whatever the guest is doing.
        let answer = if access.requester == Requester::Debugger || self.secure && !access.secure {
            [None; CHIPS]
        } else {
            self.chips.lock().each_ref().map(|c| {
                let answer = c.read((word / 4) as u32);
                answer.map(|a| if self.bytes { (a & 0xff) * 0x101 } else { a })
            })
        };
        let value = answer
            .iter()
            .enumerate()
            .fold(0, |all, (n, a)| all | a.map_or(array >> (n * 16) & 0xffff, u64::from) << (n * 16));
        Ok(value >> ((offset & 3) * 8))
    }

    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        if self.secure && !access.secure {
            log_guest_error!(self.log, &self.name, "write of the secure flash at {offset:#x} from outside");
            return Ok(());
        }
        let lanes = ((1u64 << (u32::from(access.size.min(4)) * 8)) - 1) << ((offset & 3) * 8);
        // Byte lanes without data carry ones: they program nothing.
        let bus = value << ((offset & 3) * 8) & lanes | !lanes;
        let word = (offset / 4) as u32;
        let (changed, array) = {
            let mut chips = self.chips.lock();
            let before = chips.iter().all(Chip::reads_array);
            let mut actions = [const { None }; CHIPS];
            for (n, (chip, action)) in chips.iter_mut().zip(&mut actions).enumerate() {
                let data = match self.bytes {
                    // Both chips are in step; one whose lanes are idle programs nothing.
                    true if !chip.takes_data() => value as u8 as u16,
                    false if lanes >> (n * 16) & 0xffff == 0 => continue,
                    _ => (bus >> (n * 16)) as u16,
                };
                let (confirmed, fault) = chip.write(word, data);
                *action = confirmed;
                if let Some(fault) = fault {
                    self.complain(fault, offset);
                }
            }
            if actions.iter().any(Option::is_some) {
                self.act(&mut chips, actions);
            }
            let after = chips.iter().all(Chip::reads_array);
            (before != after, after)
        };
        if changed {
            self.follow();
            if array {
                self.storage.begin_flush();
            }
        }
        Ok(())
    }

    fn rules(&self) -> AccessRules {
        AccessRules::implemented(1, 4)
    }
    fn name(&self) -> &str {
        &self.name
    }
}

/// Saved state, version 1.
#[derive(minicbor::Encode, minicbor::Decode)]
struct SavedV1 {
    #[n(0)]
    chips: [SavedChip; CHIPS],
    #[n(1)]
    blocks: Vec<(u64, Vec<u8>)>,
}

impl Device for Flash {
    fn name(&self) -> &str {
        &self.name
    }
    fn reset(&self) {
        self.chips.lock().iter_mut().for_each(Chip::reset);
        self.follow();
        self.storage.begin_flush();
    }
    fn save(&self) -> Saved {
        let chips = self.chips.lock().each_ref().map(Chip::save);
        saved::encode(1, &SavedV1 { chips, blocks: self.storage.volatile() })
    }
    fn load(&self, state: &Saved) -> Result<(), LoadError> {
        let s: SavedV1 = saved::decode(state, 1)?;
        let fits = self.chips.lock().iter_mut().zip(s.chips).all(|(chip, saved)| chip.load(saved));
        if !fits || !self.storage.restore(&s.blocks) {
            return Err(LoadError::Mismatch("the flash has another shape".to_owned()));
        }
        self.follow();
        Ok(())
    }
    fn quiesce(&self) {
        if let Err(e) = self.storage.flush() {
            eprintln!("rhea: {}: the flash image could not be flushed: {e}", self.name);
        }
    }
}
