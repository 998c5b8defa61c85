//! qcow2 images, versions 2 and 3.
//!
//! **Order on disk.** Data is written before anything refers to it. Tables are changed in memory and written by [`flush`]: first
//! reference counts, then (after a barrier) L2 tables and the L1 table; clusters that became free are given back only after
//! that. So whenever the process or the host dies, every cluster that something refers to is counted, and what the guest flushed
//! is referred to; clusters may be counted that nothing refers to (leaks).
//!
//! **Locks.** A request holds its range of the disk ([`RangeLock`]): shared while it uses the mapping, exclusively while it changes
//! it. The tables are behind one short lock, which is not held while data is moved. Changes of the whole image (snapshots,
//! resizes) hold all of the range. Order: range, `flushing`, `meta`.

mod bitmap;
mod check;
mod compress;
mod create;
mod flush;
pub mod header;
mod io;
mod refcount;
mod resize;
mod snapshot;
mod table;
mod vmstate;

pub use bitmap::Bitmap;
pub use check::{CheckReport, Fix};
pub use compress::Compressor;
pub use create::{CreateOptions, Preallocation, create};
pub use snapshot::Snapshot;
pub use vmstate::{VmStateReader, VmStateWriter};

use crate::range_lock::RangeLock;
use crate::{BlockBackend, Inherit, NodeOptions};
use header::{Compression, Header, autoclear, compatible, incompatible};
use parking_lot::{Mutex, RwLock};
use std::io as stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Set in entries whose cluster has reference count 1.
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// Of standard L2 entries: reads as zero.
const ZERO: u64 = 1;
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// What the user says about an image.
#[derive(Clone, Copy, Debug)]
pub struct Qcow2Options {
    pub readonly: bool,
    /// Overrides the image's own choice.
    pub lazy_refcounts: Option<bool>,
    /// Bytes of L2 tables kept in memory.
    pub l2_cache: u64,
    /// Accept damage, for a check.
    pub check: bool,
    /// Another process has the image: it is not written until [`crate::handover::take`].
    pub away: bool,
    /// Barriers are not needed: what the host loses in a power failure is lost.
    pub no_flush: bool,
}

impl Qcow2Options {
    /// The options of a reader or writer with defaults.
    #[must_use]
    pub fn new(readonly: bool) -> Self {
        Self { readonly, lazy_refcounts: None, l2_cache: 32 << 20, check: false, away: false, no_flush: false }
    }
    pub(crate) fn take(o: &mut NodeOptions, inherit: &Inherit) -> Result<Self, String> {
        let mut options = Self {
            lazy_refcounts: o.take_bool("lazy-refcounts")?,
            check: inherit.check,
            away: inherit.away,
            no_flush: inherit.no_flush,
            ..Self::new(inherit.readonly)
        };
        let l2 = o.take_size("l2-cache-size")?;
        let refcounts = o.take_size("refcount-cache-size")?;
        let all = o.take_size("cache-size")?;
        if let Some(all) = all {
            if l2.unwrap_or(0).saturating_add(refcounts.unwrap_or(0)) > all {
                return Err("'cache-size' is less than 'l2-cache-size' and 'refcount-cache-size'".to_owned());
            }
            options.l2_cache = all - refcounts.unwrap_or(0);
        }
        options.l2_cache = l2.unwrap_or(options.l2_cache);
        o.take_size("l2-cache-entry-size")?;
        // Tables that were not used for a while are dropped as others need the room.
        o.take_size("cache-clean-interval")?;
        // Allocations are always checked against the places of tables.
        o.take_choice("overlap-check", &["none", "constant", "cached", "all"])?;
        Ok(options)
    }
}

/// Files that the header names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub backing_file: Option<String>,
    pub backing_format: Option<String>,
    /// There is an external data file; its name may be empty.
    pub data_file: Option<String>,
}

/// What is behind the lock.
struct Meta {
    header: Header,
    l1: Vec<u64>,
    l1_dirty: std::collections::BTreeSet<usize>,
    l2: table::L2Cache,
    refs: refcount::Refcounts,
    /// Ranges of clusters to be given back after the next flush: first and last.
    frees: Vec<(u64, u64)>,
    snapshots: Vec<Snapshot>,
    bitmaps: Vec<bitmap::Tracked>,
    /// What the first write does was done.
    started: bool,
    /// No byte from here on in the file was ever used: it reads as zero.
    fresh_from: u64,
    /// Where the next compressed cluster may go, in the middle of a cluster; 0: nowhere.
    compressed_at: u64,
}

