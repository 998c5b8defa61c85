//! A direct-access device (SPC-4, SBC-3).

use super::StorageOptions;
use super::unit::Work;
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_block::{Drive, Operation};
use rhea_device::LoadError;
use rhea_storage::atapi::sense::{self, Sense};
use std::io;
use std::sync::Arc;

const TEST_UNIT_READY: u8 = 0x00;
const REQUEST_SENSE: u8 = 0x03;
const READ_6: u8 = 0x08;
const WRITE_6: u8 = 0x0a;
const INQUIRY: u8 = 0x12;
const MODE_SELECT_6: u8 = 0x15;
const MODE_SENSE_6: u8 = 0x1a;
const START_STOP_UNIT: u8 = 0x1b;
const PREVENT_ALLOW: u8 = 0x1e;
const READ_FORMAT_CAPACITIES: u8 = 0x23;
const READ_CAPACITY_10: u8 = 0x25;
const READ_10: u8 = 0x28;
const WRITE_10: u8 = 0x2a;
const SEEK_10: u8 = 0x2b;
const WRITE_VERIFY_10: u8 = 0x2e;
const VERIFY_10: u8 = 0x2f;
const SYNCHRONIZE_CACHE_10: u8 = 0x35;
const WRITE_SAME_10: u8 = 0x41;
const UNMAP: u8 = 0x42;
const MODE_SELECT_10: u8 = 0x55;
const MODE_SENSE_10: u8 = 0x5a;
const READ_16: u8 = 0x88;
const WRITE_16: u8 = 0x8a;
const WRITE_VERIFY_16: u8 = 0x8e;
const VERIFY_16: u8 = 0x8f;
const SYNCHRONIZE_CACHE_16: u8 = 0x91;
const WRITE_SAME_16: u8 = 0x93;
const SERVICE_ACTION_IN_16: u8 = 0x9e;
const REPORT_LUNS: u8 = 0xa0;
const READ_12: u8 = 0xa8;
const WRITE_12: u8 = 0xaa;

const READ_CAPACITY_16: u8 = 0x10;
/// Mode pages.
const RECOVERY: u8 = 0x01;
const CACHING: u8 = 0x08;
const CONTROL: u8 = 0x0a;
const EXCEPTIONS: u8 = 0x1c;
const ALL_PAGES: u8 = 0x3f;
/// Byte 2 of the caching page.
const WRITE_CACHE: u8 = 1 << 2;
/// Bytes of one transfer: 4 GiB less one in the transport's field.
const MAX_TRANSFER: u64 = u32::MAX as u64;
/// Blocks that one WRITE SAME or UNMAP descriptor may name.
const MAX_UNMAP: u64 = 1 << 22;

const WRITE_PROTECTED: Sense = Sense { key: 7, code: 0x27, qualifier: 0 };
const WRITE_ERROR: Sense = Sense { key: 3, code: 0x0c, qualifier: 0 };
const NO_MEDIUM: Sense = Sense { key: 2, code: 0x3a, qualifier: 0 };

#[derive(Clone, Debug, Default, Encode, Decode)]
struct State {
    /// For REQUEST SENSE.
    #[n(0)]
    sense: Sense,
    /// A unit attention condition not yet told.
    #[n(1)]
    attention: Option<Sense>,
    /// Removal is prevented.
    #[n(2)]
    locked: bool,
    /// The guest has ejected the medium.
    #[n(3)]
    ejected: bool,
    #[n(4)]
    write_cache: bool,
}

/// A disk.
pub struct Disk {
    drive: Arc<Drive>,
    options: StorageOptions,
    /// Bytes of a block.
    block: u64,
    state: Mutex<State>,
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |v, b| v << 8 | u64::from(*b))
}

fn padded(text: &str, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = text.bytes().take(len).collect();
    bytes.resize(len, b' ');
    bytes
}

impl Disk {
    pub fn new(drive: Arc<Drive>, options: StorageOptions) -> Self {
        let block = match options.logical_block_size {
            0 => drive.backend().geometry().logical_block,
            n => n,
        };
        let block = u64::from(if block.is_power_of_two() { block.clamp(512, 32768) } else { 512 });
        let state = Mutex::new(Self::fresh(&drive));
        Self { drive, options, block, state }
    }
    fn fresh(drive: &Drive) -> State {
        State { write_cache: drive.cache().write_cache(), ..State::default() }
    }
    fn blocks(&self) -> u64 {
        self.drive.capacity() / self.block
    }
    fn physical(&self) -> u64 {
        let own = u64::from(self.options.physical_block_size);
        let n = if own == 0 { u64::from(self.drive.backend().geometry().physical_block) } else { own };
        if n.is_power_of_two() { n.max(self.block) } else { self.block }
    }

