//! The Interrupt Translation Service: turns (DeviceID, EventID) into an LPI of a processor (IHI 0069 chapter 5).
//!
//! Tables are in guest memory; translations are cached. Locks: `regs` and `cache` are leaves and are never held while memory, a
//! redistributor or a listener is called. One thread at a time executes commands (`busy`); a thread that finds it set leaves, and the
//! one that executes looks for more before it ends.

use super::GicV3;
use super::its_spec::{
    BASER_FIXED, BASER_INDIRECT, BASER_MASK, CBASER_MASK, COLLECTION_BITS, COLLECTIONS, COMMAND, CTLR_ENABLED,
    CTLR_QUIESCENT, DEVICE_BITS, DEVICES, ENTRY, EVENT_BITS, GITS, Gits, ITS_SIZE, OFFSET_MASK, STALLED, TYPER, VALID,
    cmd,
};
use super::lpi::FIRST;
use super::redist::REQUESTER;
use super::spec::{ADDRESS_MASK, ID_BITS, IIDR, identification};
use minicbor::{Decode, Encode};
use parking_lot::{Mutex, RwLock};
use rhea_accel::{MsiMessage, MsiTarget};
use rhea_device::state::{decode, encode};
use rhea_device::{Device, LoadError, Log, Saved, log_guest_error};
use rhea_memory::{Access, AddressSpace, BusError, Gpa, MmioDevice, Requester};
use rustc_hash::FxHashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Translations kept at most.
const CACHE_LIMIT: usize = 1 << 16;
/// Commands executed at most on behalf of one register access; a full queue has half as many.
const COMMAND_BUDGET: u32 = 1 << 16;

#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
struct Regs {
    #[n(0)]
    enabled: bool,
    #[n(1)]
    cbaser: u64,
    #[n(2)]
    cwriter: u64,
    /// With [`STALLED`].
    #[n(3)]
    creadr: u64,
    #[n(4)]
    baser: [u64; 2],
}

/// An interrupt of a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Destination {
    intid: u32,
    cpu: usize,
}

/// An ITS of a [`GicV3`]. It is the [`MsiTarget`] of PCI devices: DeviceID is the requester id, EventID the data.
pub struct Its {
    name: String,
    gic: Arc<GicV3>,
    memory: Arc<AddressSpace>,
    log: Log,
    regs: Mutex<Regs>,
    cache: RwLock<FxHashMap<(u32, u32), Destination>>,
    /// Counts invalidations of `cache`: a translation begun before one is not kept.
    epoch: AtomicU64,
    busy: AtomicBool,
}

/// An interrupt translation entry.
struct Ite {
    address: u64,
    intid: u32,
    collection: u32,
}

