//! The CPUs of the board: an accelerator's vCPU with an [`ArmCpu`] in it, as machine, debugger and PSCI see it.

use crate::machine::MachineCpu;
use crossbeam_channel::bounded;
use rhea_accel::{GuestVcpu, Vcpu, VcpuDebug, VcpuError, WatchKind};
use rhea_arm::debug::HostWatch;
use rhea_arm::{ArmConfig, ArmCpu};
use rhea_firmware::AffinityState;
use rhea_ir::guest::Guest;
use rhea_memory::{AddressSpace, BusError, Gpa, Gva, Requester};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

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

/// One CPU.
pub struct BoardCpu {
    vcpu: Arc<dyn GuestVcpu<ArmCpu>>,
    config: Arc<ArmConfig>,
    space: Arc<AddressSpace>,
    power: Arc<PowerStates>,
    start: Start,
}

impl BoardCpu {
    #[must_use]
    pub fn new(
        vcpu: Arc<dyn GuestVcpu<ArmCpu>>,
        config: &Arc<ArmConfig>,
        space: &Arc<AddressSpace>,
        power: &Arc<PowerStates>,
        start: Start,
    ) -> Arc<Self> {
        Arc::new(Self { vcpu, config: config.clone(), space: space.clone(), power: power.clone(), start })
    }
    /// Runs `f` on the CPU's thread and waits for it; `None` if the thread has ended.
    pub fn with<R: Send + 'static>(&self, f: impl FnOnce(&mut ArmCpu) -> R + Send + 'static) -> Option<R> {
        let (done, result) = bounded(1);
        self.vcpu.post(Box::new(move |cpu| {
            // The receiver waits below.
            let _ = done.send(f(cpu));
        }));
        result.recv().ok()
    }
}

impl Vcpu for BoardCpu {
    fn index(&self) -> u32 {
        self.vcpu.index()
    }
    fn start(&self) -> Result<(), VcpuError> {
        self.vcpu.start()
    }
    fn request_pause(&self) {
        self.vcpu.request_pause();
    }
    fn wait_paused(&self, timeout: Option<Duration>) -> bool {
        self.vcpu.wait_paused(timeout)
    }
    fn resume(&self) {
        self.vcpu.resume();
    }
    fn stop(&self) {
        self.vcpu.stop();
    }
    fn kick(&self) {
        self.vcpu.kick();
    }
    fn request(&self, f: Box<dyn FnOnce() + Send>) {
        self.vcpu.request(f);
    }
}

impl MachineCpu for BoardCpu {
    fn reset(&self) {
        let start = self.start;
        let state = if start == Start::Off { AffinityState::Off } else { AffinityState::On };
        self.power.set(self.index(), state);
        self.with(move |cpu| {
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
        });
    }
    fn describe(&self) -> String {
        self.with(|cpu| {
            let mut text = format!(" PC={:016x} ", cpu.header().pc);
            for (i, x) in cpu.x.iter().enumerate() {
                let _ = write!(text, "X{i:02}={x:016x}{}", if i % 4 == 2 { "\n" } else { " " });
            }
            let spsr = cpu.spsr();
            let flags: String =
                "NZCV".chars().enumerate().map(|(i, c)| if spsr & (1 << (31 - i)) != 0 { c } else { '-' }).collect();
            let security = if cpu.is_secure() { "S " } else { "" };
            let _ = writeln!(text, "\n SP={:016x} PSTATE={spsr:08x} {flags} {security}EL{}", cpu.sp, cpu.el());
            let (fpsr, fpcr) = (cpu.read_fpsr(), cpu.fpcr);
            let _ = writeln!(text, " FPCR={fpcr:08x} FPSR={fpsr:08x}");
            for (i, v) in cpu.v.iter().enumerate() {
                let _ = write!(
                    text,
                    " V{i:02}={:016x}:{:016x}{}",
                    (v >> 64) as u64,
                    *v as u64,
                    if i % 2 == 1 { "\n" } else { "" }
                );
            }
            text
        })
        .unwrap_or_default()
    }
    fn state_word(&self) -> &'static str {
        match (self.power.get(self.index()), self.halted()) {
            (AffinityState::Off, _) => "(off)",
            (_, true) => "(halted)",
            _ => "",
        }
    }
    fn hardware_id(&self) -> u64 {
        self.config.mpidr(self.index()) & 0xff_00ff_ffff
    }
}

