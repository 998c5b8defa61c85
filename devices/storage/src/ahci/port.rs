//! A port: its registers, and the link to its device.

use super::{Hba, fis};
use crate::ata::{AtaDevice, Registers, status};
use minicbor::{Decode, Encode};
use parking_lot::{Condvar, Mutex};
use std::sync::{Arc, OnceLock};

/// Port registers (3.3).
mod reg {
    pub const CLB: u64 = 0x00;
    pub const CLBU: u64 = 0x04;
    pub const FB: u64 = 0x08;
    pub const FBU: u64 = 0x0c;
    pub const IS: u64 = 0x10;
    pub const IE: u64 = 0x14;
    pub const CMD: u64 = 0x18;
    pub const TFD: u64 = 0x20;
    pub const SIG: u64 = 0x24;
    pub const SSTS: u64 = 0x28;
    pub const SCTL: u64 = 0x2c;
    pub const SERR: u64 = 0x30;
    pub const SACT: u64 = 0x34;
    pub const CI: u64 = 0x38;
}

/// Interrupt status (3.3.5).
pub mod interrupt {
    pub const REGISTER: u32 = 1;
    pub const PIO_SETUP: u32 = 1 << 1;
    pub const SET_BITS: u32 = 1 << 3;
    pub const DESCRIPTOR: u32 = 1 << 5;
    pub const CONNECT_CHANGE: u32 = 1 << 6;
    pub const PHY_CHANGE: u32 = 1 << 22;
    pub const OVERFLOW: u32 = 1 << 24;
    pub const INTERFACE_FATAL: u32 = 1 << 27;
    pub const BUS_FATAL: u32 = 1 << 29;
    pub const TASK_FILE: u32 = 1 << 30;
    /// Those that software may enable; 6 and 22 follow PxSERR.
    pub const ALL: u32 = 0xfdc0_00ff;
    pub const CLEAR: u32 = ALL & !(CONNECT_CHANGE | PHY_CHANGE);
}

/// Command and status (3.3.7).
mod cmd {
    pub const START: u32 = 1;
    pub const SPIN_UP: u32 = 1 << 1;
    pub const POWER_ON: u32 = 1 << 2;
    pub const OVERRIDE: u32 = 1 << 3;
    pub const FIS_RECEIVE: u32 = 1 << 4;
    pub const FIS_RUNNING: u32 = 1 << 14;
    pub const RUNNING: u32 = 1 << 15;
    pub const ATAPI: u32 = 1 << 24;
    /// Start, FIS receive, device is ATAPI.
    pub const WRITABLE: u32 = START | FIS_RECEIVE | ATAPI;
}

/// SError diagnostics: PhyRdy changed, device exchanged.
const SERR_PHY: u32 = 1 << 16;
const SERR_EXCHANGED: u32 = 1 << 26;
/// Active, 3 Gb/s, device and link there.
const LINK_UP: u32 = 0x123;
/// Task file without a device, or before its first registers.
const NO_DEVICE: u8 = 0x7f;

/// The registers of a port, and what of its machine is saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct PortRegisters {
    #[n(0)]
    pub clb: u64,
    #[n(1)]
    pub fb: u64,
    #[n(2)]
    pub is: u32,
    #[n(3)]
    pub ie: u32,
    #[n(4)]
    pub cmd: u32,
    #[n(5)]
    pub status: u8,
    #[n(6)]
    pub error: u8,
    #[n(7)]
    pub signature: u32,
    #[n(8)]
    pub sctl: u32,
    #[n(9)]
    pub serr: u32,
    #[n(10)]
    pub sact: u32,
    #[n(11)]
    pub ci: u32,
    /// The slot of the last command issued.
    #[n(12)]
    pub slot: u8,
    #[n(13)]
    pub link: bool,
    /// An error stopped the command list until PxCMD.ST is cleared.
    #[n(14)]
    pub fatal: bool,
    /// The slot whose command the device works on without queuing.
    #[n(15)]
    pub current: Option<u8>,
    /// Tags of queued commands that the device has.
    #[n(16)]
    pub queued: u32,
    /// Control.SRST was written as 1.
    #[n(17)]
    pub soft_reset: bool,
    /// A device's first registers that could not be received yet.
    #[n(18)]
    pub unread: Option<Vec<u8>>,
    /// A reset of the device has begun that ends when the drive is at rest: the link comes up, or the signature is sent.
    #[n(19)]
    pub waiting: bool,
    /// Where the search for the next command begins.
    #[n(20)]
    pub next: u8,
}

