//! SMBIOS structures 2.8 and 3.0 (DMTF DSP0134).

mod options;

pub use options::{SmbiosOptions, parse_uuid};

use crate::FwCfg;
use std::ops::Range;

pub const ANCHOR_FILE: &str = "etc/smbios/smbios-anchor";
pub const TABLES_FILE: &str = "etc/smbios/smbios-tables";

/// The entry point structure (5.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EntryPoint {
    /// 32-bit if the structures fit behind it, else 64-bit.
    #[default]
    Auto,
    /// `_SM_`, version 2.8: at most 64 KiB of structures.
    Bits32,
    /// `_SM3_`, version 3.0.
    Bits64,
}

/// What the structures tell of the machine.
#[derive(Clone, Debug)]
pub struct SmbiosMachine<'a> {
    pub options: &'a SmbiosOptions,
    pub product: &'a str,
    pub version: &'a str,
    pub uuid: [u8; 16],
    pub sockets: u32,
    /// Of each socket.
    pub cores: u32,
    /// Of each socket.
    pub threads: u32,
    /// CPUID leaf 1: EAX in the lower half, EDX in the upper.
    pub processor_id: u64,
    /// RAM as ranges of guest-physical addresses.
    pub ram: &'a [Range<u64>],
    pub entry_point: EntryPoint,
    /// Firmware makes its own structure 0 unless the user says something about it; without firmware it is needed here.
    pub bios: bool,
}

/// The structures and the form of their entry point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smbios {
    tables: Vec<u8>,
    count: u16,
    longest: u16,
    bits64: bool,
}

/// One structure: formatted area, then strings numbered from 1.
struct Structure {
    bytes: Vec<u8>,
    strings: Vec<u8>,
    count: u8,
}

impl Structure {
    fn new(kind: u8, handle: u16) -> Self {
        let [low, high] = handle.to_le_bytes();
        Self { bytes: vec![kind, 0, low, high], strings: Vec::new(), count: 0 }
    }
    fn put(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }
    fn u8(self, value: u8) -> Self {
        self.put(&[value])
    }
    fn u16(self, value: u16) -> Self {
        self.put(&value.to_le_bytes())
    }
    fn u32(self, value: u32) -> Self {
        self.put(&value.to_le_bytes())
    }
    fn u64(self, value: u64) -> Self {
        self.put(&value.to_le_bytes())
    }
    /// A string's number; an empty one is none.
    fn text(mut self, text: &str) -> Self {
        let text: Vec<u8> = text.bytes().filter(|b| *b != 0).collect();
        if text.is_empty() || self.count == u8::MAX {
            return self.u8(0);
        }
        self.strings.extend_from_slice(&text);
        self.strings.push(0);
        self.count += 1;
        let number = self.count;
        self.u8(number)
    }
}

const MIB: u64 = 1 << 20;
/// The largest memory module: more RAM is several.
const MODULE: u64 = 16 << 30;
const ARRAY: u16 = 0x1000;
const CHASSIS: u16 = 0x300;
/// No error information is provided.
const NO_ERROR: u16 = 0xfffe;
const UNKNOWN: u8 = 2;
const SAFE: u8 = 3;

struct Builder<'a> {
    machine: &'a SmbiosMachine<'a>,
    out: Smbios,
}

