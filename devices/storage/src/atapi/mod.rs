//! A CD/DVD drive: an ATA device that takes packets (ACS-3 4.3) with the commands of MMC-5.

mod commands;
mod pages;
pub mod sense;

use crate::ata::identify::{Words, transfer_modes};
use crate::ata::{Action, AtaDevice, Protocol, Registers, Taskfile, command as c, error, status};
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_block::Drive;
use rhea_device::LoadError;
use sense::Sense;
use std::io;
use std::sync::{Arc, OnceLock};
use thiserror::Error;

/// Bytes of a logical block of a CD.
pub const BLOCK: u64 = 2048;

/// What a CD drive can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CdOptions {
    /// Empty: made of the port's number.
    pub serial: String,
    pub model: String,
    pub version: String,
    /// For INQUIRY: at most 8 and 16 characters.
    pub vendor: String,
    pub product: String,
}

impl Default for CdOptions {
    fn default() -> Self {
        Self {
            serial: String::new(),
            model: "RHEA DVD-ROM".to_owned(),
            version: "1.0".to_owned(),
            vendor: "RHEA".to_owned(),
            product: "RHEA DVD-ROM".to_owned(),
        }
    }
}

/// Why the medium cannot be taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TrayError {
    #[error("the guest has locked the tray and was asked to open it: try again, or use force")]
    Locked,
    #[error("the tray is not open")]
    Closed,
    #[error("there is a medium in the drive")]
    Occupied,
}

/// Media events (MMC-5 6.7.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Event {
    #[n(0)]
    None = 0,
    #[n(1)]
    EjectRequest = 1,
    #[n(2)]
    NewMedia = 2,
    #[n(3)]
    Removal = 3,
}

#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct Tray {
    #[n(0)]
    pub open: bool,
    #[n(1)]
    pub locked: bool,
    #[n(2)]
    pub event: Event,
    /// For REQUEST SENSE.
    #[n(3)]
    pub sense: Sense,
    /// Unit attention conditions not yet told, oldest first.
    #[n(4)]
    pub attention: Vec<Sense>,
    #[n(5)]
    pub asleep: bool,
    #[n(6)]
    pub transfer_mode: u8,
    /// Error recovery and number of retries, as MODE SELECT set them.
    #[n(7)]
    pub recovery: [u8; 2],
    /// The power condition CHECK POWER MODE tells.
    #[n(8)]
    pub power: u8,
}

impl Tray {
    fn new() -> Self {
        Self {
            open: false,
            locked: false,
            event: Event::None,
            sense: sense::NONE,
            attention: vec![sense::RESET],
            asleep: false,
            transfer_mode: 0x45,
            recovery: [0, 5],
            power: 0xff,
        }
    }
    /// At most one of a kind is kept.
    pub fn attend(&mut self, what: Sense) {
        if !self.attention.contains(&what) {
            self.attention.push(what);
        }
    }
}

pub(crate) struct State {
    pub tray: Tray,
    pub medium: Option<Arc<Drive>>,
}

impl State {
    /// The medium, if the drive is ready.
    pub fn ready(&self) -> Result<&Arc<Drive>, Sense> {
        match &self.medium {
            _ if self.tray.open => Err(sense::NO_MEDIUM_OPEN),
            None => Err(sense::NO_MEDIUM_CLOSED),
            Some(m) => Ok(m),
        }
    }
    /// The tray is open now. A guest that has locked it is asked to open it, unless `force`.
    fn open(&mut self, force: bool) -> Result<(), TrayError> {
        if self.tray.open {
            return Ok(());
        }
        if self.tray.locked && !force {
            self.tray.event = Event::EjectRequest;
            return Err(TrayError::Locked);
        }
        self.tray.open = true;
        self.tray.locked = false;
        if self.medium.is_some() {
            self.tray.event = Event::Removal;
        }
        Ok(())
    }
    /// The tray is closed now, perhaps with another medium.
    pub fn close(&mut self) {
        if std::mem::take(&mut self.tray.open) && self.medium.is_some() {
            self.new_medium();
        }
    }
    fn new_medium(&mut self) {
        self.tray.event = Event::NewMedia;
        self.tray.attend(sense::MEDIUM_CHANGED);
    }
}

/// Blocks of a medium.
pub(crate) fn blocks(medium: &Drive) -> u64 {
    (medium.capacity() / BLOCK).min(u32::MAX.into())
}

/// Called with whether the tray is open now.
type TrayMoved = Box<dyn Fn(bool) + Send + Sync>;

/// A CD/DVD drive.
pub struct CdDrive {
    options: CdOptions,
    state: Mutex<State>,
    moved: OnceLock<TrayMoved>,
}

