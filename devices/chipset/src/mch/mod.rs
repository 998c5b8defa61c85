//! The memory controller hub: device 0, function 0. Decides which of RAM, PCI and system-management RAM answers below 4 GiB.

mod windows;

use crate::{INTEL, SUBSYSTEM, SUBSYSTEM_VENDOR};
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_device::{Device, LoadError, Log, Saved, state};
use rhea_memory::{AddressSpace, MapError, RamBlock};
use rhea_pci::{ConfigBuilder, Devfn, Ecam, Identity, PciBus, PciConfig, PciConfigState, PciFunction};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use windows::{Content, Place, Side, Window};

/// Extended TSEG size in MiB; a write of 0xffff asks for it. Of virtual machines only.
const EXT_TSEG: u16 = 0x50;
/// PCI Express register range base address (5.1.16).
const PCIEXBAR: u16 = 0x60;
/// Programmable attribute maps 0–6 (5.1.18).
const PAM0: u16 = 0x90;
const PAMS: u16 = 7;
/// Reads go to RAM, for both segments of a register; writes do by the bits to the left of these.
const PAM_READS: u8 = 0x11;
/// System management RAM control (5.1.30).
const SMRAM: u16 = 0x9d;
/// Extended system management RAM control (5.1.31).
const ESMRAMC: u16 = 0x9e;

mod smram {
    pub const OPEN: u8 = 1 << 6;
    pub const CLOSED: u8 = 1 << 5;
    pub const LOCK: u8 = 1 << 4;
    pub const ENABLE: u8 = 1 << 3;
    /// Compatible SMRAM starts at 0xa0000, not changeable.
    pub const BASE_SEGMENT: u8 = 2;
    pub const WRITABLE: u8 = OPEN | CLOSED | LOCK | ENABLE;
}

mod esmramc {
    /// Compatible SMRAM is at 0xfeda0000 instead of 0xa0000.
    pub const HIGH: u8 = 1 << 7;
    /// Cacheability bits that read as ones.
    pub const FIXED: u8 = 7 << 3;
    pub const TSEG_SIZE: u8 = 3 << 1;
    pub const TSEG: u8 = 1;
    pub const WRITABLE: u8 = HIGH | TSEG_SIZE | TSEG;
}

/// Where firmware puts the configuration window, and where it is when machines start without firmware.
pub const ECAM_BASE: u64 = 0xb000_0000;
/// SMRAM in compatible space: 128 KiB.
const LEGACY_SMRAM: u64 = 0xa_0000;
const LEGACY_SMRAM_LEN: u64 = 0x2_0000;
const HIGH_SMRAM: u64 = 0xfeda_0000;
/// PAM's first segment, and the length of all but the last (the BIOS area).
const PAM_BASE: u64 = 0xc_0000;
const PAM_LEN: u64 = 0x4000;
const BIOS_AREA: u64 = 0xf_0000;
const BIOS_AREA_LEN: u64 = 0x1_0000;

/// What the hub is connected to.
pub struct MchWiring {
    pub bus: Arc<PciBus>,
    /// What processors and bus masters see; the hub maps RAM at 0xa0000–0xfffff into it, the board the rest.
    pub system: Arc<AddressSpace>,
    /// What processors in system-management mode see.
    pub smram: Arc<AddressSpace>,
    pub ram: Arc<RamBlock>,
    /// Bytes of RAM below 4 GiB, at the start of `ram`.
    pub low_ram: u64,
    /// Size of the extended TSEG in MiB; 0: there is none.
    pub extended_tseg: u16,
    /// Without it SMRAM cannot be opened or enabled.
    pub smm: bool,
    pub log: Log,
}

/// The memory controller hub.
pub struct Mch {
    config: PciConfig,
    wiring: MchWiring,
    ecam: Arc<Ecam>,
    /// What is mapped now; the lock also orders register changes.
    placed: Mutex<Vec<Place>>,
    /// The machine has been suspended since it was reset: the configuration window cannot be closed. SeaBIOS sets the window up
    /// again when it wakes, by accesses through it, of which the first would close it.
    woken: AtomicBool,
}

#[derive(Encode, Decode)]
struct State {
    #[n(0)]
    config: PciConfigState,
    #[n(1)]
    woken: bool,
}

