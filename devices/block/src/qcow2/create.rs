//! New images.

use super::header::{Compression, Header, autoclear, compatible, incompatible};
use super::{Qcow2, Qcow2Options, bytes_of, refcount};
use crate::{BlockBackend, NodeOptions};
use std::sync::Arc;

/// What is allocated when an image is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Preallocation {
    #[default]
    Off,
    /// Every cluster has its place.
    Metadata,
    /// And storage of the host.
    Falloc,
    /// Which is written.
    Full,
}

impl Preallocation {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Metadata => "metadata",
            Self::Falloc => "falloc",
            Self::Full => "full",
        }
    }
    /// From its name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Off, Self::Metadata, Self::Falloc, Self::Full].into_iter().find(|p| p.name() == name)
    }
}

/// The options of a new image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateOptions {
    /// Bytes of the disk, a multiple of 512.
    pub size: u64,
    pub version: u32,
    pub cluster_size: u64,
    pub refcount_bits: u32,
    pub lazy_refcounts: bool,
    pub compression: Compression,
    pub extended_l2: bool,
    pub backing_file: Option<String>,
    pub backing_format: Option<String>,
    pub data_file: Option<String>,
    pub data_file_raw: bool,
    pub preallocation: Preallocation,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self {
            size: 0,
            version: 3,
            cluster_size: 64 << 10,
            refcount_bits: 16,
            lazy_refcounts: false,
            compression: Compression::Zlib,
            extended_l2: false,
            backing_file: None,
            backing_format: None,
            data_file: None,
            data_file_raw: false,
            preallocation: Preallocation::Off,
        }
    }
}

impl CreateOptions {
    /// Takes what is said; `size` must be set otherwise if it is not among it.
    ///
    /// # Errors
    /// One line.
    pub fn take(o: &mut NodeOptions) -> Result<Self, String> {
        let mut c = Self::default();
        c.size = o.take_size("size")?.unwrap_or(0);
        c.version = match o.take_choice("compat", &["0.10", "1.1", "v2", "v3"])? {
            Some("0.10" | "v2") => 2,
            _ => 3,
        };
        c.extended_l2 = o.take_bool("extended_l2")?.unwrap_or(false);
        c.cluster_size = o.take_size("cluster_size")?.unwrap_or(c.cluster_size);
        if let Some(bits) = o.take_size("refcount_bits")? {
            c.refcount_bits = u32::try_from(bits).unwrap_or(u32::MAX);
        }
        c.lazy_refcounts = o.take_bool("lazy_refcounts")?.unwrap_or(false);
        if o.take_choice("compression_type", &["zlib", "zstd"])? == Some("zstd") {
            c.compression = Compression::Zstd;
        }
        c.backing_file = o.take_text("backing_file")?.filter(|f| !f.is_empty());
        c.backing_format = o.take_text("backing_fmt")?.filter(|f| !f.is_empty());
        c.data_file = o.take_text("data_file")?;
        c.data_file_raw = o.take_bool("data_file_raw")?.unwrap_or(false);
        if let Some(word) = o.take_choice("preallocation", &["off", "metadata", "falloc", "full"])? {
            c.preallocation = Preallocation::parse(word).unwrap_or_default();
        }
        if o.take_choice("encryption", &["off", "on"])? == Some("on") || o.has("encrypt") || o.has("encrypt.format") {
            return Err("encryption is not supported".to_owned());
        }
        Ok(c)
    }
    fn check(&self) -> Result<(), String> {
        let c = self.cluster_size;
        if !c.is_power_of_two() || !(512..=2 << 20).contains(&c) {
            return Err("cluster size must be a power of two between 512 and 2048k".to_owned());
        }
        if self.extended_l2 && c < 16 << 10 {
            return Err("extended L2 entries need a cluster size of at least 16k".to_owned());
        }
        if !self.refcount_bits.is_power_of_two() || self.refcount_bits > 64 {
            return Err("refcount width must be a power of two and may not exceed 64 bits".to_owned());
        }
        let v3_only = [
            (self.refcount_bits != 16, "a refcount width other than 16 bits"),
            (self.lazy_refcounts, "lazy refcounts"),
            (self.extended_l2, "extended L2 entries"),
            (self.data_file.is_some(), "an external data file"),
            (self.compression != Compression::Zlib, "another compression type than zlib"),
        ];
        if let Some((_, what)) = v3_only.iter().find(|(on, _)| *on && self.version < 3) {
            return Err(format!("{what} needs compatibility level 1.1 and above (use compat=1.1 or greater)"));
        }
        if self.data_file_raw && self.data_file.is_none() {
            return Err("data_file_raw needs data_file".to_owned());
        }
        if self.data_file_raw && self.backing_file.is_some() {
            return Err("a backing file and data_file_raw cannot be used at the same time".to_owned());
        }
        if self.backing_file.is_some() && self.preallocation != Preallocation::Off && !self.extended_l2 {
            return Err("a backing file and preallocation can only be used at the same time if extended_l2 is enabled"
                .to_owned());
        }
        if !self.size.is_multiple_of(512) {
            return Err("the size must be a multiple of 512".to_owned());
        }
        Ok(())
    }
}

