//! Power management: the ACPI blocks, SMI control, the APM ports' registers and the watchdog (ICH9 13.8).

use super::tco::{self, Tco};
use super::{APM_ACPI_DISABLE, APM_ACPI_ENABLE, Smi};
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_accel::{InterruptRouting, IrqLine, ShutdownCause, VmControl, VmRequest, WakeReason};
use rhea_clock::{Timer, VirtualClock};
use rhea_device::regs::RegisterRules::{ReadOnly, ReadWrite};
use rhea_device::{Log, RegisterDecl, RegisterMap};
use rhea_memory::{Access, AccessRules, BusError, MmioDevice};
use std::sync::{Arc, OnceLock, Weak};

/// Ports of the block.
pub const LENGTH: u64 = 0x80;
/// Offsets of the ACPI register blocks from PMBASE, for the FADT.
pub const PM1_EVENT: u16 = 0x00;
pub const PM1_CONTROL: u16 = 0x04;
pub const PM_TIMER: u16 = 0x08;
pub const GPE0: u16 = 0x20;
pub const GPE0_LENGTH: u8 = 16;
/// Ticks of the ACPI timer in a second.
pub const TIMER_HZ: u64 = 3_579_545;
/// The timer's width.
const TIMER_BITS: u32 = 24;

mod pm1 {
    pub const TIMER: u16 = 1;
    pub const GLOBAL: u16 = 1 << 5;
    pub const POWER_BUTTON: u16 = 1 << 8;
    pub const RTC: u16 = 1 << 10;
    pub const WAKE: u16 = 1 << 15;
    /// Status bits that exist.
    pub const STATUS: u16 = TIMER | 1 << 4 | GLOBAL | POWER_BUTTON | RTC | 1 << 11 | 1 << 14 | WAKE;
    pub const ENABLE: u16 = TIMER | GLOBAL | POWER_BUTTON | RTC | 1 << 14;
    /// Control: SCI enable, bus master reload, sleep type.
    pub const SCI: u32 = 1;
    pub const RELOAD: u32 = 1 << 1;
    pub const RELEASE: u32 = 1 << 2;
    pub const SLEEP_TYPE: u32 = 7 << 10;
    pub const SLEEP: u32 = 1 << 13;
    pub const STORED: u32 = SCI | RELOAD | SLEEP_TYPE;
}

/// Bits of SMI_EN.
mod smi_enable {
    pub const GLOBAL: u32 = 1;
    pub const SLEEP: u32 = 1 << 4;
    pub const APM: u32 = 1 << 5;
    pub const BIOS_RELEASE: u32 = 1 << 7;
    pub const TCO: u32 = 1 << 13;
    pub const WRITABLE: u32 = 0x000e_687f;
}
/// Bits of SMI_STS; a cause's enable has the same number unless said.
pub mod smi_status {
    pub const BIOS: u32 = 1 << 2;
    pub const SLEEP: u32 = 1 << 4;
    pub const APM: u32 = 1 << 5;
    pub const PM1: u32 = 1 << 8;
    pub const GPE0: u32 = 1 << 9;
    pub const TCO: u32 = 1 << 13;
    /// Flash made writable while locked; always enabled.
    pub const BIOS_WRITE: u32 = 1 << 26;
    /// Cleared by writing ones.
    pub const CLEAR: u32 = 0x0c1f_f8fc;
}

/// What SLP_TYP means, for the DSDT: suspend to RAM and to disk, soft-off. Both the values of virtual machines' tables and
/// those of the manual are taken; the manual's 1 is S1, which tables then do not have.
pub const SLEEP_S3: u8 = 1;
pub const SLEEP_S4: u8 = 2;
pub const SLEEP_S5: u8 = 0;
const SLEEP_S3_ICH: u8 = 5;
const SLEEP_S4_ICH: u8 = 6;
const SLEEP_S5_ICH: u8 = 7;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Reg {
    Status,
    Enable,
    Control,
    Timer,
    Gpe0Status,
    Gpe0Enable,
    SmiEnable,
    SmiStatus,
    AltGpiSmi,
    TcoReload,
    TcoDataIn,
    TcoDataOut,
    TcoStatus1,
    TcoStatus2,
    TcoControl1,
    TcoControl2,
    TcoMessage,
    TcoBootStatus,
    TcoIrq,
    TcoTimer,
}

