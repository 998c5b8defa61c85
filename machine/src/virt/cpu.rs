//! The CPUs of the board: an [`ArmCpu`] as machine, debugger and PSCI see it.

use crate::cpu::{BoardCpu, BoardGuest};
use crate::profile::{Frame, FrameLink};
use rhea_accel::{DebugStop, GuestVcpu, WatchKind};
use rhea_arm::debug::{DebugEvent, HostWatch};
use rhea_arm::{ArmConfig, ArmCpu};
use rhea_device::{LoadError, Saved, state};
use rhea_firmware::AffinityState;
use rhea_ir::guest::Guest;
use rhea_memory::{AddressSpace, Gva};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// The text of `-cpu help`.
#[must_use]
pub fn help() -> String {
    let mut text = "Available CPUs:\n".to_owned();
    for (name, what) in rhea_arm::models::MODELS {
        let _ = writeln!(text, "  {name:<16} {what}");
    }
    text.push_str("\nCPU properties (name=on|off):\n");
    for (name, what, all) in rhea_arm::models::PROPERTIES {
        let _ = writeln!(text, "  {name:<16} {what}{}", if *all { "" } else { " (max)" });
    }
    text
}

/// The power state of each CPU, as PSCI reports it.
pub struct PowerStates(Vec<AtomicU8>);

impl PowerStates {
    #[must_use]
    pub fn new(cpus: u32) -> Arc<Self> {
        Arc::new(Self((0..cpus).map(|_| AtomicU8::new(AffinityState::Off as u8)).collect()))
    }
    #[must_use]
    pub fn get(&self, cpu: u32) -> AffinityState {
        match self.0.get(cpu as usize).map(|s| s.load(Ordering::SeqCst)) {
            Some(0) => AffinityState::On,
            Some(2) => AffinityState::OnPending,
            _ => AffinityState::Off,
        }
    }
    pub fn set(&self, cpu: u32, state: AffinityState) {
        if let Some(s) = self.0.get(cpu as usize) {
            s.store(state as u8, Ordering::SeqCst);
        }
    }
    /// Off becomes "on pending"; false if it was not off.
    #[must_use]
    pub fn begin_on(&self, cpu: u32) -> bool {
        let change = |s: &AtomicU8| {
            let (off, pending) = (AffinityState::Off as u8, AffinityState::OnPending as u8);
            s.compare_exchange(off, pending, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        };
        self.0.get(cpu as usize).is_some_and(change)
    }
}

/// How the board starts its CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the reset vector in the highest exception level: firmware, or a bare-metal ELF file.
    Reset,
    /// As a boot loader would: EL2 or EL1, at this address.
    Boot(u64),
    /// At this address in the highest exception level.
    Bare(u64),
    /// Powered off until PSCI starts it.
    Off,
}

/// One CPU, started so.
#[must_use]
pub fn start(
    vcpu: Arc<dyn GuestVcpu<ArmCpu>>,
    config: &Arc<ArmConfig>,
    space: &Arc<AddressSpace>,
    power: &Arc<PowerStates>,
    start: Start,
) -> Arc<BoardCpu<ArmCpu>> {
    let (index, states, power) = (vcpu.index(), power.clone(), power.clone());
    let reset = move |cpu: &mut ArmCpu| {
        power.set(index, if start == Start::Off { AffinityState::Off } else { AffinityState::On });
        match start {
            Start::Boot(entry) => cpu.power_on(entry, 0),
            Start::Off => {
                cpu.reset();
                cpu.power_off();
            }
            Start::Reset | Start::Bare(_) => {
                // power_on ends a power-off; the reset puts the CPU back to its reset vector.
                cpu.power_on(0, 0);
                cpu.reset();
                if let Start::Bare(entry) = start {
                    cpu.header_mut().pc = entry;
                }
            }
        }
    };
    let word = move |halted| match (states.get(index), halted) {
        (AffinityState::Off, _) => "(off)",
        (_, true) => "(halted)",
        _ => "",
    };
    let hardware_id = config.mpidr(index) & 0xff_00ff_ffff;
    BoardCpu::new(vcpu, space, Arc::new(reset), Box::new(word), hardware_id)
}

