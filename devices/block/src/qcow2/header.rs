//! The header of a qcow2 image and its extensions.

/// First bytes.
pub const MAGIC: u32 = 0x5146_49fb;

/// Incompatible features.
pub mod incompatible {
    /// Reference counts may be behind.
    pub const DIRTY: u64 = 1;
    pub const CORRUPT: u64 = 1 << 1;
    pub const DATA_FILE: u64 = 1 << 2;
    /// The compression type is in the header.
    pub const COMPRESSION: u64 = 1 << 3;
    /// L2 entries of 128 bits, with subclusters.
    pub const EXTENDED_L2: u64 = 1 << 4;
    pub const ALL: u64 = 0x1f;
}
/// Compatible features.
pub mod compatible {
    pub const LAZY_REFCOUNTS: u64 = 1;
}
/// Features that are cleared by writers that do not know them.
pub mod autoclear {
    /// The bitmaps are consistent with the image.
    pub const BITMAPS: u64 = 1;
    /// The data file is the disk, byte by byte.
    pub const RAW_DATA_FILE: u64 = 1 << 1;
    pub const ALL: u64 = 3;
}

const EXT_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXT_FEATURE_NAMES: u32 = 0x6803_f857;
const EXT_BITMAPS: u32 = 0x2385_2875;
const EXT_CRYPTO: u32 = 0x0537_be77;
const EXT_DATA_FILE: u32 = 0x4441_5441;

/// How clusters are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Compression {
    #[default]
    Zlib,
    Zstd,
}

impl Compression {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        }
    }
}

/// The bitmaps extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitmapsExtension {
    pub count: u32,
    pub directory_size: u64,
    pub directory_offset: u64,
}

/// The header, in host order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub version: u32,
    pub cluster_bits: u32,
    /// Bytes of the disk.
    pub size: u64,
    pub l1_size: u32,
    pub l1_offset: u64,
    pub refcount_table_offset: u64,
    pub refcount_table_clusters: u32,
    pub snapshot_count: u32,
    pub snapshots_offset: u64,
    pub incompatible: u64,
    pub compatible: u64,
    pub autoclear: u64,
    pub refcount_order: u32,
    pub compression: Compression,
    /// Bytes of the header behind those known here.
    pub rest: Vec<u8>,
    pub backing_file: Option<String>,
    pub backing_format: Option<String>,
    pub data_file: Option<String>,
    pub bitmaps: Option<BitmapsExtension>,
    /// Kept as they are.
    pub unknown: Vec<(u32, Vec<u8>)>,
}

fn be32(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}
fn be64(b: &[u8], at: usize) -> u64 {
    u64::from(be32(b, at)) << 32 | u64::from(be32(b, at + 4))
}

/// Entries of the L1 table that are accepted: 32 MiB.
pub const MAX_L1: u64 = (32 << 20) / 8;
/// Bytes of the refcount table that are accepted.
pub const MAX_REFCOUNT_TABLE: u64 = 8 << 20;
pub const MAX_SNAPSHOTS: u32 = 65536;
const MAX_BACKING_NAME: u32 = 1023;

