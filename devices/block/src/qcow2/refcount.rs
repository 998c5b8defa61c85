//! Reference counts, and finding free clusters.

use super::{Meta, OFFSET, Qcow2, bytes_of, invalid};
use rustc_hash::{FxHashMap, FxHashSet};
use std::io;

/// A block of counts, as it is on disk.
pub(super) struct Block {
    data: Vec<u8>,
    /// Bytes that differ from those on disk.
    dirty: Option<(usize, usize)>,
    /// Being written: must not be read from disk again.
    pub(super) writing: bool,
}

/// The counts of all clusters of the file.
pub(super) struct Refcounts {
    cluster_bits: u32,
    /// A count has 2^order bits.
    order: u32,
    pub(super) table: Vec<u64>,
    blocks: FxHashMap<usize, Block>,
    /// Blocks to keep.
    limit: usize,
    /// No cluster below is free.
    pub(super) hint: u64,
    /// Clusters of tables that must never be handed out: refcount blocks and active L2 tables.
    pub(super) tables: FxHashSet<u64>,
}

/// The count at `index` of a block of counts with 2^order bits.
pub(super) fn get(data: &[u8], order: u32, index: usize) -> u64 {
    match order {
        0..=2 => {
            let bits = 1usize << order;
            let byte = data[index * bits / 8];
            u64::from(byte >> (index * bits % 8)) & ((1 << bits) - 1)
        }
        _ => {
            let n = 1usize << (order - 3);
            data[index * n..][..n].iter().fold(0, |v, b| v << 8 | u64::from(*b))
        }
    }
}

pub(super) fn set(data: &mut [u8], order: u32, index: usize, value: u64) {
    match order {
        0..=2 => {
            let bits = 1usize << order;
            let (at, shift) = (index * bits / 8, index * bits % 8);
            let mask = ((1u16 << bits) - 1) as u8;
            data[at] = data[at] & !(mask << shift) | (value as u8 & mask) << shift;
        }
        _ => {
            let n = 1usize << (order - 3);
            data[index * n..][..n].copy_from_slice(&value.to_be_bytes()[8 - n..]);
        }
    }
}

/// The largest count.
pub(super) fn max(order: u32) -> u64 {
    if order >= 6 { u64::MAX } else { (1 << (1u32 << order)) - 1 }
}

impl Refcounts {
    pub(super) fn new(cluster_bits: u32, order: u32, table: Vec<u64>) -> Self {
        Self {
            cluster_bits,
            order,
            table,
            blocks: FxHashMap::default(),
            limit: ((32usize << 20) >> cluster_bits).max(4),
            hint: 0,
            tables: FxHashSet::default(),
        }
    }
    /// Clusters counted in one block.
    pub(super) fn per_block(&self) -> u64 {
        (8u64 << self.cluster_bits) >> self.order
    }
    /// Everything that must be written: offset in the file and bytes. They count as written until [`Self::failed`].
    pub(super) fn take_dirty(&mut self) -> Vec<(usize, u64, Vec<u8>)> {
        let mut list = Vec::new();
        for (n, block) in &mut self.blocks {
            if let Some((from, to)) = block.dirty.take() {
                // Whole sectors.
                let (from, to) = (from & !511, to.next_multiple_of(512).min(block.data.len()));
                block.writing = true;
                list.push((*n, (self.table[*n] & OFFSET) + from as u64, block.data[from..to].to_vec()));
            }
        }
        list.sort_by_key(|(_, offset, _)| *offset);
        list
    }
    /// What [`Self::take_dirty`] gave was written, or not.
    pub(super) fn written(&mut self, list: &[(usize, u64, Vec<u8>)], ok: bool) {
        for (n, offset, data) in list {
            if let Some(block) = self.blocks.get_mut(n) {
                block.writing = false;
                if !ok {
                    let from = (offset - (self.table[*n] & OFFSET)) as usize;
                    block.mark(from, from + data.len());
                }
            }
        }
    }
    pub(super) fn is_dirty(&self) -> bool {
        self.blocks.values().any(|b| b.dirty.is_some())
    }
    /// Forgets all blocks, which were changed on disk.
    pub(super) fn reload(&mut self, table: Vec<u64>, order: u32) {
        self.blocks.clear();
        self.table = table;
        self.order = order;
        self.hint = 0;
    }
}