/// Writes a new image into `file`, which is empty; `data_file` if it has one.
///
/// # Errors
/// One line.
pub fn create(
    file: &Arc<dyn BlockBackend>,
    options: &CreateOptions,
    data_file: Option<Arc<dyn BlockBackend>>,
) -> Result<(), String> {
    options.check()?;
    let cluster = options.cluster_size;
    let mut header = Header {
        version: options.version,
        cluster_bits: cluster.trailing_zeros(),
        size: options.size,
        l1_size: 0,
        l1_offset: 0,
        refcount_table_offset: cluster,
        refcount_table_clusters: 0,
        snapshot_count: 0,
        snapshots_offset: 0,
        incompatible: 0,
        compatible: 0,
        autoclear: 0,
        refcount_order: options.refcount_bits.trailing_zeros(),
        compression: options.compression,
        rest: Vec::new(),
        backing_file: options.backing_file.clone(),
        backing_format: options.backing_format.clone(),
        data_file: options.data_file.clone(),
        bitmaps: None,
        unknown: Vec::new(),
    };
    let mut feature = |on: bool, bit: u64| header.incompatible |= if on { bit } else { 0 };
    feature(options.extended_l2, incompatible::EXTENDED_L2);
    feature(options.data_file.is_some(), incompatible::DATA_FILE);
    feature(options.compression != Compression::Zlib, incompatible::COMPRESSION);
    header.compatible = if options.lazy_refcounts { compatible::LAZY_REFCOUNTS } else { 0 };
    header.autoclear = if options.data_file_raw { autoclear::RAW_DATA_FILE } else { 0 };
    if options.version >= 3 {
        header.unknown.push(Header::feature_names());
        // Where clusters are small, the names must not push the backing file out.
        if header.to_bytes().is_err() {
            header.unknown.clear();
        }
    }
    let entries = header.l1_needed(options.size);
    if entries > super::header::MAX_L1 {
        return Err("image size is too large for its cluster size (try a larger one)".to_owned());
    }
    let l1_clusters = (entries * 8).div_ceil(cluster).max(1);
    let per = (cluster * 8) >> header.refcount_order;
    let (mut tables, mut blocks) = (1, 1);
    loop {
        let b = (1 + tables + blocks + l1_clusters).div_ceil(per);
        let t = (b * 8).div_ceil(cluster);
        if b == blocks && t == tables {
            break;
        }
        (tables, blocks) = (t.max(tables), b.max(blocks));
    }
    header.refcount_table_clusters = tables as u32;
    header.l1_size = entries as u32;
    header.l1_offset = (1 + tables + blocks) * cluster;
    let used = 1 + tables + blocks + l1_clusters;
    let fail = |e: std::io::Error| format!("cannot write the image: {}", crate::error_text(&e));
    let mut table = vec![0; (tables * cluster / 8) as usize];
    for b in 0..blocks {
        let mut data = vec![0; cluster as usize];
        for i in 0..per.min(used.saturating_sub(b * per)) {
            refcount::set(&mut data, header.refcount_order, i as usize, 1);
        }
        table[b as usize] = (1 + tables + b) * cluster;
        file.write_bytes(table[b as usize], &data).map_err(fail)?;
    }
    file.write_bytes(cluster, &bytes_of(&table)).map_err(fail)?;
    let l1 = vec![0; (l1_clusters * cluster) as usize];
    file.write_bytes(header.l1_offset, &l1).map_err(fail)?;
    let mut first = header.to_bytes()?;
    first.resize(cluster as usize, 0);
    file.write_bytes(0, &first).map_err(fail)?;
    if options.preallocation != Preallocation::Off && options.size > 0 {
        let (image, _) = Qcow2::open(file.clone(), Qcow2Options::new(false))?;
        if let Some(data) = &data_file {
            image.set_data_file(data.clone());
        }
        image.allocate_range(0, options.size).map_err(fail)?;
        let end = image.meta.lock().fresh_from;
        if end > file.capacity() {
            file.resize(end).map_err(fail)?;
        }
        image.close().map_err(fail)?;
    }
    file.flush().map_err(fail)
}
