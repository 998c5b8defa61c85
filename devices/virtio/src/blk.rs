//! Block device (virtio 1.2, 5.2).

use crate::core::{VirtioDevice, config_bytes};
use crate::features;
use crate::queue::{Buffer, Chain, QueueError};
use crate::queues::{Gate, Queues};
use parking_lot::Mutex;
use rhea_block::{Drive, Operation, SECTOR, Segment};
use rhea_device::{DmaHandle, LoadError};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use virtio_bindings::virtio_blk as vb;

/// The device type.
pub const ID: u16 = 2;
const HEADER: u64 = 16;
/// Sectors of one discard or write-zeroes request.
const MAX_RANGE: u32 = 1 << 22;
/// Bytes of a request whose memory is not plain RAM.
const MAX_BOUNCE: u64 = 1 << 20;
const RANGE_LEN: usize = 16;
const RANGE_UNMAP: u32 = 1;

/// What a block device can be told.
#[derive(Clone, Debug)]
pub struct BlkOptions {
    /// At most 20 bytes, for GET_ID.
    pub serial: String,
    /// Request queues, at least 1.
    pub queues: u16,
    /// Entries of each queue, a power of two.
    pub queue_size: u16,
    /// Overrides the drive's cache mode: `Some(false)` is write-through.
    pub write_cache: Option<bool>,
    /// The guest may switch the write cache.
    pub config_wce: bool,
    /// Offer discard and write zeroes.
    pub discard: bool,
    pub write_zeroes: bool,
    /// 0: the drive's. Bytes, powers of two.
    pub logical_block_size: u32,
    pub physical_block_size: u32,
}

impl Default for BlkOptions {
    fn default() -> Self {
        Self {
            serial: String::new(),
            queues: 1,
            queue_size: 256,
            write_cache: None,
            config_wce: true,
            discard: true,
            write_zeroes: true,
            logical_block_size: 0,
            physical_block_size: 0,
        }
    }
}

/// A block device over a drive.
pub struct Blk {
    drive: Arc<Drive>,
    options: BlkOptions,
    queues: OnceLock<Arc<Queues>>,
    gates: Vec<Gate>,
    features: AtomicU64,
    /// The writeback field.
    write_cache: AtomicBool,
    /// Requests of an earlier life of the device are not answered.
    epoch: Arc<AtomicU64>,
    config: Mutex<Vec<u8>>,
}

/// A request on its way.
struct Request {
    queues: Arc<Queues>,
    queue: u16,
    chain: Chain,
    epoch: (Arc<AtomicU64>, u64),
    /// Guest buffers to fill from a bounce buffer.
    bounced: bool,
    /// Bytes of data for the guest.
    data_in: u64,
}

fn status_of(result: &io::Result<()>) -> u8 {
    match result {
        Ok(()) => vb::VIRTIO_BLK_S_OK as u8,
        Err(e) if e.kind() == io::ErrorKind::Unsupported => vb::VIRTIO_BLK_S_UNSUPP as u8,
        Err(_) => vb::VIRTIO_BLK_S_IOERR as u8,
    }
}

impl Request {
    /// Answers; the pins of the guest's buffers go.
    fn finish(self, mut result: io::Result<()>, segments: &[Segment]) {
        for s in segments {
            if let Segment::Guest(slice) = s {
                slice.unpin();
            }
        }
        if self.epoch.0.load(Ordering::Acquire) != self.epoch.1 {
            return;
        }
        let (dma, chain) = (self.queues.dma(), &self.chain);
        if let ([Segment::Host(data)], true, Ok(())) = (segments, self.bounced, &result)
            && chain.write(dma, 0, data).is_err()
        {
            result = Err(io::ErrorKind::InvalidInput.into());
        }
        // The status is the last byte.
        let total = chain.writable_len();
        if !matches!(chain.write(dma, total - 1, &[status_of(&result)]), Ok(1)) {
            self.queues.fail(QueueError::Memory);
            return;
        }
        let written = if result.is_ok() { self.data_in + 1 } else { 1 };
        self.queues.complete(self.queue, self.chain, u32::try_from(written).unwrap_or(u32::MAX));
    }
}

