//! NVMe controller (NVM Express 1.4) with one namespace over a drive.

mod admin;
mod command;
mod identify;
mod io;
mod queue;
mod state;

use admin::Admin;
use command::Status;
use parking_lot::{Condvar, Mutex, RwLock};
use queue::{Cq, Sq};
use rhea_block::Drive;
use rhea_device::{Device, DmaHandle, LoadError, Log, Saved, log_guest_error};
use rhea_memory::{Access, AccessRules, BusError, MmioDevice};
use rhea_pci::{BarKind, ConfigBuilder, Identity, IntxPin, Msix, PciConfig, PciFunction, PciSlot, PcieType};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

pub(crate) const VERSION: u32 = 0x0001_0400;
/// Transfers are of at most 128 pages of the smallest size.
pub(crate) const MAX_TRANSFER_PAGES_LOG2: u8 = 7;
const MAX_TRANSFER: u64 = 4096 << MAX_TRANSFER_PAGES_LOG2;
const MAX_ENTRIES: u32 = 2048;
const MAX_PAGE_SHIFT: u32 = 4;

const REGISTER_BAR: usize = 0;
const MSIX_BAR: usize = 4;
const DOORBELLS: u64 = 0x1000;

/// Controller registers (3.1).
mod reg {
    pub const CAP: u64 = 0x00;
    pub const CAP_HIGH: u64 = 0x04;
    pub const VS: u64 = 0x08;
    pub const INTMS: u64 = 0x0c;
    pub const INTMC: u64 = 0x10;
    pub const CC: u64 = 0x14;
    pub const CSTS: u64 = 0x1c;
    pub const AQA: u64 = 0x24;
    pub const ASQ: u64 = 0x28;
    pub const ASQ_HIGH: u64 = 0x2c;
    pub const ACQ: u64 = 0x30;
    pub const ACQ_HIGH: u64 = 0x34;
}
/// Contiguous queues, 7.5 s to become ready, NVM command set, pages of 4 to 64 KiB.
const CAPABILITIES: u64 = (MAX_ENTRIES as u64 - 1) | 1 << 16 | 15 << 24 | 1 << 37 | (MAX_PAGE_SHIFT as u64) << 52;
const CC_ENABLE: u32 = 1;
const CC_WRITABLE: u32 = 0x00ff_fff1;
const CSTS_READY: u32 = 1;
const CSTS_FATAL: u32 = 1 << 1;
const CSTS_SHUTDOWN: u32 = 3 << 2;
const SHUTDOWN_BUSY: u32 = 1 << 2;
const SHUTDOWN_DONE: u32 = 2 << 2;

/// What a controller can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NvmeOptions {
    /// At most 20, 40, 8 characters.
    pub serial: String,
    pub model: String,
    pub version: String,
    /// I/O queue pairs, 1 to 256.
    pub queues: u16,
    /// MSI-X vectors; `None`: one for each queue pair and the admin queues.
    pub vectors: Option<u16>,
    /// Bytes, powers of two from 512 to 64 KiB; 0: the drive's.
    pub logical_block_size: u32,
    pub physical_block_size: u32,
}