#[derive(Default)]
pub struct PortState {
    pub r: PortRegisters,
    /// Requests at the drive, also those that nobody waits for any more.
    pub inflight: u32,
    /// Requests of an earlier one are not answered.
    pub epoch: u64,
}

pub struct Port {
    pub state: Mutex<PortState>,
    pub rest: Condvar,
    device: OnceLock<Arc<dyn AtaDevice>>,
}

impl PortState {
    pub fn running(&self) -> bool {
        let r = &self.r;
        r.cmd & cmd::START != 0 && r.link && !r.fatal && r.status & (status::BSY | status::DRQ) == 0 && !r.waiting
    }
    /// Sets interrupt status bits.
    pub fn raise(&mut self, hba: &Hba, n: u8, bits: u32) {
        self.r.is |= bits;
        if self.r.is & self.r.ie != 0 {
            hba.latch(n);
        }
    }
    /// Writes into the received-FIS area.
    pub fn receive(&mut self, hba: &Hba, n: u8, at: u64, data: &[u8]) {
        if self.r.cmd & cmd::FIS_RECEIVE == 0 {
            return;
        }
        if hba.dma.write_ram(self.r.fb.wrapping_add(at), data).is_err() {
            self.r.fatal = true;
            self.raise(hba, n, interrupt::BUS_FATAL);
        }
    }
    /// A Register FIS came.
    pub fn registers(&mut self, hba: &Hba, n: u8, r: &Registers, interrupting: bool) {
        self.r.status = r.status;
        self.r.error = r.error;
        let frame = fis::register(r, interrupting);
        if self.r.cmd & cmd::FIS_RECEIVE == 0 {
            self.r.unread = Some(frame.to_vec());
        } else {
            self.receive(hba, n, fis::REGISTER_AT, &frame);
        }
        if interrupting {
            self.raise(hba, n, interrupt::REGISTER);
        }
    }
    /// The device's first registers after a reset (5.2.5, 10.4).
    pub fn first_registers(&mut self, r: &Registers) {
        self.r.status = r.status;
        self.r.error = r.error;
        self.r.signature = (r.lba as u32 & 0xff_ffff) << 8 | u32::from(r.count & 0xff);
        self.r.unread = Some(fis::register(r, false).to_vec());
    }
    /// Puts down what came before FIS receive was on.
    pub fn receive_unread(&mut self, hba: &Hba, n: u8) {
        if self.r.cmd & cmd::FIS_RECEIVE != 0
            && let Some(frame) = self.r.unread.take()
        {
            self.receive(hba, n, fis::REGISTER_AT, &frame);
        }
    }
    /// Nothing that is under way will be answered.
    fn forget(&mut self) {
        self.epoch += 1;
        let r = &mut self.r;
        (r.ci, r.sact, r.queued, r.current, r.fatal) = (0, 0, 0, None, false);
    }
}