/// A qcow2 image.
pub struct Qcow2 {
    file: Arc<dyn BlockBackend>,
    data_file: OnceLock<Arc<dyn BlockBackend>>,
    backing: RwLock<Option<Arc<dyn BlockBackend>>>,
    options: Qcow2Options,
    readonly: AtomicBool,
    /// Another process has the image: nothing is written, and what is known of it may be old.
    away: AtomicBool,
    cluster_bits: u32,
    version: u32,
    extended: bool,
    has_data_file: bool,
    raw_data_file: bool,
    compression: Compression,
    size: AtomicU64,
    meta: Mutex<Meta>,
    ranges: RangeLock,
    flushing: Mutex<()>,
    /// Damage was found: nothing is written any more.
    corrupt: AtomicBool,
    unpacked: Mutex<Option<(u64, Arc<Vec<u8>>)>>,
}

fn invalid(message: impl Into<String>) -> stdio::Error {
    stdio::Error::new(stdio::ErrorKind::InvalidData, message.into())
}

/// Big-endian words.
fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks::<8>().0.iter().map(|b| u64::from_be_bytes(*b)).collect()
}
fn bytes_of(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_be_bytes()).collect()
}

fn read_words(file: &dyn BlockBackend, offset: u64, count: usize) -> stdio::Result<Vec<u64>> {
    let mut bytes = vec![0; count * 8];
    file.read_bytes(offset, &mut bytes)?;
    Ok(words(&bytes))
}

impl Meta {
    fn read(file: &dyn BlockBackend, options: &Qcow2Options) -> Result<Self, String> {
        let fail = |e: stdio::Error| format!("cannot read the image: {}", crate::error_text(&e));
        let len = file.capacity();
        let mut head = vec![0; len.min(2 << 20) as usize];
        // The size of a cluster is in the first bytes.
        head.truncate(512);
        file.read_bytes(0, &mut head).map_err(fail)?;
        if let Some(bits) = head.get(20..24).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
            && (9..=21).contains(&bits)
        {
            head.resize(len.min(1 << bits) as usize, 0);
            file.read_bytes(0, &mut head).map_err(fail)?;
        }
        let header = Header::parse(&head)?;
        if header.incompatible & incompatible::CORRUPT != 0 && !options.readonly && !options.check {
            return Err(
                "the image is marked as corrupt and can only be read: repair it with 'img check -r all'".to_owned()
            );
        }
        let table_bytes = u64::from(header.refcount_table_clusters) * header.cluster_size();
        if header.l1_offset.saturating_add(u64::from(header.l1_size) * 8) > len.next_multiple_of(header.cluster_size())
            || header.refcount_table_offset.saturating_add(table_bytes) > len.next_multiple_of(header.cluster_size())
        {
            return Err("a table lies behind the end of the file".to_owned());
        }
        let l1 = read_words(file, header.l1_offset, header.l1_size as usize).map_err(fail)?;
        let table = read_words(file, header.refcount_table_offset, (table_bytes / 8) as usize).map_err(fail)?;
        let snapshots = snapshot::read_table(file, &header)?;
        let cluster_bits = header.cluster_bits;
        Ok(Self {
            l1,
            l1_dirty: std::collections::BTreeSet::new(),
            l2: table::L2Cache::new(cluster_bits, options.l2_cache),
            refs: refcount::Refcounts::new(cluster_bits, header.refcount_order, table),
            frees: Vec::new(),
            snapshots,
            bitmaps: Vec::new(),
            started: false,
            fresh_from: len.next_multiple_of(1 << cluster_bits),
            compressed_at: 0,
            header,
        })
    }
}

