//! An ATA disk.

use super::command as c;
use super::identify::{self, MAX_LBA28};
use super::logs::{self, NcqError};
use super::{Action, AtaDevice, Protocol, Registers, Taskfile, error, status};
use crate::work::Work;
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_block::{Drive, Operation, SECTOR, Segment};
use rhea_device::LoadError;
use std::io;
use std::sync::Arc;

/// Sectors of a DRQ block of the MULTIPLE commands, at most.
pub const MAX_MULTIPLE: u8 = 16;
/// Blocks of 512 bytes of range entries in a DATA SET MANAGEMENT command, at most.
pub const MAX_TRIM_BLOCKS: u16 = 8;
/// Bytes of one read of a verification.
const VERIFY_PIECE: u64 = 1 << 20;
const DEVICE_LBA: u8 = 1 << 6;

/// What a disk can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// At most 20, 40, 8 characters. Without a serial number it is made of the port's.
    pub serial: String,
    pub model: String,
    pub version: String,
    /// World wide name, 0: none.
    pub wwn: u64,
    /// Rotations a minute; 0: not told, 1: does not rotate.
    pub rotation_rate: u16,
    /// Bytes of a physical block, a power of two.
    pub physical_block: u32,
    /// Cylinders, heads, sectors for a track; `None`: by capacity.
    pub chs: Option<(u16, u8, u8)>,
    /// Overrides the drive's cache mode: `Some(false)` is write-through.
    pub write_cache: Option<bool>,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            serial: String::new(),
            model: "RHEA HARDDISK".to_owned(),
            version: "1.0".to_owned(),
            wwn: 0,
            rotation_rate: 0,
            physical_block: 512,
            chs: None,
            write_cache: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
enum Power {
    #[n(0)]
    Active,
    #[n(1)]
    Idle,
    #[n(2)]
    Standby,
    #[n(3)]
    Sleep,
}

/// What software can change.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Settings {
    /// Heads, sectors for a track.
    #[n(0)]
    pub geometry: (u8, u8),
    #[n(1)]
    pub multiple: u8,
    #[n(2)]
    pub write_cache: bool,
    #[n(3)]
    pub look_ahead: bool,
    #[n(4)]
    pub transfer_mode: u8,
    #[n(5)]
    pub smart: bool,
    #[n(6)]
    power: Power,
    /// The last self-test, if there was one.
    #[n(7)]
    self_test: Option<u8>,
    #[n(8)]
    keep_settings: bool,
}

struct State {
    settings: Settings,
    error: Option<NcqError>,
    buffer: Vec<u8>,
}

/// An ATA disk over a drive.
pub struct Disk {
    drive: Arc<Drive>,
    options: DiskOptions,
    chs: (u16, u8, u8),
    state: Mutex<State>,
}

type Started = Result<Action, u8>;

impl Disk {
    #[must_use]
    pub fn new(drive: Arc<Drive>, options: DiskOptions) -> Arc<Self> {
        let sectors = drive.capacity() / SECTOR;
        let chs = options.chs.unwrap_or_else(|| ((sectors / (16 * 63)).clamp(1, 16383) as u16, 16, 63));
        let chs = (chs.0.max(1), chs.1.clamp(1, 16), chs.2.max(1));
        let disk = Self {
            state: Mutex::new(State { settings: initial(&drive, &options, chs), error: None, buffer: vec![0; 512] }),
            drive,
            options,
            chs,
        };
        Arc::new(disk)
    }
    #[must_use]
    pub fn drive(&self) -> &Arc<Drive> {
        &self.drive
    }
    fn sectors(&self) -> u64 {
        self.drive.capacity() / SECTOR
    }
    /// The start of a 28-bit or CHS command.
    fn lba28(&self, tf: &Taskfile, s: &Settings) -> Result<u64, u8> {
        let head = u64::from(tf.device & 15);
        if tf.device & DEVICE_LBA != 0 {
            return Ok(tf.lba & 0xff_ffff | head << 24);
        }
        let (cylinder, sector) = (tf.lba >> 8 & 0xffff, tf.lba & 0xff);
        let (heads, spt) = (u64::from(s.geometry.0), u64::from(s.geometry.1));
        if sector == 0 || sector > spt || head >= heads {
            return Err(error::IDNF);
        }
        Ok((cylinder * heads + head) * spt + sector - 1)
    }
    fn place(&self, tf: &Taskfile, s: &Settings, wide: bool) -> Result<(u64, u64), u8> {
        let (lba, count) = match wide {
            true => (tf.lba, if tf.count == 0 { 65536 } else { u64::from(tf.count) }),
            false => (self.lba28(tf, s)?, if tf.count & 0xff == 0 { 256 } else { u64::from(tf.count & 0xff) }),
        };
        self.inside(lba, count)
    }
    /// Offset and length in bytes.
    fn inside(&self, lba: u64, count: u64) -> Result<(u64, u64), u8> {
        if lba.checked_add(count).is_none_or(|end| end > self.sectors()) {
            return Err(error::IDNF);
        }
        Ok((lba * SECTOR, count * SECTOR))
    }
    fn transfer(&self, (offset, len): (u64, u64), write: bool, flush: bool, protocol: Protocol) -> Started {
        if write && self.drive.readonly() {
            return Err(error::ABRT);
        }
        Ok(Action::Transfer { drive: self.drive.clone(), offset, len, write, flush, protocol })
    }
    fn run(&self, work: Work) -> Started {
        Ok(Action::Run { drive: self.drive.clone(), work })
    }