impl Mch {
    #[must_use]
    pub fn new(wiring: MchWiring) -> Arc<Self> {
        let identity = Identity {
            vendor: INTEL,
            device: 0x29c0,
            revision: 2,
            class: 0x06_0000,
            subsystem_vendor: SUBSYSTEM_VENDOR,
            subsystem: SUBSYSTEM,
        };
        let smram_mask = if wiring.smm { smram::WRITABLE } else { 0 };
        let esmramc_mask = if wiring.smm { esmramc::WRITABLE } else { 0 };
        let config = ConfigBuilder::new(identity, wiring.bus.slot(Devfn(0)))
            .register(EXT_TSEG.into(), &[0, 0], &[0, 0])
            // 36 address bits; length, enable.
            .register(PCIEXBAR.into(), &ECAM_BASE.to_le_bytes(), &0xf_fc00_0007u64.to_le_bytes())
            .register(PAM0.into(), &[0; PAMS as usize], &[0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33])
            // What firmware notes of its layout: graphics control, top of memory, graphics stolen memory, TSEG's base, top of low
            // memory (5.1.15, 5.1.32 to 5.1.38). The hub goes by the RAM there is.
            .register(0x52, &[0; 2], &[0xf2, 0x03])
            .register(0xa0, &[0; 4], &[0xff, 0x03, 0xff, 0xff])
            .register(0xa4, &[0; 12], &[0, 0, 0xf0, 0xff, 0, 0, 0xf0, 0xff, 0, 0, 0xf0, 0xff])
            .register(0xb0, &[0; 2], &[0xf0, 0xff])
            .register(SMRAM.into(), &[smram::BASE_SEGMENT], &[smram_mask])
            .register(ESMRAMC.into(), &[esmramc::FIXED], &[esmramc_mask])
            .build();
        let ecam = Ecam::new(&wiring.bus);
        let mch = Arc::new(Self { config, wiring, ecam, placed: Mutex::default(), woken: AtomicBool::new(false) });
        mch.apply(&mut mch.placed.lock());
        mch
    }

    fn byte(&self, at: u16) -> u8 {
        self.config.read(at, 1) as u8
    }
    /// The configuration window, if it is open: base and length.
    #[must_use]
    pub fn ecam_window(&self) -> Option<(u64, u64)> {
        let low = self.config.read(PCIEXBAR, 4);
        let raw = u64::from(self.config.read(PCIEXBAR + 4, 4)) << 32 | u64::from(low);
        if raw & 1 == 0 {
            return None;
        }
        let len = match raw >> 1 & 3 {
            0 => 256 << 20,
            1 => 128 << 20,
            2 => 64 << 20,
            // Reserved.
            _ => return None,
        };
        Some((raw & 0xf_fc00_0000 & !(len - 1), len))
    }
    /// Opens the configuration window as firmware would (machines started without firmware).
    pub fn open_ecam(&self) {
        self.config_write(PCIEXBAR + 4, 4, 0);
        self.config_write(PCIEXBAR, 4, ECAM_BASE as u32 | 1);
    }
    /// Makes all of the BIOS area and the option ROM area RAM, as firmware would.
    pub fn shadow_all(&self) {
        self.config_write(PAM0, 1, 0x30);
        for n in 1..PAMS {
            self.config_write(PAM0 + n, 1, 0x33);
        }
    }

    /// What the registers say should be mapped.
    fn wanted(&self) -> Vec<Window> {
        let mut all = Vec::new();
        let mut add = |side, start, len, content| all.push(Window { side, start, len, content });
        if let Some((start, len)) = self.ecam_window() {
            add(Side::System, start, len, Content::Configuration);
        }
        // PAM0 has the BIOS area in its high half, the others two segments each.
        for segment in 0..13u64 {
            let (start, len, attributes) = match segment {
                12 => (BIOS_AREA, BIOS_AREA_LEN, self.byte(PAM0) >> 4),
                n => {
                    let byte = self.byte(PAM0 + 1 + (n / 2) as u16);
                    (PAM_BASE + n * PAM_LEN, PAM_LEN, if n % 2 == 0 { byte } else { byte >> 4 })
                }
            };
            let content = match attributes & 3 {
                0 => continue,
                1 => Content::RamReads,
                2 => Content::RamWrites,
                _ => Content::Ram,
            };
            add(Side::System, start, len, content);
        }
        let (control, extended) = (self.byte(SMRAM), self.byte(ESMRAMC));
        let high = extended & esmramc::HIGH != 0;
        let legacy = Content::RamAt(LEGACY_SMRAM);
        let place = if high { HIGH_SMRAM } else { LEGACY_SMRAM };
        if control & smram::OPEN != 0 {
            add(Side::System, place, LEGACY_SMRAM_LEN, legacy);
        }
        if control & smram::ENABLE != 0 {
            add(Side::Smram, place, LEGACY_SMRAM_LEN, legacy);
            if extended & esmramc::TSEG != 0 {
                let mib = match (extended & esmramc::TSEG_SIZE) >> 1 {
                    0 => 1,
                    1 => 2,
                    2 => 8,
                    _ => u64::from(self.wiring.extended_tseg),
                };
                let len = (mib << 20).min(self.wiring.low_ram);
                if len != 0 {
                    let start = self.wiring.low_ram - len;
                    add(Side::System, start, len, Content::Nothing);
                    add(Side::Smram, start, len, Content::Ram);
                }
            }
        }
        all
    }

