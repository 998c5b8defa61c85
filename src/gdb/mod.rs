//! The GDB stub: a TCP server over the gdbstub crate, one connection at a time.

mod arch;
mod ppc64;

use arch::{Aarch64, GuestArch, X86_64};
use crossbeam_channel::{Receiver, Sender, unbounded};
use gdbstub::arch::Arch;
use gdbstub::common::{Signal, Tid};
use gdbstub::conn::{Connection, ConnectionExt};
use gdbstub::stub::run_blocking::{BlockingEventLoop, Event, WaitForStopReasonError};
use gdbstub::stub::{GdbStub, MultiThreadStopReason};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::base::single_register_access::{SingleRegisterAccess, SingleRegisterAccessOps};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps, SwBreakpoint,
    SwBreakpointOps, WatchKind as GdbWatch,
};
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps, outputln};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{Target, TargetError, TargetResult};
use parking_lot::Mutex;
use ppc64::Ppc64;
use rhea_accel::{DebugStop, ShutdownCause, VmRequest, WatchKind};
use rhea_device::OptionError;
use rhea_machine::machine::Architecture;
use rhea_machine::{Machine, RunState};
use rhea_memory::Gva;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::marker::PhantomData;
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::Arc;

/// What wakes the stub.
enum Wake {
    Byte(u8),
    /// The peer is gone.
    End,
    Stop(u32, DebugStop),
}

/// Listens as `-gdb` says and serves connections on a thread of its own; the sender takes the machine's debug stops.
///
/// # Errors
/// [`OptionError`].
pub fn listen(
    device: &str,
) -> Result<(TcpListener, Sender<(u32, DebugStop)>, Receiver<(u32, DebugStop)>), OptionError> {
    let address = device
        .strip_prefix("tcp:")
        .filter(|a| a.rsplit(':').next().is_some_and(|p| p.parse::<u16>().is_ok()) && a.contains(':'));
    let Some(address) = address else {
        return Err(OptionError::new("-gdb", format!("'{device}': expected tcp:HOST:PORT or tcp::PORT")));
    };
    let address = address.split(',').next().unwrap_or(address);
    let full = if address.starts_with(':') { format!("127.0.0.1{address}") } else { address.to_owned() };
    let listener =
        TcpListener::bind(&full).map_err(|e| OptionError::new("-gdb", format!("'{device}': {}", host_error(&e))))?;
    let (sender, receiver) = unbounded();
    Ok((listener, sender, receiver))
}

fn host_error(e: &std::io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// Serves one debugger after the other.
pub fn serve(listener: TcpListener, stops: Receiver<(u32, DebugStop)>, machine: Arc<Machine>) {
    let serve = move || {
        while let Ok((stream, _)) = listener.accept() {
            // A connection that fails concerns only the debugger.
            let _ = session(stream, &stops, &machine);
        }
    };
    // Without the thread there is no debugger; the machine runs.
    if let Err(e) = std::thread::Builder::new().name("rhea-gdb".to_owned()).spawn(serve) {
        eprintln!("rhea: -gdb: {e}");
    }
}

fn session(stream: TcpStream, stops: &Receiver<(u32, DebugStop)>, machine: &Arc<Machine>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (wake, wakes) = unbounded();
    let (mut reader, bytes) = (stream.try_clone()?, wake.clone());
    std::thread::Builder::new().name("rhea-gdb-in".to_owned()).spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            match Read::read(&mut reader, &mut buffer) {
                Ok(n) if n > 0 => {
                    for &b in &buffer[..n] {
                        if bytes.send(Wake::Byte(b)).is_err() {
                            return;
                        }
                    }
                }
                _ => {
                    let _ = bytes.send(Wake::End);
                    return;
                }
            }
        }
    })?;
    // Stops that nobody waited for are old.
    while stops.try_recv().is_ok() {}
    let (stop_in, end) = (stops.clone(), Arc::new(Mutex::new(false)));
    let ended = end.clone();
    std::thread::Builder::new().name("rhea-gdb-stop".to_owned()).spawn(move || {
        while !*ended.lock() {
            if let Ok((cpu, stop)) = stop_in.recv_timeout(std::time::Duration::from_millis(200))
                && wake.send(Wake::Stop(cpu, stop)).is_err()
            {
                return;
            }
        }
    })?;
    // Attaching stops the machine.
    if machine.running() {
        pause(machine);
    }
    if !machine.cpus().iter().all(|cpu| cpu.debugs()) {
        eprintln!(
            "rhea: warning: -gdb: no breakpoints, watchpoints and steps under this accelerator; -accel jit has them"
        );
    }
    let connection = GdbConnection { stream, wakes, bytes: VecDeque::new(), stop: None };
    match machine.architecture() {
        Architecture::Aarch64 => debug::<Aarch64>(connection, machine, &end),
        Architecture::X86_64 => debug::<X86_64>(connection, machine, &end),
        Architecture::Ppc64 => debug::<Ppc64>(connection, machine, &end),
    }
    if !machine.running() {
        machine.control().request(VmRequest::Continue);
    }
    Ok(())
}