/// The part of `buffers` from byte `skip`, `len` bytes long, as memory; `None` if some of it is not plain RAM.
fn guest_segments(
    dma: &DmaHandle,
    buffers: &[Buffer],
    mut skip: u64,
    mut len: u64,
    writable: bool,
) -> Option<Vec<Segment>> {
    let mut list = Vec::with_capacity(buffers.len());
    for b in buffers {
        let size = u64::from(b.len);
        if skip >= size {
            skip -= size;
            continue;
        }
        let n = (size - skip).min(len);
        if n == 0 {
            break;
        }
        let gpa = b.gpa.offset(skip);
        let slice = if writable { dma.host_slice(gpa, n) } else { dma.host_slice_readable(gpa, n) };
        list.push(Segment::Guest(slice?));
        skip = 0;
        len -= n;
    }
    Some(list)
}

impl Blk {
    #[must_use]
    pub fn new(drive: Arc<Drive>, options: BlkOptions) -> Arc<Self> {
        let queues = options.queues.clamp(1, 1024);
        let write_cache = options.write_cache.unwrap_or_else(|| drive.cache().write_cache());
        let config = Mutex::new(config_of(&drive, &options, queues, write_cache));
        let blk = Arc::new(Self {
            drive,
            queues: OnceLock::new(),
            gates: (0..queues).map(|_| Gate::default()).collect(),
            features: AtomicU64::new(0),
            write_cache: AtomicBool::new(write_cache),
            epoch: Arc::default(),
            config,
            options: BlkOptions { queues, ..options },
        });
        let told = Arc::downgrade(&blk);
        blk.drive.on_resized(move || told.upgrade().map(|b| b.resized()).is_some());
        blk
    }
    /// The capacity is another one.
    fn resized(&self) {
        let sectors = self.drive.capacity() / SECTOR;
        self.config.lock()[..8].copy_from_slice(&sectors.to_le_bytes());
        if let Some(queues) = self.queues.get() {
            queues.config_changed();
        }
    }
    #[must_use]
    pub fn drive(&self) -> &Arc<Drive> {
        &self.drive
    }
    fn default_cache(&self) -> bool {
        self.options.write_cache.unwrap_or_else(|| self.drive.cache().write_cache())
    }
    /// Must each write be on stable storage before it is answered?
    fn write_through(&self) -> bool {
        // A driver that cannot flush must not lose what was answered.
        self.features.load(Ordering::Acquire) & features::BLK_FLUSH == 0 || !self.write_cache.load(Ordering::Acquire)
    }

    fn handle(&self, queues: &Arc<Queues>, queue: u16, chain: Chain) {
        let dma = queues.dma();
        let mut header = [0; HEADER as usize];
        let (readable, writable) = (chain.readable_len(), chain.writable_len());
        match chain.read(dma, 0, &mut header) {
            Ok(n) if n == header.len() && writable > 0 => (),
            _ => {
                // Nowhere to put a status.
                queues.fail(QueueError::Order);
                return;
            }
        }
        // Old drivers ask for a barrier by the top bit of any type; requests are in order without.
        const BARRIER: u32 = 1 << 31;
        let kind = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) & !BARRIER;
        let sector = u64::from_le_bytes([
            header[8], header[9], header[10], header[11], header[12], header[13], header[14], header[15],
        ]);
        let (data_out, data_in) = (readable - HEADER, writable - 1);
        let epoch = (self.epoch.clone(), self.epoch.load(Ordering::Acquire));
        let mut request = Request { queues: queues.clone(), queue, chain, epoch, bounced: false, data_in: 0 };
        let operation = match kind {
            vb::VIRTIO_BLK_T_IN => self.transfer(dma, &mut request, sector, data_in, false),
            vb::VIRTIO_BLK_T_OUT => self.transfer(dma, &mut request, sector, data_out, true),
            vb::VIRTIO_BLK_T_FLUSH => Ok(Operation::Flush),
            vb::VIRTIO_BLK_T_DISCARD | vb::VIRTIO_BLK_T_WRITE_ZEROES => self.range(dma, &request, kind, data_out),
            vb::VIRTIO_BLK_T_GET_ID => {
                let mut id = [0; vb::VIRTIO_BLK_ID_BYTES as usize];
                let serial = self.options.serial.as_bytes();
                let n = serial.len().min(id.len());
                id[..n].copy_from_slice(&serial[..n]);
                let n = (data_in as usize).min(id.len());
                request.data_in = n as u64;
                let result = match request.chain.write(dma, 0, &id[..n]) {
                    Ok(_) => Ok(()),
                    Err(_) => Err(io::ErrorKind::InvalidInput.into()),
                };
                request.finish(result, &[]);
                return;
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        };
        match operation {
            Err(e) => request.finish(Err(e), &[]),
            Ok(mut operation) => match self.drive.try_now(&mut operation) {
                Some(result) => {
                    let segments = match operation {
                        Operation::Read { segments, .. } => segments,
                        _ => Vec::new(),
                    };
                    request.finish(result, &segments);
                }
                None => {
                    self.drive.submit(operation, Box::new(move |result, segments| request.finish(result, &segments)))
                }
            },
        }
    }