    /// Maps what the registers say.
    fn apply(&self, placed: &mut Vec<Place>) {
        let wanted = self.wanted();
        if placed.iter().map(|p| &p.window).eq(wanted.iter()) {
            return;
        }
        self.wiring.system.transaction(|| {
            self.wiring.smram.transaction(|| {
                let mut old = std::mem::take(placed);
                for window in wanted {
                    if let Some(n) = old.iter().position(|p| p.window == window) {
                        placed.push(old.swap_remove(n));
                        continue;
                    }
                    match self.place(window.clone()) {
                        Ok(place) => placed.push(place),
                        Err(e) => self.wiring.log.guest_error("mch", format_args!("{e}")),
                    }
                }
            });
        });
    }

    fn place(&self, window: Window) -> Result<Place, MapError> {
        let space = match window.side {
            Side::System => &self.wiring.system,
            Side::Smram => &self.wiring.smram,
        };
        windows::place(window, space, self.wiring.bus.memory(), &self.wiring.ram, &self.ecam)
    }

    /// A byte of a register with rules of its own, as it will be.
    fn filtered(&self, at: u16, value: u8) -> u8 {
        let locked = self.byte(SMRAM) & smram::LOCK != 0;
        match at {
            SMRAM if locked => self.byte(SMRAM) & !smram::CLOSED | value & smram::CLOSED,
            // Locking closes.
            SMRAM if value & smram::LOCK != 0 => value & !smram::OPEN,
            ESMRAMC if locked => self.byte(ESMRAMC),
            _ => value,
        }
    }
}

impl Device for Mch {
    fn name(&self) -> &str {
        "mch"
    }
    fn reset(&self) {
        let mut placed = self.placed.lock();
        self.woken.store(false, SeqCst);
        self.config.reset();
        self.apply(&mut placed);
    }
    /// The memory map stays, as RAM does: firmware that runs from shadowed RAM finds itself there, with its note that it has
    /// run before. System management RAM is open to be set up again, and so is shadowed RAM to be written: when SeaBIOS protects
    /// it at the end of a wake-up, it goes by memory that the system owns by then, and may protect the stack of the next one.
    fn wake(&self) {
        let mut placed = self.placed.lock();
        self.woken.store(true, SeqCst);
        self.config.reset_but(&[PCIEXBAR..PCIEXBAR + 8, PAM0..PAM0 + PAMS]);
        for register in PAM0..PAM0 + PAMS {
            let byte = self.byte(register);
            self.config.set_bytes(register.into(), &[byte | (byte & PAM_READS) << 1]);
        }
        self.apply(&mut placed);
    }
    fn save(&self) -> Saved {
        state::encode(1, &State { config: self.config.save(), woken: self.woken.load(SeqCst) })
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        let State { config, woken } = state::decode(saved, 1)?;
        let mut placed = self.placed.lock();
        self.config.load(config)?;
        self.woken.store(woken, SeqCst);
        self.apply(&mut placed);
        Ok(())
    }
}

impl PciFunction for Mch {
    fn config(&self) -> &PciConfig {
        &self.config
    }
    fn config_write(&self, offset: u16, size: u8, value: u32) {
        let mut placed = self.placed.lock();
        let mut bytes = value.to_le_bytes();
        for (n, byte) in bytes.iter_mut().enumerate().take(size.into()) {
            *byte = self.filtered(offset.saturating_add(n as u16), *byte);
        }
        let touches = |start: u16, len: u16| offset < start + len && start < offset.saturating_add(size.into());
        if touches(SMRAM, 1) && bytes[usize::from(SMRAM.saturating_sub(offset)) & 3] & smram::CLOSED != 0 {
            self.wiring.log.unimp("mch", format_args!("SMRAM closed to data only (D_CLS)"));
        }
        if touches(PCIEXBAR, 1)
            && bytes[usize::from(PCIEXBAR.saturating_sub(offset)) & 3] & 1 == 0
            && self.woken.load(SeqCst)
        {
            return;
        }
        self.config.write(offset, size, u32::from_le_bytes(bytes));
        if touches(EXT_TSEG, 2) && value & 0xffff == 0xffff && offset == EXT_TSEG && self.wiring.smm {
            self.config.set_bytes(EXT_TSEG.into(), &self.wiring.extended_tseg.to_le_bytes());
        }
        if touches(PCIEXBAR, 8) || touches(PAM0, PAMS) || touches(SMRAM, 2) {
            self.apply(&mut placed);
        }
    }
}

#[cfg(test)]
mod tests;