const REGISTERS: RegisterMap<Reg> = RegisterMap::new(&[
    RegisterDecl::new(0x00, 2, ReadWrite, Reg::Status),
    RegisterDecl::new(0x02, 2, ReadWrite, Reg::Enable),
    RegisterDecl::new(0x04, 4, ReadWrite, Reg::Control),
    RegisterDecl::new(0x08, 4, ReadOnly, Reg::Timer),
    RegisterDecl::array(0x20, 4, ReadWrite, Reg::Gpe0Status, 2),
    RegisterDecl::array(0x28, 4, ReadWrite, Reg::Gpe0Enable, 2),
    RegisterDecl::new(0x30, 4, ReadWrite, Reg::SmiEnable),
    RegisterDecl::new(0x34, 4, ReadWrite, Reg::SmiStatus),
    RegisterDecl::new(0x38, 2, ReadWrite, Reg::AltGpiSmi),
    RegisterDecl::new(0x60, 2, ReadWrite, Reg::TcoReload),
    RegisterDecl::new(0x62, 1, ReadWrite, Reg::TcoDataIn),
    RegisterDecl::new(0x63, 1, ReadWrite, Reg::TcoDataOut),
    RegisterDecl::new(0x64, 2, ReadWrite, Reg::TcoStatus1),
    RegisterDecl::new(0x66, 2, ReadWrite, Reg::TcoStatus2),
    RegisterDecl::new(0x68, 2, ReadWrite, Reg::TcoControl1),
    RegisterDecl::new(0x6a, 2, ReadWrite, Reg::TcoControl2),
    RegisterDecl::array(0x6c, 1, ReadWrite, Reg::TcoMessage, 2),
    RegisterDecl::new(0x6e, 1, ReadWrite, Reg::TcoBootStatus),
    RegisterDecl::new(0x70, 1, ReadWrite, Reg::TcoIrq),
    RegisterDecl::new(0x72, 2, ReadWrite, Reg::TcoTimer),
]);

/// Saved state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PmState {
    #[n(0)]
    status: u16,
    #[n(1)]
    enable: u16,
    #[n(2)]
    control: u32,
    /// The tick at which the timer's top bit changes next, counted from the clock's start.
    #[n(3)]
    overflow: u64,
    #[n(4)]
    gpe_status: [u32; 2],
    #[n(5)]
    gpe_enable: [u32; 2],
    /// Levels of the GPE inputs.
    #[n(6)]
    gpe_inputs: [u32; 2],
    #[n(7)]
    smi_enable: u32,
    #[n(8)]
    smi_status: u32,
    #[n(9)]
    alt_gpi_smi: u16,
    #[n(10)]
    apm: [u8; 2],
    #[n(11)]
    tco: Tco,
    /// In S3: the next enabled event wakes the machine.
    #[n(12)]
    suspended: bool,
    /// What firmware has agreed on with [`Pm::agree_on_smi_features`].
    #[n(13)]
    smi_features: Option<u64>,
}

/// Features of software SMIs that firmware can ask for: a write to the APM control port reaches all processors.
pub const SMI_FEATURES: u64 = SMI_BROADCAST;
const SMI_BROADCAST: u64 = 1;

struct Inner {
    state: PmState,
    sci_gsi: u32,
    smi_locked: bool,
    no_reboot: bool,
}

impl Inner {
    fn sci(&self) -> bool {
        let s = &self.state;
        let event = s.status & s.enable & pm1::ENABLE != 0;
        let gpe = (0..2).any(|n| s.gpe_status[n] & s.gpe_enable[n] != 0);
        s.control & pm1::SCI != 0 && (event || gpe)
    }
    /// Why the machine is to wake: the power button always counts, other events when they are enabled (13.8.3.1).
    fn wakes(&self) -> Option<WakeReason> {
        let s = &self.state;
        let events = s.status & (s.enable | pm1::POWER_BUTTON);
        if events & pm1::POWER_BUTTON != 0 {
            Some(WakeReason::PowerButton)
        } else if events & pm1::RTC != 0 {
            Some(WakeReason::Rtc)
        } else {
            (0..2).any(|n| s.gpe_status[n] & s.gpe_enable[n] != 0).then_some(WakeReason::Other)
        }
    }
}

/// The power-management block.
pub struct Pm {
    inner: Mutex<Inner>,
    clock: Arc<VirtualClock>,
    lines: Vec<(u32, IrqLine)>,
    control: VmControl,
    smi: Option<Smi>,
    log: Log,
    timer: OnceLock<Timer>,
    watchdog: OnceLock<Timer>,
    me: Weak<Pm>,
}

