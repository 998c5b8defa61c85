//! Compressed clusters.

use super::header::Compression;
use super::table::Entry;
use super::{Meta, Qcow2, invalid};
use crate::BlockBackend;
use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};
use std::io::{self, Read};
use std::sync::Arc;

/// Deflate uses a window of 4 KiB in these images.
const WINDOW_BITS: u8 = 12;

/// Compresses clusters.
pub struct Compressor(Compression);

impl Compressor {
    /// `data` in fewer bytes, or `None` if that does not save anything.
    #[must_use]
    pub fn pack(&self, data: &[u8]) -> Option<Vec<u8>> {
        // At least a sector must be saved.
        let room = data.len().checked_sub(1)?;
        match self.0 {
            Compression::Zlib => {
                let mut deflate = Compress::new_with_window_bits(flate2::Compression::default(), false, WINDOW_BITS);
                let mut out = vec![0; room];
                match deflate.compress(data, &mut out, FlushCompress::Finish) {
                    Ok(Status::StreamEnd) => {
                        out.truncate(deflate.total_out() as usize);
                        Some(out)
                    }
                    _ => None,
                }
            }
            Compression::Zstd => {
                let mut out = vec![0; room];
                let n = zstd::bulk::compress_to_buffer(data, &mut out, 0).ok()?;
                out.truncate(n);
                Some(out)
            }
        }
    }
}

fn unpack(kind: Compression, packed: &[u8], size: usize) -> io::Result<Vec<u8>> {
    let mut out = vec![0; size];
    match kind {
        Compression::Zlib => {
            // Streams of other writers may reach farther back than the window.
            let mut inflate = Decompress::new_with_window_bits(false, 15);
            let result = inflate.decompress(packed, &mut out, FlushDecompress::Finish);
            if result.is_err() || inflate.total_out() != size as u64 {
                return Err(invalid("a compressed cluster cannot be unpacked"));
            }
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
            decoder.read_exact(&mut out).map_err(|_| invalid("a compressed cluster cannot be unpacked"))?;
        }
    }
    Ok(out)
}

impl Qcow2 {
    /// The content of a compressed cluster.
    pub(super) fn unpack(&self, word: u64) -> io::Result<Arc<Vec<u8>>> {
        if let Some((key, data)) = &*self.unpacked.lock()
            && *key == word
        {
            return Ok(data.clone());
        }
        let (offset, len) = self.compressed(word);
        let mut packed = vec![0; len as usize];
        // The last sector may be cut off by the end of the file.
        self.file.read_bytes(offset, &mut packed)?;
        let data = Arc::new(unpack(self.compression, &packed, self.cluster() as usize)?);
        *self.unpacked.lock() = Some((word, data.clone()));
        Ok(data)
    }
    /// What packs clusters for [`Self::write_packed`].
    #[must_use]
    pub fn compressor(&self) -> Compressor {
        Compressor(self.compression)
    }
    /// Writes a whole cluster that was compressed, at `offset` of the disk.
    ///
    /// # Errors
    /// The host's.
    pub fn write_packed(&self, offset: u64, packed: &[u8]) -> io::Result<()> {
        self.check_writable()?;
        if self.has_data_file {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "images with an external data file have no compressed clusters",
            ));
        }
        if !offset.is_multiple_of(self.cluster()) || offset >= self.capacity() || packed.is_empty() {
            return Err(crate::out_of_range());
        }
        self.relieve()?;
        let _range = self.ranges.lock(offset, self.cluster(), true);
        let mut m = self.meta.lock();
        let m = &mut *m;
        self.start(m)?;
        self.own_table(m, offset)?;
        let old = self.entry(m, offset)?;
        let host = self.allocate_bytes(m, packed.len() as u64)?;
        self.file.write_bytes(host, packed)?;
        let word = self.compressed_entry(host, packed.len() as u64);
        self.set_entry(m, offset, Entry { word, bitmap: 0 })?;
        self.release(m, old);
        self.mark_bitmaps(m, offset, self.cluster());
        Ok(())
    }
    /// Room for compressed data, which shares clusters with other compressed data.
    fn allocate_bytes(&self, m: &mut Meta, len: u64) -> io::Result<u64> {
        let cluster = self.cluster();
        let within = m.compressed_at & (cluster - 1);
        if m.compressed_at != 0 && within != 0 {
            let first = m.compressed_at >> self.cluster_bits;
            let start = m.compressed_at;
            let end = start + len;
            let shares = self.refcount(m, first)?;
            let room = shares != 0 && shares < self.max_refcount(m);
            let behind = end > (first + 1) << self.cluster_bits;
            // It may go on in the next cluster if that is free.
            let next_free = !behind || {
                self.ensure_block_of(m, first + 1)?;
                self.refcount(m, first + 1)? == 0 && !self.is_table(m, first + 1)
            };
            if room && next_free {
                self.add_refcount(m, first, 1)?;
                if behind {
                    self.set_refcount(m, first + 1, 1)?;
                    self.use_fresh(m, (first + 1) << self.cluster_bits, 1);
                    m.refs.hint = m.refs.hint.max(if m.refs.hint == first + 1 { first + 2 } else { 0 });
                }
                m.compressed_at = end;
                return Ok(start);
            }
        }
        let (host, _) = self.allocate(m, 1)?;
        self.use_fresh(m, host, 1);
        m.compressed_at = host + len;
        Ok(host)
    }
    fn max_refcount(&self, m: &Meta) -> u64 {
        super::refcount::max(m.header.refcount_order)
    }
}
