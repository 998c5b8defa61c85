//! A wired machine: its parts, its run state, start, stop, reset.

use crate::hotplug::{DeviceList, HotPlug};
use crate::inventory::Inventory;
use crate::profile::Sample;
use parking_lot::{Mutex, RwLock};
use rhea_accel::{InterruptRouting, ShutdownCause, Vcpu, VcpuDebug, VmControl, WakeReason};
use rhea_clock::VirtualClock;
use rhea_device::{Device, LoadError, Log, LogMask, Saved};
use rhea_display::Console;
use rhea_memory::{AddressSpace, RamBlock};
use rhea_pc::InputHub;
use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

/// A CPU as the machine sees it.
pub trait MachineCpu: Vcpu + VcpuDebug {
    /// Puts a paused CPU into the state in which the board starts it (the boot CPU on, the others off).
    fn reset(&self);
    /// Registers as text for `info registers`; the CPU is paused.
    fn describe(&self) -> String;
    /// One word for `info cpus`: running, halted, off.
    fn state_word(&self) -> &'static str;
    /// The MPIDR or APIC id, for `info cpus`.
    fn hardware_id(&self) -> u64;
    /// Where it is; `None` if it waits, or does not answer soon.
    fn sample(&self) -> Option<Sample>;
    /// Is it plugged?
    fn present(&self) -> bool;
    /// The state of the paused CPU.
    fn save_state(&self) -> Saved;
    /// Takes over a state; devices and clock have theirs.
    ///
    /// # Errors
    /// [`LoadError`]; the CPU must not be started then.
    fn load_state(&self, state: Saved) -> Result<(), LoadError>;
}

/// Where the machine is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// Made with `-S`, never started.
    Prelaunch,
    Running,
    /// By the monitor.
    Paused,
    /// By the debugger.
    Debug,
    /// In RAM, by the guest; time goes on.
    Suspended,
    /// The guest switched off (`-no-shutdown`).
    Shutdown,
    /// The guest crashed.
    GuestPanicked,
    /// A watchdog's time has ended.
    Watchdog,
    /// A request of a drive has failed, which is done again when the machine goes on.
    IoError,
    /// Something that the machine needs has failed.
    InternalError,
    /// Its state is being saved.
    SaveVm,
    /// Its state is being restored, or could not be.
    RestoreVm,
    /// The last part of a move: the guest stands still.
    FinishMigrate,
    /// It was moved away.
    PostMigrate,
    /// It waits for the state of a machine that moves here.
    InMigrate,
}

impl RunState {
    /// The word of the control protocol.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Prelaunch => "prelaunch",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Debug => "debug",
            Self::Suspended => "suspended",
            Self::Shutdown => "shutdown",
            Self::GuestPanicked => "guest-panicked",
            Self::Watchdog => "watchdog",
            Self::IoError => "io-error",
            Self::InternalError => "internal-error",
            Self::SaveVm => "save-vm",
            Self::RestoreVm => "restore-vm",
            Self::FinishMigrate => "finish-migrate",
            Self::PostMigrate => "postmigrate",
            Self::InMigrate => "inmigrate",
        }
    }
    /// The text of `info status`.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Self::Running | Self::Paused => self.word().to_owned(),
            _ => format!("paused ({})", self.word()),
        }
    }
    /// Does it take a reset to run again?
    #[must_use]
    pub fn needs_reset(self) -> bool {
        matches!(self, Self::Shutdown | Self::GuestPanicked | Self::InternalError)
    }
    /// Why the machine cannot be started or reset by a command in this state.
    #[must_use]
    pub fn held(self) -> Option<&'static str> {
        match self {
            Self::InMigrate => Some("Guest is waiting for an incoming migration"),
            Self::FinishMigrate => Some("Migration is not finalized yet"),
            Self::RestoreVm => Some("The state of the machine could not be restored: reset it, or load another"),
            _ => None,
        }
    }
}

/// What a reset by the guest does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RebootAction {
    #[default]
    Reset,
    /// It ends the emulator (or whatever switching off does).
    Shutdown,
}