fn ticks(ns: u64) -> u64 {
    (u128::from(ns) * u128::from(TIMER_HZ) / 1_000_000_000) as u64
}
/// The first ns at which a tick has come.
fn tick_ns(tick: u64) -> u64 {
    (u128::from(tick) * 1_000_000_000).div_ceil(TIMER_HZ.into()) as u64
}
/// The tick after `now` at which the top bit changes.
fn next_overflow(now: u64) -> u64 {
    let half = 1 << (TIMER_BITS - 1);
    (now / half + 1) * half
}

impl Pm {
    pub(super) fn new(
        clock: &Arc<VirtualClock>,
        routing: &Arc<InterruptRouting>,
        control: VmControl,
        smi: Option<Smi>,
        log: Log,
    ) -> Arc<Self> {
        let state = initial(smi.is_some(), ticks(clock.now_ns()));
        let pm = Arc::new_cyclic(|me: &Weak<Pm>| Self {
            inner: Mutex::new(Inner { state, sci_gsi: 9, smi_locked: false, no_reboot: true }),
            clock: clock.clone(),
            lines: [9, 10, 11].map(|n| (n, routing.line(n))).into(),
            control,
            smi,
            log,
            timer: OnceLock::new(),
            watchdog: OnceLock::new(),
            me: me.clone(),
        });
        let (a, b) = (pm.me.clone(), pm.me.clone());
        // Set once, here.
        let _ = pm.timer.set(clock.timer(move || {
            if let Some(pm) = a.upgrade() {
                pm.update();
            }
        }));
        let _ = pm.watchdog.set(clock.timer(move || {
            if let Some(pm) = b.upgrade() {
                pm.watchdog_ends();
            }
        }));
        pm
    }
    pub(super) fn reset(&self) {
        {
            let mut inner = self.inner.lock();
            let boot = inner.state.tco.status2 & tco::status2::BOOT;
            let inputs = inner.state.gpe_inputs;
            inner.state = initial(self.smi.is_some(), ticks(self.clock.now_ns()));
            inner.state.tco.status2 = boot;
            inner.state.gpe_inputs = inputs;
            inner.smi_locked = false;
        }
        self.set_watchdog(None);
        self.update();
    }
    /// The supply comes back. Events and what enables them live in the well that stays supplied, as SLP_TYP does, by which
    /// firmware knows what it wakes from.
    pub(super) fn wake(&self) {
        let old = self.inner.lock().state;
        self.reset();
        let mut inner = self.inner.lock();
        let s = &mut inner.state;
        s.status = old.status;
        s.enable = old.enable;
        s.control = old.control & pm1::SLEEP_TYPE;
        (s.gpe_status, s.gpe_enable) = (old.gpe_status, old.gpe_enable);
    }
    /// What the machine has woken by, after it was reset: WAK_STS.
    pub fn woken(&self, reason: WakeReason) {
        let event = match reason {
            WakeReason::PowerButton => pm1::POWER_BUTTON,
            WakeReason::Rtc => pm1::RTC,
            WakeReason::Other => 0,
        };
        self.inner.lock().state.status |= pm1::WAKE | event;
        self.update();
    }
    /// Is the machine suspended to RAM, or about to be?
    #[must_use]
    pub fn suspended(&self) -> bool {
        self.inner.lock().state.suspended
    }
    pub(super) fn save(&self) -> PmState {
        self.inner.lock().state
    }
    pub(super) fn load(&self, state: PmState) {
        self.inner.lock().state = state;
        self.set_watchdog(state.tco.ends);
        self.update();
    }
    pub(super) fn select_sci(&self, gsi: u32) {
        let old = std::mem::replace(&mut self.inner.lock().sci_gsi, gsi);
        if old != gsi {
            self.update();
        }
    }
    pub(super) fn lock_smi(&self, locked: bool) {
        self.inner.lock().smi_locked |= locked;
    }
    pub(super) fn set_no_reboot(&self, no_reboot: bool) {
        self.inner.lock().no_reboot = no_reboot;
    }
    /// Switches ACPI mode, as a write to the APM control port does.
    pub(super) fn enable_acpi(&self, on: bool) {
        {
            let mut inner = self.inner.lock();
            inner.state.control = inner.state.control & !pm1::SCI | u32::from(on);
        }
        self.update();
    }
    /// Firmware asks for these of the [`SMI_FEATURES`]; true: it has got them, until the next reset.
    pub fn agree_on_smi_features(&self, wanted: u64) -> bool {
        let mut inner = self.inner.lock();
        if inner.state.smi_features.is_none() && wanted & !SMI_FEATURES == 0 {
            inner.state.smi_features = Some(wanted);
        }
        inner.state.smi_features == Some(wanted)
    }
    /// Has firmware agreed on features?
    #[must_use]
    pub fn smi_features_agreed(&self) -> bool {
        self.inner.lock().state.smi_features.is_some()
    }
    /// Presses the power button.
    pub fn power_button(&self) {
        self.inner.lock().state.status |= pm1::POWER_BUTTON;
        self.update();
    }
    /// The alarm of the real-time clock.
    pub fn rtc_alarm(&self) {
        self.inner.lock().state.status |= pm1::RTC;
        self.update();
    }
    /// Sets a general-purpose event input, 0–63: a rising level latches its status.
    pub fn set_gpe(&self, n: u8, level: bool) {
        {
            let mut inner = self.inner.lock();
            let (word, bit) = (usize::from(n / 32 % 2), 1u32 << (n % 32));
            let s = &mut inner.state;
            if level && s.gpe_inputs[word] & bit == 0 {
                s.gpe_status[word] |= bit;
            }
            s.gpe_inputs[word] = if level { s.gpe_inputs[word] | bit } else { s.gpe_inputs[word] & !bit };
        }
        self.update();
    }
    /// Latches a general-purpose event.
    pub fn pulse_gpe(&self, n: u8) {
        self.set_gpe(n, true);
        self.set_gpe(n, false);
    }

