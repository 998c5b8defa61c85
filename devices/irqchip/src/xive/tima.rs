//! A processor's thread context: the OS ring of the thread interrupt management area.

use crate::spapr::pin::ServerPin;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Exception for the OS, in NSR.
const EO: u8 = 0x80;

/// The first eight bytes of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ring {
    pub nsr: u8,
    pub cppr: u8,
    /// Pending priorities; bit 7 is priority 0.
    pub ipb: u8,
    pub lsmfb: u8,
    pub ack: u8,
    pub inc: u8,
    pub age: u8,
    pub pipr: u8,
}

impl Ring {
    const RESET: Self = Self { nsr: 0, cppr: 0, ipb: 0, lsmfb: 0xff, ack: 0xff, inc: 0, age: 0xff, pipr: 0xff };
    fn unpack(w: u64) -> Self {
        let [nsr, cppr, ipb, lsmfb, ack, inc, age, pipr] = w.to_be_bytes();
        Self { nsr, cppr, ipb, lsmfb, ack, inc, age, pipr }
    }
    fn pack(self) -> u64 {
        let Self { nsr, cppr, ipb, lsmfb, ack, inc, age, pipr } = self;
        u64::from_be_bytes([nsr, cppr, ipb, lsmfb, ack, inc, age, pipr])
    }
    /// PIPR and NSR follow IPB and CPPR.
    fn settled(mut self) -> Self {
        self.pipr = if self.ipb == 0 { 0xff } else { self.ipb.leading_zeros() as u8 };
        self.nsr = if self.pipr < self.cppr { self.nsr | EO } else { self.nsr & !EO };
        self
    }
}

pub(super) struct Context {
    ring: AtomicU64,
    pin: Arc<ServerPin>,
    /// OS reporting line: logical real address, and whether it is set.
    reporting: AtomicU64,
}

pub(super) const NO_LINE: u64 = u64::MAX;

impl Context {
    pub fn new(pin: Arc<ServerPin>) -> Self {
        Self { ring: AtomicU64::new(Ring::RESET.pack()), pin, reporting: AtomicU64::new(NO_LINE) }
    }
    fn update(&self, change: impl Fn(Ring) -> Ring) -> Ring {
        let mut now = self.ring.load(SeqCst);
        loop {
            let was = Ring::unpack(now);
            match self.ring.compare_exchange_weak(now, change(was).settled().pack(), SeqCst, SeqCst) {
                Ok(_) => return was,
                Err(seen) => now = seen,
            }
        }
    }
    /// Bytes 0 to 7, most significant first.
    pub fn raw(&self) -> u64 {
        self.ring.load(SeqCst)
    }
    pub fn set_raw(&self, raw: u64) {
        self.ring.store(Ring::unpack(raw).settled().pack(), SeqCst);
    }
    pub fn drive(&self, open: impl Fn() -> bool) {
        self.pin.drive(super::DRIVER, || Ring::unpack(self.raw()).nsr & EO != 0 && open());
    }
    /// An event of `priority` (0 to 7) is pending.
    pub fn pend(&self, priority: u8) {
        self.update(|r| Ring { ipb: r.ipb | 0x80 >> (priority & 7), ..r });
    }
    pub fn set_cppr(&self, cppr: u8) {
        let cppr = if cppr > 7 { 0xff } else { cppr };
        self.update(|r| Ring { cppr, ..r });
    }
    /// The acknowledge cycle: NSR and CPPR, the latter of the interrupt if there was one.
    pub fn acknowledge(&self) -> u16 {
        let was = self.update(|r| {
            if r.nsr & EO == 0 {
                return r;
            }
            Ring { cppr: r.pipr, ipb: r.ipb & !(0x80u8.checked_shr(r.pipr.into()).unwrap_or(0)), ..r }
        });
        let cppr = if was.nsr & EO != 0 { was.pipr } else { was.cppr };
        u16::from_be_bytes([was.nsr, cppr])
    }
    /// Nothing is pending any more.
    pub fn forget(&self) {
        self.update(|r| Ring { ipb: 0, ..r });
        self.reporting.store(NO_LINE, SeqCst);
    }
    pub fn reset(&self) {
        self.ring.store(Ring::RESET.pack(), SeqCst);
        self.reporting.store(NO_LINE, SeqCst);
    }
    pub fn reporting(&self) -> u64 {
        self.reporting.load(SeqCst)
    }
    pub fn set_reporting(&self, line: u64) {
        self.reporting.store(line, SeqCst);
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [nsr, cppr, ipb, lsmfb, ack, inc, age, pipr] = self.raw().to_be_bytes();
        write!(f, "{nsr:02x}  {cppr:02x}   {ipb:02x}  {lsmfb:02x}    {ack:02x}   {inc:02x}  {age:02x}  {pipr:02x}")
    }
}
