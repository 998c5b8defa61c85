//! Internal snapshots.

use super::header::{Header, MAX_L1};
use super::table::{Entry, Kind};
use super::{COPIED, Meta, OFFSET, Qcow2, bytes_of, invalid, read_words};
use crate::BlockBackend;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

/// A snapshot, or what is shown of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub(super) l1_offset: u64,
    pub(super) l1_size: u32,
    pub id: String,
    pub name: String,
    pub seconds: u32,
    pub nanoseconds: u32,
    /// Time the guest ran.
    pub vm_clock_ns: u64,
    /// Bytes of the machine's state, behind the end of the disk.
    pub vm_state_size: u64,
    pub disk_size: u64,
    pub icount: Option<u64>,
    /// Extra data behind what is known.
    extra: Vec<u8>,
}

const ENTRY: usize = 40;
const MAX_TABLE: u64 = 64 << 20;

/// Reads the table of an image.
pub(super) fn read_table(file: &dyn BlockBackend, header: &Header) -> Result<Vec<Snapshot>, String> {
    let mut list = Vec::new();
    let mut at = header.snapshots_offset;
    let end = file.capacity();
    let read = |offset: u64, len: usize| {
        if offset.saturating_add(len as u64) > end {
            return Err("the snapshot table lies behind the end of the file".to_owned());
        }
        let mut data = vec![0; len];
        file.read_bytes(offset, &mut data)
            .map_err(|e| format!("cannot read the snapshot table: {}", crate::error_text(&e)))?;
        Ok(data)
    };
    for n in 0..header.snapshot_count {
        let e = read(at, ENTRY)?;
        let u32_at = |b: &[u8], i: usize| u32::from_be_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        let u64_at = |b: &[u8], i: usize| u64::from(u32_at(b, i)) << 32 | u64::from(u32_at(b, i + 4));
        let (id_len, name_len) =
            (u16::from_be_bytes([e[12], e[13]]) as usize, u16::from_be_bytes([e[14], e[15]]) as usize);
        let extra_len = u32_at(&e, 36) as usize;
        if extra_len > 1024 {
            return Err(format!("snapshot {n} has too much extra data"));
        }
        let rest = read(at + ENTRY as u64, extra_len + id_len + name_len)?;
        let extra = &rest[..extra_len];
        let field = |i: usize| (extra_len >= i + 8).then(|| u64_at(extra, i));
        let snapshot = Snapshot {
            l1_offset: u64_at(&e, 0),
            l1_size: u32_at(&e, 8),
            id: String::from_utf8_lossy(&rest[extra_len..extra_len + id_len]).into_owned(),
            name: String::from_utf8_lossy(&rest[extra_len + id_len..]).into_owned(),
            seconds: u32_at(&e, 16),
            nanoseconds: u32_at(&e, 20),
            vm_clock_ns: u64_at(&e, 24),
            vm_state_size: field(0).unwrap_or(u64::from(u32_at(&e, 32))),
            disk_size: field(8).unwrap_or(header.size),
            icount: field(16).filter(|n| *n != u64::MAX),
            extra: extra.get(24..).unwrap_or_default().to_vec(),
        };
        list.push(snapshot);
        at += (ENTRY + extra_len + id_len + name_len).next_multiple_of(8) as u64;
        if at - header.snapshots_offset > MAX_TABLE {
            return Err("the snapshot table is too large".to_owned());
        }
    }
    Ok(list)
}

fn table_bytes(list: &[Snapshot]) -> Vec<u8> {
    let mut b = Vec::new();
    for s in list {
        b.extend_from_slice(&s.l1_offset.to_be_bytes());
        b.extend_from_slice(&s.l1_size.to_be_bytes());
        b.extend_from_slice(&(s.id.len() as u16).to_be_bytes());
        b.extend_from_slice(&(s.name.len() as u16).to_be_bytes());
        b.extend_from_slice(&s.seconds.to_be_bytes());
        b.extend_from_slice(&s.nanoseconds.to_be_bytes());
        b.extend_from_slice(&s.vm_clock_ns.to_be_bytes());
        b.extend_from_slice(&u32::try_from(s.vm_state_size).unwrap_or(0).to_be_bytes());
        b.extend_from_slice(&(24 + s.extra.len() as u32).to_be_bytes());
        b.extend_from_slice(&s.vm_state_size.to_be_bytes());
        b.extend_from_slice(&s.disk_size.to_be_bytes());
        b.extend_from_slice(&s.icount.unwrap_or(u64::MAX).to_be_bytes());
        b.extend_from_slice(&s.extra);
        b.extend_from_slice(s.id.as_bytes());
        b.extend_from_slice(s.name.as_bytes());
        b.resize(b.len().next_multiple_of(8), 0);
    }
    b
}