impl Port {
    pub fn new() -> Self {
        let port = Self { state: Mutex::default(), rest: Condvar::new(), device: OnceLock::new() };
        port.hba_reset(true);
        port
    }
    pub fn attach(&self, device: Arc<dyn AtaDevice>) {
        let _ = self.device.set(device);
        self.hba_reset(true);
    }
    pub fn device(&self) -> Option<&Arc<dyn AtaDevice>> {
        self.device.get()
    }
    pub fn has_inflight(&self) -> bool {
        self.state.lock().inflight > 0
    }
    /// Waits for the drive.
    pub fn drain(&self) {
        let mut s = self.state.lock();
        while s.inflight > 0 {
            self.rest.wait(&mut s);
        }
    }
    pub fn save(&self) -> PortRegisters {
        self.state.lock().r.clone()
    }
    pub fn load(&self, mut r: PortRegisters) {
        r.slot &= 31;
        r.next &= 31;
        r.unread = r.unread.filter(|f| f.len() == 20);
        let s = &mut *self.state.lock();
        s.epoch += 1;
        s.r = r;
    }

    /// The link comes up after a reset, if there is a device and the drive is at rest.
    fn connect(&self, s: &mut PortState) {
        let Some(device) = self.device.get() else { return };
        if s.inflight > 0 {
            s.r.waiting = true;
            return;
        }
        s.r.waiting = false;
        s.r.soft_reset = false;
        if !s.r.link {
            s.r.link = true;
            s.r.serr |= SERR_PHY | SERR_EXCHANGED;
            s.r.is |= interrupt::CONNECT_CHANGE | interrupt::PHY_CHANGE;
        }
        s.first_registers(&device.signature());
    }
    /// The last request of the drive has come back: a reset that waited goes on.
    pub fn at_rest(&self, hba: &Hba, n: u8, s: &mut PortState) {
        self.rest.notify_all();
        if s.r.waiting {
            self.connect(s);
            s.receive_unread(hba, n);
            s.raise(hba, n, 0);
        }
    }
    /// HBA reset: all registers but the two addresses; power-on: those too.
    pub fn hba_reset(&self, power_on: bool) {
        let s = &mut *self.state.lock();
        s.forget();
        let (clb, fb) = if power_on { (0, 0) } else { (s.r.clb, s.r.fb) };
        s.r = PortRegisters {
            clb,
            fb,
            cmd: cmd::SPIN_UP | cmd::POWER_ON,
            status: NO_DEVICE,
            signature: u32::MAX,
            ..PortRegisters::default()
        };
        if let Some(device) = self.device.get() {
            if power_on {
                device.power_on();
            } else {
                device.reset(true);
            }
        }
        self.connect(s);
    }
    /// A write to PxSCTL.
    fn control(&self, hba: &Hba, n: u8, s: &mut PortState, value: u32) {
        let (old, new) = (s.r.sctl & 15, value & 15);
        s.r.sctl = value & 0xfff;
        if new != 0 && new != old {
            // COMRESET, or the port is off: no link.
            s.forget();
            if s.r.link {
                s.r.serr |= SERR_PHY;
                s.r.is |= interrupt::PHY_CHANGE;
            }
            s.r.link = false;
            s.r.waiting = false;
            s.r.unread = None;
            s.r.status = NO_DEVICE;
            s.r.error = 0;
            s.r.signature = u32::MAX;
        } else if new == 0 && old != 0 {
            if let Some(device) = self.device.get() {
                device.reset(true);
                s.r.status = status::BSY | NO_DEVICE;
            }
            self.connect(s);
            s.receive_unread(hba, n);
        }
        s.raise(hba, n, 0);
    }
    /// Software reset by a control FIS. Returns when the FIS has been taken.
    pub fn soft_reset(&self, hba: &Hba, n: u8, s: &mut PortState, on: bool) {
        let Some(device) = self.device.get() else { return };
        if on {
            s.epoch += 1;
            (s.r.queued, s.r.current) = (0, None);
            s.r.sact = 0;
            s.r.soft_reset = true;
            device.reset(false);
        } else if s.r.soft_reset {
            if s.inflight > 0 {
                s.r.status = status::BSY;
            }
            self.connect(s);
            s.receive_unread(hba, n);
        }
    }
    fn command(&self, hba: &Hba, n: u8, s: &mut PortState, value: u32) {
        let old = s.r.cmd;
        s.r.cmd = old & !cmd::WRITABLE | value & cmd::WRITABLE;
        if value & cmd::OVERRIDE != 0 && old & cmd::START == 0 {
            s.r.status &= !(status::BSY | status::DRQ);
        }
        if old & cmd::START != 0 && value & cmd::START == 0 {
            // What is outstanding is given up; PxCMD.CR stays until the drive no longer touches memory.
            s.forget();
            (s.r.slot, s.r.next) = (0, 0);
        }
        s.receive_unread(hba, n);
    }