/// What switching off by the guest does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShutdownAction {
    #[default]
    PowerOff,
    Pause,
}

/// What a crash of the guest does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PanicAction {
    Pause,
    Shutdown,
    /// It ends the emulator with a status that is not 0.
    #[default]
    ExitFailure,
    None,
}

/// What the end of a watchdog's time does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WatchdogAction {
    #[default]
    Reset,
    /// The power button is pressed.
    Shutdown,
    /// It ends the emulator.
    PowerOff,
    Pause,
    /// A line on standard error.
    Debug,
    None,
    InjectNmi,
}

/// Their words.
pub const WATCHDOG_ACTIONS: [(&str, WatchdogAction); 7] = [
    ("reset", WatchdogAction::Reset),
    ("shutdown", WatchdogAction::Shutdown),
    ("poweroff", WatchdogAction::PowerOff),
    ("pause", WatchdogAction::Pause),
    ("debug", WatchdogAction::Debug),
    ("none", WatchdogAction::None),
    ("inject-nmi", WatchdogAction::InjectNmi),
];

/// The words alone, for declarations of options.
pub const WATCHDOG_WORDS: [&str; WATCHDOG_ACTIONS.len()] = {
    let mut words = [""; WATCHDOG_ACTIONS.len()];
    let mut n = 0;
    while n < words.len() {
        words[n] = WATCHDOG_ACTIONS[n].0;
        n += 1;
    }
    words
};

impl WatchdogAction {
    #[must_use]
    pub fn word(self) -> &'static str {
        WATCHDOG_ACTIONS.iter().find(|(_, action)| *action == self).map_or("none", |(word, _)| word)
    }
}

/// What becomes of the machine when the guest ends it (`-action`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    pub reboot: RebootAction,
    pub shutdown: ShutdownAction,
    pub panic: PanicAction,
    pub watchdog: WatchdogAction,
}

/// A change in the life of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineEvent {
    Stopped,
    Resumed,
    Reset(ShutdownCause),
    /// It is switched off, or the emulator ends; or it would have been reset, and ends instead.
    Shutdown {
        cause: ShutdownCause,
        reset: bool,
    },
    /// The power button was pressed.
    PowerDown,
    Suspended,
    Woken,
    /// The guest crashed, and that was done about it.
    GuestPanicked(PanicAction),
    /// A watchdog's time has ended, and that is done about it.
    Watchdog(WatchdogAction),
}

/// The architecture of a machine's CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    Aarch64,
    X86_64,
    Ppc64,
}

/// Text for one `info` topic.
pub type Info = Box<dyn Fn() -> String + Send + Sync>;

/// What a board hands over when it is wired.
pub struct Parts {
    pub name: String,
    pub architecture: Architecture,
    pub space: Arc<AddressSpace>,
    /// The ports of x86: 64 KiB.
    pub ports: Option<Arc<AddressSpace>>,
    pub clock: Arc<VirtualClock>,
    pub routing: Arc<InterruptRouting>,
    pub control: VmControl,
    pub log: Log,
    pub cpus: Vec<Arc<dyn MachineCpu>>,
    /// In the order of reset.
    pub devices: Vec<Arc<dyn Device>>,
    /// The RAM that is always there.
    pub ram: Vec<Arc<RamBlock>>,
    /// RAM that comes and goes.
    pub plugged_ram: Box<dyn Fn() -> Vec<Arc<RamBlock>> + Send + Sync>,
    /// Loads memory contents again after the devices were reset (kernel, device tree).
    pub reload: Box<dyn Fn() + Send + Sync>,
    pub power_button: Box<dyn Fn() + Send + Sync>,
    /// Interrupts the guest where it cannot defer it, if the board can.
    pub nmi: Option<Box<dyn Fn() + Send + Sync>>,
    /// Topic and text of board-specific `info` commands.
    pub info: Vec<(&'static str, &'static str, Info)>,
    /// Mappings and other things that live as long as the machine.
    pub keep: Vec<Box<dyn Any + Send + Sync>>,
    /// What can be looked at, the first one first.
    pub displays: Vec<Arc<Console>>,
    /// Keyboards and pointers.
    pub input: Arc<InputHub>,
    pub inventory: Arc<Inventory>,
    /// For machines whose devices come and go.
    pub hotplug: Option<Arc<HotPlug>>,
}