impl Qcow2 {
    /// All snapshots, in the order of the table.
    #[must_use]
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.meta.lock().snapshots.clone()
    }
    fn snapshot_index(m: &Meta, which: &str) -> io::Result<usize> {
        let by_id = m.snapshots.iter().position(|s| s.id == which);
        by_id
            .or_else(|| m.snapshots.iter().position(|s| s.name == which))
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no snapshot '{which}'")))
    }
    /// Bytes of all of a table with `entries` entries.
    fn snapshot_l1(&self, s: &Snapshot) -> io::Result<Vec<u64>> {
        let bytes = u64::from(s.l1_size) * 8;
        if u64::from(s.l1_size) > MAX_L1
            || !s.l1_offset.is_multiple_of(self.cluster())
            || s.l1_offset.saturating_add(bytes) > self.file.capacity().next_multiple_of(self.cluster())
        {
            return Err(invalid(format!("the L1 table of snapshot '{}' is invalid", s.name)));
        }
        read_words(&*self.file, s.l1_offset, s.l1_size as usize)
    }
    /// Adds `delta` to the counts of all that an L1 table leads to; negative ones after the next flush.
    pub(super) fn count_tree(&self, m: &mut Meta, l1: &[u64], up: bool) -> io::Result<()> {
        let step = if self.extended { 2 } else { 1 };
        for entry in l1 {
            let table = entry & OFFSET;
            if table == 0 {
                continue;
            }
            if !table.is_multiple_of(self.cluster()) {
                return Err(self.damaged(m, format!("L2 table offset {table:#x} is not aligned")));
            }
            let words = read_words(&*self.file, table, (self.cluster() / 8) as usize)?;
            for word in words.into_iter().step_by(step) {
                let e = Entry { word, bitmap: 0 };
                if !up {
                    self.release(m, e);
                    continue;
                }
                let (offset, len) = if word & super::COMPRESSED != 0 {
                    self.compressed(word)
                } else if word & OFFSET != 0 && !self.has_data_file {
                    (word & OFFSET, self.cluster())
                } else {
                    continue;
                };
                for cluster in offset >> self.cluster_bits..=(offset + len - 1) >> self.cluster_bits {
                    self.add_refcount(m, cluster, 1)?;
                }
            }
            if up {
                self.add_refcount(m, table >> self.cluster_bits, 1)?;
            } else {
                self.free_later(m, table, self.cluster());
            }
        }
        Ok(())
    }
    /// Sets the flags of the active tables that say which clusters have a count of 1.
    pub(super) fn refresh_copied(&self, m: &mut Meta) -> io::Result<()> {
        let step = if self.extended { 2 } else { 1 };
        for index in 0..m.l1.len() {
            let table = m.l1[index] & OFFSET;
            if table == 0 {
                continue;
            }
            let mut words = read_words(&*self.file, table, (self.cluster() / 8) as usize)?;
            let mut changed = false;
            for word in words.iter_mut().step_by(step) {
                let e = Entry { word: *word, bitmap: 0 };
                if self.has_host(e) && !self.has_data_file {
                    let one = self.refcount(m, (*word & OFFSET) >> self.cluster_bits)? == 1;
                    let new = if one { *word | COPIED } else { *word & !COPIED };
                    changed |= new != *word;
                    *word = new;
                }
            }
            if changed {
                self.file.write_bytes(table, &bytes_of(&words))?;
            }
            let one = self.refcount(m, table >> self.cluster_bits)? == 1;
            self.mark_l1(m, index, if one { table | COPIED } else { table });
        }
        m.l2.clear();
        let bits = self.cluster_bits;
        m.refs.tables = m.refs.table.iter().chain(&m.l1).map(|e| (e & OFFSET) >> bits).filter(|c| *c != 0).collect();
        Ok(())
    }
    /// Writes the table and lets the header refer to it; the old one is freed.
    fn write_snapshots(&self, m: &mut Meta, list: Vec<Snapshot>) -> io::Result<()> {
        let (old, old_len) = (m.header.snapshots_offset, table_bytes(&m.snapshots).len() as u64);
        let bytes = table_bytes(&list);
        if bytes.len() as u64 > MAX_TABLE || list.len() > super::header::MAX_SNAPSHOTS as usize {
            return Err(io::Error::other("the image has too many snapshots"));
        }
        let mut offset = 0;
        if !list.is_empty() {
            let clusters = (bytes.len() as u64).div_ceil(self.cluster());
            offset = self.allocate_row(m, clusters)?;
            self.use_fresh(m, offset, clusters);
            self.file.write_bytes(offset, &bytes)?;
        }
        // Counts before what refers to them.
        for (n, at, data) in m.refs.take_dirty() {
            self.file.write_bytes(at, &data)?;
            m.refs.written(&[(n, at, Vec::new())], true);
        }
        self.barrier()?;
        let mut header = m.header.clone();
        header.snapshots_offset = offset;
        header.snapshot_count = list.len() as u32;
        self.write_header(&header)?;
        let had = m.header.snapshot_count > 0;
        m.header = header;
        m.snapshots = list;
        if had {
            self.free_later(m, old, old_len);
        }
        self.barrier()
    }
    /// Bytes of the snapshot table.
    pub(super) fn snapshot_table_len(&self, m: &Meta) -> u64 {
        table_bytes(&m.snapshots).len() as u64
    }
    pub(super) fn check_snapshots(&self) -> io::Result<()> {
        self.check_writable()?;
        if self.has_data_file {
            let text = "images with an external data file have no internal snapshots";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        Ok(())
    }

    /// Keeps the content of the disk as a snapshot.
    ///
    /// # Errors
    /// The host's, or damage.
    pub fn create_snapshot(&self, name: &str) -> io::Result<Snapshot> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.create_snapshot_with(name, now.as_secs() as u32, now.subsec_nanos(), 0, 0)
    }
    /// The same, with the times and the size of the machine's state given.
    ///
    /// # Errors
    /// The host's, or damage.
    pub fn create_snapshot_with(
        &self,
        name: &str,
        seconds: u32,
        nanoseconds: u32,
        vm_clock_ns: u64,
        vm_state_size: u64,
    ) -> io::Result<Snapshot> {
        self.check_snapshots()?;
        if name.len() > 255 {
            return Err(io::Error::other("the name of a snapshot has at most 255 bytes"));
        }
        let _all = self.ranges.all();
        self.settle()?;
        let mut guard = self.meta.lock();
        let m = &mut *guard;
        self.start(m)?;
        let id = m.snapshots.iter().filter_map(|s| s.id.parse::<u64>().ok()).max().unwrap_or(0) + 1;
        let l1 = m.l1.clone();
        let clusters = (l1.len() as u64 * 8).div_ceil(self.cluster()).max(1);
        let l1_offset = self.allocate_row(m, clusters)?;
        self.use_fresh(m, l1_offset, clusters);
        self.count_tree(m, &l1, true)?;
        // In a snapshot, no entry says that its cluster is used once.
        let plain: Vec<u64> = l1.iter().map(|e| e & !COPIED).collect();
        self.file.write_bytes(l1_offset, &bytes_of(&plain))?;
        let snapshot = Snapshot {
            l1_offset,
            l1_size: l1.len() as u32,
            id: id.to_string(),
            name: name.to_owned(),
            seconds,
            nanoseconds,
            vm_clock_ns,
            vm_state_size,
            disk_size: self.capacity(),
            icount: None,
            extra: Vec::new(),
        };
        let mut list = m.snapshots.clone();
        list.push(snapshot.clone());
        self.write_snapshots(m, list)?;
        self.refresh_copied(m)?;
        drop(guard);
        self.settle()?;
        Ok(snapshot)
    }
    /// Writes what has changed, then says anew in the tables which clusters are used once.
    pub(super) fn settle_counts(&self) -> io::Result<()> {
        self.settle()?;
        self.refresh_copied(&mut self.meta.lock())?;
        self.settle()
    }
    /// Gives the disk the content of a snapshot, by id or name.
    ///
    /// # Errors
    /// There is none, the host's, or damage.
    pub fn apply_snapshot(&self, which: &str) -> io::Result<()> {
        self.check_snapshots()?;
        let _all = self.ranges.all();
        self.settle()?;
        let mut guard = self.meta.lock();
        let m = &mut *guard;
        self.start(m)?;
        let snapshot = m.snapshots[Self::snapshot_index(m, which)?].clone();
        let mut new = self.snapshot_l1(&snapshot)?;
        if snapshot.disk_size != self.capacity() && m.header.bitmaps.is_some() {
            return Err(io::Error::other("the disk had another size then, and the image has dirty bitmaps"));
        }
        let needed = m.header.l1_needed(snapshot.disk_size);
        if needed > new.len() as u64 {
            return Err(invalid(format!("the L1 table of snapshot '{}' is too small", snapshot.name)));
        }
        let old = m.l1.clone();
        // What lies behind the disk is the machine's state, which stays with the snapshot.
        self.count_tree(m, &new, true)?;
        if new.len() > m.l1.len() {
            self.grow_l1(m, new.len() as u64)?;
        }
        new.resize(m.l1.len(), 0);
        // Counts, then the new tables, then the counts that go.
        for (n, at, data) in m.refs.take_dirty() {
            self.file.write_bytes(at, &data)?;
            m.refs.written(&[(n, at, Vec::new())], true);
        }
        self.barrier()?;
        self.file.write_bytes(m.header.l1_offset, &bytes_of(&new))?;
        m.l1 = new;
        m.l1_dirty.clear();
        m.l2.clear();
        if snapshot.disk_size != self.capacity() {
            let mut header = m.header.clone();
            header.size = snapshot.disk_size;
            self.write_header(&header)?;
            m.header = header;
            self.size.store(snapshot.disk_size, Ordering::Release);
        }
        self.barrier()?;
        self.count_tree(m, &old, false)?;
        self.mark_bitmaps(m, 0, snapshot.disk_size);
        drop(guard);
        self.settle_counts()
    }
    /// Forgets a snapshot, by id or name.
    ///
    /// # Errors
    /// There is none, the host's, or damage.
    pub fn delete_snapshot(&self, which: &str) -> io::Result<()> {
        self.check_snapshots()?;
        let _all = self.ranges.all();
        self.settle()?;
        let mut guard = self.meta.lock();
        let m = &mut *guard;
        self.start(m)?;
        let index = Self::snapshot_index(m, which)?;
        let snapshot = m.snapshots[index].clone();
        let l1 = self.snapshot_l1(&snapshot)?;
        let mut list = m.snapshots.clone();
        list.remove(index);
        self.write_snapshots(m, list)?;
        self.count_tree(m, &l1, false)?;
        self.free_later(m, snapshot.l1_offset, u64::from(snapshot.l1_size) * 8);
        drop(guard);
        self.settle_counts()
    }
    /// Reads the disk as it was at a snapshot.
    ///
    /// # Errors
    /// There is none, the host's, or damage.
    pub fn read_snapshot(&self, which: &str, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let snapshot = self.snapshot(which)?;
        if offset.saturating_add(data.len() as u64) > snapshot.disk_size.next_multiple_of(512) {
            return Err(crate::out_of_range());
        }
        self.read_tree(&self.snapshot_l1(&snapshot)?, offset, data, self.backing().as_deref())
    }
    /// Reads the state of the machine that is with a snapshot.
    pub(super) fn read_vm_state(&self, which: &str, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let snapshot = self.snapshot(which)?;
        if offset.saturating_add(data.len() as u64) > snapshot.vm_state_size {
            return Err(crate::out_of_range());
        }
        let start = self.vm_state_start(snapshot.disk_size);
        let at = start.checked_add(offset).ok_or_else(crate::out_of_range)?;
        self.read_tree(&self.snapshot_l1(&snapshot)?, at, data, None)
    }
    /// A snapshot, by id or name.
    ///
    /// # Errors
    /// There is none.
    pub fn snapshot(&self, which: &str) -> io::Result<Snapshot> {
        let m = self.meta.lock();
        Ok(m.snapshots[Self::snapshot_index(&m, which)?].clone())
    }
    /// Reads what an L1 table leads to.
    fn read_tree(
        &self,
        l1: &[u64],
        mut offset: u64,
        mut data: &mut [u8],
        backing: Option<&dyn BlockBackend>,
    ) -> io::Result<()> {
        let cluster = self.cluster();
        while !data.is_empty() {
            let table = l1.get(self.l1_index(offset)).map_or(0, |e| e & OFFSET);
            let mut entry = Entry::default();
            if table != 0 {
                let step = if self.extended { 2 } else { 1 };
                let index = (offset >> self.cluster_bits) % self.l2_entries() * step;
                let words = read_words(&*self.file, table + index * 8, step as usize)?;
                entry = Entry { word: words[0], bitmap: words.get(1).copied().unwrap_or(0) };
            }
            let within = offset & (cluster - 1);
            let (kind, left) = self.decode(entry, within).map_err(invalid)?;
            let n = (left as usize).min(data.len());
            let (now, rest) = data.split_at_mut(n);
            match kind {
                Kind::Data => self.data().read_bytes((entry.word & OFFSET) + within, now)?,
                Kind::Zero => now.fill(0),
                Kind::Compressed => now.copy_from_slice(&self.unpack(entry.word)?[within as usize..][..n]),
                Kind::Absent => {
                    now.fill(0);
                    if let Some(backing) = backing {
                        let inside = (n as u64).min(backing.capacity().saturating_sub(offset));
                        backing.read_bytes(offset, &mut now[..inside as usize])?;
                    }
                }
            }
            offset += n as u64;
            data = rest;
        }
        Ok(())
    }
}