    pub fn command(&self, c: &[u8; 16]) -> Work {
        let s = &mut *self.state.lock();
        // Unit attention is told before everything but these (SPC-4 5.14).
        let exempt = matches!(c[0], INQUIRY | REQUEST_SENSE | REPORT_LUNS);
        let result = match s.attention.take_if(|_| !exempt) {
            Some(attention) => Err(attention),
            None => {
                let reported = (c[0] == REQUEST_SENSE).then_some(s.sense);
                s.sense = sense::NONE;
                self.execute(s, c, reported.unwrap_or(sense::NONE))
            }
        };
        result.unwrap_or_else(|why| {
            s.sense = why;
            Work::Failed
        })
    }
    fn execute(&self, s: &mut State, c: &[u8; 16], reported: Sense) -> Result<Work, Sense> {
        let reply = |mut data: Vec<u8>, most: u64| {
            data.truncate(usize::try_from(most).unwrap_or(usize::MAX));
            Ok(if data.is_empty() { Work::Good } else { Work::Data(data) })
        };
        let needs_medium = !matches!(
            c[0],
            REQUEST_SENSE | INQUIRY | MODE_SENSE_6 | MODE_SENSE_10 | START_STOP_UNIT | PREVENT_ALLOW | REPORT_LUNS
        );
        if needs_medium && s.ejected {
            return Err(NO_MEDIUM);
        }
        // Logical block and count of commands of 6, 10, 12 and 16 bytes.
        let short = match c[4] {
            0 => 256,
            n => n.into(),
        };
        let range6 = (number(&c[1..4]) & 0x1f_ffff, short);
        let range10 = (number(&c[2..6]), number(&c[7..9]));
        let range12 = (number(&c[2..6]), number(&c[6..10]));
        let range16 = (number(&c[2..10]), number(&c[10..14]));
        let force = c[1] & 8 != 0;
        match c[0] {
            TEST_UNIT_READY => Ok(Work::Good),
            REQUEST_SENSE => {
                if c[1] & 1 != 0 {
                    return Err(sense::INVALID_FIELD);
                }
                let told = if reported == sense::NONE { s.attention.take().unwrap_or(reported) } else { reported };
                reply(told.fixed().to_vec(), c[4].into())
            }
            INQUIRY => {
                let data = match (c[1] & 1, c[2]) {
                    (0, 0) => self.inquiry(),
                    (0, _) => return Err(sense::INVALID_FIELD),
                    (_, page) => self.vital(page)?,
                };
                reply(data, number(&c[3..5]))
            }
            MODE_SENSE_6 => {
                let mut data = self.mode(s, c[2], c[1] & 8 == 0, false)?;
                data[0] = (data.len() - 1) as u8;
                reply(data, c[4].into())
            }
            MODE_SENSE_10 => {
                let mut data = self.mode(s, c[2], c[1] & 8 == 0, true)?;
                let len = (data.len() - 2) as u16;
                data[..2].copy_from_slice(&len.to_be_bytes());
                reply(data, number(&c[7..9]))
            }
            // Page format; pages are not saved.
            MODE_SELECT_6 | MODE_SELECT_10 if c[1] & 0x11 != 0x10 => Err(sense::INVALID_FIELD),
            MODE_SELECT_6 => Ok(take(c[4].into())),
            MODE_SELECT_10 => Ok(take(number(&c[7..9]))),
            START_STOP_UNIT => {
                if c[4] & 0xf0 != 0 || c[4] & 2 == 0 || !self.options.removable {
                    return Ok(Work::Good);
                }
                if c[4] & 1 == 0 && s.locked {
                    return Err(sense::REMOVAL_PREVENTED);
                }
                let was = std::mem::replace(&mut s.ejected, c[4] & 1 == 0);
                if was && !s.ejected {
                    s.attention = Some(sense::MEDIUM_CHANGED);
                }
                Ok(Work::Good)
            }
            PREVENT_ALLOW => {
                s.locked = c[4] & 1 != 0;
                Ok(Work::Good)
            }
            READ_FORMAT_CAPACITIES => {
                let blocks = u32::try_from(self.blocks()).unwrap_or(u32::MAX);
                let size = (self.block as u32 & 0xff_ffff | 2 << 24).to_be_bytes();
                reply([&[0, 0, 0, 8][..], &blocks.to_be_bytes(), &size].concat(), number(&c[7..9]))
            }
            READ_CAPACITY_10 => {
                let last = u32::try_from(self.blocks().saturating_sub(1)).unwrap_or(u32::MAX);
                reply([last.to_be_bytes(), (self.block as u32).to_be_bytes()].concat(), 8)
            }
            SERVICE_ACTION_IN_16 if c[1] & 0x1f == READ_CAPACITY_16 => {
                let mut data = vec![0; 32];
                data[..8].copy_from_slice(&self.blocks().saturating_sub(1).to_be_bytes());
                data[8..12].copy_from_slice(&(self.block as u32).to_be_bytes());
                data[13] = (self.physical() / self.block).trailing_zeros() as u8;
                // Logical block provisioning: unmapping is there.
                data[14] = u8::from(self.drive.discard_enabled()) << 7;
                reply(data, range16.1)
            }
            REPORT_LUNS => {
                let mut data = vec![0; 16];
                data[3] = 8;
                reply(data, range12.1)
            }
            READ_6 => self.read(range6),
            READ_10 => self.read(range10),
            READ_12 => self.read(range12),
            READ_16 => self.read(range16),
            WRITE_6 => self.write(s, range6, false),
            WRITE_10 => self.write(s, range10, force),
            WRITE_12 => self.write(s, range12, force),
            WRITE_16 => self.write(s, range16, force),
            WRITE_VERIFY_10 if c[1] & 2 == 0 => self.write(s, range10, true),
            WRITE_VERIFY_16 if c[1] & 2 == 0 => self.write(s, range16, true),
            SEEK_10 => self.range((range10.0, 1)).map(|_| Work::Good),
            // Without data to compare with.
            VERIFY_10 if c[1] & 6 == 0 => self.range(range10).map(|_| Work::Good),
            VERIFY_16 if c[1] & 6 == 0 => self.range(range16).map(|_| Work::Good),
            SYNCHRONIZE_CACHE_10 | SYNCHRONIZE_CACHE_16 => {
                let (first, count) = if c[0] == SYNCHRONIZE_CACHE_10 { range10 } else { range16 };
                self.range((first, count))?;
                Ok(Work::Run(Operation::Flush))
            }
            WRITE_SAME_10 => self.write_same(s, c, range10),
            WRITE_SAME_16 => self.write_same(s, c, range16),
            UNMAP if self.drive.discard_enabled() => {
                self.writable()?;
                Ok(take(number(&c[7..9])))
            }
            _ => Err(sense::INVALID_OPERATION),
        }
    }
    fn writable(&self) -> Result<(), Sense> {
        if self.drive.readonly() { Err(WRITE_PROTECTED) } else { Ok(()) }
    }
    /// Offset and length in bytes.
    fn range(&self, (first, count): (u64, u64)) -> Result<(u64, u64), Sense> {
        if first.checked_add(count).is_none_or(|end| end > self.blocks()) {
            return Err(sense::ADDRESS_OUT_OF_RANGE);
        }
        Ok((first * self.block, count * self.block))
    }
    fn read(&self, range: (u64, u64)) -> Result<Work, Sense> {
        let (offset, len) = self.range(range)?;
        match len {
            0 => Ok(Work::Good),
            1..=MAX_TRANSFER => Ok(Work::Read { offset, len }),
            _ => Err(sense::INVALID_FIELD),
        }
    }
    fn write(&self, s: &State, range: (u64, u64), force: bool) -> Result<Work, Sense> {
        let (offset, len) = self.range(range)?;
        self.writable()?;
        match len {
            0 => Ok(Work::Good),
            1..=MAX_TRANSFER => Ok(Work::Write { offset, len, flush: force || !s.write_cache }),
            _ => Err(sense::INVALID_FIELD),
        }
    }
    fn write_same(&self, s: &State, c: &[u8; 16], range: (u64, u64)) -> Result<Work, Sense> {
        let (_, len) = self.range(range)?;
        self.writable()?;
        // A count of zero would mean the rest of the disk; no data but zeros is taken.
        if c[1] & 0xe0 != 0 || range.1 == 0 || range.1 > MAX_UNMAP || len == 0 {
            return Err(sense::INVALID_FIELD);
        }
        // NDOB: there is no data.
        if c[0] == WRITE_SAME_16 && c[1] & 1 != 0 {
            return Ok(self.zeroes(s, c, range));
        }
        Ok(Work::Take(self.block as usize))
    }
    fn zeroes(&self, s: &State, c: &[u8; 16], (first, count): (u64, u64)) -> Work {
        let may_unmap = c[1] & 8 != 0;
        let (offset, len) = (first * self.block, count * self.block);
        Work::Run(Operation::WriteZeroes { offset, len, may_unmap, flush: !s.write_cache })
    }
    pub fn take(&self, c: &[u8; 16], data: &[u8]) -> Work {
        let s = &mut *self.state.lock();
        let result = match c[0] {
            MODE_SELECT_6 => mode_select(s, data, 4),
            MODE_SELECT_10 => mode_select(s, data, 8),
            WRITE_SAME_10 | WRITE_SAME_16 => {
                let range = match c[0] {
                    WRITE_SAME_10 => (number(&c[2..6]), number(&c[7..9])),
                    _ => (number(&c[2..10]), number(&c[10..14])),
                };
                match data.iter().all(|b| *b == 0) {
                    true => Ok(self.zeroes(s, c, range)),
                    false => Err(sense::INVALID_FIELD),
                }
            }
            UNMAP => self.unmap(data),
            _ => Err(sense::INVALID_OPERATION),
        };
        result.unwrap_or_else(|why| {
            s.sense = why;
            Work::Failed
        })
    }
    /// UNMAP parameter list (SBC-3 5.28): at most one descriptor, as the block limits say.
    fn unmap(&self, data: &[u8]) -> Result<Work, Sense> {
        let Some(list) = data.get(8..) else { return Err(sense::PARAMETER_LENGTH) };
        let len = usize::try_from(number(&data[2..4])).unwrap_or(0);
        match list.get(..len).ok_or(sense::PARAMETER_LENGTH)? {
            [] => Ok(Work::Good),
            d if d.len() == 16 => {
                let count = number(&d[8..12]);
                let (offset, len) = self.range((number(&d[..8]), count))?;
                match count {
                    0 => Ok(Work::Good),
                    1..=MAX_UNMAP => Ok(Work::Run(Operation::Discard { offset, len })),
                    _ => Err(sense::INVALID_PARAMETER),
                }
            }
            _ => Err(sense::INVALID_PARAMETER),
        }
    }