    /// Notices the timer's overflow, arms its next one and drives SCI.
    fn update(&self) {
        let now = ticks(self.clock.now_ns());
        let (arm, wakes) = {
            let mut inner = self.inner.lock();
            let wakes = inner.wakes().filter(|_| std::mem::take(&mut inner.state.suspended));
            let s = &mut inner.state;
            if now >= s.overflow {
                s.status |= pm1::TIMER;
                s.overflow = next_overflow(now);
            }
            ((s.enable & pm1::TIMER != 0 && s.status & pm1::TIMER == 0).then(|| tick_ns(s.overflow)), wakes)
        };
        if let Some(reason) = wakes {
            self.control.request(VmRequest::Wake(reason));
        }
        if let Some(timer) = self.timer.get() {
            match arm {
                Some(at) => timer.arm(at),
                None => timer.cancel(),
            }
        }
        for (gsi, line) in &self.lines {
            loop {
                let level = |i: &Inner| i.sci_gsi == *gsi && i.sci();
                let up = level(&self.inner.lock());
                line.set(up);
                if up == level(&self.inner.lock()) {
                    break;
                }
            }
        }
    }

    /// A cause of a system-management interrupt; `None`: for all processors.
    pub(super) fn smi(&self, cause: u32, cpu: Option<u32>) {
        let fire = {
            let mut inner = self.inner.lock();
            let s = &mut inner.state;
            s.smi_status |= cause;
            let enabled = cause == smi_status::BIOS_WRITE || s.smi_enable & cause != 0;
            s.smi_enable & smi_enable::GLOBAL != 0 && enabled
        };
        if let (true, Some(smi)) = (fire, &self.smi) {
            smi(cpu);
        }
    }
    pub(super) fn apm(&self, status: bool) -> u8 {
        self.inner.lock().state.apm[usize::from(status)]
    }
    pub(super) fn set_apm(&self, status: bool, value: u8, cpu: Option<u32>) {
        self.inner.lock().state.apm[usize::from(status)] = value;
        if status {
            return;
        }
        // System-management firmware would do it; there is none behind these two.
        match value {
            APM_ACPI_ENABLE => self.enable_acpi(true),
            APM_ACPI_DISABLE => self.enable_acpi(false),
            _ => {}
        }
        let (enabled, features) = {
            let inner = self.inner.lock();
            (inner.state.smi_enable & smi_enable::APM != 0, inner.state.smi_features.unwrap_or(0))
        };
        if enabled {
            self.smi(smi_status::APM, cpu.filter(|_| features & SMI_BROADCAST == 0));
        }
    }