impl Its {
    /// An ITS with its tables in `memory`. The controller must have LPIs ([`super::GicV3Config::memory`]).
    #[must_use]
    pub fn new(name: &str, gic: &Arc<GicV3>, memory: Arc<AddressSpace>, log: Log) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            gic: gic.clone(),
            memory,
            log,
            regs: Mutex::default(),
            cache: RwLock::default(),
            epoch: AtomicU64::new(0),
            busy: AtomicBool::new(false),
        })
    }

    fn load(&self, address: u64) -> Option<u64> {
        let mut data = [0; 8];
        self.memory.read(Gpa(address), &mut data, REQUESTER).ok()?;
        Some(u64::from_le_bytes(data))
    }
    fn store(&self, address: u64, value: u64) -> Option<()> {
        self.memory.write(Gpa(address), &value.to_le_bytes(), REQUESTER).ok()
    }
    fn forget(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.cache.write().clear();
    }

    /// The address of an entry of the device or collection table; `None` if it is outside.
    fn entry(&self, table: usize, index: u32) -> Option<u64> {
        let baser = self.regs.lock().baser[table];
        if baser & VALID == 0 {
            return None;
        }
        let page: u64 = match baser >> 8 & 3 {
            0 => 0x1000,
            1 => 0x4000,
            _ => 0x1_0000,
        };
        let mut base = baser & 0x0000_ffff_ffff_f000 & !(page - 1);
        if page == 0x1_0000 {
            base |= (baser >> 12 & 0xf) << 48;
        }
        let len = ((baser & 0xff) + 1) * page;
        if baser & BASER_INDIRECT == 0 {
            let at = u64::from(index) * ENTRY;
            return (at < len).then(|| base.wrapping_add(at));
        }
        let per_page = page / ENTRY;
        let at = u64::from(index) / per_page * 8;
        if at >= len {
            return None;
        }
        let level1 = self.load(base.wrapping_add(at))?;
        (level1 & VALID != 0)
            .then(|| (level1 & ADDRESS_MASK & !(page - 1)).wrapping_add(u64::from(index) % per_page * ENTRY))
    }
    /// The interrupt translation entry's address.
    fn ite_address(&self, device: u32, event: u32) -> Option<u64> {
        if device >> DEVICE_BITS != 0 {
            return None;
        }
        let dte = self.load(self.entry(DEVICES, device)?)?;
        if dte & VALID == 0 || u64::from(event) >> ((dte & 0x1f) + 1) != 0 {
            return None;
        }
        Some((dte & 0x000f_ffff_ffff_ff00).wrapping_add(u64::from(event) * ENTRY))
    }
    fn ite(&self, device: u32, event: u32) -> Option<Ite> {
        let address = self.ite_address(device, event)?;
        let entry = self.load(address)?;
        let (intid, collection) = (entry as u32 & 0x00ff_ffff, (entry >> 32) as u32 & 0xffff);
        (entry & VALID != 0 && (FIRST..1 << ID_BITS).contains(&intid)).then_some(Ite { address, intid, collection })
    }
    /// The processor of a collection.
    fn processor(&self, collection: u32) -> Option<usize> {
        if collection >> COLLECTION_BITS != 0 {
            return None;
        }
        let entry = self.load(self.entry(COLLECTIONS, collection)?)?;
        let cpu = (entry & 0xffff) as usize;
        (entry & VALID != 0 && cpu < self.gic.cpus()).then_some(cpu)
    }
    fn translate(&self, device: u32, event: u32) -> Option<Destination> {
        if let Some(found) = self.cache.read().get(&(device, event)) {
            return Some(*found);
        }
        let epoch = self.epoch.load(Ordering::SeqCst);
        let ite = self.ite(device, event)?;
        let found = Destination { intid: ite.intid, cpu: self.processor(ite.collection)? };
        let mut cache = self.cache.write();
        if self.epoch.load(Ordering::SeqCst) == epoch {
            if cache.len() >= CACHE_LIMIT {
                cache.clear();
            }
            cache.insert((device, event), found);
        }
        Some(found)
    }
    /// A message from a device.
    fn message(&self, device: u32, event: u32) {
        if !self.regs.lock().enabled {
            return;
        }
        match self.translate(device, event) {
            Some(to) => self.gic.lpi_pend(to.cpu, to.intid),
            None => log_guest_error!(self.log, "its", "message of device {device:#x} is not mapped"),
        }
    }

    /// Executes what is queued.
    fn process(&self) {
        let mut budget = COMMAND_BUDGET;
        while budget > 0 && self.queued().is_some() && !self.busy.swap(true, Ordering::AcqRel) {
            while let Some((address, creadr, cbaser)) = self.queued().filter(|_| budget > 0) {
                budget -= 1;
                let mut command = [0; COMMAND as usize];
                let done = self.memory.read(Gpa(address), &mut command, REQUESTER);
                if done.is_ok() {
                    self.execute(&command);
                } else {
                    log_guest_error!(self.log, "its", "the command queue is not in memory");
                }
                let mut regs = self.regs.lock();
                if regs.creadr == creadr && regs.cbaser == cbaser {
                    let len = ((cbaser & 0xff) + 1) * 0x1000;
                    regs.creadr = if done.is_ok() { (creadr + COMMAND) % len } else { creadr | STALLED };
                }
            }
            self.busy.store(false, Ordering::Release);
        }
    }
    /// The next command's address, GITS_CREADR and GITS_CBASER, if there is one to execute.
    fn queued(&self) -> Option<(u64, u64, u64)> {
        let regs = self.regs.lock();
        let len = ((regs.cbaser & 0xff) + 1) * 0x1000;
        let ready = regs.enabled
            && regs.cbaser & VALID != 0
            && regs.creadr & STALLED == 0
            && regs.creadr != regs.cwriter
            && regs.cwriter < len;
        ready.then(|| ((regs.cbaser & ADDRESS_MASK).wrapping_add(regs.creadr), regs.creadr, regs.cbaser))
    }
    /// A malformed command is ignored.
    fn execute(&self, command: &[u8; COMMAND as usize]) {
        let word = |n: usize| command[n * 8..n * 8 + 8].iter().rev().fold(0u64, |w, b| w << 8 | u64::from(*b));
        let words = [word(0), word(1), word(2), word(3)];
        let number = words[0] as u8;
        if self.command(number, &words).is_none() {
            log_guest_error!(self.log, "its", "malformed command {number:#04x}");
        }
    }
    fn command(&self, number: u8, w: &[u64; 4]) -> Option<()> {
        let (device, event) = ((w[0] >> 32) as u32, w[1] as u32);
        let (collection, valid) = (w[2] as u32 & 0xffff, w[2] & VALID != 0);
        let target = |word: u64| Some((word >> 16 & 0xffff_ffff) as usize).filter(|n| *n < self.gic.cpus());
        match number {
            cmd::MAPD => {
                let size = w[1] & 0x1f;
                if device >> DEVICE_BITS != 0 || valid && size >= u64::from(EVENT_BITS) {
                    return None;
                }
                let address = self.entry(DEVICES, device)?;
                let entry = if valid { VALID | w[2] & 0x000f_ffff_ffff_ff00 | size } else { 0 };
                self.store(address, entry)?;
                self.forget();
            }
            cmd::MAPC => {
                let address = self.entry(COLLECTIONS, collection)?;
                let entry = if valid { VALID | target(w[2])? as u64 } else { 0 };
                self.store(address, entry)?;
                self.forget();
            }
            cmd::MAPTI | cmd::MAPI => {
                let intid = if number == cmd::MAPI { event } else { (w[1] >> 32) as u32 };
                if !(FIRST..1 << ID_BITS).contains(&intid) {
                    return None;
                }
                let address = self.ite_address(device, event)?;
                self.store(address, VALID | u64::from(collection) << 32 | u64::from(intid))?;
                self.forget();
            }
            cmd::MOVI => {
                let ite = self.ite(device, event)?;
                let (from, to) = (self.processor(ite.collection)?, self.processor(collection)?);
                self.store(ite.address, VALID | u64::from(collection) << 32 | u64::from(ite.intid))?;
                self.forget();
                self.gic.lpi_move(from, to, ite.intid);
            }
            cmd::MOVALL => self.gic.lpi_move_all(target(w[2])?, target(w[3])?),
            cmd::INT => {
                let to = self.translate(device, event)?;
                self.gic.lpi_pend(to.cpu, to.intid);
            }
            cmd::CLEAR => {
                let to = self.translate(device, event)?;
                self.gic.lpi_clear(to.cpu, to.intid);
            }
            cmd::DISCARD => {
                let ite = self.ite(device, event)?;
                if let Some(cpu) = self.processor(ite.collection) {
                    self.gic.lpi_clear(cpu, ite.intid);
                }
                self.store(ite.address, 0)?;
                self.forget();
            }
            cmd::INV => {
                let to = self.translate(device, event)?;
                self.gic.lpi_reload(to.cpu, to.intid);
            }
            cmd::INVALL => self.gic.lpi_reload_all(self.processor(collection)?),
            // Every command is complete when the next one starts.
            cmd::SYNC => {
                target(w[2])?;
            }
            _ => return None,
        }
        Some(())
    }

    fn read_register(&self, reg: Gits, index: u32) -> u64 {
        let regs = self.regs.lock();
        match reg {
            Gits::Ctlr => {
                let quiescent = if self.busy.load(Ordering::Acquire) { 0 } else { CTLR_QUIESCENT };
                u64::from(u32::from(regs.enabled) | quiescent)
            }
            Gits::Iidr => IIDR,
            Gits::Typer => TYPER,
            Gits::Cbaser => regs.cbaser,
            Gits::Cwriter => regs.cwriter,
            Gits::Creadr => {
                drop(regs);
                self.process();
                self.regs.lock().creadr
            }
            Gits::Baser => regs.baser.get(index as usize).map_or(0, |b| b | BASER_FIXED[index as usize & 1]),
            Gits::Id => identification(0x94, index),
            Gits::Translater => 0,
        }
    }
    fn write_register(&self, reg: Gits, index: u32, value: u64, mask: u64, access: Access) {
        let mut regs = self.regs.lock();
        match reg {
            Gits::Ctlr if mask & u64::from(CTLR_ENABLED) != 0 => {
                regs.enabled = value & u64::from(CTLR_ENABLED) != 0;
                drop(regs);
                self.forget();
                self.process();
            }
            Gits::Cbaser if !regs.enabled => {
                regs.cbaser = (regs.cbaser & !mask | value & mask) & CBASER_MASK;
                regs.creadr = 0;
            }
            Gits::Baser if !regs.enabled => {
                if let Some(baser) = regs.baser.get_mut(index as usize) {
                    *baser = (*baser & !mask | value & mask) & BASER_MASK;
                    drop(regs);
                    self.forget();
                }
            }
            Gits::Cbaser | Gits::Baser => log_guest_error!(self.log, "its", "{reg:?} written while the ITS is enabled"),
            Gits::Cwriter => {
                regs.cwriter = (regs.cwriter & !mask | value & mask) & OFFSET_MASK;
                // Retry.
                if value & mask & 1 != 0 {
                    regs.creadr &= !STALLED;
                }
                drop(regs);
                self.process();
            }
            Gits::Translater => {
                drop(regs);
                match access.requester {
                    Requester::Device(device) => self.message(device, value as u32),
                    _ => log_guest_error!(self.log, "its", "GITS_TRANSLATER written by a processor"),
                }
            }
            _ => {}
        }
    }
}

impl MsiTarget for Its {
    fn send(&self, message: MsiMessage) {
        self.message(message.requester_id, message.data);
    }
}

impl MmioDevice for Its {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        GITS.read(offset & (ITS_SIZE - 1), access.size, |hit| Ok(self.read_register(hit.id, hit.index)), |_| ())
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        GITS.write(
            offset & (ITS_SIZE - 1),
            access.size,
            value,
            |hit, value, mask| {
                self.write_register(hit.id, hit.index, value, mask, access);
                Ok(())
            },
            |at| log_guest_error!(self.log, "its", "write of offset {at:#x}"),
        )
    }
    fn name(&self) -> &str {
        &self.name
    }
}

impl Device for Its {
    fn name(&self) -> &str {
        &self.name
    }
    fn reset(&self) {
        *self.regs.lock() = Regs::default();
        self.forget();
    }
    fn collects(&self) -> bool {
        true
    }
    fn save(&self) -> Saved {
        encode(1, &*self.regs.lock())
    }
    fn load(&self, state: &Saved) -> Result<(), LoadError> {
        let regs: Regs = decode(state, 1)?;
        *self.regs.lock() = regs;
        self.forget();
        Ok(())
    }
}