/// Runs the protocol until the debugger goes; then sets `end`.
fn debug<A: GuestArch>(connection: GdbConnection, machine: &Arc<Machine>, end: &Mutex<bool>) {
    let mut target = Debugged::<A> {
        arch: PhantomData,
        machine: machine.clone(),
        breakpoints: Vec::new(),
        watchpoints: Vec::new(),
        steps: Vec::new(),
        only: false,
        continued: Vec::new(),
    };
    let _ = GdbStub::new(connection).run_blocking::<Loop<A>>(&mut target);
    *end.lock() = true;
    target.detach();
}

/// Pauses through the main loop and waits for it.
fn pause(machine: &Arc<Machine>) {
    machine.control().request(VmRequest::Stop);
    while machine.running() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

struct GdbConnection {
    stream: TcpStream,
    wakes: Receiver<Wake>,
    bytes: VecDeque<u8>,
    stop: Option<(u32, DebugStop)>,
}

fn gone() -> std::io::Error {
    std::io::ErrorKind::UnexpectedEof.into()
}

impl Connection for GdbConnection {
    type Error = std::io::Error;
    fn write(&mut self, byte: u8) -> Result<(), Self::Error> {
        Write::write_all(&mut self.stream, &[byte])
    }
    fn write_all(&mut self, data: &[u8]) -> Result<(), Self::Error> {
        Write::write_all(&mut self.stream, data)
    }
    fn flush(&mut self) -> Result<(), Self::Error> {
        Write::flush(&mut self.stream)
    }
}

impl ConnectionExt for GdbConnection {
    fn read(&mut self) -> Result<u8, Self::Error> {
        loop {
            if let Some(byte) = self.bytes.pop_front() {
                return Ok(byte);
            }
            match self.wakes.recv() {
                Ok(Wake::Byte(b)) => return Ok(b),
                Ok(Wake::Stop(cpu, stop)) => self.stop = Some((cpu, stop)),
                Ok(Wake::End) | Err(_) => return Err(gone()),
            }
        }
    }
    fn peek(&mut self) -> Result<Option<u8>, Self::Error> {
        while let Ok(wake) = self.wakes.try_recv() {
            match wake {
                Wake::Byte(b) => self.bytes.push_back(b),
                Wake::Stop(cpu, stop) => self.stop = Some((cpu, stop)),
                Wake::End => return Err(gone()),
            }
        }
        Ok(self.bytes.front().copied())
    }
}

type RegId<A> = <<A as GuestArch>::Arch as Arch>::RegId;

struct Debugged<A> {
    arch: PhantomData<A>,
    machine: Arc<Machine>,
    breakpoints: Vec<u64>,
    watchpoints: Vec<(u64, u64, WatchKind)>,
    /// CPUs to step at the next resume.
    steps: Vec<usize>,
    /// Only the CPUs named run at the next resume.
    only: bool,
    continued: Vec<usize>,
}

impl<A: GuestArch> Debugged<A> {
    fn cpu(&self, tid: Tid) -> Result<&Arc<dyn rhea_machine::MachineCpu>, TargetError<&'static str>> {
        self.machine.cpus().get(tid.get() - 1).ok_or(TargetError::NonFatal)
    }
    fn debugs(&self) -> bool {
        self.machine.cpus().iter().all(|cpu| cpu.debugs())
    }
    /// Takes all break- and watchpoints back.
    fn detach(&mut self) {
        if self.machine.running() {
            pause(&self.machine);
        }
        for cpu in self.machine.cpus() {
            for address in &self.breakpoints {
                cpu.remove_breakpoint(Gva(*address));
            }
            for (address, len, kind) in &self.watchpoints {
                cpu.remove_watchpoint(Gva(*address), *len, *kind);
            }
            cpu.set_single_step(false);
        }
    }
}