impl CdDrive {
    #[must_use]
    pub fn new(medium: Option<Arc<Drive>>, options: CdOptions) -> Arc<Self> {
        Arc::new(Self { options, state: Mutex::new(State { tray: Tray::new(), medium }), moved: OnceLock::new() })
    }
    /// Sets what is called when the guest or somebody else has opened or closed the tray; once.
    pub fn on_tray_moved(&self, f: impl Fn(bool) + Send + Sync + 'static) {
        // The first one stays.
        let _ = self.moved.set(Box::new(f));
    }
    /// Changes the state, and tells if that has moved the tray.
    fn change<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let (result, moved) = {
            let s = &mut *self.state.lock();
            let before = s.tray.open;
            let result = f(s);
            (result, (s.tray.open != before).then_some(s.tray.open))
        };
        if let (Some(open), Some(f)) = (moved, self.moved.get()) {
            f(open);
        }
        result
    }
    /// Opens the tray, the medium in it. A guest that has locked the tray is asked to open it, unless `force`.
    ///
    /// # Errors
    /// [`TrayError::Locked`].
    pub fn open_tray(&self, force: bool) -> Result<(), TrayError> {
        self.change(|s| s.open(force))
    }
    pub fn close_tray(&self) {
        self.change(State::close);
    }
    /// Takes the medium out of the open tray.
    ///
    /// # Errors
    /// [`TrayError::Closed`].
    pub fn take_medium(&self) -> Result<Option<Arc<Drive>>, TrayError> {
        self.change(|s| if s.tray.open { Ok(s.medium.take()) } else { Err(TrayError::Closed) })
    }
    /// Puts a medium into the open tray, which stays open.
    ///
    /// # Errors
    /// [`TrayError::Closed`], [`TrayError::Occupied`].
    pub fn insert_medium(&self, medium: Arc<Drive>) -> Result<(), TrayError> {
        self.change(|s| match (s.tray.open, &s.medium) {
            (false, _) => Err(TrayError::Closed),
            (true, Some(_)) => Err(TrayError::Occupied),
            (true, None) => {
                s.medium = Some(medium);
                Ok(())
            }
        })
    }
    /// Opens the tray and takes the medium out.
    ///
    /// # Errors
    /// [`TrayError::Locked`].
    pub fn eject(&self, force: bool) -> Result<Option<Arc<Drive>>, TrayError> {
        self.change(|s| s.open(force).map(|()| s.medium.take()))
    }
    /// Opens the tray, puts a medium in (or none) instead of what is there, and closes it.
    ///
    /// # Errors
    /// [`TrayError::Locked`]: another medium is in.
    pub fn load_medium(&self, medium: Option<Arc<Drive>>, force: bool) -> Result<(), TrayError> {
        self.open_tray(force)?;
        self.change(|s| {
            s.medium = medium;
            s.close();
        });
        Ok(())
    }
    /// Why the last command failed.
    #[must_use]
    pub fn last_sense(&self) -> Sense {
        self.state.lock().tray.sense
    }
    /// The medium.
    #[must_use]
    pub fn medium(&self) -> Option<Arc<Drive>> {
        self.state.lock().medium.clone()
    }
    /// Is the tray open, is it locked?
    #[must_use]
    pub fn tray(&self) -> (bool, bool) {
        let s = self.state.lock();
        (s.tray.open, s.tray.locked)
    }

    /// IDENTIFY PACKET DEVICE (ACS-3 7.13).
    fn identify(&self, mode: u8) -> Vec<u8> {
        let mut w = Words::new();
        // ATAPI, CD/DVD, removable, DRQ within 50 µs, packets of 12 bytes.
        w.set(0, 0x85c0);
        w.text(10, 10, &self.options.serial);
        w.text(23, 4, &self.options.version);
        w.text(27, 20, &self.options.model);
        w.set(49, 0x0b00);
        w.set(50, 0x4000);
        w.set(53, 0x0006);
        transfer_modes(&mut w, mode);
        w.set(71, 30);
        w.set(72, 30);
        w.set(76, 0x0006);
        w.set(80, 0x07f0);
        // NOP, DEVICE RESET, PACKET, power management.
        w.set(82, 0x4218);
        w.set(83, 0x4000);
        w.set(84, 0x4000);
        w.set(85, 0x4218);
        w.set(87, 0x4000);
        w.set(222, 0x107f);
        w.finish()
    }

    fn execute_command(&self, s: &mut State, tf: &Taskfile, packet: &[u8; 16]) -> Action {
        if s.tray.asleep && tf.command != c::DEVICE_RESET {
            return Action::Nothing;
        }
        let good = Registers::good(tf);
        match tf.command {
            c::PACKET => {
                s.tray.power = 0xff;
                self.packet(s, tf, packet)
            }
            c::IDENTIFY_PACKET_DEVICE => {
                let data = self.identify(s.tray.transfer_mode);
                Action::In { data, protocol: Protocol::Pio(512), end: good }
            }
            // Those that other devices have answer with the signature, so that they are recognized.
            c::IDENTIFY_DEVICE | c::READ_SECTORS => {
                let sig = self.signature();
                Action::End(Registers { status: status::GOOD | status::ERR, error: error::ABRT, ..sig })
            }
            c::DEVICE_RESET => {
                s.tray.asleep = false;
                Action::End(self.signature())
            }
            c::EXECUTE_DEVICE_DIAGNOSTIC => Action::End(self.signature()),
            c::SET_FEATURES => match (tf.features as u8, tf.count as u8) {
                (0x03, 0x00 | 0x01 | 0x08..=0x0c) | (0x66 | 0xcc, _) => Action::End(good),
                (0x03, mode @ (0x20..=0x22 | 0x40..=0x46)) => {
                    s.tray.transfer_mode = mode;
                    Action::End(good)
                }
                _ => Action::End(Registers::failed(tf, error::ABRT)),
            },
            c::STANDBY_IMMEDIATE | c::STANDBY => {
                s.tray.power = 0;
                Action::End(good)
            }
            c::IDLE_IMMEDIATE | c::IDLE => {
                s.tray.power = 0x80;
                Action::End(good)
            }
            c::CHECK_POWER_MODE => Action::End(Registers { count: s.tray.power.into(), ..good }),
            c::SLEEP => {
                s.tray.asleep = true;
                Action::End(good)
            }
            _ => Action::End(Registers::failed(tf, error::ABRT)),
        }
    }
}