    fn sleep(&self, kind: u8) {
        if self.inner.lock().state.smi_enable & smi_enable::SLEEP != 0 {
            self.smi(smi_status::SLEEP, None);
            return;
        }
        match kind {
            SLEEP_S3 | SLEEP_S3_ICH => {
                // Asked for first: an event that comes between the two must not wake before it.
                self.control.request(VmRequest::Suspend);
                self.inner.lock().state.suspended = true;
                self.update();
            }
            SLEEP_S4 | SLEEP_S4_ICH | SLEEP_S5 | SLEEP_S5_ICH => self.control.power_off(ShutdownCause::Guest),
            _ => self.log.unimp("acpi", format_args!("sleep type {kind}")),
        }
    }

    fn set_watchdog(&self, ends: Option<u64>) {
        if let Some(timer) = self.watchdog.get() {
            match ends {
                Some(at) => timer.arm(at),
                None => timer.cancel(),
            }
        }
    }
    fn watchdog_ends(&self) {
        let now = self.clock.now_ns();
        let (smi, reset, ends) = {
            let mut inner = self.inner.lock();
            let no_reboot = inner.no_reboot;
            let t = &mut inner.state.tco;
            match t.ends {
                Some(at) if at <= now => {}
                // Loaded again meanwhile.
                other => return self.set_watchdog(other),
            }
            let second = t.status1 & tco::status1::TIMEOUT != 0;
            t.status1 |= tco::status1::TIMEOUT;
            if second {
                t.status2 |= tco::status2::SECOND | tco::status2::BOOT;
            }
            t.reload(now);
            if second && no_reboot {
                // Nothing more comes until it is loaded again.
                t.ends = None;
            }
            (!second, second && !no_reboot, t.ends)
        };
        self.set_watchdog(ends);
        if smi {
            self.smi(smi_status::TCO, None);
        }
        if reset {
            self.control.request(VmRequest::Watchdog);
        }
    }

    fn read_register(&self, reg: Reg, index: u32) -> u64 {
        let now = self.clock.now_ns();
        if reg == Reg::Status {
            self.update();
        }
        let inner = self.inner.lock();
        let (s, n) = (&inner.state, index as usize & 1);
        match reg {
            Reg::Status => s.status.into(),
            Reg::Enable => s.enable.into(),
            Reg::Control => s.control.into(),
            Reg::Timer => ticks(now) & ((1 << TIMER_BITS) - 1),
            Reg::Gpe0Status => s.gpe_status[n].into(),
            Reg::Gpe0Enable => s.gpe_enable[n].into(),
            Reg::SmiEnable => s.smi_enable.into(),
            Reg::SmiStatus => {
                let pm1 = if s.status & s.enable != 0 { smi_status::PM1 } else { 0 };
                let gpe = if (0..2).any(|n| s.gpe_status[n] & s.gpe_enable[n] != 0) { smi_status::GPE0 } else { 0 };
                (s.smi_status | pm1 | gpe).into()
            }
            Reg::AltGpiSmi => s.alt_gpi_smi.into(),
            Reg::TcoReload => s.tco.left(now).into(),
            Reg::TcoDataIn => s.tco.data_in.into(),
            Reg::TcoDataOut => s.tco.data_out.into(),
            Reg::TcoStatus1 => s.tco.status1.into(),
            Reg::TcoStatus2 => s.tco.status2.into(),
            Reg::TcoControl1 => s.tco.control1.into(),
            Reg::TcoControl2 => s.tco.control2.into(),
            Reg::TcoMessage => s.tco.message[n].into(),
            Reg::TcoBootStatus => s.tco.boot_status.into(),
            Reg::TcoIrq => s.tco.irq_generation.into(),
            Reg::TcoTimer => s.tco.timer.into(),
        }
    }

