//! The processors of a board: an accelerator's vCPU with its guest state in it, as machine and debugger see it.

use crate::machine::MachineCpu;
use crate::profile::{self, Frame, Sample};
use crossbeam_channel::{Receiver, bounded};
use rhea_accel::{DebugStop, GuestVcpu, Vcpu, VcpuDebug, VcpuError, VmControl, WatchKind};
use rhea_device::{LoadError, Saved};
use rhea_ir::guest::Guest;
use rhea_memory::{AddressSpace, BusError, Gpa, Gva, Requester};
use std::sync::Arc;
use std::time::Duration;

/// What the machine needs of an architecture's processor beyond running it.
pub trait BoardGuest: Guest {
    /// Registers as text.
    fn describe(&mut self) -> String;
    /// All registers in GDB's order.
    fn gdb_registers(&mut self) -> Vec<u8>;
    /// Sets them; a short buffer leaves the rest.
    fn set_gdb_registers(&mut self, data: &[u8]);
    /// The address of the next instruction, as GDB has it.
    fn instruction(&self) -> u64;
    fn set_instruction(&mut self, pc: u64);
    fn is_halted(&self) -> bool;
    /// For a profile.
    fn frame(&self) -> Frame;
    fn add_breakpoint(&mut self, address: u64);
    fn remove_breakpoint(&mut self, address: u64);
    fn add_watchpoint(&mut self, address: u64, len: u64, kind: WatchKind);
    fn remove_watchpoint(&mut self, address: u64, len: u64, kind: WatchKind);
    fn set_step(&mut self, on: bool);
    fn save_state(&mut self) -> Saved;
    /// # Errors
    /// As of [`MachineCpu::load_state`].
    fn load_state(&mut self, state: &Saved) -> Result<(), LoadError>;
    /// Why it stopped for the debugger.
    fn take_stop(&mut self) -> DebugStop;
}

/// A processor that is ending answers no more.
const SAMPLE_PATIENCE: Duration = Duration::from_secs(1);

/// One processor.
pub struct BoardCpu<G: BoardGuest> {
    vcpu: Arc<dyn GuestVcpu<G>>,
    space: Arc<AddressSpace>,
    /// Puts it into the state in which the board starts it.
    reset: Arc<dyn Fn(&mut G) + Send + Sync>,
    /// For `info cpus`; given whether it is halted.
    word: Box<dyn Fn(bool) -> &'static str + Send + Sync>,
    hardware_id: u64,
    present: Box<dyn Fn() -> bool + Send + Sync>,
}

impl<G: BoardGuest> BoardCpu<G> {
    #[must_use]
    pub fn new(
        vcpu: Arc<dyn GuestVcpu<G>>,
        space: &Arc<AddressSpace>,
        reset: Arc<dyn Fn(&mut G) + Send + Sync>,
        word: Box<dyn Fn(bool) -> &'static str + Send + Sync>,
        hardware_id: u64,
    ) -> Arc<Self> {
        Self::pluggable(vcpu, space, reset, word, hardware_id, Box::new(|| true))
    }
    /// One that comes and goes: `present` says whether it is there.
    #[must_use]
    pub fn pluggable(
        vcpu: Arc<dyn GuestVcpu<G>>,
        space: &Arc<AddressSpace>,
        reset: Arc<dyn Fn(&mut G) + Send + Sync>,
        word: Box<dyn Fn(bool) -> &'static str + Send + Sync>,
        hardware_id: u64,
        present: Box<dyn Fn() -> bool + Send + Sync>,
    ) -> Arc<Self> {
        Arc::new(Self { vcpu, space: space.clone(), reset, word, hardware_id, present })
    }
    /// Runs `f` on the CPU's thread and waits for it; `None` if the thread has ended.
    pub fn with<R: Send + 'static>(&self, f: impl FnOnce(&mut G) -> R + Send + 'static) -> Option<R> {
        self.ask(f).recv().ok()
    }
    /// Runs `f` on the CPU's thread; what it says is received unless the thread has ended.
    fn ask<R: Send + 'static>(&self, f: impl FnOnce(&mut G) -> R + Send + 'static) -> Receiver<R> {
        let (done, result) = bounded(1);
        self.vcpu.post(Box::new(move |cpu| {
            // Who asked may have waited long enough.
            let _ = done.send(f(cpu));
        }));
        result
    }
    /// Calls `f` for each piece of a virtual range with its physical address, whether that is a secure one, offset and length.
    fn pages(
        &self,
        address: Gva,
        len: usize,
        mut f: impl FnMut(&AddressSpace, Gpa, usize, usize) -> Result<(), BusError>,
    ) -> Result<(), BusError> {
        let mut at = 0;
        while at < len {
            let va = address.0.wrapping_add(at as u64);
            let n = ((4096 - (va & 4095)) as usize).min(len - at);
            let page = self.with(move |cpu| cpu.walk_debug(va)).flatten().ok_or(BusError::Unassigned)?;
            let side = self.space.secure_side().filter(|_| page.secure);
            f(side.as_ref().unwrap_or(&self.space), page.page.offset(va & 4095), at, n)?;
            at += n;
        }
        Ok(())
    }
}