impl Block {
    fn mark(&mut self, from: usize, to: usize) {
        self.dirty = Some(self.dirty.map_or((from, to), |(a, b)| (a.min(from), b.max(to))));
    }
}

impl Qcow2 {
    /// Notes where tables are.
    pub(super) fn remember_tables(&self) {
        let mut m = self.meta.lock();
        let bits = self.cluster_bits;
        let m = &mut *m;
        m.refs.tables = m.refs.table.iter().chain(&m.l1).map(|e| (e & OFFSET) >> bits).filter(|c| *c != 0).collect();
    }
    /// Is a cluster of the header or of a table?
    pub(super) fn is_table(&self, m: &Meta, cluster: u64) -> bool {
        let bits = self.cluster_bits;
        let within = |offset: u64, len: u64| {
            len > 0 && cluster >= offset >> bits && cluster <= offset.saturating_add(len - 1) >> bits
        };
        let h = &m.header;
        cluster == 0
            || m.refs.tables.contains(&cluster)
            || within(h.l1_offset, u64::from(h.l1_size) * 8)
            || within(h.refcount_table_offset, u64::from(h.refcount_table_clusters) << bits)
            || (h.snapshot_count > 0 && cluster == h.snapshots_offset >> bits)
            || m.snapshots.iter().any(|s| within(s.l1_offset, u64::from(s.l1_size) * 8))
    }