impl Qcow2 {
    /// Opens an image in `file`. Backing and data file are set by the caller, who then calls [`Self::prepare`].
    ///
    /// # Errors
    /// One line.
    pub fn open(file: Arc<dyn BlockBackend>, options: Qcow2Options) -> Result<(Arc<Self>, Found), String> {
        let meta = Meta::read(&*file, &options)?;
        let header = &meta.header;
        let found = Found {
            backing_file: header.backing_file.clone(),
            backing_format: header.backing_format.clone(),
            data_file: header.has_data_file().then(|| header.data_file.clone().unwrap_or_default()),
        };
        let cluster_bits = header.cluster_bits;
        let image = Arc::new(Self {
            data_file: OnceLock::new(),
            backing: RwLock::new(None),
            options,
            readonly: AtomicBool::new(options.readonly),
            away: AtomicBool::new(options.away && !options.readonly),
            cluster_bits,
            version: header.version,
            extended: header.extended_l2(),
            has_data_file: header.has_data_file(),
            raw_data_file: header.has_data_file() && header.autoclear & autoclear::RAW_DATA_FILE != 0,
            compression: header.compression,
            size: AtomicU64::new(header.size),
            meta: Mutex::new(meta),
            ranges: RangeLock::default(),
            flushing: Mutex::new(()),
            corrupt: AtomicBool::new(false),
            unpacked: Mutex::new(None),
            file,
        });
        image.remember_tables();
        Ok((image, found))
    }
    pub(crate) fn set_data_file(&self, file: Arc<dyn BlockBackend>) {
        // Set once, by whoever opens the image.
        let _ = self.data_file.set(file);
    }
    /// Puts another image below this one, or none.
    pub fn set_backing(&self, backing: Option<Arc<dyn BlockBackend>>) {
        let _all = self.ranges.all();
        *self.backing.write() = backing;
    }
    #[must_use]
    pub fn backing(&self) -> Option<Arc<dyn BlockBackend>> {
        self.backing.read().clone()
    }
    fn is_readonly(&self) -> bool {
        self.readonly.load(Ordering::Acquire)
    }
    fn is_away(&self) -> bool {
        self.away.load(Ordering::Acquire)
    }
    /// Another process is to write the image: nothing of it waits in memory, and it is written here no more.
    ///
    /// # Errors
    /// The host's; it stays as it was.
    pub(crate) fn hand_over(&self) -> stdio::Result<()> {
        if !self.is_away() {
            let _all = self.ranges.all();
            if !self.corrupt.load(Ordering::Acquire) {
                self.settle()?;
            }
            self.finish()?;
            self.away.store(true, Ordering::Release);
        }
        Ok(())
    }
    /// Another process had the image: reads what that has made of it, and makes it ready.
    ///
    /// # Errors
    /// One line: damage, the host's, or it is not the image that was opened any more.
    pub(crate) fn take_over(&self) -> Result<(), String> {
        if !self.is_away() {
            return Ok(());
        }
        {
            let _all = self.ranges.all();
            let meta = Meta::read(&*self.file, &self.options)?;
            let (old, new) = (self.header(), &meta.header);
            let same = [
                ("its version", old.version == new.version),
                ("the size of its clusters", old.cluster_bits == new.cluster_bits),
                ("its kind of L2 entries", old.extended_l2() == new.extended_l2()),
                ("its compression", old.compression == new.compression),
                ("its backing file", old.backing_file == new.backing_file),
                ("its data file", old.has_data_file() == new.has_data_file() && old.data_file == new.data_file),
            ];
            if let Some((what, _)) = same.iter().find(|(_, same)| !same) {
                return Err(format!("{what} has changed since the image was opened"));
            }
            self.size.store(meta.header.size, Ordering::Release);
            *self.meta.lock() = meta;
            self.remember_tables();
            *self.unpacked.lock() = None;
            self.corrupt.store(false, Ordering::Release);
            self.away.store(false, Ordering::Release);
        }
        self.prepare().map_err(|e| {
            self.away.store(true, Ordering::Release);
            crate::error_text(&e)
        })
    }
    /// From now on the image is only read, and left as not in use; or it is written too, as [`Self::prepare`] says. Nobody may be writing.
    ///
    /// # Errors
    /// The host's, or damage.
    pub fn set_readonly(&self, readonly: bool) -> stdio::Result<()> {
        if readonly && !self.is_readonly() {
            self.finish()?;
        }
        self.readonly.store(readonly, Ordering::Release);
        let ready = self.prepare();
        if ready.is_err() {
            self.readonly.store(true, Ordering::Release);
        }
        ready
    }
    /// Makes a writable image ready: repairs reference counts that a crash left behind, drops what would become wrong.
    ///
    /// # Errors
    /// The host's, or damage that is more than that.
    pub fn prepare(&self) -> stdio::Result<()> {
        if self.is_readonly() || self.is_away() {
            return Ok(());
        }
        let (dirty, stale) = {
            let m = self.meta.lock();
            let h = &m.header;
            let stale =
                h.autoclear & !autoclear::ALL != 0 || (h.bitmaps.is_some() && h.autoclear & autoclear::BITMAPS == 0);
            (h.incompatible & incompatible::DIRTY != 0, stale)
        };
        if dirty {
            let report = self.check(Fix::All, &mut |_, _| {})?;
            if report.corruptions > report.corruptions_fixed || report.check_errors > 0 {
                return Err(invalid("the image was not closed properly, and repairing it failed: see 'img check'"));
            }
        }
        if stale {
            let mut m = self.meta.lock();
            m.header.autoclear &= autoclear::ALL;
            if m.header.autoclear & autoclear::BITMAPS == 0 {
                m.header.bitmaps = None;
            }
            self.write_header(&m.header)?;
        }
        Ok(())
    }
    /// The header as it is now.
    #[must_use]
    pub fn header(&self) -> Header {
        self.meta.lock().header.clone()
    }
    /// Bytes of a cluster.
    #[must_use]
    pub fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }
    /// Changes the names of the backing file in the header.
    ///
    /// # Errors
    /// They do not fit, or the host's.
    pub fn set_backing_name(&self, name: Option<&str>, format: Option<&str>) -> stdio::Result<()> {
        self.check_writable()?;
        let mut m = self.meta.lock();
        let mut header = m.header.clone();
        header.backing_file = name.map(str::to_owned);
        header.backing_format = format.filter(|_| name.is_some()).map(str::to_owned);
        self.write_header(&header)?;
        m.header = header;
        self.barrier()
    }

    fn write_header(&self, header: &Header) -> stdio::Result<()> {
        self.file.write_bytes(0, &header.to_bytes().map_err(invalid)?)
    }
    fn barrier(&self) -> stdio::Result<()> {
        if self.options.no_flush { Ok(()) } else { self.file.flush() }
    }
    fn data(&self) -> &dyn BlockBackend {
        self.data_file.get().unwrap_or(&self.file).as_ref()
    }
    fn check_writable(&self) -> stdio::Result<()> {
        if self.is_readonly() {
            return Err(stdio::ErrorKind::PermissionDenied.into());
        }
        if self.is_away() {
            return Err(stdio::Error::new(
                stdio::ErrorKind::PermissionDenied,
                "the image is in another process's hands",
            ));
        }
        if self.corrupt.load(Ordering::Acquire) {
            return Err(invalid("the image is corrupt: nothing is written any more"));
        }
        Ok(())
    }
    /// Damage was found. The image is marked, and not written any more.
    fn damaged(&self, m: &mut Meta, what: impl Into<String>) -> stdio::Error {
        let what = what.into();
        if !self.is_readonly() && !self.is_away() && !self.options.check && !self.corrupt.swap(true, Ordering::AcqRel) {
            if self.version >= 3 {
                m.header.incompatible |= incompatible::CORRUPT;
                // The image is refused anyway.
                let _ = self.write_header(&m.header);
            }
            eprintln!("rhea: qcow2 image '{}' is corrupt and not written any more: {what}", self.file.description());
        }
        invalid(what)
    }
    /// Before the first write: marks in the header that the image is in use, as its features want.
    fn start(&self, m: &mut Meta) -> stdio::Result<()> {
        if m.started {
            return Ok(());
        }
        let lazy = self.options.lazy_refcounts.unwrap_or(m.header.compatible & compatible::LAZY_REFCOUNTS != 0);
        if lazy && self.version >= 3 && m.header.incompatible & incompatible::DIRTY == 0 {
            m.header.incompatible |= incompatible::DIRTY;
            self.write_header(&m.header)?;
            self.barrier()?;
        }
        self.start_bitmaps(m)?;
        m.started = true;
        Ok(())
    }
    fn is_lazy(&self, m: &Meta) -> bool {
        m.header.incompatible & incompatible::DIRTY != 0 && m.started
    }
}

impl Drop for Qcow2 {
    fn drop(&mut self) {
        if !self.is_readonly()
            && !self.is_away()
            && !self.options.check
            && let Err(e) = BlockBackend::close(self)
        {
            eprintln!("rhea: closing '{}': {}", self.file.description(), crate::error_text(&e));
        }
    }
}