    fn start(&self, tf: &Taskfile, st: &mut State) -> Started {
        let s = &mut st.settings;
        let through = !s.write_cache;
        let block = Protocol::Pio(SECTOR as u32);
        let multiple = Protocol::Pio(u32::from(s.multiple) * SECTOR as u32);
        let good = || Ok(Action::End(Registers::good(tf)));
        let media = matches!(tf.command, 0x20..=0x42 | 0x60..=0x61 | c::READ_MULTIPLE..=c::WRITE_MULTIPLE | c::READ_DMA..=c::WRITE_MULTIPLE_FUA_EXT);
        if media && matches!(s.power, Power::Idle | Power::Standby) {
            s.power = Power::Active;
        }
        match tf.command {
            c::READ_SECTORS | c::READ_SECTORS_NO_RETRY => self.transfer(self.place(tf, s, false)?, false, false, block),
            c::READ_SECTORS_EXT => self.transfer(self.place(tf, s, true)?, false, false, block),
            c::WRITE_SECTORS | c::WRITE_SECTORS_NO_RETRY => {
                self.transfer(self.place(tf, s, false)?, true, through, block)
            }
            c::WRITE_SECTORS_EXT => self.transfer(self.place(tf, s, true)?, true, through, block),
            c::READ_MULTIPLE | c::READ_MULTIPLE_EXT if s.multiple != 0 => {
                self.transfer(self.place(tf, s, tf.command == c::READ_MULTIPLE_EXT)?, false, false, multiple)
            }
            c::WRITE_MULTIPLE | c::WRITE_MULTIPLE_EXT | c::WRITE_MULTIPLE_FUA_EXT if s.multiple != 0 => {
                let flush = through || tf.command == c::WRITE_MULTIPLE_FUA_EXT;
                self.transfer(self.place(tf, s, tf.command != c::WRITE_MULTIPLE)?, true, flush, multiple)
            }
            c::READ_DMA | c::READ_DMA_NO_RETRY => self.transfer(self.place(tf, s, false)?, false, false, Protocol::Dma),
            c::READ_DMA_EXT => self.transfer(self.place(tf, s, true)?, false, false, Protocol::Dma),
            c::WRITE_DMA | c::WRITE_DMA_NO_RETRY => {
                self.transfer(self.place(tf, s, false)?, true, through, Protocol::Dma)
            }
            c::WRITE_DMA_EXT => self.transfer(self.place(tf, s, true)?, true, through, Protocol::Dma),
            c::WRITE_DMA_FUA_EXT => self.transfer(self.place(tf, s, true)?, true, true, Protocol::Dma),
            c::READ_FPDMA_QUEUED | c::WRITE_FPDMA_QUEUED => {
                let count = if tf.features == 0 { 65536 } else { u64::from(tf.features) };
                let write = tf.command == c::WRITE_FPDMA_QUEUED;
                // Bit 7 of the device field: force unit access.
                let flush = write && (through || tf.device & 0x80 != 0);
                self.transfer(self.inside(tf.lba, count)?, write, flush, Protocol::Dma)
            }
            c::READ_VERIFY | c::READ_VERIFY_NO_RETRY | c::READ_VERIFY_EXT => {
                let (offset, len) = self.place(tf, s, tf.command == c::READ_VERIFY_EXT)?;
                let pieces = (0..len.div_ceil(VERIFY_PIECE)).map(|n| {
                    let at = n * VERIFY_PIECE;
                    let size = VERIFY_PIECE.min(len - at) as usize;
                    Operation::Read { offset: offset + at, segments: vec![Segment::Host(vec![0; size])] }
                });
                self.run(Work::Many(pieces.collect()))
            }
            c::SEEK => {
                let lba = self.lba28(tf, s)?;
                self.inside(lba, 1)?;
                good()
            }
            c::FLUSH_CACHE | c::FLUSH_CACHE_EXT => self.run(Work::One(Operation::Flush)),
            c::DATA_SET_MANAGEMENT => {
                let count = if tf.count == 0 { 65536 } else { u32::from(tf.count) };
                if tf.features & 1 == 0 || count > u32::from(MAX_TRIM_BLOCKS) || self.drive.readonly() {
                    return Err(error::ABRT);
                }
                Ok(Action::Out { len: count as usize * 512, protocol: Protocol::Dma })
            }
            c::READ_NATIVE_MAX => {
                let last = self.sectors().saturating_sub(1).min(MAX_LBA28 - 1);
                let device = tf.device & 0xf0 | (last >> 24) as u8 & 15;
                Ok(Action::End(Registers { lba: last & 0xff_ffff, device, ..Registers::good(tf) }))
            }
            c::READ_NATIVE_MAX_EXT => {
                Ok(Action::End(Registers { lba: self.sectors().saturating_sub(1), ..Registers::good(tf) }))
            }
            c::IDENTIFY_DEVICE => {
                let data = identify::disk(&self.options, s, self.sectors(), self.chs);
                Ok(Action::In { data, protocol: block, end: Registers::good(tf) })
            }
            c::READ_LOG_EXT | c::READ_LOG_DMA_EXT => {
                let protocol = if tf.command == c::READ_LOG_EXT { block } else { Protocol::Dma };
                self.read_log(tf, st, protocol)
            }
            c::READ_BUFFER => Ok(Action::In { data: st.buffer.clone(), protocol: block, end: Registers::good(tf) }),
            c::WRITE_BUFFER => Ok(Action::Out { len: 512, protocol: block }),
            c::SMART => smart(tf, s),
            c::SET_FEATURES => self.set_features(tf, s),
            c::SET_MULTIPLE_MODE => {
                let n = tf.count as u8;
                if n > MAX_MULTIPLE || (n != 0 && !n.is_power_of_two()) {
                    return Err(error::ABRT);
                }
                s.multiple = n;
                good()
            }
            c::INITIALIZE_DEVICE_PARAMETERS => {
                let spt = tf.count as u8;
                if spt == 0 {
                    return Err(error::ABRT);
                }
                s.geometry = ((tf.device & 15) + 1, spt);
                good()
            }
            c::RECALIBRATE => good(),
            c::EXECUTE_DEVICE_DIAGNOSTIC => Ok(Action::End(self.signature())),
            c::STANDBY_IMMEDIATE | c::STANDBY | c::STANDBY_IMMEDIATE_OLD | c::STANDBY_OLD => {
                // Data in the cache goes to the medium first.
                s.power =
                    if matches!(tf.command, c::STANDBY_IMMEDIATE | c::STANDBY_IMMEDIATE_OLD) || tf.count & 0xff != 0 {
                        Power::Standby
                    } else {
                        s.power
                    };
                self.run(Work::One(Operation::Flush))
            }
            c::IDLE_IMMEDIATE | c::IDLE | c::IDLE_IMMEDIATE_OLD | c::IDLE_OLD => {
                s.power = Power::Idle;
                good()
            }
            c::SLEEP | c::SLEEP_OLD => {
                s.power = Power::Sleep;
                self.run(Work::One(Operation::Flush))
            }
            c::CHECK_POWER_MODE | c::CHECK_POWER_MODE_OLD => {
                let mode = match s.power {
                    Power::Active | Power::Sleep => 0xff,
                    Power::Idle => 0x80,
                    Power::Standby => 0x00,
                };
                Ok(Action::End(Registers { count: mode, ..Registers::good(tf) }))
            }
            // Everything else is not there, and NOP is always aborted.
            _ => Err(error::ABRT),
        }
    }