    pub fn read(&self, offset: u64) -> u32 {
        let s = &*self.state.lock();
        let r = &s.r;
        match offset {
            reg::CLB => r.clb as u32,
            reg::CLBU => (r.clb >> 32) as u32,
            reg::FB => r.fb as u32,
            reg::FBU => (r.fb >> 32) as u32,
            reg::IS => r.is,
            reg::IE => r.ie,
            reg::CMD => {
                let started = r.cmd & cmd::START != 0;
                r.cmd
                    | if started { u32::from(r.slot) << 8 } else { 0 }
                    | if started || s.inflight > 0 { cmd::RUNNING } else { 0 }
                    | if r.cmd & cmd::FIS_RECEIVE != 0 { cmd::FIS_RUNNING } else { 0 }
            }
            reg::TFD => u32::from(r.error) << 8 | u32::from(r.status),
            reg::SIG => r.signature,
            reg::SSTS if r.link => LINK_UP,
            // Presence is detected, the link is not up yet; or off-line.
            reg::SSTS if r.waiting => 1,
            reg::SSTS if r.sctl & 15 == 4 => 4,
            reg::SCTL => r.sctl,
            reg::SERR => r.serr,
            reg::SACT => r.sact,
            reg::CI => r.ci,
            _ => 0,
        }
    }
    /// Writes a register; may commands be waiting now?
    pub fn write(&self, hba: &Hba, n: u8, offset: u64, value: u32) -> bool {
        let low = |old: u64| old & !0xffff_ffff | u64::from(value);
        let high = |old: u64| old & 0xffff_ffff | u64::from(value) << 32;
        let mut run = false;
        {
            let s = &mut *self.state.lock();
            match offset {
                reg::CLB => s.r.clb = low(s.r.clb) & !0x3ff,
                reg::CLBU => s.r.clb = high(s.r.clb),
                reg::FB => s.r.fb = low(s.r.fb) & !0xff,
                reg::FBU => s.r.fb = high(s.r.fb),
                reg::IS => s.r.is &= !(value & interrupt::CLEAR),
                reg::IE => {
                    s.r.ie = value & interrupt::ALL;
                    s.raise(hba, n, 0);
                }
                reg::CMD => {
                    self.command(hba, n, s, value);
                    run = true;
                }
                reg::SCTL => self.control(hba, n, s, value),
                reg::SERR => {
                    s.r.serr &= !value;
                    for (diagnostic, bit) in
                        [(SERR_EXCHANGED, interrupt::CONNECT_CHANGE), (SERR_PHY, interrupt::PHY_CHANGE)]
                    {
                        if s.r.serr & diagnostic == 0 {
                            s.r.is &= !bit;
                        }
                    }
                }
                // Only while the list runs.
                reg::SACT if s.r.cmd & cmd::START != 0 => s.r.sact |= value,
                reg::CI if s.r.cmd & cmd::START != 0 => {
                    s.r.ci |= value;
                    run = true;
                }
                _ => (),
            }
        }
        hba.signal();
        run
    }
    /// IS was written: sets the port's bit again if it has something to tell.
    pub fn relatch(&self, hba: &Hba, n: u8) {
        let s = &*self.state.lock();
        if s.r.is & s.r.ie != 0 {
            hba.latch(n);
        }
    }
}
