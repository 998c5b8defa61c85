//! A driver for the AHCI controller.

use super::{BAR, DEVFN, Machine, RAM, wait};
use rhea_device::Log;
use rhea_pci::PciFunction;
use rhea_storage::Ahci;
use std::sync::Arc;

pub const CAP: u64 = 0;
pub const GHC: u64 = 4;
pub const IS: u64 = 8;
/// Registers of a port.
pub const PX_CLB: u64 = 0;
pub const PX_FB: u64 = 8;
pub const PX_IS: u64 = 0x10;
pub const PX_IE: u64 = 0x14;
pub const PX_CMD: u64 = 0x18;
pub const PX_TFD: u64 = 0x20;
pub const PX_SIG: u64 = 0x24;
pub const PX_SSTS: u64 = 0x28;
pub const PX_SCTL: u64 = 0x2c;
pub const PX_SERR: u64 = 0x30;
pub const PX_SACT: u64 = 0x34;
pub const PX_CI: u64 = 0x38;

/// Per port in RAM: list, received FISes, 32 tables of 4 KiB.
const AREA: u64 = 0x4_0000;
const FIS: u64 = 0x400;
const TABLES: u64 = 0x1000;
pub const DATA: u64 = RAM + 0x80_0000;

pub struct Host {
    pub m: Machine,
    pub ahci: Arc<Ahci>,
}

/// A command in the making.
#[derive(Clone, Default)]
pub struct Cmd {
    pub command: u8,
    pub features: u16,
    pub lba: u64,
    pub count: u16,
    pub device: u8,
    pub write: bool,
    pub packet: Option<Vec<u8>>,
    pub prds: Vec<(u64, u32)>,
}