impl Default for NvmeOptions {
    fn default() -> Self {
        Self {
            serial: String::new(),
            model: "Rhea NVMe".to_owned(),
            version: "1.0".to_owned(),
            queues: 64,
            vectors: None,
            logical_block_size: 0,
            physical_block_size: 0,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Registers {
    cc: u32,
    csts: u32,
    aqa: u32,
    asq: u64,
    acq: u64,
    /// Enabled, and the queues of the admin are there.
    on: bool,
}

/// Everything behind the registers.
pub(crate) struct Controller {
    name: String,
    dma: DmaHandle,
    log: Log,
    drive: Arc<Drive>,
    options: NvmeOptions,
    /// log2 of the bytes of a block.
    shift: u32,
    registers: Mutex<Registers>,
    admin: Mutex<Admin>,
    sqs: Vec<RwLock<Option<Arc<Sq>>>>,
    cqs: Vec<RwLock<Option<Arc<Cq>>>>,
    /// log2 of the page size.
    page: AtomicU32,
    write_cache: AtomicBool,
    /// Commands whose memory is in use, of all queues ever made.
    inflight: AtomicU32,
    /// For those who wait until there are none.
    waiters: Mutex<()>,
    rest: Condvar,
    paused: AtomicBool,
    fatal: AtomicBool,
    /// Resets so far.
    epoch: AtomicU64,
    /// Completion queues with something to tell, and the mask of vector 0.
    told: AtomicU32,
    mask: AtomicU32,
    msix: OnceLock<Arc<Msix>>,
    intx: OnceLock<Arc<IntxPin>>,
}

impl Controller {
    fn page_size(&self) -> u64 {
        4096 << self.page.load(Ordering::Acquire).min(MAX_PAGE_SHIFT)
    }
    fn blocks(&self) -> u64 {
        self.drive.capacity() >> self.shift
    }
    fn sq(&self, id: u16) -> Option<Arc<Sq>> {
        self.sqs.get(usize::from(id))?.read().clone()
    }
    fn cq(&self, id: u16) -> Option<Arc<Cq>> {
        self.cqs.get(usize::from(id))?.read().clone()
    }
    /// The interrupt line, as the completion queues and the mask say.
    fn update_line(&self) {
        let Some(pin) = self.intx.get() else { return };
        let level = || {
            self.told.load(Ordering::SeqCst) > 0
                && self.mask.load(Ordering::SeqCst) & 1 == 0
                && !self.msix.get().is_some_and(|m| m.enabled())
        };
        loop {
            let now = level();
            pin.set(now);
            if now == level() {
                return;
            }
        }
    }
    fn interrupt(&self, cq: &Cq) {
        if !cq.interrupts {
            return;
        }
        match self.msix.get().filter(|m| m.enabled()) {
            Some(msix) => msix.notify(cq.vector),
            None => self.update_line(),
        }
    }
    /// The queues' memory is not there.
    fn fail(&self) {
        self.fatal.store(true, Ordering::SeqCst);
        log_guest_error!(self.log, &self.name, "a queue is not in memory");
    }
    /// Posts a completion; the caller then interrupts.
    fn post(&self, sq: &Arc<Sq>, cid: u16, status: Status, result: u32) {
        if !sq.cq.post(&self.dma, &self.told, sq, cid, status, result) {
            self.fail();
        }
    }
    /// A command no longer uses memory. The caller has posted its completion.
    fn release(&self, sq: &Arc<Sq>) {
        let last = sq.inflight.fetch_sub(1, Ordering::AcqRel) == 1;
        if last {
            self.finish_deletion(sq);
        }
        self.leave();
    }
    /// One less uses memory.
    fn leave(&self) {
        if self.inflight.fetch_sub(1, Ordering::AcqRel) == 1 {
            let _wait = self.waiters.lock();
            self.rest.notify_all();
        }
    }
    fn drain(&self) {
        let mut wait = self.waiters.lock();
        while self.inflight.load(Ordering::Acquire) > 0 {
            self.rest.wait(&mut wait);
        }
    }

    /// Runs what is in a submission queue. Whoever moves the tail comes here, so a round need not go further than the queue is long.
    fn run(self: &Arc<Self>, sq: &Arc<Sq>) {
        // Counted before anything begins, so that who drains after a pause misses nothing.
        self.inflight.fetch_add(1, Ordering::AcqRel);
        self.run_counted(sq);
        self.leave();
    }
    fn run_counted(self: &Arc<Self>, sq: &Arc<Sq>) {
        let (mut left, mut inline, mut list) = (sq.size, 0, Vec::new());
        while left > 0
            && !self.paused.load(Ordering::SeqCst)
            && !self.fatal.load(Ordering::SeqCst)
            && self.dma.enabled()
        {
            if !sq.take(&self.dma, left.min(32), &mut list) {
                self.fail();
            }
            if list.is_empty() {
                return;
            }
            self.inflight.fetch_add(list.len() as u32, Ordering::AcqRel);
            left -= list.len() as u32;
            let mut posted = false;
            for c in list.drain(..) {
                let done = if sq.id == 0 { self.admin_command(sq, &c) } else { self.io_command(sq, &c, &mut inline) };
                if let Some((status, result)) = done {
                    self.post(sq, c.id(), status, result);
                    self.release(sq);
                    posted = true;
                }
            }
            if posted {
                self.interrupt(&sq.cq);
            }
        }
    }

    /// The doorbell of a queue that is not there: told, unless there are none at all.
    fn bad_doorbell(&self) {
        if self.registers.lock().on {
            self.event(admin::Event::BadRegister);
        }
    }
    fn doorbell(self: &Arc<Self>, offset: u64, value: u32) {
        let n = (offset - DOORBELLS) / 4;
        let id = u16::try_from(n / 2).unwrap_or(u16::MAX);
        let value = value & 0xffff;
        if n.is_multiple_of(2) {
            let Some(sq) = self.sq(id) else { return self.bad_doorbell() };
            if value >= sq.size {
                return self.event(admin::Event::BadValue);
            }
            sq.tail.store(value, Ordering::Release);
            self.run(&sq);
        } else {
            let Some(cq) = self.cq(id) else { return self.bad_doorbell() };
            let Some((freed, good)) = cq.set_head(&self.dma, &self.told, value) else {
                return self.event(admin::Event::BadValue);
            };
            if !good {
                self.fail();
            }
            if freed.is_empty() {
                self.update_line();
            } else {
                self.interrupt(&cq);
            }
            for sq in freed {
                self.run(&sq);
            }
        }
    }

    fn read(&self, offset: u64) -> u32 {
        let r = *self.registers.lock();
        match offset {
            reg::CAP => CAPABILITIES as u32,
            reg::CAP_HIGH => (CAPABILITIES >> 32) as u32,
            reg::VS => VERSION,
            reg::INTMS | reg::INTMC => self.mask.load(Ordering::SeqCst),
            reg::CC => r.cc,
            reg::CSTS => {
                // After a reset the controller is ready to be enabled when no memory is in use.
                let ready = r.on || r.cc & CC_ENABLE == 0 && self.inflight.load(Ordering::Acquire) > 0;
                r.csts | u32::from(ready) * CSTS_READY | u32::from(self.fatal.load(Ordering::SeqCst)) * CSTS_FATAL
            }
            reg::AQA => r.aqa,
            reg::ASQ => r.asq as u32,
            reg::ASQ_HIGH => (r.asq >> 32) as u32,
            reg::ACQ => r.acq as u32,
            reg::ACQ_HIGH => (r.acq >> 32) as u32,
            _ => 0,
        }
    }
    fn write(self: &Arc<Self>, offset: u64, value: u32) {
        let low = |old: u64| old & !0xffff_ffff | u64::from(value & !0xfff);
        let high = |old: u64| old & 0xffff_ffff | u64::from(value) << 32;
        match offset {
            DOORBELLS.. => self.doorbell(offset, value),
            reg::INTMS => {
                self.mask.fetch_or(value, Ordering::SeqCst);
                self.update_line();
            }
            reg::INTMC => {
                self.mask.fetch_and(!value, Ordering::SeqCst);
                self.update_line();
            }
            reg::CC => self.configure(value & CC_WRITABLE),
            reg::AQA => self.registers.lock().aqa = value & 0x0fff_0fff,
            reg::ASQ => {
                let mut r = self.registers.lock();
                r.asq = low(r.asq);
            }
            reg::ASQ_HIGH => {
                let mut r = self.registers.lock();
                r.asq = high(r.asq);
            }
            reg::ACQ => {
                let mut r = self.registers.lock();
                r.acq = low(r.acq);
            }
            reg::ACQ_HIGH => {
                let mut r = self.registers.lock();
                r.acq = high(r.acq);
            }
            _ => log_guest_error!(self.log, &self.name, "write to register {offset:#x}"),
        }
    }
    /// Controller configuration (3.1.5).
    fn configure(self: &Arc<Self>, value: u32) {
        let (old, r) = {
            let mut r = self.registers.lock();
            let old = r.cc;
            r.cc = value;
            (old, *r)
        };
        if old & CC_ENABLE != 0 && value & CC_ENABLE == 0 {
            self.reset();
            self.update_line();
            return;
        }
        if value & CC_ENABLE != 0 && old & CC_ENABLE == 0 {
            self.enable(&r);
        }
        if value >> 14 & 3 != 0 && old >> 14 & 3 == 0 {
            self.shut_down();
        }
    }
    fn enable(&self, r: &Registers) {
        let (page, command_set) = (r.cc >> 7 & 15, r.cc >> 4 & 7);
        let (sq_size, cq_size) = ((r.aqa & 0xfff) + 1, (r.aqa >> 16 & 0xfff) + 1);
        let round_robin = r.cc >> 11 & 7 == 0;
        let mask = (4096u64 << page.min(MAX_PAGE_SHIFT)) - 1;
        if page > MAX_PAGE_SHIFT
            || command_set != 0
            || !round_robin
            || sq_size < 2
            || cq_size < 2
            || (r.asq | r.acq) & mask != 0
        {
            self.fatal.store(true, Ordering::SeqCst);
            log_guest_error!(self.log, &self.name, "enabled with an impossible configuration");
            return;
        }
        self.page.store(page, Ordering::Release);
        let cq = Cq::new(0, r.acq, cq_size, 0, true);
        let sq = Sq::new(0, r.asq, sq_size, &cq);
        if let (Some(c), Some(s)) = (self.cqs.first(), self.sqs.first()) {
            *c.write() = Some(cq);
            *s.write() = Some(sq);
        }
        self.registers.lock().on = true;
    }
    /// Controller reset (7.3.2): all queues go; what is under way is not answered.
    fn reset(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        let mut admin = self.admin.lock();
        for q in &self.sqs {
            if let Some(sq) = q.write().take() {
                sq.kill();
            }
        }
        for q in &self.cqs {
            if let Some(cq) = q.write().take() {
                cq.kill(&self.told);
            }
        }
        *admin = Admin::new(self.options.queues);
        drop(admin);
        self.write_cache.store(self.drive.cache().write_cache(), Ordering::Release);
        self.mask.store(0, Ordering::SeqCst);
        self.fatal.store(false, Ordering::SeqCst);
        let mut r = self.registers.lock();
        r.on = false;
        r.csts = 0;
    }
    /// Normal or abrupt shutdown (7.6.2): what is cached goes to storage.
    fn shut_down(self: &Arc<Self>) {
        {
            let mut r = self.registers.lock();
            r.csts = r.csts & !CSTS_SHUTDOWN | SHUTDOWN_BUSY;
        }
        let (me, epoch) = (self.clone(), self.epoch.load(Ordering::Acquire));
        self.inflight.fetch_add(1, Ordering::AcqRel);
        let done = move |_result, _segments| {
            {
                let mut r = me.registers.lock();
                if me.epoch.load(Ordering::Acquire) == epoch {
                    r.csts = r.csts & !CSTS_SHUTDOWN | SHUTDOWN_DONE;
                }
            }
            me.leave();
        };
        self.drive.submit(rhea_block::Operation::Flush, Box::new(done));
    }
    /// Everything that may have waited is tried.
    fn kick(self: &Arc<Self>) {
        for q in &self.sqs {
            let sq = q.read().clone();
            if let Some(sq) = sq {
                self.run(&sq);
            }
        }
    }
}

/// BAR 0.
struct Bar(Arc<Controller>);

impl MmioDevice for Bar {
    fn read(&self, offset: u64, _access: Access) -> Result<u64, BusError> {
        Ok(self.0.read(offset).into())
    }
    fn write(&self, offset: u64, value: u64, _access: Access) -> Result<(), BusError> {
        self.0.write(offset, value as u32);
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::WORD
    }
    fn name(&self) -> &str {
        "nvme"
    }
}

/// The controller as a PCI function.
pub struct Nvme {
    config: PciConfig,
    controller: Arc<Controller>,
}

impl Nvme {
    /// A controller for `slot`; [`rhea_pci::PciBus::attach`] puts it on the bus.
    #[must_use]
    pub fn new(slot: &PciSlot, drive: Arc<Drive>, options: NvmeOptions, log: &Log) -> Arc<Self> {
        let queues = options.queues.clamp(1, 256);
        let options = NvmeOptions { queues, ..options };
        let geometry = drive.backend().geometry();
        let pick = |own: u32, drive: u32| if own.is_power_of_two() { own } else { drive };
        let block = pick(options.logical_block_size, geometry.logical_block).clamp(512, 65536);
        let controller = Arc::new(Controller {
            name: format!("nvme@{slot}"),
            dma: slot.dma().clone(),
            log: log.clone(),
            shift: block.trailing_zeros(),
            registers: Mutex::default(),
            admin: Mutex::new(Admin::new(queues)),
            sqs: (0..=queues).map(|_| RwLock::new(None)).collect(),
            cqs: (0..=queues).map(|_| RwLock::new(None)).collect(),
            page: AtomicU32::new(0),
            write_cache: AtomicBool::new(drive.cache().write_cache()),
            inflight: AtomicU32::new(0),
            waiters: Mutex::new(()),
            rest: Condvar::new(),
            paused: AtomicBool::new(false),
            fatal: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            told: AtomicU32::new(0),
            mask: AtomicU32::new(0),
            msix: OnceLock::new(),
            intx: OnceLock::new(),
            drive,
            options,
        });
        let identity = Identity {
            vendor: 0x1b36,
            device: 0x0010,
            revision: 2,
            class: 0x01_0802,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
        };
        let vectors = controller.options.vectors.unwrap_or(queues + 1);
        let size = DOORBELLS + 8 * (u64::from(queues) + 1);
        let config = ConfigBuilder::new(identity, slot.clone())
            .bar(
                REGISTER_BAR,
                BarKind::Registers64,
                size.next_power_of_two().max(0x4000),
                Arc::new(Bar(controller.clone())),
            )
            .msix(MSIX_BAR, vectors)
            .pcie(PcieType::RootComplexIntegratedEndpoint)
            .intx(1)
            .build();
        if let (Some(msix), Some(intx)) = (config.msix(), config.intx()) {
            let _ = controller.msix.set(msix.clone());
            let _ = controller.intx.set(intx.clone());
        }
        Arc::new(Self { config, controller })
    }
    #[must_use]
    pub fn drive(&self) -> &Arc<Drive> {
        &self.controller.drive
    }
}

impl Drop for Nvme {
    fn drop(&mut self) {
        // Completions that wait for room hold their queues.
        self.controller.reset();
    }
}

impl PciFunction for Nvme {
    fn config(&self) -> &PciConfig {
        &self.config
    }
    fn config_write(&self, offset: u16, size: u8, value: u32) {
        self.config.write(offset, size, value);
        // MSI-X may have been switched, or bus mastering.
        self.controller.update_line();
        if (4..8).contains(&offset) {
            self.controller.kick();
        }
    }
}

impl Device for Nvme {
    fn name(&self) -> &str {
        &self.controller.name
    }
    fn reset(&self) {
        let c = &self.controller;
        c.paused.store(true, Ordering::SeqCst);
        c.drain();
        c.reset();
        *c.registers.lock() = Registers::default();
        self.config.reset();
        c.paused.store(false, Ordering::SeqCst);
    }
    fn save(&self) -> Saved {
        let c = &self.controller;
        let was = c.paused.swap(true, Ordering::SeqCst);
        c.drain();
        let saved = state::save(c, self.config.save());
        if !was {
            self.resume();
        }
        saved
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        let c = &self.controller;
        self.config.load(state::load(c, saved)?)?;
        c.update_line();
        c.kick();
        Ok(())
    }
    fn quiesce(&self) {
        self.controller.paused.store(true, Ordering::SeqCst);
        self.controller.drain();
    }
    fn resume(&self) {
        self.controller.paused.store(false, Ordering::SeqCst);
        self.controller.kick();
    }
}