    fn read_log(&self, tf: &Taskfile, st: &mut State, protocol: Protocol) -> Started {
        let (address, count) = (tf.lba as u8, usize::from(tf.count));
        let first = (tf.lba >> 8 & 0xff) as u16 | ((tf.lba >> 32 & 0xff) as u16) << 8;
        if count != 1 {
            return Err(error::ABRT);
        }
        let data = logs::general(address, first, st.error.as_ref()).ok_or(error::ABRT)?;
        if address == logs::NCQ_ERROR {
            st.error = None;
        }
        Ok(Action::In { data, protocol, end: Registers::good(tf) })
    }

    fn set_features(&self, tf: &Taskfile, s: &mut Settings) -> Started {
        match tf.features as u8 {
            0x02 => s.write_cache = true,
            0x82 => {
                s.write_cache = false;
                return self.run(Work::One(Operation::Flush));
            }
            0x03 => match tf.count as u8 {
                // PIO default, PIO 0–4, multiword DMA 0–2, Ultra DMA 0–6.
                0x00 | 0x01 | 0x08..=0x0c => (),
                mode @ (0x20..=0x22 | 0x40..=0x46) => s.transfer_mode = mode,
                _ => return Err(error::ABRT),
            },
            0x55 => s.look_ahead = false,
            0xaa => s.look_ahead = true,
            0x66 => s.keep_settings = true,
            0xcc => s.keep_settings = false,
            _ => return Err(error::ABRT),
        }
        Ok(Action::End(Registers::good(tf)))
    }