impl<G: BoardGuest> Vcpu for BoardCpu<G> {
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

impl<G: BoardGuest> MachineCpu for BoardCpu<G> {
    fn reset(&self) {
        let reset = self.reset.clone();
        self.with(move |cpu| reset(cpu));
    }
    fn describe(&self) -> String {
        self.with(G::describe).unwrap_or_default()
    }
    fn state_word(&self) -> &'static str {
        (self.word)(self.halted())
    }
    fn hardware_id(&self) -> u64 {
        self.hardware_id
    }
    fn sample(&self) -> Option<Sample> {
        let space = self.space.clone();
        self.ask(move |cpu| profile::sample(cpu, &space)).recv_timeout(SAMPLE_PATIENCE).ok().flatten()
    }
    fn present(&self) -> bool {
        (self.present)()
    }
    fn save_state(&self) -> Saved {
        self.with(G::save_state).unwrap_or(Saved::NotMigratable("its thread has ended"))
    }
    fn load_state(&self, state: Saved) -> Result<(), LoadError> {
        let ended = || Err(LoadError::Mismatch("its thread has ended".to_owned()));
        self.with(move |cpu| cpu.load_state(&state)).unwrap_or_else(ended)
    }
}

impl<G: BoardGuest> VcpuDebug for BoardCpu<G> {
    fn read_registers(&self) -> Vec<u8> {
        self.with(G::gdb_registers).unwrap_or_default()
    }
    fn write_registers(&self, data: &[u8]) {
        let data = data.to_vec();
        self.with(move |cpu| cpu.set_gdb_registers(&data));
    }
    fn pc(&self) -> Gva {
        Gva(self.with(|cpu| cpu.instruction()).unwrap_or(0))
    }
    fn set_pc(&self, pc: Gva) {
        self.with(move |cpu| cpu.set_instruction(pc.0));
    }
    fn read_memory(&self, address: Gva, data: &mut [u8]) -> Result<(), BusError> {
        self.pages(address, data.len(), |space, gpa, at, n| space.read(gpa, &mut data[at..at + n], Requester::Debugger))
    }
    fn write_memory(&self, address: Gva, data: &[u8]) -> Result<(), BusError> {
        self.pages(address, data.len(), |space, gpa, at, n| space.write_rom(gpa, &data[at..at + n]))
    }
    fn debugs(&self) -> bool {
        self.vcpu.debugs()
    }
    fn add_breakpoint(&self, address: Gva) {
        self.with(move |cpu| cpu.add_breakpoint(address.0));
    }
    fn remove_breakpoint(&self, address: Gva) {
        self.with(move |cpu| cpu.remove_breakpoint(address.0));
    }
    fn add_watchpoint(&self, address: Gva, len: u64, kind: WatchKind) {
        self.with(move |cpu| cpu.add_watchpoint(address.0, len, kind));
    }
    fn remove_watchpoint(&self, address: Gva, len: u64, kind: WatchKind) {
        self.with(move |cpu| cpu.remove_watchpoint(address.0, len, kind));
    }
    fn set_single_step(&self, on: bool) {
        self.with(move |cpu| cpu.set_step(on));
    }
    fn halted(&self) -> bool {
        self.with(|cpu| cpu.is_halted()).unwrap_or(true)
    }
}

/// Reports what stopped a vCPU for the debugger.
pub fn report_stops<G: BoardGuest, V: GuestVcpu<G> + ?Sized + 'static>(vcpu: &Arc<V>, index: u32, control: &VmControl) {
    let (weak, control) = (Arc::downgrade(vcpu), control.clone());
    vcpu.on_debug_stop(Box::new(move || {
        let Some(vcpu) = weak.upgrade() else { return };
        let control = control.clone();
        // The guest is in use where this is called; a posted closure gets it.
        vcpu.post(Box::new(move |cpu| control.debug_stop(index, cpu.take_stop())));
    }));
}
