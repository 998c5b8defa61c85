//! Checking and repairing an image: everything that refers to a cluster is counted and compared with the counts of the image.

use super::header::incompatible;
use super::refcount;
use super::table::Entry;
use super::{COMPRESSED, COPIED, Meta, OFFSET, Qcow2, ZERO, bytes_of, invalid, read_words};
use std::io;

/// What to repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Fix {
    #[default]
    Nothing,
    Leaks,
    All,
}

/// What a check found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    pub corruptions: u64,
    pub leaks: u64,
    pub corruptions_fixed: u64,
    pub leaks_fixed: u64,
    /// What could not be checked.
    pub check_errors: u64,
    pub total_clusters: u64,
    pub allocated_clusters: u64,
    pub fragmented_clusters: u64,
    pub compressed_clusters: u64,
    pub image_end_offset: u64,
}

/// Gets each finding: is it an error (or a leak), and the line.
pub type Findings<'a> = &'a mut dyn FnMut(bool, &str);

/// Clusters of a file that are checked: what needs 1 GiB of memory.
const MAX_CLUSTERS: u64 = 1 << 28;

struct Count<'a> {
    cluster_bits: u32,
    /// References to each cluster of the file.
    references: Vec<u32>,
    report: CheckReport,
    findings: Findings<'a>,
    /// The tables of counts themselves are damaged.
    rebuild: bool,
}

impl Count<'_> {
    fn error(&mut self, text: &str) {
        self.report.corruptions += 1;
        (self.findings)(true, &format!("ERROR {text}"));
    }
    /// Counts a reference to `len` bytes; false: they are not in the file.
    fn add(&mut self, offset: u64, len: u64, what: &str) -> bool {
        if len == 0 {
            return true;
        }
        let (first, last) = (offset >> self.cluster_bits, offset.saturating_add(len - 1) >> self.cluster_bits);
        if last >= self.references.len() as u64 {
            self.error(&format!("{what} at {offset:#x} lies behind the end of the file"));
            return false;
        }
        for n in &mut self.references[first as usize..=last as usize] {
            *n = n.saturating_add(1);
        }
        true
    }
}

impl Qcow2 {
    /// Checks the image, and repairs what `fix` says.
    ///
    /// # Errors
    /// The host's; what is wrong with the image is in the report.
    pub fn check(&self, fix: Fix, findings: Findings<'_>) -> io::Result<CheckReport> {
        let _all = self.ranges.all();
        let mut report = self.check_once(fix, findings)?;
        let fixed = (report.corruptions_fixed, report.leaks_fixed);
        if fixed != (0, 0) {
            // Where tables overlap, a repair of one damages another.
            let again = self.check_once(Fix::Nothing, &mut |_, _| {})?;
            report = CheckReport {
                corruptions: again.corruptions + fixed.0,
                leaks: again.leaks + fixed.1,
                corruptions_fixed: fixed.0,
                leaks_fixed: fixed.1,
                ..again
            };
        }
        if fix == Fix::All && report.corruptions == report.corruptions_fixed {
            let m = &mut *self.meta.lock();
            let marks = incompatible::DIRTY | incompatible::CORRUPT;
            if m.header.incompatible & marks != 0 {
                self.barrier()?;
                m.header.incompatible &= !marks;
                self.write_header(&m.header)?;
                self.barrier()?;
            }
        }
        Ok(report)
    }
    fn check_once(&self, fix: Fix, findings: Findings<'_>) -> io::Result<CheckReport> {
        if fix != Fix::Nothing {
            self.check_writable()?;
        }
        if !self.is_readonly() {
            self.settle()?;
        }
        let mut guard = self.meta.lock();
        let m = &mut *guard;
        let clusters = self.file.capacity().div_ceil(self.cluster());
        if clusters > MAX_CLUSTERS {
            return Err(invalid("the image file is too large to be checked"));
        }
        let mut c = Count {
            cluster_bits: self.cluster_bits,
            references: vec![0; clusters as usize],
            report: CheckReport { total_clusters: m.header.size.div_ceil(self.cluster()), ..CheckReport::default() },
            findings,
            rebuild: false,
        };
        self.count_all(m, &mut c)?;
        self.compare(m, &mut c, fix)?;
        if c.rebuild && fix == Fix::All {
            self.rebuild(m, &c.references)?;
            c.report.corruptions_fixed = c.report.corruptions;
            c.report.leaks_fixed = c.report.leaks;
        }
        if fix != Fix::Nothing {
            for (n, at, data) in m.refs.take_dirty() {
                self.file.write_bytes(at, &data)?;
                m.refs.written(&[(n, at, Vec::new())], true);
            }
        }
        self.check_copied(m, &mut c, fix)?;
        if fix != Fix::Nothing {
            self.barrier()?;
        }
        let last = c.references.iter().rposition(|n| *n > 0).map_or(0, |n| n as u64 + 1);
        c.report.image_end_offset = last << self.cluster_bits;
        Ok(c.report)
    }