impl Cmd {
    pub fn ata(command: u8, lba: u64, count: u16) -> Self {
        Self { command, lba, count, device: 0x40, ..Self::default() }
    }
    pub fn data(mut self, at: u64, len: u32) -> Self {
        self.prds.push((at, len));
        self
    }
    pub fn writing(mut self) -> Self {
        self.write = true;
        self
    }
    pub fn features(mut self, f: u16) -> Self {
        self.features = f;
        self
    }
    pub fn packet(cdb: &[u8], dma: bool) -> Self {
        let mut cdb = cdb.to_vec();
        cdb.resize(12, 0);
        let lba = if dma { 0 } else { 0x0800 << 8 };
        Self { command: 0xa0, features: u16::from(dma), lba, packet: Some(cdb), ..Self::default() }
    }
    /// A queued transfer.
    pub fn queued(write: bool, tag: u8, lba: u64, sectors: u16) -> Self {
        let command = if write { 0x61 } else { 0x60 };
        Self { command, features: sectors, lba, count: u16::from(tag) << 3, device: 0x40, write, ..Self::default() }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Failed {
    pub status: u8,
    pub error: u8,
}

impl Host {
    pub fn new(attach: impl FnOnce(&Ahci)) -> Self {
        let m = Machine::new();
        let ahci = Ahci::new(&m.bus.slot(DEVFN), &Log::off());
        attach(&ahci);
        m.bus.attach(ahci.clone()).unwrap();
        ahci.config_write(0x24, 4, BAR as u32);
        ahci.config_write(0x20, 4, 0xc000);
        ahci.config_write(4, 2, 7);
        let host = Self { m, ahci };
        host.write(GHC, 1 << 31 | 2);
        host
    }
    pub fn read(&self, at: u64) -> u32 {
        self.m.read(BAR + at)
    }
    pub fn write(&self, at: u64, value: u32) {
        self.m.write(BAR + at, value);
    }
    pub fn port(&self, n: u64, at: u64) -> u32 {
        self.read(0x100 + n * 0x80 + at)
    }
    pub fn set_port(&self, n: u64, at: u64, value: u32) {
        self.write(0x100 + n * 0x80 + at, value);
    }
    pub fn list(n: u64) -> u64 {
        RAM + n * AREA
    }
    pub fn fis(n: u64) -> u64 {
        Self::list(n) + FIS
    }
    pub fn table(n: u64, slot: u64) -> u64 {
        Self::list(n) + TABLES + slot * 0x1000
    }
    pub fn start(&self, n: u64) {
        self.set_port(n, PX_CLB, Self::list(n) as u32);
        self.set_port(n, PX_FB, Self::fis(n) as u32);
        self.set_port(n, PX_SERR, !0);
        self.set_port(n, PX_IS, !0);
        self.set_port(n, PX_IE, 0xfdc0_00ff);
        self.set_port(n, PX_CMD, 1 << 4 | 6);
        self.set_port(n, PX_CMD, 1 << 4 | 7);
    }
    pub fn stop(&self, n: u64) {
        self.set_port(n, PX_CMD, 1 << 4 | 6);
        wait("end of the list", || self.port(n, PX_CMD) & 1 << 15 == 0);
    }
    /// Writes a command into a slot without issuing it.
    pub fn fill(&self, n: u64, slot: u64, c: &Cmd) {
        let (t, l) = (Self::table(n, slot), c.lba.to_le_bytes());
        let [f0, f1] = c.features.to_le_bytes();
        let [c0, c1] = c.count.to_le_bytes();
        let fis = [0x27, 0x80, c.command, f0, l[0], l[1], l[2], c.device, l[3], l[4], l[5], f1, c0, c1, 0, 0];
        self.m.put(t, &fis);
        if let Some(p) = &c.packet {
            self.m.put(t + 0x40, p);
        }
        for (i, (at, len)) in c.prds.iter().enumerate() {
            let e = t + 0x80 + i as u64 * 16;
            self.m.put(e, &at.to_le_bytes());
            self.m.put32(e + 8, 0);
            self.m.put32(e + 12, len - 1);
        }
        let h = Self::list(n) + slot * 32;
        let flags = 5 | u32::from(c.write) << 6 | u32::from(c.packet.is_some()) << 5 | (c.prds.len() as u32) << 16;
        self.m.put32(h, flags);
        self.m.put32(h + 4, 0);
        self.m.put(h + 8, &t.to_le_bytes());
    }
    pub fn moved(&self, n: u64, slot: u64) -> u32 {
        self.m.get32(Self::list(n) + slot * 32 + 4)
    }
    /// Runs one command in slot 3.
    pub fn run(&self, n: u64, c: &Cmd) -> Result<(), Failed> {
        self.fill(n, 3, c);
        self.set_port(n, PX_CI, 8);
        wait("end of a command", || self.port(n, PX_CI) & 8 == 0 || self.port(n, PX_IS) & 0x7800_0000 != 0);
        let tfd = self.port(n, PX_TFD);
        let failed = self.port(n, PX_IS) & 0x7800_0000 != 0;
        self.set_port(n, PX_IS, !0);
        self.write(IS, !0);
        if failed {
            self.stop(n);
            self.set_port(n, PX_IS, !0);
            self.set_port(n, PX_SERR, !0);
            self.set_port(n, PX_CMD, 1 << 4 | 7);
            return Err(Failed { status: tfd as u8, error: (tfd >> 8) as u8 });
        }
        assert_eq!(tfd & 0x89, 0, "task file {tfd:#x}");
        Ok(())
    }
    /// A packet command with data to the host.
    pub fn packet_in(&self, n: u64, cdb: &[u8], len: u32) -> Result<Vec<u8>, Failed> {
        self.m.put(DATA, &vec![0xee; len as usize]);
        self.run(n, &Cmd::packet(cdb, true).data(DATA, len.max(2)))?;
        let moved = self.moved(n, 3) as usize;
        Ok(self.m.get(DATA, moved))
    }
    /// Sense key, code, qualifier.
    pub fn sense(&self, n: u64) -> (u8, u8, u8) {
        let b = self.packet_in(n, &[3, 0, 0, 0, 18], 18).unwrap();
        (b[2], b[12], b[13])
    }
}