    fn write_register(&self, reg: Reg, index: u32, value: u64, mask: u64) {
        let now = self.clock.now_ns();
        let n = index as usize & 1;
        let (mut sleep, mut release, mut watchdog, mut causes) = (None, false, None, 0);
        {
            let mut inner = self.inner.lock();
            let locked = inner.smi_locked;
            let s = &mut inner.state;
            let (v16, m16) = (value as u16, mask as u16);
            let mix16 = |old: u16, writable: u16| old & !(m16 & writable) | v16 & m16 & writable;
            let mix32 = |old: u32, writable: u32| {
                let m = mask as u32 & writable;
                old & !m | value as u32 & m
            };
            match reg {
                Reg::Status => {
                    s.status &= !(v16 & pm1::STATUS);
                    if v16 & pm1::TIMER != 0 {
                        s.overflow = next_overflow(ticks(now));
                    }
                }
                Reg::Enable => s.enable = mix16(s.enable, pm1::ENABLE),
                Reg::Control => {
                    s.control = mix32(s.control, pm1::STORED);
                    sleep = (value as u32 & pm1::SLEEP != 0).then_some(((s.control & pm1::SLEEP_TYPE) >> 10) as u8);
                    release = value as u32 & pm1::RELEASE != 0;
                }
                Reg::Timer => {}
                Reg::Gpe0Status => s.gpe_status[n] &= !(value as u32),
                Reg::Gpe0Enable => s.gpe_enable[n] = mix32(s.gpe_enable[n], u32::MAX),
                Reg::SmiEnable => {
                    let writable =
                        if locked { smi_enable::WRITABLE & !smi_enable::GLOBAL } else { smi_enable::WRITABLE };
                    s.smi_enable = mix32(s.smi_enable, writable);
                    if value as u32 & smi_enable::BIOS_RELEASE != 0 {
                        s.status |= pm1::GLOBAL;
                    }
                }
                Reg::SmiStatus => s.smi_status &= !(value as u32 & smi_status::CLEAR),
                Reg::AltGpiSmi => s.alt_gpi_smi = mix16(s.alt_gpi_smi, u16::MAX),
                Reg::TcoReload => {
                    s.tco.status1 &= !tco::status1::TIMEOUT;
                    s.tco.reload(now);
                    watchdog = Some(s.tco.ends);
                }
                Reg::TcoDataIn => {
                    s.tco.data_in = value as u8;
                    s.tco.status1 |= tco::status1::SOFTWARE;
                    causes |= smi_enable::TCO;
                }
                Reg::TcoDataOut => s.tco.data_out = value as u8,
                Reg::TcoStatus1 => s.tco.status1 &= !(v16 & tco::status1::CLEAR),
                Reg::TcoStatus2 => s.tco.status2 &= !(v16 & tco::status2::CLEAR),
                Reg::TcoControl1 => {
                    let old = s.tco.control1;
                    s.tco.control1 = mix16(old, tco::control1::WRITABLE) | old & tco::control1::LOCK;
                    let (was, is) = (old & tco::control1::HALT, s.tco.control1 & tco::control1::HALT);
                    if was != is {
                        if is != 0 {
                            s.tco.ends = None;
                        } else {
                            s.tco.reload(now);
                        }
                        watchdog = Some(s.tco.ends);
                    }
                }
                Reg::TcoControl2 => s.tco.control2 = mix16(s.tco.control2, 0x3c),
                Reg::TcoMessage => s.tco.message[n] = value as u8,
                Reg::TcoBootStatus => s.tco.boot_status = value as u8,
                Reg::TcoIrq => s.tco.irq_generation = value as u8 & 3,
                Reg::TcoTimer => s.tco.timer = mix16(s.tco.timer, 0x3ff),
            }
        }
        if let Some(ends) = watchdog {
            self.set_watchdog(ends);
        }
        if release {
            self.smi(smi_status::BIOS, None);
        }
        if causes != 0 {
            self.smi(causes, None);
        }
        self.update();
        if let Some(kind) = sleep {
            self.sleep(kind);
        }
    }
}

fn initial(smm: bool, now: u64) -> PmState {
    PmState {
        status: 0,
        enable: 0,
        control: 0,
        overflow: next_overflow(now),
        gpe_status: [0; 2],
        gpe_enable: [0; 2],
        gpe_inputs: [0; 2],
        // Without system-management mode firmware must find it set up, so that it does not try.
        smi_enable: if smm { 0 } else { smi_enable::APM },
        smi_status: 0,
        alt_gpi_smi: 0,
        apm: [0; 2],
        tco: Tco::new(),
        suspended: false,
        smi_features: None,
    }
}

impl MmioDevice for Pm {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        let missed = |at| self.log.unimp("pm", format_args!("read of PMBASE+{at:#x}"));
        REGISTERS.read(offset, access.size, |hit| Ok(self.read_register(hit.id, hit.index)), missed)
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        let missed = |at| self.log.unimp("pm", format_args!("write to PMBASE+{at:#x}"));
        let write = |hit: rhea_device::RegisterHit<Reg>, value, mask| {
            self.write_register(hit.id, hit.index, value, mask);
            Ok(())
        };
        REGISTERS.write(offset, access.size, value, write, missed)
    }
    fn rules(&self) -> AccessRules {
        AccessRules::implemented(1, 4)
    }
    fn name(&self) -> &str {
        "acpi-pm"
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn register_map() {
        assert!(super::REGISTERS.check());
    }
}