/// What a board does when it wakes from suspend to RAM: devices have been reset as their supply came back, CPUs not yet.
/// False: there is nothing to go on with, the machine starts anew.
pub type Woken = Box<dyn Fn(WakeReason) -> bool + Send + Sync>;

/// The machine.
pub struct Machine {
    parts: Parts,
    devices: Arc<DeviceList>,
    woken: Option<Woken>,
    /// The run state, and whether the guest has suspended the machine, which outlasts a look by the user.
    state: Mutex<(RunState, bool)>,
    actions: Mutex<Actions>,
    /// Devices are at rest, until the machine starts.
    resting: AtomicBool,
    /// Disks are in another process's hands.
    pub(crate) disks_away: AtomicBool,
    /// Options that a machine whose state is taken over must have alike.
    configured: OnceLock<Vec<(String, String)>>,
    listeners: Mutex<Vec<Arc<dyn Fn(MachineEvent) + Send + Sync>>>,
}

/// A vCPU that does not pause for this long is stuck in a host call; the machine says so and waits on.
const SLOW_PAUSE: Duration = Duration::from_secs(10);

impl Machine {
    /// Takes the wired parts; the CPUs' threads are started, paused.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn new(parts: Parts) -> Result<Arc<Self>, rhea_accel::VcpuError> {
        Self::with_sleep(parts, None)
    }
    /// The same for a machine that can be suspended to RAM.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_sleep(mut parts: Parts, woken: Option<Woken>) -> Result<Arc<Self>, rhea_accel::VcpuError> {
        let devices = Arc::new(RwLock::new(std::mem::take(&mut parts.devices)));
        if let Some(hotplug) = &parts.hotplug {
            hotplug.set_devices(&devices);
        }
        let cpus: Vec<_> = parts.cpus.iter().map(Arc::downgrade).collect();
        parts.control.on_halt(Box::new(move || cpus.iter().filter_map(Weak::upgrade).for_each(|c| c.request_pause())));
        parts.inventory.count_cpus(parts.cpus.len());
        for cpu in &parts.cpus {
            cpu.start()?;
        }
        let state = Mutex::new((RunState::Prelaunch, false));
        Ok(Arc::new(Self {
            parts,
            devices,
            woken,
            state,
            actions: Mutex::default(),
            resting: AtomicBool::new(false),
            disks_away: AtomicBool::new(false),
            configured: OnceLock::new(),
            listeners: Mutex::default(),
        }))
    }
    #[must_use]
    pub fn name(&self) -> &str {
        &self.parts.name
    }
    #[must_use]
    pub fn architecture(&self) -> Architecture {
        self.parts.architecture
    }
    #[must_use]
    pub fn space(&self) -> &Arc<AddressSpace> {
        &self.parts.space
    }
    /// The I/O ports, of machines that have any.
    #[must_use]
    pub fn ports(&self) -> Option<&Arc<AddressSpace>> {
        self.parts.ports.as_ref()
    }
    #[must_use]
    pub fn control(&self) -> &VmControl {
        &self.parts.control
    }
    #[must_use]
    pub fn cpus(&self) -> &[Arc<dyn MachineCpu>] {
        &self.parts.cpus
    }
    #[must_use]
    pub fn devices(&self) -> Vec<Arc<dyn Device>> {
        self.devices.read().clone()
    }
    /// What makes devices come and go.
    #[must_use]
    pub fn hotplug(&self) -> Option<&Arc<HotPlug>> {
        self.parts.hotplug.as_ref()
    }
    #[must_use]
    pub fn clock(&self) -> &Arc<VirtualClock> {
        &self.parts.clock
    }
    #[must_use]
    pub fn routing(&self) -> &Arc<InterruptRouting> {
        &self.parts.routing
    }
    /// What can be looked at, the first one first.
    #[must_use]
    pub fn displays(&self) -> &[Arc<Console>] {
        &self.parts.displays
    }
    /// Where input goes.
    #[must_use]
    pub fn input(&self) -> &Arc<InputHub> {
        &self.parts.input
    }
    /// Drives, devices, buses.
    #[must_use]
    pub fn inventory(&self) -> &Arc<Inventory> {
        &self.parts.inventory
    }
    /// Board-specific topics: name and help.
    pub fn topics(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.parts.info.iter().map(|(name, help, _)| (*name, *help))
    }
    /// The text of a topic.
    #[must_use]
    pub fn info(&self, topic: &str) -> Option<String> {
        self.parts.info.iter().find(|(name, ..)| *name == topic).map(|(.., f)| f())
    }
    #[must_use]
    pub fn run_state(&self) -> RunState {
        self.state.lock().0
    }
    #[must_use]
    pub fn running(&self) -> bool {
        self.run_state() == RunState::Running
    }
    /// Can it be suspended to RAM?
    #[must_use]
    pub fn can_sleep(&self) -> bool {
        self.woken.is_some()
    }
    #[must_use]
    pub fn actions(&self) -> Actions {
        *self.actions.lock()
    }
    pub fn set_actions(&self, actions: Actions) {
        *self.actions.lock() = actions;
    }
    /// Sets, once, what [`Self::configured`] says.
    pub(crate) fn set_configured(&self, options: Vec<(String, String)>) {
        let _ = self.configured.set(options);
    }
    /// Options that a machine whose state is taken over must have alike.
    pub(crate) fn configured(&self) -> &[(String, String)] {
        self.configured.get().map_or(&[], Vec::as_slice)
    }
    /// The RAM whose content is saved.
    #[must_use]
    pub fn memory_blocks(&self) -> Vec<Arc<RamBlock>> {
        self.parts.ram.iter().cloned().chain((self.parts.plugged_ram)()).collect()
    }
    /// Has the guest suspended the machine to RAM?
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.state.lock().1
    }
    pub(crate) fn set_suspended(&self, suspended: bool) {
        self.state.lock().1 = suspended;
    }
    pub(crate) fn set_resting(&self) {
        self.resting.store(true, Ordering::SeqCst);
    }
    /// Lets devices go on that were brought to rest.
    pub(crate) fn unrest(&self) {
        if self.resting.swap(false, Ordering::SeqCst) {
            self.devices().iter().for_each(|d| d.resume());
        }
    }
    /// From its start on, it waits for the state of another.
    pub fn await_state(&self) {
        // They were opened so.
        self.disks_away.store(true, Ordering::SeqCst);
        self.set_run_state(RunState::InMigrate);
    }
    /// Changes the word for why the machine stands still.
    pub(crate) fn set_run_state(&self, state: RunState) {
        self.state.lock().0 = state;
    }
    /// Tells `listener` of changes, in the thread that makes them.
    pub fn listen(&self, listener: impl Fn(MachineEvent) + Send + Sync + 'static) {
        self.listeners.lock().push(Arc::new(listener));
    }
    pub(crate) fn tell(&self, event: MachineEvent) {
        let listeners = self.listeners.lock().clone();
        listeners.iter().for_each(|l| l(event));
    }
    /// Lets the CPUs run, unless the machine is suspended, or its disks are another process's and cannot be taken back.
    pub fn start(&self) {
        if let Err(e) = self.take_disks() {
            return eprintln!("rhea: the machine cannot go on: {e}");
        }
        let before = self.run_state();
        self.go();
        if !matches!(before, RunState::Running | RunState::Suspended) {
            self.tell(MachineEvent::Resumed);
        }
    }
    fn go(&self) {
        self.unrest();
        let suspended = {
            let mut state = self.state.lock();
            state.0 = if state.1 { RunState::Suspended } else { RunState::Running };
            state.1
        };
        self.parts.clock.start();
        // Those the machine was stopped for.
        let inventory = &self.parts.inventory;
        let media = inventory.trays().into_iter().filter_map(|tray| tray.cd.medium());
        inventory.drives().into_iter().chain(media).for_each(|drive| drive.retry());
        if suspended {
            return;
        }
        for cpu in &self.parts.cpus {
            cpu.resume();
        }
    }
    /// Lets only some CPUs run (the debugger steps one).
    pub fn start_only(&self, indexes: &[usize]) {
        if self.state.lock().1 {
            return self.start();
        }
        self.state.lock().0 = RunState::Running;
        self.tell(MachineEvent::Resumed);
        self.parts.clock.start();
        for (_, cpu) in self.parts.cpus.iter().enumerate().filter(|(i, _)| indexes.contains(i)) {
            cpu.resume();
        }
    }
    /// Stops CPUs and time; returns when no guest code runs.
    pub fn stop(&self, state: RunState) {
        self.pause_cpus();
        self.parts.clock.stop();
        let before = std::mem::replace(&mut self.state.lock().0, state);
        if matches!(before, RunState::Running | RunState::Suspended) {
            self.tell(MachineEvent::Stopped);
        }
    }
    /// Stops the CPUs for suspend to RAM; time goes on.
    pub fn suspend(&self) {
        if !self.running() {
            return;
        }
        if self.woken.is_none() {
            return self.go();
        }
        self.pause_cpus();
        *self.state.lock() = (RunState::Suspended, true);
        self.tell(MachineEvent::Suspended);
    }
    /// Ends suspend to RAM; nothing if the machine is not suspended.
    pub fn wake(&self, reason: WakeReason) {
        let Some(woken) = &self.woken else { return };
        let was = *self.state.lock();
        if !was.1 {
            return;
        }
        self.parts.clock.stop();
        self.log_cpus();
        for device in self.devices() {
            device.wake();
        }
        if !woken(reason) {
            return self.reset();
        }
        for cpu in &self.parts.cpus {
            cpu.reset();
        }
        self.state.lock().1 = false;
        if was.0 == RunState::Suspended {
            self.go();
        }
        self.tell(MachineEvent::Woken);
    }
    fn pause_cpus(&self) {
        for cpu in &self.parts.cpus {
            cpu.request_pause();
        }
        for cpu in &self.parts.cpus {
            if !cpu.wait_paused(Some(SLOW_PAUSE)) {
                eprintln!("rhea: vCPU {} takes long to pause", cpu.index());
                cpu.wait_paused(None);
            }
        }
    }
    /// Power-on state of everything; runs on if it ran, and could otherwise be started.
    pub fn reset(&self) {
        let ran = matches!(self.run_state(), RunState::Running | RunState::Suspended);
        self.pause_cpus();
        self.parts.clock.stop();
        self.state.lock().1 = false;
        self.log_cpus();
        for device in self.devices() {
            device.reset();
        }
        (self.parts.reload)();
        for cpu in &self.parts.cpus {
            cpu.reset();
        }
        if ran {
            self.go();
        } else if self.run_state() != RunState::Debug {
            self.state.lock().0 = RunState::Prelaunch;
        }
    }
    fn log_cpus(&self) {
        if !self.parts.log.enabled(LogMask::CpuReset) {
            return;
        }
        for cpu in &self.parts.cpus {
            self.parts.log.line(LogMask::CpuReset, format_args!("CPU Reset (CPU {})\n{}", cpu.index(), cpu.describe()));
        }
    }
    /// Presses the power button.
    pub fn power_button(&self) {
        (self.parts.power_button)();
    }
    /// Sends the processors a non-maskable interrupt; false: the board has none.
    pub fn inject_nmi(&self) -> bool {
        self.parts.nmi.as_ref().map(|nmi| nmi()).is_some()
    }
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.parts.log
    }
    /// Has the board a non-maskable interrupt?
    #[must_use]
    pub fn has_nmi(&self) -> bool {
        self.parts.nmi.is_some()
    }
    /// Ends all activity: CPUs, devices, flushed disks.
    pub fn shut_down(&self) {
        self.pause_cpus();
        for cpu in &self.parts.cpus {
            cpu.stop();
        }
        self.parts.clock.stop();
        for device in self.devices() {
            device.release();
        }
    }
}