    fn count_all(&self, m: &mut Meta, c: &mut Count<'_>) -> io::Result<()> {
        c.add(0, self.cluster(), "the header");
        let l1 = m.l1.clone();
        c.add(m.header.l1_offset, u64::from(m.header.l1_size) * 8, "the L1 table");
        self.count_l1(&l1, c, true)?;
        for s in m.snapshots.clone() {
            if !s.l1_offset.is_multiple_of(self.cluster()) || u64::from(s.l1_size) > super::header::MAX_L1 {
                c.error(&format!("snapshot {} ({}): the L1 table is invalid", s.id, s.name));
                continue;
            }
            if c.add(s.l1_offset, u64::from(s.l1_size) * 8, "the L1 table of a snapshot") {
                let l1 = read_words(&*self.file, s.l1_offset, s.l1_size as usize)?;
                self.count_l1(&l1, c, false)?;
            }
        }
        if m.header.snapshot_count > 0 {
            c.add(m.header.snapshots_offset, self.snapshot_table_len(m), "the snapshot table");
        }
        self.count_bitmaps(m, c)?;
        let table_len = u64::from(m.header.refcount_table_clusters) << self.cluster_bits;
        c.add(m.header.refcount_table_offset, table_len, "the refcount table");
        for (n, entry) in m.refs.table.clone().into_iter().enumerate() {
            let offset = entry & OFFSET;
            if offset == 0 {
                continue;
            }
            if !offset.is_multiple_of(self.cluster()) || entry & !OFFSET != 0 {
                c.error(&format!("refcount block {n} is not cluster aligned; refcount table entry corrupted"));
                c.rebuild = true;
            } else if !c.add(offset, self.cluster(), "a refcount block") {
                c.rebuild = true;
            } else if c.references[(offset >> self.cluster_bits) as usize] != 1 {
                c.error(&format!(
                    "refcount block {n} refcount={}",
                    c.references[(offset >> self.cluster_bits) as usize]
                ));
                c.rebuild = true;
            }
        }
        Ok(())
    }
    fn count_l1(&self, l1: &[u64], c: &mut Count<'_>, active: bool) -> io::Result<()> {
        let step = if self.extended { 2 } else { 1 };
        let mut next = 0;
        for entry in l1 {
            let table = entry & OFFSET;
            if table == 0 {
                next = 0;
                continue;
            }
            if !table.is_multiple_of(self.cluster()) {
                c.error(&format!("l2_offset={table:#x}: Table is not cluster aligned; L1 entry corrupted"));
                continue;
            }
            if !c.add(table, self.cluster(), "an L2 table") {
                continue;
            }
            let words = read_words(&*self.file, table, (self.cluster() / 8) as usize)?;
            for e in words.chunks_exact(step) {
                let (word, bitmap) = (e[0], e.get(1).copied().unwrap_or(0));
                let mut used = false;
                if word & COMPRESSED != 0 {
                    if self.has_data_file {
                        c.error("a compressed cluster in an image with an external data file");
                        continue;
                    }
                    if word & COPIED != 0 {
                        c.error("a compressed cluster is marked as used once");
                    }
                    if bitmap != 0 {
                        c.error("a compressed cluster has subclusters");
                    }
                    let (offset, len) = self.compressed(word);
                    c.add(offset, len, "compressed data");
                    used = true;
                    c.report.compressed_clusters += u64::from(active);
                    c.report.fragmented_clusters += u64::from(active);
                } else if self.has_host(Entry { word, bitmap }) {
                    let host = word & OFFSET;
                    if host & (self.cluster() - 1) != 0 {
                        c.error(&format!("offset={host:#x}: Cluster is not properly aligned; L2 entry corrupted"));
                        continue;
                    }
                    used = self.extended || word & ZERO == 0 || self.version < 3;
                    if active && used {
                        c.report.fragmented_clusters += u64::from(next != 0 && next != host);
                        next = host + self.cluster();
                    }
                    if !self.has_data_file {
                        c.add(host, self.cluster(), "a data cluster");
                    }
                }
                if self.extended && bitmap & bitmap >> 32 & 0xffff_ffff != 0 {
                    c.error("an L2 entry has subclusters that are both allocated and zero");
                }
                if self.extended
                    && word & COMPRESSED == 0
                    && word & OFFSET == 0
                    && !self.has_data_file
                    && bitmap & 0xffff_ffff != 0
                {
                    c.error("an L2 entry has allocated subclusters, but no cluster");
                }
                c.report.allocated_clusters += u64::from(active && used);
            }
        }
        Ok(())
    }
    fn count_bitmaps(&self, m: &mut Meta, c: &mut Count<'_>) -> io::Result<()> {
        let Some(e) = m.header.bitmaps else { return Ok(()) };
        if !c.add(e.directory_offset, e.directory_size, "the bitmap directory") || e.directory_size > 64 << 20 {
            return Ok(());
        }
        let mut data = vec![0; e.directory_size as usize];
        self.file.read_bytes(e.directory_offset, &mut data)?;
        let list = match super::bitmap::parse(&data, e.count) {
            Ok(list) => list,
            Err(text) => {
                c.error(&text);
                return Ok(());
            }
        };
        for b in list {
            if !c.add(b.table_offset, u64::from(b.table_size) * 8, "the table of a bitmap") {
                continue;
            }
            for entry in read_words(&*self.file, b.table_offset, b.table_size as usize)? {
                let offset = entry & OFFSET;
                if offset & (self.cluster() - 1) != 0 {
                    c.error(&format!("bitmap '{}': a cluster is not aligned", b.name));
                } else if offset != 0 {
                    c.add(offset, self.cluster(), "a cluster of a bitmap");
                }
            }
        }
        Ok(())
    }
    fn compare(&self, m: &mut Meta, c: &mut Count<'_>, fix: Fix) -> io::Result<()> {
        let mut fixes = Vec::new();
        for cluster in 0..c.references.len() as u64 {
            let counted = u64::from(c.references[cluster as usize]);
            let stored = match m.refs.table.get((cluster / m.refs.per_block()) as usize).map(|e| e & OFFSET) {
                // An invalid entry counts nothing.
                Some(o)
                    if !o.is_multiple_of(self.cluster()) || o >= (c.references.len() as u64) << self.cluster_bits =>
                {
                    0
                }
                _ => self.refcount(m, cluster)?,
            };
            if stored == counted {
                continue;
            }
            let leak = stored > counted;
            let word = if leak { "Leaked cluster" } else { "ERROR cluster" };
            (c.findings)(!leak, &format!("{word} {cluster} refcount={stored} reference={counted}"));
            if leak {
                c.report.leaks += 1;
            } else {
                c.report.corruptions += 1;
            }
            if fix == Fix::All || (leak && fix == Fix::Leaks) {
                // A count that has no block yet would make one where data is.
                c.rebuild |= stored == 0
                    && m.refs.table.get((cluster / m.refs.per_block()) as usize).is_none_or(|e| e & OFFSET == 0);
                fixes.push((cluster, counted, leak));
            }
        }
        if c.rebuild {
            return Ok(());
        }
        for (cluster, counted, leak) in fixes {
            self.set_refcount(m, cluster, counted)?;
            if leak {
                c.report.leaks_fixed += 1;
            } else {
                c.report.corruptions_fixed += 1;
            }
        }
        Ok(())
    }
    /// The flags of the active tables that say which clusters have a count of 1.
    fn check_copied(&self, m: &mut Meta, c: &mut Count<'_>, fix: Fix) -> io::Result<()> {
        if c.rebuild && fix != Fix::All {
            return Ok(());
        }
        let step = if self.extended { 2 } else { 1 };
        let end = (c.references.len() as u64) << self.cluster_bits;
        let mut wrong = 0;
        for entry in m.l1.clone() {
            let table = entry & OFFSET;
            if table == 0 || !table.is_multiple_of(self.cluster()) || table >= end {
                continue;
            }
            let mut check = |m: &mut Meta, c: &mut Count<'_>, what: &str, word: u64| -> io::Result<()> {
                let n = self.refcount(m, (word & OFFSET) >> self.cluster_bits)?;
                if (n == 1) != (word & COPIED != 0) {
                    wrong += 1;
                    c.error(&format!("OFLAG_COPIED {what}={word:x} refcount={n}"));
                }
                Ok(())
            };
            check(m, c, "L2 cluster: l1_entry", entry)?;
            for word in read_words(&*self.file, table, (self.cluster() / 8) as usize)?.into_iter().step_by(step) {
                let aligned = (word & OFFSET).is_multiple_of(self.cluster());
                if word & COMPRESSED == 0 && word & OFFSET != 0 && !self.has_data_file && aligned {
                    check(m, c, "data cluster: l2_entry", word)?;
                }
            }
        }
        if fix == Fix::All && wrong > 0 {
            self.refresh_copied(m)?;
            c.report.corruptions_fixed += wrong;
            let entries = bytes_of(&m.l1);
            self.file.write_bytes(m.header.l1_offset, &entries)?;
            m.l1_dirty.clear();
        }
        Ok(())
    }
    /// Makes all tables of counts anew, behind the end of the file.
    fn rebuild(&self, m: &mut Meta, references: &[u32]) -> io::Result<()> {
        let order = m.header.refcount_order;
        let (per, cluster) = (m.refs.per_block(), self.cluster());
        let mut counts: Vec<u64> = references.iter().map(|n| u64::from(*n)).collect();
        // The old tables are not used any more; what is no offset was not counted.
        let good = |e: &&u64| **e != 0 && **e & !OFFSET == 0 && e.is_multiple_of(cluster);
        for offset in m.refs.table.iter().filter(good) {
            if let Some(n) = counts.get_mut((offset >> self.cluster_bits) as usize) {
                *n = n.saturating_sub(1);
            }
        }
        let first = m.header.refcount_table_offset >> self.cluster_bits;
        for n in first..first + u64::from(m.header.refcount_table_clusters) {
            if let Some(n) = counts.get_mut(n as usize) {
                *n = n.saturating_sub(1);
            }
        }
        let start = counts.len() as u64;
        let (mut blocks, mut tables) = (1, 1);
        loop {
            let b = (start + blocks + tables).div_ceil(per);
            let t = (b * 8).div_ceil(cluster);
            if b == blocks && t == tables {
                break;
            }
            (blocks, tables) = (b.max(blocks), t.max(tables));
        }
        counts.resize((start + blocks + tables) as usize, 1);
        if counts.iter().any(|n| *n > refcount::max(order)) {
            return Err(invalid("a cluster is used more often than the image can count"));
        }
        let mut table = vec![0; (tables * cluster / 8) as usize];
        for b in 0..blocks {
            let mut data = vec![0; cluster as usize];
            for (i, n) in counts.iter().skip((b * per) as usize).take(per as usize).enumerate() {
                refcount::set(&mut data, order, i, *n);
            }
            let offset = (start + b) << self.cluster_bits;
            self.file.write_bytes(offset, &data)?;
            table[b as usize] = offset;
        }
        let offset = (start + blocks) << self.cluster_bits;
        self.file.write_bytes(offset, &bytes_of(&table))?;
        self.barrier()?;
        let mut header = m.header.clone();
        header.refcount_table_offset = offset;
        header.refcount_table_clusters = tables as u32;
        self.write_header(&header)?;
        m.header = header;
        m.refs.reload(table, order);
        m.fresh_from = m.fresh_from.max(offset + tables * cluster);
        self.barrier()
    }
}
