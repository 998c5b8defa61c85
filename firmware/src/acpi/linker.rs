//! Tables that know where they hold addresses and checksums: placed by Rhea itself, or by firmware that follows a script
//! of commands (the fw_cfg file `etc/table-loader`).

/// One of the two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    Tables,
    Rsdp,
}

impl File {
    /// Its fw_cfg name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tables => TABLES_FILE,
            Self::Rsdp => RSDP_FILE,
        }
    }
}

pub const TABLES_FILE: &str = "etc/acpi/tables";
pub const RSDP_FILE: &str = "etc/acpi/rsdp";
pub const LOADER_FILE: &str = "etc/table-loader";

/// A field that holds an offset into [`File::Tables`], to become an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pointer {
    file: File,
    at: u32,
    size: u8,
}

/// A byte that makes a range sum to zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Checksum {
    file: File,
    at: u32,
    start: u32,
    len: u32,
}

/// The ACPI tables of a machine, relocatable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    blob: Vec<u8>,
    rsdp: Vec<u8>,
    pub(super) facs: u32,
    pointers: Vec<Pointer>,
    checksums: Vec<Checksum>,
}

/// Tables at fixed addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub tables: Vec<u8>,
    pub rsdp: Vec<u8>,
}

/// The three fw_cfg files. Their lengths are rounded up so that they do not change when the firmware has moved windows
/// before it reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FwCfgFiles {
    pub tables: Vec<u8>,
    pub rsdp: Vec<u8>,
    pub loader: Vec<u8>,
}

/// The root tables' alignment; the FACS asks for the most (5.2.10).
pub const ALIGN: usize = 64;
const TABLES_ROUND: usize = 0x2_0000;
const LOADER_ROUND: usize = 0x1000;
const COMMAND_LEN: usize = 128;
const NAME_LEN: usize = 56;

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |s, b| s.wrapping_add(*b))
}

impl Tables {
    /// Appends a table whose checksum does not change; gives its offset.
    pub(super) fn add(&mut self, table: &[u8]) -> u32 {
        self.blob.resize(self.blob.len().next_multiple_of(ALIGN), 0);
        let at = self.blob.len() as u32;
        self.blob.extend_from_slice(table);
        at
    }

    /// Appends a table with pointers (`at` within the table, size) that already hold offsets; its checksum is at 9.
    pub(super) fn add_with_pointers(&mut self, table: &[u8], pointers: &[(u32, u8)]) -> u32 {
        let start = self.add(table);
        for (at, size) in pointers {
            self.pointers.push(Pointer { file: File::Tables, at: start + at, size: *size });
        }
        self.checksums.push(Checksum { file: File::Tables, at: start + 9, start, len: table.len() as u32 });
        if let Some(byte) = self.blob.get_mut(start as usize + 9) {
            *byte = 0;
        }
        start
    }

    /// The root pointer, revision 2, of tables at these offsets (5.2.5.3).
    pub(super) fn set_rsdp(&mut self, oem: [u8; 6], rsdt: u32, xsdt: u32) {
        let mut rsdp = b"RSD PTR \0".to_vec();
        rsdp.extend_from_slice(&oem);
        rsdp.push(2);
        rsdp.extend_from_slice(&rsdt.to_le_bytes());
        rsdp.extend_from_slice(&36u32.to_le_bytes());
        rsdp.extend_from_slice(&u64::from(xsdt).to_le_bytes());
        rsdp.extend_from_slice(&[0; 4]);
        self.rsdp = rsdp;
        self.pointers.push(Pointer { file: File::Rsdp, at: 16, size: 4 });
        self.pointers.push(Pointer { file: File::Rsdp, at: 24, size: 8 });
        self.checksums.push(Checksum { file: File::Rsdp, at: 8, start: 0, len: 20 });
        self.checksums.push(Checksum { file: File::Rsdp, at: 32, start: 0, len: 36 });
    }

    /// Where the FACS is in them.
    #[must_use]
    pub fn facs(&self) -> u64 {
        self.facs.into()
    }
    /// Length of the tables in bytes, without the root pointer.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.blob.len() as u64
    }
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blob.is_empty()
    }

    /// The tables at `base` (aligned to 64 bytes, below 4 GiB) and the root pointer for them.
    #[must_use]
    pub fn place(&self, base: u64) -> Placed {
        let (mut tables, mut rsdp) = (self.blob.clone(), self.rsdp.clone());
        for p in &self.pointers {
            let file = if p.file == File::Tables { &mut tables } else { &mut rsdp };
            let (at, size) = (p.at as usize, usize::from(p.size));
            if let Some(field) = file.get_mut(at..at + size) {
                let mut value = [0; 8];
                value[..size].copy_from_slice(field);
                let value = u64::from_le_bytes(value).wrapping_add(base).to_le_bytes();
                field.copy_from_slice(&value[..size]);
            }
        }
        for c in &self.checksums {
            let file = if c.file == File::Tables { &mut tables } else { &mut rsdp };
            let total = file.get(c.start as usize..(c.start + c.len) as usize).map_or(0, sum);
            if let Some(byte) = file.get_mut(c.at as usize) {
                *byte = byte.wrapping_sub(total);
            }
        }
        Placed { tables, rsdp }
    }

    /// The files for firmware.
    #[must_use]
    pub fn files(&self) -> FwCfgFiles {
        let mut tables = self.blob.clone();
        tables.resize(tables.len().next_multiple_of(TABLES_ROUND), 0);
        // Zones: 1 anywhere below 4 GiB, 2 the BIOS segment.
        let mut script = Script::default();
        script.allocate(File::Rsdp, 16, 2);
        script.allocate(File::Tables, ALIGN as u32, 1);
        self.pointers.iter().for_each(|p| script.pointer(p));
        self.checksums.iter().for_each(|c| script.checksum(c));
        let mut loader = script.0;
        loader.resize(loader.len().next_multiple_of(LOADER_ROUND), 0);
        FwCfgFiles { tables, rsdp: self.rsdp.clone(), loader }
    }
}

/// Commands of 128 bytes each: number, then the arguments.
#[derive(Default)]
struct Script(Vec<u8>);

impl Script {
    fn command(&mut self, number: u32, arguments: &[&[u8]]) {
        let end = self.0.len() + COMMAND_LEN;
        self.0.extend_from_slice(&number.to_le_bytes());
        arguments.iter().for_each(|a| self.0.extend_from_slice(a));
        self.0.resize(end, 0);
    }
    fn allocate(&mut self, file: File, align: u32, zone: u8) {
        self.command(1, &[&name(file), &align.to_le_bytes(), &[zone]]);
    }
    fn pointer(&mut self, p: &Pointer) {
        self.command(2, &[&name(p.file), &name(File::Tables), &p.at.to_le_bytes(), &[p.size]]);
    }
    fn checksum(&mut self, c: &Checksum) {
        self.command(3, &[&name(c.file), &c.at.to_le_bytes(), &c.start.to_le_bytes(), &c.len.to_le_bytes()]);
    }
}

fn name(file: File) -> [u8; NAME_LEN] {
    let mut field = [0; NAME_LEN];
    let bytes = file.name().as_bytes();
    field[..bytes.len()].copy_from_slice(bytes);
    field
}