    pub fn finished(&self, write: bool, result: &io::Result<()>) -> bool {
        if result.is_err() {
            self.state.lock().sense = if write { WRITE_ERROR } else { sense::READ_ERROR };
        }
        result.is_ok()
    }

    fn inquiry(&self) -> Vec<u8> {
        let mut b = vec![0, u8::from(self.options.removable) << 7, 6, 2, 31, 0, 0, 0];
        b.extend(padded("RHEA", 8));
        b.extend(padded("USB DISK", 16));
        b.extend(padded("1.0", 4));
        b
    }
    /// Vital product data (SPC-4 7.8, SBC-3 6.5).
    fn vital(&self, page: u8) -> Result<Vec<u8>, Sense> {
        let discard = self.drive.discard_enabled();
        let body = match page {
            0x00 => vec![0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2],
            0x80 => padded(&self.options.serial, self.options.serial.len().clamp(1, 36)),
            0x83 => {
                let mut id = padded("RHEA", 8);
                id.extend(padded(&self.options.serial, self.options.serial.len().min(36)));
                // ASCII, T10 vendor identification.
                [vec![2, 1, 0, id.len() as u8], id].concat()
            }
            0xb0 => {
                let mut b = vec![0; 60];
                let (blocks, descriptors) = if discard { (MAX_UNMAP as u32, 1u32) } else { (0, 0) };
                b[16..20].copy_from_slice(&blocks.to_be_bytes());
                b[20..24].copy_from_slice(&descriptors.to_be_bytes());
                b[32..40].copy_from_slice(&MAX_UNMAP.to_be_bytes());
                b
            }
            // Does not rotate.
            0xb1 => [&[0, 1][..], &[0; 58]].concat(),
            // UNMAP and WRITE SAME unmap.
            0xb2 => vec![0, if discard { 0xe0 } else { 0 }, 0, 0],
            _ => return Err(sense::INVALID_FIELD),
        };
        Ok([vec![0, page, 0, body.len() as u8], body].concat())
    }
    /// MODE SENSE: header, block descriptor, pages. The length is the caller's.
    fn mode(&self, s: &State, page: u8, descriptor: bool, long: bool) -> Result<Vec<u8>, Sense> {
        let (page, control) = (page & 0x3f, page >> 6);
        if control == 3 {
            return Err(sense::SAVING_NOT_SUPPORTED);
        }
        let cache = if control == 2 { self.drive.cache().write_cache() } else { s.write_cache };
        let pages: [(u8, Vec<u8>, usize); 4] = [
            // Automatic reallocation.
            (RECOVERY, vec![0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0),
            (CACHING, [&[u8::from(cache) * WRITE_CACHE][..], &[0; 17]].concat(), usize::from(WRITE_CACHE)),
            (CONTROL, vec![0; 10], 0),
            (EXCEPTIONS, vec![0; 10], 0),
        ];
        let specific = u8::from(self.drive.readonly()) << 7 | 0x10;
        let size = if descriptor { 8 } else { 0 };
        let mut b = if long { vec![0, 0, 0, specific, 0, 0, 0, size] } else { vec![0, 0, specific, size] };
        if descriptor {
            let blocks = u32::try_from(self.blocks()).unwrap_or(u32::MAX);
            b.extend(blocks.to_be_bytes());
            b.extend((self.block as u32).to_be_bytes());
        }
        let head = b.len();
        for (code, values, changeable) in pages {
            if page == ALL_PAGES || page == code {
                b.extend([code, values.len() as u8]);
                match control {
                    1 => b.extend((0..values.len()).map(|n| if n == 0 { changeable as u8 } else { 0 })),
                    _ => b.extend(values),
                }
            }
        }
        // Some hosts ask for page 0, which is the vendor's: only the header.
        if b.len() == head && page != 0 { Err(sense::INVALID_FIELD) } else { Ok(b) }
    }

    pub fn reset(&self) {
        *self.state.lock() = State { attention: Some(sense::RESET), ..Self::fresh(&self.drive) };
    }
    pub fn save(&self) -> Vec<u8> {
        // Encoding into a vector does not fail.
        minicbor::to_vec(&*self.state.lock()).unwrap_or_default()
    }
    pub fn load(&self, state: &[u8]) -> Result<(), LoadError> {
        *self.state.lock() = minicbor::decode(state).map_err(|e| LoadError::Damaged(e.to_string()))?;
        Ok(())
    }
}

fn take(len: u64) -> Work {
    match usize::try_from(len) {
        Ok(0) | Err(_) => Work::Good,
        Ok(n) => Work::Take(n),
    }
}

/// The parameters of MODE SELECT with a header of so many bytes.
fn mode_select(s: &mut State, data: &[u8], header: usize) -> Result<Work, Sense> {
    let Some(head) = data.get(..header) else { return Err(sense::PARAMETER_LENGTH) };
    let descriptors = if header == 4 { usize::from(head[3]) } else { number(&head[6..8]) as usize };
    let mut rest = data.get(header + descriptors..).ok_or(sense::PARAMETER_LENGTH)?;
    while let [code, len, ..] = *rest {
        let body = rest.get(2..2 + usize::from(len)).ok_or(sense::PARAMETER_LENGTH)?;
        match (code & 0x3f, body) {
            (CACHING, [flags, ..]) => s.write_cache = flags & WRITE_CACHE != 0,
            // These have nothing that can change.
            (RECOVERY | CONTROL | EXCEPTIONS, _) => (),
            _ => return Err(sense::INVALID_PARAMETER),
        }
        rest = &rest[2 + usize::from(len)..];
    }
    if rest.is_empty() { Ok(Work::Good) } else { Err(sense::PARAMETER_LENGTH) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhea_block::{CacheMode, MemoryBackend};

    fn disk(readonly: bool) -> Disk {
        let drive = Drive::new("d", Arc::new(MemoryBackend::new(vec![0; 1 << 20], readonly)), CacheMode::Writeback);
        Disk::new(drive, StorageOptions { removable: true, ..StorageOptions::default() })
    }
    fn block(bytes: &[u8]) -> [u8; 16] {
        let mut b = [0; 16];
        b[..bytes.len()].copy_from_slice(bytes);
        b
    }
    fn data(d: &Disk, bytes: &[u8]) -> Option<Vec<u8>> {
        match d.command(&block(bytes)) {
            Work::Data(data) => Some(data),
            _ => None,
        }
    }
    fn sense_of(d: &Disk) -> (u8, u8) {
        let s = data(d, &[REQUEST_SENSE, 0, 0, 0, 18]).unwrap();
        (s[2], s[12])
    }

    #[test]
    fn inquiries() {
        let d = disk(false);
        assert_eq!(data(&d, &[INQUIRY, 0, 0, 0, 36]).unwrap()[..5], [0, 0x80, 6, 2, 31]);
        for page in [0, 0x80, 0x83, 0xb0, 0xb1, 0xb2] {
            let v = data(&d, &[INQUIRY, 1, page, 0, 255]).unwrap();
            assert_eq!((v[1], usize::from(v[3])), (page, v.len() - 4));
        }
        assert!(data(&d, &[INQUIRY, 1, 0x90, 0, 255]).is_none());
        assert_eq!(sense_of(&d), (5, 0x24));
        assert_eq!(data(&d, &[READ_CAPACITY_10]).unwrap(), [0, 0, 7, 255, 0, 0, 2, 0]);
        for (page, long) in [(0x3f, false), (0x3f, true), (8, false), (0x48, true), (0, false)] {
            let c = match long {
                true => block(&[MODE_SENSE_10, 0, page, 0, 0, 0, 0, 0, 255]),
                false => block(&[MODE_SENSE_6, 0, page, 0, 255]),
            };
            let Work::Data(m) = d.command(&c) else { panic!() };
            let len = if long { number(&m[..2]) as usize + 2 } else { usize::from(m[0]) + 1 };
            assert_eq!(len, m.len());
        }
    }

    #[test]
    fn ranges_and_states() {
        let d = disk(false);
        let c = block(&[READ_10, 0, 0, 0, 7, 255, 0, 0, 1]);
        assert!(matches!(d.command(&c), Work::Read { offset: 0xf_fe00, len: 512, .. }));
        for c in [&[READ_10, 0, 0, 0, 8, 0, 0, 0, 1][..], &[READ_10, 0, 0, 0, 7, 255, 0, 0, 2], &[0x88, 0, 255, 255]] {
            let mut c = block(c);
            c[13] = 1;
            assert!(matches!(d.command(&c), Work::Failed));
            assert_eq!(sense_of(&d), (5, 0x21));
        }
        assert!(matches!(disk(true).command(&block(&[WRITE_10, 0, 0, 0, 0, 0, 0, 0, 1])), Work::Failed));
        d.reset();
        assert!(matches!(d.command(&block(&[TEST_UNIT_READY])), Work::Failed));
        assert_eq!(sense_of(&d), (6, 0x29));
        assert!(matches!(d.command(&block(&[START_STOP_UNIT, 0, 0, 0, 2])), Work::Good));
        assert!(matches!(d.command(&block(&[TEST_UNIT_READY])), Work::Failed));
        assert_eq!(sense_of(&d), (2, 0x3a));
        assert!(matches!(d.command(&block(&[START_STOP_UNIT, 0, 0, 0, 3])), Work::Good));
        assert_eq!(sense_of(&d), (6, 0x28));
        // Write cache off: writes are flushed.
        assert!(matches!(d.command(&block(&[MODE_SELECT_6, 0x10, 0, 0, 24])), Work::Take(24)));
        let mut page = vec![0, 0, 0, 0, 8, 18];
        page.resize(24, 0);
        assert!(matches!(d.take(&block(&[MODE_SELECT_6, 0x10, 0, 0, 24]), &page), Work::Good));
        let c = block(&[WRITE_10, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert!(matches!(d.command(&c), Work::Write { flush: true, .. }));
    }
}