impl Builder<'_> {
    fn add(&mut self, structure: Structure) {
        let Structure { mut bytes, mut strings, .. } = structure;
        if self.machine.options.has_raw(bytes[0]) {
            // The user's own stands for it.
            return;
        }
        bytes[1] = bytes.len() as u8;
        if strings.is_empty() {
            strings.push(0);
        }
        strings.push(0);
        bytes.extend_from_slice(&strings);
        self.add_raw(&bytes);
    }
    fn add_raw(&mut self, bytes: &[u8]) {
        self.out.count = self.out.count.saturating_add(1);
        self.out.longest = self.out.longest.max(u16::try_from(bytes.len()).unwrap_or(u16::MAX));
        self.out.tables.extend_from_slice(bytes);
    }
    fn text(&self, kind: u8, key: &str, default: &str) -> String {
        self.machine.options.text(kind, key).unwrap_or(default).to_owned()
    }
    fn number(&self, kind: u8, key: &str, default: u64) -> u64 {
        self.machine.options.number(kind, key).unwrap_or(default)
    }

    /// 7.1.
    fn bios(&mut self) {
        const NOT_DESCRIBED: u64 = 1 << 3;
        const TARGETED: u8 = 1 << 2;
        const UEFI: u8 = 1 << 3;
        const VIRTUAL: u8 = 1 << 4;
        let uefi = if self.machine.options.flag(0, "uefi") { UEFI } else { 0 };
        let release = self.machine.options.text(0, "release").and_then(options::parse_release).unwrap_or([0, 0]);
        let structure = Structure::new(0, 0)
            .text(&self.text(0, "vendor", "Rhea"))
            .text(&self.text(0, "version", env!("CARGO_PKG_VERSION")))
            .u16(0xe800)
            .text(&self.text(0, "date", "01/01/2026"))
            .u8(0)
            .u64(NOT_DESCRIBED)
            .put(&[0, TARGETED | VIRTUAL | uefi])
            .put(&release)
            .put(&[0xff, 0xff]);
        self.add(structure);
    }

    /// 7.2 to 7.4.
    fn identity(&mut self) {
        let m = self.machine;
        let uuid = m.options.text(1, "uuid").and_then(parse_uuid).unwrap_or(m.uuid);
        // The first three fields are little-endian.
        let [a, b, c, d, e, f, g, h, rest @ ..] = uuid;
        const POWER_SWITCH: u8 = 6;
        let structure = Structure::new(1, 0x100)
            .text(&self.text(1, "manufacturer", "Rhea"))
            .text(&self.text(1, "product", m.product))
            .text(&self.text(1, "version", m.version))
            .text(&self.text(1, "serial", ""))
            .put(&[d, c, b, a, f, e, h, g])
            .put(&rest)
            .u8(POWER_SWITCH)
            .text(&self.text(1, "sku", ""))
            .text(&self.text(1, "family", ""));
        self.add(structure);
        if m.options.given(2) {
            const HOSTING: u8 = 1;
            const MOTHERBOARD: u8 = 0xa;
            let structure = Structure::new(2, 0x200)
                .text(&self.text(2, "manufacturer", "Rhea"))
                .text(&self.text(2, "product", m.product))
                .text(&self.text(2, "version", m.version))
                .text(&self.text(2, "serial", ""))
                .text(&self.text(2, "asset", ""))
                .u8(HOSTING)
                .text(&self.text(2, "location", ""))
                .u16(CHASSIS)
                .put(&[MOTHERBOARD, 0]);
            self.add(structure);
        }
        const OTHER: u8 = 1;
        let structure = Structure::new(3, CHASSIS)
            .text(&self.text(3, "manufacturer", "Rhea"))
            .u8(OTHER)
            .text(&self.text(3, "version", m.version))
            .text(&self.text(3, "serial", ""))
            .text(&self.text(3, "asset", ""))
            .put(&[SAFE, SAFE, SAFE, UNKNOWN])
            .u32(0)
            .put(&[0, 0, 0, 0])
            .text(&self.text(3, "sku", ""));
        self.add(structure);
    }

    /// 7.5, one for each socket.
    fn processors(&mut self) {
        const CENTRAL: u8 = 3;
        /// The family is in the 16-bit field.
        const FAMILY_2: u8 = 0xfe;
        const POPULATED_ENABLED: u8 = 0x41;
        const OTHER: u8 = 1;
        const NO_CACHE: u16 = 0xffff;
        const DEFAULT_MHZ: u64 = 2000;
        let m = self.machine;
        let small = |n: u32| u8::try_from(n).unwrap_or(0xff);
        let large = |n: u32| u16::try_from(n).unwrap_or(0xfffe);
        for socket in 0..m.sockets.min(0x100) {
            let structure = Structure::new(4, 0x400 + socket as u16)
                .text(&format!("{}{socket:2x}", self.text(4, "sock_pfx", "CPU")))
                .put(&[CENTRAL, FAMILY_2])
                .text(&self.text(4, "manufacturer", "Rhea"))
                .u64(self.number(4, "processor-id", m.processor_id))
                .text(&self.text(4, "version", m.version))
                .u8(0)
                .u16(0)
                .u16(self.number(4, "max-speed", DEFAULT_MHZ) as u16)
                .u16(self.number(4, "current-speed", DEFAULT_MHZ) as u16)
                .put(&[POPULATED_ENABLED, OTHER])
                .u16(NO_CACHE)
                .u16(NO_CACHE)
                .u16(NO_CACHE)
                .text(&self.text(4, "serial", ""))
                .text(&self.text(4, "asset", ""))
                .text(&self.text(4, "part", ""))
                .put(&[small(m.cores), small(m.cores), small(m.threads)])
                .u16(u16::from(UNKNOWN))
                .u16(self.number(4, "processor-family", 1) as u16)
                .u16(large(m.cores))
                .u16(large(m.cores))
                .u16(large(m.threads));
            self.add(structure);
        }
    }

    /// 7.9 and 7.12.
    fn ports_and_strings(&mut self) {
        let m = self.machine;
        for (n, port) in m.options.ports.iter().enumerate().take(0x100) {
            let byte = |key: &str| port.number(key).unwrap_or(0) as u8;
            let structure = Structure::new(8, 0x800 + n as u16)
                .text(port.text("internal_reference").unwrap_or(""))
                .u8(0)
                .text(port.text("external_reference").unwrap_or(""))
                .u8(byte("connector_type"))
                .u8(byte("port_type"));
            self.add(structure);
        }
        if !m.options.oem_strings.is_empty() {
            let mut structure = Structure::new(11, 0xe00).u8(m.options.oem_strings.len() as u8);
            for text in &m.options.oem_strings {
                // Counted, so an empty one must be there.
                let text = if text.is_empty() { " " } else { text };
                structure = structure.text(text);
                structure.bytes.pop();
            }
            self.add(structure);
        }
    }

    /// 7.17, 7.18 and 7.20.
    fn memory(&mut self) {
        const OTHER: u8 = 1;
        const SYSTEM_MEMORY: u8 = 3;
        const MULTI_BIT_ECC: u8 = 6;
        const IN_EXTENDED_KIB: u32 = 0x8000_0000;
        const IN_EXTENDED_MIB: u16 = 0x7fff;
        const DIMM: u8 = 9;
        const RAM: u8 = 7;
        let m = self.machine;
        let total: u64 = m.ram.iter().map(|r| r.end.saturating_sub(r.start)).sum();
        let modules = total.div_ceil(MODULE).clamp(1, 0xff);
        let kib = u32::try_from(total >> 10).ok().filter(|k| *k < IN_EXTENDED_KIB);
        let structure = Structure::new(16, ARRAY)
            .put(&[OTHER, SYSTEM_MEMORY, MULTI_BIT_ECC])
            .u32(kib.unwrap_or(IN_EXTENDED_KIB))
            .u16(NO_ERROR)
            .u16(modules as u16)
            .u64(if kib.is_some() { 0 } else { total });
        self.add(structure);
        for n in 0..modules {
            let len = if n + 1 == modules { total - n * MODULE } else { MODULE };
            let mib = u16::try_from(len / MIB).ok().filter(|m| *m < IN_EXTENDED_MIB);
            let speed = self.number(17, "speed", 0) as u16;
            let structure = Structure::new(17, 0x1100 + n as u16)
                .u16(ARRAY)
                .u16(NO_ERROR)
                .u16(0xffff)
                .u16(0xffff)
                .u16(mib.unwrap_or(IN_EXTENDED_MIB))
                .put(&[DIMM, 0])
                .text(&format!("{} {n}", self.text(17, "loc_pfx", "DIMM")))
                .text(&self.text(17, "bank", ""))
                .u8(RAM)
                // Type detail: other.
                .u16(1 << 1)
                .u16(speed)
                .text(&self.text(17, "manufacturer", "Rhea"))
                .text(&self.text(17, "serial", ""))
                .text(&self.text(17, "asset", ""))
                .text(&self.text(17, "part", ""))
                .u8(0)
                .u32(if mib.is_some() { 0 } else { (len / MIB) as u32 })
                .u16(speed)
                .u16(0)
                .u16(0)
                .u16(0);
            self.add(structure);
        }
        for (n, range) in m.ram.iter().filter(|r| r.start < r.end).enumerate().take(0x100) {
            let last = range.end - 1;
            let fits =
                u32::try_from(range.start >> 10).ok().zip(u32::try_from(last >> 10).ok().filter(|l| *l != u32::MAX));
            let (start_kib, last_kib) = fits.unwrap_or((u32::MAX, u32::MAX));
            let extended = if fits.is_some() { (0, 0) } else { (range.start, last) };
            let structure = Structure::new(19, 0x1300 + n as u16)
                .u32(start_kib)
                .u32(last_kib)
                .u16(ARRAY)
                .u8(1)
                .u64(extended.0)
                .u64(extended.1);
            self.add(structure);
        }
    }
}