fn tid(cpu: u32) -> Tid {
    // cpu + 1 is never 0.
    NonZeroUsize::new(cpu as usize + 1).unwrap_or(NonZeroUsize::MIN)
}

impl<A: GuestArch> Target for Debugged<A> {
    type Arch = A::Arch;
    type Error = &'static str;
    fn base_ops(&mut self) -> BaseOps<'_, Self::Arch, Self::Error> {
        BaseOps::MultiThread(self)
    }
    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }
    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }
    fn guard_rail_implicit_sw_breakpoints(&self) -> bool {
        true
    }
}

impl<A: GuestArch> MultiThreadBase for Debugged<A> {
    fn read_registers(&mut self, regs: &mut <A::Arch as Arch>::Registers, tid: Tid) -> TargetResult<(), Self> {
        A::read(&self.cpu(tid)?.read_registers(), regs);
        Ok(())
    }
    fn write_registers(&mut self, regs: &<A::Arch as Arch>::Registers, tid: Tid) -> TargetResult<(), Self> {
        self.cpu(tid)?.write_registers(&A::write(regs));
        Ok(())
    }
    fn read_addrs(&mut self, start: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        let cpu = self.cpu(tid)?;
        if cpu.read_memory(Gva(start), data).is_ok() {
            return Ok(data.len());
        }
        // As much as there is up to the first page that is not mapped.
        let mut done = 0;
        while done < data.len() {
            let at = start.wrapping_add(done as u64);
            let n = ((4096 - (at & 4095)) as usize).min(data.len() - done);
            if cpu.read_memory(Gva(at), &mut data[done..done + n]).is_err() {
                break;
            }
            done += n;
        }
        if done == 0 { Err(TargetError::NonFatal) } else { Ok(done) }
    }
    fn write_addrs(&mut self, start: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        self.cpu(tid)?.write_memory(Gva(start), data).map_err(|_| TargetError::NonFatal)
    }
    fn list_active_threads(&mut self, active: &mut dyn FnMut(Tid)) -> Result<(), Self::Error> {
        (0..).zip(self.machine.cpus()).filter(|(_, cpu)| cpu.present()).for_each(|(n, _)| active(tid(n)));
        Ok(())
    }
    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }
    fn support_single_register_access(&mut self) -> Option<SingleRegisterAccessOps<'_, Tid, Self>> {
        Some(self)
    }
    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl<A: GuestArch> SingleRegisterAccess<Tid> for Debugged<A> {
    fn read_register(&mut self, tid: Tid, register: RegId<A>, buf: &mut [u8]) -> TargetResult<usize, Self> {
        let data = self.cpu(tid)?.read_registers();
        let value = A::place(register).and_then(|r| data.get(r)).ok_or(TargetError::NonFatal)?;
        let room = buf.get_mut(..value.len()).ok_or(TargetError::NonFatal)?;
        room.copy_from_slice(value);
        Ok(value.len())
    }
    fn write_register(&mut self, tid: Tid, register: RegId<A>, value: &[u8]) -> TargetResult<(), Self> {
        let cpu = self.cpu(tid)?;
        let mut data = cpu.read_registers();
        let room = A::place(register).and_then(|r| data.get_mut(r)).ok_or(TargetError::NonFatal)?;
        room.copy_from_slice(value.get(..room.len()).ok_or(TargetError::NonFatal)?);
        cpu.write_registers(&data);
        Ok(())
    }
}