    fn trim(&self, tf: &Taskfile, data: &[u8]) -> Started {
        let mut work = Vec::new();
        for entry in data.chunks_exact(8) {
            let value = entry.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
            let (lba, count) = (value & 0xffff_ffff_ffff, value >> 48);
            if count == 0 {
                continue;
            }
            let (offset, len) = self.inside(lba, count)?;
            work.push(Operation::Discard { offset, len });
        }
        if work.is_empty() {
            return Ok(Action::End(Registers::good(tf)));
        }
        self.run(Work::Many(work))
    }
}

fn initial(drive: &Drive, options: &DiskOptions, chs: (u16, u8, u8)) -> Settings {
    Settings {
        geometry: (chs.1, chs.2),
        multiple: MAX_MULTIPLE,
        write_cache: options.write_cache.unwrap_or_else(|| drive.cache().write_cache()),
        look_ahead: true,
        transfer_mode: 0x45,
        smart: true,
        power: Power::Active,
        self_test: None,
        keep_settings: false,
    }
}

/// SMART (ATA8-ACS 7.52).
fn smart(tf: &Taskfile, s: &mut Settings) -> Started {
    let good = || Ok(Action::End(Registers::good(tf)));
    let data = |data| Ok(Action::In { data, protocol: Protocol::Pio(512), end: Registers::good(tf) });
    if tf.lba >> 8 & 0xffff != 0xc24f {
        return Err(error::ABRT);
    }
    match tf.features as u8 {
        0xd8 => {
            s.smart = true;
            return good();
        }
        _ if !s.smart => return Err(error::ABRT),
        0xd0 => return data(logs::smart_data(0)),
        0xd1 => return data(logs::smart_thresholds()),
        // Attribute autosave is always on.
        0xd2 if matches!(tf.count as u8, 0 | 0xf1) => return good(),
        0xd4 => match tf.lba as u8 {
            // Off-line collection, short and extended self-tests, also in captive mode; abort.
            kind @ (0 | 1 | 2 | 0x81 | 0x82) => {
                s.self_test = Some(kind);
                return good();
            }
            0x7f => return good(),
            _ => (),
        },
        0xd5 if tf.count as u8 == 1 => {
            return data(logs::smart_log(tf.lba as u8, s.self_test).ok_or(error::ABRT)?);
        }
        0xd9 => {
            s.smart = false;
            return good();
        }
        // RETURN STATUS: no threshold is exceeded.
        0xda => return good(),
        _ => (),
    }
    Err(error::ABRT)
}