/// The end of a PACKET command: the interrupt reason says status, to the host.
fn packet_end(tf: &Taskfile, failed: Option<Sense>) -> Registers {
    let (status, error) = match failed {
        None => (status::GOOD, 0),
        Some(s) => (status::GOOD | status::ERR, s.key << 4 | if s.key == 5 || s.key == 0xb { error::ABRT } else { 0 }),
    };
    Registers { status, error, lba: tf.lba & 0xffff00, count: 3, device: tf.device }
}

/// How the data of a PACKET command goes: features bit 0 is DMA, otherwise PIO in pieces of at most the byte count.
fn packet_protocol(tf: &Taskfile) -> Protocol {
    if tf.features & 1 != 0 {
        return Protocol::Dma;
    }
    Protocol::PacketPio(match (tf.lba >> 8) as u32 & 0xffff {
        0 | 0xffff => 0xfffe,
        odd @ 1.. => odd & !1 | u32::from(odd == 1) << 1,
    })
}

impl AtaDevice for CdDrive {
    fn signature(&self) -> Registers {
        Registers { status: 0, error: 1, lba: 0xeb_1401, count: 1, device: 0 }
    }
    fn is_packet(&self) -> bool {
        true
    }
    fn command(&self, tf: &Taskfile, packet: &[u8; 16]) -> Action {
        self.change(|s| self.execute_command(s, tf, packet))
    }
    fn data_out(&self, tf: &Taskfile, packet: &[u8; 16], data: &[u8]) -> Action {
        let s = &mut *self.state.lock();
        let failed = commands::take(s, packet, data).err();
        if let Some(f) = failed {
            s.tray.sense = f;
        }
        Action::End(packet_end(tf, failed))
    }
    fn finished(&self, tf: &Taskfile, result: &io::Result<()>) -> Registers {
        let failed = result.is_err().then_some(sense::READ_ERROR);
        if let Some(f) = failed {
            self.state.lock().tray.sense = f;
        }
        packet_end(tf, failed)
    }
    fn queue_error(&self, _tf: &Taskfile, _end: &Registers, _queued: bool) {}
    fn reset(&self, hard: bool) {
        let s = &mut *self.state.lock();
        s.tray.asleep = false;
        if hard {
            s.tray.sense = sense::NONE;
            s.tray.locked = false;
            s.tray.attend(sense::RESET);
        }
    }
    fn power_on(&self) {
        let s = &mut *self.state.lock();
        let open = s.tray.open;
        s.tray = Tray { open, ..Tray::new() };
    }
    fn save(&self) -> Vec<u8> {
        // Encoding into a vector does not fail.
        minicbor::to_vec(&self.state.lock().tray).unwrap_or_default()
    }
    fn load(&self, state: &[u8]) -> Result<(), LoadError> {
        let mut tray: Tray = minicbor::decode(state).map_err(|e| LoadError::Damaged(e.to_string()))?;
        tray.attention.truncate(8);
        self.state.lock().tray = tray;
        Ok(())
    }
}