    fn transfer(
        &self,
        dma: &DmaHandle,
        request: &mut Request,
        sector: u64,
        len: u64,
        write: bool,
    ) -> io::Result<Operation> {
        let offset = sector.checked_mul(SECTOR).ok_or(io::ErrorKind::InvalidInput)?;
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.drive.capacity());
        if !len.is_multiple_of(SECTOR) || !inside {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let chain = &request.chain;
        let (buffers, skip) = if write { (chain.readable(), HEADER) } else { (chain.writable(), 0) };
        let segments = match guest_segments(dma, buffers, skip, len, !write) {
            Some(list) => list,
            None => {
                // Some of it is not RAM, or straddles two blocks.
                if len > MAX_BOUNCE {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
                let mut data = vec![0; usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?];
                if write {
                    chain.read(dma, HEADER, &mut data).map_err(|_| io::ErrorKind::InvalidInput)?;
                }
                request.bounced = !write;
                vec![Segment::Host(data)]
            }
        };
        for s in &segments {
            if let Segment::Guest(slice) = s {
                slice.pin();
            }
        }
        if write {
            return Ok(Operation::Write { offset, segments, flush: self.write_through() });
        }
        request.data_in = len;
        Ok(Operation::Read { offset, segments })
    }

    fn range(&self, dma: &DmaHandle, request: &Request, kind: u32, len: u64) -> io::Result<Operation> {
        let zeroes = kind == vb::VIRTIO_BLK_T_WRITE_ZEROES;
        let needed = if zeroes { features::BLK_WRITE_ZEROES } else { features::BLK_DISCARD };
        // One range for each request, as the configuration says.
        if self.features.load(Ordering::Acquire) & needed == 0 || len != RANGE_LEN as u64 {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut b = [0; RANGE_LEN];
        request.chain.read(dma, HEADER, &mut b).map_err(|_| io::ErrorKind::InvalidInput)?;
        let sector = u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
        let sectors = u32::from_le_bytes([b[8], b[9], b[10], b[11]]);
        let flags = u32::from_le_bytes([b[12], b[13], b[14], b[15]]);
        if flags & !RANGE_UNMAP != 0 || (!zeroes && flags != 0) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if sectors > MAX_RANGE {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (offset, len) =
            (sector.checked_mul(SECTOR).ok_or(io::ErrorKind::InvalidInput)?, u64::from(sectors) * SECTOR);
        if zeroes {
            return Ok(Operation::WriteZeroes {
                offset,
                len,
                may_unmap: flags & RANGE_UNMAP != 0,
                flush: self.write_through(),
            });
        }
        Ok(Operation::Discard { offset, len })
    }
}

/// The configuration structure (5.2.4).
fn config_of(drive: &Drive, options: &BlkOptions, queues: u16, write_cache: bool) -> Vec<u8> {
    let g = drive.backend().geometry();
    let pick = |own: u32, drive: u32| if own.is_power_of_two() { own } else { drive };
    let logical = pick(options.logical_block_size, g.logical_block).max(512);
    let physical = pick(options.physical_block_size, g.physical_block).max(logical);
    let sectors = drive.capacity() / SECTOR;
    let mut c = vec![0; 60];
    let mut put = |at: usize, bytes: &[u8]| c[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &sectors.to_le_bytes());
    put(12, &u32::from(options.queue_size.saturating_sub(2)).to_le_bytes());
    put(20, &logical.to_le_bytes());
    put(24, &[(physical / logical).trailing_zeros() as u8, 0]);
    put(28, &(g.optimal_io / logical).to_le_bytes());
    put(32, &[u8::from(write_cache)]);
    put(34, &queues.to_le_bytes());
    put(36, &MAX_RANGE.to_le_bytes());
    put(40, &1u32.to_le_bytes());
    put(44, &(logical / 512).to_le_bytes());
    put(48, &MAX_RANGE.to_le_bytes());
    put(52, &1u32.to_le_bytes());
    put(56, &[1]);
    c
}

impl VirtioDevice for Blk {
    fn id(&self) -> u16 {
        ID
    }
    fn name(&self) -> &'static str {
        "virtio-blk"
    }
    fn pci_class(&self) -> u32 {
        0x01_0000
    }
    fn features(&self) -> u64 {
        let mut f = features::BLK_SEG_MAX | features::BLK_SIZE | features::BLK_FLUSH | features::BLK_TOPOLOGY;
        if self.options.config_wce {
            f |= features::BLK_CONFIG_WCE;
        }
        if self.drive.readonly() {
            f |= features::BLK_RO;
        } else {
            f |= if self.options.discard { features::BLK_DISCARD } else { 0 };
            f |= if self.options.write_zeroes { features::BLK_WRITE_ZEROES } else { 0 };
        }
        if self.options.queues > 1 { f | features::BLK_MQ } else { f }
    }
    fn queue_sizes(&self) -> Vec<u16> {
        vec![self.options.queue_size; usize::from(self.options.queues)]
    }
    fn attach(&self, queues: Arc<Queues>) {
        let _ = self.queues.set(queues);
    }
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        config_bytes(&self.config.lock(), offset, data);
    }
    fn write_config(&self, offset: u64, data: &[u8]) {
        if let (32, &[value], true) =
            (offset, data, self.features.load(Ordering::Acquire) & features::BLK_CONFIG_WCE != 0)
        {
            self.write_cache.store(value & 1 != 0, Ordering::Release);
            self.config.lock()[32] = value & 1;
        }
    }
    fn start(&self, features: u64) {
        self.features.store(features, Ordering::Release);
    }
    fn notify(&self, queue: u16) {
        let (Some(queues), Some(gate)) = (self.queues.get(), self.gates.get(usize::from(queue))) else { return };
        gate.run(|| {
            queues.drain(queue, |chain| {
                self.handle(queues, queue, chain);
                true
            });
        });
    }
    fn reset(&self) {
        // The device is stopped: what is being taken from the queues is the last.
        self.gates.iter().for_each(Gate::wait);
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.drive.drain();
        self.features.store(0, Ordering::Release);
        let default = self.default_cache();
        self.write_cache.store(default, Ordering::Release);
        self.config.lock()[32] = u8::from(default);
    }
    fn quiesce(&self) {
        self.gates.iter().for_each(Gate::wait);
        self.drive.drain();
    }
    fn save(&self) -> Vec<u8> {
        vec![u8::from(self.write_cache.load(Ordering::Acquire))]
    }
    fn load(&self, state: &[u8]) -> Result<(), LoadError> {
        let &[cache] = state else { return Err(LoadError::Damaged("virtio-blk".to_owned())) };
        self.write_cache.store(cache != 0, Ordering::Release);
        self.config.lock()[32] = cache & 1;
        Ok(())
    }
}