impl SmbiosMachine<'_> {
    /// Builds the structures.
    #[must_use]
    pub fn build(&self) -> Smbios {
        let out = Smbios { tables: Vec::new(), count: 0, longest: 0, bits64: self.entry_point == EntryPoint::Bits64 };
        let mut b = Builder { machine: self, out };
        if self.bios || self.options.given(0) {
            b.bios();
        }
        b.identity();
        b.processors();
        b.ports_and_strings();
        b.memory();
        // No errors at boot (7.33).
        b.add(Structure::new(32, 0x2000).put(&[0; 6]).u8(0));
        for raw in &self.options.raw {
            b.add_raw(raw);
        }
        b.add(Structure::new(127, 0x7f00));
        if self.entry_point == EntryPoint::Auto && b.out.tables.len() > 0xffff {
            b.out.bits64 = true;
        }
        b.out
    }
}

fn set_checksum(bytes: &mut [u8], at: usize) {
    let total = bytes.iter().fold(0u8, |s, b| s.wrapping_add(*b));
    if let Some(byte) = bytes.get_mut(at) {
        *byte = byte.wrapping_sub(total);
    }
}

impl Smbios {
    /// The entry point for structures at `address` (5.2.1, 5.2.2).
    #[must_use]
    pub fn anchor(&self, address: u64) -> Vec<u8> {
        if self.bits64 {
            let mut a = b"_SM3_\0\x18\x03\0\0\x01\0".to_vec();
            a.extend_from_slice(&(self.tables.len() as u32).to_le_bytes());
            a.extend_from_slice(&address.to_le_bytes());
            set_checksum(&mut a, 5);
            return a;
        }
        let mut a = b"_SM_\0\x1f\x02\x08".to_vec();
        a.extend_from_slice(&self.longest.to_le_bytes());
        a.extend_from_slice(&[0; 6]);
        a.extend_from_slice(b"_DMI_\0");
        // A longer one was asked for by the user to be announced this way; a reader sees the first 64 KiB.
        a.extend_from_slice(&u16::try_from(self.tables.len()).unwrap_or(u16::MAX).to_le_bytes());
        a.extend_from_slice(&(address as u32).to_le_bytes());
        a.extend_from_slice(&self.count.to_le_bytes());
        a.push(0x28);
        set_checksum(&mut a[16..], 5);
        set_checksum(&mut a, 4);
        a
    }

    /// The structures.
    #[must_use]
    pub fn tables(&self) -> &[u8] {
        &self.tables
    }

    /// Entry point at `at` (a multiple of 16) and structures behind it: address and bytes of both.
    #[must_use]
    pub fn place(&self, at: u64) -> Vec<(u64, Vec<u8>)> {
        let tables = at + 0x20;
        vec![(at, self.anchor(tables)), (tables, self.tables.clone())]
    }

    /// Adds the two files from which firmware makes its own.
    pub fn publish(&self, fw_cfg: &FwCfg) {
        fw_cfg.add_file(ANCHOR_FILE, self.anchor(0));
        fw_cfg.add_file(TABLES_FILE, self.tables.as_slice());
    }
}

#[cfg(test)]
mod tests;