impl AtaDevice for Disk {
    fn signature(&self) -> Registers {
        // Diagnostic code 1: passed.
        Registers { status: status::GOOD, error: 1, lba: 1, count: 1, device: 0 }
    }
    fn is_packet(&self) -> bool {
        false
    }
    fn command(&self, tf: &Taskfile, _packet: &[u8; 16]) -> Action {
        let st = &mut *self.state.lock();
        if st.settings.power == Power::Sleep {
            return Action::Nothing;
        }
        // After an error in the queue only the log of it is read (ACS-3 4.15.4).
        let log = matches!(tf.command, c::READ_LOG_EXT | c::READ_LOG_DMA_EXT) && tf.lba as u8 == logs::NCQ_ERROR;
        let started = if st.error.is_some() && !log { Err(error::ABRT) } else { self.start(tf, st) };
        started.unwrap_or_else(|code| Action::End(Registers::failed(tf, code)))
    }
    fn data_out(&self, tf: &Taskfile, _packet: &[u8; 16], data: &[u8]) -> Action {
        let started = match tf.command {
            c::DATA_SET_MANAGEMENT => self.trim(tf, data),
            c::WRITE_BUFFER if data.len() == 512 => {
                self.state.lock().buffer.copy_from_slice(data);
                Ok(Action::End(Registers::good(tf)))
            }
            _ => Err(error::ABRT),
        };
        started.unwrap_or_else(|code| Action::End(Registers::failed(tf, code)))
    }
    fn finished(&self, tf: &Taskfile, result: &io::Result<()>) -> Registers {
        if result.is_ok() {
            return Registers::good(tf);
        }
        let read = matches!(
            tf.command,
            c::READ_SECTORS
                | c::READ_SECTORS_NO_RETRY
                | c::READ_SECTORS_EXT
                | c::READ_DMA_EXT
                | c::READ_MULTIPLE_EXT
                | c::READ_VERIFY
                ..=c::READ_VERIFY_EXT | c::READ_FPDMA_QUEUED | c::READ_MULTIPLE | c::READ_DMA | c::READ_DMA_NO_RETRY
        );
        Registers::failed(tf, if read { error::UNC } else { error::ABRT })
    }
    fn queue_error(&self, tf: &Taskfile, end: &Registers, queued: bool) {
        self.state.lock().error = Some(NcqError { tf: *tf, end: *end, queued });
    }
    fn reset(&self, hard: bool) {
        let st = &mut *self.state.lock();
        st.error = None;
        let fresh = initial(&self.drive, &self.options, self.chs);
        let s = &mut st.settings;
        if matches!(s.power, Power::Sleep) {
            s.power = Power::Standby;
        }
        if hard || !s.keep_settings {
            *s = Settings {
                power: s.power,
                smart: s.smart,
                self_test: s.self_test,
                transfer_mode: s.transfer_mode,
                keep_settings: !hard && s.keep_settings,
                ..fresh
            };
        }
    }
    fn power_on(&self) {
        let st = &mut *self.state.lock();
        st.error = None;
        st.buffer.fill(0);
        st.settings = initial(&self.drive, &self.options, self.chs);
    }
    fn save(&self) -> Vec<u8> {
        let State { settings, error, buffer } = &*self.state.lock();
        let error = error.as_ref().map(|e| {
            let (t, r) = (e.tf, e.end);
            SavedError {
                count: t.count,
                status: r.status,
                error: r.error,
                lba: r.lba,
                end_count: r.count,
                device: r.device,
                queued: e.queued,
            }
        });
        // Encoding into a vector does not fail.
        minicbor::to_vec(Saved { settings: settings.clone(), error, buffer: buffer.clone() }).unwrap_or_default()
    }
    fn load(&self, state: &[u8]) -> Result<(), LoadError> {
        let Saved { settings, error, buffer } =
            minicbor::decode(state).map_err(|e| LoadError::Damaged(e.to_string()))?;
        if buffer.len() != 512
            || settings.geometry.0 == 0
            || settings.geometry.1 == 0
            || settings.multiple > MAX_MULTIPLE
        {
            return Err(LoadError::Damaged("settings of an ATA disk".to_owned()));
        }
        let error = error.map(|e| NcqError {
            tf: Taskfile { count: e.count, ..Taskfile::default() },
            end: Registers { status: e.status, error: e.error, lba: e.lba, count: e.end_count, device: e.device },
            queued: e.queued,
        });
        *self.state.lock() = State { settings, error, buffer };
        Ok(())
    }
}

#[derive(Encode, Decode)]
struct SavedError {
    #[n(0)]
    count: u16,
    #[n(1)]
    status: u8,
    #[n(2)]
    error: u8,
    #[n(3)]
    lba: u64,
    #[n(4)]
    end_count: u16,
    #[n(5)]
    device: u8,
    #[n(6)]
    queued: bool,
}

#[derive(Encode, Decode)]
struct Saved {
    #[n(0)]
    settings: Settings,
    #[n(1)]
    error: Option<SavedError>,
    #[n(2)]
    buffer: Vec<u8>,
}