impl<A: GuestArch> ThreadExtraInfo for Debugged<A> {
    fn thread_extra_info(&self, tid: Tid, buf: &mut [u8]) -> Result<usize, Self::Error> {
        let cpu = self.machine.cpus().get(tid.get() - 1).ok_or("no such CPU")?;
        let text = format!("CPU#{} [{}]", tid.get() - 1, cpu.state_word());
        let n = text.len().min(buf.len());
        buf[..n].copy_from_slice(&text.as_bytes()[..n]);
        Ok(n)
    }
}

impl<A: GuestArch> MultiThreadResume for Debugged<A> {
    fn resume(&mut self) -> Result<(), Self::Error> {
        for (i, cpu) in self.machine.cpus().iter().enumerate() {
            cpu.set_single_step(self.steps.contains(&i));
        }
        if self.only || !self.steps.is_empty() && self.continued.is_empty() {
            // Stepping one CPU leaves the others where they are.
            self.machine.start_only(&[self.steps.as_slice(), self.continued.as_slice()].concat());
        } else {
            self.machine.start();
        }
        Ok(())
    }
    fn clear_resume_actions(&mut self) -> Result<(), Self::Error> {
        self.steps.clear();
        self.continued.clear();
        self.only = false;
        Ok(())
    }
    fn set_resume_action_continue(&mut self, tid: Tid, _signal: Option<Signal>) -> Result<(), Self::Error> {
        self.continued.push(tid.get() - 1);
        Ok(())
    }
    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        self.debugs().then_some(self)
    }
    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl<A: GuestArch> MultiThreadSingleStep for Debugged<A> {
    fn set_resume_action_step(&mut self, tid: Tid, _signal: Option<Signal>) -> Result<(), Self::Error> {
        self.steps.push(tid.get() - 1);
        Ok(())
    }
}

impl<A: GuestArch> MultiThreadSchedulerLocking for Debugged<A> {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Self::Error> {
        self.only = true;
        Ok(())
    }
}

impl<A: GuestArch> Breakpoints for Debugged<A> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }
    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }
    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl<A: GuestArch> SwBreakpoint for Debugged<A> {
    fn add_sw_breakpoint(&mut self, addr: u64, _kind: usize) -> TargetResult<bool, Self> {
        // To be refused: a debugger that is told of none puts its own instruction into memory, which is the guest's to execute.
        if !self.debugs() {
            return Ok(false);
        }
        if !self.breakpoints.contains(&addr) {
            self.machine.cpus().iter().for_each(|c| c.add_breakpoint(Gva(addr)));
        }
        self.breakpoints.push(addr);
        Ok(true)
    }
    fn remove_sw_breakpoint(&mut self, addr: u64, _kind: usize) -> TargetResult<bool, Self> {
        let Some(i) = self.breakpoints.iter().position(|b| *b == addr) else { return Ok(false) };
        self.breakpoints.swap_remove(i);
        if !self.breakpoints.contains(&addr) {
            self.machine.cpus().iter().for_each(|c| c.remove_breakpoint(Gva(addr)));
        }
        Ok(true)
    }
}

impl<A: GuestArch> HwBreakpoint for Debugged<A> {
    fn add_hw_breakpoint(&mut self, addr: u64, kind: usize) -> TargetResult<bool, Self> {
        self.add_sw_breakpoint(addr, kind)
    }
    fn remove_hw_breakpoint(&mut self, addr: u64, kind: usize) -> TargetResult<bool, Self> {
        self.remove_sw_breakpoint(addr, kind)
    }
}