impl BoardGuest for ArmCpu {
    fn describe(&mut self) -> String {
        let mut text = format!(" PC={:016x} ", self.header().pc);
        for (i, x) in self.x.all().iter().enumerate() {
            let _ = write!(text, "X{i:02}={x:016x}{}", if i % 4 == 2 { "\n" } else { " " });
        }
        let spsr = self.spsr();
        let flags: String =
            "NZCV".chars().enumerate().map(|(i, c)| if spsr & (1 << (31 - i)) != 0 { c } else { '-' }).collect();
        let security = if self.is_secure() { "S " } else { "" };
        let _ = writeln!(text, "\n SP={:016x} PSTATE={spsr:08x} {flags} {security}EL{}", self.sp, self.el());
        let (fpsr, fpcr) = (self.read_fpsr(), self.fpcr);
        let _ = writeln!(text, " FPCR={fpcr:08x} FPSR={fpsr:08x}");
        for (i, v) in self.v.iter().enumerate() {
            let _ = write!(
                text,
                " V{i:02}={:016x}:{:016x}{}",
                (v >> 64) as u64,
                *v as u64,
                if i % 2 == 1 { "\n" } else { "" }
            );
        }
        text
    }
    fn gdb_registers(&mut self) -> Vec<u8> {
        let mut data = Vec::with_capacity(800);
        for x in self.x.all().iter().chain([&self.sp, &self.header().pc]) {
            data.extend_from_slice(&x.to_le_bytes());
        }
        data.extend_from_slice(&self.spsr().to_le_bytes());
        for v in &self.v {
            data.extend_from_slice(&v.to_le_bytes());
        }
        data.extend_from_slice(&self.read_fpsr().to_le_bytes());
        data.extend_from_slice(&self.fpcr.to_le_bytes());
        data
    }
    fn set_gdb_registers(&mut self, data: &[u8]) {
        let word = |at: usize| data.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
        let half = |at: usize| data.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        for i in 0..31 {
            self.x[i] = word(8 * i).unwrap_or(self.x[i]);
        }
        self.sp = word(248).unwrap_or(self.sp);
        let pc = word(256).unwrap_or(self.header().pc);
        self.header_mut().pc = pc;
        // Of PSTATE only the condition flags: the rest would change the exception level under the debugger's feet.
        if let Some(cpsr) = half(264) {
            self.set_nzcv_bits(cpsr);
        }
        for i in 0..32 {
            let at = 268 + 16 * i;
            if let Some(v) = data.get(at..at + 16).and_then(|b| b.try_into().ok()) {
                self.v[i] = u128::from_le_bytes(v);
            }
        }
        if let (Some(fpsr), Some(fpcr)) = (half(780), half(784)) {
            self.write_fpsr(fpsr);
            self.write_fpcr(fpcr);
        }
    }
    fn frame(&self) -> Frame {
        Frame { pointer: self.x[29], link: FrameLink::Together, big_endian: false, user: self.el() == 0 }
    }
    fn instruction(&self) -> u64 {
        self.header().pc
    }
    fn set_instruction(&mut self, pc: u64) {
        self.header_mut().pc = pc;
    }
    fn is_halted(&self) -> bool {
        self.halted()
    }
    fn add_breakpoint(&mut self, address: u64) {
        self.add_host_breakpoint(address);
    }
    fn remove_breakpoint(&mut self, address: u64) {
        self.remove_host_breakpoint(address);
    }
    fn add_watchpoint(&mut self, address: u64, len: u64, kind: WatchKind) {
        self.add_host_watch(host_watch(address, len, kind));
    }
    fn remove_watchpoint(&mut self, address: u64, len: u64, kind: WatchKind) {
        self.remove_host_watch(host_watch(address, len, kind));
    }
    fn set_step(&mut self, on: bool) {
        self.set_host_step(on);
    }
    fn save_state(&mut self) -> Saved {
        state::encode(rhea_arm::saved::VERSION, &self.save())
    }
    fn load_state(&mut self, saved: &Saved) -> Result<(), LoadError> {
        let saved: rhea_arm::ArmSaved = state::decode(saved, rhea_arm::saved::VERSION)?;
        self.load(&saved);
        self.tell_power();
        Ok(())
    }
    fn take_stop(&mut self) -> DebugStop {
        match self.take_debug_event() {
            Some(DebugEvent::Breakpoint) => DebugStop::Breakpoint,
            Some(DebugEvent::Watchpoint { va, write }) => {
                let kind = if write { WatchKind::Write } else { WatchKind::Read };
                DebugStop::Watchpoint { address: Gva(va), kind }
            }
            Some(DebugEvent::Step) => DebugStop::Step,
            None => DebugStop::Pause,
        }
    }
}

fn host_watch(address: u64, len: u64, kind: WatchKind) -> HostWatch {
    HostWatch { va: address, len, read: kind != WatchKind::Write, write: kind != WatchKind::Read }
}