    fn block<'a>(&self, m: &'a mut Meta, n: usize) -> io::Result<Option<&'a mut Block>> {
        let offset = m.refs.table.get(n).map_or(0, |e| e & OFFSET);
        if offset == 0 {
            return Ok(None);
        }
        if !m.refs.blocks.contains_key(&n) {
            if !offset.is_multiple_of(self.cluster()) {
                return Err(self.damaged(m, format!("refcount block offset {offset:#x} is not aligned")));
            }
            if m.refs.blocks.len() >= m.refs.limit {
                let old = m.refs.blocks.iter().find(|(_, b)| b.dirty.is_none() && !b.writing).map(|(n, _)| *n);
                old.and_then(|n| m.refs.blocks.remove(&n));
            }
            let mut data = vec![0; self.cluster() as usize];
            self.file.read_bytes(offset, &mut data)?;
            m.refs.blocks.insert(n, Block { data, dirty: None, writing: false });
        }
        Ok(m.refs.blocks.get_mut(&n))
    }
    /// How often a cluster of the file is referred to.
    pub(super) fn refcount(&self, m: &mut Meta, cluster: u64) -> io::Result<u64> {
        let (per, order) = (m.refs.per_block(), m.refs.order);
        let block = self.block(m, (cluster / per) as usize)?;
        Ok(block.map_or(0, |b| get(&b.data, order, (cluster % per) as usize)))
    }
    /// Sets the count of a cluster, whose block exists.
    pub(super) fn set_refcount(&self, m: &mut Meta, cluster: u64, value: u64) -> io::Result<()> {
        let (per, order) = (m.refs.per_block(), m.refs.order);
        if value > max(order) {
            return Err(io::Error::other(format!("a cluster cannot be shared more than {} times", max(order))));
        }
        self.ensure_block(m, (cluster / per) as usize)?;
        if value == 0 {
            m.refs.hint = m.refs.hint.min(cluster);
        }
        let index = (cluster % per) as usize;
        if let Some(block) = self.block(m, (cluster / per) as usize)? {
            set(&mut block.data, order, index, value);
            let at = (index << order) / 8;
            block.mark(at, at + (1usize << order).div_ceil(8));
        }
        Ok(())
    }
    /// Adds to the count of a cluster; the new count.
    pub(super) fn add_refcount(&self, m: &mut Meta, cluster: u64, delta: i64) -> io::Result<u64> {
        let old = self.refcount(m, cluster)?;
        let Some(new) = old.checked_add_signed(delta) else {
            return Err(self.damaged(m, format!("cluster {cluster} is freed but its reference count is {old}")));
        };
        self.set_refcount(m, cluster, new)?;
        Ok(new)
    }
    /// The block that counts a cluster exists afterwards, maybe in that very cluster.
    pub(super) fn ensure_block_of(&self, m: &mut Meta, cluster: u64) -> io::Result<()> {
        let n = cluster / m.refs.per_block();
        self.ensure_block(m, n as usize)
    }
    /// Makes the `n`th block of counts if there is none: in the first cluster it counts, which is free as none was counted.
    fn ensure_block(&self, m: &mut Meta, n: usize) -> io::Result<()> {
        if n >= m.refs.table.len() {
            self.grow_table(m, n)?;
        }
        if m.refs.table[n] & OFFSET != 0 {
            return Ok(());
        }
        let cluster = n as u64 * m.refs.per_block();
        if self.is_table(m, cluster) {
            return Err(self.damaged(m, format!("cluster {cluster} is a table, but is not counted")));
        }
        let mut data = vec![0; self.cluster() as usize];
        set(&mut data, m.refs.order, 0, 1);
        let offset = cluster << self.cluster_bits;
        self.file.write_bytes(offset, &data)?;
        self.barrier()?;
        self.file.write_bytes(m.header.refcount_table_offset + n as u64 * 8, &offset.to_be_bytes())?;
        m.refs.table[n] = offset;
        m.refs.tables.insert(cluster);
        m.refs.blocks.insert(n, Block { data, dirty: None, writing: false });
        m.fresh_from = m.fresh_from.max(offset + self.cluster());
        Ok(())
    }
    /// Moves the table of blocks to a larger one that has entry `n`.
    fn grow_table(&self, m: &mut Meta, n: usize) -> io::Result<()> {
        let (per, cluster) = (m.refs.per_block(), self.cluster());
        let per_table = cluster / 8;
        // The new table and the blocks that count it begin with the first cluster that no block of the old table could count.
        let first_block = (m.refs.table.len() as u64).max(n as u64);
        let start = first_block * per;
        let (mut clusters, mut blocks) = (0, 1);
        loop {
            let needed = (first_block + blocks).max(m.refs.table.len() as u64 * 3 / 2);
            let c = needed.div_ceil(per_table);
            let b = (c + blocks).div_ceil(per);
            if c == clusters && b == blocks {
                break;
            }
            (clusters, blocks) = (c, b.max(blocks));
            if clusters * cluster > super::header::MAX_REFCOUNT_TABLE.max(cluster) {
                return Err(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    "the image file is as large as its format allows",
                ));
            }
        }
        let mut table = m.refs.table.clone();
        table.resize((clusters * per_table) as usize, 0);
        for b in 0..blocks {
            let mut data = vec![0; cluster as usize];
            for i in 0..per.min((blocks + clusters).saturating_sub(b * per)) {
                set(&mut data, m.refs.order, i as usize, 1);
            }
            let at = start + b;
            self.file.write_bytes(at << self.cluster_bits, &data)?;
            table[(first_block + b) as usize] = at << self.cluster_bits;
            m.refs.tables.insert(at);
            m.refs.blocks.insert((first_block + b) as usize, Block { data, dirty: None, writing: false });
        }
        let offset = (start + blocks) << self.cluster_bits;
        self.file.write_bytes(offset, &bytes_of(&table))?;
        self.barrier()?;
        let (old, old_clusters) = (m.header.refcount_table_offset, m.header.refcount_table_clusters);
        let mut header = m.header.clone();
        header.refcount_table_offset = offset;
        header.refcount_table_clusters = u32::try_from(clusters).map_err(|_| invalid("the table is too large"))?;
        self.write_header(&header)?;
        m.header = header;
        m.refs.table = table;
        m.fresh_from = m.fresh_from.max(offset + clusters * cluster);
        self.barrier()?;
        let first = old >> self.cluster_bits;
        m.frees.push((first, first + u64::from(old_clusters) - 1));
        Ok(())
    }

    /// Takes up to `want` free clusters in a row: offset in the file, and how many. They are counted, but nothing refers to them.
    pub(super) fn allocate(&self, m: &mut Meta, want: u64) -> io::Result<(u64, u64)> {
        let per = m.refs.per_block();
        let mut cluster = m.refs.hint.max(1);
        loop {
            if cluster >> (56 - self.cluster_bits) != 0 {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            self.ensure_block(m, (cluster / per) as usize)?;
            if self.refcount(m, cluster)? == 0 {
                break;
            }
            cluster += 1;
        }
        let mut got = 1;
        while got < want && !(cluster + got).is_multiple_of(per) && self.refcount(m, cluster + got)? == 0 {
            got += 1;
        }
        self.take(m, cluster, got)
    }
    /// Takes exactly `want` free clusters in a row.
    pub(super) fn allocate_row(&self, m: &mut Meta, want: u64) -> io::Result<u64> {
        let per = m.refs.per_block();
        let (mut start, mut got) = (m.refs.hint.max(1), 0);
        while got < want.max(1) {
            let cluster = start + got;
            if cluster >> (56 - self.cluster_bits) != 0 {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            self.ensure_block(m, (cluster / per) as usize)?;
            if self.refcount(m, cluster)? == 0 {
                got += 1;
            } else {
                (start, got) = (cluster + 1, 0);
            }
        }
        let hint = m.refs.hint;
        let taken = self.take(m, start, got)?;
        m.refs.hint = if start > hint { hint } else { m.refs.hint };
        Ok(taken.0)
    }
    fn take(&self, m: &mut Meta, cluster: u64, n: u64) -> io::Result<(u64, u64)> {
        for c in cluster..cluster + n {
            if self.is_table(m, c) {
                return Err(self.damaged(m, format!("cluster {c} is a table, but is counted as free")));
            }
        }
        for c in cluster..cluster + n {
            self.set_refcount(m, c, 1)?;
        }
        m.refs.hint = cluster + n;
        Ok((cluster << self.cluster_bits, n))
    }
    /// Is a row of clusters that was just taken known to read as zero? It is not new any more afterwards.
    pub(super) fn use_fresh(&self, m: &mut Meta, offset: u64, clusters: u64) -> bool {
        let fresh = offset >= m.fresh_from;
        m.fresh_from = m.fresh_from.max(offset + (clusters << self.cluster_bits));
        fresh
    }
    /// Clusters that were taken and are not used after all.
    pub(super) fn give_back(&self, m: &mut Meta, offset: u64, clusters: u64) {
        let first = offset >> self.cluster_bits;
        for c in first..first + clusters {
            // At worst they are lost.
            let _ = self.set_refcount(m, c, 0);
        }
    }
    /// The range of clusters is given back after the next flush.
    pub(super) fn free_later(&self, m: &mut Meta, offset: u64, len: u64) {
        let (first, last) = (offset >> self.cluster_bits, (offset + len.max(1) - 1) >> self.cluster_bits);
        match m.frees.last_mut() {
            // A cluster may be in the list several times.
            Some((_, end)) if *end + 1 == first => *end = last,
            _ => m.frees.push((first, last)),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn widths() {
        for order in 0..=6 {
            let mut data = [0; 64];
            let n = (64 * 8) >> order;
            for i in 0..n {
                super::set(&mut data, order, i, (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) & super::max(order));
            }
            for i in 0..n {
                let value = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) & super::max(order);
                assert_eq!(super::get(&data, order, i), value);
            }
        }
        let mut data = [0; 2];
        super::set(&mut data, 4, 0, 0x1234);
        assert_eq!(data, [0x12, 0x34]);
        super::set(&mut data, 0, 3, 1);
        assert_eq!(data[0], 0x1a);
    }
}