fn watch(kind: GdbWatch) -> WatchKind {
    match kind {
        GdbWatch::Write => WatchKind::Write,
        GdbWatch::Read => WatchKind::Read,
        GdbWatch::ReadWrite => WatchKind::Access,
    }
}

impl<A: GuestArch> HwWatchpoint for Debugged<A> {
    fn add_hw_watchpoint(&mut self, addr: u64, len: u64, kind: GdbWatch) -> TargetResult<bool, Self> {
        if !self.debugs() {
            return Ok(false);
        }
        let kind = watch(kind);
        self.machine.cpus().iter().for_each(|c| c.add_watchpoint(Gva(addr), len, kind));
        self.watchpoints.push((addr, len, kind));
        Ok(true)
    }
    fn remove_hw_watchpoint(&mut self, addr: u64, len: u64, kind: GdbWatch) -> TargetResult<bool, Self> {
        let entry = (addr, len, watch(kind));
        let Some(i) = self.watchpoints.iter().position(|w| *w == entry) else { return Ok(false) };
        self.watchpoints.swap_remove(i);
        self.machine.cpus().iter().for_each(|c| c.remove_watchpoint(Gva(addr), len, entry.2));
        Ok(true)
    }
}

impl<A: GuestArch> MonitorCmd for Debugged<A> {
    fn handle_monitor_cmd(&mut self, cmd: &[u8], mut out: ConsoleOutput<'_>) -> Result<(), Self::Error> {
        match cmd {
            b"system_reset" | b"reset" => self.machine.control().reset(ShutdownCause::Host),
            b"quit" => self.machine.control().request(VmRequest::Quit(0)),
            b"info status" => outputln!(out, "VM status: {}", self.machine.run_state().text()),
            _ => outputln!(out, "commands: info status, system_reset, quit"),
        }
        Ok(())
    }
}

struct Loop<A>(PhantomData<A>);

impl<A: GuestArch> BlockingEventLoop for Loop<A> {
    type Target = Debugged<A>;
    type Connection = GdbConnection;
    type StopReason = MultiThreadStopReason<u64>;

    fn wait_for_stop_reason(
        target: &mut Debugged<A>,
        conn: &mut GdbConnection,
    ) -> Result<Event<Self::StopReason>, WaitForStopReasonError<<Debugged<A> as Target>::Error, std::io::Error>> {
        loop {
            if let Some((cpu, stop)) = conn.stop.take() {
                // The main loop has paused all CPUs before it told us.
                let tid = tid(cpu);
                return Ok(Event::TargetStopped(match stop {
                    DebugStop::Breakpoint => MultiThreadStopReason::SwBreak(tid),
                    DebugStop::Step => MultiThreadStopReason::DoneStep,
                    DebugStop::Pause => MultiThreadStopReason::SignalWithThread { tid, signal: Signal::SIGINT },
                    DebugStop::Watchpoint { address, kind } => MultiThreadStopReason::Watch {
                        tid,
                        kind: match kind {
                            WatchKind::Write => GdbWatch::Write,
                            WatchKind::Read => GdbWatch::Read,
                            WatchKind::Access => GdbWatch::ReadWrite,
                        },
                        addr: address.0,
                    },
                }));
            }
            if let Some(byte) = conn.bytes.pop_front() {
                return Ok(Event::IncomingData(byte));
            }
            match conn.wakes.recv() {
                Ok(Wake::Byte(b)) => conn.bytes.push_back(b),
                Ok(Wake::Stop(cpu, stop)) => conn.stop = Some((cpu, stop)),
                Ok(Wake::End) | Err(_) => return Err(WaitForStopReasonError::Connection(gone())),
            }
            if target.machine.run_state() == RunState::Shutdown {
                return Ok(Event::TargetStopped(MultiThreadStopReason::Exited(0)));
            }
        }
    }

    fn on_interrupt(target: &mut Debugged<A>) -> Result<Option<Self::StopReason>, &'static str> {
        pause(&target.machine);
        Ok(Some(MultiThreadStopReason::SignalWithThread { tid: tid(0), signal: Signal::SIGINT }))
    }
}