impl VcpuDebug for BoardCpu {
    fn read_registers(&self) -> Vec<u8> {
        self.with(|cpu| {
            let mut data = Vec::with_capacity(800);
            for x in cpu.x.iter().chain([&cpu.sp, &cpu.header().pc]) {
                data.extend_from_slice(&x.to_le_bytes());
            }
            data.extend_from_slice(&cpu.spsr().to_le_bytes());
            for v in &cpu.v {
                data.extend_from_slice(&v.to_le_bytes());
            }
            data.extend_from_slice(&cpu.read_fpsr().to_le_bytes());
            data.extend_from_slice(&cpu.fpcr.to_le_bytes());
            data
        })
        .unwrap_or_default()
    }
    fn write_registers(&self, data: &[u8]) {
        let data = data.to_vec();
        self.with(move |cpu| {
            let word = |at: usize| data.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
            let half = |at: usize| data.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
            for i in 0..31 {
                cpu.x[i] = word(8 * i).unwrap_or(cpu.x[i]);
            }
            cpu.sp = word(248).unwrap_or(cpu.sp);
            let pc = word(256).unwrap_or(cpu.header().pc);
            cpu.header_mut().pc = pc;
            // Of PSTATE only the condition flags: the rest would change the exception level under the debugger's feet.
            if let Some(cpsr) = half(264) {
                cpu.set_nzcv_bits(cpsr);
            }
            for i in 0..32 {
                let at = 268 + 16 * i;
                if let Some(v) = data.get(at..at + 16).and_then(|b| b.try_into().ok()) {
                    cpu.v[i] = u128::from_le_bytes(v);
                }
            }
            if let (Some(fpsr), Some(fpcr)) = (half(780), half(784)) {
                cpu.write_fpsr(fpsr);
                cpu.write_fpcr(fpcr);
            }
        });
    }
    fn pc(&self) -> Gva {
        Gva(self.with(|cpu| cpu.header().pc).unwrap_or(0))
    }
    fn set_pc(&self, pc: Gva) {
        self.with(move |cpu| cpu.header_mut().pc = pc.0);
    }
    fn read_memory(&self, address: Gva, data: &mut [u8]) -> Result<(), BusError> {
        self.pages(address, data.len(), |gpa, at, n| self.space.read(gpa, &mut data[at..at + n], Requester::Debugger))
    }
    fn write_memory(&self, address: Gva, data: &[u8]) -> Result<(), BusError> {
        self.pages(address, data.len(), |gpa, at, n| self.space.write_rom(gpa, &data[at..at + n]))
    }
    fn add_breakpoint(&self, address: Gva) {
        self.with(move |cpu| cpu.add_host_breakpoint(address.0));
    }
    fn remove_breakpoint(&self, address: Gva) {
        self.with(move |cpu| cpu.remove_host_breakpoint(address.0));
    }
    fn add_watchpoint(&self, address: Gva, len: u64, kind: WatchKind) {
        self.with(move |cpu| cpu.add_host_watch(host_watch(address, len, kind)));
    }
    fn remove_watchpoint(&self, address: Gva, len: u64, kind: WatchKind) {
        self.with(move |cpu| cpu.remove_host_watch(host_watch(address, len, kind)));
    }
    fn set_single_step(&self, on: bool) {
        self.with(move |cpu| cpu.set_host_step(on));
    }
    fn halted(&self) -> bool {
        self.with(|cpu| cpu.halted()).unwrap_or(true)
    }
}

fn host_watch(address: Gva, len: u64, kind: WatchKind) -> HostWatch {
    HostWatch { va: address.0, len, read: kind != WatchKind::Write, write: kind != WatchKind::Read }
}

impl BoardCpu {
    /// Calls `f` for each piece of a virtual range with its physical address, offset and length.
    fn pages(
        &self,
        address: Gva,
        len: usize,
        mut f: impl FnMut(Gpa, usize, usize) -> Result<(), BusError>,
    ) -> Result<(), BusError> {
        let mut at = 0;
        while at < len {
            let va = address.0.wrapping_add(at as u64);
            let n = ((4096 - (va & 4095)) as usize).min(len - at);
            let page = self.with(move |cpu| cpu.walk_debug(va)).flatten().ok_or(BusError::Unassigned)?;
            f(page.page.offset(va & 4095), at, n)?;
            at += n;
        }
        Ok(())
    }
}