impl Header {
    #[must_use]
    pub fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }
    #[must_use]
    pub fn extended_l2(&self) -> bool {
        self.incompatible & incompatible::EXTENDED_L2 != 0
    }
    #[must_use]
    pub fn has_data_file(&self) -> bool {
        self.incompatible & incompatible::DATA_FILE != 0
    }
    /// Entries of an L2 table.
    #[must_use]
    pub fn l2_entries(&self) -> u64 {
        self.cluster_size() / if self.extended_l2() { 16 } else { 8 }
    }
    /// Entries of the L1 table for `size` bytes.
    #[must_use]
    pub fn l1_needed(&self, size: u64) -> u64 {
        size.div_ceil(self.cluster_size() * self.l2_entries())
    }

    /// Parses the first bytes of an image: all of the first cluster, or as much of it as the file has.
    ///
    /// # Errors
    /// One line.
    pub fn parse(b: &[u8]) -> Result<Self, String> {
        if b.len() < 72 || be32(b, 0) != MAGIC {
            return Err("image is not in qcow2 format".to_owned());
        }
        let version = be32(b, 4);
        if !(2..=3).contains(&version) {
            return Err(format!("unsupported qcow2 version {version}"));
        }
        if version == 3 && b.len() < 104 {
            return Err("the qcow2 header is truncated".to_owned());
        }
        let cluster_bits = be32(b, 20);
        if !(9..=21).contains(&cluster_bits) {
            return Err(format!("unsupported cluster size: 2^{cluster_bits}"));
        }
        let cluster = 1u64 << cluster_bits;
        let (header_length, refcount_order) = if version == 3 { (be32(b, 100), be32(b, 96)) } else { (72, 4) };
        if version == 3 && header_length < 104 {
            return Err("the qcow2 header is too short".to_owned());
        }
        if u64::from(header_length) > cluster || header_length as usize > b.len() {
            return Err("the qcow2 header exceeds the cluster size".to_owned());
        }
        if refcount_order > 6 {
            return Err("the reference count entry width is too large: at most 64 bits".to_owned());
        }
        let feature = |at| if version == 3 { be64(b, at) } else { 0 };
        let mut header = Self {
            version,
            cluster_bits,
            size: be64(b, 24),
            l1_size: be32(b, 36),
            l1_offset: be64(b, 40),
            refcount_table_offset: be64(b, 48),
            refcount_table_clusters: be32(b, 56),
            snapshot_count: be32(b, 60),
            snapshots_offset: be64(b, 64),
            incompatible: feature(72),
            compatible: feature(80),
            autoclear: feature(88),
            refcount_order,
            compression: Compression::Zlib,
            rest: b[..header_length as usize].get(112..).unwrap_or_default().to_vec(),
            backing_file: None,
            backing_format: None,
            data_file: None,
            bitmaps: None,
            unknown: Vec::new(),
        };
        let (backing_offset, backing_len) = (be64(b, 8), be32(b, 16));
        let end = if backing_offset == 0 { cluster } else { backing_offset };
        if end > cluster || (backing_offset != 0 && end < u64::from(header_length)) {
            return Err("invalid backing file offset".to_owned());
        }
        header.extensions(b, header_length as usize, (end as usize).min(b.len()))?;
        header.check_features()?;
        if be32(b, 32) != 0 {
            let method = if be32(b, 32) == 2 { "LUKS" } else { "AES" };
            return Err(format!("the image is encrypted ({method}), which is not supported"));
        }
        if header.incompatible & incompatible::COMPRESSION != 0 {
            header.compression = match b.get(104).filter(|_| header_length > 104) {
                Some(0) => Compression::Zlib,
                Some(1) => Compression::Zstd,
                Some(n) => return Err(format!("unknown compression type {n}")),
                None => return Err("the qcow2 header has no compression type".to_owned()),
            };
        } else if header_length > 104 && b[104] != 0 {
            return Err("the compression type is set without its incompatible feature bit".to_owned());
        }
        if backing_offset != 0 {
            if backing_len > MAX_BACKING_NAME || backing_offset + u64::from(backing_len) > b.len() as u64 {
                return Err("the name of the backing file is too long".to_owned());
            }
            let name = &b[backing_offset as usize..][..backing_len as usize];
            let name = std::str::from_utf8(name).map_err(|_| "the name of the backing file is not UTF-8")?;
            header.backing_file = (!name.is_empty()).then(|| name.to_owned());
        }
        header.check_tables()?;
        Ok(header)
    }

    fn extensions(&mut self, b: &[u8], start: usize, end: usize) -> Result<(), String> {
        let mut at = start;
        while at + 8 <= end {
            let (kind, len) = (be32(b, at), be32(b, at + 4) as usize);
            at += 8;
            if kind == 0 {
                break;
            }
            let data = b.get(at..).and_then(|b| b.get(..len)).filter(|_| len <= end - at);
            let data = data.ok_or_else(|| format!("header extension {kind:#x} is too large"))?;
            let text = |what: &str| match std::str::from_utf8(data) {
                Ok(t) => Ok(Some(t.trim_end_matches('\0').to_owned())),
                Err(_) => Err(format!("the name of the {what} is not UTF-8")),
            };
            match kind {
                EXT_BACKING_FORMAT => self.backing_format = text("backing format")?,
                EXT_DATA_FILE => self.data_file = text("data file")?,
                EXT_CRYPTO => return Err("the image is encrypted (LUKS), which is not supported".to_owned()),
                EXT_BITMAPS => {
                    if len != 24 {
                        return Err("the bitmaps extension has a wrong length".to_owned());
                    }
                    self.bitmaps = Some(BitmapsExtension {
                        count: be32(data, 0),
                        directory_size: be64(data, 8),
                        directory_offset: be64(data, 16),
                    });
                }
                _ => self.unknown.push((kind, data.to_vec())),
            }
            at = at.saturating_add(len.next_multiple_of(8));
        }
        Ok(())
    }

    /// What the image calls an incompatible feature.
    fn feature_name(&self, bit: u32) -> String {
        let table = self.unknown.iter().find(|(kind, _)| *kind == EXT_FEATURE_NAMES).map(|(_, d)| d.as_slice());
        let entry = table.unwrap_or_default().as_chunks::<48>().0.iter().find(|e| e[0] == 0 && u32::from(e[1]) == bit);
        match entry {
            Some(entry) => {
                let name = entry[2..].split(|b| *b == 0).next().unwrap_or_default();
                String::from_utf8_lossy(name).chars().filter(|c| !c.is_control()).collect()
            }
            None => format!("unknown incompatible feature {:#x}", 1u64 << bit),
        }
    }
    fn check_features(&self) -> Result<(), String> {
        let unknown = self.incompatible & !incompatible::ALL;
        if unknown != 0 {
            let names: Vec<String> =
                (0..64).filter(|b| unknown & (1 << b) != 0).map(|b| self.feature_name(b)).collect();
            return Err(format!("unsupported qcow2 feature(s): {}", names.join(", ")));
        }
        if self.extended_l2() && self.cluster_bits < 14 {
            return Err("extended L2 entries need clusters of at least 16 KiB".to_owned());
        }
        if self.data_file.is_some() && !self.has_data_file() {
            return Err("a data file is named without its incompatible feature bit".to_owned());
        }
        Ok(())
    }
    fn check_tables(&self) -> Result<(), String> {
        let aligned = |offset: u64| offset.is_multiple_of(self.cluster_size()) && offset < 1 << 56;
        if u64::from(self.l1_size) > MAX_L1 {
            return Err("the active L1 table is too large".to_owned());
        }
        if self.size > i64::MAX as u64 || self.l1_needed(self.size) > u64::from(self.l1_size) {
            return Err("the L1 table is too small for the disk".to_owned());
        }
        if !aligned(self.l1_offset) || (self.l1_offset == 0 && self.l1_size != 0) {
            return Err("the active L1 table offset is invalid".to_owned());
        }
        if u64::from(self.refcount_table_clusters) * self.cluster_size() > MAX_REFCOUNT_TABLE.max(self.cluster_size()) {
            return Err("the reference count table is too large".to_owned());
        }
        if !aligned(self.refcount_table_offset) || self.refcount_table_offset == 0 {
            return Err("the reference count table offset is invalid".to_owned());
        }
        if self.refcount_table_clusters == 0 {
            return Err("the image has no reference count table".to_owned());
        }
        if self.snapshot_count > MAX_SNAPSHOTS {
            return Err("too many snapshots".to_owned());
        }
        if self.snapshot_count != 0 && !aligned(self.snapshots_offset) {
            return Err("the snapshot table offset is invalid".to_owned());
        }
        Ok(())
    }

    /// The bytes of the header, its extensions and the name of the backing file.
    ///
    /// # Errors
    /// They do not fit into a cluster.
    pub fn to_bytes(&self) -> Result<Vec<u8>, String> {
        let v3 = self.version == 3;
        let mut b = vec![0; if v3 { 112 } else { 72 }];
        let mut put = |at: usize, bytes: &[u8]| b[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC.to_be_bytes());
        put(4, &self.version.to_be_bytes());
        put(20, &self.cluster_bits.to_be_bytes());
        put(24, &self.size.to_be_bytes());
        put(36, &self.l1_size.to_be_bytes());
        put(40, &self.l1_offset.to_be_bytes());
        put(48, &self.refcount_table_offset.to_be_bytes());
        put(56, &self.refcount_table_clusters.to_be_bytes());
        put(60, &self.snapshot_count.to_be_bytes());
        put(64, &self.snapshots_offset.to_be_bytes());
        if v3 {
            put(72, &self.incompatible.to_be_bytes());
            put(80, &self.compatible.to_be_bytes());
            put(88, &self.autoclear.to_be_bytes());
            put(96, &self.refcount_order.to_be_bytes());
            put(100, &(112 + self.rest.len() as u32).to_be_bytes());
            put(104, &[self.compression as u8]);
            b.extend_from_slice(&self.rest);
        }
        let mut extension = |kind: u32, data: &[u8]| {
            b.extend_from_slice(&kind.to_be_bytes());
            b.extend_from_slice(&(data.len() as u32).to_be_bytes());
            b.extend_from_slice(data);
            b.resize(b.len().next_multiple_of(8), 0);
        };
        if let Some(format) = &self.backing_format {
            extension(EXT_BACKING_FORMAT, format.as_bytes());
        }
        if let Some(name) = &self.data_file {
            extension(EXT_DATA_FILE, name.as_bytes());
        }
        for (kind, data) in &self.unknown {
            extension(*kind, data);
        }
        if let Some(e) = self.bitmaps {
            let mut data = [0; 24];
            data[..4].copy_from_slice(&e.count.to_be_bytes());
            data[8..16].copy_from_slice(&e.directory_size.to_be_bytes());
            data[16..].copy_from_slice(&e.directory_offset.to_be_bytes());
            extension(EXT_BITMAPS, &data);
        }
        extension(0, &[]);
        if let Some(name) = &self.backing_file {
            let at = b.len() as u64;
            b[8..16].copy_from_slice(&at.to_be_bytes());
            b[16..20].copy_from_slice(&(name.len() as u32).to_be_bytes());
            b.extend_from_slice(name.as_bytes());
            if name.len() > MAX_BACKING_NAME as usize {
                return Err("the name of the backing file is too long: at most 1023 bytes".to_owned());
            }
        }
        if b.len() as u64 > self.cluster_size() {
            return Err("the header does not fit into a cluster: use larger clusters or shorter names".to_owned());
        }
        Ok(b)
    }

    /// The names of all features, for readers that lack some.
    #[must_use]
    pub fn feature_names() -> (u32, Vec<u8>) {
        let names: [(u8, u8, &str); 8] = [
            (0, 0, "dirty bit"),
            (0, 1, "corrupt bit"),
            (0, 2, "external data file"),
            (0, 3, "compression type"),
            (0, 4, "extended L2 entries"),
            (1, 0, "lazy refcounts"),
            (2, 0, "bitmaps"),
            (2, 1, "raw external data"),
        ];
        let mut table = Vec::new();
        for (kind, bit, name) in names {
            let start = table.len();
            table.extend_from_slice(&[kind, bit]);
            table.extend_from_slice(name.as_bytes());
            table.resize(start + 48, 0);
        }
        (EXT_FEATURE_NAMES, table)
    }
}
